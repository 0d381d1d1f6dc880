"""This machine: the real :class:`~nvmelm.host.Host`.

Sysfs is ``/sys``, admin commands travel through the kernel's nvme driver, and the few questions sysfs cannot answer
are read from ``/proc``. Opening this host touches nothing; the state directory is made when it is first asked for.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from nvmelm.disk.locks import FileLocks
from nvmelm.disk.private import prove_private
from nvmelm.errors import MalformedError, NotSupportedError, PermissionDeniedError, TimedOutError
from nvmelm.harmless import harmless
from nvmelm.host import AdminQueue, Claim, HostFacts, Mount, Opener, Sysfs, Uevents
from nvmelm.host.local import processes
from nvmelm.host.local.sysfs import DirectorySysfs

STATE_DIR_VARIABLE = "NVMELM_STATE_DIR"
_STATE_DIR = "/var/lib/nvmelm"

_MODULE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}")
_MODPROBE_PLACES = ("/usr/sbin/modprobe", "/sbin/modprobe", "/usr/bin/modprobe", "/bin/modprobe")
_MODPROBE_TIMEOUT_S = 60.0
#: It prints nothing to standard output unless asked.
_MODPROBE_BYTES = 1 << 16


class LocalHost:
    """The machine this program runs on.

    Args:
        sysfs: another sysfs than ``/sys``; for tests.
        state_dir: where marks, journals and locks live; by default ``$NVMELM_STATE_DIR``, or ``/var/lib/nvmelm``.
        proc: another proc than ``/proc``; for tests.
        dev: another device directory than ``/dev``; for tests.
        root: another root than ``/``, below which others' files in ``etc`` are; for tests.
    """

    def __init__(
        self,
        *,
        sysfs: Sysfs | None = None,
        state_dir: Path | None = None,
        proc: Path = Path("/proc"),
        dev: Path = Path("/dev"),
        root: Path = Path("/"),
    ) -> None:
        self._sysfs: Sysfs = sysfs if sysfs is not None else DirectorySysfs()
        self._state_dir = state_dir or Path(os.environ.get(STATE_DIR_VARIABLE) or _STATE_DIR).absolute()
        self._state_dir_proven = False
        self._proc = proc
        self._dev = dev
        self._root = root
        self._locks: FileLocks | None = None

    @property
    def kind(self) -> Literal["local", "emulated", "replay"]:
        return "local"

    @property
    def name(self) -> str:
        return "local"

    @property
    def recorded(self) -> bool:
        return False

    @property
    def serial(self) -> bool:
        return False

    @property
    def sysfs(self) -> Sysfs:
        return self._sysfs

    @property
    def state_dir(self) -> Path:
        """Return the directory of marks and journals, made (0700) when it is missing and this process may make it.

        Raises:
            HostError: it is a link, no directory, another user's, or open to others: what it holds cannot be trusted.
        """
        if not self._state_dir_proven:
            self._state_dir_proven = prove_private(self._state_dir)
        return self._state_dir

    def open_queue(self, controller: str) -> AdminQueue:
        from nvmelm.host.local.passthru import PassthruQueue  # ctypes and mmap: only for verbs that send commands

        return PassthruQueue(f"{self._dev}/{controller}", self._sysfs, controller)

    def lock(self, name: str, *, timeout_s: float = 30.0) -> AbstractContextManager[None]:
        """Hold the lock of a primary controller against other nvmelm processes; taken twice by one host, it nests.

        Raises:
            BusyError: another process held it for longer than the timeout; it is named.
            PermissionDeniedError: not root. Locks are root's, as admin queues are, so a verb that only reads as an
                ordinary user takes none.
        """
        if self._locks is None:
            self._locks = FileLocks(self.state_dir / "locks")
        return self._locks.hold(name, timeout_s=timeout_s)

    def facts(self) -> HostFacts:
        boot_id = processes.read_proc(self._proc / "sys/kernel/random/boot_id").strip()
        return HostFacts(os.uname().release, boot_id, processes.privileged(self._proc))

    def openers(self, nodes: Sequence[str]) -> list[Opener]:
        for node in nodes:
            self._node(node)
        return processes.openers(self._proc, self._dev, nodes)

    def exclusively_held(self, nodes: Sequence[str]) -> list[str]:
        return [node for node in nodes if processes.exclusively_held(self._node(node))]

    def mounts(self) -> list[Mount]:
        return processes.mounts(self._proc, self._dev, self._sysfs)

    def claims(self) -> list[Claim]:
        from nvmelm.host.local.claims import claims  # only where desired state is applied

        return claims(self._root)

    def queue_memory(self, size: int) -> AbstractContextManager[memoryview]:
        raise NotSupportedError(
            "no Controller Data Queue on a PF that the kernel's driver owns",
            cause="the driver unmaps the memory of a passthrough command when the command ends, and the device would "
            "go on writing into memory that is no longer the queue's",
            fix="migrate without --log-user-data: namespaces that both hosts see need no log; others are copied by "
            "their owner",
            reason="kernel-owned-queue",
        )

    def uevents(self) -> Uevents:
        from nvmelm.host.local.uevents import KernelUevents  # only where somebody watches

        return KernelUevents()

    def node_exists(self, node: str) -> bool:
        return self._node(node).exists()

    def load_module(self, name: str) -> None:
        """Load a kernel module, unless it, or a driver of its name, is there already.

        Raises:
            NotSupportedError: the kernel has no such module, or this system no modprobe.
            PermissionDeniedError: not root.
            TimedOutError: modprobe did not end.
        """
        if not _MODULE_NAME.fullmatch(name):
            raise MalformedError(f"not a module's name: {name!r}")
        module = name.replace("-", "_")
        places = (f"module/{module}", f"bus/pci/drivers/{name}", f"bus/pci/drivers/{module}")
        if any(self._sysfs.exists(path) for path in places):
            return
        if not processes.privileged(self._proc):
            raise PermissionDeniedError(
                f"cannot load the kernel module {name}", cause="loading a module needs root", fix="run it as root"
            )
        _modprobe(name)

    def close(self) -> None:
        """Do nothing: queues and locks are let go by who took them."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _node(self, node: str) -> Path:
        if not node or node.startswith("/") or "\0" in node or ".." in node.split("/"):
            raise MalformedError(f"not a node below {self._dev}: {node!r}")
        return self._dev / node


def _modprobe(name: str) -> None:
    """Run modprobe by its absolute path, without a shell and without this process's environment."""
    # subprocess costs 15 ms, and a module is really missing once a boot
    from nvmelm.process.child import run_program

    program = next((place for place in _MODPROBE_PLACES if os.access(place, os.X_OK)), None)
    if program is None:
        raise NotSupportedError(
            f"cannot load the kernel module {name}",
            cause="this system has no modprobe",
            fix="install kmod, or load the module another way",
            reason="no-modprobe",
        )
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
    try:
        printed = run_program(
            [program, "--", name], limit=_MODPROBE_BYTES, timeout_s=_MODPROBE_TIMEOUT_S, environment=environment
        )
    except TimedOutError as error:
        error.cause = "the module waits for a device, or the kernel hangs"
        error.fix = "dmesg tells what it waits for"
        raise
    if printed.status != 0:
        said = "; ".join(harmless(line) for line in printed.messages.splitlines())
        raise NotSupportedError(
            f"the kernel module {name} could not be loaded",
            cause=said or f"modprobe ended with {printed.status}",
            fix=f"install the kernel package that has {name}, or build the kernel with it",
            reason="no-module",
        )
