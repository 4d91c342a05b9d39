"""Late fusion: alignment, weights, and that no fold decides its own."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax

from common.backend import join_names
from common.emotions import order_emotions
from common.fusion import fit_weights, fuse, fuse_results, stack_members
from tests.prediction_tables import make_predictions

EMOTIONS = order_emotions(["angry", "happy", "neutral"])


def make_member(seed: int, skill: float, *, repetitions=5, run_seeds=(0,)) -> pd.DataFrame:
    """Predictions of a system that favours the true emotion by `skill`, in folds 1 to 4."""
    settings = {"skill": skill, "spread": 0, "seeds": run_seeds, "random_seed": seed}
    settings |= {"num_speakers": 8, "repetitions": repetitions, "num_folds": 4}
    table = make_predictions(emotions=tuple(EMOTIONS), **settings)
    table["fold"] += 1
    return table.sort_values(["seed", "utterance"], ignore_index=True)


def test_one_system_alone_stays_what_it_is():
    member = make_member(1, 1.0)
    fused, weights = fuse({"a": member})
    pd.testing.assert_series_equal(fused["predicted_label"], member["predicted_label"])
    np.testing.assert_allclose(fused["p_happy"], member["p_happy"], atol=2e-4)
    assert (weights == 1).all(axis=None)


def test_equal_weights_are_the_mean_of_the_logarithms_in_whatever_order():
    one, two = make_member(1, 1.0), make_member(2, 1.0)
    fused, _ = fuse({"a": one, "b": two.sample(frac=1, random_state=0)})
    product = np.sqrt(one.filter(like="p_") * two.filter(like="p_"))
    expected = product.div(product.sum(axis=1), axis=0)
    np.testing.assert_allclose(fused[expected.columns], expected, atol=2e-3)
    swapped, _ = fuse({"b": two, "a": one})
    np.testing.assert_allclose(swapped.filter(like="p_"), fused.filter(like="p_"), atol=1e-6)


def test_two_systems_that_err_apart_are_better_together():
    members = {str(number): make_member(number, 1.2) for number in range(4)}
    fused, _ = fuse(members)
    assert fused["correct"].mean() > max(table["correct"].mean() for table in members.values())


def test_a_system_that_knows_nothing_gets_little_weight_and_does_no_harm():
    good, noise = (make_member(n, skill, repetitions=25) for n, skill in ((1, 2.0), (2, 0.0)))
    fused, weights = fuse({"good": good, "noise": noise}, fitted=True)
    assert (weights["noise"] < 0.2 * weights["good"]).all()
    assert fused["correct"].mean() > good["correct"].mean() - 0.02


def test_weights_of_a_fold_do_not_see_its_labels():
    members = {"a": make_member(1, 1.0), "b": make_member(2, 0.5)}
    _, before = fuse(members, fitted=True)
    for name, table in members.items():
        mixed = table.copy()
        rows = mixed["fold"] == 2
        mixed.loc[rows, "true_label"] = np.roll(mixed.loc[rows, "true_label"], 1)
        mixed["correct"] = mixed["true_label"] == mixed["predicted_label"]
        members[name] = mixed
    _, after = fuse(members, fitted=True)
    np.testing.assert_array_equal(after.loc[2], before.loc[2])
    assert not np.allclose(after.loc[1], before.loc[1])


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 4))
def test_no_other_weights_explain_the_labels_better(seed, num_systems):
    rng = np.random.default_rng(seed)
    logs = log_softmax(rng.normal(size=(80, num_systems, 3)), axis=2)
    targets = rng.integers(0, 3, 80)
    weights = fit_weights(logs, targets)

    def measure(weights):
        scores = log_softmax(np.einsum("nse,s->ne", logs, weights), axis=1)
        return -scores[np.arange(80), targets].mean()

    assert (weights >= 0).all()
    for other in rng.exponential(size=(20, num_systems)):
        assert measure(weights) <= measure(other) + 1e-6


def test_of_several_seeds_the_first_is_taken():
    member = make_member(1, 1.0, run_seeds=(3, 5))
    logs, rows = stack_members({"a": member})
    assert logs.shape == (120, 1, 3) and (rows["seed"] == 3).all()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda table: table.iloc[1:], "b does not test what a tests"),
        (lambda table: table.assign(fold=1), "b does not test what a tests"),
        (lambda table: table.drop(columns="p_happy"), "b does not test what a tests"),
    ],
)
def test_results_of_another_test_are_refused(spoil, words):
    with pytest.raises(ValueError, match=words):
        fuse({"a": make_member(1, 1.0), "b": spoil(make_member(2, 1.0))})


def test_a_fusion_of_results_is_a_run_of_the_first_seeds(tmp_path):
    results = []
    for number, seeds in enumerate([(3, 5), (0,)]):
        csv = tmp_path / f"{number}.csv"
        make_member(number, 1.0, run_seeds=seeds).to_csv(csv, index=False)
        names = {f"{seed}/{fold}": f"{seed}{fold}" for seed in seeds for fold in range(1, 5)}
        facts = {"title": f"system {number}", "csv": csv, "key": str(number), "seeds": [*seeds]}
        facts |= {"corpus": "toy", "protocol": "speaker_5fold", "folds": names, "versions": {}}
        facts |= {"num_parameters": [7, None][number], "backend": "b", "device": "d"}
        results.append(facts | {"seconds": 1.0})
    run, weights = fuse_results(results)
    assert list(weights.columns) == ["system 0", "system 1"]
    assert run.description["folds"] == {f"0/{fold}": f"3{fold}" for fold in range(1, 5)}
    assert run.description["num_parameters"] is None and run.description["seconds"] == 2.0
    alone, _ = fuse_results(results[:1])
    assert alone.description["num_parameters"] == 7
    assert alone.description["key"] != run.description["key"]
    assert fuse_results(results, fitted=True)[0].description["key"] != run.description["key"]
    results[1]["title"] = "system 0"
    with pytest.raises(ValueError, match="two results are called 'system 0': fuse one of them"):
        fuse_results(results)


def test_nothing_to_fuse_is_told():
    with pytest.raises(ValueError, match="no systems"):
        fuse({})


def test_devices_of_several_runs_are_named_once():
    devices = ["CPU, 2 cores", "CPU, 1 core and CPU, 2 cores", "CPU, 1 core"]
    assert join_names(devices) == "CPU, 1 core and CPU, 2 cores"
