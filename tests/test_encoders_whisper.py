"""Whisper: front end, network, cutting it in two, weights from files."""

from pathlib import Path

import keras
import librosa
import numpy as np
import pandas as pd
import pytest
import scipy.special
import soundfile
from keras import layers, ops

from common import networks, paths
from common.encoders import ENCODERS, load_encoder, weights
from common.encoders.extraction import Embed, PrepareInputs, extract_embeddings, extract_inputs
from common.encoders.stages import make_stage
from common.encoders.weights import digest_arrays
from common.encoders.whisper import (
    WhisperFrontEnd,
    assign_arrays,
    build_whisper,
    cut_whisper,
)
from common.encoders.whisper_weights import (
    FILE,
    RECORDS,
    draw_whisper,
    give_shapes,
    read_whisper,
)
from common.files import hash_file
from common.recipes import Recipe
from tests.conftest import SPEECH_DIR
from tests.whisper_arrays import BASE, RNG, SMALL, SPEECH, make_arrays, write_folder

PUBLISHED = SPEECH_DIR.parent / "pretrained" / "whisper_base"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(networks, "PARTS", ("no_such_package",))  # so that Keras runs it
    monkeypatch.setattr(paths, "PRETRAINED_DIR", tmp_path / "pretrained")
    monkeypatch.setattr(paths, "CACHE_DIR", tmp_path / "cache")
    return tmp_path


def load_small(monkeypatch, folder: Path, *, trainable: bool, seed: int = 1, seconds: float = 1):
    """Load small weights of a folder, as if the record were of that size."""
    monkeypatch.setitem(ENCODERS, "whisper_base", SMALL)
    own = write_folder(folder / "own", make_arrays(seed))
    facts = {"weights": own, "duration_seconds": seconds, "trainable": trainable}
    return load_encoder("whisper_base", **facts)


# What it is defined to compute


def compute_log_mel(waveform: np.ndarray) -> np.ndarray:
    """The front end's definition, (frames, bands), by librosa."""
    waveform = waveform.astype(np.float64)
    spectrum = librosa.stft(waveform, n_fft=400, hop_length=160, window="hann", pad_mode="reflect")
    filters = librosa.filters.mel(sr=16_000, n_fft=400, n_mels=80)
    values = np.log10(np.maximum(filters @ np.abs(spectrum[:, :-1]) ** 2, 1e-10))
    return ((np.maximum(values, values.max() - 8) + 4) / 4).T


def compute_states(arrays: dict[str, np.ndarray], x: np.ndarray, num_heads: int) -> np.ndarray:
    """The network's definition, (frames, bands) -> (states, steps, width), in NumPy."""
    arrays = {name: array.astype(np.float64) for name, array in arrays.items()}
    width = len(arrays["conv1.bias"]) // num_heads

    def gelu(values):
        return values * (1 + scipy.special.erf(values / np.sqrt(2))) / 2

    def normalise(values, name):
        mean, variance = values.mean(-1, keepdims=True), values.var(-1, keepdims=True)
        values = (values - mean) / np.sqrt(variance + 1e-5)
        return values * arrays[f"{name}.weight"] + arrays[f"{name}.bias"]

    def multiply(values, name):
        return values @ arrays[f"{name}.weight"].T + arrays.get(f"{name}.bias", 0)

    for name, stride in (("conv1", 1), ("conv2", 2)):
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, ((1, 1), (0, 0))), 3, axis=0)
        x = np.einsum("tik,oik->to", windows[::stride], arrays[f"{name}.weight"])
        x = gelu(x + arrays[f"{name}.bias"])
    states = [x + arrays["embed_positions.weight"][: len(x)]]
    while f"layers.{len(states) - 1}.fc1.bias" in arrays:
        layer, x = f"layers.{len(states) - 1}.", states[-1]
        y = normalise(x, f"{layer}self_attn_layer_norm")
        parts = (multiply(y, f"{layer}self_attn.{part}_proj") for part in "qkv")
        q, k, v = (part.reshape(len(x), num_heads, width).swapaxes(0, 1) for part in parts)
        heard = scipy.special.softmax(q @ k.swapaxes(1, 2) / np.sqrt(width), axis=-1) @ v
        x = x + multiply(heard.swapaxes(0, 1).reshape(x.shape), f"{layer}self_attn.out_proj")
        y = gelu(multiply(normalise(x, f"{layer}final_layer_norm"), f"{layer}fc1"))
        states.append(x + multiply(y, f"{layer}fc2"))
    return np.stack([*states[:-1], normalise(states[-1], "layer_norm")])


# The front end


@pytest.mark.parametrize("num_samples", [400, 4_000, 16_000, 15_999])
def test_the_front_end_agrees_with_librosa(num_samples):
    values = ops.convert_to_numpy(WhisperFrontEnd()(SPEECH[None, -num_samples:]))
    assert values.shape == (1, num_samples // 160, 80)
    np.testing.assert_allclose(values[0], compute_log_mel(SPEECH[-num_samples:]), atol=1e-4)


def test_the_floor_is_that_of_each_utterance():
    loud, soft = SPEECH, np.pad(0.01 * SPEECH[8_000:], (8_000, 0))
    together = ops.convert_to_numpy(WhisperFrontEnd()(np.stack([loud, soft])))
    for values, waveform in zip(together, (loud, soft), strict=True):
        np.testing.assert_allclose(values, compute_log_mel(waveform), atol=1e-4)
        assert np.isclose(values.max() - values.min(), 2) or values.min() > values.max() - 2


def test_silence_and_unknown_lengths_are_taken():
    assert np.allclose(WhisperFrontEnd()(np.zeros((2, 1600), dtype=np.float32)), -1.5)
    assert WhisperFrontEnd()(keras.Input((None,))).shape == (None, None, 80)
    assert WhisperFrontEnd()(keras.Input((40_000,))).shape == (None, 250, 80)


# The network


@pytest.mark.parametrize("num_frames", [2, 31, 44])
def test_the_states_are_what_they_are_defined_to_be(num_frames):
    arrays, values = make_arrays(), RNG.standard_normal((num_frames, 80)).astype(np.float32)
    network = assign_arrays(build_whisper(SMALL, stacked=True), arrays)
    states = ops.convert_to_numpy(network(values[None], training=False))[0].swapaxes(0, 1)
    assert states.shape == (3, -(-num_frames // 2), 32)
    np.testing.assert_allclose(states, compute_states(arrays, values, 2), atol=1e-3)
    whole = assign_arrays(build_whisper(SMALL), arrays)
    np.testing.assert_allclose(whole(values[None])[0], states[-1], atol=1e-5)


def test_sizes_follow_from_the_record():
    for record, millions in zip(RECORDS, (8.2, 20.6, 88.2), strict=True):
        sizes = sum(np.prod(shape) for shape in give_shapes(record).values())
        assert abs(sizes / 1e6 - millions) < 0.1
    network = build_whisper(BASE)
    assert network.get_layer("whisper_6_attention").num_heads == 8
    keys = 6 * 512  # biases of zero, which Whisper has none of
    found = network.count_params() - keys
    assert found == sum(np.prod(shape) for shape in give_shapes(BASE).values())


def test_a_model_from_the_waveform_on_saves_and_loads_in_safe_mode(folder):
    encoder = load_encoder("whisper_base", weights="random", duration_seconds=1, trainable=True)
    for number, part in enumerate(
        (encoder, cut_whisper(encoder, 1, 2), cut_whisper(encoder, 0, 1))
    ):
        inputs = keras.Input((16_000,), name="waveform")
        model = keras.Model(inputs, part.network(part.front_end(inputs)))
        model.save(folder / f"{number}.keras")
        loaded = keras.models.load_model(folder / f"{number}.keras", safe_mode=True)
        np.testing.assert_allclose(loaded(SPEECH[None]), model(SPEECH[None]), atol=1e-5)
        clone = keras.models.clone_model(part.network)
        clone.set_weights(part.network.get_weights())
        prepared = part.prepare(SPEECH)[None]
        np.testing.assert_allclose(clone(prepared), part.network(prepared), atol=1e-5)


def add_head(states, num_classes: int):
    if len(states.shape) == 4:
        states = layers.Lambda(lambda x: ops.mean(x, axis=2), output_shape=(None, 32))(states)
    pooled = layers.GlobalAveragePooling1D(name="pool")(states)
    return layers.Dense(num_classes, activation="softmax", name="classes")(pooled)


def test_a_stage_trains_the_layers_of_a_prefix_alone():
    encoder = load_encoder("whisper_base", weights="random", duration_seconds=1, trainable=True)
    for part, shape in ((encoder, (100, 80)), (cut_whisper(encoder, 1, 2), (50, 32))):
        model = make_stage(add_head, part, ["whisper_2_", "whisper_norm"])(shape, 4)
        names = {weight.path.split("/")[-2] for weight in model.trainable_weights}
        assert names >= {"whisper_2_dense_1", "whisper_norm", "classes"}
        assert len(model.trainable_weights) == 2 * 4 + 8 + 2 + 2
        model.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True)
        before = list(map(ops.convert_to_numpy, model.non_trainable_weights))
        model.fit(RNG.standard_normal((4, *shape)), np.arange(4), verbose=0)
        for old, new in zip(before, model.non_trainable_weights, strict=True):
            np.testing.assert_array_equal(old, new)
    model = make_stage(add_head, encoder, "whisper_")((100, 80), 4)
    assert (
        model.get_layer(encoder.network.name).get_layer("whisper_positions").trainable_weights == []
    )


# Frozen, trainable and cut


def test_a_frozen_encoder_gives_mean_and_deviation_of_every_state(folder, monkeypatch):
    encoder = load_small(monkeypatch, folder, trainable=False, seconds=2)
    assert encoder.front_end is None and encoder.num_samples == 400 + 99 * 320
    states = compute_states(make_arrays(), compute_log_mel(SPEECH), 2)
    expected = np.concatenate([states.mean(axis=1), states.std(axis=1)], axis=1)
    embedded = encoder.embed(SPEECH)
    assert embedded.shape == (3, 64) and embedded.dtype == np.float32
    np.testing.assert_allclose(embedded, expected, atol=1e-3)
    np.testing.assert_allclose(encoder.embed(np.pad(SPEECH, (700, 9_000))), embedded, atol=1e-6)
    assert np.isfinite(encoder.embed(np.zeros(1, np.float32))).all()


def test_a_trainable_encoder_gives_the_last_state(folder, monkeypatch):
    encoder = load_small(monkeypatch, folder, trainable=True)
    prepared = encoder.prepare(SPEECH)
    assert prepared.shape == (100, 80) and encoder.embed(SPEECH).shape == (50, 32)
    expected = compute_states(make_arrays(), prepared, 2)[-1]
    np.testing.assert_allclose(encoder.embed(SPEECH), expected, atol=1e-3)
    assert SMALL.count_embeddings(encoder.num_samples) == 50


@pytest.mark.parametrize(("first", "last"), [(0, 1), (0, 2), (1, 2)])
def test_a_cut_encoder_computes_what_the_whole_does(first, last, folder, monkeypatch):
    encoder = load_small(monkeypatch, folder, trainable=True)
    cut = cut_whisper(encoder, first, last)
    assert cut.digest == f"{encoder.digest}, layers {first} to {last}"
    states = compute_states(make_arrays(), encoder.prepare(SPEECH), 2)
    prepared, found = cut.prepare(SPEECH), cut.embed(SPEECH)
    np.testing.assert_allclose(prepared, states[first], atol=1e-3)
    assert found.shape == (50, last - first + 1, 32)
    np.testing.assert_allclose(found.swapaxes(0, 1), states[first : last + 1], atol=1e-3)
    if last == 2:
        np.testing.assert_allclose(found[:, -1], encoder.embed(SPEECH), atol=1e-5)


def test_what_cannot_be_cut_is_refused():
    frozen = load_encoder("whisper_base", weights="random")
    with pytest.raises(ValueError, match=r"Whisper base is not cut: load_encoder\('whisper_base'"):
        cut_whisper(frozen, 0, 1)
    with pytest.raises(ValueError, match="BYOL-S is not cut"):
        cut_whisper(load_encoder("byol_s", weights="random"), 0, 1)
    encoder = load_encoder("whisper_base", weights="random", trainable=True)
    for first, last in ((1, 1), (2, 1), (-1, 2), (0, 3)):
        with pytest.raises(ValueError, match=rf"first={first}, last={last}: .* the states 0 to 2"):
            cut_whisper(encoder, first, last)


def test_more_than_it_hears_is_refused():
    assert load_encoder("whisper_base", weights="random", duration_seconds=30).num_samples > 480_000
    with pytest.raises(ValueError, match=r"Whisper base hears 30 s, not 31\.0\d+; give a shorter"):
        load_encoder("whisper_base", weights="random", duration_seconds=31)


# Tables and recipes


def make_table(folder: Path) -> pd.DataFrame:
    rows = []
    for number in range(3):
        path = folder / f"{number}.wav"
        soundfile.write(path, np.pad(SPEECH * (number + 1) / 4, 4_000), 16_000)
        rows.append({"path": str(path), "audio_hash": hash_file(path)})
    return pd.DataFrame(rows)


def test_the_stand_in_embeds_a_table(folder):
    table = make_table(folder)
    frozen = load_encoder("whisper_tiny", weights="random", duration_seconds=1.2)
    features = extract_embeddings(table, frozen)
    assert features.values.shape == (3, 3, 64) and frozen.record.num_layers == 3
    trainable = load_encoder("whisper_tiny", weights="random", duration_seconds=1.2, trainable=True)
    assert trainable.digest == frozen.digest
    inputs = extract_inputs(table, trainable)
    cut = cut_whisper(trainable, 1, 2)
    states = extract_inputs(table, cut)
    assert inputs.values.shape == (3, 120, 80) and states.values.shape == (3, 60, 32)
    found = ops.convert_to_numpy(cut.network(states.values))[:, :, -1]
    np.testing.assert_allclose(found, trainable.network(inputs.values), atol=1e-4)


def test_recipes_are_made_anew_of_their_descriptions(folder, monkeypatch):
    frozen = load_small(monkeypatch, folder, trainable=False)
    write_folder(folder / "pretrained" / "whisper_base", make_arrays())
    again = Recipe.from_description(Recipe((Embed(frozen),)).describe()).steps[0].encoder
    assert (again.digest, again.num_samples) == (frozen.digest, frozen.num_samples)
    encoder = load_small(monkeypatch, folder, trainable=True)
    cut = cut_whisper(encoder, 1, 2)
    description = Recipe((PrepareInputs(cut),)).describe()
    with pytest.raises(ValueError, match=r"layers 1 to 2, .* what is published is Whisper base"):
        Recipe.from_description(description)
    assert Recipe.from_description(description, encoder=cut).steps[0].encoder is cut


# Weights from a file or from the network


@pytest.mark.parametrize("prefix", ["model.encoder.", "encoder."])
def test_both_ways_to_name_the_arrays_are_read(prefix, folder):
    arrays = make_arrays()
    read = read_whisper(write_folder(folder / "own", arrays, prefix) / FILE, SMALL)
    assert read.keys() == arrays.keys() == give_shapes(SMALL).keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], array)
    halves = {name: array.astype(np.float16) for name, array in arrays.items()}
    read = read_whisper(write_folder(folder / "half", halves, prefix) / FILE, SMALL)
    assert {array.dtype for array in read.values()} == {np.dtype(np.float32)}


def test_a_file_of_another_size_is_refused(folder):
    own = write_folder(folder / "own", make_arrays())
    with pytest.raises(ValueError, match="give the folder of Whisper base") as caught:
        load_encoder("whisper_base", weights=own)
    assert "conv1.weight is (32, 80, 3), expected (512, 80, 3)" in str(caught.value)
    assert str(own / FILE) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"cut", b"\x10" + 7 * b"\0" + b'{"a": "b"}      '])
def test_a_damaged_file_is_refused(content, folder):
    (folder / FILE).write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.safetensors is not a file of safetensors .*give"):
        load_encoder("whisper_base", weights=folder)


def test_a_file_that_ends_too_early_is_refused(folder):
    file = write_folder(folder / "own", make_arrays()) / FILE
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"model\.safetensors is not a file of safetensors"):
        load_encoder("whisper_base", weights=file.parent)


def test_a_folder_without_the_file_is_refused(folder):
    for own in (folder, folder / "nowhere"):
        with pytest.raises(FileNotFoundError, match=r"\(model\.safetensors is not in it\): give"):
            load_encoder("whisper_base", weights=own)


def test_published_weights_are_fetched_once_and_into_their_folder(folder, monkeypatch):
    monkeypatch.setitem(ENCODERS, "whisper_base", SMALL)
    fetched = []

    def download(url, path, *, num_bytes, checksum):
        fetched.append((url, num_bytes, checksum))
        write_folder(path.parent, make_arrays())
        return path

    monkeypatch.setattr(weights, "download_archive", download)
    encoders = [load_encoder("whisper_base") for _ in range(2)]
    assert fetched == [(BASE.url, BASE.num_bytes, BASE.checksum)]
    assert (folder / "pretrained" / "whisper_base" / FILE).is_file()
    assert {encoder.digest for encoder in encoders} == {digest_arrays(make_arrays())}


def test_without_a_connection_the_message_says_where_to_put_the_file(folder, monkeypatch):
    def download(url, path, **facts):
        raise OSError("no route")

    monkeypatch.setattr(weights, "download_archive", download)
    with pytest.raises(OSError, match="no route") as caught:
        load_encoder("whisper_base")
    for part in (str(folder / "pretrained" / "whisper_base"), BASE.homepage, FILE, "load_encoder"):
        assert part in str(caught.value)


def test_the_records_name_one_version_of_each_file():
    assert [record.name.removeprefix("whisper_") for record in RECORDS] == ["tiny", "base", "small"]
    for record in RECORDS:
        assert record.url.endswith(FILE) and "/main/" not in record.url and record.trainable
        assert record.checksum.startswith("sha256:") and len(record.checksum) == 7 + 64
        assert record.num_dimensions // 2 % 64 == 0 and "MIT" in record.licence


def test_drawn_weights_are_the_same_each_time():
    assert digest_arrays(draw_whisper(SMALL)) == digest_arrays(draw_whisper(SMALL))


@pytest.mark.skipif(not (PUBLISHED / FILE).is_file(), reason="no weights in data/pretrained")
def test_the_published_weights_give_the_states_they_are_defined_to():
    assert f"sha256:{hash_file(PUBLISHED / FILE)}" == BASE.checksum
    arrays = read_whisper(PUBLISHED / FILE, BASE)
    assert digest_arrays(arrays) == "20fd5ee923f0c9b0"
    log_mel = compute_log_mel(SPEECH)
    network = assign_arrays(build_whisper(BASE, stacked=True), arrays)
    states = ops.convert_to_numpy(network(log_mel[None].astype(np.float32)))[0].swapaxes(0, 1)
    for found, expected in zip(states, compute_states(arrays, log_mel, 8), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-3 * max(1, np.abs(expected).max() / 10))
