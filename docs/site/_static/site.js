// Tables of the class "sortable": a click on a heading sorts by it, another turns the order round.
document.addEventListener("DOMContentLoaded", () => {
  for (const table of document.querySelectorAll("table.sortable")) {
    const headings = [...table.tHead.rows[0].cells];
    headings.forEach((heading, column) => {
      const button = document.createElement("button");
      button.textContent = heading.textContent;
      button.addEventListener("click", () => sort(table, headings, column));
      heading.replaceChildren(button);
    });
  }
});

function read(row, column) {
  const text = row.cells[column].textContent.trim();
  const number = parseFloat(text.replaceAll(",", ""));
  return [text, /^[\d.,]/.test(text) ? number : NaN];
}

function sort(table, headings, column) {
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const numbers = rows.filter((row) => !Number.isNaN(read(row, column)[1]));
  const numeric = numbers.length > rows.length / 2; // a name may begin with a digit
  // Numbers begin with the largest, words with the first; what has no number stays below.
  const before = headings[column].getAttribute("aria-sort");
  const first = numeric ? "descending" : "ascending";
  const order = before === first ? (numeric ? "ascending" : "descending") : first;
  const sign = order === "ascending" ? 1 : -1;
  rows.sort((one, other) => {
    const [a, b] = [read(one, column), read(other, column)];
    if (!numeric) return sign * a[0].localeCompare(b[0]);
    if (Number.isNaN(a[1]) || Number.isNaN(b[1])) return Number.isNaN(a[1]) - Number.isNaN(b[1]);
    return sign * (a[1] - b[1]);
  });
  headings.forEach((heading) => heading.removeAttribute("aria-sort"));
  headings[column].setAttribute("aria-sort", order);
  body.replaceChildren(...rows);
}
