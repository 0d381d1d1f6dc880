"""The verb ``nvmelm bug-report``."""
