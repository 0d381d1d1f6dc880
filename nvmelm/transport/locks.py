"""Private directories and the locks in them.

A lock is ``flock`` on a file that is never removed (removing it would let two processes lock two files of one name).
The kernel drops it when its holder ends, however that happens, so there are no stale locks. The holder writes its pid
and its command line into the file, for the message of who has to wait.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shlex
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nvmelm import waiting
from nvmelm.errors import BusyError, HostError, MalformedError, host_error
from nvmelm.numbers import decimal

_LOCK_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_POLL_S = 0.05
_HOLDER_BYTES = 256


def private_directory(path: Path) -> bool:
    """Make a directory that only its owner can enter, or prove that it is one; return whether it is there now.

    A process that may not make it (no root, read-only file system) is told so by False: it has nothing to read there.

    Raises:
        HostError: it is a link, no directory, another user's, or open to group or others.
    """
    try:
        path.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        pass
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return False
        raise host_error("cannot make the directory", str(path), error) from error
    try:
        about = path.lstat()
    except OSError as error:
        raise host_error("cannot look at", str(path), error) from error
    wrong = _why_not_private(about)
    if wrong:
        raise HostError(
            f"{path} may not hold marks and journals: it {wrong}",
            path=str(path),
            cause="others could put false marks there, or read what it holds",
            fix=f"look at it (ls -ld {shlex.quote(str(path))}), then: chmod 0700, chown, or name another directory "
            "with NVMELM_STATE_DIR",
            reason="state-directory-not-private",
        )
    return True


def _why_not_private(about: os.stat_result) -> str:
    if stat.S_ISLNK(about.st_mode):
        return "is a link"
    if not stat.S_ISDIR(about.st_mode):
        return "is no directory"
    if about.st_uid not in (0, os.geteuid()):
        return f"belongs to user {about.st_uid}"
    if about.st_mode & 0o077:
        return f"is open to others (mode {stat.S_IMODE(about.st_mode):04o})"
    return ""


class FileLocks:
    """Named locks as files of one private directory; a name locked twice by one instance nests.

    Args:
        directory: made (0700) with the first lock.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._depth: dict[str, int] = {}

    @contextmanager
    def hold(self, name: str, *, timeout_s: float) -> Iterator[None]:
        """Hold a lock for the length of the block.

        Raises:
            BusyError: another process held it for longer than the timeout; it is named.
            PermissionDeniedError: this process may not write the directory.
        """
        if self._depth.get(name):
            self._depth[name] += 1
            try:
                yield
            finally:
                self._depth[name] -= 1
            return
        descriptor = self._open(name)
        try:
            _acquire(descriptor, name, timeout_s)
            with contextlib.suppress(OSError):  # a full disk: the lock is held all the same, and says less to others
                os.pwrite(descriptor, _this_process(), 0)
            self._depth[name] = 1
            try:
                yield
            finally:
                del self._depth[name]
                os.ftruncate(descriptor, 0)
        finally:
            os.close(descriptor)  # drops the lock

    def _open(self, name: str) -> int:
        if not _LOCK_NAME.fullmatch(name):
            raise MalformedError(f"not a lock's name: {name!r}")
        path = self._directory / f"{name}.lock"
        private_directory(self._directory)
        try:
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise host_error("cannot open the lock", str(path), error) from error


def _acquire(descriptor: int, name: str, timeout_s: float) -> None:
    """Take the lock; poll, because flock itself knows no deadline."""
    begun = time.monotonic()
    deadline = begun + timeout_s
    said = False
    while True:
        if not said and time.monotonic() >= begun + waiting.SAID_AFTER_S:
            said = True
            waiting.on_wait(f"{_holder(descriptor)[0]} to let go of {name}", timeout_s)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
        except BlockingIOError as error:
            left = deadline - time.monotonic()
            if left <= 0:
                raise _busy(descriptor, name, timeout_s) from error
            time.sleep(min(_POLL_S, left))
        except OSError as error:
            raise host_error("cannot lock", name, error) from error
        else:
            return


def _busy(descriptor: int, name: str, timeout_s: float) -> BusyError:
    """Return the error that names who holds the lock."""
    holder, fix = _holder(descriptor)
    return BusyError(
        f"{name} is in use by {holder}",
        cause=f"it still held the lock after {timeout_s:g} s; commands of two processes must not mix on one controller",
        fix=fix,
        reason="locked",
    )


_MAX_PID = 1 << 22  # PID_MAX_LIMIT of 64-bit kernels


def _holder(descriptor: int) -> tuple[str, str]:
    """Return who holds a lock, and what to do about it; what the file says is data."""
    text = os.pread(descriptor, _HOLDER_BYTES, 0).decode("utf-8", "backslashreplace").strip()
    pid, _, verb = text.partition(" ")
    if decimal(pid, most=_MAX_PID) is not None:
        shown = "".join(char if char.isprintable() else "?" for char in verb)
        return f"process {pid} ({shown})", f"wait until process {pid} has ended, then try again"
    return "another process", "wait until it has ended, then try again"


def _this_process() -> bytes:
    command = shlex.join(["nvmelm", *sys.argv[1:]])
    return f"{os.getpid()} {command}".encode("utf-8", "backslashreplace")[:_HOLDER_BYTES]
