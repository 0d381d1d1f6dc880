"""The state image: one controller's saved state, and the proof that it may be used."""
