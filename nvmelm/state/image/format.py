r"""The state image: one controller's saved state in a file or a pipe, and the proof that it may be used.

::

    +--------+---------------------------------------------------------------+
    |      0 | magic              89 4E 56 4D 45 4C 4D 0A  (.NVMELM\n)          |
    |      8 | format version     4 bytes; 1                                  |
    |     12 | header length H    4 bytes; 1 to 65536                         |
    |     16 | header             H bytes; one JSON document, UTF-8           |
    |   16+H | controller state   S bytes, exactly as the device gave them    |
    | 16+H+S | trailer            64 bytes                                    |
    +--------+---------------------------------------------------------------+

    trailer
    +----+-------------------------------------------------------------------+
    |  0 | magic              89 4E 56 4D 45 4E 44 0A  (.NVMEND\n)              |
    |  8 | S                  8 bytes, again                                  |
    | 16 | length of all      8 bytes; 16 + H + S + 64                        |
    | 24 | proof              4 bytes; see Proof                              |
    | 28 | zero               4 bytes                                         |
    | 32 | SHA-256            32 bytes; of every byte before this one         |
    +----+-------------------------------------------------------------------+

Integers are little-endian. The header stands in front because a reader of a pipe must know what comes; the proof stands
behind because only the end of reading shows whether the controller was suspended throughout. So a file that ends early
is never taken for an image. Formats are named by value (version, vendor UUID), never by the index that one device gives
them. ``docs/state-image.md`` describes the header's fields.

Writing is in this module, reading in :mod:`nvmelm.state.image.reader`.
"""

from __future__ import annotations

import os
from datetime import datetime
from enum import IntFlag
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Protocol, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator

from nvmelm.disk.atomic import AtomicFile, is_stream
from nvmelm.errors import NvmelmError, UsageError, host_error
from nvmelm.inventory.picture import Primary, Secondary
from nvmelm.state.image.digest import SHA256, begin, finished
from nvmelm.wire.layout import U32, U64, Buffer, Layout, Raw
from nvmelm.wire.migration import ControllerStateHeader

MAGIC = b"\x89NVMELM\n"
END_MAGIC = b"\x89NVMEND\n"
FORMAT_VERSION = 1
#: A header has about 600 bytes; a device's strings cannot make it this long.
MAX_HEADER_BYTES = 64 * 1024
#: File offsets are signed 64-bit numbers; a device can announce 2**130 bytes.
MAX_STATE_BYTES = (1 << 63) - (1 << 20)
#: ``FILE`` of a verb that means standard input or output.
STANDARD = Path("-")


class Prefix(Layout, size=16):
    """What an image begins with, in every format version."""

    magic = Raw(0, 8, "Magic")
    version = U32(8, "Format version")
    header_bytes = U32(12, "Length of the header, bytes")


class Trailer(Layout, size=64):
    """What an image ends with."""

    magic = Raw(0, 8, "Magic of the end")
    state_bytes = U64(8, "Length of the controller state, bytes")
    image_bytes = U64(16, "Length of the whole image, bytes")
    proof = U32(24, "Proof")
    reserved = U32(28, "Zero")
    digest = Raw(32, 32, "SHA-256 of every byte before; between two hosts, the digest they agreed on")


#: The bytes of the trailer that its digest covers.
TRAILER_HASHED = Trailer.digest.offset


class Proof(IntFlag):
    """How it is known that the controller was suspended while its state was read."""

    STATE_SAID_SO = 1 << 0  # Controller Suspended in the state's own attributes (CSATTR bit 0)
    SAME_AT_THE_END = 1 << 1  # its beginning, read again at the end, was the same, or one command read all of it
    EVERY_COMPLETION_SAID_SO = 1 << 2  # CSUP (DW0 bit 0) in every completion; some devices never set it


#: Without these an image is refused.
REQUIRED_PROOF = Proof.STATE_SAID_SO | Proof.SAME_AT_THE_END
KNOWN_PROOF = REQUIRED_PROOF | Proof.EVERY_COMPLETION_SAID_SO

_U16 = Annotated[int, Field(ge=0, le=0xFFFF)]
# A Text field shows a byte as at most 4 characters, and the longest one has 40 bytes.
_Name = Annotated[str, Field(max_length=200)]


class HeaderPart(BaseModel):
    """A part of a header that a file or a peer says: checked when it is read, and nothing in it is unknown."""

    # Built when first used: most verbs read no image.
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class ImageSource(HeaderPart):
    """The controller a state was read from, and its primary controller."""

    vendor_id: _U16
    subsystem_vendor_id: _U16
    model: _Name
    firmware: _Name
    serial: _Name = Field(description="of the primary controller")
    nvme_version: _Name
    cntlid: _U16
    vf_number: _U16
    vq: _U16
    vi: _U16

    @classmethod
    def of(cls, primary: Primary, secondary: Secondary) -> Self:
        """Take from the picture of a host what an image says of its source."""
        return cls(
            vendor_id=primary.vendor_id,
            subsystem_vendor_id=primary.subsystem_vendor_id,
            model=primary.model,
            firmware=primary.firmware,
            serial=primary.serial,
            nvme_version=primary.nvme_version,
            cntlid=secondary.cntlid,
            vf_number=secondary.vf_number,
            vq=secondary.vq,
            vi=secondary.vi,
        )


class ImageHeader(HeaderPart):
    """The JSON document at the head of an image."""

    image_id: UUID = Field(description="random; the same state saved twice gives two ids")
    created_utc: datetime
    nvmelm_version: _Name
    source: ImageSource
    state_version: _U16 | None = Field(description="version of the NVMe Controller State, by value; null: none inside")
    vendor_uuid: UUID | None = Field(description="format of the vendor specific data, by value; null: none inside")
    state_bytes: int = Field(ge=ControllerStateHeader.size, le=MAX_STATE_BYTES)
    nvme_bytes: int = Field(ge=0, multiple_of=4)
    vendor_bytes: int = Field(ge=0, multiple_of=4)

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if self.state_bytes != ControllerStateHeader.size + self.nvme_bytes + self.vendor_bytes:
            raise ValueError("the sizes of the parts do not add up to the size of the state")
        if (self.state_version is None) != (self.nvme_bytes == 0):
            raise ValueError("an NVMe part has a version, and nothing else has")
        if (self.vendor_uuid is None) != (self.vendor_bytes == 0):
            raise ValueError("a vendor part has a UUID, and nothing else has")
        return self

    def pack(self) -> bytes:
        """Return the image's bytes in front of the controller state."""
        document = self.model_dump_json().encode()
        prefix = Prefix.pack(magic=MAGIC, version=FORMAT_VERSION, header_bytes=len(document))
        return prefix + document


class Sink(Protocol):
    """Where an image goes: nothing is there before :meth:`commit`, or what is there has no trailer."""

    def write(self, data: Buffer) -> None:
        """Append bytes; HostError when that fails."""
        ...

    def commit(self) -> None:
        """Make the image appear, complete and durable."""
        ...

    def close(self) -> None:
        """Let go; what was not committed leaves nothing behind."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class StreamSink:
    """A pipe. It cannot take bytes back, so a reader knows a complete image by its trailer.

    The descriptor is written directly: no buffer of Python's is left to be flushed when the reader has gone away.
    """

    def __init__(self, descriptor: int, name: str, *, owned: bool) -> None:
        self._descriptor = descriptor
        self._name = name
        self._owned = owned

    def write(self, data: Buffer) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError as error:
            raise host_error("cannot write the image", self._name, error) from error

    def commit(self) -> None:
        """Do nothing: the trailer has been written."""

    def close(self) -> None:
        if self._owned:
            os.close(self._descriptor)
            self._owned = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()


def open_sink(path: Path, *, replace: bool = False) -> Sink:
    """Open what an image is written to: a file that appears when it is complete, a pipe, or ``-`` for standard output.

    Args:
        replace: a file that has the name may be replaced.

    Raises:
        UsageError: a terminal, a directory, a link to a file.
        NotReadyError: a file has the name, and may not be replaced.
        HostError: it cannot be written.
    """
    if path == STANDARD:
        return _checked(StreamSink(1, "standard output", owned=False), 1)
    try:
        if not path.exists() or not is_stream(path):
            return AtomicFile(path, replace=replace)
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        raise host_error("cannot write the image", str(path), error) from error
    return _checked(StreamSink(descriptor, str(path), owned=True), descriptor)


def check_sink(path: Path, *, replace: bool = False) -> None:
    """Refuse what :func:`open_sink` would refuse, and leave everything as it is; who reads a pipe is not waited for."""
    try:
        stream = path != STANDARD and path.exists() and is_stream(path)
    except OSError as error:
        raise host_error("cannot write the image", str(path), error) from error
    if stream and path.is_fifo():
        return
    open_sink(path, replace=replace).close()


def _checked(sink: StreamSink, descriptor: int) -> StreamSink:
    if os.isatty(descriptor):
        sink.close()
        raise UsageError(
            "a state image is not written to a terminal",
            cause="it is binary, and holds what a guest's controller held",
            fix="name a file, or pipe the output to the program that takes it",
            reason="terminal",
        )
    return sink


class ImageWriter:
    """Writes one image: the header at once, then the state piece by piece, then the proof.

    Args:
        digest: another one than SHA-256 only for an image that no file ever holds.
    """

    def __init__(self, sink: Sink, header: ImageHeader, *, digest: str = SHA256) -> None:
        self._sink = sink
        self._header = header
        self._digest = begin(digest)
        self._written = 0
        self._state_written = 0
        self._write(header.pack())

    def _write(self, data: Buffer) -> None:
        self._digest.update(data)
        self._sink.write(data)
        self._written += len(data)

    def write(self, data: Buffer) -> None:
        """Append bytes of the controller state."""
        self._state_written += len(data)
        self._write(data)

    def finish(self, proof: Proof) -> bytes:
        """Write the trailer, make the image appear, and return its digest.

        Raises:
            NvmelmError: more or fewer bytes of state were written than the header announced.
        """
        if self._state_written != self._header.state_bytes:
            raise NvmelmError(f"{self._state_written} of {self._header.state_bytes} bytes of state were written")
        trailer = Trailer.pack(
            magic=END_MAGIC,
            state_bytes=self._state_written,
            image_bytes=self._written + Trailer.size,
            proof=proof,
        )
        self._write(trailer[:TRAILER_HASHED])
        digest = finished(self._digest)
        self._sink.write(digest)
        self._sink.commit()
        return digest
