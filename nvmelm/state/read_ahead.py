"""Parts of a state, one of them read while the one before it is used."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Self

from nvmelm.errors import HostError
from nvmelm.inventory.state_reader import StateReader
from nvmelm.process.interrupts import begin, held_back

#: A command that takes less is over before another thread has begun with it, and its data are still in the cache.
WORTH_A_THREAD_S = 0.0005


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
