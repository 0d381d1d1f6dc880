"""A site's policy: it pins, relaxes and adds, shows each use, and never turns what is unknown into compatible."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvmelm.compat.facts import FACTS
from nvmelm.compat.manifest import Manifest
from nvmelm.compat.policy import Policy
from nvmelm.compat.rules import Severity
from nvmelm.compat.verdict import Verdict, judge
from nvmelm.errors import MalformedError
from tests.unit.manifests import manifest, near, other_pair

HEAD = 'schema = "nvmelm.policy"\nversion = 1\n'


def policy(text: str) -> Policy:
    return Policy.parse(HEAD + text)


def judged(text: str, source: Manifest, destination: Manifest) -> Verdict:
    return judge(source, destination, policy(text))


def uses(verdict: Verdict) -> list[tuple[str, str, str]]:
    return [(use.rule, use.action, use.fact) for use in verdict.policy_uses]


PAIR = '[[allow]]\nfact = "identity.firmware"\nsource = "2.1.0"\ndestination = "2.1.1"\nwhy = "tested"\n'


def test_a_firmware_pair_can_be_allowed_in_one_direction_and_the_verdict_says_so() -> None:
    old, new = manifest(), manifest({"identity.firmware": "2.1.1"})
    there = judged(PAIR, old, new)
    assert there.compatible
    (reason,) = there.reasons
    assert (reason.code, reason.severity, reason.policy) == ("firmware-differs", Severity.WARNS, "allow[1]: tested")
    assert uses(there) == [("allow[1]", "relaxed", "identity.firmware")]
    assert there.policy_digest == policy(PAIR).digest
    back = judged(PAIR, new, old)
    assert not back.compatible
    assert back.policy_uses == ()


@pytest.mark.parametrize("name", [name for name, fact in FACTS.items() if fact.severity is Severity.BLOCKS])
def test_a_difference_can_be_allowed_unless_a_state_would_be_lost(name: str) -> None:
    text = f'[[allow]]\nfact = "{name}"\nwhy = "we know"\n'
    if FACTS[name].fixed:
        with pytest.raises(MalformedError, match="cannot be relaxed"):
            policy(text)
        return
    verdict = judged(text, *other_pair(name))
    assert verdict.compatible
    assert uses(verdict) == [("allow[1]", "relaxed", name)]


def test_live_migration_formats_driver_and_iommu_cannot_be_relaxed() -> None:
    assert {name for name, fact in FACTS.items() if fact.fixed} == {
        "capabilities.live_migration",
        "capabilities.state_versions",
        "capabilities.vendor_formats",
        "host.vfio_driver",
        "host.iommu",
    }


def test_an_allowed_difference_does_not_allow_the_fact_to_be_missing() -> None:
    text = '[[allow]]\nfact = "identity.firmware"\nwhy = "any"\n'
    assert not judged(text, manifest(), manifest(without="identity.firmware")).compatible


MISSING = '[[allow]]\nfact = "features.persistent_memory_region"\nmissing = true\nwhy = "the vendor says so"\n'
PMR = "features.persistent_memory_region"


def test_a_fact_that_cannot_be_known_can_be_allowed_to_be_missing() -> None:
    less = manifest(without=PMR)
    assert judged(MISSING, less, less).compatible
    assert judged(MISSING, less, manifest()).compatible
    assert judged(MISSING, manifest(), less).compatible


def test_what_is_known_of_one_side_still_counts_when_the_other_may_be_missing() -> None:
    less, has = manifest(without=PMR), manifest({PMR: True})
    for pair in ((less, has), (has, less)):
        verdict = judged(MISSING, *pair)
        assert not verdict.compatible
        assert "persistent-memory-region" in [reason.code for reason in verdict.blocking()]
    assert not judged(MISSING, has, has).compatible


def test_a_rule_can_be_made_stricter() -> None:
    text = '[[require]]\nfact = "resources.vq"\nrule = "equal"\nwhy = "guests count their queues"\n'
    same = judged(text, manifest(), manifest())
    assert same.compatible
    assert uses(same) == [("require[1]", "held", "resources.vq")]
    more = judged(text, manifest(), manifest({"resources.vq": 8}))
    assert not more.compatible
    assert [reason.code for reason in more.blocking()] == ["policy-require"]
    assert uses(more) == [("require[1]", "broken", "resources.vq")]


def test_a_warning_can_be_made_to_block() -> None:
    source, destination = manifest(), manifest({"tracking.memory": False})
    assert judge(source, destination).compatible
    text = '[[require]]\nfact = "tracking.memory"\nwhy = "it has to move on"\n'
    assert not judged(text, source, destination).compatible


def test_a_requirement_is_broken_by_a_missing_fact() -> None:
    text = '[[require]]\nfact = "resources.vq"\nwhy = "x"\n'
    verdict = judged(text, manifest(), manifest(without="resources.vq"))
    assert uses(verdict) == [("require[1]", "broken", "resources.vq")]


@pytest.mark.parametrize(
    ("side", "source", "destination", "fits"),
    [
        ("both", "a controller", "a controller", True),
        ("both", "b", "b", False),
        ("source", "b", "b", False),
        ("destination", "b", "b", False),
    ],
)
def test_a_value_can_be_pinned(side: str, source: str, destination: str, fits: bool) -> None:
    text = f'[[pin]]\nfact = "identity.model"\nvalues = ["a controller"]\nside = "{side}"\nwhy = "qualified"\n'
    verdict = judged(text, manifest({"identity.model": source}), manifest({"identity.model": destination}))
    assert verdict.compatible is fits
    assert uses(verdict) == [("pin[1]", "held" if fits else "broken", "identity.model")]
    assert all(reason.policy == "pin[1]: qualified" for reason in verdict.blocking())


def test_a_pin_on_one_side_says_nothing_of_the_other() -> None:
    text = '[[pin]]\nfact = "resources.vq"\nvalues = [8]\nside = "destination"\nwhy = "x"\n'
    assert judged(text, manifest(), manifest({"resources.vq": 8})).compatible
    assert not judged(text, manifest(), manifest()).compatible


def test_a_pinned_fact_that_is_missing_blocks() -> None:
    text = MISSING + f'[[pin]]\nfact = "{PMR}"\nvalues = [false]\nwhy = "x"\n'
    less = manifest(without=PMR)
    assert not judged(text, less, less).compatible


def test_what_a_policy_allows_and_forbids_is_forbidden() -> None:
    text = PAIR + '[[pin]]\nfact = "identity.firmware"\nvalues = ["2.1.0"]\nwhy = "x"\n'
    assert not judged(text, manifest(), manifest({"identity.firmware": "2.1.1"})).compatible


def test_a_policy_does_not_touch_what_nobody_knows() -> None:
    later = manifest({"limits.later": 1})
    assert not judged(PAIR, later, later).compatible
    with pytest.raises(MalformedError):
        policy('[[allow]]\nfact = "limits.later"\nwhy = "x"\n')


@pytest.mark.parametrize(
    "text",
    [
        "unknown = 1",
        "allow = 1",
        "allow = [1]",
        '[[allow]]\nfact = "identity.firmware"',
        '[[allow]]\nfact = "identity.firmware"\nwhy = " "',
        '[[allow]]\nfact = "identity.firmware"\nwhy = 1',
        '[[allow]]\nwhy = "x"',
        '[[allow]]\nfact = ["identity.firmware"]\nwhy = "x"',
        '[[allow]]\nfact = "no.such"\nwhy = "x"',
        '[[allow]]\nfact = "identity.firmware"\nwhy = "x"\nsource = 1',
        '[[allow]]\nfact = "identity.firmware"\nwhy = "x"\nextra = 1',
        '[[allow]]\nfact = "identity.firmware"\nwhy = "x"\nseverity = "blocks"',
        '[[allow]]\nfact = "identity.firmware"\nwhy = "x"\nmissing = "yes"',
        '[[allow]]\nfact = "identity.firmware"\nwhy = "x"\nmissing = true\nsource = "1"',
        '[[require]]\nfact = "identity.firmware"\nwhy = "x"\nrule = "at-least"',
        '[[require]]\nfact = "resources.vq"\nwhy = "x"\nrule = "superset"',
        '[[require]]\nfact = "resources.vq"\nwhy = "x"\nrule = 1',
        '[[require]]\nfact = "resources.vq"\nwhy = "x"\nseverity = "informs"',
        '[[pin]]\nfact = "resources.vq"\nwhy = "x"',
        '[[pin]]\nfact = "resources.vq"\nwhy = "x"\nvalues = []',
        '[[pin]]\nfact = "resources.vq"\nwhy = "x"\nvalues = ["4"]',
        '[[pin]]\nfact = "resources.vq"\nwhy = "x"\nvalues = [4]\nside = "left"',
        '[[pin]]\nfact = "resources.vq"\nwhy = "x"\nvalues = [4]\nside = ["source"]',
    ],
)
def test_a_policy_that_cannot_be_meant_is_refused(text: str) -> None:
    with pytest.raises(MalformedError) as caught:
        policy(f"{text}\n")
    assert caught.value.reason == "policy-malformed"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"schema = 1",
        b'schema = "nvmelm.policy"',
        b'schema = "nvmelm.policy"\nversion = 2',
        b'schema = "nvmelm.policy"\nversion = true',
        b"\xff",
        b"a = " + b"[" * 100_000,
        b"#" * (1024 * 1024 + 1),
        HEAD.encode() + b"name = 1",
    ],
    ids=lambda raw: str(raw[:24]),
)
def test_a_file_that_is_no_policy_is_refused(raw: bytes) -> None:
    with pytest.raises(MalformedError):
        Policy.parse(raw)


_TOML = st.sampled_from(
    [
        *(f"[[{key}]]" for key in ("allow", "require", "pin", "deny")),
        *(f'fact = "{name}"' for name in FACTS),
        'why = "x"',
        "missing = true",
        'source = "2.1.0"',
        "source = true",
        "destination = 4",
        "values = [4]",
        'rule = "equal"',
        'severity = "informs"',
        'side = "source"',
        "= broken",
    ]
)


@given(st.lists(_TOML, max_size=12), near(), st.sampled_from(sorted(name for name in FACTS if FACTS[name].fixed)))
def test_a_made_up_policy_never_crashes_and_never_makes_a_torn_state_compatible(
    lines: list[str], one: Manifest, name: str
) -> None:
    try:
        rules = policy("\n".join(lines))
    except MalformedError:
        return
    less = Manifest("device", {key: value for key, value in one.facts.items() if key != name})
    assert not judge(less, one, rules).compatible
    assert not judge(one, less, rules).compatible
    source, destination = other_pair(name)
    assert not judge(source, destination, rules).compatible


@given(st.binary(max_size=200) | st.text(max_size=200))
def test_random_text_is_never_a_policy(text: Any) -> None:
    with pytest.raises(MalformedError):
        Policy.parse(text)


@pytest.mark.parametrize(("number", "taken"), [(1000, True), (1001, False)])
def test_a_policy_has_up_to_a_thousand_rules_of_a_kind(number: int, taken: bool) -> None:
    text = "".join(
        f'[[allow]]\nfact = "identity.firmware"\nsource = "{n}"\ndestination = "x"\nwhy = "y"\n' for n in range(number)
    )
    with nullcontext() if taken else pytest.raises(MalformedError, match="at most 1000"):
        assert judged(text, manifest(), manifest()).compatible


def test_a_fact_with_a_rule_of_its_own_may_be_given_that_rule_by_name() -> None:
    text = '[[require]]\nfact = "host.vfio_driver"\nrule = "allowed"\nwhy = "it says what it means"\n'
    assert uses(judged(text, manifest(), manifest())) == [("require[1]", "held", "host.vfio_driver")]
