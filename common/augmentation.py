"""Augmentations of waveforms, and of batches of spectrograms. All belong to training rows alone."""

from dataclasses import asdict, dataclass
from typing import Protocol

import numpy as np
from python_stretch.Signalsmith import Stretch

from common.audio import SAMPLE_RATE_HERTZ, resample_waveform


class Augmentation(Protocol):
    """A frozen dataclass that turns a waveform (samples,) into another, drawing from `rng`."""

    def __call__(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray: ...

    def describe(self) -> dict: ...


@dataclass(frozen=True)
class ChangeSpeed:
    """Play the waveform `factor` times as fast; tempo and pitch change together.

    Speed perturbation: Ko et al., "Audio augmentation for speech recognition",
    Interspeech 2015.
    """

    factor: float

    def __post_init__(self) -> None:
        if not 0.5 <= self.factor <= 2:
            raise ValueError(f"factor={self.factor} is not speech any more; use 0.5 to 2")

    def __call__(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return resample_waveform(
            waveform, SAMPLE_RATE_HERTZ, round(SAMPLE_RATE_HERTZ / self.factor)
        )

    def describe(self) -> dict:
        return {"name": "ChangeSpeed", **asdict(self)}


@dataclass(frozen=True)
class ChangeTempo:
    """Play the waveform faster or slower at the same pitch, by a rate drawn from a range.

    Signalsmith Stretch, a phase vocoder that keeps spectral peaks together.
    """

    min_rate: float = 0.8
    max_rate: float = 1.2

    def __post_init__(self) -> None:
        _check_range(self, "min_rate", "max_rate", lowest=0.5, highest=2)

    def __call__(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        stretch = _prepare_stretch()
        stretch.timeFactor = rng.uniform(self.min_rate, self.max_rate)
        return stretch.process(waveform[None].astype(np.float32))[0]

    def describe(self) -> dict:
        return {"name": "ChangeTempo", **asdict(self)}


@dataclass(frozen=True)
class ShiftPitch:
    """Raise or lower the pitch at the same tempo, by semitones drawn from a range.

    Formants move with the pitch, as in a smaller or larger speaker. Signalsmith Stretch.
    """

    min_semitones: float = -2.0
    max_semitones: float = 2.0

    def __post_init__(self) -> None:
        _check_range(self, "min_semitones", "max_semitones", lowest=-12, highest=12)

    def __call__(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        stretch = _prepare_stretch()
        stretch.setTransposeSemitones(rng.uniform(self.min_semitones, self.max_semitones))
        return stretch.process(waveform[None].astype(np.float32))[0]

    def describe(self) -> dict:
        return {"name": "ShiftPitch", **asdict(self)}


@dataclass(frozen=True)
class AddNoise:
    """Add white Gaussian noise at a signal-to-noise ratio drawn from a range of decibels.

    The ratio is of mean powers over the whole waveform. Silence stays silence.
    """

    min_snr_db: float = 20.0
    max_snr_db: float = 40.0

    def __post_init__(self) -> None:
        _check_range(self, "min_snr_db", "max_snr_db", lowest=-20, highest=100)

    def __call__(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        snr_db = rng.uniform(self.min_snr_db, self.max_snr_db)
        scale = np.sqrt(np.mean(np.square(waveform, dtype=np.float64)) / 10 ** (snr_db / 10))
        noise = rng.standard_normal(len(waveform), dtype=np.float32)
        return waveform.astype(np.float32) + np.float32(scale) * noise

    def describe(self) -> dict:
        return {"name": "AddNoise", **asdict(self)}


@dataclass(frozen=True)
class Chain:
    """Several augmentations, one after the other."""

    steps: tuple[Augmentation, ...]

    def __call__(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        for step in self.steps:
            waveform = step(waveform, rng)
        return waveform

    def describe(self) -> dict:
        return {"name": "Chain", "steps": [step.describe() for step in self.steps]}


def _prepare_stretch() -> Stretch:
    stretch = Stretch()
    stretch.preset(1, SAMPLE_RATE_HERTZ)
    return stretch


def _check_range(augmentation, low: str, high: str, *, lowest: float, highest: float) -> None:
    values = getattr(augmentation, low), getattr(augmentation, high)
    if not lowest <= values[0] <= values[1] <= highest:
        raise ValueError(
            f"{low}={values[0]}, {high}={values[1]}: give two numbers in rising order "
            f"between {lowest} and {highest}"
        )


FOUR_COPIES = (Chain((ChangeTempo(), ShiftPitch(), AddNoise())),) * 4
"""Four copies of each utterance, each with another tempo, pitch and low noise."""


def mask_spectrograms(
    batch: np.ndarray,
    rng: np.random.Generator,
    *,
    num_time_masks: int,
    num_frequency_masks: int,
    max_time_width: int,
    max_frequency_width: int,
) -> np.ndarray:
    """Set random stretches of time and of frequency to zero, the mean of normalised features.

    SpecAugment without time warping: Park et al., Interspeech 2019.

    Parameters
    ----------
    batch
        Shape (examples, frames, bands), normalised.
    max_time_width, max_frequency_width
        Widest mask, in frames and in bands; each width is uniform from 0.

    Returns
    -------
    np.ndarray
        A masked copy.
    """
    keep = np.ones_like(batch)
    num_examples, num_frames, num_bands = batch.shape
    for num_masks, length, max_width, axis in (
        (num_time_masks, num_frames, max_time_width, 1),
        (num_frequency_masks, num_bands, max_frequency_width, 2),
    ):
        positions = np.arange(length)
        for _ in range(num_masks):
            width = rng.integers(0, min(max_width, length) + 1, size=(num_examples, 1))
            start = (rng.random((num_examples, 1)) * (length - width + 1)).astype(int)
            outside = (positions < start) | (positions >= start + width)
            keep *= np.expand_dims(outside, axis=3 - axis)
    return batch * keep


def shift_frames(batch: np.ndarray, rng: np.random.Generator, *, max_shift: int) -> np.ndarray:
    """Move each example in time by up to `max_shift` frames, repeating the edge frame.

    Parameters
    ----------
    batch
        Shape (examples, frames, bands).
    """
    num_examples, num_frames, _ = batch.shape
    shifts = rng.integers(-max_shift, max_shift + 1, size=(num_examples, 1))
    source = np.clip(np.arange(num_frames) - shifts, 0, num_frames - 1)
    return np.take_along_axis(batch, source[:, :, None], axis=1)


def mix_examples(
    batch: np.ndarray, targets: np.ndarray, rng: np.random.Generator, *, alpha: float
) -> tuple[np.ndarray, np.ndarray]:
    """Blend each example and its target with another of the batch (mixup).

    Zhang et al., "mixup: Beyond empirical risk minimization", ICLR 2018.

    Parameters
    ----------
    batch
        Shape (examples, frames, bands).
    targets
        Shape (examples, classes).
    alpha
        Of the Beta distribution that the weight of each example is drawn from.
    """
    partner = rng.permutation(len(batch))
    weight = rng.beta(alpha, alpha, size=len(batch)).astype(np.float32)
    weight = np.maximum(weight, 1 - weight)
    over = weight[:, None, None]
    mixed = over * batch + (1 - over) * batch[partner]
    return mixed, weight[:, None] * targets + (1 - weight[:, None]) * targets[partner]
