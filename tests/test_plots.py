"""Pictures show what they are given, labelled, and keep every label inside the figure."""

import base64
import io
import re
from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import soundfile
from matplotlib.colors import to_hex, to_rgb
from matplotlib.image import imread

from common import paths, plots, sound_plots, style
from common.emotions import EMOTIONS
from common.evaluation import count_confusions, measure_calibration, report_classes, score_groups
from common.features import Cepstra, FitLength, LogMel, Trim
from common.recipes import Recipe
from common.splits import PROTOCOLS, SplitProtocol
from common.style import rank_protocol
from tests.prediction_tables import make_history, make_labelled, make_predictions, make_table

# Machado, Oliveira & Fernandes 2009, full severity, on linear RGB.
COLOUR_VISION = {
    "normal": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


@pytest.fixture(autouse=True)
def fresh_style():
    with plt.rc_context():
        plots.set_style()
        yield
    plt.close("all")


@pytest.fixture(scope="module")
def predictions() -> pd.DataFrame:
    return make_predictions()


@pytest.fixture(scope="module")
def history() -> pd.DataFrame:
    return make_history()


@pytest.fixture(scope="module")
def waveform() -> np.ndarray:
    rng = np.random.default_rng(0)
    return (0.1 * rng.normal(size=32000)).astype(np.float32)


def make_results() -> pd.DataFrame:
    rows = [
        ("11_cnn", "", "CNN", "speaker_5fold", 0.62),
        ("11_cnn", "", "CNN", "random_5fold", 0.81),
        ("32_parallel_cnn_transformer", "", "CNN + transformer", "speaker_5fold", 0.64),
        ("32_parallel_cnn_transformer", "", "CNN + transformer", "random_5fold", 0.80),
        ("40_augmentation_and_balance", "focal_loss", "CNN, focal loss", "speaker_5fold", 0.60),
    ]
    table = pd.DataFrame(rows, columns=["notebook", "variant", "title", "protocol", "uar"])
    return table.assign(own=False).assign(uar_low=table["uar"] - 0.04, uar_high=table["uar"] + 0.05)


def list_texts(labels) -> list[str]:
    return [label.get_text() for label in labels]


def list_legend(ax) -> list[str]:
    return list_texts(ax.get_legend().get_texts())


def check_inside(figure) -> None:
    """Nothing that is drawn reaches over the edge of the figure, not by two pixels."""
    figure.canvas.draw()
    drawn, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert min(drawn.x0, drawn.y0) > -0.02, drawn
    assert drawn.x1 < width + 0.02, (drawn, width)
    assert drawn.y1 < height + 0.02, (drawn, height)


def measure_lab(colour: str, vision) -> np.ndarray:
    """CIE L*a*b* of a colour as seen with a kind of colour vision, white point D65."""
    values = np.array(to_rgb(colour))
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.array(vision) @ linear, 0, 1)
    to_xyz = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750]]
    to_xyz += [[0.0193339, 0.1191920, 0.9503041]]
    x, y, z = np.cbrt(np.maximum(to_xyz @ seen / [0.95047, 1, 1.08883], 0.008856))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("vision", COLOUR_VISION)
def test_colours_of_emotions_stay_apart_for_every_colour_vision(vision):
    assert set(style.EMOTION_COLOURS) == {*EMOTIONS, "bored"}
    seen = {
        emotion: measure_lab(colour, COLOUR_VISION[vision])
        for emotion, colour in style.EMOTION_COLOURS.items()
    }
    distances = {
        pair: np.linalg.norm(seen[pair[0]] - seen[pair[1]]) for pair in combinations(seen, 2)
    }
    closest = min(distances, key=distances.get)
    assert distances[closest] > 12, closest


def test_every_protocol_has_a_look_of_its_own_and_circles_are_unknown_voices(monkeypatch):
    monkeypatch.setitem(PROTOCOLS, "mine", SplitProtocol("my folds", True))
    monkeypatch.setitem(PROTOCOLS, "mine too", SplitProtocol("my other folds", False))
    looks = {name: style.find_look(name) for name in [*PROTOCOLS, "whatever"]}
    assert len(set(looks.values())) == len(PROTOCOLS) + 1
    for name, protocol in PROTOCOLS.items():
        kinds = style.PROTOCOL_LOOKS[protocol.speaker_independent]
        assert looks[name][0] in kinds[0] and looks[name][1] in kinds[1]
    assert looks["speaker_5fold"][1] == "o" != looks["random_5fold"][1]


def test_set_style_sets_what_it_says():
    for name, value in style.STYLE.items():
        assert plt.rcParams[name] == value


def test_class_counts(predictions):
    table = make_table(predictions)
    ax = plots.plot_class_counts(table)
    assert list_texts(ax.get_xticklabels()) == [*EMOTIONS]
    assert [bar.get_height() for bar in ax.patches] == [12] * 8
    colours = [to_hex(bar.get_facecolor()).upper() for bar in ax.patches]
    assert colours == [style.EMOTION_COLOURS[emotion] for emotion in EMOTIONS]
    assert list_texts(ax.texts) == ["12"] * 8
    assert ax.get_ylabel() == "Utterances"
    check_inside(ax.figure)


def test_class_counts_by_a_column(predictions):
    table = make_table(predictions)
    table.loc[0, "intensity"] = ""
    ax = plots.plot_class_counts(table, by="intensity")
    assert list_legend(ax) == ["normal", "strong", "unknown"]
    assert ax.get_legend().get_title().get_text() == "Intensity"
    heights = np.array([[bar.get_height() for bar in bars] for bars in ax.containers])
    assert heights.shape == (3, 8)
    assert heights[:, 0].tolist() == [11, 0, 1]
    assert heights.sum() == len(table)
    check_inside(ax.figure)


def test_durations(predictions):
    table = make_table(predictions)
    ax = plots.plot_durations(table)
    assert list_texts(ax.get_yticklabels()) == [*EMOTIONS]
    assert ax.get_xlabel() == "Duration (seconds)"
    assert len(ax.patches) == 8
    check_inside(ax.figure)


def test_players_share_one_scale():
    tone = np.sin(np.linspace(0, 100, 1600, dtype=np.float32))
    players = sound_plots.make_players(
        {"loud & clear": 0.02 * tone, "soft": 0.01 * tone, "silence": 0 * tone}
    )
    assert "loud &amp; clear" in players.data
    sounds = [
        soundfile.read(io.BytesIO(base64.b64decode(data)))
        for data in re.findall(r"base64,([^\"]+)", players.data)
    ]
    assert [rate for _, rate in sounds] == [16_000] * 3
    peaks = [np.abs(sound).max() for sound, _ in sounds]
    assert peaks == pytest.approx([1, 0.5, 0], abs=1e-3)


def test_players_of_silence():
    assert "audio" in sound_plots.make_players({"silence": np.zeros(16, dtype=np.float32)}).data


def test_waveform(waveform):
    ax = sound_plots.plot_waveform(waveform)
    assert ax.get_xlim() == (0, 2)
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), waveform)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Time (seconds)", "Amplitude")
    check_inside(ax.figure)


@pytest.mark.parametrize(
    ("step", "ylabel", "bar"),
    [(LogMel(), "Frequency (Hz)", "Level (dB)"), (Cepstra(), "Coefficient", "Value")],
)
def test_features(waveform, step, ylabel, bar):
    recipe = Recipe((Trim(), FitLength(), step))
    values = recipe(waveform)
    ax = sound_plots.plot_features(values, recipe)
    mesh = ax.collections[0]
    np.testing.assert_array_equal(np.asarray(mesh.get_array()).reshape(values.T.shape), values.T)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Time (seconds)", ylabel)
    assert ax.figure.axes[1].get_ylabel() == bar
    assert ax.get_xlim()[1] == pytest.approx(2.5, abs=0.02)
    assert len(list_texts(ax.get_yticklabels())) >= 4
    check_inside(ax.figure)
    if ylabel == "Coefficient":
        limit = np.abs(values[:, 1:]).max()
        assert mesh.get_clim() == pytest.approx((-limit, limit))


def test_attention_lies_over_the_features_it_weighs_with_an_axis_and_a_legend(waveform):
    recipe = Recipe((Trim(), FitLength(), LogMel()))
    values, weights = recipe(waveform), np.array([0.1, 0.4, 0.3, 0.2])
    ax = sound_plots.plot_attention(values, weights, recipe)
    over = ax.figure.axes[-1]
    heights, edges, _ = over.patches[-1].get_data()
    np.testing.assert_allclose(heights, weights)
    np.testing.assert_allclose(edges, np.linspace(0, len(values) * 0.016, 5))
    assert over.get_xlim() == ax.get_xlim()
    assert over.get_ylabel() == "Attention weight"
    assert list_legend(over) == ["attention"]
    bar = ax.figure.axes[1]
    ax.figure.canvas.draw()
    label = over.yaxis.label.get_window_extent()
    assert not label.overlaps(bar.get_tightbbox())
    check_inside(ax.figure)


def test_history_of_all_folds(history):
    axes = plots.plot_history(history)
    assert list_legend(axes[0]) == ["training", "validation"]
    assert list_legend(axes[1]) == ["training, WA", "validation, WA", "validation, UAR"]
    assert [len(ax.lines) for ax in axes] == [2 * (4 + 1), 3 * (4 + 1)]
    assert [ax.get_xlabel() for ax in axes] == ["Epoch", "Epoch"]
    assert [ax.get_ylabel() for ax in axes] == ["Loss", "Accuracy (%)"]
    mean = axes[0].lines[4]
    assert mean.get_label() == "training"
    assert mean.get_ydata() == pytest.approx(2 - 0.05 * np.arange(20))
    check_inside(axes[0].figure)


def test_history_of_one_fold_and_of_too_few_runs(history):
    axes = plots.plot_history(history[(history["seed"] == 1) & (history["fold"] == 1)])
    assert [len(ax.lines) for ax in axes] == [2, 3]
    assert len(axes[0].lines[0].get_xdata()) == 10
    short = history[(history["fold"] == 1) | (history["epoch"] < 5)]
    mean = plots.plot_history(short)[0].lines[4]
    assert len(mean.get_xdata()) == 10


def test_history_without_validation_shows_training_alone(history):
    validation = ["validation_loss", "validation_uar", "validation_wa"]
    axes = plots.plot_history(history.assign(**dict.fromkeys(validation, np.nan)))
    assert [list_legend(ax) for ax in axes] == [["training"], ["training, WA"]]


def test_confusion_matrix_gives_share_and_count(predictions):
    ax = plots.plot_confusion_matrix(predictions)
    counts = count_confusions(predictions).to_numpy()
    shares = 100 * counts / counts.sum(axis=1, keepdims=True)
    cells = [
        f"{share:.0f} %\n{count}" if count else ""
        for share, count in zip(shares.ravel(), counts.ravel(), strict=True)
    ]
    assert [text for text in list_texts(ax.texts) if text] == [text for text in cells if text]
    drawn = np.asarray(ax.collections[0].get_array()).reshape(counts.shape)
    np.testing.assert_allclose(drawn, shares)
    assert list_texts(ax.get_xticklabels()) == [*EMOTIONS]
    assert list_texts(ax.get_yticklabels()) == [f"{emotion} (24)" for emotion in EMOTIONS]
    assert (ax.get_xlabel(), ax.get_ylabel()) == (
        "Predicted emotion",
        "True emotion (predictions)",
    )
    assert ax.figure.axes[1].get_ylabel() == "Share of the true emotion (%)"
    assert ax.collections[0].get_clim() == (0, 100)
    check_inside(ax.figure)


def test_confusion_matrix_leaves_the_row_of_an_absent_emotion_empty():
    table = make_labelled(["sad", "happy"], ["sad", "angry"])
    ax = plots.plot_confusion_matrix(table)
    assert list_texts(ax.get_yticklabels()) == ["happy (1)", "sad (1)", "angry (0)"]
    assert [text for text in list_texts(ax.texts) if text] == ["100 %\n1", "100 %\n1"]


def test_two_confusion_matrices_side_by_side_do_not_touch(predictions):
    figure, axes = plt.subplots(1, 2, figsize=(13, 5))
    for ax in axes:
        assert plots.plot_confusion_matrix(predictions, ax=ax) is ax
    check_inside(figure)
    bar_label = figure.axes[2].yaxis.label.get_window_extent()
    assert bar_label.x1 < axes[1].yaxis.label.get_window_extent().x0


def test_class_report(predictions):
    report = report_classes(predictions)
    ax = plots.plot_class_report(report)
    assert list_legend(ax) == ["precision", "recall", "F1"]
    for line, column in zip(ax.lines, ("precision", "recall", "f1"), strict=True):
        assert line.get_xdata() == pytest.approx(report[column])
    assert list_texts(ax.get_yticklabels())[0] == "neutral (24)"
    assert ax.yaxis_inverted()
    assert ax.get_xlabel().startswith("Score (%)")
    check_inside(ax.figure)


def test_group_scores(predictions):
    table = make_table(predictions)
    speakers = score_groups(predictions, table, "speaker")
    ax = plots.plot_group_scores(speakers)
    widths = [bar.get_width() for bar in ax.patches]
    assert widths == sorted(speakers["uar"], reverse=True)
    best = speakers["uar"].idxmax()
    assert list_texts(ax.get_yticklabels())[0] == f"{best} (16)"
    assert ax.get_ylabel() == "Speaker"
    assert ax.get_xlabel().startswith("UAR (%)")
    assert list_legend(ax) == [f"mean of groups {100 * speakers['uar'].mean():.1f}"]
    assert list_texts(ax.texts) == [f"{100 * width:.0f}" for width in widths]
    check_inside(ax.figure)


def test_two_groups_keep_their_order(predictions):
    scores = score_groups(predictions, make_table(predictions), "gender")
    ax = plots.plot_group_scores(scores.assign(wa=[0.4, 0.9]), metric="wa")
    assert list_texts(ax.get_yticklabels()) == ["female (48)", "male (48)"]
    assert [bar.get_width() for bar in ax.patches] == [0.4, 0.9]
    assert ax.get_xlabel().startswith("WA (%)")
    check_inside(ax.figure)


def test_calibration(predictions):
    calibration = measure_calibration(predictions, num_bins=5)
    ax = plots.plot_calibration(calibration)
    bars = ax.containers[0]
    assert [bar.get_x() for bar in bars] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])
    heights = [bar.get_height() for bar in bars]
    assert heights == pytest.approx(calibration["accuracy"], nan_ok=True)
    shares = calibration["count"] / calibration["count"].sum()
    assert [bar.get_alpha() < 1 for bar in bars] == (shares < 0.01).tolist()
    few = calibration["count"].between(1, 0.01 * calibration["count"].sum(), inclusive="left").any()
    told = "accuracy (pale: of few)" if few else "accuracy"
    assert set(list_legend(ax)) == {told, "share of predictions", "perfect calibration"}
    error = 100 * calibration.attrs["expected_calibration_error"]
    assert f"{error:.1f} %" in ax.get_title(loc="left")
    check_inside(ax.figure)


def test_comparison_sets_the_protocols_of_a_system_side_by_side():
    results = make_results()
    ax = plots.plot_comparison(results, reference_lines={"chance": 0.125, "human (WA)": 0.67})
    assert list_texts(ax.get_yticklabels()) == [
        "CNN + transformer",
        "CNN",
        "CNN, focal loss",
    ]
    assert list_legend(ax) == [
        "chance 12.5",
        "human (WA) 67.0",
        "5 folds by speaker",
        "5 random folds",
    ]
    points = {line.get_label(): line for line in ax.lines if line.get_marker() in ("o", "s")}
    unseen, random = points["5 folds by speaker"], points["5 random folds"]
    assert unseen.get_xdata() == pytest.approx([0.64, 0.62, 0.60])
    assert unseen.get_ydata() == pytest.approx([0, 2.8, 5.6])
    assert random.get_xdata() == pytest.approx([0.80, 0.81])
    assert random.get_ydata() == pytest.approx([1, 3.8])
    assert ax.get_yticks() == pytest.approx([0.5, 3.3, 5.6])
    assert unseen.get_color() != random.get_color()
    intervals = np.concatenate([lines.get_segments() for lines in ax.collections])
    assert len(intervals) == 5
    assert sorted(intervals[:, 0, 0]) == pytest.approx(sorted(results["uar_low"]))
    assert sorted(intervals[:, 1, 0]) == pytest.approx(sorted(results["uar_high"]))
    assert sorted(list_texts(ax.texts)) == ["60.0", "62.0", "64.0", "80.0", "81.0"]
    assert ax.get_xlabel() == "UAR (%) and 95 % interval"
    check_inside(ax.figure)


def test_comparison_of_every_protocol_fits_registered_or_not(monkeypatch):
    monkeypatch.setitem(PROTOCOLS, "my_protocol", SplitProtocol("my own folds", True))
    one, names = make_results().head(1), [*PROTOCOLS, "my_neighbour's"]
    ax = plots.plot_comparison(pd.concat([one.assign(protocol=name) for name in names]))
    titles = [PROTOCOLS[name].title for name in sorted(PROTOCOLS, key=rank_protocol)]
    assert list_legend(ax) == [*titles, "my_neighbour's"]
    heights = [line.get_ydata()[0] for line in ax.lines if len(line.get_ydata())]
    assert len(set(np.round(heights, 6))) == len(names)
    check_inside(ax.figure)


def test_comparison_tells_systems_of_one_title_apart_and_marks_own_results():
    first, second = make_results().iloc[[0]], make_results().iloc[[3]]
    systems = [
        first,
        second.assign(title="CNN", protocol="random_5fold"),
        first.assign(variant="2d"),
        first.assign(title="LSTM", notebook="12_bilstm"),
        first.assign(title="LSTM", notebook="12_bilstm", own=True, uar=0.5),
    ]
    ax = plots.plot_comparison(pd.concat(systems))
    assert set(list_texts(ax.get_yticklabels())) == {
        *("CNN · 11_cnn", "CNN · 32_parallel_cnn_transformer", "CNN · 2d"),
        *("LSTM", "LSTM (yours)"),
    }
    hollow = [line for line in ax.lines if line.get_markerfacecolor() == "white"]
    assert [x for line in hollow for x in line.get_xdata()] == [0.5]


def test_voices_are_two_dots_an_emotion_and_their_mean_on_top():
    known, unknown = pd.Series({"happy": 0.8, "sad": 0.6}), pd.Series({"happy": 0.5, "sad": 0.4})
    ax = plots.plot_voices(known, unknown)
    assert list_texts(ax.get_yticklabels()) == ["UAR", "happy", "sad"]
    dots = {line.get_label(): line.get_xdata() for line in ax.lines}
    assert dots["voices known"] == pytest.approx([0.7, 0.8, 0.6])
    assert dots["voices never heard"] == pytest.approx([0.45, 0.5, 0.4])
    check_inside(ax.figure)


def test_comparison_needs_results():
    with pytest.raises(ValueError, match="no results"):
        plots.plot_comparison(make_results().head(0))


def test_plots_draw_on_the_axes_they_are_given(predictions, waveform, history):
    _, axes = plt.subplots(1, 2)
    table = make_table(predictions)
    assert plots.plot_class_counts(table, ax=axes[0]) is axes[0]
    assert sound_plots.plot_waveform(waveform, ax=axes[1]) is axes[1]
    assert plots.plot_comparison(make_results(), ax=axes[0]) is axes[0]
    assert [*plots.plot_history(history, axes=axes)] == [*axes]
    assert len(plt.get_fignums()) == 1


@pytest.mark.parametrize("corpus", ["ravdess", "sample"])
def test_figures_are_saved_at_150_dots_per_inch_below_the_runs(
    tmp_path, monkeypatch, waveform, corpus
):
    monkeypatch.setattr(paths, "FIGURES_DIR", tmp_path / "figures")
    monkeypatch.setattr(paths, "RUNS_DIR", tmp_path / "runs")
    figure = sound_plots.plot_waveform(waveform).figure
    path = plots.save_figure(figure, notebook="11_cnn", name="waveform", corpus=corpus)
    assert path == tmp_path / f"runs/figures/11_cnn__{corpus}__waveform.png"
    inches = figure.get_size_inches()[0]
    assert imread(path).shape[1] == pytest.approx(150 * inches, abs=30)
    again = plots.save_figure(figure, notebook="11_cnn", name="waveform", corpus=corpus)
    assert [*path.parent.iterdir()] == [again]
    assert not (tmp_path / "figures").exists()


def test_emotions_without_a_colour_of_their_own_can_be_told_apart():
    colours = style.pick_colours(["angry", "bossy", "cheerful"])
    assert colours["angry"] == style.EMOTION_COLOURS["angry"]
    assert len(set(colours.values())) == 3
    many = style.pick_colours([f"mood {number}" for number in range(11)])
    assert list(many.values())[-2:] == [style.GREY, style.GREY]
