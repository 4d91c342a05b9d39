"""A recogniser's file: what is in it, and what of it runs on onnxruntime or on Keras."""

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from common.audio import LONGEST_SECONDS, SAMPLE_RATE_HERTZ
from common.files import write_atomically
from common.networks import PARTS, OnnxNetwork, list_missing
from common.recipes import Recipe, Step
from common.sources import is_common

FACTS, GRAPH, VOICES = "recognizer.json", "model.onnx", "voices.npz"
VOICE_ARRAYS = ("mean", "variance", "kernel", "bias", "temperature")
RUNTIMES = ("onnxruntime", "keras")
REMEDY = "name small, whisper or a file that EmotionRecognizer.save wrote"
# 1.27 s, as long as nothing that a network reads, so that a recipe without FitLength is told.
TONE = (0.3 * np.sin(0.08 * np.arange(SAMPLE_RATE_HERTZ + 4_321))).astype(np.float32)


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

    Raises ValueError if that runtime is unknown, is not installed or has no graph in the file, the
    model is broken or cannot be read by this Keras, or the recipe does not give what it reads;
    ImportError if nothing can run it.
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
        shape, inside = network.session.get_inputs()[0].shape[1:], network.reads == "waveform"
        _check_inputs(path, contents.facts["recipe"], tuple(shape), inside=inside)
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
    _check_inputs(path, contents.facts["recipe"], model.input_shape[1:], inside=False)
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
    steps = facts["recipe"]["steps"]
    if not steps or not all(isinstance(step, dict) for step in steps):
        raise ValueError("a recipe without steps, or steps of the recipe without settings")
    for step in steps:
        _check_step(**step)


def _check_step(step: str, **settings) -> None:
    """Refuse a step of this library with settings that it cannot have, or for an endless sound."""
    kind = Step.KINDS.get(step)
    if kind is not None and not is_common(kind):
        return
    for name, value in settings.items():
        longest = LONGEST_SECONDS * (1 if name.endswith("seconds") else SAMPLE_RATE_HERTZ)
        fits = isinstance(value, int | float) and 0 < value <= longest
        if not fits and (name.endswith("seconds") or name.startswith("num_")):
            raise ValueError(f"{step} with {name} {value!r}; above 0 and up to {longest:g} can be")
    if kind is not None and "encoder" not in settings:
        kind.from_settings(settings, None)


def _check_outputs(path: Path, found: int, needed: int) -> None:
    if found != needed:
        raise ValueError(f"{path}: {found} outputs and {needed} emotions; save it anew")


def _check_inputs(path: Path, description: dict, needed: tuple, *, inside: bool) -> None:
    """Raise ValueError unless the recipe makes of a tone what the network reads.

    `needed` is its shape, where numbers alone count; `inside`: the last step is in the network.
    Recipes with an encoder, or steps that are not known yet, are left to `load_recipe`.
    """
    steps = description["steps"]
    if any(step["step"] not in Step.KINDS or "encoder" in step for step in steps):
        return
    try:
        recipe = Recipe.from_description(description)
        values = np.asarray(replace(recipe, steps=recipe.steps[: len(steps) - inside])(TONE))
        whole = bool(np.isfinite(values).all())
    except Exception as error:  # whatever a step raises
        raise ValueError(f"{path}: a recipe that cannot be followed ({error}); {REMEDY}") from error
    sizes = zip(needed, values.shape, strict=False)
    alike = all(size == found for size, found in sizes if isinstance(size, int))
    if not whole or not alike or len(needed) != values.ndim:
        told = f"{values.shape}" if whole else "numbers that are not finite"
        raise ValueError(f"{path}: its recipe gives {told}, its network reads {needed}; {REMEDY}")


def load_recipe(description: dict, encoder, runtime: str | None) -> Recipe:
    """Make the recipe of a recogniser; with Whisper in it onnxruntime runs that too.

    `encoder` is one of one's own, None: what is published; `runtime` as in `load_network`. Steps
    that hold encoders take seconds to import, and most recipes need none.

    Raises ValueError if the encoder is not the one that is described, could not be loaded or cannot
    be run so, or another step fails with it; ImportError if nothing can run it.
    """
    kinds = {step.get("step") for step in description["steps"]}
    if "Embed" in kinds and encoder is None and runtime != "keras":
        if not (missing := list_missing()):
            from common.encoders.whisper_graph import is_portable, make_recipe

            if is_portable(description):
                return _follow(lambda: make_recipe(description))
        elif runtime == "onnxruntime":
            raise ValueError(f"{missing[0]} is not installed; use runtime='keras'")
    if not kinds <= Step.KINDS.keys():
        if find_spec("keras") is None:
            raise ImportError(
                "the encoder that it reads needs Keras: pip install -r requirements.lock; Whisper "
                f"does without where {', '.join(PARTS)} are: pip install -r requirements-use.txt"
            )
        import common.encoders.extraction  # noqa: F401
    recipe = Recipe.from_description(description, encoder=encoder)
    return _follow(lambda: recipe) if "Embed" in kinds else recipe


def _follow(make: Callable[[], Recipe]) -> Recipe:
    """Make a recipe with an encoder in it, and follow it for a tenth of a second of a tone."""
    try:
        recipe = make()
        recipe(TONE[: SAMPLE_RATE_HERTZ // 10])
    except (ValueError, OSError, ImportError):  # which say what is wrong
        raise
    except Exception as error:  # whatever a step raises
        raise ValueError(f"a recipe that cannot be followed ({error}); {REMEDY}") from error
    return recipe


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
