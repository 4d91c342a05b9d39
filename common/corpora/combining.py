"""Several corpora as one table."""

import warnings
from collections.abc import Iterable

import numpy as np
import pandas as pd

from common.corpora.tables import list_same_bytes, show_left_out
from common.emotions import match_emotions


def combine_corpora(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Join utterance tables into one, sorted by utterance.

    Speakers become `<corpus>/<speaker>`, so that speaker 01 of one corpus is not taken for
    speaker 01 of another. Where emotions have two names, fear and fearful, they get the usual
    one, and a warning says so. Of recordings whose bytes are in two tables the first table's stay,
    or none where their emotions differ; a warning counts those left out, and `attrs["left_out"]`,
    joined from the tables, lists them.
    Raises ValueError if there is no table, or an utterance is in two of them.
    """
    tables = list(tables)
    if not tables:
        raise ValueError("no tables to combine; give at least one, as load_corpus makes it")
    table = pd.concat(tables, ignore_index=True)
    twice = table.loc[table["utterance"].duplicated(), "utterance"]
    if len(twice):
        raise ValueError(
            f"{len(twice)} utterances are in two tables, such as {twice.iloc[0]}; "
            "combine each corpus once, and name corpora of your own differently"
        )
    pairs = zip(table["corpus"] + "/", table["speaker"], strict=True)
    table["speaker"] = [prefix + speaker.removeprefix(prefix) for prefix, speaker in pairs]
    left_out = [entry for part in tables for entry in part.attrs.get("left_out", [])]
    table = table.replace({"emotion": match_emotions(table["emotion"])})
    source = pd.Series(np.repeat(np.arange(len(tables)), [len(part) for part in tables]))
    again = list_same_bytes(table, source, table["emotion"], "leave one of the two corpora out")
    if again:
        warnings.warn(
            f"{', '.join(table['corpus'].unique())}: left out {len(again)} of {len(table)} "
            "recordings whose bytes are in two tables (all are listed in "
            f"table.attrs['left_out']):{show_left_out(again)}",
            stacklevel=2,
        )
    table = table[~table["path"].isin([entry["path"] for entry in again])]
    table = table.sort_values("utterance", ignore_index=True)
    table.attrs = {"left_out": left_out + again}
    return table
