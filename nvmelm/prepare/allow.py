"""Step 3: the permission to move or to be moved to, given once the facts were verified, and taken back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nvmelm.inventory import marks
from nvmelm.inventory.opened import OpenPrimary
from nvmelm.inventory.pci import Bdf
from nvmelm.inventory.picture import ChangeReport, Role, Secondary
from nvmelm.inventory.read import resolve
from nvmelm.prepare import guards
from nvmelm.prepare.apply import ChangeRequest, Confirm, apply
from nvmelm.prepare.cells import Cell, CellName, Cells
from nvmelm.prepare.plan import plan

Which = Sequence[Bdf | int]


def allow(
    pf: OpenPrimary,
    which: Which,
    role: Role,
    *,
    valid_s: int | None = None,
    confirm: Confirm,
    dry_run: bool = False,
) -> ChangeReport:
    """Step 3: mark controlled functions migratable or resumable, once their facts were verified.

    A controller that was moved here runs a guest as far as nvmelm knows: to mark it resumable again is asked about.

    Raises:
        NotSupportedError, NotReadyError, BusyError: a function may not be marked; see :func:`marks.verify`.
    """
    picture = pf.picture(users=False)
    chosen = [resolve(picture, name) for name in which]
    for secondary in chosen:
        marks.verify(picture, secondary)
    verb = "secondary allow-migration" if role is Role.MIGRATABLE else "secondary allow-resume"
    wanted: Cells = {}
    for secondary in chosen:
        wanted |= marked(secondary, role, valid_s)
    risks = tuple(
        f"{guards.guest_of(cntlid, record)}, and a migration into it would destroy what that guest does; mark it only "
        "when its VM is shut down"
        for cntlid, record in guards.offered(pf.host, picture, plan(picture, wanted)).items()
    )
    request = ChangeRequest(verb, wanted, notes=ends(chosen, wanted), risks=risks)
    return apply(pf, request, picture=picture, confirm=confirm, dry_run=dry_run)


def revoke(pf: OpenPrimary, which: Which, *, confirm: Confirm, dry_run: bool = False) -> ChangeReport:
    """Take the marks of controlled functions back; one that no longer holds is removed as well."""
    picture = pf.picture(users=False)
    chosen = [resolve(picture, name) for name in which]
    wanted: Cells = {Cell(secondary.cntlid, CellName.MARK): None for secondary in chosen}
    report = apply(pf, ChangeRequest("secondary revoke", wanted), picture=picture, confirm=confirm, dry_run=dry_run)
    broken = [secondary for secondary in chosen if secondary.mark is not None and not secondary.mark.holds]
    for secondary in broken if not dry_run else []:
        marks.revoke(pf.host, pf.address, secondary.cntlid)
    return replace(report, changed=report.changed or bool(broken and not dry_run))


def marked(secondary: Secondary, role: Role, valid_s: int | None) -> Cells:
    """Return the cells of a mark; the end of one that is there stays as it is when none was asked for."""
    span: Cells = {Cell(secondary.cntlid, CellName.VALID_S): valid_s} if valid_s else {}
    return {Cell(secondary.cntlid, CellName.MARK): str(role), **span}


def ends(chosen: Sequence[Secondary], wanted: Cells) -> tuple[str, ...]:
    """Say when the marks end that are as they are wanted: they stay as they were given."""
    return tuple(
        f"the mark of {secondary.cntlid:#06x} stays as it was given: it ends at {secondary.mark.expires_at}; "
        "secondary revoke first begins it anew"
        for secondary in chosen
        if secondary.mark is not None and secondary.mark.holds and secondary.mark.expires_at
        if wanted.get(Cell(secondary.cntlid, CellName.MARK)) == secondary.mark.role
        if wanted.get(Cell(secondary.cntlid, CellName.VALID_S), secondary.mark.valid_s) == secondary.mark.valid_s
    )
