"""The picture of an architecture shows every part once, in the order of the flow."""

import keras
import matplotlib.pyplot as plt
import pytest
from keras import layers
from matplotlib.patches import FancyBboxPatch

from common.diagrams import plot_architecture
from common.layers import add_residual_block, add_transformer_block


def make_model() -> keras.Model:
    inputs = keras.Input((9, 8, 1), name="image")
    x = add_residual_block(inputs, 4, name="block_1")
    x = layers.Reshape((4, 16), name="steps")(x)
    left = add_transformer_block(x, num_heads=2, hidden_units=8, dropout=0.1, name="layer_1")
    left = layers.GlobalAveragePooling1D(name="average")(left)
    right = layers.GlobalMaxPooling1D(name="maximum")(x)
    x = layers.Concatenate(name="both")([left, right])
    return keras.Model(inputs, layers.Dense(3, activation="softmax", name="emotions")(x))


def read_boxes(ax) -> dict[str, tuple[float, float]]:
    """Names of the boxes with the places of their texts."""
    texts = [text for text in ax.texts if text.get_text()]
    return {text.get_text().split("  ")[0]: text.get_position() for text in texts}


def test_layers_of_a_block_share_a_box_and_data_flows_down():
    model = make_model()
    ax = plot_architecture(model)
    places = read_boxes(ax)
    assert set(places) == {
        *("image", "block_1", "steps", "layer_1"),
        *("average", "maximum", "both", "emotions"),
    }
    heights = [places[name][1] for name in ("image", "block_1", "steps", "layer_1", "average")]
    assert heights == [0, -1, -2, -3, -4]
    assert places["both"][1] < places["maximum"][1]
    assert len([box for box in ax.patches if isinstance(box, FancyBboxPatch)]) == len(places)


def test_boxes_name_the_shape_and_the_weights():
    model = make_model()
    texts = [text.get_text() for text in plot_architecture(model).texts]
    weights = sum(layer.count_params() for layer in model.layers if "block_1" in layer.name)
    assert any(f"4 × 4 × 4 · {weights:,} weights" in text for text in texts)


def test_a_box_of_a_network_inside_names_its_layers():
    inputs = keras.Input((9, 8), name="log_mel")
    part = keras.Sequential([keras.Input((9, 8)), layers.LSTM(4), layers.Dense(2)], name="part")
    texts = [text.get_text() for text in plot_architecture(keras.Model(inputs, part(inputs))).texts]
    assert f"part  (Dense, LSTM)\n2 · {part.count_params():,} weights" in texts


def test_branches_stand_side_by_side_each_in_its_own_column():
    inputs = keras.Input((9, 8), name="log_mel")
    ends = []
    for branch, length in (("left", 1), ("middle", 4), ("right", 2)):
        x = inputs
        for number in range(length):
            x = layers.Dense(3, name=f"{branch}_{number}_dense")(x)
        ends.append(x)
    ax = plot_architecture(keras.Model(inputs, layers.Add(name="sum")(ends)))
    places = read_boxes(ax)
    columns = {name.split("_")[0]: set() for name in places}
    for name, (x, _) in places.items():
        columns[name.split("_")[0]].add(x)
    assert columns.pop("log") == columns.pop("sum") == {0}
    assert sorted(map(tuple, columns.values())) == [(-1,), (0,), (1,)]
    assert len(set(places.values())) == len(places)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")
