"""The site: it builds without a warning, no link in it is dead, every figure has a text."""

import ast
import io
import shutil
from pathlib import Path

import nbformat
import numpy as np
import pytest
import soundfile
from docutils.core import publish_doctree
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from sphinx.ext.napoleon import NumpyDocstring

from common import paths
from common.paths import FIGURES_DIR, NOTEBOOKS_DIR, ROOT
from tests.browsers import needs_chromium, open_browser, serve
from tests.conftest import SPEECH_DIR
from tools import demo_page, site
from tools.generation import list_collection, read_repository

TOUR = "00_tour"
COLLECTION = list_collection()
NOWHERE = "http://127.0.0.1:9/onnxruntime-web.tgz"


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A site with one notebook and a part of the reference; nothing is fetched for it."""
    out = tmp_path_factory.mktemp("site") / "site"
    notebooks = [NOTEBOOKS_DIR / f"{TOUR}.ipynb"]
    runtime = SPEECH_DIR.parent / "pretrained" / demo_page.find_runtime().name
    if runtime.is_file():
        demo_page.find_runtime().parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(runtime, demo_page.find_runtime())
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(demo_page, "RUNTIME_URL", f"http://127.0.0.1:9/{runtime.name}")
        site.build_site(out, notebooks=notebooks, modules=["common.paths", "common.bootstrap"])
    return out


def test_what_is_built_has_no_faults_and_offline_no_demo(built, monkeypatch, tmp_path, capsys):
    index = (built / "index.html").read_text(encoding="utf-8")
    assert site.find_faults(built) == []
    assert (built / "demo/index.html").is_file() == ("demo/index.html" in index)
    monkeypatch.setattr(paths, "PRETRAINED_DIR", tmp_path)
    monkeypatch.setattr(demo_page, "RUNTIME_URL", NOWHERE)
    assert not site.make_demo(tmp_path / "demo")
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("The site is built without its demo: ") and "127.0.0.1" in line
    assert not (tmp_path / "demo").exists()


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
    assert "Other corpora" in results and "ravdess (24 speakers)" in results


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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (":doc:`nowhere`", "Sphinx cannot build .*nowhere"),
        (".. raw:: html\n\n   <a href='gone.html'>1</a>", "index.html: gone.html leads nowhere"),
        (".. raw:: html\n\n   <img src='index.html'>", "index.html: index.html has no text"),
    ],
)
def test_a_fault_of_a_page_fails_the_build(tmp_path, monkeypatch, text, message):
    settings = tmp_path / "settings"
    settings.mkdir()
    (settings / "conf.py").write_text('extensions = []\nhtml_theme = "basic"\n')
    (settings / "index.rst").write_text(f"Index\n=====\n\n{text}\n")
    monkeypatch.setattr(
        site, "write_sources", lambda folder, **_: shutil.copytree(settings, folder)
    )
    with pytest.raises(RuntimeError, match=f"(?s){message}"):
        site.build_site(tmp_path / "out", notebooks=[], modules=["common.paths"])


def test_a_card_shows_no_markup_and_escapes_what_is_none():
    facts = {"title": "A & B", "question": "What of `data/` and *my* voice?"}
    card = site.format_card(TOUR, facts | dict.fromkeys(("best_score", "run_time", "level"), ""))
    assert "<h3>A &amp; B</h3><p>What of data/ and my voice?</p>" in card


def test_dead_links_and_pictures_without_a_text_are_found(tmp_path):
    (tmp_path / "a.html").write_text(
        '<a href="b.html#there">1</a><a href="b.html#gone">2</a><img src="no.png" alt="x.png">'
    )
    (tmp_path / "b.html").write_text(
        '<p id="there"></p><a href="https://example.org">x</a><img src="a.html" alt="A page">'
    )
    assert site.find_faults(tmp_path) == [
        "a.html: b.html#gone leads nowhere",
        "a.html: no.png leads nowhere",
        "a.html: no.png has no text",
    ]


def test_every_notebook_with_figures_shows_one_that_was_chosen_by_its_kind(tmp_path):
    for path in COLLECTION:
        chosen = site.choose_figure(path.stem)
        assert (chosen is not None) == any(FIGURES_DIR.glob(f"{path.stem}__*.png"))
        if chosen:
            assert chosen.stem.split("__")[-1] in site.THUMBNAILS, f"name a kind of {path.stem}'s"
    for name in ("x", "b", "a"):
        (tmp_path / f"11_a__{name}__voices.png").touch()
        (tmp_path / f"11_a__{name}__other.png").touch()
    assert site.choose_figure("11_a", tmp_path).name == "11_a__a__voices.png"
    assert site.choose_figure("12_b", tmp_path) is None


def test_the_guide_names_every_notebook():
    text = (ROOT / "docs/which_notebook.md").read_text(encoding="utf-8")
    assert [path.stem for path in COLLECTION if f"`{path.stem}`" not in text] == []


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


@needs_chromium
@pytest.mark.parametrize("width", [1200, 400])
def test_no_page_is_wider_than_its_window(built, tmp_path, width):
    spoken = tmp_path / "silence.wav"
    soundfile.write(spoken, np.zeros(16_000), 16_000)
    names = ("index", "results", f"notebooks/{TOUR}", "reference/common.bootstrap", "corpora")
    with serve(built) as address, open_browser(spoken) as (page, _, _):
        page.set_viewport_size({"width": width, "height": 900})
        for name in names:
            page.goto(f"{address}/{name}.html")
            wide = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
            assert wide[0] <= wide[1], f"{name}: {wide}"


@needs_chromium
def test_results_are_read_without_scrolling_and_on_a_phone_up_to_their_intervals(built, tmp_path):
    spoken = tmp_path / "silence.wav"
    soundfile.write(spoken, np.zeros(16_000), 16_000)
    hidden = "boxes => boxes.map(box => box.scrollWidth - box.clientWidth)"
    edges = "cells => cells.map(cell => cell.getBoundingClientRect().right)"
    with serve(built) as address, open_browser(spoken) as (page, _, _):
        page.set_viewport_size({"width": 1200, "height": 900})
        page.goto(f"{address}/results.html")
        assert {*page.eval_on_selector_all(".scroll", hidden)} == {0}
        page.set_viewport_size({"width": 400, "height": 900})
        ends = page.eval_on_selector_all("table.sortable >> nth=0 >> td:nth-child(2)", edges)
        assert len(ends) > 5 and max(ends) <= 400


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
