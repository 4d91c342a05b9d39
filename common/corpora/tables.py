"""From a corpus folder, or a folder of one's own, to its utterance table."""

import re
import warnings
from collections import Counter, defaultdict
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from common.audio import list_notes
from common.corpora.fetching import fetch_corpus
from common.corpora.labels import read_csv_labels, read_folder_labels
from common.corpora.recordings import (
    COLUMNS,
    explain_part,
    find_corpus,
    list_audio,
    list_recordings,
    parse_path,
    scan_recordings,
)
from common.corpora.records import CORPORA, Corpus
from common.emotions import match_emotions
from common.files import NAME_PART

ZEROS = re.compile(r"^0+(?=\d)|(?<=\d)\.0+$")  # 01, 1 and 1.0
# What spreadsheets run when they open a table of results; -1 is a number, - is nothing.
FORMULA = re.compile(r"[=@+]|-(?![\d.,]*$)")


def load_corpus(
    name: str, *, folder: str | Path | None = None, include_song: bool = False
) -> pd.DataFrame:
    """Make the utterance table of a corpus of `CORPORA`: a row per usable recording, sorted.

    The columns are `COLUMNS`: seconds as a number, all others as text; `audio_hash` is the SHA-256
    of the file. `folder` is by default data/raw/<name>, and data/sample for the sample;
    `include_song` takes RAVDESS's sung recordings, 03-02-…, too.

    Every recording is read once to see that it is usable; what was seen is cached. What cannot
    be used, has a name outside the grammar, is a second copy of another file, or has the bytes of
    a recording of another emotion or speaker is left out: one warning counts them, and
    `table.attrs["left_out"]` lists path and problem. Another warning says where a part of the
    corpus is there.

    Raises FileNotFoundError, which says how to get the corpus, if the folder or all audio is
    missing; ValueError if the corpus is unknown, or no recording in the folder is usable.
    """
    corpus, folder = find_corpus(name, folder)
    rows, left_out = [], []
    for path in list_recordings(corpus, folder, left_out=left_out):
        try:
            labels = parse_path(corpus, path.as_posix(), include_song=include_song)
            rows.append({"path": str(path), **labels})
        except ValueError as error:
            left_out.append({"path": str(path), "problem": str(error)})
    spoken = {row["utterance"] for row in rows}
    spoken = {name for name in spoken if re.search(f"/{corpus.pattern}$", name)}  # not sung
    if rows and len(spoken) < corpus.num_utterances:
        warnings.warn(explain_part(corpus, folder, len(spoken)), stacklevel=2)
    return _make_table(rows, left_out, name=name, folder=folder)


def load_folder(
    folder: str | Path, *, csv: str | Path | None = None, name: str = "my_corpus"
) -> pd.DataFrame:
    """Make the utterance table of a corpus of one's own.

    Without `csv`, folders are emotions, or speakers with emotions below them or above them, and
    else the speaker is the file name up to its first "_": `angry/anna_01.wav` is Anna. A file
    without "_" counts as its own speaker, and a warning says so: then nothing keeps one person
    out of both training and test. Of recordings with the same bytes the first is kept, or none
    where their labels differ.

    A `csv` has the columns path (below `folder`), emotion and speaker; gender ("unknown" where it
    is not given), intensity, statement and repetition are taken over if they are there. Recordings
    that it does not name are left out. Emotions by two names, joy and happiness, become one.
    Results are filed under `name`. The table is as that of `load_corpus`.

    Raises FileNotFoundError if the folder, its audio or the CSV is missing; ValueError if the name
    or the CSV cannot be used, if it cannot be told what is an emotion and who speaks, or if no
    recording is usable.
    """
    if not NAME_PART.fullmatch(name):
        raise ValueError(f"name={name!r}: use letters and digits, joined by single '_', '-' or '.'")
    folder = Path(folder).expanduser().resolve()
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; give the one that holds the corpus")
    left_out: list[dict] = []
    if csv is None:
        files = list_audio(folder, left_out=left_out)
        if not files:
            raise FileNotFoundError(
                f"{folder}: no audio below it; put recordings into one sub-folder per emotion, "
                f"such as {folder / 'angry' / 'anna_01.wav'}"
            )
        listed = read_folder_labels(folder, files)
    else:
        listed = read_csv_labels(Path(csv).expanduser(), folder)
        left_out += _list_unnamed(listed, folder, csv)
    merged = match_emotions(labels["emotion"].casefold() for labels in listed)
    said = defaultdict(set)
    for labels in listed:
        missing = [column for column in ("emotion", "speaker") if not labels[column]]
        if missing and csv is None:
            remedy = f"sort it into a folder named after its {missing[0]}"
            labels["problem"] = f"no {missing[0]}; {remedy}"
        elif missing:
            labels.setdefault("problem", f"no {' and no '.join(missing)}; fill it in")
        for column, text in [*labels.items()]:
            if FORMULA.match(text) and column != "path":
                remedy = "rename it" if csv is None else "write a word"
                labels.setdefault("problem", f"{column} is a formula, {text!r}; {remedy}")
        emotion = labels["emotion"].casefold()
        labels["emotion"] = merged.get(emotion, emotion)
        if "problem" not in labels:
            said[labels["path"]].add(f"{labels['emotion']} of {labels['speaker']}")
    stems = {path: str(PurePosixPath(path).with_suffix("")) for path in said}
    num_alike = Counter(stems.values())  # a.wav and a.flac
    rows, seen = [], set()
    for labels in listed:
        path = labels["path"]
        problem = labels.pop("problem", "")
        if not problem and len(said[path]) > 1:
            problem = f"{csv} says {' and '.join(sorted(said[path]))}; keep the row that is right"
        elif not problem and path in seen:
            problem = f"{csv} names it twice; remove one row"
        if problem:
            left_out.append({"path": str(folder / path), "problem": problem})
            continue
        seen.add(path)
        blank = {"gender": "unknown", "intensity": "", "statement": "", "repetition": ""}
        given = {column: value for column, value in labels.items() if value}
        own = {"utterance": f"{name}/{stems[path] if num_alike[stems[path]] == 1 else path}"}
        rows.append(blank | given | own | {"path": str(folder / path), "corpus": name})
    spelled = defaultdict(set)
    for row in rows:
        spelled[ZEROS.sub("", row["speaker"].casefold())].add(row["speaker"])
    if alike := [" and ".join(sorted(names)) for names in spelled.values() if len(names) > 1]:
        warnings.warn(
            f"{name}: speakers {', '.join(alike)} differ in upper case or zeros alone, so one "
            "person may be in training and test: write them alike if they are one",
            stacklevel=2,
        )
    return _make_table(rows, left_out, name=name, folder=folder, own=True)


def open_corpus(
    corpus: str | None,
    *,
    folder: str | Path | None = None,
    csv: str | Path | None = None,
    optional: bool = False,
) -> pd.DataFrame | None:
    """Fetch and load a corpus of `CORPORA`, or load a folder or CSV of one's own by that name.

    `folder` and `csv` are as in `load_corpus` and `load_folder`. An `optional` one that is None,
    or can be neither found nor fetched, gives None, and a line says how to get it. Raises
    ValueError too if a CSV lists other recordings than those of the corpus whose name they are to
    be filed under.
    """
    if corpus is None:
        return None
    if corpus not in CORPORA or csv is not None:
        if folder is None and csv is None:
            raise ValueError(
                f"unknown corpus {corpus!r}; choose one of {', '.join(CORPORA)}, or give the "
                "folder of your own recordings"
            )
        own = load_folder(folder or Path(csv).expanduser().parent, csv=csv, name=corpus)
        if corpus in CORPORA and corpus != "sample":
            _refuse_other_recordings(own, CORPORA[corpus])
        return own
    try:
        fetch_corpus(corpus, folder=folder)
        return load_corpus(corpus, folder=folder)
    except OSError as error:
        if not optional:
            raise
        warnings.warn(f"{corpus} is left out: {error}", stacklevel=2)
        return None


def _refuse_other_recordings(table: pd.DataFrame, corpus: Corpus) -> None:
    for path in table["path"]:
        try:
            parse_path(corpus, Path(path).as_posix(), include_song=True)
        except ValueError:
            raise ValueError(
                f"{path} is no recording of {corpus.title}, and would be filed as one: give your "
                "corpus a name of its own, such as corpus = 'my_corpus'"
            ) from None


def draw_balanced(table: pd.DataFrame, most: int, *, seed: int = 0) -> np.ndarray:
    """Draw at most so many utterances of each speaker and emotion; give their row numbers, sorted.

    A larger `most` holds what a smaller one draws.
    """
    order = np.random.default_rng(seed).permutation(len(table))
    speakers = table[["speaker", "emotion"]].reset_index(drop=True).iloc[order]
    return np.sort(speakers.groupby(["speaker", "emotion"]).head(most).index.to_numpy())


def _list_unnamed(listed: list[dict], folder: Path, csv: str | Path) -> list[dict]:
    """List path and problem of what lies below a folder and is no recording that a CSV names."""
    named = set()
    for labels in listed:
        if "problem" not in labels:
            place = (folder / labels["path"]).resolve()
            named |= {place, *place.parents}
    beside: list[dict] = []
    problem = f"{csv} does not name it; add a row for it"
    files = list_audio(folder, left_out=beside)
    beside += [{"path": str(file), "problem": problem} for file in files]
    return [entry for entry in beside if Path(entry["path"]).resolve() not in named]


def list_same_bytes(
    table: pd.DataFrame, source: pd.Series, label: pd.Series, remedy: str
) -> list[dict]:
    """List path and problem of recordings whose bytes are in two sources.

    Those of the first source stay, if all have one label. The remedy is for the others.
    """
    left_out = []
    repeated = table["audio_hash"].ne("") & table["audio_hash"].duplicated(keep=False)
    told = table.assign(source=source, label=label)[repeated]
    for _, rows in told.groupby("audio_hash"):
        labels, paths = sorted({*rows["label"]}), [*rows["path"]]
        if len({*rows["source"]}) < 2:
            continue
        for row in rows.itertuples():
            problem = f"the same bytes as {paths[0] if row.path != paths[0] else paths[-1]}"
            if len(labels) > 1:
                problem += f", as {' and '.join(labels)}; keep the one that is right"
            elif row.source != rows["source"].iloc[0]:
                problem += f"; {remedy}"
            else:
                continue
            left_out.append({"path": row.path, "problem": problem})
    return left_out


def show_left_out(left_out: list[dict]) -> str:
    """The first three, a line each, and how many more there are."""
    lines = [f"{entry['path']}: {entry['problem']}" for entry in left_out[:3]]
    lines += [f"and {len(left_out) - 3} more"] if len(left_out) > 3 else []
    return "".join(f"\n  {line}" for line in lines)


def _make_table(
    rows: list[dict], left_out: list[dict], *, name: str, folder: Path, own: bool = False
) -> pd.DataFrame:
    """Scan recordings whose labels are known; keep the first usable one of each, tell the rest."""
    first: dict[str, str] = {}
    usable, noted = [], defaultdict(list)
    scans = scan_recordings([Path(row["path"]) for row in rows], folder)
    for row, scan in zip(rows, scans, strict=True):
        problem = scan["problem"]
        if not problem and (copy := first.setdefault(row["utterance"], row["path"])) != row["path"]:
            problem = f"a second copy of {copy}; remove one of them"
        if problem:
            left_out.append({"path": row["path"], "problem": problem})
        else:
            usable.append({**row, "seconds": scan["seconds"], "audio_hash": scan["sha256"]})
            for note in list_notes(scan):
                noted[note].append(row["path"])
    table = pd.DataFrame(usable, columns=list(COLUMNS))
    told = table["emotion"] + " of " + table["speaker"]
    source = table.index.to_series() if own else told
    again = list_same_bytes(table, source, told, "remove one of them")
    table = table[~table["path"].isin([entry["path"] for entry in again])]
    left_out = sorted(left_out + again, key=lambda entry: entry["path"])
    listed = show_left_out(left_out)
    if table.empty:
        raise ValueError(f"{name}: none of {len(left_out)} files in {folder} is usable:{listed}")
    if left_out:
        warnings.warn(
            f"{name}: left out {len(left_out)} of {len(left_out) + len(table)} files in {folder} "
            f"(all are listed in table.attrs['left_out']):{listed}",
            stacklevel=3,
        )
    for note, paths in noted.items():
        told = f"{len(paths)} of {len(table)} recordings, such as {paths[0]}"
        warnings.warn(f"{name}: {told}: {note}", stacklevel=3)
    table = table.sort_values("utterance", ignore_index=True)
    table.attrs = {"left_out": left_out}
    return table
