"""Directories that only their owner can enter: what nvmelm remembers is believed, so nobody else may write it."""

from __future__ import annotations

import errno
import os
import shlex
import stat
from pathlib import Path

from nvmelm.disk.own import own_error
from nvmelm.errors import OwnFileError


def private_directory(directory: Path) -> None:
    """Make a directory and those above it that are missing, each for its owner alone.

    ``mkdir(parents=True)`` gives its mode to the last one only.

    Raises:
        OSError: one cannot be made.
    """
    if not directory.is_dir():
        private_directory(directory.parent)
        directory.mkdir(mode=0o700, exist_ok=True)


def prove_private(directory: Path) -> bool:
    """Make a private directory where there is none, and prove that it is one; return whether it is there now.

    A process that may not make it (no root, read-only file system) gets False: there is nothing for it to read.

    Raises:
        HostError: it is a link, no directory, another user's, or open to group or others.
    """
    try:
        private_directory(directory)
    except FileExistsError:  # no directory: what it is instead is said below
        pass
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return False
        raise own_error("cannot make the directory", directory, error, directory=True) from error
    try:
        status = directory.lstat()
    except OSError as error:
        raise own_error("cannot look at", directory, error, directory=True) from error
    wrong = _why_not_private(status)
    if wrong:
        raise OwnFileError(
            f"{directory} may not hold marks and journals: it {wrong}",
            path=str(directory),
            cause="others could put false marks there, or read what it holds",
            fix=f"look at it (ls -ld {shlex.quote(str(directory))}), then: chmod 0700, chown, or name another "
            "directory with NVMELM_STATE_DIR",
            reason="state-directory-not-private",
        )
    return True


def _why_not_private(status: os.stat_result) -> str:
    if stat.S_ISLNK(status.st_mode):
        return "is a link"
    if not stat.S_ISDIR(status.st_mode):
        return "is no directory"
    if status.st_uid not in (0, os.geteuid()):
        return f"belongs to user {status.st_uid}"
    if status.st_mode & 0o077:
        return f"is open to others (mode {stat.S_IMODE(status.st_mode):04o})"
    return ""
