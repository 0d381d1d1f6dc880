"""States on the link: an image written as data frames, and an image read from them.

Reading a device, sending, receiving and setting overlap: each end has one thread that moves and hashes bytes and one
that talks to its device, with a few pieces between them, so that memory stays bounded whatever the size of a state.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from typing import Self

from nvmelm.errors import LinkLostError
from nvmelm.migrate.link.frames import Link
from nvmelm.migrate.link.layout import DATA, MAX_DATA_BYTES
from nvmelm.state.image.digest import begin, finished
from nvmelm.state.image.stream import TailDigest
from nvmelm.wire.layout import Buffer

#: Pieces between two threads: one being written, one ready, one being made.
_PIECES = 2
#: Images up to this size are one frame.
SMALL_BYTES = 256 * 1024


class LinkSink:
    """Where an image goes: the :class:`~nvmelm.state.image.format.Sink` that sends it.

    A small image is one frame. A larger one has the wire for itself.

    Args:
        stream: number of the stream; each transfer has its own.
        wire: held while a larger image is sent.
        stopped: set once nobody wants the image any more.
    """

    def __init__(self, link: Link, stream: int, wire: threading.Lock, stopped: threading.Event) -> None:
        self.stream = stream
        self._stopped = stopped
        self._link = link
        self._wire = wire
        self._gathered: list[Buffer] = []
        self._gathered_bytes = 0
        self._large = False

    def write(self, data: Buffer) -> None:
        """Send some bytes of the image; those of a small one when it is complete.

        Raises:
            LinkLostError: the link was cut.
        """
        self._gathered.append(data)
        self._gathered_bytes += len(data)
        if self._large or self._gathered_bytes > SMALL_BYTES:
            if not self._large:
                self._wire.acquire()
                self._large = True
            self._send()

    def commit(self) -> None:
        """Send what was gathered: the whole of a small image."""
        if self._gathered:
            self._gathered = [b"".join(self._gathered)]
            self._send()

    def close(self) -> None:
        """Let the wire go; what was not committed has no end, and the other side drops it."""
        if self._large:
            self._wire.release()
            self._large = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _send(self) -> None:
        """Send each piece as frames of its own, so that the parts of a state stay whole on their way."""
        for piece in self._gathered:
            view = memoryview(piece)
            for offset in range(0, len(view), MAX_DATA_BYTES):
                if self._stopped.is_set():
                    raise LinkLostError(f"{self._link.peer} gets no more of a state", cause="the move was given up")
                self._link.send(DATA, view[offset : offset + MAX_DATA_BYTES], self.stream)
        self._gathered.clear()


class Arriving:
    """The pieces of one stream between the thread that receives them and the one that uses them.

    Args:
        digest: the one the session agreed on.

    Attributes:
        digest: of what has arrived; complete when :meth:`get` has returned None.
    """

    def __init__(self, digest: str) -> None:
        self.digest = TailDigest(digest)
        self._pieces: queue.SimpleQueue[Buffer | None] = queue.SimpleQueue()
        self._room: queue.SimpleQueue[None] = queue.SimpleQueue()  # one for each piece there is room for
        for _ in range(_PIECES):
            self._room.put(None)
        self._unwanted = threading.Event()

    def put(self, piece: Buffer) -> None:
        """Hand a piece over; it waits while enough are there, and drops the piece when nobody wants it any more."""
        self.digest.update(piece)
        self._put(piece)

    def end(self) -> None:
        """Say that nothing more comes."""
        self._put(None)

    def get(self) -> Buffer | None:
        """Return the next piece, or None at the end."""
        piece = self._pieces.get()
        self._room.put(None)
        return piece

    def unwanted(self) -> None:
        """Say that nobody reads any more."""
        self._unwanted.set()
        with contextlib.suppress(queue.Empty):
            while True:
                self._pieces.get_nowait()
                self._room.put(None)

    def abandon(self) -> None:
        """Let a reader that waits for more see the end."""
        self.unwanted()
        self._pieces.put(None)

    def _put(self, piece: Buffer | None) -> None:
        while not self._unwanted.is_set():
            try:
                self._room.get(timeout=1.0)
            except queue.Empty:
                continue
            self._pieces.put(piece)
            return


class Rehearsal:
    """A dry transfer: counted and hashed, and thrown away.

    Args:
        digest: the one the session agreed on.
    """

    def __init__(self, digest: str) -> None:
        self.bytes = 0
        self._digest = begin(digest)

    def write(self, data: Buffer) -> None:
        """Count some bytes."""
        self.bytes += len(data)
        self._digest.update(data)

    @property
    def digest(self) -> str:
        """Return the digest of what has passed, in hexadecimal."""
        return finished(self._digest).hex()
