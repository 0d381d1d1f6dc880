"""One host's end of a session: what it works with, and what it has written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace

from nvmelm.errors import NvmelmError, UncertainError
from nvmelm.inventory.opened import OpenPrimary
from nvmelm.migrate.callouts.points import Points
from nvmelm.migrate.link.frames import Link
from nvmelm.ownership.sessions import Moving, SessionRecord, Sessions, Side, State, new_record
from nvmelm.prepare.kept import Kept

Reconnect = Callable[[], AbstractContextManager[Link]]


@dataclass(frozen=True, slots=True)
class End:
    """What this host works with, on either side.

    Attributes:
        pf: locked at the source; at the destination once all is agreed.
        link: to the other host, just opened.
        points: this host's callouts.
        name: what this host calls itself.
        reconnect: starts the other side again, for a roll-back whose link was cut; None: that cannot be.
    """

    pf: OpenPrimary
    sessions: Sessions
    link: Link
    points: Points
    name: str = ""
    reconnect: Reconnect | None = None


class Ledger:
    """What this host has written of one session, and the files that it rests on.

    Attributes:
        record: as it was last written; None: nothing was begun.
    """

    def __init__(self, end: End) -> None:
        self._end = end
        self._kept: Kept | None = None
        self.record: SessionRecord | None = None

    @property
    def known(self) -> SessionRecord:
        """Return the session's record.

        Raises:
            UncertainError: there is none.
        """
        if self.record is None:
            raise UncertainError("the session has no record")
        return self.record

    def begin(self, session: str, side: Side, peer: str, controllers: tuple[Moving, ...]) -> None:
        """Write the session down: from here on there is something to undo.

        Raises:
            BusyError, HostError: as :meth:`Sessions.open` says.
        """
        pf = self._end.pf
        self.record = self._end.sessions.open(
            new_record(
                pf.host, session, side, peer=peer, primary=pf.address, serial=pf.ref.serial, controllers=controllers
            )
        )

    def move(self, state: State, note: str = "", *, controllers: tuple[Moving, ...] | None = None) -> None:
        """Write the next state down, with what is known of the controllers by now when that is given.

        Raises:
            UncertainError, HostError: as :meth:`Sessions.move` says.
        """
        record = self.known if controllers is None else replace(self.known, controllers=controllers)
        self.record = self._end.sessions.move(record, state, note)

    def read_again(self) -> SessionRecord:
        """Return the record as the disk has it: a write that failed may have been made all the same."""
        record = self.known
        with suppress(NvmelmError):
            record = self._end.sessions.get(record.id, record.side) or record
        self.record = record
        return record

    def keep(self, cntlids: Sequence[int]) -> None:
        """Remember the lock, the marks of these controllers and the journal as they are now."""
        self._kept = Kept(self._end.pf.host, self._end.pf.address, cntlids)

    def require_kept(self) -> None:
        """Refuse to go on with files that are not those of the beginning.

        Raises:
            HostError: one was removed, replaced or changed.
        """
        if self._kept is not None:
            self._kept.require_same()
