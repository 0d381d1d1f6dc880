"""Under systemd errors and changes go to the journal with fields; a fake journal reads them by its protocol."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvmelm.cli import main
from nvmelm.cli.frame import logs
from nvmelm.errors import BusyError

Entry = dict[str, list[str]]


def decode(data: bytes) -> list[tuple[str, str]]:
    """Read an entry as systemd's "Native Journal Protocol" says: NAME=value, or NAME, its length and the value."""
    fields = []
    while data:
        line, _, rest = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if equals:
            data = rest
        else:
            length = int.from_bytes(rest[:8], "little")
            value, data = rest[8 : 8 + length], rest[8 + length :]
            assert data[:1] == b"\n"
            data = data[1:]
        fields.append((name.decode("ascii"), value.decode()))
    return fields


def gathered(fields: list[tuple[str, str]]) -> Entry:
    entry: Entry = {}
    for name, value in fields:
        entry.setdefault(name, []).append(value)
    return entry


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[Entry]]]:
    """A journal that keeps what it is sent; a call returns that."""
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as listening:
        listening.bind(str(path))
        monkeypatch.setattr(logs, "SOCKET", path)

        def received() -> list[Entry]:
            entries = []
            while True:
                try:
                    entries.append(gathered(decode(listening.recv(1 << 20))))
                except BlockingIOError:
                    return entries

        yield received


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NVMELM_HOST", f"emulated:{tmp_path}/host")


def connect(monkeypatch: pytest.MonkeyPatch, stream: object) -> None:
    """Do as systemd does: name the stream that is the journal."""
    about = os.fstat(stream.fileno())  # type: ignore[attr-defined]
    monkeypatch.setenv("JOURNAL_STREAM", f"{about.st_dev}:{about.st_ino}")


@given(st.lists(st.tuples(st.sampled_from(["MESSAGE", "NVMELM_DEVICE"]), st.text(max_size=200))))
def test_what_is_encoded_is_read_back_whatever_it_holds(fields: list[tuple[str, str]]) -> None:
    readable = [
        (name, value) for name, value in fields if not any(0xD800 <= ord(character) < 0xE000 for character in value)
    ]
    assert decode(logs.encode(readable)) == readable


def test_a_value_that_looks_like_fields_stays_one_value() -> None:
    hostile = "nvme0\nPRIORITY=0\nMESSAGE=all is well\n"
    assert decode(logs.encode([("NVMELM_DEVICE", hostile)])) == [("NVMELM_DEVICE", hostile)]


def test_the_entry_of_an_error_says_what_why_and_what_next_and_names_its_session() -> None:
    session = "0123456789abcdef0123456789abcdef"
    error = BusyError(f"session {session} has it", cause="it moves\x1b[2J", fix="nvmelm recover", reason="in-session")
    entry = gathered(logs.error_entry(error, "migrate", [("NVMELM_DEVICE", "0000:01:00.0")]))
    assert entry == {
        "MESSAGE": [f"session {session} has it\ncause: it moves\\x1b[2J\nfix: nvmelm recover"],
        "PRIORITY": ["3"],
        "SYSLOG_IDENTIFIER": ["nvmelm"],
        "NVMELM_VERB": ["migrate"],
        "NVMELM_DEVICE": ["0000:01:00.0"],
        "NVMELM_SESSION": [session],
        "NVMELM_KIND": ["busy"],
        "NVMELM_REASON": ["in-session"],
        "NVMELM_EXIT_CODE": ["5"],
    }


def test_the_entry_of_a_migration_names_both_devices_and_controllers_and_the_session_but_no_picture() -> None:
    document = {
        "session": "ab" * 16,
        "changed": True,
        "dry_run": False,
        "source_primary": "0000:01:00.0",
        "controllers": [{"source_cntlid": 0x42, "destination_cntlid": 0x51}],
        "picture": {"secondaries": [{"cntlid": 7}]},
    }
    (fields,) = logs.change_entries(document, "migrate")
    entry = gathered(fields)
    assert entry["MESSAGE"] == ["migrate: done"]
    assert entry["PRIORITY"] == ["5"]
    assert entry["NVMELM_SESSION"] == ["ab" * 16]
    assert entry["NVMELM_DEVICE"] == ["0000:01:00.0"]
    assert entry["NVMELM_CNTLID"] == ["0x0042"]


def test_a_plan_leaves_no_entry() -> None:
    assert list(logs.change_entries({"dry_run": True, "changed": False}, "release")) == []


@pytest.mark.usefixtures("host")
def test_a_changing_verb_sends_each_change_and_one_entry_for_the_whole(
    journal: Callable[[], list[Entry]], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    connect(monkeypatch, sys.stderr)
    assert main(["sriov", "enable", "nvme0", "--vfs", "1"]) == 0
    *changes, whole = journal()
    assert [change["MESSAGE"] for change in changes][-1] == ["sriov enable: enable 1 VF"]
    assert all(change["NVMELM_DEVICE"] == ["0000:01:00.0"] and change["PRIORITY"] == ["6"] for change in changes)
    assert all("NVMELM_STEP" in change for change in changes)
    assert whole["MESSAGE"] == ["sriov enable: done"]
    assert whole["NVMELM_EXIT_CODE"] == ["0"]
    assert "enable 1 VF" in capfd.readouterr().out  # stdout is not the journal here, so the answer is printed too


@pytest.mark.usefixtures("host")
def test_each_change_names_the_controller_it_is_about_and_the_whole_what_was_asked_for(
    journal: Callable[[], list[Entry]], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["sriov", "enable", "nvme0", "--vfs", "2"]) == 0
    connect(monkeypatch, sys.stderr)
    assert main(["secondary", "assign", "nvme0", "0x43", "--vq", "2", "--vi", "2"]) == 0
    *changes, whole = journal()
    assert len(changes) >= 2
    assert all(entry["NVMELM_CNTLID"] == ["0x0043"] for entry in (*changes, whole))
    assert main(["secondary", "assign", "nvme0", "0x43", "--vq", "2", "--vi", "2"]) == 0
    (nothing,) = journal()
    assert nothing["MESSAGE"] == ["secondary assign: nothing to do"]
    assert nothing["PRIORITY"] == ["6"]
    assert capfd.readouterr().err == ""


@pytest.mark.usefixtures("host")
def test_an_error_is_sent_with_its_device_and_controller_and_not_printed_as_well(
    journal: Callable[[], list[Entry]], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    connect(monkeypatch, sys.stderr)
    code = main(["state", "resume", "nvme0", "0x42", "--yes"])
    (entry,) = journal()
    assert entry["NVMELM_DEVICE"] == ["0000:01:00.0"]
    assert entry["NVMELM_CNTLID"] == ["0x0042"]
    assert entry["NVMELM_VERB"] == ["state resume"]
    assert entry["NVMELM_EXIT_CODE"] == [str(code)]
    assert capfd.readouterr().err == ""


@pytest.mark.usefixtures("host")
def test_a_journal_that_is_not_there_costs_nothing_but_the_fields(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logs, "SOCKET", tmp_path / "nobody")
    connect(monkeypatch, sys.stderr)
    assert main(["show", "nothing"]) == 2
    assert "error: " in capfd.readouterr().err


@pytest.mark.usefixtures("host")
def test_a_variable_that_was_inherited_and_names_another_stream_changes_nothing(
    journal: Callable[[], list[Entry]], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "1:2")
    assert main(["show", "nothing"]) == 2
    assert journal() == []
    assert "error: " in capfd.readouterr().err


@pytest.mark.usefixtures("host")
def test_the_answer_of_a_change_is_not_said_twice_when_stdout_is_the_journal_too(
    journal: Callable[[], list[Entry]], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", sys.stderr)
    connect(monkeypatch, sys.stderr)
    assert main(["sriov", "enable", "nvme0", "--vfs", "1"]) == 0
    assert journal()
    assert main(["list"]) == 0
    assert capfd.readouterr().err.startswith("NODE ")


def test_a_closed_stream_is_no_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "1:2")
    with Path(os.devnull).open() as stream:
        pass
    assert not logs.is_journal(stream)
    assert not logs.is_journal(None)


def test_nothing_of_it_is_imported_outside_systemd() -> None:
    script = (
        "import sys; from nvmelm.cli import main; main(['show', 'x']); sys.exit('nvmelm.cli.frame.logs' in sys.modules)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "JOURNAL_STREAM"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, check=False)
    assert done.returncode == 0


def test_a_long_value_is_cut_so_that_the_entry_fits_a_datagram() -> None:
    ((_, value),) = decode(logs.encode([("MESSAGE", "x" * 1_000_000)]))
    assert len(value) == 8192
