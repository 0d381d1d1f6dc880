"""One admin command on its way through a controller, and the statuses that refuse it.

A controller here is what its :class:`~nvmelm.emulator.machine.generations.DeviceGeneration` says. Every refusal
carries Do Not Retry where the recordings show it, which is everywhere a second try could not succeed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nvmelm.emulator.machine.generations import DeviceGeneration
from nvmelm.emulator.machine.machine import Machine
from nvmelm.emulator.machine.state import EmulatedController, EmulatedPrimary
from nvmelm.host import AdminCommand, Completion

DNR = 0x4000

# Status field of the completion without its phase bit: SCT 10:8, SC 7:0.
# Source: NVM Express Base Specification 2.1, "Status Field".
INVALID_OPCODE = 0x001 | DNR
INVALID_FIELD = 0x002 | DNR
DATA_TRANSFER_ERROR = 0x004 | DNR
INTERNAL_ERROR = 0x006 | DNR
INVALID_NAMESPACE = 0x00B | DNR
COMMAND_SEQUENCE_ERROR = 0x00C | DNR
PRP_OFFSET_INVALID = 0x013 | DNR
LBA_OUT_OF_RANGE = 0x080 | DNR
INVALID_LOG_PAGE = 0x109 | DNR
NAMESPACE_ALREADY_ATTACHED = 0x118 | DNR
NAMESPACE_NOT_ATTACHED = 0x11A | DNR
CONTROLLER_LIST_INVALID = 0x11C | DNR
INVALID_CONTROLLER_IDENTIFIER = 0x11F | DNR
INVALID_SECONDARY_STATE = 0x120 | DNR
INVALID_NUMBER_OF_RESOURCES = 0x121 | DNR
INVALID_RESOURCE_IDENTIFIER = 0x122 | DNR
INVALID_DATA_QUEUE = 0x137 | DNR
NOT_ENOUGH_RESOURCES = 0x138 | DNR
CONTROLLER_SUSPENDED = 0x139 | DNR
CONTROLLER_NOT_SUSPENDED = 0x13A | DNR
DATA_QUEUE_FULL = 0x13B | DNR


class CommandRefusal(Exception):  # noqa: N818 - a completion, not an error of the program
    """The controller completes the command with an error status.

    Args:
        status: the completion's status.
        result: DW0, and DW1 in the upper half.
    """

    def __init__(self, status: int, result: int = 0) -> None:
        super().__init__(f"{status:#06x}")
        self.status = status
        self.result = result


#: What runs one admin command to its completion.
Execute = Callable[["AdminRequest"], Completion]


@dataclass(frozen=True, slots=True)
class AdminRequest:
    """One admin command on its way through a controller.

    Attributes:
        primary: the device.
        row: what kind of device this is.
        controller: whose admin queue it came through; the primary's own, or a secondary's.
        execute: runs a command that this one sets off on another queue: a resume lets a secondary go on with its own.
        memory: file of the registered memory the data pointer points to, empty for a buffer of the command's own.
    """

    machine: Machine
    primary: EmulatedPrimary
    row: DeviceGeneration
    controller: EmulatedController
    command: AdminCommand
    execute: Execute
    memory: str = ""

    @property
    def is_primary(self) -> bool:
        """Return whether the command came through the primary's admin queue."""
        return self.controller["vfn"] == 0

    @property
    def select(self) -> int:
        """Return CDW10 7:0, the Select or CNS field of most commands."""
        return self.command.cdw10 & 0xFF

    @property
    def operation(self) -> int:
        """Return CDW10 31:16, the management operation specific field."""
        return self.command.cdw10 >> 16

    def secondary(self, cntlid: int, status: int = INVALID_CONTROLLER_IDENTIFIER) -> EmulatedController:
        """Return a secondary controller of this primary, or refuse the command."""
        try:
            return self.machine.secondary(self.primary, cntlid, create=True)
        except KeyError as error:
            raise CommandRefusal(status) from error

    def data_out(self, length: int) -> bytes | memoryview:
        """Return exactly that many bytes from the host; a shorter buffer is a data transfer error."""
        data = self.command.data_out
        if length == 0:
            return b""
        if data is None or len(data) < length:
            raise CommandRefusal(DATA_TRANSFER_ERROR)
        return memoryview(data)[:length]


Answer = tuple[int, bytes]
"""What a command that succeeds returns: DW0 (and DW1 in the upper half), and data for the host."""
