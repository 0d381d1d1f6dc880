"""Vendor specific state: opaque to everybody but the device, as large as its generation says, kept in files.

A device writes its own state the first time it is asked for: a header page, and one page in every 64 KiB whose
content depends on the device and the place, so that parts that were lost, mixed up or put in the wrong order are
noticed when the state is set somewhere. What lies between are zeros, and holes in the file.

::

    0       64 KiB   128 KiB                       size
    |H .....|P1......|P2......  ...  |Pn.....|Tail|       H header page, Pn page n, Tail what is left of a page
"""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any, cast

from nvmelm.emulator.machine.generations import DeviceGeneration
from nvmelm.emulator.machine.machine import Machine
from nvmelm.emulator.machine.memory import PAGE
from nvmelm.emulator.machine.state import EmulatedController, EmulatedPrimary

_MAGIC = b"EMULATED VENDOR STATE\0\0\0"
_STRIDE = 64 * 1024
_SEED_BYTES = 32
#: Where, in the header page, a device that restores its own admin queue keeps it: a length of 4 bytes, and JSON.
_ADMIN_AT, _ADMIN_BYTES = 1024, 2048
_REGISTERS = ("cc", "csts", "aqa", "asq", "acq", "admin")


def _page(seed: bytes, number: int, size: int) -> bytes:
    digest = sha256(seed + number.to_bytes(8, "little")).digest()
    return (digest * (PAGE // len(digest)))[:size]


def _header(row: DeviceGeneration, seed: bytes, size: int) -> bytes:
    return _MAGIC + size.to_bytes(8, "little") + sha256(row.vendor_uuids[0].encode()).digest() + seed


def _seed(primary: EmulatedPrimary, controller: EmulatedController) -> bytes:
    return sha256(f"{primary['serial']}/{controller['cntlid']}".encode()).digest()


def ensure(machine: Machine, primary: EmulatedPrimary, controller: EmulatedController) -> None:
    """Write a controller's own vendor specific state, unless it has some already."""
    if controller["vendor"]:
        return
    row = machine.generation(primary)
    size, seed = row.vendor_state_bytes, _seed(primary, controller)
    name = machine.files.new()
    machine.files.grow(name, size)
    machine.files.write(name, _header(row, seed, size)[:size], 0)
    for offset in range(_STRIDE, size, _STRIDE):
        machine.files.write(name, _page(seed, offset // _STRIDE, min(PAGE, size - offset)), offset)
    controller["vendor"], controller["vendor_at"] = name, 0


def read(machine: Machine, controller: EmulatedController, offset: int, length: int) -> bytes:
    """Return part of a controller's vendor specific state, which :func:`ensure` has made sure of."""
    return machine.files.read(controller["vendor"], length, controller["vendor_at"] + offset)


def keep_admin_queue(machine: Machine, controller: EmulatedController) -> None:
    """Put the registers and the admin queue of a controller into its vendor specific state."""
    io: dict[str, Any] = dict(controller["io"] or {})
    raw = json.dumps({name: io[name] for name in _REGISTERS if name in io}).encode()
    if len(raw) + 4 <= _ADMIN_BYTES:
        at = controller["vendor_at"] + _ADMIN_AT
        machine.files.write(controller["vendor"], len(raw).to_bytes(4, "little") + raw, at)


def restore_admin_queue(machine: Machine, controller: EmulatedController) -> None:
    """Set the registers and the admin queue to what the vendor specific state says."""
    size = int.from_bytes(read(machine, controller, _ADMIN_AT, 4), "little")
    io: dict[str, Any] | None = cast("dict[str, Any] | None", controller["io"])
    if io is not None and 0 < size <= _ADMIN_BYTES:
        io.update(json.loads(read(machine, controller, _ADMIN_AT + 4, size)))


def acceptable(machine: Machine, row: DeviceGeneration, name: str, offset: int, size: int) -> bool:
    """Return whether bytes of a file are vendor specific state that this kind of device can use, whole and in order."""
    if size != row.vendor_state_bytes:
        return False
    fixed = len(_header(row, b"", size))
    head = machine.files.read(name, fixed + _SEED_BYTES, offset)[:size]
    seed = head[fixed:]
    if head != _header(row, seed, size)[:size]:
        return False
    return all(
        machine.files.read(name, min(PAGE, size - at), offset + at) == _page(seed, at // _STRIDE, min(PAGE, size - at))
        for at in range(_STRIDE, size, _STRIDE)
    )
