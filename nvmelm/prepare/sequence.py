"""Steps 1 to 4 in one run, for either side."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from nvmelm.errors import NotSupportedError
from nvmelm.inventory import marks, pci
from nvmelm.inventory.departed import any_session
from nvmelm.inventory.opened import OpenPrimary
from nvmelm.inventory.picture import ChangeReport, MovedAway, Picture, Role, Secondary
from nvmelm.prepare import guards
from nvmelm.prepare.allow import ends, marked
from nvmelm.prepare.apply import ChangeRequest, Confirm, apply
from nvmelm.prepare.binding import bound, with_groups
from nvmelm.prepare.cells import AUTOPROBE, VFS, Cell, CellName, Cells
from nvmelm.prepare.plan import differences, plan
from nvmelm.prepare.resources import share
from nvmelm.prepare.sriov import check_vfs


def prepare(
    pf: OpenPrimary,
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

    A controller that was moved here runs a guest as far as nvmelm knows, and is left without the mark *resumable*. It,
    and one that somebody uses, keeps its resources unless others are asked for: to change them takes it down. One that
    a source moved away stays down: a blank one in its place is nothing that a second run should move.

    Args:
        vq, vi: flexible resources for each VF, None for an even share of what is free, 0 to leave the type alone.
        valid_s: seconds for which the marks hold; a mark that was given for another span is given anew.
        unmarked: leave the mark out; for controllers that cannot migrate.

    Raises:
        NotSupportedError: no SR-IOV, no live migration (without ``unmarked``), no IOMMU.
        UsageError: more VFs or resources than there are.
        BusyError: a controller would be taken down that runs a guest, or is in use.
    """
    picture = pf.picture(users=False)
    check_vfs(picture, vfs)
    if not unmarked:
        marks.require_live_migration(picture)
    if next(pci.translated_groups(pf.host.sysfs), None) is None:
        cause = "nothing on this host is in an IOMMU group that translates, so no VF can be given to a VM safely"
        fix = "switch the IOMMU on; nvmelm host check tells how"
        raise NotSupportedError("the IOMMU is off", cause=cause, fix=fix, reason="no-iommu")
    chosen = [secondary for secondary in picture.secondaries if 1 <= secondary.vf_number <= vfs]
    if len(chosen) != vfs:
        cause = f"the Secondary Controller List names {len(chosen)} of them"
        raise NotSupportedError(
            f"not every one of {vfs} VFs has a secondary controller", cause=cause, fix="nvmelm show"
        )
    counts, kept = _counts(pf, picture, vfs, chosen, (vq, vi))
    wanted: Cells = {VFS: vfs, AUTOPROBE: False, **counts}
    for secondary in chosen:
        wanted[Cell(secondary.cntlid, CellName.ONLINE)] = True
        if not unmarked:
            wanted |= marked(secondary, role, valid_s)
    verb = "source prepare" if role is Role.MIGRATABLE else "destination prepare"
    wanted, notes = without_running(pf, picture, wanted | bound(chosen))
    wanted, moved = _without_moved(pf, picture, wanted, role)
    notes += tuple(
        f"{gone.cntlid:#06x} was moved to {gone.to} (session {gone.session}) and is left as it is; "
        f"nvmelm secondary assign, online and allow-migration make a new one of it"
        for gone in moved
    )
    request = ChangeRequest(verb, wanted, notes=(*kept, *notes, *ends(chosen, wanted)))
    report = apply(pf, request, picture=picture, confirm=confirm, dry_run=dry_run)
    return replace(with_groups(pf, report, chosen), moved=moved)


def _counts(
    pf: OpenPrimary,
    picture: Picture,
    vfs: int,
    chosen: Sequence[Secondary],
    wishes: tuple[int | None, int | None],
) -> tuple[Cells, tuple[str, ...]]:
    """Return the resources of each function, and who keeps those it has because it is in use, as sentences."""
    shared = _each(chosen, share(picture, chosen, *wishes))
    anew = picture.primary.vfs_enabled not in (0, vfs)  # nobody keeps anything
    changed = {change.cell.cntlid for change in differences(picture, shared)}
    online = {secondary.cntlid for secondary in chosen if secondary.online and secondary.cntlid in changed}
    users = {} if anew or None not in wishes or not online else _users(pf, picture, online)
    if not users:
        return shared, ()
    rest = [secondary for secondary in chosen if secondary.cntlid not in users]
    asked = (wishes[0] or None, wishes[1] or None)  # what was not asked for stays
    counts = _each([secondary for secondary in chosen if secondary.cntlid in users], asked)
    counts |= _each(rest, share(picture, rest, *wishes)) if rest else {}
    notes = tuple(f"{cntlid:#06x} keeps its resources: {user}" for cntlid, user in users.items())
    return counts, notes


def _each(chosen: Sequence[Secondary], counts: tuple[int | None, int | None]) -> Cells:
    names = (CellName.VQ, CellName.VI)
    return {
        Cell(secondary.cntlid, name): count
        for secondary in chosen
        for name, count in zip(names, counts, strict=True)
        if count is not None
    }


def _users(pf: OpenPrimary, picture: Picture, online: Collection[int]) -> dict[int, str]:
    """Return who uses online controllers: a guest that was moved here, or what has them open, as a sentence."""
    users = {
        secondary.cntlid: f"{secondary.address}: {'; '.join(secondary.used_by)}"
        for secondary in pf.picture().secondaries
        if secondary.cntlid in online and secondary.used_by
    }
    guests = guards.running(pf.host, picture)
    return users | {cntlid: guards.guest_of(cntlid, record) for cntlid, record in guests.items() if cntlid in online}


def _without_moved(pf: OpenPrimary, picture: Picture, wanted: Cells, role: Role) -> tuple[Cells, tuple[MovedAway, ...]]:
    """Leave out the controllers that this source moved away and nobody brought online again, and return them."""
    removes = picture.primary.vfs_enabled not in (0, wanted[VFS])  # every VF is made anew then
    if role is not Role.MIGRATABLE or removes or not any_session(pf.host):
        return wanted, ()
    gone = guards.left_blank(pf.host, picture)
    moved = tuple(
        MovedAway(
            cntlid=secondary.cntlid,
            to=gone[secondary.cntlid].peer,
            session=gone[secondary.cntlid].id,
            at=gone[secondary.cntlid].changed_at,
        )
        for secondary in picture.secondaries
        if secondary.cntlid in gone and not secondary.online and Cell(secondary.cntlid, CellName.ONLINE) in wanted
    )
    left_out = {controller.cntlid for controller in moved}
    return {cell: value for cell, value in wanted.items() if cell.cntlid not in left_out}, moved


def without_running(pf: OpenPrimary, picture: Picture, wanted: Cells) -> tuple[Cells, tuple[str, ...]]:
    """Leave out the mark *resumable* of controllers that run a guest here, and say which; only an operator gives it."""
    if str(Role.RESUMABLE) not in wanted.values() or not any_session(pf.host):
        return wanted, ()
    running = guards.offered(pf.host, picture, plan(picture, wanted))
    notes = tuple(
        f"{cntlid:#06x} is left unmarked: it runs a guest here as far as session {record.id} tells ({record.state}); "
        f"when its VM is shut down, nvmelm secondary allow-resume {picture.primary.node} {cntlid:#06x}"
        for cntlid, record in running.items()
    )
    left_out = {Cell(cntlid, name) for cntlid in running for name in (CellName.MARK, CellName.VALID_S)}
    return {name: value for name, value in wanted.items() if name not in left_out}, notes
