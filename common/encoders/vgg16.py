"""VGG16 on pictures of sound: waveform to picture, windows, network, where its weights are from."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
from keras import layers, ops

from common import paths
from common.audio import SAMPLE_RATE_HERTZ
from common.downloads import download_archive
from common.encoders.records import EncoderRecord
from common.features import FeatureConfig, compute_features

PICTURE = FeatureConfig(trim_top_db=None, hop_length_seconds=0.01, num_bands=128)
WINDOW_FRAMES, HOP_FRAMES = 128, 64
FILTERS = {
    "block1": (64, 64),
    "block2": (128, 128),
    "block3": (256, 256, 256),
    "block4": (512, 512, 512),
    "block5": (512, 512, 512),
}
CONVOLUTIONS = {
    f"{block}_conv{number}": width
    for block, widths in FILTERS.items()
    for number, width in enumerate(widths, start=1)
}


def make_pictures(waveforms: np.ndarray) -> np.ndarray:
    """Turn waveforms into pictures: log-mel bands, one frame per 10 ms, brightness 0 to 255.

    The loudest point of an utterance is white (255); black (0) is `PICTURE.range_db` below it.

    Parameters
    ----------
    waveforms
        Shape (batch, samples), 16 kHz; whole frames.

    Returns
    -------
    np.ndarray, shape (batch, samples // 160, 128), float32
    """
    config = replace(PICTURE, duration_seconds=waveforms.shape[1] / SAMPLE_RATE_HERTZ)
    bands = np.stack([compute_features(waveform, config) for waveform in waveforms])[:, :-1]
    above_floor = bands - bands.max(axis=(1, 2), keepdims=True) + config.range_db
    return 255 / config.range_db * above_floor


@keras.saving.register_keras_serializable(package="ser")
class CutWindows(layers.Layer):
    """Cut pictures into windows of `length` frames, `step` apart, and make them VGG16's images.

    High bands are on top, time runs to the right, the three colours are equal before the mean
    colour of ImageNet is taken off.

    Call: (batch, frames, bands) -> (batch * windows, bands, length, 3).
    """

    def __init__(self, length: int = WINDOW_FRAMES, step: int = HOP_FRAMES, **kwargs) -> None:
        super().__init__(**kwargs)
        self.length, self.step = length, step

    def call(self, pictures):
        rows = ops.flip(ops.swapaxes(pictures, 1, 2), axis=1)
        windows = ops.swapaxes(ops.extract_sequences(rows, self.length, self.step), 1, 2)
        images = ops.reshape(windows, (-1, pictures.shape[2], self.length, 1))
        return keras.applications.vgg16.preprocess_input(ops.repeat(images, 3, axis=-1))

    def compute_output_shape(self, input_shape):
        return (None, input_shape[2], self.length, 3)

    def get_config(self):
        return {**super().get_config(), "length": self.length, "step": self.step}


def build_vgg16(arrays: Mapping[str, np.ndarray], *, num_windows: int) -> keras.Model:
    """Build VGG16 up to its last convolutions (Simonyan and Zisserman 2015), with its weights.

    (batch, 64 * (num_windows + 1), 128) -> (batch, num_windows, 512): for each window the
    average over its image of what block 5 gives. All of it can be trained further; layers are
    called `block5_conv3` and the like, and are as wide as the arrays.
    """
    num_frames = WINDOW_FRAMES + HOP_FRAMES * (num_windows - 1)
    inputs = keras.Input((num_frames, PICTURE.num_bands), name="picture")
    windows = CutWindows(name="windows")(inputs)
    network = keras.applications.VGG16(
        include_top=False, weights=None, input_tensor=windows, pooling="avg"
    )
    outputs = ops.reshape(network.output, (-1, num_windows, network.output.shape[-1]))

    def fit_width(layer: layers.Layer) -> layers.Layer:
        config = layer.get_config()
        if layer.name in CONVOLUTIONS:
            config["filters"] = len(arrays[f"{layer.name}/bias"])
        return type(layer).from_config(config)

    model = keras.Model(inputs, outputs, name="vgg16")
    model = keras.models.clone_model(model, clone_function=fit_width)
    for name in CONVOLUTIONS:
        parts = [arrays[f"{name}/{part}"] for part in ("kernel", "bias")]
        model.get_layer(name).set_weights(parts)
    return model


def draw_vgg16(seed: int = 0, *, narrower: int = 8) -> dict[str, np.ndarray]:
    """Draw weights that know nothing, for a VGG16 with a fraction of its width, to try code on.

    The embeddings have as many numbers as the published ones, of the order of 1.
    """
    rng = np.random.default_rng(seed)
    arrays, width = {}, 3
    for name, filters in CONVOLUTIONS.items():
        filters = filters if name == "block5_conv3" else filters // narrower
        scale = np.sqrt(2 / (9 * width)) / (100 if name == "block1_conv1" else 1)
        kernel = scale * rng.standard_normal((3, 3, width, filters))
        arrays[f"{name}/kernel"] = kernel.astype(np.float32)
        arrays[f"{name}/bias"] = np.zeros(filters, np.float32)
        width = filters
    return arrays


def read_vgg16(file: Path) -> dict[str, np.ndarray]:
    """Read the weights from a file as Keras publishes or saves them (.h5), and check them.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file, or it does not hold the convolutions of VGG16.
    """
    remedy = "give the path of VGG16's weights without its top (.h5), or delete it to fetch it anew"
    if not file.is_file():
        raise FileNotFoundError(f"No weights at {file}: give another path, or 'published'")
    model = keras.applications.VGG16(include_top=False, weights=None)
    try:
        model.load_weights(file)
    except Exception as error:  # whatever a damaged or another file makes Keras and h5py raise
        raise ValueError(
            f"{file} does not hold the weights of VGG16 ({error}): {remedy}"
        ) from error
    arrays = {}
    for name in CONVOLUTIONS:
        kernel, bias = model.get_layer(name).get_weights()
        arrays |= {f"{name}/kernel": kernel, f"{name}/bias": bias}
    bad = [name for name, array in arrays.items() if not np.isfinite(array).all()]
    if bad:
        raise ValueError(f"{file}: {bad[0]} holds values that are not finite; {remedy}")
    return arrays


def fetch_vgg16(record: EncoderRecord) -> Path:
    """Find the published weights in `data/pretrained`, or download them; check them either way.

    Raises
    ------
    OSError
        If they are not there and could not be downloaded: how to get them otherwise.
    ValueError
        If what arrived is not the published file; it is not kept.
    """
    file = paths.PRETRAINED_DIR / record.file_name
    try:
        return download_archive(
            record.url, file, num_bytes=record.num_bytes, checksum=record.checksum
        )
    except OSError as error:
        raise OSError(
            f"{file}: the published weights of {record.title} are not here yet. {error} Otherwise "
            f"put {Path(record.url).name} there under that name (see {record.homepage}), or give "
            "its path to load_encoder."
        ) from error
