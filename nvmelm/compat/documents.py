"""The shape of what ``nvmelm compat export`` and ``check`` print with ``--json``; its JSON Schemas are made from here.

The verbs print :meth:`Manifest.to_json <nvmelm.compat.manifest.Manifest.to_json>` and :meth:`Judged.to_json
<nvmelm.compat.verdict.Judged.to_json>`, which need no models: these would cost more than the whole verdict. A test
proves that the two agree.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from nvmelm.compat.rules import Severity
from nvmelm.documents import Document, Part
from nvmelm.inventory.picture import ActionView

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


class TokenDocument(Document):
    """The opaque version string of a function."""

    schema_name = "nvmelm.token"

    token: str = Field(description="ASCII, at most 4096 characters")
    level: Literal["device", "type"] = Field(description="type: of a function to come")
    digest: str = Field(description="of the manifest the string carries")


class TokenTestDocument(Document):
    """Whether a source's version string was accepted."""

    schema_name = "nvmelm.token_test"

    accepted: bool
    errno: int = Field(description="0 when it was accepted")
    errno_name: str
    why: str = Field(description="for the log; empty when it was accepted")


class StepReason(Part):
    """What stands against a step, or should be known of it."""

    code: str
    severity: Severity
    message: str


class StepView(Part):
    """One step of a comparison."""

    step: int
    name: str
    rule: str
    passed: bool
    reasons: list[StepReason]


class StepsDocument(Document):
    """A comparison step by step."""

    schema_name = "nvmelm.steps"

    compatible: bool
    source_digest: str
    destination_digest: str
    steps: list[StepView]


class MigrationInfoDocument(Document):
    """A destination's models and parameters, as the proposal's migration_info.json has them."""

    schema_name = "nvmelm.migration_info"

    models: dict[str, dict[str, dict[str, dict[str, bool | int | str | list[bool | int | str]]]]]


class ParameterListDocument(Document):
    """A source's model, and every parameter of it that is not switched off."""

    schema_name = "nvmelm.parameter_list"

    model: str
    params: dict[str, bool | int | str]


class ParameterCheckDocument(Document):
    """Whether a source's list fits a destination."""

    schema_name = "nvmelm.parameter_check"

    compatible: bool
    reasons: list[str]
    to_set: dict[str, bool | int | str] = Field(description="what compat parameters apply would write, each once")


class ParameterApplyDocument(Document):
    """What was written to a destination."""

    schema_name = "nvmelm.parameter_apply"

    changed: bool
    dry_run: bool
    written: dict[str, bool | int | str]
    actions: list[ActionView] = Field(description="the changes, in order; of a plan with its exact commands")


class MatchGroup(Part):
    """Sources for which the same destinations come into question."""

    sources: list[str]
    destinations: list[str]
    destinations_left_out: int = Field(description="how many more can take them than are listed; 0: all are")


class MatchPair(Part):
    """Who goes where."""

    source: str
    destination: str


class MatchReason(Part):
    """What stands between a source and its nearest destination."""

    code: str
    fact: str
    message: str


class MatchLeft(Part):
    """A source without a place."""

    source: str
    why: Literal["nothing-fits", "labels", "no-room"]
    nearest: str
    reasons: list[MatchReason] = Field(description="of nothing-fits only")
    reasons_left_out: int = Field(description="how many more there are; compat check of the two says all")


class MatchLeftOut(Part):
    """What is not in the document, so that it stays of a size that can be used; all 0: it is complete."""

    destinations: int = Field(description="in all groups together")
    reasons: int
    unreadable: int
    repeated: int


class MatchDocument(Document):
    """Which destinations of a fleet can take which sources, and a proposal who goes where."""

    schema_name = "nvmelm.match"

    sources: int
    source_profiles: int = Field(description="kinds of sources: those with the same facts are one")
    destinations: int
    destination_profiles: int
    groups: list[MatchGroup]
    assignment: list[MatchPair]
    unplaced: list[MatchLeft]
    unreadable: list[str] = Field(description="lines and files that cannot be used, each with why")
    repeated: list[str] = Field(description="manifests of a function that is in the fleet already; it counts once")
    left_out: MatchLeftOut
