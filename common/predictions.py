"""The predictions table: one row per test prediction, from a model, from a file, checked."""

from pathlib import Path

import numpy as np
import pandas as pd

from common.emotions import order_emotions

COLUMNS = ("utterance", "speaker", "fold", "seed", "true_label", "predicted_label", "correct")


def tabulate_predictions(
    table: pd.DataFrame, rows: np.ndarray, probabilities: np.ndarray, *, fold: int, seed: int
) -> pd.DataFrame:
    """Make predictions of the probabilities (rows, emotions of the whole table) of some rows."""
    emotions = order_emotions(table["emotion"])
    tested = table.iloc[rows]
    true = tested["emotion"].to_numpy()
    predicted = np.array(emotions)[probabilities.argmax(axis=1)] if len(rows) else []
    facts = {name: tested[name].to_numpy() for name in ("utterance", "speaker")}
    facts |= {"fold": fold, "seed": seed, "true_label": true, "predicted_label": predicted}
    facts["correct"] = predicted == true
    columns = zip(emotions, probabilities.T.astype(float).round(4), strict=True)
    return pd.DataFrame(facts | {f"p_{emotion}": column for emotion, column in columns})


def are_same_utterances(first: pd.DataFrame, second: pd.DataFrame) -> bool:
    """Whether two tables are of the same utterances: a copy of a corpus may be a part of it."""
    return set(first["utterance"]) == set(second["utterance"])


def read_predictions(csv: str | Path, *, part: str = "test") -> pd.DataFrame:
    """Read a predictions table as it was: names as text ("01" stays "01"), `correct` as bool.

    `part` is "test", or "validation" for the rows that chose the epoch, where they were kept. A
    compressed table (`.csv.xz`) holds labels alone, without probabilities. Raises
    FileNotFoundError, or ValueError if the file is not a predictions table.
    """
    csv = Path(csv)
    if not csv.is_file():
        raise FileNotFoundError(f"No predictions at {csv}: run the notebook that writes them.")
    text = dict.fromkeys(("utterance", "speaker", "true_label", "predicted_label"), str)
    numbers = {"fold": "int64", "seed": "int64", "correct": bool}
    try:
        predictions = pd.read_csv(csv, dtype=text | numbers, keep_default_na=False)
        check_predictions(predictions, labels_only=csv.suffix == ".xz")
    except ValueError as error:
        message = f"{csv} is not a predictions table ({error}): run its notebook again."
        raise ValueError(message) from error
    kept = predictions.pop("part") == part if "part" in predictions else part == "test"
    return predictions[np.broadcast_to(kept, len(predictions))].reset_index(drop=True)


def pair_copies(predictions: pd.DataFrame) -> pd.DataFrame:
    """Let `utterance+noise2` and the like, copies that a split took for utterances, count as such.

    Each becomes one more prediction, under a seed of its own, of the utterance that it copies.
    """
    names = predictions["utterance"].str.partition("+noise")
    copy = names[2].replace("", "0").astype(int)
    return predictions.assign(utterance=names[0], seed=predictions["seed"] * 10 + copy)


def check_predictions(predictions: pd.DataFrame, *, labels_only: bool = False) -> None:
    """Raise ValueError where columns are missing or contradict each other.

    Probabilities have to be there unless `labels_only`.
    """
    missing = [name for name in COLUMNS if name not in predictions]
    probabilities = predictions.filter(regex="^p_")
    if missing or predictions.empty or (probabilities.empty and not labels_only):
        raise ValueError(f"the predictions table lacks {missing or 'probabilities or rows'}")
    hits = predictions["true_label"] == predictions["predicted_label"]
    if (hits != predictions["correct"]).any():
        row = predictions[hits != predictions["correct"]].iloc[0]
        raise ValueError(f"{row['utterance']!r}: 'correct' contradicts the two labels")
    if labels_only:
        return
    position = probabilities.columns.get_indexer("p_" + predictions["predicted_label"])
    if (position < 0).any():
        unknown = predictions["predicted_label"][position < 0].iloc[0]
        raise ValueError(f"predicted label {unknown!r} has no column 'p_{unknown}'")
    values = probabilities.to_numpy(dtype=float)
    chosen = values[np.arange(len(values)), position]
    doubtful = ~(chosen >= values.max(axis=1) - 1e-4)
    if doubtful.any():
        utterance = predictions["utterance"][doubtful].iloc[0]
        raise ValueError(f"{utterance!r}: the predicted label is not the most probable one")
