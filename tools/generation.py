"""What is generated: badge and set-up cell of every notebook, and four sections of the README.

The repository's address is read from `[project.urls]` in pyproject.toml and nowhere else.
"""

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterable
from copy import deepcopy
from pathlib import Path

import nbformat
import pandas as pd
from nbformat import NotebookNode

from common.corpora import CORPORA
from common.paths import NOTEBOOKS_DIR, RESULTS_DIR, ROOT
from common.results import tabulate_results, tabulate_transfer
from common.splits import rank_protocol

README = ROOT / "README.md"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
KERNELSPEC = {"display_name": "Python 3", "language": "python", "name": "python3"}
BADGE = (
    "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
    "(https://colab.research.google.com/github/{owner_and_name}/blob/main/notebooks/{notebook}.ipynb)"
)
MARKER = "# Imports"
BOOTSTRAP = """\
# @title Set-up
# Find the repository from any working directory; on Colab, fetch it first.
import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = "{repository}"
DRIVE = False  # on Colab: True keeps corpora and runs on your Google Drive
here, clone = Path.cwd(), Path.cwd() / REPOSITORY.rpartition("/")[2]
places = (place for place in (here, *here.parents, clone) if (place / "common/paths.py").is_file())
if (root := next(places, None)) is None:
    if "/OWNER/" in REPOSITORY:
        raise SystemExit(f"no repository at {{here}}: write its owner for OWNER above")
    if "google.colab" not in sys.modules:
        raise SystemExit(f"no repository at {{here}}: git clone {{REPOSITORY}}, start inside")
    root, needed = clone, clone / "requirements-colab.txt"
    if subprocess.run(["git", "clone", "--depth", "1", REPOSITORY, root]).returncode:
        raise SystemExit(f"{{REPOSITORY}} cannot be cloned: correct REPOSITORY above")
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "-r", needed], check=True)
sys.path.insert(0, str(root))
if DRIVE:
    from common.drive import keep_on_drive

    keep_on_drive()
os.environ |= {{"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "2", **os.environ}}
if hasattr(sys.stderr, "watch_fd_thread"):  # TensorFlow's C++ log goes to Jupyter's own terminal
    os.dup2(sys.stderr.fileno(), 2)"""
# Jupyter and Colab each have their own word for a cell whose code is folded away.
COLLAPSED = {"cellView": "form", "jupyter": {"source_hidden": True}}


def read_repository(pyproject: Path = ROOT / "pyproject.toml") -> str:
    """Read the repository's address, such as https://github.com/owner/name."""
    urls = tomllib.loads(pyproject.read_text()).get("project", {}).get("urls", {})
    if "Repository" not in urls:
        raise ValueError(f"{pyproject.name} has no Repository under [project.urls]: add it")
    return urls["Repository"].removesuffix("/").removesuffix(".git")


def list_notebooks(folder: Path = NOTEBOOKS_DIR) -> list[Path]:
    """List the notebooks of a folder in the order of their numbers."""
    return sorted(path for path in folder.glob("*.ipynb") if not path.name.startswith("."))


def list_collection(
    text: str, *, folder: Path = NOTEBOOKS_DIR, results: Path = RESULTS_DIR
) -> list[Path]:
    """List the notebooks that belong to the collection; the others are a reader's own.

    A notebook belongs if git tracks it, its evidence is published, or the README links to it.

    Parameters
    ----------
    text : str
        The README's.
    folder, results : pathlib.Path, optional
        Where notebooks lie, and the folders of published evidence.
    """
    command = ["git", "-C", str(folder), "ls-files", "-z", "--", "*.ipynb"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        tracked = done.stdout.split("\0")
    except FileNotFoundError:  # no git
        tracked = []
    return [
        path
        for path in list_notebooks(folder)
        if path.name in tracked
        or any((results / path.stem).glob("*.json"))
        or f"](notebooks/{path.name})" in text
    ]


def find_cell(notebook: NotebookNode, tag: str) -> int | None:
    """Give the position of the first cell that carries `tag`, or None."""
    tags = [cell.metadata.get("tags", []) for cell in notebook.cells]
    return next((position for position, found in enumerate(tags) if tag in found), None)


def read_question(notebook: NotebookNode) -> tuple[str, str]:
    """Read the title and the question below it from the first cell."""
    first = notebook.cells[0].source if notebook.cells else ""
    match = re.match(r"#\s+(?P<title>.+)\n+[*_>\s]*(?P<question>(?:(?!\n\n)[^?])+\?)", first)
    if match is None:
        raise ValueError("first cell is not '# Title' and the question: write them so")
    return match["title"].strip(), " ".join(match["question"].split())


def read_parameters(notebook: NotebookNode) -> dict:
    """Read the literals of the cell tagged `parameters`.

    Raises
    ------
    ValueError
        If there is no such cell, it holds anything but `name = literal`, or `corpus` is missing.
    """
    position = find_cell(notebook, "parameters")
    if position is None:
        raise ValueError("no cell tagged 'parameters': tag the one that holds the settings")
    parameters = {}
    for statement in ast.parse(notebook.cells[position].source).body:
        try:
            (target,) = statement.targets
            parameters[target.id] = ast.literal_eval(statement.value)
        except (AttributeError, ValueError):
            code = ast.unparse(statement)
            raise ValueError(f"parameters cell holds {code!r}: keep only name = literal") from None
    if "corpus" not in parameters:
        raise ValueError("parameters cell does not set 'corpus': add it")
    return parameters


def read_sample_parameters(notebook: NotebookNode) -> dict:
    """Read the small settings for the sample corpus from the notebook's metadata.

    Raises
    ------
    ValueError
        If there are none, or the parameters cell does not set one of their names.
    """
    small = notebook.metadata.get("ser", {}).get("sample_parameters")
    if small is None:
        raise ValueError("metadata has no ser.sample_parameters: add the small settings, or {}")
    require_parameters(notebook, small)
    return {"corpus": "sample", **small}


def require_parameters(notebook: NotebookNode, names: Iterable[str]) -> None:
    """Raise ValueError unless the parameters cell sets all these names."""
    unknown = sorted(set(names) - set(read_parameters(notebook)))
    if unknown:
        raise ValueError(f"no parameter named {', '.join(unknown)}: see the parameters cell")


def sync_notebook(notebook: NotebookNode, *, name: str, repository: str) -> NotebookNode:
    """Write the badge, the set-up cell and the kernel's name into a notebook, in place.

    The set-up cell is generated down to the line "# Imports"; the imports below it are kept. An
    older notebook's bootstrap cell and the import cells after it become one set-up cell.
    """
    owner_and_name = "/".join(repository.split("/")[-2:])
    kinds = [cell.cell_type for cell in notebook.cells]
    first_code = kinds.index("code") if "code" in kinds else len(kinds)
    badge = BADGE.format(owner_and_name=owner_and_name, notebook=name)
    position = find_cell(notebook, "badge")
    if position is None:
        cell = nbformat.v4.new_markdown_cell(badge, metadata={"tags": ["badge"]})
        notebook.cells.insert(first_code, cell)
        first_code += 1
    else:
        notebook.cells[position].source = badge
    position = find_cell(notebook, "setup")
    if position is None:
        position = find_cell(notebook, "bootstrap")
        if position is None:
            position = first_code
            notebook.cells.insert(position, nbformat.v4.new_code_cell())
        _merge_imports(notebook, position)
    setup = notebook.cells[position]
    imports = _read_imports(setup.source)
    setup.source = f"{BOOTSTRAP.format(repository=repository)}\n\n{MARKER}\n{imports}".rstrip()
    setup.metadata = {**setup.metadata, **deepcopy(COLLAPSED), "tags": ["setup"]}
    notebook.metadata["kernelspec"] = dict(KERNELSPEC)
    return notebook


def _merge_imports(notebook: NotebookNode, position: int) -> None:
    """Move the import cells after a bootstrap cell into it; its own code is generated anew.

    Where the notebook was executed in order, it counts as executed in order afterwards.
    """
    code = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    in_order = [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    imports = []
    while position + 1 < len(notebook.cells) and _holds_imports(notebook.cells[position + 1]):
        imports.append(notebook.cells.pop(position + 1).source)
    notebook.cells[position].source = f"{MARKER}\n" + "\n\n".join(imports)
    if in_order:
        code = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
        for count, cell in enumerate(code, start=1):
            cell.execution_count = count


def _holds_imports(cell: NotebookNode) -> bool:
    """Tell whether an untagged cell holds imports and calls without a result, and shows nothing."""
    if cell.cell_type != "code" or cell.metadata.get("tags") or cell.outputs:
        return False
    try:
        body = ast.parse(cell.source).body
    except SyntaxError:
        return False
    kinds = [isinstance(statement, ast.Import | ast.ImportFrom) for statement in body]
    return any(kinds) and all(
        imported or isinstance(statement, ast.Expr)
        for imported, statement in zip(kinds, body, strict=True)
    )


def _read_imports(source: str) -> str:
    """Give what stands below the marker line; without one, every line that is not generated."""
    lines = source.splitlines()
    if MARKER in lines:
        return "\n".join(lines[lines.index(MARKER) + 1 :]).strip("\n")
    generated = BOOTSTRAP.format(repository="").splitlines()
    kept = [line for line in lines if not line or line not in generated]
    kept = [line for line in kept if not line.startswith('REPOSITORY = "')]
    return "\n".join(kept).strip("\n")


def sync_readme(
    text: str, *, repository: str, folder: Path = NOTEBOOKS_DIR, results: Path = RESULTS_DIR
) -> str:
    """Replace what stands between `<!-- start:begin -->` and `<!-- start:end -->`, and so on.

    The sections are `start`, `results`, `index` and `corpora`.

    Raises
    ------
    ValueError
        If the text lacks these comments or a notebook lacks its title.
    """
    sections = {
        "start": format_start(repository),
        "results": format_results(),
        "index": format_index(list_collection(text, folder=folder, results=results)),
        "corpora": format_corpora(),
    }
    for name, content in sections.items():
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        before, found, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not (found and closed):
            raise ValueError(f"no {begin} … {end}: add both, each on a line of its own")
        text = f"{before}{begin}\n\n{content}\n\n{end}{after}"
    return text


def format_start(repository: str) -> str:
    """Format the commands that take a newcomer to the first results."""
    name = repository.rpartition("/")[2]
    return f"```bash\ngit clone {repository} && cd {name}\nmake run\n```"


def format_index(notebooks: list[Path]) -> str:
    """Format the README's index of notebooks."""
    rows = []
    for path in notebooks:
        try:
            title, question = read_question(nbformat.read(path, as_version=4))
        except ValueError as error:
            raise ValueError(f"{path.name}: {error}") from error
        rows.append([f"[`{path.stem}`](notebooks/{path.name})", title, question])
    return format_table(pd.DataFrame(rows, columns=["notebook", "title", "question"]))


def format_corpora() -> str:
    """Format the README's table of corpora."""
    rows = [
        [
            f"[{corpus.title}]({corpus.homepage})",
            f"{corpus.num_utterances:,}",
            f"{corpus.num_speakers}",
            corpus.licence,
            f"`data/raw/{corpus.name}/{corpus.example}`",
            "`fetch_corpus`" if corpus.archive else "by hand",
        ]
        for corpus in CORPORA.values()
        if corpus.name != "sample"
    ]
    columns = ["corpus", "utterances", "speakers", "licence", "where a file lies", "obtained"]
    return format_table(pd.DataFrame(rows, columns=columns))


def format_results() -> str:
    """Format the README's published results: one table per corpus that has any."""
    sections = []
    for corpus in CORPORA:
        results = describe_results(corpus) if corpus != "sample" else pd.DataFrame()
        if not results.empty:
            links = [f"[`{name}`](notebooks/{name}.ipynb)" for name in results["notebook"]]
            table = format_table(results.assign(notebook=links))
            sections.append(f"**{CORPORA[corpus].title}**\n\n{table}")
    transfer = describe_transfer()
    if not transfer.empty:
        links = [f"[`{name}`](notebooks/{name}.ipynb)" for name in transfer["notebook"]]
        table = format_table(transfer.assign(notebook=links))
        sections.append(f"**Other corpora**: no corpus of the test is trained on.\n\n{table}")
    return "\n\n".join(sections) or "No results yet: `make reproduce CORPUS=ravdess` makes them."


def describe_results(corpus: str, *, own: bool = False) -> pd.DataFrame:
    """Tabulate the results on a corpus as text: speaker protocols first, the best on top.

    Parameters
    ----------
    corpus : str
    own : bool, optional
        Whether results that were made here take the place of published ones of the same name; a
        column `run` tells them apart. Without it, published results alone.

    Returns
    -------
    pandas.DataFrame
        Empty without results. The column `backend` is there where results have several.
    """
    results = tabulate_results(corpus=corpus, own=own)
    names = ["notebook", "variant", "protocol"]
    results = results.sort_values("own", kind="stable").drop_duplicates(names, keep="last")
    results = results.assign(rank=results["protocol"].map(rank_protocol))
    results = results.sort_values(["rank", "uar"], ascending=[True, False], kind="stable")
    rows = [
        {
            "system": row.title,
            "notebook": row.notebook,
            **({"run": "yours" if row.own else "published"} if own else {}),
            "protocol": row.protocol,
            "UAR ± std [95 % interval]": f"{row.uar:.3f} "
            + ("" if pd.isna(row.uar_std) else f"± {row.uar_std:.3f} ")
            + f"[{row.uar_low:.3f}, {row.uar_high:.3f}]",
            "WA": f"{row.wa:.3f}",
            "weights": "" if pd.isna(row.num_parameters) else f"{row.num_parameters:,}",
            "seeds": f"{row.num_seeds}",
            "minutes": f"{row.minutes:.1f}",
            **({"backend": row.backend} if len(set(results["backend"])) > 1 else {}),
        }
        for row in results.itertuples()
    ]
    return pd.DataFrame(rows)


def describe_transfer() -> pd.DataFrame:
    """Tabulate as text what was published of models that were trained on other corpora."""
    rows = [
        {
            "tested on": f"{row.tested_on} ({row.num_speakers} speakers)",
            "trained on": row.trained_on.replace("+", ", "),
            "emotions": f"{row.num_emotions}",
            "system": row.title,
            "notebook": row.notebook,
            "UAR [95 % interval]": f"{row.uar:.3f} [{row.uar_low:.3f}, {row.uar_high:.3f}]",
        }
        for row in tabulate_transfer(own=False).itertuples()
    ]
    return pd.DataFrame(rows)


def format_table(table: pd.DataFrame) -> str:
    """Format a table of text as Markdown."""
    rows = [list(table.columns), ["---"] * len(table.columns), *table.to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
