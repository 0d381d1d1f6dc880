"""Steps 1 to 4 on an emulated host: done, done again, undone, interrupted and recovered."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from nvmelm.commands import AdminCommandError
from nvmelm.emulator.host import EmulatedHost
from nvmelm.emulator.machine.faults import EmulatedCrash
from nvmelm.errors import (
    BusyError,
    HostError,
    MalformedError,
    NotReadyError,
    NotSupportedError,
    NvmelmError,
    PermissionDeniedError,
    RolledBackError,
    UncertainError,
    UsageError,
)
from nvmelm.inventory import marks
from nvmelm.inventory.opened import open_primary
from nvmelm.inventory.picture import Picture, Role
from nvmelm.prepare import allow, binding, secondaries, sequence, sriov
from nvmelm.prepare import release as undo_all
from nvmelm.prepare.actions import Action, Phase
from nvmelm.prepare.cells import Value, cells_of, written_cells
from nvmelm.prepare.executor import Executor
from nvmelm.prepare.journal import Journal
from nvmelm.prepare.recover import recover
from tests.emulated.answers import agree, decline
from tests.emulated.conftest import MakeHost

PF = "0000:01:00.0"


def look(host: EmulatedHost) -> Picture:
    with open_primary(host, PF) as pf:
        return pf.picture()


def cells(host: EmulatedHost) -> dict[str, Value]:
    return written_cells(cells_of(look(host)))


def prepare(host: EmulatedHost, vfs: int = 2, role: Role = Role.MIGRATABLE, **options: object) -> bool:
    with open_primary(host, PF, change=True) as pf:
        return sequence.prepare(pf, role, vfs, confirm=agree, **options).changed  # type: ignore[arg-type]


def release(host: EmulatedHost) -> bool:
    with open_primary(host, PF, change=True) as pf:
        return undo_all.release(pf, confirm=agree).changed


def test_a_prepared_function_is_online_marked_and_bound_with_a_node_for_the_vm(make_host: MakeHost) -> None:
    host = make_host()
    assert prepare(host)
    first = look(host).secondaries[0]
    assert (first.online, first.driver, first.driver_override) == (True, "vfio-pci", "vfio-pci")
    assert first.vfio_node == f"/dev/vfio/{first.iommu_group}"
    assert first.mark is not None
    assert (first.mark.role, first.mark.holds) == (Role.MIGRATABLE, True)


def test_preparing_twice_changes_nothing_the_second_time(make_host: MakeHost) -> None:
    host = make_host()
    assert prepare(host)
    before = cells(host)
    assert not prepare(host)
    assert cells(host) == before


def test_a_dry_run_changes_nothing_and_shows_what_the_real_run_does(make_host: MakeHost) -> None:
    host = make_host()
    before = cells(host)
    with open_primary(host, PF, change=True) as pf:
        planned = sequence.prepare(pf, Role.MIGRATABLE, 2, confirm=decline, dry_run=True)
        assert cells(host) == before
        done = sequence.prepare(pf, Role.MIGRATABLE, 2, confirm=agree)
    assert [action.summary for action in planned.actions] == [action.summary for action in done.actions]
    assert all(action.operations for action in planned.actions)
    assert (planned.changed, done.changed) == (False, True)


def test_release_brings_back_exactly_what_was_there(make_host: MakeHost) -> None:
    host = make_host()
    before = cells(host)
    prepare(host, vfs=3)
    assert release(host)
    assert cells(host) == before
    assert not release(host)
    assert not (host.state_dir / "journal" / f"{PF}.jsonl").exists()


@pytest.mark.parametrize("fault", ["sysfs/*driver_override=errno:EIO", "sysfs/*sriov_numvfs=errno:EIO"])
def test_what_a_function_held_before_it_was_enabled_is_brought_back(make_host: MakeHost, fault: str) -> None:
    host = make_host()
    with open_primary(host, PF, change=True) as pf:
        secondaries.assign(pf, 0x44, vq=2, vi=1, confirm=agree)
        Journal(host, PF).forget()
    before = cells(host)
    assert before["0x0044/vq"] == 2
    host.arm(fault)
    with pytest.raises(NvmelmError) as met:
        prepare(host, vfs=3, vq=2, vi=1)
    assert met.value.rolled_back
    assert cells(host) == before
    host.disarm()
    assert prepare(host, vfs=3, vq=2, vi=1)
    assert release(host)
    assert cells(host) == before


def test_an_error_that_nobody_expected_puts_everything_back(
    make_host: MakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = make_host()
    before = cells(host)
    monkeypatch.setattr("nvmelm.prepare.executor.marks.verify", lambda *_: {}["nothing"])
    with pytest.raises(RolledBackError, match="KeyError"):
        prepare(host)
    assert cells(host) == before


def test_release_brings_back_vfs_that_were_there_with_their_resources_and_driver(make_host: MakeHost) -> None:
    host = make_host()
    with open_primary(host, PF, change=True) as pf:  # somebody else's set-up: one online VF that the kernel drives
        sriov.enable_sriov(pf, 1, confirm=agree)
        secondaries.assign(pf, 66, vq=4, vi=3, confirm=agree)
        secondaries.online(pf, 66, confirm=agree)
        host.sysfs.write("bus/pci/devices/0000:01:00.1/driver_override", "nvme")
        host.sysfs.write("bus/pci/drivers_probe", "0000:01:00.1")
        host.sysfs.write("bus/pci/devices/0000:01:00.1/driver_override", "\n")
        host.sysfs.write(f"bus/pci/devices/{PF}/sriov_drivers_autoprobe", "1")
        Journal(host, PF).forget()
    before = cells(host)
    assert before["0x0042/driver"] == "nvme"
    prepare(host, vfs=4, vq=2, vi=1)
    assert cells(host)["0x0042/vq"] == 2
    release(host)
    assert cells(host) == before


def test_standalone_verbs_are_released_together(make_host: MakeHost) -> None:
    host = make_host()
    before = cells(host)
    with open_primary(host, PF, change=True) as pf:
        sriov.enable_sriov(pf, 4, confirm=agree)
        secondaries.assign(pf, 66, vq=2, vi=1, confirm=agree)
        secondaries.online(pf, 66, confirm=agree)
        allow.allow(pf, [66], Role.RESUMABLE, confirm=agree)
        binding.bind(pf, [66], confirm=agree)
        sriov.enable_sriov(pf, 5, confirm=agree)
    release(host)
    assert cells(host) == before


def test_unbinding_gives_the_vf_back_to_the_driver_it_came_from(make_host: MakeHost) -> None:
    host = make_host()
    prepare(host)
    with open_primary(host, PF, change=True) as pf:
        assert binding.unbind(pf, [66], confirm=agree).changed
        assert not binding.unbind(pf, [66], confirm=agree).changed
    first = look(host).secondaries[0]
    assert (first.driver, first.driver_override) == (None, "")


def test_an_unmarked_vf_is_not_bound_unless_that_is_wanted(make_host: MakeHost) -> None:
    host = make_host()
    with open_primary(host, PF, change=True) as pf:
        sriov.enable_sriov(pf, 1, confirm=agree)
        with pytest.raises(NotReadyError, match="is not marked") as caught:
            binding.bind(pf, [66], confirm=agree)
        assert "allow-migration" in caught.value.fix
        assert binding.bind(pf, [66], unmarked=True, confirm=agree).changed


def test_a_controller_without_live_migration_is_refused_before_anything_changes(make_host: MakeHost) -> None:
    host = make_host("stock-qemu-7.2")
    before = cells(host)
    with pytest.raises(NotSupportedError, match="cannot migrate") as caught:
        prepare(host)
    assert "--unmarked" in caught.value.fix
    assert cells(host) == before
    assert prepare(host, unmarked=True)
    assert look(host).secondaries[0].mark is None


@pytest.mark.parametrize("vfs", [0, 17, 100_000])
def test_a_number_of_vfs_the_pf_cannot_have_is_refused(make_host: MakeHost, vfs: int) -> None:
    with pytest.raises(UsageError, match=f"cannot have {vfs} VFs"):
        prepare(make_host(), vfs=vfs)


def test_without_an_iommu_nothing_is_changed(make_host: MakeHost) -> None:
    host = make_host(options={"iommu": False})
    before = cells(host)
    with pytest.raises(NotSupportedError, match="IOMMU"):
        prepare(host)
    assert cells(host) == before


def test_without_root_nothing_is_changed(make_host: MakeHost) -> None:
    host = make_host(options={"privileged": False})
    with pytest.raises(PermissionDeniedError, match="root"):
        prepare(host)


# What happens when it goes wrong.


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        pytest.param("admin/0x1c#3=status:0x4122", AdminCommandError, id="device-refuses"),
        pytest.param("sysfs/*/sriov_numvfs=errno:ENOMEM", RolledBackError, id="no-memory-for-vfs"),
        pytest.param("sysfs/bus/pci/drivers_probe*9=silent", RolledBackError, id="nothing-binds"),
    ],
)
def test_a_failed_preparation_puts_everything_back(make_host: MakeHost, fault: str, error: type[NvmelmError]) -> None:
    host = make_host()
    before = cells(host)
    host.arm(fault)
    if "silent" in fault:
        host.arm("sysfs/bus/pci/drivers/vfio-pci/bind*9=errno:EINVAL")
    with pytest.raises(error) as caught:
        prepare(host)
    assert caught.value.rolled_back
    host.disarm()
    assert cells(host) == before
    assert not Journal(host, PF).runs()


def test_a_reset_of_the_pf_in_the_middle_is_noticed_and_mended(make_host: MakeHost) -> None:
    host = make_host()
    host.arm("admin/0x1c#4=reset")
    with suppress(NvmelmError):
        prepare(host)
    picture = look(host)
    assert picture.primary.vfs_enabled == 0 or all(secondary.online for secondary in picture.secondaries[:2])


def test_a_device_that_vanishes_leaves_a_run_that_recover_names(make_host: MakeHost) -> None:
    host = make_host()
    host.arm("admin/0x1c#3=vanish")
    with pytest.raises(UncertainError) as caught:
        prepare(host)
    assert "nvmelm recover" in caught.value.fix
    with pytest.raises(UncertainError, match="is not there"):
        recover(host, confirm=agree)


@pytest.mark.parametrize("kind", ["zeros", "ones", "noise", "counts", "states", "endless"])
def test_a_controller_that_answers_nonsense_is_an_error_and_no_traceback(make_host: MakeHost, kind: str) -> None:
    host = make_host()
    for cns in ("0x14", "0x15", "0x20", "0x01"):
        host.disarm()
        host.arm(f"admin/0x06/{cns}*40=nonsense:{kind}")
        try:
            prepare(host)
        except (MalformedError, NvmelmError):
            host.disarm()
            release(host)
        else:
            host.disarm()
            release(host)


def test_a_full_disk_stops_before_the_first_change(make_host: MakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    host = make_host()
    before = cells(host)

    def full(*_: object, **__: object) -> None:
        raise HostError("no space left on device", errno=28)

    monkeypatch.setattr("nvmelm.disk.store.append", full)
    with pytest.raises(HostError, match="no space"):
        prepare(host)
    assert cells(host) == before


# Killed in the middle.


def killed_at(host: EmulatedHost, fault: str) -> None:
    host.arm(fault)
    with pytest.raises(EmulatedCrash):
        prepare(host)
    host.disarm()


KILLS = [
    f"{where}#{number}={when}"
    for where, count in (("admin/0x1c", 6), ("sysfs", 6))
    for number in range(1, count + 1)
    for when in ("raise-before", "raise-after")
]


@pytest.mark.parametrize("fault", KILLS)
def test_killed_at_any_change_recover_undoes_the_run(make_host: MakeHost, fault: str) -> None:
    host = make_host()
    before = cells(host)
    killed_at(host, fault)
    planned = recover(host, confirm=decline, dry_run=True)
    assert [run.verb for run in planned.unfinished] == ["source prepare"]
    assert recover(host, confirm=agree).changed
    assert cells(host) == before
    assert not recover(host, confirm=agree).changed


@pytest.mark.parametrize("fault", KILLS[::3])
def test_killed_at_any_change_recover_can_finish_the_run(make_host: MakeHost, fault: str) -> None:
    host = make_host()
    killed_at(host, fault)
    recover(host, finish=True, confirm=agree)
    assert not prepare(host)
    release(host)
    assert cells(host)["vfs"] == 0


@pytest.mark.parametrize("number", range(40))
def test_what_recover_says_of_where_a_run_stopped_is_so(
    make_host: MakeHost, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The actions of a phase are written down together: what was begun first of them is all that is sure."""
    host = make_host()
    begun: list[list[str]] = []
    made: list[str] = []
    phase = Executor.phase

    def phased(executor: Executor, name: Phase, actions: list[Action]) -> None:
        begun.append([action.summary for action in actions])
        phase(executor, name, actions)

    def dying(make: Callable[..., None]) -> Callable[..., None]:
        def change(executor: Executor, what: object) -> None:
            if len(made) == number:
                raise EmulatedCrash
            made.append(str(what))
            make(executor, what)

        return change

    with monkeypatch.context() as patch:
        patch.setattr(Executor, "phase", phased)
        for name in ("_write", "_command"):
            patch.setattr(Executor, name, dying(getattr(Executor, name)))
        try:
            prepare(host)
        except EmulatedCrash:
            pass
        else:
            assert number >= len(made)
            return
    (run,) = recover(host, confirm=decline, dry_run=True).unfinished
    first, *others = begun[-1]
    together = f", or at one of the {len(others)} begun with it" if others else ""
    assert run.meaning == f"source prepare on {PF} stopped at or after: {first}{together}"


def test_after_a_reboot_there_is_nothing_to_undo(make_host: MakeHost) -> None:
    host = make_host()
    before = cells(host)
    killed_at(host, "admin/0x1c#5=raise-after")
    host.reboot()
    report = recover(host, confirm=decline)
    assert [run.boot for run in report.unfinished] == ["earlier"]
    assert cells(host) == before


def test_recover_is_safe_when_nothing_happened(make_host: MakeHost) -> None:
    report = recover(make_host(), confirm=decline)
    assert (report.changed, report.unfinished) == (False, ())


# Functions in use.


def test_a_mounted_vf_is_named_and_not_taken_away(make_host: MakeHost) -> None:
    host = make_host()
    with open_primary(host, PF, change=True) as pf:
        sriov.enable_sriov(pf, 1, confirm=agree)
        secondaries.assign(pf, 66, vq=2, vi=1, confirm=agree)
        secondaries.online(pf, 66, confirm=agree)
    host.sysfs.write("bus/pci/devices/0000:01:00.1/driver_override", "nvme")
    host.sysfs.write("bus/pci/drivers_probe", "0000:01:00.1")
    node = look(host).secondaries[0].controller_node
    namespace = next(name for name in host.sysfs.listdir(f"class/nvme/{node}") if name.startswith(f"{node}n"))
    host.mount(namespace, "/srv/data")
    with open_primary(host, PF, change=True) as pf:
        with pytest.raises(BusyError) as caught:
            binding.bind(pf, [66], unmarked=True, confirm=decline)
        assert "/srv/data" in caught.value.cause
        assert binding.bind(pf, [66], unmarked=True, confirm=agree).changed


# Marks.


def test_a_mark_does_not_outlive_its_vf(make_host: MakeHost) -> None:
    host = make_host()
    prepare(host)
    host.sysfs.write(f"bus/pci/devices/{PF}/sriov_numvfs", "0")
    host.sysfs.write(f"bus/pci/devices/{PF}/sriov_numvfs", "2")
    picture = look(host)
    mark = picture.secondaries[0].mark
    assert mark is not None
    assert mark.broken_by == ("the VF was removed and made anew",)
    with pytest.raises(NotReadyError, match="no longer holds"):
        marks.require(picture, picture.secondaries[0], Role.MIGRATABLE)


def test_a_reset_of_the_pf_breaks_the_marks(make_host: MakeHost) -> None:
    host = make_host()
    prepare(host)
    host.reset_primary(PF)
    mark = look(host).secondaries[0].mark
    assert mark is not None
    assert "the controller went offline" in mark.broken_by


def test_an_expired_mark_does_not_hold(make_host: MakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    from datetime import UTC, datetime, timedelta

    host = make_host()
    prepare(host, valid_s=60)
    later = datetime.now(UTC) + timedelta(seconds=61)

    class Clock(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:
            return later

    monkeypatch.setattr(marks, "datetime", Clock)
    mark = look(host).secondaries[0].mark
    assert mark is not None
    assert not mark.holds


@pytest.mark.parametrize("text", ["", "{}", "not json", '{"format": 1}', '{"role": "root"}'])
def test_a_mark_file_that_was_tampered_with_is_no_permission(make_host: MakeHost, text: str) -> None:
    host = make_host()
    prepare(host)
    (host.state_dir / "marks" / PF / "0x0042.json").write_text(text)
    assert look(host).secondaries[0].mark is None


@pytest.mark.parametrize(
    "change",
    [{"format": 2}, {"cntlid": "0x42"}, {"given_at": 1}, {"facts": []}, {"expires_at": 0}, {"more": 1}],
    ids=str,
)
def test_a_mark_of_another_form_is_no_permission(make_host: MakeHost, change: dict[str, object]) -> None:
    host = make_host()
    prepare(host)
    file = host.state_dir / "marks" / PF / "0x0042.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    assert look(host).secondaries[0].mark is None


@pytest.mark.parametrize("when", ["soon", "9999-12-31T00:00:00"])
def test_an_expiry_that_cannot_be_read_has_come(make_host: MakeHost, when: str) -> None:
    host = make_host()
    prepare(host, valid_s=3600)
    path = host.state_dir / "marks" / PF / "0x0042.json"
    stored = json.loads(path.read_text())
    path.write_text(json.dumps(stored | {"expires_at": when}))
    mark = look(host).secondaries[0].mark
    assert mark is not None
    assert not mark.holds


def test_changing_a_fact_in_a_mark_file_breaks_the_mark(make_host: MakeHost) -> None:
    host = make_host()
    prepare(host, vq=2)
    path = host.state_dir / "marks" / PF / "0x0042.json"
    path.write_text(path.read_text().replace('"vq": 2', '"vq": 3'))
    mark = look(host).secondaries[0].mark
    assert mark is not None
    assert not mark.holds


def test_what_nvmelm_remembers_is_for_root_alone(make_host: MakeHost) -> None:
    host = make_host()
    prepare(host)
    for path in host.state_dir.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


def test_a_controller_without_resources_is_told_how_it_gets_those_it_needs_to_go_online(make_host: MakeHost) -> None:
    host = make_host()
    with open_primary(host, PF, change=True) as pf:
        sriov.enable_sriov(pf, 1, confirm=agree)
        with pytest.raises(NotReadyError) as met:
            secondaries.online(pf, 0x42, confirm=agree)
        assert met.value.fix == "nvmelm secondary assign nvme0 0x0042 --vq 2 --vi 1"
        assert met.value.cause == "it has 0 VQ and 0 VI resources, and needs 2 VQ and 1 VI"
        assert met.value.reason == "no-resources"
        secondaries.assign(pf, 0x42, vq=3, vi=None, confirm=agree)
        with pytest.raises(NotReadyError) as met:
            secondaries.online(pf, 0x42, confirm=agree)
        assert met.value.fix == "nvmelm secondary assign nvme0 0x0042 --vi 1"
        secondaries.assign(pf, 0x42, vq=None, vi=1, confirm=agree)
        assert secondaries.online(pf, 0x42, confirm=agree).changed


def test_a_controller_for_which_no_resources_are_left_is_told_so(make_host: MakeHost) -> None:
    host = make_host()
    prepare(host, 8)  # 8 of 64 each
    with open_primary(host, PF, change=True) as pf, pytest.raises(NotSupportedError) as met:
        secondaries.online(pf, 0x4A, confirm=agree)
    assert met.value.reason == "no-resources"
    assert met.value.fix == "free resources of others: nvmelm secondary offline nvme0 CNTLID"


def test_a_release_shows_no_mark_that_it_removed(make_host: MakeHost) -> None:
    host = make_host()
    prepare(host, valid_s=3600)
    expire(host, 0x42)
    with open_primary(host, PF, change=True) as pf:
        report = undo_all.release(pf, confirm=agree)
    assert report.picture is not None
    assert [secondary.mark for secondary in report.picture.secondaries] == [None] * len(report.picture.secondaries)
    assert report.picture == look(host)


def test_a_release_that_finds_only_an_old_mark_says_that_it_removed_it(make_host: MakeHost) -> None:
    host = make_host()
    prepare(host, valid_s=3600)
    host.reboot()
    assert look(host).secondaries[0].mark is not None
    with open_primary(host, PF, change=True) as pf:
        report = undo_all.release(pf, confirm=agree)
    assert (report.actions, report.changed) == ((), True)
    assert report.notes == ("marks that no longer held are gone: 0x0042, 0x0043",)
    assert report.picture == look(host)
    assert not release(host)


def expire(host: EmulatedHost, cntlid: int) -> None:
    """Let the time of a mark be over."""
    path = host.state_dir / "marks" / PF / f"{cntlid:#06x}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"expires_at": "2020-01-01T00:00:00+00:00"}))


def test_an_end_asked_for_a_mark_that_is_there_is_given_to_it(make_host: MakeHost) -> None:
    host = make_host()
    prepare(host, vfs=2)
    with open_primary(host, PF, change=True) as pf:
        done = allow.allow(pf, [0x42], Role.MIGRATABLE, valid_s=3600, confirm=agree)
        assert (done.changed, len(done.actions)) == (True, 1)
        assert "for 3600 s" in done.actions[0].summary
        first, second = (secondary.mark for secondary in look(host).secondaries[:2])
        assert first is not None
        assert second is not None
        assert (first.valid_s, second.expires_at) == (3600, None)
        again = allow.allow(pf, [0x42], Role.MIGRATABLE, valid_s=3600, confirm=agree)
        assert (again.changed, again.actions) == (False, ())
        assert f"it ends at {first.expires_at}" in again.notes[0]
        assert allow.allow(pf, [0x42], Role.MIGRATABLE, valid_s=60, confirm=agree).changed
        kept = allow.allow(pf, [0x42], Role.MIGRATABLE, confirm=agree)
        assert not kept.changed
        assert "stays as it was given" in kept.notes[0]


@pytest.mark.parametrize("role", [Role.MIGRATABLE, Role.RESUMABLE])
def test_a_preparation_that_is_there_gets_the_end_it_is_asked_for(make_host: MakeHost, role: Role) -> None:
    host = make_host()
    with open_primary(host, PF, change=True) as pf:
        sequence.prepare(pf, role, 2, confirm=agree)
        planned = sequence.prepare(pf, role, 2, valid_s=90, confirm=agree, dry_run=True)
        done = sequence.prepare(pf, role, 2, valid_s=90, confirm=agree)
        assert [action.summary for action in planned.actions] == [action.summary for action in done.actions]
        assert {action.step for action in done.actions} == {"mark"}
        assert not sequence.prepare(pf, role, 2, valid_s=90, confirm=agree).changed
    assert [secondary.mark.valid_s for secondary in look(host).secondaries[:2] if secondary.mark] == [90, 90]


def test_an_end_that_could_not_be_given_is_put_back(make_host: MakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    host = make_host()
    prepare(host, vfs=2)
    with open_primary(host, PF, change=True) as pf:
        real, given = marks.give, []

        def once(*words: Any, **values: Any) -> None:
            given.append(words)
            if len(given) == 2:
                raise HostError("the disk is full")
            real(*words, **values)

        monkeypatch.setattr(marks, "give", once)
        with pytest.raises(RolledBackError):
            allow.allow(pf, [0x42, 0x43], Role.MIGRATABLE, valid_s=60, confirm=agree)
    assert [secondary.mark.valid_s for secondary in look(host).secondaries[:2] if secondary.mark] == [None, None]
    with open_primary(host, PF, change=True) as pf:
        undo_all.release(pf, confirm=agree)
    assert not any(secondary.mark for secondary in look(host).secondaries)


@pytest.mark.parametrize("how", [shutil.rmtree, lambda locks: (locks / f"{PF}.lock").unlink()])
@pytest.mark.parametrize("number", range(4))
def test_a_verb_goes_no_further_once_its_lock_was_removed(
    make_host: MakeHost, monkeypatch: pytest.MonkeyPatch, how: Callable[[Path], None], number: int
) -> None:
    host = make_host()
    before = cells(host)
    phase = Executor.phase
    phases: list[Phase] = []

    def phased(executor: Executor, name: Phase, actions: list[Action]) -> None:
        phase(executor, name, actions)
        phases.append(name)
        if len(phases) == number + 1:
            how(host.state_dir / "locks")

    with monkeypatch.context() as patch, pytest.raises(NvmelmError) as met:
        patch.setattr(Executor, "phase", phased)
        prepare(host)
    assert (met.value.reason, met.value.rolled_back) == ("records-replaced", True)
    assert cells(host) == before
    prepare(host)  # nobody holds the one that was removed any more


def test_an_undo_goes_no_further_once_its_lock_was_removed(
    make_host: MakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = make_host()
    prepare(host)
    phase = Executor.phase
    phases: list[Phase] = []

    def phased(executor: Executor, name: Phase, actions: list[Action]) -> None:
        phase(executor, name, actions)
        phases.append(name)
        shutil.rmtree(host.state_dir / "locks", ignore_errors=True)

    before = cells(host)
    with monkeypatch.context() as patch, pytest.raises(NvmelmError) as met:
        patch.setattr(Executor, "phase", phased)
        release(host)
    assert (met.value.reason, met.value.rolled_back) == ("records-replaced", True)
    assert {**cells(host), **{name: before[name] for name in before if "mark" in name}} == before
    assert release(host)  # the journal still knows what was there
