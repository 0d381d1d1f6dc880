"""The files that states lie in, each opened once in a process: a large state is read and set in thousands of parts.

A name is never used again, so a descriptor is true as long as somebody names its file.
"""

from __future__ import annotations

import errno
import os
import uuid
from pathlib import Path

from nvmelm.wire.layout import Buffer

#: Files that are open at a time; a host with more states opens some of them again.
_OPEN = 32


class StateFiles:
    """The files below one directory.

    Args:
        directory: the emulated host's; names are relative to it.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._descriptors: dict[str, int] = {}

    def new(self) -> str:
        """Make an empty file and return its name."""
        name = f"vendor/{uuid.uuid4().hex}"
        self._open(name, os.O_CREAT | os.O_EXCL)
        return name

    def read(self, name: str, length: int, offset: int) -> bytes:
        """Return bytes of a file; fewer at its end."""
        return os.pread(self._descriptor(name), length, offset)

    def write(self, name: str, data: Buffer, offset: int) -> None:
        """Put bytes where they belong; what lies between is a hole."""
        _whole(os.pwrite(self._descriptor(name), data, offset), data)

    def append(self, name: str, data: Buffer) -> None:
        """Put bytes at the end of a file, which is made when it is not there."""
        _whole(os.write(self._descriptor(name, os.O_CREAT | os.O_APPEND), data), data)

    def grow(self, name: str, size: int) -> None:
        """Give a file its size, with a hole at the end."""
        os.ftruncate(self._descriptor(name), size)

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        self._close(name)
        (self._directory / name).unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of every file."""
        for name in list(self._descriptors):
            self._close(name)

    def _descriptor(self, name: str, flags: int = 0) -> int:
        descriptor = self._descriptors.get(name)
        return self._open(name, flags) if descriptor is None else descriptor

    def _open(self, name: str, flags: int) -> int:
        if len(self._descriptors) >= _OPEN:
            self._close(next(iter(self._descriptors)))
        path = f"{self._directory}/{name}"
        descriptor = self._descriptors[name] = os.open(path, os.O_RDWR | os.O_CLOEXEC | flags, 0o600)
        return descriptor

    def _close(self, name: str) -> None:
        descriptor = self._descriptors.pop(name, None)
        if descriptor is not None:
            os.close(descriptor)


def _whole(written: int, data: Buffer) -> None:
    if written != len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
