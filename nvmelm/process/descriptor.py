"""A descriptor that several threads use: nobody uses a number that was given back, and a file of others never gets it.

The kernel gives the number of a closed descriptor to whatever is opened next. Looking whether it is still open and
then using it leaves room between the two, in which another thread closes it; here the number is lent out instead, and
is given back to the kernel by whoever leaves last.
"""

from __future__ import annotations

import os
import threading
from types import TracebackType
from typing import Self


class DescriptorClosedError(Exception):
    """It was closed before this use of it began."""


class Descriptor:
    """Owns a descriptor; each use of its number stands in a ``with`` block.

    >>> reading, writing = map(Descriptor, os.pipe2(os.O_CLOEXEC))
    >>> with writing as number:
    ...     writing.close()  # it stays open as long as this block needs it
    ...     os.write(number, b"x")
    1
    >>> reading.close()

    Args:
        number: the descriptor; it belongs to this object from now on.

    Raises:
        DescriptorClosedError: on entering the block, once :meth:`close` was called.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._guard = threading.RLock()  # a handler of a signal may use it while its thread does
        self._users = 0
        self._closed = False

    @property
    def closed(self) -> bool:
        """Return whether it was closed; what is true now stays true, what is false may not."""
        return self._closed

    def close(self) -> None:
        """Let nobody begin to use it any more; those who use it now keep it open until they are done."""
        with self._guard:
            last = not self._closed and not self._users
            self._closed = True
            if last:
                os.close(self._number)

    def __enter__(self) -> int:
        with self._guard:
            if self._closed:
                raise DescriptorClosedError
            self._users += 1
            return self._number

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._guard:
            self._users -= 1
            if self._closed and not self._users:
                os.close(self._number)

    def __str__(self) -> str:
        return "closed" if self._closed else str(self._number)


class Waker:
    """Something that can be waited for, and be woken from any thread and at any time, also after it was closed.

    A pipe and no eventfd: a signal's wakeup descriptor gets single bytes.
    """

    def __init__(self) -> None:
        reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.reading, self.writing = Descriptor(reading), Descriptor(writing)

    def fileno(self) -> int:
        """Return the descriptor that can be read once somebody woke it, to those who use :attr:`reading` meanwhile."""
        with self.reading as number:
            return number

    def wake(self) -> None:
        """Let whoever waits go on; nobody is woken when it was closed."""
        try:
            with self.writing as number:
                os.write(number, b"\0")
        except (DescriptorClosedError, BrokenPipeError, BlockingIOError):  # full: it is awake
            return

    def rest(self) -> None:
        """Forget who woke it."""
        try:
            with self.reading as number:
                os.read(number, 4096)
        except (DescriptorClosedError, BlockingIOError):
            return

    def close(self) -> None:
        """Give both ends back; a second time does nothing."""
        self.reading.close()
        self.writing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
