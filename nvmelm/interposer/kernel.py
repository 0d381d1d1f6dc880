"""What the supervisor asks of VFIO itself, on copies of the VMM's descriptors.

A seam of its own, so that a test can hand out devices where there is no VFIO.

Sources: Linux include/uapi/linux/vfio.h; drivers/vfio/pci/vfio_pci_intrs.c (vfio_pci_set_msi_trigger,
vfio_pci_set_intx_trigger); Documentation/driver-api/vfio.rst.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import struct
from fcntl import ioctl
from pathlib import Path
from typing import NamedTuple, Protocol

import ioctl_opt

from nvmelm.interposer.filter import VFIO_DEVICE_RESET, VFIO_GROUP_GET_DEVICE_FD

#: A function's name in sysfs.
PCI_ADDRESS = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]")

_TYPE, _BASE = ord(";"), 100
_GET_REGION_INFO = ioctl_opt.IO(_TYPE, _BASE + 8)
_GET_IRQ_INFO = ioctl_opt.IO(_TYPE, _BASE + 9)
_SET_IRQS = ioctl_opt.IO(_TYPE, _BASE + 10)

#: struct vfio_region_info: argsz, flags, index, cap_offset, size, offset.
_REGION = struct.Struct("=4I2Q")
#: struct vfio_irq_info: argsz, flags, index, count.
_IRQ = struct.Struct("=4I")
#: struct vfio_irq_set without data: argsz, flags, index, start, count.
_IRQ_SET = struct.Struct("=5I")

#: VFIO_PCI_BAR0_REGION_INDEX, VFIO_PCI_CONFIG_REGION_INDEX.
BAR0, CONFIG = 0, 7
_MSIX, _MSI, _INTX = 2, 1, 0  # VFIO_PCI_*_IRQ_INDEX
_DATA_NONE, _ACTION_TRIGGER = 1 << 0, 1 << 5


class Identity(NamedTuple):
    """What the kernel says an open file is: file system, inode, device number of a node, or its name without one.

    All files without a place of their own (event counters, KVM's, and devices that were opened by their groups) share
    one inode; their names, ``anon_inode:[vfio-device]``, tell the kinds apart, and nothing tells two devices apart.

    Source: Linux fs/anon_inodes.c; drivers/vfio/vfio_main.c (vfio_device_open_file).
    """

    device: int
    inode: int
    node: int
    name: str

    @classmethod
    def of(cls, number: int, pid: int | None = None) -> Identity:
        """Return a descriptor's, of this process or of another one; OSError when it is not open."""
        path = f"/proc/{pid or 'self'}/fd/{number}"
        about = os.stat(path)  # noqa: PTH116 (asked for each call)
        name = "" if about.st_rdev else os.readlink(path)  # noqa: PTH115
        return cls(about.st_dev, about.st_ino, about.st_rdev, name)


class Kernel(Protocol):
    """VFIO, through descriptors of ours; all of it may raise OSError."""

    def is_group(self, fd: int) -> bool:
        """Return whether a descriptor is that of a VFIO group."""
        ...

    def open_device(self, group: int, name: bytes) -> int:
        """Open a device of a group, and return its descriptor.

        Args:
            group: a descriptor of the group.
            name: as the VMM wrote it: a PCI address, perhaps with `` vf_token=...`` behind it.
        """
        ...

    def address(self, fd: int) -> str | None:
        """Return the PCI address behind a device's own node (the cdev way), or None for any other descriptor."""
        ...

    def reset(self, device: int) -> None:
        """Reset a device."""
        ...

    def region(self, device: int, index: int) -> int:
        """Return where a region, :data:`BAR0` or :data:`CONFIG`, begins in a device's file, in bytes."""
        ...

    def trigger(self, device: int) -> None:
        """Raise each interrupt the VMM has set up once."""
        ...


class Vfio:
    """The kernel's VFIO.

    Args:
        sysfs: where it shows its devices.
    """

    def __init__(self, sysfs: Path = Path("/sys")) -> None:
        self._sysfs = sysfs

    def is_group(self, fd: int) -> bool:
        node = self._node(fd)
        return node is not None and node.parent.name == "vfio"

    def open_device(self, group: int, name: bytes) -> int:
        device: int = ioctl(group, VFIO_GROUP_GET_DEVICE_FD, bytearray(name + b"\0"), True)
        return device

    def address(self, fd: int) -> str | None:
        node = self._node(fd)
        if node is None or node.parent.name != "vfio-dev":
            return None
        name = node.parent.parent.name
        return name if PCI_ADDRESS.fullmatch(name) else None

    def _node(self, fd: int) -> Path | None:
        about = os.fstat(fd)
        if not stat.S_ISCHR(about.st_mode):
            return None
        node = self._sysfs / f"dev/char/{os.major(about.st_rdev)}:{os.minor(about.st_rdev)}"
        return node.resolve() if node.exists() else None

    def reset(self, device: int) -> None:
        ioctl(device, VFIO_DEVICE_RESET)

    def region(self, device: int, index: int) -> int:
        words = bytearray(_REGION.pack(_REGION.size, 0, index, 0, 0, 0))
        ioctl(device, _GET_REGION_INFO, words, True)
        offset: int = _REGION.unpack(words)[5]
        return offset

    def trigger(self, device: int) -> None:
        for index in (_MSIX, _MSI, _INTX):  # one of the three at most is set up
            for vector in range(_vectors(device, index)):
                if not _trigger(device, index, vector):
                    break


def _vectors(device: int, index: int) -> int:
    words = bytearray(_IRQ.pack(_IRQ.size, 0, index, 0))
    ioctl(device, _GET_IRQ_INFO, words, True)
    count: int = _IRQ.unpack(words)[3]
    return count


def _trigger(device: int, index: int, vector: int) -> bool:
    """Raise one vector; return False when this kind of interrupt is not in use, or has no vector of that number."""
    try:
        flags = _DATA_NONE | _ACTION_TRIGGER
        ioctl(device, _SET_IRQS, _IRQ_SET.pack(_IRQ_SET.size, flags, index, vector, 1))
    except OSError as error:
        if error.errno == errno.EINVAL:
            return False
        raise
    return True
