"""The verbs of ``nvmelm compat``."""
