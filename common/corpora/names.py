"""How folders and files are named: one spelling, and what messages say of them."""

import unicodedata
from collections.abc import Iterable
from pathlib import Path

MISSING = ("nan", "<NA>", "None", "null")  # as tables are written where nothing is known
NAME_REMEDY = "name the files <speaker>_<anything>"
CSV_REMEDY = "give a CSV with path, emotion and speaker"


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
