"""Notebooks trained fold by fold: the list, one fold, resuming, failures, and the same numbers."""

import json
import os
import re
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from common import cross_validation, paths
from common.results import load_results
from tests.speech_tables import make_features, make_ravdess, make_speakers
from tools import tasks
from tools.tasks import Task, list_tasks, main, run_task, tabulate_tasks

IMPORTS = """
import keras
from keras import layers
from common import paths
from common.corpora import open_corpus
from common.cross_validation import cross_validate
from common.bootstrap import tabulate_scores
from common.features import Functionals, Trim
from common.recipes import Recipe, extract_features
from common.results import save_results
from common.training import TrainingConfig
"""
PARAMETERS = """
notebook = "95_example"
corpus = "sample"
protocols = ["leave_one_speaker_out", "random_5fold"]
seeds = [0, 1]
epochs = 1
spoil = None
second_corpus = None
second_protocols = []
"""
MODEL = """
def build_model(input_shape, num_classes):
    inputs = keras.Input(input_shape, name="functionals")
    x = layers.Dense(8, name="hidden")(layers.Flatten(name="flatten")(inputs))
    return keras.Model(inputs, layers.Dense(num_classes, activation="softmax", name="out")(x))
"""
DATA = """
table = open_corpus(corpus)
table = table[table["speaker"].isin(sorted(table["speaker"].unique())[:4])].reset_index(drop=True)
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
UPPER = """
upper = cross_validate(build_model, table, features, protocol=protocols[0], seeds=seeds[:1],
                       config=TrainingConfig(epochs=2, batch_size=32, monitor=None))
print(upper.summary, tabulate_scores({"upper": upper.predictions}))
"""
COMPARE = """
counts = runs[protocols[0]].predictions.groupby("fold").size()
assert len(counts) == 4, f"only folds {sorted(counts.index)}"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with one notebook that trains."""
    folder = tmp_path_factory.mktemp("notebooks")
    sources = [IMPORTS, PARAMETERS, DATA, MODEL, TRAIN, UPPER, COMPARE]
    cells = [new_markdown_cell("# Example\n\nDoes it hold?"), *map(new_code_cell, sources)]
    cells[1].metadata["tags"] = ["setup"]
    cells[2].metadata["tags"] = ["parameters"]
    notebook = new_notebook(cells=cells, metadata={"ser": {"sample_parameters": {}}})
    nbformat.write(notebook, folder / "95_example.ipynb")
    silent = new_notebook(cells=[*cells[:3]], metadata={"ser": {"sample_parameters": {}}})
    nbformat.write(silent, folder / "96_silent.ipynb")
    decided = new_notebook(cells=[*cells[:1], new_code_cell('corpus = "sample"'), cells[5]])
    decided.cells[1].metadata["tags"] = ["parameters"]
    decided.metadata["ser"] = {"sample_parameters": {}}
    nbformat.write(decided, folder / "97_decided.ipynb")
    return folder


@pytest.fixture(autouse=True)
def notebooks_there(folder, monkeypatch, tmp_path):
    """Let the tools look for notebooks there, and keep runs of a test to itself."""
    monkeypatch.setattr(tasks, "NOTEBOOKS_DIR", folder)
    paths_there = sorted(folder.glob("*.ipynb"))
    find = lambda names: [p for p in paths_there if p.stem[:2] in names]  # noqa: E731
    monkeypatch.setattr(tasks, "select_notebooks", find)
    monkeypatch.setattr(tasks, "list_collection", lambda: paths_there)
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
    assert len(result["keys"]) == 2 and "only folds [2]" in result["ended"]
    for key in result["keys"]:
        (facts,) = (paths.RUNS_DIR / key).glob("*/facts.json")
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


def read_folds() -> dict[str, pd.DataFrame]:
    """The predictions of every fold that was trained, by key, seed and fold."""
    files = sorted(paths.RUNS_DIR.glob("*/seed*/predictions.csv"))
    return {"/".join(file.parts[-3:-1]): pd.read_csv(file) for file in files}


def test_folds_trained_as_tasks_are_those_of_a_notebook_that_trained_whole(
    folder, monkeypatch, tmp_path
):
    monkeypatch.setattr(paths, "RUNS_DIR", tmp_path / "apart")
    every = list_tasks(["95"], corpus="sample", parameters={"seeds": [0]})
    trained = every[:4] + every[8:]  # the notebook takes four speakers
    assert [len(run_task(task)["keys"]) for task in trained] == [2] * 4 + [1] * 5
    assert not load_results(corpus="sample", notebook="95_example")
    monkeypatch.setattr(paths, "RUNS_DIR", tmp_path / "whole")
    whole = nbformat.read(folder / "95_example.ipynb", as_version=4)
    tasks.inject_parameters(whole, {"seeds": [0]})
    _, error = tasks._run_cells(whole)
    assert error is None, error
    evidence = load_results(corpus="sample", notebook="95_example")
    assert sorted(len(result["folds"]) for result in evidence) == [4, 5]
    alone = read_folds()
    monkeypatch.setattr(paths, "RUNS_DIR", tmp_path / "apart")
    apart = read_folds()
    assert [*apart] == [*alone] and len(alone) == 4 + 4 + 5
    for name, predictions in alone.items():
        pd.testing.assert_frame_equal(apart[name], predictions)


def test_what_other_tasks_train_is_not_trained(monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "RUNS_DIR", tmp_path / "runs")
    every = list_tasks(["95"], corpus="sample")
    for protocol, seed in (("leave_one_speaker_out", 1), ("random_5fold", 0)):
        task = next(task for task in every if (task.protocol, task.seed) == (protocol, seed))
        (key,) = run_task(task)["keys"]  # the upper layers are trained by protocols[0], seeds[:1]
        (facts,) = (paths.RUNS_DIR / key).glob("*/facts.json")
        assert facts.parent.name.startswith(f"seed{seed}_fold1_")
    assert len([*paths.RUNS_DIR.glob("*/seed*")]) == 2
    elsewhere = {"parameters": json.dumps({"protocols": ["random_5fold"]}), "made_by": "x"}
    assert run_task(replace(every[0], **elsewhere))["keys"] == []
    assert tasks.describe_state(replace(every[0], **elsewhere)) == "done, trained nothing"


def make_tables(monkeypatch) -> dict[str, pd.DataFrame]:
    """Stand RAVDESS and SAVEE in for what is downloaded."""
    tables = {"ravdess": make_ravdess(), "savee": make_speakers(4, per_emotion=5, corpus="savee")}
    find = lambda name, **_: tables.get(name)  # noqa: E731
    monkeypatch.setattr(tasks, "_open_corpus", find)
    return tables


def test_a_second_corpus_is_trained_as_tasks_too(monkeypatch):
    tables = make_tables(monkeypatch)
    second = {"second_corpus": "savee", "second_protocols": ["leave_one_speaker_out"]}
    every = list_tasks(["95"], corpus="ravdess", parameters={"seeds": [0], **second})
    assert [task.fold for task in every if task.table == "savee"] == [1, 2, 3, 4]
    assert [task.table for task in every[-4:]] == ["savee"] * 4
    asked = []
    run = SimpleNamespace(description={"key": "k"})
    train = lambda *_, **settings: asked.append(settings) or run  # noqa: E731
    monkeypatch.setattr(cross_validation, "cross_validate", train)
    features = make_features(tables["savee"])
    where = {"protocol": "leave_one_speaker_out", "seeds": [0, 1]}
    for task, expected in ((every[0], []), (every[-1], ["k"])):
        with tasks._limit_to(task) as trained:
            found = cross_validation.cross_validate(None, tables["savee"], features, **where)
        assert trained.keys == expected and trained.begun
        if not expected:  # every fold and seed is there, and no better than chance
            counts = found.predictions.groupby(["seed", "fold"]).size()
            assert len(counts) == 8 and found.sources[1, 4] == "guessed"
            assert found.predictions.filter(regex="^p_").eq(0.25).all(axis=None)
    assert asked == [{"protocol": "leave_one_speaker_out", "seeds": [0], "only_folds": [4]}]


def test_the_documented_array_has_a_number_for_every_task(monkeypatch):
    make_tables(monkeypatch)
    path = paths.NOTEBOOKS_DIR / "33_parallel_cnn_attention_lstm.ipynb"
    monkeypatch.setattr(tasks, "NOTEBOOKS_DIR", paths.NOTEBOOKS_DIR)
    monkeypatch.setattr(tasks, "select_notebooks", lambda names: [path])
    text = (paths.ROOT / "docs/cluster.md").read_text(encoding="utf-8")
    assert "tools.tasks run 33 --corpus ravdess --only" in text
    every = list_tasks(["33"], corpus="ravdess")
    alone = sum(task.table == "ravdess" for task in every)
    assert f"{len(every)} for `33` with SAVEE at hand, {alone} without" in text
    assert re.search(r"#SBATCH --array=1-(\d+)", text)[1] == str(len(every))
    assert {task.protocol for task in every if task.seed} == {"speaker_5fold"}  # `headline_seeds`
    with pytest.raises(ValueError, match="headline_seeds=3: give a list"):
        list_tasks(["33"], corpus="ravdess", parameters={"headline_seeds": 3})


def test_workers_run_tasks_each_in_a_python_of_its_own_though_one_is_killed(
    folder, monkeypatch, capfd
):
    def die_once(task: Task) -> str | None:
        """Run a task as a worker does, but kill the worker that comes first."""
        try:
            Path(task.notebook).with_name("killed").touch(exist_ok=False)
        except FileExistsError:
            return tasks.run_apart(task)
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(tasks, "run_apart", die_once)
    first = list_tasks(["95"], corpus="sample", parameters={"seeds": [0]})[0]
    good, wrong = (replace(first, notebook=str(folder / name)) for name in ("95_example", "lost"))
    assert tasks.run_tasks([good, wrong], num_workers=2) == 1
    assert (folder / "killed").exists()
    result = json.loads(good.path.read_text())
    assert len(result["keys"]) == 2 and "only folds [1]" in result["ended"]
    assert not wrong.path.is_file()
    told = capfd.readouterr()
    assert "0 of 2 tasks are done" in told.out
    assert re.search(r"FAILED  lost__.*: FileNotFoundError: .*lost\.ipynb", told.err)
    monkeypatch.setattr(tasks, "run_apart", None)
    assert tasks.run_tasks([good]) == 0


def test_what_fails_before_or_in_training_is_an_error():
    for spoil, words in (
        ({"spoil": "training"}, "cell .*spoil.* raised TypeError"),
        ({"epochs": 0}, "cell .*table.*epochs=0: give"),
    ):
        task = list_tasks(["95"], corpus="sample", parameters=spoil)[0]
        with pytest.raises(RuntimeError, match=f"95_example: {words}"):
            run_task(task)
        assert not task.path.is_file()


def test_wrong_commands_are_told(capsys):
    for arguments, words in (
        (["list", "96"], "96_silent has no folds to train"),
        (["list", "97"], "97_decided has no parameter that names protocols"),
        (["run", "95", "--only", "99"], "--only 99: there are tasks 1 to 26"),
        (["list", "95", "--corpus", "nowhere"], "nowhere"),
        (["collect", "95"], "not done: tasks 1, 2, 3"),
    ):
        with pytest.raises(SystemExit):
            main(arguments)
        assert words in capsys.readouterr().err
    assert main(["list"]) == 0  # those without tasks are left out
    assert "leave_one_speaker_out" in capsys.readouterr().out


def test_the_minutes_to_expect_are_those_that_were_published():
    known = {"corpus": "ravdess", "table": "ravdess", "parameters": "{}", "made_by": ""}
    task = Task(notebook="13_cnn_lstm", protocol="random_5fold", seed=0, fold=1, **known)
    published = (paths.ROOT / "results" / task.notebook).glob("ravdess__random_5fold*.json")
    seconds = [json.loads(path.read_text())["seconds"] for path in published]
    assert len(seconds) == 2  # at one level, and as recorded
    assert tasks.expect_minutes(task) == pytest.approx(sum(seconds) / 5 / 60)
    assert tasks.expect_minutes(Task(**{**task.__dict__, "protocol": "sentence_out"})) is None


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"corpus": "savee"}, "corpus=savee: name it by --corpus"),
        ({"foo": 1}, "no parameter named foo"),
        ({"seeds": 3}, r"seeds=3: give a list, such as seeds=\[0,1\]"),
        ({"seeds": ""}, "seeds='': give a list"),
    ],
)
def test_tasks_that_cannot_be_run_are_not_listed(parameters, words):
    with pytest.raises(ValueError, match=words):
        list_tasks(["95"], corpus="sample", parameters=parameters)
