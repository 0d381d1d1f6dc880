"""Steps 1 to 4 by the command line on a real kernel, with nvme-cli as an independent witness, and all of it undone."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.lab import machine
from tests.lab.machine import Cli, Pf, Snapshot

VFS = 2


def prepared(pf: Pf) -> list[tuple[int, int, int, str, str]]:
    """Return state, VQ, VI, driver and override of each VF, none of it by the code under test."""
    rows = []
    for one, address in zip(pf.secondaries(), pf.vfs, strict=False):
        rows.append(
            (
                one["secondary-controller-state"],
                one["num-virtual-queues"],
                one["num-virtual-interrupts"],
                machine.driver_of(address),
                machine.override_of(address),
            )
        )
    return rows


def test_the_host_can_be_prepared_and_says_what_it_cannot_do(nvmelm: Cli, pf_a: Pf) -> None:
    check = nvmelm("host", "check", pf_a.address, "--json")
    codes = {finding["code"]: finding["level"] for finding in check.json["findings"]}
    assert codes["iommu"] == "ok"
    assert codes["sriov"] == "ok"
    assert "interrupt-remapping" not in codes
    if codes["live-migration"] == "problem":
        assert check.code == 3


def test_list_and_show_agree_with_nvme_cli(nvmelm: Cli, pf_a: Pf, clean_host: Snapshot) -> None:
    rows = nvmelm("list", "--json", check=True).json["primaries"]
    assert pf_a.address in [row["address"] for row in rows]
    shown = nvmelm("show", pf_a.serial, "--json", check=True).json
    listed = [
        (secondary["cntlid"], secondary["vf_number"], secondary["vq"], secondary["vi"])
        for secondary in shown["secondaries"]
    ]
    assert listed == [
        (
            secondary["secondary-controller-identifier"],
            secondary["virtual-function-number"],
            secondary["num-virtual-queues"],
            secondary["num-virtual-interrupts"],
        )
        for secondary in pf_a.secondaries()
    ]


def test_steps_1_to_4_one_by_one(nvmelm: Cli, pf_a: Pf, clean_host: Snapshot) -> None:
    nvmelm("sriov", "enable", pf_a.address, "--vfs", "1", check=True)
    assert pf_a.read("sriov_drivers_autoprobe") == "0"
    address = pf_a.vfs[0]
    cntlid = str(pf_a.secondaries()[0]["secondary-controller-identifier"])
    nvmelm("secondary", "assign", pf_a.address, cntlid, "--vq", "2", "--vi", "1", check=True)
    nvmelm("secondary", "online", pf_a.address, cntlid, check=True)
    nvmelm("vfio", "bind", address, "--unmarked", check=True)
    assert prepared(pf_a) == [(1, 2, 1, "vfio-pci", "vfio-pci")]
    assert Path(f"/dev/vfio/{machine.group_of(address)}").exists()
    again = nvmelm("vfio", "bind", address, "--unmarked", "--json", check=True)
    assert again.json["changed"] is False
    nvmelm("release", pf_a.address, "--yes", check=True)


@pytest.mark.parametrize("role", ["source", "destination"])
def test_a_preparation_is_done_once_and_released(nvmelm: Cli, pf_a: Pf, clean_host: Snapshot, role: str) -> None:
    words = (role, "prepare", pf_a.address, "--vfs", str(VFS), "--vq", "2", "--vi", "1", "--unmarked")
    planned = nvmelm(*words, "--dry-run", "--json", check=True)
    assert pf_a.vfs == []
    done = nvmelm(*words, "--json", check=True)
    assert done.json["changed"] is True
    assert [action["summary"] for action in done.json["actions"]] == [
        action["summary"] for action in planned.json["actions"]
    ]
    assert prepared(pf_a) == [(1, 2, 1, "vfio-pci", "vfio-pci")] * VFS
    assert nvmelm(*words, "--json", check=True).json["changed"] is False
    nvmelm("release", pf_a.address, "--yes", check=True)
    assert nvmelm("release", pf_a.address, "--json", check=True).json["changed"] is False


def test_what_the_kernel_drove_before_comes_back_to_it(nvmelm: Cli, pf_a: Pf, scratch_host: None) -> None:
    machine.put(pf_a.path / "sriov_drivers_autoprobe", "0")
    machine.put(pf_a.path / "sriov_numvfs", "1")
    cntlid = str(pf_a.secondaries()[0]["secondary-controller-identifier"])
    for words in (["-a", "8", "-r", "0", "-n", "2"], ["-a", "8", "-r", "1", "-n", "1"], ["-a", "9"]):
        subprocess.run(
            ["nvme", "virt-mgmt", f"/dev/{pf_a.node}", "-c", cntlid, *words], check=True, capture_output=True
        )
    machine.put(machine.PCI / "devices" / pf_a.vfs[0] / "driver_override", "nvme")
    machine.put(machine.PCI / "drivers_probe", pf_a.vfs[0])
    machine.put(machine.PCI / "devices" / pf_a.vfs[0] / "driver_override", "\n")
    machine.wait_for(lambda: machine.driver_of(pf_a.vfs[0]) == "nvme", "the nvme driver to take the VF")
    before = prepared(pf_a)
    nvmelm("vfio", "bind", pf_a.vfs[0], "--unmarked", "--yes", check=True)
    assert machine.driver_of(pf_a.vfs[0]) == "vfio-pci"
    nvmelm("release", pf_a.address, "--yes", check=True)
    assert prepared(pf_a) == before


def test_live_migration_is_refused_here_in_words(nvmelm: Cli, pf_a: Pf, clean_host: Snapshot) -> None:
    if nvmelm("show", pf_a.address, "--json", check=True).json["primary"]["live_migration"]:
        pytest.skip("this QEMU's nvme device has live migration")
    for words in (
        ("source", "prepare", pf_a.address, "--vfs", "1"),
        ("state", "save", pf_a.address, "1", "never"),
        ("state", "suspend", pf_a.address, "1", "--yes"),
        ("secondary", "allow-migration", pf_a.address, "1"),
    ):
        refused = nvmelm(*words)
        assert refused.code == 3, refused.stderr
        assert "Host Managed Live Migration" in refused.stderr
    assert not Path("never").exists()


def test_a_vf_that_a_process_holds_is_named_and_kept(nvmelm: Cli, pf_a: Pf, scratch_host: None) -> None:
    nvmelm("source", "prepare", pf_a.address, "--vfs", "1", "--unmarked", check=True)
    node = f"/dev/vfio/{machine.group_of(pf_a.vfs[0])}"
    with Path(node).open("rb+", buffering=0):
        refused = nvmelm("release", pf_a.address, "--json")
        assert refused.code == 5
        assert node in refused.json["cause"]
        assert len(pf_a.vfs) == 1
    nvmelm("release", pf_a.address, "--yes", check=True)


def test_a_reset_of_the_pf_is_found_by_host_check(nvmelm: Cli, pf_a: Pf, scratch_host: None) -> None:
    nvmelm("source", "prepare", pf_a.address, "--vfs", "1", "--unmarked", check=True)
    subprocess.run(["nvme", "reset", f"/dev/{pf_a.node}"], check=True)
    machine.find_pf(pf_a.serial)
    found = nvmelm("host", "check", pf_a.serial, "--json").json["findings"]
    assert "pf-was-reset" in [one["code"] for one in found]
    nvmelm("release", pf_a.serial, "--yes", check=True)


def test_killed_in_the_middle_it_is_recovered(nvmelm: Cli, pf_a: Pf, clean_host: Snapshot) -> None:
    """Cut the journal's end off, as kill -9 just before it was written does, and recover from what is left."""
    nvmelm("source", "prepare", pf_a.address, "--vfs", "1", "--unmarked", check=True)
    journal = nvmelm.state_dir / "journal" / f"{pf_a.address}.jsonl"
    records = [json.loads(line) for line in journal.read_text().splitlines() if line]
    assert records[-1]["record"] == "end"
    journal.write_text("".join(json.dumps(record) + "\n" for record in records[:-1]))
    planned = nvmelm("recover", "--dry-run", "--json", check=True).json
    assert [one["verb"] for one in planned["unfinished"]] == ["source prepare"]
    nvmelm("recover", "--yes", check=True)
    assert pf_a.vfs == []


def test_verbs_recorded_here_replay_without_the_machine(
    nvmelm: Cli, pf_a: Pf, clean_host: Snapshot, tmp_path: Path
) -> None:
    file = tmp_path / "show.json"
    live = nvmelm("--record", str(file), "show", pf_a.address, "--json", check=True)
    again = nvmelm("--host", f"replay:{file}", "show", pf_a.address, "--json", check=True)
    assert again.json == live.json
