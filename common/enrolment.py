"""The protocol "enrolled": test speakers are heard without labels before they are recognised.

Its scores stand apart from those on speakers never heard, and say how many utterances were heard.
The rule: of each test speaker as many utterances are drawn, labels unseen, and the others scored;
where all are heard, all are scored. Several draws are the seeds of a run.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from hashlib import sha256

import numpy as np
import pandas as pd
from sklearn.metrics import recall_score
from sklearn.model_selection import GroupKFold

from common.backend import describe_scikit_learn
from common.baselines import name_classifier
from common.cross_validation import run_folds
from common.emotions import order_emotions
from common.files import digest
from common.recipes import Features
from common.runs import Run, Task, describe_data
from common.splits import Fold, make_folds
from common.voices import Candidate, VoiceModel, VoiceNormalisation

ALL = "all"  # every utterance of a speaker, those that are scored among them
PRIORS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
USUAL_PRIOR = 4.0  # where one speaker trains, and there is no other to choose it on
INNER_DRAWS = (1000, 1001)


def draw_utterances(
    table: pd.DataFrame, count: int | str, *, draw: int, eligible: np.ndarray | None = None
) -> np.ndarray:
    """Mark `count` utterances of each speaker, or `ALL`, drawn among those `eligible` (rows,).

    A speaker's draw depends on the name, the number of the draw and the order of the rows alone,
    and a larger count holds a smaller one's. Raises ValueError if a speaker has too few.
    """
    eligible = np.ones(len(table), bool) if eligible is None else np.asarray(eligible)
    heard = np.zeros(len(table), bool)
    for speaker, rows in table.groupby("speaker").indices.items():
        own = rows[eligible[rows]]
        if count != ALL and (len(own) < count or len(rows) <= count):
            raise ValueError(
                f"speaker {speaker!r} has {len(own)} utterances to hear, of {len(rows)}; count="
                f"{count} leaves too few: give a smaller one"
            )
        seed = int.from_bytes(sha256(f"{draw}/{speaker}".encode()).digest()[:8], "big")
        chosen = np.random.default_rng(seed).permutation(own)
        heard[chosen if count == ALL else chosen[:count]] = True
    return heard


@dataclass(frozen=True)
class FittedFold:
    """The model of a fold, and models of parts of its training speakers with the others' rows."""

    fold: Fold
    model: VoiceModel
    inner: tuple[tuple[VoiceModel, np.ndarray], ...]


@dataclass(frozen=True)
class EnrolledSystem:
    """Classifiers that take out the voice, one per fold of a protocol, and what they are tested on.

    Everything is chosen on training speakers: `num_inner` folds of them choose the candidate, with
    all of their utterances heard, and for each count the prior. Where there is but one training
    speaker the first candidate and `USUAL_PRIOR` are taken. The plain models, of voices that are
    not heard, choose among the same candidates for themselves.

    `reference` (rows,) marks what voices are measured on, in training as in test, such as neutral
    utterances (Busso, Metallinou and Narayanan, 2011); None: all. It looks at labels, of the heard.

    `others`, a table and its features as `join_corpora` gives them, are speakers of other corpora
    who teach in every fold, with those of their emotions that the table has. Raises ValueError if
    a speaker or a recording is in both, or the features are made otherwise.
    """

    candidates: Sequence[Candidate]
    table: pd.DataFrame
    features: Features
    protocol: str
    normalise: VoiceNormalisation = VoiceNormalisation()
    reference: np.ndarray | None = None
    num_inner: int = 3
    others: tuple[pd.DataFrame, Features] | None = None

    @cached_property
    def plain_folds(self) -> dict[int, FittedFold]:
        """Fit the plain models of every fold, by its number."""
        return self._fit_folds(None)

    @cached_property
    def folds(self) -> dict[int, FittedFold]:
        """Fit the models for known voices of every fold, by its number."""
        return self._fit_folds(self.normalise)

    def choose_prior(self, fitted: FittedFold, count: int | str) -> float:
        """Choose how much the average voice counts, on the training speakers of a fold."""
        if count in (0, ALL):
            return 0.0
        if not fitted.inner:
            return USUAL_PRIOR
        key = fitted.fold.number, count
        if key not in self._priors:
            scores = {
                prior: np.mean(
                    [
                        self._score(model, rows, count, draw=draw, prior=prior)
                        for model, rows in fitted.inner
                        for draw in INNER_DRAWS
                    ]
                )
                for prior in PRIORS
            }
            self._priors[key] = max(scores, key=scores.get)
        return self._priors[key]

    def test(
        self, count: int | str, *, num_draws: int = 5, eligible: np.ndarray | None = None
    ) -> Run:
        """Test with `count` utterances of each test speaker heard: 0, a number, or `ALL`.

        `eligible` (rows,) limits what may be heard of test speakers, such as to one emotion: a
        declared setting, which looks at labels; None: as in training. Seeds of the run are the
        draws, one where there is nothing to draw. Raises ValueError if a speaker has too few
        utterances.
        """
        count = count if count == ALL else int(count)
        eligible = self.reference if eligible is None else eligible
        single = count in (0, ALL)
        heard = [
            draw_utterances(self.table, count, draw=draw, eligible=eligible)
            for draw in range(1 if single else num_draws)
        ]
        scored = [np.ones_like(mask) if single else ~mask for mask in heard]

        def predict(number: int, draw: int, rows: np.ndarray) -> tuple[np.ndarray, dict]:
            fitted = (self.folds if count else self.plain_folds)[number]
            prior, model = self.choose_prior(fitted, count), fitted.model
            emotions = order_emotions(self.table["emotion"])
            known = np.zeros(len(self._known[0]), bool)
            known[: len(self.table)] = heard[draw]
            probabilities = self._predict(model, rows, known, prior=prior, emotions=emotions)
            chosen = self.candidates.index(model.candidate)
            return probabilities, {"candidate": chosen, "prior": prior}

        settings = {"heard": count, "normalise": asdict(self.normalise) if count else None}
        settings["eligible"] = _name_rows(eligible)
        model = "classifier of features normalised by the voice" if count else "classifier"
        return self.run(predict, scored, settings=settings, model=model)

    def run(
        self,
        predict: Callable[[int, int, np.ndarray], tuple[np.ndarray, dict]],
        scored: Sequence[np.ndarray],
        *,
        settings: dict,
        model: str,
    ) -> Run:
        """Make a run of any test of the models, or read it back where it is published.

        `predict(fold number, draw, rows)` gives probabilities (rows, emotions) of test rows, and
        what was chosen in the fold, by name: it goes into the run's `history`, a row per draw and
        fold. `scored` marks the rows (of the table) of each draw that are; `settings` and `model`
        name in JSON what `predict` does.
        """
        settings = settings | {
            "chosen among": [name_candidate(candidate) for candidate in self.candidates],
            **{"priors": PRIORS, "num_inner": self.num_inner},
            "reference": _name_rows(self.reference),
        }
        if self.others is not None:
            named = describe_data(*self.others, protocol=self.protocol)
            settings["others"] = {name: named[name] for name in ("corpus", "table", "features")}
        description = {
            **describe_data(self.table, self.features, protocol=self.protocol),
            **{"training": settings, "start": None, "model": model},
        }

        def test(task: Task, fold: Fold) -> tuple[np.ndarray, pd.DataFrame, dict]:
            draw, number = task
            probabilities, chosen = predict(number, draw, fold.test)
            return probabilities, pd.DataFrame([chosen]), describe_scikit_learn()

        tasks = {
            (draw, fold.number): replace(fold, test=fold.test[mask[fold.test]])
            for draw, mask in enumerate(scored)
            for fold in self._splits
        }
        return run_folds(description, self.table, self.features, tasks, test)

    def fit_all(self) -> VoiceModel:
        """Fit the first candidate to the voices of all rows, the others' too, as what ships is."""
        return self._fit(self.candidates[0], self.normalise, np.arange(len(self._known[0])))

    @cached_property
    def _splits(self) -> list[Fold]:
        return [fold.join_validation() for fold in make_folds(self.table, self.protocol)]

    @cached_property
    def _priors(self) -> dict:
        return {}

    @cached_property
    def _known(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Speakers, emotions, features and reference of the table's rows, then of the others'."""
        tables, features = [self.table], [self.features.values]
        reference = np.ones(len(self.table), bool) if self.reference is None else self.reference
        if self.others is not None:
            table, own = self.others
            for column in ("speaker", "audio_hash"):
                if shared := sorted({*table[column]} & {*self.table[column]}):
                    raise ValueError(
                        f"others: {column} {shared[0]} is in the table that is tested on too; "
                        "leave it out of one of them"
                    )
            if own.describe() != self.features.describe():
                raise ValueError("others: their features are made otherwise; use one recipe")
            rows = np.flatnonzero(table["emotion"].isin(self.table["emotion"].unique()))
            tables, features = [*tables, table.iloc[rows]], [*features, own.values[rows]]
            reference = np.concatenate([reference, np.ones(len(rows), bool)])
        columns = (np.concatenate([t[name] for t in tables]) for name in ("speaker", "emotion"))
        return *columns, np.concatenate(features), reference

    def _fit_folds(self, normalise: VoiceNormalisation | None) -> dict[int, FittedFold]:
        taught = np.arange(len(self.table), len(self._known[0]))
        return {
            fold.number: FittedFold(
                fold, *self._fit_best(np.concatenate([fold.train, taught]), normalise)
            )
            for fold in self._splits
        }

    def _fit(self, candidate: Candidate, normalise, rows: np.ndarray) -> VoiceModel:
        speakers, labels, values, heard = (known[rows] for known in self._known)
        return VoiceModel.fit(candidate, normalise, values, labels, speakers, heard=heard)

    def _fit_best(self, rows: np.ndarray, normalise: VoiceNormalisation | None):
        """Fit the candidate that is best on training speakers left out; give inner models too."""
        speakers = self._known[0][rows]
        num_inner = min(self.num_inner, len(np.unique(speakers)))
        nothing_to_choose = normalise is None and len(self.candidates) == 1
        if num_inner < 2 or nothing_to_choose:
            return self._fit(self.candidates[0], normalise, rows), ()
        parts = [*GroupKFold(num_inner).split(rows, groups=speakers)]
        fitted, scores = [], []
        for candidate in self.candidates:
            models = [self._fit(candidate, normalise, rows[train]) for train, _ in parts]
            fitted.append([(m, rows[rest]) for m, (_, rest) in zip(models, parts, strict=True)])
            scores.append(
                np.mean([self._score(*pair, ALL, draw=0, prior=0) for pair in fitted[-1]])
            )
        best = int(np.argmax(scores))
        return self._fit(self.candidates[best], normalise, rows), tuple(fitted[best])

    def _predict(self, model, rows, heard, *, prior: float, emotions) -> np.ndarray:
        """Give probabilities (rows, emotions), each speaker normalised by what is heard."""
        speakers, _, values, _ = self._known
        probabilities = np.zeros((len(rows), len(emotions)))
        for speaker in np.unique(speakers[rows]):
            own = speakers[rows] == speaker
            known = values[np.flatnonzero(heard & (speakers == speaker))]
            probabilities[own] = model.predict(values[rows[own]], known, emotions, prior=prior)
        return probabilities

    def _score(self, model, rows, count, *, draw: int, prior: float) -> float:
        """Give the UAR on rows of inner speakers; of all heard where one has too few."""
        speakers, labels, _, reference = self._known
        part, eligible = pd.DataFrame({"speaker": speakers[rows]}), reference[rows]
        fewest = part[eligible].groupby("speaker").size().min()
        count = count if count == ALL or count < fewest else ALL
        own = draw_utterances(part, count, draw=draw, eligible=eligible)
        heard = np.zeros(len(speakers), bool)
        heard[rows[own]] = True
        scored = rows if count == ALL else rows[~own]
        emotions = list(model.classifier.classes_)
        chances = self._predict(model, scored, heard, prior=prior, emotions=emotions)
        said, true = np.array(emotions)[chances.argmax(axis=1)], labels[scored]
        return recall_score(true, said, labels=np.unique(true), average="macro", zero_division=0)


def name_candidate(candidate: Candidate) -> str:
    """Name a candidate as a run's key does: its `repr`, with nothing of the classifier left out."""
    classifier = candidate.classifier
    return repr(candidate).replace(repr(classifier), name_classifier(classifier))


def _name_rows(mask: np.ndarray | None) -> str | None:
    return None if mask is None else digest(np.flatnonzero(mask).tolist())
