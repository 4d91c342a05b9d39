"""VGG16: pictures, windows, network, weights from a file or the network, training in stages."""

import hashlib
from dataclasses import replace
from pathlib import Path

import h5py
import keras
import numpy as np
import pandas as pd
import pytest
import requests
from keras import layers, ops

from common import paths
from common.cross_validation import cross_validate
from common.emotions import order_emotions
from common.encoders import ENCODERS, Encoder, load_encoder
from common.encoders.extraction import extract_embeddings, extract_inputs
from common.encoders.stages import copy_weights, make_stage, train_stage
from common.encoders.vgg16 import (
    CONVOLUTIONS,
    PICTURE,
    CutWindows,
    build_vgg16,
    draw_vgg16,
    make_pictures,
    read_vgg16,
)
from tests.speech_tables import PLAIN_CONFIG, predict_again, write_recordings

RECORD = ENCODERS["vgg16"]
RNG = np.random.default_rng(0)
SOUND = (RNG.standard_normal(40_960) * np.linspace(0.001, 0.3, 40_960)).astype(np.float32)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(paths, "PRETRAINED_DIR", tmp_path / "pretrained")
    monkeypatch.setattr(paths, "CACHE_DIR", tmp_path / "cache")
    return tmp_path


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("vgg16", weights="random", duration_seconds=1.0)


# Pictures and windows


def test_a_picture_is_log_mel_from_black_to_white():
    picture = make_pictures(SOUND[None])[0]
    assert picture.shape == (256, 128) and picture.dtype == np.float32
    decibels = PICTURE(SOUND)[:256]
    expected = 255 * (decibels - decibels.max() + 80) / 80
    np.testing.assert_allclose(picture, expected, atol=1e-3)
    assert picture.max() == 255 and picture.min() >= 0
    np.testing.assert_allclose(make_pictures(0.1 * SOUND[None])[0], picture, atol=0.1)


def test_silence_around_a_short_sound_is_black():
    picture = make_pictures(np.pad(SOUND[-8_000:], 16_480)[None])[0]
    assert picture[:90].max() == 0 == picture[-90:].max() and picture[110:140].min() > 0


def test_pictures_of_one_batch_do_not_touch_each_other():
    other = RNG.standard_normal(40_960).astype(np.float32)
    together = make_pictures(np.stack([SOUND, other]))
    np.testing.assert_array_equal(together[1], make_pictures(other[None])[0])
    assert np.isfinite(make_pictures(np.zeros((1, 20_480), np.float32))).all()


@pytest.mark.parametrize(("num_frames", "num_windows"), [(128, 1), (191, 1), (192, 2), (256, 3)])
def test_windows_overlap_by_half_and_stand_on_their_low_bands(num_frames, num_windows):
    pictures = RNG.uniform(0, 255, (2, num_frames, 128)).astype(np.float32)
    windows = ops.convert_to_numpy(CutWindows()(pictures))
    assert windows.shape == (2 * num_windows, 128, 128, 3)
    for row in range(2):
        for number in range(num_windows):
            cut = pictures[row, 64 * number : 64 * number + 128]
            image = np.repeat(cut.T[::-1, :, None], 3, axis=2)
            expected = keras.applications.vgg16.preprocess_input(image.copy())
            np.testing.assert_allclose(windows[row * num_windows + number], expected, atol=1e-3)
    assert CutWindows()(keras.Input((num_frames, 128))).shape == (None, 128, 128, 3)


# The network


def test_the_network_is_that_of_keras():
    """Widths as published, on one window."""
    arrays = draw_vgg16(seed=1, narrower=1)
    assert sum(array.size for array in arrays.values()) == 14_714_688
    network = build_vgg16(arrays, num_windows=1)
    assert network.count_params() == 14_714_688 and network.output_shape == (None, 1, 512)
    published = keras.applications.VGG16(
        include_top=False, weights=None, input_shape=(128, 128, 3), pooling="avg"
    )
    published.set_weights(list(arrays.values()))
    picture = make_pictures(SOUND[None, :20_480])
    expected = published(CutWindows()(picture), training=False)
    embedded = network(picture, training=False)
    assert ops.convert_to_numpy(expected).std() > 0.1
    np.testing.assert_allclose(embedded[:, 0], expected, atol=1e-3)


@pytest.mark.parametrize(("duration_seconds", "num_windows"), [(0.3, 1), (1.28, 1), (1.9, 2)])
def test_every_waveform_gives_as_many_embeddings(duration_seconds, num_windows):
    encoder = load_encoder("vgg16", weights="random", duration_seconds=duration_seconds)
    assert encoder.num_samples == 20_480 + 10_240 * (num_windows - 1)
    for num_samples in (1, 399, 20_480, 50_001):
        embedded = encoder.embed(SOUND[:num_samples] if num_samples < 40_000 else SOUND)
        assert embedded.shape == (num_windows, RECORD.num_dimensions)
        assert embedded.dtype == np.float32 and np.isfinite(embedded).all()


def test_two_and_a_half_seconds_are_three_windows():
    encoder = load_encoder("vgg16", weights="random")
    assert encoder.num_samples == 40_960 and encoder.prepare(SOUND).shape == (256, 128)
    embedded = encoder.embed(SOUND)
    assert embedded.shape == (3, 512) and 0.05 < embedded.std() < 10


def test_random_weights_are_the_same_each_time(encoder):
    again = load_encoder("vgg16", weights="random", duration_seconds=1.0)
    assert again.digest == encoder.digest
    np.testing.assert_array_equal(again.embed(SOUND), encoder.embed(SOUND))
    first, other = draw_vgg16(seed=0), draw_vgg16(seed=1)
    assert first.keys() == other.keys() and len(first) == 2 * len(CONVOLUTIONS) == 26
    assert not np.array_equal(first["block3_conv2/kernel"], other["block3_conv2/kernel"])
    assert encoder.network.count_params() < 500_000


# Weights from a file


def save_published(path: Path, arrays: dict[str, np.ndarray], *, top: bool = False) -> Path:
    """Write a file in the format of the published one: HDF5 by layers, poolings without weights."""
    names = ["input_1", *CONVOLUTIONS, "block5_pool", *["fc1"] * top]
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in names]
        for name in names:
            group = file.create_group(name)
            parts = {"W": "kernel", "b": "bias"} if name in CONVOLUTIONS else {}
            weights = {f"{name}_{short}_1:0": f"{name}/{part}" for short, part in parts.items()}
            if name == "fc1":
                weights = {"fc1_W_1:0": "block1_conv1/kernel", "fc1_b_1:0": "block1_conv1/bias"}
            group.attrs["weight_names"] = [key.encode() for key in weights]
            for key, array in weights.items():
                group[key] = arrays[array]
    return path


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Arrays and file of a VGG16 as wide as the published one."""
    arrays = draw_vgg16(seed=3, narrower=1)
    return arrays, save_published(tmp_path_factory.mktemp("vgg16") / "notop.h5", arrays)


def test_a_file_as_keras_publishes_it_is_read(published):
    arrays, path = published
    read = read_vgg16(path)
    assert read.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], array)
    encoder = load_encoder("vgg16", weights=str(path), duration_seconds=1.28)
    assert encoder.embed(SOUND).shape == (1, 512)
    assert encoder.digest != load_encoder("vgg16", weights="random").digest


def test_a_file_as_keras_saves_it_is_read(folder):
    model = keras.applications.VGG16(include_top=False, weights=None)
    model.save_weights(folder / "own.weights.h5")
    read = read_vgg16(folder / "own.weights.h5")
    expected = model.get_layer("block4_conv2").get_weights()
    np.testing.assert_array_equal(read["block4_conv2/kernel"], expected[0])


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("narrow", r"own\.h5 does not hold the weights of VGG16 \("),
        ("top", r"own\.h5 does not hold .*Model expected 13 layers, found 14 saved"),
        ("not finite", r"own\.h5: block2_conv1/kernel holds values that are not finite"),
    ],
)
def test_a_file_with_other_weights_is_refused(how, message, published, folder):
    arrays = draw_vgg16() if how == "narrow" else dict(published[0])
    if how == "not finite":
        arrays["block2_conv1/kernel"] = np.full_like(arrays["block2_conv1/kernel"], np.nan)
    path = save_published(folder / "own.h5", arrays, top=how == "top")
    with pytest.raises(ValueError, match=message) as caught:
        load_encoder("vgg16", weights=path)
    assert "give the path of VGG16's weights without its top" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\x89HDF\r\n\x1a\n cut off", b"<html>not here</html>"])
@pytest.mark.parametrize("name", ["own.h5", "own.weights.h5", "own.bin"])
def test_a_file_that_holds_no_weights_is_refused(content, name, folder):
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name} does not hold the weights of VGG16"):
        load_encoder("vgg16", weights=folder / name)


def test_a_file_that_is_not_there_is_named(folder):
    with pytest.raises(FileNotFoundError, match=r"No weights at .*nowhere\.h5: give another path"):
        load_encoder("vgg16", weights=folder / "nowhere.h5")


# Weights from the network


def answer(monkeypatch, content: bytes = b"", error: Exception | None = None) -> list[str]:
    """Stand in for the server; gives the list of what was asked for."""
    asked = []

    class Response:
        status_code = 200
        headers = {"Content-Length": str(len(content))}

        def __enter__(self):
            return self

        def __exit__(self, *details):
            return None

        def raise_for_status(self):
            if error:
                raise error

        def iter_content(self, size):
            yield content

    def get(url, **settings):
        asked.append(url)
        return Response()

    monkeypatch.setattr(requests, "get", get)
    return asked


def publish(monkeypatch, path: Path) -> None:
    """Let the record name the file at `path`."""
    checksum = f"md5:{hashlib.md5(path.read_bytes()).hexdigest()}"
    record = replace(RECORD, num_bytes=path.stat().st_size, checksum=checksum)
    monkeypatch.setitem(ENCODERS, "vgg16", record)


def test_published_weights_are_fetched_once_where_a_damaged_file_lies(
    published, folder, monkeypatch
):
    (folder / "pretrained").mkdir()
    (folder / "pretrained" / RECORD.file_name).write_bytes(published[1].read_bytes()[:1_000])
    asked = answer(monkeypatch, published[1].read_bytes())
    publish(monkeypatch, published[1])
    first = load_encoder("vgg16", duration_seconds=1.28)
    assert asked == [RECORD.url]
    assert [path.name for path in (folder / "pretrained").iterdir()] == [RECORD.file_name]
    assert load_encoder("vgg16", duration_seconds=1.28).digest == first.digest
    assert len(asked) == 1


@pytest.mark.parametrize(
    "error",
    [
        requests.ConnectionError("no route to host"),
        requests.HTTPError("404 Client Error: Not Found"),
        requests.Timeout("read timed out"),
    ],
)
def test_without_a_download_the_message_says_where_to_put_the_file(error, folder, monkeypatch):
    answer(monkeypatch, error=error)
    with pytest.raises(OSError, match="weights of VGG16 could not be fetched") as caught:
        load_encoder("vgg16")
    parts = (str(error), RECORD.url, RECORD.homepage, "load_encoder", "_notop.h5 there as vgg16")
    for part in (*parts, str(folder / "pretrained" / RECORD.file_name)):
        assert part in str(caught.value)
    assert not list((folder / "pretrained").glob("*"))


def test_the_record_names_the_file_of_keras():
    source = Path(keras.applications.vgg16.VGG16.__code__.co_filename).read_text()
    assert RECORD.checksum.removeprefix("md5:") in source
    assert Path(RECORD.url).name in source and "CC BY 4.0" in RECORD.licence


# The whole path: load, embed, cache, train, save, predict; then stage by stage


def make_table(folder: Path) -> pd.DataFrame:
    """Seven speakers, three emotions that differ in pitch, an octave apart."""

    def make_tone(number: int, rng: np.random.Generator) -> np.ndarray:
        pitch = 200 * 2 ** (number % 3) * rng.uniform(0.95, 1.05)
        tone = np.sign(np.sin(2 * np.pi * pitch * np.arange(20_000) / 16_000))
        return 0.3 * tone + 0.001 * rng.standard_normal(20_000)

    return write_recordings(
        folder, make_tone, emotions=("angry", "calm", "sad") * 3, num_speakers=7
    )


def build_head(input_shape, num_classes):
    inputs = keras.Input(input_shape)
    x = layers.BatchNormalization(momentum=0.5, name="norm")(inputs)
    x = layers.Dense(num_classes, activation="softmax", name="windows")(x)
    return keras.Model(inputs, layers.GlobalAveragePooling1D(name="emotions")(x), name="judge")


def add_head(embeddings, num_classes):
    return build_head(embeddings.shape[1:], num_classes)(embeddings)


CONFIG = replace(PLAIN_CONFIG, epochs=25, learning_rate=0.01)


def test_the_whole_path(encoder, folder, monkeypatch):
    monkeypatch.setattr(paths, "RUNS_DIR", folder / "runs")
    table = make_table(folder)
    embeddings = extract_embeddings(table, encoder, normalise=False)
    assert embeddings.values.shape == (63, 1, 512)
    probabilities = [f"p_{name}" for name in order_emotions(table["emotion"])]
    settings = {"protocol": "random_80_10_10"}
    frozen = cross_validate(build_head, table, embeddings, config=CONFIG, **settings)
    assert frozen.predictions["correct"].mean() > 0.8
    said = predict_again(frozen, table, embeddings.recipe)
    np.testing.assert_allclose(said, frozen.predictions[probabilities], atol=1e-3)

    inputs = extract_inputs(table, encoder)
    assert inputs.values.shape == (63, 128, 128) and not inputs.recipe.normalise
    settings |= {"config": replace(CONFIG, epochs=1, learning_rate=1e-4)}
    first = train_stage(
        add_head, table, inputs, encoder, unfrozen=["block5"], before=frozen, **settings
    )
    second = train_stage(
        add_head, table, inputs, encoder, unfrozen=("block4", "block5"), before=first, **settings
    )
    keys = {run.description["key"] for run in (frozen, first, second)}
    assert len(keys) == 3 and first.complete
    assert second.description["start"] == {
        "weights": encoder.digest,
        "run": first.description["key"],
        "unfrozen": ["block4", "block5"],
    }
    assert second.predictions["correct"].mean() > 0.8  # the head knew it, and little changed
    said = predict_again(second, table, inputs.recipe)
    np.testing.assert_allclose(said, second.predictions[probabilities], atol=1e-3)

    networks = [encoder.network]
    for run in (first, second):
        model = run.load_model(seed=0, fold=1)
        networks.append(model.get_layer("vgg16_transfer").get_layer("vgg16"))
    for name in CONVOLUTIONS:
        weights = [network.get_layer(name).get_weights()[0] for network in networks]
        assert np.array_equal(weights[0], weights[1]) == (not name.startswith("block5"))
        assert np.array_equal(weights[1], weights[2]) == (name < "block4")

    monkeypatch.setattr(Encoder, "prepare", None)
    np.testing.assert_array_equal(extract_inputs(table, encoder).values, inputs.values)
    again = train_stage(
        add_head, table, inputs, encoder, unfrozen="block5", before=frozen, **settings
    )
    assert again.description["key"] == first.description["key"]
    assert set(again.sources.values()) == {"stored"}


def test_a_stage_takes_a_head_on_plain_embeddings_alone(encoder):
    model = build_head((1, 512), 3)

    def save(mean, inner):
        inputs = keras.Input((1, 512))
        normalise = layers.Normalization(
            mean=np.full(512, mean), variance=np.ones(512), name="normalise"
        )
        return keras.Model(inputs, inner(normalise(inputs)))

    stage = make_stage(add_head, encoder, "block5")((128, 128), 3)
    assert stage.output_shape == (None, 3) and stage.name == "vgg16_transfer"
    copy_weights(save(0, model), stage)
    for one, other in zip(model.weights, stage.get_layer("judge").weights, strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(ValueError, match=r"normalised the embeddings of judge.*normalise=False"):
        copy_weights(save(0.5, model), stage)
    model = keras.Model(model.input, model.output, name="other")
    with pytest.raises(ValueError, match=r"the run before is of other, which is not among"):
        copy_weights(save(0, model), stage)


def test_a_model_from_the_picture_on_saves_and_loads_in_safe_mode(encoder, folder):
    stage = make_stage(add_head, encoder, "block5")((128, 128), 3)
    picture = encoder.prepare(SOUND)[None]
    assert len(stage.trainable_weights) == 2 * 3 + 2 + 2
    stage.save(folder / "model.keras")
    loaded = keras.models.load_model(folder / "model.keras", safe_mode=True)
    np.testing.assert_allclose(
        loaded.predict(picture, verbose=0), stage.predict(picture, verbose=0), atol=1e-5
    )
