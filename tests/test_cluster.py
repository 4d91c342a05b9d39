"""Folds trained by processes of joblib and Dask: the same numbers, kills survived, GPUs pinned."""

import json
import multiprocessing
import os
import signal
import threading
import time
from functools import partial

import dask
import keras
import numpy as np
import pandas as pd
import pytest
from joblib import parallel_config
from keras import layers
from threadpoolctl import threadpool_info

from common.cluster import describe_workers, find_gpus, start_workers
from common.corpora import load_corpus
from common.cross_validation import cross_validate
from common.features import Functionals, Trim
from common.files import write_json
from common.recipes import Recipe, extract_features
from common.threads import ONE_THREAD
from common.training import TrainingConfig

MARK = {"of": "import"}
CONFIG = TrainingConfig(epochs=1, batch_size=32, monitor=None, warmup_epochs=0)
FOLDS = {"protocol": "speaker_5fold", "only_folds": [1, 2]}


def build_model(input_shape, num_classes, *, notes=None):
    """A small perceptron; in a worker it leaves its process id in a file, and takes its time."""
    if notes is not None and multiprocessing.current_process().name != "MainProcess":
        (notes / str(os.getpid())).touch()
        if len(list(notes.iterdir())) <= 2:  # the first two processes
            time.sleep(1)
    inputs = keras.Input(input_shape)
    x = layers.Flatten()(inputs)
    x = layers.Dropout(0.2)(layers.Dense(16, activation="relu")(x))
    return keras.Model(inputs, layers.Dense(num_classes, activation="softmax")(x))


@pytest.fixture(scope="module")
def corpus():
    table = load_corpus("sample")
    return table, extract_features(table, Recipe((Trim(top_db=30), Functionals())))


@pytest.fixture(scope="module")
def alone(corpus, tmp_path_factory):
    """The run of one process."""
    folder = tmp_path_factory.mktemp("alone")
    return cross_validate(build_model, *corpus, **FOLDS, config=CONFIG, runs_folder=folder)


def look_around():
    """What a worker's process was started with."""
    names = ("CUDA_VISIBLE_DEVICES", *ONE_THREAD)
    return os.getpid(), [os.environ.get(name) for name in names]


def build_telling(input_shape, num_classes, *, notes):
    """The perceptron; each process that builds it leaves a note of what it is."""
    found = {"mark": MARK["of"], "threads": [os.environ.get(name) for name in ONE_THREAD]}
    found["pools"] = [pool["num_threads"] for pool in threadpool_info()]
    write_json(notes / f"{os.getpid()}.json", found)
    return build_model(input_shape, num_classes)


def test_processes_of_joblib_have_one_thread_each_and_are_not_forked(
    corpus, alone, monkeypatch, tmp_path
):
    monkeypatch.setitem(MARK, "of", "parent")  # a forked process would have it too
    settings = {**FOLDS, "config": CONFIG, "jobs": 2, "runs_folder": tmp_path / "runs"}
    run = cross_validate(partial(build_telling, notes=tmp_path), *corpus, **settings)
    notes = {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}
    assert notes.pop(str(os.getpid()))["mark"] == "parent"
    assert notes
    for found in notes.values():
        assert found["mark"] == "import"
        assert found["threads"] == ["1"] * len(ONE_THREAD)
        assert set(found["pools"]) == {1}
    pd.testing.assert_frame_equal(run.predictions, alone.predictions)


def kill_first(notes, killed):
    """Kill the first process that notes its id."""
    while not killed:
        for path in notes.iterdir():
            os.kill(int(path.name), signal.SIGKILL)
            killed.append(int(path.name))
            return
        time.sleep(0.02)


def test_folds_of_two_workers_are_those_of_one_process_though_one_is_killed(
    corpus, alone, tmp_path
):
    notes, killed = tmp_path / "notes", []
    notes.mkdir()
    with start_workers(2, gpus=["3", "GPU-5f"]) as client:
        seen = client.run(look_around)
        assert sorted(environment for _, environment in seen.values()) == [
            ["3", *["1"] * len(ONE_THREAD)],
            ["GPU-5f", *["1"] * len(ONE_THREAD)],
        ]
        killer = threading.Thread(target=kill_first, args=(notes, killed))
        killer.start()
        with parallel_config("dask"):
            run = cross_validate(
                partial(build_model, notes=notes),
                *corpus,
                **FOLDS,
                config=CONFIG,
                jobs=2,
                runs_folder=tmp_path / "runs",
            )
        killer.join()
        again = client.run(look_around)
    assert killed[0] in [pid for pid, _ in seen.values()]
    assert killed[0] not in [pid for pid, _ in again.values()]
    visible = [environment[0] for _, environment in again.values()]
    assert sorted(visible) == ["3", "GPU-5f"]
    pd.testing.assert_frame_equal(run.predictions, alone.predictions)
    for fold in FOLDS["only_folds"]:
        models = (made.load_model(seed=0, fold=fold) for made in (run, alone))
        weights = [model.get_weights() for model in models]
        assert all(map(np.array_equal, *weights))


def test_each_worker_has_a_gpu_of_its_own(monkeypatch, tmp_path):
    workers = describe_workers(2, gpus=[0, 1, 2])
    environments = [worker["options"]["env"] for worker in workers.values()]
    assert [environment["CUDA_VISIBLE_DEVICES"] for environment in environments] == ["0", "1"]
    assert "CUDA_VISIBLE_DEVICES" not in describe_workers(1)[0]["options"]["env"]
    with pytest.raises(ValueError, match="num_workers=2 for 1 GPUs"):
        describe_workers(2, gpus=[0])
    with pytest.raises(ValueError, match="num_workers=0"):
        describe_workers(0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-5f")
    assert find_gpus() == ["2", "GPU-5f"]
    for nothing in ("", "-1", "-1,0"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", nothing)
        assert find_gpus() == []
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA H100 (UUID: GPU-5f)'\necho 'GPU 1: x'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_gpus() == ["0", "1"]
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert find_gpus() == []


def read_mark():
    return MARK["of"]


def test_workers_are_spawned_though_dask_is_told_to_fork(monkeypatch):
    monkeypatch.setitem(MARK, "of", "parent")  # a forked process would have it too
    forking = dask.config.set({"distributed.worker.multiprocessing-method": "fork"})
    with forking, start_workers(1) as client:
        assert [*client.run(read_mark).values()] == ["import"]
    assert read_mark() == "parent"
