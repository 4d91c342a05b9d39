"""BYOL-S as a trainable Keras network: front end, layers, and where its weights come from."""

import zipfile
from pathlib import Path

import keras
import librosa
import numpy as np
from keras import layers, ops

from common.audio import SAMPLE_RATE_HERTZ
from common.encoders.contract import Arrays, Encoder, EncoderRecord, Weights, register
from common.encoders.weights import check_arrays, digest_arrays, draw_arrays, fetch_file, get_arrays
from common.files import write_atomically

RECORD = EncoderRecord(
    name="byol_s",
    title="BYOL-S",
    num_dimensions=512,
    hop_seconds=0.08,
    trainable=True,
    url="https://raw.githubusercontent.com/Neclow/SERAB/"
    "8023cb75dc6f32a6f211bfbc83efe9491c41d8b7/SERAB/checkpoints/"
    "default512_BYOLAs64x96-2107281850-e100-bs256-lr0003-rs42.pth",
    num_bytes=2_409_434,
    checksum="sha256:449f5d0dc6b6fa8433d5e43769097520d3bc0fdae88977a7ac29e2e72ca51b52",
    file_name="byol_s_default512.npz",
    homepage="https://github.com/Neclow/SERAB",
    licence="MIT (SERAB); BYOL-A, whose design it follows, is for evaluation only (NTT)",
    citation="Scheidwasser-Clow, Kegler, Beckmann and Cernak, SERAB: A multi-lingual "
    "benchmark for speech emotion recognition, ICASSP 2022, arXiv:2110.03414",
)
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
    Waveforms (batch, samples) -> (batch, 1 + samples // 160, 64).
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


def build_byol_s(arrays: Arrays, *, dropout: float = 0.3) -> keras.Model:
    """Build the network of BYOL-S, AudioNTT2020 (Niizumi et al., IJCNN 2021), with its weights.

    (batch, frames, 64) -> (batch, frames // 8, 512); needs at least 8 frames.
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
    weights = []
    for number in (1, 2, 3):
        kernel = arrays[f"conv{number}_kernel"].transpose(1, 0, 2, 3)  # mel, time -> time, mel
        weights += [kernel, arrays[f"conv{number}_bias"]]
        weights += [arrays[f"bn{number}_{part}"] for part in NORM_PARTS]
    weights += [arrays[f"fc{number}_{part}"] for number in (1, 2) for part in ("kernel", "bias")]
    model = keras.Model(inputs, x, name="byol_s")
    model.set_weights(weights)
    return model


def read_byol_s(file: Path) -> Arrays:
    """Read the arrays of BYOL-S from an .npz file; refuse one that holds anything else."""
    remedy = "give the path of a file with the weights of BYOL-S, or delete it to fetch them anew"
    try:
        with np.load(file, allow_pickle=False) as content:
            arrays = {name: content[name].astype(np.float32) for name in content.files}
    except (ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{file} is not an .npz file ({error}): {remedy}") from error
    check_arrays(file, arrays, BYOL_S_SHAPES, remedy=remedy)
    return arrays


def convert_byol_s(state: Arrays) -> Arrays:
    """Turn the arrays of the PyTorch checkpoint into those that `read_byol_s` reads.

    Kernels (out, in, mel, time) become (mel, time, in, out), and (out, in) become (in, out).
    """
    arrays = {}
    for number, index in ((1, 0), (2, 4), (3, 8)):
        arrays[f"conv{number}_kernel"] = state[f"features.{index}.weight"].transpose(2, 3, 1, 0)
        arrays[f"conv{number}_bias"] = state[f"features.{index}.bias"]
        for part, name in NORM_PARTS.items():
            arrays[f"bn{number}_{part}"] = state[f"features.{index + 1}.{name}"]
    for number, index in ((1, 0), (2, 3)):
        arrays[f"fc{number}_kernel"] = state[f"fc.{index}.weight"].T
        arrays[f"fc{number}_bias"] = state[f"fc.{index}.bias"]
    return {name: np.ascontiguousarray(array, dtype=np.float32) for name, array in arrays.items()}


def fetch_byol_s(record: EncoderRecord) -> Path:
    """Find the weights in `data/pretrained`; download and convert them if they are missing."""
    if record.path.exists():
        return record.path
    checkpoint = fetch_file(record, record.path.with_name(Path(record.url).name))
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f"{checkpoint} is PyTorch's format: pip install -r requirements-torch.txt, or put "
            f"{record.path.name} there yourself (see {record.homepage}), or give its path to "
            "load_encoder."
        ) from error
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    arrays = convert_byol_s({name: tensor.numpy() for name, tensor in state.items()})
    with write_atomically(record.path) as temporary:
        np.savez(temporary, **arrays)
    return record.path


@register(RECORD)
def load(record: EncoderRecord, weights: Weights, num_samples: int, trainable: bool) -> Encoder:
    """Load BYOL-S, a Keras network either way."""
    ways = {"fetch": fetch_byol_s, "read": read_byol_s}
    arrays = get_arrays(record, weights, draw=lambda: draw_arrays(BYOL_S_SHAPES), **ways)
    front_end = ByolFrontEnd(name="front_end")
    return Encoder(record, front_end, build_byol_s(arrays), num_samples, digest_arrays(arrays))
