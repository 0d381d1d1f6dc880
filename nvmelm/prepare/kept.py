"""What nvmelm keeps on a host while it works: whether the files are still those that it began with.

A move rests on its lock, on the marks of what moves and on the PF's journal. Nobody but the move may change them while
it holds the lock. When they are removed, replaced or brought back from a backup meanwhile, the next nvmelm would read
something else than this one believes; who owns the controllers is looked after by the sessions themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nvmelm.disk.locks import lock_path
from nvmelm.errors import HostError
from nvmelm.host import Host
from nvmelm.inventory.marks import mark_path
from nvmelm.prepare.journal import journal_path

_Stamp = tuple[int, ...] | None


class Kept:
    """The files of a move as they are now.

    Args:
        address: of the PF, which the caller has locked.
        cntlids: whose marks it rests on.
    """

    def __init__(self, host: Host, address: str, cntlids: Sequence[int]) -> None:
        files = [journal_path(host, address), *(mark_path(host, address, cntlid) for cntlid in cntlids)]
        self._lock = HeldLock(host, address)
        self._files = {path: _stamp(path) for path in files}

    def require_same(self) -> None:
        """Refuse to decide anything on files that are not those of the beginning any more.

        Raises:
            HostError: one was removed, replaced, or written by somebody else.
        """
        self._lock.require_same()
        changed = [path for path, stamp in self._files.items() if _stamp(path) != stamp]
        if changed:
            raise _replaced(changed[0])


class HeldLock:
    """The lock of a PF, which the caller holds: whether its file still is the one that the next verb would take."""

    def __init__(self, host: Host, address: str) -> None:
        self._path = lock_path(host.state_dir, address)
        self._stamp = _stamp(self._path, whole=False)  # who waits for it may touch what is in it

    def require_same(self) -> None:
        """Refuse to change anything under a lock that was removed or replaced.

        Raises:
            HostError: it was; another verb may hold the one that is there now.
        """
        if _stamp(self._path, whole=False) != self._stamp:
            raise _replaced(self._path)


def _replaced(path: Path) -> HostError:
    return HostError(
        f"{path} was removed, replaced or changed meanwhile",
        path=str(path),
        cause="what is done rests on it, and the next nvmelm would read something else",
        fix=f"leave {path.parent} alone while nvmelm works; then run it again",
        reason="records-replaced",
    )


def _stamp(path: Path, *, whole: bool = True) -> _Stamp:
    """Return what tells a file from another one of its name; None: there is none.

    Args:
        whole: tell one from what it was before it was written to, too.
    """
    try:
        about = path.lstat()
    except OSError:
        return None
    which = (about.st_dev, about.st_ino)
    return (*which, about.st_size, about.st_mtime_ns, about.st_ctime_ns) if whole else which
