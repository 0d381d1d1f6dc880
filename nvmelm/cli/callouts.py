"""The callouts of a verb that migrates: where they are, and how they are run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nvmelm.cli.options import read_span

if TYPE_CHECKING:
    from nvmelm.migrate.points import Points

CalloutDirectory = Annotated[
    Path | None,
    typer.Option("--callouts", metavar="DIR", help="Run the executables in DIR at the named points, too."),
]
CalloutList = Annotated[
    list[str] | None, typer.Option("--callout", metavar="POINT=COMMAND", help="Run a command at a point; repeatable.")
]
CalloutDeadline = Annotated[
    int, typer.Option("--callout-deadline", metavar="SPAN", parser=read_span, help="How long each callout may take.")
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
    from nvmelm.migrate.points import Points

    site = Path(os.environ.get(VARIABLE) or DIRECTORY)
    directories = [place for place in (site if site.is_dir() else None, directory) if place is not None]
    if not directories and not commands:
        return Points(None, side)
    from nvmelm.migrate.callouts import Callouts

    return Points(Callouts.found(directories, commands, deadline_s=deadline_s).call, side)
