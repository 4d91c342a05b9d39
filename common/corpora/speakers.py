"""Who speaks in a corpus of one's own: how its folders and files are named, and read."""

import re
import unicodedata
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

from common.emotions import PARTS, is_emotion, name_emotion

MISSING = ("nan", "<NA>", "None", "null")  # as tables are written where nothing is known
NAME_REMEDY = "name the files <speaker>_<anything>"
CSV_REMEDY = "give a CSV with path, emotion and speaker"
NO_SPEAKER = re.compile(
    r"(fe)?males?|[fm]|(wo)?m[ae]n|(session|take|set|disc|cd|batch|day|part)[ _-]?\d*|"
    r"(wav|flac|mp3|audio|clip|file|recording|sample|sound|voice|segment|utterance)s?|"
    r"speech(es)?|data|raw|(new|old|original|clean|high|low|strong|weak)s?|augmented|noisy",
    re.IGNORECASE,
)
MARKED = re.compile(r"Ses\d\d[FM]")  # of IEMOCAP


def clean_name(text: str) -> str:
    """Give one spelling of a name: full-width letters, invisible ones, blanks within it."""
    whole = unicodedata.normalize("NFKC", text)
    seen = "".join(letter for letter in whole if unicodedata.category(letter) != "Cf")
    name = " ".join(seen.split())
    return "" if name in MISSING else name


def name_some(names: Iterable[str]) -> str:
    """Name the first four, and say how many more there are."""
    first = sorted({*names} - {""})
    return ", ".join(first[:4]) + (f" and {len(first) - 4} more" if len(first) > 4 else "")


def ask_for_emotions(folder: Path) -> str:
    """Give the remedy where the folders do not tell the emotions."""
    example = folder / "angry" / "anna_01.wav"
    return f"give the folder with one sub-folder per emotion, such as {example}, or {CSV_REMEDY}"


def list_levels(names: list[tuple[str, ...]]) -> list[list[str]]:
    """Give the folder of each file at each depth, or empty text for files that lie above it."""
    depths = range(max(map(len, names)) - 1)
    return [[name[k] if len(name) > k + 1 else "" for name in names] for k in depths]


def repeats_folder(name: tuple[str, ...], level: int) -> bool:
    """Whether the name of a file begins with that of its folder and "_"."""
    inside = len(name) > level + 1
    return inside and name[-1].casefold().startswith(f"{name[level]}_".casefold())


def find_speakers(folder: Path, names: list[tuple[str, ...]], level: int) -> list[str]:
    """Give who speaks in each file, by the folders beside those of the emotions or its own name.

    Empty text stands for a file above the folders that tell the speakers. Raises ValueError if the
    speakers cannot be told.
    """
    named, lack = _read_prefixes(names, level)
    emotions = [name_emotion(name[level]) for name in names]
    levels = {k: there for k, there in enumerate(list_levels(names)) if k != level}
    levels = {k: there for k, there in levels.items() if _may_be_speakers(there)}
    chosen = _choose_folders(folder, names, [*levels.values()], named, emotions)
    beside = [] if chosen or _is_told(named) else _find_beside(levels, level)
    if any(beside) or (chosen and not _agree(chosen, named)):
        warnings.warn(
            f"{folder}: the folders ({name_some(chosen or beside)}) are taken for the speakers, "
            f"since {_find_reason(named, lack)}; if they are none, {CSV_REMEDY}",
            stacklevel=4,
        )
    found = chosen or beside or named
    if _is_varied(named) or not chosen:
        found = _fill(found, named)
    _compare_with_emotions(folder, found, [name[level] for name in names])
    if 2 * sum(bool(MARKED.match(speaker)) for speaker in found) > len(found):
        warnings.warn(
            f"{folder}: {name_some(found)} name who wore the markers where two spoke, not who "
            f"speaks, so one person may be in training and test: {CSV_REMEDY}",
            stacklevel=4,
        )
    if chosen:
        return found
    if alone := found.count(""):
        warnings.warn(
            f"{folder}: {alone} of {len(names)} file names {lack}, so each counts as a speaker of "
            f"its own and one person may be in training and test: {NAME_REMEDY}, or {CSV_REMEDY}",
            stacklevel=4,
        )
    return [speaker or "/".join(name) for speaker, name in zip(found, names, strict=True)]


def _find_reason(named: list[str], lack: str) -> str:
    """Say what most file names lack, or that they begin alike, so that they tell no speaker."""
    if not _is_told(named):
        return f"{named.count('')} of {len(named)} file names {lack}"
    [(same, times)] = Counter(filter(None, named)).most_common(1)
    return f"{times} of {len(named)} file names begin with {same}_"


def _fill(folders: list[str], named: list[str]) -> list[str]:
    """Give the folder of each file; where it lies in none, that of the files named alike.

    This is empty text where they lie in several, and the name where there are none.
    """
    mates = defaultdict(set)
    for name, there in zip(named, folders, strict=True):
        if name and there:
            mates[name].add(there)
    pairs = zip(named, folders, strict=True)
    found = [{there} if there else mates.get(name, {name}) for name, there in pairs]
    return ["".join(there) if len(there) == 1 else "" for there in found]


def _read_prefixes(names: list[tuple[str, ...]], level: int) -> tuple[list[str], str]:
    """Give each file's name up to its first "_" if it may be a speaker, and what others lack."""
    prefixes = [name[-1].partition("_")[0].strip() if "_" in name[-1] else "" for name in names]
    named = [
        "" if is_emotion(prefix) or repeats_folder(name, level) else prefix
        for prefix, name in zip(prefixes, names, strict=True)
    ]
    lack, times = "have no '_' after a speaker's name", Counter(named)
    if 2 * sum(name.isdigit() and times[name] == 1 for name in named) <= len(named):
        return named, lack
    number = "begin with a number that no other has"
    lack = f"{lack} or {number}" if "" in named else number
    return ["" if name.isdigit() and times[name] == 1 else name for name in named], lack


def _choose_folders(
    folder: Path,
    names: list[tuple[str, ...]],
    levels: list[list[str]],
    named: list[str],
    emotions: list[str],
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
        odd = [number for there in most if _is_varied(named) for number in _list_odd(there, named)]
        move = f"rename or move {'/'.join(names[odd[0]])}, unlike the others, " if odd else ""
        raise ValueError(
            f"{folder}: who speaks? The folders say {' or '.join(map(name_some, several))}, the "
            f"file names {name_some(named) or 'nothing'}; {move}{CSV_REMEDY}, or write '-' for "
            "'_' where no speaker stands before it"
        )
    return chosen[0] if chosen else []


def _list_odd(folders: list[str], named: list[str]) -> list[int]:
    """List the files that are named otherwise than most in their folder, if they are few.

    If there are none, those that lie in another folder than most of their name.
    """
    for one, other in ((folders, named), (named, folders)):
        pairs = [pair if all(pair) else ("", "") for pair in zip(one, other, strict=True)]
        usual = {a: b for (a, b), _ in reversed(Counter(pairs).most_common())}
        odd = [number for number, (a, b) in enumerate(pairs) if usual[a] != b]
        if odd and _are_few(len(odd), len(pairs)):
            return odd
    return []


def _are_few(count: int, total: int) -> bool:
    """Whether it is at most one in ten."""
    return 10 * count <= total


def _find_beside(levels: dict[int, list[str]], level: int) -> list[str]:
    """Give the folders right above or below the emotions; a single one only below nearly all."""
    near = [levels[k] for k in (level + 1, level - 1) if k in levels]
    if several := [there for there in near if len(set(there) - {""}) > 1]:
        return several[0] if _agree(several[0], several[-1]) else []
    below = levels.get(level + 1, [])
    return below if _are_few(below.count(""), len(below)) else []


def _compare_with_emotions(folder: Path, speakers: list[str], emotions: list[str]) -> None:
    """Raise ValueError if the emotions are the speakers; warn if each speaks a known one alone."""
    usual = [*map(name_emotion, emotions)]
    pairs = {pair for pair in zip(usual, speakers, strict=True) if all(pair)}
    if len(pairs) < 2 or not _is_told(speakers) or not _agree(speakers, usual):
        return
    said = zip(emotions, speakers, strict=True)
    shown = name_some(f"{speaker} in {emotion}" for emotion, speaker in said if speaker)
    if not any(map(is_emotion, emotions)):
        raise ValueError(
            f"{folder}: each sub-folder has a speaker of its own ({shown}), so they look like "
            f"speakers; {NAME_REMEDY}, {ask_for_emotions(folder)}"
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
