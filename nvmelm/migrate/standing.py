"""How the controllers of a session stand on this host, as the device says: what a record can only claim.

A reset of a controller or of its primary takes a state away without a word. So before a copy is counted on, it is
looked for.
"""

from __future__ import annotations

from enum import StrEnum

from nvmelm.errors import UncertainError
from nvmelm.migrate import target
from nvmelm.migrate.queues import has_any
from nvmelm.operations import state
from nvmelm.operations.ownership import Moving, Record
from nvmelm.operations.session import Session
from nvmelm.operations.state_transfer import StateReader


class Standing(StrEnum):
    """How one controller stands."""

    GONE = "made anew since"
    OFFLINE = "offline"
    IDLE = "online, with no I/O queues"
    SUSPENDED = "suspended"
    RUNS = "running"


#: In these a controller has what it had when the session went on without it: it stands still, or it runs.
WHOLE = frozenset({Standing.SUSPENDED, Standing.RUNS})


def look(session: Session, record: Record) -> dict[int, Standing]:
    """Return how each controller of a session stands, by its identifier; nothing is changed.

    Raises:
        AdminCommandError: the device refused to tell.
    """
    there = {one.cntlid for one in target.still_there(session, record.controllers, record.boot)}
    picture = session.picture(users=False)
    online = {one.cntlid for one in picture.secondaries if one.online}
    versions = min(len(state.formats_of(picture.primary).versions), 1)

    def standing(one: Moving) -> Standing:
        if one.cntlid not in there:
            return Standing.GONE
        if one.cntlid not in online:
            return Standing.OFFLINE
        reader = StateReader(session.queue, one.cntlid, versions, 0)
        header = reader.header()
        if header.suspended:
            return Standing.SUSPENDED
        # A copy is not counted as lost because a device does not tell.
        return Standing.IDLE if has_any(reader, header) is False else Standing.RUNS

    return {one.cntlid: standing(one) for one in record.controllers}


def gone(record: Record, stand: dict[int, Standing], what: str, fix: str) -> UncertainError:
    """Return the error for a copy that is not there any more."""
    told = "; ".join(f"{cntlid:#06x} is {one}" for cntlid, one in stand.items())
    return UncertainError(
        f"session {record.id}: {record.names} {what}",
        cause=f"the host was rebooted, or the VFs or their primary were reset; now {told}",
        fix=fix,
        reason="target-gone",
    )
