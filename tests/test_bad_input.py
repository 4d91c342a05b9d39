"""Bad recordings are reported, listed and left out; the rest of the corpus is kept."""

import errno
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from common import audio, paths
from common.corpora import load_corpus, load_folder, validate_corpus
from tests.corpus_folders import list_told
from tests.test_audio import encode, unmark_end

RATE = 16_000


@pytest.fixture(autouse=True)
def corpus(tmp_path, monkeypatch):
    """Make a corpus of two good recordings in RAVDESS's layout; its folder."""
    for name in ("RAW_DIR", "CACHE_DIR", "INDEX_DIR"):
        monkeypatch.setattr(paths, name, tmp_path / name.lower())
    folder = paths.RAW_DIR / "ravdess"
    for seed, actor in enumerate(("01", "02")):
        path = folder / f"Actor_{actor}" / f"03-01-05-01-01-01-{actor}.wav"
        path.parent.mkdir(parents=True)
        soundfile.write(path, make_noise(seed=seed), RATE)
    return folder


def make_noise(*, seconds=0.5, rate=RATE, channels=1, seed=7) -> np.ndarray:
    shape = (round(seconds * rate), channels) if channels > 1 else round(seconds * rate)
    return np.random.default_rng(seed).uniform(-0.5, 0.5, shape)


def write(samples: np.ndarray, *, rate: int = RATE, end: int | None = None, **options) -> Callable:
    """Make a function that writes samples to a path, of the file the bytes up to `end`."""

    def write_to(path: Path) -> None:
        soundfile.write(path, samples, rate, **options)
        path.write_bytes(path.read_bytes()[:end])

    return write_to


def write_text(path: Path) -> None:
    path.write_text("This is not a sound.\n" * 50)


def write_three_hours(path: Path) -> None:
    """Write a header of 3 hours of 8-bit sound at 8 kHz and a sparse file behind it."""
    rate, size = 8_000, 3 * 3_600 * 8_000
    chunks = b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, rate, rate, 1, 8)
    header = b"RIFF" + struct.pack("<I", 36 + size) + chunks + b"data" + struct.pack("<I", size)
    with path.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + size)


def write_pointer(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 51564\n")


BROKEN = np.concatenate([make_noise(), [np.nan] * 3]).astype(np.float32)
UNUSABLE = [
    (Path.touch, "empty", "copy or download it again"),
    (write_text, "not audio", "export it as WAV or FLAC"),
    (write(make_noise(), end=20), "not audio", "export it as WAV or FLAC"),
    (write(make_noise(), end=44 + RATE // 2), "truncated", "copy or download the file again"),
    (
        write(BROKEN, subtype="FLOAT"),
        "not finite",
        "3 samples are NaN or infinite; export it again",
    ),
    (write(np.zeros(RATE)), "silent", "record it again, or leave it out"),
    (write(make_noise(seconds=0.1)), "too short", "0.100 s of sound, at least 0.2 s"),
    (write(np.zeros(0)), "too short", "0.000 s of sound"),
    (write_three_hours, "too long", "more than 60 s of sound; cut it into utterances"),
    (write_pointer, "git lfs", "run git lfs pull where it was cloned"),
    (write(np.outer(make_noise(), [1, -1])), "cancelling", "export one of them"),
    (write(np.outer(make_noise(), [1, -0.98])), "cancelling", "export one of them"),
    (write(32_768 * make_noise(), subtype="FLOAT"), "too loud", "divide by what full scale is"),
    (write(make_noise(), rate=1), "rate", "4000 to 192000 Hz are read: convert it"),
]


@pytest.mark.parametrize(("spoil", "problem", "remedy"), UNUSABLE)
def test_unusable_recordings_are_named_and_left_out(spoil, problem, remedy, corpus):
    bad = corpus / "Actor_01" / "03-01-04-01-01-01-01.wav"
    spoil(bad)
    with pytest.warns(UserWarning, match="left out 1 of 3 files") as caught:
        table = load_corpus("ravdess")
    [told] = list_told(caught)
    message = str(told.message)
    assert str(bad) in message and f"{problem}: " in message and remedy in message
    assert table["speaker"].tolist() == ["01", "02"]
    assert [entry["path"] for entry in table.attrs["left_out"]] == [str(bad)]
    row = validate_corpus("ravdess").set_index("path").loc["Actor_01/03-01-04-01-01-01-01.wav"]
    assert row["problem"] == ("silent" if problem == "silent" else "unreadable")
    assert remedy in row["detail"]


def test_a_truncated_flac_is_left_out(tmp_path):
    folder = tmp_path / "own"
    for seed, name in enumerate(("angry/a_1.flac", "angry/a_2.flac", "sad/a_1.flac")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, make_noise(seconds=2, seed=seed), RATE)
    path = folder / "angry" / "a_2.flac"
    path.write_bytes(path.read_bytes()[:10_000])
    with pytest.warns(UserWarning, match="a_2.flac: "):
        table = load_folder(folder)
    assert table["utterance"].tolist() == ["my_corpus/angry/a_1", "my_corpus/sad/a_1"]


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("Actor_01/my recording.wav", "not a recording of RAVDESS by its name"),
        ("Actor_01/03-02-05-01-01-01-01.wav", "not a recording of RAVDESS by its name"),
        ("Actor_01/03-01-09-01-01-01-01.wav", "unknown emotion code '09'; RAVDESS has 01 neutral"),
        ("Actor_77/03-01-05-01-01-01-77.wav", "unknown speaker '77'; RAVDESS has 24, 01 to 24"),
    ],
)
def test_names_outside_the_grammar_are_left_out(name, problem, corpus):
    path = corpus / name
    path.parent.mkdir(exist_ok=True)
    soundfile.write(path, make_noise(), RATE)
    with pytest.warns(UserWarning, match="left out 1 of 3 files"):
        table = load_corpus("ravdess")
    assert len(table) == 2
    [entry] = table.attrs["left_out"]
    assert entry["path"] == str(path) and problem in entry["problem"]


def test_one_warning_counts_many_and_names_the_first(corpus):
    for number in range(5):
        (corpus / "Actor_01" / f"odd {number}.wav").touch()
    with pytest.warns(UserWarning, match="left out 5 of 7") as caught:
        table = load_corpus("ravdess")
    [told] = list_told(caught)
    message = str(told.message)
    assert told.filename == __file__
    assert "odd 0.wav" in message and "odd 3.wav" not in message and "and 2 more" in message
    assert len(table.attrs["left_out"]) == 5


@pytest.mark.parametrize(
    ("suffix", "options", "rate", "channels"),
    [
        ("wav", {"subtype": "PCM_U8"}, RATE, 1),
        ("wav", {"subtype": "PCM_24"}, RATE, 1),
        ("wav", {"subtype": "FLOAT"}, RATE, 1),
        ("wav", {"subtype": "DOUBLE"}, 44_100, 1),
        ("wav", {}, 48_000, 2),
        ("wav", {}, 96_000, 1),
        ("m4a", {}, RATE, 1),
        ("mp3", {}, 44_100, 1),
        ("flac", {}, RATE, 1),
        ("ogg", {}, RATE, 2),
        ("WAV", {}, 24_414, 1),
    ],
)
def test_every_common_format_is_usable(suffix, options, rate, channels, corpus):
    path = corpus / "Actor_03" / f"03-01-05-01-01-01-03.{suffix}"
    path.parent.mkdir()
    if suffix == "m4a":
        encode(path, "aac", rate=rate)
    else:
        soundfile.write(path, make_noise(seconds=2, rate=rate, channels=channels), rate, **options)
    table = load_corpus("ravdess")
    assert table["speaker"].tolist() == ["01", "02", "03"]
    assert table["seconds"].iloc[2] == pytest.approx(2, abs=0.15)
    waveform = audio.load_waveform(table["path"].iloc[2])
    assert waveform.dtype == np.float32 and waveform.ndim == 1
    assert len(waveform) == pytest.approx(2 * RATE, abs=0.15 * RATE)
    assert 0.1 < np.abs(waveform).max() < 1.2


def test_what_recordings_lack_is_told_each_time(corpus):
    path = corpus / "Actor_03" / "03-01-05-01-01-01-03.wav"
    path.parent.mkdir()
    soundfile.write(path, make_noise(rate=8_000), 8_000)
    unmarked = corpus / "Actor_04" / "03-01-05-01-01-01-04.ogg"
    unmarked.parent.mkdir()
    soundfile.write(unmarked, make_noise(seconds=3), RATE, format="OGG", subtype="OPUS")
    unmarked.write_bytes(unmark_end(unmarked.read_bytes()))
    for _ in range(2):  # scanned, and from the cache
        with pytest.warns(UserWarning) as told:
            assert len(load_corpus("ravdess")) == 4
        low, endless = sorted(str(warning.message) for warning in list_told(told))
        assert "1 of 4 recordings" in low and "recorded at 8000 Hz, less than 16000 Hz" in low
        assert str(unmarked) in endless and "an Ogg stream whose end is not marked" in endless


def test_an_absent_corpus_says_how_to_get_it():
    for name, how in (("savee", "register at"), ("tess", r"fetch_corpus\('tess'\)")):
        expected = rf"{name}: 0 of the \d+ recordings .*{how}.*Put it so that .* exists"
        with pytest.raises(FileNotFoundError, match=expected):
            load_corpus(name)
        with pytest.raises(FileNotFoundError, match=how):
            validate_corpus(name)


def test_folders_without_audio_are_refused(tmp_path):
    (tmp_path / "own" / "angry").mkdir(parents=True)
    (tmp_path / "own" / "angry" / "notes.txt").write_text("none")
    with pytest.raises(FileNotFoundError, match="recordings of RAVDESS are here"):
        load_corpus("ravdess", folder=tmp_path / "own")
    with pytest.raises(FileNotFoundError, match="no audio below it; put recordings into one sub"):
        load_folder(tmp_path / "own")
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        load_folder(tmp_path / "nowhere")


def test_a_corpus_without_one_usable_file_is_refused(tmp_path):
    (tmp_path / "own").mkdir()
    write_text(tmp_path / "own" / "a_1.wav")
    with pytest.raises(ValueError, match="none of 1 files in .* is usable"):
        load_corpus("ravdess", folder=tmp_path / "own")
    (tmp_path / "labels.csv").write_text("path,emotion,speaker\n")
    with pytest.raises(ValueError, match="none of 1 files(.|\n)*does not name it"):
        load_folder(tmp_path / "own", csv=tmp_path / "labels.csv")


def test_a_cache_that_cannot_be_made_costs_time_only(tmp_path, monkeypatch):
    expected = load_corpus("ravdess")
    (tmp_path / "file").touch()
    monkeypatch.setattr(paths, "CACHE_DIR", tmp_path / "file" / "cache")
    with pytest.warns(UserWarning, match="could not be written .* set SER_DATA_DIR") as caught:
        table = load_corpus("ravdess")
    assert len(list_told(caught)) == 1 and table.equals(expected)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_full_or_read_only_disk_while_caching_costs_time_only(code, monkeypatch):
    def fail(*_, **__):
        raise OSError(code, "cannot write")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", fail)
        with pytest.warns(UserWarning, match="cannot write.*free some space"):
            table = load_corpus("ravdess")
    assert len(table) == 2
    assert list(paths.CACHE_DIR.iterdir()) == []
    assert load_corpus("ravdess").equals(table)


def test_a_damaged_cache_is_made_again():
    expected = load_corpus("ravdess")
    [cache] = paths.CACHE_DIR.iterdir()
    for damage in ("", '{"half', "[]", "[1]"):
        cache.write_text(damage)
        with pytest.warns(UserWarning, match=rf"{cache.name}: this cache is damaged and is made"):
            assert load_corpus("ravdess").equals(expected)
    assert load_corpus("ravdess").equals(expected)


def test_a_decoder_that_seeks_where_nothing_is_prints_no_traceback(tmp_path, monkeypatch):
    path = tmp_path / "sound.aiff"
    soundfile.write(path, 0.3 * np.sin(np.arange(16_000) / 10), 16_000)
    path.write_bytes(path.read_bytes().replace(b"SSND", b"SSN\xa0"))
    printed = []
    monkeypatch.setattr(sys, "unraisablehook", printed.append)
    with pytest.raises(ValueError, match=r"sound\.aiff: not audio"):
        audio.load_waveform(path)
    assert not printed
