"""The half of the bench that runs in the lab's guest: 32 VFs on a real kernel, beside bare ioctls and other tools."""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from nvmelm.commands import execute, identify
from nvmelm.host.local.machine import LocalHost
from nvmelm.inventory.opened import open_primary
from nvmelm.inventory.picture import Role
from nvmelm.prepare import release as undo_all
from nvmelm.prepare import sequence
from tests.bench.rows import Row
from tests.lab import guest, machine
from tests.lab.machine import Pf

VFS = 32
ROUNDS = 3
COMMANDS = 1000
ADMIN64 = 0xC0504E47
#: nvme_passthru_cmd64: opcode, flags, rsvd, nsid, cdw2, cdw3, metadata, addr, metadata_len, data_len, cdw10 to cdw15,
#: timeout, rsvd2, result; 80 bytes.
COMMAND = struct.Struct("<BBHIIIQQII6IIIQ")


def settled(work: Callable[[], object]) -> float:
    """Return how long some work takes that begins when udev has nothing left to do of what went before."""
    subprocess.run(["udevadm", "settle"], check=True)
    return ms(work)


def ms(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return (time.perf_counter() - begin) * 1000


class Bare:
    """Steps 1 to 4 as a script would do them: writes and ioctls, nothing checked but what must be known."""

    def __init__(self, pf: Pf) -> None:
        self.pf = pf
        self.device = os.open(f"/dev/{pf.node}", os.O_RDONLY)
        self.buffer = ctypes.create_string_buffer(4096)

    def command(self, opcode: int, cdw10: int, cdw11: int = 0, length: int = 0) -> None:
        address = ctypes.addressof(self.buffer) if length else 0
        packed = bytearray(
            COMMAND.pack(opcode, 0, 0, 0, 0, 0, 0, address, 0, length, cdw10, cdw11, 0, 0, 0, 0, 60000, 0, 0)
        )
        status = fcntl.ioctl(self.device, ADMIN64, packed)
        assert status == 0, hex(status)

    def prepare(self, *, reset: bool) -> None:
        machine.put(self.pf.path / "sriov_drivers_autoprobe", "0")
        machine.put(self.pf.path / "sriov_numvfs", str(VFS))
        self.command(0x06, 0x15, length=4096)
        ids = [int.from_bytes(self.buffer.raw[32 * n + 32 : 32 * n + 34], "little") for n in range(VFS)]
        functions = self.pf.vfs
        for cntlid in ids:
            self.command(0x1C, cntlid << 16 | 0x008, 2)
            self.command(0x1C, cntlid << 16 | 0x108, 1)
        for function in functions if reset else []:
            machine.put(machine.PCI / "devices" / function / "reset", "1")
        for cntlid in ids:
            self.command(0x1C, cntlid << 16 | 0x009)
        for function in functions:
            machine.put(machine.PCI / "devices" / function / "driver_override", "vfio-pci")
            machine.put(machine.PCI / "drivers_probe", function)
            assert machine.driver_of(function) == "vfio-pci"

    def undo(self) -> None:
        machine.put(self.pf.path / "sriov_numvfs", "0")
        machine.put(self.pf.path / "sriov_drivers_autoprobe", "1")


def steps(pf: Pf, state: Path) -> list[Row]:
    """Compare steps 1 to 4 in one process with the bare writes and ioctls, round by round in turns."""
    bare, host = Bare(pf), LocalHost(state_dir=state)
    ours, plain, with_resets = [], [], []

    def prepare() -> None:
        with open_primary(host, pf.address, change=True) as primary:
            sequence.prepare(primary, Role.MIGRATABLE, VFS, vq=2, vi=1, unmarked=True, confirm=lambda _: None)

    def release() -> None:
        with open_primary(host, pf.address, change=True) as primary:
            undo_all.release(primary, confirm=lambda _: None)

    for number in range(ROUNDS):
        plain.append(settled(lambda: bare.prepare(reset=False)))
        bare.undo()
        ours.append(settled(prepare))
        release()
        if number == 0:
            with_resets.append(settled(lambda: bare.prepare(reset=True)))
            bare.undo()
    best = min(ours)
    return [
        Row("steps 1-4, 32 VFs, in process", best, "bare writes and ioctls, no resets", min(plain), 2.0),
        Row("steps 1-4, 32 VFs, in process", best, "bare, with the same resets, one by one", min(with_resets), None),
    ]


def command_line(pf: Pf, state: Path) -> list[Row]:
    """Compare one command with the same work done by nvme-cli and driverctl."""
    nvmelm = machine.Cli(state)
    words = ("prepare", pf.address, "--vfs", str(VFS), "--vq", "2", "--vi", "1", "--unmarked")
    nvmelm("source", *words, "--dry-run", check=True)  # both sides start from programs the guest has read before
    ours = settled(lambda: nvmelm("source", *words, check=True))
    nvmelm("release", pf.address, "--yes", check=True)
    theirs = settled(lambda: by_other_tools(pf))
    for function in pf.vfs:
        subprocess.run(["driverctl", "--nosave", "unset-override", function], capture_output=True, check=False)
    Bare(pf).undo()
    return [Row("source prepare, 32 VFs, whole command", ours, "nvme virt-mgmt and driverctl", theirs, 0.1)]


def by_other_tools(pf: Pf) -> None:
    machine.put(pf.path / "sriov_drivers_autoprobe", "0")
    machine.put(pf.path / "sriov_numvfs", str(VFS))
    for secondary in pf.secondaries()[:VFS]:
        manage = ["nvme", "virt-mgmt", f"/dev/{pf.node}", "-c", str(secondary["secondary-controller-identifier"])]
        for words in (["-r", "0", "-n", "2", "-a", "8"], ["-r", "1", "-n", "1", "-a", "8"], ["-a", "9"]):
            subprocess.run([*manage, *words], capture_output=True, check=True)
    for function in pf.vfs:
        subprocess.run(["driverctl", "--nosave", "set-override", function, "vfio-pci"], capture_output=True, check=True)


def commands(pf: Pf, state: Path) -> list[Row]:
    """Compare one Identify through the seam with the bare ioctl, in turns."""
    bare, queue = Bare(pf), LocalHost(state_dir=state).open_queue(pf.node)
    once = {"bare": [], "submit": [], "execute": []}  # type: dict[str, list[float]]
    command = identify.controller()
    for _ in range(COMMANDS):
        once["bare"].append(ms(lambda: (bare.command(0x06, 0x01, length=4096), bare.buffer.raw)))
        once["submit"].append(ms(lambda: queue.submit(command)))
        once["execute"].append(ms(lambda: execute(queue, identify.controller())))
    middle = {name: statistics.median(times) for name, times in once.items()}
    return [
        Row("one command, submit", middle["submit"], "the same ioctl from bare Python", middle["bare"], 2.0),
        Row(
            "one command, built and executed", middle["execute"], "the same ioctl from bare Python", middle["bare"], 2.0
        ),
    ]


def main(results: Path) -> int:
    """Measure and leave the rows where the host reads them."""
    subprocess.run(["modprobe", "vfio-pci"], check=True)
    pf = machine.find_pf(guest.SERIAL_A)
    rows = [*commands(pf, results.parent / "a"), *steps(pf, results.parent / "b")]
    rows += command_line(pf, results.parent / "c")
    results.write_text(json.dumps(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
