"""One function that a VMM has open: its calls in order, its registers, its stream.

Calls of one function run one at a time, in a thread of its own, so that an arc that takes seconds holds up nobody else;
what is answered from memory is answered at once when nothing is under way.

The VMM's device must close when the VMM closes it, or a VF that was unplugged would stay busy. So no copy of its
descriptor outlives a call, but for the one that a running stream needs: the VM stands still then.
"""

from __future__ import annotations

import errno
import os
import queue
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Protocol, cast

from nvmelm.interposer.kernel import BAR0, CONFIG, Kernel
from nvmelm.interposer.streams import IncomingStream, OutgoingStream, Stream
from nvmelm.vfio.seam import DeviceState, Function, Incoming, LogRange, Outgoing, Refusal

#: Registers of a PCI function are little-endian on every host: a double word, a word of the configuration space.
_WORD = struct.Struct("<I")
_HALF_WORD = struct.Struct("<H")
#: PCI Local Bus Specification, configuration space header: the Command register.
_PCI_COMMAND = 4

_CUT_OFF = "nvmelm was started anew while the state was on its way; the stream is not whole"
#: States in which data_fd carries something.
_STREAMING = (DeviceState.STOP_COPY, DeviceState.RESUMING)
#: What a VMM asks for when its VM is to start.
_STARTED = (DeviceState.RUNNING_P2P, DeviceState.RUNNING)


class Access:
    """The registers and vectors of a function, through whatever copy of its descriptor is at hand.

    Both are reachable from the thread that answers a call of the function, while it does, and from anywhere while a
    stream runs; EIO otherwise.
    """

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._call = threading.local()
        self._kept = -1
        self._offsets: dict[int, int] = {}

    @contextmanager
    def through(self, fd: int) -> Iterator[None]:
        """Reach the function through a descriptor, from this thread, while the block lasts."""
        self._call.fd = fd
        try:
            yield
        finally:
            self._call.fd = -1

    def keep(self) -> None:
        """Keep a copy of the descriptor at hand until :meth:`let_go`."""
        if self._kept < 0:
            self._kept = os.dup(self._at_hand())

    def let_go(self) -> None:
        """Close the copy that was kept, if one was."""
        kept, self._kept = self._kept, -1
        if kept >= 0:
            os.close(kept)

    def read32(self, offset: int) -> int:
        return self._read(_WORD, BAR0, offset)

    def write32(self, offset: int, value: int) -> None:
        self._write(_WORD, BAR0, offset, value)

    def command(self) -> int:
        return self._read(_HALF_WORD, CONFIG, _PCI_COMMAND)

    def set_command(self, value: int) -> None:
        self._write(_HALF_WORD, CONFIG, _PCI_COMMAND, value)

    def reset(self) -> None:
        self._kernel.reset(self._at_hand())

    def trigger(self) -> None:
        self._kernel.trigger(self._at_hand())

    def _read(self, layout: struct.Struct, region: int, offset: int) -> int:
        fd = self._at_hand()
        data = os.pread(fd, layout.size, self._begin(fd, region) + offset)
        if len(data) < layout.size:
            raise OSError(errno.EIO, f"region {region} ends before {offset:#x}")
        value: int = layout.unpack(data)[0]
        return value

    def _write(self, layout: struct.Struct, region: int, offset: int, value: int) -> None:
        fd = self._at_hand()
        if os.pwrite(fd, layout.pack(value), self._begin(fd, region) + offset) < layout.size:
            raise OSError(errno.EIO, f"region {region} ends before {offset:#x}")

    def _begin(self, fd: int, region: int) -> int:
        if region not in self._offsets:
            self._offsets[region] = self._kernel.region(fd, region)
        return self._offsets[region]

    def _at_hand(self) -> int:
        fd = self._kept if self._kept >= 0 else getattr(self._call, "fd", -1)
        if fd < 0:
            raise OSError(errno.EIO, "the device's descriptor is not at hand")
        return fd


class Say(Protocol):
    """Takes sentences for the journal; called from several threads."""

    def __call__(self, sentence: str, *, address: str = "") -> None:
        """Take a sentence, about a function where it has an address."""
        ...


class Device:
    """A function as one VMM has it open.

    Args:
        address: its PCI address.
        access: its registers and vectors, as the function was given them.
        reopened: the VMM has had it open since before we began; a stream that ran then is lost.
    """

    def __init__(self, address: str, function: Function, access: Access, say: Say, *, reopened: bool = False) -> None:
        self.address = address
        self._function = function
        self._access = access
        self._say = say
        self._said: Refusal | None = None
        self._lock = threading.RLock()
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._worker: threading.Thread | None = None
        self._stream: Stream | None = None
        self._lost = function.state if reopened and function.state in _STREAMING else None

    def say(self, refusal: Refusal) -> None:
        """Say why something is refused, once: a stream that breaks is said at once, and refuses the next arc, too."""
        if refusal.reason and refusal is not self._said:
            self._said = refusal
            name = errno.errorcode.get(refusal.errno, str(refusal.errno))
            self._say(f"{self.address}: {name}: {refusal.reason}", address=self.address)

    # -- order

    def at_once(self, job: Callable[[], None]) -> None:
        """Do what takes no time here, or in its turn when something is under way."""
        if self._jobs.empty() and self._lock.acquire(blocking=False):
            try:
                job()
            finally:
                self._lock.release()
        else:
            self.in_turn(job)

    def in_turn(self, job: Callable[[], None]) -> None:
        """Do something in the function's own thread, behind what was asked before; it must not raise."""
        if self._worker is None:
            self._worker = threading.Thread(target=self._work, name=self.address, daemon=True)
            self._worker.start()
        self._jobs.put(job)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            with suppress(Exception):  # its call was answered; those behind it must be, too
                job()

    @contextmanager
    def through(self, fd: int) -> Iterator[None]:
        """Reach the function's registers through a descriptor while the block lasts."""
        with self._access.through(fd):
            yield

    # -- answers

    def flags(self) -> int:
        """Return ``VFIO_MIGRATION_*`` bits."""
        with self._lock:
            return self._function.flags()

    def can_log(self) -> bool:
        """Return whether logging of writes is answered."""
        with self._lock:
            return self._function.can_log()

    @property
    def state(self) -> DeviceState:
        """The state it is in."""
        return self._function.state

    def set_state(self, state: DeviceState) -> Stream | None:
        """Take the arcs to a state; return the stream whose end the VMM is to get.

        A caller that was interrupted asks again, and gets the stream that did not reach it.

        Raises:
            Refusal: the arc is refused, or the state that was read was not whole.
        """
        self._require_stream(state)
        stream = self._stream
        if state == self.state and stream is not None and stream.theirs >= 0:
            return stream
        if state != self.state:
            self._end_stream(state)
        with self._lock:
            end = self._function.set_state(state)
        if end is None:
            return None
        self._access.keep()
        if state is DeviceState.RESUMING:
            self._stream = IncomingStream(cast("Incoming", end), self._lock, self.say)
        else:
            self._stream = OutgoingStream(cast("Outgoing", end), self._lock, self.say)
        return self._stream

    def _require_stream(self, towards: DeviceState) -> None:
        """Refuse what would believe in a stream that a restart cut off; a source may always go on running."""
        if self._lost is DeviceState.STOP_COPY and towards is DeviceState.RUNNING:
            self._lost = None
        if self._lost is not None:
            refusal = Refusal(errno.EIO, _CUT_OFF)
            refusal.ends_vm = self._lost is DeviceState.RESUMING and towards in _STARTED
            raise refusal

    def _end_stream(self, towards: DeviceState) -> None:
        stream, self._stream = self._stream, None
        if stream is None:
            return
        stream.end()
        self._access.let_go()
        if stream.refusal is not None and towards is not DeviceState.RUNNING:
            raise stream.refusal

    def data_size(self) -> int:
        """Return an estimate of the stream's length in bytes."""
        with self._lock:
            return self._function.data_size()

    def logging_start(self, ranges: Sequence[LogRange], page_size: int) -> int:
        """Begin to log writes; return the page size that is used."""
        with self._lock:
            return self._function.logging_start(ranges, page_size)

    def logging_report(self, iova: int, length: int, page_size: int) -> bytes:
        """Return a bitmap of the pages written since the last report."""
        with self._lock:
            return self._function.logging_report(iova, length, page_size)

    def logging_stop(self) -> None:
        """End the log."""
        with self._lock:
            self._function.logging_stop()

    def was_reset(self) -> None:
        """Take note that a reset succeeded."""
        self._drop_stream()
        self._lost = None
        with self._lock:
            self._function.was_reset()

    def leave(self) -> None:
        """Return when nothing of it is under way: the VMM has it, and we do not answer any more."""
        self._jobs.put(None)
        if self._worker is not None:
            self._worker.join()

    def close(self) -> None:
        """Take note that the VMM closed it, or died; return when nothing of it is under way."""
        self.leave()
        self._drop_stream()
        with self._lock:
            self._function.close()

    def _drop_stream(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.end()
            self._access.let_go()
