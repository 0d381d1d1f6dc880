"""An image that comes through a pipe: it is copied to a file without a name, as it can be read once only."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from nvmelm.disk.atomic import unnamed_file
from nvmelm.errors import UsageError, host_error
from nvmelm.state.image.checks import check_prefix, parse_header, refuse, require_possible
from nvmelm.state.image.format import ImageHeader, Prefix, Trailer

MiB = 1 << 20
_BLOCK = 1 * MiB

#: What a pipe's image leaves free on the disk: what nvmelm remembers is there too.
_LEFT_BYTES = 64 * MiB


def spool(stream: BinaryIO, name: str, directory: Path, fits: Callable[[ImageHeader], None]) -> int:
    """Copy an image to a file without a name (0600).

    Args:
        name: what people call the stream.
        directory: on whose file system the copy is kept.
        fits: raises when a state of such a header is not wanted; nothing is copied then.

    Returns:
        The copy's descriptor, which the caller closes.

    Raises:
        ImageError: its first bytes are none of an image, it ends early, or something stands behind its end.
        UsageError: it is a terminal.
        HostError: it cannot be read, or there is no room for the copy.
    """
    if stream.isatty():
        raise UsageError(
            "a state image is not read from a terminal", fix="name a file, or pipe one in", reason="terminal"
        )
    descriptor = unnamed_file(directory)
    try:
        _copy(stream, name, descriptor, directory, fits)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _copy(stream: BinaryIO, name: str, descriptor: int, directory: Path, fits: Callable[[ImageHeader], None]) -> None:
    """Copy exactly one image; its first bytes are checked before any room is taken for the rest."""
    head = _read(stream, name, Prefix.size)
    prefix = check_prefix(head, name)
    document = _read(stream, name, prefix.header_bytes)
    if len(document) < prefix.header_bytes:
        raise refuse("image-truncated", f"{name} ends inside its header")
    header = parse_header(document, name)
    require_possible(header, name)
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
