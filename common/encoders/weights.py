"""What several encoders share: finding, fetching, checking, drawing and naming their weights."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from common.audio import fix_length
from common.downloads import download_archive
from common.encoders.contract import Arrays, EncoderRecord, Weights

Shapes = dict[str, tuple[int, ...]]
ComputeStates = Callable[[np.ndarray], np.ndarray]


def get_arrays(
    record: EncoderRecord, weights: Weights, *, draw: Callable, fetch: Callable, read: Callable
) -> Arrays:
    """Draw the weights, or read the published ones or one's own."""
    if weights == "random":
        return draw()
    file = fetch(record) if weights == "published" else Path(weights)
    if not (file.exists() or file.with_name(f"{file.name}.index").exists()):  # of a checkpoint
        raise FileNotFoundError(f"No weights at {file}: give another path, or 'published'")
    return read(file)


def find_folder(record: EncoderRecord, weights: Weights, kind: str, file: str) -> Path | None:
    """Give the folder of a model with that file in it; None where it is yet to be fetched."""
    folder = record.path if weights == "published" else Path(weights)
    if weights == "published" and not folder.exists():
        return None
    if not (folder / file).is_file():
        raise FileNotFoundError(
            f"No {kind} at {folder} ({file} is not in it): give the folder of {record.title}, or "
            "delete it and give 'published' to fetch it"
        )
    return folder


def fetch_file(record: EncoderRecord, file: Path | None = None) -> Path:
    """Download the published file to `record.path`, or to `file`; check it either way."""
    file = file or record.path
    facts = {"num_bytes": record.num_bytes, "checksum": record.checksum}
    try:
        return download_archive(record.url, file, **facts)
    except OSError as error:
        by_hand = f"{Path(record.url).name} there as {file.name}"
        raise OSError(explain_absence(record, error, by_hand)) from error


def explain_absence(record: EncoderRecord, error: object, what: str) -> str:
    """Say why the published weights could not be fetched, and how to have them otherwise."""
    return (
        f"{record.path}: the published weights of {record.title} could not be fetched from "
        f"{record.url} ({error}). Check the network and call again. Otherwise put {what} (see "
        f"{record.homepage}), or give the path of the weights to load_encoder."
    )


def check_arrays(file: Path, arrays: Arrays, shapes: Shapes, *, remedy: str) -> None:
    """Raise ValueError unless the arrays have these names and shapes and are finite."""
    held = ", ".join(sorted(arrays)[:3]) or "nothing"
    for name in dict.fromkeys([*shapes, *arrays]):
        found = arrays[name].shape if name in arrays else f"missing (there is {held})"
        expected = shapes.get(name, "no such array")
        if found != expected:
            raise ValueError(f"{file}: {name} is {found}, expected {expected}; {remedy}")
        if not np.isfinite(arrays[name]).all():
            raise ValueError(f"{file}: {name} holds values that are not finite; {remedy}")


def check_outputs(
    compute: Callable, num_samples: int, expected: tuple[int, ...], *, source: object, remedy: str
) -> None:
    """Raise ValueError unless a tone gives numbers of the shape expected."""
    sound = (0.1 * np.sin(2 * np.pi * 440 * np.arange(num_samples) / 16_000)).astype(np.float32)
    try:
        found = compute(sound).shape
    except Exception as error:  # whatever a model of another make raises
        raise ValueError(
            f"{source}: a waveform (samples,) gives no embeddings {expected} ({error}): {remedy}"
        ) from error
    if found != expected:
        raise ValueError(f"{source}: embeddings {found}, expected {expected}: {remedy}")


def make_network(embed_waveform: Callable) -> Callable[..., np.ndarray]:
    """Make the network of a frozen encoder: waveforms -> embeddings (batch, …, dimensions)."""

    def embed(waveforms: np.ndarray, training: bool = False) -> np.ndarray:
        return np.stack([embed_waveform(waveform) for waveform in waveforms])

    return embed


def make_layer_network(compute_states: ComputeStates, record: EncoderRecord) -> Callable:
    """Make the network of an encoder: waveforms (batch, samples) -> (batch, layers, dimensions).

    Dimensions are mean and standard deviation, over all frames of an utterance, of each of a
    layer's numbers; zeros around a shorter utterance are left out before.
    """

    def embed_waveform(waveform: np.ndarray) -> np.ndarray:
        sound = np.trim_zeros(waveform)
        states = compute_states(fix_length(sound, max(len(sound), record.window_length)))
        return np.concatenate([states.mean(axis=1), states.std(axis=1)], axis=1)

    return make_network(embed_waveform)


def draw_arrays(shapes: Shapes, seed: int = 0) -> Arrays:
    """Draw weights that know nothing: kernels that keep the signal's level, the rest neutral."""
    rng = np.random.default_rng(seed)

    def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
        if len(shape) == 1:
            return np.full(shape, name.endswith(("gamma", "var")))
        return np.sqrt(2 / np.prod(shape[:-1])) * rng.standard_normal(shape)

    return {name: draw(name, shape).astype(np.float32) for name, shape in shapes.items()}


def digest_arrays(arrays: Arrays) -> str:
    """Name weights by what they are."""
    digest = hashlib.sha256()
    for key in sorted(arrays):
        digest.update(key.encode() + arrays[key].tobytes())
    return digest.hexdigest()[:16]
