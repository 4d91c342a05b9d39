"""Augmentations of waveforms, which belong to training rows alone."""

from dataclasses import dataclass
from typing import Protocol

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
class ChangeSpeed(Augmentation):
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


@dataclass(frozen=True)
class ChangeTempo(Augmentation):
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


@dataclass(frozen=True)
class ShiftPitch(Augmentation):
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


@dataclass(frozen=True)
class AddNoise(Augmentation):
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


@dataclass(frozen=True)
class AddReverberation(Augmentation):
    """Play the waveform in a simulated room, by a reverberation time drawn from a range.

    The room is a box between `SMALLEST_ROOM_METRES` and `LARGEST_ROOM_METRES`; voice and
    microphone stand anywhere in it, `WALL_DISTANCE_METRES` from the walls or more. Its walls
    absorb what Sabine's formula asks for the reverberation time, in which sound decays by
    60 dB; what comes out is within a third of that in nine rooms of ten. The direct sound stays
    at its place to half a sample; length and mean power stay as well, so what rings on after
    the end is cut. The cost grows with the cube of the reverberation time.

    Image-source model: Allen and Berkley, "Image method for efficiently simulating small-room
    acoustics", JASA 1979, as in pyroomacoustics: Scheibler et al., ICASSP 2018.
    """

    min_rt60_seconds: float = 0.2
    max_rt60_seconds: float = 0.5

    def __post_init__(self) -> None:
        _check_range(self, "min_rt60_seconds", "max_rt60_seconds", lowest=0.15, highest=1)

    def __call__(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        rt60_seconds = rng.uniform(self.min_rt60_seconds, self.max_rt60_seconds)
        response, delay = _simulate_room(rt60_seconds, rng)
        dry = waveform.astype(np.float64)
        wet = fftconvolve(dry, response)[delay : delay + len(dry)]
        power = max(np.mean(wet**2), np.finfo(np.float64).tiny)
        return (wet * np.sqrt(np.mean(dry**2) / power)).astype(np.float32)


@dataclass(frozen=True)
class ShiftTime(Augmentation):
    """Move the waveform later (positive) or earlier, by seconds drawn from a range.

    What leaves at one end comes in at the other, as by default in audiomentations: no sample
    is lost, and the seam falls into the silence around the words. Features that trim silence
    undo most of it; `shift_frames` moves them after trimming.
    """

    min_shift_seconds: float = -0.2
    max_shift_seconds: float = 0.2

    def __post_init__(self) -> None:
        _check_range(self, "min_shift_seconds", "max_shift_seconds", lowest=-5, highest=5)

    def __call__(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        shift_seconds = rng.uniform(self.min_shift_seconds, self.max_shift_seconds)
        return np.roll(waveform.astype(np.float32), round(shift_seconds * SAMPLE_RATE_HERTZ))


@dataclass(frozen=True)
class ChangeGain(Augmentation):
    """Make the waveform louder or softer, by decibels drawn from a range.

    The amplitude is multiplied by 10^(decibels / 20). Nothing is clipped: samples may lie
    beyond full scale, which features do not mind.
    """

    min_gain_db: float = -6.0
    max_gain_db: float = 6.0

    def __post_init__(self) -> None:
        _check_range(self, "min_gain_db", "max_gain_db", lowest=-40, highest=40)

    def __call__(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        gain_db = rng.uniform(self.min_gain_db, self.max_gain_db)
        return waveform.astype(np.float32) * np.float32(10 ** (gain_db / 20))


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


def _check_range(augmentation, low: str, high: str, *, lowest: float, highest: float) -> None:
    values = getattr(augmentation, low), getattr(augmentation, high)
    if not lowest <= values[0] <= values[1] <= highest:
        raise ValueError(
            f"{low}={values[0]}, {high}={values[1]}: give two numbers in rising order "
            f"between {lowest} and {highest}"
        )
