"""Can this host, and this controlling function, do it? Each finding says what is so, and how to mend it.

The host's part goes through the symptoms a manager meets before anything works: no IOMMU, no interrupt remapping,
no-IOMMU mode, modules that are not there. The function's part goes through what NVMe needs, and through the traps that
sysfs does not show: VFs that look fine while a reset of the PF took every secondary controller Offline, or a PF that
lost its driver and left its VFs behind.

Only reads; a finding is ``ok``, a ``warning`` (works, but look) or a ``problem`` (a verb will refuse or fail).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from nvmelm.commands import AdminCommandError, execute, identify, optional
from nvmelm.documents import Record, Report, about
from nvmelm.errors import NvmelmError, OwnFileError
from nvmelm.host import Host
from nvmelm.host.local import confinement
from nvmelm.inventory import groups, pci, suspension
from nvmelm.inventory.departed import any_session
from nvmelm.inventory.find import PrimaryRef, find_primary, primaries
from nvmelm.inventory.opened import OpenPrimary, open_primary
from nvmelm.inventory.picture import Picture, Secondary
from nvmelm.numbers import hexadecimal
from nvmelm.ownership.sessions import Sessions
from nvmelm.prepare.journal import Journal, journal_path, journals
from nvmelm.prepare.sanity import contradictions
from nvmelm.wire.identify import IdentifyController
from nvmelm.wire.opcodes import Opcode

#: PCI class of an NVMe controller: mass storage, non-volatile memory, NVM Express.
_NVME_CLASS = "0x010802"
#: Intel VT-d, extended capability register: bit 3, interrupt remapping supported.
_ECAP_INTERRUPT_REMAPPING = 1 << 3
_VENDOR = "update the controller's firmware; nvmelm show --record FILE records its answers for the vendor"
_U64 = (1 << 64) - 1
#: The oldest kernel nvmelm is tried on; the first with a device of VFIO's for each function.
_OLDEST_KERNEL = (6, 1)
#: seccomp's ADDFD that ends a call came with it (0ae71c7720e3).
_OLDEST_KERNEL_OF_VMS = (5, 14)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding(Record):
    """One answer of ``nvmelm host check``."""

    code: str
    level: Literal["ok", "warning", "problem"]
    message: str
    fix: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostCheck(Report):
    """Whether a host, and a PF on it, can take part in a live migration."""

    schema_name = "nvmelm.host_check"

    host: str
    kernel: str
    primary: str | None
    ready: bool = field(metadata=about("no finding is a problem"))
    findings: tuple[Finding, ...]


def check(host: Host, which: str | None = None) -> HostCheck:
    """Look at a host, and at one controlling function or every one it has.

    Raises:
        UsageError: there is no such controlling function.
    """
    findings = list(_host(host))
    privileged = host.facts().privileged
    refs = [find_primary(host, which)] if which else primaries(host)
    for ref in refs if privileged else []:
        findings += _asked(host, ref)
    if privileged and not host.recorded:  # a recording holds no sessions
        findings += _unfinished(host, {str(ref.address) for ref in refs} if which else None)
    return HostCheck(
        host=host.name,
        kernel=host.facts().kernel_release,
        primary=which,
        ready=not any(finding.level == "problem" for finding in findings),
        findings=tuple(findings),
    )


def _asked(host: Host, ref: PrimaryRef) -> Iterator[Finding]:
    """Yield what is found of a function; one that does not answer hides neither the others nor the host."""
    try:
        with open_primary(host, ref) as pf:
            yield from _primary(pf)
    except OwnFileError as error:
        yield _problem("own-file", error.message, error.fix)
    except NvmelmError as error:
        fix = f"dmesg | grep {ref.node} tells what the driver knows of it; nvmelm show {ref.node} asks it again"
        yield _problem("pf-silent", f"{ref.address} ({ref.node}) does not answer: {error.message}", fix)


def _unfinished(host: Host, addresses: set[str] | None) -> Iterator[Finding]:
    """Name what was begun on this host and has not ended; None: on any function, also one that is gone."""
    for journal in journals(host):
        if addresses is None or journal.address in addresses:
            yield from _unfinished_runs(journal)
    if not any_session(host):
        return
    try:
        with Sessions(host) as sessions:
            records = sessions.seen()
    except NvmelmError as error:
        yield _problem("sessions", error.message, error.fix)
        return
    for record in records:
        if not record.over and (addresses is None or record.primary in addresses):
            message = f"{record.names} of {record.primary}: the move with {record.peer or 'another host'} has not ended"
            yield _warning("move-unfinished", f"{message} (session {record.id[:8]}, {record.state})", "nvmelm recover")


def _unfinished_runs(journal: Journal) -> Iterator[Finding]:
    try:
        runs = journal.unfinished()
    except NvmelmError as error:
        yield _problem("journal", error.message, error.fix)
        return
    for run in runs:
        message = f"{run.verb} on {journal.address}, begun at {run.started_at}, has not ended"
        fix = "if it does not run any more: nvmelm recover undoes it, nvmelm recover --finish completes it"
        yield _warning("run-unfinished", message, fix)


def _ok(code: str, message: str) -> Finding:
    return Finding(code=code, level="ok", message=message)


def _warning(code: str, message: str, fix: str) -> Finding:
    return Finding(code=code, level="warning", message=message, fix=fix)


def _problem(code: str, message: str, fix: str) -> Finding:
    return Finding(code=code, level="problem", message=message, fix=fix)


def _host(host: Host) -> Iterator[Finding]:
    facts = host.facts()
    if not facts.privileged:
        yield _problem("root", "this process is not root: it can look, but neither ask nor change", "run it with sudo")
    yield from _kernel(host)
    yield from _iommu(host)
    yield from _vfio(host)
    yield from _vms(host, facts.kernel_release)
    yield from _orphans(host)
    if primaries(host):
        yield _ok("nvme", "the nvme driver drives at least one NVMe PCI function")
    else:
        fix = "lspci -d ::0108; modprobe nvme; bind the controller's PF to the nvme driver"
        yield _problem("nvme", "no NVMe PCI function is driven by the kernel's nvme driver", fix)


def _kernel(host: Host) -> Iterator[Finding]:
    release = host.facts().kernel_release
    if _older(release, _OLDEST_KERNEL):
        oldest = ".".join(map(str, _OLDEST_KERNEL))
        message = f"Linux {release} is older than {oldest}, the oldest nvmelm is tried on"
        yield _warning("kernel", message, f"boot {oldest} or later; what an older kernel cannot do ends with an error")


def _older(release: str, version: tuple[int, int]) -> bool:
    """Return whether a kernel's release is older than a version; one that says none is taken for new."""
    match = re.match(r"([0-9]{1,4})\.([0-9]{1,4})(?![0-9])", release)
    return match is not None and (int(match[1]), int(match[2])) < version


def _iommu(host: Host) -> Iterator[Finding]:
    translated = sum(1 for _ in pci.translated_groups(host.sysfs))
    if _parameter(host, "vfio", "enable_unsafe_noiommu_mode") == "Y":
        fix = "echo N > /sys/module/vfio/parameters/enable_unsafe_noiommu_mode, and bind the VFs anew"
        yield _problem("no-iommu-mode", "VFIO runs in no-IOMMU mode; a VM cannot use such a device", fix)
    if not translated:
        fix = "switch VT-d / AMD-Vi on in the firmware, and boot with intel_iommu=on or amd_iommu=on"
        yield _problem("iommu", "no IOMMU group: nothing can be bound to vfio-pci", fix)
        return
    yield _ok("iommu", f"the IOMMU is on, {translated} groups")
    units = host.sysfs.listdir("class/iommu")
    registers = [f"class/iommu/{unit}/intel-iommu/ecap" for unit in units]
    read = (hexadecimal(host.sysfs.read(path).strip(), most=_U64) for path in registers if host.sysfs.exists(path))
    known = [value for value in read if value is not None]
    unsafe = _parameter(host, "vfio_iommu_type1", "allow_unsafe_interrupts") == "Y"
    if known and not all(value & _ECAP_INTERRUPT_REMAPPING for value in known) and not unsafe:
        fix = "boot without intremap=off; in QEMU: -device intel-iommu,intremap=on with kernel-irqchip=split"
        message = "interrupt remapping is missing: a VM that opens a VF gets EPERM from VFIO_SET_IOMMU"
        yield _problem("interrupt-remapping", message, fix)


def _vfio(host: Host) -> Iterator[Finding]:
    if host.sysfs.exists(f"{pci.DRIVERS}/{pci.VFIO_DRIVER}"):
        yield _ok("vfio-pci", "the vfio-pci driver is loaded")
    else:
        fix = "nothing to do: nvmelm loads it when it binds; modprobe vfio-pci loads it now"
        yield _warning("vfio-pci", "the vfio-pci driver is not loaded", fix)
    if host.sysfs.exists("module/vfio") and not host.sysfs.exists("module/vfio_iommu_type1"):
        message = "vfio_iommu_type1 is not loaded: a VM's VFIO_SET_IOMMU would answer ENODEV"
        yield _warning("vfio-iommu-type1", message, "modprobe vfio_iommu_type1")
    if not host.sysfs.exists("class/iommufd") and not host.sysfs.exists("class/misc/iommu"):
        yield _ok("vfio-groups", "this kernel has no iommufd: VMs take VFs by their group, /dev/vfio/N")


def _vms(host: Host, kernel: str) -> Iterator[Finding]:
    """Find what keeps whole VMs from moving with their functions; a controller alone needs none of it."""
    if _older(kernel, _OLDEST_KERNEL_OF_VMS):
        message = f"Linux {kernel} cannot hand a VMM's calls over: no VM moves whole from here"
        yield _warning("vm-migration", message, "use Linux 5.14 or newer; migrate moves controllers all the same")
    if host.kind == "local":
        for gap in confinement.gaps():
            yield _warning("vm-confinement", gap.message, gap.fix)


def _orphans(host: Host) -> Iterator[Finding]:
    """Find NVMe PFs that have VFs but no driver: their count cannot even be set to 0."""
    for name in host.sysfs.listdir(pci.DEVICES):
        path = f"{pci.DEVICES}/{name}"
        if not host.sysfs.exists(f"{path}/sriov_numvfs") or host.sysfs.read(f"{path}/class") != _NVME_CLASS:
            continue
        if pci.driver(host.sysfs, pci.Bdf.parse(name)) is None and host.sysfs.read(f"{path}/sriov_numvfs") != "0":
            fix = f"echo {name} > /sys/bus/pci/drivers/nvme/bind, then nvmelm release {name}"
            yield _problem("orphaned-vfs", f"{name} has VFs but no driver; its secondaries are all Offline", fix)


def _parameter(host: Host, module: str, name: str) -> str:
    path = f"module/{module}/parameters/{name}"
    return host.sysfs.read(path) if host.sysfs.exists(path) else ""


def _primary(pf: OpenPrimary) -> Iterator[Finding]:
    picture = pf.picture(states=True)
    name = picture.primary.address
    yield from (_problem("contradiction", f"{name}: {text}", _VENDOR) for text in contradictions(picture))
    yield from _capabilities(picture)
    yield from _effects(pf, picture)
    yield from _functions(pf, picture)


def _capabilities(picture: Picture) -> Iterator[Finding]:
    primary = picture.primary
    name = primary.address
    if primary.vfs_total == 0:
        fix = "enable SR-IOV in the firmware set-up; not every controller has it"
        yield _problem("sriov", f"{name} can have no VFs", fix)
        return
    yield _ok("sriov", f"{name} can have {primary.vfs_total} VFs and has {primary.vfs_enabled}")
    if primary.vq is None:
        fix = "use a controller with Virtualization Management"
        yield _problem("secondaries", f"{name} has no secondary controllers to give to VMs", fix)
    elif primary.vi is not None:
        free = f"{primary.vq.free} VQ and {primary.vi.free} VI resources are free"
        yield _ok("secondaries", f"{name} has {len(picture.secondaries)} secondary controllers; {free}")
    if not primary.live_migration:
        fix = "steps 1, 2, 4 and 5 work with --unmarked; to move a state use a controller with NVMe 2.1 live migration"
        yield _problem("live-migration", f"{name} has no Host Managed Live Migration (OACS bit 11)", fix)
    elif primary.state_formats is None or not (primary.state_formats.versions or primary.state_formats.vendor_uuids):
        fix = "ask the vendor for a firmware that lists a controller state format"
        yield _problem("state-formats", f"{name} lists no controller state format", fix)
    else:
        yield _ok("live-migration", f"{name} can save and restore the state of its controlled functions")


def _effects(pf: OpenPrimary, picture: Picture) -> Iterator[Finding]:
    """Warn of commands during which the kernel stops this controller's own I/O."""
    identity = IdentifyController(execute(pf.queue, identify.controller()).data)
    name = picture.primary.address
    if picture.primary.live_migration and identity.hmpre:
        yield _warning("host-memory-buffer", f"{name} wants a host memory buffer, which forbids migration", "firmware")
    if not picture.primary.live_migration:
        return
    try:
        effects = optional.effects_log(pf.queue)
    except AdminCommandError as error:
        yield _warning("effects", f"the effects log of {name} cannot be read: {error.message}", "ask the vendor")
        return
    if effects is None:
        yield _warning(
            "effects", f"{name} has no effects log: what its commands do to I/O is not known", "ask the vendor"
        )
        return
    freezing = [
        opcode.name for opcode in (Opcode.MIGRATION_SEND, Opcode.MIGRATION_RECEIVE) if effects.admin(opcode).cse
    ]
    if freezing:
        names = " and ".join(freezing)
        message = f"during {names} the kernel stops all I/O of {name}'s subsystem on this host (CSE is set)"
        yield _warning("effects", message, "do not mount namespaces of this subsystem on this host while it migrates")


def _functions(pf: OpenPrimary, picture: Picture) -> Iterator[Finding]:
    primary, host = picture.primary, pf.host
    present = [secondary for secondary in picture.secondaries if secondary.present]
    bound = [secondary for secondary in present if secondary.driver == pci.VFIO_DRIVER]
    if bound and not any(secondary.online for secondary in bound):
        fix = f"nvmelm release {primary.address}, then prepare it again"
        message = f"every bound VF of {primary.address} is Offline: the PF was reset, and sysfs does not show it"
        yield _problem("pf-was-reset", message, fix)
    if primary.drivers_autoprobe is False and not host_journal_exists(pf):
        fix = f"echo 1 > /sys/bus/pci/devices/{primary.address}/sriov_drivers_autoprobe, if nobody wants it off"
        yield _warning("autoprobe", f"driver autoprobe of {primary.address} is off, and nvmelm did not do it", fix)
    if picture.suspension_unknown:
        message = f"which controllers of {primary.address} are suspended is not known: {picture.suspension_unknown}"
        yield _warning("suspension-unknown", message, f"nvmelm state suspend {primary.address} CNTLID asks for one")
    for secondary in present:
        yield from _function(host, pci.Bdf.parse(primary.address), secondary)
        if secondary.suspended:
            fix = f"nvmelm recover names a migration that holds it; else nvmelm state resume {primary.address} "
            yield _warning("suspended", suspension.meaning(secondary), f"{fix}{secondary.cntlid:#06x}")


def host_journal_exists(pf: OpenPrimary) -> bool:
    """Return whether nvmelm has changed this PF since its last release."""
    return journal_path(pf.host, pf.address).exists()


def _function(host: Host, pf: pci.Bdf, secondary: Secondary) -> Iterator[Finding]:
    if secondary.driver == pci.NVME_DRIVER:
        fix = f"nvmelm vfio bind {secondary.address}"
        yield _warning("vf-driver", f"{secondary.address} is driven by the host's own nvme driver", fix)
    if secondary.iommu_group is None:
        yield _problem("vf-group", f"{secondary.address} is in no IOMMU group", "switch the IOMMU on")
        return
    problem = groups.obstacle(host.sysfs, pf, secondary.iommu_group, bound=(str(secondary.address),))
    if problem is not None:
        yield _problem("vf-group", f"{secondary.address} {problem.text}", problem.fix)
    if secondary.mark is not None and not secondary.mark.holds:
        fix = f"nvmelm secondary revoke, then allow {secondary.cntlid:#06x} anew"
        yield _warning(
            "mark", f"the mark of {secondary.cntlid:#06x} no longer holds: {'; '.join(secondary.mark.broken_by)}", fix
        )
