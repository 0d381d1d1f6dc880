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
    found = Fleet()
    for number, one in enumerate(manifests):
        found.add(one, f"line {number}")
    return found


@PLAIN
@given(some, some, st.sampled_from([None, POLICY]))
def test_the_candidates_are_those_the_verdict_accepts(
    sources: list[Manifest], destinations: list[Manifest], policy: Policy | None
) -> None:
    there = fleet(*destinations)
    index = Index(there.profiles, policy)
    for source in sources:
        expected = {profile.number for profile in there.profiles if judge(source, profile.manifest, policy).compatible}
        assert set(numbers(index.candidates(source))) == expected


@PLAIN
@given(near(), st.lists(near(), min_size=1, max_size=6))
def test_the_nearest_miss_has_the_fewest_facts_against_it(source: Manifest, destinations: list[Manifest]) -> None:
    there = fleet(*destinations)
    found = Index(there.profiles).nearest(source)
    counts = [len(judge(source, profile.manifest).blocking()) for profile in there.profiles]
    assert counts[found] == min(counts)


def kinds(*letters: str) -> list[Manifest]:
    return [manifest({"identity.model": letter}) for letter in letters]


@PLAIN
@given(st.lists(st.integers(0, 5), min_size=1, max_size=7), st.lists(st.integers(0, 5), min_size=1, max_size=7))
def test_as_many_sources_are_placed_as_can_be(wanted: list[int], offered: list[int]) -> None:
    """A source that needs n resources fits every destination that has at least n: the largest matching is known."""
    here = fleet(*(manifest({"resources.vq": number}) for number in wanted))
    there = fleet(*(manifest({"resources.vq": number}) for number in offered))
    found = match(here, there, Index(there.profiles), Placement())
    most, left = 0, sorted(offered)
    for need in sorted(wanted, reverse=True):
        if left and left[-1] >= need:
            left.pop()
            most += 1
    assert len(found.placed) == most
    assert len({destination for _, destination in found.placed}) == most
    for source, destination in found.placed:
        assert wanted[source] <= offered[destination]
    assert {source for source, _ in found.placed} | {one.source for one in found.unplaced} == set(range(len(wanted)))


def test_a_source_that_could_go_elsewhere_makes_room() -> None:
    here = fleet(manifest({"resources.vq": 1}), manifest({"resources.vq": 4}))
    there = fleet(manifest({"resources.vq": 4}), manifest({"resources.vq": 1}))
    assert match(here, there, Index(there.profiles), Placement()).placed == [(0, 1), (1, 0)]


def test_a_destination_takes_as_many_as_its_capacity_says() -> None:
    here = fleet(*kinds("a", "a", "a", "a"))
    there = fleet(manifest({"identity.model": "a"}, labels={"capacity": "3"}))
    found = match(here, there, Index(there.profiles), Placement())
    assert len(found.placed) == 3
    assert [one.why for one in found.unplaced] == ["no-room"]


def labelled(host: str, **labels: str) -> Manifest:
    return manifest(labels=labels, subject={"host": host})


def test_labels_keep_sources_in_a_place_or_out_of_it() -> None:
    here = fleet(labelled("s", rack="1", site="x"), labelled("s", rack="2", site="x"), labelled("s"))
    there = fleet(labelled("d1", rack="1", site="y"), labelled("d2", rack="2", site="x"))
    index = Index(there.profiles)
    assert match(here, there, index, Placement(same=("rack",))).placed == [(0, 0), (1, 1)]
    found = match(here, there, index, Placement(same=("rack",), differ=("site",)))
    assert found.placed == [(0, 0)]
    assert {one.source: one.why for one in found.unplaced} == {1: "labels", 2: "labels"}


def test_places_are_spread_over_hosts_or_packed() -> None:
    here = fleet(*(manifest() for _ in range(2)))
    there = fleet(*(labelled(host) for host in ("a", "a", "b", "b")))
    index = Index(there.profiles)
    spread = {there.functions[place].host for _, place in match(here, there, index, Placement("spread")).placed}
    packed = {there.functions[place].host for _, place in match(here, there, index, Placement("pack")).placed}
    assert (spread, packed) == ({"a", "b"}, {"a"})


def test_a_fleet_is_read_line_by_line_and_what_is_no_manifest_is_named(tmp_path: Path) -> None:
    whole = manifest().dumps(indent=None)
    lines = [whole, "", "nonsense", '{"schema":"nvmelm.manifest"}', whole]
    file = tmp_path / "fleet.ndjson"
    file.write_text("\n".join(lines))
    found = load(file)
    assert (len(found.functions), len(found.profiles)) == (2, 1)
    assert [line.split(" ")[0] for line in found.unreadable] == ["fleet.ndjson:3:", "fleet.ndjson:4:"]


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
