"""A VMM's calls, handed over by the real filter of a real process, and what becomes of them."""

from __future__ import annotations

import errno
import os
import random
import signal
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from nvmelm.interposer.device import Device
from nvmelm.interposer.kernel import Identity
from nvmelm.interposer.notification import Notification
from nvmelm.vfio.seam import DeviceState, Refusal
from tests.interposing import DEADLINE_S, PlayedHost, PlayedVmm, VmmDiedError

GET, SET, PROBE = 1 << 16, 1 << 17, 1 << 18
STOP, RUNNING, STOP_COPY, RESUMING, RUNNING_P2P = 1, 2, 3, 4, 5
NO_FD = -1


@pytest.fixture
def host() -> PlayedHost:
    return PlayedHost()


@pytest.fixture
def vmm(host: PlayedHost) -> Iterator[PlayedVmm]:
    with PlayedVmm(host) as vmm:
        yield vmm


@pytest.mark.parametrize("ends", [True, False])
def test_a_refusal_that_ends_a_vm_ends_it_before_its_call_returns(ends: bool) -> None:
    with PlayedVmm(PlayedHost()) as vmm:
        fd = vmm.open()
        refusal = Refusal(errno.EIO, "the device failed")
        refusal.ends_vm = ends
        vmm.host.function.refuse[DeviceState.RUNNING_P2P] = refusal
        if ends:
            with pytest.raises(VmmDiedError):
                vmm.set_state(fd, DeviceState.RUNNING_P2P)
        else:
            assert vmm.set_state(fd, DeviceState.RUNNING_P2P)[0] == -errno.EIO


def test_a_device_that_a_vmm_opens_by_its_group_is_the_function_of_that_address(
    vmm: PlayedVmm, host: PlayedHost
) -> None:
    fd = vmm.open("0000:01:00.1 vf_token=00000000-0000-0000-0000-000000000001")
    assert fd >= 0
    assert vmm.do("cloexec", fd)
    assert host.opened_names == [b"0000:01:00.1 vf_token=00000000-0000-0000-0000-000000000001"]
    assert host.function.opening.address == "0000:01:00.1"
    assert host.function.opening.pid == vmm.pid


def test_a_vmm_reads_that_the_device_can_migrate(vmm: PlayedVmm, host: PlayedHost) -> None:
    assert vmm.feature(vmm.open(), 1 | GET, bytes(8)) == (0, struct.pack("=Q", 3))


def test_a_state_is_read_by_plain_reads_until_their_end(vmm: PlayedVmm, host: PlayedHost) -> None:
    fd = vmm.open()
    host.function.image = [bytes([number]) * 300_000 for number in range(9)]
    assert vmm.set_state(fd, STOP) == (0, NO_FD)
    result, data_fd = vmm.set_state(fd, STOP_COPY)
    assert result == 0
    assert bytes.fromhex(vmm.do("read_all", data_fd)) == b"".join(host.function.image)
    assert vmm.set_state(fd, STOP) == (0, NO_FD)
    assert host.function.calls == [1, 3, "out closed", 1]


def test_a_state_is_taken_from_a_vmm_that_does_not_close_its_end(vmm: PlayedVmm, host: PlayedHost) -> None:
    fd = vmm.open()
    _, data_fd = vmm.set_state(fd, RESUMING)
    state = os.urandom(3_000_000)
    assert vmm.do("write", data_fd, state.hex()) == 0
    assert vmm.set_state(fd, RUNNING) == (0, NO_FD)
    assert host.function.taken == state
    assert host.function.calls == [4, "in closed", 2]


def test_what_is_in_the_pipe_when_the_next_state_is_asked_for_is_taken(
    vmm: PlayedVmm, host: PlayedHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first bytes keep the taker busy until the arc has told it to end; the second ones wait in the pipe then."""
    fd = vmm.open()
    _, data_fd = vmm.set_state(fd, RESUMING)
    taking, ending = threading.Event(), threading.Event()
    tell = os.eventfd_write

    def told(number: int, value: int) -> None:
        tell(number, value)
        ending.set()

    def in_write() -> None:
        taking.set()
        ending.wait(DEADLINE_S)

    host.function.in_write = in_write
    monkeypatch.setattr(os, "eventfd_write", told)
    monkeypatch.setattr(Device, "flags", lambda _: 3)  # it would wait until the taker is not busy any more
    vmm.do("write", data_fd, b"first".hex())
    assert taking.wait(DEADLINE_S)
    vmm.do("write", data_fd, b"second".hex())
    assert vmm.set_state(fd, RUNNING) == (0, NO_FD)
    assert host.function.taken == b"firstsecond"


@pytest.mark.parametrize("state", [STOP_COPY, RESUMING])
def test_the_vmms_end_of_a_stream_blocks_and_is_closed_at_an_exec(vmm: PlayedVmm, state: int) -> None:
    _, data_fd = vmm.set_state(vmm.open(), state)
    assert vmm.do("blocks", data_fd)
    assert vmm.do("cloexec", data_fd)


def test_a_size_is_never_nothing(vmm: PlayedVmm, host: PlayedHost) -> None:
    fd = vmm.open()
    assert vmm.feature(fd, 9 | GET, bytes(8)) == (0, struct.pack("=Q", 4096))
    host.function.size = 0
    assert vmm.feature(fd, 9 | GET, bytes(8)) == (0, struct.pack("=Q", 1))


def test_a_call_that_was_given_up_is_not_answered_for_whoever_has_its_thread_now(
    vmm: PlayedVmm, host: PlayedHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    fd = vmm.open()
    waits = iter([False])

    def gives_up(call: Notification) -> bool:
        if next(waits, True):
            return True
        vmm.listener.let_run(call)  # so that the test's own VMM goes on
        return False

    monkeypatch.setattr(vmm.listener, "waits", gives_up)
    vmm.set_state(fd, STOP)
    assert host.function.calls == []
    assert vmm.set_state(fd, STOP) == (0, NO_FD)


def test_a_call_that_was_given_up_before_it_was_taken_is_nothing(
    vmm: PlayedVmm, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*words: object) -> int:
        raise OSError(errno.ENOENT, "No such file or directory")

    with monkeypatch.context() as patch:
        patch.setattr("nvmelm.interposer.notification.ioctl", gone)
        assert vmm.listener.receive() is None
    assert vmm.open() >= 0


def test_two_vms_are_answered_without_waiting_for_each_other(vmm: PlayedVmm, host: PlayedHost) -> None:
    release = threading.Event()
    other_host = PlayedHost()
    with PlayedVmm(other_host) as other:
        fd, other_fd = vmm.open(), other.open()
        host.function.in_arc = lambda: release.wait(DEADLINE_S) and None
        vmm.do("buffer", "stop", struct.pack("=2IIi", 16, 2 | SET, STOP, 0).hex())
        vmm.send("ioctl", fd, 0x3B75, ["stop", 0])
        assert other.set_state(other_fd, STOP) == (0, NO_FD)
        release.set()
        assert vmm.answer() == 0


def test_a_stream_that_was_never_read_or_closed_early_ends_with_its_state(vmm: PlayedVmm, host: PlayedHost) -> None:
    fd = vmm.open()
    host.function.image = [bytes(1 << 20)] * 8
    _, data_fd = vmm.set_state(fd, STOP_COPY)
    assert vmm.set_state(fd, RUNNING) == (0, NO_FD)
    _, data_fd = vmm.set_state(fd, STOP_COPY)
    vmm.do("read", data_fd, 10)
    vmm.do("close", data_fd)
    assert vmm.set_state(fd, STOP) == (0, NO_FD)
    assert host.function.calls.count("out closed") == 2


def test_a_state_that_breaks_on_its_way_out_ends_early_and_the_next_arc_says_so(
    vmm: PlayedVmm, host: PlayedHost
) -> None:
    fd = vmm.open()
    host.function.image = [b"half", Refusal(errno.EIO, "the device failed")]
    _, data_fd = vmm.set_state(fd, STOP_COPY)
    assert bytes.fromhex(vmm.do("read_all", data_fd)) == b"half"
    assert vmm.set_state(fd, STOP) == (-errno.EIO, NO_FD)
    assert host.sentences == ["0000:01:00.1: EIO: the device failed"]
    assert vmm.set_state(fd, RUNNING) == (0, NO_FD)


def test_an_unfit_state_is_refused_while_the_vmm_still_writes_it(vmm: PlayedVmm, host: PlayedHost) -> None:
    fd = vmm.open()
    host.function.unfit = Refusal(errno.EPROTO, "a stranger's")
    _, data_fd = vmm.set_state(fd, RESUMING)
    assert vmm.do("write", data_fd, bytes(100_000).hex()) == -errno.EPIPE
    assert host.sentences == ["0000:01:00.1: EPROTO: a stranger's"]
    assert len(host.function.taken) <= 4096
    assert vmm.set_state(fd, STOP) == (-errno.EPROTO, NO_FD)
    assert len(host.sentences) == 1


def test_a_refused_arc_is_an_errno_for_the_vmm_and_a_sentence_for_the_journal(vmm: PlayedVmm, host: PlayedHost) -> None:
    fd = vmm.open()
    host.function.refuse[DeviceState.STOP] = Refusal(errno.EBUSY, "a migration of nvmelm's own runs")
    assert vmm.set_state(fd, STOP) == (-errno.EBUSY, NO_FD)
    assert host.sentences == ["0000:01:00.1: EBUSY: a migration of nvmelm's own runs"]
    assert vmm.get_state(fd) == RUNNING


def test_a_repeated_state_is_a_success_and_its_stream_goes_on(vmm: PlayedVmm, host: PlayedHost) -> None:
    fd = vmm.open()
    _, data_fd = vmm.set_state(fd, STOP_COPY)
    assert vmm.set_state(fd, STOP_COPY) == (0, NO_FD)
    assert bytes.fromhex(vmm.do("read_all", data_fd)) == b"state"


def test_a_caller_that_was_interrupted_before_it_had_its_stream_gets_it_when_it_asks_again(
    vmm: PlayedVmm, host: PlayedHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    fd = vmm.open()
    lost = iter([True])
    answered = vmm.listener.answered

    def interrupted(call: object, number: int = 0) -> bool:
        answered(call, number)  # type: ignore[arg-type]
        return not next(lost, False)

    monkeypatch.setattr(vmm.listener, "answered", interrupted)
    vmm.set_state(fd, STOP_COPY)
    result, again = vmm.set_state(fd, STOP_COPY)
    assert result == 0
    assert bytes.fromhex(vmm.do("read_all", again)) == b"state"
    assert host.function.calls == [3]


def test_a_function_without_a_mark_answers_as_if_nobody_were_there(vmm: PlayedVmm, host: PlayedHost) -> None:
    fd = vmm.open()
    host.function.marked = False
    for flags in (1 | GET, 1 | GET | PROBE, 2 | GET, 6 | SET | PROBE, 9 | GET):
        assert vmm.feature(fd, flags, bytes(32))[0] == -errno.ENOTTY


def test_a_stranger_and_its_calls_are_left_to_the_kernel(vmm: PlayedVmm, host: PlayedHost) -> None:
    host.strangers.add("0000:02:00.0")
    fd = vmm.open("0000:02:00.0")
    assert fd >= 0
    assert vmm.feature(fd, 1 | GET, bytes(8))[0] == -errno.ENOTTY  # what a memfd says to an ioctl
    assert vmm.open("83b8f4f2-509f-382f-3c1e-e6bfe0fa1001") == -errno.ENOTTY  # a mediated device


def test_a_reset_brings_the_device_back_to_its_beginning(vmm: PlayedVmm, host: PlayedHost) -> None:
    fd = vmm.open()
    vmm.set_state(fd, RESUMING)
    assert vmm.do("ioctl", fd, 0x3B6F, 0) == 0
    assert host.resets == 1
    assert host.function.calls == [4, "in closed", "reset"]
    assert vmm.get_state(fd) == RUNNING
    host.refuse_reset = OSError(errno.EAGAIN, "busy")
    assert vmm.do("ioctl", fd, 0x3B6F, 0) == -errno.EAGAIN
    assert host.function.calls[-1] == "reset"
    assert host.function.calls.count("reset") == 1


def test_logging_is_started_reported_and_stopped(vmm: PlayedVmm, host: PlayedHost) -> None:
    fd = vmm.open()
    where = vmm.do("buffer", "ranges", struct.pack("=4Q", 0, 1 << 20, 1 << 32, 1 << 21).hex())
    control = struct.pack("=Q2IQ", 4096, 2, 0, where)
    assert vmm.feature(fd, 6 | SET, control) == (0, control)
    bitmap = vmm.do("buffer", "bitmap", bytes(40).hex())
    assert vmm.feature(fd, 8 | GET, struct.pack("=4Q", 0, 1 << 20, 4096, bitmap))[0] == 0
    assert bytes.fromhex(vmm.do("look", "bitmap")) == b"\xff" * 32 + bytes(8)
    assert vmm.feature(fd, 7 | SET)[0] == 0
    assert host.function.calls == [(((0, 1 << 20), (1 << 32, 1 << 21)), 4096), (0, 1 << 20, 4096), "logging stop"]


def test_a_device_that_logs_nothing_says_so_when_it_is_probed(vmm: PlayedVmm, host: PlayedHost) -> None:
    fd = vmm.open()
    assert vmm.feature(fd, 6 | SET | PROBE)[0] == 0
    host.function.logs = False
    assert vmm.feature(fd, 6 | SET | PROBE)[0] == -errno.ENOTTY
    assert host.function.calls == []


@pytest.mark.parametrize(
    ("flags", "data", "argsz", "number"),
    [
        pytest.param(1 | GET, bytes(8), 15, errno.EINVAL, id="too short for its data"),
        pytest.param(1 | GET, bytes(8), 7, errno.EINVAL, id="too short for its header"),
        pytest.param(1 | SET, bytes(8), None, errno.EINVAL, id="a feature that is only read"),
        pytest.param(1, bytes(8), None, errno.EINVAL, id="neither get nor set"),
        pytest.param(2 | GET | SET, bytes(8), None, errno.EINVAL, id="both"),
        pytest.param(1 | GET | 1 << 19, bytes(8), None, errno.EINVAL, id="an unknown bit"),
        pytest.param(2 | SET, struct.pack("=Ii", 8, 0), None, errno.EINVAL, id="an unknown state"),
        pytest.param(6 | SET, struct.pack("=Q2IQ", 4096, 257, 0, 0), None, errno.E2BIG, id="too many ranges"),
        pytest.param(6 | SET, struct.pack("=Q2IQ", 4096, 0, 0, 0), None, errno.EINVAL, id="no range"),
        pytest.param(6 | SET, struct.pack("=Q2IQ", 4096, 1, 0, 16), None, errno.EFAULT, id="wild ranges"),
        pytest.param(6 | SET, struct.pack("=Q2IQ", 5000, 1, 0, 16), None, errno.EINVAL, id="an odd page"),
        pytest.param(8 | GET, struct.pack("=4Q", 0, 1 << 62, 4096, 16), None, errno.E2BIG, id="a huge bitmap"),
        pytest.param(8 | GET, struct.pack("=4Q", 1 << 63, 1 << 63, 0, 16), None, errno.EINVAL, id="pages of nothing"),
        pytest.param(8 | GET, struct.pack("=4Q", (1 << 64) - 1, 4096, 4096, 0), None, errno.EINVAL, id="a wrap"),
        pytest.param(8 | GET, struct.pack("=4Q", 0, 4096, 4096, 16), None, errno.EFAULT, id="a wild bitmap"),
        pytest.param(99 | GET, bytes(8), None, errno.ENOTTY, id="another feature is the kernel's"),
    ],
)
def test_what_makes_no_sense_gets_the_errno_a_kernel_would_give(
    vmm: PlayedVmm, flags: int, data: bytes, argsz: int | None, number: int
) -> None:
    fd = vmm.open()
    assert vmm.feature(fd, flags, data, argsz=argsz)[0] == -number
    assert vmm.get_state(fd) == RUNNING


@pytest.mark.parametrize("seed", range(4))
def test_whatever_threads_of_a_vmm_ask_the_next_call_is_answered(vmm: PlayedVmm, host: PlayedHost, seed: int) -> None:
    chance = random.Random(seed)
    fds = [*(vmm.open(f"0000:01:00.{number}") for number in range(3)), vmm.do("memfd", "group"), -1, 999, 1 << 31]
    vmm.do("buffer", "noise", chance.randbytes(4096).hex())
    for number in range(48):  # half of them are calls as a VMM could make them
        flags = chance.choice([0, 1, 2, 6, 7, 8, 9, 10]) | chance.choice([GET, SET, PROBE | SET, GET | SET, 0])
        size, state = chance.choice([8, 16, 32, 40]), chance.randrange(9)
        words = struct.pack("=4I", size, flags, state, chance.randrange(1 << 32))
        vmm.do("buffer", f"call{number}", (words + chance.randbytes(24)).hex())
    places = [0, 16, 1 << 63, *(["noise", chance.randrange(4000)] for _ in range(20))]
    places += [[f"call{number}", 0] for number in range(48)]
    requests = [0x3B69, 0x3B6A, 0x3B6F, 0x3B71, 0x3B72, *[0x3B75] * 8, 0x3B76, 0x3B85, 0x3B86, 0x3B8F]
    for _ in range(8):
        calls = [[chance.choice(fds), chance.choice(requests), chance.choice(places)] for _ in range(24)]
        vmm.do("in_threads", calls)
    for fd, function in zip(fds[:3], host.functions, strict=False):
        assert vmm.do("ioctl", fd, 0x3B6F, 0) == 0
        assert vmm.get_state(fd) == RUNNING
        assert not function.closed.is_set()
    assert [sentence for sentence in host.sentences if "bug" in sentence] == []


@pytest.mark.parametrize("where", [0, 16, (1 << 64) - 4096, (1 << 47) - 4])
@pytest.mark.parametrize("request_number", [0x3B75, 0x3B6A, 0x3B71, 0x3B72, 0x3B85, 0x3B86, 0x3B8F])
def test_a_wild_pointer_fails_its_call_alone(vmm: PlayedVmm, host: PlayedHost, where: int, request_number: int) -> None:
    fd = vmm.open()
    assert vmm.do("ioctl", fd, request_number, where) < 0
    assert vmm.get_state(fd) == RUNNING
    assert host.sentences == []


def test_nothing_happens_to_a_device_whose_answer_has_no_place_to_go(vmm: PlayedVmm, host: PlayedHost) -> None:
    fd = vmm.open()
    where = vmm.do("read_only_page", struct.pack("=2IIi", 16, 2 | SET, STOP, 0).hex())
    assert vmm.do("ioctl", fd, 0x3B75, where) == -errno.EFAULT
    assert host.function.calls == []


def test_a_name_that_ends_where_memory_ends_is_read(vmm: PlayedVmm, host: PlayedHost) -> None:
    where = vmm.do("at_page_end", b"0000:01:00.3\0".hex())
    assert vmm.do("ioctl", vmm.do("memfd", "group"), 0x3B6A, where) >= 0
    assert host.function.opening.address == "0000:01:00.3"


def test_a_name_without_an_end_is_the_kernels_to_refuse(vmm: PlayedVmm) -> None:
    vmm.do("buffer", "long", (b"0000:01:00.1 " + b"a" * 5000).hex())
    assert vmm.do("ioctl", vmm.do("memfd", "group"), 0x3B6A, ["long", 0]) == -errno.ENOTTY


def test_a_descriptor_that_is_no_group_opens_nothing(vmm: PlayedVmm, host: PlayedHost) -> None:
    assert vmm.open(group=vmm.do("memfd", "something")) == -errno.ENOTTY
    assert vmm.open(group=999) == -errno.EBADF
    assert vmm.open(group=-1) == -errno.EBADF
    assert host.functions == []


def test_a_device_that_vfio_does_not_open_is_the_vmms_errno(vmm: PlayedVmm, host: PlayedHost) -> None:
    host.refuse_open = OSError(errno.EPERM, "vf_token")
    assert vmm.open() == -errno.EPERM
    host.refuse_open = None
    assert vmm.open() >= 0


def test_a_number_that_was_closed_and_reused_is_not_the_device_any_more(vmm: PlayedVmm, host: PlayedHost) -> None:
    fd = vmm.open()
    vmm.do("dup2", vmm.do("memfd", "other"), fd)
    assert vmm.feature(fd, 1 | GET, bytes(8))[0] == -errno.ENOTTY
    vmm.do("close", fd)
    assert vmm.feature(fd, 1 | GET, bytes(8))[0] == -errno.EBADF
    assert host.function.calls == []


def test_a_copy_of_a_descriptor_is_the_same_device(vmm: PlayedVmm, host: PlayedHost) -> None:
    fd = vmm.open()
    copy = vmm.do("dup", fd)
    assert vmm.set_state(copy, STOP) == (0, NO_FD)
    vmm.do("close", fd)
    assert vmm.get_state(copy) == STOP


def test_a_device_that_is_opened_again_begins_anew(vmm: PlayedVmm, host: PlayedHost) -> None:
    vmm.do("close", vmm.open())
    again = vmm.open()
    assert host.functions[0].closed.wait(DEADLINE_S)
    assert vmm.set_state(again, STOP) == (0, NO_FD)
    assert [function.calls for function in host.functions] == [[], [STOP]]


def test_no_copy_of_ours_keeps_a_device_open_that_the_vmm_closes(vmm: PlayedVmm, host: PlayedHost) -> None:
    fd = vmm.open()
    vmm.set_state(fd, STOP)
    vmm.set_state(fd, STOP_COPY)
    vmm.set_state(fd, RUNNING)
    vmm.get_state(fd)
    ours = [str(entry.readlink()) for entry in Path("/proc/self/fd").iterdir() if os.path.lexists(entry)]
    assert not [name for name in ours if name.startswith("/memfd:device")]


def test_a_device_that_was_unplugged_is_let_go_when_its_vmm_leaves_the_group(vmm: PlayedVmm, host: PlayedHost) -> None:
    first, second = vmm.open("0000:01:00.1"), vmm.open("0000:01:00.2")
    vmm.do("close", first)
    vmm.do("ioctl", vmm.do("memfd", "group"), 0x3B69, 0)
    assert host.functions[0].closed.is_set()
    assert vmm.get_state(second) == RUNNING
    assert not host.functions[1].closed.is_set()


@pytest.fixture
def indistinct(monkeypatch: pytest.MonkeyPatch) -> None:
    """All devices that were opened by groups have one identity, as in the kernel; memfds have one each."""
    real = Identity.of

    def of(number: int, pid: int | None = None) -> Identity:
        known = real(number, pid)
        return Identity(0, 0, 0, "device") if "memfd:device" in known.name else known

    monkeypatch.setattr(Identity, "of", of)


def test_a_strangers_device_with_the_number_of_a_closed_one_is_not_taken_for_it(
    indistinct: None, vmm: PlayedVmm, host: PlayedHost
) -> None:
    group = vmm.do("memfd", "group")
    fd = vmm.open("0000:01:00.1", group)
    vmm.do("close", fd)
    host.strangers.add("0000:02:00.0")
    assert vmm.open("0000:02:00.0", group) == fd
    assert vmm.feature(fd, 1 | GET, bytes(8))[0] == -errno.ENOTTY
    assert host.functions[0].closed.is_set()


def test_a_number_that_became_a_strangers_device_is_not_taken_for_ours(
    indistinct: None, vmm: PlayedVmm, host: PlayedHost
) -> None:
    host.strangers.add("0000:02:00.0")
    stranger, fd = vmm.open("0000:02:00.0"), vmm.open("0000:01:00.1")
    assert vmm.feature(fd, 1 | GET, bytes(8))[0] == 0
    vmm.do("dup2", stranger, fd)
    assert vmm.set_state(fd, STOP)[0] == -errno.EIO
    assert host.function.calls == []


def test_eight_devices_that_nothing_tells_apart_are_eight(indistinct: None, vmm: PlayedVmm, host: PlayedHost) -> None:
    fds = [vmm.open(f"0000:01:00.{number}") for number in range(8)]
    for fd in fds[::2]:
        vmm.set_state(fd, STOP)
    assert [function.calls for function in host.functions] == [[STOP], []] * 4


def test_a_device_that_was_copied_over_another_is_neither_whichever_number_is_asked(
    indistinct: None, vmm: PlayedVmm, host: PlayedHost
) -> None:
    first, second = vmm.open("0000:01:00.1"), vmm.open("0000:01:00.2")
    vmm.do("dup2", second, first)
    assert vmm.set_state(first, STOP)[0] == -errno.EIO
    assert vmm.set_state(second, STOP)[0] == -errno.EIO
    assert [function.calls for function in host.functions] == [[], []]
    assert "cannot be told" in host.sentences[0]
    vmm.do("close", first)
    assert vmm.set_state(second, STOP) == (0, NO_FD)
    assert host.functions[1].calls == [STOP]


def test_a_device_of_its_own_node_is_known_by_its_number(vmm: PlayedVmm, host: PlayedHost) -> None:
    fd = vmm.do("memfd", "cdev-0000:01:00.4")
    assert vmm.feature(fd, 1 | GET, bytes(8))[0] == -errno.ENOTTY
    assert vmm.do("ioctl", fd, 0x3B76, 0) == -errno.ENOTTY  # bound by the kernel, which knows no memfd
    assert vmm.set_state(fd, STOP) == (0, NO_FD)
    assert host.function.opening.address == "0000:01:00.4"
    second = vmm.do("memfd", "cdev-0000:01:00.4")  # opened, but not bound: it is in nobody's use
    assert vmm.feature(second, 1 | GET, bytes(8))[0] == -errno.ENOTTY
    assert vmm.get_state(fd) == STOP
    vmm.do("ioctl", fd, 0x3B76, 0)
    assert host.function.closed.wait(DEADLINE_S)
    assert vmm.get_state(fd) == RUNNING
    assert len(host.functions) == 2


def test_a_forked_child_speaks_of_the_same_device(vmm: PlayedVmm, host: PlayedHost) -> None:
    fd = vmm.open()
    vmm.do("buffer", "stop", struct.pack("=2IIi", 16, 2 | SET, STOP, 0).hex())
    assert vmm.do("in_child", fd, 0x3B75, ["stop", 0]) == 0
    assert vmm.get_state(fd) == STOP


def test_a_vmm_that_executes_itself_anew_is_still_supervised(vmm: PlayedVmm, host: PlayedHost) -> None:
    vmm.open()
    vmm.send("restart")
    vmm.begin()
    fd = vmm.open()
    assert vmm.set_state(fd, STOP) == (0, NO_FD)
    assert host.functions[0].closed.is_set()
    assert host.functions[1].calls == [STOP]


def test_several_threads_and_several_devices_are_answered_at_once(vmm: PlayedVmm, host: PlayedHost) -> None:
    fds = [vmm.open(f"0000:01:00.{number}") for number in range(1, 5)]
    together = threading.Barrier(len(fds))
    for function in host.functions:
        function.in_arc = lambda: together.wait(DEADLINE_S) and None  # each arc waits for all the others
    for number in range(len(fds)):
        vmm.do("buffer", f"stop{number}", struct.pack("=2IIi", 16, 2 | SET, STOP, 0).hex())
    assert vmm.do("in_threads", [[fd, 0x3B75, [f"stop{n}", 0]] for n, fd in enumerate(fds)]) == [0, 0, 0, 0]


def test_many_threads_of_one_device_are_answered_one_after_the_other(vmm: PlayedVmm, host: PlayedHost) -> None:
    fd = vmm.open()
    for number in range(16):
        state = (STOP, RUNNING)[number % 2]
        vmm.do("buffer", f"b{number}", struct.pack("=2IIi", 16, 2 | SET, state, 0).hex())
    assert vmm.do("in_threads", [[fd, 0x3B75, [f"b{number}", 0]] for number in range(16)]) == [0] * 16
    assert sorted(host.function.calls) == [STOP] * 8 + [RUNNING] * 8


def test_a_vmm_that_is_killed_closes_its_devices(host: PlayedHost) -> None:
    with PlayedVmm(host) as vmm:
        fd = vmm.open()
        vmm.set_state(fd, RESUMING)
        os.kill(vmm.pid, signal.SIGKILL)
        assert host.function.closed.wait(DEADLINE_S)
    assert host.function.calls == [RESUMING, "in closed"]


@pytest.mark.parametrize("state", [STOP, RUNNING, STOP_COPY, RESUMING, RUNNING_P2P])
def test_a_vmm_that_is_killed_in_the_middle_of_an_arc_closes_its_devices(host: PlayedHost, state: int) -> None:
    with PlayedVmm(host) as vmm:
        fd = vmm.open()
        host.function.in_arc = lambda: os.kill(vmm.pid, signal.SIGKILL)
        with pytest.raises(VmmDiedError):
            vmm.set_state(fd, state)
        assert host.function.closed.wait(DEADLINE_S)


def test_a_supervisor_that_ends_leaves_the_vmm_running_without_migration(vmm: PlayedVmm, host: PlayedHost) -> None:
    fd = vmm.open()
    vmm.supervisor.stop()
    vmm.thread.join(DEADLINE_S)
    assert vmm.feature(fd, 1 | GET, bytes(8))[0] == -errno.ENOSYS
    assert vmm.do("read", vmm.do("memfd", "anything"), 1) == ""


def test_a_bug_of_ours_does_not_end_the_supervisor(vmm: PlayedVmm, host: PlayedHost) -> None:
    host.bug = ZeroDivisionError("a bug")
    assert vmm.open() == -errno.ENOTTY  # the kernel's answer for a memfd
    host.bug = None
    assert "this is a bug in nvmelm" in host.sentences[0]
    fd = vmm.open()
    host.function.in_arc = lambda: 1 // 0
    assert vmm.set_state(fd, STOP) == (-errno.EIO, NO_FD)
    assert vmm.get_state(fd) == RUNNING


def test_registers_are_read_and_written_while_a_call_is_answered_and_not_otherwise(
    vmm: PlayedVmm, host: PlayedHost
) -> None:
    fd = vmm.open()
    registers = host.function.opening.registers

    def in_arc() -> None:
        registers.write32(0x14, 0x0046_0001)
        registers.set_command(0x0406)
        assert (registers.read32(0x14), registers.command()) == (0x0046_0001, 0x0406)
        with pytest.raises(OSError, match="ends before"):
            registers.read32(1 << 20)
        host.function.opening.vectors.trigger()

    host.function.in_arc = in_arc
    assert vmm.set_state(fd, STOP) == (0, NO_FD)
    assert host.triggers == 1
    assert bytes.fromhex(vmm.do("read", fd, 24))[0x14:] == struct.pack("<I", 0x0046_0001)
    with pytest.raises(OSError, match="not at hand"):
        registers.read32(0)
