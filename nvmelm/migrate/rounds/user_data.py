"""The log of user data: which blocks of which namespace controllers change while they run, in rounds.

For namespaces that the destination does not see. The caller has copied them, is told in each round what was written
since, and copies that again; a last round after the suspend has what was written until then. The device writes the log
into a Controller Data Queue, memory of this host that must stay where it is: a host that cannot give such memory
(:meth:`~nvmelm.host.Host.queue_memory`), as one whose kernel owns the PF, refuses.

A queue that filled up has lost changes: the round says so (``restart``), everything has to be copied once more, and
the log begins anew. After the suspend there is no time for that, and the migration is given up.

Sources: NVM Express Base Specification 2.1, "Controller Data Queues", "Track Send command"; NVM Command Set
Specification 1.2, "LBA Migration Queue Entry Type 0".
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from nvmelm.commands import AdminCommandError, data_queue, execute, tracking
from nvmelm.errors import MalformedError, NotSupportedError, NvmelmError
from nvmelm.host import Host
from nvmelm.inventory.opened import OpenPrimary
from nvmelm.inventory.picture import Primary
from nvmelm.migrate.rounds.memory import Limits
from nvmelm.ownership.sessions import Moving
from nvmelm.process.interrupts import undisturbed
from nvmelm.wire.data_queue import UserDataMigrationQueueReader
from nvmelm.wire.extents import Extent, merge, total
from nvmelm.wire.tracking import EntryMarker, MigrationQueueEntry, RangeScope

#: 128 KiB of memory; a guest that writes as fast as it can takes some 40 ms to fill it with entries.
SLOTS = 4096
#: Rounds end with one of so few entries, or as those of memory do.
_FEW_ENTRIES = 64


@dataclass(frozen=True, slots=True)
class Written:
    """What one round found of one controller.

    Attributes:
        blocks: by namespace, half-open ranges of logical blocks, sorted and disjoint.
        whole: namespaces of which all may have changed.
        restart: changes were lost: everything has to be copied again.
        after_suspend: the last one: nothing is added to it before the controller is resumed.
    """

    cntlid: int
    number: int
    seconds: float
    blocks: dict[int, tuple[Extent, ...]]
    whole: tuple[int, ...]
    restart: bool
    after_suspend: bool

    @property
    def count(self) -> int:
        """Return how many blocks these are, whole namespaces left out."""
        return sum(total(extents) for extents in self.blocks.values())


OnWritten = Callable[[Written], None]
"""Told of each round, before the next; it copies what was written, or has it copied."""


def coalesced(entries: Iterable[MigrationQueueEntry]) -> tuple[dict[int, tuple[Extent, ...]], tuple[int, ...]]:
    """Return what entries speak of: ranges by namespace, neighbours joined, and namespaces that changed as a whole.

    Deallocated blocks are changed blocks. An entry for all namespaces stands under 0xFFFFFFFF.

    Raises:
        MalformedError: an entry has a scope that there is none of, or a range of no namespace.
    """
    ranges: dict[int, list[Extent]] = {}
    whole: set[int] = set()
    for entry in entries:
        if entry.scope == RangeScope.WHOLE_NAMESPACE:
            whole.add(entry.nsid)
        elif entry.blocks is not None:
            ranges.setdefault(entry.nsid, []).append(Extent(*entry.blocks))
        elif entry.scope != RangeScope.NONE:
            raise _nonsense(f"an entry has the range scope {entry.scope}")
    if 0 in ranges or 0 in whole:
        raise _nonsense("an entry with blocks names no namespace")
    return {nsid: tuple(merge(extents)) for nsid, extents in sorted(ranges.items()) if nsid not in whole}, tuple(
        sorted(whole)
    )


#: Memory that a device may still write to, since it did not say that it will not. It is kept until this process ends.
_KEPT: list[ExitStack] = []


class _Queue:
    """One controller's queue, from its creation until it is deleted."""

    def __init__(self, pf: OpenPrimary, cntlid: int, slots: int) -> None:
        self.cntlid = cntlid
        self._queue = pf.queue
        self._memory = ExitStack()
        size = slots * MigrationQueueEntry.size
        memory = self._memory.enter_context(pf.host.queue_memory(size))[:size]
        self._memory.callback(memory.release)
        self.reader = UserDataMigrationQueueReader(memory)
        try:
            self.id = data_queue.created_id(execute(self._queue, data_queue.create(cntlid, memory)))
        except AdminCommandError:
            self._give_back()
            raise
        except BaseException:  # it may have been made all the same
            _KEPT.append(self._memory)
            raise

    def take(self, *, whole: bool) -> list[MigrationQueueEntry]:
        """Return entries that are there, and tell the controller that their slots are free.

        Args:
            whole: until there are none left, which is only when the controller stands still; otherwise at most what
                the queue has room for, as a guest may write as fast as this reads.
        """
        taken: list[MigrationQueueEntry] = []
        while (whole or len(taken) < self.reader.slots) and (entries := self.reader.take()):
            taken += entries
            head = self.reader.head_to_publish
            if head is not None:
                execute(self._queue, data_queue.set_head(self.id, head))
                self.reader.published()
            if self.reader.ended is not None:
                break
        return taken

    def start(self) -> None:
        execute(self._queue, tracking.start_user_data_log(self.id))

    def delete(self) -> None:
        """Delete the queue, and give its memory back: from here on the controller writes nothing there.

        A device that refuses may go on writing, so it keeps the memory until this process ends.
        """
        try:
            execute(self._queue, data_queue.delete(self.id))
        except BaseException:
            _KEPT.append(self._memory)
            raise
        self._give_back()

    def _give_back(self) -> None:
        self.reader.close()
        self._memory.close()


class UserDataLog:
    """Logs what some controllers change, from its making until it is closed.

    Attributes:
        rounds: what was found so far.
        notes: what could not be tidied up.

    Raises:
        NotSupportedError: this host has no memory for a queue.
        AdminCommandError: the device refused.
    """

    def __init__(
        self, pf: OpenPrimary, controllers: Sequence[int], on_written: OnWritten, *, slots: int = SLOTS
    ) -> None:
        self.rounds: list[Written] = []
        self.notes: list[str] = []
        self._on_written = on_written
        self._started = self._since = time.monotonic()
        self._queues: list[_Queue] = []
        try:
            for cntlid in controllers:
                with undisturbed():  # a queue that is made is known
                    self._queues.append(_Queue(pf, cntlid, slots))
            for queue in self._queues:
                queue.start()
        except BaseException:
            self.close()
            raise

    def converge(self) -> None:
        """Go through rounds until little is written, or a bound is met.

        Raises:
            AdminCommandError: the device refused.
            MalformedError: it logs nonsense.
        """
        Limits().go(lambda: self._round(after_suspend=False), _FEW_ENTRIES, self._started)

    def final(self) -> None:
        """Take what was written until the suspend; the controllers are suspended.

        Raises:
            NvmelmError: changes were lost, or the log does not end with the suspend.
        """
        self._round(after_suspend=True)

    def close(self) -> None:
        """Delete the queues; a device that refuses is noted, for they end with a reset at the latest."""
        with undisturbed():
            while self._queues:
                queue = self._queues.pop()
                try:
                    queue.delete()
                except NvmelmError as error:
                    self.notes.append(f"the log of {queue.cntlid:#06x} was not ended: {error.message}")

    def _round(self, *, after_suspend: bool) -> int:
        number, now = len(self.rounds) // max(1, len(self._queues)) + 1, time.monotonic()
        seconds, self._since = now - self._since, now
        taken = 0
        for queue in self._queues:
            entries = queue.take(whole=after_suspend)
            lost = queue.reader.must_restart
            if after_suspend:
                _require_end(queue, lost=lost)
            blocks, whole = coalesced(entries)
            if lost:
                queue.start()  # before it is told: what the copy that follows overlooks stands in the new log
            logged = Written(queue.cntlid, number, seconds, blocks, whole, lost, after_suspend)
            self.rounds.append(logged)
            self._on_written(logged)
            taken += len(entries)
        return taken


def _require_end(queue: _Queue, *, lost: bool) -> None:
    """Refuse a log that does not say that it is complete."""
    if lost:
        raise NvmelmError(
            f"the log of {queue.cntlid:#06x} was full: which blocks it wrote last is not known",
            cause="the guest wrote faster than the log was read",
            fix="migrate again while the guest writes less",
            reason="log-full",
        )
    if queue.reader.ended != EntryMarker.LAST_SUSPENDED:
        raise MalformedError(
            f"the log of {queue.cntlid:#06x} does not end with the suspend",
            cause="its last entry does not say so: which blocks it wrote last is not known",
            reason="log-unfinished",
        )


def starter(
    host: Host, primary: Primary, on_written: OnWritten
) -> Callable[[OpenPrimary, Sequence[Moving]], UserDataLog]:
    """Return what starts the log when the migration has come to that; host and device are asked here, before.

    Raises:
        NotSupportedError: this host has no memory for a queue, or the device logs no user data.
    """
    with host.queue_memory(MigrationQueueEntry.size):
        pass
    if not primary.tracking.user_data:
        raise NotSupportedError(
            f"{primary.address} does not log which blocks its controllers write",
            cause="its Identify data has Log User Data Changes (TRATTR bit 1) clear",
            fix="migrate without --log-user-data; namespaces that both hosts see need no log",
            reason="no-user-data-log",
        )
    return lambda session, controllers: UserDataLog(
        session, [controller.cntlid for controller in controllers], on_written
    )


def _nonsense(why: str) -> MalformedError:
    return MalformedError("the log of user data makes no sense", cause=why, reason="log-malformed")
