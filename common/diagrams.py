"""The picture of an architecture: one box per group of layers, arrows for the flow of data."""

import re
from collections import defaultdict

import keras
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

from common import style

ENDING = re.compile(r"_(conv|norm|relu|dropout|add|shortcut|shrink|pool|dense|attention)(_\d+)?$")


def plot_architecture(model: keras.Model, *, ax: Axes | None = None) -> Axes:
    """Draw a Functional model from its input, on top, to its output.

    Layers whose names differ only in an ending such as `_conv_1` or `_norm` stand in one box
    ("block_1"), with the shape that leaves it (batch left out) and its number of weights.
    """
    group_of = {layer.name: ENDING.sub("", layer.name) for layer in model.layers}
    members = defaultdict(list)
    for layer in model.layers:
        members[group_of[layer.name]].append(layer)
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
    place = _place_groups(depth, edges)
    columns, num_rows = [x for x, _ in place.values()], 1 + max(depth.values())
    left, right = min(columns), max(columns)
    ax = style.make_axes(ax, 1.0 + 3.4 * (right - left + 1), 0.54 * num_rows + 0.2)
    for source, target in edges:
        (x, y), (to_x, to_y) = place[source], place[target]
        bend = to_y + 0.7  # a branch that is shorter than its neighbours goes straight down first
        if y - 0.3 > bend:
            ax.plot((x, x), (y - 0.3, bend), color=style.GREY, linewidth=1)
        start = (x, min(y - 0.3, bend))
        arrow = {"arrowstyle": "-|>", "color": style.GREY, "shrinkA": 0, "shrinkB": 0}
        ax.annotate("", (to_x, to_y + 0.3), start, arrowprops=arrow)
    for group, (x, y) in place.items():
        look = {"boxstyle": "round,pad=0,rounding_size=0.06", "edgecolor": style.BLUE}
        ax.add_patch(FancyBboxPatch((x - 0.44, y - 0.3), 0.88, 0.6, facecolor="#EAF3FA", **look))
        ax.text(x, y, _label_group(group, members[group]), ha="center", va="center", fontsize=9)
    ax.set(xlim=(left - 0.5, right + 0.5), ylim=(0.4 - num_rows, 0.4))
    ax.axis("off")
    return ax


def _place_groups(depth: dict[str, int], edges: set) -> dict[str, tuple[float, int]]:
    """Where each group stands, (column, -depth): below what it reads, branches side by side."""
    order, column = list(depth), {}
    edges = sorted(edges, key=lambda edge: [order.index(end) for end in edge[::-1]])
    for number in sorted({*depth.values()}):
        wanted = {}
        for group in (group for group in order if depth[group] == number):
            above = []
            for source in (source for source, target in edges if target == group):
                branches = [target for start, target in edges if start == source]
                above.append(column[source] + branches.index(group) - (len(branches) - 1) / 2)
            wanted[group] = sum(above) / max(1, len(above))
        previous = -float("inf")
        for group in sorted(wanted, key=wanted.get):
            previous = column[group] = max(wanted[group], previous + 1)
    return {group: (column[group], -depth[group]) for group in depth}


def _label_group(group: str, layers: list[keras.Layer]) -> str:
    shape = " × ".join(str(size) for size in layers[-1].output.shape[1:])
    parts = [part for layer in layers for part in getattr(layer, "layers", [layer])]
    kinds = {type(part).__name__ for part in parts if part.count_params()}
    kinds -= {"BatchNormalization", "LayerNormalization"}
    names = ", ".join(sorted(kinds)) or type(layers[-1]).__name__
    weights = sum(layer.count_params() for layer in layers)
    tail = f" · {weights:,} weights" if weights else ""
    return f"{group}  ({names})\n{shape}{tail}"


def _find_sources(inbound) -> list[str]:
    """Names of the layers that a layer's serialised `inbound_nodes` take their tensors from."""
    if isinstance(inbound, dict) and "keras_history" in inbound:
        return [inbound["keras_history"][0]]
    parts = inbound.values() if isinstance(inbound, dict) else inbound
    nested = [part for part in parts if isinstance(part, dict | list | tuple)]
    return [name for part in nested for name in _find_sources(part)]
