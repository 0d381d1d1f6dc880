"""Can this VM migrate, and if not, why not: every reason at once, each with what mends it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nvmelm import cli
from nvmelm.emulator.guest.migrating_vm import MigratingVm
from nvmelm.errors import HostError, UsageError
from nvmelm.inventory.opened import open_primary
from nvmelm.inventory.picture import Role
from nvmelm.inventory.vm_moves import Moves
from nvmelm.prepare import allow
from nvmelm.vm import check as vm_check
from nvmelm.vm.check import VmCheck
from nvmelm.vm.libvirt.client import DomainRef
from nvmelm.vm.presence import announce, directory, forget
from tests.emulated.answers import agree
from tests.emulated.vfio_world import FIRST, PF, World
from tests.unit import fake_libvirt
from tests.unit.fake_libvirt import FakeDomain, FakeLibvirt
from tests.unit.qmp_server import GREETING, Machine, serving
from tests.unit.vm.test_libvirt import hostdev

MODERN = {"QMP": {**GREETING["QMP"], "version": {"qemu": {"major": 10, "minor": 0, "micro": 2}}}}


class Bench:
    """A VM with a marked function, supervised, behind a monitor that finds nothing wrong."""

    def __init__(self, world: World, directory: Path) -> None:
        self.world, self.host = world, world.source
        self.vm: MigratingVm = world.running()
        self.machine = Machine(status="running")
        self.socket = directory / "qmp"
        self.greeting = MODERN
        self.answers: dict[str, Any] = {"query-migrate-parameters": {"downtime-limit": 60_000}}
        announce(self.host.state_dir, os.getpid(), lambda pid: "db1", "agent")

    def check(self) -> VmCheck:
        answers = {**self.machine.answers(), **self.answers}
        with serving(self.socket, answers=answers, greeting=json.dumps(self.greeting).encode() + b"\r\n"):
            try:
                return vm_check.check(self.host, qmp=str(self.socket))
            finally:
                self.socket.unlink()

    def codes(self) -> list[tuple[str, str]]:
        return [(reason.level, reason.code) for reason in self.check().reasons]

    def mark(self, role: Role | None) -> None:
        with open_primary(self.host, PF, change=True) as pf:
            allow.revoke(pf, [FIRST], confirm=agree)
            if role is not None:
                allow.allow(pf, [FIRST], role, confirm=agree)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    world = World(tmp_path)
    yield Bench(world, tmp_path)
    world.close()


def test_a_supervised_vm_with_a_marked_function_can_migrate(bench: Bench) -> None:
    report = bench.check()
    assert report.reasons == ()
    assert (report.can_migrate, report.pid, report.supervised_by) == (True, os.getpid(), "agent")
    (function,) = report.functions
    assert (function.address, function.cntlid, function.mark, function.state) == (
        "0000:01:00.1",
        FIRST,
        "migratable",
        "RUNNING",
    )


def test_all_reasons_come_at_once_and_each_says_what_mends_it(bench: Bench) -> None:
    forget(bench.host.state_dir, os.getpid())
    bench.mark(None)
    bench.greeting = GREETING
    bench.machine.blocked = ["0000:01:00.1: VFIO migration is not supported in kernel"]
    bench.answers["query-migrate-capabilities"] = [{"capability": "postcopy-ram", "state": True}]
    bench.machine.devices["nic"] = {"kind": "vfio-user-pci"}
    bench.machine.devices["iommu"] = {"kind": "intel-iommu"}
    report = bench.check()
    assert [(reason.level, reason.code) for reason in report.reasons] == [
        ("blocks", "vm-not-supervised"),
        ("blocks", "vmm-too-old"),
        ("blocks", "vmm-blocker"),
        ("blocks", "vm-capability"),
        ("blocks", "vfio-user"),
        ("costs", "viommu"),
        ("blocks", "not-marked"),
    ]
    assert all(reason.fix for reason in report.reasons)
    assert not report.can_migrate


def test_what_only_costs_does_not_keep_a_vm(bench: Bench) -> None:
    bench.machine.devices["iommu"] = {"kind": "virtio-iommu-pci"}
    report = bench.check()
    assert [(reason.level, reason.code) for reason in report.reasons] == [("costs", "viommu")]
    assert report.can_migrate


def test_a_vmm_that_does_not_listen_to_the_destination_costs_a_cont_and_is_named(bench: Bench) -> None:
    bench.answers["query-migrate-capabilities"] = [{"capability": "return-path", "state": False}]
    found = bench.check()
    assert [(reason.level, reason.code) for reason in found.reasons] == [("costs", "return-path")]
    assert "cont" in found.reasons[0].fix
    bench.answers["query-migrate-capabilities"] = [{"capability": "return-path", "state": True}]
    assert bench.check().reasons == ()


def test_a_function_that_may_only_arrive_does_not_leave(bench: Bench) -> None:
    bench.mark(Role.RESUMABLE)
    assert bench.codes() == [("blocks", "wrong-mark")]


def test_a_mark_that_does_not_hold_any_more_is_named_with_what_broke_it(bench: Bench) -> None:
    bench.host.reset_primary(PF)
    (reason,) = bench.check().reasons
    assert (reason.level, reason.code) == ("blocks", "mark-broken")
    assert "does not hold any more: " in reason.message


@pytest.mark.parametrize("capability", ["postcopy-ram", "background-snapshot"])
def test_a_capability_that_goes_with_no_vfio_device_blocks(bench: Bench, capability: str) -> None:
    bench.answers["query-migrate-capabilities"] = [{"capability": capability, "state": True}]
    (reason,) = bench.check().reasons
    assert (reason.level, reason.code) == ("blocks", "vm-capability")
    assert capability in reason.message
    assert capability in reason.fix


def test_another_vfio_device_of_the_vm_is_its_own_driver_s_matter(bench: Bench) -> None:
    bench.machine.devices["gpu"] = {"kind": "vfio-ccw"}
    (reason,) = bench.check().reasons
    assert (reason.level, reason.code) == ("costs", "other-vfio-device")
    assert "gpu" in reason.message


def test_a_downtime_limit_below_what_was_measured_is_named_with_both_figures(bench: Bench) -> None:
    moves = Moves(bench.host)
    held = moves.held("0000:01:00.1")
    assert held is not None
    moves.hold(replace(held, arc="RUNNING_P2P to STOP", arc_seconds=0.42, refusal="it was busy"))
    bench.answers["query-migrate-parameters"] = {"downtime-limit": 300}
    report = bench.check()
    (function,), (reason,) = report.functions, report.reasons
    assert (function.last_arc, function.last_arc_ms, function.refusal) == ("RUNNING_P2P to STOP", 420, "it was busy")
    assert reason.code == "downtime-limit"
    assert "420 ms" in reason.message
    assert "300 ms" in reason.message


def test_a_vmm_that_was_not_asked_is_not_said_to_be_able(bench: Bench) -> None:
    report = vm_check.check(bench.host, pid=os.getpid())
    assert [(reason.level, reason.code) for reason in report.reasons] == [("unknown", "vmm-not-asked")]
    assert not report.can_migrate


def by_libvirt(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, domain: FakeDomain, *, may_taint: bool = False
) -> list[tuple[str, str]]:
    libvirt = FakeLibvirt()
    libvirt.domain = domain
    monkeypatch.setitem(sys.modules, "libvirt", libvirt)
    monkeypatch.setitem(sys.modules, "libvirt_qemu", fake_libvirt.monitor(libvirt))
    report = vm_check.check(bench.host, libvirt=DomainRef("vm1", None, may_taint))
    return [(reason.level, reason.code) for reason in report.reasons]


def test_a_domain_is_looked_at_by_its_functions_and_qemu_only_when_that_may_taint(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    domain = FakeDomain()
    domain.devices = [hostdev()]
    assert by_libvirt(bench, monkeypatch, domain) == [("blocks", "vmm-too-old"), ("unknown", "vmm-not-asked")]
    domain.blocked = ["0000:01:00.1: VFIO migration is not supported in kernel"]
    asked = by_libvirt(bench, monkeypatch, domain, may_taint=True)
    assert asked == [("blocks", "vmm-too-old"), ("blocks", "vmm-blocker")]
    domain.devices = []
    assert ("unknown", "vm-process") in by_libvirt(bench, monkeypatch, domain)


def test_a_process_that_had_the_number_before_is_not_taken_for_the_vm(bench: Bench) -> None:
    path = directory(bench.host.state_dir) / f"{os.getpid()}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "life": "another boot/12"}))
    assert bench.codes() == [("blocks", "vm-not-supervised")]


def test_a_file_that_makes_no_sense_supervises_nobody(bench: Bench) -> None:
    path = directory(bench.host.state_dir) / f"{os.getpid()}.json"
    for text in ("", "[]", '{"pid": 1}', "nonsense"):
        path.write_text(text)
        assert bench.codes() == [("blocks", "vm-not-supervised")]


def test_no_such_process_and_no_such_socket_are_errors(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no process 4194305"):
        vm_check.check(bench.host, pid=4194305)
    with pytest.raises(HostError, match="cannot connect"):
        vm_check.check(bench.host, qmp=str(tmp_path / "nowhere"))


def test_the_verb_prints_each_reason_with_its_fix_and_exits_with_3(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--host", bench.host.name, "vm", "check", "--pid", str(os.getpid())]
    assert cli.main(words) == 3
    out = capsys.readouterr().out
    assert "cannot migrate, as far as is known; answered by nvmelm vm agent" in out
    assert "0000:01:00.1 (0x0042): migratable, RUNNING" in out
    assert "fix: --qmp SOCKET asks it" in out
    assert cli.main([*words, "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["schema"] == "nvmelm.vm_check"
    assert cli.main(["--host", bench.host.name, "vm", "check"]) == 2
