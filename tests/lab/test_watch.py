"""The stream of changes on a real kernel: its uevents once and in order, and what it lost."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from nvmelm.errors import UeventsLostError
from nvmelm.host.local.uevents import KernelUevents
from tests.lab import machine
from tests.lab.machine import Cli, Pf, Snapshot
from tests.lab.test_vm import NATIVE, Start, start  # noqa: F401  # start is a fixture
from tests.watching import Watch, followed

pytestmark = pytest.mark.timeout(600)

#: Everything is slow under pure emulation.
PATIENCE_S = 120.0


@pytest.fixture
def watch(nvmelm: Cli, pf_a: Pf) -> Iterator[Watch]:
    with Watch("local", "--every", "1", state_dir=nvmelm.state_dir) as running:
        running.wait("primary", lambda part: part["address"] == pf_a.address, PATIENCE_S)
        yield running


def uevents(watch: Watch, address: str) -> list[tuple[str, str]]:
    """Return what the kernel said of a function, without the properties that change of themselves."""
    return [(part["subsystem"], part["action"]) for part in watch.of("uevent") if part["address"] == address]


def test_steps_1_to_5_and_their_undoing_are_seen_once_and_in_order(
    nvmelm: Cli,
    pf_a: Pf,
    clean_host: Snapshot,
    start: Start,  # noqa: F811
    watch: Watch,
) -> None:
    words = ("--vfs", "1", "--vq", "2", "--vi", "1", "--unmarked")
    nvmelm("source", "prepare", pf_a.address, *words, check=True)
    address = pf_a.vfs[0]
    cntlid = pf_a.secondaries()[0]["secondary-controller-identifier"]
    watch.wait("controller", lambda part: part["after"].get("driver") == "vfio-pci", PATIENCE_S)
    qmp = start(*NATIVE)
    nvmelm("vm", "attach", address, "--qmp", qmp, "--unmarked", "--yes", check=True)
    watch.wait("controller", lambda part: "qemu-system" in str(part["after"].get("used_by")), PATIENCE_S)
    nvmelm("vm", "detach", address, "--qmp", qmp, "--yes", check=True)
    watch.wait("controller", lambda part: part["before"].get("used_by") not in (None, []), PATIENCE_S)
    nvmelm("release", pf_a.address, "--yes", check=True)
    watch.wait("primary", lambda part: part["after"].get("vfs_enabled") == 0, PATIENCE_S)
    assert watch.end(signal.SIGTERM)[0] == 0
    assert [line["number"] for line in watch.lines] == list(range(1, len(watch.lines) + 1))
    numbers = [part["seqnum"] for part in watch.of("uevent")]
    assert numbers == sorted(set(numbers))
    assert uevents(watch, address) == [
        ("pci", "add"),
        ("pci", "change"),
        ("vfio-dev", "add"),
        ("pci", "bind"),
        ("vfio-dev", "remove"),
        ("pci", "unbind"),
        ("pci", "remove"),
    ]
    assert uevents(watch, pf_a.address) == [("pci", "change")]
    changes = watch.of("controller")
    assert followed(changes, cntlid, "present") == [False, True, False]
    assert followed(changes, cntlid, "state") == ["offline", "online", "offline"]
    assert followed(changes, cntlid, "driver") == [None, "vfio-pci", None]
    assert [bool(users) for users in followed(changes, cntlid, "used_by")] == [False, True, False]
    digests = [(part["old"], part["new"]) for part in watch.of("manifest")]
    assert digests[0][0] is None
    assert digests[-1][1] is None
    assert watch.of("trouble") == []
    assert watch.of("overrun") == []


def test_lost_uevents_are_said_once_and_later_ones_are_whole(pf_a: Pf, clean_host: Snapshot) -> None:
    trigger = Path(f"/sys/bus/pci/devices/{pf_a.address}/uevent")
    with KernelUevents() as events:
        with socket.socket(fileno=os.dup(events.fileno())) as same:
            same.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        for _ in range(200):
            trigger.write_text("change")
        with pytest.raises(UeventsLostError):
            list(iter(events.next, None))
        left = list(iter(events.next, None))
        assert len(left) < 200
        trigger.write_text("change")
        machine.wait_for(lambda: (found := events.next()) is not None and found.action == "change", "the next uevent")
