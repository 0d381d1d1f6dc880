"""What a session forbids the other verbs: to touch a copy that may be the only one, or to offer one that runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nvmelm.cli.verbs.migrate.verb import _chosen
from nvmelm.desired.config import parse
from nvmelm.desired.converge import reach
from nvmelm.emulator.host import EmulatedHost
from nvmelm.emulator.kernel.functions import open_vfio
from nvmelm.emulator.machine.faults import EmulatedCrash
from nvmelm.errors import BusyError, NotReadyError, NvmelmError, UncertainError
from nvmelm.inventory.departed import DATABASE
from nvmelm.inventory.opened import OpenPrimary, open_primary
from nvmelm.inventory.pci import Bdf
from nvmelm.inventory.picture import ChangeReport, Picture, Role
from nvmelm.ownership.sessions import Sessions, sessions_path
from nvmelm.prepare import allow, binding, parameters, release, secondaries, sequence, sriov
from nvmelm.prepare.cells import cells_of
from nvmelm.prepare.journal import Journal
from nvmelm.prepare.recover import recover
from nvmelm.state import verbs
from nvmelm.vm import verbs as vm
from nvmelm.vm.libvirt import hook
from nvmelm.vm.libvirt.domain_xml import DomainWanted, DomainXml
from tests.emulated.answers import agree, decline
from tests.emulated.conftest import MakeHost
from tests.emulated.migrate.test_migrate import GIVE
from tests.emulated.two_hosts import FIRST, PF, VF, Cut, World, copy

CONFIG = {
    "destination": f"[[pf]]\naddress = '{PF}'\nvfs = 1\nrole = 'destination'\nvq = 3\nvi = 2\n",
    "source": f"[[pf]]\naddress = '{PF}'\nvfs = 1\nrole = 'source'\nvq = 3\nvi = 2\n",
}
SIDES = {"source": Role.MIGRATABLE, "destination": Role.RESUMABLE}


@pytest.fixture(scope="module")
def cut_off(two_hosts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two hosts whose link was cut after the give-away: both copies stand still, and either may be the one."""
    place = tmp_path_factory.mktemp("cut") / "template"
    world = copy(two_hosts, place)
    cut(world)
    world.close()
    return place


def cut(world: World) -> None:
    with pytest.raises(UncertainError):
        world.migrate(cut=Cut("source", GIVE))
    assert (world.states("source"), world.states("destination")) == (["given-away"], ["loaded"])


@pytest.fixture
def undecided(cut_off: Path, tmp_path: Path) -> Iterator[World]:
    world = copy(cut_off, tmp_path / "world")
    yield world
    world.close()


@pytest.fixture
def moved(world: World) -> World:
    """Two hosts after a move: the guest runs at the destination."""
    world.start_guest(depth=8)
    world.migrate()
    assert world.guest is not None
    world.guest.attach(world.destination, VF)
    world.guest.step(20)
    return world


def shut_down(world: World) -> None:
    assert world.guest is not None
    world.guest.detach()


def look(host: EmulatedHost) -> Picture:
    with open_primary(host, PF) as pf:
        return pf.picture()


def role_of(host: EmulatedHost) -> str | None:
    mark = look(host).secondaries[0].mark
    return str(mark.role) if mark is not None and mark.holds else None


def resources(host: EmulatedHost) -> tuple[int, int, bool]:
    secondary = look(host).secondaries[0]
    return secondary.vq, secondary.vi, secondary.online


def change(host: EmulatedHost, do: Callable[[OpenPrimary], Any]) -> Any:
    with open_primary(host, PF, change=True) as pf:
        return do(pf)


def allow_resume(host: EmulatedHost, confirm: Callable[[str], None], *, dry_run: bool = False) -> ChangeReport:
    def do(pf: OpenPrimary) -> ChangeReport:
        return allow.allow(pf, [FIRST], Role.RESUMABLE, confirm=confirm, dry_run=dry_run)

    report: ChangeReport = change(host, do)
    return report


# An undecided copy is touched by nobody but its session.

DESTROYERS: dict[str, Callable[[OpenPrimary, str], object]] = {
    "secondary offline": lambda pf, _: secondaries.offline(pf, FIRST, confirm=agree),
    "secondary assign": lambda pf, _: secondaries.assign(pf, FIRST, vq=4, vi=2, confirm=agree),
    "compat parameters apply": lambda pf, _: parameters.give(pf, FIRST, namespaces=[], confirm=agree),
    "sriov disable": lambda pf, _: sriov.disable_sriov(pf, confirm=agree),
    "sriov enable": lambda pf, _: sriov.enable_sriov(pf, 2, confirm=agree),
    "prepare": lambda pf, side: sequence.prepare(pf, SIDES[side], 2, confirm=agree),
    "release": lambda pf, _: release.release(pf, confirm=agree),
    "vfio unbind": lambda pf, _: binding.unbind(pf, [FIRST], confirm=agree),
    "vm attach --print": lambda pf, _: vm.arguments(pf, FIRST),
    "a domain's start": lambda pf, _: hook.prepare(pf.host, "vm1", domain(), confirm=agree),
}


def domain() -> DomainXml:
    return DomainXml(wanted=(DomainWanted(Bdf.parse(VF), unmarked=False),), functions=())


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("verb", DESTROYERS)
def test_an_undecided_copy_is_refused_to_every_verb_that_would_destroy_it(
    verb: str, side: str, undecided: World
) -> None:
    before = undecided.controller(side)
    (held,) = unfinished(undecided, side)
    with (
        pytest.raises(BusyError) as met,
        open_primary(undecided.host(side), PF, change=verb != "a domain's start") as pf,
    ):
        DESTROYERS[verb](pf, side)
    assert met.value.reason == "session-unfinished"
    assert held in met.value.cause
    assert met.value.fix == "nvmelm recover"
    assert undecided.controller(side) == before


def unfinished(world: World, side: str) -> list[str]:
    with Sessions(world.host(side)) as sessions:
        return [record.id for record in sessions.unfinished()]


def test_a_dry_run_is_refused_as_the_verb_would_be(undecided: World) -> None:
    with pytest.raises(BusyError, match="not over"):
        change(undecided.destination, lambda pf: secondaries.offline(pf, FIRST, confirm=agree, dry_run=True))


def test_a_state_is_not_restored_over_an_undecided_one(undecided: World, tmp_path: Path) -> None:
    before = undecided.controller("destination")
    with pytest.raises(BusyError, match="not over"):
        change(undecided.destination, lambda pf: verbs.restore(pf, FIRST, tmp_path / "no-image", confirm=agree))
    assert undecided.controller("destination") == before


def test_a_mark_may_be_taken_back_and_nobody_suspends_a_copy_behind_the_sessions_back(undecided: World) -> None:
    """Suspended, a copy that was lost would look like the one that waits for its session's end."""
    with pytest.raises(BusyError):
        change(undecided.destination, lambda pf: verbs.suspend(pf, FIRST, confirm=agree))
    change(undecided.destination, lambda pf: allow.revoke(pf, [FIRST], confirm=agree))
    assert role_of(undecided.destination) is None


def test_after_all_refusals_recover_still_ends_the_session(world: World) -> None:
    world.start_guest(depth=8)
    cut(world)
    for side in SIDES:
        with pytest.raises(BusyError):
            change(world.host(side), lambda pf: release.release(pf, confirm=agree))
    world.recover("source")
    assert world.runs("destination")
    assert not world.holds("source")
    assert (world.states("source"), world.states("destination")) == (["done"], ["running"])
    shut_down(world)
    change(world.source, lambda pf: release.release(pf, confirm=agree))


@pytest.mark.parametrize("side", SIDES)
def test_vfs_made_anew_hold_nothing_of_a_session(side: str, undecided: World) -> None:
    """After a reboot, or when somebody wrote to sysfs: what is there now is not the copy."""
    host = undecided.host(side)
    host.sysfs.write(f"bus/pci/devices/{PF}/sriov_numvfs", "0")
    host.sysfs.write(f"bus/pci/devices/{PF}/sriov_numvfs", "1")
    assert change(host, lambda pf: sequence.prepare(pf, SIDES[side], 1, vq=3, vi=2, confirm=agree)).changed


# A copy that runs is offered to nobody.


def test_apply_leaves_a_controller_that_was_moved_here_unmarked_and_says_so(moved: World) -> None:
    (entry,) = reach(moved.destination, parse("f", CONFIG["destination"]), confirm=agree).entries
    assert entry.outcome == "unchanged"
    assert entry.report is not None
    (note,) = entry.report.notes
    assert f"{FIRST:#06x} is left unmarked" in note
    assert "nvmelm secondary allow-resume nvme0 0x0042" in note
    assert role_of(moved.destination) is None


def test_a_second_move_finds_no_target_and_the_guest_runs_on(moved: World) -> None:
    reach(moved.destination, parse("f", CONFIG["destination"]), confirm=agree)
    with open_primary(moved.source, PF, change=True) as pf:  # a preparation would leave what was moved away as it is
        secondaries.assign(pf, FIRST, vq=2, vi=1, confirm=agree)
        secondaries.online(pf, FIRST, confirm=agree)
        allow.allow(pf, [FIRST], Role.MIGRATABLE, confirm=agree)
    with pytest.raises(NvmelmError, match="no resumable controller left"):
        moved.migrate()
    assert moved.runs("destination")
    assert moved.guest is not None
    moved.guest.step(30)
    assert moved.guest.finish().clean


def test_prepare_with_another_count_marks_the_fresh_ones(moved: World) -> None:
    shut_down(moved)
    with pytest.raises(BusyError, match="runs a guest"):  # nobody but the operator knows that it was shut down
        change(moved.destination, lambda pf: sequence.prepare(pf, Role.RESUMABLE, 2, confirm=agree))
    change(moved.destination, lambda pf: secondaries.offline(pf, FIRST, confirm=agree))
    report = change(moved.destination, lambda pf: sequence.prepare(pf, Role.RESUMABLE, 2, confirm=agree))
    assert report.notes == ()
    assert [str(secondary.mark.role) for secondary in look(moved.destination).secondaries[:2] if secondary.mark] == [
        "resumable"
    ] * 2


def test_a_controller_that_was_taken_offline_since_is_a_target_again(moved: World) -> None:
    shut_down(moved)
    change(moved.destination, lambda pf: secondaries.offline(pf, FIRST, confirm=agree))
    assert reach(moved.destination, parse("f", CONFIG["destination"]), confirm=agree).changed
    assert role_of(moved.destination) == "resumable"
    assert reach(moved.destination, parse("f", CONFIG["destination"]), confirm=agree).entries[0].outcome == "unchanged"


@pytest.mark.parametrize("role", Role)
def test_a_preparation_without_counts_leaves_a_guest_that_was_moved_here_as_it_is(moved: World, role: Role) -> None:
    before = resources(moved.destination)
    report = change(moved.destination, lambda pf: sequence.prepare(pf, role, 1, confirm=decline))
    assert f"{FIRST:#06x} keeps its resources: {FIRST:#06x} runs a guest here" in report.notes[0]
    assert resources(moved.destination) == before
    assert moved.guest is not None
    moved.guest.step(30)
    assert moved.guest.finish().clean


#: Verbs that would take a controller down on the way to something else, and those whose purpose it is.
ON_THE_WAY: dict[str, Callable[[OpenPrimary, Any], object]] = {
    "prepare with counts": lambda pf, yes: sequence.prepare(pf, Role.MIGRATABLE, 1, vq=4, vi=2, confirm=yes),
    "prepare with more VFs": lambda pf, yes: sequence.prepare(pf, Role.MIGRATABLE, 2, confirm=yes),
    "sriov enable": lambda pf, yes: sriov.enable_sriov(pf, 2, confirm=yes),
    "secondary assign": lambda pf, yes: secondaries.assign(pf, FIRST, vq=4, vi=2, confirm=yes),
}
TAKE_DOWN: dict[str, Callable[[OpenPrimary, Any], object]] = {
    "secondary offline": lambda pf, yes: secondaries.offline(pf, FIRST, confirm=yes),
    "sriov disable": lambda pf, yes: sriov.disable_sriov(pf, confirm=yes),
    "vfio unbind": lambda pf, yes: binding.unbind(pf, [FIRST], confirm=yes),
    "release": lambda pf, yes: release.release(pf, confirm=yes),
}


@pytest.mark.parametrize("verb", ON_THE_WAY)
def test_no_verb_takes_a_guest_that_was_moved_here_down_on_its_way(moved: World, verb: str) -> None:
    before = moved.controller("destination")
    with pytest.raises(BusyError, match="0x0042 would be taken down, and runs a guest") as caught:
        change(moved.destination, lambda pf: ON_THE_WAY[verb](pf, agree))
    assert "nvmelm secondary offline nvme0 0x0042" in caught.value.fix
    assert moved.controller("destination") == before


@pytest.mark.parametrize("verb", TAKE_DOWN)
def test_a_verb_that_takes_controllers_down_names_the_guest_in_its_question(moved: World, verb: str) -> None:
    before = moved.controller("destination")
    asked: list[str] = []

    def listen(question: str) -> None:
        asked.append(question)
        decline(question)

    with pytest.raises(NvmelmError):
        change(moved.destination, lambda pf: TAKE_DOWN[verb](pf, listen))
    assert "0x0042 runs a guest here as far as session" in asked[0]
    assert moved.controller("destination") == before


def test_a_preparation_without_counts_leaves_what_somebody_uses_as_it_is(make_host: MakeHost) -> None:
    host = make_host()
    change(host, lambda pf: sequence.prepare(pf, Role.MIGRATABLE, 2, vq=3, vi=2, confirm=agree))
    with host.machine.change():
        open_vfio(host.machine, VF, pid=os.getppid(), name="dpdk", memory="")
    report = change(host, lambda pf: sequence.prepare(pf, Role.MIGRATABLE, 2, confirm=agree))
    held, idle = look(host).secondaries[:2]
    assert re.match("0x0042 keeps its resources: .*dpdk", report.notes[0])
    assert (held.vq, held.vi, held.online) == (3, 2, True)
    assert idle.vq != 3


def test_a_released_function_is_a_target_again(moved: World) -> None:
    shut_down(moved)
    change(moved.destination, lambda pf: release.release(pf, confirm=agree))
    assert reach(moved.destination, parse("f", CONFIG["destination"]), confirm=agree).changed
    assert role_of(moved.destination) == "resumable"


def test_an_operator_may_mark_it_again_once_he_was_asked(moved: World) -> None:
    with pytest.raises(NotReadyError, match="runs a guest here as far as session"):
        allow_resume(moved.destination, decline)
    assert role_of(moved.destination) is None
    assert "runs a guest here" in allow_resume(moved.destination, decline, dry_run=True).notes[0]
    assert allow_resume(moved.destination, agree).changed
    assert role_of(moved.destination) == "resumable"


def test_it_may_be_marked_migratable_to_move_on(moved: World) -> None:
    (entry,) = reach(moved.destination, parse("f", CONFIG["source"]), confirm=decline).entries
    assert entry.outcome == "done"
    assert role_of(moved.destination) == "migratable"


def test_the_host_it_left_is_a_target_at_once_so_that_it_can_come_back(moved: World) -> None:
    shut_down(moved)
    (entry,) = reach(moved.source, parse("f", CONFIG["destination"]), confirm=decline).entries
    assert entry.report is not None
    assert (entry.outcome, entry.report.notes) == ("done", ())
    assert role_of(moved.source) == "resumable"


def test_a_controller_never_moved_is_marked_without_a_question(make_host: MakeHost) -> None:
    host = make_host()
    change(host, lambda pf: sequence.prepare(pf, Role.MIGRATABLE, 1, confirm=agree))
    assert role_of(host) == "migratable"
    with open_primary(host, PF, change=True) as pf:
        which = pf.picture().secondaries[0].cntlid
        allow.allow(pf, [which], Role.RESUMABLE, confirm=decline)
    assert role_of(host) == "resumable"
    assert not sessions_path(host).exists()


def test_one_whose_move_from_here_failed_is_not_offered_either(world: World) -> None:
    world.start_guest(depth=8)
    world.destination.arm("admin/0x41/2*99=status:0x4006")
    with pytest.raises(NvmelmError):
        world.migrate()
    assert world.states("source") == ["rolled-back"]
    (entry,) = reach(world.source, parse("f", CONFIG["destination"]), confirm=agree).entries
    assert entry.report is not None
    assert "is left unmarked" in entry.report.notes[0]
    assert role_of(world.source) == "migratable"


# A run that was cut off, and what came after it.


def killed(host: EmulatedHost, side: str) -> None:
    host.arm("admin/0x1c#3=raise-after")
    with pytest.raises(EmulatedCrash):
        change(host, lambda pf: sequence.prepare(pf, SIDES[side], 1, vq=3, vi=2, confirm=agree))


@pytest.mark.parametrize("side", SIDES)
def test_a_preparation_that_was_killed_and_then_done_is_not_undone_by_recover(side: str, make_host: MakeHost) -> None:
    host = make_host()
    original = cells_of(look(host))
    killed(host, side)
    change(host, lambda pf: sequence.prepare(pf, SIDES[side], 1, vq=3, vi=2, confirm=agree))
    before = cells_of(look(host))
    assert recover(host, confirm=agree).unfinished == ()
    assert cells_of(look(host)) == before
    change(host, lambda pf: release.release(pf, confirm=agree))
    assert cells_of(look(host)) == original


def test_one_that_was_killed_when_all_was_done_is_closed_by_one_that_finds_nothing_to_do(make_host: MakeHost) -> None:
    host = make_host()
    change(host, lambda pf: sequence.prepare(pf, Role.RESUMABLE, 1, confirm=agree))
    journal = Journal(host, PF)
    text = journal.path.read_text()
    journal.path.write_text("".join(line for line in text.splitlines(keepends=True) if '"record":"end"' not in line))
    assert len(journal.unfinished()) == 1
    assert not change(host, lambda pf: sequence.prepare(pf, Role.RESUMABLE, 1, confirm=agree)).changed
    assert recover(host, confirm=agree).unfinished == ()


def test_a_change_of_one_cell_closes_no_run_that_wanted_more(make_host: MakeHost) -> None:
    host = make_host()
    killed(host, "source")
    change(host, lambda pf: sriov.enable_sriov(pf, 1, confirm=agree))
    assert len(Journal(host, PF).unfinished()) == 1


def test_recover_does_not_undo_a_preparation_below_a_guest_that_was_moved_here(world: World) -> None:
    journal = Journal(world.destination, PF)
    text = journal.path.read_text()
    journal.path.write_text("".join(line for line in text.splitlines(keepends=True) if '"record":"end"' not in line))
    world.start_guest(depth=8)
    world.migrate()
    report = recover(world.destination, confirm=agree)
    assert not report.changed
    assert "destination prepare is not undone: 0x0042 runs a guest" in report.notes[0]
    assert world.runs("destination")
    assert recover(world.destination, finish=True, confirm=agree).changed
    assert world.runs("destination")
    assert role_of(world.destination) is None
    assert journal.unfinished() == []


# What it costs.


def test_without_a_session_the_database_is_neither_opened_nor_its_reader_loaded(make_host: MakeHost) -> None:
    host = make_host()
    change(host, lambda pf: sequence.prepare(pf, Role.RESUMABLE, 1, confirm=agree))
    program = f"""
import sys
from pathlib import Path
from nvmelm.emulator.host import EmulatedHost
from nvmelm.emulator.kernel.functions import open_vfio
from nvmelm.prepare import allow, release, secondaries, sequence
from nvmelm.inventory.opened import open_primary
from nvmelm.inventory.picture import Role
agree = lambda question: None
with EmulatedHost(Path({str(host.state_dir.parent)!r})) as host, open_primary(host, {PF!r}, change=True) as pf:
    sequence.prepare(pf, Role.RESUMABLE, 1, confirm=agree)
    sequence.prepare(pf, Role.RESUMABLE, 2, confirm=agree)
    release.release(pf, confirm=agree)
print("sqlite3" in sys.modules, "nvmelm.ownership.sessions" in sys.modules)
"""
    words = [sys.executable, "-c", program]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["False", "False"]
    assert not sessions_path(host).exists()


def test_the_database_is_looked_for_where_it_is(make_host: MakeHost) -> None:
    host = make_host()
    assert sessions_path(host) == host.state_dir / DATABASE


def test_sessions_that_cannot_be_read_allow_no_change_that_could_destroy_a_copy(undecided: World) -> None:
    before = undecided.controller("destination")
    sessions_path(undecided.destination).write_bytes(b"no database" * 100)
    with pytest.raises(NvmelmError, match="sessions"):
        change(undecided.destination, lambda pf: release.release(pf, confirm=agree))
    assert undecided.controller("destination") == before


def test_a_verb_that_looks_at_the_sessions_keeps_no_other_from_writing_them(undecided: World) -> None:
    with Sessions(undecided.source) as writer, writer._database() as held:
        assert held.in_transaction
        with pytest.raises(BusyError, match="not over"):
            change(undecided.source, lambda pf: secondaries.offline(pf, FIRST, confirm=agree))


def test_a_preparation_leaves_what_this_source_moved_away_as_it_is(moved: World) -> None:
    before = cells_of(look(moved.source))
    with open_primary(moved.source, PF, change=True) as pf:
        report = sequence.prepare(pf, Role.MIGRATABLE, 1, vq=3, vi=2, confirm=agree)
    assert (report.changed, report.actions) == (False, ())
    assert [moved.cntlid for moved in report.moved] == [FIRST]
    assert f"{FIRST:#06x} was moved to {report.moved[0].to}" in report.notes[0]
    assert cells_of(look(moved.source)) == before


def test_all_migratable_passes_over_a_blank_controller_in_the_place_of_one_that_moved(moved: World) -> None:
    with open_primary(moved.source, PF, change=True) as pf:
        secondaries.assign(pf, FIRST, vq=3, vi=2, confirm=agree)
        secondaries.online(pf, FIRST, confirm=agree)
        allow.allow(pf, [FIRST], Role.MIGRATABLE, confirm=agree)
        with pytest.raises(NotReadyError, match="is migratable") as caught:
            _chosen(pf, (), every=True)
    assert caught.value.reason == "unmarked"
