"""The shape of what ``nvmelm compat export`` and ``check`` print with ``--json``; its JSON Schemas are made from here.

The verbs print :meth:`Manifest.to_json <nvmelm.compat.manifest.Manifest.to_json>` and :meth:`Judged.to_json
<nvmelm.compat.verdict.Judged.to_json>`, which need no models: these would cost more than the whole verdict. A test
proves that the two agree.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from nvmelm.compat.rules import Severity
from nvmelm.model import Document, Part

Value = bool | int | str | list[int] | list[str]


class ManifestDocument(Document):
    """What a controlled function is, or would be."""

    schema_name = "nvmelm.manifest"

    level: Literal["device", "prospective"] = Field(description="prospective: the function is not there yet")
    digest: str = Field(description="sha256: and 64 hexadecimal digits, over the facts alone")
    subject: dict[str, str] = Field(description="who this is, for people; no serial number")
    labels: dict[str, str] = Field(description="what a site says of it: rack, site, …")
    facts: dict[str, Value] = Field(description="by name; what could not be known is not there")


class ReasonView(Part):
    """One thing a verdict rests on."""

    code: str
    severity: Severity
    fact: str
    source: Value | None = Field(description="null: not known")
    destination: Value | None = Field(description="null: not known")
    message: str
    fix: str
    policy: str = Field(description="what the site's policy did here, or empty")


class PolicyUseView(Part):
    """A rule of the site's policy that took part."""

    rule: str = Field(description="its place in the file: allow[1]")
    action: Literal["relaxed", "held", "broken"]
    fact: str
    why: str


class EndView(Part):
    """One of the two that were compared."""

    level: Literal["device", "prospective"]
    digest: str
    subject: dict[str, str]
    labels: dict[str, str]


class VerdictDocument(Document):
    """Whether a state of the source can be set in the destination, with every reason at once."""

    schema_name = "nvmelm.verdict"

    compatible: bool = Field(description="no reason blocks")
    source_digest: str
    destination_digest: str
    policy_digest: str = Field(description="of the policy's bytes, or empty")
    source: EndView
    destination: EndView
    reasons: tuple[ReasonView, ...] = Field(description="those that block first")
    policy_uses: tuple[PolicyUseView, ...]
