"""The emulated virtual machine takes, holds and gives back functions through QMP, in QEMU's words."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nvmelm.emulator.guest.vmm import EmulatedVmm
from nvmelm.emulator.machine.generations import NVME_2_1
from tests.emulated.emulator_bench import VF1, VF1_DIR, VF2, Bench, bench, move

ADD = {"driver": "vfio-pci", "host": VF1, "id": "vf0", "bus": "rp1"}


class Monitor:
    """A client of one QMP socket; keeps the events it meets."""

    def __init__(self, path: Path, *, negotiate: bool = True) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(20)
        self._socket.connect(os.fspath(path))
        self._file = self._socket.makefile("rwb")
        self.events: list[dict[str, Any]] = []
        self.greeting = json.loads(self._file.readline())
        if negotiate:
            assert self.run("qmp_capabilities") == {}

    def send(self, message: Any) -> dict[str, Any]:
        self._file.write(json.dumps(message).encode() + b"\n")
        self._file.flush()
        return self._next("return", "error")

    def run(self, command: str, **arguments: Any) -> Any:
        answer = self.send({"execute": command, "arguments": arguments})
        assert "return" in answer, answer
        return answer["return"]

    def error(self, command: str, **arguments: Any) -> dict[str, str]:
        return self.send({"execute": command, "arguments": arguments})["error"]

    def event(self, name: str) -> dict[str, Any]:
        for known in self.events:
            if known["event"] == name:
                self.events.remove(known)
                return known.get("data", {})
        while True:
            event = self._next("event")
            if event["event"] == name:
                return event.get("data", {})
            self.events.append(event)

    def _next(self, *kinds: str) -> dict[str, Any]:
        while True:
            message = json.loads(self._file.readline())
            if any(kind in message for kind in kinds):
                return message
            self.events.append(message)

    def close(self) -> None:
        self._file.close()
        self._socket.close()


Start = Callable[..., tuple[EmulatedVmm, Monitor]]


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Bench]:
    device = bench(tmp_path / "host")
    device.prepare()
    yield device
    device.host.close()


@pytest.fixture
def start(device: Bench, tmp_path: Path) -> Iterator[Start]:
    made: list[tuple[EmulatedVmm, Monitor]] = []

    def _start(**values: Any) -> tuple[EmulatedVmm, Monitor]:
        path = tmp_path / f"qmp{len(made)}"
        vmm = EmulatedVmm(device.host, socket=path, **values)
        made.append((vmm, Monitor(path)))
        return made[-1]

    yield _start
    for vmm, monitor in made:
        monitor.close()
        vmm.close()


def poll(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def openers(device: Bench) -> list[str]:
    group = (device.host.sysfs.readlink(f"{VF1_DIR}/iommu_group") or "").rpartition("/")[2]
    return [opener.name for opener in device.host.openers([f"vfio/{group}"])]


def test_the_monitor_greets_negotiates_and_names_what_it_does_not_know(start: Start, tmp_path: Path) -> None:
    _, monitor = start()
    assert monitor.greeting["QMP"]["version"]["qemu"]["major"] == 11
    assert monitor.error("migrate")["class"] == "CommandNotFound"
    assert monitor.send({"execute": "query-status", "id": 7})["id"] == 7
    assert monitor.send({"nonsense": 1})["error"]["class"] == "GenericError"
    monitor.close()
    late = Monitor(tmp_path / "qmp0", negotiate=False)
    assert "qmp_capabilities" in late.error("query-status")["desc"]
    late.close()


def test_a_device_is_held_and_its_guest_does_io_until_it_is_deleted(device: Bench, start: Start) -> None:
    vmm, monitor = start(name="qemu-kvm")
    assert monitor.run("device_add", **ADD) == {}
    assert openers(device) == ["qemu-kvm"]
    poll(lambda: vmm.report().verified > 20)
    below = monitor.run("query-pci")[0]["devices"][0]["pci_bridge"]["devices"]
    assert [device["qdev_id"] for device in below] == ["vf0"]
    assert monitor.run("device_del", id="vf0") == {}
    assert monitor.event("DEVICE_DELETED") == {"device": "vf0", "path": "/machine/peripheral/vf0"}
    assert openers(device) == []
    assert vmm.report().clean
    assert vmm.report().outstanding == 0


def test_a_guest_may_refuse_to_let_a_device_go(device: Bench, start: Start) -> None:
    vmm, monitor = start(refuse_unplug=True)
    monitor.run("device_add", **ADD)
    monitor.run("device_del", id="vf0")
    assert monitor.event("DEVICE_UNPLUG_GUEST_ERROR")["device"] == "vf0"
    assert openers(device)
    vmm.refuse_unplug = False
    monitor.run("device_del", id="vf0")
    monitor.event("DEVICE_DELETED")


def test_the_object_tree_shows_ports_and_what_is_in_them(start: Start) -> None:
    _, monitor = start()
    monitor.run("device_add", **ADD)
    named = {row["name"]: row["type"] for row in monitor.run("qom-list", path="/machine/peripheral")}
    assert named["rp1"] == named["rp2"] == "child<pcie-root-port>"
    assert named["vf0"] == "child<vfio-pci>"
    buses = {bus: monitor.run("qom-list", path=f"/machine/peripheral/{bus}/{bus}") for bus in ("rp1", "rp2")}
    assert [any(row["name"] == "child[0]" for row in rows) for rows in buses.values()] == [True, False]
    assert monitor.run("qom-get", path="/machine/peripheral/vf0", property="host") == VF1
    assert monitor.run("qom-get", path="/machine/peripheral/vf0", property="parent_bus").endswith("/rp1/rp1")
    assert monitor.error("qom-list", path="/machine/nothing")["class"] == "DeviceNotFound"
    assert "not found" in monitor.error("qom-get", path="/machine/peripheral/vf0", property="colour")["desc"]


def test_a_device_without_a_name_goes_by_its_path(start: Start) -> None:
    _, monitor = start()
    monitor.run("device_add", driver="vfio-pci", host=VF1, bus="rp2")
    (row,) = [
        property_row
        for property_row in monitor.run("qom-list", path="/machine/peripheral-anon")
        if property_row["name"] != "type"
    ]
    path = f"/machine/peripheral-anon/{row['name']}"
    monitor.run("device_del", id=path)
    assert monitor.event("DEVICE_DELETED") == {"path": path}


def test_nothing_is_deleted_before_the_guest_runs(device: Bench, start: Start) -> None:
    _, monitor = start(running=False)
    assert monitor.run("query-status") == {"running": False, "status": "prelaunch"}
    monitor.run("device_add", **ADD)
    monitor.run("device_del", id="vf0")
    assert "already in the process" in monitor.error("device_del", id="vf0")["desc"]
    assert openers(device)
    monitor.run("cont")
    monitor.event("RESUME")
    monitor.event("DEVICE_DELETED")
    monitor.run("stop")
    monitor.event("STOP")
    assert monitor.run("query-status") == {"running": False, "status": "paused"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"bus": "pcie.0"}, "Bus 'pcie.0' does not support hotplugging"),
        ({"bus": None}, "Bus 'pcie.0' does not support hotplugging"),
        ({"bus": "rp9"}, "Bus 'rp9' not found"),
        ({"driver": "nvme"}, "'nvme' is not a valid device model name"),
        ({"host": "../etc"}, "doesn't take value"),
        ({"host": "0000:09:00.0"}, "no such host device"),
        ({"host": VF2}, "Could not open '/dev/vfio/3': No such file or directory"),
        ({"enable-migration": "on"}, "migration is not supported in kernel"),
    ],
)
def test_a_device_that_cannot_be_added_is_refused_in_qemus_words(
    start: Start, changes: dict[str, Any], words: str
) -> None:
    _, monitor = start()
    arguments = {key: value for key, value in {**ADD, **changes}.items() if value is not None}
    assert words in monitor.error("device_add", **arguments)["desc"]


def test_a_function_a_port_and_an_id_are_taken_once(device: Bench, start: Start) -> None:
    _, monitor = start()
    _, other = start()
    monitor.run("device_add", **ADD)
    assert "Device or resource busy" in other.error("device_add", **ADD)["desc"]
    assert "Duplicate device ID 'vf0'" in monitor.error("device_add", **ADD)["desc"]
    assert "already occupied" in monitor.error("device_add", **{**ADD, "id": "vf1"})["desc"]
    assert monitor.error("device_del", id="nobody")["class"] == "DeviceNotFound"


def test_migration_is_blocked_as_it_is_for_every_nvme_function(start: Start) -> None:
    _, monitor = start()
    assert monitor.run("query-migrate") == {}
    monitor.run("device_add", **ADD)
    (reason,) = monitor.run("query-migrate")["blocked-reasons"]
    assert reason == (
        "0000:01:00.1: VFIO migration init failed: migration is not supported in kernel: Inappropriate ioctl for device"
    )


def test_the_guest_lets_go_when_the_kernel_wants_the_function_back(device: Bench, start: Start) -> None:
    vmm, monitor = start()
    monitor.run("device_add", **ADD)
    poll(lambda: vmm.report().completed)
    device.write("bus/pci/devices/0000:01:00.0/sriov_numvfs", "0")
    assert monitor.event("DEVICE_DELETED")["device"] == "vf0"


def test_a_running_machine_moves_to_another_host_between_two_turns_of_its_guest(tmp_path: Path) -> None:
    source, destination = (bench(tmp_path / name, NVME_2_1, storage=tmp_path / "medium") for name in ("a", "b"))
    for bed in (source, destination):
        bed.prepare()
    with EmulatedVmm(source.host) as sender, EmulatedVmm(destination.host, incoming=True) as receiver:
        sender.device_add(ADD)
        receiver.device_add(ADD)
        poll(lambda: sender.report().verified > 20)
        sender.stop({})
        move(source, destination, [5, 9], csuuidi=1)
        receiver.take_over(sender)
        assert destination.resume() == 0
        before = receiver.report().verified
        receiver.cont({})
        poll(lambda: receiver.report().verified > before + 20)
        report = receiver.finish()
        assert report.clean, report
    source.host.close()
    destination.host.close()


def test_as_processes_of_their_own_two_machines_hand_a_guest_over(tmp_path: Path) -> None:
    source, destination = (bench(tmp_path / name, NVME_2_1, storage=tmp_path / "medium") for name in ("a", "b"))
    processes, monitors = [], []
    for bed, options in ((source, []), (destination, ["--incoming"])):
        bed.prepare()
        path = bed.host.machine.directory
        command = [
            sys.executable,
            "-m",
            "nvmelm.emulator.guest",
            os.fspath(path),
            "--socket",
            f"{path}.qmp",
            *options,
        ]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        monitors.append(Monitor(Path(f"{path}.qmp")))
        monitors[-1].run("device_add", **ADD)
    sender, receiver = monitors
    poll(lambda: sender.run("x-guest-report")["verified"] > 10)
    assert openers(source) == ["qemu-system-x86"]
    assert source.suspend() == 0
    assert sender.run("x-guest-save", path=str(tmp_path / "guest"))["bytes"] == 1 << 20
    move(source, destination, csuuidi=1)
    receiver.run("x-guest-load", path=str(tmp_path / "guest"))
    assert destination.resume() == 0
    receiver.run("cont")
    seen = receiver.run("x-guest-report")["verified"]
    poll(lambda: receiver.run("x-guest-report")["verified"] > seen + 10)
    report = receiver.run("x-guest-report")
    assert (report["lost"], report["doubled"], report["misdirected"], report["errors"]) == (0, 0, 0, [])
    for monitor, process in zip(monitors, processes, strict=True):
        monitor.run("quit")
        monitor.close()
        assert process.wait(20) == 0
        assert process.stdout is not None
        process.stdout.close()
    assert openers(source) == openers(destination) == []
    source.host.close()
    destination.host.close()
