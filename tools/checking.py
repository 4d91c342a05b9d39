"""What must hold for every notebook in the repository, and the remedy where it does not."""

import re
from collections.abc import Iterable, Iterator
from copy import deepcopy
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from common.paths import RESULTS_DIR, ROOT, RUNS_DIR
from tools.findings import check_findings, read_findings
from tools.generation import (
    WIDGET_VIEW,
    find_cell,
    list_collection,
    list_notebooks,
    read_parameters,
    read_question,
    read_repository,
    read_sample_parameters,
    sync_notebook,
)
from tools.pages import find_stale_pages

MAX_BYTES = 600_000
MAX_CELL_LINES = 45
MAX_OPENING_LINES = 20
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:home|root|work|tmp|Users)\b|\b[A-Za-z]:[\\/]+Users\b")
FORBIDDEN_CODE = {
    r"(?:filterwarnings|simplefilter)\(\s*(?:action\s*=\s*)?['\"]ignore": "hides warnings: remove "
    "the cause, or catch the one warning that is expected",
    r"%run\b|import_ipynb|\bimport notebooks\b|\bfrom notebooks\b|['\"][^'\"]*\.ipynb['\"]": "uses "
    "another notebook: exchange data through results/ or move the code to common/",
}


def check_notebook(
    path: Path, notebook: NotebookNode, *, repository: str, results: Path = RESULTS_DIR
) -> list[str]:
    """List what is wrong with a notebook of the collection, each entry with its remedy."""
    defects = []
    synced = sync_notebook(deepcopy(notebook), name=path.stem, repository=repository)
    if synced != notebook:
        defects.append("generated cells or kernelspec are out of date: run sync")
    defects += check_findings(notebook, (results / path.stem).glob("*.json"))
    corpus = None
    for read in (read_question, read_parameters, read_sample_parameters):
        try:
            found = read(notebook)
        except (ValueError, SyntaxError) as error:
            defects.append(str(error))
            continue
        if read is read_parameters:
            corpus = found["corpus"]
            defects += check_name(found, name=path.stem)
    num_lines = count_opening_lines(notebook)
    if num_lines > MAX_OPENING_LINES:
        defects.append(
            f"{num_lines} lines are seen before the first idea, at most {MAX_OPENING_LINES}: "
            "shorten the first cells or the parameters"
        )
    if path.stat().st_size > MAX_BYTES:
        size = path.stat().st_size // 1000
        defects.append(f"{size} KB, at most {MAX_BYTES // 1000}: show fewer or smaller pictures")
    code = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    outputs = [output for cell in code for output in cell.outputs]
    if not outputs or [cell.execution_count for cell in code] != list(range(1, len(code) + 1)):
        defects.append("not executed top to bottom: run execute --in-place")
    if "widgets" in notebook.metadata or find_cell(notebook, "injected-parameters") is not None:
        defects.append("holds widget state or injected parameters: run execute --in-place")
    for number, cell in enumerate(notebook.cells, start=1):
        defects += [f"cell {number} {defect}" for defect in _check_cell(cell, corpus)]
    return list(dict.fromkeys(defects))


def count_opening_lines(notebook: NotebookNode) -> int:
    """Count the lines that a reader sees between the title's cell and the parameters' end.

    The first cell has the question and the facts. Blank lines and collapsed cells are not seen.
    """
    end = find_cell(notebook, "parameters")
    opening = notebook.cells[1 : 0 if end is None else end + 1]
    return sum(
        bool(re.search(r"[^\s|:-]", line))
        for cell in opening
        if not cell.metadata.get("jupyter", {}).get("source_hidden")
        for line in cell.source.splitlines()
    )


def _check_cell(cell: NotebookNode, corpus: str | None) -> Iterator[str]:
    seen = [cell.source]
    if cell.cell_type == "code":
        collapsed = cell.metadata.get("jupyter", {}).get("source_hidden")
        if len(cell.source.splitlines()) > MAX_CELL_LINES and not collapsed:
            yield f"has over {MAX_CELL_LINES} lines: split it"
        for pattern, defect in FORBIDDEN_CODE.items():
            if re.search(pattern, cell.source):
                yield defect
        for output in cell.outputs:
            if output.output_type == "error":
                yield f"ends in {output.ename}: mend it and run execute --in-place"
            if output.get("name") == "stderr":
                yield f"has the warning {output.text.strip()[:80]!r}: remove its cause"
            data = output.get("data", {})
            if WIDGET_VIEW in data:
                yield "shows a widget, which is blank once committed: run execute --in-place"
            sounds = (kind.startswith("audio/") or "data:audio" in str(data[kind]) for kind in data)
            if corpus != "sample" and any(sounds):
                yield (
                    f"passes a recording of {corpus} on: run execute --in-place, which takes "
                    "players out"
                )
            texts = (text for kind, text in data.items() if not kind.startswith(("image", "audio")))
            seen += [output.get("text", ""), *output.get("traceback", []), *map(str, texts)]
    text = re.sub(r"base64,[\w+/=\s]+", "", "\n".join(seen))
    if match := MACHINE_PATH.search(text):
        shown = text[match.start() : match.end() + 30].split("\n")[0]
        yield f"names a path of one machine, {shown!r}: print it relative to ROOT"


def check_name(parameters: dict, *, name: str) -> list[str]:
    """List what is wrong with the parameter `notebook`, under which results are filed."""
    if parameters.get("notebook") == name:
        return []
    found = repr(parameters["notebook"]) if "notebook" in parameters else "missing"
    return [f"parameter 'notebook' is {found}: write notebook = {name!r}, or rename the file"]


def check_own(
    path: Path, notebook: NotebookNode, *, folders: Iterable[Path]
) -> tuple[list[str], list[str]]:
    """List defects and notes of a notebook that is a reader's own and not of the collection.

    It may be half done, and show whatever Jupyter leaves in it. Only what would give wrong
    numbers, or mix them with those of another notebook, is a defect.
    """
    defects, notes = [], []
    try:
        defects += check_name(read_parameters(notebook), name=path.stem)
    except (ValueError, SyntaxError) as error:
        defects.append(str(error))
    for number, cell in enumerate(notebook.cells, start=1):
        for pattern, note in FORBIDDEN_CODE.items():
            if cell.cell_type == "code" and re.search(pattern, cell.source):
                notes.append(f"cell {number} {note}")
    evidence = [file for folder in folders for file in (folder / path.stem).glob("*.json")]
    return defects, [*notes, *check_findings(notebook, evidence)]


def check_all(root: Path = ROOT) -> tuple[list[str], list[str]]:
    """List what is wrong with all notebooks and generated pages, as "file: defect: remedy".

    First what must be mended, then what should be before a reader's own notebook joins the
    collection (`list_collection`).
    """
    repository = read_repository()
    folder, results = root / "notebooks", root / "results"
    collection = list_collection(root)
    defects, notes = [], []
    authors = {}
    for path in sorted(list_notebooks(folder), key=lambda path: path not in collection):
        try:
            notebook = nbformat.read(path, as_version=4)
            nbformat.validate(notebook)
        except Exception as error:
            defects.append(f"{path.name}: not a valid notebook ({error}): write it again")
            continue
        if path in collection:
            hints = []
            found = check_notebook(path, notebook, repository=repository, results=results)
        else:
            found, hints = check_own(path, notebook, folders=(results, RUNS_DIR / "results"))
        findings = " ".join(read_findings(notebook).split())
        author = authors.setdefault(findings, path.name)
        if findings and author != path.name:
            copied = f"Findings are those of {author}: write what yours shows, or take them out"
            hints = [hint for hint in hints if not hint.startswith("Findings")]
            (found if path in collection else hints).append(copied)
        defects += [f"{path.name}: {defect}" for defect in found]
        notes += [f"{path.name}: {hint}" for hint in hints]
    try:
        defects += [
            f"{path.relative_to(root)}: generated sections are out of date: run sync"
            for path in find_stale_pages(root)
        ]
    except ValueError as error:
        defects.append(str(error))
    return defects, notes
