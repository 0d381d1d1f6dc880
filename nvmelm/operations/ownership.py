"""Who owns a controller that is on its way: the sessions of this host, and the states each of them may go through.

A session is one migration of one or several controlled functions between two hosts. Each host keeps its own record of
it, in a database that is synced to the disk before the message that depends on it is sent. The rule that follows from
the two tables, whatever is killed and whenever: the destination runs only after the source has written that it gave the
controllers away, and after that the source does not run them again unless the destination has written that it never
will.

::

    source                                          destination

    open ----------------> rolled-back              preparing ------------> abandoned
      |                        ^                        |                       ^
    suspending ----------------+                      loaded -------------------+
      |                                                 |                       |
    given-away ----> returned (both agreed)           accepted -----------------+
      |        `---> taken    (an operator's word)      |       (an operator's word)
    done                                              running

=============  ==========================================================================================
source
open           the session is known here; the controllers run, or were suspended before it
suspending     written before the first suspend is sent: the controllers may stand still
given-away     written before the destination is told: the controllers are not resumed here any more
done           the destination said that it runs them, and here they were taken offline
rolled-back    the move failed before the give-away; the controllers run here as before
returned       given away, but the destination wrote that it abandoned them: they run here again
taken          given away, and an operator took them back on his own word
destination
preparing      written before the first change: the targets may be suspended, or hold a part of a state
loaded         all states are in and proven, the targets are suspended; the source is told after this
accepted       the source gave the controllers away; they are resumed after this, and only here
running        they were resumed
abandoned      the targets hold nothing of the session, and will never run it
=============  ==========================================================================================
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from nvmelm.errors import BusyError, HostError, MalformedError, UncertainError
from nvmelm.operations import store
from nvmelm.transport import Host

if TYPE_CHECKING:
    import sqlite3

FORMAT = 1
#: The reason of a HostError after which a record may be on the disk all the same: the disk itself failed.
DOUBTFUL = "sessions-doubtful"
#: How long another process may hold the database; it holds it for one small transaction.
_BUSY_S = 10.0


class Side(StrEnum):
    """Which part a host takes in a session."""

    SOURCE = "source"
    DESTINATION = "destination"


class State(StrEnum):
    """What a host has written down of a session; see the module's table."""

    OPEN = "open"
    SUSPENDING = "suspending"
    GIVEN_AWAY = "given-away"
    DONE = "done"
    ROLLED_BACK = "rolled-back"
    RETURNED = "returned"
    TAKEN = "taken"
    PREPARING = "preparing"
    LOADED = "loaded"
    ACCEPTED = "accepted"
    RUNNING = "running"
    ABANDONED = "abandoned"


#: From each state, the states it may be followed by.
NEXT: dict[State, frozenset[State]] = {
    State.OPEN: frozenset({State.SUSPENDING, State.ROLLED_BACK}),
    State.SUSPENDING: frozenset({State.GIVEN_AWAY, State.ROLLED_BACK}),
    State.GIVEN_AWAY: frozenset({State.DONE, State.RETURNED, State.TAKEN}),
    State.PREPARING: frozenset({State.LOADED, State.ABANDONED}),
    State.LOADED: frozenset({State.ACCEPTED, State.ABANDONED}),
    State.ACCEPTED: frozenset({State.RUNNING, State.ABANDONED}),
    State.DONE: frozenset(),
    State.ROLLED_BACK: frozenset(),
    State.RETURNED: frozenset(),
    State.TAKEN: frozenset(),
    State.RUNNING: frozenset(),
    State.ABANDONED: frozenset(),
}
FIRST = {Side.SOURCE: State.OPEN, Side.DESTINATION: State.PREPARING}
#: In these the controllers of a session must not be resumed here by anything but the session itself.
NOT_OURS = frozenset({State.GIVEN_AWAY, State.PREPARING, State.LOADED, State.ACCEPTED})


@dataclass(frozen=True, slots=True)
class Moving:
    """One controlled function of a session, as it was on this host when the session began.

    Attributes:
        incarnation: the VF's; another one is another VF.
        vq, vi: its flexible resources, to bring it back after it was taken offline.
        was_suspended: it stood still before the session began, and does so again after a roll-back.
    """

    cntlid: int
    peer_cntlid: int
    incarnation: int
    vq: int
    vi: int
    was_suspended: bool = False


@dataclass(frozen=True, slots=True)
class Record:
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
    def names(self) -> str:
        """Return the controllers as text."""
        return ", ".join(f"{one.cntlid:#06x}" for one in self.controllers)


class Sessions:
    """The sessions of one host."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.path = sessions_path(host)
        self._connection: sqlite3.Connection | None = None

    def open(self, record: Record) -> Record:
        """Write a new session down.

        Raises:
            BusyError: one of its controllers is in a session that is not over.
            HostError: it cannot be written; nothing may be changed then.
        """
        store.private_directory(self.path.parent)
        with self._database() as database:
            for other in _select(database, "WHERE address = ?", record.primary):
                _refuse_overlap(other, {one.cntlid for one in record.controllers})
            values = (record.id, record.side, record.primary, record.state, _to_json(record))
            database.execute("INSERT INTO sessions VALUES (?, ?, ?, ?, ?)", values)
        return record

    def require_free(self, primary: str, cntlids: Collection[int]) -> None:
        """Refuse controllers of a session that is not over.

        Raises:
            BusyError: the session is named.
        """
        for other in self._read("WHERE address = ?", primary):
            _refuse_overlap(other, set(cntlids))

    def move(self, record: Record, to: State, note: str = "") -> Record:
        """Write a session's next state down; it is on the disk when this returns.

        Raises:
            UncertainError: the session is not in the state the caller believes: somebody else decided meanwhile.
            HostError: it cannot be written; the earlier state stands.
        """
        now = _now()
        history = (*record.history, (to.value, now))
        moved = replace(record, state=to, changed_at=now, note=note or record.note, history=history)
        if to not in NEXT[record.state]:
            raise UncertainError(f"session {record.id} cannot go from {record.state} to {to}", reason="session-state")
        with self._database() as database:
            done = database.execute(
                "UPDATE sessions SET state = ?, record = ? WHERE id = ? AND side = ? AND state = ?",
                (to, _to_json(moved), record.id, record.side, record.state),
            )
            if done.rowcount != 1:
                raise UncertainError(
                    f"session {record.id} is not {record.state} any more",
                    cause="another nvmelm decided about it meanwhile",
                    fix="nvmelm recover --dry-run shows what is known",
                    reason="session-state",
                )
        return moved

    def get(self, session: str, side: Side) -> Record | None:
        """Return this host's record of a session, or None when it never heard of it.

        A host that moves a controller between two PFs of its own has both sides.
        """
        found = self._read("WHERE id = ? AND side = ?", session, side)
        return found[0] if found else None

    def all(self) -> list[Record]:
        """Return every session, the oldest first."""
        return self._read("ORDER BY rowid")

    def unfinished(self) -> list[Record]:
        """Return the sessions in which something is left to be decided, the oldest first."""
        return [one for one in self.all() if not one.over]

    def holding(self, primary: str, cntlid: int, incarnation: int) -> Record | None:
        """Return the session because of which a controller must not be resumed here, or None.

        A controller that was made anew since is another one.
        """
        for record in reversed(self._read("WHERE address = ? ORDER BY rowid", primary)):
            here = [one for one in record.controllers if (one.cntlid, one.incarnation) == (cntlid, incarnation)]
            if here and record.boot == self._host.facts().boot_id:
                return record if record.state in NOT_OURS else None
        return None

    def _read(self, clause: str, *values: str) -> list[Record]:
        if not self.path.exists():
            return []
        with self._database() as database:
            return _select(database, clause, *values)

    def close(self) -> None:
        """Let go of the database."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        """Hold the database for one transaction, which is on the disk when the block ends."""
        import sqlite3  # here: a verb that opens no session need not load it

        try:
            database = self._connection or self._connect()
            database.execute("BEGIN IMMEDIATE")
            try:
                yield database
                database.execute("COMMIT")
            finally:
                if database.in_transaction:
                    database.execute("ROLLBACK")
        except sqlite3.OperationalError as error:  # full, read-only, locked for too long; or a disk that fails
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_IOERR:
                raise self._unwritable(str(error), reason="sessions-doubtful") from error
            raise self._unwritable(str(error), reason="sessions-unwritable") from error
        except sqlite3.DatabaseError as error:
            raise MalformedError(
                f"{self.path} cannot be read: {error}",
                cause="the database of sessions was damaged; it says who owns controllers that were moved",
                fix="bring it back from a backup, or move it away when no session is unfinished on either host",
                reason="sessions-damaged",
            ) from error
        except OSError as error:
            raise self._unwritable(error.strerror or str(error), reason="sessions-unwritable") from error

    def _connect(self) -> sqlite3.Connection:
        """Open the database; one connection is kept, since the last one to close tidies the log up."""
        import sqlite3

        # Used by whichever thread holds the session, one at a time.
        database = sqlite3.connect(self.path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            self.path.chmod(0o600)  # before there is anything in it; the files beside it follow
            # Each commit waits for the disk, and is one write to it where a rollback journal would make three.
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            _create(database)
        except BaseException:
            database.close()
            raise
        self._connection = database
        return database

    def _unwritable(self, text: str, *, reason: str) -> HostError:
        return HostError(
            f"cannot keep the session: {self.path}: {text}",
            path=str(self.path),
            cause="who owns a controller is written down before it is acted upon",
            fix="make room on the file system, or repair it; then nvmelm recover",
            reason=reason,
        )


def sessions_path(host: Host) -> Path:
    """Return the file of a host's sessions."""
    return host.state_dir / "sessions.db"


def new_record(
    host: Host, session: str, side: Side, *, peer: str, primary: str, serial: str, controllers: tuple[Moving, ...]
) -> Record:
    """Return the first record of a session."""
    now, first = _now(), FIRST[side]
    return Record(
        id=session,
        side=side,
        state=first,
        peer=peer,
        primary=primary,
        serial=serial,
        boot=host.facts().boot_id,
        controllers=controllers,
        opened_at=now,
        changed_at=now,
        history=((first.value, now),),
    )


def require_ours(host: Host, primary: str, cntlid: int, incarnation: int) -> None:
    """Refuse to resume a controller that a session holds or has given away.

    Raises:
        UncertainError: it may run on another host, or is about to.
    """
    with Sessions(host) as sessions:
        record = sessions.holding(primary, cntlid, incarnation)
    if record is None:
        return
    raise UncertainError(
        f"controller {cntlid:#06x} is not resumed: session {record.id} is {record.state} here",
        cause=f"its other copy is at {record.peer or 'the other host'}, and two running copies would destroy its data",
        fix="nvmelm recover",
        reason="owned-elsewhere",
    )


def _refuse_overlap(other: Record, cntlids: set[int]) -> None:
    shared = {one.cntlid for one in other.controllers} & cntlids
    if shared and not other.over:
        names = ", ".join(f"{one:#06x}" for one in sorted(shared))
        raise BusyError(
            f"{names} is in a session that is not over",
            cause=f"session {other.id} with {other.peer or 'another host'} is {other.state}",
            fix="nvmelm recover",
            reason="session-unfinished",
        )


def _create(database: sqlite3.Connection) -> None:
    database.execute(
        "CREATE TABLE IF NOT EXISTS sessions (id TEXT NOT NULL, side TEXT NOT NULL, address TEXT NOT NULL,"
        " state TEXT NOT NULL, record TEXT NOT NULL, PRIMARY KEY (id, side))"
    )


def _select(database: sqlite3.Connection, clause: str, *values: str) -> list[Record]:
    rows = database.execute(f"SELECT record FROM sessions {clause}", values).fetchall()  # noqa: S608  # clauses are ours
    return [_from_json(text) for (text,) in rows]


def _to_json(record: Record) -> str:
    body: dict[str, Any] = {"format": FORMAT}
    for name in ("id", "side", "state", "peer", "primary", "serial", "boot", "opened_at", "changed_at", "note"):
        body[name] = getattr(record, name)
    body["controllers"] = [
        {name: getattr(one, name) for name in Moving.__dataclass_fields__} for one in record.controllers
    ]
    body["history"] = record.history
    return json.dumps(body, separators=(",", ":"))


def _from_json(text: str) -> Record:
    try:
        body = json.loads(text)
        if body.pop("format") != FORMAT:
            raise ValueError("another format")
        body["side"], body["state"] = Side(body["side"]), State(body["state"])
        body["controllers"] = tuple(Moving(**one) for one in body["controllers"])
        body["history"] = tuple((str(state), str(at)) for state, at in body["history"])
        return Record(**body)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MalformedError(
            "a session's record cannot be read",
            cause="the database of sessions was damaged, or written by a newer nvmelm",
            fix="use the nvmelm that wrote it",
            reason="sessions-damaged",
        ) from error


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
