"""Start a VMM under the filter, as our child, and take its calls' listener; wait for it as a shell does.

The child puts the filter on itself, sends the listener, and becomes the VMM. Nothing else of it is ours: its standard
streams, its descriptors, its environment and its place in the terminal are those it would have without us.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple, NoReturn

from nvmelm.errors import BusyError, NotSupportedError, NvmelmError, UsageError, host_error
from nvmelm.interposer import filter as filter_program
from nvmelm.interposer import syscalls
from nvmelm.interposer.notification import Listener
from nvmelm.interposer.supervisor import Supervisor
from nvmelm.process.executable import not_started, obstacle

#: What others may send to the VMM's parent: it is handed on. Those of a terminal's keys reach the VMM by themselves.
_HANDED_ON = (
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
    signal.SIGWINCH,
)
_WAITED_FOR: set[int] = {signal.SIGCHLD, *_HANDED_ON}
#: Python ignores them, and a program begins with what it is handed.
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)

_FILTER, _EXEC = b"filter", b"exec"


class StartedVmm(NamedTuple):
    """A VMM that runs under the filter."""

    pid: int
    listener: Listener


def program(*, memory: bool = True) -> bytes:
    """Return the filter for this processor.

    Raises:
        NotSupportedError: its system calls are not known.
    """
    architecture = syscalls.architecture()
    if architecture is None:
        known = ", ".join(syscalls.ARCHITECTURES)
        cause = f"the numbers of its system calls are known for {known}"
        raise NotSupportedError("VMMs cannot be supervised on this processor", cause=cause, reason="no-seccomp")
    return filter_program.program(architecture, memory=memory)


def start(words: Sequence[str], filter_bytes: bytes, *, signals: Sequence[int] = ()) -> StartedVmm:
    """Start a VMM.

    Args:
        words: the program and its arguments.
        filter_bytes: of :func:`program`.
        signals: what we have blocked for ourselves, and the VMM is to get.

    Raises:
        UsageError: there is no such program.
        BusyError, NotSupportedError: this kernel, or whoever started us, allows no listener.
        HostError: anything else the kernel refuses.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        pid = os.fork()
        if pid == 0:
            _become(words, filter_bytes, theirs, signals)
        theirs.close()
        try:
            listener = _listener(words[0], ours)
        except BaseException:
            os.waitpid(pid, 0)
            raise
    return StartedVmm(pid, listener)


def require_kernel() -> None:
    """Refuse a kernel, or surroundings, in which no VMM could be supervised, before one is started.

    Raises:
        BusyError, NotSupportedError, HostError: as of :func:`start`.
    """
    started = start(["true"], program())
    started.listener.close()
    os.waitpid(started.pid, 0)


def _listener(name: str, child: socket.socket) -> Listener:
    """Take what the child sends: its listener, or why it has none; then why it could not become the VMM, or the end."""
    message, fds, _, _ = socket.recv_fds(child, 64, 1)
    if not fds:
        raise refused(_errno(message))
    listener = Listener(fds[0])
    try:
        if not listener.gives_descriptors():
            raise refused(errno.EINVAL)
        message = child.recv(64)
        if message:
            raise _not_started(name, _errno(message))
    except BaseException:
        listener.close()
        raise
    return listener


def _become(words: Sequence[str], filter_bytes: bytes, parent: socket.socket, signals: Sequence[int]) -> NoReturn:
    """Become the VMM; runs in the child, and never returns."""
    step = _FILTER
    try:
        for number in _IGNORED_BY_PYTHON:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
        fd = install(filter_bytes)
        socket.send_fds(parent, [_FILTER], [fd])
        os.close(fd)
        step = _EXEC
        os.execvp(words[0], list(words))  # noqa: S606 (what the operator typed; no shell is asked for)
    except OSError as error:
        with suppress(OSError):
            parent.send(step + b" " + str(error.errno or 0).encode())
    finally:
        os._exit(127)


def install(filter_bytes: bytes) -> int:
    """Put the filter on this process, with the promise it takes where we are not privileged; return the listener."""
    try:
        return syscalls.install_filter(filter_bytes)
    except PermissionError:
        syscalls.set_no_new_privs()
        return syscalls.install_filter(filter_bytes)


def _errno(message: bytes) -> int:
    number = message.rpartition(b" ")[2]
    return int(number) if number.isdigit() else 0


def refused(number: int) -> NvmelmError:
    """Return the error of a filter, or of its listener, that the kernel does not take."""
    message = "the VMM cannot be supervised"
    if number == errno.EBUSY:
        cause = "a seccomp listener watches this process already, and a process can have one: a container runtime's"
        fix = "start it outside of that container, or give the container a profile without SCMP_ACT_NOTIFY"
        return BusyError(message, cause=cause, fix=fix, reason="seccomp-listener")
    if number in (errno.EINVAL, errno.ENOSYS):
        cause = "this kernel cannot hand system calls over to another process with all that takes"
        fix = "use Linux 5.14 or newer with CONFIG_SECCOMP_FILTER"
        return NotSupportedError(message, cause=cause, fix=fix, reason="no-seccomp")
    return host_error(message, "seccomp", OSError(number, os.strerror(number)))


def _not_started(name: str, number: int) -> NvmelmError:
    if number == errno.ENOENT:
        fix = "give the program as you would without nvmelm: nvmelm vm run -- VMM ARGS"
        return UsageError(f"there is no program {name}", cause=obstacle(name), fix=fix, reason="no-vmm")
    met = OSError(number, os.strerror(number))
    fix = "name the VMM's own program: nvmelm vm run -- VMM ARGS"
    return not_started("not a program that can be started", name, met, fix=fix, named=True, reason="no-vmm")


@contextmanager
def _blocked() -> Iterator[set[int]]:
    """Keep the signals that are waited for pending, and give what was not blocked before."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED_FOR)
    try:
        yield _WAITED_FOR - {int(number) for number in before}
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def run(words: Sequence[str], filter_bytes: bytes, supervise: Callable[[StartedVmm], Supervisor]) -> int:
    """Start a VMM, answer its calls until its last process has ended, and hand signals on to it.

    Called from the main thread, while it is the only one.

    Args:
        supervise: makes what answers, before the first call is answered.

    Returns:
        The VMM's exit status, 128 and the signal that ended it, as a shell has it.
    """
    with _blocked() as signals:
        started = start(words, filter_bytes, signals=sorted(signals))
        try:
            supervisor = supervise(started)
        except BaseException:
            os.kill(started.pid, signal.SIGKILL)  # it has hardly begun, and nobody would answer it
            os.waitpid(started.pid, 0)
            raise
        thread = _in_thread(supervisor)
        status = _status(started.pid, supervisor, thread)
        thread.join()
    return status


def _in_thread(supervisor: Supervisor) -> threading.Thread:
    """Let it answer in a thread, whose end is a signal for the main one."""
    main = threading.get_ident()

    def answer() -> None:
        try:
            supervisor.run()
        finally:
            signal.pthread_kill(main, signal.SIGCHLD)

    thread = threading.Thread(target=answer, name="supervisor", daemon=True)
    thread.start()
    return thread


def _status(pid: int, supervisor: Supervisor, thread: threading.Thread) -> int:
    """Wait for the VMM, then for processes that it left behind: a VMM that goes to the background is one."""
    status: int | None = None
    while status is None or thread.is_alive():
        about = signal.sigwaitinfo(_WAITED_FOR)
        if about.si_signo == signal.SIGCHLD:
            if status is None:
                ended, code = os.waitpid(pid, os.WNOHANG)
                status = os.waitstatus_to_exitcode(code) if ended else None
            elif not thread.is_alive():
                break
        elif status is not None:
            supervisor.stop()
        elif about.si_code <= 0:  # from a process; a key at the terminal (SI_KERNEL) reaches the VMM by itself
            os.kill(pid, about.si_signo)
    return status if status >= 0 else 128 - status
