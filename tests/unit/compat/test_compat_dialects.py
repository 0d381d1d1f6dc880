"""The dialects say what the verdict says, on any pair; and each keeps the rules of its proposal."""

from __future__ import annotations

import errno
import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nvmelm.compat.dialects import parameters, token
from nvmelm.compat.dialects.steps import steps
from nvmelm.compat.dialects.tree import fields
from nvmelm.compat.facts import FACTS
from nvmelm.compat.manifest import Manifest
from nvmelm.compat.verdict import judge
from nvmelm.errors import IncompatibleError, MalformedError, NotSupportedError
from tests.unit.manifests import ANY, manifest, near, other_pair, richer

PLAIN = settings(max_examples=150, deadline=None)


def by_parameters(source: Manifest, destination: Manifest) -> bool:
    try:
        wanted, model = parameters.source_list(source), parameters.model(source)
    except IncompatibleError:
        return False
    return not parameters.check(wanted, model, destination)


def agree(source: Manifest, destination: Manifest) -> bool:
    """Return what all dialects say; they must say the same."""
    verdict = judge(source, destination).compatible
    assert token.probe(token.encode(source), destination).accepted == verdict
    told, gone_through = steps(source, destination)
    assert told.compatible == verdict == all(step.passed for step in gone_through)
    assert by_parameters(source, destination) == verdict
    return verdict


@PLAIN
@given(near(), near())
def test_the_dialects_agree_with_the_verdict(source: Manifest, destination: Manifest) -> None:
    agree(source, destination)


@pytest.mark.parametrize("name", list(FACTS))
def test_the_dialects_agree_when_one_fact_does_not_go_with_the_other(name: str) -> None:
    source, destination = other_pair(name)
    agree(source, destination)
    agree(destination, source)


@pytest.mark.parametrize("name", list(FACTS))
def test_no_dialect_accepts_a_pair_with_a_fact_missing(name: str) -> None:
    assert not agree(manifest(without=name), manifest())
    assert not agree(manifest(), manifest(without=name))


def test_every_dialect_accepts_two_alike() -> None:
    assert agree(manifest(), manifest())


@PLAIN
@given(ANY, ANY)
def test_made_up_manifests_never_crash_a_dialect(source: Manifest, destination: Manifest) -> None:
    with suppress(NotSupportedError):  # too many facts for a string
        agree(source, destination)


# The opaque version.


def test_a_token_is_ascii_and_short() -> None:
    text = token.encode(manifest())
    assert text.isascii()
    assert text.startswith("nvmelm1-d-")
    assert len(text) <= 4096
    assert token.encode(manifest(level="prospective")).startswith("nvmelm1-t-")


def test_a_token_carries_its_facts_and_its_level() -> None:
    found = token.decode(token.encode(manifest(level="prospective")))
    assert found.digest == manifest().digest
    assert found.level == "prospective"


@given(st.text(max_size=60) | st.from_regex(r"nvmelm\d-[a-z]-[0-9a-f]{8}-[A-Za-z0-9_-]{1,40}", fullmatch=True))
@example("")
@example("nvmelm1-d-00000000-AAAA")
@settings(deadline=None)
def test_what_is_no_token_fails_with_an_errno_and_a_reason(text: str) -> None:
    tested = token.probe(text, manifest())
    assert not tested.accepted
    assert tested.errno in (errno.EBADMSG, errno.EPROTONOSUPPORT)
    assert tested.why


@given(position=st.integers(0, 5000), letter=st.sampled_from("ABCabc019-_"))
@settings(deadline=None)
def test_no_token_that_was_mistyped_is_accepted(position: int, letter: str) -> None:
    text = token.encode(manifest())
    at = position % len(text)
    changed = text[:at] + letter + text[at + 1 :]
    assert token.probe(changed, manifest()).accepted == (changed == text or changed[8] == "t")


def test_a_token_of_a_newer_nvmelm_is_refused_as_that() -> None:
    tested = token.probe(token.encode(manifest()).replace("nvmelm1", "nvmelm2", 1), manifest())
    assert tested.errno == errno.EPROTONOSUPPORT


def test_a_token_that_does_not_fit_fails_with_einval_and_every_reason() -> None:
    other = manifest({"identity.model": "another", "resources.vq": 1})
    tested = token.probe(token.encode(manifest()), other)
    assert tested.errno == errno.EINVAL
    assert "model" in tested.why
    assert tested.verdict is not None
    assert len(tested.verdict.blocking()) == 2


def test_facts_that_do_not_fit_a_token_make_none() -> None:
    many = list(range(1, 400))
    names = [name for name in FACTS if name.startswith("namespaces.") and name != "namespaces.ids"]
    lists: dict[str, Any] = {name: many for name in names if FACTS[name].kind == "ints"}
    lists |= {name: [f"{number * 7919:032x}" for number in many] for name in names if FACTS[name].kind == "texts"}
    with pytest.raises(NotSupportedError) as met:
        token.encode(manifest({"namespaces.ids": many, **lists}))
    assert met.value.reason == "token-too-long"


def test_a_token_that_unpacks_to_megabytes_is_refused() -> None:
    import base64
    import hashlib
    import zlib

    payload = base64.urlsafe_b64encode(zlib.compress(bytes(3_000_000), 9)).decode().rstrip("=")
    check = hashlib.sha256(payload.encode()).hexdigest()[:8]
    assert len(payload) < 4096
    with pytest.raises(MalformedError):
        token.decode(f"nvmelm1-d-{check}-{payload}")


# The steps.


def test_the_steps_come_in_the_proposals_order_and_hold_every_fact_once() -> None:
    _, found = steps(manifest(), manifest())
    assert [step.name for step in found] == [
        "device_api",
        "device_api attributes",
        "type",
        "software_version",
        "type attributes",
    ]
    assert sorted(fact for step in found for fact in step.facts) == sorted(FACTS)


@pytest.mark.parametrize(
    ("fact", "value", "number"),
    [
        ("host.vfio_driver", "another", 1),
        ("identity.vf_device_id", 1, 2),
        ("identity.model", "another", 3),
        ("identity.nvme_version", "1.4.0", 4),
        ("resources.vq", 1, 5),
    ],
)
def test_a_difference_is_told_in_its_step_and_the_others_are_gone_through(fact: str, value: Any, number: int) -> None:
    _, found = steps(manifest(), manifest({fact: value}))
    assert [step.number for step in found if not step.passed] == [number]


@pytest.mark.parametrize(
    ("source", "destination", "passes"),
    # Equal major, the destination's minor at least the source's, bugfix ignored.
    [
        ("2.0.2", "2.0.4", True),
        ("2.0.4", "2.0.2", True),
        ("2.0.0", "2.1.0", True),
        ("2.1.0", "2.0.9", False),
        ("2.1.0", "3.0.0", False),
        ("3.0.0", "2.1.0", False),
    ],
)
def test_software_versions_follow_the_rule_of_the_thread(source: str, destination: str, passes: bool) -> None:
    pair = (manifest({"identity.nvme_version": version}) for version in (source, destination))
    _, found = steps(*pair)
    assert found[3].passed == passes


# Model and parameters.


def test_the_published_information_has_the_proposals_form() -> None:
    told = json.loads(json.dumps(parameters.information(manifest())))
    ((model, body),) = told["models"].items()
    assert model == "nvmexpress.org/controller/1e4c/2101"
    for name, one in body["params"].items():
        assert not set("=/") & set(name)
        assert not any(char.isspace() for char in name)
        assert one["type"] in ("bool", "int", "str")
        assert "init_value" in one
        assert "\n" not in str(one["init_value"])
    assert body["params"]["resources.vq"]["allowed_values"] == ["0-4"]
    assert body["params"]["capabilities.state_versions.0"]["off_value"] is False


def test_the_list_of_a_source_leaves_out_what_is_switched_off() -> None:
    wanted = parameters.source_list(manifest({"capabilities.vendor_formats": []}))
    assert not any(name.startswith("capabilities.vendor_formats") for name in wanted)
    assert wanted["resources.vq"] == 4
    assert wanted["capabilities.state_versions.0"] is True


def test_a_destination_is_written_once_and_only_what_can_be_set_and_is_not_so_already() -> None:
    source = parameters.source_list(manifest({"resources.vq": 3, "resources.vi": 4}))
    assert parameters.writes(source, manifest()) == {"resources.vq": 3}
    assert parameters.writes(parameters.source_list(manifest()), manifest()) == {}


def test_a_name_the_destination_does_not_know_and_a_value_it_does_not_allow_are_told() -> None:
    wanted = {**parameters.source_list(manifest()), "future.feature": True, "resources.vq": 5}
    told = parameters.check(wanted, parameters.model(manifest()), manifest())
    assert len(told) == 2
    assert any("future.feature is no parameter" in line for line in told)
    assert any("0-4" in line for line in told)


@given(st.dictionaries(st.text(max_size=20) | st.sampled_from(["resources.vq", "identity.model"]), st.text(max_size=9)))
@settings(deadline=None)
def test_a_made_up_list_never_crashes_the_check(wanted: dict[str, Any]) -> None:
    parameters.check(wanted, "nowhere.example/x", manifest())


# The tree.


@PLAIN
@given(richer(manifest()))
def test_the_fields_of_a_tree_are_those_the_verdict_reads(one: Manifest) -> None:
    told = dict(fields(one))
    assert told["digest"] == one.digest
    assert set(one.facts) <= set(told)
    assert agree(manifest(), one)


# The proposals' own examples.


@pytest.mark.parametrize("text", ["8086-193b-i915-GVTg_V5_4-00000001", "8086-5917-i915-GVTg_V4_8-ffffffff"])
def test_another_vendors_opaque_string_is_refused(text: str) -> None:
    """The proposal's example: vendor, device, type and software version of a graphics driver."""
    assert token.probe(text, manifest()).errno == errno.EBADMSG


@pytest.mark.parametrize(
    ("source", "passes"),
    [("2.0.2", True), ("2.0.4", True), ("2.1.0", True), ("2.1.3", True), ("2.2.0", False), ("3.0.0", False)],
)
def test_a_destination_of_version_2_1_3_takes_what_the_thread_says(source: str, passes: bool) -> None:
    """The example of an interface version 2.1.3 whose compatible versions are 2.0.2 to 2.0.4 and 2.1.0 on."""
    pair = (manifest({"identity.nvme_version": version}) for version in (source, "2.1.3"))
    _, found = steps(*pair)
    assert found[3].passed == passes


def test_a_range_of_values_includes_both_its_ends() -> None:
    """The form "min-max" of the third proposal, for whole numbers."""
    (offered,) = [parameter for parameter in parameters.parameters(manifest()) if parameter.name == "resources.vq"]
    assert offered.allowed == ("0-4",)
    assert [offered.allows(number) for number in (0, 4, 5)] == [True, True, False]
    assert not offered.allows("4")
    assert not offered.allows(True)
