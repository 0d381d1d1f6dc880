"""Manifests of controllers that were recorded: every fact typed from the recorded bytes, or absent.

The recordings hold no sysfs attributes of the controller and no namespaces, so what comes from these is not known, and
that blocks. Sources: ``fixtures/README.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from nvmelm.compat import describe as read
from nvmelm.compat.facts import FACTS
from nvmelm.compat.manifest import Manifest
from nvmelm.compat.rules import FactValue, valid
from nvmelm.compat.verdict import judge
from nvmelm.errors import HostError
from nvmelm.host import AdminCommand, Completion, HostFacts
from nvmelm.host.recording.transcript import Transcript
from nvmelm.inventory.find import find_primary
from nvmelm.inventory.read import read_picture
from tests.unit import golden
from tests.unit.fakes import FakeHost

INVALID_FIELD = 0x4002
LAB = golden.FIXTURES / "transcripts" / "lab-linux-6.1-qemu-7.2"
Key = tuple[int, int, tuple[int, ...]]


class Recorded:
    """An admin queue that answers as a recording does, in any order, and refuses what was not recorded."""

    max_transfer_bytes = 128 * 1024

    def __init__(self, answers: Mapping[Key, Completion]) -> None:
        self._answers = answers

    def submit(self, command: AdminCommand) -> Completion:
        return self._answers.get((command.opcode, command.nsid, command.words), Completion(INVALID_FIELD))

    def close(self) -> None:
        pass


class OneController(FakeHost):
    """A host of dictionaries whose nvme0 is a PCI function."""

    def readlink(self, path: str) -> str | None:
        return "../../../0000:01:00.0" if path == "class/nvme/nvme0/device" else None


class RecordedHost(FakeHost):
    """The host of a transcript: what was read can be read in any order, and nothing else is there."""

    def __init__(self, directory: Path, transcript: Transcript) -> None:
        super().__init__(directory)
        self._asked: dict[tuple[str, str], Any] = {}
        answers: dict[Key, Completion] = {}
        for event in transcript.events:
            told: Any = event
            if hasattr(event, "sysfs"):
                self._asked[told.sysfs, told.path] = told.value
            elif hasattr(event, "admin") and told.status is not None:
                data = told.data_in.data() if told.data_in is not None else b""
                answers[told.opcode, told.nsid, told.words] = Completion(told.status, told.result, data)
        self.queues = {"nvme0": Recorded(answers), "nvme1": Recorded({})}

    def read(self, path: str) -> str:
        if ("read", path) not in self._asked:
            raise HostError(f"cannot read: {path}", path=path, errno=2)
        return self._asked["read", path]

    def readlink(self, path: str) -> str | None:
        return self._asked.get(("readlink", path))

    def listdir(self, path: str) -> list[str]:
        return self._asked.get(("listdir", path)) or []

    def exists(self, path: str) -> bool:
        return bool(self._asked.get(("exists", path)))

    def inode(self, path: str) -> int:
        return self._asked["inode", path]

    def facts(self) -> HostFacts:
        return HostFacts("6.1.0-56-amd64", "5f1c4d5e-0000-4000-8000-0123456789ab", True)


#: Both recorded controllers are QEMU's, so they say the same of most.
QEMU: dict[str, FactValue] = {
    "identity.vendor_id": 0x1B36,
    "identity.subsystem_vendor_id": 0x1AF4,
    "identity.model": "QEMU NVMe Ctrl",
    "identity.nvme_version": "1.4.0",
    "capabilities.events": [8],
    "capabilities.write_cache": 7,
    "limits.max_transfer_bytes": 512 * 1024,
    "limits.sq_entry_bytes": [64, 64],
    "limits.cq_entry_bytes": [16, 16],
    "limits.page_bytes": 4096,
    "limits.outstanding_commands": 0,
    "limits.largest_nsid": 256,
    "tracking.memory": False,
    "tracking.memory_ranges": 0,
    "tracking.smallest_granularity_bytes": 0,
    "features.host_memory_buffer": False,
}

STOCK: dict[str, FactValue] = {
    **QEMU,
    "identity.firmware": "7.2.22",
    "capabilities.sgl": 0x0000_0001,
    "capabilities.live_migration": False,
    "capabilities.state_versions": [],
    "capabilities.vendor_formats": [],
    "capabilities.nvm_commands": [0, 2, 3, 4, 6, 8],
    "capabilities.attributes": [15],
    "tracking.user_data": False,
    "features.doorbell_buffer": True,
}

TP4159: dict[str, FactValue] = {
    **QEMU,
    "identity.firmware": "9.2.50",
    "capabilities.sgl": 0x0008_0001,
    "capabilities.live_migration": True,
    "capabilities.state_versions": [0],
    "capabilities.vendor_formats": [],
    "capabilities.nvm_commands": [0, 2, 3, 4, 6, 8, 9, 10],
    "capabilities.attributes": [4, 15],
    "tracking.user_data": True,
    "features.doorbell_buffer": False,
}


def recorded(name: str, directory: Path) -> Manifest:
    """Return the manifest of secondary 0x0001 of a recording; the first answer of each command counts."""
    answers: dict[Key, Completion] = {}
    for one in golden.recording(name):
        answers.setdefault((one.opcode, one.nsid, one.words), Completion(one.status, one.result, one.data_in))
    online = "Identify Secondary Controller List, 2 VFs online"
    provisioned = [one for one in golden.recording(name) if one.about == online]
    answers[0x06, 0, provisioned[0].words] = Completion(0, 0, provisioned[0].data_in)
    host = OneController(directory, queues={"nvme0": Recorded(answers)})
    host.texts["class/nvme/nvme0/serial"] = "LAB"
    host.texts |= sriov(2)
    return of(host, 1)


def sriov(vfs: int) -> dict[str, str]:
    names = {"totalvfs": 4, "numvfs": vfs, "offset": 1, "stride": 1, "drivers_autoprobe": 0}
    return {f"bus/pci/devices/0000:01:00.0/sriov_{name}": str(value) for name, value in names.items()}


def of(host: FakeHost, cntlid: int) -> Manifest:
    queue = host.open_queue("nvme0")
    picture = read_picture(host, queue, find_primary(host, "nvme0"), users=False)
    one = picture.secondary(cntlid)
    assert one is not None
    return read.of_function(host, queue, picture, one)


def same(manifest: Manifest, expected: Mapping[str, FactValue]) -> None:
    assert manifest.facts == expected
    assert all(valid(FACTS[name], value) for name, value in manifest.facts.items())


@pytest.mark.parametrize(("name", "expected"), [("stock-qemu-7.2", STOCK), ("tp4159-controller", TP4159)])
def test_a_recorded_controller_has_the_facts_of_its_recorded_bytes(
    name: str, expected: dict[str, FactValue], tmp_path: Path
) -> None:
    manifest = recorded(name, tmp_path)
    own = {
        "resources.vq": 3,
        "resources.vi": 2,
        "host.vfio_driver": "none",
        "host.iommu": False,
        "host.kernel": "6.1.0",
    }
    more = {"features.controller_memory_buffer": False}
    same(manifest, {**expected, **own, **more})


def test_the_two_recorded_controllers_do_not_fit_each_other_and_every_reason_is_named(tmp_path: Path) -> None:
    verdict = judge(recorded("tp4159-controller", tmp_path), recorded("stock-qemu-7.2", tmp_path))
    codes = [reason.code for reason in verdict.blocking()]
    assert not verdict.compatible
    assert {
        "firmware-differs",
        "no-live-migration",
        "state-version-missing",
        "nvm-commands-missing",
        "doorbell-buffer",
        "fact-missing",
    } <= set(codes)
    assert not {"vendor-differs", "model-differs", "max-transfer-smaller"} & set(codes)


def test_a_function_of_the_lab_host_has_the_facts_of_its_transcript(tmp_path: Path) -> None:
    host = RecordedHost(tmp_path, Transcript.load(LAB / "show-prepared.json"))
    manifest = of(host, 1)
    own = {"resources.vq": 2, "resources.vi": 1, "host.vfio_driver": "vfio-pci", "host.iommu": True}
    same(manifest, {**STOCK, **own, "host.kernel": "6.1.0-56-amd64"})
    assert manifest.subject == {
        "host": "fake",
        "node": "nvme0",
        "primary": "0000:01:00.0",
        "cntlid": "0x0001",
        "address": "0000:01:00.1",
    }
    assert not judge(manifest, manifest).compatible
