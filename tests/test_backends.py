"""The same code on TensorFlow and on JAX: equal forward passes, and training that works."""

import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import numpy as np
import pytest

from common.paths import NOTEBOOKS_DIR, ROOT

BACKENDS = ("tensorflow", "jax")
SCRIPT = """
import json, sys, time
from dataclasses import replace
from pathlib import Path
import keras, numpy as np
from keras import layers
from common.cross_validation import build_seeded, cross_validate
from common.encoders.stages import make_stage
from common.layers import *
from common.encoders.extraction import load_encoder
from common.training import TrainingConfig
from tests.speech_tables import make_features, make_speakers

def check_architecture(build_model):
    model = build_seeded(build_model, (61, 43), 5, seed=0)
    model.compile(keras.optimizers.Adam(2e-3), "categorical_crossentropy", metrics=["accuracy"])
    values = np.random.default_rng(1).normal(size=(10, 61, 43)).astype("float32")
    targets = np.eye(5, dtype="float32")[np.arange(10) % 5]
    for step in range(150):
        if step == 130:
            model.reset_metrics()
        loss, accuracy = model.train_on_batch(values, targets)
    return {"shape": model.output_shape, "accuracy": float(accuracy)}

checks = {}
folder = Path(sys.argv[1])
sources, overfitted, encoded = json.loads((folder / "wanted.json").read_text())
for name, source in sources.items():
    namespace = dict(globals())
    exec(source, namespace)
    build = namespace[name.split("-")[1]]
    saved, first = folder / f"{name}.keras", folder / f"{name}_tensorflow.npy"
    if keras.backend.backend() == "jax":
        if name in overfitted:
            checks[name] = check_architecture(build)
        while not first.exists():
            assert not (folder / "failed").exists(), "TensorFlow failed"
            time.sleep(0.1)
    else:
        build_seeded(build, (157, 64), 8, seed=0).save(saved)
    model = keras.models.load_model(saved, safe_mode=True)
    values = np.random.default_rng(0).normal(size=(4, 157, 64)).astype("float32")
    np.save(folder / f"{name}_{keras.backend.backend()}.npy", model.predict(values, verbose=0))

waveform = np.random.default_rng(2).normal(size=20_000).astype("float32")
embedded = load_encoder("byol_s", weights="random").embed(waveform)
np.save(folder / f"embedded_{keras.backend.backend()}.npy", embedded)
embedded = load_encoder("vggish", weights="random", trainable=True).embed(waveform)
np.save(folder / f"vggish_{keras.backend.backend()}.npy", embedded)
if "vgg16" in encoded:
    embedded = load_encoder("vgg16", weights="random").embed(waveform)
    np.save(folder / f"vgg16_{keras.backend.backend()}.npy", embedded)

def build_model(input_shape, num_classes):
    inputs = keras.Input(input_shape)
    x = layers.Conv1D(8, 3, name="conv")(inputs)
    x = AttentionPooling(4, name="pooling")(layers.BatchNormalization(name="norm")(x))
    x = layers.Dropout(0.1, name="dropout")(x)
    return keras.Model(inputs, layers.Dense(num_classes, activation="softmax", name="emotions")(x))

table = make_speakers(6, per_emotion=4)
config = TrainingConfig(
    epochs=12, batch_size=8, learning_rate=0.02, ema_momentum=0.8, max_shift=2,
    learning_rate_factors=(("conv", 0.5),),
)
run = cross_validate(
    build_model, table, make_features(table, strength=3.0), protocol="speaker_5fold",
    config=config, only_folds=[1], runs_folder=folder / keras.backend.backend(),
)

def add_head(embeddings, num_classes):
    x = layers.GlobalAveragePooling1D(name="average")(embeddings)
    return layers.Dense(num_classes, activation="softmax", name="emotions")(x)

encoder = load_encoder("byol_s", weights="random")
stage = cross_validate(
    make_stage(add_head, encoder, ("byol_3_conv", "byol_4", "byol_5")), table,
    make_features(table, strength=1.0, shape=(24, 64), normalise=False),
    protocol="speaker_5fold", only_folds=[1], runs_folder=folder / keras.backend.backend(),
    config=replace(config, epochs=3, learning_rate=1e-3, monitor=None,
                   learning_rate_factors=(("byol_3", 0.5),)),
)
network = stage.load_model(seed=0, fold=1).get_layer("byol_s_transfer").get_layer("byol_s")
moved = sorted(
    layer.name for layer, start in zip(network.layers, encoder.network.layers, strict=True)
    if any(map(np.any, map(np.subtract, layer.get_weights(), start.get_weights())))
)
checks["further"] = {"moved": moved, "loss": stage.history["loss"].tolist()}

facts = {"key": run.folder.name, "backend": run.description["backend"],
         "wa": float(run.predictions["correct"].mean()), "loss": run.history["loss"].tolist()}
(folder / f"{keras.backend.backend()}.json").write_text(json.dumps(facts | {"checks": checks}))
"""


def read_architectures() -> dict[str, str]:
    """Sources of cells tagged `architecture` by notebook and function: "11_cnn-build_model"."""
    architectures = {}
    for path in sorted(NOTEBOOKS_DIR.glob("*.ipynb")):
        cells = nbformat.read(path, as_version=4).cells
        tagged = [cell.source for cell in cells if "architecture" in cell.metadata.get("tags", [])]
        source = "\n\n".join(tagged)
        for function in re.findall(r"^def (build_model\w*)", source, flags=re.MULTILINE):
            architectures[f"{path.stem}-{function}"] = source
    return architectures


EVERYTHING = bool(os.environ.get("ALL"))
ARCHITECTURES = read_architectures()
if not EVERYTHING:  # one of each family, which the first digit names
    families = {name[0]: name for name in ARCHITECTURES}
    ARCHITECTURES = {name: ARCHITECTURES[name] for name in families.values()}
OVERFITTED = [name for name in ARCHITECTURES if EVERYTHING or name[0] == "1"]
ENCODED = {"embedded": (31, 512), "vggish": (3, 128)} | ({"vgg16": (3, 512)} if EVERYTHING else {})


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Run both backends at once; JAX takes the models that TensorFlow saves."""
    folder = tmp_path_factory.mktemp("backends")
    (folder / "wanted.json").write_text(json.dumps([ARCHITECTURES, OVERFITTED, list(ENCODED)]))

    def start(backend: str) -> subprocess.CompletedProcess:
        environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)}
        environment["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # compiling takes most of the time
        command = [sys.executable, "-c", SCRIPT, folder]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
        if done.returncode:
            (folder / "failed").touch()
        return done

    with ThreadPoolExecutor() as pool:
        for done in pool.map(start, BACKENDS):
            assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_forward_passes_agree(name, folder):
    first, second = (np.load(folder / f"{name}_{backend}.npy") for backend in BACKENDS)
    assert first.shape == (4, 8)
    np.testing.assert_allclose(first.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(first, second, atol=1e-4)


@pytest.mark.parametrize("name", OVERFITTED)
def test_an_architecture_takes_odd_lengths_and_overfits_one_batch(name, folder):
    checks = json.loads((folder / "jax.json").read_text())["checks"][name]
    assert checks["shape"] == [None, 5]
    assert checks["accuracy"] > 0.8  # with dropout; chance is 0.2


@pytest.mark.parametrize("backend", BACKENDS)
def test_training_works(backend, folder):
    facts = json.loads((folder / f"{backend}.json").read_text())
    assert facts["backend"] == backend
    assert facts["loss"][-1] < facts["loss"][0]
    assert facts["wa"] > 0.6  # chance is 0.25


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_encoder_is_trained_further_above_its_frozen_layers(backend, folder):
    facts = json.loads((folder / f"{backend}.json").read_text())["checks"]["further"]
    assert facts["moved"] == ["byol_3_conv", "byol_4_dense", "byol_5_dense"]
    assert facts["loss"][-1] < facts["loss"][0]


def test_a_run_of_one_backend_is_found_by_the_other(folder):
    keys = [json.loads((folder / f"{backend}.json").read_text())["key"] for backend in BACKENDS]
    assert keys[0] == keys[1]


@pytest.mark.parametrize(("name", "shape"), ENCODED.items())
def test_encoders_agree(name, shape, folder):
    first, second = (np.load(folder / f"{name}_{backend}.npy") for backend in BACKENDS)
    assert first.shape == shape and first.std() > 0.1
    np.testing.assert_allclose(first, second, atol=1e-3)


GPU_SCRIPT = """
import tensorflow
from tensorflow.python.eager import context
tensorflow.config.list_physical_devices()
gpu = context.PhysicalDevice("/physical_device:GPU:0", "GPU")  # TensorFlow's own rules apply
context.context()._physical_devices.append(gpu)
context.context()._memory_growth_map[gpu] = None
import os
import common.cross_validation
import keras
keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).count_params()  # starts the devices
common.cross_validation.prepare_backend()
print(os.environ["TF_FORCE_GPU_ALLOW_GROWTH"], os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"])
"""


def test_a_gpu_that_a_model_has_started_is_no_obstacle():
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", GPU_SCRIPT]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["true", "false"], done.stderr[-2000:]
