"""What goes through rounds before the suspend: memory that is tracked, and user data that is logged, or neither."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nvmelm.inventory.opened import OpenPrimary
from nvmelm.migrate.rounds.memory import MemoryRound, Tracker
from nvmelm.migrate.rounds.user_data import UserDataLog, Written
from nvmelm.ownership.sessions import Moving

Start = Callable[[OpenPrimary, Sequence[Moving]], Tracker | UserDataLog]
"""Begins to track, or to log, what controllers write."""


class Tracks:
    """All that was begun for a migration, until it is closed.

    Raises:
        NvmelmError: one could not be begun; none is then.
    """

    def __init__(self, pf: OpenPrimary, controllers: Sequence[Moving], starts: Sequence[Start]) -> None:
        self._begun: list[Tracker | UserDataLog] = []
        try:
            for start in starts:
                self._begun.append(start(pf, controllers))
        except BaseException:
            self.close()
            raise

    @property
    def rounds(self) -> list[MemoryRound]:
        """Return the rounds of tracked memory."""
        return [tracked for tracker in self._begun for tracked in tracker.rounds if isinstance(tracked, MemoryRound)]

    @property
    def written(self) -> list[Written]:
        """Return the rounds of logged user data."""
        return [logged for tracker in self._begun for logged in tracker.rounds if isinstance(logged, Written)]

    @property
    def notes(self) -> list[str]:
        """Return what could not be tidied up."""
        return [note for tracker in self._begun for note in tracker.notes]

    def converge(self) -> None:
        """Go through rounds, each of its own, until little is written."""
        for tracker in self._begun:
            tracker.converge()

    def final(self) -> None:
        """Take what was written until the suspend."""
        for tracker in self._begun:
            tracker.final()

    def close(self) -> None:
        """End all that was begun."""
        for tracker in self._begun:
            tracker.close()
