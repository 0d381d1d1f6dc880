"""A recording: what a host was asked and what it said, written, read and replayed."""
