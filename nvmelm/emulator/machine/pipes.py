"""The pipes through which an emulated host's uevents reach those who listen, in whatever process they are.

What is said through them, and when, stands in :mod:`nvmelm.emulator.machine.uevents`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import uuid
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from nvmelm.errors import UeventsLostError, host_error
from nvmelm.host import Uevent

#: Some 4000 events; as much as a pipe of an unprivileged user may hold.
_PIPE_BYTES = 1 << 20
_PART = 1 << 16


def tell(directory: Path, said: Sequence[dict[str, Any]]) -> None:
    """Deliver what was said to everybody who listens; a listener that does not keep up loses, and learns that it did.

    Args:
        directory: where the listeners' pipes are.
        said: the events; each is one line of less than a page, which a pipe takes as a whole or not at all.
    """
    try:
        names = [name for name in os.listdir(directory) if name.endswith(".pipe")]  # noqa: PTH208 - names, not paths
    except FileNotFoundError:
        return
    lines = [json.dumps(message, separators=(",", ":")).encode() + b"\n" for message in said]
    for name in names:
        path = directory / name
        try:
            pipe = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno == errno.ENXIO:  # its process died
                path.unlink(missing_ok=True)
                _lost(path).unlink(missing_ok=True)
            continue
        try:
            for line in lines:
                os.write(pipe, line)
        except BlockingIOError:
            _lost(path).touch(mode=0o600)
        except BrokenPipeError:
            pass
        finally:
            os.close(pipe)


class EmulatedUevents:
    """The :class:`~nvmelm.host.Uevents` of an emulated host: a pipe in its directory.

    Args:
        directory: where the listeners' pipes are; made when it is missing.
        size: bytes of events that wait at most.

    Raises:
        HostError: the pipe cannot be made.
    """

    def __init__(self, directory: Path, size: int = _PIPE_BYTES) -> None:
        self._path = directory / f"{uuid.uuid4().hex}.pipe"
        unborn = self._path.with_suffix(".new")
        self._rest = b""
        try:
            directory.mkdir(mode=0o700, exist_ok=True)
            os.mkfifo(unborn, 0o600)
            # Open for writing too: without a writer a pipe is at its end whenever it is empty.
            self._pipe = os.open(unborn, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            with contextlib.suppress(PermissionError):  # more than a user's pipes may have
                fcntl.fcntl(self._pipe, fcntl.F_SETPIPE_SZ, size)
            unborn.rename(self._path)  # only now: a pipe without a reader is taken for a dead listener's
        except OSError as error:
            raise host_error("cannot listen to the emulated host", str(directory), error) from error

    def fileno(self) -> int:
        return self._pipe

    def next(self) -> Uevent | None:
        if b"\n" not in self._rest:
            with contextlib.suppress(BlockingIOError):
                self._rest += os.read(self._pipe, _PART)
        line, end, rest = self._rest.partition(b"\n")
        if end:
            self._rest = rest
            return Uevent(**json.loads(line))
        if _lost(self._path).exists():
            _lost(self._path).unlink(missing_ok=True)
            raise UeventsLostError("uevents were lost", cause="more came than were taken in time")
        return None

    def close(self) -> None:
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1
            self._path.unlink(missing_ok=True)
            _lost(self._path).unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _lost(path: Path) -> Path:
    return path.with_suffix(".lost")
