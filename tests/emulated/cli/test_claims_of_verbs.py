"""What README and the docs say of every changing verb, held against each verb of the tree; a new one has to be added.

A verb is idempotent, its dry run shows what the run does, and what it began is undone: by itself when it fails, and by
``recover`` when it was killed.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from nvmelm.emulator.guest.vmm import EmulatedVmm
from nvmelm.emulator.host import EmulatedHost
from nvmelm.emulator.kernel.ioctl import EmulatedQueue
from nvmelm.emulator.kernel.sysfs import EmulatedSysfs
from nvmelm.emulator.machine.faults import EmulatedCrash
from nvmelm.errors import ExitCode
from nvmelm.host import AdminCommand
from nvmelm.inventory.opened import open_primary
from nvmelm.prepare.actions import SysfsWrite, operation_text
from nvmelm.prepare.cells import CellName, Cells, cells_of
from nvmelm.wire.opcodes import Opcode
from tests.emulated.cli.changing import PF, VERBS, Run, all_changing, build, copy, vmm

#: The verb that takes two hosts; tests/emulated/migrate is about nothing else.
TWO_HOSTS = {"migrate"}
#: Who does its work each time, as docs/cli.md says.
ANEW = {"state save": "the file is there: exit 10", "state restore": "what it sets is lost by the next one"}
#: Whose changes are no plan, and what stands in for the journal and the undo.
UNPLANNED = {
    "state suspend": "one command, undone by state resume; recover names who stands still",
    "state resume": "one command, undone by state suspend",
    "state save": "changes no controller",
    "state restore": "journaled; the state that was there is gone, and recover names who may hold a part",
    "vm attach": "one command to the VMM, undone by vm detach",
    "vm detach": "one command to the VMM, undone by vm attach",
}
#: Who gives or takes marks, and sends nothing.
MARKS_ONLY = {"secondary allow-migration", "secondary allow-resume", "secondary revoke"}
#: Whose command is sent again: the answer to whether it is needed could be a moment old.
REPEATED = {"state suspend", "state resume"}
PLANNED = [name for name in VERBS if name not in UNPLANNED]

ASKING = {Opcode.IDENTIFY, Opcode.GET_LOG_PAGE, Opcode.GET_FEATURES, Opcode.TRACK_RECEIVE}


def test_every_changing_verb_is_walked() -> None:
    assert all_changing() == {*VERBS, *TWO_HOSTS}
    assert {*ANEW, *UNPLANNED} <= {*VERBS}


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return where the commands and writes that change an emulated host, or a VM, are gathered as lines of a plan."""
    lines: list[str] = []
    submit, write = EmulatedQueue.submit, EmulatedSysfs.write
    add, remove = EmulatedVmm.device_add, EmulatedVmm.device_del

    def submitted(self: EmulatedQueue, command: AdminCommand) -> Any:
        if command.opcode not in ASKING:
            lines.append(operation_text(command))
        return submit(self, command)

    def written(self: EmulatedSysfs, path: str, value: str) -> None:
        lines.append(str(SysfsWrite(path, value)))
        write(self, path, value)

    def added(self: EmulatedVmm, arguments: Any) -> Any:
        lines.append(json.dumps({"execute": "device_add", "arguments": arguments}))
        return add(self, arguments)

    def removed(self: EmulatedVmm, arguments: Any) -> Any:
        lines.append(json.dumps({"execute": "device_del", "arguments": arguments}))
        return remove(self, arguments)

    monkeypatch.setattr(EmulatedQueue, "submit", submitted)
    monkeypatch.setattr(EmulatedSysfs, "write", written)
    monkeypatch.setattr(EmulatedVmm, "device_add", added)
    monkeypatch.setattr(EmulatedVmm, "device_del", removed)
    return lines


def planned(document: Any) -> Iterator[str]:
    """Yield the lines of a dry run in order, whichever document they stand in; a mark is no command."""
    if isinstance(document, dict):
        for name, value in document.items():
            if name in ("operations", "commands") and isinstance(value, list):
                yield from (line for line in value if not re.match(r"(un)?mark controller ", line))
            elif name != "finish":  # of what was cut off, recover undoes it
                yield from planned(value)
    elif isinstance(document, list):
        for entry in document:
            yield from planned(entry)


def placed(line: str) -> str:
    """Return a line with the addresses that the links of its VFs lead to once they are there."""
    line = re.sub(r"\$\(basename \$\(readlink /sys/\S+?/virtfn(\d+)\)\)", lambda link: address(int(link[1])), line)
    return re.sub(rf"{PF}/virtfn(\d+)", lambda link: address(int(link[1])), line)


def address(index: int) -> str:
    return f"{PF[:-1]}{index + 1}"


def changes(sent: list[str], name: str) -> list[str]:
    """Return what a verb sent that changes something; a state that is read is the work of the one that saves it."""
    asked = {"state save": "", "vm detach": "device_add"}.get(name, "Migration Receive")
    return [line for line in sent if not asked or asked not in line]


def cells(host: Path) -> Cells:
    """Return all that a preparation touches, as the host shows it."""
    with EmulatedHost(host) as opened, open_primary(opened, PF) as pf:
        secondaries = frozenset(secondary.cntlid for secondary in pf.picture().secondaries)
        return cells_of(pf.picture(namespaces=secondaries))


def without_marks(host: Path) -> Cells:
    """Return the cells of a host, but for the marks: one that was taken away is never brought back, only given."""
    return {cell: value for cell, value in cells(host).items() if cell.name not in (CellName.MARK, CellName.VALID_S)}


@pytest.mark.parametrize("name", VERBS)
def test_a_dry_run_shows_exactly_what_the_run_sends_and_changes_nothing(
    name: str, tmp_path: Path, run: Run, sent: list[str]
) -> None:
    host, words = build(tmp_path / "host", name, run), VERBS[name].words
    before = cells(host)
    sent.clear()
    code, out = run(host, words, "--dry-run", "--json")
    document = json.loads(out)
    assert (code, document["changed"], cells(host)) == (0, False, before)
    assert [line for line in changes(sent, name) if "Migration Receive" not in line] == []
    sent.clear()
    assert run(host, words, "--yes")[0] == 0
    assert [placed(line) for line in planned(document)] == changes(sent, name)
    assert bool(changes(sent, name)) != (name in MARKS_ONLY)


@pytest.mark.parametrize("name", [name for name in VERBS if name not in ANEW])
def test_a_second_run_changes_nothing(name: str, tmp_path: Path, run: Run, sent: list[str]) -> None:
    host, words = build(tmp_path / "host", name, run), VERBS[name].words
    with vmm(host, holds=name == "vm detach") if name.startswith("vm ") else nullcontext():
        code, out = run(host, words, "--yes", "--json")
        assert (code, json.loads(out)["changed"]) == (0, True)
        before = cells(host)
        sent.clear()
        code, out = run(host, words, "--yes", "--json")
    assert (code, json.loads(out)["changed"], cells(host)) == (0, False, before)
    assert (changes(sent, name) == []) is not (name in REPEATED)


#: How a device and the kernel refuse a change.
REFUSED = {"admin": "status:0x4006", "sysfs": "errno:EIO"}


def faults(sent: list[str], action: str) -> Iterator[str]:
    """Yield a fault for each change that was sent."""
    counted: Counter[str] = Counter()
    for line in sent:
        where = "sysfs/*" if line.startswith("echo") else f"admin/{line.split()[1]}"
        counted[where] += 1
        kind, _, _ = where.partition("/")
        yield f"{where}#{counted[where]}={REFUSED[kind] if action == 'refused' else action}"


def struck(name: str, tmp_path: Path, run: Run, sent: list[str], *actions: str) -> Iterator[tuple[Path, str]]:
    """Yield a host for each change that a verb makes and each thing that happens to it, with the fault."""
    template = build(tmp_path / "template", name, run)
    sent.clear()
    assert run(copy(template, tmp_path / "undisturbed"), VERBS[name].words, "--yes")[0] == 0
    made = [fault for action in actions for fault in faults(changes(sent, name), action)]
    assert bool(made) != (name in MARKS_ONLY)
    for number, fault in enumerate(made):
        yield copy(template, tmp_path / str(number), fault), fault


@pytest.mark.parametrize("name", PLANNED)
def test_killed_at_any_change_recover_puts_back_what_was_there(
    name: str, tmp_path: Path, run: Run, sent: list[str]
) -> None:
    for host, fault in struck(name, tmp_path, run, sent, "raise-before", "raise-after"):
        before = without_marks(tmp_path / ("undisturbed" if name == "recover" else "template"))
        with pytest.raises(EmulatedCrash):
            run(host, VERBS[name].words, "--yes")
        code, out = run(host, "recover --yes --json")
        assert (fault, code, json.loads(out)["changed"]) == (fault, 0, True)
        assert (fault, without_marks(host)) == (fault, before)
        assert json.loads(run(host, "recover --yes --json")[1])["changed"] is False


@pytest.mark.parametrize("name", [name for name in PLANNED if name != "recover"])
def test_refused_at_any_change_a_verb_puts_back_what_was_there_and_says_so(
    name: str, tmp_path: Path, run: Run, sent: list[str]
) -> None:
    for host, fault in struck(name, tmp_path, run, sent, "refused"):
        before = without_marks(host)
        code, out = run(host, VERBS[name].words, "--yes", "--json")
        assert (fault, code) == (fault, ExitCode.REFUSED if fault.startswith("admin") else ExitCode.ROLLED_BACK)
        assert json.loads(out).get("rolled_back", name == "apply")
        assert (fault, without_marks(host)) == (fault, before)


def test_what_recover_could_not_undo_it_undoes_the_next_time(tmp_path: Path, run: Run, sent: list[str]) -> None:
    for host, fault in struck("recover", tmp_path, run, sent, "refused"):
        assert (fault, run(host, "recover --yes")[0]) == (fault, ExitCode.FAILED)
        assert run(host, "recover --yes")[0] == 0
        assert (fault, without_marks(host)) == (fault, without_marks(tmp_path / "undisturbed"))


@pytest.mark.parametrize("name", [name for name in UNPLANNED if name.startswith("state ")])
def test_a_controller_that_a_killed_verb_leaves_standing_still_is_named_by_recover(
    name: str, tmp_path: Path, run: Run, sent: list[str]
) -> None:
    for host, fault in struck(name, tmp_path, run, sent, "raise-before", "raise-after"):
        with pytest.raises(EmulatedCrash):
            run(host, VERBS[name].words, "--yes")
        code, out = run(host, "recover --yes --json")
        assert code == 0
        for cntlid in stand_still(host):
            assert f"{cntlid:#06x}" in out, fault


def stand_still(host: Path) -> list[int]:
    with EmulatedHost(host) as opened, opened.machine.view() as state:
        secondaries = state["primaries"][PF]["secondaries"]
        return [int(cntlid) for cntlid, secondary in secondaries.items() if secondary["suspended"]]
