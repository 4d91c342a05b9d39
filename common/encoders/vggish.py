"""VGGish as a trainable Keras network: front end, layers, weights, post-processing."""

import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
from keras import layers, ops

from common import paths
from common.audio import SAMPLE_RATE_HERTZ
from common.downloads import download_archive
from common.encoders.records import ENCODERS, EncoderRecord
from common.encoders.tfhub import read_saved_variables
from common.features import Features

WINDOW, HOP, FFT_LENGTH, NUM_BANDS, EXAMPLE_FRAMES = 400, 160, 512, 64, 96
BLOCKS = {
    "conv1": ("conv1",),
    "conv2": ("conv2",),
    "conv3": ("conv3/conv3_1", "conv3/conv3_2"),
    "conv4": ("conv4/conv4_1", "conv4/conv4_2"),
}
DENSE = ("fc1/fc1_1", "fc1/fc1_2", "fc2")
SCOPES = (*(scope for scopes in BLOCKS.values() for scope in scopes), *DENSE)
PUBLISHED_WIDTHS = (64, 128, 256, 256, 512, 512, 4096, 4096, 128)

PCA_URL = "https://storage.googleapis.com/audioset/vggish_pca_params.npz"
PCA_BYTES = 73_020
PCA_CHECKSUM = "sha256:4d878af3e306defbfb37095365aa7e5a6cecb86bad13e859e626151c4e6a8b9d"


@keras.saving.register_keras_serializable(package="ser")
class VggishFrontEnd(layers.Layer):
    """Log-mel spectrogram of VGGish, one frame per 10 ms, 64 bands, in examples of 96 frames.

    Periodic Hann windows of 25 ms that start at the first sample, an FFT of 512 points,
    magnitude (not power), 64 bands from 125 to 7500 Hz that are triangles on the HTK mel scale,
    log(mel + 0.01). Frames that fill no example are left out (Hershey et al., ICASSP 2017;
    tensorflow/models, research/audioset/vggish).

    Call: waveforms (batch, samples) -> (batch, 96 * examples, 64).
    """

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self.window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW, dtype=np.float32) / WINDOW)
        edges = np.linspace(*_to_mel(np.array([125.0, 7500.0])), NUM_BANDS + 2)
        hertz = np.linspace(0, SAMPLE_RATE_HERTZ / 2, FFT_LENGTH // 2 + 1)
        mels, widths = _to_mel(hertz)[:, None], np.diff(edges)
        rising, falling = (mels - edges[:-2]) / widths[:-1], (edges[2:] - mels) / widths[1:]
        self.filters = np.maximum(0, np.minimum(rising, falling)).astype(np.float32)

    def call(self, waveforms):
        frames = ops.extract_sequences(waveforms, WINDOW, HOP) * self.window
        real, imaginary = ops.rfft(frames, FFT_LENGTH)
        magnitude = ops.sqrt(ops.square(real) + ops.square(imaginary))
        values = ops.log(ops.matmul(magnitude, self.filters) + 0.01)
        return values[:, : EXAMPLE_FRAMES * (values.shape[1] // EXAMPLE_FRAMES)]

    def compute_output_shape(self, input_shape):
        num_frames = 1 + (input_shape[1] - WINDOW) // HOP
        return (input_shape[0], EXAMPLE_FRAMES * (num_frames // EXAMPLE_FRAMES), NUM_BANDS)


def _to_mel(hertz: np.ndarray) -> np.ndarray:
    return 1127 * np.log1p(hertz / 700)


def build_vggish(arrays: Mapping[str, np.ndarray], *, num_examples: int) -> keras.Model:
    """Build VGGish up to its embedding (Hershey et al., ICASSP 2017), with its weights.

    (batch, 96 * num_examples, 64) -> (batch, num_examples, 128). The embedding has no
    activation. All of it can be trained further; layers are called `vggish_conv3_1` and the
    like, and are as wide as the arrays.
    """
    inputs = keras.Input((EXAMPLE_FRAMES * num_examples, NUM_BANDS), name="log_mel")
    x = ops.reshape(inputs, (-1, EXAMPLE_FRAMES, NUM_BANDS, 1))
    for block, scopes in BLOCKS.items():
        for scope in scopes:
            filters = len(arrays[f"vggish/{scope}/biases"])
            settings = {"padding": "same", "activation": "relu", "name": name_layer(scope)}
            x = layers.Conv2D(filters, 3, **settings)(x)
        x = layers.MaxPooling2D(2, name=f"vggish_{block}_pool")(x)
    x = layers.Flatten(name="vggish_flatten")(x)
    for scope in DENSE:
        activation = None if scope == "fc2" else "relu"
        units = len(arrays[f"vggish/{scope}/biases"])
        x = layers.Dense(units, activation=activation, name=name_layer(scope))(x)
    outputs = ops.reshape(x, (-1, num_examples, x.shape[-1]))
    model = keras.Model(inputs, outputs, name="vggish")
    for scope in SCOPES:
        parts = [arrays[f"vggish/{scope}/{part}"] for part in ("weights", "biases")]
        model.get_layer(name_layer(scope)).set_weights(parts)
    return model


def name_layer(scope: str) -> str:
    """Turn a scope of the released weights into the name of its layer, such as vggish_conv3_1."""
    return f"vggish_{scope.rpartition('/')[2]}"


def shape_vggish(widths: tuple[int, ...] = PUBLISHED_WIDTHS) -> dict[str, tuple[int, ...]]:
    """Give the shapes of the released variables, by name, for layers of those widths."""
    shapes: dict[str, tuple[int, ...]] = {}
    width = 1
    for scope, units in zip(SCOPES, widths, strict=True):
        if scope == DENSE[0]:
            width *= (EXAMPLE_FRAMES // 16) * (NUM_BANDS // 16)  # four poolings of 2 by 2
        kernel = (width, units) if scope in DENSE else (3, 3, width, units)
        shapes |= {f"vggish/{scope}/weights": kernel, f"vggish/{scope}/biases": (units,)}
        width = units
    return shapes


def draw_vggish(seed: int = 0, *, narrower: int = 8) -> dict[str, np.ndarray]:
    """Draw weights that know nothing, for a VGGish with a fraction of its width, to try code on."""
    widths = (*(width // narrower for width in PUBLISHED_WIDTHS[:-1]), PUBLISHED_WIDTHS[-1])
    rng = np.random.default_rng(seed)
    arrays = {}
    for name, shape in shape_vggish(widths).items():
        scale = np.sqrt(2 / np.prod(shape[:-1])) if name.endswith("weights") else 0
        arrays[name] = (scale * rng.standard_normal(shape)).astype(np.float32)
    return arrays


def read_vggish(path: Path) -> dict[str, np.ndarray]:
    """Read the released variables from a SavedModel's folder or a checkpoint, and check them.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is nothing at `path`, or it does not hold the layers of VGGish.
    """
    found = read_saved_variables(path, ENCODERS["vggish"])
    remedy = "give the path of VGGish's SavedModel or checkpoint"
    widths = [len(found.get(f"vggish/{scope}/biases", ())) for scope in SCOPES]
    arrays = {}
    for name, shape in shape_vggish((*widths[:-1], PUBLISHED_WIDTHS[-1])).items():
        if name not in found:
            held = ", ".join(sorted(found)[:3]) or "no variables"
            raise ValueError(f"{path}: {name} is missing (there is {held}); {remedy}")
        if found[name].shape != shape:
            raise ValueError(f"{path}: {name} is {found[name].shape}, expected {shape}; {remedy}")
        if not np.isfinite(found[name]).all():
            raise ValueError(f"{path}: {name} holds values that are not finite; {remedy}")
        arrays[name] = found[name].astype(np.float32)
    return arrays


def draw_projection(record: EncoderRecord, seed: int = 0) -> Callable[..., np.ndarray]:
    """Make a stand-in for a SavedModel: same inputs and outputs, random numbers, to try code on.

    It projects the mean and the deviation over time of each window's log-mel bands.
    """
    rng = np.random.default_rng(seed)
    matrix = rng.normal(0, 0.1, (2 * NUM_BANDS, record.num_dimensions)).astype(np.float32)
    front_end = VggishFrontEnd()
    window, hop = (
        round(seconds * SAMPLE_RATE_HERTZ)
        for seconds in (record.window_seconds, record.hop_seconds)
    )

    def embed(waveforms: np.ndarray, training: bool = False) -> np.ndarray:
        pieces = np.lib.stride_tricks.sliding_window_view(waveforms, window, axis=1)[:, ::hop]
        bands = ops.convert_to_numpy(front_end(pieces.reshape(-1, window)))
        statistics = np.concatenate([bands.mean(axis=1), bands.std(axis=1)], axis=-1)
        return np.tanh(statistics @ matrix).reshape(*pieces.shape[:2], -1)

    return embed


def fetch_vggish_pca() -> Path:
    """Find the parameters of the post-processing in `data/pretrained`, or download them.

    Raises
    ------
    OSError, ValueError
        If they could not be downloaded, or are not those that were published.
    """
    file = paths.PRETRAINED_DIR / "vggish_pca_params.npz"
    if not file.exists():
        download_archive(PCA_URL, file, num_bytes=PCA_BYTES, checksum=PCA_CHECKSUM)
    return file


def apply_vggish_pca(features: Features, file: Path) -> Features:
    """Post-process embeddings as the AudioSet release does: PCA, whitening, eight bits.

    Parameters
    ----------
    features
        Embeddings of VGGish, (utterances, embeddings, 128).
    file
        What `fetch_vggish_pca` gives.

    Returns
    -------
    Features
        The same shapes; whole numbers from 0 to 255, which stand for -2 to 2 deviations.

    Raises
    ------
    ValueError
        If the file holds other arrays, or the embeddings are not VGGish's.
    """
    try:
        with np.load(file, allow_pickle=False) as content:
            vectors, means = content["pca_eigen_vectors"], content["pca_means"].reshape(-1)
    except (ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{file} does not hold pca_eigen_vectors and pca_means ({error}): delete it to fetch "
            f"{PCA_URL} anew"
        ) from error
    if features.values.shape[-1] != len(means) or vectors.shape != (len(means), len(means)):
        raise ValueError(
            f"{file} is for embeddings of {len(means)} numbers, these have "
            f"{features.values.shape[-1]}; it fits VGGish alone"
        )

    def process(values: np.ndarray) -> np.ndarray:
        whitened = np.clip((values - means) @ vectors.T, -2, 2)
        return np.floor((whitened + 2) * 255 / 4).astype(np.float32)

    return replace(
        features,
        values=process(features.values),
        copies=process(features.copies),
        description={**features.description, "post_processing": "VGGish PCA, 8 bits"},
    )
