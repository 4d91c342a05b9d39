"""Trained systems under other conditions: the same test utterances, degraded one way at a time."""

import time
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
from joblib import cpu_count

from common.augmentation import Augmentation
from common.backend import read_version
from common.cross_validation import collect_run, describe_data
from common.degradations import Degrade
from common.files import digest
from common.predictions import tabulate_predictions
from common.recipes import Features, Recipe, extract_features
from common.runs import FoldResult, Run, name_folds, read_published_folds
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
    key = digest(description)
    folds = [fold.join_validation() for fold in make_folds(table, protocol)]
    place = {row: fold.number for fold in folds for row in fold.test}
    numbers = np.tile([place[row] for row in rows], len(conditions))
    nothing = np.array([], int)
    tasks = {
        (0, fold.number): Fold(
            fold.number, nothing, nothing, np.flatnonzero(numbers == fold.number)
        )
        for fold in folds
        if (numbers == fold.number).any()
    }
    results, _ = read_published_folds(key, degraded, tasks)
    if len(results) < len(tasks):
        started = time.perf_counter()
        values = _extract_conditions(sample, features, rows, conditions)
        found = {}
        for fold in (fold for fold in folds if (0, fold.number) in tasks):
            tested = tasks[0, fold.number].test
            chances = predict(fold, values[tested])
            named = {"fold": fold.number, "seed": 0}
            found[0, fold.number] = tabulate_predictions(degraded, tested, chances, **named)
        versions = {name: read_version(name) for name in ("librosa", "numpy", "scipy")}
        facts = {"backend": "inference", "device": f"CPU, {cpu_count()} cores"}
        facts |= {"versions": versions, "seconds": (time.perf_counter() - started) / len(found)}
        empty = pd.DataFrame()
        results = {t: FoldResult(r, empty, empty, facts, "trained") for t, r in found.items()}
    return collect_run(
        {task: results[task] for task in tasks},
        {**description, "key": key, "folds": name_folds(tasks), "num_parameters": None},
        features=features,
        training=description["training"],
    )


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
