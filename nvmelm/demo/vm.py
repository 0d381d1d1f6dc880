"""A whole VM moves between two emulated hosts: its VMM asks as QEMU does, and is answered as a real one is.

Steps 1 to 4 are the verbs an operator types. Step 5 starts a VM whose VMM finds that its function can migrate; step 6
is the VMM's own migration. The guest does I/O and admin commands before and after, and looks at every byte of its own.
"""

from __future__ import annotations

import time
from contextlib import closing
from typing import Any

from nvmelm.demo.controller import COUNTS, SOME_COMMANDS, Demo, DemoReport, milliseconds
from nvmelm.emulator.guest.guest import Guest
from nvmelm.emulator.guest.migrating_vm import MigratingVm, MigrationState
from nvmelm.errors import DemoFailedError
from nvmelm.inventory.picture import Role, Secondary
from nvmelm.inventory.vm_moves import Moves
from nvmelm.vfio.emulated import opening_of
from nvmelm.vfio.functions import HostFunctions

#: So many admin commands have the completion ring wrap, and old commands lie in the other one.
_RESCANS = 40
_TURNS, _MOST_TURNS = 10, 10_000


class VmDemo(Demo):
    """A VM moves with its function."""

    def run(self) -> DemoReport:
        """Show it, from the first step to both hosts as they were found."""
        before = {name: self._cells(name) for name in self.hosts}
        with (
            closing(self._start("source", self._prepare("source", Role.MIGRATABLE))) as sender,
            closing(self._wait("destination", self._prepare("destination", Role.RESUMABLE))) as receiver,
        ):
            moved = self._migrate(sender, receiver)
            self._work(receiver)
            receiver.rescan(_RESCANS)
            seen = receiver.finish()
        self._release(before)
        self._judge(seen)
        counts = {name: getattr(seen, name) for name in COUNTS}
        return DemoReport(steps=tuple(self.steps), errors=tuple(seen.errors), **moved, **counts)

    def _open(self, name: str, secondary: Secondary) -> MigratingVm:
        functions = HostFunctions(self.hosts[name])
        vm = MigratingVm(
            self.hosts[name], str(secondary.address), lambda opened: functions.open(opening_of(opened)), name="guest"
        )
        if not vm.migratable:
            vm.close()
            raise DemoFailedError(f"the VM on the {name} host found that {secondary.address} cannot migrate")
        return vm

    def _start(self, name: str, secondary: Secondary) -> MigratingVm:
        """Step 5 at the source: a VM starts, and its guest works."""
        vm = self._open(name, secondary)
        vm.start()
        vm.boot()
        vm.rescan(_RESCANS)
        self._work(vm)
        self._done(name, 5, "pass to a VM", f"{secondary.address} to a running VM, which finds it migratable")
        return vm

    def _wait(self, name: str, secondary: Secondary) -> MigratingVm:
        """Step 5 at the destination: a VM waits for the guest."""
        vm = self._open(name, secondary)
        self._done(name, 5, "pass to a VM", f"{secondary.address} to a VM that waits for the guest")
        return vm

    @staticmethod
    def _work(vm: MigratingVm) -> None:
        """Let the guest complete some more I/O, and leave commands in flight."""
        if vm.guest is None:
            raise DemoFailedError("the VM has no guest")
        goal = vm.guest.report().completed + SOME_COMMANDS
        for _ in range(_MOST_TURNS):
            vm.work(_TURNS)
            seen = vm.guest.report()
            if seen.completed >= goal and seen.outstanding:
                return
        raise DemoFailedError(f"the guest did not complete {SOME_COMMANDS} commands")

    def _migrate(self, sender: MigratingVm, receiver: MigratingVm) -> dict[str, Any]:
        """Step 6, as the VMM does it."""
        guest = sender.guest
        if guest is None:
            raise DemoFailedError("the VM has no guest")
        receiver.reset()
        receiver.expect()
        sender.begin()
        in_flight = guest.report().outstanding
        start = time.monotonic()
        sender.stop()
        stopped = time.monotonic()
        data, configuration = sender.read_state(), sender.configuration
        read = time.monotonic()
        guest.freeze()
        receiver.function.memory.write(0, sender.function.memory.read(0, sender.function.memory.size))
        copied = time.monotonic()
        receiver.load(data, configuration)
        receiver.set(MigrationState.RUNNING_P2P)
        loaded = time.monotonic()
        receiver.set(MigrationState.RUNNING)
        resumed = time.monotonic()
        receiver.running = True
        receiver.guest, sender.guest = Guest.thaw(receiver.host, receiver.function), None
        sender.set(MigrationState.STOP)
        self._say_moved(sender, receiver, len(data))
        return {
            "downtime_ms": milliseconds(start, resumed),
            "suspend_ms": milliseconds(start, stopped),
            "save_ms": milliseconds(stopped, read),
            "memory_ms": milliseconds(read, copied),
            "restore_ms": milliseconds(copied, loaded),
            "resume_ms": milliseconds(loaded, resumed),
            "state_bytes": len(data),
            "in_flight": in_flight,
        }

    def _say_moved(self, sender: MigratingVm, receiver: MigratingVm, state_bytes: int) -> None:
        left, arrived = (Moves(vm.host).journal()[-1] for vm in (sender, receiver))
        if left["id"] != arrived["id"]:
            raise DemoFailedError("the two hosts' journals name different moves")
        self._done("source", 6, "the VMM migrates", f"{state_bytes} bytes of state read; its controller stands still")
        result = f"{arrived['event']} at {receiver.bdf}, under the id that both journals name"
        self._done("destination", 6, "the VMM migrates", result)
