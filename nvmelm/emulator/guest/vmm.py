"""A small virtual machine: it takes functions through QMP, holds them, and runs a guest that does I/O on the first.

In one process with the demo or a test, or as ``python -m nvmelm.emulator.guest DIR --socket PATH``. It speaks the
part of QEMU's monitor that hands functions over, with QEMU's words where it refuses: ``device_add``, ``device_del``
with its events, ``query-status``, ``query-pci``, ``query-migrate``, ``stop``, ``cont`` and ``quit``. Three are its own:
``x-guest-report``, ``x-guest-save`` and ``x-guest-load``, which move the guest's memory as a migration does.

Source: QEMU documentation, QEMU QMP Reference Manual; messages measured on 11.1.
"""

from __future__ import annotations

import errno
import os
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from nvmelm.disk.atomic import new_file
from nvmelm.emulator.guest import monitor
from nvmelm.emulator.guest.guest import Guest, set_registers
from nvmelm.emulator.guest.qmp import VERSION, Arguments, QmpError, QmpServer
from nvmelm.emulator.guest.report import GuestFindings
from nvmelm.emulator.host import EmulatedHost
from nvmelm.emulator.kernel import functions
from nvmelm.emulator.kernel.vfio import VfioFunction
from nvmelm.errors import HostError, NvmelmError, UsageError

_BDF = re.compile(r"(?:[0-9a-fA-F]{4}:)?[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-7]")
_IDLE_S = 0.01
_ROOT_BUS = "pcie.0"


@dataclass(slots=True)
class _AttachedFunction:
    """A function the machine has."""

    identity: str  # its name, or where it is kept when it was given none
    path: str
    bdf: str
    bus: str
    guest: Guest | None
    function: VfioFunction
    migration: str
    removal: bool = False
    since: float = field(default_factory=time.monotonic)


class EmulatedVmm:
    """A virtual machine on an emulated host.

    Args:
        host: the host it runs on.
        socket: its QMP socket, made here; None: there is none, and the methods are called.
        ports: hotpluggable root ports.
        running: False waits for ``cont``, as QEMU's ``-S`` does.
        incoming: it waits for a guest from elsewhere: functions get the registers a guest had set, no driver starts.
        vm: its own name, as of ``-name guest=``; its process's name when empty.
        capabilities: migration capabilities that are on.
        refuse_unplug: the guest refuses to let a device go.
        hands_back_s: seconds after which a guest that scans its buses powers the slot of a new device off; None: never.
        guest: values for :meth:`Guest.create`.
    """

    def __init__(
        self,
        host: EmulatedHost,
        *,
        socket: Path | None = None,
        name: str = "qemu-system-x86",
        ports: Sequence[str] = ("rp1", "rp2"),
        running: bool = True,
        incoming: bool = False,
        vm: str = "",
        capabilities: Sequence[str] = (),
        refuse_unplug: bool = False,
        hands_back_s: float | None = None,
        guest: dict[str, Any] | None = None,
    ) -> None:
        self._host = host
        self._name, self._vm, self._capabilities, self._ports = name, vm, capabilities, tuple(ports)
        self._running = self._begun = running and not incoming
        self._incoming, self.refuse_unplug = incoming, refuse_unplug
        self._hands_back_s = hands_back_s
        self._guest_values = guest or {}
        self._devices: dict[str, _AttachedFunction] = {}
        self._added = 0
        self._last_report = GuestFindings()
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self._server = QmpServer(socket, self._commands()) if socket is not None else None
        self._worker = threading.Thread(target=self._work, name="guest", daemon=True)
        self._worker.start()
        if self._server is not None:
            self._server.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def guest(self) -> Guest | None:
        """Return the guest, once it has a function."""
        return next((device.guest for device in self._devices.values() if device.guest is not None), None)

    @property
    def running(self) -> bool:
        """Return whether the virtual processors run."""
        return self._running

    def report(self) -> GuestFindings:
        """Return what the guest has seen, also after its function was taken away."""
        with self._lock:
            return self.guest.report() if self.guest is not None else self._last_report

    def finish(self) -> GuestFindings:
        """Let the guest drain its queues and read everything back."""
        with self._lock:
            return self.guest.finish() if self.guest is not None else self._last_report

    def take_over(self, source: EmulatedVmm) -> None:
        """Take the guest of another machine in this process: stop it there, move its memory, keep it stopped here."""
        source.stop({})
        with source._lock, self._lock:
            sender = next(device for device in source._devices.values() if device.guest is not None)
            if sender.guest is None:
                return
            receiver = next(iter(self._devices.values()))
            sender.guest.freeze()
            receiver.function.memory.write(0, sender.function.memory.read(0, sender.function.memory.size))
            receiver.guest = Guest.thaw(self._host, receiver.function)
            source._last_report = sender.guest.report()
            sender.guest = None

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the machine was told to quit."""
        return self._ended.wait(timeout_s)

    def close(self) -> None:
        """End the machine: every function it holds is closed, which resets it."""
        self._ended.set()
        if threading.current_thread() is not self._worker:
            self._worker.join()
        with self._lock:
            for device in list(self._devices.values()):
                self._remove(device)
        if self._server is not None:
            self._server.close()

    # The guest's processor

    def _work(self) -> None:
        while not self._ended.wait(_IDLE_S):
            with self._lock:
                for device in list(self._devices.values()):
                    self._tend(device)

    def _tend(self, device: _AttachedFunction) -> None:
        """Let the guest run for a moment, or let a device go that somebody wants back."""
        given_back = self._hands_back_s is not None and time.monotonic() >= device.since + self._hands_back_s
        if device.function.asked_to_release or given_back:
            device.removal = True
        if not self._running:
            return  # nothing happens to a guest that does not run, not even an unplug
        if device.removal:
            device.removal = False
            about = {"path": device.path} | ({"device": device.identity} if device.identity != device.path else {})
            if self.refuse_unplug:
                self._emit("DEVICE_UNPLUG_GUEST_ERROR", **about)
            else:
                self._remove(device)
                self._emit("DEVICE_DELETED", **about)
            return
        if device.guest is not None and device.guest.function is not None:
            device.guest.start()
            device.guest.step()

    def _remove(self, device: _AttachedFunction) -> None:
        if device.guest is not None:
            if not device.guest.report().errors:
                device.guest.finish()
            self._last_report = device.guest.report()
            device.guest.detach()
        device.function.close()
        self._host.machine.remove_memory(device.function.memory_name)
        del self._devices[device.identity]

    def _emit(self, event: str, **data: Any) -> None:
        if self._server is not None:
            self._server.emit(event, **data)

    # The monitor

    def _commands(self) -> dict[str, Any]:
        return {
            "device_add": self.device_add,
            "device_del": self.device_del,
            "query-status": self._query_status,
            "query-pci": self._query_pci,
            "query-migrate": self._query_migrate,
            "qom-list": lambda arguments: monitor.qom_list(self._tree(), arguments),
            "qom-get": lambda arguments: monitor.qom_get(self._tree(), arguments),
            "query-version": lambda _: VERSION,
            "query-commands": lambda _: [{"name": name} for name in self._commands()],
            "query-name": lambda _: {"name": self._vm or self._name},
            "query-migrate-capabilities": lambda _: [
                {"capability": capability, "state": True} for capability in self._capabilities
            ],
            "stop": self.stop,
            "cont": self.cont,
            "quit": self._quit,
            "x-guest-report": lambda _: asdict(self.report()),
            "x-guest-save": self._guest_save,
            "x-guest-load": self._guest_load,
        }

    def device_add(self, arguments: Arguments) -> dict[str, Any]:
        """Plug a function in; it is held from now on, whether the machine runs or not."""
        if arguments.get("driver") != "vfio-pci":
            raise QmpError(f"'{arguments.get('driver')}' is not a valid device model name")
        bdf = str(arguments.get("host", ""))
        if not _BDF.fullmatch(bdf):
            raise QmpError(f"Property 'vfio-pci.host' doesn't take value '{bdf}'")
        bdf = bdf if bdf.count(":") == 2 else f"0000:{bdf}"
        named = bool(arguments.get("id"))
        self._added += 1
        path = monitor.place(str(arguments["id"]) if named else f"device[{self._added}]", named=named)
        identity = str(arguments["id"]) if named else path
        migration = str(arguments.get("enable-migration", "auto"))
        with self._lock:
            if identity in self._devices:
                raise QmpError(f"Duplicate device ID '{identity}'")
            bus = self._free_port(str(arguments.get("bus") or _ROOT_BUS))
            if migration == "on":
                raise QmpError(f"vfio {bdf}: {monitor.NO_MIGRATION}")
            guest, function = self._open(bdf)
            function.belongs_to(self._vm)
            self._devices[identity] = _AttachedFunction(identity, path, bdf, bus, guest, function, migration)
        return {}

    def _free_port(self, bus: str) -> str:
        if bus == _ROOT_BUS:
            raise QmpError(f"Bus '{_ROOT_BUS}' does not support hotplugging")
        if bus not in self._ports:
            raise QmpError(f"Bus '{bus}' not found")
        for device in self._devices.values():
            if device.bus == bus:
                raise QmpError(
                    "PCI: slot 0 function 0 already occupied by vfio-pci, new func vfio-pci cannot be exposed to guest."
                )
        return bus

    def _open(self, bdf: str) -> tuple[Guest | None, VfioFunction]:
        machine = self._host.machine
        with machine.view() as state:
            function = state["functions"].get(bdf)
        if function is None:
            raise QmpError(f"vfio {bdf}: no such host device: No such file or directory")
        if function["group"] < 0:
            raise QmpError(f"vfio {bdf}: no iommu_group found: No such file or directory")
        if not functions.viable(machine, bdf):
            raise QmpError(f"vfio {bdf}: group {function['group']} is not viable")
        try:
            if self._incoming or self.guest is not None:
                name = machine.new_memory(self._memory_bytes)
                opened = VfioFunction(machine, bdf, memory=name, name=self._name)
                set_registers(opened)
                return None, opened
            guest = Guest.create(self._host, bdf, name=self._name, **self._guest_values)
            guest.attach(self._host, bdf, start=self._running)
        except HostError as error:
            what = os.strerror(error.errno or errno.EIO)
            raise QmpError(f"vfio {bdf}: Could not open '/dev/vfio/{function['group']}': {what}") from error
        except UsageError as error:
            raise QmpError(f"vfio {bdf}: {error}") from error
        if guest.function is None:
            raise QmpError(f"vfio {bdf}: the function has gone")
        return guest, guest.function

    @property
    def _memory_bytes(self) -> int:
        return int(self._guest_values.get("memory_bytes", 1 << 20))

    def device_del(self, arguments: Arguments) -> dict[str, Any]:
        """Ask the guest to let a device go; what it decides arrives as an event, when it runs."""
        identity = str(arguments.get("id", ""))
        with self._lock:
            device = next(
                (device for device in self._devices.values() if identity in (device.identity, device.path)), None
            )
            if device is None:
                raise QmpError(f"Device '{identity}' not found", "DeviceNotFound")
            if device.removal:
                raise QmpError(f"Device {identity} is already in the process of unplug")
            device.removal = True
        return {}

    def _query_status(self, _: Arguments) -> dict[str, Any]:
        idle = "inmigrate" if self._incoming and not self._begun else "paused" if self._begun else "prelaunch"
        return {"running": self._running, "status": "running" if self._running else idle}

    def _query_pci(self, _: Arguments) -> list[dict[str, Any]]:
        with self._lock, self._host.machine.view():
            below = {device.bus: (device.identity, self._ids(device.bdf)) for device in self._devices.values()}
        return monitor.pci(self._ports, below)

    def _ids(self, bdf: str) -> dict[str, int]:
        machine = self._host.machine
        function = machine.state["functions"].get(bdf)
        if function is None:
            return {}
        row = machine.generation(machine.primary_of(function))
        return {"vendor": row.vendor_id, "device": row.vf_device_id}

    def _query_migrate(self, _: Arguments) -> dict[str, Any]:
        with self._lock:
            return monitor.blocked_reasons([(device.bdf, device.migration) for device in self._devices.values()])

    def _tree(self) -> dict[str, monitor.Properties]:
        with self._lock:
            return monitor.objects(
                self._ports, [(device.path, device.bdf, device.bus) for device in self._devices.values()]
            )

    def stop(self, _: Arguments) -> dict[str, Any]:
        """Stop the virtual processors; the controllers go on, as hardware does."""
        with self._lock:
            was, self._running = self._running, False
        if was:
            self._emit("STOP")
        return {}

    def cont(self, _: Arguments) -> dict[str, Any]:
        """Let the virtual processors run."""
        with self._lock:
            was, self._running, self._begun = self._running, True, True
        if not was:
            self._emit("RESUME")
        return {}

    def _quit(self, _: Arguments) -> dict[str, Any]:
        self._emit("SHUTDOWN", guest=False, reason="host-qmp-quit")
        self._ended.set()
        return {}

    def _guest_save(self, arguments: Arguments) -> dict[str, Any]:
        """Stop the machine and copy the guest's memory, with everything it remembers, to a file."""
        self.stop({})
        with self._lock:
            guest = self.guest
            if guest is None or guest.function is None:
                raise QmpError("there is no guest")
            guest.freeze()
            memory = guest.function.memory
            with os.fdopen(new_file(Path(str(arguments["path"])), replace=True), "wb") as file:
                file.write(memory.read(0, memory.size))
        return {"bytes": memory.size}

    def _guest_load(self, arguments: Arguments) -> dict[str, Any]:
        """Take a guest's memory from a file into the function this machine holds."""
        with self._lock:
            if not self._devices:
                raise QmpError("there is no function to give to the guest")
            device = next(iter(self._devices.values()))
            try:
                raw = Path(str(arguments["path"])).read_bytes()
                device.function.memory.write(0, raw)
                device.guest = Guest.thaw(self._host, device.function)
            except (OSError, ValueError, NvmelmError) as error:
                raise QmpError(f"cannot load the guest: {error}") from error
        return {}
