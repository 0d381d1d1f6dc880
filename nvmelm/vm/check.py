"""Whether a VM can migrate with its VFs as it runs now, and every reason why not, all at once.

Looked at from three sides: the process (is it supervised, what does it have open), the functions (marks), and the VMM
itself through its monitor (blockers, capabilities, version, other devices). What cannot be asked is said, not assumed.

Sources: QEMU, docs/devel/migration/vfio.rst and its QMP reference; its release notes for what a version has.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from nvmelm.documents import Record, Report, about
from nvmelm.errors import NvmelmError, UsageError, host_error
from nvmelm.host import Host
from nvmelm.host.local.processes import vm_name
from nvmelm.inventory.find import primaries
from nvmelm.inventory.opened import open_primary, require_privilege
from nvmelm.inventory.picture import Role, Secondary
from nvmelm.inventory.vm_moves import Held, Moves
from nvmelm.vm import presence
from nvmelm.vm.libvirt.client import Domain, DomainRef
from nvmelm.vm.qemu import view
from nvmelm.vm.qemu.monitor import Monitor, printable

#: The first QEMU whose migration decides by what the device says (enable-migration=auto).
_OLDEST_QEMU = (8, 1)
_IOMMUS = re.compile(r"intel-iommu|amd-iommu|virtio-iommu(-pci)?|arm-smmuv3")
_VFIO_USER = re.compile(r"vfio-user-pci|vfio-user-pci-.*")
_OTHER_VFIO = re.compile(r"vfio-(ccw|ap|platform|pci-igd.*)")
_GROUP = re.compile(r"/dev/vfio/([0-9]+|devices/vfio[0-9]+)")
_LAUNCH = "start it by nvmelm vm run -- VMM ARGS, or let libvirt's <emulator> be nvmelm-vmm with nvmelm-agent running"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReason(Record):
    """Something to know before this VM is moved."""

    code: str
    level: Literal["blocks", "costs", "unknown"] = field(
        metadata=about("blocks: it cannot migrate; costs: it can, at a price; unknown: could not be looked at")
    )
    message: str
    fix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedFunction(Record):
    """A VF of the VM's."""

    address: str = field(metadata=about("PCI address on this host"))
    primary: str
    cntlid: int
    mark: str | None = field(metadata=about("the role it is marked for; null: none, or one that does not hold"))
    state: str | None = field(metadata=about("VFIO's word for its state; null: nobody answers for it"))
    since: str | None = field(metadata=about("when it came into that state"))
    last_arc: str | None = field(metadata=about("the last change of its state, and"))
    last_arc_ms: float | None = field(metadata=about("how long it took"))
    refusal: str | None = field(metadata=about("the last reason that something was refused"))


@dataclass(frozen=True, slots=True, kw_only=True)
class VmCheck(Report):
    """Whether a VM can migrate with its VFs, and if not, why not."""

    schema_name = "nvmelm.vm_check"

    vm: str
    pid: int | None = field(metadata=about("the VMM's process; null when it could not be found"))
    supervised_by: str | None = field(metadata=about("run or agent; null: nobody answers its migration calls"))
    can_migrate: bool = field(metadata=about("nothing that was found blocks it, and everything could be looked at"))
    functions: tuple[CheckedFunction, ...]
    reasons: tuple[CheckReason, ...]


class _Found(NamedTuple):
    """A VF that a process has open."""

    primary: str
    secondary: Secondary


def check(host: Host, *, qmp: str | None = None, libvirt: DomainRef | None = None, pid: int | None = None) -> VmCheck:
    """Look at a VM by its monitor, its libvirt domain or its process.

    Raises:
        UsageError: there is no such process, or no such domain.
        PermissionDeniedError: not root.
        HostError, TimedOutError, MalformedError: the VM cannot be talked to.
    """
    require_privilege(host)
    if qmp is not None:
        process = peer_of(qmp)
        with Monitor(qmp) as monitor:
            name = view.status(monitor).name or vm_name(process)
            return _answer(host, name, process, list(_monitored(monitor)), moved=_downtime_ms(monitor))
    if libvirt is not None:
        return _libvirt(host, libvirt)
    if pid is None or not Path(f"/proc/{pid}").exists():
        fix = "--pid the number of the VMM's process; nvmelm secondary list PF names who has a VF"
        raise UsageError(f"there is no process {pid}", fix=fix, reason="arguments")
    unasked = _reason("unknown", "vmm-not-asked", "the VMM was not asked what it thinks", "--qmp SOCKET asks it")
    return _answer(host, vm_name(pid), pid, [unasked])


def peer_of(path: str) -> int:
    """Return the process that listens at a monitor's socket: that of the VMM."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.settimeout(10)
            connection.connect(path)
            return int.from_bytes(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 4), "little")
        except OSError as error:
            raise host_error("cannot connect to", path, error) from error


def _libvirt(host: Host, which: DomainRef) -> VmCheck:
    with Domain(which) as domain:
        about = domain.about()[0]
        name = about.name or which.name
        xml = domain.xml()
        addresses = {str(function.address) for function in xml.functions} if xml is not None else set()
        holders = {user.pid for user in host.openers(_nodes(host, addresses))}
        process = holders.pop() if len(holders) == 1 else None
        reasons = list(_age(about.version))
        if which.may_taint or domain.tainted_by_monitor():
            reasons += _blockers(domain.ask_qemu("query-migrate").get("blocked-reasons"))
        else:
            message = "QEMU was not asked: libvirt marks a domain tainted for that"
            reasons.append(_reason("unknown", "vmm-not-asked", message, "--may-taint asks it"))
        if process is None:
            message = "the process of the domain could not be found by the VFs it has"
            reasons.append(_reason("unknown", "vm-process", message, "--pid the number of its QEMU"))
    return _answer(host, name, process, reasons)


def _nodes(host: Host, addresses: set[str]) -> list[str]:
    secondaries = [secondary for _, secondary in _all(host) if secondary.address in addresses]
    return [_node(secondary) for secondary in secondaries if secondary.vfio_node]


def _answer(host: Host, name: str, pid: int | None, reasons: list[CheckReason], *, moved: int | None = None) -> VmCheck:
    known = presence.supervised(host.state_dir, pid) if pid is not None else None
    if pid is not None and known is None:
        message = "nobody answers the VMM's migration calls: it was not started under nvmelm"
        reasons.insert(0, _reason("blocks", "vm-not-supervised", message, _LAUNCH))
    functions = _held(host, pid) if pid is not None else []
    states = {held.address: held for held in Moves(host).all_held() if held.pid == pid and held.lives}
    for primary, secondary in functions:
        reasons += _of_function(primary, secondary)
        last = states.get(secondary.address or "")
        if moved is not None and last is not None and last.arc_seconds * 1000 > moved:
            reasons.append(_downtime(secondary, last.arc, last.arc_seconds, moved))
    if pid is not None:
        reasons += _other_devices(pid, [secondary for _, secondary in functions])
    return VmCheck(
        vm=printable(name, 80),
        pid=pid,
        supervised_by=known.by if known is not None else None,
        can_migrate=all(reason.level == "costs" for reason in reasons),
        functions=tuple(_function(primary, secondary, states) for primary, secondary in functions),
        reasons=tuple(reasons),
    )


def _function(primary: str, secondary: Secondary, states: dict[str, Held]) -> CheckedFunction:
    held = states.get(secondary.address or "")
    mark = secondary.mark
    return CheckedFunction(
        address=str(secondary.address),
        primary=primary,
        cntlid=secondary.cntlid,
        mark=str(mark.role) if mark is not None and mark.holds else None,
        state=held.state if held is not None else None,
        since=held.since if held is not None else None,
        last_arc=held.arc or None if held is not None else None,
        last_arc_ms=round(held.arc_seconds * 1000, 3) if held is not None else None,
        refusal=held.refusal or None if held is not None else None,
    )


# -- the process and its functions


def _all(host: Host) -> Iterator[_Found]:
    for ref in primaries(host):
        with open_primary(host, ref) as pf:
            picture = pf.picture(users=False)
        yield from (_Found(str(ref.address), secondary) for secondary in picture.secondaries if secondary.present)


def _held(host: Host, pid: int) -> list[_Found]:
    """Return the VFs that a process has open."""
    present = [function for function in _all(host) if function.secondary.vfio_node]
    opened = {
        user.node for user in host.openers([_node(function.secondary) for function in present]) if user.pid == pid
    }
    return [function for function in present if _node(function.secondary) in opened]


def _node(secondary: Secondary) -> str:
    return (secondary.vfio_node or "").removeprefix("/dev/")


def _of_function(primary: str, secondary: Secondary) -> Iterator[CheckReason]:
    name = f"{secondary.address} ({secondary.cntlid:#06x})"
    allow = f"nvmelm secondary allow-migration {primary} {secondary.cntlid:#06x}"
    mark = secondary.mark
    if mark is None:
        yield _reason("blocks", "not-marked", f"{name} bears no mark: step 3 was not done", allow)
    elif not mark.holds:
        message = f"the mark of {name} does not hold any more: {'; '.join(mark.broken_by)}"
        yield _reason("blocks", "mark-broken", message, allow)
    elif mark.role is not Role.MIGRATABLE:
        message = f"{name} is marked {mark.role}: it may arrive here, not leave"
        yield _reason("blocks", "wrong-mark", message, allow)


def _downtime(secondary: Secondary, arc: str, took_s: float, limit_ms: int) -> CheckReason:
    message = (
        f"the last arc of {secondary.address} ({arc}) took {took_s * 1000:.0f} ms, and the VMM's downtime limit is "
        f"{limit_ms} ms"
    )
    fix = "raise it: migrate-set-parameters downtime-limit, or virsh migrate-setmaxdowntime DOMAIN MILLISECONDS"
    return _reason("blocks", "downtime-limit", message, fix)


def _other_devices(pid: int, ours: list[Secondary]) -> Iterator[CheckReason]:
    known = {secondary.vfio_node for secondary in ours}
    links = set()
    with suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                links.add(os.readlink(entry))  # noqa: PTH115 (what it says is not a path of ours)
    for link in sorted(links):
        if _GROUP.fullmatch(link) and link not in known:
            message = f"the VM has another VFIO device ({link}); whether that one migrates is its driver's matter"
            yield _reason("costs", "other-vfio-device", message, "take it out of the VM, or ask its vendor")


# -- the VMM


def _monitored(monitor: Monitor) -> Iterator[CheckReason]:
    yield from _age(monitor.version)
    yield from _blockers(list(view.blockers(monitor)))
    for capability in view.blocking_capabilities(monitor):
        message = f"the migration capability {capability} is on, which goes with no VFIO device"
        fix = f'migrate-set-capabilities: {{"capability": "{capability}", "state": false}}'
        yield _reason("blocks", "vm-capability", message, fix)
    if view.lacks_return_path(monitor):
        message = "the VMM does not listen to the destination: a VM that is refused there waits paused here"
        fix = 'at both ends, migrate-set-capabilities: {"capability": "return-path", "state": true}; or then, cont'
        yield _reason("costs", "return-path", message, fix)
    for device in view.devices(monitor):
        yield from _of_device(device)


def _age(version: str) -> Iterator[CheckReason]:
    parts = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    if len(parts) == 2 and parts < _OLDEST_QEMU:
        message = f"QEMU {version} does not ask its devices whether they migrate"
        yield _reason("blocks", "vmm-too-old", message, "run the VM on QEMU 8.1 or newer")


def _of_device(device: view.QomDevice) -> Iterator[CheckReason]:
    name = printable(device.handle, 80)
    if _VFIO_USER.fullmatch(device.kind):
        message = f"{name} is a vfio-user device: QEMU migrates the VM without its state, and says nothing"
        yield _reason("blocks", "vfio-user", message, f"take {name} out of the VM before it migrates")
    elif _IOMMUS.fullmatch(device.kind):
        message = (
            f"the guest has a virtual IOMMU ({name}): each of its mappings waits for nvmelm, and QEMU before 11.0 "
        )
        fix = "take it out of the VM, or start the VMM with --no-guest-memory (launcher.conf: memory=no)"
        yield _reason("costs", "viommu", f"{message}refuses to migrate a VFIO device behind it", fix)
    elif _OTHER_VFIO.fullmatch(device.kind):
        message = f"{name} is another VFIO device; whether it migrates is its driver's matter"
        yield _reason("costs", "other-vfio-device", message, f"take {name} out of the VM, or ask its vendor")


def _blockers(rows: object) -> Iterator[CheckReason]:
    for text in rows if isinstance(rows, list | tuple) else ():
        yield _reason(
            "blocks", "vmm-blocker", f"the VMM refuses: {printable(text)}", "mend what it says, or ask it anew"
        )


def _downtime_ms(monitor: Monitor) -> int | None:
    """Return the VMM's downtime limit; None when it does not say."""
    with suppress(NvmelmError):
        parameters = monitor.execute("query-migrate-parameters")
        limit = parameters.get("downtime-limit") if isinstance(parameters, dict) else None
        return limit if isinstance(limit, int) else None
    return None


def _reason(level: Literal["blocks", "costs", "unknown"], code: str, message: str, fix: str) -> CheckReason:
    return CheckReason(code=code, level=level, message=message, fix=fix)
