"""Findings of a notebook: short enough to be read aloud, and every number in them measured."""

import html
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from nbformat import NotebookNode

MAX_SENTENCES = 6
MAX_WORDS = 35
MAX_DECIMALS = 14
MAX_NUMBERS = 6  # of a sentence
SCALES = {"thousand": 1e3, "million": 1e6}
NUMBER = re.compile(
    r"(?<![A-Za-z_\d.])(?<![A-Za-z]-)"
    r"(?P<whole>\d{1,3}(?:,\d{3})+(?!\d)|\d+)"
    # An integer that letters follow is part of a name: 2-D, 5-fold, 16k.
    r"(?:(?P<decimals>\.\d+)|(?![\w])(?!-(?!points?\b|per\b)[A-Za-z]))"
    r"(?:\s+(?P<scale>thousand|million)\b)?"
)
NO_FINDING = re.compile(
    r"`[^`]*`|\]\([^)]*\)|wav2vec 2\.0|\bKeras 3\b"
    r"|\b95\s*%\s+(?:confidence |bootstrap )?(?:interval|CI)"
)
AIMS = re.compile(
    r"\b(?:we|is|was|were|had) aim(?:ed)?\b|\baim(?:ed|ing)? (?:at|for)\b"
    r"|\b(?:our|the) (?:aim|target|goal)s?\b|\bthe mark of\b",
    re.IGNORECASE,
)
ABBREVIATIONS = re.compile(r"\b(et al|e\.g|i\.e|cf|vs|approx|Fig)\.")


def read_findings(notebook: NotebookNode) -> str:
    """Give the text below "## Findings", down to the next heading of that level; "" without."""
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    text = "\n\n".join(cells)
    match = re.search(r"^##[ \t]+Findings[ \t]*$(.*?)(?=^##?[ \t]|\Z)", text, re.M | re.S)
    return re.sub(r"^#+[ \t].*$", "", match[1], flags=re.M).strip() if match else ""


def check_findings(notebook: NotebookNode, evidence: Iterable[Path] = ()) -> Iterator[str]:
    """List what is wrong with the Findings of a notebook, each entry with its remedy.

    A number must occur, rounded as it is written, in the text of an output, or in the JSON files of
    its results, the `evidence`, as a score in per cent or a count.
    """
    text = read_findings(notebook)
    sentences = split_sentences(text)
    if len(sentences) > MAX_SENTENCES:
        yield f"Findings have {len(sentences)} sentences, at most {MAX_SENTENCES}: leave some out"
    for sentence in sentences:
        start = f"Findings: {sentence[:40]!r}…"
        num_words = sum(any(map(str.isalnum, word)) for word in sentence.split())
        if num_words > MAX_WORDS:
            yield f"{start} has {num_words} words, at most {MAX_WORDS}: split it"
        num_numbers = len(NUMBER.findall(NO_FINDING.sub(" ", sentence)))
        if num_numbers > MAX_NUMBERS:
            yield f"{start} has {num_numbers} numbers, at most {MAX_NUMBERS}: leave some to tables"
    if match := AIMS.search(text):
        yield f"Findings speak of aims ({match[0]!r}): say what is, beside published references"
    numbers = list(NUMBER.finditer(NO_FINDING.sub(" ", text)))
    num_decimals = sum(number["decimals"] is not None for number in numbers)
    if num_decimals > MAX_DECIMALS:
        yield f"Findings have {num_decimals} decimals, at most {MAX_DECIMALS}: leave them to tables"
    known = [*_read_outputs(notebook), *_read_evidence(evidence)]
    unknown = [number[0] for number in numbers if not _occurs(number, known)]
    if unknown:
        yield (
            f"Findings say {', '.join(unknown)}, which no output and no evidence of this notebook "
            "has: correct them, or show where they come from"
        )


def split_sentences(text: str) -> list[str]:
    """Split Markdown into sentences; a list item or paragraph ends one, a full stop or not."""
    text = ABBREVIATIONS.sub(r"\1", text)
    blocks = re.split(r"\n\s*\n|\n(?=[ \t]*(?:[-*+]|\d+\.)[ \t])", text)
    blocks = [re.sub(r"^\s*(?:[-*+]|\d+\.)\s+", "", block) for block in blocks]
    pieces = [piece for block in blocks for piece in re.split(r"(?<=[.!?])[)\"'*_”]*\s+", block)]
    return [" ".join(piece.split()) for piece in pieces if any(map(str.isalnum, piece))]


def _occurs(number: re.Match, known: Iterable[float]) -> bool:
    """Tell whether a number as it is written is one of `known`, rounded, or a year."""
    if re.fullmatch(r"(?:19|20)\d\d", number[0]):
        return True
    decimals = number["decimals"] or ""
    scale = SCALES.get(number["scale"], 1)
    written = float(number["whole"].replace(",", "") + decimals)
    tolerance = 0.5 * 10.0 ** -len(decimals[1:]) + 1e-9
    return any(abs(value / scale - written) <= tolerance for value in known)


def _read_outputs(notebook: NotebookNode) -> Iterator[float]:
    """Give the numbers, without their signs, in what the cells print and show as text."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            texts = [output.get("text", "") if output.get("name") == "stdout" else ""]
            texts += [data.get("text/plain", ""), data.get("text/markdown", "")]
            page = re.sub(r"<(style|script)\b.*?</\1>", " ", data.get("text/html", ""), flags=re.S)
            texts.append(html.unescape(re.sub(r"<[^>]*>", " ", page)))
            for number in NUMBER.finditer(re.sub(r"<Figure[^>]*>", " ", "\n".join(texts))):
                scale = SCALES.get(number["scale"], 1)
                yield scale * float(number["whole"].replace(",", "") + (number["decimals"] or ""))


def _read_evidence(evidence: Iterable[Path]) -> Iterator[float]:
    """Give the scores in per cent and the counts of evidence files."""
    for path in evidence:
        content = json.loads(path.read_text(encoding="utf-8"))
        scores = [*content.get("metrics", {}).values(), *content.get("per_class", {}).values()]
        for score in scores:
            for name, value in score.items():
                if value is not None:
                    yield value if name == "support" else 100 * value
        for name, value in content.items():
            if name.startswith("num_") and value is not None:
                yield value
