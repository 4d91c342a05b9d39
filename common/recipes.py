"""What turns a waveform into what a model reads, as frozen steps; features of whole tables."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from common.audio import load_waveform
from common.caching import check_finite, load_cache, name_cache, name_own_code, save_cache
from common.files import describe_settings, hash_file

if TYPE_CHECKING:  # what a recogniser, which follows a recipe for one recording, does without
    import pandas as pd

    from common.augmentation import Augmentation


class Step:
    """One step of a recipe: a frozen dataclass that turns one array into another.

    A class of one's own is a step as soon as it is defined; give it a `__call__`. One that only
    names what was done to features lists the functions that did it in `made_by`.
    """

    KINDS: ClassVar[dict[str, type["Step"]]] = {}

    def __init_subclass__(cls) -> None:
        Step.KINDS[cls.__name__] = cls

    def __call__(self, values: np.ndarray) -> np.ndarray:
        raise NotImplementedError(f"{type(self).__name__} has no __call__")

    def describe(self, *, changed: bool = False) -> dict:
        """Name the step and all its settings, or those that differ from their defaults."""
        return {"step": type(self).__name__, **describe_settings(self, changed=changed)}

    @classmethod
    def from_settings(cls, settings: dict, encoder) -> "Step":
        """Make the step of its settings; `encoder` is for those that hold one."""
        return cls(**settings)


@dataclass(frozen=True)
class Recipe:
    """The steps from a waveform at 16 kHz to what a model reads, one after the other.

    With `normalise` training brings each band to mean 0 and deviation 1, as measured on its own
    rows; the trained model holds these numbers.
    """

    steps: tuple[Step, ...]
    normalise: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", tuple(self.steps))

    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        """Give what a model reads, shape (frames, bands), of a waveform (samples,)."""
        for step in self.steps:
            waveform = step(waveform)
        return waveform

    def find(self, kind: type[Step]) -> Step:
        """Give the first step of a kind; raises ValueError if there is none."""
        for step in self.steps:
            if isinstance(step, kind):
                return step
        names = [type(step).__name__ for step in self.steps]
        raise ValueError(f"the recipe has no {kind.__name__} among its steps {names}")

    def describe(self, *, changed: bool = False) -> dict:
        """Write the recipe as JSON can hold it; `changed` leaves out settings at their defaults."""
        steps = [step.describe(changed=changed) for step in self.steps]
        return {"steps": steps, "normalise": self.normalise}

    @classmethod
    def from_description(cls, description: dict, *, encoder=None) -> "Recipe":
        """Make the recipe that `describe` wrote; `encoder` where its weights are one's own.

        Raises ValueError if a step or its settings are unknown, or it cannot be repeated for one
        recording, or the encoder is not the one that the recipe names.
        """
        steps = []
        try:
            for settings in map(dict, description["steps"]):
                kind = settings.pop("step")
                if kind not in Step.KINDS:
                    raise ValueError(f"no step {kind!r} among {sorted(Step.KINDS)}")
                if Step.KINDS[kind].__call__ is Step.__call__:
                    raise ValueError(f"{kind} needs more than one recording: train without it")
                steps.append(Step.KINDS[kind].from_settings(settings, encoder))
            return cls(steps, normalise=bool(description["normalise"]))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"not a recipe as Recipe.describe writes it ({error}); import the module that "
                "defines its steps, or train the model anew"
            ) from error


@dataclass(frozen=True)
class Rows:
    """An array that is made when it is needed: its number of rows, one like all others, and all."""

    number: int
    make_first: Callable[[], np.ndarray]
    make: Callable[[], np.ndarray]


@dataclass(frozen=True)
class Features:
    """What a model reads of each utterance of a table, row for row, and the recipe behind it.

    `values` has shape (utterances, frames, bands); `copies` has shape (utterances, copies,
    frames, bands) and holds the augmented versions, which only training may see. Where `Rows` or
    a function stand for them they are made when they are first asked for. Reading back what was
    trained before asks for `shape` alone, which one utterance tells.
    """

    made_values: np.ndarray | Rows
    made_copies: np.ndarray | Callable[[], np.ndarray]
    recipe: Recipe
    augmentations: "tuple[Augmentation, ...]" = ()

    @cached_property
    def values(self) -> np.ndarray:
        given = self.made_values
        return given.make() if isinstance(given, Rows) else given

    @cached_property
    def copies(self) -> np.ndarray:
        return self.made_copies() if callable(self.made_copies) else self.made_copies

    @cached_property
    def first(self) -> np.ndarray:
        """What a model reads of one utterance, shape (frames, bands); that of all is the same."""
        given = self.made_values
        return given.make_first() if isinstance(given, Rows) else given[0]

    def __len__(self) -> int:
        given = self.made_values
        return given.number if isinstance(given, Rows) else len(given)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of `values`: (utterances, frames, bands)."""
        return (len(self), *self.first.shape)

    def then(self, step: Step) -> "Features":
        """Apply a further step to every utterance and copy."""

        def apply_to_copies() -> np.ndarray:
            copies, first = [[step(copy) for copy in row] for row in self.copies], step(self.first)
            shape = (len(self), self.copies.shape[1], *first.shape)
            return np.reshape(copies, shape).astype(first.dtype)

        def apply() -> np.ndarray:
            return np.stack([step(row) for row in self.values])

        values = Rows(len(self), lambda: step(self.first), apply)
        return self.replaced(values, apply_to_copies, step)

    def replaced(self, values, copies, step: Step) -> "Features":
        """Put other values and copies in the place of these, which `step` names for the record."""
        recipe = replace(self.recipe, steps=(*self.recipe.steps, step))
        return Features(values, copies, recipe, self.augmentations)

    def fit_normaliser(self, rows: np.ndarray) -> "Normaliser":
        """Measure training rows, if the recipe normalises; else give what changes nothing."""
        if not self.recipe.normalise:
            return Normaliser.identity(self.shape[-1])
        return fit_normaliser(self.values[rows])

    def describe(self, *, changed: bool = False) -> dict:
        """Name the recipe and what made the copies; with `changed`, as a run's key needs it."""
        copies = [augmentation.describe() for augmentation in self.augmentations]
        described = {"recipe": self.recipe.describe(changed=changed), "augmentations": copies}
        own = name_own_code([*self.recipe.steps, *self.augmentations]) if changed else None
        return described | ({"code": own} if own else {})


def extract_features(
    table: "pd.DataFrame",
    recipe: Recipe,
    *,
    augmentations: "Sequence[Augmentation]" = (),
    jobs: int = -1,
) -> Features:
    """Follow a recipe for every recording of a table, or read the result from the cache.

    Each of `augmentations` gives every utterance one augmented copy. It depends on its own
    recording alone, so making it before the split lets nothing through; training asks for the
    copies, takes those of its own rows and leaves the others. `jobs` are joblib workers, -1 one
    per core.

    The cache lies in `data/cache`, one file per recipe, the code of its steps and the bytes of the
    recordings. Where it cannot be written (read-only, full disk) a warning says so and the result
    is returned all the same.

    Raises
    ------
    ValueError
        If a recording has changed since its table was made, or gives features that are not finite.
    """
    _check_bytes(table)
    copies = tuple(augmentations)
    first = partial(_extract_first, table, recipe)
    values = Rows(len(table), first, partial(_extract, table, recipe, None, jobs))
    return Features(values, partial(_extract, table, recipe, copies, jobs), recipe, copies)


def _extract_first(table: "pd.DataFrame", recipe: Recipe) -> np.ndarray:
    """Give the features of the first recording."""
    cached = load_cache(name_cache(table, recipe, None), (len(table),), rows=slice(1))
    if cached is not None:
        return cached[0]
    return _extract_row(table["path"].iloc[0], table["audio_hash"].iloc[0], recipe, None)


def _extract(
    table: "pd.DataFrame", recipe: Recipe, copies: "tuple[Augmentation, ...] | None", jobs: int
) -> np.ndarray:
    """Give the features of all recordings, or with `copies` those of their augmented versions."""
    from joblib import Parallel, delayed
    from threadpoolctl import threadpool_limits
    from tqdm.auto import tqdm

    if copies == ():
        first = _extract_first(table, recipe)
        return np.empty((len(table), 0, *first.shape), first.dtype)
    _check_bytes(table)
    cached = name_cache(table, recipe, copies)
    stacked = load_cache(cached, (len(table),) if copies is None else (len(table), len(copies)))
    if stacked is not None:
        return stacked
    rows = zip(table["path"], table["audio_hash"], strict=True)
    work = (delayed(_extract_row)(*row, recipe, copies) for row in rows)
    results = Parallel(n_jobs=jobs, prefer="threads", return_as="generator")(work)
    title = "features" if copies is None else "augmented copies"
    bar = tqdm(results, total=len(table), desc=title, unit="utterance", leave=False)
    with threadpool_limits(1, user_api="blas"):  # small products: its threads only wait
        made = list(bar)
    shapes = [one.shape for one in made]
    if odd := next((number for number, shape in enumerate(shapes) if shape != shapes[0]), 0):
        raise ValueError(
            f"{table['path'].iloc[odd]}: features of shape {shapes[odd]}, others of {shapes[0]}; "
            "add FitLength to the recipe"
        )
    stacked = np.stack(made)
    check_finite(stacked, table["path"])
    save_cache(cached, stacked)
    return stacked


def _check_bytes(table: "pd.DataFrame") -> None:
    """Refuse a recording that is not the one that its table was made of."""
    for path, expected in zip(table["path"], table["audio_hash"], strict=True):
        if Path(path).is_file() and hash_file(path) != expected:
            raise ValueError(
                f"{path}: changed since its table was made; load the corpus again, by load_corpus "
                "or load_folder"
            )


def _extract_row(path: str, audio_hash: str, recipe: Recipe, copies: tuple | None) -> np.ndarray:
    waveform = load_waveform(path)
    if copies is None:
        return recipe(waveform)
    seeds = [[number, int(audio_hash[:16], 16)] for number in range(len(copies))]
    versions = zip(copies, map(np.random.default_rng, seeds), strict=True)
    return np.stack([recipe(copy(waveform, rng)) for copy, rng in versions])


@dataclass(frozen=True)
class Normaliser:
    """Mean and standard deviation per band, of training rows alone; both of shape (bands,)."""

    mean: np.ndarray
    std: np.ndarray

    @classmethod
    def identity(cls, num_bands: int) -> "Normaliser":
        """Give the one that changes nothing."""
        return cls(np.zeros(num_bands, np.float32), np.ones(num_bands, np.float32))

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Give (values - mean) / std for an array of shape (…, bands), float32."""
        return ((values - self.mean) / self.std).astype(np.float32)


def fit_normaliser(values: np.ndarray) -> Normaliser:
    """Measure each band of training rows, shape (utterances, frames, bands)."""
    axes = tuple(range(values.ndim - 1))
    mean = values.mean(axis=axes, dtype=np.float64)
    std = values.std(axis=axes, dtype=np.float64)
    return Normaliser(mean.astype(np.float32), np.maximum(std, 1e-6).astype(np.float32))
