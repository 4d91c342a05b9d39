"""What is generated in the README and in the pages of `notebooks/`, `results/` and `data/`.

A section stands between `<!-- name:begin -->` and `<!-- name:end -->`; the rest of a page is
written by hand.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import nbformat
import pandas as pd
from nbformat import NotebookNode

from common.corpora import CORPORA
from common.files import write_atomically
from common.paths import ROOT
from common.results import load_results, tabulate_results, tabulate_transfer
from common.splits import PROTOCOLS
from common.style import rank_protocol
from tools.generation import (
    format_badge,
    list_collection,
    read_parameters,
    read_question,
    read_repository,
)

LEVELS = ("beginner", "intermediate", "advanced")
PAGES = {
    "README.md": ("buttons", "start", "highlights"),
    "notebooks/README.md": ("index",),
    "results/README.md": ("results",),
    "data/README.md": ("corpora",),
}
# What a person would call it, and its notebook, variant, corpus and two protocols.
RAVDESS = ("ravdess", "random_5fold", "speaker_5fold")
TESS = ("tess", "random_80_10_10", "leave_one_speaker_out")
HIGHLIGHTS = (
    (
        "Whisper frozen, settings chosen on training speakers",
        "24_whisper_transfer",
        "chosen",
        *RAVDESS,
    ),
    ("Convolutions beside an LSTM", "33_parallel_cnn_attention_lstm", None, *RAVDESS),
    ("Plain convolutional network", "11_cnn", None, *RAVDESS),
    ("BYOL-S frozen, and attention", "23_byol_s_transfer", "attention_one_level", *RAVDESS),
    ("Acoustic statistics and an SVM", "10_mlp_functionals", "svm", *RAVDESS),
    ("Convolutions, then an LSTM, on two women", "13_cnn_lstm", None, *TESS),
)
# Of notebooks that have no result under the usual conditions: variant, corpus and protocol of one,
# and in a few words what it is of.
STRANGERS = ("ravdess", "speaker_5fold")
LABELLED = {
    "02_explore_features": ("base", *STRANGERS, "first settings"),
    "36_other_corpora_first": ("other_corpora", *STRANGERS, "after a first stage"),
    "37_chosen_inside": ("chosen", *STRANGERS, "chosen inside each fold"),
    "40_augmentation_and_balance": ("all_together", *STRANGERS, "all copies"),
    "41_hyperparameter_search": ("tpe", *STRANGERS, "settings searched"),
    "42_speaker_enrolment": ("whisper_enrolled_16", *STRANGERS, "16 utterances of the voice heard"),
    "50_cross_corpus": (
        *("four_whisper", "ravdess+savee+tess", "leave_one_corpus_out"),
        "trained on the others, 4 emotions",
    ),
    "51_leakage_audit": ("speaker_chosen_on_validation", *STRANGERS, "without a leak"),
    "52_robustness": ("whisper_all_utterances", *STRANGERS, "as recorded"),
    "71_your_corpus": ("whisper", "savee", "leave_one_speaker_out", "Whisper"),
}
TRANSFER = "Other corpora"  # title of the results on corpora that were not trained on
COMPARISON = "60_comparison"  # whose best score is that of all notebooks


def sync_pages(root: Path = ROOT) -> list[Path]:
    """Rewrite the generated sections of every page; give the pages that changed."""
    stale = find_stale_pages(root)
    for path, text in stale.items():
        with write_atomically(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return [*stale]


def find_stale_pages(root: Path = ROOT) -> dict[Path, str]:
    """Find pages with generated sections that are out of date, and give what they should be.

    Raises ValueError if a page or the comments around a section are missing, or a notebook has no
    title.
    """
    contents = make_sections(root)
    stale = {}
    for name, sections in PAGES.items():
        path = root / name
        if not path.is_file():
            raise ValueError(f"{name} is missing: check it out again")
        text = path.read_text(encoding="utf-8")
        try:
            filled = fill_sections(text, {part: contents[part] for part in sections})
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        if filled != text:
            stale[path] = filled
    return stale


def make_sections(root: Path = ROOT) -> dict[str, str]:
    """Give the generated Markdown by section."""
    published = load_results(own=False, ablations=True)
    collection = list_collection(root)
    return {
        "buttons": format_buttons(read_repository()),
        "start": format_start(read_repository()),
        "highlights": format_highlights(published),
        "index": format_index(collection, published, repository=read_repository()),
        "results": format_results(),
        "corpora": format_corpora(),
    }


def fill_sections(text: str, sections: Mapping[str, str]) -> str:
    """Replace what stands between the comments of each section."""
    for name, content in sections.items():
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        before, found, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not (found and closed):
            raise ValueError(f"no {begin} … {end}: add both, each on a line of its own")
        text = f"{before}{begin}\n\n{content}\n\n{end}{after}"
    return text


def format_buttons(repository: str) -> str:
    """Format the buttons below the README's title: the tour, the site, and one's own voice."""
    owner, name = repository.split("/")[-2:]
    site = f"https://{owner.lower()}.github.io/{name}/"
    voice = "https://img.shields.io/badge/try-your_voice-D55E00"
    return "\n".join(
        [
            format_badge(repository, "00_tour"),
            f"[![Site](https://img.shields.io/badge/read-the_site-0072B2)]({site})",
            f"[![Try your voice]({voice})](notebooks/70_try_your_voice.ipynb)",
        ]
    )


def format_start(repository: str) -> str:
    """Format the commands that take a newcomer to the first results."""
    name = repository.rpartition("/")[2]
    return f"```bash\ngit clone {repository} && cd {name}\nmake run\n```"


def format_highlights(published: list[dict]) -> str:
    """Format the README's few rows, a system's scores on known and on unknown voices.

    `published` is what `load_results` gives.
    """
    rows = []
    for name, notebook, variant, corpus, usual, headline in HIGHLIGHTS:
        found = {
            result["protocol"]: result["metrics"]["uar"]
            for result in published
            if (result["notebook"], result["variant"], result["corpus"])
            == (notebook, variant, corpus)
        }
        if not {usual, headline} <= set(found):
            continue
        known, unknown = found[usual], found[headline]
        rows.append(
            [
                f"[{name}](notebooks/{notebook}.ipynb)",
                CORPORA[corpus].title,
                f"{100 * known['score']:.0f} %",
                f"**{100 * unknown['score']:.0f} %** "
                f"({100 * unknown['low']:.0f} to {100 * unknown['high']:.0f})",
            ]
        )
    columns = ["system", "corpus", "random split, voices known"]
    columns += ["voices never heard (95 % interval)"]
    return format_table(pd.DataFrame(rows, columns=columns))


def format_index(notebooks: list[Path], published: list[dict], *, repository: str) -> str:
    """Format the index of notebooks; `published` is what `load_results` gives, ablations too."""
    rows = []
    for path in notebooks:
        notebook = nbformat.read(path, as_version=4)
        try:
            row = describe_notebook(notebook, published, name=path.stem)
        except ValueError as error:
            raise ValueError(f"{path.name}: {error}") from error
        facts = [value or "—" for value in row.values()]
        badge = format_badge(repository, path.stem)
        rows.append([f"[`{path.stem}`]({path.name})", *facts, badge])
    columns = ["notebook", "title", "question", "best score", "run time", "level", "in Colab"]
    return format_table(pd.DataFrame(rows, columns=columns))


def describe_notebook(notebook: NotebookNode, published: list[dict], *, name: str) -> dict:
    """Give what the index and the gallery say of a notebook, as text.

    It is its `title`, `question`, `best_score` (of `find_best_score`), `run_time` and `level`.
    Raises ValueError if the first cell lacks title or question, or the level is unknown.
    """
    title, question = read_question(notebook)
    level = notebook.metadata.get("ser", {}).get("level", "intermediate")
    if level not in LEVELS:
        raise ValueError(f"metadata ser.level is {level!r}: write one of {', '.join(LEVELS)}")
    corpus = read_parameters(notebook)["corpus"]
    return {
        "title": title,
        "question": question,
        "best_score": find_best_score(published, notebook=name, corpus=corpus),
        "run_time": read_run_time(notebook),
        "level": level,
    }


def find_best_score(published: list[dict], *, notebook: str, corpus: str) -> str:
    """Give a notebook's best published UAR on unknown voices of a corpus as text, or "".

    It is of one protocol, the first in `PROTOCOLS` that there is: protocols do not compare. A
    notebook of `LABELLED` that has none but ablations gives what is named there, with its label.
    """
    for protocol, facts in PROTOCOLS.items():
        scores = [
            result["metrics"]["uar"]["score"]
            for result in published
            if notebook in (result["notebook"], COMPARISON)
            and result["corpus"] == corpus
            and result["protocol"] == protocol
            and not result.get("ablation")
        ]
        if scores and facts.speaker_independent:
            label = ", the best without enrolment" * (notebook == COMPARISON)
            return f"{100 * max(scores):.1f} % ({name_corpora(corpus)}{label})"
    *wanted, label = LABELLED.get(notebook, ("",))
    for result in published:
        names = [result.get(name) for name in ("notebook", "variant", "corpus", "protocol")]
        if names == [notebook, *wanted]:
            corpora = name_corpora(result["corpus"])
            return f"{100 * result['metrics']['uar']['score']:.0f} % ({corpora}: {label})"
    return ""


def name_corpora(corpora: str) -> str:
    """Give the titles of corpora joined by "+"; one of a reader's own keeps its name."""
    names = corpora.split("+")
    return ", ".join(CORPORA[name].title if name in CORPORA else name for name in names)


def read_run_time(notebook: NotebookNode) -> str:
    """Read the shortest run time from the table of facts below the title, or ""."""
    match = re.search(r"^\| run time \| (.+?) \|\s*$", notebook.cells[0].source, re.MULTILINE)
    first = re.split(r"[;,]", match[1])[0] if match else ""
    return re.sub(r" (?:with the published runs?|on (?:2|one) CPU cores?)\b.*", "", first)


def format_corpora() -> str:
    """Format the table of corpora."""
    rows = [
        [
            f"[{corpus.title}]({corpus.homepage})",
            f"{corpus.num_utterances:,}",
            f"{corpus.num_speakers}",
            corpus.licence,
            f"`data/raw/{corpus.name}/{corpus.example}`",
            "`fetch_corpus`" if corpus.archive else "by hand",
        ]
        for corpus in CORPORA.values()
        if corpus.name != "sample"
    ]
    columns = ["corpus", "utterances", "speakers", "licence", "where a file lies", "obtained"]
    return format_table(pd.DataFrame(rows, columns=columns))


def format_results() -> str:
    """Format the published results: one table per corpus that has any."""
    sections = []
    for title, results in tabulate_published().items():
        links = [f"[`{name}`](../notebooks/{name}.ipynb)" for name in results["notebook"]]
        note = "No corpus of the test is trained on.\n\n" * (title == TRANSFER)
        sections.append(f"## {title}\n\n{note}{format_table(results.assign(notebook=links))}")
    return "\n\n".join(sections) or "No results yet: `make reproduce CORPUS=ravdess` makes them."


def tabulate_published() -> dict[str, pd.DataFrame]:
    """Give the published results as tables of text by title, those of people's speech alone."""
    tables = {
        record.title: describe_results(corpus)
        for corpus, record in CORPORA.items()
        if corpus != "sample"
    }
    tables[TRANSFER] = describe_transfer()
    return {title: table for title, table in tables.items() if not table.empty}


def describe_results(corpus: str, *, own: bool = False) -> pd.DataFrame:
    """Tabulate the results on a corpus as text: speaker protocols first, the best on top.

    With `own` results that were made here take the place of published ones of the same name, and a
    column `run` tells them apart. The column `backend` is there where results have several.
    """
    results = tabulate_results(corpus=corpus, own=own)
    names = ["notebook", "variant", "protocol"]
    results = results.sort_values("own", kind="stable").drop_duplicates(names, keep="last")
    results = results.assign(rank=results["protocol"].map(rank_protocol))
    results = results.sort_values(["rank", "uar"], ascending=[True, False], kind="stable")
    rows = [
        {
            "system": row.title,
            "notebook": row.notebook,
            **({"run": "yours" if row.own else "published"} if own else {}),
            "UAR (%)": _format_interval(row),
            "of folds": ""
            if pd.isna(row.uar_std)
            else f"{100 * row.uar_mean:.1f} ± {100 * row.uar_std:.1f}",
            "WA (%)": f"{100 * row.wa:.1f}",
            "protocol": row.protocol,
            "weights": "" if pd.isna(row.num_parameters) else f"{row.num_parameters:,}",
            "seeds": f"{row.num_seeds}",
            "minutes": f"{row.minutes:.1f}",
            **({"backend": row.backend} if len(set(results["backend"])) > 1 else {}),
        }
        for row in results.itertuples()
    ]
    return pd.DataFrame(rows)


def describe_transfer() -> pd.DataFrame:
    """Tabulate as text what was published of models that were trained on other corpora."""
    rows = [
        {
            "system": row.title,
            "notebook": row.notebook,
            "tested on": f"{row.tested_on} ({row.num_speakers} speakers)",
            "trained on": row.trained_on.replace("+", ", "),
            "emotions": f"{row.num_emotions}",
            "UAR (%)": _format_interval(row),
        }
        for row in tabulate_transfer(own=False).itertuples()
    ]
    return pd.DataFrame(rows)


def _format_interval(row) -> str:
    """UAR of a row in per cent and its 95 % interval."""
    return f"{100 * row.uar:.1f} [{100 * row.uar_low:.1f}, {100 * row.uar_high:.1f}]"


def format_table(table: pd.DataFrame) -> str:
    """Format a table of text as Markdown."""
    rows = [list(table.columns), ["---"] * len(table.columns), *table.to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
