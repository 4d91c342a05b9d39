"""The cache of features: what names a file of it, reading one and writing one."""

import inspect
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common import audio, decoding, paths
from common.files import digest, read_version, write_atomically
from common.sources import is_common, spell_code

if TYPE_CHECKING:
    import pandas as pd


CONTRACT = "common.recipes"  # says what a step is
LIBRARIES = ("av", "librosa", "numpy", "scipy", "soundfile", "soxr")  # that decode and compute


def name_cache(table: "pd.DataFrame", recipe, copies: tuple | None) -> Path:
    """Name the file by the recipe, the code of its steps, libraries, and recordings' bytes."""
    made_by = [recipe.describe()["steps"], copies and [copy.describe() for copy in copies]]
    code = _hash_code([*recipe.steps, *(copies or ())])
    name = digest([*made_by, code, _read_versions(), list(table["audio_hash"])])
    return paths.CACHE_DIR / f"features-{name}.npy"


@cache
def _read_versions() -> list[str]:
    return [f"{name} {read_version(name)}" for name in LIBRARIES]


def _list_code(thing: object, seen: set[int]) -> Iterator[type | Callable]:
    """List the classes, their bases and the functions of a step and of all that it holds."""
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, list | tuple):
        parts = [*thing]
    elif isinstance(thing, partial):
        parts = [thing.func, *thing.args, *thing.keywords.values()]
    elif inspect.ismethod(thing):
        parts = [thing.__func__, thing.__self__]
    elif inspect.isfunction(thing):
        yield from filter(_is_own, [thing])
        parts = [cell.cell_contents for cell in thing.__closure__ or ()]
    else:
        yield from filter(_is_own, type(thing).__mro__)
        names = [field.name for field in fields(thing)] if is_dataclass(thing) else []
        parts = [getattr(thing, name) for name in names] + getattr(thing, "made_by", [])
    for part in parts:
        yield from _list_code(part, seen)


def name_own_code(steps: Sequence[object]) -> str | None:
    """Name the code of the steps that are defined outside `common`; None where there are none.

    Their names and settings do not tell what they do: a step of a notebook may be edited.
    """
    own = [kind for kind in _list_code(list(steps), set()) if not is_common(kind)]
    return digest(sorted(map(spell_code, own))) if own else None


def _is_own(kind: type | Callable) -> bool:
    """Whether its code computes, and is neither Python's nor an installed package's."""
    module = kind.__module__ or "builtins"
    if module == CONTRACT or module.split(".")[0] in sys.stdlib_module_names:
        return False
    file = getattr(sys.modules.get(module), "__file__", None) or ""
    return not {"site-packages", "dist-packages"} & {*Path(file).parts}


def _hash_code(steps: Sequence[object]) -> str:
    """Name the code that computes: of the steps and all they hold, and of what decodes."""
    sources = {inspect.getsource(audio), inspect.getsource(decoding)}
    for kind in _list_code(list(steps), set()):
        module = sys.modules.get(kind.__module__)
        try:
            sources.add(inspect.getsource(module))
        except (OSError, TypeError):  # a notebook, which is no file
            sources.add(spell_code(kind))
    return digest(sorted(sources))


def check_finite(values: np.ndarray, names: "pd.Series") -> None:
    """Raise ValueError, which names the first, if features of some rows are not finite."""
    broken = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))
    if len(broken):
        raise ValueError(
            f"{names.iloc[broken[0]]} and {len(broken) - 1} more: features that are not finite; "
            "mend the step that makes them, or leave the recordings out"
        )


def load_cache(
    path: Path, shape: tuple[int, ...], *, rows: slice = slice(None)
) -> np.ndarray | None:
    """Read rows of a cached array; None if there is none, or, with a warning, a damaged one.

    All rows together are compared with the hash behind them.
    """
    try:
        if rows == slice(None):
            with path.open("rb") as file:
                stacked = np.load(file, allow_pickle=False)
                stacked = stacked if file.read().decode() == _hash_values(stacked) else None
        else:
            stacked = np.load(path, allow_pickle=False, mmap_mode="r")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except Exception:  # whatever a damaged file makes numpy raise
        stacked = None
    if isinstance(stacked, np.ndarray) and stacked.dtype.kind == "f":
        part = np.asarray(stacked[rows])
        if stacked.shape[: len(shape)] == shape and np.isfinite(part).all():
            return part
    warnings.warn(f"{path}: this cache is damaged and is made again", stacklevel=1)
    return None


def _hash_values(array: np.ndarray) -> str:
    """Name shape, type and values of an array."""
    from joblib import hash as hash_value

    return hash_value(array)


def save_cache(path: Path, array: np.ndarray) -> None:
    """Write an array and its hash; warn where the disk does not take it."""
    try:
        with write_atomically(path) as temporary, temporary.open("wb") as file:
            np.save(file, array)
            file.write(_hash_values(array).encode())
    except OSError as error:
        warnings.warn(
            f"{path}: the features could not be cached ({error.strerror}); they are computed "
            "again next time. Free space, or point SER_DATA_DIR to a folder you can write to.",
            stacklevel=5,
        )
