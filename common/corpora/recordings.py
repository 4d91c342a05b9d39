"""The recordings of a corpus on disk: finding them, reading their names, scanning them."""

import hashlib
import json
import os
import re
import warnings
from functools import lru_cache
from pathlib import Path, PurePosixPath

import joblib
import pandas as pd
from tqdm.auto import tqdm

from common import audio, decoding, paths
from common.corpora.records import CORPORA, INTENSITIES, Corpus
from common.files import write_json

COLUMNS = (
    *("utterance", "path", "corpus", "speaker", "gender", "emotion", "intensity"),
    *("statement", "repetition", "seconds", "audio_hash"),
)
AUDIO_SUFFIXES = frozenset(
    [
        *(".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc"),
        *(".au", ".snd", ".caf", ".w64", ".rf64", ".m4a", ".webm", ".mka", ".aac", ".amr", ".wma"),
    ]
)
# How recordings begin, for those whose name does not tell.
_BEGINNINGS = (b"RIFF", b"RF64", b"fLaC", b"OggS", b"ID3", b"FORM", b"caff", b".snd")
SCAN_FACTS = {"sha256", "sample_rate_hertz", "channels", "frames", "seconds", "peak", "problem"}


def find_corpus(name: str, folder: str | Path | None) -> tuple[Corpus, Path]:
    """Look up a corpus and the folder it belongs in; an unknown name raises ValueError."""
    if name not in CORPORA:
        raise ValueError(f"unknown corpus {name!r}; choose one of {', '.join(CORPORA)}")
    if folder is None:
        folder = paths.SAMPLE_DIR if name == "sample" else paths.RAW_DIR / name
    return CORPORA[name], Path(folder).expanduser().resolve()


def explain_absence(corpus: Corpus, folder: Path) -> str:
    """Say what is missing, how to get it and where to put it."""
    return (
        f"{folder}: 0 of the {corpus.num_utterances} recordings of {corpus.title} are here. "
        f"{corpus.how_to_get} Put it so that {folder / corpus.example} exists."
    )


def explain_part(corpus: Corpus, folder: Path, num_there: int) -> str:
    """Say how much of a corpus is there, what that means and how to get the rest."""
    rest = corpus.how_to_get
    if corpus.archive:
        rest = (
            f"For the rest put {corpus.archive.file_name} from {corpus.homepage} beside them, or "
            f"empty the folder, and call fetch_corpus('{corpus.name}', folder=…) again."
        )
    return (
        f"{folder}: {num_there} of the {corpus.num_utterances} recordings of {corpus.title} are "
        f"here, so results are of a part of it. {rest}"
    )


def parse_path(corpus: Corpus, path: str, *, include_song: bool = False) -> dict[str, str]:
    """Read the labels out of a recording's path.

    Folders above the official layout are ignored, and copies that are laid out otherwise are
    understood where their names are unmistakable: an utterance has one name wherever it lies, with
    the index's upper and lower case. Gives the columns utterance, corpus, speaker, gender,
    emotion, intensity, statement and repetition; empty text where the name does not tell. Raises
    ValueError if the name is outside the grammar, or the emotion or the speaker is unknown.
    """
    stem = PurePosixPath(path).with_suffix("").as_posix()
    for pattern, layout in ((corpus.pattern, "{recording}"), (corpus.mirror, corpus.layout)):
        if include_song:
            pattern = pattern.replace("03-01-", "03-0[12]-")
        match = re.search(rf"(?:^|/)(?P<recording>{pattern})$", stem) if pattern else None
        if match:
            labels = match.groupdict()
            labels["recording"] = layout.format(name=PurePosixPath(stem).name, **labels)
            break
    else:
        raise ValueError(
            f"not a recording of {corpus.title} by its name; expected the like of "
            f"{corpus.example}: rename it or move it out of the folder"
        )
    if labels["emotion"] not in corpus.emotions:
        known = ", ".join(f"{code} {label}" for code, label in corpus.emotions.items())
        raise ValueError(f"unknown emotion code {labels['emotion']!r}; {corpus.title} has {known}")
    if labels["speaker"] not in corpus.genders:
        raise ValueError(
            f"unknown speaker {labels['speaker']!r}; {corpus.title} has {corpus.num_speakers}, "
            f"{min(corpus.genders)} to {max(corpus.genders)}"
        )
    spelling = read_spelling(corpus).get(labels["recording"].casefold(), labels["recording"])
    return {
        "utterance": f"{corpus.name}/{spelling}",
        "corpus": corpus.name,
        "speaker": labels["speaker"],
        "gender": corpus.genders[labels["speaker"]],
        "emotion": corpus.emotions[labels["emotion"]],
        "intensity": INTENSITIES.get(labels.get("intensity"), ""),
        "statement": labels.get("statement", ""),
        "repetition": labels.get("repetition", ""),
    }


def list_audio(folder: Path, *, left_out: list[dict] | None = None) -> list[Path]:
    """List the recordings below a folder, the least nested first.

    Hidden files and macOS leftovers do not count, nor what is no sound by name and beginning. A
    folder that is linked to from below itself is listed once. What cannot be listed, since a
    folder cannot be opened or a name is not UTF-8, is entered into `left_out` with its problem.
    """
    left_out = [] if left_out is None else left_out

    def report(path: Path | str | None, problem: str) -> None:
        left_out.append({"path": os.fsencode(path).decode(errors="replace"), "problem": problem})

    def fail(error: OSError) -> None:
        report(error.filename, f"cannot be opened ({error.strerror}); change its permissions")

    found, seen = [], set()
    for where, folders, names in os.walk(folder, followlinks=True, onerror=fail):
        seen.add(os.path.realpath(where))
        folders[:] = [
            name
            for name in sorted(folders)
            if not name.startswith((".", "__MACOSX"))
            and os.path.realpath(Path(where, name)) not in seen
        ]
        for name in names:
            path = Path(where, name)
            if name.startswith((".", "__MACOSX")) or not _is_audio(path):
                continue
            if any("\udc80" <= letter <= "\udcff" for letter in str(path)):
                report(path, "its name is not UTF-8; rename it")
            else:
                found.append(path)
    return sorted(found, key=lambda path: (len(path.parts), path.as_posix()))


def _is_audio(path: Path) -> bool:
    """Whether a file is a recording by its suffix, or else by its beginning if it has none."""
    if path.suffix:
        return path.suffix.lower() in AUDIO_SUFFIXES
    try:
        with audio.open_regular(path) as file:
            return file.read(12).startswith(_BEGINNINGS)
    except (OSError, ValueError):
        return False


def list_recordings(
    corpus: Corpus, folder: Path, *, left_out: list[dict] | None = None
) -> list[Path]:
    """List the audio files of a corpus folder; FileNotFoundError if there is none."""
    listed = list_audio(folder, left_out=left_out) if folder.is_dir() else []
    if not listed:
        raise FileNotFoundError(explain_absence(corpus, folder))
    return listed


def read_index(corpus: Corpus) -> pd.DataFrame | None:
    """Read data/index/<name>.csv by recording (its path without suffix); None if there is none."""
    path = paths.INDEX_DIR / f"{corpus.name}.csv"
    if not path.exists():
        return None
    index = pd.read_csv(path)
    return index.set_index(index["path"].str.rsplit(".", n=1).str[0].rename("recording"))


def read_spelling(corpus: Corpus) -> dict[str, str]:
    """Give the recordings of the index by their names in lower case; copies of TESS differ."""
    path = paths.INDEX_DIR / f"{corpus.name}.csv"
    return _read_spelling(path, path.stat().st_mtime_ns) if path.exists() else {}


@lru_cache
def _read_spelling(path: Path, _: int) -> dict[str, str]:
    names = pd.read_csv(path, usecols=["path"])["path"].str.rsplit(".", n=1).str[0]
    return {name.casefold(): name for name in names}


def match_recordings(corpus: Corpus, folder: Path, *, by_name: bool = False) -> dict[str, Path]:
    """Map each recording of the corpus that is below a folder, by its official path, to its file.

    With `by_name` the index decides the folder of a file that lies in another than the official.
    """
    places = {PurePosixPath(name).name: name for name in read_spelling(corpus).values()}
    found: dict[str, Path] = {}
    for path in list_audio(folder):
        try:
            labels = parse_path(corpus, path.as_posix())
            recording = labels["utterance"].removeprefix(f"{corpus.name}/")
        except ValueError:
            recording = places.get(path.stem) if by_name else None
        if recording is not None:
            found.setdefault(recording, path)
    return found


def scan_recordings(recordings: list[Path], folder: Path, *, fresh: bool = False) -> list[dict]:
    """Run `audio.scan_recording` on files, in parallel and in their order.

    The result is cached per file, size and modification time, and per text of the modules whose
    rules decide what is usable; `fresh` reads every byte again. What is damaged in the cache is
    made again. A cache that cannot be written raises a warning only.
    """
    rules = b"".join(Path(module.__file__).read_bytes() for module in (audio, decoding))
    digest = hashlib.sha256(f"{folder}".encode() + rules).hexdigest()[:16]
    cache = paths.CACHE_DIR / f"recordings-{digest}.json"
    known = {} if fresh else _read_scans(cache)
    states = {}
    for path in recordings:
        status = path.stat() if path.exists() else None
        states[str(path)] = [status.st_size, status.st_mtime_ns] if status else None
    stale = [
        key for key, state in states.items() if key not in known or known[key].get("state") != state
    ]
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


def _read_scans(cache: Path) -> dict[str, dict]:
    """Read what is whole in the cache; warn where something is not."""
    try:
        content = json.loads(cache.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, RecursionError):
        content = None
    whole = {
        key: entry
        for key, entry in (content.items() if isinstance(content, dict) else ())
        if isinstance(entry, dict)
        and isinstance(entry.get("scan"), dict)
        and set(entry["scan"]) == SCAN_FACTS
    }
    if whole != content:
        warnings.warn(f"{cache}: this cache is damaged and is made again", stacklevel=1)
    return whole
