"""A guest stands still for a bounded time, whatever hangs; a roll-back needs nothing that may have run out."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from nvmelm.emulator.host import EmulatedHost
from nvmelm.errors import BusyError, ExitCode, NvmelmError, RolledBackError
from nvmelm.migrate import crossing, source, standstill
from nvmelm.migrate.callouts.points import Point, Points
from nvmelm.migrate.destination import Destination
from nvmelm.migrate.link import messages
from nvmelm.process.interrupts import interruptible
from nvmelm.process.waiting import wait_until
from nvmelm.state.read_ahead import ReadAhead
from nvmelm.watch.stream import WatchStream
from tests.emulated import two_hosts
from tests.emulated.two_hosts import FIRST, PF, World, build, copy
from tests.unit.process.test_descriptor import nothing_left

#: Far less than what a hang takes here, far more than a busy machine needs.
_SOON_S = 15.0


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("hosts") / "one")


@pytest.fixture
def world(prepared: Path, tmp_path: Path) -> Iterator[World]:
    made = copy(prepared, tmp_path / "world")
    yield made
    made.close()


@pytest.fixture
def four(tmp_path: Path) -> Iterator[World]:
    made = copy(build(tmp_path / "hosts", controllers=4, latency_ms=1), tmp_path / "world")
    made.controllers = 4
    yield made
    made.close()


def at(point: Point, do: Callable[[], object], side: str = "source") -> Callable[[str], Points]:
    """Return callouts that do something at one point of one side."""

    def run(reached: str, _: Any) -> None:
        if reached == point:
            do()

    return lambda which: Points(run if which == side else None, which)


@contextmanager
def no_threads() -> Iterator[Callable[[], None]]:
    """Yield what leaves no thread to be had for this one from then on."""
    real, thread = threading._start_new_thread, threading.current_thread()  # type: ignore[attr-defined]

    def refused(*arguments: Any) -> int:
        if threading.current_thread() is thread:
            raise RuntimeError("can't start new thread")
        return int(real(*arguments))

    def run_out() -> None:
        threading._start_new_thread = refused  # type: ignore[attr-defined]

    try:
        yield run_out
    finally:
        threading._start_new_thread = real  # type: ignore[attr-defined]


def test_without_threads_several_controllers_are_moved_one_after_the_other(four: World) -> None:
    with no_threads() as run_out:
        four.migrate(points=at(Point.SOURCE_SUSPENDED, run_out))
    assert four.states("source") == ["done"]
    assert [four.controller("destination", FIRST + n)["suspended"] for n in range(4)] == [False] * 4


def test_a_roll_back_of_several_controllers_needs_no_thread(four: World) -> None:
    with no_threads() as run_out:

        def fail() -> None:
            run_out()
            raise NvmelmError("the callout failed")

        with pytest.raises(RolledBackError):
            four.migrate(points=at(Point.SOURCE_SUSPENDED, fail))
    assert [four.controller("source", FIRST + n)["suspended"] for n in range(4)] == [False] * 4
    assert four.states("source") == ["rolled-back"]


class Slow:
    """A state that is read slowly, of a device that answers with the offset."""

    def receive(self, offset: int, length: int) -> bytes:
        return offset.to_bytes(length, "little")


def test_a_state_is_read_to_its_end_where_no_thread_reads_ahead() -> None:
    with no_threads() as run_out, ReadAhead(Slow(), 40, 4, worth_s=0.0) as ahead:  # type: ignore[arg-type]
        run_out()
        assert [int.from_bytes(ahead.next(), "little") for _ in range(10)] == list(range(0, 40, 4))


def hanging(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Let the destination hang before it says *loaded*, with signs of life, until the event is set."""
    go = threading.Event()
    real = Destination._tell

    def tell(self: Destination, message: messages.Message) -> None:
        if isinstance(message, messages.Loaded):
            go.wait(60)
        real(self, message)

    monkeypatch.setattr(Destination, "_tell", tell)
    return go


@pytest.mark.parametrize("said", [True, False], ids=["--max-downtime", "by itself"])
def test_a_destination_that_hangs_does_not_keep_the_guest_waiting(
    said: bool, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = hanging(monkeypatch)
    monkeypatch.setattr(standstill, "STANDSTILL_S", 1.0)
    resumed: list[float] = []
    begun = time.monotonic()

    def running() -> None:
        resumed.append(time.monotonic() - begun)
        assert world.controller("source")["suspended"] is False
        go.set()

    with pytest.raises(RolledBackError) as met, interruptible():
        world.migrate(
            points=at(Point.ROLLED_BACK, running), reconnect=True, **({"max_downtime_s": 1.0} if said else {})
        )
    assert met.value.reason == "downtime"
    assert resumed[0] < _SOON_S
    assert (world.states("source"), world.states("destination")) == (["rolled-back"], ["abandoned"])


def test_a_callout_that_hangs_does_not_keep_the_guest_waiting(world: World) -> None:
    reading, writing = os.pipe()
    with pytest.raises(RolledBackError) as met, interruptible():
        world.migrate(points=at(Point.SOURCE_SUSPENDED, lambda: os.read(reading, 1)), max_downtime_s=1.0)
    assert met.value.reason == "downtime"
    assert world.controller("source")["suspended"] is False
    for descriptor in (reading, writing):
        os.close(descriptor)


def test_what_stood_still_for_too_long_is_not_given_away_though_nothing_could_interrupt_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a disk that hangs in the kernel: the alarm finds nobody who could be interrupted."""
    monkeypatch.setattr(source, "limited", lambda _: contextlib.nullcontext())
    late = time.monotonic
    shift = [0.0]
    monkeypatch.setattr(source.time, "monotonic", lambda: late() + shift[0])

    def pass_by() -> None:
        shift[0] = 100.0

    with pytest.raises(RolledBackError) as met:
        world.migrate(points=at(Point.BEFORE_GIVE_AWAY, pass_by), max_downtime_s=50.0)
    assert met.value.reason == "downtime"
    assert world.controller("source")["suspended"] is False


def test_a_request_to_end_in_the_middle_of_a_frame_is_over_soon_and_leaves_nothing_in_doubt(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, main = os.writev, threading.get_ident()

    def interrupted(number: int, views: Any) -> int:
        if threading.get_ident() != main or len(views) < 2 or len(views[1]) < 1000:
            return real(number, views)
        monkeypatch.setattr(os, "writev", real)
        sent = real(number, [bytes(views[0]), bytes(views[1])[:100]])
        os.kill(os.getpid(), signal.SIGTERM)
        return sent

    monkeypatch.setattr(os, "writev", interrupted)
    monkeypatch.setattr(two_hosts, "SILENCE_S", 60.0)  # nobody is waited for until he counts as lost
    begun = time.monotonic()
    with pytest.raises(RolledBackError) as met, interruptible():
        world.migrate(reconnect=True)
    assert met.value.reason == "interrupted"
    assert time.monotonic() - begun < _SOON_S
    assert not any("may still hold" in note for note in met.value.__notes__)
    assert world.states("destination") == ["abandoned"]


def test_the_destinations_pf_is_free_while_the_sources_operator_is_asked(world: World) -> None:
    asked = threading.Event()

    def ask() -> None:
        with world.destination.lock(PF, timeout_s=0):
            asked.set()

    world.migrate(points=at(Point.COMPATIBLE, ask))
    assert asked.is_set()
    assert world.states("destination") == ["running"]


def test_what_changed_at_the_destination_while_the_operator_was_asked_is_seen(world: World) -> None:
    def revoke() -> None:
        from nvmelm.inventory import marks

        with world.destination.lock(PF):
            marks.revoke(world.destination, PF, FIRST)

    with pytest.raises(NvmelmError):
        world.migrate(points=at(Point.COMPATIBLE, revoke))
    assert world.controller("source")["suspended"] is False
    assert world.states("destination") == []


def test_of_two_moves_that_cross_one_is_refused_soon_with_a_word_of_its_own(world: World) -> None:
    begun = time.monotonic()
    with (
        world.destination.lock(PF),  # the other move's own PF: it waits for that of this one
        crossing.leaving(world.destination, PF, "0" * 32),  # a smaller number than any other
        pytest.raises(NvmelmError) as met,
    ):
        world.migrate()
    assert (met.value.reason, met.value.exit_code) == ("moves-cross", ExitCode.BUSY)
    assert time.monotonic() - begun < _SOON_S
    assert world.controller("source")["suspended"] is False
    world.migrate()
    assert world.states("destination") == ["running"]


def test_of_two_moves_that_cross_the_other_one_waits_until_the_first_has_ended(world: World) -> None:
    taken, over = threading.Event(), threading.Event()

    def cross() -> None:
        with world.destination.lock(PF):
            taken.set()
            over.wait(20)  # it has not yet said that it leaves: it is asked again
            with crossing.leaving(world.destination, PF, "f" * 32):
                over.clear()
                over.wait(2 * crossing._YIELDS_AFTER_S)

    other = threading.Thread(target=cross)
    other.start()
    assert taken.wait(20)
    threading.Timer(0.7, over.set).start()
    world.migrate()
    other.join(20)
    assert (world.states("source"), world.states("destination")) == (["done"], ["running"])


def test_a_pf_that_is_only_busy_is_waited_for(world: World) -> None:
    held, go = threading.Event(), threading.Event()

    def hold() -> None:
        with world.host("destination").lock(PF):
            held.set()
            go.wait(20)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(20)
    threading.Timer(0.3, go.set).start()
    world.migrate()
    holder.join()
    assert world.states("destination") == ["running"]


def test_who_waits_for_a_pf_is_not_told_what_was_typed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["nvmelm", "migrate", "--rsh", "ssh -i /etc/secret"])
    other = EmulatedHost(world.place / "destination")
    with world.destination.lock(PF), contextlib.closing(other), pytest.raises(BusyError) as met:
        other.lock(PF, timeout_s=0).__enter__()
    assert f"process {os.getpid()} (nvmelm)" in met.value.message
    assert "secret" not in f"{met.value.message} {met.value.cause} {met.value.fix}"


@pytest.mark.parametrize("fails", [False, True], ids=["done", "rolled back"])
def test_a_move_leaves_neither_a_thread_nor_a_descriptor(fails: bool, four: World) -> None:
    def fail() -> None:
        if fails:
            raise NvmelmError("the callout failed")

    with nothing_left():
        again = World(four.place, controllers=4)  # an emulated device keeps files of its own open
        with contextlib.closing(again), contextlib.suppress(NvmelmError):
            again.migrate(points=at(Point.BEFORE_GIVE_AWAY, fail))
        wait_until(lambda: threading.active_count() == 1, "the other side to end", deadline_s=20)


def test_a_watch_leaves_neither_a_thread_nor_a_descriptor(world: World) -> None:
    with nothing_left():
        assert WatchStream(world.source, lambda lines: True, every_s=0.1).run(seconds=0.3) == "time"
