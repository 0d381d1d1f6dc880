"""VFIO's DMA logging, answered by Track Send and Track Receive where the controller has them.

The VMM names ranges of I/O addresses and a page size; the device tracks in units of its own, and so many ranges. Where
it cannot do what is asked, and where it tracks nothing, every page is reported as written: the VMM then copies all of
its memory while the VM stands still, which costs downtime and is never wrong. Or the operator says that logging is not
offered: a VMM that insists on it then does not migrate at all.

Source: NVM Express Base Specification 2.1, "Track Send command", "Track Receive command"; Linux 6.1
``include/uapi/linux/vfio.h``, ``VFIO_DEVICE_FEATURE_DMA_LOGGING_START``.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from functools import partial

from nvmelm.commands import AdminCommandError, execute, tracking
from nvmelm.errors import MalformedError, NvmelmError
from nvmelm.host import AdminQueue
from nvmelm.inventory.picture import Tracking
from nvmelm.vfio.seam import LogRange, Refusal
from nvmelm.wire.extents import Extent, merge
from nvmelm.wire.status import StatusCode
from nvmelm.wire.tracking import (
    TrackedMemoryChangedDescriptor,
    TrackedMemoryChanges,
    TrackedMemoryChangesHeader,
    TrackMemoryChanges,
)

_UNIT = 4096
#: 64 KiB, which every kernel and device carries.
_ANSWER_BYTES = TrackedMemoryChangesHeader.size + TrackedMemoryChangedDescriptor.size * 4095
_MOST_ANSWERS = 65536
_MOST_UNITS = (1 << 32) - 1
ALL_DIRTY = "every page is reported as written, so that the VMM copies all of the VM's memory while it stands still"


class MemoryLog:
    """What one controller writes, from the start of logging to its stop.

    Args:
        with_queue: runs a piece of work on the primary's admin queue while nobody else uses it.
        able: what the device tracks.

    Attributes:
        page_size: bytes of a page as the VMM was told.
        note: why every page counts as written; empty: the controller says which.
    """

    def __init__(
        self,
        with_queue: Callable[[Callable[[AdminQueue], object]], None],
        cntlid: int,
        able: Tracking,
        ranges: Sequence[LogRange],
        page_size: int,
    ) -> None:
        self._with_queue = with_queue
        self._cntlid = cntlid
        self._extents = [_extent(LogRange(*bounds)) for bounds in ranges]
        self._written: list[Extent] = []
        self.page_size = page_size
        self.note = "" if able.memory else f"the controller does not track memory: {ALL_DIRTY}"
        if able.memory:
            self._start(able)

    def _start(self, able: Tracking) -> None:
        """Begin to track, more coarsely where the device cannot do it as finely; or report every page."""
        unit = max(able.smallest_granularity_bytes, _UNIT)
        while unit <= max(able.largest_granularity_bytes, unit):
            wanted = _wanted(self._extents, unit, able)
            if able.memory_ranges and len(wanted.extents) > able.memory_ranges:
                self.note = f"the controller tracks {able.memory_ranges} ranges only: {ALL_DIRTY}"
                return
            try:
                self._with_queue(partial(_track, cntlid=self._cntlid, wanted=wanted))
            except AdminCommandError as error:
                if error.status.code != StatusCode.NOT_ENOUGH_RESOURCES:
                    raise
                coarser = _UNIT << min(tracking.tracking_limits(error.result).granularity, 52)
                if not unit < coarser <= able.largest_granularity_bytes:
                    self.note = f"the controller has no resources to track this ({error.status}): {ALL_DIRTY}"
                    return
                unit = coarser
            else:
                return

    def report(self, iova: int, length: int, page_size: int, *, suspended: bool = False) -> bytes:
        """Return a bitmap of the pages that were written since they were reported last.

        Args:
            suspended: the controller stands still, so that this is the last word.

        Raises:
            Refusal: EINVAL for a range that is not logged, or no whole pages.
            MalformedError: the device says that there is more to come from a controller that stands still.
        """
        if page_size <= 0 or page_size & page_size - 1 or iova % page_size or length <= 0:
            raise Refusal(errno.EINVAL, f"pages of {page_size} bytes at {iova:#x} cannot be reported")
        asked = Extent(iova, iova + length)
        if not any(extent.start <= asked.start and asked.end <= extent.end for extent in merge(self._extents)):
            raise Refusal(errno.EINVAL, f"memory at {iova:#x} is not logged")
        pages = -(-length // page_size)
        if self.note:
            return _ones(pages)
        self._take(suspended=suspended)
        bitmap = bytearray(-(-pages // 8))
        for extent in self._written:
            _mark(bitmap, extent, asked, page_size)
        self._written = _without(self._written, asked)
        return bytes(bitmap)

    def stop(self) -> None:
        """Stop tracking."""
        if not self.note:
            self._with_queue(lambda queue: _untrack(queue, self._cntlid))

    def _take(self, *, suspended: bool) -> None:
        """Take from the controller whatever it has to report; it says each write once."""

        def take(queue: AdminQueue) -> None:
            for _ in range(_MOST_ANSWERS):
                answer = execute(queue, tracking.tracked_memory(self._cntlid, _ANSWER_BYTES))
                changes = TrackedMemoryChanges.parse(answer.data)
                self._written = merge([*self._written, *changes.extents])
                if suspended and not changes.more and not changes.suspended:
                    raise MalformedError(
                        f"controller {self._cntlid:#06x} says that it is not suspended",
                        cause="Track Receive after the suspend has SUSP clear: what it wrote last is not known",
                        reason="track-unfinished",
                    )
                if not changes.more:
                    return
            raise MalformedError(
                f"controller {self._cntlid:#06x} reports changed memory without an end", reason="track-endless"
            )

        self._with_queue(take)


def _track(queue: AdminQueue, cntlid: int, wanted: TrackMemoryChanges) -> None:
    """Begin to track; what a log that ended without a word has left is stopped first."""
    start = tracking.start_memory_tracking(cntlid, wanted.pack())
    try:
        execute(queue, start)
    except AdminCommandError as error:
        if error.status.code != StatusCode.INVALID_CONTROLLER_IDENTIFIER:
            raise
        _untrack(queue, cntlid)
        execute(queue, start)


def _untrack(queue: AdminQueue, cntlid: int) -> None:
    execute(queue, tracking.stop_memory_tracking(cntlid))


def _extent(logged: LogRange) -> Extent:
    if logged.length <= 0 or logged.iova < 0 or logged.iova + logged.length > 1 << 64:
        raise Refusal(errno.EINVAL, f"{logged.length} bytes at {logged.iova:#x} are no range of memory")
    return Extent(logged.iova, logged.iova + logged.length)


def _wanted(extents: Sequence[Extent], unit: int, able: Tracking) -> TrackMemoryChanges:
    """Return the ranges in whole units of the device, as long as it wants them: never less than was asked for."""
    whole = merge(Extent(extent.start // unit * unit, -(-extent.end // unit) * unit) for extent in extents)
    pieces = [piece for extent in whole for piece in _pieces(extent, unit, power_of_two=able.power_of_two_lengths)]
    return TrackMemoryChanges((unit // _UNIT).bit_length() - 1, tuple(pieces))


def _pieces(extent: Extent, unit: int, *, power_of_two: bool) -> list[Extent]:
    """Cut a range into lengths that a descriptor takes: 32 bits of units, a power of two where the device wants it."""
    pieces, at = [], extent.start
    while at < extent.end:
        units = min((extent.end - at) // unit, _MOST_UNITS)
        if power_of_two:
            units = 1 << units.bit_length() - 1
        pieces.append(Extent(at, at + units * unit))
        at += units * unit
    return pieces


def _ones(pages: int) -> bytes:
    bitmap = bytearray(b"\xff" * (-(-pages // 8)))
    if pages % 8:
        bitmap[-1] = (1 << pages % 8) - 1
    return bytes(bitmap)


def _mark(bitmap: bytearray, extent: Extent, asked: Extent, page_size: int) -> None:
    """Set the bits of the pages that a written range touches."""
    start, end = max(extent.start, asked.start), min(extent.end, asked.end)
    if start >= end:
        return
    for page in range((start - asked.start) // page_size, (end - 1 - asked.start) // page_size + 1):
        bitmap[page // 8] |= 1 << page % 8


def _without(extents: Sequence[Extent], taken: Extent) -> list[Extent]:
    left = []
    for extent in extents:
        left += [Extent(extent.start, min(extent.end, taken.start)), Extent(max(extent.start, taken.end), extent.end)]
    return [piece for piece in left if piece.start < piece.end]


def stop_quietly(log: MemoryLog) -> str:
    """Stop a log whose VM is gone; return what could not be tidied up, or nothing."""
    try:
        log.stop()
    except NvmelmError as error:
        return f"tracking was not stopped: {error.message}"
    return ""
