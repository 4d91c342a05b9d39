"""Cross-validation: one model per fold and seed, kept on disk, its test rows predicted."""

import ast
import inspect
import json
import logging
import platform
import random
import textwrap
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from joblib import Parallel, cpu_count, delayed

from common import paths
from common.batches import Examples
from common.emotions import order_emotions
from common.features import Features, Normaliser, fit_normaliser
from common.files import digest, write_atomically, write_json
from common.results import read_predictions
from common.splits import Fold, make_folds
from common.training import TrainingConfig, predict, train_model

RUN_FORMAT = 1
FINISHED = "facts.json"
NAME_KEYS = ("name", "keras_history", "input_layers", "output_layers")
BuildModel = Callable[[tuple[int, ...], int], keras.Model]


@dataclass(frozen=True)
class Run:
    """What `cross_validate` gives: one row per test prediction, curves, and what decided them.

    `num_loaded` of the `num_folds` folds were found finished in `folder` and not trained again.
    `fold_folders` gives the folder of each (seed, fold). `complete` tells that no fold of the
    protocol was left out.
    """

    predictions: pd.DataFrame
    history: pd.DataFrame
    description: dict
    folder: Path
    fold_folders: dict[tuple[int, int], Path]
    num_folds: int
    num_loaded: int
    complete: bool

    def load_model(self, *, seed: int, fold: int) -> keras.Model:
        """Load the model of one fold, which takes features as extracted, in safe mode."""
        return keras.models.load_model(self.fold_folders[seed, fold] / "model.keras")

    @property
    def summary(self) -> str:
        """One sentence: what was run, what was loaded, how long the training took."""
        facts = self.description
        return (
            f"{facts['protocol']} on {facts['corpus']}, seeds {facts['seeds']}: "
            f"{self.num_folds - self.num_loaded} folds trained now, {self.num_loaded} loaded "
            f"from run {self.folder.name}; {facts['seconds'] / 60:.1f} minutes of training "
            f"in all ({facts['backend']}, {facts['device']})"
        )


def cross_validate(
    build_model: BuildModel,
    table: pd.DataFrame,
    features: Features,
    *,
    protocol: str,
    config: TrainingConfig,
    seeds: Sequence[int] = (0,),
    only_folds: Collection[int] | None = None,
    jobs: int = 1,
    tensorboard: bool = False,
    runs_folder: Path | None = None,
) -> Run:
    """Train and test a model on every fold of a protocol, once per seed.

    Finished folds are kept under `data/runs/<key>`, and an unfinished one is continued from
    its last epoch, with the same result as if it had never stopped.

    Parameters
    ----------
    build_model
        (input_shape, num_classes) -> uncompiled keras.Model that ends in class probabilities.
    table
        Utterance table, row for row with `features`.
    protocol
        A key of `common.splits.PROTOCOLS`.
    seeds
        Each one gives other initial weights, batches, validation speakers and random splits.
    only_folds
        Numbers of the folds to run, for a first look; None runs them all. The rest can be run
        later, and these are then loaded.
    jobs
        Folds trained at once by joblib; its `parallel_config` may hand them to a cluster.
    tensorboard
        Whether to write curves for TensorBoard into the run's folder.

    Returns
    -------
    Run

    Raises
    ------
    ValueError
        If table and features differ in length, or the corpus cannot be split so.
    """
    prepare_backend()
    emotions = order_emotions(table["emotion"])
    model = build_seeded(build_model, features.values.shape[1:], len(emotions), seed=0)
    description = {
        **describe_data(table, features, protocol=protocol),
        "training": asdict(config),
        "model": describe_model(model),
    }
    folder = (runs_folder or paths.RUNS_DIR) / digest(description)
    num_parameters = model.count_params()
    every = [(seed, fold) for seed in seeds for fold in make_folds(table, protocol, seed=seed)]
    if config.monitor is None:
        every = [(seed, fold.join_validation()) for seed, fold in every]
    tasks = [task for task in every if only_folds is None or task[1].number in only_folds]
    if not tasks:
        numbers = sorted({fold.number for _, fold in every})
        raise ValueError(f"only_folds={only_folds} names none of the folds {numbers}")
    folders = {
        (seed, fold.number): folder / f"seed{seed}_fold{fold.number}_{_digest_rows(fold)}"
        for seed, fold in tasks
    }
    num_loaded = sum((fold_folder / FINISHED).exists() for fold_folder in folders.values())
    results = Parallel(n_jobs=jobs)(
        delayed(train_fold)(
            build_model,
            table,
            features,
            fold=fold,
            config=config,
            seed=seed,
            folder=folders[seed, fold.number],
            tensorboard=tensorboard,
        )
        for seed, fold in tasks
    )
    predictions, histories, facts = zip(*results, strict=True)
    description = {
        **description,
        "key": folder.name,
        "seeds": list(seeds),
        "num_parameters": num_parameters,
        "seconds": round(sum(fact["seconds"] for fact in facts), 1),
        "backend": " and ".join(sorted({fact["backend"] for fact in facts})),
        "device": " and ".join(sorted({fact["device"] for fact in facts})),
        "versions": facts[0]["versions"],
    }
    write_json(folder / "description.json", description)
    return Run(
        pd.concat(predictions, ignore_index=True),
        pd.concat(histories, ignore_index=True),
        description,
        folder,
        folders,
        num_folds=len(tasks),
        num_loaded=num_loaded,
        complete=len(tasks) == len(every),
    )


def describe_data(table: pd.DataFrame, features: Features, *, protocol: str) -> dict:
    """Name what is learnt from and how it is split; refuse features of another table."""
    if len(table) != len(features.values):
        raise ValueError(
            f"{len(table)} utterances but {len(features.values)} feature rows; "
            "extract the features of this very table"
        )
    return {
        "format": RUN_FORMAT,
        "corpus": "+".join(sorted(table["corpus"].unique())),
        "protocol": protocol,
        "table": digest(table[["utterance", "speaker", "emotion", "audio_hash"]].to_csv()),
        "features": features.description,
    }


def _digest_rows(fold: Fold) -> str:
    return digest([rows.tolist() for rows in (fold.train, fold.validation, fold.test)])[:8]


def train_fold(
    build_model: BuildModel,
    table: pd.DataFrame,
    features: Features,
    *,
    fold: Fold,
    config: TrainingConfig,
    seed: int,
    folder: Path,
    tensorboard: bool = False,
) -> tuple[pd.DataFrame, pd.DataFrame, dict]:
    """Train on one fold and predict its test rows, or load what was done before.

    Returns
    -------
    predictions, history, facts
        Tables as in `Run`, and a dict of seconds, backend, device and versions.
        `folder/model.keras` takes features as extracted: its first layer normalises them.
    """
    done = folder / FINISHED
    if done.exists():
        predictions = read_predictions(folder / "predictions.csv")
        return predictions, pd.read_csv(folder / "history.csv"), json.loads(done.read_text())
    emotions = order_emotions(table["emotion"])
    targets = np.eye(len(emotions), dtype=np.float32)[table["emotion"].map(emotions.index)]
    if features.normalise:
        normaliser = fit_normaliser(features.values[fold.train])
    else:
        normaliser = Normaliser.identity(features.values.shape[-1])

    def select(rows: np.ndarray, *, with_copies: bool) -> Examples:
        copies = normaliser.apply(features.copies[rows]) if with_copies else None
        return Examples(normaliser.apply(features.values[rows]), targets[rows], copies)

    model = build_seeded(build_model, features.values.shape[1:], len(emotions), seed=seed)
    history, seconds = train_model(
        model,
        select(fold.train, with_copies=True),
        select(fold.validation, with_copies=False),
        config=config,
        seed=seed + 1000 * fold.number,
        state_path=folder / "state.npz",
        title=f"seed {seed}, fold {fold.number}",
        callbacks=[keras.callbacks.TensorBoard(str(folder / "tensorboard"))] * tensorboard,
    )
    probabilities = predict(model, normaliser.apply(features.values[fold.test]))
    predictions = tabulate_predictions(table, fold, probabilities, seed=seed)
    history = pd.DataFrame([{"seed": seed, "fold": fold.number, **row} for row in history])
    facts = {
        "seconds": round(seconds, 1),
        "backend": keras.backend.backend(),
        "device": describe_device(),
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("keras", "tensorflow", "jax", "librosa", "numpy")},
    }
    _save_model(model, normaliser, folder / "model.keras")
    for name, frame in (("predictions", predictions), ("history", history)):
        with write_atomically(folder / f"{name}.csv") as temporary:
            frame.to_csv(temporary, index=False)
    write_json(done, facts)
    (folder / "state.npz").unlink(missing_ok=True)
    return predictions, history, facts


def describe_model(model: keras.Model) -> str:
    """Digest of an architecture: its layers and settings, and the code of custom layers.

    Names that Keras numbers through a session do not count, nor do comments and docstrings.
    """
    parts = list(model._flatten_layers())
    operations = [step for part in parts for step in getattr(part, "operations", ())]
    steps = {id(step) for step in operations}
    numbers: dict[tuple[bool, str], str] = {}  # a layer inside another may share a step's name
    for part in [*parts, *operations]:
        numbers.setdefault((id(part) in steps, part.name), f"part_{len(numbers)}")
    names = {name: number for (_, name), number in sorted(numbers.items())}  # steps prevail

    def rename(value, *, is_name: bool = False):
        if isinstance(value, dict):
            return {key: rename(item, is_name=key in NAME_KEYS) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [rename(item, is_name=is_name) for item in value]
        return names.get(value, value) if is_name and isinstance(value, str) else value

    classes = {kind for part in parts for kind in type(part).__mro__}
    custom = sorted(
        _strip_source(kind)
        for kind in classes
        if issubclass(kind, keras.layers.Layer) and not kind.__module__.startswith("keras")
    )
    config = json.loads(json.dumps(model.get_config(), default=str))
    return digest([rename(config), custom])


def _strip_source(kind: type) -> str:
    """Code of a class's methods, which Python also finds for a class defined in a notebook."""
    members = (
        getattr(item, "fget", getattr(item, "__func__", item)) for item in vars(kind).values()
    )
    methods = [inspect.unwrap(member) for member in members if inspect.isfunction(member)]
    sources = "\n".join(textwrap.dedent(inspect.getsource(method)) for method in methods)
    tree = ast.parse(sources)
    for node in ast.walk(tree):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node):
            node.body = node.body[1:] or [ast.Pass()]
    return f"{kind.__name__}\n{ast.unparse(tree)}"


def prepare_backend() -> None:
    """Let TensorFlow take GPU memory as it needs it, and trace one model after another quietly."""
    if keras.backend.backend() != "tensorflow":
        return
    import tensorflow

    for device in tensorflow.config.list_physical_devices("GPU"):
        if not tensorflow.config.experimental.get_memory_growth(device):
            tensorflow.config.experimental.set_memory_growth(device, True)
    tensorflow.get_logger().addFilter(_is_not_about_tracing)


def _is_not_about_tracing(record: logging.LogRecord) -> bool:
    """Each fold has a model of its own, which TensorFlow takes for one that is traced too often."""
    return "triggered tf.function retracing" not in record.getMessage()


def describe_device() -> str:
    """Name what the backend computes on: the GPU, or the processor and its cores."""
    if keras.backend.backend() == "jax":
        import jax

        kinds = [device.device_kind for device in jax.devices() if device.platform != "cpu"]
    else:
        import tensorflow

        gpus = tensorflow.config.list_physical_devices("GPU")
        details = [tensorflow.config.experimental.get_device_details(gpu) for gpu in gpus]
        kinds = [detail.get("device_name", "GPU") for detail in details]
    num_cores = cpu_count()
    return kinds[0] if kinds else f"CPU, {num_cores} core{'s' * (num_cores > 1)}"


def build_seeded(
    build_model: BuildModel, input_shape: Sequence[int], num_classes: int, *, seed: int
) -> keras.Model:
    """Build a model whose initial weights and dropout follow `seed`, and nothing else does."""
    with _python_seed(seed):
        return build_model(tuple(input_shape), num_classes)


@contextmanager
def _python_seed(seed: int) -> Iterator[None]:
    """Keras draws the seeds of initialisers and dropout from Python's generator."""
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)


def _save_model(model: keras.Model, normaliser: Normaliser, path: Path) -> None:
    """Save a model that takes features as extracted: normalisation is its first layer."""
    inputs = keras.Input(model.input_shape[1:], name="features")
    normalise = keras.layers.Normalization(
        axis=-1, mean=normaliser.mean, variance=normaliser.std**2, name="normalise"
    )
    with write_atomically(path) as temporary:
        keras.Model(inputs, model(normalise(inputs)), name=model.name).save(temporary)


def tabulate_predictions(
    table: pd.DataFrame, fold: Fold, probabilities: np.ndarray, *, seed: int
) -> pd.DataFrame:
    """Write probabilities (test rows, emotions) of a fold as a predictions table."""
    emotions = order_emotions(table["emotion"])
    rows = table.iloc[fold.test]
    predicted = np.array(emotions)[probabilities.argmax(axis=1)]
    facts = {
        "utterance": rows["utterance"].to_numpy(),
        "speaker": rows["speaker"].to_numpy(),
        "fold": fold.number,
        "seed": seed,
        "true_label": rows["emotion"].to_numpy(),
        "predicted_label": predicted,
        "correct": predicted == rows["emotion"].to_numpy(),
    }
    facts |= {
        f"p_{emotion}": probabilities[:, index].astype(float).round(4)
        for index, emotion in enumerate(emotions)
    }
    return pd.DataFrame(facts)
