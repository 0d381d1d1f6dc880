"""Step 5 of both sequences: hand a VF to a virtual machine, and take it back.

Handing over is one command, to QEMU's monitor or to libvirt, so it needs no journal: the VM has the VF or it has not,
the host shows which (``secondary list`` names who holds it), a second run changes nothing, and the inverse is
``vm detach``. What can be wrong is looked for before that command is sent; when contact is lost after it, the outcome
is called uncertain.

Opening a VF through VFIO resets it. So a destination's VM takes the VF before the state is restored, and a source's
VM keeps it until the state was read.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from nvmelm.errors import BusyError, NotSupportedError, NvmelmError, TimedOutError, UsageError
from nvmelm.inventory.opened import OpenPrimary
from nvmelm.inventory.pci import Bdf
from nvmelm.inventory.picture import Picture, Role, Secondary
from nvmelm.inventory.read import resolve
from nvmelm.prepare import guards
from nvmelm.prepare.apply import Confirm
from nvmelm.process.waiting import wait_until
from nvmelm.vm.handover import (
    device_name,
    libvirt_xml,
    nova_device_spec,
    qemu_arguments,
    require_name,
    require_ready,
    require_unused,
)
from nvmelm.vm.machine import HeldVf, Plan, VmMachine
from nvmelm.vm.report import VmArguments, VmReport

if TYPE_CHECKING:
    from nvmelm.vm.libvirt.client import DomainRef

__all__ = ["arguments", "attach", "detach", "libvirt_xml", "qemu_arguments"]

#: After the VMM has removed a device, the kernel closes the VF; a function reset is part of it.
_CLOSE_DEADLINE_S = 5.0

_BLOCKED_NOTE = (
    "a VMM refuses to migrate a VM that holds an NVMe VF, because vfio-pci offers no migration for it; "
    "nvmelm moves the controller's state through the PF instead"
)
_UNMARKED_NOTE = "the VF bears no mark: it can be used, not migrated"
_WAITING = (
    "The VM runs, and its guest would use {address} at once; on a destination the VM should wait "
    "(-S or -incoming) until the state was restored. Attach it all the same?"
)


def attach(
    pf: OpenPrimary,
    which: Bdf | int,
    *,
    qmp: str | None = None,
    libvirt: DomainRef | None = None,
    unmarked: bool = False,
    device_id: str | None = None,
    bus: str | None = None,
    confirm: Confirm,
    dry_run: bool = False,
) -> VmReport:
    """Hand a VF to a VM; nothing changes when that VM has it already.

    Args:
        qmp: path of the VM's QMP socket.
        libvirt: or the VM as a domain of libvirt.
        unmarked: hand over a VF that bears no mark, too; it cannot be migrated.
        device_id: the VM's name for the device; ``nvmelm-`` and the address with dashes when None.
        bus: the VM's bus; a free PCI Express port when None.

    Raises:
        NotReadyError, NotSupportedError: the VF may not be handed over; see :func:`handover.require_ready`.
        NotReadyError: the VM is set to what keeps a VM with a VF from being migrated, and the VF is marked for that.
        BusyError: somebody else has the VF, or the VM has another device of that name or on that bus; or a session
            that is not over holds the controller.
        NotSupportedError: the VM has no free port; the fix says how to start it with one.
        HostError, TimedOutError, MalformedError: the VM cannot be talked to; nothing was changed.
        UncertainError: contact was lost after the VM had been told to take the VF.
    """
    _require_live_host(pf)
    picture = pf.picture()
    secondary = resolve(picture, which)
    require_name(device_id, "--id")
    require_name(bus, "--bus")
    address = require_ready(pf.host, picture, secondary, unmarked=unmarked)
    with _conversation(pf, qmp, libvirt) as machine:
        present = machine.find(address)
        if present is not None:
            _require_same_name(machine, present, device_id, address)
            _require_same_bus(machine, present, bus, address)
            return _report(pf, "vm attach", secondary, machine, held=present, dry_run=dry_run)
        guards.require_decided(pf.host, picture, [secondary.cntlid])  # opening the VF resets it
        if not _has_group(machine, picture, secondary):
            require_unused(secondary)
        notes = machine.obstacles(secondary)
        plan = machine.plan_add(secondary, address, device_id, bus)
        asks = machine.about.running and secondary.mark is not None and secondary.mark.role is Role.RESUMABLE
        if dry_run:
            notes = (*notes, *([f"would ask: {_WAITING.format(address=address)}"] if asks else []))
        else:
            if asks:
                confirm(_WAITING.format(address=address))
            present = machine.add(plan, address)
        return _report(pf, "vm attach", secondary, machine, held=present, plan=plan, dry_run=dry_run, notes=notes)


def detach(
    pf: OpenPrimary,
    which: Bdf | int,
    *,
    qmp: str | None = None,
    libvirt: DomainRef | None = None,
    device_id: str | None = None,
    timeout_s: float = 30.0,
    confirm: Confirm,
    dry_run: bool = False,
) -> VmReport:
    """Take a VF back from a VM; nothing changes when that VM has not got it.

    Args:
        qmp: path of the VM's QMP socket.
        libvirt: or the VM as a domain of libvirt.
        device_id: the VM's name for the device; found by the VF's address when None.
        timeout_s: seconds the guest gets to let go of it.

    Raises:
        UsageError: the VM's device of that name is not this VF.
        BusyError: the guest refused; or a session that is not over holds the controller.
        TimedOutError: the guest did not answer; the request stays with the VM.
        HostError, TimedOutError, MalformedError: the VM cannot be talked to; nothing was changed.
        UncertainError: contact was lost after the VM had been told to give the VF back.
    """
    _require_live_host(pf)
    picture = pf.picture()
    secondary = resolve(picture, which)
    require_name(device_id, "--id")
    address = None if secondary.address is None else Bdf.parse(secondary.address)
    with _conversation(pf, qmp, libvirt) as machine:
        held = machine.find(address) if address is not None and secondary.present else None
        if device_id is not None and (held is None or held.id not in (device_id, machine.called(device_id))):
            _require_absent(machine, device_id, secondary, held)
        if held is None or address is None:
            elsewhere = tuple(f"it is not in this VM; {user}" for user in secondary.used_by)
            return _report(pf, "vm detach", secondary, machine, dry_run=dry_run, notes=elsewhere)
        guards.require_decided(pf.host, picture, [secondary.cntlid])  # and so does closing it
        plan = machine.plan_remove(held, address)
        question = f"The guest loses the controller {address} and the disks behind it. Go on?"
        if dry_run:
            asks = () if machine.idle else (f"would ask: {question}",)
            return _report(pf, "vm detach", secondary, machine, held=held, plan=plan, dry_run=True, notes=asks)
        if not machine.idle:
            confirm(question)
        machine.remove(held, plan, timeout_s)
        notes = () if _has_group(machine, picture, secondary) else _closed(pf, secondary)
        return _report(pf, "vm detach", secondary, machine, plan=plan, notes=notes)


def arguments(
    pf: OpenPrimary,
    which: Bdf | int,
    *,
    unmarked: bool = False,
    device_id: str | None = None,
    bus: str | None = None,
) -> VmArguments:
    """Return what hands a VF to a VM that nvmelm does not talk to; refuses the same VFs as :func:`attach`.

    Raises:
        NotReadyError, NotSupportedError, BusyError: the VF may not be handed over, or somebody has it.
    """
    picture = pf.picture()
    secondary = resolve(picture, which)
    address = require_ready(pf.host, picture, secondary, unmarked=unmarked)
    guards.require_decided(pf.host, picture, [secondary.cntlid])
    require_unused(secondary)
    return VmArguments(
        primary=pf.address,
        cntlid=secondary.cntlid,
        address=str(address),
        device_id=device_id or device_name(address),
        bus=bus,
        qemu_arguments=qemu_arguments(secondary, device_id=device_id, bus=bus),
        libvirt_xml=libvirt_xml(secondary),
        nova_device_spec=nova_device_spec(pf.host.sysfs, address),
        notes=() if secondary.mark is not None else (_UNMARKED_NOTE,),
    )


def _conversation(pf: OpenPrimary, qmp: str | None, libvirt: DomainRef | None) -> AbstractContextManager[VmMachine]:
    """Connect with the VM; what talks to it costs imports that ``--print`` and every other verb do without."""
    if libvirt is not None:
        from nvmelm.vm.libvirt import machine as libvirt_machine

        return libvirt_machine.conversation(libvirt, emulated=pf.host.kind == "emulated")
    from nvmelm.vm.qemu import machine as qemu_machine

    return qemu_machine.conversation(qmp or "")


def _require_live_host(pf: OpenPrimary) -> None:
    if pf.host.kind == "replay":
        cause = "a recording holds what a host answered, not what a VM did"
        fix = "use --print, or --host emulated:DIR"
        raise NotSupportedError("a replayed host has no VMs", cause=cause, fix=fix, reason="replay-has-no-vm")


def _require_same_name(machine: VmMachine, present: HeldVf, device_id: str | None, address: Bdf) -> None:
    if device_id is not None and present.id not in (device_id, machine.called(device_id)):
        name = present.id or "a device without a name"
        fix = "leave --id out, or nvmelm vm detach it first"
        raise BusyError(f"the VM has {address} already", cause=f"as {name}", fix=fix, reason="other-device-id")


def _require_same_bus(machine: VmMachine, present: HeldVf, bus: str | None, address: Bdf) -> None:
    now = machine.bus_of(present)
    if bus is not None and now is not None and now != bus:
        fix = "leave --bus out, or nvmelm vm detach it first"
        raise BusyError(f"the VM has {address} already", cause=f"on the bus {now}", fix=fix, reason="other-bus")


def _require_absent(machine: VmMachine, device_id: str, secondary: Secondary, held: HeldVf | None) -> None:
    """Refuse a name that is another device's, or that is not this VF's."""
    if held is None:
        machine.require_absent(device_id, secondary.address)
        return
    message, cause = f"the VM knows {secondary.address} by another name", f"as {held.handle}"
    fix = "leave --id out: nvmelm finds the device by its address"
    raise UsageError(message, cause=cause, fix=fix, reason="other-device-id")


def _has_group(machine: VmMachine, picture: Picture, secondary: Secondary) -> bool:
    """Return whether a VM has another VF of the function's IOMMU group: the group's node is open in it, then."""
    siblings = (
        other
        for other in picture.secondaries
        if other.present and other is not secondary and other.iommu_group == secondary.iommu_group
    )
    return secondary.iommu_group is not None and any(
        machine.find(Bdf.parse(str(sibling.address))) for sibling in siblings
    )


def _closed(pf: OpenPrimary, secondary: Secondary) -> tuple[str, ...]:
    """Wait until the kernel has closed the VF; return a note when it has not."""
    node = (secondary.vfio_node or "").removeprefix("/dev/")
    if not node:
        return ()
    try:
        wait_until(lambda: not pf.host.openers([node]), f"{node} to be closed", deadline_s=_CLOSE_DEADLINE_S)
    except TimedOutError:
        users = ", ".join(str(user) for user in pf.host.openers([node]))
        return (f"the VM gave {secondary.address} back, but /dev/{node} is still open in {users}",)
    return ()


def _report(
    pf: OpenPrimary,
    verb: str,
    secondary: Secondary,
    machine: VmMachine,
    *,
    held: HeldVf | None = None,
    plan: Plan | None = None,
    dry_run: bool = False,
    notes: tuple[str, ...] = (),
) -> VmReport:
    """Say what was done, and what the VM says about migrating itself afterwards.

    Args:
        held: the VF in the VM as it is now, or None when it is not there.
        plan: the change that was made, or would be.
    """
    bus = plan.bus if plan else None
    reasons: tuple[str, ...] = ()
    try:
        reasons = machine.blockers()
        bus = (machine.bus_of(held) if held else None) or bus
        if secondary.address is not None:
            notes = (*notes, *machine.notes(Bdf.parse(secondary.address), attached=held is not None))
    except NvmelmError as error:  # the change is done, and this is an addition to it
        notes = (*notes, f"the VM could not be asked whether it can migrate: {error.message}")
    if verb == "vm attach" and secondary.mark is None:
        notes = (*notes, _UNMARKED_NOTE)
    return VmReport(
        verb=verb,
        primary=pf.address,
        cntlid=secondary.cntlid,
        address=str(secondary.address),
        dry_run=dry_run,
        changed=plan is not None and not dry_run,
        attached=held is not None,
        device_id=plan.device_id if plan else (held.id if held else None),
        qom_path=held.path if held else None,
        bus=bus,
        vmm=machine.about,
        commands=(plan.sent,) if plan else (),
        migration_blockers=reasons,
        migration_note=_BLOCKED_NOTE if reasons and held is not None else "",
        notes=notes,
    )
