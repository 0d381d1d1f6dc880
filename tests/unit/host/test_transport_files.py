"""The sysfs seam on a scratch directory: what may be named, what is written, and what each refusal is said to mean."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import pyudev
from hypothesis import given
from hypothesis import strategies as st

from nvmelm.errors import DeviceGoneError, HostError, MalformedError, NotSupportedError, PermissionDeniedError
from nvmelm.host.local.sysfs import DirectorySysfs, open_refused, write_refused
from nvmelm.host.local.uevents import KernelUevents

PF = "bus/pci/devices/0000:01:00.0"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    pf = tmp_path / PF
    pf.mkdir(parents=True)
    (pf / "sriov_numvfs").write_text("4\n")
    (pf / "driver_override").write_text("(null)\n")
    (tmp_path / "class/nvme/nvme0").mkdir(parents=True)
    (tmp_path / "class/nvme/nvme0/device").symlink_to("../../../bus/pci/devices/0000:01:00.0")
    return tmp_path


@pytest.fixture
def sysfs(root: Path) -> DirectorySysfs:
    return DirectorySysfs(root)


def test_an_attribute_is_read_without_its_newline_and_with_its_blanks(root: Path, sysfs: DirectorySysfs) -> None:
    (root / PF / "serial").write_text("LAB0001   \n")
    assert sysfs.read(f"{PF}/serial") == "LAB0001   "


def test_bytes_that_are_no_text_are_read_as_escapes(root: Path, sysfs: DirectorySysfs) -> None:
    (root / PF / "model").write_bytes(b"a\xffb\n")
    assert sysfs.read(f"{PF}/model") == "a\\xffb"


def test_a_write_neither_truncates_nor_creates(root: Path, sysfs: DirectorySysfs) -> None:
    (root / PF / "sriov_numvfs").write_text("1234")
    sysfs.write(f"{PF}/sriov_numvfs", "0")
    assert (root / PF / "sriov_numvfs").read_text() == "0234"
    with pytest.raises(HostError):
        sysfs.write(f"{PF}/sriov_numvfz", "0")
    assert not (root / PF / "sriov_numvfz").exists()


def test_a_write_is_one_system_call(sysfs: DirectorySysfs, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bytes] = []

    def write(descriptor: int, data: bytes) -> int:
        calls.append(data)
        return len(data)

    monkeypatch.setattr(os, "write", write)
    sysfs.write(f"{PF}/driver_override", "vfio-pci")
    assert calls == [b"vfio-pci"]


def test_a_write_the_kernel_takes_half_of_is_no_success(sysfs: DirectorySysfs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "write", lambda descriptor, data: len(data) - 1)
    with pytest.raises(HostError, match="took 7 of 8 bytes"):
        sysfs.write(f"{PF}/driver_override", "vfio-pci")


def test_a_write_of_nothing_is_refused_before_the_kernel_calls_it_success(sysfs: DirectorySysfs) -> None:
    with pytest.raises(HostError) as caught:
        sysfs.write(f"{PF}/driver_override", "")
    assert (caught.value.errno, caught.value.reason) == (errno.EINVAL, "empty-write")
    assert "newline" in caught.value.fix


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../etc/passwd", f"{PF}/../../x", "a/..", "a\0b"])
def test_no_path_leaves_the_root(sysfs: DirectorySysfs, path: str) -> None:
    for ask in (sysfs.read, sysfs.readlink, sysfs.listdir, sysfs.exists, sysfs.inode):
        with pytest.raises(MalformedError):
            ask(path)
    with pytest.raises(MalformedError):
        sysfs.write(path, "1")


@given(st.text(alphabet=st.sampled_from("ab./\0"), max_size=12))
def test_whatever_the_path_nothing_outside_the_root_is_read(path: str) -> None:
    sysfs = DirectorySysfs(Path("/nonexistent/root"))
    with pytest.raises((HostError, MalformedError)) as caught:
        sysfs.read(path)
    if isinstance(caught.value, HostError):
        assert os.path.normpath(caught.value.path).startswith("/nonexistent/root")


def test_links_listings_existence_and_inodes_answer_for_what_is_not_there(root: Path, sysfs: DirectorySysfs) -> None:
    link = "class/nvme/nvme0/device"
    assert sysfs.readlink(link) == "../../../bus/pci/devices/0000:01:00.0"
    assert sysfs.readlink(f"{PF}/driver") is None
    assert sysfs.readlink(f"{PF}/sriov_numvfs") is None
    assert sysfs.listdir(PF) == ["driver_override", "sriov_numvfs"]
    assert sysfs.listdir("bus/usb") == sysfs.listdir(f"{PF}/sriov_numvfs") == []
    assert sysfs.exists(f"{link}/sriov_numvfs")
    assert not sysfs.exists(f"{PF}/sriov_numvfs/below")
    assert sysfs.inode(link) == (root / PF).stat().st_ino
    with pytest.raises(HostError):
        sysfs.inode("bus/usb")


def test_a_scratch_roots_devices_come_from_its_directories(sysfs: DirectorySysfs) -> None:
    assert sysfs.devices("nvme") == ["nvme0"]
    assert sysfs.devices("pci") == ["0000:01:00.0"]
    assert sysfs.devices("vfio") == []


@pytest.mark.parametrize(("attribute", "value", "number", "reason", "says"), [
    ("sriov_numvfs", "300", errno.ERANGE, "too-many-vfs", "nvmelm show 0000:01:00.0"),
    ("sriov_numvfs", "4", errno.ENOENT, "no-sriov-driver", "drivers/nvme/bind"),
    ("sriov_numvfs", "2", errno.EBUSY, "vfs-enabled", "nvmelm sriov disable 0000:01:00.0"),
    ("sriov_numvfs", "abc", errno.EINVAL, "not-a-count", "number of VFs"),
    ("sriov_numvfs", "0", errno.EPERM, "vfs-assigned", "virtual machine"),
    ("sriov_numvfs", "4", errno.ENOMEM, "no-pci-resources", "pci=realloc"),
    ("sriov_numvfs", "4", errno.EIO, "capability-inconsistent", "firmware"),
    ("sriov_drivers_autoprobe", "x", errno.EINVAL, "not-a-boolean", "0 or 1"),
    ("reset", "2", errno.EINVAL, "not-one", "write 1"),
    ("reset", "1", errno.ENOTTY, "no-reset-method", "reset_method of 0000:01:00.0"),
    ("reset_method", "pray", errno.EINVAL, "no-such-method", "default"),
])  # fmt: skip
def test_a_refusal_is_explained_by_attribute(attribute: str, value: str, number: int, reason: str, says: str) -> None:
    error = write_refused(f"{PF}/{attribute}", value, OSError(number, os.strerror(number)))
    assert (error.errno, error.reason, error.path) == (number, reason, f"/sys/{PF}/{attribute}")
    assert says in error.fix
    assert error.cause


@pytest.mark.parametrize(("path", "number", "reason"), [
    ("bus/pci/drivers_probe", errno.ENODEV, "no-such-device"),
    ("bus/pci/drivers/vfio-pci/bind", errno.ENODEV, "no-match"),
    ("bus/pci/drivers/vfio-pci/bind", errno.EBUSY, "already-bound"),
    ("bus/pci/drivers/vfio-pci/bind", errno.EINVAL, "probe-refused"),
    ("bus/pci/drivers/nvme/unbind", errno.ENODEV, "not-bound"),
    ("bus/pci/drivers/vfio-pci/new_id", errno.EEXIST, "known-id"),
    ("bus/pci/drivers/vfio-pci/remove_id", errno.ENODEV, "unknown-id"),
])  # fmt: skip
def test_a_drivers_refusal_is_no_vanished_device(path: str, number: int, reason: str) -> None:
    error = write_refused(path, "0000:01:00.1", OSError(number, os.strerror(number)))
    assert type(error) is HostError
    assert (error.errno, error.reason) == (number, reason)


def test_what_no_table_knows_still_says_path_value_and_errno() -> None:
    error = write_refused(f"{PF}/remove", "1", OSError(errno.ENODEV, "x"))
    assert isinstance(error, DeviceGoneError)
    assert "'1'" in error.message
    assert "remove" in error.message


def test_a_value_from_elsewhere_never_becomes_part_of_a_command_to_type() -> None:
    error = write_refused("bus/pci/drivers/nvme/bind", "x; rm -rf /\n{0}", OSError(errno.ENODEV, "x"))
    assert "rm" not in error.fix
    assert "DEVICE" in error.fix


def test_a_missing_attribute_and_a_missing_right_are_different_errors() -> None:
    missing = open_refused("cannot read", f"{PF}/sriov_numvfs", OSError(errno.ENOENT, "x"))
    assert (missing.reason, missing.errno) == ("no-sriov", errno.ENOENT)
    plain = open_refused("cannot read", f"{PF}/vendor", OSError(errno.ENOENT, "x"))
    assert plain.reason == "no-such-attribute"
    assert plain.fix
    denied = open_refused("cannot write '4'", f"{PF}/sriov_numvfs", OSError(errno.EACCES, "x"))
    assert isinstance(denied, PermissionDeniedError)
    assert denied.fix == "run it as root"


def test_without_libudev_the_kernels_own_directories_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise ImportError("No library named udev")

    monkeypatch.setattr(pyudev, "Context", missing)
    sysfs = DirectorySysfs()
    assert sysfs.devices("pci") == sysfs.listdir("bus/pci/devices")
    with pytest.raises(NotSupportedError) as caught:
        KernelUevents()
    assert caught.value.reason == "no-libudev"
    assert "libudev1" in caught.value.fix
