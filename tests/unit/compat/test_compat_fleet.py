"""The fleet's answers are the verdict's, pair for pair; the assignment is as large as can be, and keeps its rules."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvmelm.compat.facts import FACTS
from nvmelm.compat.fleet.assignment import Placement, match
from nvmelm.compat.fleet.index import Fleet, Index, load, numbers
from nvmelm.compat.manifest import Manifest
from nvmelm.compat.policy import Policy
from nvmelm.compat.verdict import judge
from nvmelm.errors import UsageError
from tests.unit.manifests import ANY, manifest, near

PLAIN = settings(max_examples=60, deadline=None)
POLICY = Policy.parse(
    """
schema = "nvmelm.policy"
version = 1

[[allow]]
fact = "identity.firmware"
why = "tested"

[[allow]]
fact = "features.persistent_memory_region"
missing = true
why = "none of ours has one"

[[require]]
fact = "resources.vq"
rule = "equal"
why = "same shape"
"""
)
missing = st.builds(lambda name: manifest(without=name), st.sampled_from(sorted(FACTS)))
unknown = st.just(manifest({"future.feature": 1}))
some = st.lists(near() | ANY | missing | unknown | st.just(manifest()), min_size=1, max_size=6)


def fleet(*manifests: Manifest) -> Fleet:
    collected = Fleet()
    for number, item in enumerate(manifests):
        collected.add(item, f"line {number}")
    return collected


@PLAIN
@given(some, some, st.sampled_from([None, POLICY]))
def test_the_candidates_are_those_the_verdict_accepts(
    sources: list[Manifest], destinations: list[Manifest], policy: Policy | None
) -> None:
    destination_fleet = fleet(*destinations)
    index = Index(destination_fleet.profiles, policy)
    for source in sources:
        expected = {
            profile.number
            for profile in destination_fleet.profiles
            if judge(source, profile.manifest, policy).compatible
        }
        assert set(numbers(index.candidates(source))) == expected


@PLAIN
@given(near(), st.lists(near(), min_size=1, max_size=6))
def test_the_nearest_miss_has_the_fewest_facts_against_it(source: Manifest, destinations: list[Manifest]) -> None:
    destination_fleet = fleet(*destinations)
    nearest = Index(destination_fleet.profiles).nearest(source)
    counts = [len(judge(source, profile.manifest).blocking()) for profile in destination_fleet.profiles]
    assert counts[nearest] == min(counts)


def kinds(*letters: str) -> list[Manifest]:
    return [manifest({"identity.model": letter}) for letter in letters]


@PLAIN
@given(st.lists(st.integers(0, 5), min_size=1, max_size=7), st.lists(st.integers(0, 5), min_size=1, max_size=7))
def test_as_many_sources_are_placed_as_can_be(wanted: list[int], offered: list[int]) -> None:
    """A source that needs n resources fits every destination that has at least n: the largest matching is known."""
    source_fleet = fleet(*(manifest({"resources.vq": number}) for number in wanted))
    destination_fleet = fleet(*(manifest({"resources.vq": number}) for number in offered))
    matched = match(source_fleet, destination_fleet, Index(destination_fleet.profiles), Placement())
    most, left = 0, sorted(offered)
    for need in sorted(wanted, reverse=True):
        if left and left[-1] >= need:
            left.pop()
            most += 1
    assert len(matched.placed) == most
    assert len({destination for _, destination in matched.placed}) == most
    for source, destination in matched.placed:
        assert wanted[source] <= offered[destination]
    assert {source for source, _ in matched.placed} | {left.source for left in matched.unplaced} == set(
        range(len(wanted))
    )


def test_a_source_that_could_go_elsewhere_makes_room() -> None:
    source_fleet = fleet(manifest({"resources.vq": 1}), manifest({"resources.vq": 4}))
    destination_fleet = fleet(manifest({"resources.vq": 4}), manifest({"resources.vq": 1}))
    assert match(source_fleet, destination_fleet, Index(destination_fleet.profiles), Placement()).placed == [
        (0, 1),
        (1, 0),
    ]


def test_a_destination_takes_as_many_as_its_capacity_says() -> None:
    source_fleet = fleet(*kinds("a", "a", "a", "a"))
    destination_fleet = fleet(manifest({"identity.model": "a"}, labels={"capacity": "3"}))
    matched = match(source_fleet, destination_fleet, Index(destination_fleet.profiles), Placement())
    assert len(matched.placed) == 3
    assert [left.why for left in matched.unplaced] == ["no-room"]


def labelled(host: str, **labels: str) -> Manifest:
    return manifest(labels=labels, subject={"host": host})


def test_labels_keep_sources_in_a_place_or_out_of_it() -> None:
    source_fleet = fleet(labelled("s", rack="1", site="x"), labelled("s", rack="2", site="x"), labelled("s"))
    destination_fleet = fleet(labelled("d1", rack="1", site="y"), labelled("d2", rack="2", site="x"))
    index = Index(destination_fleet.profiles)
    assert match(source_fleet, destination_fleet, index, Placement(same=("rack",))).placed == [(0, 0), (1, 1)]
    matched = match(source_fleet, destination_fleet, index, Placement(same=("rack",), differ=("site",)))
    assert matched.placed == [(0, 0)]
    assert {left.source: left.why for left in matched.unplaced} == {1: "labels", 2: "labels"}


def test_places_are_spread_over_hosts_or_packed() -> None:
    source_fleet = fleet(*(manifest() for _ in range(2)))
    destination_fleet = fleet(*(labelled(host) for host in ("a", "a", "b", "b")))
    index = Index(destination_fleet.profiles)
    spread = {
        destination_fleet.functions[place].host
        for _, place in match(source_fleet, destination_fleet, index, Placement("spread")).placed
    }
    packed = {
        destination_fleet.functions[place].host
        for _, place in match(source_fleet, destination_fleet, index, Placement("pack")).placed
    }
    assert (spread, packed) == ({"a", "b"}, {"a"})


def test_a_fleet_is_read_line_by_line_and_what_is_no_manifest_is_named(tmp_path: Path) -> None:
    whole = manifest().dumps(indent=None)
    lines = [whole, "", "nonsense", '{"schema":"nvmelm.manifest"}', whole]
    file = tmp_path / "fleet.ndjson"
    file.write_text("\n".join(lines))
    loaded = load(file)
    assert (len(loaded.functions), len(loaded.profiles)) == (2, 1)
    assert [line.split(" ")[0] for line in loaded.unreadable] == ["fleet.ndjson:3:", "fleet.ndjson:4:"]


def test_a_fleet_is_read_from_a_directory(tmp_path: Path) -> None:
    for name in ("b.json", "a.json", "README"):
        (tmp_path / name).write_text(manifest().dumps())
    assert len(load(tmp_path).functions) == 2


@pytest.mark.parametrize("text", ["", "nonsense\n"])
def test_a_fleet_without_a_manifest_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text(text)
    with pytest.raises(UsageError):
        load(tmp_path / "empty")


@given(st.binary(max_size=200))
@settings(max_examples=60, deadline=None)
def test_a_fleet_of_random_bytes_is_refused(raw: bytes) -> None:
    import tempfile

    with tempfile.NamedTemporaryFile() as file:
        file.write(raw)
        file.flush()
        with pytest.raises(UsageError):
            load(Path(file.name))
