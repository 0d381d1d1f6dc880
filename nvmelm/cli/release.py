"""``nvmelm release`` undoes a preparation, ``nvmelm recover`` what was left unfinished."""

from __future__ import annotations

from typing import Annotated

import typer

from nvmelm.cli import changes
from nvmelm.cli.answers import changed
from nvmelm.cli.options import Pf, group
from nvmelm.cli.run import Answer, Run, verb

app = group("Back to what was there before.")


@verb(app, "release", changes=True)
def release(run: Run, pf: Pf) -> Answer:
    """Undo all that nvmelm did to a controlling function: counts, resources, drivers and overrides as found."""
    from nvmelm.operations import provision

    with run.primary(pf, change=True) as session:
        return changed(provision.release(session, confirm=run.confirm, dry_run=run.dry_run))


@verb(app, "recover", changes=True)
def recover(
    run: Run,
    finish: Annotated[bool, typer.Option("--finish", help="Finish what was begun instead of undoing it.")] = False,
) -> Answer:
    """Show what was left unfinished on this host, and undo it, or finish it."""
    from nvmelm.operations.recover import recover as operation

    report = operation(run.host(), finish=finish, confirm=run.confirm, dry_run=run.dry_run)
    return Answer(report, lambda: changes.recover(report))
