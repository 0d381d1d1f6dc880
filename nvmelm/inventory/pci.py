"""PCI functions as sysfs shows them: addresses, SR-IOV, drivers and IOMMU groups. Reads only; writes are planned.

A VF is found from its PF, by the ``virtfnN`` links, and its address can be computed before it exists::

    routing id of VF index i = routing id of the PF + First VF Offset + i * VF Stride

Source: Linux Documentation/ABI/testing/sysfs-bus-pci; PCI Express SR-IOV extended capability.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

from nvmelm.errors import MalformedError, UsageError
from nvmelm.host import Sysfs
from nvmelm.numbers import decimal, hexadecimal

DEVICES = "bus/pci/devices"
DRIVERS = "bus/pci/drivers"
GROUPS = "kernel/iommu_groups"
NVME_DRIVER = "nvme"
VFIO_DRIVER = "vfio-pci"

#: What the kernel prints for an override that is not set.
_NO_OVERRIDE = ("", "(null)")
#: The kernel's own name for a group without an IOMMU (drivers/vfio/group.c).
_NO_IOMMU_GROUP = "vfio-noiommu"
_U64 = (1 << 64) - 1
_MAX_GROUP = 0x7FFF_FFFF  # an int of the kernel's
_ADDRESS = re.compile(r"(?:([0-9a-fA-F]{4,8}):)?([0-9a-fA-F]{2}):([0-9a-fA-F]{2})\.([0-7])")
_VIRTFN = re.compile(r"virtfn([0-9]{1,5})")


class Bdf(NamedTuple):
    """A PCI function's address: domain, bus, device and function, printed ``0000:01:00.1``."""

    domain: int
    bus: int
    device: int
    function: int

    @classmethod
    def parse(cls, text: str) -> Bdf:
        """Read ``0000:01:00.1``, or ``01:00.1`` in domain 0.

        Raises:
            UsageError: not a PCI address.
        """
        match = _ADDRESS.fullmatch(text)
        if match is None or int(match[3], 16) > 0x1F:
            raise UsageError(f"{text!r} is not a PCI address", fix="write it like 0000:01:00.1; nvmelm list shows them")
        return cls(int(match[1] or "0", 16), int(match[2], 16), int(match[3], 16), int(match[4]))

    @classmethod
    def looks_like(cls, text: str) -> bool:
        """Return whether a text has the form of a PCI address."""
        return _ADDRESS.fullmatch(text) is not None

    @classmethod
    def from_routing_id(cls, domain: int, routing_id: int) -> Bdf:
        """Return the function with a routing id, ``bus << 8 | device << 3 | function``, 16 bits.

        A VF's is its PF's plus First VF Offset plus its index times VF Stride, with a carry into the bus (Linux
        drivers/pci/iov.c, pci_iov_virtfn_bus); its domain is the PF's.

        Raises:
            MalformedError: the sum does not fit 16 bits.
        """
        if not 0 <= routing_id <= 0xFFFF:
            cause = "First VF Offset or VF Stride is wrong"
            raise MalformedError(f"routing id {routing_id:#x} is on no bus", cause=cause)
        return cls(domain, routing_id >> 8, routing_id >> 3 & 0x1F, routing_id & 7)

    @property
    def routing_id(self) -> int:
        """Return the 16-bit routing id."""
        return self.bus << 8 | self.device << 3 | self.function

    @property
    def path(self) -> str:
        """Return the function's directory below /sys."""
        return f"{DEVICES}/{self}"

    def __str__(self) -> str:
        return f"{self.domain:04x}:{self.bus:02x}:{self.device:02x}.{self.function}"


class Sriov(NamedTuple):
    """The SR-IOV attributes of a PF.

    Attributes:
        total: VFs the PF can have.
        enabled: VFs it has now; 0 or one number, there is no partial disable.
        offset: First VF Offset, stride: VF Stride; both may depend on the number enabled.
        autoprobe: whether the kernel offers new VFs to drivers by itself.
    """

    total: int
    enabled: int
    offset: int
    stride: int
    autoprobe: bool

    def address(self, pf: Bdf, index: int) -> Bdf:
        """Return the address of the VF with an index (0-based), whether it is enabled or not."""
        return Bdf.from_routing_id(pf.domain, pf.routing_id + self.offset + index * self.stride)


def read_int(sysfs: Sysfs, path: str, base: Literal[10, 16] = 10) -> int:
    """Read a number of at most 64 bits from an attribute; MalformedError when it is none."""
    text = sysfs.read(path)
    value = (decimal if base == 10 else hexadecimal)(text, most=_U64)
    if value is None:
        raise MalformedError(f"/sys/{path} holds {text[:40]!r}, not a number")
    return value


def _linked(sysfs: Sysfs, path: str) -> Bdf | None:
    """Return the function a link leads to, or None when there is no link; MalformedError when it leads elsewhere."""
    target = link_name(sysfs, path)
    if target is None:
        return None
    if not Bdf.looks_like(target):
        raise MalformedError(f"/sys/{path} leads to {target[:40]!r}, not to a PCI function")
    return Bdf.parse(target)


def sriov(sysfs: Sysfs, pf: Bdf) -> Sriov | None:
    """Read the SR-IOV attributes, or None when the function has no such capability."""
    if not sysfs.exists(f"{pf.path}/sriov_totalvfs"):
        return None
    return Sriov(
        total=read_int(sysfs, f"{pf.path}/sriov_totalvfs"),
        enabled=read_int(sysfs, f"{pf.path}/sriov_numvfs"),
        offset=read_int(sysfs, f"{pf.path}/sriov_offset"),
        stride=read_int(sysfs, f"{pf.path}/sriov_stride"),
        autoprobe=read_int(sysfs, f"{pf.path}/sriov_drivers_autoprobe") == 1,
    )


def virtual_functions(sysfs: Sysfs, pf: Bdf) -> dict[int, Bdf]:
    """Return the enabled VFs by index (0-based; VF Number less one), from the ``virtfnN`` links."""
    functions = {}
    for name in sysfs.listdir(pf.path):
        match = _VIRTFN.fullmatch(name)
        address = _linked(sysfs, f"{pf.path}/{name}") if match else None
        if match and address:
            functions[int(match[1])] = address
    return functions


def virtual_function(sysfs: Sysfs, pf: Bdf, index: int) -> Bdf | None:
    """Return where the VF with an index (0-based) is by its ``virtfnN`` link, or None when it is not enabled."""
    return _linked(sysfs, f"{pf.path}/virtfn{index}")


def count_virtual_functions(sysfs: Sysfs, pf: Bdf) -> int:
    """Return how many VFs are there, by their links alone."""
    return sum(1 for name in sysfs.listdir(pf.path) if name.startswith("virtfn"))


def physical_function(sysfs: Sysfs, function: Bdf) -> Bdf | None:
    """Return the PF of a VF, or None when the function is not a VF."""
    return _linked(sysfs, f"{function.path}/physfn")


def link_name(sysfs: Sysfs, path: str) -> str | None:
    """Return the last component of a link's target, or None when there is no link."""
    target = sysfs.readlink(path)
    return target.rstrip("/").rsplit("/", 1)[-1] if target else None


def driver(sysfs: Sysfs, function: Bdf) -> str | None:
    """Return the name of the driver that is bound, or None."""
    return link_name(sysfs, f"{function.path}/driver")


def driver_override(sysfs: Sysfs, function: Bdf) -> str:
    """Return the override's text, empty when there is none."""
    text = sysfs.read(f"{function.path}/driver_override")
    return "" if text in _NO_OVERRIDE else text


def iommu_group(sysfs: Sysfs, function: Bdf) -> int | None:
    """Return the IOMMU group's number, or None when the function is in none; see :func:`without_iommu`, too."""
    name = link_name(sysfs, f"{function.path}/iommu_group")
    return decimal(name, most=_MAX_GROUP) if name else None


def without_iommu(sysfs: Sysfs, group: int) -> bool:
    """Return whether VFIO made a group itself, in its mode without an IOMMU: nothing translates there."""
    path = f"{GROUPS}/{group}/name"  # only groups that were given a name have it
    return sysfs.exists(path) and sysfs.read(path).strip() == _NO_IOMMU_GROUP


def translated_groups(sysfs: Sysfs) -> Iterator[int]:
    """Yield the IOMMU groups in which an IOMMU translates."""
    numbers = (decimal(name, most=_MAX_GROUP) for name in sysfs.listdir(GROUPS))
    return (number for number in numbers if number is not None and not without_iommu(sysfs, number))


def is_vfio(sysfs: Sysfs, function: Bdf, driver: str | None) -> bool:
    """Return whether a function's driver gives it to VFIO: ``vfio-pci``, or a variant driver such as mlx5_vfio_pci.

    Linux before 6.1 has no ``vfio-dev`` directory (3c6cf9c), so a driver that is known by its name needs none.
    """
    if driver is None or driver == NVME_DRIVER:
        return False
    return "vfio" in driver.replace("-", "_").split("_") or vfio_device(sysfs, function) is not None


def vfio_group_node(sysfs: Sysfs, group: int) -> str:
    """Return the device node of a group that VFIO has, below /dev (vfio_create_group)."""
    return f"vfio/noiommu-{group}" if without_iommu(sysfs, group) else f"vfio/{group}"


def group_members(sysfs: Sysfs, group: int) -> list[Bdf]:
    """Return the functions of an IOMMU group."""
    return [Bdf.parse(name) for name in sysfs.listdir(f"{GROUPS}/{group}/devices") if Bdf.looks_like(name)]


def vfio_device(sysfs: Sysfs, function: Bdf) -> str | None:
    """Return the VFIO device name (``vfio3``), or None when no VFIO driver is bound; it is not the group's number."""
    names = sysfs.listdir(f"{function.path}/vfio-dev")
    return names[0] if names else None


def nvme_controller(sysfs: Sysfs, function: Bdf) -> str | None:
    """Return the kernel name (``nvme1``) of the function's controller when the nvme driver drives it."""
    names = sysfs.listdir(f"{function.path}/nvme")
    return names[0] if names else None
