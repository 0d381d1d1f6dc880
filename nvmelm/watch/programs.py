"""A program for each line, one after the other, in a thread of its own: the stream does not wait for it.

The line is on its standard input. One that fails is said and changes nothing. When programs are so slow that thousands
of lines wait, those that come are passed over, counted, and said in the stream.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from nvmelm.errors import NvmelmError
from nvmelm.process.interrupts import begin, left_to_the_main_thread
from nvmelm.process.program import Program

#: Lines that wait at most; some megabytes.
_WAITING = 10_000
#: Seconds one program may take.
DEADLINE_S = 60.0
#: Seconds the lines that wait at the end are given.
_LAST_S = 5.0
_SHOWN_CHARACTERS = 200


class Programs:
    """Runs a program for each line that is given to it.

    Args:
        words: the program and its arguments.
        say: takes a sentence about one that failed; called in this thread.
    """

    def __init__(self, words: Sequence[str], say: Callable[[str], None], *, deadline_s: float = DEADLINE_S) -> None:
        self._words = words
        self._say = say
        self._deadline_s = deadline_s
        self._waiting: queue.Queue[tuple[int, bytes] | None] = queue.Queue(_WAITING)
        self._stopped_at: float | None = None
        self._given_up = False
        self._guard = threading.Lock()
        self._running: Program | None = None
        self._thread = threading.Thread(target=self._run, name="programs", daemon=True)
        self.passed_over = 0

    def give(self, number: int, line: bytes) -> None:
        """Run the program for a line when its turn comes."""
        try:
            self._waiting.put_nowait((number, line))
        except queue.Full:
            self.passed_over += 1

    def take_passed_over(self) -> int:
        """Return how many lines were passed over since this was asked last."""
        count, self.passed_over = self.passed_over, 0
        return count

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run programs while the block runs, and for what waits then a few seconds longer."""
        begin(self._thread)
        try:
            yield
        finally:
            self._stopped_at = time.monotonic()
            with suppress(queue.Full):
                self._waiting.put(None, timeout=_LAST_S)
            self._thread.join(_LAST_S)
            if self._thread.is_alive():
                self._give_up()
                self._thread.join(_LAST_S)
            left = sum(item is not None for item in list(self._waiting.queue))
            if left:
                self._say(f"the program was not run for the last {left} lines")

    def _give_up(self) -> None:
        """Have the thread end the program that it runs: its number and its descriptors are that thread's alone."""
        with self._guard:
            self._given_up = True
            program = self._running
        if program is not None:
            self._say(f"the program did not end within {_LAST_S:g} s of the stream, and is ended")
            program.stop()

    def _run(self) -> None:
        with left_to_the_main_thread():
            while (item := self._waiting.get()) is not None and not self._late():
                number, line = item
                try:
                    self._one(number, line)
                except NvmelmError as error:
                    self._say(f"line {number}: {error.message}")

    def _late(self) -> bool:
        return self._given_up or (self._stopped_at is not None and time.monotonic() > self._stopped_at + _LAST_S)

    def _one(self, number: int, line: bytes) -> None:
        with Program(self._words, line) as program, self._known(program):
            if not program.follow(time.monotonic() + self._deadline_s):
                program.end()
                if not self._given_up:
                    self._say(f"line {number}: the program did not end within {self._deadline_s:g} s")
                return
            status = program.status()
        if status != 0:
            printed = program.output.strip()[-_SHOWN_CHARACTERS:]
            self._say(f"line {number}: the program ended with {status}{f': {printed}' if printed else ''}")

    @contextmanager
    def _known(self, program: Program) -> Iterator[None]:
        """Let the stream's thread stop this program while the block runs."""
        with self._guard:
            self._running = program
        if self._given_up:
            program.stop()
        try:
            yield
        finally:
            with self._guard:
                self._running = None
