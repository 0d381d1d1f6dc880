"""The media of namespaces: sparse files, read and written by offset, shared by whoever has the same directory."""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path

from nvmelm.emulator.machine.generations import NamespaceRow
from nvmelm.emulator.machine.machine import Machine
from nvmelm.emulator.machine.state import EmulatedPrimary
from nvmelm.errors import host_error

_ZEROS = 64 * 1024


def _open(path: Path, size: int) -> int:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if os.fstat(descriptor).st_size < size:
            os.ftruncate(descriptor, size)
    except OSError as error:
        raise host_error("cannot open a namespace's file", str(path), error) from error
    return descriptor


def medium(machine: Machine, primary: EmulatedPrimary, spec: NamespaceRow) -> int:
    """Return the descriptor of a namespace's file."""
    name = f"{primary['medium']}-ns{spec.nsid}.img"
    descriptor = machine.media.get(name)
    if descriptor is None:
        descriptor = machine.media[name] = _open(Path(machine.state["storage"]) / name, spec.size)
    return descriptor


def identity(machine: Machine, primary: EmulatedPrimary, spec: NamespaceRow) -> bytes:
    """Return 16 bytes that name a namespace's medium: whoever has the same directory has the same medium.

    The directory's inode stands for it, so that two paths to one directory are one medium, and two directories of one
    name, one after the other, are two.
    """
    directory = Path(machine.state["storage"])
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        about = directory.stat()
    except OSError as error:
        raise host_error("cannot look at the namespaces' directory", str(directory), error) from error
    text = f"{about.st_dev}:{about.st_ino}:{primary['medium']}-ns{spec.nsid}"
    return sha256(text.encode()).digest()[:16]


def read(machine: Machine, primary: EmulatedPrimary, spec: NamespaceRow, offset: int, length: int) -> bytes:
    """Return bytes of a namespace."""
    return os.pread(medium(machine, primary, spec), length, offset)


def write(machine: Machine, primary: EmulatedPrimary, spec: NamespaceRow, offset: int, data: bytes) -> None:
    """Store bytes in a namespace."""
    os.pwrite(medium(machine, primary, spec), data, offset)


def zero(machine: Machine, primary: EmulatedPrimary, spec: NamespaceRow, offset: int, length: int) -> None:
    """Store zeros in a namespace."""
    end = offset + length
    while offset < end:
        step = min(_ZEROS, end - offset)
        write(machine, primary, spec, offset, bytes(step))
        offset += step
