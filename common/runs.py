"""Runs of cross-validation: what names them, where they are kept, and reading them back."""

import json
import shutil
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from common.files import UNFINISHED, digest, hash_file, sweep, write_atomically, write_json
from common.models import halve_precision
from common.predictions import read_predictions
from common.recipes import Features
from common.results import SUFFIXES, find_published
from common.splits import Fold, check_folds, make_folds

RUN_FORMAT = 2  # raised when a default setting or the code behind a number changes
FACTS = "facts.json"
Task = tuple[int, int]  # seed and number of a fold


@dataclass(frozen=True)
class FoldResult:
    """What one fold gave: predictions of its test and validation rows, curves, and facts.

    `facts` has seconds, backend, device and versions. `source` is "trained" (now), "stored"
    (in `data/runs`) or "published" (in `results/`).
    """

    predictions: pd.DataFrame
    validation: pd.DataFrame
    history: pd.DataFrame
    facts: dict
    source: str


@dataclass(frozen=True)
class Run:
    """What `cross_validate` gives: one row per test prediction, curves, and what decided them.

    `predictions` and `validation` are predictions tables of the test and of the validation rows
    (empty where nothing was chosen on them), `history` holds one row per epoch (empty where no
    curves are kept), `folder` the folds that were trained here. `sources` says of each fold what
    `FoldResult` says. `published` has the published predictions of the same run where this one
    was made here, else None. `complete` tells that no fold of the protocol was left out.
    """

    predictions: pd.DataFrame
    validation: pd.DataFrame
    history: pd.DataFrame
    description: dict
    folder: Path
    models: Mapping[Task, Path]
    sources: Mapping[Task, str]
    published: pd.DataFrame | None
    complete: bool

    @property
    def first_model(self) -> Task | None:
        """Seed and fold of the first model that is at hand."""
        return next((task for task, path in self.models.items() if path.is_file()), None)

    def load_model(self, *, seed: int, fold: int) -> keras.Model:
        """Load the model of one fold in safe mode; `models.look_inside` opens it.

        It takes features as extracted. Raises FileNotFoundError where it is not at hand, ValueError
        if that fold was never run.
        """
        if (seed, fold) not in self.sources:
            raise ValueError(
                f"the run has no seed {seed}, fold {fold}; it has {[*self.sources]} (seed, fold)"
            )
        path = self.models.get((seed, fold))
        if path is None or not path.is_file():
            raise FileNotFoundError(f"seed {seed}, fold {fold}: {self.explain_missing_model}")
        return keras.models.load_model(path)

    def export_model(self, path: Path) -> None:
        """Copy the first model at hand, its weights in half precision, as a `.keras` file."""
        with write_atomically(path) as new:
            shutil.copyfile(self.models[self.first_model], new)
            halve_precision(new)

    @property
    def explain_missing_model(self) -> str:
        """What to run to have the models of this run."""
        minutes = max(1, round(self.description["seconds"] / 60))
        return (
            "the trained model is not at hand, since the published predictions were read; "
            f"cross_validate(…, retrain=True) trains it (some {minutes} minutes for all folds)"
        )

    @property
    def summary(self) -> str:
        """One sentence: what was run, what was read back, how long the training took."""
        facts, sources = self.description, [*self.sources.values()]
        words = {"trained": "trained now", "stored": "trained before", "published": "as published"}
        counts = [f"{sources.count(kind)} {words[kind]}" for kind in words if kind in sources]
        seeds = ", ".join(map(str, facts["seeds"]))
        return (
            f"{facts['protocol']} on {facts['corpus']}, seed{'s' * (len(facts['seeds']) > 1)} "
            f"{seeds}: folds {', '.join(counts)}; {facts['seconds'] / 60:.1f} minutes of training"
        )


def describe_data(
    table: pd.DataFrame, features: Features, *, protocol: str, folds: Sequence[Fold] | None = None
) -> dict:
    """Name what is learnt from and how it is split; refuse features of another table."""
    if len(table) != len(features):
        raise ValueError(
            f"{len(table)} utterances but {len(features)} feature rows; "
            "extract the features of this very table"
        )
    own = None if folds is None else name_folds({(0, fold.number): fold for fold in folds})
    return {
        "format": RUN_FORMAT,
        "corpus": "+".join(sorted(table["corpus"].unique())),
        "protocol": protocol,
        "own_folds": own,
        "table": digest(table[["utterance", "speaker", "emotion", "audio_hash"]].to_csv()),
        "features": features.describe(changed=True),
    }


def name_folds(folds: Mapping[Task, Fold]) -> dict[str, str]:
    """Name each fold, such as "0/1" for seed 0 and fold 1, by the rows of its parts."""
    names = {}
    for (seed, number), fold in folds.items():
        rows = [part.tolist() for part in (fold.train, fold.validation, fold.test)]
        names[f"{seed}/{number}"] = digest(rows)[:8]
    return names


def store_fold(folder: Path, result: FoldResult) -> None:
    """Keep what a fold gave; `facts.json` comes last and names the others by their hash."""
    files = {f"{name}.csv": name for name in ("predictions", "validation", "history")}
    for file, name in files.items():
        with write_atomically(folder / file) as temporary:
            getattr(result, name).to_csv(temporary, index=False)
    hashes = {file: hash_file(folder / file) for file in (*files, "model.keras")}
    write_json(folder / FACTS, {**result.facts, "files": hashes})


def read_stored_fold(folder: Path, table: pd.DataFrame, fold: Fold) -> FoldResult | None:
    """Read what `store_fold` kept, if anything; warn of damage and throw away what has it.

    What a killed training left of unfinished files goes: a finished fold is not written to again.
    """
    sweep(folder, f"{UNFINISHED}*")
    if not (folder / FACTS).exists():
        return None
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        for name, kept in facts.pop("files").items():
            if hash_file(folder / name) != kept:
                raise ValueError(f"{name} is not what was written")
        files = folder / "predictions.csv", folder / "validation.csv"
        predictions, validation = (
            read_predictions(csv) if len(rows) else pd.read_csv(csv)
            for csv, rows in zip(files, (fold.test, fold.validation), strict=True)
        )
        _check_rows(predictions, table, fold.test)
        history = pd.read_csv(folder / "history.csv")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        warnings.warn(f"{folder}: damaged ({error}); trained anew", stacklevel=3)
        shutil.rmtree(folder)
        return None
    return FoldResult(predictions, validation, history, facts, "stored")


def read_published_folds(
    key: str, table: pd.DataFrame, folds: Mapping[Task, Fold]
) -> tuple[dict[Task, FoldResult], dict[Task, Path]]:
    """Read those of the folds that are published under a key, and the models beside them."""
    results, models = {}, {}
    names = name_folds(folds)
    for content in find_published(key):
        csv = content["csv"]
        curves, model = (
            csv.with_name(csv.name.removesuffix(".xz")).with_suffix(SUFFIXES[kind])
            for kind in ("history", "model")
        )
        rows = {part: read_predictions(csv, part=part) for part in ("test", "validation")}
        history = pd.read_csv(curves) if curves.is_file() else pd.DataFrame()
        seconds = content["seconds"] / max(1, len(content["folds"]))
        facts = {name: content[name] for name in ("backend", "device", "versions")}
        for (seed, number), fold in folds.items():
            name = f"{seed}/{number}"
            if (seed, number) in results or content["folds"].get(name) != names[name]:
                continue
            parts = [
                frame[(frame["seed"] == seed) & (frame["fold"] == number)] if len(frame) else frame
                for frame in (rows["test"], rows["validation"], history)
            ]
            _check_rows(parts[0], table, fold.test)
            results[seed, number] = FoldResult(*parts, {**facts, "seconds": seconds}, "published")
            if name == content.get("model_of"):
                models[seed, number] = model
    return results, models


def _check_rows(predictions: pd.DataFrame, table: pd.DataFrame, rows: np.ndarray) -> None:
    """Raise ValueError unless these rows of the table, and no others, are predicted once each."""
    expected = table.iloc[rows].set_index("utterance")["emotion"].sort_index()
    found = predictions.set_index("utterance")["true_label"].sort_index()
    if not (found.index.equals(expected.index) and (found == expected).all()):
        raise ValueError("the predictions are not of this fold's test rows")
    if not np.isfinite(predictions.filter(regex="^p_").to_numpy(float)).all():
        raise ValueError("a probability is not finite")


def list_tasks(
    table: pd.DataFrame,
    protocol: str,
    seeds: Sequence[int],
    folds: Sequence[Fold] | None,
    only_folds: Collection[int] | None,
) -> tuple[dict[Task, Fold], bool]:
    """The folds by seed and number, and whether none was left out."""
    unfit = not isinstance(seeds, Sequence) or not seeds
    if unfit or not all(isinstance(seed, Integral) and seed >= 0 for seed in seeds):
        raise ValueError(f"seeds={seeds!r}: give a list of whole numbers from 0, such as [0]")
    if folds is not None:
        check_folds(table, folds, protocol)
    every = {
        (seed, fold.number): fold
        for seed in seeds
        for fold in (make_folds(table, protocol, seed=seed) if folds is None else folds)
    }
    numbers = {number for _, number in every}
    given = {*only_folds} if isinstance(only_folds, Collection) else set()
    wanted = numbers if only_folds is None else given
    if not wanted or not numbers >= wanted:
        raise ValueError(f"only_folds={only_folds}: give a list of some of {sorted(numbers)}")
    tasks = {task: fold for task, fold in every.items() if task[1] in wanted}
    return tasks, len(tasks) == len(every)
