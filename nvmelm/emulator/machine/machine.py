"""The emulated machine during one transaction: its state, its devices' generations, and the files beside the state.

Every other module of the emulator is made of functions that take a :class:`Machine`. They run between
:meth:`Machine.change` and the end of its block, and speak of two errors: an ``OSError`` where the kernel would answer
with an errno (turned into an error of nvmelm in :mod:`nvmelm.emulator.host` and :mod:`nvmelm.emulator.kernel.sysfs`),
and a status number where a controller would answer.
"""

from __future__ import annotations

import errno
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from nvmelm.disk.store import write as write_file
from nvmelm.emulator.machine import pipes
from nvmelm.emulator.machine.files import StateFiles
from nvmelm.emulator.machine.generations import DeviceGeneration
from nvmelm.emulator.machine.memory import Memory
from nvmelm.emulator.machine.state import (
    EmulatedController,
    EmulatedFunction,
    EmulatedPrimary,
    Holder,
    HostState,
    new_controller,
)
from nvmelm.emulator.machine.store import Store
from nvmelm.errors import NvmelmError


class Machine:
    """One process' view of an emulated host."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.directory = store.directory
        self._state: HostState | None = None
        self._generations: dict[str, DeviceGeneration] = {}
        self._memories: dict[str, Memory] = {}
        self._doomed: list[str] = []
        self.files = StateFiles(store.directory)
        self.media: dict[str, int] = {}  # descriptors of the namespaces' files by name
        self.said: list[dict[str, Any]] = []  # uevents of this transaction
        store.when_kept = self._tell

    @property
    def state(self) -> HostState:
        """Return the state; only inside a transaction."""
        if self._state is None:
            raise RuntimeError("the emulated host's state is only there inside a transaction")
        return self._state

    @contextmanager
    def view(self) -> Iterator[HostState]:
        """Look at the state."""
        with self.store.view() as state:
            before, self._state = self._state, state
            try:
                yield state
            finally:
                self._state = before

    @contextmanager
    def change(self) -> Iterator[HostState]:
        """Change the state."""
        try:
            with self.store.change() as state:
                before, self._state = self._state, state
                try:
                    yield state
                except NvmelmError:
                    raise
                except BaseException:
                    self.said.clear()  # of a change that is not kept; still under the lock, as others say things too
                    raise
                finally:
                    self._state = before
        finally:
            if self._state is None:
                self._remove_doomed()

    def _tell(self) -> None:
        if self.said:
            pipes.tell(self.listeners, self.said)
            self.said.clear()

    @property
    def listeners(self) -> Path:
        """Return the directory of the pipes of those who listen to uevents."""
        return self.directory / "listeners"

    def generation(self, primary: EmulatedPrimary) -> DeviceGeneration:
        """Return what kind of device a primary is."""
        name = primary["generation"]
        row = self._generations.get(name)
        if row is None:
            row = DeviceGeneration.from_json(json.loads((self.directory / name).read_bytes()))
            self._generations[name] = row
        return row

    def function(self, bdf: str) -> EmulatedFunction:
        """Return a PCI function; ENODEV when there is none."""
        function = self.state["functions"].get(bdf)
        if function is None:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        return function

    def primary_of(self, function: EmulatedFunction) -> EmulatedPrimary:
        """Return the primary that controls a function, which may be the function's own."""
        return self.state["primaries"][function["pf"]]

    def controller_of(self, function: EmulatedFunction) -> EmulatedController:
        """Return the controller behind a function."""
        primary = self.primary_of(function)
        if function["index"] < 0:
            return primary["own"]
        return self.secondary(primary, primary["first_cntlid"] + 1 + function["index"], create=True)

    def secondary(self, primary: EmulatedPrimary, cntlid: int, *, create: bool = False) -> EmulatedController:
        """Return a secondary controller; one that nothing ever happened to is only remembered when ``create`` is set.

        Raises:
            KeyError: it is not a secondary of this primary.
        """
        secondary = primary["secondaries"].get(str(cntlid))
        if secondary is not None:
            return secondary
        vfn = cntlid - primary["first_cntlid"]
        if not 1 <= vfn <= self.generation(primary).max_vfs:
            raise KeyError(cntlid)
        fresh = new_controller(cntlid, vfn)
        if create:
            primary["secondaries"][str(cntlid)] = fresh
        return fresh

    def secondaries(self, primary: EmulatedPrimary) -> Iterator[EmulatedController]:
        """Yield every secondary of a primary in the order of controller ids."""
        first = primary["first_cntlid"] + 1
        for cntlid in range(first, first + self.generation(primary).max_vfs):
            yield self.secondary(primary, cntlid)

    def function_of(self, primary: EmulatedPrimary, controller: EmulatedController) -> EmulatedFunction | None:
        """Return the PCI function of a controller, or None when SR-IOV does not show it."""
        if controller["vfn"] == 0:
            return self.state["functions"].get(primary["bdf"])
        if controller["vfn"] > primary["numvfs"]:
            return None
        return self.state["functions"].get(self.vf_address(primary, controller["vfn"] - 1))

    def vf_routing(self, primary: EmulatedPrimary) -> tuple[int, int]:
        """Return First VF Offset and VF Stride as they read with the number of VFs there is now."""
        return self.generation(primary).vf_routing(primary["numvfs"])

    def vf_address(self, primary: EmulatedPrimary, index: int) -> str:
        """Return the address of a VF with the number of VFs there is now."""
        offset, stride = self.vf_routing(primary)
        return vf_address(primary["bdf"], index, offset, stride)

    def free_group(self) -> int:
        """Return the lowest number, from 1, that no IOMMU group has."""
        taken = {function["group"] for function in self.state["functions"].values()}
        return next(number for number in range(1, len(taken) + 3) if number not in taken)

    @property
    def vfio_devices(self) -> bool:
        """Return whether VFIO makes a device of each function (``vfio-dev``), as Linux does since 6.1 (3c6cf9c)."""
        major, minor = (int(part) for part in self.state["options"]["kernel_release"].split("-")[0].split(".")[:2])
        return (major, minor) >= (6, 1)

    def holder(self, bdf: str) -> Holder | None:
        """Return who has a function open through VFIO, the dead left out."""
        for holder in self.state["holders"]:
            if holder["bdf"] == bdf and alive(holder):
                return holder
        return None

    def opened(self, bdf: str) -> Holder | None:
        """Return the record of who has a function open, alive or not: of the function's own registers and vectors."""
        return next((holder for holder in self.state["holders"] if holder["bdf"] == bdf), None)

    def memory(self, name: str) -> Memory:
        """Return a file of memory that devices do DMA to."""
        memory = self._memories.get(name)
        if memory is None or memory.closed:
            memory = self._memories[name] = Memory(self.directory / name)
        return memory

    def forget_memory(self, name: str) -> None:
        """Unmap a file of memory in this process."""
        memory = self._memories.pop(name, None)
        if memory is not None:
            memory.close()

    def register_memory(self, size: int) -> memoryview:
        """Return zeroed memory in a new file that devices can do DMA to."""
        return memoryview(self.memory(self.new_memory(size)).buffer)

    def new_memory(self, size: int) -> str:
        """Make a file of zeroed memory and return its name."""
        name = f"memory/{uuid.uuid4().hex}"
        self._memories[name] = Memory(self.directory / name, size)
        return name

    def remove_memory(self, name: str) -> None:
        """Remove a file of memory."""
        self.forget_memory(name)
        (self.directory / name).unlink(missing_ok=True)

    def doom(self, name: str) -> None:
        """Remove a file once the state that no longer names it has been kept."""
        if name:
            self._doomed.append(name)

    def _remove_doomed(self) -> None:
        """Remove files that nothing names any more; one that the kept state still names stays."""
        if not self._doomed:
            return
        with self.store.view() as state:
            named = {
                name
                for primary in state["primaries"].values()
                for secondary in primary["secondaries"].values()
                for name in (secondary["vendor"], secondary["transfer"]["file"] if secondary["transfer"] else "")
            }
            for name in self._doomed:
                if name not in named:
                    self.files.remove(name)
            self._doomed.clear()

    def registered(self, buffer: object) -> str:
        """Return the file behind a buffer that came from :meth:`register_memory`, or empty."""
        if not isinstance(buffer, memoryview):
            return ""
        return next((name for name, memory in self._memories.items() if memory.buffer is buffer.obj), "")

    def close(self) -> None:
        """Unmap everything and let go of the state."""
        for name in list(self._memories):
            self.forget_memory(name)
        for descriptor in self.media.values():
            os.close(descriptor)
        self.media.clear()
        self.files.close()
        self.store.close()


def write_generation(directory: Path, row: DeviceGeneration) -> str:
    """Keep a generation's row beside the state and return its file name."""
    raw = json.dumps(row.to_json(), indent=1, sort_keys=True).encode()
    name = f"generation-{sha256(raw).hexdigest()[:16]}.json"
    write_file(directory / name, raw, durable=False)
    return name


def alive(holder: Holder) -> bool:
    """Return whether the process that opened a function still runs; its end closes the function."""
    return process_start(holder["pid"]) == holder["start"]


def process_start(pid: int) -> int:
    """Return when a process started, clock ticks after boot; -1 when it is not there."""
    try:
        raw = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return -1
    fields = raw[raw.rfind(b")") + 2 :].split()
    return -1 if fields[0] in (b"Z", b"X") else int(fields[19])


def vf_address(pf: str, index: int, offset: int = 1, stride: int = 1) -> str:
    """Return the address of a VF by First VF Offset and VF Stride, carried into the next bus number.

    Source: PCI Express Base Specification, SR-IOV, First VF Offset and VF Stride.
    """
    domain, bus, rest = pf.split(":")
    device, _, number = rest.partition(".")
    routing_id = (int(bus, 16) << 8 | int(device, 16) << 3 | int(number)) + offset + index * stride
    return f"{domain}:{routing_id >> 8:02x}:{routing_id >> 3 & 0x1F:02x}.{routing_id & 7}"
