"""A short form of `make torture`, without its kills."""

import os
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
    formats = len(torture.make_sounds())
    assert formats == 17
    assert f"{formats:6,}  good file used" in done.stdout
    assert f"{3 * formats:6,}  cut file refused" in done.stdout


def test_what_hangs_ends_the_torture_and_is_kept(tmp_path):
    code = (
        "import time; from tools import torture; torture.HANG_SECONDS = 1; "
        "torture.load_waveform = lambda path: time.sleep(100); torture.main(['--kills', '0'])"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1 and "in _hear" in done.stdout
    assert [path.name for path in tmp_path.glob("torture-*/*")] == ["sound"]


def test_a_training_that_hangs_is_killed(monkeypatch):
    monkeypatch.setattr(torture, "TRAINING_SECONDS", 1)
    monkeypatch.setattr(torture, "TRAIN", "import time; time.sleep(100)")
    for kill_after in (None, 0):
        assert torture._train(None, kill_after=kill_after) == (None, "exit status -9")


def test_a_failure_is_seen(monkeypatch, capsys):
    monkeypatch.setattr(torture, "load_waveform", lambda path: torture.np.zeros(3))
    assert torture.main(["--files", "1", "--archives", "1", "--kills", "0"]) == 1
    assert "CUT FILE" in capsys.readouterr().out
