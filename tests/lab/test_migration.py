"""Step 6 for real between two primaries, where the emulated controllers have Migration Send and Receive."""

from __future__ import annotations

from pathlib import Path

from tests.lab.machine import Cli, Pf


def prepared(nvmelm: Cli, role: str, pf: Pf) -> str:
    """Prepare one VF and return the controller id of its secondary."""
    nvmelm(role, "prepare", pf.address, "--vfs", "1", "--vq", "2", "--vi", "1", check=True)
    return str(pf.secondaries()[0]["secondary-controller-identifier"])


def test_a_state_goes_from_one_primary_to_another(
    hmlms: None, nvmelm: Cli, pf_a: Pf, pf_b: Pf, scratch_host: None, tmp_path: Path
) -> None:
    image = str(tmp_path / "state")
    source, destination = prepared(nvmelm, "source", pf_a), prepared(nvmelm, "destination", pf_b)
    nvmelm("state", "suspend", pf_a.address, source, "--yes", check=True)
    saved = nvmelm("state", "save", pf_a.address, source, image, "--json", check=True).json
    assert saved["state_bytes"] >= 48 + 8  # the structure's header and the NVMe state's
    restored = nvmelm("state", "restore", pf_b.address, destination, image, "--yes", "--json", check=True).json
    assert restored["parts"] == 1
    again = nvmelm("state", "save", pf_a.address, source, image, "--json", check=True).json
    assert again["state_bytes"] == saved["state_bytes"]
    nvmelm("state", "resume", pf_b.address, destination, check=True)
    nvmelm("secondary", "offline", pf_a.address, source, "--yes", check=True)
    assert pf_a.secondaries()[0]["secondary-controller-state"] == 0


def test_a_running_controller_is_not_saved(
    hmlms: None, nvmelm: Cli, pf_a: Pf, scratch_host: None, tmp_path: Path
) -> None:
    source = prepared(nvmelm, "source", pf_a)
    refused = nvmelm("state", "save", pf_a.address, source, str(tmp_path / "state"), "--json")
    assert (refused.code, refused.json["reason"]) == (1, "image-not-suspended")
    assert not (tmp_path / "state").exists()
