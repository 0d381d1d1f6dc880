"""What goes wrong at the worst moment of a migration: what the two hosts say then is what is so."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from nvmelm.emulator.guest.guest import Guest
from nvmelm.errors import ExitCode, HostError, NvmelmError, RolledBackError, UncertainError
from nvmelm.inventory.opened import open_primary
from nvmelm.migrate.callouts.points import Points
from nvmelm.ownership.sessions import SessionRecord, Sessions, State
from nvmelm.process.interrupts import interruptible
from nvmelm.state import running
from nvmelm.state.verbs import suspend
from tests.emulated.answers import agree
from tests.emulated.migrate.test_migrate import RESUME, SUSPEND, goes_on
from tests.emulated.two_hosts import FIRST, PF, VF, World, build, copy

NVMELM = str(Path(sys.executable).with_name("nvmelm"))


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("several") / "template", controllers=3)


@pytest.fixture
def three(several: Path, tmp_path: Path) -> Iterator[World]:
    made = copy(several, tmp_path / "world")
    made.controllers = 3
    yield made
    made.close()


def at(side: str, point: str, do: Callable[[], object]) -> Callable[[str], Points]:
    """Do something when a side reaches a point."""

    def points(which: str) -> Points:
        def run(reached: str, about: Mapping[str, Any]) -> None:
            if (which, str(reached)) == (side, point):
                do()

        return Points(run, which)

    return points


def suspended(world: World, side: str) -> list[bool]:
    return [bool(world.controller(side, FIRST + number)["suspended"]) for number in range(world.controllers)]


# What runs at the destination.


def test_a_destination_that_lost_the_state_does_not_say_that_it_runs(guarded: World) -> None:
    with pytest.raises(UncertainError) as met:
        guarded.migrate(points=at("destination", "before-resume", lambda: guarded.destination.reset_primary(PF)))
    assert guarded.states("source") == ["given-away"]
    assert guarded.states("destination") == ["accepted"]
    assert guarded.holds("source"), "the last copy was taken down"
    assert isinstance(guarded.failure, UncertainError)
    assert guarded.failure.reason == "target-gone"
    assert "stay suspended" not in guarded.failure.message
    assert "are not all there any more; nothing runs" in met.value.cause
    with Sessions(guarded.destination) as sessions:
        (record,) = sessions.all()
    assert f"recover --give-up {record.id[:8]} here" in met.value.fix


def test_a_target_that_stood_still_before_runs_with_what_was_moved_into_it(guarded: World) -> None:
    with open_primary(guarded.destination, PF, change=True) as pf:
        suspend(pf, FIRST, confirm=agree)
    guarded.migrate()
    assert guarded.runs("destination")
    goes_on(guarded, "destination")


def test_when_one_of_several_cannot_be_resumed_none_of_them_runs(three: World) -> None:
    three.destination.arm(f"{RESUME}#2=status:0x4006")
    with pytest.raises(UncertainError, match="does not say that they run"):
        three.migrate()
    assert suspended(three, "destination") == [True, True, True]
    assert isinstance(three.failure, UncertainError)
    assert "stay suspended" in three.failure.message
    (seen,) = three.recover("source")
    assert seen.resolved
    assert suspended(three, "destination") == [False, False, False]
    assert (three.states("source"), three.states("destination")) == (["done"], ["running"])


def test_one_that_runs_and_cannot_be_stopped_again_is_named(three: World) -> None:
    three.destination.arm(f"{RESUME}#3=status:0x4006", f"{SUSPEND}#4*9=status:0x4006")
    with pytest.raises(UncertainError) as met:
        three.migrate()
    assert suspended(three, "destination") == [False, False, True]
    assert "these may run: 0x0042, 0x0043" in met.value.cause
    assert isinstance(three.failure, UncertainError)
    assert "these may run: 0x0042, 0x0043" in three.failure.message


def test_one_that_lost_its_state_is_not_suspended_as_if_it_had_it(three: World) -> None:
    resumed = running.resume

    def reset_before(queue: Any, cntlid: int) -> Any:
        if cntlid == FIRST and threading.current_thread() is not threading.main_thread():
            resumed(queue, cntlid)  # somebody else let it go: it is not suspended any more
        return resumed(queue, cntlid)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "resume", reset_before)
        with pytest.raises(UncertainError):
            three.migrate()
    assert suspended(three, "destination") == [False, True, True]
    assert isinstance(three.failure, UncertainError)
    assert three.failure.reason == "target-gone"


def test_a_disk_that_is_full_when_the_guest_runs_keeps_nobody_from_hearing_that_it_does(
    guarded: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    move = Sessions.move
    reached: list[str] = []

    def full(self: Sessions, record: SessionRecord, to: State, note: str = "") -> SessionRecord:
        if to is State.RUNNING:
            raise HostError("cannot keep the session: no room", path="x", reason="sessions-unwritable")
        return move(self, record, to, note)

    with monkeypatch.context() as patch:
        patch.setattr(Sessions, "move", full)
        guarded.migrate(points=at("destination", "destination-running", lambda: reached.append("running")))
    assert reached == ["running"]
    assert isinstance(guarded.failure, UncertainError)
    assert "run here" in guarded.failure.message
    assert guarded.states("destination") == ["accepted"]
    with open_primary(guarded.destination, PF) as pf:
        assert pf.picture().secondaries[0].mark is None, "it could be overwritten by the next one"
    guarded.recover("destination")
    assert guarded.states("destination") == ["running"]
    goes_on(guarded, "destination")


# What the destination takes.


def test_a_target_that_runs_a_guest_is_not_suspended_whatever_its_mark_says(world: World) -> None:
    guest = Guest.create(world.destination, VF, depth=4)
    guest.attach(world.destination, VF)
    guest.step(10)
    with pytest.raises(NvmelmError) as met:
        world.migrate()
    assert met.value.reason == "target-runs"
    assert world.runs("destination")
    assert world.states("destination") == []
    assert world.states("source") == ["rolled-back"]
    guest.step(10)
    assert guest.finish().clean


def test_a_device_that_tells_nothing_of_a_target_that_runs_takes_it_all_the_same(guarded: World) -> None:
    guarded.destination.arm("admin/0x42*2=status:0x400c")
    guarded.migrate()
    goes_on(guarded, "destination")


# What the source says of itself.


def test_a_source_that_was_reset_while_it_stood_still_does_not_say_that_it_runs_as_before(guarded: World) -> None:
    with pytest.raises(UncertainError) as met:
        guarded.migrate(points=at("source", "source-suspended", lambda: guarded.source.reset_primary(PF)))
    assert "runs as before" not in met.value.message
    assert "offline now: 0x0042" in met.value.message
    assert met.value.reason == "source-reset"
    assert not met.value.rolled_back
    assert guarded.states("source") == ["rolled-back"]
    assert guarded.states("destination") == ["abandoned"]


def test_a_source_that_is_reset_when_the_destination_holds_the_states_leaves_the_only_copy_alone(
    guarded: World,
) -> None:
    def reset() -> None:
        guarded.source.reset_primary(PF)
        raise NvmelmError("the callout refuses")

    with pytest.raises(UncertainError) as met:
        guarded.migrate(points=at("source", "before-give-away", reset))
    assert met.value.reason == "source-lost"
    assert (guarded.states("source"), guarded.states("destination")) == (["suspending"], ["loaded"])
    assert guarded.holds("destination")
    guarded.word("take", "destination")
    assert guarded.runs("destination")
    goes_on(guarded, "destination")


def test_those_that_were_never_suspended_were_not_reset(three: World) -> None:
    three.source.arm(f"{SUSPEND}#5=status:0x4006")  # three announcements, the first suspend, and this one
    with pytest.raises(NvmelmError) as met:
        three.migrate()
    assert met.value.exit_code is ExitCode.REFUSED
    assert not any("reset" in note for note in met.value.__notes__)
    assert suspended(three, "source") == [False, False, False]


# Requests to end.


def ask_twice() -> None:
    """Let two different requests to end wait together, as for a process that was stopped meanwhile."""
    asking = (signal.SIGINT, signal.SIGTERM)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, asking)
    for number in asking:
        signal.raise_signal(number)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_two_requests_to_end_at_once_leave_the_guest_running(guarded: World) -> None:
    with pytest.raises(RolledBackError) as met, interruptible():
        guarded.migrate(points=at("source", "source-suspended", ask_twice))
    assert met.value.exit_code is ExitCode.ROLLED_BACK
    assert (guarded.states("source"), guarded.states("destination")) == (["rolled-back"], ["abandoned"])
    goes_on(guarded, "source")


def test_ctrl_c_pressed_twice_does_not_let_a_resume_overtake_a_suspend(
    three: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    three.source.set_option(latency_ms=1)  # with latency, commands for several controllers go out together
    order: list[str] = []
    together = threading.Barrier(3, timeout=20)
    suspends, resumes = running.suspend, running.resume

    def slow(queue: Any, cntlid: int, **more: Any) -> Any:
        if not threading.current_thread().name.startswith("ThreadPool"):
            return suspends(queue, cntlid, **more)  # the destination's
        if together.wait() == 0:
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.1)
        done = suspends(queue, cntlid, **more)
        order.append("suspended")
        return done

    def resume(queue: Any, cntlid: int) -> Any:
        order.append("resume")
        return resumes(queue, cntlid)

    monkeypatch.setattr(running, "suspend", slow)
    monkeypatch.setattr(running, "resume", resume)
    with pytest.raises(RolledBackError), interruptible():
        three.migrate(notify=False)
    assert order[:3] == ["suspended"] * 3
    assert order[3:6] == ["resume"] * 3
    assert suspended(three, "source") == [False, False, False]


# What is beside the answer.


def migrate(world: World, *more: str) -> list[str]:
    words = [NVMELM, "--host", f"emulated:{world.place / 'source'}", "migrate", PF, hex(FIRST), "--yes", *more]
    return [
        *words,
        "--to",
        f"ssh://destination/{PF}",
        "--rsh",
        f"{NVMELM} emulate rsh {world.place}",
        "--program",
        NVMELM,
    ]


@pytest.mark.parametrize("stderr", ["2>&-", "2>/dev/full"])
def test_progress_that_cannot_be_written_neither_ends_a_move_nor_goes_elsewhere(world: World, stderr: str) -> None:
    words = ["sh", "-c", f'exec "$@" {stderr}', "sh", *migrate(world, "--json")]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, timeout=60, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout
    assert json.loads(done.stdout)["changed"]
    assert world.states("source") == ["done"]


@pytest.mark.parametrize("stderr", ["2>&-", "2>/dev/full"])
def test_an_error_that_cannot_be_shown_ends_with_its_own_exit_code(world: World, stderr: str) -> None:
    world.destination.arm("admin/0x41/2=status:0x4006")
    words = ["sh", "-c", f'exec "$@" {stderr}', "sh", *migrate(world)]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, timeout=60, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout) == (int(ExitCode.REFUSED), "")


def test_a_dry_run_runs_no_callout(world: World, tmp_path: Path) -> None:
    trace = tmp_path / "called"
    words = migrate(world, "--callout", f"compatible=/usr/bin/touch {trace}")
    done = subprocess.run([*words, "--dry-run"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert not trace.exists()
    assert subprocess.run(words, capture_output=True, timeout=60).returncode == 0
    assert trace.exists()
