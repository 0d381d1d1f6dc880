"""Detach, and the printed arguments: what the guest may answer, and what is said to QEMU and libvirt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvmelm.errors import (
    BusyError,
    NotReadyError,
    TimedOutError,
    UncertainError,
    UsageError,
)
from nvmelm.inventory.pci import Bdf
from nvmelm.vm import verbs as vm
from tests.unit import pictures
from tests.unit.qmp_server import HangUpError, RefusedError
from tests.unit.vm_bench import NAME, QEMU, VF, Bench, attached, deleting


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_vf_is_taken_back_when_the_guest_lets_go(bench: Bench) -> None:
    attached(bench)
    with bench.running(device_del=deleting(bench)) as server:
        report = bench.detach()
    assert server.changes == [("device_del", {"id": NAME})]
    assert (report.changed, report.attached, report.device_id, report.bus) == (True, False, NAME, "rp1")
    assert (report.migration_blockers, report.migration_note) == ((), "")


def test_a_device_without_a_name_is_taken_back_by_its_path(bench: Bench) -> None:
    path = "/machine/peripheral-anon/device[0]"
    bench.machine.devices["device[0]"] = {"kind": "vfio-pci", "host": VF}
    with bench.running(device_del=deleting(bench, path=path)) as server:
        assert bench.detach().changed
    assert server.changes == [("device_del", {"id": path})]


def test_a_vf_that_is_not_in_the_vm_needs_nothing_and_its_holder_is_named(bench: Bench) -> None:
    bench.host.open_by.append(QEMU)
    with bench.running() as server:
        report = bench.detach()
    assert (report.changed, report.attached, server.changes) == (False, False, [])
    assert "pid 4711" in report.notes[0]


def test_a_device_that_goes_meanwhile_is_as_good_as_taken_back(bench: Bench) -> None:
    attached(bench)

    def gone(arguments: dict[str, str]) -> Any:
        bench.host.open_by.clear()
        raise RefusedError(f"Device '{NAME}' not found", "DeviceNotFound")

    with bench.running(device_del=gone):
        assert not bench.detach().attached


def test_a_guest_that_refuses_is_busy(bench: Bench) -> None:
    attached(bench)
    with (
        bench.running(device_del=deleting(bench, event="DEVICE_UNPLUG_GUEST_ERROR")),
        pytest.raises(BusyError) as caught,
    ):
        bench.detach()
    assert caught.value.reason == "unplug-refused"
    assert "the guest refused" in caught.value.message


@pytest.mark.parametrize(("status", "word"), [("prelaunch", "system_reset"), ("running", "shut the guest down")])
def test_a_guest_that_does_not_answer_times_out_and_the_reason_fits_its_state(
    bench: Bench, status: str, word: str
) -> None:
    attached(bench)
    bench.machine.status = status
    with bench.running(), pytest.raises(TimedOutError) as caught:
        bench.detach(timeout_s=0.1)
    assert caught.value.reason == "unplug-pending"
    assert word in caught.value.fix
    if status == "prelaunch":
        assert "nothing happens until the guest runs" in caught.value.cause


def test_a_removal_asked_for_earlier_is_waited_for(bench: Bench) -> None:
    attached(bench)

    def pending(arguments: dict[str, str]) -> Any:
        deleting(bench)(arguments)
        raise RefusedError(f"Device {NAME} is already in the process of unplug")

    with bench.running(device_del=pending):
        assert bench.detach().changed


@pytest.mark.parametrize(("status", "asked"), [("running", 1), ("paused", 1), ("prelaunch", 0), ("inmigrate", 0)])
def test_the_operator_is_asked_when_a_guest_loses_its_disk(bench: Bench, status: str, asked: int) -> None:
    attached(bench)
    bench.machine.status = status
    with bench.running(device_del=deleting(bench)):
        bench.detach()
    assert len(bench.asked) == asked


def test_a_dry_run_of_detach_tells_the_command_and_asks_nobody(bench: Bench) -> None:
    attached(bench)
    bench.machine.status = "running"
    with bench.running() as server:
        report = bench.detach(dry_run=True)
    assert (report.changed, report.attached, server.changes, bench.asked) == (False, True, [], [])
    assert json.loads(report.commands[0]) == {"execute": "device_del", "arguments": {"id": NAME}}


@pytest.mark.parametrize("name", ["other", "disk"])
def test_a_name_that_is_not_the_vfs_is_refused(bench: Bench, name: str) -> None:
    attached(bench)
    bench.machine.devices["disk"] = {"kind": "virtio-blk-pci", "port": "rp9"}
    with bench.running() as server, pytest.raises(UsageError) as caught:
        bench.detach(device_id=name)
    assert (caught.value.reason, server.changes) == ("other-device-id", [])


def test_contact_lost_while_waiting_for_the_guest_is_uncertain(bench: Bench) -> None:
    attached(bench)
    with bench.running(device_del=HangUpError()), pytest.raises(UncertainError) as caught:
        bench.detach()
    assert f"told to give {NAME} back" in caught.value.message


def test_a_node_that_stays_open_is_noted(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vm, "_CLOSE_DEADLINE_S", 0.05)
    attached(bench)
    let_go = deleting(bench)

    def answer(arguments: dict[str, str]) -> Any:
        let_go(arguments)
        bench.host.open_by.append(QEMU)
        return {}

    with bench.running(device_del=answer):
        report = bench.detach()
    assert report.changed
    assert "/dev/vfio/8 is still open in qemu-system-x86 (pid 4711)" in report.notes[0]


def test_the_arguments_are_words_for_qemu_and_an_element_for_libvirt(bench: Bench) -> None:
    arguments = vm.arguments(bench.session, 1, bus="rp1")
    assert arguments.qemu_arguments == ("-device", f"vfio-pci,host={VF},id={NAME},bus=rp1")
    assert arguments.libvirt_xml.splitlines() == [
        '<hostdev mode="subsystem" type="pci" managed="no">',
        '  <driver name="vfio" />',
        "  <source>",
        '    <address domain="0x0000" bus="0x01" slot="0x00" function="0x1" />',
        "  </source>",
        "</hostdev>",
    ]
    assert arguments.to_json()["schema"] == "nvmelm.vm_arguments"


def test_printing_refuses_a_vf_in_use(bench: Bench) -> None:
    bench.host.open_by.append(QEMU)
    with pytest.raises(BusyError):
        vm.arguments(bench.session, 1)


def test_printing_an_unmarked_vf_says_what_that_means(bench: Bench) -> None:
    bench.values["mark"] = None
    assert "not migrated" in vm.arguments(bench.session, 1, unmarked=True).notes[0]


def test_a_function_without_a_vf_has_no_arguments() -> None:
    for render in (vm.qemu_arguments, vm.libvirt_xml):
        with pytest.raises(NotReadyError):
            render(pictures.secondary(1, address=None))


@given(st.integers(0, 0xFFFF), st.integers(0, 255), st.integers(0, 31), st.integers(0, 7))
def test_every_address_survives_both_forms(domain: int, bus: int, device: int, function: int) -> None:
    address = Bdf(domain, bus, device, function)
    secondary = pictures.secondary(1, address=str(address))
    assert f"host={address}," in vm.qemu_arguments(secondary)[1]
    place = ET.fromstring(vm.libvirt_xml(secondary)).find("source/address")
    assert place is not None
    assert [int(place.attrib[name], 16) for name in ("domain", "bus", "slot", "function")] == [
        domain, bus, device, function,
    ]  # fmt: skip


@given(st.text(max_size=40))
def test_no_name_puts_anything_else_into_the_arguments(name: str) -> None:
    try:
        words = vm.qemu_arguments(pictures.secondary(1), device_id=name, bus=name)
    except UsageError:
        return
    assert words[1].split(",") == ["vfio-pci", f"host={VF}", f"id={name or NAME}", *([f"bus={name}"] if name else [])]
