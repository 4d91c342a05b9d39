"""Shared layers: shapes, what they compute, and that they load in safe mode."""

import keras
import numpy as np
import pytest
import scipy.fft
from keras import ops

from common.layers import (
    AttentionPooling,
    CosineTransform,
    LayerWeighting,
    PositionEmbedding,
    Rematerialized,
    StatisticsPooling,
    add_residual_block,
    add_transformer_block,
)

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


def test_attentive_statistics_are_the_weighted_mean_and_deviation():
    layer = StatisticsPooling(4)
    pooled = compute(layer)
    weights = ops.convert_to_numpy(layer.compute_weights(FRAMES))
    mean = (weights * FRAMES).sum(axis=1)
    variance = (weights * (FRAMES - mean[:, None]) ** 2).sum(axis=1)
    np.testing.assert_allclose(pooled[:, :5], mean, atol=1e-6)
    np.testing.assert_allclose(pooled[:, 5:], np.sqrt(variance + 1e-5), atol=1e-6)
    assert layer.compute_output_shape(FRAMES.shape) == (3, 10)
    same = compute(layer, np.ones((2, 7, 5), np.float32))
    np.testing.assert_allclose(same, np.tile([1.0] * 5 + [np.sqrt(1e-5)] * 5, (2, 1)), atol=1e-5)


# Layers of an encoder


def test_layer_weights_start_equal_and_average():
    layer = LayerWeighting()
    np.testing.assert_allclose(compute(layer), FRAMES.mean(axis=1), atol=1e-6)
    assert layer.compute_output_shape(FRAMES.shape) == (3, 5)
    assert LayerWeighting()(keras.Input((7, 5))).shape == (None, 5)
    assert layer.count_params() == 7
    frames = np.stack([FRAMES, 2 * FRAMES], axis=1)  # a mean per step
    np.testing.assert_allclose(compute(LayerWeighting(), frames), frames.mean(axis=2), atol=1e-6)


def test_layer_weights_are_a_softmax_and_weight_the_layers():
    layer = LayerWeighting()
    layer.build(FRAMES.shape)
    scores = np.random.default_rng(1).normal(size=(7, 1)).astype(np.float32)
    layer.set_weights([scores])
    weights = ops.convert_to_numpy(layer.compute_weights())
    np.testing.assert_allclose(weights, np.exp(scores) / np.exp(scores).sum(), atol=1e-6)
    np.testing.assert_allclose(compute(layer), (weights * FRAMES).sum(axis=1), atol=1e-6)


def test_layer_weights_find_the_layer_that_tells():
    rng = np.random.default_rng(2)
    targets = rng.integers(0, 2, size=256)
    values = rng.normal(size=(256, 6, 4)).astype(np.float32)
    values[:, 4] += 2 * (2 * targets[:, None] - 1)
    inputs = keras.Input((6, 4))
    layer = LayerWeighting(name="layer_weights")
    model = keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(layer(inputs)))
    model.compile(keras.optimizers.Adam(0.05), "binary_crossentropy")
    model.fit(values, targets, epochs=25, verbose=0)
    weights = ops.convert_to_numpy(layer.compute_weights())[:, 0]
    assert weights.argmax() == 4 and weights[4] > 0.5


# Cepstral coefficients


@pytest.mark.parametrize("num_coefficients", [1, 3, 5])
def test_the_cosine_transform_is_that_of_scipy(num_coefficients):
    layer = CosineTransform(num_coefficients)
    expected = scipy.fft.dct(FRAMES, type=2, norm="ortho", axis=-1)[..., :num_coefficients]
    np.testing.assert_allclose(compute(layer), expected, atol=1e-5)
    assert layer(keras.Input((None, 5))).shape == (None, None, num_coefficients)
    assert layer.weights == []


def test_a_cosine_transform_has_no_more_coefficients_than_bands():
    with pytest.raises(ValueError, match="num_coefficients=6 is more than the 5 bands"):
        CosineTransform(6)(FRAMES)


# Positions


def test_positions_add_their_weights_to_each_frame():
    layer = PositionEmbedding()
    added = compute(layer)
    [positions] = (ops.convert_to_numpy(weight) for weight in layer.weights)
    assert positions.shape == (7, 5) and 0 < np.abs(positions).max() < 0.2
    np.testing.assert_allclose(added, FRAMES + positions, atol=1e-7)
    assert len(np.unique(positions, axis=0)) == 7
    assert [weight.path for weight in layer.trainable_weights] == [f"{layer.name}/positions"]


def test_positions_keep_the_symbolic_shape():
    assert PositionEmbedding()(keras.Input((7, 5))).shape == (None, 7, 5)


# The residual block

IMAGES = np.random.default_rng(1).normal(size=(2, 13, 9, 3)).astype(np.float32)


def build_residual(shape=(13, 9, 3), filters=4, **settings) -> keras.Model:
    inputs = keras.Input(shape)
    return keras.Model(inputs, add_residual_block(inputs, filters, name="block", **settings))


@pytest.mark.parametrize(
    ("shape", "pool", "expected"),
    [
        ((12, 8), (2, 2), (6, 4)),
        ((13, 9), (2, 2), (6, 4)),
        ((157, 64), (2, 2), (78, 32)),
        ((13, 9), (1, 2), (13, 4)),
        ((13, 9), (4, 3), (3, 3)),
        ((13, 9), (1, 1), (13, 9)),
    ],
)
def test_a_residual_block_shrinks_by_its_pool(shape, pool, expected):
    model = build_residual((*shape, 3), pool=pool)
    assert model.output_shape == (None, *expected, 4)
    assert compute(model, np.zeros((2, *shape, 3), dtype=np.float32)).shape == (2, *expected, 4)


@pytest.mark.parametrize(("channels", "filters"), [(1, 4), (6, 6), (8, 3)])
def test_parameters_of_a_residual_block(channels, filters):
    model = build_residual((12, 8, channels), filters)
    first, second = (3**2 * width * filters for width in (channels, filters))
    norms, shortcut = 2 * 4 * filters, channels * filters
    assert model.count_params() == first + second + norms + shortcut
    assert sum(np.size(weight) for weight in model.non_trainable_weights) == 4 * filters


def test_a_residual_block_without_its_convolutions_is_the_shortcut():
    model = build_residual()
    last = model.get_layer("block_norm_2")
    last.gamma.assign(np.zeros(4))
    kernel = ops.convert_to_numpy(model.get_layer("block_shortcut").kernel)[0, 0]
    means = IMAGES[:, :12, :8].reshape(2, 6, 2, 4, 2, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(compute(model, IMAGES), np.maximum(means @ kernel, 0), atol=1e-5)
    last.gamma.assign(np.ones(4))
    assert np.abs(compute(model, IMAGES) - np.maximum(means @ kernel, 0)).max() > 0.01


# The transformer block


def build_transformer(*, positions: bool = False) -> keras.Model:
    inputs = keras.Input((7, 8))
    x = PositionEmbedding(name="positions")(inputs) if positions else inputs
    x = add_transformer_block(x, num_heads=2, hidden_units=16, dropout=0.3, name="block")
    return keras.Model(inputs, x)


STEPS = np.random.default_rng(2).normal(size=(3, 7, 8)).astype(np.float32)
ORDER = [3, 0, 6, 2, 5, 1, 4]


@pytest.mark.parametrize("num_frames", [2, 7, 12])
def test_a_transformer_block_keeps_the_shape(num_frames):
    inputs = keras.Input((num_frames, 8))
    outputs = add_transformer_block(inputs, num_heads=4, hidden_units=10, dropout=0.1, name="block")
    assert outputs.shape == (None, num_frames, 8)
    model = keras.Model(inputs, outputs)
    attention = 4 * (8 * 8 + 8)
    network = (8 * 10 + 10) + (10 * 8 + 8)
    assert model.count_params() == attention + network + 2 * (8 + 8)
    assert compute(model, np.ones((2, num_frames, 8), dtype=np.float32)).shape == (2, num_frames, 8)


def test_a_transformer_block_follows_the_order_of_its_frames():
    model = build_transformer()
    outputs = compute(model, STEPS)
    np.testing.assert_allclose(compute(model, STEPS[:, ORDER]), outputs[:, ORDER], atol=1e-5)
    changed = STEPS.copy()
    changed[:, 6, 0] += 3
    assert np.abs(compute(model, changed)[:, 0] - outputs[:, 0]).max() > 1e-4


def test_positions_tell_a_transformer_the_order():
    model = build_transformer(positions=True)
    place = model.get_layer("positions").positions
    place.assign(np.random.default_rng(3).normal(size=place.shape))
    difference = compute(model, STEPS[:, ORDER]) - compute(model, STEPS)[:, ORDER]
    assert np.abs(difference).max() > 0.1


def test_a_transformer_block_that_computes_nothing_passes_its_input_on():
    model = build_transformer()
    zeroed = [model.get_layer("block_dense_2"), model.get_layer("block_attention").output_dense]
    for layer in zeroed:
        layer.set_weights([np.zeros_like(weight) for weight in layer.get_weights()])
    np.testing.assert_array_equal(compute(model, STEPS), STEPS)


def build_attention(**settings) -> keras.Model:
    inputs = keras.Input((7, 8))
    x = keras.layers.LayerNormalization()(inputs)
    x = keras.layers.MultiHeadAttention(2, 4, **settings)(x, x)
    return keras.Model(inputs, keras.layers.Dense(8, activation="gelu")(x), name="attend")


def test_rematerialized_layers_learn_the_same():
    part = build_attention()
    trained = []
    for wrap in (lambda layer: layer, Rematerialized):
        copy = keras.models.clone_model(part)
        copy.set_weights(part.get_weights())
        inputs = keras.Input((7, 8))
        x = keras.layers.Dropout(0.3, seed=1)(wrap(copy)(inputs))
        model = keras.Model(inputs, keras.layers.GlobalAveragePooling1D()(x))
        model.compile(keras.optimizers.SGD(0.5), "mse")
        for _ in range(3):
            model.train_on_batch(STEPS, np.ones((3, 8)))
        trained.append(copy.get_weights())
    for plain, rematerialized in zip(*trained, strict=True):
        np.testing.assert_allclose(rematerialized, plain, atol=1e-5)
    moved = [np.abs(a - b).max() for a, b in zip(part.get_weights(), trained[0], strict=True)]
    assert max(moved) > 0.01


def test_what_is_random_cannot_be_rematerialized():
    with pytest.raises(ValueError, match=r"attend cannot be computed twice: .* leave dropout"):
        Rematerialized(build_attention(dropout=0.1))(keras.Input((7, 8)))


def test_dropout_acts_in_training_alone():
    model = build_transformer()
    first, second = (ops.convert_to_numpy(model(STEPS, training=True)) for _ in range(2))
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(compute(model, STEPS), compute(model, STEPS))


def test_a_model_of_all_layers_saves_and_loads_in_safe_mode(tmp_path):
    inputs = keras.Input((13, 9, 3))
    x = add_residual_block(inputs, 4, name="residual")
    x = keras.layers.Reshape((6, 16))(x)
    x = PositionEmbedding(name="positions")(x)
    x = add_transformer_block(x, num_heads=2, hidden_units=8, dropout=0.1, name="transformer")
    x = Rematerialized(keras.layers.Dense(5, name="dense"), name="rematerialized")(x)
    x = CosineTransform(3, name="cepstra")(x)
    pooled = [AttentionPooling(2)(x), StatisticsPooling(3)(x), LayerWeighting()(x)]
    model = keras.Model(inputs, keras.layers.Concatenate()(pooled))
    assert model.output_shape == (None, 3 + 6 + 3)
    rng = np.random.default_rng(4)
    model.set_weights([rng.uniform(0.1, 1, weight.shape) for weight in model.get_weights()])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    assert [layer.name for layer in loaded.layers] == [layer.name for layer in model.layers]
    np.testing.assert_allclose(compute(loaded, IMAGES), compute(model, IMAGES), rtol=1e-6)
