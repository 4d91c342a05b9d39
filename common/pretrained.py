"""Pretrained encoders behind one contract: a waveform at 16 kHz -> embeddings per frame."""

import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import librosa
import numpy as np
import pandas as pd
from keras import layers, ops

from common import paths
from common.audio import SAMPLE_RATE_HERTZ, fix_length, trim_silence
from common.augmentation import Augmentation
from common.downloads import download_archive
from common.features import Features, extract_rows


@dataclass(frozen=True)
class EncoderRecord:
    """What is known of an encoder. It gives `num_dimensions` numbers per `hop_seconds`.

    `url`, `num_bytes` and `checksum` are those of the published weights; `file_name` is what
    they are called in `data/pretrained`, once they can be read without PyTorch.
    """

    title: str
    num_dimensions: int
    hop_seconds: float
    url: str
    num_bytes: int
    checksum: str
    file_name: str
    homepage: str
    licence: str
    citation: str


ENCODERS = {
    "byol_s": EncoderRecord(
        title="BYOL-S",
        num_dimensions=512,
        hop_seconds=0.08,
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
    ),
}


@dataclass(frozen=True)
class Encoder:
    """An encoder with its weights.

    `front_end` turns waveforms (batch, samples) into what `network` reads, (batch, frames,
    bands); `network` is a Keras model that gives (batch, embeddings, dimensions). Waveforms
    are cut or padded to `num_samples`. `digest` names the weights.
    """

    record: EncoderRecord
    front_end: layers.Layer
    network: keras.Model
    num_samples: int
    digest: str

    def prepare(self, waveform: np.ndarray) -> np.ndarray:
        """Give what the network reads, shape (frames, bands), of a waveform (samples,)."""
        waveform = fix_length(waveform, self.num_samples).astype(np.float32)
        return ops.convert_to_numpy(self.front_end(waveform[None]))[0]

    def embed(self, waveform: np.ndarray) -> np.ndarray:
        """Give the embeddings, shape (embeddings, dimensions), of a waveform (samples,)."""
        values = self.network(self.prepare(waveform)[None], training=False)
        return ops.convert_to_numpy(values)[0]


def load_encoder(
    name: str, *, weights: str | Path = "published", duration_seconds: float = 2.5
) -> Encoder:
    """Load an encoder; its weights are fetched the first time.

    Parameters
    ----------
    name
        A key of `ENCODERS`.
    weights
        "published", which are put into `data/pretrained` if they are not there; the path of a
        file of one's own; or "random", which know nothing of speech.
    duration_seconds
        Of each utterance the middle is kept; shorter ones are padded.

    Raises
    ------
    ValueError
        If there is no such encoder, or the file does not hold its weights.
    OSError
        If there is no such file, or it could not be downloaded.
    ImportError
        If the downloaded weights cannot be converted, since PyTorch is missing.
    """
    if name not in ENCODERS:
        raise ValueError(f"encoder {name!r} is unknown; choose from {sorted(ENCODERS)}")
    record = ENCODERS[name]
    if weights == "random":
        arrays = draw_byol_s()
    else:
        arrays = read_byol_s(fetch_weights(record) if weights == "published" else Path(weights))
    digest = hashlib.sha256()
    for key in sorted(arrays):
        digest.update(key.encode() + arrays[key].tobytes())
    return Encoder(
        record,
        ByolFrontEnd(name="front_end"),
        build_byol_s(arrays),
        num_samples=round(duration_seconds * SAMPLE_RATE_HERTZ),
        digest=digest.hexdigest()[:16],
    )


def extract_embeddings(
    table: pd.DataFrame,
    encoder: Encoder,
    *,
    augmentations: Sequence[Augmentation] = (),
    trim_top_db: float = 30.0,
    jobs: int = -1,
) -> Features:
    """Embed the utterances of a table, or read their embeddings from the cache.

    Silence at both ends is trimmed first, as `common.features` does.

    Returns
    -------
    Features
        `values` has shape (utterances, embeddings, dimensions).
    """
    recipe = {"encoder": encoder.record.title, "weights": encoder.digest}
    recipe |= {"num_samples": encoder.num_samples, "trim_top_db": trim_top_db}

    def compute(waveform: np.ndarray) -> np.ndarray:
        return encoder.embed(trim_silence(waveform, top_db=trim_top_db))

    return extract_rows(table, compute, recipe, augmentations=augmentations, jobs=jobs)


def extract_inputs(
    table: pd.DataFrame,
    encoder: Encoder,
    *,
    augmentations: Sequence[Augmentation] = (),
    trim_top_db: float = 30.0,
    jobs: int = -1,
) -> Features:
    """Compute what the encoder's network reads, to train that network further.

    Returns
    -------
    Features
        `values` has shape (utterances, frames, bands), standardised by the front end, so
        training normalises nothing. The weights that training starts from are named too.
    """
    recipe = {"inputs_of": encoder.record.title, "weights": encoder.digest}
    recipe |= {"num_samples": encoder.num_samples, "trim_top_db": trim_top_db}

    def compute(waveform: np.ndarray) -> np.ndarray:
        return encoder.prepare(trim_silence(waveform, top_db=trim_top_db))

    features = extract_rows(table, compute, recipe, augmentations=augmentations, jobs=jobs)
    return replace(features, normalise=False)


def pool_embeddings(features: Features) -> Features:
    """Sum up the embeddings of each utterance: their mean over time plus their maximum.

    The clip embedding of BYOL-A and BYOL-S (Niizumi et al., IJCNN 2021).

    Returns
    -------
    Features
        `values` has shape (utterances, 1, dimensions), `copies` (utterances, copies, 1,
        dimensions).
    """

    def pool(values: np.ndarray) -> np.ndarray:
        return values.mean(axis=-2, keepdims=True) + values.max(axis=-2, keepdims=True)

    description = {**features.description, "pooled": "mean + maximum"}
    return Features(pool(features.values), pool(features.copies), description)


def fetch_weights(record: EncoderRecord) -> Path:
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
    with paths.write_atomically(file) as temporary:
        np.savez(temporary, **arrays)
    return file


# BYOL-S

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
