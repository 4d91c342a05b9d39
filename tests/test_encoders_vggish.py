"""VGGish and YAMNet: SavedModels of the same contract, the trainable network, what goes wrong."""

import io
import json
import os
import shutil
import sys
import tarfile
import urllib.error
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import layers, ops

from common import paths
from common.cross_validation import cross_validate
from common.emotions import order_emotions
from common.encoders import ENCODERS, Encoder, load_encoder, vggish
from common.encoders.extraction import extract_embeddings, extract_inputs
from common.encoders.tfhub import digest_saved_model, find_saved_model
from common.encoders.vggish import (
    PUBLISHED_WIDTHS,
    SCOPES,
    VggishFrontEnd,
    WhitenVggish,
    build_vggish,
    draw_vggish,
    fetch_vggish_pca,
    read_vggish,
    shape_vggish,
)
from common.files import hash_file
from common.layers import AttentionPooling
from common.recipes import Recipe
from tests.speech_tables import PLAIN_CONFIG, predict_again, write_recordings

REAL_YAMNET = paths.ROOT / "data" / "pretrained" / "yamnet"
RNG = np.random.default_rng(0)
SOUND = (0.2 * RNG.standard_normal(46_320)).astype(np.float32)
WIDTHS = (2, 3, 4, 4, 5, 5, 6, 7, 128)
tensorflow = pytest.importorskip("tensorflow")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(paths, "PRETRAINED_DIR", tmp_path / "pretrained")
    monkeypatch.setattr(paths, "CACHE_DIR", tmp_path / "cache")
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "hub"))
    return tmp_path


# SavedModels with the contracts of the published ones


class StandIn(tensorflow.Module):
    """Window by window, a random projection of the absolute samples."""

    def __init__(self, *, window: int, hop: int, dimensions: int, seed: int, kind: str) -> None:
        super().__init__()
        self.window, self.hop, self.kind = window, hop, kind
        matrix = np.random.default_rng(seed).standard_normal((window // 100, dimensions))
        self.matrix = tensorflow.Variable(matrix, dtype=tensorflow.float32, name="matrix")

    @tensorflow.function(input_signature=[tensorflow.TensorSpec([None], tensorflow.float32)])
    def __call__(self, waveform):
        pieces = tensorflow.signal.frame(tensorflow.abs(waveform), self.window, self.hop)
        pieces = tensorflow.reshape(pieces, (-1, self.window // 100, 100))
        embeddings = tensorflow.reduce_mean(pieces, axis=2) @ self.matrix
        if self.kind == "yamnet":
            return embeddings[:, :521], embeddings, pieces[0]
        return {"embeddings": embeddings} if self.kind == "dictionary" else embeddings


def save_stand_in(folder: Path, kind: str, *, seed: int = 0, **changes) -> Path:
    hop, dimensions = (7_680, 1024) if kind == "yamnet" else (15_360, 128)
    settings = {"window": 15_600, "hop": hop, "dimensions": dimensions, "seed": seed} | changes
    tensorflow.saved_model.save(StandIn(kind=kind, **settings), str(folder))
    return folder


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory) -> dict[str, Path]:
    """One SavedModel of each kind, not to be changed."""
    folder = tmp_path_factory.mktemp("stand_ins")
    return {name: save_stand_in(folder / name, name) for name in ("yamnet", "vggish")}


@pytest.mark.parametrize(("name", "num_embeddings"), [("yamnet", 5), ("vggish", 3)])
def test_embeddings_are_those_of_the_saved_model(name, num_embeddings, stand_ins):
    path = stand_ins[name]
    encoder = load_encoder(name, weights=path)
    assert encoder.num_samples == 46_320 and encoder.front_end is None
    embedded = encoder.embed(SOUND)
    assert embedded.shape == (num_embeddings, ENCODERS[name].num_dimensions)
    assert embedded.dtype == np.float32
    given = tensorflow.saved_model.load(str(path))(SOUND)
    np.testing.assert_array_equal(embedded, given[1] if name == "yamnet" else given)


@pytest.mark.parametrize("weights", ["own", "random"])
@pytest.mark.parametrize("name", ["yamnet", "vggish"])
@pytest.mark.parametrize("duration_seconds", [0.1, 0.975, 0.98, 2.5, 4.0])
def test_every_waveform_gives_at_least_one_embedding(name, weights, duration_seconds, stand_ins):
    weights = stand_ins[name] if weights == "own" else weights
    record = ENCODERS[name]
    encoder = load_encoder(name, weights=weights, duration_seconds=duration_seconds)
    assert encoder.num_samples >= duration_seconds * 16_000
    expected = 1 + np.ceil(round(max(0, duration_seconds - 0.975) / record.hop_seconds, 6))
    for num_samples in (1, 400, 15_600, 100_000):
        embedded = encoder.embed(RNG.standard_normal(num_samples).astype(np.float32))
        assert embedded.shape == (expected, record.num_dimensions)
        assert np.isfinite(embedded).all()


@given(st.floats(0.01, 30))
def test_whole_windows_leave_no_sample_out(duration_seconds):
    for name in ("yamnet", "vggish"):
        record = ENCODERS[name]
        num_samples = record.count_samples(duration_seconds)
        window, hop = 15_600, round(record.hop_seconds * 16_000)
        assert num_samples >= max(window, round(duration_seconds * 16_000))
        assert num_samples - hop < max(window, round(duration_seconds * 16_000))
        assert (record.count_embeddings(num_samples) - 1) * hop + window == num_samples


def publish_digest(monkeypatch, path: Path) -> None:
    """Take a stand-in for the published YAMNet."""
    record = replace(ENCODERS["yamnet"], digest=digest_saved_model(path))
    monkeypatch.setitem(ENCODERS, "yamnet", record)


def test_the_folder_in_pretrained_is_used_before_the_network(folder, monkeypatch):
    path = save_stand_in(folder / "pretrained" / "yamnet", "yamnet")
    publish_digest(monkeypatch, path)
    assert find_saved_model(ENCODERS["yamnet"]) == path
    first = load_encoder("yamnet")
    assert first.digest == load_encoder("yamnet", weights=path).digest
    other = save_stand_in(folder / "other", "yamnet", seed=1)
    assert load_encoder("yamnet", weights=other).digest != first.digest


# The whole path: load, embed, cache, train, save, predict


def make_table(folder: Path) -> pd.DataFrame:
    """Six speakers, three emotions that differ in loudness alone."""

    def make_noise(number: int, rng: np.random.Generator) -> np.ndarray:
        return 0.1 * (1 + number % 3) * rng.standard_normal(24_000)

    return write_recordings(folder, make_noise, emotions=("angry", "calm", "sad") * 2)


def build_head(input_shape, num_classes):
    inputs = keras.Input(input_shape)
    x = AttentionPooling(8, name="pooling")(layers.Dense(16, activation="relu")(inputs))
    return keras.Model(inputs, layers.Dense(num_classes, activation="softmax", name="emotions")(x))


HEAD_CONFIG = replace(PLAIN_CONFIG, epochs=12, learning_rate=0.02)


@pytest.mark.parametrize("name", ["yamnet", "vggish"])
def test_a_saved_head_predicts_a_recording_as_it_was_tested(name, folder, stand_ins, monkeypatch):
    monkeypatch.setattr(paths, "RUNS_DIR", folder / "runs")
    table = make_table(folder)
    encoder = load_encoder(name, weights=stand_ins[name])
    features = extract_embeddings(table, encoder)
    assert features.values.shape[0] == 36
    run = cross_validate(
        build_head,
        table,
        features,
        protocol="speaker_5fold",
        config=HEAD_CONFIG,
        only_folds=[1],
    )
    assert run.predictions["correct"].mean() > 0.8  # loudness tells the three apart
    again = load_encoder(name, weights=stand_ins[name])
    recipe = Recipe.from_description(features.recipe.describe(), encoder=again)
    said = predict_again(run, table, recipe)
    stored = run.predictions[[f"p_{name}" for name in order_emotions(table["emotion"])]]
    np.testing.assert_allclose(said, stored, atol=1e-3)
    monkeypatch.setattr(Encoder, "embed", None)
    np.testing.assert_array_equal(extract_embeddings(table, again).values, features.values)


def test_a_saved_model_gives_no_inputs_to_train_on(folder, stand_ins):
    encoders = {name: load_encoder(name, weights=path) for name, path in stand_ins.items()}
    with pytest.raises(ValueError, match=r"VGGish is loaded as a SavedModel.*trainable=True"):
        extract_inputs(make_table(folder)[:1], encoders["vggish"])
    with pytest.raises(ValueError, match=r"YAMNet cannot be trained further; extract_embeddings"):
        extract_inputs(make_table(folder)[:1], encoders["yamnet"])
    with pytest.raises(ValueError, match=r"YAMNet cannot be .*; choose byol_s or vgg16 or vggish"):
        load_encoder("yamnet", weights="random", trainable=True)


# What goes wrong


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dimensions": 64}, r"embeddings \(3, 64\), expected \(3, 128\)"),
        ({"hop": 7_680}, r"embeddings \(5, 128\), expected \(3, 128\)"),
        ({"kind": "dictionary"}, r"a waveform \(samples,\) gives no embeddings \(3, 128\)"),
        ({"kind": "yamnet", "dimensions": 1024}, r"embeddings \(3, 1024\), expected \(3, 128\)"),
    ],
)
def test_a_saved_model_with_another_contract_is_refused(changes, message, folder):
    kind = changes.pop("kind", "vggish")
    path = save_stand_in(folder / "own", kind, **{"hop": 15_360, "dimensions": 128, **changes})
    with pytest.raises(ValueError, match=message) as caught:
        load_encoder("vggish", weights=path)
    assert str(path) in str(caught.value)
    assert "give the folder of VGGish's SavedModel" in str(caught.value)


def test_a_saved_model_that_is_no_function_is_refused(folder):
    tensorflow.saved_model.save(tensorflow.Module(), str(folder / "own"))
    with pytest.raises(ValueError, match="gives no embeddings .* not callable"):
        load_encoder("vggish", weights=folder / "own")


@pytest.mark.parametrize("part", ["saved_model.pb", "variables/variables.index"])
def test_a_damaged_saved_model_is_refused(part, folder, stand_ins):
    path = shutil.copytree(stand_ins["vggish"], folder / "own")
    (path / part).write_bytes(b"cut off")
    with pytest.raises(ValueError, match=r"own cannot be read as a SavedModel .*fetch it anew"):
        load_encoder("vggish", weights=path)


def test_a_folder_without_a_saved_model_is_refused(folder):
    (folder / "pretrained" / "yamnet").mkdir(parents=True)
    for weights in ("published", str(folder / "nowhere"), folder):
        with pytest.raises(FileNotFoundError, match="No SavedModel at .*: give the folder of YAMN"):
            load_encoder("yamnet", weights=weights)


def publish(monkeypatch, resolve) -> None:
    """Stand in for TensorFlow Hub."""
    monkeypatch.setitem(sys.modules, "tensorflow_hub", SimpleNamespace(resolve=resolve))


def test_a_handle_is_fetched_where_nothing_is_at_hand(stand_ins, monkeypatch):
    path = stand_ins["vggish"]
    handles = []
    publish(monkeypatch, lambda handle: handles.append(handle) or str(path))
    encoder = load_encoder("vggish")
    assert handles == ["https://tfhub.dev/google/vggish/1"]
    assert encoder.digest == load_encoder("vggish", weights=path).digest


@pytest.mark.parametrize("trainable", [False, True])
def test_other_weights_than_the_published_are_refused_before_they_run(
    trainable, stand_ins, monkeypatch
):
    name = "vggish" if trainable else "yamnet"
    monkeypatch.setitem(ENCODERS, name, replace(ENCODERS[name], digest="0cb1934ed9f0f236"))
    publish(monkeypatch, lambda handle: str(stand_ins[name]))
    with monkeypatch.context() as patch:
        patch.setattr(tensorflow.saved_model, "load", lambda path: pytest.fail("it was run"))
        with pytest.raises(ValueError, match=r"not the published weights .*expected 0cb1934ed9f0"):
            load_encoder(name, trainable=trainable)
    load_encoder("yamnet", weights=stand_ins["yamnet"])
    publish_digest(monkeypatch, stand_ins["yamnet"])
    publish(monkeypatch, lambda handle: str(stand_ins["yamnet"]))
    assert load_encoder("yamnet").digest == ENCODERS["yamnet"].digest


@pytest.mark.skipif(not REAL_YAMNET.exists(), reason="the weights of YAMNet are not here")
def test_the_digest_of_the_record_is_that_of_the_published_results():
    assert digest_saved_model(REAL_YAMNET) == ENCODERS["yamnet"].digest
    results = paths.ROOT / "results" / "21_vggish_transfer"
    texts = [path.read_text() for path in results.glob("ravdess__speaker_5fold__yamnet*.json")]
    assert texts and all(ENCODERS["yamnet"].digest in text for text in texts)


def test_downloads_are_kept_below_pretrained(folder, monkeypatch):
    monkeypatch.delenv("TFHUB_CACHE_DIR")
    kept = []

    def resolve(handle):
        kept.append(os.environ["TFHUB_CACHE_DIR"])
        raise OSError("no route")

    publish(monkeypatch, resolve)
    with pytest.raises(OSError, match="no route"):
        load_encoder("vggish")
    assert kept == [str(folder / "pretrained" / "tfhub")]


@pytest.mark.parametrize(
    "error",
    [
        urllib.error.URLError("no route to host"),
        urllib.error.HTTPError("https://tfhub.dev", 404, "Not Found", None, None),
        OSError("https://tfhub.dev does not appear to be a valid module."),
        RuntimeError("Missing implementation that supports"),
        tensorflow.errors.ResourceExhaustedError(None, None, "no space left on device"),
    ],
)
def test_without_a_download_the_message_says_where_to_put_it(error, folder, monkeypatch):
    def resolve(handle):
        raise error

    publish(monkeypatch, resolve)
    with pytest.raises(OSError, match="VGGish could not be fetched") as caught:
        load_encoder("vggish")
    record = ENCODERS["vggish"]
    for part in (record.url, record.homepage, str(folder / "pretrained" / "vggish"), "load_enc"):
        assert part in str(caught.value)
    assert not list(folder.rglob("saved_model.pb"))


def test_the_real_tensorflow_hub_fetches_the_contract(folder, stand_ins, monkeypatch):
    """Its resolver, its cache and its archive format, with a file in the place of the network."""
    path = stand_ins["yamnet"]
    publish_digest(monkeypatch, path)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for member in sorted(path.rglob("*")):
            archive.add(member, member.relative_to(path), recursive=False)
    opened = []

    def urlopen(request, *args, **kwargs):
        opened.append(request.full_url)
        buffer.seek(0)
        return buffer

    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    encoder = load_encoder("yamnet")
    assert opened == ["https://tfhub.dev/google/yamnet/1?tf-hub-format=compressed"]
    assert encoder.embed(SOUND).shape == (5, 1024)
    assert load_encoder("yamnet").digest == encoder.digest and len(opened) == 1
    assert not list((folder / "hub").glob("*.tmp")) and not list((folder / "hub").glob("*.lock"))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("tensorflow_hub", r"pip install tensorflow-hub 'setuptools<82'"),
        ("tensorflow", r"YAMNet is a SavedModel, which TensorFlow reads: pip install tensorflow"),
    ],
)
def test_without_a_library_the_message_says_how_to_get_it(module, message, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=message):
        load_encoder("yamnet")


# The trainable VGGish: its front end


def compute_published_log_mel(waveform: np.ndarray) -> np.ndarray:
    """The published front end, frame by frame and band by band, in double precision."""
    window = np.array([0.5 - 0.5 * np.cos(2 * np.pi * i / 400) for i in range(400)])
    hertz_per_bin = 16_000 / 512

    def to_mel(hertz):
        return 1127.0 * np.log(1.0 + hertz / 700.0)

    corners = np.linspace(to_mel(125.0), to_mel(7500.0), 66)
    weights = np.zeros((257, 64))
    for band in range(64):
        low, centre, high = corners[band : band + 3]
        for index in range(1, 257):
            mel = to_mel(index * hertz_per_bin)
            rising, falling = (mel - low) / (centre - low), (high - mel) / (high - centre)
            weights[index, band] = max(0.0, min(rising, falling))
    frames = []
    for start in range(0, len(waveform) - 400 + 1, 160):
        magnitude = np.abs(np.fft.rfft(waveform[start : start + 400] * window, 512))
        frames.append(np.log(magnitude @ weights + 0.01))
    return np.array(frames)


@pytest.mark.parametrize(("num_samples", "num_examples"), [(15_600, 1), (15_599, 0), (46_320, 3)])
def test_the_front_end_agrees_with_the_published_one(num_samples, num_examples):
    waveform = (0.3 * RNG.standard_normal(num_samples)).astype(np.float32)
    waveform[: num_samples // 3] *= 1e-3
    values = ops.convert_to_numpy(VggishFrontEnd()(waveform[None]))[0]
    assert values.shape == (96 * num_examples, 64)
    expected = compute_published_log_mel(waveform.astype(np.float64))
    np.testing.assert_allclose(values, expected[: 96 * num_examples], atol=2e-4)
    assert VggishFrontEnd()(keras.Input((num_samples,))).shape == (None, 96 * num_examples, 64)


def test_silence_gives_the_logarithm_of_the_offset():
    values = ops.convert_to_numpy(VggishFrontEnd()(np.zeros((1, 15_600), np.float32)))
    np.testing.assert_allclose(values, np.log(0.01), atol=1e-6)


@pytest.mark.skipif(not REAL_YAMNET.is_dir(), reason="the weights of YAMNet are not at hand")
def test_yamnet_computes_the_same_bands():
    """Both come from one code base and differ in the offset alone."""
    _, embeddings, log_mel = tensorflow.saved_model.load(str(REAL_YAMNET))(SOUND)
    bands = np.exp(log_mel.numpy().astype(np.float64)) - 0.001
    ours = ops.convert_to_numpy(VggishFrontEnd()(SOUND[None]))[0]
    np.testing.assert_allclose(ours, np.log(bands[:288] + 0.01), atol=1e-3)
    encoder = load_encoder("yamnet", weights=REAL_YAMNET)
    np.testing.assert_array_equal(encoder.embed(SOUND), embeddings)


# The trainable VGGish: its network and its weights


def make_arrays(seed: int = 1) -> dict[str, np.ndarray]:
    """A narrow VGGish in which no array is constant."""
    rng = np.random.default_rng(seed)
    return {
        name: (rng.standard_normal(shape) / np.sqrt(np.prod(shape[:-1]) / 2)).astype(np.float32)
        for name, shape in shape_vggish(WIDTHS).items()
    }


def compute_by_hand(arrays: dict[str, np.ndarray], example: np.ndarray) -> np.ndarray:
    """VGGish's definition for one example (96, 64), in NumPy."""
    x = example[:, :, None].astype(np.float64)
    for block in (("conv1",), ("conv2",), ("conv3", 1), ("conv4", 1)):
        name = block[0]
        scopes = [name] if len(block) == 1 else [f"{name}/{name}_1", f"{name}/{name}_2"]
        for scope in scopes:
            padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
            windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(0, 1))
            x = np.einsum("tfikl,klio->tfo", windows, arrays[f"vggish/{scope}/weights"])
            x = np.maximum(x + arrays[f"vggish/{scope}/biases"], 0)
        time, bands = x.shape[0] // 2, x.shape[1] // 2
        x = x.reshape(time, 2, bands, 2, -1).max(axis=(1, 3))
    x = x.ravel()
    for scope in ("fc1/fc1_1", "fc1/fc1_2"):
        x = np.maximum(x @ arrays[f"vggish/{scope}/weights"] + arrays[f"vggish/{scope}/biases"], 0)
    return x @ arrays["vggish/fc2/weights"] + arrays["vggish/fc2/biases"]


def test_the_network_computes_what_it_is_defined_to():
    arrays = make_arrays()
    model = build_vggish(arrays, num_examples=2)
    values = RNG.standard_normal((3, 192, 64)).astype(np.float32)
    embedded = ops.convert_to_numpy(model(values, training=False))
    assert embedded.shape == (3, 2, 128)
    for row in range(3):
        for number in range(2):
            expected = compute_by_hand(arrays, values[row, 96 * number : 96 * (number + 1)])
            np.testing.assert_allclose(embedded[row, number], expected, atol=1e-4)


def test_the_published_network_has_72_million_weights():
    shapes = shape_vggish()
    assert shapes["vggish/conv4/conv4_1/weights"] == (3, 3, 256, 512)
    assert shapes["vggish/fc1/fc1_1/weights"] == (12_288, 4096)
    assert sum(np.prod(shape) for shape in shapes.values()) == 72_141_184
    assert PUBLISHED_WIDTHS[-1] == ENCODERS["vggish"].num_dimensions


class Released(tensorflow.Module):
    """The released VGGish's way of keeping its variables: in a list, by their names in Slim."""

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        super().__init__()
        self._variables = []

        def define(waveform):
            values = {}
            for name, array in arrays.items():
                values[name] = tensorflow.compat.v1.get_variable(
                    name,
                    shape=array.shape,
                    initializer=tensorflow.compat.v1.constant_initializer(array),
                    use_resource=True,
                )
                self._variables.append(values[name])
            frames = tensorflow.signal.stft(waveform, 400, 160, 512)
            matrix = tensorflow.signal.linear_to_mel_weight_matrix(64, 257, 16_000, 125.0, 7500.0)
            values_of_mel = tensorflow.math.log(tensorflow.abs(frames) @ matrix + 0.01)
            x = tensorflow.signal.frame(values_of_mel, 96, 96, axis=0)[..., None]
            for scope in SCOPES:
                kernel, bias = (values[f"vggish/{scope}/{part}"] for part in ("weights", "biases"))
                if "conv" in scope:
                    x = tensorflow.nn.relu(tensorflow.nn.conv2d(x, kernel, 1, "SAME") + bias)
                    if not scope.endswith("_1"):
                        x = tensorflow.nn.max_pool2d(x, 2, 2, "SAME")
                else:
                    x = tensorflow.reshape(x, (-1, kernel.shape[0])) @ kernel + bias
                    x = x if scope == "fc2" else tensorflow.nn.relu(x)
            return x

        signature = (tensorflow.TensorSpec([None], tensorflow.float32),)
        self._function = tensorflow.compat.v1.wrap_function(define, signature=signature)

    @tensorflow.function(input_signature=[tensorflow.TensorSpec([None], tensorflow.float32)])
    def __call__(self, waveform):
        return self._function(waveform)


def save_released(folder: Path, arrays: dict[str, np.ndarray]) -> Path:
    tensorflow.saved_model.save(Released(arrays), str(folder))
    return folder


def save_checkpoint(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    """A checkpoint in TensorFlow 1's format, as the released one, with an optimiser's slot."""
    arrays = {**arrays, "vggish/fc2/biases/Adam": np.zeros(128, np.float32)}
    tensorflow.raw_ops.Save(
        filename=str(path), tensor_names=list(arrays), data=list(arrays.values())
    )
    return path


@pytest.fixture(scope="module")
def released(tmp_path_factory) -> Path:
    return save_released(tmp_path_factory.mktemp("released") / "own", make_arrays())


def test_the_keras_network_gives_what_the_saved_model_gives(released):
    path = released
    frozen = load_encoder("vggish", weights=path)
    encoder = load_encoder("vggish", weights=path, trainable=True)
    expected = frozen.embed(SOUND)
    np.testing.assert_allclose(encoder.embed(SOUND), expected, atol=1e-3 * np.abs(expected).max())
    assert expected.std() > 0.1
    assert all(layer.trainable for layer in encoder.network.layers)
    assert len(encoder.network.trainable_weights) == 2 * len(SCOPES)


def test_a_checkpoint_and_a_saved_model_hold_the_same_weights(released, folder):
    arrays = make_arrays()
    first = read_vggish(released)
    second = read_vggish(save_checkpoint(folder / "vggish_model.ckpt", arrays))
    assert first.keys() == second.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(first[name], array)
        np.testing.assert_array_equal(second[name], array)
    encoders = [
        load_encoder("vggish", weights=path, trainable=True)
        for path in (released, folder / "vggish_model.ckpt")
    ]
    assert encoders[0].digest == encoders[1].digest


def spoil(arrays: dict[str, np.ndarray], how: str) -> dict[str, np.ndarray]:
    if how == "missing":
        del arrays["vggish/conv3/conv3_2/biases"]
    if how == "shape":
        arrays["vggish/conv2/weights"] = arrays["vggish/conv2/weights"][:2]
    if how == "dimensions":
        arrays["vggish/fc2/biases"] = arrays["vggish/fc2/biases"][:64]
    if how == "not finite":
        arrays["vggish/fc1/fc1_1/biases"][0] = np.inf
    return {} if how == "nothing" else arrays


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", r"vggish/conv3/conv3_2/\w+ is "),
        ("shape", r"vggish/conv2/weights is \(2, 3, 2, 3\), expected \(3, 3, 2, 3\)"),
        ("dimensions", r"vggish/fc2/biases is \(64,\), expected \(128,\)"),
        ("not finite", r"vggish/fc1/fc1_1/biases holds values that are not finite"),
        ("nothing", r"conv1/weights is missing \(there is vggish/fc2/biases/Adam\), expected"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(how, message, folder):
    path = save_checkpoint(folder / "own.ckpt", spoil(make_arrays(), how))
    with pytest.raises(ValueError, match=message) as caught:
        load_encoder("vggish", weights=path, trainable=True)
    assert str(path) in str(caught.value) and "SavedModel or checkpoint" in str(caught.value)


def test_a_saved_model_without_the_variables_is_refused(stand_ins):
    path = stand_ins["vggish"]
    with pytest.raises(ValueError, match=r"vggish: vggish/conv1/weights is missing"):
        load_encoder("vggish", weights=path, trainable=True)


def test_a_damaged_and_an_absent_checkpoint_are_refused(folder):
    (folder / "own.ckpt").write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match=r"own\.ckpt cannot be read"):
        load_encoder("vggish", weights=folder / "own.ckpt", trainable=True)
    with pytest.raises(FileNotFoundError, match=r"No weights at .*nowhere: give another path"):
        load_encoder("vggish", weights=folder / "nowhere", trainable=True)


def test_a_model_from_the_inputs_on_saves_and_loads_in_safe_mode(folder):
    encoder = load_encoder("vggish", weights="random", trainable=True, duration_seconds=1.5)
    inputs = extract_inputs(make_table(folder)[:4], encoder)
    assert inputs.values.shape == (4, 192, 64) and not inputs.recipe.normalise
    x = keras.Input(inputs.values.shape[1:])
    model = keras.Model(x, layers.GlobalAveragePooling1D()(encoder.network(x)))
    model.save(folder / "model.keras")
    loaded = keras.models.load_model(folder / "model.keras", safe_mode=True)
    np.testing.assert_allclose(loaded(inputs.values), model(inputs.values), atol=1e-5)


def test_random_weights_keep_the_level_of_the_signal():
    arrays = draw_vggish(narrower=16)
    embedded = build_vggish(arrays, num_examples=1)(RNG.standard_normal((2, 96, 64)))
    assert 0.1 < ops.convert_to_numpy(embedded).std() < 10


# Post-processing


def save_pca(path: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    vectors, _ = np.linalg.qr(RNG.standard_normal((128, 128)))
    means = RNG.standard_normal(128)
    np.savez(path, pca_eigen_vectors=vectors, pca_means=means[:, None])
    return path, vectors, means


def test_post_processing_is_the_published_formula(folder):
    path, vectors, means = save_pca(folder / "pca.npz")
    values = (2 * RNG.standard_normal((3, 2, 128))).astype(np.float32)
    whiten = WhitenVggish(path)
    for row in values:
        applied = np.dot(vectors, row.T - means[:, None]).T
        expected = ((np.clip(applied, -2, 2) + 2) * 255 / 4).astype(np.uint8)
        np.testing.assert_array_equal(whiten(row), expected)
    np.testing.assert_array_equal(whiten(values)[1], whiten(values[1]))
    assert whiten(values).dtype == np.float32
    with pytest.raises(ValueError, match=r"pca\.npz is for .* 128 numbers, these have 5"):
        whiten(values[..., :5])


def test_post_processing_is_repeated_with_the_parameters_that_it_names(folder):
    published, *_ = save_pca(folder / "published.npz")
    (folder / "pretrained").mkdir()
    shutil.copy(published, folder / "pretrained" / "vggish_pca_params.npz")
    facts = {"num_bytes": published.stat().st_size, "checksum": f"sha256:{hash_file(published)}"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vggish, "PCA_BYTES", facts["num_bytes"])
        patch.setattr(vggish, "PCA_CHECKSUM", facts["checksum"])
        recipe = Recipe((WhitenVggish(),))
        again = Recipe.from_description(json.loads(json.dumps(recipe.describe())))
        values = RNG.standard_normal((2, 128)).astype(np.float32)
        np.testing.assert_array_equal(again(values), recipe(values))
        other = Recipe((WhitenVggish(save_pca(folder / "other.npz")[0]),))
        with pytest.raises(ValueError, match=r"were whitened with .* but those in .*_params\.npz"):
            Recipe.from_description(other.describe())


def test_a_file_with_other_parameters_is_refused(folder):
    (folder / "pca.npz").write_bytes(b"PK\x03\x04 cut off")
    np.savez(folder / "other.npz", vectors=np.zeros(3))
    for name in ("pca.npz", "other.npz"):
        with pytest.raises(ValueError, match=rf"{name} does not hold pca_eigen_vectors .*anew"):
            WhitenVggish(folder / name)


def test_parameters_are_fetched_with_their_checksum(monkeypatch):
    fetched = []

    def download(url, path, *, num_bytes, checksum):
        fetched.append((url, num_bytes, checksum))
        return path

    monkeypatch.setattr(vggish, "download_archive", download)
    assert fetch_vggish_pca() == paths.PRETRAINED_DIR / "vggish_pca_params.npz"
    assert fetched == [(vggish.PCA_URL, vggish.PCA_BYTES, vggish.PCA_CHECKSUM)]
    assert vggish.PCA_CHECKSUM.startswith("sha256:") and len(vggish.PCA_CHECKSUM) == 7 + 64
