"""Logs and data structures that a controller may do without: asked for, and None where it has none.

Base Specification 2.1, "Get Log Page command" and "Identify command": which are mandatory depends on the version, the
type of the controller, and its features; devices leave out more. A refusal that means "there is none" is an answer. Any
other (a controller that is not ready, an internal error) is an error: it does not say that there is none.
"""

from __future__ import annotations

from collections.abc import Collection

from nvmelm.commands import AdminCommandError, execute, identify
from nvmelm.host import AdminCommand, AdminQueue
from nvmelm.wire.formats import EffectsLog
from nvmelm.wire.status import StatusCode

#: How controllers say that they do not have a log, a structure, or the command.
_NOT_THERE = frozenset(
    {
        StatusCode.INVALID_OPCODE,
        StatusCode.INVALID_FIELD,
        StatusCode.INVALID_LOG_PAGE,
    }
)


def data(queue: AdminQueue, command: AdminCommand, *, without: Collection[int] = ()) -> bytes | None:
    """Return the data of a log page or an Identify structure, or None when the controller has none.

    Args:
        without: status codes that say so, too, for this command.

    Raises:
        AdminCommandError: it was refused for another reason.
    """
    try:
        return execute(queue, command).data
    except AdminCommandError as error:
        if error.status.code in _NOT_THERE or error.status.code in without:
            return None
        raise


def effects_log(queue: AdminQueue) -> EffectsLog | None:
    """Return the Commands Supported and Effects log, or None when the controller has none."""
    page = data(queue, identify.effects_log())
    return EffectsLog(page) if page is not None else None
