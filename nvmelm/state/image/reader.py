"""Read a state image, and let nobody use a byte of it that is not proven.

An image is read twice. The first pass checks everything: layout, lengths, digest, the proof of suspension, and that the
state's own sizes agree. The second, while the state is being sent, computes the digest again and holds the last part
back until it is right: a file that was changed between the passes is never committed by a device. A pipe can be read
once only, so it is first copied to a file without a name.

What each check refuses, and by which reason, stands in :mod:`nvmelm.state.image.checks`.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from nvmelm.disk.bounded import is_inherited
from nvmelm.errors import UsageError, host_error
from nvmelm.state.image.checks import (
    check_prefix,
    check_state,
    check_trailer,
    parse_header,
    refuse,
    require_possible,
)
from nvmelm.state.image.format import (
    END_MAGIC,
    STANDARD,
    TRAILER_HASHED,
    ImageHeader,
    Prefix,
    Trailer,
)
from nvmelm.state.image.spool import spool
from nvmelm.wire.migration import ControllerStateHeader, NvmeControllerState, NvmeStateHeader

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MiB = 1 << 20
_BLOCK = 1 * MiB


def _anything(_: ImageHeader) -> None:
    """Take any state."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some bytes of a controller state, and where they belong."""

    offset: int
    data: bytes | memoryview
    last: bool


class Image:
    """A verified image. Get one from :func:`open_image`, and close it.

    Attributes:
        header: the image's header.
        state: the header of the controller state.
        sha256: the image's digest.
        proof: how it is known that the controller was suspended.
        image_bytes: the length of the image.
    """

    def __init__(self, descriptor: int, name: str) -> None:
        """Take over an open regular file and verify it; the file is closed when it is refused."""
        self._descriptor = descriptor
        self.name = name
        try:
            self._verify()
        except BaseException:
            self.close()
            raise

    def _verify(self) -> None:
        self.image_bytes = os.fstat(self._descriptor).st_size
        prefix = check_prefix(self._read_at(0, min(Prefix.size, self.image_bytes)), self.name)
        self._state_at = Prefix.size + prefix.header_bytes
        if self.image_bytes < self._state_at:
            raise refuse("image-truncated", f"{self.name} ends inside its header")
        self.header = parse_header(self._read_at(Prefix.size, prefix.header_bytes), self.name)
        self._check_length()
        trailer = Trailer(self._read_at(self._state_at + self.header.state_bytes, Trailer.size))
        if trailer.magic != END_MAGIC:
            raise refuse("image-altered", f"{self.name} was altered", "its end is not the end of an image")
        self.sha256 = trailer.digest
        for _ in self._hashed(_BLOCK):
            pass  # the digest is checked when the last block has been read
        self._check_trailer(trailer)
        self._check_state()

    def _check_length(self) -> None:
        expected = self._state_at + self.header.state_bytes + Trailer.size
        if self.image_bytes < expected:
            cause = f"it has {self.image_bytes} of {expected} bytes"
            raise refuse("image-truncated", f"{self.name} is truncated", cause)
        if self.image_bytes > expected:
            cause = f"{self.image_bytes - expected} bytes stand behind its end"
            raise refuse("image-trailing-data", f"{self.name} is longer than the image in it", cause)

    def _check_trailer(self, trailer: Trailer) -> None:
        self.proof = check_trailer(trailer, self.header, self.image_bytes, self.name)

    def _check_state(self) -> None:
        """Compare the controller state's own words with the header's."""
        head = self._read_at(self._state_at, ControllerStateHeader.size) + self._nvme_head()
        self.state = check_state(head, self.header, self.name)

    def _nvme_head(self) -> bytes:
        length = min(self.header.nvme_bytes, NvmeStateHeader.size)
        return self._read_at(self._state_at + ControllerStateHeader.size, length)

    def parts(self, limit: int) -> Iterator[Part]:
        """Yield the controller state in parts of at most ``limit`` bytes (a multiple of 4); the last one when proven.

        Raises:
            ImageError: the file was changed since it was opened; the last part was not yielded.
        """
        return self._hashed(limit)

    def _hashed(self, limit: int) -> Iterator[Part]:
        digest = hashlib.sha256(self._read_at(0, self._state_at))
        total = self.header.state_bytes
        for offset in range(0, total, limit):
            data = self._read_at(self._state_at + offset, min(limit, total - offset))
            digest.update(data)
            last = offset + len(data) == total
            if last:
                digest.update(self._read_at(self._state_at + total, TRAILER_HASHED))
                self._check_digest(digest.digest())
            yield Part(offset, data, last)

    def _check_digest(self, digest: bytes) -> None:
        if digest != self.sha256:
            raise refuse("image-altered", f"{self.name} was altered", "its SHA-256 digest is another one")

    def nvme_state(self) -> NvmeControllerState | None:
        """Return the NVMe part, None when there is none.

        Raises:
            ImageError: it is larger than any controller's.
            MalformedError: its version is not understood, or its queues do not fit.
        """
        if self.header.nvme_bytes == 0:
            return None
        require_possible(self.header, self.name)
        raw = self._read_at(self._state_at + ControllerStateHeader.size, self.header.nvme_bytes)
        return NvmeControllerState.parse(raw)

    def vendor_sha256(self) -> bytes:
        """Return the digest of the vendor specific data alone."""
        digest = hashlib.sha256()
        start = self._state_at + ControllerStateHeader.size + self.header.nvme_bytes
        end = start + self.header.vendor_bytes
        for at in range(start, end, _BLOCK):
            digest.update(self._read_at(at, min(_BLOCK, end - at)))
        return digest.digest()

    def _read_at(self, offset: int, length: int) -> bytes:
        """Return exactly ``length`` bytes of the file."""
        pieces = []
        try:
            while length and (piece := os.pread(self._descriptor, length, offset)):
                pieces.append(piece)
                offset, length = offset + len(piece), length - len(piece)
        except OSError as error:
            raise host_error("cannot read the image", self.name, error) from error
        if length:
            raise refuse("image-truncated", f"{self.name} became shorter while it was read")
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_image(source: Path, *, spool_directory: Path, fits: Callable[[ImageHeader], None] = _anything) -> Image:
    """Open and verify an image.

    Args:
        source: a file, a pipe, or ``-`` for standard input.
        spool_directory: where a pipe is kept (0600, without a name) while it is used.
        fits: raises when a state of such a header is not wanted; a pipe is not copied then.

    Raises:
        ImageError: it may not be used; the reason says why.
        UsageError: a terminal, a directory, or a named pipe that nobody has open to write.
        HostError: it cannot be read, or the spool directory is full.
    """
    if source == STANDARD:
        # A file object of its own: what Python may have read ahead of sys.stdin would be missing.
        with open(0, "rb", closefd=False) as stream:
            return Image(spool(stream, "standard input", spool_directory, fits), "standard input")
    try:
        descriptor = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError as error:
        raise host_error("cannot read the image", str(source), error, fix="check the file's name") from error
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        image = Image(descriptor, str(source))
        try:
            fits(image.header)
        except BaseException:
            image.close()
            raise
        return image
    if not (stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)):
        os.close(descriptor)
        raise UsageError(f"{source} is not a file", fix="name the image's file")
    with _Stream(descriptor) as raw, io.BufferedReader(raw) as stream:
        if stat.S_ISFIFO(mode) and not stream.peek(1) and raw.ended and not is_inherited(str(source)):
            fix = f"start what writes into {source} first, or give its output as -"
            cause = "it would be waited for as long as nobody does"
            raise UsageError(f"nobody writes into the pipe {source}", cause=cause, fix=fix, reason="arguments")
        os.set_blocking(descriptor, True)
        return Image(spool(stream, str(source), spool_directory, fits), str(source))


class _Stream(io.FileIO):
    """A pipe that tells its end (nobody has it open to write) from a writer that has written nothing yet."""

    ended = False

    def readinto(self, buffer: WriteableBuffer, /) -> int | None:  # None: nothing yet
        """Read what is there, without waiting while the descriptor does not block."""
        count: int | None = super().readinto(buffer)
        self.ended = count == 0
        return count
