"""YAMNet, and whatever is published as a SavedModel: fetch it, load it, check its contract."""

import hashlib
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np

from common import paths
from common.encoders.contract import Arrays, Encoder, EncoderRecord, Weights, register
from common.encoders.weights import check_outputs, explain_absence, find_folder, make_network
from common.features import LogMel

YAMNET = EncoderRecord(
    name="yamnet",
    title="YAMNet",
    num_dimensions=1024,
    hop_seconds=0.48,
    window_seconds=0.975,
    url="https://tfhub.dev/google/yamnet/1",
    digest="0cb1934ed9f0f236",
    homepage="https://www.kaggle.com/models/google/yamnet",
    licence="Apache License 2.0",
    citation="Plakal and Ellis, YAMNet, TensorFlow Model Garden, research/audioset/yamnet, "
    "2020; trained on AudioSet (Gemmeke et al., ICASSP 2017)",
)


@register(YAMNET)
def load(record: EncoderRecord, weights: Weights, num_samples: int, trainable: bool) -> Encoder:
    """Load a SavedModel, which is not trained further, or a random stand-in for it.

    A SavedModel runs code. Published weights are compared with the digest of their record before
    they are loaded; VGGish's has none, so whatever TensorFlow Hub sends for it is run.
    """
    if weights == "random":
        return Encoder(record, None, draw_projection(record), num_samples, "random")
    folder = find_saved_model(record, weights)
    digest = digest_saved_model(folder)
    return Encoder(record, None, load_saved_model(folder, record), num_samples, digest)


def find_saved_model(record: EncoderRecord, weights: Weights = "published") -> Path:
    """Give the folder of a SavedModel, which TensorFlow Hub fetches where it is missing.

    `data/pretrained/<name>` is looked at first. Complete downloads are kept below
    `data/pretrained/tfhub`, or in the folder that the environment variable `TFHUB_CACHE_DIR` names.

    Raises ValueError if the published weights have another digest than their record.
    """
    folder = find_folder(record, weights, "SavedModel", "saved_model.pb") or _fetch(record)
    if weights == "published" and record.digest not in (None, found := digest_saved_model(folder)):
        raise ValueError(
            f"{folder}: not the published weights of {record.title} ({found}, expected "
            f"{record.digest}), so they are not loaded, which would run their code: delete the "
            "folder to fetch them again, or, if you trust it, give its path as weights"
        )
    return folder


def _fetch(record: EncoderRecord) -> Path:
    tensorflow, what = import_tensorflow(record), "the SavedModel there"
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
            import tensorflow_hub
    except ImportError as error:
        remedy = f"{error}; pip install tensorflow-hub 'setuptools<82'"
        raise ImportError(explain_absence(record, remedy, what)) from error
    os.environ.setdefault("TFHUB_CACHE_DIR", str(paths.PRETRAINED_DIR / "tfhub"))
    try:
        return Path(tensorflow_hub.resolve(record.url))
    except (OSError, ValueError, RuntimeError, tensorflow.errors.OpError) as error:
        raise OSError(explain_absence(record, error, what)) from error


def load_saved_model(folder: Path, record: EncoderRecord) -> Callable[..., np.ndarray]:
    """Load a SavedModel, waveforms -> embeddings, and see that it is as its record says."""
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

    num_samples = record.count_samples(2.0)
    expected = (record.count_embeddings(num_samples), record.num_dimensions)
    check_outputs(embed_waveform, num_samples, expected, source=folder, remedy=remedy)
    return make_network(embed_waveform)


def draw_projection(record: EncoderRecord) -> Callable[..., np.ndarray]:
    """Make a stand-in: mean and deviation of each window's log-mel bands, projected at random."""
    matrix = np.random.default_rng(0).normal(0, 0.005, (128, record.num_dimensions))

    def embed_waveform(waveform: np.ndarray) -> np.ndarray:
        pieces = np.lib.stride_tricks.sliding_window_view(waveform, record.window_length)
        bands = np.stack([LogMel(num_bands=64)(piece) for piece in pieces[:: record.hop_length]])
        return np.tanh(np.concatenate([bands.mean(axis=1), bands.std(axis=1)], axis=1) @ matrix)

    return make_network(embed_waveform)


def digest_saved_model(folder: Path) -> str:
    """Name a SavedModel by the bytes of its graph and of its variables."""
    digest = hashlib.sha256()
    for path in [folder / "saved_model.pb", *sorted((folder / "variables").glob("*"))]:
        with path.open("rb") as file:
            digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def read_saved_variables(path: Path, record: EncoderRecord) -> Arrays:
    """Read the variables of a SavedModel's folder, or of a checkpoint file, by name."""
    tensorflow = import_tensorflow(record)
    try:
        if not path.is_dir():
            reader = tensorflow.train.load_checkpoint(str(path))
            return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
        model = tensorflow.saved_model.load(str(path))
    except Exception as error:  # whatever a damaged file makes TensorFlow raise
        raise ValueError(
            f"{path} cannot be read ({error}): give the folder of {record.title}'s SavedModel or "
            "the path of its checkpoint"
        ) from error
    variables = getattr(model, "_variables", None) or getattr(model, "variables", ())
    return {variable.name.removesuffix(":0"): variable.numpy() for variable in variables}


def import_tensorflow(record: EncoderRecord) -> ModuleType:
    """Import TensorFlow, which reads SavedModels whatever the backend of Keras is."""
    try:
        import tensorflow
    except ImportError as error:
        raise ImportError(
            f"{record.title} is a SavedModel, which TensorFlow reads: pip install tensorflow "
            "(Keras may go on with another backend)"
        ) from error
    return tensorflow
