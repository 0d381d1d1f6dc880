"""What a VM's stream says of itself, for people and for programs; of the guest's memory nothing but one digest."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nvmelm.disk.atomic import unnamed_file
from nvmelm.documents import Report, about
from nvmelm.errors import host_error
from nvmelm.state.image.view import ImageDescription, show
from nvmelm.vfio.stream import MAGIC, ArrivingStream, SavedAdminQueue, SavedRegisters

_PIECE = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamDescription(Report):
    """What a VM carries of one controlled function."""

    schema_name = "nvmelm.vm_stream"

    id: str = field(metadata=about("both hosts' journals name the move by it"))
    created_utc: str
    nvmelm_version: str
    vm: str
    address: str = field(metadata=about("PCI address of the VF at the source"))
    manifest_digest: str
    registers: SavedRegisters
    admin_queue: SavedAdminQueue | None
    stream_bytes: int
    image: ImageDescription | None = field(metadata=about("null: the controller was off and has no state"))

    def to_json(self) -> dict[str, Any]:
        """Return the document; registers, admin queue and image stand in it as in the stream."""
        document = Report.to_json(self)
        document["registers"] = self.registers.model_dump(mode="json")
        document["admin_queue"] = self.admin_queue.model_dump(mode="json") if self.admin_queue is not None else None
        if self.image is not None:
            document["image"]["header"] = self.image.header.model_dump(mode="json")
        return document


def is_stream(file: Path) -> bool:
    """Return whether a regular file begins as a VM's stream does."""
    if not file.is_file():
        return False
    try:
        with file.open("rb") as opened:
            return opened.read(len(MAGIC)) == MAGIC
    except OSError as error:
        raise host_error("cannot read", str(file), error) from error


def describe(file: Path, spool_directory: Path) -> StreamDescription:
    """Verify a VM's stream and return what it says.

    Raises:
        ImageError: it is not whole, or not unaltered.
        HostError: it cannot be read.
    """
    stream, length = ArrivingStream(unnamed_file(spool_directory), lambda _: None, name=str(file)), 0
    try:
        with file.open("rb") as opened:
            while piece := opened.read(_PIECE):
                stream.write(piece)
                length += len(piece)
        image = stream.image()
        description = show(image) if image is not None else None
        if image is not None:
            image.close()
    except OSError as error:
        raise host_error("cannot read", os.fspath(file), error) from error
    finally:
        stream.close()
    header = stream.known_header
    return StreamDescription(
        id=header.id,
        created_utc=header.created_utc.isoformat(),
        nvmelm_version=header.nvmelm_version,
        vm=header.vm,
        address=header.address,
        manifest_digest=header.source_manifest().digest,
        registers=header.registers,
        admin_queue=header.admin_queue,
        stream_bytes=length,
        image=description,
    )
