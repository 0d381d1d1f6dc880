"""A small NVMe driver: admin queue, one I/O queue pair, event requests, polling.

What is a driver's alone is here; how registers and memory are reached is a subclass': through VFIO by this process
(:mod:`tests.lab.vfio_driver`), or by the processor of a VM (:mod:`tests.lab.vm_driver`). The driver's state is this
object and its pages, so it goes on wherever both are taken.

Source: NVM Express over PCIe Transport Specification (properties, doorbells); NVM Express Base Specification (queue
entries, Create I/O Queue, Asynchronous Event Request).
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

PAGE = 4096
MEMORY = 64 * PAGE
#: Where a function reaches the first page of its driver, when that is the only one.
IOVA = 0x10_0000
ADMIN_SQ, ADMIN_CQ, IO_SQ, IO_CQ, DATA = 0, PAGE, 2 * PAGE, 3 * PAGE, 8 * PAGE
#: Answers of admin commands: 16 pages that are taken in turns.
ANSWERS = DATA + 24 * PAGE
ENTRIES = 32

CC, CSTS, AQA, ASQ, ACQ, DOORBELLS = 0x14, 0x1C, 0x24, 0x28, 0x30, 0x1000
ENABLED = 0x0046_0001  # EN, I/O queue entries of 64 and 16 bytes
WRITE, READ = 0x01, 0x02
CREATE_SQ, GET_LOG_PAGE, CREATE_CQ, IDENTIFY, EVENT_REQUEST = 0x01, 0x02, 0x05, 0x06, 0x0C
CONTROLLER = 0x01  # Identify's CNS
ERROR_INFORMATION = 0x01  # a log page
#: As in Linux (nvme_is_aen_req), admin commands have smaller identifiers, and whatever is not smaller is an event.
EVENT_ID, TAG_BITS = 31, 0xFFF
DEADLINE_S = 180.0

Pages = mmap.mmap | memoryview


@dataclass
class Pair:
    """A queue pair as the driver keeps it; it moves with the memory."""

    number: int
    sq: int
    cq: int
    tail: int = 0
    head: int = 0
    phase: int = 1
    next_id: int = 0
    waiting: dict[int, str] = field(default_factory=dict)


class Driver(ABC):
    """The driver of one controller.

    Attributes:
        bdf: the function, for messages.
        pages: :data:`MEMORY` bytes that are the driver's.
        iova: where the function reaches the first of them.
    """

    def __init__(self, bdf: str, pages: Pages, iova: int = IOVA) -> None:
        self.bdf = bdf
        self.pages = pages
        self.iova = iova
        self.admin = Pair(0, ADMIN_SQ, ADMIN_CQ)

    @abstractmethod
    def read32(self, offset: int) -> int:
        """Read a property."""

    @abstractmethod
    def write32(self, offset: int, value: int) -> None:
        """Write a property, or a doorbell."""

    def enable(self) -> None:
        """Set the admin queue up and enable the controller: what a VMM does before a state is set."""
        self.write32(CC, 0)
        self._wait(lambda: not self.read32(CSTS) & 1, "the controller to be disabled")
        self.write32(AQA, (ENTRIES - 1) << 16 | (ENTRIES - 1))
        for register, at in ((ASQ, ADMIN_SQ), (ACQ, ADMIN_CQ)):
            self.write32(register, (self.iova + at) & 0xFFFF_FFFF)
            self.write32(register + 4, (self.iova + at) >> 32)
        self.pages[ADMIN_CQ : ADMIN_CQ + PAGE] = bytes(PAGE)  # no phase tag of an earlier use
        self.write32(CC, ENABLED)
        self._wait(lambda: bool(self.read32(CSTS) & 1), "the controller to be ready")

    def create_queues(self, *, interrupts: bool = False, vector: int = 0) -> Pair:
        """Make I/O queue pair 1, whose completions interrupt by a vector or not at all."""
        self.pages[IO_CQ : IO_CQ + PAGE] = bytes(PAGE)
        completion_flags, submission_flags = vector << 16 | interrupts << 1 | 1, 1 << 16 | 1
        for opcode, at, flags in ((CREATE_CQ, IO_CQ, completion_flags), (CREATE_SQ, IO_SQ, submission_flags)):
            self.submit(self.admin, opcode, 0, prp=self.iova + at, cdw10=(ENTRIES - 1) << 16 | 1, cdw11=flags)
            assert self.complete(self.admin, 1) == [0]
        return Pair(1, IO_SQ, IO_CQ)

    def submit(
        self, pair: Pair, opcode: int, nsid: int, *, prp: int, cdw10: int = 0, cdw11: int = 0, cdw12: int = 0
    ) -> int:
        """Put a command into a submission queue and ring its doorbell; return its id."""
        number = self._number(pair, opcode)
        entry = struct.pack("<BBHI16xQQIII12x", opcode, 0, number, nsid, prp, 0, cdw10, cdw11, cdw12)
        at = pair.sq + pair.tail * 64
        self.pages[at : at + 64] = entry
        pair.tail = (pair.tail + 1) % ENTRIES
        pair.waiting[number] = f"{opcode:#x}"
        self.write32(DOORBELLS + 8 * pair.number, pair.tail)
        return number

    def take(self, pair: Pair) -> int | None:
        """Take one completion, if there is one, and return its status; it belongs to one command that waits."""
        at = pair.cq + pair.head * 16
        number, status = struct.unpack("<HH", self.pages[at + 12 : at + 16])
        if status & 1 != pair.phase:
            return None
        if pair is self.admin and number & TAG_BITS >= EVENT_ID:
            number = EVENT_ID
        assert pair.waiting.pop(number, None), f"a completion of command {number} came that nobody waits for"
        pair.head = (pair.head + 1) % ENTRIES
        pair.phase ^= pair.head == 0
        self.write32(DOORBELLS + 8 * pair.number + 4, pair.head)
        return int(status >> 1)

    def complete(self, pair: Pair, count: int, *, deadline_s: float = DEADLINE_S) -> list[int]:
        """Take completions until so many came, and return their statuses."""
        statuses: list[int] = []
        until = time.monotonic() + deadline_s
        while len(statuses) < count:
            status = self.take(pair)
            if status is None:
                assert time.monotonic() < until, f"{count - len(statuses)} completions are missing on {self.bdf}"
                os.sched_yield()
            else:
                statuses.append(status)
        return statuses

    def nothing_more(self, pair: Pair) -> bool:
        """Return whether no completion waits to be taken."""
        at = pair.cq + pair.head * 16
        return struct.unpack("<H", self.pages[at + 14 : at + 16])[0] & 1 != pair.phase

    def identify(self) -> bytes:
        """Ask the controller who it is, into the next of the pages for answers."""
        return self._asked(IDENTIFY, CONTROLLER)

    def read_error_log(self) -> bytes:
        """Read the newest entry of the Error Information log, without which no further event of its type is told."""
        return self._asked(GET_LOG_PAGE, 15 << 16 | ERROR_INFORMATION)

    def request_event(self) -> int:
        """Submit the one request for an event, which stays outstanding; return its id."""
        return self.submit(self.admin, EVENT_REQUEST, 0, prp=0)

    def _asked(self, opcode: int, cdw10: int) -> bytes:
        """Have one admin command completed, and return the page of its answer."""
        at = ANSWERS + self.admin.next_id % 16 * PAGE
        self.submit(self.admin, opcode, 0, prp=self.iova + at, cdw10=cdw10)
        assert self.complete(self.admin, 1) == [0]
        return bytes(self.pages[at : at + PAGE])

    def _number(self, pair: Pair, opcode: int) -> int:
        """Return the identifier of the next command."""
        if pair is self.admin and opcode == EVENT_REQUEST:
            return EVENT_ID
        number, pair.next_id = pair.next_id, pair.next_id + 1
        return number % EVENT_ID if pair is self.admin else number

    @staticmethod
    def _wait(condition: Callable[[], bool], what: str) -> None:
        until = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < until, f"waited in vain for {what}"
            os.sched_yield()


def block(number: int) -> bytes:
    """Return a page whose every part says which one it is."""
    return struct.pack("<Q", number) * (PAGE // 8)


def put(driver: Driver, pair: Pair, number: int, nsid: int = 1) -> int:
    """Write page ``number`` of the medium, from a place of its own in memory."""
    at = DATA + number % 16 * PAGE
    driver.pages[at : at + PAGE] = block(number)
    return driver.submit(pair, WRITE, nsid, prp=driver.iova + at, cdw10=number * 8, cdw12=7)


def get(driver: Driver, pair: Pair, number: int, nsid: int = 1) -> bytes:
    """Read page ``number`` of the medium."""
    at = DATA + 20 * PAGE
    driver.pages[at : at + PAGE] = bytes(PAGE)
    driver.submit(pair, READ, nsid, prp=driver.iova + at, cdw10=number * 8, cdw12=7)
    assert driver.complete(pair, 1) == [0]
    return bytes(driver.pages[at : at + PAGE])


def settle(driver: Driver, pair: Pair) -> None:
    """Every command that waits completes with success, and nothing comes after that."""
    assert set(driver.complete(pair, len(pair.waiting))) <= {0}
    assert driver.nothing_more(pair)


def work(driver: Driver, pair: Pair, numbers: range) -> None:
    """Write pages and take their completions, a few at a time; read them again."""
    for first in numbers[::8]:
        for number in range(first, min(first + 8, numbers.stop)):
            put(driver, pair, number)
        settle(driver, pair)
    assert [get(driver, pair, number) for number in numbers[-8:]] == [block(number) for number in numbers[-8:]]
