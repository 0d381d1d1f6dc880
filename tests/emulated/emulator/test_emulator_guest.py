"""The guest's I/O survives a move at any moment, and the guest notices when it does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nvmelm.emulator.guest.guest import Guest
from nvmelm.emulator.machine.generations import NVME_2_1, NVME_2_1_VENDOR, TP4159, DeviceGeneration
from tests.emulated.emulator_bench import FIRST, SEND, VF1, Bench, bench, move

SLOW = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Bench, Bench]]:
    """Two prepared hosts that share their medium."""
    yield from _pair(tmp_path, NVME_2_1)


def _pair(place: Path, generation: DeviceGeneration) -> Iterator[tuple[Bench, Bench]]:
    source = bench(place / "source", generation, storage=place / "medium")
    destination = bench(place / "destination", generation, storage=place / "medium", serials=["OTHER"])
    for each in (source, destination):
        each.prepare()
    yield source, destination
    source.host.close()
    destination.host.close()


def attached(source: Bench, **values: int) -> Guest:
    guest = Guest.create(source.host, VF1, **values)
    guest.attach(source.host, VF1)
    return guest


def test_a_guest_that_is_left_alone_loses_nothing(pair: tuple[Bench, Bench]) -> None:
    guest = attached(pair[0])
    guest.step(300)
    report = guest.finish()
    assert report.clean
    assert report.outstanding == 0
    assert report.submitted == report.completed > 300
    assert report.verified > 100


@SLOW
@given(
    before=st.integers(1, 60),
    after=st.integers(1, 40),
    while_suspended=st.integers(0, 5),
    depth=st.integers(1, 24),
    seed=st.integers(0, 1 << 30),
    cuts=st.lists(st.integers(1, 1000), max_size=4),
)
def test_a_move_at_any_moment_loses_and_doubles_nothing(
    tmp_path_factory: pytest.TempPathFactory,
    before: int,
    after: int,
    while_suspended: int,
    depth: int,
    seed: int,
    cuts: list[int],
) -> None:
    for source, destination in _pair(tmp_path_factory.mktemp("move"), NVME_2_1):
        guest = attached(source, depth=depth, seed=seed)
        guest.step(before)
        guest.hold(destination.host, VF1)
        assert source.suspend() == 0
        guest.step(while_suspended)  # the guest still submits: the tails move, the heads do not
        move(source, destination, cuts, csuuidi=1)
        guest.attach(destination.host, VF1)
        assert destination.resume() == 0
        guest.step(after)
        report = guest.finish()
        assert report.clean, report
        assert report.outstanding == 0


def test_commands_are_in_flight_when_the_source_is_suspended_and_suspend_completes_them(
    pair: tuple[Bench, Bench],
) -> None:
    source, _ = pair
    guest = attached(source)
    guest.step(20)
    function = guest.function
    assert function is not None
    with function.port() as port:
        assert port is not None
        port.fetch(8)
        assert port.io is not None
        assert port.io["inflight"]
    assert source.suspend() == 0
    with function.port() as port:
        assert port is not None
        assert port.io is not None
        assert port.io["inflight"] == []
        assert port.fetch(8) == 0


def test_a_guest_moves_there_and_back(pair: tuple[Bench, Bench]) -> None:
    source, destination = pair
    guest = attached(source)
    guest.step(30)
    for here, there in ((source, destination), (destination, source)):
        guest.hold(there.host, VF1)
        move(here, there, csuuidi=1)
        guest.attach(there.host, VF1)
        assert there.resume() == 0
        guest.step(30)
    assert guest.finish().clean


def test_a_source_that_is_resumed_goes_on_where_it_was(pair: tuple[Bench, Bench]) -> None:
    source, _ = pair
    guest = attached(source)
    guest.step(25)
    assert source.suspend() == 0
    guest.step(5)
    assert source.resume() == 0
    guest.step(25)
    assert guest.finish().clean


def test_opening_the_function_after_the_state_was_set_loses_the_guests_commands(pair: tuple[Bench, Bench]) -> None:
    source, destination = pair
    guest = attached(source)
    guest.step(25)
    move(source, destination)
    guest.attach(destination.host, VF1)  # opens the function, which resets it
    assert destination.resume() == 0x413A
    guest.step(25)
    assert not guest.finish().clean


def test_a_state_read_before_the_suspend_is_noticed_by_the_guest(pair: tuple[Bench, Bench]) -> None:
    source, destination = pair
    guest = attached(source)
    guest.step(25)
    torn = source.state()
    guest.step(25)
    guest.hold(destination.host, VF1)
    assert source.suspend() == 0
    assert destination.suspend() == 0
    assert destination.set(torn) == 0
    guest.attach(destination.host, VF1)
    assert destination.resume() == 0
    guest.step(25)
    assert not guest.finish().clean


def test_a_guest_moves_between_controllers_that_take_one_part_only(tmp_path: Path) -> None:
    for source, destination in _pair_of_tp4159(tmp_path):
        guest = attached(source)
        guest.step(30)
        guest.hold(destination.host, VF1)
        assert source.suspend(1) == 0
        assert destination.suspend(1) == 0
        assert destination.set(source.state(1), cntlid=1) == 0
        guest.attach(destination.host, VF1)
        assert destination.resume(1) == 0
        guest.step(30)
        assert guest.finish().clean


def _pair_of_tp4159(place: Path) -> Iterator[tuple[Bench, Bench]]:
    pair = [bench(place / name, TP4159, storage=place / "medium") for name in ("source", "destination")]
    for each in pair:
        each.enable(2)
        each.online(1)
        each.bind()
    yield pair[0], pair[1]
    for each in pair:
        each.host.close()


def test_a_reset_of_the_primary_under_a_guest_is_seen_as_a_failed_controller(pair: tuple[Bench, Bench]) -> None:
    source, _ = pair
    guest = attached(source)
    guest.step(10)
    source.host.reset_primary("0000:01:00.0")
    guest.step(1)
    assert guest.report().errors == ["the controller failed, CSTS 0x2"]


def test_large_vendor_state_arrives_whole_and_a_mixed_up_one_is_refused(tmp_path: Path) -> None:
    generation = NVME_2_1_VENDOR.with_(vendor_state_bytes=1 << 20)
    for source, destination in _pair(tmp_path, generation):
        assert source.suspend() == 0
        assert destination.suspend() == 0
        raw = source.state(csuuidi=1)
        assert len(raw) == 48 + 8 + (1 << 20)
        swapped = raw[: 56 + 0x10000] + raw[56 + 0x20000 : 56 + 0x30000] + raw[56 + 0x10000 : 56 + 0x20000]
        swapped += raw[56 + 0x30000 :]
        assert destination.set(swapped, csuuidi=1) == 0x4002
        assert destination.set(raw, csuuidi=1) == 0
        assert destination.state(csuuidi=1) == raw


def test_a_frozen_guest_is_whole_in_its_memory(pair: tuple[Bench, Bench]) -> None:
    source, _ = pair
    guest = attached(source)
    guest.step(40)
    guest.freeze()
    assert guest.function is not None
    thawed = Guest.thaw(source.host, guest.function)
    thawed.step(40)
    assert thawed.finish().clean


def test_suspending_twice_is_success_and_a_notification_stops_nothing(pair: tuple[Bench, Bench]) -> None:
    source, _ = pair
    guest = attached(source)
    assert source.status(SEND, 0, FIRST) == 0
    guest.step(20)
    assert guest.finish().completed > 0
    assert source.resume() == 0x413A
    assert source.suspend() == 0
    assert source.suspend() == 0
