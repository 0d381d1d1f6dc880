"""``nvmelm vm``: step 5, pass a virtual function to a virtual machine and take it back; and VMs that move whole."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nvmelm.cli.frame import render
from nvmelm.cli.frame.domain import Connect, Libvirt, Taint, domain
from nvmelm.cli.frame.functions import Function, opened
from nvmelm.cli.frame.options import A_MOMENT, Unmarked, group, spans
from nvmelm.cli.frame.policy import policy_of
from nvmelm.cli.frame.run import Answer, Run, verb
from nvmelm.errors import ExitCode, UsageError
from nvmelm.vm import verbs as vm
from nvmelm.vm.report import VmArguments, VmReport

if TYPE_CHECKING:
    from nvmelm.vfio.options import Options
    from nvmelm.vm.check import VmCheck

app = group("Step 5: pass a virtual function to a virtual machine, and take it back.")

Socket = Annotated[str | None, typer.Option("--qmp", metavar="SOCKET", help="The VM's QMP socket.")]
Print = Annotated[
    bool, typer.Option("--print", help="Print QEMU arguments, libvirt XML and a Nova device spec; attach nothing.")
]
DeviceId = Annotated[str | None, typer.Option("--id", metavar="NAME", help="The VM's name for the device.")]
Bus = Annotated[str | None, typer.Option("--bus", metavar="PORT", help="The port to plug it into; else a free one.")]
Deadline = Annotated[
    float, typer.Option("--timeout", metavar="SPAN", parser=spans(A_MOMENT), help="How long the guest may take.")
]

VmmWords = Annotated[list[str], typer.Argument(metavar="-- VMM ARGS...", show_default=False, help="What to start.")]
Untracked = Annotated[
    bool,
    typer.Option(
        "--no-all-dirty",
        help="Do not report all memory as written where a controller does not track it. Its VM then stops for less "
        "time, but QEMU's enable-migration=auto refuses to migrate it.",
    ),
]
Disabled = Annotated[
    bool,
    typer.Option(
        "--arrive-disabled",
        help="A controller whose admin queue cannot be carried over leaves all the same; its guest resets it.",
    ),
]
Rules = Annotated[Path | None, typer.Option("--policy", metavar="FILE", help="The site's rules; nvmelm compat.")]
NoMemory = Annotated[
    bool,
    typer.Option(
        "--no-guest-memory",
        help="Do not follow where the VM's memory is mapped: a guest with a virtual IOMMU maps all the time. The admin "
        "queue then cannot be carried over.",
    ),
]
Users = Annotated[
    list[str] | None, typer.Option("--user", metavar="NAME", help="Whose VMMs are answered, besides root's; repeat it.")
]
Pid = Annotated[int | None, typer.Option("--pid", metavar="PID", min=1, help="The VM by its VMM's process.")]
AgentSocket = Annotated[Path, typer.Option("--socket", metavar="PATH", help="Where launchers connect.")]


@verb(app, "attach", changes=True)
def attach(
    run: Run,
    function: Function,
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
    with opened(run, function, change=not print_only) as (pf, which):
        if print_only:
            return _arguments(vm.arguments(pf, which, unmarked=unmarked, device_id=device_id, bus=bus))
        report = vm.attach(
            pf,
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
    function: Function,
    qmp: Socket = None,
    libvirt: Libvirt = None,
    connect: Connect = None,
    device_id: DeviceId = None,
    timeout: Deadline = "30s",  # type: ignore[assignment]  # typer parses it
) -> Answer:
    """Take a virtual function back from a VM; waits until the guest lets it go."""
    if _only_one({"--qmp": qmp is not None, "--libvirt": libvirt is not None}) is None:
        raise UsageError("say which VM has the VF", fix="--qmp SOCKET, or --libvirt DOMAIN", reason="arguments")
    named = domain(libvirt, connect)
    with opened(run, function, change=True) as (pf, which):
        report = vm.detach(
            pf,
            which,
            qmp=qmp,
            libvirt=named,
            device_id=device_id,
            timeout_s=timeout,
            confirm=run.confirm,
            dry_run=run.dry_run,
        )
    return _answer(report)


@verb(app, "run")
def run_vmm(
    run: Run,
    words: VmmWords,
    no_all_dirty: Untracked = False,
    arrive_disabled: Disabled = False,
    policy: Rules = None,
    no_guest_memory: NoMemory = False,
) -> int:
    """Start a VMM whose marked VFs can migrate with it; ends as the VMM does, with its exit status."""
    from nvmelm.cli.verbs.vm import supervised

    options = _options(not no_all_dirty, arrive_disabled, policy)
    return supervised.run_vmm(run, words, options, memory=not no_guest_memory)


@verb(app, "agent")
def agent(
    run: Run,
    users: Users = None,
    socket: AgentSocket = Path("/run/nvmelm/agent.sock"),
    no_all_dirty: Untracked = False,
    arrive_disabled: Disabled = False,
    policy: Rules = None,
) -> int:
    """Answer the VMMs that nvmelm-vmm starts, such as libvirt's, until a signal ends it; the service's own verb."""
    from nvmelm.cli.verbs.vm import supervised

    return supervised.serve(run, socket, users or [], _options(not no_all_dirty, arrive_disabled, policy))


@verb(app, "check")
def check(
    run: Run,
    qmp: Socket = None,
    libvirt: Libvirt = None,
    connect: Connect = None,
    may_taint: Taint = False,
    pid: Pid = None,
) -> Answer:
    """Say whether a VM can migrate with its VFs, and if not, every reason why. Exit 3: not, as far as is known."""
    from nvmelm.vm import check as vm_check  # 25 ms, for check alone

    if _only_one({"--qmp": qmp is not None, "--libvirt": libvirt is not None, "--pid": pid is not None}) is None:
        fix = "--qmp SOCKET, --libvirt DOMAIN, or --pid PID"
        raise UsageError("say which VM is meant", fix=fix, reason="arguments")
    checked = vm_check.check(run.host(), qmp=qmp, libvirt=domain(libvirt, connect, may_taint=may_taint), pid=pid)
    code = ExitCode.DONE if checked.can_migrate else ExitCode.NOT_SUPPORTED
    return Answer(checked, lambda: _checked(checked), exit_code=code)


def _checked(check: VmCheck) -> Iterator[str]:
    verdict = "can migrate" if check.can_migrate else "cannot migrate, as far as is known"
    process = f", process {check.pid}" if check.pid is not None else ""
    by = f"answered by nvmelm vm {check.supervised_by}" if check.supervised_by else "answered by nobody"
    yield f"{render.plain(check.vm)}{process}: {verdict}; {by}"
    for function in check.functions:
        mark = function.mark or "no mark"
        yield f"  {function.address} ({render.cntlid(function.cntlid)}): {mark}, {function.state or 'not answered'}"
        if function.refusal:
            yield f"    refused last: {render.plain(function.refusal)}"
    for reason in check.reasons:
        yield f"  {reason.level}: {render.plain(reason.message)}"
        yield f"    fix: {render.plain(reason.fix)}"


def _options(all_dirty: bool, arrive_disabled: bool, policy: Path | None) -> Options:
    from nvmelm.vfio.options import Options  # 19 ms, which attach and detach need not pay

    return Options(all_dirty=all_dirty, arrive_disabled=arrive_disabled, policy=policy_of(policy))


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


def _arguments(arguments: VmArguments) -> Answer:
    return Answer(arguments, lambda: _words(arguments))


def _words(arguments: VmArguments) -> Iterator[str]:
    yield "# arguments for QEMU"
    yield render.plain(shlex.join(arguments.qemu_arguments))
    yield ""
    yield "<!-- a device for libvirt's domain XML -->"
    yield from arguments.libvirt_xml.splitlines()
    yield ""
    yield "# section [pci] of OpenStack Nova's nova.conf"
    yield render.plain(arguments.nova_device_spec)
    yield from (f"# {note}" for note in arguments.notes)


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
