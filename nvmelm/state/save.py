"""Save the state of a suspended controller: header first, then the whole, then the proof that it is one state.

What the device announces is never allocated: two commands' data are in memory at a time.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, NamedTuple
from uuid import UUID, uuid4

from nvmelm import __version__
from nvmelm.errors import ImageError, MalformedError, NotReadyError, NotSupportedError, UsageError
from nvmelm.host import AdminQueue, Progress
from nvmelm.inventory.state_reader import StateReader, transfer_limit
from nvmelm.state.image.digest import SHA256
from nvmelm.state.image.format import MAX_STATE_BYTES, ImageHeader, ImageSource, ImageWriter, Proof, Sink
from nvmelm.state.read_ahead import ReadAhead
from nvmelm.wire.formats import SupportedStateFormats
from nvmelm.wire.migration import KNOWN_VERSION, ControllerStateHeader, NvmeStateHeader


@dataclass(frozen=True, slots=True)
class Saved:
    """A state that was saved: the image's header, proof and digest, and what it took."""

    header: ImageHeader
    proof: Proof
    digest: str
    commands: int
    seconds: float


def save(
    queue: AdminQueue,
    cntlid: int,
    sink: Sink,
    *,
    source: ImageSource,
    formats: SupportedStateFormats,
    device_bytes: int = 0,
    expected_bytes: int = 0,
    version: int = KNOWN_VERSION,
    vendor_uuid: UUID | Literal["auto"] | None = "auto",
    progress: Progress | None = None,
    digest: str = SHA256,
    image_id: UUID | None = None,
    created: datetime | None = None,
) -> Saved:
    """Read the state of a suspended controller, and write an image of it.

    The header is read first, or as much as is expected. A state that did not come with it is then read by one command
    where it fits; a larger one in parts, and its beginning is read once more at the end, and must be the same.

    Args:
        sink: from :func:`nvmelm.state.image.format.open_sink`; committed here, when all is proven.
        source: what the image says of where it comes from.
        formats: what the primary controller supports.
        device_bytes: see :func:`transfer_limit`.
        expected_bytes: of state (a multiple of 4), as it was a moment ago: one command then reads what two would. What
            a device has less it leaves undefined (Base Specification 2.1, Migration Receive), and it is cut off.
        version: of the NVMe Controller State, by value.
        vendor_uuid: the vendor's format, by value; ``auto`` takes the only one there is; None leaves that part out.
        digest: what proves the image; see :mod:`nvmelm.state.image.digest`.
        progress: called with bytes of state.

    Raises:
        NotReadyError: the controller is not suspended.
        ImageError: it was not suspended throughout (``image-not-suspended``), or its state changed while it was read
            (``image-torn``). Nothing was kept.
        NotSupportedError: the device does not give the state in that format.
        UsageError: ``auto``, and there are several vendor formats.
        MalformedError: the device's sizes are impossible.
        AdminCommandError: the device refused a command.
    """
    started = time.monotonic()
    chosen = _choose_uuid(formats, vendor_uuid)
    reader = StateReader(queue, cntlid, _version_index(formats, version), _uuid_index(formats, chosen))
    limit = transfer_limit(queue, device_bytes)
    likely = ControllerStateHeader.size <= expected_bytes <= limit
    head = reader.receive(0, expected_bytes if likely else ControllerStateHeader.size)
    state = _checked(ControllerStateHeader.at(head), cntlid, version, chosen)
    header = ImageHeader(
        image_id=image_id or uuid4(),
        created_utc=created or datetime.now(UTC).replace(microsecond=0),
        nvmelm_version=__version__,
        source=source,
        state_version=version,
        vendor_uuid=chosen if state.vendor_bytes else None,
        state_bytes=state.total_bytes,
        nvme_bytes=state.nvme_bytes,
        vendor_bytes=state.vendor_bytes,
    )
    writer = ImageWriter(sink, header, digest=digest)
    _copy(reader, state, head, writer, limit, progress)
    proof = _proof(reader)
    value = writer.finish(proof)
    return Saved(header, proof, value.hex(), reader.commands, time.monotonic() - started)


class Examined(NamedTuple):
    """A state as a save would read it: its header, and the indexes of its two parts."""

    header: ControllerStateHeader
    version_index: int
    uuid_index: int


def examine(queue: AdminQueue, cntlid: int, formats: SupportedStateFormats) -> Examined:
    """Refuse what :func:`save` would refuse before it reads on; nothing is changed. The errors are those of it."""
    chosen = _choose_uuid(formats, "auto")
    version, uuid = _version_index(formats, KNOWN_VERSION), _uuid_index(formats, chosen)
    header = StateReader(queue, cntlid, version, uuid).header()
    return Examined(_checked(header, cntlid, KNOWN_VERSION, chosen), version, uuid)


def _choose_uuid(formats: SupportedStateFormats, wanted: UUID | Literal["auto"] | None) -> UUID | None:
    if wanted != "auto":
        return wanted
    if len(formats.uuids) > 1:
        raise UsageError(
            f"the device gives its vendor specific state in {len(formats.uuids)} formats",
            cause="which of them the target takes cannot be known here",
            fix=f"name one: {', '.join(map(str, formats.uuids))}",
            reason="vendor-uuid-ambiguous",
        )
    return formats.uuids[0] if formats.uuids else None


def _version_index(formats: SupportedStateFormats, version: int) -> int:
    index = formats.version_index(version)
    if index is None:
        raise NotSupportedError(
            f"the device does not give its state in version {version}",
            cause=f"it knows {_list(formats.versions, 'version')}",
            reason="state-version-unknown",
        )
    return index


def _uuid_index(formats: SupportedStateFormats, value: UUID | None) -> int:
    index = formats.uuid_index(value) if value is not None else 0
    if index is None:
        raise NotSupportedError(
            f"the device does not give its vendor specific state in format {value}",
            cause=f"it knows {_list(formats.uuids, 'vendor format')}",
            reason="vendor-uuid-unknown",
        )
    return index


def _list(values: tuple[object, ...], what: str) -> str:
    return f"{what} {', '.join(map(str, values))}" if values else f"no {what}"


def _checked(state: ControllerStateHeader, cntlid: int, version: int, vendor: UUID | None) -> ControllerStateHeader:
    """Return the header, if it may be believed."""
    if state.ver != KNOWN_VERSION:
        raise NotSupportedError(f"the Controller State structure of 0x{cntlid:04x} has version {state.ver}, not 0")
    if not state.suspended:
        raise _not_suspended(cntlid, NotReadyError)
    bounded_size(state, cntlid)
    if state.nvme_bytes < NvmeStateHeader.size:
        raise MalformedError(
            f"controller 0x{cntlid:04x} returns no NVMe state", cause=f"version {version} was asked for"
        )
    if state.vendor_bytes and vendor is None:
        raise MalformedError(f"controller 0x{cntlid:04x} returns vendor specific state that was not asked for")
    return state


def bounded_size(state: ControllerStateHeader, cntlid: int) -> int:
    """Return the bytes of a state as its header announces them, of a controller that may be running.

    Raises:
        MalformedError: no state is that large.
    """
    if not ControllerStateHeader.size <= state.total_bytes <= MAX_STATE_BYTES:
        raise MalformedError(f"controller 0x{cntlid:04x} announces {state.total_bytes} bytes of state")
    return state.total_bytes


def _not_suspended(cntlid: int, kind: type[ImageError | NotReadyError] = ImageError) -> ImageError | NotReadyError:
    return kind(
        f"controller 0x{cntlid:04x} is not suspended",
        cause="it is still processing commands, so its state would be torn",
        fix=f"nvmelm state suspend PF 0x{cntlid:04x}, then save again",
        reason="image-not-suspended",
    )


def _copy(
    reader: StateReader,
    state: ControllerStateHeader,
    head: bytes,
    writer: ImageWriter,
    limit: int,
    progress: Progress | None,
) -> None:
    """Copy the whole state, and make sure that it did not change meanwhile."""
    total = state.total_bytes
    first = b""
    for offset, data in _whole(head, total) or _parts(reader, total, limit):
        if offset == 0:
            # What a running controller changes, its queues, stands at the beginning.
            first = data[: ControllerStateHeader.size + state.nvme_bytes]
            _check_first(first, state, reader.cntlid)
        writer.write(data)
        if progress is not None:
            progress(offset + len(data), total)
    if total > limit:
        again = reader.receive(0, len(first))
        if not ControllerStateHeader.at(again).suspended:
            raise _not_suspended(reader.cntlid)
        if again != first:
            raise _torn(reader.cntlid)


def _whole(head: bytes, total: int) -> list[tuple[int, bytes]]:
    """Return the state as the one part it is, when it came with the header."""
    return [(0, head[:total])] if len(head) >= total else []


def _parts(reader: StateReader, total: int, limit: int) -> Iterator[tuple[int, bytes]]:
    """Read a state part by part, one command at a time; of a large one each part while the last is being written."""
    offsets = range(0, total, limit)
    if len(offsets) == 1:
        yield 0, reader.receive(0, total)
        return
    with ReadAhead(reader, total, limit) as parts:
        for offset in offsets:
            yield offset, parts.next()


def _proof(reader: StateReader) -> Proof:
    """Return how it is known that the controller was suspended.

    Some devices never set CSUP in a completion, and the structure decides; one that sets it sometimes says that the
    controller was running the other times.
    """
    if 0 < reader.said_suspended < reader.commands:
        raise _not_suspended(reader.cntlid)
    proof = Proof.STATE_SAID_SO | Proof.SAME_AT_THE_END
    return proof | Proof.EVERY_COMPLETION_SAID_SO if reader.said_suspended else proof


def _check_first(first: bytes, state: ControllerStateHeader, cntlid: int) -> None:
    """Compare the beginning of the state with the header that was read before."""
    head = ControllerStateHeader.at(first)
    if not head.suspended:
        raise _not_suspended(cntlid)
    if (head.ver, head.nvmecss, head.vss) != (state.ver, state.nvmecss, state.vss):
        raise _torn(cntlid)
    nvme = NvmeStateHeader.at(first, ControllerStateHeader.size)
    if nvme.ver == KNOWN_VERSION and nvme.total_bytes != state.nvme_bytes:
        raise MalformedError(
            f"controller 0x{cntlid:04x} announces {state.nvme_bytes} bytes of NVMe state",
            cause=f"its {nvme.niosq} submission and {nvme.niocq} completion queues need {nvme.total_bytes}",
        )


def _torn(cntlid: int) -> ImageError:
    return ImageError(
        f"the state of controller 0x{cntlid:04x} changed while it was read",
        cause="it was resumed, reset or written to meanwhile",
        fix=f"nvmelm state suspend PF 0x{cntlid:04x}, then save again",
        reason="image-torn",
    )
