"""The standard report of a run: the same tables and pictures below every architecture."""

from collections.abc import Mapping, Sequence
from itertools import product

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Image, Markdown, display

from common import evaluation, paths, plots
from common.audio import load_waveform
from common.bootstrap import (
    compare_predictions,
    describe_difference,
    tabulate_scores,
    to_points,
)
from common.features import measure_seconds
from common.models import compute_attention
from common.predictions import are_same_utterances, read_predictions
from common.recipes import Features, Recipe
from common.results import SYNTHETIC, load_results
from common.runs import Run
from common.sound_plots import make_players, plot_attention, plot_features
from common.splits import PROTOCOLS
from common.style import name_protocol

SCORES = (
    "In per cent, of all test rows together, with 95 % intervals; *of folds* is the mean over "
    "folds and seeds and its deviation."
)


def show(
    runs: Mapping[str, Run], table: pd.DataFrame, *, notebook: str, brief: bool = False
) -> None:
    """Display what runs of one architecture on one corpus amount to, and save its pictures.

    `runs` are by protocol; confusions, emotions, groups and calibration are those of the first.
    `brief` shows scores, confusions and speakers alone. `table` is the utterance table, and
    `notebook` the name that the pictures' files carry.
    """
    protocol, headline = next(iter(runs.items()))
    predictions, corpus = headline.predictions, headline.description["corpus"]
    names = {"notebook": notebook, "corpus": corpus}
    if corpus == "sample":
        display(Markdown(SYNTHETIC))
    display(Markdown(SCORES))
    scores = tabulate_scores({name: run.predictions for name, run in runs.items()})
    display(scores.rename(index=name_protocol))
    for name, run in runs.items():
        if run.published is not None:
            title = f"Yours beside the published, {name_protocol(name)}"
            display(Markdown(_compare_uar(title, run.predictions, run.published) + "."))
    first = f"{corpus}, {name_protocol(protocol)}"
    title = f"{first}: share in per cent, count below"
    _keep(plots.plot_confusion_matrix(predictions), title, name="confusion", **names)
    groups = evaluation.list_groups(table[table["utterance"].isin(predictions["utterance"])])
    if not brief:
        ax = plots.plot_class_report(evaluation.report_classes(predictions))
        _keep(ax, f"{first}: which emotions are found", name="emotions", **names)
        shown = [by for by in groups if by in ("corpus", "gender", "intensity")]
        _show_groups({by: evaluation.score_groups(predictions, table, by) for by in shown})
    if "speaker" in groups:
        scores = evaluation.score_groups(predictions, table, "speaker")
        low, high = 100 * scores["uar"].agg(["min", "max"])
        title = f"{first}: speakers from {low:.1f} to {high:.1f} %"
        _keep(plots.plot_group_scores(scores), title, name="speakers", **names)
    if brief:
        return
    ax = plots.plot_calibration(evaluation.measure_calibration(predictions))
    _keep(ax, first, name="calibration", **names)
    known = [name for name in reversed(runs) if name in PROTOCOLS]
    kinds = {PROTOCOLS[name].speaker_independent: runs[name].predictions for name in known}
    if len(kinds) == 2:
        _show_voices(kinds[False], kinds[True], names)


def _keep(ax, title: str | None = None, *, notebook: str, corpus: str, name: str) -> None:
    """Save and display the figure of these axes, below a title that stays clear of legends."""
    if title:
        ax.figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    plots.save_figure(ax.figure, notebook=notebook, name=name, corpus=corpus)
    display(ax.figure)
    plt.close(ax.figure)


def _show_groups(scores: Mapping[str, pd.DataFrame]) -> None:
    """Tabulate the scores of each way to group."""
    if scores:
        rows = pd.concat({by: groups.rename_axis(None) for by, groups in scores.items()})
        percent = (100 * rows[["uar", "wa"]]).map("{:.1f}".format)
        percent = percent.rename(columns={"uar": "UAR (%)", "wa": "WA (%)"})
        display(percent.assign(utterances=rows["num_utterances"]))


def _show_voices(known: pd.DataFrame, unknown: pd.DataFrame, names: dict) -> None:
    """Recalls on voices that the model knows beside those on voices that it never heard.

    Where a random split tests a part of the utterances, the two are compared on that part.
    """
    num_tested = unknown["utterance"].nunique()
    known, unknown = _share_utterances(known, unknown)
    if known.empty:
        return
    reports = [evaluation.report_classes(predictions) for predictions in (known, unknown)]
    recalls = [report["recall"][report["support"] > 0] for report in reports]
    title = _compare_uar("Known against unknown voices", known, unknown)
    num_shared = known["utterance"].nunique()
    if num_shared < num_tested:
        title += f"; {num_shared} utterances that both test"
    display(Markdown(f"{title}."))
    title = title.replace(", a difference", ",\na difference")
    _keep(plots.plot_voices(*recalls), title, name="voices", **names)


def _share_utterances(first: pd.DataFrame, second: pd.DataFrame) -> list[pd.DataFrame]:
    shared = set(first["utterance"]) & set(second["utterance"])
    return [predictions[predictions["utterance"].isin(shared)] for predictions in (first, second)]


def _compare_uar(title: str, first: pd.DataFrame, second: pd.DataFrame) -> str:
    """Say by how much the UAR of the first differs where both test, all folds taken together."""
    pair = _share_utterances(first, second)
    if pair[0].empty:
        return f"{title}: no utterance is tested by both"
    scores = [100 * evaluation.score_predictions(predictions)["uar"] for predictions in pair]
    title += f": UAR {scores[0]:.1f} against {scores[1]:.1f} %"
    return describe_difference(title, compare_predictions(*pair))


def show_curves(run: Run, *, notebook: str, name: str = "history") -> None:
    """Draw loss and accuracy over the epochs, single folds and their mean.

    Where a run was published without its curves, the picture that was drawn of them is shown.
    """
    names = {"notebook": notebook, "corpus": run.description["corpus"], "name": name}
    drawn = paths.FIGURES_DIR / plots.name_figure(**names)
    if len(run.history):
        _keep(plots.plot_history(run.history)[0], **names)
    elif set(run.sources.values()) == {"published"} and drawn.is_file():
        display(Markdown("The curves of the published run, drawn when it was trained:"))
        display(Image(drawn, width=750))
    else:
        display(Markdown("No curves are kept of this run; `retrain=True` makes them."))


def show_example(features: Features, table: pd.DataFrame, *, emotion: str) -> None:
    """Show the features of the first utterance of an emotion, its player, and what was cut."""
    row = int((table["emotion"] == emotion).to_numpy().argmax())  # 0 where there is none
    ax = plot_features(features.values[row], features.recipe)
    ax.set_title(f"{table['utterance'].iloc[row]}, {table['emotion'].iloc[row]}")
    display(ax.figure)
    plt.close(ax.figure)
    display(make_players({"recording": load_waveform(table["path"].iloc[row])}))
    show_cut(table, features.recipe)


def show_cut(table: pd.DataFrame, recipe: Recipe) -> None:
    """Say how many utterances are longer than a recipe or its encoder keeps, and what is lost."""
    for place, step in enumerate(recipe.steps):
        most = getattr(step, "seconds_kept", None)
        if most is None:
            continue
        seconds = measure_seconds(table, recipe.steps[:place])
        cut, lost = np.mean(seconds > most), 1 - np.minimum(seconds, most).sum() / seconds.sum()
        corpus = " and ".join(table["corpus"].unique())
        words = f"{corpus}: of each utterance the middle {most:.2g} s are kept; "
        words += f"{100 * cut:.0f} % are longer, and {100 * lost:.0f} % of all sound is left out."
        display(Markdown(words))


def compare(runs: Mapping[str, Run], notebooks: Sequence[str]) -> None:
    """Tabulate paired differences of these runs from published results of other notebooks.

    A row per result on the same corpus and protocol that tests the same utterances: UAR of these
    runs minus that of the other, in points, with its 95 % interval.
    """
    rows = []
    for (protocol, run), notebook in product(runs.items(), notebooks):
        corpus = run.description["corpus"]
        for other in load_results(corpus=corpus, protocol=protocol, notebook=notebook):
            theirs = read_predictions(other["csv"])
            if not are_same_utterances(theirs, run.predictions):
                continue
            gain = compare_predictions(run.predictions, theirs)
            points, low, high = to_points(gain)
            rows.append((protocol, other["title"], f"{points:+.1f}", f"{low:.1f} to {high:.1f}"))
    if not rows:
        display(Markdown("No results to compare with on this corpus: run the other notebooks."))
        return
    columns = ["protocol", "minus", "points of UAR", "95 % interval"]
    display(pd.DataFrame(rows, columns=columns).set_index(columns[:2]))


def show_attention(
    run: Run, table: pd.DataFrame, features: Features, *, layer: str, notebook: str
) -> None:
    """Draw what a layer of attention weighs in an angry, a sad and a happy utterance, or in others.

    The model is the first that is at hand, and the utterances are of its fold's test rows.
    """
    if run.first_model is None:
        display(Markdown(run.explain_missing_model))
        return
    seed, fold = run.first_model
    tested = run.predictions.query("seed == @seed and fold == @fold")
    chosen = tested.drop_duplicates("true_label").set_index("true_label")["utterance"]
    wanted = chosen.reindex(["angry", "sad", "happy"]).dropna()
    rows = pd.Index(table["utterance"]).get_indexer(wanted if len(wanted) else chosen.iloc[:3])
    model = run.load_model(seed=seed, fold=fold)
    try:
        weights = compute_attention(model, features.values[rows], layer=layer)
    except (ValueError, AttributeError) as error:
        display(Markdown(f"{error} Name a layer with attention in this cell, or take it out."))
        return
    figure, axes = plt.subplots(len(rows), 1, figsize=(7.5, 2.5 * len(rows)), squeeze=False)
    for row, weight, ax in zip(rows, weights, axes[:, 0], strict=True):
        plot_attention(features.values[row], weight, features.recipe, ax=ax)
        ax.set_title(f"{table['utterance'].iloc[row]}, {table['emotion'].iloc[row]}")
    _keep(axes[0, 0], notebook=notebook, corpus=run.description["corpus"], name="attention")
