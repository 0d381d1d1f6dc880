"""``nvmelm vfio``: step 4, hand virtual functions to vfio-pci and back."""

from __future__ import annotations

from nvmelm.cli.frame.functions import Functions
from nvmelm.cli.frame.options import Unmarked, group
from nvmelm.cli.frame.run import Answer, Run, verb
from nvmelm.cli.views.answers import on_each
from nvmelm.inventory.opened import OpenPrimary
from nvmelm.inventory.picture import ChangeReport
from nvmelm.prepare import binding

app = group("Step 4: hand virtual functions to vfio-pci and back.")


@verb(app, "bind", changes=True)
def bind(run: Run, functions: Functions, unmarked: Unmarked = False) -> Answer:
    """Bind virtual functions to vfio-pci."""

    def act(pf: OpenPrimary, cntlids: list[int]) -> ChangeReport:
        return binding.bind(pf, cntlids, unmarked=unmarked, confirm=run.confirm, dry_run=run.dry_run)

    return on_each(run, functions, act)


@verb(app, "unbind", changes=True)
def unbind(run: Run, functions: Functions) -> Answer:
    """Give virtual functions back to the driver they were found with."""

    def act(pf: OpenPrimary, cntlids: list[int]) -> ChangeReport:
        return binding.unbind(pf, cntlids, confirm=run.confirm, dry_run=run.dry_run)

    return on_each(run, functions, act)
