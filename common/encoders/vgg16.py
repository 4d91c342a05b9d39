"""VGG16 on pictures of sound: waveform to picture, windows, network, where its weights are from."""

from pathlib import Path

import keras
import numpy as np
from keras import layers, ops

from common.encoders.contract import Arrays, Encoder, EncoderRecord, Weights, register
from common.encoders.weights import check_arrays, digest_arrays, draw_arrays, fetch_file, get_arrays
from common.features import LogMel

RECORD = EncoderRecord(
    name="vgg16",
    title="VGG16",
    num_dimensions=512,
    hop_seconds=0.64,
    window_seconds=1.28,
    trainable=True,
    url="https://storage.googleapis.com/tensorflow/keras-applications/vgg16/"
    "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
    num_bytes=58_889_256,
    checksum="md5:6d6bbae143d832006294945121d1f1fc",
    file_name="vgg16_notop.h5",
    homepage="https://keras.io/api/applications/vgg/",
    licence="CC BY 4.0 (Visual Geometry Group, University of Oxford)",
    citation="Simonyan and Zisserman, Very deep convolutional networks for large-scale image "
    "recognition, ICLR 2015, arXiv:1409.1556; trained on ImageNet (Russakovsky et al., "
    "IJCV 2015)",
)
PICTURE = LogMel(hop_seconds=0.01, num_bands=128)
WINDOW_FRAMES, HOP_FRAMES = 128, 64
CONVOLUTIONS = {
    f"block{block}_conv{number}": width
    for block, (width, count) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)), 1)
    for number in range(1, count + 1)
}
NAMES = [f"{name}/{part}" for name in CONVOLUTIONS for part in ("kernel", "bias")]


def make_pictures(waveforms: np.ndarray) -> np.ndarray:
    """Turn waveforms into pictures: log-mel bands, one frame per 10 ms, brightness 0 to 255.

    The loudest point of an utterance is white (255); black (0) is `PICTURE.range_db` below it.
    (batch, samples), whole frames, -> (batch, samples // 160, 128), float32.
    """
    bands = np.stack([PICTURE(waveform) for waveform in waveforms])[:, :-1]
    above_floor = bands - bands.max(axis=(1, 2), keepdims=True) + PICTURE.range_db
    return 255 / PICTURE.range_db * above_floor


@keras.saving.register_keras_serializable(package="ser")
class CutWindows(layers.Layer):
    """Cut pictures into windows of `length` frames, `step` apart, and make them VGG16's images.

    High bands are on top, time runs to the right, the three colours are equal before the mean
    colour of ImageNet is taken off. (batch, frames, bands) -> (batch * windows, bands, length, 3).
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


def build_vgg16(arrays: Arrays, *, num_windows: int) -> keras.Model:
    """Build VGG16 up to its last convolutions (Simonyan and Zisserman 2015), with its weights.

    (batch, 64 * (num_windows + 1), 128) -> (batch, num_windows, 512): for each window the
    average over its image of what block 5 gives. Layers, `block5_conv3` and the like, are as
    wide as the arrays.
    """
    num_frames = WINDOW_FRAMES + HOP_FRAMES * (num_windows - 1)
    inputs = keras.Input((num_frames, PICTURE.num_bands), name="picture")
    windows = CutWindows(name="windows")(inputs)
    settings = {"include_top": False, "weights": None, "pooling": "avg"}
    average = keras.applications.VGG16(input_tensor=windows, **settings).output
    outputs = ops.reshape(average, (-1, num_windows, average.shape[-1]))

    def fit_width(layer: layers.Layer) -> layers.Layer:
        config = layer.get_config()
        if layer.name in CONVOLUTIONS:
            config["filters"] = len(arrays[f"{layer.name}/bias"])
        return type(layer).from_config(config)

    model = keras.Model(inputs, outputs, name="vgg16")
    model = keras.models.clone_model(model, clone_function=fit_width)
    model.set_weights([arrays[name] for name in NAMES])
    return model


def draw_vgg16(seed: int = 0, *, narrower: int = 8) -> Arrays:
    """Draw weights that know nothing, for a VGG16 with a fraction of its width, to try code on."""
    shapes, width = {}, 3
    for name, filters in CONVOLUTIONS.items():
        filters = filters if name == "block5_conv3" else filters // narrower
        shapes |= {f"{name}/kernel": (3, 3, width, filters), f"{name}/bias": (filters,)}
        width = filters
    arrays = draw_arrays(shapes, seed)
    arrays["block1_conv1/kernel"] /= 100  # colours reach 255
    return arrays


def read_vgg16(file: Path) -> Arrays:
    """Read the weights from a file as Keras publishes or saves them (.h5), and check them."""
    remedy = "give the path of VGG16's weights without its top (.h5), or delete it to fetch it anew"
    model = keras.applications.VGG16(include_top=False, weights=None)
    try:
        model.load_weights(file)
    except Exception as error:  # whatever a damaged or another file makes Keras and h5py raise
        message = f"{file} does not hold the weights of VGG16 ({error}): {remedy}"
        raise ValueError(message) from error
    arrays = dict(zip(NAMES, model.get_weights(), strict=True))
    check_arrays(file, arrays, {name: arrays[name].shape for name in NAMES}, remedy=remedy)
    return arrays


@register(RECORD)
def load(record: EncoderRecord, weights: Weights, num_samples: int, trainable: bool) -> Encoder:
    """Load VGG16, a Keras network either way."""
    arrays = get_arrays(record, weights, draw=draw_vgg16, fetch=fetch_file, read=read_vgg16)
    network = build_vgg16(arrays, num_windows=record.count_embeddings(num_samples))
    return Encoder(record, make_pictures, network, num_samples, digest_arrays(arrays))
