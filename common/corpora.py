"""From a corpus folder to its utterance table; fetching a corpus and checking a copy of it."""

import hashlib
import warnings
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import pandas as pd

from common.corpus_files import (
    COLUMNS,
    explain_absence,
    find_corpus,
    list_recordings,
    match_recordings,
    parse_path,
    read_csv_labels,
    read_folder_labels,
    read_index,
    scan_recordings,
)
from common.corpus_records import CORPORA, EMOTIONS, Corpus
from common.downloads import download_archive, unpack_archive

__all__ = [
    "COLUMNS",
    "CORPORA",
    "EMOTIONS",
    "Corpus",
    "combine_corpora",
    "fetch_corpus",
    "load_corpus",
    "load_folder",
    "validate_corpus",
]


def load_corpus(name: str, *, folder: str | Path | None = None) -> pd.DataFrame:
    """Make the utterance table of a corpus.

    Every recording is read once to see that it is usable; what was seen is cached. What
    cannot be used, has a name outside the grammar, or is a second copy of another file is
    left out: one warning counts them, and `table.attrs["left_out"]` lists path and problem.

    Parameters
    ----------
    name
        A key of `CORPORA`.
    folder
        Where the corpus lies; by default data/raw/<name>, and data/sample for the sample.

    Returns
    -------
    pd.DataFrame
        One usable recording per row, sorted by utterance, the columns being `COLUMNS`:
        seconds as a number, all others as text. `audio_hash` is the SHA-256 of the file.

    Raises
    ------
    FileNotFoundError
        If the folder or all audio is missing; the message says how to get the corpus.
    ValueError
        If the corpus is unknown, or no recording in the folder is usable.
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
    """Make the utterance table of a corpus of one's own.

    Without `csv`, each sub-folder is an emotion, and the speaker is the file name up to its
    first "_": `angry/anna_01.wav` is Anna. A file without "_" counts as its own speaker, and
    a warning says so: then nothing keeps one person out of both training and test.

    Parameters
    ----------
    folder
        Holds the sub-folders, or the files that the CSV names.
    csv
        A table with the columns path (below `folder`), emotion and speaker; gender,
        intensity, statement and repetition are taken over if they are there.
    name
        The name of the corpus in the table.

    Returns
    -------
    pd.DataFrame
        As `load_corpus`; gender is "unknown" where it is not given.

    Raises
    ------
    FileNotFoundError
        If the folder, its audio or the CSV is missing.
    ValueError
        If the CSV lacks a column, or no recording is usable.
    """
    folder = Path(folder).expanduser().resolve()
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; give the one that holds the corpus")
    listed = read_folder_labels(folder) if csv is None else read_csv_labels(Path(csv), folder)
    rows, left_out = [], []
    for labels in listed:
        path = folder / labels["path"]
        missing = [column for column in ("emotion", "speaker") if not labels[column]]
        if missing:
            where = "sort it into a folder named after its emotion" if csv is None else "fill it in"
            problem = f"no {' and no '.join(missing)}; {where}"
            left_out.append({"path": str(path), "problem": problem})
        elif not path.is_file():
            problem = f"no such file, though {csv} names it; correct the path"
            left_out.append({"path": str(path), "problem": problem})
        else:
            recording = PurePosixPath(labels["path"]).with_suffix("").as_posix()
            blank = {"gender": "unknown", "intensity": "", "statement": "", "repetition": ""}
            given = {column: value for column, value in labels.items() if value}
            own = {"utterance": f"{name}/{recording}", "path": str(path), "corpus": name}
            rows.append(blank | given | own)
    return _make_table(rows, left_out, name=name, folder=folder)


def combine_corpora(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Join utterance tables into one, sorted by utterance.

    Speakers become `<corpus>/<speaker>`, so that speaker 01 of one corpus is not taken for
    speaker 01 of another; `attrs["left_out"]` is joined too.

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
    table["speaker"] = [
        speaker if speaker.startswith(f"{corpus}/") else f"{corpus}/{speaker}"
        for corpus, speaker in zip(table["corpus"], table["speaker"], strict=True)
    ]
    left_out = [entry for part in tables for entry in part.attrs.get("left_out", [])]
    table = table.sort_values("utterance", ignore_index=True)
    table.attrs = {"left_out": left_out}
    return table


def fetch_corpus(name: str, *, folder: str | Path | None = None) -> Path:
    """Download a corpus, check it and put it in place; do nothing if it is there already.

    The archive is checked against the published size and MD5, or, where none is known,
    every recording in it against data/index. Only recordings are taken out of it, each into
    its official place.

    Parameters
    ----------
    name
        A key of `CORPORA`.
    folder
        Where the corpus lies or is put; by default as in `load_corpus`.

    Returns
    -------
    Path
        The corpus folder.

    Raises
    ------
    FileNotFoundError
        If the corpus may not or cannot be fetched: how to get it and where to put it.
    OSError
        If the download stopped; call again to continue it.
    ValueError
        If what was downloaded is not what was published.
    """
    corpus, folder = find_corpus(name, folder)
    there = match_recordings(corpus, folder) if folder.is_dir() else {}
    if len(there) >= corpus.num_utterances:
        return folder
    if corpus.archive is None:
        raise FileNotFoundError(explain_absence(corpus, folder, num_there=len(there)))
    source = corpus.archive
    archive = download_archive(
        source.url,
        folder / source.file_name,
        num_bytes=source.num_bytes,
        checksum=source.checksum,
    )
    with unpack_archive(archive, folder) as unpacked:
        found = match_recordings(corpus, unpacked, by_name=True)
        if source.checksum is None:
            published = read_index(corpus)["sha256"].to_dict()
            good = [key for key in found if _hash_file(found[key]) == published.get(key)]
        else:
            good = list(found)
        if len(good) < corpus.num_utterances:
            raise ValueError(
                f"{archive}: only {len(good)} of {corpus.num_utterances} recordings are in it as "
                f"published, so none was put in place. Delete it and get {corpus.title} by hand "
                f"from {corpus.homepage}"
            )
        for recording, path in found.items():
            target = folder / f"{recording}{path.suffix.lower()}"
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
    archive.unlink()
    return folder


def validate_corpus(name: str, *, folder: str | Path | None = None) -> pd.DataFrame:
    """Compare a copy of a corpus, file by file, with the index of the published one.

    Parameters
    ----------
    name
        A key of `CORPORA`.
    folder
        Where the corpus lies or is put; by default as in `load_corpus`.

    Returns
    -------
    pd.DataFrame
        Columns path (below the folder), problem and detail, one row per finding, none if the
        copy is whole. Problems: "missing", "extra" (not a recording of the corpus, or a
        second copy), "resampled" (another sample rate than published), "altered" (other
        bytes at the same rate), "silent", "unreadable" (not usable for any other reason) and
        "duplicated" (same bytes as another recording). A corpus without data/index/<name>.csv
        is checked for everything but "resampled" and "altered", and missing files are counted.

    Raises
    ------
    FileNotFoundError, ValueError
        As `load_corpus`, if the corpus is absent or unknown.
    """
    corpus, folder = find_corpus(name, folder)
    listed = list_recordings(corpus, folder)
    found = match_recordings(corpus, folder)
    index = read_index(corpus)
    scans = dict(zip(listed, scan_recordings(listed, folder), strict=True))
    findings = []

    def report(path: Path | str, problem: str, detail: str) -> None:
        path = path.relative_to(folder).as_posix() if isinstance(path, Path) else path
        findings.append({"path": path, "problem": problem, "detail": detail})

    recordings = {path: recording for recording, path in found.items()}
    originals: dict[str, Path] = {}
    for path in listed:
        scan, recording = scans[path], recordings.get(path)
        if recording is None or (index is not None and recording not in index.index):
            report(path, "extra", _explain_extra(corpus, folder, path, found))
            continue
        if scan["problem"]:
            kind, _, detail = scan["problem"].partition(": ")
            report(path, "silent" if kind == "silent" else "unreadable", f"{kind}: {detail}")
        original = originals.setdefault(scan["sha256"], path)
        if original != path:
            other = original.relative_to(folder).as_posix()
            report(path, "duplicated", f"the same bytes as {other}")
        if index is None or not scan["sample_rate_hertz"]:
            continue
        published = index.loc[recording]
        if scan["sample_rate_hertz"] != published["sample_rate"]:
            rates = f"{scan['sample_rate_hertz']} Hz, published at {published['sample_rate']} Hz"
            report(path, "resampled", rates)
        elif scan["sha256"] != published["sha256"]:
            lengths = f"{scan['frames']} samples, published with {published['frames']}"
            report(path, "altered", f"other bytes than published ({lengths})")
    if index is not None:
        for recording in index.index.difference(list(found)):
            report(index.loc[recording, "path"], "missing", "in the published corpus, not here")
    elif len(found) < corpus.num_utterances:
        report(".", "missing", f"{len(found)} of {corpus.num_utterances} recordings are here")
    table = pd.DataFrame(findings, columns=["path", "problem", "detail"])
    return table.sort_values(["path", "problem"], ignore_index=True)


def _explain_extra(corpus: Corpus, folder: Path, path: Path, found: dict[str, Path]) -> str:
    relative = path.relative_to(folder).as_posix()
    try:
        recording = parse_path(corpus, relative)["utterance"].removeprefix(f"{corpus.name}/")
    except ValueError as error:
        return str(error)
    if found.get(recording, path) != path:
        return f"a second copy of {found[recording].relative_to(folder).as_posix()}"
    return "not in the published corpus"


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _make_table(rows: list[dict], left_out: list[dict], *, name: str, folder: Path) -> pd.DataFrame:
    """Scan recordings whose labels are known; keep each usable one once and report the rest."""
    first: dict[str, dict] = {}
    for row in rows:
        if first.setdefault(row["utterance"], row) is not row:
            problem = f"a second copy of {first[row['utterance']]['path']}; remove one of them"
            left_out.append({"path": row["path"], "problem": problem})
    rows = list(first.values())
    usable = []
    for row, scan in zip(
        rows, scan_recordings([Path(row["path"]) for row in rows], folder), strict=True
    ):
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
    table = pd.DataFrame(usable, columns=list(COLUMNS))
    table = table.sort_values("utterance", ignore_index=True)
    table.attrs = {"left_out": left_out}
    return table
