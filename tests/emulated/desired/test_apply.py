"""Desired state on an emulated host: reached once, kept, reached again after a reboot, and one failure stays one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import nvmelm
from nvmelm.desired.config import parse
from nvmelm.desired.converge import reach
from nvmelm.emulator.host import EmulatedHost, create
from nvmelm.emulator.kernel.sysfs import EmulatedSysfs
from nvmelm.errors import InterruptedByUserError, UsageError
from nvmelm.inventory.opened import open_primary
from nvmelm.prepare.cells import cells_of, written_cells
from nvmelm.prepare.recover import recover
from tests.emulated.answers import agree
from tests.emulated.conftest import MakeHost

NVMELM = str(Path(sys.executable).with_name("nvmelm"))
SHARE = Path(nvmelm.__file__).parent / "share"
SCHEMA = Path(__file__).parents[3] / "docs" / "schemas" / "nvmelm.apply.json"
PF, OTHER = "0000:01:00.0", "0000:02:00.0"
ONE = f"[[pf]]\naddress = '{PF}'\nvfs = 2\nrole = 'destination'\nvq = 2\nvi = 1\n"


def cells(host: EmulatedHost, pf: str = PF) -> dict[str, Any]:
    with open_primary(host, pf) as primary:
        return written_cells(cells_of(primary.picture()))


def test_a_host_is_brought_to_its_configuration_once(make_host: MakeHost) -> None:
    host = make_host()
    wanted = parse("f", ONE)
    planned = reach(host, wanted, confirm=agree, dry_run=True)
    assert [applied.outcome for applied in planned.entries] == ["planned"]
    assert cells(host)["vfs"] == 0
    assert reach(host, wanted, confirm=agree).changed
    reached = cells(host)
    assert (reached["vfs"], reached["0x0042/mark"], reached["0x0043/driver"]) == (2, "resumable", "vfio-pci")
    again = reach(host, wanted, confirm=agree)
    assert (again.changed, [entry.outcome for entry in again.entries]) == (False, ["unchanged"])
    host.reboot()
    assert cells(host)["vfs"] == 0
    assert reach(host, wanted, confirm=agree).changed
    assert cells(host) == reached


def test_one_that_fails_or_is_absent_does_not_stop_the_others(make_host: MakeHost) -> None:
    host = make_host("nvme-2.1", "nvme-2.1", serials=["A", "B"])
    text = f"{ONE.replace('vfs = 2', 'vfs = 999')}[[pf]]\nserial = 'none'\nvfs = 1\n[[pf]]\nserial = 'B'\nvfs = 1\n"
    report = reach(host, parse("f", text), confirm=agree)
    assert [applied.outcome for applied in report.entries] == ["failed", "absent", "done"]
    assert report.code == 2
    assert cells(host, OTHER)["vfs"] == 1


def test_ctrl_c_ends_all_of_it_and_puts_back_what_was_begun(
    make_host: MakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = make_host("nvme-2.1", "nvme-2.1", serials=["A", "B"])

    def pressed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("nvmelm.prepare.executor.marks.give", pressed)
    text = f"{ONE}[[pf]]\nserial = 'B'\nvfs = 1\n"
    with pytest.raises(InterruptedByUserError):
        reach(host, parse("f", text), confirm=agree)
    assert (cells(host)["vfs"], cells(host, OTHER)["vfs"]) == (0, 0)


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
    assert [applied.outcome for applied in report.entries] == ["left-alone"]
    assert who in report.entries[0].message
    assert cells(host)["vfs"] == 0


def test_a_run_that_was_killed_is_recovered_and_applied_again(make_host: MakeHost) -> None:
    from nvmelm.emulator.machine.faults import EmulatedCrash

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
    document = json.loads(done.stdout)
    jsonschema.validate(document, json.loads(SCHEMA.read_text()))
    assert document["changed"]
    assert "nothing to do" in run().stdout
    assert json.loads(run("--json", "--pf", "nvme0").stdout)["changed"] is False
    (tmp_path / "nvmelm.toml").write_text("[[pf]]\nserial = 'A'\nvfz = 1\n")
    refused = run()
    assert refused.returncode == 2
    assert "nvmelm.toml:3: vfz is unknown; meant is vfs?" in refused.stderr


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
def test_the_units_are_ones_that_systemd_understands(tmp_path: Path) -> None:
    for source, name in (("nvmelm-apply@.service", "nvmelm-apply@nvme0.service"), ("nvmelm-boot.service",) * 2):
        unit = tmp_path / name
        unit.write_text((SHARE / "systemd" / source).read_text())
        done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60)
        assert "nvmelm-" not in done.stderr.replace(str(unit), ""), done.stderr


def test_both_units_come_before_the_same_vm_managers() -> None:
    texts = [(SHARE / "systemd" / f"nvmelm-{name}.service").read_text() for name in ("apply@", "boot")]
    before = [[line for line in text.splitlines() if line.startswith("Before=")] for text in texts]
    assert before[0] == before[1] == ["Before=libvirtd.service virtqemud.service virtnodedevd.service"]


def test_the_rule_asks_systemd_and_does_nothing_itself() -> None:
    lines = (SHARE / "udev" / "90-nvmelm.rules").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert not [line for line in rules if any(word in line for word in ("RUN", "PROGRAM", "IMPORT", "ATTR{"))]
    assert 'TEST!="device/sriov_totalvfs", GOTO="nvmelm_end"' in rules
    # A controller's reset is a "change"; a unit that failed by one must not be started by it.
    assert [line for line in rules if "SYSTEMD_WANTS" in line and not line.startswith('ACTION=="add", ')] == []
    assert 'TAG+="systemd"' in rules


def test_a_controller_that_the_driver_still_sets_up_is_waited_for(
    tmp_path: Path, typed: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, states = EmulatedSysfs.read, ["new", "connecting"]

    def read(self: EmulatedSysfs, path: str) -> str:
        if path == "class/nvme/nvme0/state" and states:
            return states.pop(0)
        return "" if path == "class/nvme/nvme0/serial" and states else real(self, path)

    monkeypatch.setattr(EmulatedSysfs, "read", read)
    (tmp_path / "nvmelm.toml").write_text("[[pf]]\nserial = 'A'\nvfs = 2\n")
    code, out, _ = typed("apply", "--config", str(tmp_path), "--pf", "nvme0", "--json")
    assert (code, states, json.loads(out)["changed"]) == (0, [], True)


def test_a_controller_that_is_never_set_up_is_said_to_be_so(
    tmp_path: Path, typed: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = EmulatedSysfs.read
    monkeypatch.setattr(EmulatedSysfs, "read", lambda self, path: "new" if path.endswith("state") else real(self, path))
    monkeypatch.setattr("nvmelm.desired.converge._READY_DEADLINE_S", 0.0)
    (tmp_path / "nvmelm.toml").write_text("[[pf]]\nserial = 'A'\nvfs = 2\n")
    code, _, err = typed("apply", "--config", str(tmp_path), "--pf", "nvme0")
    assert code == 7
    assert "the driver to set nvme0 up" in err


def test_a_failed_entry_says_why_what_to_type_and_its_reason(make_host: MakeHost) -> None:
    host = make_host()
    report = reach(host, parse("f", ONE.replace("vq = 2", "vq = 99")), confirm=agree)
    (applied,) = report.entries
    assert applied.message == "99 VQ resources for 2 functions do not fit"
    assert applied.cause.startswith("each needs 2 and may have 8")
    assert applied.fix.startswith("--vq 8 fits")
    (absent,) = reach(host, parse("f", "[[pf]]\nserial = 'none'\nvfs = 1\n"), confirm=agree).entries
    assert absent.message == "no controlling function has the serial none"
    assert absent.cause.startswith("f:1 names it")
    assert absent.fix.startswith("nvmelm list")


def test_what_went_wrong_besides_stays_with_the_entry(make_host: MakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    from nvmelm.errors import UncertainError
    from nvmelm.prepare import sequence

    def fail(*_: object, **__: object) -> None:
        error = UncertainError("it failed", cause="why", fix="nvmelm recover", reason="session-uncertain")
        error.add_note("while putting it back: it broke")
        raise error

    monkeypatch.setattr(sequence, "prepare", fail)
    (applied,) = reach(make_host(), parse("f", ONE), confirm=agree).entries
    assert (applied.cause, applied.fix, applied.reason, applied.exit_code) == (
        "why",
        "nvmelm recover",
        "session-uncertain",
        9,
    )
    assert applied.notes == ("while putting it back: it broke",)


def test_an_address_may_leave_domain_0_out(make_host: MakeHost) -> None:
    report = reach(make_host(), parse("f", ONE.replace(PF, "01:00.0")), confirm=agree, dry_run=True)
    assert [applied.outcome for applied in report.entries] == ["planned"]


@pytest.fixture
def typed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    """Run apply in this process on an emulated host, without a terminal."""
    from nvmelm import cli

    create(tmp_path / "host", serials=["A"]).close()
    monkeypatch.delenv("NVMELM_CONFIG", raising=False)

    def run(*words: str) -> tuple[int, str, str]:
        code = cli.main(["--host", f"emulated:{tmp_path / 'host'}", *words])
        return code, *capsys.readouterr()

    return run


def test_without_a_terminal_the_entry_that_needs_a_yes_names_it(
    tmp_path: Path, typed: Callable[..., tuple[int, str, str]]
) -> None:
    (tmp_path / "nvmelm.toml").write_text("[[pf]]\nserial = 'A'\nvfs = 2\nrole = 'unmarked'\n")
    assert typed("source", "prepare", "nvme0", "--vfs", "1")[0] == 0
    code, out, _ = typed("apply", "--config", str(tmp_path))
    assert code == 10
    assert "not confirmed" in out
    assert "  fix:   pass --yes when that is meant" in out.splitlines()
    code, out, _ = typed("apply", "--config", str(tmp_path), "--json")
    document = json.loads(out)
    jsonschema.validate(document, json.loads(SCHEMA.read_text()))
    (entry,) = document["entries"]
    assert entry["message"].startswith("not confirmed: 0000:01:00.1 will be removed")
    assert (entry["fix"], entry["reason"], entry["exit_code"], code) == (
        "pass --yes when that is meant",
        "confirmation",
        10,
        10,
    )
    assert "nobody can be asked" in entry["cause"]
    assert typed("apply", "--config", str(tmp_path), "--yes")[0] == 0


def test_a_fix_for_an_entry_names_its_own_function(
    tmp_path: Path, typed: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from nvmelm.errors import NvmelmError
    from nvmelm.prepare import sequence

    def fail(*_: object, **__: object) -> None:
        raise NvmelmError("the host does not show what was done", fix="nvmelm show PF, and dmesg")

    monkeypatch.setattr(sequence, "prepare", fail)
    (tmp_path / "nvmelm.toml").write_text("[[pf]]\nserial = 'A'\nvfs = 2\n")
    assert f"  fix:   nvmelm show {PF}, and dmesg" in typed("apply", "--config", str(tmp_path))[1].splitlines()


def test_the_directory_that_was_looked_in_is_the_one_named(
    tmp_path: Path, typed: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.setenv("NVMELM_CONFIG", str(empty))
    code, _, err = typed("apply")
    assert code == 2
    assert f"is in {empty}\n" in err
    assert "/etc" not in err


def test_a_kernel_name_as_an_address_is_refused(tmp_path: Path, typed: Callable[..., tuple[int, str, str]]) -> None:
    (tmp_path / "nvmelm.toml").write_text("[[pf]]\nvfs = 1\naddress = 'nvme0'\n")
    code, _, err = typed("apply", "--config", str(tmp_path))
    assert code == 2
    assert f"{tmp_path / 'nvmelm.toml'}:3: address is no PCI address: 'nvme0'" in err


def test_a_name_that_several_functions_bear_touches_none_of_them(make_host: MakeHost) -> None:
    host = make_host("nvme-2.1", "nvme-2.1", serials=["SAME", "SAME"])
    before = cells(host), cells(host, OTHER)
    (entry,) = reach(host, parse("f", "[[pf]]\nserial = 'SAME'\nvfs = 1\n"), confirm=agree).entries
    assert (entry.outcome, entry.exit_code, entry.reason) == ("failed", 2, "config")
    assert PF in entry.cause
    assert OTHER in entry.cause
    assert entry.fix == f'in f:1, say which: address = "{PF}"'
    assert (cells(host), cells(host, OTHER)) == before


def test_an_ambiguous_entry_does_not_stop_one_that_is_not(make_host: MakeHost) -> None:
    host = make_host("nvme-2.1", "nvme-2.1", serials=["SAME", "SAME"])
    text = f"[[pf]]\nserial = 'SAME'\nvfs = 1\n[[pf]]\naddress = '{OTHER}'\nvfs = 2\n"
    report = reach(host, parse("f", text), confirm=agree)
    assert [applied.outcome for applied in report.entries] == ["failed", "done"]
    assert (cells(host)["vfs"], cells(host, OTHER)["vfs"]) == (0, 2)
    assert report.code == 2
