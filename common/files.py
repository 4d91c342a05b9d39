"""The one way to write a file, and names for what files and settings hold."""

import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import MISSING, fields
from pathlib import Path
from typing import BinaryIO, get_args

UNFINISHED = ".unfinished-"  # how names of temporary files begin
NAME_PART = re.compile(r"[A-Za-z0-9]+([_+.-][A-Za-z0-9]+)*")  # what may be part of a file name


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path` that replaces it when the block ends well.

    Readers see the old file or the new one, never half of one; two processes may write
    at once and the last wins. The temporary path keeps the suffix of `path`, and its
    folder is made if it is missing.

    Raises
    ------
    OSError
        If the folder cannot be written to or the disk is full. The old file stays.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=UNFINISHED, suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
        sweep(path.parent, f"{UNFINISHED}*")
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk does not name the file
        raise
    finally:
        temporary.unlink(missing_ok=True)


def sweep(folder: Path, pattern: str) -> None:
    """Remove what killed processes left of temporary files and folders: of an hour ago or more."""
    for path in folder.glob(pattern):
        with suppress(OSError):
            if path.stat().st_mtime < time.time() - 3_600:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def write_json(path: Path, content: object) -> None:
    """Write what JSON can hold, atomically."""
    with write_atomically(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")


def digest(content: object) -> str:
    """Short name of anything JSON can write, the same on every machine."""
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes, as hexadecimal text."""
    with Path(path).open("rb") as file:
        return hash_open_file(file)


def hash_open_file(file: BinaryIO) -> str:
    """SHA-256 of what an open file holds from here on, as hexadecimal text."""
    return hashlib.file_digest(file, "sha256").hexdigest()


def describe_settings(settings: object, *, changed: bool = False) -> dict:
    """Give the fields of a dataclass by name; with `changed` those that are not at their default.

    What names a run leaves defaults out, so that a new setting does not rename what was run
    before there was one. A default that changes needs a new `runs.RUN_FORMAT`.
    """
    described = {}
    for field in fields(settings):
        value = getattr(settings, field.name)
        if type(value) is int and float in (field.type, *get_args(field.type)):
            value = float(value)  # 30 and 30.0 are one setting
        if not changed or field.default is MISSING or value != field.default:
            described[field.name] = list(value) if isinstance(value, tuple) else value
    return described
