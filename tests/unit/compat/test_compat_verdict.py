"""The verdict: reflexive, monotone, and incompatible as soon as anything is missing or unknown."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from nvmelm.compat.facts import FACTS
from nvmelm.compat.manifest import Manifest, ManifestDocument
from nvmelm.compat.policy import Policy
from nvmelm.compat.reasons import shown
from nvmelm.compat.rules import Rule, Severity
from nvmelm.compat.verdict import VerdictDocument, document, judge
from tests.unit.manifests import ANY, manifest, near, other_pair, richer


def codes(source: Manifest, destination: Manifest) -> list[str]:
    return [reason.code for reason in judge(source, destination).reasons]


def test_a_function_fits_itself_with_nothing_to_say() -> None:
    verdict = judge(manifest(), manifest())
    assert verdict.compatible
    assert verdict.reasons == ()
    assert verdict.source_digest == verdict.destination_digest == manifest().digest


@given(ANY)
@settings(max_examples=50)
def test_a_function_fits_itself_unless_something_stands_in_the_way_of_any_move(one: Manifest) -> None:
    must: list[Any] = [one.facts["capabilities.live_migration"], one.facts["host.iommu"]]
    must += [one.facts["namespaces.identified"]]
    must += [one.facts["host.vfio_driver"] == "vfio-pci"]
    must += [not one.facts[name] for name in FACTS if FACTS[name].rule is Rule.FORBIDDEN]
    assert judge(one, one).compatible is all(must)


@pytest.mark.parametrize("name", FACTS)
def test_one_difference_gives_its_reason_with_both_values(name: str) -> None:
    source, destination = other_pair(name)
    (reason,) = judge(source, destination).reasons
    fact = FACTS[name]
    assert (reason.code, reason.severity, reason.fact) == (fact.code, fact.severity, name)
    assert (reason.source, reason.destination) == (source.facts[name], destination.facts[name])
    assert reason.fix == fact.fix
    assert name in reason.message
    assert judge(source, destination).compatible is (fact.severity is not Severity.BLOCKS)


@pytest.mark.parametrize("side", ["source", "destination", "both"])
@pytest.mark.parametrize("name", FACTS)
def test_a_missing_fact_is_incompatible_whichever_side_lacks_it(name: str, side: str) -> None:
    less = manifest(without=name)
    source = less if side != "destination" else manifest()
    destination = less if side != "source" else manifest()
    verdict = judge(source, destination)
    assert not verdict.compatible
    assert [(reason.code, reason.fact) for reason in verdict.reasons] == [("fact-missing", name)]


@given(near(), st.sampled_from(sorted(FACTS)))
def test_no_pair_is_compatible_with_a_field_removed(one: Manifest, name: str) -> None:
    less = Manifest("device", {key: value for key, value in one.facts.items() if key != name})
    assert not judge(less, one).compatible
    assert not judge(one, less).compatible


@given(st.data())
def test_a_richer_destination_never_fits_worse(data: st.DataObject) -> None:
    source = data.draw(near())
    destination = data.draw(near(source))
    better = data.draw(richer(destination))
    before, after = judge(source, destination), judge(source, better)
    assert after.compatible or not before.compatible
    gone = {one.code for one in before.blocking()}
    assert {one.code for one in after.blocking()} <= gone


@given(st.data())
def test_compatibility_carries_over(data: st.DataObject) -> None:
    first = data.draw(near())
    second = data.draw(richer(first))
    third = data.draw(richer(second))
    if judge(first, second).compatible and judge(second, third).compatible:
        assert judge(first, third).compatible


def test_all_reasons_come_at_once_and_those_that_block_come_first() -> None:
    source = manifest()
    destination = manifest(
        {"host.kernel": "6.12.1", "identity.model": "b", "resources.vq": 1, "tracking.memory": False, "resources.vi": 9}
    )
    verdict = judge(source, destination)
    assert [reason.code for reason in verdict.reasons] == [
        "model-differs",
        "vq-fewer",
        "memory-tracking-missing",
        "destination-richer",
        "kernel-differs",
    ]
    assert [reason.code for reason in verdict.blocking()] == ["model-differs", "vq-fewer"]


def test_more_at_the_destination_is_said_and_does_not_block() -> None:
    verdict = judge(manifest(), manifest({"resources.vq": 5, "limits.max_transfer_bytes": 0}))
    assert verdict.compatible
    assert {reason.severity for reason in verdict.reasons} == {Severity.INFORMS}
    assert {reason.code for reason in verdict.reasons} == {"destination-richer"}


def test_an_unknown_fact_of_the_source_blocks_and_of_the_destination_does_not() -> None:
    later = manifest({"limits.later": 1})
    assert codes(later, later) == ["fact-unknown"]
    assert not judge(later, later).compatible
    assert not judge(later, manifest()).compatible
    assert judge(manifest(), later).compatible
    assert codes(manifest(), later) == ["fact-unknown"]


@pytest.mark.parametrize("value", [None, "4", True, [4], {"a": 1}, -1])
def test_a_value_the_fact_cannot_have_is_incompatible_even_with_itself(value: Any) -> None:
    broken = Manifest("device", {**manifest().facts, "resources.vq": value})
    assert not judge(broken, broken).compatible
    assert not judge(manifest(), broken).compatible


def test_a_verdict_holds_for_the_manifests_it_was_given_on_and_no_others() -> None:
    source, destination = manifest(), manifest({"resources.vq": 5})
    verdict = judge(source, destination)
    assert verdict.still_of(source, destination)
    assert not verdict.still_of(destination, source)
    assert not verdict.still_of(source, manifest({"resources.vq": 6}))


def test_the_documents_have_the_shape_their_schemas_promise() -> None:
    source, destination = manifest(subject={"host": "a"}), manifest({"identity.firmware": "2.1.1", "resources.vq": 9})
    policy = Policy.parse(
        'schema = "nvmelm.policy"\nversion = 1\n[[allow]]\nfact = "identity.firmware"\nwhy = "tested"\n'
    )
    judged = document(judge(source, destination, policy), source, destination).to_json()
    for whole, report in ((judged, VerdictDocument), (source.to_json(), ManifestDocument)):
        body = {key: value for key, value in whole.items() if key not in ("schema", "version")}
        assert TypeAdapter(report).validate_json(json.dumps(body)).to_json() == whole
    assert judged["policy_uses"] == [
        {"rule": "allow[1]", "action": "relaxed", "fact": "identity.firmware", "why": "tested"}
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        ([], "none"),
        ("", '""'),
        ([1, 2], "1,2"),
        (True, "true"),
        ("\x1b[31mred", "%1B%5B31mred"),
        ("x" * 300, "x" * 199 + "..."),
    ],
)
def test_a_value_is_shown_on_one_harmless_line(value: Any, text: str) -> None:
    assert shown(value) == text
