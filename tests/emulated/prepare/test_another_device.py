"""What is remembered is looked up by place; a device that came into the place is none of it."""

from __future__ import annotations

import json
import shlex
import subprocess
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from nvmelm import cli
from nvmelm.emulator.host import EmulatedHost
from nvmelm.errors import UncertainError
from nvmelm.inventory import marks, suspension
from nvmelm.inventory.find import primaries
from nvmelm.inventory.opened import OpenPrimary, open_primary
from nvmelm.inventory.picture import Role
from nvmelm.prepare import release, sequence, sriov
from nvmelm.prepare.cells import VFS
from nvmelm.prepare.journal import Journal
from nvmelm.prepare.recover import recover
from nvmelm.state import verbs
from tests.emulated.answers import agree
from tests.emulated.conftest import MakeHost

PF, FIRST = "0000:01:00.0", 0x42
OLD = "SERIAL-OLD"


@pytest.fixture
def host(make_host: MakeHost) -> EmulatedHost:
    """Return a host with a prepared device, whose driver probed VFs by itself before and is not to now."""
    made = make_host(serials=[OLD])
    with opened(made) as pf:
        sequence.prepare(pf, Role.MIGRATABLE, 2, confirm=agree)
    return made


def opened(host: EmulatedHost) -> AbstractContextManager[OpenPrimary]:
    return open_primary(host, PF, change=True)


def swap(host: EmulatedHost, serial: str = "NEW") -> None:
    """Pull the device out and put another one of its kind into the slot."""
    host.remove(PF)
    with host.machine.change() as state:
        state["primaries"][PF]["serial"] = serial
        state["primaries"][PF]["autoprobe"] = False  # as its owner has it
    host.sysfs.write("bus/pci/rescan", "1")


def autoprobe(host: EmulatedHost) -> str:
    return host.sysfs.read(f"bus/pci/devices/{PF}/sriov_drivers_autoprobe")


def test_release_brings_nothing_of_another_device_back(host: EmulatedHost) -> None:
    swap(host)
    with opened(host) as pf:
        report = release.release(pf, confirm=agree)
    assert report.actions == ()
    assert autoprobe(host) == "0"
    assert [run.serial for run in Journal(host, PF).runs()] == [OLD]


def test_sriov_disable_and_vfio_unbind_bring_nothing_of_another_device_back(host: EmulatedHost) -> None:
    swap(host)
    with opened(host) as pf:
        sequence.prepare(pf, Role.MIGRATABLE, 1, unmarked=True, confirm=agree)
        sriov.disable_sriov(pf, confirm=agree)
    assert autoprobe(host) == "0"


def test_the_device_that_comes_back_is_released_as_it_was(host: EmulatedHost) -> None:
    swap(host)
    with opened(host) as pf:
        sequence.prepare(pf, Role.MIGRATABLE, 1, unmarked=True, confirm=agree)
        release.release(pf, confirm=agree)
    swap(host, OLD)
    with opened(host) as pf:
        release.release(pf, confirm=agree)
    assert autoprobe(host) == "1"
    assert Journal(host, PF).runs() == []


def test_an_interrupted_run_on_another_device_is_not_undone(host: EmulatedHost) -> None:
    Journal(host, PF, OLD).begin("sriov enable", OLD, {VFS: 4})
    swap(host)
    with opened(host) as pf:
        sequence.prepare(pf, Role.MIGRATABLE, 1, unmarked=True, confirm=agree)
    with pytest.raises(UncertainError, match="another device"):
        recover(host, confirm=agree)


def test_a_journal_of_another_device_keeps_no_other_pf_from_being_recovered(make_host: MakeHost) -> None:
    host = make_host("nvme-2.1", "nvme-2.1")
    first, second = (str(ref.address) for ref in primaries(host))
    with open_primary(host, second) as pf:
        serial = pf.ref.serial
    for address, device in ((first, OLD), (first, primaries(host)[0].serial), (second, serial)):
        Journal(host, address).begin("sriov enable", device, {VFS: 4})
    with pytest.raises(UncertainError, match="another device") as met:
        recover(host, confirm=agree)
    assert Journal(host, second).runs() == []
    assert [run.serial for run in Journal(host, first).unfinished()] == [OLD]
    assert any(second in note for note in met.value.__notes__)


def test_the_fix_removes_the_runs_of_the_old_device_alone(host: EmulatedHost) -> None:
    Journal(host, PF, OLD).begin("sriov enable", OLD, {VFS: 4})
    swap(host)
    with opened(host) as pf:
        sequence.prepare(pf, Role.MIGRATABLE, 1, unmarked=True, confirm=agree)
    with pytest.raises(UncertainError) as met:
        recover(host, confirm=agree)
    subprocess.run(shlex.split(met.value.fix.partition("for good: ")[2]), check=True)
    assert not recover(host, confirm=agree).unfinished
    assert [run.serial for run in Journal(host, PF).runs()] == [OLD, "NEW"]


def test_a_mark_rests_on_the_serial_number(host: EmulatedHost) -> None:
    with opened(host) as pf:
        facts = marks.facts_of(host, pf.picture(), pf.picture().secondaries[0])
    assert facts["serial"] == OLD
    with host.machine.change() as state:
        state["primaries"][PF]["serial"] = "NEW"
    with opened(host) as pf:
        mark = pf.picture().secondaries[0].mark
    assert mark is not None
    assert (mark.holds, mark.broken_by) == (False, ("the PF is another device",))


def test_a_saved_state_is_of_its_device_and_boot(host: EmulatedHost) -> None:
    def saved(pf: OpenPrimary) -> str:
        picture = pf.picture()
        return suspension.saved_at(pf.host, picture.primary, picture.secondaries[0])

    with opened(host) as pf:
        verbs.suspend(pf, FIRST, confirm=agree)
        verbs.save(pf, FIRST, host.state_dir.parent / "image")
        assert saved(pf)
    with host.machine.change() as state:
        before = state["boot_id"]
        state["boot_id"] = "another"
    with opened(host) as pf:
        assert saved(pf) == ""
    with host.machine.change() as state:
        state["boot_id"] = before
        state["primaries"][PF]["serial"] = "NEW"
    with opened(host) as pf:
        assert saved(pf) == ""


def test_a_mark_holds_in_a_redacted_recording(
    host: EmulatedHost, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where, file = f"emulated:{host.state_dir.parent}", str(tmp_path / "recording")
    assert cli.main(["--host", where, "--record", file, "--redact", "secondary", "list", PF]) == 0
    assert OLD not in Path(file).read_text()
    capsys.readouterr()
    assert cli.main(["--host", f"replay:{file}", "secondary", "list", PF, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["secondaries"][0]["mark"]["holds"]
