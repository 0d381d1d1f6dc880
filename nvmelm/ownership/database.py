"""The tables of the database of sessions: how they are made, read and counted.

``life`` has one row: the name that the database got when it was made, and how many changes it has seen. What it must
say is known without it, too: :mod:`nvmelm.ownership.witness`.
"""

from __future__ import annotations

import contextlib
import os
import threading
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from nvmelm.ownership.record import SessionRecord, Side, State, from_json
from nvmelm.ownership.witness import Witness

if TYPE_CHECKING:
    import sqlite3


def make(path: Path) -> None:
    """Make a database without sessions, whole or not at all: one that is there and has no table was emptied."""
    import sqlite3  # a verb that opens no session need not load it

    new = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        with contextlib.closing(sqlite3.connect(new, isolation_level=None)) as database:
            new.chmod(0o600)
            database.execute("PRAGMA synchronous = FULL")
            create(database)
        with contextlib.suppress(FileExistsError):  # another process was first
            os.link(new, path)
    finally:
        new.unlink(missing_ok=True)


def create(database: sqlite3.Connection) -> None:
    """Make the tables that are missing: a database may be of an earlier nvmelm."""
    database.execute(
        "CREATE TABLE IF NOT EXISTS sessions (id TEXT NOT NULL, side TEXT NOT NULL, address TEXT NOT NULL,"
        " state TEXT NOT NULL, record TEXT NOT NULL, PRIMARY KEY (id, side))"
    )
    database.execute("CREATE TABLE IF NOT EXISTS room (bytes BLOB)")
    database.execute(
        "CREATE TABLE IF NOT EXISTS ended (id TEXT NOT NULL, side TEXT NOT NULL, state TEXT NOT NULL,"
        " PRIMARY KEY (id, side)) WITHOUT ROWID"
    )
    database.execute("CREATE TABLE IF NOT EXISTS life (database TEXT NOT NULL, changes INTEGER NOT NULL)")
    if life(database) is None:
        name = uuid.uuid4().hex
        database.execute("INSERT INTO life SELECT ?, 0 WHERE NOT EXISTS (SELECT 1 FROM life)", (name,))


def is_one(database: sqlite3.Connection) -> bool:
    """Return whether this is a database of sessions: every file of ours has had the table from its beginning."""
    return _has(database, "sessions")


def life(database: sqlite3.Connection) -> Witness | None:
    """Return the name and the count of a database; None: it is of an nvmelm that had none."""
    if not _has(database, "life"):
        return None
    row = database.execute("SELECT database, changes FROM life").fetchone()
    return Witness(*row) if row else None


def count(database: sqlite3.Connection) -> None:
    """Count a change, in its transaction."""
    database.execute("UPDATE life SET changes = changes + 1")


def select(database: sqlite3.Connection, clause: str, *values: str) -> list[SessionRecord]:
    """Return the records that a clause of ours picks."""
    rows = database.execute(f"SELECT record FROM sessions {clause}", values).fetchall()  # noqa: S608  # clauses are ours
    return [from_json(text) for (text,) in rows]


def ended(database: sqlite3.Connection, session: str, side: Side) -> SessionRecord | None:
    """Return what is left of a session that was pruned: its state."""
    query = "SELECT state FROM ended WHERE id = ? AND side = ?"
    for (state,) in database.execute(query, (session, side)):
        note = "it ended long ago, and only its state is known"
        return SessionRecord(session, side, State(state), "", "", "", "", (), "", "", note)
    return None


def _has(database: sqlite3.Connection, table: str) -> bool:
    query = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
    return database.execute(query, (table,)).fetchone() is not None
