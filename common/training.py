"""How one model is trained: settings, batches, learning rate, choice of the epoch, resuming.

This module knows arrays and a Keras model; `common.cross_validation` knows tables and folds.
"""

import json
import math
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path

import keras
import numpy as np
from sklearn.metrics import recall_score
from tqdm.auto import tqdm

from common.batches import SAMPLINGS, Examples, TrainingBatches
from common.files import write_atomically
from common.networks import run_network
from common.optimizers import (
    SCHEDULES,
    assign_values,
    averaged_weights,
    compile_model,
    compute_learning_rate,
    copy_values,
)

RANGES = {
    **dict.fromkeys(("epochs", "batch_size", "step_epochs"), (Integral, 1, 1e6)),
    **dict.fromkeys(("plateau_patience", "patience"), (Integral, 1, 1e6)),
    **dict.fromkeys(("max_time_width", "max_frequency_width"), (Integral, 1, 1e6)),
    **dict.fromkeys(("warmup_epochs", "num_time_masks"), (Integral, 0, 1e6)),
    **dict.fromkeys(("num_frequency_masks", "max_shift"), (Integral, 0, 1e6)),
    **dict.fromkeys(("learning_rate", "clip_norm", "step_factor"), (Real, 1e-12, 1e6)),
    **dict.fromkeys(("weight_decay", "focal_gamma", "mixup_alpha"), (Real, 0, 1e6)),
    **dict.fromkeys(("ema_momentum", "label_smoothing"), (Real, 0, 1)),
}


@dataclass(frozen=True)
class TrainingConfig:
    """How a model is trained.

    Optimiser: AdamW (Loshchilov and Hutter 2019), gradients clipped to `clip_norm`. Its learning
    rate warms up linearly, then follows `schedule`: constant, cosine (to zero at the last epoch),
    step (times `step_factor` every `step_epochs`) or plateau (times `step_factor` after
    `plateau_patience` epochs without a better validation loss). `learning_rate_factors`
    multiplies it for layers whose names start so (discriminative fine-tuning; Howard and Ruder,
    ACL 2018). Validated and tested is the exponential moving average of the weights, unless
    `ema_momentum` is None.

    Selection: the epoch with the best `monitor` ("uar" or "loss" on the validation part) is
    kept, without a validation part the last; training stops after `patience` epochs without a
    better one (None: never). With `monitor=None` nothing is selected in any fold:
    cross-validation then trains on the validation part as well.

    Loss: cross-entropy with `label_smoothing`; `focal_gamma` > 0 makes it focal (Lin et al.
    2017); `class_weights` weights each class by its inverse frequency in training.

    Sampling: "shuffled" shows each row once per epoch; "oversampled" repeats rows of rarer
    classes until all are as frequent as the most frequent one, so that an epoch is longer;
    "balanced" fills every batch evenly with all classes, in an epoch of the usual length, so that
    rows of frequent classes are seen less often than rows of rare ones.

    Augmentation: with `use_copies`, every epoch takes one version of each utterance, the original
    or one of its copies, at random; masks, shifts and mixup as in `common.batches`, 0
    switching each off.
    """

    epochs: int = 90
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    schedule: str = "cosine"
    warmup_epochs: int = 3
    step_epochs: int = 20
    step_factor: float = 0.5
    plateau_patience: int = 5
    ema_momentum: float | None = 0.99
    learning_rate_factors: tuple[tuple[str, float], ...] = ()
    monitor: str | None = "uar"
    patience: int | None = None
    label_smoothing: float = 0.1
    focal_gamma: float = 0.0
    class_weights: bool = False
    sampling: str = "shuffled"
    use_copies: bool = True
    mixup_alpha: float = 0.2
    num_time_masks: int = 1
    max_time_width: int = 16
    num_frequency_masks: int = 1
    max_frequency_width: int = 8
    max_shift: int = 10

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule={self.schedule!r} is unknown; choose from {SCHEDULES}")
        if self.sampling not in SAMPLINGS:
            raise ValueError(f"sampling={self.sampling!r} is unknown; choose from {SAMPLINGS}")
        if self.monitor not in ("uar", "loss", None):
            raise ValueError(f"monitor={self.monitor!r} is unknown; choose 'uar', 'loss' or None")
        if self.monitor is None and (self.schedule == "plateau" or self.patience is not None):
            raise ValueError(
                f"monitor=None leaves nothing for schedule={self.schedule!r}, "
                f"patience={self.patience} to watch; use a fixed schedule and patience=None"
            )
        for name, (kind, least, most) in RANGES.items():
            value = getattr(self, name)
            if value is None and name in ("patience", "ema_momentum"):
                continue
            if not isinstance(value, kind) or isinstance(value, bool) or not least <= value <= most:
                whole = "whole number" if kind is Integral else "number"
                raise ValueError(f"{name}={value!r}: give a {whole} from {least:g} to {most:g}")
        for factor in self.learning_rate_factors:
            if [type(part) for part in factor] not in ([str, float], [str, int]):
                raise ValueError(
                    f"learning_rate_factors={self.learning_rate_factors!r}: give pairs of how "
                    'names of layers start and a factor, such as (("encoder", 0.1),)'
                )


def train_model(
    model: keras.Model,
    train: Examples,
    validation: Examples,
    *,
    config: TrainingConfig,
    seed: int,
    state_path: Path | None,
    title: str = "training",
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> tuple[list[dict], float]:
    """Train a model and leave the weights of its best epoch in it.

    After every epoch all that the rest depends on is saved to `state_path`; where that file
    exists, training goes on from it and gives what it would have given uninterrupted. Without a
    path nothing is saved.

    `model` ends in class probabilities and is compiled here, unless it comes from a `Trainee`;
    `validation` may be empty; `seed` is of the order and augmentation of batches. Returned are one
    dict per epoch (learning rate, training loss and accuracy, validation loss, UAR and WA), and
    the seconds that training took, interruptions left out.
    """
    if not model.compiled:
        compile_model(model, config)
    batches = TrainingBatches(train, config=config, seed=seed)
    keeper = _EpochKeeper(batches, validation, config=config, path=state_path)
    done, total = keeper.restore(model), config.epochs
    if not keeper.is_finished(done):
        with tqdm(total=total, initial=done, desc=title, unit="epoch", leave=False) as keeper.bar:
            model.fit(
                batches,
                initial_epoch=done,
                epochs=total,
                shuffle=False,
                verbose=0,
                callbacks=[keeper, *callbacks],
            )
    assign_values(model.weights, keeper.best)
    return keeper.history, keeper.seconds


class _EpochKeeper(keras.callbacks.Callback):
    """After each epoch: validate the averaged weights, keep the best, save all that resumes it."""

    def __init__(
        self,
        batches: TrainingBatches,
        validation: Examples,
        *,
        config: TrainingConfig,
        path: Path | None,
    ) -> None:
        super().__init__()
        self.batches, self.validation, self.config, self.path = batches, validation, config, path
        self.history: list[dict] = []
        self.best: list[np.ndarray] = []
        self.best_epoch = -1
        self.seconds = 0.0

    def restore(self, model: keras.Model) -> int:
        """Load the state of an interrupted fold, if there is one; give the epoch to go on with.

        A state that is damaged or of another model is thrown away, with a warning.
        """
        if self.path is None or not self.path.exists():
            return 0
        variables = _list_variables(model)
        shapes = [variable.shape for variable in (*variables, *model.weights)]
        try:
            with np.load(self.path, allow_pickle=False) as state:
                values = [state[f"value_{index}"] for index in range(len(shapes))]
                notes = json.loads(str(state["notes"]))
            if shapes != [value.shape for value in values]:
                raise ValueError("it is of another model")
            history, best_epoch, seconds = notes["history"], notes["best_epoch"], notes["seconds"]
        except Exception as error:  # whatever a damaged archive raises
            warnings.warn(f"{self.path}: damaged ({error}); begun anew", stacklevel=2)
            self.path.unlink()
            return 0
        assign_values(variables, values[: len(variables)])
        self.best, self.best_epoch = values[len(variables) :], best_epoch
        self.history, self.seconds = history, seconds
        return len(history)

    def is_finished(self, epoch: int) -> bool:
        """Whether the epochs are used up, or `patience` of them went by without a better one."""
        patience = self.config.patience
        waited = epoch - 1 - self.best_epoch if self.history else 0
        return epoch >= self.config.epochs or (patience is not None and waited >= patience)

    def on_epoch_begin(self, epoch: int, logs=None) -> None:
        self.started = time.perf_counter()
        self.batches.start_epoch(epoch)
        heard = self.history if len(self.validation.targets) else []
        losses = [row["validation_loss"] for row in heard]
        self.model.optimizer.learning_rate = compute_learning_rate(self.config, epoch, losses)

    def on_epoch_end(self, epoch: int, logs=None) -> None:
        with averaged_weights(self.model, self.config):
            scores = self._validate()
            if self._is_better(scores):
                self.best = copy_values(self.model.weights)
                self.best_epoch = epoch
        self.seconds += time.perf_counter() - self.started
        rate = float(self.model.optimizer.learning_rate)
        measured = {name: float(logs[name]) for name in ("loss", "accuracy")}
        if not math.isfinite(measured["loss"]):
            raise ValueError(
                f"epoch {epoch + 1}: the loss is {measured['loss']}, no number; give a smaller "
                f"learning_rate than {self.config.learning_rate:g}, and look at the features"
            )
        self.history.append({"epoch": epoch, "learning_rate": rate, **measured, **scores})
        self._save()
        self.bar.update()
        self.bar.set_postfix(loss=f"{logs['loss']:.3f}", uar=f"{scores['validation_uar']:.3f}")
        if self.is_finished(epoch + 1):
            self.model.stop_training = True

    def _validate(self) -> dict:
        loss = uar = wa = math.nan
        if len(self.validation.targets):
            probabilities = run_network(self.model, self.validation.values)
            true, predicted = self.validation.targets.argmax(axis=1), probabilities.argmax(axis=1)
            loss = -np.log(np.maximum(probabilities[np.arange(len(true)), true], 1e-7)).mean()
            uar = recall_score(true, predicted, average="macro", labels=np.unique(true))
            wa = (true == predicted).mean()
        scores = {"loss": loss, "uar": uar, "wa": wa}
        return {f"validation_{name}": float(score) for name, score in scores.items()}

    def _is_better(self, scores: dict) -> bool:
        if self.best_epoch < 0 or not len(self.validation.targets) or self.config.monitor is None:
            return True
        return self._rank(scores) > self._rank(self.history[self.best_epoch])

    def _rank(self, row: dict) -> tuple:
        uar = row["validation_uar"] if self.config.monitor == "uar" else 0
        return uar, -row["validation_loss"]

    def _save(self) -> None:
        if self.path is None:
            return
        values = [*copy_values(_list_variables(self.model)), *self.best]
        state = {f"value_{index}": value for index, value in enumerate(values)}
        notes = {"history": self.history, "best_epoch": self.best_epoch, "seconds": self.seconds}
        with write_atomically(self.path) as temporary:
            np.savez(temporary, notes=json.dumps(notes), **state)


def _list_variables(model: keras.Model) -> list[keras.Variable]:
    """All variables that decide the rest of the training."""
    return [*model.variables, *model.optimizer.variables]
