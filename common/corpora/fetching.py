"""Put a corpus in place: from the download to the official layout."""

import re
from contextlib import suppress
from pathlib import Path

from common import paths
from common.corpora.recordings import (
    explain_absence,
    find_corpus,
    list_audio,
    match_recordings,
    name_recording,
    read_index,
)
from common.corpora.records import Corpus, Published
from common.downloads import download_archive, lock, unpack_archive
from common.files import hash_file


def fetch_corpus(name: str, *, folder: str | Path | None = None) -> Path:
    """Download a corpus, check it and put it in place; do nothing if it is there already.

    A part of it that is there is used as it is, and `load_corpus` says so: whoever has a third of a
    corpus may want that third. Its archive beside it, copied by hand or left by a call that was
    interrupted, fills up the rest. Of two processes that want one corpus one waits for the other.

    The archive is checked against the published size and MD5, or, where none is known,
    every recording in it against data/index. Only recordings are taken out of it, each into
    its official place.

    `name` and `folder` are as in `load_corpus`; the folder is returned. Raises FileNotFoundError,
    which says how to get it, if nothing is there and the corpus may not be fetched; OSError if the
    download stopped (call again to continue it); ValueError if what came is not what was published.
    """
    corpus, folder = find_corpus(name, folder)
    if len(match_recordings(corpus, folder)) < corpus.num_utterances:
        with lock(folder):
            _fetch(corpus, folder)
    return folder


def fetch_checksums(corpus: Corpus) -> dict[str, str]:
    """Download the list of a corpus's checksums into data/cache once: SHA-256 by recording.

    Raises OSError if it does not come, ValueError if what came is not what was published.
    """
    path = _download(corpus.checksums, paths.CACHE_DIR)
    checksums = {}
    for name, sha256 in re.findall(r"/([^/\s]+)\s+\d+\s+([0-9a-f]{64})\b", path.read_text("utf-8")):
        with suppress(ValueError):  # a file that is no recording
            checksums[name_recording(corpus, name)] = sha256
    return checksums


def _download(source: Published, folder: Path) -> Path:
    facts = {"num_bytes": source.num_bytes, "checksum": source.checksum}
    return download_archive(source.url, folder / source.file_name, **facts)


def _fetch(corpus: Corpus, folder: Path) -> None:
    num_there, source = len(match_recordings(corpus, folder)), corpus.archive
    if num_there >= corpus.num_utterances:  # another process has put it there
        return
    if not _has_archive(source, folder):
        if num_there:
            return
        if source is None:
            raise FileNotFoundError(explain_absence(corpus, folder))
        if others := list_audio(folder):
            raise FileNotFoundError(
                f"{folder}: no recording of {corpus.title} among {len(others)}, such as "
                f"{others[0].name}; to use these give them a name of their own, such as corpus = "
                "'my_corpus', and for the corpus an empty folder"
            )
    archive = _download(source, folder)
    with unpack_archive(archive, folder) as unpacked:
        found = match_recordings(corpus, unpacked)
        if source.checksum is None:
            published = read_index(corpus)["sha256"].to_dict()
            good = [key for key in found if hash_file(found[key]) == published.get(key)]
        else:
            good = list(found)
        if len(good) < corpus.num_utterances:
            raise ValueError(
                f"{archive}: only {len(good)} of {corpus.num_utterances} recordings are in it as "
                f"published, so none was put in place. Delete it and get {corpus.title} by hand "
                f"from {corpus.homepage}"
            )
        for recording in good:
            target = folder / f"{recording}{found[recording].suffix.lower()}"
            target.parent.mkdir(parents=True, exist_ok=True)
            found[recording].replace(target)
    archive.unlink()


def _has_archive(source: Published | None, folder: Path) -> bool:
    """Whether the archive lies in the folder, whole as far as its size tells."""
    path = folder / source.file_name if source else None
    return bool(path and path.is_file() and source.num_bytes in (None, path.stat().st_size))
