"""Voices are taken out exactly, labels of what is heard change nothing, draws keep their rule."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from common import paths
from common.baselines import cross_validate_classifier
from common.bootstrap import summarise_predictions
from common.emotions import order_emotions
from common.enrolment import ALL, PRIORS, USUAL_PRIOR, EnrolledSystem, draw_utterances
from common.evaluation import score_predictions
from common.predictions import COLUMNS
from common.recipes import Rows
from common.results import load_results, save_results, tabulate_results
from common.transfer import take_rows
from common.voices import Candidate, Voice, VoiceModel, VoiceNormalisation
from tests.speech_tables import make_features, make_speakers

TABLE = make_speakers(10, per_emotion=5)
SPEAKERS, LABELS = (TABLE[name].to_numpy() for name in ("speaker", "emotion"))
PROTOCOL = "speaker_5fold"
CLASSIFIER = make_pipeline(StandardScaler(), LogisticRegression(C=0.1))
CANDIDATES = (Candidate(CLASSIFIER),)
FEATURES = make_features(TABLE, num_copies=0, shape=(3, 6))
COUNTS = (0, 1, 4, ALL)


def give_voices(values, *, offset=4.0, spread=1.0):
    """Give every speaker an offset and a scale of their own."""
    rng = np.random.default_rng(5)
    spoken = values.copy()
    for speaker in np.unique(SPEAKERS):
        scale = np.exp(spread * rng.normal(size=values.shape[1:]))
        spoken[speaker == SPEAKERS] *= scale
        spoken[speaker == SPEAKERS] += offset * rng.normal(size=values.shape[1:])
    return spoken.astype(np.float32)


SPOKEN = replace(FEATURES, made_values=give_voices(FEATURES.values))


def make_system(features=SPOKEN, table=TABLE, candidates=CANDIDATES, **settings):
    return EnrolledSystem(candidates, table, features, **{"protocol": PROTOCOL, **settings})


SYSTEM = make_system()


def read_probabilities(run):
    """Probabilities by draw and utterance."""
    rows = run.predictions.set_index(["seed", "utterance"]).sort_index()
    return rows.filter(like="p_")


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    """Keep what these tests write out of the repository."""
    monkeypatch.setattr(paths, "RESULTS_DIR", tmp_path / "results")
    monkeypatch.setattr(paths, "RUNS_DIR", tmp_path / "runs")


@given(scale=st.floats(0.01, 100), offset=st.floats(-100, 100), seed=st.integers(0, 99))
def test_offset_and_scale_of_a_speaker_are_removed_exactly(scale, offset, seed):
    rng = np.random.default_rng(seed)
    values, average = rng.normal(size=(9, 4)), Voice(rng.normal(size=4), rng.uniform(1, 2, 4))
    plain, spoken = (
        VoiceNormalisation()(heard, average.hear(heard, prior=0), average)
        for heard in (values, offset + scale * values)
    )
    np.testing.assert_allclose(spoken, plain, atol=1e-3)
    np.testing.assert_allclose(spoken.mean(axis=0), average.mean, atol=1e-3)
    np.testing.assert_allclose(spoken.var(axis=0), average.variance, rtol=1e-3)


def test_mean_alone_keeps_the_deviation():
    heard = np.random.default_rng(0).normal(3, 2, size=(8, 4))
    average = Voice(np.zeros(4), np.ones(4))
    found = VoiceNormalisation(deviation=False)(heard, average.hear(heard, prior=0), average)
    np.testing.assert_allclose(found, heard - heard.mean(axis=0), atol=1e-6)


def test_level_alone_removes_a_gain_and_nothing_else():
    rng = np.random.default_rng(0)
    heard, average = rng.normal(size=(8, 4)), Voice(np.zeros(4), np.ones(4))
    gain = np.array([1.0, 1.0, 0.0, 8.0])
    normalise = VoiceNormalisation(direction=tuple(gain))
    quiet, loud = (
        normalise(values, average.hear(values, prior=0), average)
        for values in (heard, heard + 21 * gain)
    )
    np.testing.assert_allclose(loud, quiet, atol=1e-4)
    moved = quiet - heard
    np.testing.assert_allclose(moved - np.outer(moved @ gain / (gain @ gain), gain), 0, atol=1e-6)
    np.testing.assert_allclose(quiet.mean(axis=0) @ gain, 0, atol=1e-5)


@given(k=st.integers(1, 20), prior=st.floats(0, 1e3), seed=st.integers(0, 99))
def test_shrinkage_is_a_weighted_mean_of_speaker_and_average(k, prior, seed):
    rng = np.random.default_rng(seed)
    heard, average = rng.normal(size=(k, 3)), Voice(rng.normal(size=3), np.ones(3))
    voice = average.hear(heard, prior=prior)
    expected = (k * heard.mean(axis=0) + prior * average.mean) / (k + prior)
    np.testing.assert_allclose(voice.mean, expected, atol=1e-9)
    low, high = (f(heard.mean(axis=0), average.mean) for f in (np.minimum, np.maximum))
    assert ((voice.mean >= low - 1e-9) & (voice.mean <= high + 1e-9)).all()
    assert (voice.variance > 0).all()


def test_shrinkage_has_the_speaker_and_the_average_as_its_limits():
    heard = np.random.default_rng(0).normal(3, 2, size=(5, 4))
    average = Voice(np.zeros(4), np.ones(4))
    own, none = average.hear(heard, prior=0), average.hear(heard, prior=1e9)
    np.testing.assert_allclose(own.mean, heard.mean(axis=0))
    np.testing.assert_allclose(own.variance, heard.var(axis=0))
    np.testing.assert_allclose(none.mean, average.mean, atol=1e-6)
    np.testing.assert_allclose(none.variance, average.variance, atol=1e-6)
    with pytest.raises(ValueError, match="no utterance is heard"):
        average.hear(heard[:0], prior=0)
    nothing = average.hear(heard[:0], prior=3)
    np.testing.assert_allclose(nothing.mean, average.mean)


def test_average_gives_each_speaker_one_vote():
    values = np.array([[0.0], [0.0], [0.0], [6.0]])
    average = Voice.average(values, np.array(["a", "a", "a", "b"]))
    assert average.mean == 3
    constant = Voice.average(np.ones((4, 2)), np.array(["a", "a", "b", "b"]))
    normalised = VoiceNormalisation()(
        np.ones((4, 2)), constant.hear(np.ones((4, 2)), prior=0), constant
    )
    assert np.isfinite(normalised).all()


def test_no_utterance_heard_is_the_plain_system():
    run = SYSTEM.test(0)
    plain = cross_validate_classifier(CLASSIFIER, TABLE, SPOKEN, protocol=PROTOCOL)
    both = (read_probabilities(found) for found in (run, plain))
    np.testing.assert_allclose(*both, atol=1e-4)
    assert run.description["key"] != plain.description["key"]


def test_all_heard_is_the_plain_system_on_features_normalised_per_speaker():
    values = SPOKEN.values.reshape(len(TABLE), -1).astype(float)
    for speaker in np.unique(SPEAKERS):
        own = speaker == SPEAKERS
        values[own] = (values[own] - values[own].mean(axis=0)) / values[own].std(axis=0)
    normalised = replace(FEATURES, made_values=values)
    plain = cross_validate_classifier(CLASSIFIER, TABLE, normalised, protocol=PROTOCOL)
    both = (read_probabilities(found) for found in (SYSTEM.test(ALL), plain))
    np.testing.assert_allclose(*both, atol=2e-3)


def test_voices_do_not_matter_once_all_is_heard():
    loud = replace(FEATURES, made_values=give_voices(SPOKEN.values, offset=9.0))
    both = (read_probabilities(make_system(found).test(ALL)) for found in (SPOKEN, loud))
    np.testing.assert_allclose(*both, atol=2e-3)
    heard, unheard = (
        score_predictions(SYSTEM.test(count).predictions)["uar"] for count in (ALL, 0)
    )
    assert heard > unheard + 0.2


def test_direction_is_taken_out_in_a_whole_system():
    gain = np.zeros(18)
    gain[:6] = 1
    gains = np.random.default_rng(0).normal(0, 10, size=10)[
        np.unique(SPEAKERS, return_inverse=True)[1]
    ]
    louder = FEATURES.values.reshape(-1, 18) + np.outer(gains, gain)
    features = replace(FEATURES, made_values=louder.reshape(-1, 3, 6).astype(np.float32))
    level = VoiceNormalisation(direction=tuple(gain))
    both = (
        read_probabilities(make_system(found, normalise=level).test(ALL))
        for found in (FEATURES, features)
    )
    np.testing.assert_allclose(*both, atol=2e-3)


@pytest.mark.parametrize("count", COUNTS)
def test_labels_of_test_speakers_change_no_probability(count):
    fold = SYSTEM.folds[1].fold
    permuted = TABLE.copy()
    rng = np.random.default_rng(1)
    permuted.loc[fold.test, "emotion"] = rng.permutation(LABELS[fold.test])
    other = make_system(table=permuted)
    found = [read_probabilities(system.test(count)) for system in (SYSTEM, other)]
    tested = TABLE["utterance"].iloc[fold.test]
    rows = found[0].index.get_level_values("utterance").isin(tested)
    assert rows.any()
    np.testing.assert_array_equal(found[0][rows], found[1][rows])


@pytest.mark.parametrize("count", (1, 4, ALL))
def test_rows_of_other_test_speakers_never_matter(count):
    test = SYSTEM.folds[1].fold.test
    first, second = np.unique(SPEAKERS[test])
    changed = SPOKEN.values.copy()
    changed[second == SPEAKERS] = 99
    found = [
        read_probabilities(make_system(features).test(count))
        for features in (SPOKEN, replace(SPOKEN, made_values=changed))
    ]
    mine = set(TABLE["utterance"][first == SPEAKERS])
    rows = found[0].index.get_level_values("utterance").isin(mine)
    np.testing.assert_array_equal(found[0][rows], found[1][rows])


def test_what_is_chosen_does_not_depend_on_test_speakers():
    candidates = [
        Candidate(make_pipeline(StandardScaler(), LogisticRegression(C=C)), layers)
        for C in (1e-4, 1.0)
        for layers in ((0,), None)
    ]
    changed = SPOKEN.values.copy()
    test = SYSTEM.folds[1].fold.test
    changed[test] = np.random.default_rng(0).normal(size=changed[test].shape)
    chosen = []
    for features in (SPOKEN, replace(SPOKEN, made_values=changed)):
        system = make_system(features, candidates=candidates)
        first = system.folds[1]
        priors = [system.choose_prior(first, count) for count in (1, 4)]
        chosen.append((system.plain_folds[1].model.candidate, first.model.candidate, priors))
        assert set(priors) <= set(PRIORS)
        for model, rows in first.inner:
            assert set(rows) <= set(first.fold.train)
            assert model.candidate is first.model.candidate
    assert chosen[0] == chosen[1]
    assert chosen[0][1].embeddings is None


@pytest.mark.parametrize("count", (1, 4))
def test_what_was_heard_is_not_scored(count):
    run = SYSTEM.test(count, num_draws=3)
    for draw, rows in run.predictions.groupby("seed"):
        heard = draw_utterances(TABLE, count, draw=draw)
        assert set(rows["utterance"]) == set(TABLE["utterance"][~heard])
        assert not rows["utterance"].duplicated().any()
    assert run.description["seeds"] == [0, 1, 2]
    assert len(SYSTEM.test(ALL).predictions) == len(SYSTEM.test(0).predictions) == len(TABLE)


@given(count=st.integers(0, 19), draw=st.integers(0, 9))
def test_draws_take_as_many_of_each_speaker_and_grow(count, draw):
    heard = draw_utterances(TABLE, count, draw=draw)
    assert (TABLE[heard].groupby("speaker").size() == count).all()
    assert heard.sum() == 10 * count
    more = draw_utterances(TABLE, count + 1, draw=draw) if count < 19 else heard
    assert (more | ~heard).all()
    alone = TABLE[SPEAKERS == "s03"].reset_index(drop=True)
    np.testing.assert_array_equal(
        draw_utterances(alone, count, draw=draw), heard[SPEAKERS == "s03"]
    )


def test_draws_differ_and_keep_to_what_is_eligible():
    first, second = (draw_utterances(TABLE, 4, draw=draw) for draw in (0, 1))
    assert (first != second).any()
    neutral = LABELS == "neutral"
    heard = draw_utterances(TABLE, 3, draw=0, eligible=neutral)
    assert heard.sum() == 30 and neutral[heard].all()
    assert (draw_utterances(TABLE, ALL, draw=0, eligible=neutral) == neutral).all()
    for count, eligible in ((6, neutral), (20, None)):
        with pytest.raises(ValueError, match=r"speaker 's01' has .* give a smaller one"):
            draw_utterances(TABLE, count, draw=0, eligible=eligible)


def test_one_training_speaker_is_enough():
    table = make_speakers(2, per_emotion=5)
    features = make_features(table, num_copies=0, shape=(1, 6))
    system = make_system(features, table, protocol="leave_one_speaker_out")
    run = system.test(4)
    assert run.complete and len(run.predictions) == 5 * 2 * (20 - 4)
    assert (run.history["prior"] == USUAL_PRIOR).all() and (run.history["candidate"] == 0).all()


def test_model_of_one_speaker_agrees_with_the_system():
    fitted = SYSTEM.folds[1]
    rows = np.flatnonzero(SPEAKERS[fitted.fold.test[0]] == SPEAKERS)
    values, emotions = SPOKEN.values[rows], list(fitted.model.classifier.classes_)
    chances = fitted.model.predict(values, values, emotions, prior=0)
    found = read_probabilities(SYSTEM.test(ALL)).loc[0].loc[TABLE["utterance"].iloc[rows]]
    columns = [f"p_{emotion}" for emotion in emotions]
    np.testing.assert_allclose(found[columns], chances, atol=1e-4)
    plain = VoiceModel.fit(Candidate(CLASSIFIER), None, SPOKEN.values, LABELS, SPEAKERS)
    np.testing.assert_array_equal(plain.apply(values, values, prior=0), values.reshape(-1, 18))


def test_evidence_says_how_many_were_heard_and_stays_out_of_the_tables_of_all_systems():
    named = {"notebook": "42_example", "title": "Toy, 4 utterances heard", "ablation": True}
    path = save_results(SYSTEM.test(4, num_draws=2), variant="enrolled_4", **named)
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["training"]["heard"] == 4 and content["seeds"] == [0, 1]
    history = pd.read_csv(path.with_suffix(".history.csv"))
    assert set(history["prior"]) <= set(PRIORS) and len(history) == 2 * 5
    assert tabulate_results(corpus="toy").empty and not load_results(corpus="toy")
    assert len(load_results(corpus="toy", ablations=True)) == 1


def test_a_published_test_is_read_back_without_fitting(tmp_path, monkeypatch):
    known = {"notebook": "42_example", "title": "Toy", "ablation": True, "labels_only": True}
    run = SYSTEM.test(4, num_draws=2)
    path = save_results(run, **known)
    monkeypatch.setattr(paths, "RESULTS_DIR", path.parent.parent)
    monkeypatch.setattr(EnrolledSystem, "_fit", None)
    unread = replace(FEATURES, made_values=Rows(len(TABLE), None, None))
    again = make_system(unread).test(4, num_draws=2)
    assert set(again.sources.values()) == {"published"}
    pd.testing.assert_frame_equal(again.predictions, run.predictions[[*COLUMNS]])
    pd.testing.assert_frame_equal(again.history, run.history)
    assert summarise_predictions(again.predictions) == summarise_predictions(run.predictions)
    assert save_results(again, **known) == path
    with pytest.raises(TypeError):
        make_system().test(4, num_draws=3)  # a draw more than was published


def test_a_test_of_ones_own_scores_the_rows_that_it_marks():
    scored = [LABELS == "neutral", LABELS != "neutral"]

    def predict(number, draw, rows):
        assert set(rows) == set(np.flatnonzero(scored[draw])) & set(SYSTEM.folds[number].fold.test)
        return np.eye(4)[np.full(len(rows), draw)], {"weight": number}

    run = SYSTEM.run(predict, scored, settings={"guess": 1}, model="guess")
    assert len(run.predictions) == len(TABLE) and run.description["seeds"] == [0, 1]
    said = run.predictions.groupby("seed")["predicted_label"].unique().map(list).to_dict()
    assert said == {draw: [order_emotions(LABELS)[draw]] for draw in (0, 1)}
    assert [*zip(run.history["seed"], run.history["fold"], strict=True)] == [
        (draw, fold) for draw in (0, 1) for fold in range(1, 6)
    ]
    assert (run.history["weight"] == run.history["fold"]).all()


def test_keys_name_what_decides_the_numbers():
    neutral = LABELS == "neutral"
    runs = [SYSTEM.test(count, num_draws=1) for count in COUNTS]
    runs += [SYSTEM.test(1, num_draws=1, eligible=neutral)]
    runs += [make_system(normalise=VoiceNormalisation(deviation=False)).test(1, num_draws=1)]
    assert len({run.description["key"] for run in runs}) == len(runs)
    assert SYSTEM.test(1).description["key"] == make_system().test(1).description["key"]


def test_reference_measures_voices_on_its_rows_alone():
    neutral = LABELS == "neutral"
    values = SPOKEN.values.reshape(len(TABLE), -1).astype(float)
    for speaker in np.unique(SPEAKERS):
        own = speaker == SPEAKERS
        values[own] -= values[own & neutral].mean(axis=0)
    normalised = replace(FEATURES, made_values=values)
    plain = cross_validate_classifier(CLASSIFIER, TABLE, normalised, protocol=PROTOCOL)
    system = make_system(normalise=VoiceNormalisation(deviation=False), reference=neutral)
    both = (read_probabilities(found) for found in (system.test(ALL), plain))
    np.testing.assert_allclose(*both, atol=2e-3)
    assert len(system.test(2, num_draws=1).predictions) == len(TABLE) - 20
    with pytest.raises(ValueError, match="no utterance that a voice is measured on"):
        make_system(reference=neutral & (SPEAKERS != "s01")).test(ALL)


PAIR = make_speakers(2, per_emotion=10, corpus="pair").replace(
    {"speaker": {"s01": "anna", "s02": "bea"}}
)
PAIR_FEATURES = make_features(PAIR, num_copies=0, shape=(3, 6), strength=0.15)
OTHERS = make_features(TABLE, num_copies=0, shape=(3, 6), strength=0.15)


def make_pair(others=(TABLE, OTHERS), **settings):
    given = {"protocol": "leave_one_speaker_out", "others": others, **settings}
    return make_system(PAIR_FEATURES, PAIR, **given)


def test_other_corpora_teach_in_every_fold_and_are_never_tested():
    taught, alone = (make_pair(others) for others in ((TABLE, OTHERS), None))
    for count in (0, ALL):
        runs = [system.test(count) for system in (taught, alone)]
        assert all(set(run.predictions["utterance"]) == set(PAIR["utterance"]) for run in runs)
        uars = [summarise_predictions(run.predictions)["uar"]["score"] for run in runs]
        assert uars[0] > uars[1] + 0.05  # ten more voices say the same of emotions
    assert taught.test(0).description["key"] != alone.test(0).description["key"]
    assert alone.choose_prior(alone.folds[1], 2) == USUAL_PRIOR
    assert len(alone.folds[1].inner) == 0 and len(taught.folds[1].inner) == 3
    tested = {row for _, rows in taught.folds[1].inner for row in rows}
    assert tested.isdisjoint(np.flatnonzero(PAIR["speaker"] == "anna"))  # whom fold 1 tests


def test_what_ships_learns_from_all_rows_and_from_the_others():
    rows = np.concatenate([PAIR_FEATURES.values, OTHERS.values])
    labels, speakers = (np.r_[PAIR[name], TABLE[name]] for name in ("emotion", "speaker"))
    known = VoiceModel.fit(CANDIDATES[0], VoiceNormalisation(), rows, labels, speakers)
    np.testing.assert_array_equal(
        make_pair().fit_all().classifier[-1].coef_, known.classifier[-1].coef_
    )


def test_emotions_that_the_corpus_lacks_are_not_taught():
    odd = order_emotions(LABELS)[0] == LABELS
    renamed = TABLE.assign(emotion=np.where(odd, "proud", LABELS))
    dropped = take_rows(OTHERS, np.flatnonzero(~odd))
    rest = TABLE[~odd].reset_index(drop=True)
    pair = [make_pair(given).test(ALL) for given in ((renamed, OTHERS), (rest, dropped))]
    np.testing.assert_allclose(*(read_probabilities(run) for run in pair))


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ((TABLE.replace({"speaker": {"s03": "anna"}}), OTHERS), "speaker anna is in the table"),
        ((TABLE.assign(audio_hash=PAIR["audio_hash"][0]), OTHERS), "audio_hash .* in the table"),
        ((TABLE, replace(OTHERS, recipe=SPOKEN.recipe)), "made otherwise"),
    ],
)
def test_others_that_are_tested_too_or_made_otherwise_are_refused(others, message):
    with pytest.raises(ValueError, match=message):
        make_pair(others).test(ALL)
