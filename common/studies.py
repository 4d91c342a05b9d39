"""Optuna studies that are pruned, stopped and continued, by one process or by several.

The tree-structured Parzen estimator (TPE; Bergstra et al., NeurIPS 2011) and random search
(Bergstra and Bengio, JMLR 2012).
"""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
from optuna.distributions import BaseDistribution
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import TrialState

DEFAULT, RANDOM, TPE = "default", "random", "tpe"
NUM_STARTUP_TRIALS = 5  # at random, before TPE has anything to go by
LABELLING_S = 60.0  # by then a trial that lives has the number of its worker
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
COLUMNS = ("trial", "pruned", "uar", "test_uar", "trainings", "seconds", "settings")
Settings = dict[str, bool | int | float | str | None]
ScoreParts = Callable[[Settings], Iterable[tuple[float, float]]]


def open_storage(place: str | Path) -> optuna.storages.BaseStorage:
    """Open what keeps trials: a journal file, or a database by its URL for many machines.

    A journal is shared by the processes of one machine, or of several on one file system; a line
    that a killed process left half written at its end is taken out. SQLite breaks where two
    processes write, so a URL should name a server, such as "postgresql://user@host/name".
    """
    if "://" in str(place):
        return optuna.storages.RDBStorage(str(place))
    path = Path(place)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = JournalFileOpenLock(str(path))
    backend = JournalFileBackend(str(path), lock_obj=lock)
    lock.acquire()
    try:
        content = path.read_bytes()
        if not content.endswith(b"\n"):
            path.write_bytes(content[: content.rfind(b"\n") + 1])
    finally:
        lock.release()
    return optuna.storages.JournalStorage(backend)


def search(
    score_parts: ScoreParts,
    space: Mapping[str, BaseDistribution],
    defaults: Settings,
    *,
    sampler: str,
    num_trainings: int,
    storage: optuna.storages.BaseStorage,
    name: str,
    seed: int,
    num_parts: int,
    worker: int = 0,
) -> pd.DataFrame:
    """Try settings until all workers of a study had `num_trainings`; tabulate the trials.

    Trials depend on the seed, the worker and those that were finished before, so that a search
    that was killed finds what it would have found.

    Parameters
    ----------
    score_parts
        Settings -> for each of `num_parts` inner parts, after a training of its own, the score to
        choose by and the one on test speakers.
    space, defaults
        Range of each setting, and the values that the first trial has.
    sampler
        "tpe", with trials ended early whose first parts are below the median of earlier ones;
        "random"; or "default", the first trial alone.
    storage, name
        Where the study is kept, and as what.
    worker
        Number of this process among those that search in one study at once, 0 among them.

    Returns
    -------
    pandas.DataFrame
        The trials that this cost paid for: `trial` (number), `pruned`, `uar` and `test_uar` (means
        over inner parts), `trainings`, `seconds`, and `settings` as JSON.

    Raises
    ------
    ValueError
        If the sampler is unknown, or a setting has no range or no default.
    """
    if sampler not in (DEFAULT, RANDOM, TPE):
        raise ValueError(f"sampler={sampler!r} is unknown; use {TPE!r}, {RANDOM!r} or {DEFAULT!r}")
    if odd := sorted(set(space) ^ set(defaults)):
        raise ValueError(f"{odd}: give each setting both a range and a default")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    pruner = optuna.pruners.NopPruner()
    if sampler == TPE:
        pruner = optuna.pruners.MedianPruner(n_startup_trials=NUM_STARTUP_TRIALS // 2)
    study = optuna.create_study(
        storage=storage, study_name=name, direction="maximize", pruner=pruner, load_if_exists=True
    )
    _end_abandoned(study, worker)
    while True:
        finished = study.get_trials(states=FINISHED)
        trials = _tabulate(finished)
        spent = trials["trainings"].cumsum()
        if spent.max() >= (allowed := 1 if sampler == DEFAULT else num_trainings):
            return trials[spent - trials["trainings"] < allowed]
        study.sampler = _make_sampler(sampler, [seed, worker, len(finished)])
        tried = any(trial.params == dict(defaults) for trial in finished)
        if sampler == DEFAULT or not (worker or tried):
            study.enqueue_trial(dict(defaults))
        trial = study.ask(dict(space))
        trial.set_user_attr("worker", worker)
        _run_trial(study, trial, score_parts, num_parts)


def _end_abandoned(study: optuna.Study, worker: int) -> None:
    """Let trials fail that killed processes left running: a worker's own, and those of nobody."""
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        age = (datetime.now() - trial.datetime_start).total_seconds()
        if trial.user_attrs.get("worker", worker if age > LABELLING_S else None) == worker:
            study.tell(trial.number, state=TrialState.FAIL)


def _run_trial(study: optuna.Study, trial, score_parts: ScoreParts, num_parts: int) -> None:
    started = time.perf_counter()
    scores = []
    for step, pair in enumerate(score_parts(dict(trial.params))):
        scores.append(pair)
        trial.report(pair[0], step)
        if step + 1 < num_parts and trial.should_prune():
            break
    uar, test_uar = np.mean(scores, axis=0).tolist()
    trial.set_user_attr("test_uar", test_uar)
    trial.set_user_attr("seconds", round(time.perf_counter() - started, 2))
    if len(scores) < num_parts:
        study.tell(trial, state=TrialState.PRUNED)
    else:
        study.tell(trial, uar)


def _make_sampler(name: str, numbers: list[int]) -> optuna.samplers.BaseSampler:
    """Make a sampler whose draws depend on its numbers alone: one that goes on repeats nothing."""
    seed = int(np.random.SeedSequence(numbers).generate_state(1)[0])
    if name == TPE:
        return optuna.samplers.TPESampler(n_startup_trials=NUM_STARTUP_TRIALS, seed=seed)
    return optuna.samplers.RandomSampler(seed=seed)


def _tabulate(trials: list[optuna.trial.FrozenTrial]) -> pd.DataFrame:
    rows = [
        (
            trial.number,
            trial.state == TrialState.PRUNED,
            float(np.mean(list(trial.intermediate_values.values()))),
            trial.user_attrs["test_uar"],
            len(trial.intermediate_values),
            trial.user_attrs["seconds"],
            json.dumps(trial.params, sort_keys=True),
        )
        for trial in trials
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def choose_settings(trials: pd.DataFrame) -> Settings:
    """Settings of the best trial that was not pruned, of the trials of one study."""
    whole = trials[~trials["pruned"].astype(bool)]
    return json.loads(whole.loc[whole["uar"].idxmax(), "settings"])


def measure_importance(trials: pd.DataFrame, space: Mapping[str, BaseDistribution]) -> pd.Series:
    """Share of the variance of `uar` that each setting explains, most important first (sum 1).

    Functional analysis of variance on a random forest (Hutter, Hoos and Leyton-Brown, ICML 2014),
    over the trials that were not pruned; at least two.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize")
    for trial in trials[~trials["pruned"].astype(bool)].itertuples():
        settings = json.loads(trial.settings)
        told = {"params": settings, "distributions": dict(space), "value": trial.uar}
        study.add_trial(optuna.trial.create_trial(**told))
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return pd.Series(optuna.importance.get_param_importances(study, evaluator=evaluator))
