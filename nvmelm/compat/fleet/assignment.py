"""Who goes where: as many sources as can be placed, each destination once (or as often as it can take one).

Sources are first placed one after the other where they fit. For those that find their places taken, others are moved
aside along alternating paths, in rounds: a round finds how long the shortest such paths are and goes as many of them
as do not cross (Hopcroft and Karp, 1973), so there are few rounds, each of which looks at each source and each
destination once. A destination is one bit, whatever its capacity, and nothing here calls itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Literal

from nvmelm.compat.fleet.index import Fleet, FleetFunction, Index, lowest, numbers

Order = Literal["spread", "pack"]


@dataclass(frozen=True, slots=True)
class Placement:
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
    """The answer.

    Attributes:
        candidates: for each source profile the destination profiles that can take it, as bits.
        takers: for each set of candidates, how many destinations these are.
        itself: for each source that is among its own candidates, which destinations it is; it cannot take itself.
        placed: who goes where, as (source, destination).
    """

    candidates: list[int]
    takers: dict[int, int]
    itself: dict[int, tuple[int, ...]]
    placed: list[tuple[int, int]]
    unplaced: list[Unplaced]


def match(sources: Fleet, destinations: Fleet, index: Index, placement: Placement) -> Matched:
    """Say who can go where, and place as many as can be."""
    same: dict[int, int] = {}  # equal sets of candidates are kept once
    candidates = [
        same.setdefault(profiles, profiles)
        for profiles in (index.candidates(profile.manifest) for profile in sources.profiles)
    ]
    places = _Places(destinations, placement)
    fitting = {profiles: places.of(profiles) for profiles in same}
    wanted = _wanted(sources, candidates, fitting, places, placement)
    board = _Board(places, wanted)
    left = board.place()
    near: dict[int, int] = {}
    unplaced = []
    for source in left:
        profile = sources.functions[source].profile
        if profile not in near:
            candidate_bits = candidates[profile]
            nearest = lowest(candidate_bits) if candidate_bits else index.nearest(sources.profiles[profile].manifest)
            near[profile] = destinations.profiles[nearest].members[0]
        fits = (
            candidates[profile] if placement.same or placement.differ else wanted[source]
        )  # nothing but itself is nothing
        unplaced.append(Unplaced(source, _why(fits, wanted[source]), near[profile]))
    placed = sorted((source, places.order[place]) for source, place in board.has.items())
    takers = {profiles: bits.bit_count() for profiles, bits in fitting.items()}
    itself = {}
    for number, function in enumerate(sources.functions):
        if own := places.of_itself(function) & fitting[candidates[function.profile]]:
            itself[number] = tuple(places.order[place] for place in numbers(own))
    return Matched(candidates, takers, itself, placed, unplaced)


def _why(candidates: int, places: int) -> Literal["nothing-fits", "labels", "no-room"]:
    if not candidates:
        return "nothing-fits"
    return "no-room" if places else "labels"


class _Places:
    """The destinations as bits, host after host, and which of them is to be filled next.

    Attributes:
        order: for each place the destination's number.
        free: the places with room, as bits.
    """

    def __init__(self, destinations: Fleet, placement: Placement) -> None:
        functions = destinations.functions
        self._spread = placement.order == "spread"
        self._hosts = [function.host or function.name for function in functions]
        self.order = sorted(range(len(functions)), key=self._hosts.__getitem__)  # stable: a host's stay in order
        self.free = (1 << len(functions)) - 1
        self._room = [functions[number].capacity for number in self.order]
        by_host: dict[str, list[int]] = defaultdict(list)
        by_label: dict[tuple[str, str], list[int]] = defaultdict(list)
        for place, number in enumerate(self.order):
            by_host[self._hosts[number]].append(place)
            labels = functions[number].labels
            for key in {*placement.same, *placement.differ} & labels.keys():
                by_label[key, labels[key]].append(place)
        self._of_host = {host: _bits(places) for host, places in by_host.items()}
        self._load = dict.fromkeys(by_host, 0)
        self._by_load = {0: self.free}
        self.labelled = {key: _bits(places) for key, places in by_label.items()}
        self._itself: dict[tuple[str, str], int] = defaultdict(int)
        for place, number in enumerate(self.order):
            function = functions[number]
            self._itself[function.host, function.name] |= 1 << place if function.host else 0
        # The digit of a place's profile in a set of profiles that is written in binary, from the highest place down.
        last = len(destinations.profiles) - 1
        self._width = last + 1
        self._digits = itemgetter(*(last - functions[number].profile for number in reversed(self.order)))

    def of(self, profiles: int) -> int:
        """Return the places of a set of profiles, as bits."""
        return int("".join(self._digits(f"{profiles:0{self._width}b}")), 2) if profiles else 0

    def of_itself(self, source: FleetFunction) -> int:
        """Return the places that are a source itself, as bits: a function is no place for its own state."""
        return self._itself.get((source.host, source.name), 0)

    def pick(self, places: int) -> int:
        """Return which of some places is to be filled next: of a host with the fewest sources, or of the first."""
        if self._spread:
            for load in sorted(self._by_load):
                if least := places & self._by_load[load]:
                    return lowest(least)
        return lowest(places)

    def fill(self, place: int) -> None:
        """Take room for one source."""
        self._room[place] -= 1
        if not self._room[place]:
            self.free ^= 1 << place
        if not self._spread:
            return
        host = self._hosts[self.order[place]]
        load, bits = self._load[host], self._of_host[host]
        self._load[host] = load + 1
        self._by_load[load] ^= bits
        if not self._by_load[load]:
            del self._by_load[load]
        self._by_load[load + 1] = self._by_load.get(load + 1, 0) | bits


def _wanted(
    sources: Fleet,
    candidates: Sequence[int],
    fitting: Mapping[int, int],
    places: _Places,
    placement: Placement,
) -> list[int]:
    """Return the places each source may have, as bits; equal sets are one object."""
    has_label: dict[str, int] = defaultdict(int)
    for (key, _), bits in places.labelled.items():
        has_label[key] |= bits
    known: dict[tuple[object, ...], int] = {}

    def of(source: FleetFunction) -> int:
        own = places.of_itself(source)
        which = (
            own,
            candidates[source.profile],
            *(source.labels.get(key) for key in (*placement.same, *placement.differ)),
        )
        if which not in known:
            takers = fitting[candidates[source.profile]] & ~own
            for key in placement.same:
                takers &= places.labelled.get((key, source.labels.get(key, "")), 0) if key in source.labels else 0
            for key in placement.differ:
                mine = places.labelled.get((key, source.labels[key]), 0) if key in source.labels else takers
                takers &= has_label[key] & ~mine
            known[which] = takers
        return known[which]

    return [of(function) for function in sources.functions]


class _Board:
    """Who is where.

    Attributes:
        has: the place of each source that has one.
    """

    def __init__(self, places: _Places, wanted: Sequence[int]) -> None:
        self._places = places
        self._wanted = wanted
        self._here: dict[int, dict[int, None]] = defaultdict(dict)
        self.has: dict[int, int] = {}

    def place(self) -> list[int]:
        """Place all that can be, and return the sources that are left."""
        # Those with the fewest places first: the others have more to choose from.
        waiting = []
        for source in sorted(range(len(self._wanted)), key=[places.bit_count() for places in self._wanted].__getitem__):
            free = self._wanted[source] & self._places.free
            if free:
                self._sit(source, self._places.pick(free))
            elif self._wanted[source]:
                waiting.append(source)
        while waiting and (layers := self._layers(waiting)):
            asked: dict[int, list[int]] = {}
            waiting = [source for source in waiting if not self._move(source, layers, asked)]
        return sorted(set(range(len(self._wanted))) - self.has.keys())

    def _layers(self, waiting: Sequence[int]) -> list[int]:
        """Return the places by how many must be moved aside for them; the last have room. None are left: empty."""
        layers: list[int] = []
        seen, asking = 0, waiting
        asked: set[int] = set()
        while True:
            new = 0
            for wanted in {id(self._wanted[source]): self._wanted[source] for source in asking}.values():
                if id(wanted) not in asked:
                    asked.add(id(wanted))
                    new |= wanted
            new &= ~seen
            if not new:
                return []
            if new & self._places.free:
                return [*layers, new & self._places.free]
            layers.append(new)
            seen |= new
            asking = [source for place in numbers(new) for source in self._here[place]]

    def _move(self, source: int, layers: list[int], asked: dict[int, list[int]]) -> bool:
        """Give a source a place along a path of this round; what led nowhere is not tried again in it.

        Args:
            layers: the places that are left to try, as :meth:`_layers` gives them.
            asked: for each place that was tried, who of those that have it was not asked to go yet.
        """
        path: list[tuple[int, int]] = []  # who asks, and the place that is asked for
        while True:
            depth = len(path)
            options = self._wanted[source] & layers[depth]
            if depth + 1 == len(layers):
                options &= self._places.free
                if options:
                    self._go(path, source, self._places.pick(options))
                    return True
            if not options:
                if not path:
                    return False
                source, _ = path.pop()
                continue
            place = lowest(options)
            if place not in asked:
                asked[place] = list(self._here[place])
            others = asked[place]
            if others:
                path.append((source, place))
                source = others.pop()
            else:
                layers[depth] ^= 1 << place

    def _go(self, path: list[tuple[int, int]], source: int, place: int) -> None:
        """Let everybody on a path move on by one, from its end."""
        self._sit(source, place)
        for asking, vacated in reversed(path):
            self._take(asking, vacated)

    def _sit(self, source: int, place: int) -> None:
        self._places.fill(place)
        self._take(source, place)

    def _take(self, source: int, place: int) -> None:
        before = self.has.get(source)
        if before is not None:
            del self._here[before][source]
        self.has[source] = place
        self._here[place][source] = None


def _bits(places: Iterable[int]) -> int:
    raw = bytearray()
    for place in places:  # ascending
        raw.extend(bytes(place // 8 + 1 - len(raw)))
        raw[place // 8] |= 1 << place % 8
    return int.from_bytes(raw, "little")
