"""The file of a host's sessions, held for one transaction at a time: what is in it is true, or is refused.

It may be gone, damaged, replaced while it is open, or an older copy. What :mod:`nvmelm.ownership.witness` knows of it
says so, before anybody acts upon what is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

from nvmelm.disk import store
from nvmelm.errors import BusyError, HostError, RecordInDoubtError
from nvmelm.host import Host
from nvmelm.ownership import database as tables
from nvmelm.ownership import witness

if TYPE_CHECKING:
    import sqlite3

_BEFORE = "who owns a controller is written down before it is acted upon"
_REPAIR = "make room on the file system, or repair it; then nvmelm recover"
_Files = tuple[tuple[int, int] | None, ...]
#: How long another process may hold the database; it holds it for one small transaction.
_BUSY_S = 10.0


class SessionsFile:
    """The database in which a host keeps its sessions.

    Attributes:
        path: where it is; it need not be there yet.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self.path = sessions_path(host)
        self._connection: sqlite3.Connection | None = None
        self._files: _Files = ()

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
    def _database(self, *, writing: bool = True) -> Iterator[sqlite3.Connection]:
        """Hold the database for one transaction, which is on the disk when the block ends.

        Args:
            writing: nobody else may write meanwhile; reading waits for no writer.
        """
        with self._explained():
            known = witness.read(self._host)
            database = self._connection or self._connect(known)
            self._require_same_file()
            database.execute("BEGIN IMMEDIATE" if writing else "BEGIN")
            try:
                self._require_true(database, known)
                yield database
                database.execute("COMMIT")
                self._require_same_file()
            finally:
                if database.in_transaction:
                    database.execute("ROLLBACK")

    @contextmanager
    def _explained(self, failed: str = "cannot keep the session") -> Iterator[None]:
        """Have what SQLite says of the database raised as what it means.

        Args:
            failed: what could not be done.
        """
        import sqlite3  # here: a verb that opens no session need not load it

        try:
            yield
        except sqlite3.OperationalError as error:  # full, read-only, locked for too long; or a disk that fails
            # The low byte is the primary code: an extended one, such as IOERR_FSYNC, says in which call it happened.
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_IOERR:
                raise self._in_doubt(str(error)) from error
            raise self._refused(failed, str(error)) from error
        except sqlite3.IntegrityError as error:
            raise repeated() from error
        except sqlite3.DatabaseError as error:
            raise witness.damaged(self.path, f"is damaged: {error}") from error
        except OSError as error:
            raise self._refused(failed, error.strerror or str(error)) from error

    def _is_there(self) -> bool:
        """Return whether this host ever took part in a session.

        Raises:
            MalformedError: it did, and the database is gone.
        """
        known = witness.read(self._host)  # first: it comes after the database
        if store.holds(self.path):
            return True
        if known is not None:
            raise witness.damaged(self.path, "is gone")
        return False

    def _require_true(self, database: sqlite3.Connection, known: witness.Witness | None) -> None:
        """Refuse a database that is not the one of this host, or an older copy of it.

        Args:
            database: in a transaction.
            known: what was known before that.

        Raises:
            MalformedError: it names other owners than the one that was here.
        """
        if not tables.is_one(database):
            raise witness.damaged(self.path, "holds no sessions: it was emptied, or is another program's")
        if known is None:
            return
        life = tables.life(database)
        if life is None or life.database != known.database:
            raise witness.damaged(self.path, "is another one than that of this host")
        if life.changes < known.changes:
            raise witness.damaged(self.path, f"is an older copy: it has {life.changes} of {known.changes} changes")

    def _connect(self, known: witness.Witness | None) -> sqlite3.Connection:
        """Open the database; one connection is kept, since the last one to close tidies the log up."""
        import sqlite3

        if not self._is_there():
            tables.make(self.path)
        # Used by whichever thread holds the session, one at a time.
        database = sqlite3.connect(self.path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            self.path.chmod(0o600)  # before there is anything in it; the files beside it follow
            self._require_true(database, known)  # what is none of ours stays as it is
            # Each commit waits for the disk, and is one write to it where a rollback journal would make three.
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            tables.create(database)
            self._files = self._identities()
        except BaseException:
            database.close()
            raise
        self._connection = database
        return database

    def _require_same_file(self) -> None:
        """Refuse to go on when the file that was opened is not the one that the next nvmelm will open.

        Raises:
            HostError: it was removed or replaced; what is on the disk under its name is not known.
        """
        if self._identities() != self._files:
            raise self._replaced()

    def _identities(self) -> _Files:
        """Return which files the database consists of: the log and its index hold what was written last."""
        return tuple(_identity(self.path.with_name(self.path.name + end)) for end in ("", "-wal", "-shm"))

    def _replaced(self) -> RecordInDoubtError:
        return RecordInDoubtError(
            f"cannot keep the session: {self.path} was removed or replaced meanwhile",
            path=str(self.path),
            cause="who owns a controller was written into a file that nobody will find again",
            fix="find out who did that; then nvmelm recover, on either host",
        )

    def _in_doubt(self, text: str) -> RecordInDoubtError:
        return RecordInDoubtError(
            f"cannot keep the session: {self.path}: {text}", path=str(self.path), cause=_BEFORE, fix=_REPAIR
        )

    def _refused(self, failed: str, text: str) -> HostError:
        return HostError(
            f"{failed}: {self.path}: {text}",
            path=str(self.path),
            cause=_BEFORE,
            fix=_REPAIR,
            reason="sessions-unwritable",
        )


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        about = path.stat()
    except FileNotFoundError:
        return None
    return about.st_dev, about.st_ino


def sessions_path(host: Host) -> Path:
    """Return the file of a host's sessions."""
    return host.state_dir / "sessions.db"


def repeated() -> BusyError:
    """Return the refusal of a session that is opened twice."""
    return BusyError(
        "a session of that number is known here already",
        cause="each migration has a number of its own; this one was opened twice",
        fix="migrate again",
        reason="session-repeated",
    )
