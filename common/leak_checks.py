"""What can be wrong with a split, check by check: what `common.leakage` puts together.

Every check takes a table with the columns `recording` and, where they are known, `sound`, `path`,
`speaker`, `sentence` and `label`, and the row numbers of the parts, fold by fold.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from common.recipes import fit_normaliser

# Utterances per speaker and emotion where all speakers have alike, and the speakers.
SUPPORT = {
    "ravdess": ({"neutral": 4}, 8, 24),
    "savee": ({"neutral": 30}, 15, 4),
    "tess": ({}, 200, 2),
}
# The best published score on speakers never heard, though some chose the epoch on the test fold.
CEILINGS = {
    "ravdess": (0.82, "XLSR fine-tuned, WA 0.818 (Luna-Jiménez et al., Applied Sciences 2022)"),
    "savee": (0.76, "data2vec 2.0 large, UAR 0.758 (EmoBox, arXiv:2406.07162)"),
    "tess": (0.85, "a dimensional wav2vec 2.0 model, WA 0.849 (a public study)"),
    "emodb": (0.91, "networks from scratch, UAR 0.82 to 0.91"),
    "cremad": (0.77, "Dasheng 1.2B, WA 0.769 (github.com/nttcslab/eval-audio-repr)"),
}
COPY = re.compile(  # with something before it
    r"(?<=.)(?:[ _.+-]*(?:(?:noisy|noise|aug(?:mented)?|copy|pitch|stretch(?:ed)?|shift(?:ed)?"
    r"|speed|tempo|gain|reverb|rir|awgn)[ _-]?\d*|\(\d+\)))+$",
    re.IGNORECASE,
)
MODALITY = re.compile(r"^0[1-3](?=(?:-\d\d){6}$)")  # RAVDESS: with video, video alone, sound alone
MEANINGS = {
    ("train", "test"): (
        "What is tested was trained on: memory counts as recognition.",
        "Split first, copy and augment afterwards, training rows alone; keep copies in one part.",
    ),
    ("validation", "test"): (
        "The epoch or the settings are chosen on what is tested.",
        "Take validation rows from the training speakers, and look at the test part once.",
    ),
    ("train", "validation"): (
        "Validation sees what was trained on, and chooses an epoch that has learnt it by heart.",
        "Keep copies of a recording in one part.",
    ),
}
KNOWN_VOICES = (
    "leak",
    "The score is of voices that the model knows, not of strangers.",
    "Split by speaker, or say that the score is of known voices.",
)
HEARD = {
    ("speaker", "train", "test"): KNOWN_VOICES,
    ("speaker", "validation", "test"): KNOWN_VOICES,
    ("speaker", "train", "validation"): (
        "warning",
        "Validation speakers are known voices: the epoch is chosen for those, not for strangers.",
        "Keep some training speakers for validation alone.",
    ),
    ("sentence", "train", "test"): (
        "note",
        "The words that are tested were heard in training; few corpora allow otherwise.",
        "Leave sentences out as well, and report both.",
    ),
}
SEVERITIES = ("leak", "warning", "note")
NUM_EXAMPLES = 3


Rows = dict[str, np.ndarray]  # row numbers by part


@dataclass(frozen=True)
class Finding:
    """One kind of fault: how many cases there are, some of them, what follows, what to do.

    `severity` is "leak" (the test score is of something else than it says), "warning" (it may
    be), or "note" (good to know).
    """

    severity: str
    kind: str
    count: int
    examples: str
    meaning: str
    remedy: str


def find_crossing(
    table: pd.DataFrame,
    parts: list[Rows],
    column: str,
    one: str,
    other: str,
    finer: str | None = None,
) -> list:
    """Values of a column that two parts of a fold share, by more than what `finer` tells of."""
    crossing = set()
    for rows in parts:
        here, there = (set(table[column].iloc[rows[part]].dropna()) for part in (one, other))
        crossing |= here & there
    if finer and crossing:
        inside = table[table[column].isin(crossing)].groupby(column)[finer].nunique()
        crossing = inside.index[inside > 1]
    return sorted(crossing)


def _name_utterances(table: pd.DataFrame) -> pd.Series:
    """One name for an utterance and its copies, which are called as copies usually are.

    Where no file has the name that is left, as with `happy (1)` and `happy (2)`, all keep theirs.
    """
    paths = [Path(path.replace("\\", "/")) for path in table["path"].fillna("")]
    owners = table["speaker"] if "speaker" in table else [path.parent.name for path in paths]
    labels = table["label"] if "label" in table else [""] * len(table)
    stems = [MODALITY.sub("", path.stem.lower()) for path in paths]

    def join(stems: list[str]) -> list[str]:
        return ["/".join(map(str, name)) for name in zip(owners, labels, stems, strict=True)]

    own, originals = join(stems), join([COPY.sub("", stem) for stem in stems])
    there = {*own}
    names = [first if first in there else name for name, first in zip(own, originals, strict=True)]
    return pd.Series(names).where(table["path"].notna())


def _show_names(table: pd.DataFrame) -> pd.Series:
    """Names of recordings to read: the end of the path, or the hash."""
    if "path" not in table:
        return table["recording"]
    short = table["path"].str.replace("\\", "/").str.split("/").str[-2:].str.join("/")
    return short.fillna(table["recording"])


def check_copies(table: pd.DataFrame, parts: list[Rows]) -> Iterator[Finding]:
    """The same recording, the same sound, the same name in two parts, or twice in the test part."""
    levels = {"recording": ("recordings", None)}
    finest = "recording"
    if "sound" in table:
        levels["sound"], finest = ("near duplicates", finest), "sound"
    if "path" in table:
        table["name"] = _name_utterances(table)
        levels["name"] = ("copies by their names", finest)
    names = _show_names(table)
    for column, (kinds, finer) in levels.items():
        for (one, other), (meaning, remedy) in MEANINGS.items():
            if shared := find_crossing(table, parts, column, one, other, finer):
                same = [names[table[column] == value].unique() for value in shared[:NUM_EXAMPLES]]
                examples = "; ".join(" = ".join(members[:2]) for members in same)
                severity = "leak" if other == "test" else "warning"
                kind = f"{kinds} in {one} and {other}"
                yield Finding(severity, kind, len(shared), examples, meaning, remedy)
    column = "sound" if "sound" in table else "recording"
    again = [rows["test"][table[column].iloc[rows["test"]].duplicated()] for rows in parts]
    again, num_tested = np.concatenate(again), sum(len(rows["test"]) for rows in parts)
    if len(again):
        yield Finding(
            "note" if len(again) < 0.01 * num_tested else "warning",
            "copies within the test part",
            len(again),
            "; ".join(names.iloc[again[:NUM_EXAMPLES]]),
            "One utterance counts several times, and an interval takes it for several.",
            "Test the originals alone, once each.",
        )


def check_labels(table: pd.DataFrame) -> Iterator[Finding]:
    """One sound with two labels: labels of copies were taken from other rows."""
    column = "sound" if "sound" in table else "recording"
    if "label" not in table:
        return
    kinds = table.groupby(column)["label"].unique()
    torn = kinds[kinds.map(len) > 1]
    if len(torn):
        names = _show_names(table).groupby(table[column]).first()
        some = torn.head(NUM_EXAMPLES).items()
        examples = [f"{names[sound]}: {', '.join(labels)}" for sound, labels in some]
        yield Finding(
            "warning",
            "one sound with several labels",
            len(torn),
            "; ".join(examples),
            "Copies have lost their labels, as after a shuffle of one list and not of the other.",
            "Carry the label along in the row of each copy.",
        )


def check_speakers(table: pd.DataFrame, parts: list[Rows], independent: bool) -> Iterator[Finding]:
    """Speakers, and then sentences, that are trained on and tested."""
    for (column, one, other), (severity, meaning, remedy) in HEARD.items():
        if column not in table or ("validation" in (one, other) and not independent):
            continue
        if shared := find_crossing(table, parts, column, one, other):
            kind = f"{column}s in {one} and {other}"
            examples = ", ".join(shared[:NUM_EXAMPLES])
            yield Finding(severity, kind, len(shared), examples, meaning, remedy)


def check_support(counts: Mapping[str, int], corpus: str) -> str:
    """Say why a test part with these counts cannot be of whole speakers, "" if it can.

    A classification report has these counts, so that a published score can be checked without
    its data. Only corpora of `SUPPORT`, whose speakers all have as many of each label, tell.
    """
    if corpus not in SUPPORT or not counts:
        return ""
    special, usual, num_speakers = SUPPORT[corpus]
    each = {label: special.get(label.lower(), usual) for label in counts}
    speakers = {counts[label] / each[label] for label in counts}
    said = ", ".join(f"{label} {count}" for label, count in counts.items())
    if max(speakers) > num_speakers:
        return f"{said}: more than the {num_speakers} speakers of {corpus} ever said"
    if len(speakers) > 1 or not speakers.pop().is_integer():
        usually = ", ".join(f"{label} {count}" for label, count in each.items())
        return f"{said}: no multiple of what one speaker says ({usually})"
    return ""


def check_support_of_parts(
    table: pd.DataFrame, parts: list[Rows], corpus: str
) -> Iterator[Finding]:
    """`check_support` of every test part, where the speakers are not known."""
    if "label" not in table or "speaker" in table:
        return
    tested = [table["label"].iloc[rows["test"]].value_counts().to_dict() for rows in parts]
    said = [reason for counts in tested if (reason := check_support(counts, corpus))]
    if said:
        yield Finding(
            "warning",
            "class support that whole speakers do not have",
            len(said),
            said[0],
            "Some speakers are tested in part, and their other utterances train.",
            "Split by speaker, and give the table a column of speakers.",
        )


def check_statistics(
    parts: list[Rows],
    features: np.ndarray | None,
    statistics: tuple[np.ndarray, np.ndarray] | None,
) -> Iterator[Finding]:
    """A scaler whose mean and deviation are not those of the training rows of any fold."""
    if statistics is None:
        return
    if features is None:
        raise ValueError("statistics without features: give what they were measured on as well")
    given = np.stack([np.ravel(value) for value in statistics])

    def measure(rows: np.ndarray) -> np.ndarray:
        normaliser = fit_normaliser(features[rows])
        return np.stack([normaliser.mean, normaliser.std])

    every = measure(np.arange(len(features)))
    if given.shape != every.shape:
        raise ValueError(
            f"statistics of shape {given.shape} for features of {every.shape[1]} bands"
        )
    trained = [measure(rows["train"]) for rows in parts]
    tolerance = 1e-3 * every[1]
    if not any((np.abs(given - own) <= tolerance).all() for own in trained):
        whole = (np.abs(given - every) <= tolerance).all()
        yield Finding(
            "leak",
            "scaler not of the training rows",
            len(parts),
            "mean and deviation are those of all rows" if whole else "of other rows than these",
            "What is tested has decided what the model reads.",
            "Fit the scaler inside each fold, on its training rows.",
        )


def check_score(corpus: str, score: float | None, independent: bool) -> Iterator[Finding]:
    """A score on speakers never heard, or said to be, that is above what is published."""
    if score is not None and corpus in CEILINGS and independent and score > CEILINGS[corpus][0]:
        ceiling, source = CEILINGS[corpus]
        yield Finding(
            "warning",
            "a score above all that is published for speakers never heard",
            1,
            f"{score:.3f}; {ceiling:.2f} is reached by {source}",
            "A leak is likelier than a discovery.",
            "Permute the labels of the training part: the score must fall to chance.",
        )
