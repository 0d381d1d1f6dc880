"""The unit and the rule under a real systemd: ``python -m tests.lab --boot`` boots a host twice and runs this in each.

Every controller is slow here: udev sees none before services may start (see :mod:`tests.lab.boot`). What is proven of
the order is so for the worst case, not for a fast device that happened to be first.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.lab import guest, machine
from tests.lab.boot import BOOT_VARIABLE, MANAGER_FOUND, SHARE_VARIABLE
from tests.lab.machine import Pf, driver_of

pytestmark = pytest.mark.skipif(BOOT_VARIABLE not in os.environ, reason="not booted by systemd: make lab does that too")

#: sd-messages.h: what systemd itself writes to the journal when a job begins, and when it has ended.
STARTING, STARTED, FAILED = (
    "7d4958e842da4a758f6c1cdc7b36dcc5",
    "39f53479d3a045ac8e11786248231fbf",
    "be02cf6855d2428ba40df7e9d022f03d",
)
SERIALS = (guest.SERIAL_A, guest.SERIAL_B)
CONFIGURATION = Path("/etc/nvmelm.toml")
MANAGER, GATE = "libvirtd.service", "nvmelm-boot.service"


def run(*words: str) -> str:
    """Run a program of systemd, which must succeed, and return what it printed."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"
    return done.stdout


def unit_of(pf: Pf) -> str:
    return f"nvmelm-apply@{pf.node}.service"


def state_of(pf: Pf) -> str:
    """Return whether systemd takes this function's unit for active, inactive, failed or something in between."""
    return run("systemctl", "show", "--value", "--property=ActiveState", unit_of(pf)).strip()


def property_of(pf: Pf, name: str) -> str:
    """Return what udev knows of this function's controller since its last event."""
    known = run("udevadm", "info", "--query=property", f"/sys/class/nvme/{pf.node}").splitlines()
    return next((line.partition("=")[2] for line in known if line.startswith(f"{name}=")), "")


def times(message: str) -> dict[str, list[float]]:
    """Return when jobs began or ended, by unit: seconds since the kernel started."""
    run("journalctl", "--sync")
    lines = run("journalctl", "-b", "-o", "json", "_PID=1", f"MESSAGE_ID={message}").splitlines()
    found: dict[str, list[float]] = {}
    for entry in map(json.loads, lines):
        found.setdefault(entry["UNIT"], []).append(int(entry["__MONOTONIC_TIMESTAMP"]) / 1e6)
    return found


def starts() -> dict[str, int]:
    """Return how often each of nvmelm's units was started in this boot."""
    return {unit: len(when) for unit, when in times(STARTING).items() if unit.startswith("nvmelm-")}


def said_by(pf: Pf) -> list[str]:
    """Return what nvmelm wrote to the journal as this function's unit, and nowhere else."""
    return run("journalctl", "-b", "-o", "cat", "-t", "nvmelm", f"_SYSTEMD_UNIT={unit_of(pf)}").splitlines()


def test_the_rule_starts_the_unit_once_for_each_controlling_function_and_never_for_their_vfs(
    pf_a: Pf, pf_b: Pf
) -> None:
    run("udevadm", "settle")  # whatever the new VFs set off is done
    assert starts() == {GATE: 1, unit_of(pf_a): 1, unit_of(pf_b): 1}
    assert not [unit for unit in times(FAILED) if unit.startswith("nvmelm-")]


def test_the_function_that_is_listed_is_as_the_file_wants_it(pf_a: Pf) -> None:
    assert pf_a.read("sriov_numvfs") == "2"
    assert [driver_of(vf) for vf in pf_a.vfs] == ["vfio-pci", "vfio-pci"]
    assert [secondary["secondary-controller-state"] for secondary in pf_a.secondaries()] == [1, 1, 0, 0]
    assert said_by(pf_a)[-1] == "apply: done"


def test_the_function_that_is_not_listed_is_left_alone_and_its_unit_has_not_failed(pf_b: Pf) -> None:
    assert pf_b.read("sriov_numvfs") == "0"
    assert not [
        secondary
        for secondary in pf_b.secondaries()
        if secondary["num-virtual-queues"] or secondary["secondary-controller-state"]
    ]
    assert said_by(pf_b) == ["apply: nothing to do"]


def test_the_vm_manager_starts_when_everything_is_done_and_finds_the_vfs_bound(
    pf_a: Pf, pf_b: Pf, capsys: pytest.CaptureFixture[str]
) -> None:
    begun, ended = times(STARTING), times(STARTED)
    basic = ended["basic.target"][0]
    with capsys.disabled():
        print(f"\nlab: basic.target {basic:.2f} s, ", end="")
        for unit in (GATE, unit_of(pf_a), unit_of(pf_b), MANAGER):
            print(f"{unit} {begun[unit][0]:.2f} to {ended[unit][0]:.2f} s", end="\n" if unit == MANAGER else ", ")
    for pf in (pf_a, pf_b):
        assert state_of(pf) == "active"
        assert run("systemctl", "show", "--value", "--property=ExecMainStatus", unit_of(pf)).strip() == "0"
        assert basic < begun[unit_of(pf)][0] < ended[unit_of(pf)][0] < begun[MANAGER][0]
    assert MANAGER_FOUND.read_text().split() == [word for vf in pf_a.vfs for word in (vf, "vfio-pci")]


def test_udev_itself_does_nothing_but_ask(pf_a: Pf) -> None:
    assert ":systemd:" in property_of(pf_a, "CURRENT_TAGS")
    tested = run("udevadm", "test", f"/sys/class/nvme/{pf_a.node}")
    assert not [line for line in tested.splitlines() if line.startswith("run:") and "nvmelm" in line]
    assert "nvmelm" not in run("journalctl", "-b", "-o", "cat", "_SYSTEMD_UNIT=systemd-udevd.service")


def test_what_udev_says_again_and_a_reload_start_nothing() -> None:
    before = starts()
    for action in ("add", "change"):
        run("udevadm", "trigger", "--settle", f"--action={action}", "--subsystem-match=nvme", "--subsystem-match=pci")
        assert starts() == before, action
    for verb in ("daemon-reload", "daemon-reexec"):
        run("systemctl", verb)
        assert starts() == before, verb


def test_starting_the_unit_again_does_nothing_and_running_it_again_changes_nothing(pf_a: Pf) -> None:
    inodes = [(pf_a.path / f"virtfn{number}").stat().st_ino for number in range(2)]
    before, host = starts(), machine.snapshot(SERIALS)
    run("systemctl", "start", unit_of(pf_a))
    assert starts() == before
    run("systemctl", "restart", unit_of(pf_a))
    assert starts()[unit_of(pf_a)] == before[unit_of(pf_a)] + 1
    assert said_by(pf_a)[-1] == "apply: nothing to do"
    assert machine.snapshot(SERIALS) == host
    assert [(pf_a.path / f"virtfn{number}").stat().st_ino for number in range(2)] == inodes


def test_a_unit_that_failed_is_not_started_by_the_reset_that_may_have_made_it_fail(pf_b: Pf) -> None:
    wanted = CONFIGURATION.read_text()
    try:
        CONFIGURATION.write_text("[[pf]]\nvfz = 1\n")
        assert subprocess.run(["systemctl", "restart", unit_of(pf_b)], capture_output=True).returncode != 0
        before, event = starts(), property_of(pf_b, "LAB_CONNECTED")
        machine.put(f"/sys/class/nvme/{pf_b.node}/reset_controller", "1")
        machine.wait_for(lambda: property_of(pf_b, "LAB_CONNECTED") not in ("", event), "udev to hear of the reset")
        run("udevadm", "settle")
        assert starts() == before
    finally:
        CONFIGURATION.write_text(wanted)
    run("systemctl", "restart", unit_of(pf_b))


def test_a_controller_that_leaves_and_comes_back_is_brought_to_its_state_again(pf_b: Pf) -> None:
    before = starts()
    machine.put(pf_b.path / "remove", "1")
    machine.wait_for(lambda: state_of(pf_b) == "inactive", "its unit to end with it")
    machine.put("/sys/bus/pci/rescan", "1")
    back = machine.find_pf(guest.SERIAL_B)
    machine.wait_for(lambda: state_of(back) == "active", "the unit of the controller that is back")
    assert sum(starts().values()) == sum(before.values()) + 1
    assert said_by(back)[-1] == "apply: nothing to do"


def test_every_boot_gives_the_same_host() -> None:
    kept = Path(os.environ[SHARE_VARIABLE], "host.json")
    found = json.loads(json.dumps(asdict(machine.snapshot(SERIALS))))
    if os.environ[BOOT_VARIABLE] == "1":
        kept.write_text(json.dumps(found))
    assert found == json.loads(kept.read_text())
