"""Functions by the paths the kernel shows them at: in sysfs, and as nodes below ``/dev``.

::

    /sys/bus/pci/devices/0000:01:00.0    the function at that address; also below /sys/devices and in IOMMU groups
    /sys/class/nvme/nvme0, /dev/nvme0    the controller of that name
    /dev/nvme0n1, /dev/ng0n1             a namespace: several controllers may show it, so it names none of them
"""

from __future__ import annotations

import re

from nvmelm.errors import UsageError
from nvmelm.host import Host
from nvmelm.inventory.pci import Bdf

_CLASS = "/sys/class/nvme/"
#: A disk, its partition, a path to it under native multipath, or its character device.
_NAMESPACE = re.compile(r"(?:nvme|ng)[0-9]{1,9}(?:c[0-9]{1,9})?n[0-9]{1,9}(?:p[0-9]{1,9})?")


def named(host: Host, text: str) -> str:
    """Return the address or kernel name that a path means; any other text as it is.

    Raises:
        UsageError: it is a namespace's; the fix names its controller where sysfs tells it.
    """
    name = text.rstrip("/") or text
    last = name.rpartition("/")[2]
    if name.startswith("/sys/"):
        if Bdf.looks_like(last):
            return last
        name = name.removeprefix(_CLASS)
    name = name.removeprefix("/dev/")
    if _NAMESPACE.fullmatch(last) and (last == name or text.startswith("/sys/")):
        raise _of_namespace(host, text, last)
    return name


def _of_namespace(host: Host, text: str, name: str) -> UsageError:
    disk = re.sub(r"p[0-9]+$", "", name.replace("ng", "nvme", 1))
    controllers = [node for node in host.sysfs.devices("nvme") if host.sysfs.exists(f"class/nvme/{node}/{disk}")]
    fix = f"name its controller: {', '.join(controllers)}" if controllers else "nvmelm list shows the controllers"
    return UsageError(
        f"{text} is a namespace, not a function",
        cause="a disk is a namespace, which several controllers may show; what migrates is a controller",
        fix=fix,
        reason="arguments",
    )
