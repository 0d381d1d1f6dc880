"""``nvmelm list`` and ``nvmelm show``: what is there."""

from __future__ import annotations

from nvmelm.cli.frame.functions import FunctionOrPf, opened_or_pf
from nvmelm.cli.frame.options import group
from nvmelm.cli.frame.run import Answer, Run, verb
from nvmelm.cli.views import functions
from nvmelm.errors import ExitCode
from nvmelm.inventory.find import PrimaryList, summaries

app = group("What is there.")


@verb(app, "list")
def list_primaries(run: Run) -> Answer:
    """List the controlling functions on this host."""
    host = run.host()
    document = PrimaryList(host=host.name, primaries=summaries(host))
    failed = next((row.exit_code for row in document.primaries if row.exit_code), ExitCode.DONE)
    return Answer(document, lambda: functions.primary_list(document.primaries), exit_code=ExitCode(failed))


@verb(app, "show")
def show(run: Run, which: FunctionOrPf) -> Answer:
    """Show a controlling function: capabilities, limits, state formats, resources, and its functions or one of them."""
    from nvmelm.inventory import namespaces  # 8 ms with the next, and `list` shows none
    from nvmelm.inventory.read import only

    with opened_or_pf(run, which) as (primary, cntlid):
        picture = namespaces.shown(primary.queue, only(primary.picture(states=True), cntlid))
    return Answer(picture, lambda: functions.picture(picture))
