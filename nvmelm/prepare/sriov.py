"""Step 1: the virtual functions of a controlling function, enabled and disabled."""

from __future__ import annotations

from nvmelm.errors import UsageError
from nvmelm.inventory.opened import OpenPrimary
from nvmelm.inventory.picture import ChangeReport, Picture
from nvmelm.inventory.read import require_sriov
from nvmelm.prepare.apply import ChangeRequest, Confirm, apply
from nvmelm.prepare.cells import AUTOPROBE, VFS, Cells
from nvmelm.prepare.journal import Journal


def enable_sriov(pf: OpenPrimary, vfs: int, *, confirm: Confirm, dry_run: bool = False) -> ChangeReport:
    """Step 1: enable a number of VFs, with driver autoprobe off first; a changed count goes by way of 0.

    Raises:
        UsageError: more VFs than the PF can have, or none.
        NotSupportedError: the PF can have no VFs.
    """
    picture = pf.picture(users=False)
    check_vfs(picture, vfs)
    wanted: Cells = {VFS: vfs, AUTOPROBE: False}
    return apply(pf, ChangeRequest("sriov enable", wanted), picture=picture, confirm=confirm, dry_run=dry_run)


def disable_sriov(pf: OpenPrimary, *, confirm: Confirm, dry_run: bool = False) -> ChangeReport:
    """Remove all VFs; marks, resources and bindings go with them, and autoprobe is as nvmelm found it."""
    picture = pf.picture(users=False)
    require_sriov(picture)
    autoprobe = Journal(pf.host, pf.address, pf.ref.serial).original().get(AUTOPROBE)
    wanted: Cells = {VFS: 0} if autoprobe is None else {VFS: 0, AUTOPROBE: autoprobe}
    request = ChangeRequest("sriov disable", wanted, takes_down=True)
    return apply(pf, request, picture=picture, confirm=confirm, dry_run=dry_run)


def check_vfs(picture: Picture, vfs: int) -> None:
    """Refuse a number of VFs the PF cannot have."""
    require_sriov(picture)
    total = picture.primary.vfs_total
    if not 1 <= vfs <= total:
        fix = f"ask for 1 to {total}"
        raise UsageError(f"{picture.primary.address} cannot have {vfs} VFs", cause=f"it has {total} at most", fix=fix)
