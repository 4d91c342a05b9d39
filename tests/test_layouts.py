"""Every notebook on a small corpus of every layout, and on a folder with labels of one's own."""

import os
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import pandas as pd
import pytest
from IPython.core.interactiveshell import InteractiveShell

from common.corpora import CORPORA, load_corpus, load_folder
from tests.corpus_folders import LAYOUTS, OWN_LABELS, write_known_corpus, write_own_corpus
from tools.execution import inject_parameters
from tools.generation import list_collection, read_parameters, read_sample_parameters

COLLECTION = list_collection()
# The others read results alone, or clips that ship.
NOTEBOOKS = [path for path in COLLECTION if "folder" in read_parameters(nbformat.read(path, 4))]
SHORT = {"num_timed": 5, "num_pitch_shifts": 1}
TAKEN_OVER = ["gender", "intensity", "statement", "repetition"]
OF_FOLDS = dict.fromkeys(("protocol", "stage_protocol"), "speaker_5fold")
OF_FOLDS |= {"protocols": ["speaker_5fold"]}


@pytest.fixture(scope="session")
def corpus_folders(tmp_path_factory):
    """A function from a layout, or "own", to a folder that is written once."""
    folder, written = tmp_path_factory.mktemp("layouts"), {}

    def find(layout: str) -> Path:
        if layout not in written:
            place = folder / layout
            own = layout == "own"
            written[layout] = write_own_corpus(place) if own else write_known_corpus(place, layout)
        return written[layout]

    return find


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.filterwarnings("ignore:.*emotions by two names")
def test_the_made_up_corpora_are_read_as_the_real_ones(layout, corpus_folders):
    table = load_corpus(layout, folder=corpus_folders(layout))
    corpus = CORPORA[layout]
    assert set(table["emotion"]) == set(corpus.emotions.values())
    num_cells = table["speaker"].nunique() * table["emotion"].nunique()
    assert len(table) == 3 * num_cells and table["speaker"].nunique() == min(6, corpus.num_speakers)
    assert set(LAYOUTS) == set(CORPORA) - {"sample"}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.filterwarnings("ignore:.*emotions by two names")
def test_a_list_of_a_corpus_tells_all_that_its_names_tell(layout, corpus_folders):
    path = next(path for path in NOTEBOOKS if path.stem.startswith("24_"))
    parameters = choose_parameters(path, layout, corpus_folders(layout))
    known = load_corpus(layout, folder=corpus_folders(layout))
    listed = load_folder(parameters["folder"], csv=parameters["csv"], name=layout)
    columns = ["path", "speaker", "emotion", *TAKEN_OVER]
    expected = known[columns].sort_values("path", ignore_index=True)
    pd.testing.assert_frame_equal(listed[columns].sort_values("path", ignore_index=True), expected)


def choose_parameters(path: Path, layout: str, folder: Path) -> dict:
    """Small settings; random weights, which are for the sample alone, read labels from a CSV."""
    notebook = nbformat.read(path, as_version=4)
    committed, small = read_parameters(notebook), read_sample_parameters(notebook)
    small |= {name: value for name, value in (SHORT | OF_FOLDS).items() if name in committed}
    if "speaker" in committed:  # one that no other corpus has
        small["speaker"] = committed["speaker"]
    if "second_corpus" in committed:
        small["second_corpus"] = committed["second_corpus"]  # which is not at hand
    if "epochs" in committed:
        small["epochs"] = 1
    small |= {"corpus": layout, "folder": str(folder)}
    if "random" in small.values():
        table = [
            {"path": f"{label}/{file.name}", "emotion": label, "speaker": f"s{number % 4}"}
            for label in OWN_LABELS
            for number, file in enumerate(sorted((folder / label).glob("*.wav")))
        ]
        if layout != "own":
            table = load_corpus(layout, folder=folder).assign(
                path=lambda rows: [os.path.relpath(file, folder) for file in rows["path"]]
            )[["path", "emotion", "speaker", *TAKEN_OVER]]
        csv = folder.parent / f"{layout}.csv"
        pd.DataFrame(table).to_csv(csv, index=False)
        small |= {"corpus": "sample", "csv": str(csv)}
    return small


@pytest.mark.skipif(not os.environ.get("LAYOUTS"), reason="an hour; LAYOUTS=1 runs it")
@pytest.mark.parametrize("layout", [*LAYOUTS, "own"])
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.filterwarnings("ignore")
def test_notebook_runs_on_every_layout(path, layout, corpus_folders, monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY"):  # no download of what is missing
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.chdir(path.parent)
    run_cells(path, choose_parameters(path, layout, corpus_folders(layout)))


def run_cells(path: Path, parameters: dict) -> None:
    """Run the code cells of a notebook in this process, which spares a kernel's start.

    Raises AssertionError, which names the cell and its exception.
    """
    notebook = inject_parameters(nbformat.read(path, as_version=4), parameters)
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance()
    try:
        for number, cell in enumerate(notebook.cells):
            if cell.cell_type == "code":
                result = shell.run_cell(cell.source)
                error = result.error_before_exec or result.error_in_exec
                assert result.success, f"{path.stem}, cell {number}: {error!r}\n{cell.source}"
    finally:
        plt.close("all")
        InteractiveShell.clear_instance()
