"""The verbs of ``nvmelm emulate``."""
