"""Build the page that recognises emotions in a browser, without a server.

python -m tools.demo_page OUT            the shipped model `small`
python -m tools.demo_page OUT --model recognizer.keras

OUT is then a folder to be served, or published, as it is. ONNX Runtime Web, which runs the model,
is fetched once from the npm registry.
"""

import argparse
import json
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path

import onnx

from common import activity, paths, style
from common.audio import SAMPLE_RATE_HERTZ
from common.downloads import download_archive
from common.exporting import split_recipe
from common.files import write_atomically
from common.problems import SHORTEST_SECONDS, SILENCE_PEAK
from common.recognition import EmotionRecognizer
from common.trust import describe_trust
from tools.front_end import build_front_end, join_network

SOURCES = paths.ROOT / "docs" / "demo"
RUNTIME_URL = "https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-1.30.0.tgz"
RUNTIME_HASH = "sha256:d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71"
RUNTIME_FILES = (
    "ort.wasm.min.js",
    "ort-wasm-simd-threaded.mjs",
    "ort-wasm-simd-threaded.wasm",
)
RANGE_DB = 30  # what `loudness.find_speech` takes for speech
BLANK_FACTS = '<script type="application/json" id="facts">{}</script>'


def find_runtime() -> Path:
    """Say where the archive of ONNX Runtime Web lies, or would lie if it were fetched."""
    return paths.PRETRAINED_DIR / RUNTIME_URL.rpartition("/")[2]


def copy_runtime(folder: Path) -> None:
    """Put the files of ONNX Runtime Web into a folder, fetching its archive where it is missing.

    Raises OSError if it cannot be fetched, ValueError if it is not the pinned one.
    """
    archive = download_archive(RUNTIME_URL, find_runtime(), checksum=RUNTIME_HASH)
    with tarfile.open(archive) as file:
        for name in RUNTIME_FILES:
            with write_atomically(folder / name) as temporary, temporary.open("wb") as target:
                shutil.copyfileobj(file.extractfile(f"package/dist/{name}"), target)


def export_waveform_model(recognizer: EmotionRecognizer) -> onnx.ModelProto:
    """One graph of a recogniser: "waveform" (samples,) at 16 kHz -> "probabilities" (1, emotions).

    They are calibrated. Raises ValueError if its recipe has a step that ONNX has no counterpart of.
    """
    outer, log_mel = split_recipe(recognizer.recipe)
    if log_mel is None:
        last = type(recognizer.recipe.steps[-1]).__name__
        raise ValueError(
            f"its recipe ends in {last}, and the page runs what ends in FitLength and LogMel; give "
            "small, or a file of such a recogniser"
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "network.onnx")
        recognizer.export(path)
        network = onnx.load(path)
    temperature = recognizer.facts.get("temperature", 1.0)
    return join_network(build_front_end(outer), network, temperature=temperature)


def describe_page(recognizer: EmotionRecognizer) -> dict:
    """Give what the script needs to know: names, colours, and the rules of Python."""
    colours = style.pick_colours(list(recognizer.emotions))
    return {
        "emotions": recognizer.emotions,
        "colours": [colours[emotion] for emotion in recognizer.emotions],
        "trust": describe_trust(recognizer),
        "rate": SAMPLE_RATE_HERTZ,
        "window_seconds": recognizer.window_seconds,
        "longest_whole_seconds": recognizer.longest_whole_seconds,
        "shortest_seconds": SHORTEST_SECONDS,
        "silence_peak": SILENCE_PEAK,
        "range_db": RANGE_DB,
        "activity": {
            "faintest_db": activity.FAINTEST_DB,
            "shortest_run_seconds": activity.SHORTEST_RUN_SECONDS,
            "shortest_speech_seconds": activity.SHORTEST_SPEECH_SECONDS,
            "smallest_contrast_db": activity.SMALLEST_CONTRAST_DB,
        },
    }


def build_page(folder: str | Path, recognizer: EmotionRecognizer) -> Path:
    """Write the page with a recogniser into a folder; give the path of its index.html.

    Raises OSError if ONNX Runtime Web cannot be fetched, ValueError if it is not the pinned one, or
    the recogniser cannot be written as ONNX.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    copy_runtime(folder)
    with write_atomically(folder / "model.onnx") as temporary:
        temporary.write_bytes(export_waveform_model(recognizer).SerializeToString())
    shutil.copy(SOURCES / "demo.js", folder)
    content = json.dumps(describe_page(recognizer)).replace("<", "\\u003c")
    text = (SOURCES / "index.html").read_text(encoding="utf-8")
    page = folder / "index.html"
    with write_atomically(page) as temporary:
        temporary.write_text(text.replace(BLANK_FACTS, BLANK_FACTS.replace("{}", content)), "utf-8")
    return page


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; give the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.demo_page",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", help="where the page is written")
    parser.add_argument("--model", default="small", help="small, or a file of one")
    options = parser.parse_args(arguments)
    try:
        page = build_page(options.folder, EmotionRecognizer.load(options.model))
    except (OSError, ValueError) as error:
        print(f"The page of {options.model} is not built: {error}", file=sys.stderr)
        return 1
    print(f"wrote {page}; .venv/bin/python -m http.server -d {page.parent} serves it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
