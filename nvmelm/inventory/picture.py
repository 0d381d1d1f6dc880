"""A controlling function as operators see it, its controlled functions, and what was changed about them.

The wire acronyms end here; the translation happens once, in :mod:`nvmelm.inventory.read`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar

from nvmelm.documents import Record, Report, about


class Role(StrEnum):
    """What a marked VF may take part in."""

    MIGRATABLE = "migratable"
    RESUMABLE = "resumable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources(Record):
    """Flexible resources of one type (VQ or VI) as the primary controller reports them; counts."""

    supported: bool
    flexible_total: int = field(metadata=about("flexible resources, primary and secondaries together"))
    assigned_to_secondaries: int
    allocated_to_primary: int
    private_to_primary: int
    secondary_maximum: int = field(metadata=about("most that one secondary may get"))
    granularity: int = field(metadata=about("preferred granularity of an assignment"))

    @property
    def free(self) -> int:
        """Return how many can still be assigned; never negative, whatever the device reports."""
        return max(0, self.flexible_total - self.assigned_to_secondaries - self.allocated_to_primary)


@dataclass(frozen=True, slots=True, kw_only=True)
class StateFormats(Record):
    """Controller state formats a device can give and take (Identify, CNS 20h)."""

    versions: tuple[int, ...]
    vendor_uuids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracking(Record):
    """What a device can track while a controller runs (Identify Controller, TRATTR and the fields around it)."""

    memory: bool = field(metadata=about("Track Memory Changes is supported"))
    user_data: bool = field(metadata=about("Log User Data Changes is supported; it needs a Controller Data Queue"))
    memory_ranges: int
    smallest_granularity_bytes: int
    largest_granularity_bytes: int
    power_of_two_lengths: bool
    user_data_queues: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Primary(Record):
    """A controlling function: the PF and the primary controller behind it."""

    node: str = field(metadata=about("kernel name, nvme0; it may be another one after a reboot"))
    address: str = field(metadata=about("PCI address of the PF"))
    serial: str
    model: str
    firmware: str
    nqn: str
    vendor_id: int
    subsystem_vendor_id: int
    cntlid: int
    nvme_version: str
    live_migration: bool = field(metadata=about("Host Managed Live Migration (OACS bit 11)"))
    virtualization_management: bool
    max_transfer_bytes: int = field(metadata=about("most bytes one command carries, by the device's MDTS; 0: no limit"))
    state_formats: StateFormats | None
    tracking: Tracking
    vq: Resources | None
    vi: Resources | None
    vfs_total: int
    vfs_enabled: int
    drivers_autoprobe: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark(Record):
    """nvmelm's own permission for one controlled function, and whether it still holds."""

    role: Role
    holds: bool
    broken_by: tuple[str, ...] = field(default=(), metadata=about("why the mark does not hold any more"))
    given_at: str
    given_by: str
    expires_at: str | None
    facts_digest: str

    @property
    def valid_s(self) -> int | None:
        """For how long it was given, in seconds; None: without an end, or times that cannot be read."""
        if self.expires_at is None:
            return None
        from datetime import datetime  # few marks end

        try:
            given, ends = (datetime.fromisoformat(text) for text in (self.given_at, self.expires_at))
            return round((ends - given).total_seconds())
        except (ValueError, TypeError):
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Secondary(Record):
    """A controlled function: a secondary controller joined with its VF, as far as it exists."""

    cntlid: int
    primary_cntlid: int
    vf_number: int = field(metadata=about("1-based; 0: not a virtual function"))
    state: str = field(metadata=about("online, offline, or the raw value in hexadecimal"))
    online: bool
    vq: int
    vi: int
    address: str | None = field(metadata=about("PCI address of the VF, also before it is enabled"))
    present: bool = field(metadata=about("the VF is enabled"))
    driver: str | None
    driver_override: str
    iommu_group: int | None
    vfio_node: str | None = field(metadata=about("the group's device node, /dev/vfio/N"))
    vfio_device: str | None
    controller_node: str | None = field(metadata=about("nvmeN while the kernel's nvme driver owns the VF"))
    incarnation: int = field(metadata=about("changes when the VF is removed and made anew; 0: not present"))
    used_by: tuple[str, ...] = field(metadata=about("who has the VF in use: processes, mounts, holders"))
    mark: Mark | None = None
    namespaces: tuple[int, ...] | None = field(
        default=None, metadata=about("ids of the namespaces attached; null: the verb did not ask")
    )
    suspended: bool | None = field(
        default=None, metadata=about("its state says that it stands still; null: not asked, or the device does not say")
    )
    saved_at: str | None = field(
        default=None, metadata=about("when the state of a suspended one was saved; null: not known")
    )
    with_vm: str = field(
        default="",
        metadata=about("of a function that moves with its VM: where it stands, or that it has left; else empty"),
    )

    @property
    def standing(self) -> str:
        """Return its state as people see it: a suspended controller is online for the device, and does nothing."""
        return "suspended" if self.suspended else self.state

    @property
    def idle(self) -> bool:
        """Return whether nothing was done to it: not enabled, offline, without resources and without a mark."""
        return not (self.present or self.online or self.vq or self.vi or self.mark)


@dataclass(frozen=True, slots=True, kw_only=True)
class MovedAway(Record):
    """A controller that was moved from here to another host."""

    cntlid: int
    to: str = field(metadata=about("the destination, as it was typed"))
    session: str
    at: str = field(default="", metadata=about("when this host wrote down that it is over, UTC"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture(Report):
    """A controlling function with its controlled functions: CNTLID, VF number, BDF, group, driver and VFIO node."""

    schema_name: ClassVar[str] = "nvmelm.primary"

    primary: Primary
    secondaries: tuple[Secondary, ...]
    suspension_unknown: str | None = field(
        default=None,
        metadata=about("why it is not known which controllers are suspended; null: it is, or none can be"),
    )
    moved: tuple[MovedAway, ...] = field(
        default=(), metadata=about("offline ones that were moved to another host; of what is shown to people only")
    )

    def secondary(self, cntlid: int) -> Secondary | None:
        """Return the secondary controller with an id, or None."""
        return next((secondary for secondary in self.secondaries if secondary.cntlid == cntlid), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionView(Record):
    """One change of a plan: what it does, in words and as the exact writes and commands."""

    step: str
    summary: str
    operations: tuple[str, ...] = field(default=(), metadata=about("exact writes and commands; of a plan only"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeReport(Report):
    """The outcome of a changing verb, or its plan."""

    schema_name: ClassVar[str] = "nvmelm.change"

    verb: str
    primary: str = field(metadata=about("PCI address of the PF"))
    dry_run: bool
    changed: bool
    actions: tuple[ActionView, ...]
    moved: tuple[MovedAway, ...] = field(
        default=(), metadata=about("moved to another host before, and left as they are")
    )
    notes: tuple[str, ...] = ()
    picture: Picture | None = None
