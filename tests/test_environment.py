"""Other ways to install and to execute give what `make` gives."""

import json
import re
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from common.paths import NOTEBOOKS_DIR, ROOT
from common.results import load_results
from tools.generation import KERNELSPEC, list_notebooks

LISTS = sorted(ROOT.glob("requirements*.txt"))
NETWORKS = (
    *(("10_mlp_functionals", None), ("11_cnn", None), ("11_cnn", "2d"), ("12_bilstm", None)),
    *(("13_cnn_lstm", None), ("23_byol_s_transfer", None), ("24_whisper_transfer", None)),
    *(("30_stacked_cnn_lstm", None), ("31_stacked_cnn_attention_lstm", None)),
    *(("32_parallel_cnn_transformer", None), ("33_parallel_cnn_attention_lstm", None)),
    ("34_transformer", None),
)
# Utterances and folds, as in the table of docs/cluster.md.
GRID = {
    "RAVDESS": (1440, 5),
    "SAVEE": (480, 4),
    "TESS": (2800, 2),
    "Emo-DB": (535, 10),
    "CREMA-D": (7442, 5),
}


def read_requirements(path):
    """Requirements by name, comments left out."""
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    found = [Requirement(line) for line in lines if line]
    return {canonicalize_name(requirement.name): requirement for requirement in found}


def test_conda_installs_what_the_lock_has():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    (listed,) = (part["pip"] for part in environment["dependencies"] if isinstance(part, dict))
    assert listed == ["-r requirements.lock"]
    (python,) = (part for part in environment["dependencies"] if str(part).startswith("python="))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert Requirement(f"python{project['requires-python']}").specifier.contains(python[7:])
    locked = read_requirements(ROOT / "requirements.lock")
    wanted = read_requirements(ROOT / "requirements.txt")
    assert wanted.keys() <= locked.keys()
    for name, requirement in wanted.items():
        (pin,) = locked[name].specifier
        assert pin.operator == "==" and requirement.specifier.contains(pin.version), name


def test_use_alone_needs_a_part_of_what_training_needs():
    wanted = read_requirements(ROOT / "requirements.txt")
    few = read_requirements(ROOT / "requirements-use.txt")
    assert few == {name: wanted[name] for name in few} and len(few) < len(wanted) / 3
    assert f"{len(few)} packages do" in (ROOT / "docs/recordings.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.stem)
def test_a_list_of_packages_is_one_that_pip_reads(path):
    assert read_requirements(path)


@pytest.mark.parametrize("path", list_notebooks(NOTEBOOKS_DIR), ids=lambda path: path.stem)
def test_another_environment_can_execute_a_notebook(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert notebook["metadata"]["kernelspec"] == KERNELSPEC
    tags = [cell["metadata"].get("tags", []) for cell in notebook["cells"]]
    assert sum("parameters" in tag for tag in tags) == 1  # where papermill puts its own
    assert notebook["nbformat"] == 4


def test_the_cost_of_the_grid_follows_from_the_evidence():
    evidence = load_results(corpus="ravdess", protocol="speaker_5fold", own=False)
    found = {(result["notebook"], result["variant"]): result for result in evidence}
    seconds = sum(
        found[network]["seconds"]
        / len(found[network]["folds"])
        * max(map(int, re.findall(r"(\d+) core", found[network]["device"])))
        for network in NETWORKS
    )
    text = (ROOT / "docs/cluster.md").read_text(encoding="utf-8")
    assert f"{seconds:,.0f} seconds" in text
    total = 0
    for corpus, (num_utterances, num_folds) in GRID.items():
        share = num_utterances * (num_folds - 1) / num_folds / (1440 * 4 / 5)
        hours = seconds * share * num_folds * 5 / 3600
        num_tasks = len(NETWORKS) * 5 * num_folds
        (row,) = (line for line in text.splitlines() if line.startswith(f"| {corpus} |"))
        assert row.endswith(f"| {num_folds} | {num_tasks} | {hours:.0f} |")
        total += hours
    assert f"| {total:.0f} |" in text
    gpus = [
        r["device"] for r in load_results(ablations=True, own=False) if "CPU" not in r["device"]
    ]
    assert ("GPU-hours are unknown" in text) == (not gpus)
