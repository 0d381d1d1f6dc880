"""Suspend and resume one controlled function, through its primary's admin queue.

The caller holds the primary's lock for the whole of each call, since the parts of two transfers must never interleave,
and has checked the marks. Nothing here waits, and nothing keeps more than one command's data.

Source: NVM Express Base Specification 2.1, "Host Managed Live Migration", "Migration Send command", "Migration Receive
command".
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from nvmelm.commands import AdminCommandError, execute, migration
from nvmelm.host import AdminQueue
from nvmelm.inventory.state_reader import is_suspended
from nvmelm.wire.formats import SupportedStateFormats
from nvmelm.wire.opcodes import SuspendType
from nvmelm.wire.status import StatusCode


@dataclass(frozen=True, slots=True)
class Transition:
    """What suspending or resuming did.

    Attributes:
        changed: False when the controller was in that state already, and for a notification.
    """

    cntlid: int
    changed: bool
    commands: int
    seconds: float


def suspend(
    queue: AdminQueue, cntlid: int, *, notify: bool = False, formats: SupportedStateFormats | None = None
) -> Transition:
    """Stop a controller fetching commands; it finishes what it has fetched before this returns.

    Args:
        notify: announce a suspend to come, and stop nothing.
        formats: when given, the controller is asked first whether it is suspended already, to say what changed.

    Raises:
        AdminCommandError: the primary controller refused.
    """
    started = time.monotonic()
    asked = formats is not None and not notify
    already = formats is not None and asked and is_suspended(queue, cntlid, formats)
    kind = SuspendType.SUSPEND_NOTIFICATION if notify else SuspendType.SUSPEND
    # Sent even when it is suspended: a repetition is success, and the answer could have been a moment old.
    execute(queue, migration.suspend(cntlid, kind))
    return Transition(cntlid, not (notify or already), 1 + asked, time.monotonic() - started)


def resume(queue: AdminQueue, cntlid: int) -> Transition:
    """Let a controller fetch commands again. One that was not suspended is reported as not changed.

    Raises:
        AdminCommandError: the primary controller refused; Command Sequence Error after an unfinished restore.
    """
    started = time.monotonic()
    changed = True
    try:
        execute(queue, migration.resume(cntlid))
    except AdminCommandError as error:
        if error.status.code != StatusCode.CONTROLLER_NOT_SUSPENDED:
            raise
        changed = False
    return Transition(cntlid, changed, 1, time.monotonic() - started)
