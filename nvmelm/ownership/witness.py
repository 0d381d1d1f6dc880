"""What is known of the database of sessions without it: that there is one, and how many changes it has seen at least.

::

    ownership/sessions.json    {"format":1,"database":"5f0c…","changes":17}

A database that was removed looks like a host that never moved anything, and an older copy of it like one that still
owns what it gave away by now. Either would let a second copy of a controller run. So the database counts its changes,
and this file, in a directory of its own, says which database it was and how far it had counted:

* it is on the disk before the first session is, and so before anything is given away;
* after each change it is written in place, without waiting for the disk while a guest stands still: what a power
  failure takes from it belongs to a boot that is over, and no controller of that boot holds a state any more;
* it is never ahead of the database, so a process that dies between the two leaves nothing that contradicts it.

A database without a witness is believed: an earlier nvmelm made it.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from nvmelm.disk import store
from nvmelm.disk.own import open_own, own_error
from nvmelm.errors import MalformedError, OwnFileError
from nvmelm.host import Host

_FORMAT = 1
#: One length, so that it is written in place, and within a sector: never half of it is there.
_BYTES = 256


class Witness(NamedTuple):
    """What a database of sessions must be.

    Attributes:
        database: its name, 32 hexadecimal digits, given when it was made.
        changes: how many it has seen at least.
    """

    database: str
    changes: int


def witness_path(host: Host) -> Path:
    """Return the file of a host's witness."""
    return host.state_dir / "ownership" / "sessions.json"


def read(host: Host) -> Witness | None:
    """Return what is known of the database without it; None: no session was ever opened here.

    Raises:
        MalformedError: it cannot be read; what it spoke of is not known.
        HostError: the disk refuses.
    """
    path = witness_path(host)
    try:
        with _locked(path, os.O_RDONLY, fcntl.LOCK_SH) as descriptor:
            return _parse(path, os.pread(descriptor, _BYTES, 0))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise own_error("cannot read", path, error) from error


def keep(host: Host, witness: Witness) -> None:
    """Have it on the disk that there is a database; the caller then writes into that.

    Raises:
        HostError: it cannot be written.
    """
    path = witness_path(host)
    if read(host) is None:
        store.write(path, _text(witness))  # two who are first write of the same database, and a low number is no lie
        return
    try:
        with _locked(path, os.O_RDWR, fcntl.LOCK_EX) as descriptor:
            _raise(path, descriptor, witness)
        with _locked(path, os.O_RDONLY, fcntl.LOCK_SH) as descriptor:
            os.fsync(descriptor)
    except OSError as error:
        raise own_error("cannot write", path, error) from error


def follow(host: Host, witness: Witness) -> None:
    """Say how far the database has counted now; where that fails less is known, and nothing is wrong."""
    path = witness_path(host)
    with suppress(OSError, OwnFileError, MalformedError), _locked(path, os.O_RDWR, fcntl.LOCK_EX) as descriptor:
        _raise(path, descriptor, witness)


def forget(host: Host) -> None:
    """Remove it: from here on there was no database."""
    store.remove(witness_path(host))


def damaged(path: Path, what: str) -> MalformedError:
    """Return the error of sessions that cannot be believed, whichever verb asks for them.

    Args:
        path: of the database.
        what: is wrong with it, a clause.
    """
    return MalformedError(
        f"the sessions of this host cannot be read: {path} {what}",
        cause="it says which controllers were given to other hosts; without it a second copy of one could be run",
        fix="bring the newest copy of it back; or, once no controller that is here runs on another host: "
        "nvmelm recover --new-sessions",
        reason="sessions-damaged",
    )


@contextmanager
def _locked(path: Path, flags: int, how: int) -> Iterator[int]:
    """Open the file, and keep writers and readers of half of it apart: for the length of one small write."""
    descriptor = open_own(path, flags | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, how)
        yield descriptor
    finally:
        os.close(descriptor)


def _raise(path: Path, descriptor: int, witness: Witness) -> None:
    """Write a witness in place, unless another process has said more meanwhile, or of another database."""
    before = _parse(path, os.pread(descriptor, _BYTES, 0))
    if before.database == witness.database and before.changes < witness.changes:
        os.pwrite(descriptor, _text(witness).encode(), 0)


def _text(witness: Witness) -> str:
    return json.dumps({"format": _FORMAT, **witness._asdict()}, separators=(",", ":")).ljust(_BYTES - 1) + "\n"


def _parse(path: Path, raw: bytes) -> Witness:
    try:
        body = json.loads(raw)
        if body.pop("format") != _FORMAT:
            raise ValueError("another format")
        witness = Witness(**body)
        if not isinstance(witness.database, str) or type(witness.changes) is not int:
            raise TypeError("a part of another kind")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise damaged(path, "is not what nvmelm wrote") from error
    return witness
