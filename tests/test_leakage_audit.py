"""The audit of a split: every planted fault is found by its kind, and nothing where none is."""

import re

import numpy as np
import pandas as pd
import pytest
import soundfile
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from common.audio import SAMPLE_RATE_HERTZ, load_waveform, resample_waveform
from common.augmentation import AddNoise
from common.corpora import load_corpus
from common.fingerprints import compute_fingerprint, find_same_sound
from common.leak_checks import check_support
from common.leakage import audit, main
from common.paths import INDEX_DIR
from common.splits import SPEAKER_FOLDS, Fold, make_folds
from tools.split_files import COLUMNS, PROTOCOLS, SPLITS_DIR, tabulate_split

PAIR = ["train", "test"]
PARTS = {"a": "train", "b": "train", "c": "validation", "d": "test"}


def make_sound(seed: int) -> np.ndarray:
    """1.6 s of a tone that glides like a voice, with a spectrum and pauses of its own."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(1.6 * SAMPLE_RATE_HERTZ)) / SAMPLE_RATE_HERTZ
    points = np.linspace(0, 1.6, 9)
    pitch = np.interp(time, points, rng.uniform(90, 300, 9))
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE_HERTZ
    sound = np.zeros_like(time)
    for number in range(1, 14):
        sound += np.interp(time, points, rng.exponential(1, 9)) * np.sin(number * phase) / number
    sound *= np.interp(time, points, rng.uniform(0.05, 1, 9))
    return (0.3 * sound / np.abs(sound).max()).astype(np.float32)


def write(path, waveform, rate=SAMPLE_RATE_HERTZ, **kind) -> str:
    path.parent.mkdir(exist_ok=True)
    soundfile.write(path, waveform, rate, **kind)
    return str(path)


@pytest.fixture
def table(tmp_path) -> pd.DataFrame:
    """Four speakers, two sentences, two emotions; each speaker in one part."""
    rows = []
    for number in range(16):
        speaker, sentence, label = "abcd"[number // 4], "01"[number % 2], "xy"[number // 2 % 2]
        path = write(tmp_path / speaker / f"{sentence}{label}.wav", make_sound(number))
        rows.append((path, speaker, sentence, label, PARTS[speaker]))
    return pd.DataFrame(rows, columns=["path", "speaker", "sentence", "label", "part"])


def find_kinds(report) -> dict[str, str]:
    return dict(zip(report.findings["kind"], report.findings["severity"], strict=True))


def add(table, path, *, part="train", label=None) -> pd.DataFrame:
    """Add a copy of the last row, which is tested, to a part, as somebody else's."""
    speaker = {"train": "a", "validation": "c", "test": "d"}[part]
    copy = table.iloc[[-1]].assign(path=path, part=part, speaker=speaker)
    return pd.concat([table, copy.assign(label=label or table["label"].iloc[-1])])


def test_a_clean_split_has_a_note_on_its_sentences_alone(table):
    report = audit(table)
    assert find_kinds(report) == {"sentences in train and test": "note"}
    assert report.clean
    assert str(report).startswith("No leak was found.")
    assert report.not_looked_at == ()


COPIES = {
    "noise": lambda sound: (AddNoise(15, 15)(sound, np.random.default_rng(0)), {}),
    "soft and trimmed": lambda sound: (0.05 * sound[3000:], {}),
    "telephone": lambda sound: (resample_waveform(sound, 16_000, 8_000), {"rate": 8_000}),
    "mp3": lambda sound: (sound, {"format": "MP3"}),
}


@pytest.mark.parametrize("kind", COPIES)
@pytest.mark.parametrize("part", ["train", "validation"])
def test_near_duplicates_are_found_in_any_dress(table, tmp_path, kind, part):
    sound, how = COPIES[kind](load_waveform(table["path"].iloc[-1]))
    path = write(tmp_path / "other" / "unlike.wav", sound, **how)
    found = find_kinds(audit(add(table, path, part=part)))
    assert found.pop(f"near duplicates in {part} and test") == "leak"
    assert found == {"sentences in train and test": "note"}


def test_the_same_bytes_are_found(table, tmp_path):
    path = tmp_path / "other" / "unlike.wav"
    path.parent.mkdir()
    path.write_bytes((tmp_path / "d" / "1y.wav").read_bytes())
    found = find_kinds(audit(add(table, path)))
    assert found["recordings in train and test"] == "leak"
    assert "near duplicates in train and test" not in found


def test_the_test_part_as_validation_is_found(table):
    tested = table[table["part"] == "test"]
    report = audit(pd.concat([table, tested.assign(part="val")]), sound=False)
    found = find_kinds(report)
    assert found["recordings in validation and test"] == "leak"
    assert found["speakers in validation and test"] == "leak"
    row = report.findings.set_index("kind").loc["recordings in validation and test"]
    assert row["count"] == 4 and "chosen" in row["meaning"]


def test_copies_are_found_by_their_names(table):
    tested = table.iloc[[-1]]
    for name in ("1y_noise2.wav", "1y-aug.wav", "1y (1).wav", "1Y_pitch_shift.flac"):
        copy = tested.assign(path=f"elsewhere/{name}", part="train")
        found = find_kinds(audit(pd.concat([table, copy]), sound=False))
        assert found["copies by their names in train and test"] == "leak", name
    other = tested.assign(path="elsewhere/1yes.wav", speaker="a", part="train")
    assert audit(pd.concat([table, other]), sound=False).clean


@pytest.mark.parametrize("name", ["happy ({}).wav", "noise_{}.wav", "pitch{}.wav", "({}).wav"])
def test_numbered_recordings_are_no_copies_of_each_other(name):
    paths = [f"sound/{name.format(number)}" for number in range(6)]
    split = pd.DataFrame({"path": paths, "label": "happy", "part": ["train", "test"] * 3})
    assert find_kinds(audit(split, sound=False)) == {}


def test_a_corpus_unpacked_twice_is_found():
    names = [f"OAF_happy/OAF_{word}_happy.wav" for word in ("back", "bar", "base", "bath")]
    paths = [f"{folder}/{name}" for folder in ("TESS", "TESS/TESS") for name in names]
    split = pd.DataFrame({"path": paths, "part": ["train", "test"] * 2 + ["test", "train"] * 2})
    found = find_kinds(audit(split, sound=False))
    assert found == {"copies by their names in train and test": "leak"}
    hashes = split.assign(hash=["a", "b", "c", "d"] * 2)
    assert find_kinds(audit(hashes, sound=False))["recordings in train and test"] == "leak"


def test_sound_tracks_of_videos_are_copies_of_the_speech():
    names = ["Actor_01/03-01-05-01-02-01-01.wav", "Actor_01/01-01-05-01-02-01-01.mp4"]
    split = pd.DataFrame({"path": names, "part": ["train", "test"]})
    found = find_kinds(audit(split, sound=False))
    assert found == {"copies by their names in train and test": "leak"}


def test_heard_speakers_are_found(table):
    table.loc[0, "speaker"] = "d"
    assert find_kinds(audit(table, sound=False))["speakers in train and test"] == "leak"


def test_a_heard_validation_speaker_is_a_warning(table):
    table.loc[0, "part"] = "validation"
    report = audit(table, sound=False)
    assert find_kinds(report)["speakers in train and validation"] == "warning"
    assert not report.clean


def test_labels_that_copies_lost_are_found(table, tmp_path):
    path = write(tmp_path / "d" / "unlike.wav", 0.5 * load_waveform(table["path"].iloc[-1]))
    found = find_kinds(audit(add(table, path, part="test", label="x")))
    assert found["one sound with several labels"] == "warning"
    assert found["copies within the test part"] == "warning"


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({"neutral": 20, "calm": 40, "angry": 40}, ""),
        ({"neutral": 19, "calm": 38, "angry": 39}, "no multiple of what one speaker says"),
        ({"neutral": 20, "calm": 32}, "no multiple"),
        ({"neutral": 144, "calm": 288}, "more than the 24 speakers"),
    ],
)
def test_class_support_tells_whole_speakers(counts, words):
    assert words in check_support(counts, "ravdess")
    assert bool(words) == bool(check_support(counts, "ravdess"))
    assert check_support(counts, "my own") == ""
    labels = [label for label, count in counts.items() for _ in range(count)]
    split = pd.DataFrame({"label": ["calm", *labels], "part": ["train"] + ["test"] * len(labels)})
    split["path"] = [f"{number}.wav" for number in range(len(split))]
    kind = "class support that whole speakers do not have"
    found = find_kinds(audit(split.assign(dataset="ravdess"), sound=False))
    assert (kind in found) == bool(words)


def test_the_scope_of_a_scaler_is_told(table):
    features = np.random.default_rng(0).normal(size=(16, 5, 3)) * [1, 10, 100]
    features[8:] += 1
    settings = {"sound": False, "features": features}
    for rows, words in ((np.arange(8), None), (np.arange(16), "all rows"), (np.arange(4), "other")):
        statistics = features[rows].mean(axis=(0, 1)), features[rows].std(axis=(0, 1))
        findings = audit(table, statistics=statistics, **settings).findings.set_index("kind")
        if words is None:
            assert "scaler not of the training rows" not in findings.index
        else:
            assert words in findings.loc["scaler not of the training rows", "examples"]
    with pytest.raises(ValueError, match="statistics without features"):
        audit(table, sound=False, statistics=statistics)
    with pytest.raises(ValueError, match=r"statistics of shape \(2, 2\) for features of 3 bands"):
        audit(table, statistics=(np.zeros(2), np.ones(2)), **settings)


def test_a_score_above_all_that_is_published_is_a_warning(table):
    kind = "a score above all that is published for speakers never heard"
    assert kind in find_kinds(audit(table, sound=False, corpus="RAVDESS", score=0.96))
    assert kind not in find_kinds(audit(table, sound=False, corpus="ravdess", score=0.75))


@pytest.mark.parametrize("protocol", ["speaker_5fold", "leave_one_speaker_out"])
def test_nothing_is_found_on_our_own_folds(protocol):
    table = load_corpus("sample")
    report = audit(table, folds=make_folds(table, protocol), sound=False)
    assert find_kinds(report) == {"sentences in train and test": "note"}


def test_random_folds_are_said_to_know_their_speakers():
    table = load_corpus("sample")
    report = audit(table, folds=make_folds(table, "random_5fold"), sound=False)
    assert find_kinds(report)["speakers in train and test"] == "leak"


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("123")), min_size=4))
def test_shared_speakers_are_counted_exactly(rows):
    split = pd.DataFrame(rows, columns=["speaker", "fold"])
    assume(len({fold for _, fold in rows}) > 1)
    split["hash"] = split.index.astype(str)
    shared = sum(len(set(folds)) > 1 for _, folds in split.groupby("speaker")["fold"])
    findings = audit(split).findings.set_index("kind")
    kind = "speakers in train and test"
    assert (findings.loc[kind, "count"] if kind in findings.index else 0) == shared


def test_no_two_of_many_sounds_are_taken_for_one():
    prints = [compute_fingerprint(make_sound(seed)) for seed in range(60)]
    assert find_same_sound(prints).empty
    pair = find_same_sound([prints[0], prints[1], prints[0]])
    assert pair[["first", "second", "bit_error_rate"]].to_numpy().tolist() == [[0, 2, 0]]


def test_the_shortest_recording_has_a_fingerprint():
    bits, energy = compute_fingerprint(make_sound(0)[:800])
    assert bits.shape == (len(energy), 32) and set(np.unique(bits)) <= {-1, 1}


def test_command_tells_by_its_exit_status(table, tmp_path, capsys):
    csv = tmp_path / "split.csv"
    table.assign(path=table["path"].str.replace(f"{tmp_path}/", "")).to_csv(csv, index=False)
    assert main([str(csv)]) == 0
    assert "No leak was found." in capsys.readouterr().out
    assert main([str(csv), "--corpus", "ravdess", "--score", "0.96", "--no-sound"]) == 1
    assert "A leak is likelier than a discovery." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no such file; give a CSV"),
        ("speaker,part\na,train\n", "neither 'path' nor 'hash' among its columns"),
        ("path\na.wav\n", "no column 'part' or 'fold'"),
        ("path,part\na.wav,practice\n", "part 'practice' is not understood"),
        (
            "path,part\na.wav,train\n,test\n",
            "split.csv, row 3: neither path nor hash; name its recording",
        ),
        ("path,part\n", "no rows"),
        ("", "no rows"),
        ("path,part\na.wav,train,x\n", "row 2 has more cells"),
    ],
)
def test_command_refuses_what_it_cannot_use(tmp_path, capsys, content, words):
    csv = tmp_path / "split.csv"
    if content is not None:
        csv.write_text(content)
    assert main([str(csv)]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("x,train,1\nx,test,\nb,train,1\n", "split.csv, row 3: no fold; fill it in"),
        ("x,,1\ny,test,1\n", "split.csv, row 2: no part; fill it in"),
        ("x,train,1\ny,train,1\n", "no row is in test, so there is nothing to compare"),
        ("x,test,1\ny,val,1\n", "no row is in train"),
        ("x,train,1\ny,test,2\n", "fold 1 of 2: no row is in test"),
    ],
)
def test_what_leaves_nothing_to_compare_is_refused(rows, words, tmp_path):
    (tmp_path / "split.csv").write_text("hash,part,fold\n" + rows)
    with pytest.raises(ValueError, match=re.escape(words)):
        audit(tmp_path / "split.csv")


@pytest.mark.parametrize(
    ("folds", "words"),
    [
        ([], "nothing to compare"),
        ([Fold(1, np.arange(4), np.arange(0), np.array([50]))], "rows than 0 to 15"),
    ],
)
def test_folds_of_another_table_are_refused(table, folds, words):
    with pytest.raises(ValueError, match=words):
        audit(table, folds=folds, sound=False)


def test_one_way_to_write_it_is_enough():
    """Capitals of names and hashes, zeros before numbers, separators and encodings."""
    split = pd.DataFrame({"hash": ["ab", "cd"], "speaker": ["Anna", "anna"], "part": PAIR})
    assert find_kinds(audit(split)) == {"speakers in train and test": "leak"}
    assert find_kinds(audit(split.assign(speaker=["01", "1"]))) == {
        "speakers in train and test": "leak"
    }
    twins = split.assign(hash=["AB", "ab"], speaker=["a", "b"])
    assert find_kinds(audit(twins))["recordings in train and test"] == "leak"
    same = pd.DataFrame({"hash": "a", "label": ["Angry", "anger"], "part": "test"})
    same = pd.concat([same, pd.DataFrame({"hash": ["b"], "label": ["sad"], "part": ["train"]})])
    assert "one sound with several labels" not in find_kinds(audit(same))


@pytest.mark.parametrize(("separator", "encoding"), [(";", "utf-16"), ("\t", "cp1252")])
@pytest.mark.filterwarnings("ignore:.*not UTF-8")
def test_a_split_is_read_as_spreadsheets_write_it(separator, encoding, tmp_path):
    text = "hash,speaker,part\na,Zoë,train\nb,zoë,test\n".replace(",", separator)
    (tmp_path / "split.csv").write_bytes(text.encode(encoding))
    assert find_kinds(audit(tmp_path / "split.csv")) == {"speakers in train and test": "leak"}


def test_what_rows_do_not_tell_is_said(tmp_path):
    split = pd.DataFrame({"path": ["none_1.wav", "none_2.wav"], "speaker": "", "part": PAIR})
    report = audit(split, folder=tmp_path)
    assert report.looked_at == ("names",)
    assert {"bytes, which no row tells", "speakers, which no row tells"} <= {*report.not_looked_at}
    half = audit(split.assign(speaker=["", "a"], corpus=""), folder=tmp_path)
    assert "speakers of 1 of 2 rows" in half.looked_at


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"score": 60, "corpus": "ravdess"}, "score=60: give UAR or WA from 0 to 1"),
        ({"score": np.nan}, "score=nan"),
        ({"corpus": "RAVDES"}, "corpus='RAVDES' is unknown; choose from"),
    ],
)
def test_settings_that_make_no_sense_are_refused(table, settings, words):
    with pytest.raises(ValueError, match=words):
        audit(table, sound=False, **settings)


def test_a_score_that_nothing_is_known_of_is_said(table):
    assert any(
        "the score" in reason for reason in audit(table, score=0.9, sound=False).not_looked_at
    )


def test_a_column_that_is_there_twice_is_refused(table):
    with pytest.raises(ValueError, match="the table: two columns 'part'"):
        audit(table.assign(Part="test"), sound=False)


def test_what_cannot_be_heard_is_said(table):
    table.loc[3, "path"] = "nowhere.wav"
    report = audit(table)
    told = "near duplicates of 1 recordings (the table, row 3: nowhere.wav: absent"
    assert report.not_looked_at[0].startswith(told)
    assert "Not looked at: near duplicates of 1" in str(report)


def test_a_name_that_no_file_can_have_is_told_by_its_row(tmp_path, capsys):
    write(tmp_path / "a.wav", make_sound(0))
    csv = tmp_path / "split.csv"
    csv.write_text(f"path,part\na.wav,train\n{'b' * 5_000}.wav,test\n")
    assert main([str(csv)]) == 0
    out = capsys.readouterr().out
    assert f"near duplicates of 1 recordings ({csv}, row 3: " in out and "too long" in out
    assert "bytes of 1 of 2 rows" in out


def test_paths_as_windows_writes_them_are_found(tmp_path):
    names = [r"train\a.wav", "test/a.wav"]
    for name in ("train/a.wav", "test/a.wav"):
        write(tmp_path / name, make_sound(0))
    split = pd.DataFrame({"path": names, "part": PAIR, "label": "x"})
    report = audit(split, folder=tmp_path)
    assert report.not_looked_at[0].startswith("speakers") and "sound" in report.looked_at
    assert find_kinds(report)["recordings in train and test"] == "leak"


def test_rows_without_a_path_are_said_to_be_why_nothing_is_heard(table):
    table = table.assign(hash=range(len(table)))
    table.loc[[2, 5], "path"] = None
    told = "near duplicates, 2 of 16 rows have no path, such as the table, row 2; fill it in"
    assert told in audit(table).not_looked_at
    assert "near duplicates, sound is off" in audit(table, sound=False).not_looked_at


SPLITS = sorted(SPLITS_DIR.glob("*.csv"))


def test_split_files_are_there_for_each_corpus():
    assert {path.stem.split("_")[0] for path in SPLITS} == set(PROTOCOLS)


@pytest.mark.parametrize("path", SPLITS, ids=lambda path: path.stem)
def test_split_files_are_of_the_indexed_recordings_and_clean(path):
    split = pd.read_csv(path, dtype=str)
    corpus, _, protocol = path.stem.partition("_")
    index = pd.read_csv(INDEX_DIR / f"{corpus}.csv", dtype=str)
    assert sorted(split["audio_hash"]) == sorted(index["sha256"])
    assert split.columns.tolist() == COLUMNS
    if (published := SPEAKER_FOLDS.get((corpus, int(protocol[-5])))) if "fold" in protocol else "":
        tested = split.groupby("fold")["speaker"].agg(lambda own: " ".join(sorted(set(own))))
        assert ", ".join(tested.sort_index()) == published
    report = audit(path)
    assert report.clean == (protocol != "sentence_out")


def test_a_split_file_says_which_fold_tests_a_row():
    table = load_corpus("sample")
    split = tabulate_split(table, "leave_one_speaker_out")
    assert split.groupby("speaker")["fold"].nunique().eq(1).all()
    assert sorted(split["fold"].unique()) == list(range(1, 9))
