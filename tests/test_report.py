"""The report tells what the predictions say, in per cent, and leaves out what no table tells."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from matplotlib.figure import Figure

from common import paths, report
from common.evaluation import score_predictions
from common.splits import PROTOCOLS, SplitProtocol
from tests.prediction_tables import make_history, make_predictions, make_table

UNKNOWN = make_predictions(seeds=(0,))
KNOWN = make_predictions(seeds=(0,), skill=3, random_seed=1)
TABLE = make_table(UNKNOWN)


@pytest.fixture(autouse=True)
def shown(monkeypatch, tmp_path) -> list:
    """What is displayed, in order, texts as str; figures are written below `tmp_path`."""
    displayed = []
    monkeypatch.setattr(paths, "RUNS_DIR", tmp_path)
    monkeypatch.setattr(report, "display", lambda item: displayed.append(_read(item)))
    yield displayed
    assert not plt.get_fignums()


def _read(item):
    if isinstance(item, Figure):
        item.canvas.draw()
        drawn, (width, height) = item.get_tightbbox(), item.get_size_inches()
        assert min(drawn.x0, drawn.y0) > -0.02
        assert drawn.x1 < width + 0.02 and drawn.y1 < height + 0.02
    return getattr(item, "data", item)


def make_run(predictions, *, protocol="speaker_5fold", corpus="toy", published=None, history=None):
    return SimpleNamespace(
        predictions=predictions,
        history=pd.DataFrame() if history is None else history,
        description={"corpus": corpus, "protocol": protocol},
        published=published,
        sources={(0, 1): "trained"},
    )


def make_runs(**settings) -> dict:
    return {
        "speaker_5fold": make_run(UNKNOWN, **settings),
        "random_5fold": make_run(KNOWN, protocol="random_5fold"),
    }


def list_saved() -> set[str]:
    return {path.stem for path in paths.RUNS_DIR.glob("figures/*.png")}


def list_titles(shown) -> list[str]:
    return [item.get_suptitle() for item in shown if isinstance(item, Figure)]


def test_everything_is_shown_once_and_every_figure_saved(shown):
    report.show(make_runs(), TABLE, notebook="11_cnn")
    names = ("confusion", "emotions", "speakers", "calibration", "voices")
    assert list_saved() == {f"11_cnn__toy__{name}" for name in names}
    assert len(list_titles(shown)) == len(names)
    scores, groups = [item for item in shown if isinstance(item, pd.DataFrame)]
    assert [*scores.index] == ["5 folds by speaker", "5 random folds"]
    assert [*groups.index] == [
        *(("gender", "female"), ("gender", "male")),
        *(("intensity", "normal"), ("intensity", "strong")),
    ]
    assert groups["UAR (%)"].str.fullmatch(r"\d+\.\d").all()


def test_figures_stay_clear_of_their_titles(shown):
    report.show(make_runs(), TABLE, notebook="11_cnn")
    for figure in (item for item in shown if isinstance(item, Figure)):
        title = figure._suptitle.get_window_extent()
        for ax in figure.axes:
            legend = ax.get_legend()
            assert legend is None or not legend.get_window_extent().overlaps(title)


def test_knowing_the_voices_is_told_in_the_title_of_its_figure(shown):
    report.show(make_runs(), TABLE, notebook="11_cnn")
    title = list_titles(shown)[-1]
    scores = [100 * score_predictions(run)["uar"] for run in (KNOWN, UNKNOWN)]
    first = f"Known against unknown voices: UAR {scores[0]:.1f} against {scores[1]:.1f} %,\n"
    assert title.startswith(first + f"a difference of {scores[0] - scores[1]:+.1f} points (")
    assert title.endswith("beyond noise")


def test_voices_are_compared_on_what_both_test(shown):
    runs = make_runs()
    half = KNOWN["speaker"] <= "03"
    runs["random_5fold"].predictions = KNOWN[half]
    report.show(runs, TABLE, notebook="11_cnn")
    assert list_titles(shown)[-1].endswith("; 48 utterances that both test")
    uar = score_predictions(UNKNOWN[UNKNOWN["speaker"] <= "03"])["uar"]
    assert f"against {100 * uar:.1f} %" in list_titles(shown)[-1]


def test_an_emotion_that_no_one_speaks_lowers_no_score(shown):
    runs = make_runs()
    for run in runs.values():
        run.predictions = run.predictions[run.predictions["true_label"] != "calm"]
    runs["speaker_5fold"].published = runs["speaker_5fold"].predictions
    report.show(runs, TABLE, notebook="11_cnn")
    figure = [item for item in shown if isinstance(item, Figure)][-1]
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels[0] == "UAR" and "calm" not in labels
    uar = score_predictions(runs["speaker_5fold"].predictions)["uar"]
    dots = {line.get_label(): line.get_xdata() for line in figure.axes[0].lines}
    assert dots["voices never heard"][0] == pytest.approx(uar)
    assert any(f"UAR {100 * uar:.1f} against {100 * uar:.1f} %" in str(item) for item in shown)


@pytest.mark.parametrize(("published", "verdict"), [(UNKNOWN, "within"), (KNOWN, "beyond")])
def test_ones_own_run_stands_beside_the_published_one(shown, published, verdict):
    report.show(make_runs(published=published), TABLE, notebook="11_cnn", brief=True)
    [text] = [item for item in shown if "beside the published" in str(item)]
    assert text.startswith("Yours beside the published, 5 folds by speaker: UAR ")
    assert text.endswith(f": {verdict} noise.")


def test_a_look_at_some_folds_is_compared_on_what_it_tested(shown):
    part = UNKNOWN[UNKNOWN["fold"] == 0]
    runs = {"speaker_5fold": make_run(part, published=UNKNOWN)}
    report.show(runs, TABLE, notebook="11_cnn", brief=True)
    [text] = [item for item in shown if "beside the published" in str(item)]
    assert "a difference of +0.0 points (0.0 to 0.0): within noise" in text


def test_what_a_corpus_does_not_tell_is_left_out(shown):
    one = UNKNOWN[UNKNOWN["speaker"] == "01"]
    runs = {"speaker_5fold": make_run(one)}
    report.show(runs, TABLE.assign(intensity=""), notebook="11_cnn")
    assert list_saved() == {
        f"11_cnn__toy__{name}" for name in ("confusion", "emotions", "calibration")
    }
    assert len([item for item in shown if isinstance(item, pd.DataFrame)]) == 1


def test_protocols_of_ones_own_are_shown_and_unregistered_ones_claim_no_voices(monkeypatch, shown):
    monkeypatch.setitem(PROTOCOLS, "mine", SplitProtocol("my folds", True))
    runs = {"mine": make_run(UNKNOWN), "random_5fold": make_run(KNOWN)}
    report.show(runs, TABLE, notebook="11_cnn")
    assert list_titles(shown)[-1].startswith("Known against unknown voices")
    shown.clear()
    report.show({"whatever": runs["mine"], "mine": make_run(KNOWN)}, TABLE, notebook="12")
    assert "12__toy__voices" not in list_saved()
    assert list_titles(shown)[0].startswith("toy, whatever: ")


def test_synthetic_speech_is_said_to_be_so(shown):
    report.show({"speaker_5fold": make_run(UNKNOWN, corpus="sample")}, TABLE, notebook="11_cnn")
    assert shown[0] == report.SYNTHETIC


def test_curves_are_drawn_where_they_are_kept(shown):
    report.show_curves(make_run(UNKNOWN, history=make_history()), notebook="11_cnn")
    assert list_saved() == {"11_cnn__toy__history"} and len(shown) == 1
    shown.clear()
    report.show_curves(make_run(UNKNOWN), notebook="12_bilstm")
    assert len(shown) == 1 and shown[0].startswith("No curves are kept")


def test_a_published_run_without_its_curves_shows_their_picture(shown, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "FIGURES_DIR", tmp_path)
    figure, _ = plt.subplots()
    figure.savefig(tmp_path / "11_cnn__toy__history.png")
    plt.close(figure)
    drawn = (tmp_path / "11_cnn__toy__history.png").read_bytes()
    run = make_run(UNKNOWN)
    for source, words in (("trained", "No curves"), ("published", "The curves of the published")):
        shown.clear()
        run.sources = {(0, 1): source}
        report.show_curves(run, notebook="11_cnn")
        assert shown[0].startswith(words)
    assert shown[1:] == [drawn]
    report.show_curves(run, notebook="12_bilstm")
    assert shown[-1].startswith("No curves")
