"""What every test stands on: quiet libraries and a data folder of its own."""

import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import numpy as np
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


def _seed() -> None:
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - Keras shuffles with it
    if "keras" in sys.modules:
        sys.modules["keras"].utils.set_random_seed(0)


@pytest.fixture(scope="module", autouse=True)
def seed_shared_fixtures() -> None:
    """Let what a module's tests share not depend on the tests before."""
    _seed()


@pytest.fixture(autouse=True)
def seed_everything(seed_shared_fixtures) -> None:
    """Keras draws initial weights and the order of rows from global generators."""
    _seed()


EXECUTED = "test_notebook_runs_on_the_sample_corpus"


def is_execution(item: pytest.Item) -> bool:
    return getattr(item, "originalname", None) == EXECUTED


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Ask last for the notebooks that are executed in the meantime."""
    items.sort(key=is_execution)


@pytest.fixture(scope="session", autouse=True)
def executions(request, tmp_path_factory):
    """Execute the notebooks under test beside the other tests: a kernel keeps one core busy."""
    selected = [
        item.callspec.params["path"] for item in request.session.items if is_execution(item)
    ]
    folder = tmp_path_factory.mktemp("executed")

    def run(path: Path):
        from tools.execution import execute_notebook
        from tools.generation import read_sample_parameters

        parameters = read_sample_parameters(nbformat.read(path, as_version=4))
        return execute_notebook(path, parameters=parameters, folder=folder)

    pool = ThreadPoolExecutor(max_workers=2 if os.environ.get("ALL") else 1)
    yield {path: pool.submit(run, path) for path in selected}
    pool.shutdown(cancel_futures=True)


@pytest.fixture(scope="session")
def speech_folder() -> Callable[[str], Path]:
    """Return a function from a corpus name to its folder; it skips the test without the corpus."""

    def find(name: str) -> Path:
        folder = SPEECH_DIR / name
        if not folder.is_dir() or not any(folder.iterdir()):
            pytest.skip(f"no {name} corpus in {folder}")
        return folder

    return find
