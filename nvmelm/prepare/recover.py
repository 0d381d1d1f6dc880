"""Find what was left unfinished on this host, say what it means, and undo or finish it.

A run without an end in a journal was killed, or lost its machine. Undoing goes from what the host shows now to what
each cell held before the run; finishing goes to what the run wanted. Both are plans like any other, so both can be
looked at first, and done twice without harm. After a reboot there is nothing to undo but attached namespaces: VFs,
overrides and resources are gone with the boot, and the run is closed.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Literal

from nvmelm.documents import Record, Report, about
from nvmelm.errors import InterruptedByUserError, NvmelmError, UncertainError, UsageError
from nvmelm.host import Host
from nvmelm.inventory import suspension
from nvmelm.inventory.find import find_primary, primaries
from nvmelm.inventory.opened import OpenPrimary, open_primary, require_privilege
from nvmelm.inventory.picture import ActionView
from nvmelm.prepare import guards
from nvmelm.prepare.apply import ChangeRequest, Confirm, apply, known, picture_for, undo
from nvmelm.prepare.journal import Journal, JournaledRun, journals
from nvmelm.prepare.plan import plan
from nvmelm.prepare.release import remove_stale_marks
from nvmelm.prepare.sequence import without_running


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished(Record):
    """A run of a verb that did not end by itself."""

    run: str
    verb: str
    primary: str
    started_at: str
    boot: Literal["this", "earlier"]
    meaning: str
    undo: tuple[ActionView, ...]
    finish: tuple[ActionView, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionView(Record):
    """A migration that was cut off, as this host has written it down."""

    session: str = field(metadata=about("32 hexadecimal digits, the same on both hosts"))
    side: Literal["source", "destination"]
    state: str = field(metadata=about("what this host had written when recover began; docs/ownership.md"))
    settled: str | None = field(metadata=about("what it has written now; null: nothing was decided"))
    peer: str = field(metadata=about("where the other host is reached, or empty"))
    peer_state: str | None = field(metadata=about("what the other host has written; null: it could not be asked"))
    primary: str
    cntlids: tuple[int, ...]
    opened_at: str
    meaning: str
    note: str = ""
    reason: str = field(default="", metadata=about("the stable word of why it is undecided, or empty; docs/codes.md"))
    resolved: bool = field(metadata=about("nothing is left to be decided here"))


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoverReport(Report):
    """What was left unfinished on this host, and what was done about it."""

    schema_name = "nvmelm.recover"

    changed: bool
    dry_run: bool
    unfinished: tuple[Unfinished, ...]
    notes: tuple[str, ...] = ()
    sessions: tuple[SessionView, ...] = field(default=(), metadata=about("migrations between two hosts"))


def recover(
    host: Host,
    *,
    finish: bool = False,
    leave: Collection[str] = (),
    confirm: Confirm,
    dry_run: bool = False,
) -> RecoverReport:
    """Undo every unfinished run of this host, or finish it.

    A PF that cannot be recovered does not keep the others from it: they are recovered, then its error is raised.

    Args:
        leave: addresses of PFs that must not be touched: a session between two hosts is undecided there.

    Raises:
        PermissionDeniedError: not root.
        UncertainError: a PF that a journal speaks of is not there, or is another device, so nothing can be said of it.
        NvmelmError: what else kept a PF from being recovered; of several the first, and the others are its notes.
    """
    require_privilege(host)
    recovery = _Recovery(host, finish, confirm, dry_run)
    failures: list[NvmelmError] = []
    for journal in journals(host):
        try:
            runs = journal.unfinished()
            if journal.address in leave and runs:
                recovery.notes.append(
                    f"{journal.address}: {len(runs)} unfinished, left alone beside a session; nvmelm recover again"
                )
                continue
            recovery.of_journal(journal, runs)
        except InterruptedByUserError:
            raise
        except NvmelmError as error:
            failures.append(error)
    if failures:
        raise _with_notes(failures, recovery)
    recovery.notes += _standing_still(host, leave)
    unfinished, notes = tuple(recovery.unfinished), tuple(recovery.notes)
    return RecoverReport(changed=recovery.changed, dry_run=dry_run, unfinished=unfinished, notes=notes)


def _with_notes(failures: list[NvmelmError], recovery: _Recovery) -> NvmelmError:
    """Return the first failure; the others, and what was recovered all the same, are its notes."""
    first, *others = failures
    for note in (*recovery.notes, *(error.message for error in others)):
        first.add_note(note)
    return first


class _Recovery:
    """The recovery of one PF after the other, and what there is to report of it so far."""

    def __init__(self, host: Host, finish: bool, confirm: Confirm, dry_run: bool) -> None:
        self._host = host
        self._finish = finish
        self._confirm = confirm
        self._dry_run = dry_run
        self._boot = host.facts().boot_id
        self.unfinished: list[Unfinished] = []
        self.notes: list[str] = []
        self.changed = False

    def of_journal(self, journal: Journal, runs: list[JournaledRun]) -> None:
        """Recover the runs of one PF.

        Raises:
            UncertainError: the PF is not there; or another device is in its place, whose own runs are recovered.
            NvmelmError: undoing or finishing failed.
        """
        earlier = [run for run in runs if run.boot != self._boot and not run.before(self._boot)]
        self.unfinished += [_of_earlier_boot(journal, run) for run in earlier]
        self._close(journal, earlier)
        later = [run for run in runs if run not in earlier]
        if not later:
            return
        with _opened(self._host, journal, later[0]) as pf:
            ours = [run for run in later if run.serial == pf.ref.serial]
            if ours:
                self._of_device(pf, journal, ours)
            for run in later:
                _require_same_device(pf, journal, run)

    def _of_device(self, pf: OpenPrimary, journal: Journal, runs: list[JournaledRun]) -> None:
        """Undo or finish the runs of the device that is there, the last one first."""
        self.unfinished += [_describe(pf, journal, run) for run in runs]
        needed = "" if self._finish else _needed_by_guests(pf, runs)
        if needed:
            self.notes.append(needed)
            return
        for run in reversed(runs):
            self._of_run(pf, run)
        if not self._dry_run:
            remove_stale_marks(pf)
        self._close(journal, runs)

    def _of_run(self, pf: OpenPrimary, run: JournaledRun) -> None:
        confirm, dry_run = self._confirm, self._dry_run
        if not self._finish:
            undo(pf, run.before(self._boot), f"undo {run.verb}", confirm=confirm, dry_run=dry_run)
            return
        # Journaled like any run: it may touch cells the interrupted one had not come to.
        wanted, _ = without_running(pf, picture_for(pf, run.wanted), run.lasting(self._boot))
        request = ChangeRequest(run.verb, wanted, takes_down=run.verb in guards.TAKE_DOWN)
        apply(pf, request, confirm=confirm, dry_run=dry_run)

    def _close(self, journal: Journal, runs: list[JournaledRun]) -> None:
        if self._dry_run or not runs:
            return
        for run in runs:
            journal.end("done" if self._finish else "recovered", run.run)
        if all(run.outcome in ("recovered", "rolled back") for run in journal.runs()):
            journal.forget()
        self.changed = True
        outcome = "finished" if self._finish else "undone"
        self.notes.append(f"{journal.address}: {len(runs)} unfinished, {outcome} or closed")


def _standing_still(host: Host, leave: Collection[str]) -> Iterator[str]:
    """Name the controllers that are suspended, though nothing that is written down wants them to be."""
    for ref in primaries(host):
        if str(ref.address) in leave:
            continue
        try:
            with open_primary(host, ref) as pf:
                picture = pf.picture(users=False, states=True)
        except NvmelmError as error:
            yield f"{ref.address}: whether its controllers are suspended is not known: {error.message}"
            continue
        if picture.suspension_unknown:
            yield f"{ref.address}: which controllers are suspended is not known: {picture.suspension_unknown}"
        for secondary in picture.secondaries:
            if secondary.suspended:
                fix = f"nvmelm state resume {ref.address} {secondary.cntlid:#06x}, if it is to run here"
                yield f"{ref.address}: {suspension.meaning(secondary)}; {fix}"


def _needed_by_guests(pf: OpenPrimary, runs: list[JournaledRun]) -> str:
    """Say which controllers that run a guest, as far as the sessions tell, would go with the undo; empty: none."""
    guests = guards.running(pf.host, pf.picture(users=False))
    boot = pf.host.facts().boot_id
    for run in runs if guests else []:
        before = run.before(boot)
        picture = picture_for(pf, before)
        lost = sorted(guards.touched(picture, plan(picture, known(picture, before))) & guests.keys())
        if lost:
            names = ", ".join(f"{cntlid:#06x}" for cntlid in lost)
            return (
                f"{pf.address}: {run.verb} is not undone: {names} runs a guest here as far as session "
                f"{guests[lost[0]].id} tells; nvmelm recover --finish completes it, nvmelm release undoes it"
            )
    return ""


def _opened(host: Host, journal: Journal, run: JournaledRun) -> AbstractContextManager[OpenPrimary]:
    try:
        return open_primary(host, find_primary(host, journal.address), change=True)
    except UsageError as error:
        cause = "the journal speaks of it, but the host shows no such function driven by the nvme driver"
        fix = f"bind {journal.address} to the nvme driver again; if it is gone for good: {_forgetting(journal, run)}"
        raise UncertainError(f"{journal.address} is not there", cause=cause, fix=fix) from error


def _require_same_device(pf: OpenPrimary, journal: Journal, run: JournaledRun) -> None:
    if run.serial != pf.ref.serial:
        cause = f"the journal was written for serial {run.serial}; {pf.ref.serial} is there now"
        fix = f"put the old device back, and recover; if it is gone for good: {_forgetting(journal, run)}"
        raise UncertainError(f"{pf.address} is another device", cause=cause, fix=fix)


def _forgetting(journal: Journal, run: JournaledRun) -> str:
    """Return the command that removes one run from a journal, which holds those of other devices as well."""
    lines = f'/"run":"{re.escape(run.run)}"/d'
    return f"sed -i {shlex.quote(lines)} {shlex.quote(str(journal.path))}"


def _describe(pf: OpenPrimary, journal: Journal, run: JournaledRun) -> Unfinished:
    boot = pf.host.facts().boot_id
    before = run.before(boot)
    picture = picture_for(pf, before | run.wanted)
    return Unfinished(
        run=run.run,
        verb=run.verb,
        primary=journal.address,
        started_at=run.started_at,
        boot="this" if run.boot == boot else "earlier",
        meaning=f"{run.verb} on {journal.address} stopped {_where(run)}",
        undo=tuple(action.view() for action in plan(picture, known(picture, before))),
        finish=tuple(action.view() for action in plan(picture, run.lasting(boot))),
    )


def _where(run: JournaledRun) -> str:
    """Return where a run was cut off: the journal knows what was begun, and of what was begun together no order."""
    if not run.begun_last:
        return "before its first change"
    first, *others = run.begun_last
    together = f", or at one of the {len(others)} begun with it" if others else ""
    return f"at or after: {first}{together}"


def _of_earlier_boot(journal: Journal, run: JournaledRun) -> Unfinished:
    return Unfinished(
        run=run.run,
        verb=run.verb,
        primary=journal.address,
        started_at=run.started_at,
        boot="earlier",
        meaning=f"{run.verb} on {journal.address} was cut off by a reboot, which undid it",
        undo=(),
        finish=(),
    )
