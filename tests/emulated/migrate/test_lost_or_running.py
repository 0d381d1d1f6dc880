"""A controller that runs is never taken for lost, one that is lost never for safe, and no verb takes a copy away."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from nvmelm.errors import BusyError, ExitCode, HostError, LinkLostError, NvmelmError, UncertainError
from nvmelm.inventory.opened import open_primary
from nvmelm.migrate import rollback
from nvmelm.migrate.callouts.points import Points
from nvmelm.migrate.link import messages
from nvmelm.migrate.link.frames import Link
from nvmelm.ownership.sessions import SessionRecord, Sessions, State
from nvmelm.state import verbs
from tests.emulated.answers import agree
from tests.emulated.two_hosts import FIRST, PF, Cut, Killed, World

RESUME = "admin/0x41/1"
#: The frame with which the destination says that it holds every state.
LOADED = 3


@contextmanager
def unwritten(patch: pytest.MonkeyPatch, *states: State, with_: BaseException | None = None) -> Iterator[None]:
    """Have a disk refuse these states, once or more often; or end the process there."""
    written = Sessions.move
    error = with_ or HostError("cannot keep the session: no room", path="x", reason="sessions-unwritable")

    def moved(sessions: Sessions, record: SessionRecord, to: State, note: str = "") -> SessionRecord:
        if to in states:
            raise error
        return written(sessions, record, to, note)

    with patch.context() as patched:
        patched.setattr(Sessions, "move", moved)
        yield


def refusing(side: str, point: str, before: Callable[[], object] = lambda: None) -> Callable[[str], Points]:
    """Return callouts of which one fails at a point."""

    def points(which: str) -> Points:
        def run(reached: str, about: Any) -> None:
            if (which, str(reached)) == (side, point):
                before()
                raise NvmelmError("the callout refuses")

        return Points(run, which)

    return points


def both(world: World) -> tuple[list[str], list[str]]:
    return world.states("source"), world.states("destination")


def rolled_back_unheard(world: World, patch: pytest.MonkeyPatch) -> None:
    """Roll the source back so that its controllers run, and neither its disk nor the destination knows of it."""
    with unwritten(patch, State.ROLLED_BACK), pytest.raises(NvmelmError):
        world.migrate(Cut("source", 8), points=refusing("source", "before-give-away"))
    assert both(world) == (["suspending"], ["loaded"])
    assert not world.controller("source")["suspended"]


def online_and_unsuspended(world: World) -> list[str]:
    controllers = {side: world.controller(side) for side in ("source", "destination")}
    return [side for side, controller in controllers.items() if controller["online"] and not controller["suspended"]]


# Guests without I/O queues: in their firmware, or with a driver that resets its controller.


@pytest.mark.parametrize("side", ["source", "destination"])
def test_a_source_that_runs_a_guest_without_queues_is_not_lost(
    side: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    rolled_back_unheard(world, monkeypatch)
    world.recover(side)
    world.recover("destination")
    assert both(world) == (["rolled-back"], ["abandoned"])


@pytest.mark.parametrize("word", ["take", "recover"])
def test_a_word_at_the_destination_makes_no_second_copy_of_a_guest_without_queues(
    word: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    rolled_back_unheard(world, monkeypatch)
    if word == "take":
        with pytest.raises(UncertainError) as met:
            world.word("take", "destination")
        assert met.value.reason == "held-elsewhere"
    else:
        world.recover("destination")
    assert both(world) == (["rolled-back"], ["abandoned"])


def test_a_destination_that_runs_a_guest_without_queues_is_found_running(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with unwritten(monkeypatch, State.RUNNING):
        world.migrate()
    assert both(world) == (["done"], ["accepted"])
    (seen,) = world.recover("destination")
    assert (seen.resolved, seen.settled) == (True, "running")
    assert online_and_unsuspended(world) == ["destination"]


def test_a_guest_that_resets_its_controller_where_it_runs_is_found_running(
    guarded: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with unwritten(monkeypatch, State.RUNNING):
        guarded.migrate()
    reset_function(guarded, "destination")
    (seen,) = guarded.recover("destination")
    assert (seen.resolved, seen.settled) == (True, "running")


def reset_function(world: World, side: str) -> None:
    """Reset the VF as its guest's driver does, or the VMM that ends."""
    world.host(side).sysfs.write("bus/pci/devices/0000:01:00.1/reset", "1")


def test_a_guest_that_resets_its_controller_after_the_roll_back_is_neither_lost_nor_ended(
    guarded: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    rolled_back_unheard(guarded, monkeypatch)
    reset_function(guarded, "source")
    for side in ("source", "destination"):
        (seen,) = guarded.recover(side)
        assert (seen.resolved, seen.reason) == (False, "copy-unclear")
        assert "--take" not in seen.note
        assert "--give-up" not in seen.note
    with pytest.raises(NvmelmError) as met:
        guarded.word("take", "destination")
    assert met.value.reason == "copy-unclear"
    assert both(guarded) == (["suspending"], ["loaded"])


def test_nobody_resumes_a_controller_behind_its_session(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with unwritten(monkeypatch, State.GIVEN_AWAY, with_=Killed()), pytest.raises(Killed):
        world.migrate()
    with open_primary(world.source, PF, change=True) as pf, pytest.raises(BusyError) as met:
        verbs.resume(pf, FIRST, confirm=agree)
    assert met.value.reason == "session-unfinished"
    assert world.controller("source")["suspended"]


# A copy that is lost between two looks.


@pytest.mark.parametrize("reconnect", [False, True])
def test_a_source_that_lost_its_copy_before_it_heard_loaded_leaves_the_destinations_alone(
    reconnect: bool, guarded: World
) -> None:
    guarded.source.arm(f"{RESUME}#1=reset")
    with pytest.raises(UncertainError) as met:
        guarded.migrate(Cut("destination", LOADED), reconnect=reconnect)
    assert met.value.reason == "source-lost"
    assert both(guarded) == (["suspending"], ["loaded"])
    assert guarded.holds("destination")


@pytest.mark.parametrize("alone", [False, True])
def test_a_source_that_is_reset_between_a_look_and_its_resume_does_not_run_again(
    alone: bool, guarded: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with unwritten(monkeypatch, State.GIVEN_AWAY, with_=Killed()), pytest.raises(Killed):
        guarded.migrate()
    guarded.source.arm(f"{RESUME}#1=reset")
    (seen,) = guarded.recover("source", alone=alone)
    assert (seen.resolved, seen.reason) == (False, "source-lost")
    assert both(guarded) == (["suspending"], ["loaded"])
    assert guarded.holds("destination")


def test_a_copy_that_is_taken_back_and_lost_on_the_way_does_not_end_the_other(guarded: World) -> None:
    with pytest.raises(UncertainError):
        guarded.migrate(Cut("source", 8))
    guarded.source.arm(f"{RESUME}#1=reset")
    with pytest.raises(UncertainError) as met:
        guarded.word("take", "source", alone=True)
    assert met.value.reason == "target-gone"
    guarded.recover("source")
    assert guarded.states("source") == ["taking"]
    assert guarded.holds("destination")


def test_a_function_that_is_reset_when_the_destination_holds_the_states_is_not_said_to_be_lost(
    guarded: World,
) -> None:
    callouts = refusing("source", "before-give-away", lambda: reset_function(guarded, "source"))
    with pytest.raises(UncertainError) as met:
        guarded.migrate(points=callouts)
    assert met.value.reason == "copy-unclear"
    assert "--take" not in met.value.fix
    assert both(guarded) == (["suspending"], ["loaded"])
    assert guarded.holds("destination")


# Other verbs, and a copy of a session that is not over.


@pytest.mark.parametrize("state", ["suspending", "given-away"])
def test_no_image_is_made_of_a_copy_that_a_session_decides_about(
    state: str, guarded: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if state == "suspending":
        with unwritten(monkeypatch, State.GIVEN_AWAY, with_=Killed()), pytest.raises(Killed):
            guarded.migrate()
    else:
        with pytest.raises(UncertainError):
            guarded.migrate(Cut("source", 8))
    for dry_run in (True, False):
        with open_primary(guarded.source, PF, change=True) as pf, pytest.raises(BusyError) as met:
            verbs.save(pf, FIRST, tmp_path / "image", dry_run=dry_run)
        assert met.value.reason == "session-unfinished"
    assert not (tmp_path / "image").exists()


def test_a_lost_copy_cannot_be_made_to_look_like_one_that_stands_still(guarded: World) -> None:
    with pytest.raises(UncertainError):
        guarded.migrate(Cut("source", 8))
    reset_function(guarded, "source")
    with open_primary(guarded.source, PF, change=True) as pf, pytest.raises(BusyError):
        verbs.suspend(pf, FIRST, confirm=agree)
    with pytest.raises(UncertainError) as met:
        guarded.word("take", "source", alone=True)
    assert met.value.reason == "target-gone"


# What a verb's end says.


@pytest.mark.parametrize("how", ["unwritten", "not taken down"])
def test_a_move_whose_source_is_not_ended_says_so(how: str, guarded: World, monkeypatch: pytest.MonkeyPatch) -> None:
    if how == "unwritten":
        with unwritten(monkeypatch, State.DONE), pytest.raises(UncertainError) as met:
            guarded.migrate()
    else:
        guarded.source.arm("admin/0x1c=status:0x4006")
        with pytest.raises(UncertainError) as met:
            guarded.migrate()
        guarded.source.disarm()
    assert met.value.reason == "source-unfinished"
    assert both(guarded) == (["given-away"], ["running"])
    assert guarded.failure is None, "the destination ends well"
    (seen,) = guarded.recover("source")
    assert (seen.settled, both(guarded)) == ("done", (["done"], ["running"]))


@pytest.mark.parametrize("code", list(ExitCode)[1:])
def test_only_this_sides_own_interrupt_ends_it_as_one(code: ExitCode) -> None:
    said = messages.Failed(kind="x", exit_code=int(code), message="it failed")
    error = messages.remote_error(said, "b")
    assert error.exit_code is not ExitCode.INTERRUPTED
    assert error.exit_code is not ExitCode.UNCERTAIN


@pytest.mark.parametrize("guest", [False, True])
def test_both_sides_write_down_whether_the_state_has_queues(guest: bool, world: World) -> None:
    if guest:
        world.start_guest(depth=4)
    world.migrate()
    for host in (world.source, world.destination):
        with Sessions(host) as sessions:
            assert [controller.idle for controller in sessions.all()[0].controllers] == [not guest]


@pytest.mark.parametrize("said", [True, False])
def test_of_a_link_that_was_cut_the_last_words_are_heard(said: bool) -> None:
    ours, theirs = socket.socketpair()
    lost = LinkLostError("the link to b was cut")
    with _link(ours) as link, _link(theirs) as other:
        if said:
            messages.send(other, messages.Failed(kind="x", exit_code=5, message="it is taken"))
        reason = rollback._reason(link, lost)
    assert reason.message == ("b: it is taken" if said else lost.message)


def _link(end: socket.socket) -> Link:
    number = end.detach()
    return Link(number, os.dup(number), "b")
