"""The lines of ``nvmelm watch``: an envelope with a number, and one part that is named as its kind."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from nvmelm.documents import Document, Part

Kind = Literal[
    "started",
    "uevent",
    "primary",
    "controller",
    "mark",
    "session",
    "manifest",
    "overrun",
    "trouble",
    "ended",
]
Value = str | int | bool | list[int] | list[str] | None


class Started(Part):
    """The first line: which host is watched."""

    host: str
    nvmelm: str
    kernel: str
    boot: str


class UeventPart(Part):
    """What the kernel said."""

    seqnum: int = Field(description="the kernel's own number; uevents of other subsystems leave gaps")
    action: str = Field(description="add, remove, change, bind, unbind, …")
    subsystem: Literal["pci", "nvme", "vfio", "vfio-dev"]
    device: str = Field(description="path below /sys")
    address: str | None = Field(description="PCI address of the function it is about; null for a group's node")
    properties: dict[str, str] = Field(description="the other keys, as the kernel wrote them")


class MarkState(Part):
    """A mark as it is now."""

    role: Literal["migratable", "resumable"]
    holds: bool
    broken_by: tuple[str, ...]
    expires_at: str | None


class ControllerState(Part):
    """A controlled function as it is now."""

    cntlid: int
    vf_number: int
    address: str | None
    present: bool
    state: str
    vq: int
    vi: int
    driver: str | None
    iommu_group: int | None
    vfio_node: str | None
    used_by: tuple[str, ...] = Field(description="who has the VF in use, as it was last asked")
    mark: MarkState | None
    manifest: str | None = Field(description="digest of its manifest; null while it is not enabled and online")
    suspended: bool | None = Field(default=None, description="as it was last asked; null: not known")


class PrimaryPart(Part):
    """A controlling function that is there, has changed, or has gone."""

    what: Literal["there", "changed", "gone"]
    address: str
    node: str
    serial: str
    before: dict[str, Value] = Field(default={}, description="what has changed, as it was")
    after: dict[str, Value] = Field(default={}, description="what has changed, as it is")
    controllers: tuple[ControllerState, ...] = Field(default=(), description="all of them, where it is there")


class ControllerPart(Part):
    """A controlled function that has changed."""

    primary: str
    cntlid: int
    address: str | None
    before: dict[str, Value]
    after: dict[str, Value]


class MarkPart(Part):
    """A mark that was given, taken back, or holds no longer."""

    what: Literal["given", "revoked", "expired", "broken", "mended"]
    primary: str
    cntlid: int
    address: str | None
    role: Literal["migratable", "resumable"]
    broken_by: tuple[str, ...] = ()
    given_by: str
    expires_at: str | None


class SessionPart(Part):
    """A session's next state, as this host wrote it down."""

    id: str
    side: Literal["source", "destination"]
    before: str | None = Field(description="null: it began, or was there when the watch began")
    state: str
    since: str = Field(description="when that was written")
    over: bool = Field(description="nothing is left to be decided here")
    peer: str
    primary: str
    cntlids: tuple[int, ...]


class ManifestPart(Part):
    """A manifest that is another: what was concluded from the old one is stale."""

    primary: str
    cntlid: int
    address: str | None
    old: str | None = Field(description="digest; null: it was not enabled and online")
    new: str | None


class Overrun(Part):
    """Something was lost on the way; of uevents, everything is looked at again and said as it is."""

    of: Literal["uevents", "programs"]
    lost: int | None = Field(description="how many; null: the kernel does not say")


class Trouble(Part):
    """A look that failed or hangs, or works again; until then what is known of the function is old."""

    primary: str | None = Field(description="null: the host's list of functions, its sessions, or the file of metrics")
    over: bool
    message: str = ""
    cause: str = ""
    fix: str = ""
    reason: str = ""


class Ended(Part):
    """The last line: why there are no more."""

    why: Literal["interrupted", "terminated", "time"]


class WatchLine(Document):
    """One line of the stream; of the parts only the one that its kind names is there."""

    schema_name = "nvmelm.watch"

    number: int = Field(description="1 for the first line; a gap was lost on the way to the reader")
    at: str = Field(description="UTC")
    kind: Kind
    started: Started | None = None
    uevent: UeventPart | None = None
    primary: PrimaryPart | None = None
    controller: ControllerPart | None = None
    mark: MarkPart | None = None
    session: SessionPart | None = None
    manifest: ManifestPart | None = None
    overrun: Overrun | None = None
    trouble: Trouble | None = None
    ended: Ended | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the document without the parts that are not there."""
        body = super().to_json()
        return {key: value for key, value in body.items() if value is not None}


Body = (
    Started
    | UeventPart
    | PrimaryPart
    | ControllerPart
    | MarkPart
    | SessionPart
    | ManifestPart
    | Overrun
    | Trouble
    | Ended
)

KINDS: dict[type[Part], Kind] = {
    Started: "started",
    UeventPart: "uevent",
    PrimaryPart: "primary",
    ControllerPart: "controller",
    MarkPart: "mark",
    SessionPart: "session",
    ManifestPart: "manifest",
    Overrun: "overrun",
    Trouble: "trouble",
    Ended: "ended",
}
