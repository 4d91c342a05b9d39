"""From the bytes of a recording to mono samples."""

import os
from collections.abc import Iterator
from typing import BinaryIO

import av
import numpy as np
import soundfile

from common.containers import UNKNOWN_BYTES, count_missing_bytes
from common.problems import (
    CANCELLING_SHARE,
    HIGHEST_RATE_HERTZ,
    LOUDEST_PEAK,
    LOWEST_RATE_HERTZ,
    MAX_CHANNELS,
    SHORTEST_SECONDS,
    SILENCE_PEAK,
    RecordingError,
)

BLOCK_SAMPLES = 1 << 18
FORMATS = ("WAV", "WAVEX", "RF64", "W64", "FLAC", "OGG", "MP3", "AIFF", "AU", "CAF")
# What else FFmpeg reads is not opened: it hears MP3 in any noise, and keeps all of it in memory.
FFMPEG_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,aac,amr,asf,wav,ogg"


def decode(file: BinaryIO, facts: dict, longest_seconds: float) -> np.ndarray:
    """Decode, check and mix down an open file.

    Gives mono samples at the rate of the file; enters `sample_rate_hertz`, `channels`, `frames`,
    `seconds`, `peak` and, of an Ogg stream, `end_marked` into `facts` as far as it gets. Raises
    RecordingError for what is wrong.
    """
    num_bytes = file.seek(0, os.SEEK_END)
    file.seek(0)
    start = file.read(64)
    if not start:
        raise RecordingError("empty")
    if start.startswith(b"version https://git-lfs"):
        raise RecordingError("git lfs")
    if missing := count_missing_bytes(file, num_bytes, facts):
        raise RecordingError("truncated", f"{missing} bytes more than are there")
    file = _BoundedFile(file)
    try:
        try:
            return _decode_with_libsndfile(file, facts, longest_seconds)
        except soundfile.LibsndfileError as error:
            if start.startswith(b"fLaC") and facts.get("sample_rate_hertz"):  # its header is whole
                raise RecordingError("damaged", error) from error
            return _decode_with_ffmpeg(file, facts, longest_seconds)
    except RecordingError:
        raise
    except Exception as error:  # whatever a decoder raises
        kind = "damaged" if facts.get("frames") else "not audio"
        raise RecordingError(kind, str(error).split("\n")[0]) from error


class _BoundedFile:
    """A file that answers -1 to whoever seeks where nothing is, as decoders of damaged files do.

    They would print a traceback of an exception and go on.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.read, self.tell = file, file.read, file.tell
        self.name = getattr(file, "name", "")

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            return self.file.seek(offset, whence)
        except (OSError, ValueError):
            return -1


def _decode_with_libsndfile(file: BinaryIO, facts: dict, longest_seconds: float) -> np.ndarray:
    file.seek(0)
    with soundfile.SoundFile(file) as sound:
        if sound.frames == 0:  # FFmpeg takes a header without a length for a stream
            return _decode_with_ffmpeg(file, facts, longest_seconds)
        if sound.format not in FORMATS:
            raise RecordingError("not audio", f"{sound.format} is not among {', '.join(FORMATS)}")
        frames = max(1, BLOCK_SAMPLES // sound.channels)

        def read_blocks() -> Iterator[np.ndarray]:
            while len(block := sound.read(frames, dtype="float32", always_2d=True)):
                yield block

        exact = sound.format in ("FLAC", "OGG") and sound.frames < UNKNOWN_BYTES
        facts.update(sample_rate_hertz=sound.samplerate, channels=sound.channels)
        promised = sound.frames if exact else 0
        return mix_channels(read_blocks(), facts, longest_seconds, promised=promised)


def _decode_with_ffmpeg(file: BinaryIO, facts: dict, longest_seconds: float) -> np.ndarray:
    file.seek(0)
    try:
        container = av.open(file, options={"format_whitelist": FFMPEG_FORMATS})
    except av.FFmpegError as error:
        raise RecordingError("not audio", "no sound in it") from error
    with container:
        if not container.streams.audio:
            raise RecordingError("not audio", "no sound in it")
        stream = container.streams.audio[0]
        resampler = av.AudioResampler(format="fltp")

        def read_blocks() -> Iterator[np.ndarray]:
            for frame in container.decode(stream):
                for part in resampler.resample(frame):
                    yield part.to_ndarray().T

        facts.update(sample_rate_hertz=stream.rate or 0, channels=stream.channels or 0)
        seconds = (container.duration or 0) / av.time_base
        promised = int((0.98 * seconds - 0.1) * (stream.rate or 0)) if 0 < seconds < 1e6 else 0
        return mix_channels(read_blocks(), facts, longest_seconds, promised=promised)


def mix_channels(
    blocks: Iterator[np.ndarray], facts: dict, longest_seconds: float, *, promised: int = 0
) -> np.ndarray:
    """Average the channels of blocks (frames, channels) and check what comes out.

    No more is read than the longest that is allowed. `facts` has rate and channels and gets the
    rest; `promised` is the number of frames that there must be.
    """
    rate, channels = facts["sample_rate_hertz"], facts["channels"]
    if not LOWEST_RATE_HERTZ <= rate <= HIGHEST_RATE_HERTZ:
        raise RecordingError("rate", rate)
    if not 1 <= channels <= MAX_CHANNELS:
        raise RecordingError("channels", channels)
    samples, frames, loudest, broken = bytearray(), 0, 0.0, 0  # float32, that grow in place
    for block in blocks:
        finite = np.isfinite(block)
        broken += finite.size - np.count_nonzero(finite)
        loudest = max(loudest, float(np.abs(block).max(where=finite, initial=0)))
        frames += len(block)
        facts.update(frames=frames, seconds=round(frames / rate, 4))
        if frames > longest_seconds * rate:
            raise RecordingError("too long", f"{longest_seconds:.0f}")
        if loudest <= LOUDEST_PEAK and not broken:
            samples += block.mean(axis=1, dtype=np.float32).tobytes()
    if broken:
        raise RecordingError("not finite", broken)
    if loudest > LOUDEST_PEAK:
        raise RecordingError("too loud", loudest)
    if frames < promised:
        raise RecordingError("truncated", f"{promised} samples and {frames} are there")
    if frames < SHORTEST_SECONDS * rate:
        raise RecordingError("too short", f"{frames / rate:.3f}")
    mono = np.frombuffer(samples, np.float32)
    facts["peak"] = round(float(max(mono.max(), -mono.min())), 6)
    if loudest < SILENCE_PEAK:
        raise RecordingError("silent", facts["peak"])
    if facts["peak"] < max(SILENCE_PEAK, CANCELLING_SHARE * loudest):
        raise RecordingError("cancelling")
    return mono
