"""Find controlling functions, and from each its controlled functions: the joined picture of sysfs and admin queue.

The join goes downwards only, as the Secondary Controller List does::

    /dev/nvme0 -- PF 0000:01:00.0 -- primary 0x0000
                    |-- virtfn0 = VF Number 1 -- secondary 0x0001 -- group 6 -- vfio-pci -- /dev/vfio/6
                    `-- virtfn1 = VF Number 2 -- secondary 0x0002 -- group 7 -- no driver

VF Number is 1-based, ``virtfn`` 0-based. The list exists, VF Numbers and all, while SR-IOV is still off.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from nvmelm.commands import execute, identify, listing, optional
from nvmelm.errors import MalformedError, NotReadyError, NotSupportedError, UsageError
from nvmelm.host import AdminQueue, Host, Mount
from nvmelm.inventory import disks, pci
from nvmelm.inventory.find import PrimaryRef
from nvmelm.inventory.pci import Bdf
from nvmelm.inventory.picture import Picture, Primary, Resources, Secondary, StateFormats, Tracking
from nvmelm.wire.formats import SupportedStateFormats as WireStateFormats
from nvmelm.wire.identify import (
    IdentifyController,
    PrimaryControllerCapabilities,
    SecondaryControllerEntry,
)
from nvmelm.wire.opcodes import Opcode

KIB = 1024
#: 2^MDTS counts minimum memory pages; CAP.MPSMIN cannot be read through the driver, and 4 KiB is the least it can be.
MINIMUM_PAGE_BYTES = 4 * KIB

_SCS_ONLINE = 0x01


def resolve(picture: Picture, which: Bdf | int) -> Secondary:
    """Return the controlled function of a picture that an address or controller id names; UsageError when none."""
    for secondary in picture.secondaries:
        if which in (secondary.cntlid, secondary.address) or str(which) == secondary.address:
            return secondary
    name = f"{which:#06x}" if isinstance(which, int) else str(which)
    known = ", ".join(f"{secondary.cntlid:#06x}" for secondary in picture.secondaries[:8]) or "none"
    cause = f"its secondary controllers are {known}{', …' if len(picture.secondaries) > 8 else ''}"
    fix = f"nvmelm secondary list {picture.primary.node}"
    raise UsageError(f"{name} is not a controlled function of {picture.primary.address}", cause=cause, fix=fix)


def only(picture: Picture, which: Bdf | int | None) -> Picture:
    """Return a picture of one controlled function, or the whole of it when none is named; UsageError when it is none.

    What is said of controllers beside the list is kept of this one.
    """
    if which is None:
        return picture
    secondary = resolve(picture, which)
    moved = tuple(controller for controller in picture.moved if controller.cntlid == secondary.cntlid)
    return replace(picture, secondaries=(secondary,), moved=moved)


def no_vf(picture: Picture, secondary: Secondary) -> NotReadyError:
    """Return the error of a VF that is not enabled; to enable one more removes those there are (the kernel's rule)."""
    node, enabled = picture.primary.node, picture.primary.vfs_enabled
    cause = "SR-IOV has not enabled it"
    fix = f"nvmelm sriov enable {node} --vfs {max(secondary.vf_number, 1)}"
    if enabled:
        cause = f"SR-IOV has enabled {enabled} VF{'s' if enabled > 1 else ''}, and it is VF {secondary.vf_number}"
        others = "the existing VF" if enabled == 1 else f"all {enabled} existing VFs"
        fix = f"use an existing VF (nvmelm secondary list {node}), or {fix}, which removes {others} first"
    return NotReadyError(f"controller {secondary.cntlid:#06x} has no VF", cause=cause, fix=fix, reason="no-vf")


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
    taken = _taken(host, entries, present) if sriov else frozenset()
    secondaries = [_secondary(host, ref, entry, sriov, present, taken) for entry in entries]
    if users:
        secondaries = with_users(host, secondaries)
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
        effects = optional.effects_log(queue)
        supported = effects is not None and bool(effects.admin(Opcode.VIRTUALIZATION_MANAGEMENT).csupp)
    page = optional.data(queue, identify.primary_capabilities()) if supported else None
    return PrimaryControllerCapabilities(page) if page is not None else None


def _state_formats(queue: AdminQueue, identity: IdentifyController) -> StateFormats | None:
    if not identity.host_managed_live_migration:
        return None
    page = optional.data(queue, identify.state_formats())
    if page is None:
        return None
    formats = WireStateFormats.parse(page)
    return StateFormats(versions=formats.versions, vendor_uuids=tuple(str(uuid) for uuid in formats.uuids))


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


def _taken(host: Host, entries: Sequence[SecondaryControllerEntry], present: Mapping[int, Bdf]) -> frozenset[str]:
    """Return the addresses of all functions there are, where one is to be told apart from a VF that is not there."""
    if all(entry.vfn - 1 in present for entry in entries):
        return frozenset()
    return frozenset(host.sysfs.listdir(pci.DEVICES))


def _secondary(
    host: Host,
    ref: PrimaryRef,
    entry: SecondaryControllerEntry,
    sriov: pci.Sriov | None,
    present: dict[int, Bdf],
    taken: frozenset[str],
) -> Secondary:
    index = entry.vfn - 1
    address = present.get(index)
    predicted = _predict(ref, sriov, index, taken) if address is None else None
    states = {0: "offline", _SCS_ONLINE: "online"}
    group = pci.iommu_group(host.sysfs, address) if address else None
    driver = pci.driver(host.sysfs, address) if address else None
    vfio = pci.vfio_device(host.sysfs, address) if address and driver not in (None, pci.NVME_DRIVER) else None
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
        vfio_node=_vfio_node(host, address, driver, vfio, group),
        vfio_device=vfio,
        controller_node=pci.nvme_controller(host.sysfs, address) if address and driver == pci.NVME_DRIVER else None,
        incarnation=host.sysfs.inode(address.path) if address else 0,
        used_by=(),
    )


def _vfio_node(
    host: Host, address: Bdf | None, driver: str | None, device: str | None, group: int | None
) -> str | None:
    """Return the group's node of a function VFIO has: by its VFIO device, or its driver where kernels lack that."""
    if address is None or group is None:
        return None
    if device is None and not pci.is_vfio(host.sysfs, address, driver):
        return None
    return f"/dev/{pci.vfio_group_node(host.sysfs, group)}"


def _predict(ref: PrimaryRef, sriov: pci.Sriov | None, index: int, taken: frozenset[str]) -> Bdf | None:
    """Compute the address a VF would have with the number of VFs there is now: to show it, never to write below it.

    None when it is not a VF, when the numbers make no sense, or when another function has that address: First VF Offset
    and VF Stride may read anything while no VF is enabled, also 0, and change with NumVFs (PCI Express, SR-IOV).
    """
    if sriov is None or not 0 <= index < sriov.total or sriov.offset < 1 or (index and sriov.stride < 1):
        return None
    try:
        address = sriov.address(ref.address, index)
    except MalformedError:
        return None
    return None if str(address) in taken else address


def with_users(host: Host, secondaries: list[Secondary]) -> list[Secondary]:
    """Return controlled functions with who has each in use; this looks through the host's processes."""
    stacks = {secondary.cntlid: _stacks(host, secondary) for secondary in secondaries}
    nodes = {secondary.cntlid: _nodes(secondary, stacks[secondary.cntlid]) for secondary in secondaries}
    wanted = list(dict.fromkeys(node for group in nodes.values() for node in group))  # VFs may share a group's node
    if not wanted:
        return secondaries
    openers = host.openers(wanted)
    mounts = host.mounts() if any(secondary.controller_node for secondary in secondaries) else []
    joined = []
    for secondary in secondaries:
        users = [
            f"{opener} has /dev/{opener.node} open" for opener in openers if opener.node in nodes[secondary.cntlid]
        ]
        for disk, stack in stacks[secondary.cntlid].items():
            users += _disk_users(host, secondary, disk, stack, mounts)
        joined.append(replace(secondary, used_by=tuple(users)))
    return joined


def _stacks(host: Host, secondary: Secondary) -> dict[str, dict[str, str]]:
    """Return the disks of a VF that the kernel drives, each with what stands on it."""
    if not secondary.controller_node:
        return {}
    return {
        disk: disks.standing_on(host.sysfs, disk) for disk in disks.of_controller(host.sysfs, secondary.controller_node)
    }


def _nodes(secondary: Secondary, stacks: dict[str, dict[str, str]]) -> list[str]:
    """Return the device nodes whose users are users of the VF, without ``/dev/``."""
    if secondary.vfio_node:
        extra = [f"vfio/devices/{secondary.vfio_device}"] if secondary.vfio_device else []
        return [secondary.vfio_node.removeprefix("/dev/"), *extra]
    if secondary.controller_node:
        below = (name for disk, stack in stacks.items() for name in (disk, disks.generic_node(disk), *stack))
        return list(dict.fromkeys([secondary.controller_node, *below]))
    return []


def _disk_users(host: Host, secondary: Secondary, disk: str, stack: dict[str, str], mounts: list[Mount]) -> list[str]:
    """Return what the kernel itself uses a disk for, and where it cannot be named, that it does."""
    devices = {disk, *stack}
    used = [mount for mount in mounts if mount.device in devices or disks.is_partition(mount.device, disk)]
    users = [f"/dev/{mount.device} is used as {mount.where}" for mount in used]
    users += [f"/dev/{below} is held by {name}" for name, below in stack.items() if not disks.is_partition(name, below)]
    if not users and host.exclusively_held([disk]):
        users = [f"/dev/{disk} is in use by the kernel (a pool, or mounted where this process cannot look)"]
    others = disks.other_controllers(host.sysfs, str(secondary.controller_node), disk) if users else []
    also = f" ({', '.join(others)} leads to it, too)" if others else ""
    return [f"{user}{also}" for user in users]
