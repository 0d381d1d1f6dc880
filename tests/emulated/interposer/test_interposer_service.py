"""The agent and its launcher: real processes, a real socket, and what systemd would do, done by the test."""

from __future__ import annotations

import errno
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nvmelm.errors import BusyError, UsageError
from nvmelm.interposer import launcher, service
from nvmelm.interposer.device import Access, Device
from nvmelm.interposer.service import Agent
from nvmelm.interposer.systemd import Notifier, passed
from nvmelm.vfio.seam import DeviceState, Opening, Refusal
from nvmelm.vm import presence
from tests.interposing import DEADLINE_S, PlayedFunction, PlayedHost, Program

GET, SET = 1 << 16, 1 << 17
STOP, RUNNING, STOP_COPY, RESUMING = 1, 2, 3, 4
ROOT = Path(__file__).parents[3]
#: The launcher, with its settings elsewhere and its name as an argument.
LAUNCH = "from nvmelm.interposer.launcher import launch; import sys; launch(sys.argv[2:], sys.argv[1])"


class Systemd:
    """The notification socket, and the store of descriptors behind it."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(DEADLINE_S)
        self.path = path
        self.stored: dict[str, int] = {}
        self.said: list[str] = []

    def next(self) -> str:
        """Take one message, and do what it asks."""
        data, fds, _, _ = socket.recv_fds(self._socket, 4096, 8)
        words = dict(line.split("=", 1) for line in data.decode().splitlines())
        if "FDSTORE" in words:
            (self.stored[words["FDNAME"]],) = fds
        if "FDSTOREREMOVE" in words:
            os.close(self.stored.pop(words["FDNAME"]))
        self.said.append(data.decode().splitlines()[0])
        return self.said[-1]

    def until(self, word: str) -> None:
        while self.next() != word:
            pass

    def close(self) -> None:
        self._socket.close()
        for fd in self.stored.values():
            os.close(fd)


class Service:
    """An agent that answers in a thread."""

    def __init__(self, directory: Path, host: PlayedHost, systemd: Systemd | None, users: frozenset[int]) -> None:
        self.host = host
        self.path = directory / "agent.sock"
        self.agent = Agent(
            host,
            host,
            users=users,
            state_dir=directory,
            notifier=Notifier(str(systemd.path) if systemd else None),
            say=host.say,
            name=lambda pid: f"vm {pid}",
        )
        self.listening = service.listen(self.path)
        self.thread = threading.Thread(target=self.agent.serve, args=(self.listening,), daemon=True)

    def begin(self) -> None:
        self.thread.start()

    def end(self) -> None:
        self.agent.end()
        self.thread.join(DEADLINE_S)
        assert not self.thread.is_alive()
        self.listening.close()
        self.path.unlink()


class Place:
    """A directory with an agent, and the launcher's settings for it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.settings = directory / "launcher.conf"
        self.settings.write_text(f"# where the agent listens\nsocket = {directory / 'agent.sock'}\n")
        self.host = PlayedHost()
        self.processes: list[subprocess.Popen[bytes]] = []
        self.systemd = Systemd(directory / "notify.sock")

    def service(self, host: PlayedHost | None = None, users: frozenset[int] = frozenset({os.geteuid()})) -> Service:
        return Service(self.directory, host or self.host, self.systemd, users)

    def launch(self) -> Program:
        program = Program(self._start)
        program.begin()
        return program

    def _start(self, words: list[str]) -> int:
        line = [*self.launching("nvmelm-vmm"), *words]
        self.processes.append(subprocess.Popen(line, cwd=ROOT, close_fds=False))
        return self.processes[-1].pid

    def launching(self, name: str) -> list[str]:
        """Return a command line that is the launcher, called by a name, but for what it is to start."""
        return [sys.executable, "-c", LAUNCH, str(self.settings), name]

    def run(self, name: str, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*self.launching(name), *words], capture_output=True, text=True, cwd=ROOT, **options)

    def close(self) -> None:
        for process in self.processes:
            process.wait()
        self.systemd.close()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.close()


@pytest.fixture
def running(place: Place) -> Iterator[Service]:
    running = place.service()
    running.begin()
    yield running
    running.end()


def test_a_launched_vmm_is_answered_by_the_agent(place: Place, running: Service) -> None:
    with place.launch() as vmm:
        fd = vmm.open()
        assert vmm.set_state(fd, STOP) == (0, -1)
        assert "NoNewPrivs:\t1" in vmm.do("status")
        vm = presence.supervised(place.directory, vmm.pid)
        assert vm is not None
        assert (vm.by, vm.vm) == ("agent", f"vm {vmm.pid}")
    place.systemd.until("FDSTOREREMOVE=1")
    assert place.host.function.closed.is_set()
    assert place.systemd.stored == {}
    assert presence.supervised(place.directory, vmm.pid) is None
    assert not list(presence.directory(place.directory).iterdir())


def test_without_an_agent_a_vmm_starts_as_it_would_without_us(place: Place, capfd: pytest.CaptureFixture[str]) -> None:
    with place.launch() as vmm:
        status = vmm.do("status")
        assert "Seccomp:\t0" in status
        assert "NoNewPrivs:\t0" in status


def test_a_vmm_that_must_be_supervised_does_not_start_without_an_agent(place: Place) -> None:
    place.settings.write_text(place.settings.read_text() + "required=yes\n")
    result = place.run("nvmelm-vmm", "true")
    assert result.returncode == 1
    assert "cannot migrate" in result.stderr
    assert "fix: systemctl start nvmelm-agent" in result.stderr


def test_a_user_whom_nobody_named_is_refused_and_starts_unsupervised(place: Place) -> None:
    running = place.service(users=frozenset({12345}))
    running.begin()
    with place.launch() as vmm:
        assert "Seccomp:\t0" in vmm.do("status")
    running.end()
    assert "is not supervised" in place.host.sentences[0]


def test_what_is_no_listener_is_not_taken(place: Place, running: Service) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer, Path(os.devnull).open() as null:
        peer.connect(str(running.path))
        assert peer.recv(256) == launcher.WELCOME
        socket.send_fds(peer, [b"listener"], [null.fileno(), 0, 1, 2])
        assert peer.recv(256) == b""
    assert "no listener" in place.host.sentences[0]
    with place.launch() as vmm:
        assert vmm.open() >= 0


def test_a_launcher_that_hangs_up_does_not_disturb_the_agent(place: Place, running: Service) -> None:
    for _ in range(3):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer:
            peer.connect(str(running.path))
    with place.launch() as vmm:
        assert vmm.open() >= 0


def test_the_vmm_gets_its_arguments_and_its_environment_as_they_were(place: Place, running: Service) -> None:
    show = 'tr "\\0" "\\n" </proc/self/environ; echo "<$1>"'
    environment = {"ODD": "a=b", "PYTHONPATH": str(ROOT)}  # in the C locale, Python adds LC_CTYPE to what it has
    result = place.run("nvmelm-vmm", "sh", "-c", show, "sh", "an argument, 'as it is'\n", env=environment)
    shown = "".join(f"{key}={value}\n" for key, value in environment.items())
    assert result.stdout == f"{shown}<an argument, 'as it is'\n>\n"


def test_a_link_names_the_vmm_that_is_started(place: Place) -> None:
    assert place.run("/x/nvmelm-echo", "hello").stdout == "hello\n"
    assert "there is no nowhere" in place.run("/x/nvmelm-nowhere").stderr
    assert "say which VMM" in place.run("/x/nvmelm-vmm").stderr


def test_a_link_in_a_vmms_own_place_starts_what_the_settings_say(place: Place) -> None:
    place.settings.write_text(place.settings.read_text() + "vmm.qemu-system-x86_64 = /bin/echo\n")
    assert place.run("/usr/bin/qemu-system-x86_64", "-S").stdout == "-S\n"


def test_the_launcher_is_made_of_the_standard_library_alone() -> None:
    line = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from nvmelm.interposer import launcher, filter, syscalls
print(*(name for name in sys.modules if name.partition(".")[0] not in sys.stdlib_module_names))
"""
    names = subprocess.run([sys.executable, "-IS", "-c", line], capture_output=True, text=True).stdout.split()
    ours = {f"nvmelm.interposer.{name}" for name in ("launcher", "filter", "syscalls")}
    assert set(names) == {"__main__", "nvmelm", "nvmelm.interposer", *ours}


@pytest.mark.parametrize("growth", [1 << 20, 0], ids=["as written", "written anew"])
def test_an_agent_that_is_started_again_goes_on_with_its_vms(
    place: Place, growth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nvmelm.interposer.record._GROWTH_BYTES", growth)
    first = place.service()
    first.begin()
    with place.launch() as vmm:
        memory = vmm.do("buffer", "ram", b"the guest's memory".hex())
        vmm.do("buffer", "map", struct.pack("=2I3Q", 32, 3, memory, 0x1000, 18).hex())
        vmm.do("ioctl", vmm.do("memfd", "container"), 0x3B71, ["map", 0])
        own_node = vmm.do("memfd", "cdev-0000:01:00.5")
        vmm.do("ioctl", own_node, 0x3B76, 0)
        fd = vmm.open()
        for state in (STOP, RUNNING) * 4:
            vmm.set_state(fd, state)
        first.end()
        assert not place.host.function.closed.is_set()

        vmm.do("buffer", "feature", struct.pack("=2IQ", 16, 1 | GET, 0).hex())
        vmm.send("ioctl", fd, 0x3B75, ["feature", 0])  # waits: nobody answers now

        second_host = PlayedHost()
        second = place.service(second_host)
        place.systemd.until("STOPPING=1")
        second.agent.adopt([(name, os.dup(stored)) for name, stored in place.systemd.stored.items()])
        second.begin()
        assert vmm.answer() == 0
        assert second_host.function.opening.reopened
        assert second_host.function.opening.address == "0000:01:00.1"
        assert second_host.function.opening.memory.read(0x1000, 18) == b"the guest's memory"
        assert vmm.set_state(fd, STOP) == (0, -1)
        assert vmm.open("0000:01:00.2") >= 0
        assert vmm.get_state(own_node) == RUNNING
        assert second_host.function.opening.address == "0000:01:00.5"
        second.end()


@pytest.mark.parametrize("state", [STOP, RUNNING, STOP_COPY, RESUMING])
def test_a_call_that_a_killed_agent_had_taken_is_answered_by_the_next(place: Place, state: int) -> None:
    """The first agent is a process of its own, killed in the middle of an arc."""
    ready, told = os.pipe()
    pid = os.fork()
    if pid == 0:  # an agent whose function never comes to an end of its arc
        os.close(ready)
        first = place.service()
        open_function = place.host.open

        def opened(opening: object) -> object:
            function = open_function(opening)  # type: ignore[arg-type]
            function.in_arc = lambda: os.write(told, b"in the arc") and signal.pause()  # type: ignore[union-attr]
            return function

        place.host.open = opened  # type: ignore[method-assign, assignment]
        first.begin()
        signal.pause()
    os.close(told)
    with place.launch() as vmm:
        fd = vmm.open()
        place.systemd.until("FDSTORE=1")
        vmm.do("buffer", "feature", struct.pack("=2IIi", 16, 2 | SET, state, 0).hex())
        vmm.send("ioctl", fd, 0x3B75, ["feature", 0])
        assert os.read(ready, 64) == b"in the arc"
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(ready)

        second = place.service()
        second.agent.adopt([(name, os.dup(stored)) for name, stored in place.systemd.stored.items()])
        second.begin()
        assert vmm.answer() == 0
        assert place.host.function.calls == [state]
        second.end()


@pytest.mark.parametrize(("state", "towards", "number"), [(STOP_COPY, STOP, errno.EIO), (RESUMING, RUNNING, errno.EIO)])
def test_a_stream_that_a_restart_cut_off_is_believed_by_nobody(
    place: Place, state: int, towards: int, number: int
) -> None:
    access = Access(place.host)
    function = PlayedFunction(Opening("0000:01:00.1", 1, "vm", access, None, access, reopened=True))  # type: ignore[arg-type]
    function.state = DeviceState(state)
    device = Device("0000:01:00.1", function, access, place.host.say, reopened=True)
    with pytest.raises(Refusal, match="not whole"):
        device.set_state(DeviceState(towards))
    if state == STOP_COPY:
        assert device.set_state(DeviceState.RUNNING) is None
    else:
        device.was_reset()
    assert device.set_state(DeviceState.STOP) is None
    device.close()


def test_what_a_vm_that_ended_meanwhile_left_is_removed(place: Place) -> None:
    files = presence.directory(place.directory)
    files.mkdir()
    for suffix in ("calls", "json"):
        (files / f"999999.{suffix}").write_text("{}")
    second = place.service()
    second.agent.adopt([])
    assert not list(files.iterdir())
    second.listening.close()


def test_a_second_agent_at_one_socket_is_refused(place: Place, running: Service) -> None:
    with pytest.raises(BusyError, match="another agent"):
        service.listen(running.path)


def test_users_are_named_or_numbered_and_a_stranger_is_a_usage_error() -> None:
    assert service.user_numbers(["root", "12345"]) == {0, 12345}
    with pytest.raises(UsageError, match="no user 'nobody-of-that-name'"):
        service.user_numbers(["nobody-of-that-name"])


def test_descriptors_are_taken_from_systemd_only_when_they_are_for_this_process() -> None:
    environment = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "0", "LISTEN_FDNAMES": ""}
    assert passed(environment) == []
    assert passed({**environment, "LISTEN_PID": "1", "LISTEN_FDS": "9"}) == []
    assert passed({}) == []
