"""The second head of a recogniser, for voices that it has heard before."""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import softmax

from common.activity import judge_activity
from common.audio import list_notes, load_waveform
from common.voices import Voice, VoiceModel, VoiceNormalisation

PRIOR = 2.0  # utterances that the average voice counts as; notebook 42 chooses it in 3 of 5 folds
# where 4 utterances are heard, and in one of 5 where 16 are


@dataclass(frozen=True)
class KnownVoice:
    """A voice, and the head of features from which it is taken out, as `write_voices` gives it.

    `notes` say what of its recordings was left out, or lacks something.
    """

    voice: Voice
    head: dict[str, np.ndarray]
    notes: tuple[str, ...]

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Give calibrated probabilities (utterances, emotions) of features (utterances, …)."""
        values = features.reshape(len(features), -1)
        head = self.head
        average = Voice(head["mean"], head["variance"])
        values = VoiceNormalisation()(values, self.voice, average)
        return softmax((values @ head["kernel"] + head["bias"]) / head["temperature"], axis=1)


def write_voices(model: VoiceModel, emotions: tuple[str, ...], temperature: float) -> dict:
    """Give the arrays that a recogniser's file holds, of a fitted scaler and regression.

    `mean` and `variance` are of the average voice, (values,), `kernel` is (values, emotions) and
    `bias` (emotions,); `temperature` is that of this head.
    """
    kernel, bias = fold_scaler(model.classifier, emotions)
    arrays = {"mean": model.average.mean, "variance": model.average.variance}
    arrays |= {"kernel": kernel, "bias": bias, "temperature": np.array(temperature)}
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def fold_scaler(pipeline, emotions: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Make one linear map of a StandardScaler and a LogisticRegression: kernel and bias."""
    scaler, regression = pipeline[0], pipeline[-1]
    weights, bias = regression.coef_, regression.intercept_
    if len(weights) == 1:  # of two emotions: how far the second is above the first
        weights, bias = np.outer((-0.5, 0.5), weights), np.outer((-0.5, 0.5), bias).ravel()
    order = [[*regression.classes_].index(emotion) for emotion in emotions]
    kernel = (weights[order] / scaler.scale_).T
    return kernel, bias[order] - scaler.mean_ @ kernel


def hear_voice(recognizer, recordings: Iterable, *, fewest: int) -> KnownVoice:
    """Measure a voice on recordings without labels; those without speech are left out.

    A folder stands for all recordings in it; one that is there twice is heard once. Warnings name
    what is left out, and what lacks something. Raises ValueError if fewer than `fewest` remain.
    """
    heard, unlisted, notes = {}, [], []
    named = _name_recordings(recordings, unlisted)
    left_out = [f"{entry['path']}: {entry['problem']}" for entry in unlisted]
    for name, recording in named:
        try:
            waveform = load_waveform(recording, facts=(facts := {}))
        except ValueError as error:
            left_out.append(f"{name}: {str(error).removeprefix(f'{name}: ')}")
            continue
        sound, reason = waveform.tobytes(), judge_activity(waveform).reason
        if not reason and sound in heard:
            reason = f"the same as {heard[sound][0]}"
        if reason:
            left_out.append(f"{name}: {reason}")
        else:
            heard[sound] = name, waveform
            notes += [f"{name}: {note}" for note in list_notes(facts)]
    told = "; ".join(left_out[:3]) + f"; and {len(left_out) - 3} more" * (len(left_out) > 3)
    if len(heard) < fewest:
        raise ValueError(
            f"{len(heard)} recordings with speech, and a voice is known from {fewest} or more: "
            f"give more, of several emotions. {told}".strip()
        )
    if left_out:
        notes.insert(0, f"left out of the voice: {told}")
    for note in notes:
        warnings.warn(note, stacklevel=3)
    head = recognizer.voices
    features = np.stack([recognizer.recipe(waveform).ravel() for _, waveform in heard.values()])
    voice = Voice(head["mean"], head["variance"]).hear(features, prior=PRIOR)
    return KnownVoice(voice, head, tuple(notes))


def _name_recordings(recordings, unlisted: list[dict]) -> list[tuple[str, object]]:
    """Give each recording with its path, or its number; `unlisted` gets what a folder hides."""
    if isinstance(recordings, str | Path) and not Path(recordings).is_file():
        from common.timeline import find_recordings

        recordings = find_recordings(Path(recordings), left_out=unlisted)
    alone = isinstance(recordings, str | Path | bytes | np.ndarray)
    if alone or (isinstance(recordings, tuple) and recordings and np.isscalar(recordings[0])):
        raise ValueError("one recording: give a folder, or a list of four recordings or more")
    named = enumerate(recordings, start=1)
    return [(str(r) if isinstance(r, str | Path) else f"recording {n}", r) for n, r in named]
