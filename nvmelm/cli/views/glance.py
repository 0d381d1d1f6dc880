"""What people see of a host at a glance; every line fits 60 columns, where a name is not longer than that."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import groupby

from nvmelm.cli.frame import render
from nvmelm.cli.frame.render import Column, cntlid, count
from nvmelm.cli.views.functions import moment, moved_away
from nvmelm.inventory.glance import (
    FunctionGlance,
    HostGlance,
    PrimaryGlance,
    SessionGlance,
    VmGlance,
    VmMoveGlance,
)

_NAMES = {
    "own_files": "marks and locks",
    "vms": "VMs that move",
    "runs": "verbs that have not ended",
    "sessions": "moves between hosts",
    "vm_moves": "moves of VMs",
}
#: What a session that is over has come to, by its last state; the other host is named behind it.
_ENDS = {
    "done": "moved to",
    "rolled-back": "stayed here, was to move to",
    "returned": "came back, was to move to",
    "taken": "taken back on an operator's word from",
    "running": "arrived from",
    "abandoned": "not taken from",
}
_VM_ENDS = {"left": "left with", "stayed": "stayed with", "arrived": "arrived with", "refused": "refused, with"}


def lines(document: HostGlance) -> Iterator[str]:
    """Show a host at a glance."""
    paint = render.Paint(sys.stdout)
    head = f"{moment(document.at)}, nvmelm {document.nvmelm}, Linux {document.kernel}"
    yield from render.wrapped("", render.plain(head), sys.stdout)
    if not document.primaries:
        yield "no NVMe controller with the kernel's nvme driver is on this host"
    for primary in document.primaries:
        yield ""
        yield from _primary(primary)
    if document.vms:
        yield from ("", paint.bold("VMs that move with their functions"))
        for held in document.vms:
            yield from _vm(held)
    if document.runs_now:
        yield from ("", paint.bold("verbs that have not ended"))
        for run in document.runs_now:
            text = f"  {moment(run.started_at)}  {run.verb} on {run.primary}"
            yield from render.wrapped("", render.plain(text), sys.stdout)
        yield "    if none of them runs any more: nvmelm recover, or nvmelm recover --finish"
    if document.sessions_now:
        yield from ("", paint.bold("moves that are not over"))
        for session in document.sessions_now:
            yield from _unfinished(session)
    yield from _last(document)
    yield from _unknown(document)


def _primary(primary: PrimaryGlance) -> Iterator[str]:
    paint = render.Paint(sys.stdout)
    yield paint.bold(f"{primary.node}  {primary.address}  {render.plain(primary.serial)}")
    migrates = {True: "can migrate", False: "cannot migrate", None: "not asked whether it can migrate"}
    vfs = f"{primary.vfs_enabled} of {count(primary.vfs_total, 'VF')} enabled"
    yield from render.wrapped(
        "  ", f"{render.plain(primary.model)}; {vfs}; {migrates[primary.live_migration]}", sys.stdout
    )
    if primary.problem:
        yield from render.wrapped("  it does not answer: ", render.plain(primary.problem), sys.stdout)
    if primary.functions:
        yield from _functions(primary.functions)
    for moved in primary.moved:
        yield from moved_away(moved, indent="  ")
    if primary.suspension_unknown:
        why = f"which are suspended is not known: {primary.suspension_unknown}"
        yield from render.wrapped("  ", render.plain(why), sys.stdout)


def _functions(functions: tuple[FunctionGlance, ...]) -> Iterator[str]:
    columns = [Column("  CNTLID"), Column("STATE"), Column("ADDRESS"), Column("DRIVER", gives_way=True), Column("MARK")]
    yield from render.table(columns, map(_row, functions))
    for function in functions:
        name = _name(function)
        mark = function.mark
        for user in function.used_by:
            yield from render.wrapped(f"  {name}: ", render.plain(user), sys.stdout)
        if mark and not mark.holds:
            why = f"its mark no longer holds: {'; '.join(mark.broken_by)}"
            yield from render.wrapped(f"  {name}: ", render.plain(why), sys.stdout)
        elif mark and mark.expires_at:
            yield from render.wrapped(f"  {name}: ", f"its mark ends at {moment(mark.expires_at)}", sys.stdout)


def _name(function: FunctionGlance) -> str:
    return cntlid(function.cntlid) if function.cntlid is not None else str(function.address)


def _row(function: FunctionGlance) -> tuple[object, ...]:
    mark = function.mark
    name = f"  {cntlid(function.cntlid)}" if function.cntlid is not None else "  ?"
    role = f"{mark.role}{'' if mark.holds else ' (broken)'}" if mark else None
    return name, function.state or "?", function.address, function.driver, role


def _vm(held: VmGlance) -> Iterator[str]:
    who = f"{held.vm or 'a VM'} (pid {held.pid})"
    what = f"{cntlid(held.cntlid)} of {held.primary}, {held.state} since {moment(held.since)}"
    more = ", suspended" if held.suspended else ""
    more += "" if held.running else "; its VMM has ended"
    more += f"; refused last: {held.refusal}" if held.refusal else ""
    yield from render.wrapped("  ", render.plain(f"{who}: {what}{more}"), sys.stdout)


def _names(session: SessionGlance) -> str:
    return ", ".join(map(cntlid, session.cntlids)) or "controllers"


def _unfinished(session: SessionGlance) -> Iterator[str]:
    way = "to" if session.side == "source" else "from"
    where = f"{_names(session)} of {session.primary} {way} {session.peer or 'another host'}"
    when = f"{session.state} since {moment(session.changed_at)}, session {session.session[:8]}"
    yield from render.wrapped("  ", render.plain(f"{where}: {when}"), sys.stdout)
    if session.note:
        yield from render.wrapped("    ", render.plain(session.note), sys.stdout)
    yield "    if it does not end: nvmelm recover --dry-run"


def _last(document: HostGlance) -> Iterator[str]:
    """Show both kinds of moves that are over, the newest first."""
    if not (document.sessions_last or document.vm_moves_last):
        return
    yield from ("", render.Paint(sys.stdout).bold("the last moves"))
    ended = [(session.changed_at, list(_ended(session))) for session in document.sessions_last]
    ended += [(move.at, list(_vm_move(move))) for move in document.vm_moves_last]
    for _, shown in sorted(ended, key=lambda entry: entry[0], reverse=True):
        yield from shown


def _ended(session: SessionGlance) -> Iterator[str]:
    end = "given up here, was to move between here and" if session.given_up else _ENDS.get(session.state, session.state)
    what = f"{_names(session)} {end} {session.peer or 'another host'} (session {session.session[:8]})"
    yield from render.wrapped(f"  {moment(session.changed_at)}  ", render.plain(what), sys.stdout)
    if session.note:
        yield from render.wrapped("    ", render.plain(session.note), sys.stdout)


def _vm_move(move: VmMoveGlance) -> Iterator[str]:
    why = f": {move.why}" if move.why else ""
    what = f"{cntlid(move.cntlid)} {_VM_ENDS.get(move.event, move.event)} {move.vm or 'a VM'} (pid {move.pid}){why}"
    yield from render.wrapped(f"  {moment(move.at)}  ", render.plain(what), sys.stdout)


def _unknown(document: HostGlance) -> Iterator[str]:
    if document.unknown or not document.privileged:
        yield ""
    if not document.privileged:
        yield from render.wrapped("?: ", "only root may ask the controllers; run it with sudo", sys.stdout)
    for why, parts in groupby(document.unknown, key=lambda part: part.why):
        names = ", ".join(_NAMES.get(part.what, part.what) for part in parts)
        yield from render.wrapped("", render.plain(f"not known: {names}: {why}"), sys.stdout)
