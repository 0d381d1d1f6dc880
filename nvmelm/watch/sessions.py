"""The sessions of a host, each state of each of them said once.

They are looked at by the stream itself and not with the functions: a migration goes on while a controller hangs.
"""

from __future__ import annotations

from collections.abc import Iterator

from nvmelm.errors import NvmelmError
from nvmelm.host import Host
from nvmelm.ownership.sessions import SessionRecord, Sessions, sessions_path
from nvmelm.watch.lines import Body, SessionPart
from nvmelm.watch.stamps import Stamps
from nvmelm.watch.troubles import Troubles

_WHAT = "sessions"


class SessionLooks:
    """What is known of a host's sessions.

    Attributes:
        records: in the order in which they began.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._stamps = Stamps()
        self._begun = False
        self.records: dict[tuple[str, str], SessionRecord] = {}
        self.troubles = Troubles()

    def look(self, *, again: bool = False) -> Iterator[Body]:
        """Say each state that a session went through since the last look; at the first, the sessions that are not over.

        Args:
            again: say those as they are, whether they changed or not, for a reader who may have lost something.
        """
        path = str(sessions_path(self._host))
        changed = self._stamps.changed(_WHAT, [path, f"{path}-wal"])
        if not (changed or again or not self._begun):
            return
        try:
            with Sessions(self._host) as database:
                records = database.seen()
        except NvmelmError as error:
            self._stamps.forget(_WHAT)  # look again
            yield from self.troubles.failed(_WHAT, error)
            return
        yield from self.troubles.works(_WHAT)
        first, self._begun = not self._begun, True
        for key in self.records.keys() - {(record.id, record.side.value) for record in records}:
            del self.records[key]  # it ended long ago, and was pruned
        for record in records:
            key = (record.id, record.side.value)
            known = self.records.get(key)
            self.records[key] = record
            end = len(record.history)
            said = len(known.history) if known is not None else end if first else 0
            if (first or again) and not record.over and said == end:
                yield _part(record, end - 1, begin=True)
            else:
                yield from (_part(record, at) for at in range(said, end))


def _part(record: SessionRecord, at: int, *, begin: bool = False) -> SessionPart:
    state, since = record.history[at]
    last = at == len(record.history) - 1
    return SessionPart(
        id=record.id,
        side=record.side.value,
        before=None if begin or at == 0 else record.history[at - 1][0],
        state=state,
        since=since,
        over=record.over and last,
        peer=record.peer,
        primary=record.primary,
        cntlids=tuple(moving.cntlid for moving in record.controllers),
    )
