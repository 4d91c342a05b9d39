"""Pretrained encoders behind one contract: a waveform at 16 kHz -> embeddings over time.

Each lies in a file of its own, with its record and what loads it; a new one is a new file. All are
imported when the registry is first asked for, not before: they take seconds, and need Keras.
"""

from common.encoders import contract

__all__ = ["ENCODERS", "Encoder", "EncoderRecord", "load_encoder", "register"]


def __getattr__(name: str):
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    contract.enter_all()
    return getattr(contract, name)
