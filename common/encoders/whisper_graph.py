"""Whisper's encoder as an ONNX graph, from the waveform on: what `whisper` computes, without Keras.

Names are those of the weights. Recipes with it in them, as a recogniser follows them: their steps
compute what those of `features` and `extraction` do, and are described as those; Keras, TensorFlow
and librosa, which take seconds to import, are not.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
import onnx

from common import loudness
from common.audio import SAMPLE_RATE_HERTZ
from common.encoders.contract import Arrays, Encoder, EncoderRecord, Weights
from common.encoders.weights import digest_arrays, make_layer_network
from common.encoders.whisper_weights import (
    EPSILON,
    FRAME_LENGTH,
    HOP_LENGTH,
    NUM_BANDS,
    RECORDS,
    count_heads,
    get_whisper,
)
from common.features import Trim
from common.graphs import SMALLEST_POWER, Graph, add_decibels, make_window
from common.networks import OnnxNetwork
from common.recipes import Recipe, Step


class WhisperGraph(Graph):
    """A graph whose nodes read the encoder's arrays by name."""

    def __init__(self, arrays: Arrays) -> None:
        super().__init__("whisper")
        self.arrays = arrays

    def front_end(self, waveform: str) -> str:
        """Make a log-mel spectrogram: (samples,), more than 200 -> (1, samples // 160, bands).

        The Fourier transform is a convolution: for 400 points it is closer to the exact one, and
        quicker, than onnxruntime's STFT.
        """
        turns = np.outer(np.arange(FRAME_LENGTH // 2 + 1), np.arange(FRAME_LENGTH)) / FRAME_LENGTH
        waves = make_window(FRAME_LENGTH) * np.exp(-2j * np.pi * turns)
        kernels = np.concatenate([waves.real, waves.imag])[:, None]
        margin = FRAME_LENGTH // 2
        margins = [0, 0, margin, 0, 0, margin - HOP_LENGTH]  # so that the last frame is left out
        row = self.add("Unsqueeze", waveform, [0, 1])
        padded = self.add("Pad", row, margins, mode="reflect")
        lengths = {"kernel_shape": [FRAME_LENGTH], "strides": [HOP_LENGTH]}
        parts = self.add("Transpose", self.add("Conv", padded, kernels, **lengths), perm=[0, 2, 1])
        filters = np.tile(build_mel_filters().T, (2, 1))  # squares of both parts are summed
        power = self.add("MatMul", self.add("Mul", parts, parts), filters)
        decibels = add_decibels(self, power, 80.0)
        return self.add("Div", self.add("Add", self.add("Div", decibels, 10.0), 4.0), 4.0)

    def conv(self, x: str, name: str, stride: int) -> str:
        settings = {"kernel_shape": [3], "pads": [1, 1], "strides": [stride]}
        weights = (self.arrays[f"{name}.{part}"] for part in ("weight", "bias"))
        return self.gelu(self.add("Conv", x, *weights, **settings))

    def gelu(self, x: str) -> str:
        erf = self.add("Erf", self.add("Div", x, np.sqrt(2)))
        return self.add("Mul", self.add("Mul", x, self.add("Add", erf, 1.0)), 0.5)

    def dense(self, x: str, name: str) -> str:
        x = self.add("MatMul", x, np.ascontiguousarray(self.arrays[f"{name}.weight"].T))
        bias = self.arrays.get(f"{name}.bias")  # the keys of the attention have none
        return x if bias is None else self.add("Add", x, bias)

    def norm(self, x: str, name: str) -> str:
        weights = (self.arrays[f"{name}.{part}"] for part in ("weight", "bias"))
        return self.add("LayerNormalization", x, *weights, axis=-1, epsilon=EPSILON)

    def attention(self, x: str, name: str, width: int) -> str:
        size = width // (num_heads := count_heads(width))
        q, k, v = (
            self.add("Reshape", self.dense(x, f"{name}.{part}_proj"), [0, 0, num_heads, size])
            for part in "qkv"
        )
        query, value = (self.add("Transpose", part, perm=[0, 2, 1, 3]) for part in (q, v))
        scores = self.add("MatMul", query, self.add("Transpose", k, perm=[0, 2, 3, 1]))
        shares = self.add("Softmax", self.add("Div", scores, np.sqrt(size)), axis=-1)
        heard = self.add("Transpose", self.add("MatMul", shares, value), perm=[0, 2, 1, 3])
        return self.dense(self.add("Reshape", heard, [0, 0, width]), f"{name}.out_proj")

    def layer(self, x: str, name: str, width: int) -> str:
        y = self.attention(self.norm(x, f"{name}.self_attn_layer_norm"), f"{name}.self_attn", width)
        x = self.add("Add", x, y)
        y = self.gelu(self.dense(self.norm(x, f"{name}.final_layer_norm"), f"{name}.fc1"))
        return self.add("Add", x, self.dense(y, f"{name}.fc2"))


def build_graph(
    arrays: Arrays, record: EncoderRecord, *, last: int | None = None
) -> onnx.ModelProto:
    """Write the encoder as a graph: a waveform (samples,) at 16 kHz -> (states, steps, width).

    States are those of `whisper.build_whisper`, from 0 to `last`, None: all.
    """
    width, num_layers = record.num_dimensions // 2, record.num_layers - 1
    last = num_layers if last is None else last
    graph = WhisperGraph(arrays)
    x = graph.add("Transpose", graph.front_end("waveform"), perm=[0, 2, 1])
    x = graph.conv(graph.conv(x, "conv1", 1), "conv2", 2)
    x = graph.add("Transpose", x, perm=[0, 2, 1])
    num_steps = graph.add("Shape", x, start=1, end=2)
    positions = graph.add("Slice", arrays["embed_positions.weight"], [0], num_steps)
    states = [graph.add("Add", x, positions)]
    for number in range(last):
        states.append(graph.layer(states[-1], f"layers.{number}", width))
    if last == num_layers:
        states[-1] = graph.norm(states[-1], "layer_norm")
    output = graph.add("Concat", *states, axis=0)
    return graph.finish("waveform", ("samples",), output, (last + 1, "steps", width))


def load_portable(
    record: EncoderRecord, weights: Weights, num_samples: int, *, last: int | None = None
) -> Encoder:
    """Load the frozen encoder as `whisper.load` does, run by onnxruntime, up to state `last`."""
    record, arrays = get_whisper(record, weights, num_samples)
    graph = build_graph(arrays, record, last=last).SerializeToString()
    compute_states = OnnxNetwork(graph, made_by=(build_graph, add_decibels, get_whisper))
    network = make_layer_network(compute_states, record)
    return Encoder(record, None, network, num_samples, digest_arrays(arrays))


def build_mel_filters() -> np.ndarray:
    """Slaney's mel triangles of unit area up to 8 kHz, (bands, bins), without librosa's imports.

    Below 1 kHz a mel is 66.7 Hz, above it 27 of them are a factor of 6.4.
    """
    mels = np.linspace(0, 15 + 27 * np.log(8) / np.log(6.4), NUM_BANDS + 2)
    hertz = np.where(mels < 15, mels * 200 / 3, 1000 * 6.4 ** ((mels - 15) / 27))[:, None]
    bins = np.fft.rfftfreq(FRAME_LENGTH, 1 / SAMPLE_RATE_HERTZ)
    low, peak, high = hertz[:-2], hertz[1:-1], hertz[2:]
    triangles = np.minimum((bins - low) / (peak - low), (high - bins) / (high - peak))
    return np.maximum(triangles, 0) * 2 / (high - low)


PORTABLE = {record.name: record for record in RECORDS}
THEN = [  # the steps that follow one of `FIRST`, in their order; the last may be missing
    ("Embed", {"encoder", "weights", "num_samples"}),
    ("SelectLayers", {"numbers"}),
]


@dataclass(frozen=True)
class QuickTrim(Trim):
    """`Trim` by the frames of `loudness`."""

    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        levels = np.maximum(loudness.measure_frames(waveform), 10 * np.log10(SMALLEST_POWER))
        active = np.flatnonzero(loudness.find_speech(levels, range_db=self.top_db))
        hop = loudness.HOP_LENGTH
        kept = waveform[active[0] * hop : (active[-1] + 1) * hop]
        return kept if len(kept) else waveform

    def describe(self, *, changed: bool = False) -> dict:
        return Trim(self.top_db).describe(changed=changed)


FIRST = {"Trim": QuickTrim, "Level": loudness.Level}


@dataclass(frozen=True)
class Counterpart(Step):
    """A step that computes what the one of that description does; of a recording `seconds_kept`."""

    description: dict
    compute: Callable[[np.ndarray], np.ndarray]
    seconds_kept: float | None = None

    def __call__(self, values: np.ndarray) -> np.ndarray:
        return self.compute(values)

    def describe(self, *, changed: bool = False) -> dict:
        return dict(self.description)


def is_portable(description: dict) -> bool:
    """Whether `make_recipe` makes the recipe of that description."""
    steps = description["steps"]
    begins = [(name, {field.name for field in fields(kind)}) for name, kind in FIRST.items()]
    found = [(step.get("step"), step.keys() - {"step"}) for step in steps]
    whole = found[:1] in [[begin] for begin in begins] and found[1:] in (THEN[:1], THEN)
    return whole and "normalise" in description and steps[1]["encoder"] in PORTABLE


def make_recipe(description: dict) -> Recipe:
    """Make a recipe as `Recipe.from_description` does, of those that are portable.

    Layers of Whisper above the last that it reads are left out. Raises ValueError if its weights
    cannot be had, or are not those that the recipe names.
    """
    first, embed, *select = description["steps"]
    record, num_samples = PORTABLE[embed["encoder"]], embed["num_samples"]
    numbers = [number for step in select for number in step["numbers"]]
    whole = not numbers or min(numbers) < 0
    last = None if whole else min(max(numbers), record.num_layers - 1)
    needed = f"the model reads {record.title} with the weights {embed['weights']}"
    try:
        encoder = load_portable(record, "published", num_samples, last=last)
    except (OSError, ImportError) as error:
        raise ValueError(f"{needed}, which could not be loaded ({error})") from error
    if encoder.digest != embed["weights"]:
        raise ValueError(
            f"{needed}, but {record.path} holds {encoder.digest}; delete it to fetch what is "
            "published, or give the right one, encoder=load_encoder(…)"
        )
    settings = dict(first)
    steps = [FIRST[settings.pop("step")](**settings)]
    steps.append(Counterpart(embed, encoder.embed, num_samples / SAMPLE_RATE_HERTZ))
    steps += [Counterpart(step, lambda values: values[numbers]) for step in select]
    return Recipe(steps, normalise=bool(description["normalise"]))
