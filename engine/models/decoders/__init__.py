"""Decoder-only transformers: one file per family, and the graph that is written for all of them."""
