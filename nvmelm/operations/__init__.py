"""Verbs that take more than one command."""
