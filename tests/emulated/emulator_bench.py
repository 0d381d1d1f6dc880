"""Shorthand for tests of the emulator: admin commands typed as words, and a host whose VFs a guest can use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from nvmelm.emulator.host import EmulatedHost, create
from nvmelm.emulator.machine.generations import NVME_2_1, DeviceGeneration
from nvmelm.host import AdminCommand, AdminQueue, Completion

PF = "0000:01:00.0"
VF1 = "0000:01:00.1"
VF2 = "0000:01:00.2"
PF_DIR = f"bus/pci/devices/{PF}"
VF1_DIR = f"bus/pci/devices/{VF1}"

IDENTIFY, VIRT, TRACK_SEND, TRACK_RECEIVE = 0x06, 0x1C, 0x3D, 0x3E
SEND, RECEIVE, DATA_QUEUE = 0x41, 0x42, 0x45
PRIMARY, FIRST, SECOND = 0x0041, 0x0042, 0x0043  # controller ids of the nvme-2.1 generations


@dataclass
class Bench:
    """One host and the admin queue of its first primary."""

    host: EmulatedHost
    queue: AdminQueue

    def send(self, opcode: int, cdw10: int = 0, cdw11: int = 0, **more: Any) -> Completion:
        return self.queue.submit(AdminCommand(name="test", opcode=opcode, cdw10=cdw10, cdw11=cdw11, **more))

    def status(self, opcode: int, cdw10: int = 0, cdw11: int = 0, **more: Any) -> int:
        return self.send(opcode, cdw10, cdw11, **more).status

    def identify(self, cns: int, cntid: int = 0, nsid: int = 0) -> bytes:
        completion = self.send(IDENTIFY, cntid << 16 | cns, nsid=nsid, data_in_length=4096)
        assert completion.status == 0
        return completion.data

    def write(self, path: str, value: str) -> None:
        self.host.sysfs.write(path, value)

    def enable(self, count: int) -> None:
        self.write(f"{PF_DIR}/sriov_drivers_autoprobe", "0")
        self.write(f"{PF_DIR}/sriov_numvfs", str(count))

    def online(self, cntlid: int = FIRST, vq: int = 3, vi: int = 2) -> None:
        assert self.status(VIRT, cntlid << 16 | 0x008, vq) == 0
        assert self.status(VIRT, cntlid << 16 | 0x108, vi) == 0
        assert self.status(VIRT, cntlid << 16 | 0x009) == 0

    def bind(self, bdf: str = VF1) -> None:
        self.host.load_module("vfio-pci")
        self.write(f"bus/pci/devices/{bdf}/driver_override", "vfio-pci")
        self.write("bus/pci/drivers_probe", bdf)
        assert (self.host.sysfs.readlink(f"bus/pci/devices/{bdf}/driver") or "").endswith("/vfio-pci")

    def prepare(self, count: int = 2) -> None:
        """Steps 1 to 4 for the first VF."""
        self.enable(count)
        self.online()
        self.bind()

    def suspend(self, cntlid: int = FIRST) -> int:
        return self.status(SEND, 0, 1 << 16 | cntlid)

    def resume(self, cntlid: int = FIRST) -> int:
        return self.status(SEND, 1, cntlid)

    def receive(
        self, cntlid: int = FIRST, *, offset: int = 0, length: int = 48, csvi: int = 1, csuuidi: int = 0
    ) -> Completion:
        words = {"cdw12": offset & 0xFFFF_FFFF, "cdw13": offset >> 32, "cdw15": length // 4 - 1}
        return self.send(RECEIVE, csvi << 16, csuuidi << 16 | cntlid, data_in_length=length, **words)

    def state(self, cntlid: int = FIRST, *, csuuidi: int = 0) -> bytes:
        """Return the whole Controller State."""
        header = self.receive(cntlid, csuuidi=csuuidi).data
        dwords = int.from_bytes(header[16:32], "little") + int.from_bytes(header[32:48], "little")
        completion = self.receive(cntlid, length=48 + 4 * dwords, csuuidi=csuuidi)
        assert completion.status == 0
        return completion.data

    def set(
        self, data: bytes, *, sequence: int = 3, offset: int = 0, cntlid: int = FIRST, csvi: int = 1, csuuidi: int = 0
    ) -> int:
        words = {"cdw12": offset & 0xFFFF_FFFF, "cdw13": offset >> 32, "cdw15": len(data) // 4}
        head = (sequence << 16 | 2, csuuidi << 24 | csvi << 16 | cntlid)
        return self.status(SEND, *head, data_out=data or None, **words)


def bench(directory: Path, generation: str | DeviceGeneration = NVME_2_1, **more: Any) -> Bench:
    host = create(directory, [generation], **more)
    return Bench(host, host.open_queue("nvme0"))


def move(source: Bench, destination: Bench, cuts: Sequence[int] = (), *, csuuidi: int = 0) -> None:
    """Suspend both, read the state here and set it there, cut at the given bytes, and resume there."""
    assert source.suspend() == 0
    assert destination.suspend() == 0
    raw = source.state(csuuidi=csuuidi)
    edges = [0, *sorted({cut * 4 for cut in cuts if 0 < cut * 4 < len(raw)}), len(raw)]
    for start, end in pairwise(edges):
        sequence = (start == 0) | (end == len(raw)) << 1
        assert destination.set(raw[start:end], sequence=sequence, offset=start, csuuidi=csuuidi) == 0
