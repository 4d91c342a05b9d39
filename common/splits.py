"""Named protocols: who trains, who validates, who is tested. Rules that decide every number."""

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations

import numpy as np
import pandas as pd
from sklearn.model_selection import GroupKFold

from common.dealing import deal_rows

# Test speakers of each fold, as published.
SPEAKER_FOLDS = {
    # Luna-Jiménez et al., Applied Sciences 2022, 12(1):327
    ("ravdess", 5): "02 05 14 15 16, 03 06 07 13 18, 10 11 12 19 20, 08 17 21 23 24, 01 04 09 22",
    # EmoBox, Ma et al. 2024, arXiv:2406.07162
    ("ravdess", 6): "01 11 20 21, 04 10 12 14, 08 09 19 23, 03 05 07 24, 02 15 16 18, 06 13 17 22",
    # EMO-SUPERB
    ("cremad", 5): ", ".join(
        " ".join(map(str, range(first, last + 1)))
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
        return replace(self, train=train, validation=self.validation[:0])


@dataclass(frozen=True)
class SplitProtocol:
    """How a table is split with a seed (`make`; None where folds are always passed).

    `speaker_independent` decides what `check_folds` demands.
    """

    title: str
    speaker_independent: bool
    make: Callable[[pd.DataFrame, int], list[Fold]] | None = None


def make_folds(table: pd.DataFrame, protocol: str, *, seed: int = 0) -> list[Fold]:
    """Split an utterance table, of one corpus or several, by a key of `PROTOCOLS`.

    `seed` chooses the random splits and the validation speakers; published test folds are fixed.
    Validation is empty where no speaker is left for it. Raises ValueError if the protocol is
    unknown or makes no folds, the corpus cannot be split so, or `check_folds` finds a leak.
    """
    make = get_protocol(protocol).make
    if make is None:
        raise ValueError(f"protocol={protocol!r} makes no folds; pass your own as folds=")
    if not table.index.equals(pd.RangeIndex(len(table))):
        raise ValueError(
            "the table's index is not 0, 1, 2 …, so row numbers would be wrong; "
            "call table.reset_index(drop=True) after filtering"
        )
    _check_labels(table)
    if table["emotion"].nunique() < 2:
        raise ValueError(
            f"{', '.join(table['corpus'].unique())}: one emotion, {table['emotion'].iloc[0]!r}, is "
            "nothing to learn; two or more are needed"
        )
    folds = make(table, seed)
    check_folds(table, folds, protocol)
    return folds


def _check_labels(table: pd.DataFrame) -> None:
    if table.empty:
        raise ValueError("the table has no rows: nothing is left to split")
    for column in ("speaker", "emotion"):
        if (missing := table[column].isna() | table[column].eq("")).any():
            raise ValueError(
                f"{table['utterance'][missing].iloc[0]}: no {column}; fill it in, or drop the row"
            )


def fit_protocols(table: pd.DataFrame, protocols: Sequence[str]) -> list[str]:
    """Give those of the protocols that a table can be split by, and warn of the others.

    Where speakers are too few for folds, or one has an emotion alone, leave_one_speaker_out takes
    their place; random folds that are too small for it are left out. Raises ValueError if nothing
    is left.
    """
    fitting, problems = [], []
    for protocol in [protocols] if isinstance(protocols, str) else protocols:
        independent = get_protocol(protocol).speaker_independent
        for name in dict.fromkeys((protocol, "leave_one_speaker_out")[: 1 + independent]):
            try:
                make_folds(table, name)
            except ValueError as error:
                problems.append(f"{name}: {error}")
            else:
                fitting += [name] if name not in fitting else []
                break
    if not fitting:
        raise ValueError("; ".join(problems) or "no protocols are given")
    if problems:
        warnings.warn(f"{'; '.join(problems)}; used: {', '.join(fitting)}", stacklevel=2)
    return fitting


def check_folds(table: pd.DataFrame, folds: Iterable[Fold], protocol: str) -> None:
    """Assert that nothing leaks from test rows into training or validation.

    Raises ValueError if the protocol is not in `PROTOCOLS`; if there are no folds, two have one
    number, or a part holds anything but row numbers; if a fold shares a row, a recording (the
    same bytes) or, in a speaker-independent protocol, a speaker between two of its parts; if a
    row is tested twice; or if a training part lacks an emotion that is tested, or there is nothing
    to train on or to test.
    """
    folds = list(folds)
    _check_labels(table)
    columns = {"row": pd.Series(table.index), "recording": table["audio_hash"]}
    if get_protocol(protocol).speaker_independent:
        columns["speaker"] = table["speaker"]
    if not folds or len({fold.number for fold in folds}) < len(folds):
        raise ValueError(f"{protocol}: no folds, or two of one number; number them 1, 2, 3 …")
    for fold in folds:
        parts = {name: getattr(fold, name) for name in ("train", "validation", "test")}
        for name, rows in parts.items():
            kind = getattr(rows, "dtype", np.dtype(object)).kind
            if kind not in "iu" or not np.isin(rows, np.arange(len(table))).all():
                raise ValueError(
                    f"{protocol}, fold {fold.number}: {name} must be an array of row numbers from "
                    f"0 to {len(table) - 1}; np.flatnonzero turns a mask into one"
                )
        if not len(fold.train) or not len(fold.test):
            raise ValueError(f"{protocol}, fold {fold.number}: no row to train on, or none to test")
        for column, values in columns.items():
            sets = {name: set(values.iloc[rows]) for name, rows in parts.items()}
            for one, other in combinations(sets, 2):
                if shared := sets[one] & sets[other]:
                    raise ValueError(
                        f"{protocol}, fold {fold.number}: {column} {sorted(shared)[:3]} is in "
                        f"{one} and in {other}; a fold must keep them apart"
                    )
        trained, needed = (set(table["emotion"].iloc[rows]) for rows in (fold.train, fold.test))
        if untrained := needed - trained:
            raise ValueError(
                f"{protocol}, fold {fold.number}: {sorted(untrained)} are tested but not trained; "
                "drop these emotions or choose another protocol"
            )
    tested = np.concatenate([fold.test for fold in folds])
    if len(np.unique(tested)) != len(tested):
        raise ValueError(f"{protocol}: a row is tested twice; give each row to one fold")


def get_protocol(name: str) -> SplitProtocol:
    """Look a protocol up; ValueError names those that there are."""
    if not isinstance(name, str) or name not in PROTOCOLS:
        raise ValueError(
            f"protocol={name!r} is unknown; choose from {sorted(PROTOCOLS)}, or register it: "
            f"PROTOCOLS[{name!r}] = SplitProtocol(title, speaker_independent=True or False)"
        )
    return PROTOCOLS[name]


def describe_folds(table: pd.DataFrame, folds: Sequence[Fold]) -> pd.DataFrame:
    """Tabulate each fold: utterances per part, speakers of validation and test."""

    def name_speakers(rows: np.ndarray) -> str:
        speakers = sorted(table["speaker"].iloc[rows].unique())
        return ", ".join(speakers) if len(speakers) <= 6 else f"{len(speakers)} speakers"

    described = pd.DataFrame(index=pd.Index([fold.number for fold in folds], name="fold"))
    for name in ("train", "validation", "test"):
        described[name] = [len(getattr(fold, name)) for fold in folds]
    for name in ("validation", "test"):
        described[f"{name} speakers"] = [name_speakers(getattr(fold, name)) for fold in folds]
    return described


def _make_fold(table: pd.DataFrame, number: int, validation, test) -> Fold:
    train = np.setdiff1d(np.arange(len(table)), np.concatenate([validation, test]))
    return Fold(number, train, np.sort(validation), np.sort(test))


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
        parts = (np.flatnonzero(table["speaker"].isin(part)) for part in (others[:wanted], group))
        folds.append(_make_fold(table, number, *parts))
    return folds


def _alternate_genders(genders: pd.Series) -> pd.Series:
    """Reorder speakers so that the sexes take turns, each in the order that it has."""
    turn = genders.groupby(genders).cumcount()
    return genders.loc[turn.sort_values(kind="stable").index]


def _fold_speakers(table: pd.DataFrame, seed: int, num_folds: int) -> list[Fold]:
    speakers = set(table["speaker"])
    corpus = "+".join(table["corpus"].unique())
    groups = SPEAKER_FOLDS.get((corpus, num_folds), "").split(",")
    published = [speakers & set(group.split()) for group in groups]
    if speakers == set.union(*published):
        return _split_by_speaker(table, [group for group in published if group], seed)
    if len(speakers) < num_folds:
        raise ValueError(
            f"{len(speakers)} speakers cannot fill {num_folds} folds; use leave_one_speaker_out"
        )
    genders = table.groupby("speaker")["gender"].first()
    order = np.random.default_rng(0).permutation(len(genders))
    dealt = list(_alternate_genders(genders.iloc[order]).index)
    return _split_by_speaker(table, [dealt[k::num_folds] for k in range(num_folds)], seed)


def _leave_out(table: pd.DataFrame, seed: int, by: str = "speaker") -> list[Fold]:
    """Test on the speakers of each value of a column, such as each speaker or each corpus."""
    groups = table.groupby(by)["speaker"].unique()
    if len(groups) < 2:
        raise ValueError(f"only {by} {[*groups.index]} is here; two are needed")
    return _split_by_speaker(table, groups, seed)


def _test_parts(table: pd.DataFrame, parts: Iterable[np.ndarray], seed: int) -> list[Fold]:
    """Test on each part; validate on a tenth of the other rows, stratified by emotion.

    Where an emotion has fewer than ten other rows, on one part of as many as it has.
    """
    folds = []
    for number, test in enumerate(parts, start=1):
        others = np.setdiff1d(np.arange(len(table)), test)
        rarest = table["emotion"].iloc[others].value_counts().min()
        num_parts = max(2, min(round(1 / VALIDATION_SHARE), rarest))
        validation = deal_rows(table, others, num_parts, seed)[0]
        folds.append(_make_fold(table, number, validation, test))
    return folds


def _random_kfold(table: pd.DataFrame, seed: int) -> list[Fold]:
    return _test_parts(table, deal_rows(table, np.arange(len(table)), 5, seed), seed)


def _random_split(table: pd.DataFrame, seed: int, count: int) -> list[Fold]:
    """One fold: of 20 parts of the rows, `count` to test and as many to validation."""
    parts = deal_rows(table, np.arange(len(table)), 20, seed)
    test, validation = np.concatenate(parts[:count]), np.concatenate(parts[count : 2 * count])
    return [_make_fold(table, 1, validation, test)]


def _sentence_out(table: pd.DataFrame, seed: int) -> list[Fold]:
    statements = table["statement"].astype(str)
    if (statements == "").any() or statements.nunique() < 2:
        raise ValueError(
            f"sentence_out needs the sentence of every utterance and at least two of them; "
            f"{', '.join(table['corpus'].unique())} does not tell; use a speaker protocol"
        )
    splits = GroupKFold(min(5, statements.nunique())).split(table, groups=statements)
    return _test_parts(table, (test for _, test in splits), seed)


PROTOCOLS = {
    "speaker_5fold": SplitProtocol(
        "5 folds by speaker", True, partial(_fold_speakers, num_folds=5)
    ),
    "speaker_6fold": SplitProtocol(
        "6 folds by speaker", True, partial(_fold_speakers, num_folds=6)
    ),
    "leave_one_speaker_out": SplitProtocol("leave one speaker out", True, _leave_out),
    "random_5fold": SplitProtocol("5 random folds", False, _random_kfold),
    "random_80_10_10": SplitProtocol("random 80/10/10", False, partial(_random_split, count=2)),
    "random_70_15_15": SplitProtocol("random 70/15/15", False, partial(_random_split, count=3)),
    "sentence_out": SplitProtocol("unheard sentences", False, _sentence_out),
    "leave_one_corpus_out": SplitProtocol("other corpora", True, partial(_leave_out, by="corpus")),
}
