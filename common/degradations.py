"""What happens to speech on its way: babble, telephones, codecs, overdriven microphones, cuts.

Each is an augmentation; `Degrade` makes any augmentation the first step of a recipe.
"""

import io
from dataclasses import dataclass
from zlib import crc32

import av
import numpy as np
from scipy.signal import butter, sosfiltfilt

from common.audio import (
    SAMPLE_RATE_HERTZ,
    fix_length,
    load_waveform,
    resample_waveform,
    trim_silence,
)
from common.augmentation import Augmentation
from common.files import digest
from common.recipes import Step

CODECS = {"mp3": ("mp3", "libmp3lame"), "opus": ("ogg", "libopus")}  # container, encoder
TELEPHONE_HERTZ = (300, 3400)
TELEPHONE_RATE_HERTZ = 8000


@dataclass(frozen=True)
class Degrade(Step):
    """A waveform (samples,) -> the waveform as `by` leaves it; one recording, one result."""

    by: Augmentation

    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        seed = crc32(np.ascontiguousarray(waveform, np.float32).tobytes())
        return self.by(waveform, np.random.default_rng(seed))

    def describe(self, *, changed: bool = False) -> dict:
        return {"step": "Degrade", "by": self.by.describe()}


@dataclass(frozen=True)
class AddBabble(Augmentation):
    """Add the voices of `num_talkers` at once, at a signal-to-noise ratio in decibels.

    The talkers, all equally loud, are drawn from the waveforms of `voices`, without silence at
    their ends and begun anywhere; the waveform itself is not among them. The ratio is of mean
    powers over the whole waveform, as in `AddNoise`.
    """

    snr_db: float
    voices: tuple[str, ...]
    num_talkers: int = 6

    def __post_init__(self) -> None:
        if len(self.voices) <= self.num_talkers:
            raise ValueError(
                f"{len(self.voices)} voices for {self.num_talkers} talkers; give the paths of more "
                "recordings, since the one that they disturb may be among them"
            )

    def __call__(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        babble, talking = np.zeros(len(waveform)), 0
        for number in rng.permutation(len(self.voices)):
            voice = load_waveform(self.voices[number])
            if np.array_equal(voice, waveform):
                continue
            voice = np.roll(trim_silence(voice, top_db=30), rng.integers(len(voice)))
            babble += np.resize(voice / _measure_rms(voice), len(waveform))
            talking += 1
            if talking == self.num_talkers:
                break
        scale = _measure_rms(waveform) / _measure_rms(babble) / 10 ** (self.snr_db / 20)
        return (waveform + scale * babble).astype(np.float32)

    def describe(self) -> dict:
        """Name the recordings by a hash of their samples, wherever they lie."""
        samples = [crc32(load_waveform(voice).tobytes()) for voice in self.voices]
        facts = {"snr_db": self.snr_db, "num_talkers": self.num_talkers}
        return {"name": "AddBabble", **facts, "voices": digest(samples)}


@dataclass(frozen=True)
class Telephone(Augmentation):
    """Leave what a narrow-band telephone carries: 300 to 3400 Hz, sampled at 8 kHz.

    A Butterworth band-pass of order 4, run forwards and backwards, so without delay.
    """

    def __call__(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        filters = butter(4, TELEPHONE_HERTZ, "bandpass", fs=SAMPLE_RATE_HERTZ, output="sos")
        band = sosfiltfilt(filters, waveform.astype(np.float64)).astype(np.float32)
        narrow = resample_waveform(band, SAMPLE_RATE_HERTZ, TELEPHONE_RATE_HERTZ)
        wide = resample_waveform(narrow, TELEPHONE_RATE_HERTZ, SAMPLE_RATE_HERTZ)
        return fix_length(wide, len(waveform))


@dataclass(frozen=True)
class Encode(Augmentation):
    """Encode as "mp3" or "opus" with so many kilobits a second, and decode again (FFmpeg).

    Encoders set in and end with some milliseconds of silence, which stay. A waveform beyond full
    scale comes back clipped.
    """

    codec: str
    kilobits: int

    def __post_init__(self) -> None:
        if self.codec not in CODECS or not 8 <= self.kilobits <= 160:
            raise ValueError(
                f"codec={self.codec!r}, kilobits={self.kilobits}: "
                f"give one of {', '.join(CODECS)} and 8 to 160"
            )

    def __call__(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        container, encoder = CODECS[self.codec]
        file = io.BytesIO()
        with av.open(file, "w", format=container) as target:
            stream = target.add_stream(encoder, rate=SAMPLE_RATE_HERTZ, layout="mono")
            stream.bit_rate = 1000 * self.kilobits
            samples = np.clip(waveform, -1, 1).astype(np.float32)[None]
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            frame.sample_rate = SAMPLE_RATE_HERTZ
            resampler = av.AudioResampler(stream.format, "mono", SAMPLE_RATE_HERTZ)
            for part in (*resampler.resample(frame), None):
                target.mux(stream.encode(part))
        return load_waveform(file.getvalue())


@dataclass(frozen=True)
class Overdrive(Augmentation):
    """Cut off what is less than `depth_db` below the peak, as an overdriven microphone does.

    The mean power is then brought back to what it was, so that clipping alone is changed.
    """

    depth_db: float

    def __post_init__(self) -> None:
        if self.depth_db < 0:
            raise ValueError(f"depth_db={self.depth_db} is above the peak; give 0 or more")

    def __call__(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        most = np.abs(waveform).max() / 10 ** (self.depth_db / 20)
        clipped = np.clip(waveform, -most, most)
        return (clipped * _measure_rms(waveform) / _measure_rms(clipped)).astype(np.float32)


@dataclass(frozen=True)
class MoveStart(Augmentation):
    """Begin `seconds` before the recording does, in digital silence, or with a minus in the word.

    Speech begins and ends where `trim_silence` with 30 dB cuts. Of it at most half is lost, and
    the silence around it is lost as well.
    """

    seconds: float

    def __call__(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        change = round(abs(self.seconds) * SAMPLE_RATE_HERTZ)
        if self.seconds >= 0:
            return np.pad(waveform, (change, 0))
        speech = trim_silence(waveform, top_db=30)
        return speech[min(change, len(speech) // 2) :]


@dataclass(frozen=True)
class KeepStart(Augmentation):
    """Keep the first `seconds` of speech, from where `trim_silence` with 30 dB cuts."""

    seconds: float

    def __post_init__(self) -> None:
        if not self.seconds > 0:
            raise ValueError(f"seconds={self.seconds} leaves nothing; give more than 0")

    def __call__(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return trim_silence(waveform, top_db=30)[: round(self.seconds * SAMPLE_RATE_HERTZ)]


def _measure_rms(waveform: np.ndarray) -> float:
    power = np.mean(np.square(waveform, dtype=np.float64))
    return float(np.sqrt(max(power, np.finfo(np.float64).tiny)))
