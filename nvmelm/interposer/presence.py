"""Which VMs are supervised on this host, for everybody who asks: a small file for each, as long as it runs.

::

    STATE_DIR/vms/PID.json    who it is, who answers it, and its functions with their states

A file whose process has ended is nobody's: the process is known by its number *and* the moment it began, so that a
number the kernel gave again is not taken for it. Nothing has to survive a crash of the machine, so nothing is flushed.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nvmelm.errors import host_error
from nvmelm.interposer.device import Device, in_words
from nvmelm.vfio.seam import DeviceState, Refusal

_PROC = Path("/proc")
#: A VM has some kilobytes; nobody but root writes here.
_MOST_BYTES = 1 << 20


@dataclass(slots=True)
class FunctionPresence:
    """A function of a supervised VM.

    Attributes:
        state: VFIO's word for its state, ``RUNNING``.
        since: when it was entered, seconds since 1970.
        arc_ms: how long the last arc took; None before the first.
        refusal: why the last arc was refused; empty when it was not.
    """

    address: str
    state: str
    since: float
    arc_ms: float | None = None
    refusal: str = ""


@dataclass(slots=True)
class VmPresence:
    """A supervised VM.

    Attributes:
        life: what tells its process from another of the same number.
        vm: what it is called; a stranger's text.
        by: who answers, ``run`` or ``agent``.
        since: seconds since 1970.
    """

    pid: int
    life: str
    vm: str
    by: str
    since: float
    functions: dict[str, FunctionPresence] = field(default_factory=dict)


def life_of(pid: int, proc: Path = _PROC) -> str | None:
    """Return what tells a process from others that had or will have its number; None when it has ended.

    Source: proc(5): the 22nd field of ``stat``, counted behind the program's name, which may hold anything.
    """
    try:
        begun = (proc / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()[19]
        return f"{(proc / 'sys/kernel/random/boot_id').read_text().strip()}/{begun}"
    except (OSError, IndexError):
        return None


def directory(state_dir: Path) -> Path:
    """Return where the files are."""
    return state_dir / "vms"


def supervised(state_dir: Path, proc: Path = _PROC) -> list[VmPresence]:
    """Return the VMs that are supervised now, by process number. A file that cannot be read is passed over."""
    found = []
    for path in sorted(directory(state_dir).glob("*.json")):
        with suppress(OSError, ValueError, TypeError, KeyError):
            if path.stat().st_size <= _MOST_BYTES:
                vm = _read(json.loads(path.read_text()))
                if vm.life == life_of(vm.pid, proc):
                    found.append(vm)
    return sorted(found, key=lambda vm: vm.pid)


def holder(state_dir: Path, address: str, proc: Path = _PROC) -> VmPresence | None:
    """Return the supervised VM that has a function, or None."""
    return next((vm for vm in supervised(state_dir, proc) if address in vm.functions), None)


def _read(document: dict[str, Any]) -> VmPresence:
    functions = {row["address"]: FunctionPresence(**row) for row in document.pop("functions")}
    return VmPresence(**document, functions=functions)


class Presence:
    """The file of one VM, kept true; a :class:`nvmelm.interposer.supervisor.Watcher`.

    Args:
        pid: the VM's process.
        say: takes sentences for the journal, with the function's address where there is one.
    """

    def __init__(self, state_dir: Path, pid: int, vm: str, by: str, say: Callable[[str, str], None]) -> None:
        self._path = directory(state_dir) / f"{pid}.json"
        self._say = say
        self._lock = threading.Lock()
        self.vm = VmPresence(pid, life_of(pid) or "", vm, by, time.time())
        try:
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
            self._write()
        except OSError as error:
            raise host_error("cannot write", str(self._path), error) from error

    def say(self, sentence: str, *, address: str = "") -> None:
        self._say(sentence, address)

    def opened(self, device: Device) -> None:
        with self._changed():
            self.vm.functions[device.address] = FunctionPresence(device.address, device.state.name, time.time())

    def closed(self, device: Device) -> None:
        with self._changed():
            self.vm.functions.pop(device.address, None)

    def arc(self, device: Device, towards: DeviceState, duration_s: float, refusal: Refusal | None) -> None:
        with self._changed():
            function = self.vm.functions.get(device.address)
            if function is None:
                return
            if function.state != device.state.name:
                function.state, function.since = device.state.name, time.time()
            function.arc_ms = round(duration_s * 1000, 3)
            function.refusal = in_words(refusal) if refusal is not None else ""
        if refusal is not None:
            self.say(f"{device.address}: {in_words(refusal)}", address=device.address)

    @contextmanager
    def _changed(self) -> Iterator[None]:
        with self._lock:
            yield
            with suppress(OSError):  # a full disk is no reason to stop a VM
                self._write()

    def _write(self) -> None:
        document = asdict(self.vm) | {"functions": [asdict(row) for row in self.vm.functions.values()]}
        beside = self._path.with_suffix(".new")
        beside.write_text(json.dumps(document))
        beside.replace(self._path)

    def close(self) -> None:
        """Remove the file: the VM has ended, or nobody answers it any more."""
        with self._lock, suppress(OSError):
            self._path.unlink()
