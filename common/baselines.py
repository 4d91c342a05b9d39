"""scikit-learn classifiers, measured on the same folds and kept as the same evidence."""

import time
from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.base import ClassifierMixin, clone

from common.backend import describe_scikit_learn
from common.cross_validation import collect_run, describe_data
from common.emotions import order_emotions
from common.files import digest
from common.predictions import tabulate_predictions
from common.recipes import Features
from common.runs import FoldResult, Run, Task, finish_folds, list_tasks, name_folds
from common.splits import Fold


def cross_validate_classifier(
    classifier: ClassifierMixin,
    table: pd.DataFrame,
    features: Features,
    *,
    protocol: str,
    seeds: Sequence[int] = (0,),
    folds: Sequence[Fold] | None = None,
    use_copies: bool = False,
) -> Run:
    """Fit and test a scikit-learn classifier on every fold of a protocol, once per seed.

    A clone of it, which needs `predict_proba`, is fitted to the training rows as extracted,
    flattened to (rows, values); scaling belongs into its pipeline. With `use_copies` it is fitted
    to the augmented copies of these rows as well, and a test utterance's probabilities are the
    mean of those of the utterance and of its own copies (test-time augmentation; Krizhevsky,
    Sutskever and Hinton, NIPS 2012). No epoch is chosen, so validation rows join the training. A
    published run is read back. The rest is as in `cross_validate`, errors too; the run has no
    history and no models.
    """
    settings = {"classifier": repr(classifier), "rows": "training and validation"}
    if use_copies:
        settings["versions"] = "original and copies, in training and in test"
    description = {
        **describe_data(table, features, protocol=protocol, folds=folds),
        "training": settings,
        "model": repr(classifier),
        "start": None,
    }
    key = digest(description)
    tasks, complete = list_tasks(table, protocol, seeds, folds, None)
    tasks = {task: fold.join_validation() for task, fold in tasks.items()}
    emotions = order_emotions(table["emotion"])

    def test(task: Task, fold: Fold) -> FoldResult:
        versions = _flatten_versions(features, use_copies)
        started = time.perf_counter()
        known = np.concatenate([version[fold.train] for version in versions])
        labels = np.tile(table["emotion"].to_numpy()[fold.train], len(versions))
        fitted = clone(classifier).fit(known, labels)
        columns = [list(fitted.classes_).index(emotion) for emotion in emotions]
        given = [fitted.predict_proba(version[fold.test])[:, columns] for version in versions]
        probabilities = np.mean(given, axis=0)
        named = {"seed": task[0], "fold": task[1]}
        predictions = tabulate_predictions(table, fold.test, probabilities, **named)
        facts = {**describe_scikit_learn(), "seconds": time.perf_counter() - started}
        return FoldResult(predictions, pd.DataFrame(), pd.DataFrame(), facts, "trained")

    return collect_run(
        finish_folds(key, table, tasks, test),
        {**description, "key": key, "folds": name_folds(tasks), "num_parameters": None},
        features=features,
        training=settings,
        complete=complete,
    )


def _flatten_versions(features: Features, use_copies: bool) -> list[np.ndarray]:
    """Give the utterances, and their copies one after the other, each of shape (rows, values)."""
    copies = np.moveaxis(features.copies, 1, 0) if use_copies else ()
    return [version.reshape(len(features), -1) for version in (features.values, *copies)]
