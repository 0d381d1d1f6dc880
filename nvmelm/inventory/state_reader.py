"""What saving and restoring share: how much one command carries, and Migration Receive with what it proves."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from nvmelm.commands import execute, migration
from nvmelm.host import AdminQueue
from nvmelm.inventory.picture import Primary
from nvmelm.wire.formats import SupportedStateFormats
from nvmelm.wire.migration import ControllerStateHeader

KiB, MiB = 1 << 10, 1 << 20

#: No kernel carries more in one passthrough command; so what a command needs stays bounded whatever a device allows.
MAX_COMMAND_BYTES = 8 * MiB
#: The least that any kernel and device carry in one command: one page.
_MIN_COMMAND_BYTES = 4 * KiB


def transfer_limit(queue: AdminQueue, device_bytes: int) -> int:
    """Return how many bytes of state one command carries: what device, kernel and this program allow.

    Args:
        device_bytes: 2^MDTS pages of the smallest size that CAP.MPSMIN can mean (4 KiB); 0: no limit.
    """
    limits = [MAX_COMMAND_BYTES, queue.max_transfer_bytes, *([device_bytes] if device_bytes else [])]
    return max(min(limits) // 4 * 4, _MIN_COMMAND_BYTES)


def formats_of(primary: Primary) -> SupportedStateFormats:
    """Return the state formats of a primary controller as the commands use them; none when it reports none."""
    known = primary.state_formats
    return (
        SupportedStateFormats(known.versions, tuple(map(UUID, known.vendor_uuids)))
        if known
        else SupportedStateFormats()
    )


@dataclass(slots=True)
class StateReader:
    """Migration Receive of one controller in one pair of formats.

    Attributes:
        version_index: of the NVMe part, from 1; 0 leaves it out.
        uuid_index: of the vendor part, from 1; 0 leaves it out.
        commands: how many were sent.
        said_suspended: how many completions said that the controller was suspended (CSUP).
    """

    queue: AdminQueue
    cntlid: int
    version_index: int
    uuid_index: int
    commands: int = 0
    said_suspended: int = 0

    def receive(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes of the state from ``offset`` on, both multiples of 4: the command counts dwords.

        Bytes behind the state's end are undefined, and an offset behind it is an Invalid Field (Base Specification 2.1,
        "Migration Receive command", Get Controller State).

        Raises:
            AdminCommandError: the device refused.
        """
        completion = execute(
            self.queue,
            migration.get_state(
                self.cntlid,
                offset=offset,
                length=length,
                version_index=self.version_index,
                uuid_index=self.uuid_index,
            ),
        )
        self.commands += 1
        self.said_suspended += migration.was_suspended(completion)
        return completion.data

    def header(self) -> ControllerStateHeader:
        """Return the header of the state."""
        return ControllerStateHeader(self.receive(0, ControllerStateHeader.size))


def is_suspended(queue: AdminQueue, cntlid: int, formats: SupportedStateFormats) -> bool:
    """Return whether a controller is suspended, as the header of its state says; nothing is changed."""
    return StateReader(queue, cntlid, min(len(formats.versions), 1), 0).header().suspended
