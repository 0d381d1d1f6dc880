"""Who goes where: as many sources as can be placed, each destination once (or as often as it can take one).

Sources are placed one after the other where they fit; one that finds its places taken has others moved aside along an
alternating path, which gives a maximum matching. What a search that failed has seen can never help a later one, and is
left out from then on, so the whole is quick.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from nvmelm.compat.fleet import Fleet, Function, Index, lowest, numbers

Order = Literal["spread", "pack"]


@dataclass(frozen=True, slots=True)
class Wishes:
    """How sources are placed.

    Attributes:
        order: ``spread`` over hosts, or ``pack`` one host after the other.
        same: labels that must be the same at both ends; a missing label is not the same.
        differ: labels that must be there and differ.
    """

    order: Order = "spread"
    same: tuple[str, ...] = ()
    differ: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Unplaced:
    """A source without a place: why, and the destination that is nearest to fitting.

    Attributes:
        why: ``nothing-fits``, ``labels`` (something fits, but not where it may go) or ``no-room``.
    """

    source: int
    why: Literal["nothing-fits", "labels", "no-room"]
    nearest: int


@dataclass(frozen=True, slots=True)
class Matched:
    """The answer: for each source profile its candidates as bits of destination profiles; who goes where."""

    candidates: list[int]
    placed: list[tuple[int, int]]
    unplaced: list[Unplaced]


def match(sources: Fleet, destinations: Fleet, index: Index, wishes: Wishes) -> Matched:
    """Say who can go where, and place as many as can be."""
    candidates = [index.candidates(profile.manifest) for profile in sources.profiles]
    slots = _slots(destinations, wishes.order)
    board = _Board(sources, destinations, candidates, slots, wishes)
    placed, left = board.place()
    unplaced = [
        Unplaced(source, board.why(source), _nearest(sources, destinations, index, candidates, source))
        for source in left
    ]
    return Matched(candidates, placed, unplaced)


def _nearest(sources: Fleet, destinations: Fleet, index: Index, candidates: Sequence[int], source: int) -> int:
    """Return the destination that is nearest to fitting a source, or one that fits."""
    profile = sources.functions[source].profile
    found = lowest(candidates[profile]) if candidates[profile] else index.nearest(sources.profiles[profile].manifest)
    return destinations.profiles[found].members[0]


def _slots(destinations: Fleet, order: Order) -> list[int]:
    """Return the places in the order in which they are filled: a destination as often as it can take a source."""
    by_host: dict[str, list[int]] = defaultdict(list)
    for number, one in enumerate(destinations.functions):
        by_host[one.host or one.name] += [number] * one.capacity
    if order == "pack":
        return [number for host in sorted(by_host) for number in by_host[host]]
    rounds = [(turn, host, number) for host in by_host for turn, number in enumerate(by_host[host])]
    return [number for _, _, number in sorted(rounds)]


class _Board:
    """The places as bits, and who has them."""

    def __init__(
        self, sources: Fleet, destinations: Fleet, candidates: Sequence[int], slots: Sequence[int], wishes: Wishes
    ) -> None:
        self._sources = sources
        self._slots = slots
        self._wishes = wishes
        self._free = (1 << len(slots)) - 1
        self._taken_by: dict[int, int] = {}
        self._has: dict[int, int] = {}
        self._dead = 0
        of_profile: dict[int, int] = defaultdict(int)
        self._labelled: dict[tuple[str, str], int] = defaultdict(int)
        for place, number in enumerate(slots):
            one = destinations.functions[number]
            of_profile[one.profile] |= 1 << place
            for key in (*wishes.same, *wishes.differ):
                if key in one.labels:
                    self._labelled[key, one.labels[key]] |= 1 << place
        self._has_label = {
            key: _any(bits for (name, _), bits in self._labelled.items() if name == key) for key in wishes.differ
        }
        self._fitting: dict[int, int] = {}
        for found in candidates:
            if found not in self._fitting:
                self._fitting[found] = _any(of_profile[number] for number in numbers(found))
        self._candidates = candidates

    def place(self) -> tuple[list[tuple[int, int]], list[int]]:
        """Return (source, destination) pairs, and the sources that are left."""
        # Those with the fewest places first: the others have more to choose from.
        order = sorted(range(len(self._sources.functions)), key=lambda one: self._places(one).bit_count())
        left = [one for one in order if not self._give(one)]
        pairs = [(source, self._slots[place]) for place, source in self._taken_by.items()]
        return sorted(pairs), sorted(left)

    def why(self, source: int) -> Literal["nothing-fits", "labels", "no-room"]:
        """Return why a source has no place."""
        if not self._candidates[self._sources.functions[source].profile]:
            return "nothing-fits"
        return "no-room" if self._places(source) else "labels"

    def _places(self, source: int) -> int:
        """Return the places a source may have, as bits."""
        one: Function = self._sources.functions[source]
        found = self._fitting[self._candidates[one.profile]]
        for key in self._wishes.same:
            found &= self._labelled.get((key, one.labels.get(key, "")), 0)
        for key in self._wishes.differ:
            mine = self._labelled.get((key, one.labels[key]), 0) if key in one.labels else found
            found &= self._has_label[key] & ~mine
        return found

    def _give(self, source: int) -> bool:
        """Give a source a place, moving others aside when it must be."""
        came_from: dict[int, int] = {}
        seen = self._dead
        waiting = [source]
        for asking in waiting:
            new = self._places(asking) & ~seen
            free = new & self._free
            if free:
                place = lowest(free)
                came_from[place] = asking
                self._hand_over(place, source, came_from)
                return True
            seen |= new
            for place in numbers(new):
                came_from[place] = asking
                waiting.append(self._taken_by[place])
        self._dead = seen
        return False

    def _hand_over(self, place: int, source: int, came_from: dict[int, int]) -> None:
        """Let everybody on the way take the place that was found for him."""
        self._free &= ~(1 << place)
        while True:
            taker = came_from[place]
            before = self._has.get(taker, -1)
            self._taken_by[place], self._has[taker] = taker, place
            if taker == source:
                return
            place = before


def _any(bits: Iterable[int]) -> int:
    found = 0
    for one in bits:
        found |= one
    return found
