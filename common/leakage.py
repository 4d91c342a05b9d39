"""Leakage audit: what of the test part reaches training, in anyone's split.

    python -m common.leakage split.csv

prints a page of findings and exits with 0 if the split is clean, 1 if it is not, 2 if it cannot be
read. Kinds of leakage: Kapoor and Narayanan, "Leakage and the reproducibility crisis in
machine-learning-based science", Patterns 2023.
"""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from common.audio import load_waveform
from common.csv_files import read_csv
from common.emotions import PARTS, name_emotion
from common.files import hash_file
from common.fingerprints import compute_fingerprint, find_same_sound
from common.leak_checks import (
    CEILINGS,
    SEVERITIES,
    Finding,
    Rows,
    check_copies,
    check_labels,
    check_score,
    check_speakers,
    check_statistics,
    check_support_of_parts,
    find_crossing,
)
from common.splits import Fold

COLUMNS = {
    "path": ("file", "filename", "file_name", "wav", "audio"),
    "hash": ("audio_hash", "sha256", "md5"),
    "speaker": ("actor", "speaker_id", "subject"),
    "sentence": ("statement", "text", "transcript", "phrase"),
    "label": ("emotion", "class", "target"),
    "part": ("split", "subset", "set", "partition"),
    "fold": ("test_fold",),
    "corpus": ("dataset", "database"),
}
KNOWN = {"hash": "bytes", "speaker": "speakers", "sentence": "sentences", "label": "labels"}
SPELLINGS = {  # how the same is written alike
    "hash": str.lower,
    "speaker": lambda name: re.sub(r"^0+(?=\d+$)", "", name.casefold()),
    "label": name_emotion,
}


@dataclass(frozen=True)
class Audit:
    """What an audit found, and what it could look at."""

    findings: pd.DataFrame  # one row per Finding
    looked_at: tuple[str, ...]
    not_looked_at: tuple[str, ...]

    @property
    def clean(self) -> bool:
        """Whether there is nothing but notes."""
        return self.findings["severity"].eq("note").all()

    def __str__(self) -> str:
        lines = ["No leak was found." if self.clean else "The split leaks, or may."]
        for row in self.findings.itertuples():
            lines += ["", f"{row.severity.upper()}: {row.kind}, {row.count}", f"  {row.examples}"]
            lines += [f"  {row.meaning}", f"  Remedy: {row.remedy}"]
        lines += ["", f"Looked at: {', '.join(self.looked_at)}."]
        lines += [f"Not looked at: {reason}." for reason in self.not_looked_at]
        return "\n".join(lines)


def audit(
    split: pd.DataFrame | str | Path,
    *,
    folds: Sequence[Fold] | None = None,
    folder: str | Path | None = None,
    sound: bool = True,
    corpus: str | None = None,
    score: float | None = None,
    features: np.ndarray | None = None,
    statistics: tuple[np.ndarray, np.ndarray] | None = None,
) -> Audit:
    """Look for what of the test part reaches training.

    Parameters
    ----------
    split
        A table, a row per recording, or the CSV file of one. It has `path`, `hash` or both; may
        have `speaker`, `sentence` and `label`; and has `part` (train, validation, test), or `fold`,
        the fold that tests the row while the others train, or both: each fold then has its own
        rows of every part. Other usual names are understood, and paths as Windows writes them.
    folds
        Of an utterance table, as `make_folds` gives them, in the place of `part` and `fold`.
    folder
        Where relative paths start; by default that of the CSV, or the working one.
    sound
        Whether recordings are read, for their fingerprints (`common.fingerprints`) and, where no
        hash is given, their bytes. This is what takes time, and every row needs a path.
    corpus
        A key of `CEILINGS`; by default what a column of that name says.
    score
        UAR or WA that was reached, from 0 to 1: is it plausible (`CEILINGS`)?
    features, statistics
        What the model read, (rows, …, bands), and the mean and the standard deviation, (bands,)
        both, that it was normalised by: were they measured on training rows?

    Raises FileNotFoundError if there is no such CSV; ValueError if a column that is needed is
    missing or there twice, a part is blank or has a name that is not understood, a fold has nothing
    to train on or to test, or corpus or score are unknown.
    """
    table, base = _read_table(split)
    parts = _list_parts(table, folds)
    looked_at, absent = ["names"] * ("path" in table), []
    if (blank := table[[*{"path", "hash"} & {*table}]].isna().all(axis=1)).any():
        place = table["place"][blank].iloc[0]
        raise ValueError(f"{place}: neither path nor hash; name its recording, or drop it")
    table["recording"] = _name_recordings(table)
    reason = "no path is given" if "path" not in table else "" if sound else "sound is off"
    if not reason and (blank := table["path"].isna()).any():
        first = table["place"][blank].iloc[0]
        reason = f"{blank.sum()} of {len(table)} rows have no path, such as {first}; fill it in"
    if reason:
        absent.append(f"near duplicates, {reason}")
    else:
        _listen(table, Path(folder or base), looked_at, absent)
    for column, said in KNOWN.items():
        count = table[column].notna().sum() if column in table else 0
        if count:
            part = f" of {count} of {len(table)} rows" if count < len(table) else ""
            looked_at.append(said + part)
        elif column != "label":
            absent.append(f"{said}, which no row tells")
    named = table["corpus"].dropna().unique() if "corpus" in table else []
    if corpus and corpus.lower() not in CEILINGS:
        raise ValueError(f"corpus={corpus!r} is unknown; choose from {sorted(CEILINGS)}")
    corpus = (corpus or (named[0] if len(named) == 1 else "")).lower()
    if score is not None and not 0 <= score <= 1:
        raise ValueError(f"score={score}: give UAR or WA from 0 to 1")
    if score is not None and corpus not in CEILINGS:
        absent.append(f"the score, since no corpus of {sorted(CEILINGS)} is named")
    told = "speaker" in table and table["speaker"].notna().all()
    independent = told and not find_crossing(table, parts, "speaker", "train", "test")
    findings = [
        *check_copies(table, parts),
        *check_labels(table),
        *check_speakers(table, parts, independent),
        *check_support_of_parts(table, parts, corpus),
        *check_statistics(parts, features, statistics),
        *check_score(corpus, score, independent or "speaker" not in table),
    ]
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    columns = [field.name for field in fields(Finding)]
    return Audit(pd.DataFrame(findings, columns=columns), tuple(looked_at), tuple(absent))


def _read_table(split: pd.DataFrame | str | Path) -> tuple[pd.DataFrame, Path]:
    """The table with those of `COLUMNS` that say anything, and where its relative paths start.

    Text is brought to one form, so that the same is told alike; `place` says where each row is.
    """
    base, name = Path(), "the table"
    if not isinstance(split, pd.DataFrame):
        base, name = Path(split).parent, str(split)
        split = read_csv(Path(split), {*COLUMNS}.union(*COLUMNS.values()))
    names = [str(column).strip().lower() for column in split]
    table = pd.DataFrame({"place": [f"{name}, row {row}" for row in split.index]})
    for column, others in COLUMNS.items():
        known = [number for number, found in enumerate(names) if found in (column, *others)]
        exact = [number for number in known if names[number] == column] or known[:1]
        if len(exact) > 1:
            raise ValueError(f"{name}: two columns {column!r}; keep the one that is right")
        text = split.iloc[:, exact].astype(str).squeeze(axis=1).str.strip() if exact else None
        if exact and (text := text.mask(text.isin(["", "nan", "None"]))).notna().any():
            table[column] = text.map(SPELLINGS.get(column, str), na_action="ignore").to_numpy()
    if table.empty or not {"path", "hash"} & {*table}:
        raise ValueError(
            f"{name}: no rows, or neither 'path' nor 'hash' among its columns {[*split]}; a "
            "recording must be told from another"
        )
    return table, base


def _name_recordings(table: pd.DataFrame) -> pd.Series:
    """The hash of the bytes, where there is none the path."""
    names = [table[column] for column in ("hash", "path") if column in table]
    return names[0].fillna(names[-1])


def _list_parts(table: pd.DataFrame, folds: Sequence[Fold] | None) -> list[Rows]:
    """The rows of each part, fold by fold; refuse what leaves nothing to compare."""
    rows, names = np.arange(len(table)), set(PARTS.values())
    for column in ("part", "fold") if folds is None else ():
        if column in table and (blank := table[column].isna()).any():
            raise ValueError(f"{table['place'][blank].iloc[0]}: no {column}; fill it in")
    if folds is not None:
        parts = [{name: np.asarray(getattr(fold, name)) for name in names} for fold in folds]
        if not all(np.isin(given, rows).all() for part in parts for given in part.values()):
            raise ValueError(f"folds= has other rows than 0 to {rows[-1]}, those of the table")
    elif not {"part", "fold"} & {*table}:
        raise ValueError(
            "no column 'part' or 'fold': say of each row whether it trains or is tested"
        )
    else:
        named = table["part"].str.lower().map(PARTS) if "part" in table else None
        if named is not None and (strange := named.isna()).any():
            raise ValueError(
                f"{table['place'][strange].iloc[0]}: part {table['part'][strange].iloc[0]!r} is "
                "not understood; write train, validation or test"
            )
        numbers = table["fold"] if "fold" in table else pd.Series("", table.index)
        parts = []
        for number in numbers.unique():
            here = numbers.eq(number)
            told = here.map({True: "test", False: "train"}) if named is None else named.where(here)
            parts.append({name: rows[told.eq(name)] for name in names})
    for number, part in enumerate(parts, start=1):
        if lacking := [name for name in ("train", "test") if not len(part[name])]:
            raise ValueError(
                f"fold {number} of {len(parts)}: no row is in {' nor in '.join(lacking)}, so there "
                "is nothing to compare; give the rows of both"
            )
    if not parts:
        raise ValueError("folds=[]: there is nothing to compare; give one fold or more")
    return parts


def _listen(table: pd.DataFrame, folder: Path, looked_at: list[str], absent: list[str]) -> None:
    """Give each row its hash, and one number in the column `sound` to those that sound alike."""
    places = [_find_file(folder, path) for path in table["path"]]
    if "hash" not in table:
        able = (os.path.isfile(place) and os.access(place, os.R_OK) for place in places)
        hashes = zip(places, able, strict=True)
        table["hash"] = [hash_file(place) if readable else None for place, readable in hashes]
        table["recording"] = _name_recordings(table)
    once = table.drop_duplicates("recording")
    listen = (delayed(_try_fingerprint)(places[row]) for row in once.index)
    prints = Parallel(n_jobs=-1, prefer="threads")(listen)
    heard = [number for number, found in enumerate(prints) if not isinstance(found, str)]
    told = zip(once["place"], prints, strict=True)
    failed = [f"{place}: {found}" for place, found in told if isinstance(found, str)]
    if failed:
        absent.append(f"near duplicates of {len(failed)} recordings ({failed[0]})")
    if heard:
        looked_at.append("sound")
        pairs = find_same_sound([prints[number] for number in heard])
        ends = [np.array(heard)[pairs[end]] for end in ("first", "second")]
        graph = coo_array((np.ones(len(pairs)), ends), shape=(len(once), len(once)))
        numbers = connected_components(graph, directed=False)[1]
        table["sound"] = table["recording"].map(pd.Series(numbers, once["recording"]))


def _find_file(folder: Path, text: str) -> Path:
    """The file that a path means; only if there is none, one with slashes for backslashes."""
    path, other = folder / text, folder / text.replace("\\", "/")
    return other if os.path.isfile(other) and not os.path.isfile(path) else path


def _try_fingerprint(path: Path) -> tuple[np.ndarray, np.ndarray] | str:
    try:
        return compute_fingerprint(load_waveform(path))
    except (OSError, ValueError) as error:
        return str(error)


def main(arguments: Sequence[str] | None = None) -> int:
    """Audit the split of a CSV file; give the exit status."""
    parser = argparse.ArgumentParser(prog="python -m common.leakage", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("split", help="CSV, a row per recording: path or hash, speaker, part, …")
    parser.add_argument("--folder", help="where relative paths start; by default that of the CSV")
    parser.add_argument("--corpus", help=f"one of {', '.join(CEILINGS)}")
    parser.add_argument("--score", type=float, help="UAR or WA that was reached, from 0 to 1")
    parser.add_argument("--no-sound", action="store_true", help="read no recordings")
    given = parser.parse_args(arguments)
    settings = {"folder": given.folder, "corpus": given.corpus, "score": given.score}
    try:
        report = audit(given.split, sound=not given.no_sound, **settings)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    print(report)
    return 0 if report.clean else 1


if __name__ == "__main__":
    sys.exit(main())
