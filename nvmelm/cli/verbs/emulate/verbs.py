"""``nvmelm emulate``: emulated hosts, to practise on and to test with; ``--host emulated:DIR`` works on them.

What only one verb needs is imported by it: the emulated host costs 80 ms, its virtual machine 20 more, and
``emulate rsh`` stands for ssh, once for each connection.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated, Literal

import typer

from nvmelm.cli.frame.options import group, spans
from nvmelm.cli.frame.run import Answer, Run, verb
from nvmelm.cli.verbs.emulate.shell import run_there

app = group("Emulated hosts, for --host emulated:DIR.")
faults = group("What is to go wrong on an emulated host, and when.", name="fault")
app.add_typer(faults)

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="Directory of the emulated host.")]


@verb(app, "generations")
def generations(_: Run) -> Answer:
    """List the kinds of device that can be emulated."""
    from nvmelm.cli.verbs.emulate.hosts import Generation, Generations
    from nvmelm.emulator.machine.generations import GENERATIONS

    rows = tuple(Generation(name=name, about=row.about) for name, row in GENERATIONS.items())
    width = max(len(generation.name) for generation in rows)
    return Answer(
        Generations(generations=rows),
        lambda: [f"{generation.name.ljust(width)}  {generation.about}" for generation in rows],
    )


@verb(app, "create")
def create(
    _: Run,
    directory: Directory,
    generation: Annotated[
        list[str] | None,
        typer.Option("--generation", metavar="NAME", help="Kind of device (emulate generations); again for more."),
    ] = None,
    pfs: Annotated[int, typer.Option("--pfs", metavar="N", min=1, max=64, help="Devices of each kind.")] = 1,
    max_vfs: Annotated[
        int | None, typer.Option("--max-vfs", metavar="N", min=0, max=4096, help="VFs each device can have.")
    ] = None,
    serial: Annotated[
        list[str] | None, typer.Option("--serial", metavar="SN", help="Serial numbers, in order.")
    ] = None,
    shared_media: Annotated[
        Path | None, typer.Option("--shared-media", metavar="DIR", help="Hosts that name one DIR see the same blocks.")
    ] = None,
    latency_s: Annotated[
        float,
        typer.Option(
            "--latency",
            "--latency-ms",
            metavar="SPAN",
            parser=spans(unit="ms"),
            help="Every admin command takes this long; a bare number is of milliseconds.",
        ),
    ] = "0ms",  # type: ignore[assignment]  # typer parses it
    no_iommu: Annotated[bool, typer.Option("--no-iommu", help="A host whose IOMMU is off.")] = False,
    unsafe_noiommu: Annotated[
        bool, typer.Option("--unsafe-noiommu", help="VFIO's enable_unsafe_noiommu_mode is on.")
    ] = False,
    groups: Annotated[
        Literal["own", "vfs", "pf"],
        typer.Option("--groups", help="In a VF's IOMMU group: it alone, the PF's VFs, or the PF too."),
    ] = "own",
    kernel: Annotated[
        str, typer.Option("--kernel", metavar="RELEASE", help="The kernel, as uname -r says, such as 5.10.0-28-amd64.")
    ] = "",
    native_multipath: Annotated[
        bool, typer.Option("--native-multipath", help="The nvme driver shows paths, and disks below subsystems.")
    ] = False,
    vf_route: Annotated[
        list[str] | None,
        typer.Option("--vf-route", metavar="N:OFFSET:STRIDE", help="Where VFs are from N of them on; repeatable."),
    ] = None,
) -> Answer:
    """Make an emulated host; it keeps its state in DIR from one command to the next."""
    from nvmelm.cli.verbs.emulate.hosts import Devices, kernel_option, make, vf_routes

    options = {
        "latency_ms": latency_s * 1000,
        "iommu": not (no_iommu or unsafe_noiommu),
        "noiommu": unsafe_noiommu,
        "groups": groups,
        "native_multipath": native_multipath,
        **kernel_option(kernel),
    }
    devices = Devices(tuple(generation or ()), pfs, max_vfs, vf_routes(vf_route or ()), tuple(serial or ()))
    made = make(directory, devices, shared_media, options)
    return Answer(made, lambda: [f"an emulated host with {_devices(made.devices)}", f"use it with: {made.use_with}"])


def _devices(names: tuple[str, ...]) -> str:
    counts = {name: names.count(name) for name in names}
    return ", ".join(f"{number} {name}" for name, number in counts.items())


@verb(faults, "add")
def add(
    _: Run,
    directory: Directory,
    fault: Annotated[list[str], typer.Argument(metavar="FAULT...", help="Such as admin/0x41/2#1=status:0x4006.")],
) -> Answer:
    """Let something go wrong: WHERE[#N][*TIMES]=ACTION[:VALUE].

    WHERE is admin, admin/OPCODE, admin/OPCODE/SELECT or sysfs/GLOB; #N is the N-th match from now on; ACTION is
    status:V, delay:MS, lose, reset, vanish, nonsense:KIND, errno:NAME, silent, crash-before or crash-after.
    """
    from nvmelm.cli.verbs.emulate.hosts import armed, opened

    with opened(directory) as host:
        host.arm(*fault)
        return armed(host)


@verb(faults, "list")
def list_faults(_: Run, directory: Directory) -> Answer:
    """List the faults that have not struck yet."""
    from nvmelm.cli.verbs.emulate.hosts import armed, opened

    with opened(directory) as host:
        return armed(host)


@verb(faults, "clear")
def clear(_: Run, directory: Directory) -> Answer:
    """Forget every fault that has not struck yet."""
    from nvmelm.cli.verbs.emulate.hosts import armed, opened

    with opened(directory) as host:
        host.disarm()
        return armed(host)


@verb(app, "vmm")
def vmm(
    run: Run,
    directory: Directory,
    socket: Annotated[Path, typer.Option("--socket", metavar="PATH", help="The QMP socket to make.")],
    paused: Annotated[bool, typer.Option("--paused", help="Wait for cont, as -S does.")] = False,
    incoming: Annotated[bool, typer.Option("--incoming", help="Wait for a guest from elsewhere.")] = False,
    refuse_unplug: Annotated[bool, typer.Option("--refuse-unplug", help="The guest refuses device_del.")] = False,
) -> Answer:
    """Run an emulated virtual machine until Ctrl-C or QMP's quit; a guest does I/O on the first VF it gets."""
    from nvmelm.cli.verbs.emulate.hosts import guest_answer, opened
    from nvmelm.emulator.guest.vmm import EmulatedVmm

    with (
        opened(directory) as host,
        EmulatedVmm(host, socket=socket, running=not paused, incoming=incoming, refuse_unplug=refuse_unplug) as machine,
    ):
        run.say(f"a virtual machine listens at {socket}; Ctrl-C ends it")
        with contextlib.suppress(KeyboardInterrupt):
            machine.wait()
        return guest_answer(machine.report())


@verb(app, "guest")
def guest(
    _: Run, socket: Annotated[Path, typer.Argument(metavar="SOCKET", help="The QMP socket of an emulated machine.")]
) -> Answer:
    """Ask an emulated virtual machine what its guest has seen: commands, completions, lost, doubled, corrupt."""
    from nvmelm.cli.verbs.emulate.hosts import guest_answer, guest_report

    return guest_answer(guest_report(socket))


@verb(app, "rsh")
def rsh(
    _: Run,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where the emulated hosts are, by name.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="The host.")],
    command: Annotated[str, typer.Argument(metavar="COMMAND", help="One shell line.")],
) -> int:
    """Stand for ssh between emulated hosts: run a command where NVMELM_HOST is emulated:DIR/NAME.

    For: nvmelm migrate ... --to ssh://NAME/PF --rsh "nvmelm emulate rsh DIR"
    """
    return run_there(directory, name, command)
