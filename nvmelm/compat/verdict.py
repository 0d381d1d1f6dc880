"""The verdict: can what is in the source be set in the destination? All reasons at once, each with its two values.

:func:`judge` is a pure function of two manifests and a policy. Missing is incompatible: a fact of the table that one
side does not state blocks, and so does a fact of the source that this version does not know. A destination may offer
more than the source; that is said, and does not block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, cast

from nvmelm.compat.facts import FACTS, RULES, Fact, FactValue, Severity, encode, satisfied, valid
from nvmelm.compat.manifest import Manifest

if TYPE_CHECKING:  # most verdicts need none
    from nvmelm.compat.policy import Policy

__all__ = ["CODES", "Judged", "PolicyUse", "Reason", "Severity", "Verdict", "explanation", "judge"]

SCHEMA = "nvmelm.verdict"
VERSION = 1

MISSING = "fact-missing"
UNKNOWN = "fact-unknown"
MALFORMED = "fact-malformed"
RICHER = "destination-richer"

_EXPORT = "export both manifests again, with one version of nvmelm"

#: Codes that are not of one fact, with what they mean and what to do; the others stand in the table of facts.
CODES: dict[str, tuple[str, str]] = {
    MISSING: ("a manifest lacks a fact, and what is not known is not compatible", _EXPORT),
    UNKNOWN: ("a manifest states a fact that this version does not know", _EXPORT),
    MALFORMED: ("a manifest states a fact in a form it cannot have", _EXPORT),
    RICHER: ("the destination offers more than the source; the guest does not see it before it asks", "nothing to do"),
    "policy-pin": ("the site's policy demands another value", "use a function of the value that is demanded"),
    "policy-require": ("the site's policy has a stricter rule than nvmelm", "use a destination that satisfies it"),
}

_SHOWN_VALUE = 200


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing the verdict rests on.

    Attributes:
        source: the value there; None: not known.
        policy: what the site's policy did here, empty when it did nothing.
    """

    code: str
    severity: Severity
    fact: str
    source: FactValue | None
    destination: FactValue | None
    message: str
    fix: str
    policy: str = ""


@dataclass(frozen=True, slots=True)
class PolicyUse:
    """A rule of the policy that took part in a verdict: its place in the file, what it did, and why it is there."""

    rule: str
    action: str
    fact: str
    why: str


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


@dataclass(frozen=True, slots=True)
class Judged:
    """A verdict with the two it was given on: the whole answer of ``compat check``."""

    verdict: Verdict
    source: Manifest
    destination: Manifest

    def to_json(self) -> dict[str, Any]:
        """Return the document ``nvmelm.verdict``, whose schema is that of :mod:`nvmelm.compat.documents`."""
        verdict = self.verdict
        return {
            "schema": SCHEMA,
            "version": VERSION,
            "compatible": verdict.compatible,
            "source_digest": verdict.source_digest,
            "destination_digest": verdict.destination_digest,
            "policy_digest": verdict.policy_digest,
            "source": _end(self.source),
            "destination": _end(self.destination),
            "reasons": [_fields(one) for one in verdict.reasons],
            "policy_uses": [_fields(one) for one in verdict.policy_uses],
        }


def _end(manifest: Manifest) -> dict[str, Any]:
    whole = manifest.to_json()
    return {key: whole[key] for key in ("level", "digest", "subject", "labels")}


def _fields(one: Reason | PolicyUse) -> dict[str, Any]:
    return {field.name: getattr(one, field.name) for field in fields(one)}


def explanation(code: str) -> tuple[str, str] | None:
    """Return what a reason's code means and what to do; None for a code no verdict can give."""
    if code in CODES:
        return CODES[code]
    fact = next((one for one in FACTS.values() if one.code == code), None)
    return (f"{fact.name}: {fact.meaning}; {demanded(fact)}", fact.fix) if fact else None


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


def compare(fact: Fact, source: FactValue | None, destination: FactValue | None) -> Reason | None:
    """Return what is to be said of one fact of a pair; None when there is nothing."""
    for side, value in (("source", source), ("destination", destination)):
        if value is None:
            message = f"{fact.name} is not known of the {side}"
            return Reason(MISSING, Severity.BLOCKS, fact.name, source, destination, message, _EXPORT)
        if not valid(fact, value):
            message = f"{fact.name} of the {side} is not {fact.kind}"
            return Reason(MALFORMED, Severity.BLOCKS, fact.name, source, destination, message, _EXPORT)
    return _compare(fact, cast("FactValue", source), cast("FactValue", destination))


def _compare(fact: Fact, source: FactValue, destination: FactValue) -> Reason | None:
    if satisfied(fact, source, destination):
        return None if source == destination else _richer(fact, source, destination)
    message = f"{difference(fact.name, source, destination)}; {demanded(fact)}"
    return Reason(fact.code, fact.severity, fact.name, source, destination, message, fact.fix)


def demanded(fact: Fact) -> str:
    """Return what a fact's rule demands, as the second half of a sentence."""
    return f"both must be {' or '.join(fact.allowed)}" if fact.allowed else RULES[fact.rule]


def _richer(fact: Fact, source: FactValue, destination: FactValue) -> Reason:
    message = f"{difference(fact.name, source, destination)}; that is allowed"
    return Reason(RICHER, Severity.INFORMS, fact.name, source, destination, message, "nothing to do")


def _unknown(source: Manifest, destination: Manifest) -> Iterator[Reason]:
    """Block on what the source has and nobody here can judge; what only the destination has harms nobody."""
    for name in sorted({*source.facts, *destination.facts} - FACTS.keys()):
        mine, other = source.facts.get(name), destination.facts.get(name)
        severity = Severity.INFORMS if mine is None else Severity.BLOCKS
        side = "destination" if mine is None else "source"
        message = f"this version of nvmelm does not know {name}, which the {side} states"
        yield Reason(UNKNOWN, severity, name, mine, other, message, _EXPORT)


def difference(name: str, source: FactValue, destination: FactValue) -> str:
    """Return the sentence that puts two values side by side."""
    if source == destination:
        return f"{name} is {shown(source)} at both"
    return f"{name} is {shown(source)} at the source and {shown(destination)} at the destination"


def shown(value: Any) -> str:
    """Return a value for a sentence: one line, ASCII, cut when it is long; ``-`` when it is not known."""
    if value is None:
        return "-"
    if value == []:
        return "none"
    text = (value if isinstance(value, str) and value.isascii() and value.isprintable() else encode(value)) or '""'
    return text if len(text) <= _SHOWN_VALUE else f"{text[: _SHOWN_VALUE - 1]}..."
