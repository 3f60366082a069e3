"""Encoder weights, read from the files that hold them."""
