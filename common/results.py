"""The evidence files: predictions and curves as CSV, and one JSON of what they amount to."""

import json
import subprocess
from contextlib import ExitStack, suppress
from dataclasses import asdict, is_dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from common import paths
from common.bootstrap import summarise_predictions
from common.evaluation import METRICS, report_classes
from common.files import NAME_PART, hash_file, write_atomically
from common.predictions import COLUMNS, check_predictions, read_predictions

DESCRIBED = (
    *("key", "folds", "seeds", "num_parameters", "features", "training", "model", "start"),
    *("versions", "backend", "device", "seconds"),
)
SUFFIXES = {  # of the files of an evidence: its predictions, and what lies beside them
    "csv": ".csv",
    "labels": ".csv.xz",
    "history": ".history.csv",
    "model": ".keras",
}
NUM_DECIMALS = 6
SYNTHETIC = (
    "**Synthetic speech.** Every number here is of the sample corpus, spoken by a synthesiser. It "
    "shows that the notebook works and says nothing about people."
)


def save_results(
    run,
    *,
    notebook: str,
    title: str,
    variant: str | None = None,
    ablation: bool = False,
    labels_only: bool = False,
    with_model: bool = False,
) -> Path:
    """Write the evidence of a run below `data/runs/results/`, where publishing takes it from.

    `<notebook>/<corpus>__<protocol>[__<variant>].csv` holds the predictions of test and validation
    rows (`part`), with probabilities to four decimals; `.history.csv` the curves, if there are
    any; `.json`, whose path is returned, what is computed from them, how the run was made, and the
    SHA-256 of the others. Where this very run is published already nothing is written, and what
    an earlier run of other settings left goes.

    `notebook` is its name without suffix, `title` what a person would call the system, such as
    "1-D CNN", and `variant` names a variation within the notebook. An `ablation` is compared
    within its notebook alone and stays out of the tables of all systems. With `labels_only`
    the table is a `.csv.xz` of test predictions without probabilities, some fifty times smaller:
    all scores follow from it, calibration and fusion do not. `with_model` keeps the first model
    at hand beside the evidence, in half precision, for cells that look inside it.

    Raises ValueError if folds were left out, a name would not make a file name, or the
    predictions contradict themselves; OSError if the folder cannot be written to (earlier files
    stay).
    """
    description = run.description
    if not run.complete:
        raise ValueError(
            f"{notebook}: the run leaves out folds of {description['protocol']}; "
            "call cross_validate without only_folds before saving results"
        )
    corpus, protocol = description["corpus"], description["protocol"]
    parts = [corpus, protocol] if variant is None else [corpus, protocol, variant]
    for part in (notebook, *parts):
        if not NAME_PART.fullmatch(part):
            raise ValueError(
                f"{part!r} cannot be part of a file name: use letters and digits, joined by single "
                "'_', '-', '+' or '.'."
            )
    check_predictions(run.predictions, labels_only=labels_only)
    name = f"{notebook}/{'__'.join(parts)}"
    published = paths.RESULTS_DIR / f"{name}.json"
    path = paths.RUNS_DIR / "results" / f"{name}.json"
    if _is_same_run(published, run, title=title, ablation=ablation):
        for suffix in (".json", *SUFFIXES.values()):  # of an earlier run, of other settings
            path.with_suffix(suffix).unlink(missing_ok=True)
        return published
    kinds = ["labels" if labels_only else "csv"]
    kinds += ["history"] * (len(run.history) > 0)
    kinds += ["model"] * (with_model and run.first_model is not None)
    files = {kind: path.with_suffix(SUFFIXES[kind]) for kind in kinds}
    if labels_only:
        rows, columns = run.predictions, COLUMNS
    else:
        both = [run.predictions.assign(part="test"), run.validation.assign(part="validation")]
        rows = pd.concat([part for part in both if len(part)], ignore_index=True)
        columns = (*COLUMNS, "part", *rows.filter(regex="^p_"))
    with ExitStack() as stack:  # what is entered first is put in its place last
        listing = stack.enter_context(write_atomically(path))
        made = {kind: stack.enter_context(write_atomically(file)) for kind, file in files.items()}
        _write_csv(made[kinds[0]], rows[[*columns]], decimals=4)
        if "history" in made:
            _write_csv(made["history"], run.history, decimals=NUM_DECIMALS)
        if "model" in made:
            run.export_model(made["model"])
        content = {
            **{"notebook": notebook, "title": title, "variant": variant},
            **{"corpus": corpus, "protocol": protocol, "ablation": ablation},
            **compute_evidence(read_predictions(made[kinds[0]])),
            **{key: description[key] for key in DESCRIBED},
            "model_of": "{}/{}".format(*run.first_model) if "model" in made else None,
            "commit": _read_commit(),
            "files": {kind: hash_file(file) for kind, file in made.items()},
        }
        text = json.dumps(simplify(content), indent=2, ensure_ascii=False, allow_nan=False)
        listing.write_text(text + "\n", encoding="utf-8")
        path.unlink(missing_ok=True)  # a result counts from when this is there, after all else
    return path


def _is_same_run(published: Path, run, **named) -> bool:
    """Whether published evidence is named so and has this run's key and, as a CSV, predictions."""
    content = read_evidence(published) if published.is_file() else {}
    wanted = named | {name: run.description[name] for name in ("key", "seeds")}
    if wanted != {name: content.get(name) for name in wanted}:
        return False
    theirs, ours = read_predictions(content["csv"]), run.predictions
    keys = ["seed", "fold", "utterance"]
    theirs, ours = (rows.sort_values(keys, ignore_index=True) for rows in (theirs, ours))
    facts, chances = [*COLUMNS], theirs.filter(like="p_").columns
    return (
        len(theirs) == len(ours)
        and theirs[facts].equals(ours[facts].astype(theirs[facts].dtypes))
        and np.allclose(theirs[chances], ours[chances], atol=1e-4)
    )


def _write_csv(path: Path, rows: pd.DataFrame, *, decimals: int) -> None:
    rows.to_csv(path, index=False, float_format=f"%.{decimals}f", lineterminator="\n")


def load_results(
    *,
    corpus: str | None = None,
    protocol: str | None = None,
    notebook: str | None = None,
    ablations: bool = False,
    own: bool = True,
) -> list[dict]:
    """Load the JSON files that match, each with the path of its CSV under the key `csv`.

    They are sorted by notebook, corpus, protocol and variant, one's own after the published ones.
    Results on the sample corpus come only with `corpus="sample"`, so that synthetic speech never
    slips among people's. `ablations` tells whether results saved as such come too; `own`, whether
    those that were made here and are not the published ones do (key `own`). Raises ValueError as
    `read_evidence` does.
    """
    published = _read_folder(paths.RESULTS_DIR, notebook)
    results = {name: {**content, "own": False} for name, content in published.items()}
    if own:
        for name, content in _read_folder(paths.RUNS_DIR / "results", notebook).items():
            if _get_hash(content) != _get_hash(results.get(name, {})):
                results[f"{name} own"] = {**content, "own": True}
    wanted = {"corpus": corpus, "protocol": protocol, "notebook": notebook}
    kept = [
        result
        for result in results.values()
        if (ablations or not result.get("ablation"))
        and (corpus == "sample" or result["corpus"] != "sample")
        and all(value is None or result[key] == value for key, value in wanted.items())
    ]
    keys = ("notebook", "corpus", "protocol", "variant")
    return sorted(kept, key=lambda result: [result[key] or "" for key in keys])


def find_published(key: str) -> list[dict]:
    """Find published evidence of the run with this key, as `load_results` gives it."""
    contents = _read_folder(paths.RESULTS_DIR, None, containing=key).values()
    return [content for content in contents if content.get("key") == key]


def _read_folder(folder: Path, notebook: str | None, *, containing: str = "") -> dict[str, dict]:
    """Read evidence by `<notebook>/<name>`, if its text has `containing`."""
    results = {}
    for path in sorted(folder.glob(f"{notebook or '*'}/*.json")):
        with suppress(FileNotFoundError):  # another process is replacing it
            text = path.read_text(encoding="utf-8")
            try:
                if containing in text:
                    results[f"{path.parent.name}/{path.stem}"] = read_evidence(path)
            except ValueError:
                if path.read_text(encoding="utf-8") == text:
                    raise
    return results


def read_evidence(path: Path) -> dict:
    """Read a JSON of evidence, with the path of its CSV under the key `csv`.

    Raises ValueError if it is not JSON, or a file beside it is missing or of another run.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON ({error}): run its notebook again.") from error
    for kind, kept in content.get("files", {}).items():
        file = path.with_suffix(SUFFIXES.get(kind, f".{kind}"))
        if not file.is_file() or hash_file(file) != kept:
            raise ValueError(
                f"{file} is not the one that {path.name} was written with, or is missing: check "
                "both out again, or delete both and run their notebook"
            )
    kind = "labels" if "labels" in content.get("files", {}) else "csv"
    return {**content, "csv": path.with_suffix(SUFFIXES[kind])}


def _get_hash(content: dict) -> str | None:
    """SHA-256 of the predictions of an evidence."""
    files = content.get("files", {})
    return files.get("labels", files.get("csv"))


def tabulate_results(*, corpus: str, own: bool = True) -> pd.DataFrame:
    """Tabulate the results on one corpus but ablations, a row per notebook, variant and protocol.

    `variant` is "" for none, `num_parameters` missing where a model is no network, and `minutes`
    are of training. Each of `uar`, `wa` and `macro_f1` is the score of all rows; its interval is
    `<metric>_low` to `<metric>_high`, and `<metric>_mean` and `<metric>_std` are of the folds.
    """
    scores = [metric + end for metric in METRICS for end in ("", "_low", "_high", "_mean", "_std")]
    columns = ["notebook", "variant", "title", "own", "protocol", *scores]
    columns += ["num_parameters", "num_seeds", "minutes", "backend"]
    rows = []
    for result in load_results(corpus=corpus, own=own):
        row = {**result, "variant": result["variant"] or "", "num_seeds": len(result["seeds"])}
        row["minutes"] = result["seconds"] / 60
        for metric, values in result["metrics"].items():
            row[metric] = values["score"]
            row |= {f"{metric}_{name}": value for name, value in values.items()}
        rows.append(row)
    return pd.DataFrame(rows, columns=columns).astype({"num_parameters": "Int64"})


def tabulate_transfer(*, own: bool = True) -> pd.DataFrame:
    """Tabulate what was trained on other corpora, a row per result and corpus that it is tested on.

    They are of the protocol "leave_one_corpus_out"; ablations are left out. `num_emotions`,
    `num_speakers` and `uar` with its interval, `uar_low` to `uar_high`, are of the corpus
    `tested_on`. Rows are sorted by both corpora, the best first.
    """
    rows = []
    for result in load_results(protocol="leave_one_corpus_out", own=own):
        predictions = read_predictions(result["csv"])
        corpora = result["corpus"].split("+")
        for tested, part in predictions.groupby(predictions["utterance"].str.partition("/")[0]):
            trained = "+".join(corpus for corpus in corpora if corpus != tested)
            counts = [part[name].nunique() for name in ("true_label", "speaker")]
            uar = summarise_predictions(part)["uar"]
            scores = [uar[name] for name in ("score", "low", "high")]
            facts = [result[name] for name in ("notebook", "title", "own")]
            rows.append([*facts, trained, tested, *counts, *scores])
    columns = ["notebook", "title", "own", "trained_on", "tested_on", "num_emotions"]
    columns += ["num_speakers", "uar", "uar_low", "uar_high"]
    order = ["tested_on", "num_emotions", "trained_on", "uar"]
    table = pd.DataFrame(rows, columns=columns)
    return table.sort_values(order, ascending=[True, True, True, False], ignore_index=True)


def compute_evidence(predictions: pd.DataFrame) -> dict:
    """The part of the JSON that follows from the CSV alone, to `NUM_DECIMALS`."""
    evidence = {
        "num_utterances": predictions["utterance"].nunique(),
        "num_speakers": predictions["speaker"].nunique(),
        "metrics": summarise_predictions(predictions),
        "per_class": report_classes(predictions).to_dict(orient="index"),
    }
    return simplify(evidence, decimals=NUM_DECIMALS)


def _read_commit() -> str | None:
    """The commit checked out here, or None outside a git repository."""
    command = ["git", "-C", str(paths.ROOT), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def simplify(value, *, decimals: int | None = None):
    """Turn a nested description into what JSON holds; NaN and infinity become None."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, dict):
        return {str(key): simplify(item, decimals=decimals) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [simplify(item, decimals=decimals) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return round(value, decimals) if isinstance(value, float) and decimals is not None else value
