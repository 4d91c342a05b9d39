"""Several corpora: rows stay with their features, emotions are shared, groups are normalised."""

import numpy as np
import pytest

from common.corpora import draw_balanced
from common.evaluation import score_predictions
from common.recipes import Features, Rows
from common.transfer import (
    HIGH_AROUSAL,
    NEGATIVE,
    group_emotions,
    join_corpora,
    name_corpus,
    normalise_in,
    tabulate_emotions,
    take_rows,
)
from tests.prediction_tables import make_labelled
from tests.speech_tables import make_features, make_speakers

ONE = make_speakers(3, per_emotion=2, corpus="zebra")
TWO = make_speakers(2, per_emotion=3, emotions=("happy", "sad", "anger"), corpus="ant")


def test_emotions_are_counted_under_their_usual_names():
    counts = tabulate_emotions({"zebra": ONE, "ant": TWO})
    assert counts.loc["angry", "also called"] == "anger (ant)"
    assert counts.loc["angry", ["zebra", "ant"]].tolist() == [0, 6]
    assert counts.index[counts["in all"]].tolist() == ["happy", "sad"]


def test_emotions_are_listed_with_the_codes_of_their_corpora():
    table = make_speakers(2, per_emotion=2, emotions=("happy", "surprised"))
    counts = tabulate_emotions({"savee": table, "tess": table})
    assert counts.loc["surprised", "also called"].startswith("su (savee), ps (tess), pleasant")
    assert counts.loc["happy", "also called"] == "h (savee)"


def test_rows_of_several_corpora_stay_with_their_features():
    features = [make_features(table, num_copies=2) for table in (ONE, TWO)]
    table, joined = join_corpora([ONE, TWO], features)
    assert table["corpus"].tolist() == ["ant"] * len(TWO) + ["zebra"] * len(ONE)
    np.testing.assert_array_equal(joined.values[: len(TWO)], features[1].values)
    np.testing.assert_array_equal(joined.copies[len(TWO) :], features[0].copies)
    some = take_rows(joined, np.array([3, 1]))
    np.testing.assert_array_equal(some.copies, joined.copies[[3, 1]])
    assert some.describe() == features[0].describe()


def test_nothing_is_computed_before_it_is_asked_for():
    def refuse():
        raise AssertionError("computed")

    made = make_features(ONE)
    lazy = [
        Features(Rows(len(table), lambda: made.values[0], refuse), refuse, made.recipe)
        for table in (ONE, TWO)
    ]
    table, joined = join_corpora([ONE, TWO], lazy)
    normalised = normalise_in(joined, table, "speaker", over_frames=True)
    assert take_rows(normalised, np.array([3, 1])).shape == (2, *made.shape[1:])
    assert joined.shape == normalised.shape == (len(ONE) + len(TWO), *made.shape[1:])


def test_features_that_do_not_fit_are_refused():
    features = [make_features(table) for table in (ONE, TWO)]
    with pytest.raises(ValueError, match=r"zebra: 24 utterances but 18 feature rows"):
        join_corpora([ONE, TWO], features[::-1])
    with pytest.raises(ValueError, match="ant: its features are made otherwise"):
        join_corpora([ONE, TWO], [features[0], make_features(TWO, num_copies=2)])


@pytest.mark.parametrize("over_frames", [True, False])
def test_each_group_has_mean_0_and_deviation_1_and_copies_go_along(over_frames):
    features = make_features(ONE, by="speaker", strength=5)
    found = normalise_in(features, ONE, "speaker", over_frames=over_frames)
    assert not found.recipe.normalise
    axes = (0, 1) if over_frames else 0
    for rows in ONE.groupby("speaker").indices.values():
        np.testing.assert_allclose(found.values[rows].mean(axis=axes), 0, atol=1e-5)
        np.testing.assert_allclose(found.values[rows].std(axis=axes), 1, atol=1e-4)
        own = features.values[rows]
        expected = (features.copies[rows, 0] - own.mean(axis=axes)) / own.std(axis=axes)
        np.testing.assert_allclose(found.copies[rows, 0], expected, atol=1e-3)


def test_an_utterance_of_no_group_is_not_normalised_in_one():
    table = ONE.assign(speaker=ONE["speaker"].where(ONE.index != 3))
    with pytest.raises(ValueError, match="1 utterances have no speaker; leave them out"):
        normalise_in(make_features(table), table, "speaker", over_frames=False)


@pytest.mark.parametrize("other", [{"by": "gender"}, {"over_frames": True}])
def test_every_argument_of_normalising_in_groups_names_the_run(other):
    given = {"by": "speaker", "over_frames": False}
    one, two = (normalise_in(make_features(ONE), ONE, **g) for g in (given, {**given, **other}))
    assert one.describe(changed=True) != two.describe(changed=True)


def test_groups_of_emotions_are_two_classes():
    predictions = make_labelled(["happy", "sad", "angry", "sad"], ["angry", "sad", "sad", "angry"])
    arousal, valence = (group_emotions(predictions, g) for g in (HIGH_AROUSAL, NEGATIVE))
    assert arousal["correct"].tolist() == [True, True, False, False]
    assert valence["correct"].tolist() == [False, True, True, True]
    assert score_predictions(arousal)["uar"] == 0.5
    assert name_corpus(predictions).unique().tolist() == ["corpus"]


def test_a_balanced_draw_takes_so_many_and_more_holds_fewer():
    table = make_speakers(3, per_emotion=5)
    few, many = draw_balanced(table, 2), draw_balanced(table, 4)
    assert (table.iloc[few].groupby(["speaker", "emotion"]).size() == 2).all()
    assert set(few) < set(many) and (np.diff(few) > 0).all()
    assert len(draw_balanced(table, 9)) == len(table)
    assert set(draw_balanced(table, 2, seed=1)) != set(few)
