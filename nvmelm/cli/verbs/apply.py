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
        wanted = [mark for mark in wanted if listed.get(mark.by) == mark.name]
    report = _typable(reach(host, wanted, confirm=run.confirm, dry_run=run.dry_run))
    return Answer(report, lambda: lines(report), report.code)


def _typable(report: ApplyReport) -> ApplyReport:
    """Return the report with each entry's own address where a fix says ``PF``."""

    def filled(fix: str, address: str) -> str:
        error = NvmelmError("", fix=fix)
        fill_in(error, {"PF": address})
        return error.fix

    entries = tuple(replace(entry, fix=filled(entry.fix, entry.address or "PF")) for entry in report.entries)
    return replace(report, entries=entries)


def lines(report: ApplyReport) -> Iterator[str]:
    """Show what became of every entry."""
    paint = render.Paint(sys.stdout)
    if not report.entries:
        yield "nothing is listed that is here"
    for entry in report.entries:
        address = f" ({entry.address})" if entry.address and entry.address != entry.name else ""
        name = f"{render.plain(entry.name)}{address}"
        if entry.report is not None:
            yield from changes.change(entry.report)
            continue
        left = entry.outcome == "left-alone"
        word = "left alone" if left else entry.outcome
        yield (paint.warn if left else paint.bad)(f"{name}: {word}: {render.plain(entry.message)}")
        if entry.cause:
            yield from render.wrapped("  cause: ", render.plain(entry.cause), sys.stdout)
        if entry.fix:
            yield f"  fix:   {render.plain(entry.fix)}"  # never broken: it is copied and typed
        for note in entry.notes:
            yield from render.wrapped("  note:  ", render.plain(note), sys.stdout)
