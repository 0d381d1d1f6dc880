"""IOMMU groups: what a VM gets is a whole group, so its other functions decide whether a VF can be given away.

VFIO gives a group out when none of its functions is owned by a driver of the host that does DMA, and one process only
opens it. So the controlling function, which the nvme driver has to keep, must be in another group than its VFs, and VFs
that share a group go to one VM.

Sources: Linux Documentation/driver-api/vfio.rst, "Groups, Devices, and IOMMUs"; drivers/iommu/iommu.c,
iommu_group_claim_dma_owner.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from nvmelm.host import Sysfs
from nvmelm.inventory import pci
from nvmelm.inventory.pci import Bdf
from nvmelm.inventory.picture import Picture, Secondary

#: Drivers that may keep a function of a group the VM gets another one of: they let it do no DMA.
_HARMLESS_DRIVERS = (None, pci.VFIO_DRIVER, "pcieport", "pci-stub")

_ACS = "put the controller into a slot whose root port has ACS, or into another host"


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why no VM can take a group: as a clause that follows the VFs' names, as a cause, and what to do about it."""

    text: str
    cause: str
    fix: str


def obstacle(sysfs: Sysfs, pf: Bdf, group: int, *, bound: Collection[str] = ()) -> Obstacle | None:
    """Return what keeps a group of this PF's VFs from every VM, or None.

    Args:
        bound: functions that are VFIO's, or are about to be.
    """
    if pci.without_iommu(sysfs, group):
        text = "has no IOMMU before it: VFIO runs in its mode without one, which no VM can use"
        fix = "switch the IOMMU on and enable_unsafe_noiommu_mode off; nvmelm host check tells how"
        return Obstacle(text, f"it {text}", fix)
    others = [member for member in pci.group_members(sysfs, group) if str(member) not in bound]
    owned = {member: driver for member in others if (driver := _owner(sysfs, member))}
    if pf in owned:
        text = f"shares IOMMU group {group} with its PF {pf}, which has to stay on this host"
        return Obstacle(text, f"it {text}", _ACS)
    if not owned:
        return None
    text = ", ".join(f"{member}, which {driver} drives" for member, driver in owned.items())
    cause = "; ".join(f"{member} is driven by {driver}" for member, driver in owned.items())
    return Obstacle(f"shares IOMMU group {group} with {text}", cause, _freed(sysfs, pf, list(owned)))


def _owner(sysfs: Sysfs, member: Bdf) -> str | None:
    """Return the driver that keeps a function, and with it its group, for the host."""
    driver = pci.driver(sysfs, member)
    return None if driver in _HARMLESS_DRIVERS or pci.is_vfio(sysfs, member, driver) else driver


def _freed(sysfs: Sysfs, pf: Bdf, owned: Sequence[Bdf]) -> str:
    """Return what frees a group of functions that the host owns: VFs by nvmelm, others by who knows what they are."""
    names = [str(member) for member in owned]
    if all(pci.physical_function(sysfs, member) == pf for member in owned):
        return f"nvmelm vfio bind {' '.join(names)}"
    return f"bind {', '.join(names)} to vfio-pci or pci-stub too if nobody needs it, or {_ACS}"


def notes(sysfs: Sysfs, picture: Picture, chosen: Sequence[Secondary]) -> tuple[str, ...]:
    """Return what to know of the groups of some VFs before they are given to VMs; empty: each is alone in its own."""
    return tuple(_notes(sysfs, picture, {secondary.cntlid for secondary in chosen}))


def _notes(sysfs: Sysfs, picture: Picture, chosen: set[int]) -> Iterator[str]:
    pf = Bdf.parse(picture.primary.address)
    bound = {str(secondary.address) for secondary in picture.secondaries if secondary.cntlid in chosen}
    for group in sorted(
        {secondary.iommu_group for secondary in picture.secondaries if secondary.iommu_group is not None}
    ):
        members = [secondary for secondary in picture.secondaries if secondary.iommu_group == group]
        if not any(secondary.cntlid in chosen for secondary in members):
            continue
        names = ", ".join(str(secondary.address) for secondary in members)
        problem = obstacle(sysfs, pf, group, bound=bound)
        if problem is not None:
            yield f"no VM can take {names}: {problem.text}; {problem.fix}"
        elif len(members) > 1:
            yield f"{names} are in one IOMMU group, {group}: they can only go to one VM, together"
