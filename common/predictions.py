"""The predictions table: one row per test prediction, from a model, from a file, checked."""

from pathlib import Path

import numpy as np
import pandas as pd

from common.emotions import order_emotions

COLUMNS = ("utterance", "speaker", "fold", "seed", "true_label", "predicted_label", "correct")


def tabulate_predictions(
    table: pd.DataFrame, rows: np.ndarray, probabilities: np.ndarray, *, fold: int, seed: int
) -> pd.DataFrame:
    """Write probabilities (rows, emotions) of some rows of an utterance table as predictions.

    The emotions are those of the whole table, in canonical order.
    """
    emotions = order_emotions(table["emotion"])
    tested = table.iloc[rows]
    predicted = np.array(emotions)[probabilities.argmax(axis=1)] if len(rows) else []
    facts = {
        "utterance": tested["utterance"].to_numpy(),
        "speaker": tested["speaker"].to_numpy(),
        "fold": fold,
        "seed": seed,
        "true_label": tested["emotion"].to_numpy(),
        "predicted_label": predicted,
        "correct": predicted == tested["emotion"].to_numpy(),
    }
    facts |= {
        f"p_{emotion}": probabilities[:, index].astype(float).round(4)
        for index, emotion in enumerate(emotions)
    }
    return pd.DataFrame(facts)


def read_predictions(csv: str | Path, *, part: str = "test") -> pd.DataFrame:
    """Read a predictions table as it was: names as text ("01" stays "01"), `correct` as bool.

    Parameters
    ----------
    part
        "test", or "validation" for the rows that chose the epoch, where they were kept.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not a predictions table.
    """
    csv = Path(csv)
    if not csv.is_file():
        raise FileNotFoundError(f"No predictions at {csv}: run the notebook that writes them.")
    text = dict.fromkeys(("utterance", "speaker", "true_label", "predicted_label"), str)
    numbers = {"fold": "int64", "seed": "int64", "correct": bool}
    try:
        predictions = pd.read_csv(csv, dtype=text | numbers, keep_default_na=False)
        check_predictions(predictions)
    except ValueError as error:
        raise ValueError(
            f"{csv} is not a predictions table ({error}): run its notebook again."
        ) from error
    kept = predictions.pop("part") == part if "part" in predictions else part == "test"
    return predictions[np.broadcast_to(kept, len(predictions))].reset_index(drop=True)


def check_predictions(predictions: pd.DataFrame) -> None:
    """Raise ValueError where columns are missing or contradict each other."""
    missing = [name for name in COLUMNS if name not in predictions]
    probabilities = predictions.filter(regex="^p_")
    if missing or probabilities.empty:
        raise ValueError(f"the predictions table lacks {missing or 'probabilities or rows'}")
    hits = predictions["true_label"] == predictions["predicted_label"]
    if (hits != predictions["correct"]).any():
        row = predictions[hits != predictions["correct"]].iloc[0]
        raise ValueError(f"{row['utterance']!r}: 'correct' contradicts the two labels")
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
