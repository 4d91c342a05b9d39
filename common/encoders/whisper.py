"""Whisper's encoder as a trainable Keras network: front end and layers."""

from dataclasses import replace

import keras
import librosa
import numpy as np
from keras import layers, ops

from common.audio import SAMPLE_RATE_HERTZ
from common.encoders.contract import Arrays, Encoder, EncoderRecord, Weights, register
from common.encoders.weights import digest_arrays, make_layer_network
from common.encoders.whisper_weights import (
    EPSILON,
    FRAME_LENGTH,
    HOP_LENGTH,
    NUM_BANDS,
    NUM_POSITIONS,
    RECORDS,
    count_heads,
    get_whisper,
)
from common.layers import add_transformer_block
from common.networks import list_missing

KINDS = {
    **{"conv_1": "conv1", "conv_2": "conv2", "positions": "embed_positions", "norm": "layer_norm"},
    **{"norm_1": "self_attn_layer_norm", "norm_2": "final_layer_norm", "attention": "self_attn"},
    **{"dense_1": "fc1", "dense_2": "fc2"},
}


@keras.saving.register_keras_serializable(package="ser")
class WhisperFrontEnd(layers.Layer):
    """Log-mel spectrogram of Whisper, one frame per 10 ms, 80 bands.

    Periodic Hann windows of 25 ms, centred on samples reflected at the ends, power, 80 Slaney mel
    bands up to 8 kHz, logarithm to base 10. What is more than 8 below the utterance's largest
    value is raised to that; then (x + 4) / 4. Radford et al., arXiv:2212.04356, section 2.2.
    Waveforms (batch, samples), more than 200 -> (batch, samples // 160, 80).
    """

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        bands = librosa.filters.mel(sr=SAMPLE_RATE_HERTZ, n_fft=FRAME_LENGTH, n_mels=NUM_BANDS)
        self.filters = bands.T.astype(np.float32)

    def call(self, waveforms):
        sizes = (FRAME_LENGTH, HOP_LENGTH, FRAME_LENGTH)
        real, imaginary = ops.stft(waveforms, *sizes, window="hann", center=True)
        power = ops.square(real) + ops.square(imaginary)
        bands = ops.matmul(power[:, :-1], self.filters)
        values = ops.log10(ops.maximum(bands, 1e-10))
        floor = ops.max(values, axis=(1, 2), keepdims=True) - 8
        return (ops.maximum(values, floor) + 4) / 4

    def compute_output_shape(self, input_shape):
        num_samples = input_shape[1]
        return (input_shape[0], num_samples and num_samples // HOP_LENGTH, NUM_BANDS)


@keras.saving.register_keras_serializable(package="ser")
class FixedPositions(layers.Layer):
    """Add a fixed vector for its place to each frame: (batch, frames, width) -> the same shape."""

    def __init__(self, num_positions: int = NUM_POSITIONS, **kwargs) -> None:
        super().__init__(**kwargs)
        self.num_positions = num_positions

    def build(self, input_shape) -> None:
        shape = (self.num_positions, input_shape[-1])
        self.positions = self.add_weight(
            shape=shape, initializer="zeros", trainable=False, name="positions"
        )

    def call(self, frames):
        return frames + self.positions[: ops.shape(frames)[1]]

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "num_positions": self.num_positions}


def build_whisper(
    record: EncoderRecord, *, first: int | None = None, last: int | None = None, stacked=False
) -> keras.Model:
    """Build the layers of Whisper's encoder between two states, without weights.

    State 0 is the input of the first layer, state i the output of layer i; the last state of all
    is normalised. `first` None: from the log-mel spectrogram (batch, frames, 80) on; otherwise
    from that state, (batch, steps, width), a step per 20 ms. Gives state `last`, None: of all
    layers; `stacked`: the states from the first to the last, (batch, steps, states, width).
    """
    width, num_layers = record.num_dimensions // 2, record.num_layers - 1
    last = num_layers if last is None else last
    if first is None:
        inputs = x = keras.Input((None, NUM_BANDS), name="log_mel")
        for number, strides in ((1, 1), (2, 2)):
            x = layers.ZeroPadding1D(1, name=f"whisper_pad_{number}")(x)
            settings = {"strides": strides, "activation": "gelu", "name": f"whisper_conv_{number}"}
            x = layers.Conv1D(width, 3, **settings)(x)
        states = [FixedPositions(name="whisper_positions")(x)]
    else:
        inputs = keras.Input((None, width), name=f"state_{first}")
        states = [inputs]
    block = {"num_heads": count_heads(width), "hidden_units": 4 * width, "epsilon": EPSILON}
    for number in range((first or 0) + 1, last + 1):
        name = f"whisper_{number}"
        states.append(add_transformer_block(states[-1], **block, dropout=0, name=name))
    if last == num_layers:
        states[-1] = layers.LayerNormalization(epsilon=EPSILON, name="whisper_norm")(states[-1])
    return keras.Model(inputs, ops.stack(states, 2) if stacked else states[-1], name=record.name)


def assign_arrays(network: keras.Model, arrays: Arrays) -> keras.Model:
    """Put arrays as PyTorch lays them out into the layers of the network, which is returned.

    Kernels (out, in, time) become (time, in, out), and (out, in) become (in, out); those of the
    attention are split into heads. Its keys have no bias in Whisper: here one of zeros.
    """
    for layer in network.layers:
        if not layer.weights:
            continue
        kind = layer.name.removeprefix("whisper_")
        number, _, part = kind.partition("_")
        name = f"layers.{int(number) - 1}.{KINDS[part]}" if number.isdigit() else KINDS[kind]
        parts = [""]
        if part == "attention":
            parts = [f".{letter}_proj" for letter in ("q", "k", "v", "out")]
        names = [f"{name}{part}.{half}" for part in parts for half in ("weight", "bias")]
        values = []
        for name, weight in zip(names, layer.weights, strict=False):  # positions have no bias
            array = arrays.get(name, np.zeros(weight.shape, np.float32))
            values.append(array if kind == "positions" else array.T.reshape(weight.shape))
        layer.set_weights(values)
    return network


@register(*RECORDS)
def load(record: EncoderRecord, weights: Weights, num_samples: int, trainable: bool) -> Encoder:
    """Load Whisper's encoder; "random" is a small one, as its record then says.

    Trainable it is a Keras network, (batch, frames, 80) -> (batch, steps, width), the last state.
    Frozen it gives mean and deviation over an utterance of every state, (batch, layers,
    dimensions); zeros around the utterance are left out before, and nothing else is heard. Frozen
    it is run by onnxruntime, where that is there, in less than half the time of Keras.
    """
    if not trainable and not list_missing():
        from common.encoders.whisper_graph import load_portable

        return load_portable(record, weights, num_samples)
    record, arrays = get_whisper(record, weights, num_samples)
    digest, front_end = digest_arrays(arrays), WhisperFrontEnd(name="front_end")
    network = assign_arrays(build_whisper(record, stacked=not trainable), arrays)
    if trainable:
        return Encoder(record, front_end, network, num_samples, digest)

    def compute_states(waveform: np.ndarray) -> np.ndarray:
        states = network(front_end(waveform[None]), training=False)
        return ops.convert_to_numpy(states)[0].swapaxes(0, 1)

    return Encoder(record, None, make_layer_network(compute_states, record), num_samples, digest)


def cut_whisper(encoder: Encoder, first: int, last: int) -> Encoder:
    """Move the layers below state `first` into the front end, and leave out those above `last`.

    `encoder` is trainable. What the front end gives of an utterance, state `first`, (batch, steps,
    width), is then computed once and cached; the network reads it and gives the states from `first`
    to `last`, (batch, steps, states, width). States are those of `build_whisper`.
    """
    record, whole = encoder.record, encoder.network
    if not isinstance(whole, keras.Model) or "whisper_conv_1" not in [x.name for x in whole.layers]:
        raise ValueError(f"{record.title} is not cut: load_encoder('whisper_base', trainable=True)")
    if not 0 <= first < last < record.num_layers:
        raise ValueError(
            f"first={first}, last={last}: {record.title} has the states 0 to "
            f"{record.num_layers - 1}; give two of them, the lower one first"
        )
    lower = build_whisper(record, last=first)
    upper = build_whisper(record, first=first, last=last, stacked=True)
    for layer in (*lower.layers, *upper.layers):
        if layer.weights:
            layer.set_weights(whole.get_layer(layer.name).get_weights())
    lower.trainable = False
    waveforms = keras.Input((None,), name="waveform")
    states = lower(encoder.front_end(waveforms))
    front_end = keras.Model(waveforms, states, name="front_end")
    digest = f"{encoder.digest}, layers {first} to {last}"
    return replace(encoder, front_end=front_end, network=upper, digest=digest)
