"""The standard report of a run: the same tables and pictures below every architecture."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Markdown, display

from common.audio import load_waveform
from common.bootstrap import compare_predictions, tabulate_scores
from common.evaluation import list_groups, measure_calibration, report_classes, score_groups
from common.models import compute_attention
from common.plots import (
    plot_calibration,
    plot_class_report,
    plot_confusion_matrix,
    plot_group_scores,
    plot_history,
    plot_voices,
    save_figure,
)
from common.predictions import read_predictions
from common.recipes import Features
from common.results import load_results
from common.runs import Run
from common.sound_plots import make_players, plot_attention, plot_features
from common.splits import PROTOCOLS

SYNTHETIC = (
    "**Synthetic speech.** Every number here is of the sample corpus, spoken by a synthesiser. It "
    "shows that the notebook works and says nothing about people."
)


def show(
    runs: Mapping[str, Run], table: pd.DataFrame, *, notebook: str, brief: bool = False
) -> None:
    """Display what runs of one architecture on one corpus amount to, and save its pictures.

    Parameters
    ----------
    runs
        By protocol, the headline first; confusions, emotions, groups and calibration are its.
    table
        The utterance table.
    notebook
        Its name, which the pictures' files carry.
    brief
        Scores, confusions and speakers alone.
    """
    headline = next(iter(runs.values()))
    predictions, corpus = headline.predictions, headline.description["corpus"]
    names = {"notebook": notebook, "corpus": corpus}
    if corpus == "sample":
        display(Markdown(SYNTHETIC))
    display(tabulate_scores({name: run.predictions for name, run in runs.items()}))
    for run in runs.values():
        if run.published is not None:
            display(Markdown(_describe_own(run)))
    ax = plot_confusion_matrix(predictions)
    ax.set_title(f"{corpus}, {headline.description['protocol']}")
    _keep(ax, name="confusion", **names)
    if not brief:
        _keep(plot_class_report(report_classes(predictions)), name="emotions", **names)
        _show_groups(predictions, table)
    _keep(plot_group_scores(score_groups(predictions, table, "speaker")), name="speakers", **names)
    if brief:
        return
    _keep(plot_calibration(measure_calibration(predictions)), name="calibration", **names)
    known = next((run for name, run in runs.items() if not _is_unheard(name)), None)
    if known is not None and _is_unheard(next(iter(runs))):
        _show_voices(known.predictions, predictions, names)


def _is_unheard(protocol: str) -> bool:
    return protocol in PROTOCOLS and PROTOCOLS[protocol].speaker_independent


def _keep(ax, *, notebook: str, corpus: str, name: str) -> None:
    save_figure(ax.figure, notebook=notebook, name=name, corpus=corpus)
    display(ax.figure)
    plt.close(ax.figure)


def _show_groups(predictions: pd.DataFrame, table: pd.DataFrame) -> None:
    """Scores by sex and by intensity, as far as the corpus tells them apart."""
    groups = [name for name in list_groups(table) if name in ("gender", "intensity")]
    scores = {name: score_groups(predictions, table, name).rename_axis("group") for name in groups}
    if scores:
        rows = pd.concat(scores, names=["by"])
        percent = {name: (100 * rows[name]).map("{:.1f}".format) for name in ("uar", "wa")}
        display(rows.assign(**percent).rename(columns={"uar": "UAR (%)", "wa": "WA (%)"}))


def _show_voices(known: pd.DataFrame, unknown: pd.DataFrame, names: dict) -> None:
    """Recalls on voices that the model knows beside those on voices that it never heard.

    Where a random split tests a part of the utterances, the two are compared on that part.
    """
    shared = unknown[unknown["utterance"].isin(known["utterance"])]
    keys = ["seed", "utterance"]
    known, shared = (rows.drop_duplicates(keys) for rows in (known, shared))
    gain = compare_predictions(known, shared)
    ax = plot_voices(report_classes(known)["recall"], report_classes(shared)["recall"])
    points = [f"{100 * gain[name]:.1f}" for name in ("difference", "low", "high")]
    ax.set_title("Knowing the voices is worth {} points of UAR ({} to {})".format(*points))
    _keep(ax, name="voices", **names)
    display(Markdown("Known against unknown voices: {} points of UAR ({} to {}).".format(*points)))


def _describe_own(run: Run) -> str:
    """Compare a run that was made here with the published one of the same settings."""
    gain = compare_predictions(run.predictions, run.published)
    ours, theirs = (
        100 * report_classes(rows)["recall"].mean() for rows in (run.predictions, run.published)
    )
    within = "within" if gain["low"] <= 0 <= gain["high"] else "beyond"
    low, high = 100 * gain["low"], 100 * gain["high"]
    return (
        f"Yours beside the published, {run.description['protocol']}: UAR {ours:.1f} against "
        f"{theirs:.1f} %, a difference of {100 * gain['difference']:+.1f} points ({low:.1f} to "
        f"{high:.1f}): {within} noise."
    )


def show_curves(run: Run, *, notebook: str) -> None:
    """Draw loss and accuracy over the epochs, single folds and their mean."""
    if run.history.empty:
        display(Markdown("No curves are kept of this run; `retrain=True` makes them."))
        return
    axes = plot_history(run.history)
    _keep(axes[0], notebook=notebook, corpus=run.description["corpus"], name="history")


def show_example(features: Features, table: pd.DataFrame, *, emotion: str) -> None:
    """Show the features of the first utterance of an emotion, and its player."""
    matching = np.flatnonzero(table["emotion"] == emotion)
    row = int(matching[0]) if len(matching) else 0
    ax = plot_features(features.values[row], features.recipe)
    ax.set_title(f"{table['utterance'].iloc[row]}, {table['emotion'].iloc[row]}")
    display(ax.figure)
    plt.close(ax.figure)
    display(make_players({"recording": load_waveform(table["path"].iloc[row])}))


def compare(runs: Mapping[str, Run], notebooks: Sequence[str]) -> None:
    """Tabulate paired differences of these runs from published results of other notebooks.

    A row per result on the same corpus and protocol that tests the same utterances: UAR of these
    runs less that of the other, in points, with its 95 % interval.
    """
    rows = []
    for protocol, run in runs.items():
        for notebook in notebooks:
            for other in load_results(
                corpus=run.description["corpus"], protocol=protocol, notebook=notebook
            ):
                theirs = read_predictions(other["csv"])
                if set(theirs["utterance"]) != set(run.predictions["utterance"]):
                    continue
                gain = compare_predictions(run.predictions, theirs)
                points = {name: 100 * gain[name] for name in ("difference", "low", "high")}
                rows.append({"protocol": protocol, "less": other["title"], **points})
    if not rows:
        display(Markdown("No results to compare with on this corpus: run the other notebooks."))
        return
    table = pd.DataFrame(rows).set_index(["protocol", "less"])
    interval = [
        f"{low:.1f} to {high:.1f}" for low, high in zip(table["low"], table["high"], strict=True)
    ]
    shown = {"points of UAR": table["difference"].map("{:+.1f}".format), "95 % interval": interval}
    display(pd.DataFrame(shown, index=table.index))


def show_attention(
    run: Run,
    table: pd.DataFrame,
    features: Features,
    *,
    layer: str,
    notebook: str,
    emotions: Sequence[str] = ("angry", "sad", "happy"),
) -> None:
    """Draw what an `AttentionPooling` weighs in utterances of speakers its model never heard.

    The model is the first that is at hand, and the utterances are of its fold's test rows.
    """
    if run.first_model is None:
        display(Markdown(run.explain_missing_model))
        return
    seed, fold = run.first_model
    tested = run.predictions.query("seed == @seed and fold == @fold")
    chosen = [tested[tested["true_label"] == emotion].iloc[:1] for emotion in emotions]
    names = pd.concat(chosen)["utterance"]
    rows = pd.Index(table["utterance"]).get_indexer(names)
    weights = compute_attention(
        run.load_model(seed=seed, fold=fold), features.values[rows], layer=layer
    )
    figure, axes = plt.subplots(len(rows), 1, figsize=(7.5, 2.5 * len(rows)), squeeze=False)
    for row, weight, ax in zip(rows, weights, axes[:, 0], strict=True):
        plot_attention(features.values[row], weight, features.recipe, ax=ax)
        ax.set_title(f"{table['utterance'].iloc[row]}, {table['emotion'].iloc[row]}")
    _keep(axes[0, 0], notebook=notebook, corpus=run.description["corpus"], name="attention")
