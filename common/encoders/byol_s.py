"""BYOL-S as a trainable Keras network: front end, layers, and where its weights come from."""

import zipfile
from collections.abc import Mapping
from pathlib import Path

import keras
import librosa
import numpy as np
from keras import layers, ops

from common import paths
from common.audio import SAMPLE_RATE_HERTZ
from common.downloads import download_archive
from common.encoders.records import EncoderRecord
from common.files import write_atomically

NORM_PARTS = {"gamma": "weight", "beta": "bias", "mean": "running_mean", "var": "running_var"}
BYOL_S_SHAPES = {
    **{f"conv{number}_kernel": (3, 3, 1 if number == 1 else 64, 64) for number in (1, 2, 3)},
    **{f"conv{number}_bias": (64,) for number in (1, 2, 3)},
    **{f"bn{number}_{part}": (64,) for number in (1, 2, 3) for part in NORM_PARTS},
    **{f"fc{number}_kernel": (512, 512) for number in (1, 2)},
    **{f"fc{number}_bias": (512,) for number in (1, 2)},
}


@keras.saving.register_keras_serializable(package="ser")
class ByolFrontEnd(layers.Layer):
    """Log-mel spectrogram of BYOL-A and BYOL-S, one frame per 10 ms, 64 bands.

    Hann windows of 25 ms in an FFT of 1024 points, power, 64 HTK mel bands from 60 to 7800 Hz,
    natural logarithm. Each utterance is standardised by its own mean and deviation, in which
    frames of digital silence, as put around a short one, do not count.

    Call: waveforms (batch, samples) -> (batch, 1 + samples // 160, 64).
    """

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        filters = librosa.filters.mel(
            sr=SAMPLE_RATE_HERTZ, n_fft=1024, n_mels=64, fmin=60, fmax=7800, htk=True, norm=None
        )
        self.filters = filters.T.astype(np.float32)

    def compute_log_mel(self, waveforms):
        """Give the logarithms before they are standardised, and the power they are of."""
        real, imaginary = ops.stft(waveforms, 400, 160, 1024, window="hann", center=True)
        power = ops.matmul(ops.square(real) + ops.square(imaginary), self.filters)
        return ops.log(power + float(np.finfo(np.float32).eps)), power

    def call(self, waveforms):
        values, power = self.compute_log_mel(waveforms)
        sounding = ops.cast(ops.sum(power, axis=2, keepdims=True) > 0, "float32")
        count = ops.maximum(ops.sum(sounding, axis=1, keepdims=True), 1)

        def average(x):
            return ops.mean(ops.sum(sounding * x, axis=1, keepdims=True) / count, 2, keepdims=True)

        mean = average(values)
        variance = average(ops.square(values - mean))
        return (values - mean) / ops.sqrt(ops.maximum(variance, 1e-6))

    def compute_output_shape(self, input_shape):
        num_samples = input_shape[1]
        return (input_shape[0], num_samples and 1 + num_samples // 160, 64)


def build_byol_s(arrays: Mapping[str, np.ndarray], *, dropout: float = 0.3) -> keras.Model:
    """Build the network of BYOL-S, AudioNTT2020 (Niizumi et al., IJCNN 2021), with its weights.

    (batch, frames, 64) -> (batch, frames // 8, 512); needs at least 8 frames. All of it can
    be trained further.
    """
    inputs = keras.Input((None, 64), name="log_mel")
    x = layers.Reshape((-1, 64, 1), name="image")(inputs)
    for number in (1, 2, 3):
        x = layers.Conv2D(64, 3, padding="same", name=f"byol_{number}_conv")(x)
        x = layers.BatchNormalization(epsilon=1e-5, name=f"byol_{number}_norm")(x)
        x = layers.ReLU(name=f"byol_{number}_relu")(x)
        x = layers.MaxPooling2D(2, name=f"byol_{number}_pool")(x)
    x = layers.Reshape((-1, 512), name="byol_steps")(x)
    x = layers.Dense(512, activation="relu", name="byol_4_dense")(x)
    x = layers.Dropout(dropout, name="byol_4_dropout")(x)
    x = layers.Dense(512, activation="relu", name="byol_5_dense")(x)
    model = keras.Model(inputs, x, name="byol_s")
    for number in (1, 2, 3):
        kernel = arrays[f"conv{number}_kernel"].transpose(1, 0, 2, 3)  # mel, time -> time, mel
        model.get_layer(f"byol_{number}_conv").set_weights([kernel, arrays[f"conv{number}_bias"]])
        parts = [arrays[f"bn{number}_{part}"] for part in NORM_PARTS]
        model.get_layer(f"byol_{number}_norm").set_weights(parts)
    for number, layer in ((1, "byol_4_dense"), (2, "byol_5_dense")):
        kernel, bias = arrays[f"fc{number}_kernel"], arrays[f"fc{number}_bias"]
        model.get_layer(layer).set_weights([kernel, bias])
    return model


def draw_byol_s(seed: int = 0) -> dict[str, np.ndarray]:
    """Draw weights for BYOL-S that know nothing, of the size that keeps the signal's level."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for name, shape in BYOL_S_SHAPES.items():
        if name.endswith("kernel"):
            scale = np.sqrt(2 / np.prod(shape[:-1]))
            arrays[name] = (scale * rng.standard_normal(shape)).astype(np.float32)
        else:
            arrays[name] = np.full(shape, name.endswith(("gamma", "var")), dtype=np.float32)
    return arrays


def read_byol_s(file: Path) -> dict[str, np.ndarray]:
    """Read the arrays of BYOL-S from an .npz file; refuse one that holds anything else."""
    remedy = "give the path of a file with the weights of BYOL-S, or delete it to fetch them anew"
    if not file.is_file():
        raise FileNotFoundError(f"No weights at {file}: give another path, or 'published'")
    try:
        with np.load(file, allow_pickle=False) as content:
            arrays = {name: content[name].astype(np.float32) for name in content.files}
    except (ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{file} is not an .npz file ({error}): {remedy}") from error
    shapes = {name: array.shape for name, array in arrays.items()}
    for name in sorted(BYOL_S_SHAPES.keys() | shapes.keys()):
        if shapes.get(name) != BYOL_S_SHAPES.get(name):
            found, expected = shapes.get(name, "missing"), BYOL_S_SHAPES.get(name, "no such array")
            raise ValueError(f"{file}: {name} is {found}, expected {expected}; {remedy}")
    bad = [name for name, array in arrays.items() if not np.isfinite(array).all()]
    if bad:
        raise ValueError(f"{file}: {bad[0]} holds values that are not finite; {remedy}")
    return arrays


def convert_byol_s(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Turn the arrays of the PyTorch checkpoint into those that `read_byol_s` reads.

    PyTorch's kernels are (out, in, mel, time) and (out, in); here they are (mel, time, in,
    out) and (in, out).
    """
    arrays = {}
    for number, index in ((1, 0), (2, 4), (3, 8)):
        kernel = state[f"features.{index}.weight"].transpose(2, 3, 1, 0)
        arrays |= {
            f"conv{number}_kernel": kernel,
            f"conv{number}_bias": state[f"features.{index}.bias"],
        }
        for part, name in NORM_PARTS.items():
            arrays[f"bn{number}_{part}"] = state[f"features.{index + 1}.{name}"]
    for number, index in ((1, 0), (2, 3)):
        arrays[f"fc{number}_kernel"] = state[f"fc.{index}.weight"].T
        arrays[f"fc{number}_bias"] = state[f"fc.{index}.bias"]
    return {name: np.ascontiguousarray(array, dtype=np.float32) for name, array in arrays.items()}


def fetch_byol_s(record: EncoderRecord) -> Path:
    """Find the weights in `data/pretrained`; download and convert them if they are missing."""
    file = paths.PRETRAINED_DIR / record.file_name
    if file.exists():
        return file
    remedy = (
        f"or put {record.file_name} there yourself (see {record.homepage}), or give its path to "
        "load_encoder"
    )
    checkpoint = file.with_name(Path(record.url).name)
    try:
        download_archive(
            record.url, checkpoint, num_bytes=record.num_bytes, checksum=record.checksum
        )
    except OSError as error:
        raise OSError(
            f"{file}: {record.title} is not here yet. {error} Otherwise {remedy}."
        ) from error
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f"{checkpoint} is PyTorch's format: pip install -r requirements-torch.txt, {remedy}."
        ) from error
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    arrays = convert_byol_s({name: tensor.numpy() for name, tensor in state.items()})
    with write_atomically(file) as temporary:
        np.savez(temporary, **arrays)
    return file
