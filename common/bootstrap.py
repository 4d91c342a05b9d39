"""How sure a score is: bootstrap intervals by speaker, and paired comparisons of two systems."""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from common.emotions import order_emotions
from common.evaluation import METRIC_NAMES, METRICS, list_labels, score_confusions, score_folds

NUM_BOOTSTRAPS = 1000  # of an interval, and at a time


def summarise_predictions(predictions: pd.DataFrame, *, seed: int = 0) -> dict[str, dict]:
    """Give each metric with a 95 % interval, and its spread over folds and seeds.

    `score` is of all rows together, as `score_predictions` gives it. `low` and `high` are its
    percentile bootstrap (Ferrer & Riera, arXiv 2412.03700): speakers are drawn with replacement,
    then utterances within each drawn speaker, and an utterance brings its predictions of all seeds
    along. Models count as they were trained: what another seed would change is not in it.

    `mean` and `std` (sample standard deviation; NaN for a single fold and seed) are of the scores
    s(k, f) of the test rows of each fold f under each seed k, as papers give them: mean =
    Σ s(k, f) / (folds × seeds). Where folds differ in size or emotions (`leave_one_corpus_out`)
    the mean may be far from the score, and each fold is better read alone.

    An emotion that a resample lacks is left out of that resample's averages. With few speakers
    (four in SAVEE, two in TESS) the interval says little: show the scores per speaker beside it.
    One `seed` gives one interval, whatever the order of the rows. Raises ValueError if an
    utterance is predicted twice under one seed, or belongs to two speakers.
    """
    folds = score_folds(predictions)[[*METRICS]].agg(["mean", "std"]).to_dict()
    counts, speakers, _ = _count_per_utterance(predictions, list_labels(predictions))
    scores = score_confusions(counts.sum(axis=0))
    resampled = score_confusions(_resample_counts(counts, speakers, NUM_BOOTSTRAPS, seed))
    return {
        metric: {"score": float(scores[metric])} | folds[metric] | _find_interval(resampled[metric])
        for metric in METRICS
    }


def average_uars(tables: Iterable[pd.DataFrame]) -> dict[str, float]:
    """Average the UAR of several predictions tables, such as those of pairs of corpora.

    `mean` is of the scores of all rows of each table; `low` and `high` are its 95 % interval, by
    resamples of speakers, then utterances, as in `summarise_predictions`. Tables of the same
    utterances are resampled alike, others apart, so that a speaker who is tested by two systems
    counts once. Raises ValueError as `summarise_predictions` does.
    """
    means, resampled, seen = [], [], []
    for table in tables:
        counts, speakers, names = _count_per_utterance(table, list_labels(table))
        seed = next((n for n, other in enumerate(seen) if names.equals(other)), len(seen))
        seen += [names] if seed == len(seen) else []
        means.append(score_confusions(counts.sum(axis=0))["uar"])
        drawn = _resample_counts(counts, speakers, NUM_BOOTSTRAPS, seed)
        resampled.append(score_confusions(drawn)["uar"])
    return {"mean": float(np.mean(means)), **_find_interval(np.mean(resampled, axis=0))}


def compare_predictions(
    first: pd.DataFrame, second: pd.DataFrame, *, metric: str = "uar", thousands: int = 1
) -> dict:
    """Compare the `metric` of two systems on the same utterances by a paired bootstrap.

    Folds and seeds may differ; all rows of a table are scored together, both on the same
    resamples of speakers, then utterances (Ferrer & Riera, arXiv 2412.03700), so that what makes
    a speaker hard for both cancels. `difference` is of the scores of all rows, first minus second
    (`score_predictions`); `low` and `high` are its 95 % interval, from the first thousand
    resamples, evidence of a difference if 0 is outside; `probability` is the
    share of all `num_resamples` in which the first is better, ties counting half. More `thousands`
    serve `correct_for_many`. Raises ValueError if the metric is unknown, or the tables differ in
    utterances, true labels or speakers.
    """
    if metric not in METRICS:
        raise ValueError(f"Unknown metric {metric!r}: use one of {METRICS}.")
    _, counts, speakers = _count_pair(first, second)
    observed = score_confusions(counts.sum(axis=0))[metric]
    resampled = (
        score_confusions(_resample_counts(counts, speakers, NUM_BOOTSTRAPS, seed))[metric]
        for seed in range(thousands)
    )
    differences = np.concatenate([scores[:, 0] - scores[:, 1] for scores in resampled])
    return {
        "difference": float(observed[0] - observed[1]),
        **_find_interval(differences[:NUM_BOOTSTRAPS]),
        "probability": float((differences > 0).mean() + (differences == 0).mean() / 2),
        "num_resamples": len(differences),
    }


def correct_for_many(comparisons: pd.DataFrame) -> pd.Series:
    """Give the p-value of each of several comparisons, corrected for their number by Holm's method.

    `comparisons` has a row per comparison as `compare_predictions` gives it. The p-value of one is
    twice the share of resamples on the side of 0 where fewer lie (Efron and Tibshirani, "An
    introduction to the bootstrap", 1993), at least that of one resample; the smallest of n is
    multiplied by n, the next by n - 1, and so on, never falling (Holm, Scandinavian Journal of
    Statistics 1979). So none is below 2 n / `num_resamples`. Below 0.05 differences are beyond
    noise, with a chance of 5 % that any one of them all is not.
    """
    fewer = np.minimum(comparisons["probability"], 1 - comparisons["probability"])
    single = np.maximum(2 * fewer, 2 / comparisons["num_resamples"]).sort_values()
    factors = np.arange(len(single), 0, -1)
    return (single * factors).clip(upper=1).cummax().reindex(comparisons.index)


def compare_recalls(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Compare two systems emotion by emotion, on the resamples of `compare_predictions`.

    Rows are `uar`, then the emotions that occur as true labels, in canonical order; columns are
    the `difference` of the recalls, first minus second, and `low` and `high`, its 95 % interval.
    A resample that lacks an emotion says nothing of it. Each interval stands for itself: of many
    that are shown together, one in twenty leaves out 0 where nothing differs. Raises ValueError
    if the tables differ in utterances, true labels or speakers.
    """
    labels, counts, speakers = _count_pair(first, second)
    observed = counts.sum(axis=0)
    resampled = _resample_counts(counts, speakers, NUM_BOOTSTRAPS, seed=0)
    present = observed[0].sum(axis=-1) > 0

    def compute_differences(confusions: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):  # NaN where a resample lacks an emotion
            recall = np.diagonal(confusions, axis1=-2, axis2=-1) / confusions.sum(axis=-1)
        scores = np.concatenate([score_confusions(confusions)["uar"][..., None], recall], axis=-1)
        return (scores[..., 0, :] - scores[..., 1, :])[..., np.r_[True, present]]

    low, high = np.nanpercentile(compute_differences(resampled), (2.5, 97.5), axis=0)
    columns = {"difference": compute_differences(observed), "low": low, "high": high}
    return pd.DataFrame(columns, index=["uar", *np.array(labels)[present]])


def _count_pair(first: pd.DataFrame, second: pd.DataFrame):
    """Labels, confusion counts (utterances, 2, labels, labels), and speaker numbers."""
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
    return labels, np.stack([first_counts, second_counts], axis=1), speakers


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


def _find_interval(values: np.ndarray) -> dict[str, float]:
    """Give the percentiles between which 95 % of the values lie."""
    low, high = np.percentile(values, (2.5, 97.5))
    return {"low": float(low), "high": float(high)}


def tabulate_scores(systems: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Show the scores of predictions tables in per cent, as text to read: a row per system.

    `UAR`, `WA` and `Macro-F1` are of all rows, with their 95 % interval, "66.3 (60.0 to 72.0)";
    `UAR of folds` is the mean over folds and seeds and its deviation, "66.4 ± 4.7" ("" for a
    single fold).
    """
    rows = {}
    for name, predictions in systems.items():
        summary = summarise_predictions(predictions)
        mean, std = (100 * summary["uar"][name] for name in ("mean", "std"))
        rows[name] = {
            METRIC_NAMES[metric]: _show(scores, "score") for metric, scores in summary.items()
        } | {"UAR of folds": "" if np.isnan(std) else f"{mean:.1f} ± {std:.1f}"}
    return pd.DataFrame.from_dict(rows, orient="index")


def tabulate_changes(systems: Mapping[str, pd.DataFrame], reference: str) -> pd.DataFrame:
    """Show UARs in per cent and how much they are above that of `reference`, as text to read.

    A row per system, both numbers with their 95 % interval, "-2.2 (-5.0 to 0.6)"; the change is of
    the same utterances, in pairs.
    """
    rows = {}
    for name, predictions in systems.items():
        rows[name] = {"UAR (%)": _show(summarise_predictions(predictions)["uar"], "score")}
        if name != reference:
            change = compare_predictions(predictions, systems[reference])
            rows[name]["change (points)"] = _show(change, "difference")
    return pd.DataFrame.from_dict(rows, orient="index").fillna("")


def _show(found: Mapping[str, float], key: str) -> str:
    value, low, high = to_points(found, key)
    return f"{value:.1f} ({low:.1f} to {high:.1f})"


def to_points(found: Mapping[str, float], key: str = "difference") -> tuple[float, ...]:
    """Give what is under `key`, "low" and "high" in points, to one decimal, 0 without a sign."""
    return tuple(round(100 * found[name], 1) + 0.0 for name in (key, "low", "high"))


def describe_difference(title: str, comparison: Mapping[str, float]) -> str:
    """Say what `compare_predictions` gives in words, in points; noise is an interval around 0.

    >>> describe_difference("A against B", {"difference": -0.022, "low": -0.05, "high": 0.006})
    'A against B, a difference of -2.2 points (-5.0 to 0.6): within noise'
    """
    difference, low, high = to_points(comparison)
    verdict = "beyond" if comparison["low"] > 0 or comparison["high"] < 0 else "within"
    points = f"{difference:+.1f} points ({low:.1f} to {high:.1f})"
    return f"{title}, a difference of {points}: {verdict} noise"
