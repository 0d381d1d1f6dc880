"""A guest that does I/O on a virtual function, and notices everything that goes wrong with it.

It writes numbered records all over its namespace and reads them back, with several commands in flight. Every command
is remembered until exactly one completion came for it, every record until the newest number written there was read.

A move to another host goes as a virtual machine's does::

    guest = Guest.create(source, "0000:01:00.1")
    guest.attach(source, "0000:01:00.1")        # opens the function: it is reset; the guest's driver starts
    guest.step(100)
    guest.hold(destination, "0000:01:00.1")     # the waiting virtual machine opens its function, sets the registers
    ...                                         # suspend, read the state, set it at the destination
    guest.attach(destination, "0000:01:00.1")   # memory moves; the function is held already, so nothing is reset
    ...                                         # resume
    guest.step(100)
    guest.finish()
    assert guest.report().clean
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from random import Random
from typing import Any, Self

from nvmelm.emulator.guest.driver import (
    ADMIN_CQ,
    ADMIN_SQ,
    AQA,
    CC,
    MAX_QUEUES,
    REMEMBERED,
    REMEMBERED_BYTES,
    Create,
    Driver,
    Ring,
)
from nvmelm.emulator.guest.driver import SubmittedCommand as SentCommand
from nvmelm.emulator.guest.report import GuestFindings
from nvmelm.emulator.host import EmulatedHost
from nvmelm.emulator.kernel.vfio import VfioFunction
from nvmelm.emulator.machine.memory import PAGE, Memory
from nvmelm.errors import MalformedError, UsageError
from nvmelm.wire.opcodes import IoOpcode
from nvmelm.wire.queue_entry import CompletionQueueEntry

_MAGIC = b"RECORD\0\0"
_BLOCK = 512
_ROUNDS_WITHOUT_PROGRESS = 64


@dataclass(slots=True)
class _Software:
    """What the guest's software remembers besides its driver; moves with its memory."""

    seed: int
    nsid: int
    records: int
    next_number: int = 1
    turns: int = 0
    newest: dict[str, int] = field(default_factory=dict)  # record -> newest number whose write completed
    report: GuestFindings = field(default_factory=GuestFindings)


class Guest:
    """A guest with memory, an NVMe driver and a workload. Make one with :meth:`create` or :meth:`thaw`."""

    def __init__(self, name: str, memory_bytes: int, driver: Driver, software: _Software, queues: int) -> None:
        self.name = name
        self._bytes = memory_bytes
        self._driver = driver
        self._software = software
        self._queues = queues
        self._function: VfioFunction | None = None
        self._standby: tuple[EmulatedHost, VfioFunction] | None = None
        self._host: EmulatedHost | None = None

    @classmethod
    def create(
        cls,
        host: EmulatedHost,
        bdf: str,
        memory_bytes: int = 1 << 20,
        *,
        name: str = "qemu-system-x86",
        queues: int = 0,
        depth: int = 16,
        io_bytes: int = 12 * 1024,
        records: int = 64,
        nsid: int = 1,
        seed: int = 1,
    ) -> Self:
        """Make a guest for a function; it is opened by :meth:`attach`.

        Args:
            name: the name its virtual machine's process shows.
            queues: I/O queue pairs, at most what the function has; 0: as many as it has.
            depth: commands that can be outstanding.
            io_bytes: bytes of one command, a multiple of 512.
            records: places on the medium it writes to, each of ``io_bytes``.
        """
        with host.machine.view():
            function = host.machine.function(bdf)
            most = host.machine.controller_of(function)["nvq"] - 1
        needed = Driver.memory_needed(io_bytes, depth)
        if memory_bytes < needed or memory_bytes % PAGE or io_bytes % _BLOCK:
            raise UsageError(f"a guest like this needs {needed} bytes of memory, in pages, and whole blocks")
        wanted = min(queues or max(most, 1), MAX_QUEUES)
        software = _Software(seed=seed, nsid=nsid, records=records)
        return cls(name, memory_bytes, Driver(io_bytes, depth), software, wanted)

    def attach(self, host: EmulatedHost, bdf: str, *, start: bool = True) -> None:
        """Give the guest a function, and let it run on that host from now on.

        A function that the guest's virtual machine holds already (:meth:`hold`) stays as it is; any other is opened,
        which resets it, and the guest's driver starts if it never did.

        Args:
            start: let the driver start now; otherwise :meth:`start` does, when the machine runs.
        """
        if self._standby is not None and self._standby[0] is host and self._standby[1].bdf == bdf:
            function, self._standby = self._standby[1], None
        else:
            function = self._open(host, bdf)
        if self._function is not None:
            self._move_memory(function)
            self._close(self._host, self._function)
        self._function, self._host = function, host
        if start:
            self.start()

    def take(self, host: EmulatedHost, function: VfioFunction) -> None:
        """Run on a function that the guest's virtual machine has opened, and closes."""
        self._function, self._host = function, host

    @property
    def driver(self) -> Driver:
        """Return the guest's driver."""
        return self._driver

    def start_by(self, create: Create) -> None:
        """Have the driver's I/O queues created in another way than through a port; note what goes wrong."""
        problem = self._driver.make_queues(self._queues, 16, create)
        if problem:
            self._software.report.errors.append(problem)

    def hold(self, host: EmulatedHost, bdf: str) -> None:
        """Let the virtual machine that waits at a destination open its function and set its registers.

        The admin queue and CC are not part of the NVMe state: whoever emulates the machine sets them up, before the
        state is set.
        """
        if self._standby is not None:
            self._close(*self._standby)
        function = self._open(host, bdf)
        set_registers(function)
        self._standby = (host, function)

    def detach(self) -> None:
        """Close whatever functions the guest has open."""
        if self._function is not None:
            self._close(self._host, self._function)
        if self._standby is not None:
            self._close(*self._standby)
        self._function = self._standby = self._host = None

    @property
    def function(self) -> VfioFunction | None:
        """Return the function the guest runs on."""
        return self._function

    @property
    def queues(self) -> int:
        """Return how many I/O queue pairs its driver has."""
        return len(self._driver.rings)

    def _open(self, host: EmulatedHost, bdf: str) -> VfioFunction:
        name = host.machine.new_memory(self._bytes)
        try:
            return VfioFunction(host.machine, bdf, memory=name, name=self.name)
        except BaseException:
            host.machine.remove_memory(name)
            raise

    @staticmethod
    def _close(host: EmulatedHost | None, function: VfioFunction) -> None:
        function.close()
        if host is not None:
            host.machine.remove_memory(function.memory_name)

    def start(self) -> None:
        """Let the guest's driver enable the controller and create its queues; once is enough."""
        if self._driver.rings:
            return
        if self._function is None:
            raise UsageError("the guest has no function", fix="attach it to one")
        with self._function.port() as port:
            problem = self._driver.start(port, self._queues, 16) if port is not None else "the function is not there"
        if problem:
            self._software.report.errors.append(problem)

    def _move_memory(self, target: VfioFunction) -> None:
        """Copy the memory to where the other host's function does its DMA."""
        if self._function is None:
            return
        self.freeze()
        source, destination = self._function.memory, target.memory
        if source.path != destination.path:
            for at in range(0, source.size, 1 << 20):
                size = min(1 << 20, source.size - at)
                destination.write(at, source.read(at, size))

    # Running

    def step(self, count: int = 1) -> None:
        """Do ``count`` turns: submit what fits, let the controller fetch and complete some of it, reap completions."""
        for _ in range(count):
            self._turn(submit=True)

    def finish(self) -> GuestFindings:
        """Submit no more, wait for what is outstanding, count what never comes as lost, and read every record back."""
        self._drain()
        self._count_lost()
        if self._driver.rings and self._software.report.clean:
            self._read_everything()
            self._drain()
            self._count_lost()
        return self.report()

    def report(self) -> GuestFindings:
        """Return what the guest has seen so far."""
        seen = GuestFindings(**asdict(self._software.report))
        seen.outstanding = len(self._driver.sent)
        return seen

    def _count_lost(self) -> None:
        for command in self._driver.sent:
            self._software.report.lost += 1
            self._driver.free.append(command.buffer)
        self._driver.sent.clear()

    def _drain(self) -> None:
        idle = 0
        while self._driver.sent and idle < _ROUNDS_WITHOUT_PROGRESS:
            before = len(self._driver.sent)
            self._turn(submit=False)
            idle = idle + 1 if len(self._driver.sent) == before else 0

    def _turn(self, *, submit: bool) -> None:
        function = self._function
        if function is None:
            raise UsageError("the guest has no function", fix="attach it to one")
        software = self._software
        software.turns += 1
        random = Random(software.seed << 32 | software.turns)  # noqa: S311 - a workload, not a secret
        memory = function.memory
        with function.port() as port:
            if port is None:
                self._failed("the function is not there any more")
                return
            if submit:
                self._submit_some(memory, random)
            for ring in self._driver.rings:
                port.ring_sq(ring.qid, ring.sq_tail)
            port.fetch(random.randint(0, self._driver.depth))
            port.complete(random.randint(0, self._driver.depth), newest_first=random.random() < 0.25)
            for ring in self._driver.rings:
                self._reap(memory, ring)
                port.ring_cq(ring.qid, ring.cq_head)
            if port.csts != 1:
                self._failed(f"the controller failed, CSTS {port.csts:#x}")

    def _failed(self, what: str) -> None:
        if what not in self._software.report.errors:
            self._software.report.errors.append(what)

    def _submit_some(self, memory: Memory, random: Random) -> None:
        driver, software = self._driver, self._software
        busy = {command.place for command in driver.sent}
        for _ in range(random.randint(0, driver.depth)):
            rings = [ring for ring in driver.rings if ring.room]
            place = random.randrange(software.records)
            if not rings or not driver.free or place in busy:
                continue
            busy.add(place)
            newest = software.newest.get(str(place))
            if newest is not None and random.random() < 0.5:
                self._send(memory, random.choice(rings), IoOpcode.READ, place, newest)
            else:
                self._send(memory, random.choice(rings), IoOpcode.WRITE, place, software.next_number)
                software.next_number += 1

    def _read_everything(self) -> None:
        """Read every record once, as many at a time as fit."""
        waiting = [(int(place), number) for place, number in self._software.newest.items()]
        idle = 0
        while (waiting or self._driver.sent) and idle < _ROUNDS_WITHOUT_PROGRESS:
            before = len(waiting), len(self._driver.sent)
            if self._function is not None:
                for ring in self._driver.rings:
                    while waiting and ring.room and self._driver.free:
                        self._send(self._function.memory, ring, IoOpcode.READ, *waiting.pop())
            self._turn(submit=False)
            idle = idle + 1 if (len(waiting), len(self._driver.sent)) == before else 0

    def _send(self, memory: Memory, ring: Ring, opcode: int, place: int, number: int) -> None:
        driver = self._driver
        sent = SentCommand(ring.qid, driver.new_cid(), opcode, place, number, driver.free.pop(0))
        if opcode == IoOpcode.WRITE:
            memory.write(sent.buffer + PAGE, self._content(place, number))
        else:
            memory.write(sent.buffer + PAGE, bytes(driver.io_bytes))
        blocks = driver.io_bytes // _BLOCK
        driver.submit(memory, ring, opcode, self._software.nsid, place * blocks, blocks, sent)
        self._software.report.submitted += 1

    def _content(self, place: int, number: int) -> bytes:
        """Return a record: every block says what it is, where it belongs, and its number."""
        blocks = []
        for block in range(self._driver.io_bytes // _BLOCK):
            head = _MAGIC + b"".join(
                value.to_bytes(8, "little") for value in (self._software.seed, place, number, block)
            )
            blocks.append(head.ljust(_BLOCK, bytes([number & 0xFF])))
        return b"".join(blocks)

    def _reap(self, memory: Memory, ring: Ring) -> None:
        while (entry := self._driver.reap(memory, ring)) is not None:
            self._completed(memory, ring, entry)

    def _completed(self, memory: Memory, ring: Ring, entry: CompletionQueueEntry) -> None:
        report, driver = self._software.report, self._driver
        sent = next((command for command in driver.sent if command.cid == entry.cid), None)
        if sent is None:
            report.doubled += 1
            return
        if sent.qid != ring.qid or entry.sqid != sent.qid:
            report.misdirected += 1
        driver.sent.remove(sent)
        driver.free.append(sent.buffer)
        report.completed += 1
        if entry.status_value:
            report.errors.append(f"command {entry.cid} ended with status {entry.status_value:#06x}")
        elif sent.opcode == IoOpcode.WRITE:
            self._software.newest[str(sent.place)] = sent.number
        elif memory.read(sent.buffer + PAGE, driver.io_bytes) == self._content(sent.place, sent.number):
            report.verified += 1
        else:
            report.errors.append(f"record {sent.place} does not hold what was written last")

    # Moving

    def freeze(self) -> None:
        """Put everything the guest's software remembers into its memory, so that the memory is the whole guest."""
        if self._function is None:
            raise UsageError("the guest has no function", fix="attach it to one")
        values = {
            "name": self.name,
            "queues": self._queues,
            "driver": self._driver.to_json(),
            "software": asdict(self._software),
        }
        raw = json.dumps(values, separators=(",", ":")).encode()
        if len(raw) > REMEMBERED_BYTES - 8:
            raise UsageError("the guest remembers too much to be moved", fix="use fewer records or a smaller depth")
        self._function.memory.write(REMEMBERED, len(raw).to_bytes(8, "little") + raw)

    @classmethod
    def thaw(cls, host: EmulatedHost, function: VfioFunction) -> Self:
        """Return the guest whose memory a function's memory is; its virtual machine holds the function already.

        Raises:
            MalformedError: no guest was frozen in that memory.
        """
        memory = function.memory
        size = int.from_bytes(memory.read(REMEMBERED, 8), "little")
        if not 0 < size <= REMEMBERED_BYTES - 8:
            raise MalformedError("there is no guest in this memory", cause="it was never frozen")
        values: dict[str, Any] = json.loads(memory.read(REMEMBERED + 8, size))
        software = values["software"]
        guest = cls(
            values["name"],
            memory.size,
            Driver.from_json(values["driver"]),
            _Software(**{**software, "report": GuestFindings(**software["report"])}),
            values["queues"],
        )
        guest._function, guest._host = function, host
        return guest


def set_registers(function: VfioFunction) -> None:
    """Set a function's registers to what a guest's driver had set them to, before state is set into it."""
    with function.port() as port:
        if port is not None:
            port.write_admin_queues(aqa=AQA, asq=ADMIN_SQ, acq=ADMIN_CQ)
            port.write_cc(CC)
