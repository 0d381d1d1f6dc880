"""What becomes of sessions that were cut off."""
