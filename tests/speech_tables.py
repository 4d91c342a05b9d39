"""Corpora made up for tests, of as many speakers as asked for: tables, features, recordings."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile

from common.audio import load_waveform
from common.files import hash_file
from common.recipes import Features, Recipe, Step
from common.training import TrainingConfig

# What a small head learns from a few recordings in some seconds.
PLAIN_CONFIG = TrainingConfig(
    batch_size=6,
    ema_momentum=None,
    monitor=None,
    mixup_alpha=0,
    num_time_masks=0,
    num_frequency_masks=0,
    max_shift=0,
)


@dataclass(frozen=True)
class Toy(Step):
    """Stands in the recipe of features that were drawn."""

    by: str
    strength: float
    num_copies: int
    seed: int


EIGHT = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")


def make_table(rows: list[dict], *, corpus: str) -> pd.DataFrame:
    """Fill in the columns that the rows lack, as `load_corpus` orders them."""
    table = pd.DataFrame(rows)
    table["utterance"] = [f"{corpus}/{number:05d}" for number in range(len(table))]
    table["path"] = table["utterance"] + ".wav"
    table["corpus"] = corpus
    table["seconds"] = 2.0
    table["audio_hash"] = [sha256(name.encode()).hexdigest() for name in table["utterance"]]
    for column in ("intensity", "statement", "repetition"):
        if column not in table:
            table[column] = ""
    return table


def make_ravdess() -> pd.DataFrame:
    """RAVDESS as it is: 24 actors, 60 utterances each, no strong neutral."""
    rows = [
        {
            "speaker": f"{actor:02d}",
            "gender": "female" if actor % 2 == 0 else "male",
            "emotion": emotion,
            "intensity": intensity,
            "statement": statement,
            "repetition": repetition,
        }
        for actor, emotion, intensity, statement, repetition in product(
            range(1, 25), EIGHT, ("normal", "strong"), ("01", "02"), ("01", "02")
        )
        if not (emotion == "neutral" and intensity == "strong")
    ]
    return make_table(rows, corpus="ravdess")


def make_speakers(
    num_speakers: int, *, per_emotion: int, emotions=EIGHT[:4], corpus: str = "toy"
) -> pd.DataFrame:
    """A balanced corpus of any size; odd speakers are male."""
    rows = [
        {
            "speaker": f"s{speaker:02d}",
            "gender": "male" if speaker % 2 else "female",
            "emotion": emotion,
            "statement": f"w{number}",
        }
        for speaker, emotion, number in product(
            range(1, num_speakers + 1), emotions, range(per_emotion)
        )
    ]
    return make_table(rows, corpus=corpus)


def make_features(
    table: pd.DataFrame,
    *,
    by: str = "emotion",
    strength: float = 1.5,
    num_copies: int = 1,
    shape: tuple[int, int] = (12, 6),
    seed: int = 0,
    normalise: bool = True,
) -> Features:
    """Noise of shape (rows, *shape) plus a pattern for each value of the column `by`."""
    rng = np.random.default_rng(seed)
    patterns = {value: rng.normal(size=shape[1]) for value in sorted(table[by].unique())}
    pattern = np.stack([patterns[value] for value in table[by]])[:, None, None, :]
    noise = rng.normal(size=(len(table), 1 + num_copies, *shape))
    stacked = (strength * pattern + noise).astype(np.float32)
    recipe = Recipe((Toy(by, strength, num_copies, seed),), normalise=normalise)
    return Features(stacked[:, 0], stacked[:, 1:], recipe)


def write_recordings(
    folder: Path,
    make_waveform: Callable[[int, np.random.Generator], np.ndarray],
    *,
    emotions: Sequence[str],
    num_speakers: int = 6,
) -> pd.DataFrame:
    """Write one recording of each speaker per item of `emotions`; give their table.

    `make_waveform` takes the place of the item and a generator, and gives samples at 16 kHz.
    """
    rows, files = [], []
    for speaker, (number, emotion) in product(range(num_speakers), enumerate(emotions)):
        files.append(str(folder / f"{speaker}_{number}.wav"))
        waveform = make_waveform(number, np.random.default_rng([speaker, number]))
        soundfile.write(files[-1], waveform, 16_000)
        rows.append({"speaker": str(speaker), "gender": "female", "emotion": emotion})
    hashes = [hash_file(file) for file in files]
    return make_table(rows, corpus="own").assign(path=files, audio_hash=hashes)


def predict_again(run, table: pd.DataFrame, recipe: Recipe) -> np.ndarray:
    """What the saved models of a run say of its test recordings, row for row."""
    models, said = {}, []
    files = table.set_index("utterance")["path"]
    for row in run.predictions.itertuples():
        task = row.seed, row.fold
        if task not in models:
            models[task] = run.load_model(seed=row.seed, fold=row.fold)
        values = recipe(load_waveform(files[row.utterance]))[None]
        said.append(models[task].predict(values, verbose=0)[0])
    return np.array(said)
