"""From the bytes of a recording to mono samples, and what can be wrong with them."""

import os
import re
import struct
import warnings
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
    "too short": f"{{detail}} s of sound, at least {SHORTEST_SECONDS} s are needed; record more",
    "too long": "more than {detail} s of sound; cut it into utterances",
    "rate": f"{{detail}} Hz; {LOWEST_RATE_HERTZ} to {HIGHEST_RATE_HERTZ} Hz are read: convert it",
    "channels": f"{{detail}} channels, at most {MAX_CHANNELS} are read; export it as mono",
    "shape": "an array of {detail}; give (samples,) or (samples, channels), or (rate, array)",
    "integers": "whole numbers up to {detail}; give an array of their type, such as int16 or int32",
    "not finite": "{detail} samples are NaN or infinite; export it again",
    "too loud": "a sample of {detail:.3g} where 1 is full scale; divide by what full scale is, "
    "32768 for 16 bits, or give the integers themselves",
    "cancelling": "the channels cancel each other; export one of them",
    "silent": "the loudest sample is {detail:.2g}; record it again, or leave it out",
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
# The Xing or Info header in an MP3's first frame: flags, frames and bytes.
MP3_HEADER = re.compile(rb"(?s)\xff[\xe2-\xfb]..(.{9}|.{17}|.{32})(Xing|Info)(.{12})")
MP3_KILOBITS = (  # of a frame: of MPEG 2 and 2.5, and of MPEG 1
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
)


def _count_missing_bytes(file: BinaryIO, num_bytes: int) -> int:
    """Count the bytes of sound that a container announces and that are not there.

    Decoders silently give what is there. 0 where nothing is missing, or the header does not tell.
    """
    start = _read(file, 0, 24)
    if start[:4] == b"OggS":
        return _count_missing_ogg(file, num_bytes)
    if start[:4] == b"\x1aE\xdf\xa3":
        return _count_missing_webm(file, num_bytes)
    if start[4:8] == b"ftyp":
        return _count_missing_mp4(file, num_bytes)
    if start[:4] == b".snd":
        end = sum(struct.unpack(">2I", start[4:12]))
        return max(0, end - num_bytes) if end < UNKNOWN_BYTES else 0
    if start[:4] not in CONTAINERS:
        return _count_missing_frames(file, num_bytes)
    position, form, own, multiple = CONTAINERS[start[:4]]
    length, large = struct.calcsize(form), None
    while position + length <= num_bytes:
        name, size = struct.unpack(form, _read(file, position, length))
        if name[:4] == b"ds64":
            large = int.from_bytes(file.read(16)[8:], "little")
        if name[:4] in (b"data", b"SSND"):
            size = large if large is not None and size == 0xFFFFFFFF else size
            end = position + size + (0 if own else length)
            return max(0, end - num_bytes) if size < UNKNOWN_BYTES else 0
        size += -size % multiple
        position += max(length, size if own else length + size)
    return 0


def _read(file: BinaryIO, position: int, size: int) -> bytes:
    """Read bytes from a position on, and zeros where nothing is."""
    file.seek(position)
    return file.read(size).ljust(size, b"\0")


def _count_missing_ogg(file: BinaryIO, num_bytes: int) -> int:
    """Count the bytes that the last page of an Ogg file lacks; warn where it is not the end."""
    file.seek(max(0, num_bytes - (1 << 17)))  # a page has at most 65,307 bytes
    tail = file.read()
    page = tail[tail.rfind(b"OggS") :]
    if len(page) < 27:
        return 27 - len(page)
    missing = max(0, 27 + page[26] + sum(page[27 : 27 + page[26]]) - len(page))
    if not missing and not page[5] & 4:
        warnings.warn(
            f"{getattr(file, 'name', 'the recording')}: an Ogg stream whose end is not marked is "
            "used as far as it goes. Android marks none; one from elsewhere may be cut off: copy "
            "or download it again",
            stacklevel=2,
        )
    return missing


def _count_missing_webm(file: BinaryIO, num_bytes: int) -> int:
    """Count the bytes that the last element of a Matroska or WebM file lacks."""
    position = 0
    while position < num_bytes:
        start = _read(file, position, 12)
        name_bytes = 9 - start[0].bit_length()
        size_bytes = 9 - start[min(name_bytes, 4)].bit_length()
        if name_bytes > 4 or size_bytes > 8:
            return 0
        unknown = (1 << 7 * size_bytes) - 1  # of one whose parts follow, as browsers write them
        size = int.from_bytes(start[name_bytes : name_bytes + size_bytes], "big") & unknown
        position += name_bytes + size_bytes + (0 if size == unknown else size)
    return position - num_bytes


def _count_missing_mp4(file: BinaryIO, num_bytes: int) -> int:
    """Count the bytes that the last box of an MP4 file lacks."""
    position, size = 0, 8
    while 8 <= size < UNKNOWN_BYTES and position + 8 <= num_bytes:
        size, _, large = struct.unpack(">I4sQ", _read(file, position, 16))
        size = large if size == 1 else size  # 0: all that follows
        position += size
    return max(0, position - num_bytes) if size < UNKNOWN_BYTES else 0


def _count_missing_frames(file: BinaryIO, num_bytes: int) -> int:
    """Count the bytes that an MP3 lacks by its Xing or Info header, or MP3 or AAC in a frame."""
    position = 0
    while (tag := _read(file, position, 10))[:3] == b"ID3":
        size = sum((byte & 127) << 7 * (9 - place) for place, byte in enumerate(tag) if place > 5)
        position += 10 + size + (10 if tag[5] & 16 else 0)
    if header := MP3_HEADER.match(_read(file, position, 64)):
        flags, _, size = struct.unpack(">3I", header[3])
        if flags & 3 == 3 and size < UNKNOWN_BYTES:
            return max(0, position + size - num_bytes)
    while size := _measure_frame(file, position):
        position += size
    return max(0, position - num_bytes)


def _measure_frame(file: BinaryIO, position: int) -> int:
    """Give the bytes of the MP3 or AAC frame at a position; 0 where there is none."""
    start = _read(file, position, 8)
    header = int.from_bytes(start[:4], "big")
    if header >> 16 & 0xFFF6 == 0xFFF0:  # AAC
        return int.from_bytes(start, "big") >> 21 & 0x1FFF
    version, kind, rate = header >> 19 & 3, header >> 12 & 15, header >> 10 & 3
    if header >> 21 != 0x7FF or header >> 17 & 3 != 1 or version == 1 or kind == 15 or rate == 3:
        return 0
    hertz = (44_100, 48_000, 32_000)[rate] >> {3: 0, 2: 1, 0: 2}[version]
    bits = 1_000 * MP3_KILOBITS[version == 3][kind]
    return (144 if version == 3 else 72) * bits // hertz + (header >> 9 & 1) if bits else 0
