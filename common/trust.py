"""How far a recogniser's answers can be relied on, in plain sentences."""

from common.recognition import EmotionRecognizer, Prediction

UNMEASURED = "How often it is right has not been measured."
ACTED_CORPORA = {"ravdess", "savee", "tess", "cremad"}  # in English
ACTED = (
    "Its examples were acted, in English: in another language, in noise, far from the microphone "
    "or where nobody acts expect less."
)
OWN = (
    "Of people, a language, a room or a microphone unlike those of its examples, and in noise, "
    "expect less."
)
LIMITS = (
    "It hears how something is said and does not know what anyone feels; let it decide nothing "
    "about a person."
)


def describe_trust(recognizer: EmotionRecognizer) -> str:
    """Say how often it is right, and about whom, if its facts tell, and what limits it."""
    facts = recognizer.facts
    scores = facts.get("strangers") or facts.get("acquaintances")
    if scores is None:
        return f"{UNMEASURED} {LIMITS}"
    share, low, high = (round(100 * scores["uar"][name]) for name in ("score", "low", "high"))
    number = len(recognizer.emotions)
    heard = "has not heard" if "strangers" in facts else "may have heard before"
    return (
        f"Of 100 recordings of each of {number} emotions it recognises {share} on average "
        f"({low} to {high}; guessing: {round(100 / number)}), of voices that it {heard}. "
        f"{_describe_limits(facts)}"
    )


def describe_answer_trust(said: Prediction, facts: dict) -> str:
    """Say how often answers that were as sure were right, if the facts tell, and what limits it.

    `facts["trust"]` has rows of `from`, the least probability, `accuracy` and `count`, measured on
    speakers never heard, or on those who may have been where there are no `strangers`.
    """
    sure = max(said.probabilities.values(), default=0)
    rows = [row for row in facts.get("trust", []) if row["from"] <= sure]
    if not rows:
        return f"{UNMEASURED} {LIMITS}"
    share = 10 * rows[-1]["accuracy"]
    heard = "had never heard" if "strangers" in facts else "may have heard before"
    return (
        f"Of answers as sure as this, about {share:.0f} in 10 were right, for voices that it "
        f"{heard}. {_describe_limits(facts)}"
    )


def _describe_limits(facts: dict) -> str:
    acted = {*facts.get("corpus", "").split("+")} <= ACTED_CORPORA
    return f"{ACTED if acted else OWN} {LIMITS}"
