"""From one corpus to another: the emotions that they share, features of several, and scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from common.corpora import CORPORA, combine_corpora
from common.emotions import name_emotion, order_emotions
from common.recipes import Features, Rows, Step

# Russell, "A circumplex model of affect", 1980: activation, and pleasant or not.
HIGH_AROUSAL = ("happy", "angry", "fearful", "surprised")
NEGATIVE = ("sad", "angry", "fearful", "disgust", "bored")


def tabulate_emotions(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Count the utterances of each emotion (rows, by its usual name) in each corpus (columns).

    `also called` lists other words for it: those of the tables, and the codes in the file names of
    corpora that are known. `in all` tells whether every corpus has it.
    """
    counts, names = {}, {}
    for corpus, table in tables.items():
        usual = table["emotion"].map(name_emotion)
        counts[corpus] = usual.value_counts()
        codes = CORPORA[corpus].emotions.items() if corpus in CORPORA else ()
        for own, name in (*dict.fromkeys(zip(table["emotion"], usual, strict=True)), *codes):
            names.setdefault(name, {}).setdefault(own, []).append(corpus)
    rows = pd.DataFrame(counts).fillna(0).astype(int)
    rows = rows.loc[order_emotions(rows.index)].rename_axis("emotion")
    called = [
        ", ".join(
            f"{own} ({', '.join(where)})" for own, where in names[name].items() if own != name
        )
        for name in rows.index
    ]
    return rows.assign(**{"also called": called, "in all": (rows > 0).all(axis=1)})


def take_rows(features: Features, rows: np.ndarray) -> Features:
    """Keep some utterances of features, in the order of these row numbers."""
    values = Rows(len(rows), lambda: features.first, lambda: features.values[rows])
    return Features(values, lambda: features.copies[rows], features.recipe, features.augmentations)


def join_corpora(
    tables: Sequence[pd.DataFrame], features: Sequence[Features]
) -> tuple[pd.DataFrame, Features]:
    """Combine corpora (`combine_corpora`) and their features, row for row with the new table.

    Raises ValueError if a table and its features differ in length, or the features in how they
    were made.
    """
    for table, own in zip(tables, features, strict=True):
        corpus = ", ".join(table["corpus"].unique())
        if len(table) != len(own):
            raise ValueError(
                f"{corpus}: {len(table)} utterances but {len(own)} feature rows; give the "
                "features of this very table"
            )
        if own.describe() != features[0].describe():
            raise ValueError(
                f"{corpus}: its features are made otherwise than the first corpus'; extract both "
                "with one recipe and the same augmentations"
            )
    joined = combine_corpora(tables)
    names = pd.concat([table["utterance"] for table in tables])

    def join_values() -> np.ndarray:
        return np.concatenate([own.values for own in features])

    whole = Features(
        Rows(sum(map(len, features)), lambda: features[0].first, join_values),
        lambda: np.concatenate([own.copies for own in features]),
        features[0].recipe,
        features[0].augmentations,
    )
    return joined, take_rows(whole, pd.Index(names).get_indexer(joined["utterance"]))


@dataclass(frozen=True)
class NormalisedIn(Step):
    """Says in which groups of utterances features were normalised, those of the test among them."""

    groups: str
    over_frames: bool = False


def normalise_in(
    features: Features, table: pd.DataFrame, by: str, *, over_frames: bool
) -> Features:
    """Bring features to mean 0 and deviation 1 in each group, such as each corpus or speaker.

    `by` is a column of the table. `over_frames` measures each band of spectrograms (utterances,
    frames, bands) over the frames too; without it each number of embeddings is measured for
    itself. Copies are normalised as their originals are. Transductive: the utterances of a group
    that is tested are heard before, without labels. Raises ValueError if one has no group.
    """
    if unknown := int(table[by].isna().sum()):
        raise ValueError(f"{unknown} utterances have no {by}; leave them out")
    axes = (0, 1) if over_frames else (0,)
    groups = table.groupby(by).indices.values()

    def normalise(values: np.ndarray) -> np.ndarray:
        result = np.empty(values.shape, np.float32)
        for rows in groups:
            own = features.values[rows].astype(np.float64)
            mean, std = own.mean(axis=axes), np.maximum(own.std(axis=axes), 1e-6)
            result[rows] = (values[rows] - mean) / std
        return result

    values = Rows(len(features), lambda: features.first, lambda: normalise(features.values))
    step = NormalisedIn(by, over_frames)
    made = features.replaced(values, lambda: normalise(features.copies), step)
    return replace(made, recipe=replace(made.recipe, normalise=False))


def name_corpus(predictions: pd.DataFrame) -> pd.Series:
    """Give the corpus of each prediction, with which the name of its utterance begins."""
    return predictions["utterance"].str.partition("/")[0]


def group_emotions(predictions: pd.DataFrame, group: Sequence[str]) -> pd.DataFrame:
    """Turn labels into two classes, "inside" a group of emotions or "outside".

    What is predicted is the emotion, and then its group. Groups are `HIGH_AROUSAL` and `NEGATIVE`.
    """
    kept = predictions[["utterance", "speaker", "fold", "seed"]]
    named = {
        column: np.where(predictions[column].isin(group), "inside", "outside")
        for column in ("true_label", "predicted_label")
    }
    return kept.assign(**named, correct=named["true_label"] == named["predicted_label"])
