"""``recover`` between two hosts: every session of this host that is not over, what it means, and its end.

What needs no word of the other host is done at once. The rest is asked over the same kind of link as a migration's.
What the two cannot decide takes an operator's word, for one session at a time, once it was said what that risks.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from nvmelm.errors import NvmelmError, UncertainError, UsageError
from nvmelm.inventory import find_primary
from nvmelm.migrate.link import Link
from nvmelm.migrate.points import Points
from nvmelm.migrate.settle import alone, ask, finish_source, put_back, run_again, run_here, settle, told
from nvmelm.model import SessionView
from nvmelm.operations.apply import Confirm
from nvmelm.operations.ownership import Record, Sessions, Side, State
from nvmelm.operations.session import Session, require_privilege, session
from nvmelm.transport import Host

Connect = Callable[[Record], AbstractContextManager[Link]]
"""Opens a link to the other host of a session."""

MEANING = {
    State.OPEN: "the migration was cut off before the controllers were suspended",
    State.SUSPENDING: "the migration was cut off before the give-away: the controllers stand still and are still ours",
    State.GIVEN_AWAY: "the controllers were given away, and nothing was heard since: they may run at the destination",
    State.PREPARING: "the migration was cut off before the states were in: the targets may be suspended",
    State.LOADED: "the targets hold every state, suspended; whether the source gave them away is not known here",
    State.ACCEPTED: "the source gave the controllers away; whether they were resumed here is not known",
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
        return [_one(host, sessions, record, means, dry_run=dry_run) for record in sessions.unfinished()]


def take(host: Host, which: str, means: Means) -> SessionView:
    """Run a session's controllers here on an operator's word: the other copy must never run.

    Raises:
        UsageError: no such session, or nothing is to be taken.
        NvmelmError: the device refused.
    """
    with Sessions(host) as sessions:
        record = _named(sessions, which)
        if record.state not in (State.GIVEN_AWAY, State.LOADED, State.ACCEPTED):
            raise _nothing_to_decide(record)
        means.confirm(
            f"session {record.id} is {record.state} here. If the other host ({record.peer or 'unknown'}) runs "
            f"{record.names}, or runs them later, two copies write to the same namespaces and destroy the data. Make "
            "sure that it is switched off, or that its copy is offline. Run them here?"
        )
        with _opened(host, record) as opened:
            points = means.points(record.side)
            if record.side is Side.SOURCE:
                why = "taken back on an operator's word"
                done = run_again(opened, sessions, record, State.TAKEN, why, points, write_first=True)
            else:
                done = run_here(opened, sessions, record, points)
    return view(record, done, None, "on the operator's word")


def give_up(host: Host, which: str, means: Means) -> SessionView:
    """Let a session's controllers go here on an operator's word: they will never run here.

    Raises:
        UsageError: no such session, or nothing is to be given up.
        NvmelmError: the device refused.
    """
    with Sessions(host) as sessions:
        record = _named(sessions, which)
        if record.state not in (State.GIVEN_AWAY, State.LOADED, State.ACCEPTED, State.PREPARING):
            raise _nothing_to_decide(record)
        means.confirm(
            f"session {record.id} is {record.state} here. The copy of {record.names} on this host is destroyed; if "
            f"the other host ({record.peer or 'unknown'}) has none, what the guest had in flight is lost. Give it up?"
        )
        done = _let_go(host, sessions, record, means.points(record.side))
    return view(record, done, None, "on the operator's word")


def view(before: Record, after: Record, peer_state: State | None, note: str = "") -> SessionView:
    """Return a session as the report shows it."""
    return SessionView(
        session=before.id,
        side=before.side.value,
        state=before.state,
        settled=None if after.state is before.state else after.state.value,
        peer=before.peer,
        peer_state=peer_state,
        primary=before.primary,
        cntlids=tuple(one.cntlid for one in before.controllers),
        opened_at=before.opened_at,
        meaning=MEANING[before.state],
        note=note,
        resolved=after.over,
    )


def _one(host: Host, sessions: Sessions, record: Record, means: Means, *, dry_run: bool) -> SessionView:
    """Decide one session, and say what came of it; one that fails does not keep the others back."""
    if dry_run:
        return view(record, record, None)
    points = means.points(record.side)
    before, theirs = record, None
    try:
        with _opened(host, record) as opened:
            record = sessions.get(record.id, record.side) or record  # whoever held the lock may have gone on
            if record.over:
                return view(before, record, None)
            record = alone(opened, sessions, record, points)
            if means.connect is None:
                return view(before, record, None, "" if record.over else "the other host was not asked")
            theirs = _ask(record, means)
            if theirs is not None:
                settled = settle(opened, sessions, record, theirs, points)
                if settled.state is not record.state:
                    record = settled
                    theirs = _ask(record, means) or theirs  # let the other side draw its conclusion, too
    except NvmelmError as error:
        return view(before, sessions.get(record.id, record.side) or record, theirs, told(error))
    return view(before, record, theirs)


def _ask(record: Record, means: Means) -> State | None:
    """Return what the other host has written; one that is not needed may be away."""
    if means.connect is None:
        return None
    try:
        with means.connect(record) as link:
            settled = ask(link, record, means.name)
    except NvmelmError:
        if record.over:
            return None
        raise
    if settled.state is None and not record.over:
        raise UncertainError(
            f"session {record.id} is not known at {record.peer}",
            cause=settled.note or "another host answers there, or its state directory was lost",
            fix="nvmelm recover --peer ssh://HOST names the host that was meant",
            reason="session-unknown",
        )
    return settled.state


def _let_go(host: Host, sessions: Sessions, record: Record, points: Points) -> Record:
    try:
        with _opened(host, record) as opened:
            if record.side is Side.SOURCE:
                return finish_source(opened, sessions, record)
            return put_back(opened, sessions, record, "given up on an operator's word", points)
    except (UsageError, UncertainError):  # the device is gone for good, and its copy with it
        to = State.DONE if record.side is Side.SOURCE else State.ABANDONED
        return sessions.move(record, to, "given up on an operator's word; the device was not there")


def _opened(host: Host, record: Record) -> AbstractContextManager[Session]:
    return session(host, find_primary(host, record.primary), change=True)


def _named(sessions: Sessions, which: str) -> Record:
    found = [one for one in sessions.all() if one.id.startswith(which.lower())] if len(which) >= 4 else []
    if len(found) == 1:
        return found[0]
    known = ", ".join(one.id[:8] for one in sessions.unfinished()) or "none"
    raise UsageError(
        f"{which!r} names no session" if not found else f"{which!r} names several sessions",
        cause=f"unfinished here: {known}",
        fix="nvmelm recover --dry-run lists them",
        reason="session-name",
    )


def _nothing_to_decide(record: Record) -> UsageError:
    return UsageError(
        f"session {record.id} is {record.state} here: there is nothing to decide",
        fix="nvmelm recover does what is left" if not record.over else "",
        reason="session-name",
    )
