"""Fleets that were made to hurt, or just are odd: the answers stay the verdict's, and cost what the manifests cost."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvmelm.compat.facts import FACTS
from nvmelm.compat.fleet.assignment import Placement, match
from nvmelm.compat.fleet.index import MAX_NAMED, Fleet, Index, load, numbers
from nvmelm.compat.manifest import MAX_BYTES, Manifest
from nvmelm.compat.policy import _RULES_OF, Allow, Pin, Policy, Require
from nvmelm.compat.rules import Fact, Rule, Severity, satisfied
from nvmelm.compat.verdict import judge
from nvmelm.errors import MalformedError, UsageError
from tests.unit.compat.test_compat_fleet import fleet
from tests.unit.manifests import OTHER, WHOLE, manifest, values

PLAIN = settings(max_examples=100, deadline=None)

#: One fact of each rule, and some that only warn or inform.
FACES = [FACTS[name] for name in sorted(FACTS) if FACTS[name].section != "namespaces"]


def some_value(fact: Fact) -> st.SearchStrategy[Any]:
    few = st.sampled_from([WHOLE[fact.name], OTHER[fact.name]])
    return few | values(fact)


@st.composite
def policies(draw: st.DrawFn, fact: Fact) -> Policy:
    """Return a policy whose every rule speaks of one fact."""
    allow = st.builds(
        lambda source, destination, missing: (
            Allow("a", fact, "w", missing=True) if missing else Allow("a", fact, "w", source, destination)
        ),
        st.none() | some_value(fact),
        st.none() | some_value(fact),
        st.booleans(),
    )
    require = st.builds(
        Require,
        st.just("r"),
        st.just(fact),
        st.just("w"),
        st.sampled_from(sorted({*_RULES_OF[fact.kind], fact.rule})),
        st.sampled_from([Severity.BLOCKS, Severity.WARNS]),
    )
    pin = st.builds(
        Pin,
        st.just("p"),
        st.just(fact),
        st.just("w"),
        st.lists(some_value(fact), min_size=1, max_size=3).map(tuple),
        st.sampled_from([("source", "destination"), ("source",), ("destination",)]),
    )
    rows = [draw(st.lists(kind, max_size=2)) for kind in (allow, require, pin)]
    return Policy("", "", *(tuple(row) for row in rows))  # type: ignore[arg-type]


@st.composite
def fleets_and_policies(draw: st.DrawFn) -> tuple[list[Manifest], list[Manifest], Policy]:
    fact = draw(st.sampled_from(FACES))
    strategy = st.one_of(
        st.builds(lambda value: manifest({fact.name: value}), some_value(fact)),
        st.just(manifest(without=fact.name)),
        st.just(manifest({fact.name: -1})),  # no manifest that was read can have this
    )
    sides = [draw(st.lists(strategy, min_size=1, max_size=6)) for _ in range(2)]
    return sides[0], sides[1], draw(policies(fact))


@PLAIN
@given(fleets_and_policies())
def test_whatever_a_policy_says_of_a_fact_the_candidates_are_those_the_verdict_accepts(
    case: tuple[list[Manifest], list[Manifest], Policy],
) -> None:
    sources, destinations, policy = case
    destination_fleet = fleet(*destinations)
    index = Index(destination_fleet.profiles, policy)
    for source in sources:
        expected = {
            profile.number
            for profile in destination_fleet.profiles
            if judge(source, profile.manifest, policy).compatible
        }
        assert set(numbers(index.candidates(source))) == expected


def every_policy(fact: Fact) -> Iterator[Policy]:
    """Yield a policy for each way in which rules of each kind can meet."""
    whole, other = WHOLE[fact.name], OTHER[fact.name]
    allows = [
        (),
        (Allow("a", fact, "w", missing=True),),
        (Allow("a", fact, "w"),),
        (Allow("a", fact, "w", source=whole), Allow("b", fact, "w", missing=True)),
        (Allow("a", fact, "w", source=whole, destination=other),),
    ]
    rules = sorted({Rule.EQUAL, fact.rule})
    requires = [(), *((Require("r", fact, "w", rule, severity),) for rule in rules for severity in SEVERITIES)]
    pins = [(), *((Pin("p", fact, "w", (whole,), sides),) for sides in SIDES)]
    yield from (Policy("", "", *rows) for rows in product(allows, requires, pins))


SEVERITIES = (Severity.BLOCKS, Severity.WARNS)
SIDES = (("source", "destination"), ("source",), ("destination",))
ONE_OF_EACH = {(fact.rule, fact.severity): fact for fact in FACES}.values()


@pytest.mark.parametrize("fact", ONE_OF_EACH, ids=lambda fact: f"{fact.rule}-{fact.severity}")
def test_rules_of_a_policy_that_meet_on_one_fact_are_taken_together_as_the_verdict_takes_them(fact: Fact) -> None:
    manifests = [
        manifest(),
        manifest({fact.name: OTHER[fact.name]}),
        manifest({fact.name: -1}),
        manifest(without=fact.name),
    ]
    destination_fleet = fleet(*manifests)
    for policy in every_policy(fact):
        index = Index(destination_fleet.profiles, policy)
        for source in manifests:
            expected = {
                profile.number
                for profile in destination_fleet.profiles
                if judge(source, profile.manifest, policy).compatible
            }
            assert set(numbers(index.candidates(source))) == expected, policy


@pytest.mark.parametrize("rule", list(Rule))
def test_every_rule_has_a_fact_that_the_property_above_is_tried_on(rule: Rule) -> None:
    assert any(fact.rule is rule for fact in FACES)


POLICY = """
schema = "nvmelm.policy"
version = 1
[[allow]]
fact = "identity.firmware"
source = "f1"
why = "w"
[[allow]]
fact = "identity.model"
missing = true
why = "w"
[[require]]
fact = "identity.nvme_version"
rule = "same-major"
why = "w"
[[require]]
fact = "capabilities.nvm_commands"
rule = "superset"
why = "w"
[[pin]]
fact = "resources.vi"
values = [1, 2, 3]
why = "w"
"""


@pytest.mark.parametrize("policy", [None, Policy.parse(POLICY)])
def test_values_are_looked_at_as_often_as_there_are_manifests_not_pairs(
    policy: Policy | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = 0

    def counted(*args: Any, **kwargs: Any) -> bool:
        nonlocal looked
        looked += 1
        return satisfied(*args, **kwargs)

    monkeypatch.setattr("nvmelm.compat.fleet.fact_index.satisfied", counted)
    count = 150
    manifests = [
        manifest(
            {
                "identity.nvme_version": f"2.{number}",
                "identity.firmware": f"f{number}",
                "identity.model": f"m{number}",
                "resources.vq": number,
                "resources.vi": number,
                "host.vfio_driver": f"d{number}",
                "capabilities.nvm_commands": [number],
            }
        )
        for number in range(count)
    ]
    destination_fleet = fleet(*manifests)
    index = Index(destination_fleet.profiles, policy)
    for source in manifests:
        index.candidates(source)
        index.nearest(source)
    assert looked < 10 * count


def test_lists_of_which_every_item_is_its_own_take_no_more_room_than_the_lists() -> None:
    count, long = 400, 200
    lists = [
        manifest({"capabilities.nvm_commands": list(range(number * long, number * long + long))})
        for number in range(count)
    ]
    destination_fleet = fleet(*lists)
    tracemalloc.start()
    index = Index(destination_fleet.profiles)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 300 * count * long  # bytes; a set of 400 bits for each item, and a list around it, is more
    assert list(numbers(index.candidates(lists[7]))) == [7]


def graph(edges: Sequence[set[int]], capacities: Sequence[int]) -> tuple[Fleet, Fleet]:
    """Return fleets in which source n fits just the destinations of ``edges[n]``."""
    source_fleet = fleet(*(manifest({"capabilities.nvm_commands": [number]}) for number in range(len(edges))))
    destination_fleet = fleet(
        *(
            manifest(
                {"capabilities.nvm_commands": [source for source, its in enumerate(edges) if number in its] or [99999]},
                labels={"capacity": str(capacity)},
                subject={"host": "h" + "xy"[number % 2]},
            )
            for number, capacity in enumerate(capacities)
        )
    )
    return source_fleet, destination_fleet


def largest(edges: Sequence[set[int]], capacities: Sequence[int]) -> int:
    """Return how many sources can be placed at most: one unit of room after the other, by the textbook."""
    units = [number for number, capacity in enumerate(capacities) for _ in range(capacity)]
    taken: dict[int, int] = {}

    def give(source: int, seen: set[int]) -> bool:
        for unit, number in enumerate(units):
            if number in edges[source] and unit not in seen:
                seen.add(unit)
                if unit not in taken or give(taken[unit], seen):
                    taken[unit] = source
                    return True
        return False

    return sum(give(source, set()) for source in range(len(edges)))


@PLAIN
@given(
    st.lists(st.sets(st.integers(0, 6), max_size=4), min_size=1, max_size=9),
    st.lists(st.integers(1, 3), min_size=7, max_size=7),
    st.sampled_from(["spread", "pack"]),
)
def test_of_any_fleet_as_many_are_placed_as_can_be(edges: list[set[int]], capacities: list[int], order: Any) -> None:
    source_fleet, destination_fleet = graph(edges, capacities)
    matched = match(source_fleet, destination_fleet, Index(destination_fleet.profiles), Placement(order))
    assert len(matched.placed) == largest(edges, capacities)
    assert len({source for source, _ in matched.placed}) == len(matched.placed)
    used = [destination for _, destination in matched.placed]
    assert all(used.count(number) <= capacity for number, capacity in enumerate(capacities))
    assert all(destination in edges[source] for source, destination in matched.placed)
    assert {source for source, _ in matched.placed} | {left.source for left in matched.unplaced} == set(
        range(len(edges))
    )


def test_a_path_through_the_whole_fleet_is_found() -> None:
    """Source n fits destinations n and n + 1 and took n; the last fits 0 and 1, so everybody moves on by one."""
    count = 1500  # more than Python lets a function call itself
    source_fleet, destination_fleet = graph(
        [*({number, number + 1} for number in range(count)), {0, 1}], [1] * (count + 1)
    )
    destination_fleet.functions[:] = [replace(function, host="h") for function in destination_fleet.functions]
    matched = match(source_fleet, destination_fleet, Index(destination_fleet.profiles), Placement("pack"))
    assert (len(matched.placed), matched.unplaced) == (count + 1, [])


def test_chains_of_several_lengths_are_all_found() -> None:
    edges: list[set[int]] = []
    first = 0
    for length in (2, 5, 9, 30):  # each as above, and apart from the others: one round finds the shortest only
        edges += [*({first + number, first + number + 1} for number in range(length)), {first, first + 1}]
        first += length + 1
    source_fleet, destination_fleet = graph(edges, [1] * first)
    destination_fleet.functions[:] = [replace(function, host="h") for function in destination_fleet.functions]
    matched = match(source_fleet, destination_fleet, Index(destination_fleet.profiles), Placement("pack"))
    assert (len(matched.placed), matched.unplaced) == (first, [])


def test_capacities_however_large_take_no_room() -> None:
    source_fleet = fleet(*(manifest() for _ in range(50)))
    destination_fleet = fleet(
        *(manifest(labels={"capacity": "65536"}, subject={"host": f"{number % 7}"}) for number in range(200))
    )
    tracemalloc.start()
    matched = match(source_fleet, destination_fleet, Index(destination_fleet.profiles), Placement())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(matched.placed) == 50
    hosts = [destination_fleet.functions[place].host for _, place in matched.placed]
    assert {hosts.count(host) for host in hosts} == {7, 8}
    assert peak < 1 << 20


BAD = ["", "0", "-1", "many", "1.5", "1e3", "65537", "1" + "0" * 30, "٣", " 2"]


@pytest.mark.parametrize("word", BAD)
def test_a_destination_of_unknown_capacity_takes_nothing_and_is_named(word: str, tmp_path: Path) -> None:
    lines = [manifest({"resources.vq": number}, labels={"capacity": text}) for number, text in ((5, word), (6, "2"))]
    (tmp_path / "d").write_text("\n".join(entry.dumps(indent=None) for entry in lines))
    loaded = load(tmp_path / "d")
    assert [profile.members for profile in loaded.profiles] == [[0]]
    assert [function.capacity for function in loaded.functions] == [2]
    (reason,) = loaded.unreadable
    assert reason.startswith("d:1: the label capacity is ")


def test_what_a_source_says_of_its_capacity_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "s").write_text(manifest(labels={"capacity": "many"}).dumps(indent=None))
    loaded = load(tmp_path / "s", takes=False)
    assert ([function.capacity for function in loaded.functions], loaded.unreadable) == ([1], [])


def known(cntlid: str, changes: dict[str, Any] | None = None, **rest: Any) -> Manifest:
    return manifest(changes, subject={"host": "a", "node": "nvme0", "cntlid": cntlid}, **rest)


def test_a_function_that_is_there_twice_counts_once(tmp_path: Path) -> None:
    lines = [known("1"), known("2"), known("1"), known("1", {"resources.vq": 9}), known("2", labels={"rack": "b"})]
    (tmp_path / "d").write_text("\n".join(entry.dumps(indent=None) for entry in lines))
    loaded = load(tmp_path / "d")
    assert [function.name for function in loaded.functions] == ["nvme0/1 on a", "nvme0/2 on a"]
    assert loaded.repeated == ["d:3: nvme0/1 on a is in d:1 already"]
    assert [line.split(":")[1] for line in loaded.unreadable] == ["4", "5"]
    assert all("with other facts or labels: the first is used" in line for line in loaded.unreadable)


def test_functions_to_come_and_those_that_say_not_who_they_are_may_be_alike() -> None:
    collected = fleet(*(known("1", level="prospective") for _ in range(2)), *(manifest() for _ in range(2)))
    assert len(collected.functions) == 4


def test_what_cannot_be_read_in_a_directory_is_named_and_the_rest_is_used(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(manifest().dumps())
    (tmp_path / "b.json").symlink_to("nowhere")
    (tmp_path / "c.json").mkdir()
    os.mkfifo(tmp_path / "d.json")
    with (tmp_path / "e.json").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    (tmp_path / "f.json").write_text("nonsense")
    loaded = load(tmp_path)
    assert len(loaded.functions) == 1
    assert [line.partition(": ")[0] for line in loaded.unreadable] == ["b.json", "c.json", "d.json", "e.json", "f.json"]
    assert "No such file" in loaded.unreadable[0]
    assert f"more than {MAX_BYTES} bytes" in loaded.unreadable[3]


def test_a_line_that_is_too_long_is_one_line(tmp_path: Path) -> None:
    whole = manifest().dumps(indent=None).encode()
    with (tmp_path / "d").open("wb") as file:
        file.truncate(2 * MAX_BYTES + 5)
        file.seek(0, os.SEEK_END)
        file.write(b"\n" + whole)
    loaded = load(tmp_path / "d")
    assert len(loaded.functions) == 1
    assert [line.partition(": ")[0] for line in loaded.unreadable] == ["d:1"]


def test_problems_beyond_those_that_are_named_are_counted(tmp_path: Path) -> None:
    (tmp_path / "d").write_text("x\n" * (MAX_NAMED + 7) + manifest().dumps(indent=None))
    loaded = load(tmp_path / "d")
    assert (len(loaded.unreadable), loaded.unnamed) == (MAX_NAMED, 7)


def test_a_device_is_no_fleet() -> None:
    with pytest.raises(UsageError, match="/dev/zero holds no manifest"):
        load(Path("/dev/zero"))


def test_a_manifest_that_is_refused_leaves_no_trace() -> None:
    collected = Fleet()
    with pytest.raises(MalformedError):
        collected.add(manifest(labels={"capacity": "x"}), "line 1")
    assert (collected.functions, collected.profiles) == ([], [])
