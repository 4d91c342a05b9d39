"""Voices as mean and variance of features, and classifiers of features without the voice."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.base import ClassifierMixin, clone

SMALLEST_VARIANCE = 1e-12


@dataclass(frozen=True)
class Voice:
    """Mean and variance of features over the utterances of a speaker, both of shape (values,)."""

    mean: np.ndarray
    variance: np.ndarray

    @classmethod
    def average(cls, values: np.ndarray, speakers: np.ndarray) -> "Voice":
        """Average the voices of speakers, one vote each; `values` are (utterances, values)."""
        own = [values[speakers == speaker] for speaker in np.unique(speakers)]
        mean, variance = (np.mean([f(rows, axis=0) for rows in own], 0) for f in (np.mean, np.var))
        return cls(mean, np.maximum(variance, SMALLEST_VARIANCE))

    def hear(self, heard: np.ndarray, *, prior: float) -> "Voice":
        """Estimate a voice from utterances (k, values), shrunk towards this one, the average.

        The average counts as much as `prior` utterances, as in maximum a posteriori adaptation
        (Gauvain and Lee, 1994): mean (k m + prior M) / (k + prior), and the variance of the
        utterances around it shrunk alike. Raises ValueError if both numbers are 0.
        """
        total = len(heard) + prior
        if not total > 0:
            raise ValueError("no utterance is heard and prior is 0; give one of them")
        mean = (heard.sum(axis=0) + prior * self.mean) / total
        variance = (((heard - mean) ** 2).sum(axis=0) + prior * self.variance) / total
        return Voice(mean, np.maximum(variance, SMALLEST_VARIANCE))


@dataclass(frozen=True)
class VoiceNormalisation:
    """What of a voice is taken out of features: its mean, and unless told otherwise its deviation.

    With a `direction`, of (values,), that part of the mean alone which lies along it, such as what
    a gain does to features in decibels: the level.
    """

    deviation: bool = True
    direction: tuple[float, ...] | None = None

    def __call__(self, values: np.ndarray, voice: Voice, average: Voice) -> np.ndarray:
        """Give features (utterances, values) as if the average voice had spoken, float32."""
        offset = voice.mean - average.mean
        if self.direction is not None:
            direction = np.asarray(self.direction)
            offset = direction * (offset @ direction) / (direction @ direction)
        if self.direction is not None or not self.deviation:
            return (values - offset).astype(np.float32)
        scale = np.sqrt(average.variance / voice.variance)
        return ((values - voice.mean) * scale + average.mean).astype(np.float32)


@dataclass(frozen=True)
class Candidate:
    """A classifier with `predict_proba`, and the embeddings (layers) that it reads; None: all."""

    classifier: ClassifierMixin
    embeddings: tuple[int, ...] | None = None

    def read(self, values: np.ndarray) -> np.ndarray:
        """Flatten features (utterances, embeddings, dimensions) to (utterances, values)."""
        chosen = values if self.embeddings is None else values[:, list(self.embeddings)]
        return chosen.reshape(len(values), -1)


@dataclass(frozen=True)
class VoiceModel:
    """A classifier of features normalised by voices, and the average voice that it was trained on.

    Without `normalise` it is the plain one, which takes features as they are.
    """

    candidate: Candidate
    normalise: VoiceNormalisation | None
    average: Voice
    classifier: ClassifierMixin

    @classmethod
    def fit(
        cls,
        candidate: Candidate,
        normalise: VoiceNormalisation | None,
        values: np.ndarray,
        labels: np.ndarray,
        speakers: np.ndarray,
        *,
        heard: np.ndarray | None = None,
    ) -> "VoiceModel":
        """Fit to features (utterances, embeddings, dimensions), each speaker's normalised.

        `heard` (utterances,) marks those that voices are measured on; None: all. Raises ValueError
        if a speaker has none.
        """
        heard = np.ones(len(values), bool) if heard is None else heard
        average = Voice.average(candidate.read(values[heard]), speakers[heard])
        blank = cls(candidate, normalise, average, clone(candidate.classifier))
        blank.classifier.fit(blank.prepare(values, speakers, heard), labels)
        return blank

    def prepare(self, values: np.ndarray, speakers: np.ndarray, heard: np.ndarray) -> np.ndarray:
        """Give what the classifier takes, each speaker normalised by all rows that are heard."""
        prepared = self.candidate.read(values).copy()
        for speaker in np.unique(speakers):
            own = speakers == speaker
            if not (own & heard).any():
                raise ValueError(
                    f"speaker {speaker!r} has no utterance that a voice is measured on"
                )
            prepared[own] = self.apply(values[own], values[own & heard], prior=0)
        return prepared

    def apply(self, values: np.ndarray, heard: np.ndarray, *, prior: float) -> np.ndarray:
        """Give what the classifier takes of one speaker, of whom utterances were `heard` before."""
        read = self.candidate.read(values)
        if self.normalise is None or not len(heard):
            return read
        voice = self.average.hear(self.candidate.read(heard), prior=prior)
        return self.normalise(read, voice, self.average)

    def predict(
        self, values: np.ndarray, heard: np.ndarray, emotions: Sequence[str], *, prior: float
    ) -> np.ndarray:
        """Give the probabilities (utterances, emotions) of one speaker's features."""
        columns = [[*self.classifier.classes_].index(emotion) for emotion in emotions]
        return self.classifier.predict_proba(self.apply(values, heard, prior=prior))[:, columns]
