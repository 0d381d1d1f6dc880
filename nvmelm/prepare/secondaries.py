"""What one secondary controller gets: its resources, online and offline."""

from __future__ import annotations

from nvmelm.commands import AdminCommandError
from nvmelm.errors import origin
from nvmelm.inventory.opened import OpenPrimary
from nvmelm.inventory.pci import Bdf
from nvmelm.inventory.picture import ChangeReport
from nvmelm.inventory.read import resolve
from nvmelm.prepare.apply import ChangeRequest, Confirm, apply
from nvmelm.prepare.cells import Cell, CellName, Cells
from nvmelm.prepare.resources import check_share, missing_types, too_few


def assign(
    pf: OpenPrimary, which: Bdf | int, *, vq: int | None, vi: int | None, confirm: Confirm, dry_run: bool = False
) -> ChangeReport:
    """Assign VQ and VI resources to one secondary controller; an online one goes offline for it and comes back.

    None or 0 leaves a type as it is.

    Raises:
        UsageError: it does not fit; the message says what would.
    """
    picture = pf.picture(users=False)
    secondary = resolve(picture, which)
    vq, vi = vq or None, vi or None
    check_share(picture, [secondary], vq, vi)
    wanted = {
        Cell(secondary.cntlid, name): count
        for name, count in ((CellName.VQ, vq), (CellName.VI, vi))
        if count is not None
    }
    return apply(pf, ChangeRequest("secondary assign", {**wanted}), picture=picture, confirm=confirm, dry_run=dry_run)


def online(pf: OpenPrimary, which: Bdf | int, *, confirm: Confirm, dry_run: bool = False) -> ChangeReport:
    """Bring one secondary controller online.

    Without resources of any type it is refused. Without those of one type it is the device that decides: there are
    devices that assign no VI resources, and go online without.

    Raises:
        NotReadyError: it has too few VQ or VI resources; the fix assigns the least (2 VQ, 1 VI).
        NotSupportedError: that many are not free.
    """
    picture = pf.picture(users=False)
    secondary = resolve(picture, which)
    missing = () if secondary.online else missing_types(picture, secondary)
    if missing and not (secondary.vq or secondary.vi):
        raise too_few(picture, secondary)
    request = ChangeRequest("secondary online", {Cell(secondary.cntlid, CellName.ONLINE): True})
    try:
        return apply(pf, request, picture=picture, confirm=confirm, dry_run=dry_run)
    except AdminCommandError as error:
        if not missing:
            raise
        failure = too_few(picture, secondary)
        failure.rolled_back = error.rolled_back
        raise failure from origin(failure, error)


def offline(
    pf: OpenPrimary, which: Bdf | int, *, of_session: bool = False, confirm: Confirm, dry_run: bool = False
) -> ChangeReport:
    """Take one secondary controller offline; it loses its resources and its mark.

    Args:
        of_session: the session that gave the controller away does it; everybody else is refused such a controller.
    """
    secondary = resolve(pf.picture(users=False), which)
    wanted: Cells = {
        Cell(secondary.cntlid, CellName.ONLINE): False,
        Cell(secondary.cntlid, CellName.VQ): 0,
        Cell(secondary.cntlid, CellName.VI): 0,
    }
    request = ChangeRequest("secondary offline", wanted, takes_down=True, of_session=of_session)
    return apply(pf, request, confirm=confirm, dry_run=dry_run)
