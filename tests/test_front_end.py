"""What ONNX Runtime makes of a waveform is what the recipe makes of it."""

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from scipy.special import softmax

from common.audio import load_waveform
from common.features import FitLength, LogMel, Trim
from common.graphs import OPSET
from common.loudness import Level
from common.paths import SAMPLE_DIR
from common.recipes import Recipe
from tools.front_end import build_front_end, join_network

RECIPES = {
    "plain": Recipe((Trim(), FitLength())),
    "level": Recipe((Level(), FitLength())),
    "other settings": Recipe((Trim(20), Level(-20.0, 25.0, -60.0), FitLength(1))),
}


@pytest.fixture(scope="module", params=RECIPES)
def pair(request):
    """A recipe and a function that computes its ONNX counterpart."""
    recipe = RECIPES[request.param]
    model = build_front_end(recipe).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return recipe, lambda waveform: session.run(None, {"waveform": waveform})[0]


def check(pair, waveform: np.ndarray) -> None:
    recipe, compute = pair
    expected, found = recipe(waveform), compute(waveform)
    assert found.shape == (1, *expected.shape) and found.dtype == np.float32
    np.testing.assert_allclose(found[0], expected, rtol=1e-4, atol=1e-6)


def test_recordings_give_the_same_samples(pair):
    for path in sorted(SAMPLE_DIR.rglob("*.flac"))[::64]:
        check(pair, load_waveform(path))


@settings(max_examples=25)
@given(
    num_samples=st.integers(3_200, 60_000),
    gain_db=st.integers(-60, 20),
    lead=st.integers(0, 9_000),
    seed=st.integers(0, 9),
)
def test_any_length_level_and_pause_gives_the_same_samples(pair, num_samples, gain_db, lead, seed):
    rng = np.random.default_rng(seed)
    waveform = rng.normal(size=num_samples) * np.hanning(num_samples) * 0.1 * 10 ** (gain_db / 20)
    check(pair, np.pad(waveform, (lead, 500)).astype(np.float32))


def test_digital_silence_is_padding(pair):
    assert np.isfinite(pair[1](np.zeros(16_000, np.float32))).all()


def test_a_step_without_counterpart_is_named():
    with pytest.raises(ValueError, match="LogMel has no ONNX counterpart; Level, Trim"):
        build_front_end(Recipe((Trim(), LogMel())))


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_a_network_is_joined(temperature):
    """A softmax over three samples stands for a network."""
    value, node = helper.make_tensor_value_info, helper.make_node
    constants = [helper.make_tensor("places", TensorProto.INT64, [3], [18_000, 20_000, 22_000])]
    network = helper.make_model(
        helper.make_graph(
            [
                node("Gather", ["waveform", "places"], ["kept"], axis=1),
                node("Softmax", ["kept"], ["answer"], axis=1),
            ],
            "network",
            [value("waveform", TensorProto.FLOAT, ["rows", 40_000])],
            [value("answer", TensorProto.FLOAT, ["rows", 3])],
            constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
    )
    recipe = RECIPES["plain"]
    joined = join_network(build_front_end(recipe), network, temperature=temperature)
    assert [node.name for node in joined.graph.input] == ["waveform"]
    assert [node.name for node in joined.graph.output] == ["probabilities"]
    session = onnxruntime.InferenceSession(joined.SerializeToString())
    waveform = load_waveform(next(SAMPLE_DIR.rglob("*.flac")))
    found = session.run(["probabilities"], {"waveform": waveform})[0]
    expected = softmax(recipe(waveform)[[18_000, 20_000, 22_000]] / temperature)
    np.testing.assert_allclose(found[0], expected, atol=1e-6)
    onnx.checker.check_model(joined, full_check=True)
