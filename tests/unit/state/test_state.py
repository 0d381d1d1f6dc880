"""Suspend, resume, save and restore over an admin queue that obeys the specification."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from nvmelm.commands import AdminCommandError
from nvmelm.errors import (
    HostError,
    ImageError,
    IncompatibleError,
    MalformedError,
    NotReadyError,
    NotSupportedError,
    NvmelmError,
    UncertainError,
    UsageError,
)
from nvmelm.host import AdminCommand, Completion
from nvmelm.inventory import state_reader
from nvmelm.inventory.state_reader import StateReader
from nvmelm.migrate.link.frames import Buffers
from nvmelm.state import restore as state_restore
from nvmelm.state import running
from nvmelm.state import save as state_save
from nvmelm.state.image.format import ImageSource, Proof, open_sink
from nvmelm.state.image.reader import Image, open_image
from nvmelm.state.image.stream import StreamedImage
from nvmelm.state.read_ahead import ReadAhead
from nvmelm.wire.formats import SupportedStateFormats
from nvmelm.wire.layout import Buffer
from tests.unit.fakes import DNR, INTERNAL_ERROR, FakeController, FakeQueue, queue_state, state_header

KiB, MiB = 1 << 10, 1 << 20
VENDOR = UUID("12345678-1234-4678-9234-567812345678")
OTHER = UUID("87654321-4321-4876-9432-876543218765")
PLAIN = SupportedStateFormats((0,))
WITH_VENDOR = SupportedStateFormats((0,), (VENDOR,))
SOURCE = ImageSource(
    vendor_id=0x1B36,
    subsystem_vendor_id=0x1AF4,
    model="A Controller",
    firmware="1.0",
    serial="SN1",
    nvme_version="2.1",
    cntlid=1,
    vf_number=1,
    vq=4,
    vi=3,
)
NOT_READY = 0x024  # Admin Command Media Not Ready: may be retried


def migrating_queue(*, vendor_bytes: int = 0, pairs: int = 1, **more: Any) -> FakeQueue:
    """Return a queue whose 0x0001 is suspended and full, and whose 0x0002 is new."""
    vendor = (bytes(range(256)) * (vendor_bytes // 256 + 1))[:vendor_bytes]
    controllers = {1: FakeController(queue_state(pairs), vendor, suspended=True), 2: FakeController(queue_state(0))}
    return FakeQueue(controllers, uuids=int(vendor_bytes > 0), **more)


def save(queue: Any, path: Path, **more: Any) -> state_save.Saved:
    formats = more.pop("formats", WITH_VENDOR if queue.uuids else PLAIN)
    with open_sink(path, replace=True) as sink:
        return state_save.save(queue, more.pop("cntlid", 1), sink, source=SOURCE, formats=formats, **more)


def target(formats: SupportedStateFormats = PLAIN, **more: Any) -> state_restore.Target:
    values = {"vendor_id": 0x1B36, "subsystem_vendor_id": 0x1AF4, "model": "A Controller", "firmware": "1.0"}
    return state_restore.Target(**values | {"formats": formats} | more)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "image"


@pytest.fixture
def saved_image(path: Path) -> Iterator[Callable[[FakeQueue], Image]]:
    images = []

    def make(queue: FakeQueue) -> Image:
        save(queue, path)
        queue.commands.clear()
        images.append(open_image(path, spool_directory=path.parent))
        return images[-1]

    yield make
    for image in images:
        image.close()


def words(queue: FakeQueue) -> list[tuple[int, int, int, int, int]]:
    """Return opcode, CDW10, CDW11, CDW12 and CDW15 of every command."""
    return [(one.opcode, one.cdw10, one.cdw11, one.cdw12, one.cdw15) for one in queue.commands]


def test_a_state_that_fits_one_command_is_read_by_the_header_and_one_command(path: Path) -> None:
    queue = migrating_queue()
    saved = save(queue, path)
    assert words(queue) == [(0x42, 0x0001_0000, 0x0001, 0, 11), (0x42, 0x0001_0000, 0x0001, 0, 25)]
    assert (saved.commands, saved.header.state_bytes, saved.proof) == (2, 104, Proof(7))
    with open_image(path, spool_directory=path.parent) as image:
        (part,) = image.parts(4 * KiB)
        assert part.data == state_header(14, 0, suspended=True) + queue_state(1)
        assert image.header.vendor_uuid is None


@pytest.mark.parametrize(
    ("expected", "reads"),
    [
        (104, [104]),  # what it was a moment ago is what it is
        (160, [160]),  # the guest has deleted a queue since: the rest is undefined, and no part of the state
        (80, [80, 104]),  # it has made one since
        (44, [48, 104]),  # no state is as small
        (128 * KiB + 4, [48, 104]),  # more than one command carries
    ],
)
def test_a_state_that_is_as_large_as_expected_is_read_by_one_command(
    expected: int, reads: list[int], path: Path
) -> None:
    queue = migrating_queue()
    saved = save(queue, path, expected_bytes=expected)
    assert [one.data_in_length for one in queue.commands] == reads
    assert (saved.commands, saved.header.state_bytes, saved.proof) == (len(reads), 104, Proof(7))
    with open_image(path, spool_directory=path.parent) as image:
        (part,) = image.parts(4 * KiB)
        assert part.data == state_header(14, 0, suspended=True) + queue_state(1)


def test_a_running_controller_is_refused_however_much_of_it_was_expected(path: Path) -> None:
    queue = migrating_queue()
    queue.controllers[1].suspended = False
    with pytest.raises(NotReadyError, match="not suspended"):
        save(queue, path, expected_bytes=104)
    assert not path.exists()


def test_a_larger_state_is_read_in_parts_as_large_as_allowed_and_its_beginning_twice(path: Path) -> None:
    queue = migrating_queue(vendor_bytes=300 * KiB)
    reached = []
    saved = save(queue, path, progress=lambda done, total: reached.append((done, total)))
    total = 48 + 56 + 300 * KiB
    assert [(one.cdw12, one.data_in_length) for one in queue.commands] == [
        (0, 48),
        (0, 128 * KiB),
        (128 * KiB, 128 * KiB),
        (256 * KiB, total - 256 * KiB),
        (0, 104),
    ]
    assert {one.cdw11 for one in queue.commands} == {0x0001_0001}
    assert reached == [(128 * KiB, total), (256 * KiB, total), (total, total)]
    assert saved.header.vendor_uuid == VENDOR


@pytest.mark.parametrize(
    ("worth_s", "asked"),
    [
        pytest.param(0.0, [0, 64 * KiB, 128 * KiB], id="slow"),  # the third is the one ahead
        pytest.param(60.0, [0, 64 * KiB], id="quick"),
    ],
)
def test_parts_are_read_one_command_at_a_time_and_of_a_slow_device_no_further_than_one_ahead(
    worth_s: float, asked: list[int]
) -> None:
    queue = migrating_queue(vendor_bytes=300 * KiB)
    reader = StateReader(queue, 1, 1, 1)
    with ReadAhead(reader, 300 * KiB, 64 * KiB, worth_s=worth_s) as parts:
        taken = [parts.next(), parts.next()]
    assert [one.cdw12 for one in queue.commands] == asked
    assert b"".join(taken) == reader.receive(0, 128 * KiB)


@pytest.mark.parametrize("worth_s", [0.0, 60.0])
def test_a_state_is_whole_however_its_parts_were_read(worth_s: float) -> None:
    reader = StateReader(migrating_queue(vendor_bytes=300 * KiB), 1, 1, 1)
    whole = reader.receive(0, 128 * KiB)
    with ReadAhead(reader, 128 * KiB - 4, 20 * KiB, worth_s=worth_s) as parts:
        assert b"".join(parts.next() for _ in range(7)) == whole[:-4]


@pytest.mark.parametrize("worth_s", [0.0, 60.0])
def test_a_part_that_cannot_be_read_is_an_error_where_it_is_taken(worth_s: float) -> None:
    queue = migrating_queue(vendor_bytes=300 * KiB)
    queue.statuses[2] = INTERNAL_ERROR | DNR
    with ReadAhead(StateReader(queue, 1, 1, 1), 300 * KiB, 64 * KiB, worth_s=worth_s) as parts:
        parts.next()
        with pytest.raises(AdminCommandError):
            parts.next()


@pytest.mark.parametrize(
    ("kernel", "device", "limit"),
    [
        pytest.param(508 * KiB, 128 * KiB, 128 * KiB, id="the device allows less"),
        pytest.param(508 * KiB, 0, 508 * KiB, id="the device has no limit"),
        pytest.param(128 * KiB, 1 << 200, 128 * KiB, id="the kernel allows less"),
        pytest.param(1 << 40, 0, 8 * MiB, id="neither has a limit"),
    ],
)
def test_a_command_carries_what_device_and_kernel_allow(kernel: int, device: int, limit: int) -> None:
    assert state_reader.transfer_limit(migrating_queue(max_transfer_bytes=kernel), device) == limit


def test_a_running_controller_is_not_saved_and_the_error_says_how_to_suspend_it(path: Path) -> None:
    queue = migrating_queue()
    queue.controllers[1].suspended = False
    with pytest.raises(NotReadyError) as caught:
        save(queue, path)
    assert caught.value.reason == "image-not-suspended"
    assert "nvmelm state suspend PF 0x0001" in caught.value.fix
    assert os.listdir(path.parent) == []


@pytest.mark.parametrize("moment", [2, 3, 4, 5])
@pytest.mark.parametrize("csup", [True, False], ids=["with CSUP", "without CSUP"])
def test_a_controller_that_is_resumed_while_it_is_saved_leaves_no_image(path: Path, moment: int, csup: bool) -> None:
    queue = migrating_queue(vendor_bytes=300 * KiB, csup=csup)

    def resume_it(number: int) -> None:
        if number == moment:
            queue.controllers[1].suspended = False

    queue.before = resume_it
    with pytest.raises(ImageError) as caught:
        save(queue, path)
    assert caught.value.reason == "image-not-suspended"
    assert os.listdir(path.parent) == []


def test_a_controller_that_ran_for_a_moment_is_found_by_its_completions(path: Path) -> None:
    queue = migrating_queue(vendor_bytes=300 * KiB)

    def run_in_the_third(number: int) -> None:
        queue.controllers[1].suspended = number != 3

    queue.before = run_in_the_third
    with pytest.raises(ImageError, match="not suspended"):
        save(queue, path)


@pytest.mark.parametrize("moment", [2, 3, 5])
def test_a_state_that_changed_while_it_was_read_leaves_no_image(path: Path, moment: int) -> None:
    queue = migrating_queue(vendor_bytes=300 * KiB)

    def another_state(number: int) -> None:
        if number == moment:
            queue.controllers[1].nvme = queue_state(2) if moment == 2 else queue_state(1)[:-8] + bytes(8)

    queue.before = another_state
    with pytest.raises(ImageError) as caught:
        save(queue, path)
    assert caught.value.reason == "image-torn"
    assert os.listdir(path.parent) == []


def test_a_device_that_never_sets_csup_is_believed_by_the_structure(path: Path) -> None:
    saved = save(migrating_queue(csup=False, vendor_bytes=200 * KiB), path)
    assert saved.proof == Proof.STATE_SAID_SO | Proof.SAME_AT_THE_END


class Answering:
    """A queue whose every answer is the same bytes."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.max_transfer_bytes = 128 * KiB
        self.uuids = 0

    def submit(self, command: AdminCommand) -> Completion:
        return Completion(0, 1, self.data[: command.data_in_length])

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        pytest.param(state_header((1 << 128) - 1, 0, suspended=True), MalformedError, id="2**130 bytes"),
        pytest.param(state_header(14, (1 << 128) - 1, suspended=True), MalformedError, id="2**130 bytes of vendor"),
        pytest.param(state_header(14, 1, suspended=True), MalformedError, id="vendor data that nobody asked for"),
        pytest.param(state_header(0, 0, suspended=True), MalformedError, id="no NVMe state"),
        pytest.param(state_header(14, 0, suspended=True, version=9), NotSupportedError, id="newer structure"),
        pytest.param(state_header(14, 0, suspended=True)[:40], MalformedError, id="short answer"),
        pytest.param(
            state_header(15, 0, suspended=True) + queue_state(1) + bytes(4), MalformedError, id="queue counts"
        ),
    ],
)
def test_a_device_that_answers_nonsense_is_an_error_and_leaves_no_image(
    path: Path, raw: bytes, error: type[NvmelmError]
) -> None:
    with pytest.raises(error):
        save(Answering(raw), path)
    assert os.listdir(path.parent) == []


def test_a_refused_command_ctrl_c_and_a_full_disk_leave_no_image(path: Path) -> None:
    queue = migrating_queue(vendor_bytes=300 * KiB, statuses={4: INTERNAL_ERROR | DNR})
    with pytest.raises(AdminCommandError):
        save(queue, path)

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save(migrating_queue(), path, progress=interrupt)
    with pytest.raises(HostError) as caught:
        save(migrating_queue(), Path("/dev/full"))
    assert caught.value.errno_name == "ENOSPC"
    assert os.listdir(path.parent) == []


def test_formats_the_device_does_not_know_are_refused_before_it_is_asked(path: Path) -> None:
    for more in ({"version": 1}, {"vendor_uuid": OTHER}):
        queue = migrating_queue()
        with pytest.raises(NotSupportedError):
            save(queue, path, **more)
        assert queue.commands == []


def test_several_vendor_formats_have_to_be_chosen_from(path: Path) -> None:
    queue = migrating_queue(vendor_bytes=8)
    queue.uuids = 2
    both = SupportedStateFormats((0,), (OTHER, VENDOR))
    with pytest.raises(UsageError) as caught:
        save(queue, path, formats=both)
    assert str(VENDOR) in caught.value.fix
    assert save(queue, path, formats=both, vendor_uuid=VENDOR).header.vendor_uuid == VENDOR
    assert queue.commands[-1].cdw11 == 0x0002_0001
    assert save(queue, path, formats=both, vendor_uuid=None).header.vendor_bytes == 0


def test_a_small_state_is_restored_by_one_command_and_left_suspended(saved_image: Any) -> None:
    queue = migrating_queue()
    image = saved_image(queue)
    restored = state_restore.restore(queue, 2, image, target=target())
    assert words(queue) == [
        (0x41, 0x0000_0000, 0x0001_0002, 0, 0),
        (0x41, 0x0003_0002, 0x0001_0002, 0, 26),
        (0x42, 0x0001_0000, 0x0000_0002, 0, 11),
    ]
    assert queue.controllers[2] == FakeController(queue_state(1), b"", suspended=True)
    assert (restored.parts, restored.commands, restored.attempts, restored.warnings) == (1, 3, 1, ())


def test_a_large_state_is_restored_first_middle_last(saved_image: Any) -> None:
    queue = migrating_queue(vendor_bytes=300 * KiB)
    image = saved_image(queue)
    reached = []
    state_restore.restore(
        queue, 2, image, target=target(WITH_VENDOR), progress=lambda done, total: reached.append(done)
    )
    sent = [one for one in queue.commands if one.data_out is not None]
    assert [(one.cdw10 >> 16, one.cdw11, one.cdw12, one.cdw15) for one in sent] == [
        (0b01, 0x0101_0002, 0, 32 * KiB),
        (0b00, 0x0101_0002, 128 * KiB, 32 * KiB),
        (0b10, 0x0101_0002, 256 * KiB, (48 + 56 + 44 * KiB) // 4),
    ]
    assert queue.controllers[2].vendor == queue.controllers[1].vendor
    assert reached == [128 * KiB, 256 * KiB, image.header.state_bytes]


def test_formats_are_translated_to_the_targets_own_indexes(saved_image: Any) -> None:
    queue = migrating_queue(vendor_bytes=8)
    image = saved_image(queue)
    queue.versions, queue.uuids = 3, 2
    state_restore.restore(queue, 2, image, target=target(SupportedStateFormats((7, 5, 0), (OTHER, VENDOR))))
    assert queue.commands[1].cdw11 == 0x0203_0002
    assert (queue.commands[2].cdw10, queue.commands[2].cdw11) == (0x0003_0000, 0x0002_0002)


@pytest.mark.parametrize(
    ("other", "reason", "says"),
    [
        pytest.param({"formats": SupportedStateFormats((1, 2))}, "state-version-unknown", "version 1, 2", id="version"),
        pytest.param({"formats": PLAIN}, "vendor-uuid-unknown", "no vendor format", id="no vendor format"),
        pytest.param(
            {"formats": SupportedStateFormats((0,), (OTHER,))}, "vendor-uuid-unknown", str(OTHER), id="vendor format"
        ),
        pytest.param({"vendor_id": 0x144D}, "vendor-differs", "144d", id="vendor"),
        pytest.param({"subsystem_vendor_id": 1}, "vendor-differs", "0001", id="subsystem vendor"),
        pytest.param({"model": "B"}, "model-differs", "'B'", id="model"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_before_the_device_sees_a_byte(
    saved_image: Any, other: dict[str, Any], reason: str, says: str
) -> None:
    queue = migrating_queue(vendor_bytes=8)
    image = saved_image(queue)
    with pytest.raises(IncompatibleError) as caught:
        state_restore.restore(queue, 2, image, target=target(**{"formats": WITH_VENDOR} | other))
    assert caught.value.reason == reason
    assert says in caught.value.cause
    assert queue.commands == []


def test_every_reason_for_a_refusal_is_given_at_once(saved_image: Any) -> None:
    image = saved_image(migrating_queue(vendor_bytes=8))
    found = state_restore.refusals(image.header, target(SupportedStateFormats(), vendor_id=1, model="B"))
    assert [one.reason for one in found] == [
        "state-version-unknown",
        "vendor-uuid-unknown",
        "vendor-differs",
        "model-differs",
    ]


def test_another_firmware_is_a_warning(saved_image: Any) -> None:
    queue = migrating_queue()
    restored = state_restore.restore(queue, 2, saved_image(queue), target=target(firmware="2.0"))
    assert len(restored.warnings) == 1


def test_a_failed_part_makes_the_whole_be_sent_again(saved_image: Any) -> None:
    queue = migrating_queue(vendor_bytes=300 * KiB)
    image = saved_image(queue)
    queue.statuses = {3: NOT_READY, 6: NOT_READY}  # command 1 suspends; the second part, then the last
    restored = state_restore.restore(queue, 2, image, target=target(WITH_VENDOR))
    first, middle, last = 1, 0, 2
    sent = [one.cdw10 >> 16 for one in queue.commands if one.data_out is not None]
    assert sent == [first, middle, first, middle, last, first, middle, last]
    assert restored.attempts == 3
    assert queue.controllers[2].vendor == queue.controllers[1].vendor


def test_a_transfer_is_repeated_twice_at_most(saved_image: Any) -> None:
    queue = migrating_queue()
    image = saved_image(queue)
    queue.statuses = {2: NOT_READY, 3: NOT_READY}
    assert state_restore.restore(queue, 2, image, target=target()).attempts == 3
    queue = migrating_queue(statuses={2: NOT_READY, 3: NOT_READY, 4: NOT_READY})
    with pytest.raises(AdminCommandError):
        state_restore.restore(queue, 2, image, target=target())
    assert len(queue.commands) == 4


def test_a_status_that_forbids_a_retry_is_final(saved_image: Any) -> None:
    queue = migrating_queue()
    image = saved_image(queue)
    queue.statuses = {2: NOT_READY | DNR}
    with pytest.raises(AdminCommandError):
        state_restore.restore(queue, 2, image, target=target())
    assert len(queue.commands) == 2
    assert queue.controllers[2].suspended


def test_a_device_that_takes_one_part_only_says_so_and_its_limit(saved_image: Any) -> None:
    queue = migrating_queue(vendor_bytes=300 * KiB)
    image = saved_image(queue)
    queue.one_part_only = True
    with pytest.raises(NotSupportedError) as caught:
        state_restore.restore(queue, 2, image, target=target(WITH_VENDOR))
    assert caught.value.reason == "one-part-only"
    assert str(128 * KiB) in caught.value.cause
    queue.max_transfer_bytes = 512 * KiB
    state_restore.restore(queue, 2, image, target=target(WITH_VENDOR))
    assert queue.controllers[2].vendor == queue.controllers[1].vendor


def test_an_image_that_changes_while_it_is_sent_is_never_committed(saved_image: Any, path: Path) -> None:
    queue = migrating_queue(vendor_bytes=300 * KiB)
    image = saved_image(queue)

    def alter(number: int) -> None:
        if number == 3:
            with path.open("r+b") as file:
                file.seek(-100, os.SEEK_END)
                file.write(b"?")

    queue.before = alter
    with pytest.raises(ImageError) as caught:
        state_restore.restore(queue, 2, image, target=target(WITH_VENDOR))
    assert caught.value.reason == "image-altered"
    assert "no state was committed" in caught.value.__notes__[0]
    assert queue.controllers[2].vendor == b""


@pytest.mark.parametrize("fault", ["resumed", "another size", "refused"])
def test_a_target_that_does_not_hold_what_was_sent_is_uncertain(saved_image: Any, fault: str) -> None:
    queue = migrating_queue()
    image = saved_image(queue)

    def before(number: int) -> None:
        if number == 3 and fault == "resumed":
            queue.controllers[2].suspended = False
        if number == 3 and fault == "another size":
            queue.controllers[2].nvme = queue_state(0)

    queue.before = before
    queue.statuses = {3: INTERNAL_ERROR} if fault == "refused" else {}
    with pytest.raises(UncertainError) as caught:
        state_restore.restore(queue, 2, image, target=target())
    assert "do not resume" in caught.value.fix


def test_suspending_and_resuming_say_whether_they_changed_anything() -> None:
    queue = migrating_queue()
    assert running.suspend(queue, 2, formats=PLAIN).changed
    assert state_reader.is_suspended(queue, 2, PLAIN)
    assert not running.suspend(queue, 2, formats=PLAIN).changed
    assert running.resume(queue, 2).changed
    assert not running.resume(queue, 2).changed
    assert not state_reader.is_suspended(queue, 2, PLAIN)


def test_a_notification_stops_nothing() -> None:
    queue = migrating_queue()
    assert not running.suspend(queue, 2, notify=True, formats=PLAIN).changed
    assert words(queue) == [(0x41, 0, 0x0000_0002, 0, 0)]
    assert not queue.controllers[2].suspended


def test_an_unknown_controller_is_refused_by_the_device() -> None:
    for verb in (running.suspend, running.resume):
        with pytest.raises(AdminCommandError) as caught:
            verb(migrating_queue(), 9)
        assert caught.value.status.code == 0x11F


class Sparse(FakeQueue):
    """A queue whose controllers have vendor data of zeros that is in nobody's memory."""

    size = 256 * MiB

    def submit(self, command: AdminCommand) -> Completion:
        state_bytes = state_header(14, self.size // 4, suspended=True) + queue_state(1)
        if command.opcode == 0x41:
            return Completion(0)
        offset = command.cdw12
        data = state_bytes[offset : offset + command.data_in_length]
        return Completion(0, 1, data + bytes(command.data_in_length - len(data)))


def test_hundreds_of_mebibytes_go_through_in_constant_memory(path: Path) -> None:
    queue = Sparse({}, max_transfer_bytes=8 * MiB, uuids=1)
    tracemalloc.start()
    try:
        save(queue, path)
        with open_image(path, spool_directory=path.parent) as image:
            state_restore.restore(queue, 2, image, target=target(WITH_VENDOR))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        path.unlink(missing_ok=True)
    assert image.header.vendor_bytes == 256 * MiB
    assert peak < 64 * MiB


def test_the_memory_of_a_part_is_free_before_the_next_part_arrives(path: Path) -> None:
    queue = Sparse({}, max_transfer_bytes=128 * KiB, uuids=1)
    queue.size = 1 * MiB
    state_bytes = save(queue, path).header.state_bytes
    raw = path.read_bytes()
    first = len(raw) - 64 - state_bytes  # the trailer has 64 bytes
    cuts = [0, *range(first, len(raw) - 64, 128 * KiB), len(raw) - 64, len(raw)]
    pieces = iter([raw[begin:end] for begin, end in pairwise(cuts)])
    buffers = Buffers()
    places: list[int] = []

    def receive() -> Buffer | None:
        piece = next(pieces, None)
        if piece is None:
            return None
        view = buffers.take(len(piece))
        view[:] = piece
        if len(view) == 128 * KiB:
            places.append(id(view.obj))
        return view

    state_restore.restore(queue, 2, StreamedImage(receive, "the state"), target=target(WITH_VENDOR))
    assert len(places) == 8
    assert len(set(places)) == 1
