"""``nvmelm release`` undoes a preparation."""

from __future__ import annotations

from nvmelm.cli.frame.options import Pf, group
from nvmelm.cli.frame.run import Answer, Run, verb
from nvmelm.cli.views.answers import changed
from nvmelm.prepare import release as undo_all

app = group("Back to what was there before.")


@verb(app, "release", changes=True)
def release(run: Run, pf: Pf) -> Answer:
    """Undo all that nvmelm did to a controlling function: counts, resources, drivers and overrides as found."""
    with run.primary(pf, change=True) as primary:
        return changed(undo_all.release(primary, confirm=run.confirm, dry_run=run.dry_run))
