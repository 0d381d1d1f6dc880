"""The guest's machine as the lab's tests see it: by nvme-cli and plain files, never by the code under test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

PCI = Path("/sys/bus/pci")
RESTORE_DEADLINE_S = 60.0
T = TypeVar("T")


@dataclass(frozen=True)
class Result:
    """What a run of the command line gave."""

    code: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def json(self) -> Any:
        """Return the one document on stdout."""
        return json.loads(self.stdout)

    @property
    def lines(self) -> list[Any]:
        """Return the documents of a stream, one a line."""
        return [json.loads(line) for line in self.stdout.splitlines()]


class Cli:
    """Runs ``nvmelm`` as an operator would, with a state directory of its own."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir

    def __call__(self, *words: str, check: bool = False, timeout: float = 300, **environment: str) -> Result:
        """Run one verb; with ``check`` it must succeed."""
        begin = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "nvmelm", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env={**os.environ, "NVMELM_STATE_DIR": str(self.state_dir), **environment},
        )
        result = Result(done.returncode, done.stdout, done.stderr, time.monotonic() - begin)
        if check:
            assert result.code == 0, (
                f"nvmelm {' '.join(words)} ended with {result.code}\n{result.stdout}{result.stderr}"
            )
        return result

    def start(self, *words: str, stdout: IO[bytes] | None = None) -> subprocess.Popen[bytes]:
        """Start one verb and let it run."""
        return subprocess.Popen(
            [sys.executable, "-m", "nvmelm", *words],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            env={**os.environ, "NVMELM_STATE_DIR": str(self.state_dir)},
        )


@dataclass(frozen=True)
class Pf:
    """A physical function of the guest, found anew for every test: the kernel renumbers controllers at will."""

    node: str
    address: str
    serial: str

    @property
    def path(self) -> Path:
        """Return its directory in sysfs."""
        return PCI / "devices" / self.address

    @property
    def relative(self) -> str:
        """Return its directory relative to sysfs."""
        return f"bus/pci/devices/{self.address}"

    def read(self, attribute: str) -> str:
        """Return an attribute's text."""
        return (self.path / attribute).read_text().strip()

    @property
    def vfs(self) -> list[str]:
        """Return the addresses of its VFs, in the order of their index."""
        links = sorted(self.path.glob("virtfn*"), key=lambda link: int(link.name.removeprefix("virtfn")))
        return [link.readlink().name for link in links]

    def secondaries(self) -> list[dict[str, int]]:
        """Return the Secondary Controller List as nvme-cli reads it."""
        return list(nvme_cli("list-secondary", f"/dev/{self.node}")["secondary-controllers"])


def find_pf(serial: str) -> Pf:
    """Return the physical function with a serial number, once its controller is live."""

    def found() -> Pf | None:
        for controller in Path("/sys/class/nvme").iterdir():
            address = (controller / "device").resolve().name
            virtual = (PCI / "devices" / address / "physfn").exists()
            if (controller / "serial").read_text().strip() == serial and not virtual:
                return Pf(controller.name, address, serial) if _text(controller / "state") == "live" else None
        return None

    pf = wait_for(found, f"controller {serial} to be live")
    assert pf is not None
    return pf


def medium() -> Path:
    """Return a block device of the namespace that both physical functions have; a kernel need not show it by both."""
    return wait_for(lambda: sorted(Path("/dev").glob("nvme*n1")), "the namespace's block device")[0]


def wait_for(condition: Callable[[], T], what: str, deadline_s: float = RESTORE_DEADLINE_S) -> T:
    """Poll a condition until it is true, and return its value."""
    deadline = time.monotonic() + deadline_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {deadline_s:g} s for {what}"
        time.sleep(0.02)
    return value


def nvme_cli(verb: str, *words: str) -> Any:
    """Return what nvme-cli, the independent witness, says as JSON."""
    done = subprocess.run(["nvme", verb, *words, "-o", "json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"nvme {verb} {' '.join(words)}: {done.stdout}{done.stderr}"
    return json.loads(done.stdout)


def driver_of(address: str) -> str:
    """Return the driver bound to a function, or empty."""
    link = PCI / "devices" / address / "driver"
    return link.readlink().name if link.is_symlink() else ""


def override_of(address: str) -> str:
    """Return a function's driver_override; the kernel prints ``(null)`` when there is none."""
    return _text(PCI / "devices" / address / "driver_override")


def group_of(address: str) -> str:
    """Return the number of a function's IOMMU group."""
    return (PCI / "devices" / address / "iommu_group").readlink().name


def put(path: Path | str, value: str) -> None:
    """Write an attribute."""
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, value.encode())
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class Snapshot:
    """Everything a preparation may change, on every physical function."""

    pfs: tuple[tuple[str, str, str, str], ...]
    functions: tuple[tuple[str, str, str], ...]
    secondaries: tuple[tuple[str, int, int, int, int], ...]


def snapshot(serials: tuple[str, ...]) -> Snapshot:
    """Read counts, autoprobe, drivers, overrides, and what each controller says of its secondaries."""
    pfs, functions, secondaries = [], [], []
    for serial in serials:
        pf = find_pf(serial)
        pfs.append((serial, pf.address, pf.read("sriov_numvfs"), pf.read("sriov_drivers_autoprobe")))
        functions += [(one, driver_of(one), override_of(one)) for one in (pf.address, *pf.vfs)]
        secondaries += [
            (serial, secondary["secondary-controller-identifier"], secondary["secondary-controller-state"],
             secondary["num-virtual-queues"], secondary["num-virtual-interrupts"])
            for secondary in pf.secondaries()
        ]  # fmt: skip
    return Snapshot(tuple(pfs), tuple(functions), tuple(secondaries))


def restore(serials: tuple[str, ...]) -> None:
    """Bring every physical function back to no VFs, autoprobe on, its own driver, whatever a test left behind."""
    for address in sorted(one.name for one in (PCI / "devices").iterdir() if (one / "sriov_totalvfs").exists()):
        if driver_of(address) != "nvme":
            if driver_of(address):
                put(PCI / "devices" / address / "driver/unbind", address)
            put(PCI / "devices" / address / "driver_override", "\n")
            put(PCI / "drivers/nvme/bind", address)
    for serial in serials:
        pf = find_pf(serial)
        put(pf.path / "driver_override", "\n")
        put(pf.path / "sriov_numvfs", "0")
        put(pf.path / "sriov_drivers_autoprobe", "1")
        for secondary in pf.secondaries():  # resources may have been assigned without enabling anything
            if (
                secondary["secondary-controller-state"]
                or secondary["num-virtual-queues"]
                or secondary["num-virtual-interrupts"]
            ):
                cntlid = str(secondary["secondary-controller-identifier"])
                manage = ["nvme", "virt-mgmt", f"/dev/{pf.node}", "-c", cntlid]
                for words in (["-a", "7"], ["-a", "8", "-r", "0", "-n", "0"], ["-a", "8", "-r", "1", "-n", "0"]):
                    subprocess.run([*manage, *words], capture_output=True, check=False)


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
