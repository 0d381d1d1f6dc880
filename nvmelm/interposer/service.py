"""The agent: answers the VMMs that others start, libvirt's above all, as one service for the host.

A launcher (:mod:`nvmelm.interposer.launcher`) connects before it becomes the VMM::

    launcher                                  agent
    connects                          ──►     who is it? its user may: "welcome"
    installs the filter, and sends
    its listener (SCM_RIGHTS)         ──►     is it one? kept by systemd; answered from now on: "supervised"
    becomes the VMM

Every message is one packet. What may be answered is not decided here: the VMM has to hold the function's group, since
its own descriptor is what the device is opened by, and the function has to bear a mark.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from nvmelm.errors import BusyError, HostError, UsageError, host_error
from nvmelm.interposer.adoption import adopt
from nvmelm.interposer.device import Say
from nvmelm.interposer.kernel import Kernel
from nvmelm.interposer.launcher import SUPERVISED, WELCOME
from nvmelm.interposer.notification import Listener
from nvmelm.interposer.record import RecordFile, nothing
from nvmelm.interposer.supervisor import Supervisor
from nvmelm.interposer.systemd import Notifier
from nvmelm.numbers import decimal
from nvmelm.vfio.seam import Functions
from nvmelm.vm.presence import announce, directory, forget, life_of

#: A launcher that says nothing is given up.
_DEADLINE_S = 10.0
_LONGEST_MESSAGE = 4096
#: The last uid there can be: (uid_t) -1 means none (setresuid(2)).
_MAX_UID = (1 << 32) - 2
#: struct ucred: pid, uid, gid.
_CREDENTIALS = struct.Struct("=3i")
#: What the kernel calls a listener.
_LISTENER = "anon_inode:seccomp notify"

#: What systemd keeps a VMM's listener as: this, and its process.
STORED = "vm-"

_NOT_ALLOWED = "process {pid} of user {uid} is not supervised: nvmelm vm agent --user names whose VMMs are"
_NOT_STORED = (
    "systemd does not keep this VM's listener: when the agent ends, its VM can neither migrate nor open another device"
)


class Peer(NamedTuple):
    """Who connected: it becomes the VMM."""

    pid: int
    uid: int


class Agent:
    """The VMs that are answered for.

    Args:
        users: whose VMMs are answered, by user number.
        state_dir: where what a restart has to know is kept.
        say: takes sentences for the journal, with a function's address where there is one.
        name: what a VM is called, by its process.
    """

    def __init__(
        self,
        functions: Functions,
        kernel: Kernel,
        *,
        users: frozenset[int],
        state_dir: Path,
        notifier: Notifier,
        say: Say,
        name: Callable[[int], str],
    ) -> None:
        self._functions = functions
        self._kernel = kernel
        self._users = users
        self._state_dir = state_dir
        self._notifier = notifier
        self._say = say
        self._name = name
        self._lock = threading.Lock()
        self._vms: dict[int, tuple[Supervisor, threading.Thread]] = {}
        self._ending = False
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)

    # -- beginning and end

    def adopt(self, stored: Iterable[tuple[str, int]]) -> None:
        """Take up the VMs of an agent before us, by the listeners that systemd kept."""
        kept = set()
        for name, fd in stored:
            pid = name.removeprefix(STORED)
            if not name.startswith(STORED) or not pid.isdecimal() or life_of(int(pid)) is None:
                os.close(fd)
                continue
            kept.add(int(pid))
            self._supervise(int(pid), fd, reopened=True)
        self._forget_records(kept)

    def _forget_records(self, kept: set[int]) -> None:
        """Remove what is left of VMs that ended while nobody looked."""
        for path in directory(self._state_dir).glob("*.calls"):
            if path.stem.isdecimal() and int(path.stem) not in kept:
                with suppress(OSError):
                    path.unlink()
                    path.with_suffix(".json").unlink()

    def serve(self, listening: socket.socket) -> None:
        """Take launchers until :meth:`end`; called from the main thread."""
        self._notifier.ready()
        poll = select.poll()
        poll.register(listening, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        while self._wake not in dict(poll.poll()):
            with suppress(OSError):  # it has hung up again
                self._accept(listening)
        self._notifier.stopping()
        self._leave()

    def end(self) -> None:
        """Let :meth:`serve` return, from a signal's handler or another thread.

        The VMMs' calls wait for the next agent where systemd keeps the listeners.
        """
        os.eventfd_write(self._wake, 1)

    def _leave(self) -> None:
        with self._lock:
            self._ending = True
            vms = list(self._vms.values())
        for supervisor, _ in vms:
            supervisor.stop()
        for _, thread in vms:
            thread.join()

    # -- one launcher

    def _accept(self, listening: socket.socket) -> None:
        """Take one launcher; a user whom nobody named gets no further than this."""
        connection, _ = listening.accept()
        peer = _peer(connection)
        if peer.uid in self._users:
            threading.Thread(target=self._welcome, args=(connection, peer), name="launcher", daemon=True).start()
            return
        with connection:
            self._say(_NOT_ALLOWED.format(pid=peer.pid, uid=peer.uid))
            connection.setblocking(False)
            connection.send(b"this user's VMMs are not supervised")

    def _welcome(self, connection: socket.socket, peer: Peer) -> None:
        with connection:
            connection.settimeout(_DEADLINE_S)
            try:
                connection.send(WELCOME)
                self._take(connection, peer)
            except OSError as error:
                self._say(f"a launcher was not served: {error}")

    def _take(self, connection: socket.socket, peer: Peer) -> None:
        _message, fds, _, _ = socket.recv_fds(connection, _LONGEST_MESSAGE, 8)
        for spare in fds[1:]:
            os.close(spare)
        if not fds:
            return  # it gave up, or became the VMM without us
        if str(Path(f"/proc/self/fd/{fds[0]}").readlink()) != _LISTENER:
            os.close(fds[0])
            self._say(f"process {peer.pid} sent something that is no listener")
            return
        if not self._notifier.store(f"{STORED}{peer.pid}", fds[0]):
            self._say(_NOT_STORED)
        self._supervise(peer.pid, fds[0])
        connection.send(SUPERVISED)

    # -- one VM

    def _supervise(self, pid: int, fd: int, *, reopened: bool = False) -> None:
        record = self._record(pid, reopened=reopened)
        listener = Listener(fd, record.add if record is not None else nothing)
        supervisor = Supervisor(listener, self._functions, self._kernel, self._say, self._name, record)
        waiting = []
        if record is not None:
            waiting = adopt(supervisor, list(record.events())) if reopened else []
            record.rewrite(supervisor.events())

        def answer() -> None:
            for call in waiting:
                if listener.waits(call):
                    supervisor.take(call)
            supervisor.run()
            self._ended(pid, record)

        thread = threading.Thread(target=answer, name=f"vm {pid}", daemon=True)
        with self._lock:
            self._vms[pid] = supervisor, thread
        thread.start()

    def _record(self, pid: int, *, reopened: bool) -> RecordFile | None:
        """Write down that a VMM is answered; a disk that takes nothing is no reason to leave it alone."""
        path = directory(self._state_dir) / f"{pid}.calls"
        try:
            announce(self._state_dir, pid, self._name, "agent")
            if not reopened:
                path.unlink(missing_ok=True)
            return RecordFile(path)
        except (OSError, HostError) as error:
            self._say(f"nothing can be written down of process {pid}, so that a restart cannot go on with it: {error}")
            return None

    def _ended(self, pid: int, record: RecordFile | None) -> None:
        with self._lock:
            self._vms.pop(pid, None)
            ending = self._ending
        if ending:
            if record is not None:
                record.close()
            return
        if record is not None:
            record.remove()
        forget(self._state_dir, pid)
        self._notifier.forget(f"{STORED}{pid}")


def _peer(connection: socket.socket) -> Peer:
    pid, uid, _gid = _CREDENTIALS.unpack(
        connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    )
    return Peer(pid, uid)


def listen(path: Path, *, group: int = -1) -> socket.socket:
    """Return the agent's socket where systemd did not make it.

    Args:
        group: who may connect besides root; nobody when -1.

    Raises:
        BusyError: another agent listens there.
        HostError: it cannot be made.
    """
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        _require_unused(path)
        path.unlink(missing_ok=True)
        listening.bind(str(path))
        os.chown(path, -1, group)
        path.chmod(0o660)
        listening.listen()
    except OSError as error:
        listening.close()
        raise host_error("cannot listen at", str(path), error) from error
    except BusyError:
        listening.close()
        raise
    return listening


def _require_unused(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        if probe.connect_ex(str(path)) == 0:
            fix = "systemctl status nvmelm-agent; or another --socket"
            raise BusyError(f"another agent listens at {path}", fix=fix, reason="agent-runs")


def user_numbers(names: Iterable[str]) -> frozenset[int]:
    """Return the numbers of users, and root's.

    Raises:
        UsageError: a name is nobody's.
    """
    import pwd  # one of the standard library's modules that reads files when it is asked

    numbers = {0}
    for name in names:
        try:
            uid = decimal(name, most=_MAX_UID)
            numbers.add(pwd.getpwnam(name).pw_uid if uid is None else uid)
        except KeyError:
            fix = "getent passwd lists the users; libvirt's are libvirt-qemu (Debian, Ubuntu) and qemu (Fedora)"
            raise UsageError(f"there is no user {name[:60]!r}", fix=fix) from None
    return frozenset(numbers)
