"""Augmentations do what they say, draw from the given generator alone, and change no input."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.audio import SAMPLE_RATE_HERTZ
from common.augmentation import ChangeSpeed, mask_spectrograms, mix_examples, shift_frames

BATCH, FRAMES, BANDS = 8, 20, 12
MASKS = {
    "num_time_masks": 2,
    "num_frequency_masks": 2,
    "max_time_width": 5,
    "max_frequency_width": 3,
}


def make_batch(seed: int = 0) -> np.ndarray:
    """Values without a zero, so that a masked one is seen."""
    return np.random.default_rng(seed).uniform(1, 2, (BATCH, FRAMES, BANDS)).astype(np.float32)


@pytest.mark.parametrize("factor", [0.5, 0.9, 1.0, 1.1, 2.0])
def test_speed_changes_tempo_and_pitch_together(factor):
    tone = np.sin(2 * np.pi * 500 * np.arange(SAMPLE_RATE_HERTZ) / SAMPLE_RATE_HERTZ)
    faster = ChangeSpeed(factor)(tone.astype(np.float32), np.random.default_rng(0))
    assert len(faster) == pytest.approx(len(tone) / factor, abs=2)
    peak = np.abs(np.fft.rfft(faster * np.hanning(len(faster)))).argmax()
    assert peak * SAMPLE_RATE_HERTZ / len(faster) == pytest.approx(500 * factor, rel=0.005)


def test_speed_is_described_for_the_cache_and_has_limits():
    assert json.dumps(ChangeSpeed(0.9).describe()) == '{"name": "ChangeSpeed", "factor": 0.9}'
    for factor in (0.4, 2.1, float("nan")):
        with pytest.raises(ValueError, match="use 0.5 to 2"):
            ChangeSpeed(factor)


@given(seed=st.integers(0, 10_000))
def test_masks_are_whole_stretches_no_wider_than_allowed(seed):
    batch = make_batch()
    masked = mask_spectrograms(batch, np.random.default_rng(seed), **MASKS)
    assert masked.dtype == np.float32
    kept = masked != 0
    np.testing.assert_array_equal(masked[kept], batch[kept])
    for example in kept:
        frames, bands = example.any(axis=1), example.any(axis=0)
        np.testing.assert_array_equal(example, np.outer(frames, bands))
        assert (~frames).sum() <= 2 * 5 and (~bands).sum() <= 2 * 3
        for axis in (frames, bands):
            starts = np.count_nonzero(np.diff(np.concatenate([[1], axis.astype(int)])) == -1)
            assert starts <= 2


def test_masks_reach_every_frame_and_band_and_differ_between_examples():
    rng = np.random.default_rng(0)
    masks = np.concatenate([mask_spectrograms(make_batch(), rng, **MASKS) == 0 for _ in range(60)])
    assert masks.all(axis=2).any(axis=0).all() and masks.all(axis=1).any(axis=0).all()
    assert len(np.unique(masks.reshape(len(masks), -1), axis=0)) > len(masks) / 2


def test_a_mask_may_be_wider_than_the_spectrogram():
    wide = MASKS | {"max_time_width": 99, "max_frequency_width": 99}
    masked = mask_spectrograms(make_batch(), np.random.default_rng(0), **wide)
    assert masked.shape == (BATCH, FRAMES, BANDS)


@given(seed=st.integers(0, 10_000), max_shift=st.integers(0, 25))
def test_shifts_move_frames_and_repeat_the_edge(seed, max_shift):
    frames = np.arange(FRAMES, dtype=np.float32)
    batch = np.tile(frames[None, :, None], (BATCH, 1, BANDS))
    shifted = shift_frames(batch, np.random.default_rng(seed), max_shift=max_shift)
    possible = [
        np.clip(frames - shift, 0, FRAMES - 1) for shift in range(-max_shift, max_shift + 1)
    ]
    for example in shifted:
        assert (example == example[:, :1]).all()
        assert any(np.array_equal(example[:, 0], moved) for moved in possible)


@given(seed=st.integers(0, 10_000), alpha=st.floats(0.05, 5))
def test_mixup_mixes_inputs_and_targets_alike(seed, alpha):
    rng = np.random.default_rng(seed)
    targets = np.eye(4, dtype=np.float32)[rng.integers(0, 4, BATCH)]
    batch = np.tile(targets[:, None, :], (1, FRAMES, 1))  # each input shows its target
    mixed, mixed_targets = mix_examples(batch, targets, rng, alpha=alpha)
    assert mixed.dtype == mixed_targets.dtype == np.float32
    np.testing.assert_allclose(mixed_targets.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(mixed, np.tile(mixed_targets[:, None], (1, FRAMES, 1)), atol=1e-6)
    assert (mixed_targets[targets == 1] >= 0.5 - 1e-6).all()  # its own label stays the largest


@pytest.mark.parametrize(
    "augment",
    [
        lambda batch, rng: mask_spectrograms(batch, rng, **MASKS),
        lambda batch, rng: shift_frames(batch, rng, max_shift=5),
        lambda batch, rng: mix_examples(batch, np.eye(BATCH, dtype=np.float32), rng, alpha=0.2)[0],
    ],
    ids=["masks", "shift", "mixup"],
)
def test_batches_follow_the_generator_and_inputs_stay(augment):
    batch = make_batch()
    first = augment(batch, np.random.default_rng(3))
    np.testing.assert_array_equal(batch, make_batch())
    np.testing.assert_array_equal(first, augment(batch, np.random.default_rng(3)))
    assert not np.array_equal(first, augment(batch, np.random.default_rng(4)))
