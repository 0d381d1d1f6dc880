"""Whole verbs over recordings of a real kernel, made in the lab: the same questions, the same answer, nothing left."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from nvmelm import cli
from nvmelm.errors import ReplayMismatchError
from nvmelm.host.recording.replay import ReplayHost
from tests.lab.sessions import SESSIONS, Session

FIXTURES = Path(__file__).parents[2] / "fixtures"
MACHINE = "lab-linux-6.1-qemu-7.2"
PF = "0000:01:00.0"

#: What a redacted recording cannot give back, and what names the world a verb ran in.
_NAMES = re.compile(r"LAB[AB]0001|REDACTE?D?\d*|replay:[^\"]*?\.json")


def transcript(name: str) -> Path:
    return FIXTURES / "transcripts" / MACHINE / f"{name}.json"


def without_names(document: Any) -> Any:
    """Blank the names that redaction replaced, wherever they stand."""
    if isinstance(document, dict):
        return {key: "*" if key in ("host", "nqn") else without_names(value) for key, value in document.items()}
    if isinstance(document, list):
        return [without_names(one) for one in document]
    return _NAMES.sub("*", document) if isinstance(document, str) else document


@pytest.mark.parametrize("session", SESSIONS, ids=lambda session: session.name)
def test_a_verb_answers_on_the_recording_as_it_did_on_the_machine(
    session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [PF if word == "PF" else word for word in session.words]
    code = cli.main(["--host", f"replay:{transcript(session.name)}", *words, "--json"])
    answer = json.loads(capsys.readouterr().out)
    expected = json.loads((FIXTURES / "output" / MACHINE / f"{session.name}.json").read_text())
    assert code == session.code
    assert without_names(answer) == without_names(expected)


def test_another_verb_than_the_recorded_one_is_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    code = cli.main(["--host", f"replay:{transcript('list')}", "show", PF, "--json"])
    assert (code, json.loads(capsys.readouterr().out)["kind"]) == (1, "replay_mismatch")


def test_events_left_over_are_told() -> None:
    host = ReplayHost(transcript("list"))
    with pytest.raises(ReplayMismatchError, match="the end of the session"):
        host.close()


def test_every_recording_has_a_session_and_its_answer() -> None:
    names = sorted(path.stem for path in (FIXTURES / "transcripts" / MACHINE).iterdir())
    assert names == sorted(session.name for session in SESSIONS)
    assert names == sorted(path.stem for path in (FIXTURES / "output" / MACHINE).iterdir())
