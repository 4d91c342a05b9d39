"""The evidence files: one CSV of test predictions and one JSON of what they amount to."""

import json
import re
import subprocess
from dataclasses import asdict, is_dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from common import paths
from common.bootstrap import summarise_predictions
from common.evaluation import METRICS, report_classes
from common.files import write_atomically

COLUMNS = ("utterance", "speaker", "fold", "seed", "true_label", "predicted_label", "correct")
DESCRIBED = (
    "seeds",
    "num_parameters",
    "features",
    "training",
    "model",
    "versions",
    "backend",
    "device",
    "seconds",
)
NUM_DECIMALS = 6


def save_results(run, *, notebook: str, variant: str | None = None, ablation: bool = False) -> Path:
    """Write the evidence of a run, replacing what an earlier run of that name left.

    `<notebook>/<corpus>__<protocol>[__<variant>].csv` holds one row per test prediction, with
    probabilities to four decimals. The `.json` beside it holds what is computed from that CSV and
    how the run was made. Both lie below `results/`, or below `data/runs/results/` for the sample
    corpus, whose numbers are of synthetic speech.

    Parameters
    ----------
    run
        `cross_validation.Run`: its `predictions` and its `description` are written.
    notebook
        Name of the notebook without suffix, such as "11_cnn".
    variant
        Name of a variation within the notebook, or None.
    ablation
        Whether it is there to be compared within its notebook alone, and stays out of the tables
        of all systems.

    Returns
    -------
    pathlib.Path
        The JSON file; the CSV has the same name with the suffix `.csv`.

    Raises
    ------
    ValueError
        If folds were left out, a name would not make a file name, the description lacks an entry,
        or the predictions contradict themselves.
    OSError
        If the folder cannot be written to. Earlier files stay.
    """
    if not run.complete:
        raise ValueError(
            f"{notebook}: the run leaves out folds of {run.description['protocol']}; "
            "call cross_validate without only_folds before saving results"
        )
    description = run.description
    missing = [key for key in ("corpus", "protocol", *DESCRIBED) if key not in description]
    if missing:
        raise ValueError(f"The description of the run lacks {missing}: add them where it is made.")
    corpus, protocol = description["corpus"], description["protocol"]
    parts = [corpus, protocol] if variant is None else [corpus, protocol, variant]
    for part in (notebook, *parts):
        if not re.fullmatch(r"[A-Za-z0-9]+([_+.-][A-Za-z0-9]+)*", part):
            raise ValueError(
                f"{part!r} cannot be part of a file name: use letters and digits, joined by single "
                "'_', '-', '+' or '.'."
            )
    _check_predictions(run.predictions)
    path = _find_folder(corpus) / notebook / ("__".join(parts) + ".json")

    csv = path.with_suffix(".csv")
    probabilities = [name for name in run.predictions if name.startswith("p_")]
    with write_atomically(csv) as temporary:
        run.predictions[[*COLUMNS, *probabilities]].to_csv(
            temporary, index=False, float_format="%.4f", lineterminator="\n"
        )
    content = {
        "notebook": notebook,
        "variant": variant,
        "corpus": corpus,
        "protocol": protocol,
        "ablation": ablation,
        **_compute_evidence(read_predictions(csv)),
        **{key: description[key] for key in DESCRIBED},
        "commit": _read_commit(),
    }
    text = json.dumps(_simplify(content), indent=2, ensure_ascii=False, allow_nan=False)
    with write_atomically(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    return path


def read_predictions(csv: str | Path) -> pd.DataFrame:
    """Read a predictions table as it was: names as text ("01" stays "01"), `correct` as bool.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not a predictions table.
    """
    csv = Path(csv)
    if not csv.is_file():
        raise FileNotFoundError(f"No predictions at {csv}: run the notebook that writes them.")
    text = dict.fromkeys(("utterance", "speaker", "true_label", "predicted_label"), str)
    numbers = {"fold": "int64", "seed": "int64", "correct": bool}
    try:
        predictions = pd.read_csv(csv, dtype=text | numbers, keep_default_na=False)
        _check_predictions(predictions)
    except ValueError as error:
        raise ValueError(
            f"{csv} is not a predictions table ({error}): run its notebook again."
        ) from error
    return predictions


def load_results(
    *,
    corpus: str | None = None,
    protocol: str | None = None,
    notebook: str | None = None,
    ablations: bool = False,
) -> list[dict]:
    """Load the JSON files that match, each with the path of its CSV under the key `csv`.

    Parameters
    ----------
    corpus, protocol, notebook
        Keep only these; None keeps all. Results on the sample corpus come only with
        `corpus="sample"`, so that synthetic speech never slips among people's.
    ablations
        Whether results that were saved as ablations come too.

    Returns
    -------
    list of dict
        Sorted by notebook, corpus, protocol and variant; empty if nothing matches.

    Raises
    ------
    ValueError
        If a file is not JSON.
    """
    results = []
    for path in _find_folder(corpus).glob("*/*.json"):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} is not JSON ({error}): run its notebook again.") from error
        wanted = {"corpus": corpus, "protocol": protocol, "notebook": notebook}
        if content.get("ablation") and not ablations:
            continue
        if all(value is None or content[key] == value for key, value in wanted.items()):
            results.append({**content, "csv": path.with_suffix(".csv")})
    keys = ("notebook", "corpus", "protocol", "variant")
    return sorted(results, key=lambda result: [result[key] or "" for key in keys])


def tabulate_results(*, corpus: str) -> pd.DataFrame:
    """Tabulate the results on one corpus but ablations, a row per notebook, variant and protocol.

    Returns
    -------
    pandas.DataFrame
        `notebook`, `variant` ("" for none), `protocol`; for each of `uar`, `wa` and `macro_f1`
        the mean under its own name and `<metric>_std`, `<metric>_low`, `<metric>_high`;
        `num_parameters` (missing where a model is no network), `num_seeds`, and `minutes` of
        training. Empty without results.
    """
    columns = ["notebook", "variant", "protocol"]
    columns += [metric + suffix for metric in METRICS for suffix in ("", "_std", "_low", "_high")]
    rows = []
    for result in load_results(corpus=corpus):
        row = {"notebook": result["notebook"], "variant": result["variant"] or ""}
        row |= {"protocol": result["protocol"], "num_parameters": result["num_parameters"]}
        row |= {"num_seeds": len(result["seeds"]), "minutes": result["seconds"] / 60}
        for metric, values in result["metrics"].items():
            row[metric] = values["mean"]
            row |= {f"{metric}_{name}": values[name] for name in ("std", "low", "high")}
        rows.append(row)
    table = pd.DataFrame(rows, columns=[*columns, "num_parameters", "num_seeds", "minutes"])
    return table.astype({"num_parameters": "Int64"})


def _compute_evidence(predictions: pd.DataFrame) -> dict:
    """The part of the JSON that follows from the CSV alone, to `NUM_DECIMALS`."""
    evidence = {
        "num_utterances": predictions["utterance"].nunique(),
        "num_speakers": predictions["speaker"].nunique(),
        "metrics": summarise_predictions(predictions),
        "per_class": report_classes(predictions).to_dict(orient="index"),
    }
    return _simplify(evidence, decimals=NUM_DECIMALS)


def _find_folder(corpus: str | None) -> Path:
    return paths.RUNS_DIR / "results" if corpus == "sample" else paths.RESULTS_DIR


def _check_predictions(predictions: pd.DataFrame) -> None:
    """Raise ValueError where columns are missing or contradict each other."""
    missing = [name for name in COLUMNS if name not in predictions]
    probabilities = predictions.filter(regex="^p_")
    if missing or probabilities.empty:
        raise ValueError(f"the predictions table lacks {missing or 'probabilities or rows'}")
    hits = predictions["true_label"] == predictions["predicted_label"]
    if (hits != predictions["correct"]).any():
        row = predictions[hits != predictions["correct"]].iloc[0]
        raise ValueError(f"{row['utterance']!r}: 'correct' contradicts the two labels")
    position = probabilities.columns.get_indexer("p_" + predictions["predicted_label"])
    if (position < 0).any():
        unknown = predictions["predicted_label"][position < 0].iloc[0]
        raise ValueError(f"predicted label {unknown!r} has no column 'p_{unknown}'")
    values = probabilities.to_numpy(dtype=float)
    chosen = values[np.arange(len(values)), position]
    doubtful = ~(chosen >= values.max(axis=1) - 1e-4)
    if doubtful.any():
        utterance = predictions["utterance"][doubtful].iloc[0]
        raise ValueError(f"{utterance!r}: the predicted label is not the most probable one")


def _read_commit() -> str | None:
    """The commit checked out here, or None outside a git repository."""
    command = ["git", "-C", str(paths.ROOT), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _simplify(value, *, decimals: int | None = None):
    """Turn a nested description into what JSON holds; NaN and infinity become None."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, dict):
        return {str(key): _simplify(item, decimals=decimals) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_simplify(item, decimals=decimals) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        if not np.isfinite(value):
            return None
        return value if decimals is None else round(value, decimals)
    return value
