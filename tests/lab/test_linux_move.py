"""A real Linux guest moves with a file system mounted on its function: MSI-X, its driver's queues, and its data.

Slow, and so left out of ``make lab``: ``make lab-linux`` runs it.
"""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.lab import linux_guest
from tests.lab.linux_guest import COMPLAINTS, PROGRESS
from tests.lab.machine import Pf, medium, wait_for
from tests.lab.moves import Two, prepared
from tests.lab.vms import Vm, Vms

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

#: An emulated machine boots in an emulated machine.
BOOT_S = 900.0


def progress(vm: Vm) -> tuple[int, int]:
    """Return how many blocks the guest has written, and how many admin interrupts it has taken."""
    lines = PROGRESS.findall(vm.console)
    return (int(lines[-1][0]), int(lines[-1][1])) if lines else (0, 0)


def await_blocks(vm: Vm, count: int) -> None:
    """Wait until the guest has written so many blocks; what it said instead is shown."""
    until = time.monotonic() + BOOT_S
    while progress(vm)[0] < count:
        assert time.monotonic() < until, f"no {count} blocks in {BOOT_S:g} s\n{vm.console[-2000:]}\n{vm.said()}"
        time.sleep(0.5)


def test_a_linux_guest_goes_on_writing_and_asking_its_controller_and_its_file_system_is_whole(
    two: Two, vms: Vms, pf_a: Pf, pf_b: Pf, tmp_path: Path
) -> None:
    device = str(medium())
    vmlinux = linux_guest.kernel(tmp_path, linux_guest.running_kernel())
    system = linux_guest.machine(vmlinux, linux_guest.initramfs(tmp_path, os.uname().release))
    subprocess.run(["mke2fs", "-q", "-t", "ext4", device, "32M"], check=True)
    subprocess.run(["blockdev", "--flushbufs", device], check=True)
    prepared(two.here, "source", pf_a, vectors=2)
    prepared(two.there, "destination", pf_b, vectors=2)

    here = vms.start(two.here, pf_a.vfs, system=system)
    there = vms.start(two.there, pf_b.vfs, system=system, arriving=True)
    await_blocks(here, 40)
    moved = here.move(there)
    left = progress(here)
    await_blocks(there, left[0] + 40)
    assert progress(there)[1] > left[1], "no admin command completed after the move"
    there.type("end")
    wait_for(lambda: COMPLAINTS.search(there.console), "the guest to end", BOOT_S)
    assert COMPLAINTS.findall(there.console) == ["0"], there.console
    assert "differs" not in here.console + there.console
    print(f"{left[0]} blocks before, {progress(there)[0]} in all; downtime {moved['downtime']} ms")

    assert there.process.wait(timeout=60) == 0
    subprocess.run(["blockdev", "--flushbufs", device], check=True)
    checked = subprocess.run(["e2fsck", "-fn", device], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout
