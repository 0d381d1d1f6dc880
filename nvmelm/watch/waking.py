"""What wakes the stream beside uevents and looks that are done: a signal that asks to end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from nvmelm.process.descriptor import Waker


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
    with waker.writing as wakeup:  # the interpreter writes to this number until it is told another one
        earlier = signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        try:
            yield came
        finally:
            signal.set_wakeup_fd(earlier)
            for number, handler in before.items():
                signal.signal(number, handler)
