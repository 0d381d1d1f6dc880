"""The pages on compatibility say what the code does: every fact's row, every rule, every policy that is printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nvmelm.compat.facts import FACTS
from nvmelm.compat.policy import Policy
from nvmelm.compat.reasons import CODES
from nvmelm.compat.rules import RULES

DOCS = Path(__file__).parents[3] / "docs"
GUIDE = (DOCS / "compat.md").read_text(encoding="utf-8")
FACTS_PAGE = (DOCS / "facts.md").read_text(encoding="utf-8")
POLICY = (DOCS / "compat-policy.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", FACTS)
def test_a_fact_has_its_row(name: str) -> None:
    fact = FACTS[name]
    signs = (("†", fact.settable), ("‡", fact.runtime), ("§", fact.fixed))
    marks = "".join(f" {sign}" for sign, meant in signs if meant)
    kind = f"{fact.kind}, {fact.unit}" if fact.unit else fact.kind
    row = f"| `{name}`{marks} | {kind} | {fact.meaning} | {fact.rule}, {fact.severity} | `{fact.code}` | {fact.fix} |"
    assert row in FACTS_PAGE.splitlines()


def test_no_row_speaks_of_a_fact_that_is_gone() -> None:
    assert set(re.findall(r"^\| `([a-z]+\.[a-z0-9_]+)`", FACTS_PAGE, re.MULTILINE)) == set(FACTS)


def test_every_rule_and_every_code_of_its_own_is_explained() -> None:
    for rule, meaning in RULES.items():
        assert f"| {rule} | {meaning} |" in FACTS_PAGE
    for code in CODES:
        assert f"`{code}`" in (POLICY if code.startswith("policy-") else GUIDE)


def test_every_policy_that_is_printed_can_be_used() -> None:
    printed = re.findall(r"```toml\n(.*?)```", POLICY, re.DOTALL)
    assert len(printed) == 2
    assert all(Policy.parse(text) for text in printed)


def test_the_facts_no_policy_can_relax_are_named() -> None:
    assert all(f"`{name}`" in POLICY for name, fact in FACTS.items() if fact.fixed)
