"""Augmentations do what they say, draw from the given generator alone, and change no input."""

import json
from dataclasses import fields

import numpy as np
import pandas as pd
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from joblib import Parallel, delayed
from pyroomacoustics.experimental import measure_rt60
from python_stretch.Signalsmith import Stretch

from common import augmentation, paths
from common.audio import SAMPLE_RATE_HERTZ, load_waveform, scan_recording
from common.augmentation import (
    AddNoise,
    AddReverberation,
    Chain,
    ChangeGain,
    ChangeSpeed,
    ChangeTempo,
    ShiftPitch,
    ShiftTime,
)
from common.batches import mask_spectrograms, mix_examples, shift_frames
from common.features import FitLength, LogMel, Trim
from common.recipes import Recipe, extract_features

FOUR_COPIES = (Chain((ChangeTempo(), ShiftPitch(), AddNoise())),) * 4


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


# Waveforms, with a value drawn from a range

WAVEFORM_AUGMENTATIONS = {
    "tempo": ChangeTempo(),
    "pitch": ShiftPitch(),
    "noise": AddNoise(),
    "reverberation": AddReverberation(),
    "shift": ShiftTime(),
    "gain": ChangeGain(),
    "chain": FOUR_COPIES[0],
}
each_augmentation = pytest.mark.parametrize(
    "augment", WAVEFORM_AUGMENTATIONS.values(), ids=WAVEFORM_AUGMENTATIONS
)


def make_tone(frequency_hertz: float, *, seconds: float = 1.0) -> np.ndarray:
    times = np.arange(round(seconds * SAMPLE_RATE_HERTZ)) / SAMPLE_RATE_HERTZ
    return (0.5 * np.sin(2 * np.pi * frequency_hertz * times)).astype(np.float32)


def make_noise(*, seconds: float = 1.0, seed: int = 0) -> np.ndarray:
    num_samples = round(seconds * SAMPLE_RATE_HERTZ)
    return 0.1 * np.random.default_rng(seed).standard_normal(num_samples, dtype=np.float32)


def find_peak_hertz(waveform: np.ndarray) -> float:
    length = 1 << 17
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform)), length))
    return spectrum.argmax() * SAMPLE_RATE_HERTZ / length


def measure_snr_db(clean: np.ndarray, noisy: np.ndarray) -> float:
    clean, noisy = clean.astype(np.float64), noisy.astype(np.float64)
    return 10 * np.log10(np.mean(clean**2) / np.mean((noisy - clean) ** 2))


def measure_gain_db(before: np.ndarray, after: np.ndarray) -> float:
    powers = [np.mean(waveform.astype(np.float64) ** 2) for waveform in (before, after)]
    return 10 * np.log10(powers[1] / powers[0])


@settings(max_examples=25)
@given(rate=st.floats(0.5, 2), frequency=st.floats(200, 3000))
def test_tempo_changes_the_length_and_keeps_the_pitch(rate, frequency):
    tone = make_tone(frequency)
    played = ChangeTempo(rate, rate)(tone, np.random.default_rng(0))
    assert len(played) == pytest.approx(len(tone) / rate, abs=2)
    assert find_peak_hertz(played) == pytest.approx(frequency, rel=0.01)


@settings(max_examples=25)
@given(semitones=st.floats(-12, 12), frequency=st.floats(400, 3000))
def test_pitch_moves_a_tone_and_keeps_the_length(semitones, frequency):
    tone = make_tone(frequency)
    moved = ShiftPitch(semitones, semitones)(tone, np.random.default_rng(0))
    assert len(moved) == len(tone)
    assert find_peak_hertz(moved) == pytest.approx(frequency * 2 ** (semitones / 12), rel=0.01)


@pytest.mark.parametrize("rate", [0.5, 0.8, 1.2, 2.0])
def test_a_sound_stays_at_its_place_whatever_the_tempo(rate):
    waveform = np.zeros(SAMPLE_RATE_HERTZ, dtype=np.float32)
    waveform[4000:4400] = make_noise()[:400]
    played = ChangeTempo(rate, rate)(waveform, np.random.default_rng(0))
    centre = np.average(np.arange(len(played)), weights=played**2)
    assert centre == pytest.approx(4200 / rate, abs=200)


def test_tempo_and_pitch_keep_the_loudness():
    tone = make_tone(500)
    for augment in (ChangeTempo(), ShiftPitch()):
        changed = augment(tone, np.random.default_rng(0))
        assert np.std(changed) == pytest.approx(np.std(tone), rel=0.1)


@given(snr_db=st.floats(-20, 100), frequency=st.floats(100, 4000), amplitude=st.floats(0.01, 1))
def test_noise_has_the_ratio_asked_for(snr_db, frequency, amplitude):
    tone = np.float32(amplitude) * make_tone(frequency)
    noisy = AddNoise(snr_db, snr_db)(tone, np.random.default_rng(0))
    assert measure_snr_db(tone, noisy) == pytest.approx(snr_db, abs=0.3)


def test_noise_is_white_and_has_no_mean():
    tone = make_tone(500, seconds=4)
    noise = AddNoise(10, 10)(tone, np.random.default_rng(0)) - tone
    assert abs(noise.mean()) < 0.02 * noise.std()
    power = np.abs(np.fft.rfft(noise)[1:-1]) ** 2
    quarters = [part.mean() for part in np.array_split(power, 4)]
    np.testing.assert_allclose(quarters, np.mean(quarters), rtol=0.1)


@given(gain_db=st.floats(-40, 40))
def test_gain_is_exact_in_decibels(gain_db):
    tone = make_tone(500, seconds=0.1)
    louder = ChangeGain(gain_db, gain_db)(tone, np.random.default_rng(0))
    assert measure_gain_db(tone, louder) == pytest.approx(gain_db, abs=1e-4)
    np.testing.assert_allclose(louder / np.abs(louder).max(), tone / np.abs(tone).max(), atol=1e-6)


@given(shift_seconds=st.floats(-0.5, 0.5))
def test_a_shift_moves_the_sound_and_keeps_every_sample(shift_seconds):
    click = np.zeros(SAMPLE_RATE_HERTZ, dtype=np.float32)
    click[8000:8010] = np.arange(1, 11)
    moved = ShiftTime(shift_seconds, shift_seconds)(click, np.random.default_rng(0))
    assert len(moved) == len(click)
    start = round(8000 + shift_seconds * SAMPLE_RATE_HERTZ) + np.arange(10)
    np.testing.assert_array_equal(moved[start % len(moved)], np.arange(1, 11))
    np.testing.assert_array_equal(np.sort(moved), np.sort(click))


def make_click(*, place: int) -> np.ndarray:
    """One sample of sound: in a room it gives the impulse response."""
    click = np.zeros(2 * SAMPLE_RATE_HERTZ, dtype=np.float32)
    click[place] = 1
    return click


@pytest.mark.parametrize("seed", range(8))
def test_the_direct_sound_stays_at_its_place_and_comes_first(seed):
    click = make_click(place=1000)
    response = np.abs(AddReverberation()(click, np.random.default_rng(seed)))
    assert response[985:1003].argmax() == 1000 - 985
    energy = np.cumsum(response**2) / np.sum(response**2)
    assert energy[950] < 0.02  # below 10 Hz, where a filter that looks ahead removes the mean
    assert energy[1010] < 0.95  # and the room after


@pytest.mark.parametrize("seed", range(4))
def test_reverberation_decays_as_asked_for(seed):
    measured = []
    for seconds in (0.2, 0.35, 0.5):
        augment = AddReverberation(seconds, seconds)
        response = augment(make_click(place=0), np.random.default_rng(seed))
        measured.append(measure_rt60(response, fs=SAMPLE_RATE_HERTZ, decay_db=30))
        assert measured[-1] == pytest.approx(seconds, rel=0.55)
    assert measured == sorted(measured)


@settings(max_examples=10)
@given(seed=st.integers(0, 10_000), amplitude=st.floats(1e-4, 1))
def test_reverberation_keeps_length_and_level(seed, amplitude):
    waveform = np.float32(amplitude) * make_noise(seconds=0.5)
    wet = AddReverberation(0.2, 0.3)(waveform, np.random.default_rng(seed))
    assert len(wet) == len(waveform)
    assert measure_gain_db(waveform, wet) == pytest.approx(0, abs=1e-4)


def test_rooms_are_the_same_in_any_thread():
    def play(jobs):
        rngs = [np.random.default_rng(seed) for seed in range(4)]
        work = (delayed(AddReverberation())(make_noise(), rng) for rng in rngs)
        return Parallel(n_jobs=jobs, prefer="threads")(work)

    np.testing.assert_array_equal(play(jobs=1), play(jobs=4))


@pytest.mark.parametrize("seconds", [0.15, 1.0])
def test_every_room_can_have_the_shortest_and_the_longest_reverberation(seconds):
    for size in (augmentation.SMALLEST_ROOM_METRES, augmentation.LARGEST_ROOM_METRES):
        absorption, max_order = augmentation.pyroomacoustics.inverse_sabine(seconds, size)
        assert 0 < absorption < 1 and max_order > 0


def test_values_are_drawn_from_the_whole_range():
    waveform = make_tone(500, seconds=0.3)
    rng = np.random.default_rng(0)
    rates = [len(waveform) / len(ChangeTempo(0.8, 1.2)(waveform, rng)) for _ in range(40)]
    ratios = [measure_snr_db(waveform, AddNoise(20, 40)(waveform, rng)) for _ in range(40)]
    octaves = [find_peak_hertz(ShiftPitch(-2, 2)(waveform, rng)) / 500 for _ in range(40)]
    gains = [measure_gain_db(waveform, ChangeGain(-6, 6)(waveform, rng)) for _ in range(40)]
    click = make_click(place=SAMPLE_RATE_HERTZ)
    places = [ShiftTime(-0.2, 0.2)(click, rng).argmax() for _ in range(40)]
    for values, low, high in (
        (rates, 0.8, 1.2),
        (gains, -6, 6),
        (np.array(places) / SAMPLE_RATE_HERTZ - 1, -0.2, 0.2),
        (ratios, 20, 40),
        (12 * np.log2(octaves), -2, 2),
    ):
        slack, width = 0.05 * (high - low), high - low
        assert low - slack <= min(values) < low + 0.2 * width
        assert high - 0.2 * width < max(values) <= high + slack


@each_augmentation
def test_silence_stays_silence(augment):
    silence = np.zeros(SAMPLE_RATE_HERTZ, dtype=np.float32)
    assert not augment(silence, np.random.default_rng(0)).any()


@each_augmentation
def test_a_sound_follows_the_generator_and_the_input_stays(augment):
    waveform = make_noise()
    first = augment(waveform, np.random.default_rng(3))
    np.testing.assert_array_equal(waveform, make_noise())
    assert first.dtype == np.float32 and first.ndim == 1 and np.isfinite(first).all()
    np.testing.assert_array_equal(first, augment(waveform, np.random.default_rng(3)))
    assert not np.array_equal(first, augment(waveform, np.random.default_rng(4)))


@pytest.mark.parametrize(
    "augment",
    [ChangeTempo(0.5, 0.5), ChangeTempo(2, 2), ShiftPitch(-12, -12), ShiftPitch(12, 12)],
    ids=str,
)
def test_the_stretcher_has_no_chance_of_its_own(augment, monkeypatch):
    played = []
    for seed in (1, 2):
        monkeypatch.setattr(augmentation, "Stretch", lambda seed=seed: Stretch(seed))
        played.append(augment(make_noise(), np.random.default_rng(0)))
    np.testing.assert_array_equal(*played)


@each_augmentation
@given(num_samples=st.integers(1, 4000))
@settings(max_examples=10)
def test_short_sounds_are_no_trouble(augment, num_samples):
    changed = augment(make_noise()[:num_samples], np.random.default_rng(0))
    assert len(changed) and np.isfinite(changed).all()


def test_descriptions_are_json_and_tell_settings_apart():
    each = [
        *WAVEFORM_AUGMENTATIONS.values(),
        ChangeTempo(0.9, 1.2),
        ChangeTempo(0.8, 1.1),
        ShiftPitch(-1, 2),
        ShiftPitch(-2, 1),
        AddNoise(10, 40),
        AddNoise(20, 30),
        AddReverberation(0.2, 0.4),
        AddReverberation(0.3, 0.5),
        ShiftTime(-0.1, 0.2),
        ShiftTime(-0.2, 0.1),
        ChangeGain(-3, 6),
        ChangeGain(-6, 3),
        Chain((ChangeTempo(), ShiftPitch())),
        Chain((ShiftPitch(), ChangeTempo())),
        Chain(()),
    ]
    written = [json.dumps(augment.describe(), sort_keys=True) for augment in each]
    assert len(set(written)) == len(each)
    assert ChangeTempo(0.9, 1.1).describe() == {
        "name": "ChangeTempo",
        "min_rate": 0.9,
        "max_rate": 1.1,
    }
    assert [step["name"] for step in FOUR_COPIES[0].describe()["steps"]] == [
        "ChangeTempo",
        "ShiftPitch",
        "AddNoise",
    ]


@pytest.mark.parametrize(
    "kind", [ChangeTempo, ShiftPitch, AddNoise, AddReverberation, ShiftTime, ChangeGain]
)
@pytest.mark.parametrize("place", [0, 1])
def test_a_bad_range_is_refused_and_both_values_are_named(kind, place):
    low, high = (field.name for field in fields(kind))
    for bad in (-1000.0, 1000.0, float("nan"), float("inf")):
        values = {low: 0.75, high: 0.75, (low, high)[place]: bad}
        with pytest.raises(ValueError, match=f"{low}={values[low]}, {high}={values[high]}: give"):
            kind(**values)
    with pytest.raises(ValueError, match=f"{low}=0.75, {high}=0.5: give two numbers in rising"):
        kind(0.75, 0.5)
    kind(0.75, 0.75)


class Scale:
    def __call__(self, waveform, rng):
        return waveform * 2

    def describe(self):
        return {"name": "Scale"}


class Raise:
    def __call__(self, waveform, rng):
        return waveform + 1

    def describe(self):
        return {"name": "Raise"}


def test_a_chain_takes_its_steps_in_order():
    ones, rng = np.ones(3, dtype=np.float32), np.random.default_rng(0)
    np.testing.assert_array_equal(Chain((Scale(), Raise()))(ones, rng), [3, 3, 3])
    np.testing.assert_array_equal(Chain((Raise(), Scale()))(ones, rng), [4, 4, 4])
    np.testing.assert_array_equal(Chain(())(ones, rng), ones)
    names = [step["name"] for step in Chain((Raise(), Scale())).describe()["steps"]]
    assert names == ["Raise", "Scale"]


def test_the_steps_of_a_chain_share_one_generator():
    waveform, rng = make_noise(), np.random.default_rng(5)
    expected = waveform
    for step in (ChangeTempo(), ShiftPitch(), AddNoise()):
        expected = step(expected, rng)
    np.testing.assert_array_equal(FOUR_COPIES[0](waveform, np.random.default_rng(5)), expected)


def test_four_copies_are_four_different_sounds(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "CACHE_DIR", tmp_path / "cache")
    recordings = [tmp_path / "0.wav", tmp_path / "1.wav"]
    for seed, path in enumerate(recordings):
        soundfile.write(path, make_noise(seconds=0.5, seed=seed), SAMPLE_RATE_HERTZ)
    hashes = [scan_recording(path)["sha256"] for path in recordings]
    table = pd.DataFrame({"path": [str(path) for path in recordings], "audio_hash": hashes})
    recipe = Recipe((Trim(), FitLength(0.5), LogMel(num_bands=16)))
    extracted = extract_features(table, recipe, augmentations=FOUR_COPIES)
    assert extracted.copies.shape == (2, 4, 32, 16)
    for row, path in enumerate(recordings):
        versions = np.concatenate([extracted.values[row, None], extracted.copies[row]])
        assert len(np.unique(versions.reshape(5, -1), axis=0)) == 5
        for number, augment in enumerate(FOUR_COPIES):
            rng = np.random.default_rng([number, int(hashes[row][:16], 16)])
            expected = recipe(augment(load_waveform(path), rng))
            np.testing.assert_array_equal(extracted.copies[row, number], expected)
    again = extract_features(table[::-1], recipe, augmentations=FOUR_COPIES, jobs=1)
    np.testing.assert_array_equal(again.copies, extracted.copies[::-1])


# Batches of spectrograms


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
