"""Where speech is in a recording, how loud it is, and bringing it to one level."""

from dataclasses import dataclass

import numpy as np

from common.recipes import Step

FRAME_LENGTH, HOP_LENGTH = 1024, 256  # 64 and 16 ms at 16 kHz
TINY = 1e-30  # power of digital silence, so that it has decibels


def measure_frames(waveform: np.ndarray) -> np.ndarray:
    """Level of frames of 64 ms, every 16 ms: (samples,) -> (1 + samples // 256,), dBFS.

    The mean power of each frame, in decibels below full scale. Frames are centred, as librosa's
    are: beyond the ends the waveform is 0.
    """
    power = np.square(np.pad(np.asarray(waveform, np.float64), FRAME_LENGTH // 2))
    total = np.concatenate([[0.0], np.cumsum(power)])
    ends = np.arange(FRAME_LENGTH, len(total), HOP_LENGTH)
    means = (total[ends] - total[ends - FRAME_LENGTH]) / FRAME_LENGTH
    return 10 * np.log10(np.maximum(means, TINY))


def find_speech(levels: np.ndarray, *, range_db: float = 30.0) -> np.ndarray:
    """Mark the frames that are at most `range_db` below the loudest one: (frames,), bool."""
    return levels > levels.max() - range_db


def measure_level(waveform: np.ndarray, *, range_db: float = 30.0) -> float:
    """Level of the speech in a waveform (samples,), dBFS.

    The mean power of the frames that `find_speech` marks: pauses do not count, as in ITU-T P.56,
    "Objective measurement of active speech level", whose margin is 15.9 dB below that mean.
    """
    levels = measure_frames(waveform)
    active = levels[find_speech(levels, range_db=range_db)]
    return float(10 * np.log10(np.mean(10 ** (active / 10))))


@dataclass(frozen=True)
class Level(Step):
    """Cut silence off both ends and bring what is left to one level: (samples,) -> float32.

    Silence is what is more than `range_db` below the loudest frame, as for `features.Trim`. What
    `measure_level` finds becomes `target_db` dBFS, so that a recording and a louder copy of it are
    one and the same to the steps that follow. What is softer than `floor_db` is taken to be that
    loud: near-silence gains at most `target_db - floor_db` decibels.
    """

    target_db: float = -26.0
    range_db: float = 30.0
    floor_db: float = -96.0

    def __post_init__(self) -> None:
        if not self.floor_db < self.target_db <= 0 < self.range_db:
            raise ValueError(
                f"floor_db={self.floor_db}, target_db={self.target_db}, range_db={self.range_db}: "
                "give a floor below the target, a target of at most 0 dBFS and a range above 0"
            )

    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        active = np.flatnonzero(find_speech(measure_frames(waveform), range_db=self.range_db))
        kept = waveform[active[0] * HOP_LENGTH : (active[-1] + 1) * HOP_LENGTH]
        kept = kept if len(kept) else waveform
        level = max(measure_level(waveform, range_db=self.range_db), self.floor_db)
        return np.multiply(kept, 10 ** ((self.target_db - level) / 20), dtype=np.float32)
