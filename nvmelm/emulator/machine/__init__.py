"""What the emulated machine remembers."""
