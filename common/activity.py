"""Whether there is speech in a recording that a recogniser could answer for."""

from dataclasses import dataclass

import numpy as np

from common.loudness import HOP_LENGTH, find_speech, measure_frames, measure_level

FRAMES_PER_SECOND = 16_000 / HOP_LENGTH
SHORTEST_SPEECH_SECONDS = 0.25
SHORTEST_RUN_SECONDS = 0.12  # a click of no length fills frames of 0.064 s
SMALLEST_CONTRAST_DB = 3.0
FAINTEST_DB = -96.0  # a bit of 16


@dataclass(frozen=True)
class Activity:
    """What is active in a waveform, and `reason`, why it is no speech to answer for; "" if it is.

    `level_db` is that of the frames within 30 dB of the loudest one, in dBFS; `seconds` is the
    length of those of them that stand 3 dB above the softest tenth of the frames.
    """

    seconds: float
    level_db: float
    reason: str


def judge_activity(waveform: np.ndarray) -> Activity:
    """Judge a waveform (samples,) at 16 kHz; a gain changes nothing but the level."""
    levels = measure_frames(waveform)
    inner = levels[2:-2] if len(levels) > 8 else levels  # frames that reach beyond the ends
    level, softest = measure_level(waveform), np.percentile(inner, 10)
    contrast = level - softest
    active = find_speech(inner) & (inner > softest + SMALLEST_CONTRAST_DB)
    seconds = active.sum() / FRAMES_PER_SECOND
    edges = np.flatnonzero(np.diff(np.r_[False, active, False]))
    longest = (edges[1::2] - edges[::2]).max(initial=0) / FRAMES_PER_SECOND
    reason = ""
    if level < FAINTEST_DB:
        reason = f"silent: the loudest parts have {level:.0f} dBFS; check the microphone"
    elif contrast < SMALLEST_CONTRAST_DB:
        reason = (
            f"no speech, or too noisy: it is {contrast:.1f} dB above its softest tenth, at least "
            f"{SMALLEST_CONTRAST_DB:.0f} dB are needed; come closer to the microphone"
        )
    elif longest < SHORTEST_RUN_SECONDS:
        reason = "only clicks: no sound lasts longer than a moment; record speech"
    elif seconds < SHORTEST_SPEECH_SECONDS:
        reason = (
            f"too little sound: {seconds:.2f} s, at least {SHORTEST_SPEECH_SECONDS} s are needed; "
            "say a sentence"
        )
    return Activity(float(seconds), level, reason)


def cut_speech(waveform: np.ndarray, size: int) -> list[np.ndarray]:
    """Cut a waveform (samples,) into windows of `size` that overlap by half: those with speech."""
    starts = range(0, len(waveform) - size // 2, size // 2)
    cut = [waveform[start : start + size] for start in starts]
    return [window for window in cut if not judge_activity(window).reason]
