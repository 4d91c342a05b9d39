"""Encoders that `transformers` reads: with a stand-in for it, and with itself where it is."""

import importlib.util
import logging
import sys
from contextlib import nullcontext
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
from common.encoders import extraction, transformers
from common.encoders.extraction import (
    ENCODERS,
    embed_recording,
    extract_embeddings,
    extract_inputs,
    load_encoder,
    select_embedding,
)
from common.encoders.transformers import SMALL_WAVE, SMALL_WHISPER, digest_weights
from common.features import Features
from common.layers import LayerWeighting
from common.results import read_predictions
from tests.speech_tables import PLAIN_CONFIG, write_recordings

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


# A stand-in for `transformers` and PyTorch, in NumPy


class Tensor:
    def __init__(self, values) -> None:
        self.values = np.asarray(values)

    def __getitem__(self, index):
        return Tensor(self.values[index])

    def numpy(self) -> np.ndarray:
        return self.values


class Model:
    """Layers that grow louder: each is the one before, times a matrix. Whisper hears 30 s."""

    def __init__(self, kind: str, arrays: dict) -> None:
        self.config = SimpleNamespace(model_type=kind)
        self.main_input_name = "input_features" if kind == "whisper" else "input_values"
        self.arrays = arrays
        self.frozen = False

    def float(self):
        return self

    def eval(self):
        self.frozen = True
        return self

    def get_encoder(self):
        return self

    def state_dict(self) -> dict:
        return {name: Tensor(array) for name, array in self.arrays.items()}

    def __call__(self, inputs, *, output_hidden_states):
        assert self.frozen and output_hidden_states
        waveform = inputs.numpy()[0]
        window = 320 if self.config.model_type == "whisper" else 400
        windows = np.lib.stride_tricks.sliding_window_view(waveform, window)[::320]
        states = [windows @ self.arrays["first"][:window]]
        for name in sorted(set(self.arrays) - {"first", "masked_spec_embed"}):
            states.append(np.tanh(states[-1] * self.arrays[name]))
        return SimpleNamespace(hidden_states=tuple(Tensor(state[None]) for state in states))


def make_arrays(kind: str = "wav2vec2", *, seed: int = 1) -> dict[str, np.ndarray]:
    record, rng = ENCODERS[kind], np.random.default_rng(seed)
    width = record.num_dimensions // 2
    arrays = {"first": rng.standard_normal((400, width)).astype(np.float32)}
    for number in range(1, record.num_layers):
        arrays[f"layer_{number:02d}"] = rng.uniform(0.5, 1.5, width).astype(np.float32)
    return arrays


def make_extractor(kind: str):
    def prepare(waveform, *, sampling_rate, return_tensors):
        assert sampling_rate == 16_000 and return_tensors == "pt"
        if kind == "whisper":
            return {"input_features": Tensor(np.pad(waveform, (0, 480_000 - len(waveform)))[None])}
        return {"input_values": Tensor(waveform[None])}

    prepare.do_normalize = kind == "wav2vec2"
    return prepare


def install(monkeypatch, arrays=None, *, kind="wav2vec2", missing=(), error=None) -> list:
    """Put the stand-in into the place of the libraries; gives the list of what was asked for."""
    asked = []

    def load_model(source, *, output_loading_info, **settings):
        asked.append((source, settings))
        if error:
            raise error
        assert output_loading_info
        logging.getLogger("transformers").warning("Some weights were not used")
        return Model(kind, arrays or make_arrays(kind)), {"missing_keys": set(missing)}

    torch = SimpleNamespace(no_grad=nullcontext)
    transformers = SimpleNamespace(
        AutoModel=SimpleNamespace(from_pretrained=load_model),
        AutoFeatureExtractor=SimpleNamespace(
            from_pretrained=lambda source, **settings: make_extractor(kind)
        ),
    )
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "transformers", transformers)
    return asked


def make_folder(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text("{}")
    return path


# What an encoder gives


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_samples", [0, 1, 20_000, 70_001])
def test_every_waveform_gives_an_embedding_per_layer(kind, num_samples, monkeypatch):
    install(monkeypatch, kind=kind)
    encoder = load_encoder(kind)
    embedded = encoder.embed(RNG.standard_normal(num_samples).astype(np.float32))
    assert embedded.shape == (encoder.record.num_layers, encoder.record.num_dimensions)
    assert embedded.dtype == np.float32 and np.isfinite(embedded).all()
    assert encoder.front_end is None and encoder.record is ENCODERS[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_an_embedding_is_mean_and_deviation_of_the_frames(kind, monkeypatch):
    install(monkeypatch, kind=kind)
    encoder = load_encoder(kind)
    model = Model(kind, make_arrays(kind)).eval()
    states = model(Tensor(NOISE[None]), output_hidden_states=True).hidden_states
    assert states[0].values.shape[1] == (50 if kind == "whisper" else 49)
    states = np.concatenate([state.values for state in states])
    expected = np.concatenate([states.mean(axis=1), states.std(axis=1)], axis=1)
    np.testing.assert_allclose(encoder.embed(NOISE), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_put_around_a_short_utterance_changes_nothing(kind, monkeypatch):
    install(monkeypatch, kind=kind)
    short, long = load_encoder(kind, duration_seconds=1), load_encoder(kind, duration_seconds=3)
    np.testing.assert_array_equal(short.embed(NOISE), long.embed(NOISE))


def test_of_a_long_utterance_the_middle_is_kept(monkeypatch):
    install(monkeypatch)
    encoder = load_encoder("wav2vec2", duration_seconds=1)
    loud = np.concatenate([NOISE, 2 * NOISE, NOISE])
    middle = loud[(48_000 - encoder.num_samples) // 2 :][: encoder.num_samples]
    np.testing.assert_allclose(encoder.embed(loud), encoder.embed(middle), atol=1e-6)


def test_weights_are_named_by_their_values(monkeypatch):
    arrays = make_arrays()
    name = digest_weights(arrays, normalised=True)
    renamed = {f"model.{key}": array for key, array in reversed(arrays.items())}
    assert digest_weights(renamed, normalised=True) == name
    unused = arrays | {"masked_spec_embed": RNG.random(3)}
    assert digest_weights(unused, normalised=True) == name
    assert digest_weights(arrays, normalised=False) != name
    assert digest_weights(make_arrays(seed=2), normalised=True) != name
    install(monkeypatch, arrays)
    assert load_encoder("wav2vec2").digest == name == load_encoder("wav2vec2").digest


def test_records_name_the_layers_of_what_is_published():
    for kind in KINDS:
        record = ENCODERS[kind]
        assert record.model_type == record.file_name == kind
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


def check_the_whole_path(folder: Path, kind: str, weights, monkeypatch) -> None:
    """Load, embed, cache, train, save, and predict a recording with what was saved."""
    table = make_table(folder)
    encoder = load_encoder(kind, weights=weights, duration_seconds=1)
    features = extract_embeddings(table, encoder)
    shape = (36, encoder.record.num_layers, encoder.record.num_dimensions)
    assert features.values.shape == shape and features.copies.shape[:2] == (36, 0)
    trimmed = trim_silence(load_waveform(table["path"][7]), top_db=30)
    np.testing.assert_allclose(features.values[7], encoder.embed(trimmed), atol=1e-5)
    run = cross_validate(
        build_head,
        table,
        features,
        protocol="speaker_5fold",
        config=HEAD_CONFIG,
        only_folds=[1],
        runs_folder=folder / "runs",
    )
    again = load_encoder(kind, weights=weights, duration_seconds=1)
    assert again.digest == encoder.digest
    model = keras.models.load_model(run.fold_folders[0, 1] / "model.keras", safe_mode=True)
    for row in read_predictions(next(folder.glob("runs/*/*/predictions.csv"))).itertuples():
        path = table.loc[table["utterance"] == row.utterance, "path"].item()
        embedded = embed_recording(load_waveform(path), again)
        probabilities = model.predict(embedded[None], verbose=0)[0]
        expected = [getattr(row, f"p_{emotion}") for emotion in order_emotions(table["emotion"])]
        np.testing.assert_allclose(probabilities, expected, atol=1e-3)
    monkeypatch.setattr(extraction.Encoder, "embed", None)  # the cache is read
    np.testing.assert_array_equal(extract_embeddings(table, again).values, features.values)
    return run


def test_a_saved_head_predicts_a_recording_as_it_was_tested(folder, monkeypatch):
    install(monkeypatch)
    run = check_the_whole_path(folder, "wav2vec2", "published", monkeypatch)
    assert run.predictions["correct"].mean() > 0.8  # loudness tells the two apart


def test_another_encoder_or_length_is_embedded_anew(folder, monkeypatch):
    install(monkeypatch)
    table = make_table(folder)[:2]
    values = extract_embeddings(table, load_encoder("wav2vec2")).values
    install(monkeypatch, make_arrays(seed=2))
    other = extract_embeddings(table, load_encoder("wav2vec2")).values
    assert np.abs(values - other).max() > 0.01
    descriptions = [
        extract_embeddings(table, load_encoder("wav2vec2", duration_seconds=d)).description
        for d in (0.3, 0.5)
    ]
    assert descriptions[0] != descriptions[1]


def test_one_layer_can_be_kept():
    values = RNG.random((4, 13, 6))
    features = Features(values, values[:, None], {"encoder": "HuBERT"})
    layer = select_embedding(features, 3)
    assert layer.values.shape == (4, 1, 6) and layer.copies.shape == (4, 1, 1, 6)
    np.testing.assert_array_equal(layer.values[:, 0], values[:, 3])
    assert layer.description == {"encoder": "HuBERT", "embedding": 3}
    with pytest.raises(IndexError):
        select_embedding(features, 13)


# Where the weights come from


def test_published_weights_are_asked_for_by_name(folder, monkeypatch):
    asked = install(monkeypatch)
    load_encoder("wav2vec2")
    cache = str(folder / "pretrained" / "huggingface")
    assert asked == [("facebook/wav2vec2-base", {"cache_dir": cache})]
    monkeypatch.setenv("HF_HOME", "elsewhere")
    load_encoder("wav2vec2")
    assert asked[1] == ("facebook/wav2vec2-base", {"cache_dir": None})


def test_a_folder_is_read_without_the_network(folder, monkeypatch):
    asked = install(monkeypatch)
    own = make_folder(folder / "own")
    load_encoder("wav2vec2", weights=own)
    kept = make_folder(folder / "pretrained" / "wav2vec2")
    load_encoder("wav2vec2")
    assert asked == [(str(path), {"local_files_only": True}) for path in (own, kept)]


def test_warnings_are_kept_off_while_loading_only(monkeypatch, caplog):
    install(monkeypatch)
    load_encoder("wav2vec2")
    assert not caplog.records
    logging.getLogger("transformers").warning("later")
    assert len(caplog.records) == 1


# What goes wrong


def test_a_name_that_is_none():
    with pytest.raises(ValueError, match=r"encoder 'wav2vec' is unknown; choose from \[.*'wavlm'"):
        load_encoder("wav2vec")


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


def test_a_damaged_folder(folder, monkeypatch):
    install(monkeypatch, error=RuntimeError("header too large"))
    own = make_folder(folder / "own")
    with pytest.raises(ValueError, match="own cannot be read .header too large.*fetch it anew"):
        load_encoder("wavlm", weights=own)


def make_narrow() -> dict[str, np.ndarray]:
    return {name: array[..., :32] for name, array in make_arrays().items()}


def make_shallow() -> dict[str, np.ndarray]:
    return {name: array for name, array in make_arrays().items() if name < "layer_10"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "wavlm"}, r"own is a 'wavlm', not 'wav2vec2'"),
        ({"missing": ["layer_03"]}, r"own lacks weights such as layer_03"),
        ({"arrays": make_narrow()}, r"states \(13, 49, 32\), expected \(13, 49, 768\)"),
        ({"arrays": make_shallow()}, r"states \(10, 49, 768\), expected \(13, 49, 768\)"),
        ({"arrays": {"first": np.ones(3)}}, r"gives no states \(13, 49, 768\)"),
    ],
)
def test_another_model_is_refused(settings, message, folder, monkeypatch):
    install(monkeypatch, **settings)
    with pytest.raises(ValueError, match=message) as caught:
        load_encoder("wav2vec2", weights=make_folder(folder / "own"))
    assert "give the folder of wav2vec 2.0" in str(caught.value)


def test_weights_that_only_pretraining_used_may_be_missing(folder, monkeypatch):
    install(monkeypatch, missing=["masked_spec_embed"])
    load_encoder("wav2vec2", weights=make_folder(folder / "own"))


def test_it_is_not_trained_further(folder, monkeypatch):
    install(monkeypatch)
    with pytest.raises(ValueError, match="wav2vec 2.0 cannot be trained further"):
        load_encoder("wav2vec2", trainable=True)
    with pytest.raises(ValueError, match="wav2vec 2.0 cannot be trained further"):
        extract_inputs(make_table(folder)[:1], load_encoder("wav2vec2"))


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
@pytest.mark.parametrize("kind", KINDS)
def test_a_head_on_a_random_model_is_trained_and_predicts(kind, folder, monkeypatch):
    check_the_whole_path(folder, kind, "random", monkeypatch)
