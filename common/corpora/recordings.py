"""The recordings of a corpus on disk: finding them, reading their labels, scanning them."""

import hashlib
import json
import os
import re
import warnings
from pathlib import Path, PurePosixPath

import joblib
import pandas as pd
from tqdm.auto import tqdm

from common import audio, paths
from common.corpora.records import CORPORA, INTENSITIES, Corpus
from common.files import write_json

COLUMNS = (
    *("utterance", "path", "corpus", "speaker", "gender", "emotion", "intensity"),
    *("statement", "repetition", "seconds", "audio_hash"),
)
AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".mp3", ".aif", ".aiff"})
HIDDEN = (".", "__MACOSX")


def find_corpus(name: str, folder: str | Path | None) -> tuple[Corpus, Path]:
    """Look up a corpus and the folder it belongs in; an unknown name raises ValueError."""
    if name not in CORPORA:
        raise ValueError(f"unknown corpus {name!r}; choose one of {', '.join(CORPORA)}")
    if folder is None:
        folder = paths.SAMPLE_DIR if name == "sample" else paths.RAW_DIR / name
    return CORPORA[name], Path(folder).expanduser().resolve()


def explain_absence(corpus: Corpus, folder: Path, *, num_there: int = 0) -> str:
    """Say what is missing, how to get it and where to put it."""
    return (
        f"{folder}: {num_there} of the {corpus.num_utterances} recordings of {corpus.title} are "
        f"here. {corpus.how_to_get} Put it so that {folder / corpus.example} exists."
    )


def parse_path(corpus: Corpus, path: str) -> dict[str, str]:
    """Read the columns from utterance to repetition out of a path below the corpus folder.

    They are empty text where the name does not tell. Folders above the official layout are
    ignored, so that a copy which lies one folder deeper has the same utterance names. Raises
    ValueError if the name is outside the grammar, or the emotion or the speaker is unknown.
    """
    stem = PurePosixPath(path).with_suffix("").as_posix()
    match = re.search(rf"(?:^|/)(?P<recording>{corpus.pattern})$", stem)
    if not match:
        raise ValueError(
            f"not a recording of {corpus.title} by its name; expected the like of "
            f"{corpus.example}: rename it or move it out of the folder"
        )
    labels = match.groupdict()
    if labels["emotion"] not in corpus.emotions:
        known = ", ".join(f"{code} {label}" for code, label in corpus.emotions.items())
        raise ValueError(f"unknown emotion code {labels['emotion']!r}; {corpus.title} has {known}")
    if labels["speaker"] not in corpus.genders:
        raise ValueError(
            f"unknown speaker {labels['speaker']!r}; {corpus.title} has {corpus.num_speakers}, "
            f"{min(corpus.genders)} to {max(corpus.genders)}"
        )
    return {
        "utterance": f"{corpus.name}/{labels['recording']}",
        "corpus": corpus.name,
        "speaker": labels["speaker"],
        "gender": corpus.genders[labels["speaker"]],
        "emotion": corpus.emotions[labels["emotion"]],
        "intensity": INTENSITIES.get(labels.get("intensity"), ""),
        "statement": labels.get("statement", ""),
        "repetition": labels.get("repetition", ""),
    }


def list_audio(folder: Path) -> list[Path]:
    """List audio files, the least nested first; hidden files and macOS leftovers do not count."""
    found = []
    for where, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(HIDDEN)]
        shown = (Path(where, name) for name in names if not name.startswith(HIDDEN))
        found += [path for path in shown if path.suffix.lower() in AUDIO_SUFFIXES]
    return sorted(found, key=lambda path: (len(path.parts), path.as_posix()))


def list_recordings(corpus: Corpus, folder: Path) -> list[Path]:
    """List the audio files of a corpus folder; FileNotFoundError if there is none."""
    if listed := list_audio(folder):
        return listed
    raise FileNotFoundError(explain_absence(corpus, folder))


def read_index(corpus: Corpus) -> pd.DataFrame | None:
    """Read data/index/<name>.csv by recording (its path without suffix); None if there is none."""
    path = paths.INDEX_DIR / f"{corpus.name}.csv"
    if not path.exists():
        return None
    index = pd.read_csv(path)
    return index.set_index(index["path"].str.rsplit(".", n=1).str[0].rename("recording"))


def match_recordings(corpus: Corpus, folder: Path, *, by_name: bool = False) -> dict[str, Path]:
    """Map each recording of the corpus that is below a folder, by its official path, to its file.

    The index decides upper and lower case (copies of TESS differ in it) and, with `by_name`,
    the folder of a file that lies in another one than the official.
    """
    index = read_index(corpus)
    official = [] if index is None else list(index.index)
    spelling = {recording.casefold(): recording for recording in official}
    places = {PurePosixPath(recording).name: recording for recording in official}
    found: dict[str, Path] = {}
    for path in list_audio(folder):
        try:
            labels = parse_path(corpus, path.relative_to(folder).as_posix())
            recording = labels["utterance"].removeprefix(f"{corpus.name}/")
            recording = spelling.get(recording.casefold(), recording)
        except ValueError:
            recording = places.get(path.stem) if by_name else None
        if recording is not None:
            found.setdefault(recording, path)
    return found


def read_folder_labels(folder: Path) -> list[dict[str, str]]:
    """List path, emotion and speaker of the audio in a folder with one sub-folder per emotion."""
    rows, num_alone = [], 0
    for path in list_audio(folder):
        relative = path.relative_to(folder)
        speaker, underscore, _ = path.stem.partition("_")
        if not (speaker and underscore):
            speaker = relative.with_suffix("").as_posix()
            num_alone += 1
        emotion = relative.parts[0].strip().lower() if len(relative.parts) > 1 else ""
        rows.append({"path": relative.as_posix(), "emotion": emotion, "speaker": speaker})
    if not rows:
        raise FileNotFoundError(
            f"{folder}: no audio below it; put recordings into one sub-folder per emotion, "
            f"such as {folder / 'angry' / 'anna_01.wav'}"
        )
    if num_alone:
        warnings.warn(
            f"{folder}: {num_alone} of {len(rows)} file names have no '_', so each counts as a "
            "speaker of its own and one person may be in training and test: name the files "
            "<speaker>_<anything>, or give a CSV with path, emotion and speaker",
            stacklevel=3,
        )
    return rows


def read_csv_labels(csv: Path, folder: Path) -> list[dict[str, str]]:
    """List path, emotion, speaker and what else is known of the recordings that a CSV names."""
    if not csv.is_file():
        raise FileNotFoundError(f"{csv}: no such file; give a CSV with path, emotion and speaker")
    table = pd.read_csv(csv, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    missing = [column for column in ("path", "emotion", "speaker") if column not in table]
    if missing:
        raise ValueError(
            f"{csv}: no column {', '.join(missing)} among {', '.join(table.columns)}; "
            f"add it (path is relative to {folder})"
        )
    known = [column for column in COLUMNS if column in table]
    table = table[known].apply(lambda column: column.str.strip())
    table["emotion"] = table["emotion"].str.lower()
    return table.to_dict("records")


def scan_recordings(recordings: list[Path], folder: Path) -> list[dict]:
    """Run `audio.scan_recording` on files, in parallel and in their order.

    The result is cached per file, size and modification time, and per text of `audio.py`,
    whose rules decide what is usable. A cache that cannot be written raises a warning only.
    """
    rules = Path(audio.__file__).read_bytes()
    digest = hashlib.sha256(f"{folder}".encode() + rules).hexdigest()[:16]
    cache = paths.CACHE_DIR / f"recordings-{digest}.json"
    try:
        known = dict(json.loads(cache.read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError):
        known = {}
    states = dict.fromkeys(map(str, recordings))
    for path in filter(Path.exists, recordings):
        states[str(path)] = [path.stat().st_size, path.stat().st_mtime_ns]
    stale = [key for key, state in states.items() if known.get(key, {}).get("state") != state]
    if stale:
        work = (joblib.delayed(audio.scan_recording)(path) for path in stale)
        scans = joblib.Parallel(n_jobs=-1, prefer="threads", return_as="generator")(work)
        bar = tqdm(scans, total=len(stale), desc="recordings", unit="file", leave=False)
        for key, scan in zip(stale, bar, strict=True):
            known[key] = {"state": states[key], "scan": scan}
        try:
            write_json(cache, known)
        except OSError as error:
            warnings.warn(
                f"{cache}: could not be written ({error}), so every recording is read again next "
                "time; free some space or set SER_DATA_DIR to a folder that can be written to",
                stacklevel=4,
            )
    return [known[str(path)]["scan"] for path in recordings]
