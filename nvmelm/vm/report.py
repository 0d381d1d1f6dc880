"""The documents of step 5: what was done to a virtual machine, and the arguments that do the same by hand."""

from __future__ import annotations

from pydantic import Field

from nvmelm.documents import Document, Part


class Vmm(Part):
    """A virtual machine monitor, as its QMP monitor or libvirt describes it."""

    name: str | None = Field(description="the name it was started with")
    version: str
    status: str = Field(description="its run state in its own words: running, paused, prelaunch, inmigrate, …")
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
    commands: tuple[str, ...] = Field(
        description="what changes something: QMP commands as they are sent, or virsh commands that do the same"
    )
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
    nova_device_spec: str = Field(description="a line for the section [pci] of OpenStack Nova's nova.conf")
    notes: tuple[str, ...] = ()


class HookReport(Document):
    """What was done for a domain that libvirt is about to start, or that has ended."""

    schema_name = "nvmelm.libvirt_hook"

    domain: str
    operation: str = Field(description="libvirt's word: prepare, start, started, stopped, release, migrate, …")
    sub_operation: str = Field(description="begin or end")
    extra: str = Field(description="libvirt's third word, such as why a domain ended; - when there is none")
    dry_run: bool
    changed: bool
    vfs: tuple[str, ...] = Field(description="PCI addresses of the VFs that the domain's metadata names")
    bound: tuple[str, ...] = Field(description="those of them that were bound to vfio-pci")
    unbound: tuple[str, ...] = Field(description="those of them that were given back to what they were found with")
