"""What becomes of a session that was cut off: both hosts say what they have written, and one table decides.

The table is :mod:`nvmelm.ownership.decisions`; here stand the acts, and the question and the answer in
:mod:`nvmelm.migrate.recovery.asking`. Each host acts on its own controllers only, under its own PF's lock, and writes
before it acts where another copy could run. Where an act first looks for its copy and does not find it, nothing is
changed. See ``docs/ownership.md``.
"""

from __future__ import annotations

from nvmelm.errors import CopyLostError, NvmelmError, UncertainError
from nvmelm.inventory.opened import OpenPrimary
from nvmelm.migrate import controllers
from nvmelm.migrate.callouts.points import Point, Points
from nvmelm.migrate.recovery.standing import (
    DRIVEN,
    WHOLE,
    Standing,
    gone,
    look,
    lost,
    not_whole,
    unclear,
    whole,
    without_copy,
)
from nvmelm.ownership.decisions import UNANSWERED, WITHOUT_ASKING, Act, decide, written
from nvmelm.ownership.record import SessionRecord, Side, State
from nvmelm.ownership.sessions import Sessions

#: Nothing was given away yet.
BEFORE = frozenset({State.OPEN, State.SUSPENDING, State.ROLLING_BACK})
#: Written before a resume: what runs after it was given away, and is nobody else's by then.
_TAKES_BACK = frozenset({State.RETURNING, State.TAKING})
#: The note of an act that the table and what is found led to.
_WHY_TOGETHER = {
    Act.TAKE_BACK: "the destination abandoned them",  # both have written it by now; nothing else can run them
    Act.TAKE_DOWN: "",
    Act.END_LOST: "the copy here was lost; the destination runs them",
    Act.GIVE_WAY: "the copy here was lost; an operator let the destination run",
}
_WHY_ALONE = {
    State.PREPARING: "recovered before the states were in",
    State.RETURNING: "the destination abandoned them",
    State.OPEN: "recovered before the suspend",
    State.SUSPENDING: "recovered before the give-away",
    State.ROLLING_BACK: "recovered before the give-away",
    State.TAKING: "taken back on an operator's word",
}


def settle(
    pf: OpenPrimary, sessions: Sessions, record: SessionRecord, theirs: State | None, points: Points
) -> SessionRecord:
    """Bring this host's part of a session as far as the other host's state allows, and return its record then.

    Raises:
        UncertainError: the two contradict each other, or a copy is lost; nothing was changed.
        NvmelmError: the device refused; it can be done again.
    """
    require_no_contradiction(record, theirs)
    if record.over:
        return record
    _require_same_device(pf, record)
    act = decide(record.side, record.state, theirs).act
    if act in (Act.GIVE_WAY, Act.END_LOST) and not lost(look(pf, record)):  # an operator's word there
        raise _contradiction(record, theirs, "the destination took the controllers without being given them")
    if act is Act.RUN_IF_WHOLE and not whole(stand := look(pf, record)):
        raise not_whole(record, stand)
    return _do(act, pf, sessions, record, _WHY_TOGETHER.get(act, _what_the_other_is(record, theirs)), points)


def settle_without_asking(pf: OpenPrimary, sessions: Sessions, record: SessionRecord, points: Points) -> SessionRecord:
    """Do what is right whatever the other host has written: it never said loaded, or has abandoned them for good."""
    _require_same_device(pf, record)
    act = WITHOUT_ASKING.get(record.state, Act.NOTHING)
    return _do(act, pf, sessions, record, _WHY_ALONE.get(record.state, record.note), points)


def settle_unanswered(pf: OpenPrimary, sessions: Sessions, record: SessionRecord, points: Points) -> SessionRecord:
    """Do what is right as long as no operator spoke at the other host, which does not answer."""
    _require_same_device(pf, record)
    act = UNANSWERED.get(record.state, Act.NOTHING)
    if act is Act.RUN_IF_WHOLE and not whole(look(pf, record)):
        return record
    return _do(act, pf, sessions, record, _WHY_ALONE.get(record.state, record.note), points)


def _do(
    act: Act, pf: OpenPrimary, sessions: Sessions, record: SessionRecord, why: str, points: Points
) -> SessionRecord:
    """Do what was decided upon; whoever decided has looked for the copy where the act says so."""
    match act:
        case Act.NOTHING | Act.CONTRADICT:
            return record
        case Act.RUN_AGAIN:
            return run_again(pf, sessions, record, why, points)
        case Act.RUN_IF_WHOLE | Act.RUN_STRICTLY:
            return run_again(pf, sessions, record, why, points, held=True)
        case Act.TAKE_BACK:
            return take_back(pf, sessions, record, State.RETURNING, why, points)
        case Act.TAKE_DOWN | Act.END_LOST:
            return finish_source(pf, sessions, record, why)
        case Act.GIVE_WAY:
            return sessions.move(record, State.GIVEN_AWAY, why)
        case Act.PUT_BACK:
            return put_back(pf, sessions, record, why, points)
        case Act.RUN_HERE | Act.RUN_ONLY_ONE:
            return run_here(pf, sessions, record, points, only_one=act is Act.RUN_ONLY_ONE)


def _what_the_other_is(record: SessionRecord, theirs: State | None) -> str:
    """Return the note of what was settled with a host that answered."""
    if record.state is State.ABANDONING:  # an operator's word, which is worth more
        return record.note
    if record.side is Side.DESTINATION:
        return f"the source is {theirs}"
    return "settled with the destination" if record.state in BEFORE else f"the destination is {theirs or 'without it'}"


def run_again(
    pf: OpenPrimary, sessions: Sessions, record: SessionRecord, why: str, points: Points, *, held: bool = False
) -> SessionRecord:
    """Resume the source's controllers, and write that they run: a resume that fails, or is cut off, is done again.

    Args:
        held: the destination may hold the states. It puts them back once it hears that the source runs, so that is not
            written of a copy that turns out to be lost.

    Raises:
        UncertainError: given-away ones are lost here; or a copy was reset before its resume, and the other is left.
    """
    if record.state in _TAKES_BACK:
        stand = look(pf, record)
        if {Standing.GONE, Standing.OFFLINE} & {*stand.values()}:
            raise gone(record, stand, "cannot run here again")
    present = controllers.still_there(pf, record.controllers, record.boot)
    notes = controllers.resume(pf, present)
    if held and (notes or len(present) != len(record.controllers)):
        _require_resumed(record, look(pf, record))
    if len(present) != len(record.controllers):
        notes.append("controllers that are not there any more were not resumed")
    record = sessions.move(record, written(record.state, Act.RUN_AGAIN), "; ".join([why, *notes])[:500])
    points.report(Point.ROLLED_BACK)
    return record


def take_back(
    pf: OpenPrimary, sessions: Sessions, record: SessionRecord, to: State, why: str, points: Points
) -> SessionRecord:
    """Run given-away controllers at the source again: that they may is written before.

    Args:
        to: returning or taking.

    Raises:
        UncertainError: they are not there, suspended; nothing was written.
    """
    require_copy(pf, record)
    return run_again(pf, sessions, sessions.move(record, to, why), why, points, held=to is State.TAKING)


def _require_resumed(record: SessionRecord, stand: dict[int, Standing]) -> None:
    """Refuse to write that controllers run of which some were not suspended any more when they were resumed."""
    if record.state in _TAKES_BACK:
        if {Standing.GONE, Standing.OFFLINE} & {*stand.values()}:
            raise gone(record, stand, "were reset before they ran here again")
    elif not {*stand.values()} <= DRIVEN:
        raise not_whole(record, stand)


def require_copy(pf: OpenPrimary, record: SessionRecord) -> dict[int, Standing]:
    """Return how the controllers stand; refuse to count on a copy that this host does not have any more.

    Raises:
        UncertainError: one of the controllers is not what the session left; nothing was changed.
    """
    _require_same_device(pf, record)
    stand = look(pf, record)
    # Whether accepted ones were resumed is not known; all others are suspended, or lost if they had anything to lose.
    maybe_resumed = record.state is State.ACCEPTED
    if maybe_resumed and not (whole(stand) or lost(stand)):
        raise unclear(record, stand)
    if not {*stand.values()} <= (WHOLE if maybe_resumed else {Standing.SUSPENDED, Standing.UNCHANGED}):
        source = record.side is Side.SOURCE
        raise gone(record, stand, "cannot run here" if source else "do not hold the states any more")
    return stand


def put_back(pf: OpenPrimary, sessions: Sessions, record: SessionRecord, why: str, points: Points) -> SessionRecord:
    """Make fresh controllers of the destination's targets, and write that they hold nothing of the session."""
    present = controllers.still_there(pf, record.controllers, record.boot)
    controllers.discard(pf, present, touched=True)
    record = sessions.move(record, State.ABANDONED, why[:500])
    points.report(Point.ROLLED_BACK)
    return record


def run_here(
    pf: OpenPrimary, sessions: Sessions, record: SessionRecord, points: Points, *, only_one: bool = False
) -> SessionRecord:
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
    suspended = [moving for moving in record.controllers if stand[moving.cntlid] is Standing.SUSPENDED]
    try:
        controllers.resume(pf, suspended, strict=True)
    except CopyLostError as error:
        raise CopyLostError(error.message, cause=error.cause, fix=without_copy(record)) from error
    record = sessions.move(record, State.RUNNING)
    controllers.use_up(pf, record.controllers)
    points.report(Point.DESTINATION_RUNNING)
    return record


def finish_source(pf: OpenPrimary, sessions: Sessions, record: SessionRecord, why: str = "") -> SessionRecord:
    """Take the controllers down at the source: they run at the destination, or never will here."""
    if record.state in BEFORE:
        record = sessions.move(record, State.GIVEN_AWAY, why)
    controllers.take_down(pf, controllers.still_there(pf, record.controllers, record.boot))
    return sessions.move(record, State.DONE, why)


def require_no_contradiction(record: SessionRecord, theirs: State | None) -> None:
    """Refuse what the two hosts cannot both have written without an operator's word.

    Raises:
        UncertainError: the operator has to look.
    """
    decision = decide(record.side, record.state, theirs)
    if decision.act is Act.CONTRADICT:
        raise _contradiction(record, theirs, decision.why)


def _contradiction(record: SessionRecord, theirs: State | None, why: str) -> UncertainError:
    other = "destination" if record.side is Side.SOURCE else "source"
    offline = ", ".join(
        f"nvmelm secondary offline {record.primary} {moving.cntlid:#06x}" for moving in record.controllers
    )
    fix = f"docs/recovery.md; to end the copy here: nvmelm recover --give-up {record.id[:8]}"
    if record.over:
        fix = f"docs/recovery.md; to end the copy at the {record.side}: {offline}"
    return UncertainError(
        f"session {record.id}: {record.state} at the {record.side}, {theirs or 'unknown'} at the {other}",
        cause=why,
        fix=fix,
        reason="session-contradiction",
    )


def _require_same_device(pf: OpenPrimary, record: SessionRecord) -> None:
    if record.serial != pf.ref.serial:
        raise UncertainError(
            f"{record.primary} is another device than session {record.id} began with",
            cause=f"its serial number was {record.serial}, and is {pf.ref.serial}",
            fix=f"put the device back; or nvmelm recover --give-up {record.id[:8]} when it is gone for good",
            reason="another-device",
        )


def as_sentence(error: NvmelmError) -> str:
    """Return an error as one sentence for a list."""
    return f"{error.message} ({error.cause})" if error.cause else error.message
