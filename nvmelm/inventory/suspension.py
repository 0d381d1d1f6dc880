"""Which controllers stand still: what their states say, and what was written down when one of them was saved.

The Secondary Controller List calls a suspended controller online. The header of its state tells, and nothing else does:
Migration Receive, Get Controller State, 48 bytes, which is allowed on a running controller and changes nothing (NVM
Express Base Specification 2.1, "Migration Receive command"). It costs one such command for each controller that is
online, and the effects log once. It is not asked, and not known then, while

* another nvmelm has the lock of the primary: the parts of a transfer and other commands for its states do not mix;
* the effects log says CSE for Migration Receive: for each such command the kernel would stop all I/O of the primary's
  subsystem on this host, and wait for ever for a suspended controller that it drives itself.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from nvmelm.commands import AdminCommandError, optional
from nvmelm.disk import store
from nvmelm.errors import BusyError, MalformedError, ReplayMismatchError
from nvmelm.host import AdminQueue, Host
from nvmelm.inventory import state_reader
from nvmelm.inventory.picture import Picture, Primary, Secondary
from nvmelm.wire.opcodes import Opcode

_FREEZES = "for each question the kernel would stop all I/O of the subsystem on this host (CSE of Migration Receive)"


def joined(host: Host, queue: AdminQueue, picture: Picture) -> Picture:
    """Return the picture with which controllers are suspended, or with why that is not known.

    Raises:
        HostError, TimedOutError: the queue failed.
    """
    ready = [secondary for secondary in picture.secondaries if secondary.present and secondary.online]
    if not ready or not picture.primary.live_migration:
        return picture
    try:
        with host.lock(picture.primary.address, timeout_s=0.0):
            if _freezes(queue):
                return replace(picture, suspension_unknown=_FREEZES)
            asked = {secondary.cntlid: _suspended(queue, picture.primary, secondary) for secondary in ready}
    except BusyError as error:
        return replace(picture, suspension_unknown=error.message)
    except ReplayMismatchError:  # bug reports leave out all that was asked of states
        return replace(picture, suspension_unknown="the recording does not say")
    rows = (_row(host, picture, secondary, asked.get(secondary.cntlid)) for secondary in picture.secondaries)
    return replace(picture, secondaries=tuple(rows))


def _row(host: Host, picture: Picture, secondary: Secondary, suspended: bool | None) -> Secondary:
    when = (saved_at(host, picture.primary, secondary) or None) if suspended else None
    return replace(secondary, suspended=suspended, saved_at=when)


def _freezes(queue: AdminQueue) -> bool:
    """Return whether the kernel stops I/O for the question; without the log it takes the command for harmless."""
    effects = optional.effects_log(queue)
    return effects is not None and effects.admin(Opcode.MIGRATION_RECEIVE).cse != 0


def _suspended(queue: AdminQueue, primary: Primary, secondary: Secondary) -> bool | None:
    """Return what the controller's state says; None when the device refuses it, or answers nonsense."""
    try:
        return state_reader.is_suspended(queue, secondary.cntlid, state_reader.formats_of(primary))
    except (AdminCommandError, MalformedError):
        return None


def meaning(secondary: Secondary) -> str:
    """Return what is known of a suspended controller, as a clause."""
    saved = f", saved at {secondary.saved_at} and not resumed" if secondary.saved_at else ""
    return f"{secondary.cntlid:#06x} is suspended{saved}: its guest waits for I/O"


def saved_path(host: Host, primary: Primary, secondary: Secondary) -> Path:
    """Return where it stands when a controller's state was last saved."""
    return host.state_dir / "saved" / primary.address / f"{secondary.cntlid:#06x}.json"


def identity_of(host: Host, primary: Primary, secondary: Secondary) -> dict[str, str | int]:
    """Return what tells a controller from others that are in its place later: inodes are unique within a boot only."""
    return {"incarnation": secondary.incarnation, "boot": host.facts().boot_id, "serial": primary.serial}


def saved_at(host: Host, primary: Primary, secondary: Secondary) -> str:
    """Return when this incarnation's state was last saved and not resumed since, or nothing."""
    text = store.read(saved_path(host, primary, secondary))
    try:
        remembered = json.loads(text) if text else {}
        known = {**remembered, **identity_of(host, primary, secondary)}
        return str(remembered["saved_at"]) if remembered == known else ""
    except (ValueError, KeyError, TypeError, RecursionError):
        return "a time that cannot be read"
