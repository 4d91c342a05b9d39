"""A recogniser's file: what is in it, and what of it runs on onnxruntime or on Keras."""

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from common.files import write_atomically
from common.networks import PARTS, OnnxNetwork, list_missing
from common.recipes import Recipe, Step

FACTS, GRAPH, VOICES = "recognizer.json", "model.onnx", "voices.npz"
VOICE_ARRAYS = ("mean", "variance", "kernel", "bias", "temperature")
RUNTIMES = ("onnxruntime", "keras")
REMEDY = "name small, whisper or a file that EmotionRecognizer.save wrote"


@dataclass(frozen=True)
class Contents:
    """What a recogniser's file holds beside the Keras model."""

    facts: dict
    writer: str
    graph: bytes | None
    voices: dict[str, np.ndarray] | None


def read_contents(path: Path) -> Contents:
    """Read all but the Keras model.

    Raises FileNotFoundError if there is no such file, ValueError if it is no recogniser.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such recogniser; {REMEDY}")
    try:
        with zipfile.ZipFile(path) as file:
            facts = json.loads(file.read(FACTS))
            writer = json.loads(file.read("metadata.json"))["keras_version"]
            names = file.namelist()
            graph = file.read(GRAPH) if GRAPH in names else None
            voices = None
            if VOICES in names:
                with np.load(io.BytesIO(file.read(VOICES)), allow_pickle=False) as arrays:
                    voices = {name: arrays[name].astype(np.float32) for name in arrays}
        _check_facts(facts, voices)
    except Exception as error:  # whatever a file of another kind raises
        raise ValueError(f"{path} is not a recogniser ({error}); {REMEDY}") from error
    return Contents(facts, writer, graph, voices)


def load_network(path: Path, contents: Contents, runtime: str | None) -> Callable:
    """Load the network of a recogniser for one of `RUNTIMES`; None: the first that can run it.

    Raises ValueError if that runtime is unknown, is not installed or has no graph in the file, or
    the model is broken or cannot be read by this Keras; ImportError if nothing can run it.
    """
    if runtime not in (None, *RUNTIMES):
        raise ValueError(f"runtime={runtime!r} is unknown; choose from {RUNTIMES}, or None")
    able = contents.graph is not None and find_spec("onnxruntime") is not None
    if runtime == "onnxruntime" and not able:
        lacking = "is not installed" if contents.graph else "has no graph in this file"
        raise ValueError(f"{path}: onnxruntime {lacking}; use runtime='keras'")
    needed = len(contents.facts["emotions"])
    if able and runtime != "keras":
        try:
            network = OnnxNetwork(contents.graph)
        except Exception as error:  # whatever onnxruntime raises
            told = str(error).split("\n")[0][:200]
            raise ValueError(f"{path}: a damaged graph ({told}); use runtime='keras'") from error
        _check_outputs(path, network.session.get_outputs()[0].shape[-1], needed)
        return network
    if find_spec("keras") is None:
        use = " or, for onnxruntime, requirements-use.txt" * (contents.graph is not None)
        raise ImportError(f"{path}: Keras is not installed; pip install -r requirements.lock{use}")
    import keras

    import common.layers  # noqa: F401 - saved models may hold any of them

    try:
        model = keras.models.load_model(path)
    except Exception as error:
        first = str(error).split("\n")[0][:200]
        raise ValueError(
            f"{path}: saved by Keras {contents.writer}, and Keras {keras.__version__} cannot read "
            f"it ({first}); install that version, or save it anew"
        ) from error
    if not all(np.isfinite(weights).all() for weights in model.get_weights()):
        raise ValueError(f"{path}: weights that are not finite; train and save it anew")
    _check_outputs(path, model.output_shape[-1], needed)
    return model


def _check_facts(facts: dict, voices: dict | None) -> None:
    """Raise ValueError, or what a lookup does, unless a network can be used by these facts."""
    for name in VOICE_ARRAYS if voices is not None else ():
        if not np.isfinite(voices[name]).all():
            raise ValueError(f"{name} of voices is not finite")
    emotions, temperature = facts["emotions"], facts.get("temperature", 1.0)
    if not isinstance(emotions, list) or not emotions or len(set(emotions)) < len(emotions):
        raise ValueError(f"emotions {emotions!r}")
    if not 0 < temperature < np.inf:
        raise ValueError(f"temperature {temperature!r}")
    if not all(isinstance(step, dict) for step in facts["recipe"]["steps"]):
        raise ValueError("steps of the recipe without settings")


def _check_outputs(path: Path, found: int, needed: int) -> None:
    if found != needed:
        raise ValueError(f"{path}: {found} outputs and {needed} emotions; save it anew")


def load_recipe(description: dict, encoder, runtime: str | None) -> Recipe:
    """Make the recipe of a recogniser; with Whisper in it onnxruntime runs that too.

    `encoder` is one of one's own, None: what is published; `runtime` as in `load_network`. Steps
    that hold encoders take seconds to import, and most recipes need none.

    Raises ValueError if the encoder is not the one that is described, could not be loaded or cannot
    be run so; ImportError if nothing can run it.
    """
    kinds = {step.get("step") for step in description["steps"]}
    if "Embed" in kinds and encoder is None and runtime != "keras":
        if not (missing := list_missing()):
            from common.encoders.portable import is_portable, make_recipe

            if is_portable(description):
                return make_recipe(description)
        elif runtime == "onnxruntime":
            raise ValueError(f"{missing[0]} is not installed; use runtime='keras'")
    if not kinds <= Step.KINDS.keys():
        if find_spec("keras") is None:
            raise ImportError(
                "the encoder that it reads needs Keras: pip install -r requirements.lock; Whisper "
                f"does without where {', '.join(PARTS)} are: pip install -r requirements-use.txt"
            )
        import common.encoders.extraction  # noqa: F401
    return Recipe.from_description(description, encoder=encoder)


def write_contents(
    path: Path, model, facts: dict, recipe, voices: dict[str, np.ndarray] | None, *, portable: bool
) -> None:
    """Write a Keras model and what belongs to it as one `.keras` file.

    With `portable` its weights are written in half precision, and beside them is the same network
    as a graph for onnxruntime.
    """
    with write_atomically(path) as temporary:
        model.save(temporary)
        added = {FACTS: json.dumps(facts).encode()}
        if voices is not None:
            content = io.BytesIO()
            np.savez(content, **voices)
            added[VOICES] = content.getvalue()
        if portable:
            import keras

            from common.exporting import export_onnx
            from common.models import halve_precision

            halve_precision(temporary)
            added[GRAPH] = export_onnx(keras.models.load_model(temporary), recipe, rounded=True)
        with zipfile.ZipFile(temporary, "a", zipfile.ZIP_DEFLATED) as file:
            for name, content in added.items():
                file.writestr(name, content)
