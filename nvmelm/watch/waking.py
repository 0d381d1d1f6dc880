"""What wakes the stream beside uevents: a look that is done, a signal that asks to end."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self


class Waker:
    """A pipe that can be waited for and written to from any thread, also after it was closed."""

    def __init__(self) -> None:
        self._reading, self.writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._guard = threading.Lock()
        self._closed = False

    def fileno(self) -> int:
        """Return the descriptor that can be read once somebody woke it."""
        return self._reading

    def wake(self) -> None:
        """Let the stream go on; a late look of a stream that has ended wakes nobody."""
        with self._guard, contextlib.suppress(BlockingIOError):  # full: it is awake
            if not self._closed:
                os.write(self.writing, b"\0")

    def rest(self) -> None:
        """Forget who woke it."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._reading, 4096)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._guard:
            self._closed = True
            os.close(self._reading)
            os.close(self.writing)


@contextmanager
def signals(waker: Waker) -> Iterator[list[int]]:
    """Let signals that ask to end wake the stream, which ends between two lines; the second one ends it anyhow.

    A reader that does not read can hold a write up for ever, so waiting for a line to be out must have an end.
    """
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return

    def handle(number: int, _frame: object) -> None:
        came.append(number)
        if len(came) > 1:
            raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # nohup, or a shell's background: Ctrl-C is meant for somebody else
            signal.signal(number, handle)
    earlier = signal.set_wakeup_fd(waker.writing, warn_on_full_buffer=False)
    try:
        yield came
    finally:
        signal.set_wakeup_fd(earlier)
        for number, handler in before.items():
            signal.signal(number, handler)
