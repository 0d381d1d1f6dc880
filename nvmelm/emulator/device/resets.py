"""Resets, and what each of them undoes.

==============================  ===============================================================================
reset                           effect
==============================  ===============================================================================
a secondary's own (FLR, CC.EN)  queues and registers gone, suspension and unfinished transfer ended; stays Online
                                with its resources
Secondary Offline               the same, and the resources are given back
any reset of the primary        every secondary Offline, Controller Data Queues deleted, tracking stopped
all of those but CC.EN          the primary's own flexible resources change to what was last asked for
==============================  ===============================================================================

Source: NVM Express Base Specification 2.1, Controller Level Reset; Virtualization Enhancements, Secondary Controllers;
Migration Send, Suspend.
"""

from __future__ import annotations

from typing import Literal

from nvmelm.emulator.machine import uevents
from nvmelm.emulator.machine.machine import Machine
from nvmelm.emulator.machine.state import EmulatedController, EmulatedFunction, EmulatedPrimary, new_io

CSTS_FATAL = 0x2  # CSTS.CFS


def reset_controller(machine: Machine, primary: EmulatedPrimary, controller: EmulatedController) -> None:
    """Reset a secondary at controller level; its resources, its state (Online) and its persistent state stay."""
    function = machine.function_of(primary, controller)
    holder = machine.holder(function["bdf"]) if function else None
    controller["suspended"] = controller["notified"] = False
    discard_transfer(machine, controller)
    io = controller["io"] = None if holder is None else new_io()
    if io is not None and holder is not None:
        io["memory"] = holder["memory"]


def offline(machine: Machine, primary: EmulatedPrimary, controller: EmulatedController) -> None:
    """Take a secondary Offline: resources given back, controller dead until it is Online again."""
    was_online = controller["online"]
    controller["online"] = False
    controller["nvq"] = controller["nvi"] = 0
    reset_controller(machine, primary, controller)
    discard_vendor_state(machine, controller)
    if controller["io"] is not None and was_online:
        controller["io"]["csts"] = CSTS_FATAL
    function = machine.function_of(primary, controller)
    if function is not None and function["driver"] == "nvme":
        # The driver finds CSTS.CFS set, fails to reset the controller and lets go of it.
        uevents.released(machine, function, function["driver"], function["nvme"], -1)
        function["driver"], function["nvme"] = "", -1


def reset_primary(machine: Machine, primary: EmulatedPrimary, kind: Literal["controller", "function"]) -> None:
    """Reset the primary: by clearing CC.EN (``controller``, what the driver does) or a function level reset."""
    primary["resets"] += 1
    for controller in list(primary["secondaries"].values()):
        offline(machine, primary, controller)
        controller["tracking"] = None
        controller["udmq"] = 0
    primary["queues"].clear()
    primary["own"]["io"] = None
    own = machine.state["functions"].get(primary["bdf"])
    if own is not None and own["nvme"] >= 0:
        uevents.nvme(machine, own, "change", own["nvme"], NVME_EVENT="connected")
    if kind == "function":
        primary["vq_primary"], primary["vi_primary"] = primary["vq_pending"], primary["vi_pending"]


def reset_function(machine: Machine, function: EmulatedFunction) -> None:
    """Reset one PCI function (FLR)."""
    primary = machine.primary_of(function)
    if function["index"] < 0:
        reset_primary(machine, primary, "function")
        return
    reset_controller(machine, primary, machine.controller_of(function))


def discard_transfer(machine: Machine, controller: EmulatedController) -> None:
    """Drop a state that has not arrived whole."""
    transfer, controller["transfer"] = controller["transfer"], None
    if transfer is not None:
        machine.doom(transfer["file"])
        machine.doom(f"{transfer['file']}.parts")


def discard_vendor_state(machine: Machine, controller: EmulatedController) -> None:
    """Drop vendor specific state that was set, so that the controller has its own again."""
    machine.doom(controller["vendor"])
    controller["vendor"], controller["vendor_at"] = "", 0
