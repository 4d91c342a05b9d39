"""Where the data lies, as SER_DATA_DIR says."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from common.paths import ROOT


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, ROOT / "data"),
        ("", ROOT / "data"),
        ("elsewhere/data", ROOT / "elsewhere" / "data"),
        ("~/speech", Path.home() / "speech"),
        ("/mnt/speech", Path("/mnt/speech")),
    ],
)
def test_the_data_lies_in_one_place_from_wherever_it_is_asked(given, expected, tmp_path):
    environment = {key: value for key, value in os.environ.items() if key != "SER_DATA_DIR"}
    environment |= {"PYTHONPATH": str(ROOT)} | ({} if given is None else {"SER_DATA_DIR": given})
    command = [sys.executable, "-c", "from common.paths import DATA_DIR; print(DATA_DIR)"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == str(expected), done.stderr


@pytest.mark.parametrize("given", ["~nosuchuser/x", "circle/x"])
def test_where_no_data_can_lie_the_variable_is_named(given, tmp_path):
    if given.startswith("circle"):
        if sys.version_info >= (3, 13):
            pytest.skip("resolves it as far as it goes")
        (tmp_path / "circle").symlink_to("circle")
        given = str(tmp_path / given)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SER_DATA_DIR": given}
    command = [sys.executable, "-c", "import common.paths"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert f"ValueError: SER_DATA_DIR={given!r}: no folder" in done.stderr
    assert done.stderr.strip().endswith("set it to the path of a folder, or unset it to use data/")
