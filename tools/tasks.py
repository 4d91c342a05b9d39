"""Train notebooks fold by fold, each fold a task of its own, on as many machines as there are.

python -m tools.tasks list 11 33                the tasks: number, minutes to expect, state
python -m tools.tasks run 11 33 --only 7        train one fold; nothing where that is done
python -m tools.tasks run 11 33 --workers 4     train all that are left, four at a time
python -m tools.tasks collect 11 33             execute the notebooks, which read the folds back

A task is (notebook, corpus, protocol, seed, fold). It executes the notebook's cells with every
`cross_validate` limited to that fold, which is kept where the whole notebook looks for it, and
writes one result file below `data/runs/tasks/`. What other tasks train is guessed, never kept.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from unittest.mock import patch

import nbformat
import numpy as np
import pandas as pd
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from nbformat import NotebookNode
from tqdm import tqdm
from traitlets.config import Config

from common.corpora import open_corpus
from common.files import digest, write_json
from common.paths import NOTEBOOKS_DIR, ROOT, RUNS_DIR
from common.predictions import tabulate_predictions
from common.results import load_results
from common.splits import fit_protocols, make_folds
from tools.execution import execute_all, inject_parameters
from tools.generation import (
    list_collection,
    read_parameters,
    read_sample_parameters,
    require_parameters,
)
from tools.notebooks import parse_parameter, select_notebooks

TASKS_DIR = RUNS_DIR / "tasks"
TRAINS = "cross_validate("  # in a cell of a notebook that has tasks
COLUMNS = ("notebook", "table", "protocol", "seed", "fold")  # that the list shows of a task


class OtherTaskError(Exception):
    """A notebook goes on to folds that belong to other tasks than the one that executes it."""


@dataclass(frozen=True)
class Task:
    """One fold of one protocol and seed, in every `cross_validate` of a notebook on a corpus."""

    notebook: str
    corpus: str
    table: str  # the corpus that is split: that one, or the notebook's second
    protocol: str
    seed: int
    fold: int
    parameters: str  # that replace the notebook's, as JSON
    made_by: str  # digest of the notebook's code and all its parameters

    @property
    def path(self) -> Path:
        """The result file."""
        where = f"{self.table}__{self.protocol}__seed{self.seed}_fold{self.fold}"
        name = f"{self.notebook}__{where}"
        return TASKS_DIR / self.corpus / f"{name}__{self.made_by}.json"


def list_tasks(names: list[str], *, corpus: str, parameters: dict | None = None) -> list[Task]:
    """List the tasks of notebooks (names, numbers, or none for all) on a corpus, in order.

    `parameters` replace those of the notebooks, as in `tools.notebooks execute`. A second corpus
    comes after the first, if it is at hand. Raises ValueError if a notebook that is named trains
    nothing, or names no protocols in a parameter, FileNotFoundError if the corpus is not at hand.
    """
    tasks = []
    for path in select_notebooks(names) if names else list_collection():
        notebook = nbformat.read(path, as_version=4)
        code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
        committed = read_parameters(notebook)
        trains = any(TRAINS in source for source in code)
        if not trains or not {"protocol", "protocols"} & set(committed):
            if names:
                lack = "no parameter that names protocols" if trains else "no folds to train"
                raise ValueError(f"{path.stem} has {lack}: leave it out, and execute it whole")
            continue
        changed = read_sample_parameters(notebook) if corpus == "sample" else {"corpus": corpus}
        if committed.get("second_corpus") == corpus:
            changed["second_corpus"] = None
        if "corpus" in (parameters or {}):
            raise ValueError(f"corpus={parameters['corpus']}: name it by --corpus")
        require_parameters(notebook, parameters or {})
        changed |= parameters or {}
        settings = committed | changed
        seeds = settings.get("seeds", [0])
        of_headline = settings.get("headline_seeds", seeds)
        for name, given in (("seeds", seeds), ("headline_seeds", of_headline)):
            if not isinstance(given, list) or not given:
                raise ValueError(f"{name}={given!r}: give a list, such as {name}=[0,1]")
        named = {"parameters": json.dumps(changed), "made_by": digest([code, settings])[:8]}
        own = {"folder": settings.get("folder"), "csv": settings.get("csv")}
        tables = [("", _open_corpus(corpus, **own))]
        tables.append(("second_", _open_corpus(settings.get("second_corpus"), optional=True)))
        for prefix, table in tables:
            if table is None:
                continue
            wanted = settings.get(f"{prefix}protocols") or [settings[f"{prefix}protocol"]]
            fitting = fit_protocols(table, wanted)
            seeds_of = dict.fromkeys(fitting, seeds)
            seeds_of |= {} if prefix else {fitting[0]: of_headline}
            tasks += [
                Task(
                    path.stem, corpus, table["corpus"].iloc[0], protocol, seed, fold.number, **named
                )
                for protocol in fitting
                for seed in seeds_of[protocol]
                for fold in make_folds(table, protocol, seed=seed)
            ]
    return list(dict.fromkeys(tasks))  # a second corpus may be the first again


@cache
def _open_corpus(name: str | None, **settings) -> pd.DataFrame | None:
    return open_corpus(name, **settings)


def expect_minutes(task: Task) -> float | None:
    """Published minutes of training per fold and seed, all systems of the notebook together.

    None where the notebook has published nothing on this corpus and protocol.
    """
    where = {"notebook": task.notebook, "corpus": task.table, "protocol": task.protocol}
    seconds = [
        result["seconds"] / len(result["folds"])
        for result in load_results(**where, ablations=True, own=False)
        if result.get("folds")
    ]
    return sum(seconds) / 60 if seconds else None


def tabulate_tasks(tasks: list[Task]) -> pd.DataFrame:
    """Number the tasks from 1, with the minutes to expect and what they have trained."""
    kinds = {(task.notebook, task.table, task.protocol): task for task in tasks}
    expected = {kind: expect_minutes(task) for kind, task in kinds.items()}
    rows = []
    for task in tasks:
        minutes = expected[task.notebook, task.table, task.protocol]
        row = {name: getattr(task, name) for name in COLUMNS}
        row["minutes"] = "unknown" if minutes is None else f"{minutes:.1f}"
        rows.append(row | {"state": describe_state(task)})
    return pd.DataFrame(rows, index=pd.RangeIndex(1, len(rows) + 1, name="task"))


def describe_state(task: Task) -> str:
    """Say whether a task is done, and where that was in vain."""
    if not task.path.is_file():
        return "to do"
    keys = json.loads(task.path.read_text(encoding="utf-8"))["keys"]
    return "done" if keys else "done, trained nothing"


def run_task(task: Task) -> dict:
    """Train one fold of a notebook in this process; give what the result file holds.

    Nothing is run where that file is there. The notebook ends at the first cell that needs all
    folds, or comes to folds of its own that are other tasks'; `ended` says where. The rest is for
    `collect`. `keys` are of the runs whose fold was trained: none where the notebook trains none.

    Raises
    ------
    RuntimeError
        If a cell fails before the first `cross_validate`, or in training.
    """
    if task.path.is_file():
        return json.loads(task.path.read_text(encoding="utf-8"))
    notebook = nbformat.read(NOTEBOOKS_DIR / f"{task.notebook}.ipynb", as_version=4)
    inject_parameters(notebook, json.loads(task.parameters))
    started = time.monotonic()
    with _limit_to(task) as trained:
        cell, error = _run_cells(notebook)
    seconds = round(time.monotonic() - started, 1)
    if error is not None and (trained.failed or not trained.begun):
        raise RuntimeError(f"{task.notebook}: cell {cell!r} raised {error!r}") from error
    ended = "after the last cell" if error is None else f"at cell {cell!r}: {error!r}"
    result = {**asdict(task), "keys": trained.keys, "seconds": seconds, "ended": ended}
    write_json(task.path, result)
    return result


@dataclass
class Trained:
    """Keys of the runs whose fold was trained, whether any was asked for, and one failed."""

    keys: list[str]
    begun: bool = False
    failed: bool = False


@contextmanager
def _limit_to(task: Task) -> Iterator[Trained]:
    """Let every `cross_validate` train the fold of a task alone; keep no evidence, no figures."""
    from common import cross_validation, plots, results
    from common.encoders import stages

    every, trained = cross_validation.cross_validate, Trained([])

    def limited(build_model, table, features, *, protocol, only_folds=None, seeds=(0,), **settings):
        trained.begun = True
        found = "+".join(sorted(table["corpus"].unique())), protocol
        if found != (task.table, task.protocol) or task.seed not in seeds:
            return _guess(table, features, protocol, seeds, settings.get("folds"))
        folds = settings.get("folds")
        numbers = [task.fold] if folds is None else [fold.number for fold in folds]
        if task.fold not in numbers:
            raise OtherTaskError(f"{protocol}, folds {numbers}")
        try:
            where = {"protocol": protocol, "seeds": [task.seed], "only_folds": [task.fold]}
            run = every(build_model, table, features, **where, **settings)
        except Exception:
            trained.failed = True
            raise
        trained.keys = list(dict.fromkeys([*trained.keys, run.description["key"]]))
        return run

    with ExitStack() as stack:
        for module in (cross_validation, stages):
            stack.enter_context(patch.object(module, "cross_validate", limited))
        stack.enter_context(patch.object(results, "save_results", _keep_nothing))
        stack.enter_context(patch.object(plots, "save_figure", _keep_nothing))
        yield trained


def _guess(table, features, protocol, seeds, folds):
    """Stand for a run that other tasks train: all folds, each emotion as probable as another."""
    from common.cross_validation import collect_run
    from common.runs import FoldResult, describe_data, list_tasks, name_folds

    wanted, _ = list_tasks(table, protocol, seeds, folds, None)
    emotions = table["emotion"].nunique()
    facts = {"seconds": 0, "backend": "none", "device": "none", "versions": {}}
    results = {}
    for (seed, number), fold in wanted.items():
        chance = np.full((len(fold.test), emotions), 1 / emotions)
        guesses = tabulate_predictions(table, fold.test, chance, seed=seed, fold=number)
        results[seed, number] = FoldResult(
            guesses, pd.DataFrame(), pd.DataFrame(), facts, "guessed"
        )
    described = describe_data(table, features, protocol=protocol, folds=folds)
    described |= {"key": "guessed", "folds": name_folds(wanted), "num_parameters": 0}
    return collect_run(results, described, features=features, training={})


def _keep_nothing(*_, **__) -> None:
    """Stand for what would keep a part for the whole."""


def _run_cells(notebook: NotebookNode) -> tuple[str, BaseException | None]:
    """Run the code cells in this process; give the first line of one that fails, and its error."""
    os.environ.setdefault("MPLBACKEND", "Agg")
    config = Config()
    config.HistoryManager.enabled = False
    shell = InteractiveShell(config=config)
    shell.showtraceback = lambda *_, **__: None
    with capture_output():
        for cell in notebook.cells:
            if cell.cell_type == "code" and cell.source.strip():
                result = shell.run_cell(cell.source, silent=True)
                if not result.success:
                    error = result.error_before_exec or result.error_in_exec
                    return cell.source.strip().splitlines()[0], error
    return "", None


def run_apart(task: Task) -> str | None:
    """Run a task in a Python of its own, as a worker does; give the last line of a failure."""
    command = [sys.executable, "-m", "tools.tasks", "worker", json.dumps(asdict(task))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return None if task.path.is_file() else (done.stderr.strip().splitlines() or ["killed"])[-1]


def run_tasks(tasks: list[Task], *, num_workers: int = 1, scheduler: str | None = None) -> int:
    """Run tasks that are not done, on workers here or on those of a Dask scheduler; count failures.

    A worker sees one GPU, where there are any.
    """
    from distributed import Client, as_completed

    from common.cluster import find_gpus, start_workers

    left = [task for task in tasks if not task.path.is_file()]
    print(f"{len(tasks) - len(left)} of {len(tasks)} tasks are done", flush=True)
    if not left:
        return 0
    gpus = find_gpus() if scheduler is None else []
    num_workers = min(num_workers, len(gpus) or num_workers)
    failures = 0
    with (
        start_workers(num_workers, gpus=gpus) if scheduler is None else Client(scheduler) as client
    ):
        futures = client.map(run_apart, left, pure=False)
        names = dict(zip(futures, left, strict=True))
        for future in tqdm(as_completed(futures), total=len(left), unit="task", disable=None):
            problem = future.exception() or future.result()
            if problem:
                failures += 1
                print(f"FAILED  {names[future].path.stem}: {problem}", file=sys.stderr, flush=True)
    return failures


def collect(tasks: list[Task]) -> int:
    """Execute the notebooks, which read the folds back and write the evidence; count failures.

    Raises ValueError if a task is not done.
    """
    missing = [str(number) for number, task in enumerate(tasks, 1) if not task.path.is_file()]
    if missing:
        raise ValueError(f"not done: tasks {', '.join(missing)}; run them first")
    by_notebook = {task.notebook: task for task in tasks}
    failures = 0
    for name, task in by_notebook.items():
        changed = json.loads(task.parameters)
        path = NOTEBOOKS_DIR / f"{name}.ipynb"
        failures += len(execute_all([path], corpus=task.corpus, parameters=changed))
    return failures


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; give the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.tasks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=["list", "run", "collect", "worker"])
    parser.add_argument("names", nargs="*", help="notebooks by name or number; none: all")
    parser.add_argument("--corpus", default="sample")
    parser.add_argument("--parameters", nargs="+", default=[], type=parse_parameter, metavar="K=V")
    parser.add_argument("--only", type=int, metavar="N", help="one task, by its number in the list")
    parser.add_argument("--workers", type=int, default=1, help="processes on this machine")
    parser.add_argument("--scheduler", help="address of a Dask scheduler, such as tcp://node1:8786")
    options = parser.parse_args(arguments)
    if options.command == "worker":
        run_task(Task(**json.loads(options.names[0])))
        return 0
    try:
        tasks = list_tasks(
            options.names, corpus=options.corpus, parameters=dict(options.parameters)
        )
        if options.only is not None and not 1 <= options.only <= len(tasks):
            raise ValueError(f"--only {options.only}: there are tasks 1 to {len(tasks)}")
        if options.command == "list":
            print(tabulate_tasks(tasks).to_string())
            return 0
        if options.command == "collect":
            return int(collect(tasks) > 0)
        if options.only is not None:
            result = run_task(tasks[options.only - 1])
            number = len(result["keys"])
            trained = f"{number} networks trained" if number else "nothing to train"
            print(f"{trained}, {result['seconds']:.0f} s, ended {result['ended']}")
            return 0
        settings = {"num_workers": options.workers, "scheduler": options.scheduler}
        return int(run_tasks(tasks, **settings) > 0)
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    sys.exit(main())
