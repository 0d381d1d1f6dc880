"""Steps 1 to 4 of both sequences: planned, applied, journaled and undone."""
