"""Builders refuse what does not fit, before anything is sent."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nvmelm.commands import data_queue, identify, migration, namespace, tracking, virtualization
from nvmelm.host import Completion
from nvmelm.wire.extents import Extent
from nvmelm.wire.opcodes import ResourceType, Sequence, SuspendType
from nvmelm.wire.tracking import TrackMemoryChanges

RANGES = TrackMemoryChanges(0, (Extent(0, 4096),)).pack()


def part(**changes: object) -> object:
    values = {"data": bytes(8), "offset": 0, "sequence": Sequence.ONLY, "version_index": 1} | changes
    return migration.set_state(1, values.pop("data"), **values)


def receive(**changes: int) -> object:
    return migration.get_state(1, **{"offset": 0, "length": 48, "version_index": 1} | changes)


REFUSED: dict[str, Callable[[], object]] = {
    "suspend: cntlid": lambda: migration.suspend(0x10000),
    "suspend: negative cntlid": lambda: migration.suspend(-1),
    "suspend: stype": lambda: migration.suspend(1, 0x100),
    "suspend: uidx": lambda: migration.suspend(1, uidx=0x80),
    "resume: cntlid": lambda: migration.resume(0x10000),
    "set: cntlid": lambda: migration.set_state(0x10000, bytes(4), offset=0, sequence=Sequence.ONLY, version_index=1),
    "set: half a dword": lambda: part(data=bytes(6)),
    "set: unaligned offset": lambda: part(offset=2),
    "set: negative offset": lambda: part(offset=-4),
    "set: offset of 2^64": lambda: part(offset=1 << 64),
    "set: version index": lambda: part(version_index=0x100),
    "set: uuid index": lambda: part(uuid_index=0x100),
    "set: sequence": lambda: part(sequence=4),
    "set: nothing as the only part": lambda: part(data=b""),
    "set: nothing as the first part": lambda: part(data=b"", sequence=Sequence.FIRST),
    "set: nothing as a middle part": lambda: part(data=b"", sequence=Sequence.MIDDLE),
    "get: nothing": lambda: receive(length=0),
    "get: negative length": lambda: receive(length=-4),
    "get: half a dword": lambda: receive(length=6),
    "get: unaligned offset": lambda: receive(offset=3),
    "get: length of 2^34": lambda: receive(length=4 << 32 | 4),
    "get: uuid parameter": lambda: receive(uuid_parameter=0x100),
    "assign: count": lambda: virtualization.assign(1, ResourceType.VQ, 0x10000),
    "assign: negative count": lambda: virtualization.assign(1, ResourceType.VI, -1),
    "assign: type": lambda: virtualization.assign(1, 8, 1),
    "online: cntlid": lambda: virtualization.online(0x10000),
    "identify: cntid": lambda: identify.secondary_controllers(0x10000),
    "identify: nsid": lambda: identify.namespace(1 << 32),
    "attach: nsid": lambda: namespace.attach(1 << 32, [1]),
    "track: cdqid": lambda: tracking.start_user_data_log(0x10000),
    "track: cntlid": lambda: tracking.start_memory_tracking(0x10000, RANGES),
    "track: truncated ranges": lambda: tracking.start_memory_tracking(1, RANGES[:-4]),
    "track: trailing bytes": lambda: tracking.start_memory_tracking(1, RANGES + bytes(4)),
    "track: no ranges": lambda: tracking.start_memory_tracking(1, b""),
    "tracked: no room for the head": lambda: tracking.tracked_memory(1, 12),
    "tracked: half a dword": lambda: tracking.tracked_memory(1, 18),
    "queue: half an entry": lambda: data_queue.create(1, bytes(80)),
    "queue: one entry": lambda: data_queue.create(1, bytes(32)),
    "queue: pages without a size": lambda: data_queue.create(1, bytes(4096), contiguous=False),
    "queue: cntlid": lambda: data_queue.create(0x10000, bytes(4096)),
    "queue: cdqid": lambda: data_queue.delete(0x10000),
    "head: slot": lambda: data_queue.set_head(1, 1 << 32),
    "head: trigger": lambda: data_queue.set_head(1, 0, -1),
}


@pytest.mark.parametrize("name", REFUSED)
def test_values_that_do_not_fit_are_refused(name: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the words differ, that it refuses is the claim
        REFUSED[name]()


def test_a_last_part_may_be_empty() -> None:
    command = part(data=b"", sequence=Sequence.LAST, offset=8192)
    assert (command.data_out, command.data_length, command.cdw15) == (None, 0, 0)


def test_data_is_not_copied_on_its_way() -> None:
    view = memoryview(bytearray(4096))
    assert part(data=view).data_out is view


def test_a_notification_is_not_a_suspend() -> None:
    assert migration.suspend(0x41, SuspendType.SUSPEND_NOTIFICATION).cdw11 == 0x0000_0041
    assert migration.suspend(0x41).cdw11 == 0x0001_0041


def test_a_queue_that_is_not_contiguous_has_a_size_of_its_own() -> None:
    command = data_queue.create(0x102, bytes(16), contiguous=False, queue_bytes=8192)
    assert (command.cdw11, command.cdw12, command.data_length) == (0x0102_0000, 2048, 16)


def test_completions_are_read_in_one_place() -> None:
    assert virtualization.resources_modified(Completion(0, 0xFFFF_0003)) == 3
    assert data_queue.created_id(Completion(0, 0xFFFF_0007)) == 7
    assert (migration.was_suspended(Completion(0, 1)), migration.was_suspended(Completion(0, 2))) == (True, False)
    assert tracking.tracking_limits(0x0000_0040_0000_0003) == tracking.TrackingLimits(granularity=3, ranges=64)
