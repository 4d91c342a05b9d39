"""Features are librosa's and the textbook's; their cache and normaliser change nothing."""

import errno
import inspect
import json
import linecache
import os
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from types import ModuleType

import librosa
import numpy as np
import pandas as pd
import pytest
import scipy.fft
import scipy.stats
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from common import caching, features, paths, recipes
from common.audio import SAMPLE_RATE_HERTZ, load_waveform, scan_recording
from common.augmentation import Augmentation, ChangeSpeed
from common.degradations import Degrade
from common.encoders import ENCODERS, load_encoder
from common.encoders.extraction import Embed
from common.features import (
    FUNCTIONALS,
    Cepstra,
    FitLength,
    Functionals,
    LogMel,
    Trim,
    build_gaussian_filters,
    compute_functionals,
)
from common.files import digest, hash_file
from common.recipes import Features, Recipe, Step, extract_features, fit_normaliser
from tests.speech_tables import write_recordings
from tests.whisper_arrays import SMALL

TOLERANCE_DB = 1e-3
TOLERANCE_MFCC = 1e-3
STEPS = {
    "default": (2.5, LogMel()),
    "window not a power of two": (
        2.5,
        LogMel(window_seconds=0.025, hop_seconds=0.010, num_bands=40, fmin_hertz=0.0),
    ),
    "other band, range and length": (
        1.2345,
        LogMel(fmin_hertz=80.0, fmax_hertz=7600.0, range_db=60.0),
    ),
}
KINDS = {
    "log_mel": LogMel,
    "mfcc": Cepstra,
    "gaussian": partial(Cepstra, filters="gaussian"),
    "functionals": Functionals,
}


def make_recipe(step: LogMel, *, seconds: float = 2.5, trim: bool = True) -> Recipe:
    return Recipe((*[Trim()] * trim, FitLength(seconds), step))


def make_cepstra(step: LogMel, **settings) -> Cepstra:
    return Cepstra(**{**asdict(step), **settings})


def get_shape(step: LogMel, seconds: float) -> tuple[int, int]:
    """(frames, bands) of one utterance; functionals are one frame."""
    if isinstance(step, Functionals):
        return 1, len(FUNCTIONALS) * (step.num_bands + 2 * step.num_coefficients)
    width = step.num_coefficients if isinstance(step, Cepstra) else step.num_bands
    return 1 + round(seconds * SAMPLE_RATE_HERTZ) // step.hop_length, width


def make_speech(*, seconds: float = 2.5, seed: int = 0) -> np.ndarray:
    """Bursts of noise and harmonics with pauses, and a quiet floor below them."""
    rng = np.random.default_rng(seed)
    times = np.arange(round(seconds * SAMPLE_RATE_HERTZ)) / SAMPLE_RATE_HERTZ
    harmonics = sum(np.sin(2 * np.pi * 150 * k * times) / k for k in range(1, 20))
    syllables = np.maximum(0, np.sin(2 * np.pi * 3 * times)) ** 2
    noise = rng.normal(size=len(times))
    return (0.1 * syllables * (harmonics + 0.3 * noise) + 1e-3 * noise).astype(np.float32)


def select_librosa_arguments(config: LogMel) -> dict:
    return {
        "sr": SAMPLE_RATE_HERTZ,
        "n_fft": config.fft_length,
        "win_length": config.window_length,
        "hop_length": config.hop_length,
        "n_mels": config.num_bands,
        "fmin": config.fmin_hertz,
        "fmax": config.fmax_hertz,
    }


def test_trimming_and_padding_come_before_the_spectrum():
    step = LogMel()
    pause = np.zeros(6_000, dtype=np.float32)
    waveform = np.concatenate([pause, make_speech(seconds=1.5), pause])
    trimmed, _ = librosa.effects.trim(waveform, top_db=30, frame_length=1024, hop_length=256)
    padded = librosa.util.pad_center(trimmed, size=2 * SAMPLE_RATE_HERTZ)
    mel = librosa.feature.melspectrogram(y=padded, **select_librosa_arguments(step))
    expected = librosa.power_to_db(mel, top_db=80).T
    computed = make_recipe(step, seconds=2.0)(waveform)
    np.testing.assert_allclose(computed, expected, atol=TOLERANCE_DB)


def compute_log_mel_by_formula(waveform: np.ndarray, config: LogMel) -> np.ndarray:
    """Compute the textbook's log-mel in double precision, without librosa; (frames, bands)."""
    length, hop = config.fft_length, config.hop_length
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(config.window_length) / config.window_length)
    left = (length - config.window_length) // 2
    window = np.pad(hann, (left, length - config.window_length - left))
    padded = np.pad(waveform.astype(np.float64), length // 2)
    starts = range(0, len(padded) - length + 1, hop)
    frames = np.stack([padded[start : start + length] * window for start in starts])
    power = np.abs(np.fft.rfft(frames)) ** 2

    def to_mel(hertz):  # Slaney's: linear below 1 kHz, logarithmic above
        hertz = np.asarray(hertz, dtype=float)
        above = 15 + 27 * np.log(np.maximum(hertz, 1) / 1000) / np.log(6.4)
        return np.where(hertz < 1000, 3 * hertz / 200, above)

    grid = np.linspace(0, SAMPLE_RATE_HERTZ / 2, 2_000_001)
    edges_mel = np.linspace(*to_mel([config.fmin_hertz, config.fmax_hertz]), config.num_bands + 2)
    edges = np.interp(edges_mel, to_mel(grid), grid)
    bins = np.arange(length // 2 + 1) * SAMPLE_RATE_HERTZ / length
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rise, fall = (bins - low) / (centre - low), (high - bins) / (high - centre)
    triangles = np.maximum(0, np.minimum(rise, fall)) * 2 / (high - low)
    decibels = 10 * np.log10(np.maximum(power @ triangles.T, 1e-10))
    return np.maximum(decibels, decibels.max() - config.range_db)


@pytest.mark.parametrize(("seconds", "step"), STEPS.values(), ids=STEPS)
def test_features_follow_the_formulas(seconds, step):
    waveform = make_speech(seconds=seconds)
    expected = compute_log_mel_by_formula(waveform, step)
    np.testing.assert_allclose(step(waveform), expected, atol=TOLERANCE_DB)

    num_bands, orders = step.num_bands, np.arange(20)
    angles = np.pi * np.outer(orders, 2 * np.arange(num_bands) + 1) / (2 * num_bands)
    scale = np.where(orders == 0, np.sqrt(1 / num_bands), np.sqrt(2 / num_bands))
    np.testing.assert_allclose(
        make_cepstra(step, num_coefficients=20)(waveform),
        expected @ (scale[:, None] * np.cos(angles)).T,
        atol=TOLERANCE_MFCC,
    )


def test_a_tone_lands_in_its_band_and_a_louder_one_is_as_many_decibels_higher():
    times = np.arange(2 * SAMPLE_RATE_HERTZ) / SAMPLE_RATE_HERTZ
    tone = (0.01 * np.sin(2 * np.pi * 1000 * times)).astype(np.float32)
    recipe = make_recipe(LogMel(), seconds=2.0)
    values = recipe(tone)
    centres = librosa.mel_frequencies(64 + 2, fmin=50, fmax=8000)[1:-1]
    assert centres[values.mean(axis=0).argmax()] == pytest.approx(1000, abs=40)
    difference = recipe(10 * tone).max() - values.max()
    assert difference == pytest.approx(20, abs=1e-3)


@settings(max_examples=40)
@given(
    kind=st.sampled_from([*KINDS]),
    kept=st.floats(0.1, 3.0),
    hop_seconds=st.floats(0.005, 0.03),
    seconds=st.floats(0.0001, 4.0),
    num_bands=st.sampled_from([40, 64]),
    trim=st.booleans(),
)
def test_every_duration_gives_the_shape_of_the_settings(
    kind, kept, hop_seconds, seconds, num_bands, trim
):
    step = KINDS[kind](hop_seconds=hop_seconds, num_bands=num_bands)
    values = make_recipe(step, seconds=kept, trim=trim)(make_speech(seconds=seconds))
    assert values.shape == get_shape(step, kept)
    assert values.dtype == np.float32 and np.isfinite(values).all()
    if kind == "log_mel":
        assert np.ptp(values) <= step.range_db + 1e-3


# Gaussian filters and functionals


def find_centres(config: LogMel) -> tuple[np.ndarray, np.ndarray]:
    """Centres of the bands and half the distance from each to the next, in hertz."""
    mel = librosa.mel_frequencies(
        config.num_bands + 2, fmin=config.fmin_hertz, fmax=config.fmax_hertz
    )
    return mel[1:-1], np.diff(mel)[1:] / 2


def make_bells(step: LogMel) -> np.ndarray:
    return build_gaussian_filters(step.fft_length, step.num_bands, step.fmin_hertz, step.fmax_hertz)


FINE = LogMel(window_seconds=1.0, fmax_hertz=6000.0)


def test_gaussian_filters_are_bells_of_the_documented_width():
    filters = make_bells(FINE).astype(np.float64)
    assert filters.shape == (FINE.num_bands, FINE.fft_length // 2 + 1)
    bins = np.fft.rfftfreq(FINE.fft_length, 1 / SAMPLE_RATE_HERTZ)
    for values, centre, width in zip(filters, *find_centres(FINE), strict=True):
        assert values.min() >= 0 and 0.999 < values.max() <= 1
        assert bins[values.argmax()] == pytest.approx(centre, abs=bins[1])
        for distance in (0.5, 1, 2):
            sides = np.interp([centre - distance * width, centre + distance * width], bins, values)
            np.testing.assert_allclose(sides, np.exp(-(distance**2) / 2), atol=2e-3)
        assert np.average(bins, weights=values) == pytest.approx(centre, abs=0.01 * width)
        deviation = np.sqrt(np.average((bins - centre) ** 2, weights=values))
        assert deviation == pytest.approx(width, rel=0.01)


def test_no_gaussian_filter_falls_between_the_bins():
    for _, step in STEPS.values():
        assert (make_bells(step).max(axis=1) > 0.7).all()


def compute_spectrum(waveform: np.ndarray, config: LogMel) -> np.ndarray:
    names = ("n_fft", "win_length", "hop_length")
    arguments = select_librosa_arguments(config)
    return librosa.stft(waveform, **{name: arguments[name] for name in names})


@pytest.mark.parametrize(("seconds", "step"), STEPS.values(), ids=STEPS)
def test_gaussian_cepstra_follow_the_formula(seconds, step):
    waveform = make_speech(seconds=seconds)
    config = make_cepstra(step, filters="gaussian", num_coefficients=20)
    power = np.abs(compute_spectrum(waveform, config)).astype(np.float64) ** 2
    bins = np.arange(config.fft_length // 2 + 1) * SAMPLE_RATE_HERTZ / config.fft_length
    energies = [
        np.exp(-((bins - centre) ** 2) / (2 * width**2)) @ power
        for centre, width in zip(*find_centres(config), strict=True)
    ]
    decibels = 10 * np.log10(np.maximum(energies, 1e-10))
    decibels = np.maximum(decibels, decibels.max() - config.range_db)
    expected = scipy.fft.dct(decibels, norm="ortho", axis=0)[:20].T
    np.testing.assert_allclose(config(waveform), expected, atol=TOLERANCE_MFCC)


def compute_functionals_by_formula(frames: np.ndarray) -> dict[str, np.ndarray]:
    values = frames.astype(np.float64)
    quartiles = [np.quantile(values, share, axis=0) for share in (0.25, 0.75)]
    return {
        "mean": np.mean(values, axis=0),
        "standard deviation": np.std(values, axis=0),
        "minimum": np.min(values, axis=0),
        "maximum": np.max(values, axis=0),
        "range": np.ptp(values, axis=0),
        "median": np.median(values, axis=0),
        "lower quartile": quartiles[0],
        "upper quartile": quartiles[1],
        "interquartile range": scipy.stats.iqr(values, axis=0),
        "skewness": scipy.stats.skew(values, axis=0),
        "kurtosis": scipy.stats.kurtosis(values, axis=0),
        "slope": np.polyfit(np.arange(len(values)), values, 1)[0],
        "mean absolute difference": np.mean(np.abs(values[1:] - values[:-1]), axis=0),
    }


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    num_frames=st.integers(2, 80),
    num_bands=st.integers(1, 6),
    offset=st.floats(-100, 100),
    scale=st.floats(0.01, 50),
)
def test_functionals_are_those_of_numpy_and_scipy(seed, num_frames, num_bands, offset, scale):
    noise = np.random.default_rng(seed).gamma(2, size=(num_frames, num_bands))
    frames = (offset + scale * noise).astype(np.float32)
    expected = compute_functionals_by_formula(frames)
    assert tuple(expected) == FUNCTIONALS and len(FUNCTIONALS) == 13
    computed = compute_functionals(frames)
    assert computed.shape == (13, num_bands) and computed.dtype == np.float32
    for name, values in zip(FUNCTIONALS, computed, strict=True):
        np.testing.assert_allclose(values, expected[name], rtol=1e-4, atol=1e-4, err_msg=name)


@given(value=st.floats(-200, 200, width=32), num_frames=st.integers(1, 60))
def test_a_constant_band_has_no_shape_and_no_slope(value, num_frames):
    varied = np.random.default_rng(0).normal(size=num_frames)
    frames = np.stack([np.full(num_frames, value), varied], axis=1).astype(np.float32)
    facts = dict(zip(FUNCTIONALS, compute_functionals(frames)[:, 0], strict=True))
    for name in ("mean", "minimum", "maximum", "median", "lower quartile", "upper quartile"):
        assert facts.pop(name) == pytest.approx(value, rel=1e-6)
    assert facts.pop("skewness") == facts.pop("kurtosis") == 0
    np.testing.assert_allclose([*facts.values()], 0, atol=1e-6)
    assert np.isfinite(compute_functionals(frames)).all()


def test_one_frame_gives_its_values_and_zeros():
    frame = np.array([[3.0, -7.5]], dtype=np.float32)
    facts = dict(zip(FUNCTIONALS, compute_functionals(frame), strict=True))
    for name in ("mean", "minimum", "maximum", "median", "lower quartile", "upper quartile"):
        np.testing.assert_array_equal(facts.pop(name), frame[0])
    np.testing.assert_array_equal([*facts.values()], np.zeros((7, 2)))


def test_functionals_sum_up_the_three_views_one_after_the_other():
    waveform = make_speech(seconds=1.5)
    sizes = {"num_bands": 24, "num_coefficients": 10}
    values = Functionals(**sizes)(waveform)
    assert values.shape == (1, 13 * (24 + 10 + 10))
    steps = (LogMel(num_bands=24), Cepstra(**sizes), Cepstra(**sizes, filters="gaussian"))
    views = [compute_functionals(step(waveform)).ravel() for step in steps]
    np.testing.assert_allclose(values[0], np.concatenate(views), rtol=1e-5, atol=1e-5)


def test_functionals_take_a_sound_of_any_length():
    recipe = Recipe((Trim(), Functionals()))
    for num_samples in (2, 500, 30_000):
        values = recipe(make_speech()[:num_samples])
        assert values.shape == (1, 1872) and np.isfinite(values).all()


@pytest.mark.parametrize("kind", KINDS)
def test_silence_gives_finite_values(kind):
    values = make_recipe(KINDS[kind]())(np.zeros(8000, dtype=np.float32))
    assert values.shape == get_shape(KINDS[kind](), 2.5) and np.isfinite(values).all()


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="filters='chroma' is unknown; choose from"):
        Cepstra(filters="chroma")
    with pytest.raises(ValueError, match="fmax_hertz=9000 is above half the sample rate"):
        LogMel(fmax_hertz=9000)
    with pytest.raises(ValueError, match="num_coefficients=40 .* num_bands=32"):
        Cepstra(num_bands=32, num_coefficients=40)
    for make in (partial(Cepstra, filters="gaussian"), Functionals):
        with pytest.raises(ValueError, match="num_coefficients=40 .* num_bands=39"):
            make(num_bands=39, num_coefficients=40)


# Recipes


@pytest.mark.parametrize("kind", KINDS)
def test_a_recipe_is_made_again_from_its_description(kind):
    recipe = Recipe((Trim(25), FitLength(1.5), KINDS[kind](num_bands=44)), normalise=False)
    again = Recipe.from_description(json.loads(json.dumps(recipe.describe())))
    assert again == recipe
    waveform = make_speech()
    np.testing.assert_array_equal(again(waveform), recipe(waveform))


def test_a_description_leaves_defaults_out_where_it_names_a_run():
    recipe = Recipe((Trim(30), FitLength(1.5), LogMel()))
    steps = [{"step": "Trim"}, {"step": "FitLength", "seconds": 1.5}, {"step": "LogMel"}]
    assert recipe.describe(changed=True)["steps"] == steps
    assert recipe.describe()["steps"][0] == {"step": "Trim", "top_db": 30.0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": [{"step": "Chroma"}]}, "no step 'Chroma' among"),
        ({"steps": [{"step": "Trim", "loudness": 3}]}, "not a recipe .*loudness"),
        ({"steps": [{}]}, "not a recipe"),
        ({"steps": 3}, "not a recipe"),
        ({"normalise": None, "steps": None}, "not a recipe"),
    ],
)
def test_what_is_no_recipe_says_so(change, message):
    with pytest.raises(ValueError, match=message):
        Recipe.from_description({**Recipe((Trim(),)).describe(), **change})


@dataclass(frozen=True)
class TakeMaximum(Step):
    """Largest value of each band."""

    def __call__(self, values: np.ndarray) -> np.ndarray:
        return values.max(axis=0, keepdims=True)


def test_a_step_of_ones_own_follows_others(table):
    extracted = extract_features(table, RECIPE, augmentations=AUGMENTATIONS)
    taken = extracted.then(TakeMaximum())
    np.testing.assert_array_equal(taken.values, extracted.values.max(axis=1, keepdims=True))
    np.testing.assert_array_equal(taken.copies, extracted.copies.max(axis=2, keepdims=True))
    waveform = load_waveform(table["path"].iloc[2])
    np.testing.assert_array_equal(taken.recipe(waveform), taken.values[2])
    assert Recipe.from_description(taken.recipe.describe()) == taken.recipe
    assert extract_features(table, RECIPE).then(TakeMaximum()).copies.shape == (5, 0, 1, 16)


# Extraction of a table, and its cache


@dataclass(frozen=True)
class AddNoise(Augmentation):
    amplitude: float

    def __call__(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return waveform + self.amplitude * rng.normal(size=len(waveform)).astype(np.float32)


RECIPE = make_recipe(LogMel(num_bands=16), seconds=0.5)
SHAPE = (32, 16)
AUGMENTATIONS = (ChangeSpeed(1.1), AddNoise(0.1))


@pytest.fixture
def table(tmp_path, monkeypatch) -> pd.DataFrame:
    """Make a table of five recordings, and an empty cache."""
    monkeypatch.setattr(paths, "CACHE_DIR", tmp_path / "cache")
    recordings = [tmp_path / f"{number}.wav" for number in range(5)]
    for number, path in enumerate(recordings):
        soundfile.write(path, make_speech(seconds=0.4 + 0.1 * number, seed=number), 16_000)
    hashes = [scan_recording(path)["sha256"] for path in recordings]
    return pd.DataFrame({"path": [str(path) for path in recordings], "audio_hash": hashes})


def assert_equal(first: Features, second: Features) -> None:
    np.testing.assert_array_equal(first.values, second.values)
    np.testing.assert_array_equal(first.copies, second.copies)
    assert first.describe() == second.describe()


def test_a_table_is_extracted_row_for_row(table):
    extracted = extract_features(table, RECIPE, augmentations=AUGMENTATIONS)
    assert extracted.values.shape == (5, *SHAPE)
    assert extracted.copies.shape == (5, 2, *SHAPE)
    for row, path in enumerate(table["path"]):
        expected = RECIPE(load_waveform(path))
        np.testing.assert_array_equal(extracted.values[row], expected)
        faster = ChangeSpeed(1.1)(load_waveform(path), np.random.default_rng(0))
        np.testing.assert_array_equal(extracted.copies[row, 0], RECIPE(faster))
    assert extracted.describe()["recipe"]["steps"][-1]["num_bands"] == 16
    assert [entry["name"] for entry in extracted.describe()["augmentations"]] == [
        "ChangeSpeed",
        "AddNoise",
    ]


def test_without_augmentations_there_are_no_copies(table):
    assert extract_features(table, RECIPE).copies.shape == (5, 0, *SHAPE)


def test_a_cache_hit_equals_a_miss_and_reads_no_audio(table, monkeypatch):
    missed = extract(table, RECIPE, augmentations=AUGMENTATIONS)
    assert missed.shape == missed.values.shape
    assert missed.copies.shape[1] == 2
    for path in table["path"]:
        Path(path).unlink()
    assert_equal(extract_features(table, RECIPE, augmentations=AUGMENTATIONS), missed)


def test_the_shape_is_told_by_the_first_recording_alone(table, monkeypatch):
    heard = []
    monkeypatch.setattr(
        recipes, "load_waveform", lambda path: heard.append(path) or load_waveform(path)
    )
    features = extract_features(table, RECIPE, augmentations=AUGMENTATIONS)
    taken = features.then(TakeMaximum()).then(TakeMaximum())
    assert not heard
    assert (features.shape, taken.shape, len(taken)) == ((5, *SHAPE), (5, 1, 16), 5)
    assert set(heard) == {table["path"][0]} and not paths.CACHE_DIR.exists()
    heard.clear()
    assert taken.values.shape == taken.shape and len(heard) == 5
    np.testing.assert_array_equal(taken.first, taken.values[0])
    assert extract_features(table, RECIPE).shape == features.shape and len(heard) == 5


def test_copies_are_made_when_they_are_first_asked_for_and_then_once(table):
    made = []

    class Counted(ChangeSpeed):
        def __call__(self, waveform, rng):
            made.append(len(waveform))
            return super().__call__(waveform, rng)

    extracted = extract_features(table, RECIPE, augmentations=[Counted(1.1)])
    taken = extracted.then(TakeMaximum())
    assert taken.values.shape == (5, 1, 16) and not made
    assert taken.copies.shape == (5, 1, 1, 16) and len(made) == 5
    assert extracted.copies is extracted.copies and len(made) == 5


def test_a_recording_that_changed_before_its_copies_were_made_is_refused(table):
    extracted = extract_features(table, RECIPE, augmentations=AUGMENTATIONS)
    soundfile.write(table["path"][0], make_speech(seconds=0.4, seed=99), 16_000)
    with pytest.raises(ValueError, match="changed since its table was made"):
        _ = extracted.copies


def extract(table, recipe, **settings) -> Features:
    """As `extract_features`, at once."""
    features = extract_features(table, recipe, **settings)
    assert len(features.values) == len(table)
    return features


def test_whatever_decides_the_values_decides_the_cache_file(table):
    extract(table, RECIPE)
    extract(table, replace(RECIPE, steps=(*RECIPE.steps[:2], LogMel(num_bands=16, range_db=70.0))))
    assert extract(table, RECIPE, augmentations=AUGMENTATIONS).copies.shape[1] == 2
    assert extract(table, RECIPE, augmentations=AUGMENTATIONS[::-1]).copies.shape[1] == 2
    extract(table[::-1], RECIPE)
    assert len(list(paths.CACHE_DIR.iterdir())) == 5
    extract(table.assign(path="moved elsewhere"), RECIPE)  # the bytes decide
    assert len(list(paths.CACHE_DIR.iterdir())) == 5


def test_another_version_of_a_library_decides_the_cache_file(table, monkeypatch):
    named = {caching.name_cache(table, RECIPE, None)}
    for other in caching.LIBRARIES:
        monkeypatch.setattr(caching, "read_version", lambda name, other=other: name == other)
        caching._read_versions.cache_clear()
        named.add(caching.name_cache(table, RECIPE, None))
    monkeypatch.undo()
    caching._read_versions.cache_clear()
    assert len(named) == 1 + len(caching.LIBRARIES)


def test_one_job_and_many_give_the_same(table):
    first = extract(table, RECIPE, augmentations=AUGMENTATIONS, jobs=1)
    for cached in paths.CACHE_DIR.iterdir():
        cached.unlink()
    assert_equal(extract(table, RECIPE, augmentations=AUGMENTATIONS, jobs=3), first)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_cache_that_cannot_be_written_costs_time_only(code, table, monkeypatch):
    expected = extract(table, RECIPE, augmentations=AUGMENTATIONS)
    [cached] = paths.CACHE_DIR.iterdir()
    cached.unlink()
    save = np.save

    def fail(file, array):
        save(file, array[:2])  # some bytes are written before the disk is full
        raise OSError(code, "cannot write")

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", fail)
        with pytest.warns(
            UserWarning, match="cannot write.*Free space, or .*SER_DATA_DIR"
        ) as caught:
            extracted = extract(table, RECIPE, augmentations=AUGMENTATIONS)
    assert len(caught) == 1 and caught[0].filename == __file__
    assert str(cached) in str(caught[0].message)
    assert list(paths.CACHE_DIR.iterdir()) == []
    assert_equal(extracted, expected)


def test_a_cache_folder_that_cannot_be_made_costs_time_only(table, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(paths, "CACHE_DIR", tmp_path / "file" / "cache")
    with pytest.warns(UserWarning, match="could not be cached"):
        assert len(extract(table, RECIPE).values) == 5


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"not an array",
        b"PK\3\4",
        "cut",
        "archive",
        "objects",
        "shape",
        "bands",
        "infinite",
        "values",
    ],
)
def test_a_damaged_cache_is_made_again(damage, table):
    expected = extract(table, RECIPE)
    [cached] = paths.CACHE_DIR.iterdir()
    whole = cached.read_bytes()
    if damage == "archive":
        with cached.open("wb") as file:
            np.savez(file, values=expected.values)
    elif damage == "objects":
        np.save(cached, np.array([None] * 5))
    elif damage == "shape":
        np.save(cached, expected.values[:4])
    elif damage == "bands":
        np.save(cached, expected.values[..., :7])
    elif damage == "values":
        cached.write_bytes(whole[:400] + bytes([whole[400] ^ 1]) + whole[401:])
    elif damage == "infinite":
        np.save(cached, np.full((5, *SHAPE), np.inf, np.float32))
    else:
        cached.write_bytes(whole[:-100] if damage == "cut" else damage)
    with pytest.warns(
        UserWarning, match=rf"{cached.name}: this cache is damaged and is made again"
    ):
        assert_equal(extract(table, RECIPE), expected)
    assert cached.read_bytes() == whole
    extract(table, RECIPE)


def test_a_recording_that_cannot_be_read_is_named(table):
    path = Path(table["path"].iloc[3])
    path.write_text("not a sound")
    with pytest.raises(ValueError, match=r"3\.wav: not audio"):
        extract(table.assign(audio_hash=[hash_file(file) for file in table["path"]]), RECIPE)
    assert not paths.CACHE_DIR.exists()


def test_a_recording_that_changed_after_its_table_was_made_is_told(table):
    extract(table, RECIPE)
    path = table["path"].iloc[3]
    soundfile.write(path, make_speech(seconds=0.7, seed=9), 16_000)
    with pytest.raises(ValueError, match=r"3\.wav: changed since its table was made; load the"):
        extract(table, RECIPE)
    assert len(list(paths.CACHE_DIR.iterdir())) == 1


@dataclass(frozen=True)
class Scale(Step):
    factor: float = 2.0

    def __call__(self, waveform):
        return (self.factor * waveform[:3_200]).reshape(32, 100)


def test_features_are_kept_by_the_code_that_computes_them(table, monkeypatch):
    recipe = Recipe([Scale()])
    before = extract(table, recipe).values
    assert extract(table, recipe).values.shape == before.shape
    assert len(list(paths.CACHE_DIR.iterdir())) == 1
    get_source = inspect.getsource
    monkeypatch.setattr(
        caching.inspect, "getsource", lambda thing: get_source(thing).replace("3_200", "3_201")
    )
    extract(table, recipe)
    assert len(list(paths.CACHE_DIR.iterdir())) == 2


NOTEBOOK = """
from dataclasses import dataclass
from functools import lru_cache, partial, wraps
import numpy as np
from common.recipes import Step

def offset(function):
    @wraps(function)
    def moved(x): return function(x) + 0.0625
    return moved
GAIN = 2.0
WINDOW = np.linspace(0, 1, 2000)
WORDS = frozenset({"one", "two", "three"})

def third(x, power=1.0): return (x / 3) ** power  # a third
@offset
def half(x): return third(x) * 1.5 * GAIN + WINDOW[0]
@lru_cache
def choose(): return 0.25
scale = partial(third, power=3.0)
METHODS = {"scale": scale}
class Base:
    def turn(self, x): return x - 0.03125
class Helper(Base):
    def __init__(self): self.shift = 0.75
    def move(self, x): return self.turn(x) + self.shift
HELPER = Helper()
def unrelated(x): return x + 77
move = 5

@dataclass(frozen=True)
class Halve(Step):
    factor: float = 2.0
    OFFSET = 10
    @staticmethod
    def add(x): return x + 0.125
    @property
    def level(self): return 0.625
    def __call__(self, x):
        deeper = [half(y) for y in (x, x) if "one" in WORDS]
        return METHODS["scale"](self.add(deeper[0])) * choose() + HELPER.move(self.level)
"""


def name_notebook_code(code: str, *, has_source: bool = True) -> tuple[str, str | None]:
    """Name the code of the step that a notebook defines, for a cache and for a run.

    A notebook is no file; Python finds its source as Jupyter keeps it, and none at a prompt.
    """
    notebook = ModuleType("notebook")
    sys.modules["notebook"] = notebook
    place = "<cell>" if has_source else "<string>"
    if has_source:
        linecache.cache[place] = (len(code), None, code.splitlines(keepends=True), place)
    try:
        exec(compile(code, place, "exec"), vars(notebook))
        steps = [notebook.Halve()]
        return caching._hash_code(steps), caching.name_own_code(steps)
    finally:
        linecache.cache.pop(place, None)
        del sys.modules["notebook"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("OFFSET = 10", "OFFSET = 11"),
        ("deeper[0]", "deeper[1]"),
        ("* 1.5", "* 1.6"),
        ("x / 3", "x * 3"),
        ("power=1.0", "power=1.1"),
        ("power=3.0", "power=3.1"),
        ("GAIN = 2.0", "GAIN = 2.1"),
        ("(0, 1, 2000)", "(0, 1.1, 2000)"),
        ("return 0.25", "return 0.26"),
        ("shift = 0.75", "shift = 0.76"),
        ("(x) + self.shift", "(x) - self.shift"),
        ("x + 0.125", "x + 0.126"),
        ("return 0.625", "return 0.626"),
        ('"three"', '"four"'),
        ("+ 0.0625", "+ 0.07"),
        ("x - 0.03125", "x - 0.04"),
    ],
)
@pytest.mark.parametrize("has_source", [True, False])
def test_an_edit_in_a_notebook_makes_features_and_runs_anew(old, new, has_source):
    assert NOTEBOOK.count(old) == 1
    before = name_notebook_code(NOTEBOOK, has_source=has_source)
    after = name_notebook_code(NOTEBOOK.replace(old, new), has_source=has_source)
    assert before[0] != after[0] and before[1] != after[1]


def test_what_a_step_does_not_name_leaves_its_features():
    edits = (("+ 77", "+ 78"), ("# a third", "# a part"), ("\nGAIN", "\n\n\nGAIN"))
    for old, new in (*edits, ("move = 5", "move = 6")):  # a method's name, and something else's
        assert NOTEBOOK.count(old) == 1
        assert name_notebook_code(NOTEBOOK) == name_notebook_code(NOTEBOOK.replace(old, new))


def test_the_code_of_a_notebook_has_one_name_in_every_process():
    code = NOTEBOOK + "from common.caching import _hash_code; print(_hash_code([Halve()]))"
    command = [sys.executable, "-c", code]
    names = set()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(paths.ROOT)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        names.add(done.stdout)
    assert len(names) == 1


HELD = """
from dataclasses import dataclass
from common.augmentation import Augmentation

class Base(Augmentation):
    def strengthen(self, x): return 2 * x

@dataclass(frozen=True)
class Louder(Base):
    def __call__(self, x, rng): return self.strengthen(x)
"""


def test_an_edit_in_what_a_step_holds_makes_features_anew():
    names = []
    for code in (HELD, HELD, HELD.replace("2 * x", "3 * x"), HELD.replace("(x)", "(-x)")):
        held = ModuleType("held")
        sys.modules["held"] = held
        try:
            exec(code, vars(held))
            names.append(caching._hash_code([Degrade(held.Louder())]))
        finally:
            del sys.modules["held"]
    assert names[0] == names[1] and len(set(names)) == 3


def test_what_loads_or_computes_an_encoder_counts_among_the_code_of_its_step(monkeypatch):
    encoder = load_encoder("byol_s", weights="random", duration_seconds=1.0)
    found = {thing.__module__ for thing in caching._list_code(Embed(encoder), set())}
    assert found >= {"common.encoders.extraction", "common.encoders.byol_s"}
    monkeypatch.setitem(ENCODERS, "whisper_base", SMALL)
    encoder = load_encoder("whisper_base", weights="random", duration_seconds=1.0)
    found |= {thing.__module__ for thing in caching._list_code(Embed(encoder), set())}
    assert found >= {"common.graphs", "common.encoders.whisper_graph"}
    assert "common.encoders.whisper_weights" in found
    assert all(module.startswith("common.") for module in found)


def test_features_that_are_not_finite_are_refused(table):
    with pytest.raises(ValueError, match=r"0\.wav and 4 more: features that are not finite; mend"):
        extract(table, Recipe([Scale(factor=np.nan)]))
    assert not paths.CACHE_DIR.exists()


def test_copies_depend_on_their_own_recording_alone(table):
    whole = extract_features(table, RECIPE, augmentations=AUGMENTATIONS)
    rows = [4, 1]
    part = extract_features(table.iloc[rows], RECIPE, augmentations=AUGMENTATIONS)
    np.testing.assert_array_equal(part.values, whole.values[rows])
    np.testing.assert_array_equal(part.copies, whole.copies[rows])


def test_digests_tell_contents_apart_and_ignore_the_order_of_keys():
    assert digest({"a": 1, "b": 2.5}) == digest({"b": 2.5, "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
    assert digest("fixed on every machine") == "76594fe6060a19bc"


# The normaliser


def test_training_rows_are_standardised_band_by_band():
    values = np.random.default_rng(0).normal([-40, 0, 7], [9, 1, 0.1], (30, 20, 3))
    normaliser = fit_normaliser(values.astype(np.float32))
    assert normaliser.mean.shape == normaliser.std.shape == (3,)
    applied = normaliser.apply(values)
    assert applied.dtype == np.float32
    np.testing.assert_allclose(applied.mean(axis=(0, 1)), 0, atol=1e-4)
    np.testing.assert_allclose(applied.std(axis=(0, 1)), 1, atol=1e-4)
    copies = normaliser.apply(values[:, None])
    np.testing.assert_array_equal(copies[:, 0], applied)


def test_a_constant_band_does_not_divide_by_zero():
    assert np.isfinite(fit_normaliser(np.zeros((4, 5, 2))).apply(np.zeros((4, 5, 2)))).all()


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ([1.0] * 10, 2.5),  # never less than RAVDESS has
        ([1.0] * 8 + [3.2] * 2, 3.5),  # two in ten are longer than 2.5 s
        ([1.0] * 9 + [5.0], 2.5),  # one in ten is cut
        ([20.0] * 10, 6.0),
    ],
)
def test_the_length_is_chosen_so_that_nine_in_ten_stay_whole(seconds, expected, monkeypatch):
    steps = []
    monkeypatch.setattr(
        features, "measure_seconds", lambda table, given: steps.append(given) or np.array(seconds)
    )
    assert features.choose_length(None) == FitLength(expected)
    assert steps == [(Trim(),)]


def test_durations_are_those_after_the_steps(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "CACHE_DIR", tmp_path / "cache")

    def speak(number, rng):
        return 0.1 * rng.standard_normal(8_000 * (number + 1)).astype(np.float32)

    table = write_recordings(tmp_path, speak, emotions=("sad", "happy"), num_speakers=2)
    assert features.measure_seconds(table, ()).tolist() == [0.5, 1.0] * 2
    assert features.measure_seconds(table, (FitLength(0.25),)).tolist() == [0.25] * 4


def test_features_of_many_shapes_are_told(table):
    with pytest.raises(ValueError, match=r"\d\.wav: features of shape .*; add FitLength to the"):
        extract(table, Recipe([LogMel()]))
