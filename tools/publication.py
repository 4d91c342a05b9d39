"""Copy the evidence and the figures of a notebook from the runs to where they are committed."""

import json
from collections.abc import Iterator
from pathlib import Path

from common.files import write_atomically
from common.paths import FIGURES_DIR, RESULTS_DIR, RUNS_DIR
from common.results import SUFFIXES, read_evidence

MAX_MODEL_BYTES = 3_000_000


def publish_notebook(
    name: str,
    *,
    runs: Path = RUNS_DIR,
    results: Path = RESULTS_DIR,
    figures: Path = FIGURES_DIR,
) -> list[str]:
    """Publish what a notebook's runs left, but for the sample corpus, whose speech is synthetic.

    `runs` holds `results/<name>/` and `figures/`, which go to `results` and `figures`. Nothing is
    removed there but a model in whose place a larger one came that is left out. Gives a line for
    each file: new, replaced, unchanged, or left out and why. Raises ValueError, and copies nothing,
    if there is nothing to publish or evidence is not whole.
    """
    evidence = [
        path
        for path in sorted((runs / "results" / name).glob("*.json"))
        if not path.name.startswith((".", "sample__"))
    ]
    pictures = [
        path
        for path in sorted((runs / "figures").glob(f"{name}__*.png"))
        if not path.name.startswith(f"{name}__sample__")
    ]
    if not evidence and not pictures:
        raise ValueError(f"{name}: no evidence and no figures below {runs}: execute it in full")
    copies = [pair for path in evidence for pair in _list_files(path, results / name)]
    copies += [(path, figures / path.name) for path in pictures]
    lines = []
    without_model = set()
    for source, target in copies:
        shown = target.relative_to(results.parent if results in target.parents else figures.parent)
        if source.suffix == ".keras" and source.stat().st_size > MAX_MODEL_BYTES:
            megabytes = source.stat().st_size / 1e6
            lines.append(f"left out   {shown}: {megabytes:.1f} MB, at most 3 MB")
            target.unlink(missing_ok=True)  # an earlier one, which was smaller
            without_model.add(source.with_suffix(".json"))  # which comes after it
        else:
            content = source.read_bytes()
            if source in without_model:
                content = _leave_out_model(content)
            lines.append(f"{_write_file(content, target):10} {shown}")
    return lines


def _list_files(path: Path, folder: Path) -> Iterator[tuple[Path, Path]]:
    """Give source and target of one piece of evidence, the JSON last, once it is known whole."""
    kinds = read_evidence(path).get("files", {})
    if not {"csv", "labels"} & kinds.keys():
        raise ValueError(f"{path} does not name the hash of its CSV: execute its notebook again")
    for file in [*(path.with_suffix(SUFFIXES[kind]) for kind in kinds), path]:
        yield file, folder / file.name


def _leave_out_model(content: bytes) -> bytes:
    """Give the JSON of evidence as it is without a model."""
    facts = json.loads(content) | {"model_of": None}
    del facts["files"]["model"]
    return (json.dumps(facts, indent=2, ensure_ascii=False) + "\n").encode()


def _write_file(content: bytes, target: Path) -> str:
    """Write a file atomically; tell whether it is new, replaced or unchanged."""
    state = "replaced" if target.is_file() else "new"
    if state == "replaced" and target.read_bytes() == content:
        return "unchanged"
    with write_atomically(target) as temporary:
        temporary.write_bytes(content)
    return state
