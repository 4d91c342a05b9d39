"""The steps from a waveform to what a model reads: spectrograms, cepstra, functionals."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import librosa
import numpy as np
import scipy.fft

from common.audio import SAMPLE_RATE_HERTZ, fix_length, trim_silence
from common.recipes import Recipe, Step, extract_features

if TYPE_CHECKING:
    import pandas as pd

FUNCTIONALS = (
    *("mean", "standard deviation", "minimum", "maximum", "range"),
    *("median", "lower quartile", "upper quartile", "interquartile range"),
    *("skewness", "kurtosis", "slope", "mean absolute difference"),
)


@dataclass(frozen=True)
class Trim(Step):
    """Cut off both ends what is quieter than `top_db` decibels below the loudest frame."""

    top_db: float = 30.0

    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        return trim_silence(waveform, top_db=self.top_db)


@dataclass(frozen=True)
class FitLength(Step):
    """Keep the middle `seconds` of a longer waveform; pad a shorter one equally on both sides."""

    seconds: float = 2.5

    @property
    def seconds_kept(self) -> float:
        return self.seconds

    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        return fix_length(waveform, round(self.seconds * SAMPLE_RATE_HERTZ))


@dataclass(frozen=True)
class Measure(Step):
    """Give how many seconds a waveform lasts: (samples,) -> (1, 1)."""

    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        return np.array([[len(waveform) / SAMPLE_RATE_HERTZ]], np.float32)


@dataclass(frozen=True)
class LogMel(Step):
    """Decibels of the power in mel bands: (samples,) -> (frames, num_bands), float32.

    librosa's centred frames, Hann window, power spectrum and Slaney's mel triangles. Values more
    than `range_db` below the loudest one of the utterance are raised to that floor.
    """

    window_seconds: float = 0.064
    hop_seconds: float = 0.016
    num_bands: int = 64
    fmin_hertz: float = 50.0
    fmax_hertz: float = 8000.0
    range_db: float = 80.0

    def __post_init__(self) -> None:
        if self.fmax_hertz > SAMPLE_RATE_HERTZ / 2:
            raise ValueError(
                f"fmax_hertz={self.fmax_hertz} is above half the sample rate; "
                f"use at most {SAMPLE_RATE_HERTZ // 2}"
            )

    @property
    def window_length(self) -> int:
        return round(self.window_seconds * SAMPLE_RATE_HERTZ)

    @property
    def hop_length(self) -> int:
        return round(self.hop_seconds * SAMPLE_RATE_HERTZ)

    @property
    def fft_length(self) -> int:
        """The window length, up to the next power of two."""
        return 1 << (self.window_length - 1).bit_length()

    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        return self.compute_bands(self.compute_power(waveform), build_mel_filters)

    def compute_power(self, waveform: np.ndarray) -> np.ndarray:
        """Power spectrum of each frame, shape (bins, frames)."""
        lengths = {"win_length": self.window_length, "hop_length": self.hop_length}
        spectrum = librosa.stft(waveform, n_fft=self.fft_length, pad_mode="constant", **lengths)
        return spectrum.real**2 + spectrum.imag**2

    def compute_bands(self, power: np.ndarray, build_filters: Callable) -> np.ndarray:
        """Power (bins, frames) -> decibels (frames, num_bands)."""
        bounds = (self.fft_length, self.num_bands, self.fmin_hertz, self.fmax_hertz)
        levels = librosa.power_to_db(build_filters(*bounds) @ power, top_db=self.range_db)
        return np.ascontiguousarray(levels.T, dtype=np.float32)


@dataclass(frozen=True)
class Cepstra(LogMel):
    """First coefficients of the cosine transform of band levels: -> (frames, num_coefficients).

    The orthonormal DCT-II of those decibels. With `filters="mel"` they are MFCC (Davis and
    Mermelstein 1980); with "gaussian" the filters are bell-shaped (Chakroborty and Saha,
    "Improved text-independent speaker identification using fused MFCC and IMFCC feature sets
    based on Gaussian filter", 2009).
    """

    num_coefficients: int = 40
    filters: str = "mel"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.filters not in FILTERS:
            raise ValueError(f"filters={self.filters!r} is unknown; choose from {[*FILTERS]}")
        if self.num_coefficients > self.num_bands:
            raise ValueError(
                f"num_coefficients={self.num_coefficients} is above num_bands={self.num_bands}; "
                "use as many bands or more"
            )

    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        return self.compute_cepstra(self.compute_power(waveform), self.filters)

    def compute_cepstra(self, power: np.ndarray, filters: str) -> np.ndarray:
        """Power (bins, frames) -> coefficients (frames, num_coefficients)."""
        levels = self.compute_bands(power, FILTERS[filters])
        return scipy.fft.dct(levels, norm="ortho", axis=1)[:, : self.num_coefficients]


@dataclass(frozen=True)
class Functionals(Cepstra):
    """`FUNCTIONALS` over time of log-mel, MFCC and Gaussian cepstra: (samples,) -> (1, values).

    All of log-mel come first, then MFCC, then Gaussian, each functional by functional.
    """

    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        power = self.compute_power(fix_length(waveform, max(len(waveform), self.fft_length)))
        views = [self.compute_bands(power, build_mel_filters)]
        views += [self.compute_cepstra(power, filters) for filters in FILTERS]
        return np.concatenate([compute_functionals(view).ravel() for view in views])[None]


@lru_cache(maxsize=16)
def build_mel_filters(
    fft_length: int, num_bands: int, fmin_hertz: float, fmax_hertz: float
) -> np.ndarray:
    """Slaney's mel triangles, shape (num_bands, bins)."""
    bounds = {"fmin": fmin_hertz, "fmax": fmax_hertz}
    return librosa.filters.mel(sr=SAMPLE_RATE_HERTZ, n_fft=fft_length, n_mels=num_bands, **bounds)


@lru_cache(maxsize=16)
def build_gaussian_filters(
    fft_length: int, num_bands: int, fmin_hertz: float, fmax_hertz: float
) -> np.ndarray:
    """Bells at the centres of the mel triangles, shape (num_bands, bins).

    Their peak is 1, their standard deviation half the distance to the next centre.
    """
    centres = librosa.mel_frequencies(num_bands + 2, fmin=fmin_hertz, fmax=fmax_hertz)[1:, None]
    widths = np.diff(centres, axis=0) / 2
    bins = librosa.fft_frequencies(sr=SAMPLE_RATE_HERTZ, n_fft=fft_length)
    return np.exp(-0.5 * ((bins - centres[:-1]) / widths) ** 2).astype(np.float32)


FILTERS = {"mel": build_mel_filters, "gaussian": build_gaussian_filters}


def compute_functionals(frames: np.ndarray) -> np.ndarray:
    """Sum up frames (frames, bands) by `FUNCTIONALS` over time: (13, bands), float32.

    The slope is that of a straight line fitted to the frames, per frame; a band that does not
    change has skewness and kurtosis 0.
    """
    values = frames.astype(np.float64)
    low, lower, median, upper, high = np.percentile(values, (0, 25, 50, 75, 100), axis=0)
    mean, deviation = values.mean(axis=0), values.std(axis=0)
    standard = (values - mean) / np.where(deviation > 1e-6, deviation, np.inf)
    times = np.arange(len(values)) - (len(values) - 1) / 2
    slope = times @ values / (times @ times or 1)
    change = np.abs(np.diff(values, axis=0)).sum(axis=0) / max(len(values) - 1, 1)
    skewness, kurtosis = (standard**3).mean(axis=0), (standard**4).mean(axis=0)
    kurtosis = np.where(deviation > 1e-6, kurtosis - 3, 0)
    statistics = (mean, deviation, low, high, high - low, median, lower, upper, upper - lower)
    return np.stack([*statistics, skewness, kurtosis, slope, change]).astype(np.float32)


def choose_length(table: "pd.DataFrame") -> FitLength:
    """Choose how much of an utterance is kept, by how long those of a table are once trimmed.

    As many half seconds as leave nine in ten whole, from 2.5 to 6 s: 2.5 s for RAVDESS. It looks at
    durations alone, at no label.
    """
    seconds = np.quantile(measure_seconds(table, (Trim(),)), 0.9, method="inverted_cdf")
    return FitLength(float(np.clip(np.ceil(2 * seconds) / 2, 2.5, 6.0)))


def measure_seconds(table: "pd.DataFrame", steps: tuple[Step, ...]) -> np.ndarray:
    """Give how long each recording of a table is after the first steps of a recipe, (rows,)."""
    return extract_features(table, Recipe((*steps, Measure()))).values.reshape(-1)
