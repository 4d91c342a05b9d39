"""Corpora: grammar of the names, utterance tables, fetching, validation."""

import errno
import hashlib
import http.server
import json
import os
import re
import threading
import unicodedata
import warnings
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from zlib import crc32

import numpy as np
import pandas as pd
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from common import corpora, downloads, paths
from common.corpora import (
    CORPORA,
    combine_corpora,
    fetch_corpus,
    load_corpus,
    load_folder,
    open_corpus,
    recordings,
    validate_corpus,
)
from common.corpora.labels import read_folder_labels
from common.corpora.recordings import parse_path
from common.csv_files import read_csv
from common.emotions import EMOTIONS
from common.leakage import audit
from common.splits import make_folds
from tests.corpus_folders import list_told

COUNTS = {
    "sample": dict.fromkeys(EMOTIONS, 32),
    "ravdess": {emotion: 96 if emotion == "neutral" else 192 for emotion in EMOTIONS},
    "savee": {e: 120 if e == "neutral" else 60 for e in EMOTIONS if e != "calm"},
    "tess": {emotion: 400 for emotion in EMOTIONS if emotion != "calm"},
}
LAYOUTS = {
    "sample": ("Actor_02/03-01-08-01-02-01-02.flac", "02 female surprised normal 02 01"),
    "ravdess": ("Actor_23/03-01-06-02-01-02-23.wav", "23 male fearful strong 01 02"),
    "savee": ("AudioData/JK/su07.wav", "JK male surprised   "),
    "tess": ("YAF_pleasant_surprised/YAF_voice_ps.wav", "YAF female surprised  voice "),
    "emodb": ("wav/16b10Lb.wav", "16 female bored  b10 b"),
    "cremad": ("AudioWAV/1091_WSI_DIS_HI.wav", "1091 female disgust high WSI "),
}


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    for name in ("RAW_DIR", "CACHE_DIR", "SAMPLE_DIR", "INDEX_DIR"):
        monkeypatch.setattr(paths, name, tmp_path / name.lower())
    paths.INDEX_DIR.mkdir()
    return tmp_path


def write_noise(path: Path, *, seed=0, seconds=0.3, rate=16_000, peak=0.5, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).uniform(-peak, peak, round(seconds * rate))
    soundfile.write(path, noise, rate, **options)
    return path


def write_ravdess(folder: Path, *, actors=(1, 2), emotions=(1, 5), seed=0) -> list[Path]:
    names = [
        f"Actor_{actor:02d}/03-01-{emotion:02d}-01-01-01-{actor:02d}.wav"
        for actor in actors
        for emotion in emotions
    ]
    return [write_noise(folder / name, seed=number) for number, name in enumerate(names, seed)]


def write_index(name: str, folder: Path) -> None:
    rows = []
    for path in sorted(folder.rglob("*.wav")):
        info = soundfile.info(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        facts = (digest, path.stat().st_size, info.samplerate, info.channels, info.frames)
        rows.append((path.relative_to(folder).as_posix(), *facts, info.duration))
    columns = ["path", "sha256", "bytes", "sample_rate", "channels", "frames", "seconds"]
    pd.DataFrame(rows, columns=columns).to_csv(paths.INDEX_DIR / f"{name}.csv", index=False)


# Grammar


@pytest.mark.parametrize("name", LAYOUTS)
def test_each_layout_is_read(name):
    path, expected = LAYOUTS[name]
    folder = paths.SAMPLE_DIR if name == "sample" else paths.RAW_DIR / name
    written = write_noise(folder / path)
    table = load_corpus(name)
    assert tuple(table.columns) == corpora.COLUMNS
    labels = ["speaker", "gender", "emotion", "intensity", "statement", "repetition"]
    assert table.loc[0, labels].tolist() == expected.split(" ")
    assert table.loc[0, "utterance"] == f"{name}/{path.rsplit('.', 1)[0]}"
    assert table.loc[0, "path"] == str(written.resolve())
    assert table.loc[0, "audio_hash"] == hashlib.sha256(written.read_bytes()).hexdigest()
    assert table.loc[0, "seconds"] == pytest.approx(0.3)
    assert table.attrs["left_out"] == []


@pytest.mark.parametrize("name", CORPORA)
def test_records_are_complete(name):
    corpus = CORPORA[name]
    assert corpus.name == name
    assert parse_path(corpus, corpus.example)["speaker"] in corpus.genders
    assert set(corpus.emotions.values()) <= {*EMOTIONS, "bored"}
    assert set(corpus.genders.values()) <= {"female", "male"}
    assert corpus.num_utterances > 0 and corpus.licence and corpus.citation and corpus.homepage


def test_numbers_of_speakers_are_the_published_ones():
    published = {"ravdess": (24, 12), "savee": (4, 0), "tess": (2, 2), "cremad": (91, 43)}
    for name, expected in (published | {"emodb": (10, 5), "sample": (8, 4)}).items():
        genders = CORPORA[name].genders
        assert (len(genders), list(genders.values()).count("female")) == expected


@given(
    actor=st.integers(1, 24),
    emotion=st.integers(1, 8),
    intensity=st.sampled_from(["normal", "strong"]),
    statement=st.sampled_from(["01", "02"]),
    repetition=st.sampled_from(["01", "02"]),
    above=st.sampled_from(["", "audio_speech_actors_01-24/", "a/b/"]),
)
def test_ravdess_names_survive_the_round_trip(
    actor, emotion, intensity, statement, repetition, above
):
    code = {"normal": "01", "strong": "02"}[intensity]
    fields = ["03", "01", f"{emotion:02d}", code, statement, repetition, f"{actor:02d}"]
    stem = f"Actor_{actor:02d}/{'-'.join(fields)}"
    assert parse_path(CORPORA["ravdess"], f"{above}{stem}.wav") == {
        "utterance": f"ravdess/{stem}",
        "corpus": "ravdess",
        "speaker": f"{actor:02d}",
        "gender": "male" if actor % 2 else "female",
        "emotion": EMOTIONS[emotion - 1],
        "intensity": intensity,
        "statement": statement,
        "repetition": repetition,
    }


@given(name=st.sampled_from(sorted(CORPORA)), path=st.text(min_size=1, max_size=40))
def test_any_other_name_is_refused(name, path):
    with pytest.raises(ValueError, match="not a recording of"):
        parse_path(CORPORA[name], f"{path.strip('/')}/x.wav")


@pytest.mark.parametrize(
    ("name", "path", "problem"),
    [
        ("ravdess", "Actor_01/03-01-09-01-01-01-01.wav", "unknown emotion code '09'"),
        ("ravdess", "Actor_25/03-01-01-01-01-01-25.wav", "unknown speaker '25'"),
        ("ravdess", "Actor_01/03-01-01-01-01-01-02.wav", "not a recording"),  # two actors
        ("ravdess", "Actor_01/03-02-01-01-01-01-01.wav", "not a recording"),  # song
        ("ravdess", "Actor_01/01-01-01-01-01-01-01.wav", "not a recording"),  # audio and video
        ("savee", "AudioData/DC/x01.wav", "unknown emotion code 'x'"),
        ("tess", "OAF_angry/YAF_back_angry.wav", "not a recording"),
        ("emodb", "wav/03a01Xa.wav", "unknown emotion code 'X'"),
    ],
)
def test_wrong_labels_are_refused(name, path, problem):
    with pytest.raises(ValueError, match=problem):
        parse_path(CORPORA[name], path)


@pytest.mark.parametrize(
    ("path", "speaker", "emotion"),
    [
        ("OAF_neutral/OA_bite_neutral.wav", "OAF", "neutral"),
        ("OAF_Pleasant_surprise/OAF_back_ps.wav", "OAF", "surprised"),
        ("YAF_pleasant_surprised/YAF_back_pleasant_surprised.wav", "YAF", "surprised"),
        ("OAF_Fear/OAF_food_fear.wav", "OAF", "fearful"),
    ],
)
def test_spellings_of_tess_are_understood(path, speaker, emotion):
    labels = parse_path(CORPORA["tess"], path)
    assert (labels["speaker"], labels["emotion"]) == (speaker, emotion)
    assert labels["statement"] in ("bite", "back", "food")


# Tables


def test_rows_are_sorted_and_stable():
    write_ravdess(paths.RAW_DIR / "ravdess", actors=(10, 2, 1))
    first, second = load_corpus("ravdess"), load_corpus("ravdess")
    assert first["utterance"].is_monotonic_increasing
    assert isinstance(first.index, pd.RangeIndex)
    pd.testing.assert_frame_equal(first, second)


def test_a_second_copy_is_not_counted_twice():
    folder = paths.RAW_DIR / "ravdess"
    write_ravdess(folder)
    write_ravdess(folder / "audio_speech_actors_01-24")
    with pytest.warns(UserWarning, match="left out 4 of 8") as caught:
        table = load_corpus("ravdess")
    assert len(list_told(caught)) == 1
    assert len(table) == 4 and table["utterance"].is_unique
    assert not table["path"].str.contains("audio_speech").any()
    assert all("a second copy of" in entry["problem"] for entry in table.attrs["left_out"])


def test_a_wrapping_folder_does_not_rename_utterances():
    write_ravdess(paths.RAW_DIR / "ravdess")
    write_ravdess(paths.RAW_DIR / "elsewhere" / "Audio_Speech_Actors_01-24")
    plain = load_corpus("ravdess")
    wrapped = load_corpus("ravdess", folder=paths.RAW_DIR / "elsewhere")
    assert wrapped["utterance"].tolist() == plain["utterance"].tolist()


def test_scans_are_cached_until_a_file_changes(monkeypatch):
    files = write_ravdess(paths.RAW_DIR / "ravdess")
    before = load_corpus("ravdess")
    scanned = []
    scan = recordings.audio.scan_recording

    def count(path):
        scanned.append(path)
        return scan(path)

    monkeypatch.setattr(recordings.audio, "scan_recording", count)
    load_corpus("ravdess")
    assert scanned == []
    write_noise(files[0], seed=99, seconds=0.4)
    after = load_corpus("ravdess")
    assert scanned == [str(files[0].resolve())]
    assert (after["audio_hash"] != before["audio_hash"]).tolist() == [True, False, False, False]


def test_unknown_corpus_names_the_known_ones():
    with pytest.raises(ValueError, match="unknown corpus 'ravdes'; choose one of sample, ravdess"):
        load_corpus("ravdes")


def test_own_folder_has_emotions_as_subfolders(tmp_path):
    for name in ("Angry/anna_01.wav", "Angry/ben_01.ogg", "sad/anna_02.flac"):
        write_noise(tmp_path / "own" / name)
    table = load_folder(tmp_path / "own", name="own")
    assert table["emotion"].tolist() == ["angry", "angry", "sad"]
    assert table["speaker"].tolist() == ["anna", "ben", "anna"]
    assert table["utterance"].tolist() == [
        "own/Angry/anna_01",
        "own/Angry/ben_01",
        "own/sad/anna_02",
    ]
    assert set(table["gender"]) == {"unknown"} and set(table["corpus"]) == {"own"}


def test_own_files_without_speaker_count_as_speakers_and_say_so(tmp_path):
    for seed, name in enumerate(("angry/1.wav", "sad/1.wav", "sad/anna_1.wav")):
        write_noise(tmp_path / "own" / name, seed=seed)
    with pytest.warns(UserWarning, match="2 of 3 file names have no '_'"):
        table = load_folder(tmp_path / "own")
    assert table["speaker"].tolist() == ["angry/1", "sad/1", "anna"]


def test_own_files_outside_a_subfolder_are_left_out(tmp_path):
    for seed, name in enumerate(("angry/anna_1.wav", "sad/anna_1.wav", "anna_2.wav")):
        write_noise(tmp_path / name, seed=seed)
    with pytest.warns(UserWarning, match="no emotion; sort it into a folder"):
        table = load_folder(tmp_path)
    assert len(table) == 2


def test_own_csv_gives_the_labels(tmp_path):
    for seed, name in enumerate(("x/1.wav", "x/2.wav", "x/3.wav")):
        write_noise(tmp_path / name, seed=seed)
    csv = tmp_path / "labels.csv"
    csv.write_text(
        "\ufeffpath,emotion,speaker,gender,mood\n"
        "x/1.wav, Happy ,01,female,good\nx/2.wav,sad,NA,,\nx/3.wav,,02,,\ny/4.wav,sad,02,,\n",
        encoding="utf-8",
    )
    with pytest.warns(UserWarning, match="left out 2 of 4"):
        table = load_folder(tmp_path, csv=csv)
    assert table[["emotion", "speaker", "gender"]].to_numpy().tolist() == [
        ["happy", "01", "female"],
        ["sad", "NA", "unknown"],
    ]
    problems = {Path(e["path"]).name: e["problem"] for e in table.attrs["left_out"]}
    assert problems["3.wav"] == "no emotion; fill it in"
    assert "no such file, though" in problems["4.wav"]


def test_own_csv_lacks_a_column(tmp_path):
    csv = tmp_path / "labels.csv"
    csv.write_text("path,label\na.wav,sad\n")
    with pytest.raises(ValueError, match=r"labels\.csv: no column emotion, speaker among path"):
        load_folder(tmp_path, csv=csv)
    with pytest.raises(FileNotFoundError, match=r"none\.csv: no such file; give a CSV"):
        load_folder(tmp_path, csv=tmp_path / "none.csv")


def write_own(folder: Path, names) -> Path:
    """Write a recording of its own for each name."""
    for name in names:
        write_noise(folder / name, seed=crc32(f"{folder.name}/{name}".encode()))
    return folder


SEVERAL = ("angry", "sad")
PAIRS = [*zip(SEVERAL, "ab", strict=True)]
ROOMS = [
    f"{what}/{room}/{who}_{take}.wav"
    for take, what in enumerate(SEVERAL)
    for room in ("kitchen", "garage")
    for who in ("anna", "bob")
]
NAMED = [
    f"{who}/{what}/{who}_{n}.wav"
    for who in ("anna", "bob", "cid", "dora")
    for what in SEVERAL
    for n in range(4)
]
TAKES = [re.sub(r"[a-z]+_", "take_", name) for name in NAMED]
TOPICS = [
    f"{who}/{what}/{name}.wav"
    for who in ("anna", "bob")
    for what in SEVERAL
    for name in ("dogs_1", "kids_1", "dogs_2", "talk", "x")
]


@pytest.mark.parametrize(
    ("names", "emotions", "speakers"),
    [
        (  # as ESD
            [f"{who}/{what}/{who}_1.wav" for who in ("0011", "0012") for what in ("Angry", "Sad")],
            ["angry", "sad"] * 2,
            ["0011", "0011", "0012", "0012"],
        ),
        (
            [f"anna/{what}/{n}.wav" for what in ("fear", "joy") for n in (1, 2)]
            + [f"bob/{what}/{n}.wav" for what in ("fear", "joy") for n in (1, 2)],
            ["fear", "fear", "joy", "joy"] * 2,
            ["anna"] * 4 + ["bob"] * 4,
        ),
        (
            [f"{what}/{who}/1.wav" for what in ("angry", "sad") for who in ("anna", "bob")],
            ["angry", "angry", "sad", "sad"],
            ["anna", "bob"] * 2,
        ),
        (  # one level too high
            [f"recordings/{what}/{who}_1.wav" for what in ("fear", "sad") for who in ("a", "b")],
            ["fear", "fear", "sad", "sad"],
            ["a", "b"] * 2,
        ),
        (  # one speaker with a single emotion
            [*(f"{who}/{what}/1.wav" for who in "ab" for what in ("sad", "wut")), "c/sad/1.wav"],
            ["sad", "wut", "sad", "wut", "sad"],
            ["a", "a", "b", "b", "c"],
        ),
        (  # folders and file names agree
            [f"{who}/s{n}/{what}/{who}_1.wav" for who, n in ("a1", "b1", "b2") for what in SEVERAL],
            [*SEVERAL] * 3,
            ["a", "a", "b", "b", "b", "b"],
        ),
        (  # parts are no speakers
            [
                f"{part}/{what}/a_{part}.wav"  # by any of their names
                for part in ("evaluation", "development")
                for what in ("sad", "calm")
            ],
            ["calm", "sad"] * 2,
            ["a"] * 4,
        ),
        (  # one emotion is known
            [f"{what}/{who}_1.wav" for what in ("neutral", "stress1", "stress2") for who in "ab"],
            ["neutral", "neutral", "stress1", "stress1", "stress2", "stress2"],
            ["a", "b"] * 3,
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:.*is taken for one")
def test_layouts_of_own_folders_are_understood(names, emotions, speakers, tmp_path):
    table = load_folder(write_own(tmp_path / "own", names))
    assert table["emotion"].tolist() == emotions
    assert table["speaker"].tolist() == speakers


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["recordings/a_1.wav", "recordings/b_1.wav"], "fewer than two emotions"),
        (["001/a_1.wav", "002/a_1.wav"], r"\(001, 002\) look like speakers or parts"),
        (["train/a_1.wav", "test/b_1.wav"], "look like speakers or parts"),
        (["wut/anna/1.wav", "angst/bob/1.wav"], "which sub-folders are the emotions"),
        (
            [
                f"s{n}/{what}/{who}_1.wav"
                for n in (1, 2)
                for what in ("sad", "calm")
                for who in "ab"
            ],
            "who speaks. The folders say s1, s2, the file names a, b",
        ),
        (
            ["anna/angry_1.wav", "bob/sad_1.wav"],
            r"file names tell emotions \(angry, sad\), the sub",
        ),
        (["anna/1_ANG_XX.wav", "bob/1_SAD_XX.wav", "cid/1.wav"], r"names tell emotions \(ANG, SAD"),
        (
            ["anna/angry/1.wav", "bob/angry/1.wav"],
            r"which sub-folders are the emotions \(anna, bob",
        ),
        (
            ["anna/angry/take_1.wav", "bob/sad/take_2.wav"],
            "who speaks. The folders say anna, bob, the file names take",
        ),
        (
            ["anna/angry/take1_1.wav", "bob/sad/take2_1.wav", "bob/sad/take1_1.wav"],
            "who speaks. The folders say anna, bob, the file names take1, take2",
        ),
        (
            [f"{day}/{who}/{what}/1.wav" for day in "xy" for who in "ab" for what in SEVERAL],
            "who speaks. The folders say x, y or a, b, the file names nothing",
        ),
        (ROOMS, "who speaks. The folders say garage, kitchen, the file names anna, bob"),
        ([*ROOMS, "angry/kitchen/noise.wav"], "who speaks. The folders say garage, kitchen"),
        (
            [f"{what}/{who}_1.wav" for what in (*SEVERAL, "Train", "val") for who in "ab"],
            "parts of a split lie among the emotions: Train, val; sort",
        ),
        (
            [f"{what}/{who}_1.wav" for what in ("wut", "angst", "test") for who in "ab"],
            "parts of a split lie among the emotions: test",
        ),
        (
            [f"{what}/a_1.wav" for what in ("001", "002", "misc")],
            r"\(001, 002, misc\) look like speakers or parts",
        ),
        (
            [f"{who}/{who}_{n}.wav" for who in ("anna", "bob", "cid") for n in (1, 2)],
            r"names repeat the sub-folders' \(anna, bob, cid\), so .*; name the files <speaker>_",
        ),
        (
            ["Wut/wut_1.wav", "Angst/Angst_1.wav", "x.wav"],
            r"repeat the sub-folders' \(Angst, Wut\), so these may be emotions or speakers; name",
        ),
        (
            ["Wut/a_1.wav", "Angst/b_1.wav"],
            r"speaker of its own \(a in Wut, b in Angst\), .* speakers; name the files <speaker>_",
        ),
        (
            [f"{what}/{n}.wav" for what in ("stress1", "stress2", "misc") for n in "12"],
            "look like speakers or parts",
        ),
        (
            ["neutral/a_1.wav", "train/a_1.wav", "test/b_1.wav"],
            "parts of a split lie among the emotions: test, train",
        ),
        (TOPICS, "who speaks.* speaker, or write '-' for '_' where no speaker stands before it"),
        (
            [*NAMED, "anna/angry/bob_9.wav"],
            "who speaks.* names anna, bob, cid, dora; rename or move anna/angry/bob_9, unlike",
        ),
        (
            [*NAMED, "eve/angry/anna_9.wav"],
            "who speaks.* names anna, bob, cid, dora; rename or move eve/angry/anna_9, unlike",
        ),
        (
            ["wut/a_1.wav", "wut/a_2.wav", "angst/b_1.wav", "angst/noise.wav"],
            r"each sub-folder has a speaker of its own \(a in wut, b in angst\)",
        ),
    ],
)
def test_what_is_ambiguous_is_refused(names, words, tmp_path):
    folder = write_own(tmp_path / "own", names)
    with pytest.raises(ValueError, match=words) as caught:
        load_folder(folder)
    assert "give a CSV with path, emotion and speaker" in str(caught.value)


@pytest.mark.parametrize(
    ("names", "speakers", "told"),
    [
        (
            [f"{what}/a_1.wav" for what in (*EMOTIONS[:5], "misc", "bob")],
            ["a"] * 7,
            ["not all sub-folders .* each of bob, misc is taken for one; if .* rename .* CSV"],
        ),
        (
            [f"x/{what}/a_1.wav" for what in (*EMOTIONS[:3], "noise")],
            ["a"] * 4,
            ["so noise is taken for one"],
        ),
        (
            [f"{what}/a_1.wav" for what in "uvwxyz"],
            ["a"] * 6,
            ["no sub-folder has .* each of u, v, w, x and 2 more is taken for one"],
        ),
        (  # as many are unknown, as of another language
            [f"{what}/a_1.wav" for what in ("Neutral", "sad", "Wut")],
            ["a"] * 3,
            [],
        ),
        (
            [f"{what}/a_1.wav" for what in (*EMOTIONS, "Excited", "frustrated", "contempt")],
            ["a"] * 11,
            [],
        ),
        (["positive/a_1.wav", "Negative/a_1.wav"], ["a"] * 2, []),
        (  # every speaker speaks one emotion alone
            ["angry/a_1.wav", "angry/a_2.wav", "sad/s_1.wav", "sad/s_2.wav"],
            ["a", "a", "s", "s"],
            [r"each emotion has one speaker, who has no other \(a in angry, s in sad\)"],
        ),
        (
            ["angry/anna/1.wav", "angry/anna/2.wav", "sad/anna/1.wav"],
            ["anna"] * 3,
            [r"folders \(anna\) are taken for the speakers, since 3 of 3 file names have no '_'"],
        ),
        (
            ["angry/anna/1.wav", "sad/bob/1.wav", "sad/bob/2.wav"],
            ["anna", "bob", "bob"],
            [r"folders \(anna, bob\) are taken", "each emotion has one speaker"],
        ),
        (
            ["anna/angry/1.wav", "anna/angry/2.wav", "bob/sad/2.wav"],
            ["anna", "anna", "bob"],
            [r"folders \(anna, bob\) are taken", "each emotion has one speaker"],
        ),
        (
            ["angry/anna/1.wav", "angry/anna/2.wav", *(f"sad/{n}.wav" for n in range(3))],
            ["angry/anna/1", "angry/anna/2", "sad/0", "sad/1", "sad/2"],
            ["5 of 5 file names have no '_'"],
        ),
        (  # nearly all in one folder
            [*(f"{what}/anna/{n}.wav" for what in SEVERAL for n in range(5)), "sad/9.wav"],
            [*["anna"] * 10, "sad/9"],
            [r"folders \(anna\) are taken", "1 of 11 file names have no '_'"],
        ),
        (
            [*(f"{what}/{n}.wav" for what in SEVERAL for n in range(3)), "angry/extra/9.wav"],
            [f"{what}/{n}" for what in SEVERAL for n in range(3)] + ["angry/extra/9"],
            ["7 of 7 file names have no '_'"],
        ),
        *(
            (
                [f"{what}/{part}/1.wav" for what in SEVERAL for part in parts],
                [f"{what}/{part}/1" for what in SEVERAL for part in parts],
                [f"{2 * len(parts)} of {2 * len(parts)} file names have no '_'"],
            )
            for parts in (
                *(["Samples"], ["sound"], ["voice"], ["speech"], ["segments"], ["utterances"]),
                *(["high", "low"], ["original", "augmented"], ["clean", "noisy"], ["new", "old"]),
                *(["strong", "weak"], ["voices", "sounds"]),
            )
        ),
        (  # file names that repeat the folder's
            ["Wut/Wut_1.wav", "Freude/Freude_1.wav", "Neutral/Neutral_1.wav"],
            ["Wut/Wut_1", "Freude/Freude_1", "Neutral/Neutral_1"],
            ["3 of 3 file names have no '_' after a speaker's name"],
        ),
        (
            [f"{what}/{what}_{n}.wav" for what in ("angry", "excited", "very_sad") for n in "12"],
            [f"{what}/{what}_{n}" for what in ("angry", "excited", "very_sad") for n in "12"],
            ["6 of 6 file names have no '_' after a speaker's name"],
        ),
        (
            [f"{who}/{what}/{what}_1.wav" for who in "ab" for what in ("sad", "happy", "excited")],
            [*"aaabbb"],
            [],
        ),
        (  # one prefix in the folders of two
            [
                *(f"{what}/{who}/{n}.wav" for what, who in PAIRS for n in ("clip_1", *"123")),
                *("angry/a/one_1.wav", "sad/clip_7.wav", "sad/one_7.wav"),
            ],
            [*"aaaabbbb", "a", "sad/clip_7", "a"],
            [r"folders \(a, b\) are taken", "1 of 11 file names have no '_' after"],
        ),
        (
            [f"{what}/Ses01{who}_impro01_{who}000.wav" for what in SEVERAL for who in "FM"],
            ["Ses01F", "Ses01M"] * 2,
            ["Ses01F, Ses01M name who wore the markers .* not who speaks.*: give a CSV with path"],
        ),
        (
            [*TAKES, "anna/angry/x.wav"],
            [name.split("/")[0] for name in TAKES] + ["anna"],
            [r"folders \(anna, bob, cid, dora\) .* since 32 of 33 file names begin with take_; if"],
        ),
        (  # folders and file names agree
            [*NAMED, "anna/angry/x.wav"],
            [name.split("/")[0] for name in NAMED] + ["anna"],
            [],
        ),
        (
            ["angry/anna/001_x.wav", "sad/anna/002_x.wav"],
            ["anna"] * 2,
            [r"folders \(anna\) .* since 2 of 2 file names begin with a number that no other has"],
        ),
        (  # names of no person
            ["angry/wav/1.wav", "sad/wav/1.wav"],
            ["angry/wav/1", "sad/wav/1"],
            ["2 of 2 file names have no '_'"],
        ),
        (  # around all, so perhaps no person
            ["anna/angry/1.wav", "anna/sad/1.wav"],
            ["anna/angry/1", "anna/sad/1"],
            ["2 of 2 file names have no '_'"],
        ),
        (
            [*(f"{what}/{who}/{who}_1.wav" for what in SEVERAL for who in "ab"), "sad/b/x.wav"],
            [*"abab", "b"],
            [],
        ),
        (
            ["angry/1_anna.wav", "sad/2_bob.wav", "sad/3_anna.wav", "sad/x.wav"],
            ["angry/1_anna", "sad/2_bob", "sad/3_anna", "sad/x"],
            ["4 of 4 file names have no '_' .* or begin with a number that no other has"],
        ),
    ],
)
def test_what_is_taken_for_an_emotion_or_a_speaker_is_told(names, speakers, told):
    folder = Path("own").resolve()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rows = read_folder_labels(folder, [folder / name for name in names])
    assert [row["speaker"] for row in rows] == speakers
    messages = "\n".join(str(warning.message) for warning in caught)
    assert len(caught) == len(told) and all(re.search(words, messages) for words in told)


def test_warnings_of_folders_point_at_who_loads_them(tmp_path):
    names = [f"{what}/{what[0]}b/1.wav" for what in ("misc", *SEVERAL, "happy")] + ["sad/2.wav"]
    with pytest.warns(UserWarning) as caught:
        load_folder(write_own(tmp_path / "own", names))
    assert len(caught) == 4 and {warning.filename for warning in caught} == {__file__}


ARRANGED = [
    ROOMS,
    [
        f"{what}/{place}/{who}_{take}.wav"
        for what in SEVERAL
        for place, who in (("x", "x"), ("kitchen", "bob"), ("y", "y"))
        for take in range(2)
    ],
    [f"{what}/{who}_{take}.wav" for what in SEVERAL for who in "ab" for take in (1, 2)],
    [f"{what}/{who}/{take}.wav" for what in SEVERAL for who in "ab" for take in (1, 2)],
    NAMED,
    TAKES,
    [f"{who}/{what}/take_{take}.wav" for what, who in PAIRS for take in range(3)],
    [f"{what}/{who}/{take}.wav" for what, who in PAIRS for take in range(3)],
    [f"{what}/{10 + take}_{take % 3}.wav" for take, what in enumerate(SEVERAL * 3)],
    [f"{who}/{who}_{take}.wav" for who in ("anna", "bob") for take in range(3)],
]


@given(
    names=st.sampled_from(ARRANGED),
    odd=st.from_regex(r"[a-z0-9 -]{1,9}|[a-z-]{1,5}_[a-z0-9_]{1,4}", fullmatch=True)
    | st.sampled_from(["anna_9", "bob_9", "x_9", "take_9", "angry_9"]),
    place=st.integers(0),
)
def test_one_odd_file_changes_nobody(names, odd, place):
    """Or the refusal names it, where another speaker's name stands before its "_"."""
    folder = Path("own").resolve()

    def read(names):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return read_folder_labels(folder, [folder / name for name in names])
            except ValueError as error:
                return [str(error)]

    beside = Path(names[place % len(names)]).parent / f"{odd}.wav"
    before, after = read(names), read([*names, beside.as_posix()])
    if "_" in odd and len(after) == 1:
        move = f"rename or move {beside.with_suffix('').as_posix()}, unlike the others"
        assert len(before) == 1 or move in after[0]
    else:
        assert after[: len(names)] == before


SESSIONS = ["anna/angry", "anna/sad", "bob/angry", "bob/sad", "cid/angry"]


@pytest.mark.parametrize("stray", ["take_2.wav", "anna/take_2.wav", "anna/angry/old/take_2.wav"])
def test_stray_files_and_a_single_emotion_leave_the_speakers_apart(stray, tmp_path):
    folder = write_own(tmp_path / "own", [*(f"{place}/take_1.wav" for place in SESSIONS), stray])
    with pytest.warns(UserWarning) as caught:
        table = load_folder(folder)
    messages = "\n".join(str(warning.message) for warning in caught)
    assert "the folders (anna, bob, cid) are taken for the speakers" in messages
    rows = table[~table["path"].str.contains("take_2")]
    assert rows["speaker"].tolist() == ["anna", "anna", "bob", "bob", "cid"]
    lies_deep = "old" in stray
    assert len(table) == 5 + lies_deep and ("no emotion; sort it" in messages) != lies_deep


def test_a_file_above_the_folders_of_speakers_is_told(tmp_path):
    names = [f"{what}/{who}/1.wav" for what in SEVERAL for who in ("anna", "bob")]
    folder = write_own(tmp_path / "own", [*names, "sad/2.wav"])
    with pytest.warns(UserWarning, match="no speaker; sort it into a folder named after its spea"):
        table = load_folder(folder)
    assert table["speaker"].tolist() == ["anna", "bob"] * 2
    names = [f"{what}/{who}/{who}_1.wav" for what in SEVERAL for who in ("anna", "bob")]
    table = load_folder(write_own(tmp_path / "named", [*names, "sad/anna_2.wav"]))
    assert table["speaker"].tolist() == ["anna", "bob", "anna", "anna", "bob"]


def test_folders_that_are_no_known_emotions_are_told(tmp_path):
    folder = write_own(tmp_path / "own", [f"x/{what}/a_1.wav" for what in ("wut", "angst")])
    with pytest.warns(UserWarning, match="so each of angst, wut is taken for one; if they are non"):
        table = load_folder(folder)
    assert table["emotion"].tolist() == ["angst", "wut"]


@pytest.mark.parametrize(("one", "other"), [("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")])
@pytest.mark.filterwarnings("ignore:.*is taken for one")
def test_accents_that_are_composed_otherwise_make_no_second_person(one, other, tmp_path):
    def spell(form, name):
        return unicodedata.normalize(form, name)

    names = [spell(one, "angry/Jörg_1.wav"), spell(other, "sad/Jörg_1.wav")]
    names += [spell(one, "genervté/Zoë_1.wav"), spell(other, "genervté/Zoë_2.wav")]
    table = load_folder(write_own(tmp_path / "own", names))
    assert set(table["speaker"]) == {"Jörg", "Zoë"}
    assert set(table["emotion"]) == {"angry", "sad", "genervté"}
    assert all(Path(path).is_file() for path in table["path"])
    names = [spell(one, "Jörg/angry/1.wav"), spell(other, "Jörg/sad/1.wav")]
    names += [f"Ute/{what}/1.wav" for what in SEVERAL]
    table = load_folder(write_own(tmp_path / "folders", names))
    assert set(table["speaker"]) == {"Jörg", "Ute"}


def test_speakers_that_differ_in_case_alone_are_told(tmp_path):
    folder = write_own(tmp_path / "own", ("angry/Anna_1.wav", "sad/anna_1.wav", "sad/bob_1.wav"))
    with pytest.warns(UserWarning, match="Anna and anna differ in upper case or zeros alone"):
        assert len(load_folder(folder)) == 3


@pytest.mark.parametrize(
    "name", ["=HYPERLINK(1)/a_1.wav", "sad/@SUM(A1)_1.wav", "+1/a_1.wav", "-A1+1/a_1.wav"]
)
@pytest.mark.filterwarnings("ignore:.*is taken for one")
def test_names_that_spreadsheets_would_run_are_told(name, tmp_path):
    folder = write_own(tmp_path / "own", (name, "sad/a_2.wav", "angry/a_3.wav"))
    with pytest.warns(UserWarning, match="left out 1 of 3 .*\n.* is a formula, .*; rename it"):
        table = load_folder(folder)
    assert table["emotion"].tolist() == ["angry", "sad"]


def test_a_number_or_a_dash_is_no_formula(tmp_path):
    folder = write_own(tmp_path / "own", ("sad/a_2.wav", "angry/a_3.wav"))
    rows = "path,emotion,speaker,gender\nsad/a_2.wav,sad,-1,-\nangry/a_3.wav,angry,-1.5,-\n"
    (tmp_path / "labels.csv").write_text(rows)
    table = load_folder(folder, csv=tmp_path / "labels.csv")
    assert table["speaker"].tolist() == ["-1.5", "-1"]


def test_one_emotion_alone_is_a_table_and_nothing_to_learn(tmp_path):
    table = load_folder(write_own(tmp_path / "own", ["angry/anna_1.wav", "angry/bob_1.wav"]))
    assert table["emotion"].tolist() == ["angry", "angry"]
    with pytest.raises(ValueError, match="my_corpus: one emotion, 'angry', is nothing to learn"):
        make_folds(table, "leave_one_speaker_out")


def load_csv(folder: Path, text: str, encoding="utf-8") -> pd.DataFrame:
    write_own(folder / "own", ("angry/anna_1.wav", "happy/bob_1.wav"))
    (folder / "labels.csv").write_bytes(text.encode(encoding))
    return load_folder(folder / "own", csv=folder / "labels.csv")


CSV = "path,emotion,speaker\nangry/anna_1.wav,angry,anna\nhappy/bob_1.wav,happy,bob\n"


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"]
)
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize(
    "change",
    [
        lambda text: text,
        lambda text: text.replace("path", "Path").replace("emotion", " EMOTION "),
        lambda text: text.replace("/", "\\"),
        lambda text: text.replace("\n", ",\n"),
        lambda text: text.replace("\n", "\r\n") + "\r\n,,\r\n",
        lambda text: text.replace("angry/", "./Angry/"),
        lambda text: "sep=,\r\n" + text,
        lambda text: '\n"SEP=,"\n' + text,
        lambda text: text.replace("speaker", "speaker,note").replace(
            ",bob", ',bob,"\na\x0bb\x1cc"'
        ),
        lambda text: text.replace("speaker", "speaker,,").replace("\n", "\r"),
    ],
)
def test_csv_as_spreadsheets_write_it(change, separator, encoding, tmp_path):
    text = change(CSV).replace(",", separator)
    table = load_csv(tmp_path, text, encoding)
    assert table["speaker"].tolist() == ["anna", "bob"]


def test_csv_rows_end_at_line_ends_alone(tmp_path):
    text = CSV.replace("speaker", "speaker,statement").replace(
        ",bob", ",bob,a\x0bb\u2028c\x85d\x1ce"
    )
    table = load_csv(tmp_path, text)
    assert table["statement"].tolist() == ["", "a\x0bb\u2028c\x85d\x1ce"]


def add_notes(notes: list[str]) -> str:
    """Write a CSV with a row, and a note in it, of each text; more cells follow a comma."""
    header = "path,emotion,speaker,note" + ",more" * ("," in notes[0])
    rows = [f"{number}.wav,sad,anna,{note}" for number, note in enumerate(notes)]
    return "\n".join([header, *rows, ""])


@pytest.mark.parametrize(
    ("text", "row", "words"),
    [
        (
            CSV.replace(",anna", ',"anna'),
            2,
            "a quotation mark that is not closed, before 'anna.nhappy/",
        ),
        (
            CSV.replace(",happy", ',"happy'),
            3,
            "a quotation mark that is not closed, before 'happy,bob'",
        ),
        (CSV.replace(",speaker", ',"speaker'), 1, "a quotation mark that is not closed"),
        (CSV.replace("speaker", "speaker,note").replace("anna\n", 'anna,"x\n'), 2, "a quotation"),
        (CSV + "\n" + CSV.replace(",anna", ',"anna'), 6, "a quotation mark that is not closed"),
        (CSV.replace(",anna", ',"anna').replace(",bob", ',"bob'), 2, "a line break in its speaker"),
        (CSV.replace(",anna", ',"an\r\nna"'), 2, "a line break in its speaker, 'an.r.nna'; remove"),
        (CSV.replace(",happy,", ',"hap\npy",'), 3, "a line break in its emotion, 'hap.npy'"),
        (CSV.replace("angry/anna_1.wav", '"angry/\ranna_1.wav"'), 2, "a line break in its path"),
        (CSV.replace(",anna", ',"anna' + "x" * 200_000), 2, "none of a CSV .*; remove a quotation"),
        *(
            (add_notes(notes), 3, f"other rows in a cell, {shown}.*; remove the quotation mark")
            for notes, shown in (
                (["a", '"loud', "b", "c", '"soft'], "'loud"),
                (["a", '"loud', "b", "c", 'soft"'], "'loud"),
                (["a", '"loud', '"soft', "b"], "'loud"),
                (["a,x", '"loud,x', 'soft",x'], "'loud,x"),  # and a column after them
            )
        ),
        (add_notes(['a"', '"b', "c", '"d']), 3, "other rows in a cell"),
        ('path,emotion,speaker,"note\na,sad,a,"x\nb,sad,b,x\n', 1, "other rows in a cell, 'note"),
    ],
)
def test_a_quotation_mark_swallows_no_rows(text, row, words, tmp_path):
    with pytest.raises(ValueError, match=rf"labels\.csv: row {row} (has|is) {words}"):
        load_csv(tmp_path, text)


@given(st.data())
def test_one_stray_quotation_mark_loses_no_row_without_a_word(data):
    lines = CSV.splitlines(keepends=True) + ["c/d.wav,sad,cid\n"] * 3
    number = data.draw(st.integers(0, len(lines) - 1))
    cells = lines[number].split(",")
    column = data.draw(st.integers(0, len(cells) - 1))
    at = data.draw(st.integers(0, len(cells[column])))
    cells[column] = f'{cells[column][:at]}"{cells[column][at:]}'
    lines[number] = ",".join(cells)
    with TemporaryDirectory() as folder:
        (Path(folder) / "labels.csv").write_text("".join(lines))
        try:
            table = read_csv(Path(folder) / "labels.csv", corpora.COLUMNS)
        except ValueError as error:
            assert re.search(r"labels\.csv: row \d has a quotation mark that is not", str(error))
        else:
            assert len(table) == len(lines) - 1


@given(st.data())
def test_two_stray_quotation_marks_lose_no_row_without_a_word(data):
    lines = ["path,part,note,more\n"] + [f"{n}.wav,train,ab,cd\n" for n in range(5)]
    for _ in range(2):
        number = data.draw(st.integers(1, len(lines) - 1))
        cells = lines[number].removesuffix("\n").split(",")
        column = data.draw(st.integers(0, len(cells) - 1))
        at = data.draw(st.integers(0, len(cells[column])))
        cells[column] = f'{cells[column][:at]}"{cells[column][at:]}'
        lines[number] = ",".join(cells) + "\n"
    with TemporaryDirectory() as folder:
        (Path(folder) / "split.csv").write_text("".join(lines))
        try:
            table = read_csv(Path(folder) / "split.csv", ("path",))
        except ValueError as error:
            assert re.search(r"split\.csv: row \d has ", str(error))
        else:
            assert len(table) == len(lines) - 1


@pytest.mark.parametrize(
    "text", ["Well,\nno", "Oh, no, please, do not\r\nstop", "one\n\ntwo, three\nfour", "a\rb"]
)
def test_a_sentence_of_several_lines_is_read(text, tmp_path):
    table = load_csv(
        tmp_path, CSV.replace("speaker", "speaker,statement").replace(",bob", f',bob,"{text}"')
    )
    assert table["statement"].tolist() == ["", text] and len(table) == 2
    text = text.replace(",", "")
    first = f'statement,path,emotion,speaker\n"{text}",angry/anna_1.wav,angry,anna\n'
    with pytest.warns(UserWarning, match="does not name it"):
        assert load_csv(tmp_path, first)["statement"].tolist() == [text]


def test_a_line_break_at_the_end_of_a_cell_is_no_part_of_it(tmp_path):
    table = load_csv(tmp_path, CSV.replace(",anna", ',"anna\n"'))
    assert table["speaker"].tolist() == ["anna", "bob"]


@pytest.mark.parametrize("given", ["link", "own"])
@pytest.mark.parametrize("written", ["link", "own", "link/../link", "far/own"])
def test_csv_names_files_by_whole_paths_through_links(given, written, tmp_path):
    write_own(tmp_path / "own", ("angry/anna_1.wav", "happy/bob_1.wav"))
    (tmp_path / "link").symlink_to(tmp_path / "own")
    (tmp_path / "far").symlink_to(tmp_path)
    text = CSV.replace("angry/", f"{tmp_path / written}/Angry/")
    (tmp_path / "labels.csv").write_text(text.replace("happy/", f"{tmp_path / written}/happy/"))
    table = load_folder(tmp_path / given, csv=tmp_path / "labels.csv")
    assert table["speaker"].tolist() == ["anna", "bob"] and table.attrs["left_out"] == []


@pytest.mark.parametrize(
    "path", ["link/../own2/x.wav", "own/angry/../../x.wav", "own2/x.wav", "own/x\0.wav"]
)
def test_csv_names_no_files_outside(path, tmp_path):
    write_own(tmp_path, ("x.wav", "own2/x.wav"))
    (tmp_path / "own").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "own")
    with pytest.warns(UserWarning, match="left out 1 of 3 (.|\n)*not below"):
        load_csv(tmp_path, CSV + f"{tmp_path / path},sad,cid\n", "utf-16")


@pytest.mark.parametrize("target", ["far", "own/sad"])
def test_csv_names_files_behind_links(target, tmp_path):
    write_own(tmp_path, ("far/a.wav", "own/sad/b.wav", "own/.c/d.wav"))
    (tmp_path / "own" / "wav").symlink_to(tmp_path / target)
    [name] = {"far": ["a"], "own/sad": ["b"]}[target]
    rows = f"path,emotion,speaker\nwav/{name}.wav,angry,anna\n.c/d.wav,sad,bob\n"
    rows += "sad/b.wav,sad,cid\n" * (target == "far")
    (tmp_path / "labels.csv").write_text(rows)
    table = load_folder(tmp_path / "own", csv=tmp_path / "labels.csv")
    assert len(table) == 2 + (target == "far") and table.attrs["left_out"] == []


def test_what_a_csv_does_not_name_is_told(tmp_path):
    write_own(tmp_path / "own", ("sad/new_1.wav", "angry/more.wav"))
    (tmp_path / "own" / "sad" / "clip.flv").write_bytes(b"FLV\1\0")
    (tmp_path / "own" / "notes.txt").write_text("no sound")
    with pytest.warns(UserWarning, match="left out 3 of 5"):
        table = load_csv(tmp_path, CSV)
    assert len(table) == 2
    problems = {Path(entry["path"]).name: entry["problem"] for entry in table.attrs["left_out"]}
    assert problems.keys() == {"new_1.wav", "more.wav", "clip.flv"}
    assert problems["more.wav"].endswith("labels.csv does not name it; add a row for it")


def test_csv_of_another_encoding_is_read_and_told(tmp_path):
    with pytest.warns(UserWarning, match=r"labels\.csv: not UTF-8, so read as Windows-1252"):
        table = load_csv(tmp_path, CSV.replace(",bob", ",jörg"), "cp1252")
    assert table["speaker"].tolist() == ["anna", "jörg"]


def test_csv_whose_utf_16_is_cut_inside_a_letter_is_refused(tmp_path):
    (tmp_path / "labels.csv").write_bytes(CSV.encode("utf-16")[:-1])
    with pytest.raises(ValueError, match=r"labels\.csv: its UTF-16 is damaged"):
        read_csv(tmp_path / "labels.csv", ("path", "emotion", "speaker"))


def test_csv_finds_names_whose_accents_are_composed_otherwise(tmp_path):
    spoken = unicodedata.normalize("NFD", "wütend/jörg_1.wav")
    write_own(tmp_path / "own", (spoken, "happy/bob_1.wav"))
    text = "path,emotion,speaker\nwütend/jörg_1.wav,angry,jörg\nhappy/bob_1.wav,happy,bob\n"
    (tmp_path / "labels.csv").write_text(unicodedata.normalize("NFC", text), encoding="utf-8")
    table = load_folder(tmp_path / "own", csv=tmp_path / "labels.csv")
    assert table["speaker"].tolist() == ["bob", "jörg"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no column path, emotion, speaker among nothing"),
        ("\0" * 50, "not text, it holds zeros; save it as CSV in UTF-8"),
        ("\n\n", "no column path"),
        (CSV + "happy/bob_1.wav,happy,bob,more\n", "row 4 has more cells than the header"),
        (CSV.replace("speaker", "who"), "no column speaker among path, emotion, who"),
        (CSV.replace("speaker", "speaker, Emotion "), "two columns emotion; keep the one that is"),
        (CSV.replace("speaker", "speaker,gender,Gender"), "two columns gender"),
    ],
)
def test_csv_that_is_no_table_is_named(text, words, tmp_path):
    with pytest.raises(ValueError, match=rf"labels\.csv: {words}"):
        load_csv(tmp_path, text)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("angry/anna_1.wav,sad,anna", "says angry of anna and sad of anna; keep the row"),
        ("../own/angry/anna_1.wav,sad,anna", "not below .*; give paths relative to it"),
        ("/etc/passwd,sad,anna", "not below .*; give paths relative to it"),
        ("sad/x.wav,sad,anna", "no such file, though .*labels.csv names it; correct the path"),
        ("a" * 5_000 + ",sad,anna", "no such file"),
        ("sad/cid_1.wav,=HYPERLINK(1),cid", "emotion is a formula, '=HYPERLINK.*; write a word"),
    ],
)
def test_rows_that_cannot_be_used_are_left_out_with_their_problem(row, problem, tmp_path):
    write_noise(tmp_path / "own" / "sad" / "cid_1.wav", seed=7)
    text = CSV + "sad/cid_1.wav,calm,cid\n" * ("cid" not in row) + f"{row}\n"
    with pytest.warns(UserWarning, match=problem):
        table = load_csv(tmp_path, text)
    assert set(table["speaker"]) <= {"anna", "bob", "cid"} and len(table) >= 2


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("angry/anna_1.wav,=HYPERLINK(1),anna", "emotion is a formula"),
        ("angry/anna_1.wav,angry,@SUM(A1)", "speaker is a formula"),
        ("angry/anna_1.wav,,anna", "no emotion; fill it in"),
        ("angry/anna_1.wav,sad,", "no speaker; fill it in"),
        ("=angry/anna_1.wav,angry,anna", "no such file"),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_a_row_that_is_refused_does_not_spoil_a_good_one_of_the_same_path(
    row, problem, first, tmp_path
):
    header, rest = CSV.split("\n", 1)
    text = f"{header}\n{row}\n{rest}" if first else f"{CSV}{row}\n"
    with pytest.warns(UserWarning, match=f"left out 1 of 3 .*\\n.*{problem}"):
        table = load_csv(tmp_path, text)
    assert table["utterance"].tolist() == ["my_corpus/angry/anna_1", "my_corpus/happy/bob_1"]
    assert table["emotion"].tolist() == ["angry", "happy"]
    assert len(table.attrs["left_out"]) == 1


def test_the_same_bytes_under_other_labels_are_told_and_left_out(tmp_path):
    folder = write_own(tmp_path / "own", ("angry/a_1.wav", "sad/a_1.wav", "calm/b_1.wav"))
    for copy in ("happy/a_1.wav", "sad/b_2.wav", "calm/b_3.wav"):
        (folder / copy).parent.mkdir(exist_ok=True)
    (folder / "happy/a_1.wav").write_bytes((folder / "angry/a_1.wav").read_bytes())
    (folder / "sad/b_2.wav").write_bytes((folder / "sad/a_1.wav").read_bytes())
    (folder / "calm/b_3.wav").write_bytes((folder / "calm/b_1.wav").read_bytes())
    write_noise(folder / "happy" / "c_1.wav", seed=8)
    with pytest.warns(UserWarning, match="left out 5 of 7"):
        table = load_folder(folder)
    assert table["utterance"].tolist() == ["my_corpus/calm/b_1", "my_corpus/happy/c_1"]
    problems = {Path(entry["path"]).name: entry["problem"] for entry in table.attrs["left_out"]}
    assert "angry of a and happy of a; keep the one that is right" in problems["a_1.wav"] or (
        "sad of a and sad of b; keep the one that is right" in problems["a_1.wav"]
    )
    assert problems["b_3.wav"].endswith("calm/b_1.wav; remove one of them")


def test_two_recordings_that_differ_in_their_suffix_are_two(tmp_path):
    folder = write_own(tmp_path / "own", ("sad/a_1.wav", "sad/a_1.flac", "calm/a_2.wav"))
    names = load_folder(folder)["utterance"].tolist()
    assert names == ["my_corpus/calm/a_2", "my_corpus/sad/a_1.flac", "my_corpus/sad/a_1.wav"]


def test_nothing_below_a_folder_vanishes(tmp_path):
    folder = write_own(tmp_path / "own", ("sad/a_1.wav",))
    write_noise(folder / "calm" / "a_2.oga", seed=2, format="OGG")
    write_noise(folder / "calm" / "a_3.opus", seed=3, format="OGG", subtype="OPUS")
    write_noise(folder / "sad" / "a_4.wav", seed=9).rename(folder / "sad" / "a_4")
    (folder / "sad" / "a_5.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(500))
    (folder / "sad" / "a_6.webm").write_bytes(b"\x1a\x45\xdf\xa3" + bytes(500))
    (folder / "sad" / "a_7.wav").symlink_to(folder / "nowhere.wav")
    (folder / "sad" / "up").symlink_to(folder)
    os.mkfifo(folder / "sad" / "a_8.wav")
    (folder / "sad" / "notes.txt").write_text("no sound")
    Path(os.fsdecode(os.fsencode(folder) + b"/sad/\xd5\xd4_1.wav")).write_bytes(b"x")
    with pytest.warns(UserWarning, match="left out 5 of 9"):
        table = load_folder(folder)
    assert [Path(path).name for path in table["path"]] == ["a_2.oga", "a_3.opus", "a_1.wav", "a_4"]
    problems = "\n".join(entry["problem"] for entry in table.attrs["left_out"])
    for words in ("not audio", "absent", "a pipe or a device", "not UTF-8; rename it"):
        assert words in problems
    table.to_csv(tmp_path / "table.csv")


MATROSKA = b"\x1a\x45\xdf\xa3"


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("c_v1.2", None, ""),
        ("c_v1", None, ""),
        ("c.bak", None, ""),
        ("c.txt", None, ""),  # whatever it is called
        ("c.3gp", b"\0\0\0\x20ftyp3gp4" + bytes(500), "not audio"),
        ("c.mp4", b"\0\0\0\x20ftypisom" + bytes(500), "not audio"),
        ("c_v1.2", MATROSKA + bytes(500), "not audio"),
        ("c_v1.2", b"version https://git-lfs.github.com/spec/v1\n", "git lfs"),
        ("c.flv", b"FLV\1\5\0" + bytes(500), "no sound by its name or its beginning"),
        ("c.avi", b"RIFF\0\0\1\0AVI " + bytes(500), "no sound by its name or its beginning"),
        ("c_v1.2", b"", "no sound by its name or its beginning"),
        ("notes.txt", b"who spoke\n", None),
        ("LICENSE", "Für alle".encode(), None),
        ("photo.jpg", b"\xff\xd8\xff\xe0\0\x10JFIF", None),
        ("list.pdf", b"%PDF-1.7\0", None),
        (".hidden.flv", b"FLV\1\5\0", None),
    ],
)
def test_a_file_of_any_name_is_used_or_told_or_evidently_no_sound(name, content, problem, tmp_path):
    folder = write_own(tmp_path / "own", ("calm/a_1.wav", "sad/b_1.wav"))
    file = write_noise(folder / "sad" / "new.wav", seed=9).rename(folder / "sad" / name)
    if content is not None:
        file.write_bytes(content)
    left_out = []
    listed = recordings.list_audio(folder, left_out=left_out)
    scans = recordings.scan_recordings([path for path in listed if path == file], folder)
    found = [entry["problem"] for entry in left_out] + [scan["problem"] for scan in scans]
    assert len(listed) == 2 + len(scans)
    assert found == [] if problem is None else len(found) == 1 and found[0].startswith(problem)
    assert problem != "" or found == [""]


@pytest.mark.parametrize("name", ["more", "aaa", "zzz"])
@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_link_to_what_is_read_already_is_told_and_the_original_kept(kind, name, tmp_path):
    folder = write_own(tmp_path / "own", ("angry/a_1.wav", "sad/b_1.wav", "sad/c_1.wav"))
    target = folder / "sad" if kind == "folder" else folder / "sad" / "b_1.wav"
    (folder / "angry" / f"{name}{target.suffix}").symlink_to(target)
    with pytest.warns(UserWarning, match="left out 1 of 4 .*\n.*leads to .*; remove the link"):
        table = load_folder(folder)
    assert table["emotion"].tolist() == ["angry", "sad", "sad"]
    assert len(table.attrs["left_out"]) == 1


def test_links_to_elsewhere_are_followed_once(tmp_path):
    write_own(tmp_path / "far", ("a_1.wav", "deep/a_2.wav"))
    folder = write_own(tmp_path / "own", ("sad/b_1.wav", ".store/c_1.wav"))
    (folder / "angry").symlink_to(tmp_path / "far")
    (folder / "fear").symlink_to(tmp_path / "far" / "deep")
    (folder / "calm").symlink_to(folder / ".store")
    (tmp_path / "far" / "back").symlink_to(folder)
    left_out = []
    names = [path.relative_to(folder) for path in recordings.list_audio(folder, left_out=left_out)]
    assert sorted(map(str, names)) == [
        *("angry/a_1.wav", "angry/deep/a_2.wav", "calm/c_1.wav", "sad/b_1.wav")
    ]
    assert [Path(entry["path"]).name for entry in left_out] == ["fear", "back"]


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is closed to root")
def test_a_folder_that_cannot_be_opened_is_told(tmp_path):
    folder = write_own(tmp_path / "own", ("sad/a_1.wav", "calm/a_2.wav", "angry/a_3.wav"))
    (folder / "angry").chmod(0)
    with pytest.warns(UserWarning, match="angry: cannot be opened"):
        load_folder(folder)


def test_a_name_that_results_cannot_carry_is_refused_at_once(tmp_path):
    with pytest.raises(ValueError, match="name='Meine Aufnahmen': use letters and digits"):
        load_folder(tmp_path, name="Meine Aufnahmen")


@pytest.mark.parametrize(
    ("name", "path", "utterance"),
    [
        ("savee", "ALL/DC_sa01.wav", "savee/AudioData/DC/sa01"),
        ("emodb", "EMODB/03a01Fa.wav", "emodb/wav/03a01Fa"),
        ("emodb", "03a01Fa.wav", "emodb/wav/03a01Fa"),
        ("cremad", "Crema/1001_DFA_ANG_XX.wav", "cremad/AudioWAV/1001_DFA_ANG_XX"),
        ("cremad", "AudioWAV/1040_ITH_SAD_X.wav", "cremad/AudioWAV/1040_ITH_SAD_XX"),
        ("cremad", "1040_ITH_SAD_X.wav", "cremad/AudioWAV/1040_ITH_SAD_XX"),
        ("ravdess", "flat/03-01-05-01-01-01-02.wav", "ravdess/Actor_02/03-01-05-01-01-01-02"),
        ("tess", "flat/OAF_back_angry.wav", "tess/OAF_angry/OAF_back_angry"),
        ("tess", "YAF_back_fear.wav", "tess/YAF_fear/YAF_back_fear"),
    ],
)
def test_mirrors_are_read_under_the_official_names(name, path, utterance, tmp_path):
    write_noise(tmp_path / "mirror" / path)
    table = load_corpus(name, folder=tmp_path / "mirror")
    assert table["utterance"].tolist() == [utterance]


@pytest.mark.parametrize("name", ["ravdess", "savee", "tess", "cremad"])
@pytest.mark.parametrize("above", ["", "all/", "/a/b c/"])
def test_each_published_name_is_known_without_its_folder(name, above, monkeypatch):
    monkeypatch.setattr(paths, "INDEX_DIR", paths.ROOT / "data" / "index")
    for official in pd.read_csv(paths.INDEX_DIR / f"{name}.csv")["path"]:
        folder, file = official.split("/")[-2:]
        flat = f"{folder}_{file}" if name == "savee" else file
        labels = parse_path(CORPORA[name], above + flat)
        assert labels == parse_path(CORPORA[name], official)
        assert labels["utterance"] == f"{name}/{official.removesuffix('.wav')}"


@pytest.mark.parametrize(
    ("name", "inner", "path"),
    [("savee", "AudioData", "DC/a01.wav"), ("ravdess", "Actor_01", "03-01-05-01-01-01-01.wav")],
)
def test_the_folder_that_holds_the_files_may_be_given(name, inner, path, tmp_path):
    write_noise(tmp_path / inner / path)
    assert load_corpus(name, folder=tmp_path / inner)["speaker"].tolist() in (["DC"], ["01"])


def test_songs_of_ravdess_come_when_asked_for():
    for seed, name in enumerate(("03-01-05-01-01-01-01", "03-02-05-01-01-01-01")):
        write_noise(paths.RAW_DIR / "ravdess" / "Actor_01" / f"{name}.wav", seed=seed)
    assert len(load_corpus("ravdess", include_song=True)) == 2
    flat = parse_path(CORPORA["ravdess"], "03-02-05-01-01-01-02.wav", include_song=True)
    assert flat["utterance"] == "ravdess/Actor_02/03-02-05-01-01-01-02"
    with pytest.warns(UserWarning, match="left out 1 of 2"):
        assert len(load_corpus("ravdess")) == 1


@pytest.mark.parametrize("include_song", [False, True])
@pytest.mark.parametrize(("speech", "song"), [(2, 0), (2, 3), (0, 2)])
def test_a_part_of_ravdess_is_told_whatever_is_sung(speech, song, include_song):
    names = [f"03-01-05-01-01-01-{actor:02d}" for actor in range(1, speech + 1)]
    names += [f"03-02-05-01-01-01-{actor:02d}" for actor in range(1, song + 1)]
    for seed, name in enumerate(names):
        write_noise(paths.RAW_DIR / "ravdess" / f"Actor_{name[-2:]}" / f"{name}.wav", seed=seed)
    if not speech and not include_song:
        with pytest.raises(ValueError, match="none of 2 files"):
            load_corpus("ravdess")
        return
    with pytest.warns(UserWarning) as caught:
        load_corpus("ravdess", include_song=include_song)
    told = [str(warning.message) for warning in caught if "of a part of it" in str(warning.message)]
    assert len(told) == 1 and f"{speech} of the 1440 recordings of RAVDESS are here" in told[0]


def test_the_record_of_a_corpus_says_what_is_spoken(monkeypatch):
    record = CORPORA["ravdess"]
    record = replace(record, pattern=record.pattern.replace("03-01-", "03-02-"), num_utterances=3)
    monkeypatch.setitem(CORPORA, "ravdess", record)
    for actor in (1, 2):
        name = f"Actor_0{actor}/03-02-05-01-01-01-0{actor}.wav"
        write_noise(paths.RAW_DIR / "ravdess" / name, seed=actor)
    with pytest.warns(UserWarning, match="2 of the 3 recordings of RAVDESS are here"):
        load_corpus("ravdess")


def test_emotions_by_two_names_become_one_and_are_told(tmp_path):
    folder = write_own(tmp_path / "own", ("fear/a_1.wav", "joy/a_2.wav", "fearful/a_3.wav"))
    with pytest.warns(UserWarning, match="taken for one: fear as fearful"):
        own = load_folder(folder)
    assert sorted(set(own["emotion"])) == ["fearful", "joy"]
    write_ravdess(paths.RAW_DIR / "ravdess", emotions=(3, 6))
    with pytest.warns(UserWarning, match="taken for one: joy as happy"):
        table = combine_corpora([own, load_corpus("ravdess")])
    assert sorted(set(table["emotion"])) == ["fearful", "happy"]


@pytest.mark.parametrize("labels", [("joy", "happiness"), ("Joy", "happy"), ("scared", "fear")])
@pytest.mark.parametrize("how", ["folders", "csv", "combined"])
def test_two_names_of_an_emotion_become_the_usual_one(how, labels, tmp_path):
    names = [f"{label}/a_{number}.wav" for number, label in enumerate([*labels, "sad"])]
    folder = write_own(tmp_path / "own", names)
    rows = [f"{name},{name.split('/')[0]},a\n" for name in names]
    (tmp_path / "labels.csv").write_text("path,emotion,speaker\n" + "".join(rows))
    usual = "fearful" if "fear" in labels else "happy"
    if how == "combined":
        tables = [
            load_folder(
                write_own(tmp_path / label, (f"{label}/a_1.wav", "sad/a_2.wav")), name=label
            )
            for label in labels
        ]
        assert {*tables[0]["emotion"]} == {labels[0].casefold(), "sad"}  # one name is kept
    with pytest.warns(UserWarning, match=f"taken for one: .* as {usual}"):
        if how == "combined":
            table = combine_corpora(tables)
        else:
            table = load_folder(folder, csv=tmp_path / "labels.csv" if how == "csv" else None)
    assert set(table["emotion"]) == {usual, "sad"}


def test_copies_under_two_names_of_one_emotion_are_no_contradiction(tmp_path):
    folder = write_own(tmp_path / "own", ("joy/a_1.wav", "sad/a_2.wav"))
    (folder / "happiness").mkdir()
    (folder / "happiness" / "a_1.wav").write_bytes((folder / "joy" / "a_1.wav").read_bytes())
    with pytest.warns(UserWarning, match="taken for one|left out 1 of 3"):
        table = load_folder(folder)
    assert table["emotion"].tolist() == ["happy", "sad"]


@pytest.mark.parametrize("content", [b"", b"not audio"])
def test_a_bad_first_copy_hides_no_good_one(content):
    folder = paths.RAW_DIR / "ravdess"
    first, *_ = write_ravdess(folder)
    copy = folder / "again" / first.parent.name / first.name
    copy.parent.mkdir(parents=True)
    copy.write_bytes(first.read_bytes())
    first.write_bytes(content)
    with pytest.warns(UserWarning, match="left out 1 of 5"):
        table = load_corpus("ravdess")
    assert len(table) == 4 and str(copy) in set(table["path"])
    assert [entry["path"] for entry in table.attrs["left_out"]] == [str(first)]


def test_a_poisoned_cache_of_scans_is_made_again():
    write_ravdess(paths.RAW_DIR / "ravdess")
    expected = load_corpus("ravdess")
    [cache] = paths.CACHE_DIR.iterdir()
    good = json.loads(cache.read_text())
    first = next(iter(good["scans"]))
    entry = good["scans"][first]
    for poison in (
        *(None, 5, [], {}, good["scans"], good | {"scans": None}),
        *(
            good | {"scans": good["scans"] | {first: changed}}
            for changed in (None, {"state": entry["state"]}, entry | {"scan": {"problem": ""}})
        ),
        *(
            good | {"scans": good["scans"] | {first: entry | {"scan": entry["scan"] | changed}}}
            for changed in ({"seconds": None}, {"seconds": -1.0}, {"sha256": "0"})
        ),
    ):
        cache.write_text(json.dumps(poison))
        with pytest.warns(UserWarning, match="this cache is damaged and is made again"):
            pd.testing.assert_frame_equal(load_corpus("ravdess"), expected)
    cache.write_text("[" * 100_000)
    with pytest.warns(UserWarning, match="this cache is damaged and is made again"):
        pd.testing.assert_frame_equal(load_corpus("ravdess"), expected)


def test_validation_reads_the_bytes_again():
    files = write_ravdess(paths.RAW_DIR / "ravdess")
    write_index("ravdess", paths.RAW_DIR / "ravdess")
    assert validate_corpus("ravdess").empty
    state, content = files[0].stat(), bytearray(files[0].read_bytes())
    content[2_000] ^= 1
    files[0].write_bytes(content)
    os.utime(files[0], ns=(state.st_atime_ns, state.st_mtime_ns))
    assert validate_corpus("ravdess")["problem"].tolist() == ["altered"]


def test_a_recording_that_changed_and_kept_its_time_is_read_again(tmp_path):
    files = write_ravdess(paths.RAW_DIR / "ravdess")
    before = load_corpus("ravdess")
    state, content = files[0].stat(), bytearray(files[0].read_bytes())
    content[2_000] ^= 1
    files[0].write_bytes(content)
    os.utime(files[0], ns=(state.st_atime_ns, state.st_mtime_ns))
    after = load_corpus("ravdess")
    changed = before["audio_hash"] != after["audio_hash"]
    assert changed.sum() == 1 and before.loc[changed, "path"].tolist() == [str(files[0])]


def test_open_corpus_takes_what_is_there(tmp_path):
    write_ravdess(paths.RAW_DIR / "savee")  # nothing of SAVEE
    with pytest.raises(FileNotFoundError, match="0 of the 480 recordings of SAVEE are here"):
        open_corpus("savee")
    for seed, name in enumerate(("a01", "n01")):
        write_noise(paths.RAW_DIR / "savee" / "AudioData" / "DC" / f"{name}.wav", seed=seed)
    with pytest.warns(UserWarning) as caught:
        table = open_corpus("savee")
    messages = "\n".join(str(warning.message) for warning in caught)
    assert "2 of the 480 recordings of SAVEE are here, so results are of a part of it" in messages
    assert len(table) == 2
    assert open_corpus(None, optional=True) is None
    with pytest.warns(UserWarning, match="emodb is left out: .* by hand"):
        assert open_corpus("emodb", optional=True) is None
    with pytest.raises(FileNotFoundError, match="by hand"):
        open_corpus("emodb")
    with pytest.raises(ValueError, match="unknown corpus 'mine'; .*or give the folder of your own"):
        open_corpus("mine")
    folder = write_own(tmp_path / "own", ("sad/a_1.wav", "calm/a_2.wav"))
    assert open_corpus("mine", folder=folder)["corpus"].tolist() == ["mine", "mine"]
    (folder / "labels.csv").write_text("path,emotion,speaker\nsad/a_1.wav,wut,a\n")
    with pytest.warns(UserWarning, match="labels.csv does not name it"):
        assert open_corpus("mine", csv=folder / "labels.csv")["emotion"].tolist() == ["wut"]


def test_an_optional_corpus_that_cannot_be_fetched_is_left_out(monkeypatch):
    archive = replace(CORPORA["tess"].archive, url="http://localhost:1/")
    monkeypatch.setitem(CORPORA, "tess", replace(CORPORA["tess"], archive=archive))
    with pytest.warns(UserWarning, match="tess is left out: .*check the network.*call again"):
        assert open_corpus("tess", optional=True) is None
    with pytest.raises(OSError, match="check the network"):
        open_corpus("tess")


def test_combined_corpora_keep_speakers_apart():
    write_ravdess(paths.RAW_DIR / "ravdess", actors=(1, 2))
    write_ravdess(paths.SAMPLE_DIR, actors=(1,), seed=50)
    (paths.SAMPLE_DIR / "Actor_01" / "odd.wav").touch()
    with pytest.warns(UserWarning, match="left out 1"):
        tables = [load_corpus("sample"), load_corpus("ravdess")]
    table = combine_corpora(tables)
    assert table["speaker"].unique().tolist() == ["ravdess/01", "ravdess/02", "sample/01"]
    assert table["utterance"].is_monotonic_increasing and isinstance(table.index, pd.RangeIndex)
    assert len(table) == 6 and len(table.attrs["left_out"]) == 1
    pd.testing.assert_frame_equal(combine_corpora([table]), table)
    with pytest.raises(ValueError, match="in two tables"):
        combine_corpora([tables[1], tables[1]])
    with pytest.raises(ValueError, match="no tables"):
        combine_corpora([])


def test_bytes_that_two_corpora_share_are_told_and_never_of_two_emotions(tmp_path):
    write_ravdess(paths.RAW_DIR / "ravdess", actors=(1, 2))  # neutral and angry of each
    names = ("neutral/me_1.wav", "angry/me_2.wav", "happy/me_3.wav", "sad/me_4.wav")
    folder = write_own(tmp_path / "own", names)
    copies = {
        "neutral/me_1.wav": "01/03-01-01-01-01-01-01",
        "sad/me_4.wav": "02/03-01-05-01-01-01-02",
    }
    for copy, original in copies.items():
        content = (paths.RAW_DIR / "ravdess" / f"Actor_{original}.wav").read_bytes()
        (folder / copy).write_bytes(content)
    tables = [load_corpus("ravdess"), load_folder(folder)]
    for order, kept in ((tables, "ravdess"), (tables[::-1], "my_corpus")):
        with pytest.warns(UserWarning, match="left out 3 of 8 recordings whose bytes are in two"):
            table = combine_corpora(order)
        assert len(table) == 5 and table["audio_hash"].is_unique
        assert table.groupby(["corpus", "emotion"]).size()[kept, "neutral"] == 2 - (
            kept != "ravdess"
        )
        problems = [entry["problem"] for entry in table.attrs["left_out"]]
        assert sum("as angry and sad; keep the one that is right" in p for p in problems) == 2
        assert sum("leave one of the two corpora out" in p for p in problems) == 1


# Fetching


class Server(http.server.ThreadingHTTPServer):
    """Serves one body; `cut` breaks the next answer off, `ranges` records what was asked for."""

    body, cut, honours_ranges, endless, headers = b"", None, True, False, {}

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.ranges = []
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/speech.zip?download=1"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server, asked = self.server, self.headers.get("Range")
        server.ranges.append(asked)
        start = int(asked.removeprefix("bytes=")[:-1]) if asked and server.honours_ranges else 0
        if server.endless:
            self.send_response(200)
            self.end_headers()
            with suppress(OSError):
                while True:
                    self.wfile.write(bytes(1 << 16))
            return
        if start >= len(server.body) > 0:
            self.send_error(416)
            return
        rest = server.body[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(rest)))
        for name, value in server.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(rest[: server.cut])
        server.cut = None

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = Server()
    yield server
    server.shutdown()
    server.server_close()


def zip_folder(folder: Path, *, above="", extra=()) -> bytes:
    archive = folder.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(folder.rglob("*.wav")):
            file.write(path, f"{above}{path.relative_to(folder).as_posix()}")
        for name in extra:
            file.writestr(name, b"x")
    return archive.read_bytes()


def publish(server, monkeypatch, body: bytes, *, name="ravdess", checked=True, **changes) -> None:
    server.body = body
    checksum = f"md5:{hashlib.md5(body).hexdigest()}"
    checks = {"num_bytes": len(body), "checksum": checksum} if checked else {}
    archive = replace(
        CORPORA[name].archive, url=server.url, **({"num_bytes": None, "checksum": None} | checks)
    )
    record = replace(CORPORA[name], **({"archive": archive, "num_utterances": 4} | changes))
    monkeypatch.setitem(CORPORA, name, record)


@pytest.fixture
def published(server, monkeypatch, tmp_path):
    write_ravdess(tmp_path / "published")
    body = zip_folder(tmp_path / "published", above="Speech/", extra=["__MACOSX/Speech/._a.wav"])
    publish(server, monkeypatch, body)
    return body


def test_fetch_downloads_checks_and_unpacks_once(server, published, tmp_path):
    folder = fetch_corpus("ravdess")
    assert folder == paths.RAW_DIR / "ravdess"
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    expected = [
        path.relative_to(tmp_path / "published") for path in write_ravdess(tmp_path / "published")
    ]
    assert names == sorted(["Actor_01", "Actor_02", *(path.as_posix() for path in expected)])
    assert len(load_corpus("ravdess")) == 4
    fetch_corpus("ravdess")
    assert server.ranges == [None]


def test_fetch_continues_an_interrupted_download(server, published, monkeypatch):
    monkeypatch.setattr(downloads, "CHUNK_BYTES", 1_000)
    folder = paths.RAW_DIR / "ravdess"
    server.cut = 20_000
    with pytest.raises(OSError, match="stopped after 20,000 bytes.*call again to continue"):
        fetch_corpus("ravdess")
    assert [path.name for path in folder.iterdir()] == ["Audio_Speech_Actors_01-24.zip.part"]
    fetch_corpus("ravdess")
    assert server.ranges == [None, "bytes=20000-"]
    assert len(load_corpus("ravdess")) == 4


def test_fetch_takes_no_more_than_was_published(server, published):
    server.endless = True
    with pytest.raises(ValueError, match=r"the server sends more than \d\d,\d\d\d bytes"):
        fetch_corpus("ravdess")
    assert list((paths.RAW_DIR / "ravdess").iterdir()) == []


def test_fetch_refuses_a_compressed_answer(server, published, monkeypatch):
    monkeypatch.setattr(Server, "headers", {"Content-Encoding": "gzip"})
    with pytest.raises(OSError, match="the server compresses what it sends"):
        fetch_corpus("ravdess")


def test_two_who_fetch_at_once_download_once(server, published, tmp_path):
    path = tmp_path / "a" / "speech.zip"
    checksum = f"md5:{hashlib.md5(published).hexdigest()}"
    with ThreadPoolExecutor(4) as pool:
        fetch = partial(downloads.download_archive, server.url, path, checksum=checksum)
        jobs = [pool.submit(fetch) for _ in range(4)]
    assert [job.result() for job in jobs] == [path] * 4
    assert path.read_bytes() == published and server.ranges == [None]


def test_two_who_fetch_a_corpus_at_once_put_it_in_place_once(server, published):
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(fetch_corpus, "ravdess") for _ in range(4)]
    assert [job.result() for job in jobs] == [paths.RAW_DIR / "ravdess"] * 4
    assert len(load_corpus("ravdess")) == 4 and server.ranges == [None]


def test_fetch_starts_again_where_ranges_are_not_served(server, published):
    server.honours_ranges, server.cut = False, 20_000
    with pytest.raises(OSError, match="call again"):
        fetch_corpus("ravdess")
    assert len(list(fetch_corpus("ravdess").rglob("*.wav"))) == 4


def test_fetch_refuses_another_file_than_published(server, published, monkeypatch):
    server.body = published[:-1] + b"?"
    with pytest.raises(ValueError, match="not the file that was published"):
        fetch_corpus("ravdess")
    assert list((paths.RAW_DIR / "ravdess").iterdir()) == []
    server.body = published + b"?"
    with pytest.raises(ValueError, match="sends more than "):
        fetch_corpus("ravdess")
    server.body = published
    assert len(list(fetch_corpus("ravdess").rglob("*.wav"))) == 4


def test_fetch_uses_an_archive_copied_by_hand(server, published):
    folder = paths.RAW_DIR / "ravdess"
    folder.mkdir(parents=True)
    (folder / CORPORA["ravdess"].archive.file_name).write_bytes(published)
    fetch_corpus("ravdess")
    assert server.ranges == [] and len(load_corpus("ravdess")) == 4


@pytest.mark.parametrize("given", [True, False], ids=["given", "in its place"])
@pytest.mark.parametrize("leftover", [b"", b"half an archive"], ids=["", "half an archive"])
def test_a_part_of_a_corpus_is_used_and_told_and_nothing_is_fetched(
    given, leftover, server, published, tmp_path
):
    folder = tmp_path / "some actors" if given else paths.RAW_DIR / "ravdess"
    write_ravdess(folder, actors=(2,))
    archive = folder / CORPORA["ravdess"].archive.file_name
    if leftover:
        archive.write_bytes(leftover)
    with pytest.warns(UserWarning, match="2 of the 4 .* are here, so results are of a part of it"):
        table = open_corpus("ravdess", folder=folder if given else None)
    assert set(table["speaker"]) == {"02"} and server.ranges == []
    archive.write_bytes(published)
    assert len(open_corpus("ravdess", folder=folder if given else None)) == 4
    assert server.ranges == []


@pytest.mark.parametrize("member", ["../evil.wav", "/evil.wav", "a/../../../evil.wav"])
def test_fetch_refuses_members_that_leave_the_folder(member, server, monkeypatch, tmp_path):
    write_ravdess(tmp_path / "published")
    publish(server, monkeypatch, zip_folder(tmp_path / "published", extra=[member]))
    with pytest.raises(ValueError, match="leaves the folder"):
        fetch_corpus("ravdess")
    assert not list(tmp_path.rglob("evil.wav")) and not Path("/evil.wav").exists()
    assert not list((paths.RAW_DIR / "ravdess").rglob("*.wav"))


def test_an_interrupted_extraction_leaves_nothing(server, published, monkeypatch):
    extract, calls = zipfile.ZipFile.extract, []

    def fail_at_third(self, *arguments):
        calls.append(1)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return extract(self, *arguments)

    monkeypatch.setattr(zipfile.ZipFile, "extract", fail_at_third)
    with pytest.raises(OSError, match="No space left"):
        fetch_corpus("ravdess")
    folder = paths.RAW_DIR / "ravdess"
    assert [path.name for path in folder.iterdir()] == ["Audio_Speech_Actors_01-24.zip"]
    fetch_corpus("ravdess")
    assert server.ranges == [None] and len(list(folder.rglob("*.wav"))) == 4


def test_a_full_disk_while_downloading_says_what_to_do(published, monkeypatch):
    def fail(url, part, most):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(downloads, "_append_rest", fail)
    with pytest.raises(OSError, match=r"No space left.*zip\.part: check .* free disk space"):
        fetch_corpus("ravdess")


def test_fetch_without_checksum_goes_by_the_index(server, monkeypatch, tmp_path):
    names = ["OAF_angry/OAF_back_angry", "OAF_Fear/OAF_food_fear", "OAF_neutral/OA_bite_neutral"]
    for seed, name in enumerate(names):
        write_noise(tmp_path / "official" / f"{name}.wav", seed=seed)
        write_noise(tmp_path / "flat" / f"{Path(name).name}.wav", seed=seed)
    write_index("tess", tmp_path / "official")
    body = zip_folder(tmp_path / "flat")
    publish(server, monkeypatch, body, name="tess", checked=False, num_utterances=3)
    folder = fetch_corpus("tess")
    assert all((folder / f"{name}.wav").is_file() for name in names)
    assert validate_corpus("tess").empty

    write_noise(tmp_path / "flat" / "OAF_food_fear.wav", seed=9)
    server.body = zip_folder(tmp_path / "flat")
    with pytest.raises(ValueError, match=r"only 2 of 3 recordings .* by hand from https"):
        fetch_corpus("tess", folder=tmp_path / "second")
    assert not list((tmp_path / "second").rglob("*.wav"))


def make_bomb(folder: Path) -> bytes:
    with zipfile.ZipFile(folder / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("Actor_01/a.wav", bytes(20_000_000))
    return (folder / "bomb.zip").read_bytes()


def make_encrypted(folder: Path) -> bytes:
    body = bytearray(zip_folder(folder))
    body[6] |= 1
    body[body.index(b"PK\x01\x02") + 8] |= 1
    return bytes(body)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: b"PK\x03\x04 not an archive", "not a zip file"),
        (lambda folder: zip_folder(folder)[:-30], "not a zip file"),
        (make_bomb, "bytes that unpack to 20,000,000"),
        (make_encrypted, "encrypted"),
    ],
)
def test_a_damaged_archive_is_named_and_leaves_nothing(make, words, tmp_path):
    write_ravdess(tmp_path / "speech")
    (tmp_path / "a.zip").write_bytes(make(tmp_path / "speech"))
    (tmp_path / "out").mkdir()
    damaged = pytest.raises(ValueError, match=rf"a\.zip: damaged archive.*{words}.*download it")
    with damaged, downloads.unpack_archive(tmp_path / "a.zip", tmp_path / "out"):
        pass
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [(errno.EINVAL, ValueError, "a.zip: damaged archive"), (errno.ENOSPC, OSError, "No space")],
)
def test_the_disk_is_told_from_the_archive(code, kind, words, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(code, os.strerror(code))

    write_ravdess(tmp_path / "speech")
    (tmp_path / "a.zip").write_bytes(zip_folder(tmp_path / "speech"))
    monkeypatch.setattr(zipfile.ZipFile, "extract", fail)
    with pytest.raises(kind, match=words), downloads.unpack_archive(tmp_path / "a.zip", tmp_path):
        pass


@settings(max_examples=60)
@given(data=st.data())
def test_any_damaged_archive_is_unpacked_or_refused(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("zips")
    write_noise(folder / "speech" / "a.wav", seconds=0.05)
    body = bytearray(zip_folder(folder / "speech"))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(body) - 1))
        body[place] = data.draw(st.integers(0, 255))
    (folder / "a.zip").write_bytes(body)
    with suppress(ValueError), downloads.unpack_archive(folder / "a.zip", folder) as unpacked:
        assert unpacked.is_dir()
    assert {path.name for path in folder.iterdir()} == {"speech", "speech.zip", "a.zip"}


@pytest.mark.parametrize(
    ("name", "how"),
    [("savee", "register"), ("emodb", "download.zip"), ("cremad", "git-lfs"), ("sample", "ships")],
)
def test_fetch_says_how_to_get_what_it_may_not_download(name, how):
    with pytest.raises(FileNotFoundError, match=how) as caught:
        fetch_corpus(name)
    assert CORPORA[name].example in str(caught.value)


def test_fetch_returns_at_once_when_the_corpus_is_there(monkeypatch):
    for number in range(4):
        write_noise(paths.RAW_DIR / "savee" / "AudioData" / "DC" / f"a0{number}.wav", seed=number)
    monkeypatch.setitem(CORPORA, "savee", replace(CORPORA["savee"], num_utterances=4))
    assert fetch_corpus("savee") == paths.RAW_DIR / "savee"


# Validation


def test_validation_tells_each_problem():
    folder = paths.RAW_DIR / "ravdess"
    files = write_ravdess(folder, actors=(1, 2, 3, 4))
    write_index("ravdess", folder)
    assert validate_corpus("ravdess").empty
    missing, altered, resampled, silent, unreadable, copied = files[:6]
    missing.unlink()
    write_noise(altered, seed=50)
    write_noise(resampled, seed=2, rate=8_000)
    write_noise(silent, peak=0)
    unreadable.write_text("not audio")
    copied.write_bytes(files[6].read_bytes())
    write_noise(folder / "Actor_01" / "song.wav", seed=51)
    write_noise(folder / "Actor_05" / "03-01-01-01-01-01-05.wav", seed=52)
    (folder / "copy" / "Actor_04").mkdir(parents=True)
    (folder / "copy" / "Actor_04" / files[7].name).write_bytes(files[7].read_bytes())
    report = validate_corpus("ravdess")
    assert list(report.columns) == ["path", "problem", "files", "detail"]
    assert set(report["files"]) == {1}
    found = {(row.path.split("/")[-1], row.problem) for row in report.itertuples()}
    assert found == {
        (missing.name, "missing"),
        (altered.name, "altered"),
        (resampled.name, "resampled"),
        (silent.name, "silent"),
        (silent.name, "altered"),
        (unreadable.name, "unreadable"),
        (copied.name, "altered"),
        (files[6].name, "duplicated"),
        ("song.wav", "extra"),
        ("03-01-01-01-01-01-05.wav", "extra"),
        (files[7].name, "extra"),
    }
    details = dict(zip(report["problem"], report["detail"], strict=True))
    assert details["resampled"] == "8000 Hz, published at 16000 Hz"
    assert details["duplicated"].startswith("the same bytes as Actor_03/")
    extra = report[report["problem"] == "extra"].set_index("path")["detail"]
    assert extra[f"copy/Actor_04/{files[7].name}"].startswith("a second copy of Actor_04/")
    assert "not a recording of RAVDESS" in extra["Actor_01/song.wav"]


def test_validation_ignores_the_case_of_folders():
    folder = paths.RAW_DIR / "tess"
    write_noise(folder / "OAF_Fear" / "OAF_food_fear.wav")
    write_index("tess", folder)
    (folder / "OAF_Fear").rename(folder / "OAF_fear")
    assert validate_corpus("tess").empty


def test_validation_without_an_index_counts():
    write_noise(paths.RAW_DIR / "emodb" / "wav" / "03a01Fa.wav")
    report = validate_corpus("emodb")
    told = "534 of 535 recordings are not here"
    assert report.loc[0].tolist() == [".", "missing", 534, told]
    assert report.loc[1:, ["path", "problem", "files"]].to_numpy().tolist() == [
        [".", "unchecked", 1]
    ]


def list_checksums(server, monkeypatch, files, **changes) -> None:
    """Publish a list of checksums of CREMA-D: a line has address, size and SHA-256."""
    lines = ["https://a.org/master/processedResults/summaryTable.csv\t9\t" + 64 * "0"]
    for path in files:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        lines.append(f"https://a.org/AudioWAV/{path.name}\t{path.stat().st_size}\t{digest}")
    server.body = "\n".join(lines).encode()
    facts = {"num_bytes": len(server.body), "url": server.url}
    facts["checksum"] = f"sha256:{hashlib.sha256(server.body).hexdigest()}"
    source = replace(CORPORA["cremad"].checksums, **(facts | changes))
    monkeypatch.setitem(CORPORA, "cremad", replace(CORPORA["cremad"], checksums=source))


@pytest.mark.parametrize("above", ["AudioWAV", "."], ids=["official", "flat"])
def test_a_part_of_cremad_is_used_and_validated_by_names_and_bytes(above, monkeypatch, server):
    monkeypatch.setattr(paths, "INDEX_DIR", paths.ROOT / "data" / "index")
    folder = paths.RAW_DIR / "cremad" / above
    for seed, name in enumerate(("1001_IEO_NEU_XX", "1040_ITH_SAD_X")):
        write_noise(folder / f"{name}.wav", seed=seed)
    list_checksums(server, monkeypatch, folder.glob("*_X.wav"))
    with pytest.warns(UserWarning, match="2 of the 7442 .*, so results are of a part of it"):
        assert len(open_corpus("cremad")) == 2
    write_noise(folder / "1002_TIE_NEU_XX.wav", seed=2)
    report = validate_corpus("cremad")
    missing = report.loc[report["problem"] == "missing", "path"]
    rest = report[report["problem"] != "missing"].set_index("problem")
    official = pd.read_csv(paths.INDEX_DIR / "cremad.csv")["path"]
    here = ["AudioWAV/1001_IEO_NEU_XX.wav", "AudioWAV/1040_ITH_SAD_XX.wav"]
    assert set(official) - set(missing) == set(here) and len(missing) == 7440
    assert rest.loc["extra", "path"].endswith("1002_TIE_NEU_XX.wav")
    assert rest.loc["extra", "detail"] == "not in the published corpus"
    assert rest.loc["unchecked", ["path", "files"]].tolist() == [".", 1]
    assert "no published checksum" in rest.loc["unchecked", "detail"] and len(rest) == 2


def test_an_altered_recording_of_cremad_is_told_by_the_published_checksums(monkeypatch, server):
    folder = paths.RAW_DIR / "cremad" / "AudioWAV"
    names = [f"1001_DFA_{emotion}_XX.wav" for emotion in ("ANG", "DIS", "FEA")]
    files = [write_noise(folder / name, seed=seed) for seed, name in enumerate(names)]
    list_checksums(server, monkeypatch, files)
    others = {"missing"}
    report = validate_corpus("cremad")
    assert set(report["problem"]) == others
    write_noise(files[1], seed=9)
    report = validate_corpus("cremad")
    altered = report[~report["problem"].isin(others)]
    assert altered[["path", "problem"]].to_numpy().tolist() == [[f"AudioWAV/{names[1]}", "altered"]]
    assert "other bytes than published" in altered["detail"].item()
    assert server.ranges == [None]  # downloaded once


@pytest.mark.parametrize(
    "changes",
    [{"checksum": "sha256:" + 64 * "0"}, {"num_bytes": 3}, {"url": "http://localhost:1/"}],
)
def test_without_the_published_checksums_nothing_is_said_to_be_checked(
    changes, monkeypatch, server
):
    folder = paths.RAW_DIR / "cremad" / "AudioWAV"
    files = [write_noise(folder / "1001_DFA_ANG_XX.wav")]
    list_checksums(server, monkeypatch, files, **changes)
    report = validate_corpus("cremad").set_index("problem")
    assert report.loc["unchecked", "files"] == 1
    assert "did not come, so no bytes were checked" in report.loc["unchecked", "detail"]
    assert not any(paths.CACHE_DIR.glob("crema_d_checksums.txt"))


def test_the_pairs_of_cremad_that_contradict_each_other_are_told_and_left_out(monkeypatch):
    record = replace(CORPORA["cremad"], checksums=None)
    monkeypatch.setitem(CORPORA, "cremad", record)
    pairs = (("1006_TIE", "HAP", "NEU"), ("1013_WSI", "DIS", "SAD"), ("1017_IWW", "ANG", "FEA"))
    folder = paths.RAW_DIR / "cremad" / "AudioWAV"
    write_noise(folder / "1001_DFA_ANG_XX.wav", seed=9)
    for seed, (start, one, other) in enumerate(pairs):
        original = write_noise(folder / f"{start}_{one}_XX.wav", seed=seed)
        original.with_name(f"{start}_{other}_XX.wav").write_bytes(original.read_bytes())
    with pytest.warns(UserWarning, match="cremad: left out 6 of 7 files"):
        table = load_corpus("cremad")
    assert table["utterance"].tolist() == ["cremad/AudioWAV/1001_DFA_ANG_XX"]
    problems = [entry["problem"] for entry in table.attrs["left_out"]]
    assert "as happy of 1006 and neutral of 1006; keep the one that is right" in problems[0]
    assert all("the same bytes as" in problem for problem in problems)
    report = validate_corpus("cremad")
    duplicated = report.loc[report["problem"] == "duplicated", "path"]
    second = (f"{start}_{max(one, other)}_XX" for start, one, other in pairs)
    assert duplicated.tolist() == [f"AudioWAV/{name}.wav" for name in second]


def test_validation_tells_what_else_lies_there():
    folder = paths.RAW_DIR / "ravdess"
    first, *_ = write_ravdess(folder)
    write_index("ravdess", folder)
    (folder / "again").symlink_to(first.parent)
    (folder / "clip.flv").write_bytes(b"FLV\1\0")
    report = validate_corpus("ravdess")
    assert report[["path", "problem"]].to_numpy().tolist() == [
        *(["again", "extra"], ["clip.flv", "extra"])
    ]


@pytest.mark.parametrize("name", COUNTS)
def test_committed_indices_fit_the_records(name):
    index = pd.read_csv(paths.ROOT / "data" / "index" / f"{name}.csv")
    corpus = CORPORA[name]
    labels = pd.DataFrame([parse_path(corpus, path) for path in index["path"]])
    assert len(labels) == corpus.num_utterances and labels["utterance"].is_unique
    assert labels["emotion"].value_counts().to_dict() == COUNTS[name]
    assert labels["speaker"].nunique() == corpus.num_speakers
    per_speaker = labels.groupby(["speaker", "emotion"]).size().groupby("emotion").nunique()
    assert (per_speaker == 1).all()


def test_the_index_of_cremad_follows_its_rule():
    corpus, emotions = CORPORA["cremad"], ("NEU", "HAP", "SAD", "ANG", "FEA", "DIS")
    sentences = ("TIE", "IOM", "IWW", "TAI", "MTI", "IWL", "ITH", "DFA", "ITS", "TSI", "WSI")
    said = [
        "IEO_NEU_XX",
        *(f"IEO_{emotion}_{level}" for emotion, level in product(emotions[1:], ("LO", "MD", "HI"))),
        *(f"{sentence}_{emotion}_XX" for sentence, emotion in product(sentences, emotions)),
    ]
    absent = {"1002_TIE_NEU_XX", "1076_ITS_NEU_XX"}
    for start, emotion in product(("1008_WSI", "1009_MTI", "1019_ITH"), emotions):
        absent.add(f"{start}_{emotion}_XX")
    names = [f"{speaker}_{words}" for speaker, words in product(corpus.genders, said)]
    index = pd.read_csv(paths.ROOT / "data" / "index" / "cremad.csv")
    official = index["path"].str.removeprefix("AudioWAV/").str.removesuffix(".wav").tolist()
    assert official == [name for name in names if name not in absent]
    assert len(official) == corpus.num_utterances == 7442
    emotion = pd.Series([parse_path(corpus, path)["emotion"] for path in index["path"]])
    assert set(emotion.value_counts()) == {1087, 1271} and (emotion == "neutral").sum() == 1087


@pytest.mark.parametrize(
    ("number", "name"),  # lines of SentenceFilenames.csv
    [
        *((1, "1001_IEO_NEU_XX"), (99, "1002_TIE_HAP_XX"), (650, "1009_IEO_NEU_XX")),
        *((690, "1009_IWL_NEU_XX"), (1516, "1019_DFA_NEU_XX"), (3234, "1040_ITH_SAD_XX")),
        *((6174, "1076_MTI_SAD_XX"), (6196, "1076_ITS_HAP_XX"), (7442, "1091_WSI_DIS_XX")),
    ],
)
def test_recordings_of_cremad_have_the_published_numbers(number, name):
    index = pd.read_csv(paths.ROOT / "data" / "index" / "cremad.csv")
    assert index.loc[number - 1, "path"] == f"AudioWAV/{name}.wav"


def test_the_sample_is_whole(monkeypatch):
    monkeypatch.setattr(paths, "INDEX_DIR", paths.ROOT / "data" / "index")
    folder = paths.ROOT / "data" / "sample"
    table = load_corpus("sample", folder=folder)
    assert table["emotion"].value_counts().to_dict() == COUNTS["sample"]
    assert table.groupby("gender")["speaker"].nunique().to_dict() == {"female": 4, "male": 4}
    assert validate_corpus("sample", folder=folder).empty


# Real recordings


@pytest.mark.speech
@pytest.mark.parametrize("name", ["ravdess", "savee", "tess"])
def test_real_corpora_are_whole(name, speech_folder):
    table = load_corpus(name, folder=speech_folder(name))
    assert table["emotion"].value_counts().to_dict() == COUNTS[name]
    assert len(table) == CORPORA[name].num_utterances
    assert table["seconds"].between(1.2, 7.2).all()
    assert table.attrs["left_out"] == []


@pytest.mark.speech
def test_real_ravdess_has_its_known_duplicate(speech_folder, monkeypatch):
    monkeypatch.setattr(paths, "INDEX_DIR", paths.ROOT / "data" / "index")
    report = validate_corpus("ravdess", folder=speech_folder("ravdess"))
    duplicated = report[report["problem"] == "duplicated"]
    assert duplicated["path"].tolist() == ["Actor_07/03-01-03-01-02-02-07.wav"]
    assert set(report["problem"]) <= {"duplicated", "resampled"}


def test_own_recordings_are_not_filed_as_a_known_corpus(tmp_path):
    load_csv(tmp_path, CSV)
    with pytest.raises(ValueError, match=r"anna_1\.wav is no recording of RAVDESS, and would be"):
        open_corpus("ravdess", folder=tmp_path / "own", csv=tmp_path / "labels.csv")


def test_nothing_is_fetched_into_a_folder_of_other_recordings(server, tmp_path):
    write_own(tmp_path / "own", ("angry/anna_1.wav", "happy/bob_1.wav"))
    with pytest.raises(FileNotFoundError, match="no recording of RAVDESS among 2, such as anna_1"):
        open_corpus("ravdess", folder=tmp_path / "own")
    assert server.ranges == []


@pytest.mark.parametrize(
    ("one", "other"),
    [("Anna", "Anna\u200b"), ("Anna B", "Anna  B"), ("Anna", "\uff21nna"), ("a\u0301", "\u00e1")],
)
def test_a_name_with_what_nobody_sees_is_that_name(one, other, tmp_path):
    table = load_csv(tmp_path, CSV.replace("anna\n", f"{one}\n").replace("bob\n", f"{other}\n"))
    assert len(set(table["speaker"])) == 1
    table = load_csv(tmp_path, CSV.replace(",angry", ",sad").replace(",happy", ",SAD\u200b"))
    assert set(table["emotion"]) == {"sad"}


def test_labels_that_say_nothing_are_missing(tmp_path):
    with pytest.warns(UserWarning, match="left out 1 of 2(.|\n)*no speaker; fill it in"):
        table = load_csv(tmp_path, CSV.replace(",bob", ",nan"))
    assert table["speaker"].tolist() == ["anna"]


def test_speakers_that_differ_in_zeros_are_told(tmp_path):
    with pytest.warns(UserWarning, match="speakers 01 and 1 differ in upper case or zeros alone"):
        load_csv(tmp_path, CSV.replace(",anna", ",01").replace(",bob", ",1"))


@pytest.mark.parametrize("parts", [("female", "male"), ("session1", "session2"), ("F", "M")])
def test_sexes_and_sessions_are_no_speakers(parts, tmp_path):
    names = [f"{part}/{what}/{n}.wav" for part in parts for n, what in enumerate(("sad", "calm"))]
    with pytest.warns(UserWarning, match="4 of 4 file names have no '_' after a speaker's name"):
        table = load_folder(write_own(tmp_path / "own", names))
    assert table["speaker"].nunique() == 4


def test_numbered_files_are_told_not_to_name_their_speakers(tmp_path):
    names = ["angry/001_anna.wav", "angry/002_bob.wav", "sad/003_anna.wav", "sad/004_bob.wav"]
    with pytest.warns(UserWarning, match="4 of 4 file names begin with a number that no other has"):
        load_folder(write_own(tmp_path / "own", names))


def test_an_audit_names_a_missing_file_as_the_list_does(tmp_path):
    write_noise(tmp_path / "x" / "1.wav")
    (tmp_path / "split.csv").write_text("path,part\nx\\1.wav,train\ny\\2.wav,test\n")
    absent = "\n".join(audit(tmp_path / "split.csv").not_looked_at)
    assert r"y\2.wav" in absent and "y/2.wav" not in absent and "1.wav" not in absent


def test_a_row_of_a_csv_is_told_by_its_line(tmp_path):
    with pytest.raises(ValueError, match="row 6 has more cells than the header"):
        load_csv(tmp_path, "sep=,\n\n" + CSV + "a.wav,sad,bob,more\n")
