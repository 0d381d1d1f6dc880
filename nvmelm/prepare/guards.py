"""What the sessions of this host forbid every other verb: to touch an undecided copy, or to offer a running one.

A controller in a session that is not over may be the only copy of its state: who takes it offline, removes its VF,
unbinds it or hands it to a VM destroys it. And a controller that was moved here runs a guest, although nothing on the
host shows that before a VM opens it again: marked *resumable*, it would be suspended and overwritten by the next
migration. Nor may it be taken down on the way to something else: that is left to the verbs whose purpose it is.

A controller is the one a session speaks of only in the same boot and incarnation; others hold nothing of it. Hosts
without any session pay for one look at a directory: the database is opened when it is there.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from nvmelm.errors import BusyError
from nvmelm.host import Host
from nvmelm.inventory.departed import latest
from nvmelm.inventory.picture import Picture, Role
from nvmelm.prepare.actions import Action, MarkChange, Phase
from nvmelm.prepare.cells import Cell, CellName

if TYPE_CHECKING:
    from nvmelm.ownership.record import SessionRecord

#: The verbs whose purpose it is to take controllers down: one that was cut off may be finished.
TAKE_DOWN = frozenset({"release", "secondary offline", "sriov disable", "vfio unbind"})
#: The states of a session in which its controllers run here, or are about to.
_RUNS = ("accepted", "running", "rolled-back", "returned", "taken")


def require_decided(host: Host, picture: Picture, cntlids: Collection[int]) -> None:
    """Refuse controllers that are in a session that is not over: the copy here may be the only one.

    Raises:
        BusyError: the session is named.
        HostError: the sessions cannot be read, so nobody knows.
    """
    held = [
        (record, secondary)
        for record, secondary in latest(host, picture)
        if secondary.cntlid in cntlids and not record.over
    ]
    if not held:
        return
    record = held[0][0]
    names = ", ".join(f"{secondary.cntlid:#06x}" for other, secondary in held if other is record)
    raise BusyError(
        f"{names} is in a session that is not over",
        cause=f"session {record.id} with {record.peer or 'another host'} is {record.state} here, and this copy may be "
        "the only one",
        fix="nvmelm recover",
        reason="session-unfinished",
    )


def require_apart_from_vms(host: Host, picture: Picture, cntlids: Collection[int]) -> None:
    """Refuse controllers whose VMs move them along: their VMMs suspend and resume them, and nobody else may.

    Raises:
        BusyError: the VM is named, and what moves it.
        MalformedError: a record of such a VM cannot be read, so any controller may be one.
    """
    from nvmelm.inventory.vm_moves import Moves  # few hosts have any

    moves = Moves(host)
    moves.require_readable()
    for held in moves.all_held():
        if held.primary == picture.primary.address and held.cntlid in cntlids and held.lives:
            raise BusyError(
                f"{held.cntlid:#06x} moves with its VM, and not alone",
                cause=f"{held.vm or 'a VM'} (pid {held.pid}) has {held.address} open and is {held.state}; its VMM "
                "suspends and resumes it",
                fix="migrate the VM: virsh migrate --live DOMAIN URI, or QEMU's migrate; nvmelm vm check "
                f"--pid {held.pid} says whether it can",
                reason="moves-with-its-vm",
            )


def require_free_to(host: Host, picture: Picture, actions: Sequence[Action]) -> None:
    """Refuse a plan that touches a controller of a session that is not over; taking a mark back is allowed.

    Raises:
        BusyError: the session is named.
    """
    require_decided(host, picture, touched(picture, actions))


def touched(picture: Picture, actions: Sequence[Action]) -> set[int]:
    """Return whose state, driver or permission a plan changes: everybody's when the number of VFs changes."""
    counted = [action for action in actions if action.phase is not Phase.REVOKE]
    if any(action.phase is Phase.VFS for action in counted):
        return {secondary.cntlid for secondary in picture.secondaries}
    return {action.cntlid for action in counted if action.cntlid is not None}


def running(host: Host, picture: Picture) -> dict[int, SessionRecord]:
    """Return the online controllers that run a guest here as far as the sessions tell, each with its session.

    The guest of a controller that was moved here, or whose move from here failed, may have been shut down since: the
    device does not say so, and only an operator can.
    """
    return {
        secondary.cntlid: record
        for record, secondary in latest(host, picture)
        if secondary.online and record.state in _RUNS
    }


def lost(host: Host, picture: Picture, actions: Sequence[Action]) -> dict[int, SessionRecord]:
    """Return the controllers that run a guest here as far as the sessions tell, and that a plan takes down."""
    idle = {cntlid for action in actions for cntlid in action.needs_idle}
    guests = running(host, picture) if idle else {}
    return {cntlid: record for cntlid, record in guests.items() if cntlid in idle}


def guest_of(cntlid: int, record: SessionRecord) -> str:
    """Return whose guest a controller runs, as a sentence."""
    return f"{cntlid:#06x} runs a guest here as far as session {record.id} tells ({record.state})"


def require_no_guests(picture: Picture, guests: dict[int, SessionRecord]) -> None:
    """Refuse a plan that would take controllers down from under their guests on its way to something else.

    Raises:
        BusyError: each is named; the fix is the verb whose purpose it is.
    """
    if not guests:
        return
    names = " ".join(f"{cntlid:#06x}" for cntlid in guests)
    raise BusyError(
        f"{names} would be taken down, and runs a guest",
        cause="; ".join(guest_of(*guest) for guest in guests.items()),
        fix=f"when its VM is shut down: nvmelm secondary offline {picture.primary.node} {next(iter(guests)):#06x}, "
        "then again",
        reason="runs-a-guest",
    )


def offered(host: Host, picture: Picture, actions: Sequence[Action]) -> dict[int, SessionRecord]:
    """Return the running controllers that a plan would mark resumable, without making them anew on its way."""
    marked = {
        operation.cntlid
        for action in actions
        for operation in action.operations
        if isinstance(operation, MarkChange) and operation.role is Role.RESUMABLE
    }
    if not marked:
        return {}
    renewed = {
        secondary.cntlid
        for secondary in picture.secondaries
        for action in actions
        for change in action.changes
        if change.cell == Cell(secondary.cntlid, CellName.ONLINE) and change.after is False
    }
    guests = running(host, picture)
    return {cntlid: record for cntlid, record in guests.items() if cntlid in marked - renewed}


def left_blank(host: Host, picture: Picture) -> dict[int, SessionRecord]:
    """Return the controllers that were moved from here to another host, each with its session.

    What bears their numbers now is as the take-down left it, or was made anew and is blank: no guest's controller, as
    long as no VM holds it.
    """
    return {
        secondary.cntlid: record
        for record, secondary in latest(host, picture)
        if record.state == "done" and not secondary.used_by
    }
