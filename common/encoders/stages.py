"""Train an encoder's network further in stages, each fold from where that fold ended before."""

from collections.abc import Callable, Sequence

import keras
import numpy as np
import pandas as pd

from common.cross_validation import Start, cross_validate
from common.encoders.contract import Encoder
from common.models import BuildModel
from common.recipes import Features
from common.runs import Run
from common.training import TrainingConfig

AddHead = Callable[[keras.KerasTensor, int], keras.KerasTensor]


def train_stage(
    add_head: AddHead,
    table: pd.DataFrame,
    inputs: Features,
    encoder: Encoder,
    *,
    unfrozen: str | Sequence[str],
    protocol: str,
    config: TrainingConfig,
    before: Run | None = None,
    seed: int = 0,
) -> Run:
    """Train the head and some layers of the network on all folds, once.

    Gradual unfreezing (Howard and Ruder, ACL 2018). No fold starts from what another learnt, so
    no test speaker is heard. `add_head`, (embeddings, num_classes) -> probabilities, ends the
    network of each fold; `inputs` are from `extract_inputs` for this encoder; names of the layers
    that are trained start with `unfrozen`, a string or several.

    `before` is the stage before, or the run of a head on what `extract_embeddings` gives with
    `normalise=False`, which `add_head` calls by the same name; None starts with the encoder's own
    weights and a new head. Raises ValueError if it is a run of another head, or of one on
    normalised embeddings, and FileNotFoundError if its trained models are not at hand.
    """

    def assign(model: keras.Model, seed: int, fold: int) -> None:
        if before is not None:
            copy_weights(before.load_model(seed=seed, fold=fold), model)

    starts = [unfrozen] if isinstance(unfrozen, str) else list(unfrozen)
    key = None if before is None else before.description["key"]
    start = Start({"weights": encoder.digest, "run": key, "unfrozen": starts}, assign)
    settings = {"protocol": protocol, "config": config, "seeds": [seed], "start": start}
    return cross_validate(make_stage(add_head, encoder, starts), table, inputs, **settings)


def make_stage(add_head: AddHead, encoder: Encoder, unfrozen: str | Sequence[str]) -> BuildModel:
    """Make the `build_model` that puts a head onto the network and freezes the other layers."""
    starts = unfrozen if isinstance(unfrozen, str) else tuple(unfrozen)

    def build_model(input_shape: tuple[int, ...], num_classes: int) -> keras.Model:
        network = keras.models.clone_model(encoder.network)
        network.set_weights(encoder.network.get_weights())
        for layer in network.layers:
            layer.trainable = not layer.weights or layer.name.startswith(starts)
        values = keras.Input(input_shape, name=encoder.network.input.name)
        outputs = add_head(network(values), num_classes)
        return keras.Model(values, outputs, name=f"{network.name}_transfer")

    return build_model


def copy_weights(learnt: keras.Model, model: keras.Model) -> None:
    """Copy what a saved model learnt into a stage, or into that part of it which is the head."""
    inner = learnt.layers[-1]
    if inner.name == model.name:
        for layer in model.layers:
            layer.set_weights(inner.get_layer(layer.name).get_weights())
        return
    normalise = learnt.get_layer("normalise")
    if np.any(normalise.input_mean) or np.any(np.asarray(normalise.input_variance) != 1):
        raise ValueError(
            f"the run before normalised the embeddings of {inner.name}, which a stage does not: "
            "train the head on extract_embeddings(…, normalise=False)"
        )
    names = [layer.name for layer in model.layers]
    if inner.name not in names:
        raise ValueError(f"the run before is of {inner.name}, which is not among {names}")
    model.get_layer(inner.name).set_weights(inner.get_weights())
