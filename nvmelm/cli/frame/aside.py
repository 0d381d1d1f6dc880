"""What is said beside the answer while a verb works, written by a thread that nobody waits for.

A terminal that was stopped (Ctrl-S, an ssh session that stalls) takes nothing for as long as it likes, and whoever
writes to it waits. A verb may hold the lock of a PF at that moment, and a guest may stand still: neither waits for a
terminal.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from typing import NamedTuple, TextIO

from nvmelm.errors import HostError

#: Texts that wait, at most; those behind them are dropped.
_WAITING = 256
#: How long a terminal gets at the end to take what waits.
LAST_S = 1.0


class _Text(NamedTuple):
    text: str
    number: int
    passing: bool


class Aside:
    """Texts on their way to a stream's descriptor; a stream in memory gets them at once."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[_Text] = deque()
        self._thread: threading.Thread | None = None

    def write(self, stream: TextIO | None, text: str, *, passing: bool = False) -> None:
        """Have a text written; return at once.

        Args:
            passing: it speaks of this moment only; one that is not out yet gives way to the next such text.

        Raises:
            OSError: of a stream in memory.
        """
        number = number_of(stream)
        if stream is not None and number is None:
            stream.write(text)
            stream.flush()
        elif number is not None:
            with self._changed:
                if passing and self._waiting and self._waiting[-1].passing:
                    self._waiting.pop()
                if len(self._waiting) < _WAITING:
                    self._waiting.append(_Text(text, number, passing))
                self._begin()

    def drain(self, seconds: float = LAST_S) -> bool:
        """Wait until everything is out, or for so long; return whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: self._thread is None, seconds)

    def _begin(self) -> None:
        """Start the thread when there is none; where none is to be had, less is said."""
        if self._thread is None:
            from nvmelm.process.interrupts import begin  # a verb that says nothing need not load it

            thread = threading.Thread(target=self._run, name="aside", daemon=True)
            try:
                begin(thread)
            except HostError:
                self._waiting.clear()
            else:
                self._thread = thread

    def _run(self) -> None:
        from nvmelm.process.interrupts import left_to_the_main_thread  # as above: 1 ms

        with left_to_the_main_thread():
            while (text := self._next()) is not None:
                # Not through the stream: the interpreter's end would wait for the lock of one that is stuck.
                with contextlib.suppress(OSError):  # nobody reads any more, or the disk is full
                    data = text.text.encode("utf-8", "backslashreplace")
                    while data:
                        data = data[os.write(text.number, data) :]

    def _next(self) -> _Text | None:
        """Return the next text; None ends the thread, since nothing waits."""
        with self._changed:
            if self._waiting:
                return self._waiting.popleft()
            self._thread = None
            self._changed.notify_all()
            return None


def number_of(stream: TextIO | None) -> int | None:
    """Return the descriptor behind a stream; None when it is closed or in memory."""
    if stream is None:
        return None
    try:
        return stream.fileno()
    except (OSError, ValueError):  # in memory, or closed
        return None


#: That of this process.
ASIDE = Aside()
