"""Labels of a corpus of one's own: read from its folders and file names, or from a CSV."""

import os
import re
import unicodedata
import warnings
from collections import defaultdict
from pathlib import Path

from common.corpora.recordings import COLUMNS, walk_files
from common.csv_files import read_csv
from common.emotions import PARTS, is_emotion

CLEANED = ("emotion", "speaker", "gender", "intensity")
MISSING = ("nan", "<NA>", "None", "null")  # as tables are written where nothing is known
NO_SPEAKER = re.compile(
    r"(fe)?males?|[fm]|(wo)?m[ae]n|(session|take|set|disc|cd|batch|day|part)[ _-]?\d*",
    re.IGNORECASE,
)


def read_folder_labels(folder: Path, files: list[Path]) -> list[dict[str, str]]:
    """List path, emotion and speaker of recordings by the folders that they lie in.

    Understands emotion/file, speaker/emotion/file and emotion/speaker/file, below any folder that
    all files share. The emotions are the level of folders whose names are known emotions, or the
    only level that there is. The speaker is the other level, or a file's name up to its first "_".
    Both are empty text for a file above the folders that tell them.
    Raises ValueError if the level of the emotions or the speakers cannot be told.
    """
    paths = [path.relative_to(folder) for path in files]
    names = [tuple(map(_clean, path.with_suffix("").parts)) for path in paths]
    level = _find_emotion_level(folder, names)
    speakers = iter(_find_speakers(folder, [n for n in names if len(n) > level + 1], level))
    rows = []
    for path, name in zip(paths, names, strict=True):
        told = (name[level], next(speakers)) if len(name) > level + 1 else ("", "")
        rows.append({"path": path.as_posix(), "emotion": told[0], "speaker": told[1]})
    return rows


def _compose(text: str) -> str:
    """Give one spelling of letters with accents, which macOS takes apart."""
    return unicodedata.normalize("NFC", text.strip())


def _clean(text: str) -> str:
    """Give one spelling of a name: full-width letters, invisible ones, blanks within it."""
    whole = unicodedata.normalize("NFKC", text)
    seen = "".join(letter for letter in whole if unicodedata.category(letter) != "Cf")
    name = " ".join(seen.split())
    return "" if name in MISSING else name


def _list_levels(names: list[tuple[str, ...]]) -> list[list[str]]:
    """Give the folder of each file at each depth, or empty text for files that lie above it."""
    depths = range(max(map(len, names)) - 1)
    return [[name[k] if len(name) > k + 1 else "" for name in names] for k in depths]


def _find_emotion_level(folder: Path, names: list[tuple[str, ...]]) -> int:
    levels = [sorted(set(there) - {""}) for there in _list_levels(names)]
    several = [k for k, there in enumerate(levels) if len(there) > 1]
    single = [k for k, there in enumerate(levels) if len(there) == 1 and is_emotion(there[0])]
    known = [k for k in several if sum(map(is_emotion, levels[k])) >= len(levels[k]) / 2]
    if len(known) == 1:
        return known[0]
    shown = "; ".join(", ".join(there[:4]) for there in levels) or "none"
    remedy = (
        "give the folder with one sub-folder per emotion, such as "
        f"{folder / 'angry' / 'anna_01.wav'}, or a CSV with path, emotion and speaker"
    )
    if not several and single:
        return single[0]
    if not several:
        raise ValueError(f"{folder}: fewer than two emotions (sub-folders: {shown}); {remedy}")
    if known or single or len(several) > 1:
        raise ValueError(f"{folder}: which sub-folders are the emotions ({shown})? {remedy}")
    [level] = several
    if all(any(map(str.isdigit, name)) or name.casefold() in PARTS for name in levels[level]):
        raise ValueError(
            f"{folder}: the sub-folders ({shown}) look like speakers or parts; {remedy}"
        )
    if not any(map(is_emotion, levels[level])):
        words = [set(filter(is_emotion, re.split(r"[\W\d_]+", name[-1]))) for name in names]
        if sum(map(bool, words)) >= len(names) / 2:
            told = ", ".join(sorted(set().union(*words))[:4])
            raise ValueError(
                f"{folder}: the file names tell emotions ({told}), the sub-folders ({shown}) do "
                f"not; {remedy}"
            )
        warnings.warn(
            f"{folder}: no sub-folder has the name of a known emotion, so each of "
            f"{', '.join(levels[level][:4])} is taken for one; if they are none, give a CSV with "
            "path, emotion and speaker",
            stacklevel=4,
        )
    return level


def _find_speakers(folder: Path, names: list[tuple[str, ...]], level: int) -> list[str]:
    prefixes = [name[-1].partition("_")[0] if "_" in name[-1] else "" for name in names]
    named = ["" if is_emotion(prefix) else prefix for prefix in prefixes]
    emotions = [name[level].casefold() for name in names]
    levels = [
        there
        for other, there in enumerate(_list_levels(names))
        if other != level
        and len(set(there) - {""}) > 1
        and not all(map(_is_no_speaker, {*there} - {""}))
    ]
    most = [there for there in levels if 2 * there.count("") < len(names)]
    if varied := all(named) and len(set(named)) > 1:
        chosen = [there for there in most if _agree(there, named)]
        unsure = most and not chosen
    else:
        chosen = [there for there in most if _cross(there, emotions)]
        unsure = levels and not chosen and all(named)
        unsure = unsure or not all(_agree(there, chosen[0]) for there in chosen)
    told = " or ".join(", ".join(sorted(set(there) - {""})[:3]) for there in levels)
    said = ", ".join(sorted(set(named) - {""})[:3]) or "nothing"
    remedy = "give a CSV with path, emotion and speaker"
    if unsure:
        raise ValueError(
            f"{folder}: who speaks? The folders say {told}, the file names {said}; {remedy}"
        )
    if chosen and not varied and all(named):
        warnings.warn(
            f"{folder}: the folders ({told}) are taken for the speakers, since all file names "
            f"begin with {said}_; if they are none, {remedy}",
            stacklevel=4,
        )
    if chosen:
        return named if varied and "" in chosen[0] else chosen[0]
    alone, lack = named.count(""), "have no '_' after a speaker's name"
    if len(set(named)) == len(named) and all(map(str.isdigit, named)):
        alone, lack = len(named), "begin with a number that no other has"
    if alone:
        warnings.warn(
            f"{folder}: {alone} of {len(names)} file names {lack}, so each counts as a speaker of "
            "its own and one person may be in training and test: name the files "
            f"<speaker>_<anything>, or {remedy}",
            stacklevel=4,
        )
    return [speaker or "/".join(name) for speaker, name in zip(named, names, strict=True)]


def _is_no_speaker(name: str) -> bool:
    """Whether a folder's name is that of a part of a split, a sex or a session."""
    return name.casefold() in PARTS or NO_SPEAKER.fullmatch(name) is not None


def _agree(one: list[str], other: list[str]) -> bool:
    """Whether two ways to name the same files differ in the words alone."""
    pairs = {pair for pair in zip(one, other, strict=True) if all(pair)}
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


def _cross(names: list[str], emotions: list[str]) -> bool:
    """Whether some name has several emotions, and some emotion several names, as of speakers."""
    pairs = {pair for pair in zip(names, emotions, strict=True) if all(pair)}
    return len(pairs) > max(len({a for a, _ in pairs}), len({b for _, b in pairs}))


def read_csv_labels(path: Path, folder: Path) -> list[dict[str, str]]:
    """List what is known of the recordings that a CSV names, as `read_csv` reads it.

    A row whose file is not there has its `problem`. Raises FileNotFoundError or ValueError if there
    is no such file, or it is no table with path, emotion and speaker.
    """
    table = read_csv(path, COLUMNS)
    missing = [column for column in ("path", "emotion", "speaker") if column not in table]
    if missing:
        raise ValueError(
            f"{path}: no column {', '.join(missing)} among {', '.join(table) or 'nothing'}; "
            f"add it (path is relative to {folder})"
        )
    find_file = _index_files(folder)
    rows = []
    for row in table.loc[:, table.columns.isin(COLUMNS)].to_dict("records"):
        labels = {n: (_clean if n in CLEANED else _compose)(cell) for n, cell in row.items()}
        rows.append(labels | find_file(labels["path"], path))
    return rows


def _index_files(folder: Path):
    """Make a function from the text of a path to the file that it means, or to its problem."""
    known: dict[str, list[str]] = defaultdict(list)
    for path in walk_files(folder, lambda *_: None):
        relative = path.relative_to(folder).as_posix()
        known[unicodedata.normalize("NFC", relative).casefold()].append(relative)

    def find(text: str, csv_path: Path) -> dict[str, str]:
        path = Path(text.replace("\\", "/"))
        path = path.relative_to(folder) if path.is_relative_to(folder) else path
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
