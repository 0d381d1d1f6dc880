"""Memory that an emulated device does DMA to: a file, mapped by whoever needs it.

A guest's memory is one; so is the memory of a Controller Data Queue. Several processes map it at once: the guest's,
and whichever runs the admin command that makes the device finish what it fetched.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path

from nvmelm.errors import host_error

PAGE = 4096


class Memory:
    """A mapped file.

    Args:
        path: the file.
        size: bytes, to make it anew, zeroed; None maps what is there.
    """

    def __init__(self, path: Path, size: int | None = None) -> None:
        self.path = path
        try:
            flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT | os.O_TRUNC if size is not None else 0)
            descriptor = os.open(path, flags, 0o600)
            try:
                if size is not None:
                    os.ftruncate(descriptor, size)
                self._map = mmap.mmap(descriptor, 0)
            finally:
                os.close(descriptor)
        except (OSError, ValueError) as error:
            raise host_error(
                "cannot map memory", str(path), error if isinstance(error, OSError) else OSError(str(error))
            ) from error
        self.size = len(self._map)

    @property
    def closed(self) -> bool:
        """Return whether it is unmapped."""
        return self._map.closed

    @property
    def buffer(self) -> mmap.mmap:
        """Return the mapping itself."""
        return self._map

    def read(self, address: int, length: int) -> bytes:
        """Return bytes; ``ValueError`` beyond the end, which for a device is a data transfer error."""
        if address < 0 or address + length > self.size:
            raise ValueError(f"no memory at {address:#x}")
        return self._map[address : address + length]

    def write(self, address: int, raw: bytes) -> None:
        """Store bytes; ``ValueError`` beyond the end."""
        if address < 0 or address + len(raw) > self.size:
            raise ValueError(f"no memory at {address:#x}")
        self._map[address : address + len(raw)] = raw

    def close(self) -> None:
        """Unmap it; what a Controller Data Queue's owner still looks at stays mapped until it lets go."""
        if not self._map.closed:
            try:
                self._map.close()
            except BufferError:
                return
