"""What stands where nvmelm keeps something of its own, when that is not what it put there.

A directory in the place of a file, a pipe that nobody writes to, a loop of links: whoever made it, the operator did not
type that name, so "name a file" is no advice. The error names the wrong part of the path, and what to do with it.
"""

from __future__ import annotations

import errno
import os
import shlex
import stat
from pathlib import Path

from nvmelm.errors import HostError, OwnFileError, host_error

#: What the kernel answers when something of the wrong kind stands in the way.
_WRONG_KIND = frozenset({errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EEXIST, errno.ENXIO})
_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFREG: "a file",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFBLK: "a block device",
    stat.S_IFCHR: "a character device",
}


def own_error(what: str, path: Path, error: OSError, *, directory: bool = False) -> HostError:
    """Return the error of a path below nvmelm's own directory.

    Args:
        what: the operation, as a clause: ``cannot write``.
        directory: the path is that of a directory.
    """
    wrong = misplaced(path, directory=directory) if error.errno in _WRONG_KIND else None
    if wrong is None and error.errno == errno.ELOOP and path.is_symlink():  # opened with O_NOFOLLOW
        wrong = _wrong(path, "a link", directory)
    if wrong is not None:
        message, cause = f"{what}: {wrong.message}", wrong.cause
        return OwnFileError(message, path=wrong.path, cause=cause, fix=wrong.fix, reason=wrong.reason)
    if error.errno == errno.EROFS:
        fix = "mount its file system read-write, or name another directory with NVMELM_STATE_DIR"
        return host_error(what, str(path), error, fix=fix)
    return host_error(what, str(path), error)


def misplaced(path: Path, *, directory: bool = False) -> OwnFileError | None:
    """Return the error of the first part of a path that is not what nvmelm keeps there; None when all is in place."""
    for place in (*reversed(path.parents), path):
        try:
            kind = stat.S_IFMT(place.stat().st_mode)
        except FileNotFoundError:
            return _wrong(place, "a link to nothing", place != path or directory) if place.is_symlink() else None
        except OSError as error:
            return _wrong(place, "a loop of links", place != path or directory) if error.errno == errno.ELOOP else None
        wanted = place != path or directory
        if (kind == stat.S_IFDIR) != wanted or kind not in (stat.S_IFDIR, stat.S_IFREG, stat.S_IFCHR):
            return _wrong(place, _KINDS.get(kind, "a special file"), wanted)
    return None


def _wrong(place: Path, is_now: str, wanted_directory: bool) -> OwnFileError:
    wanted = "a directory" if wanted_directory else "a file"
    name = shlex.quote(str(place))
    return OwnFileError(
        f"{place} is {is_now}, where nvmelm keeps {wanted} of its own",
        path=str(place),
        cause="somebody put it there; what nvmelm has to know of this host cannot be read or written",
        fix=f"look at it (ls -ld {name}), then move it away: mv {name} {shlex.quote(f'{place}.wrong')}",
        reason="own-file",
    )


def open_own(path: Path, flags: int) -> int:
    """Open a file of nvmelm's own without ever waiting for who has the other end of a pipe.

    Raises:
        OSError: as ``open``.
        OwnFileError: it is no file.
    """
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
    if kind in (stat.S_IFREG, stat.S_IFCHR):
        return descriptor
    os.close(descriptor)
    raise misplaced(path) or OwnFileError(f"{path} is no file", path=str(path), reason="own-file")
