"""Pretrained encoders behind one contract: a waveform at 16 kHz -> embeddings per frame."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from keras import ops

from common.audio import fix_length, trim_silence
from common.augmentation import Augmentation
from common.encoders.byol_s import (
    ByolFrontEnd,
    build_byol_s,
    draw_byol_s,
    fetch_byol_s,
    read_byol_s,
)
from common.encoders.records import ENCODERS, EncoderRecord
from common.encoders.tfhub import digest_saved_model, find_saved_model, load_saved_model
from common.encoders.transformers import draw_transformer, load_transformer, make_layer_network
from common.encoders.vgg16 import build_vgg16, draw_vgg16, fetch_vgg16, make_pictures, read_vgg16
from common.encoders.vggish import (
    VggishFrontEnd,
    build_vggish,
    draw_projection,
    draw_vggish,
    read_vggish,
)
from common.features import Features, extract_rows

TRIM_TOP_DB = 30.0  # silence at both ends is cut off first, as by default in `common.features`
POOLINGS = {
    "mean": lambda values: values.mean(axis=-2, keepdims=True),
    "mean + maximum": lambda values: (
        values.mean(axis=-2, keepdims=True) + values.max(axis=-2, keepdims=True)
    ),
    "mean, maximum": lambda values: np.concatenate(
        [values.mean(axis=-2, keepdims=True), values.max(axis=-2, keepdims=True)], axis=-1
    ),
}


@dataclass(frozen=True)
class Encoder:
    """An encoder with its weights.

    `front_end` turns waveforms (batch, samples) into what `network` reads, (batch, frames,
    bands); `network` gives (batch, embeddings, dimensions). It is a Keras model, or the function
    of a SavedModel or of a model of `transformers`, which reads waveforms: then there is no front
    end. Waveforms are cut or padded to `num_samples`. `digest` names the weights.
    """

    record: EncoderRecord
    front_end: Callable | None
    network: Callable
    num_samples: int
    digest: str

    def prepare(self, waveform: np.ndarray) -> np.ndarray:
        """Give what the network reads, without its batch axis, of a waveform (samples,)."""
        waveform = fix_length(waveform, self.num_samples).astype(np.float32)
        if self.front_end is None:
            return waveform
        return ops.convert_to_numpy(self.front_end(waveform[None]))[0]

    def embed(self, waveform: np.ndarray) -> np.ndarray:
        """Give the embeddings, shape (embeddings, dimensions), of a waveform (samples,)."""
        values = self.network(self.prepare(waveform)[None], training=False)
        return ops.convert_to_numpy(values)[0]


def load_encoder(
    name: str,
    *,
    weights: str | Path = "published",
    duration_seconds: float = 2.5,
    trainable: bool = False,
) -> Encoder:
    """Load an encoder; its weights are fetched the first time.

    Parameters
    ----------
    name
        A key of `ENCODERS`.
    weights
        "published", which are put into `data/pretrained` if they are not there; the path of one's
        own: an .npz file for BYOL-S, an .h5 file for VGG16, the folder of a SavedModel for
        YAMNet and VGGish, the released checkpoint for a trainable VGGish, or the folder of a
        model of `transformers`; or "random", which know nothing of speech: a small stand-in with
        the same inputs and outputs, to try code on. That of a model of `transformers` has fewer
        layers and dimensions, as its `record` then says.
    duration_seconds
        Of each utterance the middle is kept; shorter ones are padded. All but BYOL-S take
        somewhat more, so that whole windows fit: for 2.5 s YAMNet and VGGish take 2.895 s, VGG16
        takes 2.56 s.
    trainable
        Whether VGGish becomes a Keras network, to be trained further, in place of the SavedModel,
        which is quicker to load and cannot be. BYOL-S and VGG16 are always Keras networks.

    Raises
    ------
    ValueError
        If there is no such encoder, or what is read is not what was published.
    OSError
        If there is nothing at that path, or it could not be downloaded.
    ImportError
        If what reads the weights is missing: PyTorch for BYOL-S; TensorFlow and TensorFlow Hub
        for YAMNet and VGGish; `transformers` and PyTorch for wav2vec 2.0, HuBERT, WavLM and
        Whisper.
    """
    if name not in ENCODERS:
        raise ValueError(f"encoder {name!r} is unknown; choose from {sorted(ENCODERS)}")
    record = ENCODERS[name]
    num_samples = record.count_samples(duration_seconds)
    if name == "byol_s":
        arrays = _get_arrays(record, weights, draw_byol_s, fetch_byol_s, read_byol_s)
        front_end, network = ByolFrontEnd(name="front_end"), build_byol_s(arrays)
        return Encoder(record, front_end, network, num_samples, _digest_arrays(arrays))
    if name == "vgg16":
        arrays = _get_arrays(record, weights, draw_vgg16, fetch_vgg16, read_vgg16)
        network = build_vgg16(arrays, num_windows=record.count_embeddings(num_samples))
        return Encoder(record, make_pictures, network, num_samples, _digest_arrays(arrays))
    if name == "vggish" and (trainable or weights == "random"):
        arrays = _get_arrays(record, weights, draw_vggish, find_saved_model, read_vggish)
        network = build_vggish(arrays, num_examples=record.count_embeddings(num_samples))
        front_end = VggishFrontEnd(name="front_end")
        return Encoder(record, front_end, network, num_samples, _digest_arrays(arrays))
    if trainable:
        raise ValueError(
            f"{record.title} cannot be trained further; choose vggish, vgg16 or byol_s"
        )
    if record.model_type is not None:
        if weights == "random":
            compute_states, digest, record = draw_transformer(record)
        else:
            compute_states, digest = load_transformer(record, weights)
        network = make_layer_network(compute_states, record)
        return Encoder(record, None, network, num_samples, digest)
    if weights == "random":
        return Encoder(record, None, draw_projection(record), num_samples, "random")
    folder = find_saved_model(record, weights)
    network = load_saved_model(folder, record)
    return Encoder(record, None, network, num_samples, digest_saved_model(folder))


def _get_arrays(
    record: EncoderRecord, weights: str | Path, draw: Callable, fetch: Callable, read: Callable
) -> dict[str, np.ndarray]:
    """Draw the weights, or read the published ones or one's own."""
    if weights == "random":
        return draw()
    return read(fetch(record) if weights == "published" else Path(weights))


def _digest_arrays(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for key in sorted(arrays):
        digest.update(key.encode() + arrays[key].tobytes())
    return digest.hexdigest()[:16]


def embed_recording(waveform: np.ndarray, encoder: Encoder) -> np.ndarray:
    """Trim silence and embed, as `extract_embeddings` does with every recording.

    Parameters
    ----------
    waveform
        Shape (samples,), 16 kHz.

    Returns
    -------
    np.ndarray, shape (embeddings, dimensions), float32
        What a model reads that was trained on such embeddings.
    """
    return encoder.embed(trim_silence(waveform, top_db=TRIM_TOP_DB))


def prepare_recording(waveform: np.ndarray, encoder: Encoder) -> np.ndarray:
    """Trim silence and give what the encoder's network reads, as `extract_inputs` does.

    Parameters
    ----------
    waveform
        Shape (samples,), 16 kHz.

    Returns
    -------
    np.ndarray, shape (frames, bands), float32
        What a network reads that was trained further on such inputs.

    Raises
    ------
    ValueError
        If the encoder is no Keras network, and so cannot be trained further.
    """
    if encoder.record.model_type is not None:
        raise ValueError(f"{encoder.record.title} cannot be trained further; extract_embeddings")
    if encoder.front_end is None:
        raise ValueError(
            f"{encoder.record.title} is loaded as a SavedModel, which is not trained further; "
            "load a Keras network: load_encoder(…, trainable=True)"
        )
    return encoder.prepare(trim_silence(waveform, top_db=TRIM_TOP_DB))


def extract_embeddings(
    table: pd.DataFrame, encoder: Encoder, *, augmentations: Sequence[Augmentation] = ()
) -> Features:
    """Embed the utterances of a table, or read their embeddings from the cache.

    Returns
    -------
    Features
        `values` has shape (utterances, embeddings, dimensions); of a model of `transformers` the
        embeddings are its layers.
    """
    compute = partial(embed_recording, encoder=encoder)
    recipe = {"encoder": encoder.record.title, **_describe_encoder(encoder)}
    return extract_rows(table, compute, recipe, augmentations=augmentations)


def extract_inputs(
    table: pd.DataFrame, encoder: Encoder, *, augmentations: Sequence[Augmentation] = ()
) -> Features:
    """Compute what the encoder's network reads, to train that network further.

    Returns
    -------
    Features
        `values` has shape (utterances, frames, bands), as the front end gives them: training
        normalises nothing. The weights that training starts from are named too.

    Raises
    ------
    ValueError
        If the encoder is no Keras network, and so cannot be trained further.
    """
    compute = partial(prepare_recording, encoder=encoder)
    recipe = {"inputs_of": encoder.record.title, **_describe_encoder(encoder)}
    features = extract_rows(table, compute, recipe, augmentations=augmentations)
    return replace(features, normalise=False)


def _describe_encoder(encoder: Encoder) -> dict:
    sizes = {"num_samples": encoder.num_samples, "trim_top_db": TRIM_TOP_DB}
    return {"weights": encoder.digest, **sizes}


def pool_embeddings(features: Features, how: str = "mean + maximum") -> Features:
    """Sum up the embeddings of each utterance over time.

    Parameters
    ----------
    how
        "mean"; "mean + maximum", the two added, which is the clip embedding of BYOL-A and BYOL-S
        (Niizumi et al., IJCNN 2021); or "mean, maximum", the two side by side.

    Returns
    -------
    Features
        `values` has shape (utterances, 1, dimensions), `copies` (utterances, copies, 1,
        dimensions); twice the dimensions where two are side by side.

    Raises
    ------
    ValueError
        If there is no such pooling.
    """
    if how not in POOLINGS:
        raise ValueError(f"how={how!r} is unknown; choose from {list(POOLINGS)}")
    pool = POOLINGS[how]
    description = {**features.description, "pooled": how}
    return Features(pool(features.values), pool(features.copies), description)


def select_embedding(features: Features, number: int) -> Features:
    """Keep one embedding of each utterance, which is one layer of a model of `transformers`.

    Returns
    -------
    Features
        `values` has shape (utterances, 1, dimensions), `copies` (utterances, copies, 1,
        dimensions).

    Raises
    ------
    IndexError
        If there are fewer.
    """
    description = {**features.description, "embedding": number}
    return Features(features.values[:, [number]], features.copies[:, :, [number]], description)
