"""The steps from a recording to the samples that a network reads, as an ONNX graph.

With them in front a graph takes a waveform of any length, in a browser or a program without Python.
"""

from collections.abc import Callable

import onnx
from onnx import TensorProto, compose, helper

from common import loudness
from common.audio import SAMPLE_RATE_HERTZ
from common.features import FitLength, Trim
from common.graphs import SMALLEST_POWER, Graph
from common.recipes import Recipe

SMALLEST_PROBABILITY = 1e-12


def build_front_end(recipe: Recipe) -> onnx.ModelProto:
    """Write a recipe as a graph: "waveform" (samples,) at 16 kHz -> "kept", (1, samples).

    Raises ValueError if a step has no counterpart here: `COUNTERPARTS` has those that do.
    """
    graph, name = Graph("front_end"), "waveform"
    for step in recipe.steps:
        if type(step) not in COUNTERPARTS:
            known = ", ".join(kind.__name__ for kind in COUNTERPARTS)
            raise ValueError(f"{type(step).__name__} has no ONNX counterpart; {known} have")
        name = COUNTERPARTS[type(step)](graph, step, name)
    output = graph.add("Unsqueeze", name, [0])
    model = graph.finish("waveform", ("samples",), output, (1, "kept"))
    onnx.checker.check_model(model)
    return model


def join_network(
    front_end: onnx.ModelProto, network: onnx.ModelProto, *, temperature: float = 1.0
) -> onnx.ModelProto:
    """Let a network, as `exporting.export_onnx` writes it, read what a front end keeps.

    Gives one graph, "waveform" (samples,) -> "probabilities" (1, classes), calibrated.
    """
    network.ir_version = front_end.ir_version
    network = compose.add_prefix(network, "network/")
    [source], [sink] = network.graph.input, network.graph.output
    link = (front_end.graph.output[0].name, source.name)
    joined = compose.merge_models(front_end, network, io_map=[link])
    end = Graph("calibration")
    logarithms = end.add("Log", end.add("Max", sink.name, SMALLEST_PROBABILITY))
    scaled = end.add("Div", logarithms, temperature)
    joined.graph.node.extend(end.nodes)
    joined.graph.node.append(helper.make_node("Softmax", [scaled], ["probabilities"], axis=1))
    joined.graph.initializer.extend(end.constants)
    joined.graph.output[0].name = "probabilities"
    onnx.checker.check_model(joined)
    return joined


def _measure_power(graph: Graph, waveform: str, quietest: float) -> str:
    """Mean power of frames of 1024 samples, centred on every 256th: (1, 1, frames)."""
    row = graph.add("Unsqueeze", graph.add("Mul", waveform, waveform), [0, 1])
    margin = loudness.FRAME_LENGTH // 2
    padded = graph.add("Pad", row, [0, 0, margin, 0, 0, margin])
    window = {"kernel_shape": [loudness.FRAME_LENGTH], "strides": [loudness.HOP_LENGTH]}
    return graph.add("Max", graph.add("AveragePool", padded, **window), quietest)


def _find_active(graph: Graph, power: str, range_db: float) -> str:
    floor = graph.add("Mul", graph.add("ReduceMax", power, keepdims=0), 10 ** (-range_db / 10))
    return graph.add("Greater", power, floor)


def _cut_ends(graph: Graph, waveform: str, active: str) -> str:
    """Keep what lies between the first and the last active frame."""
    places = graph.add("Slice", graph.add("NonZero", active), [2], [3])
    first = graph.add("ReduceMin", places, axes=[1], keepdims=0)
    last = graph.add("ReduceMax", places, axes=[1], keepdims=0)
    start = graph.add("Mul", first, [loudness.HOP_LENGTH])
    end = graph.add("Mul", graph.add("Add", last, [1]), [loudness.HOP_LENGTH])
    return graph.add("Slice", waveform, start, end, [0])


def _add_trim(graph: Graph, step: Trim, waveform: str) -> str:
    power = _measure_power(graph, waveform, SMALLEST_POWER)
    return _cut_ends(graph, waveform, _find_active(graph, power, step.top_db))


def _add_level(graph: Graph, step: loudness.Level, waveform: str) -> str:
    power = _measure_power(graph, waveform, loudness.TINY)
    active = _find_active(graph, power, step.range_db)
    counted = graph.add("Cast", active, to=TensorProto.FLOAT)
    total = graph.add("ReduceSum", graph.add("Mul", power, counted), keepdims=0)
    mean = graph.add("Div", total, graph.add("ReduceSum", counted, keepdims=0))
    audible = graph.add("Max", mean, 10 ** (step.floor_db / 10))
    gain = graph.add("Sqrt", graph.add("Div", 10 ** (step.target_db / 10), audible))
    return graph.add("Mul", _cut_ends(graph, waveform, active), gain)


def _add_fit_length(graph: Graph, step: FitLength, waveform: str) -> str:
    wanted = round(step.seconds * SAMPLE_RATE_HERTZ)
    surplus = graph.add("Sub", graph.add("Shape", waveform), [wanted])
    start = graph.add("Div", graph.add("Max", surplus, [0]), [2])
    middle = graph.add("Slice", waveform, start, graph.add("Add", start, [wanted]), [0])
    missing = graph.add("Max", graph.add("Neg", surplus), [0])
    before = graph.add("Div", missing, [2])
    padding = graph.add("Concat", before, graph.add("Sub", missing, before), axis=0)
    return graph.add("Pad", middle, padding)


COUNTERPARTS: dict[type, Callable[[Graph, object, str], str]] = {
    loudness.Level: _add_level,
    Trim: _add_trim,
    FitLength: _add_fit_length,
}
