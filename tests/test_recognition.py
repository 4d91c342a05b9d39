"""A saved model with its preparation says of a recording what it said in the test."""

import io
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from io import StringIO

import keras
import numpy as np
import pandas as pd
import pytest
import soundfile
from keras import layers

from common.audio import scan_recording
from common.corpora import load_corpus
from common.cross_validation import cross_validate
from common.encoders import load_encoder
from common.encoders.extraction import Pool, extract_embeddings, extract_inputs
from common.features import FitLength, LogMel, Trim
from common.layers import AttentionPooling
from common.paths import ROOT
from common.recipes import Recipe, Step, extract_features
from common.recognition import EmotionRecognizer
from common.training import TrainingConfig

CONFIG = TrainingConfig(epochs=2, batch_size=16, ema_momentum=None, monitor=None)
TONE = (0.3 * np.sin(np.arange(16_000) / 10)).astype(np.float32)
RECIPE = Recipe((Trim(), FitLength(seconds=1), LogMel(num_bands=24)))


def build_model(input_shape, num_classes):
    inputs = keras.Input(input_shape)
    x = layers.GlobalAveragePooling1D()(layers.Dense(8, activation="relu")(inputs))
    return keras.Model(inputs, layers.Dense(num_classes, activation="softmax")(x))


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("byol_s", weights="random", duration_seconds=1)


@pytest.fixture(scope="module")
def table():
    rows = load_corpus("sample")
    return rows.groupby(["speaker", "emotion"]).head(1).reset_index(drop=True)


def train(table, features, folder):
    settings = {"protocol": "leave_one_speaker_out", "config": CONFIG, "only_folds": [1]}
    return cross_validate(build_model, table, features, runs_folder=folder, **settings)


@pytest.mark.parametrize("kind", ["log_mel", "embeddings", "pooled", "inputs"])
def test_a_saved_recognizer_repeats_what_was_tested(kind, table, encoder, tmp_path):
    if kind == "log_mel":
        features, needed = extract_features(table, RECIPE), None
    else:
        extract = extract_inputs if kind == "inputs" else extract_embeddings
        features, needed = extract(table, encoder), encoder
    if kind == "pooled":
        features = features.then(Pool("mean, maximum"))
    run = train(table, features, tmp_path / "runs")
    EmotionRecognizer.from_run(run, seed=0, fold=1, encoder=needed).save(tmp_path / "saved.keras")
    recognizer = EmotionRecognizer.load(tmp_path / "saved.keras", encoder=needed)
    files = table.set_index("utterance")["path"]
    for _, row in run.predictions.iterrows():
        found = recognizer.predict(files[row["utterance"]])
        expected = row.filter(like="p_").astype(float)
        np.testing.assert_allclose(found, expected, atol=1e-3)
        assert found.idxmax() == row["predicted_label"] and found.sum() == pytest.approx(1)
    assert [f"p_{name}" for name in found.index] == list(expected.index)


def test_recordings_of_any_rate_and_channels_are_heard_alike(table, tmp_path):
    run = train(table, extract_features(table, RECIPE), tmp_path)
    recognizer = EmotionRecognizer.from_run(run, seed=0, fold=1)
    waveform, rate = soundfile.read(table["path"][0])
    soundfile.write(tmp_path / "stereo.wav", np.stack([waveform, waveform], axis=1), rate)
    pd.testing.assert_series_equal(
        recognizer.predict(tmp_path / "stereo.wav"), recognizer.predict(waveform), atol=1e-3
    )


def test_a_saved_recognizer_needs_one_import(table, tmp_path):
    inputs = keras.Input((63, 24))
    outputs = layers.Dense(8, activation="softmax")(AttentionPooling(4)(inputs))
    recognizer = EmotionRecognizer(keras.Model(inputs, outputs), tuple("abcdefgh"), RECIPE)
    recognizer.save(tmp_path / "saved.keras")
    code = (
        "import sys; from common.recognition import EmotionRecognizer; "
        "print(EmotionRecognizer.load(sys.argv[1]).predict(sys.argv[2]).to_json())"
    )
    command = [sys.executable, "-c", code, tmp_path / "saved.keras", table["path"][0]]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    expected = recognizer.predict(table["path"][0])
    assert pd.read_json(StringIO(found), typ="series").to_dict() == pytest.approx(
        expected.to_dict(), abs=1e-4
    )


def test_another_encoder_is_refused(table, encoder, tmp_path):
    run = train(table, extract_embeddings(table, encoder), tmp_path / "runs")
    EmotionRecognizer.from_run(run, seed=0, fold=1, encoder=encoder).save(tmp_path / "saved.keras")
    longer = load_encoder("byol_s", weights="random", duration_seconds=2)
    with pytest.raises(ValueError, match=r"16000 samples, but .* 32000 samples"):
        EmotionRecognizer.load(tmp_path / "saved.keras", encoder=longer)


def test_model_emotions_and_recipe_are_one_file(table, tmp_path):
    run = train(table, extract_features(table, RECIPE), tmp_path / "runs")
    recognizer = EmotionRecognizer.from_run(run, seed=0, fold=1)
    recognizer.save(tmp_path / "saved.keras")
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["saved.keras"]
    with pytest.raises(ValueError, match=r"saved: a recogniser is one file"):
        recognizer.save(tmp_path / "saved")
    found = EmotionRecognizer.load(tmp_path / "saved.keras")
    assert (found.emotions, found.recipe) == (recognizer.emotions, RECIPE)


def test_what_is_no_recognizer_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere.keras: no such recogniser"):
        EmotionRecognizer.load(tmp_path / "nowhere.keras")
    (tmp_path / "text.keras").write_text("no model")
    model = build_model((15, 512), 8)
    model.save(tmp_path / "bare.keras")
    EmotionRecognizer(model, ("a", "b"), RECIPE).save(tmp_path / "other.keras")
    for name, problem in (
        ("text", "is not a recogniser"),
        ("bare", "is not a recogniser .*recognizer.json"),
        ("other", "8 outputs and 2 emotions"),
    ):
        with pytest.raises(ValueError, match=rf"{name}.keras.* {problem}|{name}.keras: {problem}"):
            EmotionRecognizer.load(tmp_path / f"{name}.keras")


@dataclass(frozen=True)
class Unrepeatable(Step):
    """Needs more than one recording."""


def test_features_that_cannot_be_repeated_are_told(table, tmp_path):
    features = extract_features(table, RECIPE)
    features = features.replaced(features.values, features.copies, Unrepeatable())
    recognizer = EmotionRecognizer.from_run(train(table, features, tmp_path), seed=0, fold=1)
    with pytest.raises(NotImplementedError, match="Unrepeatable"):
        recognizer.predict(table["path"][0])


@pytest.fixture
def recognizer() -> EmotionRecognizer:
    model = build_model(RECIPE(TONE).shape, 3)
    return EmotionRecognizer(model, ("angry", "calm", "sad"), RECIPE)


def test_what_training_would_refuse_is_refused_in_use(recognizer, tmp_path):
    for sound, problem in (
        (0 * TONE, "silent"),
        (TONE[:80], "too short"),
        (9e4 * TONE, "too loud"),
    ):
        with pytest.raises(ValueError, match=problem):
            recognizer.predict(sound)
        soundfile.write(tmp_path / "a.wav", sound, 16_000, subtype="FLOAT")
        assert scan_recording(tmp_path / "a.wav")["problem"].startswith(problem)


def test_bytes_arrays_and_files_are_heard_alike(recognizer, tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, TONE, 16_000, subtype="FLOAT")
    expected = recognizer.predict(path)
    for given in (path.read_bytes(), io.BytesIO(path.read_bytes()), TONE, (16_000, TONE)):
        pd.testing.assert_series_equal(recognizer.predict(given), expected, atol=1e-5)


def test_a_long_recording_is_heard_window_by_window(recognizer):
    sound = np.concatenate([TONE, np.zeros(64_000, np.float32), *[TONE] * 70])
    with pytest.raises(ValueError, match="too long"):
        recognizer.predict(sound)
    timeline = recognizer.predict_timeline(sound, window_seconds=2, hop_seconds=1)
    assert timeline.index.names == ["start_seconds", "end_seconds"]
    starts, ends = (timeline.index.get_level_values(level) for level in (0, 1))
    assert starts.tolist() == list(range(len(starts))) and ends[-1] == len(sound) / 16_000
    silent = (starts >= 1) & (ends <= 5)
    assert timeline[silent].isna().all(axis=None)
    np.testing.assert_allclose(timeline[~silent].sum(axis=1), 1, atol=1e-5)
    alone = recognizer.predict(sound[10 * 16_000 : 12 * 16_000])
    np.testing.assert_allclose(timeline.loc[(10, 12)], alone, atol=1e-5)


def test_a_file_of_a_newer_keras_or_with_broken_weights_is_told(recognizer, tmp_path):
    path = tmp_path / "a.keras"
    recognizer.save(path)
    with zipfile.ZipFile(path) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    parts["metadata.json"] = b'{"keras_version": "99.1"}'
    parts["config.json"] = parts["config.json"].replace(b"Functional", b"Functional2")
    with zipfile.ZipFile(path, "w") as file:
        for name, content in parts.items():
            file.writestr(name, content)
    with pytest.raises(ValueError, match=r"a\.keras: saved by Keras 99\.1, and .* cannot read"):
        EmotionRecognizer.load(path)
    recognizer.model.set_weights([np.nan * weights for weights in recognizer.model.get_weights()])
    recognizer.save(path)
    with pytest.raises(ValueError, match=r"a\.keras: weights that are not finite"):
        EmotionRecognizer.load(path)
