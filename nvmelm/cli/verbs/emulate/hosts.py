"""What the verbs of ``nvmelm emulate`` do with an emulated host."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nvmelm.cli.frame import render
from nvmelm.cli.frame.run import Answer
from nvmelm.documents import Record, Report, about
from nvmelm.emulator.creation import default_devices, generation_named
from nvmelm.emulator.guest.report import GuestFindings as GuestCounts
from nvmelm.emulator.host import EmulatedHost
from nvmelm.emulator.host import create as create_host
from nvmelm.emulator.machine.state import Fault
from nvmelm.errors import ExitCode, MalformedError, UsageError, host_error
from nvmelm.numbers import decimal

Routes = tuple[tuple[int, int, int], ...]

_WORDS_OF_A_ROUTE = 3
_ANSWER_S = 10.0  # a monitor answers at once, unless another client has it


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatedHostMade(Report):
    """An emulated host that was made."""

    schema_name = "nvmelm.emulated_host"

    directory: str
    devices: tuple[str, ...] = field(metadata=about("the generation of each physical function, in order"))
    use_with: str = field(metadata=about("a command line that looks at it"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmedFault(Record):
    """Something that is to go wrong."""

    fault: str = field(metadata=about("as it is typed"))
    skip: int = field(metadata=about("matching events that still go well"))
    times: int = field(metadata=about("how often it then strikes"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmedFaults(Report):
    """The faults of an emulated host that have not struck yet."""

    schema_name = "nvmelm.faults"

    faults: tuple[ArmedFault, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation(Record):
    """A kind of device that can be emulated."""

    name: str
    about: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Generations(Report):
    """The kinds of device that can be emulated."""

    schema_name = "nvmelm.generations"

    generations: tuple[Generation, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestReport(Report):
    """What the guest of an emulated virtual machine has seen of its function."""

    schema_name = "nvmelm.guest"

    clean: bool = field(metadata=about("nothing was lost, doubled, misdirected or wrong"))
    submitted: int
    completed: int
    verified: int = field(metadata=about("reads whose data was the newest written"))
    outstanding: int
    lost: int
    doubled: int = field(metadata=about("completions of commands that were complete already, or never sent"))
    misdirected: int = field(metadata=about("completions that came through the wrong queue"))
    errors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Devices:
    """The devices of a host to be made.

    Attributes:
        names: their kinds; none: the usual one.
        each: how many of each kind.
        max_vfs: VFs each can have, or None for what its kind has; resources grow with them.
        routes: see :class:`~nvmelm.emulator.machine.generations.DeviceGeneration`; empty for what its kind has.
        serials: their serial numbers, in order.
    """

    names: tuple[str, ...] = ()
    each: int = 1
    max_vfs: int | None = None
    routes: Routes = ()
    serials: tuple[str, ...] = ()


def make(directory: Path, devices: Devices, storage: Path | None, options: dict[str, Any]) -> EmulatedHostMade:
    """Make an emulated host.

    Raises:
        UsageError: a kind is unknown, or there is a host in the directory already.
    """
    rows = [generation_named(name) for name in devices.names] or list(default_devices())
    if devices.max_vfs is not None:
        share = {"vq_flexible": max(4, devices.max_vfs * 4), "vi_flexible": max(2, devices.max_vfs * 2)}
        rows = [row.with_(max_vfs=devices.max_vfs, **share) for row in rows]
    if devices.routes:
        rows = [row.with_(vf_routes=devices.routes) for row in rows]
    rows = [row for row in rows for _ in range(devices.each)]
    create_host(directory, rows, serials=devices.serials, storage=storage, options=options).close()
    use = f"nvmelm --host {render.quote(f'emulated:{directory}')} list"
    return EmulatedHostMade(directory=str(directory), devices=tuple(row.name for row in rows), use_with=use)


def vf_routes(texts: Sequence[str]) -> Routes:
    """Read where the VFs of a PF are, as ``N:OFFSET:STRIDE``: from N VFs on; below the first, both are 1.

    Raises:
        UsageError: it is not written so, or one N stands twice.
    """
    routes = {0: (0, 1, 1)} if texts else {}
    for text in texts:
        numbers = [decimal(word, most=0xFFFF) for word in text.split(":")]
        least, *route = [number for number in numbers if number is not None] or [0]
        if len(numbers) != _WORDS_OF_A_ROUTE or len(route) != _WORDS_OF_A_ROUTE - 1 or 0 in route:
            cause = "three numbers: from how many VFs on, the First VF Offset and the VF Stride, at least 1 each"
            raise UsageError(f"{text!r} is not where VFs are", cause=cause, fix="--vf-route 3:2:1")
        if least in routes and least:
            raise UsageError(f"--vf-route says twice where VFs are from {least} on", fix="say it once")
        routes[least] = (least, *route)  # type: ignore[assignment]  # two of them, as was checked
    return tuple(routes[least] for least in sorted(routes))


def kernel_option(release: str) -> dict[str, str]:
    """Return the option of a host for a kernel, none for the usual one.

    Raises:
        UsageError: it does not begin with two numbers.
    """
    if not release:
        return {}
    numbers = [decimal(word, most=0xFFFF) for word in release.partition("-")[0].split(".")[:2]]
    if len(numbers) != 2 or None in numbers:
        raise UsageError(
            f"{release!r} is no kernel's release", cause="it begins with two numbers", fix="--kernel 5.10.0-28-amd64"
        )
    return {"kernel_release": release}


def opened(directory: Path) -> EmulatedHost:
    """Open an emulated host that is there.

    Raises:
        UsageError: there is none; opening it would make one.
    """
    if not (directory / "state.json").is_file():
        fix = f"nvmelm emulate create {render.quote(str(directory))}"
        raise UsageError(f"there is no emulated host: {directory}", fix=fix)
    return EmulatedHost(directory)


def armed(host: EmulatedHost) -> Answer:
    """Return the answer that lists the faults which have not struck yet."""
    with host.machine.view() as state:
        faults = tuple(
            ArmedFault(fault=_line(fault), skip=fault["skip"], times=fault["times"]) for fault in state["faults"]
        )
    document = ArmedFaults(faults=faults)
    return Answer(document, lambda: [fault.fault for fault in faults] or ["nothing is to go wrong"])


def _line(fault: Fault) -> str:
    """Return a fault as it is typed."""
    place = f"/{fault['path']}" if fault["where"] == "sysfs" else ""
    if fault["opcode"] >= 0:
        place = f"/{fault['opcode']:#04x}" + (f"/{fault['select']:#x}" if fault["select"] >= 0 else "")
    number = f"#{fault['skip'] + 1}" if fault["skip"] else ""
    times = f"*{fault['times']}" if fault["times"] > 1 else ""
    value = f":{fault['value']}" if fault["value"] else ""
    return f"{fault['where']}{place}{number}{times}={fault['action']}{value}"


def guest_report(socket: Path) -> GuestCounts:
    """Ask an emulated virtual machine for its guest's report.

    Raises:
        HostError: nobody listens at the socket.
        MalformedError: what answers is no emulated virtual machine.
    """
    try:
        answer = _ask(socket, "x-guest-report")
    except OSError as error:
        fix = "nvmelm emulate vmm DIR --socket PATH starts a virtual machine"
        raise host_error("cannot ask the virtual machine", str(socket), error, fix=fix) from error
    try:
        return GuestCounts(**answer["return"])
    except (KeyError, TypeError) as error:
        cause = "its monitor has no x-guest-report"
        raise MalformedError(f"{socket} is no emulated virtual machine's", cause=cause) from error


def _ask(path: Path, command: str) -> dict[str, Any]:
    """Negotiate with a monitor, run one command, and return its answer; events in between are passed over."""
    with socket.socket(socket.AF_UNIX) as monitor:
        monitor.settimeout(_ANSWER_S)
        monitor.connect(str(path))
        with monitor.makefile("rw", encoding="utf-8") as lines:
            for wanted in ("qmp_capabilities", command):
                lines.write(json.dumps({"execute": wanted}) + "\n")
            lines.flush()
            answers = (answer for line in lines if "event" not in (answer := json.loads(line)) and "QMP" not in answer)
            next(answers, {})
            return next(answers, {})


def guest_answer(report: GuestCounts) -> Answer:
    """Return the answer that shows what a guest has seen; exit 1 when something was lost, doubled or wrong."""
    document = GuestReport(clean=report.clean, **{**asdict(report), "errors": tuple(report.errors)})
    return Answer(document, lambda: _guest_lines(document), ExitCode.DONE if report.clean else ExitCode.FAILED)


def _guest_lines(seen: GuestReport) -> Iterator[str]:
    commands = render.count(seen.submitted, "command")
    yield f"{commands} submitted, {seen.completed} completed, {seen.outstanding} outstanding"
    reads = render.count(seen.verified, "read")
    yield f"{reads} verified; {seen.lost} lost, {seen.doubled} doubled, {seen.misdirected} misdirected"
    yield from (render.plain(error) for error in seen.errors)
    yield "clean" if seen.clean else "not clean"
