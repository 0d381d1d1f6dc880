"""Pre-copy: nothing a controller writes while it is tracked is missed, and the rounds end."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvmelm.emulator.device import engine
from nvmelm.errors import NotSupportedError, NvmelmError, RolledBackError, UsageError
from nvmelm.inventory.opened import open_primary
from nvmelm.inventory.picture import Primary
from nvmelm.migrate.callouts.points import Points
from nvmelm.migrate.rounds import memory
from nvmelm.migrate.rounds.memory import Limits, MemoryRound, parse_range
from nvmelm.wire.extents import Extent, merge
from tests.emulated.two_hosts import FIRST, PF, VF, World

MiB = 1 << 20
MEMORY = Extent(0, MiB)
NVMELM = str(Path(sys.executable).with_name("nvmelm"))


@pytest.fixture
def world(world: World) -> World:
    world.start_guest(depth=8)
    return world


def primary(world: World) -> Primary:
    with open_primary(world.source, PF) as pf:
        return pf.picture(users=False).primary


def test_every_byte_the_controller_wrote_is_in_a_round(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    guest = world.guest
    assert guest is not None
    writes: list[Extent] = []
    noted = engine.written

    def written(controller: Any, address: int, length: int) -> None:
        writes.append(Extent(address, address + length))
        noted(controller, address, length)

    rounds: list[MemoryRound] = []
    started: list[int] = []

    def on_dirty(tracked: MemoryRound) -> None:
        if not rounds:
            started.append(len(writes))
        rounds.append(tracked)
        if not tracked.after_suspend and len(rounds) < 5:
            guest.step(20 // len(rounds))

    monkeypatch.setattr(engine, "written", written)
    track = memory.starter(primary(world), [MEMORY], on_dirty, Limits(threshold_bytes=0, rounds=6))
    moved = world.migrate(tracks=[track])
    assert [tracked.after_suspend for tracked in rounds] == [False] * (len(rounds) - 1) + [True]
    assert moved.measured.rounds == rounds
    reported = merge(extent for tracked in rounds for extent in tracked.extents)
    missed = [write for write in writes[started[0] :] if not any(_within(write, extent) for extent in reported)]
    assert len(writes) > started[0]
    assert not missed
    guest.attach(world.destination, VF)
    guest.step(20)
    assert guest.finish().clean


def test_the_guest_is_stopped_after_the_rounds_and_before_the_suspend(world: World) -> None:
    order: list[str] = []

    def run(point: str, about: Any) -> None:
        if point in ("before-suspend", "source-suspended"):
            order.append(point)

    def on_dirty(tracked: MemoryRound) -> None:
        order.append("last round" if tracked.after_suspend else "round")

    world.migrate(
        tracks=[memory.starter(primary(world), [MEMORY], on_dirty)],
        points=lambda side: Points(run if side == "source" else None, side),
    )
    assert order == ["round", "before-suspend", "last round", "source-suspended"]


def test_rounds_end_when_little_is_written(world: World) -> None:
    rounds: list[MemoryRound] = []
    world.migrate(tracks=[memory.starter(primary(world), [MEMORY], rounds.append)])
    assert len(rounds) == 2  # nothing was written in the first, and the last is after the suspend


def test_a_caller_that_cannot_copy_stops_the_move_and_the_source_runs_on(world: World) -> None:
    def on_dirty(tracked: MemoryRound) -> None:
        raise NvmelmError("no room for the copy")

    with pytest.raises(NvmelmError, match="no room"):
        world.migrate(tracks=[memory.starter(primary(world), [MEMORY], on_dirty)])
    assert world.runs("source")
    assert world.states("source") == ["rolled-back"]
    world.migrate(tracks=[memory.starter(primary(world), [MEMORY], lambda tracked: None)])  # tracking had been stopped


def test_a_device_that_never_says_that_it_is_suspended_is_not_believed(world: World) -> None:
    world.source.arm("admin/0x3e#2=nonsense:zeros")
    with pytest.raises(NvmelmError) as met:
        world.migrate(tracks=[memory.starter(primary(world), [MEMORY], lambda tracked: None)])
    assert met.value.reason == "track-unfinished"
    assert world.runs("source")


def test_what_the_device_cannot_track_is_refused_before_anything_is_touched(world: World) -> None:
    able = primary(world)
    tracking = replace(able.tracking, memory=False)
    with pytest.raises(NotSupportedError):
        memory.plan(replace(able, tracking=tracking), [MEMORY])
    few = replace(able, tracking=replace(able.tracking, memory_ranges=1))
    with pytest.raises(NotSupportedError):
        memory.plan(few, [Extent(0, 4096), Extent(8192, 12288)])
    assert len(memory.plan(few, [Extent(0, 4096), Extent(4096, 12288)]).extents) == 1  # neighbours are one
    with pytest.raises(UsageError):
        memory.plan(able, [Extent(1, 4097)])
    powers = replace(able, tracking=replace(able.tracking, power_of_two_lengths=True))
    with pytest.raises(UsageError):
        memory.plan(powers, [Extent(0, 3 * 4096)])


@given(st.text(max_size=30))
def test_any_text_is_a_range_or_a_usage_error(text: str) -> None:
    try:
        extent = parse_range(text)
    except UsageError:
        return
    assert 0 <= extent.start < extent.end <= 1 << 64


@pytest.mark.parametrize("text", ["", "1", "1:", ":1", "0:0", "-1:5", "0x2:0xffffffffffffffff", "a:b", "0:1:2"])
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_range(text)


def test_the_rounds_are_written_as_lines_of_json(world: World, tmp_path: Path) -> None:
    host = f"emulated:{world.place / 'source'}"
    words = [NVMELM, "--host", host, "migrate", PF, hex(FIRST), "--to", f"ssh://destination/{PF}", "--json"]
    words += ["--yes", "--guest-loses-controller"]
    words += ["--rsh", f"{NVMELM} emulate rsh {world.place}", "--program", NVMELM]
    words += ["--track", "0:0x100000", "--dirty", str(tmp_path / "dirty")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "dirty").read_text().splitlines()]
    assert [line["after_suspend"] for line in lines] == [False, True]
    assert all(line["schema"] == "nvmelm.dirty" for line in lines)
    assert [tracked["after_suspend"] for tracked in json.loads(done.stdout)["rounds"]] == [False, True]


def test_a_device_that_reports_nonsense_is_not_believed(world: World) -> None:
    world.source.arm("admin/0x3e=nonsense:endless")
    with pytest.raises(RolledBackError):
        world.migrate(tracks=[memory.starter(primary(world), [MEMORY], lambda tracked: None)])
    assert world.runs("source")


def _within(inner: Extent, outer: Extent) -> bool:
    return outer.start <= inner.start and inner.end <= outer.end
