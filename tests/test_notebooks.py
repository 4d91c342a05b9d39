"""The tools that keep the notebooks alike, and every notebook on the sample corpus."""

import ast
import json
import os
import re
import shutil
import subprocess
import symtable
import sys
from copy import deepcopy
from functools import partial
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from common import paths
from common.drive import keep_on_drive
from common.files import hash_file
from common.paths import ROOT
from common.results import load_results, read_evidence
from tools import checking, notebooks, pages, publication
from tools.execution import (
    EXECUTED_DIR,
    NO_PLAYER,
    execute_all,
    execute_notebook,
    remove_sounds,
    strip_progress,
)
from tools.findings import check_findings
from tools.generation import (
    BOOTSTRAP,
    MARKER,
    WIDGET_VIEW,
    find_cell,
    list_collection,
    read_parameters,
    read_repository,
    read_sample_parameters,
    sync_notebook,
)
from tools.notebooks import main, parse_parameter, select_notebooks, sync_all
from tools.pages import PAGES, describe_notebook, fill_sections, read_run_time

REPOSITORY = "https://github.com/someone/some-notebooks"
NAME = "12_example"
# One of each family: quick, and typical of it.
QUICK = (
    *("01_prepare_corpora", "13_cnn_lstm", "22_wav2vec2_transfer"),
    *("31_stacked_cnn_attention_lstm", "40_augmentation_and_balance"),
)
COLLECTION = list_collection()
PLAYER = (
    '<audio controls="controls">\n<source src="data:audio/wav;base64,+/tmp/abc=" '
    'type="audio/wav" />\nYour browser does not support the audio element.\n</audio>'
)


def write_pages(folder):
    """Write the pages that have generated sections, these still empty."""
    for name, sections in PAGES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        marks = [f"<!-- {part}:begin -->\n<!-- {part}:end -->\n" for part in sections]
        (folder / name).write_text("".join(marks))


def make_notebook(
    source="print(corpus)", *, parameters='corpus = "ravdess"\nepochs = 50', text="1"
):
    """Make a notebook as it should be, executed, with `source` in its last cell."""
    notebook = new_notebook(
        cells=[
            new_markdown_cell("# Example\n\nDoes it hold?"),
            new_code_cell(f'notebook = "{NAME}"\n{parameters}', metadata={"tags": ["parameters"]}),
            new_code_cell(source, outputs=[new_output("stream", name="stdout", text=text)]),
        ],
        metadata={"ser": {"sample_parameters": {"epochs": 1}}},
    )
    sync_notebook(notebook, name=NAME, repository=REPOSITORY)
    for number, cell in enumerate((c for c in notebook.cells if c.cell_type == "code"), start=1):
        cell.execution_count = number
    return notebook


def check(notebook, folder):
    path = folder / f"{NAME}.ipynb"
    nbformat.write(notebook, path)
    kept = nbformat.read(path, as_version=4)
    return checking.check_notebook(path, kept, repository=REPOSITORY)


@pytest.fixture
def beside_clone(tmp_path):
    """A folder in which notebooks find the repository as they do after a clone."""
    (tmp_path / REPOSITORY.rpartition("/")[2]).symlink_to(ROOT)
    return tmp_path


def change(**changes):
    """Make a function that changes attributes of a notebook's last cell."""
    return lambda notebook: notebook.cells[-1].update(changes)


def show(output_type, **content):
    """Make a function that replaces the output of a notebook's last cell."""
    return change(outputs=[new_output(output_type, **content)])


def rename(notebook, name):
    """Write another name into a notebook's parameters."""
    notebook.cells[3].source = notebook.cells[3].source.replace(NAME, name)


def write_findings(notebook, text):
    """Add Findings to a notebook."""
    notebook.cells.append(new_markdown_cell(f"## Findings\n\n{text}"))


def test_a_notebook_as_it_should_be_has_no_defect(tmp_path):
    assert check(make_notebook(), tmp_path) == []


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda nb: nb.cells.pop(1), "generated cells"),
        (lambda nb: nb.cells[2].update(source="import os"), "generated cells"),
        (lambda nb: nb.metadata.update(kernelspec={"name": "my_env"}), "kernelspec"),
        (lambda nb: nb.cells[0].update(source="No heading"), "first cell"),
        (lambda nb: nb.cells[0].update(source="# Title\n\nNo question.\n\nWhy?"), "first cell"),
        (lambda nb: nb.cells[3].metadata.clear(), "no cell tagged 'parameters'"),
        (lambda nb: nb.cells[3].update(source='corpus = "a"\nx = len(corpus)'), "x = len(corpus)"),
        (
            lambda nb: nb.cells[3].update(source="for corpus in []: pass"),
            "keep only name = literal",
        ),
        (lambda nb: nb.cells[3].update(source="epochs = 2"), "does not set 'corpus'"),
        (
            lambda nb: rename(nb, "11_cnn"),
            "parameter 'notebook' is '11_cnn': write notebook = '12_",
        ),
        (lambda nb: nb.cells[3].update(source='corpus = "a"\nepochs = 1'), "is missing"),
        (lambda nb: write_findings(nb, "The UAR is 66.3 %."), "Findings say 66.3, which no output"),
        (lambda nb: nb.metadata.pop("ser"), "ser.sample_parameters"),
        (
            lambda nb: nb.metadata.update(ser={"sample_parameters": {"epoch": 1}}),
            "no parameter named epoch",
        ),
        (lambda nb: nb.metadata.update(widgets={}), "widget state"),
        (change(execution_count=None), "not executed"),
        (change(execution_count=9), "not executed"),
        (change(outputs=[]), "not executed"),
        (change(source="\n".join(["x = 1"] * 46)), "over 45 lines"),
        (
            lambda nb: nb.cells[3].update(source=nb.cells[3].source + "\nepochs = 1" * 17),
            "21 lines are seen before the first idea, at most 20",
        ),
        (change(source="import warnings\nwarnings.filterwarnings('ignore')"), "hides warnings"),
        (change(source='warnings.simplefilter(action="ignore")'), "hides warnings"),
        (change(source="%run 11_cnn.ipynb"), "another notebook"),
        (change(source="import import_ipynb"), "another notebook"),
        (change(source='open("/home/me/x.wav")'), "path of one machine, '/home/me"),
        (change(source=r'open("C:\\Users\\me")'), "path of one machine"),
        (show("stream", name="stdout", text="saved in /tmp/x"), "path of one machine, '/tmp/x'"),
        (show("display_data", data={"text/html": "<p>/root/a</p>"}), "path of one machine"),
        (show("stream", name="stdout", text="x" * 600_001), "KB, at most 600"),
        (show("stream", name="stderr", text="UserWarning: no"), "warning 'UserWarning: no'"),
        (show("error", ename="KeyError", evalue="x", traceback=[]), "ends in KeyError"),
        (show("display_data", data={WIDGET_VIEW: {"model_id": "1"}}), "shows a widget"),
        (show("display_data", data={"text/html": PLAYER}), "passes a recording of ravdess on"),
        (show("display_data", data={"audio/wav": "UklGR="}), "passes a recording of ravdess on"),
    ],
)
def test_check_finds_each_defect(tmp_path, spoil, words):
    notebook = make_notebook()
    spoil(notebook)
    defects = check(notebook, tmp_path)
    assert len(defects) == 1, defects
    assert words in defects[0]


@pytest.mark.parametrize(
    "text", ["https://example.org/work/x", "data/tmp/x", "24/48", "/workshop", "and/or"]
)
def test_check_lets_harmless_text_pass(tmp_path, text):
    assert check(make_notebook(text=text), tmp_path) == []


def test_check_does_not_read_pictures_or_sounds(tmp_path):
    notebook = make_notebook(parameters='corpus = "sample"\nepochs = 50')
    data = {"image/png": "+/tmp/abc=", "text/html": PLAYER, "text/plain": "sound"}
    show("display_data", data=data)(notebook)
    assert check(notebook, tmp_path) == []


def test_check_names_a_file_that_is_no_notebook(tmp_path, collection):
    (tmp_path / "notebooks/10_broken.ipynb").write_text("{")
    defects, _ = collection()
    assert any(defect.startswith("10_broken.ipynb: not a valid notebook") for defect in defects)


def test_sync_inserts_the_cells_once_and_keeps_outputs():
    notebook = make_notebook()
    assert [cell.metadata.get("tags") for cell in notebook.cells[1:4]] == [
        ["badge"],
        ["setup"],
        ["parameters"],
    ]
    assert f"someone/some-notebooks/blob/main/notebooks/{NAME}.ipynb" in notebook.cells[1].source
    synced = sync_notebook(deepcopy(notebook), name=NAME, repository=REPOSITORY)
    assert synced == notebook

    moved = sync_notebook(deepcopy(notebook), name=NAME, repository="https://github.com/a/b")
    assert 'REPOSITORY = "https://github.com/a/b"' in moved.cells[2].source
    assert "a/b/blob/main" in moved.cells[1].source
    assert moved.cells[2].execution_count == 1
    assert moved.cells[4] == notebook.cells[4]


def test_sync_keeps_the_imports_below_the_marker():
    notebook = make_notebook()
    (setup,) = (cell for cell in notebook.cells if "setup" in cell.metadata.get("tags", []))
    assert setup.source.startswith("# @title Set-up\n") and setup.source.endswith(f"\n{MARKER}")
    assert setup.metadata.cellView == "form" and setup.metadata.jupyter.source_hidden is True
    setup.source = setup.source.replace('"2"', '"3"') + "\nimport keras\n\nkeras.version()"
    setup.metadata.pop("cellView")
    sync_notebook(notebook, name=NAME, repository=REPOSITORY)
    assert setup.source == (
        f"{BOOTSTRAP.format(repository=REPOSITORY)}\n\n{MARKER}\nimport keras\n\nkeras.version()"
    )
    assert setup.metadata.cellView == "form"
    setup.source = setup.source.replace(f"{MARKER}\n", "")
    sync_notebook(notebook, name=NAME, repository="https://github.com/a/b")
    assert setup.source.endswith(f"2)\n\n{MARKER}\nimport keras\n\nkeras.version()")
    assert setup.source.count("import os") == 1


def test_opening_counts_what_a_reader_sees():
    notebook = make_notebook(parameters='corpus = "ravdess"\n\nepochs = 50  # in all')
    notebook.cells[0].source += "\n\n| | |\n|---|---|\n| corpus | RAVDESS |"
    assert checking.count_opening_lines(notebook) == 4
    notebook.cells[2].metadata.clear()
    assert checking.count_opening_lines(notebook) > 18


@pytest.fixture
def collection(tmp_path, monkeypatch):
    """A function that checks a repository of one notebook, with Findings, which git tracks."""
    monkeypatch.setattr(pages, "format_results", lambda: "")
    write_pages(tmp_path)
    notebook = make_notebook(text="UAR 66.3 %")
    write_findings(notebook, "The UAR on unknown voices is 66.3 %.")
    nbformat.write(notebook, tmp_path / f"notebooks/{NAME}.ipynb")
    track(tmp_path)
    return partial(checking.check_all, tmp_path)


def track(folder):
    """Let git track every file of a folder."""
    for command in (["init", "--quiet"], ["add", "--all"]):
        subprocess.run(["git", "-C", folder, *command], check=True)


def fork(folder, *, name="91_mine", parameter=None):
    """Copy the example as the README says: rename, change a cell, run all in Jupyter, save."""
    notebook = nbformat.read(folder / f"notebooks/{NAME}.ipynb", as_version=4)
    rename(notebook, parameter or name)
    notebook.cells[4].source = "def build_model(input_shape, num_classes): ..."
    bar = new_output("display_data", data={WIDGET_VIEW: {"model_id": "1"}, "text/plain": "bar"})
    line = new_output("stream", name="stderr", text="100%|████| 8/8 [00:01<00:00, 4.0it/s]")
    notebook.cells[4].outputs += [bar, line]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.execution_count += 7
    notebook.metadata.kernelspec.display_name = "Python 3 (ipykernel)"
    notebook.metadata.widgets = {"application/vnd.jupyter.widget-state+json": {}}
    path = folder / f"notebooks/{name}.ipynb"
    nbformat.write(notebook, path)
    return path


def test_sync_and_check_agree_on_a_folder(tmp_path, collection):
    path = tmp_path / f"notebooks/{NAME}.ipynb"
    defects, notes = collection()
    assert [defect.split(":")[0] for defect in defects] == [path.name, *PAGES]
    assert sync_all(tmp_path) == [path, *(tmp_path / name for name in PAGES)]
    assert notes == []
    assert collection() == ([], [])
    assert sync_all(tmp_path) == []
    index = (tmp_path / "notebooks/README.md").read_text()
    assert f"| [`{NAME}`]({NAME}.ipynb) | Example | Does it hold? | — | — | intermediate |" in index
    assert f"blob/main/notebooks/{NAME}.ipynb) |" in index
    assert f"git clone {read_repository()}" in (tmp_path / "README.md").read_text()


def test_a_page_that_is_missing_or_has_no_comments_is_named(tmp_path, collection):
    sync_all(tmp_path)
    (tmp_path / "results/README.md").write_text("No comments.")
    assert collection()[0] == [
        "results/README.md: no <!-- results:begin --> … <!-- results:end -->: add both, each on a "
        "line of its own"
    ]
    (tmp_path / "results/README.md").unlink()
    assert collection()[0] == ["results/README.md is missing: check it out again"]


def test_index_says_what_a_notebook_is_and_how_good():
    notebook = make_notebook()
    notebook.cells[
        0
    ].source += (
        "\n\n| | |\n|---|---|\n| run time | a minute with the published runs; hours to train |"
    )
    notebook.metadata["ser"]["level"] = "beginner"
    results = [
        {
            "notebook": NAME,
            "corpus": corpus,
            "protocol": protocol,
            "metrics": {"uar": {"score": uar}},
        }
        for corpus, protocol, uar in (
            ("ravdess", "speaker_5fold", 0.6123),
            ("ravdess", "speaker_6fold", 0.9),  # of another protocol
            ("ravdess", "random_5fold", 0.9),
            ("ravdess", "unregistered", 0.95),
            ("tess", "leave_one_speaker_out", 0.8),
        )
    ]
    assert describe_notebook(notebook, results, name=NAME) == {
        "title": "Example",
        "question": "Does it hold?",
        "best_score": "61.2 % (RAVDESS)",
        "run_time": "a minute",
        "level": "beginner",
    }
    assert describe_notebook(notebook, results, name="13_other")["best_score"] == ""
    whole = describe_notebook(notebook, results, name=pages.COMPARISON)["best_score"]
    assert whole == "61.2 % (RAVDESS, the best without enrolment)"
    variant, corpus, protocol, label = pages.LABELLED["50_cross_corpus"]
    heard = {"notebook": "50_cross_corpus", "variant": variant, "corpus": corpus}
    heard |= {"protocol": protocol, "ablation": True, "metrics": {"uar": {"score": 0.538}}}
    found = describe_notebook(notebook, [*results, heard], name="50_cross_corpus")["best_score"]
    assert found == f"54 % (RAVDESS, SAVEE, TESS: {label})"
    own = [{**results[0], "corpus": "ours", "ablation": False}]
    assert pages.find_best_score(own, notebook=NAME, corpus="ours").endswith("% (ours)")
    notebook.metadata["ser"]["level"] = "easy"
    with pytest.raises(ValueError, match="ser.level is 'easy': write one of beginner, intermed"):
        describe_notebook(notebook, results, name=NAME)


def test_every_row_of_the_readme_but_the_svm_is_of_speech_at_one_level():
    published = load_results(own=False, ablations=True)
    for _, notebook, variant, corpus, *protocols in pages.HIGHLIGHTS:
        found = [
            result["features"]["recipe"]["steps"][0]["step"]
            for result in published
            if (result["notebook"], result["variant"], result["corpus"])
            == (notebook, variant, corpus)
            and result["protocol"] in protocols
        ]
        assert found == ["Trim" if variant == "svm" else "Level"] * 2, (notebook, variant)


def test_every_labelled_score_has_its_evidence_and_no_empty_one_is_left():
    published = load_results(own=False, ablations=True)
    for path in COLLECTION:
        corpus = read_parameters(nbformat.read(path, as_version=4))["corpus"]
        score = pages.find_best_score(published, notebook=path.stem, corpus=corpus)
        if path.stem in pages.LABELLED:
            assert pages.LABELLED[path.stem][-1] in score, path.stem
        else:
            usual = {r["corpus"] for r in published if r["notebook"] == path.stem}
            assert (score != "") == (corpus in usual or path.stem == pages.COMPARISON), path.stem
    assert set(pages.LABELLED) <= {path.stem for path in COLLECTION}


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("half a minute with the published run; three minutes on 2 CPU cores", "half a minute"),
        ("about two minutes on 2 CPU cores", "about two minutes"),
        ("seconds", "seconds"),
        ("under a minute, and the time of a download", "under a minute"),
    ],
)
def test_run_times_are_short(text, short):
    notebook = make_notebook()
    assert read_run_time(notebook) == ""
    notebook.cells[0].source += f"\n\n| run time | {text} |"
    assert read_run_time(notebook) == short


def test_readme_is_short_and_its_first_screen_is_complete():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.split()) < 1000
    opening = text.split("## ")[0]
    assert "00_tour__ravdess__fall.png" in opening and "make run" in opening
    picture = re.search(r'<img src="([^"]+)"[^>]* alt="[^"]+"', opening)
    assert (ROOT / picture[1]).is_file()
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
        assert (ROOT / link).exists(), link


def test_a_fork_leaves_check_green_and_its_copied_findings_are_noted(tmp_path, collection):
    readme = tmp_path / "README.md"
    sync_all(tmp_path)
    path = fork(tmp_path)
    copied = f"91_mine.ipynb: Findings are those of {NAME}.ipynb: write what yours shows"
    defects, (note,) = collection()
    assert defects == []
    assert note.startswith(copied)

    notebook = nbformat.read(path, as_version=4)
    notebook.cells[-1].source = "## Findings\n\nThe UAR is 70.1 %."
    nbformat.write(notebook, path)
    defects, (note,) = collection()
    assert defects == [] and note.startswith("91_mine.ipynb: Findings say 70.1, which no output")
    write_evidence(tmp_path, name="91_mine").write_text('{"metrics": {"uar": {"mean": 0.70143}}}')
    shutil.move(tmp_path / "results/91_mine", paths.RUNS_DIR / "results/91_mine")
    assert collection() == ([], [])
    shutil.rmtree(paths.RUNS_DIR / "results/91_mine")
    before = readme.read_text()
    sync_all(tmp_path)
    assert readme.read_text() == before


def test_a_fork_filed_under_another_name_is_a_defect(tmp_path, collection):
    sync_all(tmp_path)
    fork(tmp_path, name="05_mine", parameter=NAME)
    defects, (note,) = collection()
    assert defects == [
        f"05_mine.ipynb: parameter 'notebook' is '{NAME}': write notebook = '05_mine', "
        "or rename the file"
    ]
    assert note.startswith(f"05_mine.ipynb: Findings are those of {NAME}.ipynb")


@pytest.mark.parametrize("join", ["git", "evidence"])
def test_a_fork_that_joins_the_collection_is_checked_like_the_others(tmp_path, collection, join):
    sync_all(tmp_path)
    fork(tmp_path)
    if join == "git":
        track(tmp_path)
    else:
        (tmp_path / "results/91_mine").mkdir(parents=True)
        (tmp_path / "results/91_mine/ravdess__speaker_5fold.json").write_text("{}")
    defects, notes = collection()
    assert notes == []
    for words in (
        "Findings are those of",
        "not executed top to bottom",
        "notebooks/README.md: generated",
    ):
        assert any(words in defect for defect in defects), words


def test_a_notebook_that_the_readme_lists_belongs_without_git(tmp_path):
    (tmp_path / "notebooks").mkdir()
    for name in ("11_cnn", "12_lstm", "13_other"):
        (tmp_path / f"notebooks/{name}.ipynb").touch()
    (tmp_path / "results/13_other").mkdir(parents=True)
    (tmp_path / "results/13_other/a.json").touch()
    (tmp_path / "README.md").write_text("| [`11_cnn`](notebooks/11_cnn.ipynb) |")
    found = list_collection(tmp_path)
    assert [path.stem for path in found] == ["11_cnn", "13_other"]


def find_in_findings(text, *, outputs=(), evidence=()):
    """List what is wrong with these Findings under a cell with these outputs."""
    cells = [new_markdown_cell("# Example\n\nDoes it hold? 99.9"), new_code_cell("1")]
    cells[1].outputs = list(outputs)
    cells += [new_markdown_cell(f"## Findings\n\n{text}\n\n## Fork\n\nIn 88.8 steps.")]
    return list(check_findings(new_notebook(cells=cells), evidence))


@pytest.mark.parametrize(
    "text",
    [
        "The UAR is 66.3 %, or 66 %, or two thirds.",
        "The interval (95 % interval 54.41 to 1,062,920) is wide.",
        "It has 1,063 thousand weights, that is 1.1 million.",
        "A 2-D network on 5-fold splits of wav2vec 2.0, VGG16 and `log_mel(64.5)`.",
        "Others say so (Ma et al. 2024; [a paper](https://example.org/12.7)).",
        "It loses 51.1 points.",
        "",
    ],
)
def test_findings_that_the_outputs_show_pass(text):
    table = "<style>td {width: 71.7px}</style><table><tr><td>66.32</td><td>54.41</td></tr></table>"
    outputs = [
        new_output("display_data", data={"text/html": table, "text/plain": "<Figure 640x480>"}),
        new_output("stream", name="stdout", text="1,062,920 weights\n−51.06 points"),
    ]
    assert find_in_findings(text, outputs=outputs) == []


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("The UAR is 66.4 %.", "66.4"),
        ("The UAR is 66.33 %.", "66.33"),
        ("From 54.4-55.4 to 67 %.", "55.4, 67"),
        ("**71.7** by width, 99.9, 88.8, 640 and 12.7.", "71.7, 99.9, 88.8, 640, 12.7"),
        ("It has 1.2 million weights.", "1.2 million"),
        ("An 18-point loss.", "18"),
    ],
)
def test_findings_that_nothing_shows_are_named(text, numbers):
    html = "<style>td {width: 71.7px}</style><b style='left: 12.7px'>66.32</b> 54.41"
    outputs = [
        new_output("display_data", data={"text/html": html, "text/plain": "<Figure 640x480>"}),
        new_output("stream", name="stdout", text="1,062,920 weights"),
        new_output("stream", name="stderr", text="67"),
    ]
    (defect,) = find_in_findings(text, outputs=outputs)
    assert defect.startswith(f"Findings say {numbers}, which no output")


def test_findings_may_say_what_the_evidence_holds(tmp_path):
    path = tmp_path / "evidence.json"
    uar = {"mean": 0.617188, "std": 0.047297, "low": 0.556334, "high": None}
    angry = {"precision": 0.663866, "f1": 0.734884, "support": 384}
    content = {"metrics": {"uar": uar}, "per_class": {"angry": angry}, "num_utterances": 1440}
    path.write_text(json.dumps(content | {"num_parameters": None, "seconds": 2774.5}))
    said = "The UAR is 61.7 ± 4.7 % (from 55.6), the F1 73 % on 384 of 1,440."
    assert find_in_findings(said, evidence=[path]) == []
    (defect,) = find_in_findings(f"{said} It took 2774.5 s, not 0.617.", evidence=[path])
    assert defect.startswith("Findings say 2774.5, 0.617, which no output")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("One. Two! Three?\n\n- four\n- five\n\nSix. Seven.", "7 sentences, at most 6"),
        (f"Here {'are ' * 35}words.", "has 37 words, at most 35"),
        ("66.3 or 66.3 or 66.3. " * 5, "15 decimals, at most 14"),
        (" and ".join(["66.3"] * 7) + ".", "has 7 numbers, at most 6"),
        ("That is below the 66 % that we aimed at.", "speak of aims ('we aimed')"),
        ("Our aim was 66 %.", "speak of aims ('Our aim')"),
        ("It passes the mark of 66 %.", "speak of aims ('the mark of')"),
    ],
)
def test_findings_can_be_read_aloud(text, words):
    outputs = [new_output("stream", name="stdout", text="66.3")]
    (defect,) = find_in_findings(text, outputs=outputs)
    assert words in defect


def test_findings_of_six_sentences_pass():
    text = (
        "Ma et al. say 1. Two, e.g. here, of 35.5 %. Three.\n\n- four\n- five\n\n### More\n\nSix."
    )
    assert (
        find_in_findings(text, outputs=[new_output("stream", name="stdout", text="1 35.5")]) == []
    )


@pytest.mark.parametrize("path", COLLECTION, ids=lambda path: path.stem)
def test_findings_of_the_collection_follow_from_its_evidence(path):
    notebook = nbformat.read(path, as_version=4)
    evidence = (paths.RESULTS_DIR / path.stem).glob("*.json")
    assert list(check_findings(notebook, evidence)) == []


def test_text_without_comments_is_named():
    text = "a <!-- one:begin -->old<!-- one:end --> b"
    assert (
        fill_sections(text, {"one": "new"}) == "a <!-- one:begin -->\n\nnew\n\n<!-- one:end --> b"
    )
    with pytest.raises(ValueError, match="index:begin"):
        fill_sections(text, {"one": "new", "index": "other"})


def make_results(*changes):
    """Make a table as `tabulate_results` gives it, a row for each set of changes."""
    row = {"notebook": "11_cnn", "variant": "", "title": "CNN", "own": False, "uar": 0.61234}
    row |= {
        "protocol": "speaker_5fold",
        "uar_mean": 0.61,
        "uar_std": 0.0201,
        "uar_low": 0.5712,
        "uar_high": 0.65,
    }
    row |= {"wa": 0.7, "num_seeds": 3, "num_parameters": 123456, "minutes": 12.34}
    row |= {"backend": "tensorflow"}
    return pd.DataFrame([row | change for change in changes]).astype({"num_parameters": "Int64"})


def test_results_of_a_corpus_become_text(monkeypatch):
    single = {"variant": "svm", "title": "SVM", "protocol": "random_80_10_10", "uar_std": np.nan}
    foreign = {"variant": "x", "protocol": "my_protocol", "title": "Mine", "num_parameters": None}
    table = make_results(
        foreign, single | {"num_parameters": None}, {}, {"variant": "b", "uar": 0.5}
    )
    monkeypatch.setattr(pages, "tabulate_results", lambda corpus, own: table)
    results = pages.describe_results("ravdess")
    assert list(results) == [
        *("system", "notebook", "UAR (%)", "of folds", "WA (%)"),
        *("protocol", "weights", "seeds", "minutes"),
    ]
    first, second, third, last = results.to_numpy().tolist()
    assert first[:5] == ["CNN", "11_cnn", "61.2 [57.1, 65.0]", "61.0 ± 2.0", "70.0"]
    assert first[5:] == ["speaker_5fold", "123,456", "3", "12.3"]
    assert second[2].startswith("50.0")
    assert [third[0], *third[2:5], third[6]] == ["SVM", "61.2 [57.1, 65.0]", "", "70.0", ""]
    assert [*last[:2], last[5]] == ["Mine", "11_cnn", "my_protocol"]
    written = pages.format_results()
    assert "| CNN | [`11_cnn`](../notebooks/11_cnn.ipynb) | 61.2 [57.1, 65.0] | 61" in written
    monkeypatch.setattr(pages, "tabulate_results", lambda corpus, own: table.iloc[:0])
    monkeypatch.setattr(pages, "describe_transfer", pd.DataFrame)
    assert pages.describe_results("ravdess").empty
    assert "No results yet" in pages.format_results()


def test_results_on_other_corpora_stand_apart(monkeypatch):
    row = {"notebook": "50_cross_corpus", "title": "CNN", "own": False, "trained_on": "tess+savee"}
    row |= {"tested_on": "ravdess", "num_emotions": 4, "num_speakers": 24}
    row |= {"uar": 0.51234, "uar_low": 0.4, "uar_high": 0.6}
    monkeypatch.setattr(pages, "tabulate_transfer", lambda own: pd.DataFrame([row]))
    before, found, section = pages.format_results().partition("## Other corpora")
    assert found and "50_cross_corpus" not in before
    assert section.splitlines()[-1] == (
        "| CNN | [`50_cross_corpus`](../notebooks/50_cross_corpus.ipynb) | "
        "ravdess (24 speakers) | tess, savee | 4 | 51.2 [40.0, 60.0] |"
    )


def test_backend_is_a_column_where_results_have_several(monkeypatch):
    table = make_results({}, {"variant": "jax", "backend": "jax", "uar": 0.5})
    monkeypatch.setattr(pages, "tabulate_results", lambda corpus, own: table)
    assert pages.describe_results("ravdess")["backend"].tolist() == ["tensorflow", "jax"]


def test_own_results_take_the_place_of_published_ones_of_the_same_name(monkeypatch):
    table = make_results({"own": True, "uar": 0.4}, {}, {"protocol": "random_5fold"})
    monkeypatch.setattr(pages, "tabulate_results", lambda corpus, own: table if own else table[1:])
    monkeypatch.setattr(pages, "describe_transfer", pd.DataFrame)
    results = pages.describe_results("ravdess", own=True)
    assert results["run"].tolist() == ["yours", "published"]
    assert results["UAR (%)"].str[:4].tolist() == ["40.0", "61.2"]
    assert "yours" not in pages.format_results()
    assert "0.400" not in pages.format_results()


def write_evidence(runs, *, name=NAME, corpus="ravdess", kinds=("csv", "history"), size=10):
    """Write evidence of a run as `save_results` does; give the JSON's path."""
    path = runs / "results" / name / f"{corpus}__speaker_5fold.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    hashes = {}
    for kind in kinds:
        file = path.with_suffix(publication.SUFFIXES[kind])
        file.write_bytes(kind.encode() * size)
        hashes[kind] = hash_file(file)
    path.write_text(json.dumps({"notebook": name, "corpus": corpus, "files": hashes}))
    return path


@pytest.fixture
def publish(tmp_path):
    """A function that publishes the example's runs from one folder below tmp_path to others."""
    folders = {"runs": tmp_path / "runs", "results": tmp_path / "results"}
    (tmp_path / "runs/figures").mkdir(parents=True)
    return partial(publication.publish_notebook, NAME, **folders, figures=tmp_path / "figures")


def test_publish_copies_evidence_and_figures_and_removes_nothing(tmp_path, publish):
    runs, results = tmp_path / "runs", tmp_path / "results" / NAME
    evidence = write_evidence(runs, kinds=("csv", "history", "model"))
    write_evidence(runs, corpus="sample")
    write_evidence(runs, name="11_cnn")
    for figure in (f"{NAME}__ravdess__a", f"{NAME}__sample__a", "11_cnn__ravdess__a"):
        (runs / f"figures/{figure}.png").write_bytes(b"picture")
    results.mkdir(parents=True)
    (results / "ravdess__other.json").write_text("{}")
    (results / "ravdess__speaker_5fold.csv").write_text("before")

    assert publish() == [
        f"replaced   results/{NAME}/ravdess__speaker_5fold.csv",
        f"new        results/{NAME}/ravdess__speaker_5fold.history.csv",
        f"new        results/{NAME}/ravdess__speaker_5fold.keras",
        f"new        results/{NAME}/ravdess__speaker_5fold.json",
        f"new        figures/{NAME}__ravdess__a.png",
    ]
    assert sorted(path.name for path in results.iterdir()) == [
        "ravdess__other.json",
        *(f"ravdess__speaker_5fold{end}" for end in (".csv", ".history.csv", ".json", ".keras")),
    ]
    for path in evidence.parent.glob("ravdess*"):
        assert path.read_bytes() == (results / path.name).read_bytes()
    assert [path.name for path in (tmp_path / "figures").iterdir()] == [f"{NAME}__ravdess__a.png"]
    assert len(list(tmp_path.iterdir())) == 3
    assert {line.split()[0] for line in publish()} == {"unchanged"}


def test_publish_takes_labels_for_a_table(tmp_path, publish):
    write_evidence(tmp_path / "runs", kinds=("labels",))
    assert publish()[0] == f"new        results/{NAME}/ravdess__speaker_5fold.csv.xz"


def test_publish_leaves_out_a_large_model(tmp_path, publish):
    write_evidence(tmp_path / "runs", kinds=("csv", "model"))
    assert publish()[1].startswith("new ")
    write_evidence(tmp_path / "runs", kinds=("csv", "model"), size=700_000)
    assert publish()[1] == (
        f"left out   results/{NAME}/ravdess__speaker_5fold.keras: 3.5 MB, at most 3 MB"
    )
    assert not list(tmp_path.glob("results/**/*.keras"))
    [published] = tmp_path.glob("results/**/*.json")
    content = read_evidence(published)
    assert [*content["files"]] == ["csv"]
    assert content["model_of"] is None
    assert {line.split()[0] for line in publish()} == {"unchanged", "left"}


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: path.with_suffix(".csv").write_text("other"), "is not the one that"),
        (lambda path: path.with_suffix(".history.csv").unlink(), "history.csv .* is missing"),
        (lambda path: path.write_text("{}"), "does not name the hash of its CSV"),
        (lambda path: path.write_text("{"), "is not JSON"),
    ],
)
def test_publish_copies_nothing_where_evidence_is_not_whole(tmp_path, publish, spoil, words):
    write_evidence(tmp_path / "runs", corpus="emodb")
    spoil(write_evidence(tmp_path / "runs"))
    with pytest.raises(ValueError, match=words):
        publish()
    assert not (tmp_path / "results").exists()


def test_publish_command_says_what_it_did(monkeypatch, capsys):
    monkeypatch.setattr(notebooks, "publish_notebook", lambda name: [f"new        results/{name}"])
    monkeypatch.setattr(notebooks, "sync_pages", lambda: [ROOT / "README.md"])
    assert main(["publish", "90", "11"]) == 0
    assert capsys.readouterr().out == (
        "90_template:\n  new        results/90_template\n"
        "11_cnn:\n  new        results/11_cnn\nwrote README.md\n"
    )


def test_execute_shows_own_results_and_leaves_the_readme_alone(monkeypatch, capsys):
    table = make_results({"own": True, "uar": 0.4}, {"title": "Published", "variant": "b"})
    monkeypatch.setattr(pages, "tabulate_results", lambda corpus, own: table)
    monkeypatch.setattr(notebooks, "execute_all", lambda *_, **__: [])
    monkeypatch.delattr(notebooks, "sync_all")
    monkeypatch.delattr(notebooks, "sync_pages")
    assert main(["execute", "11", "--in-place"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines if "11_cnn" in line] == [
        ["Published", "11_cnn", "published"],
        ["CNN", "11_cnn", "yours"],
    ]
    assert lines[-1].startswith("Figures: ") and "runs/figures" in lines[-1]


@pytest.mark.parametrize(
    ("given", "corpus"),
    [
        ([], "sample"),
        (["--corpus", "tess"], "tess"),
        (["--parameters", "corpus=tess"], "tess"),
        (["--parameters", "csv=labels.csv"], "my_corpus"),
        (["--parameters", "folder=voices", "corpus=mine"], "mine"),
        (["--corpus", "mine", "--parameters", "folder=voices"], "mine"),
    ],
)
def test_own_recordings_are_never_filed_as_the_sample(given, corpus, monkeypatch, capsys):
    ran = []
    monkeypatch.setattr(notebooks, "execute_all", lambda *_, **settings: ran.append(settings) or [])
    assert main(["execute", "11", *given]) == 0
    assert ran[0]["corpus"] == corpus and "corpus" not in ran[0]["parameters"]
    shown = capsys.readouterr().out
    assert f"Results on {corpus}:" in shown and ("synthetic" in shown) == (corpus == "sample")
    with pytest.raises(SystemExit):
        main(["execute", "11", "--corpus", "savee", "--parameters", "corpus=tess"])
    assert "two corpora, savee and tess: name one" in capsys.readouterr().err


def test_a_notebook_that_failed_tells_no_score(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(notebooks, "execute_all", lambda paths, **_: paths[:1])
    monkeypatch.setattr(notebooks, "describe_sample", lambda names: asked.append(names) or [""])
    assert main(["execute", "11", "90"]) == 1
    assert asked == [["90_template"]]


def test_publish_goes_on_where_one_has_nothing(monkeypatch, capsys):
    def publish(name):
        if name == "11_cnn":
            raise ValueError("11_cnn: no evidence")
        return ["new        results"]

    monkeypatch.setattr(notebooks, "publish_notebook", publish)
    monkeypatch.setattr(notebooks, "sync_pages", list)
    with pytest.raises(SystemExit):
        main(["publish", "11", "90"])
    said = capsys.readouterr()
    assert "90_template:\n  new        results" in said.out and "11_cnn: no evidence" in said.err
    monkeypatch.setattr(notebooks, "select_notebooks", lambda _: [Path("11_cnn.ipynb")])
    assert main(["publish", "all"]) == 0


def test_execute_ends_with_a_sentence_and_a_picture(monkeypatch):
    def result(notebook, protocol, uar):
        metrics = {"uar": {"score": uar}}
        facts = {"title": notebook.title(), "per_class": dict.fromkeys("abcdefgh")}
        return {"notebook": notebook, "protocol": protocol, "metrics": metrics, **facts}

    found = [
        result("90_template", "speaker_5fold", 0.842),
        result("90_template", "random_5fold", 0.95),
        result("11_cnn", "speaker_5fold", 0.9),
    ]
    monkeypatch.setattr(notebooks, "load_results", lambda corpus: found)
    picture = notebooks.RUNS_DIR / "figures/90_template__sample__confusion.png"
    picture.parent.mkdir(parents=True, exist_ok=True)
    picture.touch()
    sentence, where, caution = notebooks.describe_sample(["01_prepare_corpora", "90_template"])
    assert "'90_Template' recognised 84 % of the emotions; guessing would find 12 %" in sentence
    assert where.endswith("figures/90_template__sample__confusion.png")
    assert "say nothing about people" in caution
    picture.unlink()
    assert len(notebooks.describe_sample(["90_template"])) == 2
    assert notebooks.describe_sample(["01_prepare_corpora"]) == [caution]


def test_publish_says_where_there_is_nothing(publish, tmp_path):
    write_evidence(tmp_path / "runs", corpus="sample")
    with pytest.raises(ValueError, match=f"{NAME}: no evidence and no figures"):
        publish()


def test_repository_must_be_given(tmp_path):
    pyproject = tmp_path / "pyproject.toml"
    pyproject.write_text("[project]\nname = 'x'\n")
    with pytest.raises(ValueError, match="Repository"):
        read_repository(pyproject)
    pyproject.write_text("[project.urls]\nRepository = 'https://github.com/a/b.git'\n")
    assert read_repository(pyproject) == "https://github.com/a/b"


def run_bootstrap(folder, *, before="", cell=BOOTSTRAP, after="", repository=REPOSITORY):
    """Run the bootstrap cell, then import a module of the repository."""
    code = f"{before}{cell.format(repository=repository)}\nimport common.paths{after}\nprint(root)"
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)


@pytest.mark.parametrize("folder", [".", "notebooks", "data/index"])
def test_bootstrap_finds_the_repository_from_inside(folder):
    done = run_bootstrap(ROOT / folder)
    assert done.stderr == ""
    assert Path(done.stdout.strip()) == ROOT


def test_bootstrap_finds_a_clone_in_the_working_directory(beside_clone):
    assert run_bootstrap(beside_clone).returncode == 0


def test_bootstrap_explains_when_there_is_no_repository(tmp_path):
    done = run_bootstrap(tmp_path)
    assert done.returncode == 1
    assert done.stderr == (f"no repository at {tmp_path}: git clone {REPOSITORY}, start inside\n")


COLAB = "import sys\nfrom types import ModuleType\nsys.modules['google.colab'] = ModuleType('c')\n"


@pytest.mark.parametrize("before", ["", COLAB])
def test_bootstrap_tells_of_the_placeholder(tmp_path, before):
    done = run_bootstrap(tmp_path, before=before, repository="https://github.com/OWNER/notebooks")
    assert done.returncode == 1
    assert done.stderr == (f"no repository at {tmp_path}: write its owner for OWNER above\n")
    assert list(tmp_path.iterdir()) == []


def test_bootstrap_says_in_words_that_an_address_does_not_exist(tmp_path):
    address = f"file://{tmp_path}/nowhere/notebooks"
    done = run_bootstrap(tmp_path, before=COLAB, repository=address)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr and "CalledProcessError" not in done.stderr
    last = f"{address} cannot be cloned: correct REPOSITORY above"
    assert done.stderr.splitlines()[-1] == last


def mount_drive(folder, *, drive=True, earlier=""):
    """Run the set-up cell on a make-believe Colab whose Drive is a folder."""
    before = COLAB + (
        "from pathlib import Path\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "import common.drive\n"
        f"common.drive.MOUNT = Path({str(folder / 'drive')!r})\n"
        "drive = ModuleType('drive')\n"
        "drive.mount = lambda place: print('mounted', place) or Path(place, 'MyDrive').mkdir()\n"
        "sys.modules['google.colab'].drive = drive\n"
        f"{earlier}\n"
    )
    (folder / "drive").mkdir()
    after = "\nprint(common.paths.RAW_DIR, common.paths.SAMPLE_DIR, common.paths.INDEX_DIR)"
    changed = BOOTSTRAP.replace("DRIVE = False", f"DRIVE = {drive}")
    assert (changed == BOOTSTRAP) == (not drive)
    return run_bootstrap(ROOT, before=before, cell=changed, after=after)


def test_bootstrap_keeps_data_on_drive_when_asked(tmp_path):
    done = mount_drive(tmp_path)
    assert done.returncode == 0, done.stderr
    data = tmp_path / "drive/MyDrive/speech-emotion-data"
    assert done.stdout.splitlines() == [
        f"mounted {tmp_path / 'drive'}",
        f"Corpora and runs are kept in {data}, on your Google Drive.",
        f"{data / 'raw'} {ROOT / 'data/sample'} {ROOT / 'data/index'}",
        str(ROOT),
    ]
    assert data.is_dir()


def test_bootstrap_leaves_drive_alone_unless_asked(tmp_path):
    done = mount_drive(tmp_path, drive=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2 and "drive" not in done.stdout
    assert list((tmp_path / "drive").iterdir()) == []


def test_bootstrap_asks_for_a_new_session_where_data_already_lies_elsewhere(tmp_path):
    done = mount_drive(tmp_path, earlier="import common.paths")
    assert done.returncode == 1
    assert "Restart session), then run the set-up cell with DRIVE = True first" in done.stderr
    assert list((tmp_path / "drive").iterdir()) == []


def test_drive_is_for_colab_alone(capsys):
    assert keep_on_drive() is None
    assert "for Colab alone" in capsys.readouterr().out


def test_bootstrap_fetches_and_installs_on_colab(tmp_path):
    programs, folder = tmp_path / "bin", tmp_path / "content"
    folder.mkdir()
    programs.mkdir()
    git = programs / "git"
    git.write_text(f'#!/bin/sh\necho git "$@" >> {tmp_path}/log\nln -s {ROOT} "$5"\n')
    git.chmod(0o755)
    code = (
        "import subprocess, sys\nsys.modules['google.colab'] = sys\n"
        "run = subprocess.run\n"
        "def record(command, **options):\n"
        "    if '-r' in command:\n"
        "        print(*command[1:], options)\n"
        "    else:\n"
        "        return run(command, **options)\n"
        "subprocess.run = record\n"
    )
    code += BOOTSTRAP.format(repository=REPOSITORY) + "\nimport common.paths"
    environment = {"PATH": f"{programs}:/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    clone = folder / REPOSITORY.rpartition("/")[2]
    assert (tmp_path / "log").read_text() == f"git clone --depth 1 {REPOSITORY} {clone}\n"
    needed = clone / "requirements-colab.txt"
    assert done.stdout == f"-m pip install -q -r {needed} {{'check': True}}\n"


def test_what_attention_adds_is_a_local_edit():
    """From 30 to 31: beside the architecture, the title and the findings, ten lines at most."""
    own = ("architecture", "badge")
    lines = []
    for name in ("30_stacked_cnn_lstm", "31_stacked_cnn_attention_lstm"):
        cells = nbformat.read(paths.NOTEBOOKS_DIR / f"{name}.ipynb", as_version=4).cells[1:]
        shared = [
            cell.source
            for cell in cells
            if not set(own) & set(cell.metadata.get("tags", []))
            and not cell.source.startswith(("## Findings", "## What was tried"))
        ]
        lines.append([line for line in "\n".join(shared).splitlines() if line.strip()])
    changed = [line for line in lines[1] if line not in lines[0]]
    assert 0 < len([line for line in changed if not line.startswith(("title", "notebook"))]) <= 10


def test_folds_are_checked_with_their_validation_speakers():
    """They train too where no epoch is chosen, so none may be tested."""
    checking = [
        (path.stem, cell.source)
        for path in COLLECTION
        for cell in nbformat.read(path, as_version=4).cells
        if ".isdisjoint(" in cell.source and "fold.test" in cell.source
    ]
    assert len(checking) >= 15
    counted = ("*fold.validation", "fold.join_validation() for fold in make_folds")
    assert [name for name, text in checking if not any(c in text for c in counted)] == []


def test_a_step_of_a_notebook_has_the_code_that_makes_its_values():
    """Else an edit of that code would be given the run of the old one."""
    found = 0
    for path in COLLECTION:
        cells = nbformat.read(path, as_version=4).cells
        for cell in (cell for cell in cells if "(Step)" in cell.source):
            for node in ast.parse(cell.source).body:
                if isinstance(node, ast.ClassDef) and "Step" in map(ast.unparse, node.bases):
                    names = {ast.unparse(getattr(part, "target", part)) for part in node.body}
                    methods = {getattr(part, "name", None) for part in node.body}
                    assert "made_by" in names or "__call__" in methods, (path.stem, node.name)
                    found += 1
    assert found >= 3


def find_unguarded(code: str) -> set[str]:
    """Names bound only where an optional corpus is at hand, and read where it may not be."""
    tree = ast.parse(code)
    optional = re.findall(r"(\w+) = open_corpus\(.*optional=True\)", code)
    guards = [
        node
        for node in tree.body
        if isinstance(node, ast.If)
        and any(f"{name} is not None" in ast.unparse(node.test) for name in optional)
    ]
    inside = [node for guard in guards for node in guard.body]
    (bound, _), (bound_anyhow, read) = (
        list_globals(ast.unparse(ast.Module(body, type_ignores=[])))
        for body in (inside, [node for node in tree.body if node not in guards])
    )
    return read & (bound - bound_anyhow)


def list_globals(code: str) -> tuple[set[str], set[str]]:
    """Names that code binds at its top, and those it reads there or in functions."""
    top = symtable.symtable(code, "code", "exec")
    scopes, bound, read = [top], set(), set()
    for scope in scopes:
        scopes += scope.get_children()
        for symbol in scope.get_symbols():
            if scope is top and symbol.is_assigned():
                bound.add(symbol.get_name())
            if symbol.is_referenced() and (scope is top or symbol.is_global()):
                read.add(symbol.get_name())
    return bound, read


@pytest.mark.parametrize("path", COLLECTION, ids=lambda path: path.stem)
def test_what_a_second_corpus_gives_is_read_only_where_it_is_at_hand(path):
    cells = nbformat.read(path, as_version=4).cells
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    assert find_unguarded(code) == set()


def test_a_name_that_only_a_second_corpus_binds_is_found():
    code = "other = open_corpus(name, optional=True)\nif other is not None:\n    runs = 1\n"
    assert find_unguarded(f"{code}if name:\n    print(runs)") == {"runs"}
    assert find_unguarded(f"{code}    print(runs)") == set()


def test_bootstrap_is_short():
    assert len(BOOTSTRAP.splitlines()) <= 28


def test_progress_bars_are_stripped_and_warnings_kept():
    bar = " 40%|████      | 8/20 [00:01<00:02,  4.0it/s]"
    outputs = [
        new_output("display_data", data={WIDGET_VIEW: {"model_id": "1"}, "text/plain": bar}),
        new_output("stream", name="stderr", text=f"\r{bar}\r{bar}\n"),
        new_output("stream", name="stderr", text=f"\r{bar}\nUserWarning: no\n3it [00:00, 9it/s]"),
        new_output("stream", name="stdout", text="50%| of it\n"),
    ]
    notebook = new_notebook(cells=[new_code_cell("x", outputs=outputs)], metadata={"widgets": {}})
    (cell,) = strip_progress(notebook).cells
    assert [output.text for output in cell.outputs] == ["UserWarning: no\n", "50%| of it\n"]
    assert "widgets" not in notebook.metadata


def test_players_become_a_line_of_text_and_the_rest_stays():
    row = f"<div><b>before</b> {PLAYER}</div><div><b>after</b> {PLAYER}</div>"
    outputs = [
        new_output("display_data", data={"text/html": row, "text/plain": "<IPython.HTML>"}),
        new_output("display_data", data={"audio/wav": "UklGR=", "text/plain": "sound"}),
        new_output("display_data", data={"text/html": "<table></table>", "image/png": "abc="}),
        new_output("stream", name="stdout", text="<audio> is a tag\n"),
    ]
    notebook = new_notebook(cells=[new_markdown_cell(), new_code_cell("x", outputs=outputs)])
    shown, bare, table, stream = remove_sounds(notebook).cells[1].outputs
    expected = f"<div><b>before</b> {NO_PLAYER}</div><div><b>after</b> {NO_PLAYER}</div>"
    assert shown.data == {"text/html": expected, "text/plain": "<IPython.HTML>"}
    assert bare.data == {"text/plain": "sound"}
    assert table.data == {"text/html": "<table></table>", "image/png": "abc="}
    assert stream.text == "<audio> is a tag\n"


@pytest.mark.parametrize("corpus", ["sample", "ravdess"])
def test_only_sounds_of_the_sample_corpus_are_stored(beside_clone, corpus):
    source = "from IPython.display import Audio\nAudio([0.0, 0.5], rate=16000)"
    path = beside_clone / f"{NAME}.ipynb"
    nbformat.write(make_notebook(source), path)
    execute_notebook(path, parameters={"corpus": corpus}, folder=beside_clone / "executed")
    executed = beside_clone / "executed" / path.name
    for stored in (executed.read_text(), executed.with_suffix(".html").read_text()):
        assert ("data:audio" in stored) == (corpus == "sample")
        assert ("Run this cell to hear it" in stored) == (corpus != "sample")


def test_parameters_from_the_command_line():
    given = ("epochs=3", "seeds=[0, 1]", "corpus=savee", "name='a b'")
    assert [parse_parameter(text)[1] for text in given] == [3, [0, 1], "savee", "a b"]
    with pytest.raises(Exception, match="not name=value"):
        parse_parameter("epochs")
    for name in ("folder", "csv", "recordings", "enrolment"):
        assert parse_parameter(f"{name}=None") == (name, None)


@pytest.mark.parametrize("name", ["folder", "csv"])
def test_paths_from_the_command_line_are_from_here_and_stay_text(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for given in ("my recordings (1)", "2024", "[1]"):
        assert parse_parameter(f"{name}={given}") == (name, str(tmp_path / given))
    assert parse_parameter(f"{name}=~/a b")[1] == str(tmp_path / "home" / "a b")
    assert (
        parse_parameter(f"{name}=/a b")[1] == "/a b" and parse_parameter(f"{name}=None")[1] is None
    )


def test_make_run_hands_over_folders_with_blanks():
    command = ["make", "--dry-run", "run", "FOLDER=my voices", "CSV=the list.csv"]
    asked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert '"folder=my voices"' in asked and '"csv=the list.csv"' in asked


def test_own_recordings_go_to_the_notebooks_that_take_them(beside_clone):
    taking = 'corpus = "ravdess"\nfolder = None\ncsv = None'
    parameters = {
        "01_takes": taking,
        "02_reads": 'corpus = "ravdess"',
        "03_sample": 'corpus = "sample"',
    }
    findings = new_markdown_cell("## Findings\n\nAll 1440 are here.")
    for name, text in parameters.items():
        source = "print(corpus, folder)" if name == "01_takes" else "print(corpus)"
        notebook = make_notebook(source, parameters=text)
        notebook.metadata["ser"]["sample_parameters"] = {}
        notebook.cells.append(findings)
        nbformat.write(notebook, beside_clone / f"{name}.ipynb")
    for corpus, expected in {
        "mine": ("mine /voices", "mine", "sample"),
        "ravdess": ("ravdess /voices", "ravdess", "sample"),
    }.items():
        paths = [beside_clone / f"{name}.ipynb" for name in parameters]
        assert execute_all(paths, corpus=corpus, parameters={"folder": "/voices"}) == []
        executed = [nbformat.read(EXECUTED_DIR / path.name, as_version=4) for path in paths]
        printed = [notebook.cells[-2].outputs[0].text.strip() for notebook in executed]
        assert tuple(printed) == expected
        assert "1440" not in executed[0].cells[-1].source, "findings are about the whole corpus"


def test_notebooks_are_selected_by_name_or_number(tmp_path):
    for name in ("01_one", "11_two", "12_three", ".11_two-abc"):
        (tmp_path / f"{name}.ipynb").touch()
    stems = [path.stem for path in select_notebooks(["12", "01_one"], folder=tmp_path)]
    assert stems == ["12_three", "01_one"]
    assert len(select_notebooks(["all"], folder=tmp_path)) == 3
    with pytest.raises(ValueError, match="no notebook is called '13'"):
        select_notebooks(["13"], folder=tmp_path)


def test_committed_parameters_cannot_be_changed_in_place(capsys):
    for change_ in (["--parameters", "epochs=1"], ["--corpus", "sample"]):
        with pytest.raises(SystemExit):
            main(["execute", "01", "--in-place", *change_])
        assert "as committed" in capsys.readouterr().err


def test_execute_keeps_the_notebook_and_names_the_failing_cell(beside_clone, capsys):
    source = "import tqdm.auto\nlist(tqdm.auto.tqdm([1]))\nprint(corpus, epochs)\nmissing_name"
    path = beside_clone / f"{NAME}.ipynb"
    nbformat.write(make_notebook(source), path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="no parameter named batch"):
        execute_notebook(path, parameters={"batch": 1})

    assert execute_all([path], corpus="sample", parameters={"epochs": 2}) == [path]
    message = capsys.readouterr().err
    assert f"{NAME}.ipynb: cell 6 (import tqdm.auto) raised NameError" in message
    assert path.read_bytes() == before
    copy = nbformat.read(EXECUTED_DIR / path.name, as_version=4)
    injected = copy.cells[find_cell(copy, "injected-parameters")].source
    assert injected.startswith("corpus = 'sample'\nepochs = 2\n") and "Synthetic" in injected
    assert [output.get("text") for output in copy.cells[-1].outputs] == ["sample 2\n", None]
    assert (EXECUTED_DIR / path.name).with_suffix(".html").is_file()


@pytest.mark.parametrize("corpus", ["sample", "savee"])
def test_a_notebook_about_published_runs_keeps_its_corpus(beside_clone, corpus):
    notebook = make_notebook()
    notebook.metadata["ser"]["sample_parameters"] = {"corpus": "ravdess"}
    path = beside_clone / f"{NAME}.ipynb"
    nbformat.write(notebook, path)
    assert execute_all([path], corpus=corpus, parameters={}) == []
    assert nbformat.read(EXECUTED_DIR / path.name, 4).cells[-1].outputs[0].text == "ravdess\n"


def test_execute_in_place_replaces_a_notebook_that_runs(beside_clone, capsys):
    path = beside_clone / f"{NAME}.ipynb"
    nbformat.write(make_notebook(text="old"), path)
    assert execute_all([path], corpus="ravdess", parameters={}, in_place=True) == []
    assert check(nbformat.read(path, as_version=4), beside_clone) == []
    assert nbformat.read(path, as_version=4).cells[-1].outputs[0].text == "ravdess\n"


def choose_quick(paths):
    """Choose one notebook of each family, which its first digit names: QUICK's or the first."""
    families = {}
    for path in paths:
        families.setdefault(path.name[0], []).append(path)
    return [
        next((path for path in family if path.stem in QUICK), family[0])
        for family in families.values()
    ]


# Every one where all is checked; a fork's own notebooks are left to `make run`. They are executed
# beside the other tests (`conftest.py`).
TO_EXECUTE = COLLECTION if os.environ.get("ALL") else choose_quick(COLLECTION)


def test_quick_suite_executes_one_notebook_of_each_family():
    names = [path.stem for path in choose_quick(COLLECTION)]
    assert [name[0] for name in names] == sorted({path.name[0] for path in COLLECTION})
    assert set(QUICK) <= set(names)
    assert [path.stem for path in choose_quick([Path("50_a.ipynb"), Path("51_b.ipynb")])] == [
        "50_a"
    ]


@pytest.mark.parametrize("path", TO_EXECUTE, ids=lambda path: path.stem)
def test_notebook_runs_on_the_sample_corpus(path, executions):
    notebook = nbformat.read(path, as_version=4)
    assert set(read_sample_parameters(notebook)) <= set(read_parameters(notebook))
    executed = executions[path].result()
    outputs = [output for cell in executed.cells for output in cell.get("outputs", [])]
    assert [output for output in outputs if output.get("name") == "stderr"] == []
    assert "synthetic" in json.dumps(outputs[0]).lower(), "the first output must say so"
    if path.stem == "90_template":  # what `make run` shows first
        (result,) = load_results(corpus="sample", notebook=path.stem)
        assert result["metrics"]["uar"]["score"] >= 0.8
