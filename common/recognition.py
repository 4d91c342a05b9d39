"""From a recording to emotions: a trained model with the very steps that made its features."""

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pandas as pd

import common.encoders.extraction
import common.features
import common.layers  # noqa: F401 - saved models and recipes may hold anything of these three
from common.audio import SAMPLE_RATE_HERTZ, load_waveform
from common.decoding import SILENCE_PEAK
from common.files import write_atomically
from common.recipes import Recipe
from common.runs import Run

FACTS = "recognizer.json"


@dataclass(frozen=True)
class EmotionRecognizer:
    """A model that takes a waveform.

    `recipe` makes of it the features that `model` takes, which gives one probability for each of
    `emotions`.
    """

    model: keras.Model
    emotions: tuple[str, ...]
    recipe: Recipe

    @classmethod
    def from_run(cls, run: Run, *, seed: int, fold: int, encoder=None) -> "EmotionRecognizer":
        """Take the model of one fold of a run, which has not heard the fold's test speakers.

        `encoder` is the one of the features, where its weights are not the published ones. Raises
        FileNotFoundError if the model is not at hand, ValueError if the features have steps that
        cannot be repeated for one recording.
        """
        names = run.predictions.filter(like="p_").columns
        emotions = tuple(name.removeprefix("p_") for name in names)
        recipe = Recipe.from_description(run.description["features"]["recipe"], encoder=encoder)
        return cls(run.load_model(seed=seed, fold=fold), emotions, recipe)

    @classmethod
    def load(cls, path: str | Path, *, encoder=None) -> "EmotionRecognizer":
        """Load what `save` wrote; `encoder` as in `from_run`.

        Raises FileNotFoundError if there is no such file, ValueError if it is not a recogniser or
        needs another encoder than the one that is given.
        """
        path, remedy = Path(path), "name a file that EmotionRecognizer.save wrote"
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such recogniser; {remedy}")
        try:
            with zipfile.ZipFile(path) as file:
                facts = json.loads(file.read(FACTS))
                writer = json.loads(file.read("metadata.json"))["keras_version"]
            emotions, recipe = tuple(map(str, facts["emotions"])), facts["recipe"]
        except Exception as error:  # whatever a file of another kind raises
            raise ValueError(f"{path} is not a recogniser ({error}); {remedy}") from error
        try:
            model = keras.models.load_model(path)
        except Exception as error:
            first = str(error).split("\n")[0][:200]
            raise ValueError(
                f"{path}: saved by Keras {writer}, and Keras {keras.__version__} cannot read it "
                f"({first}); install that version, or save it anew"
            ) from error
        if not all(np.isfinite(weights).all() for weights in model.get_weights()):
            raise ValueError(f"{path}: weights that are not finite; train and save it anew")
        found, needed = model.output_shape[-1], len(emotions)
        if found != needed:
            raise ValueError(f"{path}: {found} outputs and {needed} emotions; save it anew")
        return cls(model, emotions, Recipe.from_description(recipe, encoder=encoder))

    def save(self, path: str | Path) -> None:
        """Write model, emotions and recipe into one `.keras` file; an encoder stays outside."""
        path = Path(path)
        if path.suffix != ".keras":
            raise ValueError(f"{path}: a recogniser is one file; let its name end in .keras")
        facts = {"emotions": self.emotions, "recipe": self.recipe.describe()}
        with write_atomically(path) as temporary:
            self.model.save(temporary)
            with zipfile.ZipFile(temporary, "a") as file:
                file.writestr(FACTS, json.dumps(facts))

    def predict(self, recording) -> pd.Series:
        """Give the probability of each emotion in a recording of up to a minute.

        It is what `audio.load_waveform` takes: a path, bytes, a file object, an array at 16 kHz or
        (rate, array). What training would refuse raises its ValueError here too.
        """
        return self._predict([load_waveform(recording)]).iloc[0].rename("probability")

    def predict_timeline(
        self, recording, *, window_seconds: float = 3.0, hop_seconds: float = 1.0
    ) -> pd.DataFrame:
        """Give the probability of each emotion over a recording of up to an hour, window by window.

        A row per window, by `start_seconds` and `end_seconds`; missing where it is silent.
        """
        waveform = load_waveform(recording, longest_seconds=3_600)
        size, hop = (round(s * SAMPLE_RATE_HERTZ) for s in (window_seconds, hop_seconds))
        starts = range(0, max(1, len(waveform) - size + hop), hop)
        windows = [waveform[start : start + size] for start in starts]
        sounding = [np.abs(window).max() >= SILENCE_PEAK for window in windows]
        ends = [min(start + size, len(waveform)) for start in starts]
        times = np.stack([starts, ends], axis=1) / SAMPLE_RATE_HERTZ
        index = pd.MultiIndex.from_arrays(times.T, names=["start_seconds", "end_seconds"])
        rows = self._predict(
            [window for window, sounds in zip(windows, sounding, strict=True) if sounds]
        )
        rows.index = index[sounding]
        return rows.reindex(index)

    def _predict(self, waveforms: list[np.ndarray]) -> pd.DataFrame:
        features = np.stack([self.recipe(waveform) for waveform in waveforms])
        probabilities = self.model.predict(features, verbose=0)
        return pd.DataFrame(probabilities, columns=list(self.emotions))
