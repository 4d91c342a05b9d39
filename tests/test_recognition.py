"""A saved model with its preparation says of a recording what it said in the test."""

import io
import json
import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass, replace

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
from common.encoders.extraction import Embed, Pool, SelectLayers, extract_embeddings, extract_inputs
from common.exporting import run_litert
from common.features import FitLength, LogMel, Trim
from common.layers import AttentionPooling
from common.networks import OnnxNetwork, run_network
from common.paths import ROOT
from common.recipes import Recipe, Step, extract_features
from common.recognition import EmotionRecognizer
from common.training import TrainingConfig

CONFIG = TrainingConfig(epochs=2, batch_size=16, ema_momentum=None, monitor=None)
TIME = np.arange(16_000) / 16_000
TONE = (0.3 * np.sin(1600 * TIME) * np.maximum(np.sin(15 * TIME), 1e-3)).astype(np.float32)
RECIPE = Recipe((Trim(), FitLength(seconds=1), LogMel(num_bands=24)))


def build_model(input_shape, num_classes):
    inputs = keras.Input(input_shape)
    x = layers.GlobalAveragePooling1D()(layers.Dense(8, activation="relu")(inputs))
    return keras.Model(inputs, layers.Dense(num_classes, activation="softmax")(x))


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("byol_s", weights="random", duration_seconds=1.5)


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
        recipe = Recipe((Trim(), FitLength(seconds=1.5), LogMel(num_bands=24)))
        features, needed = extract_features(table, recipe), None
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
        found = pd.Series(recognizer.predict(files[row["utterance"]]).probabilities)
        expected = row.filter(like="p_").astype(float)
        np.testing.assert_allclose(found, expected, atol=1e-3)
        assert found.idxmax() == row["predicted_label"] and found.sum() == pytest.approx(1)
    assert [f"p_{name}" for name in found.index] == list(expected.index)


def test_recordings_of_any_rate_and_channels_are_heard_alike(table, tmp_path):
    run = train(table, extract_features(table, RECIPE), tmp_path)
    recognizer = EmotionRecognizer.from_run(run, seed=0, fold=1)
    waveform, rate = soundfile.read(table["path"][0])
    soundfile.write(tmp_path / "stereo.wav", np.stack([waveform, waveform], axis=1), rate)
    expected = recognizer.predict(waveform).probabilities
    assert recognizer.predict(tmp_path / "stereo.wav").probabilities == pytest.approx(expected)
    stereo = (np.stack([waveform, waveform], axis=1) * 32_767).astype(np.int16)
    found = recognizer.predict((rate, stereo)).probabilities
    assert found == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("use", ["predict", "predict_timeline", "feed"])
def test_a_low_rate_is_told(use, table, tmp_path):
    recognizer = EmotionRecognizer.load("small")
    waveform, rate = soundfile.read(table["path"][0])
    use = recognizer.stream().feed if use == "feed" else getattr(recognizer, use)
    use((rate, waveform))
    with pytest.warns(UserWarning, match="at 8000 Hz, less than 16000 Hz: what lies above") as told:
        use((8_000, waveform[::2]))
    assert len(told) == 1


def test_a_saved_recognizer_needs_one_import(table, tmp_path):
    inputs = keras.Input((63, 24))
    outputs = layers.Dense(8, activation="softmax")(AttentionPooling(4)(inputs))
    recognizer = EmotionRecognizer(keras.Model(inputs, outputs), tuple("abcdefgh"), RECIPE)
    recognizer.save(tmp_path / "saved.keras")
    code = (
        "import json, sys; from common.recognition import EmotionRecognizer; "
        "print(json.dumps(EmotionRecognizer.load(sys.argv[1]).predict(sys.argv[2]).probabilities))"
    )
    command = [sys.executable, "-c", code, tmp_path / "saved.keras", table["path"][0]]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    expected = recognizer.predict(table["path"][0]).probabilities
    assert json.loads(found) == pytest.approx(expected, abs=1e-4)


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
    run = train(table, features, tmp_path)
    with pytest.raises(ValueError, match="Unrepeatable needs more than one recording: train with"):
        EmotionRecognizer.from_run(run, seed=0, fold=1)


@pytest.fixture
def recognizer() -> EmotionRecognizer:
    model = build_model(RECIPE(TONE).shape, 3)
    return EmotionRecognizer(model, ("angry", "calm", "sad"), RECIPE)


def test_what_training_would_refuse_is_no_answer_in_use(recognizer, tmp_path):
    for sound, problem in ((0 * TONE, "silent"), (TONE[:80], "too short")):
        said = recognizer.predict(sound)
        assert (said.label, said.probabilities) == (None, {}) and said.reason.startswith(problem)
    for sound, problem in ((9e4 * TONE, "too loud"), (np.nan * TONE, "not finite")):
        with pytest.raises(ValueError, match=problem):
            recognizer.predict(sound)
        soundfile.write(tmp_path / "a.wav", sound, 16_000, subtype="FLOAT")
        assert scan_recording(tmp_path / "a.wav")["problem"].startswith(problem)


RNG = np.random.default_rng(0)
NO_SPEECH = {
    "noise": 0.1 * RNG.normal(size=32_000),
    "hum": 0.1 * np.sin(np.arange(32_000) / 50),
    "one click": np.r_[np.zeros(9_000), 0.9, np.zeros(9_000)] + 1e-3 * RNG.normal(size=18_001),
    "clicks": (np.arange(48_000) % 4_000 == 0) * 0.5 + 1e-4 * RNG.normal(size=48_000),
    "a moment": np.r_[np.zeros(8_000), TONE[:2_400], np.zeros(8_000)],
    "speech in noise": np.tile(TONE, 2) + 0.3 * RNG.normal(size=32_000),
}


@pytest.mark.parametrize("kind", NO_SPEECH)
def test_it_abstains_where_there_is_no_speech_and_says_why(recognizer, kind):
    said = recognizer.predict(NO_SPEECH[kind])
    assert said.label is None and not said.probabilities
    assert any(word in said.reason for word in ("click", "too little", "too noisy"))
    assert ";" in said.reason  # what to do


def test_bytes_arrays_and_files_are_heard_alike(recognizer, tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, TONE, 16_000, subtype="FLOAT")
    expected = recognizer.predict(path)
    assert expected.label == max(expected.probabilities, key=expected.probabilities.get)
    for given in (path.read_bytes(), io.BytesIO(path.read_bytes()), TONE, (16_000, TONE)):
        found = recognizer.predict(given).probabilities
        assert found == pytest.approx(expected.probabilities, abs=1e-5)
    other = recognizer.predict((48_000, np.repeat(TONE, 3)[:, None])).probabilities
    assert other == pytest.approx(expected.probabilities, abs=0.1)


def test_a_long_recording_is_heard_window_by_window(recognizer):
    sound = np.concatenate([TONE, np.zeros(64_000, np.float32), *[TONE] * 70])
    with pytest.raises(ValueError, match="too long.*: predict_timeline, --timeline"):
        recognizer.predict(sound)
    settings = {"window_seconds": 2, "hop_seconds": 1}
    timeline = recognizer.predict_timeline(sound, **settings, smoothing=1)
    assert timeline.index.names == ["start_seconds", "end_seconds"]
    starts, ends = (timeline.index.get_level_values(level) for level in (0, 1))
    assert starts.tolist() == list(range(len(starts))) and ends[-1] == len(sound) / 16_000
    silent = (starts >= 1) & (ends <= 5)
    assert timeline[silent].isna().all(axis=None)
    np.testing.assert_allclose(timeline[~silent].sum(axis=1), 1, atol=1e-5)
    alone = recognizer.predict(sound[10 * 16_000 : 12 * 16_000]).probabilities
    assert timeline.loc[(10, 12)].to_dict() == pytest.approx(alone, abs=1e-5)
    smooth = recognizer.predict_timeline(sound, **settings, smoothing=5)
    assert smooth[silent].isna().all(axis=None)
    assert smooth.diff().abs().sum(axis=None) < timeline.diff().abs().sum(axis=None)
    with pytest.raises(ValueError, match="hop_seconds=0.*above 0"):
        recognizer.predict_timeline(sound, hop_seconds=0)


@pytest.mark.parametrize("seconds", [0.9, 1.9, 2.1, 5])
def test_no_more_than_half_of_the_speech_is_left_unheard(recognizer, seconds):
    silence, speech = np.zeros(32_000, np.float32), np.tile(TONE, 5)[: round(16_000 * seconds)]
    sound = np.concatenate([silence, speech, silence])
    whole = recognizer.predict_features(recognizer.recipe(sound)[None])[0]
    assert recognizer.hears_whole(sound) == (seconds < 2)
    if seconds < 2:
        assert [*recognizer.predict(sound).probabilities.values()] == pytest.approx(whole)
    ends = np.concatenate([speech[:16_000] ** 3, speech[16_000:]])
    changed = np.concatenate([silence, ends, silence])
    heard = recognizer.predict(changed) != recognizer.predict(sound)
    assert heard or seconds < 2


def test_of_a_minute_all_speech_counts(recognizer):
    loud = np.concatenate([TONE, 0.2 * TONE[::-1]] * 6)
    said = recognizer.predict(loud)
    timeline = recognizer.predict_timeline(
        loud, window_seconds=1, hop_seconds=0.5, smoothing=1
    ).dropna()
    mean = np.exp(np.log(timeline).mean())
    assert said.probabilities == pytest.approx((mean / mean.sum()).to_dict(), abs=0.02)


def test_a_stream_answers_for_its_last_window(recognizer):
    stream, answers = recognizer.stream(window_seconds=1), []
    integers = (TONE * 32_767).astype(np.int16)
    for start in range(0, 16_000, 1_600):
        answers.append(stream.feed((16_000, integers[start : start + 1_600])))
    assert "too short" in answers[0].reason
    expected = recognizer.predict((16_000, integers))
    assert answers[-1].probabilities == pytest.approx(expected.probabilities)
    assert stream.feed((16_000, np.zeros(32_000, np.int16))).label is None
    again = stream.feed((48_000, np.repeat(integers, 3)[:, None]))  # another rate: begun anew
    assert again.label == expected.label and len(stream.heard) == 48_000


def test_a_folder_becomes_a_table_with_what_is_left_out(recognizer, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        recognizer.predict_folder(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"no recording in it; .*\.wav"):
        recognizer.predict_folder(tmp_path)
    (tmp_path / "below").mkdir()
    soundfile.write(tmp_path / "below" / "a.wav", TONE, 16_000)
    soundfile.write(tmp_path / "noise.flac", NO_SPEECH["noise"], 16_000)
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    (tmp_path / "text.txt").write_text("left alone")
    table = recognizer.predict_folder(tmp_path, progress=False)
    assert table.index.tolist() == ["below/a.wav", "broken.wav", "noise.flac"]
    said = recognizer.predict(tmp_path / "below" / "a.wav")
    assert table.loc["below/a.wav", "label"] == said.label
    assert table.loc["below/a.wav", "probability"] == max(said.probabilities.values())
    assert table["label"].isna().tolist() == [False, True, True]
    assert "not audio" in table.loc["broken.wav", "reason"]
    assert "too noisy" in table.loc["noise.flac", "reason"]


def test_no_recording_in_a_folder_vanishes(recognizer, tmp_path):
    soundfile.write(tmp_path / "memo", TONE, 16_000, format="WAV")
    (tmp_path / "readme").write_text("left alone")
    (tmp_path / os.fsdecode(b"a\xff.wav")).touch()
    table = recognizer.predict_folder(tmp_path, progress=False)
    assert table.index.tolist() == ["a\ufffd.wav", "memo"]
    assert table.loc["memo", "label"] == recognizer.predict(tmp_path / "memo").label
    assert table["reason"].iloc[0] == "its name is not UTF-8; rename it"


def test_a_temperature_softens_and_keeps_the_order(recognizer):
    warm = replace(recognizer, facts={"temperature": 2.0})
    cold, soft = (np.array([*r.predict(TONE).probabilities.values()]) for r in (recognizer, warm))
    np.testing.assert_allclose(soft, np.sqrt(cold) / np.sqrt(cold).sum(), atol=1e-6)


def test_only_a_model_with_a_second_head_enrols(recognizer):
    with pytest.raises(ValueError, match="no head for known voices; load 'whisper'"):
        recognizer.enrol([TONE] * 4)


def test_a_portable_file_is_run_by_both_and_exported(recognizer, tmp_path):
    path = tmp_path / "a.keras"
    replace(recognizer, facts={"temperature": 1.3}).save(path, portable=True)
    fast, slow = (EmotionRecognizer.load(path, runtime=name) for name in (None, "keras"))
    assert isinstance(fast.network, OnnxNetwork) and fast.network.reads == "waveform"
    for sound in (TONE, TONE[::-1], np.tile(TONE, 3)):
        expected = slow.predict(sound).probabilities
        assert fast.predict(sound).probabilities == pytest.approx(expected, abs=1e-4)
    fast.save(tmp_path / "again.keras")
    again = EmotionRecognizer.load(tmp_path / "again.keras")
    assert again.predict(TONE).probabilities == pytest.approx(slow.predict(TONE).probabilities)
    with pytest.raises(ValueError, match=r"runtime='torch' is unknown"):
        EmotionRecognizer.load(path, runtime="torch")
    for number, recognizer in enumerate((fast, slow)):
        recognizer.export(tmp_path / "b.tflite")
        recognizer.export(tmp_path / f"{number}.onnx")
    features = slow.compute_features([TONE])
    expected = run_network(slow.network, features)
    found = run_litert((tmp_path / "b.tflite").read_bytes(), features)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    for name in ("0.onnx", "1.onnx"):
        graph = OnnxNetwork((tmp_path / name).read_bytes())
        np.testing.assert_allclose(graph(fast.compute_features([TONE])), expected, atol=1e-4)
    with pytest.raises(ValueError, match=r"a.h5: let its name end in .onnx or .tflite"):
        slow.export(tmp_path / "a.h5")
    recognizer.save(path)
    with pytest.raises(ValueError, match="onnxruntime has no graph in this file"):
        EmotionRecognizer.load(path, runtime="onnxruntime")


def test_a_head_that_is_exported_says_what_feeds_it(encoder, tmp_path):
    recipe = extract_embeddings(load_corpus("sample").iloc[:2], encoder).recipe
    head = build_model(recipe(TONE).shape, 2)
    recognizer = EmotionRecognizer(head, ("calm", "sad"), recipe)
    with pytest.warns(UserWarning, match="a.onnx holds the head alone: .* states of byol_s"):
        recognizer.export(tmp_path / "a.onnx")


def spoil(path, change) -> None:
    """Rewrite a recogniser's file after `change` of its parts by name."""
    with zipfile.ZipFile(path) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    change(parts)
    with zipfile.ZipFile(path, "w") as file:
        for name, content in parts.items():
            file.writestr(name, content)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("model.onnx", b"no graph", "a damaged graph .*; use runtime='keras'"),
        ("recognizer.json", {"emotions": ["a", "b"]}, "3 outputs and 2 emotions"),
        ("recognizer.json", {"emotions": "abc"}, "not a recogniser .*emotions 'abc'"),
        ("recognizer.json", {"emotions": ["a", "b", "a"]}, "not a recogniser .*emotions"),
        ("recognizer.json", {"temperature": 0}, "not a recogniser .*temperature 0"),
        ("recognizer.json", {"temperature": "hot"}, "not a recogniser"),
        ("recognizer.json", {"recipe": {"steps": [5]}}, "not a recogniser .*steps"),
    ],
)
def test_a_portable_file_with_a_damaged_part_is_told(name, content, problem, recognizer, tmp_path):
    path = tmp_path / "a.keras"
    recognizer.save(path, portable=True)

    def change(parts):
        facts = isinstance(content, dict)
        parts[name] = json.dumps(json.loads(parts[name]) | content) if facts else content

    spoil(path, change)
    with pytest.raises(ValueError, match=rf"a\.keras.*{problem}"):
        EmotionRecognizer.load(path)


FIT, LOG_MEL = ({"step": "FitLength", "seconds": 1.0}, LogMel(num_bands=24).describe())


@pytest.mark.parametrize("portable", [True, False])
@pytest.mark.parametrize(
    ("steps", "problem"),
    [
        ([], "not a recogniser .*without steps"),
        ([FIT | {"seconds": -1}, LOG_MEL], "not a recogniser .*FitLength with seconds -1;"),
        ([FIT | {"seconds": "a"}, LOG_MEL], "not a recogniser .*FitLength with seconds 'a';"),
        ([FIT | {"seconds": 1e9}, LOG_MEL], "not a recogniser .*up to 60 can be"),
        ([FIT, LOG_MEL | {"num_bands": 0}], "not a recogniser .*LogMel with num_bands 0;"),
        ([FIT, LOG_MEL | {"fmax_hertz": 9_000}], "not a recogniser .*fmax_hertz=9000"),
        ([FIT | {"pad": 3}, LOG_MEL], "not a recogniser .*'pad'"),
        ([FIT | {"seconds": 2}, LOG_MEL], r"its recipe gives \(.*, its network reads \("),
        ([LOG_MEL], r"its recipe gives \(.*, its network reads \("),
        ([{"step": "Trim", "top_db": "a"}, FIT, LOG_MEL], "a recipe that cannot be followed"),
        ([FIT | {"seconds": 1e-5}, LOG_MEL], "its recipe gives|cannot be followed"),
    ],
)
def test_a_recipe_that_the_network_cannot_follow_is_refused(
    steps, problem, portable, recognizer, tmp_path
):
    path = tmp_path / "a.keras"
    recognizer.save(path, portable=portable)

    def change(parts):
        facts = json.loads(parts["recognizer.json"])
        parts["recognizer.json"] = json.dumps(
            facts | {"recipe": facts["recipe"] | {"steps": steps}}
        )

    spoil(path, change)
    with pytest.raises(ValueError, match=rf"a\.keras.*{problem}.*; name small, whisper or a file"):
        EmotionRecognizer.load(path)


def test_a_recipe_that_its_encoder_cannot_follow_is_refused(encoder, tmp_path):
    recipe = Recipe((Trim(), Embed(encoder), SelectLayers((0,))))
    model = build_model(recipe(TONE).shape, 2)
    path = tmp_path / "a.keras"
    for wrong, problem in (
        (replace(recipe, steps=(*recipe.steps[:2], SelectLayers((99,)))), "cannot be followed"),
        (replace(recipe, steps=(Trim("a"), *recipe.steps[1:])), "cannot be followed"),
        (replace(recipe, steps=(FitLength(-1), *recipe.steps[1:])), "a.keras is not a recogniser"),
    ):
        EmotionRecognizer(model, ("calm", "sad"), wrong).save(path)
        with pytest.raises(ValueError, match=f"{problem}.*; name small"):
            EmotionRecognizer.load(path, encoder=encoder)
    EmotionRecognizer(model, ("calm", "sad"), recipe).save(path)
    assert EmotionRecognizer.load(path, encoder=encoder).recipe == recipe


def test_probabilities_that_are_not_finite_are_no_answer(recognizer):
    broken = [np.nan * weights for weights in recognizer.network.get_weights()]
    recognizer.network.set_weights(broken)
    with pytest.raises(ValueError, match="probabilities that are not finite; train and save"):
        recognizer.predict(TONE)


def test_a_file_of_a_newer_keras_or_with_broken_weights_is_told(recognizer, tmp_path):
    path = tmp_path / "a.keras"
    recognizer.save(path)

    def change(parts):
        parts["metadata.json"] = b'{"keras_version": "99.1"}'
        parts["config.json"] = parts["config.json"].replace(b"Functional", b"Functional2")

    spoil(path, change)
    with pytest.raises(ValueError, match=r"a\.keras: saved by Keras 99\.1, and .* cannot read"):
        EmotionRecognizer.load(path)
    recognizer.network.set_weights(
        [np.nan * weights for weights in recognizer.network.get_weights()]
    )
    recognizer.save(path)
    with pytest.raises(ValueError, match=r"a\.keras: weights that are not finite"):
        EmotionRecognizer.load(path)


@pytest.mark.parametrize("seconds", [0, -1, 0.1, 100, float("nan")])
def test_a_window_that_answers_nothing_is_refused(recognizer, seconds):
    with pytest.raises(ValueError, match="window_seconds=.*: give more than 0.25 and at most 60"):
        recognizer.stream(window_seconds=seconds)


def test_chunks_in_a_row_are_heard_as_in_a_column(recognizer):
    one, other = recognizer.stream(), recognizer.stream()
    for chunk in np.split(TONE, 4):
        assert one.feed((16_000, chunk[None])).probabilities == pytest.approx(
            other.feed((16_000, chunk[:, None])).probabilities
        )


@pytest.mark.parametrize(
    "settings",
    [
        {"window_seconds": 0.2, "hop_seconds": 0.1},
        {"smoothing": 2.5},
        {"smoothing": 0},
        {"hop_seconds": float("nan")},
        {"window_seconds": float("inf")},
    ],
)
def test_settings_of_a_timeline_that_tell_nothing_are_refused(recognizer, settings):
    with pytest.raises(ValueError, match="give a window of more than 0.25 seconds, a hop above 0"):
        recognizer.predict_timeline(TONE, **settings)
