"""A VMM is started as a shell would start it, but under the filter; its end and its surroundings are its own."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import termios
from collections.abc import Sequence
from pathlib import Path

import pytest

from nvmelm.errors import NotSupportedError, UsageError
from nvmelm.interposer import launch, syscalls
from nvmelm.interposer.supervisor import Supervisor
from tests.interposing import PlayedHost, PlayedVmm

#: Runs a VMM as `nvmelm vm run` does, in a process of its own.
RUN = """
import sys
from nvmelm.interposer import launch
from nvmelm.interposer.supervisor import Supervisor
from tests.interposing import PlayedHost
host = PlayedHost()
status = launch.run(sys.argv[1:], launch.program(), lambda it: Supervisor(it.listener, host, host, host.say, str))
print("status", status, flush=True)
"""

#: Lets this process's own seccomp(SET_MODE_FILTER, flags) fail with an errno when it asks for these flags.
REFUSE = """
import ctypes, struct
from nvmelm.interposer import syscalls
numbers = syscalls.architecture()
rows = [(0x20, 0, 0, 0), (0x15, 0, 3, numbers.{call}), (0x20, 0, 0, 24), (0x45, 0, 1, {bits})]
rows += [(6, 0, 0, 0x50000 | {errno}), (6, 0, 0, 0x7FFF0000)]
syscalls.set_no_new_privs()
program = syscalls._Program(len(rows), b"".join(struct.pack("=HBBI", *row) for row in rows))
assert syscalls._libc.syscall(numbers.seccomp, 1, 0, ctypes.byref(program)) == 0
"""


def run(words: Sequence[str]) -> int:
    host = PlayedHost()
    return launch.run(words, launch.program(), lambda it: Supervisor(it.listener, host, host, host.say, str))


def script(text: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", text, *words], capture_output=True, text=True, timeout=60, cwd=Path(__file__).parents[3]
    )


def running(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", RUN, *words], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3]
    )


def test_the_vmms_exit_status_is_passed_on() -> None:
    assert run(["sh", "-c", "exit 7"]) == 7
    assert run(["true"]) == 0


def test_a_vmm_that_a_signal_ended_is_told_as_a_shell_tells_it() -> None:
    assert run(["sh", "-c", "kill -9 $$"]) == 128 + signal.SIGKILL


def test_a_signal_that_is_sent_to_nvmelm_reaches_the_vmm() -> None:
    with running("sh", "-c", "trap 'echo asked to end; kill $!; exit 3' TERM; echo ready; sleep 60 & wait") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        assert process.stdout.readline() == "asked to end\n"
        assert process.stdout.readline() == "status 3\n"


def test_the_vmm_begins_with_the_signals_it_would_have_without_us() -> None:
    seen = script(RUN, "grep", "-E", "^Sig(Blk|Ign|Cgt):", "/proc/self/status").stdout.splitlines()
    plain = subprocess.run(["grep", "-E", "^Sig(Blk|Ign|Cgt):", "/proc/self/status"], capture_output=True, text=True)
    assert seen[:-1] == plain.stdout.splitlines()


def test_nothing_of_ours_is_open_in_the_vmm() -> None:
    look = "for n in 3 4 5 6 7 8 9 10 11 12 13 14 15; do [ -e /proc/$$/fd/$n ] && echo $n; done; true"
    assert script(RUN, "sh", "-c", look).stdout == "status 0\n"


def test_a_vmm_that_goes_to_the_background_is_supervised_until_it_ends(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with running("sh", "-c", f"(read line < {gate}; echo background $line) & exit 0") as process:
        gate.write_text("ended\n")
        assert process.stdout is not None
        assert process.stdout.readline() == "background ended\n"
        assert process.stdout.readline() == "status 0\n"


def test_a_program_that_is_not_there_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="no program /nowhere/vmm"):
        run(["/nowhere/vmm"])


def test_a_file_that_is_no_program_is_refused_with_the_kernels_reason(tmp_path: Path) -> None:
    (tmp_path / "vmm").write_text("not executable")
    with pytest.raises(UsageError, match="Permission denied") as met:
        run([str(tmp_path / "vmm")])
    assert "nobody may execute it (mode 06" in met.value.cause
    with pytest.raises(UsageError) as met:
        run([str(tmp_path)])
    assert met.value.cause == "it is a directory"


def test_a_second_listener_is_refused_and_the_error_says_whose_the_first_can_be() -> None:
    inner = "from nvmelm.interposer import launch; launch.start(['true'], launch.program())"
    result = script(RUN, sys.executable, "-c", inner)
    assert "BusyError" in result.stderr
    assert result.stdout == "status 1\n"


@pytest.mark.parametrize(
    ("call", "bits", "number"),
    [
        pytest.param("seccomp", 1 << 3, errno.EINVAL, id="no listeners, before 5.0"),
        pytest.param("seccomp", 1 << 3, errno.ENOSYS, id="no seccomp"),
        pytest.param("ioctl", 0x40182103, errno.EINVAL, id="no descriptors with an answer, before 5.14"),
    ],
)
def test_a_kernel_that_is_too_old_is_told_by_what_it_cannot(call: str, bits: int, number: int) -> None:
    text = REFUSE.format(call=call, bits=bits, errno=number)
    if call == "ioctl":
        text = text.replace("(0x45, 0, 1,", "(0x15, 0, 1,")
    result = script(text + "from nvmelm.interposer import launch; launch.start(['true'], launch.program())")
    assert "NotSupportedError" in result.stderr


def test_a_kernel_without_killable_waits_is_new_enough() -> None:
    text = REFUSE.format(call="seccomp", bits=1 << 5, errno=errno.EINVAL)
    result = script(text + RUN, "true")
    assert result.stdout == "status 0\n", result.stderr


def test_an_unknown_processor_is_not_supported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(NotSupportedError, match="processor"):
        launch.program()


def test_without_the_right_to_trace_the_vmm_runs_on_and_the_journal_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(pidfd: int, number: int) -> int:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    host = PlayedHost()
    monkeypatch.setattr(syscalls, "pidfd_getfd", refused)
    with PlayedVmm(host) as vmm:
        assert vmm.open() == -errno.ENOTTY
        assert vmm.open() == -errno.ENOTTY
    assert len(host.sentences) == 1
    assert "CAP_SYS_PTRACE" in host.sentences[0]


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_a_user_without_privileges_starts_a_vmm_that_can_get_none() -> None:
    text = RUN.replace("host =", "import os; os.setgid(65534); os.setuid(65534); host =")
    assert "NoNewPrivs:\t1\nstatus 0\n" in script(text, "grep", "NoNewPrivs", "/proc/self/status").stdout
    assert "NoNewPrivs:\t0\nstatus 0\n" in script(RUN, "grep", "NoNewPrivs", "/proc/self/status").stdout


#: Counts how often it is interrupted, and says so when it is asked.
COUNTING = """
import signal, sys
count = 0
def counted(*about):
    global count
    count += 1
    print("interrupted", flush=True)
signal.signal(signal.SIGINT, counted)
print("ready", flush=True)
for line in sys.stdin:
    print("count", count, flush=True)
"""


def test_ctrl_c_at_a_terminal_interrupts_the_vmm_once_and_nvmelm_not_at_all() -> None:
    ours, theirs = os.openpty()
    quiet = termios.tcgetattr(theirs)
    quiet[3] &= ~termios.ECHO
    termios.tcsetattr(theirs, termios.TCSANOW, quiet)
    with subprocess.Popen(
        [sys.executable, "-c", RUN, sys.executable, "-c", COUNTING],
        stdin=theirs,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    ) as process:
        os.close(theirs)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        os.write(ours, b"\x03")
        assert process.stdout.readline() == "interrupted\n"
        process.send_signal(signal.SIGINT)  # by somebody else: handed on
        assert process.stdout.readline() == "interrupted\n"
        os.write(ours, b"how often?\n")
        assert process.stdout.readline() == "count 2\n"
        os.write(ours, b"\x04")
        assert process.stdout.readline() == "status 0\n"
    os.close(ours)
