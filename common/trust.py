"""How far a recogniser's answers can be relied on, in plain sentences."""

from common.recognition import EmotionRecognizer, Prediction

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


def describe_answer_trust(said: Prediction, facts: dict) -> str:
    """Say how often answers that were as sure were right, if the facts tell, and what limits it.

    `facts["trust"]` has rows of `from`, the least probability, `accuracy` and `count`, measured on
    speakers never heard.
    """
    sure = max(said.probabilities.values(), default=0)
    rows = [row for row in facts.get("trust", []) if row["from"] <= sure]
    if not rows:
        return f"{UNMEASURED} {LIMITS}"
    share = 10 * rows[-1]["accuracy"]
    return (
        f"Of answers as sure as this, about {share:.0f} in 10 were right, for actors it had never "
        f"heard. {ACTED} {LIMITS}"
    )
