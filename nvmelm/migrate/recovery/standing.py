"""How the controllers of a session stand on this host, as the device says: what a record can only claim.

A reset of a controller or of its primary takes a state away without a word. So before a copy is counted on, it is
looked for.

An online controller without I/O queues is not lost for that. Firmware has none, nor has a driver that just resets its
controller: where nvmelm may have resumed the copy, it may be the one that runs. Only what is offline, or was made anew,
is lost for certain; see :func:`lost`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from nvmelm.errors import CopyLostError, UncertainError
from nvmelm.inventory import state_reader
from nvmelm.inventory.opened import OpenPrimary
from nvmelm.inventory.state_reader import StateReader
from nvmelm.migrate import controllers
from nvmelm.migrate.queues import has_any
from nvmelm.ownership.sessions import Moving, SessionRecord


class Standing(StrEnum):
    """How one controller stands."""

    GONE = "made anew since"
    OFFLINE = "offline"
    IDLE = "online, with no I/O queues"
    UNCHANGED = "online, with no I/O queues, as before"
    SUSPENDED = "suspended"
    RUNS = "running"
    UNTOLD = "online, and the device does not tell its queues"


#: In these a controller has what it had when the session went on without it: it stands still, or it runs.
WHOLE = frozenset({Standing.SUSPENDED, Standing.UNCHANGED, Standing.RUNS, Standing.UNTOLD})
#: In these it is known to have that even when it was reset: somebody drives it, or there was nothing to lose.
DRIVEN = WHOLE - {Standing.UNTOLD}
_LOST = frozenset({Standing.GONE, Standing.OFFLINE})


def look(pf: OpenPrimary, record: SessionRecord) -> dict[int, Standing]:
    """Return how each controller of a session stands, by its identifier; nothing is changed.

    Raises:
        AdminCommandError: the device refused to tell.
    """
    present = {controller.cntlid for controller in controllers.still_there(pf, record.controllers, record.boot)}
    picture = pf.picture(users=False)
    online = {secondary.cntlid for secondary in picture.secondaries if secondary.online}
    versions = min(len(state_reader.formats_of(picture.primary).versions), 1)

    def standing(controller: Moving) -> Standing:
        if controller.cntlid not in present:
            return Standing.GONE
        if controller.cntlid not in online:
            return Standing.OFFLINE
        reader = StateReader(pf.queue, controller.cntlid, versions, 0)
        header = reader.header()
        if header.suspended:
            return Standing.SUSPENDED
        queues = has_any(reader, header)
        if queues is None:  # a copy is not counted as lost because a device does not tell
            return Standing.UNTOLD
        if queues:
            return Standing.RUNS
        return Standing.UNCHANGED if controller.idle else Standing.IDLE

    return {controller.cntlid: standing(controller) for controller in record.controllers}


def whole(stand: Mapping[int, Standing]) -> bool:
    """Return whether every controller has what it had."""
    return {*stand.values()} <= WHOLE


def lost(stand: Mapping[int, Standing]) -> bool:
    """Return whether a copy is lost for certain: some controllers are not there, and no other one may run."""
    return bool(_LOST & {*stand.values()}) and {*stand.values()} <= _LOST | {Standing.SUSPENDED}


def described(stand: Mapping[int, Standing]) -> str:
    """Return how the controllers stand, as text."""
    return "; ".join(f"{cntlid:#06x} is {standing}" for cntlid, standing in stand.items())


def not_whole(record: SessionRecord, stand: Mapping[int, Standing]) -> UncertainError:
    """Return the error of a source whose copy is not what it was, while the destination holds one.

    Only of a copy that is lost for certain it says how to do without; else that word could end the one that runs.
    """
    if not lost(stand):
        return unclear(record, stand)
    return UncertainError(
        f"session {record.id}: the source lost its copy, and the destination may hold the only one",
        cause=f"{described(stand)} at the source",
        fix=f"nvmelm recover --take {record.id[:8]} at the destination, or --give-up there to let it go",
        reason="source-lost",
    )


def unclear(record: SessionRecord, stand: Mapping[int, Standing]) -> UncertainError:
    """Return the error of a copy of which nobody can say from outside whether a guest goes on with it."""
    return UncertainError(
        f"session {record.id}: whether {record.names} run at the {record.side} is not known",
        cause=f"{described(stand)}: a guest that just starts, or resets its controller, looks like a copy that is lost",
        fix=f"look whether a guest runs at the {record.side} (nvmelm show {record.primary}); once its driver is there, "
        "nvmelm recover; docs/recovery.md, for a guest that is not",
        reason="copy-unclear",
    )


def without_copy(record: SessionRecord) -> str:
    """Return what to do where a session's copy on this host is lost."""
    give_up = f"nvmelm recover --give-up {record.id[:8]} here"
    return f"{give_up}, then nvmelm recover at the other host, which may still hold them"


def gone(record: SessionRecord, stand: Mapping[int, Standing], what: str) -> CopyLostError:
    """Return the error for a copy that is not there any more."""
    return CopyLostError(
        f"session {record.id}: {record.names} {what}",
        cause=f"the host was rebooted, or the VFs or their primary were reset; now {described(stand)}",
        fix=without_copy(record),
    )
