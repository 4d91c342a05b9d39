"""What would fail after the training is refused before it; a saved model opens again."""

import random
import subprocess
import sys
import threading

import keras
import numpy as np
import pytest
from keras import layers

from common import cross_validation
from common.cross_validation import cross_validate
from common.layers import AttentionPooling
from common.models import build_seeded, check_model, compute_attention, look_inside, save_model
from common.optimizers import Trainee, copy_values
from common.paths import ROOT
from common.training import TrainingConfig
from tests.speech_tables import make_features, make_speakers

SHAPE = (12, 6)


def build_model(input_shape, num_classes):
    inputs = keras.Input(input_shape, name="features")
    x = layers.Dense(8, activation="relu", name="hidden")(inputs)
    x = AttentionPooling(4, name="attention")(x)
    x = layers.Dropout(0.3, name="dropout")(x)
    outputs = layers.Dense(num_classes, activation="softmax", name="emotions")(x)
    return keras.Model(inputs, outputs, name="toy")


class Unbuilt(layers.Layer):
    """Draws its weights when it is called, so they are not loaded."""

    def call(self, x):
        return x + keras.random.normal(keras.ops.shape(x))

    def compute_output_shape(self, input_shape):
        return input_shape


def end_in_logits(input_shape, num_classes):
    model = build_model(input_shape, num_classes)
    outputs = layers.Dense(num_classes, name="logits")(model.get_layer("dropout").output)
    return keras.Model(model.input, outputs, name="toy")


def end_in_too_many(input_shape, num_classes):
    return build_model(input_shape, num_classes + 1)


def hold_a_lambda(input_shape, num_classes):
    model = build_model(input_shape, num_classes)
    return keras.Model(model.input, layers.Lambda(lambda x: x)(model.output), name="toy")


def hold_an_unregistered_layer(input_shape, num_classes):
    model = build_model(input_shape, num_classes)
    x = Unbuilt(name="unbuilt")(model.get_layer("dropout").output)
    outputs = layers.Dense(num_classes, activation="softmax", name="emotions")(x)
    return keras.Model(model.input, outputs, name="toy")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (end_in_logits, "toy ends in numbers that are no probabilities .*softmax"),
        (end_in_too_many, r"gives \(5,\) for an utterance, and \(4,\) is needed"),
        (hold_a_lambda, "cannot be saved and loaded .*Lambda"),
        (hold_an_unregistered_layer, "cannot be saved and loaded"),
    ],
)
def test_a_model_that_would_fail_later_is_never_trained(build, message, tmp_path, monkeypatch):
    monkeypatch.setattr(cross_validation, "train_model", None)
    table = make_speakers(6, per_emotion=2)
    settings = {"protocol": "speaker_5fold", "config": TrainingConfig(), "runs_folder": tmp_path}
    with pytest.raises(ValueError, match=message):
        cross_validate(build, table, make_features(table), **settings)


def test_a_good_model_passes():
    check_model(build_seeded(build_model, SHAPE, 4, seed=0), SHAPE, 4)


def save(folder):
    model = build_seeded(build_model, SHAPE, 4, seed=0)
    mean, std = np.arange(6, dtype=np.float32), np.full(6, 2, np.float32)
    save_model(model, mean, std, folder / "model.keras")
    return model, keras.models.load_model(folder / "model.keras")


def test_a_saved_model_is_opened_at_any_layer(tmp_path):
    model, saved = save(tmp_path)
    values = np.random.default_rng(0).normal(size=(3, *SHAPE)).astype(np.float32)
    normalised = (values - np.arange(6)) / 2
    hidden, emotions = look_inside(saved, "hidden", "emotions")(values)
    np.testing.assert_allclose(hidden, model.get_layer("hidden")(normalised), atol=1e-5)
    np.testing.assert_allclose(emotions, model(normalised), atol=1e-5)
    weights = compute_attention(saved, values, layer="attention")
    expected = model.get_layer("attention").compute_weights(hidden)
    np.testing.assert_allclose(weights, keras.ops.convert_to_numpy(expected)[..., 0], atol=1e-5)
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-5)
    with pytest.raises(ValueError, match=r"no layer \['lstm'\] in toy; it has .*'attention'"):
        look_inside(saved, "lstm")


def test_attention_of_a_transformer_is_the_mean_over_heads_and_steps(tmp_path):
    inputs = keras.Input(SHAPE, name="features")
    x = layers.MultiHeadAttention(2, 3, name="heads")(inputs, inputs)
    outputs = layers.Dense(4, activation="softmax")(layers.GlobalAveragePooling1D()(x))
    model = keras.Model(inputs, outputs, name="toy")
    save_model(model, np.zeros(6, np.float32), np.ones(6, np.float32), tmp_path / "model.keras")
    values = np.random.default_rng(0).normal(size=(3, *SHAPE)).astype(np.float32)
    saved = keras.models.load_model(tmp_path / "model.keras")
    weights = compute_attention(saved, values, layer="heads")
    _, scores = model.get_layer("heads")(values, values, return_attention_scores=True)
    expected = keras.ops.convert_to_numpy(scores).mean(axis=(1, 2))
    np.testing.assert_allclose(weights, expected, atol=1e-5)


def test_a_saved_model_needs_the_layers_alone(tmp_path):
    config = TrainingConfig(epochs=1, batch_size=8, learning_rate_factors=(("hidden", 0.5),))
    table = make_speakers(6, per_emotion=2)
    settings = {"protocol": "speaker_5fold", "config": config, "only_folds": [1]}
    run = cross_validate(build_model, table, make_features(table), runs_folder=tmp_path, **settings)
    code = "import sys, keras, common.layers; print(keras.models.load_model(sys.argv[1]).name)"
    command = [sys.executable, "-c", code, str(run.models[0, 1])]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "toy"


def test_a_trainee_starts_again_where_a_fresh_model_would():
    config = TrainingConfig(epochs=1, batch_size=8)
    trainee = Trainee(build_seeded(build_model, SHAPE, 4, seed=0), config)
    data = np.random.default_rng(0).normal(size=(16, *SHAPE)), np.eye(4)[np.arange(16) % 4]
    trainee.restart(build_seeded(build_model, SHAPE, 4, seed=5)).fit(*data, verbose=0)
    first = [np.array(weight) for weight in trainee.model.get_weights()]
    trainee.restart(build_seeded(build_model, SHAPE, 4, seed=5)).fit(
        *data, verbose=0, shuffle=False
    )
    fresh = build_seeded(build_model, SHAPE, 4, seed=7)
    restarted = trainee.restart(fresh)
    assert float(keras.ops.convert_to_numpy(restarted.optimizer.iterations)) == 0
    for one, two in zip(restarted.get_weights(), fresh.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    assert any(not np.array_equal(a, b) for a, b in zip(first, fresh.get_weights(), strict=True))


def test_another_thread_that_draws_random_numbers_changes_no_weight():
    def build_disturbed(input_shape, num_classes):
        thread = threading.Thread(target=random.random)
        thread.start()
        thread.join()
        return build_model(input_shape, num_classes)

    state = random.getstate()
    quiet, disturbed = (
        build_seeded(build, SHAPE, 3, seed=5) for build in (build_model, build_disturbed)
    )
    values = (copy_values(model.variables) for model in (quiet, disturbed))  # of dropout too
    assert all(map(np.array_equal, *values)) and random.getstate() == state
