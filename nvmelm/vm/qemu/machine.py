"""A virtual machine behind QEMU's own monitor, as step 5 talks to it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from nvmelm.errors import BusyError, NotReadyError, NvmelmError, UncertainError, UsageError
from nvmelm.inventory.pci import Bdf
from nvmelm.inventory.picture import Secondary
from nvmelm.vm.handover import device_name
from nvmelm.vm.machine import SETTLES_S, HeldVf, Plan, handed_back, refused, unanswered
from nvmelm.vm.qemu import view
from nvmelm.vm.qemu.monitor import Events, Monitor, QmpEvent, as_sent
from nvmelm.vm.qemu.view import QomDevice
from nvmelm.vm.report import Vmm
from nvmelm.vm.uncertain import LOOK, uncertain_when_lost

#: device_add locks all of the guest's memory for DMA, page after page: minutes for hundreds of gigabytes, and nothing
#: for most. The PF is locked meanwhile, so a VMM that says nothing is not given more than its memory can take.
_ADD_S, _ADD_S_PER_GIB, _ADD_DEADLINE_S = 20.0, 0.5, 300.0

#: Run states in which no guest has begun to use its devices, or none uses them any more.
_IDLE_STATES = ("prelaunch", "inmigrate", "postmigrate", "preconfig", "shutdown")


@contextmanager
def conversation(path: str) -> Iterator[QmpMachine]:
    """Connect, and look at the VM's state and devices."""
    with Monitor(path) as monitor:
        yield QmpMachine(monitor)


class QmpMachine:
    """The machine behind an open monitor; see :class:`nvmelm.vm.machine.VmMachine`."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._about = view.status(monitor)
        self._known = view.devices(monitor)

    @property
    def about(self) -> Vmm:
        return self._about

    @property
    def idle(self) -> bool:
        return self._about.status in _IDLE_STATES

    def find(self, address: Bdf) -> HeldVf | None:
        device = view.find(self._monitor, self._known, address)
        return None if device is None else _held(device)

    def called(self, device_id: str) -> str:
        return device_id

    def require_absent(self, device_id: str, address: str | None) -> None:
        if any(other.id == device_id for other in self._known):
            fix = "leave --id out: nvmelm finds the device by its address"
            message = f"the VM's device {device_id} is not {address}"
            raise UsageError(message, cause="it is another device", fix=fix, reason="other-device-id")

    def obstacles(self, secondary: Secondary) -> tuple[str, ...]:
        names = view.blocking_capabilities(self._monitor)
        if not names:
            return ()
        words = " and ".join(names)
        if secondary.mark is None:
            return (f"the VM's capability {words} is on: a VM with it cannot be migrated with a VF in it",)
        off = [{"capability": name, "state": False} for name in names]
        command = {"execute": "migrate-set-capabilities", "arguments": {"capabilities": off}}
        raise NotReadyError(
            f"the VM's migration capability {words} is on",
            cause="a VM with it is refused its migration as long as it has a VF",
            fix=f"switch it off through its monitor: {json.dumps(command)}",
            reason="vm-capability",
        )

    def plan_add(self, secondary: Secondary, address: Bdf, device_id: str | None, bus: str | None) -> Plan:
        name = device_id or device_name(address)
        chosen = self._choose_bus(name, bus)
        words = {"driver": "vfio-pci", "host": str(address), "id": name} | ({"bus": chosen} if chosen else {})
        return Plan(name, chosen, as_sent("device_add", words), words)

    def add(self, plan: Plan, address: Bdf) -> HeldVf:
        deadline_s = self._add_deadline_s()

        def about_it(data: Mapping[str, Any]) -> bool:
            return data.get("device") == plan.device_id

        with (
            uncertain_when_lost(f"the VM was told to take {address}"),
            self._monitor.listening("DEVICE_DELETED", wanted=about_it) as events,
        ):
            self._monitor.execute("device_add", plan.words, deadline_s=deadline_s)
            deleted = self._about.running and events.next(deadline_s=SETTLES_S) is not None
            self._known = view.devices(self._monitor)
            present = self.find(address)
        if present is None and deleted:
            raise handed_back(address)
        if present is None:
            cause = "it answered device_add with success"
            raise UncertainError(f"the VM does not show {address}", cause=cause, fix=LOOK)
        return present

    def _add_deadline_s(self) -> float:
        """Return how long device_add may take; a guest has no more memory to lock than this host has."""
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        locked = min(view.memory_bytes(self._monitor) or memory, memory)
        return min(_ADD_S + _ADD_S_PER_GIB * locked / (1 << 30), _ADD_DEADLINE_S)

    def plan_remove(self, held: HeldVf, address: Bdf) -> Plan:
        words = {"id": held.handle}
        return Plan(held.id, self.bus_of(held), as_sent("device_del", words), words)

    def remove(self, held: HeldVf, plan: Plan, timeout_s: float) -> None:
        def about_it(data: Mapping[str, Any]) -> bool:
            return data.get("path") == held.path or (held.id is not None and data.get("device") == held.id)

        end = time.monotonic() + timeout_s
        with (
            uncertain_when_lost(f"the VM was told to give {held.handle} back"),
            self._monitor.listening("DEVICE_DELETED", "DEVICE_UNPLUG_GUEST_ERROR", wanted=about_it) as events,
        ):
            if self._request(plan, timeout_s):
                _await_removal(held, self._about, timeout_s, events, end)

    def blockers(self) -> tuple[str, ...]:
        return view.blockers(self._monitor)

    def notes(self, address: Bdf, *, attached: bool) -> tuple[str, ...]:
        return ()

    def bus_of(self, held: HeldVf) -> str | None:
        return view.bus_of(self._monitor, held.path) if held.path else None

    def _choose_bus(self, name: str, bus: str | None) -> str | None:
        """Return the bus to name in ``device_add``; None leaves it to the VMM, which knows machines without ports.

        Raises:
            BusyError: the name or the bus is taken.
        """
        if any(device.id == name for device in self._known):
            fix = "choose another name with --id"
            raise BusyError(f"the VM has another device called {name}", cause="", fix=fix, reason="id-taken")
        if bus is None:
            return view.free_port(self._monitor, self._known)
        if view.taken(self._monitor, self._known, bus):
            cause = "a PCI Express port has room for one device; a second one would never be seen by the guest"
            fix = "leave --bus out: nvmelm finds a free port"
            raise BusyError(f"the VM's port {bus} is taken", cause=cause, fix=fix, reason="bus-taken")
        return bus

    def _request(self, plan: Plan, timeout_s: float) -> bool:
        """Send ``device_del``; return False when the device has gone meanwhile."""
        try:
            self._monitor.execute("device_del", plan.words, deadline_s=max(timeout_s, 1.0))
        except NvmelmError as error:
            if error.reason == "no-such-device":
                return False
            if error.reason != "unplug-pending":  # the guest was asked before: its answer counts all the same
                raise
        return True


def _held(device: QomDevice) -> HeldVf:
    return HeldVf(device.id, device.handle, device.path)


def _await_removal(held: HeldVf, vmm: Vmm, timeout_s: float, events: Events, end: float) -> None:
    event: QmpEvent | None = events.next(deadline_s=max(0.0, end - time.monotonic()))
    if event is None:
        raise unanswered(held.handle, vmm, timeout_s)
    if event.name == "DEVICE_UNPLUG_GUEST_ERROR":
        raise refused(held.handle)
