"""What speech goes through: each degradation does what it says, the same way every time."""

import shutil

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from common.audio import SAMPLE_RATE_HERTZ
from common.augmentation import AddNoise, ChangeGain
from common.degradations import (
    AddBabble,
    Degrade,
    Encode,
    KeepStart,
    MoveStart,
    Overdrive,
    Telephone,
)
from common.recipes import Recipe

RNG = np.random.default_rng(0)
TIME = np.arange(SAMPLE_RATE_HERTZ) / SAMPLE_RATE_HERTZ


def make_tone(hertz: float) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hertz * TIME)).astype(np.float32)


def measure_rms(waveform) -> float:
    return float(np.sqrt(np.mean(np.square(waveform, dtype=float))))


SPEECH = np.concatenate([np.zeros(8000), make_tone(440), np.zeros(8000)]).astype(np.float32)


@pytest.fixture
def voices(tmp_path):
    """Five recordings of noise."""
    paths = [str(tmp_path / f"{number}.wav") for number in range(5)]
    for number, path in enumerate(paths):
        noise = np.random.default_rng(number).normal(0, 0.1, SAMPLE_RATE_HERTZ)
        soundfile.write(path, noise, SAMPLE_RATE_HERTZ, subtype="FLOAT")
    return tuple(paths)


@pytest.mark.parametrize(("hertz", "kept"), [(100, 0), (1000, 1), (2500, 1), (5000, 0)])
def test_a_telephone_carries_its_band(hertz, kept):
    tone = make_tone(hertz)
    heard = Telephone()(tone, RNG)
    assert len(heard) == len(tone)
    inner = slice(2000, -2000)
    assert measure_rms(heard[inner]) / measure_rms(tone[inner]) == pytest.approx(kept, abs=0.1)


@pytest.mark.parametrize("snr_db", [0, 20])
def test_babble_has_the_ratio_that_is_asked_for(snr_db, voices):
    tone = make_tone(440)
    added = AddBabble(snr_db, voices, num_talkers=3)(tone, np.random.default_rng(1)) - tone
    ratio = 20 * np.log10(measure_rms(tone) / measure_rms(added))
    assert ratio == pytest.approx(snr_db, abs=0.01)


def test_babble_is_of_others_and_is_named_by_its_sound(voices, tmp_path):
    own, _ = soundfile.read(voices[0], dtype="float32")
    other = AddBabble(0, voices[:2], num_talkers=1)
    for seed in range(6):
        added = other(own, np.random.default_rng(seed)) - own
        spectrum = np.abs(np.fft.rfft(added))
        theirs, _ = soundfile.read(voices[1], dtype="float32")
        assert np.corrcoef(spectrum, np.abs(np.fft.rfft(theirs)))[0, 1] > 0.9
    moved = tmp_path / "moved.wav"
    shutil.copy(voices[0], moved)
    assert AddBabble(0, (str(moved), voices[1]), 1).describe() == other.describe()
    assert AddBabble(0, voices[1:3], 1).describe() != other.describe()
    with pytest.raises(ValueError, match="5 voices for 6 talkers; give the paths of more"):
        AddBabble(0, voices)


@pytest.mark.parametrize("codec", ["mp3", "opus"])
def test_codecs_keep_what_is_loud_and_fewer_bits_keep_less(codec):
    rng = np.random.default_rng(0)
    sound = (make_tone(440) + 0.05 * rng.normal(size=len(TIME))).astype(np.float32)
    errors = []
    for kilobits in (8, 64):
        heard = Encode(codec, kilobits)(sound, RNG)
        assert abs(len(heard) - len(sound)) < 0.1 * SAMPLE_RATE_HERTZ
        assert heard.dtype == np.float32 and np.isfinite(heard).all()
        spectra = [np.abs(np.fft.rfft(wave, 2 * SAMPLE_RATE_HERTZ)) for wave in (heard, sound)]
        assert spectra[0].argmax() == pytest.approx(spectra[1].argmax(), abs=2)
        errors.append(np.linalg.norm(spectra[0] - spectra[1]))
    assert errors[1] < errors[0]


@given(depth=st.floats(0, 40))
@settings(max_examples=20, deadline=None)
def test_overdriving_flattens_and_keeps_the_power(depth):
    wave = make_tone(100) * np.linspace(0.2, 1, len(TIME), dtype=np.float32)
    heard = Overdrive(depth)(wave, RNG)
    assert measure_rms(heard) == pytest.approx(measure_rms(wave), rel=1e-4)
    crest = [np.abs(x).max() / measure_rms(x) for x in (heard, wave)]
    assert crest[0] <= crest[1] + 1e-4


def test_starts_are_moved_and_cut_from_where_speech_begins():
    assert len(MoveStart(0.5)(SPEECH, RNG)) == len(SPEECH) + 8000
    late = MoveStart(-0.25)(SPEECH, RNG)
    first = KeepStart(0.5)(SPEECH, RNG)
    assert len(late) == pytest.approx(len(TIME) - 4000, abs=1500)
    assert len(first) == 8000 and measure_rms(first) > 0.15
    assert len(MoveStart(-60)(SPEECH, RNG)) == pytest.approx(len(TIME) / 2, abs=800)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Encode("aac", 16), "codec='aac'.*give one of mp3, opus"),
        (lambda: Encode("mp3", 1), "kilobits=1: give"),
        (lambda: Overdrive(-1), "above the peak; give 0 or more"),
        (lambda: KeepStart(0), "leaves nothing; give more than 0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_a_recording_is_degraded_alike_each_time_and_another_otherwise():
    step, other = Degrade(AddNoise(10, 10)), make_tone(300)
    np.testing.assert_array_equal(step(SPEECH), step(SPEECH.copy()))
    assert not np.array_equal(step(other) - other, step(SPEECH)[: len(other)] - other)
    described = Recipe((step,)).describe()["steps"]
    assert described == [{"step": "Degrade", "by": AddNoise(10, 10).describe()}]
    assert Degrade(ChangeGain(6, 6))(SPEECH).max() == pytest.approx(2 * SPEECH.max(), rel=0.01)
