"""One level for every recording, and what counts as speech."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.activity import judge_activity
from common.audio import trim_silence
from common.loudness import Level, measure_frames, measure_level
from common.recipes import Recipe

TIME = np.arange(24_000) / 16_000
VOICE = (0.2 * np.sin(1_500 * TIME) * np.maximum(np.sin(12 * TIME), 0)).astype(np.float32)
QUIET = np.concatenate([np.zeros(5_000), VOICE, np.zeros(7_000)]).astype(np.float32)


@settings(max_examples=25, deadline=None)
@given(decibels=st.floats(-45, 30))
def test_a_gain_leaves_the_levelled_waveform_as_it_was(decibels):
    louder = (QUIET * 10 ** (decibels / 20)).astype(np.float32)
    np.testing.assert_allclose(Level()(louder), Level()(QUIET), atol=1e-5)
    found, expected = judge_activity(louder), judge_activity(QUIET)
    assert found.seconds == expected.seconds and not found.reason
    assert found.level_db == pytest.approx(expected.level_db + decibels, abs=0.01)


def test_speech_comes_out_at_the_target_and_silence_is_cut_off():
    levelled = Level(target_db=-20)(QUIET)
    assert levelled.dtype == np.float32
    assert measure_level(levelled) == pytest.approx(-20, abs=0.2)
    assert len(levelled) == len(trim_silence(QUIET, top_db=30))
    assert measure_level(np.concatenate([QUIET, np.zeros(90_000)])) == pytest.approx(
        measure_level(QUIET), abs=0.05
    )


def test_near_silence_is_not_blown_up_without_bound():
    faint = 1e-9 * VOICE
    assert np.abs(Level()(faint)).max() < 1e-4
    nothing = Level()(np.zeros(4_000))
    assert nothing.shape == (4_000,) and not nothing.any()
    assert "silent" in judge_activity(faint).reason


def test_integers_that_are_cut_off_keep_the_level():
    clipped = np.clip(VOICE * 8 * 32_768, -32_768, 32_767).astype(np.int16)
    levelled = Level()(clipped / np.float32(32_768))
    assert measure_level(levelled) == pytest.approx(-26, abs=0.2)


def test_frames_are_those_of_a_constant():
    np.testing.assert_allclose(measure_frames(np.full(4_096, 0.1))[2:-2], -20, atol=1e-6)
    assert len(measure_frames(np.zeros(100))) == 1


def test_a_recipe_with_a_level_is_described_and_made_again():
    recipe = Recipe((Level(target_db=-23),))
    assert Recipe.from_description(recipe.describe()) == recipe
    with pytest.raises(ValueError, match="floor_db=-96.0, target_db=3"):
        Level(target_db=3)
