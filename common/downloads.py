"""Fetch an archive, continuing where an earlier attempt stopped, and unpack it safely."""

import errno
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pooch
import requests
from filelock import FileLock
from tqdm.auto import tqdm

from common.files import digest, make_hidden_folder

CHUNK_BYTES = 1 << 16
TIMEOUT_SECONDS = 60
LARGEST_BYTES = 4_000_000_000  # of a file or an archive's contents whose size is not known
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
LARGEST_RATIO = 100  # of contents to archive, above the largest of recordings


def download_archive(
    url: str, path: str | Path, *, num_bytes: int | None = None, checksum: str | None = None
) -> Path:
    """Download a file once, with a progress bar, and check its size and checksum.

    What has arrived of an interrupted download stays in `<path>.part` and is continued with
    an HTTP range request. A file that is there already, with the right checksum, is used as
    it is, so an archive that was copied by hand counts too. Of two processes that want the same
    file one waits for the other. No more is taken than the size that was published, or 4 GB.

    `num_bytes` and `checksum` ("md5:…" or "sha256:…") are those of the published file; None where
    unknown. The path is returned. Raises OSError if the connection breaks, the server refuses or
    the disk is full (call again to continue); ValueError if the file is not the published one,
    which is deleted then.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    pooch.get_logger().setLevel("WARNING")
    downloader = _continue_download(path.with_name(f"{path.name}.part"), num_bytes)
    where = {"fname": path.name, "path": path.parent, "downloader": downloader}
    try:
        with lock(path):
            pooch.retrieve(url, known_hash=checksum, **where)
    except ValueError as error:
        raise ValueError(
            f"{url}: not the file that was published ({error}). Call again; if it stays so, "
            "the publisher has replaced it: get it by hand from its homepage and compare."
        ) from error
    return path


def lock(path: Path) -> FileLock:
    """Give what lets one process at a time, in a `with` block, put something at a path."""
    name = f"speech-emotion-{digest(str(path.resolve()))}.lock"
    return FileLock(Path(tempfile.gettempdir(), name))


def _continue_download(part: Path, num_bytes: int | None) -> Callable:
    """Make a pooch downloader that appends to `part` and hands it over when it is complete."""

    def download(url: str, output_file: str, _: object) -> None:
        try:
            if num_bytes is None or _count_bytes(part) < num_bytes:
                _append_rest(url, part, num_bytes or LARGEST_BYTES)
        except ValueError:
            part.unlink()
            raise
        except OSError as error:
            raise OSError(
                f"{url}: stopped after {_count_bytes(part):,} bytes ({error}). They are kept in "
                f"{part}: check the network and the free disk space and call again to continue."
            ) from error
        arrived = _count_bytes(part)
        os.replace(part, output_file)
        if num_bytes is not None and arrived != num_bytes:
            raise ValueError(f"{arrived:,} bytes, expected {num_bytes:,}")

    return download


def _append_rest(url: str, part: Path, most: int) -> None:
    have = _count_bytes(part)
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_SECONDS) as response:
        if have and response.status_code == requests.codes.requested_range_not_satisfiable:
            return  # nothing is left to fetch; the checksum judges what is here
        response.raise_for_status()
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise OSError("the server compresses what it sends")
        if response.status_code != requests.codes.partial_content:
            have = 0  # the server sends the file from its beginning
        total = have + int(response.headers.get("Content-Length", 0)) or None
        with (
            part.open("ab" if have else "wb") as file,
            tqdm(
                total=total, initial=have, unit="B", unit_scale=True, desc=part.stem, leave=False
            ) as bar,
        ):
            for chunk in response.iter_content(CHUNK_BYTES):
                have += len(chunk)
                if have > most:
                    raise ValueError(f"the server sends more than {most:,} bytes")
                file.write(chunk)
                bar.update(len(chunk))


def _count_bytes(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@contextmanager
def unpack_archive(archive: str | Path, folder: str | Path) -> Iterator[Path]:
    """Unpack a ZIP file into a hidden temporary folder below `folder` for a `with` block.

    Move what is wanted out of it: it is removed at the end of the block, so that an
    interrupted extraction leaves nothing half-written among the recordings. Raises ValueError if
    the archive is damaged or unpacks to more than recordings can, or a member would be written
    outside the folder.
    """
    with make_hidden_folder(Path(folder), ".unpack-") as temporary:
        target = temporary.resolve()
        try:
            with zipfile.ZipFile(archive) as file:
                members = file.infolist()
                _check_members(members, target, Path(archive).stat().st_size)
                for member in tqdm(members, desc="unpacking", unit="file", leave=False):
                    file.extract(member, target)
        except Exception as error:  # zipfile raises more kinds than it documents
            if getattr(error, "errno", None) in DISK_ERRORS:
                raise
            raise ValueError(
                f"{archive}: damaged archive, or not the published one ({error}); delete it and "
                "download it again"
            ) from error
        yield target


def _check_members(members: list[zipfile.ZipInfo], target: Path, num_bytes: int) -> None:
    """Raise ValueError, before anything is written, for what no corpus's archive holds."""
    for member in members:
        if not (target / member.filename).resolve().is_relative_to(target):
            raise ValueError(f"member {member.filename!r} leaves the folder")
    size = sum(member.file_size for member in members)
    if size > min(LARGEST_BYTES, LARGEST_RATIO * num_bytes):
        raise ValueError(f"{num_bytes:,} bytes that unpack to {size:,}")
