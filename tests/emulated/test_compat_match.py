"""``compat match`` on files, as a whole verb."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema

from tests.unit.manifests import manifest

NVMELM = str(Path(sys.executable).with_name("nvmelm"))
SCHEMA = Path(__file__).parents[2] / "docs" / "schemas" / "nvmelm.match.json"


def write(path: Path, *changes: dict[str, Any]) -> Path:
    lines = [
        manifest(each, subject={"host": f"{path.name}{number}", "cntlid": "0x0042"}).dumps(indent=None)
        for number, each in enumerate(changes)
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [NVMELM, "compat", "match", *words], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
    )


def test_every_source_gets_a_place_or_its_nearest_miss(tmp_path: Path) -> None:
    sources = write(tmp_path / "s", {}, {"identity.firmware": "9"}, {})
    destinations = write(tmp_path / "d", {}, {"resources.vq": 8}, {"identity.model": "x", "resources.vi": 1})
    done = run("--sources", str(sources), "--destinations", str(destinations), "--json")
    assert done.returncode == 4, done.stderr
    told = json.loads(done.stdout)
    jsonschema.validate(told, json.loads(SCHEMA.read_text()))
    assert [one["destination"] for one in told["assignment"]] == ["0x0042 on d0", "0x0042 on d1"]
    (left,) = told["unplaced"]
    assert (left["source"], left["why"], left["nearest"]) == ("0x0042 on s1", "nothing-fits", "0x0042 on d0")
    assert [why["code"] for why in left["reasons"]] == ["firmware-differs"]
    assert told["source_profiles"] == 2
    assert {len(group["destinations"]) for group in told["groups"]} == {0, 2}


def test_a_fleet_that_fits_ends_with_0_and_a_readable_answer(tmp_path: Path) -> None:
    both = [str(write(tmp_path / name, {}, {})) for name in ("s", "d")]
    done = run("--sources", both[0], "--destinations", both[1])
    assert done.returncode == 0
    assert "placed: 2 of 2" in done.stdout


def test_a_file_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    done = run("--sources", str(tmp_path / "none"), "--destinations", str(tmp_path / "none"))
    assert done.returncode == 1
    assert "No such file" in done.stderr
