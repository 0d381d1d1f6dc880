"""One controller that does not answer hides neither the others nor what the host itself has to say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nvmelm import cli
from nvmelm.desired.config import DesiredPrimary
from nvmelm.desired.converge import reach
from nvmelm.emulator.host import EmulatedHost, create
from nvmelm.emulator.kernel.sysfs import EmulatedSysfs
from nvmelm.emulator.machine.generations import NVME_2_1
from nvmelm.errors import host_error
from nvmelm.inventory.find import find_primary
from nvmelm.inventory.opened import open_primary
from nvmelm.prepare import check

#: What is asked of the second of three controllers, and what the verb then ends with.
FAULTS = {"errno:ENODEV": 1, "lose": 7, "status:0x4006": 6, "vanish": 1}


@pytest.fixture
def host(tmp_path: Path) -> EmulatedHost:
    return create(tmp_path / "host", [NVME_2_1] * 3, serials=["A", "B", "C"])


@pytest.mark.parametrize("fault", FAULTS)
def test_list_has_a_row_for_each_and_the_exit_code_of_the_first_failure(
    fault: str, host: EmulatedHost, capsys: Any
) -> None:
    host.arm(f"admin/0x06#2={fault}")
    code = cli.main(["--host", host.name, "list", "--json"])
    rows = json.loads(capsys.readouterr().out)["primaries"]
    assert [row["node"] for row in rows] == ["nvme0", "nvme1", "nvme2"]
    assert [row["live_migration"] for row in rows] == [True, None, True]
    assert [bool(row["problem"]) for row in rows] == [False, True, False]
    assert code == rows[1]["exit_code"] == FAULTS[fault]


def test_the_table_says_which_does_not_answer(host: EmulatedHost, capsys: Any) -> None:
    host.arm("admin/0x06#2=errno:ENODEV")
    assert cli.main(["--host", host.name, "list"]) == 1
    out = capsys.readouterr().out
    assert "nvme1 does not answer" in out
    assert "only root may ask" not in out


@pytest.mark.parametrize("number", range(1, 12))
def test_host_check_says_all_it_can_whichever_command_fails(number: int, host: EmulatedHost) -> None:
    host.arm(f"admin#{number}=errno:ENODEV")
    findings = check.check(host).findings
    assert findings[0].code == "iommu"
    assert (
        sum(finding.code == "live-migration" for finding in findings)
        + sum(finding.code == "pf-silent" for finding in findings)
        >= 3
    )
    assert [finding.level for finding in findings if finding.code == "pf-silent"] == ["problem"]


def vanishing(monkeypatch: pytest.MonkeyPatch, node: str) -> None:
    """Let a controller go while its attributes are read."""
    read = EmulatedSysfs.read

    def gone(sysfs: EmulatedSysfs, path: str) -> str:
        if path.startswith(f"class/nvme/{node}/"):
            raise host_error("cannot read", path, OSError(19, "No such device"))
        return read(sysfs, path)

    monkeypatch.setattr(EmulatedSysfs, "read", gone)


def test_one_that_vanishes_does_not_keep_another_from_being_found(
    host: EmulatedHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    vanishing(monkeypatch, "nvme0")
    assert find_primary(host, "C").node == "nvme2"
    assert [finding.code for finding in check.check(host, "nvme1").findings].count("live-migration") == 1


def test_one_that_vanishes_does_not_keep_another_from_its_configuration(
    host: EmulatedHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    vanishing(monkeypatch, "nvme0")
    rest = {"by": "serial", "role": "source", "vfs": 1, "vq": None, "vi": None, "expires_s": None}
    wanted = [DesiredPrimary(place=f"file:{name}", name=name, **rest) for name in ("A", "C")]
    entries = reach(host, wanted, confirm=lambda _: None).entries
    assert [entry.outcome for entry in entries] == ["absent", "done"]


OPTIONAL = {"effects log": "admin/0x02*9", "primary capabilities": "admin/0x06/0x14*9", "formats": "admin/0x06/0x20*9"}


@pytest.mark.parametrize("status", [0x4001, 0x4002, 0x4109])
@pytest.mark.parametrize("what", OPTIONAL)
def test_what_a_controller_may_do_without_is_not_asked_for_in_vain(what: str, status: int, tmp_path: Path) -> None:
    """OACS without Virtualization Management leaves it to the effects log whether there are secondaries."""
    oacs = 0x0808 if what == "effects log" else NVME_2_1.oacs
    host = create(tmp_path / "host", [NVME_2_1.with_(oacs=oacs)])
    host.arm(f"{OPTIONAL[what]}=status:{status:#x}")
    with open_primary(host, "nvme0") as pf:
        picture = pf.picture(states=True)
    assert (picture.primary.vq is None) is (what != "formats")
    assert (picture.primary.state_formats is None) is (what == "formats")
    assert {finding.code for finding in check.check(host).findings} >= {"secondaries", "sriov"}


@pytest.mark.parametrize("what", OPTIONAL)
def test_an_error_of_another_kind_is_no_answer(what: str, tmp_path: Path, capsys: Any) -> None:
    oacs = 0x0808 if what == "effects log" else NVME_2_1.oacs
    host = create(tmp_path / "host", [NVME_2_1.with_(oacs=oacs)])
    host.arm(f"{OPTIONAL[what]}=status:0x4006")
    assert cli.main(["--host", host.name, "show", "nvme0"]) == 6


@pytest.mark.parametrize("verb", ["sriov enable nvme0 --vfs 1 --yes", "source prepare nvme0 --vfs 1 --yes"])
def test_a_controller_without_secondaries_is_told_so(verb: str, tmp_path: Path, capsys: Any) -> None:
    host = create(tmp_path / "host", [NVME_2_1.with_(oacs=0x0008, hmlms=False)])
    host.arm("admin/0x02*9=status:0x4109")
    assert cli.main(["--host", host.name, *verb.split()]) == 3
    assert "Virtualization Management" in capsys.readouterr().err
