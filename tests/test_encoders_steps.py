"""Encoders in recipes: steps, what describes them, repeating them; an encoder of one's own."""

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.encoders import ENCODERS, Encoder, EncoderRecord, contract, load_encoder, register
from common.encoders.extraction import Embed, Pool, PrepareInputs, SelectLayers
from common.features import Trim
from common.paths import ROOT
from common.recipes import Features, Recipe

RNG = np.random.default_rng(0)
SOUND = (0.1 * RNG.standard_normal(16_000)).astype(np.float32)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder("byol_s", weights="random", duration_seconds=1)


# Steps


@given(st.integers(1, 4), st.integers(0, 2), st.integers(1, 5), st.integers(1, 3))
def test_pooling_gives_mean_plus_maximum(rows, copies, frames, dimensions):
    values = RNG.standard_normal((rows, frames, dimensions))
    versions = RNG.standard_normal((rows, copies, frames, dimensions))
    pooled = Features(values, versions, Recipe((Trim(),))).then(Pool())
    assert pooled.values.shape == (rows, 1, dimensions)
    assert pooled.copies.shape == (rows, copies, 1, dimensions)
    np.testing.assert_allclose(
        pooled.values[0, 0, 0], values[0, :, 0].mean() + values[0, :, 0].max()
    )
    if copies:
        np.testing.assert_allclose(
            pooled.copies[-1, -1, 0], versions[-1, -1].mean(axis=0) + versions[-1, -1].max(axis=0)
        )
    assert pooled.recipe.describe()["steps"][1] == {"step": "Pool", "how": "mean + maximum"}


def test_poolings_of_time():
    values = RNG.random((5, 3))
    side = Pool("mean, maximum")(values)
    assert side.shape == (1, 6)
    np.testing.assert_allclose(side[0], np.concatenate([values.mean(axis=0), values.max(axis=0)]))
    np.testing.assert_allclose(Pool("mean")(values)[0], values.mean(axis=0))
    with pytest.raises(ValueError, match="how='median' is unknown; choose from"):
        Pool("median")


def test_one_layer_can_be_kept():
    values = RNG.random((4, 13, 6))
    layer = Features(values, values[:, None], Recipe((Trim(),))).then(SelectLayers((3,)))
    assert layer.values.shape == (4, 1, 6) and layer.copies.shape == (4, 1, 1, 6)
    np.testing.assert_array_equal(layer.values[:, 0], values[:, 3])
    assert layer.recipe.describe()["steps"][1] == {"step": "SelectLayers", "numbers": [3]}
    with pytest.raises(IndexError):
        SelectLayers((13,))(values[0])


# Writing a recipe down and repeating it


@pytest.mark.parametrize("kind", [Embed, PrepareInputs])
def test_a_recipe_is_repeated_with_the_encoder_that_it_names(kind, encoder):
    recipe = Recipe((Trim(), kind(encoder), Pool("mean")), normalise=False)
    description = json.loads(json.dumps(recipe.describe()))
    facts = {"encoder": "byol_s", "weights": encoder.digest, "num_samples": 16_000}
    assert description["steps"][1] == {"step": kind.__name__, **facts}
    assert recipe.describe(changed=True)["steps"][1] == description["steps"][1]
    again = Recipe.from_description(description, encoder=encoder)
    assert again == recipe
    np.testing.assert_array_equal(again(SOUND), recipe(SOUND))


def test_another_encoder_is_refused(encoder):
    description = Recipe((Embed(encoder),)).describe()
    longer = load_encoder("byol_s", weights="random", duration_seconds=2)
    message = rf"BYOL-S with the weights {encoder.digest}, 16000 samples, but the encoder given is "
    message += rf"BYOL-S with the weights {encoder.digest}, 32000 samples; load that one"
    with pytest.raises(ValueError, match=message):
        Recipe.from_description(description, encoder=longer)


def test_without_an_encoder_the_published_one_is_loaded(encoder, monkeypatch):
    asked = []

    def load(record, weights, num_samples, trainable):
        asked.append((record.name, weights, num_samples, trainable))
        if error:
            raise error
        return encoder

    monkeypatch.setitem(contract.LOADERS, "byol_s", load)
    error = None
    for kind in (Embed, PrepareInputs):
        recipe = Recipe((kind(encoder),))
        assert Recipe.from_description(recipe.describe()) == recipe
    assert asked == [("byol_s", "published", 16_000, trainable) for trainable in (False, True)]
    other = Recipe((Embed(load_encoder("vgg16", weights="random")),)).describe()
    other["steps"][0] |= {"encoder": "byol_s", "num_samples": 16_000}
    with pytest.raises(ValueError, match=r"but what is published is BYOL-S with the weights"):
        Recipe.from_description(other)
    error = OSError("no route")
    with pytest.raises(ValueError, match=rf"{encoder.digest}.*no route.*give it, encoder="):
        Recipe.from_description(recipe.describe())


def test_features_travel_to_other_processes_without_the_network(encoder):
    features = Features(SOUND[None], SOUND[None, None], Recipe((Embed(encoder),)))
    sent = pickle.loads(pickle.dumps(features))
    assert sent.describe() == features.describe()
    assert len(pickle.dumps(features.recipe)) < 10_000
    with pytest.raises(RuntimeError, match="call load_encoder there"):
        sent.recipe(SOUND)
    features.recipe(SOUND)


# The registry


def test_every_encoder_is_found_without_the_libraries_of_some():
    code = (
        "import sys; from common.encoders import ENCODERS; print(*sorted(ENCODERS)); "
        "print(*sorted({'tensorflow_hub', 'torch', 'transformers'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = "byol_s hubert vgg16 vggish wav2vec2 wavlm whisper whisper_base whisper_small "
    names += "whisper_tiny yamnet"
    assert found.strip() == names == " ".join(sorted(ENCODERS))
    assert all(record.name == name for name, record in ENCODERS.items())


def test_an_encoder_of_ones_own_is_registered(monkeypatch):
    monkeypatch.setattr(contract, "ENCODERS", dict(ENCODERS))
    monkeypatch.setattr(contract, "LOADERS", dict(contract.LOADERS))
    about = dict.fromkeys(("url", "homepage", "licence", "citation"), "")
    record = EncoderRecord("loudness", "Loudness", num_dimensions=1, hop_seconds=0.1, **about)

    @register(record)
    def load(record, weights, num_samples, trainable):
        def embed(waveforms, training=False):
            return np.abs(waveforms).reshape(len(waveforms), -1, 1_600, 1).mean(axis=2)

        return Encoder(record, None, embed, num_samples, str(weights))

    encoder = load_encoder("loudness", duration_seconds=1)
    assert encoder.embed(SOUND).shape == (record.count_embeddings(16_000), 1) == (10, 1)
    with pytest.raises(ValueError, match="Loudness cannot be trained further; choose byol_s or"):
        load_encoder("loudness", trainable=True)
    with pytest.raises(ValueError, match="Loudness cannot be trained further; extract_embeddings"):
        PrepareInputs(encoder)
