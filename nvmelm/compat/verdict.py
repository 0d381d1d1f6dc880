"""The verdict: can what is in the source be set in the destination? All reasons at once, each with its two values.

:func:`judge` is a pure function of two manifests and a policy. Missing is incompatible: a fact of the table that one
side does not state blocks, and so does a fact of the source that this version does not know. A destination may offer
more than the source; that is said, and does not block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Literal

from nvmelm.compat.facts import FACTS
from nvmelm.compat.manifest import Level, Manifest
from nvmelm.compat.reasons import EXPORT, UNKNOWN, PolicyUse, Reason, compare
from nvmelm.compat.rules import FactValue, Severity
from nvmelm.documents import Record, Report, about

if TYPE_CHECKING:  # most verdicts need none
    from nvmelm.compat.policy import Policy


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a pair is compatible, why, and of what exactly this was said."""

    compatible: bool
    reasons: tuple[Reason, ...]
    source_digest: str
    destination_digest: str
    policy_digest: str = ""
    policy_uses: tuple[PolicyUse, ...] = ()

    def blocking(self) -> tuple[Reason, ...]:
        """Return the reasons that block."""
        return tuple(reason for reason in self.reasons if reason.severity is Severity.BLOCKS)

    def still_of(self, source: Manifest, destination: Manifest) -> bool:
        """Return whether these are the manifests that were judged: neither has changed since."""
        return (self.source_digest, self.destination_digest) == (source.digest, destination.digest)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasonView(Record):
    """One thing a verdict rests on."""

    code: str
    severity: Severity
    fact: str
    source: FactValue | None = field(metadata=about("null: not known"))
    destination: FactValue | None = field(metadata=about("null: not known"))
    message: str
    fix: str
    policy: str = field(metadata=about("what the site's policy did here, or empty"))


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyUseView(Record):
    """A rule of the site's policy that took part."""

    rule: str = field(metadata=about("its place in the file: allow[1]"))
    action: Literal["relaxed", "held", "broken"]
    fact: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EndView(Record):
    """One of the two that were compared."""

    level: Level
    digest: str
    subject: dict[str, str]
    labels: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictDocument(Report):
    """Whether a state of the source can be set in the destination, with every reason at once."""

    schema_name = "nvmelm.verdict"

    compatible: bool = field(metadata=about("no reason blocks"))
    source_digest: str
    destination_digest: str
    policy_digest: str = field(metadata=about("of the policy's bytes, or empty"))
    source: EndView
    destination: EndView
    reasons: tuple[ReasonView, ...] = field(metadata=about("those that block first"))
    policy_uses: tuple[PolicyUseView, ...]


def document(verdict: Verdict, source: Manifest, destination: Manifest) -> VerdictDocument:
    """Return a verdict with the two it was given on: what ``nvmelm compat check`` prints."""
    return VerdictDocument(
        compatible=verdict.compatible,
        source_digest=verdict.source_digest,
        destination_digest=verdict.destination_digest,
        policy_digest=verdict.policy_digest,
        source=_end(source),
        destination=_end(destination),
        reasons=tuple(ReasonView(**asdict(reason)) for reason in verdict.reasons),
        policy_uses=tuple(PolicyUseView(**asdict(use)) for use in verdict.policy_uses),
    )


def _end(manifest: Manifest) -> EndView:
    return EndView(
        level=manifest.level,
        digest=manifest.digest,
        subject=dict(manifest.subject),
        labels=dict(manifest.labels),
    )


def judge(source: Manifest, destination: Manifest, policy: Policy | None = None) -> Verdict:
    """Compare two manifests by the table of facts, then by the site's policy."""
    reasons = list(_reasons(source, destination))
    uses: tuple[PolicyUse, ...] = ()
    if policy is not None:
        reasons, uses = policy.apply(source, destination, reasons)
    order = list(Severity)
    reasons.sort(key=lambda reason: order.index(reason.severity))
    return Verdict(
        compatible=not any(reason.severity is Severity.BLOCKS for reason in reasons),
        reasons=tuple(reasons),
        source_digest=source.digest,
        destination_digest=destination.digest,
        policy_digest=policy.digest if policy is not None else "",
        policy_uses=uses,
    )


def _reasons(source: Manifest, destination: Manifest) -> Iterator[Reason]:
    for fact in FACTS.values():
        reason = compare(fact, source.facts.get(fact.name), destination.facts.get(fact.name))
        if reason is not None:
            yield reason
    yield from _unknown(source, destination)


def _unknown(source: Manifest, destination: Manifest) -> Iterator[Reason]:
    """Block on what the source has and nobody here can judge; what only the destination has harms nobody."""
    for name in sorted({*source.facts, *destination.facts} - FACTS.keys()):
        mine, other = source.facts.get(name), destination.facts.get(name)
        severity = Severity.INFORMS if mine is None else Severity.BLOCKS
        side = "destination" if mine is None else "source"
        message = f"this version of nvmelm does not know {name}, which the {side} states"
        yield Reason(UNKNOWN, severity, name, mine, other, message, EXPORT)
