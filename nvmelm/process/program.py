"""Run one program with a document on its standard input: words and never a shell, without our descriptors.

Nothing here needs a disk (the document lies in memory, of the output the end is kept), and the end of a program is
waited for and not polled: a guest may stand still meanwhile. Whatever goes wrong is an error of ours. A program has a
process group of its own, which is ended as a whole, TERM first and KILL behind it.

A program belongs to the thread that started it; others ask it to end with :meth:`Program.stop`. Nothing is ever sent to
the number of a process whose status was taken: by then it may be another one's.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from nvmelm.errors import host_error
from nvmelm.process.child import start
from nvmelm.process.descriptor import Descriptor, DescriptorClosedError, Waker
from nvmelm.process.interrupts import undisturbed

#: How much of what a program printed is kept: its end. Also as much as a pipe holds, so that what a program wrote
#: before it ended is read in one go.
OUTPUT_BYTES = 64 * 1024
#: Seconds between TERM and KILL.
_GRACE_S = 2.0
_FAILED, _FIX = "cannot run", "name an executable file; a script needs its #! line"
#: Of our environment; a program of an administrator does not depend on who typed the command.
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "TZ")


class Program:
    """A program that runs, with a document on its standard input and its output in our hands.

    Args:
        words: the program and its arguments.
        body: the document.

    Leaving the block ends it with its process group, unless its status was taken.

    Raises:
        HostError: it cannot be started.
    """

    def __init__(self, words: Sequence[str], body: bytes) -> None:
        self._kept = bytearray()
        self._reaping = threading.Lock()
        self._open = contextlib.ExitStack()
        with contextlib.ExitStack() as ours:
            try:
                given = os.memfd_create("nvmelm-document")  # a disk may be full, and its program slow to read a pipe
                ours.callback(os.close, given)
                os.write(given, body)
                os.lseek(given, 0, os.SEEK_SET)
                reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
                ours.callback(os.close, writing)
                self._reading = Descriptor(reading)
                self._open.callback(self._reading.close)
                self._waker = self._open.enter_context(Waker())
                os.set_blocking(writing, True)
                self._child = _start(words, given, writing)
            except OSError as error:
                self._open.close()
                raise host_error(_FAILED, words[0], error, fix=_FIX) from error
            except BaseException:
                self._open.close()
                raise

    def __enter__(self) -> Self:
        try:
            self._ended = Descriptor(os.pidfd_open(self._child.pid))  # readable once it has ended; Linux 5.3
            self._open.callback(self._ended.close)
        except OSError as error:
            self._kill()
            self._open.close()
            raise host_error("cannot wait for the program", str(self._child.pid), error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._child.returncode is None:
                self.end()
        finally:
            self._open.close()

    @property
    def output(self) -> str:
        """Return the end of what it printed."""
        return self._kept.decode(errors="replace")

    def follow(self, deadline: float) -> bool:
        """Read what it prints until it ends; return whether it did.

        Args:
            deadline: a time of the monotonic clock; :meth:`stop` is another.
        """
        try:
            with self._ended as ended, self._reading as reading, self._waker.reading as stopped:
                return self._follow(deadline, ended, reading, stopped)
        except DescriptorClosedError:  # the block was left
            return False

    def _follow(self, deadline: float, ended: int, reading: int, stopped: int) -> bool:
        waiting = select.poll()
        for descriptor in (ended, reading, stopped):
            waiting.register(descriptor, select.POLLIN)
        while (left := deadline - time.monotonic()) > 0:
            ready = {descriptor for descriptor, _ in waiting.poll(left * 1000)}
            if reading in ready and not self._read(reading):
                waiting.unregister(reading)  # it closed its output, and goes on
            if ended in ready:
                self._read(reading)
                return True
            if stopped in ready:
                return False
        return False

    def stop(self) -> None:
        """Let :meth:`follow` return at once; from any thread, also when the program was ended long ago."""
        self._waker.wake()

    def status(self) -> int:
        """Return its exit status, negative for a signal; only once it has ended."""
        with self._reaping:
            return self._child.wait()

    def end(self) -> None:
        """End its whole process group: TERM, and KILL when the program itself is gone or two seconds have passed."""
        with undisturbed():
            self._waker.rest()
            self._signal(signal.SIGTERM)
            self.follow(time.monotonic() + _GRACE_S)
            self._kill()

    def _kill(self) -> None:
        self._signal(signal.SIGKILL)
        with self._reaping:
            self._child.wait()

    def _signal(self, number: int) -> None:
        """Send a signal to the process group, which is its own as long as nobody took the program's status."""
        with self._reaping, contextlib.suppress(ProcessLookupError, PermissionError):  # it changed its user: it is left
            if self._child.returncode is None:
                os.killpg(self._child.pid, number)

    def _read(self, reading: int) -> bool:
        """Take what the pipe holds; return whether more can come."""
        try:
            data = os.read(reading, OUTPUT_BYTES)
        except BlockingIOError:
            return True
        self._kept += data
        del self._kept[:-OUTPUT_BYTES]
        return bool(data)


def _start(words: Sequence[str], given: int, printed: int) -> subprocess.Popen[bytes]:
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    environment.setdefault("PATH", os.defpath)
    return start(
        words,
        stdin=given,
        stdout=printed,
        stderr=printed,
        environment=environment,
        own_group=True,
        failed=_FAILED,
        fix=_FIX,
    )
