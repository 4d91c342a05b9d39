"""A recogniser's network as an ONNX graph or a LiteRT file, for programs without Keras.

Where the recipe ends in a log-mel spectrogram, that is part of an ONNX graph: it takes waveforms.
"""

import warnings
from pathlib import Path

import keras
import numpy as np

from common.features import FitLength, LogMel, build_mel_filters
from common.files import write_atomically
from common.graphs import OPSET, Graph, add_decibels, make_window
from common.networks import OnnxNetwork
from common.recipes import Recipe

LARGEST_DIFFERENCE = 1e-4  # from Keras, of a probability
DROPPED_BITS = 8  # of the 23 of a weight's mantissa, where a graph is to be compressed


def export_recognizer(recognizer, path: Path) -> None:
    """Write the network of a recogniser, as `EmotionRecognizer.export` says."""
    if path.suffix not in (".onnx", ".tflite"):
        raise ValueError(f"{path}: let its name end in .onnx or .tflite")
    if path.suffix == ".tflite":
        content = export_litert(recognizer.load_keras_model())
    elif isinstance(recognizer.network, OnnxNetwork):
        content = recognizer.network.graph
    else:
        content = export_onnx(recognizer.network, recognizer.recipe)
    with write_atomically(path) as temporary:
        temporary.write_bytes(content)
    for step in recognizer.recipe.describe()["steps"]:
        if step["step"] == "Embed":
            warnings.warn(
                f"{path} holds the head alone: feed it with the states of {step['encoder']} that "
                "compute_features gives of waveforms",
                stacklevel=3,
            )


def split_recipe(recipe: Recipe) -> tuple[Recipe, LogMel | None]:
    """Give the steps that stay outside of an ONNX graph, and the log-mel step that goes into it.

    It goes in where it is the last one, after a `FitLength`; None where the graph takes features.
    """
    *outer, last = recipe.steps
    if type(last) is LogMel and outer and isinstance(outer[-1], FitLength):
        return Recipe(outer, normalise=recipe.normalise), last
    return recipe, None


def export_onnx(model: keras.Model, recipe: Recipe, *, rounded: bool = False) -> bytes:
    """Write a network as an ONNX graph, "waveform" or "features" -> "probabilities".

    "waveform" is (batch, samples) after the steps of `split_recipe`, "features" what the whole
    recipe gives, (batch, frames, bands). With `rounded` weights keep 15 bits of mantissa: the last
    byte of each is 0, and compresses.

    Raises ValueError if the format cannot hold a layer, or the graph does not give what Keras
    gives: tf2onnx drops what it does not know of some layers.
    """
    import onnx
    import tensorflow
    import tf2onnx

    shape = model.input_shape[1:]
    portable = _make_portable(model)
    signature = tensorflow.TensorSpec((None, *shape), tensorflow.float32, name="features")
    call = tensorflow.function(lambda rows: portable(rows, training=False))
    try:
        graph, _ = tf2onnx.convert.from_function(call, (signature,), opset=OPSET)
    except Exception as error:  # whatever the converter raises
        raise _refuse(model, "ONNX", error) from error
    _rename_output(onnx, graph)
    _check(model, "ONNX", lambda rows: OnnxNetwork(graph.SerializeToString())(rows))
    log_mel = split_recipe(recipe)[1]
    if log_mel is not None:
        num_samples = round(recipe.find(FitLength).seconds * 16_000)
        front = _build_log_mel(log_mel, num_samples, graph.ir_version)
        link = (front.graph.output[0].name, "features")
        graph = onnx.compose.merge_models(front, graph, io_map=[link])
    if rounded:
        _round(onnx, graph)
    return graph.SerializeToString()


def export_litert(model: keras.Model) -> bytes:
    """Write a network as a LiteRT (.tflite) file: features (1, frames, bands) -> probabilities.

    Raises ValueError as `export_onnx` does.
    """
    import tensorflow
    from absl import logging
    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2 as freeze,
    )

    portable = _make_portable(model)
    signature = tensorflow.TensorSpec((1, *model.input_shape[1:]), tensorflow.float32)
    call = tensorflow.function(lambda rows: portable(rows, training=False))
    verbosity = logging.get_verbosity()
    try:
        logging.set_verbosity(logging.ERROR)  # it would rather have variables, which loops lose
        frozen = freeze(call.get_concrete_function(signature))
        converter = tensorflow.lite.TFLiteConverter.from_concrete_functions([frozen])
        content = converter.convert()
    except Exception as error:  # whatever the converter raises
        raise _refuse(model, "LiteRT", error) from error
    finally:
        logging.set_verbosity(verbosity)
    _check(model, "LiteRT", lambda rows: run_litert(content, rows))
    return content


def run_litert(content: bytes, rows: np.ndarray) -> np.ndarray:
    """Give the probabilities that a LiteRT file gives of rows, one by one."""
    import tensorflow

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "[\\s\\S]*tf.lite.Interpreter is deprecated")
        interpreter = tensorflow.lite.Interpreter(model_content=content)
    interpreter.allocate_tensors()
    given, found = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    results = []
    for row in np.asarray(rows, np.float32):
        interpreter.set_tensor(given["index"], row[None])
        interpreter.invoke()
        results.append(interpreter.get_tensor(found["index"])[0])
    return np.array(results)


def _refuse(model: keras.Model, kind: str, error: Exception) -> ValueError:
    kinds = sorted({type(layer).__name__ for layer in model._flatten_layers()})
    line = str(error).strip().split("\n")[0][:200]
    return ValueError(
        f"{model.name} cannot be written as {kind}: {line}; it has the layers {', '.join(kinds)}"
    )


def _check(model: keras.Model, kind: str, run) -> None:
    rows = np.random.default_rng(0).normal(size=(3, *model.input_shape[1:])).astype(np.float32)
    try:
        found = run(rows)
    except Exception as error:  # whatever the runtime raises
        raise _refuse(model, kind, error) from error
    largest = np.abs(found - keras.ops.convert_to_numpy(model(rows, training=False))).max()
    if not largest <= LARGEST_DIFFERENCE:
        problem = f"its probabilities are {largest:.2g} away from those of Keras"
        raise _refuse(model, kind, ValueError(problem))


def _make_portable(model: keras.Model) -> keras.Model:
    """Copy a model, its recurrent layers without cuDNN, its normalisation as plain arithmetic."""
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise ValueError(f"the Keras backend is {backend}; export under KERAS_BACKEND=tensorflow")

    def is_norm(layer: keras.Layer) -> bool:
        return isinstance(layer, keras.layers.Normalization)

    def copy(layer: keras.Layer) -> keras.Layer:
        config = layer.get_config()
        if is_norm(layer):
            mean, variance = map(keras.ops.convert_to_numpy, (layer.mean, layer.variance))
            std = np.maximum(np.sqrt(variance), 1e-7)
            return keras.layers.Rescaling(1 / std, offset=-mean / std, name=layer.name)
        inner = [config[name] for name in ("layer", "backward_layer") if config.get(name)]
        for settings in (config, *(part["config"] for part in inner)):
            if "use_cudnn" in settings:
                settings["use_cudnn"] = False
        return type(layer).from_config(config)

    portable = keras.models.clone_model(model, clone_function=copy, recursive=True)
    left = {id(w) for layer in model._flatten_layers() if is_norm(layer) for w in layer.weights}
    portable.set_weights([w.numpy() for w in model.weights if id(w) not in left])
    return portable


def _rename_output(onnx, graph) -> None:
    """Call the output "probabilities", and the first axis "batch"."""
    output = graph.graph.output[0]
    name, output.name = output.name, "probabilities"
    graph.graph.node.append(onnx.helper.make_node("Identity", [name], ["probabilities"]))
    for value in (graph.graph.input[0], output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"


def _build_log_mel(step: LogMel, num_samples: int, ir_version: int):
    """Write the step as a graph: waveform (batch, samples) -> (batch, frames, bands)."""
    graph, size, hop = Graph("log_mel"), step.fft_length, step.hop_length
    margin = (size - step.window_length) // 2
    window = np.pad(make_window(step.window_length), (margin, size - step.window_length - margin))
    filters = build_mel_filters(size, step.num_bands, step.fmin_hertz, step.fmax_hertz)
    padded = graph.add("Pad", "waveform", [0, size // 2, 0, size // 2])
    signal = graph.add("Unsqueeze", padded, [-1])
    spectrum = graph.add("STFT", signal, hop, window, size, onesided=1)
    power = graph.add("ReduceSumSquare", spectrum, axes=[3], keepdims=0)
    bands = graph.add("MatMul", power, np.ascontiguousarray(filters.T))
    output = add_decibels(graph, bands, step.range_db)
    shape = ("batch", 1 + num_samples // hop, step.num_bands)
    return graph.finish("waveform", ("batch", num_samples), output, shape, ir_version=ir_version)


def _round(onnx, graph) -> None:
    """Round weights so that the last byte of each is 0."""
    for tensor in graph.graph.initializer:
        value = onnx.numpy_helper.to_array(tensor)
        if value.dtype == np.float32:
            bits = value.view(np.uint32) + np.uint32(1 << (DROPPED_BITS - 1))
            bits &= ~np.uint32((1 << DROPPED_BITS) - 1)
            tensor.CopyFrom(onnx.numpy_helper.from_array(bits.view(np.float32), tensor.name))
