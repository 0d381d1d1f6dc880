"""The Ansible collection with the real ansible-playbook, over eight emulated hosts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from nvmelm.emulator.host import EmulatedHost
from tests.emulated.fleet_hosts import PLAYBOOK, Fleet

pytestmark = pytest.mark.skipif(not PLAYBOOK.exists(), reason="ansible-core is not installed in this environment")


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path)


def changed(stats: dict[str, dict[str, int]]) -> set[str]:
    return {name for name, host in stats.items() if host["changed"]}


def test_a_fleet_is_prepared_once_moved_and_one_failing_host_fails_alone(fleet: Fleet) -> None:
    everybody = {f"{kind}{number}" for kind in "sd" for number in range(4)}
    code, stats, output = fleet.play("fleet.yml", "--check", "--diff")
    assert code == 0, output
    assert changed(stats) == everybody
    assert "driver_override" in output  # the exact writes

    with EmulatedHost(fleet.place / "s1") as broken:  # the check changed nothing, so there is still something to fail
        broken.arm("admin/0x1c*99=status:0x4006")
    code, stats, output = fleet.play("fleet.yml")
    assert code != 0
    plays = re.findall(r"^PLAY \[(.*)\]", output, re.MULTILINE)
    assert plays.count("Prepare the destinations") == plays.count("Prepare the sources") == 2  # two at a time
    assert {name for name, host in stats.items() if host["failed"]} == {"s1"}
    assert "Internal Error" in output
    assert changed(stats) == everybody - {"s1"}

    with EmulatedHost(fleet.place / "s1") as repaired:
        repaired.disarm()
    code, stats, output = fleet.play("fleet.yml")
    assert code == 0, output
    assert changed(stats) == {"s1"}

    code, stats, output = fleet.play("fleet.yml")
    assert (code, changed(stats)) == (0, set()), output

    code, stats, output = fleet.play("migrate.yml", "-e", "nvmelm_agree=true")
    assert code == 0, output
    assert changed(stats) == {"s0", "s1", "s2", "s3"}
    code, stats, output = fleet.play("migrate.yml", "-e", "nvmelm_agree=true")
    assert changed(stats) == set()


def test_the_whole_of_it_run_again_moves_and_changes_nothing(fleet: Fleet) -> None:
    words = ("fleet.yml", "--limit", "s0,s1,d0,d1", "-e", "nvmelm_move=true", "-e", "nvmelm_agree=true")
    with EmulatedHost(fleet.place / "d1") as broken:  # one move fails: the others' hosts must not be touched again
        broken.arm("admin/0x41*99=status:0x4006")
    code, stats, output = fleet.play(*words)
    assert code != 0
    assert {name for name, host in stats.items() if host["failed"]} == {"s1"}
    assert "2 moved to ssh://d0/0000:01:00.0" in output
    with EmulatedHost(fleet.place / "d1") as repaired:
        repaired.disarm()
    code, stats, output = fleet.play(*words)
    assert code == 0, output
    assert changed(stats) == {"s1"}
    code, stats, output = fleet.play(*words)
    assert (code, changed(stats)) == (0, set()), output
    assert all(f"2 moved to ssh://d{number}/0000:01:00.0" in output for number in range(2))
    assert "0 of 2" not in output


def test_the_commands_of_the_page_prepare_and_move_on_the_emulated_hosts_of_its_inventory(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs/ansible.md").read_text().replace("/tmp/racks", str(tmp_path))
    tried = page.partition("## Try it")[2].partition("\n## ")[0]
    inventory, commands = (re.findall(rf"```{kind}\n(.*?)```", tried, re.DOTALL)[0] for kind in ("yaml", "console"))
    (tmp_path / "inventory.yml").write_text(inventory)
    environment = {
        **Fleet.environment(tmp_path),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    output = ""
    for command in re.findall(r"^\$ (.*?)(?:  +#.*)?$", commands, re.MULTILINE):
        words = ["/bin/bash", "-c", command]
        done = subprocess.run(words, capture_output=True, text=True, timeout=250, env=environment, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        output = done.stdout
    assert "2 moved to ssh://c/nvme0" in output
    assert "2 moved to ssh://d/nvme0" in output
