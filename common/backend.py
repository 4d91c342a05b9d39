"""What Keras computes with: its log, and the names of device and versions."""

import logging
import platform
from collections.abc import Iterable

import keras
from joblib import cpu_count

from common.files import read_version


def prepare_backend() -> None:
    """Let TensorFlow trace one model after another quietly."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow

        tensorflow.get_logger().addFilter(_is_not_about_tracing)


def _is_not_about_tracing(record: logging.LogRecord) -> bool:
    """TensorFlow takes models that follow one another for one that is traced too often."""
    return "triggered tf.function retracing" not in record.getMessage()


def describe_device() -> str:
    """Name what the backend computes on: the GPU, or the processor and its cores."""
    if keras.backend.backend() == "jax":
        import jax

        kinds = [device.device_kind for device in jax.devices() if device.platform != "cpu"]
    else:
        import tensorflow

        describe = tensorflow.config.experimental.get_device_details
        gpus = tensorflow.config.list_physical_devices("GPU")
        kinds = [describe(gpu).get("device_name", "GPU") for gpu in gpus]
    return kinds[0] if kinds else _describe_processor()


def _describe_processor() -> str:
    num_cores = cpu_count()
    return f"CPU, {num_cores} core{'s' * (num_cores > 1)}"


def describe_backend() -> dict:
    """Name backend, device and the versions of what decides a number."""
    names = ("keras", "tensorflow", "jax", "librosa", "numpy")
    versions = {"python": platform.python_version()}
    versions |= {name: found for name in names if (found := read_version(name))}
    backend = keras.backend.backend()
    return {"backend": backend, "device": describe_device(), "versions": versions}


def join_names(named: Iterable[str]) -> str:
    """Join the backends or devices of several runs, each once: "CPU, 1 core and CPU, 2 cores"."""
    return " and ".join(sorted({name for names in named for name in names.split(" and ")}))


def describe_scikit_learn() -> dict:
    """As `describe_backend`, of what scikit-learn fits, whatever Keras computes with."""
    return describe_packages("scikit-learn", "scikit-learn", "librosa", "numpy")


def describe_packages(backend: str, *names: str) -> dict:
    """As `describe_backend`, of packages that compute on the processor."""
    versions = {name: read_version(name) for name in names}
    return {"backend": backend, "device": _describe_processor(), "versions": versions}
