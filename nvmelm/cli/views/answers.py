"""The answers of changing verbs: one report, or one for each controlling function."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from nvmelm.cli.frame.functions import cntlids, grouped
from nvmelm.cli.frame.run import Answer, Run
from nvmelm.cli.views import changes
from nvmelm.documents import Report
from nvmelm.inventory.opened import OpenPrimary
from nvmelm.inventory.picture import ChangeReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes(Report):
    """What a verb did to several controlling functions, one after another."""

    schema_name = "nvmelm.changes"

    changed: bool
    reports: tuple[ChangeReport, ...]


def changed(report: ChangeReport) -> Answer:
    """Return the answer of a verb that changed one controlling function."""
    return Answer(report, lambda: changes.change(report))


def on_each(run: Run, words: Sequence[str], act: Callable[[OpenPrimary, list[int]], ChangeReport]) -> Answer:
    """Do something to controlled functions that may belong to several controlling ones, one of these after another.

    Raises:
        UsageError: a name is not that of a controlled function; nothing was done to any of them then.
    """
    reports = []
    for ref, chosen in grouped(run, words).items():
        with run.primary(ref, change=True) as pf:
            reports.append(act(pf, cntlids(run, pf, chosen)))
    return changed(reports[0]) if len(reports) == 1 else _several(reports)


def _several(reports: list[ChangeReport]) -> Answer:
    document = Changes(changed=any(report.changed for report in reports), reports=tuple(reports))

    def lines() -> Iterator[str]:
        for report in reports:
            yield from changes.change(report)

    return Answer(document, lines)
