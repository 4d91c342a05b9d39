"""On Colab, whose disk is lost with the session: keep what is downloaded and computed."""

import os
import sys
from pathlib import Path

MOUNT = Path("/content/drive")


def keep_on_drive() -> Path | None:
    """Mount one's Google Drive and let all data lie there, in MyDrive/speech-emotion-data.

    Sets SER_DATA_DIR to that folder and gives it. What ships with the repository, the sample
    corpus and the indices, stays where it is. Anywhere but on Colab a line says that nothing was
    done, and None is given. Raises RuntimeError if the place of the data was already read in this
    session: from then on it is fixed.
    """
    if "google.colab" not in sys.modules:
        print("DRIVE is for Colab alone: data stays where SER_DATA_DIR says, or in data/.")
        return None
    from google.colab import drive

    folder = MOUNT / "MyDrive" / "speech-emotion-data"
    paths = sys.modules.get("common.paths")
    if paths is not None and folder.resolve() != paths.DATA_DIR:
        raise RuntimeError(
            f"data already lies in {paths.DATA_DIR} in this session: restart it (Runtime, Restart "
            "session), then run the set-up cell with DRIVE = True first"
        )
    drive.mount(str(MOUNT))
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["SER_DATA_DIR"] = str(folder)
    print(f"Corpora and runs are kept in {folder}, on your Google Drive.")
    return folder
