"""Programs that are run at the named points of a migration, each with one JSON document on its standard input.

They come from a directory (every executable in it, in the order of their names, at every point) and from the command
line (``POINT=COMMAND``, at that point). A program is run as words and never through a shell, in a process group of its
own, without our descriptors, and with a deadline; a group that outlives it is ended, TERM first and KILL behind it.

A guest may stand still meanwhile. So nothing here needs a disk (the document lies in memory, of the output the end is
kept), the end of a program is waited for and not polled, and whatever goes wrong is an error of ours, which a migration
rolls back on. Which programs are run at all is decided in :mod:`nvmelm.migrate.trusted`, before anything is touched.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shlex
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from nvmelm.errors import NvmelmError, UsageError, host_error
from nvmelm.migrate import trusted
from nvmelm.migrate.interrupts import undisturbed
from nvmelm.migrate.points import Point

SCHEMA, VERSION = "nvmelm.callout", 1
#: How much of what a program printed is kept: its end. Also as much as a pipe holds, so that what a program wrote
#: before it ended is read in one go.
OUTPUT_BYTES = 64 * 1024
_SHOWN_CHARACTERS = 400
#: Seconds between TERM and KILL.
_GRACE_S = 2.0
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "TZ")


class CalloutError(NvmelmError):
    """A callout failed, or did not end in time."""

    kind = "callout"


@dataclass(frozen=True, slots=True)
class Callout:
    """One program.

    Attributes:
        point: where it runs; None: at every point.
    """

    words: tuple[str, ...]
    point: Point | None = None

    @property
    def name(self) -> str:
        """Return how messages call it."""
        return shlex.join(self.words)


@dataclass(frozen=True, slots=True)
class CalloutResult:
    """What became of one run: seconds, and the end of what it printed."""

    name: str
    seconds: float
    output: str


class Callouts:
    """The programs of one side.

    Args:
        deadline_s: seconds each may take.
    """

    def __init__(self, programs: Sequence[Callout], *, deadline_s: float = 30.0) -> None:
        self._programs = programs
        self._deadline_s = deadline_s

    @classmethod
    def found(cls, directories: Sequence[Path], commands: Sequence[str], *, deadline_s: float) -> Self:
        """Collect the programs of directories and of ``POINT=COMMAND`` words.

        Raises:
            UsageError: a point that does not exist, no command, or a command that is no executable file.
            HostError: a directory cannot be read, or a program is one that others could have put there.
        """
        programs = [Callout((str(path),)) for directory in directories for path in trusted.programs(directory)]
        return cls([*programs, *map(_parse, commands)], deadline_s=deadline_s)

    def call(self, point: str, told: Mapping[str, Any]) -> list[CalloutResult]:
        """Run what belongs to a point, one after the other, and stop at the first that fails.

        Raises:
            CalloutError: it ended with a status other than 0, or not in time.
            HostError: it cannot be started.
        """
        here = [one for one in self._programs if one.point in (None, point)]
        document = {"schema": SCHEMA, "version": VERSION, "point": str(point), "deadline_s": self._deadline_s, **told}
        body = json.dumps(document).encode() + b"\n"
        return [self._run(one, point, body) for one in here]

    def _run(self, callout: Callout, point: str, body: bytes) -> CalloutResult:
        started = time.monotonic()
        with _Program(callout, body) as program:
            if not program.follow(started + self._deadline_s):
                program.end()
                raise _failed(callout, point, f"it did not end within {self._deadline_s:g} s", program.output)
            status = program.status()
        if status != 0:
            how = f"it ended with {status}" if status > 0 else f"signal {-status} ended it"
            raise _failed(callout, point, how, program.output)
        return CalloutResult(callout.name, time.monotonic() - started, program.output)


class _Program:
    """A program that runs, with the document on its standard input and its output in our hands.

    Leaving the block ends it with its process group, unless its status was taken.

    Raises:
        HostError: it cannot be started.
    """

    def __init__(self, callout: Callout, body: bytes) -> None:
        self._kept = bytearray()
        self._reading: int | None = None
        self._ended: int | None = None
        with contextlib.ExitStack() as ours:
            try:
                given = os.memfd_create("nvmelm-callout")  # a disk may be full, and its program slow to read a pipe
                ours.callback(os.close, given)
                os.write(given, body)
                os.lseek(given, 0, os.SEEK_SET)
                self._reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
                ours.callback(os.close, writing)
                os.set_blocking(writing, True)
                self._child = _start(callout, given, writing)
            except (OSError, ValueError) as error:
                self._close()
                raise _not_run(callout, error) from error

    def __enter__(self) -> Self:
        try:
            self._ended = os.pidfd_open(self._child.pid)  # readable once it has ended; Linux 5.3
        except OSError as error:
            self.end()
            self._close()
            raise host_error("cannot wait for a callout", str(self._child.pid), error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._child.returncode is None:
                self.end()
        finally:
            self._close()

    @property
    def output(self) -> str:
        """Return the end of what it printed."""
        return self._kept.decode(errors="replace")

    def follow(self, deadline: float) -> bool:
        """Read what it prints until it ends; return whether it did before a time of the monotonic clock."""
        if self._ended is None or self._reading is None:
            return False
        waiting = select.poll()
        waiting.register(self._ended, select.POLLIN)
        waiting.register(self._reading, select.POLLIN)
        while (left := deadline - time.monotonic()) > 0:
            ready = {descriptor for descriptor, _ in waiting.poll(left * 1000)}
            if self._reading in ready and not self._read():
                waiting.unregister(self._reading)  # it closed its output, and goes on
            if self._ended in ready:
                self._read()
                return True
        return False

    def status(self) -> int:
        """Return its exit status, negative for a signal; only once it has ended."""
        return self._child.wait()

    def end(self) -> None:
        """End its whole process group: TERM, and KILL when the program itself is gone or two seconds have passed."""
        with undisturbed():
            self._signal(signal.SIGTERM)
            self.follow(time.monotonic() + _GRACE_S)
            # Nobody took the program's status yet, so its process group cannot have become somebody else's.
            self._signal(signal.SIGKILL)
            self._child.wait()

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # a program that changed its user is left
            os.killpg(self._child.pid, number)

    def _read(self) -> bool:
        """Take what the pipe holds; return whether more can come."""
        if self._reading is None:
            return False
        try:
            data = os.read(self._reading, OUTPUT_BYTES)
        except BlockingIOError:
            return True
        self._kept += data
        del self._kept[:-OUTPUT_BYTES]
        return bool(data)

    def _close(self) -> None:
        for descriptor in (self._reading, self._ended):
            if descriptor is not None:
                os.close(descriptor)
        self._reading = self._ended = None


def _start(callout: Callout, given: int, printed: int) -> subprocess.Popen[bytes]:
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    environment.setdefault("PATH", os.defpath)
    return subprocess.Popen(  # noqa: S603  # words, never a shell
        callout.words, stdin=given, stdout=printed, stderr=printed, env=environment, start_new_session=True
    )


def _not_run(callout: Callout, error: OSError | ValueError) -> NvmelmError:
    met = error if isinstance(error, OSError) else OSError(0, str(error))
    fix = "name an executable file; a script needs its #! line"
    return host_error("cannot run the callout", callout.words[0], met, fix=fix)


def _parse(text: str) -> Callout:
    point, equals, command = text.partition("=")
    if point not in list(Point) or not equals:
        raise UsageError(
            f"{text!r} names no point",
            cause=f"the points are {', '.join(Point)}",
            fix="--callout before-suspend=/path/to/program",
            reason="callout",
        )
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UsageError(f"{command!r} is no command: {error}", fix="quote it as for a shell") from error
    if not words:
        raise UsageError(f"{text!r} names no command", fix="--callout POINT=COMMAND", reason="callout")
    return Callout((str(trusted.program(words[0])), *words[1:]), Point(point))


def _failed(callout: Callout, point: str, how: str, output: str) -> CalloutError:
    error = CalloutError(
        f"the callout at {point} failed: {callout.name}",
        cause=how,
        fix="run it by hand with the JSON of docs/callouts.md on its standard input",
        reason="callout",
    )
    tail = output.strip()
    if tail:
        error.add_note(f"it printed: {tail[-_SHOWN_CHARACTERS:]}")
    return error
