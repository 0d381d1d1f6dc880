"""``nvmelm source`` and ``nvmelm destination``: steps 1 to 4 in one run on either host, and 5 when a VM is named."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from nvmelm.cli.frame import render
from nvmelm.cli.frame.domain import Connect, Libvirt, domain
from nvmelm.cli.frame.options import Expires, Pf, Unmarked, Vfs, Vi, Vq, group
from nvmelm.cli.frame.run import Answer, Run, verb
from nvmelm.cli.views import changes
from nvmelm.cli.views.answers import changed
from nvmelm.documents import Report, about
from nvmelm.errors import UsageError
from nvmelm.inventory.opened import OpenPrimary
from nvmelm.inventory.picture import ChangeReport, Role
from nvmelm.prepare import sequence
from nvmelm.vm import verbs
from nvmelm.vm.report import VmReport

if TYPE_CHECKING:
    from nvmelm.vm.libvirt.client import DomainRef

app = group("The two hosts of a migration.")

Qmp = Annotated[
    str | None,
    typer.Option("--qmp", metavar="SOCKET", help="Step 5 too: pass the VFs to the QEMU with this QMP socket."),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedReport(Report):
    """A preparation that went on to step 5."""

    schema_name = "nvmelm.prepared"

    changed: bool
    prepared: ChangeReport
    passed: tuple[VmReport, ...] = field(metadata=about("step 5, one for each VF"))


class Vm(NamedTuple):
    """The VM of step 5: a QMP socket, or a domain of libvirt."""

    qmp: str | None
    libvirt: DomainRef | None

    @property
    def named(self) -> bool:
        """Return whether one was named at all."""
        return self.qmp is not None or self.libvirt is not None


def _register(host: str, about_it: str, role: Role) -> None:
    """Give one of the two hosts its verb; they differ in the mark that its functions get."""
    hosts = group(about_it, name=host)
    app.add_typer(hosts)

    @verb(hosts, "prepare", changes=True)
    def prepare(
        run: Run,
        pf: Pf,
        vfs: Vfs,
        vq: Vq = None,
        vi: Vi = None,
        unmarked: Unmarked = False,
        expires: Expires = None,
        qmp: Qmp = None,
        libvirt: Libvirt = None,
        connect: Connect = None,
    ) -> Answer:
        """Steps 1 to 4: enable VFs, share out resources, bring controllers online, mark them, bind them to vfio-pci."""
        vm = Vm(qmp, domain(libvirt, connect))
        if vm.qmp is not None and vm.libvirt is not None:
            raise UsageError("the VFs go to one VM", fix="--qmp SOCKET, or --libvirt DOMAIN")
        with run.primary(pf, change=True) as primary:
            report = sequence.prepare(
                primary,
                role,
                vfs,
                vq=vq,
                vi=vi,
                unmarked=unmarked,
                valid_s=expires,
                confirm=run.confirm,
                dry_run=run.dry_run,
            )
            return _go_on(run, primary, report, vm, vfs=vfs, unmarked=unmarked) if vm.named else changed(report)


_register("source", "The host that gives the controlled function away.", Role.MIGRATABLE)
_register("destination", "The host that takes the controlled function over.", Role.RESUMABLE)


def _go_on(run: Run, pf: OpenPrimary, report: ChangeReport, vm: Vm, *, vfs: int, unmarked: bool) -> Answer:
    """Pass every prepared VF to the VM; a dry run says which."""
    chosen = [secondary for secondary in pf.picture().secondaries if 1 <= secondary.vf_number <= vfs]
    if run.dry_run:
        which = f"the domain {vm.libvirt.name}" if vm.libvirt else f"the VM at {vm.qmp}"
        notes = tuple(f"then {secondary.address} would be passed to {which}" for secondary in chosen)
        return changed(replace(report, notes=(*report.notes, *notes)))
    passed = tuple(
        verbs.attach(pf, secondary.cntlid, qmp=vm.qmp, libvirt=vm.libvirt, unmarked=unmarked, confirm=run.confirm)
        for secondary in chosen
    )
    any_passed = any(vm_report.changed for vm_report in passed)
    document = PreparedReport(changed=report.changed or any_passed, prepared=report, passed=passed)
    return Answer(document, lambda: _lines(document))


def _lines(document: PreparedReport) -> Iterator[str]:
    yield from changes.change(document.prepared)
    yield ""
    for report in document.passed:
        done = f"passed to the VM as {report.device_id}" if report.changed else "the VM had it already"
        yield f"{render.cntlid(report.cntlid)} ({report.address}): {render.plain(done)}"
