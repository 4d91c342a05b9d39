"""The defects of published work that this collection must not have, each with its detector."""

import numpy as np
import pytest

from common import cross_validation
from common.cross_validation import cross_validate
from common.evaluation import score_predictions
from common.features import fit_normaliser
from common.splits import make_folds
from common.training import TrainingConfig
from tests.speech_tables import make_features, make_ravdess, make_speakers
from tests.test_training import build_model

CONFIG = TrainingConfig(
    epochs=8, batch_size=8, learning_rate=0.02, warmup_epochs=1, ema_momentum=0.8, max_shift=0
)
TABLE = make_speakers(6, per_emotion=6)


def score(folder, table, features, *, protocol="speaker_5fold", only_folds=(1, 2)) -> float:
    result = cross_validate(
        build_model,
        table,
        features,
        protocol=protocol,
        config=CONFIG,
        only_folds=only_folds,
        runs_folder=folder,
    )
    return score_predictions(result.predictions)["uar"]


@pytest.fixture
def seen(monkeypatch) -> list:
    """Collect what each fold's training was given, in place of training."""
    given = []

    def fake(model, train, validation, **_):
        given.append((train, validation))
        return [{"epoch": 0}], 0.0

    monkeypatch.setattr(cross_validation, "train_model", fake)
    return given


def test_test_rows_are_the_recordings_of_the_corpus_and_nothing_else(tmp_path, seen):
    table = make_ravdess()
    features = make_features(table, num_copies=2)
    result = cross_validate(
        build_model, table, features, protocol="speaker_5fold", config=CONFIG, runs_folder=tmp_path
    )
    predictions = result.predictions
    assert sorted(predictions["utterance"]) == sorted(table["utterance"])
    support = predictions.groupby(["speaker", "true_label"]).size().unstack()
    assert (support.drop(columns="neutral") == 8).all(axis=None)
    assert (support["neutral"] == 4).all()


def test_copies_stay_with_their_original_and_in_training(tmp_path, seen):
    table = make_ravdess()
    features = make_features(table, num_copies=2)
    rows = np.arange(len(table), dtype=np.float32)
    features.values[:] = rows[:, None, None]  # every value tells the row that it is of
    features.copies[:] = rows[:, None, None, None] + 10_000
    cross_validate(
        build_model, table, features, protocol="random_5fold", config=CONFIG, runs_folder=tmp_path
    )
    for fold, (train, validation) in zip(make_folds(table, "random_5fold"), seen, strict=True):
        normaliser = fit_normaliser(features.values[fold.train])
        mean, std = normaliser.mean[0], normaliser.std[0]
        trained = np.round(train.values[:, 0, 0] * std + mean)
        copied = np.round(train.copies[:, :, 0, 0] * std + mean) - 10_000
        np.testing.assert_allclose(trained, fold.train, atol=1)
        np.testing.assert_allclose(copied, np.stack([fold.train] * 2, axis=1), atol=1)
        np.testing.assert_allclose(validation.values[:, 0, 0] * std + mean, fold.validation, atol=1)
        assert validation.copies is None


def test_the_normaliser_does_not_see_validation_and_test_rows(tmp_path, seen):
    features = make_features(TABLE)
    settings = {"protocol": "speaker_5fold", "config": CONFIG, "only_folds": [1]}
    cross_validate(build_model, TABLE, features, runs_folder=tmp_path / "a", **settings)
    [fold, *_] = make_folds(TABLE, "speaker_5fold")
    for rows in (fold.validation, fold.test):
        features.values[rows] *= 100
        features.copies[rows] += 100
    cross_validate(build_model, TABLE, features, runs_folder=tmp_path / "b", **settings)
    (first, _), (second, _) = seen
    np.testing.assert_array_equal(first.values, second.values)
    np.testing.assert_array_equal(first.copies, second.copies)


def test_no_recording_is_on_both_sides(tmp_path):
    table = make_ravdess()
    table.loc[1::2, "audio_hash"] = table["audio_hash"].iloc[::2].to_numpy()  # pairs of twins
    for protocol in ("speaker_5fold", "random_5fold"):
        for fold in make_folds(table, protocol):
            trained = set(table["audio_hash"].iloc[np.append(fold.train, fold.validation)])
            assert trained.isdisjoint(table["audio_hash"].iloc[fold.test])


def test_permuted_labels_fall_to_chance(tmp_path):
    features = make_features(TABLE)
    assert score(tmp_path, TABLE, features) > 0.7
    rng = np.random.default_rng(0)
    permuted = TABLE.assign(emotion=rng.permutation(TABLE["emotion"]))
    assert score(tmp_path, permuted, features) < 0.45  # chance is 0.25, 48 rows are tested


def test_knowing_the_speaker_helps_in_a_random_split_alone(tmp_path):
    """Each speaker prefers one emotion, and the features tell the speaker and nothing else."""
    table = make_speakers(6, per_emotion=8)
    number = table["speaker"].str[1:].astype(int)
    emotions = ("neutral", "calm", "happy")
    favourite = [emotions[value % 3] for value in number]
    rare = table.groupby("speaker").cumcount() % 8 == 0
    table["emotion"] = np.where(rare, np.roll(favourite, 32), favourite)
    features = make_features(table, by="speaker", strength=3.0)
    known = score(tmp_path, table, features, protocol="random_5fold", only_folds=(1, 2, 3))
    unknown = score(
        tmp_path, table, features, protocol="leave_one_speaker_out", only_folds=(1, 2, 3)
    )
    assert known > 0.55
    assert unknown < known - 0.1
