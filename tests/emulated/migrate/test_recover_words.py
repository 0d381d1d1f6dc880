"""``recover`` between two hosts when an operator spoke, a copy was lost, or a resume was cut off: what is decided, how.

Each test begins with a migration that was cut off at a known place, and says what the two hosts may do then.
"""

from __future__ import annotations

import threading

import pytest

from nvmelm import cli
from nvmelm.cli.views import changes
from nvmelm.errors import HostError, NvmelmError, RecordInDoubtError, UncertainError, UsageError
from nvmelm.host import Host
from nvmelm.inventory.opened import open_primary
from nvmelm.migrate.callouts.points import Points
from nvmelm.migrate.recovery.asking import ask_other_host
from nvmelm.migrate.recovery.sessions import view
from nvmelm.ownership.anew import begin_anew
from nvmelm.ownership.sessions import SessionRecord, Sessions, State, require_ours
from nvmelm.prepare.recover import RecoverReport, SessionView
from tests.emulated.answers import agree
from tests.emulated.two_hosts import FIRST, PF, Cut, Killed, World

#: The source's frame that tells the destination that it may run.
GIVE = 8


@pytest.fixture
def world(world: World) -> World:
    world.start_guest(depth=4)
    return world


def given_away(world: World) -> None:
    """Cut the link so that the source has given away, and the destination waits with every state in."""
    with pytest.raises(UncertainError):
        world.migrate(Cut("source", GIVE))
    assert (world.states("source"), world.states("destination")) == (["given-away"], ["loaded"])


def killed_before_the_give_away(world: World, patch: pytest.MonkeyPatch) -> None:
    move = Sessions.move

    def moved(sessions: Sessions, record: SessionRecord, to: State, note: str = "") -> SessionRecord:
        if to is State.GIVEN_AWAY:
            raise Killed
        return move(sessions, record, to, note)

    with patch.context() as patched, pytest.raises(Killed):
        patched.setattr(Sessions, "move", moved)
        world.migrate()
    assert (world.states("source"), world.states("destination")) == (["suspending"], ["loaded"])


def killed_while_accepting(world: World) -> None:
    world.destination.arm("admin/0x41/1#1=raise-before")
    with pytest.raises(UncertainError):
        world.migrate()
    world.destination.disarm()
    assert (world.states("source"), world.states("destination")) == (["given-away"], ["accepted"])


def running(world: World) -> list[str]:
    return [side for side in ("source", "destination") if world.runs(side)]


# One operator's word.


def test_a_copy_is_not_taken_while_the_other_host_can_run_its_own(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed_before_the_give_away(world, monkeypatch)
    with pytest.raises(UncertainError, match="rolled-back at the source") as met:
        world.word("take", "destination")
    assert met.value.reason == "held-elsewhere"
    assert world.recover("source") == []
    assert (world.states("destination"), running(world)) == (["abandoned"], ["source"])


def test_a_copy_is_not_taken_back_from_a_destination_that_answers(world: World) -> None:
    killed_while_accepting(world)
    with pytest.raises(UncertainError) as met:
        world.word("take", "source")
    assert met.value.reason == "held-elsewhere"
    assert (world.states("source"), world.states("destination")) == (["done"], ["running"])
    assert running(world) == ["destination"]


def test_a_copy_is_not_taken_when_the_other_host_was_asked_and_its_answer_is_lost(world: World) -> None:
    given_away(world)
    with pytest.raises(UncertainError, match="answer was lost"):
        world.word("take", "source", cut=Cut("destination", 1))  # it runs them by then
    assert (world.states("source"), world.states("destination")) == (["given-away"], ["running"])
    world.recover("source")
    assert (world.states("source"), running(world)) == (["done"], ["destination"])


def test_a_source_that_was_cut_off_asks_before_it_runs_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    killed_before_the_give_away(world, monkeypatch)
    world.word("take", "destination", alone=True)
    assert running(world) == ["destination"]
    (seen,) = world.recover("source")
    assert (seen.resolved, seen.reason, seen.settled) == (False, "session-contradiction", None)
    assert running(world) == ["destination"]
    world.word("give-up", "source")
    assert (world.states("source"), running(world)) == (["done"], ["destination"])


def test_a_destination_that_was_cut_off_asks_before_it_runs(world: World) -> None:
    killed_while_accepting(world)
    world.word("take", "source", alone=True)
    (seen,) = world.recover("destination")
    assert (seen.resolved, seen.reason) == (False, "session-contradiction")
    assert running(world) == ["source"]
    world.word("give-up", "destination")
    assert (world.states("source"), world.states("destination")) == (["taken"], ["abandoned"])


@pytest.mark.parametrize("side", ["source", "destination"])
def test_a_host_that_nobody_answers_goes_on_by_itself(side: str, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    if side == "source":
        killed_before_the_give_away(world, monkeypatch)
    else:
        killed_while_accepting(world)
    (seen,) = world.recover(side, alone=True)
    assert seen.resolved
    assert running(world) == [side]


def test_a_word_runs_the_copy_here_when_nobody_answers(world: World) -> None:
    given_away(world)
    (undecided,) = world.recover("source", alone=True)
    assert (undecided.resolved, undecided.note) == (False, "the other host was not asked")
    seen = world.word("take", "source", alone=True)
    assert (seen.settled, seen.note) == ("taken", "on the operator's word")
    world.recover("destination")
    assert (world.states("destination"), running(world)) == (["abandoned"], ["source"])


def test_a_word_runs_the_destination_when_the_source_lost_its_copy(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed_before_the_give_away(world, monkeypatch)
    world.source.reset_primary(PF)
    (seen,) = world.recover("source")
    assert (seen.resolved, seen.reason) == (False, "source-lost")
    (seen,) = world.recover("destination")
    assert (seen.resolved, seen.reason) == (False, "source-lost")
    world.word("take", "destination")
    assert running(world) == ["destination"]
    (seen,) = world.recover("source")
    assert (seen.settled, world.states("source")) == ("done", ["done"])


def test_a_word_runs_the_source_when_the_destination_lost_its_records(world: World) -> None:
    given_away(world)
    for file in world.destination.state_dir.glob("sessions.db*"):
        file.unlink()
    (seen,) = world.recover("source")
    assert (seen.resolved, seen.reason) == (False, "sessions-damaged")
    begin_anew(world.destination, agree)
    (seen,) = world.recover("source")
    assert (seen.resolved, seen.reason) == (False, "session-unknown")
    assert world.word("take", "source").settled == "taken"


def test_two_that_claim_to_run_are_told_how_one_of_them_ends(world: World) -> None:
    killed_while_accepting(world)
    world.word("take", "source", alone=True)
    world.word("take", "destination", alone=True)  # words on both hosts
    assert running(world) == ["source", "destination"]
    with Sessions(world.source) as given, world.link("source") as link, pytest.raises(NvmelmError) as met:
        ask_other_host(link, given.all()[0], "source")
    assert met.value.reason == "session-contradiction"
    assert f"nvmelm secondary offline {PF} 0x0042" in met.value.fix


@pytest.mark.parametrize("which", ["", "abc", "0000beef"])
def test_a_word_needs_a_session_that_is_there(which: str, world: World) -> None:
    given_away(world)
    with pytest.raises(UsageError):
        world.word("take", "source", session=which or "    ")


# A copy that is not there any more.


@pytest.mark.parametrize("loss", ["reset", "reboot"])
def test_a_lost_copy_is_not_taken(loss: str, world: World) -> None:
    given_away(world)
    if loss == "reset":
        world.source.reset_primary(PF)
    else:
        world.source.reboot()
    with pytest.raises(UncertainError) as met:
        world.word("take", "source", alone=True)
    assert met.value.reason == "target-gone"
    assert world.states("source") == ["given-away"]
    world.recover("destination")
    assert running(world) == ["destination"]


def test_a_destination_that_lost_the_states_does_not_claim_to_run(world: World) -> None:
    given_away(world)
    world.destination.reset_primary(PF)
    (seen,) = world.recover("destination")
    assert (seen.resolved, seen.reason) == (False, "target-gone")
    (seen,) = world.recover("source")
    assert not seen.resolved
    assert world.holds("source")
    world.word("give-up", "destination")
    world.recover("source")
    assert (world.states("source"), running(world)) == (["returned"], ["source"])


def test_a_destination_that_answers_is_not_passed_over_although_its_copy_is_lost(world: World) -> None:
    given_away(world)
    world.destination.reset_primary(PF)
    with pytest.raises(UncertainError) as met:
        world.word("take", "source")
    assert met.value.reason == "held-elsewhere"
    assert "they are loaded at the destination" in met.value.message
    assert "--give-up" in met.value.fix
    assert (world.states("source"), world.states("destination")) == (["given-away"], ["loaded"])


def test_a_destination_that_was_reset_while_it_accepted_does_not_claim_to_run(world: World) -> None:
    killed_while_accepting(world)
    world.destination.reset_primary(PF)
    for side in ("destination", "source"):
        (seen,) = world.recover(side)
        assert (seen.resolved, seen.reason) == (False, "target-gone")
    assert (world.states("source"), world.states("destination")) == (["given-away"], ["accepted"])


def test_a_destination_that_was_killed_after_its_resume_is_found_running(world: World) -> None:
    world.destination.arm("admin/0x41/1#1=raise-after")
    with pytest.raises(UncertainError):
        world.migrate()
    world.destination.disarm()
    assert world.states("destination") == ["accepted"]
    (seen,) = world.recover("destination")
    assert (seen.settled, world.states("source"), running(world)) == ("running", ["done"], ["destination"])


# A giving up that was cut off.

OFFLINE = "admin/0x1c"


@pytest.mark.parametrize("fault", ["#1=status:0x4006", "#1=raise-after", "#2=status:0x4006", "#2=raise-before"])
def test_a_copy_that_was_given_up_in_part_is_never_run_and_the_source_gets_its_own_back(
    fault: str, world: World
) -> None:
    given_away(world)
    world.destination.arm(OFFLINE + fault)
    with pytest.raises((NvmelmError, Killed)):
        world.word("give-up", "destination")
    world.destination.disarm()
    assert (world.states("destination"), running(world)) == (["abandoning"], [])
    with pytest.raises(UsageError):
        world.word("take", "destination", alone=True)
    (seen,) = world.recover("source")  # it asks, and the destination puts back what is left
    assert (seen.settled, world.states("destination"), running(world)) == ("returned", ["abandoned"], ["source"])


def test_a_source_waits_until_a_copy_that_runs_and_was_given_up_is_gone(world: World) -> None:
    world.destination.arm("admin/0x41/1#1=raise-after")
    with pytest.raises(UncertainError):
        world.migrate()
    world.destination.disarm()
    assert (world.states("destination"), running(world)) == (["accepted"], ["destination"])
    world.destination.arm(f"{OFFLINE}*2=status:0x4006")
    with pytest.raises(NvmelmError):
        world.word("give-up", "destination")
    assert (world.states("destination"), running(world)) == (["abandoning"], ["destination"])
    (seen,) = world.recover("source")  # the device refuses a second time
    assert (seen.settled, running(world)) == (None, ["destination"])
    world.destination.disarm()
    (seen,) = world.recover("destination")
    assert (seen.settled, running(world)) == ("abandoned", ["source"])
    assert world.states("source") == ["returned"]


def test_a_controller_that_is_being_given_up_is_resumed_by_nothing_else(world: World) -> None:
    given_away(world)
    world.destination.arm(f"{OFFLINE}#1=status:0x4006")
    with pytest.raises(NvmelmError):
        world.word("give-up", "destination")
    with open_primary(world.destination, PF) as pf:
        secondary = pf.picture(users=False).secondary(FIRST)
    assert secondary is not None
    with pytest.raises(UncertainError, match="abandoning"):
        require_ours(world.destination, PF, FIRST, secondary.incarnation)


# A resume that was cut off.


@pytest.mark.parametrize("fault", ["status:0x4006", "raise-before", "raise-after"])
@pytest.mark.parametrize("word", ["returned", "taken"])
def test_a_resume_that_was_cut_off_is_done_again(word: str, fault: str, world: World) -> None:
    given_away(world)
    if word == "returned":
        world.word("give-up", "destination")
    world.source.arm(f"admin/0x41/1#1={fault}")
    try:
        if word == "returned":
            world.recover("source")
        else:
            world.word("take", "source", alone=True)
    except (NvmelmError, Killed):
        pass
    world.source.disarm()
    assert world.states("source") == [{"returned": "returning", "taken": "taking"}[word]]
    (seen,) = world.recover("source")
    assert (seen.settled, running(world)) == (word, ["source"])
    world.recover("destination")
    assert world.states("destination") == ["abandoned"]


def test_a_roll_back_in_doubt_is_not_over_before_the_guest_runs(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    move = Sessions.move

    def moved(sessions: Sessions, record: SessionRecord, to: State, note: str = "") -> SessionRecord:
        if to is State.GIVEN_AWAY:
            raise RecordInDoubtError("disk I/O error", path="sessions.db", cause="", fix="")
        done = move(sessions, record, to, note)
        if to is State.ROLLING_BACK:
            raise Killed
        return done

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Sessions, "move", moved)
        world.migrate()
    assert (world.states("source"), running(world)) == (["rolling-back"], [])
    (seen,) = world.recover("source")
    assert (seen.settled, running(world)) == ("rolled-back", ["source"])


# Both hosts at once, and files that are moved away.


def test_both_hosts_can_recover_at_once(world: World) -> None:
    killed_while_accepting(world)
    seen: dict[str, list[SessionView]] = {}

    def recover(side: str) -> None:
        seen[side] = world.recover(side)

    threads = [threading.Thread(target=recover, args=(side,)) for side in ("source", "destination")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert {side: [view.resolved for view in views] for side, views in seen.items()} == {
        "source": [True],
        "destination": [True],
    }
    assert running(world) == ["destination"]


def test_a_source_whose_records_were_moved_away_gives_nothing_away(world: World) -> None:
    def move_away(point: str, about: object) -> None:
        if point == "before-give-away":
            for file in world.source.state_dir.glob("sessions.db*"):
                file.rename(file.with_name(f"moved-{file.name}"))

    with pytest.raises(UncertainError) as met:
        world.migrate(points=lambda side: Points(move_away if side == "source" else None, side))
    assert met.value.reason == "not-resumed"
    assert "removed or replaced" in met.value.message
    assert running(world) == []
    assert world.states("destination") == ["loaded"]


# The verb.


@pytest.mark.parametrize("option", ["--take", "--give-up"])
@pytest.mark.parametrize("empty", ["", " "])
def test_a_session_that_is_empty_is_not_a_recovery_of_everything(
    option: str, empty: str, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    given_away(world)
    words = ["--host", f"emulated:{world.place / 'source'}", "recover", option, empty, "--yes", "--alone"]
    assert cli.main(words) == 2
    assert "nothing was left" not in capsys.readouterr().out
    assert world.states("source") == ["given-away"]


def test_what_was_begun_on_the_pf_of_a_session_is_not_undone_with_it(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    killed_before_the_give_away(world, monkeypatch)
    left: list[set[str]] = []

    def undo(host: Host, *, leave: set[str], **options: object) -> RecoverReport:
        left.append(leave)
        return RecoverReport(changed=False, dry_run=False, unfinished=())

    monkeypatch.setattr("nvmelm.prepare.recover.recover", undo)
    assert cli.main(["--host", f"emulated:{world.place / 'source'}", "recover", "--alone", "--yes"]) == 0
    assert "now rolled-back here" in capsys.readouterr().out
    assert left == [{PF}]


@pytest.mark.parametrize(
    ("reason", "advice"), [("locked", "nvmelm recover again"), ("link-lost", "--take or --give-up")]
)
def test_a_word_is_not_offered_where_another_nvmelm_only_has_to_end(reason: str, advice: str, world: World) -> None:
    given_away(world)
    with Sessions(world.source) as sessions:
        (record,) = sessions.all()
    met = HostError("it does not go on", reason=reason)
    report = RecoverReport(
        changed=False, dry_run=False, unfinished=(), sessions=(view(record, record, None, error=met),)
    )
    assert advice in "\n".join(changes.recover(report))
