"""scikit-learn classifiers, measured on the same folds and kept as the same evidence."""

import time
from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.base import ClassifierMixin, clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from common.backend import describe_scikit_learn
from common.cross_validation import collect_run, describe_data
from common.emotions import order_emotions
from common.files import digest
from common.predictions import tabulate_predictions
from common.recipes import Features
from common.runs import FoldResult, Run, Task, finish_folds, list_tasks, name_folds
from common.splits import Fold


def make_regression(
    inverse_penalties: Sequence[float] = (0.001, 0.003, 0.01, 0.03), num_inner: int = 3
) -> GridSearchCV:
    """Scaling and multinomial logistic regression whose penalty, 1 / C, training speakers choose.

    Taken is the C with the highest mean UAR on `num_inner` parts of the training speakers, each
    left out once; where fewer speakers train than there are parts, the one in the middle.
    """
    usual = sorted(inverse_penalties)[len(inverse_penalties) // 2]
    regression = LogisticRegression(C=usual, max_iter=1000, tol=1e-3)
    return GridSearchCV(
        make_pipeline(StandardScaler(), regression),
        {"logisticregression__C": list(inverse_penalties)},
        scoring="recall_macro",
        cv=GroupKFold(num_inner),
    )


def fit_classifier(
    classifier: ClassifierMixin, values: np.ndarray, labels: np.ndarray, speakers: np.ndarray
) -> tuple[ClassifierMixin, pd.DataFrame]:
    """Fit a clone of a classifier to values (rows, values), labels and speakers (rows,).

    A `GridSearchCV` splits by speaker, copies of an utterance with it; where fewer speakers train
    than it has parts, its estimator is fitted as it stands.

    Returns
    -------
    tuple
        The fitted classifier, and a row per setting that was tried, with its `uar` on speakers
        left out and whether it was `chosen`; none where there was nothing to choose.
    """
    if not isinstance(classifier, GridSearchCV):
        return clone(classifier).fit(values, labels), pd.DataFrame()
    if len(np.unique(speakers)) < classifier.cv.get_n_splits():
        return clone(classifier.estimator).fit(values, labels), pd.DataFrame()
    search = clone(classifier).fit(values, labels, groups=speakers)
    tried = pd.DataFrame(search.cv_results_["params"])
    tried.columns = [name.rpartition("__")[2] for name in tried]
    tried["uar"] = search.cv_results_["mean_test_score"]
    return search.best_estimator_, tried.assign(chosen=tried.index == search.best_index_)


def cross_validate_classifier(
    classifier: ClassifierMixin,
    table: pd.DataFrame,
    features: Features,
    *,
    protocol: str,
    seeds: Sequence[int] = (0,),
    folds: Sequence[Fold] | None = None,
    use_copies: bool = False,
    hear_copies: bool | int = True,
    hold_out: bool = False,
) -> Run:
    """Fit and test a scikit-learn classifier on every fold of a protocol, once per seed.

    A clone of it, which needs `predict_proba`, is fitted by `fit_classifier` to the training rows
    as extracted, flattened to (rows, values); scaling belongs into its pipeline. With `use_copies`
    it is fitted to the augmented copies of these rows as well; then, if `hear_copies`, a test
    utterance's probabilities are the mean of those of the utterance and of its own copies, of all
    or of the first so many (test-time augmentation; Krizhevsky, Sutskever and Hinton, NIPS 2012).
    No epoch is chosen, so validation rows join the training, unless `hold_out` keeps them to be
    predicted, as a temperature needs it. A published run is read back. The rest is as in
    `cross_validate`, errors too; the run has no models, and its history is what a `GridSearchCV`
    tried.
    """
    rows = "training" if hold_out else "training and validation"
    settings = {"classifier": repr(classifier), "rows": rows}
    if use_copies:
        heard = "in training and in test" if hear_copies else "in training"
        if hear_copies is not True and hear_copies:
            heard = f"in training, the first {hear_copies} in test"
        settings["versions"] = f"original and copies, {heard}"
    description = {
        **describe_data(table, features, protocol=protocol, folds=folds),
        "training": settings,
        "model": repr(classifier),
        "start": None,
    }
    key = digest(description)
    tasks, complete = list_tasks(table, protocol, seeds, folds, None)
    if not hold_out:
        tasks = {task: fold.join_validation() for task, fold in tasks.items()}
    emotions = order_emotions(table["emotion"])

    def test(task: Task, fold: Fold) -> FoldResult:
        versions = flatten_versions(features, use_copies)
        asked = versions if hear_copies is True else versions[: 1 + hear_copies]
        started = time.perf_counter()
        known = np.concatenate([version[fold.train] for version in versions])
        labels, speakers = (
            np.tile(table[name].to_numpy()[fold.train], len(versions))
            for name in ("emotion", "speaker")
        )
        fitted, tried = fit_classifier(classifier, known, labels, speakers)
        columns = [list(fitted.classes_).index(emotion) for emotion in emotions]
        named = {"seed": task[0], "fold": task[1]}

        def predict(rows: np.ndarray) -> pd.DataFrame:
            given = [fitted.predict_proba(version[rows])[:, columns] for version in asked]
            return tabulate_predictions(table, rows, np.mean(given, axis=0), **named)

        predictions = predict(fold.test)
        validation = predict(fold.validation) if len(fold.validation) else pd.DataFrame()
        tried = pd.DataFrame(named | dict(tried), tried.index)
        facts = {**describe_scikit_learn(), "seconds": time.perf_counter() - started}
        return FoldResult(predictions, validation, tried, facts, "trained")

    return collect_run(
        finish_folds(key, table, tasks, test),
        {**description, "key": key, "folds": name_folds(tasks), "num_parameters": None},
        features=features,
        training=settings,
        complete=complete,
    )


def flatten_versions(features: Features, use_copies: bool) -> list[np.ndarray]:
    """Give the utterances, and their copies one after the other, each of shape (rows, values)."""
    copies = np.moveaxis(features.copies, 1, 0) if use_copies else ()
    return [version.reshape(len(features), -1) for version in (features.values, *copies)]
