"""What is asked of VFIO itself: whose descriptor it is by sysfs, and the words of its calls."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path
from typing import Any

import pytest

from nvmelm.interposer import kernel
from nvmelm.interposer.kernel import CONFIG, Vfio

#: Typed from include/uapi/linux/vfio.h: VFIO_TYPE ';', VFIO_BASE 100.
GET_DEVICE_FD, GET_REGION_INFO, GET_IRQ_INFO, SET_IRQS, RESET = 0x3B6A, 0x3B6C, 0x3B6D, 0x3B6E, 0x3B6F


class FakeVfio:
    """A device's ioctls.

    Attributes:
        in_use: the kind of interrupt that is set up, and how many vectors.
    """

    def __init__(self) -> None:
        self.in_use = (2, 3)
        self.sizes = {2: 8, 1: 1, 0: 1}
        self.raised: list[tuple[int, int]] = []
        self.calls: list[tuple[int, bytes]] = []

    def ioctl(self, fd: int, request: int, words: Any = b"", mutate: bool = False) -> int:
        self.calls.append((request, bytes(words)))
        if request == GET_REGION_INFO:
            argsz, _flags, index, *_ = struct.unpack("=4I2Q", words)
            assert argsz == 32
            words[:] = struct.pack("=4I2Q", 32, 3, index, 0, 0x4000, index << 40)
        elif request == GET_IRQ_INFO:
            argsz, _flags, index, _count = struct.unpack("=4I", words)
            assert argsz == 16
            words[:] = struct.pack("=4I", 16, 1, index, self.sizes[index])
        elif request == SET_IRQS:
            argsz, flags, index, start, count = struct.unpack("=5I", words)
            assert (argsz, flags, count) == (20, 0x21, 1)
            if index != self.in_use[0] or start >= self.in_use[1]:
                raise OSError(errno.EINVAL, "Invalid argument")
            self.raised.append((index, start))
        return 9


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> FakeVfio:
    device = FakeVfio()
    monkeypatch.setattr(kernel, "ioctl", device.ioctl)
    return device


@pytest.mark.parametrize("in_use", [(2, 3), (2, 8), (1, 1), (0, 1)])
def test_every_vector_that_is_set_up_is_raised_once_and_none_is_switched_off(
    device: FakeVfio, in_use: tuple[int, int]
) -> None:
    device.in_use = in_use
    Vfio().trigger(5)
    assert device.raised == [(in_use[0], vector) for vector in range(in_use[1])]


def test_a_device_that_went_away_is_an_error(device: FakeVfio, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*words: Any) -> int:
        raise OSError(errno.ENODEV, "No such device")

    monkeypatch.setattr(kernel, "ioctl", gone)
    with pytest.raises(OSError, match="No such device"):
        Vfio().trigger(5)


def test_a_region_is_where_the_kernel_says(device: FakeVfio) -> None:
    assert Vfio().region(5, CONFIG) == 7 << 40


def test_a_device_is_opened_by_its_name_and_options_and_reset_by_its_descriptor(device: FakeVfio) -> None:
    assert Vfio().open_device(4, b"0000:01:00.1 vf_token=x") == 9
    Vfio().reset(5)
    assert device.calls == [(GET_DEVICE_FD, b"0000:01:00.1 vf_token=x\0"), (RESET, b"")]


def test_groups_and_devices_are_told_by_their_place_in_sysfs(tmp_path: Path) -> None:
    """/dev/null plays the node: what sysfs says of its number decides."""
    places = {
        "group": "devices/virtual/vfio/12",
        "cdev": "devices/pci0000:00/0000:00:01.0/0000:01:00.1/vfio-dev/vfio0",
        "platform": "devices/platform/thing.0/vfio-dev/vfio1",
        "other": "devices/virtual/mem/null",
    }
    null = os.open(os.devnull, os.O_RDONLY)
    number = os.fstat(null).st_rdev
    link = tmp_path / f"dev/char/{os.major(number)}:{os.minor(number)}"
    link.parent.mkdir(parents=True)
    vfio = Vfio(tmp_path)
    assert (vfio.is_group(null), vfio.address(null)) == (False, None)
    seen = {}
    for name, place in places.items():
        (tmp_path / place).mkdir(parents=True)
        link.unlink(missing_ok=True)
        link.symlink_to(tmp_path / place)
        seen[name] = (vfio.is_group(null), vfio.address(null))
    os.close(null)
    assert seen == {
        "group": (True, None),
        "cdev": (False, "0000:01:00.1"),
        "platform": (False, None),
        "other": (False, None),
    }
    regular = os.memfd_create("no node")
    assert (vfio.is_group(regular), vfio.address(regular)) == (False, None)
    os.close(regular)
