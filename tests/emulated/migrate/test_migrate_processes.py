"""Migrations of real processes over a real OpenSSH server on the loopback; either side dies, and recover ends it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nvmelm.process.waiting import wait_until
from tests.emulated.two_hosts import FIRST, PF, World, build
from tests.sshd import NoSshdError, Server, sshd

NVMELM = str(Path(sys.executable).with_name("nvmelm"))
OVER = {"done", "rolled-back", "returned", "running", "abandoned"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    try:
        with sshd(tmp_path_factory.mktemp("ssh") / "server") as server:
            yield server
    except NoSshdError as error:
        pytest.skip(str(error))


@pytest.fixture
def world(world: World) -> World:
    world.start_guest(depth=4)
    return world


#: The tests move the guest along by themselves.
WORD = ("--yes", "--guest-loses-controller")


class Two:
    """The command line of both hosts."""

    def __init__(self, world: World, server: Server) -> None:
        self.world = world
        self.server = server

    def words(self, side: str, *words: str) -> list[str]:
        return [NVMELM, "--host", f"emulated:{self.world.place / side}", *words]

    def other(self, side: str) -> list[str]:
        far_side = "destination" if side == "source" else "source"
        return ["--rsh", self.server.rsh, "--program", self.server.program(self.world.place / far_side)]

    def migrate(self, *more: str) -> list[str]:
        to = f"ssh://127.0.0.1/{PF}"
        return self.words("source", "migrate", PF, hex(FIRST), "--to", to, *WORD, *self.other("source"), *more)

    def recover(self, side: str) -> subprocess.CompletedProcess[str]:
        peer = ["--peer", "ssh://127.0.0.1"]
        return run(self.words(side, "recover", "--yes", "--json", *peer, *self.other(side)))


def run(words: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)


@pytest.fixture
def two(world: World, server: Server) -> Two:
    return Two(world, server)


def check_the_end(two: Two) -> None:
    """Both sides recovered: one copy runs, all is decided, and the guest noticed nothing."""
    world = two.world
    assert {*world.states("source"), *world.states("destination")} <= OVER
    assert world.runs("source") != world.runs("destination")
    assert world.guest is not None
    if world.runs("destination"):
        world.guest.attach(world.destination, "0000:01:00.1")
    world.guest.step(20)
    assert world.guest.finish().clean


def test_a_controller_moves_through_ssh(two: Two) -> None:
    done = run(two.migrate("--json"))
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["changed"]
    assert report["downtime"]["total_us"] > 0
    assert two.world.runs("destination")
    check_the_end(two)


@pytest.mark.parametrize("number", range(3))
def test_of_two_moves_that_cross_one_arrives_and_the_other_is_refused(
    number: int, tmp_path: Path, server: Server
) -> None:
    build(tmp_path / "world", controllers=2)
    world = World(tmp_path / "world", controllers=2)
    two, second = Two(world, server), hex(FIRST + 1)
    for side, verb in (("source", "allow-resume"), ("destination", "allow-migration")):
        done = run(two.words(side, "secondary", verb, PF, second, "--yes"))
        assert done.returncode == 0, done.stderr
    moves = []
    for side, which in (("source", hex(FIRST)), ("destination", second)):
        to = f"ssh://127.0.0.1/{PF}/{which}"
        words = two.words(side, "migrate", PF, which, "--to", to, *WORD, *two.other(side), "--json")
        moves.append(subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    ends = {}
    for side, move in zip(("source", "destination"), moves, strict=True):
        out, _ = move.communicate(timeout=120)
        document = json.loads(out)
        ends[side] = (move.returncode, document.get("reason", ""))
    refused = [end for end in ends.values() if end != (0, "")]
    assert len(refused) <= 1, ends  # none: the machine was slow enough for one after the other
    assert refused in ([], [(5, "moves-cross")]), ends
    moved = ["done", "running"]
    both = [*world.states("source"), *world.states("destination")]
    assert sorted(state for state in both if state in moved) == sorted(moved * (2 - len(refused)))
    assert {*both} <= {*moved, "rolled-back", "abandoned"}
    world.close()


DEATHS = [
    ("source", "0x41/0#2", "before"),  # at the suspend; the first of its kind announces it
    ("source", "0x41/0#2", "after"),
    ("source", "0x42/0#4", "after"),  # while the state is read
    ("source", "0x1c#1", "before"),  # when the destination runs, and the source takes its copy down
    ("destination", "0x41/0#1", "after"),  # while it prepares
    ("destination", "0x41/2#1", "before"),  # at the state
    ("destination", "0x41/2#1", "after"),
    ("destination", "0x41/1#1", "before"),  # at the resume
    ("destination", "0x41/1#1", "after"),
]


@pytest.mark.parametrize(("side", "where", "when"), DEATHS)
def test_a_side_that_dies_leaves_what_recover_ends(two: Two, side: str, where: str, when: str) -> None:
    first = ("source", "destination")[DEATHS.index((side, where, when)) % 2]
    two.world.host(side).arm(f"admin/{where}=crash-{when}")
    done = run(two.migrate())
    assert done.returncode != 0 or where.startswith("0x1c"), done.stdout
    assert not (two.world.runs("source") and two.world.runs("destination"))
    for side in (first, "destination" if first == "source" else "source"):
        two.recover(side)
    again = two.recover(first)
    assert json.loads(again.stdout)["sessions"] == []
    check_the_end(two)


POINTS = [
    *(("source", point) for point in ("compatible", "before-suspend", "source-suspended", "before-give-away")),
    *(("source", point) for point in ("given-away", "destination-running")),
    *(("destination", point) for point in ("prepared", "source-suspended", "before-resume", "destination-running")),
]


@pytest.mark.parametrize(("side", "point"), POINTS)
def test_a_side_killed_at_a_named_point_leaves_what_recover_ends(
    two: Two, side: str, point: str, tmp_path: Path
) -> None:
    hook = tmp_path / "callouts" / "kill"
    hook.parent.mkdir(mode=0o700)
    hook.write_text(f'#!/bin/sh\ngrep -q \'"point": "{point}"\' && kill -9 $PPID\nexit 0\n')
    hook.chmod(0o700)
    words = two.migrate("--callouts", str(hook.parent)) if side == "source" else two.migrate()
    if side == "destination":
        at = words.index("--program") + 1
        words[at] = f"env NVMELM_CALLOUTS={hook.parent} {words[at]}"
    run(words)
    assert not (two.world.runs("source") and two.world.runs("destination"))
    for side in ("source", "destination", "source"):
        two.recover(side)
    check_the_end(two)


def test_a_source_killed_with_its_ssh_is_recovered(two: Two) -> None:
    """Kill -9 of the whole process group, while the destination waits for the state."""
    for side in ("source", "destination"):
        two.world.host(side).set_option(latency_ms=40)
    with subprocess.Popen(two.migrate(), start_new_session=True, stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: "suspending" in two.world.states("source"), "the suspend", deadline_s=60)
        os.killpg(process.pid, signal.SIGKILL)
    for side in ("source", "destination"):
        two.world.host(side).set_option(latency_ms=0)
        two.recover(side)
    two.recover("source")
    check_the_end(two)


def test_ctrl_c_before_the_give_away_puts_everything_back_and_ends_with_8(two: Two) -> None:
    for side in ("source", "destination"):
        two.world.host(side).set_option(latency_ms=40)
    with subprocess.Popen(two.migrate(), start_new_session=True, stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: "preparing" in two.world.states("destination"), "the preparation", deadline_s=60)
        os.killpg(process.pid, signal.SIGINT)
        _, output = process.communicate(timeout=60)
    assert process.returncode == 8, output
    assert two.world.states("source") == ["rolled-back"]
    assert two.world.states("destination") == ["abandoned"]
    check_the_end(two)


def test_a_host_that_cannot_be_reached_is_an_error_before_anything_is_touched(two: Two) -> None:
    words = two.words("source", "migrate", PF, hex(FIRST), "--to", f"ssh://127.0.0.1:1/{PF}", "--yes")
    done = run([*words, "--rsh", f"ssh -F {two.server.place}/config -p 1 -T --"])
    assert done.returncode == 1
    assert "ssh ended with 255" in done.stderr
    assert two.world.states("source") == []
