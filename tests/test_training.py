"""Training: schedules, batches, the choice of the epoch, resuming, caching."""

import io
import json
import linecache
import random
from dataclasses import replace

import keras
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import layers, ops

from common import cross_validation, training
from common.batches import SAMPLINGS, Examples, TrainingBatches
from common.cross_validation import cross_validate
from common.models import build_seeded, describe_model
from common.networks import run_network
from common.optimizers import compile_model, compute_learning_rate
from common.results import save_results
from common.splits import make_folds
from common.training import TrainingConfig, _EpochKeeper, train_model
from tests.speech_tables import make_features, make_speakers

TABLE = make_speakers(6, per_emotion=4)
FEATURES = make_features(TABLE)
CONFIG = TrainingConfig(
    epochs=4, batch_size=8, learning_rate=0.01, warmup_epochs=1, ema_momentum=0.8, max_shift=2
)
PROTOCOL = "speaker_5fold"
PLAIN = {"max_shift": 0, "num_time_masks": 0, "num_frequency_masks": 0, "mixup_alpha": 0.0}


def build_model(input_shape, num_classes):
    inputs = keras.Input(input_shape, name="features")
    x = keras.layers.Conv1D(8, 3, padding="same", name="conv")(inputs)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.ReLU(name="relu")(x)
    x = keras.layers.GlobalAveragePooling1D(name="pool")(x)
    x = keras.layers.Dropout(0.2, name="dropout")(x)
    x = keras.layers.Dense(num_classes, activation="softmax", name="emotions")(x)
    return keras.Model(inputs, x, name="toy")


def run(folder, *, config=CONFIG, table=TABLE, features=FEATURES, build=build_model, **settings):
    settings = {"protocol": PROTOCOL, "only_folds": [1], "runs_folder": folder, **settings}
    return cross_validate(build, table, features, config=config, **settings)


def get_probabilities(result) -> np.ndarray:
    return result.predictions.filter(regex="^p_").to_numpy()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return run(tmp_path_factory.mktemp("runs"))


# Settings


def test_cosine_warms_up_and_ends_near_zero():
    config = TrainingConfig(epochs=50, warmup_epochs=4, learning_rate=1.0, schedule="cosine")
    rates = [compute_learning_rate(config, epoch, []) for epoch in range(50)]
    np.testing.assert_allclose(rates[:5], [0.2, 0.4, 0.6, 0.8, 1.0])
    assert (np.diff(rates[4:]) < 0).all()
    assert rates[27] == pytest.approx(0.5) and rates[-1] < 0.01


def test_steps_and_plateaus_halve_the_rate():
    step = TrainingConfig(schedule="step", warmup_epochs=0, step_epochs=10, learning_rate=0.8)
    assert [compute_learning_rate(step, epoch, []) for epoch in (0, 9, 10, 29)] == [
        0.8,
        0.8,
        0.4,
        0.2,
    ]
    plateau = replace(step, schedule="plateau", plateau_patience=2)
    losses = [1.0, 0.9, 0.95, 0.93, 0.92, 0.8, 0.85, 0.85]
    rates = [compute_learning_rate(plateau, epoch, losses[:epoch]) for epoch in range(9)]
    assert rates == [0.8, 0.8, 0.8, 0.8, 0.4, 0.4, 0.4, 0.4, 0.2]


def test_where_nothing_validates_the_rate_stays():
    settings = {"schedule": "plateau", "plateau_patience": 1, "monitor": "loss", "epochs": 4}
    config = replace(CONFIG, **settings, warmup_epochs=0, patience=None)
    targets = np.eye(4, dtype=np.float32)[TABLE["emotion"].factorize()[0]]
    model = build_model(FEATURES.shape[1:], 4)
    compile_model(model, config)
    rows = [Examples(FEATURES.values[part], targets[part]) for part in (slice(8), slice(0))]
    train_model(model, *rows, config=config, seed=0, state_path=None)
    assert float(model.optimizer.learning_rate) == pytest.approx(config.learning_rate)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"schedule": "linear"}, "schedule='linear' is unknown; choose from"),
        ({"sampling": "random"}, "sampling='random' is unknown; choose from .*'balanced'"),
        ({"monitor": "wa"}, "monitor='wa' is unknown; choose 'uar', 'loss' or None"),
        ({"monitor": None, "patience": 5}, "nothing for schedule='cosine', patience=5 to watch"),
        ({"monitor": None, "schedule": "plateau"}, "nothing for schedule='plateau'"),
        ({"learning_rate": np.nan}, "learning_rate=nan: give a number from 1e-12"),
        ({"weight_decay": np.inf}, "weight_decay=inf: give a number from 0"),
        ({"label_smoothing": 2}, "label_smoothing=2: give a number from 0 to 1"),
        ({"ema_momentum": -0.1}, "ema_momentum=-0.1: give a number from 0 to 1"),
        ({"mixup_alpha": "0.2"}, "mixup_alpha='0.2': give a number"),
        ({"epochs": 0}, "epochs=0: give a whole number from 1"),
        ({"epochs": 1.5}, "epochs=1.5: give a whole number"),
        ({"batch_size": "8"}, "batch_size='8': give a whole number"),
        ({"warmup_epochs": True}, "warmup_epochs=True: give a whole number"),
        ({"patience": 0}, "patience=0: give a whole number from 1"),
        ({"max_shift": -1}, "max_shift=-1: give a whole number from 0"),
        ({"learning_rate_factors": ("encoder", 0.1)}, "give pairs of how names of layers start"),
    ],
)
def test_settings_that_make_no_sense_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**setting)


def test_the_average_of_the_weights_may_be_the_weights():
    model = build_model(FEATURES.shape[1:], 4)
    compile_model(model, replace(CONFIG, ema_momentum=0.0))
    assert model.optimizer.use_ema and model.optimizer.ema_momentum == 0


# Batches


def make_batches(seed: int = 0, **settings) -> TrainingBatches:
    targets = np.eye(4, dtype=np.float32)[TABLE["emotion"].factorize()[0]]
    examples = Examples(FEATURES.values, targets, FEATURES.copies)
    return TrainingBatches(examples, config=replace(CONFIG, **settings), seed=seed)


@given(epoch=st.integers(0, 50), index=st.integers(0, 11), sampling=st.sampled_from(SAMPLINGS))
def test_a_batch_follows_from_seed_epoch_and_number(epoch, index, sampling):
    first, second, other = (make_batches(seed, sampling=sampling) for seed in (0, 0, 1))
    second.start_epoch(7)
    second[3]
    for batches in (first, second, other):
        batches.start_epoch(epoch)
    for one, two in zip(first[index], second[index], strict=True):
        np.testing.assert_array_equal(one, two)
    assert not np.array_equal(first[index][0], other[index][0])
    assert first[index][1].sum(axis=1) == pytest.approx(np.ones(8))
    second.start_epoch(epoch + 1)
    assert not np.array_equal(first[index][0], second[index][0])


def test_plain_batches_are_the_rows_each_once():
    batches = make_batches(use_copies=False, **PLAIN)
    seen = np.concatenate([batches[index][0] for index in range(len(batches))])
    assert len(seen) == 96
    order = np.lexsort(seen.reshape(96, -1).T), np.lexsort(FEATURES.values.reshape(96, -1).T)
    np.testing.assert_array_equal(seen[order[0]], FEATURES.values[order[1]])
    with_copies = make_batches(**PLAIN)
    batch, targets = with_copies[0]
    rows, choice = with_copies.order[:8], with_copies.choice[:8]
    both = np.stack([FEATURES.values, FEATURES.copies[:, 0]], axis=1)
    np.testing.assert_array_equal(batch, both[rows, choice])
    assert len(set(choice)) == 2
    np.testing.assert_array_equal(targets.argmax(axis=1), TABLE["emotion"].factorize()[0][rows])


def test_class_weights_balance_the_classes():
    targets = np.eye(2, dtype=np.float32)[[0] * 12 + [1] * 4]
    config = replace(CONFIG, class_weights=True, mixup_alpha=0.0, batch_size=16)
    batches = TrainingBatches(Examples(np.zeros((16, 3, 2), "f"), targets), config=config, seed=0)
    _, seen, weights = batches[0]
    assert (seen * weights[:, None]).sum(axis=0) == pytest.approx([8, 8])


UNEVEN = (20, 9, 5)  # rows of each class


def make_uneven_batches(**settings) -> TrainingBatches:
    """Batches whose values are the row's number, and 0.5 more in its copy."""
    labels = np.repeat(np.arange(3), UNEVEN)
    values = np.broadcast_to(np.arange(34.0)[:, None, None], (34, 3, 2)).astype(np.float32)
    examples = Examples(values, np.eye(3, dtype=np.float32)[labels], values[:, None] + 0.5)
    config = replace(CONFIG, **{"batch_size": 8, **PLAIN, **settings})
    return TrainingBatches(examples, config=config, seed=0)


def read_epoch(batches: TrainingBatches) -> tuple[np.ndarray, np.ndarray]:
    """Values and labels of all batches of an epoch; each row comes with its own label."""
    values, targets = zip(*(batches[index] for index in range(len(batches))), strict=True)
    values, labels = np.stack(values)[..., 0, 0], np.stack(targets).argmax(axis=-1)
    np.testing.assert_array_equal(
        labels, np.repeat(np.arange(3), UNEVEN)[np.floor(values).astype(int)]
    )
    return values, labels


def test_shuffled_batches_are_drawn_as_they_always_were():
    batches = make_uneven_batches()
    batches.start_epoch(4)
    rng = np.random.default_rng([0, 4])
    rows, versions = rng.permutation(34), rng.integers(0, 2, size=34)
    expected = rows[:32] + 0.5 * versions[rows[:32]]
    np.testing.assert_array_equal(read_epoch(batches)[0].ravel(), expected)


def test_oversampling_makes_all_classes_as_frequent_as_the_most_frequent_one():
    batches = make_uneven_batches(sampling="oversampled", batch_size=60)
    assert len(batches) == 1 and len(make_uneven_batches(sampling="oversampled")) == 60 // 8
    values, labels = read_epoch(batches)
    assert np.bincount(labels.ravel()).tolist() == [20, 20, 20]
    times = np.bincount(np.floor(values).astype(int).ravel())
    assert set(times[:20]) == {1} and set(times[20:29]) == {2, 3} and set(times[29:]) == {4}
    repeated = values[np.floor(values) == 29]
    seen = set(repeated)
    for epoch in range(1, 4):
        batches.start_epoch(epoch)
        seen |= set(read_epoch(batches)[0][np.floor(read_epoch(batches)[0]) == 29])
    assert seen == {29.0, 29.5}  # each repetition draws its own version


def test_balanced_batches_hold_all_classes_evenly():
    batches = make_uneven_batches(sampling="balanced")
    assert len(batches) == 34 // 8
    extra = []
    for epoch in range(6):
        batches.start_epoch(epoch)
        values, labels = read_epoch(batches)
        counts = np.stack([np.bincount(row, minlength=3) for row in labels])
        assert counts.min() == 2 and counts.max() == 3 and set(counts.sum(axis=1)) == {8}
        extra.extend(counts.argmin(axis=1))
        times = np.bincount(np.floor(values).astype(int).ravel(), minlength=34)
        assert times[:20].max() == 1  # more rows than places
        for members in (times[20:29], times[29:]):
            assert members.max() - members.min() <= 1
    assert set(extra) == {0, 1, 2}  # the places left over go round
    whole = make_uneven_batches(sampling="balanced", batch_size=50)
    assert len(whole) == 1 and np.bincount(read_epoch(whole)[1].ravel()).min() == 11


def test_a_class_without_training_rows_is_not_sampled():
    targets = np.eye(4, dtype=np.float32)[[0] * 6 + [2] * 2]
    for sampling in ("oversampled", "balanced"):
        config = replace(CONFIG, sampling=sampling, batch_size=8, **PLAIN)
        examples = Examples(np.zeros((8, 3, 2), "f"), targets)
        _, seen = TrainingBatches(examples, config=config, seed=0)[0]
        assert seen.sum(axis=0)[[1, 3]].tolist() == [0, 0]
        assert seen.sum(axis=0)[2] >= 3


# The choice of the epoch


def test_a_loaded_model_repeats_the_predictions_of_its_fold(tmp_path):
    config = replace(CONFIG, epochs=1, ema_momentum=None)
    settings = {"config": config, "seeds": (0, 3), "only_folds": [2, 4]}
    trained = run(tmp_path, **settings)
    position = pd.Series(TABLE.index, index=TABLE["utterance"])
    for result in (trained, run(tmp_path, **settings)):
        assert set(result.models) == {(0, 2), (0, 4), (3, 2), (3, 4)}
        for (seed, fold), rows in result.predictions.groupby(["seed", "fold"]):
            model = result.load_model(seed=seed, fold=fold)
            tested = FEATURES.values[position[rows["utterance"]].to_numpy()]
            probabilities = ops.convert_to_numpy(model(tested))
            np.testing.assert_allclose(probabilities, rows.filter(regex="^p_"), atol=1e-3)
    first, other = (trained.load_model(seed=seed, fold=2).get_weights() for seed in (0, 3))
    assert any(not np.allclose(one, two, atol=1e-3) for one, two in zip(first, other, strict=True))


def test_learning_rate_factors_slow_the_layers_that_they_name(tmp_path):
    def measure_steps(**changes) -> dict[str, float]:
        config = replace(CONFIG, epochs=1, ema_momentum=None, weight_decay=0.0, **changes)
        trained = run(tmp_path, config=config).load_model(seed=0, fold=1).get_layer("toy")
        start = build_seeded(build_model, FEATURES.values.shape[1:], 4, seed=0)
        return {
            name: float(np.abs(trained.get_layer(name).kernel - start.get_layer(name).kernel).max())
            for name in ("conv", "emotions")
        }

    plain = measure_steps()
    frozen = measure_steps(learning_rate_factors=(("con", 0.0),))
    slow = measure_steps(learning_rate_factors=(("conv", 0.1),))
    assert plain["conv"] > 0 and frozen["conv"] == 0 < frozen["emotions"]
    assert 0.02 < slow["conv"] / plain["conv"] < 0.3
    assert 0.5 < slow["emotions"] / plain["emotions"] < 2


def test_a_learning_rate_factor_of_no_layer_is_refused(tmp_path):
    config = replace(CONFIG, learning_rate_factors=(("encoder", 0.1),))
    with pytest.raises(ValueError, match=r"starts with 'encoder'; there are \['conv', 'emotions'"):
        run(tmp_path, config=config)


def test_features_that_are_normalised_already_stay_as_they_are(tmp_path):
    features = make_features(TABLE, normalise=False)
    result = run(tmp_path, features=features)
    model = result.load_model(seed=0, fold=1)
    tested = FEATURES.values[make_folds(TABLE, PROTOCOL)[0].test]
    np.testing.assert_array_equal(model.get_layer("normalise")(tested), tested)
    np.testing.assert_allclose(model(tested), get_probabilities(result), atol=1e-3)


def test_training_stops_after_patience_without_a_better_epoch(tmp_path):
    result = run(tmp_path, config=replace(CONFIG, epochs=30, patience=2, learning_rate=0.05))
    uar = result.history["validation_uar"].to_numpy()
    assert len(uar) < 30
    assert uar[:-2].max() >= uar[-2:].max()


def test_without_validation_the_last_epoch_is_kept(tmp_path):
    table = make_speakers(2, per_emotion=6)
    features = make_features(table)
    settings = {"table": table, "features": features, "protocol": "leave_one_speaker_out"}
    four = run(tmp_path, config=replace(CONFIG, patience=1), **settings)
    assert four.history["validation_uar"].isna().all()
    assert len(four.history) == 4


def test_without_a_monitor_validation_rows_are_trained_on(tmp_path, monkeypatch):
    given = []

    def watch(model, train, validation, **_):
        given.append((train.targets, validation.targets))
        return [{"epoch": 0}], 0.0

    monkeypatch.setattr(cross_validation, "train_model", watch)
    for monitor in ("uar", None):
        run(tmp_path, config=replace(CONFIG, monitor=monitor))
    [(train, validation), (all_train, none)] = given
    assert len(validation) > 0
    assert len(none) == 0
    assert all_train.sum(axis=0).tolist() == (train.sum(axis=0) + validation.sum(axis=0)).tolist()


def test_without_a_monitor_the_last_epoch_is_kept(tmp_path):
    fold = make_folds(TABLE, PROTOCOL)[0]
    targets = np.eye(8, dtype=np.float32)[TABLE["emotion"].factorize()[0]]
    results = {}
    for name, rows in (("some", fold.validation), ("none", fold.validation[:0])):
        model = build_seeded(build_model, FEATURES.values.shape[1:], 8, seed=0)
        train_model(
            model,
            Examples(FEATURES.values[fold.train], targets[fold.train]),
            Examples(FEATURES.values[rows], targets[rows]),
            config=replace(CONFIG, monitor=None),
            seed=0,
            state_path=tmp_path / f"{name}.npz",
        )
        results[name] = run_network(model, FEATURES.values[fold.test])
    np.testing.assert_array_equal(results["some"], results["none"])


@pytest.mark.parametrize(
    "settings",
    [
        {"focal_gamma": 2.0, "class_weights": True},
        {"sampling": "balanced"},
        {"ema_momentum": None},
        {"schedule": "plateau", "monitor": "loss"},
        {"use_copies": False, "mixup_alpha": 0.0, "label_smoothing": 0.0},
    ],
)
def test_every_recipe_trains(settings, tmp_path, finished):
    result = run(tmp_path, config=replace(CONFIG, **settings))
    assert np.isfinite(get_probabilities(result)).all()
    assert np.abs(get_probabilities(result) - get_probabilities(finished)).max() > 1e-3


def test_test_labels_change_nothing_but_the_score(tmp_path, finished):
    table = TABLE.copy()
    test = make_folds(TABLE, PROTOCOL)[0].test
    rng = np.random.default_rng(0)
    table.loc[test, "emotion"] = rng.permutation(table.loc[test, "emotion"])
    np.testing.assert_array_equal(
        get_probabilities(run(tmp_path, table=table)), get_probabilities(finished)
    )


# Resuming and caching


class Killed(Exception):
    pass


@pytest.mark.parametrize(("epoch", "batch"), [(0, 3), (2, 0), (2, 3), (3, 5)])
def test_a_run_killed_in_the_middle_of_an_epoch_continues_exactly(
    epoch, batch, tmp_path, finished, monkeypatch
):
    get = TrainingBatches.__getitem__

    def die(batches, index):
        if batches.epoch == epoch and index == batch:
            raise Killed("Killed")
        return get(batches, index)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingBatches, "__getitem__", die)
        with pytest.raises(Exception, match="Killed"):
            run(tmp_path)
    states = list(tmp_path.rglob("state.npz"))
    assert len(states) == (epoch > 0)
    assert not list(tmp_path.rglob("facts.json"))
    continued = run(tmp_path)
    np.testing.assert_allclose(
        get_probabilities(continued), get_probabilities(finished), rtol=0, atol=1e-4
    )
    columns = ["loss", "validation_loss", "validation_uar"]
    pd.testing.assert_frame_equal(
        continued.history[columns], finished.history[columns], rtol=0, atol=1e-5
    )
    assert not list(tmp_path.rglob("state.npz"))


def test_a_state_with_any_byte_damaged_is_begun_anew(tmp_path):
    model = build_model((8, 4), 4)
    compile_model(model, CONFIG)
    nothing = Examples(np.zeros((0, 8, 4), np.float32), np.zeros((0, 4), np.float32))
    whole, path = io.BytesIO(), tmp_path / "state.npz"
    np.savez(whole, value_0=np.arange(3.0), notes=json.dumps({"history": []}))
    for place in (*range(0, 60), *range(-60, -1)):
        content = bytearray(whole.getvalue())
        content[place] ^= 0xFF
        path.write_bytes(content)
        keeper = _EpochKeeper(None, nothing, config=CONFIG, path=path)
        with pytest.warns(UserWarning, match=r"state.npz: damaged \(.*\); begun anew"):
            assert keeper.restore(model) == 0
        assert not path.exists()


def test_a_second_call_loads_and_says_so(finished, monkeypatch):
    monkeypatch.setattr(cross_validation, "train_model", None)
    again = run(finished.folder.parent)
    assert (again.sources, finished.sources) == ({(0, 1): "stored"}, {(0, 1): "trained"})
    assert "folds 1 trained before;" in again.summary and "1 trained now;" in finished.summary
    pd.testing.assert_frame_equal(again.validation, finished.validation)
    pd.testing.assert_frame_equal(again.predictions, finished.predictions)
    pd.testing.assert_frame_equal(again.history, finished.history)


def test_only_folds_may_be_completed_later_but_not_published(tmp_path):
    config = replace(CONFIG, epochs=1)
    settings = {"protocol": "leave_one_speaker_out", "config": config}
    part = run(tmp_path, only_folds=[2], **settings)
    with pytest.raises(ValueError, match="leaves out folds"):
        save_results(part, notebook="99_test", title="Toy")
    whole = run(tmp_path, only_folds=None, **settings)
    sources = list(whole.sources.values())
    assert (len(sources), sources.count("stored"), whole.complete) == (6, 1, True)
    assert sorted(whole.predictions["utterance"]) == sorted(TABLE["utterance"])
    with pytest.raises(ValueError, match="give a list of some of"):
        run(tmp_path, only_folds=[9], **settings)


CELL = """
class Scale(keras.layers.Layer):
    def call(self, x):
        return x * 2
"""


def make_layer(source: str):
    """Define the layer as a notebook cell does: the class has no file, its methods have."""
    name = f"<cell {len(linecache.cache)}>"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    namespace = {"keras": keras, "__name__": "__main__"}
    exec(compile(source, name, "exec"), namespace)
    inputs = keras.Input((5, 2))
    return describe_model(keras.Model(inputs, namespace["Scale"](name="scale")(inputs)))


def test_code_of_a_layer_of_a_notebook_counts_and_its_comments_do_not():
    commented = CELL.replace("x * 2", "x * 2  # twice").replace(
        "call(self, x):", 'call(self, x):\n        """Double it."""'
    )
    assert make_layer(CELL) == make_layer(commented)
    assert make_layer(CELL) != make_layer(CELL.replace("x * 2", "x * 3"))
    assert make_layer(CELL) != make_layer(CELL.replace("Scale", "Base") + "class Scale(Base): ...")


def build_with_operations():
    inputs = keras.Input((5, 2))
    return keras.Model(inputs, ops.mean(layers.Dense(3)(inputs), axis=1))


def build_with_a_layer_called_like_an_activation():
    inputs = keras.Input((5, 2))
    weights = layers.Softmax(axis=1)(layers.Dense(1)(inputs))  # its first name is "softmax"
    frames = layers.GlobalAveragePooling1D()(layers.Multiply()([inputs, weights]))
    return keras.Model(inputs, layers.Dense(3, activation="softmax")(frames))


def build_with_a_step_called_like_a_part_of_another():
    inputs = keras.Input((5, 2))
    x = layers.MultiHeadAttention(2, 2)(inputs, inputs)  # holds a layer, at first named "dropout"
    return keras.Model(inputs, layers.Dropout(0.1, name="dropout")(x))


@pytest.mark.parametrize(
    "build",
    [
        build_with_operations,
        build_with_a_layer_called_like_an_activation,
        build_with_a_step_called_like_a_part_of_another,
    ],
)
def test_names_that_keras_numbers_do_not_count(build):
    keras.utils.clear_session()
    assert len({describe_model(build()) for _ in range(3)}) == 1


def test_seeds_decide_the_weights_and_nothing_else_is_touched():
    random.seed(3)
    state = random.getstate()
    one, same, other = (build_seeded(build_model, (12, 6), 4, seed=seed) for seed in (1, 1, 2))
    assert random.getstate() == state
    for first, second in zip(one.get_weights(), same.get_weights(), strict=True):
        np.testing.assert_array_equal(first, second)
    assert not np.array_equal(one.get_weights()[0], other.get_weights()[0])


def test_features_of_another_table_are_refused():
    with pytest.raises(ValueError, match="95 utterances but 96 feature rows"):
        run(None, table=TABLE.iloc[:-1])


def test_a_full_disk_is_told_by_name_and_the_run_goes_on_later(tmp_path, finished, monkeypatch):
    save = np.savez

    def fail(file, **arrays):
        if "notes" in arrays and 'epoch": 2' in str(arrays["notes"]):
            raise OSError(28, "No space left on device", str(file))
        save(file, **arrays)

    with monkeypatch.context() as patch:
        patch.setattr(training.np, "savez", fail)
        with pytest.raises(OSError, match="No space left"):
            run(tmp_path)
    assert [path.name for path in tmp_path.rglob("*.npz")] == ["state.npz"]
    np.testing.assert_allclose(
        get_probabilities(run(tmp_path)), get_probabilities(finished), rtol=0, atol=1e-4
    )


def test_tensorboard_gets_the_curves(tmp_path):
    result = run(tmp_path, config=replace(CONFIG, epochs=1), tensorboard=True)
    assert list(result.folder.rglob("events.out.tfevents*"))


# What cannot end well


def test_a_loss_that_is_no_number_ends_the_training(tmp_path):
    config = replace(CONFIG, learning_rate=1e6, weight_decay=1e6, ema_momentum=None)
    features = make_features(TABLE, strength=1e30)
    with pytest.raises(ValueError, match=r"epoch \d: the loss is nan, .* than 1e\+06"):
        run(tmp_path, config=config, features=features)


def test_features_that_are_not_finite_are_not_trained_on(tmp_path):
    values = FEATURES.values.copy()
    values[3, 0, 0] = np.nan
    features = replace(FEATURES, made_values=values)
    with pytest.raises(ValueError, match=f"{TABLE['utterance'][3]} and 0 more: features that are"):
        run(tmp_path, features=features)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seeds": 3}, "seeds=3: give a list of whole numbers"),
        ({"seeds": []}, r"seeds=\[\]: give a list"),
        ({"seeds": [-1]}, r"seeds=\[-1\]"),
        (
            {"only_folds": [1, 99]},
            r"only_folds=\[1, 99\]: give a list of some of \[1, 2",
        ),
        ({"only_folds": 1}, "only_folds=1: give a list"),
        ({"protocol": ["speaker_5fold"]}, r"protocol=\['speaker_5fold'\] is unknown"),
    ],
)
def test_what_to_run_is_checked_before_it_runs(settings, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        run(tmp_path, **settings)


def test_a_fold_that_was_never_run_is_no_missing_model(finished):
    with pytest.raises(ValueError, match="no seed 7, fold 1; it has .*0, 1"):
        finished.load_model(seed=7, fold=1)
