"""``nvmelm list`` and ``nvmelm show``: what is there."""

from __future__ import annotations

from nvmelm.cli import views
from nvmelm.cli.options import Pf, group
from nvmelm.cli.run import Answer, Run, verb

app = group("What is there.")


@verb(app, "list")
def list_primaries(run: Run) -> Answer:
    """List the controlling functions on this host."""
    from nvmelm import discovery

    found = discovery.summaries(run.host())
    return Answer(found, lambda: views.primary_list(found))


@verb(app, "show")
def show(run: Run, pf: Pf) -> Answer:
    """Show a controlling function: capabilities, limits, state formats, resources, and its controlled functions."""
    with run.primary(pf) as session:
        found = session.picture()
    return Answer(found, lambda: views.picture(found))
