"""Read a state image, and let nobody use a byte of it that is not proven.

An image is read twice. The first pass checks everything: layout, lengths, digest, the proof of suspension, and that the
state's own sizes agree. The second, while the state is being sent, computes the digest again and holds the last part
back until it is right: a file that was changed between the passes is never committed by a device. A pipe can be read
once only, so it is first copied to a file without a name.

Every refusal is an :class:`~nvmelm.errors.ImageError` with one of these reasons:

=========================  ==================================================================
image-foreign              not a state image
image-newer                of a format version this program does not know
image-truncated            it ends early
image-altered              it is not what was written: digest, magic or header do not fit
image-trailing-data        something stands behind its end
image-sizes-disagree       header, trailer and controller state say different sizes
image-not-suspended        not proven that the controller was suspended while it was read
=========================  ==================================================================
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from pydantic import ValidationError

from nvmelm.disk.atomic import unnamed_file
from nvmelm.errors import ImageError, UsageError, host_error
from nvmelm.state.image.format import (
    END_MAGIC,
    FORMAT_VERSION,
    KNOWN_PROOF,
    MAGIC,
    MAX_HEADER_BYTES,
    REQUIRED_PROOF,
    STANDARD,
    TRAILER_HASHED,
    ImageHeader,
    Prefix,
    Proof,
    Trailer,
)
from nvmelm.wire.migration import KNOWN_VERSION, ControllerStateHeader, NvmeControllerState, NvmeStateHeader

MiB = 1 << 20
_BLOCK = 1 * MiB
#: 65535 queues of either kind: more NVMe state than this no controller has.
_MAX_NVME_BYTES = 8 + 24 * 2 * 0xFFFF

#: What a pipe's image leaves free on the disk: what nvmelm remembers is there too.
_LEFT_BYTES = 64 * MiB

_SAVE_AGAIN = "save the state again, or use another copy of the image"


def refuse(reason: str, message: str, cause: str = "", fix: str = _SAVE_AGAIN) -> ImageError:
    """Return the error of an image that may not be used."""
    return ImageError(message, cause=cause, fix=fix, reason=reason)


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
        _require_possible(self.header, self.name)
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


def _not_suspended(name: str) -> ImageError:
    return refuse(
        "image-not-suspended",
        f"{name} was not read from a suspended controller",
        "a controller that runs changes its state while it is read",
        "suspend the controller, then save its state again",
    )


def check_prefix(raw: bytes, name: str) -> Prefix:
    """Read an image's first 16 bytes.

    Raises:
        ImageError: foreign, newer or truncated.
    """
    if not raw or not MAGIC.startswith(raw[: len(MAGIC)]):
        cause = "it does not begin as an image begins" if raw else "it is empty"
        raise refuse("image-foreign" if raw else "image-truncated", f"{name} is not a state image", cause)
    if len(raw) < Prefix.size:
        raise refuse("image-truncated", f"{name} ends inside its first 16 bytes")
    prefix = Prefix(raw)
    if prefix.version > FORMAT_VERSION:
        cause = f"it has format version {prefix.version}, and this program knows {FORMAT_VERSION}"
        raise refuse("image-newer", f"{name} was written by a newer nvmelm", cause, "use that version to read it")
    if prefix.version == 0 or not 1 <= prefix.header_bytes <= MAX_HEADER_BYTES:
        raise refuse("image-altered", f"{name} was altered", "its first 16 bytes are impossible")
    return prefix


def parse_header(raw: bytes, name: str) -> ImageHeader:
    """Read an image's JSON header.

    Raises:
        ImageError: it is not one.
    """
    try:
        return ImageHeader.model_validate_json(raw, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"]))[:60]
        cause = f"its header cannot be read: {where or 'document'}: {first['msg'][:120]}"
        raise refuse("image-altered", f"{name} was altered", cause) from error


def check_trailer(trailer: Trailer, header: ImageHeader, image_bytes: int, name: str) -> Proof:
    """Check what stands behind a state, all but its digest.

    Args:
        image_bytes: the length of the image as it was counted.

    Raises:
        ImageError: no proof of suspension, other sizes, or of a newer kind.
    """
    if trailer.proof & ~int(KNOWN_PROOF) or trailer.reserved:  # ~ of an IntFlag knows no other bits
        raise refuse("image-newer", f"{name} was written by a newer nvmelm", fix="use that version to read it")
    if (trailer.state_bytes, trailer.image_bytes) != (header.state_bytes, image_bytes):
        raise refuse("image-sizes-disagree", f"{name}: header and trailer announce different sizes")
    proof = Proof(trailer.proof)
    if proof & REQUIRED_PROOF != REQUIRED_PROOF:
        raise _not_suspended(name)
    return proof


def check_state(head: bytes, header: ImageHeader, name: str) -> ControllerStateHeader:
    """Compare the beginning of a controller state, its header and the NVMe part's, with what the image announces.

    Raises:
        ImageError: it was not suspended, or the sizes disagree.
    """
    state = ControllerStateHeader(head[: ControllerStateHeader.size])
    if state.ver != KNOWN_VERSION:
        cause = f"the Controller State structure has version {state.ver}"
        raise refuse("image-newer", f"{name} holds a state of a newer kind", cause, "use a newer nvmelm")
    if not state.suspended:
        raise _not_suspended(name)
    if (state.nvme_bytes, state.vendor_bytes) != (header.nvme_bytes, header.vendor_bytes):
        raise refuse("image-sizes-disagree", f"{name}: the header and the state in it have different sizes")
    check_nvme_size(head[ControllerStateHeader.size :][: header.nvme_bytes], header, name)
    return state


def check_nvme_size(head: bytes, header: ImageHeader, name: str) -> None:
    """Compare the queue counts at the head of an NVMe Controller State with its size.

    Raises:
        ImageError: they do not agree.
    """
    if header.state_version is None:
        return
    if len(head) < NvmeStateHeader.size or NvmeStateHeader(head).ver != header.state_version:
        raise refuse("image-sizes-disagree", f"{name}: the NVMe state is not of version {header.state_version}")
    if header.state_version == KNOWN_VERSION and NvmeStateHeader(head).total_bytes != header.nvme_bytes:
        raise refuse("image-sizes-disagree", f"{name}: the queues of the NVMe state do not fill it")


def open_image(source: Path, *, spool_directory: Path, fits: Callable[[ImageHeader], None] = _anything) -> Image:
    """Open and verify an image.

    Args:
        source: a file, a pipe, or ``-`` for standard input.
        spool_directory: where a pipe is kept (0600, without a name) while it is used.
        fits: raises when a state of such a header is not wanted; a pipe is not copied then.

    Raises:
        ImageError: it may not be used; the reason says why.
        UsageError: a terminal or a directory.
        HostError: it cannot be read, or the spool directory is full.
    """
    if source == STANDARD:
        # A file object of its own: what Python may have read ahead of sys.stdin would be missing.
        with open(0, "rb", closefd=False) as stream:
            return _from_stream(stream, "standard input", spool_directory, fits)
    try:
        descriptor = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY)
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
    with os.fdopen(descriptor, "rb") as stream:
        return _from_stream(stream, str(source), spool_directory, fits)


def _from_stream(stream: BinaryIO, name: str, directory: Path, fits: Callable[[ImageHeader], None]) -> Image:
    """Copy a pipe to a file without a name and verify that."""
    if stream.isatty():
        raise UsageError(
            "a state image is not read from a terminal", fix="name a file, or pipe one in", reason="terminal"
        )
    descriptor = unnamed_file(directory)
    try:
        _spool(stream, name, descriptor, directory, fits)
    except BaseException:
        os.close(descriptor)
        raise
    return Image(descriptor, name)


def _spool(stream: BinaryIO, name: str, descriptor: int, directory: Path, fits: Callable[[ImageHeader], None]) -> None:
    """Copy exactly one image; its first bytes are checked before any room is taken for the rest."""
    head = _read(stream, name, Prefix.size)
    prefix = check_prefix(head, name)
    document = _read(stream, name, prefix.header_bytes)
    if len(document) < prefix.header_bytes:
        raise refuse("image-truncated", f"{name} ends inside its header")
    header = parse_header(document, name)
    _require_possible(header, name)
    fits(header)
    left = header.state_bytes + Trailer.size
    block = _read(stream, name, min(left, _BLOCK))
    if len(block) == min(left, _BLOCK):  # otherwise it ends here, which is said below
        _require_room(left, descriptor, name, directory)
    _keep(head + document, descriptor, directory)
    while left:
        if not block:
            raise refuse("image-truncated", f"{name} is truncated", f"{left} bytes are missing at its end")
        _keep(block, descriptor, directory)
        left -= len(block)
        block = _read(stream, name, min(left, _BLOCK))
    if _read(stream, name, 1):
        raise refuse("image-trailing-data", f"{name} is longer than the image in it")


def _require_possible(header: ImageHeader, name: str) -> None:
    """Refuse what no controller has: its queues are counted by 16 bits.

    Raises:
        ImageError: it announces more.
    """
    if header.nvme_bytes > _MAX_NVME_BYTES:
        raise refuse("image-sizes-disagree", f"{name}: {header.nvme_bytes} bytes of NVMe state are too many")


def _require_room(length: int, descriptor: int, name: str, directory: Path) -> None:
    """Refuse an image for which there is no room, before the disk is full of it.

    Raises:
        HostError: sessions and journals, which are on this disk, would find no room either.
    """
    disk = os.fstatvfs(descriptor)
    room = disk.f_bavail * disk.f_frsize - _LEFT_BYTES
    if length <= room:
        return
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    fix = "save the image to a file and name that: a file is not copied"
    raised = host_error("cannot keep the image while it is verified", str(directory), full, fix=fix)
    raised.cause = f"{name} announces {length} bytes, and there is room for {max(room, 0)}"
    raise raised


def _read(stream: BinaryIO, name: str, length: int) -> bytes:
    try:
        return stream.read(length)
    except OSError as error:
        raise host_error("cannot read the image", name, error) from error


def _keep(data: bytes, descriptor: int, directory: Path) -> None:
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(descriptor, view) :]
    except OSError as error:
        raise host_error("cannot keep the image while it is verified", str(directory), error) from error
