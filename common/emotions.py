"""The emotions, their names and their order."""

from collections.abc import Iterable

EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")


def order_emotions(labels: Iterable[str]) -> list[str]:
    """Sort distinct labels into the canonical order of `EMOTIONS`, others after it by name."""
    rank = {emotion: position for position, emotion in enumerate(EMOTIONS)}
    return sorted(set(labels), key=lambda label: (rank.get(label, len(rank)), label))
