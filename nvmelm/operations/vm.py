"""Step 5 of both sequences: hand a VF to a virtual machine, and take it back.

Handing over is one QMP command, so it needs no journal: the VM has the VF or it has not, the host shows which
(``secondary list`` names who holds it), a second run changes nothing, and the inverse is ``vm detach``. What can be
wrong is looked for before that command is sent; when contact is lost after it, the outcome is called uncertain.

Opening a VF through VFIO resets it. So a destination's VM takes the VF before the state is restored, and a source's
VM keeps it until the state was read.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from nvmelm.discovery import resolve
from nvmelm.errors import BusyError, NotSupportedError, NvmelmError, TimedOutError, UncertainError, UsageError
from nvmelm.model import Role, Secondary
from nvmelm.operations.apply import Confirm
from nvmelm.operations.handover import (
    device_name,
    libvirt_xml,
    qemu_arguments,
    require_name,
    require_ready,
    require_unused,
)
from nvmelm.operations.session import Session
from nvmelm.operations.vm_report import VmArguments, Vmm, VmReport
from nvmelm.pci import Bdf
from nvmelm.waiting import wait_until

if TYPE_CHECKING:
    from nvmelm.operations.qmp import Event, Events, Monitor
    from nvmelm.operations.vm_view import Device

__all__ = ["arguments", "attach", "detach", "libvirt_xml", "qemu_arguments"]

#: device_add locks all of the guest's memory for DMA; for hundreds of gigabytes that takes minutes.
_ADD_DEADLINE_S = 300.0
#: After the VMM has removed a device, the kernel closes the VF; a function reset is part of it.
_CLOSE_DEADLINE_S = 5.0

#: Run states in which no guest has begun to use its devices, or none uses them any more.
_IDLE_STATES = ("prelaunch", "inmigrate", "postmigrate", "preconfig", "shutdown")

_BLOCKED_NOTE = (
    "a VMM refuses to migrate a VM that holds an NVMe VF, because vfio-pci offers no migration for it; "
    "nvmelm moves the controller's state through the PF instead"
)
_LOOK = "nvmelm secondary list PF shows who has the VF; running this verb again changes only what is missing"
_LOST = ("qmp-lost", "qmp-silent", "qmp-garbage")


def attach(
    session: Session,
    which: Bdf | int,
    *,
    qmp: str,
    unmarked: bool = False,
    device_id: str | None = None,
    bus: str | None = None,
    confirm: Confirm,
    dry_run: bool = False,
) -> VmReport:
    """Hand a VF to the VM behind a QMP socket; nothing changes when that VM has it already.

    Args:
        qmp: path of the VM's QMP socket.
        unmarked: hand over a VF that bears no mark, too; it cannot be migrated.
        device_id: the VM's name for the device; ``nvmelm-`` and the address with dashes when None.
        bus: the VM's bus; a free PCI Express port when None.

    Raises:
        UsageError, NotSupportedError: the VF may not be handed over; see :func:`handover.require_ready`.
        BusyError: somebody else has the VF, or the VM has another device of that name or on that bus.
        NotSupportedError: the VM has no free port; the fix says how to start it with one.
        HostError, TimedOutError, MalformedError: the VM cannot be talked to; nothing was changed.
        UncertainError: contact was lost after the VM had been told to take the VF.
    """
    _require_live_host(session)
    picture = session.picture()
    one = resolve(picture, which)
    require_name(device_id, "--id")
    require_name(bus, "--bus")
    address = require_ready(session.host, picture, one, unmarked=unmarked)
    with _conversation(qmp) as (monitor, vmm, known):
        from nvmelm.operations import vm_view

        present = vm_view.find(monitor, known, address)
        if present is not None:
            _require_same_name(present, device_id, address)
            return _report(session, "vm attach", one, vmm, monitor, device=present, dry_run=dry_run)
        require_unused(one)
        name = device_id or device_name(address)
        chosen = _choose_bus(monitor, known, name, bus)
        words = {"driver": "vfio-pci", "host": str(address), "id": name} | ({"bus": chosen} if chosen else {})
        plan = _Plan(name, chosen, "device_add", words)
        if not dry_run:
            if vmm.running and one.mark is not None and one.mark.role is Role.RESUMABLE:
                confirm(_WAITING.format(address=address))
            present = _add(monitor, words, address)
        return _report(session, "vm attach", one, vmm, monitor, device=present, plan=plan, dry_run=dry_run)


def detach(
    session: Session,
    which: Bdf | int,
    *,
    qmp: str,
    device_id: str | None = None,
    timeout_s: float = 30.0,
    confirm: Confirm,
    dry_run: bool = False,
) -> VmReport:
    """Take a VF back from the VM behind a QMP socket; nothing changes when that VM has not got it.

    Args:
        device_id: the VM's name for the device; found by the VF's address when None.
        timeout_s: seconds the guest gets to let go of it.

    Raises:
        UsageError: the VM's device of that name is not this VF.
        BusyError: the guest refused.
        TimedOutError: the guest did not answer; the request stays with the VM.
        HostError, TimedOutError, MalformedError: the VM cannot be talked to; nothing was changed.
        UncertainError: contact was lost after the VM had been told to give the VF back.
    """
    _require_live_host(session)
    one = resolve(session.picture(), which)
    require_name(device_id, "--id")
    address = None if one.address is None else Bdf.parse(one.address)
    with _conversation(qmp) as (monitor, vmm, known):
        from nvmelm.operations import vm_view

        device = vm_view.find(monitor, known, address) if address is not None and one.present else None
        if device_id is not None and (device is None or device.id != device_id):
            _require_absent(known, device_id, one, device)
        if device is None:
            elsewhere = tuple(f"it is not in this VM; {user}" for user in one.used_by)
            return _report(session, "vm detach", one, vmm, monitor, dry_run=dry_run, notes=elsewhere)
        plan = _Plan(device.id, vm_view.bus_of(monitor, device), "device_del", {"id": device.handle})
        if dry_run:
            return _report(session, "vm detach", one, vmm, monitor, device=device, plan=plan, dry_run=True)
        if vmm.status not in _IDLE_STATES:
            confirm(f"The guest loses the controller {address} and the disks behind it. Go on?")
        _delete(monitor, device, vmm, timeout_s)
        notes = _closed(session, one)
        return _report(session, "vm detach", one, vmm, monitor, plan=plan, notes=notes)


def arguments(
    session: Session,
    which: Bdf | int,
    *,
    unmarked: bool = False,
    device_id: str | None = None,
    bus: str | None = None,
) -> VmArguments:
    """Return what hands a VF to a VM that nvmelm does not talk to; refuses the same VFs as :func:`attach`.

    Raises:
        UsageError, NotSupportedError, BusyError: the VF may not be handed over, or somebody has it.
    """
    picture = session.picture()
    one = resolve(picture, which)
    address = require_ready(session.host, picture, one, unmarked=unmarked)
    require_unused(one)
    return VmArguments(
        primary=session.address,
        cntlid=one.cntlid,
        address=str(address),
        device_id=device_id or device_name(address),
        bus=bus,
        qemu_arguments=qemu_arguments(one, device_id=device_id, bus=bus),
        libvirt_xml=libvirt_xml(one),
        notes=() if one.mark is not None else (_UNMARKED_NOTE,),
    )


_UNMARKED_NOTE = "the VF bears no mark: it can be used, not migrated"
_WAITING = (
    "The VM runs, and its guest would use {address} at once; on a destination the VM should wait "
    "(-S or -incoming) until the state was restored. Attach it all the same?"
)


class _Plan:
    """The one command that changes something, and what the device is called where."""

    def __init__(self, device_id: str | None, bus: str | None, command: str, words: Mapping[str, object]) -> None:
        from nvmelm.operations.qmp import as_sent

        self.device_id, self.bus = device_id, bus
        self.sent = as_sent(command, words)


@contextmanager
def _conversation(path: str) -> Iterator[tuple[Monitor, Vmm, list[Device]]]:
    """Connect, and look at the VM's state and devices."""
    from nvmelm.operations import vm_view  # asyncio comes with it, which --print and every other verb do without
    from nvmelm.operations.qmp import Monitor

    with Monitor(path) as monitor:
        yield monitor, vm_view.status(monitor), vm_view.devices(monitor)


def _require_live_host(session: Session) -> None:
    if session.host.kind == "replay":
        cause = "a recording holds what a host answered, not what a VM did"
        fix = "use --print, or --host emulated:DIR"
        raise NotSupportedError("a replayed host has no VMs", cause=cause, fix=fix, reason="replay-has-no-vm")


def _require_same_name(present: Device, device_id: str | None, address: Bdf) -> None:
    if device_id is not None and present.id != device_id:
        name = present.id or "a device without a name"
        fix = "leave --id out, or nvmelm vm detach it first"
        raise BusyError(f"the VM has {address} already", cause=f"as {name}", fix=fix, reason="other-device-id")


def _require_absent(known: list[Device], device_id: str, one: Secondary, device: Device | None) -> None:
    """Refuse a name that is another device's, or that is not this VF's."""
    if device is not None:
        message, cause = f"the VM knows {one.address} by another name", f"as {device.id or device.path}"
    elif any(other.id == device_id for other in known):
        message, cause = f"the VM's device {device_id} is not {one.address}", "it is another device"
    else:
        return
    fix = "leave --id out: nvmelm finds the device by its address"
    raise UsageError(message, cause=cause, fix=fix, reason="other-device-id")


def _choose_bus(monitor: Monitor, known: list[Device], name: str, bus: str | None) -> str | None:
    """Return the bus to name in ``device_add``; None leaves it to the VMM, which knows machines without ports.

    Raises:
        BusyError: the name or the bus is taken.
    """
    from nvmelm.operations import vm_view

    if any(one.id == name for one in known):
        fix = "choose another name with --id"
        raise BusyError(f"the VM has another device called {name}", cause="", fix=fix, reason="id-taken")
    if bus is None:
        return vm_view.free_port(monitor, known)
    if vm_view.taken(monitor, known, bus):
        cause = "a PCI Express port has room for one device; a second one would never be seen by the guest"
        fix = "leave --bus out: nvmelm finds a free port"
        raise BusyError(f"the VM's port {bus} is taken", cause=cause, fix=fix, reason="bus-taken")
    return bus


def _add(monitor: Monitor, words: Mapping[str, object], address: Bdf) -> Device:
    """Tell the VM to take the VF, and return it as the VM then shows it."""
    from nvmelm.operations import vm_view

    with _uncertain_when_lost(f"the VM was told to take {address}"):
        monitor.execute("device_add", words, deadline_s=_ADD_DEADLINE_S)
        present = vm_view.find(monitor, vm_view.devices(monitor), address)
    if present is None:
        cause = "it answered device_add with success"
        raise UncertainError(f"the VM does not show {address}", cause=cause, fix=_LOOK)
    return present


def _delete(monitor: Monitor, device: Device, vmm: Vmm, timeout_s: float) -> None:
    """Ask for the removal and wait for the guest's answer."""

    def about_it(data: Mapping[str, Any]) -> bool:
        return data.get("path") == device.path or (device.id is not None and data.get("device") == device.id)

    end = time.monotonic() + timeout_s
    with (
        _uncertain_when_lost(f"the VM was told to give {device.handle} back"),
        monitor.listening("DEVICE_DELETED", "DEVICE_UNPLUG_GUEST_ERROR", wanted=about_it) as events,
    ):
        if _request(monitor, device, timeout_s):
            _await_removal(device, vmm, timeout_s, events, end)


def _request(monitor: Monitor, device: Device, timeout_s: float) -> bool:
    """Send ``device_del``; return False when the device has gone meanwhile."""
    try:
        monitor.execute("device_del", {"id": device.handle}, deadline_s=max(timeout_s, 1.0))
    except NvmelmError as error:
        if error.reason == "no-such-device":
            return False
        if error.reason != "unplug-pending":  # the guest was asked before: its answer counts all the same
            raise
    return True


def _await_removal(device: Device, vmm: Vmm, timeout_s: float, events: Events, end: float) -> None:
    event: Event | None = events.next(deadline_s=max(0.0, end - time.monotonic()))
    if event is None:
        raise _unanswered(device, vmm, timeout_s)
    if event.name == "DEVICE_UNPLUG_GUEST_ERROR":
        cause = "the guest's operating system says that it cannot do without it: a mounted file system, for instance"
        fix = "unmount what is on it inside the guest, then try again"
        message = f"the guest refused to give {device.handle} back"
        raise BusyError(message, cause=cause, fix=fix, reason="unplug-refused")


def _unanswered(device: Device, vmm: Vmm, timeout_s: float) -> TimedOutError:
    if vmm.running:
        cause = "its operating system has no driver for hot-unplug, has not booted, or is busy"
        fix = "shut the guest down; the VMM finishes the removal at the guest's next reset at the latest"
    else:
        cause = f"the VM is {vmm.status}, and nothing happens until the guest runs or is reset"
        fix = 'let it run (QMP "cont"), or reset it (QMP "system_reset"), then run this again; or end the VM'
    message = (
        f"waited {timeout_s:g} s in vain for the guest to give {device.handle} back; the request stays with the VM"
    )
    return TimedOutError(message, cause=cause, fix=fix, reason="unplug-pending")


@contextmanager
def _uncertain_when_lost(what: str) -> Iterator[None]:
    """Turn the end of contact, Ctrl-C included, into what it is once a change was asked for: an unknown outcome."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise UncertainError(f"interrupted after {what}", cause="its answer is not known", fix=_LOOK) from error
    except NvmelmError as error:
        if error.reason not in _LOST:
            raise
        raise UncertainError(
            f"{error.message}, after {what}", cause=error.cause, fix=_LOOK, reason=error.reason
        ) from error


def _closed(session: Session, one: Secondary) -> tuple[str, ...]:
    """Wait until the kernel has closed the VF; return a note when it has not."""
    node = (one.vfio_node or "").removeprefix("/dev/")
    if not node:
        return ()
    try:
        wait_until(lambda: not session.host.openers([node]), f"{node} to be closed", deadline_s=_CLOSE_DEADLINE_S)
    except TimedOutError:
        users = ", ".join(str(user) for user in session.host.openers([node]))
        return (f"the VM gave {one.address} back, but /dev/{node} is still open in {users}",)
    return ()


def _report(
    session: Session,
    verb: str,
    one: Secondary,
    vmm: Vmm,
    monitor: Monitor,
    *,
    device: Device | None = None,
    plan: _Plan | None = None,
    dry_run: bool = False,
    notes: tuple[str, ...] = (),
) -> VmReport:
    """Say what was done, and what the VM says about migrating itself afterwards.

    Args:
        device: the VF in the VM as it is now, or None when it is not there.
        plan: the change that was made, or would be.
    """
    bus = plan.bus if plan else None
    try:
        reasons, bus = _aside(monitor, device, bus)
    except NvmelmError as error:  # the change is done, and this is an addition to it
        reasons, notes = (), (*notes, f"the VM could not be asked whether it can migrate: {error.message}")
    if verb == "vm attach" and one.mark is None:
        notes = (*notes, _UNMARKED_NOTE)
    return VmReport(
        verb=verb,
        primary=session.address,
        cntlid=one.cntlid,
        address=str(one.address),
        dry_run=dry_run,
        changed=plan is not None and not dry_run,
        attached=device is not None,
        device_id=plan.device_id if plan else (device.id if device else None),
        qom_path=device.path if device else None,
        bus=bus,
        vmm=vmm,
        commands=(plan.sent,) if plan else (),
        migration_blockers=reasons,
        migration_note=_BLOCKED_NOTE if reasons and device is not None else "",
        notes=notes,
    )


def _aside(monitor: Monitor, device: Device | None, bus: str | None) -> tuple[tuple[str, ...], str | None]:
    """Ask why the VM would not migrate, and for the bus a device really is on."""
    from nvmelm.operations import vm_view

    return vm_view.blockers(monitor), (vm_view.bus_of(monitor, device) if device else None) or bus
