"""A virtual machine with one assigned function that migrates as QEMU's does, over VFIO's migration interface.

What answers the interface is given; this plays the VMM and the guest, in one thread, in QEMU's order::

    source        realize   flags
                  start     RUNNING_P2P, RUNNING
                  migrate   DMA_LOGGING_START, MIG_DATA_SIZE, DMA_LOGGING_REPORT
                  stop      RUNNING_P2P, STOP, STOP_COPY, data to their end; configuration space, vectors; STOP, close
    destination   reset     DEVICE_RESET
                  setup     RESUMING, before the source's VM stops
                  load      data; then configuration space, then vectors
                  start     RUNNING_P2P, RUNNING

The guest's driver drives its admin queue by registers and doorbells; it re-uses the memory of commands that have
completed, and looks whether somebody wrote to it since.

Source: QEMU 10.0 hw/vfio/migration.c, hw/vfio/pci.c.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol

from nvmelm.emulator.guest.admin_driver import AdminDriver
from nvmelm.emulator.guest.driver import ADMIN_CQ, ADMIN_SQ
from nvmelm.emulator.guest.guest import Guest
from nvmelm.emulator.guest.report import GuestFindings
from nvmelm.emulator.host import EmulatedHost
from nvmelm.emulator.kernel.bar import ACQ, AQA, ASQ, BUS_MASTER, CC, CSTS, DOORBELLS, MEMORY_DECODE, Bar
from nvmelm.emulator.kernel.vfio import VfioFunction
from nvmelm.emulator.machine.memory import PAGE
from nvmelm.wire.opcodes import IDENTIFY_BYTES, Cns, Opcode

_CC = 0x0046_0001
_READY, _POLLS = 1, 1000
_FIRST_SCRATCH, _SCRATCH_PAGES = 200, 16
_CHUNK = 1000
_MEMORY_BYTES = 1 << 20
_IRRELEVANT = b"\xa5"


class MigrationState(IntEnum):
    """``enum vfio_device_mig_state``."""

    ERROR = 0
    STOP = 1
    RUNNING = 2
    STOP_COPY = 3
    RESUMING = 4
    RUNNING_P2P = 5


class Answering(Protocol):
    """What answers the VMM's calls for one function; a refusal is an exception."""

    def flags(self) -> int: ...

    @property
    def state(self) -> Any: ...

    def set_state(self, state: Any) -> Any: ...

    def data_size(self) -> int: ...

    def can_log(self) -> bool: ...

    def logging_start(self, ranges: Any, page_size: int) -> int: ...

    def logging_report(self, iova: int, length: int, page_size: int) -> bytes: ...

    def logging_stop(self) -> None: ...

    def was_reset(self) -> None: ...

    def close(self) -> None: ...


Open = Callable[["MigratingVm"], Answering | None]
"""Called when the VM has opened its function; returns what answers for it, None when nothing does."""


class MigrationFailedError(Exception):
    """The VMM gave up a migration; the source goes on."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """What a VMM carries of a function as ordinary device state."""

    command: int
    vectors: int


class MigratingVm:
    """A virtual machine.

    Args:
        open_: gives what answers for its function.
        admin: slots of the admin rings.
        events: requests for asynchronous events the guest keeps.
    """

    def __init__(
        self,
        host: EmulatedHost,
        bdf: str,
        open_: Open,
        *,
        name: str = "guest",
        admin: tuple[int, int] = (32, 32),
        events: int = 1,
        queues: int = 2,
        depth: int = 16,
        records: int = 64,
        nsid: int = 1,
    ) -> None:
        self.host, self.bdf, self.name = host, bdf, name
        self._shape, self._events = admin, events
        self._values = {"queues": queues, "depth": depth, "records": records, "nsid": nsid}
        self.function = VfioFunction(host.machine, bdf, memory=host.machine.new_memory(_MEMORY_BYTES), name=name)
        self.function.belongs_to(name)
        self.function.set_vectors(0)
        self.bar = Bar(self.function)
        self.guest: Guest | None = None
        self.running = False
        self._incoming: Any = None
        self.answering = open_(self)
        self.migratable = self.answering is not None and self._offers()

    def _offers(self) -> bool:
        try:
            return self.answering is not None and bool(self.answering.flags() & 1) and self.answering.can_log()
        except Exception:
            return False

    # The guest

    def start(self) -> None:
        """Start the virtual processors, through the states a VMM walks then."""
        self.set(MigrationState.RUNNING_P2P)
        self.set(MigrationState.RUNNING)
        self.running = True

    def stop(self) -> None:
        """Stop the virtual processors, likewise."""
        self.running = False
        self.set(MigrationState.RUNNING_P2P)
        self.set(MigrationState.STOP)

    def boot(self) -> None:
        """Let firmware find the function and the guest's driver start, in memory that nothing is left in."""
        self.function.memory.write(0, bytes(_MEMORY_BYTES))
        self.bar.set_command(MEMORY_DECODE | BUS_MASTER)
        self.function.set_vectors(2)
        self.guest = Guest.create(self.host, self.bdf, _MEMORY_BYTES, name=self.name, **self._values)
        self.guest.take(self.host, self.function)
        admin = self.guest.driver.admin = AdminDriver(ADMIN_SQ, ADMIN_CQ, *self._shape)
        self.enable(admin)
        admin.request_events(self.function.memory, self._events)
        self._ring()
        self.guest.start_by(self._create)
        self.rescan()

    def enable(self, admin: AdminDriver) -> None:
        """Write the registers, CC.EN last, and wait until the controller is ready."""
        admin.clear(self.function.memory)
        self.bar.write32(AQA, admin.aqa)
        for at, value in ((ASQ, admin.asq), (ACQ, admin.acq)):
            self.bar.write32(at, value)
            self.bar.write32(at + 4, 0)
        self.bar.write32(CC, _CC)
        for _ in range(_POLLS):
            if self.bar.read32(CSTS) & _READY:
                return
        raise MigrationFailedError(f"the controller does not get ready, CSTS {self.bar.read32(CSTS):#x}")

    @property
    def admin(self) -> AdminDriver:
        """Return the driver of the guest's admin queue."""
        if self.guest is None or self.guest.driver.admin is None:
            raise MigrationFailedError("there is no guest")
        return self.guest.driver.admin

    def command(self, opcode: int, **fields: int) -> list[int]:
        """Run one admin command and return its status and DW0; a command that never completes is an error."""
        if not self.admin.room:
            self.admin.errors.append("the admin queue is full, and nothing completes")
            return [0xFFFF, 0]
        cid = self.admin.put(self.function.memory, opcode, **fields)
        self._ring()
        for _ in range(3):
            self.reap()
            done = self.admin.take(cid)
            if done is not None:
                return done
        self.admin.errors.append(f"admin command {opcode:#04x} never completed")
        return [0xFFFF, 0]

    def reap(self) -> None:
        """Take what the admin queue has completed."""
        self.admin.reap(self.function.memory, self._sq_doorbell, self._cq_doorbell)

    def rescan(self, times: int = 1) -> None:
        """Identify the controller, and use the memory for something else afterwards."""
        for number in range(times):
            page = (_FIRST_SCRATCH + (self.admin.sq_tail + number) % _SCRATCH_PAGES) * PAGE
            status, _ = self.command(Opcode.IDENTIFY, prp1=page, cdw10=Cns.IDENTIFY_CTRL)
            if status or not any(self.function.memory.read(page, 64)):
                self.admin.errors.append(f"Identify ended with status {status:#06x}, or without data")
            self.function.memory.write(page, _IRRELEVANT * IDENTIFY_BYTES)

    def work(self, turns: int = 20) -> None:
        """Let the guest do I/O, and look at its admin queue."""
        if self.guest is not None and self.running:
            self.guest.step(turns)
            self.reap()

    def finish(self) -> GuestFindings:
        """Let the guest finish and read everything back; what its admin queue met, and wild writes, are errors."""
        if self.guest is None:
            return GuestFindings()
        report = self.guest.finish()
        report.errors += self.admin.errors
        for number in range(_FIRST_SCRATCH, _FIRST_SCRATCH + _SCRATCH_PAGES):
            if self.function.memory.read(number * PAGE, PAGE) not in (bytes(PAGE), _IRRELEVANT * PAGE):
                report.errors.append(f"somebody wrote to page {number}, which the guest uses for something else")
        return report

    def _create(self, qid: int, submission: int, completion: int) -> int:
        entries = 15 << 16 | qid
        vector = (qid % 2) << 16
        status, _ = self.command(Opcode.CREATE_IO_COMPLETION_QUEUE, prp1=completion, cdw10=entries, cdw11=vector | 3)
        if not status:
            status, _ = self.command(
                Opcode.CREATE_IO_SUBMISSION_QUEUE, prp1=submission, cdw10=entries, cdw11=qid << 16 | 1
            )
        return status

    def _ring(self) -> None:
        self._sq_doorbell(self.admin.sq_tail)

    def _sq_doorbell(self, tail: int) -> None:
        self.bar.write32(DOORBELLS, tail)

    def _cq_doorbell(self, head: int) -> None:
        stride = 4 << (self.bar.read32(4) & 0xF)
        self.bar.write32(DOORBELLS + stride, head)

    # The VMM

    def set(self, state: MigrationState) -> Any:
        """Ask for a state, and return its stream if it has one; nothing where nobody answers."""
        return self.answering.set_state(state) if self.answering is not None and self.migratable else None

    @property
    def configuration(self) -> Configuration:
        """Return what is carried as ordinary device state."""
        with self.host.machine.view():
            holder = self.host.machine.holder(self.bdf)
            vectors = holder.get("vectors", 0) if holder is not None else 0
        return Configuration(self.bar.command(), vectors)

    def reset(self) -> None:
        """Reset the machine, and with it the function."""
        self.function.reset()
        self._incoming = None
        if self.answering is not None:
            self.answering.was_reset()

    def go_on(self) -> None:
        """Start again after a migration that failed; a function that does not run again is reset."""
        try:
            self.start()
        except Exception:
            self.reset()
            self.running = True

    def begin(self) -> None:
        """Do what comes before the virtual processors stop."""
        if self.answering is None or not self.migratable:
            raise MigrationFailedError(f"{self.bdf}: VFIO migration is not supported in kernel")
        page = self.answering.logging_start([(0, _MEMORY_BYTES)], PAGE)
        if self.answering.data_size() <= 0:
            raise MigrationFailedError("no estimate of the state's size")
        self.answering.logging_report(0, _MEMORY_BYTES, page)

    def save(self) -> bytes:
        """Stop, and return the function's data."""
        self.stop()
        return self.read_state()

    def read_state(self) -> bytes:
        """Return the data of a function that stands still."""
        if self.answering is not None:
            self.answering.logging_report(0, _MEMORY_BYTES, PAGE)
            self.answering.logging_stop()
        outgoing, data = self.set(MigrationState.STOP_COPY), b""
        while piece := outgoing.read(_CHUNK):
            data += piece
        return data

    def expect(self) -> None:
        """Get ready for a function's data, when a migration begins to arrive."""
        self._incoming = self.set(MigrationState.RESUMING)

    def load(self, data: bytes, configuration: Configuration) -> None:
        """Take a function's data and what belongs to it, in RESUMING."""
        if self._incoming is None:
            self.expect()
        incoming, self._incoming = self._incoming, None
        for at in range(0, len(data), _CHUNK):
            incoming.write(data[at : at + _CHUNK])
        self.bar.set_command(configuration.command)
        self.function.set_vectors(configuration.vectors)

    def close(self) -> None:
        """End the machine."""
        self.function.close()
        if self.answering is not None:
            self.answering.close()
        self.host.machine.remove_memory(self.function.memory_name)


def migrate(source: MigratingVm, destination: MigratingVm) -> None:
    """Move a VM; the destination runs it afterwards, the source is stopped and not yet closed.

    Raises:
        MigrationFailedError: it failed; the source goes on.
    """
    try:
        if not destination.migratable:
            raise MigrationFailedError(f"{destination.bdf}: VFIO migration is not supported in kernel")
        destination.reset()
        destination.expect()
        source.begin()
        data = source.save()
        configuration = source.configuration
        source.set(MigrationState.STOP)
        if source.guest is not None:
            source.guest.freeze()
        destination.function.memory.write(0, source.function.memory.read(0, source.function.memory.size))
        destination.load(data, configuration)
        destination.start()
    except Exception as error:
        source.go_on()
        raise MigrationFailedError(str(error)) from error
    if source.guest is not None:
        destination.guest = Guest.thaw(destination.host, destination.function)
        source.guest = None
