"""Whisper as an ONNX graph: the same states as by Keras, the same answers, and nothing of Keras."""

import subprocess
import sys
from pathlib import Path

import keras
import librosa
import numpy as np
import pytest
from keras import layers, ops

from common import networks, paths, recognizer_files
from common.audio import load_waveform
from common.command import main
from common.encoders import ENCODERS, load_encoder, whisper, whisper_graph
from common.encoders.extraction import Embed, SelectLayers
from common.encoders.whisper import WhisperFrontEnd, assign_arrays, build_whisper
from common.encoders.whisper_graph import (
    QuickTrim,
    WhisperGraph,
    build_graph,
    build_mel_filters,
    is_portable,
    load_portable,
    make_recipe,
)
from common.encoders.whisper_weights import FILE, NUM_BANDS
from common.features import Trim
from common.loudness import Level
from common.networks import OnnxNetwork
from common.paths import ROOT, SAMPLE_DIR
from common.recipes import Recipe, Step
from common.recognition import EmotionRecognizer
from common.recognizer_files import load_recipe
from tests.conftest import SPEECH_DIR
from tests.whisper_arrays import BASE, SMALL, SPEECH, make_arrays, write_folder

PUBLISHED = SPEECH_DIR.parent / "pretrained" / "whisper_base" / FILE
CLIPS = sorted(SAMPLE_DIR.rglob("*.flac"))
EMOTIONS = ("angry", "calm", "sad")


def load_by_keras(monkeypatch, load):
    """Load as where nothing but Keras can run Whisper."""
    with monkeypatch.context() as lacking:
        lacking.setattr(networks, "PARTS", ("no_such_package",))
        return load()


@pytest.fixture
def published(tmp_path, monkeypatch) -> Path:
    """Small weights in the place of what is published, as if the record were of that size."""
    monkeypatch.setattr(paths, "PRETRAINED_DIR", tmp_path / "pretrained")
    monkeypatch.setitem(ENCODERS, "whisper_base", SMALL)
    monkeypatch.setitem(whisper_graph.PORTABLE, "whisper_base", SMALL)
    write_folder(tmp_path / "pretrained" / "whisper_base", make_arrays())
    return tmp_path


@pytest.fixture
def own(published) -> Path:
    """A recogniser on layers 0 and 1 of those weights, in a file with a graph of its head."""
    encoder = load_encoder("whisper_base", duration_seconds=1)
    recipe = Recipe((Trim(), Embed(encoder), SelectLayers((1, 0))))
    inputs = keras.Input((2, 64))
    x = layers.Dense(len(EMOTIONS), activation="softmax")(layers.Flatten()(inputs))
    recognizer = EmotionRecognizer(keras.Model(inputs, x), EMOTIONS, recipe)
    recognizer.save(published / "own.keras", portable=True)
    return published / "own.keras"


# The graph


@pytest.mark.parametrize("num_samples", [400, 4_000, 15_999, 16_000])
def test_the_front_end_is_that_of_keras(num_samples):
    graph = WhisperGraph({})
    output = graph.front_end("waveform")
    made = graph.finish("waveform", ("samples",), output, (1, "frames", NUM_BANDS))
    found = OnnxNetwork(made.SerializeToString())(SPEECH[:num_samples])
    expected = ops.convert_to_numpy(WhisperFrontEnd()(SPEECH[None, :num_samples]))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_the_mel_filters_are_those_of_librosa():
    expected = librosa.filters.mel(sr=16_000, n_fft=400, n_mels=80)
    np.testing.assert_allclose(build_mel_filters(), expected, atol=1e-8)


@pytest.mark.parametrize("last", [0, 1, 2])
def test_the_states_are_those_of_keras(last):
    graph = build_graph(make_arrays(), SMALL, last=last)
    found = OnnxNetwork(graph.SerializeToString())(SPEECH)
    network = assign_arrays(build_whisper(SMALL, stacked=True), make_arrays())
    states = ops.convert_to_numpy(network(WhisperFrontEnd()(SPEECH[None])))[0].swapaxes(0, 1)
    assert found.shape == (last + 1, 50, 32)
    np.testing.assert_allclose(found, states[: last + 1], atol=1e-3)


def test_layers_above_the_last_are_left_out():
    for last, num_norms in ((0, 0), (1, 2), (None, 5)):
        nodes = build_graph(make_arrays(), SMALL, last=last).graph.node
        assert sum(node.op_type == "LayerNormalization" for node in nodes) == num_norms


@pytest.mark.parametrize("seconds", [1, 2])
def test_random_weights_give_what_they_give_by_keras(seconds, monkeypatch):
    facts = {"weights": "random", "duration_seconds": seconds}
    with monkeypatch.context() as without:
        without.setattr(whisper, "build_whisper", None)
        quick = load_encoder("whisper_base", **facts)
    slow = load_by_keras(monkeypatch, lambda: load_encoder("whisper_base", **facts))
    assert (quick.digest, quick.record, quick.num_samples) == (
        *(slow.digest, slow.record, slow.num_samples),
    )
    for sound in (SPEECH, np.pad(SPEECH, (700, 9_000)), SPEECH[:300], np.zeros(1, np.float32)):
        np.testing.assert_allclose(quick.embed(sound), slow.embed(sound), atol=1e-4)


def test_more_than_it_hears_is_refused():
    with pytest.raises(ValueError, match="Whisper base hears 30 s, not 31; give a shorter"):
        load_portable(BASE, "random", 31 * 16_000)


# The recipe


@pytest.mark.parametrize("top_db", [20.0, 30.0])
def test_what_is_trimmed_is_what_librosa_trims(top_db):
    sounds = [np.pad(load_waveform(path), (3_000, 500)) for path in CLIPS[::32]]
    for sound in (*sounds, np.zeros(4_000, np.float32), 1e-6 * SPEECH):
        expected = Trim(top_db)(sound)
        np.testing.assert_array_equal(QuickTrim(top_db)(sound), expected)


def test_the_recipe_is_described_as_it_was(own, monkeypatch):
    description = recognizer_files.read_contents(own).facts["recipe"]
    made = make_recipe(description)
    slow = load_by_keras(monkeypatch, lambda: load_recipe(description, None, "keras"))
    assert made.describe() == description == slow.describe()
    np.testing.assert_allclose(made(SPEECH), slow(SPEECH), atol=1e-4)
    embed = description["steps"][1]
    trim = description["steps"][0]
    assert is_portable(description | {"steps": [trim, embed]})
    assert not is_portable({"steps": [trim, embed]})
    for other in (
        [embed],
        [trim],
        [{"step": "Trim"}, embed],
        [trim, embed | {"encoder": "yamnet"}],
    ):
        assert not is_portable(description | {"steps": other})
    all_layers = Recipe((Trim(), Embed(load_encoder("whisper_base")), SelectLayers((-1,))))
    np.testing.assert_allclose(
        make_recipe(all_layers.describe())(SPEECH), all_layers(SPEECH), atol=1e-4
    )


def test_a_recipe_at_one_level_is_portable_too(published, monkeypatch):
    encoder = load_by_keras(monkeypatch, lambda: load_encoder("whisper_base", duration_seconds=1))
    recipe = Recipe((Level(target_db=-20), Embed(encoder), SelectLayers((0, 1))))
    description = recipe.describe()
    made = make_recipe(description)
    assert is_portable(description) and made.describe() == description
    np.testing.assert_allclose(made(SPEECH), recipe(SPEECH), atol=1e-4)
    np.testing.assert_allclose(made(SPEECH), made(SPEECH / 30), atol=1e-4)
    level, *steps = description["steps"]
    assert not is_portable(description | {"steps": [level, level, *steps]})
    assert not is_portable(description | {"steps": [level | {"gain_db": 3}, *steps]})


def test_other_weights_are_refused(own, published):
    write_folder(published / "pretrained" / "whisper_base", make_arrays(seed=2))
    with pytest.raises(ValueError, match=r"whisper_base holds .*; delete it to fetch") as caught:
        EmotionRecognizer.load(own)
    assert "the model reads Whisper base with the weights" in str(caught.value)


def test_without_the_weights_and_a_connection_it_says_so(own, published, monkeypatch):
    def fail(*_, **__):
        raise OSError("no route")

    (published / "pretrained" / "whisper_base" / FILE).unlink()
    monkeypatch.setattr("common.encoders.weights.download_archive", fail)
    with pytest.raises(ValueError, match="could not be loaded .*no route.*Check the network"):
        EmotionRecognizer.load(own)


# The recogniser


def test_a_recogniser_says_the_same_with_and_without_keras(own, published, monkeypatch):
    quick = EmotionRecognizer.load(own)
    slow = load_by_keras(monkeypatch, lambda: EmotionRecognizer.load(own, runtime="keras"))
    assert not any(isinstance(step, Embed) for step in quick.recipe.steps)
    assert isinstance(slow.recipe.find(Embed), Embed)
    assert quick.window_seconds == slow.window_seconds
    for path in CLIPS[::64]:
        expected = slow.predict(path).probabilities
        assert quick.predict(path).probabilities == pytest.approx(expected, abs=1e-4)
    long = np.concatenate([load_waveform(path) for path in CLIPS[:3]])
    assert quick.hears_whole(long) is slow.hears_whole(long) is False
    np.testing.assert_allclose(quick.predict_timeline(long), slow.predict_timeline(long), atol=1e-4)
    quick.save(published / "again.keras", portable=True)
    again = EmotionRecognizer.load(published / "again.keras")
    assert again.recipe.describe() == slow.recipe.describe()


def test_a_given_encoder_is_run_as_it_is(own):
    encoder = load_encoder("whisper_base", duration_seconds=1)
    assert EmotionRecognizer.load(own, encoder=encoder).recipe.find(Embed).encoder is encoder


def test_what_is_missing_decides_what_runs(own, monkeypatch, capsys):
    def lack(*missing):
        for module in (networks, recognizer_files):
            monkeypatch.setattr(module, "find_spec", lambda name: None if name in missing else name)

    for part in ("onnx", "safetensors"):
        lack(part)
        assert EmotionRecognizer.load(own).recipe.find(Embed)
        with pytest.raises(ValueError, match=f"{part} is not installed; use runtime='keras'"):
            EmotionRecognizer.load(own, runtime="onnxruntime")
    lack("onnxruntime")
    assert isinstance(EmotionRecognizer.load(own).network, keras.Model)
    lack("onnxruntime", "keras")
    with pytest.raises(ImportError, match=r"Keras is not installed; pip install .*use\.txt"):
        EmotionRecognizer.load(own)
    lack("onnx", "keras")
    monkeypatch.setattr(Step, "KINDS", {"Trim": Trim})
    assert main([str(CLIPS[0]), "--model", str(own)]) == 2
    problem = capsys.readouterr().err
    assert problem.endswith("pip install -r requirements-use.txt\n") and "needs Keras" in problem


BLOCKED = """
import sys

MISSING = {"keras", "tensorflow", "jax", "sklearn", "librosa.core"}
MISSING |= {"pyroomacoustics", "python_stretch"}


class Block:
    def find_spec(self, name, path=None, target=None):
        if name in MISSING:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Block())
from dataclasses import replace

from common import paths
from common.encoders import whisper_graph
from common.recognition import EmotionRecognizer
from common.recognizer_files import load_recipe

clips = sys.argv[2:]
whisper_graph.PORTABLE["whisper_base"] = replace(
    whisper_graph.PORTABLE["whisper_base"], num_layers=3, num_dimensions=64
)
recognizer = EmotionRecognizer.load(sys.argv[1])
print(recognizer.predict(clips[0]).label, *MISSING & sys.modules.keys())
print(len(recognizer.predict_timeline(clips[0])))
"""


def test_it_answers_without_tensorflow_keras_and_librosa(own, published):
    write_folder(published / "data" / "pretrained" / "whisper_base", make_arrays())
    command = [sys.executable, "-c", BLOCKED, own, CLIPS[0]]
    environment = {"SER_DATA_DIR": str(published / "data"), "PATH": ""}
    found = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    label, rows = found.stdout.splitlines()
    assert label in EMOTIONS and int(rows) > 0


@pytest.mark.skipif(not PUBLISHED.is_file(), reason="no weights in data/pretrained")
def test_what_ships_says_the_same_with_and_without_keras(monkeypatch):
    monkeypatch.setattr(paths, "PRETRAINED_DIR", PUBLISHED.parent.parent)
    quick = EmotionRecognizer.load("whisper")
    slow = load_by_keras(monkeypatch, lambda: EmotionRecognizer.load("whisper", runtime="keras"))
    assert quick.recipe.describe() == slow.recipe.describe()
    for path in CLIPS[::150]:
        expected = slow.predict(path).probabilities
        assert quick.predict(path).probabilities == pytest.approx(expected, abs=1e-4)
    known = [model.enrol(CLIPS[:4]).predict(CLIPS[5]).probabilities for model in (quick, slow)]
    assert known[0] == pytest.approx(known[1], abs=1e-4)


@pytest.mark.skipif(not PUBLISHED.is_file(), reason="no weights in data/pretrained")
def test_a_gain_changes_no_answer_of_the_whisper_that_ships(monkeypatch):
    monkeypatch.setattr(paths, "PRETRAINED_DIR", PUBLISHED.parent.parent)
    stranger = EmotionRecognizer.load("whisper")
    sound = load_waveform(CLIPS[5])
    sound /= 4 * np.abs(sound).max()
    for model in (stranger, stranger.enrol(CLIPS[:4])):
        expected = model.predict(sound).probabilities
        for decibels in (-30, 30):
            found = model.predict(sound * 10 ** (decibels / 20)).probabilities
            assert found == pytest.approx(expected, abs=1e-3)
