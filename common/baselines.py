"""scikit-learn classifiers, measured on the same folds and kept as the same evidence."""

import sys
import time
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from common.backend import describe_scikit_learn
from common.cross_validation import run_folds
from common.emotions import order_emotions
from common.files import digest
from common.recipes import Features
from common.runs import Run, Task, describe_data, list_tasks
from common.sources import spell_code
from common.splits import Fold


def make_regression(num_inner: int = 3) -> GridSearchCV:
    """Scaling and multinomial logistic regression whose penalty, 1 / C, training speakers choose.

    Taken is the C with the highest mean UAR on `num_inner` parts of the training speakers, each
    left out once; where fewer speakers train than there are parts, the one in the middle.
    """
    regression = LogisticRegression(max_iter=1000, tol=1e-3)
    return _search_penalty(regression, [0.001, 0.003, 0.01, 0.03], num_inner)


def make_svm() -> GridSearchCV:
    """Scaling and a support vector machine, radial, its penalty chosen as in `make_regression`."""
    machine = SoftSVC(class_weight="balanced", break_ties=True)
    return _search_penalty(machine, [0.3, 1, 3, 10], 3)


def _search_penalty(
    classifier: ClassifierMixin, inverse_penalties: list[float], num_inner: int
) -> GridSearchCV:
    """Search a penalty, with the one in the middle of rising ones where there is no search."""
    classifier.set_params(C=inverse_penalties[len(inverse_penalties) // 2])
    return GridSearchCV(
        make_pipeline(StandardScaler(), classifier),
        {f"{type(classifier).__name__.lower()}__C": inverse_penalties},
        scoring="recall_macro",
        cv=GroupKFold(num_inner),
    )


class SoftSVC(SVC):
    """A support vector machine whose probabilities are the softmax of its decision values.

    They are not calibrated, which takes several utterances of each emotion, but agree with its
    predictions where `break_ties` is set.
    """

    def predict_proba(self, values: np.ndarray) -> np.ndarray:
        decisions = self.decision_function(values)
        if decisions.ndim == 1:  # of two classes
            decisions = np.stack([-decisions, decisions], axis=1)
        return softmax(decisions, axis=1)


class CopiesClassifier(ClassifierMixin, BaseEstimator):
    """A classifier of which a `GridSearchCV` can choose what it reads, learns from and hears.

    Its values are of shape (rows, 1 + copies, embeddings, dimensions), utterances as recorded
    first. It reads the embeddings with the numbers `layers` side by side (None: all), learns from
    the first `copies[0]` copies of a row too, and its probabilities are the mean of those of the
    row and of its first `copies[1]` copies.
    """

    def __init__(
        self,
        classifier: ClassifierMixin,
        layers: tuple[int, ...] | None = None,
        copies: tuple[int, int] = (0, 0),
    ) -> None:
        self.classifier, self.layers, self.copies = classifier, layers, copies

    def fit(self, values: np.ndarray, labels: np.ndarray) -> "CopiesClassifier":
        versions = self._flatten(values, self.copies[0])
        labels = np.tile(labels, len(versions))
        self.classifier_ = clone(self.classifier).fit(np.concatenate(versions), labels)
        self.classes_ = self.classifier_.classes_
        return self

    def predict_proba(self, values: np.ndarray) -> np.ndarray:
        versions = self._flatten(values, self.copies[1])
        return np.mean([self.classifier_.predict_proba(version) for version in versions], axis=0)

    def predict(self, values: np.ndarray) -> np.ndarray:
        return self.classes_[self.predict_proba(values).argmax(axis=1)]

    def _flatten(self, values: np.ndarray, num_copies: int) -> list[np.ndarray]:
        read = slice(None) if self.layers is None else list(self.layers)
        return [values[:, n, read].reshape(len(values), -1) for n in range(1 + num_copies)]


def name_classifier(classifier: BaseEstimator) -> str:
    """Name a classifier as a run's key does: its `repr`, and a digest of what that leaves out.

    scikit-learn cuts long lists and long texts short, and shows no code, that of a class which the
    notebook itself defines.
    """
    shown, settings = repr(classifier), classifier.get_params(deep=True)
    inside = [classifier, *(value for value in settings.values() if hasattr(value, "fit"))]
    hidden = [spell_code(type(one)) for one in inside if type(one).__module__ == "__main__"]
    if "..." in shown:
        with np.printoptions(threshold=sys.maxsize):
            hidden += [f"{name}={value!r}" for name, value in sorted(settings.items())]
    return f"{shown} {digest(hidden)}" if hidden else shown


def fit_classifier(
    classifier: ClassifierMixin, values: np.ndarray, labels: np.ndarray, speakers: np.ndarray
) -> tuple[ClassifierMixin, pd.DataFrame]:
    """Fit a clone of a classifier to values (rows, values), labels and speakers (rows,).

    A `GridSearchCV` splits by speaker, copies of an utterance with it; where fewer speakers train
    than it has parts, its estimator is fitted as it stands. Returned are the fitted classifier,
    and a row per setting that was tried, with its `uar` on speakers left out and whether it was
    `chosen`; none where there was nothing to choose.
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
    A `CopiesClassifier`, or a search among its settings, is given all versions and decides itself.
    No epoch is chosen, so validation rows join the training, unless `hold_out` keeps them to be
    predicted, as a temperature needs it. A published run is read back. The rest is as in
    `cross_validate`, errors too; the run has no models, and its history is what a `GridSearchCV`
    tried.
    """
    rows = "training" if hold_out else "training and validation"
    settings = {"classifier": name_classifier(classifier), "rows": rows}
    if use_copies:
        heard = "in training and in test" if hear_copies else "in training"
        if hear_copies is not True and hear_copies:
            heard = f"in training, the first {hear_copies} in test"
        settings["versions"] = f"original and copies, {heard}"
    description = {
        **describe_data(table, features, protocol=protocol, folds=folds),
        "training": settings,
        "model": name_classifier(classifier),
        "start": None,
    }
    tasks, complete = list_tasks(table, protocol, seeds, folds, None)
    if not hold_out:
        tasks = {task: fold.join_validation() for task, fold in tasks.items()}
    emotions = order_emotions(table["emotion"])

    def test(_: Task, fold: Fold) -> tuple[np.ndarray, pd.DataFrame, dict]:
        if isinstance(getattr(classifier, "estimator", classifier), CopiesClassifier):
            versions = [np.stack(list_versions(features, use_copies), axis=1)]
        else:
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
        rows = np.concatenate([fold.test, fold.validation])
        given = [fitted.predict_proba(version[rows])[:, columns] for version in asked]
        facts = {**describe_scikit_learn(), "seconds": time.perf_counter() - started}
        return np.mean(given, axis=0), tried, facts

    return run_folds(description, table, features, tasks, test, complete=complete)


def flatten_versions(features: Features, use_copies: bool) -> list[np.ndarray]:
    """Give the utterances, and their copies one after the other, each of shape (rows, values)."""
    return [version.reshape(len(features), -1) for version in list_versions(features, use_copies)]


def list_versions(features: Features, use_copies: bool) -> list[np.ndarray]:
    """Give the utterances, and their copies one after the other, as extracted."""
    return [features.values, *(np.moveaxis(features.copies, 1, 0) if use_copies else ())]
