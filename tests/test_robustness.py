"""Degraded tests: the right model and row for each, read back where published."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from common import paths
from common.augmentation import ChangeGain
from common.corpora import draw_balanced
from common.emotions import order_emotions
from common.evaluation import score_groups
from common.recipes import Recipe, Step, extract_features
from common.results import save_results
from common.robustness import (
    CLEAN,
    degrade_table,
    measure_coverage,
    test_degraded,
)
from tests.prediction_tables import make_predictions
from tests.speech_tables import write_recordings

EMOTIONS = ("happy", "sad")


@dataclass(frozen=True)
class Loudness(Step):
    """The largest sample: (samples,) -> (1, 1)."""

    def __call__(self, values):
        return np.abs(values).max(keepdims=True)[None].astype(np.float32)


def make_waveform(number, rng):
    return (0.1 if number % 2 else 0.3) * rng.uniform(0.9, 1, 4000)


@pytest.fixture
def degraded(tmp_path, monkeypatch):
    """A function that tests a classifier by loudness, and how often it was asked."""
    for name in ("RESULTS_DIR", "RUNS_DIR", "CACHE_DIR"):
        monkeypatch.setattr(paths, name, tmp_path / name)
    table = write_recordings(tmp_path, make_waveform, emotions=EMOTIONS * 2)
    features = extract_features(table, Recipe((Loudness(),)))
    rows, asked = draw_balanced(table, 1), []

    def predict(fold, values):
        assert set(table["speaker"].iloc[fold.train]).isdisjoint(table["speaker"].iloc[fold.test])
        asked.append(fold.number)
        loud = values.reshape(-1) > 0.2
        return np.stack([np.where(loud, 0.9, 0.1), np.where(loud, 0.1, 0.9)], axis=1)

    def run(conditions):
        named = {"protocol": "leave_one_speaker_out", "model": "loudness"}
        return test_degraded(table, features, rows, conditions, predict, **named)

    return run, table.iloc[rows].reset_index(drop=True), asked


def test_each_condition_is_scored_on_the_same_utterances(degraded):
    run, sample, asked = degraded
    conditions = {CLEAN: None, "softer": ChangeGain(-20, -20)}
    predictions = run(conditions).predictions
    assert sorted(asked) == [1, 2, 3, 4, 5, 6]
    table = degrade_table(sample, conditions)
    assert sorted(predictions["utterance"]) == sorted(table["utterance"])
    scores = score_groups(predictions, table, "condition")
    assert scores["uar"].to_dict() == {CLEAN: 1.0, "softer": 0.5}
    assert set(order_emotions(predictions["true_label"])) == set(EMOTIONS)


def test_published_predictions_are_read_back_without_a_model(degraded):
    run, _, asked = degraded
    conditions = {CLEAN: None, "softer": ChangeGain(-20, -20)}
    made = run(conditions)
    path = save_results(made, notebook="52_robustness", title="Loudness", variant="conditions")
    target = paths.RESULTS_DIR / path.relative_to(paths.RUNS_DIR / "results")
    target.parent.mkdir(parents=True)
    for file in path.parent.iterdir():
        file.rename(target.with_name(file.name))
    asked.clear()
    again = run(conditions)
    assert asked == [] and set(again.sources.values()) == {"published"}
    pd.testing.assert_frame_equal(
        again.predictions.sort_values("utterance", ignore_index=True)[made.predictions.columns],
        made.predictions.sort_values("utterance", ignore_index=True),
    )
    assert run({CLEAN: None}).sources and asked


def test_who_answers_less_is_right_more_often():
    predictions = make_predictions(num_speakers=20)
    coverage = measure_coverage(predictions)
    assert coverage["coverage"].iloc[-1] == 1
    assert coverage["accuracy"].iloc[-1] == pytest.approx(predictions["correct"].mean())
    assert coverage["threshold"].is_monotonic_decreasing
    tenth = coverage["accuracy"].iloc[len(coverage) // 10]
    assert tenth > coverage["accuracy"].iloc[-1]
