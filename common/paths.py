"""Where everything lies, and the one way to write a file."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

DATA_DIR = Path(os.environ.get("SER_DATA_DIR", ROOT / "data")).expanduser().resolve()
RAW_DIR = DATA_DIR / "raw"
CACHE_DIR = DATA_DIR / "cache"
RUNS_DIR = DATA_DIR / "runs"
PRETRAINED_DIR = DATA_DIR / "pretrained"

SAMPLE_DIR = ROOT / "data" / "sample"
INDEX_DIR = ROOT / "data" / "index"
MODELS_DIR = ROOT / "data" / "models"
RESULTS_DIR = ROOT / "results"
FIGURES_DIR = ROOT / "figures"
NOTEBOOKS_DIR = ROOT / "notebooks"


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path` that replaces it when the block ends well.

    Readers see the old file or the new one, never half of one; two processes may write
    at once and the last wins. The temporary path keeps the suffix of `path`, and its
    folder is made if it is missing.

    Raises
    ------
    OSError
        If the folder cannot be written to or the disk is full. The old file stays.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk does not name the file
        raise
    finally:
        temporary.unlink(missing_ok=True)
