"""The steps that put an encoder into a recipe, and the embeddings of whole tables."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pandas as pd

from common.audio import SAMPLE_RATE_HERTZ
from common.augmentation import Augmentation
from common.encoders.contract import ENCODERS, LOADERS, Encoder, load_encoder
from common.features import Trim
from common.recipes import Features, Recipe, Step, extract_features

POOLINGS = {
    "mean": lambda mean, maximum: mean,
    "mean + maximum": lambda mean, maximum: mean + maximum,
    "mean, maximum": lambda mean, maximum: np.concatenate([mean, maximum], axis=-1),
}


def _name_weights(encoder: str, weights: str, num_samples: int) -> str:
    title = ENCODERS[encoder].title if encoder in ENCODERS else encoder
    return f"{title} with the weights {weights}, {num_samples} samples"


def _stay(values: np.ndarray, training: bool = False) -> None:
    raise RuntimeError("an encoder does not travel to another process: call load_encoder there")


@dataclass(frozen=True)
class Embed(Step):
    """A waveform (samples,) at 16 kHz -> embeddings (embeddings, dimensions), float32."""

    encoder: Encoder
    trainable: ClassVar[bool] = False

    @property
    def made_by(self) -> list[Callable]:
        """Functions whose code decides the values too: what loads the encoder."""
        name = self.encoder.record.name
        return [LOADERS[name]] if name in LOADERS else []

    @property
    def seconds_kept(self) -> float:
        """Of the middle of a recording."""
        return self.encoder.num_samples / SAMPLE_RATE_HERTZ

    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        return self.encoder.embed(waveform)

    def describe(self, *, changed: bool = False) -> dict:
        encoder = self.encoder
        facts = {"weights": encoder.digest, "num_samples": encoder.num_samples}
        return {"step": type(self).__name__, "encoder": encoder.record.name, **facts}

    @classmethod
    def from_settings(cls, settings: dict, encoder: Encoder | None) -> "Embed":
        """Take the encoder that is given, or load the published one of that name.

        Raises ValueError if it is not the one that the settings name, or could not be loaded.
        """
        needed, seconds = _name_weights(**settings), settings["num_samples"] / SAMPLE_RATE_HERTZ
        whose = "the encoder given is" if encoder else "what is published is"
        facts = {"duration_seconds": seconds, "trainable": cls.trainable}
        try:
            step = cls(encoder or load_encoder(settings["encoder"], **facts))
        except (OSError, ImportError) as error:
            raise ValueError(
                f"the model reads {needed}, which could not be loaded ({error}): give it, "
                "encoder=load_encoder(…)"
            ) from error
        found = step.describe()
        found.pop("step")
        if found != settings:
            raise ValueError(
                f"the model reads {needed}, but {whose} {_name_weights(**found)}; load that one "
                "and give it, encoder=load_encoder(…)"
            )
        return step

    def __getstate__(self) -> dict:
        """Leave out the network, which may not be pickled: workers only describe the step."""
        return {"encoder": replace(self.encoder, front_end=_stay, network=_stay)}


@dataclass(frozen=True)
class PrepareInputs(Embed):
    """A waveform (samples,) at 16 kHz -> what the encoder's Keras network reads, (frames, bands).

    Raises ValueError if the encoder is no Keras network, and so cannot be trained further.
    """

    trainable: ClassVar[bool] = True

    def __post_init__(self) -> None:
        title = self.encoder.record.title
        if not self.encoder.record.trainable:
            raise ValueError(f"{title} cannot be trained further; extract_embeddings")
        if self.encoder.front_end is None:
            raise ValueError(
                f"{title} is loaded as a SavedModel, which is not trained further; "
                "load a Keras network: load_encoder(…, trainable=True)"
            )

    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        return self.encoder.prepare(waveform)


@dataclass(frozen=True)
class Pool(Step):
    """Sum up embeddings over time: (embeddings, dimensions) -> (1, dimensions).

    `how` is "mean"; "mean + maximum", the two added, as for BYOL-A and BYOL-S (Niizumi et al.,
    IJCNN 2021); or "mean, maximum", the two side by side, twice as many dimensions.
    """

    how: str = "mean + maximum"

    def __post_init__(self) -> None:
        if self.how not in POOLINGS:
            raise ValueError(f"how={self.how!r} is unknown; choose from {list(POOLINGS)}")

    def __call__(self, values: np.ndarray) -> np.ndarray:
        mean, maximum = (f(values, axis=-2, keepdims=True) for f in (np.mean, np.max))
        return POOLINGS[self.how](mean, maximum)


@dataclass(frozen=True)
class SelectLayers(Step):
    """Keep some embeddings, of an encoder with one per layer its layers: -> (kept, dimensions)."""

    numbers: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "numbers", tuple(self.numbers))

    def __call__(self, values: np.ndarray) -> np.ndarray:
        return values[list(self.numbers)]


def extract_embeddings(
    table: pd.DataFrame,
    encoder: Encoder,
    *,
    augmentations: Sequence[Augmentation] = (),
    normalise: bool = True,
) -> Features:
    """Trim silence and embed the utterances of a table, or read the embeddings from the cache.

    `values` has shape (utterances, embeddings, dimensions); of a model of `transformers` the
    embeddings are its layers. Training normalises them unless `normalise` is False, as a head that
    `train_stage` goes on with needs it.
    """
    recipe = Recipe((Trim(), Embed(encoder)), normalise=normalise)
    return extract_features(table, recipe, augmentations=augmentations)


def extract_inputs(
    table: pd.DataFrame, encoder: Encoder, *, augmentations: Sequence[Augmentation] = ()
) -> Features:
    """Trim silence and give what the encoder's Keras network reads, to train it further.

    `values` has shape (utterances, frames, bands), as the front end gives them: training
    normalises nothing. The recipe names the weights that training starts from.
    """
    recipe = Recipe((Trim(), PrepareInputs(encoder)), normalise=False)
    return extract_features(table, recipe, augmentations=augmentations)
