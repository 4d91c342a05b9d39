"""Keep the notebooks alike, check them, and execute them.

python -m tools.notebooks sync                    rewrite generated cells and pages
python -m tools.notebooks check                   list what is wrong, with the remedy
python -m tools.notebooks execute 01 90 60        run copies on the sample corpus
python -m tools.notebooks execute all --in-place  the full run whose outputs are committed
python -m tools.notebooks publish 11 60           commit-ready evidence and figures of full runs
"""

import argparse
import ast
import sys
from contextlib import suppress
from copy import deepcopy
from pathlib import Path

import nbformat

from common.files import write_atomically
from common.paths import NOTEBOOKS_DIR, ROOT, RUNS_DIR
from common.results import load_results
from common.splits import PROTOCOLS
from tools.checking import check_all
from tools.execution import EXECUTED_DIR, OWN, execute_all, shorten
from tools.generation import (
    list_notebooks,
    read_parameters,
    read_repository,
    sync_notebook,
)
from tools.pages import describe_results, sync_pages
from tools.publication import publish_notebook


def select_notebooks(names: list[str], *, folder: Path = NOTEBOOKS_DIR) -> list[Path]:
    """Find notebooks by name or by number ("11"); "all" or no name gives all of them.

    Raises ValueError if nothing, or more than one notebook, goes by a name.
    """
    paths = list_notebooks(folder)
    if not names or names == ["all"]:
        return paths
    selected = []
    for name in names:
        stem = Path(name).stem
        found = [path for path in paths if stem == path.stem or stem == path.stem.split("_")[0]]
        if len(found) != 1:
            raise ValueError(f"no notebook is called {name!r}: {[path.stem for path in paths]}")
        selected += found
    return selected


def parse_parameter(text: str) -> tuple[str, object]:
    """Turn "epochs=3", "seeds=[0, 1]" or "corpus=savee" into name and value.

    `folder`, `csv`, `recordings` and `enrolment` are paths from here; notebooks run in another
    folder.
    """
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is not name=value")
    if name in OWN and value != "None":
        return name, str(Path(value).expanduser().absolute())
    with suppress(ValueError, SyntaxError):
        value = ast.literal_eval(value)
    if name in ("recordings", "enrolment") and value is not None:
        clips = value if isinstance(value, list) else [value]
        return name, [str(Path(clip).expanduser().absolute()) for clip in clips]
    return name, value


def sync_all(root: Path = ROOT) -> list[Path]:
    """Rewrite the generated cells and sections; give the files that changed."""
    repository = read_repository()
    changed = []
    for path in list_notebooks(root / "notebooks"):
        notebook = nbformat.read(path, as_version=4)
        synced = sync_notebook(deepcopy(notebook), name=path.stem, repository=repository)
        if synced != notebook:
            with write_atomically(path) as temporary:
                nbformat.write(synced, temporary)
            changed.append(path)
    return changed + sync_pages(root)


def execute(options: argparse.Namespace) -> int:
    """Run the notebooks asked for, then say what came out and where it lies."""
    paths = select_notebooks(options.names)
    parameters = dict(options.parameters)
    named = {str(name) for name in (options.corpus, parameters.pop("corpus", None)) if name}
    if len(named) > 1:
        raise ValueError(f"two corpora, {' and '.join(sorted(named))}: name one")
    usual = "my_corpus" if {*OWN} & {*parameters} else None if options.in_place else "sample"
    corpus = named.pop() if named else usual
    failed = execute_all(paths, corpus=corpus, parameters=parameters, in_place=options.in_place)
    notebooks = [nbformat.read(path, as_version=4) for path in paths]
    corpora = {corpus} if corpus else {read_parameters(nb)["corpus"] for nb in notebooks}
    for name in sorted(corpora):
        results = describe_results(name, own=True)
        table = "none yet" if results.empty else results.to_string(index=False)
        print(f"\nResults on {name}:\n{table}")
    print(f"\nExecuted notebooks and pages: {shorten(EXECUTED_DIR)}")
    print(f"Figures: {shorten(RUNS_DIR / 'figures')}")
    if corpus == "sample":
        print(*describe_sample([path.stem for path in paths if path not in failed]), sep="\n")
    return 1 if failed else 0


def describe_sample(names: list[str]) -> list[str]:
    """Say how well the best of these notebooks did on the sample corpus, and name its picture."""
    lines = []
    independent = [name for name, facts in PROTOCOLS.items() if facts.speaker_independent]
    unheard = [
        result
        for result in load_results(corpus="sample")
        if result["notebook"] in names and result["protocol"] in independent
    ]
    if unheard:
        best = max(unheard, key=lambda result: result["metrics"]["uar"]["score"])
        uar, chance = best["metrics"]["uar"]["score"], 1 / len(best["per_class"])
        lines.append(
            f"\nIn voices that it had never heard, '{best['title']}' recognised {100 * uar:.0f} % "
            f"of the emotions; guessing would find {100 * chance:.0f} %."
        )
        picture = RUNS_DIR / "figures" / f"{best['notebook']}__sample__confusion.png"
        if picture.is_file():
            lines.append(f"Which it took for which: {shorten(picture)}")
    lines.append(
        "These voices are synthetic and say nothing about people. For what does, open 00_tour "
        "with 'make lab'."
    )
    return lines


def publish(names: list[str]) -> list[Path]:
    """Publish the evidence and figures of notebooks, and write the generated pages anew.

    Raises ValueError at the end, when the others are published, if one that is named has nothing.
    """
    problems = []
    for path in select_notebooks(names):
        print(f"{path.stem}:")
        try:
            lines = publish_notebook(path.stem)
        except ValueError as error:
            lines = [str(error)]
            problems += lines
        print(*(f"  {line}" for line in lines), sep="\n")
    changed = sync_pages()
    if problems and names != ["all"]:
        raise ValueError("; ".join(problems))
    return changed


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; give the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.notebooks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("sync", help="rewrite the generated cells and pages")
    commands.add_parser("check", help="list what is wrong, with the remedy")
    run = commands.add_parser("execute", help="run notebooks")
    run.add_argument("names", nargs="*", help="names or numbers; all of them when left out")
    run.add_argument(
        "--corpus",
        help="sample unless given, my_corpus where folder or csv are; others run in full",
    )
    run.add_argument("--parameters", nargs="+", default=[], type=parse_parameter, metavar="K=V")
    run.add_argument(
        "--in-place", action="store_true", help="keep a run with the committed parameters"
    )
    publishing = commands.add_parser("publish", help="copy evidence and figures of full runs")
    publishing.add_argument("names", nargs="+", help="names or numbers, or all")
    options = parser.parse_args(arguments)
    if options.command == "execute":
        if options.in_place and (options.corpus == "sample" or options.parameters):
            parser.error(
                "--in-place keeps full runs as committed: edit the parameters cell instead"
            )
        try:
            return execute(options)
        except ValueError as error:
            parser.error(str(error))
    if options.command == "check":
        defects, notes = check_all()
        print(*(defects or ["The notebooks and the generated pages are in order."]), sep="\n")
        if notes:
            print("\nBefore your own notebooks join the collection:", *notes, sep="\n")
        return 1 if defects else 0
    try:
        changed = publish(options.names) if options.command == "publish" else sync_all()
    except ValueError as error:
        parser.error(str(error))
    for path in changed:
        print(f"wrote {shorten(path)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
