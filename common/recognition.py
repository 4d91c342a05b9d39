"""From a recording to emotions: a trained model with the very steps that made its features.

`python -m common.recognition clip.m4a` says it on the command line.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import softmax

import common.features
import common.loudness
from common.activity import SHORTEST_SPEECH_SECONDS, cut_speech, judge_activity
from common.audio import LONGEST_SECONDS, SAMPLE_RATE_HERTZ, hear_recording
from common.networks import OnnxNetwork, run_network
from common.paths import MODELS_DIR
from common.problems import RecordingError
from common.recipes import Recipe
from common.recognizer_files import load_network, load_recipe, read_contents, write_contents

if TYPE_CHECKING:
    import pandas as pd

    from common.runs import Run

SHIPPED = ("small", "whisper")
LONGEST_WHOLE_SECONDS = 8.0  # of speech; what is longer is heard window by window
LONGEST_TIMELINE_SECONDS = 3_600.0
USUAL_WINDOW_SECONDS = 3.0
FEWEST_ENROLLED = 4
LONGER = ", or hear it window by window: predict_timeline, --timeline"
ABSTAINED = ("silent", "cancelling", "too short")  # kinds of RecordingError that are an answer


@dataclass(frozen=True)
class Prediction:
    """What a recogniser says of a recording.

    `label` is the most probable emotion, None where it abstains; then `probabilities` is empty and
    `reason` says why. Otherwise they are calibrated, sum to 1 and are in the order of the
    recogniser's emotions. `seconds` is how much of the recording is active.
    """

    label: str | None
    probabilities: dict[str, float]
    reason: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class EmotionRecognizer:
    """A network that takes a waveform.

    `recipe` makes of it the features that `network` takes, a Keras model or an `OnnxNetwork`,
    which gives one probability for each of `emotions`. `facts` may hold `temperature`, which
    divides the logarithms of the probabilities (Guo et al., ICML 2017), and what is told of the
    model; `voices` what `enrol` needs, `voice` whom it has heard, and `path` where it lies.
    """

    network: Callable
    emotions: tuple[str, ...]
    recipe: Recipe
    facts: dict = field(default_factory=dict)
    voices: dict[str, np.ndarray] | None = None
    voice: object = None
    path: Path | None = None

    @classmethod
    def from_run(cls, run: "Run", *, seed: int, fold: int, encoder=None) -> "EmotionRecognizer":
        """Take the model of one fold of a run, which has not heard the fold's test speakers.

        `encoder` is the one of the features, where its weights are not the published ones. Raises
        FileNotFoundError if the model is not at hand, ValueError if the features have steps that
        cannot be repeated for one recording.
        """
        names = run.predictions.filter(like="p_").columns
        emotions = tuple(name.removeprefix("p_") for name in names)
        recipe = load_recipe(run.description["features"]["recipe"], encoder, "keras")
        return cls(run.load_model(seed=seed, fold=fold), emotions, recipe)

    @classmethod
    def load(
        cls, name: str | Path, *, encoder=None, runtime: str | None = None
    ) -> "EmotionRecognizer":
        """Load a model that ships, "small" or "whisper", or the path of what `save` wrote.

        `encoder` as in `from_run`; `runtime` is "onnxruntime" or "keras", None: the first of them
        that can run the file. An encoder that is given, and others than Whisper, run as they do.

        Raises FileNotFoundError if there is no such file, ValueError if it is not a recogniser,
        needs another encoder than the one that is given, or cannot be run so, ImportError if
        what could run it is not installed.
        """
        path = MODELS_DIR / f"{name}.keras" if name in SHIPPED else Path(name)
        contents = read_contents(path)
        emotions = tuple(map(str, contents.facts["emotions"]))
        network = load_network(path, contents, runtime)
        recipe = load_recipe(contents.facts["recipe"], encoder, runtime)
        return cls(network, emotions, recipe, contents.facts, contents.voices, path=path.resolve())

    def save(self, path: str | Path, *, portable: bool = False) -> None:
        """Write network, emotions, recipe and facts into one `.keras` file; encoders stay outside.

        With `portable` weights are in half precision, and the file holds the network once more for
        onnxruntime, so that it needs no Keras.
        """
        path = Path(path)
        if path.suffix != ".keras":
            raise ValueError(f"{path}: a recogniser is one file; let its name end in .keras")
        if self.voice is not None:
            raise ValueError(
                f"{path}: a file holds no voice; save the recogniser that enrol was called on, and "
                "enrol again where it is loaded"
            )
        facts = self.facts | {"emotions": self.emotions, "recipe": self.recipe.describe()}
        model = self.load_keras_model()
        write_contents(path, model, facts, self.recipe, self.voices, portable=portable)

    def export(self, path: str | Path) -> None:
        """Write the network for other programs: path.onnx (ONNX) or path.tflite (LiteRT).

        An ONNX graph takes waveforms where the recipe ends in a log-mel spectrogram, else, as
        LiteRT always, the features that `recipe` makes of one. The temperature and what is for
        known voices stay outside, and so does an encoder: of "whisper" it is the head alone, for
        states of Whisper, and a warning says so.

        Raises ValueError for another suffix, or where the format cannot hold a layer.
        """
        from common.exporting import export_recognizer

        export_recognizer(self, Path(path))

    def load_keras_model(self):
        """Give the network as a Keras model, from its file where onnxruntime runs it."""
        if isinstance(self.network, OnnxNetwork):
            return load_network(self.path, read_contents(self.path), "keras")
        return self.network

    def predict(self, recording) -> Prediction:
        """Say which emotion is in a recording of up to a minute, or why none is told.

        It is what `audio.load_waveform` takes: a path, bytes, a file object, an array at 16 kHz or
        (rate, array). Up to `longest_whole_seconds` of speech are heard as in training, the middle
        `window_seconds` of them; of more, the windows with speech in them are averaged. What
        training would refuse raises its ValueError, except silence and what is too short, of
        which it abstains. What may be missing, above half of a low rate, raises a warning.
        """
        try:
            waveform = hear_recording(recording)
        except RecordingError as error:
            if error.kind in ABSTAINED:
                return Prediction(None, {}, error.problem)
            raise ValueError(f"{error}{LONGER * (error.kind == 'too long')}") from error
        activity = judge_activity(waveform)
        if activity.reason:
            return Prediction(None, {}, activity.reason, activity.seconds)
        size, windows = round(self.window_seconds * SAMPLE_RATE_HERTZ), [waveform]
        if not self.hears_whole(waveform):
            windows = cut_speech(waveform, size) or windows
        logs = np.log(np.maximum(self._compute(windows), 1e-12)).mean(axis=0)
        probabilities = np.exp(logs) / np.exp(logs).sum()
        named = dict(zip(self.emotions, probabilities.tolist(), strict=True))
        return Prediction(max(named, key=named.get), named, seconds=activity.seconds)

    def predict_timeline(
        self,
        recording,
        *,
        window_seconds: float = USUAL_WINDOW_SECONDS,
        hop_seconds: float = 1.0,
        smoothing: int = 3,
    ) -> "pd.DataFrame":
        """Give the probability of each emotion over a recording of up to an hour, window by window.

        A row per window, by `start_seconds` and `end_seconds`; missing where there is no speech. A
        row is the geometric mean over `smoothing` windows around it, those without speech left
        out; 1: the window alone.
        """
        from common.timeline import tabulate_timeline

        waveform = hear_recording(recording, longest_seconds=LONGEST_TIMELINE_SECONDS)
        settings = (window_seconds, hop_seconds, smoothing)
        return tabulate_timeline(self._compute, self.emotions, waveform, *settings)

    def predict_folder(self, folder: str | Path, *, progress: bool = True) -> "pd.DataFrame":
        """Predict every recording in a folder and those below it, with a progress bar.

        A row per file, by its path in the folder: `label`, `probability`, one column per emotion,
        and `reason` where there is no label, since it abstains or the file cannot be used. Raises
        FileNotFoundError if there is no such folder or no recording in it.
        """
        from common.timeline import tabulate_folder

        return tabulate_folder(self.predict, self.emotions, Path(folder), progress=progress)

    def stream(self, *, window_seconds: float = USUAL_WINDOW_SECONDS) -> "Stream":
        """Listen to chunks as they come: `stream().feed((rate, chunk))` after each of them."""
        return Stream(self, window_seconds)

    def enrol(self, recordings: Iterable) -> "EmotionRecognizer":
        """Give a recogniser that knows a voice, from four recordings of it or more, without labels.

        They should be of several emotions: from neutral speech alone nothing is gained (notebook
        `42_speaker_enrolment`). A folder stands for all recordings in it. Raises ValueError if
        this model has no head for known voices, or fewer than four have speech in them.
        """
        from common.known_voices import hear_voice

        if self.voices is None:
            name = self.facts.get("name", "it")
            raise ValueError(
                f"{name} has no head for known voices; load 'whisper', which has one, to enrol"
            )
        return replace(self, voice=hear_voice(self, recordings, fewest=FEWEST_ENROLLED))

    @property
    def window_seconds(self) -> float:
        """How much the network hears at once; `USUAL_WINDOW_SECONDS` where it is any length."""
        for step in self.recipe.steps:
            if seconds := getattr(step, "seconds_kept", None):
                return seconds
        return USUAL_WINDOW_SECONDS

    @property
    def longest_whole_seconds(self) -> float:
        """How much speech is answered for at once: two windows, and no more than 8 s."""
        return min(LONGEST_WHOLE_SECONDS, 2 * self.window_seconds)

    def hears_whole(self, waveform: np.ndarray) -> bool:
        """Whether a waveform (samples,) is, where the recipe cuts silence off without it."""
        for step in self.recipe.steps:
            if isinstance(step, common.features.Trim | common.loudness.Level):
                waveform = step(waveform)
        return len(waveform) <= self.longest_whole_seconds * SAMPLE_RATE_HERTZ

    def compute_features(self, waveforms: list[np.ndarray]) -> np.ndarray:
        """Give what the network, or the head for the voice that is known, reads of waveforms."""
        recipe, shortened = self.recipe, getattr(self.network, "reads", "") == "waveform"
        if shortened and self.voice is None:
            recipe = replace(recipe, steps=recipe.steps[:-1])  # the last is in the graph
        return np.stack([recipe(waveform) for waveform in waveforms])

    def predict_features(self, rows: np.ndarray) -> np.ndarray:
        """Give calibrated probabilities (rows, emotions) of what the network reads.

        Raises ValueError where they are not finite, as of broken weights.
        """
        if self.voice is not None:
            probabilities = self.voice.predict(rows)
        else:
            logs = np.log(np.maximum(run_network(self.network, rows), 1e-12))
            probabilities = softmax(logs / self.facts.get("temperature", 1.0), axis=1)
        if not np.isfinite(probabilities).all():
            name = self.path or "the recogniser"
            raise ValueError(f"{name}: probabilities that are not finite; train and save it anew")
        return probabilities

    def _compute(self, waveforms: list[np.ndarray]) -> np.ndarray:
        return self.predict_features(self.compute_features(waveforms))


class Stream:
    """The last seconds of what is said, and what a recogniser hears in them."""

    def __init__(self, recognizer: EmotionRecognizer, window_seconds: float) -> None:
        if not SHORTEST_SPEECH_SECONDS < window_seconds <= LONGEST_SECONDS:
            raise ValueError(
                f"window_seconds={window_seconds}: give more than {SHORTEST_SPEECH_SECONDS} and at "
                f"most {LONGEST_SECONDS:g} seconds"
            )
        self.recognizer, self.window_seconds = recognizer, window_seconds
        self.kind, self.heard = None, None

    def feed(self, chunk: tuple[int, np.ndarray]) -> Prediction:
        """Take (rate, samples) as a microphone gives them and answer for the last window.

        Samples are (samples,), (1, samples) or (samples, channels), floats or whole. With another
        rate, type or number of channels it begins anew. It abstains on silence. Raises ValueError
        where `audio.load_waveform` does.
        """
        rate, samples = int(chunk[0]), np.asarray(chunk[1])
        samples = samples[0] if samples.ndim == 2 and len(samples) == 1 else samples
        kind = rate, samples.shape[1:], samples.dtype
        if kind == self.kind:
            samples = np.concatenate([self.heard, samples])
        self.kind, self.heard = kind, samples[-round(self.window_seconds * rate) :]
        return self.recognizer.predict((rate, self.heard))


if __name__ == "__main__":
    import sys

    from common.command import hide_native_logs, main

    hide_native_logs()
    sys.exit(main(sys.argv[1:]))
