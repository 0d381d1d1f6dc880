"""``nvmelm vm``: step 5, pass a virtual function to a virtual machine and take it back."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Annotated

import typer

from nvmelm.cli import render
from nvmelm.cli.domain import Connect, Libvirt, Taint, domain
from nvmelm.cli.options import Unmarked, Vf, group
from nvmelm.cli.run import Answer, Run, verb
from nvmelm.errors import UsageError
from nvmelm.inventory import find_function
from nvmelm.operations import vm
from nvmelm.operations.vm_report import VmArguments, VmReport

app = group("Step 5: pass a virtual function to a virtual machine, and take it back.")

Socket = Annotated[str | None, typer.Option("--qmp", metavar="SOCKET", help="The VM's QMP socket.")]
Print = Annotated[
    bool, typer.Option("--print", help="Print QEMU arguments, libvirt XML and a Nova device spec; attach nothing.")
]
DeviceId = Annotated[str | None, typer.Option("--id", metavar="NAME", help="The VM's name for the device.")]
Bus = Annotated[str | None, typer.Option("--bus", metavar="PORT", help="The port to plug it into; else a free one.")]
Deadline = Annotated[int, typer.Option("--timeout", metavar="SECONDS", min=1, help="How long the guest may take.")]


@verb(app, "attach", changes=True)
def attach(
    run: Run,
    vf: Vf,
    qmp: Socket = None,
    libvirt: Libvirt = None,
    connect: Connect = None,
    may_taint: Taint = False,
    print_only: Print = False,
    device_id: DeviceId = None,
    bus: Bus = None,
    unmarked: Unmarked = False,
) -> Answer:
    """Plug a bound virtual function into a VM, or print what starts a VM with it."""
    given = {"--qmp": qmp is not None, "--libvirt": libvirt is not None, "--print": print_only}
    if _only_one(given) is None:
        fix = "--qmp SOCKET for a running QEMU, --libvirt DOMAIN, or --print"
        raise UsageError("say how the VM gets the VF", fix=fix, reason="arguments")
    named = domain(libvirt, connect, may_taint=may_taint)
    ref, which = find_function(run.host(), vf)
    with run.primary(ref, change=not print_only) as session:
        if print_only:
            return _arguments(vm.arguments(session, which, unmarked=unmarked, device_id=device_id, bus=bus))
        report = vm.attach(
            session,
            which,
            qmp=qmp,
            libvirt=named,
            unmarked=unmarked,
            device_id=device_id,
            bus=bus,
            confirm=run.confirm,
            dry_run=run.dry_run,
        )
    return _answer(report)


@verb(app, "detach", changes=True)
def detach(
    run: Run,
    vf: Vf,
    qmp: Socket = None,
    libvirt: Libvirt = None,
    connect: Connect = None,
    device_id: DeviceId = None,
    timeout: Deadline = 30,
) -> Answer:
    """Take a virtual function back from a VM; waits until the guest lets it go."""
    if _only_one({"--qmp": qmp is not None, "--libvirt": libvirt is not None}) is None:
        raise UsageError("say which VM has the VF", fix="--qmp SOCKET, or --libvirt DOMAIN", reason="arguments")
    named = domain(libvirt, connect)
    ref, which = find_function(run.host(), vf)
    with run.primary(ref, change=True) as session:
        report = vm.detach(
            session,
            which,
            qmp=qmp,
            libvirt=named,
            device_id=device_id,
            timeout_s=timeout,
            confirm=run.confirm,
            dry_run=run.dry_run,
        )
    return _answer(report)


def _only_one(given: dict[str, bool]) -> str | None:
    """Return the option that was given, None when none was.

    Raises:
        UsageError: several were.
    """
    names = [name for name, is_given in given.items() if is_given]
    if len(names) > 1:
        *most, last = given
        raise UsageError(
            f"only one of {', '.join(most)} and {last} can be meant",
            cause=f"{' and '.join(names)} are given",
            fix=f"keep one of them: {', or '.join(names)}",
            reason="arguments",
        )
    return names[0] if names else None


def _answer(report: VmReport) -> Answer:
    return Answer(report, lambda: _lines(report))


def _arguments(found: VmArguments) -> Answer:
    return Answer(found, lambda: _words(found))


def _words(found: VmArguments) -> Iterator[str]:
    yield "# arguments for QEMU"
    yield render.plain(shlex.join(found.qemu_arguments))
    yield ""
    yield "<!-- a device for libvirt's domain XML -->"
    yield from found.libvirt_xml.splitlines()
    yield ""
    yield "# section [pci] of OpenStack Nova's nova.conf"
    yield render.plain(found.nova_device_spec)
    yield from (f"# {note}" for note in found.notes)


def _lines(report: VmReport) -> Iterator[str]:
    name = f"{report.verb} {report.address} ({render.cntlid(report.cntlid)})"
    if report.dry_run:
        yield f"{name}: {'planned, nothing was changed' if report.commands else 'nothing to do'}"
        yield from (f"  {render.plain(command)}" for command in report.commands)
        return
    where = f" at {render.plain(report.bus)}" if report.bus else ""
    device = f", {render.plain(report.device_id)}{where}" if report.device_id else ""
    yield f"{name}: {'done' if report.changed else 'nothing to do'}{device}"
    for reason in report.migration_blockers:
        yield f"  QEMU's own migration is blocked: {render.plain(reason)}"
    yield from (f"  {note}" for note in (report.migration_note, *report.notes) if note)
