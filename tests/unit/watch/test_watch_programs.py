"""A program for each line: never in the stream's way, and nothing is passed over without being counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from nvmelm.process.waiting import wait_until
from nvmelm.watch import programs
from nvmelm.watch.programs import Programs


def script(place: Path, text: str) -> list[str]:
    path = place / "program"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o700)
    return [str(path)]


def test_lines_are_given_in_their_order(tmp_path: Path) -> None:
    said: list[str] = []
    running = Programs(script(tmp_path, f"cat >> {tmp_path}/got"), said.append)
    with running.running():
        for number in range(20):
            running.give(number, b"%d\n" % number)
    assert (tmp_path / "got").read_text() == "".join(f"{number}\n" for number in range(20))
    assert said == []


def test_what_does_not_fit_is_passed_over_and_counted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "_WAITING", 2)
    running = Programs(script(tmp_path, f"cat > /dev/null; until test -e {tmp_path}/go; do sleep 0.02; done"), print)
    with running.running():
        running.give(0, b"")
        wait_until(running._waiting.empty, "the first to run", deadline_s=20)
        for number in range(1, 6):
            running.give(number, b"")
        (tmp_path / "go").touch()
        assert running.take_passed_over() == 3
        assert running.take_passed_over() == 0


def test_one_that_still_runs_when_the_stream_ends_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "_LAST_S", 0.3)
    said: list[str] = []
    running = Programs(script(tmp_path, f"echo $$ > {tmp_path}/pid; exec sleep 600"), said.append)
    with running.running():
        running.give(1, b"")
        wait_until((tmp_path / "pid").exists, "it to run", deadline_s=20)
    assert "is ended" in said[0]
    assert not Path(f"/proc/{int((tmp_path / 'pid').read_text())}").exists()


def test_one_that_hangs_is_ended_and_said(tmp_path: Path) -> None:
    said: list[str] = []
    running = Programs(script(tmp_path, "sleep 600"), said.append, deadline_s=0.2)
    with running.running():
        running.give(7, b"")
    assert said == ["line 7: the program did not end within 0.2 s"]


def test_one_that_cannot_be_started_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    running = Programs([str(tmp_path / "nowhere")], said.append)
    with running.running():
        running.give(1, b"")
    assert said[0].startswith("line 1: cannot run")


def test_a_program_takes_the_signals_that_this_thread_leaves_to_another(tmp_path: Path) -> None:
    running = Programs(script(tmp_path, f"grep SigBlk /proc/self/status > {tmp_path}/mask"), print)
    with running.running():
        running.give(1, b"")
    assert int((tmp_path / "mask").read_text().split()[1], 16) == 0
