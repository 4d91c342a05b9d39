"""Compare a copy of a corpus with what was published."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from common.corpora.fetching import fetch_checksums
from common.corpora.recordings import (
    find_corpus,
    list_recordings,
    name_recording,
    read_index,
    scan_recordings,
)
from common.corpora.records import Corpus


def validate_corpus(name: str, *, folder: str | Path | None = None) -> pd.DataFrame:
    """Compare a copy of a corpus, file by file, with the index of the published one.

    Each finding is a row of path (below the folder), problem, files (how many it is about) and
    detail. Problems: "missing", "extra" (not a recording of the corpus, or a second copy),
    "resampled" (another sample rate than published), "altered" (other bytes at the same rate),
    "silent", "unreadable" (not usable for any other reason) and "duplicated" (same bytes as another
    recording). Of CREMA-D the published checksums are downloaded (1.3 MB, once). One row,
    "unchecked", counts the recordings whose checksum is not known, of which neither "resampled" nor
    "altered" can be told; where there is no data/index/<name>.csv, one row counts the missing
    files. Every byte is read. `name`, `folder` and errors are as in `load_corpus`.
    """
    corpus, folder = find_corpus(name, folder)
    left_out: list[dict] = []
    listed = list_recordings(corpus, folder, left_out=left_out)
    index = read_index(corpus)
    published, why_unchecked = _read_checksums(corpus, index)
    findings = []

    def report(path: str, problem: str, detail: str, *, files: int = 1) -> None:
        findings.append({"path": path, "problem": problem, "files": files, "detail": detail})

    for entry in left_out:
        path = Path(entry["path"])
        problem = "extra" if path.is_file() or path.is_symlink() else "unreadable"
        report(path.relative_to(folder).as_posix(), problem, entry["problem"])
    found: dict[str, str] = {}
    originals: dict[str, str] = {}
    num_unchecked = 0
    for file, scan in zip(listed, scan_recordings(listed, folder, fresh=True), strict=True):
        path = file.relative_to(folder).as_posix()
        try:
            recording = name_recording(corpus, file.as_posix())
        except ValueError as error:
            report(path, "extra", str(error))
            continue
        if (first := found.setdefault(recording, path)) != path:
            report(path, "extra", f"a second copy of {first}")
            continue
        if index is not None and recording not in index.index:
            report(path, "extra", "not in the published corpus")
            continue
        if scan["problem"]:
            kind, _, detail = scan["problem"].partition(": ")
            report(path, "silent" if kind == "silent" else "unreadable", f"{kind}: {detail}")
        if (original := originals.setdefault(scan["sha256"], path)) != path:
            report(path, "duplicated", f"the same bytes as {original}")
        if scan["sample_rate_hertz"] and scan["sha256"] != published.get(recording, scan["sha256"]):
            report(path, *_explain_change(scan, {} if index is None else index.loc[recording]))
        num_unchecked += recording not in published
    if num_unchecked:
        report(".", "unchecked", why_unchecked, files=num_unchecked)
    if index is not None:
        for path in index.loc[index.index.difference([*found]), "path"]:
            report(path, "missing", "in the published corpus, not here")
    elif num_missing := max(0, corpus.num_utterances - len(found)):
        told = f"{num_missing} of {corpus.num_utterances} recordings are not here"
        report(".", "missing", told, files=num_missing)
    table = pd.DataFrame(findings, columns=["path", "problem", "files", "detail"])
    return table.sort_values(["path", "problem"], ignore_index=True)


def _read_checksums(corpus: Corpus, index: pd.DataFrame | None) -> tuple[dict[str, str], str]:
    """Give the published SHA-256 by recording, and why some or all of them are not known."""
    told = "no published checksum of them is known, so their bytes cannot be checked"
    if index is not None and "sha256" in index:
        return index["sha256"].to_dict(), told
    if corpus.checksums is None:
        return {}, told
    try:
        return fetch_checksums(corpus), told
    except (OSError, ValueError) as error:
        return {}, f"the published checksums did not come, so no bytes were checked: {error}"


def _explain_change(scan: Mapping, published: Mapping) -> tuple[str, str]:
    """Name the problem of a recording with other bytes than published, and how it differs."""
    if published.get("sample_rate", scan["sample_rate_hertz"]) != scan["sample_rate_hertz"]:
        rates = f"{scan['sample_rate_hertz']} Hz, published at {published['sample_rate']} Hz"
        return "resampled", rates
    length = f", published with {published['frames']}" if "frames" in published else ""
    return "altered", f"other bytes than published ({scan['frames']} samples{length})"
