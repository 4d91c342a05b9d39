"""Put a corpus in place: from the download to the official layout."""

from pathlib import Path

from common.corpora.recordings import explain_absence, find_corpus, match_recordings, read_index
from common.downloads import download_archive, unpack_archive
from common.files import hash_file


def fetch_corpus(name: str, *, folder: str | Path | None = None) -> Path:
    """Download a corpus, check it and put it in place, unless it is there; return its folder.

    The archive is checked against the published size and MD5, or, where none is known,
    every recording in it against data/index. Only recordings are taken out of it, each into
    its official place. `name` and `folder` are as in `load_corpus`.

    Raises FileNotFoundError, which says how to get it, if the corpus may not or cannot be fetched;
    OSError if the download stopped (call again to continue it); ValueError if what was downloaded
    is not what was published.
    """
    corpus, folder = find_corpus(name, folder)
    num_there = len(match_recordings(corpus, folder))
    if num_there >= corpus.num_utterances:
        return folder
    source = corpus.archive
    if source is None:
        raise FileNotFoundError(explain_absence(corpus, folder, num_there=num_there))
    archive = download_archive(
        source.url, folder / source.file_name, num_bytes=source.num_bytes, checksum=source.checksum
    )
    with unpack_archive(archive, folder) as unpacked:
        found = match_recordings(corpus, unpacked, by_name=True)
        good = list(found)
        if source.checksum is None:
            published = read_index(corpus)["sha256"]
            good = [key for key in found if hash_file(found[key]) == published.get(key)]
        if len(good) < corpus.num_utterances:
            raise ValueError(
                f"{archive}: only {len(good)} of {corpus.num_utterances} recordings are in it as "
                f"published, so none was put in place. Delete it and get {corpus.title} by hand "
                f"from {corpus.homepage}"
            )
        for recording, path in found.items():
            target = folder / f"{recording}{path.suffix.lower()}"
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
    archive.unlink()
    return folder
