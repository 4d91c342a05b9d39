"""What a table of test predictions says: scores, groups and calibration.

Every function takes a predictions table, as `predictions` makes and reads it: one row per test
prediction, with the columns `utterance`, `speaker`, `fold`, `seed`, `true_label`,
`predicted_label`, `correct` and `p_<emotion>`. All scores are fractions between 0 and 1.

- `uar`: unweighted average recall, the mean recall over the emotions that occur as true labels.
- `wa`: weighted accuracy, the share of correct predictions.
- `macro_f1`: mean F1 score over the same emotions.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.metrics import precision_recall_fscore_support

from common.emotions import order_emotions

METRIC_NAMES = {"uar": "UAR", "wa": "WA", "macro_f1": "Macro-F1"}
METRICS = tuple(METRIC_NAMES)
GROUPS = ("corpus", "gender", "intensity", "statement", "speaker")
SMALLEST = 5e-5  # half the last of the decimals that evidence keeps


def score_predictions(predictions: pd.DataFrame) -> dict[str, float]:
    """Score all rows together: `uar`, `wa`, `macro_f1`. Raises ValueError without rows."""
    if predictions.empty:
        raise ValueError("The predictions table has no rows: score at least one prediction.")
    scores = score_confusions(count_confusions(predictions).to_numpy())
    return {metric: float(score) for metric, score in scores.items()}


def score_confusions(confusions: np.ndarray) -> dict[str, np.ndarray]:
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


def score_folds(predictions: pd.DataFrame) -> pd.DataFrame:
    """Score each test fold of each seed: a row of `seed`, `fold`, `uar`, `wa`, `macro_f1`."""
    return pd.DataFrame(
        {"seed": seed, "fold": fold, **score_predictions(rows)}
        for (seed, fold), rows in predictions.groupby(["seed", "fold"])
    )


def report_classes(predictions: pd.DataFrame) -> pd.DataFrame:
    """Give each `emotion`, in canonical order, its scores over all rows.

    They are `precision`, `recall` and `f1` (0 where undefined), and `support`, the number of rows
    with that true label.
    """
    labels = list_labels(predictions)
    scores = precision_recall_fscore_support(
        predictions["true_label"], predictions["predicted_label"], labels=labels, zero_division=0
    )
    columns = dict(zip(("precision", "recall", "f1", "support"), scores, strict=True))
    return pd.DataFrame(columns, index=pd.Index(labels, name="emotion"))


def count_confusions(predictions: pd.DataFrame) -> pd.DataFrame:
    """Count predictions, true emotion (rows, `true_label`) by `predicted_label` (columns)."""
    labels = list_labels(predictions)
    counts = pd.crosstab(predictions["true_label"], predictions["predicted_label"])
    return counts.reindex(index=labels, columns=labels, fill_value=0)


def list_groups(table: pd.DataFrame) -> list[str]:
    """Those of `GROUPS` worth comparing: columns of an utterance table with two values or more.

    A value that is missing, empty or "unknown" counts for none.
    """
    known = {by: {*table[by].dropna()} - {"", "unknown"} for by in GROUPS if by in table}
    return [by for by, values in known.items() if len(values) > 1]


def score_groups(predictions: pd.DataFrame, table: pd.DataFrame, by: str) -> pd.DataFrame:
    """Give `num_utterances`, `uar` and `wa` of each group, such as each speaker or intensity.

    `by` is a column of the utterance table; utterances without a value there (missing or empty)
    are left out. A group is scored over the emotions it has: RAVDESS has no strong neutral, so
    the UAR of its strong half averages seven recalls and that of its normal half eight. Raises
    ValueError if `table` lacks the column or an utterance, or no utterance has a value.
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
        num_utterances = members["utterance"].nunique()
        rows.append({by: value, "num_utterances": num_utterances, **score_predictions(members)})
    if not rows:
        raise ValueError(f"No predicted utterance has a value in {by!r}: group by another column.")
    return pd.DataFrame(rows).set_index(by)[["num_utterances", "uar", "wa"]]


def average_predictions(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Let several systems vote: a predictions table of the mean of their probabilities, seed 0.

    The seeds of each table are averaged first, so that every system has one vote. Raises
    ValueError if the tables differ in utterances or folds.
    """
    keys = ["utterance", "speaker", "fold", "true_label"]
    columns = [f"p_{label}" for label in list_labels(tables[0])]
    means = [table.groupby(keys)[columns].mean() for table in tables]
    if not all(mean.index.equals(means[0].index) for mean in means):
        raise ValueError(
            "The tables do not test the same utterances in the same folds: average runs of one "
            "corpus and one protocol whose folds do not depend on the seed."
        )
    average = (sum(means) / len(means)).reset_index()
    predicted = average[columns].idxmax(axis=1).str.removeprefix("p_")
    correct = predicted == average["true_label"]
    return average.assign(seed=0, predicted_label=predicted, correct=correct)


def measure_calibration(predictions: pd.DataFrame, *, num_bins: int = 10) -> pd.DataFrame:
    """Compare the probability of the predicted emotion with how often it is right.

    Each bin of width 1 / `num_bins`, from 0 upwards and with its upper edge, has the mean
    `confidence`, `accuracy` (both NaN in an empty bin) and `count`. The mean gap between the two,
    weighted by the counts, is `attrs["expected_calibration_error"]` (Guo et al., ICML 2017, "On
    calibration of modern neural networks"). Raises ValueError without probabilities.
    """
    chances = predictions.filter(regex="^p_")
    if not chances.shape[1] or not np.isfinite(chances).all(axis=None):
        raise ValueError("a probability is missing; give predictions not saved with labels_only")
    confidence = chances.max(axis=1).to_numpy()
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


def fit_temperature(predictions: pd.DataFrame) -> float:
    """Fit the temperature that makes the true emotions of predictions most probable.

    Probabilities to the power 1 / T, brought to one again: above 1 the system was too sure. Guo et
    al., "On calibration of modern neural networks", ICML 2017. Probabilities below half the last
    of the four decimals that evidence keeps count as that half. Raises ValueError without rows, or
    without probabilities, which evidence of labels alone (`.csv.xz`) does not have.
    """
    if predictions.empty or predictions.filter(regex="^p_").empty:
        raise ValueError(
            "no probabilities to fit a temperature to; give predictions of validation rows that "
            "were not saved with labels_only"
        )
    logs, true = _take_logs(predictions)

    def measure_loss(log_temperature: float) -> float:
        chances = log_softmax(logs / np.exp(log_temperature), axis=1)
        return -chances[np.arange(len(true)), true].mean()

    return float(np.exp(minimize_scalar(measure_loss, bounds=(-3, 3), method="bounded").x))


def apply_temperature(predictions: pd.DataFrame, temperature: float) -> pd.DataFrame:
    """Give predictions whose probabilities are taken to the power 1 / `temperature`."""
    logs, _ = _take_logs(predictions)
    chances = softmax(logs / temperature, axis=1)
    return predictions.assign(**dict(zip(predictions.filter(regex="^p_"), chances.T, strict=True)))


def _take_logs(predictions: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Log probabilities (rows, emotions), and the number of each row's true emotion."""
    chances = predictions.filter(regex="^p_")
    true = chances.columns.get_indexer("p_" + predictions["true_label"])
    return np.log(np.maximum(chances.to_numpy(float), SMALLEST)), true


def list_labels(predictions: pd.DataFrame) -> list[str]:
    """Emotions that are a true label, a predicted label or have a probability column."""
    columns = [name.removeprefix("p_") for name in predictions if name.startswith("p_")]
    return order_emotions([*columns, *predictions["true_label"], *predictions["predicted_label"]])
