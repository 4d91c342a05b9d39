"""What is known of each pretrained encoder: where it comes from, what it gives, how to cite it."""

from dataclasses import dataclass

from common.audio import SAMPLE_RATE_HERTZ


@dataclass(frozen=True)
class EncoderRecord:
    """What is known of an encoder. It gives `num_dimensions` numbers per `hop_seconds`.

    `url` is where the published weights are, or their handle on TensorFlow Hub; `num_bytes` and
    `checksum` are None where the publisher gives none. `file_name` is what they are called in
    `data/pretrained`: a file that needs no PyTorch, or the folder of a SavedModel. One embedding
    needs `window_seconds` of sound; None where any length will do.
    """

    title: str
    num_dimensions: int
    hop_seconds: float
    url: str
    num_bytes: int | None
    checksum: str | None
    file_name: str
    homepage: str
    licence: str
    citation: str
    window_seconds: float | None = None
    sample_rate_hertz: int = SAMPLE_RATE_HERTZ

    def count_samples(self, duration_seconds: float) -> int:
        """Give the samples to cut to: `duration_seconds`, and then up to whole embeddings."""
        num_samples = round(duration_seconds * self.sample_rate_hertz)
        if self.window_seconds is None:
            return num_samples
        window = round(self.window_seconds * self.sample_rate_hertz)
        hop = round(self.hop_seconds * self.sample_rate_hertz)
        return window + -(-max(0, num_samples - window) // hop) * hop

    def count_embeddings(self, num_samples: int) -> int:
        """Give how many embeddings whole windows make of a waveform of that length."""
        window = round((self.window_seconds or self.hop_seconds) * self.sample_rate_hertz)
        return 1 + (num_samples - window) // round(self.hop_seconds * self.sample_rate_hertz)


ENCODERS = {
    "byol_s": EncoderRecord(
        title="BYOL-S",
        num_dimensions=512,
        hop_seconds=0.08,
        url="https://raw.githubusercontent.com/Neclow/SERAB/"
        "8023cb75dc6f32a6f211bfbc83efe9491c41d8b7/SERAB/checkpoints/"
        "default512_BYOLAs64x96-2107281850-e100-bs256-lr0003-rs42.pth",
        num_bytes=2_409_434,
        checksum="sha256:449f5d0dc6b6fa8433d5e43769097520d3bc0fdae88977a7ac29e2e72ca51b52",
        file_name="byol_s_default512.npz",
        homepage="https://github.com/Neclow/SERAB",
        licence="MIT (SERAB); BYOL-A, whose design it follows, is for evaluation only (NTT)",
        citation="Scheidwasser-Clow, Kegler, Beckmann and Cernak, SERAB: A multi-lingual "
        "benchmark for speech emotion recognition, ICASSP 2022, arXiv:2110.03414",
    ),
    "yamnet": EncoderRecord(
        title="YAMNet",
        num_dimensions=1024,
        hop_seconds=0.48,
        window_seconds=0.975,
        url="https://tfhub.dev/google/yamnet/1",
        num_bytes=None,
        checksum=None,
        file_name="yamnet",
        homepage="https://www.kaggle.com/models/google/yamnet",
        licence="Apache License 2.0",
        citation="Plakal and Ellis, YAMNet, TensorFlow Model Garden, research/audioset/yamnet, "
        "2020; trained on AudioSet (Gemmeke et al., ICASSP 2017)",
    ),
    "vggish": EncoderRecord(
        title="VGGish",
        num_dimensions=128,
        hop_seconds=0.96,
        window_seconds=0.975,
        url="https://tfhub.dev/google/vggish/1",
        num_bytes=None,
        checksum=None,
        file_name="vggish",
        homepage="https://www.kaggle.com/models/google/vggish",
        licence="Apache License 2.0",
        citation="Hershey et al., CNN architectures for large-scale audio classification, "
        "ICASSP 2017, arXiv:1609.09430",
    ),
    "vgg16": EncoderRecord(
        title="VGG16",
        num_dimensions=512,
        hop_seconds=0.64,
        window_seconds=1.28,
        url="https://storage.googleapis.com/tensorflow/keras-applications/vgg16/"
        "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
        num_bytes=58_889_256,
        checksum="md5:6d6bbae143d832006294945121d1f1fc",
        file_name="vgg16_notop.h5",
        homepage="https://keras.io/api/applications/vgg/",
        licence="CC BY 4.0 (Visual Geometry Group, University of Oxford)",
        citation="Simonyan and Zisserman, Very deep convolutional networks for large-scale image "
        "recognition, ICLR 2015, arXiv:1409.1556; trained on ImageNet (Russakovsky et al., "
        "IJCV 2015)",
    ),
}
