"""What people see of the model: one function a document, each returning lines."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from io import StringIO
from typing import TYPE_CHECKING

from nvmelm.cli.frame import render
from nvmelm.cli.frame.render import Column, cntlid, count, facts, table

if TYPE_CHECKING:  # `list` is quick because it needs no models
    from nvmelm.inventory.find import PrimarySummary
    from nvmelm.inventory.picture import Moved, Picture, Primary, Resources, Secondary, StateFormats, Tracking

_YES_NO = {True: "yes", False: "no", None: "?"}


def primary_list(rows: Sequence[PrimarySummary]) -> Iterator[str]:
    """Show the controlling functions of a host."""
    if not rows:
        yield "no NVMe controller with the kernel's nvme driver is on this host"
        yield "nvmelm host check tells what is missing; nvmelm emulate create DIR makes a host to practise on"
        return
    columns = [
        Column("NODE"),
        Column("ADDRESS"),
        Column("SERIAL", gives_way=True),
        Column("MODEL", gives_way=True),
        Column("FIRMWARE", gives_way=True),
        Column("CNTLID"),
        Column("VFS", right=True),
        Column("MIGRATION"),
    ]
    yield from table(
        columns,
        (
            (
                one.node,
                one.address,
                one.serial,
                one.model,
                one.firmware,
                None if one.cntlid is None else cntlid(one.cntlid),
                f"{one.vfs_enabled}/{one.vfs_total}",
                _YES_NO[one.live_migration],
            )
            for one in rows
        ),
    )
    silent = [one for one in rows if one.problem]
    if silent:
        yield ""
    for one in silent:
        yield from render.wrapped(f"{one.node} does not answer: ", render.plain(one.problem), sys.stdout)
    if any(one.live_migration is None and not one.problem for one in rows):
        yield ""
        yield "?: only root may ask the controllers whether they can migrate"


def picture(document: Picture) -> Iterator[str]:
    """Show a controlling function and its controlled functions."""
    paint = render.Paint(sys.stdout)
    primary = document.primary
    yield paint.bold(f"{primary.node}  {primary.address}  {render.plain(primary.model)}")
    yield from facts(_identity(primary), indent="  ")
    if primary.vq or primary.vi:
        yield ""
        yield from _resources([("VQ", primary.vq), ("VI", primary.vi)])
    yield ""
    if document.secondaries:
        yield from secondaries(document)
        yield from _namespaces(document)
    else:
        yield "no secondary controllers"


def _namespaces(document: Picture) -> Iterator[str]:
    """Say which namespaces each VF sees; a prepared one without any would be an empty disk to its VM."""
    known = [secondary for secondary in document.secondaries if secondary.namespaces is not None]
    if known:
        yield ""
    for secondary in known:
        name, nsids = cntlid(secondary.cntlid), ", ".join(map(str, secondary.namespaces or ()))
        if nsids:
            yield from render.wrapped(f"{name} sees namespace ", nsids, sys.stdout)
        else:
            fix = f"nvme attach-ns /dev/{document.primary.node} --namespace-id=N --controllers={secondary.cntlid:#x}"
            yield from render.wrapped(
                f"{name} sees no namespace: ", f"its VM gets an empty controller; {fix}", sys.stdout
            )


def _identity(primary: Primary) -> Iterable[tuple[str, object]]:
    yield "serial number", primary.serial
    yield "firmware", primary.firmware
    yield "NQN", primary.nqn
    yield "controller", f"{cntlid(primary.cntlid)}, NVMe {primary.nvme_version}"
    yield "virtual functions", f"{primary.vfs_enabled} of {primary.vfs_total} enabled"
    yield "live migration", _migration(primary)
    yield "state formats", _formats(primary.state_formats)
    yield "tracking", _tracking(primary.tracking)
    most = primary.max_transfer_bytes
    yield "one command carries", f"up to {render.size(most)}" if most else "any length"


def _migration(primary: Primary) -> str:
    if primary.live_migration:
        return "yes (Host Managed Live Migration)"
    return "no (Host Managed Live Migration, OACS bit 11, is clear)"


def _formats(formats: StateFormats | None) -> str:
    if formats is None:
        return ""
    known = [f"NVMe version {number}" for number in formats.versions]
    return ", ".join([*known, *(f"vendor {uuid}" for uuid in formats.vendor_uuids)]) or "none"


def _tracking(tracking: Tracking) -> str:
    parts = []
    if tracking.memory:
        sizes = (
            f"{render.size(tracking.smallest_granularity_bytes)} to {render.size(tracking.largest_granularity_bytes)}"
        )
        parts.append(f"memory ({count(tracking.memory_ranges, 'range')}, {sizes})")
    if tracking.user_data:
        parts.append(f"user data ({count(tracking.user_data_queues, 'queue')})")
    return ", ".join(parts) or "none"


def _resources(kinds: Iterable[tuple[str, Resources | None]]) -> list[str]:
    titles = ("FLEXIBLE", "FREE", "ASSIGNED", "PRIMARY", "PRIVATE", "MOST PER VF", "GRANULARITY")
    return table(
        [Column("RESOURCES"), *(Column(title, right=True) for title in titles)],
        (
            (
                name,
                one.flexible_total,
                one.free,
                one.assigned_to_secondaries,
                one.allocated_to_primary,
                one.private_to_primary,
                one.secondary_maximum,
                one.granularity,
            )
            for name, one in kinds
            if one is not None and one.supported
        ),
    )


def secondaries(document: Picture, *, idle: bool = True) -> Iterator[str]:
    """Show the controlled functions of one primary controller.

    Args:
        idle: also those that are not enabled, offline, without resources and without a mark; else their number.
    """
    shown = [one for one in document.secondaries if idle or not one.idle]
    if shown:
        yield from _functions(shown)
    hidden = len(document.secondaries) - len(shown)
    if hidden:
        yield f"{'and ' if shown else ''}{count(hidden, 'controlled function')} not in use"
    yield from _standing(document)


def _standing(document: Picture) -> Iterator[str]:
    """Say of suspended controllers what is known, or why it is not known which are suspended."""
    suspended = [one for one in document.secondaries if one.suspended]
    if suspended or document.moved or document.suspension_unknown:
        yield ""
    for moved in document.moved:
        yield from moved_away(moved)
    for one in suspended:
        saved = f"; saved at {render.plain(one.saved_at)}, not resumed" if one.saved_at else ""
        yield f"{cntlid(one.cntlid)} is suspended: its guest waits for I/O{saved}"
    if document.suspension_unknown:
        why = f"which controllers are suspended is not known: {document.suspension_unknown}"
        yield from render.wrapped("", render.plain(why), sys.stdout)


def moved_away(moved: Moved, *, indent: str = "") -> Iterator[str]:
    """Say where a controller went, when, and by which session."""
    where = f"moved to {render.plain(moved.to or 'another host')}"
    when = f"{moment(moved.at)} (session {render.plain(moved.session[:8])})"
    yield from render.wrapped(f"{indent}{cntlid(moved.cntlid)} ", f"{where} at {when}", sys.stdout)


def moment(text: str) -> str:
    """Return a time that was written down as people read it, to the second."""
    plain = render.plain(text)
    return f"{plain[:10]} {plain[11:19]} UTC" if plain.endswith("+00:00") else plain


def _functions(shown: list[Secondary]) -> Iterator[str]:
    columns = [
        Column("CNTLID"),
        Column("VF", right=True),
        Column("STATE"),
        Column("VQ", right=True),
        Column("VI", right=True),
        Column("ADDRESS"),
        Column("DRIVER"),
        Column("GROUP", right=True),
        Column("NODE"),
        Column("MARK", gives_way=True),
    ]
    used = [one for one in shown if one.used_by]
    wide = table([*columns, Column("USED BY")], ([*_secondary(one), _users(one)] for one in shown), stream=StringIO())
    below = bool(used) and render.is_terminal(sys.stdout) and max(map(len, wide)) > render.terminal_width()
    if used and not below:
        yield from table([*columns, Column("USED BY")], ([*_secondary(one), _users(one)] for one in shown))
    else:
        yield from table(columns, map(_secondary, shown))
    for one in used if below else ():  # cut off at the edge, who uses it would say nothing
        yield from render.wrapped(f"{cntlid(one.cntlid)} is used by ", render.plain(_users(one)), sys.stdout)
    for one in shown:
        if one.with_vm:
            yield from render.wrapped(
                f"{cntlid(one.cntlid)} moves with its VM: ", render.plain(one.with_vm), sys.stdout
            )
    broken = [one for one in shown if one.mark and not one.mark.holds]
    absent = any(one.address and not one.present for one in shown)
    ending = [one for one in shown if one.mark and one.mark.holds and one.mark.expires_at]
    if broken or absent or ending:
        yield ""
    if absent:
        yield "(address): the VF is not enabled; it will have this address"
    for one in broken:
        if one.mark:
            yield f"the mark of {cntlid(one.cntlid)} no longer holds: {render.plain('; '.join(one.mark.broken_by))}"
    for one in ending:
        if one.mark:
            yield f"the mark of {cntlid(one.cntlid)} ends at {render.plain(str(one.mark.expires_at))}"


def _secondary(one: Secondary) -> list[object]:
    address = one.address if one.present or not one.address else f"({one.address})"
    mark = f"{one.mark.role}{'' if one.mark.holds else ' (broken)'}" if one.mark else None
    node = one.vfio_node.removeprefix("/dev/") if one.vfio_node else one.controller_node  # 80 columns are few
    name, vf = cntlid(one.cntlid), one.vf_number or None
    return [name, vf, one.standing, one.vq, one.vi, address, one.driver, one.iommu_group, node, mark]


def _users(one: Secondary) -> str:
    more = len(one.used_by) - 1
    return f"{one.used_by[0]}{f' and {more} more' if more > 0 else ''}" if one.used_by else ""
