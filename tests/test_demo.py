"""The demo in a browser whose microphone plays a WAV file; nothing but loopback is asked."""

import os
import socket

import keras  # noqa: F401 - else a thread of the demo imports it while the next test seeds it
import numpy as np
import pytest
import soundfile
from playwright.sync_api import expect

from common.audio import load_waveform
from common.paths import SAMPLE_DIR
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
def address(asked, tmp_path_factory):
    os.environ["GRADIO_TEMP_DIR"] = str(tmp_path_factory.mktemp("uploads"))
    from common.demo import build_demo, launch_demo

    demo = build_demo({"small": EmotionRecognizer.load("small")}, remark="No `whisper` here.")
    launch_demo(demo, prevent_thread_lock=True, quiet=True)
    yield demo.local_url
    demo.close()


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
    pause = np.zeros(8_000, np.float32)
    sound = [part for clip in (CLIPS[0], CLIPS[3]) for part in (load_waveform(clip), pause)]
    soundfile.write(tmp_path / "spoken.wav", np.concatenate(sound), 16_000)
    write_m4a(tmp_path / "phone.m4a", load_waveform(CLIPS[1]))
    with open_browser(tmp_path / "spoken.wav") as (page, hosts, errors):
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


def test_markup_in_a_label_is_text():
    from common.demo import draw_bars, draw_strip

    said = Prediction("<b>loud</b>", {"<b>loud</b>": 0.75, "soft": 0.25})
    assert "&lt;b&gt;loud" in draw_bars(said) and "<b>loud" not in draw_bars(said)
    assert draw_strip([said, Prediction(None, {}, "silent")]).count("<rect") == 2
    assert "No answer: &lt;silent&gt;." in draw_bars(Prediction(None, {}, "<silent>"))
