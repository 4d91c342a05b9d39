"""The weights of Whisper's encoder: what is published, their names, reading and drawing them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from common.audio import SAMPLE_RATE_HERTZ
from common.encoders.contract import Arrays, EncoderRecord, Weights
from common.encoders.weights import (
    Shapes,
    check_arrays,
    draw_arrays,
    fetch_file,
    find_folder,
    get_arrays,
)

PUBLISHED = {  # layers, width, revision, bytes and SHA-256 of model.safetensors
    "tiny": (
        *(4, 384, "169d4a4341b33bc18d8881c4b69c2e104e1cc0af", 151_061_672),
        "7ebd0e69e78190ffe1438491fa05cc1f5c1aa3a4c4db3bc1723adbb551ea2395",
    ),
    "base": (
        *(6, 512, "e37978b90ca9030d5170a5c07aadb050351a65bb", 290_403_936),
        "07cadb9f25677c8d50df603e66a98fbd842cce45047139baeb16e6219a1e807b",
    ),
    "small": (
        *(12, 768, "973afd24965f72e36ca33b3055d56a652f456b4d", 966_995_080),
        "1d7734884874f1a1513ed9aa760a4f8e97aaa02fd6d93a3a85d27b2ae9ca596b",
    ),
}
FILE = "model.safetensors"
RECORDS = tuple(
    EncoderRecord(
        name=f"whisper_{size}",
        title=f"Whisper {size}",
        num_layers=num_layers + 1,
        num_dimensions=2 * width,
        hop_seconds=0.02,
        window_seconds=0.025,
        trainable=True,
        url=f"https://huggingface.co/openai/whisper-{size}/resolve/{revision}/{FILE}",
        num_bytes=num_bytes,
        checksum=f"sha256:{checksum}",
        homepage="https://github.com/openai/whisper",
        licence="MIT (OpenAI); Apache License 2.0 on Hugging Face",
        citation="Radford, Kim, Xu, Brockman, McLeavey and Sutskever, Robust speech recognition "
        "via large-scale weak supervision, ICML 2023, arXiv:2212.04356",
    )
    for size, (num_layers, width, revision, num_bytes, checksum) in PUBLISHED.items()
)
NUM_BANDS, FRAME_LENGTH, HOP_LENGTH = 80, 400, 160
NUM_POSITIONS = 1500  # of 20 ms each: Whisper hears 30 s
LONGEST_SAMPLES = NUM_POSITIONS * 2 * HOP_LENGTH
EPSILON = 1e-5  # of PyTorch's layer normalisation


def count_heads(width: int) -> int:
    """Give how many heads the attention of layers of that width has."""
    return max(2, width // 64)


def get_whisper(
    record: EncoderRecord, weights: Weights, num_samples: int
) -> tuple[EncoderRecord, Arrays]:
    """Give the encoder's arrays, as `load_encoder` says; "random" ones are few, as the record says.

    Raises ValueError if Whisper does not hear that many samples.
    """
    if num_samples > LONGEST_SAMPLES + FRAME_LENGTH:
        seconds = num_samples / SAMPLE_RATE_HERTZ
        raise ValueError(f"{record.title} hears 30 s, not {seconds:g}; give a shorter duration")
    if weights == "random":
        record = replace(record, num_layers=3, num_dimensions=64)
    elif weights != "published":
        weights = find_folder(record, weights, "model", FILE) / FILE
    arrays = get_arrays(
        record,
        weights,
        draw=lambda: draw_whisper(record),
        fetch=fetch_whisper,
        read=lambda file: read_whisper(file, record),
    )
    return record, arrays


def give_shapes(record: EncoderRecord) -> Shapes:
    """Give names and shapes of the encoder's arrays, as PyTorch lays them out."""
    width = record.num_dimensions // 2
    shapes = {
        "conv1.weight": (width, NUM_BANDS, 3),
        "conv2.weight": (width, width, 3),
        **{f"{name}.bias": (width,) for name in ("conv1", "conv2", "layer_norm")},
        "layer_norm.weight": (width,),
        "embed_positions.weight": (NUM_POSITIONS, width),
    }
    layer = {
        **{f"self_attn.{part}_proj.weight": (width, width) for part in ("q", "k", "v", "out")},
        **{f"self_attn.{part}_proj.bias": (width,) for part in ("q", "v", "out")},
        **{f"{name}.weight": (width,) for name in ("self_attn_layer_norm", "final_layer_norm")},
        **{f"{name}.bias": (width,) for name in ("self_attn_layer_norm", "final_layer_norm")},
        **{"fc1.weight": (4 * width, width), "fc1.bias": (4 * width,)},
        **{"fc2.weight": (width, 4 * width), "fc2.bias": (width,)},
    }
    for number in range(record.num_layers - 1):
        shapes |= {f"layers.{number}.{name}": shape for name, shape in layer.items()}
    return shapes


def read_whisper(file: Path, record: EncoderRecord) -> Arrays:
    """Read the encoder's arrays, float32, from a file of safetensors; leave out the decoder's."""
    remedy = f"give the folder of {record.title} (see {record.homepage}), or delete it to fetch it"
    arrays = {}
    try:
        with safe_open(file, "np") as content:
            for name in content.keys():  # noqa: SIM118 (no mapping)
                short = name.removeprefix("model.").removeprefix("encoder.")
                if name in (f"encoder.{short}", f"model.encoder.{short}"):
                    arrays[short] = content.get_tensor(name).astype(np.float32)
    except (SafetensorError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{file} is not a file of safetensors ({error}): {remedy}") from error
    check_arrays(file, arrays, give_shapes(record), remedy=remedy)
    return arrays


def draw_whisper(record: EncoderRecord) -> Arrays:
    """Draw weights that know nothing."""
    arrays = draw_arrays(give_shapes(record))
    ones = {name: array + 1 for name, array in arrays.items() if name.endswith("norm.weight")}
    return arrays | ones


def fetch_whisper(record: EncoderRecord) -> Path:
    """Find the published file in `data/pretrained`, or download it."""
    file = record.path / FILE
    return file if file.exists() else fetch_file(record, file)
