"""A short form of `make torture`, without its kills."""

import subprocess
import sys

from common.paths import ROOT
from tools import torture


def test_nothing_that_must_not_happens():
    """In a process of its own, whose memory is measured."""
    command = [sys.executable, "-m", "tools.torture", "--files", "150", "--archives", "20"]
    done = subprocess.run([*command, "--kills", "0"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all well" in done.stdout
    assert f"{len(torture.FORMATS):6,}  good file used" in done.stdout
    assert f"{3 * len(torture.FORMATS):6,}  cut file refused" in done.stdout


def test_a_failure_is_seen(monkeypatch, capsys):
    monkeypatch.setattr(torture, "load_waveform", lambda path: torture.np.zeros(3))
    assert torture.main(["--files", "1", "--archives", "1", "--kills", "0"]) == 1
    assert "CUT FILE" in capsys.readouterr().out
