r"""What becomes of a session that was cut off: both hosts say what they have written, and one table decides.

::

    source \ destination   never heard of   preparing     loaded          accepted       running      abandoned
    open, suspending       source runs again; the destination puts its targets back   UNCERTAIN      source runs again
    given-away             uncertain        uncertain     it takes them   it runs them   taken down   source runs again
                                                          and runs them                  at the source  (returned)
    rolled-back, returned  nothing          puts back     puts back       UNCERTAIN      UNCERTAIN    nothing
    taken (an operator)    nothing          puts back     puts back       UNCERTAIN      UNCERTAIN    nothing
    done                   nothing          UNCERTAIN     UNCERTAIN       it runs them   nothing      UNCERTAIN

Each host acts on its own controllers only, under its own PF's lock, and writes before it acts where another copy could
run. UNCERTAIN in capitals takes an operator's word first; see ``docs/recovery.md``.
"""

from __future__ import annotations

from contextlib import suppress

from nvmelm.errors import NvmelmError, UncertainError
from nvmelm.inventory import find_primary
from nvmelm.migrate import messages, target
from nvmelm.migrate.link import Link, LinkLostError
from nvmelm.migrate.messages import expect, greet, send
from nvmelm.migrate.points import Point, Points
from nvmelm.operations.ownership import Record, Sessions, Side, State
from nvmelm.operations.session import Session, session
from nvmelm.transport import Host

_RUNS_HERE = frozenset({State.ROLLED_BACK, State.RETURNED, State.TAKEN})
_BEFORE = frozenset({State.OPEN, State.SUSPENDING})


def answer(host: Host, link: Link, asked: messages.Settle, points: Points) -> None:
    """Serve one question: act on this host's record as far as the other's state allows, and say what it is then.

    Raises:
        NvmelmError: this side could not act; the other was told.
        BusyError: the session's migration still runs.
    """
    with Sessions(host) as sessions:
        side = Side.DESTINATION if asked.side is Side.SOURCE else Side.SOURCE
        record = sessions.get(asked.session, side)
        if record is None:
            send(link, messages.Settled(state=None, note="no such session is known here"))
            return
        with session(host, find_primary(host, record.primary), change=True) as opened:
            record = sessions.get(asked.session, side) or record  # whoever held the lock may have gone on
            settled = settle(opened, sessions, record, asked.state, points)
        send(link, messages.Settled(state=settled.state, note=settled.note[:4096]))
    with suppress(LinkLostError):
        link.receive(deadline_s=5.0)  # Bye


def ask(link: Link, record: Record, name: str) -> messages.Settled:
    """Ask the other host what it has written.

    Raises:
        LinkLostError, NvmelmError: it cannot be asked.
    """
    greet(link, name)
    send(link, messages.Settle(session=record.id, side=record.side, state=record.state))
    settled = expect(link, messages.Settled)
    with suppress(LinkLostError):
        send(link, messages.Bye())
    return settled


def settle(opened: Session, sessions: Sessions, record: Record, theirs: State | None, points: Points) -> Record:
    """Bring this host's part of a session as far as the other host's state allows, and return its record then.

    Raises:
        UncertainError: the two contradict each other; nothing was changed.
        NvmelmError: the device refused; it can be done again.
    """
    _same_device(opened, record)
    if record.side is Side.SOURCE:
        return _settle_source(opened, sessions, record, theirs, points)
    return _settle_destination(opened, sessions, record, theirs, points)


def alone(opened: Session, sessions: Sessions, record: Record, points: Points) -> Record:
    """Do what needs no word of the other host: the source gave nothing away, or the destination never said loaded."""
    _same_device(opened, record)
    if record.state in _BEFORE and _all_there(opened, record):
        return run_again(opened, sessions, record, State.ROLLED_BACK, "recovered before the give-away", points)
    if record.state is State.PREPARING:
        return put_back(opened, sessions, record, "recovered before the states were in", points)
    if record.state is State.ACCEPTED:
        return run_here(opened, sessions, record, points)
    return record


def run_again(
    opened: Session,
    sessions: Sessions,
    record: Record,
    to: State,
    why: str,
    points: Points,
    *,
    write_first: bool = False,
) -> Record:
    """Resume the source's controllers, and write that down; before, where the destination could have run them."""
    if write_first:
        record = sessions.move(record, to, why)
    there = target.still_there(opened, record.controllers, record.boot)
    notes = target.resume(opened, there)
    if len(there) != len(record.controllers):
        notes.append("controllers that are not there any more were not resumed")
    if not write_first:
        record = sessions.move(record, to, "; ".join([why, *notes])[:500])
    points.report(Point.ROLLED_BACK)
    return record


def put_back(opened: Session, sessions: Sessions, record: Record, why: str, points: Points) -> Record:
    """Make fresh controllers of the destination's targets, and write that they hold nothing of the session."""
    there = target.still_there(opened, record.controllers, record.boot)
    target.discard(opened, there, touched=True)
    record = sessions.move(record, State.ABANDONED, why[:500])
    points.report(Point.ROLLED_BACK)
    return record


def run_here(opened: Session, sessions: Sessions, record: Record, points: Points) -> Record:
    """Run the controllers at the destination: they are written as its own before."""
    if record.state is State.LOADED:
        record = sessions.move(record, State.ACCEPTED)
    if not _all_there(opened, record):
        raise UncertainError(
            f"session {record.id}: {record.names} are not the controllers any more that took the states",
            cause="the host was rebooted, or its VFs were made anew; the states in them are gone",
            fix="nvmelm recover --give-up SESSION here, then nvmelm recover at the source, which still holds them",
            reason="target-gone",
        )
    points.report(Point.BEFORE_RESUME)
    target.resume(opened, record.controllers)
    record = sessions.move(record, State.RUNNING)
    target.use_up(opened, record.controllers)
    points.report(Point.DESTINATION_RUNNING)
    return record


def _all_there(opened: Session, record: Record) -> bool:
    return len(target.still_there(opened, record.controllers, record.boot)) == len(record.controllers)


def finish_source(opened: Session, sessions: Sessions, record: Record) -> Record:
    """Take the controllers down at the source: they run at the destination."""
    from nvmelm.migrate.source import take_down

    take_down(opened, target.still_there(opened, record.controllers, record.boot))
    return sessions.move(record, State.DONE)


def _settle_source(opened: Session, sessions: Sessions, record: Record, theirs: State | None, points: Points) -> Record:
    if record.state in _BEFORE:
        if theirs in (State.ACCEPTED, State.RUNNING):  # an operator's word there, before ours was given
            raise _contradiction(record, theirs, "the destination took the controllers without being given them")
        if theirs is State.LOADED and not _all_there(opened, record):
            why = "the source lost its copy, by a reboot or because its VFs were removed"
            raise _contradiction(record, theirs, why)
        return run_again(opened, sessions, record, State.ROLLED_BACK, "settled with the destination", points)
    if record.state is State.GIVEN_AWAY:
        if theirs is State.RUNNING:
            return finish_source(opened, sessions, record)
        if theirs is State.ABANDONED:
            # Both have written it by now; nothing else can run them.
            return run_again(
                opened, sessions, record, State.RETURNED, "the destination abandoned them", points, write_first=True
            )
        if theirs in (State.LOADED, State.ACCEPTED):
            return record  # theirs to take; they answer, or ask, with what they did
        raise _contradiction(record, theirs, "the destination does not know that it holds the states")
    if record.state in _RUNS_HERE and theirs in (State.ACCEPTED, State.RUNNING):
        raise _contradiction(record, theirs, "both hosts run the controllers, or are about to")
    if record.state is State.DONE and theirs in (State.PREPARING, State.LOADED, State.ABANDONED, None):
        raise _contradiction(record, theirs, "the source took its copy down because the destination ran")
    return record


def _settle_destination(
    opened: Session, sessions: Sessions, record: Record, theirs: State | None, points: Points
) -> Record:
    gave = theirs in (State.GIVEN_AWAY, State.DONE)
    if record.state is State.PREPARING:
        if gave:
            raise _contradiction(record, theirs, "the source gave away what had not arrived")
        return put_back(opened, sessions, record, f"the source is {theirs}", points)
    if record.state is State.LOADED:
        if gave:
            return run_here(opened, sessions, record, points)
        if theirs in _RUNS_HERE:
            return put_back(opened, sessions, record, f"the source is {theirs}", points)
        if theirs in _BEFORE:  # a source that lost its controllers: ours may be the only copy
            return record
        raise _contradiction(record, theirs, "the source does not know the session")
    if record.state is State.ACCEPTED:
        if theirs in _RUNS_HERE:
            raise _contradiction(record, theirs, "both hosts run the controllers, or are about to")
        return run_here(opened, sessions, record, points)
    if record.state is State.RUNNING and theirs in _RUNS_HERE:
        raise _contradiction(record, theirs, "both hosts run the controllers")
    return record


def _contradiction(record: Record, theirs: State | None, why: str) -> UncertainError:
    other = "destination" if record.side is Side.SOURCE else "source"
    return UncertainError(
        f"session {record.id}: {record.state} at the {record.side}, {theirs or 'unknown'} at the {other}",
        cause=why,
        fix="stop the copy that must not run (nvmelm state suspend PF CNTLID), then nvmelm recover --give-up SESSION "
        "on its host; docs/recovery.md",
        reason="session-contradiction",
    )


def _same_device(opened: Session, record: Record) -> None:
    if record.serial != opened.ref.serial:
        raise UncertainError(
            f"{record.primary} is another device than session {record.id} began with",
            cause=f"its serial number was {record.serial}, and is {opened.ref.serial}",
            fix="put the device back; or nvmelm recover --give-up SESSION when it is gone for good",
            reason="another-device",
        )


def told(error: NvmelmError) -> str:
    """Return an error as one sentence for a list."""
    return f"{error.message} ({error.cause})" if error.cause else error.message
