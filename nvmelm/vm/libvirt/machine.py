"""A virtual machine that libvirt runs, as step 5 talks to it.

Devices are plugged into the running domain alone. Its configuration is left as it is: a VF's address says nothing after
the next boot, and what a domain gets at its start is the work of the hook (docs/libvirt.md).
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager

from nvmelm.errors import BusyError, NotSupportedError, NvmelmError, UncertainError, UsageError
from nvmelm.inventory.pci import Bdf
from nvmelm.inventory.picture import Secondary
from nvmelm.vm.handover import device_name, hostdev_xml, require_name
from nvmelm.vm.libvirt.client import Domain, DomainRef
from nvmelm.vm.libvirt.domain_xml import HostFunction
from nvmelm.vm.machine import SETTLES_S, HeldVf, Plan, handed_back, refused, unanswered
from nvmelm.vm.qemu.monitor import printable
from nvmelm.vm.qemu.view import MOST_BLOCKERS
from nvmelm.vm.report import Vmm
from nvmelm.vm.uncertain import LOOK, uncertain_when_lost

#: libvirt, Domain XML format, Devices: an alias that a user gives begins so; QEMU's id is the same.
_USER_ALIAS = "ua-"

_NOT_ASKED = (
    "QEMU was not asked whether it would migrate the domain: libvirt marks a domain tainted for that (--may-taint). "
    "It refuses to, as long as the domain holds an NVMe VF of vfio-pci; nvmelm moves the controller's state through "
    "the PF instead"
)


@contextmanager
def conversation(which: DomainRef, *, emulated: bool = False) -> Iterator[LibvirtMachine]:
    """Connect, and look at the domain.

    Args:
        emulated: the host is an emulated one; only libvirt's own emulation fits to it.
    """
    if emulated and not (which.uri or "").startswith("test:"):
        cause = "libvirt would plug in this machine's own function of that address"
        fix = "nvmelm emulate vmm, and --qmp; or --connect test:///default"
        raise NotSupportedError("an emulated host has no libvirt", cause=cause, fix=fix, reason="emulated-no-libvirt")
    with Domain(which) as domain:
        yield LibvirtMachine(domain)


class LibvirtMachine:
    """A running domain; see :class:`nvmelm.vm.machine.VmMachine`."""

    def __init__(self, domain: Domain) -> None:
        self._domain = domain
        self._about, self._idle = domain.about()

    @property
    def about(self) -> Vmm:
        return self._about

    @property
    def idle(self) -> bool:
        return self._idle

    def find(self, address: Bdf) -> HeldVf | None:
        """Return the device, or None.

        Raises:
            BusyError: libvirt binds the function itself for this domain, now or at its next start.
        """
        for lasting in (False, True):
            function = self._function(address, lasting=lasting)
            if function is not None and (function.managed or function.kind != "hostdev"):
                raise _managed(function, self._name, lasting=lasting)
        now = self._function(address)
        return None if now is None else HeldVf(now.alias, now.alias or str(address))

    def called(self, device_id: str) -> str:
        return device_id if device_id.startswith(_USER_ALIAS) else f"{_USER_ALIAS}{device_id}"

    def require_absent(self, device_id: str, address: str | None) -> None:
        xml = self._domain.xml()
        others = xml.functions if xml is not None else ()
        if any(other.alias in (device_id, self.called(device_id)) for other in others):
            message = f"the domain's device {device_id} is not {address}"
            fix = "leave --id out: nvmelm finds the device by its address"
            raise UsageError(message, cause="it is another device", fix=fix, reason="other-device-id")

    def obstacles(self, secondary: Secondary) -> tuple[str, ...]:
        """Return nothing: libvirt sets QEMU's migration capabilities anew for every migration."""
        return ()

    def plan_add(self, secondary: Secondary, address: Bdf, device_id: str | None, bus: str | None) -> Plan:
        if bus is not None:
            fix = "leave --bus out; an <address> in the domain's configuration chooses one"
            raise UsageError("libvirt chooses the port itself", fix=fix, reason="libvirt-bus")
        alias = self.called(device_id or device_name(address))
        require_name(alias, "--id")
        return self._plan("attach-device", alias, hostdev_xml(address, alias=alias))

    def add(self, plan: Plan, address: Bdf) -> HeldVf:
        with self._domain.listening(), uncertain_when_lost(f"libvirt was told to attach {address}"):
            self._domain.attach(str(plan.words["xml"]))
            end = time.monotonic() + (SETTLES_S if self._about.running else 0.0)
            deleted = self._domain.hear(str(plan.device_id), end) == "removed"
            function = self._function(address)
        if function is None and deleted:
            raise handed_back(address)
        if function is None:
            cause = "libvirt answered the request with success"
            raise UncertainError(f"the domain does not show {address}", cause=cause, fix=LOOK)
        return HeldVf(function.alias, function.alias or str(address))

    def plan_remove(self, held: HeldVf, address: Bdf) -> Plan:
        return self._plan("detach-device", held.id, hostdev_xml(address))

    def remove(self, held: HeldVf, plan: Plan, timeout_s: float) -> None:
        end = time.monotonic() + timeout_s
        with self._domain.listening(), uncertain_when_lost(f"libvirt was told to detach {held.handle}"):
            try:
                self._domain.detach(str(plan.words["xml"]))
            except NvmelmError as error:
                if error.reason == "no-such-device":
                    return
                if error.reason != "unplug-pending":  # the guest was asked before: its answer counts all the same
                    raise
            said = self._domain.hear(held.handle, end)
        if said == "refused":
            raise refused(held.handle)
        if said is None and not self._gone(held):
            raise unanswered(held.handle, self._about, timeout_s)

    def blockers(self) -> tuple[str, ...]:
        if not self._may_ask:
            return ()
        reasons = self._domain.ask_qemu("query-migrate").get("blocked-reasons", [])
        return tuple(dict.fromkeys(map(printable, reasons[:MOST_BLOCKERS]))) if isinstance(reasons, list) else ()

    def notes(self, address: Bdf, *, attached: bool) -> tuple[str, ...]:
        notes = []
        if attached and not self._may_ask:
            notes.append(_NOT_ASKED)
        if not attached and self._function(address, lasting=True) is not None:
            notes.append(f"the configuration of {self._name} names {address}: it gets it again at its next start")
        return tuple(notes)

    def bus_of(self, held: HeldVf) -> str | None:
        return None

    @property
    def _name(self) -> str:
        return self._about.name or "the domain"

    @property
    def _may_ask(self) -> bool:
        return self._domain.which.may_taint or self._domain.tainted_by_monitor()

    def _gone(self, held: HeldVf) -> bool:
        """Return whether the device left without a word: with its domain, or just before somebody listened."""
        try:
            xml = self._domain.xml()
        except NvmelmError as error:
            if error.reason == "no-such-domain":
                return True
            raise
        return xml is None or all(function.alias != held.id for function in xml.functions)

    def _function(self, address: Bdf, *, lasting: bool = False) -> HostFunction | None:
        xml = self._domain.xml(lasting=lasting)
        return None if xml is None else xml.function(address)

    def _plan(self, verb: str, alias: str | None, xml: str) -> Plan:
        connect = ["-c", self._domain.which.uri] if self._domain.which.uri else []
        words = ["virsh", *connect, verb, "--live", self._domain.name, "/dev/stdin"]
        line = " ".join(part.strip() for part in xml.splitlines())
        return Plan(alias, None, f"{shlex.join(words)} <<< {shlex.quote(line)}", {"xml": xml})


def _managed(function: HostFunction, domain: str, *, lasting: bool) -> BusyError:
    where = f"the configuration of {domain} gives it" if lasting else f"{domain} has"
    how = f"as <{function.kind}>" + (" with managed='yes'" if function.managed else "")
    return BusyError(
        f"{where} {function.address} {how}",
        cause="libvirt binds and rebinds such a function itself, and would undo what nvmelm did",
        fix=f"virsh edit {domain}: make it the <hostdev managed='no'> that nvmelm vm attach --print shows",
        reason="libvirt-managed",
    )
