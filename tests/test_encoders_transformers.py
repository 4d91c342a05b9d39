"""Encoders that `transformers` reads: what becomes of their states, and loading them."""

import importlib.util
import logging
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest
from keras import layers

from common import paths
from common.audio import load_waveform, trim_silence
from common.cross_validation import cross_validate
from common.emotions import order_emotions
from common.encoders import ENCODERS, Encoder, load_encoder, transformers
from common.encoders.extraction import extract_embeddings, extract_inputs
from common.encoders.transformers import (
    SMALL_WAVE,
    SMALL_WHISPER,
    digest_weights,
    make_layer_network,
)
from common.encoders.weights import check_outputs
from common.layers import LayerWeighting
from common.recipes import Recipe
from tests.speech_tables import PLAIN_CONFIG, predict_again, write_recordings

KINDS = ("wav2vec2", "hubert", "wavlm", "whisper")
RNG = np.random.default_rng(0)
NOISE = 0.1 * RNG.standard_normal(16_000).astype(np.float32)
INSTALLED = all(importlib.util.find_spec(name) for name in ("torch", "transformers"))
needs_transformers = pytest.mark.skipif(
    not INSTALLED, reason="needs pip install -r requirements-transformers.txt"
)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(paths, "PRETRAINED_DIR", tmp_path / "pretrained")
    monkeypatch.setattr(paths, "CACHE_DIR", tmp_path / "cache")
    for variable in transformers.CACHE_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


# What becomes of the states that a model gives


def make_states(kind: str, *, seed: int = 1, num_layers: int = 13, width: int = 8) -> Callable:
    """Layers that grow louder: each is the one before, times a vector; a frame per 20 ms."""
    rng = np.random.default_rng(seed)
    window = 320 if kind == "whisper" else 400
    first = rng.standard_normal((window, width)).astype(np.float32)
    scales = rng.uniform(0.5, 1.5, (num_layers - 1, width)).astype(np.float32)

    def compute_states(waveform: np.ndarray) -> np.ndarray:
        states = [np.lib.stride_tricks.sliding_window_view(waveform, window)[::320] @ first]
        for scale in scales:
            states.append(np.tanh(states[-1] * scale))
        return np.stack(states)

    return compute_states


def make_encoder(kind: str = "wav2vec2", *, duration_seconds: float = 2.5, seed: int = 1):
    """An encoder of 13 layers of 8 numbers that knows nothing."""
    record = replace(ENCODERS[kind], num_layers=13, num_dimensions=16)
    network = make_layer_network(make_states(kind, seed=seed), record)
    num_samples = record.count_samples(duration_seconds)
    return Encoder(record, None, network, num_samples, f"states of seed {seed}")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_samples", [0, 1, 20_000, 70_001])
def test_every_waveform_gives_an_embedding_per_layer(kind, num_samples):
    embedded = make_encoder(kind).embed(RNG.standard_normal(num_samples).astype(np.float32))
    assert embedded.shape == (13, 16)
    assert embedded.dtype == np.float32 and np.isfinite(embedded).all()


@pytest.mark.parametrize("kind", KINDS)
def test_an_embedding_is_mean_and_deviation_of_the_frames(kind):
    states = make_states(kind)(NOISE)
    assert states.shape[1] == (50 if kind == "whisper" else 49)
    expected = np.concatenate([states.mean(axis=1), states.std(axis=1)], axis=1)
    np.testing.assert_allclose(make_encoder(kind).embed(NOISE), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_put_around_a_short_utterance_changes_nothing(kind):
    short, long = (make_encoder(kind, duration_seconds=seconds) for seconds in (1, 3))
    np.testing.assert_array_equal(short.embed(NOISE), long.embed(NOISE))


def test_of_a_long_utterance_the_middle_is_kept():
    encoder = make_encoder(duration_seconds=1)
    loud = np.concatenate([NOISE, 2 * NOISE, NOISE])
    middle = loud[(48_000 - encoder.num_samples) // 2 :][: encoder.num_samples]
    np.testing.assert_allclose(encoder.embed(loud), encoder.embed(middle), atol=1e-6)


def test_weights_are_named_by_their_values():
    arrays = {"first": RNG.random((4, 3)), "second": RNG.random(3)}
    name = digest_weights(arrays, normalised=True)
    renamed = {f"model.{key}": array for key, array in reversed(arrays.items())}
    assert digest_weights(renamed, normalised=True) == name
    unused = arrays | {"masked_spec_embed": RNG.random(3)}
    assert digest_weights(unused, normalised=True) == name
    assert digest_weights(arrays, normalised=False) != name
    assert digest_weights(arrays | {"second": RNG.random(3)}, normalised=True) != name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 7}, r"own: embeddings \(13, 49, 7\), expected \(13, 49, 8\): give the folder"),
        ({"num_layers": 10}, r"own: embeddings \(10, 49, 8\), expected \(13, 49, 8\): give the"),
        (None, r"own: .* gives no embeddings \(13, 49, 8\) \('NoneType' .*\): give the folder"),
    ],
)
def test_states_of_another_model_are_refused(settings, message):
    compute = None if settings is None else make_states("wav2vec2", **settings)
    with pytest.raises(ValueError, match=message):
        check_outputs(compute, 16_000, (13, 49, 8), source="own", remedy="give the folder")
    check_outputs(make_states("wav2vec2"), 16_000, (13, 49, 8), source="own", remedy="")


def test_records_name_the_layers_of_what_is_published():
    for kind in KINDS:
        record = ENCODERS[kind]
        assert record.name == record.path.name == kind and not record.trainable
        assert record.url.startswith("https://huggingface.co/")
        assert record.num_layers and record.num_dimensions % 2 == 0
        assert record.count_samples(2.5) in (40_000, 40_080)
        assert record.count_embeddings(16_000) in (49, 50)


# The whole path


def make_table(folder: Path) -> pd.DataFrame:
    """Six speakers, two emotions that differ in loudness alone."""

    def make_noise(number: int, rng: np.random.Generator) -> np.ndarray:
        return 0.02 * (1 + 4 * (number % 2)) * rng.standard_normal(12_000 + 500 * number)

    return write_recordings(folder, make_noise, emotions=("sad", "angry") * 3)


def build_head(input_shape, num_classes):
    inputs = keras.Input(input_shape)
    x = LayerWeighting(name="layer_weights")(inputs)
    x = layers.BatchNormalization(momentum=0.8, name="norm")(x)
    x = layers.Dense(16, activation="relu", name="hidden")(x)
    return keras.Model(inputs, layers.Dense(num_classes, activation="softmax", name="emotions")(x))


HEAD_CONFIG = replace(PLAIN_CONFIG, epochs=20, learning_rate=0.003)


def check_the_whole_path(folder: Path, encoder: Encoder, again: Encoder, monkeypatch):
    """Embed, cache, train, save, and predict recordings with what was saved."""
    monkeypatch.setattr(paths, "RUNS_DIR", folder / "runs")
    table = make_table(folder)
    features = extract_embeddings(table, encoder)
    shape = (36, encoder.record.num_layers, encoder.record.num_dimensions)
    assert features.values.shape == shape and features.copies.shape[:2] == (36, 0)
    trimmed = trim_silence(load_waveform(table["path"][7]), top_db=30)
    np.testing.assert_allclose(features.values[7], encoder.embed(trimmed), atol=1e-5)
    settings = {"protocol": "speaker_5fold", "config": HEAD_CONFIG, "only_folds": [1]}
    run = cross_validate(build_head, table, features, **settings)
    recipe = Recipe.from_description(run.description["features"]["recipe"], encoder=again)
    expected = run.predictions[[f"p_{emotion}" for emotion in order_emotions(table["emotion"])]]
    np.testing.assert_allclose(predict_again(run, table, recipe), expected, atol=1e-3)
    monkeypatch.setattr(Encoder, "embed", None)  # the cache is read
    np.testing.assert_array_equal(extract_embeddings(table, again).values, features.values)
    return run


def test_a_saved_head_predicts_a_recording_as_it_was_tested(folder, monkeypatch):
    encoders = [make_encoder(duration_seconds=1) for _ in range(2)]
    run = check_the_whole_path(folder, *encoders, monkeypatch)
    assert run.predictions["correct"].mean() > 0.8  # loudness tells the two apart


def test_another_encoder_or_length_is_embedded_anew(folder):
    table = make_table(folder)[:2]
    values, other = (extract_embeddings(table, make_encoder(seed=seed)).values for seed in (1, 2))
    assert np.abs(values - other).max() > 0.01
    descriptions = [
        extract_embeddings(table, make_encoder(duration_seconds=d)).describe() for d in (0.3, 0.5)
    ]
    assert descriptions[0] != descriptions[1]


# Loading: what is asked of `transformers`, and what goes wrong before it computes


def install(monkeypatch, *, kind="wav2vec2", missing=(), error=None) -> list:
    """Stand in for the libraries up to the first tensor; gives the list of what was asked for."""
    asked = []

    def load_model(source, *, output_loading_info, **settings):
        asked.append((source, settings))
        logging.getLogger("transformers").warning("Some weights were not used")
        if error:
            raise error
        config = SimpleNamespace(model_type=kind)
        return SimpleNamespace(config=config), {"missing_keys": set(missing)}

    stand_in = SimpleNamespace(
        AutoModel=SimpleNamespace(from_pretrained=load_model),
        AutoFeatureExtractor=SimpleNamespace(from_pretrained=lambda source, **settings: None),
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "transformers", stand_in)
    return asked


def make_folder(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text("{}")
    return path


def test_published_weights_are_asked_for_by_name_and_revision(folder, monkeypatch):
    asked = install(monkeypatch, error=OSError("no route"))
    for _ in range(2):
        with pytest.raises(OSError, match="no route"):
            load_encoder("wav2vec2")
        monkeypatch.setenv("HF_HOME", "elsewhere")
    cache = str(folder / "pretrained" / "huggingface")
    name, revision = "facebook/wav2vec2-base", ENCODERS["wav2vec2"].revision
    assert asked == [(name, {"cache_dir": place, "revision": revision}) for place in (cache, None)]


def test_a_folder_is_read_without_the_network(folder, monkeypatch):
    asked = install(monkeypatch, error=RuntimeError("header too large"))
    own, kept = make_folder(folder / "own"), make_folder(folder / "pretrained" / "wav2vec2")
    for path, weights in ((own, own), (kept, "published")):
        message = rf"{path} cannot be read .header too large.*fetch it anew"
        with pytest.raises(ValueError, match=message):
            load_encoder("wav2vec2", weights=weights)
    assert asked == [(str(path), {"local_files_only": True}) for path in (own, kept)]


def test_warnings_are_kept_off_while_loading_only(monkeypatch, caplog):
    install(monkeypatch, error=OSError("no route"))
    with pytest.raises(OSError, match="no route"):
        load_encoder("wav2vec2")
    assert not caplog.records
    logging.getLogger("transformers").warning("later")
    assert len(caplog.records) == 1


@pytest.mark.parametrize("name", ["torch", "transformers"])
@pytest.mark.parametrize("weights", ["published", "random", "own"])
def test_without_the_extra_the_message_says_how_to_get_it(name, weights, folder, monkeypatch):
    install(monkeypatch)
    monkeypatch.setitem(sys.modules, name, None)
    weights = make_folder(folder / "own") if weights == "own" else weights
    with pytest.raises(ImportError, match=r"pip install -r requirements-transformers\.txt"):
        load_encoder("wav2vec2", weights=weights)
    assert not (folder / "pretrained").exists()


@pytest.mark.parametrize("error", [OSError("no route"), ValueError("no route"), RuntimeError("no")])
def test_without_a_connection_the_message_says_where_to_put_the_files(error, folder, monkeypatch):
    install(monkeypatch, error=error)
    with pytest.raises(OSError, match=str(error)) as caught:
        load_encoder("hubert")
    for part in (ENCODERS["hubert"].url, str(folder / "pretrained" / "hubert"), "load_encoder"):
        assert part in str(caught.value)
    assert not (folder / "pretrained").exists()


def test_a_folder_that_holds_no_model(folder):
    (folder / "own").mkdir()
    for path in (folder / "nowhere", folder / "own"):
        with pytest.raises(FileNotFoundError, match=r"No model at .*config\.json.*'published'"):
            load_encoder("wavlm", weights=path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "wavlm"}, r"own is a 'wavlm', not 'wav2vec2'"),
        ({"missing": ["layer_03"]}, r"own lacks weights such as layer_03"),
    ],
)
def test_another_model_is_refused(settings, message, folder, monkeypatch):
    install(monkeypatch, **settings)
    with pytest.raises(ValueError, match=message) as caught:
        load_encoder("wav2vec2", weights=make_folder(folder / "own"))
    assert "give the folder of wav2vec 2.0" in str(caught.value)


def test_it_is_not_trained_further(folder):
    with pytest.raises(ValueError, match="wav2vec 2.0 cannot be trained further"):
        load_encoder("wav2vec2", trainable=True)
    with pytest.raises(ValueError, match="wav2vec 2.0 cannot be trained further"):
        extract_inputs(make_table(folder)[:1], make_encoder())


# The libraries themselves, with small models that know nothing


def build_small(kind: str):
    import torch
    import transformers

    torch.manual_seed(3)
    small = SMALL_WHISPER if kind == "whisper" else SMALL_WAVE
    model = transformers.AutoModel.from_config(transformers.AutoConfig.for_model(kind, **small))
    if kind == "whisper":
        return model.eval(), transformers.WhisperFeatureExtractor()
    return model.eval(), transformers.Wav2Vec2FeatureExtractor(do_normalize=kind != "wavlm")


def save_small(kind: str, path: Path, monkeypatch) -> Path:
    """Save a small model as its publisher does, and expect one of that size."""
    model, extractor = build_small(kind)
    model.save_pretrained(path)
    extractor.save_pretrained(path)
    small = replace(ENCODERS[kind], num_layers=3, num_dimensions=64)
    monkeypatch.setitem(ENCODERS, kind, small)
    return path


@needs_transformers
@pytest.mark.parametrize("kind", KINDS)
def test_a_random_model_has_the_shape_that_its_record_says(kind):
    encoder = load_encoder(kind, weights="random")
    embedded = encoder.embed(NOISE)
    assert embedded.shape == (3, 64) == (encoder.record.num_layers, encoder.record.num_dimensions)
    assert embedded.dtype == np.float32 and np.isfinite(embedded).all()
    again = load_encoder(kind, weights="random")
    assert again.digest == encoder.digest
    np.testing.assert_array_equal(again.embed(NOISE), embedded)
    assert np.isfinite(encoder.embed(np.zeros(0, np.float32))).all()
    assert len(np.unique(np.abs(embedded).mean(axis=1))) == 3


@needs_transformers
@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_folder_gives_what_the_model_gives(kind, folder, monkeypatch):
    import torch

    encoder = load_encoder(kind, weights=save_small(kind, folder / "own", monkeypatch))
    model, extractor = build_small(kind)
    part = model.get_encoder() if kind == "whisper" else model
    inputs = extractor(NOISE, sampling_rate=16_000, return_tensors="pt")
    with torch.no_grad():
        states = part(**inputs, output_hidden_states=True).hidden_states
    states = np.stack([state[0].numpy() for state in states])[:, :50]
    assert states.shape == (3, 50 if kind == "whisper" else 49, 32)
    expected = np.concatenate([states.mean(axis=1), states.std(axis=1)], axis=1)
    np.testing.assert_allclose(encoder.embed(NOISE), expected, rtol=1e-4, atol=1e-5)


@needs_transformers
def test_files_of_earlier_versions_are_read_in_full(folder, monkeypatch):
    import torch

    path = save_small("wav2vec2", folder / "own", monkeypatch)
    expected = load_encoder("wav2vec2", weights=path)
    state = build_small("wav2vec2")[0].state_dict()
    names = {"parametrizations.weight.original0": "weight_g"}
    names |= {"parametrizations.weight.original1": "weight_v"}
    old = {}
    for name, tensor in state.items():
        if "masked_spec_embed" in name:  # what only pretraining used may be missing
            continue
        for new, before in names.items():
            name = name.replace(new, before)
        old[f"wav2vec2.{name}"] = tensor
    assert sum(name.endswith(("weight_g", "weight_v")) for name in old) == 2
    torch.save(old | {"project_q.bias": torch.zeros(3)}, path / "pytorch_model.bin")
    (path / "model.safetensors").unlink()
    loaded = load_encoder("wav2vec2", weights=path)
    assert loaded.digest == expected.digest
    np.testing.assert_allclose(loaded.embed(NOISE), expected.embed(NOISE), atol=1e-6)


@needs_transformers
def test_a_folder_of_another_kind_or_cut_off_is_refused(folder, monkeypatch):
    path = save_small("hubert", folder / "own", monkeypatch)
    with pytest.raises(ValueError, match="is a 'hubert', not 'wav2vec2'"):
        load_encoder("wav2vec2", weights=path)
    file = path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match="own cannot be read"):
        load_encoder("hubert", weights=path)


@needs_transformers
def test_a_model_of_another_size_is_refused(folder, monkeypatch):
    record = ENCODERS["wav2vec2"]
    path = save_small("wav2vec2", folder / "own", monkeypatch)
    monkeypatch.setitem(ENCODERS, "wav2vec2", record)
    with pytest.raises(ValueError, match=r"embeddings \(3, 49, 32\), expected \(13, 49, 768\)"):
        load_encoder("wav2vec2", weights=path)


@needs_transformers
@pytest.mark.parametrize("kind", KINDS)
def test_a_head_on_a_random_model_is_trained_and_predicts(kind, folder, monkeypatch):
    encoders = [load_encoder(kind, weights="random", duration_seconds=1) for _ in range(2)]
    check_the_whole_path(folder, *encoders, monkeypatch)
