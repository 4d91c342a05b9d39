"""`python -m common.recognition`: emotions of recordings, on the command line."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from common.files import write_atomically
from common.recognition import SHIPPED, EmotionRecognizer, Prediction
from common.trust import describe_answer_trust

ANSWERED, NOTHING, MISUSED = 0, 1, 2  # exit codes
BAR_WIDTH = 30


def main(arguments: Sequence[str]) -> int:
    """Run the command; gives 0, 1 where there is nothing to tell, 2 where it was misused."""
    options = _parse(arguments)
    try:
        recognizer = EmotionRecognizer.load(options.model)
        if options.enrol is not None:
            recognizer = recognizer.enrol(options.enrol)
        return _answer(recognizer, options)
    except (OSError, ValueError, ImportError) as error:
        remedy = "; pip install -r requirements.lock" * isinstance(error, ModuleNotFoundError)
        print(f"error: {error}{remedy}", file=sys.stderr)
        return MISUSED


def hide_native_logs() -> None:
    """Keep the logs of TensorFlow's C++ code off the terminal; what Python says still reaches it.

    With `TF_CPP_MIN_LOG_LEVEL` set to 0 or 1 they are shown.
    """
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "3") < "2":
        return
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, encoding="utf-8", errors="replace")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _answer(recognizer: EmotionRecognizer, options: argparse.Namespace) -> int:
    if options.recording.is_dir():
        table = recognizer.predict_folder(options.recording, progress=sys.stderr.isatty())
        _write_csv(table, options.csv)
        left_out = table[table["label"].isna()]
        for name, reason in left_out["reason"].items():
            print(f"left out: {name}: {reason}", file=sys.stderr)
        return ANSWERED if len(left_out) < len(table) else NOTHING
    if not options.recording.exists():
        raise FileNotFoundError(f"{options.recording}: no such recording; correct the path")
    try:
        if options.timeline:
            return _show_timeline(recognizer, options)
        said = recognizer.predict(options.recording)
    except ValueError as error:
        said = Prediction(None, {}, str(error))
    if options.json:
        print(json.dumps(asdict(said)))
    else:
        measured = recognizer.facts if recognizer.voice is None else {}
        print(describe_prediction(said, measured))
    return ANSWERED if said.label else NOTHING


def _show_timeline(recognizer: EmotionRecognizer, options: argparse.Namespace) -> int:
    timeline = recognizer.predict_timeline(options.recording)
    if options.json:
        print(timeline.reset_index().to_json(orient="records"))
    elif options.csv:
        _write_csv(timeline, options.csv)
    else:
        for (start, end), row in timeline.iterrows():
            said = _draw_bar(row.idxmax(), row.max()) if row.notna().all() else "no speech"
            print(f"{start:7.1f} to {end:6.1f} s  {said}")
    return ANSWERED if timeline.notna().any(axis=None) else NOTHING


def describe_prediction(said: Prediction, facts: dict) -> str:
    """Say it in text: the emotion, a bar for each, and how far to trust it."""
    if said.label is None:
        return f"no answer: {said.reason}"
    lines = [said.label]
    for emotion, share in sorted(said.probabilities.items(), key=lambda item: -item[1]):
        lines.append(f"  {_draw_bar(emotion, share)}".rstrip())
    return "\n".join([*lines, describe_answer_trust(said, facts)])


def _write_csv(table, path: Path | None) -> None:
    if path is None:
        table.to_csv(sys.stdout, float_format="%.4f")
    else:
        with write_atomically(path) as temporary:
            table.to_csv(temporary, float_format="%.4f")


def _draw_bar(emotion: str, share: float) -> str:
    return f"{emotion:<10} {100 * share:3.0f} % {'█' * round(BAR_WIDTH * share)}"


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m common.recognition",
        description="Say which emotion a recording sounds like.",
        epilog="Exit codes: 0 answered, 1 nothing to tell (no speech, unreadable), 2 misused.",
    )
    parser.add_argument("recording", type=Path, help="a recording, or a folder of them")
    parser.add_argument(
        "--model", default="small", help=f"{' or '.join(SHIPPED)}, or a file of your own"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--timeline", action="store_true", help="window by window, up to an hour")
    parser.add_argument("--csv", type=Path, help="write a table of a folder or a timeline there")
    parser.add_argument("--enrol", type=Path, help="a folder of recordings of the same voice")
    options = parser.parse_args(arguments)
    if options.recording.is_dir() and (options.json or options.timeline):
        parser.error("--json and --timeline are for one recording; --csv is for a folder")
    if options.csv and not (options.recording.is_dir() or options.timeline):
        parser.error("--csv is for a folder, or with --timeline")
    if options.csv and options.json:
        parser.error("give --csv or --json")
    if options.csv and (options.csv.is_dir() or not options.csv.absolute().parent.is_dir()):
        parser.error(f"--csv {options.csv}: name a file in a folder that is there")
    return options
