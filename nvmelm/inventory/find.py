"""Find the controlling functions of a host, by name, and what one line of a list says of each; no models needed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from nvmelm.commands import execute, identify
from nvmelm.documents import Record, Report, about
from nvmelm.errors import ExitCode, HostError, NotReadyError, NvmelmError, UsageError
from nvmelm.host import AdminQueue, Host
from nvmelm.inventory import paths, pci
from nvmelm.inventory.pci import Bdf
from nvmelm.numbers import parse_cntlid
from nvmelm.wire.identify import IdentifyController

_NODE = re.compile(r"nvme[0-9]{1,9}")


class PrimaryRef(NamedTuple):
    """A controlling function found on a host: its kernel name, never kept, and its address and serial, which are."""

    node: str
    address: Bdf
    serial: str


def primaries(host: Host) -> list[PrimaryRef]:
    """Return the NVMe PCI functions of a host that are nobody's VF and that the nvme driver drives.

    One whose serial number cannot be read, since it is vanishing just now, has none here: it must not hide the others.
    """
    return [ref for node in host.sysfs.devices("nvme") if (ref := _behind(host, node, strict=False)) is not None]


def _behind(host: Host, node: str, *, strict: bool = True) -> PrimaryRef | None:
    """Return the controlling function behind a controller; None when there is none, or when it is a VF."""
    target = pci.link_name(host.sysfs, f"class/nvme/{node}/device")
    if target is None or not Bdf.looks_like(target):
        return None  # a fabrics controller has no PCI function
    address = Bdf.parse(target)
    if pci.physical_function(host.sysfs, address) is not None:
        return None
    path = f"class/nvme/{node}/serial"
    return PrimaryRef(node, address, host.sysfs.read(path).strip() if strict else known_text(host, path))


def known_text(host: Host, path: str) -> str:
    """Return an attribute of a device, or nothing where it cannot be read (any more)."""
    try:
        return host.sysfs.read(path).strip()
    except HostError:
        return ""


def find_primary(host: Host, text: str) -> PrimaryRef:
    """Find a controlling function by kernel name, device node, PCI address or serial number.

    A name or an address says where the function is; only a serial number has to be looked for on all of them.

    Raises:
        UsageError: nothing, more than one, or a controlled function has that name.
    """
    text = paths.named(host, text)
    return _find_primary(host, text, _node(host, text))


def _find_primary(host: Host, text: str, node: str | None) -> PrimaryRef:
    """Find a controlling function at a controller's node, or by its serial number where the text means no node."""
    if node is not None and (ref := _behind(host, node)) is not None:
        return ref
    matches = [ref for ref in primaries(host) if text == ref.serial]
    if len(matches) == 1:
        return matches[0]
    if matches:
        names = ", ".join(str(ref.address) for ref in matches)
        raise UsageError(f"more than one controlling function is called {text!r}", fix=f"use an address: {names}")
    _require_no_function(host, text)
    cause = "no NVMe controller driven by the kernel's nvme driver has this name, address or serial number"
    raise UsageError(f"there is no controlling function {text!r} on {host.name}", cause=cause, fix="nvmelm list")


def _require_no_function(host: Host, text: str) -> None:
    """Say of ``PF/CNTLID`` what it is, where only a PF will do."""
    pf, slash, cntlid = text.rpartition("/")
    node = _node(host, pf) if slash and cntlid[:1].isdecimal() else None
    if node and _behind(host, node) is not None:
        cause = "the verb is about all of its PF; a controlled function takes no part in its own migration"
        raise UsageError(f"{text!r} is a controlled function", cause=cause, fix=f"name its PF, {pf}")


def _node(host: Host, text: str) -> str | None:
    """Return the kernel name of the controller that a name or a PCI address means; None for other texts."""
    if not Bdf.looks_like(text):
        return text if _NODE.fullmatch(text) else None
    address = Bdf.parse(text)
    parent = pci.physical_function(host.sysfs, address)
    if parent is not None:
        cause = "a controlled function takes no part in its own migration; everything is asked of its PF"
        raise UsageError(f"{address} is a VF, not a controlling function", cause=cause, fix=f"name its PF, {parent}")
    return pci.nvme_controller(host.sysfs, address)


def find_function(host: Host, text: str) -> tuple[PrimaryRef, Bdf | int]:
    """Find a controlled function by its PCI address, or as ``PF/CNTLID``.

    Returns:
        Its controlling function, and the VF's address or the controller id it was named by.

    Raises:
        UsageError: not of either form, or not a VF.
        NotReadyError: the address of a VF that is not enabled.
    """
    text = paths.named(host, text)
    if Bdf.looks_like(text):
        address = Bdf.parse(text)
        parent = pci.physical_function(host.sysfs, address)
        if parent is None:
            raise _no_enabled_vf(host, address)
        return find_primary(host, str(parent)), address
    name, slash, cntlid = text.rpartition("/")
    if not slash or not name or name == "/dev":
        fix = "name it by its address, 0000:01:00.1, or as PF/CNTLID, nvme0/0x0001"
        raise UsageError(f"{text!r} does not name a controlled function", fix=fix)
    return find_primary(host, name), parse_cntlid(cntlid)


def find_either(host: Host, text: str) -> tuple[PrimaryRef, Bdf | int | None]:
    """Find a controlling function, or a controlled one with its controlling function, whichever has this name.

    Returns:
        The controlling function; and the VF's address or the controller id, None where the PF itself was named.

    Raises:
        UsageError, NotReadyError: as :func:`find_primary` and :func:`find_function`.
    """
    text = paths.named(host, text)
    if Bdf.looks_like(text):
        address = Bdf.parse(text)
        parent = pci.physical_function(host.sysfs, address)
        if parent is not None:
            return find_primary(host, str(parent)), address
        return _find_primary(host, text, pci.nvme_controller(host.sysfs, address)), None
    pf, slash, _ = text.rpartition("/")
    return find_function(host, text) if slash and pf not in ("", "/dev") else (find_primary(host, text), None)


def _no_enabled_vf(host: Host, address: Bdf) -> NvmelmError:
    """Return the error of an address without a VF: what is missing is either the VF, or a better address."""
    message = f"{address} is not an enabled VF"
    vf = None if host.sysfs.exists(address.path) else _vf_at(host, address)
    if vf is None:
        return UsageError(message, fix="nvmelm secondary list PF shows the VFs of a PF")
    ref, number, enabled = vf
    cause = f"it is the address of VF {number} of {ref.address}, and SR-IOV has enabled {enabled}"
    fix = f"nvmelm sriov enable {ref.node} --vfs {number}{', which removes the existing VFs first' if enabled else ''}"
    return NotReadyError(message, cause=cause, fix=fix, reason="no-vf")


def _vf_at(host: Host, address: Bdf) -> tuple[PrimaryRef, int, int] | None:
    """Return whose VF an address would be as the PFs' First VF Offset and VF Stride are now: PF, VF Number, NumVFs."""
    for ref in primaries(host):
        sriov = pci.sriov(host.sysfs, ref.address)
        if sriov is None or sriov.offset < 1 or sriov.stride < 1 or address.domain != ref.address.domain:
            continue
        index, rest = divmod(address.routing_id - ref.address.routing_id - sriov.offset, sriov.stride)
        if rest == 0 and 0 <= index < sriov.total:
            return ref, index + 1, sriov.enabled
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class PrimarySummary(Record):
    """One line of ``nvmelm list``."""

    node: str
    address: str
    serial: str
    model: str
    firmware: str
    cntlid: int | None
    vfs_total: int
    vfs_enabled: int
    live_migration: bool | None = field(metadata=about("null when it could not be asked (not root, or see problem)"))
    problem: str = field(default="", metadata=about("why it could not be asked; empty: it was, or only root may"))
    exit_code: int = field(default=0, metadata=about("what asking it alone would end with"))


@dataclass(frozen=True, slots=True, kw_only=True)
class PrimaryList(Report):
    """Controlling functions of a host."""

    schema_name = "nvmelm.list"

    host: str
    primaries: tuple[PrimarySummary, ...]


@contextmanager
def opened(host: Host, ref: PrimaryRef) -> Iterator[AdminQueue]:
    """Open the admin queue of a controlling function and close it again."""
    queue = host.open_queue(ref.node)
    try:
        yield queue
    finally:
        queue.close()


def summaries(host: Host) -> tuple[PrimarySummary, ...]:
    """List the controlling functions of a host; sysfs alone, and one Identify each where this process may send it.

    One that does not answer has a row all the same, with what sysfs knows and what went wrong.
    """
    privileged = host.facts().privileged
    return tuple(_summary(host, ref, ask=privileged) for ref in primaries(host))


def _summary(host: Host, ref: PrimaryRef, *, ask: bool) -> PrimarySummary:
    facts, live_migration, cntlid, problem, code = None, None, None, "", ExitCode.DONE
    try:
        facts = pci.sriov(host.sysfs, ref.address)
        if ask:
            with opened(host, ref) as queue:
                identity = IdentifyController(execute(queue, identify.controller()).data)
            live_migration, cntlid = identity.host_managed_live_migration, identity.cntlid
    except NvmelmError as error:
        problem, code = error.message, error.exit_code
    return PrimarySummary(
        node=ref.node,
        address=str(ref.address),
        serial=ref.serial,
        model=known_text(host, f"class/nvme/{ref.node}/model"),
        firmware=known_text(host, f"class/nvme/{ref.node}/firmware_rev"),
        cntlid=cntlid,
        vfs_total=facts.total if facts else 0,
        vfs_enabled=facts.enabled if facts else 0,
        live_migration=live_migration,
        problem=problem,
        exit_code=int(code),
    )
