"""``nvmelm list`` and ``nvmelm show``: what is there."""

from __future__ import annotations

from nvmelm.cli.frame.options import Pf, group
from nvmelm.cli.frame.run import Answer, Run, verb
from nvmelm.cli.views import functions
from nvmelm.errors import ExitCode

app = group("What is there.")


@verb(app, "list")
def list_primaries(run: Run) -> Answer:
    """List the controlling functions on this host."""
    from nvmelm.inventory import find as inventory

    host = run.host()
    rows = inventory.summaries(host)
    failed = next((one.exit_code for one in rows if one.exit_code), ExitCode.DONE)
    return Answer(
        lambda: functions.primary_document(host.name, rows),
        lambda: functions.primary_list(rows),
        exit_code=ExitCode(failed),
    )


@verb(app, "show")
def show(run: Run, pf: Pf) -> Answer:
    """Show a controlling function: capabilities, limits, state formats, resources, and its controlled functions."""
    with run.primary(pf) as primary:
        found = primary.picture(states=True)
    return Answer(found, lambda: functions.picture(found))
