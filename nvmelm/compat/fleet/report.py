"""The answer of a match as a document of bounded size: who can go where, and why somebody has no place."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

from nvmelm.compat.facts import FACTS
from nvmelm.compat.fleet.assignment import Matched, Unplaced
from nvmelm.compat.fleet.index import Fleet, FleetFunction, numbers
from nvmelm.compat.policy import Policy
from nvmelm.compat.verdict import judge
from nvmelm.documents import Record, Report, about

#: A document of a large fleet stays one that a program can hold: bytes that the names of all groups' destinations may
#: take together, and reasons that may be given of all sources together. What is left out is counted in it.
_LISTED_BYTES = 24 << 20
_AROUND_BYTES = 10  # a row's indentation, comma and end
_LISTED_REASONS = 50_000
_LONGEST_MESSAGE = 800


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchGroup(Record):
    """Sources for which the same destinations come into question."""

    sources: list[str]
    destinations: list[str]
    destinations_left_out: int = field(metadata=about("how many more can take them than are listed; 0: all are"))


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchPair(Record):
    """Who goes where."""

    source: str
    destination: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchReason(Record):
    """What stands between a source and its nearest destination."""

    code: str
    fact: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchLeft(Record):
    """A source without a place."""

    source: str
    why: Literal["nothing-fits", "labels", "no-room"]
    nearest: str
    reasons: list[MatchReason] = field(metadata=about("of nothing-fits only"))
    reasons_left_out: int = field(metadata=about("how many more there are; compat check of the two says all"))


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchLeftOut(Record):
    """What is not in the document, so that it stays of a size that can be used; all 0: it is complete."""

    destinations: int = field(metadata=about("in all groups together"))
    reasons: int
    unreadable: int
    repeated: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchDocument(Report):
    """Which destinations of a fleet can take which sources, and a proposal who goes where."""

    schema_name = "nvmelm.match"

    sources: int
    source_profiles: int = field(metadata=about("kinds of sources: those with the same facts are one"))
    destinations: int
    destination_profiles: int
    groups: list[MatchGroup]
    assignment: list[MatchPair]
    unplaced: list[MatchLeft]
    unreadable: list[str] = field(metadata=about("lines and files that cannot be used, each with why"))
    repeated: list[str] = field(metadata=about("manifests of a function that is in the fleet already; it counts once"))
    left_out: MatchLeftOut


def document(sources: Fleet, destinations: Fleet, matched: Matched, policy: Policy | None) -> MatchDocument:
    """Return what ``nvmelm compat match`` prints."""
    groups = _groups(sources, destinations, matched)
    unplaced = _unplaced(sources, destinations, matched, policy)
    pairs = ((sources.functions[source], destinations.functions[place]) for source, place in matched.placed)
    return MatchDocument(
        sources=len(sources.functions),
        source_profiles=len(sources.profiles),
        destinations=len(destinations.functions),
        destination_profiles=len(destinations.profiles),
        groups=groups,
        assignment=[MatchPair(source=source.name, destination=place.name) for source, place in pairs],
        unplaced=unplaced,
        unreadable=[*sources.unreadable, *destinations.unreadable],
        repeated=[*sources.repeated, *destinations.repeated],
        left_out=MatchLeftOut(
            destinations=sum(group.destinations_left_out for group in groups),
            reasons=sum(left.reasons_left_out for left in unplaced),
            unreadable=sources.unnamed + destinations.unnamed,
            repeated=sources.unnamed_repeated + destinations.unnamed_repeated,
        ),
    )


def _groups(sources: Fleet, destinations: Fleet, matched: Matched) -> list[MatchGroup]:
    """Return the sources by who can take them; where that is too much to be listed, the first of each group's."""
    names: dict[tuple[int, tuple[int, ...]], list[str]] = {}
    for profile, candidates in zip(sources.profiles, matched.candidates, strict=True):
        for member in profile.members:
            names.setdefault((candidates, matched.itself.get(member, ())), []).append(sources.functions[member].name)
    takers = {group: matched.takers[group[0]] - len(group[1]) for group in names}
    longest = max(len(json.dumps(function.name)) for function in destinations.functions)
    listed = _share(sum(takers.values()), len(names), _LISTED_BYTES // (longest + _AROUND_BYTES))
    return [
        MatchGroup(
            sources=members,
            destinations=list(islice(_takers(destinations, *group), listed)),
            destinations_left_out=max(takers[group] - listed, 0),
        )
        for group, members in names.items()
    ]


def _takers(destinations: Fleet, candidates: int, itself: tuple[int, ...]) -> Iterator[str]:
    """Yield the destinations of some profiles, without those that are the source itself."""
    for number in numbers(candidates):
        members = destinations.profiles[number].members
        yield from (destinations.functions[member].name for member in members if member not in itself)


def _unplaced(sources: Fleet, destinations: Fleet, matched: Matched, policy: Policy | None) -> list[MatchLeft]:
    """Return the sources without a place, each with its nearest destination and what is against that."""
    unplaced = []
    known: dict[int, tuple[list[MatchReason], int]] = {}
    stuck = sum(left.why == "nothing-fits" for left in matched.unplaced)
    listed = _share(stuck * len(FACTS), stuck, _LISTED_REASONS)
    for left in matched.unplaced:
        source, near = sources.functions[left.source], destinations.functions[left.nearest]
        if left.why == "nothing-fits" and source.profile not in known:
            pair = sources.profiles[source.profile].manifest, destinations.profiles[near.profile].manifest
            blocking = judge(*pair, policy).blocking()
            shown = [
                MatchReason(code=why.code, fact=why.fact, message=_short(why.message)) for why in blocking[:listed]
            ]
            known[source.profile] = shown, len(blocking) - len(shown)
        unplaced.append(_left(left, source, near, *(known[source.profile] if left.why == "nothing-fits" else ([], 0))))
    return unplaced


def _left(
    left: Unplaced, source: FleetFunction, near: FleetFunction, reasons: list[MatchReason], more: int
) -> MatchLeft:
    return MatchLeft(source=source.name, why=left.why, nearest=near.name, reasons=reasons, reasons_left_out=more)


def _short(message: str) -> str:
    """Cut what a policy of many values can make very long; compat check says all of it."""
    return message if len(message) <= _LONGEST_MESSAGE else f"{message[: _LONGEST_MESSAGE - 3]}..."


def _share(rows: int, parts: int, most: int) -> int:
    """Return how many rows each part may have: all when they are few enough together, and always one."""
    return rows if rows <= most else max(most // parts, 1)
