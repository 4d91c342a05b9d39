"""A corpus of one's own, in another language and layout, from its folder to a file to use."""

import os

import pytest

from common.corpora import open_corpus
from common.paths import NOTEBOOKS_DIR
from common.splits import fit_protocols, make_folds
from tests.spoken_corpora import (
    GERMAN,
    GERMAN_SPEAKERS,
    SPANISH,
    needs_espeak,
    write_german_corpus,
    write_spanish_corpus,
)
from tools.execution import execute_notebook

pytestmark = needs_espeak


@pytest.fixture(scope="module")
def german(tmp_path_factory):
    return write_german_corpus(tmp_path_factory.mktemp("german"))


@pytest.fixture(scope="module")
def spanish(tmp_path_factory):
    return write_spanish_corpus(tmp_path_factory.mktemp("spanish"))


@pytest.mark.filterwarnings("ignore:.*Windows-1252", "ignore:.*left out 2 of 26")
def test_a_german_list_of_m4a_files_is_read(german):
    table = open_corpus("german", csv=german)
    assert len(table) == 24 and set(table["speaker"]) == set(GERMAN_SPEAKERS)
    assert set(table["emotion"]) == {name.casefold() for name in GERMAN}
    problems = [entry["problem"] for entry in table.attrs["left_out"]]
    assert len(problems) == 2 and any("not audio" in problem for problem in problems)
    for fold in make_folds(table, "leave_one_speaker_out"):
        tested, taught = (set(table["speaker"].iloc[rows]) for rows in (fold.test, fold.train))
        assert len(tested) == 1 and tested.isdisjoint(taught)


def test_spanish_folders_without_speakers_warn(spanish):
    with pytest.warns(UserWarning) as caught:
        table = open_corpus("spanish", folder=spanish)
    messages = "\n".join(str(warning.message) for warning in caught)
    assert "27 of 27 file names have no '_'" in messages
    assert "so each of alegría, calma, tristeza is taken for one" in messages
    assert set(table["emotion"]) == set(SPANISH) and table["speaker"].nunique() == len(table) == 27
    assert fit_protocols(table, ["speaker_5fold"]) == ["speaker_5fold"]


@pytest.mark.skipif(not os.environ.get("ALL"), reason="minutes; ALL=1 runs it")
@pytest.mark.parametrize("layout", ["german", "spanish"])
def test_the_notebook_takes_them(layout, german, spanish, tmp_path):
    own = {"csv": str(german)} if layout == "german" else {"folder": str(spanish)}
    parameters = {"corpus": layout, "epochs": 2, **own}
    execute_notebook(NOTEBOOKS_DIR / "71_your_corpus.ipynb", parameters=parameters, folder=tmp_path)
    assert (tmp_path / "71_your_corpus.ipynb").is_file()
