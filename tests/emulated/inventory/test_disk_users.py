"""A disk of a VF is in use through whatever the kernel knows, and the user is named where that can be."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from nvmelm.emulator.host import EmulatedHost
from nvmelm.emulator.machine.generations import NVME_2_1, NamespaceRow
from nvmelm.errors import BusyError, NvmelmError
from nvmelm.host.local import processes
from nvmelm.inventory import disks
from nvmelm.inventory.opened import open_primary
from nvmelm.inventory.pci import Bdf
from nvmelm.inventory.picture import Role
from nvmelm.prepare import binding, sequence
from tests.emulated.conftest import MakeHost

PF, VF = "nvme0", "0000:01:00.1"
DISK = {False: "nvme1n1", True: "nvme0n1"}
BOTH = pytest.mark.parametrize("multipath", [False, True], ids=["plain", "native multipath"])


def refuse(question: str) -> None:
    raise NvmelmError(f"no: {question}")


def driven(host: EmulatedHost) -> EmulatedHost:
    """Let the host's own nvme driver have the first VF."""
    with open_primary(host, PF, change=True) as pf:
        sequence.prepare(pf, Role.MIGRATABLE, 1, unmarked=True, confirm=lambda _: None)
        binding.unbind(pf, [Bdf.parse(VF)], confirm=lambda _: None)
    host.sysfs.write(f"bus/pci/devices/{VF}/driver_override", "nvme")
    host.sysfs.write("bus/pci/drivers/nvme/bind", VF)
    return host


@pytest.fixture
def make_driven(make_host: MakeHost) -> Callable[[bool], EmulatedHost]:
    return lambda multipath: driven(make_host(NVME_2_1, options={"native_multipath": multipath}))


def users(host: EmulatedHost) -> list[str]:
    with open_primary(host, PF) as pf:
        return list(pf.picture().secondaries[0].used_by)


def mounted(host: EmulatedHost, disk: str) -> None:
    host.mount(disk, "/data")


def mounted_partition(host: EmulatedHost, disk: str) -> None:
    host.mount(f"{disk}p1", "/data")


def swapped(host: EmulatedHost, disk: str) -> None:
    host.mount(f"{disk}p2", "swap")


def held(host: EmulatedHost, disk: str) -> None:
    host.hold_block(disk, "dm-0")


def held_partition(host: EmulatedHost, disk: str) -> None:
    host.hold_block(f"{disk}p1", "md127")


def stacked(host: EmulatedHost, disk: str) -> None:
    """LVM on dm-crypt on md on a partition."""
    host.hold_block(f"{disk}p1", "md0")
    host.hold_block("md0", "dm-0")
    host.hold_block("dm-0", "dm-1", "dm-2")
    host.mount("dm-2", "/data")


def pooled(host: EmulatedHost, disk: str) -> None:
    host.claim_block(f"{disk}p1")


def opened_by_a_process(host: EmulatedHost, disk: str) -> None:
    host.open_block(f"{disk}p1", 4711, "dd")


USES = {
    mounted: "/dev/{disk} is used as /data",
    mounted_partition: "/dev/{disk}p1 is used as /data",
    swapped: "/dev/{disk}p2 is used as swap",
    held: "/dev/{disk} is held by dm-0",
    held_partition: "/dev/{disk}p1 is held by md127",
    stacked: "/dev/dm-2 is used as /data",
    pooled: "/dev/{disk} is in use by the kernel",
    opened_by_a_process: "dd (pid 4711) has /dev/{disk}p1 open",
}


@BOTH
@pytest.mark.parametrize("use", USES)
def test_a_disk_in_use_is_named_and_not_taken_away_unasked(
    use: Callable[[EmulatedHost, str], None], multipath: bool, make_driven: Callable[[bool], EmulatedHost]
) -> None:
    host = make_driven(multipath)
    assert users(host) == []
    use(host, DISK[multipath])
    expected = USES[use].format(disk=DISK[multipath])
    assert [user for user in users(host) if user.startswith(expected)]
    with open_primary(host, PF, change=True) as pf, pytest.raises(BusyError, match="in use") as caught:
        binding.bind(pf, [Bdf.parse(VF)], unmarked=True, confirm=refuse)
    assert expected in caught.value.cause
    assert host.sysfs.exists("class/nvme/nvme1"), "nothing was taken away"


def test_each_layer_of_a_stack_is_named(make_driven: Callable[[bool], EmulatedHost]) -> None:
    host = make_driven(False)
    stacked(host, "nvme1n1")
    assert set(users(host)) == {
        "/dev/dm-2 is used as /data",
        "/dev/nvme1n1p1 is held by md0",
        "/dev/md0 is held by dm-0",
        "/dev/dm-0 is held by dm-1",
        "/dev/dm-0 is held by dm-2",
    }


def test_a_disk_with_another_path_is_told_apart(make_driven: Callable[[bool], EmulatedHost]) -> None:
    host = make_driven(True)
    host.mount("nvme0n1", "/data")
    assert users(host) == ["/dev/nvme0n1 is used as /data (nvme0 leads to it, too)"]


def test_holders_in_a_circle_end(make_driven: Callable[[bool], EmulatedHost]) -> None:
    host = make_driven(False)
    host.hold_block("nvme1n1", "dm-0")
    host.hold_block("dm-0", "dm-1")
    host.hold_block("dm-1", "dm-0")
    assert disks.standing_on(host.sysfs, "nvme1n1") == {"dm-0": "nvme1n1", "dm-1": "dm-0"}


def test_every_disk_of_a_controller_is_looked_at(make_host: MakeHost) -> None:
    row = NVME_2_1.with_(namespaces=(NamespaceRow(), NamespaceRow(nsid=10)))
    host = driven(make_host(row, options={"native_multipath": True}))
    assert disks.of_controller(host.sysfs, "nvme1") == ["nvme0n1", "nvme0n10"]
    host.claim_block("nvme0n10")
    assert users(host)[0].startswith("/dev/nvme0n10 is in use by the kernel")


def test_the_emulated_tree_has_paths_below_controllers_and_disks_below_their_subsystem(
    make_driven: Callable[[bool], EmulatedHost],
) -> None:
    sysfs = make_driven(True).sysfs
    assert sysfs.listdir("class/nvme/nvme1")[-1] == "transport"
    assert {"nvme0c0n1", "nvme0c1n1", "nvme0n1"} == set(sysfs.listdir("block"))
    assert sysfs.readlink("block/nvme0n1") == "../devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1"
    assert sysfs.listdir("class/nvme-subsystem/nvme-subsys0") == ["nvme0", "nvme0n1", "nvme1"]


@pytest.mark.parametrize(
    ("answer", "claimed"), [(None, False), (errno.EBUSY, True), (errno.ENXIO, False), (errno.ENOMEDIUM, False)]
)
def test_the_kernels_last_word_is_an_exclusive_open_for_reading(
    answer: int | None, claimed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags: list[int] = []

    def opened(_path: object, flag: int) -> int:
        flags.append(flag)
        if answer is not None:
            raise OSError(answer, os.strerror(answer))
        return os.dup(0)

    monkeypatch.setattr(processes, "_stat", lambda _: SimpleNamespace(st_mode=stat.S_IFBLK))
    monkeypatch.setattr(processes.os, "open", opened)
    assert processes.exclusively_held(tmp_path / "nvme0n1") is claimed
    assert flags == [os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC]


def test_what_is_no_block_device_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert not processes.exclusively_held(tmp_path / "file")
    assert not processes.exclusively_held(tmp_path / "nothing")
