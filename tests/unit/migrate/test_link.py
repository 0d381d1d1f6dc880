"""The link between two hosts: frames, bounds, versions, and what a hostile or dying peer can do: end the session."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvmelm.errors import LinkLostError, MalformedError, NotSupportedError
from nvmelm.migrate.link.frames import Buffers, Link
from nvmelm.migrate.link.layout import ALIVE, DATA, MAX_DATA_BYTES, MAX_MESSAGE_BYTES, MESSAGE

MAGIC = b"\x89NVMLNK\n"
#: A silence that ends a link, and that no thread of a busy machine is kept waiting for between two signs of life.
_BUSY_S = 1.0


def preamble(lowest: int, highest: int) -> bytes:
    return MAGIC + struct.pack("<HHI", lowest, highest, 0)


def frame(kind: int, payload: bytes, stream: int = 0, *, zero: int = 0, length: int | None = None) -> bytes:
    return struct.pack("<BBHI", kind, zero, stream, len(payload) if length is None else length) + payload


class Peer:
    """The raw other end of a link."""

    def __init__(self, silence_s: float = 2.0) -> None:
        ours, theirs = socket.socketpair()
        self.raw = theirs
        self.link = Link(os.dup(ours.fileno()), ours.detach(), "peer", silence_s=silence_s)

    def greeted(self) -> Link:
        self.raw.sendall(preamble(1, 1))
        assert self.link.shake_hands() == 1
        return self.link


@contextmanager
def quiet(silence_s: float) -> Iterator[Peer]:
    peer = Peer(silence_s)
    try:
        yield peer
    finally:
        peer.link.close()
        peer.raw.close()


@pytest.fixture
def peer() -> Iterator[Peer]:
    with quiet(2.0) as peer:
        yield peer


def test_the_preamble_says_which_versions_this_program_speaks(peer: Peer) -> None:
    peer.greeted()
    assert peer.raw.recv(16) == preamble(1, 1)


@pytest.mark.parametrize(("lowest", "highest"), [(2, 3), (9, 9), (3, 1)])
def test_a_peer_of_other_versions_is_refused_with_both_spans(peer: Peer, lowest: int, highest: int) -> None:
    peer.raw.sendall(preamble(lowest, highest))
    with pytest.raises(NotSupportedError) as met:
        peer.link.shake_hands()
    assert met.value.reason == "protocol-version"
    assert f"{lowest}" in met.value.message
    assert "this nvmelm version 1" in met.value.message


def test_a_newer_peer_that_still_speaks_ours_is_spoken_to_in_ours(peer: Peer) -> None:
    peer.raw.sendall(preamble(1, 7))
    assert peer.link.shake_hands() == 1


def test_what_a_login_script_printed_is_shown_without_control_characters(peer: Peer) -> None:
    peer.raw.sendall(b"Welcome to \x1b[31mhost\n and more")
    with pytest.raises(MalformedError) as met:
        peer.link.shake_hands()
    assert "Welcome to" in met.value.message
    assert "\x1b" not in met.value.message


def test_a_message_arrives_as_it_was_sent(peer: Peer) -> None:
    link = peer.greeted()
    peer.raw.sendall(frame(MESSAGE, b'{"type":"bye"}'))
    received = link.receive()
    assert received is not None
    assert (received.kind, bytes(received.payload)) == (MESSAGE, b'{"type":"bye"}')


def test_frames_of_any_size_arrive_as_they_were_sent_and_stay_so_while_somebody_looks_at_them() -> None:
    sizes = [0, 1, 8, 64 << 10, 3, (1 << 20) + 1, 200_000, 508 << 10, 508 << 10, 2 << 20, 5, 700_001]
    sent = [bytes([number + 1]) * size for number, size in enumerate(sizes)]
    to_here, from_there = os.pipe()
    to_there, from_here = os.pipe()
    with Link(to_here, from_here, "there") as ours, Link(to_there, from_there, "here") as theirs:

        def speak() -> None:
            theirs.shake_hands()
            for number, payload in enumerate(sent):
                theirs.send(DATA, payload, number)

        speaker = threading.Thread(target=speak)
        speaker.start()
        ours.shake_hands()
        frames = [ours.receive() for _ in sent]
        speaker.join()
    assert [(received.stream, bytes(received.payload)) for received in frames if received is not None] == list(
        enumerate(sent)
    )


def test_memory_is_used_again_only_when_nobody_looks_at_it_any_more() -> None:
    buffers = Buffers()
    first = buffers.take(1 << 20)
    place, part = first.obj, first[100:200]
    del first
    assert buffers.take(1 << 20).obj is not place  # a slice is a look, too
    part.release()
    again = buffers.take(2 << 20)
    assert again.obj is place
    assert len(again) == 2 << 20


def test_what_is_kept_for_use_again_is_bounded() -> None:
    buffers = Buffers()
    seen = [buffers.take(64 << 10) for _ in range(100)]
    places = {id(view.obj) for view in seen}
    assert len(places) == 100
    for view in seen:
        view.release()
    assert len({id(buffers.take(64 << 10).obj) for _ in range(100)} & places) == 1


@pytest.mark.parametrize("cut", range(12))
def test_what_comes_behind_data_belongs_to_the_next_frame_wherever_it_was_cut(peer: Peer, cut: int) -> None:
    link = peer.greeted()
    behind = frame(MESSAGE, b"bye!")
    peer.raw.sendall(frame(DATA, b"d" * 100_000, 3) + behind[:cut])
    received = link.receive()
    assert received is not None
    assert (received.kind, received.stream, bytes(received.payload)) == (DATA, 3, b"d" * 100_000)
    assert link.pending() == (cut > 0)
    peer.raw.sendall(behind[cut:])
    received = link.receive()
    assert received is not None
    assert (received.kind, bytes(received.payload)) == (MESSAGE, b"bye!")
    assert not link.pending()


def test_an_empty_frame_that_came_whole_behind_data_is_not_waited_for(peer: Peer) -> None:
    link = peer.greeted()
    peer.raw.sendall(frame(DATA, b"d" * 70_000, 1) + frame(ALIVE, b"") + frame(DATA, b"d", 2) + frame(DATA, b"", 3))
    assert [frame.stream for frame in (link.receive(), link.receive(), link.receive()) if frame is not None] == [
        1,
        2,
        3,
    ]


def test_each_frame_of_a_large_state_is_one_read(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    link = peer.greeted()
    peer.raw.sendall(b"".join(frame(DATA, b"d" * 10_000, number) for number in range(5)))
    reads = []
    readv = os.readv
    monkeypatch.setattr(os, "readv", lambda *arguments: reads.append(readv(*arguments)) or reads[-1])
    assert [frame.stream for frame in (link.receive() for _ in range(5)) if frame is not None] == list(range(5))
    assert reads == [8, *[10_008] * 4, 10_000]


def test_alive_frames_are_passed_over(peer: Peer) -> None:
    link = peer.greeted()
    peer.raw.sendall(frame(ALIVE, b"") * 3 + frame(DATA, b"x", 9))
    received = link.receive()
    assert received is not None
    assert (received.kind, received.stream) == (DATA, 9)


@pytest.mark.parametrize(
    "raw",
    [
        frame(7, b""),
        frame(0, b""),
        frame(MESSAGE, b"", zero=1),
        frame(MESSAGE, b"", length=MAX_MESSAGE_BYTES + 1),
        frame(DATA, b"", length=MAX_DATA_BYTES + 1),
        frame(ALIVE, b"", length=1),
    ],
)
def test_a_frame_out_of_bounds_ends_the_session_before_anything_is_allocated(peer: Peer, raw: bytes) -> None:
    link = peer.greeted()
    peer.raw.sendall(raw)
    with pytest.raises(MalformedError):
        link.receive()


@given(raw=st.binary(max_size=64))
@settings(max_examples=60, deadline=None)
def test_random_bytes_end_the_session_with_a_clear_error(raw: bytes) -> None:
    peer = Peer()
    try:
        link = peer.greeted()
        peer.raw.sendall(raw)
        peer.raw.shutdown(socket.SHUT_WR)
        with pytest.raises((MalformedError, LinkLostError)):
            while True:
                link.receive()
    finally:
        peer.link.close()
        peer.raw.close()


@pytest.mark.parametrize("cut", range(0, 24, 3))
def test_an_end_in_the_middle_of_a_frame_is_a_lost_link(peer: Peer, cut: int) -> None:
    link = peer.greeted()
    peer.raw.sendall(frame(MESSAGE, b"0123456789abcdef")[:cut])
    peer.raw.close()
    with pytest.raises(LinkLostError):
        link.receive()


def test_a_silent_peer_is_a_lost_link() -> None:
    with quiet(0.2) as peer, pytest.raises(LinkLostError, match="does not answer"):
        peer.greeted().receive()


def test_a_peer_that_gives_signs_of_life_is_waited_for() -> None:
    done = threading.Event()
    with quiet(0.3) as peer:
        link = peer.greeted()

        def live() -> None:
            while not done.wait(0.1):
                peer.raw.sendall(frame(ALIVE, b""))

        thread = threading.Thread(target=live)
        thread.start()
        try:
            with pytest.raises(LinkLostError):
                link.receive(deadline_s=1.0)  # longer than the silence that would end it
        finally:
            done.set()
            thread.join()


def test_a_deadline_ends_the_wait_for_a_peer_that_floods_with_signs_of_life() -> None:
    done = threading.Event()
    with quiet(60.0) as peer:
        link = peer.greeted()

        def flood() -> None:
            with contextlib.suppress(OSError):
                while not done.is_set():
                    peer.raw.sendall(frame(ALIVE, b"") * 512)

        thread = threading.Thread(target=flood)
        thread.start()
        try:
            with pytest.raises(LinkLostError, match="does not answer"):
                link.receive(deadline_s=0.2)
        finally:
            done.set()
            link.close()
            peer.raw.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_a_deadline_ends_the_wait_for_a_peer_that_drips() -> None:
    done = threading.Event()
    with quiet(60.0) as peer:
        link = peer.greeted()

        def drip() -> None:
            peer.raw.sendall(frame(DATA, b"", length=MAX_DATA_BYTES))
            while not done.wait(0.02):
                peer.raw.sendall(b"x")

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            with pytest.raises(LinkLostError, match="does not answer"):
                link.receive(deadline_s=0.2)
        finally:
            done.set()
            thread.join()


@pytest.mark.parametrize("reads", [False, True])
def test_a_peer_that_takes_nothing_for_long_but_lives_is_waited_for(reads: bool) -> None:
    """Its device takes its time; what it says may be read by another thread, or by nobody just now."""
    sent, done = threading.Event(), threading.Event()
    with quiet(_BUSY_S) as peer:
        link = peer.greeted()

        def speak() -> None:
            for _ in range(8):
                link.send(DATA, bytes(1 << 20))
            sent.set()

        def listen() -> None:
            with contextlib.suppress(LinkLostError):
                link.receive()

        threads = [threading.Thread(target=target) for target in ([speak, listen] if reads else [speak])]
        for thread in threads:
            thread.start()
        for _ in range(25):  # more than twice the silence that would end it
            assert not done.wait(0.1)
            peer.raw.sendall(frame(ALIVE, b""))
        assert not sent.is_set()
        peer.raw.settimeout(60)
        while not sent.is_set():  # alive throughout: a busy machine may let one turn take longer than the silence
            peer.raw.sendall(frame(ALIVE, b""))
            peer.raw.recv(1 << 20)
        peer.raw.sendall(frame(DATA, b""))
        for thread in threads:
            thread.join()


@contextlib.contextmanager
def through_pipes(silence_s: float) -> Iterator[tuple[Link, int, int]]:
    """Return a greeted link over two pipes, as ssh gives them, and the other side's ends: to write, and to read."""
    from_peer, peer_writes = os.pipe()
    peer_reads, to_peer = os.pipe()
    os.write(peer_writes, preamble(1, 1))
    with contextlib.ExitStack() as ends, Link(from_peer, to_peer, "peer", silence_s=silence_s) as link:
        link.shake_hands()
        ends.callback(os.close, peer_writes)
        ends.callback(os.close, peer_reads)
        yield link, peer_writes, peer_reads


def test_what_arrives_in_a_pipe_that_nobody_reads_is_a_sign_of_life() -> None:
    sent = threading.Event()
    with through_pipes(_BUSY_S) as (link, peer_writes, peer_reads):

        def speak() -> None:
            for _ in range(4):
                link.send(DATA, bytes(1 << 20))
            sent.set()

        thread = threading.Thread(target=speak)
        thread.start()
        for _ in range(25):  # more than twice the silence that would end it
            assert not sent.wait(0.1)
            os.write(peer_writes, frame(ALIVE, b""))
        while not sent.is_set():
            os.write(peer_writes, frame(ALIVE, b""))
            os.read(peer_reads, 1 << 20)
        thread.join()


@pytest.mark.parametrize("hung_up", [False, True])
def test_a_pipe_that_takes_nothing_and_says_nothing_is_lost_even_when_its_other_half_ended(hung_up: bool) -> None:
    with through_pipes(0.3) as (link, peer_writes, _):
        if hung_up:
            nothing = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
            os.dup2(nothing, peer_writes)
            os.close(nothing)
        with pytest.raises(LinkLostError, match="does not take what is sent"):
            for _ in range(4):
                link.send(DATA, bytes(1 << 20))


def test_a_link_is_closed_while_somebody_waits_to_send() -> None:
    with quiet(60.0) as peer:
        link = peer.greeted()
        failures: list[BaseException] = []

        def speak() -> None:
            try:
                for _ in range(64):
                    link.send(DATA, bytes(1 << 20))
            except LinkLostError as error:
                failures.append(error)

        thread = threading.Thread(target=speak)
        thread.start()
        while not link.sent_bytes:
            pass
        link.close()
        thread.join(10)
        assert not thread.is_alive()
        assert len(failures) == 1


@pytest.mark.parametrize("direction", ["writev", "readv"])
def test_a_link_that_is_closed_between_a_try_and_its_wait_was_cut(
    direction: str, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = peer.greeted()

    def full_and_then_closed(*_: object) -> int:
        link.close()
        raise BlockingIOError

    monkeypatch.setattr(os, direction, full_and_then_closed)
    if direction == "readv":
        peer.raw.sendall(bytes(8))
    with pytest.raises(LinkLostError):
        link.send(DATA, b"x") if direction == "writev" else link._read(8)


def test_a_link_says_by_itself_that_it_lives() -> None:
    with quiet(0.25) as peer:
        peer.greeted()
        peer.raw.settimeout(5)
        assert peer.raw.recv(16) == preamble(1, 1)
        assert peer.raw.recv(8) == frame(ALIVE, b"")


def test_nothing_follows_half_a_frame() -> None:
    with quiet(0.2) as peer:
        link = peer.greeted()
        with pytest.raises(LinkLostError):
            for _ in range(64):
                link.send(DATA, bytes(1 << 20))  # nobody reads
        with pytest.raises(LinkLostError):
            link.send(MESSAGE, b"x")


def test_a_waiting_receiver_can_be_woken(peer: Peer) -> None:
    link = peer.greeted()
    threading.Timer(0.05, link.wake).start()
    assert link.receive() is None
