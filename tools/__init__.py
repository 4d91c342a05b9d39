"""Checks and generators for the notebooks, the README and the sample corpus."""
