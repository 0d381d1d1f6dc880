"""Every method and field of a recording, over a host of dictionaries: what is kept, left out, compared, refused."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nvmelm import errors
from nvmelm.commands import migration
from nvmelm.errors import (
    EventMismatchError,
    HostError,
    MalformedError,
    NotSupportedError,
    ReplayMismatchError,
    UsageError,
)
from nvmelm.host import AdminCommand, Completion, Host, Opener
from nvmelm.host.recording.block import Block
from nvmelm.host.recording.events import AdminEvent, RecordedFault
from nvmelm.host.recording.record import RecordingHost
from nvmelm.host.recording.redact import stand_in
from nvmelm.host.recording.replay import ReplayHost
from nvmelm.host.recording.transcript import Transcript
from nvmelm.hosts import open_host
from nvmelm.wire.opcodes import Sequence
from tests.unit.fakes import FakeController, FakeHost, FakeQueue, queue_state, state_header

# The sample of the documentation, typed by hand.
SAMPLE = """{
  "format": 1,
  "about": "saving the state of a controller that was not suspended is refused",
  "source": {"recorded_on": "emulated", "kernel": "6.1.0", "nvmelm": "0.1.0", "edited": "no"},
  "events": [
    {"sysfs": "read", "path": "class/nvme/nvme0/cntlid", "value": "0"},
    {"host": "open_queue", "subject": "nvme0"},
    {"admin": "Migration Receive (Get Controller State)", "controller": "nvme0", "opcode": "0x42",
     "nsid": "0x00000000", "cdw10-15": "00010000 00000041 00000000 00000000 00000000 0000000b", "data_length": 48,
     "status": "0x0000",
     "data_in": [
       "0000: zero * 16",
       "0010: 0e 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00",
       "0020: zero * 16"
     ]}
  ]
}
"""
SERIAL, NQN = "S5XXNF0R123456", "nqn.2014-08.org.nvmexpress:uuid:2c5f1c4d"
VIRT_MGMT = AdminCommand(name="Virtualization Management", opcode=0x1C, cdw10=0x0001_0008, cdw11=2)


def identify(serial: str = SERIAL, nqn: str = NQN) -> bytes:
    raw = bytearray(4096)
    raw[4:24] = serial.encode().ljust(20)
    raw[24:64] = b"A Controller".ljust(40)
    raw[64:72] = b"FW1".ljust(8)
    raw[768:1024] = nqn.encode().ljust(256, b"\0")
    return bytes(raw)


class Queue(FakeQueue):
    """Migration commands as the fake obeys them, Identify Controller, and whatever is a Virtualization Management."""

    def submit(self, command: AdminCommand) -> Completion:
        if command.opcode == 0x06:
            return Completion(0, 0, identify())
        if command.opcode == 0x1C:
            return Completion(0x4120, 0x1_0000_0002)
        return super().submit(command)


def make_host(directory: Path) -> FakeHost:
    controllers = {1: FakeController(queue_state(1), b"secrets!", suspended=True), 2: FakeController(queue_state(0))}
    texts = {
        "class/nvme/nvme0/serial": SERIAL + "      ",
        "class/nvme/nvme0/subsysnqn": NQN,
        "class/nvme/nvme0/wwid": f"nvme.1b36-{SERIAL.encode().hex()}-00000001",
        "class/nvme/nvme0/model": "A Controller",
        "device/resource": "0x1 0x2\n0x3 0x4\n",
    }
    openers = [Opener("vfio/7", 4711, "qemu"), Opener("nvme0", 4712, "smartd"), Opener("vfio/8", 4711, "qemu")]
    return FakeHost(directory, texts, {"nvme0": Queue(controllers, uuids=1)}, openers)


IDENTIFY = AdminCommand(name="Identify Controller", opcode=0x06, cdw10=1, data_in_length=4096)
HEADER = migration.get_state(1, offset=0, length=48, version_index=1)
WHOLE = migration.get_state(1, offset=0, length=112, version_index=1, uuid_index=1)
STATE = state_header(14, 2, suspended=True) + queue_state(1) + b"secrets!"
SET = migration.set_state(1, STATE, offset=0, sequence=Sequence.ONLY, version_index=1, uuid_index=1)


def attempt(call: Callable[[], Any]) -> Any:
    """Return a call's answer, or its error in a form that can be compared."""
    try:
        return call()
    except errors.NvmelmError as error:
        about = (error.message, error.cause, error.fix, error.reason)
        return type(error), about, getattr(error, "path", ""), getattr(error, "errno", 0)


def session(host: Host) -> list[Any]:
    """Use every method of a host, and return what came back."""
    sysfs = host.sysfs
    queue = host.open_queue("nvme0")
    facts = host.facts()
    calls: list[Callable[[], Any]] = [
        lambda: sysfs.read("class/nvme/nvme0/serial"),
        lambda: sysfs.read("device/resource"),
        lambda: sysfs.read("nowhere"),
        lambda: sysfs.write("device/sriov_numvfs", "4"),
        lambda: sysfs.write("busy/sriov_numvfs", "4"),
        lambda: sysfs.write("device/new_id", "a\nb"),
        lambda: [sysfs.readlink("link/driver"), sysfs.readlink("none")],
        lambda: [sysfs.listdir("class/nvme/nvme0"), sysfs.listdir("none")],
        lambda: [sysfs.exists("device/resource"), sysfs.exists("none")],
        lambda: sysfs.devices("nvme"),
        lambda: sysfs.inode("a") == sysfs.inode("b") != sysfs.inode("cc"),
        lambda: [(opener.node, opener.name) for opener in host.openers(["vfio/7", "vfio/8"])],
        lambda: len({opener.pid for opener in host.openers(["vfio/7", "nvme0", "vfio/8"])}),
        lambda: host.mounts(),
        lambda: [host.node_exists("nvme0"), host.node_exists("nvme9")],
        lambda: host.load_module("vfio-pci"),
        lambda: host.open_queue("nvme7"),
        lambda: (facts.kernel_release, facts.privileged),
        lambda: queue.max_transfer_bytes,
        lambda: queue.submit(IDENTIFY),
        lambda: queue.submit(HEADER),
        lambda: queue.submit(VIRT_MGMT),
        lambda: queue.submit(SET),
        lambda: queue.submit(migration.get_state(9, offset=0, length=112, version_index=1)),
    ]
    answers = [attempt(call) for call in calls]
    queue.close()
    return answers


def record(directory: Path, run: Callable[[Host], Any] = session, **more: Any) -> tuple[Path, Any]:
    path = directory / "recording.json"
    with RecordingHost(make_host(directory), path, about="a session", **more) as host:
        return path, run(host)


def test_the_documented_sample_is_read_and_written_back_as_it_is() -> None:
    transcript = Transcript.parse(SAMPLE.encode(), "sample")
    assert transcript.render() == SAMPLE
    event = transcript.events[2]
    assert isinstance(event, AdminEvent)
    assert (event.opcode, event.words[1], event.status) == (0x42, 0x41, 0)
    assert event.data_in is not None
    assert event.data_in.data() == state_header(14, 0, suspended=False)


def test_a_replayed_session_gives_the_answers_of_the_recorded_one(tmp_path: Path) -> None:
    path, answers = record(tmp_path)
    with ReplayHost(path) as host:
        assert session(host) == answers
        assert host.kind == "replay"


def test_a_recorded_session_gives_the_answers_of_the_real_one(tmp_path: Path) -> None:
    assert record(tmp_path)[1] == session(make_host(tmp_path))


def test_a_recording_is_read_back_as_the_same_text(tmp_path: Path) -> None:
    path, _ = record(tmp_path)
    assert Transcript.load(path).render() == path.read_text()


def test_two_recordings_of_one_session_are_the_same_bytes_whatever_the_pids_are(tmp_path: Path) -> None:
    first = record(tmp_path)[0].read_bytes()
    host = make_host(tmp_path)
    host.open_by = [Opener(one.node, one.pid + 1000, one.name) for one in host.open_by]
    with RecordingHost(host, tmp_path / "second.json", about="a session") as recording:
        session(recording)
    assert (tmp_path / "second.json").read_bytes() == first


def test_pids_are_not_written(tmp_path: Path) -> None:
    assert "4711" not in record(tmp_path)[0].read_text()


def test_a_recording_keeps_to_short_lines(tmp_path: Path) -> None:
    lines = record(tmp_path)[0].read_text().splitlines()
    assert max(len(line) for line in lines if '"error"' not in line) <= 120
    assert '       "0000: 00 00 00 00 53 35 58 58 4e 46 30 52 31 32 33 34",' in lines


def test_a_recording_is_its_owners_and_nothing_lies_beside_it(tmp_path: Path) -> None:
    path, _ = record(tmp_path)
    assert path.stat().st_mode & 0o7777 == 0o600
    assert [one.name for one in tmp_path.iterdir()] == ["recording.json"]


def test_a_session_that_fails_is_recorded_too(tmp_path: Path) -> None:
    def fail(host: Host) -> None:
        host.sysfs.read("nowhere")

    with pytest.raises(HostError):
        record(tmp_path, fail)
    with pytest.raises(HostError) as caught, ReplayHost(tmp_path / "recording.json") as host:
        fail(host)
    assert (caught.value.errno, caught.value.fix) == (2, "look elsewhere")


def test_a_place_that_cannot_be_written_fails_before_anything_is_asked(tmp_path: Path) -> None:
    host = make_host(tmp_path)
    with pytest.raises(HostError):
        RecordingHost(host, tmp_path / "nowhere" / "recording.json")
    with pytest.raises(UsageError):
        RecordingHost(host, tmp_path)
    assert not any(tmp_path.iterdir())


def test_a_session_that_is_too_long_goes_on_without_a_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nvmelm.host.recording.record.MAX_EVENTS", 3)
    answers = []
    with pytest.raises(NotSupportedError, match="too long") as caught:
        record(tmp_path, lambda host: answers.extend(session(host)))
    assert caught.value.reason == "recording-too-large"
    assert len(answers) == 24
    assert not any(tmp_path.iterdir())


def test_controller_state_is_left_out_but_for_its_header_and_digest(tmp_path: Path) -> None:
    path, _ = record(tmp_path, lambda host: [host.open_queue("nvme0").submit(command) for command in (WHOLE, SET)])
    text = path.read_text()
    assert "73 65 63 72" not in text  # "secr"
    assert re.search(r'"0000: 00 00 01 00 00 .*\n.*\n.*\n *"0030: withheld \* 64 sha256 [0-9a-f]{64}"', text)
    assert text.count("withheld") == 2


def test_replaying_a_state_that_was_left_out_says_so(tmp_path: Path) -> None:
    path, _ = record(tmp_path, lambda host: host.open_queue("nvme0").submit(WHOLE))
    with ReplayHost(path) as host, pytest.raises(NotSupportedError) as caught:
        host.open_queue("nvme0").submit(WHOLE)
    assert caught.value.reason == "recording-without-state"


def test_a_state_that_is_sent_is_compared_by_its_digest_and_never_shown(tmp_path: Path) -> None:
    path, _ = record(tmp_path, lambda host: host.open_queue("nvme0").submit(SET))
    with ReplayHost(path) as host:
        host.open_queue("nvme0").submit(SET)
    other = migration.set_state(
        1, STATE[:-8] + b"altered!", offset=0, sequence=Sequence.ONLY, version_index=1, uuid_index=1
    )
    with ReplayHost(path) as host, pytest.raises(EventMismatchError) as caught:
        host.open_queue("nvme0").submit(other)
    assert (caught.value.event, caught.value.field) == (2, "data_out")
    assert "altered!" not in caught.value.message


def test_controller_state_is_kept_when_that_is_asked_for(tmp_path: Path) -> None:
    path, kept = record(tmp_path, lambda host: host.open_queue("nvme0").submit(WHOLE), keep_state=True)
    with ReplayHost(path) as host:
        assert host.open_queue("nvme0").submit(WHOLE) == kept


@pytest.mark.parametrize(
    ("command", "kept"),
    [
        pytest.param(WHOLE, 48, id="Migration Receive from the start"),
        pytest.param(migration.get_state(1, offset=16, length=64, version_index=1), 32, id="from inside the header"),
        pytest.param(migration.get_state(1, offset=48, length=64, version_index=1), 0, id="from behind the header"),
        pytest.param(migration.get_state(1, offset=1 << 40, length=64, version_index=1), 0, id="from far behind"),
        pytest.param(SET, 48, id="Migration Send"),
        pytest.param(AdminCommand(name="?", opcode=0x41, cdw10=3, data_out=b"1234"), 0, id="an unknown select"),
        pytest.param(AdminCommand(name="?", opcode=0x42, cdw10=1, data_in_length=4), 0, id="another unknown select"),
    ],
)
def test_no_more_than_the_header_of_a_state_is_ever_kept(command: AdminCommand, kept: int) -> None:
    from nvmelm.host.recording.record import state_bytes_kept

    assert state_bytes_kept(command) == kept


def test_serial_numbers_and_nqns_are_replaced_everywhere_by_texts_of_the_same_length(tmp_path: Path) -> None:
    def ask(host: Host) -> tuple[bytes, str, str]:
        sysfs = host.sysfs
        data = host.open_queue("nvme0").submit(IDENTIFY).data
        return data, sysfs.read("class/nvme/nvme0/serial"), sysfs.read("class/nvme/nvme0/subsysnqn")

    path, (plain, *_) = record(tmp_path, ask, redact=True)
    text = path.read_text()
    for secret in (SERIAL, SERIAL.encode().hex(), SERIAL[:12].encode().hex(" "), NQN, NQN[-12:].encode().hex(" ")):
        assert secret not in text
    with ReplayHost(path) as host:
        data, serial, nqn = ask(host)
    assert serial == data[4:24].decode() == "REDACTED000002      "
    assert nqn == data[768:1024].rstrip(b"\0").decode() == "nqn.2014-08.redacted:" + "1".zfill(len(NQN) - 21)
    assert data[24:72] == plain[24:72] == identify()[24:72]


def test_a_short_serial_number_is_replaced_only_where_it_stands(tmp_path: Path) -> None:
    host = make_host(tmp_path)
    host.texts = {"class/nvme/nvme0/serial": "nvme", "class/nvme/nvme0/cntlid": "1"}
    path = tmp_path / "recording.json"
    with RecordingHost(host, path, redact=True) as recording:
        recording.sysfs.read("class/nvme/nvme0/serial")
        recording.sysfs.read("class/nvme/nvme0/cntlid")
    with ReplayHost(path) as replay:
        assert replay.sysfs.read("class/nvme/nvme0/serial") == "RED1"
        assert replay.sysfs.read("class/nvme/nvme0/cntlid") == "1"


@given(secret=st.text(min_size=1, max_size=60), number=st.integers(1, 99))
def test_a_stand_in_has_the_length_of_the_secret(secret: str, number: int) -> None:
    assert len(stand_in(secret, number)) == len(secret)
    assert len(stand_in(f"nqn.{secret}", number)) == len(secret) + 4


SYSFS_CHANGES: dict[str, Callable[[Host], Any]] = {
    "sysfs": lambda host: host.sysfs.exists("a"),
    "path": lambda host: host.sysfs.write("b", "4"),
    "value": lambda host: host.sysfs.write("a", "5"),
    "event": lambda host: host.facts(),
}


@pytest.mark.parametrize("field", SYSFS_CHANGES)
def test_a_file_access_that_differs_in_one_field_is_named(tmp_path: Path, field: str) -> None:
    path, _ = record(tmp_path, lambda host: host.sysfs.write("a", "4"))
    with pytest.raises(EventMismatchError) as caught, ReplayHost(path) as host:
        SYSFS_CHANGES[field](host)
    assert (caught.value.event, caught.value.field) == (1, field)
    assert f"event 1 of 1, field {field}: the recording has " in caught.value.message


COMMAND_CHANGES: dict[str, dict[str, Any]] = {
    "admin": {"name": "Another"},
    "opcode": {"opcode": 0x1D},
    "nsid": {"nsid": 1},
    "cdw2": {"cdw2": 1},
    "cdw3": {"cdw3": 1},
    "cdw10": {"cdw10": 0},
    "cdw11": {"cdw11": 0},
    "cdw12": {"cdw12": 1},
    "cdw13": {"cdw13": 1},
    "cdw14": {"cdw14": 1},
    "cdw15": {"cdw15": 1},
    "data_length": {"data_out": b"12345"},
    "data goes out": {"data_out": None, "data_in_length": 4},
    "data_out": {"data_out": b"1235"},
    "timeout_ms": {"timeout_ms": 1},
}


@pytest.mark.parametrize("field", COMMAND_CHANGES)
def test_a_command_that_differs_in_one_field_is_named(tmp_path: Path, field: str) -> None:
    values = {"name": "Something", "opcode": 0x1C, "cdw10": 8, "cdw11": 2, "data_out": b"1234"}
    path, _ = record(tmp_path, lambda host: host.open_queue("nvme0").submit(AdminCommand(**values)))
    with pytest.raises(EventMismatchError) as caught, ReplayHost(path) as host:
        host.open_queue("nvme0").submit(AdminCommand(**values | COMMAND_CHANGES[field]))
    assert (caught.value.event, caught.value.field) == (2, field)


HOST_CALLS: list[tuple[Callable[[Any], Any], Callable[[Any], Any]]] = [
    (lambda host: host.openers(["nvme0"]), lambda host: host.openers(["nvme1"])),
    (lambda host: host.node_exists("nvme0"), lambda host: host.node_exists("nvme1")),
    (lambda host: host.load_module("vfio-pci"), lambda host: host.load_module("vfio")),
    (lambda host: host.open_queue("nvme0"), lambda host: host.open_queue("nvme1")),
    (lambda host: host.mounts(), lambda host: host.facts()),
    (lambda host: host.sysfs.inode("a"), lambda host: host.sysfs.inode("b")),
    (lambda host: host.sysfs.readlink("a"), lambda host: host.sysfs.read("a")),
    (lambda host: host.sysfs.devices("nvme"), lambda host: host.sysfs.devices("pci")),
    (lambda host: host.sysfs.listdir("a"), lambda host: host.sysfs.listdir("b")),
]


@pytest.mark.parametrize(("recorded", "asked"), HOST_CALLS)
def test_another_question_to_the_host_is_a_mismatch(
    tmp_path: Path, recorded: Callable[[Any], Any], asked: Callable[[Any], Any]
) -> None:
    path, _ = record(tmp_path, recorded)
    with pytest.raises(ReplayMismatchError), ReplayHost(path) as host:
        asked(host)


def test_a_controllers_events_are_not_anothers(tmp_path: Path) -> None:
    path, _ = record(tmp_path, lambda host: host.open_queue("nvme0").submit(VIRT_MGMT))
    path.write_text(path.read_text().replace('"controller": "nvme0"', '"controller": "nvme1"'))
    with pytest.raises(EventMismatchError) as caught, ReplayHost(path) as host:
        host.open_queue("nvme0").submit(VIRT_MGMT)
    assert (caught.value.field, caught.value.expected, caught.value.got) == ("controller", "'nvme1'", "'nvme0'")


def test_the_order_of_events_matters(tmp_path: Path) -> None:
    path, _ = record(tmp_path, lambda host: [host.sysfs.exists("a"), host.sysfs.exists("b")])
    with pytest.raises(ReplayMismatchError), ReplayHost(path) as host:
        host.sysfs.exists("b")


def test_an_event_that_nobody_asked_for_is_an_error_at_the_end(tmp_path: Path) -> None:
    path, _ = record(tmp_path, lambda host: [host.sysfs.exists("a"), host.sysfs.exists("b")])
    with pytest.raises(EventMismatchError) as caught, ReplayHost(path) as host:
        host.sysfs.exists("a")
    assert (caught.value.event, caught.value.got) == (2, "'the end of the session'")


def test_a_session_that_fails_before_its_recording_ends_is_a_mismatch_that_keeps_the_error(tmp_path: Path) -> None:
    path, _ = record(tmp_path, lambda host: host.sysfs.exists("a"))
    problem = MalformedError("nonsense")
    with pytest.raises(EventMismatchError) as caught, ReplayHost(path):
        raise problem
    assert caught.value.__cause__ is problem
    with pytest.raises(KeyboardInterrupt), ReplayHost(path):
        raise KeyboardInterrupt


def test_one_question_too_many_is_a_mismatch(tmp_path: Path) -> None:
    path, _ = record(tmp_path, lambda host: host.sysfs.exists("a"))
    with ReplayHost(path) as host:
        host.sysfs.exists("a")
        with pytest.raises(EventMismatchError, match="nothing more"):
            host.sysfs.exists("a")


def test_marks_and_journals_of_a_replay_live_in_a_private_directory_that_vanishes(tmp_path: Path) -> None:
    path, _ = record(tmp_path, lambda host: None)
    with ReplayHost(path) as host:
        directory = host.state_dir
        assert directory.stat().st_mode & 0o7777 == 0o700
        (directory / "mark").write_text("x")
    assert not directory.exists()


def test_every_kind_of_error_comes_back_as_itself() -> None:
    for kind in vars(errors).values():
        if not (isinstance(kind, type) and issubclass(kind, errors.NvmelmError) and "kind" in vars(kind)):
            continue
        if "__init__" not in vars(kind) or kind in (errors.NvmelmError, HostError):
            more = {"path": "/sys/x", "errno": 16} if issubclass(kind, HostError) else {}
            error = kind("what", cause="why", fix="do", reason="word", **more)
            back = RecordedFault.of(error).error()
            assert type(back) is kind
            assert vars(back) == vars(error)


def test_an_error_that_is_narrower_than_its_kind_comes_back_as_its_kind() -> None:
    back = RecordedFault.of(errors.CopyLostError("gone", cause="reset", fix="recover")).error()
    assert (type(back), back.reason) == (errors.UncertainError, "target-gone")


def test_an_unknown_errno_is_kept_as_a_number() -> None:
    back = RecordedFault.of(HostError("what", errno=4095)).error()
    assert isinstance(back, HostError)
    assert back.errno == 4095


def test_calls_from_several_threads_are_recorded_one_at_a_time(tmp_path: Path) -> None:
    def many(host: Host) -> None:
        threads = [threading.Thread(target=host.sysfs.exists, args=(f"path{number}",)) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    path, _ = record(tmp_path, many)
    assert len(Transcript.load(path).events) == 20
    assert ReplayHost(path).serial


EVENT = '{"sysfs": "exists", "path": "a", "value": true}'
ADMIN: dict[str, Any] = {
    "admin": "x",
    "controller": "nvme0",
    "opcode": "0x42",
    "nsid": "0x00000000",
    "cdw10-15": " ".join(["00000000"] * 6),
    "data_length": 4,
    "status": "0x0000",
    "data_in": ["0000: 01 02 03 04"],
}


def document(*events: str, number: str = "1") -> bytes:
    source = '{"recorded_on": "x", "kernel": "x", "nvmelm": "x"}'
    return f'{{"format": {number}, "about": "", "source": {source}, "events": [{", ".join(events)}]}}'.encode()


def test_the_malformed_documents_below_are_near_good_ones() -> None:
    assert len(Transcript.parse(document(EVENT, json.dumps(ADMIN)), "x").events) == 2


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\xff\xfe", id="binary"),
        pytest.param(b"[" * 100_000, id="nested"),
        pytest.param(b"1" * 100_000, id="a long number"),
        pytest.param(b"[]", id="no object"),
        pytest.param(b"{}", id="no format"),
        pytest.param(document(EVENT, number="2"), id="newer format"),
        pytest.param(document(EVENT, number="true"), id="true is no format"),
        pytest.param(document("{}"), id="empty event"),
        pytest.param(document("7"), id="event is no object"),
        pytest.param(document(EVENT.replace("exists", "chmod")), id="unknown access"),
        pytest.param(document(EVENT.replace("true", '"true"')), id="wrong type"),
        pytest.param(document(EVENT.replace('"path": "a", ', "")), id="missing field"),
        pytest.param(document(EVENT.replace("}", ', "x": 1}')), id="unknown field"),
        pytest.param(document('{"sysfs": "inode", "path": "a", "value": true}'), id="true is no inode"),
        pytest.param(document('{"host": "facts", "value": 1}'), id="facts that are none"),
        pytest.param(document('{"host": "openers", "value": []}'), id="openers of nothing"),
        pytest.param(
            document('{"host": "mounts", "value": [{"node": "a", "pid": 1, "name": "b"}]}'), id="mounts that are none"
        ),
        pytest.param(
            document('{"sysfs": "read", "path": "a", "error": {"kind": "nope", "message": ""}}'), id="unknown error"
        ),
        pytest.param(
            document('{"sysfs": "read", "path": "a", "error": {"kind": "host", "message": "", "errno": "EX"}}'),
            id="unknown errno",
        ),
        *(
            pytest.param(document(json.dumps(ADMIN | change)), id=f"admin {name}")
            for name, change in {
                "opcode": {"opcode": "0x4"},
                "opcode sign": {"opcode": "0x-1"},
                "opcode as a number": {"opcode": 256},
                "words as numbers": {"cdw10-15": [0] * 6},
                "a word with an underscore": {"cdw10-15": " ".join(["0000_000"] * 6)},
                "words": {"cdw10-15": "00000000"},
                "word": {"cdw10-15": " ".join(["0000000g"] * 6)},
                "length": {"data_length": 8},
                "huge length": {"data_length": 1 << 40},
                "negative length": {"data_length": -4},
                "neither status nor error": {"status": None},
                "both directions": {"data_out": ["0000: 01 02 03 04"]},
                "offset": {"data_in": ["0001: 01 02 03 04"]},
                "line": {"data_in": ["0000: 01 02 03 4"]},
                "line type": {"data_in": [1]},
                "no list": {"data_in": "0000: 01 02 03 04"},
                "huge run": {"data_in": ["0000: zero * 99999999"], "data_length": 99999999},
                "digest": {"data_in": ["0000: withheld * 4 sha256 00"]},
            }.items()
        ),
    ],
)
def test_a_file_that_is_no_transcript_is_refused(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(raw)
    with pytest.raises(MalformedError) as caught:
        ReplayHost(path)
    assert len(caught.value.message) < 1000


def test_a_file_that_is_too_long_is_refused_before_it_is_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nvmelm.host.recording.transcript.MAX_FILE_BYTES", 100)
    path = tmp_path / "x.json"
    path.write_bytes(b" " * 101)
    with pytest.raises(MalformedError, match="longer"):
        ReplayHost(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="nowhere"):
        ReplayHost(tmp_path / "nowhere")


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*ADMIN, "host", "sysfs"]), inner),
    max_leaves=8,
)


@settings(max_examples=200)
@given(change=st.dictionaries(st.sampled_from([*ADMIN, "error", "result", "data_out", "host", "path"]), _json))
def test_an_event_of_random_values_is_read_or_refused(change: dict[str, Any]) -> None:
    try:
        transcript = Transcript.parse(document(json.dumps(ADMIN | change)), "x")
    except MalformedError:
        return
    assert Transcript.parse(transcript.render().encode(), "x") == transcript


@settings(max_examples=200)
@given(st.binary(max_size=200), st.integers(0, 200))
@example(bytes(4096), 0)
@example(bytes(17) + b"\1" + bytes(30), 16)
def test_data_is_read_back_as_it_was_written(data: bytes, keep: int) -> None:
    block = Block.of(data)
    assert Block.parse(block.lines()).data() == data
    assert Block.parse(block.lines()).lines() == block.lines()
    secret = Block.parse(Block.of(data, keep=keep).lines())
    assert secret.length == len(data)
    assert secret.withheld == (keep < len(data))
    assert secret.difference(data) is None
    if data:
        assert secret.difference(data[:-1] + bytes([data[-1] ^ 1])) is not None


def test_runs_of_zeros_are_folded() -> None:
    assert Block.of(b"\x0e" + bytes(15) + bytes(4080)).lines() == [
        "0000: 0e 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00",
        "0010: zero * 4080",
    ]


def test_a_replay_can_be_recorded_again_with_the_same_events(tmp_path: Path) -> None:
    path, _ = record(tmp_path)
    with open_host(f"replay:{path}", record=tmp_path / "again.json") as host:
        session(host)
    assert Transcript.load(tmp_path / "again.json").events == Transcript.load(path).events


def test_a_host_is_closed_when_its_recording_cannot_be_made(tmp_path: Path) -> None:
    path, _ = record(tmp_path, lambda host: None)
    with pytest.raises(HostError):
        open_host(f"replay:{path}", record=tmp_path / "nowhere" / "x.json")
