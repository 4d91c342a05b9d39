"""Late fusion: one prediction from the probabilities that several systems gave."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.special import log_softmax

from common import paths
from common.backend import join_names
from common.emotions import order_emotions
from common.files import digest
from common.predictions import read_predictions, tabulate_predictions
from common.runs import Run

SMALLEST = 1e-4  # evidence keeps four decimals


def stack_members(members: Mapping[str, pd.DataFrame]) -> tuple[np.ndarray, pd.DataFrame]:
    """Align predictions tables of the same test: log probabilities, and the rows they are of.

    Of a system with several seeds the first is taken, as the others have one. Returned are
    (utterances, systems, emotions), float64, and the rows of the first system. Raises ValueError
    without members, or if they test other utterances, in other folds or of other emotions.
    """
    if not members:
        raise ValueError("no systems to fuse; give one predictions table at least")
    tables = {}
    for name, table in members.items():
        first = table[table["seed"] == table["seed"].iloc[0]]
        tables[name] = first.sort_values("utterance", ignore_index=True)
    leader, rows = next(iter(tables.items()))
    labels = [f"p_{emotion}" for emotion in order_emotions(rows["true_label"])]
    for name, table in tables.items():
        same = ["utterance", "fold", "true_label"]
        if not table[same].equals(rows[same]) or set(table.filter(like="p_")) != set(labels):
            raise ValueError(
                f"{name} does not test what {leader} tests: take results of one corpus and one "
                "protocol, whose folds are published ones, with their probabilities"
            )
    stacked = np.stack([table[labels].to_numpy(float) for table in tables.values()], axis=1)
    return np.log(np.maximum(stacked, SMALLEST)), rows


def fit_weights(logs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Weights of the systems, none negative, that make the true emotions most probable.

    A log-linear opinion pool (Heskes, NIPS 1997): probabilities are proportional to the product
    of the systems' own, each to the power of its weight. The sum of the weights is the inverse of
    a temperature (Guo et al., ICML 2017). `logs` (utterances, systems, emotions), `targets`
    numbers of emotions (utterances,) -> (systems,).
    """
    rows = np.arange(len(targets))

    def measure(weights: np.ndarray) -> tuple[float, np.ndarray]:
        scores = log_softmax(np.einsum("nse,s->ne", logs, weights), axis=1)
        expected = np.einsum("nse,ne->s", logs, np.exp(scores))
        gained = logs[rows, :, targets].sum(axis=0)
        return -scores[rows, targets].mean(), (expected - gained) / len(targets)

    start = np.full(logs.shape[1], 1 / logs.shape[1])
    return minimize(measure, start, jac=True, bounds=[(0, None)] * len(start)).x


def fuse(
    members: Mapping[str, pd.DataFrame], *, fitted: bool = False
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Fuse predictions tables of the same test: predictions, and weights (fold by system).

    With equal weights it is the mean of the logarithms. `fitted` weights of a fold are those of
    `fit_weights` on the other folds, whose speakers it does not test. What they were fitted to was
    predicted by models that heard this fold's speakers: a handful of numbers is all that could
    carry from there.
    """
    logs, rows = stack_members(members)
    emotions = order_emotions(rows["true_label"])
    targets = rows["true_label"].map(emotions.index).to_numpy()
    weights = {}
    fused = np.empty((len(rows), len(emotions)))
    for fold in np.unique(rows["fold"]):
        tested = (rows["fold"] == fold).to_numpy()
        weights[fold] = np.full(len(members), 1 / len(members))
        if fitted:
            weights[fold] = fit_weights(logs[~tested], targets[~tested])
        scores = np.einsum("nse,s->ne", logs[tested], weights[fold])
        fused[tested] = np.exp(log_softmax(scores, axis=1))
    table = rows.rename(columns={"true_label": "emotion"})
    found = tabulate_predictions(table, table.index, fused, fold=0, seed=0)
    found = found.assign(fold=rows["fold"])
    return found, pd.DataFrame(weights, index=pd.Index([*members], name="system")).T


def fuse_results(results: Sequence[dict], *, fitted: bool = False) -> tuple[Run, pd.DataFrame]:
    """Fuse results as `load_results` gives them: a run to save and to report, and the weights."""
    titles = [result["title"] for result in results]
    if twice := sorted({title for title in titles if titles.count(title) > 1}):
        raise ValueError(f"two results are called {twice[0]!r}: fuse one of them")
    members = {result["title"]: read_predictions(result["csv"]) for result in results}
    predictions, weights = fuse(members, fitted=fitted)
    first = results[0]
    settings = {"members": [result["key"] for result in results], "fitted": fitted}
    names = {"corpus": first["corpus"], "protocol": first["protocol"]}
    sizes = [result["num_parameters"] for result in results]
    folds = {f"0/{fold}": first["folds"][f"{first['seeds'][0]}/{fold}"] for fold in weights.index}
    description = {
        **names,
        "key": digest([names, settings]),
        "folds": folds,
        "seeds": [0],
        "num_parameters": None if None in sizes else sum(sizes),
        "features": {"members": [*members]},
        "training": settings,
        "model": "log-linear opinion pool",
        "start": None,
        "versions": first["versions"],
        "backend": join_names(result["backend"] for result in results),
        "device": join_names(result["device"] for result in results),
        "seconds": round(sum(result["seconds"] for result in results), 1),
    }
    folder, nothing = paths.RUNS_DIR / description["key"], pd.DataFrame()
    sources = dict.fromkeys([(0, int(fold)) for fold in weights.index], "published")
    run = Run(predictions, nothing, nothing, description, folder, {}, sources, None, True)
    return run, weights
