"""A preparation that goes on to step 5: every prepared VF is passed to one VM."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from nvmelm.cli.frame import render
from nvmelm.cli.frame.run import Answer, Run
from nvmelm.cli.views import changes
from nvmelm.cli.views.answers import changed
from nvmelm.documents import Report, about
from nvmelm.inventory.opened import OpenPrimary
from nvmelm.inventory.picture import ChangeReport
from nvmelm.vm import verbs as vm
from nvmelm.vm.report import VmReport

if TYPE_CHECKING:
    from nvmelm.vm.libvirt.client import DomainRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared(Report):
    """A preparation that went on to step 5."""

    schema_name = "nvmelm.prepared"

    changed: bool
    prepared: ChangeReport
    passed: tuple[VmReport, ...] = field(metadata=about("step 5, one for each VF"))


def go_on(
    run: Run,
    pf: OpenPrimary,
    report: ChangeReport,
    *,
    vfs: int,
    qmp: str | None,
    libvirt: DomainRef | None,
    unmarked: bool,
) -> Answer:
    """Pass every prepared VF to the VM; a dry run says which."""
    chosen = [one for one in pf.picture().secondaries if 1 <= one.vf_number <= vfs]
    if run.dry_run:
        which = f"the domain {libvirt.name}" if libvirt else f"the VM at {qmp}"
        notes = tuple(f"then {one.address} would be passed to {which}" for one in chosen)
        return changed(replace(report, notes=(*report.notes, *notes)))
    passed = tuple(
        vm.attach(pf, one.cntlid, qmp=qmp, libvirt=libvirt, unmarked=unmarked, confirm=run.confirm) for one in chosen
    )
    document = Prepared(changed=report.changed or any(one.changed for one in passed), prepared=report, passed=passed)
    return Answer(document, lambda: _lines(document))


def _lines(document: Prepared) -> Iterator[str]:
    yield from changes.change(document.prepared)
    yield ""
    for one in document.passed:
        done = f"passed to the VM as {one.device_id}" if one.changed else "the VM had it already"
        yield f"{render.cntlid(one.cntlid)} ({one.address}): {render.plain(done)}"
