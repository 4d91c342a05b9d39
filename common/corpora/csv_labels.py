"""Labels of a corpus of one's own, read from a CSV."""

import os
import unicodedata
from collections import defaultdict
from functools import cache
from pathlib import Path

from common.corpora.names import clean_name
from common.corpora.recordings import COLUMNS, walk_files
from common.csv_files import read_csv

CLEANED = ("emotion", "speaker", "gender", "intensity")


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
