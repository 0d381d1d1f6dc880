"""The table of facts: every rule does what its sentence says, and every fact can be written as text and read again."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvmelm.compat.facts import FACTS, missing
from nvmelm.compat.reasons import CODES, explanation
from nvmelm.compat.rules import Fact, Kind, Rule, Severity, decode, encode, satisfied, valid, version
from tests.unit.manifests import OTHER, WHOLE, values


def fact(kind: Kind, rule: Rule, **rest: object) -> Fact:
    return Fact("a.fact", kind, rule, Severity.BLOCKS, "a-code", "", "", **rest)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "rule", "source", "destination", "fits"),
    [
        (Kind.TEXT, Rule.EQUAL, "a", "a", True),
        (Kind.TEXT, Rule.EQUAL, "a", "A", False),
        (Kind.INTS, Rule.EQUAL, [1, 2], [2, 1], False),
        (Kind.INT, Rule.AT_LEAST, 4, 4, True),
        (Kind.INT, Rule.AT_LEAST, 4, 5, True),
        (Kind.INT, Rule.AT_LEAST, 4, 3, False),
        (Kind.INT, Rule.LIMIT, 4096, 0, True),
        (Kind.INT, Rule.LIMIT, 0, 0, True),
        (Kind.INT, Rule.LIMIT, 0, 4096, False),
        (Kind.INT, Rule.LIMIT, 4096, 8192, True),
        (Kind.INT, Rule.LIMIT, 8192, 4096, False),
        (Kind.INTS, Rule.SUPERSET, [], [], True),
        (Kind.INTS, Rule.SUPERSET, [0], [1, 0], True),
        (Kind.INTS, Rule.SUPERSET, [0, 1], [1], False),
        (Kind.VERSION, Rule.SAME_MAJOR, "2.1.0", "2.1", True),
        (Kind.VERSION, Rule.SAME_MAJOR, "2.1.9", "2.2.0", True),
        (Kind.VERSION, Rule.SAME_MAJOR, "2.10.0", "2.9.0", False),
        (Kind.VERSION, Rule.SAME_MAJOR, "1.4.0", "2.4.0", False),
        (Kind.BOOL, Rule.KEEPS, True, False, False),
        (Kind.BOOL, Rule.KEEPS, False, False, True),
        (Kind.BOOL, Rule.KEEPS, False, True, True),
        (Kind.BOOL, Rule.REQUIRED, True, False, False),
        (Kind.BOOL, Rule.REQUIRED, True, True, True),
        (Kind.BOOL, Rule.FORBIDDEN, False, False, True),
        (Kind.BOOL, Rule.FORBIDDEN, True, False, False),
        (Kind.BOOL, Rule.FORBIDDEN, False, True, False),
    ],
)
def test_a_rule_compares_as_its_sentence_says(
    kind: Kind, rule: Rule, source: object, destination: object, fits: bool
) -> None:
    assert satisfied(fact(kind, rule), source, destination) is fits  # type: ignore[arg-type]


def test_only_allowed_values_are_allowed_on_either_side() -> None:
    driver = fact(Kind.TEXT, Rule.ALLOWED, allowed=("vfio-pci",))
    assert satisfied(driver, "vfio-pci", "vfio-pci")
    assert not satisfied(driver, "vfio-pci", "other")
    assert not satisfied(driver, "other", "other")


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Kind.INT, True),
        (Kind.INT, -1),
        (Kind.INT, 2**64),
        (Kind.INT, "1"),
        (Kind.TEXT, 1),
        (Kind.TEXT, "x" * 1025),
        (Kind.BOOL, 1),
        (Kind.VERSION, "2"),
        (Kind.VERSION, "2.1.0.0"),
        (Kind.VERSION, "2.x"),
        (Kind.VERSION, "2.-1"),
        (Kind.INTS, [True]),
        (Kind.INTS, [1, "2"]),
        (Kind.INTS, 1),
        (Kind.TEXTS, [""]),
        (Kind.TEXTS, "a"),
        (Kind.TEXTS, [1]),
    ],
)
def test_a_value_of_another_kind_is_none_and_satisfies_nothing(kind: Kind, value: object) -> None:
    one = fact(kind, Rule.EQUAL)
    assert not valid(one, value)
    assert not satisfied(one, value, value)  # type: ignore[arg-type]


def test_what_a_verdict_has_to_turn_on_is_all_there_and_no_serial_number() -> None:
    asked = """identity.vendor_id identity.model identity.firmware identity.nvme_version capabilities.state_versions
    capabilities.vendor_formats limits.max_transfer_bytes limits.sq_entry_bytes limits.cq_entry_bytes
    limits.queue_entries resources.vq resources.vi tracking.memory tracking.user_data limits.page_bytes namespaces.ids
    namespaces.blocks namespaces.block_bytes namespaces.metadata_bytes namespaces.shared namespaces.write_protected
    namespaces.nguid namespaces.eui64 features.host_memory_buffer features.controller_memory_buffer
    features.persistent_memory_region features.doorbell_buffer host.vfio_driver host.iommu"""
    assert missing(FACTS) == []
    assert set(asked.split()) <= set(FACTS)
    assert not [name for name in FACTS if "serial" in name]


@pytest.mark.parametrize("name", FACTS)
def test_every_fact_has_a_code_a_meaning_and_a_fix_that_explain_finds(name: str) -> None:
    one = FACTS[name]
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", one.code)
    told = explanation(one.code)
    assert told is not None
    assert one.meaning in told[0]
    assert told[1] == one.fix


def test_no_two_facts_share_a_code() -> None:
    codes = [one.code for one in FACTS.values()]
    assert len(set(codes)) == len(codes)
    assert not set(codes) & set(CODES)
    assert explanation("no-such-code") is None


def test_the_samples_of_the_tests_speak_of_every_fact() -> None:
    assert set(WHOLE) == set(OTHER) == set(FACTS)
    assert all(valid(FACTS[name], value) for sample in (WHOLE, OTHER) for name, value in sample.items())


@given(st.data())
def test_what_is_written_as_text_is_read_again(data: st.DataObject) -> None:
    one = data.draw(st.sampled_from(list(FACTS.values())))
    value = data.draw(values(one))
    text = encode(value)
    assert text.isascii()
    assert text.isprintable()
    assert decode(one, text) == value


@given(st.text(max_size=40))
def test_any_other_text_is_no_value_or_the_very_text_of_one(text: str) -> None:
    for one in FACTS.values():
        value = decode(one, text)
        assert value is None or (valid(one, value) and encode(value) == text)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("resources.vq", "04"),
        ("resources.vq", "+4"),
        ("resources.vq", "٤"),
        ("host.iommu", "True"),
        ("namespaces.ids", "1,,2"),
        ("identity.model", "a\nb"),
        ("identity.model", "caf\u00e9"),
        ("identity.model", "%41"),
        ("capabilities.vendor_formats", "a,"),
    ],
)
def test_a_value_has_one_text_only(name: str, text: str) -> None:
    assert decode(FACTS[name], text) is None


def test_the_section_of_a_fact_is_the_first_part_of_its_name() -> None:
    assert {fact.section for fact in FACTS.values()} == {name.split(".")[0] for name in FACTS}
    assert FACTS["identity.firmware"].section == "identity"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("2", None),
        ("2.1", (2, 1, 0)),
        ("2.1.3", (2, 1, 3)),
        ("2.1.3.4", None),
        ("2.1.12345", (2, 1, 12345)),
        ("2.1.123456", None),
        ("2.x", None),
    ],
)
def test_a_version_has_two_or_three_parts_of_up_to_five_digits(text: str, parts: tuple[int, int, int] | None) -> None:
    assert version(text) == parts
