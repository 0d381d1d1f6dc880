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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import BinaryIO

from nvmelm.compat.facts import FACTS
from nvmelm.compat.fleet.fact_index import FactIndex
from nvmelm.compat.manifest import MAX_BYTES, Manifest
from nvmelm.compat.policy import Policy
from nvmelm.disk.bounded import read_file, what_is
from nvmelm.errors import HostError, MalformedError, UsageError, host_error

#: A destination that may become several functions says so in this label.
CAPACITY = "capacity"
MAX_CAPACITY = 65536
#: So many problems of a side are named; further ones are counted.
MAX_NAMED = 1000

#: What a subject must say so that two manifests are known to be of one function, and what tells two apart.
_IDENTIFYING = ("host", "cntlid")
_NAMING = ("host", "primary", "node", "address", "cntlid")


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
class FleetFunction:
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
    """One side of the fleet: its functions, their profiles, and what is no part of it.

    Attributes:
        takes: its functions are destinations: their ``capacity`` counts, and must be one.
        unreadable: what could not be used, each with why; the first :data:`MAX_NAMED`.
        unnamed: how many more there are.
        repeated: functions that are in the fleet already, by the same manifest; the first :data:`MAX_NAMED`.
        unnamed_repeated: how many more there are.
    """

    takes: bool = True
    functions: list[FleetFunction] = field(default_factory=list)
    profiles: list[Profile] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    unnamed: int = 0
    repeated: list[str] = field(default_factory=list)
    unnamed_repeated: int = 0
    _known: dict[str, int] = field(default_factory=dict)
    _seen: dict[tuple[str, ...], tuple[str, str]] = field(default_factory=dict)

    def add(self, manifest: Manifest, where: str) -> None:
        """Add one function, unless it is there already.

        Raises:
            MalformedError: it says of itself what cannot be, or another manifest of the same function says otherwise;
                it is not added.
        """
        capacity = _capacity(manifest, where) if self.takes else 1
        if self._again(manifest, where):
            return
        number = self._known.setdefault(manifest.digest, len(self.profiles))
        if number == len(self.profiles):
            self.profiles.append(Profile(number, manifest))
        self.profiles[number].members.append(len(self.functions))
        labels = {sys.intern(key): sys.intern(word) for key, word in manifest.labels.items()}
        name = manifest.name if manifest.subject else where
        host = manifest.subject.get("host", "")
        self.functions.append(FleetFunction(name, host, number, labels, capacity))

    def leave_out(self, why: str) -> None:
        """Count and name what cannot be used."""
        if len(self.unreadable) < MAX_NAMED:
            self.unreadable.append(why)
        else:
            self.unnamed += 1

    def _again(self, manifest: Manifest, where: str) -> bool:
        """Return whether a function was added before: it can be moved, or taken, only once."""
        if manifest.level != "device" or not all(key in manifest.subject for key in _IDENTIFYING):
            return False  # who this is is not said, or nobody yet: a function to come may be wanted several times
        says = f"{manifest.digest} {sorted(manifest.labels.items())}"
        who = tuple(manifest.subject.get(key, "") for key in _NAMING)
        if who not in self._seen:
            self._seen[who] = (where, says)
            return False
        first, said = self._seen[who]
        if said != says:
            raise MalformedError(
                f"{where}: {manifest.name} is in {first} already, with other facts or labels",
                cause="the first is used; only one of them can be true",
                reason="manifest-malformed",
            )
        if len(self.repeated) < MAX_NAMED:
            self.repeated.append(f"{where}: {manifest.name} is in {first} already")
        else:
            self.unnamed_repeated += 1
        return True


def load(path: Path, *, takes: bool = True) -> Fleet:
    """Read the manifests of a file (one a line, or one over several) or of a directory (one a file, ``*.json``).

    A line or file that is no manifest, or cannot be read, is counted and named; it is never compatible with anything.

    Args:
        takes: they are destinations.

    Raises:
        HostError: the file, or the directory itself, cannot be read.
        UsageError: there is not a single manifest in it.
    """
    fleet = Fleet(takes=takes)
    for where, text in _texts(path):
        try:
            fleet.add(Manifest.parse(text() if callable(text) else text), where)
        except (MalformedError, HostError) as error:
            reason = f"{error.message}{f': {error.cause}' if error.cause else ''}"
            fleet.leave_out(reason if reason.startswith(f"{where}: ") else f"{where}: {reason}")
    if not fleet.functions:
        raise UsageError(
            f"{path} holds no manifest",
            cause=fleet.unreadable[0] if fleet.unreadable else "it is empty",
            fix="nvmelm compat export PF CNTLID -o FILE writes one; several in a file stand one on each line (jq -c)",
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
        self._columns = [
            FactIndex(fact, [profile.manifest.facts.get(name) for profile in profiles], policy)
            for name, fact in FACTS.items()
        ]

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


def lowest(bits: int) -> int:
    """Return the number of the lowest bit that is set; -1 when none is."""
    return (bits & -bits).bit_length() - 1


def numbers(bits: int) -> Iterator[int]:
    """Yield the numbers of the bits that are set, in order."""
    raw = bits.to_bytes((bits.bit_length() + 7) // 8, "little")
    for place, byte in enumerate(raw):
        if byte:
            yield from (8 * place + bit for bit in range(8) if byte >> bit & 1)


def _texts(path: Path) -> Iterator[tuple[str, bytes | Callable[[], bytes]]]:
    """Yield the documents of a file or directory, or how to read each, one by one, with where it is."""
    kind = what_is(str(path))
    if kind == "device":
        raise UsageError(
            f"{path} holds no manifest", cause="it is a device", fix="name a file, or a directory", reason="no-manifest"
        )
    try:
        if kind == "directory":
            for name in sorted(os.listdir(path)):  # noqa: PTH208
                if name.endswith(".json"):
                    yield name, partial(_file, path / name)
            return
        with path.open("rb") as file:
            lines = ((number, line) for number, line in _numbered(file) if line.strip())
            for number, line in lines:
                if (
                    line.strip() == b"{"
                ):  # over several lines, as `compat export -o` writes it: the file is one manifest
                    yield path.name, line + file.read(MAX_BYTES)
                    return
                yield f"{path.name}:{number}", line
    except OSError as error:
        raise host_error("cannot read the manifests", str(path), error) from error


def _numbered(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a file; of one that is too long for a manifest only so much that this is seen."""
    for number in count(1):
        line = rest = file.readline(MAX_BYTES + 1)
        if not line:
            return
        while len(rest) > MAX_BYTES and not rest.endswith(b"\n"):
            rest = file.readline(MAX_BYTES + 1)
        yield number, line


def _file(path: Path) -> bytes:
    """Return what is in one file of a directory; a pipe there has nobody at its other end, and would hold all up."""
    if path.exists() and not path.is_file():
        raise MalformedError("it is not a file", reason="manifest-malformed")
    return read_file(path, MAX_BYTES)


def _capacity(manifest: Manifest, where: str) -> int:
    text = manifest.labels.get(CAPACITY, "1")
    if not (text.isascii() and text.isdecimal() and len(text) <= 5 and 1 <= int(text) <= MAX_CAPACITY):
        raise MalformedError(
            f"{where}: the label {CAPACITY} is {text[:20]!r}, not a number from 1 to {MAX_CAPACITY}",
            cause="how many sources it can take is not known, so it takes none",
            fix=f"nvmelm compat export PF --label {CAPACITY}=N",
            reason="manifest-malformed",
        )
    return int(text)
