"""Carry a plan out: confirmed, journaled, action by action, verified at the end, and put back when it fails.

The order of one run::

    picture -> plan -> ask -> journal "run" -> (journal "begin" of a phase -> do the phase) ... -> verify -> "end"

A failure anywhere in between plans the way back from what the host shows then to what it showed at the start.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from nvmelm.errors import (
    BusyError,
    ExitCode,
    InterruptedByUserError,
    NvmelmError,
    RolledBackError,
    UncertainError,
    origin,
    unexpected,
)
from nvmelm.inventory.opened import OpenPrimary
from nvmelm.inventory.picture import ChangeReport, Picture
from nvmelm.prepare import guards, sanity
from nvmelm.prepare.actions import Action, VfWrite
from nvmelm.prepare.cells import VFS, Cell, CellName, Cells, namespaces_wanted
from nvmelm.prepare.executor import Executor
from nvmelm.prepare.journal import Journal
from nvmelm.prepare.kept import HeldLock
from nvmelm.prepare.plan import differences, plan
from nvmelm.process.interrupts import let_go

Confirm = Callable[[str], None]
"""Asks the operator; returns when the answer is yes and raises otherwise."""


@dataclass(frozen=True, slots=True)
class ChangeRequest:
    """What a verb wants of a controlling function.

    Attributes:
        wanted: the cells it wants.
        notes: what the operator should know besides, as sentences.
        risks: what he has to agree to, besides what the plan itself would lose.
        takes_down: to take controllers down is what the verb is for: it asks, and names their guests. Others are
            refused controllers that run a guest.
        of_session: a session between two hosts asks this for its own controllers; others are refused them.
    """

    verb: str
    wanted: Cells
    notes: tuple[str, ...] = ()
    risks: tuple[str, ...] = ()
    takes_down: bool = False
    of_session: bool = False


def apply(
    pf: OpenPrimary, request: ChangeRequest, *, picture: Picture | None = None, confirm: Confirm, dry_run: bool = False
) -> ChangeReport:
    """Bring a controlling function to the wanted cells, or show how that would be done.

    Args:
        picture: the function as the caller has just read it, if it has, with the namespaces that are wanted.

    Raises:
        BusyError: a VF that must be idle is in use and the operator did not agree to take it; or a controller is in
            a session that is not over, or runs a guest that was moved here.
        MalformedError: the device's answers contradict each other, so it is not known what would be changed.
        AdminCommandError, HostError, TimedOutError, …: it failed; ``rolled_back`` says that all was put back.
        RolledBackError: it failed for a reason without an exit code of its own, and all was put back.
        UncertainError: it failed and so did the way back; the journal knows what is left.
    """
    picture = picture or picture_for(pf, request.wanted)
    sanity.require_sense(picture)
    actions = plan(picture, request.wanted)
    if not request.of_session:
        guards.require_free_to(pf.host, picture, actions)
        request = _with_guests(pf, request, picture, actions)
    if dry_run:
        return _report(pf, _with_losses(request, actions), actions, picture, dry_run=True)
    journal = Journal(pf.host, pf.address, pf.ref.serial)
    if not actions:
        journal.supersede(request.wanted)
        return _report(pf, request, actions, _with_states(pf, request, picture))
    picture = _ask(pf, picture, actions, request.risks, confirm)
    lock = HeldLock(pf.host, pf.address)
    journal.begin(request.verb, pf.ref.serial, request.wanted)
    try:
        done = _with_states(pf, request, _converge(pf, request, actions, picture, journal, lock))
    except (Exception, KeyboardInterrupt) as error:  # whatever it is: something was changed
        failure = _put_back(pf, journal, error)
        raise failure from origin(failure, error)
    journal.end("done")
    removed = any(change.cell == VFS and change.before for action in actions for change in action.changes)
    journal.supersede(request.wanted, anew=removed)
    return _report(pf, request, actions, done, changed=True)


def undo(pf: OpenPrimary, wanted: Cells, verb: str, *, confirm: Confirm, dry_run: bool = False) -> ChangeReport:
    """Bring back earlier cells; the caller then closes or forgets the journal.

    Unlike :func:`apply` it writes no new run: the journal that is being undone already holds every earlier value. The
    errors are those of :func:`apply`.
    """
    picture = picture_for(pf, wanted)
    sanity.require_sense(picture)
    request = ChangeRequest(verb, known(picture, wanted), takes_down=True)
    actions = plan(picture, request.wanted)
    guards.require_free_to(pf.host, picture, actions)
    request = _with_guests(pf, request, picture, actions)
    if dry_run or not actions:
        return _report(pf, _with_losses(request, actions), actions, picture, dry_run=dry_run)
    picture = _ask(pf, picture, actions, request.risks, confirm)
    lock = HeldLock(pf.host, pf.address)
    done = _with_states(pf, request, _converge(pf, request, actions, picture, None, lock))
    return _report(pf, request, actions, done, changed=True)


def picture_for(pf: OpenPrimary, wanted: Cells) -> Picture:
    """Return what a host shows, with the namespaces of every controller of whose namespaces the cells speak."""
    return pf.picture(users=False, namespaces=namespaces_wanted(wanted))


def known(picture: Picture, wanted: Cells) -> Cells:
    """Leave out cells of functions the device does not list any more; a mark is never brought back, only given.

    The end of a mark that stays is brought back; one that goes takes its end along.
    """
    listed = {None, *(secondary.cntlid for secondary in picture.secondaries)}
    kept = {cell: value for cell, value in wanted.items() if cell.cntlid in listed}
    ends = {cell for cell in kept if cell.name is CellName.VALID_S and Cell(cell.cntlid, CellName.MARK) in kept}
    return {cell: None if cell.name is CellName.MARK else value for cell, value in kept.items() if cell not in ends}


def _converge(
    pf: OpenPrimary,
    request: ChangeRequest,
    actions: list[Action],
    picture: Picture,
    journal: Journal | None,
    lock: HeldLock | None = None,
) -> Picture:
    """Do the actions, look again, and do once more what a side effect of the host or device took back.

    Args:
        lock: must be the one of the beginning before each phase; None on the way back, for which the others wait.
    """
    for _ in range(2):
        for phase, group in groupby(actions, key=lambda action: action.phase):
            batch = list(group)
            if lock is not None:
                lock.require_same()
            if journal is not None:
                journal.intend(batch)
            Executor(pf, picture).phase(phase, batch)
        picture = picture_for(pf, request.wanted)
        missing = differences(picture, request.wanted)
        if not missing:
            return picture
        actions = plan(picture, request.wanted)
    names = ", ".join(f"{change.cell} is {change.before!r} instead of {change.after!r}" for change in missing[:4])
    raise NvmelmError("the host does not show what was done", cause=names, fix="nvmelm show PF, and dmesg")


def _put_back(pf: OpenPrimary, journal: Journal, error: Exception | KeyboardInterrupt) -> NvmelmError:
    """Undo the run that just failed and return the error to end with."""
    let_go(error)
    failure = InterruptedByUserError("interrupted") if isinstance(error, KeyboardInterrupt) else unexpected(error)
    run = journal.runs()[-1]
    try:
        picture = pf.picture(namespaces=namespaces_wanted(run.before()))
        before = known(picture, run.before())
        _converge(pf, ChangeRequest(f"undo {run.verb}", before), plan(picture, before), picture, None)
        journal.end("rolled back")
        if not journal.unfinished() and all(run.outcome == "rolled back" for run in journal.runs()):
            journal.forget()
    except (NvmelmError, KeyboardInterrupt) as second:
        fix = "nvmelm recover, once what is named here is repaired"
        uncertain = UncertainError(f"{failure.message}; putting it back failed too", cause=failure.cause, fix=fix)
        reason = second.message if isinstance(second, NvmelmError) else "interrupted"
        uncertain.add_note(f"while putting it back: {reason}")
        return uncertain
    if failure.exit_code is ExitCode.FAILED:
        fix, cause = failure.fix, failure.cause
        failure = RolledBackError(
            f"{failure.message}; everything was put back", cause=cause, fix=fix, reason=failure.reason
        )
    if isinstance(failure, InterruptedByUserError):
        undone = "; ".join(run.summaries) or "nothing had been changed"
        failure = InterruptedByUserError("interrupted", cause=f"Ctrl-C; undone: {undone}", fix="run it again")
    failure.rolled_back = True
    return failure


def _with_losses(request: ChangeRequest, actions: list[Action]) -> ChangeRequest:
    """Return the request of a dry run, which tells what would be asked."""
    losses = tuple(action.loses for action in actions if action.loses)
    return replace(request, notes=(*request.notes, *request.risks, *losses))


def _with_guests(pf: OpenPrimary, request: ChangeRequest, picture: Picture, actions: list[Action]) -> ChangeRequest:
    """Return a request that asks about the guests that would lose their controllers, if it may ask for that at all."""
    guests = guards.lost(pf.host, picture, actions)
    if not request.takes_down:
        guards.require_no_guests(picture, guests)
    return replace(request, risks=(*request.risks, *(guards.guest_of(*guest) for guest in guests.items())))


def _ask(pf: OpenPrimary, picture: Picture, actions: list[Action], risks: Sequence[str], confirm: Confirm) -> Picture:
    """Name every user and every loss, go on only when the operator agrees, and return the picture with its users."""
    idle = {cntlid for action in actions for cntlid in action.needs_idle}
    if idle:
        picture = pf.picture()
    users = [
        f"{secondary.address}: {user}"
        for secondary in picture.secondaries
        if secondary.cntlid in idle
        for user in secondary.used_by
    ]
    losses = [*risks, *(action.loses for action in actions if action.loses)]
    if users:
        try:
            confirm(f"{'; '.join((*risks, *users))}. Take it away from them?")
        except NvmelmError as error:
            cause = "; ".join(users)
            fix = "stop what uses it, or say --yes to take it away"
            raise BusyError("a VF that would be taken away is in use", cause=cause, fix=fix) from error
    elif losses:
        confirm(f"{'; '.join(losses)}. Go on?")
    return picture


def _report(
    pf: OpenPrimary,
    request: ChangeRequest,
    actions: list[Action],
    picture: Picture,
    *,
    changed: bool = False,
    dry_run: bool = False,
) -> ChangeReport:
    return ChangeReport(
        verb=request.verb,
        primary=pf.address,
        dry_run=dry_run,
        changed=changed,
        actions=tuple(action.view(exact=not changed) for action in actions),
        notes=(*request.notes, *_of_addresses(pf, actions)) if dry_run else request.notes,
        picture=picture,
    )


def _of_addresses(pf: OpenPrimary, actions: Sequence[Action]) -> tuple[str, ...]:
    """Say of a plan that makes VFs that nobody can know their addresses yet."""
    unknown = any(
        isinstance(operation, VfWrite) and not operation.seen for action in actions for operation in action.operations
    )
    link = f"/sys/{pf.ref.address.path}/virtfnN"
    text = f"the addresses of the VFs are known once they exist: the device may choose them by their number; {link}"
    return (text,) if unknown else ()


def _with_states(pf: OpenPrimary, request: ChangeRequest, picture: Picture) -> Picture:
    """Return a picture with which controllers are suspended; what was done is done, even if they cannot be asked."""
    if request.of_session:
        return picture
    try:
        return pf.with_states(picture)
    except NvmelmError as error:
        return replace(picture, suspension_unknown=error.message)
