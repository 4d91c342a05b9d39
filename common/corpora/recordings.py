"""The recordings of a corpus on disk: finding them, reading their names, scanning them."""

import hashlib
import json
import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path, PurePosixPath

import joblib
import pandas as pd
from tqdm.auto import tqdm

from common import audio, containers, decoding, paths, problems
from common.corpora.records import CORPORA, INTENSITIES, Corpus
from common.files import digest, write_json

COLUMNS = (
    *("utterance", "path", "corpus", "speaker", "gender", "emotion", "intensity"),
    *("statement", "repetition", "seconds", "audio_hash"),
)
AUDIO_SUFFIXES = frozenset(
    [
        *(".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc"),
        *(".au", ".snd", ".caf", ".w64", ".rf64", ".m4a", ".webm", ".mka", ".aac", ".amr", ".wma"),
        *(".3gp", ".3gpp", ".3g2", ".mp4", ".mov", ".m4b", ".mkv", ".weba", ".awb"),
    ]
)
# How recordings begin, for those whose name does not tell.
_BEGINNINGS = re.compile(
    rb"RIF[FX]....WAVE|RF64|riff\x2e\x91|fLaC|OggS|ID3[\2-\4]|FORM....AIF[FC]|caff\0|\.snd\0|"
    rb"....ftyp|\x1aE\xdf\xa3|#!AMR|0&\xb2u|\xff[\xf1-\xf3\xf9-\xfb]",
    re.DOTALL,
)
# What else lies beside recordings; so does text, which no control characters tell from sound.
_OTHER_SUFFIXES = frozenset(
    [
        *(".txt", ".csv", ".tsv", ".pdf", ".doc", ".docx", ".odt", ".xls", ".xlsx", ".ods", ".ini"),
        *(".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".heic", ".npy"),
        *(".npz", ".zip", ".gz", ".tar", ".7z", ".rar", ".part", ".db"),
    ]
)
_CONTROLS = re.compile(rb"[\0-\x08\x0e-\x1a]")
_HIDDEN = (".", "__MACOSX")


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
    song = "03-0[12]-" if include_song else "03-01-"
    pattern, mirror = (
        rf"(?:^|/)(?P<recording>{text.replace('03-01-', song)})$"
        for text in (corpus.pattern, corpus.mirror)
    )
    stem, spelling = PurePosixPath(path).with_suffix("").as_posix(), read_spelling(corpus)
    match = re.search(pattern, stem)
    if corpus.mirror and not match and (copy := re.search(mirror, stem)):
        name = PurePosixPath(stem).name
        official = corpus.layout.format(name=name, **copy.groupdict())
        match = re.search(pattern, spelling.get(name.casefold(), official))
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
    recording = spelling.get(labels["recording"].casefold(), labels["recording"])
    return {
        "utterance": f"{corpus.name}/{recording}",
        "corpus": corpus.name,
        "speaker": labels["speaker"],
        "gender": corpus.genders[labels["speaker"]],
        "emotion": corpus.emotions[labels["emotion"]],
        "intensity": INTENSITIES.get(labels.get("intensity"), ""),
        "statement": labels.get("statement", ""),
        "repetition": labels.get("repetition", ""),
    }


def name_recording(corpus: Corpus, path: str) -> str:
    """Give the official path of a recording, without suffix; errors are as in `parse_path`."""
    return parse_path(corpus, path)["utterance"].removeprefix(f"{corpus.name}/")


def walk_files(folder: Path, report: Callable[[Path | str, str], None]) -> Iterator[Path]:
    """Give each file below a folder, also behind links; hidden ones and macOS leftovers not.

    A folder that is there as itself and behind links is walked once, as itself. `report` is called
    with a path and its problem: a link to what is walked elsewhere, a folder that is closed.
    """

    def fail(error: OSError) -> None:
        report(error.filename, f"cannot be opened ({error.strerror}); change its permissions")

    starts, seen = [folder], set()
    for start in starts:  # and the links that are found on the way
        for where, folders, names in os.walk(start, onerror=fail):
            real = Path(where).resolve()
            if real in seen:
                folders.clear()
                if not Path(where).parent.resolve().is_relative_to(real):
                    report(where, f"leads to {real}, which is read already; remove the link")
                continue
            seen.add(real)
            folders[:] = sorted(name for name in folders if not name.startswith(_HIDDEN))
            starts += [Path(where, name) for name in folders if Path(where, name).is_symlink()]
            yield from (Path(where, name) for name in names if not name.startswith(_HIDDEN))


def list_audio(folder: Path, *, left_out: list[dict] | None = None) -> list[Path]:
    """List the recordings below a folder, the least nested first.

    They are told by their suffix, or else by their beginning. What is evidently none, such as text
    and pictures, does not count. What else is not listed is entered into `left_out` with its
    problem: what `walk_files` reports, links to recordings that are listed, names that are not
    UTF-8, and what may be sound or not.
    """
    left_out = [] if left_out is None else left_out

    def report(path: Path | str, problem: str) -> None:
        left_out.append({"path": os.fsencode(path).decode(errors="replace"), "problem": problem})

    found = []
    for path in walk_files(folder, report):
        problem = _judge(path)
        if problem is not None and any("\udc80" <= letter <= "\udcff" for letter in str(path)):
            problem = "its name is not UTF-8; rename it"
        if problem:
            report(path, problem)
        elif problem is not None:
            found.append(path)
    real = {os.path.realpath(path) for path in found if not path.is_symlink()}
    for path in [path for path in found if path.is_symlink()]:
        if os.path.realpath(path) in real:
            report(path, f"leads to {path.resolve()}, which is read already; remove the link")
            found.remove(path)
    return sorted(found, key=lambda path: (len(path.parts), path.as_posix()))


def _judge(path: Path) -> str | None:
    """Give "" for a recording, by suffix or beginning, None for evidently none, or the problem."""
    suffix = path.suffix.lower()
    if suffix in AUDIO_SUFFIXES:
        return ""
    try:
        with audio.open_regular(path) as file:
            start = file.read(512)
    except (OSError, ValueError) as error:
        return None if suffix in _OTHER_SUFFIXES else str(error)
    if _BEGINNINGS.match(start):
        return ""
    if suffix not in _OTHER_SUFFIXES and start.startswith(b"version https://git-lfs"):
        return ""  # in the place of what may be a recording
    if suffix in _OTHER_SUFFIXES or (start and not _CONTROLS.search(start)):
        return None
    return "no sound by its name or its beginning; export it as WAV if it is a recording"


def list_recordings(
    corpus: Corpus, folder: Path, *, left_out: list[dict] | None = None
) -> list[Path]:
    """List the audio files of a corpus folder; FileNotFoundError if there is none."""
    if listed := list_audio(folder, left_out=left_out):
        return listed
    raise FileNotFoundError(explain_absence(corpus, folder))


def read_index(corpus: Corpus) -> pd.DataFrame | None:
    """Read data/index/<name>.csv by recording (its path without suffix); None if there is none.

    Its columns are path, sha256, bytes, sample_rate (hertz), channels, frames and seconds, or path
    alone where no more is known.
    """
    path = paths.INDEX_DIR / f"{corpus.name}.csv"
    if not path.exists():
        return None
    index = pd.read_csv(path)
    return index.set_index(index["path"].str.rsplit(".", n=1).str[0].rename("recording"))


def read_spelling(corpus: Corpus) -> dict[str, str]:
    """Give the recordings of the index by their names in lower case; copies of TESS differ.

    Names without their folder are there too, where one recording alone has them.
    """
    path = paths.INDEX_DIR / f"{corpus.name}.csv"
    return _read_spelling(path, path.stat().st_mtime_ns) if path.exists() else {}


@lru_cache
def _read_spelling(path: Path, _: int) -> dict[str, str]:
    names = pd.read_csv(path, usecols=["path"])["path"].str.rsplit(".", n=1).str[0]
    bare = names.str.rpartition("/")[2].drop_duplicates(keep=False)
    keys = pd.concat([bare, names]).str.casefold()
    return dict(zip(keys, names[keys.index], strict=True))


def match_recordings(corpus: Corpus, folder: Path) -> dict[str, Path]:
    """Map each recording of the corpus below a folder, by its official path, to its file."""
    found: dict[str, Path] = {}
    for path in list_audio(folder):
        with suppress(ValueError):
            found.setdefault(name_recording(corpus, path.as_posix()), path)
    return found


def scan_recordings(recordings: list[Path], folder: Path, *, fresh: bool = False) -> list[dict]:
    """Run `audio.scan_recording` on files, in parallel and in their order.

    The result is cached per file, size and times of change, and per text of the modules whose
    rules decide what is usable; `fresh` reads every byte again. A cache that is damaged is made
    again. A cache that cannot be written raises a warning only.
    """
    modules = audio, containers, decoding, problems
    rules = b"".join(Path(module.__file__).read_bytes() for module in modules)
    name = hashlib.sha256(f"{folder}".encode() + rules).hexdigest()[:16]
    cache = paths.CACHE_DIR / f"recordings-{name}.json"
    known = {} if fresh else _read_scans(cache)
    states = {}
    for path in recordings:
        status = path.stat() if path.exists() else None
        states[str(path)] = status and [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    stale = [key for key in states if key not in known or known[key].get("state") != states[key]]
    if stale:
        work = (joblib.delayed(audio.scan_recording)(path) for path in stale)
        scans = joblib.Parallel(n_jobs=-1, prefer="threads", return_as="generator")(work)
        bar = tqdm(scans, total=len(stale), desc="recordings", unit="file", leave=False)
        for key, scan in zip(stale, bar, strict=True):
            known[key] = {"state": states[key], "scan": scan}
        try:
            write_json(cache, {"digest": digest(known), "scans": known})
        except OSError as error:
            warnings.warn(
                f"{cache}: could not be written ({error}), so every recording is read again next "
                "time; free some space or set SER_DATA_DIR to a folder that can be written to",
                stacklevel=4,
            )
    return [known[str(path)]["scan"] for path in recordings]


def _read_scans(cache: Path) -> dict[str, dict]:
    """Read the cache, and warn where it is not what was written."""
    try:
        content = json.loads(cache.read_text(encoding="utf-8"))
        if content["digest"] == digest(content["scans"]):
            return content["scans"]
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    warnings.warn(f"{cache}: this cache is damaged and is made again", stacklevel=1)
    return {}
