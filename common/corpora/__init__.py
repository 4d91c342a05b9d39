"""Corpora of emotional speech: what is known of each, and its utterance table."""

from common.corpora.combining import combine_corpora
from common.corpora.fetching import fetch_corpus
from common.corpora.recordings import COLUMNS
from common.corpora.records import CORPORA
from common.corpora.tables import (
    draw_balanced,
    load_corpus,
    load_folder,
    open_corpus,
)
from common.corpora.validation import validate_corpus

__all__ = [
    "COLUMNS",
    "CORPORA",
    "combine_corpora",
    "draw_balanced",
    "fetch_corpus",
    "load_corpus",
    "load_folder",
    "open_corpus",
    "validate_corpus",
]
