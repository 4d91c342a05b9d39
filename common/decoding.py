"""From the bytes of a recording to mono samples, and what can be wrong with them."""

import os
import struct
from collections.abc import Iterator
from typing import BinaryIO

import av
import numpy as np
import soundfile

SHORTEST_SECONDS = 0.2
LONGEST_SECONDS = 60.0
LOWEST_RATE_HERTZ, HIGHEST_RATE_HERTZ = 4_000, 192_000
MAX_CHANNELS = 16
SILENCE_PEAK = 1e-4
LOUDEST_PEAK = 16.0
BLOCK_SAMPLES = 1 << 18
FORMATS = ("WAV", "WAVEX", "RF64", "W64", "FLAC", "OGG", "MP3", "AIFF", "AU", "CAF")
FFMPEG_FORMATS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "aac", "amr", "asf", "wav", "ogg")
UNKNOWN_BYTES = 1_000_000_000  # a header that announces as much was written before the sound

REMEDIES = {
    "absent": "no such recording; correct the path, or fetch or unpack the corpus again",
    "no file": "{detail}; give the path of a recording",
    "empty": "the file is empty; copy or download it again",
    "git lfs": "a Git LFS pointer in place of the sound; run git lfs pull where it was cloned",
    "not audio": "not audio that libsndfile or FFmpeg read ({detail}); export it as WAV or FLAC",
    "truncated": "the header promises {detail}; copy or download the file again",
    "too short": f"{{detail}} s of sound, at least {SHORTEST_SECONDS} s are needed; remove it",
    "too long": "more than {detail} s of sound; cut it into utterances",
    "rate": f"{{detail}} Hz; {LOWEST_RATE_HERTZ} to {HIGHEST_RATE_HERTZ} Hz are read: convert it",
    "channels": f"{{detail}} channels, at most {MAX_CHANNELS} are read; export it as mono",
    "shape": "an array of {detail}; give mono samples (samples,), at 16 kHz or as (rate, samples)",
    "not finite": "{detail} samples are NaN or infinite; export it again",
    "too loud": "a sample of {detail:.3g} where 1 is full scale; divide by what full scale is, "
    "32768 for 16 bits, or give the integers themselves",
    "cancelling": "the channels cancel each other; export one of them",
    "silent": "the loudest sample is {detail:.2g}; record it again or remove it",
}


class RecordingError(ValueError):
    """A recording that cannot be used. `kind` is a key of `REMEDIES`, `problem` says it all."""

    def __init__(self, kind: str, detail: object = "", *, source: object = "") -> None:
        self.kind, self.detail = kind, detail
        self.problem = f"{kind}: {REMEDIES[kind].format(detail=detail)}"
        super().__init__(f"{source}: {self.problem}" if source else self.problem)


def decode(file: BinaryIO, facts: dict, longest_seconds: float) -> np.ndarray:
    """Decode, check and mix down an open file.

    Gives mono samples at the rate of the file; enters `sample_rate_hertz`, `channels`, `frames`,
    `seconds` and `peak` into `facts` as far as it gets. Raises RecordingError for what is wrong.
    """
    num_bytes = file.seek(0, os.SEEK_END)
    file.seek(0)
    start = file.read(64)
    if not start:
        raise RecordingError("empty")
    if start.startswith(b"version https://git-lfs"):
        raise RecordingError("git lfs")
    if missing := _count_missing_bytes(file, num_bytes):
        raise RecordingError("truncated", f"{missing} bytes more than are there")
    file = _BoundedFile(file)
    try:
        try:
            return _decode_with_libsndfile(file, facts, longest_seconds)
        except soundfile.LibsndfileError:
            return _decode_with_ffmpeg(file, facts, longest_seconds)
    except RecordingError:
        raise
    except Exception as error:  # whatever a decoder raises
        raise RecordingError("not audio", str(error).split("\n")[0]) from error


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
    with av.open(file) as container:
        if container.format.name not in FFMPEG_FORMATS or not container.streams.audio:
            raise RecordingError("not audio", "no sound in it")  # FFmpeg hears MP3 in any noise
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
    parts, frames, loudest, broken = [np.zeros(0, np.float32)], 0, 0.0, 0
    for block in blocks:
        finite = np.isfinite(block)
        broken += finite.size - np.count_nonzero(finite)
        loudest = max(loudest, float(np.abs(block).max(where=finite, initial=0)))
        frames += len(block)
        facts.update(frames=frames, seconds=round(frames / rate, 4))
        if frames > longest_seconds * rate:
            raise RecordingError("too long", f"{longest_seconds:.0f}")
        if loudest <= LOUDEST_PEAK and not broken:
            parts.append(block.mean(axis=1))
    if broken:
        raise RecordingError("not finite", broken)
    if loudest > LOUDEST_PEAK:
        raise RecordingError("too loud", loudest)
    if frames < promised:
        raise RecordingError("truncated", f"{promised} samples and {frames} are there")
    if frames < SHORTEST_SECONDS * rate:
        raise RecordingError("too short", f"{frames / rate:.3f}")
    mono = np.concatenate(parts)
    facts["peak"] = round(float(np.abs(mono).max()), 6)
    if facts["peak"] < SILENCE_PEAK:
        kind = "cancelling" if loudest >= SILENCE_PEAK else "silent"
        raise RecordingError(kind, facts["peak"])
    return mono


# First bytes of a container: where its chunks begin, how their name and size are written, how
# many bytes of its own a chunk counts in its size, and to what multiple it is padded.
CONTAINERS = {
    **dict.fromkeys((b"RIFF", b"RF64"), (12, "<4sI", 0, 2)),
    **dict.fromkeys((b"RIFX", b"FORM"), (12, ">4sI", 0, 2)),
    b"caff": (8, ">4sQ", 0, 1),
    b"riff": (40, "<16sQ", 24, 8),
}


def _count_missing_bytes(file: BinaryIO, num_bytes: int) -> int:
    """Count the bytes of sound that a container announces and that are not there.

    Decoders silently give what is there. 0 where nothing is missing, or the header does not tell.
    """
    file.seek(0)
    start = file.read(24)
    if start[:4] == b"OggS":
        return _count_missing_ogg(file, num_bytes)
    if start[:4] == b".snd" and len(start) == 24:
        end = sum(struct.unpack(">2I", start[4:12]))
        return max(0, end - num_bytes) if end < UNKNOWN_BYTES else 0
    if start[:4] not in CONTAINERS:
        return _count_missing_mp3(file, num_bytes)
    position, form, own, multiple = CONTAINERS[start[:4]]
    length = struct.calcsize(form)
    large = None
    while position + length <= num_bytes:
        file.seek(position)
        name, size = struct.unpack(form, file.read(length))
        if name[:4] == b"ds64":
            large = int.from_bytes(file.read(16)[8:], "little")
        if name[:4] in (b"data", b"SSND"):
            size = large if large is not None and size == 0xFFFFFFFF else size
            end = position + size + (0 if own else length)
            return max(0, end - num_bytes) if size < UNKNOWN_BYTES else 0
        size += -size % multiple
        position += max(length, size if own else length + size)
    return 0


def _count_missing_ogg(file: BinaryIO, num_bytes: int) -> int:
    """Count the bytes that the last page of an Ogg file lacks."""
    first = max(0, num_bytes - (1 << 17))  # a page has at most 65,307 bytes
    file.seek(first)
    tail = file.read()
    at = tail.rfind(b"OggS")
    page = tail[at:] if at >= 0 else b""
    if len(page) < 27:
        return 27 - len(page)
    return max(0, 27 + page[26] + sum(page[27 : 27 + page[26]]) - len(page))


def _count_missing_mp3(file: BinaryIO, num_bytes: int) -> int:
    """Count the bytes that the Xing or Info header of an MP3 announces beyond the file's end."""
    file.seek(0)
    start = file.read(1 << 13)
    at = max(start.find(b"Xing"), start.find(b"Info"))
    if at < 0 or len(start) < at + 16:
        return 0
    flags, _, size = struct.unpack(">3I", start[at + 4 : at + 16])
    first = max(0, at - 36)  # of the frame that holds the header
    return max(0, first + size - num_bytes) if flags & 3 == 3 and size < UNKNOWN_BYTES else 0
