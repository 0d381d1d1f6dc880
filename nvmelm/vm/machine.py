"""What step 5 asks of a virtual machine, whoever runs it: QEMU through its monitor, or libvirt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from nvmelm.errors import BusyError, RolledBackError, TimedOutError
from nvmelm.inventory.pci import Bdf
from nvmelm.inventory.picture import Secondary
from nvmelm.vm.report import Vmm


@dataclass(frozen=True, slots=True)
class HeldVf:
    """A VF as a virtual machine has it.

    Attributes:
        id: the machine's name for the device, if it has one.
        handle: what the machine is told to give back: the name, or whatever else it knows the device by.
        path: where QEMU keeps it; None when that is not known.
    """

    id: str | None
    handle: str
    path: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """The one command that changes something, and what the device is called where.

    Attributes:
        sent: the command, for people.
        words: its arguments.
    """

    device_id: str | None
    bus: str | None
    sent: str
    words: Mapping[str, object] = field(default_factory=dict)


#: How long a running guest is watched after it got a device: one that scans its buses just then, as it boots, may power
#: the slot off again, and the VMM deletes the device that it had taken with success.
SETTLES_S = 2.0


class VmMachine(Protocol):
    """A virtual machine, asked and told things one after the other."""

    @property
    def about(self) -> Vmm:
        """Return what it was when the conversation began."""
        ...

    @property
    def idle(self) -> bool:
        """Return whether no guest has begun to use its devices, or none uses them any more."""
        ...

    def find(self, address: Bdf) -> HeldVf | None:
        """Return the device that is a function of this host, or None when the machine does not have it."""
        ...

    def called(self, device_id: str) -> str:
        """Return the name a device gets in the machine that an operator calls so."""
        ...

    def require_absent(self, device_id: str, address: str | None) -> None:
        """Refuse a name that is that of another device than the function at ``address``; UsageError."""
        ...

    def obstacles(self, secondary: Secondary) -> tuple[str, ...]:
        """Return what would keep the machine from being migrated with the function in it.

        Raises:
            NotReadyError: the function is marked, so that it is meant to be migrated, and something is in the way.
        """
        ...

    def plan_add(self, secondary: Secondary, address: Bdf, device_id: str | None, bus: str | None) -> Plan:
        """Choose name and place, and refuse what cannot be; nothing is changed."""
        ...

    def add(self, plan: Plan, address: Bdf) -> HeldVf:
        """Tell the machine to take the function, and return it as it then shows it.

        Raises:
            RolledBackError: the guest gave it back within :data:`SETTLES_S`; the machine does not have it.
        """
        ...

    def plan_remove(self, held: HeldVf, address: Bdf) -> Plan:
        """Return what :meth:`remove` would say."""
        ...

    def remove(self, held: HeldVf, plan: Plan, timeout_s: float) -> None:
        """Ask for the function and wait for the guest's answer."""
        ...

    def blockers(self) -> tuple[str, ...]:
        """Return why the machine would refuse to be migrated, in its words; empty when it would not, or is not asked.

        Raises:
            NvmelmError: it could not be asked.
        """
        ...

    def notes(self, address: Bdf, *, attached: bool) -> tuple[str, ...]:
        """Return what else an operator should know, after the change."""
        ...

    def bus_of(self, held: HeldVf) -> str | None:
        """Return the bus a device is on, or None when the machine does not say."""
        ...


def unanswered(handle: str, vmm: Vmm, timeout_s: float) -> TimedOutError:
    """Return the error of a guest that does not say whether it gives a device back."""
    if vmm.running:
        cause = "its operating system has no driver for hot-unplug, has not booted, or is busy"
        fix = "shut the guest down; the VMM finishes the removal at the guest's next reset at the latest"
    else:
        cause = f"the VM is {vmm.status}, and nothing happens until the guest runs or is reset"
        fix = 'let it run (QMP "cont"), or reset it (QMP "system_reset"), then run this again; or end the VM'
    message = f"waited {timeout_s:g} s in vain for the guest to give {handle} back; the request stays with the VM"
    return TimedOutError(message, cause=cause, fix=fix, reason="unplug-pending")


def handed_back(address: Bdf) -> RolledBackError:
    """Return the error of a guest that powers the slot of a new device off."""
    return RolledBackError(
        f"the guest gave {address} back as soon as it had got it",
        cause="it was scanning its buses just then, as it does while it boots, or it has no driver for hot-plug",
        fix="wait until the guest is up, then nvmelm vm attach again",
        reason="handed-back",
    )


def refused(handle: str) -> BusyError:
    """Return the error of a guest that keeps a device."""
    cause = "the guest's operating system says that it cannot do without it: a mounted file system, for instance"
    fix = "unmount what is on it inside the guest, then try again"
    message = f"the guest refused to give {handle} back"
    return BusyError(message, cause=cause, fix=fix, reason="unplug-refused")
