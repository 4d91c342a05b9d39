"""Where everything lies."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def _find_data() -> Path:
    """What SER_DATA_DIR says, relative to the repository wherever a command is started."""
    given = os.environ.get("SER_DATA_DIR") or "data"
    try:
        return (ROOT / Path(given).expanduser()).resolve()
    except RuntimeError as error:  # of a home that is not there, or links in a circle
        raise ValueError(
            f"SER_DATA_DIR={given!r}: no folder can be there ({error}); set it to the path of a "
            "folder, or unset it to use data/"
        ) from error


DATA_DIR = _find_data()
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
