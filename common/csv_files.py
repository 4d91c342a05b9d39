"""Reading a CSV as spreadsheets write it."""

import codecs
import csv
import io
import re
import warnings
from collections.abc import Container
from pathlib import Path

import pandas as pd

MAX_CSV_BYTES = 100_000_000
END = "end of the rows"  # a row after the last, which a mark that is not closed takes in


def read_csv(
    path: Path, columns: Container[str], *, one_line: Container[str] | None = None
) -> pd.DataFrame:
    """Read a table of text, its columns in lower case, its index the line of each row.

    Separators are commas, semicolons, tabs or bars, which a first line `sep=;` may tell; the text
    is UTF-8, UTF-16 or Windows-1252, which a warning tells. Blank rows are left out, and rows that
    are too short are filled up with empty text.

    Raises FileNotFoundError if there is no such file, ValueError if it is no table, has one of
    `columns` twice, a line break in a cell of `one_line` (by default of `columns`), a row with more
    cells than the header, or a quotation mark that is not closed or takes in other rows.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; give a CSV with a row per recording")
    lines = list(io.StringIO(_decode(path), newline=""))
    first = next((line for line in lines if line.strip()), "")
    told = re.match(r"\"?sep=([,;\t|])", first, re.IGNORECASE)
    separator = told[1] if told else max(",;\t|", key=first.count)
    rows = _read_rows(path, lines, separator)[1 if told else 0 :]
    header = [name.strip().casefold() for name in (rows[0][1] if rows else [])]
    one_line = columns if one_line is None else one_line
    twice = sorted({name for name in header if name in columns and header.count(name) > 1})
    if twice:
        raise ValueError(f"{path}: two columns {', '.join(twice)}; keep the one that is right")
    for number, row, written in rows:
        problem = _find_problem(row, header, one_line, separator)
        if problem := problem or _find_rows_inside(row, written, header, separator):
            raise ValueError(f"{path}: row {number} has {problem}")
    filled = [""] * len(header)
    whole = [[*row, *filled][: len(header)] for _, row, _ in rows[1:]]
    return pd.DataFrame(whole, [number for number, _, _ in rows[1:]], header, dtype=str)


def _read_rows(
    path: Path, lines: list[str], separator: str
) -> list[tuple[int, list[str], list[str]]]:
    """List the rows that hold anything: the line that each begins on, its cells, its lines."""
    rows, begin = [], 1
    reader = csv.reader([*lines, END], delimiter=separator)
    try:
        for row in reader:
            if any(map(str.strip, row)):
                rows.append((begin, row, lines[begin - 1 : reader.line_num]))
            begin = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(
            f"{path}: row {begin} is none of a CSV ({error}); remove a quotation mark that is not "
            "closed, or save it as CSV, in UTF-8"
        ) from error
    begin, last, _ = rows.pop()
    if last != [END]:
        raise ValueError(
            f"{path}: row {begin} has a quotation mark that is not closed, before "
            f"{_shorten(last[-1].removesuffix(END))}; remove it, or write another after the text"
        )
    return rows


def _find_problem(
    row: list[str], header: list[str], one_line: Container[str], separator: str
) -> str:
    """Say what is wrong with the cells of a row and what to do; empty text if nothing is."""
    if any(cell.strip() for cell in row[len(header) :]):
        return f"more cells than the header; put text that holds {separator!r} in quotation marks"
    for name, cell in zip(header, row, strict=False):
        if name in one_line and re.search(r"[\r\n]", cell.strip()):
            return (
                f"a line break in its {name}, {_shorten(cell)}; remove it, or a quotation mark "
                "before it that is not closed"
            )
    return ""


def _find_rows_inside(row: list[str], written: list[str], header: list[str], separator: str) -> str:
    """Say that two lines of a row look like rows, and what to do; empty text if they do not."""
    whole = [line for line in written if line.count(separator) >= len(header) - 1]
    if len(whole) < 2:
        return ""
    cell = next(cell for cell in row if re.search(r"[\r\n]", cell))
    return (
        f"other rows in a cell, {_shorten(cell)}; remove the quotation mark before it, or write "
        "its text in one line"
    )


def _shorten(cell: str) -> str:
    return repr(cell.strip()[:40])


def _decode(path: Path) -> str:
    with path.open("rb") as file:
        content = file.read(MAX_CSV_BYTES + 1)
    if len(content) > MAX_CSV_BYTES:
        raise ValueError(f"{path}: over {MAX_CSV_BYTES:,} bytes; give a CSV with labels alone")
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) and "utf-16"
    zeros = tuple(byte == 0 for byte in content[:2])  # of one letter, where there is no mark
    wide = wide or {(True, False): "utf-16-be", (False, True): "utf-16-le"}.get(zeros)
    if b"\0" in content and not wide:
        raise ValueError(f"{path}: not text, it holds zeros; save it as CSV in UTF-8")
    try:
        return content.decode(wide or "utf-8-sig")
    except UnicodeDecodeError as error:
        if wide:
            raise ValueError(f"{path}: its UTF-16 is damaged ({error}); save it anew") from error
        try:
            text = content.decode("cp1252")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: not text ({error}); save it as CSV in UTF-8") from error
    warnings.warn(
        f"{path}: not UTF-8, so read as Windows-1252; save it in UTF-8 if names look wrong",
        stacklevel=4,
    )
    return text
