"""``host check``: every symptom has a finding, and every finding that is not ok has a fix."""

from __future__ import annotations

import json

import pytest

from nvmelm import cli
from nvmelm.emulator.host import EmulatedHost
from nvmelm.emulator.machine.generations import NVME_2_1
from nvmelm.inventory.opened import open_primary
from nvmelm.inventory.picture import Role
from nvmelm.ownership.sessions import Sessions
from nvmelm.prepare import secondaries, sequence, sriov
from nvmelm.prepare.check import check
from nvmelm.prepare.journal import Journal
from tests.emulated.answers import agree
from tests.emulated.conftest import MakeHost
from tests.emulated.migrate.test_ownership import record

PF = "0000:01:00.0"


def levels(host: EmulatedHost) -> dict[str, str]:
    """Return the worst level of each finding, and hold each to its fix."""
    report = check(host)
    assert all(finding.fix for finding in report.findings if finding.level != "ok")
    assert report.ready == all(finding.level != "problem" for finding in report.findings)
    order = ["ok", "warning", "problem"]
    worst: dict[str, str] = {}
    for finding in report.findings:
        worst[finding.code] = max(worst.get(finding.code, "ok"), finding.level, key=order.index)
    return worst


def prepared(host: EmulatedHost) -> EmulatedHost:
    with open_primary(host, PF, change=True) as pf:
        sequence.prepare(pf, Role.MIGRATABLE, 2, confirm=agree)
    return host


def test_a_capable_host_is_ready_before_and_after_it_is_prepared(make_host: MakeHost) -> None:
    host = make_host()
    assert check(host).ready
    assert check(prepared(host)).ready


@pytest.mark.parametrize(
    ("options", "code"),
    [
        pytest.param({"iommu": False}, "iommu", id="iommu-off"),
        pytest.param({"interrupt_remapping": False}, "interrupt-remapping", id="no-interrupt-remapping"),
        pytest.param({"privileged": False}, "root", id="not-root"),
    ],
)
def test_a_host_that_cannot_do_it_says_why(make_host: MakeHost, options: dict[str, bool], code: str) -> None:
    assert levels(make_host(options=options))[code] == "problem"


@pytest.mark.parametrize(
    ("release", "level"), [("5.10.0-28-amd64", "warning"), ("5.14.0-1.el9", None), ("6.1.0", None)]
)
def test_a_kernel_that_hands_no_calls_over_is_told_and_is_no_problem(
    make_host: MakeHost, release: str, level: str | None
) -> None:
    host = make_host(options={"kernel_release": release})
    assert levels(host).get("vm-migration") == level
    assert check(host).ready


def test_a_controller_without_live_migration_is_a_problem_with_a_way_on(make_host: MakeHost) -> None:
    assert levels(make_host("stock-qemu-7.2"))["live-migration"] == "problem"


def test_a_pf_that_was_reset_is_found_although_sysfs_looks_unchanged(make_host: MakeHost) -> None:
    host = prepared(make_host())
    host.reset_primary(PF)
    findings = levels(host)
    assert findings["pf-was-reset"] == "problem"
    assert findings["mark"] == "warning"


def test_vfs_whose_pf_lost_its_driver_are_found(make_host: MakeHost) -> None:
    host = prepared(make_host())
    host.sysfs.write(f"bus/pci/devices/{PF}/driver/unbind", PF)
    assert levels(host)["orphaned-vfs"] == "problem"


def test_autoprobe_that_somebody_else_switched_off_is_told(make_host: MakeHost) -> None:
    host = make_host()
    host.sysfs.write(f"bus/pci/devices/{PF}/sriov_drivers_autoprobe", "0")
    assert levels(host)["autoprobe"] == "warning"


def test_a_vf_the_kernel_drives_is_told(make_host: MakeHost) -> None:
    host = make_host()
    with open_primary(host, PF, change=True) as pf:
        sriov.enable_sriov(pf, 1, confirm=agree)
        secondaries.assign(pf, 66, vq=2, vi=1, confirm=agree)
        secondaries.online(pf, 66, confirm=agree)
    host.sysfs.write("bus/pci/devices/0000:01:00.1/driver_override", "nvme")
    host.sysfs.write("bus/pci/drivers_probe", "0000:01:00.1")
    assert levels(host)["vf-driver"] == "warning"


def test_what_was_begun_and_has_not_ended_is_named_with_what_ends_it(make_host: MakeHost) -> None:
    host = prepared(make_host())
    assert levels(host).keys().isdisjoint({"run-unfinished", "move-unfinished"})
    Journal(host, PF).begin("sriov enable", "S", {})
    with Sessions(host) as sessions:
        sessions.open(record(host))
    found = {finding.code: finding for finding in check(host).findings}
    assert "sriov enable on 0000:01:00.0" in found["run-unfinished"].message
    assert "nvmelm recover --finish" in found["run-unfinished"].fix
    assert (found["move-unfinished"].level, found["move-unfinished"].fix) == ("warning", "nvmelm recover")


def test_records_that_cannot_be_read_are_a_problem_of_the_host(make_host: MakeHost) -> None:
    host = prepared(make_host())
    with Sessions(host) as sessions:
        sessions.open(record(host))
    for file in host.state_dir.glob("sessions.db*"):
        file.unlink()
    journal = Journal(host, PF).path
    journal.write_text(f"x{journal.read_text()}")
    found = {finding.code: finding for finding in check(host).findings}
    assert "nvmelm recover --new-sessions" in found["sessions"].fix
    assert (found["sessions"].level, found["journal"].level) == ("problem", "problem")
    assert f"{journal}, line 1" in found["journal"].message


def test_status_names_the_runs_that_have_not_ended(make_host: MakeHost, capsys: pytest.CaptureFixture[str]) -> None:
    host = prepared(make_host())
    Journal(host, PF).begin("sriov enable", "S", {})
    assert cli.main(["--host", host.name, "status", "--json"]) == 0
    assert [run["verb"] for run in json.loads(capsys.readouterr().out)["runs_now"]] == ["sriov enable"]
    assert cli.main(["--host", host.name, "status"]) == 0
    shown = capsys.readouterr().out
    assert "sriov enable on 0000:01:00.0" in shown
    assert "nvmelm recover" in shown


@pytest.mark.parametrize("freezing", [0x41, 0x42])
def test_only_the_commands_that_stop_all_io_are_named_as_such(make_host: MakeHost, freezing: int) -> None:
    effects = dict(NVME_2_1.admin_effects) | {freezing: 0x1_0001}  # CSE 001b: no other command to the namespace
    names = {0x41: "MIGRATION_SEND", 0x42: "MIGRATION_RECEIVE"}
    host = make_host(NVME_2_1.with_(admin_effects=tuple(effects.items())))
    (text,) = [finding.message for finding in check(host).findings if "stops all I/O" in finding.message]
    assert [name in text for name in names.values()] == [opcode == freezing for opcode in names]
