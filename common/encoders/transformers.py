"""Encoders that `transformers` reads: every layer of a speech model, averaged over time."""

import hashlib
import logging
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from types import ModuleType

import numpy as np

from common import paths
from common.audio import SAMPLE_RATE_HERTZ
from common.encoders.contract import Encoder, EncoderRecord, Weights, register
from common.encoders.weights import (
    ComputeStates,
    check_outputs,
    explain_absence,
    find_folder,
    make_layer_network,
)

SPEECH = {"num_layers": 13, "num_dimensions": 2 * 768, "hop_seconds": 0.02, "window_seconds": 0.025}
RECORDS = (
    EncoderRecord(
        name="wav2vec2",
        title="wav2vec 2.0",
        url="https://huggingface.co/facebook/wav2vec2-base",
        revision="0b5b8e868dd84f03fd87d01f9c4ff0f080fecfe8",
        homepage="https://github.com/facebookresearch/fairseq/tree/main/examples/wav2vec",
        licence="Apache License 2.0",
        citation="Baevski, Zhou, Mohamed and Auli, wav2vec 2.0: A framework for self-supervised "
        "learning of speech representations, NeurIPS 2020, arXiv:2006.11477",
        **SPEECH,
    ),
    EncoderRecord(
        name="hubert",
        title="HuBERT",
        url="https://huggingface.co/facebook/hubert-base-ls960",
        revision="dba3bb02fda4248b6e082697eee756de8fe8aa8a",
        homepage="https://github.com/facebookresearch/fairseq/tree/main/examples/hubert",
        licence="Apache License 2.0",
        citation="Hsu, Bolte, Tsai, Lakhotia, Salakhutdinov and Mohamed, HuBERT: Self-supervised "
        "speech representation learning by masked prediction of hidden units, IEEE/ACM "
        "Transactions on Audio, Speech, and Language Processing 29, 2021, arXiv:2106.07447",
        **SPEECH,
    ),
    EncoderRecord(
        name="wavlm",
        title="WavLM",
        url="https://huggingface.co/microsoft/wavlm-base",
        revision="efa81aae7ff777e464159e0f877d54eac5b84f81",
        homepage="https://github.com/microsoft/unilm/tree/master/wavlm",
        licence="CC BY-SA 3.0 (that of Microsoft's UniSpeech, to which its page refers)",
        citation="Chen et al., WavLM: Large-scale self-supervised pre-training for full stack "
        "speech processing, IEEE Journal of Selected Topics in Signal Processing 16(6), 2022, "
        "arXiv:2110.13900",
        **SPEECH,
    ),
    EncoderRecord(
        name="whisper",
        title="Whisper",
        num_layers=7,
        num_dimensions=2 * 512,
        hop_seconds=0.02,
        url="https://huggingface.co/openai/whisper-base",
        revision="e37978b90ca9030d5170a5c07aadb050351a65bb",
        homepage="https://github.com/openai/whisper",
        licence="MIT (OpenAI); Apache License 2.0 on Hugging Face",
        citation="Radford, Kim, Xu, Brockman, McLeavey and Sutskever, Robust speech recognition "
        "via large-scale weak supervision, ICML 2023, arXiv:2212.04356",
    ),
)

CACHE_VARIABLES = {"HF_HOME", "HF_HUB_CACHE"}
UNUSED = "masked_spec_embed"  # what pretraining put in the place of masked frames
SMALL_WAVE = {
    **{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
    **{"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4},
    **{"intermediate_size": 64, "conv_dim": [16] * 7},
}
SMALL_WHISPER = {
    **{"d_model": 32, "encoder_layers": 2, "decoder_layers": 1},
    **{f"{part}_attention_heads": 2 for part in ("encoder", "decoder")},
    **{f"{part}_ffn_dim": 64 for part in ("encoder", "decoder")},
    **{f"{name}_token_id": 0 for name in ("pad", "bos", "eos", "decoder_start")},
    "vocab_size": 8,
}


@register(*RECORDS)
def load(record: EncoderRecord, weights: Weights, num_samples: int, trainable: bool) -> Encoder:
    """Load a speech model, frozen: one embedding per layer and one of the first layer's input."""
    if weights == "random":
        compute_states, digest, record = draw_transformer(record)
    else:
        compute_states, digest = load_transformer(record, weights)
    return Encoder(record, None, make_layer_network(compute_states, record), num_samples, digest)


def load_transformer(record: EncoderRecord, weights: Weights) -> tuple[ComputeStates, str]:
    """Load a speech model, see that it keeps its record's contract; name its weights.

    `data/pretrained/<name>` is looked at first. Complete downloads are kept below
    `data/pretrained/huggingface`, or where the environment variable `HF_HUB_CACHE` or `HF_HOME`
    says. A folder of one's own is as `save_pretrained` writes it.
    """
    remedy = f"give the folder of {record.title} (see {record.url}), or delete it and fetch it anew"
    folder = find_folder(record, weights, "model", "config.json")
    transformers, _ = import_transformers(record)
    if folder is None:
        elsewhere = CACHE_VARIABLES & os.environ.keys()
        source = record.url.removeprefix("https://huggingface.co/")
        cache = None if elsewhere else str(paths.PRETRAINED_DIR / "huggingface")
        settings = {"cache_dir": cache, "revision": record.revision}
    else:
        source, settings = str(folder), {"local_files_only": True}
    try:
        with _quiet_logs():
            load_model = transformers.AutoModel.from_pretrained
            model, facts = load_model(source, output_loading_info=True, **settings)
            extractor = transformers.AutoFeatureExtractor.from_pretrained(source, **settings)
    except Exception as error:  # what a broken connection or a damaged file raises has no one base
        if folder is None:
            what = "config.json, preprocessor_config.json and the weights into that folder"
            raise OSError(explain_absence(record, error, what)) from error
        raise ValueError(f"{folder} cannot be read ({error}): {remedy}") from error
    kind, missing = model.config.model_type, [k for k in facts["missing_keys"] if UNUSED not in k]
    if kind != record.name:
        raise ValueError(f"{source} is a {kind!r}, not {record.name!r}: {remedy}")
    if missing:
        raise ValueError(f"{source} lacks weights such as {sorted(missing)[0]}: {remedy}")
    compute_states, digest = freeze_transformer(model, extractor, record)
    num_frames = record.count_embeddings(SAMPLE_RATE_HERTZ)
    expected = (record.num_layers, num_frames, record.num_dimensions // 2)
    check_outputs(compute_states, SAMPLE_RATE_HERTZ, expected, source=source, remedy=remedy)
    return compute_states, digest


def draw_transformer(record: EncoderRecord) -> tuple[ComputeStates, str, EncoderRecord]:
    """Draw a small model of the same kind that knows nothing; its record has its sizes."""
    transformers, torch = import_transformers(record)
    small, extractor = SMALL_WAVE, transformers.Wav2Vec2FeatureExtractor
    if record.name == "whisper":
        small, extractor = SMALL_WHISPER, transformers.WhisperFeatureExtractor
    with torch.random.fork_rng(devices=[]), _quiet_logs():
        torch.manual_seed(0)
        config = transformers.AutoConfig.for_model(record.name, **small)
        model = transformers.AutoModel.from_config(config)
    record = replace(record, num_layers=3, num_dimensions=64)
    return *freeze_transformer(model, extractor(), record), record


def freeze_transformer(model, extractor, record: EncoderRecord) -> tuple[ComputeStates, str]:
    """Make a function, waveform (samples,) -> states (layers, frames, width); name the weights.

    The states are the input of the first layer and the output of each. The extractor prepares the
    waveform as its publisher does: zero mean and unit variance for wav2vec 2.0, a log-mel
    spectrogram of 30 s for Whisper, of whose states those of the padding are left out.
    """
    _, torch = import_transformers(record)
    if record.name == "whisper":
        model = model.get_encoder()
    model = model.float().eval()
    alone = threading.Lock()  # PyTorch has threads of its own

    def compute_states(waveform: np.ndarray) -> np.ndarray:
        inputs = extractor(waveform, sampling_rate=SAMPLE_RATE_HERTZ, return_tensors="pt")
        with alone, torch.no_grad():
            found = model(inputs[model.main_input_name], output_hidden_states=True)
        states = np.stack([state[0].numpy() for state in found.hidden_states])
        return states[:, : -(-len(waveform) // record.hop_length)]

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


def import_transformers(record: EncoderRecord) -> tuple[ModuleType, ModuleType]:
    """Import `transformers` and PyTorch."""
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


@contextmanager
def _quiet_logs() -> Iterator[None]:
    """Keep to errors: every load would warn of weights that only pretraining used."""
    loggers = [logging.getLogger(name) for name in ("transformers", "huggingface_hub")]
    levels = {logger: logger.level for logger in loggers}
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)
