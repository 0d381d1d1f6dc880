"""Which destinations of a fleet can take which sources, from manifests alone.

A fleet has few kinds of functions and many of each, so manifests with the same facts are one *profile*, and only
profiles are compared. Even where every profile is its own (namespaces have ids of their own), pairs are never gone
through: for each fact, and each value of it that a source has, the destinations that satisfy the rule are one set of
bits, and the destinations that can take a source are what is left when all its facts' sets are intersected. The answer
is that of :func:`nvmelm.compat.verdict.judge` for every pair.
"""

from __future__ import annotations

import os
import sys
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nvmelm.compat.facts import FACTS, encode, satisfied, valid
from nvmelm.compat.manifest import MAX_BYTES, Manifest
from nvmelm.compat.policy import Policy
from nvmelm.compat.rules import Fact, FactValue, Rule, Severity
from nvmelm.compat.verdict import compare
from nvmelm.errors import MalformedError, UsageError, host_error
from nvmelm.transport.bounded import read_file

#: A destination that may become several functions says so in this label.
CAPACITY = "capacity"
MAX_CAPACITY = 65536


@dataclass(slots=True)
class Profile:
    """Functions with the same facts.

    Attributes:
        manifest: the first of them; its facts are those of all.
    """

    number: int
    manifest: Manifest
    members: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Function:
    """One function of the fleet.

    Attributes:
        name: what the manifest calls it, or where it was read.
        host: the host it is on, as far as it is known.
        capacity: how many sources it can take.
    """

    name: str
    host: str
    profile: int
    labels: dict[str, str]
    capacity: int


@dataclass(slots=True)
class Fleet:
    """One side of the fleet: its functions, their profiles, and what could not be read."""

    functions: list[Function] = field(default_factory=list)
    profiles: list[Profile] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    _known: dict[str, int] = field(default_factory=dict)

    def add(self, manifest: Manifest, where: str) -> None:
        """Add one function."""
        number = self._known.setdefault(manifest.digest, len(self.profiles))
        if number == len(self.profiles):
            self.profiles.append(Profile(number, manifest))
        self.profiles[number].members.append(len(self.functions))
        labels = {sys.intern(key): sys.intern(word) for key, word in manifest.labels.items()}
        name = manifest.name if manifest.subject else where
        host = manifest.subject.get("host", "")
        self.functions.append(Function(name, host, number, labels, _capacity(manifest, where)))


def load(path: Path) -> Fleet:
    """Read the manifests of a file (NDJSON, one a line) or of a directory (one a file, ``*.json``).

    A line or file that is no manifest is counted and named; it is never compatible with anything.

    Raises:
        HostError: it cannot be read.
        UsageError: there is not a single manifest in it.
    """
    fleet = Fleet()
    for where, text in _texts(path):
        try:
            fleet.add(Manifest.parse(text), where)
        except MalformedError as error:
            fleet.unreadable.append(f"{where}: {error.message}{f': {error.cause}' if error.cause else ''}")
    if not fleet.functions:
        raise UsageError(
            f"{path} holds no manifest",
            cause=fleet.unreadable[0] if fleet.unreadable else "it is empty",
            fix="nvmelm compat export PF CNTLID --json writes one",
            reason="no-manifest",
        )
    return fleet


class Index:
    """The destinations' profiles, ready to be asked which of them can take a source.

    Args:
        profiles: numbered from 0; bit ``n`` of every answer is profile ``n``.
    """

    def __init__(self, profiles: Sequence[Profile], policy: Policy | None = None) -> None:
        self._profiles = profiles
        self._policy = policy
        self._all = (1 << len(profiles)) - 1
        self._columns = [_Column(fact, profiles, policy) for fact in FACTS.values()]

    def candidates(self, source: Manifest) -> int:
        """Return the profiles that can take a source, as bits."""
        if source.facts.keys() - FACTS.keys():
            return 0  # nobody here can judge what this version does not know
        left = self._all
        for column in self._columns:
            left &= column.satisfying(source.facts.get(column.fact.name))
            if not left:
                break
        return left

    def nearest(self, source: Manifest) -> int:
        """Return the number of the profile with the fewest facts that block a source."""
        planes: list[int] = []  # bit planes of a counter for each profile
        for column in self._columns:
            carry = self._all & ~column.satisfying(source.facts.get(column.fact.name))
            for number, plane in enumerate(planes):
                planes[number], carry = plane ^ carry, plane & carry
            if carry:
                planes.append(carry)
        left = self._all
        for plane in reversed(planes):
            left = left & ~plane or left
        return lowest(left)


class _Column:
    """One fact of all destinations' profiles: for a source's value, which of them satisfy the rule."""

    def __init__(self, fact: Fact, profiles: Sequence[Profile], policy: Policy | None) -> None:
        self.fact = fact
        self._answers: dict[str, int] = {}
        self._policy = _of_fact(policy, fact)
        self._values: dict[str, tuple[FactValue | None, int]] = {}
        bits: dict[str, list[int]] = {}
        for profile in profiles:
            value = profile.manifest.facts.get(fact.name)
            key = _key(value)
            self._values.setdefault(key, (value, 0))
            bits.setdefault(key, []).append(profile.number)
        for key, numbers in bits.items():
            self._values[key] = (self._values[key][0], _bits(numbers, len(profiles)))
        self._ask = self._asker()

    def satisfying(self, value: FactValue | None) -> int:
        """Return the profiles that go with a source's value, as bits."""
        key = _key(value)
        found = self._answers.get(key)
        if found is None:
            found = self._answers[key] = self._ask(value)
        return found

    def _asker(self) -> Callable[[FactValue | None], int]:
        """Return the quickest way to answer: by an index where the rule allows it, by going through values else."""
        if self._policy is not None:
            return self._by_value
        if self.fact.severity is not Severity.BLOCKS:
            known = self._where(lambda value: value is not None and valid(self.fact, value))
            return lambda value: known if value is not None and valid(self.fact, value) else 0
        if self.fact.rule is Rule.EQUAL:
            return self._equal
        if self.fact.rule in (Rule.AT_LEAST, Rule.LIMIT):
            return self._ordered()
        if self.fact.rule is Rule.SUPERSET:
            return self._containing()
        return self._by_value

    def _where(self, condition: Callable[[FactValue | None], bool]) -> int:
        found = 0
        for value, bits in self._values.values():
            if condition(value):
                found |= bits
        return found

    def _by_value(self, value: FactValue | None) -> int:
        return self._where(lambda other: not blocks(self.fact, value, other, self._policy))

    def _equal(self, value: FactValue | None) -> int:
        if value is None or not valid(self.fact, value):
            return 0
        other, bits = self._values.get(_key(value), (None, 0))
        return bits if other is not None and satisfied(self.fact, value, other) else 0

    def _ordered(self) -> Callable[[FactValue | None], int]:
        """Answer "at least" from a sorted list: each entry has the bits of itself and all that are larger."""
        rows = sorted((value, bits) for value, bits in self._values.values() if type(value) is int and value >= 0)
        rows = [(value, bits) for value, bits in rows if valid(self.fact, value)]
        values, at_least, gathered = [value for value, _ in rows], [], 0
        for _, bits in reversed(rows):
            gathered |= bits
            at_least.append(gathered)
        at_least.reverse()
        unlimited = next((bits for value, bits in rows if value == 0), 0) if self.fact.rule is Rule.LIMIT else 0

        def ask(value: FactValue | None) -> int:
            if type(value) is not int or not valid(self.fact, value):
                return 0
            if self.fact.rule is Rule.LIMIT and value == 0:
                return unlimited
            place = bisect_left(values, value)
            return (at_least[place] if place < len(values) else 0) | unlimited

        return ask

    def _containing(self) -> Callable[[FactValue | None], int]:
        """Answer "contains all of" from the bits of those that contain each item."""
        items: dict[object, int] = {}
        known = 0
        for value, bits in self._values.values():
            if isinstance(value, list) and valid(self.fact, value):
                known |= bits
                for item in set(value):
                    items[item] = items.get(item, 0) | bits

        def ask(value: FactValue | None) -> int:
            if not isinstance(value, list) or not valid(self.fact, value):
                return 0
            found = known
            for item in value:
                found &= items.get(item, 0)
            return found

        return ask


def blocks(fact: Fact, source: FactValue | None, destination: FactValue | None, policy: Policy | None) -> bool:
    """Return whether one fact of a pair blocks, after the rules a policy has for it."""
    reason = compare(fact, source, destination)
    reasons = [reason] if reason is not None else []
    if policy is not None:
        here = Manifest("device", {fact.name: source} if source is not None else {})
        there = Manifest("device", {fact.name: destination} if destination is not None else {})
        reasons, _ = policy.apply(here, there, reasons)
    return any(one.severity is Severity.BLOCKS for one in reasons)


def lowest(bits: int) -> int:
    """Return the number of the lowest bit that is set; -1 when none is."""
    return (bits & -bits).bit_length() - 1


def numbers(bits: int) -> Iterator[int]:
    """Yield the numbers of the bits that are set, in order."""
    raw = bits.to_bytes((bits.bit_length() + 7) // 8, "little")
    for place, byte in enumerate(raw):
        if byte:
            yield from (8 * place + bit for bit in range(8) if byte >> bit & 1)


def _bits(places: Sequence[int], count: int) -> int:
    raw = bytearray(count // 8 + 1)
    for place in places:
        raw[place // 8] |= 1 << place % 8
    return int.from_bytes(raw, "little")


def _of_fact(policy: Policy | None, fact: Fact) -> Policy | None:
    """Return the part of a policy that speaks of one fact, or None when nothing in it does."""
    if policy is None:
        return None
    parts = [tuple(one for one in rules if one.fact.name == fact.name) for rules in (policy.allows, policy.requires)]
    pins = tuple(one for one in policy.pins if one.fact.name == fact.name)
    if not (any(parts) or pins):
        return None
    return Policy(policy.name, policy.digest, parts[0], parts[1], pins)  # type: ignore[arg-type]  # sorted by kind


def _key(value: FactValue | None) -> str:
    """Return a value as a key: values of other types are other keys."""
    return "" if value is None else f"{type(value).__name__}:{encode(value)}"


def _texts(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the documents of a file or directory, one by one, with where each is."""
    try:
        if path.is_dir():
            for name in sorted(os.listdir(path)):  # noqa: PTH208
                if name.endswith(".json"):
                    yield name, read_file(path / name, MAX_BYTES)
            return
        with path.open("rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(MAX_BYTES + 1), b""), 1):
                if line.strip():
                    yield f"{path.name}:{number}", line
    except OSError as error:
        raise host_error("cannot read the manifests", str(path), error) from error


def _capacity(manifest: Manifest, where: str) -> int:
    text = manifest.labels.get(CAPACITY, "1")
    if not (text.isascii() and text.isdecimal() and len(text) <= 5 and 1 <= int(text) <= MAX_CAPACITY):
        raise MalformedError(f"{where}: the label {CAPACITY} is {text[:20]!r}, not a number from 1 to {MAX_CAPACITY}")
    return int(text)
