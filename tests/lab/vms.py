"""VMs that can move: a stock QEMU under ``nvmelm vm run``, and the guest that a test drives inside."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from nvmelm.vm.qemu.monitor import Monitor
from tests.lab.machine import Cli, wait_for
from tests.lab.mailbox import Processor, firmware
from tests.lab.nvme_driver import ANSWERS, DOORBELLS, ENTRIES, PAGE, Pair, put, settle, work
from tests.lab.vm_driver import GuestDriver

#: Unix sockets have short paths, and QEMU maps the memory's file: no place below pytest's.
PLACE = Path("/run/nvmelm-lab-vms")
MEMORY_MIB = 16
#: On bus 0, where the root ports of a VM's functions begin.
FIRST_SLOT = 4
ANSWER_S, MOVE_S = 180.0, 600.0
#: Under emulation no estimate ever falls below the default.
DOWNTIME_MS = 600_000
#: Hot-unplug by the port's registers, and not by a guest's ACPI.
NATIVE = ("-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off")
_RETURN_PATH = "return-path"
_PAUSE, _PAUSED = "pause-before-switchover", "pre-switchover"
#: Interrupt vectors that a guest uses: one for each queue.
VECTORS = 2
_OTHERS = b"\x5a" * PAGE
_ENDED = ("completed", "failed", "cancelled")


class Vm:
    """A VM that runs, or waits for one to arrive.

    Attributes:
        log: what nvmelm and the VMM said.
    """

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name, self.process, self.log = name, process, log
        self.monitor = Monitor(str(PLACE / f"{name}.qmp"), deadline_s=ANSWER_S)

    @cached_property
    def processor(self) -> Processor:
        """Return the processor of a guest that a test drives."""
        return Processor(PLACE / f"{self.name}.memory")

    @property
    def console(self) -> str:
        """Return what a guest with a console has said there."""
        return (PLACE / f"{self.name}.console").read_text(errors="replace")

    def type(self, line: str) -> None:
        """Type a line at the guest's console."""
        with socket.socket(socket.AF_UNIX) as keyboard:
            keyboard.connect(str(PLACE / f"{self.name}.keyboard"))
            keyboard.sendall(f"{line}\n".encode())

    @property
    def arrivals(self) -> Path:
        """Return the socket at which a VM arrives here."""
        return PLACE / f"{self.name}.arrivals"

    def ask(self, command: str, **arguments: object) -> Any:
        """Ask the VMM's monitor."""
        return self.monitor.execute(command, arguments or None, deadline_s=ANSWER_S)

    def switch_on(self, capability: str) -> None:
        """Switch a capability of the VMM's migration on."""
        self.ask("migrate-set-capabilities", capabilities=[{"capability": capability, "state": True}])

    def begin_move(self, to: Vm, **parameters: object) -> None:
        """Have the VMM begin a migration, with parameters of its own; it is over when the destination says so.

        Without a return path the source has done its part when the last byte is in the socket, whatever becomes of it.
        """
        for vm in (self, to):
            vm.switch_on(_RETURN_PATH)
        self.ask("migrate-set-parameters", **{"downtime-limit": DOWNTIME_MS, "max-bandwidth": 1 << 30, **parameters})
        self.ask("migrate", uri=f"unix:{to.arrivals}")

    def stop_for_move(self, to: Vm) -> None:
        """Have the VMM begin a migration, and wait until the VM stands still and nothing of its devices was sent."""
        self.switch_on(_PAUSE)
        self.begin_move(to)
        wait_for(lambda: self.migration().get("status") == _PAUSED, f"{self.name} to stand still", MOVE_S)

    def migration(self) -> dict[str, Any]:
        """Return what the VMM says of its migration."""
        return dict(self.ask("query-migrate"))

    def end_of_move(self) -> dict[str, Any]:
        """Wait for the end of a migration, whichever it is, and return what the VMM says of it."""
        wait_for(lambda: self.migration().get("status") in _ENDED, f"the migration of {self.name} to end", MOVE_S)
        return self.migration()

    def move(self, to: Vm) -> dict[str, Any]:
        """Move, with success; the guest runs at the destination when this returns."""
        self.begin_move(to)
        moved = self.end_of_move()
        assert moved["status"] == "completed", f"{moved}\n{self.said()}\n{to.said()}"
        wait_for(lambda: to.ask("query-status")["status"] == "running", f"{to.name} to run", ANSWER_S)
        return moved

    def quit(self) -> int:
        """End the VM; return the exit status of ``nvmelm vm run``."""
        self.ask("quit")
        self.monitor.close()
        return self.process.wait(timeout=ANSWER_S)

    def kill(self) -> None:
        """Kill the VM and what answers it."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def said(self) -> str:
        """Return what nvmelm and the VMM wrote."""
        return self.log.read_text(errors="replace")


class Vms:
    """Starts VMs; they end with the block."""

    def __init__(self, vmm: str) -> None:
        self.vmm = vmm
        self._open = ExitStack()
        self._count = 0

    def __enter__(self) -> Vms:
        PLACE.mkdir(exist_ok=True)
        (PLACE / "firmware").write_bytes(firmware())
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def start(
        self,
        host: Cli,
        functions: Sequence[str],
        *options: str,
        arriving: bool = False,
        system: Sequence[str] | None = None,
    ) -> Vm:
        """Start a VM with functions of a host's.

        Args:
            options: for ``nvmelm vm run``.
            arriving: it waits for a VM instead of running.
            system: QEMU's words for a guest with a console; without them a test drives it.
        """
        self._count += 1
        name = f"vm{self._count}"
        for path in PLACE.glob(f"{name}.*"):
            path.unlink()  # sockets of an earlier test's would be taken for this one's
        words = [sys.executable, "-m", "nvmelm", "vm", "run", *options, "--", self.vmm, *_machine(name)]
        words += _driven(name) if system is None else [*system, *_console(name)]
        words += [*_devices(functions), *(("-incoming", f"unix:{PLACE / name}.arrivals") if arriving else ())]
        return self._open.enter_context(_running(name, words, host))


@contextmanager
def _running(name: str, words: list[str], host: Cli) -> Iterator[Vm]:
    monitor, log = PLACE / f"{name}.qmp", PLACE / f"{name}.log"
    environment = {**os.environ, "NVMELM_STATE_DIR": str(host.state_dir)}
    with log.open("wb") as output, ExitStack() as stack:
        process = subprocess.Popen(
            words, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
        stack.callback(_end, process)
        wait_for(lambda: monitor.exists() or process.poll() is not None, f"{name} to start", ANSWER_S)
        assert process.poll() is None, log.read_text(errors="replace")
        vm = Vm(name, process, log)
        stack.enter_context(vm.monitor)
        yield vm


def _machine(name: str) -> list[str]:
    words = ["-machine", "q35", "-accel", "tcg", "-nodefaults", "-display", "none", "-no-reboot", *NATIVE]
    return [*words, "-qmp", f"unix:{PLACE / name}.qmp,server=on,wait=off"]


def _driven(name: str) -> list[str]:
    """Return QEMU's words for a guest that a test drives; its memory is a file."""
    memory = PLACE / f"{name}.memory"
    with memory.open("wb") as handle:
        handle.truncate(MEMORY_MIB << 20)
    backend = f"memory-backend-file,id=ram,size={MEMORY_MIB}M,mem-path={memory},share=on"
    machine = ["-machine", "memory-backend=ram", "-m", f"{MEMORY_MIB}M", "-object", backend]
    return [*machine, "-bios", str(PLACE / "firmware")]


def _console(name: str) -> list[str]:
    keyboard = f"path={PLACE / name}.keyboard,server=on,wait=off"
    return ["-chardev", f"socket,id=console,{keyboard},logfile={PLACE / name}.console", "-serial", "chardev:console"]


def _devices(functions: Sequence[str]) -> list[str]:
    """Return the VMM's words for functions, each alone behind a root port."""
    rows = []
    for number, address in enumerate(functions, 1):
        rows.append(f"pcie-root-port,id=rp{number},chassis={number},slot={number},addr={FIRST_SLOT + number - 1:#x}")
        rows.append(f"vfio-pci,host={address},id=vf{number},bus=rp{number}")
    return [word for row in rows for word in ("-device", row)]


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a VM and what answers it, whatever state they are in."""
    process.terminate()
    try:
        process.wait(timeout=ANSWER_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def begun(processor: Processor, number: int = 1) -> tuple[GuestDriver, Pair]:
    """Let a guest find one of its functions and begin to use it: interrupts, queues, one event request."""
    driver = GuestDriver(processor, FIRST_SLOT + number - 1, number)
    driver.find()
    driver.enable_interrupts(VECTORS)
    driver.enable()
    pair = driver.create_queues(interrupts=True, vector=1)
    driver.request_event()
    return driver, pair


def busy(driver: GuestDriver, pair: Pair, first: int) -> None:
    """Let a guest have both queues wrapped, and writes under way that nobody has taken the completions of."""
    for _ in range(ENTRIES + 8):
        driver.identify()
    work(driver, pair, range(first, first + ENTRIES + 8))
    driver.pages[ANSWERS : ANSWERS + 16 * PAGE] = _OTHERS * 16  # the memory of old answers is others' now
    for number in range(first + 100, first + 108):
        put(driver, pair, number)


def goes_on(driver: GuestDriver, pair: Pair, first: int) -> None:
    """Assert that a guest notices nothing: completions, interrupts, admin commands and the event request go on."""
    settle(driver, pair)
    for vector in range(VECTORS):
        driver.interrupted(vector)
    work(driver, pair, range(first, first + ENTRIES + 8))
    driver.await_interrupt(1)
    used = driver.admin.next_id % 16
    assert driver.identify()[4:24].strip()
    driver.await_interrupt(0)
    pages = [driver.pages[ANSWERS + index * PAGE : ANSWERS + (index + 1) * PAGE] for index in range(16)]
    assert [index for index, page in enumerate(pages) if page != _OTHERS] == [used], "an old command was executed again"
    assert len(driver.admin.waiting) == 1
    driver.write32(DOORBELLS + 8 * 40, 0)  # of a queue that there is not: an event of type error
    assert driver.complete(driver.admin, 1) == [0]
    driver.read_error_log()
    driver.request_event()
