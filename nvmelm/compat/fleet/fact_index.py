"""One fact of a whole fleet: for a source's value, which destinations go with it, without going through pairs.

A column is asked in bits: bit ``n`` of every answer is row ``n``. Each rule has an index of its own, so an answer costs
what its bits cost, however many different values there are; and a policy's rules for the fact are sets of bits that are
put on top. Values that repeat, or take part in many answers, are kept as bits, the others as the rows they are in:
memory grows with the values and not with values times rows.

The answers are those of :meth:`nvmelm.compat.policy.Policy.apply` for each pair.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Hashable, Iterable, Sequence
from enum import Enum
from typing import Any

from nvmelm.compat.policy import Policy
from nvmelm.compat.rules import Fact, FactValue, Rule, Severity, satisfied, valid, version

#: A row's number costs 64 bits in a list and one in a set of bits for each row there is: from here on bits are smaller.
_DENSE = 64
#: Answers that are kept; a fleet of more values than that hardly asks twice for one.
_KEPT = 1024


class _No(Enum):
    """What stands for a value that is not there, or is none the fact can have."""

    VALUE = "missing"
    SENSE = "malformed"


Ask = Callable[[Any], int]


class FactIndex:
    """One fact of all rows.

    Args:
        values: of the fact, row by row; None where it is missing.
        policy: only its rules for this fact count here.
    """

    def __init__(self, fact: Fact, values: Sequence[FactValue | None], policy: Policy | None = None) -> None:
        self.fact = fact
        self._rows = _Rows(fact, values)
        self._answers: dict[Hashable, int] = {}
        self._blocks = fact.severity is Severity.BLOCKS
        self._plain = _index(self._rows, fact.rule) if self._blocks else self._rows.any_valid
        self._site = _Site(self._rows, policy) if policy is not None and _speaks_of(policy, fact) else None

    def satisfying(self, value: FactValue | None) -> int:
        """Return the rows that go with a source's value, as bits."""
        key = _key(self.fact, value)
        rows = self._answers.get(key)
        if rows is None:
            rows = self._ask(key)
            if len(self._answers) < _KEPT:
                self._answers[key] = rows
        return rows

    def _ask(self, key: Hashable) -> int:
        if key is _No.SENSE:
            return 0
        plain = 0 if key is _No.VALUE else self._plain(key)
        return plain if self._site is None else self._site.over(key, plain)


class _Site:
    """What a site's policy makes of one fact's answers."""

    def __init__(self, rows: _Rows, policy: Policy) -> None:
        fact = rows.fact
        self._rows = rows
        self._missing = False
        self._any = 0
        self._of: dict[Hashable, int] = {}
        for allow in policy.allows:
            if allow.fact.name != fact.name:
                continue
            if allow.missing:
                self._missing = True
                continue
            to = rows.valid if allow.destination is None else rows.bits(_key(fact, allow.destination))
            if allow.source is None:
                self._any |= to
            else:
                key = _key(fact, allow.source)
                self._of[key] = self._of.get(key, 0) | to
        # A value beside a missing one may still be what neither may be.
        self._alone = rows.where(self._stands_alone) | rows.bits(_No.VALUE) if self._missing else 0
        rules = {
            rule.rule for rule in policy.requires if rule.fact.name == fact.name and rule.severity is Severity.BLOCKS
        }
        self._required = [_index(rows, rule) for rule in sorted(rules)]
        self._offered = rows.all
        self._wanted: list[set[Hashable]] = []
        for pin in policy.pins:
            if pin.fact.name == fact.name:
                keys = {_key(fact, value) for value in pin.values}
                if "destination" in pin.sides:
                    self._offered &= rows.union(keys)
                if "source" in pin.sides:
                    self._wanted.append(keys)

    def _stands_alone(self, value: FactValue) -> bool:
        fact = self._rows.fact
        return fact.severity is not Severity.BLOCKS or satisfied(fact, value, value)

    def over(self, key: Hashable, plain: int) -> int:
        """Return what is left of, and added to, the rows that nvmelm's own rule finds for a source's value."""
        if any(key not in keys for keys in self._wanted):
            return 0
        if key is _No.VALUE:
            return 0 if self._required else self._alone & self._offered
        rows = plain | self._any | self._of.get(key, 0)
        if self._missing and self._stands_alone(_value(key)):
            rows |= self._rows.bits(_No.VALUE)
        for ask in self._required:
            rows &= ask(key)
        return rows & self._offered


class _Rows:
    """Which rows have which value.

    Attributes:
        all: every row, as bits.
        valid: those with a value the fact can have, as bits.
    """

    def __init__(self, fact: Fact, values: Sequence[FactValue | None]) -> None:
        self.fact = fact
        self.count = len(values)
        self.by_value: dict[Hashable, list[int]] = {}
        for row, value in enumerate(values):
            self.by_value.setdefault(_key(fact, value), []).append(row)
        self.all = (1 << self.count) - 1
        self._bits = {key: self.pack(rows) for key, rows in self.by_value.items() if len(rows) * _DENSE >= self.count}
        self.valid = self.all & ~self.bits(_No.VALUE) & ~self.bits(_No.SENSE)

    def keys(self) -> list[Any]:
        """Return the different values the fact can have, in order of their first row."""
        return [key for key in self.by_value if not isinstance(key, _No)]

    def bits(self, key: Hashable) -> int:
        """Return the rows that have a value."""
        rows = self._bits.get(key)
        return self.pack(self.by_value.get(key, ())) if rows is None else rows

    def union(self, keys: Iterable[Hashable]) -> int:
        """Return the rows that have any of some values."""
        dense = 0
        rows: list[int] = []
        for key in keys:
            if key in self._bits:
                dense |= self._bits[key]
            else:
                rows += self.by_value.get(key, ())
        return dense | self.pack(rows)

    def where(self, condition: Callable[[FactValue], bool]) -> int:
        """Return the rows whose value satisfies a condition; each different value is tried once."""
        return self.union(key for key in self.keys() if condition(_value(key)))

    def any_valid(self, _: Hashable) -> int:
        """Answer a fact that blocks nothing: whatever both have will do."""
        return self.valid

    def pack(self, rows: Sequence[int]) -> int:
        """Return rows as bits."""
        if len(rows) < 2:
            return 1 << rows[0] if rows else 0
        raw = bytearray(self.count // 8 + 1)
        for row in rows:
            raw[row >> 3] |= 1 << (row & 7)
        return int.from_bytes(raw, "little")


def _index(rows: _Rows, rule: Rule) -> Ask:
    """Return the quickest way to answer a rule for a value the fact can have."""
    if rule is Rule.EQUAL:
        return rows.bits
    if rule is Rule.AT_LEAST:
        return _Stairs(rows, [(key, key) for key in rows.keys()]).at_least  # noqa: SIM118
    if rule is Rule.LIMIT:
        return _limit(rows)
    if rule is Rule.SUPERSET:
        return _Containing(rows).all_of
    if rule is Rule.SAME_MAJOR:
        return _same_major(rows)
    # What is left compares true and false, or looks both up in a short list: the answer is one of a few.
    return _by_kind(rows, rule)


def _by_kind(rows: _Rows, rule: Rule) -> Ask:
    fact = rows.fact
    if rule is Rule.ALLOWED:
        fine = rows.union(fact.allowed)
        return lambda key: fine if key in fact.allowed else 0
    answers = {
        mine: rows.where(lambda other, mine=mine: satisfied(fact, mine, other, rule=rule))  # type: ignore[misc]
        for mine in (False, True)
    }
    return answers.__getitem__


class _Stairs:
    """Rows in ascending order of a number: for each step the bits of itself and of all that are higher.

    Args:
        steps: (number, value).
    """

    def __init__(self, rows: _Rows, steps: Iterable[tuple[int, Hashable]]) -> None:
        ordered = sorted(steps, key=lambda step: step[0])
        self._numbers = [number for number, _ in ordered]
        gathered = 0
        higher = []
        for _, key in reversed(ordered):
            gathered |= rows.bits(key)
            higher.append(gathered)
        self._higher = higher[::-1]

    def at_least(self, number: int) -> int:
        """Return the rows of this number or a larger one, as bits."""
        place = bisect_left(self._numbers, number)
        return self._higher[place] if place < len(self._higher) else 0


def _limit(rows: _Rows) -> Ask:
    unlimited = rows.bits(0)
    stairs = _Stairs(rows, [(key, key) for key in rows.keys()])  # noqa: SIM118

    def ask(number: int) -> int:
        if number == 0:
            return unlimited
        return stairs.at_least(number) | unlimited if unlimited else stairs.at_least(number)

    return ask


def _same_major(rows: _Rows) -> Ask:
    steps: dict[int, list[tuple[int, Hashable]]] = {}
    for key in rows.keys():  # noqa: SIM118
        parts = version(key)
        if parts is not None:
            steps.setdefault(parts[0], []).append((parts[1], key))
    stairs = {major: _Stairs(rows, versions) for major, versions in steps.items()}

    def ask(text: str) -> int:
        parts = version(text)
        return stairs[parts[0]].at_least(parts[1]) if parts is not None and parts[0] in stairs else 0

    return ask


class _Containing:
    """Who has all items of a list: frequent items as bits, the others by the values that have them."""

    def __init__(self, rows: _Rows) -> None:
        self._rows = rows
        self._keys = rows.keys()
        self._items = [frozenset(key) for key in self._keys]
        # A fleet of many items has most of them once: a number is kept for these, and a list only for the others.
        self._holders: dict[Hashable, int | list[int]] = {}
        holders = self._holders
        for number, items in enumerate(self._items):
            for item in items:
                before = holders.setdefault(item, number)
                if isinstance(before, list):
                    before.append(number)
                elif before != number:
                    holders[item] = [before, number]
        self._bits = {
            item: rows.union(self._keys[number] for number in _all(keys))
            for item, keys in holders.items()
            if len(_all(keys)) * _DENSE >= rows.count
        }

    def all_of(self, key: tuple[Hashable, ...]) -> int:
        """Return the rows that have every item, as bits."""
        rows = self._rows.valid
        rarest: Sequence[int] | None = None
        for item in key:
            if item in self._bits:
                rows &= self._bits[item]
                continue
            if item not in self._holders:
                return 0
            holders = _all(self._holders[item])
            if rarest is None or len(holders) < len(rarest):
                rarest = holders
        if rarest is None:
            return rows
        wanted = frozenset(key)
        return rows & self._rows.union(self._keys[number] for number in rarest if wanted <= self._items[number])


def _all(holders: int | list[int]) -> Sequence[int]:
    return (holders,) if isinstance(holders, int) else holders


def _speaks_of(policy: Policy, fact: Fact) -> bool:
    facts = (rule.fact for rules in (policy.allows, policy.requires, policy.pins) for rule in rules)
    return any(other.name == fact.name for other in facts)


def _key(fact: Fact, value: FactValue | None) -> Hashable:
    """Return a value as a key: equal for the same value only, as all valid values of a fact are of one type."""
    if value is None:
        return _No.VALUE
    if not valid(fact, value):
        return _No.SENSE
    return tuple(value) if isinstance(value, list) else value


def _value(key: Any) -> FactValue:
    value: FactValue = list(key) if isinstance(key, tuple) else key
    return value
