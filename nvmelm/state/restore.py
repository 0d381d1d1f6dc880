"""Put a saved state into a controller: all of it proven, in a format the controller knows, and checked afterwards.

The target is suspended first and left suspended; resuming it is somebody's decision. A transfer that fails is sent
again from its beginning, since a device that has refused one part has forgotten the others.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

from nvmelm.commands import AdminCommandError, execute, migration
from nvmelm.errors import (
    ImageError,
    IncompatibleError,
    MalformedError,
    NotSupportedError,
    UncertainError,
    origin,
)
from nvmelm.host import AdminCommand, AdminQueue, Progress
from nvmelm.inventory.picture import Primary
from nvmelm.inventory.state_reader import StateReader, formats_of, transfer_limit
from nvmelm.state.image.format import ImageHeader
from nvmelm.state.image.reader import Image, Part
from nvmelm.state.image.stream import StreamedImage
from nvmelm.wire.formats import SupportedStateFormats
from nvmelm.wire.opcodes import Sequence
from nvmelm.wire.status import StatusCode

#: A transfer that failed is sent again this often, unless the controller says that a retry is of no use (DNR).
RETRIES = 2


@dataclass(frozen=True, slots=True)
class Target:
    """What is compared of the primary controller that takes a state.

    Attributes:
        formats: its Supported Controller State Formats (CNS 20h).
    """

    vendor_id: int
    subsystem_vendor_id: int
    model: str
    firmware: str
    formats: SupportedStateFormats

    @classmethod
    def of(cls, primary: Primary) -> Target:
        """Take it from the picture of a host."""
        ids = (primary.vendor_id, primary.subsystem_vendor_id)
        return cls(*ids, primary.model, primary.firmware, formats_of(primary))


@dataclass(frozen=True, slots=True)
class Restored:
    """A state that was restored; the target is suspended and holds it.

    Attributes:
        parts: commands that carried state, in the transfer that succeeded.
        commands: all commands, failed transfers included.
        attempts: 1, or more when transfers failed.
        warnings: differences between source and target that do not forbid it, one sentence each.
    """

    header: ImageHeader
    cntlid: int
    parts: int
    commands: int
    attempts: int
    seconds: float
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Why a state does not fit a target: a stable word and a sentence."""

    reason: str
    text: str


def refusals(header: ImageHeader, target: Target) -> list[Mismatch]:
    """Return every reason for which a target must not get a state; empty when there is none.

    Formats are compared by value. Vendor and model must be the same: what a state means is known to no one else.
    """
    source = header.source
    reasons = []
    if header.state_version is not None and target.formats.version_index(header.state_version) is None:
        known = _listed(target.formats.versions, "version")
        text = f"the state has version {header.state_version}, and the target knows {known}"
        reasons.append(Mismatch("state-version-unknown", text))
    if header.vendor_uuid is not None and target.formats.uuid_index(header.vendor_uuid) is None:
        known = _listed(target.formats.uuids, "vendor format")
        text = f"the state has vendor format {header.vendor_uuid}, and the target knows {known}"
        reasons.append(Mismatch("vendor-uuid-unknown", text))
    ids = ((source.vendor_id, source.subsystem_vendor_id), (target.vendor_id, target.subsystem_vendor_id))
    if ids[0] != ids[1]:
        texts = [f"{vendor:04x} (subsystem {subsystem:04x})" for vendor, subsystem in ids]
        reasons.append(Mismatch("vendor-differs", f"the state is of vendor {texts[0]}, the target of {texts[1]}"))
    if source.model != target.model:
        reasons.append(
            Mismatch("model-differs", f"the state is of a {source.model!r}, the target is a {target.model!r}")
        )
    return reasons


def _listed(values: tuple[int, ...] | tuple[UUID, ...], what: str) -> str:
    return f"{what} {', '.join(map(str, values))}" if values else f"no {what}"


def restore(
    queue: AdminQueue,
    cntlid: int,
    image: Image | StreamedImage,
    *,
    target: Target,
    device_bytes: int = 0,
    progress: Progress | None = None,
    suspended: bool = False,
    retries: int = RETRIES,
) -> Restored:
    """Put a verified image's state into a controller, and leave the controller suspended.

    Args:
        image: from :func:`nvmelm.state.image.reader.open_image`.
        target: the primary controller behind ``queue``.
        device_bytes: see :func:`~nvmelm.inventory.state_reader.transfer_limit`.
        progress: called with bytes of state; starts again at 0 when a transfer is repeated.
        suspended: the caller has suspended the controller.
        retries: how often a failed transfer is sent again; 0 for a state that arrives once.

    Raises:
        IncompatibleError: the state does not fit; the device has not seen a byte of it.
        NotSupportedError: the device takes a state in one command only, and this one is too large for that.
        AdminCommandError: the device refused; it holds no part of the state.
        ImageError: the image's file was changed meanwhile; nothing of it was committed.
        UncertainError: the device took the state, and then reported another one; it must not be resumed.
    """
    started = time.monotonic()
    check_fits(image.header, target)
    transfer = _Transfer(queue, cntlid, image, transfer_limit(queue, device_bytes), _indexes(image.header, target))
    if not suspended:
        execute(queue, migration.suspend(cntlid))
    attempts = transfer.run(progress, retries)
    _verify(queue, cntlid, image, transfer.indexes)
    return Restored(
        header=image.header,
        cntlid=cntlid,
        parts=transfer.parts,
        commands=transfer.commands + 1 + (not suspended),  # the header after, the suspend before
        attempts=attempts,
        seconds=time.monotonic() - started,
        warnings=_warnings(image.header, target),
    )


def commands(cntlid: int, image: Image, target: Target, limit: int) -> Iterator[AdminCommand]:
    """Yield the commands that :func:`restore` would send after the suspend, none of which is sent."""
    version_index, uuid_index = _indexes(image.header, target)
    for part in image.parts(limit):
        yield migration.set_state(
            cntlid,
            part.data,
            offset=part.offset,
            sequence=_sequence(part),
            version_index=version_index,
            uuid_index=uuid_index,
        )


def check_fits(header: ImageHeader, target: Target) -> None:
    """Refuse a state that does not fit a target.

    Raises:
        IncompatibleError: with all reasons.
    """
    reasons = refusals(header, target)
    if reasons:
        raise IncompatibleError(
            "the state does not fit the target",
            cause="; ".join(refusal.text for refusal in reasons),
            fix="restore it on a device like the one it was saved on (nvmelm state show FILE; nvmelm show PF)",
            reason=reasons[0].reason,
        )


def _indexes(header: ImageHeader, target: Target) -> tuple[int, int]:
    """Translate the formats' values to the target's own indexes; 0 for a part that the state has not."""
    version = 0 if header.state_version is None else target.formats.version_index(header.state_version)
    vendor = 0 if header.vendor_uuid is None else target.formats.uuid_index(header.vendor_uuid)
    return version or 0, vendor or 0


def _warnings(header: ImageHeader, target: Target) -> tuple[str, ...]:
    if header.source.firmware == target.firmware:
        return ()
    return (f"the state was saved under firmware {header.source.firmware!r}, the target has {target.firmware!r}",)


class _Transfer:
    """One state on its way into a controller."""

    def __init__(
        self, queue: AdminQueue, cntlid: int, image: Image | StreamedImage, limit: int, indexes: tuple[int, int]
    ) -> None:
        self._queue = queue
        self._cntlid = cntlid
        self._image = image
        self._limit = limit
        self.indexes = indexes
        self._sequence = Sequence.ONLY
        self.commands = 0
        self.parts = 0

    def run(self, progress: Progress | None, retries: int) -> int:
        """Send the state, again when that may help, and return how often it was sent."""
        attempt = 1
        while True:
            try:
                self._send(progress)
            except AdminCommandError as error:
                if error.status.dnr or attempt > retries:
                    failure = self._explained(error)
                    raise failure from origin(failure, error)
                attempt += 1
            except ImageError as error:
                error.add_note(f"controller 0x{self._cntlid:04x} is suspended, and no state was committed to it")
                raise
            else:
                return attempt

    def _send(self, progress: Progress | None) -> None:
        total = self._image.header.state_bytes
        self.parts = 0
        for part in self._image.parts(self._limit):
            self._sequence = _sequence(part)
            self.commands += 1
            execute(self._queue, self._command(part))
            self.parts += 1
            if progress is not None:
                progress(part.offset + len(part.data), total)
            del part  # before the next one arrives, so that it comes into the same memory, which is warm

    def _command(self, part: Part) -> AdminCommand:
        version_index, uuid_index = self.indexes
        return migration.set_state(
            self._cntlid,
            part.data,
            offset=part.offset,
            sequence=self._sequence,
            version_index=version_index,
            uuid_index=uuid_index,
        )

    def _explained(self, error: AdminCommandError) -> AdminCommandError | NotSupportedError:
        """Return the error of a device that refuses to begin a state of several parts in the words of that."""
        if error.status.code != StatusCode.INTERNAL_ERROR or self._sequence != Sequence.FIRST:
            return error
        total = self._image.header.state_bytes
        return NotSupportedError(
            "the device takes a state in one command only, and this state is larger than one command carries",
            cause=f"it refused the first part ({error.status}); the state has {total} bytes, one command at most "
            f"{self._limit}",
            fix="use another target; the limit is the smaller one of the device's MDTS and the kernel's",
            reason="one-part-only",
        )


def _sequence(part: Part) -> Sequence:
    if part.offset == 0:
        return Sequence.ONLY if part.last else Sequence.FIRST
    return Sequence.LAST if part.last else Sequence.MIDDLE


def _verify(queue: AdminQueue, cntlid: int, image: Image | StreamedImage, indexes: tuple[int, int]) -> None:
    """Read the header of what the controller holds now."""
    problem = ""
    try:
        header = StateReader(queue, cntlid, *indexes).header()
    except (AdminCommandError, MalformedError) as error:
        raise _uncertain(cntlid, error.message) from error
    if not header.suspended:
        problem = "it is not suspended any more"
    elif (header.nvme_bytes, header.vendor_bytes) != (image.header.nvme_bytes, image.header.vendor_bytes):
        problem = f"it reports {header.total_bytes} bytes of state, and was given {image.header.state_bytes}"
    if problem:
        raise _uncertain(cntlid, problem)


def _uncertain(cntlid: int, problem: str) -> UncertainError:
    return UncertainError(
        f"controller 0x{cntlid:04x} took the state, but does not hold it as it was sent",
        cause=problem,
        fix=f"do not resume it; take it offline (nvmelm secondary offline PF 0x{cntlid:04x}) and restore again",
        reason="restore-not-verified",
    )
