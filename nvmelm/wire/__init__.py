"""Bytes and their meaning; no I/O, standard library only."""
