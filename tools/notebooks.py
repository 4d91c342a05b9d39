"""Keep the notebooks alike, check them, and execute them.

python -m tools.notebooks sync                    rewrite generated cells and README sections
python -m tools.notebooks check                   list what is wrong, with the remedy
python -m tools.notebooks execute 01 90 60        run copies on the sample corpus
python -m tools.notebooks execute all --in-place  the full run whose outputs are committed
python -m tools.notebooks publish 11 60           commit-ready evidence and figures of full runs
"""

import argparse
import ast
import sys
from copy import deepcopy
from pathlib import Path

import nbformat

from common.files import write_atomically
from common.paths import NOTEBOOKS_DIR, RUNS_DIR
from tools.checking import check_all
from tools.execution import EXECUTED_DIR, execute_all, shorten
from tools.generation import (
    README,
    describe_results,
    list_notebooks,
    read_parameters,
    read_repository,
    sync_notebook,
    sync_readme,
)
from tools.publication import publish_notebook


def select_notebooks(names: list[str], *, folder: Path = NOTEBOOKS_DIR) -> list[Path]:
    """Find notebooks by name or by number ("11"); "all" or no name gives all of them.

    Raises
    ------
    ValueError
        If nothing, or more than one notebook, goes by a name.
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
    """Turn "epochs=3", "seeds=[0, 1]" or "corpus=savee" into name and value."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is not name=value")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def sync_all(*, folder: Path = NOTEBOOKS_DIR, readme: Path = README) -> list[Path]:
    """Rewrite the generated cells and sections; give the files that changed."""
    repository = read_repository()
    changed = []
    for path in list_notebooks(folder):
        notebook = nbformat.read(path, as_version=4)
        synced = sync_notebook(deepcopy(notebook), name=path.stem, repository=repository)
        if synced != notebook:
            with write_atomically(path) as temporary:
                nbformat.write(synced, temporary)
            changed.append(path)
    return changed + write_readme(folder=folder, readme=readme)


def write_readme(*, folder: Path = NOTEBOOKS_DIR, readme: Path = README) -> list[Path]:
    """Rewrite the README's generated sections; give the README if it changed."""
    text = readme.read_text(encoding="utf-8")
    synced = sync_readme(text, repository=read_repository(), folder=folder)
    if synced == text:
        return []
    with write_atomically(readme) as temporary:
        temporary.write_text(synced, encoding="utf-8")
    return [readme]


def execute(options: argparse.Namespace) -> int:
    """Run the notebooks asked for, then say what came out and where it lies."""
    paths = select_notebooks(options.names)
    corpus = options.corpus or (None if options.in_place else "sample")
    num_failures = execute_all(
        paths, corpus=corpus, parameters=dict(options.parameters), in_place=options.in_place
    )
    notebooks = [nbformat.read(path, as_version=4) for path in paths]
    corpora = {corpus} if corpus else {read_parameters(nb)["corpus"] for nb in notebooks}
    for name in sorted(corpora):
        results = describe_results(name, own=True)
        table = "none yet" if results.empty else results.to_string(index=False)
        print(f"\nResults on {name}:\n{table}")
    print(f"\nExecuted notebooks and pages: {shorten(EXECUTED_DIR)}")
    print(f"Figures: {shorten(RUNS_DIR / 'figures')}")
    if corpus == "sample":
        print(
            "The sample corpus is synthetic speech: its numbers show that the chain works and say "
            "nothing about people."
        )
    return 1 if num_failures else 0


def publish(names: list[str]) -> list[Path]:
    """Publish the evidence and figures of notebooks, and write the README's tables anew."""
    for path in select_notebooks(names):
        print(f"{path.stem}:")
        for line in publish_notebook(path.stem):
            print(f"  {line}")
    return write_readme()


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; give the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.notebooks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("sync", help="rewrite the generated cells and README sections")
    commands.add_parser("check", help="list what is wrong, with the remedy")
    run = commands.add_parser("execute", help="run notebooks")
    run.add_argument("names", nargs="*", help="names or numbers; all of them when left out")
    run.add_argument("--corpus", help="sample unless given; other corpora run in full")
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
        print(*(defects or ["The notebooks and the README are in order."]), sep="\n")
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
