"""Acoustic fingerprints: which recordings hold the same sound, whatever was done to it since.

After Haitsma and Kalker, "A highly robust audio fingerprinting system", ISMIR 2002: the sign of
the difference of energies between neighbouring bands, differenced once more between neighbouring
frames. Level and slow filters do not change it; resampling, lossy coding and noise change some
bits. A changed pitch or speed changes too many to be found.
"""

from collections.abc import Sequence

import librosa
import numpy as np
import pandas as pd

from common.audio import SAMPLE_RATE_HERTZ

WINDOW_SAMPLES = 4096
HOP_SAMPLES = 512
BAND_EDGES_HERTZ = np.geomspace(300, 3400, 34)  # of 33 bands, within what a telephone passes
EXCERPT_FRAMES = 31  # one second
# Of 1.0, 0.1 and 3.9 million pairs of different recordings in RAVDESS, SAVEE and TESS the closest
# have 0.21, 0.25 and 0.156; a copy with noise at 15 dB has 0.09 or less.
MAX_BIT_ERROR_RATE = 0.14


def compute_fingerprint(waveform: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fingerprint a waveform at 16 kHz, (samples,).

    Returned are its bits as -1 and 1, (frames, 32), int8, one frame every 32 ms, and the energy of
    each frame, (frames,). What is shorter than an excerpt of `EXCERPT_FRAMES` is padded by silence.
    """
    missing = EXCERPT_FRAMES * HOP_SAMPLES + 1 - len(waveform)
    waveform = np.pad(waveform, (0, max(0, missing)))
    spectrum = librosa.stft(waveform, n_fft=WINDOW_SAMPLES, hop_length=HOP_SAMPLES)
    power = spectrum.real**2 + spectrum.imag**2
    bins = np.rint(BAND_EDGES_HERTZ * WINDOW_SAMPLES / SAMPLE_RATE_HERTZ).astype(int)
    bands = np.add.reduceat(power, bins, axis=0)[:-1]
    steps = np.diff(np.diff(bands, axis=0), axis=1)
    return np.where(steps < 0, 1, -1).astype(np.int8).T, bands.sum(axis=0)[1:]


def find_same_sound(
    fingerprints: Sequence[tuple[np.ndarray, np.ndarray]],
    *,
    max_bit_error_rate: float = MAX_BIT_ERROR_RATE,
) -> pd.DataFrame:
    """Find the pairs of recordings of which one holds the loudest second of the other.

    The loudest second of each is compared with every second of all others, so that a shift or a
    trimmed beginning does not matter. Returned are the rows `first` < `second` and the
    `bit_error_rate` of their best match, 0 for identical sound and 0.5 for unrelated ones. Time
    grows with the square of the number of recordings.
    """
    excerpts = np.stack([_take_loudest(bits, energy) for bits, energy in fingerprints])
    queries = excerpts.reshape(len(excerpts), -1).astype(np.float32)
    found = []
    for number, (bits, _) in enumerate(fingerprints):
        windows = np.lib.stride_tricks.sliding_window_view(bits, EXCERPT_FRAMES, axis=0)
        windows = windows.transpose(0, 2, 1).reshape(len(windows), -1).astype(np.float32)
        agreement = (queries @ windows.T).max(axis=1)
        rates = (1 - agreement / queries.shape[1]) / 2
        for other in np.flatnonzero(rates <= max_bit_error_rate):
            if other != number:
                found.append((*sorted((number, int(other))), float(rates[other])))
    pairs = pd.DataFrame(found, columns=["first", "second", "bit_error_rate"])
    return pairs.groupby(["first", "second"], as_index=False).min()


def _take_loudest(bits: np.ndarray, energy: np.ndarray) -> np.ndarray:
    """The excerpt with most sound in it; a square root lets no single moment decide."""
    sums = np.convolve(np.sqrt(energy), np.ones(EXCERPT_FRAMES), mode="valid")
    start = int(sums.argmax())
    return bits[start : start + EXCERPT_FRAMES]
