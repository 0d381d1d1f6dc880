"""How commands and file accesses travel: the seam between nvmelm and the world.

Everything nvmelm does to a machine goes through :class:`AdminQueue` (one admin command) or :class:`Sysfs` (one file),
both handed out by a :class:`Host`. Each has three forms; all code above is deterministic, and runs on any of them:

::

    local/      this machine
    recording/  what a host was asked once, and what it said
    (emulator)  an emulated machine: a room of its own, since it may see nothing of ours but this seam

A :class:`Host` answers a few questions more that sysfs cannot: who has a device node open, what is mounted, which
kernel this is. They stand on the same seam, so a recording holds them too. What the answers mean is not decided here:
bytes are read in :mod:`nvmelm.wire`, sysfs attributes in :mod:`nvmelm.inventory.pci`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal, NamedTuple, Protocol, Self

#: Admin commands of live migration may take long, and an expired one makes the driver reset the primary controller,
#: which takes every secondary Offline. So the timeout is generous: 10 minutes.
ADMIN_TIMEOUT_MS = 10 * 60 * 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminCommand:
    """One admin command, ready to travel; built by :mod:`nvmelm.commands`, never by hand above it.

    Attributes:
        name: the specification's name, for messages and recordings.
        data_out: bytes that go from the host to the controller, or None.
        data_in_length: bytes the controller returns, 0 for none.
        timeout_ms: milliseconds until the driver gives up on the command and resets the controller.
    """

    name: str
    opcode: int
    nsid: int = 0
    cdw2: int = 0
    cdw3: int = 0
    cdw10: int = 0
    cdw11: int = 0
    cdw12: int = 0
    cdw13: int = 0
    cdw14: int = 0
    cdw15: int = 0
    data_out: bytes | memoryview | None = field(default=None, repr=False)
    data_in_length: int = 0
    timeout_ms: int = ADMIN_TIMEOUT_MS

    @property
    def data_length(self) -> int:
        """Return the number of bytes that travel, in whichever direction."""
        return len(self.data_out) if self.data_out is not None else self.data_in_length

    @property
    def words(self) -> tuple[int, int, int, int, int, int]:
        """Return CDW10 to CDW15."""
        return (self.cdw10, self.cdw11, self.cdw12, self.cdw13, self.cdw14, self.cdw15)


class Completion(NamedTuple):
    """What came back for an :class:`AdminCommand`.

    Attributes:
        status: status field of the completion shifted right by the phase bit, as the kernel returns it; 0 is success.
        result: completion DW0 in bits 31:0 and DW1 in bits 63:32.
        data: bytes from the controller, ``data_in_length`` of them, empty when the command has none.
    """

    status: int
    result: int = 0
    data: bytes = b""


class AdminQueue(Protocol):
    """The admin queue of one primary controller."""

    def submit(self, command: AdminCommand) -> Completion:
        """Run one command and return its completion, whatever its status.

        Raises:
            PermissionDeniedError: not root.
            DeviceGoneError: the controller is dead or was removed.
            TimedOutError: the driver gave up on the command (EINTR) and reset the controller.
            HostError: anything else the driver refuses.
        """
        ...

    @property
    def max_transfer_bytes(self) -> int:
        """Return the largest data buffer the *kernel* carries in one command, bytes, a multiple of 4 KiB."""
        ...

    def close(self) -> None:
        """Give the device node back."""
        ...


class Sysfs(Protocol):
    """Files below ``/sys``. Paths are relative to it, ``bus/pci/devices/0000:01:00.0/sriov_numvfs``."""

    def read(self, path: str) -> str:
        """Return the text of an attribute without its trailing newline; HostError when it cannot be read."""
        ...

    def write(self, path: str, value: str) -> None:
        """Write an attribute; HostError with the kernel's errno when it refuses."""
        ...

    def readlink(self, path: str) -> str | None:
        """Return the target of a link as it is stored (often relative), or None when there is no such link."""
        ...

    def listdir(self, path: str) -> list[str]:
        """Return the sorted names in a directory; empty when there is no such directory."""
        ...

    def exists(self, path: str) -> bool:
        """Return whether a path exists, links followed."""
        ...

    def inode(self, path: str) -> int:
        """Return the inode of a path, links followed; a device that was removed and made anew has another one."""
        ...

    def devices(self, subsystem: str) -> list[str]:
        """Return the sorted kernel names of a subsystem's devices (``nvme`` gives ``nvme0``, …)."""
        ...


class Opener(NamedTuple):
    """A process that has a device node open.

    Attributes:
        node: the node below /dev.
        name: the process's name.
        vm: the virtual machine it runs, as its command line calls it; empty when it says nothing.
    """

    node: str
    pid: int
    name: str
    vm: str = ""

    def __str__(self) -> str:
        return f"{self.name} (pid {self.pid}{f', VM {self.vm}' if self.vm else ''})"


class Mount(NamedTuple):
    """A mounted file system or active swap area: the device's kernel name (``nvme0n1p1``) and where it is used."""

    device: str
    where: str


class Claim(NamedTuple):
    """A PCI function that another manager binds: its address, who does, and the domain's name when libvirt does."""

    address: str
    manager: Literal["driverctl", "libvirt"]
    domain: str


class Uevent(NamedTuple):
    """What the kernel says when a device comes, goes or changes.

    Attributes:
        seqnum: the kernel's running number; uevents of other subsystems leave gaps.
        action: ``add``, ``remove``, ``change``, ``bind``, ``unbind``, …
        subsystem: one of :data:`UEVENT_SUBSYSTEMS`.
        device: the device's path below /sys, ``devices/pci0000:00/0000:00:01.0/0000:01:00.1``.
        properties: the other keys, as the kernel wrote them.
    """

    seqnum: int
    action: str
    subsystem: str
    device: str
    properties: Mapping[str, str]


#: What tells of functions, controllers and their VFIO nodes.
UEVENT_SUBSYSTEMS = ("pci", "nvme", "vfio", "vfio-dev")


class Uevents(Protocol):
    """The uevents of a host from the moment this was made, in order."""

    def fileno(self) -> int:
        """Return the descriptor that can be read when there is one."""
        ...

    def next(self) -> Uevent | None:
        """Return the next one, or None when there is none now.

        Raises:
            UeventsLostError: some came that nobody took in time; those that follow are whole again.
        """
        ...

    def close(self) -> None:
        """Stop listening."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class HostFacts(NamedTuple):
    """What a host is, as far as the verbs ask.

    Attributes:
        kernel_release: ``uname -r``.
        boot_id: changes with every boot; marks and journals of an earlier boot speak of VFs that are gone.
        privileged: whether this process may write sysfs and send admin commands.
    """

    kernel_release: str
    boot_id: str
    privileged: bool


class Host(Protocol):
    """One machine: its sysfs, its controllers' admin queues, and what else the verbs ask of it."""

    @property
    def kind(self) -> Literal["local", "emulated", "replay"]:
        """Return which of the three worlds this is."""
        ...

    @property
    def name(self) -> str:
        """Return the ``--host`` argument that selects this host."""
        ...

    @property
    def sysfs(self) -> Sysfs:
        """Return the host's sysfs."""
        ...

    @property
    def recorded(self) -> bool:
        """Return whether this is a recording, or being recorded: what it cannot hold must not be asked for then."""
        ...

    @property
    def serial(self) -> bool:
        """Return whether work that could run in parallel has to keep one order here, as in a recording."""
        ...

    @property
    def state_dir(self) -> Path:
        """Return the directory (0700) that holds this host's marks and journals."""
        ...

    def open_queue(self, controller: str) -> AdminQueue:
        """Open the admin queue of a controller by its kernel name, ``nvme0``."""
        ...

    def lock(self, name: str, *, timeout_s: float = 30.0) -> AbstractContextManager[None]:
        """Hold the lock of a primary controller against other nvmelm processes.

        Raises:
            BusyError: another process held it for longer than the timeout; it is named.
        """
        ...

    def facts(self) -> HostFacts:
        """Return the kernel, the boot and whether this process is privileged."""
        ...

    def openers(self, nodes: Sequence[str]) -> list[Opener]:
        """Return who has any of ``/dev/<node>`` open, this process left out; one look for all of them."""
        ...

    def exclusively_held(self, nodes: Sequence[str]) -> list[str]:
        """Return which block devices ``/dev/<node>`` the kernel, or a process, has claimed for itself.

        The kernel's own last word: mounted in any namespace, swap, member of an array or a pool, or a partition of it
        is. Asked by opening each exclusively for a moment, in which nobody else could claim it: for disks of which
        nothing else is known.
        """
        ...

    def mounts(self) -> list[Mount]:
        """Return mounted file systems and swap on block devices."""
        ...

    def claims(self) -> list[Claim]:
        """Return the PCI functions that others bind, by driverctl's and libvirt's files in ``/etc``."""
        ...

    def queue_memory(self, size: int) -> AbstractContextManager[memoryview]:
        """Hold zeroed memory that a controller may write to by itself, for a Controller Data Queue.

        Args:
            size: bytes; the memory may be larger.

        Raises:
            NotSupportedError: the kernel's driver owns the controllers of this host, or this is a recording.
        """
        ...

    def uevents(self) -> Uevents:
        """Begin to listen to the kernel.

        Raises:
            NotSupportedError: this is a recording, or is being recorded: devices do not come and go in it.
        """
        ...

    def node_exists(self, node: str) -> bool:
        """Return whether ``/dev/<node>`` exists."""
        ...

    def load_module(self, name: str) -> None:
        """Load a kernel module that is not loaded yet.

        Raises:
            NotSupportedError: the kernel has no such module.
        """
        ...

    def close(self) -> None:
        """Let go of everything; a replay complains here about events that were never asked for."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in total) while a long transfer runs."""
