"""The emulated host: :class:`~nvmelm.host.Host` over a directory.

::

    DIR/state*.json         everything small, replaced as a whole          DIR/nvmelm/   marks and journals of nvmelm
    DIR/generation-*.json   what its devices are                           DIR/memory/   memory of guests and queues
    DIR/namespaces/         the media, sparse                              DIR/vendor/   vendor specific state
    DIR/listeners/          pipes of those who listen to uevents
    DIR/root/etc/           files of driverctl and libvirt, if a test puts some there

``EmulatedHost(directory)`` on an empty or missing directory makes a host with one physical function of the newest
generation; :func:`create` makes others.
"""

from __future__ import annotations

import errno
import os
import re
import uuid
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from nvmelm.disk.locks import FileLocks
from nvmelm.emulator import creation
from nvmelm.emulator.device import resets
from nvmelm.emulator.kernel import disks, drivers, functions
from nvmelm.emulator.kernel.ioctl import EmulatedQueue
from nvmelm.emulator.kernel.sysfs import EmulatedSysfs
from nvmelm.emulator.kernel.tree import vfio_group
from nvmelm.emulator.machine import faults
from nvmelm.emulator.machine.generations import DeviceGeneration
from nvmelm.emulator.machine.machine import Machine, alive
from nvmelm.emulator.machine.memory import PAGE
from nvmelm.emulator.machine.pipes import EmulatedUevents
from nvmelm.emulator.machine.state import BlockOpener, EmulatedFunction, EmulatedPrimary, HostState
from nvmelm.emulator.machine.store import Store
from nvmelm.errors import DeviceGoneError, NotSupportedError, PermissionDeniedError, UsageError, host_error
from nvmelm.host import Claim, HostFacts, Mount, Opener

_CONTROLLER = re.compile(r"nvme(\d{1,9})")
_SUBDIRECTORIES = ("memory", "namespaces", "nvmelm", "vendor")


class EmulatedHost:
    """An emulated machine that keeps its state in a directory from one process to the next.

    Args:
        directory: its state; made, with a default device, when it is empty or missing.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._machine = _machine(directory)
        with self._machine.view() as state:
            empty = not state["primaries"]
        if empty:
            with self._machine.change() as state:
                if not state["primaries"]:
                    for row in creation.default_devices():
                        creation.add_device(self._machine, row)
        self._sysfs = EmulatedSysfs(self._machine)
        self._locks = FileLocks(self.state_dir / "locks")

    @property
    def kind(self) -> Literal["local", "emulated", "replay"]:
        return "emulated"

    @property
    def name(self) -> str:
        return f"emulated:{self._directory}"

    @property
    def machine(self) -> Machine:
        """Return the emulated machine itself: for guests, for virtual machines, and for tests that look inside."""
        return self._machine

    @property
    def recorded(self) -> bool:
        return False

    @property
    def serial(self) -> bool:
        """Return whether work keeps one order: it costs no time here, and faults strike at the n-th command of it.

        A host whose commands take time is worked on as a real one is.
        """
        with self._machine.view() as state:
            return not state["options"]["latency_ms"]

    @property
    def sysfs(self) -> EmulatedSysfs:
        return self._sysfs

    @property
    def state_dir(self) -> Path:
        return self._directory / "nvmelm"

    def open_queue(self, controller: str) -> EmulatedQueue:
        """Open the admin queue of a controller by its kernel name."""
        named = _CONTROLLER.fullmatch(controller)
        node = f"/dev/{controller}"
        if named is None:
            raise NotSupportedError(
                f"{controller!r} is not a controller",
                cause="admin commands go through a controller's node, /dev/nvmeX",
                fix="nvmelm list shows the controllers",
                reason="not-a-controller",
            )
        with self._machine.view() as state:
            if not state["options"]["privileged"]:
                raise host_error("cannot open", node, OSError(errno.EACCES, os.strerror(errno.EACCES)))
            for function in state["functions"].values():
                if function["nvme"] == int(named[1]):
                    return EmulatedQueue(self._machine, controller, function["bdf"], function["inode"])
        raise DeviceGoneError(
            f"cannot open {node}: {os.strerror(errno.ENOENT)}",
            path=node,
            errno=errno.ENOENT,
            cause="there is no such controller, or its node is not visible here",
            fix="nvmelm list",
        )

    def lock(self, name: str, *, timeout_s: float = 30.0) -> AbstractContextManager[None]:
        return self._locks.hold(name, timeout_s=timeout_s)

    def facts(self) -> HostFacts:
        with self._machine.view() as state:
            options = state["options"]
            return HostFacts(options["kernel_release"], state["boot_id"], options["privileged"])

    def openers(self, nodes: Sequence[str]) -> list[Opener]:
        """Return the virtual machines that have any of the VFIO nodes open, this process' own included.

        An emulated virtual machine may live in this very process; it is another one as far as the emulation goes.
        """
        with self._machine.view() as state:
            dead = not all(alive(holder) for holder in state["holders"])
        if dead:
            with self._machine.change():
                functions.reap(self._machine)
        openers: list[Opener] = []
        with self._machine.view() as state:
            for holder in state["holders"]:
                held = self._nodes(state["functions"][holder["bdf"]])
                openers += [
                    Opener(node, holder["pid"], holder["name"], holder.get("vm", "")) for node in nodes if node in held
                ]
            for opener in state.get("block_openers", []):
                if opener["device"] in nodes:
                    openers.append(Opener(opener["device"], opener["pid"], opener["name"]))
        return openers

    def exclusively_held(self, nodes: Sequence[str]) -> list[str]:
        with self._machine.view() as state:
            return [node for node in nodes if disks.claimed(state, node)]

    def mounts(self) -> list[Mount]:
        with self._machine.view() as state:
            return [Mount(mount["device"], mount["where"]) for mount in state["mounts"]]

    def claims(self) -> list[Claim]:
        """Return what others bind; the host's ``/etc`` is ``DIR/root/etc``."""
        from nvmelm.host.local.claims import claims  # only where desired state is applied

        return claims(self._directory / "root")

    @contextmanager
    def queue_memory(self, size: int) -> Iterator[memoryview]:
        """Hold memory that a device may write to; it is a file of the host, which goes when the block ends."""
        memory = self.allocate(size)
        name = self._machine.registered(memory)
        try:
            yield memory
        finally:
            memory.release()
            self._machine.remove_memory(name)

    def uevents(self) -> EmulatedUevents:
        return EmulatedUevents(self._machine.listeners)

    def node_exists(self, node: str) -> bool:
        with self._machine.view() as state:
            if node == "vfio/vfio":
                return "vfio" in state["modules"]
            if node == "iommu":
                return state["options"]["cdev"]
            return any(node in self._nodes(function) for function in state["functions"].values())

    def _nodes(self, function: EmulatedFunction) -> list[str]:
        if function["nvme"] >= 0:
            return [f"nvme{function['nvme']}", *disks.nodes(self._machine, function)]
        nodes = _vfio_nodes(function)
        return nodes if self._machine.state["options"]["cdev"] and self._machine.vfio_devices else nodes[:1]

    def load_module(self, name: str) -> None:
        """Load a kernel module that is not loaded yet."""
        with self._machine.view() as state:
            if name.replace("-", "_") in state["modules"]:
                return
            if not state["options"]["privileged"]:
                raise PermissionDeniedError(
                    f"cannot load the kernel module {name}", cause="loading a module needs root", fix="run it as root"
                )
        with self._machine.change():
            if not drivers.load_module(self._machine, name):
                raise NotSupportedError(
                    f"the kernel has no module {name}",
                    cause=f"FATAL: Module {name} not found",
                    fix="install the kernel's modules, or use a kernel that has it",
                    reason="no-module",
                )

    def close(self) -> None:
        """Let go of the state; a second time does nothing."""
        self._machine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # What follows is not of the Host protocol: it is how a test, a guest or the demo moves the emulated world.

    def arm(self, *lines: str) -> None:
        """Arm faults, one line each; see :mod:`nvmelm.emulator.machine.faults`."""
        parsed = [faults.parse(line) for line in lines]
        with self._machine.change() as state:
            state["faults"].extend(parsed)

    def disarm(self) -> int:
        """Forget every fault; return how many had not struck."""
        with self._machine.change() as state:
            left, state["faults"] = len(state["faults"]), []
        return left

    def set_option(self, **options: Any) -> None:
        """Change what kind of host this is; takes effect for what happens from now on.

        Raises:
            UsageError: there is no such option.
        """
        with self._machine.change() as state:
            creation.change_options(state["options"], options)

    def mount(self, device: str, where: str) -> None:
        """Mount a file system on a block device."""
        with self._machine.change() as state:
            state["mounts"].append({"device": device, "where": where})

    def unmount(self, where: str) -> None:
        """Unmount it again."""
        with self._machine.change() as state:
            state["mounts"] = [mount for mount in state["mounts"] if mount["where"] != where]

    def hold_block(self, device: str, *holders: str) -> None:
        """Put device mapper or md devices on a disk, a partition or one another; none takes them all away."""
        with self._machine.change() as state:
            state["block_holders"][device] = list(holders)

    def claim_block(self, device: str) -> None:
        """Make a disk or partition the member of a pool that shows neither a mount nor a holder, as ZFS does."""
        with self._machine.change() as state:
            state["claimed_blocks"] = [*state.get("claimed_blocks", []), device]

    def open_block(self, device: str, pid: int, name: str) -> None:
        """Let a process have a disk, a partition or a device on it open."""
        with self._machine.change() as state:
            opener: BlockOpener = {"device": device, "pid": pid, "name": name}
            state["block_openers"] = [*state.get("block_openers", []), opener]

    def reset_primary(self, pf: str, kind: Literal["controller", "function"] = "controller") -> None:
        """Reset a primary behind the manager's back."""
        with self._primary(pf) as primary:
            resets.reset_primary(self._machine, primary, kind)

    def remove(self, pf: str) -> None:
        """Take a device off the bus."""
        with self._primary(pf) as primary:
            functions.vanish(self._machine, primary)

    @contextmanager
    def _primary(self, pf: str) -> Iterator[EmulatedPrimary]:
        with self._machine.change() as state:
            yield state["primaries"][pf]

    def reboot(self) -> None:
        """Start the machine anew: no VFs, no overrides, nobody holds anything, another boot identifier."""
        with self._machine.change() as state:
            for primary in state["primaries"].values():
                functions.disable_vfs(self._machine, primary, forced=True)
                resets.reset_primary(self._machine, primary, "function")
                primary["autoprobe"] = True
            state["boot_id"] = str(uuid.uuid4())
            state["holders"], state["mounts"], state["new_ids"], state["block_holders"] = [], [], {}, {}
            state["claimed_blocks"], state["block_openers"] = [], []
            state["modules"] = ["nvme_core", "nvme"]
            for bdf in list(state["functions"]):
                del state["functions"][bdf]
                drivers.attach(self._machine, functions.add_function(self._machine, bdf, bdf, -1))

    def allocate(self, size: int) -> memoryview:
        """Return zeroed memory that devices may do DMA to for as long as it is needed; for Controller Data Queues.

        It is a file in the host's directory, so that whichever process makes the device write, the bytes arrive here.
        A queue made from any other buffer loses its entries, as one made through the kernel's passthrough does.
        """
        return self._machine.register_memory(-(-size // PAGE) * PAGE)


def create(
    directory: Path,
    generations: Sequence[str | DeviceGeneration] = (),
    *,
    serials: Sequence[str] = (),
    storage: Path | None = None,
    medium: Literal["own", "shared"] = "own",
    options: dict[str, Any] | None = None,
) -> EmulatedHost:
    """Make an emulated host.

    Args:
        directory: where it keeps its state; must not hold a host yet.
        generations: its devices, one physical function each, by name or as rows; the newest one when empty.
        serials: their serial numbers, in the same order.
        storage: directory of the namespaces' files. Two hosts with the same one share a medium, as they do with a
            dual-ported device or one on a network: the first device of both sees the same blocks, and so on.
        medium: ``shared`` lets every device of the host see the same blocks.
        options: what kind of host it is; see :class:`nvmelm.emulator.machine.state.HostOptions`.

    Raises:
        UsageError: the directory holds a host already, or a name is unknown.
    """
    rows = [creation.generation_named(generation) for generation in generations] or list(creation.default_devices())
    if (directory / "state.json").exists():
        raise UsageError(f"there is an emulated host already: {directory}", fix="name another directory")
    machine = _machine(directory, options or {}, storage)
    with machine.change():
        for number, row in enumerate(rows):
            serial = serials[number] if number < len(serials) else None
            creation.add_device(machine, row, serial=serial, medium=medium)
    machine.close()
    return EmulatedHost(directory)


def _machine(directory: Path, options: dict[str, Any] | None = None, storage: Path | None = None) -> Machine:
    def initial(place: Path) -> HostState:
        for name in _SUBDIRECTORIES:
            (place / name).mkdir(mode=0o700, exist_ok=True)
        return creation.new_host(place, options or {}, storage)

    return Machine(Store(directory, initial))


def _vfio_nodes(function: EmulatedFunction) -> list[str]:
    if function["vfio"] < 0:
        return []
    return [f"vfio/{vfio_group(function)}", f"vfio/devices/vfio{function['vfio']}"]
