"""A VM moves with its function between two emulated hosts, in QEMU's order, and its guest does not notice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nvmelm.emulator.host import EmulatedHost, create
from nvmelm.emulator.migrating_vm import MigratingVm, migrate
from nvmelm.model import Role
from nvmelm.operations import provision
from nvmelm.operations.session import session
from nvmelm.vfio.emulated import opening_of
from nvmelm.vfio.functions import HostFunctions
from tests.emulated.answers import agree

PF, VF = "0000:01:00.0", "0000:01:00.1"


class World:
    """Two prepared hosts with one medium."""

    def __init__(self, place: Path, row: Any = "nvme-2.1", vfs: int = 2) -> None:
        self.hosts = {
            name: create(place / name, [row], serials=[name.upper()], storage=place / "media")
            for name in ("source", "destination")
        }
        for name, host in self.hosts.items():
            self.prepare(host, Role.MIGRATABLE if name == "source" else Role.RESUMABLE, vfs)
        self.vms: list[MigratingVm] = []

    def prepare(self, host: EmulatedHost, role: Role, vfs: int) -> None:
        with session(host, PF, change=True) as opened:
            provision.enable_sriov(opened, vfs, confirm=agree)
            for cntlid in [one.cntlid for one in opened.picture().secondaries[:vfs]]:
                provision.assign(opened, cntlid, vq=3, vi=2, confirm=agree)
                provision.online(opened, cntlid, confirm=agree)
                provision.allow(opened, [cntlid], role, confirm=agree)
                provision.bind(opened, [cntlid], confirm=agree)

    def vm(self, name: str, bdf: str = VF, **values: Any) -> MigratingVm:
        host = self.hosts[name]
        functions = HostFunctions(host)
        vm = MigratingVm(host, bdf, lambda vm: functions.open(opening_of(vm)), name=f"vm-{name}", **values)
        self.vms.append(vm)
        return vm

    def close(self) -> None:
        for vm in self.vms:
            vm.close()
        for host in self.hosts.values():
            host.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def test_a_vm_moves_with_its_function_and_its_guest_does_not_notice(world: World) -> None:
    source, destination = world.vm("source"), world.vm("destination")
    source.start()
    source.boot()
    source.work(50)
    source.rescan(7)
    migrate(source, destination)
    destination.work(50)
    destination.rescan(9)
    report = destination.finish()
    assert report.clean, report
    assert report.verified
