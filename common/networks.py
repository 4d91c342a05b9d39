"""What runs a network: onnxruntime a graph, or Keras a model."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec

import numpy as np

BATCH = 64  # rows that a Keras model is given at once
PARTS = ("onnxruntime", "onnx", "safetensors")  # which run Whisper's encoder without Keras


def list_missing() -> list[str]:
    """Packages that are missing of those that run Whisper's encoder without Keras."""
    return [name for name in PARTS if find_spec(name) is None]


class OnnxNetwork:
    """A graph that onnxruntime runs: rows of what `reads` names -> class probabilities.

    `reads` is "waveform", (batch, samples), where the graph makes the log-mel spectrogram itself,
    or "features", as the whole recipe gives them. `made_by` are functions whose code
    decides what the graph computes.
    """

    def __init__(self, graph: bytes, *, made_by: Sequence[Callable] = ()) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self.graph, self.made_by = graph, [*made_by]
        self.session = onnxruntime.InferenceSession(graph, options, ["CPUExecutionProvider"])
        self.reads = self.session.get_inputs()[0].name

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        return self.session.run(None, {self.reads: np.asarray(rows, np.float32)})[0]


def run_network(network: Callable, rows: np.ndarray) -> np.ndarray:
    """Give the class probabilities (rows, classes) of a Keras model or an `OnnxNetwork`."""
    if isinstance(network, OnnxNetwork):
        return network(rows)
    if not len(rows):
        return np.zeros((0, network.output_shape[-1]), np.float32)
    # Keras's own loop over batches takes a tenth of a second to set up.
    batches = np.split(rows, range(BATCH, len(rows), BATCH))
    return np.concatenate([network.predict_on_batch(batch) for batch in batches])
