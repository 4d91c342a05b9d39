"""What turns a waveform into what a model reads, as frozen steps; features of whole tables."""

import inspect
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from common import audio, decoding, paths
from common.audio import load_waveform
from common.files import describe_settings, digest, hash_file, write_atomically

if TYPE_CHECKING:  # what a recogniser, which follows a recipe for one recording, does without
    import pandas as pd

    from common.augmentation import Augmentation


class Step:
    """One step of a recipe: a frozen dataclass that turns one array into another.

    A class of one's own is a step as soon as it is defined; give it a `__call__`.
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

        Raises ValueError if a step or its settings are unknown, or the encoder is not the one that
        the recipe names.
        """
        steps = []
        try:
            for settings in map(dict, description["steps"]):
                kind = settings.pop("step")
                if kind not in Step.KINDS:
                    raise ValueError(f"no step {kind!r} among {sorted(Step.KINDS)}")
                steps.append(Step.KINDS[kind].from_settings(settings, encoder))
            return cls(steps, normalise=bool(description["normalise"]))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"not a recipe as Recipe.describe writes it ({error}); import the module that "
                "defines its steps, or train the model anew"
            ) from error


@dataclass(frozen=True)
class Features:
    """What a model reads of each utterance of a table, row for row, and the recipe behind it.

    `values` has shape (utterances, frames, bands); `copies` has shape (utterances, copies,
    frames, bands) and holds the augmented versions, which only training may see. Where a function
    stands for them they are made when they are first asked for, so that reading back what was
    trained before costs no augmentation.
    """

    values: np.ndarray
    made_copies: np.ndarray | Callable[[], np.ndarray]
    recipe: Recipe
    augmentations: "tuple[Augmentation, ...]" = ()

    @cached_property
    def copies(self) -> np.ndarray:
        return self.made_copies() if callable(self.made_copies) else self.made_copies

    def then(self, *steps: Step) -> "Features":
        """Apply further steps to every utterance and copy."""
        given = self
        for step in steps:
            values = np.stack([step(row) for row in given.values])
            given = given.replaced(values, partial(_apply, step, given, values), step)
        return given

    def replaced(self, values: np.ndarray, copies, step: Step) -> "Features":
        """Put other values and copies in the place of these, which `step` names for the record."""
        recipe = replace(self.recipe, steps=(*self.recipe.steps, step))
        return Features(values, copies, recipe, self.augmentations)

    def describe(self, *, changed: bool = False) -> dict:
        """Name the recipe and what made the copies."""
        copies = [augmentation.describe() for augmentation in self.augmentations]
        return {"recipe": self.recipe.describe(changed=changed), "augmentations": copies}


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
    copies = tuple(augmentations)
    values = _extract(table, recipe, None, jobs)
    empty = np.empty((len(table), 0, *values.shape[1:]), values.dtype)
    made = partial(_extract, table, recipe, copies, jobs) if copies else empty
    return Features(values, made, recipe, copies)


def _apply(step: Step, given: Features, values: np.ndarray) -> np.ndarray:
    """Take one step with every copy; `values` are what the step made of the utterances."""
    copies = [[step(copy) for copy in row] for row in given.copies]
    shape = (len(values), given.copies.shape[1], *values.shape[1:])
    return np.reshape(copies, shape).astype(values.dtype)


def _extract(
    table: "pd.DataFrame", recipe: Recipe, copies: "tuple[Augmentation, ...] | None", jobs: int
) -> np.ndarray:
    """Give the features of all recordings, or with `copies` those of their augmented versions."""
    from joblib import Parallel, delayed
    from threadpoolctl import threadpool_limits
    from tqdm.auto import tqdm

    _check_bytes(table)
    made_by = [recipe.describe()["steps"], copies and [copy.describe() for copy in copies]]
    code = _hash_code([*recipe.steps, *(copies or ())])
    name = digest([*made_by, code, list(table["audio_hash"])])
    cached = paths.CACHE_DIR / f"features-{name}.npy"
    stacked = _load_cache(cached, (len(table),) if copies is None else (len(table), len(copies)))
    if stacked is not None:
        return stacked
    rows = zip(table["path"], table["audio_hash"], strict=True)
    work = (delayed(_extract_row)(*row, recipe, copies) for row in rows)
    results = Parallel(n_jobs=jobs, prefer="threads", return_as="generator")(work)
    title = "features" if copies is None else "augmented copies"
    bar = tqdm(results, total=len(table), desc=title, unit="utterance", leave=False)
    with threadpool_limits(1, user_api="blas"):  # small products: its threads only wait
        stacked = np.stack(list(bar))
    broken = np.flatnonzero(~np.isfinite(stacked).all(axis=tuple(range(1, stacked.ndim))))
    if len(broken):
        raise ValueError(
            f"{table['path'].iloc[broken[0]]} and {len(broken) - 1} more: features that are "
            "not finite; mend the step that makes them, or leave the recordings out"
        )
    _save_cache(cached, stacked)
    return stacked


def _check_bytes(table: "pd.DataFrame") -> None:
    """Raise ValueError if a recording is not the one that its table was made of."""
    for path, expected in zip(table["path"], table["audio_hash"], strict=True):
        if Path(path).is_file() and hash_file(path) != expected:
            raise ValueError(
                f"{path}: changed since its table was made; load the corpus again, by load_corpus "
                "or load_folder"
            )


def _hash_code(steps: Sequence[object]) -> str:
    """Name the code that computes: of the steps, and of what decodes recordings."""
    sources = {inspect.getsource(audio), inspect.getsource(decoding)}
    for kind in map(type, steps):
        module = inspect.getmodule(kind)
        in_notebook = getattr(module, "__file__", None) is None
        try:
            sources.add(inspect.getsource(kind if in_notebook else module))
        except (OSError, TypeError):
            sources.add(kind.__qualname__)
    return digest(sorted(sources))


def _extract_row(path: str, audio_hash: str, recipe: Recipe, copies: tuple | None) -> np.ndarray:
    waveform = load_waveform(path)
    if copies is None:
        return recipe(waveform)
    seeds = [[number, int(audio_hash[:16], 16)] for number in range(len(copies))]
    versions = zip(copies, map(np.random.default_rng, seeds), strict=True)
    return np.stack([recipe(copy(waveform, rng)) for copy, rng in versions])


def _load_cache(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """Read a cached array; None if there is none, or what is there is damaged."""
    try:
        stacked = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    if not isinstance(stacked, np.ndarray) or stacked.dtype.kind != "f":
        return None
    return stacked if stacked.shape[: len(shape)] == shape and np.isfinite(stacked).all() else None


def _save_cache(path: Path, array: np.ndarray) -> None:
    try:
        with write_atomically(path) as temporary:
            np.save(temporary, array)
    except OSError as error:
        warnings.warn(
            f"{path}: the features could not be cached ({error.strerror}); they are computed "
            "again next time. Free space, or point SER_DATA_DIR to a folder you can write to.",
            stacklevel=4,
        )


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
