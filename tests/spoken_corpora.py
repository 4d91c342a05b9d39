"""Corpora that nobody published: other languages, emotions and layouts, spoken by espeak-ng."""

import csv
import shutil
import subprocess
from itertools import product
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from common.audio import SAMPLE_RATE_HERTZ, load_waveform, resample_waveform
from common.files import write_atomically

needs_espeak = pytest.mark.skipif(
    shutil.which("espeak-ng") is None, reason="espeak-ng is not installed: apt install espeak-ng"
)
# Pitch, words per minute, amplitude.
GERMAN = {"Ärger": (60, 210, 190), "Freude": (85, 190, 150), "Trauer": (30, 120, 70)}
GERMAN_SENTENCES = (
    "Der Lappen liegt auf dem Eisschrank.",
    "In sieben Stunden wird es so weit sein.",
)
GERMAN_SPEAKERS = {"Jörg": "de+m3", "Ute": "de+f2", "Anke": "de+f4", "Bernd": "de+m7"}
SPANISH = {"alegría": (85, 190, 150), "tristeza": (30, 120, 70), "calma": (45, 150, 100)}
SPANISH_SENTENCES = ("El tren sale a las nueve.", "La ventana está abierta.", "Mañana es lunes.")


def speak(path: Path, text: str, voice: str, manner: tuple[int, int, int]) -> None:
    """Let espeak-ng speak into a WAV file."""
    pitch, speed, amplitude = map(str, manner)
    path.parent.mkdir(parents=True, exist_ok=True)
    settings = ["-v", voice, "-p", pitch, "-s", speed, "-a", amplitude, "-w", str(path)]
    subprocess.run(["espeak-ng", *settings, text], check=True)


def write_m4a(path: Path, waveform: np.ndarray, *, rate: int = 48_000) -> None:
    """Write 16 kHz samples as a phone does: AAC in M4A, at another rate."""
    samples = resample_waveform(waveform, SAMPLE_RATE_HERTZ, rate).astype(np.float32)
    with write_atomically(path) as temporary, av.open(temporary, "w", format="ipod") as container:
        stream = container.add_stream("aac", rate=rate, layout="mono")
        for start in range(0, len(samples), 1024):
            block = samples[None, start : start + 1024]
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = rate, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def write_german_corpus(folder: Path) -> Path:
    """Write M4A files that one folder per session holds, and the list of them; give that CSV.

    It is as a spreadsheet saves it: semicolons, Windows-1252, columns of its own. One file is
    missing, one is no sound.
    """
    rows = []
    spoken = product(GERMAN_SPEAKERS.items(), GERMAN.items(), enumerate(GERMAN_SENTENCES, start=1))
    for number, ((speaker, voice), (emotion, manner), (take, text)) in enumerate(spoken):
        name = f"Sitzung {number % 3 + 1}/2024-03 Aufnahme {number:02d} (Satz {take}).m4a"
        source = folder / "temporary.wav"
        speak(source, text, voice, manner)
        (folder / name).parent.mkdir(exist_ok=True)
        write_m4a(folder / name, load_waveform(source))
        source.unlink()
        rows.append((name.replace("/", "\\"), emotion, speaker, f"Satz {take}", "ja"))
    (folder / "Sitzung 1" / "Notiz.m4a").write_text("not a sound")
    rows += [("Sitzung 1/Notiz.m4a", "Freude", "Ute", "", "")]
    rows += [("Sitzung 9/fehlt.m4a", "Trauer", "Ute", "", "")]
    path = folder / "Liste der Aufnahmen.csv"
    with path.open("w", encoding="cp1252", newline="") as file:
        writer = csv.writer(file, delimiter=";")
        writer.writerows([("Path", "Emotion", "Speaker", "Statement", "geprüft"), *rows])
    return path


def write_spanish_corpus(folder: Path) -> Path:
    """Write FLAC files by emotion that tell nowhere who speaks; give their folder."""
    spoken = product(("es+m2", "es+f3", "es-419"), SPANISH.items(), SPANISH_SENTENCES)
    for number, (voice, (emotion, manner), text) in enumerate(spoken):
        path = folder / "grabaciones" / emotion / f"{number:03d}.wav"
        speak(path, text, voice, manner)
        samples, rate = soundfile.read(path)
        soundfile.write(path.with_suffix(".flac"), samples, rate)
        path.unlink()
    return folder
