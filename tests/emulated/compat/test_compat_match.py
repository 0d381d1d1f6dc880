"""``compat match`` on files, as a whole verb."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from nvmelm.cli import main
from nvmelm.cli.verbs.compat import match
from nvmelm.compat.fleet import report
from nvmelm.emulator.host import create
from tests.unit.manifests import manifest

NVMELM = str(Path(sys.executable).with_name("nvmelm"))
SCHEMA = Path(__file__).parents[3] / "docs" / "schemas" / "nvmelm.match.json"


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


def test_a_large_answer_is_cut_evenly_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nvmelm.compat.fleet import assignment
    from nvmelm.compat.fleet import index as fleet

    count = 30
    changes: list[dict[str, Any]] = [{"resources.vq": number} for number in range(count)]
    changes[0] = {"identity.firmware": "9", "identity.model": "x", "resources.vi": 99}
    here, there = (fleet.load(write(tmp_path / name, *changes[at:])) for name, at in (("s", 0), ("d", 1)))
    found = assignment.match(here, there, fleet.Index(there.profiles), assignment.Placement())
    whole = report.document(here, there, found, None).to_json()
    assert set(whole["left_out"].values()) == {0}
    assert [len(group["destinations"]) for group in whole["groups"]] == [0, *range(count - 1, 0, -1)]
    longest = max(len(f'"{function.name}"') for function in there.functions) + report._AROUND_BYTES
    monkeypatch.setattr(report, "_LISTED_BYTES", 5 * count * longest)
    monkeypatch.setattr(report, "_LISTED_REASONS", 2)
    answer = report.document(here, there, found, None)
    cut = answer.to_json()
    listed = [len(group["destinations"]) for group in cut["groups"]]
    assert listed == [0, *(min(number, 5) for number in range(count - 1, 0, -1))]
    assert [one + group["destinations_left_out"] for one, group in zip(listed, cut["groups"], strict=True)] == [
        0,
        *range(count - 1, 0, -1),
    ]
    (left,) = cut["unplaced"]
    assert (len(left["reasons"]), left["reasons_left_out"]) == (2, 1)
    assert cut["left_out"] == {
        "destinations": sum(range(count)) - sum(listed),
        "reasons": 1,
        "unreadable": 0,
        "repeated": 0,
    }
    assert cut["assignment"] == whole["assignment"]
    assert "    and 1 reason more; nvmelm compat check says all" in list(match._lines(answer))
    jsonschema.validate(cut, json.loads(SCHEMA.read_text()))


def test_one_bad_manifest_among_many_is_named_and_holds_nothing_up(tmp_path: Path) -> None:
    sources = write(tmp_path / "s", {}, {})
    destinations = write(tmp_path / "d", {}, {}, {})
    bad = manifest(labels={"capacity": "1" + "0" * 30}).dumps(indent=None)
    again = destinations.read_text().splitlines()[0]
    destinations.write_text(f"{bad}\nnonsense\n{destinations.read_text()}{again}\n")
    done = run("--sources", str(sources), "--destinations", str(destinations), "--json")
    assert done.returncode == 0, done.stderr  # every source has a place; what is wrong is at the destinations
    told = json.loads(done.stdout)
    jsonschema.validate(told, json.loads(SCHEMA.read_text()))
    assert told["destinations"] == 3
    assert [line[:3] for line in told["unreadable"]] == ["d:1", "d:2"]
    assert told["repeated"] == ["d:6: 0x0042 on d0 is in d:3 already"]
    shown = run("--sources", str(sources), "--destinations", str(destinations)).stdout
    assert "cannot be used: d:1: the label capacity is '10000000000000000000', not a number from 1 to 65536" in shown
    assert "counted once: d:6: 0x0042 on d0 is in d:3 already" in shown


def test_a_source_that_cannot_be_used_has_no_place(tmp_path: Path) -> None:
    sources = write(tmp_path / "s", {})
    sources.write_text(sources.read_text() + "nonsense\n")
    done = run("--sources", str(sources), "--destinations", str(write(tmp_path / "d", {}, {})), "--json")
    assert done.returncode == 4
    assert json.loads(done.stdout)["unreadable"] == ["s:2: this is not a manifest that can be used: it is not JSON"]


@pytest.mark.parametrize("empty", ["--sources", "--destinations"])
@pytest.mark.parametrize("directory", [False, True])
def test_an_empty_side_is_a_mistake_in_the_arguments(empty: str, directory: bool, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir() if directory else (tmp_path / "none").touch()
    words = {side: str(write(tmp_path / side[2:], {})) for side in ("--sources", "--destinations")}
    words[empty] = str(tmp_path / "none")
    done = run(*(word for pair in words.items() for word in pair))
    assert done.returncode == 2
    assert "none holds no manifest" in done.stderr


def test_what_export_writes_to_a_file_is_read_and_nothing_goes_onto_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    host = tmp_path / "host"
    create(host).close()
    world = ["--host", f"emulated:{host}"]
    assert main([*world, "source", "prepare", "nvme0", "--vfs", "2"]) == 0
    for cntlid in ("0x42", "0x43"):
        assert main([*world, "compat", "export", "nvme0", cntlid, "-o", str(tmp_path / f"{cntlid}.json")]) == 0
    one = str(tmp_path / "0x42.json")
    capsys.readouterr()
    assert main(["compat", "match", "--sources", one, "--destinations", one, "--json"]) == 4
    assert json.loads(capsys.readouterr().out)["assignment"] == []


def test_no_source_stands_among_the_destinations_that_can_take_it(tmp_path: Path) -> None:
    fleet = write(tmp_path / "fleet", {}, {}, {})
    names = [json.loads(line)["subject"]["host"] for line in fleet.read_text().splitlines()]
    told = json.loads(run("--sources", str(fleet), "--destinations", str(fleet), "--json").stdout)
    jsonschema.validate(told, json.loads(SCHEMA.read_text()))
    assert sum(len(group["sources"]) for group in told["groups"]) == len(names)
    for group in told["groups"]:
        assert not set(group["sources"]) & set(group["destinations"])
        assert len(group["destinations"]) == len(names) - 1
    elsewhere = write(tmp_path / "elsewhere", {}, {})
    told = json.loads(run("--sources", str(elsewhere), "--destinations", str(fleet), "--json").stdout)
    assert [(len(group["sources"]), len(group["destinations"])) for group in told["groups"]] == [(2, 3)]
    alone = str(write(tmp_path / "alone", {}))
    shown = run("--sources", alone, "--destinations", alone).stdout
    assert ": 0 destinations can take it" in shown
