"""The dialects from the command line, between two emulated hosts; what a destination can be set to is really set."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from nvmelm.commands import listing
from nvmelm.emulator.host import EmulatedHost, create
from nvmelm.emulator.machine.generations import GENERATIONS, NamespaceRow
from nvmelm.inventory.opened import open_primary
from nvmelm.inventory.picture import Role
from nvmelm.prepare import sequence
from nvmelm.prepare.parameters import give
from tests.emulated.answers import agree

NVMELM = str(Path(sys.executable).with_name("nvmelm"))
SCHEMAS = Path(__file__).parents[3] / "docs" / "schemas"
PF = "0000:01:00.0"
FIRST = 0x42


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("dialects")
    for name, role, vq in (("a", Role.MIGRATABLE, 2), ("b", Role.RESUMABLE, 4), ("c", Role.RESUMABLE, 1)):
        made = create(place / name, ("nvme-2.1",), storage=place / "media")
        with made as host, open_primary(host, PF, change=True) as pf:
            if vq > 1:
                sequence.prepare(pf, role, 1, vq=vq, vi=2, confirm=agree)
    return place


def run(hosts: Path, host: str, *words: str, code: int = 0) -> Any:
    command = [NVMELM, "--host", f"emulated:{hosts / host}", "compat", *words, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    assert done.returncode == code, done.stdout + done.stderr
    body = json.loads(done.stdout)
    jsonschema.validate(body, json.loads((SCHEMAS / f"{body['schema']}.json").read_text()))
    return body


def test_a_token_of_one_host_is_tested_on_another(hosts: Path) -> None:
    told = run(hosts, "a", "token", f"{PF}/0x42")
    assert told["level"] == "device"
    assert run(hosts, "b", "token", f"{PF}/0x42", "--test", told["token"])["accepted"]
    refused = run(hosts, "b", "token", f"{PF}/0x42", "--test", told["token"][:-1], code=4)
    assert refused["errno_name"] == "EBADMSG"
    refused = run(hosts, "a", "token", f"{PF}/0x42", "--test", run(hosts, "b", "token", f"{PF}/0x42")["token"], code=4)
    assert refused["errno_name"] == "EINVAL"
    assert "vq" in refused["why"]


def test_a_token_exists_before_its_function_does(hosts: Path) -> None:
    told = run(hosts, "c", "token", PF, "--vq", "2", "--vi", "2")
    assert told["level"] == "type"
    assert run(hosts, "b", "token", f"{PF}/0x42", "--test", told["token"])["accepted"]


def test_the_steps_are_reported_one_by_one(hosts: Path, tmp_path: Path) -> None:
    for host in ("a", "b"):
        run(hosts, host, "export", PF, "0x42", "-o", str(tmp_path / host))
    told = run(hosts, "a", "steps", str(tmp_path / "a"), str(tmp_path / "b"))
    assert [step["passed"] for step in told["steps"]] == [True] * 5
    told = run(hosts, "a", "steps", str(tmp_path / "b"), str(tmp_path / "a"), code=4)
    assert [step["passed"] for step in told["steps"]] == [True, True, True, True, False]


def test_a_destination_is_given_the_sources_resources_once(hosts: Path, tmp_path: Path) -> None:
    (tmp_path / "list").write_text(json.dumps(run(hosts, "a", "parameters", "list", f"{PF}/0x42")))
    info = run(hosts, "b", "parameters", "info", f"{PF}/0x42")
    ((_, body),) = info["models"].items()
    assert body["params"]["resources.vq"]["allowed_values"] == ["0-4"]
    told = run(hosts, "b", "parameters", "check", str(tmp_path / "list"), f"{PF}/0x42")
    assert told["to_set"] == {"resources.vq": 2}
    planned = run(hosts, "b", "parameters", "apply", str(tmp_path / "list"), PF, "0x42", "--dry-run")
    assert (planned["changed"], planned["written"]) == (False, {"resources.vq": 2})
    done = run(hosts, "b", "parameters", "apply", str(tmp_path / "list"), PF, "0x42", "--yes")
    assert done["changed"]
    with EmulatedHost(hosts / "b") as host, open_primary(host, PF) as pf:
        one = pf.picture().secondary(FIRST)
        assert one is not None
        assert (one.vq, one.vi, one.online) == (2, 2, True)
    again = run(hosts, "b", "parameters", "apply", str(tmp_path / "list"), PF, "0x42", "--yes")
    assert (again["changed"], again["written"]) == (False, {})


def test_a_destination_is_attached_to_exactly_the_sources_namespaces(tmp_path: Path) -> None:
    row = GENERATIONS["nvme-2.1"].with_(namespaces=(NamespaceRow(), NamespaceRow(nsid=2)))
    for name in ("a", "b"):
        made = create(tmp_path / name, (row,), storage=tmp_path / "media")
        with made as host, open_primary(host, PF, change=True) as pf:
            sequence.prepare(pf, Role.MIGRATABLE, 1, vq=2, vi=2, confirm=agree)
            if name == "a":
                assert give(pf, FIRST, namespaces=[1], confirm=agree).changed
                assert not give(pf, FIRST, namespaces=[1], confirm=agree).changed
    (tmp_path / "list").write_text(json.dumps(run(tmp_path, "a", "parameters", "list", f"{PF}/0x42")))
    run(tmp_path, "b", "parameters", "check", str(tmp_path / "list"), f"{PF}/0x42", code=4)
    done = run(tmp_path, "b", "parameters", "apply", str(tmp_path / "list"), PF, "0x42", "--yes")
    assert done["written"] == {"namespaces.ids": "1"}
    run(tmp_path, "b", "parameters", "check", str(tmp_path / "list"), f"{PF}/0x42")
    with EmulatedHost(tmp_path / "b") as host, open_primary(host, PF) as pf:
        assert FIRST not in listing.all_attached_controllers(pf.queue, 2)
        assert FIRST in listing.all_attached_controllers(pf.queue, 1)


def test_a_list_that_does_not_fit_is_refused_before_anything_is_written(hosts: Path, tmp_path: Path) -> None:
    wanted = run(hosts, "a", "parameters", "list", f"{PF}/0x42")
    wanted["params"]["limits.queue_entries"] = 99999
    (tmp_path / "list").write_text(json.dumps(wanted))
    refused = run(hosts, "b", "parameters", "apply", str(tmp_path / "list"), PF, "0x42", "--yes", code=4)
    assert refused["reason"] == "parameters-refused"
    (tmp_path / "list").write_text("[]")
    assert run(hosts, "b", "parameters", "check", str(tmp_path / "list"), f"{PF}/0x42", code=1)["kind"] == "malformed"
