"""What a move rests on, replaced, removed or brought back from a backup while it runs: noticed, and not acted on."""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from nvmelm.disk.locks import FileLocks, lock_path
from nvmelm.emulator.host import EmulatedHost
from nvmelm.errors import BusyError, HostError, NvmelmError
from nvmelm.migrate.callouts.points import Points
from nvmelm.ownership.sessions import Sessions, State
from tests.emulated.migrate.test_ownership import record
from tests.emulated.two_hosts import FIRST, PF, World


def at(side: str, point: str, do: Callable[[EmulatedHost], object], world: World) -> Callable[[str], Points]:
    def points(which: str) -> Points:
        def run(reached: str, about: Any) -> None:
            if (which, str(reached)) == (side, point):
                do(world.host(side))

        return Points(run, which)

    return points


def lock_of(host: EmulatedHost) -> Path:
    return lock_path(host.state_dir, PF)


def mark_of(host: EmulatedHost) -> Path:
    return host.state_dir / "marks" / PF / f"{FIRST:#06x}.json"


def journal_of(host: EmulatedHost) -> Path:
    return host.state_dir / "journal" / f"{PF}.jsonl"


def restored(path: Path) -> None:
    """Bring a file back as a backup does: the same bytes in another file."""
    spare = path.with_name("spare")
    shutil.copy2(path, spare)
    spare.replace(path)


#: What is done to a host's files; each ends a move before the give-away.
REPLACED: dict[str, Callable[[EmulatedHost], object]] = {
    "the locks are removed": lambda host: shutil.rmtree(host.state_dir / "locks"),
    "the lock is another file": lambda host: restored(lock_of(host)),
    "the mark is removed": lambda host: mark_of(host).unlink(),
    "the mark is brought back": lambda host: restored(mark_of(host)),
    "the mark is written to": lambda host: mark_of(host).write_text(mark_of(host).read_text() + " "),
    "the journal is removed": lambda host: journal_of(host).unlink(),
    "the journal is brought back": lambda host: restored(journal_of(host)),
}
SOURCE_POINTS = ("prepared", "before-suspend", "source-suspended", "before-give-away")


@pytest.mark.parametrize("point", SOURCE_POINTS)
@pytest.mark.parametrize("what", REPLACED)
def test_nothing_is_given_away_on_files_that_are_not_those_of_the_beginning(
    what: str, point: str, guarded: World
) -> None:
    with pytest.raises(NvmelmError) as met:
        guarded.migrate(points=at("source", point, REPLACED[what], guarded))
    assert met.value.reason in ("records-replaced", "unmarked")
    assert met.value.rolled_back
    assert (guarded.states("source"), guarded.states("destination")) == (["rolled-back"], ["abandoned"])
    assert guarded.runs("source")


@pytest.mark.parametrize("point", ["prepared", "source-suspended"])
@pytest.mark.parametrize("what", REPLACED)
def test_nothing_is_taken_on_files_that_are_not_those_of_the_beginning(what: str, point: str, guarded: World) -> None:
    with pytest.raises(NvmelmError) as met:
        guarded.migrate(points=at("destination", point, REPLACED[what], guarded))
    assert met.value.reason == "records-replaced"
    assert (guarded.states("source"), guarded.states("destination")) == (["rolled-back"], ["abandoned"])
    assert guarded.runs("source")


# The sessions themselves.


def backup(host: EmulatedHost) -> Path:
    return host.state_dir.parent / "backup"


def keep(host: EmulatedHost) -> None:
    place = backup(host)
    place.mkdir(exist_ok=True)
    for file in host.state_dir.glob("sessions.db*"):
        shutil.copy2(file, place / file.name)


def bring_back(host: EmulatedHost, *, over: bool) -> None:
    """Bring the sessions back from a backup, into other files or over those that are there."""
    for file in host.state_dir.glob("sessions.db*"):
        if not over:
            file.unlink()
    for file in backup(host).iterdir():
        (shutil.copyfile if over else shutil.copy2)(file, host.state_dir / file.name)


DATABASE: dict[str, Callable[[EmulatedHost], object]] = {
    "removed": lambda host: [file.unlink() for file in host.state_dir.glob("sessions.db*")],
    "the log is removed": lambda host: (host.state_dir / "sessions.db-wal").unlink(),
    "the index is removed": lambda host: (host.state_dir / "sessions.db-shm").unlink(),
    "the log is emptied": lambda host: os.truncate(host.state_dir / "sessions.db-wal", 0),
    "the log is an older one": lambda host: shutil.copyfile(
        backup(host) / "sessions.db-wal", host.state_dir / "sessions.db-wal"
    ),
    "brought back as other files": lambda host: bring_back(host, over=False),
    "brought back over them": lambda host: bring_back(host, over=True),
}


@pytest.mark.parametrize("point", ["source-suspended", "before-give-away"])
@pytest.mark.parametrize("side", ["source", "destination"])
@pytest.mark.parametrize("what", DATABASE)
def test_a_destination_runs_only_what_the_next_nvmelm_will_read_as_given_away(
    what: str, side: str, point: str, guarded: World
) -> None:
    if side == "destination" and point == "before-give-away":
        point = "prepared"  # the destination's last one before it waits

    seen: dict[str, list[str]] = {}

    def run(reached: str, about: Any, which: str) -> None:
        if reached in ("given-away", "before-resume"):  # what was written is counted on from here on
            seen[which] = as_if_killed(guarded.host(which))
        if which == side and reached == "prepared":
            keep(guarded.host(side))
        if (which, str(reached)) == (side, point):
            DATABASE[what](guarded.host(side))

    def points(which: str) -> Points:
        return Points(lambda reached, about: run(reached, about, which), which)

    with suppress(NvmelmError):
        guarded.migrate(points=points)
    assert not (guarded.runs("source") and guarded.runs("destination"))
    assert guarded.holds("source") or guarded.holds("destination")
    assert seen.get("source", ["given-away"]) == ["given-away"]
    assert seen.get("destination", ["accepted"]) == ["accepted"]
    if guarded.runs("destination"):
        assert readable(guarded.source) == ["done"]
        assert readable(guarded.destination) in (["running"], ["accepted"])


def as_if_killed(host: EmulatedHost) -> list[str]:
    """Return what the next nvmelm would read if this one ended now: what the files hold that have the names."""
    place = host.state_dir.parent / "killed"
    place.mkdir()
    for file in host.state_dir.glob("sessions.db*"):
        if not file.name.endswith("-shm"):  # made anew from the log
            shutil.copyfile(file, place / file.name)
    with closing(sqlite3.connect(place / "sessions.db")) as database:
        return [state for (state,) in database.execute("SELECT state FROM sessions")]


def readable(host: EmulatedHost) -> list[str]:
    with suppress(NvmelmError), Sessions(host) as sessions:
        return [record.state.value for record in sessions.all()]
    return ["unreadable"]


# Locks.


@contextmanager
def held_elsewhere(directory: Path) -> Iterator[None]:
    """Have another process hold the lock."""
    program = (
        "import sys; from pathlib import Path; from nvmelm.disk.locks import FileLocks\n"
        f"with FileLocks(Path({str(directory)!r})).hold('x', timeout_s=5): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield
        finally:
            process.communicate("", timeout=30)


@pytest.mark.parametrize("how", ["removed", "moved away", "other file"])
def test_whoever_takes_a_lock_sees_who_holds_the_one_that_was_removed(how: str, tmp_path: Path) -> None:
    directory = tmp_path / "locks"
    with held_elsewhere(directory):
        if how == "removed":
            shutil.rmtree(directory)
        elif how == "moved away":
            directory.rename(tmp_path / "old")
        else:
            (directory / "x.lock").unlink()
        for _ in range(2):  # the one who gave up leaves nothing that the next one would believe
            with pytest.raises(BusyError) as met, FileLocks(directory).hold("x", timeout_s=0.2):
                pass
            assert met.value.reason == "locked"
            assert "whose lock was removed" in met.value.message
    with FileLocks(directory).hold("x", timeout_s=5):
        pass


def test_a_lock_that_was_removed_while_it_was_waited_for_is_not_taken(tmp_path: Path) -> None:
    directory = tmp_path / "locks"
    with FileLocks(directory).hold("x", timeout_s=1):
        pass
    real = fcntl.flock
    removed: list[Path] = []

    def flock(descriptor: int, operation: int) -> None:
        real(descriptor, operation)
        if not removed:
            removed.append(directory / "x.lock")
            removed[0].unlink()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fcntl, "flock", flock)
        with FileLocks(directory).hold("x", timeout_s=1):
            assert (directory / "x.lock").exists()
            with pytest.raises(BusyError), FileLocks(directory).hold("x", timeout_s=0.1):
                pass


@pytest.mark.parametrize("name", ["sessions.db", "sessions.db-wal", "sessions.db-shm"])
def test_nothing_is_written_once_a_part_of_the_sessions_is_another_file(name: str, world: World) -> None:
    with Sessions(world.source) as sessions:
        first = sessions.open(record(world.source))
        restored(world.source.state_dir / name)
        with pytest.raises(HostError) as met:
            sessions.move(first, State.SUSPENDING)
        assert met.value.reason == "sessions-doubtful"


@pytest.mark.parametrize("spoil", ["", "not a database" * 100], ids=["emptied", "garbage"])
def test_a_database_that_was_spoilt_is_no_host_without_sessions(world: World, spoil: str) -> None:
    """Whoever owns a controller is not known then; a resume would make the second copy of one that was given away."""
    world.migrate()
    for file in world.source.state_dir.glob("sessions.db*"):
        file.unlink()
    (world.source.state_dir / "sessions.db").write_text(spoil)
    with Sessions(world.source) as sessions, pytest.raises(NvmelmError) as caught:
        sessions.all()
    assert caught.value.reason == "sessions-damaged"
    assert "nvmelm recover --new-sessions" in caught.value.fix


def test_two_that_make_the_database_at_once_find_the_same_one(world: World) -> None:
    (world.source.state_dir / "sessions.db").unlink(missing_ok=True)
    with Sessions(world.source) as first, Sessions(world.source) as second:
        first.open(record(world.source))
        assert [record.id for record in second.all()] == [record.id for record in first.all()]
    assert not list(world.source.state_dir.glob(".sessions.db.*"))
