"""What libvirt means when it refuses: its error numbers, and QEMU's own sentences, which it hands through.

Libvirt's numbers tell who refused and roughly why; what QEMU said stands in the message, so the table of the monitor's
refusals (:mod:`nvmelm.vm.qemu.refusals`) is looked at, too.

Source: libvirt, virterror.h (numbers) and its QEMU driver (sentences). Rows marked *met* were provoked with 9.0.0.
"""

from __future__ import annotations

import re

from nvmelm.errors import (
    BusyError,
    HostError,
    NotReadyError,
    NotSupportedError,
    NvmelmError,
    PermissionDeniedError,
    UsageError,
)
from nvmelm.vm.qemu.refusals import REFUSALS, QmpRefusal


def _row(pattern: str, error: type[NvmelmError], reason: str, cause: str, fix: str) -> QmpRefusal:
    return QmpRefusal(pattern, error, reason, cause, fix)


#: By libvirt's error number (virErrorNumber).
NUMBERS: dict[int, QmpRefusal] = {
    3: _row(  # met: its test driver has no hot-plug
        "",
        NotSupportedError,
        "libvirt-unsupported",
        "libvirt's driver for this hypervisor has no such function",
        "name a domain of QEMU: --connect qemu:///system",
    ),
    42: _row(  # met
        "",
        UsageError,
        "no-such-domain",
        "libvirt knows no domain of this name or UUID here",
        "virsh list --all shows the domains; --connect names another libvirt",
    ),
    45: _row("", PermissionDeniedError, "libvirt-permission", "libvirt did not accept who asks", "run it with sudo"),
    68: _row(
        "",
        BusyError,
        "libvirt-busy",
        "something else is changing the domain: a migration, a snapshot, or a request that hangs",
        "virsh domjobinfo DOMAIN tells what; try again when it has ended",
    ),
    88: _row("", PermissionDeniedError, "libvirt-permission", "libvirt's access rules forbid it", "run it with sudo"),
}
NUMBERS[29] = NUMBERS[79] = NUMBERS[45]

#: By what libvirt or QEMU says; the first row that is found counts, and QEMU's own follow.
SENTENCES: tuple[QmpRefusal, ...] = (
    _row(  # met
        r"[Ff]ailed to connect socket to|unable to connect to server",
        HostError,
        "no-libvirt",
        "no libvirt daemon listens there",
        "systemctl start libvirtd (or virtqemud); --connect names another one",
    ),
    _row(
        r"authentication (?:unavailable|failed)|[Pp]ermission denied.*socket|polkit",
        PermissionDeniedError,
        "libvirt-permission",
        "this user may not manage system domains",
        "run it with sudo",
    ),
    _row(  # met
        r"[Nn]o more available PCI slots|[Nn]o PCI buses available|hotplug(?:ging)? is not supported|t hotpluggable",
        NotSupportedError,
        "no-hotplug-bus",
        "every PCI Express port of the domain is taken; a running one gets no new ports",
        "virsh edit DOMAIN: one more <controller type='pci' model='pcie-root-port'/> for each VF, then restart it",
    ),
    _row(  # met
        r"is in use by driver|already in use|is assigned to|in use by domain",
        BusyError,
        "in-use",
        "another domain has it",
        "nvmelm secondary list PF names who has it; stop that first",
    ),
    _row(  # met: the VF was unbound between our look and libvirt's
        r"unable to stat: /dev/vfio/",
        HostError,
        "no-vfio-node",
        "the VF's group has no node: it is not bound to vfio-pci",
        "nvmelm vfio bind VF",
    ),
    _row(
        r"not bound to|[Uu]nmanaged PCI device .* must be manually detached|must be manually detached",
        NotReadyError,
        "not-bound",
        "libvirt does not bind a device of managed='no' itself",
        "nvmelm vfio bind VF",
    ),
    _row(
        r"domain is not running|domain is not active",
        NotReadyError,
        "domain-not-running",
        "only a running or waiting domain has devices that can be plugged",
        "virsh start --paused DOMAIN",
    ),
    _row(
        r"unplug of device was rejected by the guest|rejected by the guest",
        BusyError,
        "unplug-refused",
        "the guest's operating system says that it cannot do without it: a mounted file system, for instance",
        "unmount what is on it inside the guest, then try again",
    ),
    _row(  # met
        r"device not found|no matching (?:host|PCI) device|not found in domain",
        UsageError,
        "no-such-device",
        "the domain has no such device",
        "nvmelm secondary list PF names who has the VF",
    ),
    _row(
        r"(?:not|n't) support (?:VFIO|passthrough|device assignment)|passthrough.*not support",
        NotSupportedError,
        "no-iommu",
        "libvirt found no IOMMU group on this host",
        "switch the IOMMU on; nvmelm host check tells how",
    ),
)

#: What speaks of the connection, whatever number it has.
_LOST = re.compile(r"client socket is closed|[Ee]nd of file while reading|[Cc]annot (?:recv|send|write) data|keepalive")
_UNKNOWN = _row("", NvmelmError, "libvirt-error", "", "libvirt's own log may say more: journalctl -u libvirtd")


def refusal(doing: str, number: int, sentence: str, *, alive: bool = True) -> NvmelmError:
    """Return the error that a failed call becomes.

    Args:
        doing: what was asked, to stand after "libvirt could not".
        number: libvirt's error number.
        sentence: its words, already printable and bounded.
        alive: the connection stands.
    """
    if not alive or _LOST.search(sentence):
        cause = "its daemon ended or was restarted; the domains run on without it"
        message = f"libvirt hung up: {sentence}"
        fix = "systemctl status libvirtd (or virtqemud)"
        return HostError(message, path="libvirt", cause=cause, fix=fix, reason="libvirt-lost")
    rows = (*SENTENCES, *REFUSALS)
    row = next((refusal for refusal in rows if re.search(refusal.pattern, sentence)), None) or NUMBERS.get(
        number, _UNKNOWN
    )
    return row.error(f"libvirt could not {doing}: {sentence}", cause=row.cause, fix=row.fix, reason=row.reason)
