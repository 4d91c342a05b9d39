"""The models that ship: what is in their files, their cards, the command, and training on all."""

import json
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import soundfile
from keras import layers
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from common import paths
from common.audio import load_waveform
from common.augmentation import ChangeSpeed
from common.baselines import fit_classifier, make_regression
from common.bootstrap import summarise_predictions
from common.cards import (
    calibrate,
    make_card,
    make_facts,
    make_shipped_facts,
    read_elsewhere,
)
from common.command import describe_prediction, main
from common.corpora import load_corpus
from common.cross_validation import cross_validate
from common.encoders.contract import Encoder
from common.enrolment import EnrolledSystem
from common.features import FitLength, LogMel
from common.final import fit_all, fit_linear, score_elsewhere, start_from
from common.known_voices import fold_scaler, write_voices
from common.networks import OnnxNetwork, run_network
from common.paths import MODELS_DIR, ROOT
from common.recipes import Recipe, extract_features
from common.recognition import SHIPPED, EmotionRecognizer
from common.recognizer_files import read_contents
from common.results import save_results
from common.training import TrainingConfig
from common.trust import describe_trust
from common.voices import Candidate, VoiceModel, VoiceNormalisation
from tests.prediction_tables import make_predictions

RECIPE = Recipe((FitLength(seconds=1), LogMel(num_bands=16)))
CONFIG = TrainingConfig(epochs=1, batch_size=16, monitor=None, use_copies=False)


def build_model(input_shape, num_classes):
    inputs = keras.Input(input_shape)
    x = layers.GlobalAveragePooling1D()(inputs)
    return keras.Model(inputs, layers.Dense(num_classes, activation="softmax")(x))


@pytest.fixture(scope="module")
def table():
    return load_corpus("sample").groupby(["speaker", "emotion"]).head(1).reset_index(drop=True)


@pytest.fixture(scope="module")
def small():
    return EmotionRecognizer.load("small")


@pytest.mark.parametrize("name", SHIPPED)
def test_cards_and_facts_follow_from_the_evidence(name):
    assert (MODELS_DIR / f"{name}.md").read_text(encoding="utf-8") == make_card(name)
    facts = read_contents(MODELS_DIR / f"{name}.keras").facts
    expected = json.loads(json.dumps(make_shipped_facts(name)))
    assert {key: facts[key] for key in expected} == expected
    assert facts["corpus"] == "ravdess" and facts["speakers"] == 24 and facts["versions"]["numpy"]


def test_the_readme_tells_the_scores_on_other_corpora():
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    uars = {
        name: [
            f"{100 * summarise_predictions(rows)['uar']['score']:.0f}"
            for _, rows in sorted(read_elsewhere(name).items())
        ]
        for name in SHIPPED
    }
    assert "`small` finds {} % on SAVEE and {} % on TESS".format(*uars["small"]) in text
    assert "`whisper` {} and {} %".format(*uars["whisper"]) in text


def test_a_fold_is_calibrated_by_what_the_others_want():
    predictions = make_predictions(num_speakers=12, seeds=(0,), skill=0.5)
    found = calibrate(predictions)
    assert sorted(found["utterance"]) == sorted(predictions["utterance"])
    tested = predictions["fold"] == 1
    shuffled = predictions["true_label"].where(~tested, predictions["true_label"][::-1].to_numpy())
    again = calibrate(predictions.assign(true_label=shuffled))
    columns = [*predictions.filter(like="p_")]
    same = {
        fold: rows[columns].equals(again.loc[rows.index, columns])
        for fold, rows in found.groupby("fold")
    }
    assert same == {0: False, 1: True, 2: False}
    with pytest.raises(ValueError, match="no probabilities to fit a temperature to"):
        calibrate(predictions[tested])


def test_files_that_ship_are_small():
    assert (MODELS_DIR / "small.keras").stat().st_size < 4_000_000
    assert (MODELS_DIR / "whisper.keras").stat().st_size < 1_000_000


def test_small_says_the_same_with_and_without_keras(small, table):
    assert isinstance(small.network, OnnxNetwork)
    slow = EmotionRecognizer.load("small", runtime="keras")
    for path in table["path"][::20]:
        expected = slow.predict(path)
        assert small.predict(path).probabilities == pytest.approx(expected.probabilities, abs=1e-4)


@pytest.mark.parametrize("decibels", [-30, 30])
def test_a_gain_changes_no_answer_of_small(decibels, small, table):
    for path in table["path"][::30]:
        sound = load_waveform(path)
        sound /= 4 * np.abs(sound).max()
        expected = small.predict(sound).probabilities
        found = small.predict(sound * 10 ** (decibels / 20)).probabilities
        assert found == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("name", SHIPPED)
def test_what_ships_brings_recordings_to_one_level_first(name):
    recipe = read_contents(MODELS_DIR / f"{name}.keras").facts["recipe"]
    assert recipe["steps"][0]["step"] == "Level"


def test_what_the_encoder_of_whisper_is_given_is_the_same_at_any_gain():
    steps = read_contents(MODELS_DIR / "whisper.keras").facts["recipe"]["steps"]
    number = [step["step"] for step in steps].index("Embed")
    recipe = Recipe.from_description({"steps": steps[:number], "normalise": False})
    encoder = Encoder(None, None, None, steps[number]["num_samples"], "")
    for path in load_corpus("sample")["path"]:
        sound = load_waveform(path)
        expected = encoder.prepare(recipe(sound))
        assert np.abs(expected).max() > 0.01
        for decibels in (-30, -10, 10, 30):
            found = encoder.prepare(recipe(sound * np.float32(10 ** (decibels / 20))))
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_small_answers_without_tensorflow_keras_librosa_and_pandas(table):
    code = (
        "import sys; from common.recognition import EmotionRecognizer; "
        "print(EmotionRecognizer.load('small').predict(sys.argv[1]).label, "
        "*{'tensorflow', 'keras', 'jax', 'librosa.core', 'numba', 'pandas'} & {*sys.modules})"
    )
    command = [sys.executable, "-c", code, table["path"][0]]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert len(found.split()) == 1


def run(capsys, *arguments) -> tuple[int, str, str]:
    code = main([str(argument) for argument in arguments])
    return code, *capsys.readouterr()


def test_the_command_tells_a_recording(table, small, capsys):
    path = table["path"][0]
    said = small.predict(path)
    code, out, _ = run(capsys, path)
    assert code == 0 and out.startswith(said.label) and "in 10 were right" in out
    code, out, _ = run(capsys, path, "--json")
    assert code == 0 and json.loads(out)["probabilities"] == pytest.approx(said.probabilities)
    code, out, _ = run(capsys, path, "--timeline")
    assert code == 0 and "0.0 to" in out and "%" in out


def test_the_command_has_exit_codes_for_scripts(table, capsys, tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(16_000), 16_000)
    code, out, _ = run(capsys, tmp_path / "a.wav")
    assert code == 1 and out.startswith("no answer: silent")
    code, out, _ = run(capsys, tmp_path / "a.wav", "--json")
    assert code == 1 and json.loads(out)["label"] is None
    code, _, problem = run(capsys, tmp_path / "b.wav")
    assert code == 2 and "no such recording" in problem
    code, _, problem = run(capsys, tmp_path / "a.wav", "--model", tmp_path / "c.keras")
    assert code == 2 and "no such recogniser" in problem
    code, _, problem = run(capsys, table["path"][0], "--enrol", tmp_path)
    assert code == 2 and "no head for known voices" in problem
    for wrong in (["--csv", "c.csv"], ["--nonsense"]):
        with pytest.raises(SystemExit, match="2"):
            main([table["path"][0], *wrong])
    soundfile.write(tmp_path / "d.wav", load_waveform(table["path"][0]), 16_000)
    code, _, problem = run(capsys, tmp_path, "--csv", tmp_path / "out.csv")
    assert code == 0 and "left out: a.wav: silent" in problem
    assert (tmp_path / "out.csv").read_text().count("\n") == 3


def test_the_command_tells_how_to_install_what_a_model_lacks(monkeypatch, table, capsys):
    def fail(*_):
        raise ModuleNotFoundError("No module named 'keras'")

    monkeypatch.setattr(EmotionRecognizer, "load", fail)
    code, _, problem = run(capsys, table["path"][0])
    assert code == 2 and "'keras'; pip install -r requirements.lock" in problem


def test_the_command_shows_its_own_messages_and_no_log_of_tensorflow(table, tmp_path):
    speech, own = tmp_path / "speech", tmp_path / "own.keras"
    speech.mkdir()
    soundfile.write(speech / "silent.wav", np.zeros(16_000), 16_000)
    soundfile.write(speech / "spoken.wav", load_waveform(table["path"][0]), 16_000)
    model = build_model((63, 16), 2)  # no graph in its file: it needs Keras
    EmotionRecognizer(model, ("angry", "calm"), RECIPE).save(own)
    command = [sys.executable, "-m", "common.recognition", speech, "--model", own]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.count("\n") == 3 and "spoken.wav" in done.stdout
    assert [line.partition(":")[0] for line in done.stderr.splitlines()] == ["left out"]


def test_a_sentence_on_trust_follows_the_probability(small):
    said = small.predict(load_corpus("sample")["path"][0])
    for share, row in ((0.95, small.facts["trust"][-1]), (0.1, small.facts["trust"][0])):
        text = describe_prediction(replace(said, probabilities={"sad": share}), small.facts)
        assert f"about {10 * row['accuracy']:.0f} in 10" in text


@pytest.mark.parametrize("emotions", [("sad", "angry"), ("sad", "angry", "calm")])
def test_a_scaler_and_a_regression_become_one_linear_map(emotions):
    rng = np.random.default_rng(0)
    values, labels = rng.normal(3, 5, (60, 4)), np.tile(emotions, 60)[:60]
    values[labels == "angry"] += 4
    fitted = make_pipeline(StandardScaler(), LogisticRegression()).fit(values, labels)
    kernel, bias = fold_scaler(fitted, emotions)
    columns = [[*fitted.classes_].index(emotion) for emotion in emotions]
    expected = fitted.predict_proba(values)[:, columns]
    np.testing.assert_allclose(softmax(values @ kernel + bias, axis=1), expected, atol=1e-9)


def build_deeper_model(input_shape, num_classes):
    inputs = keras.Input(input_shape)
    x = layers.GlobalAveragePooling1D(name="average")(inputs)
    x = layers.Dense(4, activation="relu", name="hidden")(x)
    outputs = layers.Dense(num_classes, activation="softmax", name="emotions")(x)
    return keras.Model(inputs, outputs)


def test_folds_start_from_what_another_corpus_taught(table, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "RUNS_DIR", tmp_path)
    is_taught = table["speaker"].isin(["01", "02"])
    teacher = table[is_taught].reset_index(drop=True)
    pupil = table[~is_taught & table["emotion"].isin(["sad", "angry"])].reset_index(drop=True)
    taught = build_deeper_model, teacher, extract_features(teacher, RECIPE)
    start = start_from(*taught, config=CONFIG)
    with pytest.raises(ValueError, match=r"'emotions' has weights of .*: name it in fresh"):
        start_from(*taught, config=CONFIG, fresh=[]).assign(build_deeper_model((63, 16), 2), 0, 1)
    assert not any(tmp_path.iterdir())  # nothing is trained before a fold needs it
    fresh = build_deeper_model((63, 16), 2)
    head = fresh.get_layer("emotions").get_weights()
    start.assign(fresh, 0, 1)
    learnt, facts = fit_all(*taught, config=CONFIG)
    assert start.description == {"first stage": facts["key"], "fresh": ["emotions"]}
    kept = [*learnt.layers[-1].get_layer("hidden").get_weights(), *head]
    for found, expected in zip(fresh.get_weights(), kept, strict=True):
        np.testing.assert_array_equal(found, expected)
    where = {"protocol": "leave_one_speaker_out", "config": CONFIG, "only_folds": [1]}
    features = extract_features(pupil, RECIPE)
    runs = [
        cross_validate(build_deeper_model, pupil, features, start=given, **where)
        for given in (None, start)
    ]
    assert runs[0].description["key"] != runs[1].description["key"]


def test_training_on_all_rows_is_kept_and_scored_elsewhere(table, tmp_path, monkeypatch):
    features = extract_features(table, RECIPE)
    settings = {"config": CONFIG, "runs_folder": tmp_path}
    model, facts = fit_all(build_model, table, features, **settings)
    again, same = fit_all(build_model, table, features, **settings)
    assert same == facts and facts["speakers"] == table["speaker"].nunique()
    np.testing.assert_array_equal(model.get_weights()[0], again.get_weights()[0])
    with pytest.raises(ValueError, match="monitor='uar'.*give monitor=None"):
        fit_all(build_model, table, features, config=TrainingConfig(epochs=1))
    known = {"key": facts["key"], "title": "a model", "corpus": "sample"}
    recognizer = EmotionRecognizer(model, tuple(facts["emotions"]), RECIPE, known)
    seven = table[table["emotion"] != "calm"].reset_index(drop=True)
    tested = score_elsewhere(
        recognizer, seven, extract_features(seven, RECIPE), merged={"calm": "neutral"}
    )
    given = recognizer.predict_features(extract_features(seven, RECIPE).values[:1])[0]
    assert tested.predictions["p_neutral"][0] == pytest.approx(given[0] + given[1], abs=1e-3)
    assert tested.description["protocol"] == "trained_on_sample"
    with pytest.raises(ValueError, match="does not know"):
        score_elsewhere(replace(recognizer, emotions=tuple("abcdefgh")), seven, features, merged={})
    monkeypatch.setattr(paths, "RESULTS_DIR", tmp_path / "runs" / "results")
    monkeypatch.setattr(paths, "RUNS_DIR", tmp_path / "runs")
    save_results(tested, notebook="91_mine", title="a model", ablation=True)
    lazy = extract_features(seven, RECIPE)
    monkeypatch.setattr(EmotionRecognizer, "predict_features", lambda *_: 1 / 0)
    again = score_elsewhere(recognizer, seven, lazy, merged={"calm": "neutral"})
    assert again.predictions["p_neutral"][0] == pytest.approx(
        tested.predictions["p_neutral"][0], abs=1e-4
    )


@pytest.fixture(scope="module")
def linear(table):
    """Linear layers for strangers and known voices, with facts of made-up predictions."""
    features = extract_features(table, RECIPE)
    regression = make_pipeline(StandardScaler(), LogisticRegression(max_iter=50))
    system = EnrolledSystem([Candidate(regression)], table, features, "leave_one_speaker_out")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it need not converge
        head, voices, facts = fit_linear(table, features, system=system, count=2, num_draws=1)
    return EmotionRecognizer(head, tuple(facts["emotions"]), RECIPE, facts, voices)


def test_a_file_of_own_recordings_tells_what_one_that_ships_tells(linear, table, tmp_path, capsys):
    told = make_predictions(num_speakers=12, seeds=(0,), skill=0.5)
    facts = linear.facts | make_facts(told, corpus="sample", protocol="leave_one_speaker_out")
    replace(linear, facts=facts).save(tmp_path / "own.keras", portable=True)
    own = EmotionRecognizer.load(tmp_path / "own.keras")
    shipped = {name: read_contents(MODELS_DIR / f"{name}.keras").facts for name in SHIPPED}
    assert shipped["whisper"].keys() - own.facts.keys() == {"name", "title", "licence"}
    of_training = {"training", "features", "seconds"}  # of a network
    assert shipped["small"].keys() == shipped["whisper"].keys() | of_training
    assert own.facts["temperature"] != 1 and isinstance(own.network, OnnxNetwork)
    assert "that it has not heard" in describe_trust(own) and "acted" not in describe_trust(own)
    voice = table["path"][table["speaker"] == table["speaker"][0]].tolist()
    assert own.enrol(voice).predict(voice[0]).label in own.emotions
    code, out, _ = run(capsys, voice[0], "--model", tmp_path / "own.keras")
    assert code == 0 and "in 10 were right" in out


@pytest.mark.parametrize(("protocol", "known"), [("random_5fold", True), ("speaker_5fold", False)])
def test_scores_of_voices_that_may_have_been_heard_are_told_as_such(linear, protocol, known):
    told = make_predictions(num_speakers=12, seeds=(0,), skill=0.5)
    told = told if known else told.assign(speaker=told["utterance"])
    facts = linear.facts | make_facts(told, corpus="mine", protocol=protocol)
    assert "voices that it may have heard" in describe_trust(replace(linear, facts=facts))


def test_linear_layers_say_what_scikit_learn_says(linear, table):
    features = extract_features(table, RECIPE)
    rows = features.values.reshape(len(table), -1)
    labels, speakers = table["emotion"].to_numpy(), table["speaker"].to_numpy()
    fitted, _ = fit_classifier(make_regression(), rows, labels, speakers)
    found = linear.predict_features(features.values)
    order = [[*fitted.classes_].index(emotion) for emotion in linear.emotions]
    np.testing.assert_allclose(found, fitted.predict_proba(rows)[:, order], atol=1e-4)


def test_linear_layers_learn_from_copies_where_they_are_told_to(table):
    features = extract_features(table, RECIPE, augmentations=[ChangeSpeed(factor=0.9)])
    copied, alone = (fit_linear(table, features, use_copies=use) for use in (True, False))
    assert copied[2]["key"] != alone[2]["key"]
    versions = np.concatenate([features.values, features.copies[:, 0]])
    labels, speakers = (np.tile(table[name], 2) for name in ("emotion", "speaker"))
    rows = versions.reshape(len(versions), -1)
    fitted, _ = fit_classifier(make_regression(), rows, labels, speakers)
    order = [[*fitted.classes_].index(emotion) for emotion in copied[2]["emotions"]]
    expected = fitted.predict_proba(rows)[:, order]
    np.testing.assert_allclose(copied[0].predict(versions, verbose=0), expected, atol=1e-4)
    assert np.abs(alone[0].predict(versions, verbose=0) - expected).max() > 0.01


@pytest.fixture(scope="module")
def knowing(table):
    features = extract_features(table, RECIPE)
    labels, speakers = table["emotion"].to_numpy(), table["speaker"].to_numpy()
    emotions = tuple(sorted(set(labels)))
    candidate = Candidate(make_pipeline(StandardScaler(), LogisticRegression(max_iter=50)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it need not converge
        model = VoiceModel.fit(candidate, VoiceNormalisation(), features.values, labels, speakers)
    network = build_model(features.values.shape[1:], len(emotions))
    voices = write_voices(model, emotions, 1.0)
    return model, EmotionRecognizer(network, emotions, RECIPE, voices=voices)


def test_a_voice_that_was_heard_is_taken_out(knowing, table, tmp_path):
    model, recognizer = knowing
    recognizer.save(tmp_path / "a.keras")
    recognizer = EmotionRecognizer.load(tmp_path / "a.keras")
    paths = table["path"][table["speaker"] == table["speaker"][0]].tolist()
    enrolled = recognizer.enrol(paths[1:])
    features = recognizer.compute_features([load_waveform(path) for path in paths])
    expected = model.predict(features[:1], features[1:], recognizer.emotions, prior=2.0)[0]
    assert [*enrolled.predict(paths[0]).probabilities.values()] == pytest.approx(expected, abs=1e-3)
    plain = recognizer.predict(paths[0]).probabilities
    assert [*plain.values()] == pytest.approx(run_network(recognizer.network, features[:1])[0])
    with pytest.warns(UserWarning, match="recording 1: .*silent"):
        assert len(recognizer.enrol([np.zeros(16_000), *paths]).voice.notes) == 1
    with pytest.warns(UserWarning, match="recording 5: recorded at 8000 Hz") as told:
        low = recognizer.enrol([*paths[:4], (8_000, load_waveform(paths[4])[::2])])
    assert len(told) == 1 and low.voice.notes == (str(told[0].message),)
    with pytest.raises(ValueError, match=r"3 recordings .* 4 or more.*recording 4: .*silent"):
        recognizer.enrol([*paths[:3], np.zeros(16_000)])
    with pytest.warns(UserWarning, match=f"left out of the voice: {paths[1]}: the same as"):
        again = recognizer.enrol([*paths[1:], paths[1]])
    assert again.predict(paths[0]).probabilities == enrolled.predict(paths[0]).probabilities
    with pytest.raises(ValueError, match="1 recordings with speech"):
        recognizer.enrol([paths[0]] * 4)


def test_recordings_to_enrol_are_named_and_a_folder_stands_for_its_own(knowing, table, tmp_path):
    _, recognizer = knowing
    spoken = table["path"][table["speaker"] == table["speaker"][0]].tolist()
    folder = tmp_path / "voice"
    folder.mkdir()
    for number, path in enumerate(spoken[:4]):
        shutil.copyfile(path, folder / f"{number}{Path(path).suffix}")
    (folder / "click.wav").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"left out of the voice: \S*click.wav: "):
        enrolled = recognizer.enrol(folder)
    known = recognizer.enrol(spoken[:4]).predict(spoken[5]).probabilities
    assert enrolled.predict(spoken[5]).probabilities == pytest.approx(known)
    for alone in (
        spoken[0],
        Path(spoken[0]),
        np.zeros(16_000),
        (16_000, np.zeros(16_000)),
        b"RIFF",
    ):
        with pytest.raises(ValueError, match="one recording: give a folder, or a list of four"):
            recognizer.enrol(alone)


def test_what_a_folder_to_enrol_lacks_is_told(knowing, tmp_path):
    _, recognizer = knowing
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        recognizer.enrol(tmp_path / "nowhere")
    (tmp_path / "clip.flv").write_bytes(b"FLV\1\0")
    with pytest.raises(ValueError, match="0 recordings with speech(.|\n)*clip.flv: "):
        recognizer.enrol(tmp_path)


def test_a_voice_is_kept_by_no_file(knowing, table, tmp_path):
    _, recognizer = knowing
    enrolled = recognizer.enrol(table["path"][table["speaker"] == table["speaker"][0]])
    with pytest.raises(ValueError, match="a.keras: a file holds no voice; save"):
        enrolled.save(tmp_path / "a.keras")
    assert not (tmp_path / "a.keras").exists()
