"""Attach: which VFs are handed over, what the VM is told, and what each of its answers means."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from nvmelm.errors import (
    BusyError,
    MalformedError,
    NotReadyError,
    NotSupportedError,
    NvmelmError,
    UncertainError,
    UsageError,
)
from nvmelm.inventory.picture import Role
from nvmelm.vm import verbs as vm
from nvmelm.vm.handover import require_ready
from nvmelm.vm.qemu import machine as qemu_machine
from tests.unit.qmp_server import HangUpError, RawError, RefusedError, SilenceError
from tests.unit.vm_bench import NAME, QEMU, VF, Bench, attached, mark


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_ready_vf_is_plugged_into_the_first_free_port(bench: Bench) -> None:
    with bench.running() as server:
        report = bench.attach()
    words = {"driver": "vfio-pci", "host": VF, "id": NAME, "bus": "rp1"}
    assert server.changes == [("device_add", words)]
    assert (report.changed, report.attached, report.device_id, report.bus) == (True, True, NAME, "rp1")
    assert report.qom_path == f"/machine/peripheral/{NAME}"
    assert (report.vmm.name, report.vmm.version, report.vmm.status) == ("vm1", "7.2.22", "prelaunch")
    assert [json.loads(line) for line in report.commands] == [{"execute": "device_add", "arguments": words}]
    assert bench.asked == []


def test_the_report_explains_that_the_vmm_will_not_migrate_by_itself(bench: Bench) -> None:
    with bench.running():
        report = bench.attach()
    assert report.migration_blockers == (f"{VF}: VFIO device doesn't support migration",)
    assert "through the PF" in report.migration_note


def test_a_second_run_changes_nothing(bench: Bench) -> None:
    attached(bench)
    with bench.running() as server:
        report = bench.attach()
    assert (report.changed, report.attached, report.device_id, report.bus) == (False, True, NAME, "rp1")
    assert (server.changes, report.commands) == ([], ())


def test_a_vf_the_vm_was_started_with_counts_as_attached_whatever_its_name(bench: Bench) -> None:
    bench.machine.devices["device[0]"] = {"kind": "vfio-pci", "sysfsdev": f"/sys/bus/pci/devices/{VF}"}
    bench.host.open_by.append(QEMU)
    with bench.running():
        report = bench.attach()
    assert (report.changed, report.attached, report.device_id) == (False, True, None)
    assert report.qom_path == "/machine/peripheral-anon/device[0]"
    assert report.bus == "pcie.0"


def test_a_dry_run_tells_the_command_and_sends_none(bench: Bench) -> None:
    with bench.running() as server:
        report = bench.attach(dry_run=True)
    assert server.changes == []
    assert (report.dry_run, report.changed, report.attached) == (True, False, False)
    assert "device_add" in report.commands[0]


def test_a_port_that_is_taken_or_takes_nothing_is_passed_over(bench: Bench) -> None:
    bench.machine.ports = {"rp0": False, "rp1": True, "rp2": True}
    bench.machine.devices["disk"] = {"kind": "virtio-blk-pci", "port": "rp1"}
    with bench.running():
        assert bench.attach().bus == "rp2"


def test_a_bus_that_is_named_wins(bench: Bench) -> None:
    bench.machine.ports = {"rp1": True, "rp2": True}
    with bench.running() as server:
        bench.attach(bus="rp2", device_id="vf")
    assert server.changes[0][1] == {"driver": "vfio-pci", "host": VF, "id": "vf", "bus": "rp2"}


def test_a_named_port_that_is_taken_is_refused_although_qemu_would_accept_it(bench: Bench) -> None:
    bench.machine.devices["disk"] = {"kind": "virtio-blk-pci", "port": "rp1"}
    with bench.running() as server, pytest.raises(BusyError) as caught:
        bench.attach(bus="rp1")
    assert caught.value.reason == "bus-taken"
    assert server.changes == []


def test_a_vm_without_a_free_port_is_told_how_to_start_it(bench: Bench) -> None:
    bench.machine.ports = {}
    with bench.running(), pytest.raises(NotSupportedError) as caught:
        bench.attach()
    assert caught.value.reason == "no-hotplug-bus"
    assert "-device pcie-root-port,id=rp1" in caught.value.fix


def test_a_vf_somebody_else_holds_is_refused_and_the_holder_named(bench: Bench) -> None:
    bench.host.open_by.append(QEMU)
    with bench.running() as server, pytest.raises(BusyError) as caught:
        bench.attach()
    assert "qemu-system-x86 (pid 4711)" in caught.value.cause
    assert server.changes == []


def test_another_name_for_a_vf_the_vm_has_is_refused(bench: Bench) -> None:
    attached(bench)
    with bench.running(), pytest.raises(BusyError) as caught:
        bench.attach(device_id="other")
    assert (caught.value.reason, caught.value.cause) == ("other-device-id", f"as {NAME}")


def test_a_name_another_device_bears_is_refused(bench: Bench) -> None:
    bench.machine.devices["disk"] = {"kind": "virtio-blk-pci", "port": "rp9"}
    with bench.running(), pytest.raises(BusyError) as caught:
        bench.attach(device_id="disk")
    assert caught.value.reason == "id-taken"


@pytest.mark.parametrize("name", ["", "1vf", "a,b", "a b", "a/b", "x\n", "ü", "a" * 200])
def test_a_name_that_could_mean_something_else_is_refused_before_anything_is_asked(bench: Bench, name: str) -> None:
    for option in ("device_id", "bus"):
        with pytest.raises(UsageError):
            bench.attach(**{option: name})


def test_a_running_vm_gets_a_resumable_vf_only_when_the_operator_agrees(bench: Bench) -> None:
    bench.machine.status = "running"
    bench.values["mark"] = mark(Role.RESUMABLE)

    def no(question: str) -> None:
        assert "should wait" in question
        raise UsageError("no")

    with bench.running() as server:
        with pytest.raises(UsageError):
            bench.attach(confirm=no)
        assert server.changes == []
        assert bench.attach().changed
    assert len(bench.asked) == 1


@pytest.mark.parametrize(("values", "kind", "reason", "fix"), [
    ({"present": False}, NotReadyError, "no-vf", "nvmelm sriov enable nvme0 --vfs 1"),
    ({"online": False, "state": "offline"}, NotReadyError, "offline", "nvmelm secondary online nvme0 0x0001"),
    ({"driver": None}, NotReadyError, "not-bound", f"nvmelm vfio bind {VF}"),
    ({"driver": "nvme", "controller_node": "nvme1"}, BusyError, "not-bound", f"nvmelm vfio bind {VF}"),
    ({"driver": "nvme-vfio-pci"}, NotSupportedError, "not-bound", f"nvmelm vfio unbind {VF}"),
    ({"mark": None}, NotReadyError, "unmarked", "nvmelm secondary allow-migration nvme0 0x0001"),
    ({"mark": mark(holds=False, broken_by=("the host was rebooted",))}, NotReadyError, "mark-broken", "allow-"),
    ({"iommu_group": None, "vfio_node": None}, NotSupportedError, "no-iommu", "nvmelm host check"),
], ids=["no-vf", "offline", "no-driver", "nvme", "variant", "unmarked", "broken", "no-group"])  # fmt: skip
def test_a_vf_that_is_not_ready_is_refused_by_attach_and_print_before_the_vm_is_asked(
    bench: Bench, values: dict[str, Any], kind: type[NvmelmError], reason: str, fix: str
) -> None:
    bench.values |= values
    for verb in (bench.attach, lambda: vm.arguments(bench.session, 1)):
        with pytest.raises(kind) as caught:
            verb()
        assert caught.value.reason == reason
        assert fix in caught.value.fix


def test_an_unmarked_vf_is_attached_when_asked_for_and_the_report_says_what_that_means(bench: Bench) -> None:
    bench.values["mark"] = None
    with bench.running():
        report = bench.attach(unmarked=True)
    assert report.changed
    assert "it can be used, not migrated" in report.notes[0]


def test_a_group_with_a_function_of_the_host_is_refused_and_it_is_named(bench: Bench) -> None:
    def readlink(path: str) -> str | None:
        return {
            "bus/pci/devices/0000:00:1f.2/driver": "../ahci",
            "bus/pci/devices/0000:00:1f.0/driver": "../pcieport",
        }.get(path)

    for other in ("0000:00:1f.2", "0000:00:1f.0", "0000:00:1f.3"):
        bench.host.texts[f"kernel/iommu_groups/8/devices/{other}"] = ""
    bench.host.readlink = readlink  # type: ignore[method-assign]
    with pytest.raises(BusyError) as caught:
        bench.attach()
    assert (caught.value.reason, caught.value.cause) == ("group-not-viable", "0000:00:1f.2 is driven by ahci")


def test_a_group_without_an_iommu_is_refused(bench: Bench) -> None:
    bench.host.texts["kernel/iommu_groups/8/name"] = "vfio-noiommu"
    with pytest.raises(NotSupportedError) as caught:
        bench.attach()
    assert caught.value.reason == "no-iommu"


def test_a_recording_has_no_vm(bench: Bench) -> None:
    bench.host.kind = "replay"
    for verb in (bench.attach, bench.detach):
        with pytest.raises(NotSupportedError) as caught:
            verb()
        assert "--print" in caught.value.fix


def test_a_refusal_changes_nothing_and_keeps_its_type(bench: Bench) -> None:
    refused = RefusedError(f"vfio {VF}: failed to open /dev/vfio/8: Device or resource busy")
    with bench.running(device_add=refused), pytest.raises(BusyError) as caught:
        bench.attach()
    assert caught.value.reason == "in-use"


@pytest.mark.parametrize("answer", [HangUpError(), RawError(b"garbage\n")], ids=["hangup", "garbage"])
def test_contact_lost_after_device_add_is_uncertain(bench: Bench, answer: Exception) -> None:
    with bench.running(device_add=answer), pytest.raises(UncertainError) as caught:
        bench.attach()
    assert caught.value.exit_code == 9
    assert f"after the VM was told to take {VF}" in caught.value.message
    assert "nvmelm secondary list" in caught.value.fix


def test_silence_after_device_add_is_uncertain(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu_machine, "_ADD_DEADLINE_S", 0.1)
    with bench.running(device_add=SilenceError()), pytest.raises(UncertainError):
        bench.attach()


def test_a_success_that_shows_no_device_is_uncertain(bench: Bench) -> None:
    with bench.running(device_add={}), pytest.raises(UncertainError):
        bench.attach()


def test_ctrl_c_after_device_add_is_uncertain(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from nvmelm.vm.qemu.monitor import Monitor

    execute = Monitor.execute

    def interrupted(self: Monitor, command: str, *rest: Any, **options: Any) -> Any:
        if command == "device_add":
            raise KeyboardInterrupt
        return execute(self, command, *rest, **options)

    monkeypatch.setattr(Monitor, "execute", interrupted)
    with bench.running(), pytest.raises(UncertainError) as caught:
        bench.attach()
    assert "interrupted" in caught.value.message


def test_contact_lost_before_device_add_is_no_uncertainty(bench: Bench) -> None:
    answers = {"qom-list": HangUpError()}
    with bench.running(**answers), pytest.raises(NvmelmError) as caught:
        bench.attach()
    assert caught.value.reason == "qmp-lost"
    assert not isinstance(caught.value, UncertainError)


@pytest.mark.parametrize("answers", [
    {"query-status": []},
    {"qom-list": {}},
    {"qom-list": ["x"]},
    {"qom-list": [{"name": f"d{n}", "type": "child<vfio-pci>"} for n in range(5000)]},
], ids=["status", "object", "rows", "endless"])  # fmt: skip
def test_nonsense_is_refused_before_anything_is_changed(bench: Bench, answers: dict[str, Any]) -> None:
    with bench.running(**answers) as server, pytest.raises(MalformedError):
        bench.attach()
    assert server.changes == []


def test_names_no_vmm_gives_are_left_out_of_the_object_tree(bench: Bench) -> None:
    rows = [{"name": "../../x", "type": "child<vfio-pci>"}, {"name": 3, "type": None}, {}]

    def qom_list(arguments: dict[str, str]) -> Any:
        return rows + bench.machine.qom_list(arguments)

    with bench.running(**{"qom-list": qom_list}) as server:
        assert bench.attach().changed
    assert not any("../" in str(words) for _, words in server.asked)


def test_a_vm_that_cannot_be_asked_about_migration_is_attached_to_all_the_same(bench: Bench) -> None:
    with bench.running(**{"query-migrate": {"blocked-reasons": 7}}):
        report = bench.attach()
    assert report.changed
    assert "could not be asked" in report.notes[0]


def test_what_the_vm_says_is_printable_and_bounded_in_the_report(bench: Bench) -> None:
    bench.machine.name = "\x1b]0;evil\x07" * 50
    reasons = {"query-migrate": {"blocked-reasons": [f"\x1b[2J{number}" + "x" * 5000 for number in range(1000)]}}
    with bench.running(**reasons):
        report = bench.attach()
    assert len(report.migration_blockers) == 16
    assert all(text.isprintable() and len(text) < 500 for text in (*report.migration_blockers, str(report.vmm.name)))


#: How one VF more is come by when there are others: not before it is said what that costs.
_USE = "use an existing VF (nvmelm secondary list nvme0), or nvmelm sriov enable nvme0 --vfs 2, which removes"


@pytest.mark.parametrize(
    ("enabled", "fix"),
    [
        (0, "nvmelm sriov enable nvme0 --vfs 2"),
        (1, f"{_USE} the existing VF first"),
        (3, f"{_USE} all 3 existing VFs first"),
    ],
)
def test_to_enable_a_vf_that_is_not_there_is_said_to_remove_those_that_are(
    bench: Bench, enabled: int, fix: str
) -> None:
    start = bench.picture()
    with pytest.raises(NotReadyError) as caught:
        require_ready(
            cast("Any", bench.host),
            replace(start, primary=replace(start.primary, vfs_enabled=enabled)),
            start.secondaries[1],
            unmarked=True,
        )
    assert (caught.value.fix, caught.value.reason) == (fix, "no-vf")
