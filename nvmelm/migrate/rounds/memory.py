"""Dirty tracking before the suspend: which memory a controller writes while it runs, in rounds.

The caller names the memory, has it copied, and is told in each round what was written since: it copies that again. The
rounds end when little enough is written between two of them, when they do not get smaller, or at a bound. A last round
after the suspend has what was written until then. A report is given once by the device, so it is handed on before the
next one is asked for.

Source: NVM Express Base Specification 2.1, "Track Send command", "Track Receive command".
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nvmelm.commands import execute, tracking
from nvmelm.errors import MalformedError, NotSupportedError, NvmelmError, UsageError
from nvmelm.host import AdminQueue
from nvmelm.inventory.opened import OpenPrimary
from nvmelm.inventory.picture import Primary
from nvmelm.numbers import size
from nvmelm.ownership.sessions import Moving
from nvmelm.wire.extents import Extent, merge, total
from nvmelm.wire.tracking import (
    TrackedMemoryChangedDescriptor,
    TrackedMemoryChanges,
    TrackedMemoryChangesHeader,
    TrackMemoryChanges,
)

_UNIT = 4096
#: Ranges one answer has room for: 64 KiB, which every kernel and device carries.
_RANGES_AT_ONCE = (64 * 1024 - TrackedMemoryChangesHeader.size) // TrackedMemoryChangedDescriptor.size
_ANSWER_BYTES = TrackedMemoryChangesHeader.size + _RANGES_AT_ONCE * TrackedMemoryChangedDescriptor.size
#: A device that reports on and on after the suspend reports nonsense.
_MOST_ANSWERS = 65536
#: Rounds that shrink by less than this do not get anywhere.
_SHRINKS = 0.9
_ADDRESSES = 1 << 64


@dataclass(frozen=True, slots=True)
class MemoryRound:
    """What one round found.

    Attributes:
        seconds: since the round before, or the start.
        extents: half-open ranges of bytes, sorted and disjoint.
        after_suspend: the last one: nothing is added to it before the controller is resumed.
    """

    cntlid: int
    number: int
    seconds: float
    extents: tuple[Extent, ...]
    after_suspend: bool

    @property
    def bytes(self) -> int:
        """Return how much memory was written."""
        return total(self.extents)


OnDirty = Callable[[MemoryRound], None]
"""Told of each round, before the next; it copies what was written, or has it copied."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When the rounds end.

    Attributes:
        threshold_bytes: a round with no more than this ends them.
        rounds: at most so many before the suspend.
        seconds: no round begins later than this.
    """

    threshold_bytes: int = 1 << 20
    rounds: int = 16
    seconds: float = 60.0

    def go(self, go_round: Callable[[], int], enough: int, started: float) -> None:
        """Go through rounds until one finds little enough, or not much less than the one before, or a bound is met.

        Args:
            go_round: goes one round and returns how much it found.
            enough: a round that finds no more is the last one.
            started: when it all began, by the monotonic clock.
        """
        before = math.inf
        for _ in range(self.rounds):
            amount = go_round()
            if amount <= enough or amount > before * _SHRINKS or time.monotonic() - started > self.seconds:
                return
            before = amount


def parse_range(text: str) -> Extent:
    """Read ``BASE:LENGTH``, both bytes, decimal or ``0x…``, or sizes such as ``4GiB``.

    Raises:
        UsageError: it is none, or it ends behind the last address.
    """
    base, colon, length = text.partition(":")
    start, length_b = size(base, most=_ADDRESSES), size(length, most=_ADDRESSES)
    if not colon or not length_b or start is None or start + length_b > _ADDRESSES:
        raise UsageError(
            f"{text[:60]!r} is no range of memory",
            fix="write it as BASE:LENGTH: --track 4GiB:1GiB, or in bytes, --track 0x100000000:0x40000000",
            reason="track-range",
        )
    return Extent(start, start + length_b)


def plan(primary: Primary, ranges: Sequence[Extent]) -> TrackMemoryChanges:
    """Return what to ask the device for: the finest granularity it has, and the ranges in whole units of it.

    Raises:
        NotSupportedError: the device does not track memory, or not so many ranges.
        UsageError: a range is not whole units; or not a power of two long, where the device wants that.
    """
    able = primary.tracking
    if not able.memory:
        raise NotSupportedError(
            f"{primary.address} does not track which memory its controllers write",
            cause="its Identify data has Track Memory Changes (TRATTR bit 0) clear",
            fix="migrate without --track; the guest's memory is then copied while it stands still",
            reason="no-memory-tracking",
        )
    merged = merge(ranges)
    if len(merged) > able.memory_ranges > 0:
        raise NotSupportedError(
            f"{primary.address} tracks {able.memory_ranges} ranges at most, and {len(merged)} were named",
            fix="name fewer and larger ranges",
            reason="track-ranges",
        )
    unit = able.smallest_granularity_bytes
    for extent in merged:
        if extent.start % unit or extent.length % unit:
            raise UsageError(
                f"the range at {extent.start:#x} is not whole units of {unit} bytes",
                cause="that is the finest the device tracks",
                fix="align its base and its length",
                reason="track-range",
            )
        if able.power_of_two_lengths and extent.length & (extent.length - 1):
            raise UsageError(
                f"the range at {extent.start:#x} is {extent.length:#x} bytes long",
                cause="the device wants lengths that are powers of two",
                fix="split it",
                reason="track-range",
            )
    return TrackMemoryChanges((unit // _UNIT).bit_length() - 1, tuple(merged))


class Tracker:
    """Tracks the memory of some controllers, from its making until it is closed."""

    def __init__(
        self,
        queue: AdminQueue,
        controllers: Sequence[int],
        wanted: TrackMemoryChanges,
        on_dirty: OnDirty,
        limits: Limits | None = None,
    ) -> None:
        self.rounds: list[MemoryRound] = []
        self.notes: list[str] = []
        self._queue = queue
        self._controllers = list(controllers)
        self._on_dirty = on_dirty
        self._limits = limits or Limits()
        self._started = self._since = time.monotonic()
        self._tracked: list[int] = []
        try:
            for cntlid in self._controllers:
                execute(queue, tracking.start_memory_tracking(cntlid, wanted.pack()))
                self._tracked.append(cntlid)
        except BaseException:
            self.close()
            raise

    def converge(self) -> None:
        """Go through rounds until little enough is written, or a bound is met.

        Raises:
            AdminCommandError: the device refused.
            MalformedError: it reports nonsense.
        """
        self._limits.go(lambda: self._round(after_suspend=False), self._limits.threshold_bytes, self._started)

    def final(self) -> None:
        """Take what was written until the suspend; the controllers are suspended."""
        self._round(after_suspend=True)

    def close(self) -> None:
        """Stop tracking; a device that refuses is noted, for it stops with the controller at the latest."""
        for cntlid in self._tracked:
            try:
                execute(self._queue, tracking.stop_memory_tracking(cntlid))
            except NvmelmError as error:
                self.notes.append(f"tracking of {cntlid:#06x} was not stopped: {error.message}")
        self._tracked.clear()

    def _round(self, *, after_suspend: bool) -> int:
        number, now = len(self.rounds) // len(self._controllers) + 1, time.monotonic()
        seconds, self._since = now - self._since, now
        dirty = 0
        for cntlid in self._controllers:
            extents = self._read(cntlid, after_suspend=after_suspend)
            tracked = MemoryRound(cntlid, number, seconds, extents, after_suspend)
            self.rounds.append(tracked)
            self._on_dirty(tracked)
            dirty += tracked.bytes
        return dirty

    def _read(self, cntlid: int, *, after_suspend: bool) -> tuple[Extent, ...]:
        """Read until there is nothing more to report; after the suspend, until nothing will ever be added."""
        extents: list[Extent] = []
        for _ in range(_MOST_ANSWERS):
            changes = TrackedMemoryChanges.parse(
                execute(self._queue, tracking.tracked_memory(cntlid, _ANSWER_BYTES)).data
            )
            extents = merge([*extents, *changes.extents])
            if changes.final or not (changes.more or after_suspend):
                return tuple(extents)
            if after_suspend and not changes.more and not changes.suspended:
                raise MalformedError(
                    f"controller {cntlid:#06x} says that it is not suspended",
                    cause="Track Receive after the suspend has SUSP clear: what it wrote last is not known",
                    reason="track-unfinished",
                )
        raise MalformedError(f"controller {cntlid:#06x} reports changed memory without an end", reason="track-endless")


def starter(
    primary: Primary, ranges: Sequence[Extent], on_dirty: OnDirty, limits: Limits | None = None
) -> Callable[[OpenPrimary, Sequence[Moving]], Tracker]:
    """Return what starts tracking when the migration has come to that; the plan is checked here, before.

    Raises:
        NotSupportedError, UsageError: see :func:`plan`.
    """
    wanted = plan(primary, ranges)
    return lambda session, controllers: Tracker(
        session.queue, [controller.cntlid for controller in controllers], wanted, on_dirty, limits
    )
