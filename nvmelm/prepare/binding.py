"""Step 4: virtual functions bound to vfio-pci, and given back to the driver they were found with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nvmelm.inventory import groups, marks
from nvmelm.inventory.opened import OpenPrimary
from nvmelm.inventory.pci import VFIO_DRIVER
from nvmelm.inventory.picture import ChangeReport, Role, Secondary
from nvmelm.inventory.read import resolve
from nvmelm.prepare.allow import Which
from nvmelm.prepare.apply import ChangeRequest, Confirm, apply
from nvmelm.prepare.cells import Cell, CellName, Cells
from nvmelm.prepare.journal import Journal


def bind(
    pf: OpenPrimary, which: Which, *, unmarked: bool = False, confirm: Confirm, dry_run: bool = False
) -> ChangeReport:
    """Step 4: bind VFs to vfio-pci by driver_override and drivers_probe.

    Args:
        unmarked: bind VFs that bear no mark, too; they cannot be migrated.

    Raises:
        NotReadyError: a VF is not enabled, or bears no mark.
        NotSupportedError: a VF is in no IOMMU group.
    """
    picture = pf.picture(users=False)
    chosen = [resolve(picture, name) for name in which]
    for secondary in chosen:
        if not unmarked:
            marks.require(picture, secondary, Role.MIGRATABLE, Role.RESUMABLE)
    report = apply(pf, ChangeRequest("vfio bind", bound(chosen)), picture=picture, confirm=confirm, dry_run=dry_run)
    return with_groups(pf, report, chosen)


def unbind(pf: OpenPrimary, which: Which, *, confirm: Confirm, dry_run: bool = False) -> ChangeReport:
    """Undo step 4: unbind VFs from vfio-pci, and give them back to the driver and override nvmelm found them with."""
    picture = pf.picture(users=False)
    original = Journal(pf.host, pf.address, pf.ref.serial).original()
    wanted: Cells = {}
    for secondary in (resolve(picture, name) for name in which):
        for name, unset in ((CellName.DRIVER, None), (CellName.OVERRIDE, "")):
            wanted[Cell(secondary.cntlid, name)] = original.get(Cell(secondary.cntlid, name), unset)
    request = ChangeRequest("vfio unbind", wanted, takes_down=True)
    return apply(pf, request, picture=picture, confirm=confirm, dry_run=dry_run)


def bound(chosen: Sequence[Secondary]) -> Cells:
    """Return the cells of VFs that are bound to vfio-pci."""
    wanted: Cells = {}
    for secondary in chosen:
        wanted |= {
            Cell(secondary.cntlid, CellName.DRIVER): VFIO_DRIVER,
            Cell(secondary.cntlid, CellName.OVERRIDE): VFIO_DRIVER,
        }
    return wanted


def with_groups(pf: OpenPrimary, report: ChangeReport, chosen: Sequence[Secondary]) -> ChangeReport:
    """Add to a report what the IOMMU groups of the VFs, as they are now, mean for the VMs that are to take them."""
    if report.picture is None:
        return report
    notes = groups.notes(pf.host.sysfs, report.picture, chosen)
    return replace(report, notes=(*report.notes, *notes))
