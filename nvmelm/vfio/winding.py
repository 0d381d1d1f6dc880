"""Wind the admin queue of a freshly enabled controller to where the guest's driver believes it is.

The virtual machine stands still. Its two ring pages are kept, and used meanwhile: as many commands as
:func:`~nvmelm.vfio.admin_queue.commands_needed` says, which need no data and change nothing, and then the outstanding
event requests. When the pages are put back, slots that got a completion beyond the guest's position keep it: it is an
event of this host, and the guest's own. The event requests stay as well: a controller fetches when it likes, no
completion tells that it has, and what stood in their slots before is an old command.

Without it the controller begins at slot 0 at the guest's next doorbell, and executes old admin commands again; their
data land in memory that the guest has given to others long since.

Source: NVM Express Base Specification 2.1, "Get Features command", Number of Queues; "Asynchronous Event Request
command".
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from nvmelm.errors import HostError, NvmelmError
from nvmelm.process.waiting import wait_until
from nvmelm.vfio import admin_queue
from nvmelm.vfio.admin_queue import CQE_BYTES, SQE_BYTES, Position, Shape
from nvmelm.vfio.registers import AdminRegisters, Controller
from nvmelm.vfio.seam import GuestMemory
from nvmelm.wire.opcodes import Opcode
from nvmelm.wire.queue_entry import CompletionQueueEntry, SubmissionQueueEntry

_NUMBER_OF_QUEUES = 0x07
#: Commands of ours have identifiers of their own, of which 0xFFFF is reserved.
_CIDS = 0xF000


@dataclass(frozen=True, slots=True)
class Rings:
    """The two rings of an admin queue as they lie in the guest's memory."""

    sq: bytes
    cq: bytes

    @property
    def sha256(self) -> str:
        """Return the digest of both, 64 hexadecimal digits."""
        return hashlib.sha256(self.sq + self.cq).hexdigest()

    @classmethod
    def read(cls, memory: GuestMemory, registers: AdminRegisters) -> Rings:
        """Read them.

        Raises:
            HostError: they do not lie in memory of the guest, or it cannot be reached.
        """
        shape = Shape.of(registers.aqa)
        try:
            return cls(memory.read(registers.asq, shape.sq_bytes), memory.read(registers.acq, shape.cq_bytes))
        except (LookupError, OSError) as error:
            raise HostError(
                f"the admin queue at {registers.asq:#x} and {registers.acq:#x} cannot be read",
                cause=f"it does not lie in memory that the VMM has mapped for DMA ({error})",
                fix="a virtual IOMMU in front of the VF needs an interposer that is told of its mappings",
                reason="admin-queue-unreachable",
            ) from error


def wind(controller: Controller, memory: GuestMemory, registers: AdminRegisters, position: Position) -> int:
    """Bring a controller, enabled a moment ago with these registers, to a position; return the commands it took.

    Raises:
        NotSupportedError: there is no way to the position.
        TimedOutError: a command did not complete in time.
        NvmelmError: a command failed, or the controller does not stand where it should.
    """
    shape = Shape.of(registers.aqa)
    commands = admin_queue.commands_needed(shape, position)
    rings = Rings.read(memory, registers)
    winder = _Winder(controller, memory, registers, shape)
    requests: dict[int, bytes] = {}
    with _put_back(memory, registers, rings, position, requests):
        memory.write(registers.acq, bytes(shape.cq_bytes))
        winder.run(commands)
        for cid in position.identifiers(admin_queue.identifiers(rings.sq)):
            requests.update(winder.request(cid))
    return commands


@contextmanager
def _put_back(
    memory: GuestMemory, registers: AdminRegisters, rings: Rings, position: Position, requests: Mapping[int, bytes]
) -> Iterator[None]:
    """Put the rings' pages back at the end of a block, but for completions that came after the guest's position.

    Args:
        requests: entries of the submission ring that stay, by offset.
    """
    try:
        yield
    finally:
        slots = len(rings.cq) // CQE_BYTES
        old, now = bytearray(rings.cq), memory.read(registers.acq, len(rings.cq))
        slot, tag = position.completions % slots, 1 - position.completions // slots
        for at in range(slot * CQE_BYTES, len(now), CQE_BYTES):
            entry = CompletionQueueEntry.at(now, at)
            if entry.phase != tag:
                break
            old[at : at + CQE_BYTES] = entry.raw
        submissions = bytearray(rings.sq)
        for at, raw in requests.items():
            submissions[at : at + SQE_BYTES] = raw
        memory.write(registers.asq, bytes(submissions))
        memory.write(registers.acq, bytes(old))


class _Winder:
    """The driver of an admin queue for the time of winding."""

    def __init__(self, controller: Controller, memory: GuestMemory, registers: AdminRegisters, shape: Shape) -> None:
        self._controller, self._memory = controller, memory
        self._asq, self._acq = registers.asq, registers.acq
        self._shape = shape
        self._submitted = self._completed = 0

    def run(self, commands: int) -> None:
        """Have so many commands completed, as many at a time as the rings hold."""
        most = min(self._shape.sq_slots, self._shape.cq_slots) - 1
        while self._submitted < commands:
            count = min(most, commands - self._submitted)
            self._put([(Opcode.GET_FEATURES, _CIDS + number, _NUMBER_OF_QUEUES) for number in range(count)])
            self._await()

    def request(self, cid: int) -> dict[int, bytes]:
        """Submit a request for an event, which completes with an event, or never; return its entry by its offset."""
        return self._put([(Opcode.ASYNCHRONOUS_EVENT_REQUEST, cid, 0)])

    def _put(self, commands: list[tuple[int, int, int]]) -> dict[int, bytes]:
        """Submit commands, each an opcode, an identifier and CDW10, which fit into the ring and may wrap in it.

        Returns:
            What was written, by its offset in the ring.
        """
        slot = self._submitted % self._shape.sq_slots
        fit = self._shape.sq_slots - slot
        written = {
            SQE_BYTES * at: b"".join(
                SubmissionQueueEntry.pack(opcode=op, cid=cid, cdw10=word) for op, cid, word in part
            )
            for at, part in ((slot, commands[:fit]), (0, commands[fit:]))
            if part
        }
        for at, raw in written.items():
            self._memory.write(self._asq + at, raw)
        self._submitted += len(commands)
        self._controller.ring_sq(self._submitted % self._shape.sq_slots)
        return written

    def _await(self) -> None:
        """Wait until everything submitted has completed, and give the slots back."""
        timeout_s = self._controller.timeout_s
        wait_until(self._caught_up, "the admin queue to be wound", deadline_s=timeout_s)
        self._controller.ring_cq(self._completed % self._shape.cq_slots)

    def _caught_up(self) -> bool:
        ring = self._memory.read(self._acq, self._shape.cq_bytes)
        while self._completed < self._submitted:
            passes, slot = divmod(self._completed, self._shape.cq_slots)
            entry = CompletionQueueEntry.at(ring, CQE_BYTES * slot)
            if entry.phase != 1 - passes % 2:
                return False
            if entry.status_value:
                raise NvmelmError(
                    f"a command that winds the admin queue failed with status {entry.status_value:#06x}",
                    cause="Get Features, Number of Queues, is mandatory and was refused",
                    fix="let the controller arrive disabled, so that the guest's driver resets it",
                    reason="winding-failed",
                )
            self._completed += 1
        return True
