"""With ``--json`` every verb that ends by itself answers with one document, that of its published schema."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from nvmelm.cli.reference import tree
from tests.emulated.cli.changing import PF, VERBS, Run, build, vmm

SCHEMAS = Path(__file__).parents[3] / "docs" / "schemas"

#: Every verb that changes nothing on a host, as it is asked on a host with a saved image and its manifest.
ASKED = {
    "status": "status",
    "list": "list",
    "version": "version",
    "show": "show nvme0",
    "host check": "host check nvme0",
    "secondary list": "secondary list nvme0",
    "vm check": "vm check --qmp {host}/qmp",
    "state show": "state show {host}/image",
    "compat export": "compat export nvme0 0x42",
    "compat check": "compat check nvme0/0x42 nvme0/0x43",
    "compat match": "compat match --sources {host}/manifest --destinations {host}/manifest",
    "compat token": "compat token nvme0/0x42",
    "compat steps": "compat steps nvme0/0x42 nvme0/0x43",
    "compat parameters info": "compat parameters info nvme0/0x42",
    "compat parameters list": "compat parameters list nvme0/0x42",
    "compat parameters check": "compat parameters check {host}/parameters nvme0/0x43",
    "emulate generations": "emulate generations",
    "emulate create": "emulate create {host}/another",
    "emulate fault add": "emulate fault add {host} admin=lose",
    "emulate fault list": "emulate fault list {host}",
    "emulate fault clear": "emulate fault clear {host}",
    "fixture record": "fixture record {host}/recording nvme0",
    "fixture show": "fixture show {host}/shown",
    "explain": "explain EBUSY",
    "share": "share",
    "bug-report": "bug-report --output {host}/report.tar.gz",
}
#: Those whose answer is a stream, or another program's, or that run until they are ended.
APART = {
    "watch": "lines of JSON",
    "serve": "frames",
    "demo": "tests/emulated/test_demo.py",
    "vm run": "the VMM's own",
    "vm agent": "runs on",
    "emulate vmm": "runs on",
    "emulate guest": "a monitor's",
    "emulate rsh": "another program's",
    "fixture replay": "that of the verb that is replayed",
}


def test_every_verb_is_asked() -> None:
    verbs = {verb.name for topic in tree.topics() for verb in topic.verbs}
    assert verbs == {*ASKED, *APART, *VERBS, "migrate"}


@pytest.mark.parametrize("name", ASKED)
def test_the_answer_is_one_document_of_its_schema(name: str, tmp_path: Path, run: Run) -> None:
    host = build(tmp_path / "host", "state restore", run)
    for file, words in (("manifest", "compat export nvme0 0x42"), ("parameters", f"compat parameters list {PF}/0x42")):
        (host / file).write_text(run(host, words, "--json")[1])
    assert run(host, "fixture record {host}/shown nvme0")[0] == 0
    with vmm(host, holds=False):
        _, out = run(host, ASKED[name], "--json")
    document = json.loads(out)
    assert document["schema"] != "nvmelm.error", document
    jsonschema.Draft202012Validator(json.loads((SCHEMAS / f"{document['schema']}.json").read_text())).validate(document)
