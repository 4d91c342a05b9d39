"""What is generated in every notebook: the badge, the set-up cell and the kernel's name.

The repository's address is read from `[project.urls]` in pyproject.toml and nowhere else.
"""

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterable
from copy import deepcopy
from pathlib import Path

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell

from common.paths import NOTEBOOKS_DIR, ROOT

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


def format_badge(repository: str, notebook: str) -> str:
    """Format the button that opens a notebook in Colab."""
    return BADGE.format(owner_and_name="/".join(repository.split("/")[-2:]), notebook=notebook)


def list_notebooks(folder: Path = NOTEBOOKS_DIR) -> list[Path]:
    """List the notebooks of a folder in the order of their numbers."""
    return sorted(path for path in folder.glob("*.ipynb") if not path.name.startswith("."))


def list_collection(root: Path = ROOT) -> list[Path]:
    """List the notebooks of a repository that belong to its collection.

    A notebook belongs if git tracks it, its evidence is published, or the README or the index
    beside it links to it. Others are a reader's own.
    """
    folder = root / "notebooks"
    command = ["git", "-C", str(folder), "ls-files", "-z", "--", "*.ipynb"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        tracked = done.stdout.split("\0")
    except FileNotFoundError:  # no git
        tracked = []
    pages = [path for path in (root / "README.md", folder / "README.md") if path.is_file()]
    text = "\n".join(path.read_text(encoding="utf-8") for path in pages)
    return [
        path
        for path in list_notebooks(folder)
        if path.name in tracked
        or any((root / "results" / path.stem).glob("*.json"))
        or f"](notebooks/{path.name})" in text
        or f"]({path.name})" in text
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

    Raises ValueError if there is no such cell, it holds anything but `name = literal`, or `corpus`
    is missing.
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

    Raises ValueError if there are none, or the parameters cell does not set one of their names.
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

    The set-up cell is generated down to the line "# Imports"; the imports below it are kept.
    """
    for tag, new in (("badge", new_markdown_cell), ("setup", new_code_cell)):
        if find_cell(notebook, tag) is None:
            kinds = [cell.cell_type for cell in notebook.cells] + ["code"]
            notebook.cells.insert(kinds.index("code"), new(metadata={"tags": [tag]}))
    badge, setup = (notebook.cells[find_cell(notebook, tag)] for tag in ("badge", "setup"))
    badge.source = format_badge(repository, name)
    imports = _read_imports(setup.source)
    setup.source = f"{BOOTSTRAP.format(repository=repository)}\n\n{MARKER}\n{imports}".rstrip()
    setup.metadata = {**setup.metadata, **deepcopy(COLLAPSED), "tags": ["setup"]}
    notebook.metadata["kernelspec"] = dict(KERNELSPEC)
    return notebook


def _read_imports(source: str) -> str:
    """Give what stands below the marker line; without one, every line that is not generated."""
    lines = source.splitlines()
    if MARKER in lines:
        return "\n".join(lines[lines.index(MARKER) + 1 :]).strip("\n")
    generated = BOOTSTRAP.format(repository="").splitlines()
    kept = [line for line in lines if not line or line not in generated]
    kept = [line for line in kept if not line.startswith('REPOSITORY = "')]
    return "\n".join(kept).strip("\n")
