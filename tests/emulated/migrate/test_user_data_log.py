"""The log of user data: no block that a guest wrote is missing, and what was lost is said."""

from __future__ import annotations

import gc
import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvmelm.emulator.host import EmulatedHost, create
from nvmelm.errors import MalformedError, NotSupportedError, NvmelmError
from nvmelm.host.local.machine import LocalHost
from nvmelm.inventory.opened import open_primary
from nvmelm.migrate.rounds import user_data
from nvmelm.migrate.rounds.user_data import UserDataLog, Written, coalesced
from nvmelm.wire.extents import Extent
from nvmelm.wire.tracking import EntryMarker, MigrationQueueEntry, RangeScope, pack_entry
from tests.emulated.two_hosts import FIRST, PF, World, build, copy

NVMELM = str(Path(sys.executable).with_name("nvmelm"))
SCHEMA = json.loads((Path(__file__).parents[3] / "docs" / "schemas" / "nvmelm.written.json").read_text())


@pytest.fixture(scope="module")
def two_hosts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("hosts") / "template", "nvme-2.1-udmq")


@pytest.fixture
def world(world: World) -> World:
    world.start_guest(depth=8)
    return world


def blocks(world: World) -> set[int]:
    """Return the blocks of the medium that hold a record of the guest's."""
    medium = next((world.place / "media").iterdir()).read_bytes()
    return {at // 512 for at in range(0, len(medium), 512) if medium[at : at + 6] == b"RECORD"}


def reported(rounds: list[Written]) -> set[int]:
    return {
        block
        for tracked in rounds
        for extents in tracked.blocks.values()
        for extent in extents
        for block in _range(extent)
    }


def _range(extent: Extent) -> range:
    return range(extent.start, extent.end)


def test_every_block_a_guest_wrote_is_in_a_round_and_the_last_is_after_the_suspend(world: World) -> None:
    guest = world.guest
    assert guest is not None
    before = blocks(world)
    memory = set((world.place / "source" / "memory").iterdir())
    rounds: list[Written] = []

    def on_written(logged: Written) -> None:
        rounds.append(logged)
        if not logged.after_suspend and len(rounds) < 5:
            guest.step(40 // len(rounds))

    with open_primary(world.source, PF) as pf:
        primary = pf.picture(users=False).primary
    moved = world.migrate(tracks=[user_data.starter(world.source, primary, on_written)])
    assert moved.measured.logged_rounds == rounds
    assert [tracked.after_suspend for tracked in rounds] == [False] * (len(rounds) - 1) + [True]
    assert not any(tracked.restart for tracked in rounds)
    fresh = blocks(world) - before
    assert fresh
    assert fresh <= reported(rounds)
    assert set((world.place / "source" / "memory").iterdir()) == memory  # the log's was given back
    with world.source.machine.view() as state:
        assert state["primaries"][PF]["queues"] == {}
    guest.attach(world.destination, "0000:01:00.1")
    guest.step(20)
    assert guest.finish().clean


def test_a_log_that_was_full_says_so_and_begins_anew(world: World) -> None:
    guest = world.guest
    assert guest is not None
    rounds: list[Written] = []
    with open_primary(world.source, PF, change=True) as pf:
        log = UserDataLog(pf, [FIRST], rounds.append, slots=8)
        guest.step(60)
        log.converge()
        assert rounds[0].restart
        known = blocks(world)
        guest.step(2)
        log.converge()
        assert not rounds[-1].restart
        assert blocks(world) - known <= reported(rounds[1:])
        log.close()
        assert log.notes == []


def test_a_log_that_is_full_at_the_suspend_rolls_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    guest = world.guest
    assert guest is not None
    monkeypatch.setattr(user_data.UserDataLog.__init__, "__kwdefaults__", {"slots": 8})
    monkeypatch.setattr(user_data.UserDataLog, "converge", lambda self: guest.step(60))
    with open_primary(world.source, PF) as pf:
        primary = pf.picture(users=False).primary
    with pytest.raises(NvmelmError) as met:
        world.migrate(tracks=[user_data.starter(world.source, primary, lambda _: None)])
    assert met.value.reason == "log-full"
    assert world.runs("source")
    assert world.states("source") == ["rolled-back"]


def test_several_controllers_have_a_queue_each_and_none_is_left(tmp_path: Path) -> None:
    place = build(tmp_path / "template", "nvme-2.1-udmq", controllers=2)
    world = copy(place, tmp_path / "world")
    memory = world.place / "source" / "memory"
    with open_primary(world.source, PF, change=True) as pf:
        log = UserDataLog(pf, [FIRST, FIRST + 1], lambda _: None)
        assert len(list(memory.iterdir())) == 2
        log.converge()
        assert [tracked.cntlid for tracked in log.rounds] == [FIRST, FIRST + 1]
        log.close()
        log.close()
    assert list(memory.iterdir()) == []
    world.close()


def test_memory_that_a_device_may_still_write_to_is_kept(world: World) -> None:
    memory = world.place / "source" / "memory"
    before = set(memory.iterdir())
    world.source.arm("admin/0x45#2=status:0x4006")
    with open_primary(world.source, PF, change=True) as pf:
        log = UserDataLog(pf, [FIRST], lambda _: None)
        (kept,) = set(memory.iterdir()) - before
        log.close()
        assert "was not ended" in log.notes[0]
        del log
        gc.collect()
    assert kept.exists()
    guest = world.guest
    assert guest is not None
    guest.step(20)  # the device goes on writing, and finds its memory
    with world.source.machine.view() as state:
        assert [queue["wild"] for queue in state["primaries"][PF]["queues"].values()] == [0]


def test_a_guest_that_writes_as_fast_as_the_log_is_read_does_not_keep_a_round_going(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest = world.guest
    assert guest is not None
    with open_primary(world.source, PF, change=True) as pf:
        log = UserDataLog(pf, [FIRST], lambda _: None, slots=16)
        published = user_data.data_queue.set_head

        def busy(number: int, head: int) -> Any:
            guest.step(4)
            return published(number, head)

        monkeypatch.setattr(user_data.data_queue, "set_head", busy)
        guest.step(2)
        log.converge()
        log.close()
    assert all(tracked.count <= 16 * 64 for tracked in log.rounds)
    assert len(log.rounds) <= 16


def test_a_device_that_refuses_leaves_no_queue(world: World) -> None:
    world.source.arm("admin/0x3d#1=status:0x4006")
    with open_primary(world.source, PF, change=True) as pf, pytest.raises(NvmelmError):
        UserDataLog(pf, [FIRST], lambda _: None)
    with world.source.machine.view() as state:
        assert state["primaries"][PF]["queues"] == {}


def test_a_host_whose_kernel_owns_the_pf_refuses_with_its_reason(world: World, tmp_path: Path) -> None:
    with open_primary(world.source, PF) as pf:
        primary = pf.picture(users=False).primary
    with pytest.raises(NotSupportedError) as met:
        user_data.starter(LocalHost(state_dir=tmp_path), primary, lambda _: None)
    assert met.value.reason == "kernel-owned-queue"


def test_a_device_without_the_log_is_refused(tmp_path: Path) -> None:
    with create(tmp_path / "host", ["nvme-2.1"]) as host, open_primary(host, PF) as pf:
        with pytest.raises(NotSupportedError) as met:
            user_data.starter(host, pf.picture(users=False).primary, lambda _: None)
        assert met.value.reason == "no-user-data-log"


def test_the_rounds_are_written_as_lines_of_json(world: World, tmp_path: Path) -> None:
    host = f"emulated:{world.place / 'source'}"
    words = [NVMELM, "--host", host, "migrate", PF, hex(FIRST), "--to", f"ssh://destination/{PF}", "--json"]
    words += ["--yes", "--guest-loses-controller"]
    words += ["--rsh", f"{NVMELM} emulate rsh {world.place}", "--program", NVMELM]
    done = subprocess.run(
        [*words, "--log-user-data", str(tmp_path / "written"), "--track", "0:0x100000"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "written").read_text().splitlines()]
    for line in lines:
        jsonschema.validate(line, SCHEMA)
    assert [line["after_suspend"] for line in lines] == [False, True]
    document = json.loads(done.stdout)
    assert [logged["after_suspend"] for logged in document["logged_rounds"]] == [False, True]
    assert [tracked["after_suspend"] for tracked in document["rounds"]] == [False, True]


@pytest.mark.parametrize(
    "options",
    [
        ["--log-user-data"],
        ["--track", "0x1:0x10", "--dirty"],
        ["--dry-run", "--track", "0:0x100000", "--dirty"],
    ],
)
def test_a_move_that_is_refused_or_only_planned_leaves_the_file_and_calls_nobody_first(
    tmp_path: Path, options: list[str]
) -> None:
    world = copy(build(tmp_path / "template", "nvme-2.1"), tmp_path / "world")
    keep = tmp_path / "keep"
    keep.write_text("precious")
    called = tmp_path / "called"
    rsh = tmp_path / "rsh"
    rsh.write_text(f'#!/bin/sh\ntouch {called}\nexec {NVMELM} emulate rsh {world.place} "$@"\n')
    rsh.chmod(0o700)
    words = [NVMELM, "--host", f"emulated:{world.place / 'source'}", "migrate", PF, hex(FIRST), "--yes"]
    words += ["--to", f"ssh://destination/{PF}", "--rsh", str(rsh), "--program", NVMELM, "--force", *options, str(keep)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert keep.read_text() == "precious"
    assert "the link" not in done.stderr
    planned = "--dry-run" in options
    assert (done.returncode == 0, called.exists()) == (planned, planned), done.stderr
    world.close()


@pytest.mark.parametrize("rsh", ["echo hello", "false"])
def test_where_no_nvmelm_answers_the_error_says_how_to_try(world: World, rsh: str) -> None:
    words = [NVMELM, "--host", f"emulated:{world.place / 'source'}", "migrate", PF, hex(FIRST), "--yes"]
    done = subprocess.run([*words, "--to", f"ssh://b/{PF}", "--rsh", rsh], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "nvmelm recover" not in done.stderr
    assert "nvmelm --version" in done.stderr


def entry(**fields: object) -> MigrationQueueEntry:
    return MigrationQueueEntry.at(memoryview(pack_entry(phase=1, **fields)), 0)  # type: ignore[arg-type]


def test_entries_become_half_open_ranges_neighbours_joined() -> None:
    blocks, whole = coalesced(
        [
            entry(marker=EntryMarker.FIRST),
            entry(nsid=2, blocks=(8, 16)),
            entry(nsid=1, blocks=(0, 1)),
            entry(nsid=2, blocks=(0, 8), deallocated=True),
            entry(nsid=2, blocks=(20, 24)),
            entry(nsid=3, scope=RangeScope.WHOLE_NAMESPACE),
            entry(nsid=3, blocks=(5, 6)),
        ]
    )
    assert blocks == {1: (Extent(0, 1),), 2: (Extent(0, 16), Extent(20, 24))}
    assert whole == (3,)


@pytest.mark.parametrize("bad", [entry(nsid=1, scope=3), entry(nsid=0, blocks=(0, 1))])
def test_an_entry_that_makes_no_sense_is_refused(bad: MigrationQueueEntry) -> None:
    with pytest.raises(MalformedError):
        coalesced([bad])


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 60), st.integers(1, 9)), max_size=30))
def test_no_block_is_lost_or_added_by_joining(rows: list[tuple[int, int, int]]) -> None:
    blocks, _ = coalesced([entry(nsid=nsid, blocks=(start, start + count)) for nsid, start, count in rows])
    wanted = {(nsid, block) for nsid, start, count in rows for block in range(start, start + count)}
    assert {
        (nsid, block) for nsid, extents in blocks.items() for extent in extents for block in _range(extent)
    } == wanted
    for extents in blocks.values():
        assert all(extent.end < other.start for extent, other in itertools.pairwise(extents))


def test_memory_for_a_queue_goes_when_it_is_given_back(tmp_path: Path) -> None:
    with create(tmp_path / "host", ["nvme-2.1-udmq"]) as made:
        host: EmulatedHost = made
        with host.queue_memory(100) as memory:
            assert len(memory) >= 100
            assert not any(memory)
        assert list((tmp_path / "host" / "memory").iterdir()) == []
