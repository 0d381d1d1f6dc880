"""Locks: files in a private directory, each held by one process.

A lock is ``flock`` on a file that nvmelm does not remove: that would let two processes lock two files of one name. When
somebody else removes it, or moves its directory away, whoever makes the next file of that name looks who holds one that
was called so (:func:`_holder_of_another`), and whoever holds it can look whether it still is the one
(:func:`lock_identity`).
The kernel drops it when its holder ends, however that happens, so there are no stale locks. The holder writes its pid
and the program's name into the file, for the message of who has to wait; what was typed may be nobody else's business,
and the message may be read on another host.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nvmelm.disk.own import open_own, own_error
from nvmelm.disk.private import prove_private
from nvmelm.errors import BusyError, MalformedError, host_error
from nvmelm.harmless import harmless
from nvmelm.numbers import decimal
from nvmelm.process import waiting

_LOCK_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_POLL_S = 0.05
_HOLDER_BYTES = 256


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
        descriptor = self._taken(name, time.monotonic() + timeout_s, timeout_s)
        try:
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

    def _taken(self, name: str, deadline: float, timeout_s: float) -> int:
        """Return the lock's file, locked, when it is the one that everybody else would open."""
        while True:
            descriptor, new = self._open(name)
            try:
                _acquire(descriptor, name, max(0.0, deadline - time.monotonic()), timeout_s)
                if new:
                    self._await_another(descriptor, name, deadline, timeout_s)
                if _identity(os.fstat(descriptor)) == lock_identity(self._directory.parent, name):
                    return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)  # it was removed while it was waited for

    def _await_another(self, descriptor: int, name: str, deadline: float, timeout_s: float) -> None:
        """Wait until nobody holds a file that had the lock's name before the one that was just made."""
        while (holder := _holder_of_another(self._directory.parent, name, descriptor)) is not None:
            if time.monotonic() >= deadline:
                # The next one who comes makes a new file, and looks again; who waits for this one sees that it is gone.
                lock_path(self._directory.parent, name).unlink(missing_ok=True)
                raise BusyError(
                    f"{name} is in use by process {holder}, whose lock was removed",
                    cause=f"it still held the removed file after {timeout_s:g} s; two processes must not mix commands",
                    fix=f"wait until process {holder} has ended; leave {self._directory} alone",
                    reason="locked",
                )
            time.sleep(_POLL_S)

    def _open(self, name: str) -> tuple[int, bool]:
        if not _LOCK_NAME.fullmatch(name):
            raise MalformedError(f"not a lock's name: {name!r}")
        path = lock_path(self._directory.parent, name)
        prove_private(self._directory)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            try:
                return os.open(path, flags | os.O_EXCL, 0o600), True
            except FileExistsError:
                return open_own(path, flags), False
        except OSError as error:
            raise own_error("cannot open the lock", path, error) from error


def lock_path(state_dir: Path, name: str) -> Path:
    """Return the file of a lock."""
    return state_dir / "locks" / f"{name}.lock"


def lock_identity(state_dir: Path, name: str) -> tuple[int, int] | None:
    """Return which file has the name of a lock now; None: none."""
    try:
        return _identity(lock_path(state_dir, name).lstat())
    except OSError:
        return None


def _identity(about: os.stat_result) -> tuple[int, int]:
    return about.st_dev, about.st_ino


def _holder_of_another(state_dir: Path, name: str, descriptor: int) -> int | None:
    """Return the pid of a process that has another file of a lock's name open, which was removed or moved away.

    Source: proc(5), ``/proc/PID/fd``: the link of a removed file ends in " (deleted)".
    """
    place, ours = f"{state_dir.resolve()}/", _identity(os.fstat(descriptor))
    for pid in filter(str.isdecimal, os.listdir("/proc")):  # noqa: PTH208  # a Path each would cost much
        for link in _open_files(pid):
            try:
                path = os.readlink(link)  # noqa: PTH115
                if not path.startswith(place) or not path.removesuffix(" (deleted)").endswith(f"/{name}.lock"):
                    continue
                if _identity(os.stat(link)) != ours:  # noqa: PTH116
                    return decimal(pid, most=_MAX_PID)
            except OSError:  # it was closed
                continue
    return None


def _open_files(pid: str) -> list[str]:
    """Return the links to what a process has open; none of one that ended meanwhile, or may not be looked into."""
    directory = f"/proc/{pid}/fd"
    try:
        return [f"{directory}/{descriptor}" for descriptor in os.listdir(directory)]  # noqa: PTH208
    except OSError:
        return []


def _acquire(descriptor: int, name: str, left_s: float, timeout_s: float) -> None:
    """Take the lock; poll, because flock itself knows no deadline.

    Args:
        left_s: of the seconds that it may take.
    """
    begun = time.monotonic()
    deadline = begun + left_s
    said = False
    while True:
        if not said and time.monotonic() >= begun + waiting.SAID_AFTER_S:
            said = True
            waiting.say(f"{_holder(descriptor)[0]} to let go of {name}", timeout_s)
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
        return f"process {pid} ({harmless(verb)})", f"wait until process {pid} has ended, then try again"
    return "another process", "wait until it has ended, then try again"


def _this_process() -> bytes:
    return f"{os.getpid()} nvmelm".encode()
