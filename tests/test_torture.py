"""A short form of `make torture`, without its kills."""

from tools import torture


def test_nothing_that_must_not_happens(capsys):
    assert torture.main(["--files", "150", "--archives", "20", "--kills", "0"]) == 0
    printed = capsys.readouterr().out
    assert "all well" in printed
    assert f"{len(torture.FORMATS):6,}  good file used" in printed
    assert f"{3 * len(torture.FORMATS):6,}  cut file refused" in printed


def test_a_failure_is_seen(monkeypatch, capsys):
    monkeypatch.setattr(torture, "load_waveform", lambda path: torture.np.zeros(3))
    assert torture.main(["--files", "1", "--archives", "1", "--kills", "0"]) == 1
    assert "CUT FILE" in capsys.readouterr().out
