"""The database of sessions removed, emptied, or an older copy put in its place: nobody takes that for an answer."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from nvmelm import cli
from nvmelm.emulator.host import EmulatedHost
from nvmelm.errors import NvmelmError, UncertainError
from nvmelm.inventory.departed import WITNESS, any_session
from nvmelm.ownership import anew, database, witness
from nvmelm.ownership.anew import begin_anew
from nvmelm.ownership.sessions import Sessions, Side, State, sessions_path
from nvmelm.ownership.witness import Witness, witness_path
from tests.emulated.answers import agree
from tests.emulated.conftest import MakeHost
from tests.emulated.migrate.test_ownership import record
from tests.emulated.migrate.test_records_replaced import backup, bring_back, keep
from tests.emulated.migrate.test_recover_words import GIVE, killed_before_the_give_away, running
from tests.emulated.two_hosts import FIRST, PF, VF, Cut, Killed, World

NAME = f"{FIRST:#06x}"


def removed(host: EmulatedHost) -> None:
    for file in host.state_dir.glob("sessions.db*"):
        file.unlink()


def spoilt(content: str) -> Callable[[EmulatedHost], None]:
    def spoil(host: EmulatedHost) -> None:
        removed(host)
        sessions_path(host).write_text(content)

    return spoil


def another_ones(host: EmulatedHost) -> None:
    removed(host)
    database.make(sessions_path(host))
    with closing(sqlite3.connect(sessions_path(host))) as other, other:
        other.execute("UPDATE life SET changes = 99")


#: What becomes of the sessions of a host on which a backup was made while the controller still was its own.
LOST: dict[str, Callable[[EmulatedHost], None]] = {
    "removed": removed,
    "emptied": spoilt(""),
    "garbage": spoilt("not a database" * 100),
    "an older copy": lambda host: bring_back(host, over=False),
    "another host's": another_ones,
}
#: Every verb that asks who owns a controller, as it is typed.
ASKING = {
    "state resume": ["state", "resume", PF, NAME, "--yes"],
    "state suspend": ["state", "suspend", PF, NAME, "--yes"],
    "state save": ["state", "save", PF, NAME, "image"],
    "secondary offline": ["secondary", "offline", PF, NAME, "--yes"],
    "secondary assign": ["secondary", "assign", PF, NAME, "--vq", "4", "--vi", "2", "--yes"],
    "sriov disable": ["sriov", "disable", PF, "--yes"],
    "source prepare": ["source", "prepare", PF, "--vfs", "2", "--yes"],
    "vfio unbind": ["vfio", "unbind", VF, "--yes"],
    "release": ["release", PF, "--yes"],
    "recover": ["recover", "--yes"],
    "migrate": ["migrate", PF, NAME, "--to", f"ssh://nowhere/{PF}", "--yes"],
}


@pytest.fixture
def lost(world: World) -> World:
    """A world whose source has given its controller away, and has a backup of its sessions from before that."""
    world.start_guest(depth=4)
    with Sessions(world.source) as sessions:
        first = sessions.open(record(world.source, cntlid=0x77))
        sessions.move(first, State.ROLLED_BACK)
    keep(world.source)
    with pytest.raises(UncertainError):
        world.migrate(Cut("source", GIVE))
    assert world.states("source") == ["rolled-back", "given-away"]
    return world


def answer(host: EmulatedHost, words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    code = cli.main(["--host", host.name, *words, "--json"])
    printed: dict[str, Any] = json.loads(capsys.readouterr().out)
    return code, printed


@pytest.mark.parametrize("how", LOST)
def test_no_verb_touches_a_controller_whose_owner_is_not_known(
    how: str, lost: World, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    LOST[how](lost.source)
    before = lost.controller("source")
    texts = set()
    for words in ASKING.values():
        code, document = answer(lost.source, words, capsys)
        assert code != 0, words
        texts.add((document["reason"], document["message"], document["fix"]))
    assert lost.controller("source") == before
    assert len(texts) == 1, texts
    assert "nvmelm recover --new-sessions" in document["fix"]


@pytest.mark.parametrize("how", LOST)
def test_a_host_that_lost_its_sessions_tells_the_other_one_nothing(how: str, lost: World) -> None:
    if how == "an older copy":
        keep(lost.destination)
        with closing(sqlite3.connect(backup(lost.destination) / "sessions.db")) as older, older:
            older.execute("DELETE FROM sessions")
            older.execute("UPDATE life SET changes = 0")
    LOST[how](lost.destination)
    (view,) = lost.recover("source")
    assert (view.resolved, view.reason, view.state) == (False, "sessions-damaged", "given-away")
    assert running(lost) == []
    assert (
        lost.word("take", "source", session=view.session).settled == "taken"
    )  # the operator's own word, as of a host that does not answer


def test_a_source_does_not_run_again_because_the_destination_lost_its_sessions(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The destination may have run it on an operator's word."""
    world.start_guest(depth=4)
    killed_before_the_give_away(world, monkeypatch)
    world.word("take", "destination", alone=True)
    removed(world.destination)
    (view,) = world.recover("source")
    assert (view.resolved, view.reason) == (False, "sessions-damaged")
    assert running(world) == ["destination"]


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_copy_of_the_same_move_is_noticed_however_little_older_it_is(steps: int, make_host: MakeHost) -> None:
    host = make_host()
    states = (State.SUSPENDING, State.GIVEN_AWAY, State.DONE)
    with Sessions(host) as sessions:
        moving = sessions.open(record(host))
        for state in states[: len(states) - steps]:
            moving = sessions.move(moving, state)
    keep(host)
    with Sessions(host) as sessions:
        for state in states[len(states) - steps :]:
            moving = sessions.move(moving, state)
    bring_back(host, over=False)
    with Sessions(host) as sessions, pytest.raises(NvmelmError, match="is an older copy") as met:
        sessions.get(moving.id, Side.SOURCE)
    assert met.value.reason == "sessions-damaged"


def test_the_newest_copy_brought_back_is_believed(lost: World) -> None:
    keep(lost.source)
    removed(lost.source)
    bring_back(lost.source, over=False)
    assert lost.states("source") == ["rolled-back", "given-away"]


# Beginning with new ones.


@pytest.mark.parametrize("how", LOST)
def test_new_sessions_are_begun_on_a_word_and_the_old_ones_are_kept(
    how: str, lost: World, capsys: pytest.CaptureFixture[str]
) -> None:
    LOST[how](lost.source)
    spoiled = sessions_path(lost.source).read_bytes() if how != "removed" else b""
    code, document = answer(lost.source, ["recover", "--new-sessions"], capsys)
    assert (code, document["reason"]) == (10, "confirmation")  # nobody was asked
    code, document = answer(lost.source, ["recover", "--new-sessions", "--yes"], capsys)
    assert (code, document["changed"]) == (0, True)
    kept = [file.read_bytes() for file in lost.source.state_dir.glob(f"{WITNESS}/*/sessions.db")]
    assert kept == ([spoiled] if spoiled or how == "emptied" else [])
    assert lost.states("source") == []
    code, document = answer(lost.source, ASKING["state resume"], capsys)
    assert (code, document["changed"], running(lost)) == (0, True, ["source"])


def test_sessions_that_can_be_read_are_not_begun_anew(lost: World, capsys: pytest.CaptureFixture[str]) -> None:
    code, document = answer(lost.source, ["recover", "--new-sessions", "--yes"], capsys)
    assert (code, document["reason"]) == (10, "sessions-readable")
    assert lost.states("source")[-1] == "given-away"


@pytest.mark.parametrize("other", [["--take", "abcd"], ["--give-up", "abcd"], ["--finish"], ["--alone"]])
def test_new_sessions_are_no_other_word(other: list[str], lost: World, capsys: pytest.CaptureFixture[str]) -> None:
    removed(lost.source)
    code, document = answer(lost.source, ["recover", "--new-sessions", *other, "--yes"], capsys)
    assert (code, document["reason"]) == (2, "arguments")
    assert witness.read(lost.source) is not None


@pytest.mark.parametrize("seam", ["sync_directory", "private_directory", "witness.forget"])
@pytest.mark.parametrize("how", LOST)
def test_new_sessions_that_were_cut_off_leave_the_old_ones_lost(
    how: str, seam: str, lost: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    LOST[how](lost.source)
    with monkeypatch.context() as patch:
        patch.setattr(f"nvmelm.ownership.anew.{seam}", dies)
        if how == "removed" and "directory" in seam:
            return  # nothing is put aside
        with pytest.raises(Killed):
            begin_anew(lost.source, agree)
    with pytest.raises(NvmelmError) as met, Sessions(lost.source) as sessions:
        sessions.all()
    assert met.value.reason == "sessions-damaged"
    begin_anew(lost.source, agree)
    assert lost.states("source") == []


def test_the_database_is_put_aside_after_its_log(make_host: MakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that stays would be read with the next database."""
    host = make_host()
    sessions_path(host).write_text("garbage" * 100)
    monkeypatch.setattr(anew, "_trouble", lambda host: witness.damaged(sessions_path(host), "is damaged"))
    (host.state_dir / "sessions.db-wal").write_text("a log")
    order: list[str] = []
    rename = Path.rename
    monkeypatch.setattr(Path, "rename", lambda file, to: order.append(file.name) or rename(file, to))
    begin_anew(host, agree)
    assert order == ["sessions.db-wal", "sessions.db"]


# A process that dies between the database and what is known of it.


def dies(*arguments: object, **more: object) -> None:
    raise Killed


#: Where a process is killed while it writes: by the function in which it dies, and whether that had done its work.
DEATHS = [
    (module, name, done)
    for module, name in ((witness, "keep"), (database, "make"), (database, "count"), (witness, "follow"))
    for done in (False, True)
]


@pytest.mark.parametrize("state", [None, State.SUSPENDING, State.GIVEN_AWAY])
@pytest.mark.parametrize(("module", "name", "done"), DEATHS)
def test_a_death_between_the_two_leaves_sessions_that_can_be_read(
    module: Any, name: str, done: bool, state: State | None, make_host: MakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = make_host()
    before = [] if state is None else [State.OPEN] if state is State.SUSPENDING else [State.SUSPENDING]
    with Sessions(host) as sessions:
        moving = sessions.open(record(host)) if state is not None else record(host)
        if state is State.GIVEN_AWAY:
            moving = sessions.move(moving, State.SUSPENDING)
    write = getattr(module, name)

    def killed(*arguments: Any) -> None:
        if done:
            write(*arguments)
        raise Killed

    with monkeypatch.context() as patch, Sessions(host) as sessions:
        patch.setattr(module, name, killed)
        try:
            sessions.open(moving) if state is None else sessions.move(moving, state)
        except Killed:
            pass
        else:
            assert state is not None
            assert name in ("keep", "make")  # done once, before the first session
    with Sessions(host) as sessions:
        states = [known.state for known in sessions.all()]
        assert states in (before, [state or State.OPEN])
        if name == "follow":  # the database had it
            assert states == [state or State.OPEN]
        sessions.open(record(host, session="b" * 32, cntlid=0x55))


def test_a_host_without_sessions_has_no_witness_and_asks_nothing(make_host: MakeHost) -> None:
    host = make_host()
    assert (any_session(host), witness.read(host)) == (False, None)
    with Sessions(host) as sessions:
        assert (sessions.all(), sessions.seen(), sessions.get("a" * 32, Side.SOURCE)) == ([], [], None)
    assert not sessions_path(host).exists()
    assert not witness_path(host).parent.exists()


def test_a_host_that_lost_its_database_still_is_one_that_took_part(make_host: MakeHost) -> None:
    host = make_host()
    with Sessions(host) as sessions:
        sessions.open(record(host))
    removed(host)
    assert any_session(host)
    assert witness_path(host).parent == host.state_dir / WITNESS


def test_the_witness_is_on_the_disk_before_the_first_session_is(
    make_host: MakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = make_host()
    seen: list[Witness | None] = []
    count = database.count
    monkeypatch.setattr(database, "count", lambda opened: seen.append(witness.read(host)) or count(opened))
    with Sessions(host) as sessions:
        sessions.open(record(host))
    assert seen[0] is not None
    assert seen[0].changes == 0


def test_a_database_of_an_earlier_nvmelm_is_believed_and_known_from_then_on(make_host: MakeHost) -> None:
    host = make_host()
    with Sessions(host) as sessions:
        moving = sessions.open(record(host))
    with closing(sqlite3.connect(sessions_path(host))) as earlier:
        earlier.execute("DROP TABLE life")
    shutil.rmtree(host.state_dir / WITNESS)
    with Sessions(host) as sessions:
        assert sessions.seen() == sessions.all() == [moving]
        sessions.open(record(host, session="b" * 32, cntlid=0x55))
    removed(host)
    with Sessions(host) as sessions, pytest.raises(NvmelmError, match="is gone"):
        sessions.all()


def test_the_witness_says_the_most_that_any_process_has_written(make_host: MakeHost) -> None:
    host = make_host()
    with Sessions(host) as sessions:
        sessions.open(record(host))
    known = witness.read(host)
    assert known is not None
    witness.follow(host, known._replace(changes=9))
    witness.follow(host, known._replace(changes=8))  # who was slower
    witness.keep(host, known._replace(changes=7))
    witness.follow(host, Witness("another", 99))
    assert witness.read(host) == known._replace(changes=9)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format":2,"database":"a","changes":1}', '{"format":1,"changes":1}'])
def test_a_witness_that_cannot_be_read_is_no_host_without_sessions(text: str, make_host: MakeHost) -> None:
    host = make_host()
    with Sessions(host) as sessions:
        sessions.open(record(host))
    witness_path(host).write_text(text)
    with Sessions(host) as sessions, pytest.raises(NvmelmError, match="is not what nvmelm wrote") as met:
        sessions.all()
    assert met.value.reason == "sessions-damaged"
    begin_anew(host, agree)
    with Sessions(host) as sessions:
        assert sessions.all() == []


def test_what_is_put_aside_is_for_its_owner_alone(lost: World) -> None:
    spoilt("garbage" * 100)(lost.source)
    aside = anew.begin_anew(lost.source, agree)
    assert aside is not None
    assert aside.stat().st_mode & 0o777 == aside.parent.stat().st_mode & 0o777 == 0o700
