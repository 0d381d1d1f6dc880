"""Which destinations of a fleet can take which sources."""
