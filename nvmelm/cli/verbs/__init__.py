"""A module for each word that is typed."""
