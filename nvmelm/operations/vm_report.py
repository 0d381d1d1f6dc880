"""The documents of step 5: what was done to a virtual machine, and the arguments that do the same by hand."""

from __future__ import annotations

from pydantic import Field

from nvmelm.model import Document, Part


class Vmm(Part):
    """A virtual machine monitor, as its QMP monitor describes it."""

    name: str | None = Field(description="the name it was started with")
    version: str
    status: str = Field(description="its run state: running, paused, prelaunch, inmigrate, …")
    running: bool = Field(description="the guest's processors run")


class VmReport(Document):
    """A VF handed to a virtual machine, or taken back from it."""

    schema_name = "nvmelm.vm"

    verb: str
    primary: str = Field(description="PCI address of the PF")
    cntlid: int
    address: str = Field(description="PCI address of the VF on this host")
    dry_run: bool
    changed: bool
    attached: bool = Field(description="the virtual machine has the VF now")
    device_id: str | None = Field(description="the VMM's name for the device; null when it was given none")
    qom_path: str | None = Field(description="where the VMM keeps the device; null while it has none")
    bus: str | None = Field(description="the VMM's bus the device is on; null when it is not known")
    vmm: Vmm
    commands: tuple[str, ...] = Field(description="the QMP commands that change something, as they are sent")
    migration_blockers: tuple[str, ...] = Field(description="why the VMM would refuse to migrate itself, in its words")
    migration_note: str = Field(description="what that means for a live migration with nvmelm")
    notes: tuple[str, ...] = ()


class VmArguments(Document):
    """What hands a VF to a virtual machine that nvmelm does not talk to."""

    schema_name = "nvmelm.vm_arguments"

    primary: str = Field(description="PCI address of the PF")
    cntlid: int
    address: str = Field(description="PCI address of the VF on this host")
    device_id: str
    bus: str | None
    qemu_arguments: tuple[str, ...] = Field(description="words for QEMU's command line")
    libvirt_xml: str = Field(description="a hostdev element for virsh attach-device or the domain's devices")
    notes: tuple[str, ...] = ()
