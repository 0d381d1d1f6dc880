"""The picture's records are plain, and still the documents that pydantic would make of them."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest
from pydantic import TypeAdapter

from nvmelm.cli.frame.documents import error_document
from nvmelm.cli.views.answers import Changes
from nvmelm.compat.fleet.report import MatchDocument, MatchGroup, MatchLeftOut
from nvmelm.compat.verdict import document, judge
from nvmelm.documents import Report
from nvmelm.errors import HostError
from nvmelm.inventory.marks import StoredMark
from nvmelm.inventory.picture import ActionView, ChangeReport, Mark, Picture, Role
from nvmelm.prepare.check import Finding, HostCheck
from tests.unit.manifests import manifest
from tests.unit.pictures import picture, primary, secondary

MARK = Mark(
    role=Role.RESUMABLE,
    holds=False,
    broken_by=("a", "b"),
    given_at="t",
    given_by="u",
    expires_at=None,
    facts_digest="0",
)
STORED = {
    "format": 1,
    "role": "migratable",
    "cntlid": 0x42,
    "given_at": "2026-11-21T08:00:00+00:00",
    "given_by": "root",
    "expires_at": None,
    "facts": {"online": True},
    "facts_digest": "0" * 64,
}

CHECKED = HostCheck(
    host="a", kernel="6.1", primary=None, ready=True, findings=(Finding(code="c", level="ok", message="m"),)
)
JUDGED = document(judge(manifest(subject={"host": "a"}), manifest({"resources.vq": 9})), manifest(), manifest())
MATCHED = MatchDocument(
    sources=1,
    source_profiles=1,
    destinations=0,
    destination_profiles=0,
    groups=[MatchGroup(sources=["a"], destinations=[], destinations_left_out=0)],
    assignment=[],
    unplaced=[],
    unreadable=[],
    repeated=[],
    left_out=MatchLeftOut(destinations=0, reasons=0, unreadable=0, repeated=0),
)


def seen() -> Picture:
    return replace(picture(), secondaries=(secondary(1), replace(secondary(2), mark=MARK, used_by=("qemu (pid 7)",))))


def report(**values: Any) -> ChangeReport:
    actions = (
        ActionView(step="sr-iov", summary="enable", operations=("echo 1 > x",)),
        ActionView(step="s", summary="t"),
    )
    known = {"verb": "source prepare", "primary": "0000:01:00.0", "dry_run": False, "changed": True, "actions": actions}
    return ChangeReport(**{**known, **values})


@pytest.mark.parametrize(
    "answer",
    [
        picture(),
        seen(),
        report(),
        report(notes=("n",), picture=seen()),
        Changes(changed=True, reports=(report(picture=seen()),)),
        CHECKED,
        JUDGED,
        MATCHED,
        error_document(HostError("no", errno=5, path="/p"), "list"),
    ],
    ids=lambda answer: answer.schema_name,
)
def test_a_report_is_the_document_that_pydantic_makes_of_it(answer: Report) -> None:
    made = TypeAdapter(type(answer)).dump_python(answer, mode="json")
    own = answer.to_json()
    assert own == {"schema": answer.schema_name, "version": 1, **made}
    assert json.loads(json.dumps(own)) == own  # nothing in it is a tuple or an enumeration any more
    assert list(own)[2:] == list(made)


def test_a_report_takes_reports_as_its_parts() -> None:
    whole = Changes(changed=True, reports=(report(picture=seen()),)).to_json()
    (part,) = whole["reports"]
    assert {"schema": "nvmelm.change", "version": 1, **part} == report(picture=seen()).to_json()


def test_a_record_does_not_change() -> None:
    for record, name in (
        (primary(), "vfs_enabled"),
        (secondary(1), "online"),
        (MARK, "holds"),
        (seen(), "secondaries"),
    ):
        with pytest.raises(FrozenInstanceError):
            setattr(record, name, None)


def test_a_stored_mark_reads_back_as_it_was_written() -> None:
    mark = StoredMark.parse(json.dumps(STORED))
    assert mark is not None
    assert mark.role is Role.MIGRATABLE
    assert json.loads(mark.dumps()) == STORED
    assert StoredMark.parse(mark.dumps()) == mark


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "[" * 100_000,
        '"migratable"',
        *(json.dumps({key: value for key, value in STORED.items() if key != name}) for name in STORED),
        *(json.dumps({**STORED, name: [1]}) for name in STORED),
        json.dumps({**STORED, "role": "both"}),
        json.dumps({**STORED, "format": 2}),
        json.dumps({**STORED, "more": 1}),
    ],
    ids=lambda text: text[:16],
)
def test_a_stored_mark_that_cannot_be_read_is_none(text: str) -> None:
    assert StoredMark.parse(text) is None
