"""Pretrained encoders behind one contract: a waveform at 16 kHz -> embeddings over time."""
