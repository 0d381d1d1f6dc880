"""The state of an emulated host on disk: one JSON document, changed only under a lock, shared by several processes.

A transaction takes the host's lock, sees the state as the last one left it, and replaces it as a whole when it changed
something. There are two files, and a counter in the lock file: how many times the state was replaced, and so which of
the two is the current one. The other is written, then the counter is raised; so a process may be killed anywhere, and
the state is always a whole one. Nothing is synced to the medium; an emulated host does not survive a power failure of
the real one.

Both files are written in place: making and renaming files would cost more than most commands, and would burden the
file system's journal, for which the synced writes of nvmelm's own database then wait. Whoever finds the counter as it
was need not read the state again.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from nvmelm.emulator.machine.state import FORMAT, HostState
from nvmelm.errors import MalformedError, NvmelmError, host_error

#: The counter's length in the lock file, in bytes; an unsigned number, little-endian.
_COUNTER_BYTES = 8
#: The state after an even and after an odd number of replacements; the first one tells that a directory is a host.
_EVEN, _ODD = "state.json", "state.odd.json"
#: A file's size is a multiple of this, so that it seldom changes. What follows the document is blank.
_ROUND = 4096


class Store:
    """The persistent state of one emulated host.

    Args:
        directory: made, with mode 0700, when it is missing.
        initial: returns the state of a host that does not exist yet.

    Attributes:
        when_kept: called after each change that was kept.
    """

    def __init__(self, directory: Path, initial: Callable[[Path], HostState]) -> None:
        self.directory = directory
        self._guard = threading.RLock()
        self._depth = 0
        self._writing = False
        self._untouched = False
        self._version = -1
        self._state: HostState | None = None
        self.when_kept: Callable[[], None] = lambda: None
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise host_error("cannot open the emulated host", str(directory), error) from error
        self._files = (f"{directory}/{_EVEN}", f"{directory}/{_ODD}")
        with self._locked():
            if not os.path.exists(self._files[0]):  # noqa: PTH110 - as in _write
                self._begin(initial(directory))

    @contextmanager
    def view(self) -> Iterator[HostState]:
        """Hold the state for reading; changes made to it are not kept."""
        with self._locked():
            yield self._current()

    @contextmanager
    def change(self) -> Iterator[HostState]:
        """Hold the state for changing it; it is kept when the block ends, also when it ends in a refusal.

        A refusal (:class:`NvmelmError`) is an answer of the emulated machine, which may well have changed before it
        answered. Any other exception is none, and drops what was changed.
        """
        with self._locked():
            outermost, self._writing = not self._writing, True
            whole = False
            try:
                if outermost:
                    self._untouched = False
                state = self._current()
                try:
                    yield state
                except NvmelmError:
                    if outermost:
                        self._keep(state)
                    whole = True
                    raise
                if outermost and not self._untouched:
                    self._keep(state)
                whole = True
            finally:
                if not whole:
                    self._state = None
                if outermost:
                    self._writing = False

    def untouched(self) -> None:
        """Say that this transaction has changed nothing in the state: replacing it is most of what a command costs."""
        self._untouched = True

    def close(self) -> None:
        """Let go of the lock file; a second time does nothing."""
        with self._guard:
            if self._lock >= 0:
                os.close(self._lock)
                self._lock = -1

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock between threads and between processes; a thread that has it may take it again.

        An interrupt may come before and after any call in here, so there is none outside the ``try``, and letting a
        file go that was not yet locked does nothing.
        """
        with self._guard:
            outermost = self._depth == 0
            try:
                self._depth += 1
                if outermost:
                    fcntl.flock(self._lock, fcntl.LOCK_EX)
                yield
            finally:
                self._depth -= 1
                if outermost and self._lock >= 0:  # closed, when this is what is left of an interrupted block
                    fcntl.flock(self._lock, fcntl.LOCK_UN)

    def _on_disk(self) -> int:
        raw = os.pread(self._lock, _COUNTER_BYTES, 0)
        return int.from_bytes(raw, "little") if len(raw) == _COUNTER_BYTES else 0

    def _current(self) -> HostState:
        version = self._on_disk()
        if self._state is None or version != self._version:
            self._state = _parse(self._files[version % 2])
            self._version = version
        return self._state

    def _keep(self, state: HostState) -> None:
        self._replace(state)
        self.when_kept()  # still under the lock, so that what it tells is told in the order of the changes

    def _begin(self, state: HostState) -> None:
        """Keep a new host's first state: it appears as a whole."""
        even, odd = self._files
        self._write(odd, state)
        self._count(0)
        try:
            os.rename(odd, even)  # noqa: PTH104 - as in _write
        except OSError as error:
            raise _not_kept(even, error) from error
        self._state, self._version = state, 0

    def _replace(self, state: HostState) -> None:
        version = self._on_disk() + 1
        self._state = None  # until it is kept: whatever interrupts this, what was changed has not happened
        self._write(self._files[version % 2], state)
        self._count(version)
        self._state, self._version = state, version

    def _count(self, version: int) -> None:
        try:
            os.pwrite(self._lock, version.to_bytes(_COUNTER_BYTES, "little"), 0)
        except OSError as error:
            raise _not_kept(f"{self.directory}/lock", error) from error

    def _write(self, file: str, state: HostState) -> None:
        """Write a state into a file that is not the current one."""
        raw = json.dumps(state, separators=(",", ":")).encode()
        raw = raw.ljust(-(-len(raw) // _ROUND) * _ROUND)
        try:
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)  # a path object would cost more
            try:
                if os.fstat(descriptor).st_size > len(raw):
                    os.ftruncate(descriptor, len(raw))
                if os.write(descriptor, raw) != len(raw):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            finally:
                os.close(descriptor)
        except OSError as error:
            raise _not_kept(file, error) from error


def _not_kept(file: str, error: OSError) -> NvmelmError:
    return host_error("cannot keep the emulated host's state", file, error)


def _parse(file: str) -> HostState:
    try:
        state = json.loads(Path(file).read_bytes())
    except FileNotFoundError:  # of a version that kept one file
        state = None
    except OSError as error:
        raise host_error("cannot read the emulated host's state", file, error) from error
    except ValueError as error:
        raise MalformedError(
            f"not the state of an emulated host: {file}", cause=str(error), fix="name another directory"
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise MalformedError(
            f"not a state this version can use: {file}",
            cause=f"its format is not {FORMAT}",
            fix="name another directory, or remove this one to begin anew",
        )
    return cast("HostState", state)
