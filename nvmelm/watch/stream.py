"""One stream: uevents as they come, what looks find different, and what was lost, each line with the next number.

The main thread only waits, numbers and writes. A reader that does not read holds it up; then uevents are lost in the
kernel's buffer, and that is said when it goes on. A reader that leaves ends the stream, also while there is nothing to
write: the kernel marks the writing end of a pipe or socket whose reader has closed it (POLLERR, POLLHUP; poll(2)).
"""

from __future__ import annotations

import contextlib
import json
import re
import select
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from nvmelm import __version__
from nvmelm.errors import NvmelmError, TimedOutError, UeventsLostError
from nvmelm.host import Host, Uevent, Uevents
from nvmelm.inventory.pci import Bdf
from nvmelm.process.descriptor import Waker
from nvmelm.watch import metrics
from nvmelm.watch.lines import KINDS, Body, Ended, Overrun, Started, UeventPart, WatchLine
from nvmelm.watch.programs import Programs
from nvmelm.watch.schedule import Looking
from nvmelm.watch.sessions import SessionLooks
from nvmelm.watch.survey import Looks
from nvmelm.watch.troubles import Troubles
from nvmelm.watch.waking import signals

Write = Callable[[list[str]], bool]
"""Writes lines and returns whether somebody still reads them."""

_ADDRESS = re.compile(r"/([0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7])(?=/|$)")
#: Lines that are written together; more wait until those are out.
_BATCH = 256
#: Sessions are looked at, and metrics written when they changed, so often; metrics now and then for their timestamp.
_TICK_S, _METRICS_AT_LEAST_S = 1.0, 15.0
#: A look takes some hundredths of a second.
_SLOW_S = 10.0
_METRICS, _SLOW = "metrics", "slow"


class _Line(NamedTuple):
    """A line that was said and is not written yet."""

    number: int
    kind: str
    text: str
    for_programs: bool


class WatchStream:
    """Watches a host.

    Args:
        write: takes the lines.
        every_s: seconds between two glances at the Secondary Controller Lists.
        programs: runs a program for each line.
        metrics_file: where the numbers for Prometheus are kept.
        output: the descriptor that ``write`` writes to, if it has one; its reader's end is noticed there.
    """

    def __init__(
        self,
        host: Host,
        write: Write,
        *,
        every_s: float,
        programs: Programs | None = None,
        metrics_file: Path | None = None,
        output: int | None = None,
    ) -> None:
        self._host = host
        self._output = output
        self._write = write
        self._every_s = every_s
        self._programs = programs
        self._metrics_file = metrics_file
        self._sessions = SessionLooks(host)
        self._troubles = Troubles()
        self._found: SimpleQueue[list[Body] | BaseException] = SimpleQueue()
        self._lines: list[_Line] = []
        self._written: Counter[str] = Counter()
        self._number = 0
        self._ticked = 0.0
        self._known, self._looked_at, self._failing = "", 0.0, 0
        self._metrics_written = ("", 0.0)

    def run(self, *, count: int | None = None, seconds: float | None = None) -> str:
        """Write lines until a signal asks to end, nobody reads, or there were enough; return which.

        Args:
            count: end after so many lines.
            seconds: end after that long.

        Raises:
            HostError: the kernel cannot be listened to, or the lines cannot be written.
        """
        looks = Looks(self._host)
        if self._metrics_file is not None:
            metrics.write(self._metrics_file, self._numbers(0))  # whether it can be
        with ExitStack() as stack:
            uevents = stack.enter_context(self._host.uevents())  # before the first look, so that nothing falls between
            waker = stack.enter_context(Waker())
            stack.enter_context(waker.reading)  # its number stays its own until the stream has ended
            came = stack.enter_context(signals(waker))
            looking = Looking(
                looks, every_s=self._every_s, hand_over=self._hand_over(waker), failed=self._failed(waker)
            )
            if self._programs is not None:
                stack.enter_context(self._programs.running())
            facts = self._host.facts()
            self._say(
                Started(host=self._host.name, nvmelm=__version__, kernel=facts.kernel_release, boot=facts.boot_id)
            )
            stack.enter_context(looking.running())
            end = time.monotonic() + seconds if seconds is not None else None
            return self._follow(uevents, waker, looking, came, count, end)

    def _follow(
        self,
        uevents: Uevents,
        waker: Waker,
        looking: Looking,
        came: list[int],
        count: int | None,
        end: float | None,
    ) -> str:
        waiting = select.poll()
        waiting.register(uevents.fileno(), select.POLLIN)
        waiting.register(waker.fileno(), select.POLLIN)
        if self._output is not None:
            waiting.register(self._output, 0)  # errors and hang-ups are told unasked; a file and /dev/null have none
        while True:
            more = self._take_uevents(uevents, looking)
            self._take_found()
            self._tick(looking)
            why = self._over(came, end)
            if not self._flush(count):
                return "nobody"
            if why:
                return why
            if count is not None and sum(self._written.values()) >= count:
                self._metrics(force=True)
                return "count"
            if not more:
                ready = dict(waiting.poll(_milliseconds(end)))
                if self._output in ready:
                    return "nobody"
                waker.rest()

    def _over(self, came: list[int], end: float | None) -> str:
        """Return why the stream ends now, with its last line said; empty while it goes on."""
        if came:
            why = "interrupted" if came[0] == signal.SIGINT else "terminated"
        elif end is not None and time.monotonic() >= end:
            why = "time"
        else:
            return ""
        self._metrics(force=True)
        self._say(Ended(why=why))  # type: ignore[arg-type]  # one of its words
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
            self._say_all(self._sessions.look(again=True))
        return True

    def _take_found(self) -> None:
        with contextlib.suppress(Empty):
            while True:
                outcome = self._found.get_nowait()
                if isinstance(outcome, BaseException):
                    raise outcome
                self._say_all(outcome)

    def _tick(self, looking: Looking) -> None:
        """Do what is done every second: look at sessions, whether a look hangs, what was lost, and the metrics."""
        now = time.monotonic()
        if now < self._ticked + _TICK_S:
            return
        self._ticked = now
        self._say_all(self._sessions.look())
        self._say_all(self._hanging(looking))
        lost = self._programs.take_passed_over() if self._programs is not None else 0
        if lost:
            self._say(Overrun(of="programs", lost=lost))
        self._metrics()

    def _hanging(self, looking: Looking) -> list[Body]:
        """Return what is to be said of a look that goes on and on: uevents and sessions are seen all the same."""
        slow = looking.slow()
        if slow is not None and slow[1] >= _SLOW_S:
            error = TimedOutError(
                f"a look has been running for more than {_SLOW_S:g} s",
                cause="the controller, or the kernel's driver, does not answer; until it does, what is known is old",
                fix="dmesg | tail",
                reason="look-slow",
            )
            return list(self._troubles.failed(_SLOW, error, slow[0]))
        return [body for address in (None, *self._troubles.of(_SLOW)) for body in self._troubles.works(_SLOW, address)]

    def _say_all(self, bodies: Any) -> None:
        for body in bodies:
            self._say(body)

    def _say(self, body: Body) -> None:
        kind = KINDS[type(body)]
        self._number += 1
        parts: dict[str, Any] = {kind: body}
        line = WatchLine(number=self._number, at=_now(), kind=kind, **parts)
        # A line about lines that programs were too slow for would be one more of them.
        for_programs = not (isinstance(body, Overrun) and body.of == "programs")
        self._lines.append(_Line(self._number, kind, json.dumps(line.to_json()), for_programs))

    def _flush(self, count: int | None) -> bool:
        """Write what was said, at most ``count`` lines in all; return whether somebody still reads."""
        lines, self._lines = self._lines, []
        if count is not None:
            lines = [line for line in lines if line.number <= count]
        if not lines:
            return True
        for line in lines:
            self._written[line.kind] += 1
            if self._programs is not None and line.for_programs:
                self._programs.give(line.number, line.text.encode() + b"\n")
        return self._write([line.text for line in lines])

    def _numbers(self, at: float) -> str:
        troubles = self._failing + len(self._troubles) + len(self._sessions.troubles)
        return self._known + metrics.of_stream(self._sessions, self._written, troubles=troubles, at=at)

    def _metrics(self, *, force: bool = False) -> None:
        """Write the file when its numbers changed; a disk that is full now is said, and does not end the stream."""
        if self._metrics_file is None or not self._known:
            return
        said, written_at = self._metrics_written
        now, text = time.monotonic(), self._numbers(0)
        if not force and text == said and now < written_at + _METRICS_AT_LEAST_S:
            return
        self._metrics_written = text, now
        try:
            metrics.write(self._metrics_file, self._numbers(self._looked_at))
        except NvmelmError as error:
            self._say_all(self._troubles.failed(_METRICS, error))
        else:
            self._say_all(self._troubles.works(_METRICS))

    def _hand_over(self, waker: Waker) -> Callable[[list[Body], Looks], None]:
        def hand_over(bodies: list[Body], looks: Looks) -> None:
            self._looked_at, self._failing = time.time(), len(looks.troubles)
            if self._metrics_file is not None:
                self._known = metrics.of_host(looks)  # here, while nothing of it changes
            if bodies:
                self._found.put(bodies)
                waker.wake()

        return hand_over

    def _failed(self, waker: Waker) -> Callable[[BaseException], None]:
        def failed(error: BaseException) -> None:
            self._found.put(error)
            waker.wake()

        return failed


def _part(uevent: Uevent) -> UeventPart:
    addresses = _ADDRESS.findall(f"/{uevent.device}")
    return UeventPart(
        seqnum=uevent.seqnum,
        action=uevent.action,
        subsystem=uevent.subsystem,  # type: ignore[arg-type]  # one of those that were asked for
        device=uevent.device,
        address=str(Bdf.parse(addresses[-1])) if addresses else None,
        properties=dict(uevent.properties),
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _milliseconds(end: float | None) -> float:
    """Return how long to wait: a tick at most, and not longer than the stream lasts."""
    left = _TICK_S if end is None else min(_TICK_S, max(0.0, end - time.monotonic()))
    return left * 1000 + 1
