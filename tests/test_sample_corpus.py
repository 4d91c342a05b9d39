"""The sample corpus is whole, balanced, audible, and what its generator makes."""

import shutil
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import soundfile

from common.files import hash_file
from common.paths import INDEX_DIR, SAMPLE_DIR
from tools import make_sample_corpus
from tools.make_sample_corpus import ESPEAK_VERSION, STYLES, VOICES, list_utterances

NAMES = sorted(list_utterances())


@pytest.fixture(scope="module")
def recordings() -> dict[str, np.ndarray]:
    """Samples of every file as 16-bit integers, by name."""
    return {name: soundfile.read(SAMPLE_DIR / name, dtype="int16")[0] for name in NAMES}


@pytest.fixture(scope="module")
def index() -> pd.DataFrame:
    return pd.read_csv(INDEX_DIR / "sample.csv")


def test_files_are_those_that_the_design_lists():
    found = sorted(path.relative_to(SAMPLE_DIR).as_posix() for path in SAMPLE_DIR.rglob("*.flac"))
    assert len(found) == 256
    assert found == NAMES


@pytest.mark.parametrize(("part", "values"), [(2, 8), (3, 1), (4, 2), (5, 2), (6, 8)])
def test_every_part_of_the_name_is_balanced(part, values):
    counts = Counter(name.split("/")[1].removesuffix(".flac").split("-")[part] for name in NAMES)
    assert sorted(counts) == [f"{value:02d}" for value in range(1, values + 1)]
    assert set(counts.values()) == {256 // values}


def test_voices_are_four_men_and_four_women():
    variants = {actor: voice.split("+")[1] for actor, (voice, _) in VOICES.items()}
    assert list(variants) == list(range(1, 9))
    assert all(variant[0] == ("m" if actor % 2 else "f") for actor, variant in variants.items())
    assert len(set(variants.values())) == 8


def test_corpus_stays_below_8_megabytes(index):
    assert index.bytes.sum() < 8_000_000


def test_index_matches_the_files(index):
    assert list(index.columns) == list(pd.read_csv(INDEX_DIR / "ravdess.csv", nrows=0))
    assert list(index.path) == NAMES
    for row in index.itertuples():
        assert hash_file(SAMPLE_DIR / row.path) == row.sha256
        assert (SAMPLE_DIR / row.path).stat().st_size == row.bytes
        facts = soundfile.info(SAMPLE_DIR / row.path)
        assert (facts.format, facts.subtype) == ("FLAC", "PCM_16")
        expected = (row.sample_rate, row.channels, row.frames)
        assert (facts.samplerate, facts.channels, facts.frames) == expected
        assert row.seconds == pytest.approx(row.frames / row.sample_rate, abs=1e-4)
    assert set(index.sample_rate) == {16_000} and set(index.channels) == {1}


def test_recordings_are_audible_and_do_not_clip(recordings):
    for name, samples in recordings.items():
        assert 1 < len(samples) / 16_000 < 4, name
        assert 250 < np.abs(samples.astype(int)).max() < 32_000, name  # -42 dB of full scale


def test_no_two_recordings_are_the_same(index, recordings):
    assert index.sha256.is_unique
    assert len({samples.tobytes() for samples in recordings.values()}) == len(NAMES)


def test_loudness_and_tempo_follow_the_emotion(index, recordings):
    emotions = [list(STYLES)[int(name.split("-")[2]) - 1] for name in NAMES]
    energies = pd.Series([np.mean(samples.astype(float) ** 2) for samples in recordings.values()])
    loudness = energies.groupby(emotions).median()
    seconds = index.seconds.groupby(emotions).median()
    assert loudness.idxmax() == "angry" and loudness.idxmin() == "sad"
    assert seconds["fearful"] < seconds["neutral"] < seconds["sad"]


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
@pytest.mark.parametrize("name", NAMES[::37])
def test_generator_speaks_the_committed_samples(name, recordings):
    version = make_sample_corpus.read_espeak_version()
    if version != ESPEAK_VERSION:
        pytest.skip(f"espeak-ng {version}; the files were made with {ESPEAK_VERSION}")
    spoken = make_sample_corpus.make_utterance(**list_utterances()[name])
    difference = spoken * 32_768 - recordings[name]
    assert np.abs(difference).max() <= 1.01  # rounding to 16 bits, whatever the encoder


def test_missing_espeak_gets_a_message(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("sys.argv", ["make_sample_corpus"])
    with pytest.raises(SystemExit, match="espeak-ng is not on the PATH.*apt-get install"):
        make_sample_corpus.main()
