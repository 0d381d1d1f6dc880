"""The callouts of a verb that migrates: where they are, and how they are run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from nvmelm.cli.frame.options import A_MOMENT, spans
from nvmelm.errors import UsageError
from nvmelm.migrate.callouts.points import ELSEWHERE, Points

CalloutDirectory = Annotated[
    Path | None,
    typer.Option("--callouts", metavar="DIR", help="Run the executables in DIR at the named points, too."),
]
CalloutList = Annotated[
    list[str] | None, typer.Option("--callout", metavar="POINT=COMMAND", help="Run a command at a point; repeatable.")
]
CalloutDeadline = Annotated[
    float,
    typer.Option("--callout-deadline", metavar="SPAN", parser=spans(A_MOMENT), help="How long each callout may take."),
]
DEADLINE = "30s"
#: Where a site keeps its own, and what names another directory.
DIRECTORY, VARIABLE = "/etc/nvmelm/callouts.d", "NVMELM_CALLOUTS"


def points_of(side: str, directory: Path | None, commands: Sequence[str] = (), deadline_s: float = 30.0) -> Points:
    """Return the callouts of one side: the site's, those of a directory that was named, and single commands.

    Raises:
        UsageError: a point that does not exist, or a command that makes no sense.
        HostError: a file in a directory that others could have put there.
    """
    site = Path(os.environ.get(VARIABLE) or DIRECTORY)
    directories = [place for place in (site if site.is_dir() else None, directory) if place is not None]
    if not directories and not commands:
        return Points(None, side)
    from nvmelm.migrate.callouts.programs import Callouts  # 8 ms, and most hosts have none

    callouts = Callouts.found(directories, commands, deadline_s=deadline_s)
    _require_run_here(side, commands)
    return Points(callouts.call, side, where=callouts.points)


def _require_run_here(side: str, commands: Sequence[str]) -> None:
    """Refuse a command for a point that this side never passes: it would be accepted, and not run.

    Raises:
        UsageError: the point is the other side's.
    """
    for text in commands:
        point = text.partition("=")[0]
        if point in ELSEWHERE[side]:
            other = "destination" if side == "source" else "source"
            raise UsageError(
                f"--callout {text!r} would never run",
                cause=f"{point} is a point of the {other}, and --callout is about the {side}",
                fix=f"put the program into {DIRECTORY} at the {other}; docs/callouts.md",
                reason="callout",
            )
