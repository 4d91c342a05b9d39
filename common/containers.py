"""How much of a recording its container announces, and whether that is there.

Decoders silently give what is there.
"""

import re
import struct
import zlib
from typing import BinaryIO

from common.problems import RecordingError

LONGEST_PAGE_BYTES = 65_307  # of Ogg
MIRRORED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))  # as zlib sums them
UNKNOWN_BYTES = 1_000_000_000  # a header that announces as much was written before the sound

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
KILOBITS = (  # of a frame: of MPEG 2 and 2.5, and of MPEG 1, MP3 and MP2
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
)


def count_missing_bytes(file: BinaryIO, num_bytes: int, facts: dict) -> int:
    """Count the bytes of sound that a container announces and that are not there.

    0 where nothing is missing, or the header does not tell. Of an Ogg stream `end_marked` is
    entered into `facts`, and a page that its checksum does not fit raises RecordingError.
    """
    start = _read(file, 0, 24)
    if start[:4] == b"OggS":
        return _count_missing_ogg(file, num_bytes, facts)
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


def _count_missing_ogg(file: BinaryIO, num_bytes: int, facts: dict) -> int:
    """Count the bytes that the last page of an Ogg file lacks; enter whether it is the end.

    Decoders leave out a page that its checksum does not fit, so that one is refused.
    """
    position = 0
    while position < num_bytes:
        page = _read(file, position, LONGEST_PAGE_BYTES)
        if not page.startswith(b"OggS"):  # what lies between pages, or behind them
            position += page.find(b"OggS") if b"OggS" in page else len(page) - 3
            continue
        page = page[: 27 + page[26] + sum(page[27 : 27 + page[26]])]
        if (missing := position + len(page) - num_bytes) > 0:
            return missing
        mirrored = (page[:22] + bytes(4) + page[26:]).translate(MIRRORED_BITS)
        if ~zlib.crc32(mirrored, 0xFFFFFFFF) & 0xFFFFFFFF != int.from_bytes(
            page[22:26].translate(MIRRORED_BITS), "big"
        ):
            told = f"the Ogg page at byte {position} does not fit its checksum"
            raise RecordingError("damaged", told)
        facts["end_marked"] = bool(page[5] & 4)
        position += len(page)
    return 0


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
    """Count the bytes that an MP3 lacks by its Xing or Info header, or its last frame lacks."""
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
    """Give the bytes of the MP3, MP2 or AAC frame at a position; 0 where there is none."""
    start = _read(file, position, 8)
    header = int.from_bytes(start[:4], "big")
    if header >> 16 & 0xFFF6 == 0xFFF0:  # AAC
        return int.from_bytes(start, "big") >> 21 & 0x1FFF
    version, layer = header >> 19 & 3, header >> 17 & 3  # 3 is MPEG 1, 2 is MP2, 1 is MP3
    kind, rate = header >> 12 & 15, header >> 10 & 3
    if header >> 21 != 0x7FF or layer not in (1, 2) or version == 1 or kind == 15 or rate == 3:
        return 0
    hertz = (44_100, 48_000, 32_000)[rate] >> {3: 0, 2: 1, 0: 2}[version]
    bits = 1_000 * KILOBITS[layer if version == 3 else 0][kind]
    samples = 576 if version != 3 and layer == 1 else 1_152
    return samples // 8 * bits // hertz + (header >> 9 & 1) if bits else 0
