"""The pictures that more than one notebook draws.

Every `plot_…` function draws on `ax` (on a new figure when None) and returns it. Scores are
fractions in the tables and per cent on the axes. Colours and settings are in `style.py`.
"""

from collections.abc import Mapping
from itertools import cycle
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from common import paths, style
from common.emotions import order_emotions
from common.evaluation import METRIC_NAMES, count_confusions
from common.files import write_atomically


def set_style() -> None:
    """Apply `style.STYLE` to every figure drawn after this call."""
    plt.rcParams.update(style.STYLE)


def plot_class_counts(
    table: pd.DataFrame, *, by: str | None = None, ax: Axes | None = None
) -> Axes:
    """Draw the utterances per emotion, in one bar or in one per value of the column `by`."""
    ax = style.make_axes(ax, 7.5, 3.6)
    emotions = order_emotions(table["emotion"])
    if by is None:
        counts = table["emotion"].value_counts().reindex(emotions)
        ax.bar(emotions, counts, color=style.pick_colours(emotions).values())
    else:
        counts = pd.crosstab(table["emotion"], table[by].replace("", "unknown")).reindex(emotions)
        colours = [style.BLUE, style.ORANGE, style.GREEN, style.PURPLE, style.SKY]
        counts.plot.bar(ax=ax, width=0.8, color=colours, rot=0)
        style.place_legend_above(ax, title=by.capitalize(), ncols=5)
    for bars in ax.containers:
        ax.bar_label(bars, fontsize=9, padding=1)
    ax.set(xlabel="", ylabel="Utterances")
    ax.margins(y=0.1)
    ax.grid(visible=False, axis="x")
    return ax


def plot_durations(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw the durations per emotion: quartiles, and whiskers to 1.5 times their distance."""
    emotions = order_emotions(table["emotion"])
    ax = style.make_axes(ax, 7.5, 0.38 * len(emotions) + 0.9)
    look = {"saturation": 1, "fliersize": 2.5, "linewidth": 1, "width": 0.65, "legend": False}
    look |= {"hue": "emotion", "hue_order": emotions, "palette": style.pick_colours(emotions)}
    seaborn.boxplot(table, x="seconds", y="emotion", order=emotions, ax=ax, **look)
    ax.set(xlabel="Duration (seconds)", ylabel="")
    return ax


def plot_history(history: pd.DataFrame, *, axes=None) -> np.ndarray:
    """Draw the loss, and beside it the accuracies, over the epochs of training, from 1.

    `history` is that of a `Run`. Thin lines are single folds and seeds, the thick line is their
    mean, as far as half of them were still in training. Gives the two axes.
    """
    if axes is None:
        _, axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    curves = {
        "loss": (axes[0], "training", style.BLUE),
        "validation_loss": (axes[0], "validation", style.VERMILION),
        "accuracy": (axes[1], "training, WA", style.BLUE),
        "validation_wa": (axes[1], "validation, WA", style.GREEN),
        "validation_uar": (axes[1], "validation, UAR", style.VERMILION),
    }
    history = history.assign(epoch=history["epoch"] + 1)
    for column, (ax, label, colour) in curves.items():
        runs = history.pivot(index="epoch", columns=["seed", "fold"], values=column)
        if runs.isna().all(axis=None):
            continue
        if runs.shape[1] > 1:
            ax.plot(runs.index, runs, color=colour, linewidth=0.7, alpha=0.3)
        mean = runs.mean(axis=1)[runs.notna().mean(axis=1) >= 0.5]
        ax.plot(mean.index, mean, color=colour, label=label)
    for ax, ylabel in zip(axes, ("Loss", "Accuracy (%)"), strict=True):
        ax.set(xlabel="Epoch", ylabel=ylabel)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.legend()
    axes[1].yaxis.set_major_formatter(style.format_percent())
    return axes


def plot_confusion_matrix(predictions: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw the confusions over all folds and seeds, true emotions in rows.

    Each cell has the share of its row in whole per cent, which is its colour, and the count.
    """
    counts = count_confusions(predictions)
    support = counts.sum(axis=1)
    shares = 100 * counts.div(support.where(support > 0), axis=0)
    ax = style.make_axes(ax, 0.75 * len(counts) + 2.6, 0.55 * len(counts) + 1.2)
    cells = shares.map("{:.0f} %\n".format) + counts.map(str)
    look = {"vmin": 0, "vmax": 100, "cmap": "Blues", "linewidths": 0.5, "annot_kws": {"size": 9}}
    look |= {"cbar_kws": {"label": "Share of the true emotion (%)"}}
    look |= {"xticklabels": counts.columns, "yticklabels": style.label_with_counts(support)}
    seaborn.heatmap(shares, annot=cells.where(counts > 0, ""), fmt="", ax=ax, **look)
    plt.setp(ax.get_xticklabels(), rotation=40, ha="right", rotation_mode="anchor")
    ax.set(xlabel="Predicted emotion", ylabel="True emotion (predictions)")
    return ax


def plot_class_report(report: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw precision, recall and F1 of each emotion, from `evaluation.report_classes`."""
    ax = style.make_axes(ax, 7.5, 0.36 * len(report) + 1.3)
    places, scores = range(len(report)), report[["precision", "recall", "f1"]]
    ax.hlines(places, scores.min(axis=1), scores.max(axis=1), color="#C8C8C8", linewidth=3)
    looks = ("precision", style.ORANGE, "D"), ("recall", style.BLUE, "o"), ("F1", "black", "|")
    for label, colour, marker in looks:
        values = scores[label.lower()]
        ax.plot(values, places, marker, color=colour, label=label, markersize=8, mew=2)
    ax.set_yticks(places, style.label_with_counts(report["support"]))
    ax.set(xlabel="Score (%); number of predictions in brackets", xlim=(0, 1.02))
    style.finish_rows(ax, ncols=3)
    return ax


def plot_group_scores(scores: pd.DataFrame, *, metric: str = "uar", ax: Axes | None = None) -> Axes:
    """Draw the score of each group of `evaluation.score_groups`; five or more, best first."""
    if len(scores) > 4:
        scores = scores.sort_values(metric, ascending=False, kind="stable")
    values, mean = scores[metric], scores[metric].mean()
    ax = style.make_axes(ax, 7.5, 0.28 * len(scores) + 1.2)
    label = f"mean of groups {100 * mean:.1f}"
    ax.axvline(mean, color=style.GREY, linestyle="--", zorder=0.9, label=label)
    names = style.label_with_counts(scores["num_utterances"])
    bars = ax.barh(names, values, color=style.BLUE, height=0.7)
    numbers = [f"{100 * value:.0f}" for value in values]
    ax.bar_label(bars, numbers, padding=3, fontsize=9, bbox=style.ON_WHITE)
    ax.set(xlabel=f"{METRIC_NAMES[metric]} (%); number of utterances in brackets", xlim=(0, 1.02))
    ax.set(ylabel=str(scores.index.name).capitalize(), ylim=(-0.6, len(scores) - 0.4))
    style.finish_rows(ax)
    return ax


def plot_calibration(calibration: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw the reliability diagram of `evaluation.measure_calibration`.

    Bars of less than a hundredth of the predictions, which say little, are pale.
    """
    ax = style.make_axes(ax, 5, 4.4)
    edges = np.linspace(0, 1, len(calibration) + 1)
    shares = calibration["count"] / calibration["count"].sum()
    few = shares < 0.01
    look = {"align": "edge", "color": style.BLUE, "edgecolor": "white"}
    look["label"] = "accuracy" + " (pale: of few)" * bool((few & (shares > 0)).any())
    bars = ax.bar(edges[:-1], calibration["accuracy"], edges[1], **look)
    for bar, is_of_few in zip(bars, few, strict=True):
        bar.set_alpha(0.3 if is_of_few else 1)
    ax.stairs(shares, edges, color=style.ORANGE, linewidth=1.8, label="share of predictions")
    ax.plot([0, 1], [0, 1], color=style.GREY, linestyle="--", label="perfect calibration")
    error = calibration.attrs["expected_calibration_error"]
    ax.set(title=f"Expected calibration error {100 * error:.1f} %", xlim=(0, 1), ylim=(0, 1))
    ax.set(xlabel="Probability of the predicted emotion (%)", ylabel="Accuracy, share (%)")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(style.format_percent())
    legend = ax.legend(loc="upper left", frameon=True, facecolor="white", edgecolor="none")
    plt.setp(legend.legend_handles, alpha=1)
    return ax


def plot_voices(known: pd.Series, unknown: pd.Series, *, ax: Axes | None = None) -> Axes:
    """Draw recalls of `evaluation.report_classes` on known and unknown voices, and the UAR."""
    known, unknown = (pd.concat([pd.Series({"UAR": row.mean()}), row]) for row in (known, unknown))
    ax = style.make_axes(ax, 7.5, 0.34 * len(known) + 1.4)
    places, unknown = range(len(known)), unknown.reindex(known.index)
    ax.hlines(places, unknown, known, color="#C8C8C8", linewidth=3)
    look = {"color": style.BLUE, "markersize": 9, "clip_on": False}
    ax.plot(unknown, places, "o", label="voices never heard", **look)
    look |= {"color": style.VERMILION, "markersize": 6}
    ax.plot(known, places, "s", label="voices known", **look)
    ax.axhline(0.5, color=style.GREY, linewidth=0.8)
    ax.set_yticks(places, known.index)
    ax.set(xlabel="Recall (%)", xlim=(0, 1.02))
    style.finish_rows(ax, ncols=2)
    return ax


def plot_comparison(
    results: pd.DataFrame, *, reference_lines: Mapping | None = None, ax: Axes | None = None
) -> Axes:
    """Draw UAR and 95 % interval of each system of `results.tabulate_results` by protocol.

    The best system on unseen speakers stands on top. Own results that are not published are drawn
    hollow and named so. `reference_lines` are scores by name, such as {"chance": 0.125}. Raises
    ValueError if there are no results.
    """
    if results.empty:
        raise ValueError("There are no results to draw: run an experiment notebook first.")
    ranks = results["protocol"].map(style.rank_protocol)
    results = results.assign(system=_name_systems(results), rank=ranks)
    results = results.sort_values(["rank", "uar"], ascending=[True, False])
    results["number"], systems = results["system"].factorize()
    results = results.sort_values(["number", "rank", "protocol"])
    results["place"] = np.arange(len(results)) + 0.8 * results["number"]
    ax = style.make_axes(ax, 10, 0.16 * (results["place"].max() + 1) + 1.5)
    for name, dashes in zip(reference_lines or {}, cycle(("--", ":", "-.")), strict=False):
        value = reference_lines[name]
        ax.axvline(value, color=style.GREY, ls=dashes, lw=1, label=f"{name} {100 * value:.1f}")
    for (_, protocol), rows in results.groupby(["rank", "protocol"]):
        colour, marker = style.find_look(protocol)
        places, highs = rows["place"], rows["uar_high"]
        ax.hlines(places, rows["uar_low"], highs, color=colour, linewidth=2)
        look = {"color": colour, "markersize": 7, "linestyle": ""}
        ax.plot(rows["uar"], places, marker, label=style.name_protocol(protocol), **look)
        own = rows["own"].astype(bool)
        ax.plot(rows["uar"][own], places[own], marker, markerfacecolor="white", **look)
        look = {"textcoords": "offset points", "va": "center", "bbox": style.ON_WHITE}
        for score, high, place in zip(rows["uar"], highs, places, strict=True):
            text = f"{100 * score:.1f}"
            ax.annotate(text, (max(score, high), place), (7, 0), fontsize=9, **look)
    spans = results.groupby("number")["place"]
    for end in spans.max().iloc[:-1]:
        ax.axhline(end + 0.9, color=style.STYLE["grid.color"], linewidth=0.8)
    ax.set_yticks(spans.mean(), systems)
    ax.set(xlabel="UAR (%) and 95 % interval", xlim=(0, 1.04))
    ax.set_ylim(-0.9, results["place"].max() + 0.9)
    style.finish_rows(ax, ncols=2)
    return ax


def _name_systems(results: pd.DataFrame) -> pd.Series:
    """The title of each row's system; its variant or notebook too where two systems share it."""
    keys, names = results[["notebook", "variant"]], results["title"]
    for column in ("variant", "notebook"):
        num_systems = names.map(keys.assign(name=names).drop_duplicates()["name"].value_counts())
        unclear = (num_systems > 1) & (keys[column] != "")
        names = names.where(~unclear, names + " · " + keys[column])
    return names.where(~results["own"].astype(bool), names + " (yours)")


def name_figure(*, notebook: str, name: str, corpus: str) -> str:
    """Name the file of a figure."""
    return f"{notebook}__{corpus}__{name}.png"


def save_figure(figure: Figure, *, notebook: str, name: str, corpus: str) -> Path:
    """Write `data/runs/figures/<notebook>__<corpus>__<name>.png` at 150 dots per inch."""
    path = paths.RUNS_DIR / "figures" / name_figure(notebook=notebook, name=name, corpus=corpus)
    with write_atomically(path) as temporary:
        figure.savefig(temporary, dpi=150, bbox_inches="tight", metadata={"Software": None})
    return path
