"""Small tables, features and a small model for the tests of splits and training."""

import hashlib
from collections.abc import Sequence

import keras
import numpy as np
import pandas as pd
from keras import layers

from common.corpora import EMOTIONS
from common.features import Features
from common.layers import AttentionPooling
from common.training import TrainingConfig

FOUR = ("neutral", "happy", "sad", "angry")
SHAPE = (12, 6)  # frames, bands
QUICK = TrainingConfig(
    epochs=3, batch_size=16, learning_rate=0.02, warmup_epochs=1, ema_momentum=0.5, max_time_width=3
)


def make_table(rows: pd.DataFrame, *, corpus: str = "toy") -> pd.DataFrame:
    """Fill in the columns of an utterance table that `rows` leaves out."""
    table = pd.DataFrame({"utterance": [f"{corpus}/{row:05d}" for row in range(len(rows))]})
    table["path"] = table["utterance"] + ".wav"
    table["corpus"] = corpus
    for column, blank in (("gender", ""), ("intensity", ""), ("statement", ""), ("repetition", "")):
        table[column] = rows[column].to_numpy() if column in rows else blank
    for column in ("speaker", "emotion"):
        table[column] = rows[column].to_numpy()
    table["seconds"] = 3.7
    table["audio_hash"] = [
        hashlib.sha256(utterance.encode()).hexdigest() for utterance in table["utterance"]
    ]
    return table


def make_ravdess_table() -> pd.DataFrame:
    """24 actors, 60 utterances each: 2 sentences, 2 repetitions, 2 intensities, neutral one."""
    rows = [
        (f"{actor:02d}", ("female", "male")[actor % 2], emotion, intensity, statement, repetition)
        for actor in range(1, 25)
        for emotion in EMOTIONS[:8]
        for intensity in ("normal", "strong")[: 1 if emotion == "neutral" else 2]
        for statement in ("kids", "dogs")
        for repetition in ("1", "2")
    ]
    columns = ["speaker", "gender", "emotion", "intensity", "statement", "repetition"]
    return make_table(pd.DataFrame(rows, columns=columns), corpus="ravdess")


def make_savee_table() -> pd.DataFrame:
    """4 men, 15 utterances of each of 7 emotions, 30 of neutral."""
    emotions = [emotion for emotion in EMOTIONS[:8] if emotion != "calm"]
    rows = [
        (speaker, "male", emotion, f"sentence {sentence}")
        for speaker in ("DC", "JE", "JK", "KL")
        for emotion in emotions
        for sentence in range(30 if emotion == "neutral" else 15)
    ]
    columns = ["speaker", "gender", "emotion", "statement"]
    return make_table(pd.DataFrame(rows, columns=columns), corpus="savee")


def make_tess_table() -> pd.DataFrame:
    """2 women, 7 emotions, 40 words each (the corpus has 200)."""
    emotions = [emotion for emotion in EMOTIONS[:8] if emotion != "calm"]
    rows = [
        (speaker, "female", emotion, f"word {word}")
        for speaker in ("OAF", "YAF")
        for emotion in emotions
        for word in range(40)
    ]
    columns = ["speaker", "gender", "emotion", "statement"]
    return make_table(pd.DataFrame(rows, columns=columns), corpus="tess")


def make_toy_table(
    *, num_speakers: int = 6, num_repetitions: int = 4, emotions: Sequence[str] = FOUR
) -> pd.DataFrame:
    """Every speaker says every emotion a few times."""
    rows = [
        (f"{speaker:02d}", ("female", "male")[speaker % 2], emotion, str(repetition))
        for speaker in range(1, num_speakers + 1)
        for emotion in emotions
        for repetition in range(num_repetitions)
    ]
    return make_table(pd.DataFrame(rows, columns=["speaker", "gender", "emotion", "repetition"]))


def make_emotion_features(table: pd.DataFrame, *, noise: float = 1.0, num_copies: int = 1):
    """Features in which each emotion has a pattern of its own that all speakers share."""
    rng = np.random.default_rng(1)
    codes = table["emotion"].astype("category").cat.codes.to_numpy()
    patterns = rng.normal(size=(codes.max() + 1, *SHAPE))
    offsets = 5 + 3 * np.arange(SHAPE[1])  # so that the normaliser has something to do
    versions = patterns[codes][:, None] + offsets
    versions = versions + noise * rng.normal(size=(len(table), 1 + num_copies, *SHAPE))
    return make_features(versions)


def make_features(versions: np.ndarray) -> Features:
    """Wrap an array (utterances, versions, frames, bands); the first version is the original."""
    versions = versions.astype(np.float32)
    contents = hashlib.sha256(versions.tobytes()).hexdigest()
    return Features(versions[:, 0], versions[:, 1:], {"contents": contents})


def build_toy_model(input_shape: tuple[int, ...], num_classes: int) -> keras.Model:
    """Convolve, with everything that has a state of its own: batch statistics and dropout."""
    inputs = keras.Input(input_shape)
    hidden = layers.Conv1D(8, 3, padding="same", use_bias=False)(inputs)
    hidden = layers.BatchNormalization(momentum=0.8)(hidden)
    hidden = layers.Activation("relu")(hidden)
    hidden = layers.Dropout(0.2)(hidden)
    hidden = AttentionPooling(8)(hidden)
    return keras.Model(inputs, layers.Dense(num_classes, activation="softmax")(hidden))
