"""A recipe with Whisper in it as a recogniser follows it by onnxruntime.

Its steps compute what those of `features` and `extraction` do, and are described as those; Keras,
TensorFlow and librosa, which take seconds to import, are not.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np

from common.audio import SAMPLE_RATE_HERTZ
from common.encoders.whisper_graph import load_portable
from common.encoders.whisper_weights import RECORDS
from common.features import Trim
from common.graphs import SMALLEST_POWER
from common.loudness import HOP_LENGTH, Level, find_speech, measure_frames
from common.recipes import Recipe, Step

PORTABLE = {record.name: record for record in RECORDS}
THEN = [  # the steps that follow one of `FIRST`, in their order; the last may be missing
    ("Embed", {"encoder", "weights", "num_samples"}),
    ("SelectLayers", {"numbers"}),
]


@dataclass(frozen=True)
class QuickTrim(Trim):
    """`Trim` by the frames of `loudness`."""

    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        levels = np.maximum(measure_frames(waveform), 10 * np.log10(SMALLEST_POWER))
        active = np.flatnonzero(find_speech(levels, range_db=self.top_db))
        kept = waveform[active[0] * HOP_LENGTH : (active[-1] + 1) * HOP_LENGTH]
        return kept if len(kept) else waveform

    def describe(self, *, changed: bool = False) -> dict:
        return Trim(self.top_db).describe(changed=changed)


FIRST = {"Trim": QuickTrim, "Level": Level}


@dataclass(frozen=True)
class Counterpart(Step):
    """A step that computes what the one of that description does; of a recording `seconds_kept`."""

    description: dict
    compute: Callable[[np.ndarray], np.ndarray]
    seconds_kept: float | None = None

    def __call__(self, values: np.ndarray) -> np.ndarray:
        return self.compute(values)

    def describe(self, *, changed: bool = False) -> dict:
        return dict(self.description)


def is_portable(description: dict) -> bool:
    """Whether `make_recipe` makes the recipe of that description."""
    steps = description["steps"]
    begins = [(name, {field.name for field in fields(kind)}) for name, kind in FIRST.items()]
    found = [(step.get("step"), step.keys() - {"step"}) for step in steps]
    whole = found[:1] in [[begin] for begin in begins] and found[1:] in (THEN[:1], THEN)
    return whole and "normalise" in description and steps[1]["encoder"] in PORTABLE


def make_recipe(description: dict) -> Recipe:
    """Make a recipe as `Recipe.from_description` does, of those that are portable.

    Layers of Whisper above the last that it reads are left out. Raises ValueError if its weights
    cannot be had, or are not those that the recipe names.
    """
    first, embed, *select = description["steps"]
    record, num_samples = PORTABLE[embed["encoder"]], embed["num_samples"]
    numbers = [number for step in select for number in step["numbers"]]
    whole = not numbers or min(numbers) < 0
    last = None if whole else min(max(numbers), record.num_layers - 1)
    needed = f"the model reads {record.title} with the weights {embed['weights']}"
    try:
        encoder = load_portable(record, "published", num_samples, last=last)
    except (OSError, ImportError) as error:
        raise ValueError(f"{needed}, which could not be loaded ({error})") from error
    if encoder.digest != embed["weights"]:
        raise ValueError(
            f"{needed}, but {record.path} holds {encoder.digest}; delete it to fetch what is "
            "published, or give the right one, encoder=load_encoder(…)"
        )
    settings = dict(first)
    steps = [FIRST[settings.pop("step")](**settings)]
    steps.append(Counterpart(embed, encoder.embed, num_samples / SAMPLE_RATE_HERTZ))
    steps += [Counterpart(step, lambda values: values[numbers]) for step in select]
    return Recipe(steps, normalise=bool(description["normalise"]))
