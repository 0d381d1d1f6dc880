"""The link between two hosts: frames over two file descriptors, as :mod:`nvmelm.migrate.link.layout` has them.

A side that has nothing to say sends *alive* frames, so that silence means a lost link and not a long command.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import threading
import time
from collections.abc import Callable, Sequence
from typing import Self

from nvmelm.errors import LinkLostError, MalformedError, NotSupportedError
from nvmelm.harmless import harmless
from nvmelm.migrate.link.buffers import Buffers
from nvmelm.migrate.link.layout import ALIVE, DATA, HIGHEST, LIMITS, LOWEST, MAGIC, Frame, FrameHeader, MiB, Preamble
from nvmelm.process.descriptor import Descriptor, DescriptorClosedError, Waker
from nvmelm.process.interrupts import begin, held_back
from nvmelm.wire.layout import Buffer

#: A link that says nothing for so long is lost; *alive* frames come several times as often.
SILENCE_S = 30.0
_ALIVE_PER_SILENCE = 5
#: Whoever cannot send looks so often whether the other side lives, or the link is being closed.
_LOOKS_UP_S = 0.5
_F_SETPIPE_SZ = 1031
_PIPE_BYTES = 1 * MiB


class Link:
    """Frames to and from the other side.

    Args:
        incoming, outgoing: descriptors; the link makes them non-blocking, and closes them at its end, when no thread
            uses them any more.
        peer: what the other side is called in messages.
        silence_s: seconds without a frame after which the link is lost.
    """

    def __init__(self, incoming: int, outgoing: int, peer: str, *, silence_s: float = SILENCE_S) -> None:
        self.peer = peer
        self.version = 0
        self.sent_bytes = 0
        self._incoming = Descriptor(incoming)
        self._outgoing = self._incoming if outgoing == incoming else Descriptor(outgoing)
        self._silence_s = silence_s
        self._writing = threading.Lock()
        self._buffers = Buffers()
        self._ahead = b""  # what came of the next frame's header together with data
        #: Whether it was nvmelm that answered.
        self.shaken = False
        self._broken: LinkLostError | None = None
        self._waker = Waker()
        self._closing = threading.Event()
        self._sent_by: float | None = None
        self._threads: list[threading.Thread] = []
        for descriptor in {incoming, outgoing}:
            os.set_blocking(descriptor, False)
            _widen(descriptor)

    def shake_hands(self) -> int:
        """Exchange preambles and return the version of the protocol both speak.

        Raises:
            NotSupportedError: there is none; both sides' versions are named.
            MalformedError: the other side is no nvmelm.
            LinkLostError: it ended, or says nothing.
        """
        self._write(Preamble.pack(magic=MAGIC, lowest=LOWEST, highest=HIGHEST))
        theirs = Preamble(bytes(self._read_preamble()))
        if theirs.lowest > HIGHEST or theirs.highest < LOWEST or theirs.lowest > theirs.highest:
            raise NotSupportedError(
                f"{self.peer} speaks version {_span(theirs.lowest, theirs.highest)} of the protocol, "
                f"this nvmelm version {_span(LOWEST, HIGHEST)}",
                cause="one of the two is too old for the other",
                fix="install the same nvmelm on both hosts",
                reason="protocol-version",
            )
        self.shaken = True
        self.version = min(HIGHEST, theirs.highest)
        self.begin(self._say_alive, "nvmelm-alive")
        return self.version

    def begin(self, do: Callable[[], None], name: str) -> None:
        """Do something that uses this link in a thread of its own, which :meth:`close` waits for.

        Raises:
            HostError: no thread is to be had.
        """
        thread = threading.Thread(target=do, name=name, daemon=True)
        begin(thread)
        self._threads.append(thread)

    def hurry(self, seconds: float) -> None:
        """Give what is being sent, and what will be, so long; after that the link is cut in the middle of a frame."""
        self._sent_by = time.monotonic() + seconds

    def send(self, kind: int, payload: Buffer, stream: int = 0) -> None:
        """Send one frame, from any thread.

        Raises:
            LinkLostError: it could not be sent; whether the other side has got it is not known.
        """
        header = FrameHeader.pack(kind=kind, stream=stream, length=len(payload))
        with self._writing:
            self._write(header, payload)

    def receive(self, *, deadline_s: float | None = None) -> Frame | None:
        """Return the next frame; None when :meth:`wake` was called first.

        Args:
            deadline_s: seconds until a frame must be there, whole, whatever else comes; None: no such limit. After such
                an end the link is of no more use: half a frame may be left in it.

        Raises:
            LinkLostError: the other side ended or is silent.
            MalformedError: what it sent is no frame.
        """
        until = None if deadline_s is None else time.monotonic() + deadline_s
        try:
            with self._incoming, self._waker.reading:  # whoever closes the link meanwhile wakes this thread
                return self._next_frame(until)
        except DescriptorClosedError as error:
            raise self._cut("it was closed here") from error

    def _next_frame(self, until: float | None) -> Frame | None:
        while True:
            if not self._ahead and not self._readable(until):
                self._waker.rest()
                return None
            header = self._read_header(until)
            kind, length = header.kind, header.length
            if header.zero or length > LIMITS.get(kind, -1):
                cause = f"kind {kind}, {length} bytes"
                raise MalformedError(f"{self.peer} sent what is no frame", cause=cause, reason="protocol")
            payload = self._read(length, until, ahead=kind == DATA)
            if kind != ALIVE:
                return Frame(kind, header.stream, payload)

    def pending(self) -> bool:
        """Return whether something has arrived, or the link was cut; :meth:`receive` then says which."""
        try:
            with self._incoming as incoming:
                return bool(self._ahead) or _poll(incoming, select.POLLIN, 0)
        except DescriptorClosedError:
            return True

    def wake(self) -> None:
        """Let :meth:`receive` return, from another thread; nobody waits any more on a link that is closed."""
        self._waker.wake()

    def close(self) -> None:
        """Close both directions and wait for the threads that were begun here; a second time does nothing."""
        with held_back():
            self._closing.set()
            self._waker.wake()
            for descriptor in (self._incoming, self._outgoing, self._waker):
                descriptor.close()
            for thread in self._threads:
                thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _say_alive(self) -> None:
        """Send a sign of life now and then; a link that cannot take one is found lost by whoever uses it."""
        while not self._closing.wait(min(self._silence_s, SILENCE_S) / _ALIVE_PER_SILENCE):
            if self._writing.acquire(blocking=False):  # whoever is sending is alive
                try:
                    self._write(FrameHeader.pack(kind=ALIVE))
                except LinkLostError:
                    return
                finally:
                    self._writing.release()

    def _readable(self, until: float | None) -> bool:
        """Wait for input; False when it was woken."""
        silent_at = time.monotonic() + self._silence_s
        deadline = silent_at if until is None else min(until, silent_at)
        left_s = deadline - time.monotonic()
        if left_s < 0:
            raise self._late()
        with self._incoming as incoming, self._waker.reading as waker:
            poller = select.poll()
            poller.register(incoming, select.POLLIN)
            poller.register(waker, select.POLLIN)
            ready = {descriptor for descriptor, _ in poller.poll(left_s * 1000)}
            if not ready:
                raise self._late() if deadline == until else self._silent("does not answer")
            return incoming in ready

    def _read_preamble(self) -> bytearray:
        """Read the other side's first bytes; what a login script printed instead is shown."""
        seen = bytearray()
        while len(seen) < Preamble.size and MAGIC.startswith(bytes(seen[: len(MAGIC)])):
            seen += self._read(1)
        if bytes(seen[: len(MAGIC)]) != MAGIC:
            with contextlib.suppress(LinkLostError):  # some more of it, for the message
                while len(seen) < 80 and b"\n" not in seen and self.pending():
                    seen += self._read(1)
            raise MalformedError(
                f"{self.peer} is no nvmelm: it said '{harmless(bytes(seen).strip())}'",
                cause="a login script that prints something, or another program, answers there",
                fix="try: ssh HOST nvmelm --version; it must print its version and nothing else",
                reason="protocol",
            )
        return seen

    def _read_header(self, until: float | None) -> FrameHeader:
        ahead, self._ahead = self._ahead, b""
        return FrameHeader(ahead + self._read(FrameHeader.size - len(ahead), until))

    def _read(self, length: int, until: float | None = None, *, ahead: bool = False) -> memoryview:
        """Read exactly so many bytes, with no copy but the one out of the pipe.

        Args:
            ahead: something follows; its header is taken along as far as it is there.
        """
        whole = left = self._buffers.take(length)
        header = bytearray(FrameHeader.size if ahead else 0)
        while left:
            got = self._read_some(left, header)
            if got > len(left):
                self._ahead = bytes(header[: got - len(left)])
            left = left[got:]
            if until is not None and left and time.monotonic() > until:
                raise self._late()
        return whole

    def _read_some(self, *views: memoryview | bytearray) -> int:
        while True:
            try:
                try:
                    with self._incoming as incoming:
                        got = os.readv(incoming, views)
                except BlockingIOError:
                    self._await_input()  # it may be closed between the two as well
                    continue
            except DescriptorClosedError as error:
                raise self._cut("it was closed here") from error
            except OSError as error:
                raise self._cut(error.strerror or "") from error
            if not got:
                raise self._cut("its end was closed")
            return got

    def _await_input(self) -> None:
        """Wait for the rest of what has begun to arrive; nobody waits for it once the link is being closed."""
        silent_at = time.monotonic() + self._silence_s
        with self._incoming as incoming:
            while not _poll(incoming, select.POLLIN, min(_LOOKS_UP_S, self._silence_s)):
                if self._closing.is_set():
                    raise self._cut("it is being closed here")
                if time.monotonic() >= silent_at:
                    raise self._silent("does not answer") from None

    def _write(self, *pieces: Buffer) -> None:
        """Write all of them; after a failure nothing may follow, since half a frame may be out."""
        if self._broken is not None:
            raise LinkLostError(self._broken.message, cause=self._broken.cause)
        left = [memoryview(piece) for piece in pieces if len(piece)]
        try:
            while left:
                count = self._write_some(left)
                while left and count >= len(left[0]):
                    count -= len(left.pop(0))
                if count:
                    left[0] = left[0][count:]
        except LinkLostError as error:
            self._broken = error
            raise
        except BaseException:  # Ctrl-C, say: what is sent next must not become the rest of this frame
            self._broken = self._cut("a frame was not sent to its end")
            raise

    def _write_some(self, views: Sequence[memoryview]) -> int:
        try:
            try:
                with self._outgoing as outgoing:
                    count = os.writev(outgoing, views)
            except BlockingIOError:
                self._await_room()  # it may be closed between the two as well
                return 0
        except DescriptorClosedError as error:
            raise self._cut("it was closed here") from error
        except OSError as error:  # or no descriptor is to be had to wait with
            raise self._cut(error.strerror or "") from error
        self.sent_bytes += count
        return count

    def _await_room(self) -> None:
        """Wait until more can be sent. A device there may take its time: what arrives says that the other side lives.

        Nobody may be reading just now, so what arrives is not taken, only noticed.
        """
        with self._incoming as incoming, self._outgoing as outgoing:
            if _poll(outgoing, select.POLLOUT, min(_LOOKS_UP_S, self._silence_s)):
                return
            with select.epoll() as changes:
                wanted = {incoming: select.EPOLLIN}
                wanted[outgoing] = wanted.get(outgoing, 0) | select.EPOLLOUT  # a socket is both
                for descriptor, events in wanted.items():
                    changes.register(descriptor, events | select.EPOLLET)
                self._await_change(changes, incoming, outgoing)

    def _await_change(self, changes: select.epoll, incoming: int, outgoing: int) -> None:
        silent_at = time.monotonic() + self._silence_s
        while (now := time.monotonic()) < silent_at:
            if self._closing.is_set():
                raise self._cut("it is being closed here")
            if self._sent_by is not None and now >= self._sent_by:
                raise self._cut("what was being sent was given up here")
            events = dict(changes.poll(min(_LOOKS_UP_S, self._silence_s)))
            if events.get(outgoing, 0) & ~select.EPOLLIN:
                return  # there is room, or an end that writing tells
            if events.get(incoming, 0) & select.EPOLLIN:
                silent_at = time.monotonic() + self._silence_s
        raise self._silent("does not take what is sent")

    def _late(self) -> LinkLostError:
        return LinkLostError(f"{self.peer} does not answer", cause="what it was asked for did not come in time")

    def _silent(self, what: str) -> LinkLostError:
        return LinkLostError(f"{self.peer} {what}", cause=f"nothing moved for {self._silence_s:g} s")

    def _cut(self, cause: str) -> LinkLostError:
        return LinkLostError(f"the link to {self.peer} was cut", cause=cause)


def _poll(descriptor: int, events: int, timeout_s: float) -> bool:
    poller = select.poll()
    poller.register(descriptor, events)
    return bool(poller.poll(timeout_s * 1000))


def _widen(descriptor: int) -> None:
    """Give a pipe more room than the 64 KiB it has; what is no pipe stays as it is."""
    with contextlib.suppress(OSError):
        fcntl.fcntl(descriptor, _F_SETPIPE_SZ, _PIPE_BYTES)


def _span(lowest: int, highest: int) -> str:
    return str(lowest) if lowest == highest else f"{lowest} to {highest}"
