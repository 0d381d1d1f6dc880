"""Programs that are run at the named points of a migration, each with one JSON document on its standard input.

They come from a directory (every executable in it, in the order of their names, at every point) and from the command
line (``POINT=COMMAND``, at that point). How they are run stands in :mod:`nvmelm.process.program`, and which of them are
run at all in :mod:`nvmelm.migrate.callouts.trusted`; that is decided before anything is touched.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from nvmelm.errors import CalloutError, UsageError
from nvmelm.migrate.callouts import trusted
from nvmelm.migrate.callouts.points import Point
from nvmelm.process.program import Program

SCHEMA, VERSION = "nvmelm.callout", 1
_SHOWN_CHARACTERS = 400


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

    @property
    def points(self) -> frozenset[Point]:
        """Return the points at which a program runs."""
        if any(program.point is None for program in self._programs):
            return frozenset(Point)
        return frozenset(program.point for program in self._programs if program.point is not None)

    def call(self, point: str, about: Mapping[str, Any]) -> list[CalloutResult]:
        """Run what belongs to a point, one after the other, and stop at the first that fails.

        Raises:
            CalloutError: it ended with a status other than 0, or not in time.
            HostError: it cannot be started.
        """
        due = [program for program in self._programs if program.point in (None, point)]
        document = {"schema": SCHEMA, "version": VERSION, "point": str(point), "deadline_s": self._deadline_s, **about}
        body = json.dumps(document).encode() + b"\n"
        return [self._run(callout, point, body) for callout in due]

    def _run(self, callout: Callout, point: str, body: bytes) -> CalloutResult:
        started = time.monotonic()
        with Program(callout.words, body) as program:
            if not program.follow(started + self._deadline_s):
                program.end()
                raise _failed(callout, point, f"it did not end within {self._deadline_s:g} s", program.output)
            status = program.status()
        if status != 0:
            how = f"it ended with {status}" if status > 0 else f"signal {-status} ended it"
            raise _failed(callout, point, how, program.output)
        return CalloutResult(callout.name, time.monotonic() - started, program.output)


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
    return Callout(
        (str(trusted.program(words[0], fix="--callout before-suspend=/path/to/program")), *words[1:]), Point(point)
    )


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
