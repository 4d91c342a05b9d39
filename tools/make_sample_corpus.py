"""Rebuild `data/sample`, the small synthetic corpus that ships with the repository.

    python -m tools.make_sample_corpus

espeak-ng speaks two sentences with eight voices in the eight emotions of RAVDESS, twice
each. What makes an utterance sound sad or angry here is a table of acoustic settings,
`STYLES`, which follows the directions that reviews of vocal expression report:

- Scherer (2003), Vocal communication of emotion: a review of research paradigms, Speech
  Communication 40, 227-256: table of F0, range, intensity, rate and high-frequency energy.
- Juslin and Laukka (2003), Communication of emotions in vocal expression and music
  performance, Psychological Bulletin 129, 770-814: anger, fear, happiness, sadness, and
  tenderness, which `calm` follows here.
- Banse and Scherer (1996), Acoustic profiles in vocal emotion expression, Journal of
  Personality and Social Psychology 70, 614-636: disgust, hot anger, panic fear.
- Murray and Arnott (1993), Toward the simulation of emotion in synthetic speech, Journal of
  the Acoustical Society of America 93, 1097-1108: rules for synthesisers; surprise.

The sizes of the effects are this generator's own, and large: a small network is to learn them
in a minute. Every voice has a manner of its own for each emotion and every utterance differs a
little from the last, so that a new voice is harder than a known one. The corpus proves that a
chain of processing works. It says nothing about people.

The random numbers are seeded by voice, emotion, sentence and repetition: with one version of
espeak-ng and of the FLAC encoder, two runs write the same bytes.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
from scipy.signal import resample_poly
from tqdm import tqdm

from common.files import hash_file, write_atomically
from common.paths import INDEX_DIR, SAMPLE_DIR

ESPEAK_VERSION = "1.51"  # of the committed files; another version gives slightly other sounds
SAMPLE_RATE_HERTZ = 16_000
ESPEAK_RATE_HERTZ = 22_050

STATEMENTS = ("Kids are talking by the door", "Dogs are sitting by the door")

# Odd actors are male and even ones female, as in RAVDESS: espeak-ng voice, base pitch in semitones.
VOICES = {
    1: ("en-us+m3", 0.0),
    2: ("en+f2", 0.0),
    3: ("en+m1", -1.0),
    4: ("en-us+f3", -1.0),
    5: ("en-gb-scotland+m7", 1.0),
    6: ("en-gb-x-rp+f4", 1.0),
    7: ("en-us+m2", 1.0),
    8: ("en-us+f5", -2.0),
}


@dataclass(frozen=True)
class Style:
    """How an utterance is spoken.

    `ending` is the closing punctuation, which chooses espeak-ng's intonation; `emphasis` the
    probability that the stressed words are spoken with emphasis; `tremor` the depth of a
    modulation of the amplitude at 6 to 9 Hz. `tilt_db_per_octave` turns the spectrum about
    500 Hz: above zero gives the high-frequency energy of a tense voice.
    """

    pitch_semitones: float = 0.0
    pitch_range: float = 1.0
    words_per_minute: float = 180.0
    level_db: float = 0.0
    tilt_db_per_octave: float = 0.0
    pause_seconds: float = 0.03
    tremor: float = 0.0
    emphasis: float = 0.0
    ending: str = "."


STYLES = {
    "neutral": Style(),
    "calm": Style(-1.5, 0.5, 155, -7.0, -2.2, 0.10),
    "happy": Style(4.0, 1.8, 210, 6.0, 2.0, 0.0, emphasis=0.5, ending="!"),
    "sad": Style(-3.0, 0.4, 120, -11.0, -4.0, 0.28, tremor=0.10),
    "angry": Style(2.0, 1.3, 210, 12.0, 4.5, 0.02, emphasis=0.8, ending="!"),
    "fearful": Style(7.0, 0.7, 240, -4.0, 1.8, 0.20, tremor=0.45),
    "disgust": Style(-4.0, 1.1, 130, 1.0, 1.0, 0.40, emphasis=0.3),
    "surprised": Style(8.0, 1.9, 150, 5.0, -1.8, 0.03, emphasis=0.3, ending="?"),
}


def vary_style(style: Style, *, spread: float, rng: np.random.Generator) -> Style:
    """Return `style` with every setting moved at random, by `spread` times a natural amount."""
    return replace(
        style,
        pitch_semitones=style.pitch_semitones + spread * rng.normal(0, 0.9),
        pitch_range=style.pitch_range * np.exp(spread * rng.normal(0, 0.15)),
        words_per_minute=style.words_per_minute * np.exp(spread * rng.normal(0, 0.06)),
        level_db=style.level_db + spread * rng.normal(0, 1.5),
        tilt_db_per_octave=style.tilt_db_per_octave + spread * rng.normal(0, 0.5),
        pause_seconds=style.pause_seconds * (1 + spread * rng.uniform(-0.6, 0.6)),
    )


def find_espeak() -> str:
    """Return the path of espeak-ng; FileNotFoundError says how to install it."""
    path = shutil.which("espeak-ng")
    if path is None:
        raise FileNotFoundError(
            "espeak-ng is not on the PATH, and only it can speak the sample corpus. Install it "
            "with 'apt-get install espeak-ng' (Debian, Ubuntu) or 'brew install espeak-ng' "
            "(macOS). The corpus in data/sample is complete without it."
        )
    return path


def read_espeak_version() -> str:
    """Return the version number that espeak-ng prints, such as "1.51"."""
    line = subprocess.run([find_espeak(), "--version"], capture_output=True, text=True, check=True)
    return line.stdout.split(":")[1].split()[0]


def speak_statement(
    statement: str, *, voice: str, style: Style, rng: np.random.Generator
) -> np.ndarray:
    """Let espeak-ng speak one sentence: (samples,) at 22.05 kHz, float64 between -1 and 1.

    It has six words: the first and the third carry the emphasis, if `rng` decides for it, and a
    pause follows the third. `voice` has its variant after a plus sign.
    """
    words = statement.split()
    if rng.random() < style.emphasis:
        for position in (0, 2):
            words[position] = f'<emphasis level="moderate">{words[position]}</emphasis>'
    words[2] += f'<break time="{1000 * style.pause_seconds:.0f}ms"/>'
    range_percent = np.clip(100 * style.pitch_range, 20, 195)
    ssml = (
        f'<speak><prosody range="{range_percent:.0f}%">'
        f"{' '.join(words)}{style.ending}</prosody></speak>"
    )
    pitch = np.clip(50 + style.pitch_semitones / 0.177, 5, 99)  # 0.177 semitones a step, measured
    with tempfile.TemporaryDirectory() as folder:
        wave = Path(folder) / "spoken.wav"
        settings = ["-m", "-z", "-a", "60", "-p", f"{pitch:.0f}"]
        settings += ["-s", f"{style.words_per_minute:.0f}", "-v", voice, "-w", str(wave)]
        subprocess.run([find_espeak(), *settings, ssml], check=True)
        waveform, rate = soundfile.read(wave)
    if rate != ESPEAK_RATE_HERTZ:
        raise ValueError(f"espeak-ng spoke at {rate} Hz instead of {ESPEAK_RATE_HERTZ} Hz.")
    return waveform


def shape_waveform(speech: np.ndarray, *, style: Style, rng: np.random.Generator) -> np.ndarray:
    """Bring speech to 16 kHz and give it its timbre, tremor, level, silences and noise floor.

    (samples,) at 22.05 kHz -> (samples,) at 16 kHz, float64; the peak of speech is 0.9 at most.
    """
    speech = resample_poly(speech, 320, 441)
    audible = np.flatnonzero(np.abs(speech) > 1e-3 * np.abs(speech).max())
    speech = speech[audible[0] : audible[-1] + 1]

    spectrum = np.fft.rfft(speech)
    frequencies_hertz = np.fft.rfftfreq(len(speech), 1 / SAMPLE_RATE_HERTZ)
    octaves = np.log2(np.clip(frequencies_hertz, 100, None) / 500)
    speech = np.fft.irfft(spectrum * 10 ** (style.tilt_db_per_octave * octaves / 20), len(speech))

    seconds = np.arange(len(speech)) / SAMPLE_RATE_HERTZ
    phase = 2 * np.pi * (rng.uniform(6, 9) * seconds + rng.random())
    speech *= 1 + style.tremor * np.sin(phase)

    speech *= 10 ** ((style.level_db - 43) / 20) / np.sqrt(np.mean(speech**2))
    speech *= min(1, 0.9 / np.abs(speech).max())

    before, after = (rng.uniform([0.05, 0.05], [0.2, 0.2]) * SAMPLE_RATE_HERTZ).astype(int)
    waveform = np.pad(speech, (before, after))
    return waveform + rng.normal(0, 10 ** (-92 / 20), len(waveform))


def make_utterance(*, actor: int, emotion: str, statement: int, repetition: int) -> np.ndarray:
    """Return one utterance of the corpus, (samples,) at 16 kHz, float64.

    `actor` is a key of `VOICES`, `emotion` one of `STYLES`; statement and repetition are 1 or 2.
    """
    code = list(STYLES).index(emotion) + 1
    voice, base_pitch_semitones = VOICES[actor]
    manner_rng = np.random.default_rng([actor, code])
    manner = vary_style(STYLES[emotion], spread=0.3, rng=manner_rng)
    rng = np.random.default_rng([actor, code, statement, repetition])
    style = vary_style(manner, spread=0.6, rng=rng)
    style = replace(style, pitch_semitones=style.pitch_semitones + base_pitch_semitones)
    speech = speak_statement(STATEMENTS[statement - 1], voice=voice, style=style, rng=rng)
    return shape_waveform(speech, style=style, rng=rng)


def list_utterances() -> dict[str, dict]:
    """Return the arguments of `make_utterance` by file name relative to the corpus folder."""
    names = ("actor", "emotion", "statement", "repetition")
    utterances = {}
    for values in product(VOICES, STYLES, (1, 2), (1, 2)):
        actor, emotion, statement, repetition = values
        code = list(STYLES).index(emotion) + 1
        numbers = f"{code:02d}-01-{statement:02d}-{repetition:02d}-{actor:02d}"
        path = f"Actor_{actor:02d}/03-01-{numbers}.flac"
        utterances[path] = dict(zip(names, values, strict=True))
    return utterances


def make_corpus(folder: Path, index: Path) -> pd.DataFrame:
    """Write every utterance below `folder`, and the table of the files as CSV to `index`.

    Each voice gets a folder; files of the same name are replaced. Gives the table: path, sha256,
    bytes, sample_rate, channels, frames, seconds.
    """
    rows = []
    for name, settings in tqdm(list_utterances().items(), unit="utterance"):
        waveform = make_utterance(**settings)
        file = folder / name
        with write_atomically(file) as temporary:
            soundfile.write(
                temporary, waveform, SAMPLE_RATE_HERTZ, subtype="PCM_16", compression_level=1.0
            )
        frames, size = len(waveform), file.stat().st_size
        seconds = round(frames / SAMPLE_RATE_HERTZ, 4)
        rows.append((name, hash_file(file), size, SAMPLE_RATE_HERTZ, 1, frames, seconds))
    columns = ["path", "sha256", "bytes", "sample_rate", "channels", "frames", "seconds"]
    table = pd.DataFrame(rows, columns=columns)
    with write_atomically(index) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")
    return table


def main() -> None:
    """Rebuild the corpus from the command line."""
    parser = argparse.ArgumentParser(description="Rebuild the synthetic sample corpus.")
    parser.add_argument("--folder", type=Path, default=SAMPLE_DIR)
    parser.add_argument("--index", type=Path, default=INDEX_DIR / "sample.csv")
    arguments = parser.parse_args()
    try:
        version = read_espeak_version()
    except FileNotFoundError as error:
        sys.exit(f"make_sample_corpus: {error}")
    if version != ESPEAK_VERSION:
        print(f"espeak-ng {version}; the committed files come from {ESPEAK_VERSION} and differ.")
    table = make_corpus(arguments.folder, arguments.index)
    print(f"{len(table)} utterances, {table.bytes.sum() / 1e6:.1f} MB, in {arguments.folder}")


if __name__ == "__main__":
    main()
