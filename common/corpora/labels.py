"""Labels of a corpus of one's own, read from its folders and file names, or from a CSV."""

import os
import re
import unicodedata
import warnings
from collections import defaultdict
from functools import cache
from pathlib import Path

from common.corpora.recordings import COLUMNS, walk_files
from common.corpora.speakers import (
    CSV_REMEDY,
    NAME_REMEDY,
    ask_for_emotions,
    clean_name,
    find_speakers,
    list_levels,
    name_some,
    repeats_folder,
)
from common.csv_files import read_csv
from common.emotions import PARTS, is_emotion

# Labels that are no emotions of `common.emotions`.
LABELS = {
    *("contempt", "contemptuous", "excited", "excitement", "exc", "frustrated", "frustration"),
    *("fru", "positive", "negative", "stress", "stressed"),
}
CLEANED = ("emotion", "speaker", "gender", "intensity")


def read_folder_labels(folder: Path, files: list[Path]) -> list[dict[str, str]]:
    """List path, emotion and speaker of recordings by the folders that they lie in.

    Understands emotion/file, speaker/emotion/file and emotion/speaker/file, below any folder that
    all files share. The emotions are the level of folders whose names are known emotions, or the
    only level that there is. The speaker is the other level, or a file's name up to its first "_",
    and what most of the files tell decides. Both are empty text for a file above the folders that
    tell them. Raises ValueError if the level of the emotions or the speakers cannot be told.
    """
    paths = [path.relative_to(folder) for path in files]
    names = [tuple(map(clean_name, path.with_suffix("").parts)) for path in paths]
    level = _find_emotion_level(folder, names)
    deep = [name for name in names if len(name) > level + 1]
    speakers = iter(find_speakers(folder, deep, level))
    _warn_of_unknown(folder, {name[level] for name in deep})
    rows = []
    for path, name in zip(paths, names, strict=True):
        told = (name[level], next(speakers)) if len(name) > level + 1 else ("", "")
        rows.append({"path": path.as_posix(), "emotion": told[0], "speaker": told[1]})
    return rows


def _warn_of_unknown(folder: Path, emotions: set[str]) -> None:
    """Warn if no emotion is known, or so few are not that they may be something else."""
    unknown = [name for name in emotions if not is_emotion(name) and name.casefold() not in LABELS]
    known = len(emotions) - len(unknown)
    if unknown and (not known or 2 * len(unknown) < known):
        few = "not all sub-folders have" if known else "no sub-folder has"
        each = "each of " if len(unknown) > 1 else ""
        warnings.warn(
            f"{folder}: {few} the name of a known emotion, so {each}{name_some(unknown)} is "
            f"taken for one; if they are none, rename them, move them away, or {CSV_REMEDY}",
            stacklevel=4,
        )


def _find_emotion_level(folder: Path, names: list[tuple[str, ...]]) -> int:
    levels = [sorted(set(there) - {""}) for there in list_levels(names)]
    several = [k for k, there in enumerate(levels) if len(there) > 1]
    single = [k for k, there in enumerate(levels) if len(there) == 1 and is_emotion(there[0])]
    known = [k for k in several if sum(map(is_emotion, levels[k])) >= len(levels[k]) / 2]
    shown = "; ".join(map(name_some, levels)) or "none"
    remedy = ask_for_emotions(folder)
    if not several and single:
        return single[0]
    if not several:
        raise ValueError(f"{folder}: fewer than two emotions (sub-folders: {shown}); {remedy}")
    if len(known) != 1 and (known or single or len(several) > 1):
        raise ValueError(f"{folder}: which sub-folders are the emotions ({shown})? {remedy}")
    [level] = known or several
    _refuse_parts(folder, levels[level])
    if not any(map(is_emotion, levels[level])):
        _refuse_telling_names(folder, levels[level], names, level)
    return level


def _refuse_parts(folder: Path, found: list[str]) -> None:
    """Raise ValueError where folders are named as speakers or parts of a split."""
    parts = [name for name in found if name.casefold() in PARTS]
    odd = [name for name in found if name in parts or any(map(str.isdigit, name))]
    if 2 * len(odd) > len(found) and not any(map(is_emotion, found)):
        raise ValueError(
            f"{folder}: the sub-folders ({name_some(found)}) look like speakers or parts; "
            f"{ask_for_emotions(folder)}"
        )
    if parts:
        raise ValueError(
            f"{folder}: parts of a split lie among the emotions: {name_some(parts)}; sort their "
            f"recordings into the other sub-folders, move them away, or {CSV_REMEDY}"
        )


def _refuse_telling_names(
    folder: Path, found: list[str], names: list[tuple[str, ...]], level: int
) -> None:
    """Raise ValueError where most file names tell an emotion, or repeat the name of the folder."""
    shown, remedy = name_some(found), ask_for_emotions(folder)
    words = [set(filter(is_emotion, re.split(r"[\W\d_]+", name[-1]))) for name in names]
    if sum(map(bool, words)) >= len(names) / 2:
        raise ValueError(
            f"{folder}: the file names tell emotions ({name_some(set().union(*words))}), the "
            f"sub-folders ({shown}) do not; {remedy}"
        )
    if 2 * sum(repeats_folder(name, level) for name in names) > len(names):
        raise ValueError(
            f"{folder}: the file names repeat the sub-folders' ({shown}), so these may be emotions "
            f"or speakers; {NAME_REMEDY}, {remedy}"
        )


def read_csv_labels(path: Path, folder: Path) -> list[dict[str, str]]:
    """List what is known of the recordings that a CSV names, as `read_csv` reads it.

    A row whose file is not there has its `problem`. Raises FileNotFoundError or ValueError if there
    is no such file, or it is no table with path, emotion and speaker.
    """
    table = read_csv(path, COLUMNS, one_line=("path", *CLEANED))
    missing = [column for column in ("path", "emotion", "speaker") if column not in table]
    if missing:
        raise ValueError(
            f"{path}: no column {', '.join(missing)} among {', '.join(table) or 'nothing'}; "
            f"add it (path is relative to {folder})"
        )
    find_file = _index_files(folder)
    rows = []
    for row in table.loc[:, table.columns.isin(COLUMNS)].to_dict("records"):
        labels = {n: (clean_name if n in CLEANED else _compose)(cell) for n, cell in row.items()}
        rows.append(labels | find_file(labels["path"], path))
    return rows


def _compose(text: str) -> str:
    """Give one spelling of letters with accents, which macOS takes apart."""
    return unicodedata.normalize("NFC", text.strip())


def _index_files(folder: Path):
    """Make a function from the text of a path to the file that it means, or to its problem."""
    known: dict[str, list[str]] = defaultdict(list)
    real = os.path.realpath(folder)

    @cache
    def is_folder(path: Path) -> bool:  # by any name, such as that of a link
        return os.path.realpath(path) == real

    for path in walk_files(folder, lambda *_: None):
        relative = path.relative_to(folder).as_posix()
        known[unicodedata.normalize("NFC", relative).casefold()].append(relative)

    def find(text: str, csv_path: Path) -> dict[str, str]:
        path = Path(text.replace("\\", "/"))
        if path.is_absolute() and "\0" not in text:
            path = next((path.relative_to(p) for p in path.parents if is_folder(p)), path)
        if path.is_absolute() or ".." in path.parts:
            return {"problem": f"not below {folder}; give paths relative to it"}
        given = path.as_posix()
        same = known.get(unicodedata.normalize("NFC", given).casefold(), [])
        exact = [name for name in same if name == given] or same
        if not exact and os.path.isfile(folder / path):  # hidden, or behind a second link
            exact = [given]
        if len(exact) != 1:
            told = "no such file" if not exact else "more than one file by that name"
            return {"problem": f"{told}, though {csv_path} names it; correct the path"}
        return {"path": exact[0]}

    return find
