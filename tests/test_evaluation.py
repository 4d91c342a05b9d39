"""Scores are the ones of scikit-learn, intervals the ones of the speaker bootstrap."""

import re
import time

import numpy as np
import pandas as pd
import pytest
from confidence_intervals import get_bootstrap_indices
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, recall_score

from common import bootstrap
from common.bootstrap import (
    average_uars,
    compare_predictions,
    compare_recalls,
    correct_for_many,
    describe_difference,
    summarise_predictions,
    tabulate_changes,
    tabulate_scores,
)
from common.emotions import EMOTIONS, order_emotions
from common.evaluation import (
    METRIC_NAMES,
    METRICS,
    apply_temperature,
    average_predictions,
    count_confusions,
    fit_temperature,
    list_groups,
    measure_calibration,
    report_classes,
    score_confusions,
    score_folds,
    score_groups,
    score_predictions,
)
from tests.prediction_tables import make_labelled, make_predictions, make_table

TWO = ("happy", "sad")
LABELS = st.sampled_from(EMOTIONS[:4])
PAIRS = st.lists(st.tuples(LABELS, LABELS), min_size=1, max_size=60)


@pytest.fixture(scope="module")
def predictions() -> pd.DataFrame:
    return make_predictions()


def test_labels_are_sorted_as_the_corpora_list_them_with_others_last():
    labels = ["bored", "angry", "neutral", "amused", "angry"]
    assert order_emotions(labels) == ["neutral", "angry", "amused", "bored"]


def test_scores_of_a_case_worked_by_hand():
    # Recalls: happy 3/4, sad 1/2. Precisions: happy 3/4, sad 1/2.
    table = make_labelled(
        ["happy", "happy", "happy", "happy", "sad", "sad"],
        ["happy", "happy", "happy", "sad", "sad", "happy"],
    )
    scores = score_predictions(table)
    assert scores == pytest.approx({"uar": 0.625, "wa": 4 / 6, "macro_f1": 0.625})


@given(PAIRS)
def test_scores_agree_with_scikit_learn(pairs):
    true, predicted = map(list, zip(*pairs, strict=True))
    scores = score_predictions(make_labelled(true, predicted))
    labels = sorted(set(true))
    options = {"labels": labels, "average": "macro", "zero_division": 0}
    assert scores["uar"] == pytest.approx(recall_score(true, predicted, **options))
    assert scores["macro_f1"] == pytest.approx(f1_score(true, predicted, **options))
    assert scores["wa"] == pytest.approx(accuracy_score(true, predicted))
    if set(predicted) <= set(true) != {true[0]}:
        assert scores["uar"] == pytest.approx(balanced_accuracy_score(true, predicted))


@given(PAIRS, st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_no_score(pairs, random):
    table = make_labelled(*map(list, zip(*pairs, strict=True)))
    order = list(range(len(table)))
    random.shuffle(order)
    assert score_predictions(table.iloc[order]) == pytest.approx(score_predictions(table))


@given(PAIRS)
def test_scores_of_confusion_counts_are_those_of_the_rows(pairs):
    table = make_labelled(*map(list, zip(*pairs, strict=True)))
    scores = score_confusions(count_confusions(table).to_numpy())
    assert {name: float(value) for name, value in scores.items()} == pytest.approx(
        score_predictions(table)
    )


def test_no_rows_cannot_be_scored(predictions):
    with pytest.raises(ValueError, match="no rows"):
        score_predictions(predictions.head(0))


def test_folds_are_scored_one_by_one(predictions):
    folds = score_folds(predictions)
    assert [*folds.columns] == ["seed", "fold", *METRICS]
    assert [*zip(folds["seed"], folds["fold"], strict=True)] == [
        (seed, fold) for seed in (0, 1) for fold in (0, 1, 2)
    ]
    third = predictions[(predictions["seed"] == 0) & (predictions["fold"] == 2)]
    assert folds.loc[2, [*METRICS]].to_dict() == score_predictions(third)


def test_summary_gives_mean_and_deviation_over_folds_and_seeds(predictions):
    summary = summarise_predictions(predictions)
    folds = score_folds(predictions)
    assert set(summary) == set(METRICS)
    for metric in METRICS:
        assert summary[metric]["mean"] == pytest.approx(np.mean(folds[metric]))
        assert summary[metric]["std"] == pytest.approx(np.std(folds[metric], ddof=1))
        assert summary[metric]["low"] < summary[metric]["high"]
        assert summary[metric]["score"] == pytest.approx(score_predictions(predictions)[metric])
    for metric in ("uar", "wa"):
        assert summary[metric]["low"] < summary[metric]["score"] < summary[metric]["high"]


@pytest.mark.parametrize("random_seed", range(8))
def test_interval_holds_the_score(random_seed):
    table = make_predictions(random_seed=random_seed, skill=random_seed / 3, num_speakers=8)
    interval = summarise_predictions(table)["uar"]
    assert interval["low"] < score_predictions(table)["uar"] < interval["high"]


def test_one_fold_of_one_seed_has_no_deviation(predictions):
    one = predictions[(predictions["seed"] == 0) & (predictions["fold"] == 0)]
    assert np.isnan(summarise_predictions(one)["uar"]["std"])


def test_interval_depends_on_the_seed_alone(predictions):
    summary = summarise_predictions(predictions, seed=3)
    shuffled = predictions.sample(frac=1, random_state=1)
    assert summarise_predictions(shuffled, seed=3)["uar"]["low"] == summary["uar"]["low"]
    assert summarise_predictions(shuffled, seed=3)["uar"]["high"] == summary["uar"]["high"]
    assert summarise_predictions(predictions, seed=4)["uar"]["low"] != summary["uar"]["low"]


def test_perfect_predictions_have_an_interval_of_no_width():
    labels = [*EMOTIONS] * 3
    table = make_labelled(labels, labels, speakers=["01"] * 8 + ["02"] * 8 + ["03"] * 8)
    assert summarise_predictions(table)["uar"] == pytest.approx(
        {"score": 1, "mean": 1, "std": np.nan, "low": 1, "high": 1}, nan_ok=True
    )


def test_the_same_predictions_under_more_seeds_give_the_same_interval():
    once = make_predictions(seeds=(0,))
    thrice = pd.concat([once.assign(seed=seed) for seed in range(3)])
    one, three = summarise_predictions(once), summarise_predictions(thrice)
    for metric in METRICS:
        assert three[metric]["low"] == pytest.approx(one[metric]["low"])
        assert three[metric]["high"] == pytest.approx(one[metric]["high"])


def test_speakers_that_differ_widen_the_interval():
    table = make_predictions(num_speakers=12, repetitions=8, spread=1.5, seeds=(0,))
    by_speaker = summarise_predictions(table)["uar"]
    alone = table.assign(speaker=table["utterance"])
    by_utterance = summarise_predictions(alone)["uar"]
    width = by_speaker["high"] - by_speaker["low"]
    assert width > 2 * (by_utterance["high"] - by_utterance["low"])


@pytest.fixture(scope="module")
def resamples() -> tuple[dict, dict]:
    """Scores of 1000 resamples of `confidence_intervals` and of 4000 of our own.

    The package gets a random state, not a number, as its `random_state`: a number would draw the
    same utterances within every speaker of equal size.
    """
    table = make_predictions(num_speakers=10, repetitions=6, seeds=(0,))
    counts, speakers, _ = bootstrap._count_per_utterance(table, [*EMOTIONS])
    state = np.random.RandomState(0)
    rows = [get_bootstrap_indices(len(counts), speakers, state) for _ in range(1000)]
    reference = np.stack([counts[chosen].sum(axis=0) for chosen in rows])
    ours = bootstrap._resample_counts(counts, speakers, 4000, 0)
    return score_confusions(reference), score_confusions(ours)


@pytest.mark.parametrize("metric", METRICS)
def test_resampling_agrees_with_the_reference_package(resamples, metric):
    reference, ours = (scores[metric] for scores in resamples)
    deviation = np.std(reference)
    assert np.mean(ours) == pytest.approx(np.mean(reference), abs=0.15 * deviation)
    assert np.std(ours) == pytest.approx(deviation, rel=0.1)
    limits = np.percentile(reference, (2.5, 97.5))
    assert np.percentile(ours, (2.5, 97.5)) == pytest.approx(limits, abs=0.35 * deviation)


def test_resamples_keep_the_number_of_utterances_and_of_speakers():
    speakers = np.repeat(np.arange(5), 7)
    own_speaker = np.eye(5)[speakers]
    totals = bootstrap._resample_counts(own_speaker, speakers, 200, 0)
    assert totals.shape == (200, 5)
    assert (totals.sum(axis=1) == 35).all()
    assert (totals % 7 == 0).all()
    assert totals.mean(axis=0) == pytest.approx(np.full(5, 7), rel=0.2)


def test_summary_of_a_corpus_is_quick():
    table = make_predictions(num_speakers=24, repetitions=8, seeds=(0, 1, 2), num_folds=5)
    started = time.process_time()
    summarise_predictions(table)
    assert time.process_time() - started < 2


def test_an_utterance_counts_once_per_seed(predictions):
    doubled = pd.concat([predictions, predictions.iloc[[5]]])
    with pytest.raises(ValueError, match="corpus/01/happy_1' is predicted twice"):
        summarise_predictions(doubled)


def test_an_utterance_has_one_speaker(predictions):
    torn = predictions.copy()
    torn.loc[torn["seed"] == 1, "speaker"] = "99"
    with pytest.raises(ValueError, match="two speakers"):
        summarise_predictions(torn)


def test_class_report_and_confusions_of_a_case_worked_by_hand():
    table = make_labelled(["sad", "sad", "happy", "calm"], ["sad", "happy", "happy", "happy"])
    confusions = count_confusions(table)
    assert [*confusions.index] == [*confusions.columns] == ["calm", "happy", "sad"]
    assert confusions.to_numpy().tolist() == [[0, 1, 0], [0, 1, 0], [0, 1, 1]]
    assert (confusions.index.name, confusions.columns.name) == ("true_label", "predicted_label")
    report = report_classes(table)
    assert report.index.name == "emotion"
    assert report.loc["happy"].to_dict() == pytest.approx(
        {"precision": 1 / 3, "recall": 1, "f1": 0.5, "support": 1}
    )
    assert report.loc["calm"].to_list() == [0, 0, 0, 1]


def test_class_report_adds_up_to_the_scores(predictions):
    report, scores = report_classes(predictions), score_predictions(predictions)
    assert [*report.index] == [*EMOTIONS]
    assert report["recall"].mean() == pytest.approx(scores["uar"])
    assert report["f1"].mean() == pytest.approx(scores["macro_f1"])
    assert report["support"].sum() == len(predictions)
    assert np.trace(count_confusions(predictions)) / len(predictions) == pytest.approx(scores["wa"])


def test_an_emotion_the_model_knows_but_never_meets_keeps_its_place():
    table = make_labelled(["sad", "happy"], ["sad", "happy"]).assign(p_angry=0.0)
    assert [*count_confusions(table).columns] == ["happy", "sad", "angry"]
    assert report_classes(table).loc["angry"].to_list() == [0, 0, 0, 0]


@pytest.mark.parametrize(("by", "values"), [("gender", ["female", "male"]), ("speaker", None)])
def test_groups_are_scored_on_their_own_rows(predictions, by, values):
    table = make_table(predictions)
    groups = score_groups(predictions, table, by)
    assert groups.index.name == by
    assert [*groups.columns] == ["num_utterances", "uar", "wa"]
    assert [*groups.index] == (values or sorted(set(predictions["speaker"])))
    assert groups["num_utterances"].sum() == len(table)
    first = table.loc[table[by] == groups.index[0], "utterance"]
    scores = score_predictions(predictions[predictions["utterance"].isin(first)])
    assert groups.iloc[0][["uar", "wa"]].to_dict() == pytest.approx(
        {name: scores[name] for name in ("uar", "wa")}
    )


def test_a_group_is_scored_over_the_emotions_it_has(predictions):
    table = make_table(predictions)
    groups = score_groups(predictions, table, "intensity")
    strong = table.loc[table["intensity"] == "strong", "utterance"]
    rows = predictions[predictions["utterance"].isin(strong)]
    assert "neutral" not in set(rows["true_label"])
    recall = recall_score(
        rows["true_label"], rows["predicted_label"], labels=EMOTIONS[1:], average="macro"
    )
    assert groups.loc["strong", "uar"] == pytest.approx(recall)


def test_utterances_without_a_value_are_in_no_group(predictions):
    table = make_table(predictions)
    table.loc[table["gender"] == "male", "gender"] = ""
    assert [*score_groups(predictions, table, "gender").index] == ["female"]
    with pytest.raises(ValueError, match="'gender'"):
        score_groups(predictions, table.assign(gender=""), "gender")


def test_groups_need_the_column_and_every_utterance(predictions):
    table = make_table(predictions)
    with pytest.raises(ValueError, match="no column 'age'"):
        score_groups(predictions, table, "age")
    with pytest.raises(ValueError, match=r"1 predicted utterances.*corpus/01/neutral_0"):
        score_groups(predictions, table.iloc[1:], "gender")


def test_a_run_does_not_differ_from_itself(predictions):
    assert compare_predictions(predictions, predictions.sample(frac=1, random_state=0)) == {
        "difference": 0,
        "low": 0,
        "high": 0,
        "probability": 0.5,
        "num_resamples": 1000,
    }


def test_a_better_system_is_found_and_the_mirror_image_agrees():
    good = make_predictions(skill=3, random_seed=1)
    poor = make_predictions(skill=0.5, random_seed=2)
    forward = compare_predictions(good, poor)
    assert 0 < forward["low"] < forward["difference"] < forward["high"]
    assert forward["difference"] == pytest.approx(
        score_predictions(good)["uar"] - score_predictions(poor)["uar"]
    )
    assert forward["probability"] == 1
    backward = compare_predictions(poor, good)
    assert backward["low"] == pytest.approx(-forward["high"])
    assert backward["probability"] == 0


def test_pairing_is_sharper_than_two_separate_intervals():
    first = make_predictions(num_speakers=12, repetitions=8, spread=2, seeds=(0,))
    second = first.copy()
    wrong = second.index[second["correct"]][::20]
    second.loc[wrong, "predicted_label"] = np.where(
        second.loc[wrong, "true_label"] == "happy", "sad", "happy"
    )
    paired = compare_predictions(first, second)
    interval = summarise_predictions(first)["uar"]
    assert paired["low"] > 0
    assert paired["high"] - paired["low"] < (interval["high"] - interval["low"]) / 3


def test_the_mean_of_several_scores_has_an_interval_and_counts_a_speaker_once(predictions):
    alone = summarise_predictions(predictions)["uar"]
    twice = average_uars([predictions, predictions.sample(frac=1, random_state=0)])
    assert twice["mean"] == pytest.approx(score_predictions(predictions)["uar"])
    assert (twice["low"], twice["high"]) == pytest.approx((alone["low"], alone["high"]))
    others = predictions.assign(utterance="other/" + predictions["utterance"])
    apart = average_uars([predictions, others])
    width = (apart["high"] - apart["low"]) / (twice["high"] - twice["low"])
    assert width == pytest.approx(2**-0.5, rel=0.15)  # as of independent scores
    worse = make_predictions(skill=0.1, random_seed=3)
    mixed = average_uars([predictions, worse])["mean"]
    scores = [score_predictions(table)["uar"] for table in (predictions, worse)]
    assert mixed == pytest.approx(np.mean(scores))


def test_systems_may_differ_in_seeds_and_folds(predictions):
    other = make_predictions(seeds=(7,), num_folds=6, random_seed=5)
    for metric in METRICS:
        difference = score_predictions(predictions)[metric] - score_predictions(other)[metric]
        compared = compare_predictions(predictions, other, metric=metric)
        assert compared["difference"] == pytest.approx(difference)


def test_systems_tested_on_other_utterances_are_not_compared(predictions):
    with pytest.raises(ValueError, match=r"same utterances.*02.*corpus/02"):
        compare_predictions(predictions, predictions[predictions["speaker"] != "02"])
    with pytest.raises(ValueError, match="same utterances"):
        compare_recalls(predictions, predictions[predictions["speaker"] != "02"])
    relabelled = predictions.copy()
    relabelled.loc[relabelled["utterance"].str.endswith("calm_0"), "true_label"] = "sad"
    with pytest.raises(ValueError, match="same labels"):
        compare_predictions(predictions, relabelled)
    with pytest.raises(ValueError, match="'accuracy'"):
        compare_predictions(predictions, predictions, metric="accuracy")


def test_recalls_are_compared_on_the_same_resamples_as_the_uar(predictions):
    other = make_predictions(seeds=(7,), random_seed=5)
    compared = compare_recalls(predictions, other)
    whole = compare_predictions(predictions, other)
    assert compared.loc["uar"].to_dict() == pytest.approx(
        {name: whole[name] for name in ("difference", "low", "high")}
    )
    recalls = report_classes(predictions)["recall"] - report_classes(other)["recall"]
    assert list(compared.index) == ["uar", *recalls.index]
    np.testing.assert_allclose(compared["difference"].iloc[1:], recalls)
    assert (compared["low"] <= compared["difference"]).all()
    assert (compared["difference"] <= compared["high"]).all()
    mirrored = compare_recalls(other, predictions)
    np.testing.assert_allclose(mirrored["low"], -compared["high"], atol=1e-12)


def test_one_emotion_that_is_lost_is_the_one_that_differs(predictions):
    worse = predictions.copy()
    lost = worse["true_label"] == "sad"
    worse.loc[lost, "predicted_label"] = "happy"
    worse["correct"] = worse["true_label"] == worse["predicted_label"]
    compared = compare_recalls(worse, predictions)
    changed = compared.index[(compared["low"] > 0) | (compared["high"] < 0)]
    assert list(changed) == ["uar", "sad"]
    recall = report_classes(predictions)["recall"]["sad"]
    assert compared.loc["sad", "difference"] == pytest.approx(-recall)
    others = compared.drop(index=["uar", "sad"])
    assert (others == 0).all(axis=None)


def test_an_emotion_that_some_resamples_lack_keeps_an_interval():
    true = ["happy"] * 30 + ["sad"] * 2
    first = make_labelled(true, ["happy"] * 31 + ["sad"])
    second = first.assign(predicted_label="happy", correct=first["true_label"] == "happy")
    compared = compare_recalls(first, second)
    assert compared.loc["sad", "difference"] == 0.5
    assert compared.notna().all(axis=None)


def test_tabulated_scores_are_the_summaries_in_per_cent(predictions):
    systems = {"second": predictions, "first": make_predictions(skill=3, random_seed=1)}
    table = tabulate_scores(systems)
    assert [*table.columns] == [*METRIC_NAMES.values(), "UAR of folds"]
    assert [*table.index] == [*systems]
    for name, system in systems.items():
        summary = summarise_predictions(system)
        for metric, scores in summary.items():
            numbers = re.fullmatch(
                r"(\d+\.\d) \((\d+\.\d) to (\d+\.\d)\)", table.loc[name, METRIC_NAMES[metric]]
            )
            expected = [100 * scores[key] for key in ("score", "low", "high")]
            assert [*map(float, numbers.groups())] == pytest.approx(expected, abs=0.0501)
        folds = [float(number) for number in table.loc[name, "UAR of folds"].split(" ± ")]
        expected = [100 * summary["uar"][key] for key in ("mean", "std")]
        assert folds == pytest.approx(expected, abs=0.0501)


def test_one_fold_is_tabulated_without_a_deviation(predictions):
    one = predictions[(predictions["seed"] == 0) & (predictions["fold"] == 0)]
    table = tabulate_scores({"one fold": one})
    assert table.loc["one fold", "UAR of folds"] == ""
    assert (table != "nan").all(axis=None)


@pytest.mark.parametrize(
    ("difference", "low", "high", "said"),
    [
        (-0.022, -0.05, 0.006, "-2.2 points (-5.0 to 0.6): within noise"),
        (0.0338, 0.0101, 0.06, "+3.4 points (1.0 to 6.0): beyond noise"),
        (-0.0001, -0.0002, -0.0001, "+0.0 points (0.0 to 0.0): beyond noise"),
        (0.0, 0.0, 0.0, "+0.0 points (0.0 to 0.0): within noise"),
    ],
)
def test_a_difference_is_described_in_points(difference, low, high, said):
    comparison = {"difference": difference, "low": low, "high": high}
    assert describe_difference("Yours", comparison) == f"Yours, a difference of {said}"


def test_groups_worth_showing_have_two_values(predictions):
    table = make_table(predictions)
    assert list_groups(table) == ["gender", "intensity", "speaker"]
    assert list_groups(table.assign(gender="male", intensity="")) == ["speaker"]
    half = table["gender"].where(table["gender"] == "male", "unknown")
    assert list_groups(table.assign(gender=half, corpus="one")) == ["intensity", "speaker"]
    blank = table.assign(intensity=np.nan, speaker="01", corpus=["one", "two"] * (len(table) // 2))
    assert list_groups(blank.drop(columns="gender")) == ["corpus"]


def test_systems_vote_with_the_mean_of_their_probabilities():
    first = make_labelled(["happy", "sad", "happy"], ["happy", "happy", "sad"])
    second = make_labelled(["happy", "sad", "happy"], ["happy", "sad", "happy"])
    first["p_happy"], first["p_sad"] = [0.9, 0.6, 0.4], [0.1, 0.4, 0.6]
    second["p_happy"], second["p_sad"] = [0.6, 0.1, 0.55], [0.4, 0.9, 0.45]
    average = average_predictions([first, second])
    np.testing.assert_allclose(average["p_happy"], [0.75, 0.35, 0.475])
    assert average["predicted_label"].to_list() == ["happy", "sad", "sad"]
    assert average["correct"].to_list() == [True, True, False]


def test_every_system_has_one_vote_however_many_seeds_it_has(predictions):
    one_seed = predictions[predictions["seed"] == 0]
    again = one_seed.assign(seed=1)
    other = make_predictions(random_seed=5, seeds=(0,))
    once = average_predictions([one_seed, other])
    twice = average_predictions([pd.concat([one_seed, again]), other])
    pd.testing.assert_frame_equal(once, twice)
    assert len(once) == one_seed["utterance"].nunique()


def test_systems_tested_on_other_utterances_cannot_vote_together(predictions):
    with pytest.raises(ValueError, match="same utterances"):
        average_predictions([predictions, predictions[predictions["speaker"] != "01"]])


def test_calibration_of_a_case_worked_by_hand():
    table = make_labelled(["happy", "happy", "sad", "sad"], ["happy", "happy", "happy", "sad"])
    table["p_happy"] = [0.9, 0.9, 0.85, 0.3]
    table["p_sad"] = [0.1, 0.1, 0.15, 0.7]
    calibration = measure_calibration(table)
    assert calibration["count"].to_list() == [0, 0, 0, 0, 0, 0, 1, 0, 3, 0]
    assert calibration.loc[8, "confidence"] == pytest.approx(2.65 / 3)
    assert calibration.loc[8, "accuracy"] == pytest.approx(2 / 3)
    assert calibration.loc[6].to_list() == pytest.approx([0.7, 1, 1])
    assert np.isnan(calibration.loc[0, "accuracy"])
    error = 3 / 4 * (2.65 - 2) / 3 + 1 / 4 * 0.3
    assert calibration.attrs["expected_calibration_error"] == pytest.approx(error)


@given(st.integers(2, 20))
def test_calibration_error_lies_between_zero_and_one_and_counts_every_row(num_bins):
    predictions = make_predictions(num_speakers=2)
    calibration = measure_calibration(predictions, num_bins=num_bins)
    assert len(calibration) == num_bins
    assert calibration["count"].sum() == len(predictions)
    assert 0 <= calibration.attrs["expected_calibration_error"] <= 1
    filled = calibration[calibration["count"] > 0]
    upper = (filled.index + 1) / num_bins
    assert (filled["confidence"] <= upper + 1e-9).all()
    assert (filled["confidence"] >= upper - 1 / num_bins - 1e-9).all()


def tabulate_shares(shares, *, num_resamples=1000):
    """Comparisons of which the first system was better in these shares of resamples."""
    return pd.DataFrame({"probability": shares, "num_resamples": num_resamples})


def test_more_resamples_leave_the_interval_and_lower_the_least_p_value():
    poor = make_predictions(skill=0.5, random_seed=2)
    pairs = [(make_predictions(skill=3, random_seed=1), poor), (poor, poor)]
    few, many = (
        pd.DataFrame([compare_predictions(*pair, thousands=number) for pair in pairs])
        for number in (1, 5)
    )
    kept = ["difference", "low", "high"]
    pd.testing.assert_frame_equal(few[kept], many[kept])
    assert [*many["num_resamples"]] == [5000, 5000]
    assert correct_for_many(few).tolist() == [2 * 2 / 1000, 1]
    assert correct_for_many(many).tolist() == [2 * 2 / 5000, 1]


def test_the_probability_of_more_resamples_is_of_others():
    """Were a thousand repeated, shares would stay; on 5,000 the share is known to some 0.007."""
    first, second = (make_predictions(num_speakers=12, random_seed=seed) for seed in (1, 2))
    few, many = (compare_predictions(first, second, thousands=number) for number in (1, 5))
    assert 0.01 < few["probability"] < 0.99
    assert 0 < abs(few["probability"] - many["probability"]) < 0.08


def test_score_and_interval_are_of_all_rows_and_the_mean_is_over_folds():
    """Two folds of unlike size, all right in the small one and all wrong in the large one."""
    table = make_predictions(num_speakers=8, repetitions=8, seeds=(0,), num_folds=8)
    right = table["fold"] == table["fold"].min()
    wrong = np.where(table["true_label"] == "happy", "sad", "happy")
    table["predicted_label"] = np.where(right, table["true_label"], wrong)
    table["fold"] = np.where(right, 0, 1)
    summary = summarise_predictions(table)["uar"]
    assert summary["mean"] == 0.5
    assert summary["score"] == pytest.approx(score_predictions(table)["uar"])
    assert summary["low"] <= summary["score"] <= summary["high"] < 0.5


def test_many_comparisons_are_corrected_by_holm():
    shares = {"far": 1.0, "near": 0.985, "noise": 0.4, "below": 0.005}
    corrected = correct_for_many(tabulate_shares(shares))
    # by hand: 0.002 x 4, 0.010 x 3, 0.030 x 2, 0.8 x 1
    assert corrected.round(6).to_dict() == {
        "far": 0.008,
        "near": 0.06,
        "noise": 0.8,
        "below": 0.03,
    }
    assert correct_for_many(tabulate_shares([0.5, 0.5])).tolist() == [1, 1]
    close = correct_for_many(tabulate_shares([0.01, 0.0099, 0.0101]))
    assert (close == close[0]).all()  # what is less sure is never called surer


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_a_corrected_p_value_is_never_below_its_own(shares):
    corrected = correct_for_many(tabulate_shares(shares))
    single = 2 * np.minimum(shares, 1 - np.array(shares))
    assert (corrected >= single - 1e-12).all() and (corrected <= 1).all()


@given(temperature=st.floats(0.4, 3))
@settings(max_examples=15, deadline=None)
def test_a_temperature_is_found_again_and_undone(temperature):
    """Labels are drawn from the probabilities, which are then made too sure or not sure enough."""
    rng = np.random.default_rng(0)
    predictions = make_predictions(num_speakers=20, repetitions=8, seeds=(0,), emotions=TWO)
    chances = rng.uniform(0.05, 0.95, len(predictions))
    true = np.where(rng.random(len(predictions)) < chances, *TWO)
    calibrated = predictions.assign(true_label=true, p_happy=chances, p_sad=1 - chances)
    spoilt = apply_temperature(calibrated, 1 / temperature)
    assert fit_temperature(spoilt) == pytest.approx(temperature, rel=0.3)
    restored = apply_temperature(spoilt, temperature)
    np.testing.assert_allclose(restored["p_happy"], chances, atol=2e-3)
    np.testing.assert_allclose(restored[["p_happy", "p_sad"]].sum(axis=1), 1)


def test_a_fitted_temperature_mends_calibration():
    predictions = make_predictions(num_speakers=20, repetitions=8, seeds=(0,))
    sure = apply_temperature(predictions, 0.3)
    mended = apply_temperature(sure, fit_temperature(sure))
    errors = [
        measure_calibration(rows).attrs["expected_calibration_error"] for rows in (mended, sure)
    ]
    assert errors[0] < errors[1]
    assert (mended["correct"] == predictions["correct"]).all()
    labels_alone = predictions.drop(columns=[*predictions.filter(regex="^p_")])
    for useless in (predictions.head(0), labels_alone):
        with pytest.raises(ValueError, match="no probabilities to fit a temperature to"):
            fit_temperature(useless)


def test_labels_alone_are_not_calibrated():
    predictions = make_predictions()
    chances = predictions.filter(regex="^p_").columns
    without = predictions.drop(columns=[*chances])
    for labels in (predictions.assign(**dict.fromkeys(chances, np.nan)), without):
        with pytest.raises(ValueError, match="a probability is missing"):
            measure_calibration(labels)


def test_changes_are_shown_beside_the_scores_they_change():
    good, bad = make_predictions(skill=0.9), make_predictions(skill=0.4)
    shown = tabulate_changes({"good": good, "bad": bad}, "good")
    change = compare_predictions(bad, good)
    assert shown.loc["good", "change (points)"] == ""
    assert shown.loc["bad", "change (points)"].startswith(f"{100 * change['difference']:.1f} (")
    assert shown["UAR (%)"].tolist() == [
        tabulate_scores({"one": rows}).loc["one", "UAR"] for rows in (good, bad)
    ]
