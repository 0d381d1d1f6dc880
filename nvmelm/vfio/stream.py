r"""What travels in a VM's migration for one controlled function: what its state does not carry, then the state image.

::

    +-------+--------------------------------------------------------------------------------------+
    |     0 | magic             89 4E 56 4D 45 56 4D 0A  (.NVMEVM\n)                               |
    |     8 | format version    4 bytes; 2                                                         |
    |    12 | header length H   4 bytes; 1 to 262144                                               |
    |    16 | header            H bytes; one JSON document, UTF-8                                  |
    |  16+H | SHA-256           32 bytes; of every byte before this one                            |
    |  48+H | state image       as in a file (:mod:`nvmelm.state.image.format`); none of a controller |
    |       |                   that is off. The header says its length and its id               |
    |   ... | padding           zeros; the header says how many, 131072 at least                   |
    +-------+--------------------------------------------------------------------------------------+

The header is proven by itself, so that the destination judges it before the state has arrived. It comes from a
stranger: lengths are bounded, nothing is believed that was not checked, and what comes behind the end is refused.

A VMM has sent a state when its last write has returned, and then the source is let go. The padding is longer than what
can be on its way unseen between the two ends of a pipe: while its last byte is not written, all in front of it has been
verified and judged, so that a refusal fails a write of the VMM's and the VM goes on at the source.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from datetime import datetime
from functools import cache
from typing import Annotated
from uuid import UUID

from pydantic import Field, ValidationError, model_validator

from nvmelm.compat.manifest import Manifest
from nvmelm.errors import ImageError, MalformedError
from nvmelm.state.image.checks import refuse
from nvmelm.state.image.format import MAX_STATE_BYTES, HeaderPart, ImageHeader, ImageSource, Prefix
from nvmelm.state.image.reader import Image
from nvmelm.vfio.admin_queue import MOST_EVENT_REQUESTS, Position
from nvmelm.vfio.registers import AdminRegisters
from nvmelm.vfio.seam import PIECE_BYTES

MAGIC = b"\x89NVMEVM\n"
FORMAT_VERSION = 2
#: A manifest has some kilobytes; one with every namespace a controller names in practice stays below.
MAX_HEADER_BYTES = 256 * 1024
#: The piece with the image's last byte can have 65535 bytes behind that, and while it is looked at, the VMM fills the
#: pipe with 65536 more: 131071. The byte behind these cannot have been written.
PADDING_BYTES = 2 * PIECE_BYTES
_MOST_PADDING_BYTES = 1 << 20
_DIGEST_BYTES = 32
_ENDS = "no more of it was written"
_CHUNK = 1 << 20

_Text = Annotated[str, Field(max_length=200)]
_U16 = Annotated[int, Field(ge=0, lt=1 << 16)]
_U32 = Annotated[int, Field(ge=0, lt=1 << 32)]
_U64 = Annotated[int, Field(ge=0, lt=1 << 64)]
_Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class SavedRegisters(HeaderPart):
    """CC, AQA, ASQ and ACQ of the source."""

    cc: _U32
    aqa: _U32
    asq: _U64
    acq: _U64

    @classmethod
    def of(cls, registers: AdminRegisters) -> SavedRegisters:
        """Take them as they were read."""
        return cls(cc=registers.cc, aqa=registers.aqa, asq=registers.asq, acq=registers.acq)

    def values(self) -> AdminRegisters:
        """Return them as they are written."""
        return AdminRegisters(self.cc, self.aqa, self.asq, self.acq)


class SavedAdminQueue(HeaderPart):
    """Where the admin queue stands, and the digest of its two rings in the guest's memory."""

    completions: int = Field(ge=0, lt=1 << 14, description="modulo twice the slots of the completion ring")
    sq_head: int = Field(ge=0, lt=1 << 12)
    event_requests: tuple[_U16, ...] = Field(max_length=MOST_EVENT_REQUESTS, description="identifiers, oldest first")
    unidentified: int = Field(ge=0, le=MOST_EVENT_REQUESTS, description="requests whose identifiers are not known")
    rings_sha256: _Hash

    @classmethod
    def of(cls, position: Position, rings_sha256: str) -> SavedAdminQueue:
        """Take what was worked out at the source."""
        return cls(
            completions=position.completions,
            sq_head=position.sq_head,
            event_requests=position.event_requests,
            unidentified=position.unidentified,
            rings_sha256=rings_sha256,
        )

    def position(self) -> Position:
        """Return it as a fresh controller is wound to it."""
        return Position(self.completions, self.sq_head, self.event_requests, self.unidentified)


class StreamHeader(HeaderPart):
    """The JSON document at the head of a stream."""

    id: str = Field(pattern=r"^[0-9a-f]{32}$", description="of this departure; both hosts' journals name it")
    created_utc: datetime
    nvmelm_version: _Text
    vm: _Text = Field(description="the VM's name at the source, as its VMM was told it")
    address: _Text = Field(description="PCI address of the VF at the source")
    source: ImageSource
    manifest: str = Field(max_length=MAX_HEADER_BYTES, description="of the source: what the destination judges")
    registers: SavedRegisters
    admin_queue: SavedAdminQueue | None = Field(description="null: the controller is off, or arrives disabled")
    image_id: UUID | None = Field(description="null: the controller is off and has no state")
    image_bytes: int = Field(ge=0, le=MAX_STATE_BYTES)
    padding_bytes: int = Field(ge=PADDING_BYTES, le=_MOST_PADDING_BYTES, description="zeros behind the image")

    @model_validator(mode="after")
    def _adds_up(self) -> StreamHeader:
        if (self.image_id is None) != (self.image_bytes == 0):
            raise ValueError("an image has an id and a length, and nothing else has")
        if self.admin_queue is not None and self.image_id is None:
            raise ValueError("a controller without a state has no admin queue")
        return self

    def pack(self) -> bytes:
        """Return the stream's bytes in front of the image."""
        document = self.model_dump_json().encode()
        if len(document) > MAX_HEADER_BYTES:
            raise MalformedError(
                f"the stream's header would have {len(document)} bytes", cause="the manifest names too many namespaces"
            )
        head = Prefix.pack(magic=MAGIC, version=FORMAT_VERSION, header_bytes=len(document)) + document
        return head + hashlib.sha256(head).digest()

    def source_manifest(self) -> Manifest:
        """Return the source's manifest.

        Raises:
            MalformedError: it is none.
        """
        return Manifest.parse(self.manifest)


@cache
def warm_up() -> None:
    """Build the models of what travels, which are made when they are first used: while no VM waits for it."""
    for model in (SavedRegisters, SavedAdminQueue, ImageSource, ImageHeader, StreamHeader):
        model.model_rebuild()


class SpooledStream:
    """A whole stream on its way out: its head, the image in an unnamed file, and the padding.

    Attributes:
        finished: the reader has taken every byte and seen the end.
    """

    def __init__(self, header: StreamHeader, image: int | None) -> None:
        """Take over the image's descriptor; None: there is no image."""
        self.header = header
        self.finished = False
        self._head = header.pack()
        self._image = image
        self._at = 0

    @property
    def total_bytes(self) -> int:
        """Return the stream's length."""
        return len(self._head) + self.header.image_bytes + self.header.padding_bytes

    def read(self, size: int) -> bytes:
        """Return at most ``size`` bytes, none at the end."""
        piece = self._head[self._at : self._at + size]
        if not piece and self._image is not None:
            piece = os.pread(self._image, min(size, _CHUNK), self._at - len(self._head))
        if not piece:
            piece = bytes(min(size, _CHUNK, self.total_bytes - self._at))
        self._at += len(piece)
        self.finished = self._at == self.total_bytes
        return piece

    def close(self) -> None:
        """Let go of the image."""
        if self._image is not None:
            os.close(self._image)
            self._image = None


class ArrivingStream:
    """A stream on its way in, taken as it comes; the image goes to an unnamed file until all of it is there.

    Args:
        spool: descriptor of that file; taken over.
        judge: called with the header as soon as it is proven; raises what refuses it.
        examine: called with the image as soon as it is verified, likewise.
        name: what it is called in messages.

    Attributes:
        header: once it has arrived.
    """

    def __init__(
        self,
        spool: int,
        judge: Callable[[StreamHeader], None],
        examine: Callable[[Image], None] = lambda _: None,
        *,
        name: str = "the VM's stream",
    ) -> None:
        self.name = name
        self.header: StreamHeader | None = None
        self._judge, self._examine = judge, examine
        self._spool = spool
        self._head = bytearray()
        self._image: Image | None = None
        self._image_left = self._padding_left = 0

    def write(self, data: bytes) -> None:
        """Take the next bytes; the image is verified with its last byte, before any of the padding is taken.

        Raises:
            ImageError: they are not a stream's.
            NvmelmError: what the judges raise.
        """
        if self.header is None:
            self._head += data
            data = self._take_header()
        if self.header is None:
            return
        image, padding = data[: self._image_left], data[self._image_left :]
        if image:
            self._take_image(self.header, image)
        if len(padding) > self._padding_left:
            raise refuse("image-trailing-data", f"{self.name} is longer than its header says")
        if any(padding):
            raise refuse("image-altered", f"{self.name} was altered", "there is something in its padding")
        self._padding_left -= len(padding)

    @property
    def whole(self) -> bool:
        """Whether all has arrived, and was verified."""
        return self.header is not None and not (self._image_left or self._padding_left)

    def image(self) -> Image | None:
        """Return the verified image, once all has arrived; None of a controller that is off.

        Raises:
            ImageError: it has not.
        """
        if self.known_header and not self.whole:
            raise refuse("image-truncated", f"{self.name} ends early", _ENDS)
        image, self._image = self._image, None
        return image

    @property
    def known_header(self) -> StreamHeader:
        """Return the header.

        Raises:
            ImageError: it has not arrived.
        """
        if self.header is None:
            raise refuse("image-truncated", f"{self.name} ends early", _ENDS)
        return self.header

    def close(self) -> None:
        """Let go of what has arrived."""
        if self._image is not None:
            self._image.close()
            self._image = None
        if self._spool >= 0:
            os.close(self._spool)
            self._spool = -1

    def _take_header(self) -> bytes:
        """Take the header once it is there, and return what came behind it."""
        if len(self._head) < Prefix.size:
            if not MAGIC.startswith(bytes(self._head[: len(MAGIC)])):
                raise _foreign(self.name)
            return b""
        end = Prefix.size + header_bytes(bytes(self._head[: Prefix.size]), self.name)
        if len(self._head) < end + _DIGEST_BYTES:
            return b""
        head, rest = bytes(self._head[:end]), bytes(self._head[end + _DIGEST_BYTES :])
        header = parse_header(head, bytes(self._head[end : end + _DIGEST_BYTES]), self.name)
        self._head.clear()
        self._judge(header)
        self.header = header
        self._image_left, self._padding_left = header.image_bytes, header.padding_bytes
        return rest

    def _take_image(self, header: StreamHeader, data: bytes) -> None:
        """Keep a piece of the image; with the last one, verify it."""
        view = memoryview(data)
        while view:
            view = view[os.write(self._spool, view) :]
        self._image_left -= len(data)
        if self._image_left:
            return
        descriptor, self._spool = self._spool, -1
        self._image = Image(descriptor, self.name)
        if self._image.header.image_id != header.image_id:
            raise refuse("image-altered", f"{self.name} was altered", "the image is not the one its header names")
        self._examine(self._image)


def header_bytes(prefix: bytes, name: str) -> int:
    """Return the length of a stream's JSON document.

    Raises:
        ImageError: it is no stream, or one of a later version.
    """
    fixed = Prefix(prefix)
    if fixed.magic != MAGIC:
        raise _foreign(name)
    if fixed.version != FORMAT_VERSION:
        raise refuse(
            "image-newer",
            f"{name} has format version {fixed.version}",
            f"this nvmelm knows version {FORMAT_VERSION}",
            "use the same nvmelm on both hosts",
        )
    if not 0 < fixed.header_bytes <= MAX_HEADER_BYTES:
        raise refuse("image-altered", f"{name} was altered", "the length of its header is impossible")
    return fixed.header_bytes


def parse_header(head: bytes, digest: bytes, name: str) -> StreamHeader:
    """Return the header of a stream.

    Args:
        head: prefix and document.
        digest: the 32 bytes behind them.

    Raises:
        ImageError: it was altered, or says what no header says.
    """
    if hashlib.sha256(head).digest() != digest:
        raise refuse("image-altered", f"{name} was altered", "the digest of its header is another one")
    try:
        return StreamHeader.model_validate_json(head[Prefix.size :])
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the document"
        raise refuse("image-altered", f"{name} has a header that cannot be", f"{where}: {first['msg']}") from error


def _foreign(name: str) -> ImageError:
    return refuse("image-foreign", f"{name} is not of nvmelm", "another device's state, or another VMM's file")
