"""Detectors of the leaks found in published code: nothing of the test part reaches training."""

from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import layers

from common import cross_validation, recipes, splits
from common.batches import SAMPLINGS, TrainingBatches
from common.cross_validation import cross_validate, train_fold
from common.emotions import EMOTIONS
from common.recipes import Features, Normaliser, fit_normaliser
from common.splits import Fold, check_folds
from common.training import TrainingConfig
from tests.speech_tables import make_features, make_speakers

FOUR = EMOTIONS[:4]
PLAIN = {"mixup_alpha": 0.0, "num_time_masks": 0, "num_frequency_masks": 0, "max_shift": 0}
CONFIG = TrainingConfig(
    epochs=20, batch_size=32, learning_rate=0.02, warmup_epochs=0, ema_momentum=None, **PLAIN
)

RECIPE = make_features(make_speakers(1, per_emotion=1)).recipe


def build_model(input_shape: tuple[int, ...], num_classes: int) -> keras.Model:
    inputs = keras.Input(input_shape, name="features")
    hidden = layers.GlobalAveragePooling1D(name="average")(inputs)
    hidden = layers.Dense(32, activation="relu", name="hidden")(hidden)
    outputs = layers.Dense(num_classes, activation="softmax", name="emotions")(hidden)
    return keras.Model(inputs, outputs, name="small")


def measure_uar(predictions) -> float:
    return predictions.groupby("true_label")["correct"].mean().mean()


@pytest.fixture(scope="module")
def table():
    """10 speakers who say each of 4 emotions 6 times."""
    return make_speakers(10, per_emotion=6, emotions=FOUR)


@pytest.fixture(scope="module")
def fold(table) -> Fold:
    """Half of the speakers are tested, so that chance is measured well."""
    number = table["speaker"].str[1:].astype(int)
    parts = (number <= 4, number == 5, number > 5)
    fold = Fold(1, *(np.flatnonzero(part) for part in parts))
    check_folds(table, [fold], "speaker_5fold")
    return fold


# What reaches the model


@pytest.fixture
def watch(table, fold, tmp_path, monkeypatch):
    """Return a function that runs `train_fold` without training and gives what came in.

    Its answers: the training examples, the validation examples, the predicted values.
    """

    def run(features: Features):
        seen = []

        def train_model(model, train, validation, **_):
            seen.extend([train, validation])
            return [{"epoch": 0}], 0.0

        def predict(model, values):
            seen.append(values)
            return np.full((len(values), len(FOUR)), 0.25)

        monkeypatch.setattr(cross_validation, "train_model", train_model)
        monkeypatch.setattr(cross_validation, "run_network", predict)
        folder = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        train_fold(build_model, table, features, fold=fold, config=CONFIG, seed=0, folder=folder)
        return *seen[:3], keras.models.load_model(folder / "model.keras").get_layer("normalise")

    return run


def encode_rows(table) -> Features:
    """Let each value be its row's number, and those of its two copies 0.25 and 0.5 more."""
    numbers = np.arange(len(table), dtype=np.float32)[:, None, None]
    values = np.tile(numbers, (1, 12, 6))
    return Features(values, np.stack([values + 0.25, values + 0.5], axis=1), RECIPE)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_each_part_gets_its_own_rows_and_their_labels(table, fold, watch, monkeypatch, sampling):
    identity = Normaliser(np.zeros(6, dtype=np.float32), np.ones(6, dtype=np.float32))
    monkeypatch.setattr(recipes, "fit_normaliser", lambda values: identity)
    train, validation, tested, _ = watch(encode_rows(table))
    labels = table["emotion"].map(FOUR.index).to_numpy()
    for examples, rows in ((train, fold.train), (validation, fold.validation)):
        np.testing.assert_array_equal(examples.values[:, 0, 0], rows)
        np.testing.assert_array_equal(examples.targets.argmax(axis=1), labels[rows])
    assert validation.copies is None
    np.testing.assert_array_equal(tested[:, 0, 0], fold.test)  # no copy among them

    batches = TrainingBatches(train, config=replace(CONFIG, sampling=sampling), seed=0)
    seen = set()
    for epoch in range(40):
        batches.start_epoch(epoch)
        for index in range(len(batches)):
            values, targets = batches[index]
            numbers = np.floor(values[:, 0, 0]).astype(int)
            np.testing.assert_array_equal(targets.argmax(axis=1), labels[numbers])
            seen |= set(values[:, 0, 0].tolist())
    versions = fold.train[:, None] + np.array([0.0, 0.25, 0.5])
    assert seen == set(versions.ravel().tolist())


def test_the_normaliser_knows_training_rows_alone(table, fold, watch):
    features = make_features(table)
    others = np.concatenate([fold.validation, fold.test])
    changed = Features(features.values.copy(), features.copies * 7, features.recipe)
    changed.values[others] = 100 * changed.values[others] - 5
    expected = fit_normaliser(features.values[fold.train])
    first, first_validation, _, first_layer = watch(features)
    second, second_validation, _, second_layer = watch(changed)
    np.testing.assert_array_equal(first.values, second.values)
    assert not np.array_equal(first_validation.values, second_validation.values)
    for layer in (first_layer, second_layer):
        np.testing.assert_allclose(np.ravel(layer.mean), expected.mean, rtol=1e-6)
        np.testing.assert_allclose(np.sqrt(np.ravel(layer.variance)), expected.std, rtol=1e-6)
    np.testing.assert_allclose(first.values.mean(axis=(0, 1)), 0, atol=1e-5)


def test_copies_of_validation_and_test_rows_are_never_used(table, fold, tmp_path):
    features = make_features(table, num_copies=2)
    poisoned = Features(features.values, features.copies.copy(), features.recipe)
    poisoned.copies[np.concatenate([fold.validation, fold.test])] = np.nan
    config = replace(CONFIG, epochs=2)
    clean, other = (
        train_fold(
            build_model, table, given, fold=fold, config=config, seed=0, folder=tmp_path / name
        ).predictions
        for name, given in (("clean", features), ("poisoned", poisoned))
    )
    assert len(clean) == len(fold.test)
    assert clean.equals(other)


def test_a_protocol_that_shares_speakers_never_trains(table, tmp_path, monkeypatch):
    monkeypatch.setattr(cross_validation, "train_model", None)
    leaky = replace(splits.PROTOCOLS["random_5fold"], speaker_independent=True)
    monkeypatch.setitem(splits.PROTOCOLS, "speaker_5fold", leaky)
    with pytest.raises(ValueError, match=r"speaker \[.*\] is in train and in (test|validation)"):
        cross_validate(
            build_model,
            table,
            make_features(table),
            protocol="speaker_5fold",
            config=CONFIG,
            runs_folder=tmp_path,
        )


# What a model makes of it


def test_permuted_labels_fall_to_chance(table, fold, tmp_path):
    features = make_features(table)
    permuted = table.copy()
    rng = np.random.default_rng(0)
    for rows in (fold.train, fold.validation, fold.test):
        permuted.loc[rows, "emotion"] = rng.permutation(table.loc[rows, "emotion"])
    scores = {}
    for name, labelled in (("true", table), ("permuted", permuted)):
        result = train_fold(
            build_model,
            labelled,
            features,
            fold=fold,
            config=CONFIG,
            seed=0,
            folder=tmp_path / name,
        )
        scores[name] = measure_uar(result.predictions)
    assert scores["true"] > 0.9
    assert scores["permuted"] == pytest.approx(0.25, abs=0.12)  # three standard errors


def test_a_model_that_knows_voices_scores_only_where_it_heard_them(tmp_path):
    """Features tell who speaks and nothing of how; each speaker prefers one emotion."""
    table = make_speakers(20, per_emotion=3, emotions=FOUR)
    favourites = {speaker: FOUR[i % 4] for i, speaker in enumerate(table["speaker"].unique())}
    preferred = table.groupby(["speaker", "emotion"]).cumcount() > 0
    table.loc[preferred, "emotion"] = table.loc[preferred, "speaker"].map(favourites)
    features = make_features(table, by="speaker", strength=3.0)
    scores = {}
    for protocol, only_folds in (("random_5fold", (1, 2)), ("speaker_5fold", None)):
        run = cross_validate(
            build_model,
            table,
            features,
            protocol=protocol,
            config=replace(CONFIG, epochs=12),
            only_folds=only_folds,
            runs_folder=tmp_path,
        )
        scores[protocol] = measure_uar(run.predictions)
    assert scores["random_5fold"] > 0.6
    assert scores["speaker_5fold"] < 0.4
