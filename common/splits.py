"""Named protocols: who trains, who validates, who is tested. Rules that decide every number."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

# Test speakers of each fold, as published.
SPEAKER_FOLDS = {
    ("ravdess", 5): (  # Luna-Jiménez et al., Applied Sciences 2022, 12(1):327
        ("02", "05", "14", "15", "16"),
        ("03", "06", "07", "13", "18"),
        ("10", "11", "12", "19", "20"),
        ("08", "17", "21", "23", "24"),
        ("01", "04", "09", "22"),
    ),
    ("ravdess", 6): (  # EmoBox, Ma et al. 2024, arXiv:2406.07162
        ("01", "11", "20", "21"),
        ("04", "10", "12", "14"),
        ("08", "09", "19", "23"),
        ("03", "05", "07", "24"),
        ("02", "15", "16", "18"),
        ("06", "13", "17", "22"),
    ),
    ("cremad", 5): tuple(  # EMO-SUPERB
        tuple(str(speaker) for speaker in range(first, last + 1))
        for first, last in ((1037, 1054), (1001, 1018), (1073, 1091), (1055, 1072), (1019, 1036))
    ),
}
VALIDATION_SHARE = 0.1


@dataclass(frozen=True)
class Fold:
    """Row numbers of an utterance table; the three arrays are sorted and share no row."""

    number: int
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray

    def join_validation(self) -> "Fold":
        """The same test rows, all others to train on."""
        train = np.sort(np.concatenate([self.train, self.validation]))
        return Fold(self.number, train, self.validation[:0], self.test)


@dataclass(frozen=True)
class SplitProtocol:
    """How the test rows are chosen. `speaker_independent` decides what `check_folds` demands."""

    title: str
    speaker_independent: bool
    make: Callable[[pd.DataFrame, int], list[Fold]]


def make_folds(table: pd.DataFrame, protocol: str, *, seed: int = 0) -> list[Fold]:
    """Split a table by a named protocol.

    Parameters
    ----------
    table
        An utterance table of one corpus or several.
    protocol
        A key of `PROTOCOLS`.
    seed
        Chooses the random splits and the validation speakers; published test folds are fixed.

    Returns
    -------
    list of Fold
        Checked by `check_folds`. `validation` is empty where no speaker is left for it.

    Raises
    ------
    ValueError
        If the protocol is unknown or the corpus cannot be split so.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol={protocol!r} is unknown; choose from {sorted(PROTOCOLS)}")
    if not isinstance(table.index, pd.RangeIndex) or table.index.start or table.index.step != 1:
        raise ValueError(
            "the table's index is not 0, 1, 2 …, so row numbers would be wrong; "
            "call table.reset_index(drop=True) after filtering"
        )
    folds = PROTOCOLS[protocol].make(table, seed)
    check_folds(table, folds, protocol)
    return folds


def check_folds(table: pd.DataFrame, folds: Iterable[Fold], protocol: str) -> None:
    """Assert that nothing leaks from test rows into training or validation.

    Raises
    ------
    ValueError
        If a fold shares a row, a recording (the same bytes) or, in a speaker-independent
        protocol, a speaker between two of its parts; if a row is tested twice; or if a
        training part lacks an emotion that is tested.
    """
    tested = np.concatenate([fold.test for fold in folds])
    if len(np.unique(tested)) != len(tested):
        raise ValueError(f"{protocol}: a row is tested twice; give each row to one fold")
    columns = {"row": pd.Series(table.index), "recording": table["audio_hash"]}
    if PROTOCOLS[protocol].speaker_independent:
        columns["speaker"] = table["speaker"]
    for fold in folds:
        parts = {name: getattr(fold, name) for name in ("train", "validation", "test")}
        for column, values in columns.items():
            sets = {name: set(values.iloc[rows]) for name, rows in parts.items()}
            for one, other in (("train", "test"), ("validation", "test"), ("train", "validation")):
                shared = sets[one] & sets[other]
                if shared:
                    raise ValueError(
                        f"{protocol}, fold {fold.number}: {column} {sorted(shared)[:3]} is in "
                        f"{one} and in {other}; a fold must keep them apart"
                    )
        untrained = set(table["emotion"].iloc[fold.test]) - set(table["emotion"].iloc[fold.train])
        if untrained:
            raise ValueError(
                f"{protocol}, fold {fold.number}: {sorted(untrained)} are tested but not trained; "
                "drop these emotions or choose another protocol"
            )


def describe_folds(table: pd.DataFrame, folds: Iterable[Fold]) -> pd.DataFrame:
    """Tabulate each fold: utterances per part, speakers of validation and test."""
    return pd.DataFrame(
        {
            "fold": fold.number,
            "train": len(fold.train),
            "validation": len(fold.validation),
            "test": len(fold.test),
            "validation speakers": _name_speakers(table, fold.validation),
            "test speakers": _name_speakers(table, fold.test),
        }
        for fold in folds
    ).set_index("fold")


def _name_speakers(table: pd.DataFrame, rows: np.ndarray) -> str:
    speakers = sorted(table["speaker"].iloc[rows].unique())
    return ", ".join(speakers) if len(speakers) <= 6 else f"{len(speakers)} speakers"


def _make_fold(table: pd.DataFrame, number: int, is_validation, is_test) -> Fold:
    rows = np.arange(len(table))
    is_train = ~(is_validation | is_test)
    return Fold(number, rows[is_train], rows[is_validation], rows[is_test])


def _split_by_speaker(table: pd.DataFrame, test_groups, seed: int) -> list[Fold]:
    """Test on each group of speakers; validate on a tenth of the others, both sexes in turn.

    At least one speaker validates, unless that would leave fewer than three to train.
    """
    genders = table.groupby("speaker")["gender"].first()
    rng = np.random.default_rng(seed)
    folds = []
    for number, group in enumerate(test_groups, start=1):
        shuffled = genders.iloc[rng.permutation(len(genders))]
        others = _alternate_genders(_alternate_genders(shuffled).drop(list(group))).index
        wanted = max(1, round(VALIDATION_SHARE * len(others))) if len(others) > 3 else 0
        is_test = table["speaker"].isin(group).to_numpy()
        is_validation = table["speaker"].isin(others[:wanted]).to_numpy()
        folds.append(_make_fold(table, number, is_validation, is_test))
    return folds


def _alternate_genders(genders: pd.Series) -> pd.Series:
    """Reorder speakers so that the sexes take turns, each in the order that it has."""
    turn = genders.groupby(genders).cumcount()
    return genders.loc[turn.sort_values(kind="stable").index]


def _make_speaker_folds(num_folds: int) -> Callable[[pd.DataFrame, int], list[Fold]]:
    def make(table: pd.DataFrame, seed: int) -> list[Fold]:
        speakers = sorted(table["speaker"].unique())
        corpora = table["corpus"].unique()
        published = SPEAKER_FOLDS.get((corpora[0], num_folds)) if len(corpora) == 1 else None
        if published and set(speakers) <= {speaker for group in published for speaker in group}:
            groups = [tuple(set(group) & set(speakers)) for group in published]
            return _split_by_speaker(table, [group for group in groups if group], seed)
        if len(speakers) < num_folds:
            raise ValueError(
                f"{len(speakers)} speakers cannot fill {num_folds} folds; use leave_one_speaker_out"
            )
        genders = table.groupby("speaker")["gender"].first()
        order = np.random.default_rng(0).permutation(len(genders))
        dealt = list(_alternate_genders(genders.iloc[order]).index)
        return _split_by_speaker(table, [dealt[k::num_folds] for k in range(num_folds)], seed)

    return make


def _leave_one_speaker_out(table: pd.DataFrame, seed: int) -> list[Fold]:
    speakers = sorted(table["speaker"].unique())
    if len(speakers) < 2:
        raise ValueError(f"only speaker {speakers} is here; two are needed to leave one out")
    return _split_by_speaker(table, [(speaker,) for speaker in speakers], seed)


def _choose_rows(
    table: pd.DataFrame, candidates: np.ndarray, share: float, seed: int
) -> np.ndarray:
    """Draw about `share` of the candidate rows, stratified by emotion, copies kept together."""
    chosen = _deal_rows(table, candidates, max(2, round(1 / share)), seed)[0]
    return np.isin(np.arange(len(table)), chosen)


def _deal_rows(
    table: pd.DataFrame, rows: np.ndarray, num_parts: int, seed: int
) -> list[np.ndarray]:
    """Deal rows into equal parts, stratified by emotion, copies of a recording kept together."""
    part = table.iloc[rows]
    counts = part["emotion"].value_counts()
    if counts.min() < num_parts:
        raise ValueError(
            f"only {counts.min()} utterances of {counts.idxmin()!r} are here to be dealt into "
            f"{num_parts} parts; add some, drop this emotion, or use a speaker protocol"
        )
    splitter = StratifiedGroupKFold(num_parts, shuffle=True, random_state=seed)
    return [rows[chosen] for _, chosen in splitter.split(part, part["emotion"], part["audio_hash"])]


def _random_kfold(table: pd.DataFrame, seed: int) -> list[Fold]:
    rows = np.arange(len(table))
    folds = []
    for number, test in enumerate(_deal_rows(table, rows, 5, seed), start=1):
        is_test = np.isin(rows, test)
        is_validation = _choose_rows(table, rows[~is_test], VALIDATION_SHARE, seed)
        folds.append(_make_fold(table, number, is_validation, is_test))
    return folds


def _make_random_split(share: float) -> Callable[[pd.DataFrame, int], list[Fold]]:
    """One fold: `share` of the rows to test, as many to validation."""

    def make(table: pd.DataFrame, seed: int) -> list[Fold]:
        # Parts of 1/20, of which the first go to test and the next to validation.
        rows = np.arange(len(table))
        parts = _deal_rows(table, rows, 20, seed)
        count = round(share * 20)
        is_test = np.isin(rows, np.concatenate(parts[:count]))
        is_validation = np.isin(rows, np.concatenate(parts[count : 2 * count]))
        return [_make_fold(table, 1, is_validation, is_test)]

    return make


def _sentence_out(table: pd.DataFrame, seed: int) -> list[Fold]:
    statements = table["statement"].astype(str)
    if (statements == "").any() or statements.nunique() < 2:
        raise ValueError(
            f"sentence_out needs the sentence of every utterance and at least two of them; "
            f"{', '.join(table['corpus'].unique())} does not tell; use a speaker protocol"
        )
    splitter = GroupKFold(min(5, statements.nunique()))
    folds = []
    splits = splitter.split(table, groups=statements)
    for number, (rest, test) in enumerate(splits, start=1):
        is_test = np.isin(np.arange(len(table)), test)
        is_validation = _choose_rows(table, rest, VALIDATION_SHARE, seed)
        folds.append(_make_fold(table, number, is_validation, is_test))
    return folds


PROTOCOLS = {
    "speaker_5fold": SplitProtocol("5 folds by speaker", True, _make_speaker_folds(5)),
    "speaker_6fold": SplitProtocol("6 folds by speaker", True, _make_speaker_folds(6)),
    "leave_one_speaker_out": SplitProtocol("leave one speaker out", True, _leave_one_speaker_out),
    "random_5fold": SplitProtocol("5 random folds", False, _random_kfold),
    "random_80_10_10": SplitProtocol("random 80/10/10", False, _make_random_split(0.1)),
    "random_70_15_15": SplitProtocol("random 70/15/15", False, _make_random_split(0.15)),
    "sentence_out": SplitProtocol("unheard sentences", False, _sentence_out),
}


def rank_protocol(name: str) -> int:
    """Place of a protocol in tables and figures: as in `PROTOCOLS`, unknown ones last."""
    return list(PROTOCOLS).index(name) if name in PROTOCOLS else len(PROTOCOLS)
