"""Wait for a condition with a deadline, and say what is waited for. There are no fixed sleeps anywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from nvmelm.errors import TimedOutError

#: A look costs some microseconds; the pause between looks grows from 1 ms to 50 ms, so a wait is late by 50 ms at most.
_FIRST_PAUSE_S = 0.001
_LONGEST_PAUSE_S = 0.050
#: A wait that lasts so long is said to whoever looks on.
SAID_AFTER_S = 2.0


#: Takes what a wait that lasts is for, as a clause, and how long it lasts at most.
Listener = Callable[[str, float], None]

#: Who is told of waits; the last one only. Not a thread's own: the waits of one verb are in several threads.
_listeners: list[Listener] = []


@contextmanager
def said_to(listener: Listener) -> Iterator[None]:
    """Have waits that last said to somebody while the block runs, in whichever thread they are."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def say(what: str, deadline_s: float) -> None:
    """Say that a wait lasts, if somebody listens."""
    if _listeners:
        _listeners[-1](what, deadline_s)


def wait_until(condition: Callable[[], bool], what: str, *, deadline_s: float, fix: str = "") -> None:
    """Return as soon as a condition is true.

    Args:
        what: what is waited for, as a clause: ``4 VFs to appear below 0000:01:00.0``.
        deadline_s: seconds.

    Raises:
        TimedOutError: it was not true in time.
    """
    begun = time.monotonic()
    end = begun + deadline_s
    pause = _FIRST_PAUSE_S
    said = False
    while not condition():
        now = time.monotonic()
        if not said and now >= begun + SAID_AFTER_S:
            said = True
            say(what, deadline_s)
        if now >= end:
            raise TimedOutError(f"waited {deadline_s:g} s in vain for {what}", fix=fix)
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_S)
