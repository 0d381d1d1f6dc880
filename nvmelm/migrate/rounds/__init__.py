"""Rounds before the suspend: tracked memory, and logged user data."""
