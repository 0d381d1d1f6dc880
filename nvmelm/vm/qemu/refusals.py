"""What a VMM means when it refuses a QMP command: its words, the error they become, the cause and the fix.

QMP has error classes, and nearly everything is a ``GenericError``: the sentence is all there is to tell one refusal
from another. So this is the one place that looks at sentences; what it makes of them carries a stable ``reason``.

Sources: QEMU 7.2.22 (Debian 12), each sentence provoked there; those of rows marked *by source* are QEMU's source's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from nvmelm.errors import (
    BusyError,
    HostError,
    NotReadyError,
    NotSupportedError,
    NvmelmError,
    PermissionDeniedError,
    UsageError,
)

#: Characters of a sentence of the VMM that are shown.
LONGEST_SENTENCE = 400

_ROOT_PORT = (
    "start the VM with one more -device pcie-root-port,id=rp1,chassis=1,slot=1 for each VF, "
    "then nvmelm vm attach --bus rp1"
)


@dataclass(frozen=True, slots=True)
class QmpRefusal:
    """One way a VMM refuses.

    Attributes:
        pattern: found in its sentence; a regular expression.
        error: what the refusal becomes.
        reason: the stable word of that error.
    """

    pattern: str
    error: type[NvmelmError]
    reason: str
    cause: str
    fix: str


def _row(pattern: str, error: type[NvmelmError], reason: str, cause: str, fix: str) -> QmpRefusal:
    return QmpRefusal(pattern, error, reason, cause, fix)


#: The first row whose pattern is found counts.
REFUSALS: tuple[QmpRefusal, ...] = (
    _row(
        r"does not support hotplugging|unsupported by the port device",
        NotSupportedError,
        "no-hotplug-bus",
        "a running VM takes a PCI Express device below a root port only, never on pcie.0 itself",
        _ROOT_PORT,
    ),
    _row(
        r"^Bus '.*' not found",
        UsageError,
        "no-such-bus",
        "the VM has no bus of this name",
        "leave --bus out: nvmelm finds a free root port; or name the id= of one the VM was started with",
    ),
    _row(
        r"^No '.*' bus found",
        NotSupportedError,
        "no-hotplug-bus",
        "the VM's machine has no PCI bus",
        "use -machine q35",
    ),
    _row(
        r"slot/function available|slot [0-9]+ function [0-9]+ (?:not available|already)",
        BusyError,
        "bus-taken",
        "every place on that bus is taken or reserved",
        _ROOT_PORT,
    ),
    _row(
        r"Duplicate (?:device )?ID",
        BusyError,
        "id-taken",
        "the VM has another device of this name",
        "choose another name with --id",
    ),
    _row(
        r"expects an identifier",
        UsageError,
        "bad-id",
        "a name begins with a letter and holds letters, digits, '-', '.' and '_'",
        "choose another name with --id",
    ),
    _row(
        r"is not a valid device model name",
        NotSupportedError,
        "no-vfio-in-vmm",
        "this VMM was built without vfio-pci, or its module is not installed",
        "install the VMM's full system emulator package",
    ),
    _row(
        r"(?:ould not|ailed to) open '?/dev/vfio/.*No such file",
        HostError,
        "no-vfio-node",
        "the VF's group has no node where the VMM runs: it is not bound to vfio-pci, or the VMM has a /dev of its own",
        "nvmelm secondary list PF shows driver and node; a VMM in a container needs the node passed in",
    ),
    _row(
        r"(?:ould not|ailed to) open '?/dev/vfio/.*(?:Permission denied|not permitted)",
        PermissionDeniedError,
        "vfio-permission",
        "the user the VMM runs as may not open the VF's group",
        "chown the node (nvmelm secondary list PF names it) to that user, or run the VMM as root",
    ),
    _row(
        r"(?:ould not|ailed to) open '?/dev/vfio/.*busy|device is already attached",
        BusyError,
        "in-use",
        "a group has one user at a time, and it has one",
        "nvmelm secondary list PF names who has it; stop that first",
    ),
    _row(
        r"group [0-9]+ is not viable",  # by source: a group of several functions was not at hand
        BusyError,
        "group-not-viable",
        "another function of the VF's IOMMU group is driven by the host",
        "nvmelm host check PF names it, with what to do; never unbind the PF",
    ),
    _row(
        r"no such host device",
        UsageError,
        "no-such-vf",
        "the VMM does not see the VF: SR-IOV was switched off meanwhile, or the VMM runs somewhere else",
        "nvmelm secondary list PF",
    ),
    _row(
        r"no iommu_group found",  # by source
        NotSupportedError,
        "no-iommu",
        "nothing translates the VF's DMA",
        "switch the IOMMU on; nvmelm host check tells how",
    ),
    _row(
        r"No available IOMMU models",  # by source
        NotSupportedError,
        "no-iommu-type1",
        "the kernel module vfio_iommu_type1 is not loaded",
        "modprobe vfio_iommu_type1",
    ),
    _row(
        r"ailed to set ?(?:up|iommu).*not permitted",  # by source
        NotSupportedError,
        "no-interrupt-remapping",
        "the IOMMU does not remap interrupts, so a guest could raise any of the host's",
        "switch interrupt remapping on in the firmware; nvmelm host check tells more",
    ),
    _row(
        r"Cannot allocate memory|memory locked",
        HostError,
        "locked-memory",
        "the VMM must lock all of the guest's memory for the VF's DMA, and its limit is lower",
        "raise the VMM's limit (ulimit -l, LimitMEMLOCK= of its service, <memtune> of a libvirt domain)",
    ),
    _row(
        r"already in the process of unplug",
        BusyError,
        "unplug-pending",
        "the guest was asked before and has not answered yet",
        "let the guest run; the VMM finishes the removal at the guest's next reset at the latest",
    ),
    _row(
        r"[Gg]uest is busy|power indicator",  # by source
        BusyError,
        "unplug-refused",
        "the guest is just powering the slot up or down",
        "try again in a few seconds",
    ),
    _row(
        r"not allowed while migrating|[Mm]igration is in progress",
        BusyError,
        "vm-migrating",
        "the VM is being migrated, and its devices must stay as they are",
        "wait for the migration to end, or cancel it",
    ),
    _row(
        r"permitted only after machine initialization",
        NotReadyError,
        "vm-preconfig",
        "the VM was started with --preconfig and has no machine yet",
        "send x-exit-preconfig to it first",
    ),
)

#: Refusals that have an error class of their own.
CLASSES: dict[str, QmpRefusal] = {
    "CommandNotFound": _row(
        "",
        NotSupportedError,
        "no-such-qmp-command",
        "this VMM does not know the command: it is no QEMU system emulator, or a very old one",
        "use QEMU 6.0 or later, and the monitor of the VM itself, not of the guest agent or the storage daemon",
    ),
    "DeviceNotFound": _row(
        "",
        UsageError,
        "no-such-device",
        "the VM has no device of this name",
        "leave --id out: nvmelm finds the VF's device by its address",
    ),
}

_UNKNOWN = _row("", NvmelmError, "qmp-error", "", "the VMM's own log may say more")


def refusal(command: str, error_class: str, sentence: str) -> NvmelmError:
    """Return the error a refused command becomes.

    Args:
        command: the QMP command.
        error_class: QMP's error class.
        sentence: the VMM's words, already printable and bounded.
    """
    row = CLASSES.get(error_class) or next(
        (refusal for refusal in REFUSALS if re.search(refusal.pattern, sentence)), _UNKNOWN
    )
    return row.error(f"the VMM refused {command}: {sentence}", cause=row.cause, fix=row.fix, reason=row.reason)
