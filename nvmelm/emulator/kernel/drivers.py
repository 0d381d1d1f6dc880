"""PCI drivers as sysfs lets a manager handle them: match, probe, bind, unbind, with the kernel's errnos.

Errors are ``OSError``; :class:`Blocks` says that the kernel would wait here.

Sources: Linux drivers/pci/pci-driver.c (pci_match_device, pci_device_can_probe), drivers/base/bus.c (bind_store,
unbind_store, drivers_probe_store), drivers/vfio/pci/vfio_pci_core.c; errnos measured on 6.1, 7.2 and 7.3.
"""

from __future__ import annotations

import errno
import os
import re

from nvmelm.emulator.device.resets import reset_controller, reset_primary
from nvmelm.emulator.machine import uevents
from nvmelm.emulator.machine.machine import Machine
from nvmelm.emulator.machine.state import EmulatedFunction, new_io

NVME = "nvme"
VFIO = "vfio-pci"

#: Modules the kernel brings along with the one that was asked for.
_DEPENDENCIES = {"vfio_pci": ("vfio", "vfio_iommu_type1", "vfio_pci_core", "vfio_pci"), "vfio_iommu_type1": ("vfio",)}
_NEW_ID = re.compile(r"([0-9a-fA-F]{1,8}) ([0-9a-fA-F]{1,8})( [0-9a-fA-F]{1,8}){0,4}\n?")

_CC_ENABLED = 0x00460001  # CC.EN, IOSQES 6, IOCQES 4
_CSTS_READY = 0x1


class Blocks(Exception):  # noqa: N818 - not an error: the kernel waits
    """The kernel waits until a process lets go of these functions."""

    def __init__(self, held: list[str]) -> None:
        super().__init__(", ".join(held))
        self.held = held


def refuse(number: int) -> OSError:
    """Return the error of a system call."""
    return OSError(number, os.strerror(number))


def drivers(machine: Machine) -> list[str]:
    """Return the PCI drivers that are loaded."""
    modules = machine.state["modules"]
    return [NVME, *([VFIO] if "vfio_pci" in modules else []), "pcieport"]


def load_module(machine: Machine, name: str) -> bool:
    """Load a module; False when the kernel has none of that name."""
    module = name.replace("-", "_")
    available = {"nvme", "nvme_core", "pci_stub", *(_vfio_modules(machine))}
    if module not in available:
        return False
    for needed in (*_DEPENDENCIES.get(module, ()), module):
        if needed not in machine.state["modules"]:
            machine.state["modules"].append(needed)
    return True


def _vfio_modules(machine: Machine) -> tuple[str, ...]:
    if not machine.state["options"]["vfio_module"]:
        return ()
    return ("vfio", "vfio_iommu_type1", "vfio_pci", "vfio_pci_core")


def _matches(machine: Machine, function: EmulatedFunction, driver: str) -> bool:
    if function["override"]:
        return function["override"] == driver
    if driver == NVME:
        return True  # by class 010802h
    return _identity(machine, function) in machine.state["new_ids"].get(driver, [])


def _identity(machine: Machine, function: EmulatedFunction) -> str:
    row = machine.generation(machine.primary_of(function))
    device = row.vf_device_id if function["index"] >= 0 else row.device_id
    return f"{row.vendor_id:04x} {device:04x}"


def _may_probe(machine: Machine, function: EmulatedFunction) -> bool:
    """Return what pci_device_can_probe does: autoprobe off refuses VFs without a driver_override."""
    return function["index"] < 0 or machine.primary_of(function)["autoprobe"] or bool(function["override"])


def _lowest_free(taken: list[int], first: int) -> int:
    number = first
    while number in taken:
        number += 1
    return number


def _probe(machine: Machine, function: EmulatedFunction, driver: str) -> None:
    if driver == VFIO:
        if function["group"] < 0 and not machine.state["options"]["noiommu"]:
            raise refuse(errno.EINVAL)
        if function["index"] < 0 and machine.primary_of(function)["numvfs"]:
            raise refuse(errno.EBUSY)
        if function["group"] < 0:  # vfio_noiommu_group_alloc
            function["group"], function["noiommu"] = machine.free_group(), True
        function["vfio"] = _lowest_free([other["vfio"] for other in machine.state["functions"].values()], 0)
    else:
        number = _lowest_free([other["nvme"] for other in machine.state["functions"].values()], 0)
        uevents.nvme(machine, function, "add", number)
        try:
            _probe_nvme(machine, function)
        except OSError:
            uevents.nvme(machine, function, "remove", number)
            raise
        uevents.nvme(machine, function, "change", number, NVME_EVENT="connected")
        function["nvme"] = number
    function["driver"] = driver
    uevents.bound(machine, function)


def _probe_nvme(machine: Machine, function: EmulatedFunction) -> None:
    """Let the kernel's nvme driver start the controller; an Offline one never becomes ready."""
    primary, controller = machine.primary_of(function), machine.controller_of(function)
    if primary["gone"] or not controller["online"]:
        raise refuse(errno.ENODEV)
    io = controller["io"] = new_io()
    io["cc"], io["csts"] = _CC_ENABLED, _CSTS_READY
    for qid in range(1, max(controller["nvq"], 2) if function["index"] >= 0 else 2):
        io["cqs"][str(qid)] = {"prp1": 0, "size": 1023, "attributes": 3, "head": 0, "tail": 0, "phase": 1}
        io["sqs"][str(qid)] = {"prp1": 0, "size": 1023, "cqid": qid, "attributes": 1, "head": 0, "tail": 0}


def attach(machine: Machine, function: EmulatedFunction) -> None:
    """Look for a driver as the kernel does for a new device; a failed probe is only logged."""
    if function["driver"] or not _may_probe(machine, function):
        return
    for driver in drivers(machine):
        if driver in (NVME, VFIO) and _matches(machine, function, driver):
            try:
                _probe(machine, function, driver)
            except OSError:
                continue
            return


def drivers_probe(machine: Machine, text: str) -> None:
    """Write to ``bus/pci/drivers_probe``: success says nothing but that the device exists."""
    attach(machine, machine.function(text.strip()))


def bind(machine: Machine, driver: str, text: str) -> None:
    """Write to ``drivers/<driver>/bind``."""
    function = machine.function(text.strip())
    if driver not in (NVME, VFIO) or not _matches(machine, function, driver):
        raise refuse(errno.ENODEV)
    if function["driver"]:
        raise refuse(errno.EBUSY)
    if not _may_probe(machine, function):
        raise refuse(errno.ENODEV)
    _probe(machine, function, driver)


def unbind(machine: Machine, driver: str, text: str) -> None:
    """Write to ``drivers/<driver>/unbind``; waits while a process has the function open."""
    function = machine.function(text.strip())
    if function["driver"] != driver:
        raise refuse(errno.ENODEV)
    if driver == VFIO and machine.holder(function["bdf"]):
        raise Blocks([function["bdf"]])
    release(machine, function)


def release(machine: Machine, function: EmulatedFunction) -> None:
    """Take the driver away from a function."""
    primary = machine.primary_of(function)
    uevents.released(machine, function, function["driver"], function["nvme"], function["vfio"])
    function["driver"], function["nvme"], function["vfio"] = "", -1, -1
    if function.pop("noiommu", False):
        function["group"] = -1
    if function["index"] < 0:
        reset_primary(machine, primary, "controller")
    else:
        reset_controller(machine, primary, machine.controller_of(function))


def new_id(machine: Machine, driver: str, text: str) -> None:
    """Write to ``drivers/<driver>/new_id``: every function of that id, present and future, is now eligible."""
    identifiers = _NEW_ID.fullmatch(text)
    if identifiers is None:
        raise refuse(errno.EINVAL)
    identity = f"{int(identifiers[1], 16):04x} {int(identifiers[2], 16):04x}"
    known = machine.state["new_ids"].setdefault(driver, [])
    if identity in known:
        raise refuse(errno.EEXIST)
    known.append(identity)
    for function in machine.state["functions"].values():
        if not function["driver"] and _identity(machine, function) == identity:
            attach(machine, function)


def remove_id(machine: Machine, driver: str, text: str) -> None:
    """Write to ``drivers/<driver>/remove_id``."""
    identifiers = _NEW_ID.fullmatch(text)
    if identifiers is None:
        raise refuse(errno.EINVAL)
    identity = f"{int(identifiers[1], 16):04x} {int(identifiers[2], 16):04x}"
    known = machine.state["new_ids"].get(driver, [])
    if identity not in known:
        raise refuse(errno.ENODEV)
    known.remove(identity)


def set_override(function: EmulatedFunction, text: str) -> None:
    """Write to ``driver_override``; a newline clears it, the text is not validated."""
    if len(text) >= 4094:
        raise refuse(errno.EINVAL)
    function["override"] = text.partition("\n")[0]
