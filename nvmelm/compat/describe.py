"""Read a manifest: what a controlled function is, or what one would be that the controlling function could make.

All is asked of the controlling function and of its host, for the controlled function takes no part in its own
migration: its own Identify data cannot be read while a VM has it, and need not be. What a controller has by its design
(identity, limits, features) is what its controlling function has; what it has of its own (resources, namespaces,
driver) is read of it. What could not be asked, or was refused, is left out, and then blocks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Literal
from uuid import UUID

from nvmelm.commands import AdminCommandError, execute, identify, listing, optional
from nvmelm.compat.manifest import Manifest
from nvmelm.compat.rules import FactValue
from nvmelm.errors import NotSupportedError, UsageError
from nvmelm.host import AdminCommand, AdminQueue, Host
from nvmelm.inventory import pci
from nvmelm.numbers import decimal, hexadecimal
from nvmelm.wire.identify import IdentifyController, IdentifyNamespace
from nvmelm.wire.namespace_id import LENGTHS, IdType, parse_descriptors
from nvmelm.wire.status import StatusCode

if TYPE_CHECKING:
    from nvmelm.inventory.picture import Picture, Resources, Secondary

Facts = dict[str, FactValue]

#: The nvme driver takes a controller only when pages of 4 KiB suit it, so CAP.MPSMIN of one it drives is that.
_PAGE_BYTES = 4096
_BARS = 6
_FIRST_VF_RESOURCE = 7  # in the PF's ``resource``: after BAR 0 to 5 and the expansion ROM
_FIRST_BAR_OF_A_PMR = 2
_NO_DRIVER = "none"
_SHOWS_EVERY_CMB = (5, 16)
_NO_IOMMU_MODE = "module/vfio/parameters/enable_unsafe_noiommu_mode"


def of_function(host: Host, queue: AdminQueue, picture: Picture, secondary: Secondary) -> Manifest:
    """Return the manifest of a controlled function as it is now.

    Args:
        picture: read from this queue; ``secondary`` is a secondary of it.

    Raises:
        HostError: sysfs or the queue failed; a command that is only refused leaves its fact out.
    """
    return of_functions(host, queue, picture, [secondary])[secondary.cntlid]


def of_functions(host: Host, queue: AdminQueue, picture: Picture, chosen: Iterable[Secondary]) -> dict[int, Manifest]:
    """Return the manifests of controlled functions by id, as :func:`of_function`; what all have alike is asked once."""
    device: Facts | None = None
    manifests = {}
    for secondary in chosen:
        device = device or _of_the_device(host, queue, picture)
        manifests[secondary.cntlid] = _of_secondary(host, queue, picture, secondary, dict(device))
    return manifests


def _of_secondary(host: Host, queue: AdminQueue, picture: Picture, secondary: Secondary, facts: Facts) -> Manifest:
    """Return the manifest of a controlled function, given what every one of its device has alike."""
    facts |= _bars(host, picture, pci.Bdf.parse(secondary.address) if secondary.address and secondary.present else None)
    facts |= {"resources.vq": secondary.vq, "resources.vi": secondary.vi}
    facts |= _namespaces(queue, cntlid=secondary.cntlid)
    facts["host.vfio_driver"] = secondary.driver or _NO_DRIVER
    facts["host.iommu"] = _translated(host, secondary.iommu_group)
    subject = _subject(host, picture) | {"cntlid": f"{secondary.cntlid:#06x}"}
    if secondary.address:
        subject["address"] = secondary.address
    return Manifest("device", facts, subject)


def prospective(
    host: Host,
    queue: AdminQueue,
    picture: Picture,
    *,
    vq: int | None = None,
    vi: int | None = None,
    namespaces: Sequence[int] | None = None,
) -> Manifest:
    """Return the manifest of the next function that the controlling one could give, before it is there.

    Args:
        vq: VQ resources it would get; None: as many as one function can get now. ``vi`` likewise.
        namespaces: ids it would have attached; None: those attached to the next free secondary controller.

    Raises:
        NotSupportedError: every secondary controller is in use, or there is none.
        UsageError: a namespace that is not there.
    """
    free = next((secondary for secondary in picture.secondaries if not secondary.online), None)
    if free is None:
        raise NotSupportedError(
            f"{picture.primary.address} has no secondary controller that is free",
            cause="all of them are online" if picture.secondaries else "it has none",
            fix=f"nvmelm secondary list {picture.primary.node}",
            reason="no-free-function",
        )
    facts = _of_the_device(host, queue, picture)
    facts |= _bars(host, picture, None)
    facts["resources.vq"] = _obtainable(picture.primary.vq, free.vq, vq)
    facts["resources.vi"] = _obtainable(picture.primary.vi, free.vi, vi)
    facts |= _namespaces(queue, cntlid=free.cntlid, wanted=namespaces)
    facts["host.vfio_driver"] = pci.VFIO_DRIVER  # what preparing it binds it to
    facts["host.iommu"] = _translated(host, pci.iommu_group(host.sysfs, pci.Bdf.parse(picture.primary.address)))
    return Manifest("prospective", facts, _subject(host, picture))


def _obtainable(pool: Resources | None, has: int, wanted: int | None) -> int:
    """Return how many resources a function would really get; what it has already counts as free."""
    if pool is None or not pool.supported:
        return 0
    most = min(pool.secondary_maximum, pool.free + has)
    return most if wanted is None else min(wanted, most)


def _subject(host: Host, picture: Picture) -> dict[str, str]:
    from os import uname  # the only question to this machine that no sysfs answers

    name = uname().nodename if host.kind == "local" else host.name
    return {"host": name[:200], "node": picture.primary.node, "primary": picture.primary.address}


def _of_the_device(host: Host, queue: AdminQueue, picture: Picture) -> Facts:
    """Return what every function of the controlling one has alike."""
    primary = picture.primary
    identity = IdentifyController(execute(queue, identify.controller()).data)
    facts: Facts = {
        "identity.vendor_id": primary.vendor_id,
        "identity.subsystem_vendor_id": primary.subsystem_vendor_id,
        "identity.model": primary.model,
        "identity.firmware": primary.firmware,
        "identity.nvme_version": primary.nvme_version,
        "host.kernel": host.facts().kernel_release,
    }
    return (
        facts | _capabilities(picture, identity) | _limits(host, picture, identity) | _features(host, picture, identity)
    )


def _capabilities(picture: Picture, identity: IdentifyController) -> Facts:
    formats, tracking = picture.primary.state_formats, picture.primary.tracking
    versions = sorted(set(formats.versions)) if formats else []
    uuids = sorted(set(formats.vendor_uuids)) if formats else []
    return {
        "capabilities.live_migration": picture.primary.live_migration and bool(versions or uuids),
        "capabilities.state_versions": versions,
        "capabilities.vendor_formats": uuids,
        "capabilities.nvm_commands": _bits(identity.oncs),
        "capabilities.attributes": _bits(identity.ctratt),
        "capabilities.events": _bits(identity.oaes),
        "capabilities.sgl": identity.sgls,
        "capabilities.write_cache": identity.write_cache,
        "tracking.memory": tracking.memory,
        "tracking.user_data": tracking.user_data,
        "tracking.memory_ranges": tracking.memory_ranges,
        "tracking.smallest_granularity_bytes": tracking.smallest_granularity_bytes,
    }


def _bits(value: int) -> list[int]:
    return [bit for bit in range(value.bit_length()) if value >> bit & 1]


def _limits(host: Host, picture: Picture, identity: IdentifyController) -> Facts:
    facts: Facts = {
        "limits.max_transfer_bytes": picture.primary.max_transfer_bytes,
        "limits.sq_entry_bytes": [1 << (identity.sqes & 0xF), 1 << (identity.sqes >> 4)],
        "limits.cq_entry_bytes": [1 << (identity.cqes & 0xF), 1 << (identity.cqes >> 4)],
        "limits.page_bytes": _PAGE_BYTES,
        "limits.outstanding_commands": identity.maxcmd,
        "limits.largest_nsid": identity.nn,
    }
    entries = _read_number(host, f"class/nvme/{picture.primary.node}/sqsize")
    return facts | ({"limits.queue_entries": entries + 1} if entries is not None else {})


def _features(host: Host, picture: Picture, identity: IdentifyController) -> Facts:
    attributes = host.sysfs.listdir(f"class/nvme/{picture.primary.node}")
    device = _read_number(host, f"{pci.DEVICES}/{picture.primary.address}/sriov_vf_device", 16)
    facts: Facts = {
        "features.host_memory_buffer": identity.hmpre != 0,
        "features.doorbell_buffer": bool(identity.oacs >> 8 & 1),
    }
    if "cmb" in attributes or (attributes and _shows_every_cmb(host)):
        facts["features.controller_memory_buffer"] = "cmb" in attributes
    return facts | ({"identity.vf_device_id": device} if device is not None else {})


_MOST_OF_A_VERSION = 9999
_U64 = (1 << 64) - 1
_WORDS_OF_A_REGION = 3  # its first and last address, and its flags


def _shows_every_cmb(host: Host) -> bool:
    """Return whether a controller without ``cmb`` has none: Linux before 5.16 showed only one that it could map."""
    major, _, rest = host.facts().kernel_release.partition(".")
    minor = re.match(r"[0-9]{1,4}", rest)
    number = decimal(major, most=_MOST_OF_A_VERSION)
    return number is not None and minor is not None and (number, int(minor[0])) >= _SHOWS_EVERY_CMB


def _read_number(host: Host, path: str, base: Literal[10, 16] = 10) -> int | None:
    return pci.read_int(host.sysfs, path, base) if host.sysfs.exists(path) else None


def _bars(host: Host, picture: Picture, vf: pci.Bdf | None) -> Facts:
    """Return the sizes of a VF's BARs, and what follows of a Persistent Memory Region.

    A VF has them in its own ``resource``; before it is there, its PF has them, all VFs' in one.
    """
    path = f"{(vf or pci.Bdf.parse(picture.primary.address)).path}/resource"
    sizes = _region_sizes(host.sysfs.read(path)) if host.sysfs.exists(path) else []
    if vf is None:
        total = max(1, picture.primary.vfs_total)
        sizes = [size // total for size in sizes[_FIRST_VF_RESOURCE:]]
    if len(sizes) < _BARS:
        return {}
    sizes = sizes[:_BARS]
    facts: Facts = {"limits.vf_bar_bytes": [*sizes]}
    if not any(sizes[_FIRST_BAR_OF_A_PMR:]):
        facts["features.persistent_memory_region"] = False
    return facts


def _region_sizes(text: str) -> list[int]:
    sizes = []
    for line in text.splitlines():
        words = [hexadecimal(word, most=_U64) for word in line.split()]
        numbers = [word for word in words if word is not None]
        if len(numbers) != len(words) or len(numbers) != _WORDS_OF_A_REGION:
            return []
        first, last, flags = numbers
        sizes.append(last - first + 1 if flags and last >= first else 0)
    return sizes


def _translated(host: Host, group: int | None) -> bool:
    if host.sysfs.exists(_NO_IOMMU_MODE) and host.sysfs.read(_NO_IOMMU_MODE) == "Y":
        return False
    return group is not None and not pci.without_iommu(host.sysfs, group)


def _namespaces(queue: AdminQueue, *, cntlid: int, wanted: Iterable[int] | None = None) -> Facts:
    """Return the namespaces attached to a controller, or those that are to be; nothing when it cannot be told."""
    try:
        known, describe = _known(queue)
        ids = _checked(wanted, known) if wanted is not None else _attached(queue, known, cntlid)
        described = [IdentifyNamespace(execute(queue, describe(nsid)).data) for nsid in ids]
        names = [_names(queue, nsid, namespace) for nsid, namespace in zip(ids, described, strict=True)]
    except AdminCommandError:
        return {}
    return {
        "namespaces.ids": ids,
        "namespaces.blocks": [namespace.nsze for namespace in described],
        "namespaces.block_bytes": [namespace.block_bytes for namespace in described],
        "namespaces.metadata_bytes": [namespace.metadata_bytes for namespace in described],
        "namespaces.metadata_extended": [int(namespace.metadata_extended) for namespace in described],
        "namespaces.protection": [namespace.dps for namespace in described],
        "namespaces.features": [namespace.nsfeat for namespace in described],
        "namespaces.shared": [namespace.nmic & 1 for namespace in described],
        "namespaces.write_protected": [int(namespace.write_protected) for namespace in described],
        "namespaces.nguid": [identifiers[IdType.NGUID].hex() for identifiers in names],
        "namespaces.eui64": [identifiers[IdType.EUI64].hex() for identifiers in names],
        "namespaces.uuid": [str(UUID(bytes=identifiers[IdType.UUID])) for identifiers in names],
        "namespaces.identified": all(any(map(any, identifiers.values())) for identifiers in names),
    }


def _names(queue: AdminQueue, nsid: int, described: IdentifyNamespace) -> dict[IdType, bytes]:
    """Return the identifiers of a namespace, zeros for those it does not have.

    Each may stand in Identify Namespace or in its own descriptor, which a controller answers for namespaces that are
    attached to it: of others the controlling function may not tell the UUID.
    """
    names = {IdType.NGUID: bytes(described.nguid), IdType.EUI64: bytes(described.eui64)}
    page = optional.data(queue, identify.namespace_identifiers(nsid), without={StatusCode.INVALID_NAMESPACE_OR_FORMAT})
    listed = parse_descriptors(page) if page is not None else {}
    return {
        kind: value if any(value := names.get(kind, b"")) else listed.get(kind, bytes(length))
        for kind, length in LENGTHS.items()
    }


def _known(queue: AdminQueue) -> tuple[list[int], Callable[[int], AdminCommand]]:
    """Return the ids of the namespaces that are there, and the command that describes one."""
    try:
        return listing.all_allocated_namespaces(queue), identify.allocated_namespace
    except AdminCommandError:  # no namespace management: what this controller sees is what there is
        return listing.all_active_namespaces(queue), identify.namespace


def _attached(queue: AdminQueue, known: Sequence[int], cntlid: int) -> list[int]:
    return [nsid for nsid in known if cntlid in listing.all_attached_controllers(queue, nsid, cntlid)[:1]]


def _checked(wanted: Iterable[int], known: Sequence[int]) -> list[int]:
    ids = sorted(set(wanted))
    lost = [nsid for nsid in ids if nsid not in known]
    if lost:
        listed = ", ".join(map(str, known[:16])) or "none"
        raise UsageError(
            f"there is no namespace {lost[0]}", cause=f"the subsystem has {listed}", fix="nvme list-ns --all"
        )
    return ids
