"""The undo of all that nvmelm did to a controlling function."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nvmelm.inventory import marks
from nvmelm.inventory.opened import OpenPrimary
from nvmelm.inventory.picture import ChangeReport, Picture
from nvmelm.prepare.apply import ChangeRequest, Confirm, apply, known, picture_for
from nvmelm.prepare.journal import Journal


def release(pf: OpenPrimary, *, confirm: Confirm, dry_run: bool = False) -> ChangeReport:
    """Undo all that nvmelm did to a PF: counts, autoprobe, resources, drivers and overrides as they were found.

    After a reboot only attached namespaces are left to bring back: VFs and overrides do not survive one. What the
    journal holds of another device that was in this place is left alone. A release that fails is put back like any
    change, but for the marks it took.
    """
    journal = Journal(pf.host, pf.address, pf.ref.serial)
    original = journal.original()
    picture = picture_for(pf, original)
    request = ChangeRequest("release", known(picture, original), takes_down=True)
    report = apply(pf, request, picture=picture, confirm=confirm, dry_run=dry_run)
    if dry_run:
        return report
    removed = remove_stale_marks(pf)
    journal.forget()
    if removed and not report.actions:
        names = ", ".join(f"{cntlid:#06x}" for cntlid in removed)
        report = replace(report, changed=True, notes=(*report.notes, f"marks that no longer held are gone: {names}"))
    return replace(report, picture=_without_marks(report.picture, removed))


def remove_stale_marks(pf: OpenPrimary) -> list[int]:
    """Remove the marks that no longer hold, and return whose they were; a mark must not outlive its VF."""
    secondaries = pf.picture(users=False).secondaries
    stale = [secondary.cntlid for secondary in secondaries if secondary.mark is not None and not secondary.mark.holds]
    for cntlid in stale:
        marks.revoke(pf.host, pf.address, cntlid)
    return stale


def _without_marks(picture: Picture | None, cntlids: Sequence[int]) -> Picture | None:
    if picture is None or not cntlids:
        return picture
    left = (
        replace(secondary, mark=None) if secondary.cntlid in cntlids else secondary for secondary in picture.secondaries
    )
    return replace(picture, secondaries=tuple(left))
