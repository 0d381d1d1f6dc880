"""Carry a plan out: confirmed, journaled, action by action, verified at the end, and put back when it fails.

The order of one run::

    picture -> plan -> ask -> journal "run" -> (journal "begin" of a phase -> do the phase) ... -> verify -> "end"

A failure anywhere in between plans the way back from what the host shows then to what it showed at the start.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypeVar

from nvmelm import pci
from nvmelm.commands import execute
from nvmelm.errors import (
    BusyError,
    ExitCode,
    HostError,
    InterruptedByUserError,
    MalformedError,
    NotSupportedError,
    NvmelmError,
    RolledBackError,
    TimedOutError,
    UncertainError,
    unexpected,
)
from nvmelm.operations import guards, marks, parallel
from nvmelm.operations.interrupts import begin, let_go
from nvmelm.operations.journal import Journal
from nvmelm.operations.plan import (
    Action,
    Cells,
    MarkChange,
    Operation,
    Phase,
    SysfsWrite,
    differences,
    driver_bind_path,
    plan,
)
from nvmelm.operations.session import Session
from nvmelm.picture import ChangeReport, Picture, Secondary
from nvmelm.transport import AdminCommand
from nvmelm.waiting import wait_until

#: The kernel waits 0.1 s when it enables VFs and 1 s when it disables them; slow devices take longer.
_VFS_DEADLINE_S = 30.0
#: How long a process that holds a VF gets to let go of it after the operator agreed.
_IDLE_DEADLINE_S = 60.0

#: The kernel waits 100 ms for each reset, and works while it binds: 32 VFs take 0.3 s and 0.07 s so, in the lab.
_RESETTING_THREADS, _BINDING_THREADS = 32, 8

T = TypeVar("T")
Confirm = Callable[[str], None]
"""Asks the operator; returns when the answer is yes and raises otherwise."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a verb wants of a controlling function.

    Attributes:
        target: the cells it wants.
        valid_s: seconds a mark given by it stays valid, or None for no expiry.
        notes: what the operator should know besides, as sentences.
        risks: what he has to agree to, besides what the plan itself would lose.
        of_session: a session between two hosts asks this for its own controllers; others are refused them.
    """

    verb: str
    target: Cells
    valid_s: int | None = None
    notes: tuple[str, ...] = ()
    risks: tuple[str, ...] = ()
    of_session: bool = False


def apply(
    session: Session, request: Request, *, picture: Picture | None = None, confirm: Confirm, dry_run: bool = False
) -> ChangeReport:
    """Bring a controlling function to the wanted cells, or show how that would be done.

    Args:
        picture: the function as the caller has just read it, if it has.

    Raises:
        BusyError: a VF that must be idle is in use and the operator did not agree to take it; or a controller is in
            a session that is not over.
        AdminCommandError, HostError, TimedOutError, …: it failed; ``rolled_back`` says that all was put back.
        RolledBackError: it failed for a reason without an exit code of its own, and all was put back.
        UncertainError: it failed and so did the way back; the journal knows what is left.
    """
    picture = picture or session.picture(users=False)
    actions = plan(picture, request.target)
    if not request.of_session:
        guards.require_free_to(session.host, picture, actions)
    if dry_run:
        return _report(session, request, actions, picture, dry_run=True)
    journal = Journal(session.host, session.address)
    if not actions:
        journal.supersede(request.target)
        return _report(session, request, actions, picture)
    picture = _ask(session, picture, actions, request.risks, confirm)
    journal.begin(request.verb, session.ref.serial, request.target)
    try:
        done = _converge(session, request, actions, picture, journal)
    except (Exception, KeyboardInterrupt) as error:  # whatever it is: something was changed
        raise _put_back(session, journal, error) from error
    journal.end("done")
    removed = any(change.cell == "vfs" and change.before for action in actions for change in action.changes)
    journal.supersede(request.target, anew=removed)
    return _report(session, request, actions, done, changed=True)


def undo(session: Session, target: Cells, verb: str, *, confirm: Confirm, dry_run: bool = False) -> ChangeReport:
    """Bring back earlier cells; the caller then closes or forgets the journal.

    Unlike :func:`apply` it writes no new run: the journal that is being undone already holds every earlier value. The
    errors are those of :func:`apply`.
    """
    picture = session.picture(users=False)
    request = Request(verb, known(picture, target))
    actions = plan(picture, request.target)
    guards.require_free_to(session.host, picture, actions)
    if dry_run or not actions:
        return _report(session, request, actions, picture, dry_run=dry_run)
    picture = _ask(session, picture, actions, (), confirm)
    done = _converge(session, request, actions, picture, None)
    return _report(session, request, actions, done, changed=True)


def known(picture: Picture, target: Cells) -> Cells:
    """Leave out cells of functions the device does not list any more; a mark is never brought back, only given."""
    names = {f"{one.cntlid:#06x}" for one in picture.secondaries}
    kept = {key: value for key, value in target.items() if "/" not in key or key.split("/")[0] in names}
    return {key: None if key.endswith("/mark") else value for key, value in kept.items()}


def _converge(
    session: Session, request: Request, actions: list[Action], picture: Picture, journal: Journal | None
) -> Picture:
    """Do the actions, look again, and do once more what a side effect of the host or device took back."""
    for _ in range(2):
        for phase, group in groupby(actions, key=lambda action: action.phase):
            batch = list(group)
            if journal is not None:
                journal.intend(batch)
            _Executor(session, request, picture).phase(phase, batch)
        picture = session.picture(users=False)
        missing = differences(picture, request.target)
        if not missing:
            return picture
        actions = plan(picture, request.target)
    names = ", ".join(f"{one.cell} is {one.before!r} instead of {one.after!r}" for one in missing[:4])
    raise NvmelmError("the host does not show what was done", cause=names, fix="nvmelm show PF, and dmesg")


def _put_back(session: Session, journal: Journal, error: Exception | KeyboardInterrupt) -> NvmelmError:
    """Undo the run that just failed and return the error to end with."""
    let_go(error)
    failure = InterruptedByUserError("interrupted") if isinstance(error, KeyboardInterrupt) else unexpected(error)
    run = journal.runs()[-1]
    try:
        picture = session.picture()
        before = known(picture, run.before())
        _converge(session, Request(f"undo {run.verb}", before), plan(picture, before), picture, None)
        journal.end("rolled back")
        if not journal.unfinished() and all(one.outcome == "rolled back" for one in journal.runs()):
            journal.forget()
    except (NvmelmError, KeyboardInterrupt) as second:
        fix = "nvmelm recover, once what is named here is repaired"
        uncertain = UncertainError(f"{failure.message}; putting it back failed too", cause=failure.cause, fix=fix)
        reason = second.message if isinstance(second, NvmelmError) else "interrupted"
        uncertain.add_note(f"while putting it back: {reason}")
        return uncertain
    if failure.exit_code is ExitCode.FAILED:
        fix, cause = failure.fix, failure.cause
        failure = RolledBackError(f"{failure.message}; everything was put back", cause=cause, fix=fix)
    failure.rolled_back = True
    return failure


def _ask(session: Session, picture: Picture, actions: list[Action], risks: Sequence[str], confirm: Confirm) -> Picture:
    """Name every user and every loss, go on only when the operator agrees, and return the picture with its users."""
    idle = {cntlid for action in actions for cntlid in action.needs_idle}
    if idle:
        picture = session.picture()
    users = [f"{one.address}: {user}" for one in picture.secondaries if one.cntlid in idle for user in one.used_by]
    losses = [*risks, *(action.loses for action in actions if action.loses)]
    if users:
        try:
            confirm(f"{'; '.join(users)}. Take it away from them?")
        except NvmelmError as error:
            cause = "; ".join(users)
            fix = "stop what uses it, or say --yes to take it away"
            raise BusyError("a VF that would be taken away is in use", cause=cause, fix=fix) from error
    elif losses:
        confirm(f"{'; '.join(losses)}. Go on?")
    return picture


def _report(
    session: Session,
    request: Request,
    actions: list[Action],
    picture: Picture,
    *,
    changed: bool = False,
    dry_run: bool = False,
) -> ChangeReport:
    return ChangeReport(
        verb=request.verb,
        primary=session.address,
        dry_run=dry_run,
        changed=changed,
        actions=tuple(action.view(exact=not changed) for action in actions),
        notes=request.notes,
        picture=picture,
    )


class _Executor:
    """Does the operations of one phase on a host, and checks that each took effect."""

    def __init__(self, session: Session, request: Request, picture: Picture) -> None:
        self.session = session
        self.host = session.host
        self.request = request
        self.picture = picture  # as it was when the actions were planned

    def phase(self, phase: Phase, actions: list[Action]) -> None:
        if phase is Phase.RESET:
            self._reset(actions)
            return
        if phase is Phase.MARK:
            self._mark(actions)
            return
        if phase is Phase.BIND:
            self._load_drivers(actions)
            self._each(self._bind, actions, threads=_BINDING_THREADS)
            return
        for action in actions:
            if phase in (Phase.VFS, Phase.UNBIND):
                self._take_away(action)
            else:
                for operation in action.operations:
                    self._do(operation)

    def _do(self, operation: Operation) -> None:
        if isinstance(operation, SysfsWrite):
            self.host.sysfs.write(operation.path, operation.value)
        elif isinstance(operation, MarkChange):
            marks.revoke(self.host, self.session.address, operation.cntlid)
        else:
            self._command(operation)

    def _command(self, command: AdminCommand) -> None:
        modified = execute(self.session.queue, command).result & 0xFFFF
        if "Assign" in command.name and modified != command.cdw11 & 0xFFFF:
            cause = f"it reports {modified} modified instead of {command.cdw11 & 0xFFFF}"
            raise MalformedError("the controller assigned another number of resources", cause=cause)

    def _reset(self, actions: list[Action]) -> None:
        """Reset the functions, all at once where the kernel lets us: it waits 100 ms for each."""
        writes = [one for action in actions for one in action.operations if isinstance(one, SysfsWrite)]
        usable = [one for one in writes if self.host.sysfs.exists(one.path)]
        self._each(self._do, usable, threads=_RESETTING_THREADS)

    def _each(self, do: Callable[[T], None], items: Sequence[T], *, threads: int) -> None:
        """Do something for each function: at once on a host where that saves time, else one after the other."""
        if self.host.serial or len(items) == 1:
            for item in items:
                do(item)
        else:
            parallel.each(do, items, threads=threads)

    def _mark(self, actions: list[Action]) -> None:
        """Verify the facts as they are now, then give the marks."""
        picture = self.session.picture(users=False)
        for action in actions:
            for change in action.operations:
                one = picture.secondary(change.cntlid) if isinstance(change, MarkChange) else None
                if one is not None and isinstance(change, MarkChange) and change.role is not None:
                    marks.verify(picture, one)
                    marks.give(self.host, picture, one, change.role, valid_s=self.request.valid_s)

    def _take_away(self, action: Action) -> None:
        """Write what makes functions disappear or lose their driver; the kernel blocks it while a process holds one."""
        held = [one for one in self.picture.secondaries if one.cntlid in action.needs_idle and one.vfio_node]
        if held:
            self._wait_idle(held)
        for operation in action.operations:
            if isinstance(operation, SysfsWrite) and held and self.host.kind == "local":
                _bounded(operation, self._do, action.summary)
            else:
                self._do(operation)
        if action.phase is Phase.VFS:
            self._wait_for_vfs(next(int(change.after or 0) for change in action.changes if change.cell == "vfs"))

    def _wait_idle(self, held: list[Secondary]) -> None:
        nodes = [str(one.vfio_node).removeprefix("/dev/") for one in held]
        held = [one for one in held if one.used_by] or held
        users = [user for one in held for user in one.used_by]
        names = ", ".join(str(one.address) for one in held)
        what = f"{names} to be let go of" + (f" ({', '.join(users)})" if users else "")
        fix = "stop the VM, or nvmelm vm detach"
        wait_until(lambda: not self.host.openers(nodes), what, deadline_s=_IDLE_DEADLINE_S, fix=fix)

    def _wait_for_vfs(self, wanted: int) -> None:
        address = self.session.ref.address
        what = f"{wanted} VFs to appear below {address}"
        sysfs = self.host.sysfs
        wait_until(lambda: pci.count_virtual_functions(sysfs, address) == wanted, what, deadline_s=_VFS_DEADLINE_S)

    def _load_drivers(self, actions: list[Action]) -> None:
        wanted = {change.after for action in actions for change in action.changes if change.cell.endswith("/driver")}
        if pci.VFIO_DRIVER in wanted and not self.host.sysfs.exists(f"{pci.DRIVERS}/{pci.VFIO_DRIVER}"):
            self.host.load_module(pci.VFIO_DRIVER)

    def _bind(self, action: Action) -> None:
        bound = [change for change in action.changes if change.cell.endswith("/driver")]
        writes = [one for one in action.operations if isinstance(one, SysfsWrite)]
        for number, write in enumerate(writes):
            self._do(write)
            if bound and number == 1:
                self._check_bound(pci.Bdf.parse(write.value), str(bound[0].after))

    def _check_bound(self, function: pci.Bdf, driver: str) -> None:
        """Believe the driver link only: drivers_probe reports success whether anything was bound or not."""
        if pci.driver(self.host.sysfs, function) == driver:
            return
        if driver == pci.VFIO_DRIVER and pci.iommu_group(self.host.sysfs, function) is None:
            cause = "it is in no IOMMU group: the IOMMU is off or absent, and a VM's DMA could reach all memory"
            fix = "switch the IOMMU on in the firmware and on the kernel command line; nvmelm host check tells which"
            raise NotSupportedError(f"{function} cannot be bound to {driver}", cause=cause, fix=fix, reason="no-iommu")
        self.host.sysfs.write(driver_bind_path(driver), str(function))  # this one reports the probe's errno
        if pci.driver(self.host.sysfs, function) != driver:
            message = f"{function} was not bound to {driver}"
            raise HostError(message, path=function.path, cause="the kernel gave no reason", fix="dmesg | tail")


def _bounded(write: SysfsWrite, do: Callable[[Operation], None], what: str) -> None:
    """Do a write the kernel may block, and stop waiting for it at a deadline."""
    failures: list[NvmelmError] = []

    def attempt() -> None:
        try:
            do(write)
        except NvmelmError as error:
            failures.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    begin(thread)
    thread.join(_IDLE_DEADLINE_S)
    if thread.is_alive():
        cause = "a process holds a function open, and the kernel waits for it"
        raise TimedOutError(
            f"waited {_IDLE_DEADLINE_S:g} s in vain to {what}", cause=cause, fix="stop the VM that has it"
        )
    if failures:
        raise failures[0]
