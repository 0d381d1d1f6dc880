"""Ctrl-C at any moment: what was begun is put back or decided, on whichever side it comes."""

from __future__ import annotations

import signal
import socket
import threading
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nvmelm.emulator.host import EmulatedHost
from nvmelm.errors import InterruptedByUserError, NvmelmError, UncertainError
from nvmelm.inventory.opened import open_primary
from nvmelm.inventory.picture import Role
from nvmelm.migrate.callouts.points import Points
from nvmelm.migrate.destination import serve
from nvmelm.migrate.end import End
from nvmelm.migrate.source import Source
from nvmelm.ownership.sessions import SessionRecord, Sessions, State
from nvmelm.prepare import sequence
from nvmelm.process.interrupts import interruptible, let_go
from tests.emulated.answers import agree
from tests.emulated.conftest import MakeHost
from tests.emulated.two_hosts import PF, LossyLink, World, copy
from tests.interrupting import Interrupting

pytestmark = pytest.mark.usefixtures("heard")

SIDES = ("source", "destination")
OVER = {"done", "rolled-back", "returned", "running", "abandoned"}


def move(world: World, side: str, during: Interrupting) -> BaseException | None:
    """Migrate with one side in this thread, which alone hears signals; return what that side ended with."""
    try:
        with interruptible():
            if side == "source":
                world.migrate(during=during, reconnect=True)
            else:
                take(world, during)
    except (NvmelmError, KeyboardInterrupt) as error:
        let_go(error)
        return error
    return None


def take(world: World, during: Interrupting) -> None:
    ours, theirs = socket.socketpair()

    def give() -> None:
        with (
            suppress(NvmelmError),
            LossyLink(ours.detach(), "destination", None) as link,
            open_primary(world.source, PF, change=True) as pf,
            Sessions(world.source) as sessions,
        ):
            end = End(pf, sessions, link, Points(None, "source"), "source", lambda: world.link("source"))
            moved = Source(end, world.request())
            moved.open()
            moved.move()

    giver = threading.Thread(target=give, daemon=True)
    giver.start()
    try:
        with (
            EmulatedHost(world.place / "destination") as host,
            LossyLink(theirs.detach(), "source", None) as link,
            during,
        ):
            serve(host, link, points=Points(None, "destination"), name="destination")
    finally:
        giver.join(60)
        assert not giver.is_alive(), "the source hangs"


@pytest.fixture(scope="module")
def stages(two_hosts: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, bool], list[tuple[int, int]]]:
    """Return which places of a whole migration lie between two records of a side, and of those where a block is left.

    Most places are in the hundred milliseconds before the suspend; so each stage is chosen as often as the others.
    """
    places = {}
    for side in SIDES:
        for leaving in (False, True):
            places[side, leaving] = list(
                pairwise(_recorded(two_hosts, tmp_path_factory.mktemp("whole"), side, leaving))
            )
    return places


def _recorded(two_hosts: Path, place: Path, side: str, leaving: bool) -> list[int]:
    world, during = copy(two_hosts, place / "world"), Interrupting(leaving=leaving)
    write, at = Sessions.move, [0]

    def written(sessions: Sessions, record: SessionRecord, to: State, note: str = "") -> SessionRecord:
        if record.side == side:
            at.append(during.passed)
        return write(sessions, record, to, note)

    try:
        world.start_guest()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Sessions, "move", written)
            assert move(world, side, during) is None
    finally:
        world.close()
    assert len(at) == 4
    return [*at, during.passed]


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(side=st.sampled_from(SIDES), leaving=st.booleans(), stage=st.integers(0, 3), part=st.integers(0, 999))
def test_ctrl_c_anywhere_in_a_migration_leaves_one_copy_running_and_nothing_undecided_after_recover(
    side: str,
    leaving: bool,
    stage: int,
    part: int,
    stages: dict[tuple[str, bool], list[tuple[int, int]]],
    two_hosts: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    first, last = stages[side, leaving][stage]
    at = first + 1 + (last - first) * part // 1000
    world = copy(two_hosts, tmp_path_factory.mktemp("ctrl-c") / "world")
    try:
        world.start_guest(depth=4, records=8, io_bytes=4096)
        ended = move(world, side, Interrupting(at, leaving=leaving))
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert not (world.runs("source") and world.runs("destination"))
        given = {"given-away", "done"} & {*world.states("source")}
        assert given or world.runs("source"), "what was not given away runs before anybody recovers"
        if {"given-away", "loaded", "accepted"} & {*world.states(side)}:
            assert isinstance(ended, UncertainError), "whoever cannot decide says so"
        for side in SIDES * 2:
            world.recover(side)
        assert {*world.states("source"), *world.states("destination")} <= OVER
        assert world.runs("source") != world.runs("destination")
        assert world.guest_lost_nothing()
    finally:
        world.close()


def prepare(host: EmulatedHost, during: Interrupting) -> None:
    with interruptible(), open_primary(host, PF, change=True) as pf, during:
        sequence.prepare(pf, Role.MIGRATABLE, 3, vq=2, vi=1, confirm=agree)


@pytest.mark.parametrize("leaving", [False, True])
def test_ctrl_c_anywhere_in_a_preparation_puts_everything_back(leaving: bool, make_host: MakeHost) -> None:
    for whole in (Interrupting(leaving=leaving), Interrupting(leaving=leaving)):  # the first one also imports
        host = make_host()
        host.set_option(latency_ms=0.1)  # its VFs are bound by several threads
        prepare(host, whole)
    for number in range(12):
        host = make_host()
        host.set_option(latency_ms=0.1)
        with open_primary(host, PF) as pf:
            before = pf.picture()
        with pytest.raises((InterruptedByUserError, KeyboardInterrupt)):
            prepare(host, Interrupting(1 + whole.passed * number // 12, leaving=leaving))
        with open_primary(host, PF) as pf:
            assert pf.picture() == before
