"""The one way to write a file, and names for what files and settings hold."""

import ast
import hashlib
import inspect
import json
import re
import secrets
import shutil
import textwrap
import time
from collections.abc import Callable, Iterator
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


def is_common(thing: type | Callable) -> bool:
    """Whether a class or function is this library's, and not a notebook's or someone's own."""
    return (thing.__module__ or "").split(".")[0] == "common"


def spell_code(thing: type | Callable) -> str:
    """Code of a class's methods or of a function, without docstrings and comments.

    Python finds it for what a notebook defines as well. Of one's own code the functions beside it
    that it calls are spelled too, and the constants that it names.
    """
    items = vars(thing).values() if isinstance(thing, type) else [thing]
    members = [getattr(item, "fget", getattr(item, "__func__", item)) for item in items]
    functions = [inspect.unwrap(member) for member in members if inspect.isfunction(member)]
    spelled = [one for one in functions if one.__code__.co_filename != "<string>"]  # a dataclass's
    constants = {}
    for function in [] if is_common(thing) else spelled:  # which grows meanwhile
        names = set(function.__code__.co_names) & function.__globals__.keys()
        for name, value in [(name, function.__globals__[name]) for name in sorted(names)]:
            if _is_constant(value):
                constants[name] = value
            elif inspect.isfunction(value) and value.__module__ == thing.__module__:
                spelled += [value] * (value not in spelled)
    settled = [f"{name} = {value!r}" for name, value in constants.items()]
    return f"{thing.__name__}\n" + "\n\n".join([*map(_strip_source, spelled), *settled])


def _is_constant(value: object) -> bool:
    """Whether it is written alike in every session, as numbers, text and tuples of them are."""
    if isinstance(value, tuple):
        return all(map(_is_constant, value))
    return isinstance(value, bool | int | float | str | None)


def _strip_source(function: Callable) -> str:
    try:
        text = textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError):  # typed at a prompt
        return function.__code__.co_code.hex()
    try:
        tree = ast.parse(text)
    except SyntaxError:  # a lambda in the middle of a line
        return text
    for node in ast.walk(tree):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node):
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def read_version(package: str) -> str | None:
    """The version of a package, None where it is not installed by that name."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
