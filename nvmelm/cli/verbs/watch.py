"""``nvmelm watch``: everything that changes on a host, in sentences on a terminal and as lines of JSON elsewhere."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from nvmelm.cli.frame import render
from nvmelm.cli.frame.aside import number_of
from nvmelm.cli.frame.options import group, spans
from nvmelm.cli.frame.run import Run, verb
from nvmelm.cli.views.watching import sentences
from nvmelm.errors import ExitCode, UsageError
from nvmelm.inventory.opened import require_privilege
from nvmelm.migrate.callouts.trusted import program
from nvmelm.watch.programs import Programs
from nvmelm.watch.stream import WatchStream

app = group("What changes on this host.")

Exec = Annotated[
    str | None, typer.Option("--exec", metavar="COMMAND", help="Run this for each line, which is on its input.")
]
Metrics = Annotated[
    Path | None, typer.Option("--metrics", metavar="FILE", help="Keep numbers for Prometheus here, NAME.prom.")
]
Every = Annotated[
    float, typer.Option("--every", metavar="SPAN", parser=spans(0.1, 3600), help="How often lists are looked at.")
]
Count = Annotated[int | None, typer.Option("--count", metavar="N", min=1, help="End after N lines.")]
Seconds = Annotated[float | None, typer.Option("--seconds", metavar="SPAN", parser=spans(), help="End after so long.")]


@verb(app, "watch")
def watch(
    run: Run,
    command: Exec = None,
    metrics: Metrics = None,
    every: Every = "5s",  # type: ignore[assignment]  # typer parses it
    count: Count = None,
    seconds: Seconds = None,
) -> int:
    """Print each change: devices, controllers, marks, sessions; lines of JSON where stdout is no terminal."""
    words = _words(command) if command is not None else None
    if run.settings.record is not None or run.settings.host.startswith("replay:"):
        from nvmelm.host.recording.events import no_uevents  # recordings are read by pydantic: 92 ms, for a refusal

        raise no_uevents()  # before it is opened: a replay would complain about what was not asked
    host = run.host()
    require_privilege(host)
    programs = Programs(words, run.say) if words is not None else None
    people = render.is_terminal(sys.stdout) and not run.settings.json
    stream = WatchStream(
        host,
        _tell if people else _write,
        every_s=every,
        programs=programs,
        metrics_file=metrics,
        output=number_of(sys.stdout),
    )
    why = stream.run(count=count, seconds=seconds)
    return int(ExitCode.INTERRUPTED if why == "interrupted" else ExitCode.DONE)


def _words(command: str) -> list[str]:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UsageError(f"{command!r} is no command: {error}", fix="quote it as for a shell") from error
    if not words:
        raise UsageError("--exec names no command", fix="--exec /path/to/program")
    return [str(program(words[0], fix="--exec /path/to/program")), *words[1:]]


def _write(lines: list[str]) -> bool:
    """Write lines; return whether somebody still reads them."""
    return render.print_lines(lines, sys.stdout)


def _tell(lines: list[str]) -> bool:
    """Write lines as sentences; return whether somebody still reads them."""
    return render.print_lines((sentence for line in lines for sentence in sentences(line)), sys.stdout)
