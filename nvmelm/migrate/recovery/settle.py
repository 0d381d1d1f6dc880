r"""What becomes of a session that was cut off: both hosts say what they have written, and one table decides.

::

    source \ destination   never heard of  preparing   loaded           accepted      running        abandoned
    open, suspending,      source runs again; the destination puts      UNCERTAIN     UNCERTAIN      source runs again
    rolling-back           its targets back                             (a source whose copy is lost gives way)
    given-away             uncertain       uncertain   it takes them    it runs them  taken down     source runs again
                                                       and runs them                  at the source  (returned)
    taking (an operator)   source runs again; then it puts back         UNCERTAIN     UNCERTAIN      source runs again
    rolled-back, returned, nothing         puts back   puts back        UNCERTAIN     UNCERTAIN      nothing
    taken
    done                   nothing         UNCERTAIN   it runs them     it runs them  nothing        UNCERTAIN

A source whose copy is lost while the destination holds one does nothing: ``source-lost``. Nor does any while the
destination is abandoning, whatever it was before: its copy may run until it is put back, which is done without asking.
Each host acts on its own controllers only, under its own PF's lock, and writes before it acts where another copy could
run. UNCERTAIN in capitals takes an operator's word first; see ``docs/ownership.md``.
"""

from __future__ import annotations

from contextlib import suppress

from nvmelm.errors import NvmelmError, UncertainError
from nvmelm.host import Host
from nvmelm.inventory.find import find_primary
from nvmelm.inventory.opened import OpenPrimary, open_primary
from nvmelm.migrate import controllers as target
from nvmelm.migrate.callouts.points import Point, Points
from nvmelm.migrate.link import messages
from nvmelm.migrate.link.frames import Link, LinkLostError
from nvmelm.migrate.link.messages import expect, greet, send
from nvmelm.migrate.recovery.standing import DRIVEN, WHOLE, Standing, gone, look, lost, not_whole, unclear, whole
from nvmelm.ownership.sessions import Record, Sessions, Side, State

_LET_GO = "nvmelm recover --give-up SESSION here, then nvmelm recover at the other host, which may still hold them"
_RUNS_HERE = frozenset({State.ROLLED_BACK, State.RETURNED, State.TAKEN})
#: Nothing was given away yet.
BEFORE = frozenset({State.OPEN, State.SUSPENDING, State.ROLLING_BACK})
_GIVEN = frozenset({State.GIVEN_AWAY, State.DONE})
_TAKES = frozenset({State.ACCEPTED, State.RUNNING})
#: What is written once the controllers run again, of the states that are written before.
_THEN = {State.RETURNING: State.RETURNED, State.TAKING: State.TAKEN}


class AnswerLostError(LinkLostError):
    """The other host was asked, and what it said is not known: it may run the controllers by now."""


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
        note = ""
        if record.over:  # nothing is to be done to the device any more, which may be locked, or gone
            require_no_contradiction(record, asked.state)
        else:
            with open_primary(host, find_primary(host, record.primary), change=True) as pf:
                record = sessions.get(asked.session, side) or record  # whoever held the lock may have gone on
                try:
                    record = settle(pf, sessions, record, asked.state, points)
                except NvmelmError as error:
                    record = sessions.get(asked.session, side) or record
                    if record.state not in (State.PREPARING, State.LOADED, State.ABANDONING):
                        raise
                    note = told(error)  # it decides nothing by itself: that is what the other has to know
        send(link, messages.Settled(state=record.state, note=(note or record.note)[:4096]))
    with suppress(LinkLostError):
        link.receive(deadline_s=5.0)  # Bye


def ask(link: Link, record: Record, name: str) -> messages.Settled:
    """Ask the other host what it has written.

    Raises:
        AnswerLostError: it may have got the question, and have acted upon it.
        RemoteError: it answered that it cannot say.
        LinkLostError, NvmelmError: it cannot be asked.
    """
    greet(link, name)
    try:
        send(link, messages.Settle(session=record.id, side=record.side, state=record.state))
        settled = expect(link, messages.Settled)
    except messages.RemoteError:
        raise
    except NvmelmError as error:
        raise AnswerLostError(error.message, cause=error.cause) from error
    with suppress(LinkLostError):
        send(link, messages.Bye())
    return settled


def settle(pf: OpenPrimary, sessions: Sessions, record: Record, theirs: State | None, points: Points) -> Record:
    """Bring this host's part of a session as far as the other host's state allows, and return its record then.

    Raises:
        UncertainError: the two contradict each other, or a copy is lost; nothing was changed.
        NvmelmError: the device refused; it can be done again.
    """
    require_no_contradiction(record, theirs)
    if record.over:
        return record
    _same_device(pf, record)
    if record.side is Side.SOURCE:
        return _settle_source(pf, sessions, record, theirs, points)
    return _settle_destination(pf, sessions, record, theirs, points)


def unasked(pf: OpenPrimary, sessions: Sessions, record: Record, points: Points) -> Record:
    """Do what is right whatever the other host has written: it never said loaded, or has abandoned them for good."""
    _same_device(pf, record)
    if record.state is State.PREPARING:
        return put_back(pf, sessions, record, "recovered before the states were in", points)
    if record.state is State.ABANDONING:
        return put_back(pf, sessions, record, record.note, points)
    if record.state is State.RETURNING:
        return run_again(pf, sessions, record, "the destination abandoned them", points)
    return record


def alone(pf: OpenPrimary, sessions: Sessions, record: Record, points: Points) -> Record:
    """Do what is right as long as no operator spoke at the other host, which does not answer."""
    _same_device(pf, record)
    if record.state in BEFORE:
        if record.state is State.OPEN:
            return run_again(pf, sessions, record, "recovered before the suspend", points)
        if whole(look(pf, record)):
            return run_again(pf, sessions, record, "recovered before the give-away", points, held=True)
        return record
    if record.state is State.TAKING:
        return run_again(pf, sessions, record, "taken back on an operator's word", points, held=True)
    if record.state is State.ACCEPTED:
        return run_here(pf, sessions, record, points)
    return record


def run_again(
    pf: OpenPrimary, sessions: Sessions, record: Record, why: str, points: Points, *, held: bool = False
) -> Record:
    """Resume the source's controllers, and write that they run: a resume that fails, or is cut off, is done again.

    Args:
        held: the destination may hold the states. It puts them back once it hears that the source runs, so that is not
            written of a copy that turns out to be lost.

    Raises:
        UncertainError: given-away ones are lost here; or a copy was reset before its resume, and the other is left.
    """
    if record.state in _THEN:
        stand = look(pf, record)
        if {Standing.GONE, Standing.OFFLINE} & {*stand.values()}:
            raise gone(record, stand, "cannot run here again", _LET_GO)
    there = target.still_there(pf, record.controllers, record.boot)
    notes = target.resume(pf, there)
    if held and (notes or len(there) != len(record.controllers)):
        _require_resumed(record, look(pf, record))
    if len(there) != len(record.controllers):
        notes.append("controllers that are not there any more were not resumed")
    record = sessions.move(record, _THEN.get(record.state, State.ROLLED_BACK), "; ".join([why, *notes])[:500])
    points.report(Point.ROLLED_BACK)
    return record


def take_back(pf: OpenPrimary, sessions: Sessions, record: Record, to: State, why: str, points: Points) -> Record:
    """Run given-away controllers at the source again: that they may is written before.

    Args:
        to: returning or taking.

    Raises:
        UncertainError: they are not there, suspended; nothing was written.
    """
    require_copy(pf, record)
    return run_again(pf, sessions, sessions.move(record, to, why), why, points, held=to is State.TAKING)


def _require_resumed(record: Record, stand: dict[int, Standing]) -> None:
    """Refuse to write that controllers run of which some were not suspended any more when they were resumed."""
    if record.state in _THEN:
        if {Standing.GONE, Standing.OFFLINE} & {*stand.values()}:
            raise gone(record, stand, "were reset before they ran here again", _LET_GO)
    elif not {*stand.values()} <= DRIVEN:
        raise not_whole(record, stand)


def require_copy(pf: OpenPrimary, record: Record) -> dict[int, Standing]:
    """Return how the controllers stand; refuse to count on a copy that this host does not have any more.

    Raises:
        UncertainError: one of the controllers is not what the session left; nothing was changed.
    """
    _same_device(pf, record)
    stand = look(pf, record)
    # Whether accepted ones were resumed is not known; all others are suspended, or lost if they had anything to lose.
    maybe_resumed = record.state is State.ACCEPTED
    if maybe_resumed and not (whole(stand) or lost(stand)):
        raise unclear(record, stand)
    if not {*stand.values()} <= (WHOLE if maybe_resumed else {Standing.SUSPENDED, Standing.UNCHANGED}):
        source = record.side is Side.SOURCE
        raise gone(record, stand, "cannot run here" if source else "do not hold the states any more", _LET_GO)
    return stand


def put_back(pf: OpenPrimary, sessions: Sessions, record: Record, why: str, points: Points) -> Record:
    """Make fresh controllers of the destination's targets, and write that they hold nothing of the session."""
    there = target.still_there(pf, record.controllers, record.boot)
    target.discard(pf, there, touched=True)
    record = sessions.move(record, State.ABANDONED, why[:500])
    points.report(Point.ROLLED_BACK)
    return record


def run_here(pf: OpenPrimary, sessions: Sessions, record: Record, points: Points, *, only_one: bool = False) -> Record:
    """Run the controllers at the destination: they are written as its own before.

    Args:
        only_one: the source has taken its copy down. What is online here is then the copy that runs, whatever its
            guest's driver does just now.

    Raises:
        UncertainError: the states are not in them any more; the source must not let its copy go.
    """
    stand = look(pf, record) if only_one and record.state is State.ACCEPTED else {}
    if not stand or lost(stand):
        stand = require_copy(pf, record)
    if record.state is State.LOADED:
        record = sessions.move(record, State.ACCEPTED)
    points.report(Point.BEFORE_RESUME)
    still = [one for one in record.controllers if stand[one.cntlid] is Standing.SUSPENDED]
    target.resume(pf, still, strict=True)
    record = sessions.move(record, State.RUNNING)
    target.use_up(pf, record.controllers)
    points.report(Point.DESTINATION_RUNNING)
    return record


def finish_source(pf: OpenPrimary, sessions: Sessions, record: Record, why: str = "") -> Record:
    """Take the controllers down at the source: they run at the destination, or never will here."""
    if record.state in BEFORE:
        record = sessions.move(record, State.GIVEN_AWAY, why)
    target.take_down(pf, target.still_there(pf, record.controllers, record.boot))
    return sessions.move(record, State.DONE, why)


def require_no_contradiction(record: Record, theirs: State | None) -> None:
    """Refuse what the two hosts cannot both have written without an operator's word.

    Raises:
        UncertainError: the operator has to look.
    """
    ours = record.state
    here, there = (ours, theirs) if record.side is Side.SOURCE else (theirs, ours)
    why = ""
    if here in _RUNS_HERE | {State.TAKING, State.RETURNING} and there in _TAKES:
        why = "both hosts run the controllers, or are about to"
    elif ours is State.DONE and theirs in (State.PREPARING, State.ABANDONING, State.ABANDONED):
        why = "the source took its copy down, and the destination has none"
    elif ours is State.GIVEN_AWAY and theirs in (State.PREPARING, None):
        why = "the destination does not know that it holds the states"
    elif ours is State.PREPARING and theirs in _GIVEN:
        why = "the source gave away what had not arrived"
    elif ours in (State.LOADED, State.ACCEPTED) and theirs is None:
        why = "the source does not know the session"
    if why:
        raise _contradiction(record, theirs, why)


def _settle_source(pf: OpenPrimary, sessions: Sessions, record: Record, theirs: State | None, points: Points) -> Record:
    if theirs is State.ABANDONING:
        return record  # of accepted ones it is not known whether they run, until they were put back
    if record.state in BEFORE:
        return _settle_before(pf, sessions, record, theirs, points)
    if record.state is State.GIVEN_AWAY:
        if theirs is State.RUNNING:
            return finish_source(pf, sessions, record)
        if theirs is State.ABANDONED:  # both have written it by now; nothing else can run them
            why = "the destination abandoned them"
            return take_back(pf, sessions, record, State.RETURNING, why, points)
        return record  # theirs to take; they answer, or ask, with what they did
    why = f"the destination is {theirs or 'without it'}"
    return run_again(pf, sessions, record, why, points, held=theirs is State.LOADED)


def _settle_before(pf: OpenPrimary, sessions: Sessions, record: Record, theirs: State | None, points: Points) -> Record:
    """Decide for a source that has given nothing away."""
    if theirs is State.LOADED:
        stand = look(pf, record)
        if not whole(stand):
            raise not_whole(record, stand)
    elif theirs in _TAKES:
        if not lost(look(pf, record)):  # an operator's word there
            raise _contradiction(record, theirs, "the destination took the controllers without being given them")
        if theirs is State.RUNNING:
            return finish_source(pf, sessions, record, "the copy here was lost; the destination runs them")
        return sessions.move(record, State.GIVEN_AWAY, "the copy here was lost; an operator let the destination run")
    return run_again(pf, sessions, record, "settled with the destination", points, held=theirs is State.LOADED)


def _settle_destination(
    pf: OpenPrimary, sessions: Sessions, record: Record, theirs: State | None, points: Points
) -> Record:
    if record.state is State.ABANDONING:
        return put_back(pf, sessions, record, record.note, points)
    if record.state is State.PREPARING or (record.state is State.LOADED and theirs in _RUNS_HERE):
        return put_back(pf, sessions, record, f"the source is {theirs}", points)
    if theirs in _GIVEN:
        return run_here(pf, sessions, record, points, only_one=theirs is State.DONE)
    return record  # the source's copy may be lost yet, or does not run again so far: ours may be the only one


def _contradiction(record: Record, theirs: State | None, why: str) -> UncertainError:
    other = "destination" if record.side is Side.SOURCE else "source"
    controllers = ", ".join(
        f"nvmelm secondary offline {record.primary} {one.cntlid:#06x}" for one in record.controllers
    )
    fix = f"docs/recovery.md; to end the copy here: nvmelm recover --give-up {record.id[:8]}"
    if record.over:
        fix = f"docs/recovery.md; to end the copy at the {record.side}: {controllers}"
    return UncertainError(
        f"session {record.id}: {record.state} at the {record.side}, {theirs or 'unknown'} at the {other}",
        cause=why,
        fix=fix,
        reason="session-contradiction",
    )


def _same_device(pf: OpenPrimary, record: Record) -> None:
    if record.serial != pf.ref.serial:
        raise UncertainError(
            f"{record.primary} is another device than session {record.id} began with",
            cause=f"its serial number was {record.serial}, and is {pf.ref.serial}",
            fix="put the device back; or nvmelm recover --give-up SESSION when it is gone for good",
            reason="another-device",
        )


def told(error: NvmelmError) -> str:
    """Return an error as one sentence for a list."""
    return f"{error.message} ({error.cause})" if error.cause else error.message
