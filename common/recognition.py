"""From a recording to emotions: a trained model with the very steps that made its features."""

import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pandas as pd

import common.layers  # noqa: F401 - saved models may hold any of them
from common.audio import load_waveform
from common.cross_validation import Run
from common.encoders.extraction import POOLINGS, Encoder, embed_recording, prepare_recording
from common.features import FeatureConfig, compute_features
from common.files import write_atomically

IRRELEVANT = {"augmentations", "audio", "normalise", "start", "stage"}  # of training alone


@dataclass(frozen=True)
class EmotionRecognizer:
    """A model that takes a waveform.

    `model` takes features as extracted and gives one probability for each of `emotions`.
    `recipe` is the description of the features it learnt from, and decides how those of a new
    recording are made. `encoder` is the pretrained encoder that the recipe names, if it does.
    """

    model: keras.Model
    emotions: tuple[str, ...]
    recipe: dict
    encoder: Encoder | None = None

    def __post_init__(self) -> None:
        find_preparation(self.recipe, self.encoder)  # a model that cannot be used is refused here

    @classmethod
    def from_run(
        cls, run: Run, *, seed: int, fold: int, encoder: Encoder | None = None
    ) -> "EmotionRecognizer":
        """Take the model of one fold of a run, which has not heard the fold's test speakers."""
        names = run.predictions.filter(like="p_").columns
        emotions = tuple(name.removeprefix("p_") for name in names)
        recipe = run.description["features"]
        return cls(run.load_model(seed=seed, fold=fold), emotions, recipe, encoder)

    @classmethod
    def load(cls, folder: str | Path, *, encoder: Encoder | None = None) -> "EmotionRecognizer":
        """Load what `save` wrote.

        Raises
        ------
        FileNotFoundError
            If the folder does not hold a recogniser.
        ValueError
            If it needs another encoder than the one that is given.
        """
        folder = Path(folder)
        try:
            facts = json.loads((folder / "recognizer.json").read_text())
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{folder}: no recognizer.json there; name a folder that "
                "EmotionRecognizer.save wrote"
            ) from error
        model = keras.models.load_model(folder / "model.keras")
        return cls(model, tuple(facts["emotions"]), facts["recipe"], encoder)

    def save(self, folder: str | Path) -> None:
        """Write the model and what it needs to know into a folder; an encoder stays outside."""
        folder = Path(folder)
        with write_atomically(folder / "model.keras") as temporary:
            self.model.save(temporary)
        facts = {"emotions": self.emotions, "recipe": self.recipe}
        with write_atomically(folder / "recognizer.json") as temporary:
            temporary.write_text(json.dumps(facts, indent=1))

    def predict(self, waveform: np.ndarray) -> pd.Series:
        """Give the probability of each emotion.

        Parameters
        ----------
        waveform
            Shape (samples,), 16 kHz.
        """
        prepare = find_preparation(self.recipe, self.encoder)
        probabilities = self.model.predict(prepare(waveform)[None], verbose=0)[0]
        return pd.Series(probabilities, index=self.emotions, name="probability")

    def predict_file(self, path: str | Path) -> pd.Series:
        """Do the same with a recording of any rate and number of channels."""
        return self.predict(load_waveform(path))


def find_preparation(
    recipe: dict, encoder: Encoder | None = None
) -> Callable[[np.ndarray], np.ndarray]:
    """Find the function of a waveform that gave the features which a recipe describes.

    Raises
    ------
    ValueError
        If the recipe names an encoder and another one, or none, is given, or if it has steps
        that cannot be repeated.
    """
    recipe = {key: value for key, value in recipe.items() if key not in IRRELEVANT}
    known = {field.name for field in fields(FeatureConfig)}
    if recipe.keys() == known:
        return partial(compute_features, config=FeatureConfig(**recipe))
    kind = "inputs_of" if "inputs_of" in recipe else "encoder"
    unknown = recipe.keys() - {kind, "weights", "num_samples", "trim_top_db", "pooled", "embedding"}
    if unknown or kind not in recipe:
        raise ValueError(
            f"features with {sorted(unknown) or 'this recipe'} cannot be made of a recording; "
            "use extract_features, extract_embeddings or extract_inputs as they are"
        )
    needed = f"{recipe[kind]} with the weights {recipe['weights']}, {recipe['num_samples']} samples"
    if encoder is None:
        raise ValueError(f"the model reads {needed}: give it, encoder=load_encoder(…)")
    found = (encoder.record.title, encoder.digest, encoder.num_samples)
    if found != (recipe[kind], recipe["weights"], recipe["num_samples"]):
        raise ValueError(
            "the model reads {}, but the encoder given is {} with the weights {}, {} samples; "
            "load that one".format(needed, *found)
        )
    if kind == "inputs_of":
        return partial(prepare_recording, encoder=encoder)
    pool = POOLINGS[recipe["pooled"]] if "pooled" in recipe else lambda values: values
    number = recipe.get("embedding")
    chosen = slice(None) if number is None else [number]
    return lambda waveform: pool(embed_recording(waveform, encoder)[chosen])
