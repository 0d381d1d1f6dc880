"""The controllers of a session as the device sees them: suspended together, resumed together, put back together.

Commands for different controllers do not depend on each other, so they go out at the same time where the device takes
time for them; the parts of one controller's state never do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from nvmelm.commands import AdminCommandError, execute, virtualization
from nvmelm.errors import CopyLostError, NvmelmError
from nvmelm.inventory import marks, state_reader
from nvmelm.inventory.opened import OpenPrimary
from nvmelm.inventory.picture import Secondary
from nvmelm.inventory.state_reader import StateReader
from nvmelm.migrate.queues import has_any
from nvmelm.ownership.sessions import Moving
from nvmelm.prepare import secondaries
from nvmelm.process import parallel
from nvmelm.state import running
from nvmelm.wire.formats import SupportedStateFormats
from nvmelm.wire.opcodes import ResourceType

#: Admin queues of the Linux driver hold 32 commands; more threads would only wait there.
_AT_ONCE = 16

T = TypeVar("T")


def each(pf: OpenPrimary, items: Sequence[T], work: Callable[[T], object]) -> None:
    """Do something for every item, at the same time where that saves time, and where there are threads for it.

    Raises:
        NvmelmError: the first one that was met, when all have ended.
        KeyboardInterrupt: it was asked for meanwhile; all have ended, or a resume would overtake a suspend.
    """
    if len(items) <= 1 or pf.host.serial:
        for item in items:
            work(item)
    else:
        parallel.each(work, items, threads=_AT_ONCE, all_of_them=True)


def suspend(pf: OpenPrimary, controllers: Sequence[Moving]) -> None:
    """Suspend every controller; one that is suspended already stays so.

    Raises:
        AdminCommandError: the device refused.
    """
    each(pf, controllers, lambda controller: running.suspend(pf.queue, controller.cntlid))


def notify(pf: OpenPrimary, controllers: Sequence[Moving]) -> list[str]:
    """Announce the suspend to come; return what the device said where it does not take that."""
    notes: list[str] = []

    def announce(controller: Moving) -> None:
        try:
            running.suspend(pf.queue, controller.cntlid, notify=True)
        except NvmelmError as error:  # only advice to the device: the suspend itself decides
            notes.append(f"no suspend notification for {controller.cntlid:#06x}: {error.message}")

    each(pf, controllers, announce)
    return notes


@dataclass(slots=True)
class Resumed:
    """What came of resuming several controllers.

    Attributes:
        run: they were suspended, and run now.
        notes: what is worth knowing.
        failures: why others do not run.
    """

    run: list[Moving] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)

    @property
    def worst(self) -> Exception:
        """Return the failure to speak of: a lost state before a refusal."""
        return min(self.failures, key=lambda failure: not isinstance(failure, CopyLostError))


def resume(pf: OpenPrimary, controllers: Iterable[Moving], *, strict: bool = False) -> list[str]:
    """Resume every controller that ran before; return what is worth knowing.

    Args:
        strict: they took states, and every one is to run: one that stood still before is resumed, too, and one that is
            not suspended any more is an error: what was to run is lost.

    Raises:
        Exception: one was not resumed; the others were all the same.
    """
    resumed = try_resume(pf, controllers, strict=strict)
    if resumed.failures:
        raise resumed.worst
    return resumed.notes


def try_resume(pf: OpenPrimary, controllers: Iterable[Moving], *, strict: bool) -> Resumed:
    """Resume controllers as :func:`resume` does, and return what became of each."""
    resumed = Resumed()

    def go(controller: Moving) -> None:
        try:
            if running.resume(pf.queue, controller.cntlid).changed:
                resumed.run.append(controller)
            elif strict:
                resumed.failures.append(_lost(controller))
            else:
                resumed.notes.append(
                    f"{controller.cntlid:#06x} was not suspended any more: it, or its primary, was reset"
                )
        except Exception as error:  # whatever it is, the others have to run
            resumed.failures.append(error)

    each(pf, [controller for controller in controllers if strict or not controller.was_suspended], go)
    return resumed


def _lost(controller: Moving) -> CopyLostError:
    return CopyLostError(
        f"{controller.cntlid:#06x} does not hold its state any more",
        cause="it was not suspended any more: it, or its primary, was reset meanwhile",
    )


def moving(pf: OpenPrimary, formats: SupportedStateFormats, secondary: Secondary, peer_cntlid: int) -> Moving:
    """Return what a session remembers of a controller, as it is now."""
    try:
        suspended = state_reader.is_suspended(pf.queue, secondary.cntlid, formats)
    except AdminCommandError:  # some devices tell nothing of a controller that runs
        suspended = False
    return Moving(
        secondary.cntlid, peer_cntlid, secondary.incarnation, secondary.vq, secondary.vi, was_suspended=suspended
    )


def with_idle(pf: OpenPrimary, formats: SupportedStateFormats, controllers: Sequence[Moving]) -> tuple[Moving, ...]:
    """Return controllers with what is known of their I/O queues: whether there are none now."""
    return tuple(replace(controller, idle=_idle(pf, formats, controller.cntlid)) for controller in controllers)


def _idle(pf: OpenPrimary, formats: SupportedStateFormats, cntlid: int) -> bool:
    reader = StateReader(pf.queue, cntlid, min(1, len(formats.versions)), 0)
    try:
        return has_any(reader, reader.header()) is False
    except NvmelmError:  # some devices tell nothing of a controller that runs
        return False


def still_there(pf: OpenPrimary, controllers: Sequence[Moving], boot: str) -> list[Moving]:
    """Return the controllers that are still the ones the session began with; a reboot or new VFs make others."""
    if pf.host.facts().boot_id != boot:
        return []
    picture = pf.picture(users=False)
    incarnations = {secondary.cntlid: secondary.incarnation for secondary in picture.secondaries if secondary.present}
    return [controller for controller in controllers if incarnations.get(controller.cntlid) == controller.incarnation]


def discard(pf: OpenPrimary, controllers: Sequence[Moving], *, touched: bool) -> None:
    """Put targets back: fresh controllers, online with their resources, with nothing of the session in them.

    Args:
        touched: a part of a state may be in them, so they are taken offline, which forgets it; otherwise they were
            suspended at most, and are resumed.

    Raises:
        NvmelmError: it failed; it can be done again.
    """
    if touched:
        each(pf, controllers, lambda controller: _renew(pf, controller))
    else:
        resume(pf, controllers)


def use_up(pf: OpenPrimary, controllers: Sequence[Moving]) -> None:
    """Take the marks of targets back that run now: *resumable* was said of what they were before, and holds once."""
    for controller in controllers:
        marks.revoke(pf.host, pf.address, controller.cntlid)


def take_down(pf: OpenPrimary, controllers: Sequence[Moving]) -> None:
    """Take given-away controllers offline at the source, with their marks.

    Raises:
        NvmelmError: it failed; it can be done again.
    """
    for controller in controllers:
        secondaries.offline(pf, controller.cntlid, of_session=True, confirm=_agreed)


def _agreed(question: str) -> None:
    """Agree: what would be lost here runs elsewhere."""


def _renew(pf: OpenPrimary, controller: Moving) -> None:
    queue = pf.queue
    execute(queue, virtualization.offline(controller.cntlid))
    now = pf.picture(users=False).secondary(controller.cntlid)
    for kind, wanted, has in (
        (ResourceType.VQ, controller.vq, now.vq if now else 0),
        (ResourceType.VI, controller.vi, now.vi if now else 0),
    ):
        if has != wanted:
            execute(queue, virtualization.assign(controller.cntlid, kind, wanted))
    execute(queue, virtualization.online(controller.cntlid))
    if controller.was_suspended:
        running.suspend(queue, controller.cntlid)
