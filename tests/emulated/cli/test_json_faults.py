"""With ``--json`` every verb that fails ends, with one valid document and the exit code of its text form."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import jsonschema
import pytest

from nvmelm.prepare import executor
from tests.emulated.cli.changing import VERBS, Run, build, copy
from tests.emulated.two_hosts import copy as copy_world

SCHEMAS = Path(__file__).parents[3] / "docs" / "schemas"
FAULTS = (
    "admin/0x1c=status:0x4006",
    "admin/0x1c#2=lose",
    "admin/0x1c#3=errno:EIO",
    "admin/0x1c#2=reset",
    "admin/0x1c#2=vanish",
    "admin/0x41=lose",
    "admin/0x41=status:0x0006",
    "admin/0x41=status:0x4006",
    "admin/0x41=reset",
    "admin/0x42=lose",
    "admin/0x42=nonsense:huge",
    "admin/0x06#1=status:0x4006",
    "admin/0x06#1=lose",
    "admin/0x06#5=vanish",
    "admin/0x06#4=nonsense:ones",
    "sysfs/*=errno:EBUSY",
    "sysfs/*#2=errno:EACCES",
    "sysfs/*#4=errno:ENODEV",
    "sysfs/*reset=errno:ENOTTY",
    "sysfs/*bind=silent",
    "sysfs/*sriov_numvfs=silent",
)


def require_one_document(out: str, code: int) -> None:
    document = json.loads(out)
    schema = json.loads((SCHEMAS / f"{document['schema']}.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(document)
    if document["schema"] == "nvmelm.error":
        assert document["exit_code"] == code


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", VERBS)
def test_whatever_fails_json_is_one_document_with_the_exit_code_of_the_text(
    name: str, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    template, words = build(tmp_path / "template", name, run), VERBS[name].words
    # What is waited for under these faults is not going to come.
    monkeypatch.setattr(executor, "_VFS_DEADLINE_S", 0.5)
    monkeypatch.setattr(executor, "_IDLE_DEADLINE_S", 1.0)
    failures = 0
    for number, fault in enumerate(FAULTS):
        text, _ = run(copy(template, tmp_path / f"text{number}", fault), words, "--yes")
        code, out = run(copy(template, tmp_path / f"json{number}", fault), words, "--yes", "--json")
        require_one_document(out, code)
        assert (fault, code) == (fault, text)
        failures += code != 0
    assert failures, "no fault struck"


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("side", "fault"),
    [
        ("source", "admin/0x41=lose"),
        ("source", "admin/0x42#2=status:0x4006"),
        ("source", "admin/0x42=vanish"),
        ("destination", "admin/0x41=lose"),
        ("destination", "admin/0x41#2=status:0x4006"),
    ],
)
def test_a_migration_that_fails_is_one_document_with_the_exit_code_of_the_text(
    side: str, fault: str, two_hosts: Path, tmp_path: Path, run: Run
) -> None:
    results = []
    for form in ([], ["--json"]):
        place = tmp_path / f"world{len(form)}"
        world = copy_world(two_hosts, place)
        world.host(side).arm(fault)
        world.close()
        rsh = shlex.join([sys.executable, "-m", "nvmelm", "emulate", "rsh", str(place)])
        words = ["--to", "ssh://destination/nvme0", "--rsh", rsh, "--yes", *form]
        results.append(run(place / "source", "migrate nvme0 0x42", *words))
    (text, _), (code, out) = results
    require_one_document(out, code)
    assert code == text != 0
