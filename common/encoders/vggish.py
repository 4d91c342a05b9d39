"""VGGish as a trainable Keras network: front end, layers, weights, post-processing."""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from keras import layers, ops

from common import paths
from common.audio import SAMPLE_RATE_HERTZ
from common.downloads import download_archive
from common.encoders import tfhub
from common.encoders.contract import Arrays, Encoder, EncoderRecord, Weights, register
from common.encoders.weights import check_arrays, digest_arrays, draw_arrays, get_arrays
from common.recipes import Step

RECORD = EncoderRecord(
    name="vggish",
    title="VGGish",
    num_dimensions=128,
    hop_seconds=0.96,
    window_seconds=0.975,
    trainable=True,
    url="https://tfhub.dev/google/vggish/1",
    homepage="https://www.kaggle.com/models/google/vggish",
    licence="Apache License 2.0",
    citation="Hershey et al., CNN architectures for large-scale audio classification, "
    "ICASSP 2017, arXiv:1609.09430",
)
WINDOW, HOP, FFT_LENGTH, NUM_BANDS, EXAMPLE_FRAMES = 400, 160, 512, 64, 96
BLOCKS = {
    **{name: (name,) for name in ("conv1", "conv2")},
    **{name: (f"{name}/{name}_1", f"{name}/{name}_2") for name in ("conv3", "conv4")},
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
    Waveforms (batch, samples) -> (batch, 96 * examples, 64).
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


def build_vggish(arrays: Arrays, *, num_examples: int) -> keras.Model:
    """Build VGGish up to its embedding (Hershey et al., ICASSP 2017), with its weights.

    (batch, 96 * num_examples, 64) -> (batch, num_examples, 128). The embedding has no
    activation; layers, `vggish_conv3_1` and the like, are as wide as the arrays.
    """
    inputs = keras.Input((EXAMPLE_FRAMES * num_examples, NUM_BANDS), name="log_mel")
    x = ops.reshape(inputs, (-1, EXAMPLE_FRAMES, NUM_BANDS, 1))
    for block, scopes in BLOCKS.items():
        for scope in scopes:
            settings = {"padding": "same", "activation": "relu", "name": name_layer(scope)}
            x = layers.Conv2D(len(arrays[f"vggish/{scope}/biases"]), 3, **settings)(x)
        x = layers.MaxPooling2D(2, name=f"vggish_{block}_pool")(x)
    x = layers.Flatten(name="vggish_flatten")(x)
    for scope in DENSE:
        activation = None if scope == "fc2" else "relu"
        units = len(arrays[f"vggish/{scope}/biases"])
        x = layers.Dense(units, activation=activation, name=name_layer(scope))(x)
    outputs = ops.reshape(x, (-1, num_examples, x.shape[-1]))
    model = keras.Model(inputs, outputs, name="vggish")
    parts = ("weights", "biases")
    model.set_weights([arrays[f"vggish/{scope}/{part}"] for scope in SCOPES for part in parts])
    return model


def name_layer(scope: str) -> str:
    """Turn a scope of the released weights into the name of its layer, such as vggish_conv3_1."""
    return f"vggish_{scope.rpartition('/')[2]}"


def shape_vggish(widths: tuple[int, ...] = PUBLISHED_WIDTHS) -> dict[str, tuple[int, ...]]:
    """Give the shapes of the released variables, by name, for layers of those widths."""
    shapes, width = {}, 1
    for scope, units in zip(SCOPES, widths, strict=True):
        if scope == DENSE[0]:
            width *= (EXAMPLE_FRAMES // 16) * (NUM_BANDS // 16)  # four poolings of 2 by 2
        kernel = (width, units) if scope in DENSE else (3, 3, width, units)
        shapes |= {f"vggish/{scope}/weights": kernel, f"vggish/{scope}/biases": (units,)}
        width = units
    return shapes


def draw_vggish(seed: int = 0, *, narrower: int = 8) -> Arrays:
    """Draw weights that know nothing, for a VGGish with a fraction of its width, to try code on."""
    widths = (*(width // narrower for width in PUBLISHED_WIDTHS[:-1]), PUBLISHED_WIDTHS[-1])
    return draw_arrays(shape_vggish(widths), seed)


def read_vggish(path: Path) -> Arrays:
    """Read the released variables from a SavedModel's folder or a checkpoint, and check them."""
    found = tfhub.read_saved_variables(path, RECORD)
    sizes = zip(SCOPES[:-1], PUBLISHED_WIDTHS[:-1], strict=True)  # any narrower one will do
    widths = [len(found.get(f"vggish/{scope}/biases", range(size))) for scope, size in sizes]
    shapes = shape_vggish((*widths, PUBLISHED_WIDTHS[-1]))
    held = {name: found[name] for name in shapes if name in found} or found
    check_arrays(path, held, shapes, remedy="give the path of VGGish's SavedModel or checkpoint")
    return {name: held[name].astype(np.float32) for name in shapes}


@register(RECORD)
def load(record: EncoderRecord, weights: Weights, num_samples: int, trainable: bool) -> Encoder:
    """Load VGGish: the SavedModel, or a Keras network if it is to be trained or is random."""
    if not trainable and weights != "random":
        return tfhub.load(record, weights, num_samples, trainable)
    ways = {"fetch": tfhub.find_saved_model, "read": read_vggish}
    arrays = get_arrays(record, weights, draw=draw_vggish, **ways)
    network = build_vggish(arrays, num_examples=record.count_embeddings(num_samples))
    front_end = VggishFrontEnd(name="front_end")
    return Encoder(record, front_end, network, num_samples, digest_arrays(arrays))


def fetch_vggish_pca() -> Path:
    """Find the parameters of the post-processing in `data/pretrained`, or download them."""
    file = paths.PRETRAINED_DIR / "vggish_pca_params.npz"
    return download_archive(PCA_URL, file, num_bytes=PCA_BYTES, checksum=PCA_CHECKSUM)


@dataclass(frozen=True)
class WhitenVggish(Step):
    """Post-process embeddings (…, 128) as AudioSet's release does: PCA, whitening, eight bits.

    Gives whole numbers from 0 to 255, which stand for -2 to 2 deviations. `file` holds the
    parameters; None takes the published ones. Raises ValueError if it holds something else, or
    the embeddings are not VGGish's.
    """

    file: Path | None = None

    def __post_init__(self) -> None:
        file = self.file or fetch_vggish_pca()
        try:
            with np.load(file, allow_pickle=False) as content:
                vectors, means = content["pca_eigen_vectors"], content["pca_means"].reshape(-1)
        except (ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"{file} does not hold pca_eigen_vectors and pca_means ({error}): delete it to "
                f"fetch {PCA_URL} anew"
            ) from error
        self.__dict__.update(file=file, vectors=vectors, means=means)

    def __call__(self, values: np.ndarray) -> np.ndarray:
        size = len(self.means)
        if (values.shape[-1], *self.vectors.shape) != (size, size, size):
            raise ValueError(
                f"{self.file} is for embeddings of {size} numbers, these have "
                f"{values.shape[-1]}; it fits VGGish alone"
            )
        whitened = np.clip((values - self.means) @ self.vectors.T, -2, 2)
        return np.floor((whitened + 2) * 255 / 4).astype(np.float32)

    def describe(self, *, changed: bool = False) -> dict:
        arrays = {"vectors": self.vectors, "means": self.means}
        return {"step": type(self).__name__, "parameters": digest_arrays(arrays)}

    @classmethod
    def from_settings(cls, settings: dict, encoder: Encoder | None) -> "WhitenVggish":
        """Make the step with the published parameters, if they are what the settings name."""
        step, needed = cls(), settings["parameters"]
        found = step.describe()["parameters"]
        if found != needed:
            raise ValueError(
                f"the model reads embeddings that were whitened with the parameters {needed}, but "
                f"those in {step.file} are {found}; put them there"
            )
        return step
