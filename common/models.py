"""What is asked of a model: its contract, its name, how it is saved and opened again."""

import io
import json
import random
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest.mock import patch

import h5py
import keras
import numpy as np
from keras.src.random import seed_generator

import common.layers  # noqa: F401 - saved models may hold any of them
from common.files import digest, write_atomically
from common.sources import spell_code

BuildModel = Callable[[tuple[int, ...], int], keras.Model]
NAME_KEYS = ("name", "keras_history", "input_layers", "output_layers")


def build_seeded(
    build_model: BuildModel, input_shape: Sequence[int], num_classes: int, *, seed: int
) -> keras.Model:
    """Build a model whose initial weights and dropout follow `seed`, and nothing else does.

    Not even another thread that draws from `random` meanwhile, as those of Dask's workers do.
    """
    own, state = random.Random(seed), random.getstate()
    random.seed(seed)  # for a `build_model` that draws from it
    try:
        with patch.object(seed_generator, "python_random", own):  # seeds of layers come from it
            model = build_model(tuple(input_shape), num_classes)
            if not model.built:  # a Sequential model without keras.Input
                model.build((None, *input_shape))
        return model
    finally:
        random.setstate(state)


def _compute(model: keras.Model, rows: np.ndarray) -> np.ndarray:
    """Compute by the quicker way for a few rows: TensorFlow need not trace what is called once."""
    if keras.backend.backend() == "tensorflow":
        return keras.ops.convert_to_numpy(model(rows, training=False))
    return model.predict_on_batch(rows)


def check_model(model: keras.Model, input_shape: Sequence[int], num_classes: int) -> None:
    """Raise ValueError, before training, unless a model would serve after it.

    It must give one probability per class, which sum to 1, also once saved and loaded safely.
    """
    rows = np.random.default_rng(0).normal(size=(2, *input_shape)).astype(np.float32)
    probabilities = _compute(model, rows)
    if probabilities.shape != (2, num_classes):
        raise ValueError(
            f"{model.name} gives {probabilities.shape[1:]} for an utterance, and ({num_classes},) "
            "is needed: end it in Dense(num_classes, activation='softmax')"
        )
    if probabilities.min() < 0 or not np.allclose(probabilities.sum(axis=1), 1, atol=1e-3):
        raise ValueError(
            f"{model.name} ends in numbers that are no probabilities (they sum to "
            f"{probabilities.sum(axis=1)[0]:.3g}): end it in a softmax"
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.keras")
        try:
            model.save(path)
            again = _compute(keras.models.load_model(path), rows)
        except Exception as error:  # whatever a layer that cannot be saved raises
            raise ValueError(
                f"{model.name} cannot be saved and loaded ({error}): give a layer of your own a "
                "get_config and @keras.saving.register_keras_serializable(), and use keras "
                "layers and ops in the place of Lambda"
            ) from error
    if not np.allclose(probabilities, again, atol=1e-4):
        raise ValueError(
            f"{model.name} answers otherwise once it was saved and loaded: build all weights of a "
            "layer of your own in its build method"
        )


def save_model(model: keras.Model, mean: np.ndarray, std: np.ndarray, path: Path) -> None:
    """Save a model that takes features as extracted: its first layer normalises them.

    `mean` and `std` have shape (bands,). The optimiser is not saved, if the model was not compiled.
    """
    inputs = keras.Input(model.input_shape[1:], name="features")
    normalise = keras.layers.Normalization(axis=-1, mean=mean, variance=std**2, name="normalise")
    with write_atomically(path) as temporary:
        keras.Model(inputs, model(normalise(inputs)), name=model.name).save(temporary)


def halve_precision(path: Path) -> None:
    """Write the weights in a `.keras` file in half precision, compressed."""
    with zipfile.ZipFile(path) as source:
        parts = {name: source.read(name) for name in source.namelist()}
    parts["model.weights.h5"] = _halve_floats(parts["model.weights.h5"])
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name, content in parts.items():
            target.writestr(name, content)


def _halve_floats(weights: bytes) -> bytes:
    """Copy an HDF5 file, its floats in 16 bits."""
    halved = io.BytesIO()
    with h5py.File(io.BytesIO(weights)) as source, h5py.File(halved, "w") as target:

        def copy(name: str, item: h5py.Group | h5py.Dataset) -> None:
            if isinstance(item, h5py.Group):
                target.create_group(name).attrs.update(item.attrs)
            elif item.dtype == np.float32:
                target[name] = item[()].astype(np.float16)
            else:
                source.copy(item, target, name)

        source.visititems(copy)
    return halved.getvalue()


def look_inside(model: keras.Model, *names: str) -> keras.Model:
    """Open a saved model: features as extracted -> the outputs of some layers of its network.

    Raises ValueError, with the names that there are, if the network has no such layer.
    """
    normalise, network = model.get_layer("normalise"), model.layers[-1]
    known = [layer.name for layer in network.layers]
    if unknown := set(names) - set(known):
        raise ValueError(f"no layer {sorted(unknown)} in {network.name}; it has {known}")
    inside = keras.Model(network.inputs, [network.get_layer(name).output for name in names])
    inputs = keras.Input(model.input_shape[1:])
    return keras.Model(inputs, inside(normalise(inputs)))


def compute_attention(model: keras.Model, values: np.ndarray, *, layer: str) -> np.ndarray:
    """How much attention the steps of some utterances get, shape (rows, steps), summing to 1.

    `model` is as `Run.load_model` gives it, `values` are features as extracted, shape (rows,
    frames, bands). `layer` names an `AttentionPooling` in the network, whose weights these are, or
    a MultiHeadAttention over its own steps: the mean over heads and over the steps that look.
    "outer/inner" names one within a model that is a layer of the network.
    """
    part, steps = model.layers[-1], model.get_layer("normalise")(values)
    for name in layer.split("/"):
        whole, part = part, part.get_layer(name)
        given = keras.Operation.input.fget(part)  # as called, also of a model: what it reads here
        given = given[0] if isinstance(given, (list, tuple)) else given
        steps = keras.Model(whole.inputs, given)(steps)
    if isinstance(part, keras.layers.MultiHeadAttention):
        _, scores = part(steps, steps, return_attention_scores=True)
        return keras.ops.convert_to_numpy(scores).mean(axis=(1, 2))
    return keras.ops.convert_to_numpy(part.compute_weights(steps))[..., 0]


def describe_model(model: keras.Model) -> str:
    """Digest of an architecture: its layers and settings, and the code of custom layers.

    Names that Keras numbers, module paths, comments and docstrings do not count.
    """
    parts = list(model._flatten_layers())
    operations = [step for part in parts for step in getattr(part, "operations", ())]
    steps = {id(step) for step in operations}
    numbers: dict[tuple[bool, str], str] = {}  # a layer inside another may share a step's name
    for part in [*parts, *operations]:
        numbers.setdefault((id(part) in steps, part.name), f"part_{len(numbers)}")
    names = {name: number for (_, name), number in sorted(numbers.items())}  # steps prevail

    def rename(value, *, is_name: bool = False):
        if isinstance(value, dict):
            kept = value.keys() - {"module", "registered_name"}
            return {key: rename(value[key], is_name=key in NAME_KEYS) for key in kept}
        if isinstance(value, (list, tuple)):
            return [rename(item, is_name=is_name) for item in value]
        return names.get(value, value) if is_name and isinstance(value, str) else value

    kinds = {kind for part in parts for kind in type(part).__mro__}
    layers = [kind for kind in kinds if issubclass(kind, keras.Layer)]
    own = [kind for kind in layers if not kind.__module__.startswith("keras")]
    config = json.loads(json.dumps(model.get_config(), default=str))
    return digest([rename(config), sorted(map(spell_code, own))])
