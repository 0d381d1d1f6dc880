"""``VFIO_DEVICE_FEATURE``: what a VMM asks of a device that can migrate, read from its memory, and the answers.

::

    struct vfio_device_feature
    0  argsz  u32   bytes of all of it
    4  flags  u32   15:0 feature · 16 GET · 17 SET · 18 PROBE
    8  data

    feature                    GET                         SET
    1  MIGRATION               u64 flags
    2  MIG_DEVICE_STATE        u32 state, s32 -1           u32 state, s32 data_fd (out)
    6  DMA_LOGGING_START                                   u64 page_size, u32 ranges, u32, u64 pointer
    7  DMA_LOGGING_STOP                                    nothing
    8  DMA_LOGGING_REPORT      u64 iova, length, page_size, pointer
    9  MIG_DATA_SIZE           u64 bytes

PROBE asks whether GET or SET would be understood, and needs no data. Everything a kernel's driver checks is checked
here, in its order, with its errnos.

Source: Linux include/uapi/linux/vfio.h; drivers/vfio/vfio_main.c (vfio_ioctl_device_feature, vfio_check_feature).
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable
from enum import IntEnum, IntFlag
from typing import NamedTuple

from nvmelm.interposer.caller import Process
from nvmelm.interposer.device import Device
from nvmelm.interposer.streams import Stream
from nvmelm.vfio.seam import DeviceState, LogRange, Refusal

#: What a caller hands over is the kernel's (include/uapi/linux/vfio.h), not NVMe's, and in the host's byte order.
#: struct vfio_device_feature without data: argsz, flags.
_HEADER = struct.Struct("=2I")
#: struct vfio_device_feature_migration: flags; vfio_device_feature_mig_data_size: stop_copy_length.
_U64 = struct.Struct("=Q")
#: struct vfio_device_feature_mig_state: device_state, data_fd (-1: no stream).
_STATE = struct.Struct("=Ii")
#: struct vfio_device_feature_dma_logging_control: page_size, num_ranges, reserved, ranges (where they are).
_LOG_CONTROL = struct.Struct("=Q2IQ")
#: struct vfio_device_feature_dma_logging_range: iova, length.
_LOG_RANGE = struct.Struct("=2Q")
#: struct vfio_device_feature_dma_logging_report: iova, length, page_size, bitmap (where it is).
_LOG_REPORT = struct.Struct("=4Q")

#: drivers/vfio/vfio_main.c, LOG_MAX_RANGES: a page of ranges.
_MOST_RANGES = 4096 // _LOG_RANGE.size
#: A bitmap for 16 TiB in pages of 4 KiB is 512 MiB; QEMU asks for a region of memory at a time.
_LARGEST_BITMAP_BYTES = 512 << 20


class Feature(IntEnum):
    """``VFIO_DEVICE_FEATURE_*``: those that concern migration."""

    MIGRATION = 1
    MIG_DEVICE_STATE = 2
    DMA_LOGGING_START = 6
    DMA_LOGGING_STOP = 7
    DMA_LOGGING_REPORT = 8
    MIG_DATA_SIZE = 9


class Operation(IntFlag):
    """What is asked of a feature."""

    GET = 1 << 16
    SET = 1 << 17
    PROBE = 1 << 18


_FEATURE_MASK = 0xFFFF
_KNOWN_BITS = _FEATURE_MASK | int(Operation.GET | Operation.SET | Operation.PROBE)


class Asked(NamedTuple):
    """Which operation a feature has, and the bytes of data that it takes at least."""

    operations: Operation
    data_bytes: int


_ASKED = {
    Feature.MIGRATION: Asked(Operation.GET, _U64.size),
    Feature.MIG_DEVICE_STATE: Asked(Operation.GET | Operation.SET, _STATE.size),
    Feature.DMA_LOGGING_START: Asked(Operation.SET, _LOG_CONTROL.size),
    Feature.DMA_LOGGING_STOP: Asked(Operation.SET, 0),
    Feature.DMA_LOGGING_REPORT: Asked(Operation.GET, _LOG_REPORT.size),
    Feature.MIG_DATA_SIZE: Asked(Operation.GET, _U64.size),
}


_LOGGING = (Feature.DMA_LOGGING_START, Feature.DMA_LOGGING_STOP, Feature.DMA_LOGGING_REPORT)


class FeatureRequest(NamedTuple):
    """One call, as far as it is understood.

    Attributes:
        process: the caller's.
        data: where the feature's data is in its memory.
    """

    process: Process
    feature: Feature
    operation: Operation
    argsz: int
    data: int

    @property
    def is_quick(self) -> bool:
        """Whether the answer is at hand: no command goes to a device for it."""
        return bool(self.operation & Operation.PROBE) or (
            bool(self.operation & Operation.GET) and self.feature in (Feature.MIGRATION, Feature.MIG_DEVICE_STATE)
        )

    def read(self, layout: struct.Struct) -> tuple[int, ...]:
        """Read the feature's data."""
        return layout.unpack(self.process.read(self.data, layout.size))

    def write(self, data: bytes) -> None:
        """Write the feature's data."""
        self.process.write(self.data, data)


def read_request(process: Process, address: int) -> FeatureRequest | None:
    """Read what a call asks; None for a feature that is not about migration, which the kernel is to answer.

    Raises:
        OSError: EFAULT.
        Refusal: EINVAL, no kernel would understand it.
    """
    argsz, flags = _HEADER.unpack(process.read(address, _HEADER.size))
    try:
        feature = Feature(flags & _FEATURE_MASK)
    except ValueError:
        return None
    operation = Operation(flags & (Operation.GET | Operation.SET | Operation.PROBE))
    both = Operation.GET | Operation.SET
    if argsz < _HEADER.size or flags & ~_KNOWN_BITS or (not operation & Operation.PROBE and operation & both == both):
        raise Refusal(errno.EINVAL)
    return FeatureRequest(process, feature, operation, argsz, address + _HEADER.size)


def answer(request: FeatureRequest, device: Device, give: Callable[[Stream], int | None]) -> None:
    """Do what is asked, and write what is to be read.

    Args:
        give: puts the VMM's end of a stream into the VMM and returns its number there; None when the caller has gone.

    Raises:
        Refusal: the call's errno.
        OSError: EFAULT, the caller's memory is not where it says.
    """
    device.flags()  # ENOTTY for a function that may not migrate, whatever is asked
    if request.feature in _LOGGING and not device.can_log():
        raise Refusal(errno.ENOTTY)
    if not _has_data(request):
        return
    match request.feature:
        case Feature.MIGRATION:
            request.write(_U64.pack(device.flags()))
        case Feature.MIG_DEVICE_STATE if request.operation & Operation.GET:
            request.write(_STATE.pack(device.state, -1))
        case Feature.MIG_DEVICE_STATE:
            _set_state(request, device, give)
        case Feature.MIG_DATA_SIZE:
            request.write(_U64.pack(max(1, device.data_size())))  # QEMU fails a migration of 0 bytes
        case Feature.DMA_LOGGING_START:
            _logging_start(request, device)
        case Feature.DMA_LOGGING_STOP:
            device.logging_stop()
        case Feature.DMA_LOGGING_REPORT:
            _logging_report(request, device)


def _has_data(request: FeatureRequest) -> bool:
    """Check the operation as ``vfio_check_feature`` does; return whether it is more than a probe."""
    asked = _ASKED[request.feature]
    both = request.operation & (Operation.GET | Operation.SET)
    if both & ~asked.operations:
        raise Refusal(errno.EINVAL)
    if request.operation & Operation.PROBE:
        return False
    if not both or request.argsz < _HEADER.size + asked.data_bytes:
        raise Refusal(errno.EINVAL)
    return True


def _set_state(request: FeatureRequest, device: Device, give: Callable[[Stream], int | None]) -> None:
    number, _ = request.read(_STATE)
    request.write(_STATE.pack(number, -1))  # before anything happens: the answer must have a place to go
    try:
        state = DeviceState(number)
    except ValueError:
        raise Refusal(errno.EINVAL) from None
    stream = device.set_state(state)
    if stream is None:
        return
    data_fd = give(stream)
    if data_fd is None:  # interrupted, or killed; it asks again, or never
        return
    request.write(_STATE.pack(number, data_fd))


def _logging_start(request: FeatureRequest, device: Device) -> None:
    page_size, count, _reserved, pointer = request.read(_LOG_CONTROL)
    if count > _MOST_RANGES:
        raise Refusal(errno.E2BIG)
    if not count:
        raise Refusal(errno.EINVAL)
    _require_page_size(page_size)
    rows = _LOG_RANGE.iter_unpack(request.process.read(pointer, count * _LOG_RANGE.size))
    used = device.logging_start([LogRange(*row) for row in rows], page_size)
    request.write(_LOG_CONTROL.pack(used, count, 0, pointer))


def _logging_report(request: FeatureRequest, device: Device) -> None:
    iova, length, page_size, pointer = request.read(_LOG_REPORT)
    _require_page_size(page_size)
    if not length or iova + length > 1 << 64:
        raise Refusal(errno.EINVAL)
    pages = -(-length // page_size)
    size = -(-pages // 64) * 8  # the bitmap is one of u64
    if size > _LARGEST_BITMAP_BYTES:
        raise Refusal(errno.E2BIG)
    bitmap = device.logging_report(iova, length, page_size).ljust(size, b"\0")
    request.process.write(pointer, bitmap[:size])


def _require_page_size(page_size: int) -> None:
    """Refuse what is no power of two from 4 KiB on, as the kernel's iova_bitmap does for less than a page."""
    if page_size < 4096 or page_size & (page_size - 1):
        raise Refusal(errno.EINVAL)
