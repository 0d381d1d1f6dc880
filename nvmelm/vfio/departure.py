"""The arc into STOP_COPY: everything a controller needs elsewhere, read and proven before the VMM gets a byte of it.

What cannot be read, or worked out, is a refusal here, while the VM can still go on where it is.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from uuid import uuid4

from nvmelm import __version__
from nvmelm.disk.atomic import unnamed_file
from nvmelm.disk.private import private_directory
from nvmelm.errors import HostError, NotSupportedError
from nvmelm.harmless import harmless
from nvmelm.host import Host
from nvmelm.inventory import state_reader
from nvmelm.inventory.opened import OpenPrimary
from nvmelm.inventory.picture import Secondary
from nvmelm.state import save as state_save
from nvmelm.state.image.format import ImageSource, StreamSink
from nvmelm.vfio import admin_queue
from nvmelm.vfio.options import Options
from nvmelm.vfio.passport import Passport
from nvmelm.vfio.registers import AdminRegisters, Controller, reachable
from nvmelm.vfio.seam import Opening
from nvmelm.vfio.stream import PADDING_BYTES, SavedAdminQueue, SavedRegisters, SpooledStream, StreamHeader
from nvmelm.vfio.winding import Rings


def depart(
    pf: OpenPrimary,
    opening: Opening,
    secondary: Secondary,
    passport: Passport,
    options: Options,
    expected_bytes: int = 0,
) -> SpooledStream:
    """Return the stream of a function that stands still.

    Args:
        expected_bytes: of its state, as it was a moment ago; one command then reads what two would.

    Raises:
        NotSupportedError: the admin queue's position cannot be worked out.
        ImageError: the controller was not suspended throughout.
        NvmelmError: the device, or the disk, refused.
    """
    registers, position = _registers(opening, options, passport.event_requests)
    picture = passport.picture
    source = ImageSource.of(picture.primary, secondary)
    image_id, image = (uuid4(), spool(pf.host)) if registers.enabled else (None, None)
    try:
        if image is not None:
            state_save.save(
                pf.queue,
                secondary.cntlid,
                StreamSink(image, "the VM's stream", owned=False),
                source=source,
                formats=state_reader.formats_of(picture.primary),
                device_bytes=picture.primary.max_transfer_bytes,
                expected_bytes=expected_bytes,
                image_id=image_id,
            )
        header = StreamHeader(
            id=uuid4().hex,
            created_utc=datetime.now(UTC).replace(microsecond=0),
            nvmelm_version=__version__,
            vm=_text(opening.vm),
            address=opening.address,
            source=source,
            manifest=passport.manifest.dumps(indent=None),
            registers=SavedRegisters.of(registers),
            admin_queue=position,
            image_id=image_id,
            image_bytes=os.fstat(image).st_size if image is not None else 0,
            padding_bytes=PADDING_BYTES,
        )
        return SpooledStream(header, image)
    except BaseException:
        if image is not None:
            os.close(image)
        raise


def spool(host: Host) -> int:
    """Return the descriptor of an unnamed file, as private as a state image."""
    private_directory(host.state_dir)
    return unnamed_file(host.state_dir)


def _registers(
    opening: Opening, options: Options, event_requests: int
) -> tuple[AdminRegisters, SavedAdminQueue | None]:
    """Return the registers, and where the admin queue of a controller that is on stands.

    Args:
        event_requests: that the controller keeps at most.

    Raises:
        NotSupportedError, HostError: that cannot be worked out, and the operator wants no controller to arrive
            disabled.
    """
    with reachable(opening.registers):
        registers = Controller(opening.registers).read()
    if not registers.enabled:
        return registers, None
    try:
        rings = Rings.read(opening.memory, registers)
        shape = admin_queue.Shape.of(registers.aqa)
        position = admin_queue.reconstruct(shape, rings.sq, rings.cq, most=event_requests)
        position.check(shape)
    except (NotSupportedError, HostError):
        if not options.arrive_disabled:
            raise
        return registers, None
    return registers, SavedAdminQueue.of(position, rings.sha256)


def _text(name: str) -> str:
    """Return a stranger's text as a header may hold it."""
    return harmless(name)[:200]
