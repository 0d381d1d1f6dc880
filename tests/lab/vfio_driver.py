"""The NVMe driver of :mod:`tests.lab.nvme_driver` in user space: it owns a virtual function through VFIO, as a VM does.

Interrupts only where a test asks for them. Memory is this process' own. A second function that is opened with the same
:class:`Memory` reaches it at the same addresses, as a VM's memory is the same at the destination.

Source: include/uapi/linux/vfio.h.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import struct
from pathlib import Path
from typing import Self

from tests.lab.nvme_driver import IOVA, MEMORY, Driver

VFIO_SET_IOMMU, VFIO_MAP_DMA = 0x3B66, 0x3B71
VFIO_GROUP_GET_STATUS, VFIO_GROUP_SET_CONTAINER, VFIO_GROUP_GET_DEVICE_FD = 0x3B67, 0x3B68, 0x3B6A
VFIO_DEVICE_GET_REGION_INFO, VFIO_DEVICE_SET_IRQS = 0x3B6C, 0x3B6E
DATA_EVENTFD, ACTION_TRIGGER, MSIX = 1 << 2, 1 << 5, 2
TYPE1V2 = 3
BAR0, CONFIG = 0, 7
READ_WRITE = 3


class Memory:
    """Pages of this process that functions may reach by DMA."""

    def __init__(self) -> None:
        self.map = mmap.mmap(-1, MEMORY)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.map))


class Function(Driver):
    """A virtual function bound to vfio-pci, open."""

    def __init__(self, bdf: str, memory: Memory) -> None:
        super().__init__(bdf, memory.map)
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

    def close(self) -> None:
        """Let the function go; the kernel resets it. A mapping that is left would keep it held."""
        self.bar.close()
        for descriptor in (self.device, self.group, self.container):
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def read32(self, offset: int) -> int:
        return int(self._register(offset).value)

    def write32(self, offset: int, value: int) -> None:
        self._register(offset).value = value

    def interrupt(self) -> int:
        """Enable MSI-X with one vector, and return the event descriptor that it signals."""
        event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        flags = DATA_EVENTFD | ACTION_TRIGGER
        fcntl.ioctl(self.device, VFIO_DEVICE_SET_IRQS, struct.pack("<IIIIIi", 24, flags, MSIX, 0, 1, event))
        return event

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
