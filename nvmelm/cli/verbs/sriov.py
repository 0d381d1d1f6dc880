"""``nvmelm sriov``: step 1, the virtual functions of a controlling function."""

from __future__ import annotations

from nvmelm.cli.frame.options import Pf, Vfs, group
from nvmelm.cli.frame.run import Answer, Run, verb
from nvmelm.cli.views.answers import changed
from nvmelm.prepare import sriov

app = group("Step 1: the virtual functions of a controlling function.")


@verb(app, "enable", changes=True)
def enable(run: Run, pf: Pf, vfs: Vfs) -> Answer:
    """Enable virtual functions, with driver autoprobe off first."""
    with run.primary(pf, change=True) as primary:
        return changed(sriov.enable_sriov(primary, vfs, confirm=run.confirm, dry_run=run.dry_run))


@verb(app, "disable", changes=True)
def disable(run: Run, pf: Pf) -> Answer:
    """Remove all virtual functions; marks, resources and bindings go with them."""
    with run.primary(pf, change=True) as primary:
        return changed(sriov.disable_sriov(primary, confirm=run.confirm, dry_run=run.dry_run))
