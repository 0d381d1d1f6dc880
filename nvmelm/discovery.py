"""Find controlling functions, and from each its controlled functions: the joined picture of sysfs and admin queue.

The join goes downwards only, as the Secondary Controller List does::

    /dev/nvme0 -- PF 0000:01:00.0 -- primary 0x0000
                    |-- virtfn0 = VF Number 1 -- secondary 0x0001 -- group 6 -- vfio-pci -- /dev/vfio/6
                    `-- virtfn1 = VF Number 2 -- secondary 0x0002 -- group 7 -- no driver

VF Number is 1-based, ``virtfn`` 0-based. The list exists, VF Numbers and all, while SR-IOV is still off.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from nvmelm import pci
from nvmelm.commands import execute, identify, listing
from nvmelm.errors import MalformedError, NotSupportedError, UsageError
from nvmelm.model import Picture, Primary, PrimaryList, PrimarySummary, Resources, Secondary, StateFormats, Tracking
from nvmelm.pci import Bdf
from nvmelm.transport import AdminQueue, Host
from nvmelm.wire.identify import (
    EffectsLog,
    IdentifyController,
    PrimaryControllerCapabilities,
    SecondaryControllerEntry,
)
from nvmelm.wire.identify import StateFormats as WireStateFormats
from nvmelm.wire.opcodes import Opcode

KIB = 1024
#: 2^MDTS counts minimum memory pages; CAP.MPSMIN cannot be read through the driver, and 4 KiB is the least it can be.
MINIMUM_PAGE_BYTES = 4 * KIB

_SCS_ONLINE = 0x01
_CNTLID = re.compile(r"0[xX][0-9a-fA-F]{1,4}|[0-9a-fA-F]{1,4}[hH]|\d{1,5}")


@dataclass(frozen=True, slots=True)
class PrimaryRef:
    """A controlling function found on a host: its kernel name, never kept, and its address and serial, which are."""

    node: str
    address: Bdf
    serial: str


def primaries(host: Host) -> list[PrimaryRef]:
    """Return the NVMe PCI functions of a host that are nobody's VF and that the nvme driver drives."""
    found = []
    for node in host.sysfs.devices("nvme"):
        target = pci.link_name(host.sysfs, f"class/nvme/{node}/device")
        if target is None or not Bdf.looks_like(target):
            continue  # a fabrics controller has no PCI function
        address = Bdf.parse(target)
        if pci.physical_function(host.sysfs, address) is None:
            found.append(PrimaryRef(node, address, host.sysfs.read(f"class/nvme/{node}/serial").strip()))
    return found


def find_primary(host: Host, text: str) -> PrimaryRef:
    """Find a controlling function by kernel name, device node, PCI address or serial number.

    Raises:
        UsageError: nothing, more than one, or a controlled function has that name.
    """
    known = primaries(host)
    name = text.removeprefix("/dev/")
    matches = [ref for ref in known if name == ref.node or text == ref.serial]
    if not matches and Bdf.looks_like(text):
        wanted = Bdf.parse(text)
        matches = [ref for ref in known if ref.address == wanted]
        parent = pci.physical_function(host.sysfs, wanted)
        if parent is not None:
            cause = "a controlled function takes no part in its own migration; everything is asked of its PF"
            raise UsageError(f"{wanted} is a VF, not a controlling function", cause=cause, fix=f"name its PF, {parent}")
    if len(matches) == 1:
        return matches[0]
    if matches:
        names = ", ".join(str(ref.address) for ref in matches)
        raise UsageError(f"more than one controlling function is called {text!r}", fix=f"use an address: {names}")
    cause = "no NVMe controller driven by the kernel's nvme driver has this name, address or serial number"
    raise UsageError(f"there is no controlling function {text!r} on {host.name}", cause=cause, fix="nvmelm list")


def parse_cntlid(text: str) -> int:
    """Read a controller id: ``0x0041``, ``41h`` or ``65``.

    Raises:
        UsageError: not a controller id, 0 to 0xFFEF (the ids above are reserved).
    """
    if _CNTLID.fullmatch(text):
        value = int(text[:-1], 16) if text[-1] in "hH" else int(text, 0 if text[:2] in ("0x", "0X") else 10)
        if value <= 0xFFEF:
            return value
    raise UsageError(f"{text!r} is not a controller id", fix="write it like 0x0041; nvmelm secondary list shows them")


def find_function(host: Host, text: str) -> tuple[PrimaryRef, Bdf | int]:
    """Find a controlled function by its PCI address, or as ``PF/CNTLID``.

    Returns:
        Its controlling function, and the VF's address or the controller id it was named by.

    Raises:
        UsageError: not of either form, or not a VF.
    """
    if Bdf.looks_like(text):
        address = Bdf.parse(text)
        parent = pci.physical_function(host.sysfs, address)
        if parent is None:
            raise UsageError(f"{address} is not an enabled VF", fix="nvmelm secondary list PF shows the VFs of a PF")
        return find_primary(host, str(parent)), address
    name, slash, cntlid = text.rpartition("/")
    if not slash or not name or name == "/dev":
        fix = "name it by its address, 0000:01:00.1, or as PF/CNTLID, nvme0/0x0001"
        raise UsageError(f"{text!r} does not name a controlled function", fix=fix)
    return find_primary(host, name), parse_cntlid(cntlid)


def resolve(picture: Picture, which: Bdf | int) -> Secondary:
    """Return the controlled function of a picture that an address or controller id names; UsageError when none."""
    for one in picture.secondaries:
        if which in (one.cntlid, one.address) or str(which) == one.address:
            return one
    name = f"{which:#06x}" if isinstance(which, int) else str(which)
    known = ", ".join(f"{one.cntlid:#06x}" for one in picture.secondaries[:8]) or "none"
    cause = f"its secondary controllers are {known}{', …' if len(picture.secondaries) > 8 else ''}"
    fix = f"nvmelm secondary list {picture.primary.node}"
    raise UsageError(f"{name} is not a controlled function of {picture.primary.address}", cause=cause, fix=fix)


@contextmanager
def opened(host: Host, ref: PrimaryRef) -> Iterator[AdminQueue]:
    """Open the admin queue of a controlling function and close it again."""
    queue = host.open_queue(ref.node)
    try:
        yield queue
    finally:
        queue.close()


def summaries(host: Host) -> PrimaryList:
    """List the controlling functions of a host; sysfs alone, and one Identify each where this process may send it."""
    rows = []
    privileged = host.facts().privileged
    for ref in primaries(host):
        facts = pci.sriov(host.sysfs, ref.address)
        live_migration, cntlid = None, None
        if privileged:
            with opened(host, ref) as queue:
                identity = IdentifyController(execute(queue, identify.controller()).data)
            live_migration, cntlid = identity.host_managed_live_migration, identity.cntlid
        rows.append(
            PrimarySummary(
                node=ref.node,
                address=str(ref.address),
                serial=ref.serial,
                model=host.sysfs.read(f"class/nvme/{ref.node}/model").strip(),
                firmware=host.sysfs.read(f"class/nvme/{ref.node}/firmware_rev").strip(),
                cntlid=cntlid,
                vfs_total=facts.total if facts else 0,
                vfs_enabled=facts.enabled if facts else 0,
                live_migration=live_migration,
            )
        )
    return PrimaryList(host=host.name, primaries=tuple(rows))


def read_picture(host: Host, queue: AdminQueue, ref: PrimaryRef, *, users: bool = True) -> Picture:
    """Read a controlling function and everything below it.

    Args:
        users: also ask who has each VF in use; this looks through the host's processes.

    Raises:
        AdminCommandError: the controller refused to be identified.
        MalformedError: it answered nonsense.
    """
    identity = IdentifyController(execute(queue, identify.controller()).data)
    sriov = pci.sriov(host.sysfs, ref.address)
    capabilities = _capabilities(queue, identity, sriov)
    primary = _primary(ref, identity, capabilities, sriov, _state_formats(queue, identity))
    entries = listing.all_secondaries(queue) if capabilities is not None else []
    present = pci.virtual_functions(host.sysfs, ref.address) if sriov else {}
    secondaries = [_secondary(host, ref, entry, sriov, present) for entry in entries]
    if users:
        secondaries = _with_users(host, secondaries)
    return Picture(primary=primary, secondaries=tuple(secondaries))


def require_sriov(picture: Picture) -> None:
    """Refuse a controlling function that can have no VFs.

    Raises:
        NotSupportedError: no SR-IOV capability, or no secondary controllers.
    """
    primary = picture.primary
    if primary.vfs_total == 0:
        cause = "its PCI function has no SR-IOV capability, or the platform's firmware switched it off"
        fix = "enable SR-IOV in the firmware set-up, or use another controller; nvmelm host check tells more"
        raise NotSupportedError(f"{primary.address} can have no VFs", cause=cause, fix=fix)
    if primary.vq is None:
        cause = "it does not support Virtualization Management (OACS bit 7 and the effects log say so)"
        raise NotSupportedError(f"{primary.address} has no secondary controllers", cause=cause, fix="nvmelm list")


def _capabilities(
    queue: AdminQueue, identity: IdentifyController, sriov: pci.Sriov | None
) -> PrimaryControllerCapabilities | None:
    """Ask for the capabilities where the device has them; QEMU before 10.0 has them with OACS bit 7 clear."""
    supported = identity.virtualization_management
    if not supported and sriov is not None:
        effects = EffectsLog(execute(queue, identify.effects_log()).data)
        supported = effects.admin(Opcode.VIRTUALIZATION_MANAGEMENT).csupp
    if not supported:
        return None
    return PrimaryControllerCapabilities(execute(queue, identify.primary_capabilities()).data)


def _state_formats(queue: AdminQueue, identity: IdentifyController) -> StateFormats | None:
    if not identity.host_managed_live_migration:
        return None
    formats = WireStateFormats.parse(execute(queue, identify.state_formats()).data)
    return StateFormats(versions=formats.versions, vendor_uuids=tuple(str(one) for one in formats.uuids))


def _primary(
    ref: PrimaryRef,
    identity: IdentifyController,
    capabilities: PrimaryControllerCapabilities | None,
    sriov: pci.Sriov | None,
    formats: StateFormats | None,
) -> Primary:
    return Primary(
        node=ref.node,
        address=str(ref.address),
        serial=identity.sn,
        model=identity.mn,
        firmware=identity.fr,
        nqn=identity.subnqn,
        vendor_id=identity.vid,
        subsystem_vendor_id=identity.ssvid,
        cntlid=identity.cntlid,
        nvme_version=f"{identity.ver >> 16}.{identity.ver >> 8 & 0xFF}.{identity.ver & 0xFF}",
        live_migration=identity.host_managed_live_migration,
        virtualization_management=capabilities is not None,
        max_transfer_bytes=MINIMUM_PAGE_BYTES << identity.mdts if identity.mdts else 0,
        state_formats=formats,
        tracking=_tracking(identity),
        vq=_resources(capabilities, "vq", 0) if capabilities else None,
        vi=_resources(capabilities, "vi", 1) if capabilities else None,
        vfs_total=sriov.total if sriov else 0,
        vfs_enabled=sriov.enabled if sriov else 0,
        drivers_autoprobe=sriov.autoprobe if sriov else None,
    )


def _tracking(identity: IdentifyController) -> Tracking:
    unit = MINIMUM_PAGE_BYTES  # granularities are 2^n * 4 KiB
    memory = bool(identity.trattr & 0x01)
    return Tracking(
        memory=memory,
        user_data=bool(identity.trattr & 0x02),
        memory_ranges=identity.cmmrtd,
        smallest_granularity_bytes=unit << min(identity.minmrtg, 63) if memory else 0,
        largest_granularity_bytes=unit << min(identity.maxmrtg, 63) if memory else 0,
        power_of_two_lengths=bool(identity.trattr & 0x04),
        user_data_queues=identity.mcudmq,
    )


def _resources(capabilities: PrimaryControllerCapabilities, kind: str, bit: int) -> Resources:
    """Translate one resource type from the specification's acronyms (VQFRT, VIFRT, …) to words."""
    values = capabilities.values()
    return Resources(
        supported=bool(capabilities.crt >> bit & 1),
        flexible_total=values[f"{kind}frt"],
        assigned_to_secondaries=values[f"{kind}rfa"],
        allocated_to_primary=values[f"{kind}rfap"],
        private_to_primary=values[f"{kind}prt"],
        secondary_maximum=values[f"{kind}frsm"],
        granularity=max(1, values[f"{kind}gran"]),
    )


def _secondary(
    host: Host, ref: PrimaryRef, entry: SecondaryControllerEntry, sriov: pci.Sriov | None, present: dict[int, Bdf]
) -> Secondary:
    index = entry.vfn - 1
    address = present.get(index)
    predicted = _predict(ref, sriov, index) if address is None else None
    states = {0: "offline", _SCS_ONLINE: "online"}
    group = pci.iommu_group(host.sysfs, address) if address else None
    vfio = pci.vfio_device(host.sysfs, address) if address else None
    driver = pci.driver(host.sysfs, address) if address else None
    return Secondary(
        cntlid=entry.scid,
        primary_cntlid=entry.pcid,
        vf_number=entry.vfn,
        state=states.get(entry.scs, f"{entry.scs:#04x}"),
        online=bool(entry.scs & _SCS_ONLINE),
        vq=entry.nvq,
        vi=entry.nvi,
        address=str(address or predicted) if address or predicted else None,
        present=address is not None,
        driver=driver,
        driver_override=pci.driver_override(host.sysfs, address) if address else "",
        iommu_group=group,
        vfio_node=f"/dev/vfio/{group}" if vfio and group is not None else None,
        vfio_device=vfio,
        controller_node=pci.nvme_controller(host.sysfs, address) if address and driver == pci.NVME_DRIVER else None,
        incarnation=host.sysfs.inode(address.path) if address else 0,
        used_by=(),
    )


def _predict(ref: PrimaryRef, sriov: pci.Sriov | None, index: int) -> Bdf | None:
    """Compute the address a VF would have; None when the numbers make no sense or it is not a VF."""
    if sriov is None or index < 0 or index >= sriov.total:
        return None
    try:
        return sriov.address(ref.address, index)
    except MalformedError:
        return None


def _with_users(host: Host, secondaries: list[Secondary]) -> list[Secondary]:
    nodes = {one.cntlid: _nodes(host, one) for one in secondaries}
    wanted = [node for group in nodes.values() for node in group]
    if not wanted:
        return secondaries
    openers = host.openers(wanted)
    mounts = host.mounts() if any(one.controller_node for one in secondaries) else []
    joined = []
    for one in secondaries:
        users = [f"{opener} has /dev/{opener.node} open" for opener in openers if opener.node in nodes[one.cntlid]]
        for node in nodes[one.cntlid]:
            users += [f"/dev/{m.device} is used as {m.where}" for m in mounts if _part_of(m.device, node)]
            holders = host.sysfs.listdir(f"block/{node}/holders") if one.controller_node else []
            users += [f"/dev/{node} is held by {holder}" for holder in holders]
        joined.append(one.model_copy(update={"used_by": tuple(users)}))
    return joined


def _nodes(host: Host, one: Secondary) -> list[str]:
    """Return the device nodes whose users are users of the VF, without ``/dev/``."""
    if one.vfio_node:
        extra = [f"vfio/devices/{one.vfio_device}"] if one.vfio_device else []
        return [one.vfio_node.removeprefix("/dev/"), *extra]
    if one.controller_node:
        names = host.sysfs.listdir(f"class/nvme/{one.controller_node}")
        namespaces = [name for name in names if re.fullmatch(r"nvme\d+n\d+", name)]
        return [one.controller_node, *namespaces]
    return []


def _part_of(device: str, node: str) -> bool:
    """Return whether a block device is a namespace or one of its partitions."""
    return device == node or re.fullmatch(re.escape(node) + r"p\d+", device) is not None
