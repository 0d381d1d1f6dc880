"""The lines of ``nvmelm watch``: an envelope with a number, and one part that is named as its kind."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from nvmelm.documents import Record, Report, about

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
#: The schema's words for a default that a dataclass has to make anew for each record.
_EMPTY: dict[str, Any] = {"json_schema_extra": {"default": {}}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Started(Record):
    """The first line: which host is watched."""

    host: str
    nvmelm: str
    kernel: str
    boot: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UeventPart(Record):
    """What the kernel said."""

    seqnum: int = field(metadata=about("the kernel's own number; uevents of other subsystems leave gaps"))
    action: str = field(metadata=about("add, remove, change, bind, unbind, …"))
    subsystem: Literal["pci", "nvme", "vfio", "vfio-dev"]
    device: str = field(metadata=about("path below /sys"))
    address: str | None = field(metadata=about("PCI address of the function it is about; null for a group's node"))
    properties: dict[str, str] = field(metadata=about("the other keys, as the kernel wrote them"))


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkState(Record):
    """A mark as it is now."""

    role: Literal["migratable", "resumable"]
    holds: bool
    broken_by: tuple[str, ...]
    expires_at: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerState(Record):
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
    used_by: tuple[str, ...] = field(metadata=about("who has the VF in use, as it was last asked"))
    mark: MarkState | None
    manifest: str | None = field(metadata=about("digest of its manifest; null while it is not enabled and online"))
    suspended: bool | None = field(default=None, metadata=about("as it was last asked; null: not known"))
    with_vm: str = field(
        default="", metadata=about("of a function that moves with its VM: where it stands, or that it has left")
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PrimaryPart(Record):
    """A controlling function that is there, has changed, or has gone."""

    what: Literal["there", "changed", "gone"]
    address: str
    node: str
    serial: str
    before: dict[str, Value] = field(default_factory=dict, metadata=_EMPTY | about("what has changed, as it was"))
    after: dict[str, Value] = field(default_factory=dict, metadata=_EMPTY | about("what has changed, as it is"))
    controllers: tuple[ControllerState, ...] = field(default=(), metadata=about("all of them, where it is there"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerPart(Record):
    """A controlled function that has changed."""

    primary: str
    cntlid: int
    address: str | None
    before: dict[str, Value]
    after: dict[str, Value]


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkPart(Record):
    """A mark that was given, taken back, or holds no longer."""

    what: Literal["given", "revoked", "expired", "broken", "mended"]
    primary: str
    cntlid: int
    address: str | None
    role: Literal["migratable", "resumable"]
    broken_by: tuple[str, ...] = ()
    given_by: str
    expires_at: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionPart(Record):
    """A session's next state, as this host wrote it down."""

    id: str
    side: Literal["source", "destination"]
    before: str | None = field(metadata=about("null: it began, or was there when the watch began"))
    state: str
    since: str = field(metadata=about("when that was written"))
    over: bool = field(metadata=about("nothing is left to be decided here"))
    peer: str
    primary: str
    cntlids: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestPart(Record):
    """A manifest that is another: what was concluded from the old one is stale."""

    primary: str
    cntlid: int
    address: str | None
    old: str | None = field(metadata=about("digest; null: it was not enabled and online"))
    new: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Overrun(Record):
    """Something was lost on the way; of uevents, everything is looked at again and said as it is."""

    of: Literal["uevents", "programs"]
    lost: int | None = field(metadata=about("how many; null: the kernel does not say"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble(Record):
    """A look that failed or hangs, or works again; until then what is known of the function is old."""

    primary: str | None = field(
        metadata=about("null: the host's list of functions, its sessions, or the file of metrics")
    )
    over: bool
    message: str = ""
    cause: str = ""
    fix: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended(Record):
    """The last line: why there are no more."""

    why: Literal["interrupted", "terminated", "time"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchLine(Report):
    """One line of the stream; of the parts only the one that its kind names is there."""

    schema_name = "nvmelm.watch"

    number: int = field(metadata=about("1 for the first line; a gap was lost on the way to the reader"))
    at: str = field(metadata=about("UTC"))
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
        body = Report.to_json(self)  # super() would look for the class that slots=True has replaced
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

KINDS: dict[type[Record], Kind] = {
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
