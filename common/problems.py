"""What can be wrong with a recording: the bounds of what is used, and a remedy for each."""

SHORTEST_SECONDS = 0.2
LONGEST_SECONDS = 60.0
LOWEST_RATE_HERTZ, HIGHEST_RATE_HERTZ = 4_000, 192_000
MAX_CHANNELS = 16
SILENCE_PEAK = 1e-4
CANCELLING_SHARE = 1 / 32  # of the loudest channel; one of 16 that has sound alone leaves 1 / 16
LOUDEST_PEAK = 16.0

REMEDIES = {
    "absent": "no such recording; correct the path, or fetch or unpack the corpus again",
    "no file": "{detail}; give the path of a recording",
    "empty": "the file is empty; copy or download it again",
    "git lfs": "a Git LFS pointer in place of the sound; run git lfs pull where it was cloned",
    "not audio": "not audio that libsndfile or FFmpeg read ({detail}); export it as WAV or FLAC",
    "truncated": "the header promises {detail}; copy or download the file again",
    "damaged": "the sound breaks off ({detail}); copy or download the file again",
    "too short": f"{{detail}} s of sound, at least {SHORTEST_SECONDS} s are needed; record more",
    "too long": "more than {detail} s of sound; cut it into utterances",
    "rate": f"{{detail}} Hz; {LOWEST_RATE_HERTZ} to {HIGHEST_RATE_HERTZ} Hz are read: convert it",
    "channels": f"{{detail}} channels, at most {MAX_CHANNELS} are read; export it as mono",
    "shape": "an array of {detail}; give (samples,) or (samples, channels), or (rate, array)",
    "integers": "whole numbers up to {detail}; give an array of their type, such as int16 or int32",
    "not finite": "{detail} samples are NaN or infinite; export it again",
    "too loud": "a sample of {detail:.3g} where 1 is full scale; divide by what full scale is, "
    "32768 for 16 bits, or give the integers themselves",
    "cancelling": "the channels cancel each other; export one of them",
    "silent": "the loudest sample is {detail:.2g}; record it again, or leave it out",
}


class RecordingError(ValueError):
    """A recording that cannot be used. `kind` is a key of `REMEDIES`, `problem` says it all."""

    def __init__(self, kind: str, detail: object = "", *, source: object = "") -> None:
        self.kind, self.detail = kind, detail
        self.problem = f"{kind}: {REMEDIES[kind].format(detail=detail)}"
        super().__init__(f"{source}: {self.problem}" if source else self.problem)
