"""Nested hyper-parameter search: settings chosen on inner speakers of each outer fold, tested once.

Nested cross-validation as Varma and Simon (BMC Bioinformatics 2006) have it, by speakers.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from optuna.distributions import BaseDistribution, distribution_to_json
from sklearn.metrics import recall_score
from sklearn.model_selection import GroupKFold

from common import paths
from common.backend import describe_backend, prepare_backend
from common.batches import Examples
from common.cross_validation import run_folds
from common.emotions import order_emotions
from common.files import describe_settings, digest
from common.models import BuildModel, build_seeded, check_model, describe_model
from common.networks import run_network
from common.optimizers import TRACED, Trainee
from common.recipes import Features
from common.runs import Run, Task, describe_data, list_tasks
from common.splits import Fold, get_protocol
from common.studies import COLUMNS, Settings, choose_settings, open_storage, search
from common.training import TrainingConfig, train_model


@dataclass(frozen=True, eq=False)
class NestedSearch:
    """A search among the settings of a network, in each fold of a protocol by speaker.

    Parameters
    ----------
    build_model
        `(input_shape, num_classes, **settings)` -> uncompiled keras.Model.
    space, defaults
        Optuna's distribution of each setting, and its value where nothing is searched. Settings
        that `TrainingConfig` has go into `config`, the others to `build_model`.
    table, features, protocol, config
        As in `cross_validate`; `config` chooses no epoch (`monitor=None`), so that test and inner
        validation speakers are treated alike. Copies are not used.
    num_inner
        Parts of a fold's training speakers; a trial leaves each out once, and trains on the rest.
    seed
        Of initial weights, batches and what samplers draw.
    storage
        Journal file or database URL (`open_storage`); None: a journal below `data/runs`.

    Raises
    ------
    ValueError
        If the configuration chooses epochs, or the protocol is not by speaker.
    """

    build_model: Callable[..., keras.Model]
    space: Mapping[str, BaseDistribution]
    defaults: Settings
    table: pd.DataFrame
    features: Features
    protocol: str
    config: TrainingConfig
    num_inner: int = 3
    seed: int = 0
    storage: str | Path | None = None

    def __post_init__(self) -> None:
        if self.config.monitor is not None:
            raise ValueError(f"monitor={self.config.monitor!r} chooses epochs; set monitor=None")
        if not get_protocol(self.protocol).speaker_independent:
            raise ValueError(f"protocol={self.protocol!r} is not by speaker; choose one that is")

    def run(self, sampler: str, *, num_trainings: int, worker: int = 0) -> Run:
        """Search in every fold, and test what each fold chose, trained on all training speakers.

        `sampler`, `num_trainings` (of a search in one fold) and `worker` are as in
        `studies.search`, as are the rows of the run's `history`, one per trial. The models of a
        trial also predict the fold's test speakers, which no choice sees: `test_uar`. A search
        that was stopped goes on; a published one is read back. Where a single speaker trains,
        nothing is chosen and the defaults are tested.

        Raises ValueError if the network of the defaults would fail after it was trained
        (`models.check_model`).
        """
        build_model, _ = self._specify(self.defaults)
        check_model(build_seeded(build_model, *self._shape, seed=0), *self._shape)
        settings = {"sampler": sampler, "num_trainings": num_trainings}
        settings = self._description["training"] | settings
        description = self._description | {"training": settings}

        def test(_: Task, fold: Fold) -> tuple[np.ndarray, pd.DataFrame, dict]:
            trials = self._search(fold, sampler, num_trainings, worker)
            given = {"train": fold.train, "tested": fold.test, "number": fold.number}
            probabilities, seconds = self._train(self._choose(trials), **given)
            seconds += trials["seconds"].sum()
            return probabilities, trials, {**describe_backend(), "seconds": seconds}

        run = run_folds(description, self.table, self.features, self._tasks, test)
        chosen = {str(number): dict(self.defaults) for _, number in self._tasks}
        if len(run.history):
            for number, trials in run.history.groupby("fold"):
                chosen[str(number)] = choose_settings(trials)
        run.description["training"] = settings | {"chosen": chosen}
        return run

    def _search(self, fold: Fold, sampler: str, num_trainings: int, worker: int) -> pd.DataFrame:
        parts = self._split(fold)
        if not parts:
            return pd.DataFrame(columns=COLUMNS)
        return search(
            partial(self._score_parts, fold, parts),
            self.space,
            self.defaults,
            sampler=sampler,
            num_trainings=num_trainings,
            storage=self._storage,
            name=f"{digest(self._description)}-{sampler}-{fold.number}",
            seed=self.seed + 1000 * fold.number,
            num_parts=len(parts),
            worker=worker,
        )

    def _score_parts(self, fold: Fold, parts, settings: Settings) -> Iterator[tuple[float, float]]:
        """Train without one inner part after the other; score on it, and on test speakers."""
        for left in parts:
            rows = np.concatenate([left, fold.test])
            train = np.setdiff1d(fold.train, left)
            probabilities, _ = self._train(settings, train, rows, number=fold.number)
            said, true = probabilities.argmax(axis=1), self._targets[rows].argmax(axis=1)
            cut = len(left)
            yield _compute_uar(true[:cut], said[:cut]), _compute_uar(true[cut:], said[cut:])

    def _train(
        self, settings: Settings, train: np.ndarray, tested: np.ndarray, *, number: int
    ) -> tuple[np.ndarray, float]:
        """Train on some rows, as `cross_validate` does; give probabilities of others, seconds."""
        prepare_backend()
        build_model, config = self._specify(settings)
        fresh = build_seeded(build_model, *self._shape, seed=self.seed)
        traced = [describe_model(fresh), [getattr(config, name) for name in TRACED]]
        key = digest([*traced, config.batch_size])
        if key not in self._trainees:
            model = build_seeded(build_model, *self._shape, seed=self.seed)
            self._trainees[key] = Trainee(model, config)
        model = self._trainees[key].restart(fresh)
        values, targets = self.features.values, self._targets
        normaliser = self.features.fit_normaliser(train)
        known = Examples(normaliser.apply(values[train]), targets[train])
        nothing = Examples(known.values[:0], known.targets[:0])
        seed = self.seed + 1000 * number
        _, seconds = train_model(model, known, nothing, config=config, seed=seed, state_path=None)
        return run_network(model, normaliser.apply(values[tested])), seconds

    def _choose(self, trials: pd.DataFrame) -> Settings:
        return choose_settings(trials) if len(trials) else dict(self.defaults)

    def _split(self, fold: Fold) -> list[np.ndarray]:
        """Rows of the inner parts; none where a single speaker trains."""
        speakers = self.table["speaker"].to_numpy()[fold.train]
        num_parts = min(self.num_inner, len(np.unique(speakers)))
        if num_parts < 2:
            return []
        splits = GroupKFold(num_parts).split(fold.train, groups=speakers)
        return [fold.train[left] for _, left in splits]

    def _specify(self, settings: Settings) -> tuple[BuildModel, TrainingConfig]:
        of_training = {known.name for known in fields(TrainingConfig)} & set(settings)
        config = replace(self.config, **{name: settings[name] for name in of_training})
        others = {name: settings[name] for name in settings if name not in of_training}
        return partial(self.build_model, **others), config

    @cached_property
    def _trainees(self) -> dict[str, Trainee]:
        """Networks that were traced, for trials that need no other."""
        return {}

    @cached_property
    def _storage(self):
        return open_storage(self.storage or paths.RUNS_DIR / "search" / "journal.log")

    @cached_property
    def _tasks(self) -> dict[tuple[int, int], Fold]:
        tasks, _ = list_tasks(self.table, self.protocol, [self.seed], None, None)
        return {task: fold.join_validation() for task, fold in tasks.items()}

    @cached_property
    def _shape(self) -> tuple[tuple[int, ...], int]:
        return self.features.values.shape[1:], self.table["emotion"].nunique()

    @cached_property
    def _targets(self) -> np.ndarray:
        emotions = order_emotions(self.table["emotion"])
        return np.eye(len(emotions), dtype=np.float32)[self.table["emotion"].map(emotions.index)]

    @cached_property
    def _description(self) -> dict:
        """What decides the trials, whatever draws them."""
        model = build_seeded(self._specify(self.defaults)[0], *self._shape, seed=0)
        return {
            **describe_data(self.table, self.features, protocol=self.protocol),
            "training": {
                "config": describe_settings(self.config, changed=True),
                "space": {name: distribution_to_json(self.space[name]) for name in self.space},
                "defaults": dict(self.defaults),
                "num_inner": self.num_inner,
            },
            "model": describe_model(model),
            "start": None,
        }


def _compute_uar(true: np.ndarray, said: np.ndarray) -> float:
    averaged = {"labels": np.unique(true), "average": "macro", "zero_division": 0}
    return float(recall_score(true, said, **averaged))
