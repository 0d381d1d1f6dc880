"""Begin with new sessions, on an operator's word: those that were there are lost, damaged or an older copy.

What is left of them is kept for whoever wants to look into it. The witness goes last: whatever is cut off before that
leaves a host whose sessions are lost, as before.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from nvmelm.disk.atomic import sync_directory
from nvmelm.disk.private import private_directory
from nvmelm.errors import MalformedError, NotReadyError, host_error
from nvmelm.host import Host
from nvmelm.ownership import witness
from nvmelm.ownership.sessions import Sessions, sessions_path

#: The database goes last: beside a log that is another one's it would be read with it.
_PARTS = ("-wal", "-shm", "")


def begin_anew(host: Host, confirm: Callable[[str], None]) -> Path | None:
    """Put the sessions aside; every controller on this host is its own from here on.

    Args:
        confirm: asks the operator; raises when the answer is no.

    Returns:
        The directory in which they are kept, or None: nothing of them was there.

    Raises:
        NotReadyError: they can be read, and nothing is to be begun anew.
        HostError: they cannot be put aside.
    """
    trouble = _trouble(host)
    if trouble is None:
        raise NotReadyError(
            "the sessions of this host can be read",
            cause="new ones are begun only when they are lost, damaged or an older copy",
            fix="nvmelm recover; --take or --give-up decides about one session",
            reason="sessions-readable",
        )
    confirm(
        f"{trouble.message}. With new sessions every controller on this host counts as its own: one that was moved "
        "from here could be resumed, and two copies would write to the same namespaces and destroy the data. Make sure "
        "that none of them runs on another host. Begin with new sessions?"
    )
    aside = _put_aside(sessions_path(host))
    witness.forget(host)
    return aside


def _trouble(host: Host) -> MalformedError | None:
    try:
        with Sessions(host) as sessions:
            sessions.all()
    except MalformedError as error:
        return error
    return None


def _put_aside(path: Path) -> Path | None:
    files = [file for file in (path.with_name(path.name + part) for part in _PARTS) if file.exists()]
    if not files:
        return None
    aside = path.parent / "ownership" / f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
    try:
        private_directory(aside)
        for file in files:
            file.rename(aside / file.name)
        for directory in (aside, aside.parent, path.parent):
            sync_directory(directory)
    except OSError as error:
        raise host_error("cannot put aside", str(path), error) from error
    return aside
