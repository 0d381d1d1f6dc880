"""Fixtures of the lab: only inside its guest does anything here touch a device."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nvmelm.host.local.machine import LocalHost
from tests.lab import guest, machine
from tests.lab.machine import Cli, Pf
from tests.lab.moves import Two
from tests.lab.vms import Vms

_SERIALS = (guest.SERIAL_A, guest.SERIAL_B)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip every test of the lab outside its guest: they bind, unbind and reset what they find."""
    inside = os.environ.get(guest.GUEST_VARIABLE) == "1"
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.lab)
            if not inside:
                item.add_marker(pytest.mark.skip(reason="needs the lab's guest: make lab"))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Say why a test failed when it has: a guest that ends before its tests do takes pytest's summary with it."""
    if report.failed:
        print(f"\n{report.nodeid} failed:\n{report.longreprtext}", flush=True)


@pytest.fixture
def pf_a() -> Pf:
    """Return the physical function that plays the source."""
    return machine.find_pf(guest.SERIAL_A)


@pytest.fixture
def pf_b() -> Pf:
    """Return the physical function that plays the destination, in another subsystem."""
    return machine.find_pf(guest.SERIAL_B)


@pytest.fixture
def nvmelm(tmp_path: Path) -> Cli:
    """Return the command line, with a fresh state directory."""
    return Cli(tmp_path / "state")


@pytest.fixture
def host(tmp_path: Path) -> LocalHost:
    """Return this machine, with a fresh state directory."""
    return LocalHost(state_dir=tmp_path / "host-state")


@pytest.fixture
def witness() -> Callable[..., Any]:
    """Return nvme-cli as a function of verb and arguments that gives its JSON."""
    return machine.nvme_cli


@pytest.fixture
def clean_host() -> Iterator[machine.Snapshot]:
    """Fail the test if it leaves counts, autoprobe, drivers, overrides or secondaries other than it found them."""
    before = machine.snapshot(_SERIALS)
    yield before
    after = machine.snapshot(_SERIALS)
    if after != before:
        machine.restore(_SERIALS)
    assert after == before


@pytest.fixture
def scratch_host() -> Iterator[None]:
    """Let a test leave the machine as it likes: afterwards there are no VFs, and every driver is back."""
    yield
    machine.restore(_SERIALS)


@pytest.fixture
def enabled(pf_a: Pf, scratch_host: None) -> list[str]:
    """Return the addresses of two VFs of the source, enabled by plain writes, without drivers."""
    machine.put(pf_a.path / "sriov_drivers_autoprobe", "0")
    machine.put(pf_a.path / "sriov_numvfs", "2")
    return pf_a.vfs


@pytest.fixture
def hmlms() -> None:
    """Skip where the emulated controllers have no Migration Send and Receive."""
    if os.environ.get(guest.HMLMS_VARIABLE) != "1":
        pytest.skip("this QEMU's nvme device has no hmlms property")


@pytest.fixture
def two(hmlms: None, scratch_host: None, tmp_path: Path) -> Two:
    """Return both hosts; what the test leaves is put back."""
    return Two(Cli(tmp_path / "here"), Cli(tmp_path / "there"), tmp_path)


@pytest.fixture
def vmm() -> str:
    """Return a VMM that speaks VFIO's migration interface; skips where the lab was not given one."""
    path = os.environ.get(guest.VMM_VARIABLE)
    if not path:
        pytest.skip("there is no VMM whose VMs can move: make lab-vmm")
    return path


@pytest.fixture
def vms(two: Two, vmm: str) -> Iterator[Vms]:
    """Start VMs that can move; they end before the functions are taken away."""
    with Vms(vmm) as started:
        yield started
