"""Uevents of the emulated kernel: what it says when devices come, go and change, in the kernel's order.

=====================  ========================================================================================
what happens           what is said
=====================  ========================================================================================
a function appears     pci add; of a VF, pci change once its links are there
VFs are enabled        after all of them, pci change of the PF; nothing of it when they are disabled
vfio-pci binds         vfio add, vfio-dev add, pci bind
nvme binds             nvme add, nvme change with NVME_EVENT=connected, pci bind; of a failed probe, add and remove
a driver lets go       vfio-dev remove, vfio remove, or nvme remove; then pci unbind
the PF is reset        nvme change with NVME_EVENT=connected
=====================  ========================================================================================

They are said once the change they tell of is kept, and in the order of the changes, whatever process made them. Keys
that stand for devices numbers (MAJOR, MINOR) and for modules (MODALIAS) are left out.

Sources: Linux drivers/nvme/host/core.c, drivers/base/core.c, drivers/pci/pci-sysfs.c; order measured on 6.1.
"""

from __future__ import annotations

from nvmelm.emulator.machine.machine import Machine
from nvmelm.emulator.machine.nodes import device_path
from nvmelm.emulator.machine.state import EmulatedFunction

_FIRST_SEQNUM = 1000
_CLASS_NVME = "10802"


def appeared(machine: Machine, function: EmulatedFunction) -> None:
    """Say that a PCI function is there."""
    _say(machine, function, "add")
    if function["index"] >= 0:
        _say(machine, function, "change")


def changed(machine: Machine, function: EmulatedFunction) -> None:
    """Say that something about a PCI function is another."""
    _say(machine, function, "change")


def vanished(machine: Machine, function: EmulatedFunction) -> None:
    """Say that a PCI function went, its driver before it."""
    released(machine, function, function["driver"], function["nvme"], function["vfio"])
    _say(machine, function, "remove", DRIVER="")


def nvme(machine: Machine, function: EmulatedFunction, action: str, number: int, **more: str) -> None:
    """Say something of the nvme controller on a function."""
    path = f"{_path(function)}/nvme/nvme{number}"
    _append(machine, action, "nvme", path, {"DEVNAME": f"nvme{number}", "NVME_TRTYPE": "pcie", **more})


def bound(machine: Machine, function: EmulatedFunction) -> None:
    """Say that a driver took a function; of nvme it was said before that its controller is there."""
    if function["vfio"] >= 0:
        _vfio(machine, function, "add", function["vfio"])
    _say(machine, function, "bind")


def released(machine: Machine, function: EmulatedFunction, driver: str, number: int, vfio: int) -> None:
    """Say that a driver let go of a function.

    Args:
        driver: the driver that had it; nothing is said when that is empty.
        number: N of the nvmeN it had, or -1; ``vfio`` likewise.
    """
    if not driver:
        return
    if vfio >= 0:
        _vfio(machine, function, "remove", vfio)
    if number >= 0:
        nvme(machine, function, "remove", number)
    _say(machine, function, "unbind", DRIVER="")


def _vfio(machine: Machine, function: EmulatedFunction, action: str, number: int) -> None:
    name = f"vfio/{'noiommu-' if function.get('noiommu') else ''}{function['group']}"
    pair = [
        ("vfio", f"devices/virtual/{name}", {"DEVNAME": name}),
        ("vfio-dev", f"{_path(function)}/vfio-dev/vfio{number}", {}),
    ]
    for subsystem, path, properties in pair if action == "add" else reversed(pair):
        _append(machine, action, subsystem, path, properties)


def _say(machine: Machine, function: EmulatedFunction, action: str, **more: str) -> None:
    row = machine.generation(machine.primary_of(function))
    device = row.vf_device_id if function["index"] >= 0 else row.device_id
    properties = {
        "DRIVER": function["driver"],
        "PCI_CLASS": _CLASS_NVME,
        "PCI_ID": f"{row.vendor_id:04X}:{device:04X}",
        "PCI_SLOT_NAME": function["bdf"],
        **more,
    }
    known = {name: value for name, value in properties.items() if value}
    _append(machine, action, "pci", _path(function), known)


def _path(function: EmulatedFunction) -> str:
    return device_path(function["bdf"], function["pf"])


def _append(machine: Machine, action: str, subsystem: str, path: str, properties: dict[str, str]) -> None:
    number = machine.state.get("seqnum", _FIRST_SEQNUM) + 1
    machine.state["seqnum"] = number
    machine.said.append(
        {"seqnum": number, "action": action, "subsystem": subsystem, "device": path, "properties": properties}
    )
