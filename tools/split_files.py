"""Write docs/splits: which fold tests which recording, with the hash of its bytes as published.

    python -m tools.split_files ravdess savee tess

needs the corpora. Each file is a table for `python -m common.leakage`.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from common.corpora import load_corpus
from common.files import write_atomically
from common.paths import INDEX_DIR, ROOT
from common.splits import make_folds

SPLITS_DIR = ROOT / "docs" / "splits"
PROTOCOLS = {
    "ravdess": ("speaker_5fold", "speaker_6fold", "sentence_out"),
    "savee": ("leave_one_speaker_out",),
    "tess": ("leave_one_speaker_out",),
}
COLUMNS = ["utterance", "audio_hash", "speaker", "statement", "emotion", "fold"]


def tabulate_split(table: pd.DataFrame, protocol: str) -> pd.DataFrame:
    """Give every utterance the number of the fold that tests it; the columns are `COLUMNS`.

    Hashes are those of `data/index`, which a copy from elsewhere need not have.
    """
    corpus = table["corpus"].iloc[0]
    index = pd.read_csv(INDEX_DIR / f"{corpus}.csv")
    names = f"{corpus}/" + index["path"].str.rpartition(".")[0]
    hashes = table["utterance"].map(pd.Series(index["sha256"].to_numpy(), names))
    fold_of = pd.Series(0, index=table.index)
    for fold in make_folds(table, protocol):
        fold_of.iloc[fold.test] = fold.number
    return table.assign(fold=fold_of, audio_hash=hashes)[COLUMNS]


def write_splits(corpora: Sequence[str], folder: Path = SPLITS_DIR) -> list[Path]:
    """Write `<corpus>_<protocol>.csv` for the corpora, keys of `PROTOCOLS`."""
    written = []
    for corpus in corpora:
        if corpus not in PROTOCOLS:
            raise SystemExit(f"{corpus!r} has no published split; choose from {[*PROTOCOLS]}")
        table = load_corpus(corpus)
        for protocol in PROTOCOLS[corpus]:
            path = folder / f"{corpus}_{protocol}.csv"
            with write_atomically(path) as temporary:
                tabulate_split(table, protocol).to_csv(temporary, index=False, lineterminator="\n")
            written.append(path)
    return written


if __name__ == "__main__":
    for path in write_splits(sys.argv[1:] or [*PROTOCOLS]):
        print(path.relative_to(ROOT))
