"""Equal parts of the rows of a table, for random splits."""

from functools import lru_cache

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold


def deal_rows(table: pd.DataFrame, rows: np.ndarray, num_parts: int, seed: int) -> list:
    """Deal rows into equal parts, stratified by emotion, copies of a recording kept together.

    `rows` are row numbers of the table; returned are those of each part. Raises ValueError if an
    emotion has fewer rows than there are parts.
    """
    part = table.iloc[rows]
    counts = part["emotion"].value_counts()
    if counts.min() < num_parts:
        raise ValueError(
            f"only {counts.min()} utterances of {counts.idxmin()!r} are here to be dealt into "
            f"{num_parts} parts; add some, drop this emotion, or use a speaker protocol"
        )
    columns = (tuple(part[name]) for name in ("emotion", "audio_hash"))
    return [rows[chosen] for chosen in _deal(*columns, num_parts, seed)]


@lru_cache(maxsize=128)
def _deal(emotions: tuple, recordings: tuple, num_parts: int, seed: int) -> list[np.ndarray]:
    splitter = _QuickStratifiedGroupKFold(num_parts, shuffle=True, random_state=seed)
    return [chosen for _, chosen in splitter.split(emotions, emotions, recordings)]


class _QuickStratifiedGroupKFold(StratifiedGroupKFold):
    """The parts of `StratifiedGroupKFold`, found by one pass over arrays per group.

    Scikit-learn tries a group in each part by a call of its own, which takes seconds for a
    thousand recordings of which each is a group. A scikit-learn that looks for the part by
    another method than this one is as slow as ever, and as right.
    """

    def _find_best_fold(self, y_counts_per_fold, y_cnt, group_y_counts) -> int:
        """Number of the part in which a group leaves the classes most evenly spread.

        Counts are floats of shapes (parts, classes), (classes,) and (classes,).
        """
        numbers = np.arange(self.n_splits)
        tried = np.repeat(y_counts_per_fold[None], self.n_splits, axis=0)
        tried[numbers, numbers] += group_y_counts
        unevenness = np.std(tried / y_cnt, axis=1).mean(axis=1)
        sizes = y_counts_per_fold.sum(axis=1)
        best = 0
        for part in numbers[1:]:
            gap = unevenness[part] - unevenness[best]
            tied = gap <= 1e-8 + 1e-5 * unevenness[best]  # numpy.isclose
            if gap < 0 or (tied and sizes[part] < sizes[best]):
                best = part
        return int(best)
