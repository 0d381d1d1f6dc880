"""``recover`` between two hosts: every session of this host that is not over, what it means, and its end.

The other host is asked first, over the same kind of link as a migration's: an operator may have spoken there. Only when
nobody answers this host does what nothing but such a word speaks against. What the two cannot decide takes an
operator's word, for one session at a time, once it was said what that risks.

No lock is held while the other host is asked. It takes its own lock to answer, and may be asking at the same time. What
it has said is acted upon under the lock, if this host's record still says what the other was told.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple

from nvmelm.errors import AnswerLostError, NvmelmError, RemoteError, UncertainError, UsageError
from nvmelm.host import Host
from nvmelm.inventory.find import find_primary
from nvmelm.inventory.opened import OpenPrimary, open_primary, require_privilege
from nvmelm.migrate.callouts.points import Points
from nvmelm.migrate.link.frames import Link
from nvmelm.migrate.recovery.settle import (
    BEFORE,
    as_sentence,
    finish_source,
    put_back,
    require_copy,
    require_no_contradiction,
    run_here,
    settle,
    settle_unanswered,
    settle_without_asking,
    take_back,
)
from nvmelm.ownership.decisions import GIVE_UP, TAKE
from nvmelm.ownership.record import GIVEN_UP, SessionRecord, Side, State
from nvmelm.ownership.sessions import Sessions
from nvmelm.prepare.apply import Confirm
from nvmelm.prepare.recover import SessionView

Connect = Callable[[SessionRecord], AbstractContextManager[Link]]
"""Opens a link to the other host of a session."""

#: Whoever changes a record meanwhile is told again; two hosts have no more to say to each other than this.
_QUESTIONS = 4
_RUN_HERE = frozenset({State.ROLLED_BACK, State.RETURNED, State.TAKEN, State.RUNNING})

MEANING = {
    State.OPEN: "the migration was cut off before the controllers were suspended",
    State.SUSPENDING: "the migration was cut off before the give-away: the controllers stand still and are still ours",
    State.ROLLING_BACK: "the disk failed at the give-away, and nothing was given away: the controllers are still ours",
    State.GIVEN_AWAY: "the controllers were given away, and nothing was heard since: they may run at the destination",
    State.RETURNING: "the destination abandoned the controllers; whether they were resumed here is not known",
    State.TAKING: "an operator took the controllers back; whether they were resumed here is not known",
    State.PREPARING: "the migration was cut off before the states were in: the targets may be suspended",
    State.LOADED: "the targets hold every state, suspended; whether the source gave them away is not known here",
    State.ACCEPTED: "the source gave the controllers away; whether they were resumed here is not known",
    State.ABANDONING: "an operator gave the controllers up; whether the targets were put back is not known",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """How sessions are decided.

    Attributes:
        connect: opens a link to the other host; None: it is not asked.
        name: what this host calls itself.
        points: makes this host's callouts for a side.
        confirm: asks the operator.
    """

    connect: Connect | None
    name: str
    points: Callable[[Side], Points]
    confirm: Confirm


def recover_sessions(host: Host, means: Means, *, dry_run: bool = False) -> list[SessionView]:
    """Decide every session of this host that is not over, as far as it can be; nothing is done twice.

    Raises:
        PermissionDeniedError: not root.
    """
    require_privilege(host)
    with Sessions(host) as sessions:
        return [_recover_session(host, sessions, record, means, dry_run=dry_run) for record in sessions.unfinished()]


def take(host: Host, which: str, means: Means) -> SessionView:
    """Run a session's controllers here on an operator's word: the other copy must never run.

    The other host is asked first. When it answers, what the two have written decides, and the word is needed only where
    that decides nothing: the source has lost its copy, or the other host has lost its records.

    Raises:
        UsageError: no such session, or nothing is to be taken.
        UncertainError: the copy here is lost, or the other host runs the controllers or holds them.
        NvmelmError: the device refused.
    """
    with Sessions(host) as sessions:
        record = before = _named(sessions, which)
        if record.state not in TAKE:
            raise _nothing_to_decide(record)
        with _open(host, record) as pf:
            require_copy(pf, record)
        means.confirm(
            f"session {record.id} is {record.state} here. If the other host ({record.peer or 'unknown'}) runs "
            f"{record.names}, or runs them later, two copies write to the same namespaces and destroy the data. Make "
            "sure that it is switched off, or that its copy is offline. Run them here?"
        )
        points = means.points(record.side)
        record, answer = _answer_before_taking(host, sessions, record, means, points)
        if record.over or answer.state is not None:
            if record.state in _RUN_HERE:
                return view(before, record, answer.state, "the other host agreed")
            raise _held_elsewhere(record, answer)
        with _open(host, record) as pf:
            record = _unchanged(sessions, record)
            if record.side is Side.SOURCE:
                done = take_back(pf, sessions, record, State.TAKING, "taken back on an operator's word", points)
            else:
                done = run_here(pf, sessions, record, points)
    return view(before, done, None, "on the operator's word")


def give_up(host: Host, which: str, means: Means) -> SessionView:
    """Let a session's controllers go here on an operator's word: they will never run here.

    Raises:
        UsageError: no such session, or nothing is to be given up.
        NvmelmError: the device refused.
    """
    with Sessions(host) as sessions:
        record = _named(sessions, which)
        if record.state not in GIVE_UP:
            raise _nothing_to_decide(record)
        means.confirm(
            f"session {record.id} is {record.state} here. The copy of {record.names} on this host is destroyed; if "
            f"the other host ({record.peer or 'unknown'}) has none, what the guest had in flight is lost. Give it up?"
        )
        done = _let_go(host, sessions, record, means.points(record.side))
    return view(record, done, None, "on the operator's word")


def view(
    before: SessionRecord,
    after: SessionRecord,
    peer_state: State | None,
    note: str = "",
    error: NvmelmError | None = None,
) -> SessionView:
    """Return a session as the report shows it."""
    return SessionView(
        session=before.id,
        side=before.side.value,
        state=before.state,
        settled=None if after.state is before.state else after.state.value,
        peer=before.peer,
        peer_state=peer_state,
        primary=before.primary,
        cntlids=tuple(moving.cntlid for moving in before.controllers),
        opened_at=before.opened_at,
        meaning=MEANING[before.state],
        note=as_sentence(error) if error else note,
        reason=error.reason if error else "",
        resolved=after.over and error is None,
    )


def _recover_session(
    host: Host, sessions: Sessions, record: SessionRecord, means: Means, *, dry_run: bool
) -> SessionView:
    """Decide one session, and say what came of it; one that fails does not keep the others back."""
    if dry_run:
        return view(record, record, None)
    before, points, answer = record, means.points(record.side), _Answer(None)
    try:
        with _open(host, record) as pf:
            record = sessions.get(record.id, record.side) or record  # whoever held the lock may have gone on
            if record.over:
                return view(before, record, None)
            record = settle_without_asking(pf, sessions, record, points)
        record, answer = _together(host, sessions, record, means, points)
        if answer.silent and not record.over:
            with _open(host, record) as pf:
                record = settle_unanswered(pf, sessions, _unchanged(sessions, record), points)
    except NvmelmError as error:
        return view(before, sessions.get(record.id, record.side) or record, answer.state, error=error)
    return view(
        before, record, answer.state, "" if record.over else answer.note, None if record.over else answer.silent
    )


class _Answer(NamedTuple):
    """What the other host said.

    Attributes:
        state: what it has written; None: nobody answered, or it never heard of the session.
        silent: why nobody answered.
    """

    state: State | None
    note: str = ""
    silent: NvmelmError | None = None


def _together(
    host: Host, sessions: Sessions, record: SessionRecord, means: Means, points: Points
) -> tuple[SessionRecord, _Answer]:
    """Tell the other host what is written here and act on its answer, until neither has anything new to say."""
    answer = _Answer(None)
    for _ in range(_QUESTIONS):
        answered = _ask(record, means)
        if answered.silent:
            return record, answer if record.over and answer.state else answered
        answer = answered
        if record.over:
            require_no_contradiction(record, answer.state)
            break
        before = record
        with _open(host, record) as pf:
            record = sessions.get(record.id, record.side) or record
            if record.state is before.state:
                record = settle(pf, sessions, record, answer.state, points)
        if record.state is before.state:
            break
    return record, answer


def _ask(record: SessionRecord, means: Means) -> _Answer:
    """Return what the other host has written.

    Raises:
        RemoteError: it answered that it cannot say, or that the two contradict each other.
        UncertainError: it never heard of a session that it must know.
    """
    if means.connect is None:
        return _Answer(None, silent=UncertainError("the other host was not asked", reason="session-uncertain"))
    from nvmelm.migrate.recovery.asking import ask_other_host  # pydantic's 110 ms: most hosts have nobody to ask

    try:
        with means.connect(record) as link:
            settled = ask_other_host(link, record, means.name)
    except RemoteError as error:
        if record.over and error.reason != "session-contradiction":  # what is left is the other host's own affair
            return _Answer(None, silent=error)
        raise
    except UsageError:
        raise
    except NvmelmError as error:
        return _Answer(None, silent=error)
    if settled.state is None and record.state in (State.GIVEN_AWAY, State.LOADED, State.ACCEPTED):
        raise UncertainError(
            f"session {record.id} is not known at {record.peer}",
            cause=settled.note or "another host answers there, or its state directory was lost",
            fix="nvmelm recover --peer ssh://HOST names the host that was meant",
            reason="session-unknown",
        )
    return _Answer(settled.state, settled.note)


def _answer_before_taking(
    host: Host, sessions: Sessions, record: SessionRecord, means: Means, points: Points
) -> tuple[SessionRecord, _Answer]:
    """Let the two hosts decide if they can; without an answer, or where it decides nothing, the word does."""
    try:
        record, answer = _together(host, sessions, record, means, points)
    except NvmelmError as error:
        lost_there = isinstance(error, RemoteError) and error.reason == "sessions-damaged"
        if not lost_there and error.reason not in ("source-lost", "session-unknown"):
            raise
        return _unchanged(sessions, record), _Answer(None)
    if isinstance(answer.silent, AnswerLostError) and not record.over:
        raise UncertainError(  # the operator spoke of what was before the question
            f"session {record.id}: the other host was asked, and its answer was lost",
            cause="it may have decided, and run the controllers by now",
            fix="nvmelm recover, as soon as the two can speak",
            reason="session-uncertain",
        ) from answer.silent
    return record, answer


def _unchanged(sessions: Sessions, record: SessionRecord) -> SessionRecord:
    """Return the record if it still is what was decided upon."""
    now = sessions.get(record.id, record.side) or record
    if now.state is not record.state:
        raise UncertainError(
            f"session {record.id} is {now.state} by now",
            cause="another nvmelm decided about it meanwhile",
            fix="nvmelm recover --dry-run shows what is known",
            reason="session-state",
        )
    return now


def _held_elsewhere(record: SessionRecord, answer: _Answer) -> UncertainError:
    other = "destination" if record.side is Side.SOURCE else "source"
    fix = f"nvmelm recover --give-up {record.id[:8]} at the {other}, then nvmelm recover here"
    return UncertainError(
        f"session {record.id}: {record.names} are not taken; they are {answer.state or 'decided'} at the {other}",
        cause=f"it answers, and is not to run a second copy; the session is {record.state} here by now",
        fix="nothing: the session is over" if record.over else fix,
        reason="held-elsewhere",
    )


def _let_go(host: Host, sessions: Sessions, record: SessionRecord, points: Points) -> SessionRecord:
    why = GIVEN_UP
    try:
        find_primary(host, record.primary)
    except UsageError:  # the device is gone for good, and its copy with it
        why += "; the device was not there"
        if record.state in BEFORE:
            record = sessions.move(record, State.GIVEN_AWAY, why)
        return sessions.move(record, State.DONE if record.side is Side.SOURCE else State.ABANDONED, why)
    with _open(host, record) as pf:
        record = _unchanged(sessions, record)
        if record.side is Side.SOURCE:
            return finish_source(pf, sessions, record, why)
        if record.state in (State.LOADED, State.ACCEPTED):  # before the copy is destroyed, of which a part may be left
            record = sessions.move(record, State.ABANDONING, why)
        return put_back(pf, sessions, record, why, points)


def _open(host: Host, record: SessionRecord) -> AbstractContextManager[OpenPrimary]:
    return open_primary(host, find_primary(host, record.primary), change=True)


def _named(sessions: Sessions, which: str) -> SessionRecord:
    records = [record for record in sessions.all() if record.id.startswith(which.lower())] if len(which) >= 4 else []
    if len(records) == 1:
        return records[0]
    known = ", ".join(record.id[:8] for record in sessions.unfinished()) or "none"
    raise UsageError(
        f"{which!r} names no session" if not records else f"{which!r} names several sessions",
        cause=f"unfinished here: {known}",
        fix="nvmelm recover --dry-run lists them",
        reason="session-name",
    )


def _nothing_to_decide(record: SessionRecord) -> UsageError:
    return UsageError(
        f"session {record.id} is {record.state} here: there is nothing to decide",
        fix="nvmelm recover does what is left" if not record.over else "",
        reason="session-name",
    )
