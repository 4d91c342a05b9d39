"""Damaged recordings, hostile archives and killed processes; prints what came of them.

`make torture` runs it. A number that must be 0 and is not makes the exit status 1.
"""

import argparse
import faulthandler
import io
import json
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
import soundfile

from common.audio import load_waveform, scan_recording
from common.downloads import unpack_archive
from common.paths import ROOT
from common.problems import RecordingError

RATE = 16_000
SLOW_SECONDS, HANG_SECONDS, TRAINING_SECONDS = 5, 60, 900
FORMATS = {
    **{f"WAV {kind}": ("WAV", kind) for kind in ("PCM_16", "FLOAT", "ALAW", "IMA_ADPCM", "GSM610")},
    **{form: (form, "PCM_16") for form in ("AIFF", "AU", "CAF", "FLAC", "RF64", "W64")},
    **{"Vorbis": ("OGG", "VORBIS"), "Opus": ("OGG", "OPUS"), "MP3": ("MP3", None)},
}
FFMPEG_FORMATS = {"M4A": ("ipod", "aac"), "AAC": ("adts", "aac"), "WebM": ("webm", "libopus")}
# A tiny training that is killed, and then done to its end.
TRAIN = """
import sys
import keras
from keras import layers
from common.corpora import load_corpus
from common.cross_validation import cross_validate
from common.features import FitLength, LogMel
from common.recipes import Recipe, extract_features
from common.recognition import EmotionRecognizer
from common.training import TrainingConfig

def build_model(shape, count):
    inputs = keras.Input(shape)
    x = layers.GlobalAveragePooling1D()(layers.Conv1D(8, 3, activation="relu")(inputs))
    return keras.Model(inputs, layers.Dense(count, activation="softmax")(x))

table = load_corpus("sample").query("speaker <= '03'").reset_index(drop=True)
features = extract_features(table, Recipe([FitLength(0.5), LogMel(num_bands=16)]))
print("ready", flush=True)
config = TrainingConfig(epochs=6, batch_size=8)
run = cross_validate(build_model, table, features, protocol="leave_one_speaker_out", config=config)
EmotionRecognizer.from_run(run, seed=0, fold=1).save(sys.argv[1])
print(run.predictions.round(6).to_csv())
"""


def make_sounds() -> dict[str, bytes]:
    """One second of sound in each format, by its name."""
    sounds = {}
    for name, (form, kind) in FORMATS.items():
        rate = 8_000 if kind in ("ALAW", "GSM610") else RATE
        tone = 0.4 * np.sin(np.arange(rate) * 2 * np.pi * 220 / rate)
        file = io.BytesIO()
        soundfile.write(file, tone, rate, format=form, subtype=kind)
        sounds[name] = file.getvalue()
    for name, (form, codec) in FFMPEG_FORMATS.items():
        sounds[name] = encode(form, codec)
    return sounds


def encode(form: str, codec: str, *, rate: int = 48_000) -> bytes:
    """One second of sound as phones and browsers write it."""
    tone = 0.4 * np.sin(np.arange(rate) * 2 * np.pi * 220 / rate)
    file = io.BytesIO()
    with av.open(file, "w", format=form) as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone[None].astype(np.float32), "fltp", "mono")
        frame.sample_rate = rate
        resampler = av.AudioResampler(stream.format, "mono", rate, stream.frame_size)
        for part in [*resampler.resample(frame), *resampler.resample(None), None]:
            container.mux(stream.encode(part))
    return file.getvalue()


def damage(content: bytes, rng: random.Random) -> bytes:
    """Change bytes, more of them in the header; cut the end off; put other bytes in between."""
    damaged = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 16, 64))):
        place = int(rng.random() ** rng.choice((1, 4, 8)) * (len(damaged) - 1))
        damaged[place] = rng.randrange(256)
    if rng.random() < 0.3:
        damaged = damaged[: int(rng.random() * len(damaged))]
    if rng.random() < 0.1:
        place = rng.randrange(len(damaged) + 1)
        damaged[place:place] = rng.randbytes(rng.randrange(200))
    return bytes(damaged)


@contextmanager
def end_hang() -> Iterator[None]:
    """End this process, saying where it was and leaving the file, if the block does not end."""
    faulthandler.dump_traceback_later(HANG_SECONDS, exit=True, file=sys.__stdout__)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def hear(path: Path) -> str:
    """Say what becomes of a file: "used", "refused", or what must not be."""
    started = time.monotonic()
    with end_hang():
        found = _hear(path)
    return found if time.monotonic() - started < SLOW_SECONDS else "slow"


def _hear(path: Path) -> str:
    try:
        problem = scan_recording(path)["problem"]
        try:
            waveform = load_waveform(path)
        except RecordingError as error:
            return "refused" if error.problem == problem else "scan and use disagree"
        if problem:
            return "scan and use disagree"
        return "used" if np.isfinite(waveform).all() else "not finite"
    except Exception as error:
        return f"undocumented {type(error).__name__}"


def torture_recordings(num_files: int) -> Counter:
    """Whole files must be used, cut ones refused, damaged ones either."""
    rng, counts = random.Random(0), Counter()
    with tempfile.TemporaryDirectory(prefix="torture-") as folder:
        path = Path(folder, "sound")
        sounds = make_sounds()
        for name, content in sounds.items():
            path.write_bytes(content)
            found = hear(path)
            counts["good file used" if found == "used" else f"GOOD FILE REFUSED, {name}"] += 1
            for share in (0.3, 0.6, 0.9):
                path.write_bytes(content[: int(share * len(content))])
                found = hear(path)
                counts["cut file refused" if found == "refused" else f"CUT FILE, {name}"] += 1
        for _ in range(num_files):
            path.write_bytes(damage(rng.choice([*sounds.values()]), rng))
            found = hear(path)
            good = found in ("used", "refused")
            counts[f"damaged file {found}" if good else f"DAMAGED FILE: {found}"] += 1
    return counts


def torture_archives(num_archives: int) -> Counter:
    """Hostile and damaged ZIP files must be refused with ValueError, or unpacked inside."""
    rng, counts = random.Random(1), Counter()
    with tempfile.TemporaryDirectory(prefix="torture-") as folder:
        target = Path(folder, "inside", "target")
        target.mkdir(parents=True)
        whole = io.BytesIO()
        with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("a.wav", rng.randbytes(3_000))
        bomb, outside = io.BytesIO(), io.BytesIO()
        with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("a.wav", bytes(50_000_000))
        with zipfile.ZipFile(outside, "w") as file:
            file.writestr("../../a.wav", b"x")
        hostile = [bomb.getvalue(), outside.getvalue()]
        archives = [damage(whole.getvalue(), rng) for _ in range(num_archives)] + hostile
        for number, content in enumerate(archives):
            archive = Path(folder, "a.zip")
            archive.write_bytes(content)
            try:
                with end_hang(), unpack_archive(archive, target):
                    found = "archive unpacked" if number < num_archives else "HOSTILE ARCHIVE TAKEN"
            except ValueError:
                found = "archive refused"
            except Exception as error:
                found = f"ARCHIVE: undocumented {type(error).__name__}"
            left = list(target.iterdir()) + list(Path(folder).glob("**/*.wav"))
            counts["ARCHIVE: files left" if left else found] += 1
    return counts


def torture_runs(num_kills: int) -> Counter:
    """A training that is killed again and again must end like one that never was."""
    rng, counts = random.Random(2), Counter()
    expected, _ = _train(None)
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(num_kills):
            _train(folder, kill_after=rng.uniform(0, 4))
            counts["killed"] += 1
        found, problem = _train(folder)
        same = found is not None and found == expected
        counts["equal after kills" if same else f"DIFFERENT AFTER KILLS {problem[-300:]}"] += 1
        saved = Path(folder, "recognizer.keras")
        counts["saved whole" if zipfile.is_zipfile(saved) else "SAVED IN PART"] += 1
    return counts


def _train(folder: str | None, *, kill_after: float | None = None) -> tuple[str | None, str]:
    """Run TRAIN with its data in a folder; kill it some seconds after it is ready."""
    with tempfile.TemporaryDirectory() as other:
        where = Path(folder or other)
        environment = {**os.environ, "SER_DATA_DIR": str(where), "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", TRAIN, where / "recognizer.keras"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        with subprocess.Popen(command, env=environment, **pipes) as process:
            alarm = threading.Timer(TRAINING_SECONDS, process.kill)
            alarm.start()
            try:
                if kill_after is not None:
                    process.stdout.readline()
                    time.sleep(kill_after)
                    process.kill()
                out, problem = process.communicate()
            finally:
                alarm.cancel()
    return (None if process.returncode else out), problem or f"exit status {process.returncode}"


@contextmanager
def hide_errors() -> Iterator[None]:
    """Keep what decoders written in C say of every damage off the terminal, and progress bars."""
    shown, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(shown, 2)
        os.close(shown)
        os.close(nowhere)


def measure_megabytes() -> int:
    """The most memory that this process had; Linux counts that of its parent into ru_maxrss."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.search(r"VmHWM:\s*(\d+) kB", status.read_text())[1]) // 1_000
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1_000_000


def main(arguments: list[str] | None = None) -> int:
    """Torture, print counts, and tell by the exit status whether all was well."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=2_000)
    parser.add_argument("--archives", type=int, default=200)
    parser.add_argument("--kills", type=int, default=20)
    given = parser.parse_args(arguments)
    with hide_errors():
        counts = torture_recordings(given.files) + torture_archives(given.archives)
    megabytes = measure_megabytes()
    if given.kills:
        counts += torture_runs(given.kills)
    for name, count in counts.items():
        print(f"{count:6,}  {name}")
    print(f"{megabytes:6,}  megabytes of memory at most")
    bad = [name for name in counts if name.split()[0].isupper()]
    print(json.dumps({"failed": bad}) if bad else "all well")
    return int(bool(bad) or megabytes > 1_000)


if __name__ == "__main__":
    sys.exit(main())
