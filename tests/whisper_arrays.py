"""Small weights for Whisper, and a second of sound to hear with them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from common.encoders import ENCODERS
from common.encoders.whisper_weights import FILE, give_shapes

BASE = ENCODERS["whisper_base"]
SMALL = replace(BASE, num_layers=3, num_dimensions=64)
RNG = np.random.default_rng(0)
TONE = np.sin(np.arange(16_000) / 8).astype(np.float32)
SPEECH = (TONE * np.linspace(0, 1, 16_000) + 0.01 * RNG.standard_normal(16_000)).astype(np.float32)


def make_arrays(seed: int = 1, record=SMALL) -> dict[str, np.ndarray]:
    """Weights in which no array is constant, so that none can be mistaken for another."""
    rng, arrays = np.random.default_rng(seed), {}
    for name, shape in give_shapes(record).items():
        level = 1 if name.endswith("norm.weight") else 0
        spread = 0.3 if len(shape) == 1 else 1.5 / np.sqrt(np.prod(shape[1:]))
        arrays[name] = (level + spread * rng.standard_normal(shape)).astype(np.float32)
    return arrays


def write_folder(folder: Path, arrays: dict[str, np.ndarray], prefix="model.encoder.") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    other = {"model.decoder.layers.0.fc1.bias": np.ones(3, np.float32)}
    save_file({f"{prefix}{name}": array for name, array in arrays.items()} | other, folder / FILE)
    return folder
