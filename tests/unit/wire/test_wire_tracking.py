"""Tracking: extents merge, units become bytes, and markers and ranges of queue entries do not depend on each other."""

from __future__ import annotations

import contextlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvmelm.errors import MalformedError
from nvmelm.wire.extents import Extent, merge, total
from nvmelm.wire.tracking import (
    EntryMarker,
    MigrationQueueEntry,
    RangeScope,
    TrackedMemoryChanges,
    TrackMemoryChanges,
    pack_entry,
)
from tests.unit import golden

KIB = 1024


@pytest.mark.parametrize(
    ("extents", "merged"),
    [
        pytest.param([], [], id="nothing"),
        pytest.param([(5, 5), (9, 3)], [], id="empty"),
        pytest.param([(8, 12), (0, 4)], [(0, 4), (8, 12)], id="sorted"),
        pytest.param([(0, 4), (4, 8)], [(0, 8)], id="touching"),
        pytest.param([(0, 6), (4, 8)], [(0, 8)], id="overlapping"),
        pytest.param([(0, 10), (2, 3)], [(0, 10)], id="inside"),
        pytest.param([(0, 4), (0, 4)], [(0, 4)], id="twice"),
    ],
)
def test_extents_merge(extents: list[tuple[int, int]], merged: list[tuple[int, int]]) -> None:
    assert merge(Extent(*one) for one in extents) == [Extent(*one) for one in merged]


@given(st.lists(st.builds(Extent, st.integers(0, 60), st.integers(0, 60)), max_size=12))
def test_merging_keeps_every_byte_and_no_other(extents: list[Extent]) -> None:
    merged = merge(extents)
    covered = {byte for extent in extents for byte in range(extent.start, extent.end)}
    assert {byte for extent in merged for byte in range(extent.start, extent.end)} == covered
    assert all(one.end < other.start for one, other in itertools.pairwise(merged))
    assert total(extents) == len(covered)


def test_the_golden_ranges_to_track_both_ways() -> None:
    raw = golden.data("track_memory_changes_2desc_4k")
    ranges = TrackMemoryChanges(0, (Extent(1 << 32, (1 << 32) + 0x1000 * 4096), Extent(0, 0x80 * 4096)))
    assert TrackMemoryChanges.parse(raw) == ranges
    assert ranges.pack() == raw


def test_the_golden_tracked_memory_both_ways() -> None:
    raw = golden.data("tracked_memory_changes_2desc_mtr1_susp1_cntlid102")
    tracked = TrackedMemoryChanges.parse(raw)
    assert (tracked.cntlid, tracked.more, tracked.suspended, tracked.granularity) == (0x0102, True, True, 0)
    assert tracked.extents == (Extent(0x1_0000_3000, 0x1_0000_5000), Extent(0x7F000, 0x80000))
    assert not tracked.final
    assert tracked.pack() == raw


def test_lengths_are_in_units_of_the_granularity() -> None:
    ranges = TrackMemoryChanges(4, (Extent(64 * KIB, 192 * KIB),))
    assert ranges.pack() == bytes.fromhex("00000004 01000000 0000010000000000 02000000")
    assert TrackMemoryChanges.parse(ranges.pack()) == ranges


@pytest.mark.parametrize("extent", [(4 * KIB, 64 * KIB), (0, 4 * KIB), (64 * KIB, 0)])
def test_ranges_that_are_not_whole_units_are_refused(extent: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="whole units"):
        TrackMemoryChanges(4, (Extent(*extent),)).pack()


@pytest.mark.parametrize(("more", "suspended", "final"), [(0, 1, True), (1, 1, False), (0, 0, False), (1, 0, False)])
def test_a_report_is_final_when_suspended_and_nothing_is_left(more: int, suspended: int, final: bool) -> None:
    tracked = TrackedMemoryChanges(1, bool(more), bool(suspended), 0, ())
    assert TrackedMemoryChanges.parse(tracked.pack()).final is final


def test_bytes_behind_the_last_descriptor_are_not_read() -> None:
    raw = TrackedMemoryChanges(1, False, False, 0, (Extent(0, 4096),)).pack()
    assert TrackedMemoryChanges.parse(raw + b"\xff" * 64).extents == (Extent(0, 4096),)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        pytest.param("01", "version 1", id="version"),
        pytest.param("0000 0000 00000000 3500", "granularity of 2^53", id="granularity"),
        pytest.param("0000 0000 ffffffff 0000", "announces 4294967295 ranges", id="count"),
        pytest.param("0000 0000 01000000 0000 000000000000 00f0ffffffffffff 02000000", "last address", id="address"),
    ],
)
def test_reports_that_mean_nothing_are_refused(raw: str, message: str) -> None:
    with pytest.raises(MalformedError, match=message.replace("^", r"\^")):
        TrackedMemoryChanges.parse(bytes.fromhex(raw).ljust(64, b"\0"))


def test_ranges_to_track_have_no_bytes_behind_them() -> None:
    with pytest.raises(MalformedError, match="announces 0 ranges and has 20 bytes"):
        TrackMemoryChanges.parse(bytes(20))


@given(st.binary(max_size=120))
def test_any_bytes_are_tracking_or_malformed(raw: bytes) -> None:
    for parse in (TrackMemoryChanges.parse, TrackedMemoryChanges.parse, MigrationQueueEntry):
        with contextlib.suppress(MalformedError):
            parse(raw)


def test_golden_queue_entries() -> None:
    entry = MigrationQueueEntry(golden.data("lbamq0_range_nsid1_slba1122334455_8blocks_phase1"))
    assert (entry.phase, entry.marker, entry.scope, entry.nsid) == (1, EntryMarker.MIDDLE, RangeScope.RANGE, 1)
    assert entry.blocks == (0x11_2233_4455, 0x11_2233_445D)
    marker = MigrationQueueEntry(golden.data("lbamq0_suspended_marker_phase1"))
    assert (marker.phase, marker.marker, marker.scope) == (1, EntryMarker.LAST_SUSPENDED, RangeScope.NONE)
    assert (marker.blocks, marker.extent(512)) == (None, None)
    trimmed = MigrationQueueEntry(golden.data("lbamq0_dealloc_nsid1_slba4096_256blocks_phase0"))
    assert (trimmed.phase, trimmed.deallocated, trimmed.extent(512)) == (0, True, Extent(2048 * KIB, 2176 * KIB))


def test_golden_queue_entries_are_built_byte_for_byte() -> None:
    start = 0x11_2233_4455
    assert pack_entry(phase=1, nsid=1, blocks=(start, start + 8)) == golden.data(
        "lbamq0_range_nsid1_slba1122334455_8blocks_phase1"
    )
    assert pack_entry(phase=1, marker=EntryMarker.LAST_SUSPENDED) == golden.data("lbamq0_suspended_marker_phase1")
    assert pack_entry(phase=0, nsid=1, blocks=(4096, 4352), deallocated=True) == golden.data(
        "lbamq0_dealloc_nsid1_slba4096_256blocks_phase0"
    )


def test_a_marker_may_carry_a_range_and_unknown_values_survive() -> None:
    entry = MigrationQueueEntry(pack_entry(phase=1, nsid=1, blocks=(10, 11), marker=EntryMarker.LAST_STOPPED))
    assert (entry.marker, entry.blocks) == (EntryMarker.LAST_STOPPED, (10, 11))
    unknown = MigrationQueueEntry(pack_entry(phase=0, marker=5, scope=3))
    assert (unknown.marker, unknown.scope, unknown.blocks) == (5, 3, None)
    whole = MigrationQueueEntry(pack_entry(phase=1, nsid=7, scope=RangeScope.WHOLE_NAMESPACE))
    assert (whole.nsid, whole.scope, whole.blocks) == (7, RangeScope.WHOLE_NAMESPACE, None)


@pytest.mark.parametrize("wrong", [{"blocks": (5, 5)}, {"marker": 8}, {"scope": 4}, {"phase": 2}, {"blocks": (-1, 1)}])
def test_entries_that_do_not_fit_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="fit"):
        pack_entry(**{"phase": 1, "nsid": 1} | wrong)
