"""The QMP client against a server that misbehaves in every way a socket can."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from nvmelm.errors import (
    BusyError,
    ExitCode,
    HostError,
    MalformedError,
    NotReadyError,
    NotSupportedError,
    NvmelmError,
    TimedOutError,
    UncertainError,
    UsageError,
)
from nvmelm.inventory.pci import Bdf
from nvmelm.vm.machine import Plan
from nvmelm.vm.qemu import machine as qemu_machine
from nvmelm.vm.qemu import monitor as qmp
from nvmelm.vm.qemu import refusals as qmp_refusals
from nvmelm.vm.qemu.machine import conversation
from nvmelm.vm.qemu.monitor import Monitor, as_sent, printable
from tests.unit.qmp_server import HangUpError, RawError, RefusedError, Server, SilenceError, serving


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "q"


def test_a_question_gets_its_answer_and_the_greeting_names_the_version(path: Path) -> None:
    with serving(path, answers={"query-status": {"status": "paused"}}) as server, Monitor(str(path)) as monitor:
        assert monitor.version == "7.2.22"
        assert monitor.execute("query-status") == {"status": "paused"}
        assert server.asked == [("qmp_capabilities", {"enable": ["oob"]}), ("query-status", {})]


def test_one_monitor_after_another_can_be_opened(path: Path) -> None:
    with serving(path, answers={"query-name": {}}):
        for _ in range(3):
            with Monitor(str(path)) as monitor:
                assert monitor.execute("query-name") == {}


@pytest.mark.parametrize("version", [None, "7.2", {"major": "\x1b[2J"}])
def test_a_greeting_with_a_strange_version_is_no_reason_to_fail(path: Path, version: Any) -> None:
    greeting = {"QMP": {"version": {"qemu": version}, "capabilities": []}}
    with serving(path, greeting=json.dumps(greeting).encode() + b"\n"), Monitor(str(path)) as monitor:
        assert "\x1b" not in monitor.version


def test_no_socket_is_told_with_how_to_make_one(path: Path) -> None:
    with pytest.raises(HostError) as caught, Monitor(str(path)):
        pass
    assert (caught.value.reason, caught.value.errno) == ("qmp-no-socket", errno.ENOENT)
    assert "server=on,wait=off" in caught.value.fix


def test_a_socket_nobody_listens_at_says_that_the_vm_has_ended(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with pytest.raises(HostError) as caught, Monitor(str(path)):
        pass
    assert (caught.value.reason, caught.value.errno) == ("qmp-refused", errno.ECONNREFUSED)


def test_a_file_that_is_no_socket_is_refused(path: Path) -> None:
    path.write_text("no socket")
    with pytest.raises(HostError) as caught, Monitor(str(path)):
        pass
    assert caught.value.reason == "qmp-refused"


@pytest.mark.parametrize("text", ["", "a\0b", "/tmp/" + "x" * 200])
def test_what_cannot_be_a_sockets_path_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError), Monitor(text):
        pass


@pytest.mark.parametrize("greeting", [
    b"QEMU 7.2.22 monitor - type 'help' for more information\r\n(qemu) ",  # -monitor, not -qmp
    b'{"return": {}}\n',
    b'{"QMP": 3}\n',
    b'{"QMP": {"version": 1, "capabilities": []}}\n',
    b"[]\n",
    b"\xff\xfe\n",
    b"[" * 100_000 + b"\n",
    b"",
], ids=["human", "answer", "number", "version", "list", "not-utf8", "deep", "empty-then-hangup"])  # fmt: skip
def test_what_does_not_greet_like_qmp_is_no_qmp_server(path: Path, greeting: bytes) -> None:
    class Hasty(Server):
        def _talk(self, client: socket.socket) -> None:
            client.sendall(greeting)
            raise HangUpError

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)
        thread = threading.Thread(target=Hasty(path).serve, args=(listener,), daemon=True)
        thread.start()
        with pytest.raises(HostError) as caught, Monitor(str(path)):
            pass
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)
    assert caught.value.reason == "qmp-not-qmp"
    assert caught.value.exit_code is ExitCode.FAILED


def test_a_server_that_refuses_negotiation_is_no_qmp_server(path: Path) -> None:
    with (
        serving(path, answers={"qmp_capabilities": RefusedError("no")}),
        pytest.raises(HostError) as caught,
        Monitor(str(path)),
    ):
        pass
    assert caught.value.reason == "qmp-not-qmp"


def test_a_greeting_that_never_comes_ends_at_the_deadline_and_blames_another_client(path: Path) -> None:
    with serving(path, greeting=None), pytest.raises(TimedOutError) as caught, Monitor(str(path), deadline_s=0.2):
        pass
    assert caught.value.reason == "qmp-silent"
    assert "one client" in caught.value.cause


def test_a_monitor_with_a_full_queue_of_clients_ends_at_the_deadline(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(0)
        with socket.socket(socket.AF_UNIX) as other:
            other.connect(str(path))
            with pytest.raises(TimedOutError) as caught, Monitor(str(path), deadline_s=0.2):
                pass
    assert caught.value.reason == "qmp-silent"


@pytest.mark.parametrize("name", ["monitor.sock", "libvirt-sock", "virtqemud-sock"])
def test_libvirts_own_sockets_are_never_opened(tmp_path: Path, name: str) -> None:
    directory = tmp_path / "libvirt" / "qemu"
    directory.mkdir(parents=True)
    with serving(directory / name) as server:
        link = tmp_path / "innocent"
        link.symlink_to(directory / name)
        with pytest.raises(BusyError) as caught, Monitor(str(link)):
            pass
        assert server.asked == []
    assert caught.value.reason == "qmp-libvirt"
    assert "--libvirt" in caught.value.fix


def test_a_socket_of_the_operators_own_in_libvirts_directory_is_fine(tmp_path: Path) -> None:
    directory = tmp_path / "libvirt"
    directory.mkdir()
    with serving(directory / "vm1.qmp"), Monitor(str(directory / "vm1.qmp")):
        pass


def test_an_answer_that_never_comes_ends_at_the_deadline(path: Path) -> None:
    with serving(path, answers={"query-status": SilenceError()}), Monitor(str(path)) as monitor:
        with pytest.raises(TimedOutError) as caught:
            monitor.execute("query-status", deadline_s=0.1)
        assert caught.value.reason == "qmp-silent"


def test_all_questions_share_one_budget_of_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qmp, "LOOK_DEADLINE_S", 0.3)
    monkeypatch.setattr(qmp, "ANSWER_DEADLINE_S", 0.2)
    with serving(path, answers={"query-status": SilenceError()}), Monitor(str(path), deadline_s=5) as monitor:
        waits = []
        for _ in range(3):
            with pytest.raises(TimedOutError) as caught:
                monitor.execute("query-status")
            waits.append(float(caught.value.message.split()[1]))
    assert waits[0] == 0.2
    assert waits[1] <= 0.1
    assert waits[2] == 0


@pytest.mark.parametrize(("answer", "kind", "reason"), [
    (HangUpError(), HostError, "qmp-lost"),
    (RawError(b"\x00\x01garbage\n"), MalformedError, "qmp-garbage"),
    (RawError(b"[1, 2]\n"), MalformedError, "qmp-garbage"),
    (RawError(b"\xff\xfe\n"), MalformedError, "qmp-garbage"),
    (RawError(b"[" * 200_000 + b"\n"), MalformedError, "qmp-garbage"),
    (RawError(b'{"return": {}, "id": {"a": 1}}\n'), MalformedError, "qmp-garbage"),
    (RawError(b'{"error": {"class": "GenericError", "desc": "JSON parse error"}}\n'), MalformedError, "qmp-garbage"),
    (RawError(b"x" * 11_000_000), MalformedError, "qmp-garbage"),
], ids=["hangup", "not-json", "list", "not-utf8", "deep", "id", "parse-error", "endless"])  # fmt: skip
def test_a_connection_that_ends_badly_is_told_apart_from_a_refusal(
    path: Path, answer: Exception, kind: type[Exception], reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with serving(path, answers={"query-status": answer, "query-name": {}}), Monitor(str(path)) as monitor:
        with pytest.raises(kind) as caught:
            monitor.execute("query-status")
        assert getattr(caught.value, "reason", "") == reason
        with pytest.raises(HostError):
            monitor.execute("query-name")  # and stays ended
    assert capfd.readouterr().err == ""


def test_an_answer_without_a_value_is_nonsense(path: Path) -> None:
    def odd(_: Any) -> Any:
        raise RawError(b'{"id": "__qmp#00000"}\n')

    with (
        serving(path, answers={"query-status": odd}),
        Monitor(str(path)) as monitor,
        pytest.raises(MalformedError),
    ):
        monitor.execute("query-status")


def test_a_refusal_in_the_peers_words_is_one_printable_line_of_bounded_length(path: Path) -> None:
    answer = RefusedError("no\x1b[2J\nerror: \u202e" + "x" * 10_000)
    with (
        serving(path, answers={"query-status": answer}),
        Monitor(str(path)) as monitor,
        pytest.raises(NvmelmError) as caught,
    ):
        monitor.execute("query-status")
    assert caught.value.message.isprintable()
    assert len(str(caught.value)) < 600


def test_only_wanted_events_are_kept(path: Path) -> None:
    def delete(_: Any) -> Any:
        server.emit("DEVICE_DELETED", device="other", path="/machine/peripheral/other")
        server.emit("RESET", guest=False)
        server._send({"event": "DEVICE_DELETED"})
        server._send({"event": ["DEVICE_DELETED"], "data": "x"})
        server.emit("DEVICE_DELETED", device="vf", path="/machine/peripheral/vf")
        return {}

    with (
        serving(path, answers={"device_del": delete}) as server,
        Monitor(str(path)) as monitor,
        monitor.listening("DEVICE_DELETED", wanted=lambda data: data.get("device") == "vf") as events,
    ):
        monitor.execute("device_del", {"id": "vf"})
        event = events.next(deadline_s=5)
        assert event is not None
        assert event.data["path"] == "/machine/peripheral/vf"
        assert events.next(deadline_s=0.05) is None


def test_waiting_for_an_event_ends_with_the_connection(path: Path) -> None:
    with (
        serving(path, answers={"device_del": {}, "query-name": HangUpError()}) as server,
        Monitor(str(path)) as monitor,
        monitor.listening("DEVICE_DELETED", wanted=lambda _: True) as events,
    ):
        monitor.execute("device_del", {"id": "vf"})
        threading.Timer(0.05, server.drop).start()
        with pytest.raises(HostError) as caught:
            events.next(deadline_s=20)
    assert caught.value.reason == "qmp-lost"


def test_events_nobody_waits_for_take_no_memory(path: Path) -> None:
    def flood(_: Any) -> Any:
        for _number in range(2000):
            server.emit("RTC_CHANGE", offset=1)
        return {}

    with serving(path, answers={"query-name": flood}) as server, Monitor(str(path)) as monitor:
        monitor.execute("query-name")
        assert monitor._client.events.history == ()


def test_without_the_package_the_extra_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "qemu.qmp", None)
    with pytest.raises(NotSupportedError) as caught:
        Monitor(str(path))
    assert caught.value.exit_code == 3
    assert "pip install '.[qmp]'" in caught.value.fix


def test_what_the_client_library_thinks_of_a_peer_reaches_no_terminal(path: Path) -> None:
    code = (
        "import sys; from nvmelm.vm.qemu.monitor import Monitor\n"
        "try: Monitor(sys.argv[1], deadline_s=5).__enter__()\n"
        "except Exception as error: print(type(error).__name__)"
    )
    with serving(path, greeting=b"\x1b[2J not qmp\n"):
        done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("HostError\n", "")


def test_the_verbs_module_imports_neither_asyncio_nor_the_client() -> None:
    code = "import sys, nvmelm.vm.verbs; print([n for n in ('asyncio', 'qemu', 'xml') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_command_is_shown_as_it_is_sent() -> None:
    assert as_sent("device_del", {"id": "vf"}) == '{"execute": "device_del", "arguments": {"id": "vf"}}'
    assert as_sent("query-status") == '{"execute": "query-status"}'


def test_printable_never_leaves_a_control_character() -> None:
    assert printable("a\x1b[2Jb\r\n\x9b") == "a\\x1b[2Jb\\x0d\\x0a\\x9b"
    assert printable({"a": "\x1b"}).isprintable()
    assert len(printable("x" * 999, 10)) == 11


# What QEMU 7.2.22 said when it was provoked; rows that could not be provoked say where their words come from.
SENTENCES = [
    ("GenericError", "Bus 'pcie.0' does not support hotplugging", NotSupportedError, "no-hotplug-bus"),
    ("GenericError", "Bus 'rp2' does not support hotplugging", NotSupportedError, "no-hotplug-bus"),
    ("GenericError", "Bus 'nosuch' not found", UsageError, "no-such-bus"),
    ("GenericError", "No 'PCI' bus found for device 'vfio-pci'", NotSupportedError, "no-hotplug-bus"),
    (
        "GenericError",
        "PCI: slot 0 function 0 not available for vfio-pci, in use by virtio-rng-pci,id=d1",
        BusyError,
        "bus-taken",
    ),
    ("GenericError", "Duplicate device ID 'd1'", BusyError, "id-taken"),
    ("GenericError", "Parameter 'id' expects an identifier", UsageError, "bad-id"),
    ("GenericError", "'vfio-pci' is not a valid device model name", NotSupportedError, "no-vfio-in-vmm"),
    (
        "GenericError",
        "vfio /sys/bus/pci/devices/0000:77:00.1: no such host device: No such file or directory",
        UsageError,
        "no-such-vf",
    ),
    ("GenericError", "Could not open '/dev/vfio/8': No such file or directory", HostError, "no-vfio-node"),
    (
        "GenericError",
        "vfio 0000:01:00.1: failed to open /dev/vfio/8: No such file or directory",
        HostError,
        "no-vfio-node",
    ),
    ("GenericError", "vfio 0000:01:00.1: failed to open /dev/vfio/8: Permission denied", HostError, "vfio-permission"),
    ("GenericError", "vfio 0000:01:00.1: failed to open /dev/vfio/8: Device or resource busy", BusyError, "in-use"),
    ("GenericError", "vfio 0000:01:00.1: device is already attached", BusyError, "in-use"),
    ("GenericError", "vfio 0000:01:00.1: group 8 is not viable", BusyError, "group-not-viable"),
    (
        "GenericError",
        "vfio 0000:01:00.1: no iommu_group found: No such file or directory",
        NotSupportedError,
        "no-iommu",
    ),
    ("GenericError", "vfio 0000:01:00.1: No available IOMMU models", NotSupportedError, "no-iommu-type1"),
    (
        "GenericError",
        (
            "vfio 0000:01:00.1: failed to setup container for group 8: Failed to set iommu for container: "
            "Operation not permitted"
        ),
        NotSupportedError,
        "no-interrupt-remapping",
    ),
    (
        "GenericError",
        (
            "vfio 0000:01:00.1: failed to setup container for group 8: memory listener initialization failed: "
            "Region pc.ram: vfio_dma_map(0x55, 0x0, 0xc0000, 0x7f) = -12 (Cannot allocate memory)"
        ),
        HostError,
        "locked-memory",
    ),
    ("GenericError", "Device d1 is already in the process of unplug", BusyError, "unplug-pending"),
    ("GenericError", "Hot-unplug failed: guest is busy (power indicator blinking)", BusyError, "unplug-refused"),
    ("GenericError", "device_add not allowed while migrating", BusyError, "vm-migrating"),
    (
        "GenericError",
        "The command 'device_add' is permitted only after machine initialization has completed",
        NotReadyError,
        "vm-preconfig",
    ),
    ("CommandNotFound", "The command device_add has not been found", NotSupportedError, "no-such-qmp-command"),
    ("DeviceNotFound", "Device 'd1' not found", UsageError, "no-such-device"),
    ("GenericError", "something QEMU will say in 2031", Exception, "qmp-error"),
]


@pytest.mark.parametrize(
    ("error_class", "sentence", "kind", "reason"), SENTENCES, ids=[row[1][:40] for row in SENTENCES]
)
def test_each_refusal_becomes_the_error_an_operator_can_act_on(
    error_class: str, sentence: str, kind: type[Exception], reason: str
) -> None:
    error = qmp_refusals.refusal("device_add", error_class, sentence)
    assert isinstance(error, kind)
    assert error.reason == reason
    assert sentence in error.message
    assert error.fix


def test_every_row_of_the_table_has_a_sentence_a_cause_and_a_fix() -> None:
    rows = [*qmp_refusals.REFUSALS, *qmp_refusals.CLASSES.values()]
    assert all(row.cause and row.fix and row.reason for row in rows)
    met = {qmp_refusals.refusal("x", kind, sentence).cause for kind, sentence, _, _ in SENTENCES}
    assert {row.cause for row in rows} <= met


@pytest.mark.parametrize(
    ("memory", "longest_s"),
    [
        ({"base-memory": 4 << 30}, 30),
        ({"base-memory": 1 << 70}, None),
        ({"base-memory": -1}, None),
        (RefusedError("CommandNotFound"), None),
    ],
)
def test_a_vmm_gets_as_long_for_a_vf_as_its_memory_takes_and_never_more_than_this_hosts(
    path: Path, memory: Any, longest_s: float | None
) -> None:
    this_hosts = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / (1 << 30)
    answers = {"query-memory-size-summary": memory, "query-status": {"status": "running"}, "query-name": {}}
    with serving(path, answers=answers | {"qom-list": []}), conversation(str(path)) as machine:
        assert machine._add_deadline_s() <= (longest_s or min(20 + this_hosts / 2, 300))


def test_a_vmm_that_is_silent_when_it_is_given_a_vf_is_not_waited_for_as_if_it_locked_memory(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qemu_machine, "_ADD_S", 0.2)
    answers = {"query-memory-size-summary": {"base-memory": 1 << 20}, "device_add": SilenceError()}
    answers |= {"query-status": {"status": "running"}, "query-name": {}, "qom-list": []}
    begun = time.monotonic()
    with serving(path, answers=answers), conversation(str(path)) as machine, pytest.raises(UncertainError) as caught:
        machine.add(Plan("vf1", None, "", {"driver": "vfio-pci", "id": "vf1"}), Bdf.parse("01:00.1"))
    assert caught.value.reason == "qmp-silent"
    assert time.monotonic() - begun < 20
