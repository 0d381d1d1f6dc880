"""Track Send and Track Receive: which memory a controller writes, and which blocks.

Source: NVM Express Base Specification 2.1, Track Send command; Track Receive command.
"""

from __future__ import annotations

from nvmelm.emulator.device import data_queue
from nvmelm.emulator.device.command_words import CONTROLLER_11, LOG_USER_DATA_10, TRACK_MEMORY_10
from nvmelm.emulator.device.request import (
    CONTROLLER_SUSPENDED,
    DATA_TRANSFER_ERROR,
    INVALID_CONTROLLER_IDENTIFIER,
    INVALID_FIELD,
    NOT_ENOUGH_RESOURCES,
    AdminRequest,
    CommandRefusal,
)
from nvmelm.emulator.machine.state import EmulatedController, TrackedMemory
from nvmelm.wire.extents import Extent, merge
from nvmelm.wire.opcodes import TrackAction, TrackReceiveSelect, TrackSendSelect
from nvmelm.wire.tracking import (
    MemoryRangeTrackingDescriptor,
    TrackedMemoryChangedDescriptor,
    TrackedMemoryChanges,
    TrackedMemoryChangesHeader,
    TrackMemoryChangesHeader,
)

_UNIT = 4096


def track_send(request: AdminRequest) -> tuple[int, bytes]:
    """Start or stop tracking."""
    row = request.row
    match request.select:
        case TrackSendSelect.LOG_USER_DATA_CHANGES if row.user_data_logging:
            action = LOG_USER_DATA_10.unpack(request.command.cdw10)["action"]
            data_queue.log(request, start=action == TrackAction.START)
            return 0, b""
        case TrackSendSelect.TRACK_MEMORY_CHANGES if row.memory_tracking:
            return _track_memory(request)
        case TrackSendSelect.LOG_USER_DATA_CHANGES | TrackSendSelect.TRACK_MEMORY_CHANGES:
            raise CommandRefusal(row.track_unsupported)
    raise CommandRefusal(INVALID_FIELD)


def _track_memory(request: AdminRequest) -> tuple[int, bytes]:
    controller = request.secondary(CONTROLLER_11.unpack(request.command.cdw11)["cntlid"])
    if TRACK_MEMORY_10.unpack(request.command.cdw10)["action"] == TrackAction.STOP:
        controller["tracking"] = None
        return 0, b""
    if controller["tracking"] is not None:
        raise CommandRefusal(INVALID_CONTROLLER_IDENTIFIER)
    if controller["suspended"]:
        raise CommandRefusal(CONTROLLER_SUSPENDED)
    controller["tracking"] = _start(request)
    return 0, b""


def _start(request: AdminRequest) -> TrackedMemory:
    row = request.row
    header = TrackMemoryChangesHeader(bytes(request.data_out(TrackMemoryChangesHeader.size)))
    if header.ver or not row.granularity_min <= header.rmrtg <= row.granularity_max or not header.rnmrtd:
        raise CommandRefusal(INVALID_FIELD)
    others = [secondary["tracking"] for secondary in request.primary["secondaries"].values()]
    in_use = sum(len(tracking["ranges"]) for tracking in others if tracking is not None)
    room = min(row.tracking_descriptors, row.tracking_descriptors_subsystem - in_use)
    if header.rnmrtd > row.tracking_descriptors or header.rnmrtd + in_use > row.tracking_descriptors_subsystem:
        raise CommandRefusal(INVALID_FIELD)
    if header.rmrtg < row.granularity_works:
        raise CommandRefusal(NOT_ENOUGH_RESOURCES, row.granularity_works | room << 32)
    size = TrackMemoryChangesHeader.size + MemoryRangeTrackingDescriptor.size * header.rnmrtd
    raw, unit, ranges = request.data_out(size), _UNIT << header.rmrtg, []
    for offset in range(TrackMemoryChangesHeader.size, size, MemoryRangeTrackingDescriptor.size):
        descriptor = MemoryRangeTrackingDescriptor.at(raw, offset)
        if descriptor.saddr % unit or not descriptor.len:
            raise CommandRefusal(INVALID_FIELD)
        if row.power_of_two_lengths and descriptor.len & (descriptor.len - 1):
            raise CommandRefusal(INVALID_FIELD)
        ranges.append([descriptor.saddr, descriptor.saddr + descriptor.len * unit])
    return TrackedMemory(exponent=header.rmrtg, ranges=ranges, dirty={})


def written(controller: EmulatedController, address: int, length: int) -> None:
    """Note that a controller wrote memory."""
    tracking = controller["tracking"]
    if tracking is None:
        return
    unit = _UNIT << tracking["exponent"]
    for number in range(address // unit, (address + length - 1) // unit + 1):
        at = number * unit
        if any(start < at + unit and at < end for start, end in tracking["ranges"]):
            tracking["dirty"][str(number)] = 1


def track_receive(request: AdminRequest) -> tuple[int, bytes]:
    """Report memory that was written, each change once."""
    if not request.row.memory_tracking:
        raise CommandRefusal(request.row.track_unsupported)
    if request.select != TrackReceiveSelect.TRACKED_MEMORY_CHANGES:
        raise CommandRefusal(INVALID_FIELD)
    controller = request.secondary(CONTROLLER_11.unpack(request.command.cdw11)["cntlid"])
    tracking = controller["tracking"]
    if tracking is None:
        raise CommandRefusal(INVALID_CONTROLLER_IDENTIFIER)
    length = 4 * (request.command.cdw12 + 1)
    if request.command.data_in_length < length:
        raise CommandRefusal(DATA_TRANSFER_ERROR)
    room = (length - TrackedMemoryChangesHeader.size) // TrackedMemoryChangedDescriptor.size
    if room < 0:
        raise CommandRefusal(INVALID_FIELD)
    unit = _UNIT << tracking["exponent"]
    dirty = merge(Extent(int(number) * unit, (int(number) + 1) * unit) for number in tracking["dirty"])
    reported = dirty[:room]
    for extent in reported:
        for number in range(extent.start // unit, extent.end // unit):
            del tracking["dirty"][str(number)]
    changes = TrackedMemoryChanges(
        controller["cntlid"], bool(tracking["dirty"]), controller["suspended"], tracking["exponent"], tuple(reported)
    )
    return 0, changes.pack()
