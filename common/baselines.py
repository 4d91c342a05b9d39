"""scikit-learn classifiers, measured on the same folds and kept as the same evidence."""

import platform
import time
from collections.abc import Sequence
from importlib.metadata import version

import numpy as np
import pandas as pd
from joblib import cpu_count
from sklearn.base import ClassifierMixin, clone

from common import paths
from common.cross_validation import Run, describe_data, tabulate_predictions
from common.emotions import order_emotions
from common.features import Features
from common.files import digest
from common.splits import make_folds


def cross_validate_classifier(
    classifier: ClassifierMixin,
    table: pd.DataFrame,
    features: Features,
    *,
    protocol: str,
    seeds: Sequence[int] = (0,),
) -> Run:
    """Fit and test a scikit-learn classifier on every fold of a protocol, once per seed.

    It is fitted to the training rows as extracted, flattened to (rows, values); scaling
    belongs into its pipeline. No epoch is chosen, so validation rows join the training.

    Parameters
    ----------
    classifier
        Cloned for each fold; must have `predict_proba`.
    table
        Utterance table, row for row with `features`.
    seeds
        Each one gives other random splits.

    Returns
    -------
    Run
        With an empty history.

    Raises
    ------
    ValueError
        If table and features differ in length, or the corpus cannot be split so.
    """
    description = {
        **describe_data(table, features, protocol=protocol),
        "training": {"rows": "training and validation"},
        "model": repr(classifier),
    }
    started = time.perf_counter()
    emotions = order_emotions(table["emotion"])
    values = features.values.reshape(len(table), -1)
    predictions = []
    for seed in seeds:
        folds = make_folds(table, protocol, seed=seed)
        for fold in folds:
            rows = np.concatenate([fold.train, fold.validation])
            fitted = clone(classifier).fit(values[rows], table["emotion"].iloc[rows])
            columns = [list(fitted.classes_).index(emotion) for emotion in emotions]
            probabilities = fitted.predict_proba(values[fold.test])[:, columns]
            predictions.append(tabulate_predictions(table, fold, probabilities, seed=seed))
    key = digest(description)
    description |= {
        "key": key,
        "seeds": list(seeds),
        "num_parameters": None,
        "seconds": round(time.perf_counter() - started, 1),
        "backend": "scikit-learn",
        "device": f"CPU, {cpu_count()} cores",
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("scikit-learn", "librosa", "numpy")},
    }
    return Run(
        pd.concat(predictions, ignore_index=True),
        pd.DataFrame(),
        description,
        paths.RUNS_DIR / key,
        {},
        num_folds=len(predictions),
        num_loaded=0,
        complete=True,
    )
