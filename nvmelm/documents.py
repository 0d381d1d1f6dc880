"""What operators see besides the picture of a function: lists, checks, and what was left unfinished.

Every model is a JSON document or a part of one: snake_case, integers as integers, units in names. What every verb
needs, models or not, stands in :mod:`nvmelm.inventory.picture`, and can be had from here as well.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from nvmelm.inventory.picture import (
    ActionView,
    ChangeReport,
    Mark,
    Picture,
    Primary,
    Resources,
    Role,
    Secondary,
    StateFormats,
    Tracking,
)

__all__ = [
    "ActionView",
    "ChangeReport",
    "Document",
    "Finding",
    "HostCheck",
    "Mark",
    "Part",
    "Picture",
    "Primary",
    "PrimaryList",
    "PrimarySummary",
    "RecoverReport",
    "Resources",
    "Role",
    "Secondary",
    "SessionView",
    "StateFormats",
    "Tracking",
    "Unfinished",
]


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
    live_migration: bool | None = Field(description="null when it could not be asked (not root, or see problem)")
    problem: str = Field(default="", description="why it could not be asked; empty: it was, or only root may")
    exit_code: int = Field(default=0, description="what asking it alone would end with")


class PrimaryList(Document):
    """Controlling functions of a host."""

    schema_name = "nvmelm.list"

    host: str
    primaries: tuple[PrimarySummary, ...]


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
    reason: str = Field(default="", description="the stable word of why it is undecided, or empty; docs/codes.md")
    resolved: bool = Field(description="nothing is left to be decided here")


class RecoverReport(Document):
    """What was left unfinished on this host, and what was done about it."""

    schema_name = "nvmelm.recover"

    changed: bool
    dry_run: bool
    unfinished: tuple[Unfinished, ...]
    notes: tuple[str, ...] = ()
    sessions: tuple[SessionView, ...] = Field(default=(), description="migrations between two hosts")
