"""Searches that are killed, shared and cut, on scores that cost nothing."""

import json
import multiprocessing
import os
import signal
import time
from itertools import count

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.storages import InMemoryStorage

from common import studies
from common.studies import choose_settings, measure_importance, open_storage, search

SPACE = {"x": FloatDistribution(-1.0, 1.0), "kind": CategoricalDistribution(["a", "b"])}
DEFAULTS = {"x": 0.5, "kind": "b"}
FEW = {"sampler": "tpe", "num_trainings": 30, "name": "study", "seed": 1, "num_parts": 3}
SPAWN = multiprocessing.get_context("spawn")


def score_parts(settings):
    """Best at x = 0; the test score lies a tenth below."""
    for part in range(3):
        score = 1 - abs(settings["x"]) - part / 100
        yield score, score - 0.1


def score_slowly(settings):
    time.sleep(0.02)
    yield from score_parts(settings)


def search_apart(journal, worker, num_trainings):
    """What a process of its own does."""
    storage = open_storage(journal)
    settings = FEW | {"num_trainings": num_trainings, "worker": worker}
    search(score_slowly, SPACE, DEFAULTS, storage=storage, **settings)


def drop_seconds(trials):
    return trials.drop(columns=["seconds", "trial"]).reset_index(drop=True)


@pytest.fixture(scope="module")
def whole():
    return search(score_parts, SPACE, DEFAULTS, storage=InMemoryStorage(), **FEW)


def test_a_search_begins_with_the_defaults_prunes_and_keeps_to_its_cost(whole):
    assert json.loads(whole["settings"].iloc[0]) == DEFAULTS
    assert 30 <= whole["trainings"].sum() < 33
    assert whole["pruned"].any() and (whole["trainings"][~whole["pruned"]] == 3).all()
    assert (whole["trainings"][whole["pruned"]] < 3).all()
    assert (whole["uar"] - whole["test_uar"]).to_numpy() == pytest.approx(0.1)
    best = whole.loc[whole["uar"].where(~whole["pruned"]).idxmax()]
    assert choose_settings(whole) == json.loads(best["settings"])
    importance = measure_importance(whole, SPACE)
    assert importance.index[0] == "x" and importance.sum() == pytest.approx(1)


def test_the_defaults_are_tried_also_where_another_worker_was_first():
    storage = InMemoryStorage()
    first = FEW | {"num_trainings": 3, "worker": 1, "sampler": "random"}
    assert json.loads(search(score_parts, SPACE, DEFAULTS, storage=storage, **first)["settings"][0])
    trials = search(
        score_parts, SPACE, DEFAULTS, storage=storage, **first | {"num_trainings": 9, "worker": 0}
    )
    tried = [json.loads(given) for given in trials["settings"]]
    assert tried.count(DEFAULTS) == 1 and tried[0] != DEFAULTS


@settings(max_examples=20)
@given(killed_after=st.integers(1, 25), num_trainings=st.integers(1, 30))
def test_a_search_that_was_stopped_anywhere_finds_what_it_would_have_found(
    whole, killed_after, num_trainings
):
    storage, calls = InMemoryStorage(), count(1)

    def stop_somewhere(chosen):
        for pair in score_parts(chosen):
            if next(calls) == killed_after:
                raise KeyboardInterrupt
            yield pair

    with pytest.raises(KeyboardInterrupt):
        search(stop_somewhere, SPACE, DEFAULTS, storage=storage, **FEW)
    again = search(score_parts, SPACE, DEFAULTS, storage=storage, **FEW)
    assert drop_seconds(again).equals(drop_seconds(whole))
    part = FEW | {"num_trainings": num_trainings}
    cut = search(score_parts, SPACE, DEFAULTS, storage=storage, **part)
    assert drop_seconds(cut).equals(drop_seconds(whole)[: len(cut)])
    assert num_trainings <= cut["trainings"].sum() < num_trainings + 3


def test_trials_of_killed_processes_end_and_those_of_others_go_on(monkeypatch):
    study = optuna.create_study(storage=InMemoryStorage(), study_name="study", direction="maximize")
    own, others, unlabelled = (study.ask() for _ in range(3))
    own.set_user_attr("worker", 0)
    others.set_user_attr("worker", 1)
    told = FEW | {"num_trainings": 1, "storage": study._storage}
    search(score_parts, SPACE, DEFAULTS, **told)
    states = [trial.state.name for trial in study.trials]
    assert states == ["FAIL", "RUNNING", "RUNNING", "COMPLETE"]
    monkeypatch.setattr(studies, "LABELLING_S", 0)
    search(score_parts, SPACE, DEFAULTS, **told)
    assert [trial.state.name for trial in study.trials] == ["FAIL", "RUNNING", "FAIL", "COMPLETE"]


def test_two_processes_share_a_study_and_one_may_be_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(studies, "LABELLING_S", 0)  # it may be killed before it labels a trial
    journal = tmp_path / "search" / "journal.log"
    first, second = (
        SPAWN.Process(target=search_apart, args=(journal, worker, 1_000_000 if worker else 120))
        for worker in (0, 1)
    )
    first.start()
    second.start()
    storage = None
    while storage is None or len(list_workers(storage)) < 2:
        time.sleep(0.1)
        storage = open_storage(journal) if journal.is_file() else None
    os.kill(second.pid, signal.SIGKILL)
    first.join(60)
    assert first.exitcode == 0 and second.join(60) is None and second.exitcode == -signal.SIGKILL
    with journal.open("a") as file:
        file.write('{"op_code":')  # torn by a kill
    storage = open_storage(journal)
    settings = FEW | {"num_trainings": 123, "worker": 1}
    trials = search(score_parts, SPACE, DEFAULTS, storage=storage, **settings)
    assert trials["trainings"].sum() >= 123 and trials["settings"].is_unique
    study = optuna.load_study(study_name="study", storage=storage)
    states = {trial.state.name for trial in study.trials}
    assert states <= {"COMPLETE", "PRUNED", "FAIL"}


def list_workers(storage):
    """Workers that finished a trial."""
    studies = {study.study_name for study in storage.get_all_studies()}
    if "study" not in studies:
        return set()
    trials = optuna.load_study(study_name="study", storage=storage).trials
    return {trial.user_attrs.get("worker") for trial in trials if trial.state.is_finished()}


def test_random_search_prunes_nothing_and_default_tries_one():
    settings = FEW | {"sampler": "random"}
    trials = search(score_parts, SPACE, DEFAULTS, storage=InMemoryStorage(), **settings)
    assert len(trials) == 10 and not trials["pruned"].any()
    settings = FEW | {"sampler": "default", "worker": 1}
    trials = search(score_parts, SPACE, DEFAULTS, storage=InMemoryStorage(), **settings)
    assert [json.loads(text) for text in trials["settings"]] == [DEFAULTS]


def test_a_database_keeps_trials_too(tmp_path):
    url = f"sqlite:///{tmp_path / 'trials.db'}"
    settings = FEW | {"num_trainings": 5}
    first = search(score_parts, SPACE, DEFAULTS, storage=open_storage(url), **settings)
    again = search(score_parts, SPACE, DEFAULTS, storage=open_storage(url), **settings)
    assert first.equals(again)


def test_wrong_arguments_are_told():
    known = {**FEW, "storage": InMemoryStorage()}
    with pytest.raises(ValueError, match="sampler='grid' is unknown; use 'tpe'"):
        search(score_parts, SPACE, DEFAULTS, **known | {"sampler": "grid"})
    with pytest.raises(ValueError, match=r"\['y'\]: give each setting both a range and a default"):
        search(score_parts, SPACE, DEFAULTS | {"y": 1}, **known)
