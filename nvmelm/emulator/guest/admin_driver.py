"""The admin queue as a guest's driver uses it: rings in the guest's memory, and what it remembers of them.

It knows the rings and its own commands, and nothing of the controller. Each command that completes must be one it sent
and that is outstanding, in the slot where it looks for it; anything else is an error it notes. Requests for
asynchronous events are submitted again after each event, under the same identifier.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from nvmelm.wire.opcodes import Opcode
from nvmelm.wire.queue_entry import CompletionQueueEntry, SubmissionQueueEntry

#: Identifiers of event requests are those above what commands use; whatever comes under another one up there is an
#: event all the same, and the first of ours is asked for again. Source: Linux 6.1 nvme.h, nvme_is_aen_req.
FIRST_EVENT_CID = 31
_TAG = 0xFFF


class DriverMemory(Protocol):
    """The guest's own memory."""

    def read(self, address: int, length: int) -> bytes: ...

    def write(self, address: int, raw: bytes) -> None: ...


Doorbell = Callable[[int], None]


@dataclass(slots=True)
class AdminDriver:
    """What a driver remembers of its admin queue; all of it moves with the guest's memory.

    Attributes:
        asq, acq: where the rings lie.
        completed: status by identifier of what completed and was not asked for yet.
        events: DW0 of the events that came.
        errors: what should not have happened.
    """

    asq: int
    acq: int
    sq_slots: int = 32
    cq_slots: int = 32
    sq_tail: int = 0
    sq_head: int = 0  # from SQHD of the latest completion
    cq_head: int = 0
    phase: int = 1
    next_cid: int = 0
    sent: dict[str, int] = field(default_factory=dict)  # identifier -> opcode
    completed: dict[str, list[int]] = field(default_factory=dict)  # identifier -> status, DW0
    events: list[int] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def aqa(self) -> int:
        """Return the AQA register's value."""
        return self.cq_slots - 1 << 16 | self.sq_slots - 1

    @property
    def room(self) -> int:
        """Return how many commands can be submitted now: slots of the ring, and identifiers."""
        commands = sum(int(cid) < FIRST_EVENT_CID for cid in self.sent)
        return min((self.sq_head - self.sq_tail - 1) % self.sq_slots, FIRST_EVENT_CID - commands)

    def clear(self, memory: DriverMemory) -> None:
        """Clear the completion ring, as it must be before the controller is enabled."""
        memory.write(self.acq, bytes(CompletionQueueEntry.size * self.cq_slots))

    def put(self, memory: DriverMemory, opcode: int, *, cid: int | None = None, **fields: int) -> int:
        """Put a command into the ring and return its identifier; the doorbell is rung later."""
        chosen = self._new_cid() if cid is None else cid
        entry = SubmissionQueueEntry.pack(opcode=opcode, cid=chosen, **fields)
        memory.write(self.asq + SubmissionQueueEntry.size * self.sq_tail, entry)
        self.sq_tail = (self.sq_tail + 1) % self.sq_slots
        self.sent[str(chosen)] = opcode
        return chosen

    def request_events(self, memory: DriverMemory, count: int) -> None:
        """Put requests for events into the ring."""
        for number in range(count):
            self.put(memory, Opcode.ASYNCHRONOUS_EVENT_REQUEST, cid=FIRST_EVENT_CID + number)

    def reap(self, memory: DriverMemory, sq_doorbell: Doorbell, cq_doorbell: Doorbell) -> int:
        """Take every completion there is and return how many; ask for the next event after each."""
        taken, again = 0, []
        while (entry := self._next(memory)) is not None:
            taken += 1
            opcode = self.sent.pop(str(entry.cid), None)
            if entry.cid & _TAG >= FIRST_EVENT_CID:
                self.events.append(entry.dw0)
                again.append(FIRST_EVENT_CID if opcode is None else entry.cid)
            elif opcode is None:
                self.errors.append(f"a completion for identifier {entry.cid}, which is not outstanding")
            else:
                self.completed[str(entry.cid)] = [entry.status_value, entry.dw0]
        if taken:
            cq_doorbell(self.cq_head)
        for cid in again:
            self.put(memory, Opcode.ASYNCHRONOUS_EVENT_REQUEST, cid=cid)
        if again:
            sq_doorbell(self.sq_tail)
        return taken

    def take(self, cid: int) -> list[int] | None:
        """Return status and DW0 of a command, once it completed."""
        return self.completed.pop(str(cid), None)

    def _next(self, memory: DriverMemory) -> CompletionQueueEntry | None:
        at = self.acq + CompletionQueueEntry.size * self.cq_head
        entry = CompletionQueueEntry(memory.read(at, CompletionQueueEntry.size))
        if entry.phase != self.phase:
            return None
        self.sq_head = entry.sqhd
        self.cq_head += 1
        if self.cq_head == self.cq_slots:
            self.cq_head, self.phase = 0, self.phase ^ 1
        return entry

    def _new_cid(self) -> int:
        while str(self.next_cid) in self.sent:
            self.next_cid = (self.next_cid + 1) % FIRST_EVENT_CID
        cid = self.next_cid
        self.next_cid = (cid + 1) % FIRST_EVENT_CID
        return cid

    def to_json(self) -> dict[str, Any]:
        """Return everything the driver remembers."""
        return asdict(self)
