"""This machine: the real form of the seam."""
