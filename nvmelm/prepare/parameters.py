"""Give a controlled function the parameters another one has: resources and namespaces, in one change."""

from __future__ import annotations

from collections.abc import Collection

from nvmelm.inventory.opened import OpenPrimary
from nvmelm.inventory.pci import Bdf
from nvmelm.inventory.picture import ChangeReport
from nvmelm.inventory.read import resolve
from nvmelm.prepare.apply import ChangeRequest, Confirm, apply
from nvmelm.prepare.cells import Cell, CellName, Cells, namespaces_value
from nvmelm.prepare.resources import check_share


def give(
    pf: OpenPrimary,
    which: Bdf | int,
    *,
    vq: int | None = None,
    vi: int | None = None,
    namespaces: Collection[int] | None = None,
    confirm: Confirm,
    dry_run: bool = False,
) -> ChangeReport:
    """Assign resources to a controlled function and attach exactly these namespaces to it; None leaves a part alone.

    All in one change: a resource given up for a moment may be gone at a second write. An online controller goes
    offline for its resources and comes back. Release and recover bring back what was there before.

    Raises:
        UsageError: the resources do not fit; the message says what would.
        NotReadyError: the operator did not agree to what the controller would lose.
        BusyError: the controller is in use or in a session that is not over.
        AdminCommandError: the device refused; everything was put back.
    """
    picture = pf.picture(users=False)
    secondary = resolve(picture, which)
    check_share(picture, [secondary], vq, vi)
    wanted: Cells = {
        Cell(secondary.cntlid, name): count
        for name, count in ((CellName.VQ, vq), (CellName.VI, vi))
        if count is not None
    }
    if namespaces is not None:
        wanted[Cell(secondary.cntlid, CellName.NAMESPACES)] = namespaces_value(namespaces)
    return apply(pf, ChangeRequest("compat parameters apply", wanted), confirm=confirm, dry_run=dry_run)
