"""Shared layers: shapes, what they compute, and that they load in safe mode."""

import keras
import numpy as np
import pytest
from keras import ops

from common.layers import AttentionPooling

FRAMES = np.random.default_rng(0).normal(size=(3, 7, 5)).astype(np.float32)


def compute(layer, frames=FRAMES) -> np.ndarray:
    return ops.convert_to_numpy(layer(frames))


def test_attention_pools_over_time():
    layer = AttentionPooling(4)
    pooled = compute(layer)
    assert pooled.shape == (3, 5) == layer.compute_output_shape(FRAMES.shape)
    assert AttentionPooling(4)(keras.Input((None, 5))).shape == (None, 5)
    assert layer.count_params() == 5 * 4 + 4 + 4


def test_attention_weights_sum_to_one_and_weight_the_frames():
    layer = AttentionPooling(4)
    pooled = compute(layer)
    weights = ops.convert_to_numpy(layer.compute_weights(FRAMES))
    assert weights.shape == (3, 7, 1) and (weights > 0).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(pooled, (weights * FRAMES).sum(axis=1), atol=1e-6)
    kernel, bias, score = (ops.convert_to_numpy(weight) for weight in layer.weights)
    scores = np.tanh(FRAMES @ kernel + bias) @ score
    expected = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(weights, expected, atol=1e-6)


def test_attention_does_not_care_for_the_order_of_frames():
    layer = AttentionPooling(4)
    np.testing.assert_allclose(compute(layer), compute(layer, FRAMES[:, ::-1]), atol=1e-6)


@pytest.mark.parametrize("units", [1, 16])
def test_a_model_with_attention_saves_and_loads_in_safe_mode(units, tmp_path):
    inputs = keras.Input((7, 5))
    model = keras.Model(inputs, AttentionPooling(units)(inputs))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    assert loaded.layers[-1].units == units
    np.testing.assert_array_equal(compute(loaded), compute(model))
