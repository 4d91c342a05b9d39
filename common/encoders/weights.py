"""What several encoders share: finding, fetching, checking, drawing and naming their weights."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from common.downloads import download_archive
from common.encoders.contract import EncoderRecord

Shapes = Mapping[str, tuple[int, ...]]


def get_arrays(
    record: EncoderRecord, weights: str | Path, *, draw: Callable, fetch: Callable, read: Callable
) -> dict[str, np.ndarray]:
    """Draw the weights, or read the published ones or one's own."""
    if weights == "random":
        return draw()
    file = fetch(record) if weights == "published" else Path(weights)
    if not file.exists() and not list(file.parent.glob(f"{file.name}.index")):  # a checkpoint's
        raise FileNotFoundError(f"No weights at {file}: give another path, or 'published'")
    return read(file)


def fetch_file(record: EncoderRecord, file: Path | None = None) -> Path:
    """Download the published file to where it belongs, or to `file`; check it either way.

    Raises
    ------
    OSError
        If it is not there and could not be downloaded: how to get it otherwise.
    ValueError
        If what arrived is not the published file; it is not kept.
    """
    file = file or record.path
    facts = {"num_bytes": record.num_bytes, "checksum": record.checksum}
    try:
        return download_archive(record.url, file, **facts)
    except OSError as error:
        raise OSError(
            f"{record.path}: the published weights of {record.title} are not here yet. {error} "
            f"Otherwise put {Path(record.url).name} there as {file.name} (see {record.homepage}), "
            "or give the path of the weights to load_encoder."
        ) from error


def check_arrays(
    file: Path, arrays: Mapping[str, np.ndarray], shapes: Shapes, *, remedy: str
) -> None:
    """Raise ValueError unless the arrays have these names and shapes and are finite."""
    held = ", ".join(sorted(arrays)[:3]) or "nothing"
    for name in dict.fromkeys([*shapes, *arrays]):
        found = arrays[name].shape if name in arrays else f"missing (there is {held})"
        expected = shapes.get(name, "no such array")
        if found != expected:
            raise ValueError(f"{file}: {name} is {found}, expected {expected}; {remedy}")
        if not np.isfinite(arrays[name]).all():
            raise ValueError(f"{file}: {name} holds values that are not finite; {remedy}")


def draw_arrays(shapes: Shapes, seed: int = 0) -> dict[str, np.ndarray]:
    """Draw weights that know nothing: kernels that keep the signal's level, the rest neutral."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for name, shape in shapes.items():
        if len(shape) > 1:
            scale = np.sqrt(2 / np.prod(shape[:-1]))
            arrays[name] = (scale * rng.standard_normal(shape)).astype(np.float32)
        else:
            arrays[name] = np.full(shape, name.endswith(("gamma", "var")), dtype=np.float32)
    return arrays


def digest_arrays(arrays: Mapping[str, np.ndarray]) -> str:
    """Name weights by what they are."""
    digest = hashlib.sha256()
    for key in sorted(arrays):
        digest.update(key.encode() + arrays[key].tobytes())
    return digest.hexdigest()[:16]
