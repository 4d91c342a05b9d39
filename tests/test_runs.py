"""What names a run, what is read back, and what is made again."""

import json
import linecache
import os
import shutil
import sys
import time
import zipfile
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from types import ModuleType

import keras
import numpy as np
import pandas as pd
import pytest

from common import cross_validation, degradations, features, loudness, paths, transfer
from common.augmentation import AddNoise
from common.cross_validation import Start, cross_validate
from common.encoders import extraction, vggish, whisper_graph
from common.encoders.extraction import Pool
from common.features import Cepstra, FitLength, Functionals, LogMel, Measure, Trim
from common.files import describe_settings, digest
from common.loudness import Level
from common.recipes import Features, Recipe, Step
from common.results import read_predictions, save_results
from common.runs import RUN_FORMAT
from common.splits import Fold, make_folds
from common.training import TrainingConfig
from tests.speech_tables import make_features, make_speakers

TABLE = make_speakers(6, per_emotion=4)
FEATURES = make_features(TABLE)
CONFIG = TrainingConfig(epochs=2, batch_size=8, learning_rate=0.01, warmup_epochs=0)
HOMES = (degradations, extraction, features, loudness, transfer, vggish, whisper_graph)
STEPS = (
    Trim,
    FitLength,
    LogMel,
    Cepstra,
    Functionals,
    Level,
    Measure,
    Pool,
    whisper_graph.QuickTrim,
)


def build_model(input_shape, num_classes):
    inputs = keras.Input(input_shape, name="features")
    x = keras.layers.GlobalAveragePooling1D(name="pool")(inputs)
    outputs = keras.layers.Dense(num_classes, activation="softmax", name="emotions")(x)
    return keras.Model(inputs, outputs, name="toy")


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "RESULTS_DIR", tmp_path / "results")
    monkeypatch.setattr(paths, "RUNS_DIR", tmp_path / "runs")
    return tmp_path


def run(**changes):
    settings = {"protocol": "speaker_5fold", "config": CONFIG, "only_folds": [1], **changes}
    table, features = settings.pop("table", TABLE), settings.pop("features", FEATURES)
    return cross_validate(settings.pop("build", build_model), table, features, **settings)


def get_key(monkeypatch, **changes) -> str:
    """The key of a run that is not trained."""

    def fake(model, *_, **__):
        return [{"epoch": 0}], 0.0

    with monkeypatch.context() as patch:
        patch.setattr(cross_validation, "train_model", fake)
        return run(**changes).description["key"]


# The key


def test_a_run_without_normalisation_is_not_the_one_with_it():
    normalised = run()
    plain = run(features=make_features(TABLE, normalise=False))
    assert plain.sources == {(0, 1): "trained"}
    assert plain.description["key"] != normalised.description["key"]
    assert not plain.predictions.equals(normalised.predictions)


OTHER = {
    "schedule": "step",
    "ema_momentum": None,
    "label_smoothing": 0.2,
    "learning_rate_factors": (("emotions", 0.5),),
    "monitor": "loss",
    "patience": 7,
    "sampling": "balanced",
}


@pytest.mark.parametrize("field", fields(TrainingConfig), ids=lambda field: field.name)
def test_every_setting_of_training_decides_the_key(field, monkeypatch):
    value = getattr(CONFIG, field.name)
    if field.name in OTHER:
        changed = OTHER[field.name]
    else:
        changed = (not value) if isinstance(value, bool) else value + 1
    keys = {
        digest(describe_settings(c, changed=True))
        for c in (CONFIG, replace(CONFIG, **{field.name: changed}))
    }
    assert len(keys) == 2


@pytest.mark.parametrize("kind", STEPS, ids=lambda kind: kind.__name__)
def test_every_setting_of_a_step_decides_what_names_the_run(kind):
    for field in fields(kind):
        value = getattr(kind(), field.name)
        others = {"mel": "gaussian", "speech": "signal", "mean + maximum": "mean"}
        changed = others.get(value) or value - 1
        check_names_differ(kind(), kind(**{field.name: changed}))


def check_names_differ(one: Step, other: Step) -> None:
    first, second = (Recipe((step,)) for step in (one, other))
    assert first.describe(changed=True) != second.describe(changed=True), (one, other)
    assert digest(first.describe()) != digest(second.describe()), (one, other)


PAIRS = [  # of steps that need settings, which differ in one
    (degradations.Degrade(AddNoise()), degradations.Degrade(AddNoise(min_snr_db=10.0))),
    (extraction.SelectLayers((1, 2)), extraction.SelectLayers((1, 3))),
    (transfer.NormalisedIn("speaker"), transfer.NormalisedIn("corpus")),
    (transfer.NormalisedIn("speaker"), transfer.NormalisedIn("speaker", over_frames=True)),
]
OF_WEIGHTS = {  # named by their digest
    *(extraction.Embed, extraction.PrepareInputs, whisper_graph.Counterpart, vggish.WhitenVggish)
}


@pytest.mark.parametrize(("one", "other"), PAIRS, ids=lambda step: type(step).__name__)
def test_a_setting_that_a_step_needs_decides_what_names_the_run(one, other):
    check_names_differ(one, other)


def test_no_step_is_forgotten():
    kinds = {kind for module in HOMES for kind in vars(module).values() if is_step(kind)}
    tested = {*STEPS, *(type(one) for one, _ in PAIRS), *OF_WEIGHTS}
    assert {kind.__name__ for kind in kinds} == {kind.__name__ for kind in tested}


STEP = """
from dataclasses import dataclass
from common.recipes import Step

GAIN = 2.0
def half(x): return x / 2  # a half
def unrelated(x): return x

@dataclass(frozen=True)
class Louder(Step):
    factor: float = 2.0

    def __call__(self, x):
        \"\"\"Make it louder.\"\"\"
        return half(x) * self.factor * GAIN
"""


def name_step(code: str) -> dict:
    """What a run's key holds of a step that a notebook's cell, which is no file, defines."""
    cell = ModuleType("cell")
    sys.modules["cell"] = cell
    linecache.cache["<cell>"] = (len(code), None, code.splitlines(True), "<cell>")
    try:
        exec(compile(code, "<cell>", "exec"), vars(cell))
        return Features(
            np.ones((2, 3, 1)), np.ones((2, 0, 3, 1)), Recipe((cell.Louder(),))
        ).describe(changed=True)
    finally:
        del sys.modules["cell"], linecache.cache["<cell>"], Step.KINDS["Louder"]


@pytest.mark.parametrize(
    ("old", "new"), [("half(x) *", "half(x) +"), ("x / 2", "x / 3"), ("GAIN = 2.0", "GAIN = 3.0")]
)
def test_an_edit_of_ones_own_step_decides_the_key(old, new):
    assert STEP.count(old) == 1
    assert name_step(STEP) != name_step(STEP.replace(old, new))


def test_what_a_step_of_ones_own_does_not_name_leaves_the_key():
    for old, new in (("return x\n", "return -x\n"), ("# a half", "# a part"), ("louder.", "loud.")):
        assert STEP.count(old) == 1
        assert name_step(STEP) == name_step(STEP.replace(old, new))


def test_what_decides_the_number_decides_the_key(monkeypatch):
    def build_wider(input_shape, num_classes):
        model = build_model(input_shape, num_classes)
        x = keras.layers.Dense(3, name="more")(model.get_layer("pool").output)
        x = keras.layers.Dense(num_classes, activation="softmax", name="emotions")(x)
        return keras.Model(model.input, x, name="toy")

    own = [
        replace(fold, validation=fold.validation[:0]) for fold in make_folds(TABLE, "speaker_5fold")
    ]
    start = Start({"run": "another"}, lambda model, seed, fold: None)
    changes = [
        {},
        {"config": replace(CONFIG, learning_rate=0.02)},
        {"features": make_features(TABLE, seed=5)},
        {"features": make_features(TABLE, normalise=False)},
        {"features": replace(FEATURES, augmentations=(AddNoise(),))},
        {"features": replace(FEATURES, augmentations=(AddNoise(min_snr_db=10.0),))},
        {"protocol": "random_5fold"},
        {"table": TABLE.assign(audio_hash=TABLE["audio_hash"].str[::-1])},
        {"build": build_wider},
        {"folds": own},
        {"start": start},
    ]
    keys = [get_key(monkeypatch, **change) for change in changes]
    assert len(set(keys)) == len(keys)


def make_layer(module: str) -> type:
    """A layer of the same code in a module of any name."""

    class Twice(keras.layers.Layer):
        def call(self, x):
            return x * 2

        def compute_output_shape(self, input_shape):
            return input_shape

    Twice.__module__ = module
    return keras.saving.register_keras_serializable(package=module.rpartition(".")[2])(Twice)


def test_what_does_not_decide_the_number_leaves_the_key(monkeypatch):
    @dataclass(frozen=True)
    class LaterConfig(TrainingConfig):
        new_setting: float = 0.5

    later = LaterConfig(**{f.name: getattr(CONFIG, f.name) for f in fields(CONFIG)})
    keys = {
        get_key(monkeypatch),
        get_key(monkeypatch, config=later),
        get_key(monkeypatch, seeds=(3, 4)),
        get_key(monkeypatch, only_folds=[2]),
        get_key(monkeypatch, tensorboard=True),
    }
    keras.layers.Dense(3)  # moves the numbers that Keras gives names by
    assert len(keys | {get_key(monkeypatch)}) == 1
    changed = replace(later, new_setting=0.6)
    assert get_key(monkeypatch, config=changed) not in keys


def test_a_custom_layer_may_move_to_another_module(monkeypatch):
    keys = set()
    for module in ("common.layers", "somewhere.else_entirely"):
        kind = make_layer(module)

        def build(input_shape, num_classes, kind=kind):
            model = build_model(input_shape, num_classes)
            x = kind(name="twice")(model.get_layer("pool").output)
            x = keras.layers.Dense(num_classes, activation="softmax", name="emotions")(x)
            return keras.Model(model.input, x, name="toy")

        keys.add(get_key(monkeypatch, build=build))
    assert len(keys) == 1


def is_step(kind) -> bool:
    return isinstance(kind, type) and issubclass(kind, Step) and is_dataclass(kind)


def test_default_settings_are_those_of_the_run_format():
    """Runs are named by the settings that differ from the defaults."""
    kinds = [kind for module in HOMES for kind in vars(module).values() if is_step(kind)]
    defaults = {
        kind.__name__: {
            field.name: field.default for field in fields(kind) if field.default is not MISSING
        }
        for kind in (TrainingConfig, *kinds)
    }
    assert (RUN_FORMAT, digest(defaults)) == (2, "396fcec436a80b74"), (
        "a default changed: published runs would be taken for runs with the new one; raise "
        "RUN_FORMAT, publish anew, and pin both here"
    )


# Published runs


def publish(result, folders, **settings) -> None:
    settings = {"notebook": "99_test", "title": "Toy", **settings}
    save_results(result, **settings)
    shutil.copytree(folders / "runs" / "results", folders / "results", dirs_exist_ok=True)
    shutil.rmtree(folders / "runs")


def test_a_published_run_is_read_back_without_training(folders, monkeypatch):
    made = run(only_folds=None, seeds=(0, 1))
    publish(made, folders, with_model=True)
    monkeypatch.setattr(cross_validation, "train_model", None)
    again = run(only_folds=None, seeds=(0, 1))
    assert set(again.sources.values()) == {"published"} and again.published is None
    assert "as published" in again.summary
    pd.testing.assert_frame_equal(again.predictions, made.predictions)
    pd.testing.assert_frame_equal(again.validation, made.validation)
    pd.testing.assert_frame_equal(again.history, made.history, atol=1e-5)
    assert again.first_model == (0, 1) and not again.models[1, 2].is_file()
    with pytest.raises(FileNotFoundError, match="seed 1, fold 2: .*retrain=True"):
        again.load_model(seed=1, fold=2)
    tested = made.predictions.query("seed == 0 and fold == 1")
    rows = pd.Index(TABLE["utterance"]).get_indexer(tested["utterance"])
    said = again.load_model(seed=0, fold=1).predict(FEATURES.values[rows], verbose=0)
    np.testing.assert_allclose(said, tested.filter(regex="^p_"), atol=0.01)
    part = run(only_folds=np.array([2]))
    assert len(part.predictions) == len(made.predictions.query("seed == 0 and fold == 2"))


def test_saving_a_published_run_again_writes_nothing(folders):
    publish(run(only_folds=None), folders)
    path = save_results(run(only_folds=None), notebook="99_test", title="Toy")
    assert path == folders / "results/99_test/toy__speaker_5fold.json"
    assert not (folders / "runs").exists()
    other = save_results(
        run(only_folds=None, config=replace(CONFIG, epochs=1)), notebook="99_test", title="Toy"
    )
    assert other.is_file() and other.is_relative_to(folders / "runs")
    save_results(run(only_folds=None), notebook="99_test", title="Toy")
    assert not [*other.parent.glob(f"{other.stem}.*")]
    for named in ({"title": "Toy, renamed"}, {"title": "Toy", "ablation": True}):
        renamed = save_results(run(only_folds=None), notebook="99_test", **named)
        assert renamed == other and json.loads(other.read_text())["title"] == named["title"]


def test_the_exported_model_is_half_as_large(folders):
    def build(input_shape, num_classes):
        model = build_model(input_shape, num_classes)
        x = keras.layers.Dense(20_000, name="wide")(model.get_layer("pool").output)
        x = keras.layers.Dense(num_classes, activation="softmax", name="emotions")(x)
        return keras.Model(model.input, x, name="toy")

    result = run(build=build)
    result.export_model(folders / "small.keras")
    sizes = []
    for path in (result.models[0, 1], folders / "small.keras"):
        with zipfile.ZipFile(path) as file:
            sizes.append(file.getinfo("model.weights.h5").file_size)
    assert sizes[1] < 0.6 * sizes[0]


def test_a_fold_of_other_rows_is_not_taken_from_published_ones(folders):
    publish(run(only_folds=None), folders)
    path = folders / "results/99_test/toy__speaker_5fold.json"
    content = json.loads(path.read_text())
    content["folds"]["0/1"] = "00000000"
    path.write_text(json.dumps(content))
    sources = run(only_folds=None).sources
    assert sources[0, 1] == "trained" and set(sources.values()) == {"trained", "published"}


def test_training_anew_stands_beside_the_published(folders):
    made = run(only_folds=None)
    publish(made, folders)
    again = run(only_folds=None, retrain=True)
    assert set(again.sources.values()) == {"trained"}
    pd.testing.assert_frame_equal(again.published, made.predictions)


# Folds of one's own


def test_folds_of_ones_own_are_used_and_checked():
    number = TABLE["speaker"].str[1:].astype(int).to_numpy()
    fold = Fold(1, *(np.flatnonzero(part) for part in (number <= 3, number == 4, number > 4)))
    result = run(folds=[fold])
    assert set(result.predictions["speaker"]) == {"s05", "s06"}
    assert set(result.validation["speaker"]) == {"s04"}
    leaky = replace(fold, train=np.flatnonzero(number <= 5))
    with pytest.raises(ValueError, match="is in train and in"):
        run(folds=[leaky])


# Damage


def lose_rows(text: str) -> str:
    return "".join(text.splitlines(keepends=True)[:-3])


DAMAGE = {  # a file of a fold, and what becomes of its text; None: it is gone
    "rows lost": ("predictions.csv", lose_rows),
    "a row twice": ("predictions.csv", lambda text: text + text.splitlines()[-1] + "\n"),
    "other labels": ("predictions.csv", lambda text: text.replace("happy", "sad")),
    "no history": ("history.csv", None),
    "no model": ("model.keras", None),
    "empty facts": ("facts.json", lambda text: ""),
    "null facts": ("facts.json", lambda text: "null"),
}


@pytest.mark.parametrize("damage", [*DAMAGE, "rows lost, which no hash tells"])
def test_a_damaged_fold_is_told_and_made_again(damage):
    made = run()
    folder = made.models[0, 1].parent
    name, change = DAMAGE[damage.partition(",")[0]]
    if change is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(change((folder / name).read_text()))
    if damage not in DAMAGE:
        facts = json.loads((folder / "facts.json").read_text()) | {"files": {}}
        (folder / "facts.json").write_text(json.dumps(facts))
    with pytest.warns(UserWarning, match=r"seed0_fold1_\w+: damaged .*; trained anew") as caught:
        again = run()
    assert sum("damaged" in str(warning.message) for warning in caught) == 1
    assert again.sources == {(0, 1): "trained"}
    pd.testing.assert_frame_equal(again.predictions, made.predictions)
    assert run().sources == {(0, 1): "stored"}


@pytest.mark.parametrize("state", [b"", b"no archive", "of another model", "cut"])
def test_a_damaged_state_is_told_and_begun_anew(state, monkeypatch):
    made = run()
    folder = made.models[0, 1].parent
    (folder / "facts.json").unlink()
    path = folder / "state.npz"
    if state == "of another model":
        notes = json.dumps({"history": [{}], "best_epoch": 0, "seconds": 1.0})
        np.savez(path, notes=notes, **{f"value_{number}": np.zeros(3) for number in range(300)})
    elif state == "cut":
        np.savez(path, model_0=np.zeros(1000))
        path.write_bytes(path.read_bytes()[:-200])
    else:
        path.write_bytes(state)
    with pytest.warns(UserWarning, match="state.npz: damaged .*; begun anew"):
        again = run()
    pd.testing.assert_frame_equal(again.predictions, made.predictions)


def test_validation_rows_are_predicted_by_the_epoch_that_was_kept():
    result = run(config=replace(CONFIG, epochs=4))
    history = result.history
    assert history["epoch"].tolist() == [0, 1, 2, 3]
    assert history[["loss", "validation_loss", "validation_uar"]].notna().all(axis=None)
    best = history.sort_values(["validation_uar", "validation_loss"], ascending=[False, True])
    assert result.validation["correct"].mean() == pytest.approx(best["validation_wa"].iloc[0])
    kept = read_predictions(result.models[0, 1].with_name("validation.csv"))
    pd.testing.assert_frame_equal(kept, result.validation)
    unselected = replace(CONFIG, monitor=None)
    assert run(config=unselected).validation.empty
    again = run(config=unselected)
    assert again.sources == {(0, 1): "stored"} and again.validation.empty


def test_what_a_killed_training_left_in_a_finished_fold_goes_when_it_is_read():
    folder = run().models[0, 1].parent
    old, young, growing = (folder / f".unfinished-{name}" for name in ("old", "young", "growing"))
    hours_ago = time.time() - 7_200
    for left in (old, young, growing):
        left.mkdir()
        (left / "state.npz").touch()
    os.utime(old / "state.npz", (hours_ago, hours_ago))
    for left in (old, growing):
        os.utime(left, (hours_ago, hours_ago))
    assert run().sources == {(0, 1): "stored"}
    assert not old.exists()
    assert young.exists() and growing.exists()  # a process may still be writing
