"""Notebooks trained fold by fold: the list, one fold, resuming, failures, and the same numbers."""

import json

import nbformat
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from common import paths
from common.results import load_results
from tools import tasks
from tools.tasks import Task, list_tasks, main, run_task, tabulate_tasks

IMPORTS = """
import keras
from keras import layers
from common import paths
from common.corpora import open_corpus
from common.cross_validation import cross_validate
from common.features import Functionals, Trim
from common.recipes import Recipe, extract_features
from common.results import save_results
from common.training import TrainingConfig
"""
PARAMETERS = """
notebook = "95_example"
corpus = "sample"
protocols = ["leave_one_speaker_out"]
seeds = [0]
epochs = 1
spoil = None
"""
MODEL = """
def build_model(input_shape, num_classes):
    inputs = keras.Input(input_shape, name="functionals")
    x = layers.Dense(8, name="hidden")(layers.Flatten(name="flatten")(inputs))
    return keras.Model(inputs, layers.Dense(num_classes, activation="softmax", name="out")(x))
"""
DATA = """
table = open_corpus(corpus)
table = table[table["speaker"].isin(sorted(table["speaker"].unique())[:3])].reset_index(drop=True)
features = extract_features(table, Recipe((Trim(top_db=30), Functionals())))
config = TrainingConfig(epochs=epochs, batch_size=32, monitor=None, warmup_epochs=0)
"""
TRAIN = """
if spoil == "training":
    config = None
runs = {p: cross_validate(build_model, table, features, protocol=p, config=config, seeds=seeds)
        for p in protocols}
for run in runs.values():
    save_results(run, notebook=notebook, title="Example")
"""
COMPARE = """
counts = run.predictions.groupby("fold").size()
assert len(counts) == 3, f"only folds {sorted(counts.index)}"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with one notebook that trains."""
    folder = tmp_path_factory.mktemp("notebooks")
    sources = [IMPORTS, PARAMETERS, DATA, MODEL, TRAIN, COMPARE]
    cells = [new_markdown_cell("# Example\n\nDoes it hold?"), *map(new_code_cell, sources)]
    cells[1].metadata["tags"] = ["setup"]
    cells[2].metadata["tags"] = ["parameters"]
    notebook = new_notebook(cells=cells, metadata={"ser": {"sample_parameters": {}}})
    nbformat.write(notebook, folder / "95_example.ipynb")
    silent = new_notebook(cells=[*cells[:3]], metadata={"ser": {"sample_parameters": {}}})
    nbformat.write(silent, folder / "96_silent.ipynb")
    return folder


@pytest.fixture(autouse=True)
def notebooks_there(folder, monkeypatch, tmp_path):
    """Let the tools look for notebooks there, and keep runs of a test to itself."""
    monkeypatch.setattr(tasks, "NOTEBOOKS_DIR", folder)
    paths_there = sorted(folder.glob("*.ipynb"))
    find = lambda names: [p for p in paths_there if p.stem[:2] in names]  # noqa: E731
    monkeypatch.setattr(tasks, "select_notebooks", find)
    monkeypatch.setattr(tasks, "list_collection", lambda text: paths_there)
    monkeypatch.setattr(tasks, "TASKS_DIR", tmp_path / "tasks")


def test_a_task_is_a_fold_and_trains_it_once(monkeypatch):
    every = list_tasks(["95"], corpus="sample")
    assert [(task.protocol, task.seed, task.fold) for task in every][:2] == [
        ("leave_one_speaker_out", 0, 1),
        ("leave_one_speaker_out", 0, 2),
    ]
    shown = tabulate_tasks(every)
    assert shown.index[0] == 1 and set(shown["state"]) == {"to do"}
    assert set(shown["minutes"]) == {"unknown"}

    result = run_task(every[1])
    assert len(result["keys"]) == 1 and "only folds [2]" in result["ended"]
    (facts,) = (paths.RUNS_DIR / result["keys"][0]).glob("*/facts.json")
    assert facts.parent.name.startswith("seed0_fold2_")
    assert not [*paths.RUNS_DIR.glob("results/95_example/*")]
    assert json.loads(every[1].path.read_text()) == result
    monkeypatch.setattr(tasks, "_run_cells", None)
    assert run_task(every[1]) == result
    assert tabulate_tasks(every)["state"].tolist()[:3] == ["to do", "done", "to do"]

    other = list_tasks(["95"], corpus="sample", parameters={"epochs": 2})[1]
    assert not other.path.is_file()  # other settings are another task
    with pytest.raises(ValueError, match="not done: tasks 1, 3, 4"):
        tasks.collect(every)


def test_folds_trained_as_tasks_are_those_of_the_whole_notebook(folder):
    three = list_tasks(["95"], corpus="sample")[:3]
    keys = {key for task in three for key in run_task(task)["keys"]}
    path = folder / "95_example.ipynb"
    _, error = tasks._run_cells(nbformat.read(path, as_version=4))
    assert error is None, error
    (evidence,) = load_results(corpus="sample", notebook="95_example")
    assert {evidence["key"]} == keys and len(evidence["folds"]) == 3
    stored = pd.concat(
        pd.read_csv(file) for file in sorted(paths.RUNS_DIR.glob(f"{evidence['key']}/*/pred*.csv"))
    )
    assert sorted(pd.read_csv(evidence["csv"])["utterance"]) == sorted(stored["utterance"])


def test_a_fold_trained_as_a_task_is_read_back_by_the_notebook_and_no_other_number(tmp_path):
    task = list_tasks(["95"], corpus="sample")[1]
    (key,) = run_task(task)["keys"]
    (file,) = (paths.RUNS_DIR / key).glob("seed0_fold2_*/predictions.csv")
    before = pd.read_csv(file)
    for stored in file.parent.iterdir():
        stored.unlink()
    file.parent.rmdir()
    task.path.unlink()
    run_task(task)
    pd.testing.assert_frame_equal(pd.read_csv(file), before)


def test_what_fails_before_or_in_training_is_an_error():
    for spoil, words in (
        ({"spoil": "training"}, "cell .*spoil.* raised TypeError"),
        ({"epochs": 0}, "cell .*table.*above 0"),
    ):
        task = list_tasks(["95"], corpus="sample", parameters=spoil)[0]
        with pytest.raises(RuntimeError, match=f"95_example: {words}"):
            run_task(task)
        assert not task.path.is_file()


def test_wrong_commands_are_told(capsys):
    for arguments, words in (
        (["list", "96"], "96_silent trains no folds"),
        (["run", "95", "--only", "99"], "--only 99: there are tasks 1 to 8"),
        (["list", "95", "--corpus", "nowhere"], "nowhere"),
        (["collect", "95"], "not done: tasks 1, 2, 3"),
    ):
        with pytest.raises(SystemExit):
            main(arguments)
        assert words in capsys.readouterr().err
    assert main(["list", "95"]) == 0
    assert "leave_one_speaker_out" in capsys.readouterr().out


def test_the_minutes_to_expect_are_those_that_were_published():
    known = {"corpus": "ravdess", "parameters": "{}", "made_by": ""}
    task = Task(notebook="13_cnn_lstm", protocol="random_5fold", seed=0, fold=1, **known)
    assert tasks.expect_minutes(task) == pytest.approx(835.2 / 5 / 60)
    assert tasks.expect_minutes(Task(**{**task.__dict__, "protocol": "sentence_out"})) is None
