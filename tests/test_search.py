"""Nested search: what it may see, that it trains as cross-validation does, that it is read back."""

import json
from dataclasses import replace
from functools import partial

import keras
import numpy as np
import pandas as pd
import pytest
from keras import layers
from optuna.distributions import CategoricalDistribution, FloatDistribution

from common import paths
from common.corpora import load_corpus
from common.cross_validation import cross_validate
from common.features import Functionals, Trim
from common.recipes import Recipe, extract_features
from common.results import save_results
from common.runs import Run
from common.search import NestedSearch
from common.splits import make_folds
from common.training import TrainingConfig

SPACE = {"units": CategoricalDistribution([16]), "learning_rate": FloatDistribution(1e-3, 1e-2)}
DEFAULTS = {"units": 16, "learning_rate": 2e-3}
CONFIG = TrainingConfig(epochs=1, batch_size=32, monitor=None, warmup_epochs=0)
PROTOCOL = "leave_one_speaker_out"
COST = {"num_trainings": 4}


def build_model(input_shape, num_classes, *, units):
    inputs = keras.Input(input_shape, name="functionals")
    x = layers.Flatten(name="flatten")(inputs)
    x = layers.Dropout(0.2, name="dropout")(layers.Dense(units, activation="relu", name="h")(x))
    return keras.Model(inputs, layers.Dense(num_classes, activation="softmax", name="out")(x))


@pytest.fixture(scope="module")
def corpus():
    table = load_corpus("sample")
    kept = table["speaker"].isin(sorted(table["speaker"].unique())[:3])
    table = table[kept].reset_index(drop=True)
    return table, extract_features(table, Recipe((Trim(top_db=30), Functionals())))


@pytest.fixture(scope="module")
def nested(corpus, tmp_path_factory):
    journal = tmp_path_factory.mktemp("search") / "journal.log"
    settings = {"num_inner": 2, "storage": journal}
    return NestedSearch(build_model, SPACE, DEFAULTS, *corpus, PROTOCOL, CONFIG, **settings)


@pytest.fixture(scope="module")
def runs(nested) -> dict[str, Run]:
    return {name: nested.run(name, **COST) for name in ("default", "random")}


def test_choices_see_training_speakers_alone(corpus, nested, runs, monkeypatch):
    table, _ = corpus
    seen = []
    monkeypatch.setattr(
        NestedSearch,
        "_train",
        lambda self, settings, train, rows, number: (
            seen.append((train, rows, number)) or np.eye(8)[np.zeros(len(rows), int)],
            0.0,
        ),
    )
    fresh = NestedSearch(**{name: getattr(nested, name) for name in nested.__match_args__[:9]})
    for fold in fresh._tasks.values():
        [*fresh._score_parts(fold, fresh._split(fold), DEFAULTS)]
    for train, rows, number in seen:
        (fold,) = (fold for fold in make_folds(table, PROTOCOL) if fold.number == number)
        tested = set(table["speaker"].iloc[fold.test])
        left = set(table["speaker"].iloc[np.setdiff1d(rows, fold.test)])
        assert tested.isdisjoint(table["speaker"].iloc[train]) and tested.isdisjoint(left)
        assert left and left.isdisjoint(table["speaker"].iloc[train])
    assert len(seen) == 2 * len(fresh._tasks)


def test_the_defaults_are_trained_as_cross_validation_trains_them(corpus, runs, tmp_path):
    plain = cross_validate(
        partial(build_model, units=DEFAULTS["units"]),
        *corpus,
        protocol=PROTOCOL,
        config=TrainingConfig(**{**CONFIG.__dict__, "learning_rate": DEFAULTS["learning_rate"]}),
        only_folds=[2],
        runs_folder=tmp_path,
    )
    found = runs["default"].predictions
    found = found[found["fold"].eq(2)].reset_index(drop=True)
    pd.testing.assert_frame_equal(found, plain.predictions)


def test_each_fold_keeps_its_own_cost_and_choice(runs):
    trials = runs["random"].history
    assert (trials.groupby("fold")["trainings"].sum() == COST["num_trainings"]).all()
    assert [json.loads(text) for text in trials.groupby("fold")["settings"].first()] == [
        DEFAULTS
    ] * 3
    assert trials["uar"].between(0, 1).all() and trials["test_uar"].between(0, 1).all()
    chosen = runs["random"].description["training"]["chosen"]
    for fold, rows in trials.groupby("fold"):
        assert chosen[str(fold)] == json.loads(rows.loc[rows["uar"].idxmax(), "settings"])
    assert runs["default"].history.groupby("fold").size().tolist() == [1] * 3
    assert runs["random"].description["key"] != runs["default"].description["key"]


def test_a_published_search_is_read_back_without_training(nested, runs, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "RUNS_DIR", tmp_path / "runs")
    known = {"notebook": "41_example", "title": "MLP", "variant": "random", "ablation": True}
    path = save_results(runs["random"], **known)
    monkeypatch.setattr(paths, "RESULTS_DIR", path.parent.parent)
    monkeypatch.setattr(NestedSearch, "_train", None)
    again = nested.run("random", **COST)
    assert set(again.sources.values()) == {"published"}
    pd.testing.assert_frame_equal(again.history, runs["random"].history, atol=1e-6)
    pd.testing.assert_frame_equal(again.predictions, runs["random"].predictions)
    assert again.description["training"] == runs["random"].description["training"]


def test_where_one_speaker_trains_the_defaults_are_tested(corpus, tmp_path, monkeypatch):
    table, features = corpus
    kept = table["speaker"].isin(sorted(table["speaker"].unique())[:2]).to_numpy()
    pair = table[kept].reset_index(drop=True)
    known = replace(features, made_values=features.values[kept])
    nested = NestedSearch(build_model, SPACE, DEFAULTS, pair, known, PROTOCOL, CONFIG)
    trials = nested._search(nested._tasks[0, 1], "tpe", 4, 0)
    assert trials.empty and nested._choose(trials) == DEFAULTS
    monkeypatch.setattr(paths, "RUNS_DIR", tmp_path)
    run = nested.run("tpe", num_trainings=4)
    assert run.history.empty
    path = save_results(run, notebook="41_example", title="MLP", ablation=True)
    assert not path.with_suffix(".history.csv").exists()


def test_a_network_that_ends_in_no_probabilities_is_refused_before_the_search(corpus, tmp_path):
    def build_scores(input_shape, num_classes, **settings):
        model = build_model(input_shape, num_classes, **settings)
        scores = keras.layers.Dense(num_classes, name="scores")(model.layers[-2].output)
        return keras.Model(model.input, scores)

    table, features = corpus
    storage = tmp_path / "journal.log"
    settings = {"config": CONFIG, "storage": storage}
    nested = NestedSearch(build_scores, SPACE, DEFAULTS, table, features, PROTOCOL, **settings)
    with pytest.raises(ValueError, match="softmax"):
        nested.run("tpe", num_trainings=4)
    assert not storage.exists()


def test_what_would_choose_epochs_or_mix_speakers_is_refused(corpus):
    table, features = corpus
    known = (build_model, SPACE, DEFAULTS, table, features)
    with pytest.raises(ValueError, match="monitor='uar' chooses epochs"):
        NestedSearch(*known, PROTOCOL, TrainingConfig())
    with pytest.raises(ValueError, match="'random_5fold' is not by speaker"):
        NestedSearch(*known, "random_5fold", CONFIG)
    with pytest.raises(ValueError, match="protocol='speakers' is unknown; choose from"):
        NestedSearch(*known, "speakers", CONFIG)
