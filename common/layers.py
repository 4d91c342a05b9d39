"""Layers that Keras does not have; they save and load in safe mode."""

import keras
from keras import layers, ops


@keras.saving.register_keras_serializable(package="ser")
class AttentionPooling(layers.Layer):
    """Average over time with learnt weights.

    Additive self-attention with one head (Lin et al., ICLR 2017): a score per frame from a
    hidden layer of `units`, a softmax over the frames, and the weighted mean of the frames.

    Call: (batch, frames, channels) -> (batch, channels).
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
