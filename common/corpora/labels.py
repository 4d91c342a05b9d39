"""Labels of a corpus of one's own: read from its folders and file names, or from a CSV."""

import os
import re
import unicodedata
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from common.corpora.recordings import COLUMNS, walk_files
from common.csv_files import read_csv
from common.emotions import PARTS, is_emotion, name_emotion

CLEANED = ("emotion", "speaker", "gender", "intensity")
MISSING = ("nan", "<NA>", "None", "null")  # as tables are written where nothing is known
NO_SPEAKER = re.compile(
    r"(fe)?males?|[fm]|(wo)?m[ae]n|(session|take|set|disc|cd|batch|day|part)[ _-]?\d*|"
    r"(wav|flac|mp3|audio|clip|file|recording)s?|data|raw",
    re.IGNORECASE,
)
CSV_REMEDY = "give a CSV with path, emotion and speaker"


def read_folder_labels(folder: Path, files: list[Path]) -> list[dict[str, str]]:
    """List path, emotion and speaker of recordings by the folders that they lie in.

    Understands emotion/file, speaker/emotion/file and emotion/speaker/file, below any folder that
    all files share. The emotions are the level of folders whose names are known emotions, or the
    only level that there is. The speaker is the other level, or a file's name up to its first "_",
    and what most of the files tell decides. Both are empty text for a file above the folders that
    tell them. Raises ValueError if the level of the emotions or the speakers cannot be told.
    """
    paths = [path.relative_to(folder) for path in files]
    names = [tuple(map(_clean, path.with_suffix("").parts)) for path in paths]
    level = _find_emotion_level(folder, names)
    deep = [name for name in names if len(name) > level + 1]
    speakers = iter(_find_speakers(folder, deep, level))
    emotions = {name[level] for name in deep}
    if unknown := sorted(name for name in emotions if not is_emotion(name)):
        few = "no sub-folder has" if len(unknown) == len(emotions) else "not all sub-folders have"
        warnings.warn(
            f"{folder}: {few} the name of a known emotion, so each of {_name_some(unknown)} is "
            f"taken for one; if they are none, rename them, move them away, or {CSV_REMEDY}",
            stacklevel=3,
        )
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


def _name_some(names: Iterable[str]) -> str:
    """Name the first four, and say how many more there are."""
    first = sorted({*names} - {""})
    return ", ".join(first[:4]) + (f" and {len(first) - 4} more" if len(first) > 4 else "")


def _ask_for_emotions(folder: Path) -> str:
    example = folder / "angry" / "anna_01.wav"
    return f"give the folder with one sub-folder per emotion, such as {example}, or {CSV_REMEDY}"


def _list_levels(names: list[tuple[str, ...]]) -> list[list[str]]:
    """Give the folder of each file at each depth, or empty text for files that lie above it."""
    depths = range(max(map(len, names)) - 1)
    return [[name[k] if len(name) > k + 1 else "" for name in names] for k in depths]


def _find_emotion_level(folder: Path, names: list[tuple[str, ...]]) -> int:
    levels = [sorted(set(there) - {""}) for there in _list_levels(names)]
    several = [k for k, there in enumerate(levels) if len(there) > 1]
    single = [k for k, there in enumerate(levels) if len(there) == 1 and is_emotion(there[0])]
    known = [k for k in several if sum(map(is_emotion, levels[k])) >= len(levels[k]) / 2]
    shown = "; ".join(map(_name_some, levels)) or "none"
    remedy = _ask_for_emotions(folder)
    if not several and single:
        return single[0]
    if not several:
        raise ValueError(f"{folder}: fewer than two emotions (sub-folders: {shown}); {remedy}")
    if len(known) != 1 and (known or single or len(several) > 1):
        raise ValueError(f"{folder}: which sub-folders are the emotions ({shown})? {remedy}")
    [level] = known or several
    _refuse_no_emotions(folder, levels[level], names)
    return level


def _refuse_no_emotions(folder: Path, found: list[str], names: list[tuple[str, ...]]) -> None:
    """Raise ValueError where folders are named as speakers or parts, or file names tell more."""
    shown, remedy = _name_some(found), _ask_for_emotions(folder)
    parts = [name for name in found if name.casefold() in PARTS]
    if 2 * sum(name in parts or any(map(str.isdigit, name)) for name in found) > len(found):
        raise ValueError(
            f"{folder}: the sub-folders ({shown}) look like speakers or parts; {remedy}"
        )
    if parts:
        raise ValueError(
            f"{folder}: parts of a split lie among the emotions: {_name_some(parts)}; sort their "
            f"recordings into the other sub-folders, move them away, or {CSV_REMEDY}"
        )
    words = [set(filter(is_emotion, re.split(r"[\W\d_]+", name[-1]))) for name in names]
    if not any(map(is_emotion, found)) and sum(map(bool, words)) >= len(names) / 2:
        raise ValueError(
            f"{folder}: the file names tell emotions ({_name_some(set().union(*words))}), the "
            f"sub-folders ({shown}) do not; {remedy}"
        )


def _find_speakers(folder: Path, names: list[tuple[str, ...]], level: int) -> list[str]:
    named, lack = _read_prefixes(names)
    emotions = [name_emotion(name[level]) for name in names]
    levels = {k: there for k, there in enumerate(_list_levels(names)) if k != level}
    levels = {k: there for k, there in levels.items() if _may_be_speakers(there)}
    chosen = _choose_folders(folder, [*levels.values()], named, emotions)
    beside = [] if chosen or _is_told(named) else _find_beside(levels, level)
    found, odd, varied = chosen or beside, named.count(""), _is_varied(named)
    if any(beside) or (chosen and (odd if varied else not _agree(chosen, named))):
        said = f"{odd} of {len(names)} file names {lack}"
        same = f"all file names begin with {_name_some(named)}_"
        warnings.warn(
            f"{folder}: the folders ({_name_some(found)}) are taken for the speakers, since "
            f"{said if odd else same}; if they are none, {CSV_REMEDY}",
            stacklevel=4,
        )
    if varied or not chosen:
        found = _fill(found or named, named)
    _compare_with_emotions(folder, found, emotions)
    if chosen:
        return found
    if alone := found.count(""):
        warnings.warn(
            f"{folder}: {alone} of {len(names)} file names {lack}, so each counts as a speaker of "
            "its own and one person may be in training and test: name the files "
            f"<speaker>_<anything>, or {CSV_REMEDY}",
            stacklevel=4,
        )
    return [speaker or "/".join(name) for speaker, name in zip(found, names, strict=True)]


def _fill(folders: list[str], named: list[str]) -> list[str]:
    """Give the folder of each file, or where it lies in none that of the files named alike."""
    mates = {name: there for name, there in zip(named, folders, strict=True) if name and there}
    return [there or mates.get(name, name) for name, there in zip(named, folders, strict=True)]


def _read_prefixes(names: list[tuple[str, ...]]) -> tuple[list[str], str]:
    """Give each file's name up to its first "_" if it may be a speaker, and what others lack."""
    prefixes = [name[-1].partition("_")[0] if "_" in name[-1] else "" for name in names]
    named = ["" if is_emotion(prefix) else prefix for prefix in prefixes]
    lack, times = "have no '_' after a speaker's name", Counter(named)
    if 2 * sum(name.isdigit() and times[name] == 1 for name in named) <= len(named):
        return named, lack
    number = "begin with a number that no other has"
    lack = f"{lack} or {number}" if "" in named else number
    return ["" if name.isdigit() and times[name] == 1 else name for name in named], lack


def _choose_folders(
    folder: Path, levels: list[list[str]], named: list[str], emotions: list[str]
) -> list[str]:
    """Give the folders that file names or emotions show to be speakers; none if there are none."""
    several = [there for there in levels if len(set(there) - {""}) > 1]
    most = list(filter(_is_told, several))
    if _is_varied(named):
        chosen = [there for there in most if _agree(there, named)]
        unsure = most and not chosen
    else:
        chosen = [there for there in most if _cross(there, emotions)]
        unsure = several and not chosen and _is_told(named)
        unsure = unsure or not all(_agree(there, chosen[0]) for there in chosen)
    if unsure:
        raise ValueError(
            f"{folder}: who speaks? The folders say {' or '.join(map(_name_some, several))}, the "
            f"file names {_name_some(named) or 'nothing'}; {CSV_REMEDY}"
        )
    return chosen[0] if chosen else []


def _find_beside(levels: dict[int, list[str]], level: int) -> list[str]:
    """Give the folders right above or below the emotions; a single one only below them."""
    near = [levels[k] for k in (level + 1, level - 1) if k in levels]
    near = [there for there in near if len(set(there) - {""}) > 1] or [levels.get(level + 1, [])]
    return near[0] if _agree(near[0], near[-1]) else []


def _compare_with_emotions(folder: Path, speakers: list[str], emotions: list[str]) -> None:
    """Raise ValueError if the emotions are the speakers; warn if each speaks a known one alone."""
    pairs = sorted({pair for pair in zip(emotions, speakers, strict=True) if all(pair)})
    if len(pairs) < 2 or not _is_told(speakers) or not _agree(speakers, emotions):
        return
    shown = _name_some(f"{speaker} in {emotion}" for emotion, speaker in pairs)
    if not any(map(is_emotion, emotions)):
        raise ValueError(
            f"{folder}: each sub-folder has a speaker of its own ({shown}), so they look like "
            f"speakers; {_ask_for_emotions(folder)}, or name the files <speaker>_<anything>"
        )
    warnings.warn(
        f"{folder}: each emotion has one speaker, who has no other ({shown}), so the voice tells "
        "it and no split keeps speakers apart: record each speaker in several emotions, or if "
        f"these are no speakers, {CSV_REMEDY}",
        stacklevel=5,
    )


def _may_be_speakers(there: list[str]) -> bool:
    """Whether most folders have other names than a part of a split, a sex or a session."""
    names = {*there} - {""}
    none = [name.casefold() in PARTS or NO_SPEAKER.fullmatch(name) is not None for name in names]
    return 2 * sum(none) <= len(names)


def _is_told(names: list[str]) -> bool:
    """Whether most files have a name that is no empty text."""
    return 2 * names.count("") < len(names)


def _is_varied(names: list[str]) -> bool:
    """Whether most files have a name, and not all the same."""
    return _is_told(names) and len(set(names) - {""}) > 1


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
