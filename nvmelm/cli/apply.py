"""``nvmelm apply`` brings a host to what its configuration wants; a unit does that at boot."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nvmelm.cli import changes, render
from nvmelm.cli.options import group
from nvmelm.cli.run import Answer, Run, verb
from nvmelm.errors import UsageError

if TYPE_CHECKING:
    from nvmelm.desired.reach import ApplyReport

app = group("Desired state.")

Config = Annotated[
    Path | None, typer.Option("--config", metavar="DIR", help="Where nvmelm.toml and nvmelm.d are; /etc.")
]
Only = Annotated[
    str | None,
    typer.Option("--pf", metavar="NODE", help="Only this one, if it is listed at all."),
]


@verb(app, "apply", changes=True)
def apply(run: Run, config: Config = None, only: Only = None) -> Answer:
    """Bring controlling functions to what /etc/nvmelm.toml and /etc/nvmelm.d want; --dry-run shows the difference."""
    from nvmelm.desired.config import config_files, load
    from nvmelm.desired.reach import reach

    files = config_files(config)
    if not files:
        raise UsageError(
            "there is no configuration",
            cause=f"neither nvmelm.toml nor nvmelm.d/*.toml is in {config or '/etc'}",
            fix="write one: docs/apply.md",
            reason="config",
        )
    wanted = load(files)
    host = run.host()
    if only is not None:
        from nvmelm.desired.reach import names
        from nvmelm.inventory import find_primary

        listed = names(host, find_primary(host, only))
        wanted = [one for one in wanted if listed.get(one.by) == one.name]
    report = reach(host, wanted, confirm=run.confirm, dry_run=run.dry_run)
    return Answer(report, lambda: lines(report), report.code)


def lines(report: ApplyReport) -> Iterator[str]:
    """Show what became of every entry."""
    paint = render.Paint(sys.stdout)
    if not report.entries:
        yield "nothing is listed that is here"
    for one in report.entries:
        name = f"{render.plain(one.name)}{f' ({one.address})' if one.address and one.address != one.name else ''}"
        if one.report is not None:
            yield from changes.change(one.report)
        elif one.outcome == "left-alone":
            yield paint.warn(f"{name}: left alone: {render.plain(one.message)}")
        else:
            yield paint.bad(f"{name}: {one.outcome}: {render.plain(one.message)}")
