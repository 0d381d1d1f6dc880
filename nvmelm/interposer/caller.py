"""The processes that make the calls: their memory and their descriptors.

A call comes from a thread, named by a number that the kernel gives again once the thread has ended. So a process is
held by a pidfd, and what was read by number counts only if the call still waits afterwards (:meth:`Listener.waits`).

Reading another process takes the right to trace it: to be root, or its parent where Yama lets a parent.
"""

from __future__ import annotations

import os
import re
import select
import signal
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nvmelm.interposer import syscalls

_TGID = re.compile(rb"^Tgid:\s*([0-9]+)$", re.MULTILINE)
#: A read that ends at a page's end cannot fail because of the next page.
_PAGE_BYTES = os.sysconf("SC_PAGESIZE")


class Process:
    """A process of the VMM's.

    Attributes:
        pid: its number, in our PID namespace.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._pidfd = os.pidfd_open(pid)
        # Whoever still works for a call of it holds it: closed under them, the number could become another process's.
        weakref.finalize(self, os.close, self._pidfd)

    @property
    def source(self) -> tuple[int, ...]:
        """What its memory is found by again."""
        return (self.pid,)

    def alive(self) -> bool:
        """Return whether it has not ended: its pidfd is readable once it has."""
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return not poll.poll(0)

    def end(self) -> None:
        """End it at once, before it can do anything else; one that has ended has."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    @contextmanager
    def copy(self, number: int) -> Iterator[int]:
        """Hold a copy of one of its descriptors while the block lasts.

        Raises:
            OSError: EBADF, there is none; ESRCH, EPERM.
        """
        fd = self.take(number)
        try:
            yield fd
        finally:
            os.close(fd)

    def take(self, number: int) -> int:
        """Return a copy of one of its descriptors, for the taker to close; OSError as of :meth:`copy`."""
        return syscalls.pidfd_getfd(self._pidfd, number)

    def read(self, address: int, length: int) -> bytes:
        """Read exactly so many bytes.

        Raises:
            OSError: EFAULT, not all of it is mapped; ESRCH, EPERM.
        """
        pieces = []
        while length:
            piece = syscalls.read_memory(self.pid, address, length)
            pieces.append(piece)
            address, length = address + len(piece), length - len(piece)
        return b"".join(pieces)

    def write(self, address: int, data: bytes) -> None:
        """Write, as the process could itself; OSError as of :meth:`read`, and EFAULT for what is read-only."""
        while data:
            count = syscalls.write_memory(self.pid, address, data)
            address, data = address + count, data[count:]

    def read_text(self, address: int, most: int) -> bytes:
        """Read up to a zero byte.

        Args:
            most: bytes, the zero included.

        Raises:
            OSError: EFAULT.
            ValueError: it is longer.
        """
        text = b""
        while len(text) < most:
            step = min(most - len(text), _PAGE_BYTES - (address + len(text)) % _PAGE_BYTES)
            piece, end, _ = self.read(address + len(text), step).partition(b"\0")
            text += piece
            if end:
                return text
        raise ValueError("no end")


class Processes:
    """The processes of one VMM, found by their threads.

    Args:
        proc: where the kernel shows them.
    """

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = str(proc)
        self._by_thread: dict[int, Process] = {}
        self._by_pid: dict[int, Process] = {}

    def of(self, tid: int) -> Process:
        """Return the process of a thread.

        Raises:
            OSError: ESRCH, ENOENT: it has ended; the process may not be looked at.
        """
        process = self._by_thread.get(tid)
        if process is None or not os.access(f"{self._proc}/{process.pid}/task/{tid}", os.F_OK):
            process = self._by_thread[tid] = self.numbered(self._pid_of(tid))
        return process

    def numbered(self, pid: int) -> Process:
        """Return the process that has this number now, and forget one that had it before; OSError: none has it."""
        known = self._by_pid.get(pid)
        if known is None or not known.alive():
            self.forget(pid)
            known = self._by_pid[pid] = Process(pid)
        return known

    def _pid_of(self, tid: int) -> int:
        match = _TGID.search(Path(f"{self._proc}/{tid}/status").read_bytes())
        if match is None:
            raise ProcessLookupError(f"thread {tid} has no process")
        return int(match[1])

    def forget(self, pid: int) -> None:
        """Let go of a process that has ended."""
        known = self._by_pid.pop(pid, None)
        self._by_thread = {tid: process for tid, process in self._by_thread.items() if process is not known}
