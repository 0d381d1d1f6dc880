"""Desired state on a real kernel: a guest that has just started is brought to its file, once."""

from __future__ import annotations

from pathlib import Path

from tests.lab.machine import Cli, Pf, driver_of


def test_a_fresh_host_is_brought_to_its_configuration_once(
    nvmelm: Cli, pf_a: Pf, scratch_host: None, tmp_path: Path
) -> None:
    (tmp_path / "nvmelm.toml").write_text(f"[[pf]]\nserial = '{pf_a.serial}'\nvfs = 2\n")
    config = ("--config", str(tmp_path))
    planned = nvmelm("apply", *config, "--dry-run", "--json", check=True).json
    assert [entry["outcome"] for entry in planned["entries"]] == ["planned"]
    assert pf_a.vfs == []
    assert nvmelm("apply", *config, "--json", check=True).json["changed"]
    assert [driver_of(vf) for vf in pf_a.vfs] == ["vfio-pci", "vfio-pci"]
    assert [secondary["secondary-controller-state"] for secondary in pf_a.secondaries()][:2] == [1, 1]
    again = nvmelm("apply", *config, "--json", check=True).json
    assert (again["changed"], [entry["outcome"] for entry in again["entries"]]) == (False, ["unchanged"])
    assert nvmelm("apply", *config, "--pf", pf_a.node, "--json", check=True).json["changed"] is False
