"""The cache of features: what names a file of it, reading one and writing one."""

import inspect
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common import audio, decoding, paths
from common.files import digest, write_atomically

if TYPE_CHECKING:
    import pandas as pd


def name_cache(table: "pd.DataFrame", recipe, copies: tuple | None) -> Path:
    """Name the file by the recipe, the code of its steps and the bytes of the recordings."""
    made_by = [recipe.describe()["steps"], copies and [copy.describe() for copy in copies]]
    code = _hash_code([*recipe.steps, *(copies or ())])
    name = digest([*made_by, code, list(table["audio_hash"])])
    return paths.CACHE_DIR / f"features-{name}.npy"


def _hash_code(steps: Sequence[object]) -> str:
    """Name the code that computes: of the steps, and of what decodes recordings."""
    sources = {inspect.getsource(audio), inspect.getsource(decoding)}
    for kind in map(type, steps):
        module = inspect.getmodule(kind)
        in_notebook = getattr(module, "__file__", None) is None
        try:
            sources.add(inspect.getsource(kind if in_notebook else module))
        except (OSError, TypeError):
            sources.add(kind.__qualname__)
    return digest(sorted(sources))


def load_cache(
    path: Path, shape: tuple[int, ...], *, rows: slice = slice(None)
) -> np.ndarray | None:
    """Read rows of a cached array; None if there is none, or what is there is damaged."""
    try:
        stacked = np.load(path, allow_pickle=False, mmap_mode=None if rows == slice(None) else "r")
    except (OSError, ValueError, EOFError):
        return None
    if not isinstance(stacked, np.ndarray) or stacked.dtype.kind != "f":
        return None
    if stacked.shape[: len(shape)] != shape:
        return None
    stacked = np.asarray(stacked[rows])
    return stacked if np.isfinite(stacked).all() else None


def save_cache(path: Path, array: np.ndarray) -> None:
    """Write an array; warn where the disk does not take it."""
    try:
        with write_atomically(path) as temporary:
            np.save(temporary, array)
    except OSError as error:
        warnings.warn(
            f"{path}: the features could not be cached ({error.strerror}); they are computed "
            "again next time. Free space, or point SER_DATA_DIR to a folder you can write to.",
            stacklevel=5,
        )
