"""Waveforms: loading, resampling, trimming, fixed length. Bad files are in test_bad_input.py."""

import hashlib
import struct

import librosa
import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from common.audio import (
    SAMPLE_RATE_HERTZ,
    fix_length,
    load_waveform,
    resample_waveform,
    scan_recording,
    trim_silence,
)


def make_tone(*, hertz=440.0, seconds=1.0, rate=SAMPLE_RATE_HERTZ, amplitude=0.5) -> np.ndarray:
    times = np.arange(round(seconds * rate)) / rate
    return (amplitude * np.sin(2 * np.pi * hertz * times)).astype(np.float32)


def find_pitch_hertz(waveform: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform))))
    return spectrum.argmax() * SAMPLE_RATE_HERTZ / len(waveform)


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 24_414, 44_100, 48_000, 96_000])
def test_every_rate_becomes_16_khz_with_the_same_pitch_and_length(rate, tmp_path):
    soundfile.write(tmp_path / "tone.wav", make_tone(rate=rate), rate, subtype="FLOAT")
    waveform = load_waveform(tmp_path / "tone.wav")
    assert waveform.dtype == np.float32
    assert len(waveform) == pytest.approx(SAMPLE_RATE_HERTZ, abs=2)
    assert find_pitch_hertz(waveform) == pytest.approx(440, abs=1.5)
    middle = waveform[2_000:-2_000]
    assert np.sqrt(np.mean(middle**2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.01)


def test_nothing_above_the_new_nyquist_frequency_folds_back():
    high = make_tone(hertz=11_000, rate=48_000)
    assert np.abs(resample_waveform(high, 48_000, SAMPLE_RATE_HERTZ)[500:-500]).max() < 1e-3


def test_channels_are_averaged(tmp_path):
    left, right = make_tone(hertz=300), make_tone(hertz=700, amplitude=0.2)
    path = tmp_path / "stereo.wav"
    soundfile.write(path, np.stack([left, right], axis=1), SAMPLE_RATE_HERTZ, subtype="FLOAT")
    np.testing.assert_allclose(load_waveform(path), (left + right) / 2, atol=1e-7)


def test_a_file_that_cannot_be_loaded_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent.wav: no such recording; fetch"):
        load_waveform(tmp_path / "absent.wav")
    (tmp_path / "text.wav").write_text("not a sound")
    with pytest.raises(ValueError, match=r"text\.wav: not audio .* export it as WAV or FLAC"):
        load_waveform(tmp_path / "text.wav")
    soundfile.write(tmp_path / "none.wav", np.zeros(0), SAMPLE_RATE_HERTZ)
    with pytest.raises(ValueError, match=r"none\.wav: no samples"):
        load_waveform(tmp_path / "none.wav")
    broken = make_tone()
    broken[5:8] = np.inf
    soundfile.write(tmp_path / "broken.wav", broken, SAMPLE_RATE_HERTZ, subtype="FLOAT")
    with pytest.raises(ValueError, match=r"broken\.wav: 3 samples are NaN or infinite"):
        load_waveform(tmp_path / "broken.wav")


def test_a_scan_tells_the_facts(tmp_path):
    path = tmp_path / "tone.wav"
    soundfile.write(path, np.stack([make_tone(rate=48_000)] * 2, axis=1), 48_000)
    facts = scan_recording(path)
    assert facts.pop("sha256") == hashlib.sha256(path.read_bytes()).hexdigest()
    assert facts.pop("peak") == pytest.approx(0.5, abs=1e-3)
    assert facts == {
        "sample_rate_hertz": 48_000,
        "channels": 2,
        "frames": 48_000,
        "seconds": 1.0,
        "problem": "",
    }


def make_wav(samples: np.ndarray, *, before: bytes = b"", data_size: int | None = None) -> bytes:
    """Lay out a 16-bit WAV by hand, with other chunks before the samples."""
    data = (samples * 32_767).astype("<i2").tobytes()
    rate = SAMPLE_RATE_HERTZ
    form = b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, rate, 2 * rate, 2, 16)
    size = len(data) if data_size is None else data_size
    body = b"WAVE" + form + before + b"data" + struct.pack("<I", size) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def test_chunks_before_the_samples_do_not_hide_a_truncation(tmp_path):
    note = b"LIST" + struct.pack("<I", 5) + b"INFO!" + b"\0"  # odd sizes are padded
    whole, cut = tmp_path / "whole.wav", tmp_path / "cut.wav"
    whole.write_bytes(make_wav(make_tone(), before=note))
    cut.write_bytes(make_wav(make_tone(), before=note)[:-10_000])
    assert scan_recording(whole)["problem"] == ""
    assert scan_recording(cut)["problem"].startswith("truncated: the header promises 16000 samples")


@pytest.mark.parametrize("unknown", [0, 0xFFFFFFFF])
def test_a_stream_of_unknown_length_is_not_called_truncated(unknown, tmp_path):
    path = tmp_path / "stream.wav"
    path.write_bytes(make_wav(make_tone(), data_size=unknown))
    assert not scan_recording(path)["problem"].startswith("truncated")


def test_trimming_is_librosa_s_and_keeps_the_sound():
    silence = np.zeros(8_000, dtype=np.float32)
    waveform = np.concatenate([silence, make_tone(), silence])
    trimmed = trim_silence(waveform, top_db=30)
    expected, _ = librosa.effects.trim(waveform, top_db=30, frame_length=1024, hop_length=256)
    np.testing.assert_array_equal(trimmed, expected)
    assert SAMPLE_RATE_HERTZ <= len(trimmed) <= SAMPLE_RATE_HERTZ + 2 * 1024
    assert np.sum(trimmed**2) == pytest.approx(np.sum(waveform**2))


def test_an_all_quiet_waveform_comes_back_whole():
    assert len(trim_silence(np.zeros(5_000, dtype=np.float32), top_db=30)) == 5_000


@given(length=st.integers(0, 60), num_samples=st.integers(1, 60))
def test_a_fixed_length_keeps_the_middle_or_pads_both_sides(length, num_samples):
    waveform = np.arange(1, length + 1, dtype=np.float32)
    fixed = fix_length(waveform, num_samples)
    assert fixed.shape == (num_samples,) and fixed.dtype == np.float32
    kept = fixed[fixed > 0]
    assert len(kept) == min(length, num_samples)
    if length >= num_samples:
        assert abs((kept[0] - 1) - (length - kept[-1])) <= 1
    elif length:
        before = int(np.flatnonzero(fixed)[0])
        assert abs(before - (num_samples - length - before)) <= 1
        np.testing.assert_array_equal(kept, waveform)
