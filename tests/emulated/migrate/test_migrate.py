"""Migrations between two emulated hosts, with a guest that must not notice, and what becomes of those that fail."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from nvmelm.emulator.host import create
from nvmelm.emulator.machine.generations import GENERATIONS
from nvmelm.errors import (
    BusyError,
    ExitCode,
    IncompatibleError,
    NotReadyError,
    NvmelmError,
    RolledBackError,
    UncertainError,
)
from nvmelm.inventory.opened import open_primary
from nvmelm.inventory.picture import Role
from nvmelm.migrate import source
from nvmelm.migrate.callouts.points import Points
from nvmelm.prepare import allow, sequence
from nvmelm.prepare.cells import cells_of, written_cells
from nvmelm.state import verbs
from nvmelm.state.image import digest
from tests.emulated.answers import agree
from tests.emulated.two_hosts import FIRST, PF, VF, Cut, World, build, copy

SEND = "0x41"
#: The source's frames: Hello, Open, Prepare, rehearsal, Rehearsed, Suspended, the state, Sent, Give, Bye.
GIVE = 8
SUSPEND, RESUME, SET = f"admin/{SEND}/0", f"admin/{SEND}/1", f"admin/{SEND}/2"


def goes_on(world: World, side: str) -> None:
    """Let the guest work where its controller is, and check that it lost nothing."""
    assert world.guest is not None
    if side == "destination":
        world.guest.attach(world.destination, VF)
    world.guest.step(30)
    report = world.guest.finish()
    assert report.clean, report
    assert report.submitted == report.completed


def cells(world: World, side: str) -> dict[str, Any]:
    with open_primary(world.host(side), PF) as pf:
        return written_cells(cells_of(pf.picture()))


def test_a_move_leaves_one_running_copy_and_a_guest_that_noticed_nothing(guarded: World) -> None:
    moved = guarded.migrate()
    assert guarded.runs("destination")
    assert not guarded.holds("source")
    assert guarded.states("source") == ["done"]
    assert guarded.states("destination") == ["running"]
    assert moved.measured.state_bytes > 48
    assert moved.measured.downtime_s is not None
    goes_on(guarded, "destination")


@pytest.mark.parametrize("generation", [name for name in GENERATIONS if name != "stock-qemu-7.2"])
def test_every_generation_moves(generation: str, tmp_path: Path) -> None:
    world = copy(build(tmp_path / "template", generation), tmp_path / "world")
    first = 2 if generation == "tp4159" else FIRST
    with open_primary(world.source, PF) as pf:
        first = pf.picture().secondaries[0].cntlid
    world.migrate(pairs=[(first, None)])
    assert world.states("destination") == ["running"]
    world.close()


def test_a_device_with_several_vendor_formats_moves_in_one_of_them(tmp_path: Path) -> None:
    row = GENERATIONS["nvme-2.1-vendor"]
    several = row.with_(vendor_uuids=(*row.vendor_uuids, "00000000-1111-4222-8333-444444444444"))
    world = copy(build(tmp_path / "template", several), tmp_path / "world")
    world.migrate()
    assert world.states("destination") == ["running"]
    world.close()


def test_several_controllers_move_together(tmp_path: Path) -> None:
    world = copy(build(tmp_path / "template", controllers=4), tmp_path / "world")
    world.controllers = 4
    moved = world.migrate()
    assert len(moved.ledger.known.controllers) == 4
    assert world.states("destination") == ["running"]
    world.close()


def only_on(monkeypatch: pytest.MonkeyPatch, without: str) -> None:
    """Let one side of a world have no other digest than SHA-256."""

    def available() -> tuple[str, ...]:
        side = "source" if threading.current_thread() is threading.main_thread() else "destination"
        return (digest.SHA256,) if side == without else (digest.XXH3, digest.SHA256)

    for module in (digest, source):
        monkeypatch.setattr(module, "available", available)


@pytest.mark.parametrize("without", ["source", "destination", "neither"])
def test_a_host_without_the_faster_digest_moves_with_the_other_one(
    guarded: World, without: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_on(monkeypatch, without)
    moved = guarded.migrate()
    assert moved.agreed is not None
    assert moved.agreed.digest == (digest.XXH3 if without == "neither" else digest.SHA256)
    assert guarded.runs("destination")
    goes_on(guarded, "destination")


def test_what_was_prepared_is_where_it_was_after_a_failed_move(guarded: World) -> None:
    before = cells(guarded, "source"), cells(guarded, "destination")
    guarded.destination.arm(f"{SET}=status:0x4006")
    with pytest.raises(NvmelmError) as met:
        guarded.migrate()
    assert met.value.exit_code is ExitCode.REFUSED
    assert met.value.rolled_back
    assert (cells(guarded, "source"), cells(guarded, "destination")) == before
    assert guarded.states("source") == ["rolled-back"]
    assert guarded.states("destination") == ["abandoned"]
    assert not guarded.holds("destination")
    goes_on(guarded, "source")


def test_a_device_that_loses_a_state_once_gets_it_again(guarded: World) -> None:
    guarded.destination.arm(f"{SET}#1=status:0x0006")
    guarded.migrate()
    goes_on(guarded, "destination")


@pytest.mark.parametrize(
    ("fault", "moved"),
    [
        pytest.param("#3=status:0x0021", True, id="a part in the middle, once"),
        pytest.param("#1*2=status:0x0021", True, id="the first part, twice"),
        pytest.param("#3*9=status:0x0021", False, id="always"),
        pytest.param("#3=status:0x4006", False, id="for good"),
    ],
)
@pytest.mark.parametrize("latency_ms", [0, 1])  # a quick device's state is set by the thread that receives it
def test_a_state_in_parts_that_a_device_loses_comes_again_or_stays_where_it_was(
    fault: str, moved: bool, latency_ms: int, tmp_path: Path
) -> None:
    row = GENERATIONS["nvme-2.1-vendor"].with_(vendor_state_bytes=4 << 20)
    world = copy(build(tmp_path / "template", row, latency_ms=latency_ms), tmp_path / "world")
    world.start_guest(depth=8)
    world.destination.arm(SET + fault)
    if moved:
        world.migrate()
    else:
        with pytest.raises(NvmelmError, match=r"Internal Error|Command Interrupted"):
            world.migrate()
        assert world.states("destination") == ["abandoned"]
    goes_on(world, "destination" if moved else "source")
    world.close()


def test_a_source_that_does_not_suspend_runs_as_before(guarded: World) -> None:
    guarded.source.arm(f"{SUSPEND}#2=status:0x4006")  # the first one announces only
    with pytest.raises(NvmelmError) as met:
        guarded.migrate()
    assert met.value.exit_code is ExitCode.REFUSED
    goes_on(guarded, "source")


def test_a_failed_callout_before_the_give_away_rolls_back(guarded: World) -> None:
    def run(point: str, about: Any) -> None:
        if point == "before-give-away":
            raise NvmelmError("the site says no")

    with pytest.raises(RolledBackError, match="the site says no"):
        guarded.migrate(points=lambda side: Points(run if side == "source" else None, side))
    goes_on(guarded, "source")


@pytest.mark.parametrize("where", ["source", "destination"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), MemoryError(), RuntimeError("a bug")])
def test_an_error_that_nobody_expected_rolls_back_too(guarded: World, error: Exception, where: str) -> None:
    def run(point: str, about: Any) -> None:
        if point == "source-suspended":
            raise error

    with pytest.raises(RolledBackError, match=type(error).__name__) as met:
        guarded.migrate(points=lambda side: Points(run if side == where else None, side))
    assert met.value.reason == "bug"
    if where == "source":
        assert met.value.__cause__ is error
    assert (guarded.states("source"), guarded.states("destination")) == (["rolled-back"], ["abandoned"])
    goes_on(guarded, "source")
    guarded.migrate()


def test_a_resume_that_breaks_in_a_way_nobody_expected_is_uncertain_and_said(
    guarded: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise OSError(5, "Input/output error")

    def run(point: str, about: Any) -> None:
        if point == "before-give-away":
            monkeypatch.setattr("nvmelm.migrate.controllers.running.resume", broken)
            raise NvmelmError("the site says no")

    with pytest.raises(UncertainError, match="could not be resumed") as met:
        guarded.migrate(points=lambda side: Points(run if side == "source" else None, side))
    assert "OSError" in met.value.message
    monkeypatch.undo()
    assert not guarded.runs("destination")
    guarded.recover("source")
    goes_on(guarded, "source")


def test_a_failed_callout_after_the_give_away_changes_nothing(guarded: World) -> None:
    def run(point: str, about: Any) -> None:
        if point in ("before-resume", "destination-running", "given-away"):
            raise NvmelmError("too late")

    guarded.migrate(points=lambda side: Points(run, side))
    goes_on(guarded, "destination")


def test_ctrl_c_before_the_give_away_rolls_back_with_exit_8(guarded: World) -> None:
    def run(point: str, about: Any) -> None:
        if point == "source-suspended":
            raise KeyboardInterrupt

    with pytest.raises(RolledBackError) as met:
        guarded.migrate(points=lambda side: Points(run if side == "source" else None, side))
    assert met.value.exit_code is ExitCode.ROLLED_BACK
    assert any("stood still" in note for note in met.value.__notes__)
    goes_on(guarded, "source")


def test_lost_contact_after_the_give_away_stops_both_and_recover_at_the_source_ends_it(guarded: World) -> None:
    with pytest.raises(UncertainError) as met:
        guarded.migrate(Cut("source", GIVE))
    assert met.value.exit_code is ExitCode.UNCERTAIN
    assert not guarded.runs("source")
    assert not guarded.runs("destination")
    assert (guarded.states("source")[-1], guarded.states("destination")[-1]) == ("given-away", "loaded")
    (seen,) = guarded.recover("source")
    assert seen.resolved
    assert (guarded.states("source")[-1], guarded.states("destination")[-1]) == ("done", "running")
    assert guarded.recover("source") == guarded.recover("destination") == []
    goes_on(guarded, "destination")


def test_lost_contact_after_the_give_away_is_ended_by_recover_at_the_destination_too(guarded: World) -> None:
    with pytest.raises(UncertainError):
        guarded.migrate(Cut("source", GIVE))
    (seen,) = guarded.recover("destination")
    assert seen.resolved
    assert (guarded.states("source")[-1], guarded.states("destination")[-1]) == ("done", "running")
    goes_on(guarded, "destination")


def test_a_given_away_controller_is_not_resumed_by_hand(guarded: World) -> None:
    with pytest.raises(UncertainError):
        guarded.migrate(Cut("source", GIVE))
    for side in ("source", "destination"):
        with (
            open_primary(guarded.host(side), PF, change=True) as pf,
            pytest.raises(UncertainError, match="not resumed"),
        ):
            verbs.resume(pf, FIRST, confirm=agree)


def test_a_controller_in_an_unfinished_session_does_not_move_again(guarded: World) -> None:
    with pytest.raises(UncertainError):
        guarded.migrate(Cut("source", GIVE))
    with pytest.raises(BusyError, match="not over"):
        guarded.migrate()


def test_an_unmarked_controller_does_not_move(world: World) -> None:
    with open_primary(world.source, PF, change=True) as pf:
        allow.revoke(pf, [FIRST], confirm=agree)
    with pytest.raises(NotReadyError, match="not marked"):
        world.migrate()
    assert world.states("source") == world.states("destination") == []


def test_a_destination_without_a_resumable_controller_is_refused(world: World) -> None:
    with open_primary(world.destination, PF, change=True) as pf:
        allow.revoke(pf, [FIRST], confirm=agree)
    with pytest.raises(NvmelmError) as met:
        world.migrate()
    assert met.value.exit_code is ExitCode.BUSY
    assert "no resumable controller left" in met.value.message
    assert met.value.cause.startswith("1 is to be moved there")


def test_a_link_cut_when_the_states_are_in_leaves_nothing_behind_once_the_destination_is_told_again(
    guarded: World,
) -> None:
    """The cut comes when the destination says loaded: it must not decide by itself, and is told over a new link."""
    loaded = 3  # Hello, Opened, Prepared, Loaded
    with pytest.raises(RolledBackError) as met:
        guarded.migrate(Cut("destination", loaded), reconnect=True)
    assert not any("may still hold" in note for note in met.value.__notes__)
    assert guarded.states("destination") == ["abandoned"]
    goes_on(guarded, "source")


def test_an_incompatible_pair_stops_before_anything_is_touched(tmp_path: Path) -> None:
    template = build(tmp_path / "template")
    made = create(template / "other", ("nvme-2.1-vendor",), storage=template / "media")
    with made as other, open_primary(other, PF, change=True) as pf:
        sequence.prepare(pf, Role.RESUMABLE, 1, vq=3, vi=2, confirm=agree)
    (template / "destination").rename(template / "unused")
    (template / "other").rename(template / "destination")
    world = copy(template, tmp_path / "world")
    world.start_guest(depth=4)
    before = cells(world, "source"), cells(world, "destination")
    with pytest.raises(IncompatibleError) as met:
        world.migrate()
    assert met.value.exit_code is ExitCode.INCOMPATIBLE
    assert "model" in met.value.cause
    assert world.states("source") == world.states("destination") == []
    assert (cells(world, "source"), cells(world, "destination")) == before
    goes_on(world, "source")
    world.close()


def test_a_verdict_given_for_others_stops_it_too(guarded: World) -> None:
    with pytest.raises(IncompatibleError) as met:
        guarded.migrate(agreed=("sha256:" + "0" * 64, "sha256:" + "0" * 64))
    assert met.value.reason == "verdict-outdated"
    assert guarded.states("source") == []
    goes_on(guarded, "source")


def test_a_downtime_that_would_be_too_long_is_refused_before_the_suspend(guarded: World) -> None:
    with pytest.raises(RolledBackError) as met:
        guarded.migrate(max_downtime_s=0.0)
    assert met.value.reason == "downtime"
    assert "the guest was not stopped" in met.value.__notes__
    goes_on(guarded, "source")


@pytest.mark.parametrize(("missing", "words"), [("source", "missing here"), ("destination", "missing at"), ("", "")])
def test_a_large_state_without_the_faster_digest_says_where_it_is_missing(
    missing: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = GENERATIONS["nvme-2.1-vendor"].with_(vendor_state_bytes=64 << 20)
    world = copy(build(tmp_path / "template", row), tmp_path / "world")
    only_on(monkeypatch, missing)
    notes = world.migrate().measured.notes
    assert [words in note for note in notes if "fast" in note] == ([True] if missing else [])
    world.close()
