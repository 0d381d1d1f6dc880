"""Step 6 for real between two primaries, where the emulated controllers have Migration Send and Receive."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.lab import guest
from tests.lab.machine import Cli, Pf
from tests.lab.moves import Gate, Two, prepared
from tests.lab.nvme_driver import block, get, put
from tests.lab.vfio_driver import Function, Memory


def test_a_state_goes_from_one_primary_to_another(
    hmlms: None, nvmelm: Cli, pf_a: Pf, pf_b: Pf, scratch_host: None, tmp_path: Path
) -> None:
    image = str(tmp_path / "image")
    [source], [destination] = prepared(nvmelm, "source", pf_a), prepared(nvmelm, "destination", pf_b)
    nvmelm("state", "suspend", pf_a.address, source, "--yes", check=True)
    saved = nvmelm("state", "save", pf_a.address, source, image, "--json", check=True).json
    assert saved["state_bytes"] >= 48 + 8  # the structure's header and the NVMe state's
    restored = nvmelm("state", "restore", pf_b.address, destination, image, "--yes", "--json", check=True).json
    assert restored["parts"] == 1
    again = nvmelm("state", "save", pf_a.address, source, image, "--force", "--json", check=True).json
    assert again["state_bytes"] == saved["state_bytes"]
    nvmelm("state", "resume", pf_b.address, destination, check=True)
    nvmelm("secondary", "offline", pf_a.address, source, "--yes", check=True)
    assert pf_a.secondaries()[0]["secondary-controller-state"] == 0


def test_a_running_controller_is_not_saved(
    hmlms: None, nvmelm: Cli, pf_a: Pf, scratch_host: None, tmp_path: Path
) -> None:
    [source] = prepared(nvmelm, "source", pf_a)
    refused = nvmelm("state", "save", pf_a.address, source, str(tmp_path / "image"), "--json")
    assert (refused.code, refused.json["reason"]) == (10, "image-not-suspended")
    assert not (tmp_path / "image").exists()


def test_an_incompatible_pair_is_known_before_anything_is_touched(
    nvmelm: Cli, pf_a: Pf, pf_b: Pf, scratch_host: None, tmp_path: Path
) -> None:
    """A stock controller has no live migration: the verdict says so with every reason, and migrate does not begin."""
    if os.environ.get(guest.HMLMS_VARIABLE) == "1":
        pytest.skip("these controllers can migrate")
    for pf in (pf_a, pf_b):
        nvmelm("source", "prepare", pf.address, "--vfs", "1", "--unmarked", check=True)
    cntlid = str(pf_a.secondaries()[0]["secondary-controller-identifier"])
    verdict = nvmelm("compat", "check", f"{pf_a.address}/{cntlid}", f"{pf_b.address}/{cntlid}", "--json")
    assert verdict.code == 4, verdict.stderr
    codes = [reason["code"] for reason in verdict.json["reasons"] if reason["severity"] == "blocks"]
    assert "no-live-migration" in codes
    refused = nvmelm(
        "migrate", pf_a.address, cntlid, "--to", f"ssh://nowhere/{pf_b.address}", "--rsh", "false", "--yes"
    )
    assert refused.code == 3, refused.stderr
    assert pf_a.secondaries()[0]["secondary-controller-state"] == 1


def test_a_driver_in_user_space_does_io_on_a_prepared_function(nvmelm: Cli, pf_a: Pf, scratch_host: None) -> None:
    """What the move below rests on: the VF that steps 1 to 4 hand to vfio-pci works, with its own queues."""
    nvmelm("source", "prepare", pf_a.address, "--vfs", "1", "--unmarked", check=True)
    with Function(pf_a.vfs[0], Memory()) as function:
        function.enable()
        pair = function.create_queues()
        for number in range(10):
            put(function, pair, number)
        assert function.complete(pair, 10) == [0] * 10
        assert [get(function, pair, number) for number in range(10)] == [block(number) for number in range(10)]
        assert function.nothing_more(pair)


def test_writes_submitted_while_the_source_is_suspended_complete_once_at_the_destination(
    hmlms: None, nvmelm: Cli, pf_a: Pf, pf_b: Pf, scratch_host: None, tmp_path: Path
) -> None:
    [source], [destination] = prepared(nvmelm, "source", pf_a), prepared(nvmelm, "destination", pf_b)
    gate = Gate(tmp_path / "suspended")
    link = Two(nvmelm, nvmelm, tmp_path).link(nvmelm)  # one host with two primaries: one state directory
    memory = Memory()
    with Function(pf_a.vfs[0], memory) as here, Function(pf_b.vfs[0], memory) as there:
        here.enable()
        pair = here.create_queues()
        there.enable()
        words = ["migrate", pf_a.address, source, "--to", f"ssh://here/{pf_b.address}/{destination}", "--yes"]
        words += ["--guest-loses-controller"]  # the driver goes on with the other end by itself
        moving = nvmelm.start(*words, *link, "--callout", f"source-suspended={gate.callout}", "--json")
        gate.wait(moving)
        for number in range(8):
            put(here, pair, number)
        assert here.nothing_more(pair)
        gate.open()
        assert moving.wait(timeout=300) == 0
        assert there.complete(pair, 8) == [0] * 8
        assert there.nothing_more(pair)
        assert [get(there, pair, number) for number in range(8)] == [block(number) for number in range(8)]
