"""Two emulated hosts, the six steps on both, and a guest that does I/O from the first to the last.

Every step is the verb an operator would type: the functions called here are those the command line calls. The guest
writes and verifies numbered blocks all the while, with commands in flight when its controller is suspended, and counts
what it submitted, what completed, and what was lost or came twice. One of either fails the demo.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nvmelm.documents import Record, Report
from nvmelm.emulator.guest.report import GuestFindings as GuestReport
from nvmelm.emulator.guest.vmm import EmulatedVmm
from nvmelm.emulator.host import EmulatedHost, create
from nvmelm.errors import DemoFailedError
from nvmelm.inventory.opened import OpenPrimary, open_primary
from nvmelm.inventory.picture import Role, Secondary
from nvmelm.prepare import allow, binding, release, secondaries, sriov
from nvmelm.prepare.cells import Cells, cells_of
from nvmelm.process.waiting import wait_until
from nvmelm.state import verbs
from nvmelm.vm import verbs as vm

PF = "0000:01:00.0"
VFS = 2
#: What the guest completes before and after the move, so that there is something to lose.
SOME_COMMANDS = 200
COUNTS = ("submitted", "completed", "verified", "lost", "doubled", "misdirected")

Say = Callable[["DemoStep"], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoStep(Record):
    """One line of the demo: which host, which of the six steps, what it is called, and what came of it."""

    host: str
    step: int
    name: str
    result: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoReport(Report):
    """What the demo showed. Downtime is from the suspend being sent to the resume being answered."""

    schema_name = "nvmelm.demo"

    steps: tuple[DemoStep, ...]
    downtime_ms: float
    suspend_ms: float
    save_ms: float
    memory_ms: float
    restore_ms: float
    resume_ms: float
    state_bytes: int
    in_flight: int
    submitted: int
    completed: int
    verified: int
    lost: int
    doubled: int
    misdirected: int
    errors: tuple[str, ...]


def run(directory: Path, say: Say, demo: type[Demo] | None = None) -> DemoReport:
    """Make two emulated hosts in a directory, and move a running controller from one to the other.

    Args:
        directory: an empty directory for the hosts, their media and the state image.
        say: called with each step when it is done.
        demo: what is shown; a controller that moves alone, when left out.

    Raises:
        DemoFailedError: a completion was lost or doubled, or data was wrong.
        NvmelmError: a step failed.
    """
    demo = demo or Demo
    with ExitStack() as stack:
        hosts = {
            name: create(directory / name, ["nvme-2.1"], serials=[f"DEMO-{name.upper()}"], storage=directory / "media")
            for name in ("source", "destination")
        }
        for host in hosts.values():
            stack.enter_context(host)
        return demo(directory, hosts, say, stack).run()


class Demo:
    """A controller moves alone: the six steps on both hosts, with the verbs that an operator types."""

    def __init__(self, directory: Path, hosts: dict[str, EmulatedHost], say: Say, stack: ExitStack) -> None:
        self.directory = directory
        self.hosts = hosts
        self.say = say
        self.stack = stack
        self.steps: list[DemoStep] = []

    def run(self) -> DemoReport:
        """Show it, from the first step to both hosts as they were found."""
        before = {name: self._cells(name) for name in self.hosts}
        source = self._prepare("source", Role.MIGRATABLE)
        sender = self._pass_to_vm("source", source, incoming=False)
        destination = self._prepare("destination", Role.RESUMABLE)
        receiver = self._pass_to_vm("destination", destination, incoming=True)
        moved = self._move(source, destination, sender, receiver)
        self._let_work(receiver, "on the destination")
        seen = receiver.finish()
        self._undo(destination, receiver, before)
        self._judge(seen)
        counts = {name: getattr(seen, name) for name in COUNTS}
        return DemoReport(steps=tuple(self.steps), errors=tuple(seen.errors), **moved, **counts)

    def _done(self, host: str, step: int, name: str, result: str) -> None:
        self.steps.append(DemoStep(host=host, step=step, name=name, result=result))
        self.say(self.steps[-1])

    def _session(self, name: str) -> AbstractContextManager[OpenPrimary]:
        return open_primary(self.hosts[name], PF, change=True)

    def _cells(self, name: str) -> Cells:
        with self._session(name) as opened:
            return cells_of(opened.picture())

    def _prepare(self, name: str, role: Role) -> Secondary:
        """Steps 1 to 4, one verb at a time."""
        with self._session(name) as opened:
            sriov.enable_sriov(opened, VFS, confirm=_agree)
            self._done(name, 1, "enable SR-IOV", f"{VFS} VFs on {PF}, driver autoprobe off")
            picture = opened.picture()
            chosen = picture.secondaries[:VFS]
            names = ", ".join(f"{secondary.cntlid:#06x} is {secondary.address}" for secondary in chosen)
            self._done(name, 2, "list the secondary controllers", f"{len(picture.secondaries)}, of which {names}")
            for secondary in chosen:
                secondaries.assign(opened, secondary.cntlid, vq=3, vi=2, confirm=_agree)
                secondaries.online(opened, secondary.cntlid, confirm=_agree)
            which = [secondary.cntlid for secondary in chosen]
            allow.allow(opened, which, role, confirm=_agree)
            verb = "allow migration" if role is Role.MIGRATABLE else "allow migration resume"
            self._done(name, 3, verb, f"3 VQ and 2 VI resources each, online, {role}")
            binding.bind(opened, which, confirm=_agree)
            picture = opened.picture()
            nodes = ", ".join(str(secondary.vfio_node) for secondary in picture.secondaries[:VFS])
            self._done(name, 4, "bind to VFIO", nodes)
            return picture.secondaries[0]

    def _pass_to_vm(self, name: str, secondary: Secondary, *, incoming: bool) -> EmulatedVmm:
        """Step 5: a VM of its own process' kind, with a monitor, takes the VF."""
        socket = self.directory / f"{name}.qmp"
        inside = self.stack.enter_context(EmulatedHost(self.directory / name))
        machine = self.stack.enter_context(EmulatedVmm(inside, socket=socket, incoming=incoming))
        if _speaks_qmp():
            with self._session(name) as opened:
                bus = vm.attach(opened, secondary.cntlid, qmp=str(socket), confirm=_agree).bus
        else:  # the emulated VM does what it would be told through its monitor
            bus = "rp1"
            machine.device_add({"driver": "vfio-pci", "host": secondary.address, "id": "demo", "bus": bus})
        waits = "a VM that waits for the guest" if incoming else "a running VM"
        self._done(name, 5, "pass to a VM", f"{secondary.address} to {waits}, at {bus}")
        if not incoming:
            self._let_work(machine, "on the source")
        return machine

    def _let_work(self, machine: EmulatedVmm, where: str) -> None:
        """Wait until the guest has done some more I/O and has commands in flight."""
        goal = machine.report().completed + SOME_COMMANDS
        what = f"the guest to complete {SOME_COMMANDS} commands {where}"
        wait_until(lambda: machine.report().completed >= goal, what, deadline_s=60)
        wait_until(lambda: machine.report().outstanding > 0, "the guest to have commands in flight", deadline_s=60)

    def _move(
        self, source: Secondary, destination: Secondary, sender: EmulatedVmm, receiver: EmulatedVmm
    ) -> dict[str, Any]:
        """Step 6, with the VMM's part of it: the guest's processors stop, and its memory moves."""
        image = self.directory / "controller.state"
        with self._session("source") as source_pf, self._session("destination") as destination_pf:
            in_flight = sender.report().outstanding
            start = time.monotonic()
            verbs.suspend(source_pf, source.cntlid, confirm=_agree)
            suspended = time.monotonic()
            sender.stop({})
            saved = verbs.save(source_pf, source.cntlid, image)
            kept = time.monotonic()
            receiver.take_over(sender)
            copied = time.monotonic()
            verbs.restore(destination_pf, destination.cntlid, image, confirm=_agree)
            restored = time.monotonic()
            verbs.resume(destination_pf, destination.cntlid, confirm=_agree)
            resumed = time.monotonic()
        receiver.cont({})
        self._done("source", 6, "start migration", f"{source.cntlid:#06x} suspended, {saved.state_bytes} bytes saved")
        done = f"restored into {destination.cntlid:#06x}, resumed"
        self._done("destination", 6, "start migration resume", done)
        sender.close()  # the VM has nothing to run any more, and lets go of its VF
        with self._session("source") as source_pf:
            secondaries.offline(source_pf, source.cntlid, confirm=_agree)
        return {
            "downtime_ms": milliseconds(start, resumed),
            "suspend_ms": milliseconds(start, suspended),
            "save_ms": milliseconds(suspended, kept),
            "memory_ms": milliseconds(kept, copied),
            "restore_ms": milliseconds(copied, restored),
            "resume_ms": milliseconds(restored, resumed),
            "state_bytes": saved.state_bytes,
            "in_flight": in_flight,
        }

    def _undo(self, destination: Secondary, receiver: EmulatedVmm, before: dict[str, Cells]) -> None:
        if _speaks_qmp():
            with self._session("destination") as destination_pf:
                socket = str(self.directory / "destination.qmp")
                vm.detach(destination_pf, destination.cntlid, qmp=socket, confirm=_agree)
        receiver.close()
        self._release(before)

    def _release(self, before: dict[str, Cells]) -> None:
        """Undo the steps on both hosts, and make sure that they are as they were found."""
        for name, cells in before.items():
            with self._session(name) as opened:
                release.release(opened, confirm=_agree)
                if cells_of(opened.picture()) != cells:
                    raise DemoFailedError(f"release left the {name} host otherwise than it was found")

    def _judge(self, seen: GuestReport) -> None:
        if not seen.clean or not seen.verified or seen.submitted != seen.completed:
            cause = (
                f"{seen.lost} lost, {seen.doubled} doubled, {seen.misdirected} misdirected; {'; '.join(seen.errors)}"
            )
            raise DemoFailedError("the guest noticed the move", cause=cause, fix="this is a bug: please report it")


def _speaks_qmp() -> bool:
    """Return whether the package that speaks with a QEMU's monitor is installed; a plain install has none."""
    try:
        import qemu.qmp  # noqa: F401
    except ImportError:
        return False
    return True


def _agree(question: str) -> None:
    """Agree: what the demo stops and loses is its own."""


def milliseconds(start: float, end: float) -> float:
    """Return how long something took, in the digits that are shown."""
    return round((end - start) * 1000, 3)
