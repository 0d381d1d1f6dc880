"""What README says of each verb of steps 1 to 4, held against each of them: idempotent, dry run = run, undone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nvmelm.cli import main
from nvmelm.emulator.host import create

#: In an order in which each finds what it needs.
STEPS = [
    "sriov enable nvme0 --vfs 2",
    "secondary assign nvme0 0x42 --vq 3 --vi 2",
    "secondary online nvme0 0x42",
    "secondary allow-migration nvme0 0x42 --expires 8h",
    "vfio bind nvme0/0x42",
    "vfio unbind nvme0/0x42",
    "secondary revoke nvme0 0x42",
    "secondary allow-resume nvme0 0x42",
    "secondary offline nvme0 0x42",
    "sriov disable nvme0",
    "source prepare nvme0 --vfs 2 --vq 3 --vi 2",
    "source prepare nvme0 --vfs 2 --vq 3 --vi 2 --expires 2d",
    "release nvme0",
    "destination prepare nvme0 --vfs 1",
    "release nvme0",
]


@pytest.mark.parametrize("until", range(1, len(STEPS) + 1), ids=lambda number: STEPS[number - 1])
def test_a_dry_run_is_the_run_and_a_second_run_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], until: int
) -> None:
    create(tmp_path / "host").close()

    def run(words: str, *more: str) -> Any:
        capsys.readouterr()
        world = ["--host", f"emulated:{tmp_path}/host"]
        assert main([*world, *words.split(), "--yes", "--json", *more]) == 0
        return json.loads(capsys.readouterr().out)

    *before, words = STEPS[:until]
    for step in before:
        run(step)
    planned = run(words, "--dry-run")
    done = run(words)
    again = run(words)
    assert (planned["changed"], done["changed"], again["changed"]) == (False, True, False)
    assert [one["summary"] for one in planned["actions"]] == [one["summary"] for one in done["actions"]]
    assert all(one["operations"] for one in planned["actions"])
    assert again["actions"] == []
