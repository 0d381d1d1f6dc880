"""Desired state on an emulated host: reached once, kept, reached again after a reboot, and one failure stays one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import nvmelm
from nvmelm.desired.config import parse
from nvmelm.desired.reach import reach
from nvmelm.emulator.host import EmulatedHost, create
from nvmelm.errors import UsageError
from nvmelm.operations.plan import cells_of
from nvmelm.operations.recover import recover
from nvmelm.operations.session import session
from tests.emulated.conftest import MakeHost, agree

NVMELM = str(Path(sys.executable).with_name("nvmelm"))
SHARE = Path(nvmelm.__file__).parent / "share"
SCHEMA = Path(__file__).parents[2] / "docs" / "schemas" / "nvmelm.apply.json"
PF, OTHER = "0000:01:00.0", "0000:02:00.0"
ONE = f"[[pf]]\naddress = '{PF}'\nvfs = 2\nrole = 'destination'\nvq = 2\nvi = 1\n"


def cells(host: EmulatedHost, pf: str = PF) -> dict[str, Any]:
    with session(host, pf) as opened:
        return cells_of(opened.picture())


def test_a_host_is_brought_to_its_configuration_once(make_host: MakeHost) -> None:
    host = make_host()
    wanted = parse("f", ONE)
    planned = reach(host, wanted, confirm=agree, dry_run=True)
    assert [one.outcome for one in planned.entries] == ["planned"]
    assert cells(host)["vfs"] == 0
    assert reach(host, wanted, confirm=agree).changed
    reached = cells(host)
    assert (reached["vfs"], reached["0x0042/mark"], reached["0x0043/driver"]) == (2, "resumable", "vfio-pci")
    again = reach(host, wanted, confirm=agree)
    assert (again.changed, [one.outcome for one in again.entries]) == (False, ["unchanged"])
    host.reboot()
    assert cells(host)["vfs"] == 0
    assert reach(host, wanted, confirm=agree).changed
    assert cells(host) == reached


def test_one_that_fails_or_is_absent_does_not_stop_the_others(make_host: MakeHost) -> None:
    host = make_host("nvme-2.1", "nvme-2.1", serials=["A", "B"])
    text = f"{ONE.replace('vfs = 2', 'vfs = 999')}[[pf]]\nserial = 'none'\nvfs = 1\n[[pf]]\nserial = 'B'\nvfs = 1\n"
    report = reach(host, parse("f", text), confirm=agree)
    assert [one.outcome for one in report.entries] == ["failed", "absent", "done"]
    assert report.code == 2
    assert cells(host, OTHER)["vfs"] == 1


def test_a_function_named_in_two_ways_is_refused(make_host: MakeHost) -> None:
    host = make_host("nvme-2.1", serials=["A"])
    with pytest.raises(UsageError, match="stands twice"):
        reach(host, parse("f", f"{ONE}[[pf]]\nserial = 'A'\nvfs = 1\n"), confirm=agree)
    assert cells(host)["vfs"] == 0


@pytest.mark.parametrize(
    ("path", "text", "who"),
    [
        ("etc/driverctl.d/pci-0000:01:00.1", "vfio-pci\n", "driverctl has an override for 0000:01:00.1"),
        (
            "etc/libvirt/qemu/guest.xml",
            (
                "<domain><devices><hostdev mode='subsystem' type='pci' managed='yes'><source><address domain='0x0000' "
                "bus='0x01' slot='0x00' function='0x1'/></source></hostdev></devices></domain>"
            ),
            "libvirt has the domain guest, which manages 0000:01:00.1",
        ),
    ],
)
def test_what_another_manager_binds_is_left_to_it(make_host: MakeHost, path: str, text: str, who: str) -> None:
    host = make_host()
    place = host.state_dir.parent / "root" / path
    place.parent.mkdir(parents=True)
    place.write_text(text)
    report = reach(host, parse("f", ONE), confirm=agree)
    assert [one.outcome for one in report.entries] == ["left-alone"]
    assert who in report.entries[0].message
    assert cells(host)["vfs"] == 0


def test_a_run_that_was_killed_is_recovered_and_applied_again(make_host: MakeHost) -> None:
    from nvmelm.emulator.faults import EmulatedCrash

    host = make_host()
    host.arm("admin/0x1c#3=raise-after")
    with pytest.raises(EmulatedCrash):
        reach(host, parse("f", ONE), confirm=agree)
    recover(host, confirm=agree)
    assert cells(host)["vfs"] == 0
    assert reach(host, parse("f", ONE), confirm=agree).changed


def test_the_verb_reads_its_directory_and_prints_a_document(tmp_path: Path) -> None:
    create(tmp_path / "host", serials=["A"]).close()
    (tmp_path / "nvmelm.toml").write_text("[[pf]]\nserial = 'A'\nvfs = 1\nrole = 'source'\n")

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        words = [NVMELM, "--host", f"emulated:{tmp_path / 'host'}", "apply", "--config", str(tmp_path), *more]
        return subprocess.run(words, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)

    done = run("--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    jsonschema.validate(told, json.loads(SCHEMA.read_text()))
    assert told["changed"]
    assert "nothing to do" in run().stdout
    assert json.loads(run("--json", "--pf", "nvme0").stdout)["changed"] is False
    (tmp_path / "nvmelm.toml").write_text("[[pf]]\nserial = 'A'\nvfz = 1\n")
    refused = run()
    assert refused.returncode == 2
    assert "nvmelm.toml:3: vfz is unknown; meant is vfs?" in refused.stderr


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
def test_the_unit_is_one_that_systemd_understands(tmp_path: Path) -> None:
    unit = tmp_path / "nvmelm-apply@nvme0.service"
    unit.write_text((SHARE / "systemd" / "nvmelm-apply@.service").read_text())
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60)
    assert "nvmelm-apply" not in done.stderr.replace(str(unit), ""), done.stderr


def test_the_rule_asks_systemd_and_does_nothing_itself() -> None:
    rules = [
        line
        for line in (SHARE / "udev" / "90-nvmelm.rules").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert len(rules) == 1
    assert "RUN" not in rules[0]
    assert "PROGRAM" not in rules[0]
    assert 'TEST=="device/sriov_totalvfs"' in rules[0]
