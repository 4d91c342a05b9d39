"""Augmentations of waveforms, which belong to training rows alone."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import pyroomacoustics
from python_stretch.Signalsmith import Stretch
from scipy.signal import fftconvolve

from common.audio import SAMPLE_RATE_HERTZ, resample_waveform
from common.files import describe_settings

SMALLEST_ROOM_METRES = (4.0, 3.5, 2.5)
LARGEST_ROOM_METRES = (8.0, 6.0, 3.5)
WALL_DISTANCE_METRES = 0.5

pyroomacoustics.constants.set("num_threads", 1)  # the same sum on any number of cores


class Augmentation(Protocol):
    """A frozen dataclass that turns a waveform (samples,) into another, drawing from `rng`."""

    def __call__(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray: ...

    def describe(self) -> dict:
        """Name all that decides the result; the name of a cached feature follows from it."""
        return {"name": type(self).__name__, **describe_settings(self)}


@dataclass(frozen=True)
class _FromRange(Augmentation):
    """One that draws a number between its two fields, which lie within `limits`."""

    limits: ClassVar[tuple[float, float]]

    def __post_init__(self) -> None:
        (low, least), (high, most) = vars(self).items()
        lowest, highest = self.limits
        if not lowest <= least <= most <= highest:
            raise ValueError(
                f"{low}={least}, {high}={most}: give two numbers in rising order "
                f"between {lowest} and {highest}"
            )

    def draw(self, rng: np.random.Generator) -> float:
        return rng.uniform(*vars(self).values())


@dataclass(frozen=True)
class ChangeSpeed(Augmentation):
    """Play the waveform `factor` times as fast; tempo and pitch change together.

    Speed perturbation: Ko et al., "Audio augmentation for speech recognition", Interspeech 2015.
    """

    factor: float

    def __post_init__(self) -> None:
        if not 0.5 <= self.factor <= 2:
            raise ValueError(f"factor={self.factor} is not speech any more; use 0.5 to 2")

    def __call__(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        rate = round(SAMPLE_RATE_HERTZ / self.factor)
        return resample_waveform(waveform, SAMPLE_RATE_HERTZ, rate)


@dataclass(frozen=True)
class ChangeTempo(_FromRange):
    """Play the waveform faster or slower at the same pitch, by a rate drawn from a range.

    Signalsmith Stretch, a phase vocoder that keeps spectral peaks together.
    """

    min_rate: float = 0.8
    max_rate: float = 1.2
    limits: ClassVar = (0.5, 2)

    def __call__(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        stretch = _prepare_stretch()
        stretch.timeFactor = self.draw(rng)
        return stretch.process(waveform[None].astype(np.float32))[0]


@dataclass(frozen=True)
class ShiftPitch(_FromRange):
    """Raise or lower the pitch at the same tempo, by semitones drawn from a range.

    Formants move with the pitch, as in a smaller or larger speaker. Signalsmith Stretch.
    """

    min_semitones: float = -2.0
    max_semitones: float = 2.0
    limits: ClassVar = (-12, 12)

    def __call__(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        stretch = _prepare_stretch()
        stretch.setTransposeSemitones(self.draw(rng))
        return stretch.process(waveform[None].astype(np.float32))[0]


@dataclass(frozen=True)
class AddNoise(_FromRange):
    """Add white Gaussian noise at a signal-to-noise ratio drawn from a range of decibels.

    The ratio is of mean powers over the whole waveform. Silence stays silence.
    """

    min_snr_db: float = 20.0
    max_snr_db: float = 40.0
    limits: ClassVar = (-20, 100)

    def __call__(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        snr_db = self.draw(rng)
        scale = np.sqrt(np.mean(np.square(waveform, dtype=np.float64)) / 10 ** (snr_db / 10))
        noise = rng.standard_normal(len(waveform), dtype=np.float32)
        return waveform.astype(np.float32) + np.float32(scale) * noise


@dataclass(frozen=True)
class AddReverberation(_FromRange):
    """Play the waveform in a simulated room, by a reverberation time drawn from a range.

    The room is a box between `SMALLEST_ROOM_METRES` and `LARGEST_ROOM_METRES`; voice and
    microphone stand anywhere in it, `WALL_DISTANCE_METRES` from the walls or more. Its walls absorb
    what Sabine's formula asks for that time, in which sound decays by 60 dB; what comes out is
    within a third of it in nine rooms of ten. The direct sound stays at its place to half a sample;
    length and mean power stay as well, so what rings on after the end is cut. The cost grows with
    the cube of the time.

    Image-source model: Allen and Berkley, "Image method for efficiently simulating small-room
    acoustics", JASA 1979, as in pyroomacoustics: Scheibler et al., ICASSP 2018.
    """

    min_rt60_seconds: float = 0.2
    max_rt60_seconds: float = 0.5
    limits: ClassVar = (0.15, 1)

    def __call__(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        response, delay = _simulate_room(self.draw(rng), rng)
        dry = waveform.astype(np.float64)
        wet = fftconvolve(dry, response)[delay : delay + len(dry)]
        power = max(np.mean(wet**2), np.finfo(np.float64).tiny)
        return (wet * np.sqrt(np.mean(dry**2) / power)).astype(np.float32)


@dataclass(frozen=True)
class ShiftTime(_FromRange):
    """Move the waveform later (positive) or earlier, by seconds drawn from a range.

    What leaves at one end comes in at the other, as by default in audiomentations; the seam falls
    into the silence around the words. Features that trim silence undo most of it; `shift_frames`
    moves them after trimming.
    """

    min_shift_seconds: float = -0.2
    max_shift_seconds: float = 0.2
    limits: ClassVar = (-5, 5)

    def __call__(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return np.roll(waveform.astype(np.float32), round(self.draw(rng) * SAMPLE_RATE_HERTZ))


@dataclass(frozen=True)
class ChangeGain(_FromRange):
    """Make the waveform louder or softer, by decibels drawn from a range.

    Nothing is clipped: samples may lie beyond full scale, which features do not mind.
    """

    min_gain_db: float = -6.0
    max_gain_db: float = 6.0
    limits: ClassVar = (-40, 40)

    def __call__(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return waveform.astype(np.float32) * np.float32(10 ** (self.draw(rng) / 20))


@dataclass(frozen=True)
class Chain(Augmentation):
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


def _simulate_room(rt60_seconds: float, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """Draw a room; give its impulse response (samples,) and the sample of the direct sound."""
    size = rng.uniform(SMALLEST_ROOM_METRES, LARGEST_ROOM_METRES)
    absorption, max_order = pyroomacoustics.inverse_sabine(rt60_seconds, size)
    walls = pyroomacoustics.Material(absorption)
    room = pyroomacoustics.ShoeBox(size, fs=SAMPLE_RATE_HERTZ, materials=walls, max_order=max_order)
    voice, microphone = rng.uniform(WALL_DISTANCE_METRES, size - WALL_DISTANCE_METRES, (2, 3))
    room.add_source(voice).add_microphone(microphone).compute_rir()
    delay = np.linalg.norm(voice - microphone) / room.c * SAMPLE_RATE_HERTZ
    delay += pyroomacoustics.constants.get("frac_delay_length") // 2
    return room.rir[0][0], round(delay)
