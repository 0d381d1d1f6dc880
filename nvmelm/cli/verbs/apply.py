"""``nvmelm apply`` brings a host to what its configuration wants; a unit does that at boot."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from nvmelm.cli.frame import render
from nvmelm.cli.frame.options import group
from nvmelm.cli.frame.report import fill_in
from nvmelm.cli.frame.run import Answer, Run, verb
from nvmelm.cli.views import changes
from nvmelm.desired.config import config_files, load
from nvmelm.desired.converge import ApplyReport, find_ready, names, reach
from nvmelm.errors import NvmelmError

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
    wanted = load(config_files(config))
    host = run.host()
    if only is not None:
        listed = names(host, find_ready(host, only))
        wanted = [one for one in wanted if listed.get(one.by) == one.name]
    report = _typable(reach(host, wanted, confirm=run.confirm, dry_run=run.dry_run))
    return Answer(report, lambda: lines(report), report.code)


def _typable(found: ApplyReport) -> ApplyReport:
    """Return the report with each entry's own address where a fix says ``PF``."""

    def filled(fix: str, address: str) -> str:
        error = NvmelmError("", fix=fix)
        fill_in(error, {"PF": address})
        return error.fix

    entries = tuple(replace(one, fix=filled(one.fix, one.address or "PF")) for one in found.entries)
    return replace(found, entries=entries)


def lines(report: ApplyReport) -> Iterator[str]:
    """Show what became of every entry."""
    paint = render.Paint(sys.stdout)
    if not report.entries:
        yield "nothing is listed that is here"
    for one in report.entries:
        name = f"{render.plain(one.name)}{f' ({one.address})' if one.address and one.address != one.name else ''}"
        if one.report is not None:
            yield from changes.change(one.report)
            continue
        left = one.outcome == "left-alone"
        word = "left alone" if left else one.outcome
        yield (paint.warn if left else paint.bad)(f"{name}: {word}: {render.plain(one.message)}")
        if one.cause:
            yield from render.wrapped("  cause: ", render.plain(one.cause), sys.stdout)
        if one.fix:
            yield f"  fix:   {render.plain(one.fix)}"  # never broken: it is copied and typed
        for note in one.notes:
            yield from render.wrapped("  note:  ", render.plain(note), sys.stdout)
