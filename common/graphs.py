"""Writing ONNX graphs by hand, for onnxruntime to run without Keras."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
SMALLEST_POWER = 1e-10  # librosa's, for decibels


class Graph:
    """Nodes in the order in which they compute; what is no name of a node becomes a constant."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[TensorProto] = []

    def add(self, operator: str, *inputs, **attributes) -> str:
        """Append a node; give the name of its output."""
        names = [value if isinstance(value, str) else self._keep(value) for value in inputs]
        output = f"{self.prefix}/{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, names, [output], **attributes))
        return output

    def finish(
        self, name: str, shape: tuple, output: str, output_shape: tuple, *, ir_version: int = 8
    ) -> onnx.ModelProto:
        """Give the model that computes `output` of the input called `name`, both float32.

        Shapes hold numbers, or names for what may be any.
        """
        given = helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        found = helper.make_tensor_value_info(output, TensorProto.FLOAT, output_shape)
        made = helper.make_graph(self.nodes, self.prefix, [given], [found], self.constants)
        opsets = [helper.make_opsetid("", OPSET)]
        return helper.make_model(made, opset_imports=opsets, ir_version=ir_version)

    def _keep(self, value) -> str:
        array = np.asarray(value)
        array = array.astype(np.int64 if array.dtype.kind == "i" else np.float32)
        name = f"{self.prefix}/constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name


def make_window(length: int) -> np.ndarray:
    """A periodic Hann window, (length,)."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)


def add_decibels(graph: Graph, power: str, range_db: float) -> str:
    """Decibels of the power in bands, (batch, frames, bands).

    Values more than `range_db` below the loudest one of an utterance are raised to that floor.
    """
    logarithms = graph.add("Log", graph.add("Max", power, SMALLEST_POWER))
    levels = graph.add("Mul", logarithms, 10 / np.log(10))
    loudest = graph.add("ReduceMax", levels, axes=[1, 2], keepdims=1)
    return graph.add("Max", levels, graph.add("Sub", loudest, range_db))
