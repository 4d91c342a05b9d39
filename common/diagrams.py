"""The picture of an architecture: one box per group of layers, arrows for the flow of data."""

import re
from collections import defaultdict

import keras
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

from common import style

LAYER_ENDING = re.compile(
    r"_(conv|norm|relu|dropout|add|shortcut|shrink|pool|dense|attention)(_\d+)?$"
)


def plot_architecture(model: keras.Model, *, ax: Axes | None = None) -> Axes:
    """Draw a Functional model from its input, on top, to its output.

    Layers whose names differ only in an ending such as `_conv_1` or `_norm` stand in one box
    ("block_1"), with the shape that leaves it (batch left out) and its number of weights.
    """
    layers = {layer.name: layer for layer in model.layers}
    group_of = {name: LAYER_ENDING.sub("", name) for name in layers}
    members = defaultdict(list)
    for name, group in group_of.items():
        members[group].append(layers[name])
    edges = {
        (group_of[source], group_of[layer["name"]])
        for layer in model.get_config()["layers"]
        for source in _find_sources(layer["inbound_nodes"])
        if group_of[source] != group_of[layer["name"]]
    }
    depth = dict.fromkeys(members, 0)
    for _ in members:  # longest path from the input
        for source, target in edges:
            depth[target] = max(depth[target], depth[source] + 1)
    rows = defaultdict(list)
    for group in members:
        rows[depth[group]].append(group)
    place = {
        group: (column - (len(row) - 1) / 2, -number)
        for number, row in rows.items()
        for column, group in enumerate(row)
    }
    widest = max(map(len, rows.values()))
    ax = style.make_axes(ax, 1.0 + 3.4 * widest, 0.54 * len(rows) + 0.2)
    for source, target in edges:
        (x, y), (to_x, to_y) = place[source], place[target]
        arrow = {"arrowstyle": "-|>", "color": style.GREY, "shrinkA": 0, "shrinkB": 0}
        ax.annotate("", (to_x, to_y + 0.3), (x, y - 0.3), arrowprops=arrow)
    for group, (x, y) in place.items():
        look = {"boxstyle": "round,pad=0,rounding_size=0.06", "edgecolor": style.BLUE}
        ax.add_patch(FancyBboxPatch((x - 0.44, y - 0.3), 0.88, 0.6, facecolor="#EAF3FA", **look))
        ax.text(x, y, _label_group(group, members[group]), ha="center", va="center", fontsize=9)
    ax.set(xlim=(-widest / 2, widest / 2), ylim=(0.4 - len(rows), 0.4))
    ax.axis("off")
    return ax


def _label_group(group: str, layers: list[keras.Layer]) -> str:
    shape = " × ".join(str(size) for size in layers[-1].output.shape[1:])
    kinds = {type(layer).__name__ for layer in layers if layer.count_params()}
    kinds -= {"BatchNormalization", "LayerNormalization"}
    names = ", ".join(sorted(kinds)) or type(layers[-1]).__name__
    weights = sum(layer.count_params() for layer in layers)
    tail = f" · {weights:,} weights" if weights else ""
    return f"{group}  ({names})\n{shape}{tail}"


def _find_sources(inbound) -> list[str]:
    """Names of the layers that a layer's serialised `inbound_nodes` take their tensors from."""
    if isinstance(inbound, dict):
        history = inbound.get("config", {}).get("keras_history")
        parts = inbound.values()
        return [history[0]] if history else [name for part in parts for name in _find_sources(part)]
    if isinstance(inbound, (list, tuple)):
        return [name for part in inbound for name in _find_sources(part)]
    return []
