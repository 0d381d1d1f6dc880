"""The admin queue without a device: the bytes the kernel is given, and what each of its answers is said to mean."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import pytest

from nvmelm.errors import (
    DeviceGoneError,
    HostError,
    NotSupportedError,
    NvmelmError,
    PermissionDeniedError,
    TimedOutError,
)
from nvmelm.host import AdminCommand
from nvmelm.host.local import passthru
from nvmelm.host.local.passthru import PassthruQueue, max_transfer_bytes
from nvmelm.host.local.sysfs import DirectorySysfs

KiB = 1024

IDENTIFY = AdminCommand(name="Identify", opcode=0x06, cdw10=0x15, data_in_length=4096, timeout_ms=1000)


class Kernel:
    """Plays the driver: records each call, lets a test answer it."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, bytes]] = []
        self.data: list[bytes] = []
        self.answer: Callable[[int, bytearray], int] = lambda request, words: 0

    def ioctl(self, descriptor: int, request: int, words: bytearray, mutate: bool) -> int:
        assert mutate
        self.calls.append((request, bytes(words)))
        length = int.from_bytes(words[36:40], "little")
        self.data.append(ctypes.string_at(int.from_bytes(words[24:32], "little"), length) if length else b"")
        return self.answer(request, words)


def write_memory(words: bytearray, data: bytes) -> None:
    ctypes.memmove(int.from_bytes(words[24:32], "little"), data, len(data))


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel = Kernel()
    monkeypatch.setattr(passthru, "ioctl", kernel.ioctl)
    return kernel


@pytest.fixture
def queue(tmp_path: Path, kernel: Kernel) -> PassthruQueue:
    # /dev/null is a character device everybody has; sysfs is made to say that it is the controller's.
    controller = tmp_path / "class/nvme/nvme0"
    controller.mkdir(parents=True)
    about = Path("/dev/null").stat()
    (controller / "dev").write_text(f"{os.major(about.st_rdev)}:{os.minor(about.st_rdev)}\n")
    return PassthruQueue("/dev/null", DirectorySysfs(tmp_path), "nvme0")


def test_the_ioctl_numbers_are_the_kernels() -> None:
    assert passthru.NVME_IOCTL_ADMIN64_CMD == 0xC050_4E47
    assert passthru.NVME_IOCTL_ADMIN_CMD == 0xC048_4E41


def test_every_word_stands_where_the_kernels_header_has_it(queue: PassthruQueue, kernel: Kernel) -> None:
    queue.submit(AdminCommand(
        name="all words", opcode=0x42, nsid=0x11, cdw2=0x22, cdw3=0x33, cdw10=0x10A, cdw11=0x11A, cdw12=0x12A,
        cdw13=0x13A, cdw14=0x14A, cdw15=0x15A, data_in_length=8192, timeout_ms=0x77,
    ))  # fmt: skip
    ((request, words),) = kernel.calls
    assert request == 0xC050_4E47
    assert len(words) == 80
    # struct nvme_passthru_cmd64, include/uapi/linux/nvme_ioctl.h: offset and size of each field
    expected = {
        (0, 1): 0x42, (1, 1): 0, (2, 2): 0, (4, 4): 0x11, (8, 4): 0x22, (12, 4): 0x33, (16, 8): 0, (32, 4): 0,
        (36, 4): 8192, (40, 4): 0x10A, (44, 4): 0x11A, (48, 4): 0x12A, (52, 4): 0x13A, (56, 4): 0x14A, (60, 4): 0x15A,
        (64, 4): 0x77, (68, 4): 0, (72, 8): 0,
    }  # fmt: skip
    assert {at: int.from_bytes(words[at[0] : at[0] + at[1]], "little") for at in expected} == expected
    address = int.from_bytes(words[24:32], "little")
    assert address
    assert address % 4096 == 0


def test_a_command_that_another_thread_sends_meanwhile_leaves_words_and_data_alone(
    queue: PassthruQueue, kernel: Kernel
) -> None:
    """Several controllers are read at the same time through one queue; the ioctl lets other threads run."""
    completions = {}

    def send(number: int) -> None:
        command = AdminCommand(name="Migration Receive", opcode=0x42, cdw11=number, data_in_length=48)
        completions[number] = queue.submit(command)

    def answer(request: int, words: bytearray) -> int:
        number = int.from_bytes(words[44:48], "little")
        write_memory(words, bytes([number]) * 48)
        words[72:80] = number.to_bytes(8, "little")
        if number == 1:
            other = Thread(target=send, args=(2,))
            other.start()
            other.join()
        return 0

    kernel.answer = answer
    send(1)
    assert {number: (one.data, one.result) for number, one in completions.items()} == {
        1: (b"\x01" * 48, 1),
        2: (b"\x02" * 48, 2),
    }


def test_a_command_without_data_has_no_address(queue: PassthruQueue, kernel: Kernel) -> None:
    completion = queue.submit(AdminCommand(name="Virtualization Management", opcode=0x1C, cdw10=0x0001_0009))
    assert kernel.calls[0][1][24:40] == bytes(16)
    assert completion.data == b""


@pytest.mark.parametrize("length", [1, 4096, 4097, 300 * KiB])
def test_data_goes_out_whole_and_nothing_comes_back(queue: PassthruQueue, kernel: Kernel, length: int) -> None:
    data = bytes(range(251)) * (length // 251 + 1)
    completion = queue.submit(AdminCommand(name="out", opcode=0x41, data_out=memoryview(data)[:length]))
    assert kernel.data == [data[:length]]
    assert completion.data == b""


@pytest.mark.parametrize("length", [48, 4096, 300 * KiB])
def test_data_comes_in_whole_and_never_with_an_earlier_commands_bytes(
    queue: PassthruQueue, kernel: Kernel, length: int
) -> None:
    queue.submit(AdminCommand(name="out", opcode=0x41, data_out=b"\xff" * (512 * KiB)))
    kernel.answer = lambda request, words: write_memory(words, b"abc") or 0  # type: ignore[func-returns-value]
    completion = queue.submit(AdminCommand(name="in", opcode=0x42, data_in_length=length))
    assert completion.data == b"abc" + bytes(length - 3)


def test_status_and_both_result_dwords_come_back(queue: PassthruQueue, kernel: Kernel) -> None:
    def answer(request: int, words: bytearray) -> int:
        words[72:80] = bytes.fromhex("0100000002000000")
        return 0x4120

    kernel.answer = answer
    completion = queue.submit(IDENTIFY)
    assert (completion.status, completion.result) == (0x4120, 0x0000_0002_0000_0001)


def refusing(*numbers: int) -> Callable[[int, bytearray], int]:
    """Answer with an errno, one a call."""
    left = list(numbers)

    def answer(request: int, words: bytearray) -> int:
        raise OSError(left.pop(0), "x")

    return answer


@pytest.mark.parametrize(("number", "kind", "says"), [
    (errno.EINTR, TimedOutError, "every secondary controller went Offline"),
    (errno.EACCES, PermissionDeniedError, "root"),
    (errno.EPERM, PermissionDeniedError, "root"),
    (errno.ENODEV, DeviceGoneError, "removed"),
    (errno.ENXIO, DeviceGoneError, "removed"),
    (errno.EIO, DeviceGoneError, "dead"),
    (errno.EINVAL, HostError, "cannot map a buffer of 4096 bytes"),
    (errno.ENOMEM, HostError, "no memory"),
])  # fmt: skip
def test_each_errno_of_the_driver_becomes_its_error(
    queue: PassthruQueue, kernel: Kernel, number: int, kind: type[NvmelmError], says: str
) -> None:
    kernel.answer = refusing(number)
    with pytest.raises(kind, match="Identify was not carried out") as caught:
        queue.submit(IDENTIFY)
    assert says in caught.value.cause
    assert caught.value.fix
    assert len(kernel.calls) == 1, "a refused command is never sent again by itself"


def test_a_kernel_without_the_64_bit_form_is_given_the_32_bit_one(queue: PassthruQueue, kernel: Kernel) -> None:
    def answer(request: int, words: bytearray) -> int:
        if request == 0xC050_4E47:
            raise OSError(errno.ENOTTY, "x")
        words[68:72] = bytes.fromhex("78563412")
        write_memory(words, b"old")
        return 0x0002

    kernel.answer = answer
    completion = queue.submit(IDENTIFY)
    assert (completion.status, completion.result, completion.data[:4]) == (2, 0x1234_5678, b"old\0")
    assert [request for request, _ in kernel.calls] == [0xC050_4E47, 0xC048_4E41]


def test_a_command_that_answers_in_the_second_dword_is_not_sent_by_the_32_bit_form(
    queue: PassthruQueue, kernel: Kernel
) -> None:
    kernel.answer = refusing(errno.ENOTTY)
    with pytest.raises(NotSupportedError, match="Track Send"):
        queue.submit(AdminCommand(name="Track Send (Track Memory Changes)", opcode=0x3D))
    assert [request for request, _ in kernel.calls] == [0xC050_4E47]


def test_closing_twice_is_harmless(queue: PassthruQueue) -> None:
    queue.submit(IDENTIFY)
    queue.close()
    queue.close()


@pytest.mark.parametrize("name", ["nvme0n1", "ng0n1", "nvme", "nvme0c0n1", "../null", ""])
def test_only_a_controller_has_an_admin_queue(tmp_path: Path, name: str) -> None:
    with pytest.raises(NotSupportedError, match="is not a controller"):
        PassthruQueue("/dev/null", DirectorySysfs(tmp_path), name)


def test_a_node_that_is_not_the_controllers_is_refused_and_closed(tmp_path: Path, kernel: Kernel) -> None:
    (tmp_path / "class/nvme/nvme0").mkdir(parents=True)
    (tmp_path / "class/nvme/nvme0/dev").write_text("240:0\n")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for node in ("/dev/null", str(tmp_path / "class/nvme/nvme0/dev")):
        with pytest.raises(NotSupportedError, match="not the node of controller nvme0"):
            PassthruQueue(node, DirectorySysfs(tmp_path), "nvme0")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_missing_node_is_a_missing_device(tmp_path: Path) -> None:
    with pytest.raises(DeviceGoneError, match="cannot open"):
        PassthruQueue(str(tmp_path / "nvme0"), DirectorySysfs(tmp_path), "nvme0")


@pytest.mark.parametrize(("queues", "expected"), [
    pytest.param({}, 508 * KiB, id="no-namespace-no-answer"),
    pytest.param({"nvme0c0n1": ("512", "127")}, 508 * KiB, id="segments-bind"),
    pytest.param({"nvme0n1": ("128", "33")}, 128 * KiB, id="mdts-binds"),
    pytest.param({"nvme0n1": ("4096", "128"), "nvme0n2": ("256", "128")}, 256 * KiB, id="the-least-of-all"),
    pytest.param({"nvme0n1": ("130", "128")}, 128 * KiB, id="whole-pages"),
    pytest.param({"nvme0n1": ("512", "")}, 508 * KiB, id="half-an-answer-is-none"),
    pytest.param({"nvme0n1": ("nonsense", "127")}, 508 * KiB, id="nonsense-is-none"),
    pytest.param({"nvme0n1": ("1", "127")}, 4 * KiB, id="never-less-than-a-page"),
    pytest.param({"hwmon0": ("64", "1")}, 508 * KiB, id="only-namespaces-count"),
])  # fmt: skip
def test_the_largest_transfer_is_what_the_kernel_takes(
    tmp_path: Path, queues: dict[str, tuple[str, str]], expected: int
) -> None:
    for name, values in queues.items():
        directory = tmp_path / "class/nvme/nvme0" / name / "queue"
        directory.mkdir(parents=True)
        for attribute, value in zip(("max_hw_sectors_kb", "max_segments"), values, strict=True):
            if value:
                (directory / attribute).write_text(f"{value}\n")
    assert max_transfer_bytes(DirectorySysfs(tmp_path), "nvme0") == expected


def test_nothing_but_this_seam_sends_a_controller_an_ioctl() -> None:
    """Those of the interposer go to VFIO and to seccomp: it stands between a VMM and the kernel."""
    package = Path(passthru.__file__).parents[2]
    callers = {path.relative_to(package).as_posix() for path in package.rglob("*.py") if "ioctl(" in path.read_text()}
    assert callers == {"host/local/passthru.py", "interposer/kernel.py", "interposer/notification.py"}
