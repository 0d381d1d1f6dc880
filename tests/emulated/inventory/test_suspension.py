"""A suspended controller is shown as one wherever controllers are shown, and nobody is disturbed to find out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nvmelm import cli
from nvmelm.emulator.host import EmulatedHost
from nvmelm.emulator.kernel.ioctl import EmulatedQueue
from nvmelm.emulator.machine.generations import NVME_2_1
from nvmelm.host import AdminCommand, Completion
from nvmelm.inventory.opened import OpenPrimary, open_primary
from nvmelm.inventory.picture import Role
from nvmelm.prepare import allow, check, recover, sequence
from nvmelm.state import verbs
from nvmelm.watch import metrics
from nvmelm.watch.lines import ControllerPart, PrimaryPart
from nvmelm.watch.survey import Looks
from nvmelm.wire.opcodes import Opcode
from tests.emulated.conftest import MakeHost

PF, RUNS, STANDS = "nvme0", 0x42, 0x43
#: CSE 01b of a command's effects: one command at a time, and the kernel freezes the queues for it.
CSE = 1 << 16


def agree(_question: str) -> None:
    """Say yes to everything."""


def prepared(host: EmulatedHost) -> EmulatedHost:
    """Prepare two controllers, and suspend the second one."""
    with open_primary(host, PF, change=True) as pf:
        sequence.prepare(pf, Role.MIGRATABLE, 2, confirm=agree)
        verbs.suspend(pf, STANDS, confirm=agree)
    return host


@pytest.fixture
def host(make_host: MakeHost) -> EmulatedHost:
    return prepared(make_host(NVME_2_1.with_(max_vfs=4)))


def suspended(pf: OpenPrimary) -> dict[int, bool | None]:
    return {secondary.cntlid: secondary.suspended for secondary in pf.picture(states=True).secondaries}


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[AdminCommand]:
    """Collect the commands that are sent."""
    commands: list[AdminCommand] = []
    submit = EmulatedQueue.submit

    def collecting(queue: EmulatedQueue, command: AdminCommand) -> Completion:
        commands.append(command)
        return submit(queue, command)

    monkeypatch.setattr(EmulatedQueue, "submit", collecting)
    return commands


def test_each_online_controller_says_whether_it_stands(host: EmulatedHost) -> None:
    with open_primary(host, PF) as pf:
        assert suspended(pf) == {RUNS: False, STANDS: True, 0x44: None, 0x45: None}


def test_one_that_was_resumed_is_not_suspended_any_more(host: EmulatedHost) -> None:
    with open_primary(host, PF, change=True) as pf:
        verbs.resume(pf, STANDS, confirm=agree)
        assert suspended(pf)[STANDS] is False


def test_asking_costs_one_command_a_controller_and_the_effects_log(
    host: EmulatedHost, sent: list[AdminCommand]
) -> None:
    with open_primary(host, PF) as pf:
        picture = pf.picture()
        sent.clear()
        pf.with_states(picture)
    assert [command.opcode for command in sent] == [Opcode.GET_LOG_PAGE, *[Opcode.MIGRATION_RECEIVE] * 2]
    assert {command.data_in_length for command in sent[1:]} == {48}


@pytest.mark.parametrize("words", ["secondary list nvme0", "show nvme0", "secondary revoke nvme0 0x42"])
def test_its_state_is_suspended_in_every_table(host: EmulatedHost, words: str, capsys: Any) -> None:
    assert cli.main(["--host", host.name, *words.split()]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert {row[0]: row[2] for row in rows if row[:1] in (["0x0042"], ["0x0043"]) and len(row) > 8} == {
        "0x0042": "online",
        "0x0043": "suspended",
    }


def test_json_says_so_and_when_it_was_saved(host: EmulatedHost, tmp_path: Path, capsys: Any) -> None:
    words = ["--host", host.name]
    cli.main([*words, "state", "save", "nvme0", "0x43", str(tmp_path / "image")])
    capsys.readouterr()
    cli.main([*words, "secondary", "list", "nvme0", "--json"])
    rows = {row["cntlid"]: row for row in json.loads(capsys.readouterr().out)["secondaries"]}
    assert (rows[STANDS]["state"], rows[STANDS]["suspended"]) == ("online", True)
    assert rows[STANDS]["saved_at"].startswith("20")
    assert (rows[RUNS]["suspended"], rows[RUNS]["saved_at"]) == (False, None)


def test_host_check_names_it_with_the_way_on(host: EmulatedHost) -> None:
    (finding,) = [finding for finding in check.check(host).findings if finding.code == "suspended"]
    assert finding.level == "warning"
    assert "0x0043 is suspended" in finding.message
    assert "nvmelm state resume 0000:01:00.0 0x0043" in finding.fix


def test_recover_names_it_and_leaves_it_alone(host: EmulatedHost) -> None:
    report = recover.recover(host, confirm=agree)
    assert not report.changed
    assert "0x0043 is suspended" in report.notes[0]
    with open_primary(host, PF) as pf:
        assert suspended(pf)[STANDS] is True


def test_watch_tells_of_a_suspend_and_of_a_resume(host: EmulatedHost) -> None:
    looks = Looks(host)
    (first,) = looks.whole()
    assert isinstance(first, PrimaryPart)
    assert {row.cntlid: row.suspended for row in first.controllers}[STANDS] is True
    with open_primary(host, PF, change=True) as pf:
        verbs.resume(pf, STANDS, confirm=agree)
        verbs.suspend(pf, RUNS, confirm=agree)
    changes = {body.cntlid: body.after for body in looks.states() if isinstance(body, ControllerPart)}
    assert changes == {RUNS: {"suspended": True}, STANDS: {"suspended": False}}
    assert list(looks.states()) == []


def test_metrics_count_it_as_suspended(host: EmulatedHost) -> None:
    looks = Looks(host)
    list(looks.whole())
    assert 'state="suspended",driver="vfio-pci"} 1' in metrics.of_host(looks)


def test_nobody_is_asked_while_another_nvmelm_works_on_the_function(
    host: EmulatedHost, sent: list[AdminCommand]
) -> None:
    looks = Looks(host)
    list(looks.whole())
    with EmulatedHost(host.state_dir.parent) as other, other.lock("0000:01:00.0"), open_primary(host, PF) as pf:
        sent.clear()
        picture = pf.picture(states=True)
        assert list(looks.states()) == [], "what is known stays"
    assert Opcode.MIGRATION_RECEIVE not in {command.opcode for command in sent}
    assert [secondary.suspended for secondary in picture.secondaries] == [None] * len(picture.secondaries)
    assert "0000:01:00.0 is in use by" in str(picture.suspension_unknown)


def test_nobody_is_asked_where_the_kernel_would_stop_the_io_of_the_subsystem(
    make_host: MakeHost, sent: list[AdminCommand]
) -> None:
    effects = tuple(
        (code, word | (CSE if code == Opcode.MIGRATION_RECEIVE else 0)) for code, word in NVME_2_1.admin_effects
    )
    host = prepared(make_host(NVME_2_1.with_(admin_effects=effects)))
    sent.clear()
    with open_primary(host, PF) as pf:
        picture = pf.picture(states=True)
    assert Opcode.MIGRATION_RECEIVE not in {command.opcode for command in sent}
    assert "CSE of Migration Receive" in str(picture.suspension_unknown)
    assert "suspension-unknown" in {finding.code for finding in check.check(host).findings}


def test_a_verb_that_is_done_is_done_though_its_controllers_cannot_be_asked(host: EmulatedHost) -> None:
    with open_primary(host, PF, change=True) as pf:
        host.arm("admin/0x42=errno:EIO")
        report = allow.revoke(pf, [RUNS], confirm=agree)
    assert report.changed
    assert report.picture is not None
    assert report.picture.suspension_unknown
