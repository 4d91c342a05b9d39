"""Model cards of what ships, and the facts inside its file, from published evidence alone."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from common.bootstrap import summarise_predictions
from common.corpora.records import CORPORA
from common.evaluation import (
    apply_temperature,
    count_confusions,
    fit_temperature,
    measure_calibration,
    report_classes,
)
from common.known_voices import PRIOR
from common.predictions import read_predictions
from common.results import load_results
from common.robustness import CLEAN
from common.splits import PROTOCOLS

NOTEBOOK = "35_shipped_models"
TRAINED = "trained_on_ravdess"  # the protocol of what is tested on other corpora
STEPS = (0.0, 0.4, 0.6, 0.8)  # of the probability of the answer, each up to the next
LICENCE = "CC BY-NC-SA 4.0, as RAVDESS, which it was trained on: not for commercial use"
SPOILT = {  # the variant of `52_robustness`, and how its models were trained
    "small": ("network_degraded_copies_conditions", "networks of one seed, trained again"),
    "whisper": ("whisper_one_level_degraded_copies_conditions", "C = 0.01 in every fold"),
}
LEARNT = ("white noise 10 dB", "through a telephone")  # from copies spoilt so
SPOILS = (*LEARNT, "level -30 dB", "babble 10 dB", "room 0.5 s", "room 0.7 s")
TITLES = {
    "small": "CNN and BiLSTM with attention, side by side, of recordings at one level, heard in "
    "training also in noise and over a telephone",
    "whisper": "Whisper base frozen, logistic regression on its layers 1 to 4, of recordings at "
    "one level, heard in training also in noise and over a telephone",
}
SEXES = {"female": "its women", "male": "its men"}
USE = """## Use and misuse

For trying out, teaching, and research on acted speech. Not for hiring, policing, schooling,
insurance, health or any other decision about a person: it hears how a sentence is spoken, in the
way actors speak it, and not what someone feels. Trained on 24 North American actors who said two
English sentences; other languages, accents, ages and spontaneous speech were not in training. It
abstains on silence, clicks, steady noise and what is too short, and says why; that a feeling is
none of those it knows it cannot tell.
"""


def read_strangers(name: str) -> pd.DataFrame:
    """Predictions of a model's folds on RAVDESS: speakers whom the fold's model never heard."""
    return _read(NOTEBOOK, name)


def read_elsewhere(name: str) -> dict[str, pd.DataFrame]:
    """Predictions of the file that ships on other corpora, by corpus."""
    found = {}
    for result in load_results(notebook=NOTEBOOK, protocol=TRAINED, ablations=True):
        if result["variant"] == name:
            found[result["corpus"]] = read_predictions(result["csv"])
    return found


def read_conditions(name: str) -> dict[str, pd.DataFrame]:
    """Predictions of strangers' recordings as they are and spoilt, by how."""
    rows = _read("52_robustness", SPOILT[name][0])
    found = rows["utterance"].str.partition(" @ ")[2]
    return {condition: rows[found == condition] for condition in (CLEAN, *SPOILS)}


def read_enrolled() -> dict[str, pd.DataFrame]:
    """Predictions of voices that were heard before, by the number of utterances heard."""
    return {count: _read(NOTEBOOK, f"whisper_heard_{count}") for count in ("4", "16", "all")}


def calibrate(predictions: pd.DataFrame) -> pd.DataFrame:
    """Calibrate predictions, those of each fold by the temperature that the other folds want."""
    parts = []
    for fold, rows in predictions.groupby("fold"):
        others = predictions[predictions["fold"] != fold]
        parts.append(apply_temperature(rows, fit_temperature(others)))
    return pd.concat(parts, ignore_index=True)


def make_shipped_facts(name: str) -> dict:
    """As `make_facts`, of a model that ships, "small" or "whisper", from its evidence."""
    named = {"name": name, "title": TITLES[name], "licence": LICENCE}
    return named | make_facts(read_strangers(name), corpus="ravdess", protocol="speaker_5fold")


def make_facts(predictions: pd.DataFrame, *, corpus: str, protocol: str) -> dict:
    """Facts for the file of a model, from what its folds said: temperature, scores and trust.

    The scores are those of `strangers`, or of `acquaintances` where the protocol or speakers that
    are unknown, each utterance with one of its own, let a fold have heard whom it is tested on.
    `trust` has a row per step of `STEPS`: of the calibrated answers that were at least as sure as
    `from`, and less than the next, the share that was right, and their `count`.
    """
    calibrated = calibrate(predictions)
    sure = calibrated.filter(like="p_").max(axis=1)
    trust = []
    for low, high in zip(STEPS, (*STEPS[1:], np.inf), strict=True):
        rows = calibrated[(sure >= low) & (sure < high)]
        if len(rows):
            accuracy = round(float(rows["correct"].mean()), 4)
            trust.append({"from": low, "accuracy": accuracy, "count": len(rows)})
    uar = {key: round(value, 4) for key, value in summarise_predictions(predictions)["uar"].items()}
    told = predictions["speaker"].nunique() < predictions["utterance"].nunique()
    unheard = PROTOCOLS[protocol].speaker_independent and told
    scores = {"corpus": corpus, "protocol": protocol, "uar": uar}
    return {
        "temperature": round(fit_temperature(predictions), 4),
        "strangers" if unheard else "acquaintances": scores,
        "trust": trust,
    }


def make_card(name: str) -> str:
    """Write the card of a model, "small" or "whisper", as Markdown, from `results/`.

    Raises ValueError if evidence is missing.
    """
    predictions, facts = read_strangers(name), make_shipped_facts(name)
    calibrated = calibrate(predictions)
    parts = [f"# `{name}`\n\n{TITLES[name]}. {LICENCE}."]
    genders = predictions["speaker"].map(CORPORA["ravdess"].genders)
    groups = {SEXES[gender]: rows for gender, rows in predictions.groupby(genders)}
    parts.append(
        "## What to expect\n\nOf voices never heard (RAVDESS, `speaker_5fold`: five models, each "
        "tested on actors that it did not hear; the one that ships heard all 24). In per cent, "
        "95 % interval from resampling speakers.\n\n"
        + _list_scores({"RAVDESS": predictions, **groups})
    )
    parts.append("### By emotion\n\n" + _list_emotions(predictions))
    parts.append(_describe_calibration(predictions, calibrated, facts))
    elsewhere = read_elsewhere(name)
    if elsewhere:
        parts.append(
            "## On other corpora\n\nThe file that ships, seven emotions: *calm* counts as neutral, "
            "where `50_cross_corpus` leaves it out. "
            "With so few speakers an interval says little.\n\n"
            + _list_scores({CORPORA[corpus].title: rows for corpus, rows in elsewhere.items()})
            + "\n\n"
            + "\n".join(_describe_failure(corpus, rows) for corpus, rows in elsewhere.items())
        )
    parts.append(_describe_conditions(name))
    if name == "small":
        parts.append(
            "## Knowing the voice\n\nIt cannot: it has no head for known voices, and `enrol` "
            "refuses. `whisper` has one."
        )
    else:
        titles = {"all": "all, the scored ones among them"}
        enrolled = {"none, by the head for strangers": predictions}
        enrolled |= {titles.get(n, n): rows for n, rows in read_enrolled().items()}
        parts.append(
            "## Knowing the voice\n\n`enrol` takes recordings of a voice without labels. RAVDESS, "
            "`speaker_5fold`, by utterances of the test speaker heard before; of neutral speech "
            "alone nothing is gained (`42_speaker_enrolment`). Layers and penalty are those that "
            "most folds chose there. Each fold chose on its training speakers how many utterances "
            f"the average voice counts as; in the file it counts as {PRIOR:g}. This head learnt "
            "from speech as recorded alone, without degraded copies."
            "\n\n" + _list_scores(enrolled, "heard")
        )
    return "\n\n".join(part.strip() for part in (*parts, USE)) + "\n"


def _read(notebook: str, variant: str) -> pd.DataFrame:
    """Read predictions of strangers, those made here where they are not the published ones."""
    where = {"corpus": "ravdess", "protocol": "speaker_5fold", "notebook": notebook}
    results = load_results(**where, ablations=True)
    found = [result["csv"] for result in results if result["variant"] == variant]
    if not found:
        raise ValueError(
            f"results/{notebook} has no ravdess__speaker_5fold__{variant}: run the notebook, "
            "publish it"
        )
    return read_predictions(found[-1])  # `load_results` gives one's own last


def _list_scores(systems: Mapping[str, pd.DataFrame], first: str = "voices") -> str:
    lines = [f"| {first} | utterances | UAR [95 % interval] | WA |", "| --- | --- | --- | --- |"]
    for title, rows in systems.items():
        scores = summarise_predictions(rows)
        uar = [f"{100 * scores['uar'][key]:.1f}" for key in ("score", "low", "high")]
        wa = f"{100 * scores['wa']['score']:.1f}"
        number = rows["utterance"].nunique()
        lines.append(f"| {title} | {number:,} | {uar[0]} [{uar[1]}, {uar[2]}] | {wa} |")
    return "\n".join(lines)


def _list_emotions(predictions: pd.DataFrame) -> str:
    """Recall and precision of each emotion, and what it is taken for most often."""
    confusions = count_confusions(predictions)
    shares = confusions.div(confusions.sum(axis=1), axis=0)
    lines = ["| emotion | found | right when said | most often taken for |", "| --- " * 4 + "|"]
    for emotion, row in report_classes(predictions).iterrows():
        wrong = shares.loc[emotion].drop(emotion)
        taken = f"{wrong.idxmax()}, {100 * wrong.max():.0f} %"
        recall, precision = (f"{100 * row[key]:.0f} %" for key in ("recall", "precision"))
        lines.append(f"| {emotion} | {recall} | {precision} | {taken} |")
    return "\n".join(lines)


def _describe_calibration(raw: pd.DataFrame, calibrated: pd.DataFrame, facts: dict) -> str:
    before, after = (
        100 * measure_calibration(rows).attrs["expected_calibration_error"]
        for rows in (raw, calibrated)
    )
    seeds = raw["seed"].nunique()
    lines = [
        "### How sure\n\nProbabilities are calibrated by a temperature, here each fold's by what "
        f"the other folds want: the expected calibration error is {after:.1f} %, without it "
        f"{before:.1f} %. The file holds {facts['temperature']:.3f}, of all folds."
        + f" Networks of {seeds} seeds answer for each utterance." * (seeds > 1)
        + "\n",
        "| probability of the answer | answers | right |",
        "| --- | --- | --- |",
    ]
    ends = [f"to {row['from']:g}" for row in facts["trust"][1:]] + ["or more"]
    for row, end in zip(facts["trust"], ends, strict=True):
        share = f"{100 * row['accuracy']:.0f} %"
        lines.append(f"| {row['from']:g} {end} | {row['count']} | {share} |")
    return "\n".join(lines)


def _describe_conditions(name: str) -> str:
    found = read_conditions(name)
    uar = {how: 100 * summarise_predictions(rows)["uar"]["score"] for how, rows in found.items()}
    soft = uar[CLEAN] - uar["level -30 dB"]
    marked = {how + ", heard in training" * (how in LEARNT): rows for how, rows in found.items()}
    return (
        "## In noise and from afar\n\nVoices never heard, their recordings spoilt one way at a "
        f"time (`52_robustness`, {SPOILT[name][1]}). Babble is six actors at once, most of whom "
        "it learnt from; a room's sound decays by 60 dB in the time given.\n\n"
        f"{_list_scores(marked, 'recordings')}\n\nIn noise of a kind that it did not hear, babble "
        f"at 10 dB, it finds {uar['babble 10 dB']:.0f} %; recordings 30 dB softer cost it "
        f"{round(soft)} points."
    )


def _describe_failure(corpus: str, rows: pd.DataFrame) -> str:
    """Say what a corpus is taken for too often."""
    counts = count_confusions(rows)
    surplus = counts.sum(axis=0) - counts.sum(axis=1)
    most = surplus.idxmax()
    said, true = (100 * counts.sum(axis=axis)[most] / len(rows) for axis in (0, 1))
    recalls = 100 * report_classes(rows)["recall"]
    return (
        f"On {CORPORA[corpus].title} it says *{most}* of {said:.0f} % of the utterances, and "
        f"{true:.0f} % are; of *{recalls.idxmin()}* it finds {recalls.min():.0f} %."
    )
