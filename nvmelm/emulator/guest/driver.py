"""The guest's NVMe driver: rings in the guest's memory, positions of its own, and a memory for every command it sent.

It knows nothing of the emulator's state: it sees memory, registers and doorbells, as a driver does. So whatever a
migration loses, doubles or sends to the wrong place is noticed here.

::

    page 0              admin submission queue   page 1              admin completion queue
    page 2              what the guest's software remembers, for a move to another host
    page 8 + 2q, +1     I/O submission and completion queue q + 1
    from page 32        buffers: for each command that can be outstanding a PRP list page and its data pages
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from nvmelm.emulator.device.registers import Port
from nvmelm.emulator.guest.admin_driver import AdminDriver
from nvmelm.emulator.machine.memory import PAGE, Memory
from nvmelm.wire.opcodes import IoOpcode
from nvmelm.wire.queue_entry import CompletionQueueEntry, SubmissionQueueEntry

ADMIN_SQ, ADMIN_CQ = 0 * PAGE, 1 * PAGE
REMEMBERED, REMEMBERED_BYTES = 2 * PAGE, 6 * PAGE
_QUEUES = 8 * PAGE
_BUFFERS = 32 * PAGE
MAX_QUEUES = (_BUFFERS - _QUEUES) // (2 * PAGE)

AQA = 31 << 16 | 31
CC = 0x0046_0001  # EN, I/O queue entries of 64 and 16 bytes
_READY = 0x1


Create = Callable[[int, int, int], int]
"""Creates an I/O queue pair: its id, where its submission and its completion ring lie; returns the status."""


@dataclass(slots=True)
class Ring:
    """One I/O queue pair as the driver keeps it."""

    qid: int
    entries: int
    sq_tail: int = 0
    sq_head: int = 0  # from SQHD of the latest completion
    cq_head: int = 0
    phase: int = 1

    @property
    def room(self) -> int:
        """Return how many commands fit into the submission queue now."""
        return (self.sq_head - self.sq_tail - 1) % self.entries


@dataclass(slots=True)
class SubmittedCommand:
    """A command that was submitted and whose completion has not been seen."""

    qid: int
    cid: int
    opcode: int
    place: int  # the record of the medium it reads or writes
    number: int  # the number written, or expected
    buffer: int


@dataclass(slots=True)
class Driver:
    """The driver's memory: all of it moves with the guest."""

    io_bytes: int
    depth: int
    rings: list[Ring] = field(default_factory=list)
    sent: list[SubmittedCommand] = field(default_factory=list)
    free: list[int] = field(default_factory=list)
    next_cid: int = 0
    admin: AdminDriver | None = None  # where it drives its admin queue itself

    def start(self, port: Port, queues: int, entries: int) -> str:
        """Enable the controller and create I/O queues; return what went wrong, or nothing."""
        port.write_admin_queues(aqa=AQA, asq=ADMIN_SQ, acq=ADMIN_CQ)
        csts = port.write_cc(CC)
        if csts != _READY:
            return f"the controller does not get ready, CSTS {csts:#x}"

        def create(qid: int, submission: int, completion: int) -> int:
            status = port.create_io_cq(qid, prp1=completion, size=entries - 1)
            return status or port.create_io_sq(qid, prp1=submission, size=entries - 1, cqid=qid)

        return self.make_queues(queues, entries, create)

    def make_queues(self, queues: int, entries: int, create: Create) -> str:
        """Have I/O queues created, in a controller that is ready; return what went wrong, or nothing."""
        for number in range(queues):
            submission, completion = _QUEUES + 2 * PAGE * number, _QUEUES + 2 * PAGE * number + PAGE
            qid = number + 1
            status = create(qid, submission, completion)
            if status:
                return f"I/O queue {qid} was not created, status {status:#06x}"
            self.rings.append(Ring(qid, entries))
        stride = self.buffer_bytes
        self.free = [_BUFFERS + stride * number for number in range(self.depth)]
        return ""

    @property
    def buffer_bytes(self) -> int:
        """Return the memory one outstanding command needs, bytes: a PRP list page and data pages."""
        return PAGE + -(-self.io_bytes // PAGE) * PAGE

    @staticmethod
    def memory_needed(io_bytes: int, depth: int) -> int:
        """Return the memory a guest needs at least, bytes."""
        return _BUFFERS + depth * Driver(io_bytes, depth).buffer_bytes

    def submit(
        self, memory: Memory, ring: Ring, opcode: int, nsid: int, lba: int, blocks: int, what: SubmittedCommand
    ) -> None:
        """Put a command into a ring; the doorbell is rung later."""
        list_page, data = what.buffer, what.buffer + PAGE
        pages = -(-self.io_bytes // PAGE)
        for number in range(1, pages):
            memory.write(list_page + 8 * (number - 1), (data + PAGE * number).to_bytes(8, "little"))
        prp2 = 0 if pages == 1 else data + PAGE if pages == 2 else list_page
        entry = SubmissionQueueEntry.pack(
            opcode=opcode,
            cid=what.cid,
            nsid=nsid,
            prp1=0 if opcode == IoOpcode.FLUSH else data,
            prp2=prp2,
            cdw10=lba & 0xFFFF_FFFF,
            cdw11=lba >> 32,
            cdw12=blocks - 1,
        )
        memory.write(_QUEUES + 2 * PAGE * (ring.qid - 1) + SubmissionQueueEntry.size * ring.sq_tail, entry)
        ring.sq_tail = (ring.sq_tail + 1) % ring.entries
        self.sent.append(what)

    def reap(self, memory: Memory, ring: Ring) -> CompletionQueueEntry | None:
        """Return the next completion of a ring, or None; the doorbell is rung later."""
        at = _QUEUES + 2 * PAGE * (ring.qid - 1) + PAGE + CompletionQueueEntry.size * ring.cq_head
        entry = CompletionQueueEntry(memory.read(at, CompletionQueueEntry.size))
        if entry.phase != ring.phase:
            return None
        ring.cq_head += 1
        if ring.cq_head == ring.entries:
            ring.cq_head, ring.phase = 0, ring.phase ^ 1
        ring.sq_head = entry.sqhd
        return entry

    def new_cid(self) -> int:
        """Return a command identifier that no outstanding command has; one is used again as late as possible."""
        taken = {command.cid for command in self.sent}
        while self.next_cid in taken:
            self.next_cid = (self.next_cid + 1) & 0xFFFF
        cid = self.next_cid
        self.next_cid = (cid + 1) & 0xFFFF
        return cid

    def to_json(self) -> dict[str, Any]:
        """Return everything the driver remembers."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Driver:
        """Return the driver that :meth:`to_json` described."""
        rings = [Ring(**ring) for ring in values["rings"]]
        admin = AdminDriver(**values["admin"]) if values.get("admin") else None
        sent = [SubmittedCommand(**command) for command in values["sent"]]
        return cls(**{**values, "rings": rings, "sent": sent, "admin": admin})
