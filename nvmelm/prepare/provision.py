"""Steps 1 to 4 of both sequences, one by one and together, and their undo.

Each function says which cells its verb wants (:mod:`nvmelm.prepare.plan`) and refuses what cannot be; carrying it
out, asking, journaling and putting back are the same for all (:mod:`nvmelm.prepare.apply`).

==== ============================ ======================================================
step source / destination         cells
==== ============================ ======================================================
1    enable SR-IOV                autoprobe, vfs
2    list the secondaries         none; the picture
3    allow migration / resume     vq, vi, online, then the mark
4    bind to VFIO                 override, driver
==== ============================ ======================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nvmelm.errors import NotSupportedError, UsageError
from nvmelm.inventory import groups, marks, pci
from nvmelm.inventory.opened import Session
from nvmelm.inventory.pci import VFIO_DRIVER, Bdf
from nvmelm.inventory.picture import ChangeReport, Moved, Picture, Role, Secondary
from nvmelm.inventory.read import require_sriov, resolve
from nvmelm.prepare import guards
from nvmelm.prepare.actions import Cells
from nvmelm.prepare.apply import Confirm, Request, apply, undo
from nvmelm.prepare.journal import Journal
from nvmelm.prepare.plan import cell, plan
from nvmelm.prepare.resources import check_share, require_enough, share

Which = Sequence[Bdf | int]


def enable_sriov(session: Session, vfs: int, *, confirm: Confirm, dry_run: bool = False) -> ChangeReport:
    """Step 1: enable a number of VFs, with driver autoprobe off first; a changed count goes by way of 0.

    Raises:
        UsageError: more VFs than the PF can have, or none.
        NotSupportedError: the PF can have no VFs.
    """
    picture = session.picture(users=False)
    check_vfs(picture, vfs)
    target: Cells = {"vfs": vfs, "autoprobe": False}
    return apply(session, Request("sriov enable", target), picture=picture, confirm=confirm, dry_run=dry_run)


def disable_sriov(session: Session, *, confirm: Confirm, dry_run: bool = False) -> ChangeReport:
    """Remove all VFs; marks, resources and bindings go with them, and autoprobe is as nvmelm found it."""
    picture = session.picture(users=False)
    require_sriov(picture)
    found = Journal(session.host, session.address, session.ref.serial).original().get("autoprobe")
    target: Cells = {"vfs": 0} if found is None else {"vfs": 0, "autoprobe": found}
    return apply(session, Request("sriov disable", target), picture=picture, confirm=confirm, dry_run=dry_run)


def assign(
    session: Session, which: Bdf | int, *, vq: int | None, vi: int | None, confirm: Confirm, dry_run: bool = False
) -> ChangeReport:
    """Assign VQ and VI resources to one secondary controller; an online one goes offline for it and comes back.

    None or 0 leaves a type as it is.

    Raises:
        UsageError: it does not fit; the message says what would.
    """
    picture = session.picture(users=False)
    one = resolve(picture, which)
    vq, vi = vq or None, vi or None
    check_share(picture, [one], vq, vi)
    wanted = {cell(one.cntlid, name): count for name, count in (("vq", vq), ("vi", vi)) if count is not None}
    return apply(session, Request("secondary assign", {**wanted}), picture=picture, confirm=confirm, dry_run=dry_run)


def online(session: Session, which: Bdf | int, *, confirm: Confirm, dry_run: bool = False) -> ChangeReport:
    """Bring one secondary controller online.

    Raises:
        NotReadyError: it has no VQ or no VI resources at all; the fix assigns the least (2 VQ, 1 VI).
        NotSupportedError: that many are not free.
    """
    picture = session.picture(users=False)
    one = resolve(picture, which)
    if not one.online:
        require_enough(picture, one)
    return apply(
        session, Request("secondary online", {cell(one.cntlid, "online"): True}), confirm=confirm, dry_run=dry_run
    )


def offline(
    session: Session, which: Bdf | int, *, of_session: bool = False, confirm: Confirm, dry_run: bool = False
) -> ChangeReport:
    """Take one secondary controller offline; it loses its resources and its mark.

    Args:
        of_session: the session that gave the controller away does it; everybody else is refused such a controller.
    """
    one = resolve(session.picture(users=False), which)
    target: Cells = {cell(one.cntlid, "online"): False, cell(one.cntlid, "vq"): 0, cell(one.cntlid, "vi"): 0}
    request = Request("secondary offline", target, of_session=of_session)
    return apply(session, request, confirm=confirm, dry_run=dry_run)


def allow(
    session: Session,
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
    picture = session.picture(users=False)
    chosen = [resolve(picture, one) for one in which]
    for one in chosen:
        marks.verify(picture, one)
    verb = "secondary allow-migration" if role is Role.MIGRATABLE else "secondary allow-resume"
    target: Cells = {}
    for one in chosen:
        target |= _marked(one, role, valid_s)
    risks = tuple(
        f"{cntlid:#06x} runs a guest here as far as session {record.id} tells ({record.state}), and a migration into "
        "it would destroy what that guest does; mark it only when its VM is shut down"
        for cntlid, record in guards.offered(session.host, picture, plan(picture, target)).items()
    )
    notes = (*(risks if dry_run else ()), *_ends(chosen, target))
    request = Request(verb, target, notes=notes, risks=risks)
    return apply(session, request, picture=picture, confirm=confirm, dry_run=dry_run)


def revoke(session: Session, which: Which, *, confirm: Confirm, dry_run: bool = False) -> ChangeReport:
    """Take the marks of controlled functions back; one that no longer holds is removed as well."""
    picture = session.picture(users=False)
    chosen = [resolve(picture, one) for one in which]
    target: Cells = {cell(one.cntlid, "mark"): None for one in chosen}
    report = apply(session, Request("secondary revoke", target), picture=picture, confirm=confirm, dry_run=dry_run)
    broken = [one for one in chosen if one.mark is not None and not one.mark.holds]
    for one in broken if not dry_run else []:
        marks.revoke(session.host, session.address, one.cntlid)
    return replace(report, changed=report.changed or bool(broken and not dry_run))


def bind(
    session: Session, which: Which, *, unmarked: bool = False, confirm: Confirm, dry_run: bool = False
) -> ChangeReport:
    """Step 4: bind VFs to vfio-pci by driver_override and drivers_probe.

    Args:
        unmarked: bind VFs that bear no mark, too; they cannot be migrated.

    Raises:
        NotReadyError: a VF is not enabled, or bears no mark.
        NotSupportedError: a VF is in no IOMMU group.
    """
    picture = session.picture(users=False)
    chosen = [resolve(picture, one) for one in which]
    for one in chosen:
        if not unmarked:
            marks.require(picture, one, Role.MIGRATABLE, Role.RESUMABLE)
    report = apply(session, Request("vfio bind", _bound(chosen)), picture=picture, confirm=confirm, dry_run=dry_run)
    return _with_groups(session, report, chosen)


def unbind(session: Session, which: Which, *, confirm: Confirm, dry_run: bool = False) -> ChangeReport:
    """Undo step 4: unbind VFs from vfio-pci, and give them back to the driver and override nvmelm found them with."""
    picture = session.picture(users=False)
    original = Journal(session.host, session.address, session.ref.serial).original()
    target: Cells = {}
    for one in (resolve(picture, each) for each in which):
        for name, unset in (("driver", None), ("override", "")):
            target[cell(one.cntlid, name)] = original.get(cell(one.cntlid, name), unset)
    return apply(session, Request("vfio unbind", target), picture=picture, confirm=confirm, dry_run=dry_run)


def prepare(
    session: Session,
    role: Role,
    vfs: int,
    *,
    vq: int | None = None,
    vi: int | None = None,
    unmarked: bool = False,
    valid_s: int | None = None,
    confirm: Confirm,
    dry_run: bool = False,
) -> ChangeReport:
    """Steps 1 to 4 in one run: VFs enabled, resources shared out, controllers online and marked, bound to vfio-pci.

    A controller that was moved here runs a guest as far as nvmelm knows, and is left without the mark *resumable*. One
    that a source moved away stays down: a blank one in its place is nothing that a second run should move.

    Args:
        vq, vi: flexible resources for each VF, None for an even share of what is free, 0 to leave the type alone.
        valid_s: seconds for which the marks hold; a mark that was given for another span is given anew.
        unmarked: leave the mark out; for controllers that cannot migrate.

    Raises:
        NotSupportedError: no SR-IOV, no live migration (without ``unmarked``), no IOMMU.
        UsageError: more VFs or resources than there are.
    """
    picture = session.picture(users=False)
    check_vfs(picture, vfs)
    if not unmarked:
        marks.require_live_migration(picture)
    if next(pci.translated_groups(session.host.sysfs), None) is None:
        cause = "nothing on this host is in an IOMMU group that translates, so no VF can be given to a VM safely"
        fix = "switch the IOMMU on; nvmelm host check tells how"
        raise NotSupportedError("the IOMMU is off", cause=cause, fix=fix, reason="no-iommu")
    chosen = [one for one in picture.secondaries if 1 <= one.vf_number <= vfs]
    if len(chosen) != vfs:
        cause = f"the Secondary Controller List names {len(chosen)} of them"
        raise NotSupportedError(
            f"not every one of {vfs} VFs has a secondary controller", cause=cause, fix="nvmelm show"
        )
    each_vq, each_vi = share(picture, chosen, vq, vi)
    target: Cells = {"vfs": vfs, "autoprobe": False}
    for one in chosen:
        counts = (("vq", each_vq), ("vi", each_vi))
        target |= {cell(one.cntlid, name): count for name, count in counts if count is not None}
        target[cell(one.cntlid, "online")] = True
        if not unmarked:
            target |= _marked(one, role, valid_s)
    verb = "source prepare" if role is Role.MIGRATABLE else "destination prepare"
    target, notes = without_running(session, picture, target | _bound(chosen))
    target, moved = _without_moved(session, picture, target, role)
    notes += tuple(
        f"{one.cntlid:#06x} was moved to {one.to} (session {one.session}) and is left as it is; "
        f"nvmelm secondary assign, online and allow-migration make a new one of it"
        for one in moved
    )
    request = Request(verb, target, notes=(*notes, *_ends(chosen, target)))
    report = apply(session, request, picture=picture, confirm=confirm, dry_run=dry_run)
    return replace(_with_groups(session, report, chosen), moved=moved)


def _without_moved(session: Session, picture: Picture, target: Cells, role: Role) -> tuple[Cells, tuple[Moved, ...]]:
    """Leave out the controllers that this source moved away and nobody brought online again, and return them."""
    removes = picture.primary.vfs_enabled not in (0, target["vfs"])  # every VF is made anew then
    if role is not Role.MIGRATABLE or removes or not guards.any_session(session.host):
        return target, ()
    gone = guards.left_blank(session.host, picture)
    moved = tuple(
        Moved(cntlid=one.cntlid, to=gone[one.cntlid].peer, session=str(gone[one.cntlid].id))
        for one in picture.secondaries
        if one.cntlid in gone and not one.online and cell(one.cntlid, "online") in target
    )
    left_out = tuple(cell(one.cntlid, "") for one in moved)
    return {name: value for name, value in target.items() if not name.startswith(left_out)}, moved


def _marked(one: Secondary, role: Role, valid_s: int | None) -> Cells:
    """Return the cells of a mark; the end of one that is there stays as it is when none was asked for."""
    span: Cells = {cell(one.cntlid, "valid_s"): valid_s} if valid_s else {}
    return {cell(one.cntlid, "mark"): str(role), **span}


def _ends(chosen: Sequence[Secondary], target: Cells) -> tuple[str, ...]:
    """Say when the marks end that are as they are wanted: they stay as they were given."""
    return tuple(
        f"the mark of {one.cntlid:#06x} stays as it was given: it ends at {one.mark.expires_at}; "
        "secondary revoke first begins it anew"
        for one in chosen
        if one.mark is not None and one.mark.holds and one.mark.expires_at
        if target.get(cell(one.cntlid, "mark")) == one.mark.role
        if target.get(cell(one.cntlid, "valid_s"), one.mark.valid_s) == one.mark.valid_s
    )


def without_running(session: Session, picture: Picture, target: Cells) -> tuple[Cells, tuple[str, ...]]:
    """Leave out the mark *resumable* of controllers that run a guest here, and say which; only an operator gives it."""
    if str(Role.RESUMABLE) not in target.values() or not guards.any_session(session.host):
        return target, ()
    found = guards.offered(session.host, picture, plan(picture, target))
    notes = tuple(
        f"{cntlid:#06x} is left unmarked: it runs a guest here as far as session {record.id} tells ({record.state}); "
        f"when its VM is shut down, nvmelm secondary allow-resume {picture.primary.node} {cntlid:#06x}"
        for cntlid, record in found.items()
    )
    left_out = {cell(cntlid, name) for cntlid in found for name in ("mark", "valid_s")}
    return {name: value for name, value in target.items() if name not in left_out}, notes


def release(session: Session, *, confirm: Confirm, dry_run: bool = False) -> ChangeReport:
    """Undo all that nvmelm did to a PF: counts, autoprobe, resources, drivers and overrides as they were found.

    After a reboot only attached namespaces are left to bring back: VFs and overrides do not survive one. What the
    journal holds of another device that was in this place is left alone.
    """
    journal = Journal(session.host, session.address, session.ref.serial)
    report = undo(session, journal.original(), "release", confirm=confirm, dry_run=dry_run)
    if dry_run:
        return report
    removed = remove_stale_marks(session)
    journal.forget()
    if removed and not report.actions:
        names = ", ".join(f"{cntlid:#06x}" for cntlid in removed)
        report = replace(report, changed=True, notes=(*report.notes, f"marks that no longer held are gone: {names}"))
    return replace(report, picture=_without_marks(report.picture, removed))


def remove_stale_marks(session: Session) -> list[int]:
    """Remove the marks that no longer hold, and return whose they were; a mark must not outlive its VF."""
    found = session.picture(users=False).secondaries
    stale = [one.cntlid for one in found if one.mark is not None and not one.mark.holds]
    for cntlid in stale:
        marks.revoke(session.host, session.address, cntlid)
    return stale


def _without_marks(picture: Picture | None, cntlids: Sequence[int]) -> Picture | None:
    if picture is None or not cntlids:
        return picture
    left = (replace(one, mark=None) if one.cntlid in cntlids else one for one in picture.secondaries)
    return replace(picture, secondaries=tuple(left))


def check_vfs(picture: Picture, vfs: int) -> None:
    """Refuse a number of VFs the PF cannot have."""
    require_sriov(picture)
    total = picture.primary.vfs_total
    if not 1 <= vfs <= total:
        fix = f"ask for 1 to {total}"
        raise UsageError(f"{picture.primary.address} cannot have {vfs} VFs", cause=f"it has {total} at most", fix=fix)


def _bound(chosen: Sequence[Secondary]) -> Cells:
    target: Cells = {}
    for one in chosen:
        target |= {cell(one.cntlid, "driver"): VFIO_DRIVER, cell(one.cntlid, "override"): VFIO_DRIVER}
    return target


def _with_groups(session: Session, report: ChangeReport, chosen: Sequence[Secondary]) -> ChangeReport:
    """Add to a report what the IOMMU groups of the VFs, as they are now, mean for the VMs that are to take them."""
    if report.picture is None:
        return report
    found = groups.notes(session.host.sysfs, report.picture, chosen)
    return replace(report, notes=(*report.notes, *found))
