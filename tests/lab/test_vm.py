"""Step 5 for real: a nested QEMU takes a VF by device_add, is named as its holder, and gives it back.

The nested machines are started with ``-S`` and hold no guest: what is tested is the hand-over and QEMU's own answers.
On q35, removal goes through the guest's ACPI unless that is switched off, so a machine that waits lets go at its next
reset only; with native hot-plug, a port no guest has powered lets go at once.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from nvmelm.errors import BusyError, HostError, NotSupportedError, TimedOutError, UsageError
from nvmelm.host.local.machine import LocalHost
from nvmelm.inventory.opened import OpenPrimary, open_primary
from nvmelm.inventory.picture import Role
from nvmelm.prepare import release, sequence
from nvmelm.vm import verbs as vm
from nvmelm.vm.qemu.monitor import Monitor
from tests.lab import machine
from tests.lab.machine import Cli, Pf, Snapshot, put, wait_for

#: Each test prepares VFs and starts emulated machines inside an emulated machine.
pytestmark = pytest.mark.timeout(600)

NATIVE = ("-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off")
NOBODY = 65534

Start = Callable[..., str]


def agree(question: str) -> None:
    """Say yes."""


@pytest.fixture
def start() -> Iterator[Start]:
    """Start nested machines that wait with -S; they end with the test. A path below pytest's may be too long."""
    with ExitStack() as stack:
        sockets: list[str] = []

        def _start(*arguments: str, ports: int = 1, user: int = 0) -> str:
            sockets.append(f"/run/nvmelm-lab-{os.getpid()}-{len(sockets)}.qmp")
            stack.enter_context(_machine(sockets[-1], *arguments, *_ports(ports), user=user))
            return sockets[-1]

        yield _start


def _ports(count: int) -> list[str]:
    rows = (f"pcie-root-port,id=rp{number},chassis={number},slot={number}" for number in range(1, count + 1))
    return [word for row in rows for word in ("-device", row)]


@contextmanager
def _machine(socket: str, *arguments: str, user: int) -> Iterator[None]:
    words = [
        *("qemu-system-x86_64", "-S", "-machine", "q35", "-accel", "tcg", "-m", "64M"),
        *("-nodefaults", "-display", "none", "-qmp", f"unix:{socket},server=on,wait=off", *arguments),
    ]
    if user:
        directory = Path(socket).with_suffix("")
        directory.mkdir()
        os.chown(directory, user, user)
        Path(socket).symlink_to(directory / "s")
        words[words.index("-qmp") + 1] = f"unix:{directory}/s,server=on,wait=off"
        words = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--", *words]
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as one:
        try:
            wait_for(lambda: Path(socket).exists(), f"{socket}")
            yield
        finally:
            one.kill()
            Path(socket).unlink(missing_ok=True)


@pytest.fixture
def pf(host: LocalHost, pf_a: Pf, clean_host: Snapshot) -> Iterator[OpenPrimary]:
    """Return the source with two VFs online and bound, unmarked; afterwards it is released."""
    with open_primary(host, pf_a.address, change=True) as one:
        sequence.prepare(one, Role.MIGRATABLE, 2, vq=2, vi=1, unmarked=True, confirm=agree)
        yield one
    with open_primary(host, pf_a.address, change=True) as one:
        release.release(one, confirm=agree)


def first(pf: OpenPrimary) -> tuple[int, str, str]:
    """Return controller id, address and VFIO node of the first VF."""
    one = pf.picture(users=False).secondaries[0]
    return one.cntlid, str(one.address), f"/dev/vfio/{machine.group_of(str(one.address))}"


def attach(pf: OpenPrimary, socket: str, cntlid: int, **options: Any) -> Any:
    return vm.attach(pf, cntlid, **{"qmp": socket, "unmarked": True, "confirm": agree, **options})


def detach(pf: OpenPrimary, socket: str, cntlid: int, **options: Any) -> Any:
    return vm.detach(pf, cntlid, qmp=socket, confirm=agree, **options)


def test_a_waiting_machine_takes_a_vf_and_keeps_it_until_its_reset(pf: OpenPrimary, start: Start) -> None:
    cntlid, address, node = first(pf)
    socket = start(ports=2)
    report = attach(pf, socket, cntlid)
    assert (report.changed, report.attached, report.bus, report.vmm.status) == (True, True, "rp1", "prelaunch")
    assert report.migration_blockers
    assert "through the PF" in report.migration_note
    assert attach(pf, socket, cntlid).changed is False
    holders = pf.host.openers([node.removeprefix("/dev/")])
    assert [holder.name for holder in holders] == ["qemu-system-x86"]
    picture = pf.picture()
    assert str(holders[0]) in picture.secondaries[0].used_by[0]
    with pytest.raises(BusyError) as busy:
        vm.arguments(pf, cntlid, unmarked=True)
    assert str(holders[0]) in busy.value.cause
    with pytest.raises(TimedOutError) as caught:
        detach(pf, socket, cntlid, timeout_s=2)
    assert "until the guest runs" in caught.value.cause
    with (
        Monitor(socket) as monitor,
        monitor.listening("DEVICE_DELETED", wanted=lambda data: "device" in data) as events,
    ):
        monitor.execute("system_reset")
        event = events.next(deadline_s=60)
        assert event is not None
        assert event.data["device"] == report.device_id
    assert detach(pf, socket, cntlid).changed is False
    assert pf.host.openers([node.removeprefix("/dev/")]) == []
    assert machine.driver_of(address) == "vfio-pci"


def test_with_native_hot_plug_a_waiting_machine_lets_go_at_once(pf: OpenPrimary, start: Start) -> None:
    cntlid, _, node = first(pf)
    socket = start(*NATIVE)
    attach(pf, socket, cntlid, device_id="vf1", bus="rp1")
    report = detach(pf, socket, cntlid)
    assert (report.changed, report.attached, report.device_id, report.notes) == (True, False, "vf1", ())
    assert pf.host.openers([node.removeprefix("/dev/")]) == []


def test_a_vf_has_one_machine_and_a_machine_without_ports_takes_none(pf: OpenPrimary, start: Start) -> None:
    cntlid, _, _ = first(pf)
    holder, other = start(*NATIVE), start(ports=0)
    with pytest.raises(NotSupportedError) as caught:
        attach(pf, other, cntlid)
    assert caught.value.reason == "no-hotplug-bus"
    attach(pf, holder, cntlid)
    with pytest.raises(BusyError) as busy:
        attach(pf, other, cntlid)
    assert "qemu-system-x86" in busy.value.cause
    second = pf.picture(users=False).secondaries[1].cntlid
    with pytest.raises(BusyError) as taken:
        attach(pf, holder, second, bus="rp1")
    assert taken.value.reason == "bus-taken"


def test_qemu_refuses_in_the_words_the_table_knows(pf: OpenPrimary, start: Start) -> None:
    _, address, node = first(pf)
    words = {"driver": "vfio-pci", "host": address, "id": "vf1", "bus": "rp1"}
    with Monitor(start(user=NOBODY)) as monitor:
        with pytest.raises(HostError) as caught:
            monitor.execute("device_add", words)
        assert caught.value.reason == "vfio-permission"
        os.chown(node, NOBODY, NOBODY)
        with pytest.raises(HostError) as caught:
            monitor.execute("device_add", words, deadline_s=60)
        assert caught.value.reason == "locked-memory"
        os.chown(node, 0, 0)
    with Monitor(start()) as monitor:
        group = os.open(node, os.O_RDWR)
        with pytest.raises(BusyError) as busy:
            monitor.execute("device_add", words)
        os.close(group)
        assert busy.value.reason == "in-use"
        put("/sys/bus/pci/drivers/vfio-pci/unbind", address)
        with pytest.raises(HostError) as caught:
            monitor.execute("device_add", words)
        assert caught.value.reason == "no-vfio-node"
        with pytest.raises(UsageError) as absent:
            monitor.execute("device_add", {**words, "host": "0000:77:00.1"})
        assert absent.value.reason == "no-such-vf"
        put("/sys/bus/pci/drivers_probe", address)


def test_step_5_by_the_command_line(nvmelm: Cli, pf_a: Pf, clean_host: Snapshot, start: Start) -> None:
    nvmelm("source", "prepare", pf_a.address, "--vfs", "1", "--vq", "2", "--vi", "1", "--unmarked", check=True)
    address, socket = pf_a.vfs[0], start(*NATIVE)
    refused = nvmelm("vm", "attach", address, "--qmp", socket)
    assert refused.code == 10
    assert "allow-migration" in refused.stderr
    done = nvmelm("vm", "attach", address, "--qmp", socket, "--unmarked", "--json", check=True)
    assert done.json["changed"] is True
    held = nvmelm("release", pf_a.address)
    assert held.code == 5
    assert "qemu-system-x86" in held.stderr
    back = nvmelm("vm", "detach", address, "--qmp", socket, "--json", check=True)
    assert (back.json["changed"], back.json["attached"]) == (True, False)
    nvmelm("release", pf_a.address, "--yes", check=True)
