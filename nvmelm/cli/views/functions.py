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
    from nvmelm.inventory.picture import MovedAway, Picture, Primary, Resources, Secondary, StateFormats, Tracking

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
                row.node,
                row.address,
                row.serial,
                row.model,
                row.firmware,
                None if row.cntlid is None else cntlid(row.cntlid),
                f"{row.vfs_enabled}/{row.vfs_total}",
                _YES_NO[row.live_migration],
            )
            for row in rows
        ),
    )
    silent = [row for row in rows if row.problem]
    if silent:
        yield ""
    for row in silent:
        yield from render.wrapped(f"{row.node} does not answer: ", render.plain(row.problem), sys.stdout)
    if any(row.live_migration is None and not row.problem for row in rows):
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
                resource.flexible_total,
                resource.free,
                resource.assigned_to_secondaries,
                resource.allocated_to_primary,
                resource.private_to_primary,
                resource.secondary_maximum,
                resource.granularity,
            )
            for name, resource in kinds
            if resource is not None and resource.supported
        ),
    )


def secondaries(document: Picture, *, idle: bool = True) -> Iterator[str]:
    """Show the controlled functions of one primary controller.

    Args:
        idle: also those that are not enabled, offline, without resources and without a mark; else their number.
    """
    shown = [secondary for secondary in document.secondaries if idle or not secondary.idle]
    if shown:
        yield from _functions(shown)
    hidden = len(document.secondaries) - len(shown)
    if hidden:
        yield f"{'and ' if shown else ''}{count(hidden, 'controlled function')} not in use"
    yield from _standing(document)


def _standing(document: Picture) -> Iterator[str]:
    """Say of suspended controllers what is known, or why it is not known which are suspended."""
    suspended = [secondary for secondary in document.secondaries if secondary.suspended]
    if suspended or document.moved or document.suspension_unknown:
        yield ""
    for moved in document.moved:
        yield from moved_away(moved)
    for secondary in suspended:
        saved = f"; saved at {render.plain(secondary.saved_at)}, not resumed" if secondary.saved_at else ""
        yield f"{cntlid(secondary.cntlid)} is suspended: its guest waits for I/O{saved}"
    if document.suspension_unknown:
        why = f"which controllers are suspended is not known: {document.suspension_unknown}"
        yield from render.wrapped("", render.plain(why), sys.stdout)


def moved_away(moved: MovedAway, *, indent: str = "") -> Iterator[str]:
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
    used = [secondary for secondary in shown if secondary.used_by]
    wide = table(
        [*columns, Column("USED BY")],
        ([*_secondary(secondary), _users(secondary)] for secondary in shown),
        stream=StringIO(),
    )
    below = bool(used) and render.is_terminal(sys.stdout) and max(map(len, wide)) > render.terminal_width()
    if used and not below:
        yield from table(
            [*columns, Column("USED BY")], ([*_secondary(secondary), _users(secondary)] for secondary in shown)
        )
    else:
        yield from table(columns, map(_secondary, shown))
    for secondary in used if below else ():  # cut off at the edge, who uses it would say nothing
        yield from render.wrapped(
            f"{cntlid(secondary.cntlid)} is used by ", render.plain(_users(secondary)), sys.stdout
        )
    for secondary in shown:
        if secondary.with_vm:
            yield from render.wrapped(
                f"{cntlid(secondary.cntlid)} moves with its VM: ", render.plain(secondary.with_vm), sys.stdout
            )
    broken = [secondary for secondary in shown if secondary.mark and not secondary.mark.holds]
    absent = any(secondary.address and not secondary.present for secondary in shown)
    ending = [secondary for secondary in shown if secondary.mark and secondary.mark.holds and secondary.mark.expires_at]
    if broken or absent or ending:
        yield ""
    if absent:
        yield "(address): the VF is not enabled; it will have this address"
    for secondary in broken:
        if secondary.mark:
            why = render.plain("; ".join(secondary.mark.broken_by))
            yield f"the mark of {cntlid(secondary.cntlid)} no longer holds: {why}"
    for secondary in ending:
        if secondary.mark:
            yield f"the mark of {cntlid(secondary.cntlid)} ends at {render.plain(str(secondary.mark.expires_at))}"


def _secondary(secondary: Secondary) -> list[object]:
    address = secondary.address if secondary.present or not secondary.address else f"({secondary.address})"
    mark = f"{secondary.mark.role}{'' if secondary.mark.holds else ' (broken)'}" if secondary.mark else None
    node = (secondary.vfio_node or "").removeprefix("/dev/") or secondary.controller_node  # 80 columns are few
    name, vf = cntlid(secondary.cntlid), secondary.vf_number or None
    return [
        name,
        vf,
        secondary.standing,
        secondary.vq,
        secondary.vi,
        address,
        secondary.driver,
        secondary.iommu_group,
        node,
        mark,
    ]


def _users(secondary: Secondary) -> str:
    more = len(secondary.used_by) - 1
    return f"{secondary.used_by[0]}{f' and {more} more' if more > 0 else ''}" if secondary.used_by else ""
