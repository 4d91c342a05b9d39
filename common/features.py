"""From waveforms to arrays: spectrograms, cepstra, functionals, and their normaliser."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from pathlib import Path

import librosa
import numpy as np
import pandas as pd
import scipy.fft
from joblib import Parallel, delayed
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from common import paths
from common.audio import SAMPLE_RATE_HERTZ, fix_length, load_waveform, trim_silence
from common.augmentation import Augmentation
from common.files import digest, write_atomically

KINDS = ("log_mel", "mfcc", "gaussian", "functionals")
FUNCTIONAL_VIEWS = ("log_mel", "mfcc", "gaussian")
FUNCTIONALS = (
    "mean",
    "standard deviation",
    "minimum",
    "maximum",
    "range",
    "median",
    "lower quartile",
    "upper quartile",
    "interquartile range",
    "skewness",
    "kurtosis",
    "slope",
    "mean absolute difference",
)


@dataclass(frozen=True)
class FeatureConfig:
    """Settings that decide the values of a feature array.

    `kind` is "log_mel" (decibels of power in triangular mel bands), "mfcc" (its cosine
    transform), "gaussian" (the cosine transform for Gaussian-shaped bands) or "functionals"
    (`FUNCTIONALS` over time of all three). Waveforms are trimmed `trim_top_db` below their
    loudest frame (None: not trimmed), then cut or padded to `duration_seconds`, which
    functionals need not be. Values more than `range_db` below the loudest one of the
    utterance are raised to that floor.
    """

    kind: str = "log_mel"
    duration_seconds: float = 2.5
    trim_top_db: float | None = 30.0
    window_length_seconds: float = 0.064
    hop_length_seconds: float = 0.016
    num_bands: int = 64
    fmin_hertz: float = 50.0
    fmax_hertz: float = 8000.0
    range_db: float = 80.0
    num_coefficients: int = 40

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind={self.kind!r} is unknown; choose from {KINDS}")
        if self.fmax_hertz > SAMPLE_RATE_HERTZ / 2:
            raise ValueError(
                f"fmax_hertz={self.fmax_hertz} is above half the sample rate; "
                f"use at most {SAMPLE_RATE_HERTZ // 2}"
            )
        if self.kind != "log_mel" and self.num_coefficients > self.num_bands:
            raise ValueError(
                f"num_coefficients={self.num_coefficients} is above num_bands={self.num_bands}; "
                "use as many bands or more"
            )

    @property
    def num_samples(self) -> int:
        return round(self.duration_seconds * SAMPLE_RATE_HERTZ)

    @property
    def window_length(self) -> int:
        return round(self.window_length_seconds * SAMPLE_RATE_HERTZ)

    @property
    def hop_length(self) -> int:
        return round(self.hop_length_seconds * SAMPLE_RATE_HERTZ)

    @property
    def fft_length(self) -> int:
        """The window length, up to the next power of two."""
        return 1 << (self.window_length - 1).bit_length()

    @property
    def shape(self) -> tuple[int, int]:
        """(frames, bands) of one utterance; functionals are one frame."""
        if self.kind == "functionals":
            return 1, len(FUNCTIONALS) * (self.num_bands + 2 * self.num_coefficients)
        width = self.num_bands if self.kind == "log_mel" else self.num_coefficients
        return 1 + self.num_samples // self.hop_length, width


@dataclass(frozen=True)
class Features:
    """Feature arrays of an utterance table, row for row, with the recipe that made them.

    `values` has shape (utterances, frames, bands); `copies` has shape (utterances, copies,
    frames, bands) and holds the augmented versions, which only training may see. Training
    normalises each band, unless `normalise` is False.
    """

    values: np.ndarray
    copies: np.ndarray
    description: dict = field(repr=False)
    normalise: bool = True


@lru_cache(maxsize=16)
def build_filterbank(config: FeatureConfig, kind: str) -> np.ndarray:
    """Build the filters that sum the power spectrum up into bands.

    Returns
    -------
    np.ndarray, shape (bands, bins)
        For "log_mel" and "mfcc" Slaney's mel triangles. For "gaussian" bells at the same
        centres, with a peak of 1 and half the distance to the next centre as standard deviation.
    """
    bounds = {"fmin": config.fmin_hertz, "fmax": config.fmax_hertz}
    spectrum = {"sr": SAMPLE_RATE_HERTZ, "n_fft": config.fft_length}
    if kind != "gaussian":
        return librosa.filters.mel(**spectrum, n_mels=config.num_bands, **bounds)
    centres = librosa.mel_frequencies(config.num_bands + 2, **bounds)[1:, None]
    widths = np.diff(centres, axis=0) / 2
    bins = librosa.fft_frequencies(**spectrum)
    return np.exp(-0.5 * ((bins - centres[:-1]) / widths) ** 2).astype(np.float32)


def compute_features(waveform: np.ndarray, config: FeatureConfig) -> np.ndarray:
    """Turn one waveform into one feature array.

    The steps are librosa's: centred frames, Hann window, power spectrum, Slaney mel filters,
    decibels with a floor `range_db` below the maximum; for MFCC the orthonormal DCT-II of
    those decibels (Davis and Mermelstein 1980). Gaussian filters: Chakroborty and Saha,
    "Improved text-independent speaker identification using fused MFCC and IMFCC feature sets
    based on Gaussian filter", 2009.

    Parameters
    ----------
    waveform
        Shape (samples,), 16 kHz.

    Returns
    -------
    np.ndarray, shape `config.shape`, float32
        Decibels for log-mel, cepstral coefficients for MFCC and Gaussian filters; for
        functionals all of log-mel, then MFCC, then Gaussian, each functional by functional.
    """
    if config.trim_top_db is not None:
        waveform = trim_silence(waveform, top_db=config.trim_top_db)
    if config.kind != "functionals":
        power = _compute_power(fix_length(waveform, config.num_samples), config)
        return _compute_view(power, config.kind, config)
    whole = fix_length(waveform, max(len(waveform), config.fft_length))
    power = _compute_power(whole, config)
    views = [compute_functionals(_compute_view(power, view, config)) for view in FUNCTIONAL_VIEWS]
    return np.concatenate([view.ravel() for view in views])[None]


def _compute_power(waveform: np.ndarray, config: FeatureConfig) -> np.ndarray:
    """Power spectrum of each frame, shape (bins, frames)."""
    spectrum = librosa.stft(
        waveform,
        n_fft=config.fft_length,
        win_length=config.window_length,
        hop_length=config.hop_length,
        pad_mode="constant",
    )
    return spectrum.real**2 + spectrum.imag**2


def _compute_view(power: np.ndarray, kind: str, config: FeatureConfig) -> np.ndarray:
    """Turn power (bins, frames) into log-mel, MFCC or Gaussian filterbank cepstra."""
    values = librosa.power_to_db(build_filterbank(config, kind) @ power, top_db=config.range_db)
    if kind != "log_mel":
        values = scipy.fft.dct(values, type=2, norm="ortho", axis=0)[: config.num_coefficients]
    return np.ascontiguousarray(values.T, dtype=np.float32)


def compute_functionals(frames: np.ndarray) -> np.ndarray:
    """Sum up each band over time by the statistics that `FUNCTIONALS` names.

    Parameters
    ----------
    frames
        Shape (frames, bands).

    Returns
    -------
    np.ndarray, shape (13, bands), float32
        The slope is that of a straight line fitted to the frames, per frame; a band that
        does not change has skewness and kurtosis 0.
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


def extract_features(
    table: pd.DataFrame,
    config: FeatureConfig,
    *,
    augmentations: Sequence[Augmentation] = (),
    jobs: int = -1,
) -> Features:
    """Compute the features of a table, or read them from the cache.

    Parameters
    ----------
    table
        An utterance table.
    augmentations
        Each one gives every utterance one augmented copy. A copy depends on its own
        recording alone, so making it before the split lets nothing through; training
        takes the copies of its own rows and leaves the others.
    jobs
        joblib workers; -1 for one per core.

    Returns
    -------
    Features

    Notes
    -----
    The cache lies in `data/cache`, one file per table and recipe. Where it cannot be
    written (read-only, full disk) a warning says so and the result is returned all the same.
    """
    compute = partial(compute_features, config=config)
    return extract_rows(table, compute, asdict(config), augmentations=augmentations, jobs=jobs)


def extract_rows(
    table: pd.DataFrame,
    compute: Callable[[np.ndarray], np.ndarray],
    recipe: dict,
    *,
    augmentations: Sequence[Augmentation] = (),
    jobs: int = -1,
) -> Features:
    """Do what `extract_features` does with any function of a waveform.

    Parameters
    ----------
    compute
        Waveform (samples,) -> array (frames, bands), the same shape for every utterance.
    recipe
        All that decides what `compute` gives, as JSON can write it; names the cache file.
    """
    description = {
        **recipe,
        "augmentations": [augmentation.describe() for augmentation in augmentations],
        "audio": digest(list(table["audio_hash"])),
    }
    cached = paths.CACHE_DIR / f"features-{digest(description)}.npy"
    stacked = _load_cache(cached)
    if stacked is None:
        rows = zip(table["path"], table["audio_hash"], strict=True)
        work = (delayed(_extract_row)(*row, compute, tuple(augmentations)) for row in rows)
        results = Parallel(n_jobs=jobs, prefer="threads", return_as="generator")(work)
        bar = tqdm(results, total=len(table), desc="features", unit="utterance", leave=False)
        with threadpool_limits(1, user_api="blas"):  # small products: its threads only wait
            stacked = np.stack(list(bar))
        _save_cache(cached, stacked)
    return Features(stacked[:, 0], stacked[:, 1:], description)


def _extract_row(
    path: str,
    audio_hash: str,
    compute: Callable[[np.ndarray], np.ndarray],
    augmentations: tuple[Augmentation, ...],
) -> np.ndarray:
    waveform = load_waveform(path)
    versions = [compute(waveform)]
    for number, augmentation in enumerate(augmentations):
        rng = np.random.default_rng([number, int(audio_hash[:16], 16)])
        versions.append(compute(augmentation(waveform, rng)))
    return np.stack(versions)


def _load_cache(path: Path) -> np.ndarray | None:
    """Read a cached array; None if there is none, or what is there is damaged."""
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None


def _save_cache(path: Path, array: np.ndarray) -> None:
    try:
        with write_atomically(path) as temporary:
            np.save(temporary, array)
    except OSError as error:
        warnings.warn(
            f"{path}: the features could not be cached ({error.strerror}); they are computed "
            "again next time. Free space, or point SER_DATA_DIR to a folder you can write to.",
            stacklevel=4,
        )


@dataclass(frozen=True)
class Normaliser:
    """Mean and standard deviation per band, of training rows alone; both of shape (bands,)."""

    mean: np.ndarray
    std: np.ndarray

    @classmethod
    def identity(cls, num_bands: int) -> "Normaliser":
        """Give the one that changes nothing."""
        return cls(np.zeros(num_bands, np.float32), np.ones(num_bands, np.float32))

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Give (values - mean) / std for an array of shape (…, bands), float32."""
        return ((values - self.mean) / self.std).astype(np.float32)


def fit_normaliser(values: np.ndarray) -> Normaliser:
    """Measure each band of the training rows.

    Parameters
    ----------
    values
        Shape (training utterances, frames, bands).
    """
    axes = tuple(range(values.ndim - 1))
    mean = values.mean(axis=axes, dtype=np.float64)
    std = values.std(axis=axes, dtype=np.float64)
    return Normaliser(mean.astype(np.float32), np.maximum(std, 1e-6).astype(np.float32))
