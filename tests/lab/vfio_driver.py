"""A small NVMe driver in user space: it owns a virtual function through VFIO, as a VM does, and does I/O on it.

One I/O queue pair, polling; interrupts only where a test asks for them. Memory is this process' own. A second function
that is opened with the same :class:`Memory` reaches it at the same addresses, as a VM's memory is the same at the
destination.

Source: include/uapi/linux/vfio.h; NVM Express over PCIe Transport Specification (properties, doorbells); NVM Express
Base Specification (queue entries, Create I/O Queue).
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import struct
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

PAGE = 4096
MEMORY = 64 * PAGE
IOVA = 0x10_0000
ADMIN_SQ, ADMIN_CQ, IO_SQ, IO_CQ, DATA = 0, PAGE, 2 * PAGE, 3 * PAGE, 8 * PAGE
ENTRIES = 32

VFIO_SET_IOMMU, VFIO_MAP_DMA = 0x3B66, 0x3B71
VFIO_GROUP_GET_STATUS, VFIO_GROUP_SET_CONTAINER, VFIO_GROUP_GET_DEVICE_FD = 0x3B67, 0x3B68, 0x3B6A
VFIO_DEVICE_GET_REGION_INFO, VFIO_DEVICE_SET_IRQS = 0x3B6C, 0x3B6E
DATA_EVENTFD, ACTION_TRIGGER, MSIX = 1 << 2, 1 << 5, 2
TYPE1V2 = 3
BAR0, CONFIG = 0, 7
READ_WRITE = 3
CC, CSTS, AQA, ASQ, ACQ, DOORBELLS = 0x14, 0x1C, 0x24, 0x28, 0x30, 0x1000
ENABLED = 0x0046_0001  # EN, I/O queue entries of 64 and 16 bytes
WRITE, READ, CREATE_SQ, CREATE_CQ = 0x01, 0x02, 0x01, 0x05
DEADLINE_S = 60.0


class Memory:
    """Pages of this process that functions may reach by DMA."""

    def __init__(self) -> None:
        self.map = mmap.mmap(-1, MEMORY)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.map))


@dataclass
class Pair:
    """A queue pair as the driver keeps it; it moves with the memory."""

    number: int
    sq: int
    cq: int
    tail: int = 0
    head: int = 0
    phase: int = 1
    next_id: int = 0
    waiting: dict[int, str] = field(default_factory=dict)


class Function:
    """A virtual function bound to vfio-pci, open."""

    def __init__(self, bdf: str, memory: Memory) -> None:
        self.bdf = bdf
        self.memory = memory
        group = Path(f"/sys/bus/pci/devices/{bdf}/iommu_group").resolve().name
        self.container = os.open("/dev/vfio/vfio", os.O_RDWR | os.O_CLOEXEC)
        self.group = os.open(f"/dev/vfio/{group}", os.O_RDWR | os.O_CLOEXEC)
        status = bytearray(struct.pack("<II", 8, 0))
        fcntl.ioctl(self.group, VFIO_GROUP_GET_STATUS, status)
        assert struct.unpack("<II", status)[1] & 1, "the group is not viable"
        fcntl.ioctl(self.group, VFIO_GROUP_SET_CONTAINER, struct.pack("<i", self.container))
        fcntl.ioctl(self.container, VFIO_SET_IOMMU, TYPE1V2)
        self.device = fcntl.ioctl(self.group, VFIO_GROUP_GET_DEVICE_FD, bytearray(bdf.encode() + b"\0"))
        fcntl.ioctl(self.container, VFIO_MAP_DMA, struct.pack("<IIQQQ", 32, READ_WRITE, memory.address, IOVA, MEMORY))
        self._enable_bus_master()
        size, offset = self._region(BAR0)
        self.bar = mmap.mmap(self.device, size, offset=offset)
        self.admin = Pair(0, ADMIN_SQ, ADMIN_CQ)

    def close(self) -> None:
        """Let the function go; the kernel resets it. A mapping that is left would keep it held."""
        self.bar.close()
        for descriptor in (self.device, self.group, self.container):
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def enable(self) -> None:
        """Set the admin queue up and enable the controller: what a VMM does before a state is set."""
        self._write(CC, 0)
        self._wait(lambda: not self._read(CSTS) & 1, "the controller to be disabled")
        self._write(AQA, (ENTRIES - 1) << 16 | (ENTRIES - 1))
        for register, at in ((ASQ, ADMIN_SQ), (ACQ, ADMIN_CQ)):
            self._write(register, (IOVA + at) & 0xFFFF_FFFF)
            self._write(register + 4, (IOVA + at) >> 32)
        self.memory.map[ADMIN_CQ : ADMIN_CQ + PAGE] = bytes(PAGE)  # no phase tag of an earlier use
        self._write(CC, ENABLED)
        self._wait(lambda: bool(self._read(CSTS) & 1), "the controller to be ready")

    def interrupt(self) -> int:
        """Enable MSI-X with one vector, and return the event descriptor that it signals."""
        event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        flags = DATA_EVENTFD | ACTION_TRIGGER
        fcntl.ioctl(self.device, VFIO_DEVICE_SET_IRQS, struct.pack("<IIIIIi", 24, flags, MSIX, 0, 1, event))
        return event

    def create_queues(self, *, interrupts: bool = False) -> Pair:
        """Make I/O queue pair 1, whose completions interrupt by vector 0 or not at all."""
        self.memory.map[IO_CQ : IO_CQ + PAGE] = bytes(PAGE)
        for opcode, at, flags in ((CREATE_CQ, IO_CQ, 1 | interrupts << 1), (CREATE_SQ, IO_SQ, 1 | 1 << 16)):
            self.submit(self.admin, opcode, 0, prp=IOVA + at, cdw10=(ENTRIES - 1) << 16 | 1, cdw11=flags)
            assert self.complete(self.admin, 1) == [0]
        return Pair(1, IO_SQ, IO_CQ)

    def submit(
        self, pair: Pair, opcode: int, nsid: int, *, prp: int, cdw10: int = 0, cdw11: int = 0, cdw12: int = 0
    ) -> int:
        """Put a command into a submission queue and ring its doorbell; return its id."""
        number = pair.next_id
        pair.next_id += 1
        entry = struct.pack("<BBHI16xQQIII12x", opcode, 0, number, nsid, prp, 0, cdw10, cdw11, cdw12)
        at = pair.sq + pair.tail * 64
        self.memory.map[at : at + 64] = entry
        pair.tail = (pair.tail + 1) % ENTRIES
        pair.waiting[number] = f"{opcode:#x}"
        self._write(DOORBELLS + 8 * pair.number, pair.tail)
        return number

    def take(self, pair: Pair) -> int | None:
        """Take one completion, if there is one, and return its status; it belongs to one command that waits."""
        at = pair.cq + pair.head * 16
        number, status = struct.unpack("<HH", self.memory.map[at + 12 : at + 16])
        if status & 1 != pair.phase:
            return None
        assert pair.waiting.pop(number, None), f"a completion of command {number} came that nobody waits for"
        pair.head = (pair.head + 1) % ENTRIES
        pair.phase ^= pair.head == 0
        self._write(DOORBELLS + 8 * pair.number + 4, pair.head)
        return int(status >> 1)

    def complete(self, pair: Pair, count: int, *, deadline_s: float = DEADLINE_S) -> list[int]:
        """Take completions until so many came, and return their statuses."""
        statuses: list[int] = []
        until = time.monotonic() + deadline_s
        while len(statuses) < count:
            status = self.take(pair)
            if status is None:
                assert time.monotonic() < until, f"{count - len(statuses)} completions are missing on {self.bdf}"
                os.sched_yield()
            else:
                statuses.append(status)
        return statuses

    def nothing_more(self, pair: Pair) -> bool:
        """Return whether no completion waits to be taken."""
        at = pair.cq + pair.head * 16
        return struct.unpack("<H", self.memory.map[at + 14 : at + 16])[0] & 1 != pair.phase

    def _region(self, index: int) -> tuple[int, int]:
        info = bytearray(struct.pack("<IIIIQQ", 32, 0, index, 0, 0, 0))
        fcntl.ioctl(self.device, VFIO_DEVICE_GET_REGION_INFO, info)
        *_, size, offset = struct.unpack("<IIIIQQ", info)
        return size, offset

    def _enable_bus_master(self) -> None:
        _, offset = self._region(CONFIG)
        command = struct.unpack("<H", os.pread(self.device, 2, offset + 4))[0]
        os.pwrite(self.device, struct.pack("<H", command | 0x6), offset + 4)

    def _register(self, offset: int) -> ctypes.c_uint32:
        return ctypes.c_uint32.from_buffer(self.bar, offset)  # one access of 32 bits, as the device wants it

    def _read(self, offset: int) -> int:
        return int(self._register(offset).value)

    def _write(self, offset: int, value: int) -> None:
        self._register(offset).value = value

    @staticmethod
    def _wait(condition: object, what: str) -> None:
        until = time.monotonic() + DEADLINE_S
        while not condition():  # type: ignore[operator]
            assert time.monotonic() < until, f"waited in vain for {what}"
            os.sched_yield()


def block(number: int) -> bytes:
    """Return a page whose every part says which one it is."""
    return struct.pack("<Q", number) * (PAGE // 8)


def put(function: Function, pair: Pair, number: int, nsid: int = 1) -> int:
    """Write page ``number`` of the medium, from a place of its own in memory."""
    at = DATA + number % 16 * PAGE
    function.memory.map[at : at + PAGE] = block(number)
    return function.submit(pair, WRITE, nsid, prp=IOVA + at, cdw10=number * 8, cdw12=7)


def get(function: Function, pair: Pair, number: int, nsid: int = 1) -> bytes:
    """Read page ``number`` of the medium."""
    at = DATA + 20 * PAGE
    function.memory.map[at : at + PAGE] = bytes(PAGE)
    function.submit(pair, READ, nsid, prp=IOVA + at, cdw10=number * 8, cdw12=7)
    assert function.complete(pair, 1) == [0]
    return bytes(function.memory.map[at : at + PAGE])
