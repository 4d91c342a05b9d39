"""Build the site: every notebook as a page, a gallery, sortable results, guides, reference.

python -m tools.site build/site

No notebook is executed. ONNX Runtime Web, for the demo in a browser, is fetched once; where it
cannot be, the site has no demo. Sphinx reads what is written here into a folder beside the site,
`<site>-source`, with its settings from `docs/site`.
"""

import argparse
import html
import os
import pkgutil
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pandas as pd
import pypandoc
from nbformat import NotebookNode
from PIL import Image

from common.paths import FIGURES_DIR, NOTEBOOKS_DIR, ROOT
from common.results import load_results
from tools.generation import list_collection, read_repository
from tools.pages import describe_notebook, tabulate_published

SETTINGS = ROOT / "docs" / "site"
FAMILIES = {
    "0": "Begin here: data and features",
    "1": "First networks",
    "2": "Pretrained encoders",
    "3": "Larger networks from scratch",
    "4": "What helps",
    "5": "What lasts: other corpora, leakage, robustness",
    "6": "Side by side",
    "7": "Your voice, your corpus",
    "9": "Write your own",
}
# Of a notebook's figures the first kind that there is stands in the gallery.
THUMBNAILS = (
    *("fall", "examples", "log_mel", "masks", "waterfall", "matrix", "augmentations", "optimism"),
    *("coverage", "weights", "voices", "counts", "layers", "attention", "windows", "recall"),
    "confusion",
)
THUMBNAIL_PIXELS = (640, 400)
FIRST = "which_notebook"  # of the guides
NUMBER_CELL = re.compile(r"<td>(\d[^<a-zA-Z]*)</td>")  # "77.8 [72.0, 82.6]", too
NOTEBOOK_NAME = re.compile(r"(?<![\[`\w])`(?P<name>\d\d_\w+)`(?!\])")
NOTEBOOK_LINK = re.compile(r"\]\((?:\.\./)?(?:notebooks/)?(?P<name>\d\d_\w+)\.ipynb\)")
# What a page of the repository links to, and where that stands on the site.
LINKS = {
    "results/README.md": "results",
    "notebooks/README.md": "index",
    "data/README.md": "corpora",
}


def build_site(
    out: Path, *, notebooks: Iterable[Path] | None = None, modules: Iterable[str] | None = None
) -> None:
    """Build the site from what is committed.

    Its folder `out` is replaced, and its sources are left in `<out>-source`. Pages are made of
    `notebooks`, the reference of `modules` of `common`, such as "common.audio"; of all unless they
    are given. Raises RuntimeError if Sphinx fails or warns of anything, in its own words, and if
    links inside the site are dead or pictures have no text, naming all.
    """
    out = out.resolve()
    source = out.with_name(f"{out.name}-source")
    for folder in (out, source):
        shutil.rmtree(folder, ignore_errors=True)
    if notebooks is None:
        notebooks = list_collection()
    write_sources(source, notebooks=list(notebooks), modules=list(modules or list_modules()))
    pandoc = Path(pypandoc.get_pandoc_path()).parent  # nbsphinx looks for it on the path
    environment = {
        **os.environ,
        "PATH": f"{pandoc}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONPATH": str(ROOT),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "MPLBACKEND": "Agg",
    }
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-W", "--keep-going", "-q"]
    done = subprocess.run(
        [*command, source, out], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"Sphinx cannot build {source}:\n{done.stderr.strip()}")
    if faults := find_faults(out):
        raise RuntimeError(f"{len(faults)} faults in {out}:\n" + "\n".join(faults))


class Page(HTMLParser):
    """The links, anchors and pictures of an HTML page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links, self.anchors, self.pictures = [], set(), []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what a tag adds."""
        found = dict(attrs)
        self.anchors.update(filter(None, (found.get("id"), found.get("name"))))
        self.links += [found[name] for name in ("href", "src") if found.get(name)]
        if tag == "img":
            self.pictures.append((found.get("src"), found.get("alt")))


def find_faults(folder: Path) -> list[str]:
    """List links inside a site that lead to no file or anchor, and pictures without a text."""
    pages = {path: Page(path) for path in sorted(folder.rglob("*.html"))}
    faults = []
    for path, page in pages.items():
        name = path.relative_to(folder)
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchors = pages[target].anchors if target in pages else {unquote(parts.fragment)}
            if not target.is_file() or (parts.fragment and unquote(parts.fragment) not in anchors):
                faults.append(f"{name}: {link} leads nowhere")
        for picture, text in page.pictures:
            if not text or text == picture or text.endswith(".png"):
                faults.append(f"{name}: {picture[:80]} has no text")
    return faults


def list_modules() -> list[str]:
    """List the modules of `common`, sub-packages included."""
    found = pkgutil.walk_packages([str(ROOT / "common")], "common.")
    return sorted(module.name for module in found)


def write_sources(folder: Path, *, notebooks: list[Path], modules: list[str]) -> None:
    """Write what Sphinx reads: settings, pages, notebooks, thumbnails."""
    shutil.copytree(SETTINGS, folder)
    for name in ("notebooks", "guides", "reference", "_static/thumbnails", "_extra"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    shutil.copy(FIGURES_DIR / "00_tour__ravdess__fall.png", folder / "_static/fall.png")
    published, cards = load_results(own=False, ablations=True), {}
    names = {path.stem for path in notebooks}
    for path in notebooks:
        notebook = nbformat.read(path, as_version=4)
        facts = describe_notebook(notebook, published, name=path.stem)
        save_thumbnail(path.stem, folder / f"_static/thumbnails/{path.stem}.png")
        family = cards.setdefault(FAMILIES.get(path.stem[0], "More"), [])
        family.append(format_card(path.stem, facts))
        nbformat.write(prepare_notebook(notebook, names), folder / f"notebooks/{path.name}")
    guides = sorted((ROOT / "docs").glob("*.md"), key=lambda path: (path.stem != FIRST, path))
    for path in guides:
        guide = convert_markdown(path.read_text(encoding="utf-8"), names, depth=1)
        (folder / f"guides/{path.stem}.rst").write_text(guide, "utf-8")
    corpora = (ROOT / "data/README.md").read_text(encoding="utf-8")
    (folder / "corpora.rst").write_text(convert_markdown(corpora, names), "utf-8")
    (folder / "results.rst").write_text(format_results_page(names), "utf-8")
    for module in modules:
        (folder / f"reference/{module}.rst").write_text(format_module(module), "utf-8")
    index = format_toctree("Reference", modules)
    (folder / "reference/index.rst").write_text(index, "utf-8")
    demo = make_demo(folder / "_extra/demo")
    pages = [f"guides/{path.stem}" for path in guides]
    index = format_index(cards, pages, names, demo=demo)
    (folder / "index.rst").write_text(index, "utf-8")


def prepare_notebook(notebook: NotebookNode, names: set[str]) -> NotebookNode:
    """Hide the set-up cell and link other notebooks where the text names them, in place."""
    for cell in notebook.cells:
        if "setup" in cell.metadata.get("tags", []):
            cell.metadata["nbsphinx"] = "hidden"
        if cell.cell_type == "markdown":
            cell.source = NOTEBOOK_NAME.sub(
                lambda match: (
                    f"[{match['name']}]({match['name']}.ipynb)"
                    if match["name"] in names
                    else match[0]
                ),
                cell.source,
            )
    return notebook


def convert_markdown(text: str, names: set[str], *, depth: int = 0) -> str:
    """Convert a page of the repository to reStructuredText, its links to those of the site.

    `depth` is the number of folders that the page lies in. Links to files that are no pages of
    the site go to the repository.
    """
    up = "../" * depth
    text = re.sub(r"<!--.*?-->\n*", "", text, flags=re.DOTALL)
    text = NOTEBOOK_NAME.sub(r"[\g<name>](notebooks/\g<name>.ipynb)", text)
    text = re.sub(r"\[`([^`\]]+)`\]\(", r"[\1](", text)  # a link holds no code there
    text = NOTEBOOK_LINK.sub(
        lambda match: (
            f"]({up}notebooks/{match['name']}.html)"
            if match["name"] in names
            else f"]({read_repository()}/blob/main/notebooks/{match['name']}.ipynb)"
        ),
        text,
    )
    for path, page in LINKS.items():
        text = re.sub(rf"\]\((?:\.\./)*{re.escape(path)}\)", f"]({up}{page}.html)", text)
    text = re.sub(r"\]\((?:(?:\.\./)?docs/)?(\w+)\.md\)", rf"]({up}guides/\1.html)", text)
    text = re.sub(
        r"\]\((?!https?:|#)(?!(?:\.\./)?[\w/]+\.html\))(?:\.\./)*([^)]+)\)",
        rf"]({read_repository()}/blob/main/\1)",
        text,
    )
    return pypandoc.convert_text(text, "rst", format="gfm", extra_args=["--wrap=none"])


def choose_figure(name: str, folder: Path = FIGURES_DIR) -> Path | None:
    """Choose a notebook's figure for the gallery: by kind, then by name; None where it has none."""
    kinds = {kind: place for place, kind in enumerate(THUMBNAILS)}
    return min(
        folder.glob(f"{name}__*.png"),
        key=lambda path: (kinds.get(path.stem.split("__")[-1], len(kinds)), path.name),
        default=None,
    )


def save_thumbnail(name: str, path: Path) -> None:
    """Save a notebook's best figure at the size of the gallery; white where it has none."""
    best = choose_figure(name)
    image = Image.open(best).convert("RGB") if best else Image.new("RGB", (64, 40), "white")
    image.thumbnail(THUMBNAIL_PIXELS)
    image.save(path)


def format_card(name: str, facts: dict[str, str]) -> str:
    """Format a notebook's card in the gallery."""
    small = [facts["best_score"], facts["run_time"], facts["level"]]
    text = {key: html.escape(re.sub("[`*]", "", value)) for key, value in facts.items()}
    return (
        f'<a href="notebooks/{name}.html">'
        f'<img src="_static/thumbnails/{name}.png" alt="A figure of: {text["title"]}" '
        'loading="lazy">'
        f"<h3>{text['title']}</h3><p>{text['question']}</p>"
        f"<small>{html.escape(' · '.join(filter(None, small)))}</small></a>"
    )


def format_raw(text: str) -> str:
    """Format HTML as a directive."""
    return ".. raw:: html\n\n" + "".join(f"   {line}\n" for line in text.splitlines())


def format_index(
    cards: dict[str, list[str]], guides: list[str], names: set[str], *, demo: bool
) -> str:
    """Format the first page: what the README begins with, and the gallery."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    opening = re.split(r"<!-- buttons:begin -->", readme)[0]
    table = re.search(r"<!-- highlights:begin -->(.*?)<!-- highlights:end -->", readme, re.DOTALL)
    alt = re.search(r'alt="([^"]+)"', readme)
    picture = (
        f'<img src="_static/fall.png" width="640" alt="{alt[1] if alt else ""}">\n'
        + '<p><a href="demo/index.html">Try it in your browser</a></p>' * demo
    )
    sections = [
        convert_markdown(opening, names),
        format_raw(picture),
        convert_markdown(table[1] if table else "", names),
        f"`Which notebook do I need? <guides/which_notebook.html>`__ · "
        f"`All results <results.html>`__ · `Code <{read_repository()}>`__\n",
    ]
    for family, found in cards.items():
        body = '<div class="gallery">\n' + "\n".join(found) + "\n</div>"
        sections.append(f"{family}\n{'-' * len(family)}\n\n{format_raw(body)}")
    for caption, pages in (
        ("Guides", [*guides, "results", "corpora", "reference/index"]),
        ("Notebooks", [f"notebooks/{name}" for name in sorted(names)]),
    ):
        lines = "".join(f"   {page}\n" for page in pages)
        sections.append(
            f".. toctree::\n   :hidden:\n   :maxdepth: 1\n   :caption: {caption}\n\n{lines}"
        )
    return "\n".join(sections)


def format_results_page(names: set[str]) -> str:
    """Format all published results as tables that can be sorted."""
    text = (ROOT / "results/README.md").read_text(encoding="utf-8")
    sections = [convert_markdown(text.partition("<!-- results:begin -->")[0], names)]
    sections.append("A click on a heading sorts by it.\n")
    for title, table in tabulate_published().items():
        body = format_raw(f"<div class=scroll>{format_sortable(table, names)}</div>")
        sections.append(f"{title}\n{'-' * len(title)}\n\n{body}")
    return "\n".join(sections)


def format_sortable(results: pd.DataFrame, names: set[str]) -> str:
    """Format results as HTML, a system with a link to its notebook; numbers are not broken."""
    results = results.map(html.escape)
    results["system"] = [
        f'<a href="notebooks/{row.notebook}.html">{row.system}</a>'
        if row.notebook in names
        else row.system
        for row in results.itertuples()
    ]
    results = results.drop(columns="notebook")
    text = results.to_html(index=False, escape=False, border=0, classes="sortable")
    return NUMBER_CELL.sub(r'<td class="number">\1</td>', text)


def format_module(module: str) -> str:
    """Format the reference of a module."""
    line = "=" * len(module)
    return f"{module}\n{line}\n\n.. automodule:: {module}\n   :members:\n   :show-inheritance:\n"


def format_toctree(title: str, pages: Iterable[str]) -> str:
    """Format a page that lists others."""
    lines = "".join(f"   {page}\n" for page in pages)
    return f"{title}\n{'=' * len(title)}\n\n.. toctree::\n   :maxdepth: 1\n\n{lines}"


def make_demo(folder: Path) -> bool:
    """Build the demo that runs in a browser; tell whether ONNX Runtime Web was at hand for it."""
    from common.recognition import EmotionRecognizer
    from tools.demo_page import build_page

    try:
        build_page(folder, EmotionRecognizer.load("small"))
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        print(f"The site is built without its demo: {' '.join(str(error).split())}")
        return False
    return True


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; give the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.site", description=__doc__)
    parser.add_argument("out", type=Path, nargs="?", default=ROOT / "build" / "site")
    parser.add_argument("--notebooks", nargs="+", help="names of those that get pages, not all")
    options = parser.parse_args(arguments)
    chosen = options.notebooks and [NOTEBOOKS_DIR / f"{name}.ipynb" for name in options.notebooks]
    try:
        build_site(options.out, notebooks=chosen)
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"The site: {options.out / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
