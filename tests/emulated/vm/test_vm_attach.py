"""Step 5 on an emulated host with an emulated machine: attach, who holds the VF, detach, and every refusal between."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nvmelm.emulator.guest.vmm import EmulatedVmm
from nvmelm.emulator.host import EmulatedHost
from nvmelm.errors import (
    BusyError,
    HostError,
    NotReadyError,
    NotSupportedError,
    RolledBackError,
    TimedOutError,
)
from nvmelm.hosts import open_host
from nvmelm.inventory.opened import open_primary
from nvmelm.inventory.picture import Role, Secondary
from nvmelm.ownership.sessions import Moving, Sessions, Side, State, new_record
from nvmelm.prepare import allow, binding, secondaries, sequence
from nvmelm.vm import verbs as vm
from nvmelm.vm.machine import SETTLES_S
from nvmelm.vm.report import VmArguments, VmReport
from tests.emulated.answers import agree, decline
from tests.emulated.conftest import MakeHost

Start = Callable[..., EmulatedVmm]


class Bench:
    """An emulated host with two VFs ready for a VM."""

    def __init__(self, host: EmulatedHost, directory: Path) -> None:
        self.host = host
        self.socket = directory / "qmp"
        with open_primary(host, "nvme0", change=True) as pf:
            picture = sequence.prepare(pf, Role.MIGRATABLE, 2, confirm=agree).picture
        assert picture is not None
        self.cntlids = {secondary.vf_number: secondary.cntlid for secondary in picture.secondaries}

    def attach(self, number: int = 1, **options: Any) -> VmReport:
        with open_primary(self.host, "nvme0", change=True) as pf:
            return vm.attach(pf, self.cntlids[number], **{"qmp": str(self.socket), "confirm": agree, **options})

    def detach(self, number: int = 1, **options: Any) -> VmReport:
        with open_primary(self.host, "nvme0", change=True) as pf:
            return vm.detach(pf, self.cntlids[number], **{"qmp": str(self.socket), "confirm": agree, **options})

    def arguments(self, **options: Any) -> VmArguments:
        with open_primary(self.host, "nvme0") as pf:
            return vm.arguments(pf, self.cntlids[1], **options)

    def secondary(self) -> Secondary:
        with open_primary(self.host, "nvme0") as pf:
            secondary = pf.picture().secondary(self.cntlids[1])
        assert secondary is not None
        return secondary


@pytest.fixture
def bench(make_host: MakeHost, tmp_path: Path) -> Bench:
    return Bench(make_host(), tmp_path)


@pytest.fixture
def start(bench: Bench) -> Iterator[Start]:
    made: list[EmulatedVmm] = []

    def _start(**values: Any) -> EmulatedVmm:
        made.append(EmulatedVmm(bench.host, **{"socket": bench.socket, **values}))
        return made[-1]

    yield _start
    for vmm in made:
        vmm.close()


def test_a_vm_that_waits_takes_the_vf_and_the_host_names_it(bench: Bench, start: Start) -> None:
    start(running=False, name="qemu-system-x86")
    report = bench.attach()
    assert (report.changed, report.attached, report.bus) == (True, True, "rp1")
    assert report.device_id == "nvmelm-" + str(report.address).replace(":", "-").replace(".", "-")
    assert [user for user in bench.secondary().used_by if "qemu-system-x86" in user]
    assert bench.attach().changed is False


def test_two_vfs_get_two_ports_and_a_third_place_there_is_not(bench: Bench, start: Start) -> None:
    start(ports=("rp1", "rp2"))
    assert [bench.attach(number).bus for number in (1, 2)] == ["rp1", "rp2"]
    bench.detach(1)
    assert bench.attach(1).bus == "rp1"


def test_a_bus_that_is_not_the_one_the_vf_is_on_is_not_ignored(bench: Bench, start: Start) -> None:
    start(ports=("rp1", "rp2"))
    assert bench.attach(1).bus == "rp1"
    assert not bench.attach(1, bus="rp1").changed
    with pytest.raises(BusyError, match="has 0000:01:00") as caught:
        bench.attach(1, bus="rp2")
    assert (caught.value.reason, caught.value.cause) == ("other-bus", "on the bus rp1")


def test_a_vm_without_ports_is_told_how_to_start(bench: Bench, start: Start) -> None:
    start(ports=())
    with pytest.raises(NotSupportedError) as caught:
        bench.attach()
    assert "pcie-root-port" in caught.value.fix
    assert bench.secondary().used_by == ()


def test_the_report_says_that_the_vmm_itself_will_not_migrate(bench: Bench, start: Start) -> None:
    start()
    report = bench.attach()
    assert len(report.migration_blockers) == 1
    assert "through the PF" in report.migration_note


def test_a_dry_run_takes_nothing(bench: Bench, start: Start) -> None:
    start()
    assert "device_add" in bench.attach(dry_run=True).commands[0]
    assert bench.secondary().used_by == ()


def held_by_a_session(bench: Bench) -> Sessions:
    """Write down that the first VF was given away, and that nobody knows yet who has it."""
    secondary = bench.secondary()
    moving = Moving(secondary.cntlid, 0x42, secondary.incarnation, secondary.vq, secondary.vi)
    sessions = Sessions(bench.host)
    with open_primary(bench.host, "nvme0") as pf:
        record = new_record(
            bench.host,
            "a" * 32,
            Side.SOURCE,
            peer="ssh://beta/nvme0",
            primary=pf.address,
            serial=pf.ref.serial,
            controllers=(moving,),
        )
    record = sessions.open(record)
    for state in (State.SUSPENDING, State.GIVEN_AWAY):
        record = sessions.move(record, state)
    return sessions


def test_a_copy_that_may_be_the_only_one_goes_into_no_vm(bench: Bench, start: Start) -> None:
    start()
    with held_by_a_session(bench):
        for take in (bench.attach, bench.arguments):
            with pytest.raises(BusyError) as caught:
                take()
            assert caught.value.reason == "session-unfinished"
            assert "a" * 32 in caught.value.cause
        assert bench.attach(2).changed
    assert bench.secondary().used_by == ()


def test_a_copy_that_may_be_the_only_one_is_not_taken_from_its_vm(bench: Bench, start: Start) -> None:
    start()
    bench.attach()
    with held_by_a_session(bench):
        assert bench.attach().changed is False
        with pytest.raises(BusyError, match="not over"):
            bench.detach()
    assert bench.secondary().used_by


def test_a_vf_another_vm_has_is_refused_and_that_vm_named(bench: Bench, start: Start, tmp_path: Path) -> None:
    start(name="first-vm")
    bench.attach()
    bench.socket = tmp_path / "other"
    start(name="second-vm")
    with pytest.raises(BusyError) as caught:
        bench.attach()
    assert "first-vm" in caught.value.cause
    report = bench.detach()
    assert (report.changed, report.attached) == (False, False)
    assert "first-vm" in report.notes[0]


def test_a_vf_is_given_back_and_can_be_unbound_at_once(bench: Bench, start: Start) -> None:
    start()
    bench.attach()
    report = bench.detach()
    assert (report.changed, report.attached) == (True, False)
    assert bench.secondary().used_by == ()
    with open_primary(bench.host, "nvme0", change=True) as pf:
        binding.unbind(pf, [bench.cntlids[1]], confirm=decline)
    assert bench.detach().changed is False


def test_a_running_guest_loses_its_disk_only_when_the_operator_agrees(bench: Bench, start: Start) -> None:
    start()
    bench.attach()
    with pytest.raises(NotReadyError):
        bench.detach(confirm=decline)
    assert bench.secondary().used_by


def test_a_guest_that_refuses_keeps_the_vf(bench: Bench, start: Start) -> None:
    start(refuse_unplug=True)
    bench.attach()
    with pytest.raises(BusyError) as caught:
        bench.detach()
    assert caught.value.reason == "unplug-refused"
    assert bench.secondary().used_by


def test_nothing_happens_until_the_guest_runs_and_the_request_stays(bench: Bench, start: Start) -> None:
    machine = start(running=False)
    bench.attach()
    with pytest.raises(TimedOutError) as caught:
        bench.detach(timeout_s=0.1)
    assert "until the guest runs" in caught.value.cause
    machine.cont({})
    assert bench.detach().attached is False
    assert bench.secondary().used_by == ()


def test_a_resumable_vf_goes_into_a_running_vm_only_when_the_operator_agrees(
    make_host: MakeHost, bench: Bench, start: Start
) -> None:
    with open_primary(bench.host, "nvme0", change=True) as pf:
        allow.revoke(pf, [bench.cntlids[1]], confirm=agree)
        allow.allow(pf, [bench.cntlids[1]], Role.RESUMABLE, confirm=agree)
    start()
    with pytest.raises(NotReadyError):
        bench.attach(confirm=decline)
    assert bench.secondary().used_by == ()
    assert bench.attach().changed


def test_a_vm_that_has_ended_is_told_apart_from_one_that_never_was(bench: Bench, start: Start) -> None:
    with pytest.raises(HostError) as caught:
        bench.attach()
    assert caught.value.reason == "qmp-no-socket"


def test_an_offline_an_unbound_and_an_unmarked_vf_are_refused_by_attach_and_print(bench: Bench, start: Start) -> None:
    start()
    with open_primary(bench.host, "nvme0", change=True) as pf:
        allow.revoke(pf, [bench.cntlids[1]], confirm=agree)
    for verb in (bench.attach, bench.arguments):
        with pytest.raises(NotReadyError) as caught:
            verb()
        assert caught.value.reason == "unmarked"
    assert bench.attach(unmarked=True, dry_run=True).commands
    with open_primary(bench.host, "nvme0", change=True) as pf:
        binding.unbind(pf, [bench.cntlids[1]], confirm=agree)
    for verb in (bench.attach, bench.arguments):
        with pytest.raises((NotReadyError, BusyError)) as refused:
            verb(unmarked=True)
        assert refused.value.reason == "not-bound"  # type: ignore[attr-defined]
    with open_primary(bench.host, "nvme0", change=True) as pf:
        secondaries.offline(pf, bench.cntlids[1], confirm=agree)
    for verb in (bench.attach, bench.arguments):
        with pytest.raises(NotReadyError) as caught:
            verb(unmarked=True)
        assert caught.value.reason == "offline"


def test_the_printed_arguments_name_the_vf_that_was_prepared(bench: Bench) -> None:
    address = bench.secondary().address
    arguments = bench.arguments(device_id="vf1", bus="rp1")
    assert arguments.qemu_arguments == ("-device", f"vfio-pci,host={address},id=vf1,bus=rp1")
    assert 'managed="no"' in arguments.libvirt_xml


def test_a_holder_is_called_by_the_name_of_its_vm(bench: Bench, start: Start) -> None:
    start(vm="first-vm")
    assert bench.attach().vmm.name == "first-vm"
    assert "qemu-system-x86 (pid " in bench.secondary().used_by[0]
    assert "VM first-vm)" in bench.secondary().used_by[0]


def test_a_vm_that_waits_for_its_guest_takes_the_vf_before_the_state_is_set(bench: Bench, start: Start) -> None:
    start(incoming=True)
    report = bench.attach()
    assert (report.changed, report.vmm.status, report.vmm.running) == (True, "inmigrate", False)
    assert bench.detach(timeout_s=1, dry_run=True).commands


@pytest.mark.parametrize("capability", ["postcopy-ram", "background-snapshot"])
def test_a_vm_set_to_what_no_vf_goes_with_gets_no_marked_one(bench: Bench, start: Start, capability: str) -> None:
    start(capabilities=("events", capability))
    with pytest.raises(NotReadyError) as caught:
        bench.attach()
    assert capability in caught.value.message
    assert bench.secondary().used_by == ()


def test_the_name_of_a_vm_is_in_a_recording_unless_it_is_redacted(bench: Bench, start: Start, tmp_path: Path) -> None:
    start(vm="first-vm")
    bench.attach()
    users = bench.secondary().used_by
    for redact in (False, True):
        file = tmp_path / f"{redact}.json"
        with (
            open_host(bench.host.name, record=file, redact=redact, about="a look") as host,
            open_primary(host, "nvme0") as pf,
        ):
            pf.picture()
        assert ("first-vm" in file.read_text()) is not redact
    with open_host(f"replay:{tmp_path / 'False.json'}") as host, open_primary(host, "nvme0") as pf:
        (replayed,) = [secondary.used_by for secondary in pf.picture().secondaries if secondary.used_by]
    assert [re.sub(r"pid \d+", "pid", user) for user in replayed] == [re.sub(r"pid \d+", "pid", user) for user in users]


@pytest.mark.parametrize("seconds", [0.0, 0.5])
def test_a_vf_that_a_booting_guest_hands_back_is_no_success(seconds: float, bench: Bench) -> None:
    with EmulatedVmm(bench.host, socket=bench.socket, hands_back_s=seconds), pytest.raises(RolledBackError) as caught:
        bench.attach()
    assert caught.value.reason == "handed-back"
    assert bench.secondary().used_by == ()


def test_a_machine_that_does_not_run_is_not_watched(bench: Bench) -> None:
    with EmulatedVmm(bench.host, socket=bench.socket, running=False, hands_back_s=0.0):
        begun = time.monotonic()
        assert bench.attach().changed
        assert time.monotonic() - begun < SETTLES_S
