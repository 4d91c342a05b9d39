"""How far a recogniser's answers can be relied on, in plain sentences."""

from common.recognition import EmotionRecognizer

UNMEASURED = "How often it is right has not been measured."
ACTED = (
    "Its examples were acted, in English: in another language, in noise, far from the microphone "
    "or where nobody acts expect less."
)
LIMITS = (
    "It hears how something is said and does not know what anyone feels; let it decide nothing "
    "about a person."
)


def describe_trust(recognizer: EmotionRecognizer) -> str:
    """Say how often it is right about voices never heard, if its facts tell, and what limits it."""
    strangers = recognizer.facts.get("strangers")
    if strangers is None:
        return f"{UNMEASURED} {LIMITS}"
    mean, low, high = (round(100 * strangers["uar"][name]) for name in ("mean", "low", "high"))
    number = len(recognizer.emotions)
    return (
        f"Of {number} emotions it finds the right one in {mean} of 100 recordings of voices that "
        f"it has not heard ({low} to {high}; guessing: {round(100 / number)}). {ACTED} {LIMITS}"
    )
