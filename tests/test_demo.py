"""The demo in a browser whose microphone plays a WAV file; nothing but loopback is asked.

`python -m tests.test_demo` takes the picture of the README, with the models that are at hand.
"""

import socket
import tempfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import keras  # noqa: F401 - else a thread of the demo imports it while the next test seeds it
import numpy as np
import pytest
import requests
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from playwright.sync_api import expect

from common.audio import load_waveform
from common.paths import ROOT, SAMPLE_DIR
from common.recognition import EmotionRecognizer, Prediction
from tests.browsers import needs_chromium, open_browser
from tests.spoken_corpora import write_m4a

CLIPS = sorted(SAMPLE_DIR.rglob("*.flac"))[::52]
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:gradio")


@pytest.fixture(scope="module")
def asked():
    """Hosts that this process connects to while the demo runs."""
    hosts, connect = set(), socket.socket.connect

    def note(self, address):
        hosts.add(address[0] if isinstance(address, tuple) else "local")
        return connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", note)
        yield hosts


@pytest.fixture(scope="module")
def demo(asked):
    from common.demo import build_demo, launch_demo

    demo = build_demo({"small": EmotionRecognizer.load("small")}, remark="No `whisper` here.")
    launch_demo(demo, prevent_thread_lock=True, quiet=True)
    yield demo
    demo.close()


@pytest.fixture(scope="module")
def address(demo):
    return demo.local_url


def write_spoken(path: Path, clips) -> Path:
    """Write clips with a pause after each, as a microphone would give them."""
    sound = [part for clip in clips for part in (load_waveform(clip), np.zeros(8_000, np.float32))]
    soundfile.write(path, np.concatenate(sound), 16_000)
    return path


def start_microphone(page, address: str, errors: list[str], *, attempts: int = 3) -> None:
    """Press record until an answer comes: gradio drops what is pressed before it has loaded."""
    for attempt in range(1, attempts + 1):
        page.goto(address)
        page.wait_for_timeout(3_000 * attempt)
        errors.clear()
        page.get_by_role("button", name="Record", exact=True).first.click()
        try:
            return expect(page.locator(".answer").first).to_contain_text("%", timeout=20_000)
        except AssertionError:
            if attempt == attempts:
                raise


@needs_chromium
def test_a_voice_is_heard_live_and_from_a_phone(address, asked, tmp_path):
    spoken = write_spoken(tmp_path / "spoken.wav", (CLIPS[0], CLIPS[3]))
    write_m4a(tmp_path / "phone.m4a", load_waveform(CLIPS[1]))
    with open_browser(spoken) as (page, hosts, errors):
        start_microphone(page, address, errors)
        seen = set()
        for _ in range(16):
            page.wait_for_timeout(500)
            seen.add(page.locator(".bars").first.inner_text())
        assert len(seen) >= 3
        assert page.locator("svg.strip rect").count() > 8
        page.get_by_role("button", name="Stop").first.click()

        page.get_by_role("tab", name="Recording").click()
        page.locator("input[type=file]").first.set_input_files(tmp_path / "phone.m4a")
        expected = EmotionRecognizer.load("small").predict(tmp_path / "phone.m4a")
        expect(page.locator(".answer").nth(1)).to_contain_text(expected.label, timeout=60_000)
        expect(page.get_by_text("No whisper here.")).to_be_visible()
        page.get_by_role("tab", name="Know my voice").click()
        page.get_by_role("button", name="Know my voice").click()
        expect(page.get_by_text("small does not")).to_be_visible()
        assert set(hosts) <= {"127.0.0.1", ""} and not errors
    assert asked <= {"127.0.0.1", "local"} and address.startswith("http://127.0.0.1:")


def hear(demo, path):
    """What the page shows of a recording, step by step: an answer and two figures."""
    [function] = (found.fn for found in demo.fns.values() if found.name == "hear")
    return function(str(path), {})


def test_a_silent_recording_gets_no_answer(demo, tmp_path):
    for seconds in (1, 70):
        soundfile.write(tmp_path / "silent.wav", np.zeros(seconds * 16_000), 16_000)
        [[answer, *rest]] = hear(demo, tmp_path / "silent.wav")
        assert "No answer: silent" in answer and rest == ["", None, None]


def test_more_than_a_minute_is_heard_over_time(demo, tmp_path):
    soundfile.write(
        tmp_path / "long.wav", np.tile(load_waveform(CLIPS[0]), 40)[: 16_000 * 61], 16_000
    )
    told, drawn, attended = hear(demo, tmp_path / "long.wav")
    assert "longer than 60 s" in told[0] and told[1:] == ["", None, None]
    bars = drawn[2].axes[1].patches
    assert len(bars) == 8 * 59 and sum(bar.get_height() for bar in bars) == pytest.approx(59)
    assert attended[3] is not None


def test_what_a_recording_lacks_is_shown(demo, tmp_path):
    waveform = load_waveform(CLIPS[0])[::2]
    soundfile.write(tmp_path / "phone.wav", waveform, 8_000)
    with pytest.warns(UserWarning, match="recorded at 8000 Hz"):
        for _, notes, *_ in hear(demo, tmp_path / "phone.wav"):
            assert "To know: recorded at 8000 Hz, less than 16000 Hz" in notes
        bars, _, state = listen(demo, (8_000, waveform), None)
    assert "To know: recorded at 8000 Hz" in bars
    bars, _, _ = listen(demo, (8_000, 1e6 * waveform), state)
    assert "No answer: the recording: too loud" in bars


def listen(demo, chunk, state):
    """What the page shows of a chunk of the microphone: an answer, a strip and its state."""
    [function] = (found.fn for found in demo.fns.values() if found.name == "feed")
    return function(chunk, "small", {}, state)


def test_what_an_enrolled_voice_lacks_is_shown(monkeypatch):
    from common.demo import build_demo

    voice = SimpleNamespace(notes=("recording 2: recorded at 8000 Hz",))
    known = SimpleNamespace(voice=voice)
    model = EmotionRecognizer.load("small")
    monkeypatch.setattr(EmotionRecognizer, "enrol", lambda *_: known)
    demo = build_demo({"small": model})
    [function] = (found.fn for found in demo.fns.values() if found.name == "enrol")
    enrolled, said = function(*["a.wav"] * 4)
    assert enrolled["small"] is known and "\n\nrecording 2: recorded at 8000 Hz" in said


def test_a_voice_that_was_enrolled_meanwhile_is_heard_live():
    from common.demo import build_demo

    model = EmotionRecognizer.load("small")
    demo = build_demo({"small": model})
    [feed] = (found.fn for found in demo.fns.values() if found.name == "feed")
    chunk, enrolled = (16_000, load_waveform(CLIPS[0])), {"small": replace(model, facts={})}
    _, _, before = feed(chunk, "small", {}, None)
    _, _, same = feed(chunk, "small", {}, before)
    assert same["stream"] is before["stream"] and len(same["history"]) == 2
    _, _, after = feed(chunk, "small", enrolled, same)
    assert after["stream"].recognizer is enrolled["small"] and len(after["history"]) == 1


def test_an_answer_does_not_wait_for_the_timeline(monkeypatch):
    from common.demo import build_demo

    def fail(*_):
        raise ValueError("the timeline is asked for")

    monkeypatch.setattr(EmotionRecognizer, "predict_timeline", fail)
    model = EmotionRecognizer.load("small")
    shown = hear(build_demo({"one": model, "two": replace(model, facts={})}), CLIPS[0])
    assert all(model.predict(CLIPS[0]).label in answer for answer in next(shown)[:2])
    with pytest.raises(Exception, match="the timeline is asked for"):
        next(shown)


def test_recordings_are_deleted_when_the_demo_stops():
    from common.demo import build_demo, launch_demo

    demo = build_demo({"small": EmotionRecognizer.load("small")})
    launch_demo(demo, prevent_thread_lock=True, quiet=True)
    with CLIPS[0].open("rb") as file:
        sent = requests.post(
            f"{demo.local_url}gradio_api/upload", files={"files": file}, timeout=60
        )
    [path] = sent.json()
    folder = Path(demo.recordings.name)
    assert Path(path).is_file() and Path(path).is_relative_to(folder)
    demo.close()
    assert not folder.exists()


def test_markup_in_a_label_is_text():
    from common.markup import draw_bars, draw_notes, draw_strip

    said = Prediction("<b>loud</b>", {"<b>loud</b>": 0.75, "soft": 0.25})
    assert "&lt;b&gt;loud" in draw_bars(said) and "<b>loud" not in draw_bars(said)
    assert draw_strip([said, Prediction(None, {}, "silent")]).count("<rect") == 2
    assert "No answer: &lt;silent&gt;." in draw_bars(Prediction(None, {}, "<silent>"))
    assert "&lt;soft&gt;" in draw_notes(["<soft>"])


def take_picture(path: Path, folder: Path) -> None:
    from common.demo import build_demo, launch_demo, load_models

    models, remark = load_models()
    demo = build_demo(models, remark=remark)
    launch_demo(demo, prevent_thread_lock=True, quiet=True)
    with open_browser(write_spoken(folder / "spoken.wav", CLIPS)) as (page, _, errors):
        start_microphone(page, demo.local_url, errors)
        page.wait_for_timeout(20_000)
        page.screenshot(path=path, full_page=True)
    demo.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        take_picture(ROOT / "figures" / "demo.png", Path(folder))


@given(size=st.integers(1600, 9000), more=st.integers(1, 20_000), place=st.floats(0, 1))
def test_the_loudest_stretch_is_whole_and_has_the_burst(size, more, place):
    sound = np.full(size + more, 0.01, np.float32)
    start = round(place * (len(sound) - 800))
    sound[start : start + 800] = 0.5
    from common.demo import find_loudest  # gradio takes seconds

    found = find_loudest(sound, size)
    assert len(found) == size and np.isclose(found, 0.5).sum() >= 800 - 2 * 160
