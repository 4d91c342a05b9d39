"""Layers that more than one architecture uses; all save and load in safe mode."""

import keras
import numpy as np
import scipy.fft
from keras import layers, ops


@keras.saving.register_keras_serializable(package="ser")
class AttentionPooling(layers.Layer):
    """Average over time by learnt weights: (batch, frames, channels) -> (batch, channels).

    Additive self-attention with one head (Lin et al., ICLR 2017): a score per frame from a
    hidden layer of `units`, a softmax over the frames, and the weighted mean of the frames.
    """

    def __init__(self, units: int = 64, **kwargs) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.hidden = layers.Dense(units, activation="tanh", name="hidden")
        self.score = layers.Dense(1, use_bias=False, name="score")

    def build(self, input_shape) -> None:
        self.hidden.build(input_shape)
        self.score.build((*input_shape[:-1], self.units))
        super().build(input_shape)

    def compute_weights(self, frames):
        """Give the attention weights, shape (batch, frames, 1), that sum to 1 over the frames."""
        return ops.softmax(self.score(self.hidden(frames)), axis=1)

    def call(self, frames):
        return ops.sum(self.compute_weights(frames) * frames, axis=1)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], input_shape[-1])

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable(package="ser")
class StatisticsPooling(AttentionPooling):
    """Weighted mean and standard deviation over time, side by side, by learnt weights.

    Attentive statistics pooling: Okabe, Koshinaka and Shinoda, Interspeech 2018.
    (batch, frames, channels) -> (batch, 2 * channels).
    """

    def call(self, frames):
        weights = self.compute_weights(frames)
        mean = ops.sum(weights * frames, axis=1)
        variance = ops.sum(weights * ops.square(frames - mean[:, None]), axis=1)
        return ops.concatenate([mean, ops.sqrt(variance + 1e-5)], axis=-1)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], 2 * input_shape[-1])


@keras.saving.register_keras_serializable(package="ser")
class LayerWeighting(layers.Layer):
    """Average the layers of an encoder with learnt weights, a softmax of one number per layer.

    Peters et al., "Deep contextualized word representations", NAACL 2018; Yang et al., "SUPERB:
    Speech processing universal performance benchmark", Interspeech 2021.
    (batch, …, layers, dimensions) -> (batch, …, dimensions); the number of layers is fixed.
    """

    def build(self, input_shape) -> None:
        shape = (input_shape[-2], 1)
        self.scores = self.add_weight(shape=shape, initializer="zeros", name="scores")

    def compute_weights(self):
        """Give the weights, shape (layers, 1), that sum to 1."""
        return ops.softmax(self.scores, axis=0)

    def call(self, states):
        return ops.sum(self.compute_weights() * states, axis=-2)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-2], input_shape[-1])


@keras.saving.register_keras_serializable(package="ser")
class CosineTransform(layers.Layer):
    """First coefficients of the orthonormal cosine transform (DCT-II) over the bands.

    Turns log-mel bands (batch, frames, bands) into cepstra (batch, frames, num_coefficients).
    """

    def __init__(self, num_coefficients: int = 40, **kwargs) -> None:
        super().__init__(**kwargs)
        self.num_coefficients = num_coefficients

    def build(self, input_shape) -> None:
        num_bands = input_shape[-1]
        if self.num_coefficients > num_bands:
            raise ValueError(
                f"num_coefficients={self.num_coefficients} is more than the {num_bands} bands"
            )
        cosines = scipy.fft.dct(np.eye(num_bands), type=2, norm="ortho", axis=1)
        self.cosines = cosines[:, : self.num_coefficients].astype(np.float32)
        super().build(input_shape)

    def call(self, frames):
        return ops.matmul(frames, self.cosines)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.num_coefficients)

    def get_config(self):
        return {**super().get_config(), "num_coefficients": self.num_coefficients}


@keras.saving.register_keras_serializable(package="ser")
class PositionEmbedding(layers.Layer):
    """Add a learnt vector for its place to each of a fixed number of frames (batch, frames, …)."""

    def build(self, input_shape) -> None:
        self.positions = self.add_weight(
            shape=input_shape[1:],
            initializer=keras.initializers.RandomNormal(stddev=0.02),
            name="positions",
        )

    def call(self, frames):
        return frames + self.positions


@keras.saving.register_keras_serializable(package="ser")
class Rematerialized(layers.Wrapper):
    """A layer or a small network that keeps its input alone for the backward pass.

    What lies between is computed once more when the gradient needs it (gradient checkpointing;
    Chen et al., "Training deep nets with sublinear memory cost", 2016): the same result in less
    memory and more time, except that JAX's compiler for CPUs keeps everything all the same.
    `keras.RematScope` does not take layers that tell training from inference; this does. What is
    random would be drawn anew, so dropout belongs outside: ValueError if a variable inside is
    not trained, as dropout and batch normalisation have.
    """

    def build(self, input_shape=None) -> None:
        super().build(input_shape)
        names = [variable.path for variable in self.layer.non_trainable_variables]
        if names:
            raise ValueError(
                f"{self.layer.name} cannot be computed twice: {names[0]} would change; leave "
                "dropout, batch normalisation and frozen weights outside"
            )

    def call(self, inputs):
        # JAX remembers a function that it has traced, and with it the weights of that moment.
        return keras.remat(lambda values: self.layer(values))(inputs)

    def compute_output_shape(self, input_shape):
        return self.layer.compute_output_shape(input_shape)


def add_residual_block(image, filters: int, *, pool=2, dropout: float = 0.1, name: str):
    """Two convolutions over time and frequency, pooling after the first, beside a shortcut.

    He et al., "Deep residual learning for image recognition", CVPR 2016.
    (batch, frames, bands, channels) -> (batch, frames / pool, bands / pool, filters).
    """
    shortcut = layers.AveragePooling2D(pool, name=f"{name}_shrink")(image)
    shortcut = layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_shortcut")(shortcut)
    settings = {"padding": "same", "use_bias": False}
    x = layers.Conv2D(filters, 3, **settings, name=f"{name}_conv_1")(image)
    x = layers.MaxPooling2D(pool, name=f"{name}_pool")(x)
    x = layers.BatchNormalization(name=f"{name}_norm_1")(x)
    x = layers.ReLU(name=f"{name}_relu_1")(x)
    x = layers.Conv2D(filters, 3, **settings, name=f"{name}_conv_2")(x)
    x = layers.BatchNormalization(name=f"{name}_norm_2")(x)
    x = layers.Add(name=f"{name}_add")([x, shortcut])
    x = layers.ReLU(name=f"{name}_relu_2")(x)
    return layers.Dropout(dropout, name=f"{name}_dropout")(x)


def add_transformer_block(
    frames, *, num_heads: int, hidden_units: int, dropout: float, name: str, epsilon: float = 1e-3
):
    """Self-attention and a position-wise network, each normalised before and added to its input.

    Vaswani et al., "Attention is all you need", NeurIPS 2017, in the order of Xiong et al.,
    "On layer normalization in the transformer architecture", ICML 2020.
    (batch, frames, channels) -> the same shape.
    """
    width = frames.shape[-1]
    x = layers.LayerNormalization(epsilon=epsilon, name=f"{name}_norm_1")(frames)
    x = layers.MultiHeadAttention(
        num_heads, width // num_heads, dropout=dropout, name=f"{name}_attention"
    )(x, x)
    x = layers.Dropout(dropout, name=f"{name}_dropout_1")(x)
    frames = layers.Add(name=f"{name}_add_1")([frames, x])
    x = layers.LayerNormalization(epsilon=epsilon, name=f"{name}_norm_2")(frames)
    x = layers.Dense(hidden_units, activation="gelu", name=f"{name}_dense_1")(x)
    x = layers.Dense(width, name=f"{name}_dense_2")(x)
    x = layers.Dropout(dropout, name=f"{name}_dropout_2")(x)
    return layers.Add(name=f"{name}_add_2")([frames, x])
