"""The demo: a page on this computer that hears a voice, live or recorded.

python -m common.demo

It listens on 127.0.0.1 alone, asks nothing of the internet, and forgets recordings when it stops.
"""

import os
import signal
import sys
import tempfile
from collections.abc import Mapping
from contextlib import asynccontextmanager
from functools import cache

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # gradio reads it when it is imported

import gradio as gr
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from common import paths
from common.audio import SAMPLE_RATE_HERTZ, list_notes, load_waveform
from common.markup import CSS, STRIP_COLUMNS, draw_bars, draw_notes, draw_strip
from common.plots import set_style
from common.problems import LONGEST_SECONDS
from common.recognition import (
    ABSTAINED,
    LONGEST_TIMELINE_SECONDS,
    EmotionRecognizer,
    Prediction,
)
from common.sound_plots import plot_attention, plot_timeline
from common.trust import describe_trust

LARGEST_UPLOAD = "200mb"
LONGEST_LIVE_SECONDS = 300
LONG = f"longer than {LONGEST_SECONDS:.0f} s; it is heard window by window"
EXAMPLES = {
    "meant to be angry": "Actor_04/03-01-05-01-01-01-04.flac",
    "meant to be sad": "Actor_03/03-01-04-01-01-01-03.flac",
}
SENTENCES = {
    "as you feel now": "The train to the coast leaves at a quarter past nine.",
    "delighted": "They have painted the kitchen door in a bright yellow.",
    "annoyed": "Someone has left the window open again tonight.",
    "downcast": "We will not see the house by the river any more.",
}


def draw_attention(recognizer: EmotionRecognizer, waveform: np.ndarray) -> Figure | None:
    """Draw what a network reads of a waveform (samples,), and what its attention looks at.

    Of a long one it is the loudest stretch. The recogniser runs on Keras, and its recipe ends in a
    log-mel spectrogram. None where its network has no `AttentionPooling`.
    """
    from common.layers import AttentionPooling
    from common.models import compute_attention

    network = recognizer.network.layers[-1]
    names = [layer.name for layer in network.layers if isinstance(layer, AttentionPooling)]
    if not names:
        return None
    size = round(recognizer.window_seconds * SAMPLE_RATE_HERTZ)
    if not recognizer.hears_whole(waveform):
        waveform = find_loudest(waveform, size)
    values = recognizer.compute_features([waveform])
    weights = compute_attention(recognizer.network, values, layer=names[0])
    return plot_attention(values[0], weights[0], recognizer.recipe).figure


def find_loudest(waveform: np.ndarray, size: int) -> np.ndarray:
    """Give the loudest stretch of `size` samples of a longer waveform, to 10 ms."""
    hop = 160
    frames = np.square(waveform[: len(waveform) // hop * hop]).reshape(-1, hop)
    energy = np.cumsum([0.0, *frames.sum(axis=1, dtype=np.float64)])
    last = (len(waveform) - size) // hop + 1
    sums = energy[size // hop :][:last] - energy[: len(energy) - size // hop][:last]
    start = hop * int(np.argmax(sums))
    return waveform[start : start + size]


def load_models() -> tuple[dict[str, EmotionRecognizer], str]:
    """Load the shipped models whose weights are at hand, and say how to get the other."""
    models = {"small": EmotionRecognizer.load("small")}
    if not (paths.PRETRAINED_DIR / "whisper_base" / "model.safetensors").is_file():
        return models, (
            "`whisper`, which is right more often, is not at hand: "
            "`.venv/bin/python -m common.recognition --model whisper clip.wav` fetches its 290 MB "
            "once."
        )
    return models | {"whisper": EmotionRecognizer.load("whisper")}, ""


def build_demo(models: Mapping[str, EmotionRecognizer], *, remark: str = "") -> gr.Blocks:
    """Lay out the page for some recognisers by name; `remark` stands where one is missing.

    What is recorded or uploaded lies in a folder that is removed when the page is closed, or Python
    ends.
    """
    set_style()
    names = list(models)
    folder = tempfile.TemporaryDirectory(prefix="demo-")
    os.environ["GRADIO_TEMP_DIR"] = folder.name  # gradio reads it as the page is made

    @cache
    def load_inside() -> EmotionRecognizer:
        return EmotionRecognizer.load("small", runtime="keras")

    def feed(chunk, chosen, enrolled, state):
        """Hear what the microphone gave since the last call."""
        if chunk is None:
            return gr.skip(), gr.skip(), state
        model = (enrolled or models).get(chosen, models[chosen])
        if state is None or state["stream"].recognizer is not model:
            state = {"stream": model.stream(), "history": []}
        try:
            said = state["stream"].feed(chunk)
        except ValueError as error:
            said = Prediction(None, {}, str(error))
        state["history"] = [*state["history"], said][-STRIP_COLUMNS:]
        notes = draw_notes(list_notes({"sample_rate_hertz": chunk[0]}))
        return draw_bars(said) + notes, draw_strip(state["history"]), state

    def hear(recording, enrolled):
        """Answers of all models and notes, then the timeline, then what the network looks at."""
        if recording is None:
            yield [""] * len(names) + ["", None, None]
            return
        known = {**models, **(enrolled or {})}
        try:
            longest, facts = LONGEST_TIMELINE_SECONDS, {}
            waveform = load_waveform(recording, longest_seconds=longest, facts=facts)
            if len(waveform) > LONGEST_SECONDS * SAMPLE_RATE_HERTZ:
                said = [Prediction(None, {}, f"{LONG}, see below")] * len(names)
            else:
                said = [known[name].predict(recording) for name in names]
            answers = [*map(draw_bars, said), draw_notes(list_notes(facts))]
            yield [*answers, None, None]
            timeline = known[names[-1]].predict_timeline(recording)
        except (ValueError, OSError) as error:
            if getattr(error, "kind", "") not in ABSTAINED:
                raise gr.Error(str(error).replace(str(recording), "The recording")) from error
            yield [draw_bars(Prediction(None, {}, error.problem))] * len(names) + ["", None, None]
            return
        over_time = plot_timeline(waveform, timeline)[0].figure
        yield [*answers, over_time, None]
        yield [*answers, over_time, draw_attention(load_inside(), waveform)]
        plt.close("all")

    def enrol(*recordings):
        """Recognisers that know the voice, and a sentence on each."""
        given = [recording for recording in recordings if recording]
        enrolled, said = {}, []
        for name, model in models.items():
            try:
                enrolled[name] = model.enrol(given)
                said += [f"`{name}` knows your voice now.", *enrolled[name].voice.notes]
            except (ValueError, OSError) as error:
                said.append(f"`{name}` does not know your voice: {error}.")
        return enrolled, "\n\n".join(said)

    with gr.Blocks(title="Which emotion does a network hear?", analytics_enabled=False) as demo:
        gr.Markdown(
            "# Which emotion does a network hear?\nIt runs on this computer: what you say is "
            "sent nowhere, and recordings are deleted when the demo stops."
        )
        enrolled = gr.State({})
        with gr.Tab("Live"):
            microphone = gr.Audio(sources="microphone", streaming=True, label="Speak")
            chosen = gr.Radio(names, value=names[0], label="Model", visible=len(names) > 1)
            live_bars = gr.HTML('<div class="answer none">Press record and speak.</div>')
            live_strip, state = gr.HTML(draw_strip([])), gr.State()
            microphone.stream(
                feed,
                [microphone, chosen, enrolled, state],
                [live_bars, live_strip, state],
                stream_every=0.25,
                time_limit=LONGEST_LIVE_SECONDS,
                show_progress="hidden",
            )
        with gr.Tab("Recording"):
            recording = gr.Audio(type="filepath", label="A recording, of a phone too", buttons=[])
            gr.Examples(
                [[str(paths.SAMPLE_DIR / path)] for path in EXAMPLES.values()],
                recording,
                example_labels=list(EXAMPLES),
                label="Or a synthetic voice",
            )
            with gr.Row():
                answers = []
                for name in names:
                    with gr.Column():
                        gr.Markdown(f"### `{name}`")
                        answers.append(gr.HTML())
            answers.append(gr.HTML())  # of notes
            gr.Markdown(remark)
            gr.Markdown(f"### `{names[-1]}` over time")
            figures = [gr.Plot(show_label=False, container=False)]
            gr.Markdown("### What `small` reads of it, and what its attention looks at")
            figures.append(gr.Plot(show_label=False, container=False))
            recording.change(hear, [recording, enrolled], [*answers, *figures])
        with gr.Tab("Know my voice"):
            gr.Markdown(
                "Read these four sentences, each in its mood: a voice that was heard in one mood "
                "alone is recognised no better."
            )
            spoken, asked = [], list(SENTENCES.items())
            for pair in (asked[:2], asked[2:]):
                with gr.Row():
                    for mood, sentence in pair:
                        with gr.Column():
                            gr.Markdown(f"**{mood}**: “{sentence}”")
                            spoken.append(
                                gr.Audio(
                                    sources=["microphone", "upload"],
                                    type="filepath",
                                    show_label=False,
                                    buttons=[],
                                )
                            )
            button, known = gr.Button("Know my voice", variant="primary"), gr.Markdown()
            button.click(enrol, spoken, [enrolled, known])
        for name, model in models.items():
            gr.Markdown(f"**How far to trust `{name}`.** {describe_trust(model)}")
    demo.recordings = folder
    return demo


def launch_demo(demo: gr.Blocks, **options) -> None:
    """Open a page of `build_demo` to this computer alone; `options` are those of its launch."""

    @asynccontextmanager
    async def forget(_):
        yield
        demo.recordings.cleanup()

    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])
    demo.launch(
        server_name="127.0.0.1",
        share=False,
        max_file_size=LARGEST_UPLOAD,
        allowed_paths=[str(paths.SAMPLE_DIR)],
        footer_links=[],
        ssr_mode=False,
        theme=theme,
        css=CSS,
        app_kwargs={"lifespan": forget},
        **options,
    )


def main() -> None:
    """Serve the demo until it is interrupted, ended or its terminal is closed."""
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda *_: sys.exit())
    models, remark = load_models()
    launch_demo(build_demo(models, remark=remark))


if __name__ == "__main__":
    from common.command import hide_native_logs

    hide_native_logs()
    main()
