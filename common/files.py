"""The one way to write a file, and names for what files and settings hold."""

import hashlib
import json
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import MISSING, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import BinaryIO, get_args

UNFINISHED = ".unfinished-"  # how names of temporary folders begin
NAME_PART = re.compile(r"[A-Za-z0-9]+([_+.-][A-Za-z0-9]+)*")  # what may be part of a file name


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path` that replaces it when the block ends well.

    Readers see the old file or the new one, never half of one; two processes may write at once and
    the last wins. The temporary path has the name of `path`, in a folder of its own, so that nobody
    who lists the folder of `path` meets it; missing folders are made. After an OSError the old file
    stays.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with make_hidden_folder(path.parent, UNFINISHED) as folder:
            yield folder / path.name
            (folder / path.name).replace(path)
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk does not name the file
        raise


@contextmanager
def make_hidden_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Make a folder below `parent` for a block, and remove it and what killed ones left there.

    What is moved out of it is as open to others as what is written to `parent`, which does not hold
    of the folders of `tempfile`.
    """
    sweep(parent, f"{prefix}*")
    folder = parent / f"{prefix}{secrets.token_hex(8)}"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep(folder: Path, pattern: str) -> None:
    """Remove files and folders of an hour ago or more that killed processes left."""
    for path in folder.glob(pattern):
        with suppress(OSError):
            latest = max(one.stat().st_mtime for one in (path, *path.rglob("*")))
            if latest < time.time() - 3_600:
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


def read_version(package: str) -> str | None:
    """The version of a package, None where it is not installed by that name."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
