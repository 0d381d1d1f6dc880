"""Two prepared emulated hosts whose VMs migrate with their functions, as QEMU's do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from nvmelm.emulator.guest.migrating_vm import MigratingVm
from nvmelm.emulator.host import EmulatedHost, create
from nvmelm.inventory.opened import open_primary
from nvmelm.inventory.picture import Role
from nvmelm.inventory.vm_moves import Moves
from nvmelm.prepare import allow, binding, secondaries, sriov
from nvmelm.vfio.emulated import CountedVectors, opening_of
from nvmelm.vfio.functions import HostFunctions
from nvmelm.vfio.options import Options
from nvmelm.vfio.seam import Opening
from tests.emulated.answers import agree

PF = "0000:01:00.0"
VF, SECOND = "0000:01:00.1", "0000:01:00.2"
FIRST = 0x42


class World:
    """Two hosts with one medium; VFs are migratable at the source and resumable at the destination.

    Args:
        row: generation of the source's device; ``there`` of the destination's, when it is another one.
    """

    def __init__(self, place: Path, row: Any = "nvme-2.1", *, there: Any = None, vfs: int = 2) -> None:
        self.source = self._host(place, "source", row, Role.MIGRATABLE, vfs)
        self.destination = self._host(place, "destination", there or row, Role.RESUMABLE, vfs)
        self.options = Options()
        self._vms: list[MigratingVm] = []

    @staticmethod
    def _host(place: Path, name: str, row: Any, role: Role, vfs: int) -> EmulatedHost:
        host = create(place / name, [row], serials=[name.upper()], storage=place / "media")
        with open_primary(host, PF, change=True) as pf:
            sriov.enable_sriov(pf, vfs, confirm=agree)
            which = [secondary.cntlid for secondary in pf.picture().secondaries[:vfs]]
            for cntlid in which:
                secondaries.assign(pf, cntlid, vq=3, vi=2, confirm=agree)
                secondaries.online(pf, cntlid, confirm=agree)
            allow.allow(pf, which, role, confirm=agree)
            binding.bind(pf, which, confirm=agree)
        return host

    def vm(self, host: EmulatedHost, bdf: str = VF, **values: Any) -> MigratingVm:
        """Start a VM's process, which opens its function."""
        functions = HostFunctions(host, self.options)
        vm = MigratingVm(host, bdf, lambda vm: functions.open(self.opening(vm)), **values)
        self._vms.append(vm)
        return vm

    def opening(self, vm: MigratingVm) -> Opening:
        """Return what an interposer hands over."""
        return opening_of(vm)

    def running(self, host: EmulatedHost | None = None, bdf: str = VF, **values: Any) -> MigratingVm:
        """Return a VM whose guest works."""
        vm = self.vm(host or self.source, bdf, **{"name": "db1", **values})
        vm.start()
        vm.boot()
        vm.work(30)
        return vm

    def waiting(self, bdf: str = VF) -> MigratingVm:
        """Return a VM that waits for a guest at the destination."""
        return self.vm(self.destination, bdf, name="db1")

    def restart_agent(self, vm: MigratingVm) -> None:
        """Have another agent take up a VM whose function is open."""
        opening = replace(opening_of(vm), reopened=True)
        vm.answering = HostFunctions(vm.host, self.options).open(opening)

    def end(self, vm: MigratingVm) -> None:
        """End a VM."""
        self._vms.remove(vm)
        vm.close()

    def close(self) -> None:
        for vm in self._vms:
            vm.close()
        for host in (self.source, self.destination):
            host.close()


def runs(vm: MigratingVm) -> bool:
    """Return whether the controller behind a VM fetches commands, as the device itself knows."""
    with vm.function.port() as port:
        return port is not None and port.works and bool(port.io and port.io["sqs"])


def untouched(vm: MigratingVm) -> bool:
    """Return whether a controller is as after a reset: off, not suspended, without queues."""
    with vm.function.port() as port:
        assert port is not None
        io = port.io
        return io is not None and not io["cc"] & 1 and not io["sqs"] and not port.controller["suspended"]


def events(host: EmulatedHost) -> list[tuple[str, str]]:
    """Return what a host's journal of moves says, with the streams' ids."""
    return [(record["event"], record["id"]) for record in Moves(host).journal()]


def refusals(host: EmulatedHost) -> str:
    """Return every reason a host's journal gives."""
    return "\n".join(record["reason"] for record in Moves(host).journal())


def vectors_of(vm: MigratingVm, opening: Opening) -> int:
    """Return how often all vectors of a function were raised."""
    assert isinstance(opening.vectors, CountedVectors)
    return opening.vectors.triggered
