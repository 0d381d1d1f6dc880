"""What is written down of one function while its VM holds it: where it stands, what happened, what was refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from nvmelm.errors import HostError
from nvmelm.inventory.vm_moves import Event, Held, Moves
from nvmelm.vfio.refusals import refusal_of
from nvmelm.vfio.seam import Refusal


class MoveJournal:
    """The records of one function.

    Attributes:
        held: where it stands, as written last.
    """

    def __init__(self, moves: Moves, held: Held) -> None:
        self._moves = moves
        self.held = held

    def write(self, event: Event, **more: str) -> None:
        """Write down what is about to happen.

        Raises:
            HostError: it cannot be written; it must not happen then.
        """
        self._moves.note(event, self.held, **more)

    def note(self, event: Event, stream: str = "", why: str = "") -> None:
        """Write down what has happened, where the disk lets us."""
        try:
            self._moves.note(event, self.held, stream=stream, why=why)
        except HostError as error:
            self.held = replace(self.held, refusal=error.message)

    def remember(self, **values: Any) -> None:
        """Write down where the function stands; an arc was taken whether this succeeds or not."""
        self.held = replace(self.held, **values)
        with suppress(HostError):
            self.held = self._moves.hold(self.held)

    @contextmanager
    def answering(self, what: str) -> Iterator[None]:
        """Turn whatever goes wrong in a block into what the VMM is told, and write down why.

        Raises:
            Refusal: something did.
        """
        try:
            yield
        except Refusal as refusal:
            self._refused(what, refusal)
            raise
        except Exception as error:
            raise self._refused(what, refusal_of(error)) from error

    def _refused(self, what: str, refusal: Refusal) -> Refusal:
        """Write a refusal down once, and return it."""
        if refusal.reason and not refusal.written:
            refusal.written = True
            self.note(Event.REFUSED, why=f"{what}: {refusal.reason}")
            self.remember(arc=what, refusal=refusal.reason)
        return refusal
