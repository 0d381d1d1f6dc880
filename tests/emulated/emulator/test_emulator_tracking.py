"""What a running controller changes is tracked: memory it writes, blocks it writes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nvmelm.emulator.guest.guest import Guest
from nvmelm.emulator.machine.generations import NVME_2_1, NVME_2_1_UDMQ, TP4159
from nvmelm.wire.data_queue import UserDataMigrationQueueReader
from nvmelm.wire.extents import Extent, merge
from nvmelm.wire.tracking import EntryMarker, TrackedMemoryChanges, TrackMemoryChanges
from tests.emulated.emulator_bench import (
    DATA_QUEUE,
    FIRST,
    PF,
    PRIMARY,
    SECOND,
    SEND,
    TRACK_RECEIVE,
    TRACK_SEND,
    VF1,
    Bench,
    bench,
)

MiB = 1 << 20
START_MEMORY, STOP_MEMORY = 0x0001_0001, 0x0000_0001
START_LOG, STOP_LOG = 0x0001_0000, 0x0000_0000


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Bench]:
    device = bench(tmp_path / "host", NVME_2_1_UDMQ)
    device.prepare()
    yield device
    device.host.close()


def track(device: Bench, *extents: Extent, exponent: int = 0, cntlid: int = FIRST) -> int:
    return device.status(TRACK_SEND, START_MEMORY, cntlid, data_out=TrackMemoryChanges(exponent, extents).pack())


def changes(device: Bench, length: int = 4096) -> TrackedMemoryChanges:
    completion = device.send(TRACK_RECEIVE, 0, FIRST, cdw12=length // 4 - 1, data_in_length=length)
    assert completion.status == 0
    return TrackedMemoryChanges.parse(completion.data)


def running_guest(device: Bench) -> Guest:
    guest = Guest.create(device.host, VF1)
    guest.attach(device.host, VF1)
    return guest


def test_what_the_controller_writes_is_reported_and_what_the_guest_writes_is_not(device: Bench) -> None:
    guest = running_guest(device)
    assert track(device, Extent(0, MiB)) == 0
    reported: list[Extent] = []
    for _ in range(10):
        guest.step(5)
        reported += changes(device).extents
    assert device.suspend() == 0
    last = changes(device, 65536)
    assert last.final
    assert changes(device).extents == ()
    pages = {page for extent in (*reported, *last.extents) for page in range(extent.start >> 12, extent.end >> 12)}
    assert {9, 11} <= pages  # completion queues
    assert not pages & {0, 2, 8, 10}  # the admin queue, the guest's own memory, submission queues
    buffers = {page for page in pages if page >= 32}
    assert buffers  # data of reads,
    assert not any((page - 32) % 4 == 0 for page in buffers)  # and no PRP lists


def test_a_report_that_does_not_fit_says_there_is_more_and_nothing_is_reported_twice(device: Bench) -> None:
    guest = running_guest(device)
    assert track(device, Extent(0, MiB)) == 0
    guest.step(60)
    seen: list[Extent] = []
    while True:
        report = changes(device, 32)
        assert len(report.extents) <= 1
        seen += report.extents
        if not report.more:
            break
    assert len(seen) > 2
    assert sum(extent.length for extent in merge(seen)) == sum(extent.length for extent in seen)


def test_coarser_units_and_ranges_limit_what_is_reported(device: Bench) -> None:
    guest = running_guest(device)
    assert track(device, Extent(0, 0x20000), exponent=4) == 0
    guest.step(40)
    report = changes(device)
    assert report.granularity == 4
    assert report.extents == (Extent(0, 0x10000),)  # the completion queues' unit; buffers lie outside the range


@pytest.mark.parametrize(
    ("extents", "exponent", "cntlid", "status"),
    [
        pytest.param([(0, 4096)], 10, FIRST, 0x4002, id="granularity-too-coarse"),
        pytest.param([(0, 4096)] * 65, 0, FIRST, 0x4002, id="too-many-ranges"),
        pytest.param([], 0, FIRST, 0x4002, id="no-range"),
        pytest.param([(0, 4096)], 0, PRIMARY, 0x411F, id="the-primary-itself"),
        pytest.param([(0, 4096)], 0, 0x99, 0x411F, id="stranger"),
    ],
)
def test_memory_that_cannot_be_tracked_is_refused(
    device: Bench, extents: list[tuple[int, int]], exponent: int, cntlid: int, status: int
) -> None:
    unit = 1 << exponent
    pieces = [Extent(start * unit, end * unit) for start, end in extents]
    assert track(device, *pieces, exponent=exponent, cntlid=cntlid) == status


def test_unaligned_addresses_other_versions_and_short_buffers_are_refused(device: Bench) -> None:
    good = TrackMemoryChanges(0, (Extent(0, 4096),)).pack()
    unaligned = good[:8] + (512).to_bytes(8, "little") + good[16:]
    assert device.status(TRACK_SEND, START_MEMORY, FIRST, data_out=unaligned) == 0x4002
    assert device.status(TRACK_SEND, START_MEMORY, FIRST, data_out=b"\x01" + good[1:]) == 0x4002
    assert device.status(TRACK_SEND, START_MEMORY, FIRST, data_out=good[:16]) == 0x4004


def test_tracking_starts_once_stops_at_will_and_not_while_suspended(device: Bench) -> None:
    assert device.status(TRACK_RECEIVE, 0, FIRST, cdw12=7, data_in_length=32) == 0x411F
    assert track(device, Extent(0, 4096)) == 0
    assert track(device, Extent(0, 4096)) == 0x411F
    assert device.status(TRACK_SEND, STOP_MEMORY, FIRST) == 0
    assert device.suspend() == 0
    assert track(device, Extent(0, 4096)) == 0x4139


def test_lengths_may_have_to_be_powers_of_two_and_a_finer_granularity_is_named_in_both_dwords(tmp_path: Path) -> None:
    device = bench(tmp_path / "host", NVME_2_1.with_(power_of_two_lengths=True, granularity_works=2))
    device.prepare()
    assert track(device, Extent(0, 3 * 0x4000), exponent=2) == 0x4002
    completion = device.send(TRACK_SEND, START_MEMORY, FIRST, data_out=TrackMemoryChanges(0, (Extent(0, 4096),)).pack())
    assert (completion.status, completion.result) == (0x4138, 2 | 64 << 32)
    device.host.close()


def queue(device: Bench, slots: int = 16, cntlid: int = FIRST) -> tuple[int, UserDataMigrationQueueReader, memoryview]:
    memory = device.host.allocate(slots * 32)
    words = {"cdw12": slots * 8, "data_out": memory}
    completion = device.send(DATA_QUEUE, 0, cntlid << 16 | 1, **words)
    assert completion.status == 0
    return completion.result, UserDataMigrationQueueReader(memory[: slots * 32]), memory


def test_a_reader_learns_of_every_block_a_guest_writes(device: Bench) -> None:
    guest = running_guest(device)
    number, reader, memory = queue(device, 64)
    assert device.status(TRACK_SEND, START_LOG, number) == 0
    written: set[int] = set()
    for _ in range(40):
        guest.step(1)
        for entry in reader.take():
            if entry.blocks is not None:
                written |= set(range(*entry.blocks))
        head = reader.head_to_publish
        if head is not None:
            assert device.status(0x09, 0x21, number, cdw12=head) == 0
            reader.published()
    assert device.suspend() == 0
    entries = reader.take()
    for entry in entries:
        if entry.blocks is not None:
            written |= set(range(*entry.blocks))
    assert entries[-1].marker == EntryMarker.LAST_SUSPENDED
    medium = next(Path(device.host.machine.directory, "namespaces").iterdir()).read_bytes()
    dirty = {at // 512 for at in range(0, len(medium), 512) if medium[at : at + 6] == b"RECORD"}
    assert dirty
    assert dirty <= written
    assert device.resume() == 0
    assert reader.take()[-1].marker == EntryMarker.FIRST
    del reader, entry, entries
    memory.release()


def test_a_queue_that_is_not_emptied_ends_its_log(device: Bench) -> None:
    guest = running_guest(device)
    number, reader, _ = queue(device, 8)
    assert device.status(TRACK_SEND, START_LOG, number) == 0
    guest.step(40)
    entries = reader.take()
    assert len(entries) == 7
    assert entries[-1].marker == EntryMarker.LAST_FULL
    assert reader.must_restart


def test_a_queue_made_from_a_plain_buffer_loses_its_entries(device: Bench) -> None:
    guest = running_guest(device)
    buffer = bytearray(512)
    completion = device.send(DATA_QUEUE, 0, FIRST << 16 | 1, cdw12=128, data_out=memoryview(buffer))
    assert completion.status == 0
    assert device.status(TRACK_SEND, START_LOG, completion.result) == 0
    guest.step(20)
    assert not any(buffer)
    with device.host.machine.view() as state:
        assert state["primaries"][PF]["queues"][str(completion.result)]["wild"] > 0


@pytest.mark.parametrize(
    ("cdw11", "dwords", "status"),
    [
        pytest.param(0x99 << 16 | 1, 128, 0x411F, id="stranger"),
        pytest.param(FIRST << 16 | 1, 100, 0x4002, id="not-whole-entries"),
        pytest.param(FIRST << 16 | 1, 8, 0x4002, id="one-slot"),
        pytest.param(FIRST << 16 | 1, 1024, 0x4004, id="buffer-too-short"),
    ],
)
def test_a_queue_that_cannot_be_is_refused(device: Bench, cdw11: int, dwords: int, status: int) -> None:
    assert device.status(DATA_QUEUE, 0, cdw11, cdw12=dwords, data_out=bytes(512)) == status


def test_a_controller_has_one_queue_and_the_device_as_many_as_it_says(tmp_path: Path) -> None:
    device = bench(tmp_path / "host", NVME_2_1_UDMQ.with_(data_queues=1))
    first, _, _ = queue(device)
    again = {"cdw12": 128, "data_out": bytes(512)}
    assert device.status(DATA_QUEUE, 0, FIRST << 16 | 1, **again) == 0x4002
    assert device.status(DATA_QUEUE, 0, SECOND << 16 | 1, **again) == 0x4138
    assert device.status(DATA_QUEUE, 1, first) == 0
    assert device.status(DATA_QUEUE, 1, first) == 0x4137
    assert device.status(DATA_QUEUE, 0, SECOND << 16 | 1, **again) == 0
    device.host.close()


def test_logging_starts_once_per_queue_and_suspend_can_delete_it(device: Bench) -> None:
    number, reader, _ = queue(device)
    assert device.status(TRACK_SEND, START_LOG, number + 1) == 0x4137
    assert device.status(TRACK_SEND, START_LOG, number) == 0
    assert device.status(TRACK_SEND, START_LOG, number) == 0x4137
    assert device.status(TRACK_SEND, STOP_LOG, number) == 0
    assert [entry.marker for entry in reader.take()] == [EntryMarker.FIRST, EntryMarker.LAST_STOPPED]
    assert device.status(SEND, 0, 1 << 31 | 1 << 16 | FIRST) == 0
    assert device.status(TRACK_SEND, START_LOG, number) == 0x4137


def test_the_head_moves_over_posted_entries_only(device: Bench) -> None:
    number, _, _ = queue(device)
    assert device.status(0x09, 0x21, number, cdw12=1) == 0x4002
    assert device.status(TRACK_SEND, START_LOG, number) == 0
    assert device.status(0x09, 0x21, number, cdw12=2) == 0x4002
    assert device.status(0x09, 0x21, 1 << 31 | number, cdw12=1, cdw13=16) == 0x4002
    assert device.status(0x09, 0x21, 1 << 31 | number, cdw12=1, cdw13=5) == 0
    completion = device.send(0x0A, 0x21, number, data_in_length=512)
    assert completion.result == 1 << 31
    assert completion.data == bytes([1, 0, 0, 0, 5, 0, 0, 0]).ljust(512, b"\0")
    assert device.status(0x09, 0x21, 9, cdw12=0) == 0x4137
    assert device.status(0x09, 1 << 31 | 0x21, number) == 0x410D


def test_a_reset_of_the_primary_deletes_queues_and_stops_tracking(device: Bench) -> None:
    number, _, _ = queue(device)
    assert track(device, Extent(0, 4096)) == 0
    device.host.reset_primary(PF)
    assert device.status(DATA_QUEUE, 1, number) == 0x4137
    assert device.status(TRACK_RECEIVE, 0, FIRST, cdw12=7, data_in_length=32) == 0x411F


def test_devices_that_track_nothing_say_so_in_their_own_way(tmp_path: Path) -> None:
    device = bench(tmp_path / "host", TP4159)
    assert track(device, Extent(0, 4096), cntlid=1) == 0x4006
    other = bench(tmp_path / "other", NVME_2_1)
    assert other.status(TRACK_SEND, START_LOG, 1) == 0x4002
    assert other.status(DATA_QUEUE, 0, FIRST << 16 | 1, cdw12=128, data_out=bytes(512)) == 0x4001
    device.host.close()
    other.host.close()
