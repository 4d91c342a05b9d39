"""Pictures and players of single recordings: waveforms, features, attention over them.

As in `plots`, what takes `ax` draws on it (on a new figure when None) and returns it.
"""

from collections.abc import Mapping
from html import escape

import librosa.display
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import HTML, Audio
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from common import style
from common.audio import SAMPLE_RATE_HERTZ
from common.features import Cepstra, LogMel
from common.recipes import Recipe


def make_players(sounds: Mapping[str, np.ndarray]) -> HTML:
    """Lay the players of some 16 kHz waveforms, {label: (samples,)}, side by side to display.

    They share one scale, so what is louder sounds louder.
    """
    peak = max(np.abs(sound).max() for sound in sounds.values()) or 1
    boxes = []
    for label, sound in sounds.items():
        player = Audio(sound / peak, rate=SAMPLE_RATE_HERTZ, normalize=False)
        boxes.append(f"<div><b>{escape(label)}</b><br>{player._repr_html_()}</div>")
    row = '<div style="display: flex; flex-wrap: wrap; gap: 0.5em 2em">'
    return HTML(f"{row}{''.join(boxes)}</div>")


def plot_waveform(waveform: np.ndarray, *, ax: Axes | None = None) -> Axes:
    """Draw a 16 kHz waveform of shape (samples,) over time."""
    ax = style.make_axes(ax, 7.5, 2.2)
    seconds = np.arange(len(waveform) + 1) / SAMPLE_RATE_HERTZ
    ax.plot(seconds[:-1], waveform, color=style.BLUE, linewidth=0.6)
    ax.set(xlabel="Time (seconds)", ylabel="Amplitude", xlim=(0, seconds[-1]))
    return ax


def plot_features(values: np.ndarray, recipe: Recipe, *, ax: Axes | None = None) -> Axes:
    """Draw the features of one utterance, shape (frames, bands), that a recipe made.

    The colours of cepstra leave out coefficient 0, the level, which would drown the others.
    """
    ax = style.make_axes(ax, 7.5, 3)
    step = recipe.find(LogMel)
    look = {"x_axis": "s", "sr": SAMPLE_RATE_HERTZ, "hop_length": step.hop_length}
    if isinstance(step, Cepstra):
        limit = np.abs(values[:, 1:]).max()
        look |= {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}
        ylabel, bar = "Coefficient", {"label": "Value", "extend": "both"}
    else:
        look |= {"y_axis": "mel", "fmin": step.fmin_hertz, "fmax": step.fmax_hertz, "cmap": "magma"}
        ylabel, bar = "Frequency (Hz)", {"label": "Level (dB)"}
    mesh = librosa.display.specshow(values.T, ax=ax, **look)
    if isinstance(step, Cepstra):
        ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="Time (seconds)", ylabel=ylabel)
    ax.grid(visible=False)
    ax.figure.colorbar(mesh, ax=ax, **bar)
    return ax


def plot_attention(
    values: np.ndarray, weights: np.ndarray, recipe: Recipe, *, ax: Axes | None = None
) -> Axes:
    """Draw attention, one weight per stretch of equal length, shape (steps,), over its features.

    `values` are the features of shape (frames, bands) that `recipe` gives.
    """
    ax = plot_features(values, recipe, ax=ax)
    seconds = len(values) * recipe.find(LogMel).hop_seconds
    edges = np.linspace(0, seconds, len(weights) + 1)
    over = ax.twinx()
    over.stairs(weights, edges, color="white", linewidth=3.5)
    over.stairs(weights, edges, color=style.VERMILION, linewidth=1.8, label="attention")
    over.set(ylim=(0, 1.05 * weights.max()), xlim=(0, seconds), ylabel="Attention weight")
    over.grid(visible=False)
    over.legend(loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0.1)
    return ax


def plot_timeline(waveform: np.ndarray, timeline: pd.DataFrame) -> np.ndarray:
    """Draw a 16 kHz waveform and, below it, the probabilities of `predict_timeline`, stacked.

    A window's column is as wide as what lies nearer to its middle than to another's; windows in
    which nothing was recognised stay blank. Gives the two axes.
    """
    shape = {"height_ratios": (1, 2), "sharex": True}
    _, axes = plt.subplots(2, 1, figsize=(7.5, 3.8), layout="constrained", **shape)
    plot_waveform(waveform, ax=axes[0])
    axes[0].set(xlabel="")
    middles = timeline.index.to_frame().mean(axis=1).to_numpy()
    seconds = len(waveform) / SAMPLE_RATE_HERTZ
    edges = np.concatenate([[0], (middles[1:] + middles[:-1]) / 2, [seconds]])
    tops = np.zeros(len(timeline))
    for emotion, colour in style.pick_colours(list(timeline.columns)).items():
        shares = timeline[emotion].fillna(0).to_numpy()
        look = {"align": "edge", "color": colour, "label": emotion}
        axes[1].bar(edges[:-1], shares, np.diff(edges), bottom=tops, **look)
        tops += shares
    axes[1].set(xlabel="Time (seconds)", ylabel="Probability (%)", xlim=(0, seconds), ylim=(0, 1))
    axes[1].yaxis.set_major_formatter(style.format_percent())
    axes[1].grid(visible=False)
    handles, labels = axes[1].get_legend_handles_labels()
    axes[1].legend(handles[::-1], labels[::-1], loc="center left", bbox_to_anchor=(1, 0.5))
    return axes
