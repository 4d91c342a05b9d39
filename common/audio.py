"""From an audio file to a mono float32 waveform at 16 kHz, and what can be wrong on the way."""

import hashlib
from pathlib import Path

import librosa
import numpy as np
import soundfile
import soxr

SAMPLE_RATE_HERTZ = 16_000
SHORTEST_SECONDS = 0.2
LONGEST_SECONDS = 60.0
SILENCE_PEAK = 1e-4

REMEDIES = {
    "empty": "the file is empty; copy or download it again",
    "not audio": "not audio that libsndfile can read ({detail}); export it as WAV or FLAC",
    "truncated": "the header promises {detail}; copy or download the file again",
    "too short": "{detail} s of sound, at least "
    f"{SHORTEST_SECONDS} s are needed; remove it from the corpus",
    "too long": f"{{detail}} s of sound, at most {LONGEST_SECONDS:.0f} s; cut it into utterances",
    "not finite": "{detail} samples are NaN or infinite; export it again",
    "silent": "the loudest sample is {detail}; record it again or remove it",
}


def scan_recording(path: str | Path) -> dict:
    """Read one recording and say whether it can be used.

    Parameters
    ----------
    path
        An audio file: WAV of any depth, FLAC, OGG or MP3, any rate, mono or not.

    Returns
    -------
    dict
        `sha256` of the bytes, `sample_rate_hertz`, `channels`, `frames`, `seconds`, `peak`
        (largest absolute sample, 1 = full scale), and `problem`: empty if the recording is
        usable, else what is wrong and the remedy. Never raises for bad audio.
    """
    path = Path(path)
    facts = {
        "sha256": "",
        "sample_rate_hertz": 0,
        "channels": 0,
        "frames": 0,
        "seconds": 0.0,
        "peak": 0.0,
        "problem": "",
    }

    def fail(kind: str, detail: object = "") -> dict:
        return {**facts, "problem": f"{kind}: {REMEDIES[kind].format(detail=detail)}"}

    try:
        with path.open("rb") as file:
            facts["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
        if path.stat().st_size == 0:
            return fail("empty")
        with soundfile.SoundFile(path) as file:
            seconds = file.frames / file.samplerate
            facts.update(
                sample_rate_hertz=file.samplerate,
                channels=file.channels,
                frames=file.frames,
                seconds=round(seconds, 4),
            )
            if seconds > LONGEST_SECONDS:
                return fail("too long", f"{seconds:.0f}")
            if seconds < SHORTEST_SECONDS:
                return fail("too short", f"{seconds:.3f}")
            promised = _count_promised_frames(path, file)
            samples = file.read(dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        return fail("not audio", str(error).removeprefix(f"Error opening {str(path)!r}: "))
    if len(samples) < promised:
        return fail("truncated", f"{promised} samples and {len(samples)} are there")
    broken = int(np.count_nonzero(~np.isfinite(samples)))
    if broken:
        return fail("not finite", broken)
    facts["peak"] = round(float(np.abs(samples).max()), 6)
    if facts["peak"] < SILENCE_PEAK:
        return fail("silent", facts["peak"])
    return facts


def _count_promised_frames(path: Path, file: soundfile.SoundFile) -> int:
    """Frames that a WAV header announces; libsndfile itself silently reads what is there."""
    if file.format not in ("WAV", "WAVEX"):
        return file.frames
    with path.open("rb") as stream:
        header = stream.read(65_536)
    position, block_align = 12, 0
    while position + 8 <= len(header):
        name = header[position : position + 4]
        size = int.from_bytes(header[position + 4 : position + 8], "little")
        if name == b"fmt ":
            block_align = int.from_bytes(header[position + 20 : position + 22], "little")
        if name == b"data":
            unknown = size in (0, 0xFFFFFFFF)
            return file.frames if unknown or not block_align else size // block_align
        position += 8 + size + size % 2
    return file.frames


def load_waveform(path: str | Path, *, sample_rate_hertz: int = SAMPLE_RATE_HERTZ) -> np.ndarray:
    """Load a recording as mono at one rate.

    Channels are averaged; other rates are converted with soxr (high quality).

    Parameters
    ----------
    path
        An audio file of any format, depth, rate and number of channels that libsndfile reads.
    sample_rate_hertz
        The rate of the result.

    Returns
    -------
    np.ndarray, shape (samples,), float32
        The waveform, full scale = 1.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not audio, or holds no samples, or NaN; the message names it.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such recording; fetch or unpack the corpus again")
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{path}: {REMEDIES['not audio'].format(detail=error)}") from error
    if not len(samples):
        raise ValueError(f"{path}: no samples; {REMEDIES['empty']}")
    if not np.isfinite(samples).all():
        broken = int(np.count_nonzero(~np.isfinite(samples)))
        raise ValueError(f"{path}: {REMEDIES['not finite'].format(detail=broken)}")
    waveform = samples.mean(axis=1)
    return resample_waveform(waveform, rate, sample_rate_hertz)


def resample_waveform(waveform: np.ndarray, from_hertz: float, to_hertz: float) -> np.ndarray:
    """Change the rate of a waveform of shape (samples,) with soxr, high quality."""
    if from_hertz == to_hertz:
        return waveform
    return soxr.resample(waveform, from_hertz, to_hertz, quality="HQ")


def trim_silence(
    waveform: np.ndarray, *, top_db: float, frame_length: int = 1024, hop_length: int = 256
) -> np.ndarray:
    """Cut what is quieter than `top_db` below the loudest frame from both ends.

    Parameters
    ----------
    waveform
        Shape (samples,).
    top_db
        Decibels below the loudest frame (root mean square over `frame_length` samples).

    Returns
    -------
    np.ndarray, shape (samples kept,)
        As `librosa.effects.trim`; an all-quiet waveform comes back whole.
    """
    trimmed, _ = librosa.effects.trim(
        waveform, top_db=top_db, frame_length=frame_length, hop_length=hop_length
    )
    return trimmed if len(trimmed) else waveform


def fix_length(waveform: np.ndarray, num_samples: int) -> np.ndarray:
    """Keep the middle of a longer waveform; add zeros around a shorter one, equally.

    Parameters
    ----------
    waveform
        Shape (samples,).

    Returns
    -------
    np.ndarray, shape (num_samples,)
    """
    surplus = len(waveform) - num_samples
    if surplus >= 0:
        start = surplus // 2
        return waveform[start : start + num_samples]
    before = -surplus // 2
    return np.pad(waveform, (before, -surplus - before))
