"""The optimiser, its learning rate over the epochs, the loss, and the variables they move."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import keras
import numpy as np

SCHEDULES = ("constant", "cosine", "step", "plateau")
# Settings that a backend traces into a step of training; the others are read as it goes.
TRACED = (
    *("weight_decay", "clip_norm", "ema_momentum", "learning_rate_factors"),
    *("label_smoothing", "focal_gamma", "class_weights"),
)


def compute_learning_rate(config, epoch: int, losses: Sequence[float]) -> float:
    """Learning rate of an epoch (from 0), given the validation losses of those before it."""
    if epoch < config.warmup_epochs:
        return config.learning_rate * (epoch + 1) / (config.warmup_epochs + 1)
    if config.schedule == "cosine":
        progress = (epoch - config.warmup_epochs) / max(1, config.epochs - config.warmup_epochs)
        return config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
    if config.schedule == "step":
        return config.learning_rate * config.step_factor ** (epoch // config.step_epochs)
    if config.schedule == "plateau":
        best, waited, factor = math.inf, 0, 1.0
        for loss in losses:
            best, waited = (loss, 0) if loss < best else (best, waited + 1)
            if waited >= config.plateau_patience:
                factor, waited = factor * config.step_factor, 0
        return config.learning_rate * factor
    return config.learning_rate


@keras.saving.register_keras_serializable(package="ser")
class LayerwiseAdamW(keras.optimizers.AdamW):
    """AdamW that multiplies the steps of some layers, chosen by how their names start."""

    def __init__(self, factors: Sequence[tuple[str, float]] = (), **kwargs) -> None:
        super().__init__(**kwargs)
        self.factors = factors

    def get_config(self) -> dict:
        return {**super().get_config(), "factors": self.factors}

    def build(self, variables: Sequence[keras.Variable]) -> None:
        super().build(variables)
        self.steps = [
            math.prod(factor for start, factor in self.factors if variable.path.startswith(start))
            for variable in variables
        ]

    def update_step(self, gradient, variable, learning_rate) -> None:
        factor = self.steps[self._get_variable_index(variable)]
        super().update_step(gradient, variable, learning_rate * factor)


def compile_model(model: keras.Model, config) -> None:
    """Give a model the optimiser and the loss that a `TrainingConfig` names.

    Raises ValueError if a learning rate factor is for layers that there are not.
    """
    for start, _ in config.learning_rate_factors:
        if not any(variable.path.startswith(start) for variable in model.trainable_variables):
            names = sorted({v.path.partition("/")[0] for v in model.trainable_variables})
            raise ValueError(
                f"learning_rate_factors: no trainable layer's name starts with {start!r}; "
                f"there are {names}"
            )
    optimizer = LayerwiseAdamW(
        factors=config.learning_rate_factors,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        global_clipnorm=config.clip_norm,
        use_ema=config.ema_momentum is not None,
        ema_momentum=0.99 if config.ema_momentum is None else config.ema_momentum,
    )
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    smoothing = config.label_smoothing
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=smoothing)
    if config.focal_gamma:
        loss = keras.losses.CategoricalFocalCrossentropy(
            alpha=1.0, gamma=config.focal_gamma, label_smoothing=smoothing
        )
    optimizer.build(model.trainable_variables)
    model.compile(optimizer=optimizer, loss=loss, metrics=["accuracy"])


class Trainee:
    """One model object for many folds, since a backend traces every new one anew.

    `restart` puts it back to where a fresh model of its kind would start: the same numbers come
    out, to the last bit, as if each fold had a model of its own.
    """

    def __init__(self, model: keras.Model, config) -> None:
        self.model = model
        compile_model(model, config)
        self.optimizer_start = copy_values(model.optimizer.variables)

    def restart(self, fresh: keras.Model) -> keras.Model:
        """Give the model with the weights and generators of a fresh one, its optimiser anew."""
        assign_values(self.model.variables, copy_values(fresh.variables))
        assign_values(self.model.optimizer.variables, self.optimizer_start)
        self.model.stop_training = False
        return self.model


def copy_values(variables: Sequence[keras.Variable]) -> list[np.ndarray]:
    """Copies, since a backend may reuse the memory that a plain conversion shows."""
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


@contextmanager
def averaged_weights(model: keras.Model, config) -> Iterator[None]:
    """Put the moving averages in place of the weights for the length of a block."""
    if config.ema_momentum is None:
        yield
        return
    variables = model.trainable_variables
    raw = copy_values(variables)
    model.optimizer.finalize_variable_values(variables)
    assign_values(variables, copy_values(variables))  # JAX: else they share the averages' memory
    try:
        yield
    finally:
        assign_values(variables, raw)


def assign_values(variables: Sequence[keras.Variable], values: Sequence[np.ndarray]) -> None:
    """Give variables their values, in order."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
