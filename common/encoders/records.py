"""What is known of each pretrained encoder: where it comes from, what it gives, how to cite it."""

from dataclasses import dataclass

from common.audio import SAMPLE_RATE_HERTZ


@dataclass(frozen=True)
class EncoderRecord:
    """What is known of an encoder. It gives `num_dimensions` numbers per `hop_seconds`.

    `url` is where the published weights are, or their handle on TensorFlow Hub; `num_bytes` and
    `checksum` are None where the publisher gives none. `file_name` is what they are called in
    `data/pretrained`: a file that needs no PyTorch, or the folder of a model. One embedding
    needs `window_seconds` of sound; None where any length will do.

    Encoders that `transformers` reads name their `model_type` there. They give one embedding per
    layer: mean and deviation, over all frames of an utterance, of the `num_dimensions` / 2
    numbers that each of `num_layers` layers has per frame; the input of the first layer counts
    as one.
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
    model_type: str | None = None
    num_layers: int | None = None
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
    "wav2vec2": EncoderRecord(
        title="wav2vec 2.0",
        model_type="wav2vec2",
        num_layers=13,
        num_dimensions=2 * 768,
        hop_seconds=0.02,
        window_seconds=0.025,
        url="https://huggingface.co/facebook/wav2vec2-base",
        num_bytes=None,
        checksum=None,
        file_name="wav2vec2",
        homepage="https://github.com/facebookresearch/fairseq/tree/main/examples/wav2vec",
        licence="Apache License 2.0",
        citation="Baevski, Zhou, Mohamed and Auli, wav2vec 2.0: A framework for self-supervised "
        "learning of speech representations, NeurIPS 2020, arXiv:2006.11477",
    ),
    "hubert": EncoderRecord(
        title="HuBERT",
        model_type="hubert",
        num_layers=13,
        num_dimensions=2 * 768,
        hop_seconds=0.02,
        window_seconds=0.025,
        url="https://huggingface.co/facebook/hubert-base-ls960",
        num_bytes=None,
        checksum=None,
        file_name="hubert",
        homepage="https://github.com/facebookresearch/fairseq/tree/main/examples/hubert",
        licence="Apache License 2.0",
        citation="Hsu, Bolte, Tsai, Lakhotia, Salakhutdinov and Mohamed, HuBERT: Self-supervised "
        "speech representation learning by masked prediction of hidden units, IEEE/ACM "
        "Transactions on Audio, Speech, and Language Processing 29, 2021, arXiv:2106.07447",
    ),
    "wavlm": EncoderRecord(
        title="WavLM",
        model_type="wavlm",
        num_layers=13,
        num_dimensions=2 * 768,
        hop_seconds=0.02,
        window_seconds=0.025,
        url="https://huggingface.co/microsoft/wavlm-base",
        num_bytes=None,
        checksum=None,
        file_name="wavlm",
        homepage="https://github.com/microsoft/unilm/tree/master/wavlm",
        licence="CC BY-SA 3.0 (that of Microsoft's UniSpeech, to which its page refers)",
        citation="Chen et al., WavLM: Large-scale self-supervised pre-training for full stack "
        "speech processing, IEEE Journal of Selected Topics in Signal Processing 16(6), 2022, "
        "arXiv:2110.13900",
    ),
    "whisper": EncoderRecord(
        title="Whisper",
        model_type="whisper",
        num_layers=7,
        num_dimensions=2 * 512,
        hop_seconds=0.02,
        url="https://huggingface.co/openai/whisper-base",
        num_bytes=None,
        checksum=None,
        file_name="whisper",
        homepage="https://github.com/openai/whisper",
        licence="MIT (OpenAI); Apache License 2.0 on Hugging Face",
        citation="Radford, Kim, Xu, Brockman, McLeavey and Sutskever, Robust speech recognition "
        "via large-scale weak supervision, ICML 2023, arXiv:2212.04356",
    ),
}
