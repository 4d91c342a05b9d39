"""Waveforms: loading, resampling, trimming, fixed length. Bad files are in test_bad_input.py."""

import hashlib
import io
import os
import re
import struct
import tempfile
import time
import tracemalloc

import av
import librosa
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from common import audio
from common.audio import (
    SAMPLE_RATE_HERTZ,
    fix_length,
    hear_recording,
    list_notes,
    load_waveform,
    resample_waveform,
    scan_recording,
    trim_silence,
)
from common.problems import RecordingError


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
    with pytest.raises(FileNotFoundError, match="absent.wav: absent: no such recording; correct"):
        load_waveform(tmp_path / "absent.wav")
    (tmp_path / "text.wav").write_text("not a sound")
    with pytest.raises(ValueError, match=r"text\.wav: not audio.* export it as WAV or FLAC"):
        load_waveform(tmp_path / "text.wav")


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
        "end_marked": True,
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


@pytest.mark.parametrize("size", [5, 100_001])
def test_chunks_before_the_samples_do_not_hide_a_truncation(size, tmp_path):
    note = b"LIST" + struct.pack("<I", size) + bytes(size + size % 2)  # odd sizes are padded
    whole, cut = tmp_path / "whole.wav", tmp_path / "cut.wav"
    whole.write_bytes(make_wav(make_tone(), before=note))
    cut.write_bytes(make_wav(make_tone(), before=note)[:-10_000])
    assert scan_recording(whole)["problem"] == ""
    assert scan_recording(cut)["problem"].startswith("truncated: the header promises 10000 bytes")


# What SoX, espeak-ng, FFmpeg and speech servers write before they know the length.
UNKNOWN = (0, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 2_000_000_000, 0xFFFFFFFF - 36, 0xFFFFFFFF)


@pytest.mark.parametrize("unknown", UNKNOWN)
def test_a_stream_of_unknown_length_is_read_to_its_end(unknown, tmp_path):
    path = tmp_path / "stream.wav"
    path.write_bytes(make_wav(make_tone(), data_size=unknown))
    assert scan_recording(path)["problem"] == ""
    np.testing.assert_allclose(load_waveform(path), make_tone(), atol=1e-4)


def encode(path, codec: str, *, rate: int, **options: str) -> None:
    """Write a tone of two seconds as phones and browsers do."""
    tone = make_tone(seconds=2)[None]
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
        frame.sample_rate = SAMPLE_RATE_HERTZ
        resampler = av.AudioResampler(stream.format, "mono", rate, stream.frame_size)
        for part in [*resampler.resample(frame), *resampler.resample(None), None]:
            container.mux(stream.encode(part))


def write_format(path, form: str, subtype: str | None) -> None:
    if form in ("AAC", "LIBOPUS"):
        encode(path, form.lower(), rate=48_000)
        return
    rate = 8_000 if subtype in ("GSM610", "ALAW") else SAMPLE_RATE_HERTZ
    soundfile.write(path, make_tone(seconds=2, rate=rate), rate, format=form, subtype=subtype)


FORMATS = [
    *(("wav", "WAV", kind) for kind in ("PCM_16", "PCM_24", "FLOAT", "ALAW", "GSM610")),
    *(("wav", "WAV", kind) for kind in ("IMA_ADPCM", "MS_ADPCM")),
    *(("aiff", "AIFF", "PCM_16"), ("au", "AU", "PCM_16"), ("caf", "CAF", "PCM_16")),
    *(("rf64", "RF64", "PCM_16"), ("w64", "W64", "PCM_16"), ("flac", "FLAC", "PCM_16")),
    *(("ogg", "OGG", "VORBIS"), ("opus", "OGG", "OPUS"), ("mp3", "MP3", None)),
    *(("m4a", "AAC", None), ("webm", "LIBOPUS", None)),
]


@pytest.mark.parametrize(("suffix", "form", "subtype"), FORMATS)
def test_every_format_is_read_and_its_truncation_is_told(suffix, form, subtype, tmp_path):
    path = tmp_path / f"tone.{suffix}"
    write_format(path, form, subtype)
    assert scan_recording(path)["problem"] == ""
    content = path.read_bytes()
    for source in (path, content, io.BytesIO(content)):
        waveform = load_waveform(source)
        assert len(waveform) == pytest.approx(2 * SAMPLE_RATE_HERTZ, rel=0.06)
        assert find_pitch_hertz(waveform) == pytest.approx(440, abs=3)
    for share in (0.3, 0.6, 0.9):
        path.write_bytes(content[: round(share * len(content))])
        problem = scan_recording(path)["problem"]
        assert problem.startswith(("truncated", "damaged")), (share, problem)
        with pytest.raises(RecordingError) as caught:
            load_waveform(path)
        assert caught.value.problem == problem


def test_a_file_object_at_its_end_is_heard_from_its_beginning():
    file = io.BytesIO()
    soundfile.write(file, make_tone(), SAMPLE_RATE_HERTZ, format="WAV")
    first, again = load_waveform(file), load_waveform(file)
    np.testing.assert_array_equal(first, again)
    assert len(first) == len(make_tone())
    with pytest.raises(RecordingError, match="empty"):
        load_waveform(io.BytesIO())


STREAMS = {  # without a length in the header
    "tone.webm": ("libopus", 48_000, {"live": "1"}),
    "tone.aac": ("aac", 48_000, {}),
    "low.mp2": ("mp2", 16_000, {}),
    "high.mp2": ("mp2", 44_100, {}),
    "fragments.mp4": ("aac", 48_000, {"movflags": "empty_moov", "frag_duration": "200000"}),
    **{
        f"{rate}.mp3": ("libmp3lame", rate, {"write_xing": "0", "id3v2_version": version})
        for rate, version in ((8_000, "0"), (16_000, "3"), (44_100, "0"))
    },
}


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_that_ends_inside_a_frame_is_refused(name, tmp_path):
    codec, rate, options = STREAMS[name]
    path = tmp_path / name
    encode(path, codec, rate=rate, **options)
    assert scan_recording(path)["problem"] == ""
    content = path.read_bytes()
    for share in np.linspace(0.2, 0.9, 8):
        path.write_bytes(content[: round(share * len(content)) + 50])
        assert scan_recording(path)["problem"].startswith("truncated"), share


@pytest.mark.parametrize("suffix", ["m4a", "mp3", "aac"])
def test_a_tag_or_zeros_behind_the_sound_are_no_truncation(suffix, tmp_path):
    path = tmp_path / f"tone.{suffix}"
    encode(path, {"mp3": "libmp3lame"}.get(suffix, "aac"), rate=48_000)
    content = path.read_bytes()
    for behind in (b"TAG" + b"title".ljust(125), bytes(200)):
        path.write_bytes(content + behind)
        assert scan_recording(path)["problem"] == ""


def make_ogg() -> bytes:
    file = io.BytesIO()
    soundfile.write(file, make_tone(seconds=16), SAMPLE_RATE_HERTZ, format="OGG", subtype="OPUS")
    return file.getvalue()


def unmark_end(content: bytes) -> bytes:
    """Take the mark of the end from an Ogg stream, as Android writes it, and sum its page anew."""
    place, total = content.rfind(b"OggS"), 0
    page = bytearray(content[place:])
    page[5] &= ~4
    page[22:26] = bytes(4)
    for byte in page:
        total ^= byte << 24
        for _ in range(8):
            total = (total << 1 ^ (total >> 31) * 0x04C11DB7) & 0xFFFFFFFF
    page[22:26] = total.to_bytes(4, "little")
    return content[:place] + bytes(page)


@pytest.mark.parametrize("kind", ["cut before a page", "never marked"])
def test_an_ogg_stream_whose_end_is_not_marked_is_told(kind, tmp_path):
    content = make_ogg()
    pages = [found.start() for found in re.finditer(b"OggS", content)]
    path = tmp_path / "tone.ogg"
    content = unmark_end(content) if kind == "never marked" else content[: pages[len(pages) // 2]]
    path.write_bytes(content)
    with pytest.warns(
        UserWarning, match=r"tone\.ogg: an Ogg stream whose end .* download it again"
    ):
        assert len(hear_recording(path)) > 4 * SAMPLE_RATE_HERTZ
    with pytest.warns(UserWarning, match="the recording: an Ogg stream whose end is not marked"):
        hear_recording(content)
    found = scan_recording(path)
    assert found["problem"] == "" and "an Ogg stream whose end" in list_notes(found)[0]


@pytest.mark.parametrize("subtype", ["OPUS", "VORBIS"])
def test_no_page_of_an_ogg_stream_is_left_out_in_silence(subtype, tmp_path):
    file = io.BytesIO()
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 4 * SAMPLE_RATE_HERTZ)
    soundfile.write(file, noise, SAMPLE_RATE_HERTZ, format="OGG", subtype=subtype)
    content = file.getvalue()
    ends = [found.start() for found in re.finditer(b"OggS", content)][1:] + [len(content)]
    assert len(ends) > 4 and len(load_waveform(content)) == 4 * SAMPLE_RATE_HERTZ
    assert len(load_waveform(content + bytes(100_000) + b"TAG")) == 4 * SAMPLE_RATE_HERTZ
    for end in ends:
        damaged = content[: end - 9] + bytes([content[end - 9] ^ 1]) + content[end - 8 :]
        with pytest.raises(RecordingError, match="damaged: .*the Ogg page at byte .* copy or"):
            load_waveform(damaged)


def tag(size: int) -> bytes:
    """Write an ID3 tag with a cover picture of that size."""
    length = bytes(size + 10 >> shift & 127 for shift in (21, 14, 7, 0))
    return b"ID3\3\0\0" + length + b"APIC" + struct.pack(">I", size) + b"\0\0" + bytes(size)


@pytest.mark.parametrize("size", [100, 20_000, 300_000])
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_a_cover_picture_does_not_hide_that_an_mp3_is_cut(size, rate, tmp_path):
    file = io.BytesIO()
    soundfile.write(file, make_tone(seconds=2, rate=rate), rate, format="MP3")
    content, path = tag(size) + file.getvalue(), tmp_path / "tone.mp3"
    path.write_bytes(content)
    assert scan_recording(path)["problem"] == ""
    path.write_bytes(content[:-3_000])
    assert scan_recording(path)["problem"].startswith("truncated: the header promises 3000 bytes")
    path.write_bytes(content[: size // 2])
    assert scan_recording(path)["problem"].startswith("truncated")


def test_words_in_the_metadata_of_another_format_are_no_header_of_an_mp3(tmp_path):
    file = io.BytesIO()
    soundfile.write(file, make_tone(), SAMPLE_RATE_HERTZ, format="FLAC")
    content = file.getvalue()
    note = b"Info: Songs 2009"
    block = b"\x02" + len(note).to_bytes(3, "big") + note  # of another program
    path = tmp_path / "tone.flac"
    path.write_bytes(content[:42] + block + content[42:])
    assert scan_recording(path)["problem"] == ""
    np.testing.assert_allclose(load_waveform(path), make_tone(), atol=1e-4)


def make_sound(form: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, make_tone(seconds=0.5), SAMPLE_RATE_HERTZ, format=form)
    return file.getvalue()


SOUNDS = {form: make_sound(form) for form in ("WAV", "FLAC", "OGG", "MP3", "AIFF", "CAF", "W64")}


@pytest.mark.filterwarnings("ignore:.* an Ogg stream whose end is not marked")
@settings(max_examples=150)
@given(
    content=st.sampled_from(sorted(SOUNDS)).map(SOUNDS.get),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=12),
    start=st.integers(0, 120),
    end=st.floats(0.02, 1),
)
def test_a_damaged_file_is_used_or_refused_and_never_more(content, changes, start, end):
    damaged = bytearray(content)
    for place, value in changes:  # headers more often than what follows
        damaged[round(place**3 * (len(damaged) - 1))] = value
    damaged = bytes(damaged[: round(end * len(damaged))]) if end < 0.9 else bytes(damaged)
    with tempfile.NamedTemporaryFile() as file:
        file.write(damaged[start if start < 4 else 0 :])
        file.flush()
        facts = scan_recording(file.name)
        try:
            waveform = load_waveform(file.name)
        except RecordingError as error:
            assert facts["problem"] == error.problem
        else:
            assert facts["problem"] == ""
            assert waveform.ndim == 1 and waveform.dtype == np.float32
            assert np.isfinite(waveform).all() and np.abs(waveform).max() < 32
            assert 0.19 * SAMPLE_RATE_HERTZ < len(waveform) < 60.1 * SAMPLE_RATE_HERTZ


TONE = make_tone()
INTEGERS = (32_767 * TONE).astype(np.int16)


@pytest.mark.parametrize(
    "given_",
    [
        TONE,
        TONE.astype(np.float64),
        INTEGERS,
        INTEGERS.astype(np.int32) << 16,
        INTEGERS.astype(np.int64),
        INTEGERS.tolist(),
        (SAMPLE_RATE_HERTZ, INTEGERS[:, None].tolist()),
        (127 * TONE + 128).astype(np.uint8),
        TONE[:, None],
        TONE[None],
        np.stack([TONE, TONE], axis=1),
        TONE.tolist(),
        (SAMPLE_RATE_HERTZ, INTEGERS),
        (SAMPLE_RATE_HERTZ, INTEGERS[:, None]),
    ],
)
def test_arrays_as_microphones_give_them(given_):
    waveform = load_waveform(given_)
    assert waveform.dtype == np.float32
    np.testing.assert_allclose(waveform, TONE, atol=0.02)


def test_an_array_of_another_rate_is_converted():
    waveform = load_waveform((48_000, make_tone(rate=48_000)))
    np.testing.assert_allclose(waveform[2_000:-2_000], TONE[2_000:-2_000], atol=1e-3)


@pytest.mark.parametrize(
    ("given_", "problem"),
    [
        (32_767 * TONE, "too loud: a sample of 1.64e+04 where 1 is full scale; divide"),
        (1e25 * TONE, "too loud"),
        ((INTEGERS.astype(int) << 8).tolist(), "integers: whole numbers up to 4194048; give an"),
        ([0] * 16_000, "silent"),
        (0 * TONE, "silent"),
        (TONE[:1_000], "too short: 0.062 s"),
        (TONE[:0], "too short"),
        (np.outer(TONE, [1, -1]), "cancelling: the channels cancel each other"),
        (np.where(TONE > 0.4, np.nan, TONE), "not finite"),
        (np.zeros((2, 3, 4)), "shape: an array of shape (2, 3, 4); give (samples,) or"),
        (np.zeros((40, 16_000)), "shape: an array of shape (40, 16000)"),
        (None, "shape"),
        ({}, "shape: an array of dict"),
        ((0, TONE), "rate: 0 Hz"),
        ((SAMPLE_RATE_HERTZ, np.zeros(61 * SAMPLE_RATE_HERTZ)), "too long: more than 60 s"),
        (b"", "empty"),
        (io.StringIO("text"), "not audio: not audio that libsndfile or FFmpeg read (the file obj"),
    ],
)
def test_what_is_no_recording_is_refused_with_a_remedy(given_, problem):
    with pytest.raises(RecordingError, match=re.escape(problem)):
        load_waveform(given_)


def test_the_rate_of_a_recording_is_told(tmp_path):
    soundfile.write(tmp_path / "tone.wav", make_tone(rate=8_000), 8_000)
    for source in (tmp_path / "tone.wav", (8_000, make_tone(rate=8_000))):
        facts = {}
        load_waveform(source, facts=facts)
        assert (facts["sample_rate_hertz"], facts["channels"]) == (8_000, 1)
        [note] = list_notes(facts)
        assert "8000 Hz, less than 16000 Hz" in note


def test_only_files_with_an_end_are_opened(tmp_path):
    pipe, link, long = tmp_path / "pipe.wav", tmp_path / "link.wav", tmp_path / ("a" * 5_000)
    os.mkfifo(pipe)
    link.symlink_to("/dev/zero")
    for path in (pipe, link, tmp_path, long):
        assert scan_recording(path)["problem"].startswith("no file: ")
        with pytest.raises(RecordingError, match="no file: .* give the path of a recording"):
            load_waveform(path)
    link.unlink()
    link.symlink_to(tmp_path / "nowhere.wav")
    assert scan_recording(link)["problem"].startswith("absent: no such recording")


def test_a_long_recording_is_held_once(tmp_path):
    rate, seconds = 48_000, 120
    samples = np.random.default_rng(0).integers(-9_000, 9_000, rate * seconds, dtype=np.int16)
    soundfile.write(tmp_path / "long.wav", samples, rate)
    del samples
    tracemalloc.start()
    waveform = load_waveform(tmp_path / "long.wav", longest_seconds=seconds)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    held = 4 * rate * seconds  # mono, before its rate is changed
    assert len(waveform) == 16_000 * seconds and peak < 1.2 * held + waveform.nbytes + (4 << 20)


def test_little_memory_is_taken_by_files_that_promise_much(tmp_path):
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, (60_000, 8))
    soundfile.write(tmp_path / "fast.flac", noise, 655_350, format="FLAC")
    assert scan_recording(tmp_path / "fast.flac")["problem"].startswith("rate: 655350 Hz")
    tracemalloc.start()
    long = np.zeros((30 * 48_000, 2), np.int16)
    long[::2] = 100
    soundfile.write(tmp_path / "long.wav", long, 48_000)
    tracemalloc.reset_peak()
    assert scan_recording(tmp_path / "long.wav")["problem"] == ""
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6


@pytest.mark.parametrize("suffix", ["mp3", "m4a", "wav"])
def test_a_large_file_without_a_sound_is_refused_before_it_is_read(suffix, tmp_path):
    path = tmp_path / f"zeros.{suffix}"
    with path.open("wb") as file:
        file.truncate(1 << 30)
    started = time.process_time()
    with pytest.raises(RecordingError, match="not audio"):
        load_waveform(path)
    assert time.process_time() - started < 3  # ten seconds, if FFmpeg looks for MP3 in it


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


@pytest.mark.parametrize("shape", [(1, 16_000), (16_000, 2), ()])
def test_only_mono_is_brought_to_a_length(shape):
    with pytest.raises(ValueError, match=r"give mono samples, \(samples,\)"):
        fix_length(np.zeros(shape), 40_000)


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


def test_a_file_that_fails_while_it_is_read_is_told_and_stops_nothing(tmp_path, monkeypatch):
    soundfile.write(tmp_path / "a.wav", np.zeros(100), 16_000)

    def fail(file):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(audio, "hash_open_file", fail)
    problem = scan_recording(tmp_path / "a.wav")["problem"]
    assert problem == "cannot be read (Input/output error); copy it anew"
