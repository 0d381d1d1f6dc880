"""The frame around every verb."""
