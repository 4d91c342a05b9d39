"""From a recording to a mono float32 waveform at 16 kHz.

Training and use, files and arrays: every recording passes the same checks in `load_waveform`.
"""

import io
import os
import stat
import warnings
from pathlib import Path
from typing import BinaryIO

import librosa
import numpy as np
import soxr

from common.decoding import decode, mix_channels
from common.files import hash_open_file
from common.problems import LONGEST_SECONDS, MAX_CHANNELS, RecordingError

SAMPLE_RATE_HERTZ = 16_000


def scan_recording(path: str | Path) -> dict:
    """Read one recording and say whether it can be used. Never raises.

    Returns
    -------
    dict
        `sha256` of the bytes, `sample_rate_hertz`, `channels`, `frames`, `seconds`, `peak`
        (largest absolute sample of the channels' mean, 1 = full scale), `end_marked` (False of
        an Ogg stream that may be cut), and `problem`: empty if the recording is usable, else what
        is wrong and the remedy.
    """
    facts = {"sha256": "", "sample_rate_hertz": 0, "channels": 0, "frames": 0, "seconds": 0.0}
    facts |= {"peak": 0.0, "end_marked": True, "problem": ""}
    try:
        with open_regular(path) as file:
            facts["sha256"] = hash_open_file(file)
            decode(file, facts, LONGEST_SECONDS)
    except RecordingError as error:
        facts["problem"] = error.problem
    except OSError as error:
        facts["problem"] = f"cannot be read ({error.strerror or error}); copy it anew"
    return facts


def load_waveform(
    source, *, longest_seconds: float = LONGEST_SECONDS, facts: dict | None = None
) -> np.ndarray:
    """Load a recording as mono at 16 kHz.

    Channels are averaged; other rates are converted with soxr (high quality).

    Parameters
    ----------
    source
        A path, the bytes or a file object of WAV, FLAC, OGG, MP3, AIFF, Opus, M4A, WebM or what
        else libsndfile or FFmpeg read, of any depth; an array (samples,), (samples, channels) or
        (1, samples) at 16 kHz; or (rate, array) as microphones give it. Integers are scaled by
        their type, those of 64 bits and of lists as 16 bits; floats have full scale 1.
    longest_seconds
        What is longer is refused.
    facts
        Gets `sample_rate_hertz`, the rate of the recording, `channels`, and what else
        `list_notes` reads.

    Returns
    -------
    np.ndarray, shape (samples,), float32
        The waveform, full scale = 1.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    RecordingError
        A ValueError, if the recording is not audio, truncated, silent, too short or long, or
        what else `REMEDIES` lists; the message names the file and the remedy.
    """
    facts = {} if facts is None else facts
    try:
        if isinstance(source, str | os.PathLike):
            with open_regular(source) as file:
                waveform = decode(file, facts, longest_seconds)
        elif isinstance(source, bytes | bytearray | memoryview) or hasattr(source, "read"):
            waveform = decode(_open_memory(source), facts, longest_seconds)
        else:
            waveform = _read_array(source, facts, longest_seconds)
    except RecordingError as error:
        name = source if isinstance(source, str | os.PathLike) else "the recording"
        if error.kind == "absent":
            raise FileNotFoundError(f"{name}: {error.problem}") from error
        raise RecordingError(error.kind, error.detail, source=name) from error
    return resample_waveform(waveform, facts["sample_rate_hertz"], SAMPLE_RATE_HERTZ)


def hear_recording(source, *, longest_seconds: float = LONGEST_SECONDS) -> np.ndarray:
    """Load a recording as `load_waveform` does, and warn of what it lacks."""
    waveform = load_waveform(source, longest_seconds=longest_seconds, facts=(facts := {}))
    name = source if isinstance(source, str | os.PathLike) else "the recording"
    for note in list_notes(facts):
        warnings.warn(f"{name}: {note}", stacklevel=3)
    return waveform


def list_notes(facts: dict) -> list[str]:
    """Say what a recording that is used may lack, by the facts of its scan or its loading."""
    notes, rate = [], facts["sample_rate_hertz"]
    if rate < SAMPLE_RATE_HERTZ:
        notes.append(
            f"recorded at {rate} Hz, less than {SAMPLE_RATE_HERTZ} Hz: what lies above half its "
            "rate is missing, and models hear that; record at more"
        )
    if not facts.get("end_marked", True):
        notes.append(
            "an Ogg stream whose end is not marked is used as far as it goes. Android marks none; "
            "one from elsewhere may be cut off: copy or download it again"
        )
    return notes


def open_regular(path: str | Path) -> BinaryIO:
    """Open a file that has an end: no folder, pipe or device."""
    try:
        regular = stat.S_ISREG(os.stat(path).st_mode)
        if regular:
            return open(path, "rb")
    except FileNotFoundError:
        raise RecordingError("absent") from None
    except (OSError, ValueError) as error:
        raise RecordingError("no file", getattr(error, "strerror", None) or error) from error
    raise RecordingError("no file", "a folder, a pipe or a device")


def _open_memory(source) -> BinaryIO:
    if not hasattr(source, "read"):
        return io.BytesIO(source)
    content = source.read()
    if not content and getattr(source, "seekable", bool)():  # at its end: just written, or heard
        source.seek(0)
        content = source.read()
    if not isinstance(content, bytes):
        raise RecordingError("not audio", "the file object gives text; open it in binary mode")
    return io.BytesIO(content)


def _read_array(source, facts: dict, longest_seconds: float) -> np.ndarray:
    """Check and mix down samples, or (rate, samples)."""
    rate = SAMPLE_RATE_HERTZ
    if isinstance(source, tuple) and len(source) == 2 and np.ndim(source[0]) == 0:
        rate, source = source
    try:
        given, rate = np.asarray(source), int(rate)
        samples = given.astype(np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise RecordingError("shape", type(source).__name__) from error
    if given.dtype.kind in "iu":
        samples = _scale_integers(given)
    if samples.ndim == 2 and samples.shape[0] == 1:
        samples = samples.T
    if samples.ndim == 1:
        samples = samples[:, None]
    if samples.ndim != 2 or samples.shape[1] > MAX_CHANNELS:
        raise RecordingError("shape", f"shape {samples.shape}")
    facts.update(sample_rate_hertz=rate, channels=samples.shape[1])
    return mix_channels(iter([samples]), facts, longest_seconds)


def _scale_integers(samples: np.ndarray) -> np.ndarray:
    """Bring integers to full scale 1. Nobody records 64 bits: lists and sums of 16 bits have them.

    Raises RecordingError where they have more than 16.
    """
    bits, unsigned = 8 * samples.dtype.itemsize, samples.dtype.kind == "u"
    if bits == 64:
        bits, unsigned = 16, False
        loudest = max(abs(int(samples.min(initial=0))), int(samples.max(initial=0)))
        if loudest > 1 << 15:
            raise RecordingError("integers", loudest)
    return (samples / (1 << bits - 1) - unsigned).astype(np.float32)


def resample_waveform(waveform: np.ndarray, from_hertz: float, to_hertz: float) -> np.ndarray:
    """Change the rate of a waveform of shape (samples,) with soxr, high quality."""
    if from_hertz == to_hertz:
        return waveform
    return soxr.resample(waveform, from_hertz, to_hertz, quality="HQ")


def trim_silence(
    waveform: np.ndarray, *, top_db: float, frame_length: int = 1024, hop_length: int = 256
) -> np.ndarray:
    """Cut what is quieter than `top_db` decibels below the loudest frame from both ends.

    As `librosa.effects.trim` on (samples,), but an all-quiet waveform comes back whole.
    """
    lengths = {"frame_length": frame_length, "hop_length": hop_length}
    trimmed, _ = librosa.effects.trim(waveform, top_db=top_db, **lengths)
    return trimmed if len(trimmed) else waveform


def fix_length(waveform: np.ndarray, num_samples: int) -> np.ndarray:
    """Keep the middle of a longer waveform; add zeros around a shorter one, equally.

    (samples,) -> (num_samples,); ValueError for any other shape.
    """
    if np.ndim(waveform) != 1:
        raise ValueError(f"a waveform of {np.shape(waveform)}: give mono samples, (samples,)")
    surplus = len(waveform) - num_samples
    if surplus >= 0:
        start = surplus // 2
        return waveform[start : start + num_samples]
    before = -surplus // 2
    return np.pad(waveform, (before, -surplus - before))
