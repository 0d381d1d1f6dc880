"""Who owns a controller that is on its way: the sessions of this host, and the states each of them may go through.

A session is one migration of one or several controlled functions between two hosts. Each host keeps its own record of
it, in a database that is synced to the disk before the message that depends on it is sent. The rule that follows from
the two tables, whatever is killed and whenever: the destination runs only after the source has written that it gave the
controllers away, and after that the source does not run them again unless the destination has written that it never
will. Nothing is over before the controllers run, or are gone: a state that is written before a resume is not the last.

::

    source                                          destination

    open ----------------> rolled-back              preparing ------------> abandoned
      |                       ^   ^                     |                    ^     ^
    suspending ---------------+   |                   loaded ----------------+     |
      |     `----> rolling-back --+                     |   `-- (a word) --> abandoning
      |              |                                accepted - (a word) -----^
    given-away <-----+ (a word)                         |
      |    |`----> returning ----> returned           running
      |    `-----> taking -------> taken
      |              |    (a word; returning as well)
    done <-----------+

=============  ==========================================================================================
source
open           the session is known here; the controllers run, or were suspended before it
suspending     written before the first suspend is sent: the controllers may stand still
rolling-back   it is not sure that given-away is not on the disk; they are resumed after this, nothing was sent
given-away     written before the destination is told: the controllers are not resumed here any more
done           the destination said that it runs them, or an operator gave them up; here they were taken offline
rolled-back    the move failed before the give-away; the controllers run here as before
returning      given away, but the destination wrote that it abandoned them: they are resumed after this
returned       they were resumed: they run here again
taking         given away, and an operator took them back on his own word: they are resumed after this
taken          they were resumed
destination
preparing      written before the first change: the targets may be suspended, or hold a part of a state
loaded         all states are in and proven, the targets are suspended; the source is told after this
accepted       the source gave the controllers away; they are resumed after this, and only here
running        they were resumed
abandoning     an operator gave them up: the targets never run the session's state; they are put back after this
abandoned      the targets hold nothing of the session, and will never run it
=============  ==========================================================================================
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from nvmelm.errors import MalformedError
from nvmelm.host import Host

FORMAT = 1
#: What the note of a copy begins with that was let go on an operator's word.
GIVEN_UP = "given up on an operator's word"


class Side(StrEnum):
    """Which part a host takes in a session."""

    SOURCE = "source"
    DESTINATION = "destination"


class State(StrEnum):
    """What a host has written down of a session; see the module's table."""

    OPEN = "open"
    SUSPENDING = "suspending"
    ROLLING_BACK = "rolling-back"
    GIVEN_AWAY = "given-away"
    DONE = "done"
    ROLLED_BACK = "rolled-back"
    RETURNING = "returning"
    RETURNED = "returned"
    TAKING = "taking"
    TAKEN = "taken"
    PREPARING = "preparing"
    LOADED = "loaded"
    ACCEPTED = "accepted"
    RUNNING = "running"
    ABANDONING = "abandoning"
    ABANDONED = "abandoned"


#: From each state, the states it may be followed by.
NEXT: dict[State, frozenset[State]] = {
    State.OPEN: frozenset({State.SUSPENDING, State.ROLLED_BACK}),
    State.SUSPENDING: frozenset({State.GIVEN_AWAY, State.ROLLED_BACK, State.ROLLING_BACK}),
    State.ROLLING_BACK: frozenset({State.ROLLED_BACK, State.GIVEN_AWAY}),
    State.GIVEN_AWAY: frozenset({State.DONE, State.RETURNING, State.TAKING}),
    State.RETURNING: frozenset({State.RETURNED, State.DONE}),
    State.TAKING: frozenset({State.TAKEN, State.DONE}),
    State.PREPARING: frozenset({State.LOADED, State.ABANDONED}),
    State.LOADED: frozenset({State.ACCEPTED, State.ABANDONED, State.ABANDONING}),
    State.ACCEPTED: frozenset({State.RUNNING, State.ABANDONED, State.ABANDONING}),
    State.ABANDONING: frozenset({State.ABANDONED}),
    State.DONE: frozenset(),
    State.ROLLED_BACK: frozenset(),
    State.RETURNED: frozenset(),
    State.TAKEN: frozenset(),
    State.RUNNING: frozenset(),
    State.ABANDONED: frozenset(),
}
FIRST = {Side.SOURCE: State.OPEN, Side.DESTINATION: State.PREPARING}
#: In these the controllers of a session must not be resumed here by anything but the session itself.
NOT_OURS = frozenset({State.GIVEN_AWAY, State.TAKING, State.PREPARING, State.LOADED, State.ACCEPTED, State.ABANDONING})


@dataclass(frozen=True, slots=True)
class Moving:
    """One controlled function of a session, as it was on this host when the session began.

    Attributes:
        incarnation: the VF's; another one is another VF.
        vq, vi: its flexible resources, to bring it back after it was taken offline.
        was_suspended: it stood still before the session began, and does so again after a roll-back.
        idle: the state that moves has no I/O queues: a reset takes nothing away from it.
    """

    cntlid: int
    peer_cntlid: int
    incarnation: int
    vq: int
    vi: int
    was_suspended: bool = False
    idle: bool = False


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """A session as this host knows it.

    Attributes:
        id: 32 hexadecimal digits, the same on both hosts.
        peer: where the other host is reached, ``ssh://host/PF``; empty when that is not known.
        primary: PCI address of the PF here; ``serial`` and ``boot`` say which device and which boot.
        note: why it ended as it did, or what is known last.
    """

    id: str
    side: Side
    state: State
    peer: str
    primary: str
    serial: str
    boot: str
    controllers: tuple[Moving, ...]
    opened_at: str
    changed_at: str
    note: str = ""
    history: tuple[tuple[str, str], ...] = field(default=())

    @property
    def over(self) -> bool:
        """Return whether nothing is left to be decided here."""
        return not NEXT[self.state]

    @property
    def given_up(self) -> bool:
        """Return whether an operator let the copy here go: the other host may have none."""
        return self.note.startswith(GIVEN_UP)

    @property
    def names(self) -> str:
        """Return the controllers as text."""
        return ", ".join(f"{controller.cntlid:#06x}" for controller in self.controllers)


def new_record(
    host: Host, session: str, side: Side, *, peer: str, primary: str, serial: str, controllers: tuple[Moving, ...]
) -> SessionRecord:
    """Return the first record of a session."""
    moment, first = now(), FIRST[side]
    return SessionRecord(
        id=session,
        side=side,
        state=first,
        peer=peer,
        primary=primary,
        serial=serial,
        boot=host.facts().boot_id,
        controllers=controllers,
        opened_at=moment,
        changed_at=moment,
        history=((first.value, moment),),
    )


def to_json(record: SessionRecord) -> str:
    """Write a record as one line of JSON."""
    body: dict[str, Any] = {"format": FORMAT}
    for name in ("id", "side", "state", "peer", "primary", "serial", "boot", "opened_at", "changed_at", "note"):
        body[name] = getattr(record, name)
    body["controllers"] = [
        {name: getattr(controller, name) for name in Moving.__dataclass_fields__} for controller in record.controllers
    ]
    body["history"] = record.history
    return json.dumps(body, separators=(",", ":"))


def from_json(text: str) -> SessionRecord:
    """Read what :func:`to_json` wrote.

    Raises:
        MalformedError: it is damaged, or of a later version.
    """
    try:
        body = json.loads(text)
        if body.pop("format") != FORMAT:
            raise ValueError("another format")
        body["side"], body["state"] = Side(body["side"]), State(body["state"])
        body["controllers"] = tuple(_moving(controller) for controller in body["controllers"])
        body["history"] = tuple((State(state).value, str(at)) for state, at in body["history"])
        texts = (name for name, value in body.items() if name not in ("controllers", "history"))
        if not body["history"] or not all(isinstance(body[name], str) for name in texts):
            raise ValueError("a part of another kind")
        return SessionRecord(**body)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise MalformedError(
            "a session's record cannot be read",
            cause="the database of sessions was damaged, or written by a newer nvmelm",
            fix="use the nvmelm that wrote it",
            reason="sessions-damaged",
        ) from error


def _moving(body: dict[str, Any]) -> Moving:
    moving = Moving(**body)
    if not all(isinstance(getattr(moving, name), int) for name in Moving.__dataclass_fields__):
        raise ValueError("a number of another kind")
    return moving


def now() -> str:
    """Return the time, UTC, for people: nothing is decided by it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
