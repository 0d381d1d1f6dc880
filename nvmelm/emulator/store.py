"""The state of an emulated host on disk: one JSON file, changed only under a lock, shared by several processes.

A transaction takes the host's lock, sees the state as the last one left it, and replaces the file as a whole
(write beside it, rename) when it changed something. So a process may be killed anywhere: the file is always one
whole state. Nothing is synced to the medium; an emulated host does not survive a power failure of the real one.

Reading the file again costs more than most commands. A counter beside the lock says how many times the state was
replaced; it is raised *before* the file is, so whoever finds its own number there holds the current state.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from nvmelm.emulator.state import FORMAT, HostState
from nvmelm.errors import MalformedError, NvmelmError, host_error

_COUNTER = struct.Struct("<Q")
_STATE = "state.json"


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
        self._file = directory / _STATE
        with self._locked():
            if not self._file.exists():
                self._replace(initial(directory))

    @contextmanager
    def view(self) -> Iterator[HostState]:
        """Hold the state for reading; changes made to it are not kept."""
        with self._guard, self._locked():
            yield self._current()

    @contextmanager
    def change(self) -> Iterator[HostState]:
        """Hold the state for changing it; it is kept when the block ends, also when it ends in a refusal.

        A refusal (:class:`NvmelmError`) is an answer of the emulated machine, which may well have changed before it
        answered. Any other exception is none, and drops what was changed.
        """
        with self._guard, self._locked():
            outermost, self._writing = not self._writing, True
            if outermost:
                self._untouched = False
            state = self._current()
            try:
                yield state
            except NvmelmError:
                if outermost:
                    self._keep(state)
                raise
            except BaseException:
                self._state = None
                raise
            else:
                if outermost and not self._untouched:
                    self._keep(state)
            finally:
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
        if self._depth == 0:
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if self._depth == 0:
                fcntl.flock(self._lock, fcntl.LOCK_UN)

    def _on_disk(self) -> int:
        raw = os.pread(self._lock, _COUNTER.size, 0)
        return int(_COUNTER.unpack(raw)[0]) if len(raw) == _COUNTER.size else 0

    def _current(self) -> HostState:
        version = self._on_disk()
        if self._state is None or version != self._version:
            self._state = _parse(self._file)
            self._version = version
        return self._state

    def _keep(self, state: HostState) -> None:
        self._replace(state)
        self.when_kept()  # still under the lock, so that what it tells is told in the order of the changes

    def _replace(self, state: HostState) -> None:
        version = self._on_disk() + 1
        os.pwrite(self._lock, _COUNTER.pack(version), 0)
        beside = f"{self._file}.new"
        raw = json.dumps(state, separators=(",", ":")).encode()
        try:
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                os.write(descriptor, raw)
            finally:
                os.close(descriptor)
            os.rename(beside, self._file)  # noqa: PTH104 - a path object costs more than the rename
        except OSError as error:
            self._state = None
            with contextlib.suppress(OSError):
                os.unlink(beside)  # noqa: PTH108 - see above
            raise host_error("cannot keep the emulated host's state", str(self._file), error) from error
        self._state, self._version = state, version


def _parse(file: Path) -> HostState:
    try:
        state = json.loads(file.read_bytes())
    except OSError as error:
        raise host_error("cannot read the emulated host's state", str(file), error) from error
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
