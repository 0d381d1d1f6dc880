"""A descriptor that threads share: its number is never used once the kernel may give it to another file."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from nvmelm.errors import LinkLostError, NvmelmError, TimedOutError
from nvmelm.host import AdminCommand
from nvmelm.host.local import passthru
from nvmelm.migrate.link.frames import Link
from nvmelm.prepare import executor
from nvmelm.process import interrupts, program
from nvmelm.process.descriptor import Descriptor, DescriptorClosedError, Waker
from nvmelm.process.program import Program
from nvmelm.process.waiting import wait_until


def descriptors() -> dict[str, str]:
    """Return what is open now, by number."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = str(Path(f"/proc/self/fd/{name}").readlink())
        except FileNotFoundError:  # that of the listing itself
            continue
    return found


@contextmanager
def nothing_left() -> Iterator[None]:
    """Prove that the block leaves no descriptor open and no thread alive."""
    before, threads = descriptors(), set(threading.enumerate())
    yield
    assert descriptors() == before
    assert set(threading.enumerate()) == threads


def takes(number: int, path: Path) -> list[int]:
    """Open files until one has got a number, or until it is plain that none gets it; return what was opened."""
    opened = []
    while number not in opened and len(opened) < 64:
        opened.append(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    return opened


def test_a_number_in_use_is_given_back_by_whoever_leaves_last() -> None:
    reading, writing = os.pipe2(os.O_CLOEXEC)
    one = Descriptor(writing)
    with one as number, one as again:
        one.close()
        assert (number, again) == (writing, writing)
        os.write(number, b"x")
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(writing)
    assert os.read(reading, 8) == b"x"
    os.close(reading)


def test_closed_twice_it_closes_nobody_elses_file(tmp_path: Path) -> None:
    one = Descriptor(os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY))
    with one as number:
        pass
    one.close()
    opened = takes(number, tmp_path / "other")
    assert number in opened
    one.close()
    with pytest.raises(DescriptorClosedError), one:
        pass
    for each in opened:
        os.fstat(each)
        os.close(each)


def test_waking_what_is_being_closed_writes_into_no_other_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The waker is preempted between the look and the write; the closer is done by then, and opens files."""
    waker, real, opened = Waker(), os.write, []
    with waker.writing as writing:
        pass

    def preempted(number: int, data: bytes) -> int:
        monkeypatch.setattr(os, "write", real)
        waker.close()
        opened.extend(takes(writing, tmp_path / "other"))
        return real(number, data)

    monkeypatch.setattr(os, "write", preempted)
    waker.wake()
    assert opened
    assert (tmp_path / "other").read_bytes() == b""
    waker.wake()
    assert (tmp_path / "other").read_bytes() == b""
    for each in opened:
        os.close(each)


def linked(silence_s: float = 2.0) -> tuple[Link, socket.socket]:
    ours, theirs = socket.socketpair()
    return Link(os.dup(ours.fileno()), ours.detach(), "peer", silence_s=silence_s), theirs


def preempt(monkeypatch: pytest.MonkeyPatch, name: str, then: Callable[[], object]) -> None:
    """Let something happen just before the next call of ``os.<name>``: the thread was preempted there."""
    real = getattr(os, name)

    def preempted(*arguments: Any) -> Any:
        monkeypatch.setattr(os, name, real)
        then()
        return real(*arguments)

    monkeypatch.setattr(os, name, preempted)


@pytest.mark.parametrize("call", ["write", "readv", "writev"])
def test_whoever_uses_a_link_that_is_being_closed_reaches_no_other_file(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, theirs = linked()
    theirs.sendall(b"\x01\x00\x00\x00\x04\x00\x00\x00abcd")
    before = descriptors()
    other = tmp_path / "other"
    opened: list[int] = []

    def close() -> None:
        link.close()
        opened.extend(os.open(other, os.O_RDWR | os.O_CREAT, 0o600) for _ in range(8))

    other.write_bytes(b"mine")
    preempt(monkeypatch, call, close)
    use: dict[str, Callable[[], object]] = {
        "write": link.wake,
        "readv": link.receive,
        "writev": lambda: link.send(2, b"theirs"),
    }
    with suppress(LinkLostError):
        use[call]()
    assert opened
    assert other.read_bytes() == b"mine"
    assert all(os.lseek(one, 0, os.SEEK_CUR) == 0 for one in opened)  # nothing was read of it either
    for one in opened:
        os.close(one)
    assert set(descriptors()) < set(before)
    theirs.close()


def test_a_closed_link_leaves_neither_a_thread_nor_a_descriptor() -> None:
    with nothing_left():
        link, theirs = linked()
        theirs.sendall(b"\x89NVMLNK\n\x01\x00\x01\x00\x00\x00\x00\x00")
        link.shake_hands()
        link.begin(lambda: _listen(link), "waits")
        link.begin(lambda: _fill(link), "sends")
        link.close()
        theirs.close()


def _listen(link: Link) -> None:
    with suppress(LinkLostError):
        while True:
            link.receive()


def _fill(link: Link) -> None:
    with suppress(LinkLostError):
        while True:
            link.send(2, bytes(1 << 20))


def test_half_a_frame_is_the_last_thing_a_link_sends_whatever_interrupted_it(monkeypatch: pytest.MonkeyPatch) -> None:
    link, theirs = linked()
    real = os.writev

    def interrupted(number: int, views: Any) -> int:
        monkeypatch.setattr(os, "writev", real)
        real(number, [bytes(views[0])[:4]])
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "writev", interrupted)
    with pytest.raises(KeyboardInterrupt):
        link.send(1, b"payload")
    with pytest.raises(LinkLostError, match="cut"):
        link.send(1, b"abort")
    link.close()
    assert theirs.recv(100) == b"\x01\x00\x00\x00"
    theirs.close()


def test_what_is_being_sent_is_given_up_when_the_link_is_in_a_hurry_although_the_peer_lives() -> None:
    link, theirs = linked(silence_s=0.5)
    done = threading.Event()

    def live() -> None:
        while not done.wait(0.1):
            theirs.sendall(b"\x03\x00\x00\x00\x00\x00\x00\x00")

    alive = threading.Thread(target=live)
    alive.start()
    try:
        link.hurry(0.3)
        _fill(link)  # comes to its end
    finally:
        done.set()
        alive.join()
        link.close()
        theirs.close()


def script(place: Path, text: str) -> list[str]:
    path = place / "program"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o700)
    return [str(path)]


def test_no_signal_goes_to_the_number_of_a_program_whose_status_was_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own thread takes the status while another one ends it: from then on the number may be anybody's."""
    signalled: list[tuple[int, bool]] = []
    with Program(script(tmp_path, "exec sleep 600"), b"") as running:
        real = os.killpg

        def killpg(group: int, number: int) -> None:
            signalled.append((number, running._child.returncode is None))
            real(group, number)

        monkeypatch.setattr(os, "killpg", killpg)
        real_follow = running.follow

        def follow(deadline: float) -> bool:
            ended = real_follow(deadline)
            assert running.status() == -signal.SIGTERM  # the other thread was quicker
            return ended

        monkeypatch.setattr(running, "follow", follow)
        running.end()
    assert all(unreaped for _, unreaped in signalled)
    assert [number for number, _ in signalled] == [signal.SIGTERM]
    running.end()
    assert len(signalled) == 1


def test_ending_a_program_that_another_thread_has_left_neither_spins_nor_signals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Program(script(tmp_path, "exit 0"), b"") as running:
        assert running.follow(time.monotonic() + 60)
        assert running.status() == 0
    monkeypatch.setattr(os, "killpg", lambda *_: pytest.fail("it is nobody's group any more"))
    monkeypatch.setattr(program.select, "poll", lambda: pytest.fail("its descriptors are closed"))
    running.end()
    running.stop()


def test_a_program_is_stopped_from_another_thread_and_leaves_nothing(tmp_path: Path) -> None:
    with nothing_left():
        with Program(script(tmp_path, "exec sleep 600"), b"") as running:
            threading.Thread(target=running.stop).start()
            assert not running.follow(time.monotonic() + 60)
        assert running.status() == -signal.SIGTERM
        wait_until(lambda: threading.active_count() == 1, "the other thread to end", deadline_s=20)


def test_no_thread_to_be_had_is_an_error_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none)
    with pytest.raises(interrupts.HostError) as met:
        interrupts.begin(threading.Thread(target=print))
    assert (met.value.reason, bool(met.value.fix)) == ("no-thread", True)


def test_a_block_is_interrupted_at_the_end_of_its_time_and_puts_back_the_alarm_of_others() -> None:
    before = signal.getsignal(signal.SIGALRM)
    reading, writing = os.pipe()
    with pytest.raises(interrupts.OutOfTimeError), interrupts.interruptible(), interrupts.limited(0.05):
        os.read(reading, 1)
    assert signal.getsignal(signal.SIGALRM) is before
    for each in (reading, writing):
        os.close(each)


def test_a_standard_descriptor_that_was_closed_never_becomes_another_file(tmp_path: Path) -> None:
    """As ``2>&-`` leaves it; the lock of a PF, say, would be the next file, and get what is said there."""
    code = (
        "import os, sys\nfrom nvmelm.cli import main\n"
        "main(['explain', '9'])\n"
        "print([os.readlink(f'/proc/self/fd/{n}') for n in range(3)])"
    )
    with (tmp_path / "out").open("wb") as out:
        for closed in ("2>&-", "0<&-", "0<&- 2>&-"):
            done = subprocess.run(["sh", "-c", f'exec "$@" {closed}', "-", sys.executable, "-c", code], stdout=out)
            assert done.returncode == 0
    lines = [line for line in (tmp_path / "out").read_text().splitlines() if line.startswith("[")]
    assert [
        line.count("/dev/null") >= closed.count("&-") for line, closed in zip(lines, ("&-", "&-", "&-&-"), strict=True)
    ] == [True] * 3


def write_that_hangs(monkeypatch: pytest.MonkeyPatch, started: Callable[[threading.Thread], None]) -> list[object]:
    """Do a bounded write whose thread begins as told; return what was written once nobody waited any more."""
    written: list[object] = []
    monkeypatch.setattr(executor, "_IDLE_DEADLINE_S", 0.2)
    monkeypatch.setattr(executor, "begin", started)
    with pytest.raises(TimedOutError):
        executor._bounded(lambda: written.append("1"), "do it")
    return written


def test_a_write_that_nobody_waits_for_any_more_is_not_done_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread was preempted before its write; the caller has let go of the PF's lock by the time it goes on."""
    late: list[threading.Thread] = []
    monkeypatch.setattr(threading.Thread, "join", lambda *_: None)
    written = write_that_hangs(monkeypatch, late.append)
    late[0].run()
    assert written == []


def test_a_write_that_fails_in_a_way_nobody_expects_is_no_success() -> None:
    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        executor._bounded(fail, "do it")


def test_a_queue_that_another_thread_closes_sends_no_command_to_another_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    monkeypatch.setattr(passthru, "_open_controller", lambda *_: os.open(tmp_path, os.O_RDONLY))
    monkeypatch.setattr(passthru, "max_transfer_bytes", lambda *_: 4096)
    queue = passthru.PassthruQueue("/dev/nvme0", None, "nvme0")  # type: ignore[arg-type]

    def ioctl(number: int, *_: object) -> int:
        """Stand for the kernel; the thread is preempted just before."""
        closer = threading.Thread(target=queue.close)
        closer.start()
        closer.join()
        opened = [os.open("/dev/null", os.O_RDONLY) for _ in range(8)]
        sent.append(str(Path(f"/proc/self/fd/{number}").readlink()))
        for one in opened:
            os.close(one)
        return 0

    monkeypatch.setattr(passthru, "ioctl", ioctl)
    command = AdminCommand(name="Identify", opcode=6)
    queue.submit(command)
    with pytest.raises(NvmelmError, match="Bad file descriptor"):
        queue.submit(command)
    assert sent == [str(tmp_path)]
