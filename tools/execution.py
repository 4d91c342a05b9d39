"""Execute notebooks with this Python, on copies or in place; `tools.notebooks` is the command."""

import base64
import html
import io
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbconvert import HTMLExporter
from nbformat import NotebookNode
from PIL import Image
from tqdm import tqdm

from common.files import write_atomically
from common.paths import ROOT, RUNS_DIR
from common.results import SYNTHETIC
from tools.generation import (
    KERNELSPEC,
    WIDGET_VIEW,
    find_cell,
    read_parameters,
    read_sample_parameters,
    require_parameters,
)

EXECUTED_DIR = RUNS_DIR / "notebooks"
AUDIO_PLAYER = re.compile(r"<audio\b.*?</audio>", re.DOTALL)
NOTICE = f"""

from IPython.display import Markdown, display

display(Markdown({SYNTHETIC!r}))"""
OWN = ("folder", "csv")  # parameters that name somebody's own recordings
OF_ONE_CORPUS = ("## Findings", "## What was tried")
NO_PLAYER = "<em>▶ Run this cell to hear it.</em>"
PROGRESS_BAR = re.compile(r"\d+%\|.*\||\d+\w* ?\[\d+:\d+.*\]")


def strip_progress(notebook: NotebookNode) -> NotebookNode:
    """Remove progress bars, as widgets or as text, from the outputs of a notebook, in place."""
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        kept = []
        for output in cell.get("outputs", []):
            if output.get("name") == "stderr":
                lines = re.split(r"(?<=[\r\n])", output.text)
                lines = [line for line in lines if line.strip() and not PROGRESS_BAR.search(line)]
                output.text = "".join(lines)
            if output.get("text") != "" and WIDGET_VIEW not in output.get("data", {}):
                kept.append(output)
        if cell.cell_type == "code":
            cell.outputs = kept
    return notebook


def remove_sounds(notebook: NotebookNode) -> NotebookNode:
    """Put a line of text in the place of each audio player in the outputs, in place.

    Many licences of speech corpora forbid passing recordings on, inside a notebook as well.
    """
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            for kind in [kind for kind in data if kind.startswith("audio/")]:
                del data[kind]
            if "text/html" in data:
                data["text/html"] = AUDIO_PLAYER.sub(NO_PLAYER, data["text/html"])
    return notebook


def shrink_pictures(notebook: NotebookNode) -> NotebookNode:
    """Store the PNG pictures of a notebook with a palette of 256 colours, in place."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            picture = output.get("data", {}).get("image/png")
            if picture:
                image = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB")
                small = io.BytesIO()
                image.quantize(256, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
                output["data"]["image/png"] = base64.b64encode(small.getvalue()).decode()
    return notebook


def inject_parameters(notebook: NotebookNode, parameters: dict) -> NotebookNode:
    """Insert a cell after the parameters cell that sets some of them anew, in place.

    Raises ValueError if the parameters cell does not set one of these names.
    """
    require_parameters(notebook, parameters)
    lines = [f"{name} = {value!r}" for name, value in parameters.items()]
    cell = nbformat.v4.new_code_cell("\n".join(lines), metadata={"tags": ["injected-parameters"]})
    notebook.cells.insert(find_cell(notebook, "parameters") + 1, cell)
    return notebook


def set_text_aside(notebook: NotebookNode, *, corpus: str, written_about: str) -> NotebookNode:
    """Take findings out of a notebook that is executed on another corpus than they are about."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and cell.source.startswith(OF_ONE_CORPUS):
            heading = cell.source.partition("\n")[0]
            cell.source = f"{heading}\n\nOf {written_about} alone: see the notebook itself."
    first = notebook.cells[0]
    first.source += f"\n\n*Executed on {corpus}. Numbers in the text are of {written_about}.*"
    return notebook


def execute_notebook(
    path: Path, *, parameters: dict | None = None, folder: Path = EXECUTED_DIR
) -> NotebookNode:
    """Execute a copy of a notebook and keep it, with a page to look at and the kernel's log.

    `parameters` replace those of the parameters cell; `<name>.ipynb`, `<name>.html` and
    `<name>.log` go to `folder`. Gives the executed notebook without progress bars, and without the
    sounds of any corpus but the sample corpus. Raises ValueError if the notebook has no parameter
    `corpus`, or none of a given name; RuntimeError, which names notebook, cell and exception, if a
    cell fails: the copy ends there.
    """
    notebook = nbformat.read(path, as_version=4)
    if parameters:
        inject_parameters(notebook, parameters)
    committed = read_parameters(notebook)["corpus"]
    corpus = (parameters or {}).get("corpus", committed)
    own = [parameters[name] for name in OWN if (parameters or {}).get(name)]
    if corpus != committed or own:
        place = f"{corpus} in {' and '.join(own)}" if own else corpus
        set_text_aside(notebook, corpus=place, written_about=committed)
    if parameters and corpus == "sample" and not own:
        notebook.cells[find_cell(notebook, "injected-parameters")].source += NOTICE
    copy = folder / path.name
    folder.mkdir(parents=True, exist_ok=True)
    # The kernel of this very Python, whatever kernels its user has installed elsewhere.
    os.environ["JUPYTER_PATH"] = str(Path(sys.prefix, "share", "jupyter"))
    client = NotebookClient(
        notebook,
        timeout=None,
        kernel_name=KERNELSPEC["name"],
        record_timing=False,
        store_widget_state=False,
        resources={"metadata": {"path": str(path.parent)}},
    )
    # Without MPLBACKEND the kernel draws its figures inline.
    environment = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    try:
        with copy.with_suffix(".log").open("w") as log, _show_progress(client, path.stem):
            client.execute(stderr=log, env=environment)
    except (CellExecutionError, DeadKernelError) as error:
        reason = _describe_failure(notebook) or f"{error} See {shorten(copy.with_suffix('.log'))}"
        raise RuntimeError(f"{path.name}: {reason}") from error
    finally:
        shrink_pictures(strip_progress(notebook))
        if corpus != "sample":
            remove_sounds(notebook)
        with write_atomically(copy) as temporary:
            nbformat.write(notebook, temporary)
        page, _ = HTMLExporter().from_notebook_node(notebook)
        with write_atomically(copy.with_suffix(".html")) as temporary:
            temporary.write_text(page, encoding="utf-8")
    return notebook


def execute_all(
    paths: list[Path], *, corpus: str | None, parameters: dict, in_place: bool = False
) -> list[Path]:
    """Execute notebooks one after the other, say how each went, and give those that failed.

    `corpus` replaces the parameter of that name, None leaves it; "sample" brings the notebook's
    small settings along. A notebook whose small settings name another corpus, whose published runs
    it reads, or that is about the sample, keeps its own. `parameters` are further ones; `folder`
    and `csv` go to the notebooks that have these, others read results. `in_place` replaces a
    notebook that ran well with no parameter changed; a run on another corpus than the committed one
    stays a copy.
    """
    failed = []
    for path in paths:
        started = time.monotonic()
        try:
            notebook = nbformat.read(path, as_version=4)
            small = read_sample_parameters(notebook)
            committed = read_parameters(notebook)
            own = {k: v for k, v in parameters.items() if k not in OWN or "folder" in committed}
            keeps = committed["corpus"] == "sample" or small["corpus"] != "sample"
            given = {} if keeps or not corpus else {"corpus": corpus}
            changed = {**given, **(small if corpus == "sample" else {}), **own}
            if corpus and committed.get("second_corpus") == corpus:
                changed.setdefault("second_corpus", None)
            as_committed = all(committed.get(name, ...) == changed[name] for name in changed)
            replace = in_place and as_committed
            executed = execute_notebook(path, parameters={} if replace else changed)
            if replace:
                with write_atomically(path) as temporary:
                    nbformat.write(executed, temporary)
            kept = shorten(path if replace else EXECUTED_DIR / path.name)
            print(f"{path.stem:32}{time.monotonic() - started:6.0f} s   {kept}", flush=True)
        except (RuntimeError, ValueError) as error:
            failed.append(path)
            name = "" if path.name in str(error) else f"{path.name}: "
            print(f"FAILED  {name}{error}", file=sys.stderr, flush=True)
    return failed


def shorten(path: Path) -> str:
    """Give a path relative to the repository where it lies inside it."""
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


@contextmanager
def _show_progress(client: NotebookClient, name: str) -> Iterator[None]:
    """Show a bar over the code cells, and at its end the bar of the cell that is running."""
    num_code_cells = sum(cell.cell_type == "code" for cell in client.nb.cells)
    with tqdm(total=num_code_cells, desc=name, unit="cell", leave=False, disable=None) as bar:

        def count_cell(cell: NotebookNode, **_) -> None:
            bar.set_postfix_str("", refresh=False)
            bar.update()

        def show_inner_bar(message: dict) -> None:
            value = message["content"]["data"].get("state", {}).get("value")
            if isinstance(value, str) and "[" in value:
                bar.set_postfix_str(html.unescape(value).strip())

        widget = SimpleNamespace(handle_msg=show_inner_bar)
        client.comm_open_handlers["jupyter.widget"] = lambda message: widget
        client.on_cell_executed = count_cell
        yield


def _describe_failure(notebook: NotebookNode) -> str | None:
    """Name the cell that failed, the line where it begins, and the exception."""
    for number, cell in enumerate(notebook.cells, start=1):
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                first_line = cell.source.strip().splitlines()[0]
                return f"cell {number} ({first_line}) raised {output.ename}: {output.evalue}"
    return None
