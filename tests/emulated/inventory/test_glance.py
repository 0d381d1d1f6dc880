"""A host at a glance: every part that can be read is shown, whatever cannot, and the lines fit a narrow terminal."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from nvmelm import cli
from nvmelm.cli.frame import render
from nvmelm.cli.views import glance as view
from nvmelm.emulator.host import EmulatedHost, create
from nvmelm.emulator.machine.generations import NVME_2_1
from nvmelm.host.local.processes import start_of
from nvmelm.inventory import glance
from nvmelm.inventory.opened import open_primary
from nvmelm.inventory.picture import Role
from nvmelm.inventory.vm_moves import Event, Held, Moves
from nvmelm.ownership.sessions import Moving, Sessions, Side, State, new_record, sessions_path
from nvmelm.prepare import allow, sequence
from tests.emulated.answers import agree
from tests.emulated.two_hosts import FIRST, PF, VF, World

SCHEMA = json.loads((Path(__file__).parents[3] / "docs/schemas/nvmelm.status.json").read_text())


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def status(host: EmulatedHost, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    """Run the verb; its document fits the published schema."""
    code = cli.main(["--host", host.name, "status", "--json", *words])
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    jsonschema.validate(document, SCHEMA)
    return code, document


def text(host: EmulatedHost, capsys: pytest.CaptureFixture[str]) -> str:
    cli.main(["--host", host.name, "status"])
    return capsys.readouterr().out


def hold(host: EmulatedHost, **values: Any) -> Held:
    """Let this process be a VMM that has the first function open."""
    pid = os.getpid()
    held = Held(
        address=VF,
        primary=PF,
        cntlid=FIRST,
        incarnation=1,
        boot=host.facts().boot_id,
        pid=pid,
        start=start_of(pid) or 0,
        vm="web1",
        state="pre-copy",
    )
    return Moves(host).hold(Held(**{**{name: getattr(held, name) for name in held.__dataclass_fields__}, **values}))


def open_session(host: EmulatedHost) -> None:
    moving = Moving(cntlid=FIRST, peer_cntlid=0x51, incarnation=7, vq=2, vi=1)
    with Sessions(host) as sessions:
        record = new_record(
            host, "a" * 32, Side.SOURCE, peer="ssh://b/nvme0", primary=PF, serial="SN", controllers=(moving,)
        )
        sessions.move(sessions.open(record), State.SUSPENDING, "the link broke")


def test_functions_in_use_are_shown_with_their_marks_and_when_these_end(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_primary(world.source, PF, change=True) as pf:
        allow.allow(pf, [FIRST], Role.MIGRATABLE, valid_s=3600, confirm=agree)
    code, document = status(world.source, capsys)
    (primary,) = document["primaries"]
    (function,) = primary["functions"]
    assert (code, function["cntlid"], function["state"], function["address"]) == (0, FIRST, "online", VF)
    assert function["mark"]["role"] == "migratable"
    assert primary["unused"] > 0
    assert "0x0042: its mark ends at" in text(world.source, capsys)


def test_a_move_is_shown_at_both_ends_with_what_went_where_and_when(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = world.migrate()
    sides = {}
    for side in ("source", "destination"):
        _, document = status(world.host(side), capsys)
        (session,) = document["sessions_last"]
        assert (session["session"], session["side"], session["cntlids"]) == (moved.id, side, [FIRST])
        sides[side] = session["state"], session["changed_at"][:4].isdecimal()
        assert document["sessions_now"] == []
    assert sides == {"source": ("done", True), "destination": ("running", True)}
    assert "0x0042 moved to ssh://destination" in text(world.source, capsys)
    assert "0x0042 arrived from" in text(world.destination, capsys)


@pytest.mark.parametrize("verb", ["secondary list", "show", "status"])
def test_a_controller_that_was_moved_away_says_where_it_went(
    verb: str, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = world.migrate()
    words = [*verb.split(), *([PF] if verb != "status" else [])]
    assert cli.main(["--host", world.source.name, *words]) == 0
    out = capsys.readouterr().out
    assert "0x0042 moved to ssh://destination at 20" in out
    assert f"(session {moved.id[:8]})" in out
    assert cli.main(["--host", world.destination.name, *words]) == 0
    assert "moved to" not in capsys.readouterr().out


def test_one_that_was_made_anew_since_is_not_said_to_have_gone(world: World) -> None:
    world.migrate()
    with open_primary(world.source, PF, change=True) as pf:
        assert [moved.cntlid for moved in pf.picture(states=True).moved] == [FIRST]
        sequence.prepare(pf, Role.MIGRATABLE, 2, confirm=agree)  # another count: every VF is made anew
        assert pf.picture(states=True).moved == ()


def test_a_session_that_is_not_over_is_shown_with_what_is_known_and_what_to_type(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    open_session(world.source)
    _, document = status(world.source, capsys)
    (session,) = document["sessions_now"]
    assert (session["state"], session["over"], session["peer_cntlids"]) == ("suspending", False, [0x51])
    out = text(world.source, capsys)
    assert "moves that are not over" in out
    assert "suspending since" in out
    assert "the link broke" in out
    assert "nvmelm recover" in out


def test_a_vm_that_holds_a_function_is_shown_and_whether_it_lives(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    hold(world.source)
    (held,) = status(world.source, capsys)[1]["vms"]
    assert (held["vm"], held["cntlid"], held["state"], held["running"]) == ("web1", FIRST, "pre-copy", True)
    hold(world.source, start=1, refusal="no room")
    (held,) = status(world.source, capsys)[1]["vms"]
    assert (held["running"], held["refusal"]) == (False, "no room")
    out = text(world.source, capsys)
    assert "web1" in out
    assert "its VMM has ended" in out
    assert "refused last: no room" in out


def test_functions_that_moved_with_their_vm_are_among_the_last_moves(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    held = hold(world.source)
    for event in (Event.LEAVING, Event.LEFT):
        Moves(world.source).note(event, held, stream="b" * 32)
    moves = status(world.source, capsys)[1]["vm_moves_last"]
    assert [(move["event"], move["vm"], move["cntlid"]) for move in moves] == [("left", "web1", FIRST)]
    assert "0x0042 left with web1" in text(world.source, capsys)


def test_no_more_moves_are_shown_than_are_asked_for_and_the_newest_are(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    held = hold(world.source)
    for why in ("first", "second", "third"):
        Moves(world.source).note(Event.STAYED, held, why=why)
    shown = status(world.source, capsys, "--last", "2")[1]["vm_moves_last"]
    assert {move["why"] for move in shown} <= {"first", "second", "third"}
    assert len(shown) == 2
    assert status(world.source, capsys, "--last", "0")[1]["vm_moves_last"] == []


@pytest.mark.parametrize(("fault", "code"), {"errno:ENODEV": 1, "lose": 7, "status:0x4006": 6}.items())
def test_one_dead_controller_hides_neither_the_others_nor_its_own_vfs(
    fault: str, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    host = create(tmp_path / "host", [NVME_2_1] * 3, serials=["A", "B", "C"])
    with open_primary(host, "nvme1", change=True) as pf:
        sequence.prepare(pf, Role.MIGRATABLE, 1, confirm=agree)
    host.arm(f"admin/0x06/0x01#2={fault}")
    ended, document = status(host, capsys)
    rows = document["primaries"]
    assert [row["node"] for row in rows] == ["nvme0", "nvme1", "nvme2"]
    assert [row["live_migration"] for row in rows] == [True, None, True]
    assert [row["exit_code"] for row in rows] == [0, code, 0]
    assert ended == code
    assert [(function["cntlid"], function["driver"]) for function in rows[1]["functions"]] == [(None, "vfio-pci")]
    host.arm(f"admin/0x06/0x01#2={fault}")
    assert "it does not answer" in text(host, capsys)


def test_without_root_what_sysfs_shows_is_shown_and_the_rest_is_said(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.source.set_option(privileged=False)
    code, document = status(world.source, capsys)
    (primary,) = document["primaries"]
    assert (code, document["privileged"], primary["live_migration"], primary["vfs_enabled"]) == (0, False, None, 1)
    assert [(function["address"], function["state"]) for function in primary["functions"]] == [(VF, None)]
    out = text(world.source, capsys)
    assert VF in out
    assert "only root may ask" in out


def test_a_file_that_may_not_be_read_is_said_and_is_no_failure(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_self: object) -> None:
        from nvmelm.errors import PermissionDeniedError

        raise PermissionDeniedError("cannot read the sessions", errno=13, fix="run it with sudo")

    monkeypatch.setattr(Sessions, "seen", refused)
    code, document = status(world.source, capsys)
    assert code == 0
    assert [(part["what"], part["why"]) for part in document["unknown"]] == [("sessions", "cannot read the sessions")]
    assert len(document["primaries"][0]["functions"]) == 1


def test_damaged_sessions_take_nothing_else_away_and_the_exit_code_says_so(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    hold(world.source)
    sessions_path(world.source).write_bytes(b"no database" * 100)
    code, document = status(world.source, capsys)
    assert code == 1
    assert [part["what"] for part in document["unknown"]] == ["sessions"]
    assert len(document["vms"]) == len(document["primaries"]) == 1
    assert "not known: moves between hosts" in text(world.source, capsys)


def test_a_recording_is_replayed_and_says_what_it_cannot_know(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world.migrate()
    file = tmp_path / "status.json"
    assert cli.main(["--host", world.source.name, "--record", str(file), "status", "--json"]) == 0
    recorded = json.loads(capsys.readouterr().out)
    assert cli.main(["--host", f"replay:{file}", "status", "--json"]) == 0
    replayed = json.loads(capsys.readouterr().out)
    assert replayed["primaries"] == recorded["primaries"]
    assert [part["what"] for part in replayed["unknown"]] == ["vms", "runs", "sessions", "vm_moves"]


def test_secondary_list_of_a_host_with_sessions_can_be_replayed(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world.migrate()
    file = tmp_path / "list.json"
    assert cli.main(["--host", world.source.name, "--record", str(file), "secondary", "list", PF]) == 0
    assert cli.main(["--host", f"replay:{file}", "secondary", "list", PF]) == 0


@pytest.mark.parametrize("width", [60, 80])
def test_every_line_fits_the_terminal(width: int, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.migrate()
    open_session(world.destination)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(render, "terminal_width", lambda: width)
    for host in (world.source, world.destination):
        Moves(host).note(Event.REFUSED, hold(host, refusal="the device is busy with another state"), why="not marked")
        with monkeypatch.context() as patch:
            patch.setattr("sys.stdout", Terminal())
            lines = list(view.lines(glance.look(host, last=5)))
        assert max(map(len, lines)) <= width
        assert len(lines) > 8
