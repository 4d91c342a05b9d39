"""What every test stands on: quiet libraries and a data folder of its own."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent
SPEECH_DIR = Path(os.environ.get("SER_DATA_DIR", ROOT / "data")).expanduser() / "raw"
TEST_DATA_DIR = Path(tempfile.mkdtemp(prefix="ser-tests-"))

# Before anything imports `common` or Keras.
os.environ["SER_DATA_DIR"] = str(TEST_DATA_DIR)
os.environ["MPLBACKEND"] = "Agg"
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

settings.register_profile("repository", deadline=None, derandomize=True)
settings.load_profile("repository")


def pytest_unconfigure() -> None:
    shutil.rmtree(TEST_DATA_DIR, ignore_errors=True)


@pytest.fixture(scope="session")
def speech_folder() -> Callable[[str], Path]:
    """Return a function from a corpus name to its folder; it skips the test without the corpus."""

    def find(name: str) -> Path:
        folder = SPEECH_DIR / name
        if not folder.is_dir() or not any(folder.iterdir()):
            pytest.skip(f"no {name} corpus in {folder}")
        return folder

    return find
