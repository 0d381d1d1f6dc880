"""The VM's memory by I/O address: what the VMM mapped for DMA, read and written in the VMM's own memory.

A call that maps or unmaps is noted before the kernel carries it out. The kernel may refuse it, so the same address can
be noted twice; where two notes contradict each other, nothing is read or written: whoever looks for a queue there
learns that it cannot be found. Several address spaces (containers, IOASes) are looked through together, since which is
a device's own is not known; the same rule holds for them.

Sources: Linux include/uapi/linux/vfio.h, iommufd.h; drivers/vfio/vfio_iommu_type1.c (vfio_dma_do_unmap).
"""

from __future__ import annotations

import errno
import os
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Protocol

from nvmelm.interposer import filter as calls
from nvmelm.interposer.caller import Process
from nvmelm.interposer.record import Event, Recorder, nothing
from nvmelm.numbers import hexadecimal

_U64 = (1 << 64) - 1

#: struct vfio_iommu_type1_dma_map: argsz, flags, vaddr, iova, size.
_MAP = struct.Struct("=2I3Q")
#: struct vfio_iommu_type1_dma_unmap: argsz, flags, iova, size.
_UNMAP = struct.Struct("=2I2Q")
#: struct iommu_ioas_map: size, flags, ioas_id, reserved, user_va, length, iova.
_IOAS_MAP = struct.Struct("=4I3Q")
#: struct iommu_ioas_map_file: size, flags, ioas_id, fd, start, length, iova.
_IOAS_MAP_FILE = struct.Struct("=3Ii3Q")
#: struct iommu_ioas_unmap: size, ioas_id, iova, length.
_IOAS_UNMAP = struct.Struct("=2I2Q")

_MAP_READ_OR_WRITE, _MAP_VADDR = 3, 1 << 2
_UNMAP_ALL, _UNMAP_VADDR = 1 << 1, 1 << 2
_IOAS_FIXED = 1 << 0
_EVERYTHING = (1 << 64) - 1

#: An address space: the descriptor it was mapped through, and the IOAS behind it (0 of a container).
Space = tuple[int, int]


class Backing(Protocol):
    """Where mapped bytes are, by an address of its own."""

    @property
    def source(self) -> tuple[int, ...]:
        """What it is found by again: a process's number, and device number and inode where it is a file."""
        ...

    def read(self, address: int, length: int) -> bytes: ...

    def write(self, address: int, data: bytes) -> None: ...


class _View(NamedTuple):
    """A part of a file in a process's memory: where it begins there and in the file, bytes."""

    address: int
    offset: int
    length: int


class FileBacking:
    """Memory that was mapped by its file: read and written where the VMM itself has the file mapped.

    So nothing is done by a descriptor that a VMM chose, its memory stays its own when it closes the file, and a file
    that becomes shorter is its own matter.

    Args:
        process: the VMM's.
        file: the file's device number and inode.
    """

    def __init__(self, process: Process, file: tuple[int, int]) -> None:
        self._process = process
        self._file = file

    @property
    def source(self) -> tuple[int, ...]:
        return (self._process.pid, *self._file)

    def read(self, address: int, length: int) -> bytes:
        return b"".join(self._process.read(place, size) for place, size in self._places(address, length))

    def write(self, address: int, data: bytes) -> None:
        for place, size in self._places(address, len(data)):
            self._process.write(place, data[:size])
            data = data[size:]

    def _places(self, offset: int, length: int) -> list[tuple[int, int]]:
        """Return where bytes of the file are in the VMM, and how many; OSError EFAULT when not all of them are."""
        places = []
        views = list(self._views())
        while length:
            view = next(
                (candidate for candidate in views if candidate.offset <= offset < candidate.offset + candidate.length),
                None,
            )
            if view is None:
                raise OSError(errno.EFAULT, "the VMM has not mapped this part of its file")
            into = offset - view.offset
            size = min(length, view.length - into)
            places.append((view.address + into, size))
            offset, length = offset + size, length - size
        return places

    def _views(self) -> Iterator[_View]:
        """Return the VMM's shared mappings of the file."""
        device, inode = self._file
        number = f"{os.major(device):02x}:{os.minor(device):02x}"
        for line in Path(f"/proc/{self._process.pid}/maps").read_text(errors="replace").splitlines():
            addresses, access, offset, where, file, *_ = line.split(maxsplit=5)
            if (where, file) == (number, str(inode)) and access.endswith("s"):
                begin, end = (hexadecimal(word, most=_U64) for word in addresses.split("-", 1))
                at = hexadecimal(offset, most=_U64)
                if begin is not None and end is not None and at is not None:
                    yield _View(begin, at, end - begin)


@dataclass(frozen=True, slots=True)
class Mapping:
    """Bytes of the VM's memory: ``[iova, iova + length)`` are those from ``address`` on of their backing."""

    space: Space
    iova: int
    length: int
    backing: Backing
    address: int

    @property
    def end(self) -> int:
        """The first I/O address behind it."""
        return self.iova + self.length

    def at(self, iova: int) -> tuple[Backing, int]:
        """Return where the byte of an I/O address is."""
        return self.backing, self.address + iova - self.iova


class Mappings:
    """What one VMM has mapped; a :class:`nvmelm.vfio.seam.GuestMemory`.

    Args:
        record: takes each change, for a restart.
    """

    def __init__(self, record: Recorder = nothing) -> None:
        self._record = record
        self._lock = threading.Lock()
        self._known: list[Mapping] = []

    def map(self, mapping: Mapping) -> None:
        """Take note of one more."""
        with self._lock:
            if mapping not in self._known:
                self._known.append(mapping)
                self._record(*as_event(mapping))

    def move(self, space: Space, iova: int, address: int) -> None:
        """Take note that mapped memory is elsewhere in the VMM now (``VFIO_DMA_MAP_FLAG_VADDR``)."""
        with self._lock:
            self._record("move", space, iova, address)
            self._known = [
                replace(known, address=address) if (known.space, known.iova) == (space, iova) else known
                for known in self._known
            ]

    def unmap(self, space: Space, iova: int, length: int) -> None:
        """Take note that a range is gone; the kernel refuses one that would cut a mapping, and keeps all then."""
        end = iova + length
        with self._lock:
            hit = [m for m in self._known if m.space == space and m.iova < end and iova < m.end]
            if hit and all(iova <= m.iova and m.end <= end for m in hit):
                self._record("unmap", space, iova, length)
                self._known = [m for m in self._known if m not in hit]

    def ranges(self) -> tuple[Mapping, ...]:
        """Return what is mapped, in the order it was."""
        with self._lock:
            return tuple(self._known)

    def read(self, iova: int, length: int) -> bytes:
        return b"".join(backing.read(address, size) for backing, address, size in self._pieces(iova, length))

    def write(self, iova: int, data: bytes) -> None:
        done = 0
        for backing, address, size in list(self._pieces(iova, len(data))):  # all of it is known, or nothing is written
            backing.write(address, data[done : done + size])
            done += size

    def _pieces(self, iova: int, length: int) -> Iterator[tuple[Backing, int, int]]:
        end = iova + length
        known = self.ranges()
        while iova < end:
            covering = [mapping for mapping in known if mapping.iova <= iova < mapping.end]
            places = {mapping.at(iova) for mapping in covering}
            if len(places) != 1:
                how = "in two places" if places else "nowhere"
                raise LookupError(f"the VMM has mapped I/O address {iova:#x} {how}")
            stop = min(end, *(mapping.end for mapping in covering))
            stop = min([stop, *(mapping.iova for mapping in known if iova < mapping.iova < stop)])
            yield (*places.pop(), stop - iova)
            iova = stop


def as_event(mapping: Mapping) -> Event:
    """Return a mapping as :mod:`nvmelm.interposer.record` has it."""
    return ("map", mapping.space, mapping.iova, mapping.length, mapping.backing.source, mapping.address)


def note(mappings: Mappings, request: int, process: Process, descriptor: int, argument: int) -> None:
    """Take note of a call that maps or unmaps, before it is carried out.

    Args:
        argument: where its structure is in the caller's memory.

    Raises:
        OSError: the caller's memory cannot be read; the kernel will say the same.
    """
    match request:
        case calls.VFIO_IOMMU_MAP_DMA:
            _map(mappings, process, descriptor, _MAP.unpack(process.read(argument, _MAP.size)))
        case calls.VFIO_IOMMU_UNMAP_DMA:
            _argsz, flags, iova, size = _UNMAP.unpack(process.read(argument, _UNMAP.size))
            if not flags & _UNMAP_VADDR:
                whole = (0, _EVERYTHING) if flags & _UNMAP_ALL else (iova, size)
                mappings.unmap((descriptor, 0), *whole)
        case calls.IOMMU_IOAS_MAP:
            _size, flags, ioas, _, address, length, iova = _IOAS_MAP.unpack(process.read(argument, _IOAS_MAP.size))
            if flags & _IOAS_FIXED:  # else the kernel chooses, and tells the caller alone
                mappings.map(Mapping((descriptor, ioas), iova, length, process, address))
        case calls.IOMMU_IOAS_MAP_FILE:
            _map_file(mappings, process, descriptor, _IOAS_MAP_FILE.unpack(process.read(argument, _IOAS_MAP_FILE.size)))
        case calls.IOMMU_IOAS_UNMAP:
            _size, ioas, iova, length = _IOAS_UNMAP.unpack(process.read(argument, _IOAS_UNMAP.size))
            mappings.unmap((descriptor, ioas), iova, length)


def _map(mappings: Mappings, process: Process, descriptor: int, words: tuple[int, ...]) -> None:
    argsz, flags, address, iova, size = words
    if argsz < _MAP.size:
        return
    if flags & _MAP_VADDR:
        mappings.move((descriptor, 0), iova, address)
    elif flags & _MAP_READ_OR_WRITE:  # of a device, the number is VFIO_DEVICE_PCI_HOT_RESET, whose flags are 0
        mappings.map(Mapping((descriptor, 0), iova, size, process, address))


def _map_file(mappings: Mappings, process: Process, descriptor: int, words: tuple[int, ...]) -> None:
    _size, flags, ioas, number, start, length, iova = words
    if flags & _IOAS_FIXED:
        with process.copy(number) as fd:
            file = os.fstat(fd)
        backing = FileBacking(process, (file.st_dev, file.st_ino))
        mappings.map(Mapping((descriptor, ioas), iova, length, backing, start))
