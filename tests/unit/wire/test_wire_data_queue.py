"""The reader of a User Data Migration Queue: phase, wrap, the free slot, and what the markers say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvmelm.errors import MalformedError
from nvmelm.wire.data_queue import DataQueueFeature, UserDataMigrationQueueReader
from nvmelm.wire.tracking import EntryMarker, pack_entry
from tests.unit import golden

ENTRY = 32


class Queue:
    """Memory of a queue, and a controller that posts to it and keeps one slot free."""

    def __init__(self, slots: int) -> None:
        self.memory = bytearray(slots * ENTRY)
        self.slots = slots
        self.tail = 0
        self.phase = 1
        self.known_head = 0
        self.reader = UserDataMigrationQueueReader(memoryview(self.memory))

    @property
    def full(self) -> bool:
        return (self.tail + 1) % self.slots == self.known_head

    def post(self, block: int = 0, *, marker: int | None = None) -> None:
        assert not self.full
        blocks = None if marker is not None else (block, block + 1)
        raw = pack_entry(phase=self.phase, nsid=1, blocks=blocks, marker=marker or 0)
        self.memory[self.tail * ENTRY : (self.tail + 1) * ENTRY] = raw
        self.tail += 1
        if self.tail == self.slots:
            self.tail, self.phase = 0, self.phase ^ 1

    def publish(self) -> None:
        head = self.reader.head_to_publish
        if head is not None:
            self.known_head = head
            self.reader.published()

    def taken(self) -> list[int]:
        return [entry.slba for entry in self.reader.take()]


def test_a_recorded_queue_tells_what_the_guest_wrote() -> None:
    memory = bytearray(4096)
    raw = b"".join(golden.queue_entries())
    memory[: len(raw)] = raw
    reader = UserDataMigrationQueueReader(memoryview(memory))
    entries = reader.take()
    assert [entry.blocks for entry in entries] == [None, (10, 11), (100, 108), (4000, 4016), None]
    assert [entry.nsid for entry in entries] == [0, 1, 1, 1, 0]
    assert (reader.started, reader.ended, reader.must_restart) == (True, EntryMarker.LAST_SUSPENDED, False)
    assert (reader.slots, reader.head_to_publish) == (128, 5)
    assert reader.take() == []


def test_an_empty_queue_gives_nothing_and_has_no_head_to_publish() -> None:
    queue = Queue(4)
    assert (queue.taken(), queue.reader.head_to_publish) == ([], None)


def test_the_phase_inverts_with_every_wrap() -> None:
    queue = Queue(4)
    for block in range(13):
        queue.post(block)
        assert queue.taken() == [block]
        queue.publish()
    assert (queue.reader.head, queue.reader.phase) == (1, 0)


def test_entries_of_the_pass_before_are_not_taken_again() -> None:
    queue = Queue(4)
    for block in range(3):
        queue.post(block)
    assert queue.taken() == [0, 1, 2]
    queue.publish()
    queue.post(3)
    assert queue.taken() == [3]
    assert queue.taken() == []


def test_one_slot_always_stays_free() -> None:
    queue = Queue(4)
    for block in range(3):
        queue.post(block)
    assert queue.full
    assert queue.taken() == [0, 1, 2]
    assert (queue.reader.head_to_publish, queue.full) == (3, True)
    queue.publish()
    assert (queue.reader.head_to_publish, queue.full) == (None, False)


def test_a_controller_that_fills_every_slot_cannot_keep_the_reader_busy() -> None:
    queue = Queue(4)
    for slot in range(4):
        queue.memory[slot * ENTRY : (slot + 1) * ENTRY] = pack_entry(phase=1, nsid=1, blocks=(slot, slot + 1))
    assert queue.taken() == [0, 1, 2]
    assert queue.taken() == []


def test_a_full_queue_ends_the_log_and_the_copy_starts_again() -> None:
    queue = Queue(4)
    queue.post(marker=EntryMarker.FIRST)
    queue.post(1)
    queue.post(marker=EntryMarker.LAST_FULL)
    queue.reader.take()
    assert (queue.reader.ended, queue.reader.must_restart) == (EntryMarker.LAST_FULL, True)


def test_a_log_goes_on_after_resume() -> None:
    queue = Queue(8)
    for marker in (EntryMarker.FIRST, EntryMarker.LAST_SUSPENDED, EntryMarker.FIRST):
        queue.post(marker=marker)
    queue.reader.take()
    assert (queue.reader.started, queue.reader.ended) == (True, None)


@pytest.mark.parametrize("size", [0, 32, 33, 63, 65])
def test_a_queue_has_two_or_more_whole_entries(size: int) -> None:
    with pytest.raises(ValueError, match="two or more whole entries"):
        UserDataMigrationQueueReader(memoryview(bytearray(size)))


@given(st.integers(2, 6), st.lists(st.sampled_from(["post", "take", "publish"]), max_size=80))
def test_no_entry_is_lost_or_doubled(slots: int, actions: list[str]) -> None:
    queue, posted, taken = Queue(slots), 0, []
    for action in [*actions, "take", "publish", "take"]:
        if action == "post" and not queue.full:
            queue.post(posted)
            posted += 1
        elif action == "take":
            taken += queue.taken()
        elif action == "publish":
            queue.publish()
    assert taken == list(range(posted))


@given(st.binary(max_size=256), st.integers(0, 3))
def test_any_memory_gives_fewer_entries_than_slots(raw: bytes, rounds: int) -> None:
    reader = UserDataMigrationQueueReader(memoryview(bytearray(raw.ljust(256, b"\0"))))
    for _ in range(rounds):
        assert len(reader.take()) < reader.slots
        reader.published()


@pytest.mark.parametrize("size", [8, 100, 512])
def test_the_feature_reads_long_and_short_answers(size: int) -> None:
    feature = DataQueueFeature.parse(bytes.fromhex("0900000 00c000000".replace(" ", "")).ljust(size, b"\0"))
    assert (feature.hp, feature.tpt) == (9, 12)


@pytest.mark.parametrize("size", [0, 7, 513])
def test_the_feature_refuses_other_sizes(size: int) -> None:
    with pytest.raises(MalformedError):
        DataQueueFeature.parse(bytes(size))
