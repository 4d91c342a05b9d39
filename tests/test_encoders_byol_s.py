"""BYOL-S: front end, network, weights from a file or from the network."""

import sys
from pathlib import Path

import keras
import librosa
import numpy as np
import pandas as pd
import pytest
import soundfile
from keras import ops

from common import paths
from common.audio import trim_silence
from common.augmentation import AddNoise
from common.encoders import ENCODERS, Encoder, load_encoder, weights
from common.encoders.byol_s import (
    BYOL_S_SHAPES,
    NORM_PARTS,
    ByolFrontEnd,
    build_byol_s,
    convert_byol_s,
    read_byol_s,
)
from common.encoders.extraction import extract_embeddings, extract_inputs
from common.encoders.weights import draw_arrays
from common.files import hash_file

RECORD = ENCODERS["byol_s"]
RNG = np.random.default_rng(0)
TONE = np.sin(np.arange(16_000) / 8).astype(np.float32)
SPEECH = (TONE * np.linspace(0, 1, 16_000) + 0.01 * RNG.standard_normal(16_000)).astype(np.float32)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(paths, "PRETRAINED_DIR", tmp_path / "pretrained")
    monkeypatch.setattr(paths, "CACHE_DIR", tmp_path / "cache")
    return tmp_path


def make_arrays(seed: int = 1) -> dict[str, np.ndarray]:
    """Weights in which no array is constant, so that none can be mistaken for another."""
    rng = np.random.default_rng(seed)
    arrays = draw_arrays(BYOL_S_SHAPES, seed)
    for name, array in arrays.items():
        if not name.endswith("kernel"):
            arrays[name] = rng.uniform(0.5, 1.5, array.shape).astype(np.float32)
    return arrays


def write_to_torch(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same weights, named and laid out as in the PyTorch checkpoint."""
    state = {}
    for number, index in ((1, 0), (2, 4), (3, 8)):
        kernel = np.moveaxis(arrays[f"conv{number}_kernel"], (3, 2, 0, 1), (0, 1, 2, 3))
        state[f"features.{index}.weight"] = kernel
        state[f"features.{index}.bias"] = arrays[f"conv{number}_bias"]
        for part, name in NORM_PARTS.items():
            state[f"features.{index + 1}.{name}"] = arrays[f"bn{number}_{part}"]
        state[f"features.{index + 1}.num_batches_tracked"] = np.array(7)
    for number, index in ((1, 0), (2, 3)):
        state[f"fc.{index}.weight"] = np.swapaxes(arrays[f"fc{number}_kernel"], 0, 1)
        state[f"fc.{index}.bias"] = arrays[f"fc{number}_bias"]
    return state


# The front end


def test_the_front_end_agrees_with_librosa():
    filters = librosa.filters.mel(
        sr=16_000, n_fft=1024, n_mels=64, fmin=60, fmax=7800, htk=True, norm=None
    )
    spectrum = librosa.stft(
        SPEECH, n_fft=1024, win_length=400, hop_length=160, pad_mode="reflect", window="hann"
    )
    expected = np.log(filters @ np.abs(spectrum) ** 2 + 1.1920929e-07).T
    values, _ = ByolFrontEnd().compute_log_mel(SPEECH[None])
    assert values.shape == (1, 101, 64)
    np.testing.assert_allclose(ops.convert_to_numpy(values)[0], expected, atol=2e-3)


@pytest.mark.parametrize("level", [0.2, 1.0])
def test_an_utterance_is_standardised_whatever_its_level(level):
    values = ops.convert_to_numpy(ByolFrontEnd()(level * SPEECH[None]))
    assert abs(values.mean()) < 1e-4 and abs(values.std() - 1) < 1e-3
    loud = ops.convert_to_numpy(ByolFrontEnd()(SPEECH[None]))
    np.testing.assert_allclose(values, loud, atol=0.02)


def test_silence_around_an_utterance_changes_nothing_in_it():
    alone = ops.convert_to_numpy(ByolFrontEnd()(SPEECH[None]))[0]
    padded = np.pad(SPEECH, 8_000)
    around = ops.convert_to_numpy(ByolFrontEnd()(padded[None]))[0]
    assert around.shape == (201, 64)
    slope, offset = np.polyfit(alone[5:96].ravel(), around[55:146].ravel(), 1)
    assert abs(slope - 1) < 0.1 and abs(offset) < 0.1
    np.testing.assert_allclose(around[55:146], slope * alone[5:96] + offset, atol=2e-3)
    assert around[0].max() < alone.min()


def test_silence_and_the_empty_batch_give_finite_numbers():
    assert np.isfinite(ByolFrontEnd()(np.zeros((2, 1600), dtype=np.float32))).all()
    assert ByolFrontEnd()(keras.Input((None,))).shape == (None, None, 64)
    assert ByolFrontEnd()(keras.Input((40_000,))).shape == (None, 251, 64)


# The network


def compute_by_hand(arrays: dict[str, np.ndarray], values: np.ndarray) -> np.ndarray:
    """The network's definition, mel first, in NumPy."""
    x = values.T[:, :, None].astype(np.float64)
    for number in (1, 2, 3):
        padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(0, 1))
        x = np.einsum("mtikl,klio->mto", windows, arrays[f"conv{number}_kernel"])
        gamma, beta, mean, var = (arrays[f"bn{number}_{part}"] for part in NORM_PARTS)
        x = gamma * (x + arrays[f"conv{number}_bias"] - mean) / np.sqrt(var + 1e-5) + beta
        x = np.maximum(x, 0)
        mel, time = x.shape[0] // 2, x.shape[1] // 2
        x = x[: 2 * mel, : 2 * time].reshape(mel, 2, time, 2, 64).max(axis=(1, 3))
    x = x.swapaxes(0, 1).reshape(x.shape[1], 512)
    for number in (1, 2):
        x = np.maximum(x @ arrays[f"fc{number}_kernel"] + arrays[f"fc{number}_bias"], 0)
    return x


@pytest.mark.parametrize("num_frames", [8, 21, 31])
def test_the_network_computes_what_it_is_defined_to(num_frames):
    arrays, values = make_arrays(), RNG.standard_normal((num_frames, 64)).astype(np.float32)
    model = build_byol_s(arrays)
    assert model.count_params() == 600_576 == sum(np.size(array) for array in arrays.values())
    embedded = ops.convert_to_numpy(model(values[None], training=False))[0]
    assert embedded.shape == (num_frames // 8, 512)
    expected = compute_by_hand(arrays, values)
    np.testing.assert_allclose(embedded, expected, atol=1e-4 * expected.max())


def test_every_weight_can_be_trained_further():
    model = build_byol_s(make_arrays())
    assert len(model.trainable_weights) == 3 * 4 + 2 * 2
    assert model.get_layer("byol_4_dropout").rate == 0.3


def test_a_model_from_the_waveform_on_saves_and_loads_in_safe_mode(folder):
    encoder = load_encoder("byol_s", weights="random", duration_seconds=1)
    inputs = keras.Input((16_000,), name="waveform")
    model = keras.Model(inputs, encoder.network(encoder.front_end(inputs)))
    model.save(folder / "model.keras")
    loaded = keras.models.load_model(folder / "model.keras", safe_mode=True)
    embedded = ops.convert_to_numpy(loaded(SPEECH[None]))[0]
    np.testing.assert_allclose(embedded, encoder.embed(SPEECH), rtol=1e-4, atol=1e-4)


# The encoder


@pytest.mark.parametrize("num_samples", [1, 5_000, 40_000, 70_001])
def test_every_waveform_gives_as_many_embeddings(num_samples):
    encoder = load_encoder("byol_s", weights="random")
    embedded = encoder.embed(RNG.standard_normal(num_samples).astype(np.float32))
    assert embedded.shape == (31, RECORD.num_dimensions) and embedded.dtype == np.float32
    assert np.isfinite(embedded).all()
    assert abs(31 * RECORD.hop_seconds - 2.5) < RECORD.hop_seconds


def test_weights_are_named_by_what_they_are(folder):
    assert load_encoder("byol_s", weights="random").digest == (
        load_encoder("byol_s", weights="random", duration_seconds=1).digest
    )
    np.savez(folder / "own.npz", **make_arrays())
    own = load_encoder("byol_s", weights=folder / "own.npz")
    assert own.digest != load_encoder("byol_s", weights="random").digest
    assert load_encoder("byol_s", weights=str(folder / "own.npz")).digest == own.digest


def make_table(folder: Path) -> pd.DataFrame:
    rows = []
    for number in range(3):
        path = folder / f"{number}.wav"
        soundfile.write(path, np.pad(SPEECH * (number + 1) / 4, 4_000), 16_000)
        rows.append({"path": str(path), "audio_hash": hash_file(path)})
    return pd.DataFrame(rows)


def test_embeddings_of_a_table_are_those_of_its_trimmed_recordings(folder, monkeypatch):
    table = make_table(folder)
    encoder = load_encoder("byol_s", weights="random", duration_seconds=1.2)
    features = extract_embeddings(table, encoder)
    assert features.values.shape == (3, 15, 512) and features.copies.shape == (3, 0, 15, 512)
    waveform, _ = soundfile.read(table["path"][1], dtype="float32")
    trimmed = trim_silence(waveform, top_db=30)
    np.testing.assert_allclose(features.values[1], encoder.embed(trimmed), atol=1e-3)
    monkeypatch.setattr(Encoder, "embed", None)
    again = extract_embeddings(table, encoder)
    np.testing.assert_array_equal(again.values, features.values)
    other = load_encoder("byol_s", weights="random", duration_seconds=1)
    with pytest.raises(TypeError):  # another length is another recipe
        _ = extract_embeddings(table, other).values


def test_inputs_are_what_the_network_embeds(folder):
    table = make_table(folder)
    encoder = load_encoder("byol_s", weights="random", duration_seconds=1.2)
    embeddings = extract_embeddings(table, encoder)
    inputs = extract_inputs(table, encoder, augmentations=(AddNoise(),))
    assert inputs.values.shape == (3, 121, 64) and inputs.copies.shape == (3, 1, 121, 64)
    assert not inputs.recipe.normalise and embeddings.recipe.normalise
    embedded = ops.convert_to_numpy(encoder.network(inputs.values, training=False))
    np.testing.assert_allclose(embedded, embeddings.values, atol=1e-3)


# Weights from a file


def test_weights_of_a_file_come_as_they_are(folder):
    arrays = make_arrays()
    np.savez(folder / "own.npz", **arrays)
    read = read_byol_s(folder / "own.npz")
    assert read.keys() == arrays.keys() == BYOL_S_SHAPES.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], array)


def spoil(arrays: dict[str, np.ndarray], how: str) -> dict[str, np.ndarray]:
    if how == "missing":
        del arrays["fc2_bias"]
    if how == "shape":
        arrays["conv1_kernel"] = arrays["conv1_kernel"][:2]
    if how == "more":
        arrays["fc3_bias"] = arrays["fc2_bias"]
    if how == "not finite":
        arrays["bn2_var"][5] = np.nan
    return arrays


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", r"own\.npz: fc2_bias is missing \(there is bn1_beta.*expected \(512,\)"),
        ("shape", r"own\.npz: conv1_kernel is \(2, 3, 1, 64\), expected \(3, 3, 1, 64\)"),
        ("more", r"own\.npz: fc3_bias is \(512,\), expected no such array"),
        ("not finite", r"own\.npz: bn2_var holds values that are not finite"),
    ],
)
def test_a_file_with_other_arrays_is_refused(how, message, folder):
    np.savez(folder / "own.npz", **spoil(make_arrays(), how))
    with pytest.raises(ValueError, match=message) as caught:
        load_encoder("byol_s", weights=folder / "own.npz")
    assert "give the path of a file with the weights of BYOL-S" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"not weights at all"])
def test_a_damaged_file_is_refused(content, folder):
    (folder / "own.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"own\.npz is not an \.npz file"):
        load_encoder("byol_s", weights=folder / "own.npz")


def test_a_single_array_is_refused(folder):
    with (folder / "own.npz").open("wb") as file:
        np.save(file, np.ones(3))
    with pytest.raises(ValueError, match=r"own\.npz is not an \.npz file"):
        load_encoder("byol_s", weights=folder / "own.npz")


def test_a_file_that_is_not_there_and_a_name_that_is_none(folder):
    with pytest.raises(FileNotFoundError, match=r"No weights at .*nowhere\.npz: give another path"):
        load_encoder("byol_s", weights=folder / "nowhere.npz")
    with pytest.raises(ValueError, match=r"encoder 'byol' is unknown; choose from \['byol_s',"):
        load_encoder("byol")


# Weights from the network


def publish(monkeypatch, checkpoint: Path | None = None, error: Exception | None = None) -> list:
    """Stand in for the download; gives the list of what was fetched."""
    fetched = []

    def download(url, path, *, num_bytes, checksum):
        fetched.append((url, num_bytes, checksum))
        if error:
            raise error
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(checkpoint.read_bytes() if checkpoint else b"checkpoint")
        return path

    monkeypatch.setattr(weights, "download_archive", download)
    return fetched


def test_published_weights_are_fetched_and_converted_once(folder, monkeypatch):
    torch = pytest.importorskip("torch")
    arrays = make_arrays()
    state = {name: torch.from_numpy(array) for name, array in write_to_torch(arrays).items()}
    torch.save(state, folder / "state.pth")
    fetched = publish(monkeypatch, folder / "state.pth")
    first = load_encoder("byol_s")
    assert fetched == [(RECORD.url, RECORD.num_bytes, RECORD.checksum)]
    np.savez(folder / "own.npz", **arrays)
    assert first.digest == load_encoder("byol_s", weights=folder / "own.npz").digest
    assert load_encoder("byol_s").digest == first.digest
    assert len(fetched) == 1


def test_conversion_gives_contiguous_float32_and_leaves_counters_out():
    arrays = make_arrays()
    converted = convert_byol_s(write_to_torch(arrays))
    assert converted.keys() == BYOL_S_SHAPES.keys()
    for name, array in converted.items():
        assert array.dtype == np.float32 and array.flags.c_contiguous
        np.testing.assert_array_equal(array, arrays[name])


def test_without_a_connection_the_message_says_where_to_put_the_file(folder, monkeypatch):
    publish(monkeypatch, error=OSError("https://…: stopped after 0 bytes (no route)."))
    with pytest.raises(OSError, match="no route") as caught:
        load_encoder("byol_s")
    for part in (str(folder / "pretrained" / RECORD.file_name), RECORD.homepage, "load_encoder"):
        assert part in str(caught.value)
    assert not list((folder / "pretrained").glob("*"))


def test_without_pytorch_the_message_says_how_to_get_it(folder, monkeypatch):
    publish(monkeypatch)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"pip install -r requirements-torch\.txt") as caught:
        load_encoder("byol_s")
    assert RECORD.homepage in str(caught.value)
    assert not (folder / "pretrained" / RECORD.file_name).exists()


def test_the_record_names_one_version_of_the_checkpoint():
    assert RECORD.url.endswith(".pth") and "/main/" not in RECORD.url
    assert RECORD.checksum.startswith("sha256:") and len(RECORD.checksum) == 7 + 64
    assert RECORD.file_name.endswith(".npz") and "MIT" in RECORD.licence
