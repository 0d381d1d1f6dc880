"""Whether a VF may be handed to a VM, and the arguments that do it: for QEMU's command line and for libvirt.

The checks are those a VMM would fail on later with less to say, and nvmelm's own gate, the mark.
"""

from __future__ import annotations

import re

from nvmelm.errors import BusyError, NotReadyError, NotSupportedError, UsageError
from nvmelm.host import Host, Sysfs
from nvmelm.inventory import groups, marks, pci
from nvmelm.inventory.drivers import require_no_other_manager
from nvmelm.inventory.pci import VFIO_DRIVER, Bdf
from nvmelm.inventory.picture import Picture, Role, Secondary
from nvmelm.inventory.read import no_vf

#: QEMU, docs/system/qapi: an id begins with a letter; a comma would end the argument it stands in.
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,127}")


def require_ready(host: Host, picture: Picture, secondary: Secondary, *, unmarked: bool) -> Bdf:
    """Refuse a controlled function that cannot be handed to a VM; return its address otherwise.

    Args:
        unmarked: hand it over although it bears no mark; it cannot be migrated.

    Raises:
        NotReadyError: it has no VF, is offline, has no driver, or bears no mark that holds.
        BusyError: the kernel's NVMe driver owns it, or another function of its IOMMU group is driven by the host.
        NotSupportedError: it has a VFIO driver of its own, or no IOMMU protects the host from it.
    """
    name, node = f"controller {secondary.cntlid:#06x}", picture.primary.node
    if not secondary.present or secondary.address is None:
        raise no_vf(picture, secondary)
    if not secondary.online:
        fix = f"nvmelm secondary online {node} {secondary.cntlid:#06x}"
        cause = "a guest's driver would wait for an offline controller in vain"
        raise NotReadyError(f"{name} is {secondary.state}", cause=cause, fix=fix, reason="offline")
    _require_driver(secondary, name)
    if not unmarked:
        marks.require(picture, secondary, Role.MIGRATABLE, Role.RESUMABLE)
    _require_group(host.sysfs, Bdf.parse(picture.primary.address), secondary)
    return Bdf.parse(secondary.address)


def _require_driver(secondary: Secondary, name: str) -> None:
    fix = f"nvmelm vfio bind {secondary.address}"
    if secondary.driver is None:
        raise NotReadyError(
            f"{name} is not bound to {VFIO_DRIVER}", cause="step 4 was not done", fix=fix, reason="not-bound"
        )
    if secondary.driver == pci.NVME_DRIVER:
        cause = f"the kernel drives it as {secondary.controller_node or 'a controller'}"
        raise BusyError(f"{name} is owned by the nvme driver", cause=cause, fix=fix, reason="not-bound")
    require_no_other_manager(secondary, f"{name} is bound to {secondary.driver}", reason="not-bound")


def _require_group(sysfs: Sysfs, pf: Bdf, secondary: Secondary) -> None:
    group = secondary.iommu_group
    if group is None or secondary.vfio_node is None:
        cause = "it is in no IOMMU group: its DMA could reach all of the host's memory"
        fix = "switch the IOMMU on; nvmelm host check tells how"
        raise NotSupportedError(f"{secondary.address} cannot be given to a VM", cause=cause, fix=fix, reason="no-iommu")
    problem = groups.obstacle(sysfs, pf, group)
    if problem is None:
        return
    message, cause = f"{secondary.address} cannot be given to a VM", problem.cause
    if pci.without_iommu(sysfs, group):
        raise NotSupportedError(message, cause=cause, fix=problem.fix, reason="no-iommu")
    raise BusyError(message, cause=cause, fix=problem.fix, reason="group-not-viable")


def require_unused(secondary: Secondary) -> None:
    """Refuse a function somebody has open.

    Raises:
        BusyError: it names who.
    """
    if secondary.used_by:
        fix = "stop that, or nvmelm vm detach it there"
        raise BusyError(f"{secondary.address} is in use", cause="; ".join(secondary.used_by), fix=fix, reason="in-use")


def device_name(address: Bdf) -> str:
    """Return the name nvmelm gives a VF in a VM: ``nvmelm-0000-01-00-1``."""
    return "nvmelm-" + re.sub(r"[:.]", "-", str(address))


def require_name(text: str | None, option: str) -> None:
    """Refuse a name that could mean something else to a VMM; UsageError."""
    if text is not None and not _NAME.fullmatch(text):
        cause = "a name begins with a letter and holds letters, digits, '-', '.' and '_', 128 at most"
        raise UsageError(
            f"{option} {text[:60]!r} is no name of a device or bus", cause=cause, fix="choose another name"
        )


def qemu_arguments(secondary: Secondary, *, device_id: str | None = None, bus: str | None = None) -> tuple[str, ...]:
    """Return the words that put a VF into a VM started by hand: ``-device``, ``vfio-pci,host=…,id=…,bus=…``.

    Raises:
        NotReadyError: the function has no VF; UsageError: a name is none.
    """
    require_name(device_id, "--id")
    require_name(bus, "--bus")
    address = _address(secondary)
    pairs = {"host": str(address), "id": device_id or device_name(address)} | ({"bus": bus} if bus else {})
    return ("-device", ",".join(["vfio-pci", *(f"{key}={value}" for key, value in pairs.items())]))


def libvirt_xml(secondary: Secondary) -> str:
    """Return the ``hostdev`` element that puts a VF into a libvirt domain."""
    return hostdev_xml(_address(secondary))


def hostdev_xml(address: Bdf, *, alias: str | None = None) -> str:
    """Return the ``hostdev`` element of a function of this host.

    ``managed='no'``: nvmelm bound the VF, and libvirt is to leave it bound when the domain ends.

    Args:
        alias: the device's name in the domain; libvirt makes one when None.

    Source: libvirt, Domain XML format, Host device assignment.
    """
    from xml.etree import ElementTree as ET  # only libvirt and printing need it

    hostdev = ET.Element("hostdev", mode="subsystem", type="pci", managed="no")
    ET.SubElement(hostdev, "driver", name="vfio")
    place = {
        "domain": f"{address.domain:#06x}",
        "bus": f"{address.bus:#04x}",
        "slot": f"{address.device:#04x}",
        "function": f"{address.function:#x}",
    }
    ET.SubElement(ET.SubElement(hostdev, "source"), "address", place)
    if alias is not None:
        ET.SubElement(hostdev, "alias", name=alias)
    ET.indent(hostdev)
    return ET.tostring(hostdev, encoding="unicode")


def nova_device_spec(sysfs: Sysfs, address: Bdf) -> str:
    """Return the line that lets OpenStack's Nova give a VF to instances, for the section ``[pci]`` of its nova.conf.

    ``managed`` is *no* because nvmelm binds the VF, and ``live_migratable`` is *no* because it says whether a VMM can
    migrate the device by itself, which takes a VFIO driver that offers migration.

    Source: OpenStack Nova, option ``[pci] device_spec``; its specification "Enable VFIO devices with kernel variant
    drivers" and "Live migrate VFIO devices using kernel variant drivers" (2025.1).
    """
    import json

    vendor, product = (sysfs.read(f"{address.path}/{name}").removeprefix("0x") for name in ("vendor", "device"))
    spec = {"vendor_id": vendor, "product_id": product, "address": str(address)}
    return f"device_spec = {json.dumps(spec | {'managed': 'no', 'live_migratable': 'no'})}"


def _address(secondary: Secondary) -> Bdf:
    if secondary.address is None:
        cause, fix = "SR-IOV has not enabled it", "nvmelm sriov enable PF --vfs N"
        raise NotReadyError(f"controller {secondary.cntlid:#06x} has no VF", cause=cause, fix=fix, reason="no-vf")
    return Bdf.parse(secondary.address)
