"""The disks behind a controller that the kernel drives, and what the kernel has built on them.

::

    class/nvme/nvme1/nvme1n1      the controller's own disk
    class/nvme/nvme1/nvme0c1n1    native multipath: a path of controller 1 to the disk nvme0n1 of subsystem 0, which
                                  has its directory below nvme-subsystem and is the one that has a node and users
    block/nvme0n1/nvme0n1p1       a partition
    block/nvme0n1/holders/md0     what has a disk, block/nvme0n1/nvme0n1p1/holders/dm-0 what has a partition

Sources: Linux drivers/nvme/host/multipath.c (nvme_mpath_set_disk_name), Documentation/ABI/testing/sysfs-block; a device
that stands on another one is in its ``holders`` (block/holder.c: device mapper, md, bcache).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from nvmelm.host import Sysfs

_DISK = re.compile(r"nvme[0-9]+n[0-9]+")
_PATH = re.compile(r"(nvme[0-9]+)c[0-9]+(n[0-9]+)")


def of_controller(sysfs: Sysfs, controller: str) -> list[str]:
    """Return the disks that a controller (``nvme1``) leads to, whoever else leads to them."""
    return sorted({disk for name in sysfs.listdir(f"class/nvme/{controller}") if (disk := _disk(name))})


def _disk(name: str) -> str:
    path = _PATH.fullmatch(name)
    if path is not None:
        return path[1] + path[2]
    return name if _DISK.fullmatch(name) else ""


def generic_node(disk: str) -> str:
    """Return the character device of a namespace, ``ng0n1``: commands go through it past the block layer."""
    return f"ng{disk.removeprefix('nvme')}"


def other_controllers(sysfs: Sysfs, controller: str, disk: str) -> list[str]:
    """Return the controllers that lead to a disk besides this one; with a path left a disk does not go away."""
    return [other for other in sysfs.devices("nvme") if other != controller and disk in of_controller(sysfs, other)]


def standing_on(sysfs: Sysfs, disk: str) -> dict[str, str]:
    """Return every block device that stands on a disk, at any depth, with the one it stands on directly."""
    holders: dict[str, str] = {}
    waiting = [(disk, f"block/{disk}")]
    while waiting:
        below, path = waiting.pop(0)
        for name, where in _directly(sysfs, below, path):
            if name not in holders and name != disk:
                holders[name] = below
                waiting.append((name, where))
    return holders


def is_partition(name: str, device: str) -> bool:
    """Return whether a name is that of a partition of a device: ``nvme0n1p2``, ``sda2``."""
    number = r"p[0-9]+" if re.search(r"[0-9]$", device) else r"[0-9]+"
    return re.fullmatch(re.escape(device) + number, name) is not None


def _directly(sysfs: Sysfs, device: str, path: str) -> Iterator[tuple[str, str]]:
    """Yield the partitions and holders of a block device, each with the path of its own directory."""
    yield from ((name, f"{path}/{name}") for name in sysfs.listdir(path) if is_partition(name, device))
    yield from ((name, f"block/{name}") for name in sysfs.listdir(f"{path}/holders"))
