"""Trained systems under other conditions: the same test utterances, degraded one way at a time."""

from collections.abc import Callable, Mapping
from functools import cache

import numpy as np
import pandas as pd

from common.augmentation import Augmentation
from common.backend import describe_packages
from common.cross_validation import run_folds
from common.degradations import Degrade
from common.files import digest
from common.recipes import Features, Recipe, extract_features
from common.runs import Run, Task, describe_data
from common.splits import Fold, make_folds

CLEAN = "as recorded"


def degrade_table(sample: pd.DataFrame, conditions: Mapping[str, object]) -> pd.DataFrame:
    """Repeat utterances for each condition: named `<utterance> @ <condition>`, with `condition`."""
    parts = [
        sample.assign(utterance=sample["utterance"] + f" @ {name}", condition=name)
        for name in conditions
    ]
    return pd.concat(parts, ignore_index=True)


def test_degraded(
    table: pd.DataFrame,
    features: Features,
    rows: np.ndarray,
    conditions: Mapping[str, Augmentation | None],
    predict: Callable[[Fold, np.ndarray], np.ndarray],
    *,
    protocol: str,
    model: str,
) -> Run:
    """Test models of the folds of a protocol on some utterances under several conditions.

    `features` are those of the whole table, as recorded; `rows` are the numbers of the utterances
    that are tested, each by the model of its own fold. A condition that is None is the recording
    as it is; any other is what is done to the waveform before the steps of `features.recipe`.
    `predict(fold, values)` gives probabilities (rows, emotions of the table, in order) by the model
    trained on that fold's other rows; it is not called where the run is published. `model` says
    what it is: the run's key follows from it, the conditions and the table.

    The predictions are those of `degrade_table`; `score_groups(…, by="condition")` scores each.
    """
    sample = table.iloc[rows].reset_index(drop=True)
    degraded = degrade_table(sample, conditions)
    described = {name: by and by.describe() for name, by in conditions.items()}
    description = {
        **describe_data(table, features, protocol=protocol),
        **{"training": {"model": model, "conditions": described}, "model": model, "start": None},
        "tested": digest(list(sample["utterance"])),
    }
    folds = {fold.number: fold.join_validation() for fold in make_folds(table, protocol)}
    place = {row: number for number, fold in folds.items() for row in fold.test}
    numbers = np.tile([place[row] for row in rows], len(conditions))
    nothing = np.array([], int)
    tasks = {
        (0, number): Fold(number, nothing, nothing, np.flatnonzero(numbers == number))
        for number in np.unique(numbers).tolist()
    }
    extract = cache(lambda: _extract_conditions(sample, features, rows, conditions))

    def test(_: Task, fold: Fold) -> tuple[np.ndarray, pd.DataFrame, dict]:
        probabilities = predict(folds[fold.number], extract()[fold.test])
        facts = describe_packages("inference", "librosa", "numpy", "scipy")
        return probabilities, pd.DataFrame(), facts

    return run_folds(description, degraded, features, tasks, test)


test_degraded.__test__ = False  # no test of pytest's


def _extract_conditions(sample, features: Features, rows, conditions) -> np.ndarray:
    """Features of every utterance under every condition, in the order of `degrade_table`."""
    values = []
    for by in conditions.values():
        if by is None:
            values.append(features.values[rows])
            continue
        recipe = Recipe((Degrade(by), *features.recipe.steps), features.recipe.normalise)
        values.append(extract_features(sample, recipe).values)
    return np.concatenate(values)


def measure_coverage(predictions: pd.DataFrame) -> pd.DataFrame:
    """Accuracy among the surest predictions: a row per `coverage`, the share that is answered.

    The others are left unanswered (selective classification; El-Yaniv and Wiener, JMLR 2010).
    `threshold` is the smallest probability that is answered.
    """
    sure = predictions.filter(regex="^p_").max(axis=1).to_numpy()
    order = np.argsort(-sure, kind="stable")
    correct = predictions["correct"].to_numpy()[order]
    answered = np.arange(1, len(order) + 1)
    accuracy = np.cumsum(correct) / answered
    columns = {"coverage": answered / len(order), "accuracy": accuracy, "threshold": sure[order]}
    return pd.DataFrame(columns)
