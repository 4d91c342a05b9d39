"""The page without a server, in a browser: the same probabilities as in Python, and no network."""

import shutil
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import soundfile
from playwright.sync_api import expect

from common import paths
from common.audio import load_waveform
from common.downloads import download_archive
from common.paths import SAMPLE_DIR
from common.recognition import EmotionRecognizer
from tests.browsers import needs_chromium, open_browser, serve
from tests.conftest import SPEECH_DIR
from tools.demo_page import RUNTIME_HASH, RUNTIME_URL, build_page, find_runtime, main

RUNTIME = SPEECH_DIR.parent / "pretrained" / find_runtime().name
CLIPS = sorted(SAMPLE_DIR.rglob("*.flac"))[::52]


@pytest.fixture(scope="module")
def recognizer():
    return EmotionRecognizer.load("small")


@pytest.fixture(scope="module")
def site(recognizer, tmp_path_factory):
    try:
        download_archive(RUNTIME_URL, RUNTIME, checksum=RUNTIME_HASH)
    except OSError as error:
        pytest.skip(f"ONNX Runtime Web cannot be fetched: {error}")
    find_runtime().parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(RUNTIME, find_runtime())
    folder = tmp_path_factory.mktemp("site")
    build_page(folder / "demo", recognizer)
    return folder


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    """Two voices with a pause between them, as a microphone would give them."""
    path = tmp_path_factory.mktemp("spoken") / "spoken.wav"
    pause = np.zeros(8_000, np.float32)
    sound = [part for clip in (CLIPS[0], CLIPS[3]) for part in (load_waveform(clip), pause)]
    soundfile.write(path, np.concatenate(sound), 16_000)
    return path


def read_probabilities(page) -> list[float]:
    rows = page.locator("#bars li").all()
    return [float(row.get_attribute("data-probability")) for row in rows]


@needs_chromium
def test_the_browser_hears_what_python_hears(site, spoken, recognizer, tmp_path):
    soundfile.write(tmp_path / "silence.wav", np.zeros(16_000), 16_000)
    (tmp_path / "text.wav").write_text("no sound")
    quiet, speech = np.zeros(48_000), np.concatenate([load_waveform(path) for path in CLIPS[:3]])
    soundfile.write(tmp_path / "long.wav", speech, 16_000)
    soundfile.write(tmp_path / "padded.wav", np.r_[quiet, speech[:40_000], quiet], 16_000)
    with serve(site) as address, open_browser(spoken) as (page, hosts, errors):
        page.goto(f"{address}/demo/")
        expect(page.locator("#microphone")).to_be_enabled(timeout=60_000)
        page.context.set_offline(True)
        num_requests = len(hosts)
        assert len(CLIPS) == 5
        for clip in (*CLIPS, tmp_path / "long.wav", tmp_path / "padded.wav"):
            page.set_input_files("#file", clip)
            expect(page.locator("#axis")).to_contain_text(clip.name)
            expected = recognizer.predict(clip)
            np.testing.assert_allclose(
                read_probabilities(page), [*expected.probabilities.values()], atol=1e-3
            )
            expect(page.locator("#answer")).to_contain_text(expected.label)
        page.set_input_files("#file", tmp_path / "silence.wav")
        expect(page.locator("#answer")).to_contain_text("silent")
        page.set_input_files("#file", tmp_path / "text.wav")
        expect(page.locator("#answer")).to_contain_text("text.wav cannot be heard, this browser")

        page.click("#microphone")
        seen = []
        for _ in range(12):
            page.wait_for_timeout(500)
            seen.append(read_probabilities(page))
        changes = [np.abs(np.subtract(*pair)).max() for pair in pairwise(seen)]
        assert sum(change > 0.02 for change in changes) >= 3, changes
        page.click("#microphone")
        expect(page.locator("#microphone")).to_have_text("Use the microphone")
        assert set(hosts[:num_requests]) == {"127.0.0.1"} and not hosts[num_requests:]
        assert not errors


def test_a_recipe_that_the_page_cannot_run_is_told(recognizer, tmp_path):
    shortened = replace(recognizer.recipe, steps=recognizer.recipe.steps[:-1])
    with pytest.raises(ValueError, match="ends in FitLength, and the page .*; give small, or"):
        build_page(tmp_path / "demo", replace(recognizer, recipe=shortened))


def test_a_damaged_runtime_is_told(tmp_path, monkeypatch, recognizer):
    monkeypatch.setattr(paths, "PRETRAINED_DIR", tmp_path)
    find_runtime().write_bytes(b"no archive")
    monkeypatch.setattr("tools.demo_page.RUNTIME_URL", "http://127.0.0.1:9/onnxruntime-web.tgz")
    with pytest.raises(OSError, match="check the network"):
        build_page(tmp_path / "demo", recognizer)
    assert main([str(tmp_path / "demo")]) == 1
