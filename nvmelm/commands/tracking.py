"""Builders of Track Send and Track Receive: what changes while the controller still runs.

Source: NVM Express Base Specification 2.1, "Track Send command" and "Track Receive command".
"""

from __future__ import annotations

from dataclasses import dataclass

from nvmelm.errors import MalformedError
from nvmelm.host import AdminCommand
from nvmelm.wire.layout import Word
from nvmelm.wire.opcodes import Opcode, TrackAction, TrackReceiveSelect, TrackSendSelect
from nvmelm.wire.tracking import TrackedMemoryChangesHeader, TrackMemoryChanges

#: MOS bits 3:0 are the logging action (LACT), bit 0 alone the tracking action (TACT); both are 0 to stop, 1 to start.
SEND_CDW10 = Word(sel="7:0", action="19:16")
SEND_CDW11_QUEUE = Word(cdqid="15:0")
SEND_CDW11_CONTROLLER = Word(cntlid="15:0")

RECEIVE_CDW10 = Word(sel="7:0")
RECEIVE_CDW11 = Word(cntlid="15:0")
RECEIVE_CDW12 = Word(numd="31:0")

_DWORD = 4


def start_user_data_log(cdqid: int) -> AdminCommand:
    """Build Track Send, Log User Data Changes, start: write changed blocks to a User Data Migration Queue.

    Args:
        cdqid: the queue, created for the controller that is to be logged.

    Status to expect:
        Invalid Controller Data Queue: no such queue, or its controller is logged already.
        Controller Suspended: logging starts only while it runs.
        Controller Data Queue Full: the queue has entries nobody took.

    Source: NVM Express Base Specification 2.1, "Track Send command", Log User Data Changes.
    """
    return _user_data_log(cdqid, TrackAction.START)


def stop_user_data_log(cdqid: int) -> AdminCommand:
    """Build Track Send, Log User Data Changes, stop: the queue gets a last entry that says so.

    Args:
        cdqid: the queue.

    Status to expect:
        Invalid Controller Data Queue: no such queue.

    Source: NVM Express Base Specification 2.1, "Track Send command", Log User Data Changes.
    """
    return _user_data_log(cdqid, TrackAction.STOP)


def start_memory_tracking(cntlid: int, ranges: bytes) -> AdminCommand:
    """Build Track Send, Track Memory Changes, start: note which memory the controller writes.

    The command has no length field; the size follows from the structure, so the bytes must be all of it.

    Args:
        cntlid: the controller to track.
        ranges: a packed :class:`~nvmelm.wire.tracking.TrackMemoryChanges`.

    Status to expect:
        Invalid Controller Identifier: the managing controller's own id, or tracked already.
        Controller Suspended: tracking starts only while it runs.
        Not Enough Resources: too fine, or too many ranges; :func:`tracking_limits` says what would do.
        Invalid Field in Command: a granularity, a count or a range outside what Identify Controller allows.

    Raises:
        ValueError: the bytes are not exactly one structure, or the id does not fit.

    Source: NVM Express Base Specification 2.1, "Track Send command", Track Memory Changes.
    """
    try:
        TrackMemoryChanges.parse(ranges)
    except MalformedError as error:
        raise ValueError(f"ranges: {error.message}") from error
    return _memory_tracking(cntlid, TrackAction.START, ranges)


def stop_memory_tracking(cntlid: int) -> AdminCommand:
    """Build Track Send, Track Memory Changes, stop.

    Args:
        cntlid: the tracked controller.

    Status to expect:
        Invalid Controller Identifier: it is not tracked.

    Source: NVM Express Base Specification 2.1, "Track Send command", Track Memory Changes.
    """
    return _memory_tracking(cntlid, TrackAction.STOP, None)


def tracked_memory(cntlid: int, length: int) -> AdminCommand:
    """Build Track Receive, Tracked Memory Changes: what was written since the last time.

    What a successful command reported is forgotten by the controller, so its answer must not be lost.

    Args:
        cntlid: the tracked controller.
        length: bytes, a multiple of 4, at least the 16 of the head; every further range takes 16.

    Status to expect:
        Invalid Controller Identifier: it is not tracked by this controller.

    Raises:
        ValueError: a value that does not fit, or a length that holds no head.

    Source: NVM Express Base Specification 2.1, "Track Receive command".
    """
    if length % _DWORD or length < TrackedMemoryChangesHeader.size:
        raise ValueError(f"length={length} is not whole dwords, {TrackedMemoryChangesHeader.size} bytes or more")
    return AdminCommand(
        name="Track Receive (Tracked Memory Changes)",
        opcode=Opcode.TRACK_RECEIVE,
        cdw10=RECEIVE_CDW10.pack(sel=TrackReceiveSelect.TRACKED_MEMORY_CHANGES),
        cdw11=RECEIVE_CDW11.pack(cntlid=cntlid),
        cdw12=RECEIVE_CDW12.pack(numd=length // _DWORD - 1),
        data_in_length=length,
    )


@dataclass(frozen=True, slots=True)
class TrackingLimits:
    """What a controller could track when it could not track what was asked.

    Attributes:
        granularity: the lowest exponent n it can do, 2^n times 4 KiB.
        ranges: how many ranges it can do at the granularity that was asked for.
    """

    granularity: int
    ranges: int


def tracking_limits(result: int) -> TrackingLimits:
    """Read what came with Not Enough Resources (MRTG in DW0 bits 15:0, NMRTD in DW1)."""
    return TrackingLimits(granularity=result & 0xFFFF, ranges=result >> 32 & 0xFFFF_FFFF)


def _user_data_log(cdqid: int, action: TrackAction) -> AdminCommand:
    return AdminCommand(
        name="Track Send (Log User Data Changes)",
        opcode=Opcode.TRACK_SEND,
        cdw10=SEND_CDW10.pack(sel=TrackSendSelect.LOG_USER_DATA_CHANGES, action=action),
        cdw11=SEND_CDW11_QUEUE.pack(cdqid=cdqid),
    )


def _memory_tracking(cntlid: int, action: TrackAction, ranges: bytes | None) -> AdminCommand:
    return AdminCommand(
        name="Track Send (Track Memory Changes)",
        opcode=Opcode.TRACK_SEND,
        cdw10=SEND_CDW10.pack(sel=TrackSendSelect.TRACK_MEMORY_CHANGES, action=action),
        cdw11=SEND_CDW11_CONTROLLER.pack(cntlid=cntlid),
        data_out=ranges,
    )
