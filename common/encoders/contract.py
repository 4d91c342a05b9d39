"""What every pretrained encoder keeps to, and the registry that encoders enter themselves in."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import numpy as np

from common import paths
from common.audio import SAMPLE_RATE_HERTZ, fix_length


@dataclass(frozen=True)
class EncoderRecord:
    """What is known of an encoder. It gives `num_dimensions` numbers per `hop_seconds`.

    `url` is where the published weights are, `num_bytes` and `checksum` those of the file, if the
    publisher gives them. `revision` is the commit of a repository on Hugging Face, and `digest`
    what the published weights of a SavedModel are called by `digest_saved_model`, where it is
    known. `file_name` is what they are called in `data/pretrained`, a file that
    needs no PyTorch or the folder of a model; None: as the encoder. One embedding needs
    `window_seconds` of sound; None: any length will do. Where there are `num_layers`, there is one
    embedding per layer in place of one per hop. `trainable`: there is a Keras network.
    """

    name: str
    title: str
    num_dimensions: int
    hop_seconds: float
    url: str
    homepage: str
    licence: str
    citation: str
    num_bytes: int | None = None
    checksum: str | None = None
    revision: str | None = None
    digest: str | None = None
    file_name: str | None = None
    window_seconds: float | None = None
    num_layers: int | None = None
    trainable: bool = False

    @property
    def path(self) -> Path:
        """Where the published weights are looked for and put."""
        return paths.PRETRAINED_DIR / (self.file_name or self.name)

    @property
    def hop_length(self) -> int:
        return round(self.hop_seconds * SAMPLE_RATE_HERTZ)

    @property
    def window_length(self) -> int:
        return round((self.window_seconds or self.hop_seconds) * SAMPLE_RATE_HERTZ)

    def count_samples(self, duration_seconds: float) -> int:
        """Give the samples to cut to: `duration_seconds`, and then up to whole embeddings."""
        num_samples = round(duration_seconds * SAMPLE_RATE_HERTZ)
        if self.window_seconds is None:
            return num_samples
        surplus = max(0, num_samples - self.window_length)
        return self.window_length + -(-surplus // self.hop_length) * self.hop_length

    def count_embeddings(self, num_samples: int) -> int:
        """Give how many embeddings whole windows make of a waveform of that length."""
        return 1 + (num_samples - self.window_length) // self.hop_length


@dataclass(frozen=True)
class Encoder:
    """An encoder with its weights, which `digest` names.

    `front_end` turns waveforms (batch, samples), cut or padded to `num_samples`, into what
    `network` reads, (batch, frames, bands); `network` gives (batch, embeddings, dimensions). It is
    a Keras model, or, without a front end, a function that reads waveforms.
    """

    record: EncoderRecord
    front_end: Callable | None
    network: Callable
    num_samples: int
    digest: str

    def prepare(self, waveform: np.ndarray) -> np.ndarray:
        """Give what the network reads, without its batch axis, of a waveform (samples,)."""
        waveform = fix_length(waveform, self.num_samples).astype(np.float32)
        if self.front_end is None:
            return waveform
        return np.asarray(self.front_end(waveform[None]))[0]

    def embed(self, waveform: np.ndarray) -> np.ndarray:
        """Give the embeddings, (embeddings, dimensions), float32, of a waveform (samples,)."""
        values = self.network(self.prepare(waveform)[None], training=False)
        return np.asarray(values)[0].astype(np.float32, copy=False)


Arrays = dict[str, np.ndarray]
Weights = str | Path
Load = Callable[[EncoderRecord, Weights, int, bool], Encoder]
ENCODERS: dict[str, EncoderRecord] = {}
LOADERS: dict[str, Load] = {}
FOLDER = Path(__file__).parent
SHARED = {"contract", "extraction", "stages", "weights"}  # what is no encoder's file
SHARED |= {"whisper_graph", "whisper_weights"}


def register(*records: EncoderRecord) -> Callable[[Load], Load]:
    """Enter encoders under their names, with the decorated function as what loads them."""

    def enter(load: Load) -> Load:
        for record in records:
            ENCODERS[record.name], LOADERS[record.name] = record, load
        return load

    return enter


def enter_all() -> None:
    """Import every encoder's file, which enters it."""
    for module in iter_modules([str(FOLDER)]):
        if module.name not in SHARED:
            import_module(f"{__package__}.{module.name}")


def load_encoder(
    name: str,
    *,
    weights: Weights = "published",
    duration_seconds: float = 2.5,
    trainable: bool = False,
) -> Encoder:
    """Load an encoder; its weights are fetched the first time.

    `weights` is "published", which are put into `data/pretrained`; the path of one's own: an .npz
    file for BYOL-S, .h5 for VGG16, the folder of a SavedModel for YAMNet and VGGish, the checkpoint
    for a trainable VGGish, the folder of a model of `transformers`, for whisper_base and the like
    with model.safetensors in it; or "random": a stand-in that knows nothing, to try code on. It
    has the same inputs and outputs, but that of Whisper or another model of `transformers` has
    fewer layers and dimensions, as its `record` then says.

    Of each utterance the middle `duration_seconds` are kept; shorter ones are padded. Most take
    somewhat more, so that whole windows fit: for 2.5 s YAMNet and VGGish take 2.895 s, VGG16 2.56.

    With `trainable` VGGish is a Keras network, to be trained further, in place of the SavedModel,
    which is quicker to load. A SavedModel runs code, so give the folder of one that you trust:
    YAMNet's is compared with what was published before it is loaded, of VGGish's no digest is
    known. BYOL-S and VGG16 are always Keras networks. whisper_tiny, _base and _small need no
    PyTorch: frozen they give every layer's mean and deviation, trainable they are Keras networks,
    of which `whisper.cut_whisper` trains the upper layers alone.

    Raises ValueError if there is no such encoder or what is read is not what was published,
    OSError if nothing is at that path or the download fails, ImportError if what reads the weights
    is missing.
    """
    enter_all()
    if name not in ENCODERS:
        raise ValueError(f"encoder {name!r} is unknown; choose from {sorted(ENCODERS)}")
    record = ENCODERS[name]
    if trainable and not record.trainable:
        others = " or ".join(sorted(key for key, other in ENCODERS.items() if other.trainable))
        raise ValueError(f"{record.title} cannot be trained further; choose {others}")
    return LOADERS[name](record, weights, record.count_samples(duration_seconds), trainable)
