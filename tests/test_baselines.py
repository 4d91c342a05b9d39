"""scikit-learn classifiers are tested like the networks: every row once, none of it in training."""

import json
import linecache
import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.ensemble import VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from common import paths
from common.baselines import (
    CopiesClassifier,
    SoftSVC,
    cross_validate_classifier,
    fit_classifier,
    make_regression,
    make_svm,
    name_classifier,
)
from common.evaluation import score_predictions
from common.files import digest
from common.recipes import Features
from common.results import load_results, read_predictions, save_results, tabulate_results
from common.runs import Run
from common.splits import make_folds
from tests.speech_tables import make_features, make_speakers
from tools.publication import publish_notebook

TABLE = make_speakers(10, per_emotion=6)
FEATURES = make_features(TABLE)
PROTOCOL = "speaker_5fold"


def run(classifier=None, *, table=TABLE, features=FEATURES, **settings) -> Run:
    settings = {"protocol": PROTOCOL, **settings}
    return cross_validate_classifier(classifier or GaussianNB(), table, features, **settings)


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    """Keep what these tests write out of the repository."""
    monkeypatch.setattr(paths, "RESULTS_DIR", tmp_path / "results")
    monkeypatch.setattr(paths, "RUNS_DIR", tmp_path / "runs")


@pytest.mark.parametrize("protocol", ["speaker_5fold", "leave_one_speaker_out", "random_5fold"])
def test_every_row_is_tested_once_per_seed(protocol):
    result = run(protocol=protocol, seeds=(0, 4))
    assert result.complete and result.history.empty
    assert [*result.sources.values()] == ["trained"] * 2 * len(make_folds(TABLE, protocol))
    for seed, rows in result.predictions.groupby("seed"):
        assert sorted(rows["utterance"]) == sorted(TABLE["utterance"])
        for fold in make_folds(TABLE, protocol, seed=seed):
            tested = rows[rows["fold"] == fold.number]
            expected = TABLE.iloc[fold.test]
            for column, name in (("utterance", "utterance"), ("true_label", "emotion")):
                assert tested[column].tolist() == expected[name].tolist()
    assert set(result.predictions["seed"]) == {0, 4}


def test_seeds_give_other_random_splits():
    predictions = run(protocol="random_5fold", seeds=(0, 1)).predictions
    folds = predictions.pivot(index="utterance", columns="seed", values="fold")
    assert (folds[0] != folds[1]).any()


def test_an_easy_corpus_is_learnt_and_permuted_labels_are_chance():
    classifier = make_pipeline(StandardScaler(), LogisticRegression())
    assert score_predictions(run(classifier).predictions)["uar"] > 0.9
    permuted = TABLE.assign(emotion=np.random.default_rng(0).permutation(TABLE["emotion"]))
    uar = score_predictions(run(classifier, table=permuted).predictions)["uar"]
    assert 0.15 < uar < 0.35


class Spy(ClassifierMixin, BaseEstimator):
    """Write down the rows that reach it, and give every emotion the same probability."""

    fitted: list = []
    tested: list = []

    def fit(self, values, labels):
        self.classes_ = np.unique(labels)
        Spy.fitted.append((values, np.asarray(labels)))
        return self

    def predict_proba(self, values):
        Spy.tested.append(values)
        return np.full((len(values), len(self.classes_)), 1 / len(self.classes_))


@pytest.mark.parametrize("protocol", ["speaker_5fold", "random_5fold", "random_80_10_10"])
def test_test_rows_never_reach_fit(protocol, monkeypatch):
    monkeypatch.setattr(Spy, "fitted", [])
    monkeypatch.setattr(Spy, "tested", [])
    numbers = np.arange(len(TABLE), dtype=np.float32)[:, None, None]
    values = np.tile(numbers, (1, 3, 2))
    encoded = Features(values, np.full((len(TABLE), 1, 3, 2), -1.0), make_features(TABLE).recipe)
    run(Spy(), features=encoded, protocol=protocol)
    folds = make_folds(TABLE, protocol)
    for fold, (fitted, labels), tested in zip(folds, Spy.fitted, Spy.tested, strict=True):
        assert fitted.shape[1] == tested.shape[1] == 6
        rows = fitted[:, 0].astype(int)
        assert sorted(rows) == sorted([*fold.train, *fold.validation])
        assert not set(rows) & set(fold.test)
        np.testing.assert_array_equal(labels, TABLE["emotion"].to_numpy()[rows])
        np.testing.assert_array_equal(tested[:, 0], fold.test)
        if protocol == "speaker_5fold":
            speakers = TABLE["speaker"].to_numpy()
            assert not set(speakers[rows]) & set(speakers[fold.test])


def test_copies_join_their_own_rows_in_training_and_in_test(monkeypatch):
    monkeypatch.setattr(Spy, "fitted", [])
    monkeypatch.setattr(Spy, "tested", [])
    values = np.arange(len(TABLE), dtype=np.float32)[:, None, None]
    features = Features(
        values, np.stack([values + 1000, values + 2000], axis=1), make_features(TABLE).recipe
    )
    found = run(Spy(), features=features, use_copies=True)
    assert found.description["key"] != run(Spy(), features=features).description["key"]
    emotions = TABLE["emotion"].to_numpy()
    for number, fold in enumerate(make_folds(TABLE, PROTOCOL)):
        known, labels = Spy.fitted[number]
        assert sorted(known.ravel() // 1000) == [0] * (len(known) // 3) + sorted(
            [1, 2] * (len(known) // 3)
        )
        rows = known.ravel().astype(int) % 1000
        assert set(rows) == {*fold.train, *fold.validation} and set(rows).isdisjoint(fold.test)
        np.testing.assert_array_equal(labels, emotions[rows])
        for version, tested in enumerate(Spy.tested[3 * number : 3 * number + 3]):
            np.testing.assert_array_equal(tested[:, 0], fold.test + 1000 * version)


class Remember(ClassifierMixin, BaseEstimator):
    """Sure of the first class where the value is above 0, of the second elsewhere."""

    def fit(self, values, labels):
        self.classes_ = np.unique(labels)
        return self

    def predict_proba(self, values):
        first = (values[:, :1] > 0).astype(float)
        return np.hstack([first, 1 - first, np.zeros((len(values), len(self.classes_) - 2))])


def test_an_answer_is_the_mean_over_the_versions_of_an_utterance():
    values = np.ones((len(TABLE), 1, 1), np.float32)
    features = Features(values, np.stack([-values, -values], 1), make_features(TABLE).recipe)
    answers = run(Remember(), features=features, use_copies=True).predictions.filter(like="p_")
    assert sorted(set(np.ravel(answers))) == [0.0, 0.3333, 0.6667]
    alone = run(Remember(), features=features, use_copies=True, hear_copies=False)
    assert sorted(set(np.ravel(alone.predictions.filter(like="p_")))) == [0.0, 1.0]
    first = run(Remember(), features=features, use_copies=True, hear_copies=1)
    assert sorted(set(np.ravel(first.predictions.filter(like="p_")))) == [0.0, 0.5]
    keys = [run(Remember(), features=features, use_copies=True).description["key"]]
    keys += [found.description["key"] for found in (alone, first)]
    assert len({*keys, run(Remember(), features=features).description["key"]}) == 4


@pytest.mark.parametrize("use_copies", [False, True])
def test_a_published_run_is_read_back(use_copies, monkeypatch):
    made = run(seeds=(0, 1), use_copies=use_copies)
    save_results(made, notebook="91_mine", title="Bayes")
    publish_notebook("91_mine", runs=paths.RUNS_DIR, results=paths.RESULTS_DIR)
    monkeypatch.setattr(GaussianNB, "fit", None)
    again = run(seeds=(0, 1), use_copies=use_copies)
    assert set(again.sources.values()) == {"published"} and again.history.empty
    rows = ["seed", "fold", "utterance"]
    pd.testing.assert_frame_equal(
        *(found.predictions.sort_values(rows, ignore_index=True) for found in (again, made)),
        check_dtype=False,
    )


def test_rows_that_are_held_out_are_predicted_and_not_trained_on(monkeypatch):
    monkeypatch.setattr(Spy, "fitted", [])
    held_out = run(Spy(), hold_out=True)
    folds = make_folds(TABLE, PROTOCOL)
    for fold, (fitted, _) in zip(folds, Spy.fitted, strict=True):
        np.testing.assert_array_equal(fitted, FEATURES.values.reshape(len(TABLE), -1)[fold.train])
        found = held_out.validation.query(f"fold == {fold.number}")
        assert found["utterance"].tolist() == TABLE["utterance"].iloc[fold.validation].tolist()
    joined = run(Spy())
    assert joined.validation.empty and joined.description["key"] != held_out.description["key"]
    save_results(held_out, notebook="91_mine", title="Spy")
    publish_notebook("91_mine", runs=paths.RUNS_DIR, results=paths.RESULTS_DIR)
    again = run(Spy(), hold_out=True)
    assert {*again.sources.values()} == {"published"}
    pd.testing.assert_series_equal(again.validation["p_sad"], held_out.validation["p_sad"])


def test_test_labels_change_nothing_but_the_score():
    test = make_folds(TABLE, PROTOCOL)[0].test
    changed = TABLE.copy()
    changed.loc[test, "emotion"] = np.random.default_rng(0).permutation(
        changed.loc[test, "emotion"]
    )
    first, second = (
        result.predictions.query("fold == 1").filter(regex="^p_")
        for result in (run(), run(table=changed))
    )
    pd.testing.assert_frame_equal(first, second)


def test_the_classifier_given_is_not_fitted_itself():
    classifier = GaussianNB()
    run(classifier)
    assert not hasattr(classifier, "classes_")


def test_probabilities_stand_under_their_emotions():
    predictions = run().predictions
    emotions = ["neutral", "calm", "happy", "sad"]  # not in the order of the alphabet
    chances = predictions.filter(regex="^p_")
    assert [*chances.columns] == [f"p_{emotion}" for emotion in emotions]
    fold = make_folds(TABLE, PROTOCOL)[0]
    rows = np.concatenate([fold.train, fold.validation])
    values = FEATURES.values.reshape(len(TABLE), -1)
    classifier = GaussianNB().fit(values[rows], TABLE["emotion"].iloc[rows])
    expected = pd.DataFrame(
        classifier.predict_proba(values[fold.test]), columns=classifier.classes_
    )
    np.testing.assert_allclose(
        chances[predictions["fold"] == 1], expected[emotions].astype(float), atol=1e-4
    )
    predicted = classifier.predict(values[fold.test])
    np.testing.assert_array_equal(
        predictions.loc[predictions["fold"] == 1, "predicted_label"], predicted
    )


def test_a_run_is_saved_and_tabulated_without_a_number_of_parameters():
    result = run(seeds=(0, 1), protocol="random_5fold")
    path = save_results(result, notebook="10_svm", title="Bayes", variant="nb")
    content = json.loads(path.read_text())
    assert content["num_parameters"] is None
    assert (content["backend"], content["model"]) == ("scikit-learn", "GaussianNB()")
    pd.testing.assert_frame_equal(read_predictions(path.with_suffix(".csv")), result.predictions)
    [row] = tabulate_results(corpus="toy").to_dict("records")
    assert (row["notebook"], row["variant"], row["num_seeds"]) == ("10_svm", "nb", 2)
    assert row["uar"] == pytest.approx(content["metrics"]["uar"]["score"])
    assert pd.isna(row["num_parameters"])


def test_rows_with_and_without_parameters_are_tabulated_together():
    result = run()
    save_results(result, notebook="10_svm", title="SVM")
    result.description["num_parameters"] = 7
    save_results(result, notebook="11_cnn", title="CNN")
    table = tabulate_results(corpus="toy").set_index("notebook")
    assert table.loc["11_cnn", "num_parameters"] == 7
    assert pd.isna(table.loc["10_svm", "num_parameters"])
    assert len(load_results(corpus="toy")) == 2


def test_the_summary_names_protocol_and_corpus():
    result = run()
    assert result.summary.startswith(f"{PROTOCOL} on toy, seed 0: folds 5 trained now;")


def test_settings_of_the_classifier_and_the_features_decide_the_key():
    keys = {
        result.description["key"]
        for result in (
            run(),
            run(GaussianNB(var_smoothing=1e-3)),
            run(features=make_features(TABLE, seed=3)),
            run(protocol="random_5fold"),
        )
    }
    assert len(keys) == 4 and run().description["key"] in keys


def make_vote(number):
    """Forty classifiers, of which scikit-learn shows the first and the last."""
    members = [(str(n), LogisticRegression(C=2.0 if n == number else 1.0 + n)) for n in range(40)]
    return VotingClassifier(members, voting="soft")


def define(body):
    """A class that a notebook defines, with what its `predict_proba` computes."""
    code = f"class Own(GaussianNB):\n    def predict_proba(self, X):\n        return {body}\n"
    space = {"__name__": "__main__", "GaussianNB": GaussianNB}
    name = f"<cell {digest(body)}>"
    linecache.cache[name] = len(code), None, code.splitlines(keepends=True), name
    exec(compile(code, name, "exec"), space)
    return space["Own"]


def test_a_key_holds_what_scikit_learn_leaves_out_of_a_name(monkeypatch):
    searches = [
        GridSearchCV(SVC(), {"C": [*range(1, 40), last]}, cv=GroupKFold(3)) for last in (40, 41)
    ]
    for first, second in ((make_vote(18), make_vote(19)), searches):
        assert repr(first) == repr(second)  # both cut short
        assert name_classifier(first) != name_classifier(second)
        assert name_classifier(first) == name_classifier(clone(first))
    assert name_classifier(GaussianNB()) == repr(GaussianNB())
    classes = [define("super().predict_proba(X)"), define("super().predict_proba(-X)")]
    for own in classes:
        monkeypatch.setitem(vars(sys.modules["__main__"]), "Own", own)
        own.name = name_classifier(make_pipeline(StandardScaler(), own()))
    assert classes[0].name != classes[1].name


def test_features_of_another_table_are_refused():
    with pytest.raises(ValueError, match="120 utterances but 240 feature rows"):
        run(table=TABLE.iloc[:120])


class GroupSpy(Spy):
    """Prefer one setting, and write down the training rows of every fit."""

    def __init__(self, liked=False):
        self.liked = liked

    def predict_proba(self, values):
        emotions = TABLE["emotion"].to_numpy()[values[:, 0].astype(int) % len(TABLE)]
        sure = (emotions[:, None] == self.classes_).astype(float)
        return sure if self.liked else sure[:, ::-1]

    def predict(self, values):
        return self.classes_[self.predict_proba(values).argmax(axis=1)]


def test_settings_are_chosen_on_training_speakers_and_copies_stay_with_their_utterance(monkeypatch):
    monkeypatch.setattr(Spy, "fitted", [])
    values = np.arange(len(TABLE), dtype=np.float32)[:, None, None]
    copies = np.stack([values + len(TABLE), values + 2 * len(TABLE)], axis=1)
    features = Features(values, copies, make_features(TABLE).recipe)
    search = make_regression(num_inner=2).set_params(
        estimator=GroupSpy(), param_grid={"liked": [False, True]}
    )
    found = run(search, features=features, use_copies=True)
    assert score_predictions(found.predictions)["uar"] == 1
    assert found.history.groupby("fold")["liked"].apply(list).map(str).eq("[False, True]").all()
    assert found.history["chosen"].tolist() == [False, True] * found.history["fold"].nunique()
    speakers, folds = TABLE["speaker"].to_numpy(), make_folds(TABLE, PROTOCOL)
    per_fold = 2 * 2 + 1  # two settings on two parts, and the chosen one on all
    for number, fold in enumerate(folds):
        heard = set(speakers[fold.join_validation().train])
        fits = Spy.fitted[number * per_fold : (number + 1) * per_fold]
        rows = [fitted.ravel().astype(int) % len(TABLE) for fitted, _ in fits]
        known = [set(speakers[own]) for own in rows]
        assert known[-1] == heard and all(own < heard for own in known[:-1])
        for own in rows:
            assert set(np.bincount(own, minlength=len(TABLE))) == {0, 3}


def test_where_one_speaker_trains_the_middle_penalty_is_taken():
    few = TABLE[TABLE["speaker"].isin(TABLE["speaker"].unique()[:1])]
    values = make_features(TABLE).values[few.index].reshape(len(few), -1)
    fitted, tried = fit_classifier(make_regression(), values, few["emotion"], few["speaker"])
    assert fitted[-1].C == 0.01 and tried.empty


def make_layers(num_copies: int) -> Features:
    """Two layers of which the second tells the emotion, and copies that tell it as well."""
    told = TABLE["emotion"].astype("category").cat.codes.to_numpy(np.float32)
    drawn = np.random.default_rng(0).normal(size=(1 + num_copies, len(TABLE), 2, 3))
    drawn[:, :, 1] += told[:, None]
    values, *copies = drawn.astype(np.float32)
    return Features(values, np.stack(copies, axis=1), make_features(TABLE).recipe)


@pytest.mark.parametrize(
    ("copies", "settings"),
    [
        ((0, 0), {}),
        ((2, 2), {"use_copies": True}),
        ((2, 1), {"use_copies": True, "hear_copies": 1}),
        ((2, 0), {"use_copies": True, "hear_copies": False}),
    ],
)
def test_copies_as_a_setting_are_copies_as_an_argument(copies, settings):
    features = make_layers(2)
    given = run(CopiesClassifier(GaussianNB(), copies=copies), features=features, use_copies=True)
    expected = run(features=features, **settings)
    pd.testing.assert_frame_equal(given.predictions, expected.predictions)
    assert given.description["key"] != expected.description["key"]


def test_layers_and_copies_are_chosen_on_training_speakers():
    search = GridSearchCV(
        CopiesClassifier(GaussianNB()),
        {"layers": [(0,), (1,)], "copies": [(0, 0), (2, 2)]},
        scoring="recall_macro",
        cv=GroupKFold(3),
    )
    found = run(search, features=make_layers(2), use_copies=True)
    chosen = found.history[found.history["chosen"]]
    assert chosen["layers"].tolist() == [(1,)] * 5
    assert chosen["copies"].tolist() == [(2, 2)] * 5  # three looks in the place of one
    best = CopiesClassifier(GaussianNB(), layers=(1,), copies=(2, 2))
    again = run(best, features=make_layers(2), use_copies=True)
    pd.testing.assert_frame_equal(found.predictions, again.predictions)


@pytest.mark.parametrize("num_emotions", [2, 4])
def test_probabilities_of_a_support_vector_machine_agree_with_what_it_says(num_emotions):
    rows = TABLE["emotion"].isin(TABLE["emotion"].unique()[:num_emotions]).to_numpy()
    values = FEATURES.values[rows].reshape(rows.sum(), -1)
    machine = SoftSVC(break_ties=True).fit(values, TABLE["emotion"][rows])
    probabilities = machine.predict_proba(values)
    assert probabilities.shape == (rows.sum(), num_emotions)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    said = machine.classes_[probabilities.argmax(axis=1)]
    np.testing.assert_array_equal(said, machine.predict(values))


def test_a_support_vector_machine_needs_no_more_than_one_utterance_of_an_emotion():
    kept = TABLE.groupby(["speaker", "emotion"]).head(1).index
    few = TABLE.loc[kept].reset_index(drop=True)
    of_two = few[few["speaker"].isin(few["speaker"].unique()[:2])]
    for table in (few, of_two):
        where = {"table": table, "features": make_features(table)}
        found = run(make_svm(), **where, protocol="leave_one_speaker_out")
        assert len(found.predictions) == len(table)
    assert found.history.empty  # one speaker trains
