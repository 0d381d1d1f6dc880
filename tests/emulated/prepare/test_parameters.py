"""Resources and namespaces given to a controller are planned, asked about, journaled and undone like all else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nvmelm import cli
from nvmelm.emulator.host import EmulatedHost
from nvmelm.emulator.machine.faults import EmulatedCrash
from nvmelm.emulator.machine.generations import NVME_2_1, NamespaceRow
from nvmelm.errors import BusyError, NotReadyError, NvmelmError
from nvmelm.inventory.opened import open_primary
from nvmelm.inventory.picture import ChangeReport, Role
from nvmelm.prepare import parameters, sequence
from nvmelm.prepare import release as undo_all
from nvmelm.prepare.journal import Journal
from nvmelm.prepare.recover import recover
from tests.emulated.answers import agree, decline
from tests.emulated.conftest import MakeHost

PF, FIRST = "0000:01:00.0", 0x42


@pytest.fixture
def host(make_host: MakeHost) -> EmulatedHost:
    """Return a host with one prepared controller that sees two namespaces."""
    made = make_host(NVME_2_1.with_(namespaces=(NamespaceRow(), NamespaceRow(nsid=2))))
    with open_primary(made, PF, change=True) as pf:
        sequence.prepare(pf, Role.MIGRATABLE, 1, vq=2, vi=2, confirm=agree)
    return made


def attached(host: EmulatedHost, cntlid: int = FIRST) -> list[int]:
    with host.machine.view() as state:
        return [int(nsid) for nsid, ids in state["primaries"][PF]["attached"].items() if cntlid in ids]


def give(host: EmulatedHost, confirm: Callable[[str], None] = agree, **wanted: Any) -> ChangeReport:
    with open_primary(host, PF, change=True) as pf:
        return parameters.give(pf, FIRST, confirm=confirm, **wanted)


def release(host: EmulatedHost) -> ChangeReport:
    with open_primary(host, PF, change=True) as pf:
        return undo_all.release(pf, confirm=agree)


def test_a_namespace_is_not_taken_from_an_online_controller_without_a_question(host: EmulatedHost) -> None:
    with pytest.raises(NotReadyError, match="loses namespace 1, 2"):
        give(host, decline, namespaces=[])
    assert attached(host) == [1, 2]


def test_a_dry_run_shows_the_commands_of_the_real_run(host: EmulatedHost) -> None:
    planned = give(host, decline, namespaces=[1], dry_run=True)
    assert attached(host) == [1, 2]
    (action,) = planned.actions
    assert "Namespace Attachment: Controller Detach" in action.operations[0]
    assert [action.summary for action in give(host, namespaces=[1]).actions] == [action.summary]
    assert attached(host) == [1]
    assert not give(host, decline, namespaces=[1]).changed


def test_what_is_missing_is_attached_before_what_is_too_much_is_detached(host: EmulatedHost) -> None:
    give(host, namespaces=[1])
    names = [line for action in give(host, namespaces=[2], dry_run=True).actions for line in action.operations]
    assert ["Controller Attach" in names[0], "Controller Detach" in names[1]] == [True, True]


def test_release_brings_the_namespaces_back(host: EmulatedHost) -> None:
    give(host, namespaces=[])
    assert attached(host) == []
    release(host)
    assert attached(host) == [1, 2]
    assert not Journal(host, PF).runs()


def test_release_brings_the_namespaces_back_after_a_reboot_too(host: EmulatedHost) -> None:
    give(host, namespaces=[2])
    host.reboot()
    assert attached(host) == [2]
    assert release(host).changed
    assert attached(host) == [1, 2]


@pytest.mark.parametrize("reboot", [False, True])
def test_recover_undoes_a_run_that_was_killed_between_two_namespaces(host: EmulatedHost, reboot: bool) -> None:
    host.arm("admin/0x15#2=raise-after")
    with pytest.raises(EmulatedCrash):
        give(host, namespaces=[])
    assert len(attached(host)) < 2
    if reboot:
        host.reboot()
    report = recover(host, confirm=agree)
    assert [run.verb for run in report.unfinished] == ["compat parameters apply"]
    assert attached(host) == [1, 2]


def test_recover_finishes_it_where_that_is_wanted(host: EmulatedHost) -> None:
    host.arm("admin/0x15#1=raise-after")
    with pytest.raises(EmulatedCrash):
        give(host, namespaces=[])
    recover(host, finish=True, confirm=agree)
    assert attached(host) == []


def test_a_refused_attachment_puts_everything_back(host: EmulatedHost) -> None:
    host.arm("admin/0x15#2=status:0x4006")
    with pytest.raises(NvmelmError) as met:
        give(host, vq=4, namespaces=[])
    assert met.value.rolled_back
    assert attached(host) == [1, 2]
    with open_primary(host, PF) as pf:
        assert pf.picture().secondaries[0].vq == 2


def test_a_user_of_the_controller_is_named_and_it_is_left_alone(host: EmulatedHost) -> None:
    with host.machine.change() as state:
        from nvmelm.emulator.kernel.functions import open_vfio

        assert state
        open_vfio(host.machine, "0000:01:00.1", pid=1, name="qemu", memory="")
    with pytest.raises(BusyError, match="in use"):
        give(host, decline, namespaces=[1])
    assert attached(host) == [1, 2]


def test_the_verb_does_not_detach_on_a_closed_stdin(
    host: EmulatedHost, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = f"emulated:{host.state_dir.parent}"
    assert cli.main(["--host", where, "compat", "parameters", "list", f"{PF}/0x42", "--json"]) == 0
    wanted = json.loads(capsys.readouterr().out)
    wanted["params"] = {name: value for name, value in wanted["params"].items() if name.split(".")[0] != "namespaces"}
    wanted["params"]["namespaces.ids"] = ""
    (tmp_path / "list").write_text(json.dumps(wanted))
    words = ["--host", where, "compat", "parameters", "apply", str(tmp_path / "list"), PF, "0x42", "--json"]
    assert cli.main(words) == 10
    assert attached(host) == [1, 2]
    capsys.readouterr()
    assert cli.main([*words, "--dry-run"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert "Controller Detach" in planned["actions"][0]["operations"][0]
    assert attached(host) == [1, 2]
