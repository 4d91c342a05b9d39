"""Protocols: published folds, every row once, nothing shared, clear refusals."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from common.corpora import combine_corpora
from common.dealing import _QuickStratifiedGroupKFold as QuickStratifiedGroupKFold
from common.splits import (
    PROTOCOLS,
    Fold,
    SplitProtocol,
    check_folds,
    describe_folds,
    fit_protocols,
    make_folds,
)
from common.style import name_protocol, rank_protocol
from tests.speech_tables import EIGHT, make_ravdess, make_speakers

RAVDESS = make_ravdess()
# Six actors, for the random protocols, whose time grows with the rows.
FEW = RAVDESS[RAVDESS["speaker"] <= "06"].reset_index(drop=True)
SAVEE = make_speakers(4, per_emotion=15, emotions=EIGHT[2:], corpus="savee").assign(
    statement="", gender="male"
)
TESS = make_speakers(2, per_emotion=20, emotions=EIGHT[2:], corpus="tess").assign(gender="female")
SPEAKER_FOLD = ("speaker_5fold", "speaker_6fold", "leave_one_speaker_out")
K_FOLD = (*SPEAKER_FOLD, "random_5fold", "sentence_out", "leave_one_corpus_out")
CORPORA = combine_corpora(
    [
        table.assign(audio_hash=table["utterance"])
        for table in (FEW[~FEW["emotion"].isin(EIGHT[:2])], SAVEE, TESS)
    ]
)


def choose_table(protocol: str):
    if protocol == "leave_one_corpus_out":
        return CORPORA
    return RAVDESS if PROTOCOLS[protocol].speaker_independent else FEW


def list_speakers(table, rows) -> set[str]:
    return set(table["speaker"].iloc[rows])


@pytest.mark.parametrize("protocol", K_FOLD)
@pytest.mark.parametrize("seed", [0, 1])
def test_every_row_is_tested_once(protocol, seed):
    table = choose_table(protocol)
    folds = make_folds(table, protocol, seed=seed)
    assert sorted(np.concatenate([fold.test for fold in folds])) == list(range(len(table)))
    for fold in folds:
        parts = np.concatenate([fold.train, fold.validation, fold.test])
        assert sorted(parts) == list(range(len(table)))


def test_joined_validation_rows_are_trained_on_and_test_rows_are_not():
    for fold in make_folds(RAVDESS, "speaker_5fold"):
        joined = fold.join_validation()
        assert joined.train.tolist() == sorted([*fold.train, *fold.validation])
        assert not len(joined.validation)
        np.testing.assert_array_equal(joined.test, fold.test)


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [
        (
            "speaker_5fold",
            "2 5 14 15 16, 3 6 7 13 18, 10 11 12 19 20, 8 17 21 23 24, 1 4 9 22",
        ),
        (
            "speaker_6fold",
            "1 11 20 21, 4 10 12 14, 8 9 19 23, 3 5 7 24, 2 15 16 18, 6 13 17 22",
        ),
    ],
)
def test_ravdess_has_its_published_folds(protocol, expected):
    tested = [list_speakers(RAVDESS, fold.test) for fold in make_folds(RAVDESS, protocol)]
    groups = [group.split() for group in expected.split(",")]
    assert tested == [{f"{int(actor):02d}" for actor in group} for group in groups]


@pytest.mark.parametrize("protocol", SPEAKER_FOLD)
def test_support_is_a_multiple_of_what_an_actor_says(protocol):
    for fold in make_folds(RAVDESS, protocol):
        support = RAVDESS.iloc[fold.test]["emotion"].value_counts()
        num_actors = len(list_speakers(RAVDESS, fold.test))
        expected = dict.fromkeys(EIGHT, 8 * num_actors) | {"neutral": 4 * num_actors}
        assert support.to_dict() == expected


def test_validation_speakers_are_of_both_sexes_and_few():
    for fold in make_folds(RAVDESS, "speaker_5fold"):
        validation = RAVDESS.iloc[fold.validation]
        assert validation["speaker"].nunique() == 2
        assert set(validation["gender"]) == {"female", "male"}


@settings(max_examples=25)
@given(
    num_speakers=st.integers(5, 14),
    per_emotion=st.integers(1, 4),
    seed=st.integers(0, 5),
    protocol=st.sampled_from(["speaker_5fold", "leave_one_speaker_out"]),
)
def test_no_speaker_is_shared(num_speakers, per_emotion, seed, protocol):
    table = make_speakers(num_speakers, per_emotion=per_emotion)
    for fold in make_folds(table, protocol, seed=seed):
        train, validation, test = (
            list_speakers(table, rows) for rows in (fold.train, fold.validation, fold.test)
        )
        assert validation
        assert train.isdisjoint(test)
        assert validation.isdisjoint(train | test)


@pytest.mark.parametrize("table", [TESS, SAVEE], ids=["two", "four"])
def test_few_speakers_leave_none_to_validate_on(table):
    folds = make_folds(table, "leave_one_speaker_out")
    speakers = sorted(table["speaker"].unique())
    assert [list_speakers(table, fold.test) for fold in folds] == [{name} for name in speakers]
    assert not any(len(fold.validation) for fold in folds)
    assert all(len(fold.train) + len(fold.test) == len(table) for fold in folds)


@pytest.mark.parametrize("protocol", ["random_5fold", "random_80_10_10", "random_70_15_15"])
def test_the_same_bytes_stay_together(protocol):
    table = FEW.copy()
    table.loc[table.index % 7 == 1, "audio_hash"] = table["audio_hash"].shift(1)
    for fold in make_folds(table, protocol, seed=3):
        sets = [
            set(table["audio_hash"].iloc[rows]) for rows in (fold.train, fold.validation, fold.test)
        ]
        assert sum(map(len, sets)) == len(set.union(*sets))


@pytest.mark.parametrize(
    ("protocol", "share"), [("random_80_10_10", 0.1), ("random_70_15_15", 0.15)]
)
def test_single_splits_have_their_shares(protocol, share):
    [fold] = make_folds(FEW, protocol)
    assert len(fold.test) == pytest.approx(share * 360, abs=3)
    assert len(fold.validation) == pytest.approx(share * 360, abs=3)
    support = FEW.iloc[fold.test]["emotion"].value_counts(normalize=True)
    assert support.drop("neutral").between(0.1, 0.17).all()


def test_random_splits_know_the_voices():
    for fold in make_folds(FEW, "random_5fold"):
        assert list_speakers(FEW, fold.test) <= list_speakers(FEW, fold.train)


def test_sentences_are_not_shared():
    for fold in make_folds(FEW, "sentence_out"):
        assert set(FEW["statement"].iloc[fold.test]).isdisjoint(
            FEW["statement"].iloc[np.concatenate([fold.train, fold.validation])]
        )


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_seed_repeats_itself_and_another_differs(protocol):
    def describe(seed):
        folds = make_folds(choose_table(protocol), protocol, seed=seed)
        return [(fold.validation.tolist(), fold.test.tolist()) for fold in folds]

    once, again, other = describe(0), describe(0), describe(1)
    assert once == again
    assert once != other
    if PROTOCOLS[protocol].speaker_independent:
        assert [test for _, test in once] == [test for _, test in other]


def test_a_corpus_is_tested_by_what_the_others_taught():
    folds = make_folds(CORPORA, "leave_one_corpus_out")
    corpora = [set(CORPORA["corpus"].iloc[fold.test]) for fold in folds]
    assert corpora == [{"ravdess"}, {"savee"}, {"tess"}]
    for fold, tested in zip(folds, corpora, strict=True):
        heard = np.concatenate([fold.train, fold.validation])
        assert set(CORPORA["corpus"].iloc[heard]) == {"ravdess", "savee", "tess"} - tested
        assert len(fold.validation)


def test_corpora_with_emotions_of_their_own_are_refused():
    table = combine_corpora([t.assign(audio_hash=t["utterance"]) for t in (FEW, SAVEE)])
    with pytest.raises(ValueError, match=r"\['calm', 'neutral'\] are tested but not trained; drop"):
        make_folds(table, "leave_one_corpus_out")
    with pytest.raises(ValueError, match=r"only corpus \['savee'\] is here"):
        make_folds(SAVEE, "leave_one_corpus_out")


def test_the_description_names_the_speakers():
    described = describe_folds(RAVDESS, make_folds(RAVDESS, "speaker_5fold"))
    assert described.loc[1, "test speakers"] == "02, 05, 14, 15, 16"
    assert (described[["train", "validation", "test"]].sum(axis=1) == 1440).all()


@pytest.mark.parametrize(
    ("table", "protocol", "message"),
    [
        (RAVDESS, "speaker_7fold", "unknown; choose from"),
        (SAVEE, "sentence_out", "does not tell; use a speaker protocol"),
        (SAVEE, "speaker_5fold", "4 speakers cannot fill 5 folds; use leave_one_speaker_out"),
        (TESS[TESS["speaker"] == "s01"].reset_index(), "leave_one_speaker_out", "two are needed"),
        (RAVDESS[RAVDESS["emotion"] != "calm"], "random_5fold", "reset_index"),
    ],
)
def test_what_cannot_be_split_is_refused_with_a_remedy(table, protocol, message):
    with pytest.raises(ValueError, match=message):
        make_folds(table, protocol)


def test_a_row_is_tested_once_and_speakers_are_kept_apart_where_the_protocol_says_so():
    first, *_ = make_folds(RAVDESS, "speaker_5fold")
    with pytest.raises(ValueError, match="tested twice"):
        check_folds(RAVDESS, [first, replace(first, number=2)], "speaker_5fold")
    shared = Fold(1, first.train[1:], first.train[:1], first.test)
    with pytest.raises(ValueError, match="speaker .* is in train and in validation"):
        check_folds(RAVDESS, [shared], "speaker_5fold")
    check_folds(RAVDESS, [shared], "random_5fold")


SMALL = make_speakers(3, per_emotion=1, emotions=("happy", "sad"))


def make_fold(*, train=(0, 1), validation=(2, 3), test=(4, 5)) -> Fold:
    return Fold(1, *(np.array(rows, dtype=int) for rows in (train, validation, test)))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("leak", "message"),
    [
        ({"train": (0, 1, 4)}, r"row \[4\] is in train and in test"),
        ({"validation": (2, 3, 5)}, r"row \[5\] is in validation and in test"),
        ({"train": (0, 1, 2)}, r"row \[2\] is in train and in validation"),
    ],
)
def test_a_shared_row_is_found(leak, message, protocol):
    check_folds(SMALL, [make_fold()], protocol)
    with pytest.raises(ValueError, match=f"{protocol}, fold 1: {message}"):
        check_folds(SMALL, [make_fold(**leak)], protocol)


@pytest.mark.parametrize(
    ("copy", "original", "parts"),
    [(4, 0, "train and in test"), (4, 2, "validation and in test"), (2, 0, "train and in valid")],
)
def test_a_shared_recording_is_found(copy, original, parts):
    table = SMALL.copy()
    table.loc[copy, "audio_hash"] = table.loc[original, "audio_hash"]
    with pytest.raises(ValueError, match=rf"recording \['[0-9a-f]{{64}}'\] is in {parts}"):
        check_folds(table, [make_fold()], "random_5fold")


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 30)), min_size=12, max_size=80),
    st.integers(2, 6),
    st.integers(0, 9),
)
@pytest.mark.filterwarnings("ignore:The least populated class")
def test_rows_are_dealt_as_scikit_learn_deals_them(rows, num_parts, seed):
    emotions, recordings = np.array(rows).T
    assume(np.unique(emotions, return_counts=True)[1].max() >= num_parts)
    assume(len(np.unique(recordings)) >= num_parts and len(np.unique(emotions)) > 1)
    theirs, ours = (
        [
            part.tolist()
            for _, part in dealer(num_parts, shuffle=True, random_state=seed).split(
                emotions, emotions, recordings
            )
        ]
        for dealer in (StratifiedGroupKFold, QuickStratifiedGroupKFold)
    )
    assert ours == theirs


@pytest.mark.parametrize(("protocol", "num_rare"), [("random_5fold", 8), ("sentence_out", 4)])
def test_a_rare_emotion_is_validated_on_once(protocol, num_rare):
    rare = RAVDESS.index[RAVDESS["emotion"] == "sad"]
    table = RAVDESS.drop(rare[num_rare:]).reset_index(drop=True)
    for fold in make_folds(table, protocol):
        validated = table["emotion"].iloc[fold.validation].value_counts()
        assert validated["sad"] == 1 and validated["happy"] > 1


@pytest.mark.parametrize("protocol", ["random_5fold", "random_80_10_10"])
def test_an_emotion_too_rare_for_random_parts_is_named(protocol):
    rare = RAVDESS.index[RAVDESS["emotion"] == "sad"][4:]
    table = RAVDESS.drop(rare).reset_index(drop=True)
    with pytest.raises(ValueError, match="only . utterances of 'sad' .*use a speaker protocol"):
        make_folds(table, protocol)


def test_protocols_rank_unknown_voices_first_and_what_nobody_registered_last(monkeypatch):
    monkeypatch.setitem(PROTOCOLS, "mine", SplitProtocol("my folds", True))
    ranked = sorted([*PROTOCOLS, "whatever"], key=rank_protocol)
    assert ranked[0] == "speaker_5fold" and ranked[-1] == "whatever"
    independent = [PROTOCOLS[name].speaker_independent for name in ranked[:-1]]
    assert independent == sorted(independent, reverse=True)
    assert "mine" in ranked[:5]
    assert name_protocol("mine") == "my folds"
    assert name_protocol("whatever") == "whatever"


def test_passed_folds_are_checked_as_what_their_protocol_is_registered_as(monkeypatch):
    shared = make_fold()
    one_voice = SMALL.assign(speaker="s01")
    with pytest.raises(ValueError, match=r"'mine' is unknown.*PROTOCOLS\['mine'\] = SplitProtocol"):
        check_folds(SMALL, [shared], "mine")
    monkeypatch.setitem(PROTOCOLS, "mine", SplitProtocol("my folds", False))
    check_folds(one_voice, [shared], "mine")
    monkeypatch.setitem(PROTOCOLS, "mine", SplitProtocol("my folds", True))
    check_folds(SMALL, [shared], "mine")
    with pytest.raises(ValueError, match=r"mine, fold 1: speaker \['s01'\] is in train and in"):
        check_folds(one_voice, [shared], "mine")
    with pytest.raises(ValueError, match="'mine' makes no folds; pass your own"):
        make_folds(SMALL, "mine")


@pytest.mark.parametrize(
    "rows", [np.array([True] + [False] * 5), np.array([0, 6]), np.array([-1]), ["a", "b"]]
)
def test_only_row_numbers_make_a_fold(rows):
    with pytest.raises(ValueError, match="fold 1: train must be an array of row numbers from 0 to"):
        check_folds(SMALL, [replace(make_fold(), train=rows)], "random_5fold")


@pytest.mark.parametrize("folds", [[], [make_fold(), make_fold(test=())]])
def test_folds_are_there_and_have_numbers_of_their_own(folds):
    with pytest.raises(ValueError, match="no folds, or two of one number"):
        check_folds(SMALL, folds, "random_5fold")


def test_protocols_that_a_corpus_cannot_fill_are_replaced_and_told():
    table = make_speakers(4, per_emotion=4)
    with pytest.warns(UserWarning, match="4 speakers cannot fill 5 folds.*used: leave_one_speaker"):
        fitting = fit_protocols(table, ["speaker_5fold", "speaker_6fold", "random_80_10_10"])
    assert fitting == ["leave_one_speaker_out"]
    assert fit_protocols(make_speakers(6, per_emotion=20), ["speaker_5fold", "random_5fold"]) == [
        "speaker_5fold",
        "random_5fold",
    ]
    alone = table[table["speaker"] == table["speaker"].iloc[0]].reset_index(drop=True)
    with pytest.raises(ValueError, match="only speaker .* is here"):
        fit_protocols(alone, ["speaker_5fold"])


@pytest.mark.parametrize("column", ["speaker", "emotion"])
@pytest.mark.parametrize("blank", [None, float("nan"), ""])
@pytest.mark.parametrize("protocol", ["speaker_5fold", "random_5fold"])
def test_labels_that_are_missing_are_refused(column, blank, protocol):
    table = FEW.copy()
    table.loc[7, column] = blank
    with pytest.raises(ValueError, match=f"{table['utterance'][7]}: no {column}; fill it in"):
        make_folds(table, protocol)
    with pytest.raises(ValueError, match="no rows: nothing is left to split"):
        make_folds(FEW[:0], protocol)


def test_a_part_without_rows_is_refused():
    folds = make_folds(FEW, "speaker_5fold")
    for part in ("train", "test"):
        with pytest.raises(ValueError, match="fold 1: no row to train on, or none to test"):
            check_folds(FEW, [replace(folds[0], **{part: folds[0].test[:0]})], "speaker_5fold")


def test_one_protocol_is_tried_once_and_needs_no_list():
    assert fit_protocols(FEW, "speaker_5fold") == ["speaker_5fold"]
    with pytest.raises(ValueError) as told:
        fit_protocols(FEW[FEW["speaker"] == "01"].reset_index(drop=True), ["leave_one_speaker_out"])
    assert str(told.value).count("leave_one_speaker_out: ") == 1
