"""What training sees: which rows in which order, and how a batch of them is varied."""

from dataclasses import dataclass

import keras
import numpy as np

SAMPLINGS = ("shuffled", "oversampled", "balanced")
MASKS = ("num_time_masks", "num_frequency_masks", "max_time_width", "max_frequency_width")


@dataclass(frozen=True)
class Examples:
    """Normalised features of some rows, with their labels.

    `values` has shape (rows, frames, bands), the one-hot `targets` (rows, classes). `copies`,
    which only training rows have, holds augmented versions: (rows, copies, frames, bands).
    """

    values: np.ndarray
    targets: np.ndarray
    copies: np.ndarray | None = None


class TrainingBatches(keras.utils.PyDataset):
    """Batches of augmented training rows, decided by (seed, epoch, batch) alone.

    Rows left over after the last full batch of an epoch wait for another epoch's order.
    """

    def __init__(self, train: Examples, *, config, seed: int) -> None:
        super().__init__()
        self.versions = train.values[:, None]
        if config.use_copies and train.copies is not None:
            self.versions = np.concatenate([self.versions, train.copies], axis=1)
        self.targets = targets = train.targets
        self.config, self.seed = config, seed
        counts = targets.sum(axis=0)
        self.class_weights = len(targets) / (len(counts) * np.maximum(counts, 1))
        self.start_epoch(0)

    def start_epoch(self, epoch: int) -> None:
        """Draw the rows in their order, and which version of each is seen."""
        self.epoch = epoch
        rng = np.random.default_rng([self.seed, epoch])
        labels = self.targets.argmax(axis=1)
        if self.config.sampling == "shuffled":
            self.order = rng.permutation(len(labels))
        elif self.config.sampling == "oversampled":
            self.order = oversample_rows(labels, rng)
        else:
            self.order = balance_rows(labels, rng, batch_size=self.config.batch_size)
        self.choice = rng.integers(0, self.versions.shape[1], size=len(self.order))
        if self.config.sampling == "shuffled":  # drawn by row, not by place
            self.choice = self.choice[self.order]

    def __len__(self) -> int:
        return max(1, len(self.order) // self.config.batch_size)

    def __getitem__(self, index: int):
        config = self.config
        rng = np.random.default_rng([self.seed, self.epoch, index])
        places = slice(index * config.batch_size, (index + 1) * config.batch_size)
        rows = self.order[places]
        batch = self.versions[rows, self.choice[places]]
        targets = self.targets[rows]
        weights = (targets @ self.class_weights).astype(np.float32)
        if config.max_shift:
            batch = shift_frames(batch, rng, max_shift=config.max_shift)
        if config.num_time_masks or config.num_frequency_masks:
            masks = {name: getattr(config, name) for name in MASKS}
            batch = mask_spectrograms(batch, rng, **masks)
        if config.mixup_alpha:
            batch, targets = mix_examples(batch, targets, rng, alpha=config.mixup_alpha)
        return (batch, targets, weights) if config.class_weights else (batch, targets)


def oversample_rows(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Repeat rows of rarer classes until all classes are equally frequent; shuffle them all.

    Class numbers (rows,) -> row numbers. Each row stands there at least once, and rows of one
    class differ by one at most in how often they do.
    """
    classes, counts = np.unique(labels, return_counts=True)
    drawn = [_draw_rounds(labels, kind, counts.max(), rng) for kind in classes]
    return rng.permutation(np.concatenate(drawn))


def balance_rows(labels: np.ndarray, rng: np.random.Generator, *, batch_size: int) -> np.ndarray:
    """Fill as many batches as the rows would fill, each evenly with all classes.

    Class numbers (rows,) -> row numbers, one batch after the other. Where the batch size is no
    multiple of the number of classes, some classes, drawn anew for each batch, have one row more
    in it. A class begins anew once all its rows were drawn.
    """
    classes = np.unique(labels)
    batch_size = min(batch_size, len(labels))
    each, more = divmod(batch_size, len(classes))
    kinds = []
    for _ in range(len(labels) // batch_size):
        kinds += [np.repeat(classes, each), rng.permutation(classes)[:more]]
    kinds = np.concatenate(kinds)
    order = np.empty(len(kinds), dtype=int)
    for kind in classes:
        places = np.flatnonzero(kinds == kind)
        order[places] = _draw_rounds(labels, kind, len(places), rng)
    return order


def _draw_rounds(labels: np.ndarray, kind: int, count: int, rng: np.random.Generator):
    """Draw `count` rows of a class, none again before all were drawn."""
    members = np.flatnonzero(labels == kind)
    rounds = [rng.permutation(members) for _ in range(-(-count // len(members)))]
    return np.concatenate([members[:0], *rounds])[:count]


def mask_spectrograms(
    batch: np.ndarray,
    rng: np.random.Generator,
    *,
    num_time_masks: int,
    num_frequency_masks: int,
    max_time_width: int,
    max_frequency_width: int,
) -> np.ndarray:
    """Set random stretches of time and of frequency to zero, the mean of normalised features.

    Gives a copy of the batch (examples, frames, bands). Widths are uniform from 0 to the largest,
    in frames and in bands. SpecAugment without time warping: Park et al., Interspeech 2019.
    """
    keep = np.ones_like(batch)
    num_examples, num_frames, num_bands = batch.shape
    for num_masks, length, max_width, axis in (
        (num_time_masks, num_frames, max_time_width, 1),
        (num_frequency_masks, num_bands, max_frequency_width, 2),
    ):
        positions = np.arange(length)
        for _ in range(num_masks):
            width = rng.integers(0, min(max_width, length) + 1, size=(num_examples, 1))
            start = (rng.random((num_examples, 1)) * (length - width + 1)).astype(int)
            outside = (positions < start) | (positions >= start + width)
            keep *= np.expand_dims(outside, axis=3 - axis)
    return batch * keep


def shift_frames(batch: np.ndarray, rng: np.random.Generator, *, max_shift: int) -> np.ndarray:
    """Move each example (frames, bands) in time by up to `max_shift`, repeating the edge frame."""
    num_examples, num_frames, _ = batch.shape
    shifts = rng.integers(-max_shift, max_shift + 1, size=(num_examples, 1))
    source = np.clip(np.arange(num_frames) - shifts, 0, num_frames - 1)
    return np.take_along_axis(batch, source[:, :, None], axis=1)


def mix_examples(
    batch: np.ndarray, targets: np.ndarray, rng: np.random.Generator, *, alpha: float
) -> tuple[np.ndarray, np.ndarray]:
    """Blend each example (frames, bands) and its target (classes,) with another of the batch.

    The weight of each is drawn from the Beta distribution of `alpha`. Zhang et al., "mixup: Beyond
    empirical risk minimization", ICLR 2018.
    """
    partner = rng.permutation(len(batch))
    weight = rng.beta(alpha, alpha, size=len(batch)).astype(np.float32)
    weight = np.maximum(weight, 1 - weight)
    over = weight[:, None, None]
    mixed = over * batch + (1 - over) * batch[partner]
    return mixed, weight[:, None] * targets + (1 - weight[:, None]) * targets[partner]
