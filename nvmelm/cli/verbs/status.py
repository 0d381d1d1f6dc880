"""``nvmelm status``: this host at a glance."""

from __future__ import annotations

from typing import Annotated

import typer

from nvmelm.cli.frame.options import group
from nvmelm.cli.frame.run import Answer, Run, verb
from nvmelm.cli.views import glance as view
from nvmelm.host import Host
from nvmelm.inventory import glance
from nvmelm.prepare.journal import journals

app = group("This host at a glance.")

Last = Annotated[
    int, typer.Option("--last", metavar="N", min=0, max=1000, help="How many moves that are over, of each kind.")
]


@verb(app, "status")
def status(run: Run, last: Last = 5) -> Answer:
    """Show this host at a glance: functions in use, marks, VMs, moves now and the last ones."""
    host = run.host()
    seen = glance.look(host, last=last, runs=lambda: _runs(host))
    return Answer(seen, lambda: view.lines(seen), exit_code=seen.exit_code)


def _runs(host: Host) -> tuple[glance.RunGlance, ...]:
    return tuple(
        glance.RunGlance(verb=unfinished.verb, primary=journal.address, started_at=unfinished.started_at)
        for journal in journals(host)
        for unfinished in journal.unfinished()
    )
