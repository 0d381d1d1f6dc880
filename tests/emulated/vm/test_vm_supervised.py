"""``vm run`` and ``vm agent`` as commands: what they start, what they leave, and how they end."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nvmelm.emulator.host import EmulatedHost
from nvmelm.process.waiting import wait_until
from nvmelm.vm.presence import directory, supervised
from tests.emulated.conftest import MakeHost
from tests.emulated.interposer.test_interposer_service import LAUNCH, ROOT, Systemd
from tests.interposing import DEADLINE_S

NVMELM = [sys.executable, "-m", "nvmelm"]


@pytest.fixture
def host(make_host: MakeHost) -> EmulatedHost:
    return make_host()


def run(host: EmulatedHost, *words: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    line = [*NVMELM, "--host", host.name, "vm", "run", *options, "--", *words]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, cwd=ROOT)


def test_vm_run_is_the_vmm_to_whoever_started_it(host: EmulatedHost) -> None:
    result = run(host, "sh", "-c", "cat; echo out; echo err >&2; exit 7")
    assert (result.returncode, result.stdout, result.stderr) == (7, "out\n", "err\n")


def test_a_running_vmm_is_known_on_its_host_and_forgotten_when_it_has_ended(host: EmulatedHost) -> None:
    files = directory(host.state_dir)
    result = run(
        host, "sh", "-c", f"cat {files}/$$.json; grep ^Seccomp: /proc/$$/status", options=("--no-guest-memory",)
    )
    known, seccomp = result.stdout.replace("}", "}\n").splitlines()
    assert json.loads(known)["by"] == "run"
    assert seccomp == "Seccomp:\t2"
    assert list(files.iterdir()) == []


def test_a_vmm_that_cannot_be_started_is_an_error_with_a_fix(host: EmulatedHost) -> None:
    result = run(host, "/nowhere/vmm")
    assert result.returncode == 2
    assert "there is no program /nowhere/vmm" in result.stderr
    assert "fix:   " in result.stderr
    result = run(host, "/etc/passwd")
    assert result.returncode == 2
    assert "not a program that can be started: /etc/passwd" in result.stderr
    assert "root" not in result.stderr


def test_a_recording_supervises_nothing(host: EmulatedHost, tmp_path: Path) -> None:
    result = run(host, "true", options=("--record", str(tmp_path / "recording.json")))
    assert result.returncode == 3
    assert not (tmp_path / "recording.json").exists()


class RunningAgent:
    """The service's process, started as systemd would."""

    def __init__(self, host: EmulatedHost, place: Path, systemd: Systemd) -> None:
        self.host, self.systemd = host, systemd
        self.path = place / "agent.sock"
        self.listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listening.bind(str(self.path))
        self.listening.listen()
        self.settings = place / "launcher.conf"
        self.settings.write_text(f"socket={self.path}\nrequired=yes\n")
        self.process: subprocess.Popen[bytes]
        self.begin()

    def begin(self) -> None:
        """Start it with its socket, and what the store holds, from descriptor 3 on."""
        fds = [self.listening.fileno(), *self.systemd.stored.values()]
        names = ":".join(["agent", *self.systemd.stored])
        script = "\n".join(
            [
                "import os, sys",
                "fds = [os.dup(int(fd)) for fd in sys.argv[1].split(',')]",
                "high = [os.dup2(fd, 200 + at) for at, fd in enumerate(fds)]",
                "[os.dup2(fd, 3 + at) for at, fd in enumerate(high)]",
                "os.environ['LISTEN_PID'] = str(os.getpid())",
                "os.closerange(3 + len(fds), 400)",
                "os.execv(sys.executable, [sys.executable, '-m', 'nvmelm', *sys.argv[2:]])",
            ]
        )
        environment = {**os.environ, "NOTIFY_SOCKET": str(self.systemd.path), "LISTEN_FDS": str(len(fds))}
        environment |= {"LISTEN_FDNAMES": names}
        words = ["--host", self.host.name, "vm", "agent", "--user", str(os.geteuid())]
        line = [sys.executable, "-c", script, ",".join(map(str, fds)), *words]
        self.process = subprocess.Popen(line, env=environment, pass_fds=fds, cwd=ROOT)
        self.systemd.until("READY=1")

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(DEADLINE_S)

    def launch(self, *words: str) -> subprocess.Popen[str]:
        line = [sys.executable, "-c", LAUNCH, str(self.settings), "nvmelm-vmm", *words]
        pipe = subprocess.PIPE
        return subprocess.Popen(line, cwd=ROOT, stdin=pipe, stdout=pipe, text=True, bufsize=1)


@pytest.fixture
def agent(host: EmulatedHost, tmp_path: Path) -> Iterator[RunningAgent]:
    systemd = Systemd(tmp_path / "notify.sock")
    agent = RunningAgent(host, tmp_path, systemd)
    yield agent
    if agent.process.poll() is None:
        agent.end()
    agent.listening.close()
    systemd.close()


def test_the_agent_is_ready_when_it_answers_and_ends_by_a_signal(agent: RunningAgent) -> None:
    assert agent.end() == 0
    assert agent.systemd.next() == "STOPPING=1"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_vmm_outlives_its_agent_and_the_next_one_has_it(agent: RunningAgent, number: int) -> None:
    with agent.launch("sh", "-c", "echo up; read line; grep ^Seccomp: /proc/$$/status") as vmm:
        assert vmm.stdin is not None
        assert vmm.stdout is not None
        assert vmm.stdout.readline() == "up\n"
        agent.systemd.until("FDSTORE=1")
        known = supervised(agent.host.state_dir, vmm.pid)
        assert known is not None
        assert known.by == "agent"
        agent.end(number)
        agent.begin()
        assert supervised(agent.host.state_dir, vmm.pid) is not None
        vmm.stdin.write("go on\n")
        assert vmm.stdout.readline() == "Seccomp:\t2\n"
    agent.systemd.until("FDSTOREREMOVE=1")
    assert supervised(agent.host.state_dir, vmm.pid) is None
    assert list(directory(agent.host.state_dir).iterdir()) == []


def test_an_agent_whose_vms_ask_nothing_does_not_wake_up(agent: RunningAgent) -> None:
    with agent.launch("sh", "-c", "echo up; read line") as vmm:
        assert vmm.stdout is not None
        assert vmm.stdin is not None
        assert vmm.stdout.readline() == "up\n"
        agent.systemd.until("FDSTORE=1")
        wait_until(lambda: _naps(agent) == 0, "an agent that sleeps", deadline_s=DEADLINE_S)
        vmm.stdin.write("end\n")


def _naps(agent: RunningAgent) -> int:
    """Return how often the agent's threads woke up and slept again within a second."""

    def switches() -> int:
        tasks = Path(f"/proc/{agent.process.pid}/task").iterdir()
        texts = [(task / "status").read_text() for task in tasks]
        return sum(int(re.findall(r"^voluntary_ctxt_switches:\s*(\d+)", text, re.MULTILINE)[0]) for text in texts)

    before = switches()
    select.select([], [], [], 1.0)  # a span that is measured, not a wait for anything
    return switches() - before


def test_a_stranger_is_told_whom_to_name(host: EmulatedHost) -> None:
    line = [*NVMELM, "--host", host.name, "vm", "agent", "--user", "nobody-of-that-name"]
    result = subprocess.run(line, capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert result.returncode == 2
    assert "libvirt-qemu" in result.stderr
