"""Workers of Dask on this machine: processes with one thread each, and one GPU each where asked.

`cross_validate(jobs=…)` hands its folds to them inside `joblib.parallel_config("dask")`. A worker
that dies is started again, and its fold is trained by another or once more. Workers are spawned,
never forked: TensorFlow does not survive a fork.
"""

import logging
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile

import dask
from distributed import Client, Nanny, Scheduler, SpecCluster

from common.threads import ONE_THREAD

QUIET = logging.ERROR  # a worker that is started again warns of itself


def describe_workers(num_workers: int, gpus: Sequence[int | str] = ()) -> dict[int, dict]:
    """What `SpecCluster` starts each worker with.

    `gpus` are numbers or identifiers as CUDA knows them; worker k sees the k-th alone, in
    `CUDA_VISIBLE_DEVICES`, also after it was started again. Raises ValueError if the number of
    workers is below 1, or there are fewer GPUs than workers.
    """
    if num_workers < 1:
        raise ValueError(f"num_workers={num_workers}: at least 1 is needed")
    if gpus and len(gpus) < num_workers:
        raise ValueError(
            f"num_workers={num_workers} for {len(gpus)} GPUs: start one per GPU, or pass none"
        )
    workers = {}
    for number in range(num_workers):
        environment = dict(ONE_THREAD)
        if gpus:
            environment["CUDA_VISIBLE_DEVICES"] = str(gpus[number])
        options = {"nthreads": 1, "env": environment, "silence_logs": QUIET}
        workers[number] = {"cls": Nanny, "options": options}
    return workers


@contextmanager
def start_workers(num_workers: int, *, gpus: Sequence[int | str] = ()) -> Iterator[Client]:
    """Start workers on this machine and stop them when the block ends; gives a Dask client.

    >>> with start_workers(2), parallel_config("dask"):  # doctest: +SKIP
    ...     run = cross_validate(build_model, table, features, ..., jobs=2)
    """
    workers = describe_workers(num_workers, gpus)
    scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", "port": 0, "dashboard": False}}
    spawning = {"distributed.worker.multiprocessing-method": "spawn"}
    with (
        dask.config.set(spawning),
        SpecCluster(workers=workers, scheduler=scheduler, silence_logs=QUIET) as cluster,
        Client(cluster) as client,
    ):
        client.wait_for_workers(num_workers, timeout=120)
        yield client


def find_gpus() -> list[str]:
    """GPUs that this process may use: what `CUDA_VISIBLE_DEVICES` names, else all there are."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        names = os.environ["CUDA_VISIBLE_DEVICES"].split(",")
        return [*takewhile(lambda name: name.strip() not in ("", "-1"), names)]  # as CUDA reads it
    if shutil.which("nvidia-smi") is None:
        return []
    done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return [line[4:].partition(":")[0] for line in done.stdout.splitlines() if line[:4] == "GPU "]
