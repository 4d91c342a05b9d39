"""The site: it builds without a warning, no link in it is dead, every figure has a text."""

import ast
import io
import shutil
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import numpy as np
import pytest
import soundfile
from docutils.core import publish_doctree
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from sphinx.ext.napoleon import NumpyDocstring

from common.paths import NOTEBOOKS_DIR, ROOT
from tests.browsers import needs_chromium, open_browser, serve
from tools import site
from tools.generation import read_repository

TOUR = "00_tour"


class Page(HTMLParser):
    """The links, anchors and pictures of an HTML page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links, self.anchors, self.pictures = [], set(), []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.anchors.update(filter(None, (found.get("id"), found.get("name"))))
        self.links += [found[name] for name in ("href", "src") if found.get(name)]
        if tag == "img":
            self.pictures.append((found.get("src"), found.get("alt")))


def find_dead_links(folder: Path) -> list[str]:
    """List links inside a site that lead to no file, or to no anchor of a page."""
    pages = {path: Page(path) for path in folder.rglob("*.html")}
    dead = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchors = pages[target].anchors if target in pages else {unquote(parts.fragment)}
            if not target.is_file() or (parts.fragment and unquote(parts.fragment) not in anchors):
                dead.append(f"{path.name}: {link}")
    return dead


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A site with one notebook and a part of the reference."""
    out = tmp_path_factory.mktemp("site") / "site"
    notebooks = [NOTEBOOKS_DIR / f"{TOUR}.ipynb"]
    site.build_site(out, notebooks=notebooks, modules=["common.paths", "common.bootstrap"])
    return out


def test_no_link_inside_the_site_is_dead(built):
    assert find_dead_links(built) == []


def test_every_figure_has_a_text(built):
    for path in built.rglob("*.html"):
        for source, alt in Page(path).pictures:
            assert alt and alt != source and not alt.endswith(".png"), f"{path.name}: {source}"


def test_notebook_is_a_page_with_its_figures_and_without_its_set_up(built):
    text = (built / f"notebooks/{TOUR}.html").read_text(encoding="utf-8")
    assert "A tour in a minute" in text and "Figure: A tour in a minute, Two women" in text
    assert "REPOSITORY" not in text


def test_first_page_has_the_gallery_and_the_results_can_be_sorted(built):
    index = (built / "index.html").read_text(encoding="utf-8")
    assert f'<a href="notebooks/{TOUR}.html"><img src="_static/thumbnails/{TOUR}.png"' in index
    results = (built / "results.html").read_text(encoding="utf-8")
    assert "sortable" in results and "_static/site.js" in results
    assert "1-D CNN" in results


def test_reference_has_the_docstrings(built):
    text = (built / "reference/common.bootstrap.html").read_text(encoding="utf-8")
    assert "compare_predictions" in text and "paired bootstrap" in text


def test_modules_are_listed_with_their_packages():
    modules = site.list_modules()
    assert {"common.corpora", "common.corpora.tables", "common.splits"} <= set(modules)
    assert "common" not in modules and len(modules) == len(set(modules))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[a](../notebooks/00_tour.ipynb)", "`a <../notebooks/00_tour.html>`__"),
        ("See `00_tour`.", "See `00_tour <../notebooks/00_tour.html>`__."),
        ("[`90`](90_template.ipynb)", f"`90 <{read_repository()}/blob/main/notebooks/90_"),
        ("[all](results/README.md)", "`all <../results.html>`__"),
        ("[g](docs/recordings.md)", "`g <../guides/recordings.html>`__"),
        ("[l](LICENSE)", f"`l <{read_repository()}/blob/main/LICENSE>`__"),
        ("[x](https://example.org/a.md)", "`x <https://example.org/a.md>`__"),
        ("a<!-- hidden -->b", "ab"),
    ],
)
def test_links_of_the_repository_lead_to_pages_of_the_site(text, expected):
    assert expected in site.convert_markdown(text, {TOUR}, depth=1)


def test_text_links_notebooks_that_have_pages_and_set_up_is_hidden():
    notebook = new_notebook(
        cells=[
            new_markdown_cell("`00_tour`, `99_other`, [`00_tour`](x)"),
            new_code_cell("import os", metadata={"tags": ["setup"]}),
        ]
    )
    text, setup = site.prepare_notebook(notebook, {TOUR}).cells
    assert text.source == "[00_tour](00_tour.ipynb), `99_other`, [`00_tour`](x)"
    assert setup.metadata["nbsphinx"] == "hidden"
    nbformat.validate(notebook)


def test_a_warning_of_sphinx_is_an_error(tmp_path, monkeypatch):
    settings = tmp_path / "settings"
    shutil.copytree(site.SETTINGS, settings)
    conf = settings / "conf.py"
    conf.write_text('extensions = []\nhtml_theme = "basic"\n')
    (settings / "alone.rst").write_text("Alone\n=====\n\n:doc:`nowhere`\n")
    (settings / "index.rst").write_text("Index\n=====\n")
    monkeypatch.setattr(site, "SETTINGS", settings)
    monkeypatch.setattr(
        site, "write_sources", lambda folder, **_: shutil.copytree(settings, folder)
    )
    with pytest.raises(RuntimeError, match="nowhere"):
        site.build_site(tmp_path / "out", notebooks=[], modules=["common.paths"])


def test_dead_links_are_found(tmp_path):
    (tmp_path / "a.html").write_text(
        '<a href="b.html#there">1</a><a href="b.html#gone">2</a><img src="no.png">'
    )
    (tmp_path / "b.html").write_text('<p id="there"></p><a href="https://example.org">x</a>')
    assert find_dead_links(tmp_path) == ["a.html: b.html#gone", "a.html: no.png"]


def read_column(page, number: int) -> list[str]:
    cells = page.locator(f"table.sortable >> nth=0 >> tbody tr td:nth-child({number})")
    return [text.strip() for text in cells.all_text_contents()]


@needs_chromium
def test_a_click_on_a_heading_sorts_by_it_and_another_turns_the_order_round(built, tmp_path):
    spoken = tmp_path / "silence.wav"
    soundfile.write(spoken, np.zeros(16_000), 16_000)
    with serve(built) as address, open_browser(spoken) as (page, _, errors):
        page.goto(f"{address}/results.html")
        headings = page.locator("table.sortable >> nth=0 >> thead th")
        names = [text.strip() for text in headings.all_text_contents()]
        number = 1 + next(k for k, name in enumerate(names) if name.startswith("UAR"))
        heading = headings.nth(number - 1)
        for order in ("descending", "ascending"):
            heading.get_by_role("button").click()
            scores = [float(text.split()[0]) for text in read_column(page, number)]
            assert scores == sorted(scores, reverse=order == "descending") and len(scores) > 5
            assert heading.get_attribute("aria-sort") == order
        headings.nth(0).get_by_role("button").click()
        found = read_column(page, 1)
        assert found == sorted(found, key=str.lower)
        assert all("404" in error for error in errors)  # the icon that a browser asks for


def list_docstrings(path: Path) -> list[tuple[str, str]]:
    """Name and docstring of a module and of what is public in it."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            name = getattr(node, "name", path.stem)
            if not name.startswith("_") and (text := ast.get_docstring(node)):
                found.append((f"{path.name}: {name}", text))
    return found


def test_every_docstring_is_markup_without_a_fault():
    wrong = []
    for path in (ROOT / "common").rglob("*.py"):
        for name, text in list_docstrings(path):
            heard = io.StringIO()
            settings = {"warning_stream": heard, "report_level": 2}
            publish_doctree(str(NumpyDocstring(text)), settings_overrides=settings)
            if heard.getvalue():
                wrong.append(f"{name}: {heard.getvalue()}")
    assert wrong == []
