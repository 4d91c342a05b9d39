"""Time the way from WAV files to features and embeddings, beside plain librosa: `make bench`.

The files are as many, as long and of the format of RAVDESS's originals, made up and removed
again. They were written just before, so that all ways read them from the system's file cache.
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path
from timeit import timeit
from unittest.mock import patch

import librosa
import numpy as np
import pandas as pd
import soundfile
from joblib import cpu_count
from tqdm.auto import tqdm

from common import paths
from common.corpora import load_corpus
from common.encoders import load_encoder
from common.encoders.extraction import extract_embeddings
from common.features import FitLength, LogMel, Trim
from common.recipes import Recipe, extract_features

RATE_HERTZ = 48_000
RECIPE = Recipe((Trim(), FitLength(), LogMel()))


def write_recordings(folder: Path, num_files: int) -> float:
    """Write bursts of tones and noise with silence around them; give the seconds of sound.

    Names and lengths are those of the first files of `data/index/ravdess.csv`.
    """
    rng = np.random.default_rng(0)
    files = pd.read_csv(paths.INDEX_DIR / "ravdess.csv").head(num_files)
    longest = files["frames"].max()
    times = np.arange(longest) / RATE_HERTZ
    harmonics = sum(np.sin(2 * np.pi * 180 * k * times) / k for k in range(1, 15))
    voice = 4000 * np.maximum(0, np.sin(2 * np.pi * 2.5 * times)) * harmonics
    hiss = rng.normal(scale=8, size=longest)
    for file in tqdm(files.itertuples(), "writing", len(files), unit="file", leave=False):
        first, last = round(0.28 * file.frames), round(0.72 * file.frames)
        samples = np.roll(hiss, rng.integers(longest))[: file.frames]
        samples[first:last] += rng.uniform(0.3, 1) * voice[: last - first]
        (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / file.path, samples.astype(np.int16), RATE_HERTZ, subtype="PCM_16")
    return files["frames"].sum() / RATE_HERTZ


def compute_with_librosa(path: str) -> np.ndarray:
    """Compute the same features as the librosa manual would; shape (bands, frames)."""
    trim, fit, log_mel = RECIPE.steps
    waveform, rate = librosa.load(path, sr=16_000)
    waveform, _ = librosa.effects.trim(waveform, top_db=trim.top_db)
    waveform = librosa.util.fix_length(waveform, size=round(fit.seconds * rate))
    mel = librosa.feature.melspectrogram(
        y=waveform,
        sr=rate,
        n_fft=log_mel.fft_length,
        hop_length=log_mel.hop_length,
        n_mels=log_mel.num_bands,
        fmin=log_mel.fmin_hertz,
        fmax=log_mel.fmax_hertz,
    )
    return librosa.power_to_db(mel)


def main() -> None:
    """Write the files, time each way, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=1440, help="how many WAV files")
    parser.add_argument("--plain", type=int, default=200, help="how many of them librosa reads")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory(prefix="ser-benchmark-") as name:
        folder = Path(name)
        corpus = folder / "ravdess"
        sound = write_recordings(corpus, arguments.files)
        num_files = len(list(corpus.rglob("*.wav")))
        with patch.object(paths, "CACHE_DIR", folder / "cache"):
            compute_with_librosa(str(next(corpus.rglob("*.wav"))))  # loads what librosa loads late
            tables = []
            scan = timeit(lambda: tables.append(load_corpus("ravdess", folder=corpus)), number=1)
            [table] = tables
            cold = timeit(lambda: extract_features(table, RECIPE, jobs=-1), number=1)
            cached = timeit(lambda: extract_features(table, RECIPE, jobs=-1), number=1)
            try:
                encoder = load_encoder("yamnet")
            except (OSError, ImportError) as error:
                print(f"YAMNet is left out: {error}")
                encoded = []
            else:
                embed = partial(extract_embeddings, table, encoder)
                encoded = [
                    ("from WAV to YAMNet embeddings and into the cache", timeit(embed, number=1)),
                    ("YAMNet embeddings from the cache", timeit(embed, number=1)),
                ]
        some = table["path"].sample(min(arguments.plain, num_files), random_state=0)
        bar = tqdm(some, desc="librosa", unit="file", leave=False)
        plain = timeit(lambda: [compute_with_librosa(path) for path in bar], number=1)

    print(
        f"{num_files} WAV files of {RATE_HERTZ // 1000} kHz, 16 bit, {sound / num_files:.1f} s each"
        f" on average; {cpu_count()} cores"
    )
    print(f"{'':48}{'files':>7}{'seconds':>9}{'files/s':>10}")
    for label, count, seconds in (
        ("from WAV to log-mel and into the cache", num_files, cold),
        ("from the cache", num_files, cached),
        *((label, num_files, seconds) for label, seconds in encoded),
        ("reading and checking all files (load_corpus)", num_files, scan),
        ("plain librosa, one after another", len(some), plain),
    ):
        print(f"{label:48}{count:7d}{seconds:9.2f}{count / seconds:10.0f}")
    print(f"plain librosa for all {num_files} files: about {plain * num_files / len(some):.0f} s")


if __name__ == "__main__":
    main()
