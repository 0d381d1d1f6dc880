"""One pure builder per admin command, and :func:`execute`, the one way to run what they build.

::

    from nvmelm.commands import execute, migration

    execute(queue, migration.suspend(0x0041))

A builder fills in words and touches nothing; it raises ``ValueError`` for a value that does not fit. Its docstring
lists the statuses to expect. :func:`execute` knows nothing of a command's meaning.

::

    identify        Identify and Get Log Page
    listing         lists that are longer than one answer
    namespace       Namespace Attachment
    virtualization  Virtualization Management
    migration       Migration Send and Migration Receive
    tracking        Track Send and Track Receive
    data_queue      Controller Data Queue
    describe        any of them in a short sentence
    optional        logs and data structures that a controller may do without: asked for, and None where it has none

What the bytes they carry mean is :mod:`nvmelm.wire`; how they travel is :mod:`nvmelm.host`; what a status of theirs
means stands in :mod:`nvmelm.wire.status_table`.
"""

from __future__ import annotations

from nvmelm.errors import ExitCode, MalformedError, NvmelmError
from nvmelm.host import AdminCommand, AdminQueue, Completion
from nvmelm.wire.status import Status

__all__ = ["AdminCommandError", "execute"]


class AdminCommandError(NvmelmError):
    """A controller completed an admin command with an error status.

    Args:
        command: what was sent.
        status: what came back.
        result: DW0 and DW1 of the completion; Not Enough Resources of Track Send says there what would do.
    """

    exit_code = ExitCode.REFUSED
    kind = "refused"

    def __init__(self, command: AdminCommand, status: Status, *, result: int = 0) -> None:
        from nvmelm.commands.describe import target_controller  # knows every command; only an error has to ask

        cause, fix = status.explain(cntlid=target_controller(command), opcode=command.opcode)
        if status.by_driver:
            cause += " (the driver says this, not the controller)"
        elif status.dnr:
            cause += " (the controller says that a retry is of no use)"
        super().__init__(f"{command.name} failed: {status}", cause=cause, fix=fix, reason=status.reason)
        self.command = command
        self.status = status
        self.result = result


def execute(queue: AdminQueue, command: AdminCommand) -> Completion:
    """Run one command and return its completion, which is a success.

    Raises:
        AdminCommandError: the status is not success.
        MalformedError: the transport returned another number of bytes than was asked for.
        NvmelmError: what :meth:`AdminQueue.submit` raises.
    """
    completion = queue.submit(command)
    if completion.status and not (status := Status(completion.status)).ok:
        raise AdminCommandError(command, status, result=completion.result)
    if len(completion.data) != command.data_in_length:
        raise MalformedError(f"{command.name} returned {len(completion.data)} bytes, not {command.data_in_length}")
    return completion
