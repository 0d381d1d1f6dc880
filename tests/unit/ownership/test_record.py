"""A session's record: read again it is what it was written as, and nothing else is a record."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nvmelm.errors import MalformedError
from nvmelm.ownership.record import Moving, SessionRecord, Side, State, from_json, to_json

MOVING = Moving(cntlid=0x42, peer_cntlid=0x43, incarnation=7, vq=3, vi=2, was_suspended=True, idle=True)
RECORD = SessionRecord(
    id="0" * 32,
    side=Side.SOURCE,
    state=State.SUSPENDING,
    peer="ssh://b/0000:01:00.0",
    primary="0000:01:00.0",
    serial="SN",
    boot="boot",
    controllers=(MOVING,),
    opened_at="then",
    changed_at="later",
    note="",
    history=((State.OPEN.value, "then"), (State.SUSPENDING.value, "later")),
)


def changed(**parts: Any) -> str:
    return json.dumps({**json.loads(to_json(RECORD)), **parts})


def test_a_record_is_what_it_was_when_it_is_read_again() -> None:
    assert from_json(to_json(RECORD)) == RECORD


@pytest.mark.parametrize(
    "parts",
    [
        {"format": 2},
        {"format": 0},
        {"side": "middle"},
        {"state": "lost"},
        {"history": []},
        {"history": [["lost", "then"]]},
        {"peer": 7},
        {"serial": None},
        {"controllers": [{"cntlid": 1}]},
        {"controllers": [[1, 2]]},
        {"more": "of it"},
    ],
    ids=str,
)
def test_what_has_another_form_is_no_record(parts: dict[str, Any]) -> None:
    with pytest.raises(MalformedError) as met:
        from_json(changed(**parts))
    assert met.value.reason == "sessions-damaged"


def test_a_number_of_a_controller_that_is_none_is_refused() -> None:
    body = json.loads(to_json(RECORD))["controllers"][0]
    for name in body:
        with pytest.raises(MalformedError):
            from_json(changed(controllers=[{**body, name: "7"}]))
