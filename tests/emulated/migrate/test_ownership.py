"""The record of who owns what: only the steps of the table, on the disk before anything follows, private, and found."""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from nvmelm.emulator.host import EmulatedHost
from nvmelm.errors import BusyError, HostError, MalformedError, UncertainError
from nvmelm.ownership import sessions as ownership
from nvmelm.ownership.sessions import (
    FIRST,
    NEXT,
    Moving,
    SessionRecord,
    Sessions,
    Side,
    State,
    new_record,
    require_ours,
    sessions_path,
)
from tests.emulated.conftest import MakeHost

PF = "0000:01:00.0"
SOURCE = (State.OPEN, State.SUSPENDING, State.GIVEN_AWAY)


def record(
    host: EmulatedHost, side: Side = Side.SOURCE, *, session: str = "a" * 32, cntlid: int = 0x42
) -> SessionRecord:
    moving = Moving(cntlid=cntlid, peer_cntlid=0x43, incarnation=7, vq=2, vi=1)
    return new_record(host, session, side, peer="ssh://b", primary=PF, serial="SN", controllers=(moving,))


def test_a_session_is_what_it_was_when_it_is_read_again(make_host: MakeHost) -> None:
    host = make_host()
    with Sessions(host) as sessions:
        opened = sessions.open(record(host))
        moved = sessions.move(opened, State.SUSPENDING, "why")
    with Sessions(host) as sessions:
        assert sessions.get("a" * 32, Side.SOURCE) == moved
        assert sessions.unfinished() == [moved]
        assert [state for state, _ in moved.history] == ["open", "suspending"]


@pytest.mark.parametrize(("before", "after"), list(itertools.product(State, State)))
def test_only_the_steps_of_the_table_can_be_written(before: State, after: State, make_host: MakeHost) -> None:
    host = make_host()
    with Sessions(host) as sessions:
        side = Side.SOURCE if before in reachable(FIRST[Side.SOURCE]) else Side.DESTINATION
        opened = replace(record(host, side), state=before)
        sessions.open(opened)
        if after in NEXT[before]:
            assert sessions.move(opened, after).state is after
        else:
            with pytest.raises(UncertainError):
                sessions.move(opened, after)
            assert sessions.get(opened.id, opened.side) == opened


def reachable(first: State) -> set[State]:
    states, more = set(), {first}
    while more:
        states |= more
        more = {after for state in more for after in NEXT[state]} - states
    return states


def test_the_two_sides_share_no_state() -> None:
    assert not reachable(State.OPEN) & reachable(State.PREPARING)
    assert reachable(State.OPEN) | reachable(State.PREPARING) == set(State)


def test_of_two_that_decide_at_once_one_is_refused(make_host: MakeHost) -> None:
    host = make_host()
    with Sessions(host) as ours, Sessions(host) as other:
        opened = ours.open(record(host))
        ours.move(opened, State.SUSPENDING)
        with pytest.raises(UncertainError, match="not open any more"):
            other.move(opened, State.ROLLED_BACK)


def test_a_controller_is_in_one_unfinished_session_at_most(make_host: MakeHost) -> None:
    host = make_host()
    with Sessions(host) as sessions:
        first = sessions.open(record(host))
        with pytest.raises(BusyError, match="not over"):
            sessions.open(record(host, session="b" * 32))
        sessions.move(first, State.ROLLED_BACK)
        sessions.open(record(host, session="b" * 32))


@pytest.mark.parametrize("state", SOURCE)
def test_a_controller_that_was_given_away_is_not_ours(state: State, make_host: MakeHost) -> None:
    host = make_host()
    with Sessions(host) as sessions:
        moved = sessions.open(record(host))
        for step in SOURCE[1 : SOURCE.index(state) + 1]:
            moved = sessions.move(moved, step)
    if state is State.GIVEN_AWAY:
        with pytest.raises(UncertainError) as met:
            require_ours(host, PF, 0x42, 7)
        assert met.value.reason == "owned-elsewhere"
    else:  # still ours, but the session counts on nobody having resumed it behind its back
        with pytest.raises(BusyError) as busy:
            require_ours(host, PF, 0x42, 7)
        assert busy.value.reason == "session-unfinished"
    require_ours(host, PF, 0x42, 8)  # made anew since
    require_ours(host, PF, 0x44, 7)


def test_a_reboot_leaves_nothing_that_could_be_resumed(make_host: MakeHost) -> None:
    host = make_host()
    with Sessions(host) as sessions:
        sessions.open(record(host, Side.DESTINATION))
    host.reboot()
    require_ours(host, PF, 0x42, 7)


def test_the_records_are_for_their_owner_alone(make_host: MakeHost) -> None:
    host = make_host()
    with Sessions(host) as sessions:
        sessions.open(record(host))
        files = list(host.state_dir.glob("sessions.db*"))
        assert len(files) == 3  # the database and its log, which is written first
        assert all(file.stat().st_mode & 0o777 == 0o600 for file in files)


def test_a_damaged_database_is_named_and_never_taken_for_an_empty_one(make_host: MakeHost) -> None:
    host = make_host()
    with Sessions(host) as sessions:
        sessions.open(record(host))
    sessions_path(host).write_bytes(b"not a database" * 1000)
    with pytest.raises(MalformedError, match="cannot be read"), Sessions(host) as sessions:
        sessions.all()


def test_a_record_of_a_later_version_is_refused(make_host: MakeHost) -> None:
    host = make_host()
    with Sessions(host) as sessions:
        sessions.open(record(host))
    with sqlite3.connect(sessions_path(host)) as database:
        database.execute("UPDATE sessions SET record = replace(record, '\"format\":1', '\"format\":2')")
    database.close()
    with pytest.raises(MalformedError), Sessions(host) as sessions:
        sessions.all()


def test_a_disk_that_takes_nothing_is_an_error_before_anything_follows(make_host: MakeHost, tmp_path: Path) -> None:
    host = make_host()
    with Sessions(host) as sessions:
        opened = sessions.open(record(host))
        sessions._connection.execute("PRAGMA max_page_count = 1")  # type: ignore[union-attr]  # as full as it gets
        with pytest.raises(HostError) as met:
            sessions.move(opened, State.SUSPENDING, "x" * 100_000)
        assert met.value.reason == "sessions-unwritable"
    with Sessions(host) as sessions:
        assert sessions.get(opened.id, opened.side) == opened


def test_what_follows_the_first_record_needs_no_more_room_on_the_disk(make_host: MakeHost) -> None:
    host = make_host()
    log = sessions_path(host).with_name("sessions.db-wal")
    with Sessions(host) as sessions:
        moving = sessions.open(replace(record(host), controllers=record(host).controllers * 8))
        before = log.stat().st_size
        for state in (State.SUSPENDING, State.GIVEN_AWAY, State.DONE):
            moving = sessions.move(moving, state)
        assert log.stat().st_size == before
        assert sessions.all() == [moving]


def test_somebody_who_reads_does_not_keep_a_session_from_being_opened(make_host: MakeHost) -> None:
    host = make_host()
    with Sessions(host) as sessions:
        sessions.open(record(host))
        reader = sqlite3.connect(sessions_path(host), isolation_level=None)
        with contextlib.closing(reader):
            reader.execute("BEGIN")
            assert len(reader.execute("SELECT id FROM sessions").fetchall()) == 1
            opened = sessions.open(record(host, session="b" * 32, cntlid=0x44))
            assert sessions.move(opened, State.SUSPENDING).state is State.SUSPENDING


def test_a_reader_waits_for_no_writer(make_host: MakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nvmelm.ownership.file._BUSY_S", 0.0)
    host = make_host()
    with Sessions(host) as sessions:
        opened = sessions.open(record(host))
        with contextlib.closing(sqlite3.connect(sessions_path(host), isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            assert sessions.get(opened.id, opened.side) == opened
            with pytest.raises(HostError) as met:
                sessions.move(opened, State.SUSPENDING)
    assert met.value.reason == "sessions-unwritable"


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_a_record_in_a_file_that_nobody_will_find_is_in_doubt(how: str, make_host: MakeHost) -> None:
    host = make_host()
    with Sessions(host) as sessions:
        opened = sessions.open(record(host))
        for file in host.state_dir.glob("sessions.db*"):
            copy = file.read_bytes()
            file.unlink()
            if how == "replaced":
                file.with_name("put-in-its-place").write_bytes(copy)
                file.with_name("put-in-its-place").rename(file)
        with pytest.raises(HostError, match="removed or replaced") as met:
            sessions.move(opened, State.SUSPENDING)
    assert met.value.reason == "sessions-doubtful"


def test_a_session_that_comes_twice_is_no_damage(make_host: MakeHost) -> None:
    host = make_host()
    with Sessions(host) as sessions:
        sessions.open(record(host))
        with pytest.raises(BusyError) as met:
            sessions.open(record(host, cntlid=0x43))
    assert met.value.reason == "session-repeated"


def test_nothing_is_over_before_the_controllers_run() -> None:
    before = {State.RETURNING: State.RETURNED, State.TAKING: State.TAKEN, State.ROLLING_BACK: State.ROLLED_BACK}
    for written, end in before.items():
        assert NEXT[written] >= {end}
        assert not NEXT[end]
    assert not NEXT[State.GIVEN_AWAY] & set(before.values())


def ended(host: EmulatedHost, sessions: Sessions, number: int, **values: object) -> SessionRecord:
    """Write a session that is over."""
    return sessions.open(
        replace(record(host, session=f"{number:032x}", cntlid=0x40 + number), state=State.ROLLED_BACK, **values)
    )


def test_sessions_that_ended_long_ago_are_pruned_and_a_question_about_them_is_answered(
    make_host: MakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ownership, "_KEPT", 10)
    host = make_host()
    with Sessions(host) as sessions:
        for number in range(40):
            ended(host, sessions, number, boot="an earlier one")
        assert len(sessions.all()) <= 13
        assert [record.id for record in sessions.all()] == [f"{number:032x}" for number in range(40)][
            -len(sessions.all()) :
        ]
        forgotten = sessions.get(f"{0:032x}", Side.SOURCE)
        assert forgotten is not None
        assert (forgotten.state, forgotten.over) == (State.ROLLED_BACK, True)
        assert sessions.get(f"{0:032x}", Side.DESTINATION) is None
        with pytest.raises(BusyError, match="known here already"):
            sessions.open(record(host, session=f"{0:032x}"))


def test_what_still_says_who_owns_a_controller_is_never_pruned(
    make_host: MakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ownership, "_KEPT", 10)
    host = make_host()
    with Sessions(host) as sessions:
        unfinished = sessions.open(replace(record(host, session="f" * 32, cntlid=0x41), boot="an earlier one"))
        last_of_this_boot = sessions.open(replace(record(host, session="e" * 32, cntlid=0x42), state=State.DONE))
        for number in range(10, 40):
            ended(host, sessions, number, boot="an earlier one")
        assert {unfinished.id, last_of_this_boot.id} <= {record.id for record in sessions.all()}


def test_a_disk_without_room_to_prune_keeps_no_session_from_being_opened(
    make_host: MakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Sessions) -> None:
        raise HostError("no space left")

    monkeypatch.setattr(Sessions, "_prune", full)
    host = make_host()
    with Sessions(host) as sessions:
        assert sessions.open(record(host)) in sessions.all()


def test_thousands_of_sessions_cost_a_verb_no_time(make_host: MakeHost) -> None:
    host = make_host()
    with Sessions(host) as sessions:
        first = ended(host, sessions, 0, boot="an earlier one")
        with contextlib.closing(sqlite3.connect(sessions.path)) as database, database:
            database.executemany(
                "INSERT INTO sessions SELECT ?, side, address, state, replace(record, id, ?) FROM sessions LIMIT 1",
                [(f"{number:032x}",) * 2 for number in range(1, 2000)],
            )
        for number in range(2000, 2004):
            ended(host, sessions, number, boot="an earlier one")
        assert len(sessions.all()) <= 1100
        kept = sessions.get(first.id, first.side)
        assert kept is not None
        assert kept.over
