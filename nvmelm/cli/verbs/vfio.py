"""``nvmelm vfio``: step 4, hand virtual functions to vfio-pci and back."""

from __future__ import annotations

from nvmelm.cli.frame.options import Unmarked, VfList, group
from nvmelm.cli.frame.run import Answer, Run, verb
from nvmelm.cli.views.answers import on_each
from nvmelm.prepare import binding

app = group("Step 4: hand virtual functions to vfio-pci and back.")


@verb(app, "bind", changes=True)
def bind(run: Run, vfs: VfList, unmarked: Unmarked = False) -> Answer:
    """Bind virtual functions to vfio-pci."""
    ask, dry = run.confirm, run.dry_run
    return on_each(run, vfs, lambda pf, which: binding.bind(pf, which, unmarked=unmarked, confirm=ask, dry_run=dry))


@verb(app, "unbind", changes=True)
def unbind(run: Run, vfs: VfList) -> Answer:
    """Give virtual functions back to the driver they were found with."""
    ask, dry = run.confirm, run.dry_run
    return on_each(run, vfs, lambda pf, which: binding.unbind(pf, which, confirm=ask, dry_run=dry))
