"""What Linux shows of the emulated machine."""
