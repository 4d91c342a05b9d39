"""Synthetic predictions, for the tests of what is computed and drawn from them."""

import numpy as np
import pandas as pd

from common.emotions import EMOTIONS, order_emotions

COLUMNS = ["utterance", "speaker", "fold", "seed", "true_label", "predicted_label", "correct"]


def make_predictions(
    *,
    num_speakers: int = 6,
    repetitions: int = 2,
    seeds: tuple[int, ...] = (0, 1),
    num_folds: int = 3,
    skill: float = 1.5,
    spread: float = 0.5,
    emotions: tuple[str, ...] = EMOTIONS,
    random_seed: int = 0,
) -> pd.DataFrame:
    """Predict `repetitions` utterances per speaker and emotion; `spread` makes speakers differ."""
    rng = np.random.default_rng(random_seed)
    skills = skill + spread * rng.normal(size=num_speakers)
    rows = []
    for seed in seeds:
        for speaker in range(num_speakers):
            for true, emotion in enumerate(emotions):
                for repetition in range(repetitions):
                    logits = rng.normal(size=len(emotions))
                    logits[true] += skills[speaker]
                    chances = np.exp(logits) / np.exp(logits).sum()
                    predicted = emotions[chances.argmax()]
                    name = f"corpus/{speaker + 1:02d}/{emotion}_{repetition}"
                    head = (name, f"{speaker + 1:02d}", speaker % num_folds, seed)
                    rows.append(
                        (*head, emotion, predicted, emotion == predicted, *chances.round(4))
                    )
    return pd.DataFrame(rows, columns=[*COLUMNS, *(f"p_{emotion}" for emotion in emotions)])


def make_labelled(true: list[str], predicted: list[str], *, speakers=None) -> pd.DataFrame:
    """Predict with certainty, one utterance per pair of labels, in one fold of one seed."""
    emotions = order_emotions([*true, *predicted])
    table = pd.DataFrame({"utterance": [f"corpus/{number:03d}" for number in range(len(true))]})
    table["speaker"] = speakers or "01"
    table = table.assign(fold=0, seed=0, true_label=true, predicted_label=predicted)
    table["correct"] = table["true_label"] == table["predicted_label"]
    for emotion in emotions:
        table[f"p_{emotion}"] = (table["predicted_label"] == emotion).astype(float)
    return table


def make_table(predictions: pd.DataFrame) -> pd.DataFrame:
    """Utterance table of the predicted utterances, as far as scores and pictures need it."""
    table = predictions.drop_duplicates("utterance")[["utterance", "speaker"]]
    table = table.assign(emotion=predictions["true_label"]).reset_index(drop=True)
    table["gender"] = np.where(table["speaker"].astype(int) % 2, "male", "female")
    strong = table["utterance"].str.endswith("1") & (table["emotion"] != "neutral")
    table["intensity"] = np.where(strong, "strong", "normal")
    table["seconds"] = np.linspace(1, 4, len(table))
    return table


def make_history() -> pd.DataFrame:
    """Two seeds and two folds; one of the four runs stops after 10 epochs, the others after 20."""
    rows = []
    for seed in (0, 1):
        for fold in (0, 1):
            for epoch in range(10 if seed == fold == 1 else 20):
                scores = (2 - 0.05 * epoch, 0.04 * epoch, 2 - 0.03 * epoch, 0.03 * epoch)
                rows.append((seed, fold, epoch, 1e-3, *scores, 0.032 * epoch))
    columns = ["seed", "fold", "epoch", "learning_rate", "loss", "accuracy"]
    columns += ["validation_loss", "validation_uar", "validation_wa"]
    return pd.DataFrame(rows, columns=columns)
