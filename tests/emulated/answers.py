"""What a person answers to a question."""

from __future__ import annotations

from nvmelm.errors import NotReadyError


def agree(question: str) -> None:
    """Say yes."""


def decline(question: str) -> None:
    """Say no, as a pipe without --yes does."""
    raise NotReadyError(question)
