"""What a VMM has mapped for DMA, and where the VM's memory then is."""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvmelm.interposer import memory
from nvmelm.interposer.caller import Process
from nvmelm.interposer.memory import Mapping, Mappings

SPACE = (5, 0)


@dataclass(eq=False)
class Memory:
    """A process's memory, by address."""

    pid: int = 1
    data: bytearray = field(default_factory=lambda: bytearray(1 << 16))

    def read(self, address: int, length: int) -> bytes:
        return bytes(self.data[address : address + length])

    def write(self, address: int, data: bytes) -> None:
        self.data[address : address + len(data)] = data

    @property
    def source(self) -> tuple[int, ...]:
        return (self.pid,)


def note(mappings: Mappings, process: Memory, request: int, structure: bytes, descriptor: int = 5) -> None:
    process.write(0, structure)
    memory.note(mappings, request, cast("Any", process), descriptor, 0)


def container_map(iova: int, size: int, address: int, flags: int = 3) -> bytes:
    return struct.pack("=2I3Q", 32, flags, address, iova, size)


def test_memory_is_read_and_written_where_the_container_mapped_it() -> None:
    mappings, process = Mappings(), Memory()
    note(mappings, process, 0x3B71, container_map(0x10000, 0x1000, 0x2000))
    note(mappings, process, 0x3B71, container_map(0x11000, 0x1000, 0x8000))
    mappings.write(0x10FFE, b"abcd")
    assert (process.read(0x2FFE, 2), process.read(0x8000, 2)) == (b"ab", b"cd")
    assert mappings.read(0x10FFE, 4) == b"abcd"


def test_memory_is_read_where_the_iommufd_mapped_it_and_not_where_the_kernel_chose() -> None:
    mappings, process = Mappings(), Memory()
    note(mappings, process, 0x3B85, struct.pack("=4I3Q", 40, 7, 2, 0, 0x3000, 0x1000, 0x20000))
    note(mappings, process, 0x3B85, struct.pack("=4I3Q", 40, 6, 2, 0, 0x4000, 0x1000, 0x30000))
    process.write(0x3000, b"ring")
    assert mappings.read(0x20000, 4) == b"ring"
    with pytest.raises(LookupError):
        mappings.read(0x30000, 4)
    note(mappings, process, 0x3B86, struct.pack("=2I2Q", 24, 2, 0x20000, 0x1000))
    with pytest.raises(LookupError):
        mappings.read(0x20000, 4)


def test_memory_that_was_mapped_by_its_file_is_where_the_vmm_has_the_file_mapped() -> None:
    """This process plays the VMM: its memory is read and written by the system calls that reach another's."""
    fd = os.memfd_create("ram")
    os.ftruncate(fd, 0x4000)
    pages = [mmap.mmap(fd, 0x1000, offset=offset) for offset in (0x2000, 0x1000)]
    mappings, process = Mappings(), Process(os.getpid())
    structure = ctypes.create_string_buffer(struct.pack("=3Ii3Q", 40, 7, 2, fd, 0x1000, 0x3000, 0x20000))
    memory.note(mappings, 0x3B8F, process, 5, ctypes.addressof(structure))
    os.close(fd)
    mappings.write(0x20FFE, b"ring")
    assert (pages[1][-2:], pages[0][:2]) == (b"ri", b"ng")
    assert mappings.read(0x20FFE, 4) == b"ring"
    with pytest.raises(OSError, match="not mapped this part"):
        mappings.read(0x22000, 4)
    for page in pages:
        page.close()


def test_nothing_is_written_of_what_is_not_mapped_as_a_whole() -> None:
    mappings, process = Mappings(), Memory()
    note(mappings, process, 0x3B71, container_map(0x10000, 0x1000, 0x2000))
    with pytest.raises(LookupError, match="0x11000 nowhere"):
        mappings.write(0x10FFE, b"abcd")
    assert process.read(0x2FFE, 2) == bytes(2)


def test_an_address_that_was_mapped_to_two_places_is_in_neither() -> None:
    mappings, process = Mappings(), Memory()
    note(mappings, process, 0x3B71, container_map(0x10000, 0x2000, 0x2000))
    note(mappings, process, 0x3B71, container_map(0x11000, 0x1000, 0x8000), descriptor=6)
    assert mappings.read(0x10000, 0x1000) == bytes(0x1000)
    with pytest.raises(LookupError, match="two places"):
        mappings.read(0x10FFF, 2)


def test_a_mapping_that_two_address_spaces_share_is_one_place() -> None:
    mappings, process = Mappings(), Memory()
    for descriptor in (5, 6):
        note(mappings, process, 0x3B71, container_map(0x10000, 0x1000, 0x2000), descriptor)
    assert mappings.read(0x10000, 4) == bytes(4)


def test_a_range_that_would_cut_a_mapping_unmaps_nothing_as_in_the_kernel() -> None:
    mappings, process = Mappings(), Memory()
    note(mappings, process, 0x3B71, container_map(0x10000, 0x2000, 0x2000))
    note(mappings, process, 0x3B72, struct.pack("=2I2Q", 24, 0, 0x11000, 0x1000))
    assert mappings.read(0x11000, 4) == bytes(4)
    note(mappings, process, 0x3B72, struct.pack("=2I2Q", 24, 0, 0x8000, 0x20000))
    assert mappings.ranges() == ()


def test_everything_of_one_space_is_unmapped_at_once() -> None:
    mappings, process = Mappings(), Memory()
    note(mappings, process, 0x3B71, container_map(0x10000, 0x1000, 0x2000))
    note(mappings, process, 0x3B71, container_map(0x20000, 0x1000, 0x3000), descriptor=6)
    note(mappings, process, 0x3B72, struct.pack("=2I2Q", 24, 2, 0, 0))
    assert [mapping.iova for mapping in mappings.ranges()] == [0x20000]


def test_memory_that_moves_within_its_vmm_keeps_its_io_address() -> None:
    mappings, process = Mappings(), Memory()
    note(mappings, process, 0x3B71, container_map(0x10000, 0x1000, 0x2000))
    note(mappings, process, 0x3B72, struct.pack("=2I2Q", 24, 4, 0x10000, 0x1000))
    note(mappings, process, 0x3B71, container_map(0x10000, 0x1000, 0x6000, flags=4))
    process.write(0x6000, b"here")
    assert mappings.read(0x10000, 4) == b"here"


def test_a_hot_reset_of_a_device_maps_nothing() -> None:
    mappings, process = Mappings(), Memory()
    note(mappings, process, 0x3B71, struct.pack("=4I", 64, 0, 13, 4) + bytes(48))
    assert mappings.ranges() == ()


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 8)), max_size=8), st.integers(0, 40), st.integers(1, 16))
def test_what_is_mapped_byte_by_byte_is_what_is_read(rows: list[tuple[int, int]], at: int, length: int) -> None:
    """Mappings are laid one behind the other in the process; a byte is readable when exactly one of them has it."""
    mappings, process = Mappings(), Memory()
    process.data[:] = os.urandom(len(process.data))
    bytes_of: dict[int, set[int]] = {}
    for number, (iova, size) in enumerate(rows):
        mappings.map(Mapping(SPACE, iova, size, process, number * 100))
        for offset in range(size):
            bytes_of.setdefault(iova + offset, set()).add(number * 100 + offset)
    places = [bytes_of.get(byte, set()) for byte in range(at, at + length)]
    if all(len(place) == 1 for place in places):
        assert mappings.read(at, length) == bytes(process.data[place.copy().pop()] for place in places)
    else:
        with pytest.raises(LookupError):
            mappings.read(at, length)
