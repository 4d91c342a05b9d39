"""The model that is put to use: trained on every row of a table, tested on other corpora."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from common import paths
from common.backend import describe_backend, describe_scikit_learn
from common.baselines import fit_classifier, flatten_versions, make_regression
from common.cross_validation import Start, run_folds, train_fold
from common.emotions import order_emotions
from common.enrolment import EnrolledSystem, name_candidate
from common.evaluation import fit_temperature
from common.files import describe_settings, digest
from common.known_voices import fold_scaler, write_voices
from common.models import BuildModel, build_seeded, check_model, describe_model
from common.recipes import Features
from common.runs import Run, Task, describe_data, read_stored_fold
from common.splits import Fold
from common.training import TrainingConfig


def fit_all(
    build_model: BuildModel,
    table: pd.DataFrame,
    features: Features,
    *,
    config: TrainingConfig,
    seed: int = 0,
    retrain: bool = False,
    runs_folder: Path | None = None,
) -> tuple[keras.Model, dict]:
    """Train a model on all rows, as `cross_validate` trains on those of a fold.

    Nothing is left to test it on: its score is that of `cross_validate` with the same settings,
    whose models heard fewer speakers. An interrupted training goes on from its last epoch; what is
    finished in `data/runs` is read back, unless `retrain`.

    Returned are the model, of features as extracted (rows, frames, bands) -> probabilities (rows,
    classes), in the order of `order_emotions`; and the facts of the training: key, emotions, rows,
    speakers, settings, seconds, backend, device, versions. Raises ValueError if `config.monitor`
    would choose an epoch, for which no rows are left; else as `cross_validate`.
    """
    if config.monitor is not None:
        raise ValueError(
            f"monitor={config.monitor!r} chooses an epoch on rows that are not trained on, and all "
            "are: give monitor=None"
        )
    key, model, shape = _prepare(build_model, table, features, config=config, seed=seed)
    folder = (runs_folder or paths.RUNS_DIR) / key / "all"
    rows = np.arange(len(table))
    fold = Fold(0, rows, rows[:0], rows[:0])
    result = None if retrain else read_stored_fold(folder, table, fold)
    if result is None:
        check_model(model, *shape)
        settings = {"config": config, "seed": seed, "folder": folder}
        result = train_fold(build_model, table, features, fold=fold, **settings)
    facts = {**result.facts, **_describe_rows(table, key), "training": asdict(config)}
    model = keras.models.load_model(folder / "model.keras")
    return model, facts | {"features": features.describe()}


def start_from(
    build_model: BuildModel,
    table: pd.DataFrame,
    features: Features,
    *,
    config: TrainingConfig,
    fresh: Sequence[str] = ("emotions",),
) -> Start:
    """Let the folds of `cross_validate` start from what all rows of another corpus taught.

    `fit_all` makes this first stage when a fold is trained, once per seed. Its weights are taken
    over but those of the layers named in `fresh`, since another corpus may have other emotions.
    The features are made as those of the folds; speakers of the folds are not among the rows.
    Raises ValueError, before anything is trained, where weights to take over differ in shape.
    """
    key, stage, _ = _prepare(build_model, table, features, config=config, seed=0)

    def assign(model: keras.Model, seed: int, fold: int) -> None:
        for layer, other in zip(model.layers, stage.layers, strict=True):
            shapes, given = ([w.shape for w in part.weights] for part in (layer, other))
            if layer.name not in fresh and shapes != given:
                raise ValueError(
                    f"layer {layer.name!r} has weights of {shapes} and of {given} in the first "
                    f"stage: name it in fresh, which has {list(fresh)}"
                )
        settings = {"config": config, "seed": seed}
        learnt = fit_all(build_model, table, features, **settings)[0].layers[-1]
        for layer, taught in zip(model.layers, learnt.layers, strict=True):
            if layer.name not in fresh:
                layer.set_weights(taught.get_weights())

    return Start({"first stage": key, "fresh": list(fresh)}, assign)


def _prepare(
    build_model: BuildModel,
    table: pd.DataFrame,
    features: Features,
    *,
    config: TrainingConfig,
    seed: int,
) -> tuple[str, keras.Model, tuple]:
    """Give the key of a training on all rows, its model before that, and the model's shape."""
    shape = features.shape[1:], table["emotion"].nunique()
    model = build_seeded(build_model, *shape, seed=seed)
    description = {
        **describe_data(table, features, protocol="all rows"),
        "training": describe_settings(config, changed=True),
        "model": describe_model(model),
        "seed": seed,
    }
    return digest(description), model, shape


def fit_linear(
    table: pd.DataFrame,
    features: Features,
    *,
    system: EnrolledSystem | None = None,
    use_copies: bool = False,
    count: int = 16,
    num_draws: int = 2,
) -> tuple[keras.Model, dict[str, np.ndarray] | None, dict]:
    """Train linear layers on all rows: one for strangers, and with a `system` one for known voices.

    The first is `make_regression` with its scaling, with `use_copies` fitted to augmented copies as
    well; the second the first candidate of the system, calibrated by what the folds say of test
    speakers of whom `count` utterances are heard. Raises ValueError as `EnrolledSystem.test`.

    Returned are the first as a network, features (rows, …) -> probabilities (rows, classes), in
    the order of `order_emotions`; the second as a recogniser's `voices`, or None; and the facts of
    the training: key, corpus, emotions, utterances, speakers, backend, device, versions.
    """
    labels, speakers = (table[name].to_numpy() for name in ("emotion", "speaker"))
    emotions, regression = tuple(order_emotions(labels)), make_regression()
    versions = flatten_versions(features, use_copies)
    heard = (np.tile(names, len(versions)) for names in (labels, speakers))
    fitted, _ = fit_classifier(regression, np.concatenate(versions), *heard)
    inputs = keras.Input(features.values.shape[1:], name="states")
    outputs = keras.layers.Dense(len(emotions), activation="softmax", name="emotions")
    flat = keras.layers.Flatten(name="side_by_side")(inputs)
    head = keras.Model(inputs, outputs(flat), name="head")
    head.set_weights(fold_scaler(fitted, emotions))
    description = describe_data(table, features, protocol="all rows") | {"model": repr(regression)}
    if use_copies:
        description["versions"] = "original and copies"
    voices = None
    if system is not None:
        known = system.test(count, num_draws=num_draws)
        voices = write_voices(system.fit_all(), emotions, fit_temperature(known.predictions))
        description |= {"voices": name_candidate(system.candidates[0])}
    facts = _describe_rows(table, digest(description)) | describe_scikit_learn()
    return head, voices, facts


def _describe_rows(table: pd.DataFrame, key: str) -> dict:
    """Name what a training on all rows has learnt from."""
    return {
        "key": key,
        "corpus": "+".join(sorted(table["corpus"].unique())),
        "emotions": order_emotions(table["emotion"]),
        "utterances": len(table),
        "speakers": int(table["speaker"].nunique()),
    }


def score_elsewhere(
    recognizer, table: pd.DataFrame, features: Features, *, merged: dict[str, str]
) -> Run:
    """Test a recogniser on all rows of another corpus, or read back where that is published.

    `features` are what its recipe gives of the table; `merged` names the emotions of the recogniser
    that count as another one, such as {"calm": "neutral"}. Emotions that the table does not have
    are left out of its answers. The protocol is "trained_on_ravdess" and the like, after
    `facts["corpus"]`. Raises ValueError if the table has an emotion that it does not know.
    """
    emotions = order_emotions(table["emotion"])
    unknown = sorted(set(emotions) - set(recognizer.emotions))
    if unknown:
        raise ValueError(f"the recogniser does not know {unknown}: leave these rows out")
    rows = np.arange(len(table))
    tasks = {(0, 1): Fold(1, rows[:0], rows[:0], rows)}
    protocol = f"trained_on_{recognizer.facts['corpus']}"
    training = {"model": recognizer.facts["key"], "merged": merged}
    description = {
        **describe_data(table, features, protocol=protocol),
        **{"training": training, "model": recognizer.facts["title"], "start": None},
    }

    def test(*_: Task | Fold) -> tuple[np.ndarray, pd.DataFrame, dict]:
        given = recognizer.predict_features(features.values)
        probabilities = np.zeros((len(table), len(emotions)))
        for emotion, column in zip(recognizer.emotions, given.T, strict=True):
            counted = emotion if emotion in emotions else merged.get(emotion)
            if counted in emotions:
                probabilities[:, emotions.index(counted)] += column
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        return probabilities, pd.DataFrame(), describe_backend()

    parameters = recognizer.network.count_params()
    return run_folds(description, table, features, tasks, test, num_parameters=parameters)
