"""What is known of each speech corpus: origin, licence, size, and how its files are named."""

from collections.abc import Mapping
from dataclasses import dataclass

from common.emotions import EMOTIONS


@dataclass(frozen=True)
class Published:
    """A file that may be downloaded; its size and checksum where its publisher gives them."""

    url: str
    file_name: str
    num_bytes: int | None = None
    checksum: str | None = None


@dataclass(frozen=True)
class Corpus:
    """What is known of one corpus.

    `pattern` is a regular expression for the end of a recording's path, without its suffix. Its
    groups name columns of the utterance table; `emotion` is a code that `emotions` translates.
    `example` is one such path below the corpus folder. Copies in other layouts have names that
    `mirror` matches, from which `layout` makes the official path. `genders` has every speaker.
    `archive` is the ZIP file of all recordings, None where the corpus cannot be fetched and checked
    automatically. `checksums` lists the SHA-256 of its recordings, where the index lacks them: a
    line has the address, the size and the SHA-256 of one.
    """

    name: str
    title: str
    homepage: str
    licence: str
    citation: str
    how_to_get: str
    example: str
    pattern: str
    emotions: Mapping[str, str]
    genders: Mapping[str, str]
    num_utterances: int
    archive: Published | None = None
    checksums: Published | None = None
    mirror: str = ""
    layout: str = ""

    @property
    def num_speakers(self) -> int:
        return len(self.genders)


def _parse(text: str) -> dict[str, str]:
    """Labels by code of text such as "n neutral, h happy"."""
    return dict(pair.split() for pair in text.split(", "))


INTENSITIES = _parse("01 normal, 02 strong, LO low, MD medium, HI high, XX unspecified")
_NUMBERED_EMOTIONS = {f"{number:02d}": label for number, label in enumerate(EMOTIONS, start=1)}
_NUMBERED_FIELDS = (
    r"03-01-(?P<emotion>\d\d)-(?P<intensity>0[12])-(?P<statement>0[12])-(?P<repetition>0[12])-"
)
_NUMBERED_PATTERN = rf"Actor_(?P<speaker>\d\d)/{_NUMBERED_FIELDS}(?P=speaker)"
_EMODB_NAME = r"(?P<speaker>\d\d)(?P<statement>[ab]\d\d)(?P<emotion>[A-Z])(?P<repetition>[a-z])"
# After VideoDemographics.csv of CREMA-D.
_WOMEN_OF_CREMAD = """
    1002 1003 1004 1006 1007 1008 1009 1010 1012 1013 1018 1020 1021 1024 1025 1028 1029 1030
    1037 1043 1046 1047 1049 1052 1053 1054 1055 1056 1058 1060 1061 1063 1072 1073 1074 1075
    1076 1078 1079 1082 1084 1089 1091
"""


def _alternate_genders(num_actors: int) -> dict[str, str]:
    return {f"{n:02d}": ("female", "male")[n % 2] for n in range(1, num_actors + 1)}


_RECORDS = (
    Corpus(
        name="sample",
        title="Synthetic sample",
        homepage="tools/make_sample_corpus.py",
        licence="MIT",
        citation="Made with espeak-ng by tools/make_sample_corpus.py; it says nothing of people.",
        how_to_get="It ships in data/sample; `python -m tools.make_sample_corpus` rebuilds it.",
        example="Actor_01/03-01-01-01-01-01-01.flac",
        pattern=_NUMBERED_PATTERN,
        emotions=_NUMBERED_EMOTIONS,
        genders=_alternate_genders(8),
        num_utterances=256,
    ),
    Corpus(
        name="ravdess",
        title="RAVDESS",
        homepage="https://zenodo.org/records/1188976",
        licence="CC BY-NC-SA 4.0",
        citation="Livingstone and Russo (2018), The Ryerson Audio-Visual Database of Emotional "
        "Speech and Song (RAVDESS), PLoS ONE 13(5): e0196391, doi:10.1371/journal.pone.0196391",
        how_to_get="`fetch_corpus('ravdess')` downloads it (208 MB), or unpack "
        "Audio_Speech_Actors_01-24.zip from https://zenodo.org/records/1188976 by hand.",
        archive=Published(
            "https://zenodo.org/records/1188976/files/Audio_Speech_Actors_01-24.zip?download=1",
            file_name="Audio_Speech_Actors_01-24.zip",
            num_bytes=208_468_073,
            checksum="md5:bc696df654c87fed845eb13823edef8a",
        ),
        example="Actor_01/03-01-01-01-01-01-01.wav",
        pattern=_NUMBERED_PATTERN,
        emotions=_NUMBERED_EMOTIONS,
        genders=_alternate_genders(24),
        num_utterances=1440,
        mirror=rf"(?<!Actor_\d\d/){_NUMBERED_FIELDS}(?P<speaker>\d\d)",
        layout="Actor_{speaker}/{name}",
    ),
    Corpus(
        name="savee",
        title="SAVEE",
        homepage="http://kahlan.eps.surrey.ac.uk/savee/",
        licence="free for research, after registration",
        citation="Haq and Jackson (2009), Speaker-dependent audio-visual emotion recognition, "
        "Proc. Auditory-Visual Speech Processing, 53-58",
        how_to_get="Its owners ask every user to register, so it is never downloaded "
        "automatically: register at http://kahlan.eps.surrey.ac.uk/savee/ and unpack AudioData.",
        example="AudioData/DC/a01.wav",
        pattern=r"AudioData/(?P<speaker>DC|JE|JK|KL)/(?P<emotion>[a-z]+)\d\d",
        emotions=_parse("n neutral, h happy, sa sad, a angry, f fearful, d disgust, su surprised"),
        genders=dict.fromkeys(("DC", "JE", "JK", "KL"), "male"),
        num_utterances=480,
        mirror=r"(?P<speaker>DC|JE|JK|KL)[_/](?P<code>(?P<emotion>[a-z]+)\d\d)",
        layout="AudioData/{speaker}/{code}",
    ),
    Corpus(
        name="tess",
        title="TESS",
        homepage="https://doi.org/10.5683/SP2/E8H2MF",
        licence="CC BY-NC-ND 4.0",
        citation="Pichora-Fuller and Dupuis (2020), Toronto emotional speech set (TESS), "
        "Borealis, doi:10.5683/SP2/E8H2MF",
        how_to_get="`fetch_corpus('tess')` downloads it (about 270 MB), or unpack the archive "
        "from https://doi.org/10.5683/SP2/E8H2MF by hand, one folder per speaker and emotion.",
        archive=Published(
            "https://borealisdata.ca/api/access/dataset/:persistentId/"
            "?persistentId=doi:10.5683/SP2/E8H2MF",
            file_name="dataverse_files.zip",
        ),
        example="OAF_angry/OAF_back_angry.wav",
        pattern=r"(?P<speaker>OAF|YAF)_\w+/(?:(?P=speaker)|OA)_(?P<statement>[a-z]+)"
        r"_(?P<emotion>[a-z_]+)",
        emotions=_parse(
            "neutral neutral, happy happy, sad sad, angry angry, fear fearful, disgust disgust, "
            "ps surprised, pleasant_surprise surprised, pleasant_surprised surprised"
        ),
        genders={"OAF": "female", "YAF": "female"},
        num_utterances=2800,
        mirror=r"(?:(?!OAF_|YAF_)[^/]+/|^)(?P<speaker>OAF?|YAF)_[a-z]+_(?P<emotion>[a-z_]+)",
        layout="{speaker}_{emotion}/{name}",
    ),
    Corpus(
        name="emodb",
        title="Emo-DB",
        homepage="http://emodb.bilderbar.info",
        licence="free for research",
        citation="Burkhardt, Paeschke, Rolfes, Sendlmeier and Weiss (2005), A database of German "
        "emotional speech, Proc. Interspeech, 1517-1520, doi:10.21437/Interspeech.2005-446",
        how_to_get="No checksum of it is known here, so it is not downloaded automatically: unpack "
        "http://emodb.bilderbar.info/download/download.zip by hand.",
        example="wav/03a01Fa.wav",
        pattern=rf"wav/{_EMODB_NAME}",
        mirror=_EMODB_NAME,
        layout="wav/{name}",
        emotions=_parse("N neutral, F happy, T sad, W angry, A fearful, E disgust, L bored"),
        genders={
            **dict.fromkeys(("03", "10", "11", "12", "15"), "male"),
            **dict.fromkeys(("08", "09", "13", "14", "16"), "female"),
        },
        num_utterances=535,
    ),
    Corpus(
        name="cremad",
        title="CREMA-D",
        homepage="https://github.com/CheyneyComputerScience/CREMA-D",
        licence="ODbL 1.0",
        citation="Cao, Cooper, Keutmann, Gur, Nenkova and Verma (2014), CREMA-D: Crowd-sourced "
        "emotional multimodal actors dataset, IEEE Trans. Affective Computing 5(4), 377-390, "
        "doi:10.1109/TAFFC.2014.2336244",
        how_to_get="It lies in Git LFS: install git-lfs, `git clone "
        "https://github.com/CheyneyComputerScience/CREMA-D` and move its AudioWAV folder. "
        "(The ZIP that GitHub offers holds links, not audio.)",
        checksums=Published(  # of TensorFlow Datasets, which checks its downloads against it
            "https://storage.googleapis.com/tfds-data/manual_checksums/crema_d.txt",
            file_name="crema_d_checksums.txt",
            num_bytes=1_339_905,
            checksum="sha256:66b5d959dcee997321baf9080c80022a6937279419446db3a9d4827d839b0abb",
        ),
        example="AudioWAV/1001_DFA_ANG_XX.wav",
        pattern=r"AudioWAV/(?P<speaker>\d{4})_(?P<statement>[A-Z]{3})_(?P<emotion>[A-Z]{3})"
        r"_(?P<intensity>LO|MD|HI|XX)",
        mirror=r"\d{4}_[A-Z]{3}_[A-Z]{3}_(?:LO|MD|HI|XX?)",
        layout="AudioWAV/{name:X<15}",  # older copies have 1040_ITH_SAD_X
        emotions=_parse("NEU neutral, HAP happy, SAD sad, ANG angry, FEA fearful, DIS disgust"),
        genders={
            str(n): "female" if str(n) in _WOMEN_OF_CREMAD else "male" for n in range(1001, 1092)
        },
        num_utterances=7442,
    ),
)
CORPORA = {corpus.name: corpus for corpus in _RECORDS}
