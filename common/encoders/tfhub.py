"""Encoders that are published as SavedModels: find or fetch one, load it, check its contract."""

import hashlib
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np

from common import paths
from common.encoders.records import EncoderRecord


def find_saved_model(record: EncoderRecord, weights: str | Path = "published") -> Path:
    """Give the folder of a SavedModel, which TensorFlow Hub fetches where it is missing.

    `data/pretrained/<name>` is looked at first. What is downloaded is kept below
    `data/pretrained/tfhub`, or in the folder that the environment variable `TFHUB_CACHE_DIR`
    names; TensorFlow Hub puts a download there when it is complete.

    Parameters
    ----------
    weights
        "published", or the path of a SavedModel's folder.

    Raises
    ------
    FileNotFoundError
        If the folder holds no SavedModel.
    OSError
        If it could not be downloaded: how to get it otherwise.
    ImportError
        If TensorFlow or TensorFlow Hub cannot be imported.
    """
    folder = paths.PRETRAINED_DIR / record.file_name if weights == "published" else Path(weights)
    if weights == "published" and not folder.exists():
        folder = _fetch_saved_model(record, folder)
    if not (folder / "saved_model.pb").is_file():
        raise FileNotFoundError(
            f"No SavedModel at {folder} (saved_model.pb is not in it): give the folder of "
            f"{record.title}'s, or delete it and give 'published' to fetch it"
        )
    return folder


def _fetch_saved_model(record: EncoderRecord, folder: Path) -> Path:
    remedy = (
        f"put the SavedModel (see {record.homepage}) into {folder}, or give its path to "
        "load_encoder"
    )
    tensorflow = import_tensorflow(record)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
            import tensorflow_hub
    except ImportError as error:
        raise ImportError(
            f"{record.title} is not here yet, and tensorflow-hub cannot be imported ({error}): "
            f"pip install tensorflow-hub 'setuptools<82'. Otherwise {remedy}."
        ) from error
    os.environ.setdefault("TFHUB_CACHE_DIR", str(paths.PRETRAINED_DIR / "tfhub"))
    try:
        return Path(tensorflow_hub.resolve(record.url))
    except (OSError, ValueError, RuntimeError, tensorflow.errors.OpError) as error:
        raise OSError(
            f"{record.url}: {record.title} could not be fetched ({error}). Check the network and "
            f"call again. Otherwise {remedy}."
        ) from error


def load_saved_model(folder: Path, record: EncoderRecord) -> Callable[..., np.ndarray]:
    """Load a SavedModel and see that it keeps the contract of the published one.

    Returns
    -------
    Callable
        Waveforms (batch, samples) -> embeddings (batch, embeddings, dimensions), float32.

    Raises
    ------
    ValueError
        If it cannot be read, or gives something else for a second of sound.
    """
    tensorflow = import_tensorflow(record)
    remedy = f"give the folder of {record.title}'s SavedModel, or delete it to fetch it anew"
    try:
        model = tensorflow.saved_model.load(str(folder))
    except Exception as error:  # whatever a damaged file makes TensorFlow raise
        raise ValueError(f"{folder} cannot be read as a SavedModel ({error}): {remedy}") from error

    def embed_waveform(waveform: np.ndarray) -> np.ndarray:
        given = model(tensorflow.constant(waveform, tensorflow.float32))
        if isinstance(given, (tuple, list)):  # YAMNet: scores, embeddings, log-mel spectrogram
            given = given[1]
        return given.numpy()

    rate = record.sample_rate_hertz
    sound = 0.1 * np.sin(2 * np.pi * 440 * np.arange(record.count_samples(2.0)) / rate)
    expected = (record.count_embeddings(len(sound)), record.num_dimensions)
    try:
        found = embed_waveform(sound).shape
    except Exception as error:  # not callable, other inputs, no second output, missing files
        raise ValueError(
            f"{folder}: a waveform (samples,) gives no embeddings {expected} ({error}): {remedy}"
        ) from error
    if found != expected:
        raise ValueError(f"{folder}: embeddings {found}, expected {expected}: {remedy}")

    def embed(waveforms: np.ndarray, training: bool = False) -> np.ndarray:
        return np.stack([embed_waveform(waveform) for waveform in waveforms])

    return embed


def digest_saved_model(folder: Path) -> str:
    """Name a SavedModel by the bytes of its graph and of its variables."""
    digest = hashlib.sha256()
    for path in [folder / "saved_model.pb", *sorted((folder / "variables").glob("*"))]:
        with path.open("rb") as file:
            digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def read_saved_variables(path: Path, record: EncoderRecord) -> dict[str, np.ndarray]:
    """Read the variables of a SavedModel's folder, or of a checkpoint file, by name.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file, or it cannot be read.
    """
    tensorflow = import_tensorflow(record)
    remedy = f"give the folder of {record.title}'s SavedModel or the path of its checkpoint"
    if not path.exists() and not list(path.parent.glob(f"{path.name}.index")):
        raise FileNotFoundError(f"No weights at {path}: {remedy}, or 'published'")
    try:
        if not path.is_dir():
            reader = tensorflow.train.load_checkpoint(str(path))
            return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
        model = tensorflow.saved_model.load(str(path))
    except Exception as error:  # whatever a damaged file makes TensorFlow raise
        raise ValueError(f"{path} cannot be read ({error}): {remedy}") from error
    variables = getattr(model, "_variables", None) or getattr(model, "variables", ())
    return {variable.name.removesuffix(":0"): variable.numpy() for variable in variables}


def import_tensorflow(record: EncoderRecord) -> ModuleType:
    """Import TensorFlow, which reads SavedModels whatever the backend of Keras is.

    Raises
    ------
    ImportError
        If it is missing.
    """
    try:
        import tensorflow
    except ImportError as error:
        raise ImportError(
            f"{record.title} is a SavedModel, which TensorFlow reads: pip install tensorflow "
            "(Keras may go on with another backend)"
        ) from error
    return tensorflow
