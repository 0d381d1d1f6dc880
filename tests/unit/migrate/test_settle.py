"""Two hosts that ask each other do what the table of decisions says, for every pair of states and every copy."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from nvmelm.errors import UncertainError
from nvmelm.migrate.recovery import settle
from nvmelm.migrate.recovery.standing import Standing
from nvmelm.ownership.decisions import DECISIONS, Act
from nvmelm.ownership.record import Moving, SessionRecord, Side, State

#: What stands for a copy that is whole, lost for certain, and of which nobody can say.
COPIES = (Standing.SUSPENDED, Standing.RUNS, Standing.OFFLINE, Standing.GONE, Standing.IDLE)
_WHOLE = (Standing.SUSPENDED, Standing.RUNS)
_LOST = (Standing.OFFLINE, Standing.GONE)


def a_record(side: Side, state: State) -> SessionRecord:
    controllers = (Moving(cntlid=0x42, peer_cntlid=0x43, incarnation=1, vq=3, vi=2),)
    return SessionRecord(
        "0" * 32, side, state, "ssh://peer/0000:01:00.0", "0000:01:00.0", "SN", "boot", controllers, "", ""
    )


@pytest.fixture
def acted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replace what acts on controllers; the words of what was done are appended."""
    done: list[str] = []

    def noting(word: str) -> Any:
        def act(pf: object, sessions: object, record: SessionRecord, *values: object, **options: Any) -> SessionRecord:
            flags = [name for name, value in options.items() if value]
            to = [str(value) for value in values if isinstance(value, State)]
            done.append(" ".join([word, *to, *flags]))
            return record

        return act

    for name in ("run_again", "take_back", "finish_source", "put_back", "run_here"):
        monkeypatch.setattr(settle, name, noting(name))
    return done


def what_settle_does(
    side: Side, ours: State, theirs: State | None, copy: Standing, acted: list[str], monkeypatch: pytest.MonkeyPatch
) -> str:
    monkeypatch.setattr(settle, "look", lambda pf, record: {0x42: copy})

    def move(record: SessionRecord, to: State, note: str = "") -> SessionRecord:
        acted.append(f"writes {to}")
        return replace(record, state=to)

    pf: Any = SimpleNamespace(ref=SimpleNamespace(serial="SN"))
    sessions: Any = SimpleNamespace(move=move)
    points: Any = None
    try:
        settle.settle(pf, sessions, a_record(side, ours), theirs, points)
    except UncertainError as error:
        assert not acted
        return error.reason
    return ", ".join(acted)


def expected(act: Act, theirs: State | None, copy: Standing) -> str:
    uncertain = "source-lost" if copy in _LOST else "copy-unclear"
    contradiction = "session-contradiction"
    return {
        Act.NOTHING: "",
        Act.CONTRADICT: contradiction,
        Act.RUN_AGAIN: "run_again",
        Act.RUN_IF_WHOLE: "run_again held" if copy in _WHOLE else uncertain,
        Act.RUN_STRICTLY: "run_again held",
        Act.TAKE_BACK: "take_back returning",
        Act.TAKE_DOWN: "finish_source",
        Act.GIVE_WAY: "writes given-away" if copy in _LOST else contradiction,
        Act.END_LOST: "finish_source" if copy in _LOST else contradiction,
        Act.PUT_BACK: "put_back",
        Act.RUN_HERE: "run_here",
        Act.RUN_ONLY_ONE: "run_here only_one",
    }[act]


@pytest.mark.parametrize(("side", "ours", "theirs"), DECISIONS)
def test_each_pair_is_settled_as_the_table_says(
    side: Side, ours: State, theirs: State | None, acted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for copy in COPIES:
        acted.clear()
        act = DECISIONS[side, ours, theirs].act
        assert what_settle_does(side, ours, theirs, copy, acted, monkeypatch) == expected(act, theirs, copy)
