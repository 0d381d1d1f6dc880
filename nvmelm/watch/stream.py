"""One stream: uevents as they come, what looks find different, and what was lost, each line with the next number.

The main thread only waits, numbers and writes. A reader that does not read holds it up; then uevents are lost in the
kernel's buffer, and that is said when it goes on.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from nvmelm import __version__
from nvmelm.errors import NvmelmError, UeventsLostError
from nvmelm.pci import Bdf
from nvmelm.transport import Host, Uevent, Uevents
from nvmelm.watch import metrics
from nvmelm.watch.lines import KINDS, Body, Ended, Overrun, Started, Trouble, UeventPart, WatchLine
from nvmelm.watch.look import Looks, trouble
from nvmelm.watch.looking import Looking
from nvmelm.watch.programs import Programs

Write = Callable[[list[str]], bool]
"""Writes lines and returns whether somebody still reads them."""

_ADDRESS = re.compile(r"/([0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7])(?=/|$)")
#: Lines that are written together; more wait until those are out.
_BATCH = 256
#: The file of metrics is written when they change, but not more often, and now and then for its timestamp.
_METRICS_EVERY_S, _METRICS_AT_LEAST_S = 1.0, 15.0


class Stream:
    """Watches a host.

    Args:
        write: takes the lines.
        every_s: seconds between two glances at the Secondary Controller Lists.
        programs: runs a program for each line.
        metrics_file: where the numbers for Prometheus are kept.
    """

    def __init__(
        self,
        host: Host,
        write: Write,
        *,
        every_s: float,
        programs: Programs | None = None,
        metrics_file: Path | None = None,
    ) -> None:
        self._host = host
        self._write = write
        self._every_s = every_s
        self._programs = programs
        self._metrics_file = metrics_file
        self._found: SimpleQueue[list[Body] | BaseException] = SimpleQueue()
        self._lines: list[str] = []
        self._said: Counter[str] = Counter()
        self._number = 0
        self._known = ""
        self._metrics_written = ("", 0.0)
        self._metrics_fail = False

    def run(self, *, count: int | None = None, seconds: float | None = None) -> str:
        """Write lines until a signal asks to end, nobody reads, or there were enough; return which, as ``Ended`` does.

        Args:
            count: end after so many lines.
            seconds: end after that long.

        Raises:
            HostError: the kernel cannot be listened to, or the lines cannot be written.
        """
        looks = Looks(self._host)
        if self._metrics_file is not None:
            metrics.write(self._metrics_file, metrics.of_stream(self._said, at=time.time()))  # whether it can be
        with ExitStack() as stack:
            uevents = stack.enter_context(self._host.uevents())  # before the first look, so that nothing falls between
            wake, awake = stack.enter_context(_pipe())
            came = stack.enter_context(_signals(awake))
            looking = Looking(looks, every_s=self._every_s, told=self._told(awake), failed=self._failed(awake))
            if self._programs is not None:
                stack.enter_context(self._programs.running())
            facts = self._host.facts()
            started = Started(host=self._host.name, nvmelm=__version__, kernel=facts.kernel_release, boot=facts.boot_id)
            self._say(started)
            stack.enter_context(looking.running())
            end = time.monotonic() + seconds if seconds is not None else None
            why = self._follow(uevents, wake, looking, came, count, end)
            self._metrics(force=True)
        return why

    def _follow(
        self, uevents: Uevents, wake: int, looking: Looking, came: list[int], count: int | None, end: float | None
    ) -> str:
        waiting = select.poll()
        waiting.register(uevents.fileno(), select.POLLIN)
        waiting.register(wake, select.POLLIN)
        while True:
            more = self._take_uevents(uevents, looking)
            self._take_found()
            self._take_passed_over()
            if why := self._over(came, count, end):
                return why
            if not self._flush():
                return "nobody"
            self._metrics()
            if not more:
                waiting.poll(_milliseconds(end))
                with contextlib.suppress(BlockingIOError):
                    os.read(wake, 4096)

    def _over(self, came: list[int], count: int | None, end: float | None) -> str:
        """Return why the stream ends now, with its last line written; empty while it goes on."""
        if count is not None and self._number >= count:
            del self._lines[len(self._lines) - (self._number - count) :]
            self._flush()
            return "count"
        if came:
            why = "interrupted" if came[0] == signal.SIGINT else "terminated"
        elif end is not None and time.monotonic() >= end:
            why = "time"
        else:
            return ""
        self._say(Ended(why=why))  # type: ignore[arg-type]  # one of its words
        self._flush()
        return why

    def _take_uevents(self, uevents: Uevents, looking: Looking) -> bool:
        """Say the uevents that are there, up to a batch; return whether there may be more."""
        try:
            for _ in range(_BATCH):
                uevent = uevents.next()
                if uevent is None:
                    return False
                part = _part(uevent)
                self._say(part)
                if uevent.subsystem in ("pci", "nvme"):  # a group's node comes and goes with a driver, which pci says
                    looking.touched(part.address)
        except UeventsLostError:
            self._say(Overrun(of="uevents", lost=None))
            looking.lost()
        return True

    def _take_found(self) -> None:
        with contextlib.suppress(Empty):
            while True:
                found = self._found.get_nowait()
                if isinstance(found, BaseException):
                    raise found
                for body in found:
                    self._say(body)

    def _take_passed_over(self) -> None:
        lost = self._programs.take_passed_over() if self._programs is not None else 0
        if lost:
            self._say(Overrun(of="programs", lost=lost))

    def _say(self, body: Body) -> None:
        kind = KINDS[type(body)]
        self._number += 1
        self._said[kind] += 1
        parts: dict[str, Any] = {kind: body}
        line = WatchLine(number=self._number, at=_now(), kind=kind, **parts)
        self._lines.append(json.dumps(line.to_json()))
        if self._programs is not None:
            self._programs.give(self._number, self._lines[-1].encode() + b"\n")

    def _flush(self) -> bool:
        lines, self._lines = self._lines, []
        return self._write(lines) if lines else True

    def _metrics(self, *, force: bool = False) -> None:
        if self._metrics_file is None or not self._known:
            return
        said, at = self._metrics_written
        now = time.monotonic()
        text = self._known + metrics.of_stream(self._said, at=0)
        due = _METRICS_EVERY_S if text != said else _METRICS_AT_LEAST_S
        if force or now >= at + due:
            self._metrics_written = text, now
            self._write_metrics(self._metrics_file)

    def _write_metrics(self, file: Path) -> None:
        """Write them; a disk that is full now is said, once, and does not end the stream."""
        try:
            metrics.write(file, self._known + metrics.of_stream(self._said, at=time.time()))
        except NvmelmError as error:
            if not self._metrics_fail:
                self._say(trouble(None, error))
            self._metrics_fail = True
        else:
            if self._metrics_fail:
                self._say(Trouble(primary=None, over=True))
            self._metrics_fail = False

    def _told(self, awake: int) -> Callable[[list[Body], Looks], None]:
        def told(bodies: list[Body], looks: Looks) -> None:
            if self._metrics_file is not None:
                self._known = metrics.of_host(looks)  # here, while nothing of it changes
            if bodies or self._metrics_file is not None:
                self._found.put(bodies)
                _wake(awake)

        return told

    def _failed(self, awake: int) -> Callable[[BaseException], None]:
        def failed(error: BaseException) -> None:
            self._found.put(error)
            _wake(awake)

        return failed


def _part(uevent: Uevent) -> UeventPart:
    found = _ADDRESS.findall(f"/{uevent.device}")
    return UeventPart(
        seqnum=uevent.seqnum,
        action=uevent.action,
        subsystem=uevent.subsystem,  # type: ignore[arg-type]  # one of those that were asked for
        device=uevent.device,
        address=str(Bdf.parse(found[-1])) if found else None,
        properties=dict(uevent.properties),
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _milliseconds(end: float | None) -> float:
    """Return how long to wait: metrics are looked at every second or so, and the stream may have an end."""
    left = _METRICS_EVERY_S if end is None else min(_METRICS_EVERY_S, max(0.0, end - time.monotonic()))
    return left * 1000 + 1


def _wake(awake: int) -> None:
    with contextlib.suppress(BlockingIOError, OSError):  # full: it is awake; closed: the stream has ended
        os.write(awake, b"\0")


@contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        yield reading, writing
    finally:
        os.close(reading)
        os.close(writing)


@contextmanager
def _signals(awake: int) -> Iterator[list[int]]:
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

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    earlier = signal.set_wakeup_fd(awake, warn_on_full_buffer=False)
    try:
        yield came
    finally:
        signal.set_wakeup_fd(earlier)
        for number, handler in before.items():
            signal.signal(number, handler)
