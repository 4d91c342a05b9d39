"""How sure a score is: bootstrap intervals by speaker, and paired comparisons of two systems."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from common.emotions import order_emotions
from common.evaluation import METRIC_NAMES, METRICS, list_labels, score_folds


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
    counts, speakers, _ = _count_per_utterance(predictions, list_labels(predictions))
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
    labels = order_emotions([*list_labels(first), *list_labels(second)])
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
