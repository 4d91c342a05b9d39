"""HTML of what a recogniser says, for the demo."""

from collections.abc import Sequence
from html import escape

from common import style
from common.recognition import Prediction

STRIP_COLUMNS = 120
CSS = """
.bars { display: grid; grid-template-columns: 6.5rem 1fr 3.2rem; gap: .15rem .6rem }
.bars i { height: 1rem; border-radius: .3rem; transition: width .2s; align-self: center }
.bars b { text-align: right; font-weight: 400; font-variant-numeric: tabular-nums }
.answer { font-size: 1.4rem; font-weight: 600; margin-bottom: .4rem }
.note { margin: .4rem 0 }
.answer.none { font-weight: 400; opacity: .7 }
.strip { width: 100%; height: 7rem; border: 1px solid var(--border-color-primary);
  border-radius: .4rem }
"""


def draw_bars(said: Prediction) -> str:
    """Give HTML with a bar per emotion, or with the reason why there is no answer."""
    if said.label is None:
        return f'<div class="answer none">No answer: {escape(said.reason)}.</div>'
    colours = style.pick_colours(list(said.probabilities))
    bars = "".join(
        f"<span>{escape(name)}</span>"
        f'<i style="width:{100 * share:.1f}%;background:{colours[name]}"></i>'
        f"<b>{100 * share:.0f} %</b>"
        for name, share in said.probabilities.items()
    )
    answer = f"{escape(said.label)}, {100 * said.probabilities[said.label]:.0f} %"
    return f'<div class="answer">{answer}</div><div class="bars">{bars}</div>'


def draw_strip(history: Sequence[Prediction]) -> str:
    """Give an SVG with a column per prediction, its probabilities stacked; no answer is blank."""
    columns = []
    for place, said in enumerate(history):
        top, colours = 1.0, style.pick_colours(list(said.probabilities))
        for name, share in said.probabilities.items():
            top -= share
            columns.append(
                f'<rect x="{place}" y="{top:.3f}" width="1.05" height="{share + 0.005:.3f}" '
                f'fill="{colours[name]}"/>'
            )
    return (
        f'<svg class="strip" viewBox="0 0 {STRIP_COLUMNS} 1" preserveAspectRatio="none" role="img" '
        f'aria-label="Probabilities of the emotions over time">{"".join(columns)}</svg>'
    )


def draw_notes(notes: Sequence[str]) -> str:
    """Give HTML with a line for each thing to know of a recording."""
    return "".join(f'<p class="note">To know: {escape(note)}.</p>' for note in notes)
