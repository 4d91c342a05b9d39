"""Encoders that `transformers` reads: every layer of a speech model, averaged over time."""

import hashlib
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np

from common import paths
from common.audio import fix_length
from common.encoders.records import EncoderRecord

ComputeStates = Callable[[np.ndarray], np.ndarray]
CACHE_VARIABLES = {"HF_HOME", "HF_HUB_CACHE"}
UNUSED = "masked_spec_embed"  # what pretraining put in the place of masked frames
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
SMALL_WAVE = {
    **SMALL,
    "intermediate_size": 64,
    "conv_dim": [16] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
SMALL_WHISPER = {
    **{"d_model": 32, "encoder_layers": 2, "decoder_layers": 1},
    **{f"{part}_attention_heads": 2 for part in ("encoder", "decoder")},
    **{f"{part}_ffn_dim": 64 for part in ("encoder", "decoder")},
    **{f"{name}_token_id": 0 for name in ("pad", "bos", "eos", "decoder_start")},
    "vocab_size": 8,
}


def load_transformer(
    record: EncoderRecord, weights: str | Path = "published"
) -> tuple[ComputeStates, str]:
    """Load a speech model, frozen, and see that it keeps the contract of the published one.

    `data/pretrained/<name>` is looked at first. What is downloaded is kept below
    `data/pretrained/huggingface`, or where the environment variable `HF_HUB_CACHE` or `HF_HOME`
    says; a file is put there when it is complete.

    Parameters
    ----------
    weights
        "published", or the folder of a model: `config.json`, `preprocessor_config.json` and
        its weights, as `save_pretrained` writes them.

    Returns
    -------
    compute_states, digest
        Waveform (samples,) -> hidden states (layers, frames, width), float32; the weights' name.

    Raises
    ------
    FileNotFoundError
        If the folder holds no model.
    OSError
        If it could not be downloaded: how to get it otherwise.
    ValueError
        If the folder cannot be read, or holds another model.
    ImportError
        If `transformers` or PyTorch cannot be imported.
    """
    folder = paths.PRETRAINED_DIR / record.file_name if weights == "published" else Path(weights)
    fetch = weights == "published" and not folder.exists()
    if not fetch and not (folder / "config.json").is_file():
        raise FileNotFoundError(
            f"No model at {folder} (config.json is not in it): give the folder of {record.title}, "
            "or delete it and give 'published' to fetch it"
        )
    transformers, _ = import_transformers(record)
    if fetch:
        elsewhere = CACHE_VARIABLES & os.environ.keys()
        source = record.url.removeprefix("https://huggingface.co/")
        settings = {"cache_dir": None if elsewhere else str(paths.PRETRAINED_DIR / "huggingface")}
    else:
        source, settings = str(folder), {"local_files_only": True}
    try:
        with _quiet_logs():
            model, facts = transformers.AutoModel.from_pretrained(
                source, output_loading_info=True, **settings
            )
            extractor = transformers.AutoFeatureExtractor.from_pretrained(source, **settings)
    except Exception as error:  # what a broken connection or a damaged file raises has no one base
        if fetch:
            raise OSError(
                f"{record.url}: {record.title} could not be fetched ({error}). Check the network "
                "and call again. Otherwise put the files of the model (config.json, "
                f"preprocessor_config.json, weights) into {folder}, or give the path of another "
                "folder to load_encoder."
            ) from error
        raise ValueError(f"{folder} cannot be read ({error}): {_remedy(record)}") from error
    kind, missing = model.config.model_type, [k for k in facts["missing_keys"] if UNUSED not in k]
    if kind != record.model_type:
        raise ValueError(f"{source} is a {kind!r}, not {record.model_type!r}: {_remedy(record)}")
    if missing:
        raise ValueError(f"{source} lacks weights such as {sorted(missing)[0]}: {_remedy(record)}")
    compute_states, digest = freeze_transformer(model, extractor, record)
    check_states(compute_states, record, source)
    return compute_states, digest


def draw_transformer(record: EncoderRecord) -> tuple[ComputeStates, str, EncoderRecord]:
    """Draw a small model of the same kind that knows nothing, to try code on.

    Returns
    -------
    compute_states, digest, record
        As `load_transformer`, and the record with the layers and dimensions that it has.
    """
    transformers, torch = import_transformers(record)
    with torch.random.fork_rng(devices=[]), _quiet_logs():
        torch.manual_seed(0)
        if record.model_type == "whisper":
            config = transformers.AutoConfig.for_model("whisper", **SMALL_WHISPER)
            extractor = transformers.WhisperFeatureExtractor()
        else:
            config = transformers.AutoConfig.for_model(record.model_type, **SMALL_WAVE)
            extractor = transformers.Wav2Vec2FeatureExtractor()
        model = transformers.AutoModel.from_config(config)
    record = replace(
        record,
        num_layers=SMALL["num_hidden_layers"] + 1,
        num_dimensions=2 * SMALL["hidden_size"],
    )
    return *freeze_transformer(model, extractor, record), record


def freeze_transformer(model, extractor, record: EncoderRecord) -> tuple[ComputeStates, str]:
    """Make a function of a model of `transformers` and its feature extractor.

    The extractor prepares the waveform as its publisher does: zero mean and unit variance for
    wav2vec 2.0, a log-mel spectrogram of 30 s for Whisper, of whose states those of the padding
    are left out. The states are the input of the first layer and the output of each.
    """
    _, torch = import_transformers(record)
    if record.model_type == "whisper":
        model = model.get_encoder()
    model = model.float().eval()
    hop = round(record.hop_seconds * record.sample_rate_hertz)
    alone = threading.Lock()  # PyTorch has threads of its own

    def compute_states(waveform: np.ndarray) -> np.ndarray:
        rate = record.sample_rate_hertz
        inputs = extractor(waveform, sampling_rate=rate, return_tensors="pt")
        with alone, torch.no_grad():
            found = model(inputs[model.main_input_name], output_hidden_states=True)
        states = np.stack([state[0].numpy() for state in found.hidden_states])
        return states[:, : -(-len(waveform) // hop)]

    arrays = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    normalised = bool(getattr(extractor, "do_normalize", False))
    return compute_states, digest_weights(arrays, normalised=normalised)


def digest_weights(arrays: Mapping[str, np.ndarray], *, normalised: bool) -> str:
    """Name weights by their values, and by whether the waveform is normalised.

    Their own names do not count: they change from one version of `transformers` to the next.
    """
    values = (array.tobytes() for name, array in arrays.items() if UNUSED not in name)
    digests = sorted(hashlib.sha256(value).hexdigest() for value in values)
    return hashlib.sha256(f"{digests} {normalised}".encode()).hexdigest()[:16]


def check_states(compute_states: ComputeStates, record: EncoderRecord, source: str) -> None:
    """Raise ValueError unless a second of sound gives the layers, frames and width expected."""
    rate = record.sample_rate_hertz
    sound = (0.1 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)).astype(np.float32)
    expected = (record.num_layers, record.count_embeddings(rate), record.num_dimensions // 2)
    try:
        found = compute_states(sound).shape
    except Exception as error:  # whatever a model of another make raises
        raise ValueError(
            f"{source}: a waveform (samples,) gives no states {expected} ({error}): "
            f"{_remedy(record)}"
        ) from error
    if found != expected:
        raise ValueError(f"{source}: states {found}, expected {expected}: {_remedy(record)}")


def make_layer_network(compute_states: ComputeStates, record: EncoderRecord) -> Callable:
    """Make the network of an encoder: waveforms (batch, samples) -> (batch, layers, dimensions).

    The dimensions are mean and standard deviation over time of each of a layer's numbers. Zeros
    around an utterance that is shorter than the waveform are left out before.
    """
    shortest = round((record.window_seconds or record.hop_seconds) * record.sample_rate_hertz)

    def embed_waveform(waveform: np.ndarray) -> np.ndarray:
        sound = np.trim_zeros(waveform)
        states = compute_states(fix_length(sound, max(len(sound), shortest)))
        return np.concatenate([states.mean(axis=1), states.std(axis=1)], axis=1)

    def embed(waveforms: np.ndarray, training: bool = False) -> np.ndarray:
        return np.stack([embed_waveform(waveform) for waveform in waveforms])

    return embed


def import_transformers(record: EncoderRecord) -> tuple[ModuleType, ModuleType]:
    """Import `transformers` and PyTorch.

    Raises
    ------
    ImportError
        If either is missing.
    """
    # PyTorch's compiler for GPUs, which is not used here, and TensorFlow each bring LLVM along;
    # where both are loaded, the process may end.
    sys.modules.setdefault("triton", None)
    try:
        import torch
        import transformers
    except ImportError as error:
        raise ImportError(
            f"{record.title} is read by transformers and PyTorch ({error}): "
            "pip install -r requirements-transformers.txt"
        ) from error
    return transformers, torch


def _remedy(record: EncoderRecord) -> str:
    return f"give the folder of {record.title} (see {record.url}), or delete it and fetch it anew"


@contextmanager
def _quiet_logs() -> Iterator[None]:
    """Keep to errors: every load would warn of weights that only pretraining used."""
    loggers = [logging.getLogger(name) for name in ("transformers", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
