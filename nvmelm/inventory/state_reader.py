"""What saving and restoring share: how much one command carries, and Migration Receive with what it proves."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Self
from uuid import UUID

from nvmelm.commands import execute, migration
from nvmelm.errors import HostError
from nvmelm.host import AdminQueue
from nvmelm.inventory.picture import Primary
from nvmelm.process.interrupts import begin, held_back
from nvmelm.wire.formats import StateFormats
from nvmelm.wire.migration import ControllerStateHeader

KiB, MiB = 1 << 10, 1 << 20

#: No kernel carries more in one passthrough command; so what a command needs stays bounded whatever a device allows.
MAX_COMMAND_BYTES = 8 * MiB
#: The least that any kernel and device carry in one command: one page.
_MIN_COMMAND_BYTES = 4 * KiB
#: A command that takes less is over before another thread has begun with it, and its data are still in the cache.
WORTH_A_THREAD_S = 0.0005


def transfer_limit(queue: AdminQueue, device_bytes: int) -> int:
    """Return how many bytes of state one command carries: what device, kernel and this program allow.

    Args:
        device_bytes: 2^MDTS pages of the smallest size that CAP.MPSMIN can mean (4 KiB); 0: no limit.
    """
    limits = [MAX_COMMAND_BYTES, queue.max_transfer_bytes, *([device_bytes] if device_bytes else [])]
    return max(min(limits) // 4 * 4, _MIN_COMMAND_BYTES)


def formats_of(primary: Primary) -> StateFormats:
    """Return the state formats of a primary controller as the commands use them; none when it reports none."""
    known = primary.state_formats
    return StateFormats(known.versions, tuple(map(UUID, known.vendor_uuids))) if known else StateFormats()


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
        """Return some bytes of the state.

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


def is_suspended(queue: AdminQueue, cntlid: int, formats: StateFormats) -> bool:
    """Return whether a controller is suspended, as the header of its state says; nothing is changed."""
    return StateReader(queue, cntlid, min(len(formats.versions), 1), 0).header().suspended


class ReadAhead:
    """Reads a state part by part, one command at a time; a slow device is asked for a part while the last one is used.

    Nothing is read that was not asked for: a part is asked for when the one before it is taken. Of a device that is
    quick each part is read when it is wanted: a second thread would cost more than it saves.

    Args:
        total: bytes of the state.
        limit: bytes of a part.
        worth_s: what a command has to take, s, so that the next one is sent ahead.
    """

    def __init__(self, reader: StateReader, total: int, limit: int, *, worth_s: float = WORTH_A_THREAD_S) -> None:
        self._reader = reader
        self._worth_s = worth_s
        self._places: Iterator[tuple[int, int]] = (
            (offset, min(limit, total - offset)) for offset in range(0, total, limit)
        )
        # These queues are written in C; there are thousands of parts, and a future for each would cost more.
        self._asked: SimpleQueue[tuple[int, int] | None] = SimpleQueue()
        self._read: SimpleQueue[bytes | BaseException] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._ahead = False
        self._took_s = 0.0

    def next(self) -> bytes:
        """Return the next part, and have the one behind it read meanwhile if that pays.

        Raises:
            NvmelmError: it could not be read.
        """
        part = self._read.get() if self._ahead else self._receive(*next(self._places))
        if isinstance(part, BaseException):
            raise part
        self._ahead = self._took_s >= self._worth_s and self._ask()
        return part

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._thread is not None:
            self._asked.put(None)
            with held_back():
                self._thread.join()

    def _receive(self, offset: int, length: int) -> bytes:
        started = time.monotonic()
        part = self._reader.receive(offset, length)
        self._took_s = time.monotonic() - started
        return part

    def _ask(self) -> bool:
        place = next(self._places, None)
        if place is None:
            return False
        if self._thread is None and not self._begin():
            self._places = itertools.chain([place], self._places)
            return False
        self._asked.put(place)
        return True

    def _begin(self) -> bool:
        """Start the thread that reads ahead; return whether there is one: it saves time, and nothing else."""
        thread = threading.Thread(target=self._run, name="nvmelm-get", daemon=True)
        try:
            begin(thread)
        except HostError:
            self._worth_s = math.inf
            return False
        self._thread = thread
        return True

    def _run(self) -> None:
        while (place := self._asked.get()) is not None:
            try:
                self._read.put(self._receive(*place))
            except BaseException as error:  # raised again by the thread that takes the part
                self._read.put(error)
