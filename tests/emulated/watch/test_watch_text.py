"""A watch on a terminal is read by people; anywhere else, and with --json, by programs."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from contextlib import suppress
from typing import Any

import pytest

from nvmelm.cli.frame import render
from nvmelm.cli.views import watching
from nvmelm.documents import Record
from nvmelm.watch import lines
from nvmelm.watch.lines import KINDS, WatchLine
from tests.emulated.conftest import MakeHost

AT = "2026-11-28T16:50:02.123+00:00"
PF = "0000:01:00.0"
_WHERE: dict[str, Any] = {"primary": PF, "cntlid": 0x42, "address": None}
_MARK: dict[str, Any] = {"role": "migratable", "given_by": "root", "expires_at": None}
_SESSION: dict[str, Any] = {"id": "a" * 32, "since": AT, "peer": "ssh://b", "primary": PF, "cntlids": (0x42,)}

SENTENCES: list[tuple[Record, str]] = [
    (lines.Started(host="local", nvmelm="1", kernel="6.1", boot="b"), "watching local, Linux 6.1"),
    (
        lines.UeventPart(seqnum=1, action="add", subsystem="pci", device="d", address=PF, properties={}),
        "kernel: add pci 0000:01:00.0",
    ),
    (lines.PrimaryPart(what="gone", address=PF, node="nvme0", serial="S"), "nvme0 0000:01:00.0 has gone"),
    (
        lines.PrimaryPart(what="there", address=PF, node="nvme0", serial="S"),
        "nvme0 0000:01:00.0 (S) is there; controlled functions in use: none",
    ),
    (
        lines.PrimaryPart(
            what="changed", address=PF, node="nvme0", serial="S", before={"vfs_enabled": 0}, after={"vfs_enabled": 2}
        ),
        "nvme0 0000:01:00.0: vfs_enabled 0 -> 2",
    ),
    (
        lines.ControllerPart(
            **_WHERE, before={"driver": None, "present": False}, after={"driver": "x", "present": True}
        ),
        "0x0042 of 0000:01:00.0: driver none -> x, present no -> yes",
    ),
    (lines.MarkPart(what="given", **_WHERE, **_MARK), "0x0042 of 0000:01:00.0: mark migratable given by root"),
    (
        lines.MarkPart(what="broken", **_WHERE, **{**_MARK, "expires_at": AT}, broken_by=("it went offline",)),
        "mark migratable broken, ends at 2026-11-28 16:50:02 UTC: it went offline",
    ),
    (
        lines.SessionPart(side="source", before="open", state="suspending", over=False, **_SESSION),
        "session aaaaaaaa, 0x0042 to ssh://b: open -> suspending",
    ),
    (
        lines.SessionPart(side="destination", before=None, state="running", over=True, **_SESSION),
        "0x0042 from ssh://b: running, which is its end",
    ),
    (lines.ManifestPart(**_WHERE, old=None, new="sha256:0123456789abcdef"), "manifest none -> sha256:0123456789ab"),
    (lines.Overrun(of="uevents", lost=None), "uevents were lost"),
    (lines.Overrun(of="programs", lost=2), "2 lines not given to --exec"),
    (lines.Trouble(primary=PF, over=False, message="it hangs", fix="dmesg"), "0000:01:00.0: it hangs; dmesg"),
    (lines.Trouble(primary=None, over=True), "this host can be looked at again"),
    (lines.Ended(why="time"), "ended: time"),
]


def test_every_kind_of_line_has_a_sentence() -> None:
    assert {KINDS[type(part)] for part, _ in SENTENCES} == set(KINDS.values())


@pytest.mark.parametrize(("part", "said"), SENTENCES, ids=lambda value: value if isinstance(value, str) else "")
def test_a_line_reads_as_a_sentence_behind_its_time(part: Record, said: str) -> None:
    kind = KINDS[type(part)]
    body: dict[str, Any] = {kind: part}
    (sentence,) = watching.sentences(json.dumps(WatchLine(number=1, at=AT, kind=kind, **body).to_json()))
    assert sentence.startswith("16:50:02  ")
    assert said in sentence


def test_no_name_of_a_device_reaches_the_terminal_raw() -> None:
    part = lines.PrimaryPart(what="gone", address=PF, node="nv\x1b[2J", serial="")
    text = json.dumps(WatchLine(number=1, at=AT, kind="primary", primary=part).to_json())
    assert "\x1b" not in "".join(watching.sentences(text))


def watched(host: str, *options: str) -> str:
    """Return what a watch prints on a terminal before it ends by itself."""
    reading, terminal = pty.openpty()
    words = [sys.executable, "-m", "nvmelm", "--host", host, "watch", "--count", "2", *options]
    printed = b""
    with subprocess.Popen(words, stdout=terminal, stderr=subprocess.DEVNULL) as process:
        os.close(terminal)
        with suppress(OSError):  # EIO: nobody has the terminal open any more
            while data := os.read(reading, 4096):
                printed += data
    os.close(reading)
    assert process.returncode == 0
    return printed.decode()


def test_on_a_terminal_people_read_sentences(make_host: MakeHost) -> None:
    printed = watched(make_host().name)
    assert "is there; controlled functions in use:" in printed
    assert "{" not in printed


def test_with_json_a_terminal_gets_lines_of_json(make_host: MakeHost) -> None:
    printed = watched(make_host().name, "--json")
    assert [json.loads(line)["kind"] for line in printed.splitlines()] == ["started", "primary"]


def test_sentences_fit_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "terminal_width", lambda: 60)
    monkeypatch.setattr(render, "is_terminal", lambda _: True)
    for part, _ in SENTENCES:
        body: dict[str, Any] = {KINDS[type(part)]: part}
        text = json.dumps(WatchLine(number=1, at=AT, kind=KINDS[type(part)], **body).to_json())
        assert max(map(len, watching.sentences(text))) <= 60
