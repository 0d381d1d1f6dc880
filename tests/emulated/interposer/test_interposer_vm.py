"""A VM moves between two emulated hosts, and every call of its VMM is a real one of a real process under the filter."""

from __future__ import annotations

import os
import select
import signal
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nvmelm.emulator.guest.migrating_vm import MigratingVm, MigrationFailedError, migrate
from nvmelm.emulator.host import EmulatedHost
from nvmelm.errors import ImageError, IncompatibleError
from nvmelm.inventory.opened import open_primary
from nvmelm.prepare import allow
from nvmelm.vfio.emulated import opening_of
from nvmelm.vfio.functions import HostFunctions
from nvmelm.vfio.seam import Opening
from tests.emulated.answers import agree
from tests.emulated.vfio_world import FIRST, PF, VF, World, runs
from tests.interposing import DEADLINE_S, PlayedHost, PlayedVmm

GET, SET, PROBE = 1 << 16, 1 << 17, 1 << 18


class FunctionHost(PlayedHost):
    """A played VFIO whose function is an emulated VM's, answered by the controlling function."""

    def __init__(self, vm: MigratingVm, functions: HostFunctions) -> None:
        super().__init__()
        self._vm, self._real = vm, functions

    def open(self, opening: Opening) -> Any:
        assert opening.address == self._vm.bdf
        return self._real.open(opening_of(self._vm))


class Calls:
    """What an emulated VM asks of its function, as the calls of a process; a negative answer is an OSError."""

    def __init__(self, vm: MigratingVm, functions: HostFunctions) -> None:
        self.vmm = PlayedVmm(FunctionHost(vm, functions))
        self.fd = self.vmm.open(vm.bdf)

    def _feature(self, flags: int, data: bytes) -> bytes:
        result, answer = self.vmm.feature(self.fd, flags, data)
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        return answer

    def flags(self) -> int:
        return int.from_bytes(self._feature(1 | GET, bytes(8)), "little")

    @property
    def state(self) -> int:
        return self.vmm.get_state(self.fd)

    def set_state(self, state: int) -> Pipe | None:
        data_fd = struct.unpack("=Ii", self._feature(2 | SET, struct.pack("=Ii", state, 0)))[1]
        return Pipe(self.vmm, data_fd) if data_fd >= 0 else None

    def data_size(self) -> int:
        return int.from_bytes(self._feature(9 | GET, bytes(8)), "little")

    def logging_start(self, ranges: list[tuple[int, int]], page_size: int) -> int:
        self._feature(6 | SET | PROBE, b"")
        where = self.vmm.do("buffer", "ranges", b"".join(struct.pack("=2Q", *row) for row in ranges).hex())
        answer = self._feature(6 | SET, struct.pack("=Q2IQ", page_size, len(ranges), 0, where))
        return int.from_bytes(answer[:8], "little")

    def logging_report(self, iova: int, length: int, page_size: int) -> bytes:
        where = self.vmm.do("buffer", "bitmap", bytes(-(-length // page_size // 64) * 8).hex())
        self._feature(8 | GET, struct.pack("=4Q", iova, length, page_size, where))
        return bytes.fromhex(self.vmm.do("look", "bitmap"))

    def can_log(self) -> bool:
        return True

    def logging_stop(self) -> None:
        self._feature(7 | SET, b"")

    def was_reset(self) -> None:
        assert self.vmm.do("ioctl", self.fd, 0x3B6F, 0) == 0

    def close(self) -> None:
        self.vmm.__exit__()


class Pipe:
    """The VMM's end of a stream, read and written by plain calls."""

    def __init__(self, vmm: PlayedVmm, fd: int) -> None:
        self._vmm, self._fd = vmm, fd

    def read(self, size: int) -> bytes:
        return bytes.fromhex(self._vmm.do("read", self._fd, size))

    def write(self, data: bytes) -> None:
        result = self._vmm.do("write", self._fd, data.hex())
        if result < 0:
            raise OSError(-result, os.strerror(-result))

    def can_write_no_more(self) -> bool:
        """Wait until the VMM's write has returned, or waits for room in the pipe; return whether it waits."""
        writer = os.open(f"/proc/{self._vmm.pid}/fd/{self._fd}", os.O_WRONLY | os.O_NONBLOCK)
        room, deadline = select.poll(), time.monotonic() + DEADLINE_S
        room.register(writer, select.POLLOUT)
        try:
            while room.poll(0):
                assert time.monotonic() < deadline
                if self._vmm.answered(0.01):
                    return False
            return True
        finally:
            os.close(writer)


class FilteredWorld(World):
    """Two prepared hosts, whose VMs make real calls."""

    def vm(self, host: EmulatedHost, bdf: str = VF, **values: Any) -> MigratingVm:
        functions = HostFunctions(host, self.options)
        vm = MigratingVm(host, bdf, lambda vm: Calls(vm, functions), **values)
        self._vms.append(vm)
        return vm


@pytest.fixture
def world(tmp_path: Path) -> Iterator[FilteredWorld]:
    made = FilteredWorld(tmp_path)
    yield made
    made.close()


def test_a_vm_moves_by_its_own_calls_and_its_guest_does_not_notice(world: FilteredWorld) -> None:
    source, destination = world.running(), world.waiting()
    source.rescan(7)
    migrate(source, destination)
    destination.work(50)
    destination.rescan(9)
    report = destination.finish()
    assert report.clean, report
    assert report.verified


def test_a_vm_whose_function_is_not_marked_does_not_move_and_goes_on(world: FilteredWorld) -> None:
    with open_primary(world.destination, PF, change=True) as pf:
        allow.revoke(pf, [FIRST], confirm=agree)
    source, destination = world.running(), world.waiting()
    assert not destination.migratable
    with pytest.raises(MigrationFailedError, match="not supported"):
        migrate(source, destination)
    assert isinstance(destination.answering, Calls)
    for _ in range(3):
        with pytest.raises(OSError, match="Inappropriate ioctl"):
            destination.answering.flags()
    said = [sentence for sentence in destination.answering.vmm.host.sentences if "ENOTTY" in sentence]
    assert len(said) == 1
    assert "has no mark that holds" in said[0]
    assert "allow-resume" in said[0]
    source.work(20)
    assert source.finish().clean


@pytest.mark.parametrize(
    "fault",
    ["0x41/0#2=status:0x4006", "0x41/2#2=status:0x4006", "0x41/2#2=lose", "0x41/1=status:0x4006", "0x41/1=lose"],
)
def test_a_device_that_fails_when_the_vm_starts_ends_its_vmm_and_the_source_goes_on(
    world: FilteredWorld, fault: str
) -> None:
    """A VMM that got to say another word would let the source go: QEMU tells it of success whatever its devices say."""
    source, destination = world.running(), world.waiting()
    assert isinstance(destination.answering, Calls)
    vmm = destination.answering.vmm
    world.destination.arm(f"admin/{fault}")
    with pytest.raises(MigrationFailedError):
        migrate(source, destination)
    assert os.waitpid(vmm.pid, 0)[1] == signal.SIGKILL
    assert any("its VMM is ended" in sentence for sentence in vmm.host.sentences)
    destination.function.close()
    assert not runs(destination)
    source.work(20)
    source.rescan(2)
    assert source.finish().clean
    assert runs(source)


def test_what_is_no_state_is_refused_while_it_is_written_and_the_source_goes_on(world: FilteredWorld) -> None:
    source, destination = world.running(), world.waiting()
    assert isinstance(destination.answering, Calls)
    pipe = destination.answering.set_state(4)
    assert pipe is not None
    with pytest.raises(OSError, match="Broken pipe"):
        pipe.write(os.urandom(1 << 20))
    with pytest.raises(OSError, match=r"."):
        destination.answering.set_state(2)
    source.work(20)
    assert source.finish().clean


def test_a_vmm_that_writes_all_of_a_state_in_one_call_moves_its_vm(
    world: FilteredWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nvmelm.emulator.guest.migrating_vm._CHUNK", 1 << 22)
    source, destination = world.running(), world.waiting()
    migrate(source, destination)
    destination.work(20)
    assert destination.finish().clean


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ("nvmelm.vfio.options.Options.judge", IncompatibleError("it does not fit")),
        ("nvmelm.vfio.stream.Image", ImageError("it was altered")),
    ],
)
def test_what_is_refused_late_fails_the_vmms_write_and_never_only_its_next_call(
    world: FilteredWorld, monkeypatch: pytest.MonkeyPatch, what: str, error: Exception
) -> None:
    """A VMM whose last write has returned lets the source go; the judge waits until this one can write no more."""
    source, destination = world.running(), world.waiting()
    source.begin()
    state = source.save()
    assert isinstance(destination.answering, Calls)
    pipe = destination.answering.set_state(4)
    assert pipe is not None
    waits: list[bool] = []

    def refuse(*words: object) -> None:
        waits.append(pipe.can_write_no_more())
        raise error

    monkeypatch.setattr(what, refuse)
    with pytest.raises(OSError, match="Broken pipe"):
        pipe.write(state)
    assert waits == [True]
    source.go_on()
    source.work(20)
    assert source.finish().clean
