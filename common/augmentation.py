"""Augmentations of waveforms, and of batches of spectrograms. All belong to training rows alone."""

from dataclasses import asdict, dataclass
from typing import Protocol

import numpy as np

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
