"""Several corpora as one table."""

import warnings
from collections.abc import Iterable

import numpy as np
import pandas as pd

from common.emotions import match_emotions


def combine_corpora(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Join utterance tables into one, sorted by utterance.

    Speakers become `<corpus>/<speaker>`, so that speaker 01 of one corpus is not taken for
    speaker 01 of another. Where emotions have two names, fear and fearful, they get the usual
    one, and a warning says so. Of recordings whose bytes are in two tables the first table's stay,
    or none where their emotions differ; a warning counts those left out, and `attrs["left_out"]`,
    joined from the tables, lists them.

    Raises
    ------
    ValueError
        If there is no table, or an utterance is in two of them.
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
    again = _find_repeated(table, [len(part) for part in tables])
    if again:
        listed = "".join(f"\n  {entry['path']}: {entry['problem']}" for entry in again[:3])
        corpora = ", ".join(table["corpus"].unique())
        warnings.warn(
            f"{corpora}: left out {len(again)} of {len(table)} recordings whose bytes are in two "
            f"tables (all are listed in table.attrs['left_out']):{listed}",
            stacklevel=2,
        )
    table = table[~table["path"].isin([entry["path"] for entry in again])]
    table = table.sort_values("utterance", ignore_index=True)
    table.attrs = {"left_out": left_out + again}
    return table


def _find_repeated(table: pd.DataFrame, lengths: list[int]) -> list[dict]:
    """List path and problem of what has the bytes of a recording of another table."""
    whose = np.repeat(np.arange(len(lengths)), lengths)
    again = []
    for audio_hash, rows in table.groupby("audio_hash"):
        if not audio_hash or len({*whose[rows.index]}) < 2:
            continue
        emotions = sorted({*rows["emotion"]})
        first = rows["path"].iloc[0]
        for row in rows.itertuples():
            other = rows["path"].iloc[-1] if row.path == first else first
            if len(emotions) > 1:
                told = " and ".join(emotions)
                problem = f"the same bytes as {other}, as {told}; keep the one that is right"
            elif whose[row.Index] != whose[rows.index[0]]:
                problem = f"the same bytes as {other}; leave one of the two corpora out"
            else:
                continue
            again.append({"path": row.path, "problem": problem})
    return again
