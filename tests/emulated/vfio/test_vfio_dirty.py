"""DMA logging: what the VMM is told was written is never less than what the controller wrote."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvmelm.emulator.guest.migrating_vm import MigratingVm
from nvmelm.emulator.machine.generations import NVME_2_1, TP4159
from nvmelm.inventory.picture import Tracking
from nvmelm.vfio.dirty import MemoryLog, _wanted
from nvmelm.vfio.options import Options
from nvmelm.vfio.seam import LogRange, Refusal
from nvmelm.wire.extents import Extent, total
from tests.emulated.vfio_world import World, refusals

_PAGE, _MEMORY = 4096, 1 << 20
Make = Callable[..., World]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[World] = []

    def new(*args: Any, **values: Any) -> World:
        made.append(World(tmp_path / f"{len(made)}", *args, **values))
        return made[-1]

    yield new
    for world in made:
        world.close()


def pages(bitmap: bytes) -> set[int]:
    """Return the numbers of the pages a bitmap has."""
    return {8 * at + bit for at, byte in enumerate(bitmap) for bit in range(8) if byte >> bit & 1}


def written(vm: MigratingVm, work: Callable[[], object]) -> tuple[set[int], set[int]]:
    """Return the pages that changed while something was done, and those that were reported."""
    assert vm.answering is not None
    vm.answering.logging_report(0, _MEMORY, _PAGE)
    before = vm.function.memory.read(0, _MEMORY)
    work()
    after = vm.function.memory.read(0, _MEMORY)
    changed = {at // _PAGE for at in range(0, _MEMORY, _PAGE) if before[at : at + _PAGE] != after[at : at + _PAGE]}
    return changed, pages(vm.answering.logging_report(0, _MEMORY, _PAGE))


def controller_alone(vm: MigratingVm) -> Callable[[], object]:
    """Return what has the controller complete an admin command whose data go to memory, the guest doing nothing."""
    vm.admin.put(vm.function.memory, 6, prp1=230 * _PAGE, cdw10=1)
    return lambda: vm.bar.write32(0x1000, vm.admin.sq_tail)


def test_what_the_controller_writes_is_reported_once(make: Make) -> None:
    vm = make().running()
    assert vm.answering is not None
    assert vm.answering.logging_start([LogRange(0, _MEMORY)], _PAGE) == _PAGE
    changed, reported = written(vm, controller_alone(vm))
    assert changed == reported == {1, 230}
    assert pages(vm.answering.logging_report(0, _MEMORY, _PAGE)) == set()


@pytest.mark.parametrize("row", [NVME_2_1.with_(granularity_min=2), NVME_2_1.with_(granularity_works=3)])
def test_a_device_that_tracks_more_coarsely_reports_more_and_never_less(make: Make, row: Any) -> None:
    vm = make(row).running()
    assert vm.answering is not None
    vm.answering.logging_start([LogRange(0, _MEMORY)], _PAGE)
    changed, reported = written(vm, controller_alone(vm))
    assert changed < reported
    assert len(reported) < 40


def test_a_part_that_was_not_asked_for_is_reported_when_it_is(make: Make) -> None:
    vm = make().running()
    assert vm.answering is not None
    vm.answering.logging_start([LogRange(0, _MEMORY)], _PAGE)
    vm.answering.logging_report(0, _MEMORY, _PAGE)
    controller_alone(vm)()
    assert pages(vm.answering.logging_report(0, 8 * _PAGE, _PAGE)) == {1}
    assert pages(vm.answering.logging_report(228 * _PAGE, 8 * _PAGE, _PAGE)) == {2}


def test_without_tracking_every_page_is_written_and_the_journal_says_what_it_costs(make: Make) -> None:
    world = make(TP4159)
    vm = world.running()
    assert vm.answering is not None
    vm.answering.logging_start([LogRange(0, _MEMORY)], _PAGE)
    assert pages(vm.answering.logging_report(0, 100 * _PAGE, _PAGE)) == set(range(100))
    assert "copies all of the VM's memory while it stands still" in refusals(world.source)


def test_by_the_operator_s_word_logging_is_not_offered_then(make: Make) -> None:
    world = make(TP4159)
    world.options = Options(all_dirty=False)
    vm = world.vm(world.source)
    assert not vm.migratable
    assert vm.answering is not None
    with pytest.raises(Refusal) as refusal:
        vm.answering.logging_start([LogRange(0, _MEMORY)], _PAGE)
    assert refusal.value.errno == errno.ENOTTY


def test_more_ranges_than_the_device_tracks_are_all_written(make: Make) -> None:
    vm = make(NVME_2_1.with_(tracking_descriptors=1)).running()
    assert vm.answering is not None
    vm.answering.logging_start([LogRange(0, _PAGE), LogRange(8 * _PAGE, _PAGE)], _PAGE)
    assert pages(vm.answering.logging_report(8 * _PAGE, _PAGE, _PAGE)) == {0}


@pytest.mark.parametrize(
    ("iova", "length", "page"),
    [(0, 2 * _MEMORY, _PAGE), (0, 0, _PAGE), (1, _PAGE, _PAGE), (0, _PAGE, 3), (0, _PAGE, 0)],
)
def test_what_is_not_logged_is_an_invalid_argument(make: Make, iova: int, length: int, page: int) -> None:
    vm = make().running()
    assert vm.answering is not None
    vm.answering.logging_start([LogRange(0, _MEMORY)], _PAGE)
    with pytest.raises(Refusal) as refusal:
        vm.answering.logging_report(iova, length, page)
    assert refusal.value.errno == errno.EINVAL


def test_logging_starts_once_and_stops_as_often_as_one_likes(make: Make) -> None:
    vm = make().running()
    assert vm.answering is not None
    vm.answering.logging_start([LogRange(0, _MEMORY)], _PAGE)
    with pytest.raises(Refusal):
        vm.answering.logging_start([LogRange(0, _MEMORY)], _PAGE)
    vm.answering.logging_stop()
    vm.answering.logging_stop()
    vm.answering.logging_start([LogRange(0, _MEMORY)], _PAGE)


def test_an_agent_that_began_anew_logs_again_and_what_it_does_not_know_is_no_report(make: Make) -> None:
    world = make()
    vm = world.running()
    assert vm.answering is not None
    vm.answering.logging_start([LogRange(0, _MEMORY)], _PAGE)
    world.restart_agent(vm)
    with pytest.raises(Refusal):
        vm.answering.logging_report(0, _MEMORY, _PAGE)
    vm.answering.logging_start([LogRange(0, _MEMORY)], _PAGE)
    changed, reported = written(vm, controller_alone(vm))
    assert changed == reported


def test_the_last_word_is_not_believed_of_a_controller_that_says_it_runs(make: Make) -> None:
    world = make()
    vm = world.running()
    assert vm.answering is not None
    vm.answering.logging_start([LogRange(0, _MEMORY)], _PAGE)
    vm.stop()
    world.source.arm("admin/0x3e=nonsense:zeros")
    with pytest.raises(Refusal, match="not suspended"):
        vm.answering.logging_report(0, _MEMORY, _PAGE)


_ABLE = Tracking(
    memory=True, user_data=False, memory_ranges=0, smallest_granularity_bytes=4096, largest_granularity_bytes=1 << 30,
    power_of_two_lengths=True, user_data_queues=0,
)  # fmt: skip


@settings(max_examples=200)
@given(st.integers(0, 1 << 40), st.integers(1, 1 << 40), st.sampled_from([4096, 1 << 16, 1 << 21]))
def test_lengths_of_a_power_of_two_cover_what_was_asked_for(start: int, length: int, unit: int) -> None:
    wanted = _wanted([Extent(start, start + length)], unit, _ABLE)
    assert all(piece.length // unit & piece.length // unit - 1 == 0 for piece in wanted.extents)
    assert wanted.extents[0].start <= start
    assert wanted.extents[-1].end >= start + length
    assert total(wanted.extents) == wanted.extents[-1].end - wanted.extents[0].start < length + 2 * unit


def test_a_range_that_is_none_is_refused() -> None:
    with pytest.raises(Refusal):
        MemoryLog(lambda work: None, 1, _ABLE, [LogRange(1 << 63, 1 << 63 | 1)], _PAGE)
