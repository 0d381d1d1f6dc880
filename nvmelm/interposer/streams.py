"""data_fd: the pipe between a VMM's plain blocking reads or writes and a state of ours.

::

    STOP_COPY   Outgoing.read ──► thread ──► pipe ──► the VMM reads until 0
    RESUMING    the VMM writes ──► pipe ──► thread ──► Incoming.write

The VMM's end blocks, ours does not: the thread waits for the pipe or for :meth:`Stream.end`, whatever comes first, and
never wakes up in vain. A VMM need not close its end before it asks for the next state (QEMU does not): what it has
written is in the pipe by then, so the thread takes that and ends.

How a failure reaches the VMM: a state that is refused while it comes in closes our end, and the VMM's write fails with
EPIPE, at once, while the source can still go on. For that a write must be left to fail: between the VMM's last byte and
what was judged there are never more than a piece and a pipe, of :data:`nvmelm.vfio.seam.PIECE_BYTES` each, and a state
ends with more bytes of padding than that (:data:`nvmelm.vfio.stream.PADDING_BYTES`). A state that fails on its way out
can only end early; the next arc says so (:attr:`Stream.refusal`).
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import Any

from nvmelm.vfio.seam import PIECE_BYTES, Incoming, Outgoing, Refusal

#: Held while the methods of a function and its streams run.
Lock = AbstractContextManager[Any]
Failed = Callable[[Refusal], None]

KiB, MiB = 1 << 10, 1 << 20

#: While a stranger's header is judged, no more than this is taken from the VMM unjudged.
_CAUTIOUS_BYTES = 4 * KiB
_PIPE_BYTES = 1 * MiB  # of a state on its way out; fs.pipe-max-size of an unprivileged process


class Stream(ABC):
    """A running stream; made when its state is entered.

    Attributes:
        theirs: the VMM's end, ours to close until :meth:`delivered`; then -1.
        refusal: why it failed, if it did.
    """

    def __init__(self, ours: int, theirs: int, lock: Lock, failed: Failed, name: str) -> None:
        self.theirs = theirs
        self.refusal: Refusal | None = None
        self._failed = failed
        self._ours = ours
        self._lock = lock
        self._end = os.eventfd(0, os.EFD_CLOEXEC)
        os.set_blocking(ours, False)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._pump()
        except Refusal as refusal:
            self.refusal = refusal
        except Exception as error:  # the VMM's arc fails, and the supervisor goes on
            self.refusal = Refusal(errno.EIO, f"the stream broke: {type(error).__name__}: {error}")
        if self.refusal is not None:
            with suppress(Exception):
                self._failed(self.refusal)  # before the VMM can see it
        os.close(self._ours)

    @abstractmethod
    def _pump(self) -> None:
        """Carry bytes until the end, or until :meth:`end`."""

    @abstractmethod
    def _close(self) -> None:
        """Close what is at our end."""

    def _wait(self, event: int) -> bool:
        """Wait for our end of the pipe; return False when the stream is to end."""
        poll = select.poll()
        poll.register(self._ours, event)
        poll.register(self._end, select.POLLIN)
        return self._end not in dict(poll.poll())

    def delivered(self) -> None:
        """Take note that the VMM has its end."""
        theirs, self.theirs = self.theirs, -1
        if theirs >= 0:
            os.close(theirs)

    def end(self) -> None:
        """Take what the VMM has written by now, and stop; return when nothing moves any more."""
        os.eventfd_write(self._end, 1)
        self._thread.join()
        self.delivered()
        os.close(self._end)
        with self._lock:
            self._close()


class OutgoingStream(Stream):
    """A state that the VMM reads.

    Args:
        source: the state.
        lock: held while the state's methods run.
        failed: told why, when it fails.
    """

    def __init__(self, source: Outgoing, lock: Lock, failed: Failed) -> None:
        self._source = source
        theirs, ours = os.pipe2(os.O_CLOEXEC)
        with suppress(OSError):
            fcntl.fcntl(ours, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        super().__init__(ours, theirs, lock, failed, "state out")

    def _pump(self) -> None:
        while piece := self._read():
            left = memoryview(piece)
            while left:
                if not self._wait(select.POLLOUT):
                    return
                try:
                    left = left[os.write(self._ours, left) :]
                except BlockingIOError:
                    continue
                except BrokenPipeError:  # the VMM wants no more of it
                    return

    def _read(self) -> bytes:
        with self._lock:
            return self._source.read(_PIPE_BYTES)

    def _close(self) -> None:
        self._source.close()


class IncomingStream(Stream):
    """A state that the VMM writes.

    Args:
        sink: what takes it.
        lock: held while the sink's methods run.
        failed: told why, when it refuses.
    """

    def __init__(self, sink: Incoming, lock: Lock, failed: Failed) -> None:
        self._sink = sink
        self._most = _CAUTIOUS_BYTES
        ours, theirs = os.pipe2(os.O_CLOEXEC)
        with suppress(OSError):
            fcntl.fcntl(ours, fcntl.F_SETPIPE_SZ, self._most)
        super().__init__(ours, theirs, lock, failed, "state in")

    def _pump(self) -> None:
        while self._wait(select.POLLIN):
            if not self._take():
                return
        while self._take():
            pass

    def _take(self) -> bool:
        """Take what is in the pipe; return False when it is empty, or has ended."""
        try:
            piece = os.read(self._ours, self._most)
        except BlockingIOError:
            return False
        if not piece:
            return False
        with self._lock:
            self._sink.write(piece)
            if self._sink.judged and self._most < PIECE_BYTES:
                self._grow()
        return True

    def _grow(self) -> None:
        """Take larger pieces: a state can have hundreds of megabytes."""
        self._most = PIECE_BYTES
        with suppress(OSError):
            fcntl.fcntl(self._ours, fcntl.F_SETPIPE_SZ, self._most)

    def _close(self) -> None:
        self._sink.close()
