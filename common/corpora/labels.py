"""Labels of a corpus of one's own: read from its folders and file names, or from a CSV."""

import codecs
import csv
import os
import unicodedata
import warnings
from collections import defaultdict
from pathlib import Path

from common.corpora.recordings import COLUMNS
from common.emotions import is_emotion

PARTS = {"train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval"}
FORMULA_STARTS = ("=", "@", "+", "\t")
MAX_CSV_BYTES = 100_000_000


def read_folder_labels(folder: Path, files: list[Path]) -> list[dict[str, str]]:
    """List path, emotion and speaker of recordings by the folders that they lie in.

    Understands emotion/file, speaker/emotion/file and emotion/speaker/file, below any folder that
    all files share. The emotions are the level of folders whose names are known emotions, or the
    only level that there is. The speaker is the other level, or a file's name up to its first "_".

    Raises
    ------
    ValueError
        If the level of the emotions or the speakers cannot be told.
    """
    parts = [path.relative_to(folder).parts[:-1] for path in files]
    level = _find_emotion_level(folder, parts)
    emotions = [part[level] if len(part) > level else "" for part in parts]
    speakers = _find_speakers(folder, files, parts, emotions, level)
    return [
        {"path": path.relative_to(folder).as_posix(), "emotion": emotion, "speaker": speaker}
        for path, emotion, speaker in zip(files, emotions, speakers, strict=True)
    ]


def _list_names(parts: list[tuple[str, ...]], level: int) -> list[str]:
    return sorted({part[level] for part in parts if len(part) > level})


def _find_emotion_level(folder: Path, parts: list[tuple[str, ...]]) -> int:
    levels = {k: _list_names(parts, k) for k in range(max(map(len, parts), default=0))}
    several = {k: names for k, names in levels.items() if len(names) > 1}
    known = [k for k, names in several.items() if sum(map(is_emotion, names)) >= len(names) / 2]
    if len(known) == 1:
        return known[0]
    shown = "; ".join(", ".join(names[:4]) for names in levels.values()) or "none"
    remedy = (
        "give the folder with one sub-folder per emotion, such as "
        f"{folder / 'angry' / 'anna_01.wav'}, or a CSV with path, emotion and speaker"
    )
    single = [k for k, names in levels.items() if len(names) == 1 and is_emotion(names[0])]
    if not several and single:
        return single[0]
    if not several:
        raise ValueError(f"{folder}: fewer than two emotions (sub-folders: {shown}); {remedy}")
    if known or len(several) > 1:
        raise ValueError(f"{folder}: which sub-folders are the emotions ({shown})? {remedy}")
    [(level, names)] = several.items()
    if all(any(map(str.isdigit, name)) or name.casefold() in PARTS for name in names):
        raise ValueError(
            f"{folder}: the sub-folders ({shown}) look like speakers or parts; {remedy}"
        )
    return level


def _find_speakers(folder, files, parts, emotions, level: int) -> list[str]:
    prefixes = [path.stem.partition("_")[0] if "_" in path.stem else "" for path in files]
    named = [prefix if prefix and not is_emotion(prefix) else "" for prefix in prefixes]
    depth = min(map(len, parts))
    for other in (k for k in range(depth) if k != level):
        names = [part[other] for part in parts]
        shared = defaultdict(set)
        for name, emotion in zip(names, emotions, strict=True):
            shared[name].add(emotion)
        if len(shared) < 2 or {name.casefold() for name in shared} <= PARTS:
            continue
        if min(map(len, shared.values())) < 2:
            continue  # no speaker with one emotion alone
        pairs = set(zip(names, named, strict=True))
        if all(named) and not len(pairs) == len(shared) == len(set(named)):
            raise ValueError(
                f"{folder}: who speaks? The folders say {', '.join(sorted(shared)[:3])}, the file "
                f"names {', '.join(sorted(set(named))[:3])}; give a CSV with path, emotion and "
                "speaker"
            )
        return names
    num_alone = named.count("")
    if num_alone:
        warnings.warn(
            f"{folder}: {num_alone} of {len(files)} file names have no '_' after a speaker's name, "
            "so each counts as a speaker of its own and one person may be in training and test: "
            "name the files <speaker>_<anything>, or give a CSV with path, emotion and speaker",
            stacklevel=4,
        )
    return [
        name or path.relative_to(folder).with_suffix("").as_posix()
        for name, path in zip(named, files, strict=True)
    ]


def read_csv_labels(path: Path, folder: Path) -> list[dict[str, str]]:
    """List what is known of the recordings that a CSV names, as spreadsheets write it.

    Separators are commas, semicolons, tabs or bars; the text is UTF-8, UTF-16 with its mark, or
    Windows-1252, which a warning tells. A row that cannot be used has its `problem`.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file; if it is no table with the columns path, emotion and speaker.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; give a CSV with path, emotion and speaker")
    lines = _decode_csv(path).splitlines(keepends=True)
    first = next((line for line in lines if line.strip()), "")
    separator = max(",;\t|", key=first.count)
    try:
        table = [row for row in csv.reader(lines, delimiter=separator) if any(map(str.strip, row))]
    except csv.Error as error:
        raise ValueError(f"{path}: not a CSV ({error}); save it as one, in UTF-8") from error
    header = [name.strip().casefold() for name in (table[0] if table else [])]
    missing = [column for column in ("path", "emotion", "speaker") if column not in header]
    if missing:
        raise ValueError(
            f"{path}: no column {', '.join(missing)} among {', '.join(header) or 'nothing'}; "
            f"add it (path is relative to {folder})"
        )
    find_file = _index_files(folder)
    rows = []
    for number, row in enumerate(table[1:], start=2):
        if any(cell.strip() for cell in row[len(header) :]):
            raise ValueError(
                f"{path}: row {number} has more cells than the header; put text that holds "
                f"{separator!r} in quotation marks"
            )
        labels = {
            name: unicodedata.normalize("NFC", cell.strip())
            for name, cell in zip(header, row, strict=False)
            if name in COLUMNS
        }
        blank = {"path": "", "emotion": "", "speaker": ""}
        rows.append(blank | labels | find_file(labels.get("path", ""), path))
        for name, cell in labels.items():
            if cell.startswith(FORMULA_STARTS) and name != "path":
                rows[-1].setdefault("problem", f"{name} is a formula, {cell!r}; write a word")
    return rows


def _decode_csv(path: Path) -> str:
    with path.open("rb") as file:
        content = file.read(MAX_CSV_BYTES + 1)
    if len(content) > MAX_CSV_BYTES:
        raise ValueError(f"{path}: over {MAX_CSV_BYTES:,} bytes; give a CSV with labels alone")
    utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError:
        try:
            text = content.decode("cp1252")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: not text ({error}); save it as CSV in UTF-8") from error
    warnings.warn(
        f"{path}: not UTF-8, so read as Windows-1252; save it in UTF-8 if names look wrong",
        stacklevel=4,
    )
    return text


def _index_files(folder: Path):
    """Make a function from the text of a path to the file that it means, or to its problem."""
    known: dict[str, list[str]] = defaultdict(list)
    for where, _, names in os.walk(folder):
        for name in names:
            relative = Path(where, name).relative_to(folder).as_posix()
            known[unicodedata.normalize("NFC", relative).casefold()].append(relative)

    def find(text: str, csv_path: Path) -> dict[str, str]:
        given = text.replace("\\", "/").removeprefix("./")
        path = Path(given)
        if path.is_absolute() and path.is_relative_to(folder):
            given = path.relative_to(folder).as_posix()
        if Path(given).is_absolute() or ".." in Path(given).parts:
            return {"problem": f"not below {folder}; give paths relative to it"}
        same = known.get(unicodedata.normalize("NFC", given).casefold(), [])
        exact = [name for name in same if name == given] or same
        if len(exact) != 1:
            told = "no such file" if not exact else "more than one file by that name"
            return {"problem": f"{told}, though {csv_path} names it; correct the path"}
        return {"path": exact[0]}

    return find
