"""The stepwise dialect, as C. Huck proposed in August 2020: five steps, each reported, from the general to the special.

====  =========================================================================================================
1     device_api: the same interface towards the VM
2     the attributes of that api: for PCI the ids a guest's driver binds to
3     type: strictly the same; another attribute never makes up for another type
4     software_version: the same major, the destination's minor at least the source's, the rest ignored
5     the attributes of the type: everything else, aggregation (how many resources one function has) included
====  =========================================================================================================

A destination may have more than the source, never less. All steps are gone through, so that all reasons are known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nvmelm.compat.facts import FACTS
from nvmelm.compat.manifest import Manifest
from nvmelm.compat.policy import Policy
from nvmelm.compat.reasons import Reason
from nvmelm.compat.rules import Severity
from nvmelm.compat.verdict import Verdict, judge
from nvmelm.documents import Record, Report

#: The facts of the first four steps; every other fact belongs to the fifth.
_FACTS: tuple[tuple[str, str, frozenset[str]], ...] = (
    ("device_api", "the same interface towards the VM", frozenset({"host.vfio_driver"})),
    (
        "device_api attributes",
        "the PCI ids that a guest's driver binds to",
        frozenset({"identity.vendor_id", "identity.subsystem_vendor_id", "identity.vf_device_id"}),
    ),
    ("type", "strictly the same model", frozenset({"identity.model"})),
    (
        "software_version",
        "the same major, a minor at least the source's",
        frozenset({"identity.nvme_version"}),
    ),
)
_LAST = ("type attributes", "everything else, aggregation included")


@dataclass(frozen=True, slots=True)
class Step:
    """One step: what is compared, and what stands against it or should be known."""

    number: int
    name: str
    rule: str
    facts: tuple[str, ...]
    reasons: tuple[Reason, ...]

    @property
    def passed(self) -> bool:
        """Return whether nothing in it blocks."""
        return not any(reason.severity is Severity.BLOCKS for reason in self.reasons)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReason(Record):
    """What stands against a step, or should be known of it."""

    code: str
    severity: Severity
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepView(Record):
    """One step of a comparison."""

    step: int
    name: str
    rule: str
    passed: bool
    reasons: list[StepReason]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepsDocument(Report):
    """A comparison step by step."""

    schema_name = "nvmelm.steps"

    compatible: bool
    source_digest: str
    destination_digest: str
    steps: list[StepView]


def steps(source: Manifest, destination: Manifest, policy: Policy | None = None) -> tuple[Verdict, tuple[Step, ...]]:
    """Go through the steps; the verdict is the same as any other dialect's."""
    verdict = judge(source, destination, policy)
    early = frozenset().union(*(facts for _, _, facts in _FACTS))
    rows = [(name, rule, facts) for name, rule, facts in _FACTS]
    rest = frozenset({*FACTS, *source.facts, *destination.facts, *(reason.fact for reason in verdict.reasons)}) - early
    rows.append((*_LAST, rest))
    return verdict, tuple(_step(number, *row, verdict.reasons) for number, row in enumerate(rows, 1))


def document(verdict: Verdict, rows: Sequence[Step]) -> StepsDocument:
    """Return what ``nvmelm compat steps`` prints."""
    return StepsDocument(
        compatible=verdict.compatible,
        source_digest=verdict.source_digest,
        destination_digest=verdict.destination_digest,
        steps=[_view(row) for row in rows],
    )


def _view(row: Step) -> StepView:
    reasons = [StepReason(code=why.code, severity=why.severity, message=why.message) for why in row.reasons]
    return StepView(step=row.number, name=row.name, rule=row.rule, passed=row.passed, reasons=reasons)


def _step(number: int, name: str, rule: str, facts: frozenset[str], reasons: Sequence[Reason]) -> Step:
    return Step(number, name, rule, tuple(sorted(facts)), tuple(reason for reason in reasons if reason.fact in facts))
