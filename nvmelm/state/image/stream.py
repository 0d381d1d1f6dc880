"""A state image that arrives piece by piece, and goes into a controller while it arrives.

The rule of :mod:`nvmelm.state.image.reader` holds here too: no state is *committed* before all of it was proven.
The last part is held back until the trailer is there and the digest is right; a state that fits one part is proven
before the device sees a byte of it. What never gets its last part is forgotten by the device.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from hmac import compare_digest

from nvmelm.state.image.checks import check_prefix, check_state, check_trailer, parse_header, refuse
from nvmelm.state.image.digest import DIGEST_BYTES, SHA256, begin, finished
from nvmelm.state.image.format import END_MAGIC, ImageHeader, Prefix, Proof, Trailer
from nvmelm.state.image.reader import Part
from nvmelm.wire.layout import Buffer
from nvmelm.wire.migration import ControllerStateHeader, NvmeStateHeader

Receive = Callable[[], Buffer | None]
"""Returns the next piece of the image, of any length, or None when the sender says that it ended."""

_HEAD = ControllerStateHeader.size + NvmeStateHeader.size


class TailDigest:
    """The digest of a stream that ends with it.

    Whoever receives the pieces feeds them, which may be another thread than the one that uses them.

    Args:
        name: of the digest; see :mod:`nvmelm.state.image.digest`.
    """

    def __init__(self, name: str = SHA256) -> None:
        self._hash = begin(name)
        self._tail = b""

    def update(self, piece: Buffer) -> None:
        """Take the next piece; the last 32 bytes of all pieces are held back."""
        if len(piece) >= DIGEST_BYTES:
            self._hash.update(self._tail)
            self._hash.update(memoryview(piece)[:-DIGEST_BYTES])
            self._tail = bytes(memoryview(piece)[-DIGEST_BYTES:])
            return
        joined = self._tail + bytes(piece)
        self._hash.update(joined[:-DIGEST_BYTES])
        self._tail = joined[-DIGEST_BYTES:]

    def right(self) -> bool:
        """Return whether the stream ends with its own digest."""
        return compare_digest(self._tail, self.value)

    @property
    def value(self) -> bytes:
        """Return the digest of all but the last 32 bytes."""
        return finished(self._hash)


class StreamedImage:
    """An image whose header has arrived.

    Args:
        receive: gives the pieces; it may block.
        name: what it is called in messages.
        digest: fed with every piece by whoever receives them; None: it is done here.

    Attributes:
        header: the image's header.
        proven: the image's digest, once the last part was yielded.
        proof: how it is known that the controller was suspended, likewise.
        waited_s: seconds spent waiting for pieces.
    """

    def __init__(self, receive: Receive, name: str, *, digest: TailDigest | None = None) -> None:
        self.name = name
        self.proven = b""
        self.proof = Proof(0)
        self.waited_s = 0.0
        self._receive = receive
        self._fed = digest is not None
        self._digest = digest or TailDigest()
        self._pending = memoryview(b"")
        self._taken = 0
        self._kept: list[Part] | None = None
        prefix = check_prefix(bytes(self._take(Prefix.size)), name)
        self.header: ImageHeader = parse_header(bytes(self._take(prefix.header_bytes)), name)

    def parts(self, limit: int) -> Iterator[Part]:
        """Yield the controller state in parts of at most ``limit`` bytes (at least 56); the last when all is proven.

        A state that came in one part is kept, and can be had again; a longer one has to be sent again.

        Raises:
            ImageError: it is not whole, not unaltered, or not proven; the last part was not yielded.
        """
        if self._kept is not None:
            return iter(self._kept)
        return self._arriving(limit)

    def _arriving(self, limit: int) -> Iterator[Part]:
        total = self.header.state_bytes
        for offset in range(0, total, limit):
            # No name for it here: its memory is used again once the caller lets go of it.
            yield self._part(offset, min(limit, total - offset))

    def _part(self, offset: int, length: int) -> Part:
        data = self._take(length)
        if offset == 0:
            check_state(bytes(data[:_HEAD]), self.header, self.name)
        part = Part(offset, data, offset + length == self.header.state_bytes)
        if part.last:
            self._prove()
            self._kept = [part] if offset == 0 else []
        return part

    def _prove(self) -> None:
        """Take the trailer and check it, and that nothing comes behind it."""
        counted = self._taken + Trailer.size
        trailer = Trailer(bytes(self._take(Trailer.size)))
        if self._pending or self._receive() is not None:
            raise refuse("image-trailing-data", f"{self.name} is longer than the image in it")
        if trailer.magic != END_MAGIC or not self._digest.right():
            raise refuse("image-altered", f"{self.name} was altered", "its digest is another one")
        self.proof = check_trailer(trailer, self.header, counted, self.name)
        self.proven = self._digest.value

    def _take(self, length: int) -> memoryview:
        """Return exactly so many bytes of the image; without copying where one piece has them all."""
        piece = self._next(length)
        if len(piece) < length:
            whole = bytearray(piece)
            while len(whole) < length:
                whole += self._next(length - len(whole))
            piece = memoryview(whole)
        self._taken += length
        return piece

    def _next(self, most: int) -> memoryview:
        while not self._pending:
            before = time.monotonic()
            received = self._receive()
            self.waited_s += time.monotonic() - before
            if received is None:
                raise refuse("image-truncated", f"{self.name} ends early", "the sender stopped in the middle of it")
            if not self._fed:
                self._digest.update(received)
            self._pending = memoryview(received)
        piece = self._pending[:most]
        # Nothing of a piece that is used up is kept, not even a view of none of its bytes.
        self._pending = self._pending[most:] if most < len(self._pending) else memoryview(b"")
        return piece
