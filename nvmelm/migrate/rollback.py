"""A migration that failed before the give-away: the source runs again first, then everybody else is told."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass

from nvmelm.errors import (
    ExitCode,
    InterruptedByUserError,
    LinkLostError,
    MalformedError,
    NvmelmError,
    RecordInDoubtError,
    RemoteError,
    RolledBackError,
    UncertainError,
    unexpected,
)
from nvmelm.migrate import controllers
from nvmelm.migrate.callouts.points import Point
from nvmelm.migrate.end import End, Ledger
from nvmelm.migrate.link import messages
from nvmelm.migrate.link.frames import Link
from nvmelm.migrate.link.messages import send
from nvmelm.migrate.recovery.asking import ask_other_host
from nvmelm.migrate.recovery.standing import DRIVEN, Standing, look, not_whole
from nvmelm.migrate.request import Measured
from nvmelm.migrate.standstill import Standstill
from nvmelm.ownership.sessions import SessionRecord, State
from nvmelm.process.interrupts import OutOfTimeError, let_go

#: How long the destination gets to put itself back; the guest runs again by then.
_ABORT_S = 60.0
#: How long what is being sent may still take before the link is cut.
_LAST_WORDS_S = 5.0
#: How much of what was on its way is looked through for the destination's own reason.
_MAX_LATE_MESSAGES = 64
_LINK_FIX = "look at the network and the destination; try again"
#: What a failure that was put back is no more than: the others say what the device or the other host cannot.
_PUT_BACK = (
    ExitCode.FAILED,
    ExitCode.NOT_READY,
    ExitCode.INTERRUPTED,
    ExitCode.ROLLED_BACK,
    ExitCode.UNCERTAIN,
)


@dataclass(frozen=True, slots=True)
class Begun:
    """A migration that is to be undone, on the source's side.

    Attributes:
        ledger: what is written of it; no record: nothing was begun.
        held_there: the destination may hold every state.
    """

    end: End
    ledger: Ledger
    standstill: Standstill
    measured: Measured
    held_there: bool


def roll_back(source: Begun, error: Exception | KeyboardInterrupt) -> NvmelmError:
    """Resume the source's controllers, write that down, have the destination put back, and return how to end.

    Returns:
        The error that caused it, with its own exit code 3 to 7, or a RolledBackError; an UncertainError when the
        controllers were given away after all, could not be resumed, or were reset meanwhile.
    """
    let_go(error)
    source.end.link.hurry(_LAST_WORDS_S)
    if isinstance(error, OutOfTimeError):
        failure = source.standstill.out_of_time(held_there=source.held_there)
    else:
        failure = _reason(source.end.link, error)
    if source.ledger.record is None:
        with suppress(LinkLostError):
            send(source.end.link, messages.Bye())
        return failure
    record = source.ledger.read_again()
    if record.state is State.GIVEN_AWAY:
        return UncertainError(
            f"session {record.id}: given away, and then: {failure.message}",
            cause=failure.cause,
            fix="nvmelm recover, on either host",
            reason="session-uncertain",
        )
    notes: list[str] = []
    unsuspended: list[str] = []
    stood_still = 0.0
    if isinstance(failure, RecordInDoubtError) and source.standstill.since is not None:
        # The give-away may be on the disk. Running again has to be there first, or a crash would bring that back.
        try:
            source.ledger.move(State.ROLLING_BACK, failure.message[:500])
        except NvmelmError as second:
            return _not_resumed(record, failure, second)
    if source.standstill.since is not None:
        try:
            unsuspended = controllers.resume(source.end.pf, record.controllers)
        except Exception as second:  # whatever it is, an operator must know
            return _not_resumed(record, failure, unexpected(second))
        source.measured.downtime_s = stood_still = source.standstill.seconds() or 0.0
    lost = _lost(source) if unsuspended else ""
    if lost and source.held_there:
        uncertain = _only_copy_there(source, failure)
        if uncertain is not None:
            return uncertain
    try:
        source.ledger.move(State.ROLLED_BACK, failure.message[:500])
    except NvmelmError as second:
        notes.append(f"that it was rolled back could not be written: {second.message}; nvmelm recover here")
    notes += source.end.points.report(Point.ROLLED_BACK)
    if not _abort(source.end.link, failure) and not _told_again(source):
        notes.append("the destination may still hold its targets suspended: nvmelm recover there, or here")
    return _ending(failure, stood_still, [*(unsuspended if lost else []), *notes], lost)


def _reason(link: Link, error: Exception | KeyboardInterrupt) -> NvmelmError:
    """Return why it failed: of a link that was cut, the destination's last words when there are any."""
    if isinstance(error, KeyboardInterrupt):
        return InterruptedByUserError("interrupted", cause="Ctrl-C, or a signal that asks to end", reason="interrupted")
    if not isinstance(error, NvmelmError):
        return unexpected(error)
    if isinstance(error, LinkLostError):
        with suppress(LinkLostError, MalformedError):
            for _ in range(_MAX_LATE_MESSAGES):
                if not link.pending():
                    break
                frame = link.receive(deadline_s=1.0)
                message = messages.parse(frame, link.peer) if frame is not None else None
                if isinstance(message, messages.Failed):
                    return messages.remote_error(message, link.peer)
    return error


def _not_resumed(record: SessionRecord, failure: NvmelmError, second: NvmelmError) -> UncertainError:
    uncertain = UncertainError(
        f"{failure.message}; then {record.names} could not be resumed: {second.message}",
        cause=f"{failure.cause}; {second.cause}".strip("; "),
        fix="nvmelm recover, once what is named here is repaired; the destination does not run them",
        reason="not-resumed",
    )
    uncertain.add_note(f"session {record.id} is {record.state} here")
    return uncertain


def _abort(link: Link, failure: NvmelmError) -> bool:
    """Have the destination put itself back; return whether it has."""
    deadline = time.monotonic() + _ABORT_S
    with suppress(LinkLostError, MalformedError):
        if not isinstance(failure, RemoteError):
            send(link, messages.Abort(why=failure.message[:4096]))
        while (left := deadline - time.monotonic()) > 0:
            frame = link.receive(deadline_s=left)
            message = messages.parse(frame, link.peer) if frame is not None else None
            if isinstance(message, messages.Aborted | messages.Failed):
                return isinstance(message, messages.Aborted)
    return False


def _told_again(source: Begun) -> bool:
    """Tell the destination over a new link; return whether it has put itself back."""
    if source.end.reconnect is None or not source.ledger.known.over:
        return False
    source.end.link.close()  # who still waits there for the rest of a frame holds the PF until it sees the end
    with suppress(NvmelmError), source.end.reconnect() as link:
        settled = ask_other_host(link, source.ledger.known, source.end.name)
        return settled.state in (State.ABANDONED, None)  # None: it had not begun
    return False


def _lost(source: Begun) -> str:
    """Return how controllers stand that were not suspended any more when they were to be resumed.

    Empty: a suspend that failed, or was never sent, left them running.
    """
    try:
        picture = source.end.pf.picture(users=False)
    except NvmelmError as error:
        return f"whether they run is not known: {error.message}"
    online = {secondary.cntlid for secondary in picture.secondaries if secondary.present and secondary.online}
    offline = [
        f"{controller.cntlid:#06x}" for controller in source.ledger.known.controllers if controller.cntlid not in online
    ]
    if offline:
        return f"offline now: {', '.join(offline)}"
    return "a guest has to start its controller again" if source.measured.drain_s else ""


def _only_copy_there(source: Begun, failure: NvmelmError) -> UncertainError | None:
    """Return the error of a source that was reset when the destination may have held every state; None: it runs.

    Nothing is written and nothing is said to the destination then, which stands still without a word of the source: its
    copy may be the only one. Whether it has every state is known there only: that it says so can be lost on the way.
    """
    record = source.ledger.known
    try:
        stand = look(source.end.pf, record)
    except NvmelmError:
        stand = {controller.cntlid: Standing.UNTOLD for controller in record.controllers}
    if {*stand.values()} <= DRIVEN:
        return None
    reason = not_whole(record, stand)
    uncertain = UncertainError(
        f"{failure.message}; then {reason.message}",
        cause=f"{failure.cause}; {reason.cause}".strip("; "),
        fix=reason.fix,
        reason=reason.reason,
    )
    uncertain.add_note(f"session {record.id} is {record.state} here")
    return uncertain


def _ending(failure: NvmelmError, stood_still_s: float, notes: list[str], lost: str) -> NvmelmError:
    ended = failure
    if lost:
        ended = UncertainError(
            f"{failure.message}; the source's controllers were reset meanwhile, and do not run as before; {lost}",
            cause=failure.cause,
            fix="nvmelm secondary online PF CNTLID, where it is offline; then the guest's driver, or the guest, anew",
            reason="source-reset",
        )
    elif failure.exit_code in _PUT_BACK:
        ended = RolledBackError(
            f"{failure.message}; the source runs as before",
            cause=failure.cause,
            fix=_LINK_FIX if isinstance(failure, LinkLostError) else failure.fix,
            reason=failure.reason,
        )
    if ended is not failure:
        for note in getattr(failure, "__notes__", ()):
            ended.add_note(note)
    ended.rolled_back = not lost
    ended.add_note(
        f"the guest stood still for {stood_still_s * 1000:.1f} ms" if stood_still_s else "the guest was not stopped"
    )
    for note in notes:
        ended.add_note(note)
    return ended
