"""Read a User Data Migration Queue: slots in host memory that the controller fills, and the host empties.

::

    slot    0     1     2     3     4     5     6     7
         +-----+-----+-----+-----+-----+-----+-----+-----+
         |  .  |  .  |  a  |  b  |  c  |  .  |  .  |  .  |      a, b, c: posted, not read
         +-----+-----+-----+-----+-----+-----+-----+-----+
                      head              tail

The tail is the controller's secret. An entry is new when its phase bit is the one of the current pass: 1 in the first
pass over the zeroed memory, inverted with every wrap. The host publishes the head with Set Features; one slot always
stays free, so at most ``slots - 1`` entries wait. A controller that finds no free slot posts a last entry that says
so and logs no more: the copy starts again.

Sources: NVM Express Base Specification 2.1, "Controller Data Queues"; NVM Command Set Specification 1.2, "LBA
Migration Queue Entry Type 0".
"""

from __future__ import annotations

from nvmelm.wire.layout import U32, Buffer, Layout
from nvmelm.wire.tracking import EntryMarker, MigrationQueueEntry

_LAST = (EntryMarker.LAST_STOPPED, EntryMarker.LAST_SUSPENDED, EntryMarker.LAST_FULL)


class DataQueueFeature(Layout, size=512):
    """What Get Features returns for a Controller Data Queue.

    Source: NVM Express Base Specification 2.1, "Controller Data Queue (Feature Identifier 21h)".
    """

    hp = U32(0, "Head Pointer: slot of the next entry the host will read")
    tpt = U32(4, "Tail Pointer Trigger: slot that raises an event")

    @classmethod
    def parse(cls, raw: Buffer) -> DataQueueFeature:
        """Read an answer of at least the 8 bytes that mean something.

        Raises:
            MalformedError: fewer than 8 bytes, or more than 512.
        """
        return cls(bytes(raw).ljust(cls.size, b"\0") if len(raw) >= cls.tpt.end else raw)


class UserDataMigrationQueueReader:
    """The host's side of one User Data Migration Queue; reads memory, sends nothing.

    Args:
        memory: the queue, whole entries, at least two; zeroed before the queue was created.

    Attributes:
        head: the slot of the next entry to read.
        phase: the phase bit that a new entry in that slot will have.
        started: an entry that begins a log was read.
        ended: the marker of a last entry that was read, None while logging goes on; a resumed log begins anew.
    """

    def __init__(self, memory: memoryview) -> None:
        flat = memory.cast("B")
        size = MigrationQueueEntry.size
        if len(flat) % size or len(flat) < 2 * size:
            raise ValueError(f"a queue of {len(flat)} bytes does not hold two or more whole entries")
        self._memory = flat
        self.slots = len(flat) // size
        self.head = 0
        self.phase = 1
        self.started = False
        self.ended: EntryMarker | None = None
        self._unpublished = 0

    def take(self) -> list[MigrationQueueEntry]:
        """Return the entries that were posted since the last call, none when there are none.

        Never more than the controller can have posted behind the head it knows: publish :attr:`head` and call
        :meth:`published` between two full takes.
        """
        entries: list[MigrationQueueEntry] = []
        while self._unpublished < self.slots - 1 and (entry := self._next()) is not None:
            self._advance()
            self._note(entry.marker)
            entries.append(entry)
        return entries

    def close(self) -> None:
        """Let go of the memory."""
        self._memory.release()

    def published(self) -> None:
        """Note that the controller was told :attr:`head`."""
        self._unpublished = 0

    @property
    def head_to_publish(self) -> int | None:
        """Return the head the controller should be told, None when it knows it.

        Setting a head that did not move on an empty queue is refused by the controller as Invalid Field in Command.
        """
        return self.head if self._unpublished else None

    @property
    def must_restart(self) -> bool:
        """Return whether changes were lost because the queue was full."""
        return self.ended == EntryMarker.LAST_FULL

    def _next(self) -> MigrationQueueEntry | None:
        start = self.head * MigrationQueueEntry.size
        # The last byte is the last thing the controller writes of an entry, so it is the first thing to read.
        if self._memory[start + MigrationQueueEntry.size - 1] & 1 != self.phase:
            return None
        return MigrationQueueEntry.at(self._memory, start)

    def _advance(self) -> None:
        self._unpublished += 1
        self.head += 1
        if self.head == self.slots:
            self.head = 0
            self.phase ^= 1

    def _note(self, marker: int) -> None:
        if marker == EntryMarker.FIRST:
            self.started, self.ended = True, None
        elif marker in _LAST:
            self.ended = EntryMarker(marker)
