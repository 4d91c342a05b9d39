"""Where everything lies."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# Relative to the repository, wherever a notebook or a command is started.
DATA_DIR = (ROOT / Path(os.environ.get("SER_DATA_DIR") or "data").expanduser()).resolve()
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
