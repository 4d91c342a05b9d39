"""Helpers shared by the notebooks; see README.md for the way of the data."""
