"""Pretrained encoders behind one contract: a waveform at 16 kHz -> embeddings over time.

Each lies in a file of its own, with its record and what loads it; a new one is a new file.
"""

from importlib import import_module
from pkgutil import iter_modules

from common.encoders.contract import ENCODERS, Encoder, EncoderRecord, load_encoder, register

__all__ = ["ENCODERS", "Encoder", "EncoderRecord", "load_encoder", "register"]

SHARED = {"contract", "extraction", "stages", "weights"}  # what is no encoder's file

for _module in iter_modules(__path__):
    if _module.name not in SHARED:
        import_module(f"{__name__}.{_module.name}")
