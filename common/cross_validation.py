"""Cross-validation: one model per fold and seed, kept on disk, its test rows predicted."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

import keras
import numpy as np
import pandas as pd
from joblib import Parallel, delayed

from common import paths
from common.backend import describe_backend, join_names, prepare_backend
from common.batches import Examples
from common.caching import check_finite
from common.emotions import order_emotions
from common.files import describe_settings, digest
from common.models import BuildModel, build_seeded, check_model, describe_model, save_model
from common.networks import run_network
from common.optimizers import Trainee
from common.predictions import tabulate_predictions
from common.recipes import Features
from common.runs import (
    FoldResult,
    Run,
    Task,
    describe_data,
    list_tasks,
    name_folds,
    read_published_folds,
    read_stored_fold,
    store_fold,
)
from common.splits import Fold
from common.threads import use_one_thread
from common.training import TrainingConfig, train_model


@dataclass(frozen=True)
class Start:
    """Weights that training starts from in the place of random ones.

    `description` names them in the run's key, as JSON can write it; `assign(model, seed, fold
    number)` puts them into a model that was just built.
    """

    description: dict
    assign: Callable[[keras.Model, int, int], None]


def cross_validate(
    build_model: BuildModel,
    table: pd.DataFrame,
    features: Features,
    *,
    protocol: str,
    config: TrainingConfig,
    seeds: Sequence[int] = (0,),
    folds: Sequence[Fold] | None = None,
    only_folds: Collection[int] | None = None,
    start: Start | None = None,
    jobs: int = 1,
    tensorboard: bool = False,
    retrain: bool = False,
    runs_folder: Path | None = None,
) -> Run:
    """Train and test a model on every fold of a protocol (a key of `PROTOCOLS`), once per seed.

    A fold that is finished in `data/runs/<key>` or published in `results/` under that key is
    read back; with `retrain` the published ones are trained here all the same. An unfinished one
    is continued from its last epoch, with the same result as if it had never stopped.

    Parameters
    ----------
    build_model
        (input_shape, num_classes) -> uncompiled keras.Model that ends in class probabilities.
    table
        Utterance table, row for row with `features`.
    seeds
        Each one gives other initial weights, batches, validation speakers and random splits.
    folds
        Folds of one's own, for every seed, in the place of those that `make_folds` gives for the
        protocol, which still says what they may share.
    only_folds
        Numbers of the folds to run for a first look; they are read back when all are run later.
    jobs
        Folds trained at once by processes of joblib with one thread each; its `parallel_config`
        may hand them to a cluster.
    tensorboard
        Whether to write curves for it into the run's folder.

    Raises
    ------
    ValueError
        If table and features differ in length, if the corpus cannot be split so, or if the model
        would fail after it was trained (`check_model`).
    """
    prepare_backend()
    emotions = order_emotions(table["emotion"])
    shape = features.shape[1:], len(emotions)
    model = build_seeded(build_model, *shape, seed=0)
    description = {
        **describe_data(table, features, protocol=protocol, folds=folds),
        "training": describe_settings(config, changed=True),
        "model": describe_model(model),
        "start": None if start is None else start.description,
    }
    key = digest(description)
    folder = (runs_folder or paths.RUNS_DIR) / key
    tasks, complete = list_tasks(table, protocol, seeds, folds, only_folds)
    if config.monitor is None:
        tasks = {task: fold.join_validation() for task, fold in tasks.items()}
    names = name_folds(tasks)
    folders = {
        (seed, number): folder / f"seed{seed}_fold{number}_{names[f'{seed}/{number}']}"
        for seed, number in tasks
    }
    results = {task: read_stored_fold(folders[task], table, tasks[task]) for task in tasks}
    published, models = read_published_folds(key, table, tasks)
    if not retrain:
        results = {task: found or published.get(task) for task, found in results.items()}
    wanted = [task for task, found in results.items() if found is None]
    trainee = _prepare(model, config, description["model"], shape) if wanted else None
    if wanted and config.use_copies:
        _ = features.copies  # made here, not by each worker
    settings = {"config": config, "start": start, "tensorboard": tensorboard}
    settings["trainee"] = trainee if jobs == 1 else None
    train = partial(train_fold, build_model, table, features, **settings)
    trained = Parallel(n_jobs=jobs, initializer=use_one_thread)(
        delayed(train)(fold=tasks[task], seed=task[0], folder=folders[task]) for task in wanted
    )
    results |= dict(zip(wanted, trained, strict=True))
    here = {task for task, result in results.items() if result.source != "published"}
    kept = {task: folders[task] / "model.keras" for task in tasks}
    return collect_run(
        results,
        {**description, "key": key, "folds": names, "num_parameters": model.count_params()},
        features=features,
        training=asdict(config),
        folder=folder,
        models=kept | {task: file for task, file in models.items() if task not in here},
        published=published if here else {},
        complete=complete,
    )


# The model that was trained last: the next run of its kind needs no new traces.
_last: dict[str, Trainee] = {}


def _prepare(model: keras.Model, config: TrainingConfig, described, shape: tuple) -> Trainee:
    """Check a model, and make it one that is trained again and again, unless the last one is it."""
    settings = asdict(config) | {"epochs": None}  # which decide the learning rate, outside of it
    key = digest([described, settings, shape])
    if key not in _last:
        check_model(model, *shape)
        _last.clear()
        _last[key] = Trainee(model, config)
    return _last[key]


def collect_run(
    results: Mapping[Task, FoldResult],
    description: dict,
    *,
    features: Features,
    training: dict,
    folder: Path | None = None,
    models: Mapping[Task, Path] = MappingProxyType({}),
    published: Mapping[Task, FoldResult] = MappingProxyType({}),
    complete: bool = True,
) -> Run:
    """Put the results of folds together, and write the settings out in full.

    `folder`, `models` and `published` are for runs that are kept fold by fold.
    """
    folder = folder or paths.RUNS_DIR / description["key"]

    def join(part: str, results: Mapping[Task, FoldResult] = results) -> pd.DataFrame:
        frames = [getattr(result, part) for result in results.values()]
        filled = [frame for frame in frames if len(frame)]
        return pd.concat(filled or frames, ignore_index=True) if frames else pd.DataFrame()

    facts = [result.facts for result in results.values()]
    return Run(
        join("predictions"),
        join("validation"),
        join("history"),
        {
            **description,
            "features": features.describe(),
            "training": training,
            "seeds": list(dict.fromkeys(seed for seed, _ in results)),
            "seconds": round(sum(fact["seconds"] for fact in facts), 1),
            "backend": join_names(fact["backend"] for fact in facts),
            "device": join_names(fact["device"] for fact in facts),
            "versions": facts[0]["versions"],
        },
        folder,
        models,
        {task: result.source for task, result in results.items()},
        join("predictions", published) if set(published) == set(results) else None,
        complete,
    )


def run_folds(
    description: dict,
    table: pd.DataFrame,
    features: Features,
    tasks: Mapping[Task, Fold],
    test: Callable[[Task, Fold], tuple[np.ndarray, pd.DataFrame, dict]],
    *,
    num_parameters: int | None = None,
    complete: bool = True,
) -> Run:
    """Test on every fold of `table`, or read back what is published under the description's digest.

    `test` gives the probabilities (rows, emotions) of a fold's test rows, then of its validation
    rows; rows of the run's `history`; and facts: backend, device, versions, and `seconds` unless
    they are those that it took.
    """

    def test_fold(task: Task, fold: Fold) -> FoldResult:
        started = time.perf_counter()
        probabilities, history, facts = test(task, fold)
        named = {"seed": task[0], "fold": task[1]}
        rows, tested = np.concatenate([fold.test, fold.validation]), len(fold.test)
        both = tabulate_predictions(table, rows, probabilities, **named)
        history = pd.DataFrame(named | dict(history), history.index)
        facts = {"seconds": time.perf_counter() - started, **facts}
        return FoldResult(both[:tested], both[tested:], history, facts, "trained")

    key, names = digest(description), name_folds(tasks)
    published, _ = read_published_folds(key, table, tasks)
    return collect_run(
        {task: published.get(task) or test_fold(task, fold) for task, fold in tasks.items()},
        {**description, "key": key, "folds": names, "num_parameters": num_parameters},
        features=features,
        training=description["training"],
        complete=complete,
    )


def train_fold(
    build_model: BuildModel,
    table: pd.DataFrame,
    features: Features,
    *,
    fold: Fold,
    config: TrainingConfig,
    seed: int,
    folder: Path,
    start: Start | None = None,
    trainee: Trainee | None = None,
    tensorboard: bool = False,
) -> FoldResult:
    """Train on one fold, predict its test rows and its validation rows, and keep both."""
    prepare_backend()
    emotions = order_emotions(table["emotion"])
    targets = np.eye(len(emotions), dtype=np.float32)[table["emotion"].map(emotions.index)]
    values = features.values
    check_finite(values, table["utterance"])
    normaliser = features.fit_normaliser(fold.train)
    train, validation = (normaliser.apply(values[rows]) for rows in (fold.train, fold.validation))
    copies = normaliser.apply(features.copies[fold.train]) if config.use_copies else None
    shape = values.shape[1:], len(emotions)
    fresh = build_seeded(build_model, *shape, seed=seed)
    if start is not None:
        start.assign(fresh, seed, fold.number)
    if trainee is None:
        trainee = Trainee(build_seeded(build_model, *shape, seed=seed), config)
    model = trainee.restart(fresh)
    history, seconds = train_model(
        model,
        Examples(train, targets[fold.train], copies),
        Examples(validation, targets[fold.validation]),
        config=config,
        seed=seed + 1000 * fold.number,
        state_path=folder / "state.npz",
        title=f"seed {seed}, fold {fold.number}",
        callbacks=[keras.callbacks.TensorBoard(str(folder / "tensorboard"))] * tensorboard,
    )
    names = {"seed": seed, "fold": fold.number}
    heard = ((fold.test, normaliser.apply(values[fold.test])), (fold.validation, validation))
    predictions = [
        tabulate_predictions(table, rows, run_network(model, inputs), **names)
        for rows, inputs in heard
    ]
    curves = pd.DataFrame([names | row for row in history])
    facts = {"seconds": round(seconds, 1), **describe_backend()}
    fresh.set_weights(model.get_weights())  # the optimiser is left behind
    save_model(fresh, normaliser.mean, normaliser.std, folder / "model.keras")
    result = FoldResult(*predictions, curves, facts, "trained")
    store_fold(folder, result)
    (folder / "state.npz").unlink(missing_ok=True)
    return result
