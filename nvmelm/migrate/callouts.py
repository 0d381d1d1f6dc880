"""Programs that are run at the named points of a migration, each with one JSON document on its standard input.

They come from a directory (every executable in it, in the order of their names, at every point) and from the command
line (``POINT=COMMAND``, at that point). A program is run as words and never through a shell, in a process group of its
own, without our descriptors, and with a deadline; a group that outlives it is ended, TERM first and KILL behind it.

A program in the directory is refused when somebody else than root or this user could have put it there.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

from nvmelm.errors import HostError, NvmelmError, UsageError, host_error
from nvmelm.migrate.points import Point

SCHEMA, VERSION = "nvmelm.callout", 1
#: How much of what a program printed is kept for the error's message: its end.
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
            UsageError: a point that does not exist, or no command.
            HostError: a directory cannot be read, or holds a program that others could have put there.
        """
        programs = [callout for directory in directories for callout in _in_directory(directory)]
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
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as printed:
            given.write(body)
            given.seek(0)
            child = self._start(callout, given, printed)
            try:
                status = child.wait(timeout=self._deadline_s)
            except subprocess.TimeoutExpired as error:
                _end(child)
                raise _failed(callout, point, f"it did not end within {self._deadline_s:g} s", printed) from error
            except BaseException:
                _end(child)
                raise
            if status != 0:
                how = f"it ended with {status}" if status > 0 else f"signal {-status} ended it"
                raise _failed(callout, point, how, printed)
            return CalloutResult(callout.name, time.monotonic() - started, _tail(printed))

    @staticmethod
    def _start(callout: Callout, given: IO[bytes], printed: IO[bytes]) -> subprocess.Popen[bytes]:
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        environment.setdefault("PATH", os.defpath)
        try:
            return subprocess.Popen(  # noqa: S603  # words, never a shell
                callout.words, stdin=given, stdout=printed, stderr=printed, env=environment, start_new_session=True
            )
        except (OSError, ValueError) as error:
            met = error if isinstance(error, OSError) else OSError(0, str(error))
            fix = "name an executable file; a script needs its #! line"
            raise host_error("cannot run the callout", callout.words[0], met, fix=fix) from error


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
        words = tuple(shlex.split(command))
    except ValueError as error:
        raise UsageError(f"{command!r} is no command: {error}", fix="quote it as for a shell") from error
    if not words:
        raise UsageError(f"{text!r} names no command", fix="--callout POINT=COMMAND", reason="callout")
    return Callout(words, Point(point))


def _in_directory(directory: Path) -> list[Callout]:
    try:
        names = sorted(os.listdir(directory))  # noqa: PTH208
        return [
            Callout((str(directory / name),))
            for name in names
            if not name.startswith(".") and _may_run(directory / name)
        ]
    except OSError as error:
        raise host_error("cannot read the callouts", str(directory), error) from error


def _may_run(path: Path) -> bool:
    """Return whether a name is a program; what is no executable file, a README say, is passed over.

    Raises:
        HostError: it is, and somebody else could have put it there or could change it.
    """
    for place in (path.parent, path):
        about = place.stat()
        if place == path and not (stat.S_ISREG(about.st_mode) and about.st_mode & 0o111):
            return False
        why = ""
        if about.st_uid not in (0, os.geteuid()):
            why = f"it belongs to user {about.st_uid}"
        elif about.st_mode & 0o022 and not about.st_mode & stat.S_ISVTX:
            why = f"others may write to it (mode {stat.S_IMODE(about.st_mode):04o})"
        if why:
            raise HostError(
                f"the callout {path} is not run",
                path=str(place),
                cause=why if place == path else f"{place}: {why}",
                fix=f"chown root {shlex.quote(str(place))} and chmod go-w, or remove it",
                reason="callout-unsafe",
            )
    return True


def _end(child: subprocess.Popen[bytes]) -> None:
    """End a whole process group."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=_GRACE_S)
            break
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)  # what it started and left behind
    child.wait()


def _failed(callout: Callout, point: str, how: str, printed: IO[bytes]) -> CalloutError:
    error = CalloutError(
        f"the callout at {point} failed: {callout.name}",
        cause=how,
        fix="run it by hand with the JSON of docs/callouts.md on its standard input",
        reason="callout",
    )
    tail = _tail(printed).strip()
    if tail:
        error.add_note(f"it printed: {tail[-_SHOWN_CHARACTERS:]}")
    return error


def _tail(printed: IO[bytes]) -> str:
    size = os.fstat(printed.fileno()).st_size
    return os.pread(printed.fileno(), OUTPUT_BYTES, max(0, size - OUTPUT_BYTES)).decode(errors="replace")
