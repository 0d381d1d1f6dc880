"""Recordings: text that reads well and reads back, nothing secret in it, and a replay that is strict in every field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvmelm.commands import execute, identify, migration
from nvmelm.emulator.host import EmulatedHost, create
from nvmelm.errors import (
    EventMismatchError,
    HostError,
    MalformedError,
    NotSupportedError,
    NvmelmError,
    ReplayMismatchError,
    UsageError,
)
from nvmelm.host import AdminCommand, Host
from nvmelm.host.recording.block import Block
from nvmelm.host.recording.record import RecordingHost
from nvmelm.host.recording.replay import ReplayHost
from nvmelm.host.recording.transcript import Transcript
from nvmelm.hosts import open_host
from nvmelm.inventory.opened import open_primary
from nvmelm.inventory.picture import Role
from nvmelm.prepare import release, sequence

PF = "0000:01:00.0"


def talk(host: Host) -> tuple[Any, ...]:
    """Ask a host a little of everything, and return its answers."""
    sysfs = host.sysfs
    queue = host.open_queue("nvme0")
    answers = (
        host.facts(),
        sysfs.devices("nvme"),
        sysfs.read(f"bus/pci/devices/{PF}/sriov_numvfs"),
        sysfs.exists(f"bus/pci/devices/{PF}/nothing"),
        sysfs.readlink(f"bus/pci/devices/{PF}/driver"),
        sysfs.readlink(f"bus/pci/devices/{PF}/nothing"),
        sysfs.listdir("bus/pci/drivers"),
        sysfs.inode(f"bus/pci/devices/{PF}"),
        queue.max_transfer_bytes,
        queue.submit(identify.controller()),
        host.openers(["vfio/1"]),
        host.mounts(),
        host.claims(),
        host.node_exists("nvme0"),
    )
    sysfs.write(f"bus/pci/devices/{PF}/sriov_numvfs", "2")
    queue.close()
    return answers


@pytest.fixture
def emulated(tmp_path: Path) -> Any:
    with create(tmp_path / "host") as host:
        yield host


@pytest.fixture
def recording(emulated: EmulatedHost, tmp_path: Path) -> Path:
    file = tmp_path / "talk.json"
    with RecordingHost(emulated, file, about="a little of everything") as host:
        talk(host)
    return file


def test_a_replay_answers_as_the_host_did(tmp_path: Path) -> None:
    file = tmp_path / "talk.json"
    with RecordingHost(create(tmp_path / "host"), file) as host:
        told = talk(host)
    with ReplayHost(file) as host:
        assert talk(host) == told


def test_a_recording_is_for_its_owner_alone_and_reads_back_to_the_same_text(recording: Path) -> None:
    assert recording.stat().st_mode & 0o777 == 0o600
    text = recording.read_text()
    assert Transcript.parse(text.encode(), "it").render() == text
    assert max(map(len, text.splitlines())) <= 140


def edited(recording: Path, change: Any) -> Path:
    document = json.loads(recording.read_text())
    change(document)
    recording.write_text(json.dumps(document))
    return recording


FIELDS = {
    "opcode": "0x07",
    "nsid": "0x00000001",
    "cdw10-15": "00000002 00000000 00000000 00000000 00000000 00000000",
    "data_length": 2048,
    "controller": "nvme1",
    "admin": "Something else",
    "cdw2": "0x00000001",
    "timeout_ms": 1,
}


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_of_a_command_is_compared(recording: Path, field: str) -> None:
    def change(document: Any) -> None:
        event = next(event for event in document["events"] if "admin" in event)
        event[field] = FIELDS[field]
        if field == "data_length":
            event.pop("data_in")

    host = ReplayHost(edited(recording, change))
    with pytest.raises((EventMismatchError, MalformedError, NvmelmError)):
        talk(host)


def test_a_write_is_compared_with_its_value(recording: Path) -> None:
    def change(document: Any) -> None:
        document["events"][-1]["value"] = "3"

    with pytest.raises(EventMismatchError) as caught, ReplayHost(edited(recording, change)) as host:
        talk(host)
    assert (caught.value.field, caught.value.expected, caught.value.got) == ("value", "'3'", "'2'")


def test_order_matters(recording: Path) -> None:
    def change(document: Any) -> None:
        document["events"].reverse()

    with pytest.raises(EventMismatchError, match="event 1 of"), ReplayHost(edited(recording, change)) as host:
        talk(host)


def test_nothing_may_be_left_over_and_nothing_more_be_asked(recording: Path) -> None:
    host = ReplayHost(recording)
    with pytest.raises(ReplayMismatchError, match="the end of the session"):
        host.close()
    host = ReplayHost(recording)
    talk(host)
    with pytest.raises(ReplayMismatchError, match="nothing more"):
        host.facts()


def test_an_error_is_raised_again_as_the_same_type(emulated: EmulatedHost, tmp_path: Path) -> None:
    file = tmp_path / "error.json"
    with RecordingHost(emulated, file) as host, pytest.raises(HostError) as first:
        host.sysfs.write(f"bus/pci/devices/{PF}/sriov_numvfs", "99")
    with ReplayHost(file) as host, pytest.raises(HostError) as again:
        host.sysfs.write(f"bus/pci/devices/{PF}/sriov_numvfs", "99")
    assert (again.value.errno, again.value.message, again.value.fix) == (
        first.value.errno,
        first.value.message,
        first.value.fix,
    )


def test_redaction_takes_serial_and_nqn_out_of_text_and_data_alike(emulated: EmulatedHost, tmp_path: Path) -> None:
    file = tmp_path / "redacted.json"
    serial = emulated.sysfs.read("class/nvme/nvme0/serial").strip()
    with RecordingHost(emulated, file, redact=True) as host, open_primary(host, PF, change=True) as pf:
        sequence.prepare(pf, Role.MIGRATABLE, 1, confirm=lambda _: None)
    text = file.read_text()
    assert serial not in text
    assert " ".join(f"{byte:02x}" for byte in serial.encode()) not in text
    with ReplayHost(file) as host, open_primary(host, PF, change=True) as pf:
        report = sequence.prepare(pf, Role.MIGRATABLE, 1, confirm=lambda _: None)
    assert report.changed
    assert report.picture is not None
    assert "REDACTED" in report.picture.primary.serial


def test_the_state_of_a_controller_is_never_written_down(emulated: EmulatedHost, tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    with open_primary(emulated, PF, change=True) as pf:
        sequence.prepare(pf, Role.MIGRATABLE, 1, confirm=lambda _: None)
    command = migration.get_state(0x42, offset=0, length=4096, version_index=1, uuid_index=1)
    with RecordingHost(emulated, file) as host:
        data = execute(host.open_queue("nvme0"), command).data
    assert data[48:].strip(b"\0")
    assert "withheld * 4048 sha256" in file.read_text()
    with pytest.raises(NotSupportedError, match="does not hold"), ReplayHost(file) as host:
        host.open_queue("nvme0").submit(command)


def test_what_the_host_remembered_stands_in_front(emulated: EmulatedHost, tmp_path: Path) -> None:
    with open_primary(emulated, PF, change=True) as pf:
        sequence.prepare(pf, Role.MIGRATABLE, 1, confirm=lambda _: None)
    file = tmp_path / "release.json"
    with RecordingHost(emulated, file) as host, open_primary(host, PF, change=True) as pf:
        told = release.release(pf, confirm=lambda _: None)
    assert sorted(json.loads(file.read_text())["before"]) == [f"journal/{PF}.jsonl", f"marks/{PF}/0x0042.json"]
    with ReplayHost(file) as host, open_primary(host, PF, change=True) as pf:
        assert release.release(pf, confirm=lambda _: None) == told


@pytest.mark.parametrize("name", ["../marks/x.json", "marks/../../x.json", "/etc/passwd", "locks/a.json", "marks"])
def test_a_recording_cannot_put_a_file_elsewhere(recording: Path, name: str) -> None:
    def change(document: Any) -> None:
        document["before"] = {name: ["{}"]}

    with pytest.raises(MalformedError):
        ReplayHost(edited(recording, change))


@given(st.binary(max_size=200))
@settings(max_examples=60)
def test_any_bytes_are_a_transcript_or_malformed(raw: bytes) -> None:
    with pytest.raises(MalformedError):
        Transcript.parse(raw, "it")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda part: st.lists(part, max_size=4) | st.dictionaries(st.text(max_size=10), part, max_size=4),
    max_leaves=20,
)


@given(JSON)
@settings(max_examples=100)
def test_any_events_are_a_transcript_or_malformed(events: Any) -> None:
    source = {"recorded_on": "x", "kernel": "x", "nvmelm": "x"}
    document = {"format": 1, "about": "", "source": source, "events": events}
    try:
        Transcript.parse(json.dumps(document).encode(), "it")
    except MalformedError:
        return
    assert events == []


@given(st.binary(min_size=1, max_size=300))
def test_data_reads_back_from_its_lines(data: bytes) -> None:
    block = Block.of(data)
    assert Block.validate_json(block.lines()).lines() == block.lines()
    assert block.difference(data) is None


@pytest.mark.parametrize("spec", ["", "remote", "emulated:", "replay:", "emulated"])
def test_a_host_is_named_in_one_of_three_forms(spec: str) -> None:
    with pytest.raises(UsageError, match="names no host"):
        open_host(spec)


def test_a_command_that_is_not_the_builders_is_compared_too(recording: Path) -> None:
    host = ReplayHost(recording)
    with pytest.raises(ReplayMismatchError):
        host.open_queue("nvme0").submit(AdminCommand(name="Identify (Identify Controller)", opcode=6))
