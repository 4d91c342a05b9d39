"""What a table of test predictions says: scores, intervals, groups and calibration.

Every function takes the predictions table of `cross_validation.cross_validate` or
`results.read_predictions`: one row per test prediction, with the columns `utterance`, `speaker`,
`fold`, `seed`, `true_label`, `predicted_label`, `correct` and `p_<emotion>`. All scores are
fractions between 0 and 1.

- `uar`: unweighted average recall, the mean recall over the emotions that occur as true labels.
- `wa`: weighted accuracy, the share of correct predictions.
- `macro_f1`: mean F1 score over the same emotions.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from sklearn.metrics import precision_recall_fscore_support

from common.corpora import EMOTIONS

METRIC_NAMES = {"uar": "UAR", "wa": "WA", "macro_f1": "Macro-F1"}
METRICS = tuple(METRIC_NAMES)


def order_emotions(labels) -> list[str]:
    """Sort distinct labels into the canonical order of `EMOTIONS`, others after it by name."""
    rank = {emotion: position for position, emotion in enumerate(EMOTIONS)}
    return sorted(set(labels), key=lambda label: (rank.get(label, len(rank)), label))


def score_predictions(predictions: pd.DataFrame) -> dict[str, float]:
    """Score all rows together: `uar`, `wa`, `macro_f1`. Raises ValueError without rows."""
    if predictions.empty:
        raise ValueError("The predictions table has no rows: score at least one prediction.")
    true, predicted = predictions["true_label"], predictions["predicted_label"]
    _, recall, f1, _ = precision_recall_fscore_support(
        true, predicted, labels=order_emotions(true), zero_division=0
    )
    return {
        "uar": float(recall.mean()),
        "wa": float((true == predicted).mean()),
        "macro_f1": float(f1.mean()),
    }


def score_folds(predictions: pd.DataFrame) -> pd.DataFrame:
    """Score each test fold of each seed: a row of `seed`, `fold`, `uar`, `wa`, `macro_f1`."""
    return pd.DataFrame(
        [
            {"seed": seed, "fold": fold, **score_predictions(rows)}
            for (seed, fold), rows in predictions.groupby(["seed", "fold"])
        ]
    )


def summarise_predictions(
    predictions: pd.DataFrame, *, num_bootstraps: int = 1000, seed: int = 0
) -> dict[str, dict[str, float]]:
    """Give each metric with its spread over folds and seeds and a 95 % interval.

    The interval is the percentile bootstrap of Ferrer & Riera (arXiv 2412.03700) on the score of
    all rows together: speakers are drawn with replacement, then utterances within each drawn
    speaker, and an utterance brings its predictions of all seeds along. An emotion that a
    resample lacks is left out of that resample's averages. With few speakers (four in SAVEE, two
    in TESS) the interval says little: show the scores per speaker beside it. One `seed` gives one
    interval, whatever the order of the rows.

    Returns
    -------
    dict
        Metric to `mean` and `std` over folds and seeds (sample standard deviation; NaN for a
        single fold and seed), and `low` and `high` of the interval.

    Raises
    ------
    ValueError
        If an utterance is predicted twice under one seed, or belongs to two speakers.
    """
    folds = score_folds(predictions)
    counts, speakers, _ = _count_per_utterance(predictions, _list_labels(predictions))
    resampled = _score_confusions(_resample_counts(counts, speakers, num_bootstraps, seed))
    return {
        metric: {
            "mean": float(folds[metric].mean()),
            "std": float(folds[metric].std()),
            "low": float(np.percentile(resampled[metric], 2.5)),
            "high": float(np.percentile(resampled[metric], 97.5)),
        }
        for metric in METRICS
    }


def report_classes(predictions: pd.DataFrame) -> pd.DataFrame:
    """Give precision, recall, F1 and support of each emotion over all rows.

    Returns
    -------
    pandas.DataFrame
        Index `emotion` in canonical order, with the columns `precision`, `recall`, `f1` (0 where
        undefined) and `support`, the number of rows with that true label.
    """
    labels = _list_labels(predictions)
    scores = precision_recall_fscore_support(
        predictions["true_label"], predictions["predicted_label"], labels=labels, zero_division=0
    )
    index = pd.Index(labels, name="emotion")
    return pd.DataFrame(
        dict(zip(("precision", "recall", "f1", "support"), scores, strict=True)), index=index
    )


def count_confusions(predictions: pd.DataFrame) -> pd.DataFrame:
    """Count predictions, true emotion (rows, `true_label`) by `predicted_label` (columns)."""
    labels = _list_labels(predictions)
    counts = pd.crosstab(predictions["true_label"], predictions["predicted_label"])
    return counts.reindex(index=labels, columns=labels, fill_value=0)


def score_groups(predictions: pd.DataFrame, table: pd.DataFrame, by: str) -> pd.DataFrame:
    """Score the utterances of each group, such as each speaker, gender or intensity.

    A group is scored over the emotions it has: RAVDESS has no strong neutral, so the UAR of its
    strong half averages seven recalls and that of its normal half eight.

    `by` is a column of the utterance table, which is joined on `utterance`; utterances without a
    value there (missing or empty) are left out.

    Returns
    -------
    pandas.DataFrame
        Index `by`, sorted, with the columns `num_utterances`, `uar` and `wa`.

    Raises
    ------
    ValueError
        If `table` lacks the column or an utterance, or no utterance has a value.
    """
    if by not in table.columns:
        raise ValueError(f"The utterance table has no column {by!r}: use one of {[*table.columns]}")
    groups = table.drop_duplicates("utterance").set_index("utterance")[by]
    missing = sorted(set(predictions["utterance"]) - set(groups.index))
    if missing:
        raise ValueError(
            f"{len(missing)} predicted utterances are not in the utterance table, first "
            f"{missing[0]!r}: pass the table the predictions were made from."
        )
    values = predictions["utterance"].map(groups)
    rows = []
    for value, members in predictions.groupby(values.where(values.ne("")).to_numpy()):
        scores = score_predictions(members)
        num_utterances = members["utterance"].nunique()
        rows.append((value, num_utterances, scores["uar"], scores["wa"]))
    if not rows:
        raise ValueError(f"No predicted utterance has a value in {by!r}: group by another column.")
    return pd.DataFrame(rows, columns=[by, "num_utterances", "uar", "wa"]).set_index(by)


def compare_predictions(
    first: pd.DataFrame,
    second: pd.DataFrame,
    *,
    metric: str = "uar",
    num_bootstraps: int = 1000,
    seed: int = 0,
) -> dict[str, float]:
    """Compare two systems on the same utterances by a paired bootstrap.

    Both are scored on the same resamples of speakers, then utterances (Ferrer & Riera, arXiv
    2412.03700), so that what makes a speaker hard for both cancels. An interval without 0 is
    evidence of a difference.

    Parameters
    ----------
    first, second
        Predictions tables over the same utterances; folds and seeds may differ.
    metric
        `uar`, `wa` or `macro_f1`, over all rows of a table together.
    num_bootstraps, seed
        Number of resamples and the seed of their drawing.

    Returns
    -------
    dict
        `difference` of the scores, first minus second; `low` and `high`, its 95 % interval;
        `probability`, the share of resamples in which the first is better, ties counting half.

    Raises
    ------
    ValueError
        If the metric is unknown, or the tables differ in utterances, true labels or speakers.
    """
    if metric not in METRICS:
        raise ValueError(f"Unknown metric {metric!r}: use one of {METRICS}.")
    _, observed, resampled = _count_pair(first, second, num_bootstraps, seed)
    observed = _score_confusions(observed)[metric]
    scores = _score_confusions(resampled)[metric]
    differences = scores[:, 0] - scores[:, 1]
    low, high = np.percentile(differences, (2.5, 97.5))
    return {
        "difference": float(observed[0] - observed[1]),
        "low": float(low),
        "high": float(high),
        "probability": float((differences > 0).mean() + (differences == 0).mean() / 2),
    }


def compare_recalls(
    first: pd.DataFrame, second: pd.DataFrame, *, num_bootstraps: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Compare two systems emotion by emotion, on the resamples of `compare_predictions`.

    A resample that lacks an emotion says nothing of it. Each interval stands for itself: of many
    that are shown together, one in twenty leaves out 0 where nothing differs.

    Returns
    -------
    pandas.DataFrame
        Index `uar`, then the emotions that occur as true labels, in canonical order; the columns
        `difference` of the recalls, first minus second, and `low` and `high`, its 95 % interval.

    Raises
    ------
    ValueError
        If the tables differ in utterances, true labels or speakers.
    """
    labels, observed, resampled = _count_pair(first, second, num_bootstraps, seed)
    present = observed[0].sum(axis=-1) > 0

    def compute_differences(confusions: np.ndarray) -> np.ndarray:
        support = confusions.sum(axis=-1)
        hits = np.diagonal(confusions, axis1=-2, axis2=-1)
        recall = np.where(support > 0, hits / np.where(support > 0, support, 1), np.nan)
        scores = np.concatenate([_score_confusions(confusions)["uar"][..., None], recall], axis=-1)
        return (scores[..., 0, :] - scores[..., 1, :])[..., np.r_[True, present]]

    low, high = np.nanpercentile(compute_differences(resampled), (2.5, 97.5), axis=0)
    return pd.DataFrame(
        {"difference": compute_differences(observed), "low": low, "high": high},
        index=["uar", *np.array(labels)[present]],
    )


def _count_pair(first: pd.DataFrame, second: pd.DataFrame, num_bootstraps: int, seed: int):
    """Labels, confusion counts (2, labels, labels), and those of resamples of both alike."""
    labels = order_emotions([*_list_labels(first), *_list_labels(second)])
    first_counts, speakers, first_names = _count_per_utterance(first, labels)
    second_counts, _, second_names = _count_per_utterance(second, labels)
    differing = first_names.symmetric_difference(second_names)
    if len(differing):
        raise ValueError(
            f"The two tables do not test the same utterances with the same labels: {len(differing)}"
            f" (speaker, utterance, label) differ, first {differing[0]}. Compare runs of one corpus"
            " and a protocol that tests every utterance, or keep the shared rows of both."
        )
    paired = np.stack([first_counts, second_counts], axis=1)
    resampled = _resample_counts(paired, speakers, num_bootstraps, seed)
    return labels, paired.sum(axis=0), resampled


def tabulate_scores(systems: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Show scores in per cent: one row per system and metric.

    Parameters
    ----------
    systems
        Predictions tables by name, of a protocol for instance.

    Returns
    -------
    pd.DataFrame
        Rounded to 0.1: `mean` and `deviation` over folds and seeds (empty for a single fold),
        and the `95 % interval`.
    """
    rows = {
        (name, METRIC_NAMES[metric]): {
            "mean": round(100 * scores["mean"], 1),
            "deviation": "" if np.isnan(scores["std"]) else round(100 * scores["std"], 1),
            "95 % interval": f"{100 * scores['low']:.1f} to {100 * scores['high']:.1f}",
        }
        for name, predictions in systems.items()
        for metric, scores in summarise_predictions(predictions).items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["", "metric"])


def describe_difference(title: str, comparison: Mapping[str, float]) -> str:
    """Write what `compare_predictions` gives as a sentence, in points."""
    low, high = 100 * comparison["low"], 100 * comparison["high"]
    return f"{title}: {100 * comparison['difference']:+.1f} points ({low:.1f} to {high:.1f})"


def average_predictions(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Let several systems vote: the mean of their probabilities for each utterance.

    Parameters
    ----------
    tables
        Predictions tables over the same utterances and folds; the seeds of each are averaged
        first, so that every system has one vote.

    Returns
    -------
    pd.DataFrame
        A predictions table with the folds of the first and seed 0.

    Raises
    ------
    ValueError
        If the tables differ in utterances or folds.
    """
    keys = ["utterance", "speaker", "fold", "true_label"]
    columns = [f"p_{label}" for label in _list_labels(tables[0])]
    means = [table.groupby(keys)[columns].mean() for table in tables]
    for mean in means[1:]:
        if not mean.index.equals(means[0].index):
            raise ValueError(
                "The tables do not test the same utterances in the same folds: average runs of "
                "one corpus and one protocol whose folds do not depend on the seed."
            )
    average = (sum(means) / len(means)).reset_index()
    predicted = average[columns].idxmax(axis=1).str.removeprefix("p_")
    correct = predicted == average["true_label"]
    return average.assign(seed=0, predicted_label=predicted, correct=correct)


def measure_calibration(predictions: pd.DataFrame, *, num_bins: int = 10) -> pd.DataFrame:
    """Compare the probability of the predicted emotion with how often it is right.

    The expected calibration error is the mean gap between confidence and accuracy over bins of
    equal width, weighted by their counts (Guo et al., ICML 2017, "On calibration of modern
    neural networks").

    Returns
    -------
    pandas.DataFrame
        One row per bin of width 1 / `num_bins`, from 0 upwards, each with its upper edge: mean
        `confidence`, `accuracy` (both NaN in an empty bin) and `count`;
        `attrs["expected_calibration_error"]`.
    """
    confidence = predictions.filter(regex="^p_").max(axis=1).to_numpy()
    edges = np.linspace(0, 1, num_bins + 1)
    bins = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, num_bins - 1)
    correct = (predictions["true_label"] == predictions["predicted_label"]).to_numpy()
    rows = pd.DataFrame({"confidence": confidence, "accuracy": correct.astype(float), "bin": bins})
    calibration = rows.groupby("bin").mean().reindex(range(num_bins))
    calibration["count"] = np.bincount(bins, minlength=num_bins)
    gaps = (calibration["confidence"] - calibration["accuracy"]).abs()
    error = (gaps * calibration["count"]).sum() / len(predictions)
    calibration.attrs["expected_calibration_error"] = float(error)
    return calibration


def _list_labels(predictions: pd.DataFrame) -> list[str]:
    """Emotions that are a true label, a predicted label or have a probability column."""
    columns = [name.removeprefix("p_") for name in predictions if name.startswith("p_")]
    return order_emotions([*columns, *predictions["true_label"], *predictions["predicted_label"]])


def _count_per_utterance(predictions: pd.DataFrame, labels: list[str]):
    """Confusion counts (utterances, labels, labels) over seeds, speaker numbers, and names."""
    twice = predictions.duplicated(["seed", "utterance"])
    if twice.any():
        raise ValueError(
            f"{predictions.loc[twice, 'utterance'].iloc[0]!r} is predicted twice under one seed: "
            "test each utterance once per seed, without augmented copies."
        )
    utterances = predictions.groupby(["speaker", "utterance", "true_label"])
    names = utterances.size().index
    if names.get_level_values("utterance").has_duplicates:
        raise ValueError("An utterance has two speakers or two true labels: correct the table.")
    position = pd.Index(labels)
    true = position.get_indexer(predictions["true_label"])
    predicted = position.get_indexer(predictions["predicted_label"])
    counts = np.zeros((len(names), len(labels), len(labels)))
    np.add.at(counts, (utterances.ngroup().to_numpy(), true, predicted), 1)
    return counts, names.get_level_values("speaker").factorize()[0], names


def _resample_counts(counts, speakers, num_bootstraps: int, seed: int) -> np.ndarray:
    """Sum counts (utterances, ...) over each resample: (num_bootstraps, ...)."""
    rng = np.random.default_rng(seed)
    num_speakers = speakers.max() + 1
    draws = rng.multinomial(num_speakers, np.full(num_speakers, 1 / num_speakers), num_bootstraps)
    total = np.zeros((num_bootstraps, counts[0].size))
    for speaker in range(num_speakers):
        own = counts[speakers == speaker]
        times = rng.multinomial(len(own), np.full(len(own), 1 / len(own)), num_bootstraps)
        total += draws[:, [speaker]] * (times.astype(float) @ own.reshape(len(own), -1))
    return total.reshape(num_bootstraps, *counts.shape[1:])


def _score_confusions(confusions: np.ndarray) -> dict[str, np.ndarray]:
    """Score confusion counts (..., true, predicted) along their last two axes."""
    hits = np.diagonal(confusions, axis1=-2, axis2=-1)
    support, predicted = confusions.sum(axis=-1), confusions.sum(axis=-2)
    present = support > 0
    num_present = present.sum(axis=-1)
    recall = hits / np.where(present, support, 1)
    f1 = 2 * hits / np.where(present, support + predicted, 1)
    return {
        "uar": recall.sum(axis=-1) / num_present,
        "wa": hits.sum(axis=-1) / support.sum(axis=-1),
        "macro_f1": np.where(present, f1, 0).sum(axis=-1) / num_present,
    }
