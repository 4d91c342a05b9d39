"""Compare a copy of a corpus with what was published."""

from pathlib import Path

import pandas as pd

from common.corpora.recordings import (
    find_corpus,
    list_recordings,
    match_recordings,
    parse_path,
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
    recording). Where data/index/<name>.csv has no checksums, or is not there, neither "resampled"
    nor "altered" files can be told, and one row, "unchecked", counts the recordings; where it is
    not there, one row counts the missing files. Every byte is read. `name`, `folder` and errors
    are as in `load_corpus`.
    """
    corpus, folder = find_corpus(name, folder)
    left_out: list[dict] = []
    listed = list_recordings(corpus, folder, left_out=left_out)
    found = match_recordings(corpus, folder)
    index = read_index(corpus)
    has_checksums = index is not None and "sha256" in index
    scans = dict(zip(listed, scan_recordings(listed, folder, fresh=True), strict=True))
    findings = []

    def report(path: Path | str, problem: str, detail: str, *, files: int = 1) -> None:
        path = path.relative_to(folder).as_posix() if isinstance(path, Path) else path
        findings.append({"path": path, "problem": problem, "files": files, "detail": detail})

    for entry in left_out:
        path = Path(entry["path"])
        report(
            path, "extra" if path.is_file() or path.is_symlink() else "unreadable", entry["problem"]
        )
    official = found if index is None else index.index
    recordings = {path: recording for recording, path in found.items() if recording in official}
    originals: dict[str, Path] = {}
    for path in listed:
        scan, recording = scans[path], recordings.get(path)
        if recording is None:
            report(path, "extra", _explain_extra(corpus, folder, path, found))
            continue
        if scan["problem"]:
            kind, _, detail = scan["problem"].partition(": ")
            report(path, "silent" if kind == "silent" else "unreadable", f"{kind}: {detail}")
        original = originals.setdefault(scan["sha256"], path)
        if original != path:
            other = original.relative_to(folder).as_posix()
            report(path, "duplicated", f"the same bytes as {other}")
        if not has_checksums or not scan["sample_rate_hertz"]:
            continue
        published = index.loc[recording]
        if scan["sample_rate_hertz"] != published["sample_rate"]:
            rates = f"{scan['sample_rate_hertz']} Hz, published at {published['sample_rate']} Hz"
            report(path, "resampled", rates)
        elif scan["sha256"] != published["sha256"]:
            lengths = f"{scan['frames']} samples, published with {published['frames']}"
            report(path, "altered", f"other bytes than published ({lengths})")
    if not has_checksums:
        told = "the published checksums are not known here, so the bytes cannot be checked"
        report(".", "unchecked", told, files=len(recordings))
    if index is not None:
        for recording in index.index.difference(list(found)):
            report(index.loc[recording, "path"], "missing", "in the published corpus, not here")
    elif len(found) < corpus.num_utterances:
        num_missing = corpus.num_utterances - len(found)
        told = f"{num_missing} of {corpus.num_utterances} recordings are not here"
        report(".", "missing", told, files=num_missing)
    table = pd.DataFrame(findings, columns=["path", "problem", "files", "detail"])
    return table.sort_values(["path", "problem"], ignore_index=True)


def _explain_extra(corpus: Corpus, folder: Path, path: Path, found: dict[str, Path]) -> str:
    try:
        recording = parse_path(corpus, path.as_posix())["utterance"].removeprefix(f"{corpus.name}/")
    except ValueError as error:
        return str(error)
    if found.get(recording, path) != path:
        return f"a second copy of {found[recording].relative_to(folder).as_posix()}"
    return "not in the published corpus"
