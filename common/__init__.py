"""Helpers shared by the notebooks; see README.md for the way of the data."""

import os

# A GPU's memory is taken as it is needed, by both backends. They read this when they first use the
# GPU; later it changes nothing.
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
