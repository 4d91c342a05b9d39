"""The emotions, their names and their order; what the parts of a split are called."""

import warnings
from collections import Counter
from collections.abc import Iterable

EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")


def order_emotions(labels: Iterable[str]) -> list[str]:
    """Sort distinct labels into the canonical order of `EMOTIONS`, others after it by name."""
    rank = {emotion: position for position, emotion in enumerate(EMOTIONS)}
    return sorted(set(labels), key=lambda label: (rank.get(label, len(rank)), label))


# What folders and lists call the parts of a split.
PARTS = {
    **dict.fromkeys(("train", "training", "fit"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "development"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
# How corpora and people call them otherwise.
SYNONYMS = {
    **dict.fromkeys(("neutrality", "neu"), "neutral"),
    **dict.fromkeys(("calmness",), "calm"),
    **dict.fromkeys(("happiness", "joy", "joyful", "hap"), "happy"),
    **dict.fromkeys(("sadness",), "sad"),
    **dict.fromkeys(("anger", "ang"), "angry"),
    **dict.fromkeys(("fear", "afraid", "scared", "fea"), "fearful"),
    **dict.fromkeys(("disgusted", "dis"), "disgust"),
    **dict.fromkeys(("surprise", "pleasant surprise", "pleasant surprised", "ps"), "surprised"),
    "boredom": "bored",
}


def name_emotion(label: str) -> str:
    """Give the usual name of an emotion: `fear` is fearful; what is not known stays as it is."""
    label = " ".join(label.casefold().replace("_", " ").split())
    return SYNONYMS.get(label, label)


def is_emotion(label: str) -> bool:
    """Whether a word is known as the name of an emotion."""
    return name_emotion(label) in {*EMOTIONS, *SYNONYMS.values()}


def match_emotions(labels: Iterable[str]) -> dict[str, str]:
    """Map emotions that go by two names to the usual one; a warning tells which."""
    usual = {label: name_emotion(label) for label in sorted(set(labels))}
    several = Counter(usual.values())
    merged = {old: new for old, new in usual.items() if new != old and several[new] > 1}
    if merged:
        pairs = ", ".join(f"{old} as {new}" for old, new in merged.items())
        warnings.warn(f"emotions by two names are taken for one: {pairs}", stacklevel=3)
    return merged
