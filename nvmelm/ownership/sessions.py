"""The sessions of a host in a database whose every change is on the disk before the call returns.

What a session is, and the states it may go through, stands in :mod:`nvmelm.ownership.record`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from dataclasses import replace

from nvmelm.disk.private import private_directory
from nvmelm.errors import BusyError, HostError, MalformedError, UncertainError
from nvmelm.host import Host
from nvmelm.ownership import database as tables
from nvmelm.ownership import sessions_log, witness
from nvmelm.ownership.file import SessionsFile, repeated, sessions_path
from nvmelm.ownership.record import (
    FIRST,
    NEXT,
    NOT_OURS,
    Moving,
    SessionRecord,
    Side,
    State,
    new_record,
    now,
    to_json,
)

__all__ = [
    "FIRST",
    "NEXT",
    "NOT_OURS",
    "Moving",
    "SessionRecord",
    "Sessions",
    "Side",
    "State",
    "new_record",
    "require_ours",
    "sessions_path",
]

#: What is written before somebody else counts on it: that must be what the next nvmelm reads.
_DECIDING = frozenset({State.GIVEN_AWAY, State.ACCEPTED, State.ABANDONED, State.TAKING})
#: What a session writes until it is over: some 4 states of a few pages each; with 8 controllers 2 KiB a state.
_ROOM_BYTES = 64 * 1024
#: Sessions that are kept whole, some 850 bytes each; the file of 20 000 took half a second of each verb.
_KEPT = 1000
#: So many are pruned in one go: half a megabyte of the log.
_AT_ONCE = 500


class Sessions(SessionsFile):
    """The sessions of one host."""

    def open(self, record: SessionRecord) -> SessionRecord:
        """Write a new session down, and make sure of room on the disk for what follows.

        Raises:
            BusyError: one of its controllers is in a session that is not over.
            HostError: it cannot be written; nothing may be changed then.
        """
        private_directory(self.path.parent)
        with contextlib.suppress(HostError):  # a disk that is full lets a session fail by itself, if at all
            self._prune()
        self._keep_witness()
        with self._database() as database:
            if tables.ended(database, record.id, record.side) is not None:
                raise repeated()
            for other in tables.select(database, "WHERE address = ?", record.primary):
                _refuse_overlap(other, {controller.cntlid for controller in record.controllers})
            values = (record.id, record.side, record.primary, record.state, to_json(record))
            database.execute("INSERT INTO sessions VALUES (?, ?, ?, ?, ?)", values)
            database.execute("INSERT INTO room VALUES (zeroblob(?))", (_ROOM_BYTES,))
            database.execute("DELETE FROM room")
            tables.count(database)
        self._follow()
        self._use_room()
        return record

    def _keep_witness(self) -> None:
        """Have it on the disk that there are sessions, before there is one."""
        with self._database(writing=False) as database:
            life = tables.life(database)
        if life is not None:
            witness.keep(self._host, life)

    def _follow(self) -> None:
        """Tell the witness how far the database has counted."""
        if self._connection is not None and (life := tables.life(self._connection)) is not None:
            witness.follow(self._host, life)

    def _use_room(self) -> None:
        """Let what is written next go where the log has been already.

        A file that grows makes each sync wait for the file system's journal, and a disk may be full by then; what
        follows is written while a guest stands still. When others read just now it is not done, and costs time only.
        """
        import sqlite3  # here: a verb that opens no session need not load it

        with contextlib.suppress(sqlite3.OperationalError):
            if self._connection is not None:
                self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def _prune(self) -> None:
        """Forget all but how it ended of sessions that ended long ago.

        What stays: those that are not over, the last :data:`_KEPT`, and the last of every controller in this boot,
        since that one says who its owner is. Of the others the state is kept for ever: the other host may still ask,
        and "no such session" would let it take the controllers for its own.
        """
        with self._database(writing=False) as database:
            (count,) = database.execute("SELECT count(*) FROM sessions").fetchone()
        if count <= _KEPT + _KEPT // 10:
            return
        boot = self._host.facts().boot_id
        with self._database() as database:
            records = tables.select(database, "ORDER BY rowid")
            last = {
                (record.primary, controller.cntlid, controller.incarnation): record.id
                for record in records
                for controller in record.controllers
                if record.boot == boot
            }
            kept = {*last.values(), *(record.id for record in records[-_KEPT:])}
            old = [
                (record.state, record.id, record.side) for record in records if record.over and record.id not in kept
            ][:_AT_ONCE]
            database.executemany("INSERT OR IGNORE INTO ended (state, id, side) VALUES (?, ?, ?)", old)
            database.executemany("DELETE FROM sessions WHERE state = ? AND id = ? AND side = ?", old)

    def require_free(self, primary: str, cntlids: Collection[int]) -> None:
        """Refuse controllers of a session that is not over.

        Raises:
            BusyError: the session is named.
        """
        for other in self._read("WHERE address = ?", primary):
            _refuse_overlap(other, set(cntlids))

    def move(self, record: SessionRecord, to: State, note: str = "") -> SessionRecord:
        """Write a session's next state down; it is on the disk when this returns.

        Raises:
            UncertainError: the session is not in the state the caller believes: somebody else decided meanwhile.
            HostError: it cannot be written; the earlier state stands.
        """
        moment = now()
        history = (*record.history, (to.value, moment))
        moved = replace(record, state=to, changed_at=moment, note=note or record.note, history=history)
        if to not in NEXT[record.state]:
            raise UncertainError(f"session {record.id} cannot go from {record.state} to {to}", reason="session-state")
        with self._database() as database:
            done = database.execute(
                "UPDATE sessions SET state = ?, record = ? WHERE id = ? AND side = ? AND state = ?",
                (to, to_json(moved), record.id, record.side, record.state),
            )
            if done.rowcount != 1:
                raise UncertainError(
                    f"session {record.id} is not {record.state} any more",
                    cause="another nvmelm decided about it meanwhile",
                    fix="nvmelm recover --dry-run shows what is known",
                    reason="session-state",
                )
            tables.count(database)
        self._follow()
        if to in _DECIDING:
            self._require_written(moved)
        return moved

    def _require_written(self, record: SessionRecord) -> None:
        """Read a record as the next nvmelm will: through a connection of its own, and from the files if this one ends.

        Raises:
            HostError: it is not what was written; somebody wrote over the file.
        """
        try:
            seen = self._seen("WHERE id = ? AND side = ?", record.id, record.side)
        except (HostError, MalformedError) as error:
            raise self._replaced() from error
        if not seen or seen[0].state is not record.state:
            raise self._replaced()
        with self._database():  # nobody else writes into the log meanwhile
            if not sessions_log.is_whole(self.path):
                raise self._replaced()

    def get(self, session: str, side: Side) -> SessionRecord | None:
        """Return this host's record of a session, or None when it never heard of it.

        A host that moves a controller between two PFs of its own has both sides.
        """
        if not self._is_there():
            return None
        with self._database(writing=False) as database:
            records = tables.select(database, "WHERE id = ? AND side = ?", session, side)
            return records[0] if records else tables.ended(database, session, side)

    def all(self) -> list[SessionRecord]:
        """Return every session, the oldest first."""
        return self._read("ORDER BY rowid")

    def seen(self) -> list[SessionRecord]:
        """Return every session, the oldest first, without ever making a writer wait."""
        return self._seen("ORDER BY rowid")

    def _seen(self, clause: str, *values: str) -> list[SessionRecord]:
        import sqlite3  # here: a verb that opens no session need not load it

        if not self._is_there():
            return []
        known = witness.read(self._host)
        with self._explained("cannot read the sessions"):
            place = f"{self.path.absolute().as_uri()}?mode=ro"
            with contextlib.closing(sqlite3.connect(place, uri=True, isolation_level=None)) as database:
                database.execute("BEGIN")
                self._require_true(database, known)
                return tables.select(database, clause, *values)

    def unfinished(self) -> list[SessionRecord]:
        """Return the sessions in which something is left to be decided, the oldest first."""
        return [record for record in self.all() if not record.over]

    def holding(self, primary: str, cntlid: int, incarnation: int) -> SessionRecord | None:
        """Return the session because of which nobody else may resume a controller here, or None.

        A session that is not over counts on what it did last: a copy that was resumed behind its back would be one of
        which it does not know, and be taken for lost when its guest has no I/O queues. A controller that was made anew
        since is another one.
        """
        for record in reversed(self._read("WHERE address = ? ORDER BY rowid", primary)):
            held = [
                controller
                for controller in record.controllers
                if (controller.cntlid, controller.incarnation) == (cntlid, incarnation)
            ]
            if held and record.boot == self._host.facts().boot_id:
                return None if record.over else record
        return None

    def _read(self, clause: str, *values: str) -> list[SessionRecord]:
        if not self._is_there():
            return []
        with self._database(writing=False) as database:
            return tables.select(database, clause, *values)


def require_ours(host: Host, primary: str, cntlid: int, incarnation: int) -> None:
    """Refuse to resume a controller of a session that is not over.

    Raises:
        UncertainError: it may run on another host, or is about to.
        BusyError: it is still ours, and the session has to resume it, so that the other host hears of it.
    """
    with Sessions(host) as sessions:
        record = sessions.holding(primary, cntlid, incarnation)
    if record is None:
        return
    if record.state not in NOT_OURS:
        _refuse_overlap(record, {cntlid})
    raise UncertainError(
        f"controller {cntlid:#06x} is not resumed: session {record.id} is {record.state} here",
        cause=f"its other copy is at {record.peer or 'the other host'}, and two running copies would destroy its data",
        fix="nvmelm recover",
        reason="owned-elsewhere",
    )


def _refuse_overlap(other: SessionRecord, cntlids: set[int]) -> None:
    shared = {controller.cntlid for controller in other.controllers} & cntlids
    if shared and not other.over:
        names = ", ".join(f"{cntlid:#06x}" for cntlid in sorted(shared))
        raise BusyError(
            f"{names} is in a session that is not over",
            cause=f"session {other.id} with {other.peer or 'another host'} is {other.state}",
            fix="nvmelm recover",
            reason="session-unfinished",
        )
