"""Colours, settings and manners of every picture.

Colours are Okabe & Ito's (2008, "Color universal design"), which stay apart for colour-blind
readers, with a dark grey, a brown and an indigo added.
"""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from common.splits import PROTOCOLS

BLUE, VERMILION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
SKY, PURPLE, YELLOW, GREY = "#56B4E9", "#CC79A7", "#F0E442", "#8C8C8C"
EMOTION_COLOURS = {
    "neutral": "#595959",
    "calm": SKY,
    "happy": ORANGE,
    "sad": BLUE,
    "angry": VERMILION,
    "fearful": PURPLE,
    "disgust": GREEN,
    "surprised": YELLOW,
    "bored": "#6B3E00",
}
# Colours of protocols, and markers when the colours are used up: unknown voices, then known ones.
PROTOCOL_LOOKS = {
    True: ((BLUE, SKY, "#332288"), "o^v<>"),
    False: ((VERMILION, ORANGE, PURPLE, GREEN), "sDP*d"),
}
STYLE = {
    "figure.dpi": 100,
    "figure.constrained_layout.use": True,
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#E4E4E4",
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "legend.fontsize": 10,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
}
ON_WHITE = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}


def make_axes(ax: Axes | None, width_inches: float, height_inches: float) -> Axes:
    """Keep the axes, or make those of a new figure."""
    size = (width_inches, height_inches)
    return plt.subplots(figsize=size, layout="constrained")[1] if ax is None else ax


def find_look(protocol: str) -> tuple[str, str]:
    """Colour and marker of a protocol; grey crosses for one that is not registered."""
    if protocol not in PROTOCOLS:
        return GREY, "X"
    kind = PROTOCOLS[protocol].speaker_independent
    alike = [name for name in PROTOCOLS if PROTOCOLS[name].speaker_independent == kind]
    colours, markers = PROTOCOL_LOOKS[kind]
    turn, place = divmod(alike.index(protocol), len(colours))
    return colours[place], markers[turn % len(markers)]


def pick_colours(emotions: list[str]) -> dict[str, str]:
    """Colour of each emotion; one without its own gets one left over, and then grey."""
    own = [EMOTION_COLOURS.get(emotion) for emotion in emotions]
    spare = iter([colour for colour in EMOTION_COLOURS.values() if colour not in own])
    return {
        emotion: colour or next(spare, GREY) for emotion, colour in zip(emotions, own, strict=True)
    }


def label_with_counts(counts: pd.Series) -> list[str]:
    """Tick labels such as "happy (192)"."""
    return [f"{name} ({number})" for name, number in counts.items()]


def finish_rows(ax: Axes, *, ncols: int = 1) -> None:
    """First row on top, per cent along x, the legend above."""
    ax.invert_yaxis()
    ax.xaxis.set_major_formatter(format_percent())
    ax.grid(visible=False, axis="y")
    place_legend_above(ax, ncols=ncols)


def place_legend_above(ax: Axes, *, ncols: int, title: str | None = None) -> None:
    """Put the legend over the axes, where it hides nothing."""
    place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.3}
    ax.legend(ncols=ncols, title=title, alignment="left", **place)


def format_percent() -> PercentFormatter:
    """Fractions as whole per cent; the sign stands in the axis label."""
    return PercentFormatter(xmax=1, decimals=0, symbol=None)


def rank_protocol(name: str) -> int:
    """Place in tables and legends: unknown voices first, then known ones, unregistered last."""
    order = sorted(PROTOCOLS, key=lambda known: not PROTOCOLS[known].speaker_independent)
    return order.index(name) if name in PROTOCOLS else len(order)


def name_protocol(name: str) -> str:
    """What a person would say: the title, or the name itself where it is not registered."""
    return PROTOCOLS[name].title if name in PROTOCOLS else name
