"""The controllers of a session as the device sees them: suspended together, resumed together, put back together.

Commands for different controllers do not depend on each other, so they go out at the same time where the device takes
time for them; the parts of one controller's state never do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from nvmelm.commands import execute, virtualization
from nvmelm.errors import NvmelmError
from nvmelm.operations import marks, state
from nvmelm.operations.ownership import Moving
from nvmelm.operations.session import Session
from nvmelm.picture import Secondary
from nvmelm.wire.formats import StateFormats
from nvmelm.wire.opcodes import ResourceType

#: Admin queues of the Linux driver hold 32 commands; more threads would only wait there.
_AT_ONCE = 16

T = TypeVar("T")
R = TypeVar("R")


def each(session: Session, items: Sequence[T], work: Callable[[T], R]) -> list[R]:
    """Do something for every item, at the same time where that saves time, and return the results in order.

    Raises:
        NvmelmError: the first one that was met, when all have ended.
    """
    if len(items) == 1 or session.host.serial:
        return [work(item) for item in items]
    with ThreadPoolExecutor(max_workers=min(_AT_ONCE, len(items))) as pool:
        return list(pool.map(work, items))


def suspend(session: Session, controllers: Sequence[Moving]) -> None:
    """Suspend every controller; one that is suspended already stays so.

    Raises:
        AdminCommandError: the device refused.
    """
    each(session, controllers, lambda one: state.suspend(session.queue, one.cntlid))


def notify(session: Session, controllers: Sequence[Moving]) -> list[str]:
    """Announce the suspend to come; return what the device said where it does not take that."""
    notes: list[str] = []

    def announce(one: Moving) -> None:
        try:
            state.suspend(session.queue, one.cntlid, notify=True)
        except NvmelmError as error:  # only advice to the device: the suspend itself decides
            notes.append(f"no suspend notification for {one.cntlid:#06x}: {error.message}")

    each(session, controllers, announce)
    return notes


def resume(session: Session, controllers: Iterable[Moving]) -> list[str]:
    """Resume every controller that ran before; return what is worth knowing.

    Raises:
        Exception: one was not resumed; the others were all the same.
    """
    notes: list[str] = []

    def go(one: Moving) -> Exception | None:
        try:
            if not state.resume(session.queue, one.cntlid).changed:
                notes.append(f"{one.cntlid:#06x} was not suspended any more: it, or its primary, was reset meanwhile")
        except Exception as error:  # whatever it is, the others have to run
            return error
        return None

    failures = [one for one in each(session, [one for one in controllers if not one.was_suspended], go) if one]
    if failures:
        raise failures[0]
    return notes


def moving(session: Session, formats: StateFormats, one: Secondary, peer_cntlid: int) -> Moving:
    """Return what a session remembers of a controller, as it is now."""
    suspended = state.is_suspended(session.queue, one.cntlid, formats)
    return Moving(one.cntlid, peer_cntlid, one.incarnation, one.vq, one.vi, was_suspended=suspended)


def still_there(session: Session, controllers: Sequence[Moving], boot: str) -> list[Moving]:
    """Return the controllers that are still the ones the session began with; a reboot or new VFs make others."""
    if session.host.facts().boot_id != boot:
        return []
    picture = session.picture(users=False)
    found = {one.cntlid: one.incarnation for one in picture.secondaries if one.present}
    return [one for one in controllers if found.get(one.cntlid) == one.incarnation]


def discard(session: Session, controllers: Sequence[Moving], *, touched: bool) -> None:
    """Put targets back: fresh controllers, online with their resources, with nothing of the session in them.

    Args:
        touched: a part of a state may be in them, so they are taken offline, which forgets it; otherwise they were
            suspended at most, and are resumed.

    Raises:
        NvmelmError: it failed; it can be done again.
    """
    if touched:
        each(session, controllers, lambda one: _renew(session, one))
    else:
        resume(session, controllers)


def use_up(session: Session, controllers: Sequence[Moving]) -> None:
    """Take the marks of targets back that run now: *resumable* was said of what they were before, and holds once."""
    for one in controllers:
        marks.revoke(session.host, session.address, one.cntlid)


def _renew(session: Session, one: Moving) -> None:
    queue = session.queue
    execute(queue, virtualization.offline(one.cntlid))
    now = session.picture(users=False).secondary(one.cntlid)
    for kind, wanted, has in (
        (ResourceType.VQ, one.vq, now.vq if now else 0),
        (ResourceType.VI, one.vi, now.vi if now else 0),
    ):
        if has != wanted:
            execute(queue, virtualization.assign(one.cntlid, kind, wanted))
    execute(queue, virtualization.online(one.cntlid))
    if one.was_suspended:
        state.suspend(queue, one.cntlid)
