"""The protocol "enrolled": test speakers are heard without labels before they are recognised.

Its scores stand apart from those on speakers never heard, and say how many utterances were heard.
The rule: of each test speaker as many utterances are drawn, labels unseen, and the others scored;
where all are heard, all are scored. Several draws are the seeds of a run.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from hashlib import sha256

import numpy as np
import pandas as pd
from joblib import cpu_count
from sklearn.metrics import recall_score
from sklearn.model_selection import GroupKFold

from common.backend import read_version
from common.cross_validation import collect_run, describe_data
from common.emotions import order_emotions
from common.files import digest
from common.predictions import tabulate_predictions
from common.recipes import Features
from common.runs import FoldResult, Run, name_folds
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
    """

    candidates: Sequence[Candidate]
    table: pd.DataFrame
    features: Features
    protocol: str
    normalise: VoiceNormalisation = VoiceNormalisation()
    reference: np.ndarray | None = None
    num_inner: int = 3

    @cached_property
    def plain_folds(self) -> list[FittedFold]:
        """Fit the plain models of every fold."""
        return self._fit_folds(None)

    @cached_property
    def folds(self) -> list[FittedFold]:
        """Fit the models for known voices of every fold."""
        return self._fit_folds(self.normalise)

    def _fit_folds(self, normalise: VoiceNormalisation | None) -> list[FittedFold]:
        folds = [fold.join_validation() for fold in make_folds(self.table, self.protocol)]
        return [FittedFold(fold, *self._fit_best(fold.train, normalise)) for fold in folds]

    @cached_property
    def _priors(self) -> dict:
        return {}

    def choose_prior(self, fitted: FittedFold, count: int | str) -> float:
        """Choose how much the average voice counts, on the training speakers of a fold."""
        if count in (0, ALL) or not fitted.inner:
            return USUAL_PRIOR if count != ALL else 0.0
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
        started = time.perf_counter()
        count = count if count == ALL else int(count)
        eligible = self.reference if eligible is None else eligible
        emotions = order_emotions(self.table["emotion"])
        single = count in (0, ALL)
        results, tasks, chosen = {}, {}, {}
        for draw in range(1 if single else num_draws):
            heard = draw_utterances(self.table, count, draw=draw, eligible=eligible)
            for fitted in self.folds if count else self.plain_folds:
                model = fitted.model
                prior, number = self.choose_prior(fitted, count), fitted.fold.number
                rows = fitted.fold.test if single else fitted.fold.test[~heard[fitted.fold.test]]
                probabilities = self._predict(model, rows, heard, prior=prior, emotions=emotions)
                named = {"fold": number, "seed": draw}
                predictions = tabulate_predictions(self.table, rows, probabilities, **named)
                tasks[draw, number] = Fold(number, fitted.fold.train, rows[:0], rows)
                results[draw, number] = predictions
                chosen[str(number)] = {
                    "classifier": repr(model.candidate.classifier),
                    "embeddings": model.candidate.embeddings,
                    "prior": prior if count else None,
                }
        return self._collect(results, tasks, count, eligible, chosen, started)

    def _fit(self, candidate: Candidate, normalise, rows: np.ndarray) -> VoiceModel:
        known = self.table.iloc[rows]
        labels, speakers = known["emotion"].to_numpy(), known["speaker"].to_numpy()
        heard = None if self.reference is None else self.reference[rows]
        values = self.features.values[rows]
        return VoiceModel.fit(candidate, normalise, values, labels, speakers, heard=heard)

    def _fit_best(self, rows: np.ndarray, normalise: VoiceNormalisation | None):
        """Fit the candidate that is best on training speakers left out; give inner models too."""
        speakers = self.table["speaker"].to_numpy()[rows]
        num_inner = min(self.num_inner, len(np.unique(speakers)))
        if num_inner < 2:
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
        speakers, values = self.table["speaker"].to_numpy(), self.features.values
        probabilities = np.zeros((len(rows), len(emotions)))
        for speaker in np.unique(speakers[rows]):
            own = speakers[rows] == speaker
            known = values[heard & (speakers == speaker)]
            probabilities[own] = model.predict(values[rows[own]], known, emotions, prior=prior)
        return probabilities

    def _score(self, model, rows, count, *, draw: int, prior: float) -> float:
        """Give the UAR on rows of inner speakers; of all heard where one has too few."""
        part = self.table.iloc[rows].reset_index(drop=True)
        eligible = np.ones(len(rows), bool) if self.reference is None else self.reference[rows]
        fewest = part[eligible].groupby("speaker").size().min()
        count = count if count == ALL or count < fewest else ALL
        own = draw_utterances(part, count, draw=draw, eligible=eligible)
        heard = np.zeros(len(self.table), bool)
        heard[rows[own]] = True
        scored = rows if count == ALL else rows[~own]
        emotions = list(model.classifier.classes_)
        chances = self._predict(model, scored, heard, prior=prior, emotions=emotions)
        said = np.array(emotions)[chances.argmax(axis=1)]
        true = self.table["emotion"].to_numpy()[scored]
        return recall_score(true, said, labels=np.unique(true), average="macro", zero_division=0)

    def _collect(self, results, tasks, count, eligible, chosen, started: float) -> Run:
        """Make a run of the predictions by draw and fold."""
        settings = {"heard": count, "normalise": asdict(self.normalise) if count else None}
        settings |= {"chosen among": [repr(candidate) for candidate in self.candidates]}
        settings |= {"priors": PRIORS, "num_inner": self.num_inner}
        for name, mask in (("reference", self.reference), ("eligible", eligible)):
            settings[name] = None if mask is None else digest(np.flatnonzero(mask).tolist())
        description = {
            **describe_data(self.table, self.features, protocol=self.protocol),
            **{"training": settings, "start": None},
            "model": "classifier of features normalised by the voice" if count else "classifier",
        }
        key = digest(description)
        seconds = (time.perf_counter() - started) / len(results)
        versions = {name: read_version(name) for name in ("scikit-learn", "librosa", "numpy")}
        facts = {"backend": "scikit-learn", "device": f"CPU, {cpu_count()} cores"}
        facts |= {"versions": versions, "seconds": seconds}
        nothing = pd.DataFrame()
        return collect_run(
            {
                task: FoldResult(r, nothing, nothing, facts, "trained")
                for task, r in results.items()
            },
            {**description, "key": key, "folds": name_folds(tasks), "num_parameters": None},
            features=self.features,
            training=settings | {"chosen": chosen},
        )
