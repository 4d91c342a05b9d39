"""Tables of what a recogniser says: along a long recording, and of a folder of recordings."""

from collections.abc import Callable, Sequence
from numbers import Integral
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from common.activity import SHORTEST_SPEECH_SECONDS, judge_activity
from common.audio import SAMPLE_RATE_HERTZ
from common.corpora.recordings import AUDIO_SUFFIXES, list_audio
from common.loudness import measure_frames

SOFTEST_DB = 40.0  # below the loud parts of a recording: what is softer is said by no one near
BATCH_WINDOWS = 64


def tabulate_timeline(
    compute: Callable[[list[np.ndarray]], np.ndarray],
    emotions: Sequence[str],
    waveform: np.ndarray,
    window_seconds: float,
    hop_seconds: float,
    smoothing: int,
) -> pd.DataFrame:
    """Give probabilities by window, as `EmotionRecognizer.predict_timeline` says.

    Raises ValueError for a window, a hop or a smoothing that is none.
    """
    if not (
        SHORTEST_SPEECH_SECONDS < window_seconds < np.inf
        and 1 / SAMPLE_RATE_HERTZ <= hop_seconds < np.inf
        and isinstance(smoothing, Integral)
        and smoothing >= 1
    ):
        raise ValueError(
            f"window_seconds={window_seconds}, hop_seconds={hop_seconds}, smoothing={smoothing}: "
            f"give a window of more than {SHORTEST_SPEECH_SECONDS} seconds, a hop above 0 and a "
            "whole number of windows, 1 or more"
        )
    size, hop = (round(s * SAMPLE_RATE_HERTZ) for s in (window_seconds, hop_seconds))
    starts = range(0, max(1, len(waveform) - size + hop), hop)
    windows = [waveform[start : start + size] for start in starts]
    softest = np.percentile(measure_frames(waveform), 95) - SOFTEST_DB
    facts = [judge_activity(window) for window in windows]
    spoken = np.array([not fact.reason and fact.level_db > softest for fact in facts])
    ends = [min(start + size, len(waveform)) for start in starts]
    times = np.stack([starts, ends], axis=1) / SAMPLE_RATE_HERTZ
    index = pd.MultiIndex.from_arrays(times.T, names=["start_seconds", "end_seconds"])
    logs = np.full((len(windows), len(emotions)), np.nan)
    chosen = np.flatnonzero(spoken)
    for part in np.split(chosen, range(BATCH_WINDOWS, len(chosen), BATCH_WINDOWS)):
        if len(part):
            logs[part] = np.log(np.maximum(compute([windows[number] for number in part]), 1e-12))
    smooth = pd.DataFrame(logs, index, list(emotions))
    smooth = np.exp(smooth.rolling(smoothing, center=True, min_periods=1).mean())
    probabilities = smooth.div(smooth.sum(axis=1), axis=0)
    probabilities[~spoken] = np.nan
    return probabilities


def find_recordings(folder: Path, *, left_out: list[dict]) -> list[Path]:
    """List the recordings in a folder and below; FileNotFoundError where there are none.

    `left_out` gets what cannot be listed, as in `list_audio`.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; give one with recordings in it")
    files = sorted(list_audio(folder, left_out=left_out))
    if not files and not left_out:
        raise FileNotFoundError(
            f"{folder}: no recording in it; these suffixes are read: "
            f"{', '.join(sorted(AUDIO_SUFFIXES))}"
        )
    return files


def tabulate_folder(
    predict: Callable, emotions: Sequence[str], folder: Path, *, progress: bool
) -> pd.DataFrame:
    """Give a row per recording, as `EmotionRecognizer.predict_folder` says."""
    left_out: list[dict] = []
    files = find_recordings(folder, left_out=left_out)
    rows = {}
    for entry in left_out:
        name = entry["path"].removeprefix(f"{folder.as_posix()}/")
        rows[name] = {"label": None, "reason": entry["problem"]}
    for file in tqdm(files, unit="recording", disable=not progress, leave=False):
        name = file.relative_to(folder).as_posix()
        try:
            said = predict(file)
        except (ValueError, OSError) as error:
            rows[name] = {"label": None, "reason": str(error).removeprefix(f"{file}: ")}
            continue
        shown = max(said.probabilities.values(), default=None)
        facts = {"label": said.label, "probability": shown, "reason": said.reason}
        rows[name] = facts | said.probabilities
    columns = ["label", "probability", *emotions, "reason"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("recording")
