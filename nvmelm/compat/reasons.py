"""The reasons of a verdict: each of one fact, with its two values, what is wrong with them and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from nvmelm.compat.facts import FACTS
from nvmelm.compat.rules import RULES, Fact, FactValue, Severity, encode, satisfied, valid

MISSING = "fact-missing"
UNKNOWN = "fact-unknown"
MALFORMED = "fact-malformed"
RICHER = "destination-richer"

#: What to do about manifests that cannot be judged.
EXPORT = "export both manifests again, with one version of nvmelm"

#: Codes that are not of one fact, with what they mean and what to do; the others stand in the table of facts.
CODES: dict[str, tuple[str, str]] = {
    MISSING: ("a manifest lacks a fact, and what is not known is not compatible", EXPORT),
    UNKNOWN: ("a manifest states a fact that this version does not know", EXPORT),
    MALFORMED: ("a manifest states a fact in a form it cannot have", EXPORT),
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


def explanation(code: str) -> tuple[str, str] | None:
    """Return what a reason's code means and what to do; None for a code no verdict can give."""
    if code in CODES:
        return CODES[code]
    fact = next((candidate for candidate in FACTS.values() if candidate.code == code), None)
    return (f"{fact.name}: {fact.meaning}; {demanded(fact)}", fact.fix) if fact else None


def compare(fact: Fact, source: FactValue | None, destination: FactValue | None) -> Reason | None:
    """Return what is to be said of one fact of a pair; None when there is nothing."""
    for side, value in (("source", source), ("destination", destination)):
        if value is None:
            message = f"{fact.name} is not known of the {side}"
            return Reason(MISSING, Severity.BLOCKS, fact.name, source, destination, message, EXPORT)
        if not valid(fact, value):
            message = f"{fact.name} of the {side} is not {fact.kind}"
            return Reason(MALFORMED, Severity.BLOCKS, fact.name, source, destination, message, EXPORT)
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
