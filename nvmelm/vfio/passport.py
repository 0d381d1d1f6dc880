"""What is known of this end of a move: the picture of its host, and the manifest that the two ends are judged by."""

from __future__ import annotations

from dataclasses import dataclass, replace

from nvmelm.commands import AdminCommandError, execute, identify
from nvmelm.compat.describe import of_function
from nvmelm.compat.manifest import Manifest
from nvmelm.errors import DeviceGoneError, MalformedError
from nvmelm.host import Host
from nvmelm.inventory import marks
from nvmelm.inventory.opened import OpenPrimary
from nvmelm.inventory.picture import Picture, Role, Secondary
from nvmelm.inventory.state_reader import StateReader, formats_of
from nvmelm.inventory.vm_moves import Held
from nvmelm.prepare import guards
from nvmelm.state.save import bounded_size
from nvmelm.wire.identify import IdentifyController


@dataclass(frozen=True, slots=True)
class Passport:
    """One end, read while its VM does not wait for it."""

    picture: Picture
    secondary: Secondary
    manifest: Manifest
    event_requests: (
        int  # that a controller keeps at most, AERL + 1; a controller and its controlling function are alike
    )


def state_bytes(pf: OpenPrimary, passport: Passport) -> int:
    """Return how long the state of a controller is now, bytes; it may be running. 0: it does not say."""
    formats = formats_of(passport.picture.primary)
    reader = StateReader(pf.queue, passport.secondary.cntlid, min(len(formats.versions), 1), min(len(formats.uuids), 1))
    try:
        return bounded_size(reader.header(), passport.secondary.cntlid)
    except (AdminCommandError, MalformedError):
        return 0  # said again, and loudly, when it is read


def look(pf: OpenPrimary, held: Held) -> Passport:
    """Return this end as it is now.

    Raises:
        DeviceGoneError: the function that the VM opened is not there any more.
    """
    picture = pf.picture(users=False)
    secondary = current(held, picture)
    identity = IdentifyController(execute(pf.queue, identify.controller()).data)
    return Passport(picture, secondary, of_function(pf.host, pf.queue, picture, secondary), identity.aerl + 1)


def current(held: Held, picture: Picture) -> Secondary:
    """Return a function as a picture shows it, if it is still the one that was opened.

    Raises:
        DeviceGoneError: it was made anew, or is gone.
    """
    secondary = picture.secondary(held.cntlid)
    if secondary is None or secondary.incarnation != held.incarnation:
        raise DeviceGoneError(
            f"{held.address} (controller {held.cntlid:#06x}) is not the function any more that its VM opened",
            fix="nvmelm list",
        )
    return secondary


def marked(host: Host, passport: Passport, role: Role) -> Secondary:
    """Return the function if its mark still allows this, and no other migration has it.

    Raises:
        UsageError: it is not marked so.
        BusyError: it is in a session that is not over.
    """
    secondary = replace(passport.secondary, mark=marks.look(host, passport.picture, passport.secondary))
    marks.require(passport.picture, secondary, role)
    guards.require_decided(host, passport.picture, [secondary.cntlid])
    return secondary
