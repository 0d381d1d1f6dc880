"""The documents of step 5: what was done to a virtual machine, and the arguments that do the same by hand."""

from __future__ import annotations

from dataclasses import dataclass, field

from nvmelm.documents import Record, Report, about


@dataclass(frozen=True, slots=True, kw_only=True)
class Vmm(Record):
    """A virtual machine monitor, as its QMP monitor or libvirt describes it."""

    name: str | None = field(metadata=about("the name it was started with"))
    version: str
    status: str = field(metadata=about("its run state in its own words: running, paused, prelaunch, inmigrate, …"))
    running: bool = field(metadata=about("the guest's processors run"))


@dataclass(frozen=True, slots=True, kw_only=True)
class VmReport(Report):
    """A VF handed to a virtual machine, or taken back from it."""

    schema_name = "nvmelm.vm"

    verb: str
    primary: str = field(metadata=about("PCI address of the PF"))
    cntlid: int
    address: str = field(metadata=about("PCI address of the VF on this host"))
    dry_run: bool
    changed: bool
    attached: bool = field(metadata=about("the virtual machine has the VF now"))
    device_id: str | None = field(metadata=about("the VMM's name for the device; null when it was given none"))
    qom_path: str | None = field(metadata=about("where the VMM keeps the device; null while it has none"))
    bus: str | None = field(metadata=about("the VMM's bus the device is on; null when it is not known"))
    vmm: Vmm
    commands: tuple[str, ...] = field(
        metadata=about("what changes something: QMP commands as they are sent, or virsh commands that do the same")
    )
    migration_blockers: tuple[str, ...] = field(
        metadata=about("why the VMM would refuse to migrate itself, in its words")
    )
    migration_note: str = field(metadata=about("what that means for a live migration with nvmelm"))
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class VmArguments(Report):
    """What hands a VF to a virtual machine that nvmelm does not talk to."""

    schema_name = "nvmelm.vm_arguments"

    primary: str = field(metadata=about("PCI address of the PF"))
    cntlid: int
    address: str = field(metadata=about("PCI address of the VF on this host"))
    device_id: str
    bus: str | None
    qemu_arguments: tuple[str, ...] = field(metadata=about("words for QEMU's command line"))
    libvirt_xml: str = field(metadata=about("a hostdev element for virsh attach-device or the domain's devices"))
    nova_device_spec: str = field(metadata=about("a line for the section [pci] of OpenStack Nova's nova.conf"))
    notes: tuple[str, ...] = ()
