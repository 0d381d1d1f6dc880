"""The lab's runner, without a guest: what it asks of the machine, of the emulator, and of time."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.lab import guest
from tests.lab.__main__ import pytest_command
from tests.lab.guest import Guest, LabError


def options(arguments: list[str], device: str) -> list[dict[str, str]]:
    """Return the options of every device of a kind, as the emulator would read them."""
    words = [word for word in arguments if word.split(",")[0] == device]
    return [dict(pair.split("=", 1) for pair in word.split(",")[1:]) for word in words]


@pytest.mark.parametrize("vfs", [1, 4, 32, 127])
def test_the_controllers_keep_the_emulators_rules_for_resources(tmp_path: Path, vfs: int) -> None:
    controllers = options(guest.nvme_devices(Guest(vfs=vfs), tmp_path, hmlms=False), "nvme")
    assert [controller["serial"] for controller in controllers] == ["LABA0001", "LABB0001"]
    for controller in controllers:
        vq, vi = int(controller["sriov_vq_flexible"]), int(controller["sriov_vi_flexible"])
        assert int(controller["sriov_max_vfs"]) == vfs
        assert vq >= 2 * vfs
        assert vi >= vfs
        assert int(controller["max_ioqpairs"]) >= vq + 2
        assert int(controller["msix_qsize"]) >= vi + 1
        assert "hmlms" not in controller
    assert len({controller["subsys"] for controller in controllers}) == 2
    assert len({controller["bus"] for controller in controllers}) == 2


def test_hmlms_is_asked_for_where_the_emulator_has_it(tmp_path: Path) -> None:
    controllers = options(guest.nvme_devices(Guest(), tmp_path, hmlms=True), "nvme")
    assert [controller["hmlms"] for controller in controllers] == ["on", "on"]


@pytest.mark.parametrize(
    ("says", "expected"), [("  hmlms=<bool> -  (default: false)", True), ("  mdts=<uint8>", False)]
)
def test_hmlms_is_read_from_what_the_emulator_says(tmp_path: Path, says: str, expected: bool) -> None:
    binary = tmp_path / "qemu"
    binary.write_text(f"#!/bin/sh\necho 'nvme options:'\necho '{says}'\n")
    binary.chmod(0o755)
    assert guest.has_hmlms(str(binary)) is expected


def test_without_a_kernel_the_package_to_install_is_named(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="apt-get install linux-image-amd64"):
        guest.find_kernel(tmp_path)


def test_a_kernel_without_its_modules_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "vmlinuz-0.0.1-none").write_text("")
    with pytest.raises(LabError, match=re.escape("vmlinuz-0.0.1-none")):
        guest.find_kernel(tmp_path)


def test_newer_kernels_come_first_by_number_not_by_letter() -> None:
    names = [Path(f"/boot/vmlinuz-{release}") for release in ("6.1.0-9-amd64", "6.10.0-1-amd64", "6.1.0-56-amd64")]
    newest = max(names, key=guest._version)
    assert newest.name == "vmlinuz-6.10.0-1-amd64"


def test_without_the_emulator_the_package_to_install_is_named() -> None:
    with pytest.raises(LabError, match=r"apt-get install qemu-system-x86|this is"):
        guest.find_programs("/nonexistent/qemu")


def test_pytest_inside_writes_nothing_beside_the_repository() -> None:
    assert pytest_command([])[-1] == "tests/lab"
    assert pytest_command(["tests/lab/test_host.py"])[-1] == "tests/lab/test_host.py"
    assert {"no:cacheprovider", "--basetemp=/run/pytest"} <= set(pytest_command(["-q"]))


def test_output_comes_as_it_is_written_and_the_end_is_seen(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert guest._stream([sys.executable, "-c", "print('booted')"], time.monotonic() + 60)
    assert capfdbinary.readouterr().out == b"booted\n"


def test_at_the_deadline_the_whole_session_ends(tmp_path: Path) -> None:
    left = tmp_path / "pid"
    script = (
        "import subprocess, sys, time; child = subprocess.Popen(['sleep', '600']); "
        "open(sys.argv[1], 'w').write(str(child.pid)); time.sleep(600)"
    )
    deadline = time.monotonic() + 3
    assert not guest._stream([sys.executable, "-c", script, str(left)], deadline)
    pid = int(left.read_text())
    gone_by = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists() and Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z":
        assert time.monotonic() < gone_by
        time.sleep(0.01)


def test_outside_the_guest_every_lab_test_is_skipped_with_its_reason() -> None:
    environment = {name: value for name, value in os.environ.items() if name != guest.GUEST_VARIABLE}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/lab/test_host.py"],
        capture_output=True, text=True, check=False, env=environment, cwd=Path(guest.__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0
    assert "needs the lab's guest: make lab" in done.stdout
    assert "passed" not in done.stdout
