"""A site's policy: a TOML file that pins, relaxes or adds rules, and shows in the verdict wherever it was used.

::

    schema = "nvmelm.policy"
    version = 1

    [[allow]]                          # relaxes: the difference no longer blocks
    fact = "identity.firmware"
    source = "2.1.0"                   # without it: any value
    destination = "2.1.1"
    why = "tested by the storage group"

    [[require]]                        # adds: a stricter rule than nvmelm's own
    fact = "resources.vq"
    rule = "equal"
    why = "guests count their queues"

    [[pin]]                            # demands a value, of the source, the destination or both
    fact = "identity.model"
    values = ["A", "B"]
    why = "the only ones we have qualified"

What would lose or tear a guest's state cannot be relaxed: state formats, live migration itself, the VFIO driver, the
IOMMU. ``allow`` is looked at first, so what a policy both allows and forbids is forbidden.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from nvmelm.compat.facts import FACTS
from nvmelm.compat.manifest import Manifest
from nvmelm.compat.reasons import MISSING, PolicyUse, Reason, compare, difference, shown
from nvmelm.compat.rules import RULES, Fact, FactValue, Kind, Rule, Severity, satisfied, valid
from nvmelm.disk import toml
from nvmelm.errors import MalformedError

_Word = TypeVar("_Word", Rule, Severity)

SCHEMA = "nvmelm.policy"
VERSION = 1
MAX_BYTES = 1024 * 1024
_MAX_RULES = 1000
_MAX_WHY = 500

_KEYS: Mapping[str, frozenset[str]] = {
    "allow": frozenset(("fact", "why", "source", "destination", "missing", "severity")),
    "require": frozenset(("fact", "why", "rule", "severity")),
    "pin": frozenset(("fact", "why", "values", "side")),
}
_SIDES = {"both": ("source", "destination"), "source": ("source",), "destination": ("destination",)}
_LISTS = (Kind.INTS, Kind.TEXTS)

#: Which rules make sense of which values; every value can be required to be equal.
_RULES_OF: Mapping[Kind, tuple[Rule, ...]] = {
    Kind.INT: (Rule.EQUAL, Rule.AT_LEAST, Rule.LIMIT),
    Kind.TEXT: (Rule.EQUAL,),
    Kind.BOOL: (Rule.EQUAL, Rule.KEEPS, Rule.REQUIRED, Rule.FORBIDDEN),
    Kind.VERSION: (Rule.EQUAL, Rule.SAME_MAJOR),
    Kind.INTS: (Rule.EQUAL, Rule.SUPERSET),
    Kind.TEXTS: (Rule.EQUAL, Rule.SUPERSET),
}


@dataclass(frozen=True, slots=True)
class Allow:
    """Lets a difference pass, or a fact be missing."""

    place: str
    fact: Fact
    why: str
    source: FactValue | None = None
    destination: FactValue | None = None
    missing: bool = False
    severity: Severity = Severity.WARNS

    def fits(self, reason: Reason) -> bool:
        """Return whether this is what the rule allows."""
        if reason.fact != self.fact.name or reason.severity is Severity.INFORMS:
            return False
        if reason.code == MISSING:
            return self.missing
        if reason.code != self.fact.code or self.missing:
            return False
        return self.source in (None, reason.source) and self.destination in (None, reason.destination)


@dataclass(frozen=True, slots=True)
class Require:
    """Compares a fact by another rule, or more severely."""

    place: str
    fact: Fact
    why: str
    rule: Rule
    severity: Severity = Severity.BLOCKS


@dataclass(frozen=True, slots=True)
class Pin:
    """Demands one of some values."""

    place: str
    fact: Fact
    why: str
    values: tuple[FactValue, ...]
    sides: tuple[str, ...]


@dataclass(frozen=True)
class Policy:
    """The rules of a file, and the digest of its bytes."""

    name: str
    digest: str
    allows: tuple[Allow, ...] = ()
    requires: tuple[Require, ...] = ()
    pins: tuple[Pin, ...] = ()

    @classmethod
    def parse(cls, text: str | bytes) -> Policy:
        """Read a policy.

        Raises:
            MalformedError: it is none, or a rule in it cannot be meant.
        """
        import hashlib

        raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
        document = _load(raw)
        name = document.get("name", "")
        if not isinstance(name, str) or len(name) > _MAX_WHY:
            raise _bad("its name is not a short text")
        rows = {key: _rows(document.get(key, []), key) for key in _KEYS}
        return cls(
            name=name,
            digest=f"sha256:{hashlib.sha256(raw).hexdigest()}",
            allows=tuple(_allow(place, row) for place, row in rows["allow"]),
            requires=tuple(_require(place, row) for place, row in rows["require"]),
            pins=tuple(_pin(place, row) for place, row in rows["pin"]),
        )

    def apply(
        self, source: Manifest, destination: Manifest, reasons: Sequence[Reason]
    ) -> tuple[list[Reason], tuple[PolicyUse, ...]]:
        """Return the reasons as this policy leaves them, and every use of a rule of it."""
        uses: list[PolicyUse] = []
        left: list[Reason] = []
        for reason in reasons:
            left += self._relaxed(reason, uses)
        for require in self.requires:
            left += _required(require, source, destination, uses)
        for pin in self.pins:
            left += _pinned(pin, source, destination, uses)
        return left, tuple(uses)

    def _relaxed(self, reason: Reason, uses: list[PolicyUse]) -> Iterator[Reason]:
        rule = next((allow for allow in self.allows if allow.fits(reason)), None)
        if rule is None:
            yield reason
            return
        uses.append(PolicyUse(rule.place, "relaxed", rule.fact.name, rule.why))
        yield replace(reason, severity=rule.severity, policy=f"{rule.place}: {rule.why}")
        known = [value for value in (reason.source, reason.destination) if value is not None]
        if reason.code == MISSING and len(known) == 1:
            # One side is known all the same, and may be what neither may be.
            alone = compare(rule.fact, known[0], known[0])
            if alone is not None:
                yield alone


def _required(rule: Require, source: Manifest, destination: Manifest, uses: list[PolicyUse]) -> Iterator[Reason]:
    name = rule.fact.name
    mine, other = source.facts.get(name), destination.facts.get(name)
    if mine is not None and other is not None and satisfied(rule.fact, mine, other, rule=rule.rule):
        uses.append(PolicyUse(rule.place, "held", name, rule.why))
        return
    uses.append(PolicyUse(rule.place, "broken", name, rule.why))
    difference_text = f"{name} is {shown(mine)} at the source and {shown(other)} at the destination"
    if mine is not None and other is not None:
        difference_text = difference(name, mine, other)
    message = f"{difference_text}; the policy requires: {RULES[rule.rule]}"
    policy = f"{rule.place}: {rule.why}"
    yield Reason("policy-require", rule.severity, name, mine, other, message, rule.fact.fix, policy)


def _pinned(rule: Pin, source: Manifest, destination: Manifest, uses: list[PolicyUse]) -> Iterator[Reason]:
    name = rule.fact.name
    values = {"source": source.facts.get(name), "destination": destination.facts.get(name)}
    broken = [side for side in rule.sides if values[side] not in rule.values or not valid(rule.fact, values[side])]
    uses.append(PolicyUse(rule.place, "broken" if broken else "held", name, rule.why))
    for side in broken:
        wanted = " or ".join(shown(value) for value in rule.values)
        message = f"{name} of the {side} is {shown(values[side])}; the policy demands {wanted}"
        policy = f"{rule.place}: {rule.why}"
        fix = f"use a {side} of the value that is demanded"
        yield Reason("policy-pin", Severity.BLOCKS, name, values["source"], values["destination"], message, fix, policy)


def _load(raw: bytes) -> dict[str, Any]:
    if len(raw) > MAX_BYTES:
        raise _bad(f"it is longer than {MAX_BYTES} bytes")
    try:
        document = toml.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
        raise _bad(f"it is not TOML: {error}") from error
    if document.get("schema") != SCHEMA or type(document.get("version")) is not int or document["version"] != VERSION:
        raise _bad(f'it does not begin with schema = "{SCHEMA}" and version = {VERSION}')
    extra = sorted(document.keys() - {"schema", "version", "name", *_KEYS})
    if extra:
        raise _bad(f"{extra[0][:80]!r} is no part of one")
    return document


def _rows(rows: object, key: str) -> list[tuple[str, dict[str, Any]]]:
    if not isinstance(rows, list) or len(rows) > _MAX_RULES:
        raise _bad(f"{key} is not a list of at most {_MAX_RULES} rules; write [[{key}]] above each")
    tables = []
    for number, row in enumerate(rows, 1):
        place = f"{key}[{number}]"
        if not isinstance(row, dict):
            raise _bad(f"{place} is not a table")
        extra = sorted(row.keys() - _KEYS[key])
        if extra:
            raise _bad(f"{place} has {extra[0][:80]!r}, which {key} does not take")
        tables.append((place, row))
    return tables


def _head(place: str, row: dict[str, Any]) -> tuple[Fact, str]:
    name, why = row.get("fact"), row.get("why")
    fact = FACTS.get(name) if isinstance(name, str) else None
    if fact is None:
        raise _bad(f"{place} names no fact that nvmelm knows")
    if not isinstance(why, str) or not 0 < len(why.strip()) <= _MAX_WHY:
        raise _bad(f"{place} does not say why; the verdict shows that sentence")
    return fact, why.strip()


def _allow(place: str, row: dict[str, Any]) -> Allow:
    fact, why = _head(place, row)
    if fact.fixed:
        raise _bad(f"{place}: {fact.name} cannot be relaxed", cause="a guest's state would be lost or torn")
    missing = row.get("missing", False)
    if not isinstance(missing, bool) or (missing and ("source" in row or "destination" in row)):
        raise _bad(f"{place}: missing = true stands without source and destination")
    severity = _choice(place, row, "severity", (Severity.WARNS, Severity.INFORMS), Severity.WARNS)
    source, destination = (_value(place, fact, row.get(side)) for side in ("source", "destination"))
    return Allow(place, fact, why, source, destination, missing, severity)


def _require(place: str, row: dict[str, Any]) -> Require:
    fact, why = _head(place, row)
    own = (fact.rule,) if fact.rule not in _RULES_OF[fact.kind] else ()
    rule = _choice(place, row, "rule", (*_RULES_OF[fact.kind], *own), fact.rule)
    severity = _choice(place, row, "severity", (Severity.BLOCKS, Severity.WARNS), Severity.BLOCKS)
    return Require(place, fact, why, rule, severity)


def _pin(place: str, row: dict[str, Any]) -> Pin:
    fact, why = _head(place, row)
    values = row.get("values")
    if not isinstance(values, list) or not values or len(values) > _MAX_RULES:
        raise _bad(f"{place} has no list of values")
    side = row.get("side", "both")
    if not isinstance(side, str) or side not in _SIDES:
        raise _bad(f"{place}: side is source, destination or both")
    pinned = tuple(value for value in (_value(place, fact, given) for given in values) if value is not None)
    return Pin(place, fact, why, pinned, _SIDES[side])


def _value(place: str, fact: Fact, value: Any) -> FactValue | None:
    if value is not None and not valid(fact, value):
        kind = f"a list of {fact.kind}" if fact.kind in _LISTS else fact.kind
        raise _bad(f"{place} gives {fact.name} a value that is not {kind}")
    return value  # type: ignore[no-any-return]


def _choice(place: str, row: dict[str, Any], key: str, choices: tuple[_Word, ...], default: _Word) -> _Word:
    given = row.get(key, default)
    chosen = next((choice for choice in choices if isinstance(given, str) and choice == given), None)
    if chosen is None:
        raise _bad(f"{place}: {key} is one of {', '.join(choices)}")
    return chosen


def _bad(why: str, *, cause: str = "") -> MalformedError:
    message = f"this is not a policy that can be used: {why}"
    return MalformedError(message, cause=cause, fix="docs/compat-policy.md shows one", reason="policy-malformed")
