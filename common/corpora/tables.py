"""From a corpus folder, or a folder of one's own, to its utterance table."""

import warnings
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import pandas as pd

from common.corpora.recordings import (
    COLUMNS,
    find_corpus,
    list_recordings,
    parse_path,
    read_csv_labels,
    read_folder_labels,
    scan_recordings,
)


def load_corpus(name: str, *, folder: str | Path | None = None) -> pd.DataFrame:
    """Make the utterance table of a corpus of `CORPORA`: a row per usable recording, sorted.

    The columns are `COLUMNS`: seconds as a number, all others as text; `audio_hash` is the SHA-256
    of the file. `folder` is by default data/raw/<name>, and data/sample for the sample.

    Every recording is read once to see that it is usable; what was seen is cached. What
    cannot be used, has a name outside the grammar, or is a second copy of another file is
    left out: one warning counts them, and `table.attrs["left_out"]` lists path and problem.

    Raises FileNotFoundError, which says how to get the corpus, if the folder or all audio is
    missing; ValueError if the corpus is unknown, or no recording in the folder is usable.
    """
    corpus, folder = find_corpus(name, folder)
    rows, left_out = [], []
    for path in list_recordings(corpus, folder):
        try:
            labels = parse_path(corpus, path.relative_to(folder).as_posix())
            rows.append({"path": str(path), **labels})
        except ValueError as error:
            left_out.append({"path": str(path), "problem": str(error)})
    return _make_table(rows, left_out, name=name, folder=folder)


def load_folder(
    folder: str | Path, *, csv: str | Path | None = None, name: str = "my_corpus"
) -> pd.DataFrame:
    """Make the utterance table of a corpus of one's own, as `load_corpus` does.

    Without `csv`, each sub-folder is an emotion, and the speaker is the file name up to its
    first "_": `angry/anna_01.wav` is Anna. A file without "_" counts as its own speaker, and
    a warning says so: then nothing keeps one person out of both training and test.

    A `csv` has the columns path (below `folder`), emotion and speaker; gender ("unknown" where it
    is not given), intensity, statement and repetition are taken over if they are there. Raises
    FileNotFoundError if the folder, its audio or the CSV is missing, and ValueError if the CSV
    lacks a column or no recording is usable.
    """
    folder = Path(folder).expanduser().resolve()
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; give the one that holds the corpus")
    listed = read_folder_labels(folder) if csv is None else read_csv_labels(Path(csv), folder)
    blank = {"gender": "unknown", "intensity": "", "statement": "", "repetition": ""}
    rows, left_out = [], []
    for labels in listed:
        path = folder / labels["path"]
        if missing := [column for column in ("emotion", "speaker") if not labels[column]]:
            where = "sort it into a folder named after its emotion" if csv is None else "fill it in"
            problem = f"no {' and no '.join(missing)}; {where}"
            left_out.append({"path": str(path), "problem": problem})
        elif not path.is_file():
            problem = f"no such file, though {csv} names it; correct the path"
            left_out.append({"path": str(path), "problem": problem})
        else:
            recording = PurePosixPath(labels["path"]).with_suffix("").as_posix()
            given = {column: value for column, value in labels.items() if value}
            own = {"utterance": f"{name}/{recording}", "path": str(path), "corpus": name}
            rows.append(blank | given | own)
    return _make_table(rows, left_out, name=name, folder=folder)


def combine_corpora(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Join utterance tables, and their `attrs["left_out"]`, into one, sorted by utterance.

    Speakers become `<corpus>/<speaker>`, so that speaker 01 of one corpus is not taken for speaker
    01 of another. Raises ValueError if there is no table, or an utterance is in two of them.
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
    table = table.sort_values("utterance", ignore_index=True)
    left_out = [entry for part in tables for entry in part.attrs.get("left_out", [])]
    table.attrs = {"left_out": left_out}
    return table


def _make_table(rows: list[dict], left_out: list[dict], *, name: str, folder: Path) -> pd.DataFrame:
    """Scan recordings whose labels are known; keep each usable one once and report the rest."""
    first: dict[str, dict] = {}
    for row in rows:
        if first.setdefault(row["utterance"], row) is not row:
            problem = f"a second copy of {first[row['utterance']]['path']}; remove one of them"
            left_out.append({"path": row["path"], "problem": problem})
    scans = scan_recordings([Path(row["path"]) for row in first.values()], folder)
    usable = []
    for row, scan in zip(first.values(), scans, strict=True):
        if scan["problem"]:
            left_out.append({"path": row["path"], "problem": scan["problem"]})
        else:
            usable.append({**row, "seconds": scan["seconds"], "audio_hash": scan["sha256"]})
    left_out = sorted(left_out, key=lambda entry: entry["path"])
    listed = "".join(f"\n  {entry['path']}: {entry['problem']}" for entry in left_out[:3])
    if len(left_out) > 3:
        listed += f"\n  and {len(left_out) - 3} more"
    if not usable:
        raise ValueError(f"{name}: none of {len(left_out)} files in {folder} is usable:{listed}")
    if left_out:
        warnings.warn(
            f"{name}: left out {len(left_out)} of {len(left_out) + len(usable)} files in {folder} "
            f"(all are listed in table.attrs['left_out']):{listed}",
            stacklevel=3,
        )
    table = pd.DataFrame(usable, columns=COLUMNS).sort_values("utterance", ignore_index=True)
    table.attrs = {"left_out": left_out}
    return table
