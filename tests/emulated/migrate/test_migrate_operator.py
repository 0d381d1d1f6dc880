"""What ``migrate`` asks of an operator, and tells: lost controllers, options, pages, moves made before."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nvmelm.cli.frame.callouts import points_of
from nvmelm.emulator.guest.guest import Guest
from nvmelm.errors import BusyError, ExitCode, NvmelmError, UsageError
from nvmelm.migrate.callouts.points import Point, Points
from tests.emulated.two_hosts import FIRST, PF, VF, Cut, World

NVMELM = str(Path(sys.executable).with_name("nvmelm"))
#: The callouts of each side that move a guest along.
STOPS, CONTINUES = Point.BEFORE_SUSPEND, Point.BEFORE_RESUME


def run(world: World, *words: str, side: str = "source") -> subprocess.CompletedProcess[str]:
    command = [NVMELM, "--host", f"emulated:{world.place / side}", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)


def migrate(world: World, *more: str, to: str = f"ssh://destination/{PF}") -> subprocess.CompletedProcess[str]:
    far_side = ("--rsh", f"{NVMELM} emulate rsh {world.place}", "--program", NVMELM)
    return run(world, "migrate", PF, hex(FIRST), "--to", to, *far_side, *more)


def having(**where: Point) -> Callable[[str], Points]:
    """Return callouts of which each side has one at a point."""
    return lambda side: Points(lambda point, about: None, side, where=[where[side]] if side in where else [])


# A guest whose controller goes elsewhere.


@pytest.mark.parametrize(
    ("points", "lacking"),
    [
        (having(), "none at before-suspend here, to stop it and none at before-resume on destination"),
        (having(source=STOPS), "there is none at before-resume on destination"),
        (having(destination=CONTINUES), "there is none at before-suspend here"),
        (having(source=CONTINUES, destination=STOPS), "none at before-suspend here"),
    ],
    ids=["nothing", "stops", "continues", "other points"],
)
def test_a_guest_that_nothing_moves_along_keeps_its_controller(
    points: Callable[[str], Points], lacking: str, guarded: World
) -> None:
    with pytest.raises(BusyError) as met:
        guarded.migrate(points=points, guest_loses_controller=False)
    assert met.value.reason == "guest-loses-controller"
    assert "qemu-system-x86" in met.value.message
    assert lacking in met.value.cause
    assert (guarded.states("source"), guarded.states("destination")) == ([], [])
    assert guarded.runs("source")


def test_callouts_on_both_sides_move_the_guest_along(guarded: World) -> None:
    guarded.migrate(points=having(source=STOPS, destination=CONTINUES), guest_loses_controller=False)
    assert guarded.runs("destination")


def test_a_vm_that_opens_the_controller_meanwhile_keeps_it(world: World) -> None:
    opened: list[Guest] = []

    def points(side: str) -> Points:
        def open_it(point: str, about: Any) -> None:
            if point == Point.PREPARED:
                opened.append(Guest.create(world.source, VF, depth=4))
                opened[0].attach(world.source, VF)

        return Points(open_it if side == "source" else None, side, where=[Point.PREPARED])

    with pytest.raises(NvmelmError) as met:
        world.migrate(points=points, guest_loses_controller=False)
    assert met.value.reason == "guest-loses-controller"
    assert world.states("source") == ["rolled-back"]
    assert world.runs("source")
    opened[0].detach()


@pytest.mark.parametrize("words", [(), ("--yes",), ("--dry-run",), ("--yes", "--json")])
def test_no_yes_and_no_dry_run_takes_a_guests_controller(words: tuple[str, ...], guarded: World) -> None:
    done = migrate(guarded, *words)
    assert done.returncode == ExitCode.BUSY
    assert "--guest-loses-controller" in done.stdout + done.stderr
    assert guarded.runs("source")


def test_the_operators_word_for_it_names_what_happens(guarded: World) -> None:
    dry = migrate(guarded, "--guest-loses-controller", "--dry-run")
    assert (dry.returncode, guarded.states("source")) == (0, [])
    assert migrate(guarded, "--guest-loses-controller").returncode == 0
    assert guarded.runs("destination")


# Moved already.


@pytest.mark.parametrize("which", ["named", "all"])
def test_a_controller_that_was_moved_there_needs_nothing(which: str, world: World) -> None:
    first = migrate(world, "--yes", "--json")
    session_id = json.loads(first.stdout)["session"]
    if which == "named":
        again = migrate(world, "--yes", "--json")
    else:
        rsh = ("--rsh", f"{NVMELM} emulate rsh {world.place}", "--program", NVMELM)
        again = run(world, "migrate", PF, "--all-migratable", "--to", f"ssh://destination/{PF}", *rsh, "--json")
    report = json.loads(again.stdout)
    assert (again.returncode, report["changed"]) == (0, False)
    (note,) = report["notes"]
    assert f"0x0042 was moved to ssh://destination/{PF}" in note
    assert session_id[:8] in note
    assert world.states("source") == ["done"]


def test_a_controller_that_was_moved_elsewhere_is_said_to_be_there(world: World) -> None:
    assert migrate(world, "--yes").returncode == 0
    again = migrate(world, "--yes", "--json", to=f"ssh://third/{PF}")
    error = json.loads(again.stdout)
    assert (again.returncode, error["reason"]) == (ExitCode.USAGE, "moved-away")
    assert f"moved to ssh://destination/{PF}" in error["cause"]


def test_a_controller_that_was_prepared_again_is_another_one(world: World) -> None:
    assert migrate(world, "--yes").returncode == 0
    again = migrate(world, "--yes", "--json")
    assert "was moved to" in json.loads(again.stdout)["notes"][0]
    for words in (("assign", "--vq", "3", "--vi", "2"), ("online",), ("allow-migration",)):
        assert run(world, "secondary", words[0], PF, hex(FIRST), *words[1:], "--yes").returncode == 0
    again = migrate(world, "--yes", "--json")
    assert json.loads(again.stdout)["reason"] == "no-target"


def test_a_copy_that_was_given_up_was_not_moved(world: World) -> None:
    with pytest.raises(NvmelmError):
        world.migrate(Cut("source", 8))
    world.word("give-up", "source", alone=True)
    again = migrate(world, "--yes", "--json")
    assert json.loads(again.stdout)["reason"] == "unmarked"


@pytest.mark.parametrize("yes", [False, True])
def test_a_controller_whose_state_was_saved_moves_only_on_a_word(yes: bool, world: World, tmp_path: Path) -> None:
    assert run(world, "state", "suspend", PF, hex(FIRST), "--yes").returncode == 0
    assert run(world, "state", "save", PF, hex(FIRST), str(tmp_path / "image")).returncode == 0
    # Held by somebody, so that nothing else is asked.
    guest = Guest.create(world.destination, VF, depth=4)
    guest.hold(world.destination, VF)
    done = migrate(world, *(["--yes"] if yes else []))
    assert (done.returncode == 0) is yes, done.stderr
    if not yes:
        assert "0x0042 was saved at" in done.stderr
        assert world.states("source") == []
    guest.detach()


# No target.


def test_a_host_without_a_target_names_those_that_only_lack_a_mark(world: World) -> None:
    assert run(world, "secondary", "revoke", PF, hex(FIRST), "--yes", side="destination").returncode == 0
    error = json.loads(migrate(world, "--yes", "--json").stdout)
    assert error["reason"] == "no-target"
    assert "0x0042 bear no mark" in error["cause"]
    assert "secondary allow-resume nvme0 0x0042" in error["fix"]
    assert "--vfs N, with more than 1" in error["fix"]


# Options.


@pytest.mark.parametrize("point", [Point.BEFORE_RESUME])
def test_a_callout_that_would_never_run_is_refused(point: Point, world: World) -> None:
    done = migrate(world, "--yes", "--callout", f"{point}=/bin/false")
    assert done.returncode == ExitCode.USAGE
    assert "is a point of the destination" in done.stderr
    assert "/etc/nvmelm/callouts.d at the destination" in done.stderr
    assert world.runs("source") is False
    assert world.states("source") == []


@pytest.mark.parametrize("point", [point for point in Point if point is not Point.BEFORE_RESUME])
def test_every_other_point_is_passed_at_the_source(point: Point) -> None:
    points = points_of("source", None, [f"{point}=/bin/true"])
    assert [point for point in Point if points.runs_at(point)] == [point]


@pytest.mark.parametrize(
    "point", [Point.COMPATIBLE, Point.BEFORE_SUSPEND, Point.BEFORE_GIVE_AWAY, Point.GIVEN_AWAY], ids=str
)
def test_a_point_of_the_source_never_runs_at_the_destination(point: Point) -> None:
    with pytest.raises(UsageError):
        points_of("destination", None, [f"{point}=/bin/true"])


def test_a_program_in_a_directory_runs_at_every_point(tmp_path: Path) -> None:
    program = tmp_path / "all"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o700)
    points = points_of("source", tmp_path)
    assert all(points.runs_at(point) for point in Point)
    assert not any(Points(None, "source").runs_at(point) for point in Point)


@pytest.mark.parametrize(
    ("words", "unused"),
    [
        (("--alone", "--rsh", "x"), "--rsh"),
        (("--alone", "--peer", "ssh://b"), "--peer"),
        (("--alone", "--program", "x"), "--program"),
        (("--finish", "--take", "abcd"), "--finish"),
        (("--finish", "--give-up", "abcd"), "--finish"),
    ],
)
def test_recover_refuses_what_it_would_pass_over(words: tuple[str, ...], unused: str, world: World) -> None:
    done = run(world, "recover", *words)
    assert done.returncode == ExitCode.USAGE
    assert f"{unused} beside" in done.stderr


# The page.


@pytest.mark.parametrize("option", ["--report", "--log-user-data", "--dirty"])
@pytest.mark.parametrize("place", ["nope/x", "file/x", "."])
def test_a_path_that_cannot_be_written_is_refused_before_anything_moves(
    option: str, place: str, world: World, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("x")
    words = ("--track", "0:0x100000") if option == "--dirty" else ()
    for dry_run in ((), ("--dry-run",)):
        done = migrate(world, "--yes", *words, option, str(tmp_path / place), *dry_run)
        what = "is not a regular file" if place == "." else "cannot write"
        assert done.returncode == (ExitCode.USAGE if place == "." else ExitCode.FAILED), done.stderr
        assert what in done.stderr
    assert world.states("source") == []


@pytest.mark.parametrize("fault", ["device", "verdict", "link"])
def test_a_failed_move_writes_its_page(fault: str, guarded: World, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    words = ("--guest-loses-controller", "--report", str(page))
    if fault == "device":
        guarded.destination.arm("admin/0x41/2=status:0x4006")
        done = migrate(guarded, *words)
        assert "the guest stood still for" in page.read_text()
    elif fault == "verdict":  # refused after the destination has answered, and before the first pair was judged
        verdict = {"schema": "nvmelm.verdict", "compatible": True, "source_digest": "a", "destination_digest": "b"}
        (tmp_path / "verdict.json").write_text(json.dumps(verdict))
        done = migrate(guarded, *words, "--verdict", str(tmp_path / "verdict.json"))
        assert done.returncode == ExitCode.INCOMPATIBLE, done.stderr
    else:
        done = run(guarded, "migrate", PF, hex(FIRST), "--to", f"ssh://x/{PF}", "--rsh", "false", *words)
    text = page.read_text()
    message = done.stderr.splitlines()[0].removeprefix("error: ")
    assert done.returncode != 0
    assert "which failed" in text
    assert message.split("'")[0][:40] in text
    assert "running at the destination" not in text


def test_a_dry_run_writes_no_page(world: World, tmp_path: Path) -> None:
    assert migrate(world, "--dry-run", "--report", str(tmp_path / "page.html")).returncode == 0
    assert not (tmp_path / "page.html").exists()
