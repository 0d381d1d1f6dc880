"""What operators see: controlling functions, their controlled functions, resources and marks, in plain words.

Every model is a JSON document or a part of one: snake_case, integers as integers, units in names. The wire acronyms end
here; the translation happens once, in :mod:`nvmelm.discovery`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field


class Part(BaseModel):
    """A part of a document: immutable, and nothing in it is unknown."""

    # Built when first used: a verb answers with one or two of these, and every start would pay for all.
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Document(Part):
    """A whole answer of a verb; carries its schema's name and version."""

    schema_name: ClassVar[str]
    schema_version: ClassVar[int] = 1

    def to_json(self) -> dict[str, Any]:
        """Return the document with its ``schema`` and ``version`` in front."""
        body = self.model_dump(mode="json")
        return {"schema": self.schema_name, "version": self.schema_version, **body}


class Role(StrEnum):
    """What a marked VF may take part in."""

    MIGRATABLE = "migratable"
    RESUMABLE = "resumable"


class Resources(Part):
    """Flexible resources of one type (VQ or VI) as the primary controller reports them; counts."""

    supported: bool
    flexible_total: int = Field(description="flexible resources, primary and secondaries together")
    assigned_to_secondaries: int
    allocated_to_primary: int
    private_to_primary: int
    secondary_maximum: int = Field(description="most that one secondary may get")
    granularity: int = Field(description="preferred granularity of an assignment")

    @property
    def free(self) -> int:
        """Return how many can still be assigned; never negative, whatever the device reports."""
        return max(0, self.flexible_total - self.assigned_to_secondaries - self.allocated_to_primary)


class StateFormats(Part):
    """Controller state formats a device can give and take (Identify, CNS 20h)."""

    versions: tuple[int, ...]
    vendor_uuids: tuple[str, ...]


class Tracking(Part):
    """What a device can track while a controller runs (Identify Controller, TRATTR and the fields around it)."""

    memory: bool = Field(description="Track Memory Changes is supported")
    user_data: bool = Field(description="Log User Data Changes is supported; it needs a Controller Data Queue")
    memory_ranges: int
    smallest_granularity_bytes: int
    largest_granularity_bytes: int
    power_of_two_lengths: bool
    user_data_queues: int


class Primary(Part):
    """A controlling function: the PF and the primary controller behind it."""

    node: str = Field(description="kernel name, nvme0; it may be another one after a reboot")
    address: str = Field(description="PCI address of the PF")
    serial: str
    model: str
    firmware: str
    nqn: str
    vendor_id: int
    subsystem_vendor_id: int
    cntlid: int
    nvme_version: str
    live_migration: bool = Field(description="Host Managed Live Migration (OACS bit 11)")
    virtualization_management: bool
    max_transfer_bytes: int = Field(description="most bytes one command carries, by the device's MDTS; 0: no limit")
    state_formats: StateFormats | None
    tracking: Tracking
    vq: Resources | None
    vi: Resources | None
    vfs_total: int
    vfs_enabled: int
    drivers_autoprobe: bool | None


class Mark(Part):
    """nvmelm's own permission for one controlled function, and whether it still holds."""

    role: Role
    holds: bool
    broken_by: tuple[str, ...] = Field(default=(), description="why the mark does not hold any more")
    given_at: str
    given_by: str
    expires_at: str | None
    facts_digest: str


class Secondary(Part):
    """A controlled function: a secondary controller joined with its VF, as far as it exists."""

    cntlid: int
    primary_cntlid: int
    vf_number: int = Field(description="1-based; 0: not a virtual function")
    state: str = Field(description="online, offline, or the raw value in hexadecimal")
    online: bool
    vq: int
    vi: int
    address: str | None = Field(description="PCI address of the VF, also before it is enabled")
    present: bool = Field(description="the VF is enabled")
    driver: str | None
    driver_override: str
    iommu_group: int | None
    vfio_node: str | None = Field(description="the group's device node, /dev/vfio/N")
    vfio_device: str | None
    controller_node: str | None = Field(description="nvmeN while the kernel's nvme driver owns the VF")
    incarnation: int = Field(description="changes when the VF is removed and made anew; 0: not present")
    used_by: tuple[str, ...] = Field(description="who has the VF in use: processes, mounts, holders")
    mark: Mark | None = None


class Picture(Document):
    """A controlling function with its controlled functions: CNTLID, VF number, BDF, group, driver and VFIO node."""

    schema_name = "nvmelm.primary"

    primary: Primary
    secondaries: tuple[Secondary, ...]

    def secondary(self, cntlid: int) -> Secondary | None:
        """Return the secondary controller with an id, or None."""
        return next((one for one in self.secondaries if one.cntlid == cntlid), None)


class PrimarySummary(Part):
    """One line of ``nvmelm list``."""

    node: str
    address: str
    serial: str
    model: str
    firmware: str
    cntlid: int | None
    vfs_total: int
    vfs_enabled: int
    live_migration: bool | None = Field(description="null when it could not be asked (not root)")


class PrimaryList(Document):
    """Controlling functions of a host."""

    schema_name = "nvmelm.list"

    host: str
    primaries: tuple[PrimarySummary, ...]


class ActionView(Part):
    """One change of a plan: what it does, in words and as the exact writes and commands."""

    step: str
    summary: str
    operations: tuple[str, ...] = Field(default=(), description="exact writes and commands; of a plan only")


class ChangeReport(Document):
    """The outcome of a changing verb, or its plan."""

    schema_name = "nvmelm.change"

    verb: str
    primary: str = Field(description="PCI address of the PF")
    dry_run: bool
    changed: bool
    actions: tuple[ActionView, ...]
    notes: tuple[str, ...] = ()
    picture: Picture | None = None


class Finding(Part):
    """One answer of ``nvmelm host check``."""

    code: str
    level: Literal["ok", "warning", "problem"]
    message: str
    fix: str = ""


class HostCheck(Document):
    """Whether a host, and a PF on it, can take part in a live migration."""

    schema_name = "nvmelm.host_check"

    host: str
    kernel: str
    primary: str | None
    ready: bool = Field(description="no finding is a problem")
    findings: tuple[Finding, ...]


class Unfinished(Part):
    """A run of a verb that did not end by itself."""

    run: str
    verb: str
    primary: str
    started_at: str
    boot: Literal["this", "earlier"]
    meaning: str
    undo: tuple[ActionView, ...]
    finish: tuple[ActionView, ...]


class SessionView(Part):
    """A migration that was cut off, as this host has written it down."""

    session: str = Field(description="32 hexadecimal digits, the same on both hosts")
    side: Literal["source", "destination"]
    state: str = Field(description="what this host had written when recover began; docs/ownership.md")
    settled: str | None = Field(description="what it has written now; null: nothing was decided")
    peer: str = Field(description="where the other host is reached, or empty")
    peer_state: str | None = Field(description="what the other host has written; null: it could not be asked")
    primary: str
    cntlids: tuple[int, ...]
    opened_at: str
    meaning: str
    note: str = ""
    resolved: bool = Field(description="nothing is left to be decided here")


class RecoverReport(Document):
    """What was left unfinished on this host, and what was done about it."""

    schema_name = "nvmelm.recover"

    changed: bool
    dry_run: bool
    unfinished: tuple[Unfinished, ...]
    notes: tuple[str, ...] = ()
    sessions: tuple[SessionView, ...] = Field(default=(), description="migrations between two hosts")
